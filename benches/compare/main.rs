//! spanlock beside its rivals in one run: `cargo bench -p spanlock-bench --bench compare`.
//!
//! The contenders of a contest take turns, A B C A B C, each for a few milliseconds, on threads that stay; the first
//! rounds do not count. What is told is the median of the rounds, and of each round's ratio to spanlock, with the
//! interval that holds the true median in 95 of 100 cases. With `--features stats` a column tells how many newcomers
//! went before others who waited, in locks with a window; counting costs something, so take times without. A star marks
//! a lock that takes exclusively what others share. At the end stands what was asked of this lock, and what came of it.
//!
//! Threads that have no home (`support/roaming.rs`) have the most contests: each pattern with sections of 0, 200 ns and
//! 1 us, on threads that are free and on bound ones; and a minute of random pages (`series`), in which it shows whether
//! the lock stays what it is. With these all takes half an hour; a word in front, `--threads` and `--rounds` make it
//! short.
//!
//! `-- --help` lists the options. `docs/benchmarks.md` has the figures of a machine; `--report ../docs` writes them
//! there.

mod contests;
#[path = "../peers/mod.rs"]
mod peers;
mod report;
mod results;
#[path = "../support/roaming.rs"]
mod roaming;
mod series;
#[path = "../support/mod.rs"]
mod support;
mod targets;

use clap::Parser;
use contests::{Contest, Kind};
use indicatif::{ProgressBar, ProgressStyle};
use results::{Outcome, Results};
use serde_json::{Value, json};
use series::Series;
use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use support::machine;
use support::turns::{self, Effort};

/// Puts spanlock beside its rivals.
#[derive(Parser)]
struct Options {
    /// Only the contests whose name contains this.
    #[arg(default_value = "")]
    filter: String,
    /// Numbers of threads.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16], value_parser = peers::parse_threads)]
    threads: Vec<usize>,
    /// Rounds that count, and a tenth as many before them. (Some contests have fewer.)
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Milliseconds of a turn. (Some contests stretch it.)
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    turn: u64,
    /// Writes all rounds of all contests there.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes pictures (SVG) there.
    #[arg(long, value_name = "FOLDER")]
    plots: Option<PathBuf>,
    /// Writes the figures into this folder's `benchmarks.md`, and the pictures into `benchmarks` in it.
    #[arg(long, value_name = "FOLDER")]
    report: Option<PathBuf>,
    /// Everything once, for a moment. (So does a call without `--bench`, which `cargo bench -p spanlock-bench` adds.)
    #[arg(long)]
    test: bool,
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match measure(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<(), Box<dyn Error>> {
    let testing = options.test || !options.bench;
    let contests: Vec<Contest> = contests::all(&options.threads, testing)
        .into_iter()
        .filter(|contest| contest.name().contains(&options.filter))
        .collect();
    let series: Vec<_> =
        Series::patterns().filter(|&pattern| Series::name(pattern).contains(&options.filter)).collect();
    if contests.is_empty() && series.is_empty() {
        let known: Vec<String> = contests::all(&[2], testing).iter().map(Contest::name).collect();
        return Err(format!("no contest's name contains {:?}; there are: {}", options.filter, known.join("; ")).into());
    }
    let machine = made_on(options);
    if !testing {
        warn_if_busy();
    }
    let mut results = Results { testing, ..Results::default() };
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}, {elapsed}")?;
    for (number, contest) in contests.iter().enumerate() {
        let effort = effort(options, testing, contest);
        let contenders = contests::contenders(contest);
        let bar = ProgressBar::new((contenders.len() * (effort.rounds + effort.warm_up)) as u64);
        let bar = bar.with_style(style.clone());
        bar.set_message(format!("{} ({} of {})", contest.name(), number + 1, contests.len()));
        let rows = turns::run(contest.threads, contest.placement, &contenders, effort, |_| bar.inc(1));
        bar.finish_and_clear();
        results.outcomes.push(Outcome { rows, contest: Contest { ..*contest } });
        println!("{}\n", report::contest(results.outcomes.last().expect("one was pushed")));
    }
    for pattern in series {
        let effort = Series::effort(testing);
        let bar = ProgressBar::new(2 * effort.rounds as u64).with_style(style.clone());
        bar.set_message(Series::name(pattern));
        results.series.push(Series::run(pattern, effort, || bar.inc(1)));
        bar.finish_and_clear();
        println!("{}\n", report::series(results.series.last().expect("one was pushed")));
    }
    println!("{}", report::targets(&results));
    if let Some(path) = &options.json {
        report::json(path, &results, &machine)?;
    }
    if let Some(folder) = &options.plots {
        report::pictures(folder, &results)?;
        report::pictures_of_series(folder, &results)?;
    }
    if let Some(folder) = &options.report {
        report::page(folder, &results, &machine)?;
    }
    Ok(())
}

fn effort(options: &Options, testing: bool, contest: &Contest) -> Effort {
    if testing {
        return Effort::TEST;
    }
    let rounds = (options.rounds as usize).div_ceil(contest.fewer);
    let turn = Duration::from_millis(options.turn) * contest.stretch;
    let effort = Effort { rounds, warm_up: rounds.div_ceil(10), turn };
    match contest.kind {
        // Whose longest wait is told: it is not above a turn, and Jain's index is of those who had one.
        Kind::Roaming(_) | Kind::ArrayRandom(_) | Kind::ArrayFull(_) => roaming::effort(contest.threads, effort),
        _ => effort,
    }
}

/// What the figures belong to.
fn made_on(options: &Options) -> Value {
    json!({
        "cpus": machine::cpus(),
        "model": machine::model(),
        "day": machine::today(),
        "rounds": options.rounds,
        "turn": format!("{} ms", options.turn),
    })
}

/// Other programs' work is in every figure.
fn warn_if_busy() {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0);
    if load > 0.5 {
        eprintln!("The machine is busy: its load over the last minute was {load}. Figures taken now mislead.");
    }
}
