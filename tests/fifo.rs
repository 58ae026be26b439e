//! Promise: first come, first served. A request that finished its doorway before a conflicting one began is granted
//! first; nobody barges, `try_` included, and nobody's wake is lost.
//!
//! One thread, futures polled by hand: after each step of a random history there is one right answer, and a list of
//! requests (the oracle) knows it. Between threads: the order that stamps around the doorways prove.
//!
//! `SPANLOCK_HISTORIES` sets how many histories run in all; the default is above 10^5. `SPANLOCK_SEED` chooses the
//! first.

mod common;

use common::history::{History, Space, check_many};
use common::poll::{Hand, block_on};
use common::watch::Watchdog;
use common::{Span, together};
use fastrand::Rng;
use parking_lot::Mutex;
use spanlock::{Mode, RangeLock};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Instant;

/// How many histories a test with this share (in percent) of all of them runs.
fn share(percent: u64) -> u64 {
    (common::from_env("SPANLOCK_HISTORIES", 120_000) * percent).div_ceil(100)
}

#[test]
fn histories_in_a_few_bytes() {
    let count = share(60);
    let tally = check_many(count, |rng| {
        let (space, len, crowd) = (Space::small(rng), rng.usize(8..32), rng.usize(3..12));
        History::random(rng, &space, len, crowd)
    });
    if count > 100 {
        assert!(tally.at_once > 0 && tally.waited > 0 && tally.refused > 0, "histories without conflict: {tally:?}");
        assert!(tally.cancelled_woken > 0, "nobody was cancelled between its wake and its poll: {tally:?}");
        assert!(tally.drained.iter().all(|&drains| drains > 0), "histories without drains: {tally:?}");
    }
}

#[test]
fn histories_over_all_of_u64() {
    let count = share(39);
    let tally = check_many(count, |rng| {
        let (space, len, crowd) = (Space::wide(rng), rng.usize(8..32), rng.usize(3..12));
        History::random(rng, &space, len, crowd)
    });
    if count > 100 {
        assert!(tally.at_once > 0 && tally.waited > 0 && tally.refused > 0, "histories without conflict: {tally:?}");
    }
}

/// Long ones, with so many live requests that the tree grows, overflows and is pruned under them.
#[test]
fn histories_with_a_crowd() {
    let count = share(1);
    let tally = check_many(count, |rng| {
        let space = if rng.bool() { Space::small(rng) } else { Space::wide(rng) };
        let (len, crowd) = (rng.usize(100..400), rng.usize(20..80));
        History::random(rng, &space, len, crowd)
    });
    if count > 100 {
        assert!(tally.nodes > 0, "the tree never grew: {tally:?}");
        assert!(tally.waited > 0 && tally.cancelled_woken > 0, "histories without conflict: {tally:?}");
    }
}

/// Places taken in order by first polls, waited for by threads that start in another order.
#[test]
fn threads_are_served_in_the_order_of_their_places() {
    const THREADS: usize = 16;
    let watchdog = Watchdog::new("threads_are_served_in_the_order_of_their_places");
    for round in 0..20 {
        let lock = RangeLock::new();
        let holder = lock.exclusive(0..THREADS as u64 + 1);
        // Neighbours overlap in different bytes each, all of them in byte 0.
        let mut queue: Vec<_> = (0..THREADS)
            .map(|place| {
                let mut hand = Hand::new(lock.request(0..place as u64 + 1, Mode::Exclusive));
                hand.pending();
                (place, hand.into_inner())
            })
            .collect();
        Rng::with_seed(round).shuffle(&mut queue);
        let log = Mutex::new(Vec::new());
        let waiting = Barrier::new(THREADS + 1);
        thread::scope(|scope| {
            for (place, future) in queue {
                let (log, waiting) = (&log, &waiting);
                scope.spawn(move || {
                    waiting.wait();
                    let guard = pollster::block_on(future);
                    log.lock().push(place);
                    drop(guard);
                });
            }
            waiting.wait();
            drop(holder);
        });
        watchdog.step();
        assert_eq!(log.into_inner(), (0..THREADS).collect::<Vec<_>>());
    }
}

/// One request as its thread saw it, in stamps of one clock.
#[derive(Clone, Copy, Debug)]
struct Record {
    span: Span,
    mode: Mode,
    /// Taken before anything was asked.
    began: u64,
    /// Taken when the doorway was over for certain.
    doorway: u64,
    /// Taken while the range was held.
    granted: u64,
}

impl Record {
    fn conflicts(&self, other: &Record) -> bool {
        self.span.meets(other.span) && !together(self.mode, other.mode)
    }
}

/// Threads ask for overlapping ranges by futures whose first poll is the doorway, by blocking calls and by `try_`. Of
/// two conflicting requests, one of which began after the other's doorway was over, that other one must have been
/// granted first.
#[test]
fn order_holds_between_threads() {
    let clock = AtomicU64::new(0);
    let lock = RangeLock::new();
    let watchdog = Watchdog::new("order_holds_between_threads");
    let end = Instant::now() + common::stress_time();
    let ask = |rng: &mut Rng| -> Option<Record> {
        let start = rng.u64(0..12);
        let span = Span::new(start, start + rng.u64(0..6));
        let mode = [Mode::Add, Mode::Block, Mode::Exclusive][rng.usize(0..3)];
        let stamp = || clock.fetch_add(1, Ordering::SeqCst);
        let began = stamp();
        let (doorway, granted) = match rng.u8(0..4) {
            0 => {
                let guard = lock.request(span.bounds(), mode).wait().unwrap();
                let granted = stamp();
                drop(guard);
                (granted, granted)
            }
            1 => {
                let guard = lock.request(span.bounds(), mode).try_now()?;
                let granted = stamp();
                drop(guard);
                (granted, granted)
            }
            _ => {
                let mut hand = Hand::new(lock.request(span.bounds(), mode));
                let first = hand.poll();
                let doorway = stamp();
                if rng.bool() {
                    thread::yield_now();
                }
                let guard = match first {
                    Poll::Ready(guard) => guard,
                    // Given up in the queue.
                    Poll::Pending if rng.u8(0..4) == 0 => return None,
                    Poll::Pending => block_on(hand.into_inner()),
                };
                let granted = stamp();
                drop(guard);
                (doorway, granted)
            }
        };
        Some(Record { span, mode, began, doorway, granted })
    };
    let mut records = thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|seed| {
                let (ask, watchdog) = (&ask, &watchdog);
                scope.spawn(move || {
                    let mut rng = Rng::with_seed(seed);
                    let mut records = Vec::new();
                    while Instant::now() < end {
                        records.extend(ask(&mut rng));
                        watchdog.step();
                    }
                    records
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no thread panics")).collect::<Vec<_>>()
    });
    records.sort_unstable_by_key(|record| record.granted);
    let mut waited = 0;
    for (at, late) in records.iter().enumerate() {
        // Everyone who was granted while `late` waited, its doorway behind it.
        for early in records[..at].iter().rev().take_while(|early| early.granted > late.doorway) {
            waited += 1;
            assert!(
                !(late.conflicts(early) && late.doorway < early.began),
                "{early:?} began after the doorway of {late:?} and was granted first"
            );
        }
    }
    assert!(waited > 0, "nobody ever waited: nothing was tested");
}
