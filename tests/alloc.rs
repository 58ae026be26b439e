//! Promise: an uncontended acquire and release on a quiet lock does not allocate, from the very first one of a thread
//! on, in any mode, for any range, by a call or by a future that is granted at its first poll; nor do nested requests
//! and conversions (but that a task's guard is given an owner when it is split). So none of them pins an epoch either:
//! a thread's first pin allocates.

mod common;

use common::alloc::{Counting, allocations};
use common::poll::poll_once;
use spanlock::{ByteRange, Guard, LockRef, Mode, Nesting, OwnedBy, Owner, RangeLock, Recursion, WholeFileLock};
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

/// Runs `use_lock` on a new thread, which has never seen a lock before, many times; no round may allocate. The count is
/// of that thread only, so that the other tests do not disturb it.
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

/// A refused `try_` costs no memory either: it is what a busy loop does. (An error does: it has names in it.)
#[test]
fn refused_tries_do_not_allocate() {
    let lock = RangeLock::named("busy");
    let refuses = Owner::named("loop").recursion(Recursion::Refuse);
    let _holder = lock.request(.., Mode::Exclusive).owner(&refuses).wait().expect("nobody is there");
    never_allocates(|range, mode| {
        let empty = range.is_empty();
        assert_eq!(lock.request(range, mode).try_now().is_some(), empty);
        assert_eq!(lock.request(range, mode).owner(&refuses).try_now().is_some(), empty);
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

/// What the last sentence of the promise relies on.
#[test]
fn the_first_pin_of_a_thread_allocates() {
    thread::scope(|scope| {
        let pins = scope.spawn(|| allocations(crossbeam_epoch::pin).0);
        assert!(pins.join().expect("a pin does not panic") > 0, "then counting allocations does not find pins");
    });
}

/// Nested in one that conflicts or goes with it, and in one elsewhere.
#[test]
fn nested_requests_do_not_allocate() {
    let (lock, elsewhere) = (RangeLock::new(), RangeLock::new());
    let past = Instant::now();
    never_allocates(|range, mode| {
        let outer = lock.block(0..1 << 40);
        let second = elsewhere.add(4096..);
        let inner = lock.request(range, mode).wait().expect("its own");
        assert_eq!(inner.nesting() == Nesting::Outermost, range.is_empty());
        assert!(lock.request(range, mode).try_now().is_some());
        assert!(lock.request(range, mode).deadline(past).wait().is_ok());
        assert!(lock.request(range, mode).timeout(Duration::from_secs(100)).wait().is_ok());
        // Not in the order in which they came.
        drop(outer);
        drop(second);
        drop(inner);
    });
    assert_eq!(lock.heap_nodes(), 0);
}

#[test]
fn tokens_do_not_allocate() {
    let lock = Arc::new(RangeLock::new());
    let owner = Owner::new();
    let refuses = owner.clone().recursion(Recursion::Refuse);
    never_allocates(|range, mode| {
        let outer =
            common::lasting(&*lock).request(0..1 << 40, Mode::Block).owner(&owner).wait().expect("nobody is there");
        let inner = common::lasting(&*lock).request(range, mode).owner(&owner).wait().expect("its own");
        assert_eq!(inner.nesting() == Nesting::Outermost, range.is_empty());
        assert!(lock.request_arc(range, mode).owner(&owner).try_now().is_some());
        let mut future = common::lasting(&*lock).request(range, mode).owner(&owner).into_future();
        assert!(poll_once(&mut future).is_ready());
        drop(common::lasting(&*lock).request(range, mode).owner(&refuses).try_now());
        drop((outer, inner));
    });
    assert_eq!(lock.heap_nodes(), 0);
}

/// Whatever the guard's mode, down to nothing held.
fn convert_in_the_root<L: LockRef, O: OwnedBy>(mut guard: Guard<L, O>) {
    let (range, mode) = (guard.range(), guard.mode());
    guard.downgrade(mode);
    for mode in Mode::ALL {
        assert!(guard.try_convert(mode));
    }
    guard.downgrade(Mode::Add);
    let (Some(start), Some(last)) = (range.start(), range.last()) else { return };
    guard.shrink(start..=start + (last - start) / 2);
    assert!(guard.try_extend(range) && guard.try_extend(..));
    let (head, tail) = guard.split(1 << 63);
    let (first, second) = head.release(1 << 20..1 << 30);
    drop((tail, second, first));
}

#[test]
fn conversions_do_not_allocate() {
    let lock = Arc::new(RangeLock::new());
    let owner = Owner::new();
    never_allocates(|range, mode| {
        convert_in_the_root(lock.request(range, mode).wait().expect("nobody is there"));
        convert_in_the_root(lock.request(range, mode).owner(&owner).wait().expect("nobody is there"));
        // Nested, over its own.
        let _outer = lock.exclusive(..);
        convert_in_the_root(lock.request(range, mode).wait().expect("its own"));
    });
    assert_eq!(lock.heap_nodes(), 0);
}

/// The parts of a task's guard have one owner, which is made when there are several: once.
#[test]
fn conversions_of_a_task_s_guard_allocate_its_owner() {
    let lock = Arc::new(RangeLock::new());
    convert_in_the_root(lock.request_arc(0..4096, Mode::Add).wait());
    for range in ranges() {
        let guard = lock.request_arc(range, Mode::Exclusive).wait();
        let (count, ()) = allocations(|| convert_in_the_root(guard));
        assert!(count <= 1, "{count} for {range:?}");
    }
    assert_eq!(lock.heap_nodes(), 0);
}
