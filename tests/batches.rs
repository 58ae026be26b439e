//! Promise: batches. All parts are granted together or none is; a batch stands in the queue as one request does; and
//! one whose owner holds nothing else never deadlocks, in whatever order its parts are given.
//!
//! `SPANLOCK_STRESS_MS` sets how long each stress test goes on.

mod common;

use common::lasting;
use common::poll::{Hand, block_on};
use common::table::{As, Table};
use common::together;
use common::watch::Watchdog;
use fastrand::Rng;
use spanlock::{
    AcquireBatch, AcquireError, Batch, BatchGuard, ByOwner, ByTask, ByteRange, Deadlock, Guard, Mode, Nesting, Owner,
    RangeLock,
};
use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use Mode::{Add, Block, Exclusive};

type OwnGuard<'a> = Guard<&'a RangeLock, ByOwner>;
type OwnBatch<'a> = Hand<AcquireBatch<&'a RangeLock, ByOwner>>;

fn hold<'a>(lock: &'a RangeLock, owner: &Owner, range: Range<u64>, mode: Mode) -> OwnGuard<'a> {
    lock.request(range, mode).owner(owner).try_now().expect("nobody is in the way")
}

fn batch<const N: usize>(parts: [(&RangeLock, Range<u64>, Mode); N]) -> Batch<&'static RangeLock> {
    parts.into_iter().fold(Batch::new(), |batch, (lock, range, mode)| batch.request(lasting(lock), range, mode))
}

fn hand(batch: Batch<&'static RangeLock>, owner: &Owner) -> OwnBatch<'static> {
    Hand::new(batch.owner(owner))
}

fn waits(batch: Batch<&'static RangeLock>, owner: &Owner) -> OwnBatch<'static> {
    let mut hand = hand(batch, owner);
    hand.pending();
    hand
}

fn deadlock<G: std::fmt::Debug>(answer: Result<G, AcquireError>) -> Deadlock {
    match answer {
        Err(AcquireError::Deadlock(deadlock)) => deadlock,
        other => panic!("a deadlock was expected, not {other:?}"),
    }
}

/// How many hold and how many wait.
fn count(lock: &RangeLock) -> (usize, usize) {
    let snapshot = lock.snapshot();
    (snapshot.holders().count(), snapshot.waiters().count())
}

/// Whether a stranger would get this at once.
fn is_free(lock: &RangeLock, range: Range<u64>, mode: Mode) -> bool {
    Hand::new(lock.request(range, mode)).poll().is_ready()
}

#[track_caller]
fn all_free<'a>(locks: impl IntoIterator<Item = &'a RangeLock>) {
    for lock in locks {
        assert_eq!(count(lock), (0, 0), "{lock:?}");
        assert!(Hand::new(lock.request(.., Exclusive)).poll().is_ready(), "{lock:?}");
    }
}

// All or nothing.

/// One part is in the way of somebody, whichever it is: no part is held, all stand in the queue. When it is free, all
/// are held.
#[test]
fn all_parts_are_granted_or_none() {
    let locks: [RangeLock; 3] = Default::default();
    for blocked in 0..3 {
        for asked in Mode::ALL {
            let in_the_way = hold(&locks[blocked], &Owner::new(), 3..4, Exclusive);
            let me = Owner::new();
            let mut waiting = waits(batch([0, 1, 2].map(|i| (&locks[i], 0..8, asked))), &me);
            for (i, lock) in locks.iter().enumerate() {
                assert_eq!(count(lock), (usize::from(i == blocked), 1));
                // First come, first served: who comes later waits for a part that is not even held.
                assert!(
                    Mode::ALL
                        .into_iter()
                        .all(|mode| is_free(lock, 0..8, mode) == (i != blocked && together(asked, mode)))
                );
                assert!(is_free(lock, 8..9, Exclusive));
            }
            drop(in_the_way);
            assert!(waiting.woken());
            let guards = waiting.ready().unwrap();
            for lock in &locks {
                assert_eq!(count(lock), (1, 0));
                assert!(Mode::ALL.into_iter().all(|mode| is_free(lock, 0..8, mode) == together(asked, mode)));
            }
            assert!(guards.iter().all(|guard| (guard.range(), guard.mode()) == (ByteRange::new(0..8), asked)));
            drop(guards);
        }
    }
    all_free(&locks);
}

/// That the free part is not held shows where somebody may pass it: the one that the batch waits for.
#[test]
fn a_free_part_of_a_waiting_batch_is_not_held() {
    let (a, b) = (RangeLock::new(), RangeLock::new());
    let (holder, me) = (Owner::new(), Owner::new());
    let in_the_way = hold(&a, &holder, 0..8, Exclusive);
    let mut waiting = waits(batch([(&a, 0..8, Exclusive), (&b, 0..8, Exclusive)]), &me);
    let passed = b.request(0..8, Exclusive).owner(&holder).wait().expect("it passes");
    waiting.pending();
    drop(in_the_way);
    waiting.pending();
    assert_eq!(count(&a), (0, 1), "nobody is in the way there, but elsewhere");
    drop(passed);
    assert!(waiting.woken());
    assert_eq!(waiting.ready().unwrap().len(), 2);
}

/// Parts come free one after the other, in each order: only the last one makes it ready.
#[test]
fn the_last_part_that_comes_free_decides() {
    let locks: [RangeLock; 4] = Default::default();
    let mut rng = Rng::with_seed(2);
    for _ in 0..30 {
        let others: Vec<Owner> = (0..4).map(|_| Owner::new()).collect();
        let mut holds: Vec<_> = (0..4).map(|i| hold(&locks[i], &others[i], 0..8, Mode::ALL[rng.usize(0..3)])).collect();
        let me = Owner::new();
        let mut waiting = waits(batch([0, 1, 2, 3].map(|i| (&locks[i], 7..9, Exclusive))), &me);
        rng.shuffle(&mut holds);
        while let Some(gone) = holds.pop() {
            waiting.pending();
            drop(gone);
        }
        assert!(waiting.woken());
        drop(waiting.ready().unwrap());
    }
    all_free(&locks);
}

// First come, first served.

/// A request of a history: what it asks for, and its future until that is answered.
struct Live<'a> {
    parts: Vec<(usize, Range<u64>, Mode)>,
    future: Hand<AcquireBatch<&'a RangeLock, ByTask>>,
    guards: Option<BatchGuard<&'a RangeLock, ByTask>>,
}

