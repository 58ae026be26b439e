//! Promise: a waker is foreign code. Whatever it does when it is called (drop a waiting future, poll, release, panic),
//! the lock goes on and everybody else is woken. So is a destructor that somebody has left to the epoch.

mod common;

use common::watch::Watchdog;
use spanlock::{Acquire, Batch, Mode, RangeLock};
use std::cell::RefCell;
use std::future::{Future, IntoFuture};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

type Waiting = Acquire<Arc<RangeLock>>;

/// Runs a closure when it is woken, and counts.
struct Act<F> {
    act: F,
    calls: AtomicUsize,
}

impl<F: Fn() + Send + Sync + 'static> Act<F> {
    fn new(act: F) -> Arc<Act<F>> {
        Arc::new(Act { act, calls: AtomicUsize::new(0) })
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl<F: Fn() + Send + Sync + 'static> Wake for Act<F> {
    fn wake(self: Arc<Self>) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        (self.act)();
    }
}

fn ask(lock: &Arc<RangeLock>, mode: Mode) -> Waiting {
    lock.request_arc(0..8, mode).into_future()
}

fn ask_for(lock: &Arc<RangeLock>, range: std::ops::Range<u64>) -> Waiting {
    lock.request_arc(range, Mode::Exclusive).into_future()
}

fn poll(future: &mut Waiting, waker: &Waker) -> Poll<spanlock::ArcRangeGuard> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

/// Two adders that sleep on one holder's slot. The first one's waker drops the second.
struct Dropping {
    first: Waiting,
    act: Arc<Act<Box<dyn Fn() + Send + Sync>>>,
    other: Arc<Mutex<Option<Waiting>>>,
}

impl Dropping {
    fn behind_a_holder(lock: &Arc<RangeLock>) -> Dropping {
        let other = Arc::new(Mutex::new(Some(ask(lock, Mode::Add))));
        let dropped = Arc::clone(&other);
        let act = Act::new(Box::new(move || drop(dropped.lock().unwrap().take())) as Box<dyn Fn() + Send + Sync>);
        let mut first = ask(lock, Mode::Add);
        assert!(poll(&mut first, &act.clone().into()).is_pending());
        assert!(poll(other.lock().unwrap().as_mut().unwrap(), Waker::noop()).is_pending());
        Dropping { first, act, other }
    }
}

#[test]
fn a_waker_may_drop_another_future_that_waits_for_the_same() {
    let lock = Arc::new(RangeLock::new());
    let holder = lock.request_arc(.., Mode::Exclusive).wait();
    let Dropping { mut first, act, other } = Dropping::behind_a_holder(&lock);
    drop(holder);
    assert_eq!(act.calls(), 1);
    assert!(other.lock().unwrap().is_none());
    assert!(poll(&mut first, Waker::noop()).is_ready());
}

#[test]
fn a_waker_may_drop_its_own_future() {
    let lock = Arc::new(RangeLock::new());
    let holder = lock.request_arc(.., Mode::Block).wait();
    let own = Arc::new(Mutex::new(Some(ask(&lock, Mode::Exclusive))));
    let act = Act::new({
        let own = Arc::clone(&own);
        move || drop(own.lock().unwrap().take())
    });
    // A waker on the stack of the poll keeps the mutex of the test free: poll outside of it.
    let mut future = own.lock().unwrap().take().unwrap();
    assert!(poll(&mut future, &act.clone().into()).is_pending());
    *own.lock().unwrap() = Some(future);
    drop(holder);
    assert_eq!(act.calls(), 1);
    assert!(own.lock().unwrap().is_none(), "the waker has dropped it");
    assert!(lock.try_exclusive(..).is_some(), "and its place in the queue with it");
}

