//! What a search costs, in steps: slots, requests and owners looked at. And what a search says of what nobody can
//! arrange from outside.

use super::super::{Enlisted, Site};
use super::*;
use crate::AcquireError;
use crate::Owner;
use crate::RangeLock;
use crate::facts::owner::Asker;
use crate::protocol::grant::Live;
use crate::surface::batch::Batch;
use std::future::{Future, IntoFuture};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

#[path = "tests/stopped.rs"]
mod stopped;

/// How many of everything. More waiters take too long to queue in a build that is not optimised.
const SIZES: &[u64] = if cfg!(debug_assertions) { &[100, 1_000] } else { &[100, 1_000, 10_000, 100_000] };

/// For steps that make others' steps many: n searches of n steps.
const SMALLER: &[u64] = if cfg!(debug_assertions) { &[100, 300] } else { &[100, 1_000, 2_000] };

/// A search may look at each thing so often, a logarithm apart.
const EACH: u64 = 12;

fn poll<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn lock() -> &'static RangeLock {
    Box::leak(Box::new(RangeLock::new()))
}

fn hold(lock: &'static RangeLock, owner: &Owner, range: Range<u64>, mode: Mode) -> impl Sized + use<> {
    lock.request(range, mode).owner(owner).try_now().expect("it is free")
}

/// Queues a request of somebody who has nothing else.
fn plain(lock: &'static RangeLock, range: Range<u64>, mode: Mode) -> impl Sized + use<> {
    let mut future = Box::pin(lock.request(range, mode).into_future());
    assert!(poll(&mut future).is_pending(), "somebody is in its way");
    future
}

/// Queues a request of an owner, and says how many steps its search made.
fn search(lock: &'static RangeLock, owner: &Owner, range: Range<u64>, mode: Mode) -> (impl Sized + Send + use<>, u64) {
    let mut future = Box::pin(lock.request(range, mode).owner(owner).into_future());
    assert!(poll(&mut future).is_pending(), "somebody is in its way");
    (future, steps::of_the_last_search() as u64)
}

#[track_caller]
fn assert_few(steps: u64, things: u64, what: &str) {
    assert!(steps > 0, "nothing was counted");
    let each = EACH + u64::from(things.ilog2());
    assert!(steps <= each * things + 100, "{steps} steps for {things} things: {what}");
}

#[test]
fn plain_waiters_on_one_row_are_looked_at_once() {
    for modes in [[Mode::Exclusive; 2], [Mode::Add, Mode::Block]] {
        for &n in SIZES {
            let (hot, rows, me) = (lock(), lock(), Owner::new());
            let held = hold(hot, &Owner::new(), 0..1, Mode::Exclusive);
            let queue: Vec<_> = (0..n).map(|i| plain(hot, 0..1, modes[(i % 2) as usize])).collect();
            let row = hold(rows, &me, 0..1, Mode::Exclusive);
            let (nested, steps) = search(hot, &me, 0..1, Mode::Exclusive);
            assert_few(steps, n, "waiters in front");
            drop((nested, row, queue, held));
        }
    }
}

#[test]
fn plain_waiters_on_rows_of_their_own_are_looked_at_once() {
    for &n in SIZES {
        let (hot, rows, me) = (lock(), lock(), Owner::new());
        let held = hold(hot, &Owner::new(), 0..16 * n, Mode::Exclusive);
        let queue: Vec<_> = (0..n).map(|i| plain(hot, 16 * i..16 * i + 1, Mode::Exclusive)).collect();
        let row = hold(rows, &me, 0..1, Mode::Exclusive);
        let (nested, steps) = search(hot, &me, 0..16 * n, Mode::Exclusive);
        assert_few(steps, n, "waiters in front");
        drop((nested, row, queue, held));
    }
}

