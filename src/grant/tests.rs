//! What only shows from inside of a doorway.

use super::*;
use crate::owner::Asker;
use crate::reclaim;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

/// Notes who holds when it is called.
struct Look {
    space: &'static Space,
    holders: Mutex<Vec<usize>>,
}

impl Wake for Look {
    fn wake(self: Arc<Self>) {
        self.holders.lock().unwrap().push(count(&self.space.tree).0);
    }
}

#[test]
fn a_refused_batch_has_left_with_all_parts_before_a_waker_is_called() {
    let space: &'static Space = Box::leak(Box::new(Space::new(None)));
    let (holder, refused, behind) = (Owner::new(), Owner::new(), Owner::new());
    let ask = |range, asker: &Asker| Ask::new(space, range, Mode::Exclusive, asker);
    let (first, second) = (ByteRange::new(0..1), ByteRange::new(8..9));

    let asker = holder.enter();
    // SAFETY: the space is there for good, here and below.
    let held = unsafe { acquire(space, &ask(second, &asker), asker.visitor, Some(&holder)) }.unwrap();
    let asker = refused.enter();
    let asks = [(space, ask(first, &asker)), (space, ask(second, &asker))];
    // SAFETY: as above.
    let Err(parts) = (unsafe { publish_and_look_batch(&asks, asker.visitor) }) else { panic!("the second is held") };

    // Meanwhile somebody takes the first part for a holder.
    let look = Arc::new(Look { space, holders: Mutex::default() });
    let asker = behind.enter();
    // SAFETY: as above.
    let doorway = unsafe { enter(space, &ask(first, &asker), asker.visitor, Some(&behind)) };
    let Doorway::Queued(mut waiter) = doorway else { panic!("the first part is in its way") };
    let waker = Waker::from(look.clone());
    assert!(waiter.poll(&mut Context::from_waker(&waker)).is_pending());

    refuse(parts.into_iter().map(|part| part.live));
    assert_eq!(*look.holders.lock().unwrap(), [1], "one call, when nobody but the holder is there");
    drop((waiter, held));
}

/// Another thread of the same token is in its doorway, and will find that it must wait: that is nothing to refuse recursion for, nor to be nested in.
#[test]
fn what_a_token_is_only_asking_for_it_does_not_hold() {
    let space: &'static Space = Box::leak(Box::new(Space::new(None)));
    let (holder, token) = (Owner::new(), Owner::new());
    let (asked, held) = (ByteRange::new(0..9), ByteRange::new(8..9));
    let asker = holder.enter();
    // SAFETY: the space is there for good, here and below.
    let other =
        unsafe { acquire(space, &Ask::new(space, held, Mode::Add, &asker), asker.visitor, Some(&holder)) }.unwrap();

    let asker = token.enter();
    let ask = Ask::new(space, asked, Mode::Exclusive, &asker);
    // SAFETY: as above.
    let Err(live) = (unsafe { publish_and_look(space, &ask, asker.visitor) }) else { panic!("somebody holds a part") };
    let asker = token.enter();
    let ask = Ask::new(space, ByteRange::new(0..1), Mode::Block, &asker);
    assert_eq!(own_conflict(space, &ask), None);

    // When it holds it, that is another matter.
    drop(other);
    live.0.hold();
    assert_eq!(own_conflict(space, &ask), Some((asked, Mode::Exclusive)));
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
    let space: &Space = Box::leak(Box::new(Space::new(None)));
    let enter = |range: std::ops::Range<u64>, mode| {
        let asker = Asker { visitor: owner::visit(), owner: owner::fresh(), order: 0 };
        // SAFETY: the space is leaked.
        unsafe { enter(space, &Ask::new(space, ByteRange::new(range), mode, &asker), asker.visitor, None) }
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
    assert!(space.tree.heap_nodes(LazyPin::new().get()) > 0);
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

/// A request that backs out of a node which is being removed has notified whoever took it for a holder there; their wakers are called when it is granted.
#[test]
fn who_was_turned_back_delivers_what_it_has_found() {
    const FAR: u64 = 3 << 62;
    let space: &'static Space = Box::leak(Box::new(Space::new(None)));
    let ask = |byte: u64, asker: &Asker| Ask::new(space, ByteRange::new(byte..=byte), Mode::Exclusive, asker);
    let take = |byte| {
        let asker = owner::enter();
        // SAFETY: the space is there for good, here and below.
        unsafe { acquire(space, &ask(byte, &asker), asker.visitor, None) }.unwrap()
    };
    // The root is full: who comes next is in a child.
    let far: Vec<Held> = (0..8).map(|at| take(FAR + at)).collect();
    drop(take(0));

    // One who leaves as a withdrawal does: who waits for it is notified, and not woken yet.
    let (leaving, behind) = (Owner::new(), Owner::new());
    let asker = leaving.enter();
    // SAFETY: as above.
    let live = unsafe { Live::publish(&space.tree, &ask(FAR + 100, &asker), asker.visitor, &LazyPin::new()) };
    let asker = behind.enter();
    // SAFETY: as above.
    let doorway = unsafe { enter(space, &ask(FAR + 100, &asker), asker.visitor, Some(&behind)) };
    let Doorway::Queued(mut waiter) = doorway else { panic!("somebody is in its way") };
    let woken = Arc::new(Count::default());
    let waker = Waker::from(woken.clone());
    assert!(waiter.poll(&mut Context::from_waker(&waker)).is_pending());
    live.leave();
    assert_eq!(woken.0.load(Ordering::Relaxed), 0);

    let asker = owner::enter();
    space.tree.freeze_for(&ask(0, &asker).entry, &LazyPin::new());
    let turned_back = take(0);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1, "woken when the request was granted");
    drop((turned_back, waiter, far));
}
