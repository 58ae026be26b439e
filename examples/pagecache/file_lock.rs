//! The lock around the file, in the three variants that are compared: none, a
//! whole-file lock, a range lock. The page cache asks for the same ranges and modes
//! under each.

use std::ops::AddAssign;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use spanlock::{ByteRange, Mode, RangeGuard, RangeLock, WholeFileLock};

/// Which lock the page cache runs under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Variant {
    /// No lock around the file
    None,
    /// A spanlock::WholeFileLock, over all pages at once
    Whole,
    /// A spanlock::RangeLock, over the pages concerned
    Range,
}

impl Variant {
    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Variant::None => "no lock",
            Variant::Whole => "whole-file lock",
            Variant::Range => "range lock",
        }
    }
}

/// The lock around one file.
#[derive(Debug)]
pub(crate) enum FileLock {
    None,
    Whole(WholeFileLock),
    Range(RangeLock),
}

/// Holds what [`FileLock::take`] took, until it is dropped.
#[must_use = "the range is released as soon as this is dropped"]
pub(crate) struct Held<'a> {
    _guard: Option<RangeGuard<'a>>,
}

/// The cache holds one range at a time.
const ALONE: &str = "a thread that holds nothing is never refused";

impl FileLock {
    pub(crate) fn new(variant: Variant) -> FileLock {
        match variant {
            Variant::None => FileLock::None,
            Variant::Whole => FileLock::Whole(WholeFileLock::new()),
            Variant::Range => FileLock::Range(RangeLock::new()),
        }
    }

    /// Waits until `range` is granted in `mode`, and notes whether it had to.
    ///
    /// A thread never conflicts with itself, so two takes by one thread would not
    /// keep each other out: the page cache takes one range at a time.
    pub(crate) fn take(&self, range: ByteRange, mode: Mode, waits: &mut Waits) -> Held<'_> {
        let guard = match self {
            FileLock::None => return Held { _guard: None },
            // A lock that is not asked for its statistics needs only the wait().
            FileLock::Whole(lock) => {
                waits.count(|| lock.request(mode).try_now(), || lock.request(mode).wait().expect(ALONE))
            }
            FileLock::Range(lock) => {
                waits.count(|| lock.request(range, mode).try_now(), || lock.request(range, mode).wait().expect(ALONE))
            }
        };
        Held { _guard: Some(guard) }
    }
}

/// How often a lock was asked for, and how often it was not to be had at once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waits {
    pub(crate) requests: u64,
    pub(crate) waited: u64,
    pub(crate) time: Duration,
}

impl Waits {
    fn count<G>(&mut self, try_now: impl FnOnce() -> Option<G>, wait: impl FnOnce() -> G) -> G {
        self.requests += 1;
        if let Some(guard) = try_now() {
            return guard;
        }
        let since = Instant::now();
        let guard = wait();
        self.waited += 1;
        self.time += since.elapsed();
        guard
    }
}

impl AddAssign for Waits {
    fn add_assign(&mut self, other: Waits) {
        self.requests += other.requests;
        self.waited += other.waited;
        self.time += other.time;
    }
}
