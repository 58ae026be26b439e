//! Attacks on announced requests: many threads take every route to a hold, and mark the bytes that they hold; who is
//! announced looks at the marks.

mod common;

use common::from_env;
use fastrand::Rng;
use spanlock::{AcquireError, Announced, ArcRangeGuard, Batch, Mode, Owner, RangeLock, Snapshot};
use std::future::{Future, IntoFuture};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

const CELLS: usize = 64;

#[derive(Default)]
struct Cell {
    /// By mode: how many marks were made, and how many hold now.
    marks: [AtomicU64; 3],
    now: [AtomicU64; 3],
}

struct World {
    lock: Arc<RangeLock>,
    other: Arc<RangeLock>,
    stride: u64,
    cells: Vec<Cell>,
    stop: AtomicBool,
    counts: [AtomicUsize; 16],
}

const NAMES: [&str; 16] = [
    "clear",
    "dirty",
    "granted",
    "waited",
    "refused",
    "dropped",
    "polled",
    "overtaken",
    "holds",
    "nested",
    "batches",
    "converted",
    "timed out",
    "tried",
    "poisoned",
    "clear-queued-far",
];

fn m(mode: Mode) -> usize {
    match mode {
        Mode::Add => 0,
        Mode::Block => 1,
        Mode::Exclusive => 2,
    }
}

fn against(mode: Mode) -> &'static [usize] {
    match mode {
        Mode::Add => &[1, 2],
        Mode::Block => &[0, 2],
        _ => &[0, 1, 2],
    }
}

impl World {
    fn count(&self, at: usize) {
        self.counts[at].fetch_add(1, Relaxed);
    }

    fn bytes(&self, start: usize, end: usize) -> std::ops::Range<u64> {
        start as u64 * self.stride..end as u64 * self.stride
    }

    fn mark(&self, start: usize, end: usize, mode: Mode) {
        for cell in &self.cells[start..end] {
            cell.now[m(mode)].fetch_add(1, Relaxed);
            cell.marks[m(mode)].fetch_add(1, Relaxed);
        }
    }

    fn unmark(&self, start: usize, end: usize, mode: Mode) {
        for cell in &self.cells[start..end] {
            cell.marks[m(mode)].fetch_add(1, Relaxed);
            cell.now[m(mode)].fetch_sub(1, Relaxed);
        }
    }

    /// While somebody holds it.
    fn with<T>(&self, start: usize, end: usize, mode: Mode, rng: &mut Rng, run: impl FnOnce(&mut Rng) -> T) -> T {
        self.count(8);
        self.mark(start, end, mode);
        self.exclusion(start, end, mode);
        spin(rng);
        let done = run(rng);
        self.unmark(start, end, mode);
        done
    }

    fn exclusion(&self, start: usize, end: usize, mode: Mode) {
        let _ = (start, end, mode);
    }

    fn sum(&self, start: usize, end: usize, mode: Mode) -> (u64, u64) {
        let (mut marks, mut now) = (0, 0);
        for cell in &self.cells[start..end] {
            for &mode in against(mode) {
                marks += cell.marks[mode].load(Relaxed);
                now += cell.now[mode].load(Relaxed);
            }
        }
        (marks, now)
    }
}

fn spin(rng: &mut Rng) {
    match rng.u8(0..16) {
        0 => thread::yield_now(),
        1 => thread::sleep(Duration::from_micros(rng.u64(0..100))),
        n => (0..u32::from(n) * rng.u32(0..20)).for_each(|_| std::hint::spin_loop()),
    }
}

fn range(rng: &mut Rng) -> (usize, usize) {
    match rng.u8(0..20) {
        0 => (0, CELLS),
        1..6 => {
            let start = rng.usize(0..CELLS);
            (start, rng.usize(start..CELLS) + 1)
        }
        _ => {
            let start = rng.usize(0..CELLS - 3);
            (start, start + rng.usize(1..=3))
        }
    }
}

fn mode(rng: &mut Rng) -> Mode {
    Mode::ALL[rng.usize(0..3)]
}

struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// To its end, or so many polls.
fn poll_some<F: Future>(future: F, polls: usize, rng: &mut Rng) -> Option<F::Output> {
    let waker = Waker::from(Arc::new(Nobody));
    let mut future = pin!(future);
    for _ in 0..polls {
        if let Poll::Ready(out) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(out);
        }
        spin(rng);
    }
    None
}

fn block_on<F: IntoFuture>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future.into_future());
    loop {
        if let Poll::Ready(out) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return out;
        }
        thread::park();
    }
}