/// Random batches of one to four parts come and go; each is granted exactly when no earlier one that conflicts is left,
/// and is woken for it.
#[test]
fn batches_are_served_in_the_order_in_which_they_came() {
    let locks: [RangeLock; 3] = Default::default();
    let (mut waited, mut cancelled) = (0, 0);
    for seed in 0..common::by_build(400, 4000) {
        let mut rng = Rng::with_seed(seed);
        let mut live: BTreeMap<usize, Live<'_>> = BTreeMap::new();
        for number in 0..40 {
            if rng.u8(0..3) > 0 && live.len() < 8 {
                let parts: Vec<_> = (0..[1, 1, 2, 2, 3, 4][rng.usize(0..6)])
                    .map(|_| {
                        let start = rng.u64(0..8);
                        let range = start..rng.u64(start..9);
                        (rng.usize(0..3), range, Mode::ALL[[0, 0, 1, 1, 2][rng.usize(0..5)]])
                    })
                    .collect();
                let all = parts.iter().cloned();
                let batch = all
                    .fold(Batch::new(), |batch, (lock, range, mode)| batch.request(lasting(&locks[lock]), range, mode));
                let mut new = Live { parts, future: Hand::new(batch), guards: None };
                if let Poll::Ready(guards) = new.future.poll() {
                    new.guards = Some(guards);
                }
                live.insert(number, new);
            } else if !live.is_empty() {
                let gone = *live.keys().nth(rng.usize(0..live.len())).expect("it is one of them");
                cancelled += u32::from(live[&gone].guards.is_none());
                live.remove(&gone);
            }
            // The woken, until none is.
            while let Some(woken) = live.values_mut().find(|one| one.guards.is_none() && one.future.woken()) {
                if let Poll::Ready(guards) = woken.future.poll() {
                    woken.guards = Some(guards);
                    waited += 1;
                }
            }
            for (&number, one) in &live {
                let free = live.range(..number).all(|(_, earlier)| !conflict(&earlier.parts, &one.parts));
                assert_eq!(one.guards.is_some(), free, "seed {seed}, request {number}: {:?}", one.parts);
            }
        }
    }
    all_free(&locks);
    assert!(waited > 100 && cancelled > 100, "{waited} waited, {cancelled} were cancelled: nothing was tested");
}

fn conflict(one: &[(usize, Range<u64>, Mode)], other: &[(usize, Range<u64>, Mode)]) -> bool {
    one.iter().any(|(lock, range, mode)| {
        other.iter().any(|(its_lock, its_range, its_mode)| {
            // No byte of an empty range lies in another.
            let meet = range.clone().any(|byte| its_range.contains(&byte));
            lock == its_lock && meet && !together(*mode, *its_mode)
        })
    })
}

/// Singles and batches of threads, in front of one another.
#[test]
fn singles_and_batches_are_one_queue() {
    let (a, b) = (RangeLock::new(), RangeLock::new());
    let holder = a.exclusive(..);
    let me = Owner::new();
    let mut first = Hand::new(a.request(0..8, Add));
    first.pending();
    let mut second = waits(batch([(&a, 4..12, Block), (&b, 0..8, Block)]), &me);
    let mut third = Hand::new(lasting(&b).request(0..4, Add));
    third.pending();
    let mut fourth = Hand::new(b.request(2..8, Block));
    fourth.pending();
    // Goes with the batch, and not with the single before it.
    drop(holder);
    let first = first.ready();
    second.pending();
    third.pending();
    drop(first);
    let second = second.ready().unwrap();
    third.pending();
    fourth.pending();
    drop(second);
    let third = third.ready();
    fourth.pending();
    drop(third);
    drop(fourth.ready());
    all_free([&a, &b]);
}

