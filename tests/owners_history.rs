//! Promise: requests of owners are granted, let past others and refused exactly as the contract says.
//!
//! One thread plays up to six owners, futures polled by hand: after each step of a random history there is one right
//! answer to every request, and the oracle for owners knows it (`common/owners.rs`, which `owners_model.rs` tests).
//!
//! `SPANLOCK_HISTORIES` sets how many histories run in all; the default is above 10^5 in an optimised build.
//! `SPANLOCK_SEED` chooses the first. If one hangs, the watchdog says how many had passed, which is its distance from
//! the first seed.

mod common;

use common::history::Space;
use common::owners_history::{History, Tally, check_many};
use common::watch::Watchdog;
use common::{by_build, from_env};
use fastrand::Rng;

/// Runs this share (in percent) of all histories.
fn check(test: &'static str, percent: u64, make: impl Fn(&mut Rng) -> History) {
    let count = (from_env("SPANLOCK_HISTORIES", by_build(8_000, 120_000)) * percent).div_ceil(100);
    let watchdog = Watchdog::new(test);
    let tally = check_many(count, make, || watchdog.step());
    if count > 100 {
        assert!(is_everything(&tally), "not all that can happen did: {tally:?}");
    }
}

fn is_everything(tally: &Tally) -> bool {
    let waits = tally.at_once > 0 && tally.waited > 0 && tally.failed > 0 && tally.cancelled_woken > 0;
    let cycles = tally.passed_at_once > 0 && tally.passes > tally.passed_at_once && tally.longest_cycle > 2;
    let batches = tally.batches > 0 && tally.deadlocked_batches > 0;
    let drains = tally.drained.iter().chain(&tally.drains_refused).all(|&drains| drains > 0);
    waits && cycles && batches && drains && tally.recursions > 0 && tally.converted > 0 && tally.not_converted > 0
}

#[test]
fn owners_in_a_few_bytes() {
    check("owners_in_a_few_bytes", 75, |rng| {
        let (space, len, crowd) = (Space::tiny(rng), rng.usize(8..48), rng.usize(4..16));
        History::random(rng, &space, len, crowd)
    });
}

#[test]
fn owners_over_all_of_u64() {
    check("owners_over_all_of_u64", 24, |rng| {
        let (space, len, crowd) = (Space::wide(rng), rng.usize(8..48), rng.usize(4..16));
        History::random(rng, &space, len, crowd)
    });
}

/// Long ones, with so many live requests that the trees grow.
#[test]
fn owners_in_a_crowd() {
    check("owners_in_a_crowd", 1, |rng| {
        let space = if rng.bool() { Space::small(rng) } else { Space::wide(rng) };
        let (len, crowd) = (rng.usize(60..200), rng.usize(16..40));
        History::random(rng, &space, len, crowd)
    });
}
