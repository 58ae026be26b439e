//! Promise: who would wait for a poisoned holder is refused, and told why; everybody else goes on as before, and the
//! mark goes with the holder.

mod common;

use common::poll::{Hand, block_on};
use common::watch::Watchdog;
use common::{forget, lasting, together};
use spanlock::{AcquireError, Batch, ByOwner, ByteRange, Guard, Mode, Owner, OwnerGuard, Poisoned, RangeLock};
use std::error::Error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use Mode::{Add, Block, Exclusive};

type Asked = Hand<spanlock::Acquire<&'static RangeLock, ByOwner>>;

/// By somebody new.
fn hold(lock: &RangeLock, range: std::ops::Range<u64>, mode: Mode) -> OwnerGuard<'_> {
    lock.request(range, mode).owner(&Owner::new()).try_now().expect("it is free")
}

/// The future of somebody new, who waits.
fn queue(lock: &RangeLock, range: std::ops::Range<u64>, mode: Mode) -> Asked {
    let mut asked = Hand::new(lasting(lock).request(range, mode).owner(&Owner::new()));
    assert!(asked.poll().is_pending());
    asked
}

#[track_caller]
fn refused<T>(answer: Result<T, AcquireError>) -> Poisoned {
    match answer {
        Err(AcquireError::Poisoned(poisoned)) => poisoned,
        Err(other) => panic!("refused for another reason: {other}"),
        Ok(_) => panic!("it should have been refused"),
    }
}

/// A request of somebody new, who does not wait for long.
fn ask(lock: &RangeLock, range: std::ops::Range<u64>, mode: Mode) -> Result<OwnerGuard<'_>, AcquireError> {
    lock.request(range, mode).owner(&Owner::new()).timeout(Duration::from_secs(60)).wait()
}

#[test]
fn who_conflicts_is_refused_and_told_why() {
    for held in Mode::ALL {
        let lock = RangeLock::named("log");
        let me = Owner::named("writer");
        let guard = lock.request(10..20, held).owner(&me).wait().unwrap();
        guard.poison("stuck");
        assert!(guard.is_poisoned());
        for asked in Mode::ALL {
            assert!(ask(&lock, 0..10, asked).is_ok() && ask(&lock, 20..30, asked).is_ok(), "it is not in the way");
            assert_eq!(ask(&lock, 19..21, asked).is_ok(), together(held, asked));
            assert_eq!(lock.request(0..11, asked).owner(&Owner::new()).try_now().is_some(), together(held, asked));
            // Its own owner does not wait for it.
            assert!(lock.request(0..30, asked).owner(&me).wait().is_ok());
        }
        let error = ask(&lock, 0..30, Exclusive).unwrap_err();
        let said = format!("{} \"writer\" holds 10..20 of log ({held}) and was poisoned: stuck", me.id());
        assert_eq!(error.to_string(), said);
        assert_eq!(error.source().map(ToString::to_string), Some(said));
        assert_eq!(io::Error::from(error.clone()).kind(), io::ErrorKind::Other);
        let poisoned = refused(Err::<(), _>(error));
        assert_eq!((poisoned.lock(), poisoned.range(), poisoned.mode()), ("log", ByteRange::new(10..20), held));
        assert_eq!((poisoned.owner().id, poisoned.reason()), (me.id(), "stuck"));
        drop(guard);
        assert!(ask(&lock, 0..30, Exclusive).is_ok(), "the mark has gone with it");
        assert_eq!(lock.clear_poison(..), 0);
    }
}

/// A whole queue falls, each woken by the one before it.
#[test]
fn who_waits_already_is_refused() {
    let lock = RangeLock::new();
    let guard = hold(&lock, 0..10, Exclusive);
    let mut queue: Vec<_> =
        (0..40).map(|i| queue(&lock, i % 10..10, [Add, Block, Exclusive][i as usize % 3])).collect();
    guard.poison("stuck");
    let mut rounds = 0;
    while !queue.is_empty() {
        let woken = queue.iter().position(Hand::woken).expect("somebody was woken");
        refused(queue.remove(woken).ready());
        rounds += 1;
    }
    assert_eq!(rounds, 40);
    assert_eq!(lock.snapshot().requests().len(), 1);
    drop(guard);
    assert!(lock.try_exclusive(..).is_some());
}

#[test]
fn who_is_blocked_in_a_call_is_refused() {
    let watchdog = Watchdog::new("who_is_blocked_in_a_call_is_refused");
    let lock = RangeLock::new();
    let guard = hold(&lock, 0..10, Exclusive);
    thread::scope(|scope| {
        let calls = [
            scope.spawn(|| drop(refused(lock.request(5..6, Add).wait()))),
            scope.spawn(|| drop(refused(lock.request(5..6, Block).timeout(Duration::MAX).wait()))),
            scope.spawn(|| drop(refused(Batch::new().add(&lock, 20..21).exclusive(&lock, 0..1).wait()))),
        ];
        while lock.snapshot().waiters().count() < 4 {
            thread::yield_now();
        }
        guard.poison("stuck");
        calls.into_iter().for_each(|call| call.join().unwrap());
    });
    watchdog.step();
    assert_eq!(lock.snapshot().requests().len(), 1);
    let late = lock.request(5..6, Add).deadline(Instant::now()).wait();
    assert!(matches!(late, Err(AcquireError::TimedOut(_))), "it does not wait");
}

