//! Contenders take turns: A B C A B C. The threads of a contest live as long as it does, so that a lock which learns who uses it can.

use crate::peers::MOST_THREADS;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What a thread did in a turn.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// How often it did what is measured.
    pub(crate) count: u64,
    /// How long that took each time, in nanoseconds, where it is not the turn's time that counts: then their median does.
    pub(crate) samples: Vec<u32>,
    /// The longest single wait, where waits are timed.
    pub(crate) longest: Duration,
}

/// What a thread, of a number, does until it is told to stop.
type Work = Box<dyn Fn(usize, &AtomicBool) -> Tally + Send + Sync>;

pub(crate) struct Contender {
    pub(crate) name: String,
    work: Work,
}

impl Contender {
    pub(crate) fn new(
        name: impl Into<String>,
        work: impl Fn(usize, &AtomicBool) -> Tally + Send + Sync + 'static,
    ) -> Contender {
        Contender { name: name.into(), work: Box::new(work) }
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

/// Has each contender take its turn in every round; the turns of each, by rounds. `after` is called after each turn.
pub(crate) fn run(threads: usize, contenders: &[Contender], effort: Effort, after: impl Fn()) -> Vec<Vec<Turn>> {
    const OVER: usize = usize::MAX;
    assert!((1..=MOST_THREADS).contains(&threads), "1 to {MOST_THREADS} threads, not {threads}");
    let (gate, stop, current) = (Barrier::new(threads + 1), AtomicBool::new(false), AtomicUsize::new(0));
    let now = Instant::now();
    let done: Vec<Mutex<Part>> =
        (0..threads).map(|_| Mutex::new(Part { tally: Tally::default(), start: now, end: now })).collect();
    let worker = |thread: usize| {
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
    let mut turns = vec![Vec::with_capacity(effort.rounds); contenders.len()];
    thread::scope(|scope| {
        (0..threads).for_each(|thread| _ = scope.spawn(move || worker(thread)));
        for round in 0..effort.warm_up + effort.rounds {
            for (index, turns) in turns.iter_mut().enumerate() {
                current.store(index, Ordering::Relaxed);
                stop.store(false, Ordering::Relaxed);
                gate.wait();
                thread::sleep(effort.turn);
                stop.store(true, Ordering::Relaxed);
                gate.wait();
                if round >= effort.warm_up {
                    turns.push(turn(
                        done.iter().map(|done| done.lock().unwrap_or_else(PoisonError::into_inner).clone()),
                    ));
                }
                after();
            }
        }
        current.store(OVER, Ordering::Relaxed);
        gate.wait();
    });
    turns
}

/// A thread's part in a turn.
#[derive(Clone)]
struct Part {
    tally: Tally,
    start: Instant,
    end: Instant,
}

/// The time is from the first start to the last end: with more threads than processors each runs for a part of that only, and its own clock
/// would flatter it.
fn turn(parts: impl Iterator<Item = Part>) -> Turn {
    let parts: Vec<Part> = parts.collect();
    let start = parts.iter().map(|part| part.start).min().expect("there is a thread");
    let end = parts.iter().map(|part| part.end).max().expect("there is a thread");
    let mut samples: Vec<u32> = parts.iter().flat_map(|part| part.tally.samples.iter().copied()).collect();
    samples.sort_unstable();
    let counts = || parts.iter().map(|part| part.tally.count as f64);
    let (sum, squares) = (counts().sum::<f64>(), counts().map(|count| count * count).sum::<f64>());
    Turn {
        nanos: match samples.get(samples.len() / 2) {
            Some(&median) => median.into(),
            // A turn in which nobody got anywhere is not a fast one.
            None => (end - start).as_nanos() as f64 / sum.max(1.0),
        },
        jain: if squares > 0.0 { sum * sum / (parts.len() as f64 * squares) } else { 1.0 },
        longest: parts.iter().map(|part| part.tally.longest.as_nanos() as f64).fold(0.0, f64::max),
    }
}
