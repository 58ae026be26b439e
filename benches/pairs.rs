//! The performance that the lock is to have, measured beside the others in one run: `cargo bench -p spanlock-bench --bench
//! pairs`.
//!
//! Criterion measures one thing after the other. Where a machine's speed changes meanwhile (other tenants, clock rates)
//! that says little of their ratio. Here the contenders take turns, A B C A B C, each for a millisecond or a few; what
//! is compared is always of the same round; and what is told is the median of the rounds' ratios, with the interval
//! that holds the true median in 95 of 100 cases.
//!
//! One element = one pair, an acquire and its release; with several threads, by any of them.
//!
//! Behind the contests of one and two threads come those of threads that have no home (`support/roaming.rs`):
//! scattered, tail, skewed, streams, and one in 1000 that takes the whole file. They have a table each as soon as they
//! are measured. One of them, against one rival, takes a second:
//!   ```text
//!   cargo bench -p spanlock-bench --bench pairs -- "scattered, 1 GiB" --threads 2 --sections 0 --placement free --contenders spanlock,interval-tree
//!   ```
//!
//! # Arguments
//! - a word in front: only the contests whose name contains it;
//! - `--test` (or no `--bench`, as `cargo test` calls it): everything once, for a moment;
//! - `--threads`, `--sections`, `--placement`, `--contenders`, `--rounds`, `--turn`: of threads without a home, see
//!   `--help`;
//! - `--count N [CONTENDER]`: makes N uncontended pairs on one thread and exits, for counting instructions. The
//!   difference between two runs, divided by the difference in pairs, is free of what the program does besides:
//!   ```text
//!   cargo bench -p spanlock-bench --bench pairs --no-run        # says where the program is
//!   valgrind --tool=callgrind --callgrind-out-file=/dev/null PROGRAM --count 100000
//!   valgrind --tool=callgrind --callgrind-out-file=/dev/null PROGRAM --count 200000
//!   ```
//!   An unknown CONTENDER prints the known ones. The default is `exclusive`.

mod peers;
#[path = "support/roaming.rs"]
mod roaming;
mod support;

use clap::Parser;
use comfy_table::Table;
use indicatif::{ProgressBar, ProgressStyle};
use range_lock::VecRangeLock;
use roaming::{PLACEMENTS, Roaming};
use spanlock::{Mode, Owner, RangeGuard, RangeLock, WholeFileLock};
use std::fmt;
use std::hint::black_box;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::figures::{Median, align_right, table, table_of_used};
use support::turns::{self, HEADER, Placement};
use support::{Crowd, PAGE, PLACE, Region, Section, deepen, release};

const THREADS: usize = 2;

/// Measures what the lock is to reach, beside the others.
#[derive(Parser)]
struct Options {
    /// Only the contests whose name contains this.
    #[arg(default_value = "")]
    filter: String,
    /// Of threads without a home: how many.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 16], value_parser = peers::parse_threads)]
    threads: Vec<usize>,
    /// Of threads without a home: critical sections, in nanoseconds.
    #[arg(long, value_delimiter = ',', default_values_t = roaming::SECTIONS)]
    sections: Vec<u64>,
    /// Of threads without a home: free, bound to processors, or (without this) first the one and then the other.
    #[arg(long, value_enum)]
    placement: Option<Placement>,
    /// Of threads without a home: only these locks. (The first one in the table is what the others are compared with.)
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    contenders: Vec<String>,
    /// Of threads without a home: rounds. (A third, where there are more threads than processors.)
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,
    /// Of threads without a home: milliseconds of a turn. (4 for each thread at least, where there are more threads
    /// than processors.)
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    turn: u64,
    /// Makes so many uncontended pairs on one thread, of a contender, and nothing else.
    #[arg(long, num_args = 1..=2, value_names = ["N", "CONTENDER"])]
    count: Vec<String>,
    /// Everything once, for a moment. (So does a call without `--bench`, which `cargo bench -p spanlock-bench` adds.)
    #[arg(long)]
    test: bool,
    #[arg(long, hide = true)]
    bench: bool,
}