// No deadlock.

#[test]
fn batches_in_opposite_orders_wait_for_one_another_in_turn() {
    let (a, b) = (RangeLock::new(), RangeLock::new());
    let (one, other) = (Owner::new(), Owner::new());
    for start in [None, Some(&a), Some(&b)] {
        let holder = start.map(|lock| Hand::new(lock.request(.., Add)).ready());
        let mut there = hand(batch([(&a, 0..8, Exclusive), (&b, 0..8, Exclusive)]), &one);
        let there_now = there.poll();
        assert_eq!(there_now.is_ready(), holder.is_none());
        let mut back = waits(batch([(&b, 0..8, Exclusive), (&a, 0..8, Exclusive)]), &other);
        drop(holder);
        let there_now = match there_now {
            Poll::Ready(guards) => guards,
            Poll::Pending => there.ready(),
        };
        back.pending();
        drop(there_now.unwrap());
        assert!(back.woken());
        drop(back.ready().unwrap());
    }
    all_free([&a, &b]);
}

/// Threads ask for parts of some locks in any order, by every way there is. Nobody is refused, nobody hangs, nobody has
/// half.
#[test]
fn threads_with_batches_in_any_order() {
    const LOCKS: usize = 4;
    let locks: [Arc<RangeLock>; LOCKS] = Default::default();
    let tables: Vec<Table> = (0..LOCKS).map(|_| Table::new(8)).collect();
    let watchdog = Watchdog::new("threads_with_batches_in_any_order");
    let end = Instant::now() + common::stress_time();
    let [granted, late] = [const { AtomicU64::new(0) }; 2];
    let visit = |seed: u64| {
        let mut rng = Rng::with_seed(seed);
        while Instant::now() < end {
            let mut order: Vec<usize> = (0..LOCKS).collect();
            rng.shuffle(&mut order);
            order.truncate(rng.usize(1..=LOCKS));
            let start = rng.u64(0..8);
            let parts: Vec<_> =
                order.iter().map(|&i| (i, start..rng.u64(start..8) + 1, Mode::ALL[rng.usize(0..3)])).collect();
            let work = |rng: &mut Rng| {
                for (i, range, mode) in &parts {
                    tables[*i].enter(ByteRange::new(range.clone()), As::Holder(*mode));
                }
                if rng.bool() {
                    thread::yield_now();
                }
                for (i, range, mode) in &parts {
                    tables[*i].leave(ByteRange::new(range.clone()), As::Holder(*mode));
                }
            };
            let borrowed = parts
                .iter()
                .cloned()
                .fold(Batch::new(), |batch, (i, range, mode)| batch.request(lasting(&*locks[i]), range, mode));
            let shared = || {
                let all = parts.iter().cloned();
                all.fold(Batch::new(), |batch, (i, range, mode)| batch.request(locks[i].clone(), range, mode))
            };
            let patience = Duration::from_micros(rng.u64(0..200));
            let was_granted = match rng.u8(0..8) {
                0 => borrowed.wait().map(|_guards| work(&mut rng)).is_ok(),
                1 => borrowed.owner(&Owner::new()).wait().map(|_guards| work(&mut rng)).is_ok(),
                2 => {
                    let _guards = shared().wait();
                    work(&mut rng);
                    true
                }
                3 => {
                    let _guards = block_on(borrowed);
                    work(&mut rng);
                    true
                }
                4 => block_on(shared().owner(&Owner::new())).map(|_guards| work(&mut rng)).is_ok(),
                5 => borrowed.try_now().map(|_guards| work(&mut rng)).is_some(),
                6 => shared().timeout(patience).wait().map(|_guards| work(&mut rng)).is_ok(),
                _ => match borrowed.timeout(patience).wait() {
                    Ok(_guards) => {
                        work(&mut rng);
                        true
                    }
                    Err(refused) => {
                        assert!(matches!(refused, AcquireError::TimedOut(_)), "{refused}");
                        false
                    }
                },
            };
            if was_granted { &granted } else { &late }.fetch_add(1, Ordering::Relaxed);
            watchdog.step();
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..5).map(|seed| scope.spawn(move || visit(seed))).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("somebody had half, or two met"));
    });
    assert!(granted.into_inner() > 0 && late.into_inner() > 0, "no contention");
    assert!(tables.iter().all(Table::is_empty));
    all_free(locks.iter().map(|lock| &**lock));
}

