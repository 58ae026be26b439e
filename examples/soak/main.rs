//! Everything that the library can do, at random and all at once, for as long as you like:
//!
//! ```console
//! $ cargo run --release --example soak -- --minutes 60
//! ```
//!
//! In one lock more some are poisoned, and some drain (`stuck.rs`). Threads and tasks wait, try, give up, nest,
//! convert, take batches and crowds, on locks of different temper and on a table. A shadow of each lock says if two are
//! inside that do not go together (`shadow.rs`). Every few seconds all of them let go of everything, the threads end,
//! and others begin: then each lock must be free, and after `trim()` no bigger than when it was new, and the memory of
//! the whole program back where it was (`world.rs`). A watchdog says who hangs (`watch.rs`).
//!
//! The exit code is 1 if anything was wrong.

mod actors;
#[path = "../../tests/common/alloc.rs"]
#[allow(dead_code)]
mod alloc;
#[path = "../../benches/support/figures.rs"]
mod figures;
mod shadow;
mod stuck;
mod watch;
mod world;

use actors::{KINDS, Tally};
use alloc::{Counting, bytes};
use clap::Parser;
use comfy_table::Table;
use indicatif::{ProgressBar, ProgressStyle};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use watch::IDLE;
use world::World;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Rounds before the memory is compared: threads, the epoch and the allocator find their size.
const WARM_UP: u64 = 5;

/// Bytes that a calm may lie above the warm one: what the epoch has not freed yet, and what the runtime keeps. A leak
/// of one node in each round is beyond it after some minutes.
const SLACK: isize = 256 << 10;

/// Does everything at random, and looks for what must not be.
#[derive(Debug, Parser)]
struct Options {
    /// Minutes to go on.
    #[arg(long, default_value_t = 1, conflicts_with = "seconds")]
    minutes: u64,
    /// Seconds to go on.
    #[arg(long)]
    seconds: Option<u64>,
    /// Threads, beside the tasks.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    threads: u16,
    /// Tasks on two workers.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(0..=10_000))]
    tasks: u16,
    /// Milliseconds of a round.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    round: u64,
    /// Seconds without a step that are a hang.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    patience: u64,
    /// Where the random numbers begin. (Threads decide the rest: a seed does not bring a run back.)
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What was done, and how the memory went.
#[derive(Debug, Default)]
struct Story {
    tally: Tally,
    by_tasks: u64,
    rounds: u64,
    /// After each calm since the warm-up: bytes on the heap.
    first: isize,
    most: isize,
    last: isize,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let time = Duration::from_secs(options.seconds.unwrap_or(60 * options.minutes));
    let workers = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
    let runtime = match workers {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime for the tasks: {error}");
            return ExitCode::FAILURE;
        }
    };
    let world = Arc::new(World::new(usize::from(options.threads) + usize::from(options.tasks)));
    world.steps.iter().for_each(|steps| steps.store(IDLE, Ordering::Relaxed));
    let done = AtomicBool::new(false);
    let mut story = Story::default();
    let outcome = thread::scope(|scope| {
        let dog = scope.spawn(|| watch::watch(&world, Duration::from_secs(options.patience), &done));
        let outcome = soak(&options, time, &world, &runtime, &mut story);
        done.store(true, Ordering::Release);
        dog.thread().unpark();
        outcome
    });
    println!("{}", table(&story));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("FAILED after {} rounds: {what}", story.rounds);
            ExitCode::FAILURE
        }
    }
}

fn soak(
    options: &Options,
    time: Duration,
    world: &Arc<World>,
    runtime: &Runtime,
    story: &mut Story,
) -> Result<(), String> {
    let start = Instant::now();
    let bar = ProgressBar::new(time.as_secs());
    let style = ProgressStyle::with_template("{bar:30} {elapsed_precise} of {len} s, {msg}");
    bar.set_style(style.map_err(|error| error.to_string())?);
    while start.elapsed() < time {
        let seed = options.seed.wrapping_add(story.rounds << 32);
        round(options, seed, world, runtime, story)?;
        if let Some(what) = world.failure() {
            return Err(what);
        }
        world.check_calm()?;
        story.rounds += 1;
        check_memory(world, story)?;
        let operations = story.tally.sum() + story.by_tasks;
        bar.set_position(start.elapsed().as_secs());
        bar.set_message(format!("{operations} operations, {} KiB", story.last >> 10));
    }
    bar.finish_and_clear();
    Ok(())
}

