//! Promise: an owner never conflicts with itself; a nested request passes exactly whom waiting for would close a cycle;
//! and a deadlock is an answer, not a hang.
//!
//! The patterns are those of a page cache. Each is played by futures that are polled by hand, in the one order that
//! makes the cycle, and by threads that block, as themselves and as tokens.
//!
//! `SPANLOCK_STRESS_MS` sets how long each stress test goes on.

mod common;

use common::actors::{self, Actor, Holds, first_refused, play};
use common::forget;
use common::lasting;
use common::poll::{Hand, block_on};
use common::together;
use common::watch::Watchdog;
use fastrand::Rng;
use spanlock::{
    Acquire, AcquireError, Batch, ByOwner, ByteRange, Deadlock, Guard, Mode, Nesting, Owner, OwnerId, RangeLock,
    Recursion, WholeFileLock,
};
use std::collections::HashSet;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

type OwnGuard<'a> = Guard<&'a RangeLock, ByOwner>;
type OwnHand<'a> = Hand<Acquire<&'a RangeLock, ByOwner>>;

fn hand<'a>(lock: &'a RangeLock, owner: &Owner, range: Range<u64>, mode: Mode) -> OwnHand<'a> {
    Hand::new(lasting(lock).request(range, mode).owner(owner))
}

fn hold<'a>(lock: &'a RangeLock, owner: &Owner, range: Range<u64>, mode: Mode) -> OwnGuard<'a> {
    hand(lock, owner, range, mode).ready().expect("it is no cycle")
}

fn waits<'a>(lock: &'a RangeLock, owner: &Owner, range: Range<u64>, mode: Mode) -> OwnHand<'a> {
    let mut hand = hand(lock, owner, range, mode);
    hand.pending();
    hand
}

fn deadlock(lock: &RangeLock, owner: &Owner, range: Range<u64>, mode: Mode) -> Deadlock {
    match hand(lock, owner, range, mode).poll() {
        Poll::Ready(Err(AcquireError::Deadlock(deadlock))) => deadlock,
        other => panic!("a deadlock was expected, not {other:?}"),
    }
}

use Mode::{Add, Block, Exclusive};

#[test]
fn a_nested_add_passes_a_queued_block_that_waits_for_its_owner() {
    let a = RangeLock::new();
    let (t1, t2) = (Owner::new(), Owner::new());
    let outer = hold(&a, &t1, 0..8, Add);
    let mut queued = waits(&a, &t2, 0..8, Block);
    let inner = hold(&a, &t1, 0..8, Add);
    drop(outer);
    queued.pending();
    drop(inner);
    drop(queued.ready().unwrap());
}

#[test]
fn a_nested_add_elsewhere_passes_a_queued_block_of_both() {
    let a = RangeLock::new();
    let (t1, t2) = (Owner::new(), Owner::new());
    let outer = hold(&a, &t1, 0..4, Add);
    let mut queued = waits(&a, &t2, 0..8, Block);
    let inner = hold(&a, &t1, 4..8, Add);
    drop((outer, inner));
    drop(queued.ready().unwrap());
}

#[test]
fn who_waits_for_a_holder_lets_it_pass_a_third() {
    let (a, b) = (RangeLock::new(), RangeLock::new());
    let (t1, t2, t3) = (Owner::new(), Owner::new(), Owner::new());
    let t1_a = hold(&a, &t1, 0..8, Add);
    let t2_b = hold(&b, &t2, 0..8, Block);
    let mut t1_b = waits(&b, &t1, 0..8, Add);
    let mut t3_a = waits(&a, &t3, 0..8, Block);
    let t2_a = hold(&a, &t2, 0..8, Add); // passes t3
    drop((t2_a, t2_b));
    let t1_b = t1_b.ready().unwrap();
    t3_a.pending();
    drop((t1_a, t1_b));
    drop(t3_a.ready().unwrap());
}

#[test]
fn crossed_files_are_a_deadlock_for_who_comes_second() {
    let (a, b) = (RangeLock::named("a"), RangeLock::named("b"));
    let (t1, t2) = (Owner::named("one"), Owner::named("two"));
    let t1_a = hold(&a, &t1, 0..8, Block);
    let t2_b = hold(lasting(&b), &t2, 0..8, Block);
    let mut t1_b = waits(&b, &t1, 0..4, Add);
    let error = deadlock(&a, &t2, 4..8, Add);
    let [first, second] = error.waits() else { panic!("two waits: {error}") };
    assert_eq!((first.owner.id, &*first.lock, first.range, first.mode), (t2.id(), "a", ByteRange::new(4..8), Add));
    assert_eq!((first.held, first.held_mode), (ByteRange::new(0..8), Block));
    assert_eq!((second.owner.name.as_deref(), &*second.lock, second.range), (Some("one"), "b", ByteRange::new(0..4)));
    assert_eq!(
        error.to_string(),
        format!(
            "deadlock: 2 owners wait for one another\n  \
             {} \"two\" asks a for 4..8 (add); {} \"one\" holds 0..8 (block)\n  \
             {} \"one\" asks b for 0..4 (add); {} \"two\" holds 0..8 (block)",
            t2.id(),
            t1.id(),
            t1.id(),
            t2.id()
        )
    );
    // The remedy: both together.
    let mut both = Hand::new(Batch::new().regain(t2_b).add(lasting(&a), 4..8).owner(&t2));
    both.pending();
    let t1_b = t1_b.ready().unwrap();
    drop((t1_a, t1_b));
    assert_eq!(both.ready().unwrap().len(), 2);
}

#[test]
fn crossed_ranges_of_one_file_are_a_deadlock() {
    let a = RangeLock::new();
    let (t1, t2) = (Owner::new(), Owner::new());
    let t1_low = hold(&a, &t1, 0..4, Block);
    let t2_high = hold(&a, &t2, 4..8, Block);
    let mut t1_high = waits(&a, &t1, 4..8, Add);
    deadlock(&a, &t2, 0..4, Add);
    drop(t2_high);
    drop(t1_high.ready().unwrap());
    drop(t1_low);
}

#[test]
fn two_that_hold_the_same_and_want_more_are_a_deadlock() {
    let a = RangeLock::new();
    let (t1, t2) = (Owner::new(), Owner::new());
    let t1_block = hold(&a, &t1, 0..8, Block);
    let t2_block = hold(&a, &t2, 0..8, Block);
    let mut t1_add = waits(&a, &t1, 0..8, Add);
    deadlock(&a, &t2, 0..8, Add);
    drop(t2_block);
    drop((t1_add.ready().unwrap(), t1_block));
}

/// Everything is free: a stranger gets all of it, and nobody waits.
#[track_caller]
fn all_free<'a>(locks: impl IntoIterator<Item = &'a RangeLock>) {
    for lock in locks {
        assert!(format!("{lock:?}").ends_with("holding: 0, waiting: 0, .. }"), "{lock:?}");
        assert!(Hand::new(lock.request(.., Exclusive)).poll().is_ready(), "{lock:?}");
    }
}