/// Nested batches, which pass and are passed and are refused, against outermost ones and singles: what is granted is
/// whole and alone.
#[test]
fn threads_with_nested_batches() {
    let locks: [RangeLock; 3] = Default::default();
    let tables: Vec<Table> = (0..3).map(|_| Table::new(4)).collect();
    let watchdog = Watchdog::new("threads_with_nested_batches");
    let end = Instant::now() + common::stress_time();
    let [nested, deadlocks] = [const { AtomicU64::new(0) }; 2];
    let visit = |seed: u64| {
        let mut rng = Rng::with_seed(seed);
        while Instant::now() < end {
            let first = rng.usize(0..3);
            let others = [(first + 1) % 3, (first + 2) % 3];
            let [outer_mode, mode] = [(); 2].map(|()| Mode::ALL[rng.usize(0..3)]);
            let token = rng.bool().then(Owner::new);
            let parts = || batch(others.map(|i| (&locks[i], 0..4, mode)));
            let enter = || others.map(|i| tables[i].enter(ByteRange::new(0..4), As::Holder(mode)));
            let leave = || others.map(|i| tables[i].leave(ByteRange::new(0..4), As::Holder(mode)));
            let outer = locks[first].request(0..4, outer_mode);
            let answer = match &token {
                None => {
                    let _outer = outer.wait().expect("it holds nothing");
                    tables[first].enter(ByteRange::new(0..4), As::Holder(outer_mode));
                    let answer = parts().wait().map(|_guards| (enter(), thread::yield_now(), leave()));
                    tables[first].leave(ByteRange::new(0..4), As::Holder(outer_mode));
                    answer
                }
                Some(me) => {
                    let _outer = outer.owner(me).wait().expect("it holds nothing");
                    tables[first].enter(ByteRange::new(0..4), As::Holder(outer_mode));
                    let answer = parts().owner(me).wait().map(|_guards| (enter(), thread::yield_now(), leave()));
                    tables[first].leave(ByteRange::new(0..4), As::Holder(outer_mode));
                    answer
                }
            };
            match answer {
                Ok(_) => &nested,
                Err(AcquireError::Deadlock(_)) => &deadlocks,
                Err(other) => panic!("{other}"),
            }
            .fetch_add(1, Ordering::Relaxed);
            watchdog.step();
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|seed| scope.spawn(move || visit(seed))).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("two met"));
    });
    assert!(nested.into_inner() > 0 && deadlocks.into_inner() > 0, "nobody crossed");
    all_free(&locks);
}

// Parts.

/// Overlapping parts of one lock are one owner's; others see the strictest mode on each byte, as long as it is held.
#[test]
fn parts_of_one_lock_may_overlap() {
    let lock = RangeLock::new();
    let parts = [(0..8, Add), (4..12, Block), (6..7, Exclusive), (0..8, Add), (2..3, Block)];
    for by_token in [false, true] {
        let owner = Owner::new();
        let all = parts.iter().cloned();
        let batch = all.fold(Batch::new(), |batch, (range, mode)| batch.request(&lock, range, mode));
        let mut left: Vec<usize> = (0..parts.len()).collect();
        let see = |left: &[usize]| {
            for byte in 0..14 {
                for asked in Mode::ALL {
                    let free = left.iter().all(|&i| !parts[i].0.contains(&byte) || together(parts[i].1, asked));
                    assert_eq!(is_free(&lock, byte..byte + 1, asked), free, "{asked:?} at {byte} beside {left:?}");
                }
            }
        };
        // One after the other, the last first.
        if by_token {
            let mut guards = batch.owner(&owner).wait().unwrap().into_parts();
            while let Some(guard) = guards.pop() {
                see(&left);
                drop((guard, left.pop()));
            }
        } else {
            let mut guards = batch.wait().unwrap().into_parts();
            while let Some(guard) = guards.pop() {
                see(&left);
                drop((guard, left.pop()));
            }
        }
        see(&[]);
    }
    all_free([&lock]);
}

#[test]
fn empty_parts_and_empty_batches_hold_nothing() {
    let (a, b) = (RangeLock::new(), RangeLock::new());
    let me = Owner::new();
    let none: Batch<&RangeLock> = Batch::new();
    assert_eq!(none.clone().wait().unwrap().len(), 0);
    assert_eq!(none.clone().try_now().expect("nothing is in the way").len(), 0);
    assert_eq!(none.clone().deadline(Instant::now()).wait().unwrap().len(), 0);
    assert_eq!(Hand::new(none.clone()).ready().len(), 0);
    assert_eq!(Hand::new(none.owner(&me)).ready().unwrap().len(), 0);
    assert_eq!(Batch::<Arc<RangeLock>>::default().wait().into_parts().len(), 0);
    // Only empty parts: granted beside anybody.
    let in_the_way = b.exclusive(..);
    let empty = || batch([(&a, 5..5, Add), (&b, 0..0, Exclusive)]).owner(&me);
    for guards in [empty().wait().unwrap(), empty().try_now().unwrap(), Hand::new(empty()).ready().unwrap()] {
        let modes: Vec<_> = guards.iter().map(|guard| (guard.range(), guard.mode(), guard.nesting())).collect();
        assert_eq!(modes, [Add, Exclusive].map(|mode| (ByteRange::EMPTY, mode, Nesting::Outermost)));
        assert!(std::ptr::eq(guards[1].lock(), &b));
    }
    assert!(format!("{me:?}").ends_with("live: 0 }"), "what holds nothing counts for nothing: {me:?}");
    // Among others, in their places.
    let guards = batch([(&b, 3..3, Add), (&a, 0..8, Block), (&b, 9..9, Exclusive), (&a, 8..16, Add)]).owner(&me).wait();
    let ranges: Vec<_> = guards.as_ref().unwrap().iter().map(|guard| guard.range().len()).collect();
    assert_eq!(ranges, [0, 8, 0, 8]);
    assert!(format!("{me:?}").ends_with("live: 2 }"), "{me:?}");
    drop((guards, in_the_way));
    all_free([&a, &b]);
}