#[test]
fn a_waker_may_poll_and_release_at_once() {
    let lock = Arc::new(RangeLock::new());
    let holder = lock.request_arc(.., Mode::Exclusive).wait();
    // Three exclusive waiters in a row: each waker polls its future to the end and drops the guard, which wakes the
    // next one.
    let futures: Vec<_> = (0..3).map(|_| Arc::new(Mutex::new(Some(ask(&lock, Mode::Exclusive))))).collect();
    let acts: Vec<_> = futures
        .iter()
        .map(|future| {
            let future = Arc::clone(future);
            Act::new(move || {
                let mut mine = future.lock().unwrap().take().expect("woken once");
                assert!(poll(&mut mine, Waker::noop()).is_ready());
            })
        })
        .collect();
    for (future, act) in futures.iter().zip(&acts) {
        let mut mine = future.lock().unwrap().take().unwrap();
        assert!(poll(&mut mine, &Waker::from(Arc::clone(act))).is_pending());
        *future.lock().unwrap() = Some(mine);
    }
    drop(holder);
    assert!(acts.iter().all(|act| act.calls() == 1));
    assert!(lock.try_exclusive(..).is_some());
}

#[test]
fn a_waker_that_panics_costs_nobody_else_the_wake_up() {
    let lock = Arc::new(RangeLock::new());
    let holder = lock.request_arc(.., Mode::Exclusive).wait();
    let quiet = Act::new(|| ());
    let loud = Act::new(|| panic!("a waker of the test panics"));
    let mut futures: Vec<_> = (0..3).map(|_| ask(&lock, Mode::Add)).collect();
    for (index, future) in futures.iter_mut().enumerate() {
        let waker = if index == 1 { Waker::from(Arc::clone(&loud)) } else { Waker::from(Arc::clone(&quiet)) };
        assert!(poll(future, &waker).is_pending());
    }
    let panicked = catch_unwind(AssertUnwindSafe(|| drop(holder)));
    assert!(panicked.is_err(), "the panic reaches whoever released");
    assert_eq!((quiet.calls(), loud.calls()), (2, 1));
    assert!(futures.iter_mut().all(|future| poll(future, Waker::noop()).is_ready()));
}

/// The first panic goes on, and nobody stays asleep for the others.
#[test]
fn several_wakers_may_panic_in_one_delivery() {
    let lock = Arc::new(RangeLock::new());
    let holder = lock.request_arc(.., Mode::Exclusive).wait();
    let quiet = Act::new(|| ());
    let mut futures: Vec<_> = (0..6).map(|_| ask(&lock, Mode::Add)).collect();
    for (index, future) in futures.iter_mut().enumerate() {
        let loud = move || std::panic::panic_any(index);
        let waker = if index % 2 == 1 { Waker::from(Act::new(loud)) } else { Waker::from(Arc::clone(&quiet)) };
        assert!(poll(future, &waker).is_pending());
    }
    let panicked = catch_unwind(AssertUnwindSafe(|| drop(holder))).expect_err("the panic reaches whoever released");
    assert_eq!(panicked.downcast_ref(), Some(&1_usize), "not the first one");
    assert_eq!(quiet.calls(), 3);
    assert!(futures.iter_mut().all(|future| poll(future, Waker::noop()).is_ready()));
}

/// A guard that is dropped because its thread panics: a second panic there would end the process.
#[test]
fn a_waker_may_panic_while_the_release_is_part_of_a_panic() {
    let lock = Arc::new(RangeLock::new());
    let holder = lock.request_arc(.., Mode::Exclusive).wait();
    let loud = Act::new(|| panic!("a waker of the test panics"));
    let mut future = ask(&lock, Mode::Add);
    assert!(poll(&mut future, &Waker::from(Arc::clone(&loud))).is_pending());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _holder = holder;
        std::panic::panic_any("the thread's own");
    }));
    assert_eq!(panicked.expect_err("it panics").downcast_ref(), Some(&"the thread's own"));
    assert_eq!(loud.calls(), 1);
    assert!(poll(&mut future, Waker::noop()).is_ready());
}