/// How long to measure.
#[derive(Clone, Copy)]
struct Effort {
    /// Rounds with one thread, and with two.
    rounds: usize,
    rounds_of_two: usize,
    /// A contender's turn, with one thread and with two.
    turn: Duration,
    turn_of_two: Duration,
    /// Ranges in the large crowd.
    crowd: u64,
}

impl Effort {
    const FULL: Effort = Effort {
        rounds: 1000,
        rounds_of_two: 150,
        turn: Duration::from_millis(1),
        turn_of_two: Duration::from_millis(8),
        crowd: 100_000,
    };
    const TEST: Effort = Effort {
        rounds: 2,
        rounds_of_two: 1,
        turn: Duration::from_micros(10),
        turn_of_two: Duration::from_micros(100),
        crowd: 1000,
    };

    fn is_test(self) -> bool {
        self.rounds <= Effort::TEST.rounds
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    match &options.count[..] {
        [] => measure(&options),
        [pairs, contender @ ..] => match pairs.parse() {
            Ok(pairs) => count(pairs, contender.first().map_or("exclusive", String::as_str)),
            Err(_) => {
                eprintln!("--count needs a number of pairs");
                ExitCode::FAILURE
            }
        },
    }
}

/// Something that one thread does in turns with others: called with a number of pairs.
struct Lone<'a> {
    name: &'static str,
    pairs: Box<dyn FnMut(u64) + 'a>,
}

impl<'a> Lone<'a> {
    fn new<G>(name: &'static str, mut acquire: impl FnMut() -> G + 'a) -> Lone<'a> {
        let pairs = move |pairs| {
            for _ in 0..pairs {
                release(acquire());
            }
        };
        Lone { name, pairs: Box::new(pairs) }
    }

    /// The same, while something else is held that `hold` gives.
    fn within<H, G>(name: &'static str, mut hold: impl FnMut() -> H + 'a, acquire: impl Fn() -> G + 'a) -> Lone<'a> {
        let pairs = move |pairs| {
            let _held = hold();
            for _ in 0..pairs {
                release(acquire());
            }
        };
        Lone { name, pairs: Box::new(pairs) }
    }

    fn time(&mut self, pairs: u64) -> Duration {
        let start = Instant::now();
        (self.pairs)(pairs);
        start.elapsed()
    }

    /// How many pairs fill a turn.
    fn pairs_in(&mut self, turn: Duration) -> u64 {
        const FEW: u64 = 256;
        self.time(FEW);
        let nanos = self.time(FEW).as_nanos().max(1) as f64 / FEW as f64;
        (turn.as_nanos() as f64 / nanos).ceil() as u64
    }
}

/// Something that two threads do at the same time, in turns with other things: thread number `.0` makes pairs until the
/// flag is set, and returns how many.
struct Duo<'a> {
    name: &'static str,
    pairs: Box<UntilStopped<'a>>,
}

type UntilStopped<'a> = dyn Fn(u64, &AtomicBool) -> u64 + Sync + 'a;

impl<'a> Duo<'a> {
    fn new<G>(name: &'static str, section: Section, acquire: impl Fn(u64) -> G + Sync + 'a) -> Duo<'a> {
        /// Pairs between two looks at the flag.
        const BATCH: u64 = 32;
        let pairs = move |thread, stop: &AtomicBool| {
            let mut pairs = 0;
            loop {
                for _ in 0..BATCH {
                    section.under(acquire(thread));
                }
                pairs += BATCH;
                if stop.load(Ordering::Relaxed) {
                    return pairs;
                }
            }
        };
        Duo { name, pairs: Box::new(pairs) }
    }
}

/// What a contender took in each round: nanoseconds for a pair.
struct Series {
    contest: &'static str,
    name: &'static str,
    nanos: Vec<f64>,
}