// The same six by threads.

#[test]
fn threads_pass_a_queued_block_that_waits_for_them() {
    // The inner add lies in the outer one, beside it, and across its end.
    for inner in [0..8, 8..16, 4..12] {
        let a = RangeLock::new();
        play("threads_pass_a_queued_block_that_waits_for_them", |[t1, t2]: [Actor<'_>; 2]| {
            t1.takes(&a, 0..8, Add);
            t2.queues(&a, 0..16, Block);
            t1.takes(&a, inner.clone(), Add);
            t1.drops(0);
            t2.still_waits();
            t1.drops(0);
            t2.granted();
        });
        all_free([&a]);
    }
}

#[test]
fn threads_let_whom_they_wait_for_pass_a_third() {
    let (a, b) = (RangeLock::new(), RangeLock::new());
    play("threads_let_whom_they_wait_for_pass_a_third", |[t1, t2, t3]: [Actor<'_>; 3]| {
        t1.takes(&a, 0..8, Add);
        t2.takes(&b, 0..8, Block);
        t1.queues(&b, 0..8, Add);
        t3.queues(&a, 0..8, Block);
        t2.takes(&a, 0..8, Add);
        t1.still_waits();
        t2.drops_all();
        t1.granted();
        t3.still_waits();
        t1.drops_all();
        t3.granted();
    });
    all_free([&a, &b]);
}

/// Who passes need not be who searches: T2 stands behind T3 already when T1, by asking for what T2 holds, makes T3 a
/// danger.
#[test]
fn threads_that_sleep_behind_a_third_are_woken_to_pass_it() {
    let (a, b) = (RangeLock::new(), RangeLock::new());
    play("threads_that_sleep_behind_a_third_are_woken_to_pass_it", |[t1, t2, t3]: [Actor<'_>; 3]| {
        t1.takes(&a, 0..8, Add);
        t2.takes(&b, 0..8, Block);
        t3.queues(&a, 0..8, Block);
        t2.queues(&a, 0..8, Add);
        t2.still_waits();
        t1.asks(&b, 0..8, Add);
        t2.granted();
        t1.still_waits();
        t2.drops_all();
        t1.granted();
        t3.still_waits();
        t1.drops_all();
        t3.granted();
    });
    all_free([&a, &b]);
}

/// Two hold, each asks for what the other holds: one of them is refused, and lets go. Then the other goes on.
fn one_of_two_is_refused(test: &'static str, a: &RangeLock, b: &RangeLock, held: [Range<u64>; 2], asked: Mode) {
    play(test, |actors: [Actor<'_>; 2]| {
        actors[0].takes(a, held[0].clone(), Block);
        actors[1].takes(b, held[1].clone(), Block);
        actors[0].queues(b, held[1].clone(), asked);
        actors[1].asks(a, held[0].clone(), asked);
        let (refused, deadlock) = first_refused(&actors);
        assert_eq!(deadlock.waits().len(), 2, "{deadlock}");
        let other = &actors[1 - refused];
        other.still_waits();
        actors[refused].drops_all();
        other.granted();
    });
    all_free([a, b]);
}

#[test]
fn threads_that_cross_files_are_a_deadlock() {
    let (a, b) = (RangeLock::new(), RangeLock::new());
    one_of_two_is_refused("threads_that_cross_files_are_a_deadlock", &a, &b, [0..8, 0..8], Add);
}

#[test]
fn threads_that_cross_ranges_of_one_file_are_a_deadlock() {
    let a = RangeLock::new();
    one_of_two_is_refused("threads_that_cross_ranges_of_one_file_are_a_deadlock", &a, &a, [0..4, 4..8], Add);
}

#[test]
fn threads_that_hold_the_same_and_want_more_are_a_deadlock() {
    let a = RangeLock::new();
    for asked in [Add, Exclusive] {
        one_of_two_is_refused("threads_that_hold_the_same_and_want_more_are_a_deadlock", &a, &a, [0..8, 0..8], asked);
    }
}

// Rings.

/// Owner i holds one thing and waits for the next one's; the last is refused, whatever the order in which they ask.
fn ring_of_tokens<'a>(count: usize, rng: &mut Rng, thing: impl Fn(usize) -> (&'a RangeLock, Range<u64>)) {
    let owners: Vec<_> = (0..count).map(|_| Owner::new()).collect();
    let mut held: Vec<_> = (0..count)
        .map(|i| {
            let (lock, range) = thing(i);
            Some(hold(lock, &owners[i], range, Exclusive))
        })
        .collect();
    let mut order: Vec<_> = (0..count).collect();
    rng.shuffle(&mut order);
    let last = order.pop().expect("a ring has owners");
    let mut waiting: Vec<_> = (0..count).map(|_| None).collect();
    for i in order {
        let (lock, range) = thing((i + 1) % count);
        waiting[i] = Some(waits(lock, &owners[i], range, Mode::ALL[i % 3]));
    }
    let (lock, range) = thing((last + 1) % count);
    let error = deadlock(lock, &owners[last], range, Add);
    // The cycle, beginning at the one that was refused.
    let named: Vec<_> = error.waits().iter().map(|wait| wait.owner.id).collect();
    let ring: Vec<_> = (0..count).map(|step| owners[(last + step) % count].id()).collect();
    assert_eq!(named, ring, "{error}");
    assert_eq!(error.waits()[0].mode, Add);
    assert!(error.waits().iter().all(|wait| wait.held_mode == Exclusive));
    // It lets go: one after the other goes on, from the one before it round to the one behind it.
    held[last] = None;
    for step in 1..count {
        let i = (last + count - step) % count;
        drop(waiting[i].take().expect("it waits").ready().expect("the cycle is broken"));
        held[i] = None;
        assert!(waiting.iter().flatten().all(|hand| step + 1 < count || !hand.begun()));
    }
}

#[test]
fn rings_of_tokens() {
    let mut rng = Rng::with_seed(1);
    let locks: [RangeLock; 12] = Default::default();
    for count in [2, 3, 4, 12] {
        for _ in 0..10 {
            ring_of_tokens(count, &mut rng, |i| (&locks[i], 0..8));
            // In one lock, at both ends and beside one another.
            ring_of_tokens(count, &mut rng, |i| (&locks[0], 8 * i as u64..8 * i as u64 + 8));
            ring_of_tokens(count, &mut rng, |i| (&locks[0], (i as u64) << 60..(i as u64) << 60 | 1 << 59));
            // Some share a lock.
            ring_of_tokens(count, &mut rng, |i| (&locks[i % 2], 8 * i as u64..8 * i as u64 + 8));
        }
    }
    all_free(&locks);
}

/// What the threads of a ring were answered.
#[derive(Debug, Default)]
struct Answers {
    granted: AtomicU64,
    deadlocks: AtomicU64,
    late: AtomicU64,
}

