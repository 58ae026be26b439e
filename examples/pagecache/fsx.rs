//! `pagecache fsx ..` and `pagecache stress ..`: the command lines, progress, and what is said at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use fastrand::Rng;
use indicatif::{ProgressBar, ProgressStyle};
use spanlock_pagecache::device::Place;
use spanlock_pagecache::file_lock::Variant;
use spanlock_pagecache::fsx::actor::Effect;
use spanlock_pagecache::fsx::exercise::{self, MOST, Setting};
use spanlock_pagecache::fsx::{Step, real, together};
use spanlock_pagecache::hooks::Plant;

use crate::COULD_NOT_RUN;

/// Random operations on two cached files, one after the other, each compared with a plain buffer
///
/// What step N writes at byte P of a file is known: of each four bytes, by P mod 4, the lowest byte of N, the next, the
/// third, and P / 512 mod 256. Behind each step of a record stands what it did: where, how many bytes, and how long the
/// file was then. So another program can do the same, and its file be compared with that of --save.
///
/// Exit codes: 0 no difference, 1 a difference was found, 2 it could not run.
#[derive(Debug, Parser)]
#[command(name = "pagecache fsx")]
struct Fsx {
    /// How many operations
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    operations: u32,
    /// Seed of the operations
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Which lock the cache has
    #[arg(long, value_enum, default_value = "range")]
    variant: Variant,
    /// Write the operations to this file, one a line; if one fails, those that it takes
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Write what the files hold at the end to this file, and to the one with .1 behind its name
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Do what this file says, instead of random operations: a record, or a log of the real fsx (--record-ops)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["operations", "seed"])]
    replay: Option<PathBuf>,
    /// Seconds to spend on leaving out what a failure does not need
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    shrink: u64,
    /// A fault to put into the cache, for trying the exerciser out
    #[arg(long, value_enum, hide = true)]
    plant: Option<Plant>,
}

/// Threads with a window each in one cached file, all compared with plain buffers, while one changes the file's shape
/// behind them
///
/// Exit codes: 0 no difference, 1 a difference was found, 2 it could not run.
#[derive(Debug, Parser)]
#[command(name = "pagecache stress")]
struct Stress {
    /// For how long
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    seconds: u64,
    /// Threads with a window each; one more owns the end of the file
    #[arg(long, value_name = "COUNT", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Seed of the operations
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Which lock the cache has
    #[arg(long, value_enum, default_value = "range")]
    variant: Variant,
    /// Microseconds to linger where the races are
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    pause: u64,
}

/// The exerciser that the command line names, if it names one.
pub(crate) fn asked_for() -> Option<fn() -> ExitCode> {
    match std::env::args().nth(1).as_deref() {
        Some("fsx") => Some(|| report(fsx(&Fsx::parse_from(std::env::args().skip(1))))),
        Some("stress") => Some(|| report(stress(&Stress::parse_from(std::env::args().skip(1))))),
        _ => None,
    }
}

fn report(result: Result<bool, String>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(COULD_NOT_RUN)
        }
    }
}

fn place() -> Place {
    let target = Path::new("target");
    Place::Temporary { folder: if target.is_dir() { target.to_owned() } else { std::env::temp_dir() } }
}

fn bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("a template that is tried by every run");
    ProgressBar::new(length).with_style(style)
}

fn fsx(options: &Fsx) -> Result<bool, String> {
    let setting = Setting { variant: options.variant, place: place(), plant: options.plant };
    let steps: Vec<Step> = match &options.replay {
        Some(path) => {
            let text = fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            match real::is_real(&text) {
                true => real::steps(&text)?,
                false => text.lines().filter(|line| !line.is_empty()).map(str::parse).collect::<Result<_, _>>()?,
            }
        }
        None => {
            let mut random = Rng::with_seed(options.seed);
            (0..options.operations).map(|_| Step::random(&mut random, 2, MOST)).collect()
        }
    };
    let bar = bar(steps.len() as u64, "{bar:30} {pos} of {len} operations, {per_sec}, {eta} to go");
    let start = Instant::now();
    let mut log = String::new();
    let tick = |number: u32, step: &Step, effect: Effect| {
        if options.record.is_some() {
            log += &format!("{step} {effect}\n");
        }
        if number % 256 == 0 {
            bar.set_position(u64::from(number));
        }
    };
    let result = exercise::run(&setting, steps.iter().copied(), tick).map_err(|error| error.to_string())?;
    bar.finish_and_clear();
    let failure = match result {
        Ok(done) => {
            let (count, name) = (done.steps, options.variant.name());
            println!("{count} operations under {name}: no difference ({:.1?})", start.elapsed());
            save(options.record.as_deref(), log)?;
            if let Some(path) = &options.save {
                let second = PathBuf::from(format!("{}.1", path.display()));
                for (path, file) in [path, &second].into_iter().zip(&done.files) {
                    save(Some(path), exercise::contents(file).map_err(|error| error.to_string())?)?;
                }
            }
            return Ok(true);
        }
        Err(failure) => failure,
    };
    println!("{failure}");
    let failing = steps[..failure.number as usize].to_vec();
    let bar = ProgressBar::new_spinner();
    let shrunk = exercise::shrink(&setting, failing, Duration::from_secs(options.shrink), |left| {
        bar.set_message(format!("{left} operations left"));
        bar.tick();
    })
    .map_err(|error| error.to_string())?;
    bar.finish_and_clear();
    println!("These {} operations are enough (a file of them can be replayed):", shrunk.len());
    shrunk.iter().for_each(|step| println!("{step}"));
    let text: String = shrunk.iter().map(|step| format!("{step}\n")).collect();
    save(options.record.as_deref(), text).map(|()| false)
}

fn save(to: Option<&Path>, bytes: impl AsRef<[u8]>) -> Result<(), String> {
    let Some(path) = to else { return Ok(()) };
    fs::write(path, bytes).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn stress(options: &Stress) -> Result<bool, String> {
    let load = together::Load {
        variant: options.variant,
        place: place(),
        workers: options.workers.into(),
        time: Duration::from_secs(options.seconds),
        seed: options.seed,
        pause: Duration::from_micros(options.pause),
    };
    let done = AtomicU64::new(0);
    let bar = bar(options.seconds * 10, "{bar:30} {msg} operations, {eta} to go");
    let result = thread::scope(|scope| {
        let running = scope.spawn(|| together::run(&load, &done));
        while !running.is_finished() {
            // For the eyes only: the load ends by itself.
            thread::sleep(Duration::from_millis(100));
            bar.inc(1);
            bar.set_message(done.load(Ordering::Relaxed).to_string());
        }
        running.join().expect("no step panics")
    });
    bar.finish_and_clear();
    match result.map_err(|error| error.to_string())? {
        Ok(count) => {
            println!("{count} operations of {} threads under {}: no difference", load.workers + 1, load.variant.name());
            Ok(true)
        }
        Err((who, failure)) => {
            println!("thread {who} of {}, {failure}", load.workers);
            Ok(false)
        }
    }
}