/// Where results go, and the progress bar.
struct Record<'a> {
    only: &'a str,
    effort: Effort,
    series: Vec<Series>,
    bar: ProgressBar,
}

impl Record<'_> {
    fn wants(&self, contest: &str) -> bool {
        contest.contains(self.only)
    }

    fn begin(&mut self, contest: &'static str, names: impl Iterator<Item = &'static str>, rounds: usize) -> usize {
        let first = self.series.len();
        self.series.extend(names.map(|name| Series { contest, name, nanos: Vec::with_capacity(rounds) }));
        self.bar.set_length(rounds as u64);
        self.bar.set_position(0);
        self.bar.set_message(contest);
        first
    }

    /// One thread.
    fn lone(&mut self, contest: &'static str, mut contenders: Vec<Lone<'_>>) {
        let rounds = self.effort.rounds;
        let first = self.begin(contest, contenders.iter().map(|lone| lone.name), rounds);
        let pairs: Vec<_> = contenders.iter_mut().map(|lone| lone.pairs_in(self.effort.turn)).collect();
        for _ in 0..rounds {
            for (index, (lone, &pairs)) in contenders.iter_mut().zip(&pairs).enumerate() {
                let nanos = lone.time(pairs).as_nanos() as f64 / pairs as f64;
                self.series[first + index].nanos.push(nanos);
            }
            self.bar.inc(1);
        }
    }

    /// Two threads, the same two in all turns: a lock learns which threads use it.
    fn duo(&mut self, contest: &'static str, contenders: &[Duo<'_>]) {
        /// The first round lets the locks take their shape.
        const WARM_UP: usize = 1;
        let rounds = self.effort.rounds_of_two;
        let first = self.begin(contest, contenders.iter().map(|duo| duo.name), rounds);
        let gate = Barrier::new(THREADS + 1);
        let (turn, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        // Bits of an f64 each: pairs in a nanosecond.
        let rates: [AtomicU64; THREADS] = [const { AtomicU64::new(0) }; THREADS];
        let work = |thread: usize| {
            loop {
                gate.wait();
                let Some(duo) = contenders.get(turn.load(Ordering::Relaxed)) else { return };
                let start = Instant::now();
                let pairs = (duo.pairs)(thread as u64, &stop);
                let rate = pairs as f64 / start.elapsed().as_nanos().max(1) as f64;
                rates[thread].store(rate.to_bits(), Ordering::Relaxed);
                gate.wait();
            }
        };
        let work = &work;
        // The barrier orders all of these.
        thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || work(thread));
            }
            for round in 0..WARM_UP + rounds {
                for index in 0..contenders.len() {
                    turn.store(index, Ordering::Relaxed);
                    stop.store(false, Ordering::Relaxed);
                    gate.wait();
                    thread::sleep(self.effort.turn_of_two);
                    stop.store(true, Ordering::Relaxed);
                    gate.wait();
                    let rate: f64 = rates.iter().map(|rate| f64::from_bits(rate.load(Ordering::Relaxed))).sum();
                    if round >= WARM_UP {
                        self.series[first + index].nanos.push(rate.recip());
                    }
                }
                if round >= WARM_UP {
                    self.bar.inc(1);
                }
            }
            turn.store(usize::MAX, Ordering::Relaxed);
            gate.wait();
        });
    }

    fn find(&self, contest: &str, name: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.contest == contest && series.name == name)
    }
}

/// The locks of one thread without others.
#[derive(Debug)]
struct Quiet {
    range: RangeLock,
    whole: WholeFileLock,
    rwlock: parking_lot::RwLock<()>,
    /// Locks parts of a vector.
    vector: VecRangeLock<u8>,
}

