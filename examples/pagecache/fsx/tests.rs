//! The exercisers: that they find nothing under the locks, and that they find what was put there.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use fastrand::Rng;

use super::exercise::{MOST, Setting, run, shrink};
use super::{Step, together};
use crate::device::Place;
use crate::file_lock::Variant;
use crate::hooks::Plant;

fn place() -> Place {
    Place::Temporary { folder: std::env::temp_dir() }
}

fn some(count: usize, seed: u64) -> Vec<Step> {
    let mut random = Rng::with_seed(seed);
    (0..count).map(|_| Step::random(&mut random, 2, MOST)).collect()
}

#[test]
fn a_step_is_read_back_as_it_was_written() {
    for step in some(1000, 1) {
        assert_eq!(step.to_string().parse(), Ok(step));
    }
    for wrong in ["", "0 write 1 2", "2 write 1 2 3", "0 scribble 1 2 3", "0 write 1 x 3"] {
        let error = wrong.parse::<Step>().unwrap_err();
        assert!(error.contains("FILE NAME A B C"), "{error}");
    }
}

#[test]
fn one_thread_finds_no_difference_under_a_lock() {
    for variant in [Variant::Whole, Variant::Range] {
        let setting = Setting { variant, place: place(), plant: None };
        let result = run(&setting, some(1500, 7), |_, _| {}).expect("a temporary file");
        assert_eq!(result.expect("no difference"), 1500);
    }
}

/// Within 100,000 steps, as is asked of it; in fact within some hundred. And what is left when it has been shrunk fails again.
#[test]
fn a_planted_fault_is_found_and_shrunk() {
    for plant in [Plant::TailKept, Plant::PunchKeepsPages] {
        let setting = Setting { variant: Variant::Range, place: place(), plant: Some(plant) };
        let steps = some(100_000, 3);
        let failure = run(&setting, steps.iter().copied(), |_, _| {}).expect("a temporary file").unwrap_err();
        let failing = steps[..failure.number as usize].to_vec();
        let shrunk = shrink(&setting, failing, Duration::from_secs(60), |_| ()).expect("a temporary file");
        assert!(shrunk.len() <= 8, "{plant:?}, {failure}: {} steps are left of {}", shrunk.len(), failure.number);
        let text: Vec<String> = shrunk.iter().map(ToString::to_string).collect();
        let again: Vec<Step> = text.iter().map(|line| line.parse().expect("a step")).collect();
        assert!(run(&setting, again, |_, _| {}).expect("a temporary file").is_err(), "{plant:?}: {text:#?}");
    }
}

/// Without a lock not even one thread is safe: a direct write from a mapping of its own pages leaves them behind.
#[test]
fn one_thread_finds_what_no_lock_does() {
    let setting = Setting { variant: Variant::None, place: place(), plant: None };
    assert!(run(&setting, some(100_000, 1), |_, _| {}).expect("a temporary file").is_err());
}

fn load(variant: Variant, pause: u64, seconds: u64) -> Result<u64, (usize, super::exercise::Failure)> {
    let (time, pause) = (Duration::from_secs(seconds), Duration::from_micros(pause));
    let load = together::Load { variant, place: place(), workers: 4, time, seed: 1, pause };
    together::run(&load, &AtomicU64::new(0)).expect("a temporary file")
}

#[test]
fn threads_side_by_side_find_no_difference_under_a_lock() {
    for variant in [Variant::Whole, Variant::Range] {
        assert!(load(variant, 20, 1).expect("no difference") > 0);
    }
}

#[test]
fn threads_side_by_side_find_what_no_lock_does() {
    load(Variant::None, 50, 60).expect_err("a page that two windows share is filled beside a direct write");
}
