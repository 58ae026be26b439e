//! Promise: the whole contract, under real threads. Histories of many threads that ask in every way there is are
//! noted and judged afterwards: exclusion, first come first served, nothing refused or delayed without a reason,
//! nobody left asleep.
//!
//! `exclusion.rs` looks at who is inside, and `fifo.rs` at orders that were arranged; neither would notice a request
//! that overtakes in the heat, or one that waits for nothing. Here each thread notes stamps before and behind its
//! calls (`players.rs`), and when all are done a judge compares every two requests that met (`judge.rs`, where each
//! rule is derived from the contract). Threads play in rounds with a new lock each (`round.rs`).
//!
//! Not judged is how late a *thread* is that was woken in a blocking call: nobody knows how long the system took. If it
//! is not woken at all, the round is stuck, and its watch says so. And what only a store buffer breaks (a missing fence
//! behind the publication) is not found: the clock orders too much. That is for the models.
//!
//! `SPANLOCK_STRESS_MS` sets how long each test goes on, `SPANLOCK_SEED` the seed of the first round. A seed decides
//! what threads ask for, not what the system makes of it. Built with `--cfg spanlock_chaos`, the lock itself makes
//! pauses between its steps (`src/platform/sync/chaos.rs`), and that finds what takes a rare moment otherwise:
//! `RUSTFLAGS="--cfg spanlock_chaos" cargo test --release --test contract`.

#[path = "../common/mod.rs"]
mod common;
mod judge;
mod players;
mod round;

use judge::Tally;
use round::Round;
use std::thread::available_parallelism;
use std::time::Instant;

/// Rounds with so many threads for each processor, until the time is over.
fn play(test: &str, per_processor: usize) {
    let threads = per_processor * available_parallelism().map_or(2, usize::from);
    let (begun, first) = (Instant::now(), common::from_env("SPANLOCK_SEED", 0));
    let (mut tally, mut rounds) = (Tally::default(), 0);
    for seed in first.. {
        let (new, findings) = Round::new(seed).play(threads);
        assert!(
            findings.is_empty(),
            "{test}: {threads} threads, seed {seed}, round {rounds}, after {:.1?}: {}",
            begun.elapsed(),
            round::report(&findings)
        );
        tally.add(new);
        rounds += 1;
        if begun.elapsed() >= common::stress_time() {
            break;
        }
    }
    println!("{test}: {threads} threads, seeds {first}..{}, {:.1?}: {tally:?}", first + rounds, begun.elapsed());
    let Tally { rows, meetings, in_order, passed: _, delays, waits, excused: _, sights: _, drains, drained } = tally;
    assert!(
        [rows, meetings, in_order, delays, waits, drains, drained].iter().all(|&n| n > 0),
        "nothing was tested: {tally:?}"
    );
}

/// As many as can run at the same time, and one more for each.
#[test]
fn two_threads_for_each_processor() {
    play("two_threads_for_each_processor", 2);
}

/// Whoever is taken off its processor in the middle of something is met there by many others.
#[test]
fn sixteen_threads_for_each_processor() {
    play("sixteen_threads_for_each_processor", 16);
}

/// One thread for each processor: nobody is taken off in the middle of anything, and they meet within nanoseconds.
#[test]
fn a_thread_for_each_processor() {
    play("a_thread_for_each_processor", 1);
}