/// Each holds a row, and waits for one that somebody else has: n searches.
#[test]
fn nested_waiters_on_one_row_cost_a_square_in_all() {
    for &n in SMALLER {
        let (hot, rows) = (lock(), lock());
        let held = hold(hot, &Owner::new(), 0..1, Mode::Exclusive);
        let mut all = Vec::new();
        for i in 0..n {
            let me = Owner::new();
            let row = hold(rows, &me, 16 * i..16 * i + 1, Mode::Exclusive);
            let (nested, steps) = search(hot, &me, 0..1, Mode::Exclusive);
            assert_few(steps, i + 1, "waiters in front");
            all.push((nested, row));
        }
        drop((all, held));
    }
}

/// Whoever the searcher needs are n, each with n in front.
#[test]
fn holders_that_wait_behind_one_another_are_looked_at_once() {
    for &n in SMALLER {
        let (hot, other, rows, me) = (lock(), lock(), lock(), Owner::new());
        let held = hold(other, &Owner::new(), 0..1, Mode::Exclusive);
        let mut all = Vec::new();
        for _ in 0..n {
            let owner = Owner::new();
            let shared = hold(hot, &owner, 0..1, Mode::Add);
            all.push((search(other, &owner, 0..1, Mode::Exclusive), shared));
        }
        let row = hold(rows, &me, 0..1, Mode::Exclusive);
        let (nested, steps) = search(hot, &me, 0..1, Mode::Exclusive);
        assert_few(steps, 2 * n, "holders, and their waits");
        drop((nested, row, all, held));
    }
}

#[test]
fn one_owner_with_many_requests_is_looked_at_once() {
    for apart in [0, 16] {
        for &n in SMALLER {
            let (hot, rows, me) = (lock(), lock(), Owner::new());
            let held = hold(hot, &Owner::new(), 0..16 * n, Mode::Exclusive);
            let row = hold(rows, &me, 0..1, Mode::Exclusive);
            let mut all = Vec::new();
            for i in 0..n {
                let (nested, steps) = search(hot, &me, apart * i..apart * i + 1, Mode::Exclusive);
                assert_few(steps, i + 1, "requests of one owner");
                all.push(nested);
            }
            drop((all, row, held));
        }
    }
}

#[test]
fn a_range_that_is_many_times_in_a_batch_is_looked_at_once() {
    for &n in SIZES {
        let (hot, rows, me) = (lock(), lock(), Owner::new());
        let held = hold(hot, &Owner::new(), 0..1, Mode::Exclusive);
        let row = hold(rows, &me, 0..1, Mode::Exclusive);
        let batch = (0..n).fold(Batch::new(), |batch, _| batch.exclusive(hot, 0..1));
        let mut future = Box::pin(batch.owner(&me).into_future());
        assert!(poll(&mut future).is_pending());
        assert_few(steps::of_the_last_search() as u64, n, "parts of a batch");
        drop((future, row, held));
    }
}

/// All who wait lead to the searcher, which passes them: each pair is a pass.
#[test]
fn passes_cost_a_step_each() {
    for mode in [Mode::Block, Mode::Exclusive] {
        for &n in SIZES {
            let (hot, me) = (lock(), Owner::new());
            let mine = hold(hot, &me, 0..1, Mode::Add);
            let queue: Vec<_> = (0..n).map(|_| plain(hot, 0..2, mode)).collect();
            // Nobody holds what it asks for, so that it is granted by its passes.
            let mut future = Box::pin(hot.request(1..2, Mode::Add).owner(&me).into_future());
            let granted = poll(&mut future);
            assert!(granted.is_ready(), "it passes everybody");
            assert_few(steps::of_the_last_search() as u64, n, "waiters that are passed");
            drop((granted, queue, mine));
        }
    }
}