/// Each waker runs its task at once, which is granted, and releases, and so finds the next one: a loop, not a stack.
#[test]
fn wakers_that_run_their_tasks_at_once_do_not_nest() {
    const TASKS: usize = if cfg!(debug_assertions) { 20_000 } else { 100_000 };
    /// What is locked: disjoint, so that nobody has to look at all who wait. Task `n` has one range when it is queued,
    /// and waits for the one of `n + 1`.
    const APART: u64 = 16;
    static DONE: AtomicUsize = AtomicUsize::new(0);
    let watchdog = Watchdog::new("wakers that run their tasks");
    let lock = Arc::new(RangeLock::new());
    let chain = move || {
        let at = |index: usize| index as u64 * APART;
        let last = lock.request_arc(at(TASKS)..=at(TASKS), Mode::Exclusive).wait();
        for index in (0..TASKS).rev() {
            let held = lock.request_arc(at(index)..=at(index), Mode::Exclusive).wait();
            let mut waits = lock.request_arc(at(index + 1)..=at(index + 1), Mode::Add).into_future();
            let task = Arc::new(Mutex::new(None));
            let act = Act::new({
                let task = Arc::clone(&task);
                move || {
                    let (held, mut waits): (spanlock::ArcRangeGuard, Waiting) =
                        task.lock().unwrap().take().expect("woken once");
                    assert!(poll(&mut waits, Waker::noop()).is_ready());
                    DONE.fetch_add(1, Ordering::Relaxed);
                    // Wakes the task in front of this one.
                    drop(held);
                }
            });
            assert!(poll(&mut waits, &act.into()).is_pending());
            *task.lock().unwrap() = Some((held, waits));
            watchdog.step();
        }
        drop(last);
    };
    // Ten frames for each task would not fit.
    std::thread::Builder::new().stack_size(256 * 1024).spawn(chain).unwrap().join().unwrap();
    assert_eq!(DONE.load(Ordering::Relaxed), TASKS);
}

/// Asks for the whole lock, and waits for it, when the last handle of it goes.
struct Asks(Arc<RangeLock>, Arc<AtomicUsize>);

impl Asks {
    fn waker(lock: &Arc<RangeLock>) -> (Waker, impl Fn() -> usize) {
        let dropped = Arc::new(AtomicUsize::new(0));
        let asks = Asks(Arc::clone(lock), Arc::clone(&dropped));
        (Waker::from(Arc::new(asks)), move || dropped.load(Ordering::SeqCst))
    }
}

