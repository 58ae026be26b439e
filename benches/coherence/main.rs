//! How a lock's cache lines wander between CPUs: `cargo bench -p spanlock-bench --bench coherence`.
//!
//! Two CPUs cannot show how a lock scales to 64. What can be shown without them is the cause: which lines each acquire
//! and release takes away from other CPUs. Here the very code of `src/` runs on simulated CPUs. This crate declares the
//! library's modules as its own, with another `sync` in their middle, whose atomics tell a MESI machine of each access
//! (see `mesi` and `cpus`).
//!
//! It is the check of the claim that the tree's shape follows contention: where CPUs work on disjoint ranges, the
//! transfers of the lock's lines fall to nothing once the tree has grown, from a single node at the start.
//! `docs/coherence.md` has the figures, and what the model leaves out.
//!
//! CPUs that have no home (`support/pattern.rs`) cannot be left alone. Of them something else is asked: few transfers
//! for a pair, the same number for the thousandth pair and for the hundred thousandth, and a tree that does not grow.
//! Each table of theirs ends with what was asked, and what came of it.
//!
//! # Arguments
//! - a word in front: only the workloads whose name contains it;
//! - `--test` (or no `--bench`, as `cargo test` calls it): the claim at 8 CPUs; fails if it does not hold. What is
//!   asked beyond it and not reached is told as missed;
//! - `--plots DIR`: writes pictures there; `--seed N`: another interleaving; `--cpus 1,64`: other sizes;
//! - `--line 128`: lines of 128 bytes, as if the adjacent-line prefetcher always took both.

// The library's own lints hold in the library; what is not used here is used there.
#![allow(dead_code, unused_imports, unreachable_pub, missing_docs, missing_debug_implementations)]

mod cpus;
mod epoch;
mod mesi;
mod report;
mod rivals;
mod sites;
mod wait;
mod workloads;

#[path = "../support/chart.rs"]
mod chart;
#[path = "../support/figures.rs"]
mod figures;
#[path = "../support/machine.rs"]
mod machine;
#[path = "../support/pattern.rs"]
mod pattern;
#[path = "../support/stripes.rs"]
mod stripes;

#[path = "../../src/facts/mod.rs"]
mod facts;
mod platform;
#[path = "../../src/protocol/mod.rs"]
mod protocol;
mod surface;
#[path = "../../src/tree/mod.rs"]
mod tree;
mod watching;

// `reclaim` names the crate `crossbeam_epoch`: here that is this crate, with the stand-in.
extern crate self as crossbeam_epoch;
pub(crate) use epoch::{Collector, Guard, LocalHandle};
pub(crate) use facts::error::{AcquireError, Deadlock, OwnerName, Wait};
pub(crate) use facts::mode::Mode;
pub(crate) use facts::owner::{Owner, OwnerId, Recursion};
pub(crate) use facts::range::ByteRange;
pub(crate) use surface::lock::RangeLock;

use clap::Parser;
use cpus::{Setup, Tally};
use indicatif::{ProgressBar, ProgressStyle};
use pattern::Pattern;
use rivals::{Contender, Kind};
use sites::{Atlas, Site};
use std::path::PathBuf;
use std::process::ExitCode;
use workloads::Workload;