/// A round: `count` threads, as themselves and as tokens in turn, each of which holds one thing, asks for the next
/// one's when all have theirs, and lets go of everything when it is answered. `ask` says how.
fn ring_of_threads(
    test: &'static str,
    count: usize,
    locks: &[RangeLock],
    // `None`: it has given up.
    ask: impl Fn(&mut Rng, Option<&Owner>, &RangeLock, Range<u64>) -> Result<Option<()>, AcquireError> + Sync,
    judge: impl Fn(&Answers) + Sync,
) {
    let watchdog = Watchdog::new(test);
    let end = Instant::now() + common::stress_time() / 3;
    // Not by the clock of each: all must agree on which round is the last.
    let (barrier, over) = (Barrier::new(count), AtomicBool::new(false));
    let answers = Answers::default();
    let thing = |round: u64, i: usize| {
        // In one lock, or in as many as there are threads.
        let lock = if round % 2 == 0 { &locks[0] } else { &locks[i % locks.len()] };
        (lock, 8 * i as u64..8 * i as u64 + 8)
    };
    let work = |me: usize| {
        let mut rng = Rng::with_seed(me as u64);
        for round in 0.. {
            let token = ((round as usize / 2 + me) % 2 == 0).then(Owner::new);
            let (lock, range) = thing(round, me);
            let held = actors::wait_as(token.as_ref(), (lock, range, Exclusive)).expect("nobody wants it yet");
            barrier.wait();
            let (lock, range) = thing(round, (me + 1) % count);
            let count = match ask(&mut rng, token.as_ref(), lock, range) {
                Ok(Some(())) => &answers.granted,
                Err(AcquireError::Deadlock(_)) => &answers.deadlocks,
                Ok(None) | Err(AcquireError::TimedOut(_)) => &answers.late,
                Err(other) => panic!("{other}"),
            };
            count.fetch_add(1, Ordering::Relaxed);
            drop(held);
            watchdog.step();
            let mut verdict = Ok(());
            if barrier.wait().is_leader() {
                // Thrown when nobody waits for this thread any more.
                verdict = catch_unwind(AssertUnwindSafe(|| {
                    judge(&answers);
                    all_free(locks);
                }));
                for count in [&answers.granted, &answers.deadlocks, &answers.late] {
                    count.store(0, Ordering::Relaxed);
                }
                over.store(verdict.is_err() || Instant::now() > end, Ordering::Relaxed);
            }
            barrier.wait();
            verdict.unwrap_or_else(|panic| resume_unwind(panic));
            if over.load(Ordering::Relaxed) {
                return;
            }
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|me| scope.spawn(move || work(me))).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("a round was judged wrong"));
    });
}

/// Nobody lets go before it is answered, so the first answer is a deadlock. The cycle is broken then: there is no
/// second.
#[test]
fn rings_of_threads_refuse_exactly_one() {
    for count in [2, 3, 12] {
        let locks: Vec<RangeLock> = (0..count).map(|_| RangeLock::new()).collect();
        ring_of_threads(
            "rings_of_threads_refuse_exactly_one",
            count,
            &locks,
            |_, token, lock, range| actors::wait_as(token, (lock, range, Exclusive)).map(drop).map(Some),
            |answers| assert_eq!(answers.deadlocks.load(Ordering::Relaxed), 1, "{answers:?}"),
        );
    }
}

/// The same with deadlines that pass, and futures that are dropped, while others search: a cycle is broken by one who
/// is refused, or by one who gives up; at most one is refused, and nothing stays behind.
#[test]
fn cancels_that_race_with_searches() {
    let ask = |rng: &mut Rng, token: Option<&Owner>, lock: &RangeLock, range: Range<u64>| {
        let patience = Duration::from_micros(rng.u64(0..120));
        let request = lasting(lock).request(range, Mode::ALL[rng.usize(0..3)]);
        match token {
            None => request.timeout(patience).wait().map(drop).map(Some),
            Some(owner) if rng.bool() => request.owner(owner).timeout(patience).wait().map(drop).map(Some),
            Some(owner) => {
                let mut hand = Hand::new(request.owner(owner));
                let late = Instant::now() + patience;
                loop {
                    match hand.poll() {
                        Poll::Ready(answer) => return answer.map(drop).map(Some),
                        Poll::Pending if Instant::now() > late => return Ok(None),
                        Poll::Pending => thread::yield_now(),
                    }
                }
            }
        }
    };
    let [refused, gave_up] = [const { AtomicU64::new(0) }; 2];
    for count in [2, 3, 5] {
        let locks: Vec<RangeLock> = (0..count).map(|_| RangeLock::new()).collect();
        ring_of_threads("cancels_that_race_with_searches", count, &locks, ask, |answers| {
            let [deadlocks, late] = [&answers.deadlocks, &answers.late].map(|count| count.load(Ordering::Relaxed));
            assert!(deadlocks <= 1 && deadlocks + late > 0, "{answers:?}");
            refused.fetch_add(deadlocks, Ordering::Relaxed);
            gave_up.fetch_add(late, Ordering::Relaxed);
        });
    }
    // Of all rings together: five on a slow machine hardly ever all wait at once.
    assert!(refused.into_inner() > 0 && gave_up.into_inner() > 0, "no race at all");
}

/// What the docs say is enough: let go, and ask for all of it together. Threads that cross all the time, two locks each
/// of three.
#[test]
fn the_remedy_needs_one_retry() {
    let locks = [RangeLock::new(), RangeLock::new(), RangeLock::new()];
    let inside = [const { AtomicU64::new(0) }; 3];
    let deadlocks = AtomicU64::new(0);
    let watchdog = Watchdog::new("the_remedy_needs_one_retry");
    let end = Instant::now() + common::stress_time();
    // What both guards are for: nobody else is there.
    let work = |which: [usize; 2]| {
        for i in which {
            assert_eq!(inside[i].fetch_add(1, Ordering::Relaxed), 0, "two inside");
        }
        thread::yield_now();
        for i in which {
            inside[i].fetch_sub(1, Ordering::Relaxed);
        }
    };
    let visit = |seed: u64| {
        let mut rng = Rng::with_seed(seed);
        while Instant::now() < end {
            let first = rng.usize(0..3);
            let second = (first + rng.usize(1..3)) % 3;
            let (one, other) = (lasting(&locks[first]), lasting(&locks[second]));
            if rng.bool() {
                let held = one.exclusive(0..8);
                match other.request(0..8, Exclusive).wait() {
                    Ok(_both) => work([first, second]),
                    Err(_) => {
                        deadlocks.fetch_add(1, Ordering::Relaxed);
                        let _both = Batch::new().regain(held).exclusive(other, 0..8).wait().expect("it holds nothing");
                        work([first, second]);
                    }
                }
            } else {
                let me = Owner::new();
                let held = one.request(0..8, Exclusive).owner(&me).wait().expect("it holds nothing");
                match other.request(0..8, Exclusive).owner(&me).wait() {
                    Ok(_both) => work([first, second]),
                    Err(_) => {
                        deadlocks.fetch_add(1, Ordering::Relaxed);
                        let both = Batch::new().regain(held).exclusive(other, 0..8).owner(&me);
                        let _both = if rng.bool() { both.wait() } else { block_on(both) }.expect("it holds nothing");
                        work([first, second]);
                    }
                }
            }
            watchdog.step();
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|seed| scope.spawn(move || visit(seed))).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("the remedy was refused, or two were inside"));
    });
    assert!(deadlocks.into_inner() > 0, "nobody ever crossed");
    all_free(&locks);
}

