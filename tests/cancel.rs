//! Promise: cancel. A request can be given up at any moment (future dropped, deadline passed); whoever waited for it
//! goes on, nothing is lost and nothing leaks. And guards: they release on unwinding and from another thread; a leaked
//! one keeps its range locked and breaks nothing else.

mod common;

use common::alloc::{Counting, bytes};
use common::forget;
use common::poll::{Hand, poll_once};
use common::watch::Watchdog;
use fastrand::Rng;
use spanlock::{Acquire, AcquireError, ArcRangeGuard, Mode, RangeLock};
use std::cell::RefCell;
use std::future::IntoFuture;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

#[global_allocator]
static COUNTING: Counting = Counting;

/// A queue of exclusive requests for byte 0 behind a holder, none of them granted.
fn queue(lock: &RangeLock, length: usize) -> Vec<Hand<Acquire<&RangeLock>>> {
    let mut queue: Vec<_> = (0..length).map(|_| Hand::new(lock.request(0..1, Mode::Exclusive))).collect();
    queue.iter_mut().for_each(Hand::pending);
    queue
}

/// Polls what was woken until nothing is, and says which were granted, in order. A granted one is released at once.
fn served(mut queue: Vec<(usize, Hand<Acquire<&RangeLock>>)>) -> Vec<usize> {
    let mut served = Vec::new();
    while let Some(at) = queue.iter().position(|(_, hand)| hand.woken()) {
        let (name, hand) = &mut queue[at];
        if hand.poll().is_ready() {
            served.push(*name);
            queue.remove(at);
        }
    }
    assert!(queue.is_empty(), "{} are left without a wake, {served:?} were served", queue.len());
    served
}

/// Every subset of a queue of six is cancelled, before or after the holder's release; the others are served in order.
#[test]
fn any_part_of_a_queue_can_leave() {
    const LENGTH: usize = 6;
    for leaving in 0..1_u32 << LENGTH {
        for release_first in [false, true] {
            let lock = RangeLock::new();
            let holder = lock.try_exclusive(..).expect("nobody else is there");
            let queue = queue(&lock, LENGTH).into_iter().enumerate();
            let (leave, stay): (Vec<_>, Vec<_>) = queue.partition(|(at, _)| leaving >> at & 1 == 1);
            // With the holder gone first, the head of the queue leaves with its wake in its hand.
            let order: [Box<dyn FnOnce()>; 2] = [Box::new(|| drop(leave)), Box::new(|| drop(holder))];
            let mut order = Vec::from(order);
            if release_first {
                order.reverse();
            }
            order.into_iter().for_each(|step| step());
            let expected: Vec<_> = stay.iter().map(|(at, _)| *at).collect();
            assert_eq!(served(stay), expected, "{leaving:06b} left");
        }
    }
}

/// Head, middle and tail, with a request behind each that waits for nobody else.
#[test]
fn whoever_waited_for_a_cancelled_request_alone_is_woken() {
    for place in 0..5 {
        let lock = RangeLock::new();
        let _holder = lock.try_exclusive(0..1).expect("nobody else is there");
        // Request i takes byte 0 (so they all queue) and byte 10 + i for itself.
        let mut queue: Vec<_> = (0..5).map(|i| Hand::new(lock.request(0..10 + i + 1, Mode::Exclusive))).collect();
        queue.iter_mut().for_each(Hand::pending);
        // Conflicts with requests 4 down to `place`; cancelled from there up, it must be free at the last.
        let mut behind = Hand::new(lock.request(10 + place..11 + place, Mode::Add));
        behind.pending();
        queue.drain(..place as usize).for_each(drop);
        assert!(behind.poll().is_pending(), "those that left were never in its way");
        while let Some(left) = queue.pop() {
            assert!(behind.poll().is_pending());
            drop(left);
        }
        assert!(behind.woken(), "the last one in the way left, and nobody said so");
        drop(behind.ready());
    }
}

/// Between wake and poll: the wake must not be lost with the future that got it.
#[test]
fn a_wake_passes_on_from_a_future_that_is_dropped_with_it() {
    let lock = RangeLock::new();
    let holder = lock.try_exclusive(..).expect("nobody else is there");
    let mut first = Hand::new(lock.request(.., Mode::Exclusive));
    let mut second = Hand::new(lock.request(.., Mode::Block));
    let mut third = Hand::new(lock.request(.., Mode::Block));
    first.pending();
    second.pending();
    third.pending();
    drop(holder);
    assert!(first.woken(), "nobody is before it");
    drop(first);
    assert!(second.woken() && third.woken(), "nobody is before them any more");
    drop((second.ready(), third.ready()));
}

