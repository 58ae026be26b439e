//! Several handles of one redb database commit at once: with the ranges of its file locked by spanlock, in order of
//! arrival or with a window, and by the kernel, as redb's own storage does it. Beside them the same number of threads
//! that share one handle, which needs no locks on ranges.
//!
//! ```text
//! cargo run --release -p spanlock-redb --example redb_multi_writer
//! cargo run --release -p spanlock-redb --example redb_multi_writer -- --help
//! ```
//!
//! In turns, each with a new file: spanlock, with a window, kernel, one handle, spanlock, ... Each handle has a thread,
//! which commits as fast as it can: it adds one to what all handles share, and inserts a row that says what it was. So
//! who builds on anything but the last commit is found afterwards.
//!
//! Exit codes: 0 nothing was lost; 1 something was, or a file is damaged; 2 it could not run.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use redb::backends::FileBackend;
use redb::{ConcurrencyMode, Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use spanlock_redb::SpanlockBackend;

const COUNTERS: TableDefinition<&str, u64> = TableDefinition::new("counters");
const ROWS: TableDefinition<(u64, u64), u64> = TableDefinition::new("rows");
/// How often the bar moves.
const TICK: Duration = Duration::from_millis(100);

/// Several handles of one redb database commit at once, with each kind of locks on ranges of its file in turns
#[derive(Debug, Parser)]
#[command(name = "redb_multi_writer")]
struct Options {
    /// How many handles, each with a thread
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    handles: u16,
    /// How often each kind of locks has its turn
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// How long a turn is
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// How long somebody who waits is passed by whoever finds the file free, in the second kind
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 10)]
    window: u64,
    /// Where the files are; they are gone afterwards [default: the folder for temporary files]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

impl Options {
    fn window(&self) -> Duration {
        Duration::from_millis(self.window)
    }
}

/// Who locks the ranges of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Locks {
    /// In order of arrival.
    Spanlock,
    /// With a window.
    Window,
    /// redb's own storage.
    Kernel,
    /// Nobody: all threads share one handle.
    OneHandle,
}

impl Locks {
    const ALL: [Locks; 4] = [Locks::Spanlock, Locks::Window, Locks::Kernel, Locks::OneHandle];

    fn name(self) -> &'static str {
        match self {
            Locks::Spanlock => "spanlock",
            Locks::Window => "with a window",
            Locks::Kernel => "kernel (redb)",
            Locks::OneHandle => "one handle",
        }
    }

    fn open(self, path: &Path, window: Duration) -> Result<Database, DatabaseError> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut builder = redb::Builder::new();
        builder.set_concurrency_mode(ConcurrencyMode::MultiWriter);
        match self {
            Locks::Spanlock => builder.create_with_backend(SpanlockBackend::new(file)?),
            Locks::Window => builder.create_with_backend(SpanlockBackend::with_window(file, window)?),
            Locks::Kernel => builder.create_with_backend(FileBackend::new(file)?),
            Locks::OneHandle => {
                builder.set_concurrency_mode(ConcurrencyMode::ExclusiveWriter);
                builder.create_with_backend(FileBackend::new(file)?)
            }
        }
    }
}

/// What a turn came to.
#[derive(Debug)]
struct Turn {
    time: Duration,
    /// Of each handle.
    commits: Vec<u64>,
    /// Microseconds from asking for a write transaction to having it.
    waits: Histogram<u64>,
}

impl Turn {
    fn total(&self) -> u64 {
        self.commits.iter().sum()
    }

    fn per_second(&self) -> f64 {
        self.total() as f64 / self.time.as_secs_f64()
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let folder = options.folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::tempdir_in(&folder)
        .map_err(|error| format!("no folder can be made in {}: {error}", folder.display()))?;
    let turns = u64::from(options.rounds) * Locks::ALL.len() as u64;
    let style = ProgressStyle::with_template("{bar:30} {msg}, {eta} to go")?;
    let bar = ProgressBar::new(turns * options.seconds * 10).with_style(style);
    let mut played = Locks::ALL.map(|_| Vec::new());
    for round in 0..options.rounds {
        for (locks, turns) in Locks::ALL.into_iter().zip(&mut played) {
            bar.set_message(locks.name());
            let path = folder.path().join(format!("{round}-{locks:?}"));
            let turn = play(locks, &path, options, &bar)?;
            if let Err(what) = check(locks, &path, turn.total()) {
                bar.finish_and_clear();
                println!("WRONG: under the locks of {}: {what}", locks.name());
                return Ok(false);
            }
            turns.push(turn);
        }
    }
    bar.finish_and_clear();
    println!("{}", table(&played));
    let all: u64 = played.iter().flatten().map(Turn::total).sum();
    println!(
        "ok: {all} commits of {} threads, each built on the one before it; all {turns} files are whole.",
        options.handles
    );
    println!(
        "Medians of {} turns of {} s each, in turns; waits for a write transaction.",
        options.rounds, options.seconds
    );
    Ok(true)
}

/// Lets all handles commit for as long as a turn is.
fn play(locks: Locks, path: &Path, options: &Options, bar: &ProgressBar) -> Result<Turn, Box<dyn Error>> {
    let handles = if locks == Locks::OneHandle { 1 } else { options.handles };
    let handles = (0..handles).map(|_| locks.open(path, options.window())).collect::<Result<Vec<_>, _>>()?;
    let (stop, start) = (AtomicBool::new(false), Barrier::new(usize::from(options.handles) + 1));
    let results = thread::scope(|scope| {
        let workers: Vec<_> = (0..options.handles.into())
            .zip(handles.iter().cycle())
            .map(|(number, database)| {
                let (stop, start) = (&stop, &start);
                scope.spawn(move || {
                    start.wait();
                    work(database, number, stop).map_err(|error| error.to_string())
                })
            })
            .collect();
        start.wait();
        for _ in 0..options.seconds * 10 {
            thread::sleep(TICK);
            bar.inc(1);
        }
        // Relaxed: it orders nothing.
        stop.store(true, Ordering::Relaxed);
        workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect::<Result<Vec<_>, _>>()
    })?;
    // From the first one's beginning to the last one's end, by their own clocks.
    let began = results.iter().map(|(_, _, began, _)| *began).min().expect("one handle at least");
    let ended = results.iter().map(|(.., ended)| *ended).max().expect("one handle at least");
    let mut waits = histogram();
    let mut commits = Vec::new();
    for (count, times, ..) in results {
        waits += times;
        commits.push(count);
    }
    Ok(Turn { time: ended - began, commits, waits })
}

type Worked = (u64, Histogram<u64>, Instant, Instant);

fn work(database: &Database, handle: u64, stop: &AtomicBool) -> Result<Worked, redb::Error> {
    let (began, mut waits, mut number) = (Instant::now(), histogram(), 0);
    while !stop.load(Ordering::Relaxed) {
        let since = Instant::now();
        let write = database.begin_write()?;
        waits += u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        let total = {
            let mut counters = write.open_table(COUNTERS)?;
            let total = counters.get("total")?.map_or(0, |total| total.value()) + 1;
            counters.insert("total", total)?;
            total
        };
        write.open_table(ROWS)?.insert((handle, number), total)?;
        write.commit()?;
        number += 1;
    }
    Ok((number, waits, began, Instant::now()))
}

fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("a number of digits that it takes")
}