impl Wake for Asks {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Asks {
    fn drop(&mut self) {
        let granted = self.0.request(0..8, Mode::Exclusive).timeout(Duration::from_secs(10)).wait();
        assert!(granted.is_ok(), "somebody stands in the way of a waker's destructor");
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

/// The place in the queue is given up first.
#[test]
fn a_waker_that_is_dropped_may_wait_for_what_its_future_asked_for() {
    let lock = Arc::new(RangeLock::new());
    let held = lock.request_arc(8.., Mode::Exclusive).wait();
    let (waker, dropped) = Asks::waker(&lock);
    let mut future = lock.request_arc(.., Mode::Exclusive).into_future();
    assert!(poll(&mut future, &waker).is_pending());
    drop(waker);
    assert_eq!(dropped(), 0);
    drop(future);
    assert_eq!(dropped(), 1);
    drop(held);
}

/// A waker that a poll replaces is dropped as the last that the poll does: it may release what the request waits for,
/// and the new one is called; and it may ask for whatever the request does not stand in the way of.
#[test]
fn a_waker_that_is_replaced_may_use_the_lock() {
    struct Releases(Arc<RangeLock>, Mutex<Option<spanlock::ArcRangeGuard>>);
    impl Wake for Releases {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Releases {
        fn drop(&mut self) {
            assert!(self.0.try_exclusive(100..200).is_some());
            self.1.lock().unwrap().take();
            assert!(self.0.try_exclusive(0..8).is_none(), "the request stands in the queue");
            assert!(Pin::new(&mut ask(&self.0, Mode::Add)).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
    }
    let lock = Arc::new(RangeLock::new());
    let held = lock.request_arc(0..8, Mode::Exclusive).wait();
    let mut future = ask(&lock, Mode::Exclusive);
    let first = Waker::from(Arc::new(Releases(Arc::clone(&lock), Mutex::new(Some(held)))));
    assert!(poll(&mut future, &first).is_pending());
    drop(first);
    let second = Act::new(|| ());
    assert!(poll(&mut future, &Waker::from(Arc::clone(&second))).is_pending());
    assert_eq!(second.calls(), 1, "what the old one has released was for the new one");
    assert!(poll(&mut future, Waker::noop()).is_ready());
}

/// Should it panic, the request is where it was, with the new waker.
#[test]
fn a_waker_that_is_replaced_may_panic() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("a waker's destructor");
        }
    }
    let lock = Arc::new(RangeLock::new());
    let held = lock.request_arc(0..8, Mode::Exclusive).wait();
    let mut future = ask(&lock, Mode::Exclusive);
    assert!(poll(&mut future, &Waker::from(Arc::new(Panics))).is_pending());
    let second = Act::new(|| ());
    let waker = Waker::from(Arc::clone(&second));
    let panicked = catch_unwind(AssertUnwindSafe(|| poll(&mut future, &waker)));
    assert!(panicked.is_err());
    drop(held);
    assert_eq!(second.calls(), 1);
    assert!(poll(&mut future, &waker).is_ready());
}

#[test]
fn so_may_one_of_a_batch_whichever_part_it_asks_for() {
    let lock = Arc::new(RangeLock::new());
    for free_part_first in [true, false] {
        let held = lock.request_arc(8.., Mode::Exclusive).wait();
        let (waker, dropped) = Asks::waker(&lock);
        let parts = if free_part_first { [0..8, 8..16] } else { [8..16, 0..8] };
        let batch = parts.into_iter().fold(Batch::new(), |batch, part| batch.exclusive(Arc::clone(&lock), part));
        let mut future = batch.into_future();
        assert!(Pin::new(&mut future).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        drop(future);
        assert_eq!(dropped(), 1);
        drop(held);
    }
}

#[cfg(feature = "table")]
#[test]
fn so_may_one_of_a_tables_future() {
    /// As [`Asks`], of a table.
    struct AsksTable(spanlock::LockTable<u64>, Arc<AtomicUsize>);
    impl Wake for AsksTable {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for AsksTable {
        fn drop(&mut self) {
            let granted = self.0.request(1, 0..8, Mode::Exclusive).timeout(Duration::from_secs(10)).wait();
            assert!(granted.is_ok(), "somebody stands in the way of a waker's destructor");
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }
    let table = spanlock::LockTable::new();
    let held = pollster::block_on(table.request(1, 8.., Mode::Exclusive).into_future());
    let dropped = Arc::new(AtomicUsize::new(0));
    let mut future = table.request(1, .., Mode::Exclusive).into_future();
    {
        let waker = Waker::from(Arc::new(AsksTable(table.clone(), Arc::clone(&dropped))));
        assert!(Pin::new(&mut future).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    drop(future);
    assert_eq!((dropped.load(Ordering::SeqCst), table.len()), (1, 1));
    drop(held);
    assert!(table.is_empty());
}

/// The parts of a batch are given up together: who is woken by one may ask for the other.
#[test]
fn a_waker_may_wait_for_another_part_of_a_batch_that_is_dropped() {
    let lock = Arc::new(RangeLock::new());
    for parts in [[0..4, 4..16], [4..16, 0..4]] {
        let held = lock.request_arc(8.., Mode::Exclusive).wait();
        let batch = parts.into_iter().fold(Batch::new(), |batch, part| batch.exclusive(Arc::clone(&lock), part));
        let mut batch = batch.into_future();
        assert!(Pin::new(&mut batch).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let mut behind = ask_for(&lock, 0..2);
        let act = Act::new({
            let lock = Arc::clone(&lock);
            move || {
                let granted = lock.request(4..6, Mode::Exclusive).timeout(Duration::from_secs(10)).wait();
                assert!(granted.is_ok(), "the other part still stands in the way");
            }
        });
        assert!(poll(&mut behind, &act.clone().into()).is_pending());
        drop(batch);
        assert_eq!(act.calls(), 1);
        drop((behind, held));
    }
}

#[test]
fn a_guard_may_outlast_its_thread_in_a_thread_local() {
    thread_local! {
        static LAST: RefCell<Option<spanlock::ArcRangeGuard>> = const { RefCell::new(None) };
    }
    let lock = Arc::new(RangeLock::new());
    let holder = lock.request_arc(.., Mode::Exclusive).wait();
    let Dropping { mut first, act, other } = Dropping::behind_a_holder(&lock);
    // The release, and with it the wakers, run among the destructors of that thread's thread-locals.
    let last_thing = move || {
        LAST.with(|last| *last.borrow_mut() = Some(holder));
        // Whatever the library keeps for this thread is made after `LAST`, hence dropped before it, if it is dropped.
        let lock = Arc::new(RangeLock::new());
        let _held = lock.request_arc(.., Mode::Exclusive).wait();
        assert!(poll(&mut ask(&lock, Mode::Add), Waker::noop()).is_pending());
    };
    std::thread::spawn(last_thing).join().unwrap();
    assert_eq!(act.calls(), 1);
    assert!(other.lock().unwrap().is_none());
    assert!(poll(&mut first, Waker::noop()).is_ready());
}

/// Giving everything back ends the request for its owner, even if somebody's waker panics then.
#[test]
fn a_guard_shrunk_to_nothing_is_counted_out_whatever_a_waker_does() {
    let lock = Arc::new(RangeLock::new());
    let owner = spanlock::Owner::new();
    let mut guard = lock.request_arc(0..8, Mode::Exclusive).owner(&owner).wait().expect("it holds nothing");
    let mut waiting = ask(&lock, Mode::Add);
    assert!(poll(&mut waiting, &Act::new(|| panic!("a waker's")).into()).is_pending());
    assert!(catch_unwind(AssertUnwindSafe(|| guard.shrink(0..0))).is_err());
    assert!(guard.range().is_empty());
    drop(guard);
    assert!(format!("{owner:?}").contains("live: 0"), "{owner:?}");
}

/// To pin crossbeam's shared epoch may drop what others have left there: here futures that others know to be blocked,
/// and to drop one of these waits until nobody searches. So a search must not pin that epoch while it keeps others from
/// searching.
#[test]
fn a_future_may_be_dropped_by_the_epoch() {
    /// Only one in 128 pins drops anything.
    const ROUNDS: u64 = 1000;
    let watchdog = Watchdog::new("futures dropped by the epoch");
    let lock = Arc::new(RangeLock::new());
    // So many that the root is full: whoever looks below it pins.
    let crowd: Vec<_> = (0..20).map(|at| lock.request_arc(at..=at, Mode::Block).wait()).collect();
    assert!(lock.heap_nodes() > 0);
    let dropped = Arc::new(AtomicUsize::new(0));
    for round in 1..=ROUNDS {
        let (holder, waiter) = (spanlock::Owner::new(), spanlock::Owner::new());
        let one = |at, owner| lock.request_arc(round * 64 + at..=round * 64 + at, Mode::Exclusive).owner(owner);
        let held = one(0, &holder).wait().expect("nobody has it");
        let outer = one(1, &waiter).wait().expect("nobody has it");
        let mut nested = one(0, &waiter).into_future();
        assert!(Pin::new(&mut nested).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let dropped = Arc::clone(&dropped);
        crossbeam_epoch::pin().defer(move || {
            drop(nested);
            dropped.fetch_add(1, Ordering::SeqCst);
        });
        drop((held, outer));
        // So that it is another pin's turn to drop something, each time.
        (0..round % 5).for_each(|_| drop(crossbeam_epoch::pin()));
        watchdog.step();
    }
    assert!(dropped.load(Ordering::SeqCst) > 0, "the epoch has dropped nothing");
    drop(crowd);
}