/// Everybody at work, until the time is over.
fn round(options: &Options, seed: u64, world: &Arc<World>, runtime: &Runtime, story: &mut Story) -> Result<(), String> {
    world.over.store(false, Ordering::Relaxed);
    world.steps.iter().for_each(|steps| steps.store(0, Ordering::Relaxed));
    let threads = usize::from(options.threads);
    let tasks: Vec<_> = (threads..world.steps.len())
        .map(|actor| runtime.spawn(actors::task(Arc::clone(world), actor, seed + actor as u64)))
        .collect();
    thread::scope(|scope| {
        let work = |actor: usize| scope.spawn(move || actors::act(world, actor, seed + actor as u64));
        let threads: Vec<_> = (0..threads).map(work).collect();
        let end = Instant::now() + Duration::from_millis(options.round);
        // A failure ends the round.
        while !world.is_over() && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
        world.over.store(true, Ordering::Relaxed);
        for (actor, thread) in threads.into_iter().enumerate() {
            let tally = thread.join().map_err(|_| "a thread panicked: its message stands above".to_owned())?;
            world.steps[actor].store(IDLE, Ordering::Relaxed);
            story.tally.add(&tally);
        }
        for (index, task) in tasks.into_iter().enumerate() {
            let count = runtime.block_on(task).map_err(|error| format!("a task panicked: {error}"))?;
            world.steps[usize::from(options.threads) + index].store(IDLE, Ordering::Relaxed);
            story.by_tasks += count;
        }
        Ok(())
    })
}

/// That what was allocated for a round is gone. The epoch frees late, when somebody comes by: so this comes by.
fn check_memory(world: &World, story: &mut Story) -> Result<(), String> {
    let limit = if story.rounds <= WARM_UP { isize::MAX } else { story.first + SLACK };
    let mut now = bytes();
    for _ in 0..1000 {
        if now <= limit && story.rounds != WARM_UP {
            break;
        }
        // Grows and trims: each of that moves the epoch on.
        let lock = &world.places[3].lock;
        drop(
            (0..64_u64)
                .map(|page| lock.request_arc(page << 20..(page << 20) + 1, spanlock::Mode::Add).wait())
                .collect::<Vec<_>>(),
        );
        lock.trim();
        now = bytes();
    }
    (story.last, story.most) = (now, story.most.max(now));
    if story.rounds == WARM_UP {
        (story.first, story.most) = (now, now);
    }
    if now > limit {
        return Err(format!(
            "{now} bytes are allocated after round {}, and after round {WARM_UP} it were {}: something leaks",
            story.rounds, story.first
        ));
    }
    Ok(())
}

fn table(story: &Story) -> Table {
    let tally = &story.tally;
    let mut table = figures::table(["what was done", "how often"]);
    let mut say = |what: &str, figure: String| _ = table.add_row([what.to_owned(), figure]);
    KINDS.iter().zip(tally.counts).for_each(|((name, ..), count)| say(name, count.to_string()));
    say("pairs of tasks", story.by_tasks.to_string());
    say("all operations", (tally.sum() + story.by_tasks).to_string());
    say("answers: deadlock", tally.deadlocks.to_string());
    say("answers: timed out", tally.timed_out.to_string());
    say("answers: not now", tally.refused.to_string());
    say("answers: somebody is stuck", tally.stuck.to_string());
    say("futures dropped while they waited", tally.cancelled.to_string());
    say("rounds, each with a calm", story.rounds.to_string());
    let memory = [story.first, story.most, story.last].map(|bytes| (bytes >> 10).to_string());
    say("KiB in a calm: warm, most, last", memory.join(" / "));
    figures::align_right(table, 1..2)
}
