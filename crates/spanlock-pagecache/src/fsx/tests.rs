//! The exercisers: that they find nothing under the locks, and that they find what was put there.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use fastrand::Rng;

use super::actor::bytes_of;
use super::exercise::{MOST, Setting, run, shrink};
use super::{Kind, Step, real, together};
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
        let result = run(&setting, some(1500, 7), |_, _, _| {}).expect("a temporary file");
        assert_eq!(result.map(|done| done.steps).expect("no difference"), 1500);
    }
}

/// Within 100,000 steps, as is asked of it; in fact within some hundred. And what is left when it has been shrunk fails
/// again.
#[test]
fn a_planted_fault_is_found_and_shrunk() {
    for plant in [Plant::TailKept, Plant::PunchKeepsPages] {
        let setting = Setting { variant: Variant::Range, place: place(), plant: Some(plant) };
        let steps = some(100_000, 3);
        let failure =
            run(&setting, steps.iter().copied(), |_, _, _| {}).expect("a temporary file").expect_err("it is there");
        let failing = steps[..failure.number as usize].to_vec();
        let shrunk = shrink(&setting, failing, Duration::from_secs(60), |_| ()).expect("a temporary file");
        assert!(shrunk.len() <= 8, "{plant:?}, {failure}: {} steps are left of {}", shrunk.len(), failure.number);
        let text: Vec<String> = shrunk.iter().map(ToString::to_string).collect();
        let again: Vec<Step> = text.iter().map(|line| line.parse().expect("a step")).collect();
        assert!(run(&setting, again, |_, _, _| {}).expect("a temporary file").is_err(), "{plant:?}: {text:#?}");
    }
}

/// Without a lock not even one thread is safe: a direct write from a mapping of its own pages leaves them behind.
#[test]
fn one_thread_finds_what_no_lock_does() {
    let setting = Setting { variant: Variant::None, place: place(), plant: None };
    assert!(run(&setting, some(100_000, 1), |_, _, _| {}).expect("a temporary file").is_err());
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

/// A log as the real fsx writes it, played, against the same done to a file of the system by whoever knows the rule of
/// the data.
#[test]
fn a_log_of_the_real_fsx_gives_the_bytes_of_a_real_file() {
    use std::os::unix::fs::FileExt;
    const LOG: &str = "\
# a comment
write 0x137dd 0x1c69 0x0
truncate 0x0 0x15001 0x15446
skip read 0x30000 0x100 0x15001
mapwrite 0x14fff 0x2003 0x15001 *
punch_hole 0x13fff 0x1003 0x17002
zero_range 0x16000 0x2001 0x17002
copy_range 0x14000 0x1fff 0x20001 0x18001
fallocate 0x22000 0x10 0x22000
fallocate 0x30000 0x10 0x22010 keep_size
read 0x137dd 0x200 0x22010 close_open
write_dontcache 0x13ffe 0x4 0x22010
fsync 0x0 0x0 0x22010
";
    assert!(real::is_real(LOG) && !real::is_real("0 write 1 2 3\n"));
    let steps = real::steps(LOG).expect("it is well-formed");
    assert_eq!((steps.len(), steps[10].kind), (13, Kind::Reopen));
    let setting = Setting { variant: Variant::Range, place: place(), plant: None };
    let mut last = None;
    let played = run(&setting, steps, |_, step, effect| last = Some(format!("{step} {effect}")));
    let done = played.expect("a temporary file").expect("no difference");
    let ours = super::exercise::contents(&done.files[0]).expect("readable");

    let path = std::env::temp_dir().join(format!("pagecache-fsx-{}", std::process::id()));
    let theirs = std::fs::File::options().read(true).write(true).create_new(true).open(&path).expect("a file");
    std::fs::remove_file(&path).expect("ours");
    let write = |number, at: u64, length| theirs.write_all_at(&bytes_of(number, at, length), at).expect("written");
    write(1, 0x137dd, 0x1c69);
    theirs.set_len(0x15001).expect("a size");
    write(4, 0x14fff, 0x2003);
    theirs.write_all_at(&[0; 0x1003], 0x13fff).expect("zeros");
    theirs.write_all_at(&[0; 0x2001], 0x16000).expect("zeros");
    let mut copied = [0; 0x1fff];
    theirs.read_exact_at(&mut copied, 0x14000).expect("there");
    theirs.write_all_at(&copied, 0x20001).expect("copied");
    theirs.set_len(0x22010).expect("a size");
    write(12, 0x13ffe, 4);
    let mut expected = vec![0; 0x22010];
    theirs.read_exact_at(&mut expected, 0).expect("there");
    assert!(ours == expected, "the file of the system has other bytes");
    assert_eq!(last.as_deref(), Some("0 sync 0 0 0 -> 0 0 139280"));

    for wrong in ["scribble 0x0 0x1 0x2", "write 0x0 0x1", "write 0x0 0x1 0x2 sideways", "write 0x0 0x1g 0x2"] {
        assert!(real::steps(wrong).unwrap_err().contains("NAME 0xPLACE"), "{wrong}");
    }
    assert!(real::steps("write 0x3ffff 0x2 0x0").unwrap_err().contains("fsx -l"));
}

/// Steps say what they did, and what is said is left out when they are read.
#[test]
fn what_a_step_did_is_no_part_of_it() {
    let step: Step = "0 write 4096 512 0".parse().expect("a step");
    assert_eq!("0 write 4096 512 0 -> 4096 512 4608".parse(), Ok(step));
}