impl Quiet {
    fn new() -> Quiet {
        let vector = VecRangeLock::new(vec![0; 4 * PAGE as usize]);
        Quiet { range: RangeLock::new(), whole: WholeFileLock::new(), rwlock: parking_lot::RwLock::new(()), vector }
    }

    fn contenders(&self) -> Vec<Lone<'_>> {
        let place = PLACE.start as usize..PLACE.end as usize;
        vec![
            Lone::new("exclusive", || self.range.exclusive(black_box(PLACE))),
            Lone::new("rwlock-write", || self.rwlock.write()),
            Lone::new("range-lock", move || self.vector.try_lock(black_box(place.clone())).expect("it is free")),
            Lone::new("whole-exclusive", || self.whole.exclusive()),
            Lone::new("whole-add", || self.whole.add()),
            Lone::new("rwlock-read", || self.rwlock.read()),
        ]
    }
}

/// A thread that holds something already, and one that does not. What is held is in another lock, or covers what is
/// asked for.
fn nested<'a>(lock: &'a RangeLock, other: &'a RangeLock, token: &'a Owner) -> Vec<Lone<'a>> {
    // Held by somebody else: the scan finds it, and the request is not nested.
    let theirs = move || lock.request(PLACE, Mode::Add).owner(token).try_now().expect("nobody else is there");
    let add = || lock.add(black_box(PLACE));
    vec![
        Lone::new("outermost", || lock.exclusive(black_box(PLACE))),
        Lone::within("nested elsewhere", || other.add(..), || lock.exclusive(black_box(PLACE))),
        Lone::within("outermost beside a hold", theirs, add),
        Lone::within("nested inside a hold", || lock.add(PLACE), add),
        Lone::within("nested against its own block", || lock.block(PLACE), add),
        Lone::new("of a token", || lock.request(black_box(PLACE), Mode::Exclusive).owner(token).wait()),
    ]
}

/// Only for counting: a pair below the root.
fn below<'a>(locks: &'a [RangeLock; 3]) -> (Vec<Vec<RangeGuard<'a>>>, Vec<Lone<'a>>) {
    let names = ["one-level", "two-levels", "three-levels"];
    let held = locks.iter().zip(1..).map(|(lock, levels)| deepen(lock, levels)).collect();
    let lone = |(name, lock): (&'static str, &'a RangeLock)| Lone::new(name, || lock.exclusive(black_box(PLACE)));
    (held, names.into_iter().zip(locks).map(lone).collect())
}

fn count(pairs: u64, contender: &str) -> ExitCode {
    let quiet = Quiet::new();
    let mut known = quiet.contenders();
    if let Some(lone) = known.iter_mut().find(|lone| lone.name == contender) {
        (lone.pairs)(pairs);
        return ExitCode::SUCCESS;
    }
    // Only now: while these are held, every request of this thread is nested.
    let locks = [const { RangeLock::new() }; 3];
    let (held, mut deep) = below(&locks);
    let code = match deep.iter_mut().find(|lone| lone.name == contender) {
        Some(lone) => {
            (lone.pairs)(pairs);
            ExitCode::SUCCESS
        }
        None => {
            let names: Vec<_> = known.iter().chain(&deep).map(|lone| lone.name).collect();
            eprintln!("no contender is called {contender}; there are: {}", names.join(", "));
            ExitCode::FAILURE
        }
    };
    drop(held);
    code
}

const ONE: &str = "one thread";
const NESTED: &str = "nested, one thread";
const CROWD: &str = "crowd";
const WHOLE: &str = "whole file, two threads";
const WHOLE_200: &str = "whole file, two threads, 200 ns";
const DISJOINT: &str = "disjoint, two threads";
const DISJOINT_200: &str = "disjoint, two threads, 200 ns";
const DISJOINT_1000: &str = "disjoint, two threads, 1 us";