#[test]
fn inverted_parts_panic() {
    let lock = RangeLock::new();
    let inverted = (std::ops::Bound::Included(9), std::ops::Bound::Excluded(5));
    let panic = catch_unwind(AssertUnwindSafe(|| drop(Batch::new().add(&lock, inverted)))).expect_err("it is inverted");
    assert!(panic.downcast_ref::<String>().is_some_and(|text| text.starts_with("range starts at 9 but ends at 5")));
}

#[test]
fn a_batch_of_one_is_a_request() {
    let lock = RangeLock::new();
    let (one, other) = (Owner::new(), Owner::new());
    let outer = hold(&lock, &one, 0..8, Add);
    let mut queued = waits(batch([(&lock, 0..16, Block)]), &other);
    // It passes, and is not a try.
    let inner = hand(batch([(&lock, 4..12, Add)]), &one).ready().unwrap();
    assert_eq!(inner[0].nesting(), Nesting::Inside { held: ByteRange::new(0..8), mode: Add });
    drop(outer);
    queued.pending();
    drop(inner);
    assert_eq!(queued.ready().unwrap().len(), 1);
    all_free([&lock]);
}

#[test]
fn guards_come_in_the_order_of_the_parts_and_go_one_by_one() {
    let locks: [RangeLock; 3] = Default::default();
    let me = Owner::new();
    for waits_first in [false, true] {
        let in_the_way = waits_first.then(|| Hand::new(locks[1].request(.., Exclusive)).ready());
        let parts =
            [(&locks[2], 0..1, Exclusive), (&locks[0], 5..9, Add), (&locks[2], 1..4, Block), (&locks[1], 7..8, Block)];
        let mut future = hand(batch(parts.clone()), &me);
        if waits_first {
            future.pending();
        }
        drop(in_the_way);
        let mut guards = future.ready().unwrap().into_parts();
        for (guard, (lock, range, mode)) in guards.iter().zip(&parts) {
            assert!(std::ptr::eq(guard.lock(), *lock));
            assert_eq!((guard.range(), guard.mode()), (ByteRange::new(range.clone()), *mode));
        }
        assert!(format!("{me:?}").ends_with("live: 4 }"));
        drop(guards.remove(2));
        assert!(is_free(&locks[2], 1..4, Exclusive) && !is_free(&locks[2], 0..1, Add));
        // Each is a guard like any other.
        guards[0].downgrade(Add);
        assert!(is_free(&locks[2], 0..1, Add));
        guards[1].shrink(6..8);
        assert!(
            is_free(&locks[0], 5..6, Exclusive)
                && is_free(&locks[0], 8..9, Exclusive)
                && !is_free(&locks[0], 6..7, Block)
        );
        assert!(guards[2].try_extend(0..8));
        drop(guards);
        assert!(format!("{me:?}").ends_with("live: 0 }"));
    }
    all_free(&locks);
}

/// More parts than a node has slots, or a batch has room for without the heap.
#[test]
fn many_parts() {
    let locks: [RangeLock; 5] = Default::default();
    let me = Owner::new();
    let all = || {
        (0..200_u64).fold(Batch::new(), |batch, i| {
            batch.request(lasting(&locks[i as usize % 5]), 10 * i..10 * i + 10, Mode::ALL[i as usize % 3])
        })
    };
    // The very last part, and one in the middle.
    for blocked in [199, 100] {
        let in_the_way =
            Hand::new(locks[blocked % 5].request(10 * blocked as u64..10 * blocked as u64 + 1, Exclusive)).ready();
        assert!(all().try_now().is_none());
        let mut waiting = Hand::new(all().owner(&me));
        waiting.pending();
        assert!(locks.iter().enumerate().all(|(i, lock)| count(lock) == (usize::from(i == blocked % 5), 40)));
        drop(in_the_way);
        let guards = waiting.ready().unwrap();
        assert!(locks.iter().all(|lock| count(lock) == (40, 0)));
        assert!((0..200).all(|i| !is_free(&locks[i as usize % 5], 10 * i..10 * i + 10, Exclusive)));
        drop(guards);
    }
    all_free(&locks);
    for lock in &locks {
        lock.trim();
        assert_eq!(lock.heap_nodes(), 0);
    }
}