/// Its deadline ends a search soon, in whatever it is at that time: at its start, among what it looks at, among the
/// passes. Who was let past by then changes nothing for the others.
#[test]
fn a_deadline_ends_a_search() {
    let search_until = |time: Option<Duration>, is_over_at| {
        let (hot, me) = (lock(), Owner::new());
        let mine = hold(hot, &me, 0..1, Mode::Add);
        let mut queue: Vec<_> = (0..2_000).map(|_| Box::pin(hot.request(0..2, Mode::Block).into_future())).collect();
        assert!(queue.iter_mut().all(|future| poll(future).is_pending()), "somebody is in their way");
        let request = hot.request(1..2, Mode::Add).owner(&me);
        steps::begin();
        let answer = match time.map(|time| Instant::now() + time) {
            Some(deadline) => {
                steps::stop_at(is_over_at, move || while Instant::now() < deadline {});
                request.deadline(deadline).wait()
            }
            None => request.wait(),
        };
        let is_late = matches!(answer, Err(AcquireError::TimedOut(_)));
        drop((answer, mine));
        assert!(queue.iter_mut().all(|future| poll(future).is_ready()), "nobody is in their way");
        (is_late, steps::of_the_last_search())
    };
    let (is_late, all) = search_until(None, 0);
    assert!(!is_late && all > 20 * Pace::FEW, "{all} steps are all");
    for eighths in 0..8 {
        let at = 1 + all * eighths / 8;
        // Its time is over at that step, if not before.
        let (is_late, steps) = search_until(Some(Duration::from_millis(20)), at);
        let most = at + 2 * Pace::FEW;
        assert!(is_late && steps <= most, "late: {is_late}; {steps} steps of {all}, where {most} were to be the most");
    }
}

/// Many who sleep in one place are let past the same one: they are woken together.
#[test]
fn whoever_is_let_past_somebody_is_woken_in_one_go() {
    for &n in SMALLER {
        let (hot, other, rows, me) = (lock(), lock(), lock(), Owner::new());
        let (row, held) = (hold(rows, &me, 0..1, Mode::Exclusive), hold(other, &Owner::new(), 0..1, Mode::Exclusive));
        // It waits for the searcher, and whoever the searcher needs is behind it.
        let mut between = Box::pin(Batch::new().exclusive(rows, 0..1).exclusive(other, 0..1).into_future());
        assert!(poll(&mut between).is_pending());
        let mut all = Vec::new();
        for _ in 0..n {
            let owner = Owner::new();
            let shared = hold(hot, &owner, 0..1, Mode::Add);
            all.push((search(other, &owner, 0..1, Mode::Exclusive), shared));
        }
        let (nested, steps) = search(hot, &me, 0..1, Mode::Exclusive);
        assert_few(steps, 2 * n, "requests that pass another, and who is in front");
        drop((nested, all, between, row, held));
    }
}

/// A request that is taken step by step, of an owner or of this thread. (The index is left before the slots.)
struct Request {
    enlisted: Option<Enlisted>,
    lives: Vec<Live>,
    asks: Vec<Ask>,
    state: &'static LockState,
    ticket: u64,
}

impl Request {
    /// It is published, and has not looked.
    fn publish(state: &'static LockState, asker: &Asker, ranges: &[ByteRange], mode: Mode) -> Request {
        let pin = LazyPin::new();
        let asks: Vec<_> = ranges.iter().map(|range| Ask::new(state, *range, mode, asker)).collect();
        // SAFETY: the state is there for good.
        let lives = asks.iter().map(|ask| unsafe { Live::publish(&state.tree, ask, asker.visitor, &pin) }).collect();
        Request { enlisted: None, lives, asks, state, ticket: 0 }
    }

    /// It queues: if it is nested, or a token's, or a batch, by way of the index.
    fn queue(self, token: Option<&Owner>) -> Request {
        let request = self.enlist(token);
        request.lives.iter().for_each(|live| live.0.queue(request.ticket));
        request
    }

