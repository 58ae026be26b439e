//! What only shows from inside of a doorway.

#[path = "tests/order.rs"]
mod order;

use super::*;
use crate::facts::owner::Asker;
use crate::platform::reclaim;
use crate::tree::SLOTS;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

#[path = "tests/cost.rs"]
mod cost;

/// Notes who holds when it is called.
struct Look {
    state: &'static LockState,
    holders: Mutex<Vec<usize>>,
}

impl Wake for Look {
    fn wake(self: Arc<Self>) {
        self.holders.lock().unwrap().push(count(&self.state.tree).0);
    }
}

#[test]
fn a_refused_batch_has_left_with_all_parts_before_a_waker_is_called() {
    let state: &'static LockState = Box::leak(Box::new(LockState::new(None)));
    let (holder, refused, behind) = (Owner::new(), Owner::new(), Owner::new());
    let ask = |range, asker: &Asker| Ask::new(state, range, Mode::Exclusive, asker);
    let (first, second) = (ByteRange::new(0..1), ByteRange::new(8..9));

    let asker = holder.enter();
    // SAFETY: the state is there for good, here and below.
    let held = unsafe { acquire(state, &ask(second, &asker), asker.visitor, Some(&holder)) }.unwrap();
    let asker = refused.enter();
    let asks = [(state, ask(first, &asker)), (state, ask(second, &asker))];
    // SAFETY: as above.
    let Err(parts) = (unsafe { publish_and_look_batch(&asks, asker.visitor) }) else { panic!("the second is held") };

    // Meanwhile somebody takes the first part for a holder.
    let look = Arc::new(Look { state, holders: Mutex::default() });
    let asker = behind.enter();
    // SAFETY: as above.
    let doorway = unsafe { enter(state, &ask(first, &asker), asker.visitor, Some(&behind)) };
    let Doorway::Queued(mut waiter) = doorway else { panic!("the first part is in its way") };
    let waker = Waker::from(look.clone());
    assert!(waiter.poll(&mut Context::from_waker(&waker)).is_pending());

    refuse(parts.into_iter().map(|part| part.live));
    assert_eq!(*look.holders.lock().unwrap(), [1], "one call, when nobody but the holder is there");
    drop((waiter, held));
}

/// Another thread of the same token is in its doorway, and will find that it must wait: that is nothing to refuse
/// recursion for, nor to be nested in.
#[test]
fn what_a_token_is_only_asking_for_it_does_not_hold() {
    let state: &'static LockState = Box::leak(Box::new(LockState::new(None)));
    let (holder, token) = (Owner::new(), Owner::new());
    let (asked, held) = (ByteRange::new(0..9), ByteRange::new(8..9));
    let asker = holder.enter();
    // SAFETY: the state is there for good, here and below.
    let other =
        unsafe { acquire(state, &Ask::new(state, held, Mode::Add, &asker), asker.visitor, Some(&holder)) }.unwrap();

    let asker = token.enter();
    let ask = Ask::new(state, asked, Mode::Exclusive, &asker);
    // SAFETY: as above.
    let published = unsafe { publish_and_look(state, &ask, asker.visitor, None) };
    let Err(Barred::Else(live)) = published else { panic!("somebody holds a part") };
    let asker = token.enter();
    let ask = Ask::new(state, ByteRange::new(0..1), Mode::Block, &asker);
    assert_eq!(own_conflict(state, &ask), None);

    // When it holds it, that is another matter.
    drop(other);
    let _ = live.0.hold();
    assert_eq!(own_conflict(state, &ask), Some((asked, Mode::Exclusive)));
    drop(live);
}

/// Counts calls, and those under a pin.
#[derive(Default)]
struct Calls {
    all: AtomicUsize,
    pinned: AtomicUsize,
}

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        self.all.fetch_add(1, Ordering::Relaxed);
        self.pinned.fetch_add(usize::from(reclaim::is_pinned()), Ordering::Relaxed);
    }
}