/// Before its first poll a future has no place, and leaves none behind.
#[test]
fn a_future_that_was_never_polled_has_no_place() {
    let lock = RangeLock::new();
    let never_polled = lock.request(.., Mode::Exclusive).into_future();
    let guard = lock.try_exclusive(..);
    assert!(guard.is_some());
    drop(never_polled);
    drop(guard);
    assert!(lock.try_exclusive(..).is_some());
}

/// A deadline that has passed is a `try_`: granted if nobody is in the way, refused at once otherwise; no place is left
/// behind.
#[test]
fn a_past_deadline_is_a_try() {
    let lock = Arc::new(RangeLock::new());
    let past = Instant::now();
    for mode in Mode::ALL {
        assert!(lock.request(0..10, mode).deadline(past).wait().is_ok());
        assert!(lock.request(0..10, mode).timeout(Duration::ZERO).wait().is_ok());
        assert!(lock.request_arc(0..10, mode).deadline(past).wait().is_ok());
    }
    let mut holder = Hand::new(lock.request(5..6, Mode::Exclusive));
    let holder = holder.ready();
    for mode in Mode::ALL {
        assert!(lock.request(0..10, mode).deadline(past).wait().is_err());
        assert!(lock.request(0..10, mode).timeout(Duration::ZERO).wait().is_err());
        assert!(lock.request_arc(0..10, mode).deadline(past).wait().is_err());
        assert!(lock.request(0..5, mode).deadline(past).wait().is_ok(), "nobody is there");
    }
    let error = lock.request(0..10, Mode::Add).deadline(past).wait().expect_err("the holder is there");
    assert!(matches!(error, AcquireError::TimedOut(_)), "{error}");
    assert!(error.to_string().contains("deadline"));
    drop(holder);
    assert!(lock.try_exclusive(..).is_some(), "a refused request left its place behind");
}

/// The most that can be asked for: it is no time, and must not be taken for one that has passed.
#[test]
fn a_timeout_without_end() {
    let lock = RangeLock::new();
    let guard = lock.request(.., Mode::Add).timeout(Duration::MAX).wait();
    assert!(guard.is_ok());
}

/// A thread gives up in the queue; whoever stood behind it is granted.
#[test]
fn whoever_stands_behind_a_deadline_goes_on_when_it_passes() {
    let lock = RangeLock::new();
    let holder = lock.add(0..10);
    thread::scope(|scope| {
        let timed =
            scope.spawn(|| lock.request(0..20, Mode::Exclusive).timeout(Duration::from_millis(50)).wait().is_err());
        // The first of these that has to wait stands behind the thread.
        let mut behind = loop {
            let mut behind = Hand::new(lock.request(10..20, Mode::Add));
            match behind.poll() {
                std::task::Poll::Ready(guard) => drop(guard),
                std::task::Poll::Pending => break behind,
            }
            // On a slow machine it may have come and gone already.
            if timed.is_finished() {
                return;
            }
        };
        assert!(timed.join().expect("the thread only waits"), "granted beside an adder");
        assert!(behind.woken());
        drop(behind.ready());
    });
    drop(holder);
}

/// 10^5 requests come and are given up against one holder, by every way there is: nothing grows, and the last one is
/// served.
#[test]
fn a_storm_of_cancels_leaves_nothing_behind() {
    let rounds = common::by_build(25_000, 100_000) / 4;
    let lock = Arc::new(RangeLock::new());
    let holder = lock.request_arc(0..8, Mode::Exclusive).wait();
    // Behind the holder from the first to the last.
    let mut patient = Hand::new(lock.request(4..5, Mode::Add));
    patient.pending();
    let watchdog = Watchdog::new("a_storm_of_cancels_leaves_nothing_behind");
    let storm = |rounds: u64, seed: u64| {
        let mut rng = Rng::with_seed(seed);
        for round in 0..rounds {
            let mode = Mode::ALL[rng.usize(0..3)];
            let range = rng.u64(0..8)..rng.u64(8..64);
            let past = Instant::now();
            assert!(lock.request(range.clone(), mode).deadline(past).wait().is_err());
            assert!(lock.request_arc(range.clone(), mode).try_now().is_none());
            let mut one = lock.request(range.clone(), mode).into_future();
            let mut other = lock.request_arc(range.clone(), mode).into_future();
            assert!(poll_once(&mut one).is_pending());
            assert!(poll_once(&mut other).is_pending());
            // Now and then really asleep.
            if round % 64 == 0 {
                let patience = Duration::from_micros(rng.u64(1..100));
                assert!(lock.request(range, mode).timeout(patience).wait().is_err());
            }
            if rng.bool() {
                drop(one);
                drop(other);
            } else {
                drop(other);
                drop(one);
            }
            watchdog.step();
        }
    };
    let threads = |rounds: u64| {
        thread::scope(|scope| {
            let storm = &storm;
            // Joined, not left to the scope: the sanitizer sees a join, and not how a scope waits.
            let threads: Vec<_> = (0..4).map(|seed| scope.spawn(move || storm(rounds / 4, seed))).collect();
            threads.into_iter().for_each(|thread| thread.join().expect("no cancel panics"));
        });
        lock.trim();
        (bytes(), lock.heap_nodes())
    };
    // What the storm needs at once is there after a tenth of it.
    let (bytes_before, _) = threads(rounds / 10);
    let (bytes_after, nodes) = threads(rounds);
    let grown = bytes_after - bytes_before;
    // One request leaked in a hundred would be more than this.
    assert!(grown < 64 << 10, "{grown} bytes more after {rounds} rounds");
    assert!(nodes < 64, "{nodes} nodes, with one holder and one waiter");
    assert!(patient.poll().is_pending());
    drop(holder);
    assert!(patient.woken());
    drop(patient.ready());
    lock.trim();
    assert_eq!(lock.heap_nodes(), 0);
}