fn refused(world: &World, error: &AcquireError) {
    match error {
        AcquireError::Deadlock(_) => world.count(4),
        AcquireError::TimedOut(_) => world.count(12),
        AcquireError::Poisoned(_) => world.count(14),
        _ => panic!("{error}"),
    }
}

/// What a holder does with its guard.
macro_rules! play {
    ($world:expr, $guard:expr, $start:expr, $end:expr, $mode:expr, $rng:expr) => {{
        let (world, mut guard, mut start, mut end, mut mode_): (&World, _, usize, usize, Mode) =
            ($world, $guard, $start, $end, $mode);
        world.count(8);
        world.mark(start, end, mode_);
        spin($rng);
        for _ in 0..$rng.usize(0..3) {
            match $rng.u8(0..8) {
                0 if mode_ == Mode::Exclusive => {
                    let new = mode($rng);
                    world.unmark(start, end, mode_);
                    guard.downgrade(new);
                    mode_ = new;
                    world.mark(start, end, mode_);
                }
                1 => {
                    let new = mode($rng);
                    world.unmark(start, end, mode_);
                    if guard.try_convert(new) {
                        world.count(11);
                        mode_ = new;
                    }
                    world.mark(start, end, mode_);
                }
                2 | 3 => {
                    let (s, e) = range($rng);
                    let (s, e) = (s.min(start), e.max(end));
                    world.unmark(start, end, mode_);
                    if guard.try_extend(world.bytes(s, e)) {
                        world.count(11);
                        (start, end) = (s, e);
                    }
                    world.mark(start, end, mode_);
                }
                4 if end - start > 1 => {
                    let at = $rng.usize(start + 1..end);
                    let tail = guard.split_off(at as u64 * world.stride);
                    if $rng.bool() {
                        spin($rng);
                        world.unmark(at, end, mode_);
                        drop(tail);
                        end = at;
                    } else {
                        spin($rng);
                        world.unmark(start, at, mode_);
                        guard = tail;
                        start = at;
                    }
                }
                5 if end - start > 2 => {
                    world.unmark(start, end, mode_);
                    let (head, tail) = guard.release(world.bytes(start + 1, end - 1));
                    if $rng.bool() {
                        drop(tail);
                        guard = head;
                        end = start + 1;
                    } else {
                        drop(head);
                        guard = tail;
                        start = end - 1;
                    }
                    world.mark(start, end, mode_);
                }
                6 if end - start > 1 => {
                    world.unmark(start, end, mode_);
                    guard.shrink(world.bytes(start, end - 1));
                    end -= 1;
                    world.mark(start, end, mode_);
                }
                _ => spin($rng),
            }
        }
        world.unmark(start, end, mode_);
        drop(guard);
    }};
}