// What a deadlock says.

#[test]
fn the_message_names_three_locks() {
    let (a, b, mut c) = (RangeLock::named("inode 7"), RangeLock::new(), RangeLock::new());
    c.set_name(format!("inode {}", 9));
    let (t1, t2, t3) = (Owner::named("copy"), Owner::new(), Owner::named("truncate"));
    let t1_a = hold(&a, &t1, 0..4096, Block);
    let t2_b = hold(&b, &t2, 5..6, Exclusive);
    let t3_c = Hand::new(lasting(&c).request(1 << 63.., Add).owner(&t3)).ready().unwrap();
    let mut t1_b = waits(&b, &t1, 0..10, Add);
    let mut t2_c = Hand::new(lasting(&c).request(.., Exclusive).owner(&t2));
    t2_c.pending();
    let error = deadlock(&a, &t3, 4095..5000, Exclusive);
    let (t1_id, t2_id, t3_id) = (t1.id(), t2.id(), t3.id());
    let text = format!(
        "deadlock: 3 owners wait for one another\n  \
         {t3_id} \"truncate\" asks inode 7 for 4095..5000 (exclusive); {t1_id} \"copy\" holds 0..4096 (block)\n  \
         {t1_id} \"copy\" asks lock@{:#x} for 0..10 (add); {t2_id} holds 5..6 (exclusive)\n  \
         {t2_id} asks inode 9 for 0.. (exclusive); {t3_id} \"truncate\" holds 9223372036854775808.. (add)",
        std::ptr::from_ref(&b).addr(),
    );
    assert_eq!(error.to_string(), text);
    // As the error that it comes in, and as that one's source.
    let refused = AcquireError::Deadlock(error.clone());
    assert_eq!(refused.to_string(), text);
    assert_eq!(std::error::Error::source(&refused).expect("the deadlock").to_string(), text);
    let [_, second, _] = error.waits() else { panic!("three waits: {error}") };
    assert_eq!((second.owner.id, second.held, second.held_mode), (t1_id, ByteRange::new(5..6), Exclusive));
    // Asked again, it is refused again; the others wait on.
    assert_eq!(deadlock(&a, &t3, 4095..5000, Exclusive), error);
    t1_b.pending();
    drop(t3_c);
    drop(t2_c.ready().unwrap());
    drop(t2_b);
    drop((t1_b.ready().unwrap(), t1_a));
    all_free([&a, &b, &c]);
}

/// A thread has the name that it was given, and so it is in the message.
#[test]
fn the_message_names_threads() {
    let (a, b) = (RangeLock::named("a"), RangeLock::named("b"));
    let token = Owner::named("token");
    let token_b = hold(&b, &token, 0..8, Add);
    let by_thread = || {
        let _a = a.exclusive(0..8);
        let mut token_a = waits(&a, &token, 3..4, Block);
        let Err(AcquireError::Deadlock(error)) = b.request(7..9, Block).wait() else {
            panic!("a deadlock was expected")
        };
        let thread = error.waits()[0].owner.clone();
        assert_eq!(thread.name.as_deref(), Some("flusher 3"));
        assert!(thread.id.to_string().starts_with("thread "), "{}", thread.id);
        assert!(error.to_string().contains(&format!("{} \"flusher 3\" asks b for 7..9 (block)", thread.id)), "{error}");
        token_a.pending();
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("flusher 3".into()).spawn_scoped(scope, by_thread).expect("a thread");
        thread.join().expect("the message is another");
    });
    drop(token_b);
    all_free([&a, &b]);
}

/// What a call that returns no error says when it panics.
#[track_caller]
fn panics_with_deadlock<T>(call: impl FnOnce() -> T) {
    let panic = catch_unwind(AssertUnwindSafe(|| drop(call()))).expect_err("a deadlock was expected");
    let message = panic.downcast_ref::<String>().expect("a panic with a message");
    assert!(message.starts_with("deadlock: 2 owners wait for one another\n"), "{message}");
}

#[test]
fn calls_without_an_error_panic_with_the_message() {
    let (a, b, whole) = (RangeLock::new(), RangeLock::new(), WholeFileLock::new());
    let token = Owner::new();
    let token_b = hold(&b, &token, 0..8, Exclusive);
    let token_whole = Hand::new(lasting(&whole).request(Exclusive).owner(&token)).ready().unwrap();
    let held = a.exclusive(0..8);
    let mut token_a = waits(&a, &token, 0..8, Add);
    panics_with_deadlock(|| b.add(0..1));
    panics_with_deadlock(|| b.block(7..));
    panics_with_deadlock(|| b.exclusive(..));
    panics_with_deadlock(|| whole.add());
    panics_with_deadlock(|| whole.block());
    panics_with_deadlock(|| whole.exclusive());
    // Beside it nothing is in the way, and nothing was left behind.
    assert!(matches!(b.add(8..).nesting(), Nesting::Elsewhere));
    token_a.pending();
    drop(held);
    assert_eq!(a.add(8..).nesting(), Nesting::Outermost, "the requests that were refused still count");
    drop((token_a.ready().unwrap(), token_b, token_whole));
    all_free([&a, &b]);
}

/// Who tries does not wait, so there is no cycle to speak of; nor does a try pass anybody. A deadline that can be
/// waited for does both.
#[test]
fn tries_neither_pass_nor_deadlock() {
    let (a, b) = (RangeLock::new(), RangeLock::new());
    let (t1, t2) = (Owner::new(), Owner::new());
    let past = Instant::now();
    let t1_a = hold(&a, &t1, 0..8, Add);
    let t2_b = hold(&b, &t2, 0..8, Block);
    let mut t2_a = waits(&a, &t2, 0..8, Block);
    let adds = || a.request(0..8, Add).owner(&t1);
    assert!(adds().try_now().is_none());
    assert!(matches!(adds().deadline(past).wait(), Err(AcquireError::TimedOut(_))));
    assert!(matches!(adds().timeout(Duration::ZERO).wait(), Err(AcquireError::TimedOut(_))));
    drop(adds().timeout(Duration::from_secs(1000)).wait().expect("it passes"));
    let crosses = || b.request(0..8, Add).owner(&t1);
    assert!(crosses().try_now().is_none());
    assert!(matches!(crosses().deadline(past).wait(), Err(AcquireError::TimedOut(_))));
    let timed = crosses().timeout(Duration::from_secs(1000)).wait();
    assert!(matches!(timed, Err(AcquireError::Deadlock(_))), "{timed:?}");
    drop(t1_a);
    drop((t2_a.ready().unwrap(), t2_b));
    all_free([&a, &b]);
}