#[test]
fn no_waker_is_called_while_pinned() {
    let state: &LockState = Box::leak(Box::new(LockState::new(None)));
    let enter = |range: std::ops::Range<u64>, mode| {
        let asker = Asker { visitor: owner::visit(), owner: owner::fresh(), order: 0 };
        // SAFETY: the state is leaked.
        unsafe { enter(state, &Ask::new(state, ByteRange::new(range), mode, &asker), asker.visitor, None) }
    };
    let granted = |range, mode| match enter(range, mode) {
        Doorway::Granted(held) => held,
        Doorway::Queued(_) => panic!("nobody is in the way"),
    };
    let queued = |mode| match enter(100..200, mode) {
        Doorway::Queued(waiter) => waiter,
        Doorway::Granted(_) => panic!("somebody is in the way"),
    };
    // So many that the root is full, and those that follow are below it, where a release needs a pin.
    let crowd: Vec<_> = (0..20).map(|at| granted(at..at + 1, Mode::Block)).collect();
    assert!(state.tree.heap_nodes(LazyPin::new().get()) > 0);
    let holder = granted(100..200, Mode::Block);
    let calls = Arc::new(Calls::default());
    let waker = Waker::from(Arc::clone(&calls));
    let mut waiters = [Mode::Exclusive, Mode::Block, Mode::Add].map(queued);
    for waiter in &mut waiters {
        assert!(waiter.poll(&mut Context::from_waker(&waker)).is_pending());
    }
    let [cancelled, mut behind, mut last] = waiters;
    drop(cancelled);
    assert_eq!(calls.all.load(Ordering::Relaxed), 1, "the cancelled one wakes the one behind it");
    let mut noop = Context::from_waker(Waker::noop());
    assert!(behind.poll(&mut noop).is_ready());
    drop((behind, holder));
    assert!(calls.all.load(Ordering::Relaxed) > 1, "the releases wake the last one");
    assert!(last.poll(&mut noop).is_ready());
    assert_eq!(calls.pinned.load(Ordering::Relaxed), 0);
    drop((last, crowd));
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A request that backs out of a node which is being removed has notified whoever took it for a holder there; their
/// wakers are called when it is granted.
#[test]
fn who_was_turned_back_delivers_what_it_has_found() {
    const FAR: u64 = 3 << 62;
    let state: &'static LockState = Box::leak(Box::new(LockState::new(None)));
    let ask = |byte: u64, asker: &Asker| Ask::new(state, ByteRange::new(byte..=byte), Mode::Exclusive, asker);
    let take = |byte| {
        let asker = owner::enter();
        // SAFETY: the state is there for good, here and below.
        unsafe { acquire(state, &ask(byte, &asker), asker.visitor, None) }.unwrap()
    };
    // The root is full: who comes next is in a child.
    let far: Vec<Held> = (0..8).map(|at| take(FAR + at)).collect();
    drop(take(0));

    // One who leaves as a withdrawal does: who waits for it is notified, and not woken yet.
    let (leaving, behind) = (Owner::new(), Owner::new());
    let asker = leaving.enter();
    // SAFETY: as above.
    let live = unsafe { Live::publish(&state.tree, &ask(FAR + 100, &asker), asker.visitor, &LazyPin::new()) };
    let asker = behind.enter();
    // SAFETY: as above.
    let doorway = unsafe { enter(state, &ask(FAR + 100, &asker), asker.visitor, Some(&behind)) };
    let Doorway::Queued(mut waiter) = doorway else { panic!("somebody is in its way") };
    let woken = Arc::new(Count::default());
    let waker = Waker::from(woken.clone());
    assert!(waiter.poll(&mut Context::from_waker(&waker)).is_pending());
    live.leave();
    assert_eq!(woken.0.load(Ordering::Relaxed), 0);

    let asker = owner::enter();
    state.tree.freeze_for(&ask(0, &asker).entry, &LazyPin::new());
    let turned_back = take(0);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1, "woken when the request was granted");
    drop((turned_back, waiter, far));
}

/// A request in a state that stays, up to the end of its doorway; by the thread, for `owner`.
fn enter_of(state: &'static LockState, owner: &Owner, range: std::ops::Range<u64>, mode: Mode) -> Doorway<Held> {
    let asker = owner.enter();
    // SAFETY: the state is there for good.
    unsafe { enter(state, &Ask::new(state, ByteRange::new(range), mode, &asker), asker.visitor, Some(owner)) }
}