    /// It is about to queue.
    fn enlist(mut self, token: Option<&Owner>) -> Request {
        self.lives.iter().for_each(|live| live.0.start_queuing());
        let first = self.asks[0];
        self.ticket = owner::ticket_for(first.is_nested());
        self.state.raise_bar(self.ticket);
        if self.lives.len() > 1 || first.is_nested() || token.is_some() {
            let state = NonNull::from(self.state);
            let site = |(live, ask): (&Live, &Ask)| Site::new(state, *ask, live.0.own(ask.entry.mode));
            let sites = self.lives.iter().zip(&self.asks).map(site).collect();
            // SAFETY: the state is there for good, and the slots are for as long as the `Request`, which drops this
            // first.
            self.enlisted = Some(unsafe { Enlisted::new(self.ticket, &first, token, sites) });
        }
        self
    }

    /// It holds.
    fn hold(self) -> Request {
        self.lives.iter().for_each(|live| _ = live.0.hold());
        self
    }

    fn blocked(&self) -> &Arc<Blocked> {
        &self.enlisted.as_ref().expect("it is in the index").blocked
    }
}

fn bytes(range: Range<u64>) -> ByteRange {
    ByteRange::new(range)
}

fn state() -> &'static LockState {
    Box::leak(Box::new(LockState::new(None)))
}

/// Whose words lag behind its decision: it holds, for whoever searches; and whose blocked requests it leads to.
#[test]
fn a_batch_that_is_decided_holds_whatever_its_words_say() {
    let (rows, hot, me, it) = (state(), state(), Owner::new(), Owner::new());
    let mine = Request::publish(rows, &me.enter(), &[bytes(0..1)], Mode::Exclusive).hold();
    let for_mine = Request::publish(rows, &it.enter(), &[bytes(0..1)], Mode::Exclusive).queue(Some(&it));
    let batch = Request::publish(hot, &it.enter(), &[bytes(0..1), bytes(8..9)], Mode::Exclusive).queue(Some(&it));
    let nested = Request::publish(hot, &me.enter(), &[bytes(0..1)], Mode::Exclusive).queue(Some(&me));
    let pin = LazyPin::new();

    // It is queued, so nobody holds what is asked for. Whoever leads back is passed.
    let mut turns = Turns::default();
    let mut search = Search::new(&pin, &mut turns, None);
    let needed = search.needed(me.id()).ok().expect("no cycle of grants");
    assert_eq!(needed.owners, BTreeSet::from([me.id()]));
    search.go_everywhere(&needed).ok().expect("nobody is in the doorway");
    let back = search.leading_back(&BTreeSet::from([me.id()])).ok().expect("it has no deadline");
    let pairs = search.pairs(me.id(), &needed, &back).ok().expect("no other search goes on");
    assert_eq!(pairs.iter().map(|&(_, w, _)| search.knots[w].ticket).collect::<Vec<_>>(), [batch.ticket]);
    drop(search);
    drop(turns);

    batch.enlisted.as_ref().unwrap().decide();
    let Err(Stop::Deadlock(deadlock)) = Search::new(&pin, &mut Turns::default(), None).run(nested.blocked()) else {
        panic!("it holds")
    };
    assert_eq!(deadlock.waits().len(), 2, "{deadlock}");
    drop((nested, batch, for_mine, mine));
}

/// What a scan took for a hold is looked at again when its owner turns out to be blocked: it may be that very request,
/// which has queued.
#[test]
fn a_request_of_a_thread_that_queues_meanwhile_is_no_hold() {
    let (hot, me) = (state(), Owner::new());
    let (mine, thread) = (me.enter(), owner::enter());
    let nested = Request::publish(hot, &me.enter(), &[bytes(0..1)], Mode::Exclusive);
    let in_doorway = Request::publish(hot, &owner::enter(), &[bytes(0..2)], Mode::Exclusive);
    let nested = nested.queue(Some(&me));
    let pin = LazyPin::new();
    let mut turns = Turns::default();
    let mut search = Search::new(&pin, &mut turns, None);
    let own = search.blocked_of(mine.owner).ok().expect("no other search goes on");
    view_of(&mut search, own[0]);
    let queued = in_doorway.queue(None);
    assert!(matches!(search.needed(mine.owner), Err(Stop::Unsettled)), "{} holds nothing", thread.owner);
    drop(search);
    drop(turns);
    let mut turns = Turns::default();
    assert!(
        matches!(Search::new(&pin, &mut turns, None).needed(mine.owner), Ok(needed) if needed.owners == BTreeSet::from([me.id()]))
    );
    drop((queued, nested));
    owner::leave();
    owner::leave();
}