/// Pairs of each CPU in the phases: the last one is what counts, the others warm up.
const PHASES: [usize; 7] = [128, 128, 256, 512, 1024, 2048, 2048];
/// The same for rivals, which have nothing to learn, and for workloads in which all meet.
const SHORT_PHASES: [usize; 2] = [64, 128];
/// The same for CPUs that have no home, with the 1000th pair at the beginning of a phase: up to the 100,000th.
const ROAMING_PHASES: [usize; 9] = [128, 128, 244, 500, 1000, 6000, 2000, 88_000, 2000];
/// So many of them end with the 10,000th: for a test, and where CPUs are many. (What grows by what was touched goes by
/// the pairs of all together.)
const SHORT_ROAMING: usize = 7;
const FEW_CPUS: usize = 8;
/// The same for rivals, whose words lie far apart.
const ROAMING_RIVALS_PHASES: [usize; 2] = [1024, 1024];
/// The phase that begins with the 1000th pair.
const THOUSANDTH: usize = 4;
/// Interleavings in a test.
const TEST_SEEDS: [u64; 3] = [1, 2, 3];
/// The same where CPUs have no home: what an interleaving brings by chance is as much as what is asked for.
const ROAMING_TEST_SEEDS: [u64; 5] = [1, 2, 3, 4, 5];
/// CPUs in a test.
const TEST_CPUS: usize = 8;
/// The phase in which the tree has grown, and hardly a thread's turn to tidy up has come.
const GROWN: usize = 2;
/// Transfers of the lock's lines per pair that tidying up may cost: a thread moves the pruner's hand once in 1024
/// acquires, reads a leaf of somebody else there, and takes a chance from it. That is some eight transfers, and more if
/// several threads do it at once. Two CPUs that stay on one node cost more than ten times as much.
const TIDYING: f64 = 0.05;

#[derive(Parser)]
#[command(about = "Counts how a lock's cache lines wander between simulated CPUs")]
struct Options {
    /// Only the workloads whose name contains this.
    #[arg(default_value = "")]
    filter: String,
    /// Numbers of CPUs, 1 to 64.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16, 32, 64], value_parser = clap::value_parser!(u64).range(1..=64))]
    cpus: Vec<u64>,
    /// The interleaving.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Bytes that move together, 64 or 128.
    #[arg(long, default_value_t = 64, value_parser = line_size)]
    line: usize,
    /// Where to write pictures (SVG).
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Checks the claim at 8 CPUs, and no more.
    #[arg(long)]
    test: bool,
    /// Given by `cargo bench -p spanlock-bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn line_size(text: &str) -> Result<usize, String> {
    match text {
        "64" => Ok(64),
        "128" => Ok(128),
        _ => Err("a line is 64 or 128 bytes".to_string()),
    }
}

/// One simulation: who, what, on how many CPUs; and what was counted, phase by phase.
struct Run {
    kind: Kind,
    workload: Workload,
    cpus: usize,
    tallies: Vec<Tally>,
    /// On the heap at the end.
    nodes: Option<usize>,
}

impl Run {
    fn new(kind: Kind, workload: Workload, setup: Setup) -> Run {
        let learns = matches!(kind, Kind::Spanlock | Kind::Private);
        let phases: &[usize] = match workload {
            Workload::Roaming(_) if !learns => &ROAMING_RIVALS_PHASES,
            Workload::Roaming(_) if setup.cpus <= FEW_CPUS => &ROAMING_PHASES,
            Workload::Roaming(_) => &ROAMING_PHASES[..SHORT_ROAMING],
            _ if learns && workload != Workload::Hot => &PHASES,
            _ => &SHORT_PHASES,
        };
        Run::of(kind, workload, setup, phases)
    }

    fn of(kind: Kind, workload: Workload, setup: Setup, phases: &[usize]) -> Run {
        let cpus = setup.cpus;
        let held = workload.held(cpus);
        let lock = kind.make(cpus, held.len() + cpus, workload.bytes(cpus));
        held.iter().for_each(|&(cpu, ask)| lock.hold(cpu, ask));
        let asks = workload.asks(cpus);
        let tallies = cpus::run(setup, atlas_for(&*lock, cpus), phases, &|cpu, number| {
            lock.pair(cpu, asks.next(cpu, number), &cpus::pass_time);
        });
        let nodes = lock.nodes();
        drop(lock);
        epoch::end();
        Run { kind, workload, cpus, tallies, nodes }
    }

    /// After warm-up.
    fn settled(&self) -> &Tally {
        self.tallies.last().expect("there is a phase")
    }