fn hold_of(state: &'static LockState, owner: &Owner, range: std::ops::Range<u64>, mode: Mode) -> Held {
    match enter_of(state, owner, range, mode) {
        Doorway::Granted(held) => held,
        Doorway::Queued(_) => panic!("nobody is in the way"),
    }
}

fn queue_of(state: &'static LockState, owner: &Owner, range: std::ops::Range<u64>, mode: Mode) -> Waiter {
    match enter_of(state, owner, range, mode) {
        Doorway::Queued(waiter) => waiter,
        Doorway::Granted(_) => panic!("somebody is in the way"),
    }
}

/// A request that stops in its doorway.
fn stop_in_doorway(state: &'static LockState, owner: &Owner, range: std::ops::Range<u64>, mode: Mode) -> Live {
    let asker = owner.enter();
    let ask = Ask::new(state, ByteRange::new(range), mode, &asker);
    // SAFETY: the state is there for good.
    unsafe { Live::publish(&state.tree, &ask, asker.visitor, &LazyPin::new()) }
}

fn new_space() -> &'static LockState {
    Box::leak(Box::new(LockState::new(None)))
}

/// One who came later, and is stopped in his doorway, holds up neither who waits nor whom that one waits for.
#[test]
fn who_is_stopped_in_his_doorway_holds_up_nobody_who_came_before() {
    for nested in [false, true] {
        let (state, elsewhere) = (new_space(), new_space());
        let [first, second, third, later] = [(); 4].map(|()| Owner::new());
        let more =
            nested.then(|| [&first, &second, &third, &later].map(|owner| hold_of(elsewhere, owner, 0..8, Mode::Add)));
        let holder = hold_of(state, &first, 0..8, Mode::Exclusive);
        let mut waiters = [&second, &third].map(|owner| queue_of(state, owner, 0..8, Mode::Exclusive));
        let stopped = stop_in_doorway(state, &later, 4..8, Mode::Exclusive);
        let mut noop = Context::from_waker(Waker::noop());
        assert!(waiters.iter_mut().all(|waiter| waiter.poll(&mut noop).is_pending()));
        drop(holder);
        let [mut second, mut third] = waiters;
        assert!(second.poll(&mut noop).is_ready(), "its way is free");
        drop(second.into_holds());
        assert!(third.poll(&mut noop).is_ready(), "its way is free, too");
        drop((third, stopped, more));
    }
}

/// One who came before, and is stopped in his doorway, keeps a search from its end; but neither a poll nor a deadline
/// waits for him, nor does a grant that has nothing to do with him. When he has gone on, the search is made.
#[test]
fn a_search_that_is_owed_blocks_nobody() {
    let (a, b) = (new_space(), new_space());
    let [two, three, token] = [(); 3].map(|()| Owner::new());
    let stopped = stop_in_doorway(b, &token, 0..8, Mode::Add);
    let of_2 = hold_of(a, &two, 0..8, Mode::Exclusive);
    let of_3 = hold_of(b, &three, 0..8, Mode::Add);
    let mut in_b = queue_of(b, &two, 0..8, Mode::Exclusive);
    let mut in_a = queue_of(a, &three, 0..8, Mode::Exclusive);
    let calls = [(); 2].map(|()| Arc::new(Count::default()));
    let wakers = calls.each_ref().map(|calls| Waker::from(calls.clone()));
    let mut contexts = wakers.each_ref().map(Context::from_waker);
    let is_called = || calls.each_ref().map(|calls| calls.0.load(Ordering::Relaxed) > 0);
    assert!(in_b.poll(&mut contexts[0]).is_pending());
    assert!(in_a.poll(&mut contexts[1]).is_pending());
    assert_eq!(is_called(), [false; 2]);

    // A deadline is kept.
    let deadline = Instant::now() + std::time::Duration::from_millis(1);
    assert!(matches!(queue_of(a, &three, 0..8, Mode::Add).wait_until(deadline), Err(Refused::TimedOut)));

    // What he asks for, he gets: both hear of it, and the search of who polls first finds the deadlock.
    let _ = stopped.0.hold();
    wait::deliver();
    assert_eq!(is_called(), [true; 2]);
    assert!(matches!(in_a.poll(&mut contexts[1]), Poll::Ready(Err(Refused::Deadlock(_)))));
    drop((in_a, of_3));
    assert!(in_b.poll(&mut contexts[0]).is_pending(), "the token holds");
    drop(stopped);
    assert!(in_b.poll(&mut contexts[0]).is_ready());
    drop((in_b, of_2));
}

