//! Contenders take turns: A B C A B C. The threads of a contest live as long as it does, so that a lock which learns
//! who uses it can.

// Each bench is a crate of its own and uses a part of this.
#![allow(dead_code)]

use super::figures::Median;
use clap::ValueEnum;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What a thread did in a turn.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// How often it did what is measured.
    pub(crate) count: u64,
    /// How long that took each time, in nanoseconds, where it is not the turn's time that counts: then their median
    /// does.
    pub(crate) samples: Vec<u32>,
    /// The longest single wait, where waits are timed.
    pub(crate) longest: Duration,
    /// How long each request for the whole file took to be granted, in nanoseconds, where they are timed.
    pub(crate) whole: Vec<u32>,
}

/// A thread's looks at the clock, outside of sections: the longest time between two of them is above its longest wait,
/// by no more than the pairs between and what they held.
pub(crate) struct Laps {
    every: u64,
    last: Instant,
}

impl Laps {
    /// One behind so many pairs.
    pub(crate) fn every(pairs: u64) -> Laps {
        Laps { every: pairs, last: Instant::now() }
    }

    /// A pair is over, and counted.
    #[inline(always)]
    pub(crate) fn lap(&mut self, tally: &mut Tally) {
        if tally.count % self.every == 0 {
            let now = Instant::now();
            tally.longest = tally.longest.max(now - self.last);
            self.last = now;
        }
    }
}

/// What a thread, of a number, does until it is told to stop.
type Work = Box<dyn Fn(usize, &AtomicBool) -> Tally + Send + Sync>;

pub(crate) struct Contender {
    pub(crate) name: String,
    work: Work,
    nodes: Option<Box<dyn Fn() -> Option<usize> + Send + Sync>>,
    /// Whether newcomers that go before others are counted, in a build that counts.
    passes: bool,
}

impl Contender {
    pub(crate) fn new(
        name: impl Into<String>,
        work: impl Fn(usize, &AtomicBool) -> Tally + Send + Sync + 'static,
    ) -> Contender {
        Contender { name: name.into(), work: Box::new(work), nodes: None, passes: false }
    }

    /// `nodes` says how many nodes the lock has on the heap.
    pub(crate) fn with_nodes(self, nodes: impl Fn() -> Option<usize> + Send + Sync + 'static) -> Contender {
        Contender { nodes: Some(Box::new(nodes)), ..self }
    }

    /// `passes` is whether it is a lock that counts whom newcomers pass.
    pub(crate) fn passing(self, passes: bool) -> Contender {
        Contender { passes, ..self }
    }

    /// How many newcomers went before others, in this process up to now.
    fn passed(&self) -> Option<u64> {
        self.passes.then(passed).flatten()
    }

    /// Nodes on the heap now, where anybody can tell.
    pub(crate) fn nodes(&self) -> Option<usize> {
        self.nodes.as_ref()?()
    }
}

/// What came of a turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// Nanoseconds for one of what is measured, by any thread.
    pub(crate) nanos: f64,
    /// Jain's index of the threads' shares: 1 if all are equal, 1 over the number of threads if one has everything.
    pub(crate) jain: f64,
    /// The longest wait of any thread, in nanoseconds; 0 where waits are not timed.
    pub(crate) longest: f64,
    /// The median of the waits for the whole file, in nanoseconds, if there were any.
    pub(crate) whole: Option<f64>,
    /// How many pairs there were in a second.
    pub(crate) rate: f64,
    /// How many newcomers went before others in a second, where it is counted.
    pub(crate) passed: Option<f64>,
}

#[cfg(feature = "stats")]
fn passed() -> Option<u64> {
    Some(spanlock::stats::read().went_before)
}

/// Only with the feature `stats`: counting costs something.
#[cfg(not(feature = "stats"))]
fn passed() -> Option<u64> {
    None
}

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Rounds that count, and those before them that do not.
    pub(crate) rounds: usize,
    pub(crate) warm_up: usize,
    /// A contender's turn.
    pub(crate) turn: Duration,
}

impl Effort {
    /// Everything once, for a moment.
    pub(crate) const TEST: Effort = Effort { rounds: 1, warm_up: 0, turn: Duration::from_micros(200) };
}