/// Bystanders are not overtaken: who waits for nobody that needs the nested request is before it.
#[test]
fn a_nested_request_waits_behind_a_bystander() {
    let a = RangeLock::new();
    let (t1, t2, other) = (Owner::new(), Owner::new(), Owner::new());
    let outer = hold(&a, &t1, 0..8, Add);
    let other_hold = hold(&a, &other, 16..24, Add);
    // Waits for `other` alone.
    let mut bystander = waits(&a, &t2, 8..24, Block);
    let mut inner = waits(&a, &t1, 8..16, Add);
    drop(other_hold);
    assert!(bystander.woken());
    let bystander = bystander.ready().unwrap();
    inner.pending();
    drop(bystander);
    drop((inner.ready().unwrap(), outer));
    all_free([&a]);
}

/// The bystander becomes a danger when its owner asks for what the nested one holds: then it is passed, asleep or not.
#[test]
fn a_bystander_that_comes_to_need_the_nested_one_is_passed() {
    let (a, b) = (RangeLock::new(), RangeLock::new());
    let (t1, t2, other) = (Owner::new(), Owner::new(), Owner::new());
    let t1_b = hold(&b, &t1, 0..8, Add);
    let other_a = hold(&a, &other, 16..24, Add);
    let mut t2_a = waits(&a, &t2, 8..24, Block);
    let mut t1_a = waits(&a, &t1, 8..16, Add);
    assert!(!t1_a.woken());
    // T1's request stands behind that of T2, which now needs T1.
    let mut t2_b = waits(&b, &t2, 0..8, Block);
    assert!(t1_a.woken(), "nobody told it that it may pass");
    let t1_a = t1_a.ready().unwrap();
    drop(other_a);
    t2_a.pending();
    drop((t1_a, t1_b));
    drop((t2_a.ready().unwrap(), t2_b.ready().unwrap()));
    all_free([&a, &b]);
}

/// Whoever was passed and then is free to go must wait for the one that passed, if that still waits for somebody else.
#[test]
fn who_was_passed_waits_for_the_one_that_passed() {
    let a = RangeLock::new();
    let (t1, t2, t3) = (Owner::new(), Owner::new(), Owner::new());
    let t1_low = hold(&a, &t1, 0..4, Add);
    let t3_high = hold(&a, &t3, 8..12, Block);
    let mut t2_all = waits(&a, &t2, 0..8, Block);
    // Passes T2, and waits for T3.
    let mut t1_all = waits(&a, &t1, 4..12, Add);
    let mut late = Hand::new(a.request(4..8, Block));
    late.pending();
    drop(t1_low);
    t2_all.pending();
    late.pending();
    drop(t3_high);
    let t1_all = t1_all.ready().unwrap();
    t2_all.pending();
    drop(t1_all);
    assert!(t2_all.woken() && late.woken());
    drop((t2_all.ready().unwrap(), late.ready()));
    all_free([&a]);
}

/// The one that passed gives up instead: the one that was passed is first again.
#[test]
fn who_was_passed_goes_on_when_the_one_that_passed_gives_up() {
    let a = RangeLock::new();
    let (t1, t2, t3) = (Owner::new(), Owner::new(), Owner::new());
    let t1_low = hold(&a, &t1, 0..4, Add);
    let t3_high = hold(&a, &t3, 8..12, Block);
    let mut t2_all = waits(&a, &t2, 0..8, Block);
    let t1_all = waits(&a, &t1, 4..12, Add);
    drop(t1_low);
    t2_all.pending();
    drop(t1_all);
    assert!(t2_all.woken(), "it waited for one that has gone");
    drop((t2_all.ready().unwrap(), t3_high));
    all_free([&a]);
}

// An owner and its own.

/// Every way in which one owner can ask, to be granted at once.
#[derive(Clone, Copy, Debug)]
enum Way {
    Thread,
    ThreadTry,
    ThreadDeadline,
    Token,
    TokenTry,
    TokenDeadline,
    TokenFuture,
}

const WAYS: [Way; 7] =
    [Way::Thread, Way::ThreadTry, Way::ThreadDeadline, Way::Token, Way::TokenTry, Way::TokenDeadline, Way::TokenFuture];

fn ask_by<'a>(way: Way, owner: &Owner, lock: &'a RangeLock, range: Range<u64>, mode: Mode) -> Box<dyn Holds + 'a> {
    let request = lasting(lock).request(range, mode);
    let by_owner = request.clone().owner(owner);
    let soon = Duration::from_secs(1000);
    match way {
        Way::Thread => Box::new(request.wait().expect("its own")),
        Way::ThreadTry => Box::new(request.try_now().expect("its own")),
        Way::ThreadDeadline => Box::new(request.timeout(soon).wait().expect("its own")),
        Way::Token => Box::new(by_owner.wait().expect("its own")),
        Way::TokenTry => Box::new(by_owner.try_now().expect("its own")),
        Way::TokenDeadline => Box::new(by_owner.timeout(soon).wait().expect("its own")),
        Way::TokenFuture => Box::new(Hand::new(by_owner).ready().expect("its own")),
    }
}

/// All modes nested in all modes, three deep, in several overlaps; dropped in every order. Others see what is left of
/// them, to the byte.
#[test]
fn an_owner_never_conflicts_with_itself() {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let overlaps = [[0..8, 0..8, 0..8], [0..8, 2..4, 3..6], [0..4, 2..6, 4..8], [3..5, 2..6, 0..8]];
    let lock = RangeLock::new();
    for (number, way) in (0..7 * 27).map(|i| (i / 7, WAYS[i % 7])) {
        let modes = [Mode::ALL[number / 9], Mode::ALL[number / 3 % 3], Mode::ALL[number % 3]];
        for overlap in &overlaps {
            for order in orders {
                let owner = Owner::new();
                let ask = |i: usize| ask_by(way, &owner, &lock, overlap[i].clone(), modes[i]);
                let mut guards = [0, 1, 2].map(|i| Some(ask(i)));
                for gone in 0..=3 {
                    for byte in [0, 2, 3, 4, 5, 7, 8] {
                        let held = |i: usize| guards[i].is_some() && overlap[i].contains(&byte);
                        for asked in Mode::ALL {
                            let free = (0..3).all(|i| !held(i) || together(modes[i], asked));
                            let mut other = Hand::new(lock.request(byte..=byte, asked));
                            assert_eq!(
                                other.poll().is_ready(),
                                free,
                                "{asked:?} at {byte} with {gone} of {modes:?} {overlap:?} gone, by {way:?}"
                            );
                        }
                    }
                    if let Some(&next) = order.get(gone) {
                        guards[next] = None;
                    }
                }
            }
        }
    }
    all_free([&lock]);
}