    /// Transfers per pair after warm-up, of the lines of the lock itself.
    fn transfers(&self) -> f64 {
        per_pair(self.settled(), |site| !site.is_epoch())
    }

    /// The same from the 1000th pair on.
    fn transfers_at_the_thousandth(&self) -> f64 {
        per_pair(&self.tallies[THOUSANDTH], |site| !site.is_epoch())
    }

    /// What is asked of this lock where CPUs have no home, and whether it is reached, in the mean of `runs` that differ
    /// in their interleaving only. Of others, and elsewhere, nothing is.
    fn asked(runs: &[Run]) -> Vec<(String, bool)> {
        /// A deviation that is the interleaving's.
        const NOISE: f64 = 0.1;
        let Run { kind, workload, cpus, ref tallies, .. } = runs[0];
        let (Kind::Spanlock, Workload::Roaming(pattern)) = (kind, workload) else { return Vec::new() };
        let name = format!("{}, {cpus} CPUs", workload.name());
        let mean = |of: &dyn Fn(&Run) -> f64| runs.iter().map(of).sum::<f64>() / runs.len() as f64;
        let (now, before) = (mean(&Run::transfers), mean(&Run::transfers_at_the_thousandth));
        let mut asked = Vec::new();
        let most = match pattern {
            Pattern::Scattered { .. } if cpus > 2 => Some(3.0),
            // Two seldom meet on pages of one class; segment locks, with eight words on a line, have 1.6.
            Pattern::Tail if cpus <= 2 => Some(1.0),
            Pattern::Tail => Some(3.0),
            Pattern::Scattered { .. } => Some(2.5),
            _ => None,
        };
        if let Some(most) = most {
            asked.push((format!("{name}: {now:.2} transfers per pair, at most {most}"), now <= most));
        }
        let pairs: usize = tallies.iter().map(|tally| tally.pairs as usize / cpus).sum();
        asked.push((
            format!(
                "{name}: {before:.2} transfers at the 1000th pair, no more at the {pairs}th, where they are {now:.2}"
            ),
            now <= before * (1.0 + NOISE) + NOISE,
        ));
        // The last cells get their nodes late: who asks everywhere comes by seldom.
        let made = mean(&|run| run.settled().nodes_made_in_1000());
        let most = if pairs < 100_000 { 1.0 } else { 0.1 };
        asked.push((format!("{name}: {made:.2} nodes made in 1000 pairs there, at most {most}"), made <= most));
        let (nodes, most) = (runs.iter().filter_map(|run| run.nodes).max().unwrap_or(0), 16 * cpus);
        asked.push((format!("{name}: {nodes} nodes on the heap at the end, at most {most}"), nodes <= most));
        asked
    }
}

/// Transfers per pair of some lines.
fn per_pair(tally: &Tally, counted: impl Fn(Site) -> bool) -> f64 {
    tally.sum(counted).transfers as f64 / tally.pairs as f64
}

fn atlas_for(lock: &dyn Contender, cpus: usize) -> Atlas {
    let mut atlas = Atlas::default();
    lock.addresses().into_iter().for_each(|address| atlas.lock(address));
    epoch::begin(cpus, &mut atlas);
    atlas
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.test || !options.bench { test() } else { bench(&options) }
}

/// What [`test`] expects, line by line.
#[derive(Default)]
struct Checks {
    failed: usize,
}

impl Checks {
    fn expect(&mut self, holds: bool, what: &str) {
        println!("{} {what}", if holds { "ok    " } else { "FAILED" });
        self.failed += usize::from(!holds);
    }

