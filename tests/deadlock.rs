//! Deadlock is an answer: threads and tokens that ask for more and more in any order, on few bytes of two locks. Nobody
//! hangs, nobody is let in beside another, and who cannot deadlock is never told so.

mod common;

use common::watch::Watchdog;
use common::{stress_time, together};
use fastrand::Rng;
use spanlock::{AcquireError, Batch, Guard, LockRef, Mode, OwnedBy, Owner, RangeLock};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const BYTES: u64 = 4;
const LOCKS: usize = 2;

/// Who is inside, byte by byte: what each holder finds there must go with it. Relaxed on purpose: only the locks may
/// order these.
struct Inside([[AtomicU64; BYTES as usize]; LOCKS]);

impl Inside {
    const fn new() -> Inside {
        Inside([const { [const { AtomicU64::new(0) }; BYTES as usize] }; LOCKS])
    }

    /// Holds are counted per mode, 16 bits each, those of the own owner (`mine`) apart.
    fn enter(&self, lock: usize, range: (u64, u64), mode: Mode, mine: &[(usize, (u64, u64), Mode)]) {
        for byte in range.0..=range.1 {
            let found = self.0[lock][byte as usize].fetch_add(1 << (16 * mode as u64), Relaxed);
            for other in Mode::ALL {
                let all = found >> (16 * other as u64) & 0xffff;
                let own = mine.iter().filter(|(l, r, m)| *l == lock && *m == other && r.0 <= byte && byte <= r.1);
                assert!(together(mode, other) || all == own.count() as u64, "{mode:?} beside {other:?} on {byte}");
            }
        }
    }

    fn leave(&self, lock: usize, range: (u64, u64), mode: Mode) {
        for byte in range.0..=range.1 {
            self.0[lock][byte as usize].fetch_sub(1 << (16 * mode as u64), Relaxed);
        }
    }
}

fn some_part(rng: &mut Rng) -> (usize, (u64, u64), Mode) {
    let start = rng.u64(0..BYTES);
    (rng.usize(0..LOCKS), (start, rng.u64(start..BYTES)), Mode::ALL[rng.usize(0..3)])
}

#[derive(Default)]
struct Counts {
    granted: u64,
    deadlocks: u64,
}

/// Takes up to four ranges, one inside the other, and lets go of them in any order; gives all up at a deadlock.
fn nest<L: LockRef, O: OwnedBy>(
    inside: &Inside,
    rng: &mut Rng,
    counts: &mut Counts,
    mut acquire: impl FnMut(usize, (u64, u64), Mode) -> Result<Guard<L, O>, AcquireError>,
) {
    let mut held = Vec::new();
    let mut guards = Vec::new();
    for _ in 0..rng.usize(1..=4) {
        let (lock, range, mode) = some_part(rng);
        match acquire(lock, range, mode) {
            Ok(guard) => {
                inside.enter(lock, range, mode, &held);
                held.push((lock, range, mode));
                guards.push(guard);
                counts.granted += 1;
            }
            Err(AcquireError::Deadlock(deadlock)) => {
                assert!(!held.is_empty(), "who holds nothing cannot deadlock: {deadlock}");
                assert!(deadlock.waits().len() > 1, "{deadlock}");
                counts.deadlocks += 1;
                break;
            }
            Err(AcquireError::TimedOut(_)) => {}
            Err(other) => panic!("{other}"),
        }
        if rng.u8(0..4) == 0 {
            thread::yield_now();
        }
        if rng.u8(0..4) == 0 {
            let index = rng.usize(0..guards.len().max(1));
            if index < guards.len() {
                let (lock, range, mode) = held.swap_remove(index);
                inside.leave(lock, range, mode);
                drop(guards.swap_remove(index));
            }
        }
    }
    while !guards.is_empty() {
        let index = rng.usize(0..guards.len());
        let (lock, range, mode) = held.swap_remove(index);
        inside.leave(lock, range, mode);
        drop(guards.swap_remove(index));
    }
}