/// The same; shape: what the searcher waits for is released while he who was stopped stays where he is.
#[test]
fn a_search_that_is_owed_keeps_nobody_from_a_grant() {
    let (a, b) = (new_space(), new_space());
    let [two, three, token] = [(); 3].map(|()| Owner::new());
    let stopped = stop_in_doorway(b, &token, 0..8, Mode::Exclusive);
    let of_2 = hold_of(b, &two, 8..9, Mode::Exclusive);
    let of_3 = hold_of(a, &three, 0..8, Mode::Exclusive);
    let behind = queue_of(b, &three, 0..8, Mode::Exclusive);
    let mut waiter = queue_of(a, &two, 0..8, Mode::Exclusive);
    let calls = Arc::new(Count::default());
    let waker = Waker::from(calls.clone());
    let mut context = Context::from_waker(&waker);
    assert!(waiter.poll(&mut context).is_pending());
    drop(of_3);
    assert_eq!(calls.0.load(Ordering::Relaxed), 1, "it listens to both");
    assert!(waiter.poll(&mut context).is_ready());
    drop((waiter, behind, of_2, stopped));
}

/// A boundary of the root's cells, and another one: a request across a boundary is in the root or in its chain.
const MIDDLE: u64 = 1 << 63;
const ELSEWHERE: u64 = 1 << 62;

/// So many requests across the other boundary.
fn fill(state: &'static LockState, slots: usize) -> Vec<Held> {
    (0..slots).map(|_| hold_of(state, &Owner::new(), ELSEWHERE - 1..ELSEWHERE + 1, Mode::Add)).collect()
}

/// What `live` becomes, which has found somebody in its way.
fn queue_live(state: &'static LockState, owner: &Owner, live: Live) -> Waiter {
    let (range, mode) = (Held(live), Mode::Exclusive);
    let (asked, order) = (range.range(), range.order().unwrap());
    let ask = Ask::at(asked, mode, owner.id().get(), order);
    Waiter::queue(
        SmallVec::from_buf([Part { state: NonNull::from(state), live: range.0, ask, is_covered: false }]),
        Some(owner),
        Manner::Waits,
    )
}

/// A node of a chain is newer than the one of who waits; but he who is there has drawn his ticket first.
#[test]
fn who_is_in_front_is_waited_for_wherever_he_is() {
    let state = new_space();
    let [first, second, third, fourth] = [(); 4].map(|()| Owner::new());
    let range = MIDDLE - 1..MIDDLE + 1;
    let root = fill(state, SLOTS);
    let holder = hold_of(state, &first, range.clone(), Mode::Exclusive);
    let slow = stop_in_doorway(state, &second, range.clone(), Mode::Exclusive);
    let rest = fill(state, SLOTS - 2);
    assert_eq!(heap_nodes(&state.tree), 1, "a chain of one");
    let mut in_front = queue_of(state, &third, range.clone(), Mode::Exclusive);
    assert_eq!(heap_nodes(&state.tree), 2, "and one that is newer");
    let between = queue_of(state, &fourth, range, Mode::Exclusive);
    let mut behind = queue_live(state, &second, slow);
    let mut noop = Context::from_waker(Waker::noop());
    assert!(in_front.poll(&mut noop).is_pending() && behind.poll(&mut noop).is_pending());
    // Whom it sleeps on gives up: it looks again, and when nobody holds.
    drop((holder, between));
    assert!(behind.poll(&mut noop).is_pending(), "it is behind");
    assert!(in_front.poll(&mut noop).is_ready());
    let held = in_front.into_holds();
    assert!(behind.poll(&mut noop).is_pending(), "it is held");
    drop(held);
    assert!(behind.poll(&mut noop).is_ready());
    drop((behind, rest, root));
}