fn measure(options: &Options) -> ExitCode {
    let effort = if options.test || !options.bench { Effort::TEST } else { Effort::FULL };
    let style = ProgressStyle::with_template("[{bar:40}] {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(1).with_style(style.progress_chars("=> "));
    let mut record = Record { only: &options.filter, effort, series: Vec::new(), bar };
    if record.wants(ONE) {
        record.lone(ONE, Quiet::new().contenders());
    }
    if record.wants(NESTED) {
        let (lock, other, token) = (RangeLock::new(), RangeLock::new(), Owner::new());
        record.lone(NESTED, nested(&lock, &other, &token));
    }
    if record.wants(CROWD) {
        crowd(&mut record);
    }
    for (contest, nanos) in [(WHOLE, 0), (WHOLE_200, 200)] {
        if record.wants(contest) {
            whole(&mut record, contest, Section::nanos(nanos));
        }
    }
    for (contest, nanos) in [(DISJOINT, 0), (DISJOINT_200, 200), (DISJOINT_1000, 1000)] {
        if record.wants(contest) {
            disjoint(&mut record, contest, Section::nanos(nanos));
        }
    }
    record.bar.finish_and_clear();
    let measured = !record.series.is_empty();
    if measured {
        say(format_args!("{}\n\n{}\n", times(&record), verdicts(&record)));
    }
    let roamed = roam(options, &record);
    if measured || roamed {
        return ExitCode::SUCCESS;
    }
    eprintln!("no contest's name contains {:?}, or no contender is among {:?}", options.filter, options.contenders);
    ExitCode::FAILURE
}

/// The contests of threads that have no home; whether there was one.
fn roam(options: &Options, record: &Record<'_>) -> bool {
    let full = turns::Effort {
        rounds: options.rounds as usize,
        warm_up: options.rounds.div_ceil(10) as usize,
        turn: Duration::from_millis(options.turn),
    };
    let mut any = false;
    for placement in PLACEMENTS.into_iter().filter(|&one| options.placement.is_none_or(|wanted| wanted == one)) {
        for contest in Roaming::all().filter(|contest| options.sections.contains(&contest.section)) {
            for &threads in &options.threads {
                let name = format!("{}, {threads} threads{}", contest.name(), placement.suffix());
                let mut contenders = if record.wants(&name) { contest.contenders() } else { Vec::new() };
                contenders.retain(|contender| {
                    let name = contender.name.trim_end_matches('*');
                    options.contenders.is_empty() || options.contenders.iter().any(|wanted| wanted == name)
                });
                if contenders.is_empty() {
                    continue;
                }
                any = true;
                let effort = if record.effort.is_test() { turns::Effort::TEST } else { roaming::effort(threads, full) };
                let bar = &record.bar;
                bar.set_length((contenders.len() * (effort.rounds + effort.warm_up)) as u64);
                bar.reset();
                bar.set_message(name.clone());
                let rows = turns::run(threads, placement, &contenders, effort, |_| bar.inc(1));
                bar.finish_and_clear();
                let mut header = HEADER.map(str::to_owned);
                header[0] = name;
                let cells: Vec<_> = rows.iter().map(|row| row.cells(&rows[0], threads, false)).collect();
                say(format_args!("{}\n", align_right(table_of_used(&header, &cells), 1..HEADER.len())));
            }
        }
    }
    any
}

fn crowd(record: &mut Record<'_>) {
    let [few, many] = [Crowd { size: 100 }, Crowd { size: record.effort.crowd }];
    let locks = [RangeLock::new(), RangeLock::new()];
    let held = [few.gather(&locks[0]), many.gather(&locks[1])];
    let outside = |name, lock| Lone::new(name, move || RangeLock::exclusive(lock, black_box(PLACE)));
    let gap = |name, lock, crowd: Crowd| {
        let gap = crowd.middle_gap();
        Lone::new(name, move || RangeLock::exclusive(lock, black_box(gap.clone())))
    };
    let random = |name, lock, crowd: Crowd| {
        let mut random = fastrand::Rng::with_seed(2);
        Lone::new(name, move || RangeLock::exclusive(lock, crowd.random_gap(&mut random)))
    };
    let contenders = vec![
        outside("outside, few", &locks[0]),
        outside("outside, many", &locks[1]),
        gap("gap, few", &locks[0], few),
        gap("gap, many", &locks[1], many),
        random("random gaps, few", &locks[0], few),
        random("random gaps, many", &locks[1], many),
    ];
    record.lone(CROWD, contenders);
    drop(held);
}

fn whole(record: &mut Record<'_>, contest: &'static str, section: Section) {
    let ours = WholeFileLock::new();
    let theirs = parking_lot::RwLock::new(());
    let contenders = [Duo::new("add", section, |_| ours.add()), Duo::new("rwlock-read", section, |_| theirs.read())];
    record.duo(contest, &contenders);
}

/// Private locks whose pairs go as deep as those of two threads on one lock: what is left of the difference is
/// interference.
const AS_DEEP: &str = "private locks, as deep";

/// One lock and two private ones, with no neighbours and with some.
fn disjoint(record: &mut Record<'_>, contest: &'static str, section: Section) {
    const NAMES: [(u64, &str, &str); 3] = [
        (0, "one lock", "private locks"),
        (100, "one lock, 100 held", "private locks, 100 held"),
        (1000, "one lock, 1000 held", "private locks, 1000 held"),
    ];
    let regions = [Region { thread: 0 }, Region { thread: 1 }];
    let locks: Vec<_> = NAMES.iter().map(|_| [const { RangeLock::new() }; 1 + THREADS]).collect();
    let deep = [const { RangeLock::new() }; THREADS];
    let (mut contenders, mut held) = (Vec::new(), Vec::new());
    for ([shared, private @ ..], (neighbours, together, apart)) in locks.iter().zip(NAMES) {
        for (region, private) in regions.iter().zip(private) {
            held.push(region.pile_up(shared, neighbours));
            held.push(region.pile_up(private, neighbours));
        }
        let page = |thread| black_box(Region { thread }.page());
        contenders.push(Duo::new(together, section, move |thread| shared.exclusive(page(thread))));
        contenders.push(Duo::new(apart, section, move |thread| private[thread as usize].exclusive(page(thread))));
    }
    // Two regions in one quarter of all bytes, and one node for both of them: the next level is each thread's own.
    held.extend(deep.iter().map(|lock| deepen(lock, 2)));
    contenders.push(Duo::new(AS_DEEP, section, |thread| deep[thread as usize].exclusive(black_box(PLACE))));
    record.duo(contest, &contenders);
    drop(held);
}

/// What is asked of a ratio.
#[derive(Clone, Copy)]
enum Limit {
    /// Of times: at most this.
    AtMost(f64),
    /// Of speeds: at least this.
    AtLeast(f64),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::AtMost(most) => write!(f, "time at most {most}"),
            Limit::AtLeast(least) => write!(f, "speed at least {least}"),
        }
    }
}