/// Where the threads run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Placement {
    /// Where the system puts them.
    Free,
    /// Each on one processor, the same for good, in turn: thread-per-core programs do so.
    Bound,
}

impl Placement {
    /// What it adds to a contest's name.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Placement::Free => "",
            Placement::Bound => ", bound",
        }
    }
}

/// The processors that this thread may run on.
pub(crate) fn processors() -> Vec<usize> {
    let set = sched_getaffinity(None).expect("the system tells a thread's processors");
    (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()
}

fn bind(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).expect("a thread can be bound to a processor that it may run on");
}

/// What one contender did in a contest.
pub(crate) struct Row {
    pub(crate) contender: String,
    pub(crate) turns: Vec<Turn>,
    /// Nodes on the heap behind the last turn, where anybody can tell.
    pub(crate) nodes: Option<usize>,
}

impl Row {
    pub(crate) fn nanos(&self) -> Median {
        Median::of(self.turns.iter().map(|turn| turn.nanos))
    }

    pub(crate) fn jain(&self) -> Median {
        Median::of(self.turns.iter().map(|turn| turn.jain))
    }

    /// The longest wait of all rounds, in nanoseconds.
    pub(crate) fn longest(&self) -> f64 {
        self.turns.iter().map(|turn| turn.longest).fold(0.0, f64::max)
    }

    /// Pairs in a second.
    pub(crate) fn rate(&self) -> Median {
        Median::of(self.turns.iter().map(|turn| turn.rate))
    }

    /// How many newcomers went before others in a second, where it was counted.
    pub(crate) fn passed(&self) -> Option<Median> {
        let counted: Vec<f64> = self.turns.iter().filter_map(|turn| turn.passed).collect();
        (!counted.is_empty()).then(|| Median::of(counted.into_iter()))
    }

    /// How long a request for the whole file takes to be granted, in nanoseconds, if there were any.
    pub(crate) fn whole(&self) -> Option<Median> {
        let timed: Vec<f64> = self.turns.iter().filter_map(|turn| turn.whole).collect();
        (!timed.is_empty()).then(|| Median::of(timed.into_iter()))
    }

    /// The rounds' ratios of this one's time to the other's.
    pub(crate) fn times(&self, other: &Row) -> Median {
        Median::of(self.turns.iter().zip(&other.turns).map(|(mine, theirs)| mine.nanos / theirs.nanos))
    }

    /// Under [`HEADER`], beside the contender that comes first. `rated` is whether it is told how many there were in a
    /// second.
    pub(crate) fn cells(&self, first: &Row, threads: usize, rated: bool) -> [String; HEADER.len()] {
        let (nanos, ratio, longest) = (self.nanos(), self.times(first), self.longest());
        let thousands = |figure: Median| format!("{:.1}", figure.middle / 1e3);
        let if_any = |text: Option<String>| text.unwrap_or_default();
        [
            self.contender.clone(),
            format!("{:.1}", nanos.middle),
            format!("{:.2}", ratio.middle),
            format!("{:.2} to {:.2}", ratio.low, ratio.high),
            if_any((threads > 1).then(|| format!("{:.3}", self.jain().middle))),
            if_any((threads > 1 && longest > 0.0).then(|| format!("{:.2}", longest / 1e6))),
            if_any(self.whole().map(|whole| format!("{:.1}", whole.middle / 1e3))),
            if_any(self.nodes.map(|nodes| nodes.to_string())),
            if_any(self.passed().map(thousands)),
            if_any(rated.then(|| thousands(self.rate()))),
        ]
    }
}

/// Above [`Row::cells`]. The first one has the contest's name.
pub(crate) const HEADER: [&str; 10] = [
    "",
    "ns",
    "its time / the first's",
    "95 %",
    "Jain",
    "longest wait, ms",
    "whole file, us",
    "nodes",
    "10^3 passed/s",
    "10^3 pairs/s",
];

