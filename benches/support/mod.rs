//! What the benches share: how a pair is made, how threads are run, how a critical section passes its time, and how a
//! lock is filled.
//!
//! A *pair* is one acquire and its release. Everything is measured in pairs.

// Each bench is a crate of its own and uses a part of this.
#![allow(dead_code)]

pub(crate) mod chart;
pub(crate) mod figures;
pub(crate) mod machine;
pub(crate) mod pattern;
pub(crate) mod turns;

use criterion::Criterion;
pub(crate) use pattern::PAGE;
use spanlock::{RangeGuard, RangeLock};
use std::hint::black_box;
use std::ops::Range;
use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// Where a lone thread works.
pub(crate) const PLACE: Range<u64> = PAGE..2 * PAGE;

/// Short times: all benches together take some minutes.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(20)
        .nresamples(10_000)
        .without_plots()
}

/// The second half of a pair: the guard exists, as it would in a critical section of unknown content, and is dropped.
#[inline(always)]
pub(crate) fn release<G>(guard: G) {
    black_box(&guard);
}

/// A critical section of a given length, spent computing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section {
    steps: u64,
}

impl Section {
    pub(crate) fn nanos(nanos: u64) -> Section {
        /// Steps in a nanosecond, at the best speed that the processor showed.
        static SPEED: OnceLock<f64> = OnceLock::new();
        let speed = *SPEED.get_or_init(|| {
            const STEPS: u64 = 100_000;
            let best = (0..50).map(|_| {
                let start = Instant::now();
                spin(STEPS);
                start.elapsed()
            });
            STEPS as f64 / best.min().unwrap_or_default().as_nanos().max(1) as f64
        });
        Section { steps: (nanos as f64 * speed).round() as u64 }
    }

    /// Holds the guard for as long as the section takes, then drops it.
    #[inline(always)]
    pub(crate) fn under<G>(self, guard: G) {
        black_box(&guard);
        if self.steps > 0 {
            spin(self.steps);
        }
    }
}

/// Not inlined, so that the calibrated loop and the others are the same code.
#[inline(never)]
fn spin(steps: u64) {
    // Each step depends on the one before, and no memory is touched.
    let mut x = black_box(1_u64);
    for _ in 0..steps {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    black_box(x);
}

/// Has `threads` threads make `pairs` pairs between them, thread `t` by calling `pair(t)`: how long that took from the
/// first one's start to the last one's end. For `iter_custom`.
pub(crate) fn run(threads: u64, pairs: u64, pair: impl Fn(u64) + Sync) -> Duration {
    let each = pairs.div_ceil(threads);
    let gate = Barrier::new(threads as usize);
    let work = |thread| {
        gate.wait();
        let start = Instant::now();
        for _ in 0..each {
            pair(thread);
        }
        (start, Instant::now())
    };
    let work = &work;
    let (start, end) = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        let times = workers.into_iter().map(|worker| worker.join().expect("a worker does not panic"));
        times.reduce(|(start, end), (s, e)| (start.min(s), end.max(e))).expect("there is a worker")
    });
    // Rounding up may have made some pairs more.
    (end - start).mul_f64(pairs as f64 / (each * threads) as f64)
}

/// Makes `levels` nodes between the root and [`PLACE`]: a node sends a request deeper when it is full, so each one on
/// the way is filled with held pages far from there.
pub(crate) fn deepen(lock: &RangeLock, levels: u32) -> Vec<RangeGuard<'_>> {
    // The tree's own constants, checked below by their effect.
    const SLOTS: u64 = 8;
    const CELL_BITS: u32 = 2;
    let held = (0..levels).flat_map(|level| {
        // The node's last cell; the way to `PLACE` is through its first one.
        let cell = 3 << (64 - CELL_BITS * (level + 1));
        (0..SLOTS).map(move |slot| cell + slot * PAGE..cell + (slot + 1) * PAGE)
    });
    let held = held.map(|page| lock.exclusive(page)).collect();
    release(lock.exclusive(PLACE));
    assert_eq!(lock.heap_nodes(), levels as usize, "each full node has one child");
    held
}

/// Every other page of an area far from [`PLACE`]: what a crowd holds, and the gaps between.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd {
    pub(crate) size: u64,
}

impl Crowd {
    const BASE: u64 = 1 << 40;

    /// Holds its ranges, taken in random order.
    pub(crate) fn gather(self, lock: &RangeLock) -> Vec<RangeGuard<'_>> {
        let mut order: Vec<u64> = (0..self.size).collect();
        fastrand::Rng::with_seed(1).shuffle(&mut order);
        order.into_iter().map(|index| lock.exclusive(Crowd::page(2 * index))).collect()
    }

    /// The page between two held ones (behind the last one, for the last).
    pub(crate) fn gap(self, index: u64) -> Range<u64> {
        Crowd::page(2 * index + 1)
    }

    pub(crate) fn middle_gap(self) -> Range<u64> {
        self.gap(self.size / 2)
    }

    pub(crate) fn random_gap(self, random: &mut fastrand::Rng) -> Range<u64> {
        self.gap(random.u64(..self.size))
    }

    fn page(index: u64) -> Range<u64> {
        let start = Crowd::BASE + index * PAGE;
        start..start + PAGE
    }
}

/// The part of the file that thread `thread` has for itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    pub(crate) thread: u64,
}

impl Region {
    /// The page that the thread takes again and again.
    pub(crate) fn page(self) -> Range<u64> {
        let start = (self.thread << 30) + (1 << 29);
        start..start + PAGE
    }

    /// Holds `neighbours` pages around that one, as close as they can be without touching one another.
    pub(crate) fn pile_up(self, lock: &RangeLock, neighbours: u64) -> Vec<RangeGuard<'_>> {
        let page = self.page();
        let pages = (0..neighbours).map(|index| {
            let distance = 2 * PAGE * (index / 2 + 1);
            let start = if index % 2 == 0 { page.start - distance } else { page.start + distance };
            start..start + PAGE
        });
        pages.map(|page| lock.exclusive(page)).collect()
    }
}