/// Guards of shared locks keep them alive, part by part, and go to other threads.
#[test]
fn batches_of_shared_locks() {
    let (a, b) = (Arc::new(RangeLock::new()), Arc::new(RangeLock::new()));
    let watches = [Arc::downgrade(&a), Arc::downgrade(&b)];
    let of_both = Batch::new().block(b.clone(), 0..8).exclusive(a.clone(), 0..8);
    // It has an owner of its own, and conflicts with the thread that asks: which would wait for itself.
    let mine = a.add(0..1);
    assert!(of_both.clone().try_now().is_none());
    assert!(matches!(of_both.clone().timeout(Duration::from_secs(60)).wait(), Err(AcquireError::Deadlock(_))));
    drop(mine);
    let guards: BatchGuard<Arc<RangeLock>, ByTask> = of_both.wait();
    drop((a, b));
    let [of_b, of_a] = <[_; 2]>::try_from(guards.into_parts()).expect("two parts");
    thread::spawn(move || drop(of_a)).join().expect("a release does not panic");
    let [a, b] = watches.each_ref().map(|watch| watch.upgrade().is_some());
    assert!(!a && b, "each part keeps its own lock");
    drop(of_b);
    assert!(watches[1].upgrade().is_none());
}

// Not waiting, or not for ever.

#[test]
fn try_takes_all_or_nothing_and_leaves_nothing() {
    let (a, b) = (RangeLock::new(), RangeLock::new());
    let past = Instant::now();
    let parts = || batch([(&a, 0..8, Add), (&b, 0..8, Block)]);
    let me = Owner::new();
    for (lock, mode, goes) in
        [(&a, Add, true), (&a, Block, false), (&b, Block, true), (&b, Add, false), (&b, Exclusive, false)]
    {
        let in_the_way = Hand::new(lock.request(7..9, mode)).ready();
        assert_eq!(parts().try_now().is_some(), goes);
        assert_eq!(parts().owner(&me).try_now().is_some(), goes);
        assert_eq!(parts().deadline(past).wait().is_ok(), goes);
        assert_eq!(parts().owner(&me).timeout(Duration::ZERO).wait().is_ok(), goes);
        drop(in_the_way);
        all_free([&a, &b]);
    }
    // Nobody barges past a queue either.
    let holder = Hand::new(b.request(0..1, Add)).ready();
    let mut queued = Hand::new(b.request(0..8, Exclusive));
    queued.pending();
    assert!(batch([(&a, 0..8, Add), (&b, 4..8, Add)]).try_now().is_none());
    assert!(matches!(parts().deadline(past).wait(), Err(AcquireError::TimedOut(_))));
    drop(holder);
    assert!(queued.woken());
    drop(queued);
    // What is granted is held.
    let guards = parts().try_now().expect("all is free");
    assert!(!is_free(&a, 0..1, Block) && !is_free(&b, 0..1, Add));
    drop(guards);
    let guards = parts().timeout(Duration::MAX).wait().unwrap();
    assert!(!is_free(&a, 0..1, Block) && !is_free(&b, 0..1, Add));
    drop(guards);
    all_free([&a, &b]);
}

/// Who stood behind one part alone goes on when the batch gives up, whichever part that is; and not before.
#[test]
fn a_batch_that_gives_up_wakes_whoever_stood_behind_each_part() {
    let locks: [RangeLock; 3] = Default::default();
    for blocked in 0..3 {
        let in_the_way = Hand::new(locks[blocked].request(0..1, Exclusive)).ready();
        let waiting = waits(batch([0, 1, 2].map(|i| (&locks[i], 0..8, Block))), &Owner::new());
        let mut behind: Vec<_> = locks.iter().map(|lock| Hand::new(lock.request(4..8, Add))).collect();
        behind.iter_mut().for_each(Hand::pending);
        let mut batch_behind = waits(batch([(&locks[1], 5..6, Add), (&locks[2], 5..6, Add)]), &Owner::new());
        assert!(behind.iter().all(|hand| !hand.woken()) && !batch_behind.woken());
        drop(waiting);
        assert!(behind.iter().all(Hand::woken) && batch_behind.woken());
        behind.iter_mut().for_each(|hand| drop(hand.ready()));
        drop(batch_behind.ready().unwrap());
        drop(in_the_way);
    }
    all_free(&locks);
}