/// Whether the file is whole and has all commits, each built on the one before it.
fn check(locks: Locks, path: &Path, commits: u64) -> Result<(), String> {
    let say = |error: &dyn Error| format!("the file cannot be read: {error}");
    let mut database = locks.open(path, Duration::ZERO).map_err(|error| say(&error))?;
    match database.check_integrity() {
        Ok(true) => {}
        Ok(false) => return Err("the file was damaged".to_owned()),
        Err(error) => return Err(say(&error)),
    }
    let read = database.begin_read().map_err(|error| say(&error))?;
    let rows = read.open_table(ROWS).map_err(|error| say(&error))?;
    let totals = rows.iter().and_then(|rows| rows.map(|row| row.map(|(_, total)| total.value())).collect());
    let mut totals: Vec<u64> = totals.map_err(|error| say(&error))?;
    totals.sort_unstable();
    match totals.iter().copied().eq(1..=commits) {
        true => Ok(()),
        false => Err(format!("{commits} commits were made, and are not the {} rows that are there", totals.len())),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// In 80 columns.
fn table(played: &[Vec<Turn>; Locks::ALL.len()]) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')));
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["locks", "commits/s", "wait, 50 %", "99 %", "longest", "thread's share"]);
    for (locks, turns) in Locks::ALL.into_iter().zip(played) {
        let micros = |of: &dyn Fn(&Turn) -> u64| median(turns.iter().map(|turn| of(turn) as f64).collect());
        let share = |count: u64, turn: &Turn| 100.0 * count as f64 / turn.total().max(1) as f64;
        let most = |turn: &Turn| share(turn.commits.iter().copied().max().unwrap_or(0), turn);
        let least = |turn: &Turn| share(turn.commits.iter().copied().min().unwrap_or(0), turn);
        let (least, most) = (median(turns.iter().map(least).collect()), median(turns.iter().map(most).collect()));
        table.add_row([
            locks.name().to_owned(),
            format!("{:.0}", median(turns.iter().map(Turn::per_second).collect())),
            time(micros(&|turn| turn.waits.value_at_quantile(0.5))),
            time(micros(&|turn| turn.waits.value_at_quantile(0.99))),
            time(turns.iter().map(|turn| turn.waits.max()).max().unwrap_or(0) as f64),
            format!("{least:.0} to {most:.0} %"),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn time(micros: f64) -> String {
    match micros {
        micros if micros < 1e3 => format!("{micros:.0} us"),
        micros if micros < 1e6 => format!("{:.1} ms", micros / 1e3),
        micros => format!("{:.2} s", micros / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn all_that_is_printed_fits_eighty_columns() {
        let turn = || {
            let mut waits = histogram();
            waits += 123_456_789;
            Turn { time: Duration::from_secs(10), commits: vec![1, 999_999, 1], waits }
        };
        let table = table(&Locks::ALL.map(|_| vec![turn()])).to_string();
        assert!(table.contains("123.47 s") && table.contains("0 to 100 %"), "{table}");
        assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    }

    /// A check that passes everything would find nothing lost.
    #[test]
    fn what_is_lost_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("database");
        let stop = AtomicBool::new(false);
        let database = Locks::Spanlock.open(&path, Duration::ZERO).expect("a handle");
        let (commits, ..) = thread::scope(|scope| {
            let working = scope.spawn(|| work(&database, 0, &stop).expect("commits"));
            while database.begin_read().expect("a transaction").open_table(ROWS).is_err() {
                thread::yield_now();
            }
            stop.store(true, Ordering::Relaxed);
            working.join().expect("it ends")
        });
        drop(database);
        assert_eq!(check(Locks::Spanlock, &path, commits), Ok(()));
        assert!(check(Locks::Spanlock, &path, commits + 1).is_err());
        let database = Locks::Kernel.open(&path, Duration::ZERO).expect("a handle");
        let write = database.begin_write().expect("a transaction");
        write.open_table(ROWS).expect("there").insert((0, 0), 77).expect("writable");
        write.commit().expect("committed");
        drop(database);
        assert!(check(Locks::Spanlock, &path, commits).is_err());
    }
}