fn writer(world: &World, rng: &mut Rng) {
    let (start, end) = range(rng);
    let mode_ = mode(rng);
    let bytes = world.bytes(start, end);
    let lock = &world.lock;
    match rng.u8(0..14) {
        0 => {
            let guard = match mode_ {
                Mode::Add => lock.try_add(bytes),
                Mode::Block => lock.try_block(bytes),
                _ => lock.try_exclusive(bytes),
            };
            if let Some(guard) = guard {
                world.count(13);
                play!(world, guard, start, end, mode_, rng);
            }
        }
        1 => match lock.request(bytes, mode_).timeout(Duration::from_micros(rng.u64(0..200))).wait() {
            Ok(guard) => play!(world, guard, start, end, mode_, rng),
            Err(error) => refused(world, &error),
        },
        2 | 3 => match lock.request(bytes, mode_).wait() {
            Ok(guard) => play!(world, guard, start, end, mode_, rng),
            Err(error) => refused(world, &error),
        },
        4 => {
            let guard = block_on(lock.request_arc(bytes, mode_));
            play!(world, guard, start, end, mode_, rng);
        }
        5 => {
            if let Some(guard) = poll_some(lock.request_arc(bytes, mode_).into_future(), rng.usize(0..4), rng) {
                play!(world, guard, start, end, mode_, rng);
            }
        }
        // A thread that nests.
        6 | 7 => {
            let Ok(first) = lock.request(bytes, mode_).wait() else { return world.count(4) };
            world.with(start, end, mode_, rng, |rng| {
                let (s, e) = range(rng);
                let mode_ = mode(rng);
                match lock.request(world.bytes(s, e), mode_).wait() {
                    Ok(guard) => {
                        world.count(9);
                        play!(world, guard, s, e, mode_, rng);
                    }
                    Err(error) => refused(world, &error),
                }
            });
            drop(first);
        }
        // A token that nests, and may time out or be polled.
        8 | 9 => {
            let me = Owner::new();
            let Ok(first) = lock.request_arc(bytes, mode_).owner(&me).wait() else { return world.count(4) };
            world.with(start, end, mode_, rng, |rng| {
                let (s, e) = range(rng);
                let mode_ = mode(rng);
                let request = lock.request_arc(world.bytes(s, e), mode_).owner(&me);
                let guard = match rng.u8(0..3) {
                    0 => Some(request.wait()),
                    1 => Some(request.timeout(Duration::from_micros(100)).wait()),
                    _ => poll_some(request.into_future(), rng.usize(1..4), rng),
                };
                match guard {
                    Some(Ok(guard)) => {
                        world.count(9);
                        play!(world, guard, s, e, mode_, rng);
                    }
                    Some(Err(error)) => refused(world, &error),
                    None => {}
                }
            });
            drop(first);
        }
        // Batches.
        10 | 11 => {
            let (s, e) = range(rng);
            let mode2 = mode(rng);
            let mut batch =
                Batch::new().request(lock.clone(), bytes, mode_).request(lock.clone(), world.bytes(s, e), mode2);
            if rng.bool() {
                batch = batch.request(world.other.clone(), 0..10, mode(rng));
            }
            let guards = match rng.u8(0..4) {
                0 => batch.try_now(),
                1 => match batch.timeout(Duration::from_micros(100)).wait() {
                    Ok(guards) => Some(guards),
                    Err(error) => return refused(world, &error),
                },
                2 => poll_some(batch.into_future(), rng.usize(1..4), rng),
                _ => Some(batch.wait()),
            };
            if let Some(guards) = guards {
                world.count(10);
                world.mark(s, e, mode2);
                if rng.bool() {
                    world.with(start, end, mode_, rng, |_| ());
                    world.unmark(s, e, mode2);
                    drop(guards);
                } else {
                    let mut parts = guards.into_parts().into_iter();
                    let one = parts.next().unwrap();
                    play!(world, one, start, end, mode_, rng);
                    world.unmark(s, e, mode2);
                    drop(parts);
                }
            }
        }
        // Waits to become more.
        12 => {
            let Ok(mut guard) = lock.request(bytes, mode_).wait() else { return world.count(4) };
            world.with(start, end, mode_, rng, |_| ());
            let (s, e) = range(rng);
            let (s, e) = (s.min(start), e.max(end));
            match guard.extend(world.bytes(s, e)) {
                Ok(()) => {
                    world.count(11);
                    world.with(s, e, mode_, rng, |_| ());
                    let new = mode(rng);
                    match guard.convert(new) {
                        Ok(()) => world.with(s, e, new, rng, |_| ()),
                        Err(error) => refused(world, &error),
                    }
                }
                Err(error) => refused(world, &error),
            }
        }
        // A drain, in between.
        _ => {
            drop(poll_some(lock.drained_arc(bytes, mode_).into_future(), rng.usize(1..3), rng));
            lock.trim();
        }
    }
}

fn announcer(world: &World, rng: &mut Rng) {
    let (start, end) = range(rng);
    let mode_ = mode(rng);
    // It may hold something itself.
    let hold = (rng.u8(0..6) == 0).then(|| {
        let (s, e) = range(rng);
        world.lock.try_add(world.bytes(s, e))
    });
    let place: Announced<Arc<RangeLock>> = world.lock.request_arc(world.bytes(start, end), mode_).announce();
    let parts: Vec<(usize, usize)> = (0..4)
        .map(|_| {
            let s = rng.usize(start..end);
            (s, rng.usize(s..end) + 1)
        })
        .chain((start..end).map(|s| (s, s + 1)))
        .collect();
    let before: Vec<(u64, u64)> = parts.iter().map(|&(s, e)| world.sum(s, e, mode_)).collect();
    let is_granted = format!("{place:?}").contains("granted");
    if is_granted {
        world.count(2);
    }
    let mut was: Vec<bool> = vec![true; parts.len()];
    for _ in 0..rng.usize(1..4) {
        spin(rng);
        for (at, &(s, e)) in parts.iter().enumerate() {
            let after = world.sum(s, e, mode_);
            let clear = place.is_clear(world.bytes(s, e));
            if clear {
                assert!(was[at], "it was not clear, and is again");
                // What `hold` has marked nobody; it holds without marks.
                assert!(
                    before[at].0 == after.0 && before[at].1 == 0 && after.1 == 0,
                    "somebody was there: {s}..{e} of {start}..{end} {mode_}: {before:?} {after:?}, granted {is_granted}",
                );
                world.count(if is_granted { 2 } else { 0 });
            } else {
                world.count(1);
            }
            was[at] = clear;
        }
    }
    match rng.u8(0..6) {
        0 | 1 => {
            world.count(5);
            drop(place);
        }
        2 => {
            if let Some(guard) = poll_some(place.into_future(), rng.usize(0..5), rng) {
                world.count(6);
                let guard: ArcRangeGuard = guard;
                play!(world, guard, start, end, mode_, rng);
            }
        }
        // A task that holds nothing that it would wait for itself.
        3 if hold.is_none() => {
            let guard = block_on(place);
            play!(world, guard, start, end, mode_, rng);
        }
        _ => match catch_unwind(AssertUnwindSafe(|| place.wait())) {
            Ok(guard) => {
                world.count(3);
                play!(world, guard, start, end, mode_, rng);
            }
            Err(panic) => {
                let said = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                assert!(hold.is_some() && said.contains("deadlock"), "{said}");
                world.count(4);
            }
        },
    }
    drop(hold);
}