    /// That this lock finds its shape in a workload in which nobody meets.
    fn settles(&mut self, workload: Workload, setup: Setup) {
        let Setup { cpus, seed, .. } = setup;
        let run = Run::new(Kind::Spanlock, workload, setup);
        let of_phase = |phase: usize| per_pair(&run.tallies[phase], |site| !site.is_epoch());
        let (first, grown, settled) = (of_phase(0), of_phase(GROWN), run.transfers());
        let name = format!("{}, {cpus} CPUs, seed {seed}", workload.name());
        if workload != Workload::Crowd {
            self.expect(first > 1.0, &format!("{name}: {first:.2} transfers per pair at first, more than 1"));
            self.expect(grown <= TIDYING, &format!("{name}: {grown:.4} once it has grown, at most {TIDYING}"));
        }
        self.expect(settled <= TIDYING, &format!("{name}: {settled:.4} from then on, at most {TIDYING}"));
    }

    /// What is asked where nobody has a home.
    fn roams(&mut self, workload: Workload, cpus: usize) {
        let run =
            |seed| Run::of(Kind::Spanlock, workload, Setup { cpus, seed, line: 64 }, &ROAMING_PHASES[..SHORT_ROAMING]);
        let runs: Vec<Run> = ROAMING_TEST_SEEDS.into_iter().map(run).collect();
        for (what, holds) in Run::asked(&runs) {
            self.expect(holds, &what);
        }
    }

    /// That a lock for the whole file does not.
    fn pays(&mut self, kind: Kind, setup: Setup) {
        let transfers = Run::new(kind, Workload::Disjoint, setup).transfers();
        let what = format!("{}, seed {}: {transfers:.2} transfers per pair, at least 1", kind.name(), setup.seed);
        self.expect(transfers >= 1.0, &what);
    }
}

/// The claim, small.
fn test() -> ExitCode {
    for kind in Kind::ALL.into_iter().filter(|&kind| Workload::Hot.suits(kind)) {
        rivals::check_exclusion(kind, TEST_CPUS);
    }
    let mut checks = Checks::default();
    for seed in TEST_SEEDS {
        let setup = Setup { cpus: TEST_CPUS, seed, line: 64 };
        for workload in Workload::ALL.into_iter().filter(|workload| workload.is_private()) {
            checks.settles(workload, setup);
        }
        checks.pays(Kind::ReaderWriter, setup);
        checks.pays(Kind::TwoState, setup);
    }
    for workload in Workload::ALL.into_iter().filter(|workload| matches!(workload, Workload::Roaming(_))) {
        for cpus in [2, TEST_CPUS] {
            checks.roams(workload, cpus);
        }
    }
    if checks.failed > 0 {
        eprintln!(
            "{} checks failed: the tree's shape does not follow contention, or the simulation is wrong",
            checks.failed
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn bench(options: &Options) -> ExitCode {
    let workloads: Vec<Workload> =
        Workload::ALL.into_iter().filter(|workload| workload.name().contains(&options.filter)).collect();
    if workloads.is_empty() {
        let known: Vec<String> = Workload::ALL.iter().map(|workload| workload.name()).collect();
        eprintln!("no workload's name contains {:?}; there are {}", options.filter, known.join(", "));
        return ExitCode::FAILURE;
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").expect("the template is well-formed");
    for workload in workloads {
        let kinds = Kind::ALL.into_iter().filter(|&kind| workload.suits(kind));
        let cases: Vec<_> =
            kinds.flat_map(|kind| options.cpus.iter().map(move |&cpus| (kind, cpus as usize))).collect();
        let progress = ProgressBar::new(cases.len() as u64).with_style(style.clone());
        let simulate = |(kind, cpus): (Kind, usize)| {
            progress.set_message(format!("{}, {}, {cpus} CPUs", workload.name(), kind.name()));
            let run = Run::new(kind, workload, Setup { cpus, seed: options.seed, line: options.line });
            progress.inc(1);
            run
        };
        let runs: Vec<Run> = cases.into_iter().map(simulate).collect();
        progress.finish_and_clear();
        report::print(workload, &runs);
        if let Some(folder) = &options.plots {
            if let Err(error) = report::plot(folder, workload, &runs) {
                eprintln!("cannot write a plot into {}: {error}", folder.display());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