/// The same by a deadline, of a thread and of a token.
#[test]
fn a_batch_whose_deadline_passes_leaves_all_its_places() {
    let (a, b) = (RangeLock::new(), RangeLock::new());
    let _watchdog = Watchdog::new("a_batch_whose_deadline_passes_leaves_all_its_places");
    for by_token in [false, true] {
        let holder = Hand::new(a.request(0..1, Add)).ready();
        thread::scope(|scope| {
            let timed = scope.spawn(|| {
                let batch = batch([(&a, 0..8, Block), (&b, 0..8, Block)]);
                let soon = Duration::from_millis(50);
                if by_token {
                    batch.owner(&Owner::new()).timeout(soon).wait().map(drop)
                } else {
                    batch.timeout(soon).wait().map(drop)
                }
            });
            // The first of these that has to wait stands behind the batch; on a slow machine that may have come and
            // gone.
            let behind = std::iter::from_fn(|| (!timed.is_finished()).then(|| Hand::new(b.request(0..8, Add))))
                .find_map(|mut behind| behind.poll().is_pending().then_some(behind));
            assert!(matches!(timed.join().expect("it only waits"), Err(AcquireError::TimedOut(_))));
            if let Some(mut behind) = behind {
                assert!(behind.woken());
                drop(behind.ready());
            }
        });
        drop(holder);
        all_free([&a, &b]);
    }
}

#[test]
fn awaited_batches() {
    let (a, b) = (RangeLock::new(), RangeLock::new());
    let parts = || batch([(&a, 0..8, Block), (&b, 0..8, Block)]);
    // Not polled, no place.
    let never_polled = parts().into_future();
    all_free([&a, &b]);
    assert!(format!("{never_polled:?}").contains("not asked yet"), "{never_polled:?}");
    drop(never_polled);
    // A thread's batch, awaited, is a task's: it conflicts with what the thread holds.
    let mine = b.add(0..1);
    let mut of_task = Hand::new(parts());
    of_task.pending();
    let text = format!("{of_task:?}");
    assert!(text.contains("waiting") && text.contains("Block 0..8"), "{text}");
    assert!(of_task.poll_elsewhere().is_pending());
    drop(mine);
    assert!(of_task.woken(), "the newest waker is the one that is called");
    let guards: BatchGuard<&RangeLock, ByTask> = of_task.ready();
    assert!(a.try_add(0..1).is_none());
    thread::scope(|scope| {
        scope.spawn(move || drop(guards));
    });
    assert!(a.try_add(0..1).is_some());
    assert!(catch_unwind(AssertUnwindSafe(|| of_task.poll())).is_err(), "polled after it was ready");
    // Dropped while it waits: gone from each lock.
    let mine = b.add(0..1);
    let mut dropped = Hand::new(parts());
    dropped.pending();
    assert_eq!((count(&a), count(&b)), ((0, 1), (1, 1)));
    drop(dropped);
    assert_eq!((count(&a), count(&b)), ((0, 0), (1, 0)));
    drop(mine);
    all_free([&a, &b]);
}

// Nested batches.

/// The batch closes the cycle, by its first part or its second one; and a request closes a cycle that a batch is in.
#[test]
fn deadlocks_with_batches() {
    let [a, b, c] = ["a", "b", "c"].map(RangeLock::named);
    let (one, other) = (Owner::named("one"), Owner::named("other"));
    for second in [false, true] {
        let one_a = hold(&a, &one, 0..8, Block);
        let other_b = hold(&b, &other, 0..8, Block);
        let mut one_b = Hand::new(lasting(&b).request(0..4, Add).owner(&one));
        one_b.pending();
        let mut parts = [(&a, 2..3, Exclusive), (&c, 0..8, Exclusive)];
        if second {
            parts.reverse();
        }
        let parts = || {
            parts
                .iter()
                .cloned()
                .fold(Batch::new(), |batch, (lock, range, mode)| batch.request(lasting(lock), range, mode))
        };
        let error = deadlock(parts().owner(&other).wait());
        assert_eq!(
            error.to_string(),
            format!(
                "deadlock: 2 owners wait for one another\n  \
                 {} \"other\" asks a for 2..3 (exclusive); {} \"one\" holds 0..8 (block)\n  \
                 {} \"one\" asks b for 0..4 (add); {} \"other\" holds 0..8 (block)",
                other.id(),
                one.id(),
                one.id(),
                other.id()
            )
        );
        assert_eq!(deadlock(hand(parts(), &other).ready()), error);
        assert_eq!(deadlock(parts().owner(&other).timeout(Duration::from_secs(1000)).wait()), error);
        assert_eq!(count(&c), (0, 0), "refused with all its parts");
        assert!(parts().owner(&other).try_now().is_none());
        drop(other_b);
        drop((one_b.ready().unwrap(), one_a));
    }
    // The batch is in the cycle already.
    let one_a = hold(&a, &one, 0..8, Block);
    let other_b = hold(&b, &other, 0..8, Block);
    let mut both = waits(batch([(&c, 0..8, Add), (&b, 0..8, Add)]), &one);
    let error = deadlock(a.request(0..8, Add).owner(&other).wait());
    let [first, second] = error.waits() else { panic!("two waits: {error}") };
    assert_eq!((&*first.lock, &*second.lock, second.range), ("a", "b", ByteRange::new(0..8)));
    // Two batches that cross, each holding what the other asks for.
    let error = deadlock(hand(batch([(&a, 1..2, Add), (&c, 1..2, Add)]), &other).ready());
    assert_eq!(error.waits().len(), 2);
    drop(other_b);
    drop((both.ready().unwrap(), one_a));
    all_free([&a, &b, &c]);
}

