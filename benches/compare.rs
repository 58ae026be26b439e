//! spanlock beside its rivals in one run: `cargo bench --bench compare`.
//!
//! The contenders of a contest take turns, A B C A B C, each for a few milliseconds on fresh threads; what is told is the median of
//! the rounds, and of each round's ratio to spanlock, with the interval that holds the true median in 95 of 100 cases.
//!
//! A word in front selects contests by a part of their names; `--test` (or no `--bench`) does everything once, for a moment.

mod peers;

use comfy_table::Table;
use indicatif::{ProgressBar, ProgressStyle};
use peers::*;
use std::hint::black_box;
use std::ops::Range;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const PAGE: u64 = 4096;
/// Bytes of the file.
const FILE: u64 = MOST_THREADS as u64 * REGION;
/// Bytes that a thread has for itself.
const REGION: u64 = 1 << 22;

/// What the threads ask for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Each thread a page of its own.
    Own,
    /// All the same page.
    Same,
}

struct Contest {
    name: &'static str,
    threads: usize,
    place: Place,
    access: Access,
}

const CONTESTS: [Contest; 6] = [
    Contest { name: "uncontended", threads: 1, place: Place::Own, access: Access::Exclusive },
    Contest { name: "disjoint, 2 threads", threads: 2, place: Place::Own, access: Access::Exclusive },
    Contest { name: "disjoint, 16 threads", threads: 16, place: Place::Own, access: Access::Exclusive },
    Contest { name: "readers, 2 threads", threads: 2, place: Place::Same, access: Access::Shared },
    Contest { name: "hot page, 2 threads", threads: 2, place: Place::Same, access: Access::Exclusive },
    Contest { name: "hot page, 16 threads", threads: 16, place: Place::Same, access: Access::Exclusive },
];

impl Contest {
    fn range(&self, thread: usize) -> Range<u64> {
        let start = if self.place == Place::Own { thread as u64 * REGION } else { 0 };
        start..start + PAGE
    }
}

/// One turn on a lock: nanoseconds for a pair, by any thread.
type Turn = Box<dyn Fn(&Contest, Duration) -> f64>;

fn turn<P: Peer + 'static>() -> (&'static str, Turn) {
    let lock = P::new(FILE);
    let turn = move |contest: &Contest, time: Duration| {
        let (gate, stop) = (Barrier::new(contest.threads + 1), AtomicBool::new(false));
        let work = |thread: usize| {
            let (mut pairs, range) = (0_u64, contest.range(thread));
            gate.wait();
            let start = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                black_box(lock.acquire(thread, black_box(range.clone()), contest.access));
                pairs += 1;
            }
            (pairs, start, Instant::now())
        };
        let work = &work;
        let done: Vec<(u64, Instant, Instant)> = thread::scope(|scope| {
            let workers: Vec<_> = (0..contest.threads).map(|thread| scope.spawn(move || work(thread))).collect();
            gate.wait();
            thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
            workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect()
        });
        // From the first start to the last end. With more threads than processors each runs for a part of that only: its own clock would flatter it.
        let start = done.iter().map(|&(_, start, _)| start).min().expect("there is a thread");
        let end = done.iter().map(|&(.., end)| end).max().expect("there is a thread");
        let pairs: u64 = done.iter().map(|&(pairs, ..)| pairs).sum();
        (end - start).as_nanos() as f64 / pairs as f64
    };
    (P::NAME, Box::new(turn))
}

/// All locks, new; the first one is what the others are compared with.
fn contenders(contest: &Contest) -> Vec<(&'static str, Turn)> {
    let mut all = vec![turn::<Spanlock>(), turn::<IntervalTree>(), turn::<BTree>(), turn::<Segments>()];
    all.extend([
        turn::<RangeLockCrate>(),
        turn::<Ofd>(),
        turn::<SpanlockWhole>(),
        turn::<StdRwLock>(),
        turn::<RwLock>(),
    ]);
    all.extend([turn::<Mutex>(), turn::<FairMutex>(), turn::<TokioRwLock>()]);
    // Its blockers would not exclude one another.
    if contest.access == Access::Shared {
        all.push(turn::<TwoState>());
    }
    all
}

/// The median, and the interval around it.
fn median(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    let off = (n as f64).sqrt().round() as usize;
    [(n / 2).saturating_sub(off), n / 2, n / 2 + off].map(|rank| values[rank.min(n - 1)])
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let testing = has("--test") || !has("--bench");
    let (rounds, time) = if testing { (1, Duration::from_micros(200)) } else { (60, Duration::from_millis(8)) };
    let only = arguments.first().filter(|word| !word.starts_with("--"));
    let style = ProgressStyle::with_template("[{bar:40}] {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    for contest in CONTESTS.iter().filter(|contest| only.is_none_or(|only| contest.name.contains(only.as_str()))) {
        let bar = ProgressBar::new(rounds).with_style(style.clone()).with_message(contest.name);
        let contenders = contenders(contest);
        let mut nanos = vec![Vec::new(); contenders.len()];
        for _ in 0..rounds {
            for ((_, turn), nanos) in contenders.iter().zip(&mut nanos) {
                nanos.push(turn(contest, time));
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        let mut table = Table::new();
        table.set_header([contest.name, "ns for a pair", "its time / spanlock's", "95 %"]);
        for ((name, _), times) in contenders.iter().zip(&nanos) {
            let [low, ratio, high] = median(times.iter().zip(&nanos[0]).map(|(theirs, ours)| theirs / ours).collect());
            let [_, middle, _] = median(times.clone());
            table.add_row([
                name.to_string(),
                format!("{middle:.1}"),
                format!("{ratio:.2}"),
                format!("{low:.2} to {high:.2}"),
            ]);
        }
        println!("{table}\n");
    }
}