fn view_of(search: &mut Search<'_>, knot: KnotId) -> ViewId {
    let Ok(views) = search.views_of(knot) else { panic!("it has no deadline") };
    views[0].0
}

/// Whoever queues while a search goes on does not share a view in which something can be missing that is in front of it
/// (INV-V2).
#[test]
fn a_view_is_not_older_than_a_waiter_in_it() {
    let (hot, me) = (state(), Owner::new());
    let holder = Request::publish(hot, &Owner::new().enter(), &[bytes(0..9)], Mode::Exclusive).hold();
    let nested = Request::publish(hot, &me.enter(), &[bytes(0..1)], Mode::Exclusive).queue(Some(&me));
    let pin = LazyPin::new();
    let mut turns = Turns::default();
    let mut search = Search::new(&pin, &mut turns, None);
    let old = search.knot(nested.blocked().clone());
    let view = view_of(&mut search, old);
    assert_eq!(search.views[view].things.len(), 2, "the holder, and itself");

    let tokens = [Owner::new(), Owner::new()];
    let late = tokens
        .each_ref()
        .map(|token| Request::publish(hot, &token.enter(), &[bytes(0..1)], Mode::Exclusive).queue(Some(token)));
    let [first, second] = late.each_ref().map(|late| search.knot(late.blocked().clone()));
    let newer = view_of(&mut search, second);
    assert_eq!(search.views[newer].things.len(), 4, "and those who came");
    assert_eq!(view_of(&mut search, first), newer, "they share one");
    assert_eq!(view_of(&mut search, old), view, "and this one has seen what it has seen");
    drop(search);
    drop(turns);
    drop((late, nested, holder));
}

/// What is asked of a slot that was seen, when it was freed, and when another request has taken it.
#[test]
fn a_request_that_was_seen_is_told_from_the_next_one_in_its_slot() {
    let state = state();
    let pin = LazyPin::new();
    let publish = || Request::publish(state, &Owner::new().enter(), &[bytes(0..1)], Mode::Exclusive);
    let seen = || {
        let mut all = Vec::new();
        let query = Ask::at(bytes(0..1), Mode::Exclusive, 0, 0).query();
        let _ = state.tree.scan(&query, None, &pin, |seen| {
            all.push(seen);
            Continue(())
        });
        all
    };
    let request = publish().queue(None);
    let [waiting] = seen()[..] else { panic!("one request") };
    assert!(waiting.is_there_still() && waiting.ask_to_rescan() == Rescan::Asked);
    assert_eq!(request.lives[0].0.grant(), crate::tree::Grant::LookAgain);
    assert_eq!(request.lives[0].0.grant(), crate::tree::Grant::Granted);
    assert!(waiting.is_there_still() && waiting.ask_to_rescan() == Rescan::Granted);
    drop(request);
    assert!(!waiting.is_there_still() && waiting.ask_to_rescan() == Rescan::Gone);

    let other = publish().queue(None);
    let [next] = seen()[..] else { panic!("one request") };
    assert_eq!(next.room().1, waiting.room().1, "it has another slot");
    assert!(next.is_there_still() && !waiting.is_there_still());
    assert_eq!(waiting.ask_to_rescan(), Rescan::Gone);
    assert_eq!(other.lives[0].0.grant(), crate::tree::Grant::Granted, "nobody has asked this one");
}