/// As a thread, a token, and another thread's token: they are three owners.
#[test]
fn threads_tokens_and_tasks_are_different_owners() {
    let lock = Arc::new(RangeLock::new());
    let owner = Owner::new();
    let guard = lock.exclusive(0..8);
    assert!(lock.request(0..8, Add).owner(&owner).try_now().is_none());
    assert!(lock.request_arc(0..8, Add).try_now().is_none());
    Hand::new(lock.request(0..8, Add)).pending();
    drop(guard);
    let guard = lock.request_arc(0..8, Exclusive).owner(&owner).wait().unwrap();
    assert!(lock.try_add(0..8).is_none());
    assert!(lock.request_arc(0..8, Add).try_now().is_none());
    assert!(lock.request_arc(0..8, Add).owner(&Owner::new()).try_now().is_none());
    // By another handle, on another thread, borrowed or not.
    let same = owner.clone();
    thread::scope(|scope| {
        let (lock, same) = (&lock, &same);
        let elsewhere = scope.spawn(move || lock.request(0..8, Add).owner(same).try_now().is_some());
        assert!(elsewhere.join().expect("a try does not panic"));
    });
    drop(guard);
    all_free([&*lock]);
}

#[test]
fn nesting_has_four_answers() {
    let (lock, beside) = (RangeLock::new(), RangeLock::new());
    for way in WAYS {
        let owner = Owner::new();
        let ask = |lock, range, mode| ask_by(way, &owner, lock, range, mode);
        let outer = ask(&lock, 0..8, Add);
        assert_eq!(outer.nesting(), Nesting::Outermost);
        let apart = ask(&lock, 8..16, Exclusive);
        let other_lock = ask(&beside, 0..8, Exclusive);
        let inside = ask(&lock, 7..8, Add);
        let conflicting = ask(&lock, 0..1, Block);
        // Both of them: what conflicts is what counts.
        let both = ask(&lock, 0..9, Add);
        for _ in 0..2 {
            assert_eq!(apart.nesting(), Nesting::Elsewhere);
            assert_eq!(other_lock.nesting(), Nesting::Elsewhere);
            assert_eq!(inside.nesting(), Nesting::Inside { held: ByteRange::new(0..8), mode: Add });
            assert_eq!(conflicting.nesting(), Nesting::Conflicting { held: ByteRange::new(0..8), mode: Add });
            let Nesting::Conflicting { mode, .. } = both.nesting() else { panic!("{way:?}: {:?}", both.nesting()) };
            assert_ne!(mode, Add);
            // Never in what came later.
            assert_eq!(outer.nesting(), Nesting::Outermost);
        }
        drop(outer);
        assert_eq!(inside.nesting(), Nesting::Elsewhere, "what it was inside of has gone");
        assert_eq!(conflicting.nesting(), Nesting::Elsewhere);
        drop((apart, other_lock, inside, conflicting));
        assert_eq!(both.nesting(), Nesting::Elsewhere);
        drop(both);
        let outermost = ask(&lock, 0..8, Block);
        assert_eq!(outermost.nesting(), Nesting::Outermost, "{way:?} has nothing else any more");
    }
    all_free([&lock, &beside]);
}

/// A hold of somebody else, and an empty request, are not nested in anything; nor does an empty one count.
#[test]
fn strangers_and_empty_requests_do_not_nest() {
    let lock = RangeLock::new();
    let owner = Owner::new();
    let _stranger = lock.add(0..8);
    let nothing = hold(&lock, &owner, 5..5, Exclusive);
    assert_eq!(nothing.nesting(), Nesting::Outermost);
    let outer = hold(&lock, &owner, 0..8, Add);
    assert_eq!(outer.nesting(), Nesting::Outermost);
    let empty_inside = hold(&lock, &owner, 3..3, Add);
    assert_eq!(empty_inside.nesting(), Nesting::Outermost, "it holds nothing that could be inside of anything");
}

/// The order in which requests of one owner came is that of their asking, also when they had to wait.
#[test]
fn nesting_after_a_wait() {
    let lock = RangeLock::new();
    let (owner, other) = (Owner::new(), Owner::new());
    // The outer one waits.
    let in_the_way = hold(&lock, &other, 0..8, Block);
    let mut outer = waits(&lock, &owner, 0..8, Add);
    drop(in_the_way);
    let outer = outer.ready().unwrap();
    let before = hold(&lock, &owner, 0..4, Add);
    // The inner one waits.
    let in_the_way = hold(&lock, &other, 8..16, Add);
    let mut waited = waits(&lock, &owner, 6..16, Block);
    drop(in_the_way);
    let waited = waited.ready().unwrap();
    let behind = hold(&lock, &owner, 12..20, Block);
    assert_eq!(outer.nesting(), Nesting::Outermost);
    assert_eq!(before.nesting(), Nesting::Inside { held: ByteRange::new(0..8), mode: Add });
    assert_eq!(waited.nesting(), Nesting::Conflicting { held: ByteRange::new(0..8), mode: Add });
    assert_eq!(behind.nesting(), Nesting::Inside { held: ByteRange::new(6..16), mode: Block });
    drop(waited);
    assert_eq!(behind.nesting(), Nesting::Elsewhere);
}

/// Two of one token that wait side by side: the first is not nested in the second, whichever is granted first.
#[test]
fn an_outer_request_that_waits_is_not_nested_in_what_came_after_it() {
    let lock = RangeLock::new();
    let (owner, other) = (Owner::new(), Owner::new());
    let in_the_way = hold(&lock, &other, 0..4, Block);
    let mut outer = waits(&lock, &owner, 0..8, Add);
    // Conflicts with nobody but its own.
    let inner = hold(&lock, &owner, 4..8, Block);
    assert_eq!(inner.nesting(), Nesting::Elsewhere, "the outer one holds nothing yet");
    drop(in_the_way);
    let outer = outer.ready().unwrap();
    assert_eq!(outer.nesting(), Nesting::Outermost);
    drop((outer, inner));
    all_free([&lock]);
}