/// A hold moves into a node that is newer than the one of who waits, and has looked at the newer ones.
#[test]
fn a_hold_that_moves_is_found_wherever_it_goes() {
    let state = new_space();
    let [first, second] = [(); 2].map(|()| Owner::new());
    let root = fill(state, SLOTS);
    let mut held = hold_of(state, &first, MIDDLE - 8..MIDDLE + 8, Mode::Exclusive);
    let mut waiter = queue_of(state, &second, MIDDLE - 1..MIDDLE + 1, Mode::Exclusive);
    let rest = fill(state, SLOTS - 2);
    assert_eq!(heap_nodes(&state.tree), 1, "a chain of one");
    let mut noop = Context::from_waker(Waker::noop());
    assert!(waiter.poll(&mut noop).is_pending());
    // SAFETY: the state is there for good.
    let moved = unsafe { crate::protocol::convert::split_off(state, &held, ByteRange::new(MIDDLE - 4..MIDDLE + 8)) };
    assert_eq!(heap_nodes(&state.tree), 2, "and one that is newer");
    crate::protocol::convert::shrink(&mut held, ByteRange::new(MIDDLE - 8..MIDDLE - 4));
    assert!(waiter.poll(&mut noop).is_pending(), "it is held");
    drop(moved);
    assert!(waiter.poll(&mut noop).is_ready());
    drop((waiter, held, rest, root));
}

/// Parts that lie in one another look once. But the one in the same lock and the same mode only counts.
#[test]
fn a_part_is_covered_by_another_of_its_lock_and_its_mode() {
    let (here, there) = (new_space(), new_space());
    let ask = |state, range, mode: Mode| (state, Ask::at(ByteRange::new(range), mode, 1, 0));
    let parts = [
        ask(here, 4..8, Mode::Exclusive),
        ask(here, 0..16, Mode::Add),
        ask(here, 2..16, Mode::Exclusive),
        ask(there, 4..8, Mode::Exclusive),
        ask(here, 2..16, Mode::Exclusive),
        ask(here, 15..17, Mode::Exclusive),
        ask(here, 16..17, Mode::Exclusive),
        ask(here, 8..9, Mode::Block),
    ];
    assert_eq!(covered(&parts)[..], [true, false, false, false, true, false, true, false]);
}

/// A part that another one covers lies above a node that a thread has a shortcut to, and is held when the other one is
/// not any more.
#[test]
fn a_part_that_is_covered_bars_shortcuts_too() {
    let (state, batch) = (new_space(), Owner::new());
    let page = 0..4096;
    let enter = |owner: &Owner| enter_of(state, owner, page.clone(), Mode::Exclusive);
    // The root is full, so there is a child for the page; and this thread is at home there.
    let mut far: Vec<_> = (0..SLOTS as u64)
        .map(|at| hold_of(state, &Owner::new(), 3 * ELSEWHERE + at..MIDDLE + ELSEWHERE + at + 1, Mode::Add))
        .collect();
    for _ in 0..8 {
        assert!(matches!(enter(&Owner::new()), Doorway::Granted(_)));
    }
    far.truncate(SLOTS - 2);
    let asker = batch.enter();
    let ask = Ask::new(state, ByteRange::new(page.clone()), Mode::Exclusive, &asker);
    // SAFETY: the state is there for good, here and below.
    let by_shortcut = unsafe { state.tree.place_by_shortcut(ask.entry, ask.mode().against(), asker.visitor) };
    let ByShortcut::Placed(placed, Glance::Clear) = by_shortcut else { panic!("there is a shortcut") };
    drop(Live(placed));

    let pin = LazyPin::new();
    let part = |is_covered| {
        // SAFETY: as above.
        let live = unsafe { Live::publish(&state.tree, &ask, asker.visitor, &pin) };
        Part { state: NonNull::from(state), live, ask, is_covered }
    };
    let in_child = part(false);
    // A pruner is there for a moment.
    state.tree.freeze_for(&ask.entry, &pin);
    let in_root = part(true);
    state.tree.thaw_for(&ask.entry, &pin);
    let parts = [in_child, in_root];
    assert!(are_clear(&parts, &pin));
    let [in_child, in_root] = parts;
    drop(in_child.live);
    assert!(matches!(enter(&Owner::new()), Doorway::Queued(_)), "it is held");
    drop((in_root.live, far));
}