/// Deadlines that pass while holders come and go: grants and cancels race, and nobody is forgotten.
#[test]
fn deadlines_that_race_with_releases() {
    let lock = RangeLock::new();
    let (granted, late) = (AtomicU64::new(0), AtomicU64::new(0));
    let inside = AtomicBool::new(false);
    let watchdog = Watchdog::new("deadlines_that_race_with_releases");
    let end = Instant::now() + common::stress_time();
    let visit = || {
        assert!(!inside.swap(true, Ordering::Relaxed), "two exclusive holders");
        thread::yield_now();
        inside.store(false, Ordering::Relaxed);
    };
    thread::scope(|scope| {
        let threads = (0..6).map(|seed| {
            let (lock, granted, late, visit, watchdog) = (&lock, &granted, &late, &visit, &watchdog);
            scope.spawn(move || {
                let mut rng = Rng::with_seed(seed);
                while Instant::now() < end {
                    let request = lock.request(rng.u64(0..4)..5, Mode::Exclusive);
                    // One thread has no deadline: it must get through every time.
                    if seed == 0 {
                        let _guard = request.wait();
                        visit();
                    } else {
                        match request.timeout(Duration::from_micros(rng.u64(0..60))).wait() {
                            Ok(_guard) => {
                                visit();
                                granted.fetch_add(1, Ordering::Relaxed)
                            }
                            Err(_late) => late.fetch_add(1, Ordering::Relaxed),
                        };
                    }
                    watchdog.step();
                }
            })
        });
        // Joined, not left to the scope: the sanitizer sees a join, and not how a scope waits.
        threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().expect("two holders at once"));
    });
    let (granted, late) = (granted.into_inner(), late.into_inner());
    assert!(granted > 0 && late > 0, "{granted} granted, {late} late: no race");
    assert!(lock.try_exclusive(..).is_some(), "somebody left a request behind");
}

/// The guard's thread is gone for good, its range is not.
#[test]
fn a_leaked_guard_keeps_its_range_and_breaks_nothing_else() {
    let lock = Arc::new(RangeLock::new());
    forget(lock.request_arc(10..20, Mode::Block).wait());
    forget(Hand::new(lock.request(30..40, Mode::Exclusive)).ready());
    thread::scope(|scope| {
        scope.spawn(|| forget(lock.add(50..60))).join().expect("a leak does not panic");
    });
    for byte in [10, 15, 19, 30, 39, 50, 59] {
        assert!(lock.request_arc(byte..=byte, Mode::Exclusive).try_now().is_none(), "byte {byte} is leaked, not free");
    }
    let beside =
        [lock.try_exclusive(..10), lock.try_exclusive(20..30), lock.try_exclusive(40..50), lock.try_exclusive(60..)];
    assert!(beside.iter().all(Option::is_some));
    drop(beside);
    // Who waits for it can give up, and those whose mode goes with it come in.
    let mut waiter = Hand::new(lock.request(15..17, Mode::Add));
    waiter.pending();
    drop(waiter);
    assert!(lock.try_block(0..30).is_some());
    lock.trim();
    assert!(lock.request_arc(15..16, Mode::Add).try_now().is_none(), "trim() gave a leaked range away");
    // The last handle but the leaked guard's own.
    drop(lock);
}

