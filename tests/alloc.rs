//! Promise: an uncontended acquire and release on a quiet lock does not allocate, from the very first one of a thread on, in any
//! mode, for any range, by a call or by a future that is granted at its first poll.

mod common;

use common::alloc::{Counting, allocations};
use common::poll::poll_once;
use spanlock::{ByteRange, Mode, RangeLock, WholeFileLock};
use std::future::IntoFuture;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

#[global_allocator]
static COUNTING: Counting = Counting;

/// Small and large, aligned and not, at both ends and across the middle; empty too.
fn ranges() -> [ByteRange; 8] {
    [
        ByteRange::new(0..1),
        ByteRange::new(0..4096),
        ByteRange::new(12_345..1_000_003),
        ByteRange::new(u64::MAX..),
        ByteRange::new((1 << 63) - 1..=1 << 63),
        ByteRange::new(1 << 40..),
        ByteRange::WHOLE,
        ByteRange::EMPTY,
    ]
}

/// Runs `use_lock` on a new thread, which has never seen a lock before, many times; no round may allocate. The count is of
/// that thread only, so that the other tests do not disturb it.
fn never_allocates(use_lock: impl Fn(ByteRange, Mode) + Send) {
    let ranges = ranges();
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            for round in 0..100 {
                for range in ranges {
                    for mode in Mode::ALL {
                        let (count, ()) = allocations(|| use_lock(range, mode));
                        assert_eq!(count, 0, "{mode:?} {range:?} in round {round}");
                    }
                }
            }
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// The counter counts: otherwise everything below is true of anything.
#[test]
fn the_counter_counts() {
    let (count, boxed) = allocations(|| Box::new([0_u8; 100]));
    assert_eq!(count, 1);
    drop(boxed);
}

#[test]
fn blocking_calls_do_not_allocate() {
    let lock = RangeLock::new();
    never_allocates(|range, mode| {
        drop(match mode {
            Mode::Add => lock.add(range),
            Mode::Block => lock.block(range),
            Mode::Exclusive => lock.exclusive(range),
        });
        drop(lock.request(range, mode).wait().unwrap());
    });
    assert_eq!(lock.heap_nodes(), 0);
}

#[test]
fn tries_and_deadlines_do_not_allocate() {
    let lock = RangeLock::new();
    let past = Instant::now();
    never_allocates(|range, mode| {
        let tried = match mode {
            Mode::Add => lock.try_add(range),
            Mode::Block => lock.try_block(range),
            Mode::Exclusive => lock.try_exclusive(range),
        };
        assert!(tried.is_some());
        drop(tried);
        assert!(lock.request(range, mode).deadline(past).wait().is_ok());
        assert!(lock.request(range, mode).timeout(Duration::from_secs(100)).wait().is_ok());
    });
}

/// A refused `try_` costs no memory either: it is what a busy loop does.
#[test]
fn refused_tries_do_not_allocate() {
    let lock = RangeLock::new();
    let _holder = lock.exclusive(..);
    let past = Instant::now();
    never_allocates(|range, mode| {
        let empty = range.is_empty();
        assert_eq!(lock.request(range, mode).try_now().is_some(), empty);
        assert_eq!(lock.request(range, mode).deadline(past).wait().is_ok(), empty);
    });
}

#[test]
fn futures_granted_at_once_do_not_allocate() {
    let lock = RangeLock::new();
    never_allocates(|range, mode| {
        let mut future = lock.request(range, mode).into_future();
        assert!(poll_once(&mut future).is_ready());
    });
}

#[test]
fn arc_guards_do_not_allocate() {
    let lock = Arc::new(RangeLock::new());
    never_allocates(|range, mode| {
        drop(lock.request_arc(range, mode).wait());
        assert!(lock.request_arc(range, mode).try_now().is_some());
        let mut future = lock.request_arc(range, mode).into_future();
        assert!(poll_once(&mut future).is_ready());
    });
}

#[test]
fn the_whole_file_lock_does_not_allocate() {
    let lock = WholeFileLock::new();
    never_allocates(|_, mode| {
        drop(match mode {
            Mode::Add => lock.add(),
            Mode::Block => lock.block(),
            Mode::Exclusive => lock.exclusive(),
        });
        assert!(lock.request(mode).try_now().is_some());
    });
}

/// A few held at once still fit the root. New locks, so that nothing is warm.
#[test]
fn a_few_held_at_once_do_not_allocate() {
    thread::scope(|scope| {
        scope.spawn(|| {
            let (count, ()) = allocations(|| {
                let lock = RangeLock::new();
                let guards = [lock.add(0..10), lock.block(20..30), lock.exclusive(40..50), lock.add(60..)];
                drop(guards);
            });
            assert_eq!(count, 0);
        });
    });
}