fn play(seed: u64, stride: u64, window: Duration, writers: usize, announcers: usize, time: Duration) {
    let new = || Arc::new(if window.is_zero() { RangeLock::new() } else { RangeLock::new().reordering(window) });
    let world = World {
        lock: new(),
        other: new(),
        stride,
        cells: (0..CELLS).map(|_| Cell::default()).collect(),
        stop: AtomicBool::new(false),
        counts: Default::default(),
    };
    let (world, progress) = (&world, &(0..writers + announcers).map(|_| AtomicU64::new(0)).collect::<Vec<_>>());
    let failed = &AtomicBool::new(false);
    let ended = &AtomicUsize::new(0);
    thread::scope(|s| {
        for who in 0..writers + announcers {
            s.spawn(move || {
                let mut rng = Rng::with_seed(seed * 1000 + who as u64);
                while !world.stop.load(Relaxed) {
                    let done = catch_unwind(AssertUnwindSafe(|| {
                        if who < writers { writer(world, &mut rng) } else { announcer(world, &mut rng) }
                    }));
                    if done.is_err() {
                        failed.store(true, Relaxed);
                        world.stop.store(true, Relaxed);
                    }
                    progress[who].fetch_add(1, Relaxed);
                }
                ended.fetch_add(1, Relaxed);
            });
        }
        let began = Instant::now();
        while began.elapsed() < time && !failed.load(Relaxed) {
            thread::sleep(Duration::from_millis(50));
            let snapshot: Snapshot = world.lock.snapshot();
            std::hint::black_box(snapshot.requests().len());
        }
        world.stop.store(true, Relaxed);
        let stopped = Instant::now();
        while ended.load(Relaxed) < writers + announcers {
            thread::sleep(Duration::from_millis(20));
            if stopped.elapsed() > Duration::from_secs(60) {
                println!("HANGS: {:?}", world.lock.snapshot());
                println!("{progress:?}");
                std::process::abort();
            }
        }
    });
    assert!(!failed.load(Relaxed), "seed {seed} stride {stride} window {window:?}");
    assert_eq!(world.lock.snapshot().requests().len(), 0);
    let counts: Vec<_> =
        NAMES.iter().zip(&world.counts).map(|(name, count)| format!("{name} {}", count.load(Relaxed))).collect();
    println!("seed {seed} stride {stride} window {window:?} threads {writers}+{announcers}: {}", counts.join(", "));
}

#[test]
fn marks() {
    // A deadlock of who is announced is a panic, and is caught.
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string();
        if !text.contains("deadlock") {
            eprintln!("{text}");
        }
    }));
    let first = from_env("SPANLOCK_SEED", 0);
    let time = Duration::from_millis(from_env("SPANLOCK_ATTACK_MS", 500));
    for seed in first..first + from_env("SPANLOCK_ATTACK_SEEDS", 12) {
        let stride = [1, 64, 5000, 1 << 20, 1 << 40, 1 << 57][seed as usize % 6];
        let window = [Duration::ZERO, Duration::from_micros(50), Duration::from_millis(5), Duration::from_secs(1000)]
            [(seed / 6) as usize % 4];
        let writers = [2, 4, 7, 12][(seed / 24) as usize % 4];
        play(seed, stride, window, writers, 1 + (seed % 3) as usize, time);
    }
}

#[allow(dead_code)]
type Boxed<T> = Pin<Box<dyn Future<Output = T>>>;