#[test]
fn nesting_in_a_batch() {
    let (a, b) = (RangeLock::new(), RangeLock::new());
    let owner = Owner::new();
    // Parts came together: none is nested in another, though they overlap.
    let batch =
        || Batch::new().add(lasting(&a), 0..8).block(lasting(&a), 4..12).exclusive(lasting(&b), 0..8).owner(&owner);
    let outermost = batch().wait().unwrap();
    assert!(outermost.iter().all(|guard| guard.nesting() == Nesting::Outermost));
    drop(outermost);
    let outer = hold(&a, &owner, 0..1, Add);
    let nested = batch().wait().unwrap();
    let expected = [
        Nesting::Inside { held: ByteRange::new(0..1), mode: Add },
        // Other parts are not what it is nested in.
        Nesting::Elsewhere,
        Nesting::Elsewhere,
    ];
    let nestings = |guards: &[OwnGuard<'_>]| guards.iter().map(Guard::nesting).collect::<Vec<_>>();
    assert_eq!(nestings(&nested), expected);
    drop(nested);
    // The same after a wait.
    let in_the_way = b.add(0..1);
    let mut waiting = Hand::new(batch());
    waiting.pending();
    drop(in_the_way);
    assert_eq!(nestings(&waiting.ready().unwrap()), expected);
    assert_eq!(outer.nesting(), Nesting::Outermost);
}

#[test]
fn three_thousand_nested_requests() {
    let lock = RangeLock::new();
    for by_token in [false, true] {
        let owner = Owner::new();
        let way = if by_token { Way::Token } else { Way::Thread };
        let outer = ask_by(way, &owner, &lock, 0..4096, Block);
        let mut inner: Vec<_> =
            (0..3000).map(|i| ask_by(way, &owner, &lock, i..i + 8, Mode::ALL[i as usize % 3])).collect();
        assert_eq!(outer.nesting(), Nesting::Outermost);
        for i in [0, 1, 2, 3, 500, 1022, 1023, 1024, 1025, 2046, 2999] {
            // Number 0 asks to add within the outer block. The others conflict with those before them at least.
            let nesting = inner[i].nesting();
            assert!(matches!(nesting, Nesting::Conflicting { .. }), "number {i}: {nesting:?}");
        }
        let mut other = Hand::new(lock.request(2000..2001, Block));
        other.pending();
        // In no order in particular.
        Rng::with_seed(5).shuffle(&mut inner);
        drop(inner);
        drop(other.ready());
        let add = Hand::new(lock.request(4000..4001, Add)).poll();
        assert!(add.is_pending(), "the outer one holds on");
        drop(outer);
        assert_eq!(ask_by(way, &owner, &lock, 0..1, Add).nesting(), Nesting::Outermost);
    }
    lock.trim();
    assert_eq!(lock.heap_nodes(), 0);
    all_free([&lock]);
}

// Refusing recursion.

fn recurses(answer: Result<impl std::fmt::Debug, AcquireError>, range: Range<u64>, held_mode: Mode) {
    match answer {
        Err(AcquireError::WouldRecurse(own)) => assert_eq!((own.held(), own.mode()), (range.into_bounds(), held_mode)),
        other => panic!("it recurses, but was answered {other:?}"),
    }
}

trait IntoBounds {
    fn into_bounds(self) -> ByteRange;
}

impl IntoBounds for Range<u64> {
    fn into_bounds(self) -> ByteRange {
        ByteRange::new(self)
    }
}

#[test]
fn recursion_is_refused_if_asked_to() {
    let (lock, other) = (RangeLock::new(), RangeLock::new());
    let soon = Duration::from_secs(1000);
    let reenters = Owner::new();
    let refuses = reenters.clone().recursion(Recursion::Refuse);
    assert_eq!(reenters, refuses, "another handle of the same owner");
    let outer = hold(&lock, &reenters, 2..8, Block);
    // Per request, per owner, and the request's word before the owner's.
    let ask = |range: Range<u64>, mode| lasting(&lock).request(range, mode);
    recurses(ask(0..3, Add).owner(&refuses).wait(), 2..8, Block);
    recurses(ask(0..3, Add).owner(&reenters).recursion(Recursion::Refuse).wait(), 2..8, Block);
    recurses(ask(0..3, Exclusive).owner(&refuses).timeout(soon).wait(), 2..8, Block);
    recurses(ask(0..3, Exclusive).owner(&refuses).deadline(Instant::now()).wait(), 2..8, Block);
    recurses(Hand::new(ask(7..9, Add).owner(&refuses)).ready(), 2..8, Block);
    assert!(ask(7..8, Add).owner(&refuses).try_now().is_none());
    assert!(ask(7..8, Add).owner(&refuses).recursion(Recursion::Reenter).try_now().is_some());
    assert!(ask(7..8, Add).owner(&reenters).try_now().is_some());
    // Nothing to refuse: another mode, other bytes, another lock, no byte at all.
    drop(ask(0..3, Block).owner(&refuses).wait().expect("the modes go together"));
    drop(ask(8..9, Exclusive).owner(&refuses).wait().expect("beside it"));
    drop(other.request(.., Exclusive).owner(&refuses).wait().expect("in another lock"));
    drop(ask(3..3, Exclusive).owner(&refuses).wait().expect("no byte"));
    // Batches: what is held counts, and their own parts do not.
    let batch = || Batch::new().add(lasting(&other), 0..8).exclusive(lasting(&other), 0..8).add(lasting(&lock), 7..9);
    recurses(batch().owner(&refuses).wait(), 2..8, Block);
    recurses(batch().owner(&refuses).timeout(soon).wait(), 2..8, Block);
    recurses(Hand::new(batch().owner(&refuses)).ready(), 2..8, Block);
    assert!(batch().owner(&refuses).try_now().is_none());
    drop(outer);
    assert_eq!(batch().owner(&refuses).wait().expect("nothing is held").len(), 3);
    assert!(format!("{refuses:?}").ends_with("live: 0 }"), "what was refused still counts: {refuses:?}");
    all_free([&lock, &other]);
}

/// A token's future that is dropped while it waits is no request of the token's any more, one by one or as a batch.
#[test]
fn a_queued_future_that_is_dropped_counts_no_more() {
    let lock = RangeLock::new();
    let owner = Owner::new();
    let held = lock.request(0..8, Exclusive).owner(&Owner::new()).wait().expect("free");
    let live = |owner: &Owner| format!("{owner:?}").split("live: ").nth(1).map(str::to_owned);
    {
        let mut one = Hand::new(lasting(&lock).request(0..1, Add).owner(&owner));
        let mut batch = Hand::new(Batch::new().add(lasting(&lock), 2..3).add(lasting(&lock), 4..5).owner(&owner));
        assert!(one.poll().is_pending() && batch.poll().is_pending());
        assert_eq!(live(&owner).as_deref(), Some("2 }"), "two requests wait");
    }
    assert_eq!(live(&owner).as_deref(), Some("0 }"), "what was given up still counts");
    drop(held);
    all_free([&lock]);
}

/// What a request was told to do it does, whether it was told before or after it was given its owner.
#[test]
fn a_request_that_refuses_recursion_keeps_to_it() {
    let lock = RangeLock::new();
    let owner = Owner::new();
    let refuses = owner.clone().recursion(Recursion::Refuse);
    let _outer = hold(&lock, &owner, 0..8, Block);
    recurses(lock.request(0..1, Add).recursion(Recursion::Refuse).owner(&owner).wait(), 0..8, Block);
    recurses(Batch::new().add(&lock, 0..1).recursion(Recursion::Refuse).owner(&owner).wait(), 0..8, Block);
    assert!(lock.request(0..1, Add).recursion(Recursion::Reenter).owner(&refuses).try_now().is_some());
    assert!(Batch::new().add(&lock, 0..1).recursion(Recursion::Reenter).owner(&refuses).try_now().is_some());
}

#[test]
fn threads_can_refuse_recursion_too() {
    let lock = RangeLock::named("files");
    let outer = lock.exclusive(0..8);
    let refuses = || lock.request(4..12, Add).recursion(Recursion::Refuse);
    recurses(refuses().wait(), 0..8, Exclusive);
    recurses(refuses().timeout(Duration::from_secs(1000)).wait(), 0..8, Exclusive);
    assert!(refuses().try_now().is_none());
    recurses(Batch::new().add(&lock, 0..1).recursion(Recursion::Refuse).wait(), 0..8, Exclusive);
    let error = refuses().wait().expect_err("as above");
    let said = format!(
        "{} \"{}\" holds 0..8 (exclusive) of files itself, which conflicts, and the request refuses recursion",
        outer.owner().unwrap(),
        thread::current().name().expect("a test's thread has a name")
    );
    assert_eq!(error.to_string(), said);
    // Awaited, it is a task's, which has nothing that it could recurse into.
    let mut task = Hand::new(refuses());
    task.pending();
    drop(outer);
    drop(task.ready());
    drop(refuses().wait().expect("nothing is held"));
    all_free([&lock]);
}

// Owners come and go.

/// As the docs say: guards and requests keep the identity alive.
#[test]
fn an_owner_that_is_dropped_releases_nothing() {
    let lock = RangeLock::new();
    let owner = Owner::new();
    let guard = hold(&lock, &owner, 0..8, Add);
    let mut in_the_way = Hand::new(lock.request(8..9, Block));
    let in_the_way = in_the_way.ready();
    let mut waiting = waits(&lock, &owner, 4..12, Add);
    drop(owner);
    Hand::new(lock.request(0..1, Block)).pending();
    drop(in_the_way);
    let second = waiting.ready().unwrap();
    assert_eq!(second.nesting(), Nesting::Inside { held: ByteRange::new(0..8), mode: Add });
    drop(guard);
    Hand::new(lock.request(4..5, Block)).pending();
    drop(second);
    all_free([&lock]);
}

/// A token's guards may end on any thread, and are counted as gone there.
#[test]
fn guards_of_tokens_end_on_other_threads() {
    let lock = Arc::new(RangeLock::new());
    let owner = Owner::named("writeback");
    let mut guards: Vec<_> =
        (0..20).map(|i| lock.request_arc(i..i + 2, Exclusive).owner(&owner).wait().unwrap()).collect();
    let batch = Batch::new().request(lock.clone(), 50..60, Add).request(lock.clone(), 55..70, Block);
    guards.extend(batch.owner(&owner).wait().unwrap().into_parts());
    assert_eq!(format!("{owner:?}"), format!("Owner {{ id: {}, name: \"writeback\", live: 22 }}", owner.id()));
    let (head, tail) = guards.pop().expect("a part").split(60);
    guards.extend([head, tail]);
    thread::scope(|scope| {
        for guard in guards {
            scope.spawn(move || drop(guard));
        }
    });
    assert_eq!(format!("{owner:?}"), format!("Owner {{ id: {}, name: \"writeback\", live: 0 }}", owner.id()));
    assert_eq!(lock.request(0..1, Add).owner(&owner).wait().unwrap().nesting(), Nesting::Outermost);
    all_free([&*lock]);
}

#[test]
fn owners_are_told_apart() {
    let (one, other) = (Owner::named("one"), Owner::named("one"));
    assert_ne!(one, other, "names need not differ");
    assert_eq!(one, one.clone());
    assert_eq!(one.id(), one.clone().id());
    assert_eq!((one.name(), Owner::default().name()), (Some("one"), None));
    assert!(one.id() < other.id(), "the later one has the higher id");
    let unnamed = Owner::new();
    assert_eq!(format!("{unnamed:?}"), format!("Owner {{ id: {}, live: 0 }}", unnamed.id()));
    assert!(one.id().to_string().strip_prefix("owner ").is_some_and(|number| number.parse::<u64>().is_ok()));
    // Of threads and tasks too, no two are the same.
    let lock = RangeLock::new();
    let mut ids: HashSet<OwnerId> = HashSet::from([one.id(), other.id(), unnamed.id()]);
    let mut printed: HashSet<String> = ids.iter().map(OwnerId::to_string).collect();
    let mut see = |kind: &str| {
        let snapshot = lock.snapshot();
        let id = snapshot.requests()[0].owner();
        assert!(id.to_string().starts_with(kind), "{id}");
        assert!(ids.insert(id) && printed.insert(id.to_string()), "{id} came before");
    };
    let guard = lock.add(..);
    see("thread ");
    drop(guard);
    for _ in 0..3 {
        let guard = Hand::new(lock.request(.., Add)).ready();
        see("task ");
        drop(guard);
    }
    thread::scope(|scope| {
        let lock = &lock;
        let id = scope.spawn(|| {
            let _guard = lock.add(..);
            lock.snapshot().requests()[0].owner()
        });
        assert!(ids.insert(id.join().expect("nobody else is there")), "two threads with one id");
    });
}

/// The leak costs the thread what it leaked: its later requests are nested, and work.
#[test]
fn a_leaked_guard_nests_what_its_thread_asks_later() {
    let (lock, other) = (RangeLock::new(), RangeLock::new());
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            forget(lock.block(0..8));
            let nested = other.exclusive(0..8);
            assert_eq!(nested.nesting(), Nesting::Elsewhere);
            drop(nested);
            // Its own, still; and a wait like any other, also for what somebody holds who waits for nobody.
            drop(lock.exclusive(0..16));
            let token = Owner::new();
            let held = hold(&other, &token, 0..8, Add);
            assert!(other.try_block(0..8).is_none());
            let late = other.request(0..8, Block).timeout(Duration::from_millis(5)).wait();
            assert!(matches!(late, Err(AcquireError::TimedOut(_))), "{late:?}");
            // Who waits for the leaked one, waits for ever: a deadlock, if the thread waits for him.
            let mut for_ever = waits(&lock, &token, 0..8, Add);
            assert!(matches!(other.request(0..8, Block).wait(), Err(AcquireError::Deadlock(_))));
            for_ever.pending();
            drop((for_ever, held));
        });
        thread.join().expect("a leak breaks nothing");
        scope.spawn(|| assert_eq!(other.add(..).nesting(), Nesting::Outermost));
    });
    all_free([&other]);
    Hand::new(lock.request(0..1, Add)).pending();
}