/// Runs `threads` of `work` for the time of a stress test, and asks that the locks are empty afterwards.
fn stress(
    threads: u64,
    name: &'static str,
    work: impl Fn(&[RangeLock; LOCKS], &Inside, &mut Rng, &mut Counts) + Sync,
) -> Counts {
    let locks = [RangeLock::named("a"), RangeLock::named("b")];
    let inside = Inside::new();
    let end = Instant::now() + stress_time();
    let watchdog = Watchdog::new(name);
    let run = |seed| {
        let mut rng = Rng::with_seed(seed);
        let mut counts = Counts::default();
        while Instant::now() < end {
            work(&locks, &inside, &mut rng, &mut counts);
            watchdog.step();
        }
        counts
    };
    let run = &run;
    let all = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|seed| scope.spawn(move || run(seed))).collect();
        let mut all = Counts::default();
        for worker in workers {
            let counts = worker.join().expect("no worker panics");
            all.granted += counts.granted;
            all.deadlocks += counts.deadlocks;
        }
        all
    });
    for lock in &locks {
        assert!(lock.try_exclusive(..).is_some(), "something was left behind: {}", lock.snapshot());
    }
    assert!(all.granted > 100, "{name} hardly ran");
    all
}

#[test]
fn threads_that_nest_in_any_order_never_hang() {
    let counts = stress(8, "threads nest", |locks, inside, rng, counts| {
        nest(inside, rng, counts, |lock, (start, last), mode| locks[lock].request(start..=last, mode).wait());
    });
    assert!(counts.deadlocks > 0, "nobody crossed anybody");
}

#[test]
fn tokens_that_nest_with_deadlines_never_hang() {
    stress(8, "tokens nest", |locks, inside, rng, counts| {
        let owner = Owner::new();
        let patience = Duration::from_micros(rng.u64(0..200));
        let hasty = rng.bool();
        nest(inside, rng, counts, |lock, (start, last), mode| {
            let request = locks[lock].request(start..=last, mode).owner(&owner);
            if hasty { request.timeout(patience).wait() } else { request.wait() }
        });
    });
}

/// After a deadlock everything is asked for anew, as one batch: that must be granted.
#[test]
fn an_outermost_batch_is_never_refused() {
    let counts = stress(8, "batches after deadlocks", |locks, inside, rng, counts| {
        let owner = Owner::new();
        let (first, second) = (some_part(rng), some_part(rng));
        let ask = |(lock, (start, last), mode): (usize, (u64, u64), Mode)| {
            locks[lock].request(start..=last, mode).owner(&owner).wait()
        };
        let held = ask(first).expect("it holds nothing");
        let guards = match ask(second) {
            Ok(more) => vec![held, more],
            Err(_) => {
                counts.deadlocks += 1;
                let (lock, (start, last), mode) = second;
                let batch = Batch::new().regain(held).request(&locks[lock], start..=last, mode).owner(&owner);
                batch.wait().expect("it is outermost").into_parts()
            }
        };
        inside.enter(first.0, first.1, first.2, &[]);
        inside.enter(second.0, second.1, second.2, &[first]);
        for (lock, range, mode) in [first, second] {
            inside.leave(lock, range, mode);
        }
        drop(guards);
        counts.granted += 2;
    });
    assert!(counts.deadlocks > 0, "nobody crossed anybody");
}

/// Who always asks in one order (by lock and byte, never for bytes that he holds) cannot deadlock.
#[test]
fn who_keeps_an_order_is_never_refused() {
    let counts = stress(8, "ordered", |locks, inside, rng, counts| {
        let mut held = Vec::new();
        let mut guards = Vec::new();
        for (lock, space) in locks.iter().enumerate() {
            for byte in 0..BYTES {
                if rng.u8(0..3) == 0 {
                    let mode = Mode::ALL[rng.usize(0..3)];
                    let guard = space.request(byte..=byte, mode).wait().expect("there is an order");
                    inside.enter(lock, (byte, byte), mode, &held);
                    held.push((lock, (byte, byte), mode));
                    guards.push(guard);
                    counts.granted += 1;
                }
            }
        }
        held.into_iter().for_each(|(lock, range, mode)| inside.leave(lock, range, mode));
        drop(guards);
    });
    assert_eq!(counts.deadlocks, 0);
}