/// Somebody whom the batch waits for in one lock passes it in another.
#[test]
fn a_queued_batch_is_passed() {
    let (a, b) = (RangeLock::new(), RangeLock::new());
    let (me, other) = (Owner::new(), Owner::new());
    let outer = hold(&a, &me, 0..8, Add);
    let mut queued = waits(batch([(&a, 0..8, Block), (&b, 0..8, Block)]), &other);
    let single = b.request(0..8, Add).owner(&me).wait().expect("it passes");
    let nested = hand(batch([(&a, 0..8, Add), (&b, 4..12, Add)]), &me).ready().expect("it passes");
    drop(outer);
    queued.pending();
    drop(single);
    queued.pending();
    drop(nested);
    assert!(queued.woken());
    drop(queued.ready().unwrap());
    all_free([&a, &b]);
}

/// A batch passes a queued single, another batch, and two of them in two locks; it waits on for who is really in the
/// way.
#[test]
fn a_nested_batch_passes() {
    let (a, b) = (RangeLock::new(), RangeLock::new());
    let (me, single, double, holder) = (Owner::new(), Owner::new(), Owner::new(), Owner::new());
    let outer = hold(&a, &me, 0..8, Add);
    let b_held = hold(&b, &holder, 12..16, Block);
    let mut single = Hand::new(lasting(&a).request(0..16, Block).owner(&single));
    single.pending();
    let mut double = waits(batch([(&b, 0..4, Block), (&a, 4..6, Block)]), &double);
    let mut nested = waits(batch([(&a, 4..12, Add), (&b, 0..16, Add)]), &me);
    // Those that it passes are behind it now, though it is not granted yet.
    drop(outer);
    single.pending();
    double.pending();
    drop(b_held);
    assert!(nested.woken());
    let nested = nested.ready().unwrap();
    single.pending();
    double.pending();
    drop(nested);
    let single = single.ready().unwrap();
    // Blockers go together.
    drop((double.ready().unwrap(), single));
    all_free([&a, &b]);
}

/// A batch of a bystander is not overtaken.
#[test]
fn a_nested_request_waits_behind_a_batch_that_does_not_need_it() {
    let (a, b) = (RangeLock::new(), RangeLock::new());
    let (me, bystander) = (Owner::new(), Owner::new());
    let outer = hold(&a, &me, 0..8, Add);
    let in_the_way = Hand::new(b.request(0..1, Add)).ready();
    let mut queued = waits(batch([(&b, 0..8, Block), (&a, 8..16, Block)]), &bystander);
    let mut nested = waits(batch([(&a, 4..12, Add)]), &me);
    drop(in_the_way);
    let queued = queued.ready().unwrap();
    nested.pending();
    drop(queued);
    drop((nested.ready().unwrap(), outer));
    all_free([&a, &b]);
}

/// The guard goes at once, whoever waits for it has it first, and the batch has it again.
#[test]
fn regain_lets_go_and_asks_again() {
    let (a, b) = (RangeLock::new(), RangeLock::new());
    let me = Owner::new();
    let mut first = hold(lasting(&a), &me, 2..6, Exclusive);
    first.downgrade(Block);
    let second = hold(lasting(&a), &me, 20..30, Add);
    let nothing = hold(lasting(&b), &me, 4..4, Add);
    let mut waiter = Hand::new(a.request(0..4, Add));
    waiter.pending();
    let batch = Batch::new().exclusive(lasting(&b), 0..8).regain(first).regain(second).regain(nothing).owner(&me);
    assert!(waiter.woken() && is_free(&a, 20..30, Exclusive), "they go now, not when the batch asks");
    let waiter = waiter.ready();
    let mut regaining = Hand::new(batch);
    regaining.pending();
    drop(waiter);
    let guards = regaining.ready().unwrap();
    let parts: Vec<_> = guards.iter().map(|guard| (guard.range(), guard.mode())).collect();
    let expected = [(0..8, Exclusive), (2..6, Block), (20..30, Add), (0..0, Add)];
    assert_eq!(parts, expected.map(|(range, mode)| (ByteRange::new(range), mode)));
    assert!(guards.iter().all(|guard| guard.nesting() == Nesting::Outermost));
    drop(guards);
    // Of a thread, and of a guard of another kind.
    let mine = a.exclusive(0..8);
    let guards = Batch::new().regain(mine).regain(Hand::new(b.request(0..8, Block)).ready()).wait().unwrap();
    assert_eq!(guards.len(), 2);
    assert!(b.try_add(0..1).is_some(), "it is this thread's now");
    drop(guards);
    all_free([&a, &b]);
}