/// What the measured ratio says of a limit.
fn verdict(limit: Limit, ratio: Median) -> &'static str {
    let (met, unclear) = match limit {
        Limit::AtMost(most) => (ratio.high <= most, ratio.low <= most),
        Limit::AtLeast(least) => (ratio.low >= least, ratio.high >= least),
    };
    match (met, unclear) {
        (true, _) => "met",
        (false, true) => "unclear",
        (false, false) => "MISSED",
    }
}

/// Contest, ours, theirs, what is asked. "No slower" is asked with the tolerance that the shared lock has against
/// private ones.
const TARGETS: [(&str, &str, &str, Limit); 23] = [
    (ONE, "exclusive", "rwlock-write", Limit::AtMost(2.5)),
    (ONE, "exclusive", "range-lock", Limit::AtMost(1.0)),
    (ONE, "whole-exclusive", "rwlock-write", Limit::AtMost(2.5)),
    (ONE, "whole-add", "rwlock-read", Limit::AtMost(2.5)),
    // "A few nanoseconds": half of an acquire.
    (NESTED, "nested elsewhere", "outermost", Limit::AtMost(1.5)),
    (NESTED, "nested inside a hold", "outermost beside a hold", Limit::AtMost(1.5)),
    (CROWD, "outside, many", "outside, few", Limit::AtMost(2.0)),
    (CROWD, "gap, many", "gap, few", Limit::AtMost(2.0)),
    (CROWD, "random gaps, many", "random gaps, few", Limit::AtMost(2.0)),
    (WHOLE, "add", "rwlock-read", Limit::AtMost(2.5)),
    (WHOLE_200, "add", "rwlock-read", Limit::AtMost(2.5)),
    (DISJOINT, "one lock", "private locks", Limit::AtLeast(0.9)),
    (DISJOINT, "one lock", AS_DEEP, Limit::AtLeast(0.9)),
    (DISJOINT, "one lock, 100 held", "private locks, 100 held", Limit::AtLeast(0.9)),
    (DISJOINT, "one lock, 1000 held", "private locks, 1000 held", Limit::AtLeast(0.9)),
    (DISJOINT, "one lock, 100 held", "one lock", Limit::AtLeast(0.9)),
    (DISJOINT, "one lock, 1000 held", "one lock", Limit::AtLeast(0.9)),
    (DISJOINT_200, "one lock", "private locks", Limit::AtLeast(0.9)),
    (DISJOINT_200, "one lock, 1000 held", "private locks, 1000 held", Limit::AtLeast(0.9)),
    (DISJOINT_200, "one lock, 1000 held", "one lock", Limit::AtLeast(0.9)),
    (DISJOINT_1000, "one lock", "private locks", Limit::AtLeast(0.9)),
    (DISJOINT_1000, "one lock, 1000 held", "private locks, 1000 held", Limit::AtLeast(0.9)),
    (DISJOINT_1000, "one lock, 1000 held", "one lock", Limit::AtLeast(0.9)),
];