/// Who waits for two, and sleeps because of the other, finds it when that one has gone.
#[test]
fn who_sleeps_on_another_is_refused_when_that_has_gone() {
    let lock = RangeLock::new();
    let stuck = hold(&lock, 0..10, Exclusive);
    let other = hold(&lock, 10..20, Exclusive);
    // Whichever of the two: of many some sleep on each.
    let mut queue: Vec<_> = (0..20).map(|_| queue(&lock, 5..15, Add)).collect();
    stuck.poison("stuck");
    let fall = |queue: &mut Vec<Asked>| {
        let (woken, asleep): (Vec<_>, Vec<_>) = queue.drain(..).partition(Hand::woken);
        let count = woken.len();
        woken.into_iter().for_each(|mut hand| drop(refused(hand.ready())));
        queue.extend(asleep);
        count
    };
    assert!(fall(&mut queue) > 0);
    while fall(&mut queue) > 0 {}
    drop(other);
    while fall(&mut queue) > 0 {}
    assert!(queue.is_empty(), "{} sleep on", queue.len());
    drop(stuck);
}

/// The same bit says of one who waits that it is to look again.
#[test]
fn who_is_to_look_again_is_not_poisoned() {
    let lock = RangeLock::new();
    let guard = hold(&lock, 0..10, Exclusive);
    let mut first = queue(&lock, 0..10, Exclusive);
    let (head, tail) = guard.split(5);
    let mut second = queue(&lock, 0..10, Exclusive);
    assert_eq!(lock.poison(5.., "stuck"), 1);
    assert!(!head.is_poisoned() && tail.is_poisoned());
    assert!(tail.clear_poison());
    drop((head, tail));
    drop(first.ready().unwrap());
    drop(second.ready().unwrap());
}

#[test]
fn it_can_be_taken_back() {
    let lock = RangeLock::new();
    let guard = hold(&lock, 0..10, Block);
    assert!(!guard.clear_poison() && !guard.is_poisoned());
    for by_lock in [false, true] {
        guard.poison("stuck");
        refused(ask(&lock, 0..1, Add));
        guard.poison("stuck for good");
        assert_eq!(refused(ask(&lock, 0..1, Add)).reason(), "stuck for good");
        match by_lock {
            true => assert_eq!(lock.clear_poison(..), 1),
            false => assert!(guard.clear_poison()),
        }
        assert!(!guard.is_poisoned());
        let mut waits = queue(&lock, 0..1, Add);
        waits.pending();
        drop(waits);
    }
    let mut waits = queue(&lock, 0..1, Add);
    drop(guard);
    assert!(waits.woken() && waits.ready().is_ok());
}

fn check(guard: &Guard<&RangeLock, ByOwner>, reason: &str) {
    assert!(guard.is_poisoned());
    assert_eq!(refused(ask(guard.lock(), 0..1000, Exclusive)).reason(), reason);
}

#[test]
fn it_stays_with_what_the_hold_becomes() {
    let lock = RangeLock::new();
    let mut guard = hold(&lock, 0..100, Exclusive);
    guard.poison("stuck");
    guard.downgrade(Add);
    check(&guard, "stuck");
    guard.shrink(0..80);
    check(&guard, "stuck");
    let (mut head, tail) = guard.split(40);
    for guard in [&head, &tail] {
        check(guard, "stuck");
        assert_eq!(
            refused(ask(&lock, guard.range().start().unwrap()..guard.range().last().unwrap(), Block)).reason(),
            "stuck"
        );
    }
    assert!(head.try_convert(Exclusive));
    drop(tail);
    check(&head, "stuck");
    assert!(head.try_extend(0..90));
    check(&head, "stuck");
    drop(head);
    assert!(ask(&lock, 0..1000, Exclusive).is_ok());
}

#[test]
fn it_stays_with_a_hold_that_has_waited_to_become_more() {
    let watchdog = Watchdog::new("it_stays_with_a_hold_that_has_waited_to_become_more");
    let lock = RangeLock::new();
    let other = hold(&lock, 0..1, Add);
    thread::scope(|scope| {
        let converted = scope.spawn(|| {
            let mut guard = hold(&lock, 0..10, Add);
            guard.poison("stuck");
            guard.convert(Exclusive).unwrap();
            check(&guard, "stuck");
        });
        while lock.snapshot().waiters().count() == 0 {
            thread::yield_now();
        }
        drop(other);
        converted.join().unwrap();
    });
    watchdog.step();
}