/// Has each contender take its turn in every round; what each did. `after` is called behind each turn, while nobody
/// runs.
pub(crate) fn run(
    threads: usize,
    placement: Placement,
    contenders: &[Contender],
    effort: Effort,
    mut after: impl FnMut(&Contender),
) -> Vec<Row> {
    const OVER: usize = usize::MAX;
    let (gate, stop, current) = (Barrier::new(threads + 1), AtomicBool::new(false), AtomicUsize::new(0));
    let now = Instant::now();
    let done: Vec<Mutex<Part>> =
        (0..threads).map(|_| Mutex::new(Part { tally: Tally::default(), start: now, end: now })).collect();
    let cpus = processors();
    let worker = |thread: usize| {
        if placement == Placement::Bound {
            bind(cpus[thread % cpus.len()]);
        }
        loop {
            gate.wait();
            let Some(contender) = contenders.get(current.load(Ordering::Relaxed)) else { return };
            let start = Instant::now();
            let tally = (contender.work)(thread, &stop);
            let part = Part { tally, start, end: Instant::now() };
            *done[thread].lock().unwrap_or_else(PoisonError::into_inner) = part;
            gate.wait();
        }
    };
    let worker = &worker;
    let mut rows: Vec<Row> = contenders
        .iter()
        .map(|contender| Row { contender: contender.name.clone(), turns: Vec::new(), nodes: None })
        .collect();
    thread::scope(|scope| {
        (0..threads).for_each(|thread| _ = scope.spawn(move || worker(thread)));
        for round in 0..effort.warm_up + effort.rounds {
            for (index, (contender, row)) in contenders.iter().zip(&mut rows).enumerate() {
                current.store(index, Ordering::Relaxed);
                stop.store(false, Ordering::Relaxed);
                let before = contender.passed();
                gate.wait();
                thread::sleep(effort.turn);
                stop.store(true, Ordering::Relaxed);
                gate.wait();
                if round >= effort.warm_up {
                    let passed = contender.passed().zip(before).map(|(after, before)| after - before);
                    let parts = done.iter().map(|done| done.lock().unwrap_or_else(PoisonError::into_inner).clone());
                    row.turns.push(turn(parts, passed));
                }
                after(contender);
            }
        }
        // Only now: in a large tree it takes a while, and other memory is in the caches then.
        for (contender, row) in contenders.iter().zip(&mut rows) {
            row.nodes = contender.nodes();
        }
        current.store(OVER, Ordering::Relaxed);
        gate.wait();
    });
    rows
}

/// A thread's part in a turn.
#[derive(Clone)]
struct Part {
    tally: Tally,
    start: Instant,
    end: Instant,
}

/// The time is from the first start to the last end: with more threads than processors each runs for a part of that
/// only, and its own clock would flatter it.
fn turn(parts: impl Iterator<Item = Part>, passed: Option<u64>) -> Turn {
    let parts: Vec<Part> = parts.collect();
    let start = parts.iter().map(|part| part.start).min().expect("there is a thread");
    let end = parts.iter().map(|part| part.end).max().expect("there is a thread");
    let counts = || parts.iter().map(|part| part.tally.count as f64);
    let (sum, squares) = (counts().sum::<f64>(), counts().map(|count| count * count).sum::<f64>());
    let seconds = (end - start).as_secs_f64();
    Turn {
        nanos: match median(parts.iter().map(|part| &part.tally.samples)) {
            Some(median) => median,
            // A turn in which nobody got anywhere is not a fast one.
            None => (end - start).as_nanos() as f64 / sum.max(1.0),
        },
        jain: if squares > 0.0 { sum * sum / (parts.len() as f64 * squares) } else { 1.0 },
        longest: parts.iter().map(|part| part.tally.longest.as_nanos() as f64).fold(0.0, f64::max),
        whole: median(parts.iter().map(|part| &part.tally.whole)),
        rate: sum / seconds,
        passed: passed.map(|passed| passed as f64 / seconds),
    }
}

fn median<'a>(samples: impl Iterator<Item = &'a Vec<u32>>) -> Option<f64> {
    let mut all: Vec<u32> = samples.flatten().copied().collect();
    all.sort_unstable();
    all.get(all.len() / 2).map(|&median| median.into())
}