/// What was measured, plainly.
fn times(record: &Record<'_>) -> Table {
    let mut table = table(["", "", "ns for a pair", "fastest round"]);
    let mut contest = "";
    for series in &record.series {
        let median = Median::of(series.nanos.iter().copied()).middle;
        let fastest = series.nanos.iter().copied().fold(f64::INFINITY, f64::min);
        let group = if series.contest == contest { "" } else { series.contest };
        table.add_row([group.to_owned(), series.name.to_owned(), format!("{median:.1}"), format!("{fastest:.1}")]);
        contest = series.contest;
    }
    align_right(table, 2..4)
}

/// What was asked, and what came of it.
fn verdicts(record: &Record<'_>) -> Table {
    let mut table = table(["target", "asked", "measured", "95 %", "", "rounds"]);
    for (contest, ours, theirs, limit) in TARGETS {
        let (Some(ours), Some(theirs)) = (record.find(contest, ours), record.find(contest, theirs)) else { continue };
        let rounds = ours.nanos.iter().zip(&theirs.nanos);
        let ratio = match limit {
            Limit::AtMost(_) => Median::of(rounds.map(|(ours, theirs)| ours / theirs)),
            Limit::AtLeast(_) => Median::of(rounds.map(|(ours, theirs)| theirs / ours)),
        };
        // A few rounds say nothing.
        table.add_row([
            format!("{contest}: {} / {}", ours.name, theirs.name),
            limit.to_string(),
            format!("{:.2}", ratio.middle),
            format!("{:.2} to {:.2}", ratio.low, ratio.high),
            if record.effort.is_test() { "not measured" } else { verdict(limit, ratio) }.to_owned(),
            ours.nanos.len().to_string(),
        ]);
    }
    align_right(table, 2..4)
}

/// Prints; whoever closes the pipe early wants no more of it.
fn say(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{text}");
}