#[test]
fn the_lock_poisons_who_holds_and_nobody_else() {
    let lock = RangeLock::new();
    let [one, two, far] = [0..10, 10..20, 1 << 40..(1 << 40) + 1].map(|range| hold(&lock, range, Add));
    let mut waits = queue(&lock, 15..16, Exclusive);
    assert_eq!(lock.poison(5..5, "nothing"), 0);
    assert_eq!(lock.poison(5..16, "stuck"), 2);
    assert!(one.is_poisoned() && two.is_poisoned() && !far.is_poisoned());
    refused(waits.ready());
    assert_eq!(refused(ask(&lock, 0..1, Exclusive)).reason(), "stuck");
    let mut for_far = queue(&lock, 1 << 40..(1 << 40) + 1, Exclusive);
    assert_eq!((lock.clear_poison(..5), lock.clear_poison(..), lock.clear_poison(..)), (1, 1, 0));
    drop((one, two, far));
    assert!(for_far.ready().is_ok());
    // One whom nobody will ever release.
    forget(hold(&lock, 0..10, Exclusive));
    assert_eq!(lock.poison(.., "its thread has ended"), 1);
    refused(ask(&lock, 0..1, Add));
    assert!(ask(&lock, 10..20, Add).is_ok());
}

#[test]
fn drains_and_batches_and_tasks() {
    let (lock, other) = (RangeLock::new(), RangeLock::new());
    let guard = hold(&lock, 0..10, Add);
    let mut drain = Hand::new(lasting(&lock).drained(.., Exclusive).owner(&Owner::new()));
    assert!(drain.poll().is_pending());
    // One that comes later is not waited for, whatever it is.
    let later = hold(&lock, 0..10, Add);
    later.poison("later");
    drain.pending();
    guard.poison("stuck");
    assert_eq!(refused(drain.ready()).reason(), "stuck");
    drop(later);
    assert_eq!(refused(lock.drained(5..6, Block).owner(&Owner::new()).wait()).reason(), "stuck");
    // All parts of a batch are given up, in all locks.
    let batch = Batch::new().add(lasting(&other), 0..10).exclusive(lasting(&lock), 5..6);
    refused(block_on(batch.owner(&Owner::new())));
    assert!(other.try_exclusive(..).is_some());
    // A request that cannot be refused.
    let shared = Arc::new(RangeLock::named("shared"));
    let held = shared.request_arc(0..1, Exclusive).wait();
    held.poison("stuck");
    for awaits in [false, true] {
        let asked = || match awaits {
            true => drop(block_on(shared.request_arc(0..1, Add))),
            false => drop(shared.request_arc(0..1, Add).wait()),
        };
        let panic = catch_unwind(AssertUnwindSafe(asked)).unwrap_err();
        let said = panic.downcast::<String>().unwrap();
        assert!(said.ends_with("holds 0..1 of shared (exclusive) and was poisoned: stuck"), "{said}");
    }
    assert_eq!(shared.snapshot().requests().len(), 1);
}

/// The reasons of those who have gone are not kept.
#[test]
fn a_reason_is_that_of_who_is_there() {
    let lock = RangeLock::new();
    let kept = hold(&lock, 0..1, Exclusive);
    kept.poison("kept");
    for round in 0..500_u64 {
        let guards: Vec<_> = (1..20).map(|i| hold(&lock, i * 10..i * 10 + 1, Exclusive)).collect();
        guards[(round % 19) as usize].poison(round.to_string());
        let at = (round % 19 + 1) * 10;
        assert_eq!(refused(ask(&lock, at..at + 1, Add)).reason(), round.to_string());
        drop(guards);
        if round % 50 == 0 {
            lock.trim();
        }
    }
    assert_eq!(refused(ask(&lock, 0..1, Add)).reason(), "kept");
}

/// Threads ask, hold, split and convert, while others poison and take it back: nobody sleeps on, and nobody is let in
/// beside.
#[test]
fn nobody_sleeps_on() {
    let watchdog = Watchdog::new("nobody_sleeps_on");
    let end = Instant::now() + common::stress_time();
    let (refusals, grants) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut rounds = 0;
    // On a busy machine a round can be over before two of its threads have met.
    while Instant::now() < end || (rounds < 1000 && [&refusals, &grants].iter().any(|count| count.load(Relaxed) == 0)) {
        rounds += 1;
        let (lock, inside, over) = (RangeLock::new(), AtomicU64::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            let workers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..200 {
                            match lock.request(0..10, Exclusive).wait() {
                                Ok(guard) => {
                                    assert_eq!(inside.fetch_add(1, Relaxed), 0);
                                    if fastrand::u8(0..4) == 0 {
                                        guard.poison("by itself");
                                    }
                                    inside.fetch_sub(1, Relaxed);
                                    if fastrand::bool() {
                                        drop(guard.split(5));
                                    }
                                    grants.fetch_add(1, Relaxed);
                                }
                                Err(error) => {
                                    assert!(
                                        ["by itself", "by the lock"].contains(&refused(Err::<(), _>(error)).reason())
                                    );
                                    refusals.fetch_add(1, Relaxed);
                                }
                            }
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    lock.poison(3..4, "by the lock");
                    thread::yield_now();
                    lock.clear_poison(..);
                }
            });
            workers.into_iter().for_each(|worker| worker.join().unwrap());
            over.store(true, Relaxed);
        });
        watchdog.step();
        assert!(lock.try_exclusive(..).is_some() && lock.snapshot().requests().is_empty());
    }
    assert!(refusals.into_inner() > 0 && grants.into_inner() > 0);
}