/// A queued future that is leaked keeps its place, as a leaked guard does; elsewhere life goes on.
#[test]
fn a_leaked_future_keeps_its_place_and_breaks_nothing_else() {
    let lock = RangeLock::new();
    let holder = lock.add(0..10);
    let mut waiter = lock.request(5..20, Mode::Exclusive).into_future();
    assert!(poll_once(&mut waiter).is_pending());
    forget(waiter);
    drop(holder);
    assert!(lock.try_add(10..11).is_none());
    assert!(lock.try_exclusive(..5).is_some() && lock.try_exclusive(20..).is_some());
}

#[test]
fn a_guard_releases_on_unwinding() {
    let lock = Arc::new(RangeLock::new());
    for which in 0..3 {
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _by_thread = (which == 0).then(|| lock.exclusive(..));
            let _by_task = (which == 1).then(|| pollster::block_on(lock.request(.., Mode::Exclusive).into_future()));
            let _arc = (which == 2).then(|| lock.request_arc(.., Mode::Exclusive).wait());
            // Without a message on the terminal, which `panic!` would print.
            std::panic::resume_unwind(Box::new("unwinding"));
        }));
        assert!(unwound.is_err());
        assert!(lock.request_arc(.., Mode::Exclusive).try_now().is_some(), "guard {which} did not release");
    }
}

/// A future that unwinds in the queue leaves it.
#[test]
fn a_waiter_leaves_on_unwinding() {
    let lock = RangeLock::new();
    let holder = lock.try_exclusive(0..10).expect("nobody else is there");
    let mut behind = Hand::new(lock.request(5..20, Mode::Add));
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let mut waiter = Hand::new(lock.request(0..20, Mode::Block));
        waiter.pending();
        behind.pending();
        std::panic::resume_unwind(Box::new("unwinding"));
    }));
    assert!(unwound.is_err());
    drop(holder);
    assert!(behind.woken());
    drop(behind.ready());
}

#[test]
fn guards_of_futures_and_of_arcs_are_released_by_other_threads() {
    let lock = Arc::new(RangeLock::new());
    let mut waiter = Hand::new(lock.request(.., Mode::Add));
    let by_task = Hand::new(lock.request(0..10, Mode::Block)).ready();
    let by_arc = lock.request_arc(10..20, Mode::Block).wait();
    let by_arc_future = Hand::new(lock.request_arc(20..30, Mode::Block)).ready();
    waiter.pending();
    thread::scope(|scope| {
        scope.spawn(move || drop(by_task)).join().expect("dropping a guard does not panic");
    });
    // 'static: no scope is needed.
    thread::spawn(move || drop((by_arc, by_arc_future))).join().expect("dropping a guard does not panic");
    assert!(waiter.woken());
    drop(waiter.ready());
}

/// A guard in a thread's own storage is dropped while the thread ends, in any order with what the library keeps there.
#[test]
fn a_guard_that_is_dropped_while_its_thread_ends_wakes_as_any_other() {
    thread_local! {
        static KEPT: RefCell<Option<ArcRangeGuard>> = const { RefCell::new(None) };
    }
    for kept_first in [true, false] {
        let lock = Arc::new(RangeLock::new());
        let mut early = Hand::new(lock.request(0..10, Mode::Add));
        let mut late = Hand::new(lock.request(10..20, Mode::Add));
        let mut guards: Vec<_> = [0..10, 10..20].map(|range| lock.request_arc(range, Mode::Exclusive).wait()).into();
        early.pending();
        late.pending();
        let thread = thread::spawn(move || {
            let kept = guards.pop();
            let keep = |guard| KEPT.with(|place| *place.borrow_mut() = guard);
            if kept_first {
                keep(kept);
                drop(guards);
            } else {
                drop(guards);
                keep(kept);
            }
        });
        thread.join().expect("the thread only drops guards");
        assert!(early.woken() && late.woken(), "kept first: {kept_first}");
        drop((early.ready(), late.ready()));
    }
}

/// The future moves while it waits, to another thread and to another waker, with its place.
#[test]
fn a_waiting_future_moves_between_threads_with_its_place() {
    let lock = Arc::new(RangeLock::new());
    let holder = lock.request_arc(.., Mode::Exclusive).wait();
    let mut first = Hand::new(lock.request_arc(.., Mode::Exclusive));
    first.pending();
    let mut second = Hand::new(lock.request(.., Mode::Exclusive));
    second.pending();
    let moved = first.into_inner();
    let other = thread::spawn(move || {
        let mut first = Hand::new(moved);
        first.pending();
        first
    });
    let mut first = other.join().expect("a poll does not panic");
    drop(holder);
    assert!(first.woken() && second.poll().is_pending(), "it kept its place, and its new waker is the one that counts");
    drop(first.ready());
    assert!(second.woken());
    drop(second.ready());
}
