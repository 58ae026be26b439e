//! The lock around a file, in the four variants that are compared: none, none but invalidating twice, a whole-file
//! lock, a range lock. The page cache asks for the same ranges and modes under each.
//!
//! Ordinary operations own what they hold as threads do. A direct write is an [`Owner`] of its own: it may end on
//! another thread than it began on, and its guards go with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use spanlock::{AcquireError, Batch, ByOwner, ByteRange, Guard, Mode, Nesting, Owner, RangeGuard, RangeLock, Snapshot};

/// Which lock the page cache runs under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Variant {
    /// No lock around the file
    None,
    /// No lock, but direct writes invalidate again after the write, as kernels do
    Twice,
    /// One lock for all pages at once
    Whole,
    /// A lock of the pages concerned
    Range,
}

impl Variant {
    pub(crate) const ALL: [Variant; 4] = [Variant::None, Variant::Twice, Variant::Whole, Variant::Range];

    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Variant::None => "no lock",
            Variant::Twice => "invalidate twice",
            Variant::Whole => "whole-file lock",
            Variant::Range => "range lock",
        }
    }

    /// Whether there is a lock, so that everything is promised.
    pub(crate) fn is_locked(self) -> bool {
        matches!(self, Variant::Whole | Variant::Range)
    }
}

/// The lock around one file.
#[derive(Debug)]
pub(crate) struct FileLock {
    variant: Variant,
    lock: Arc<RangeLock>,
    waits: WaitCounts,
}

/// What a thread holds, until it is dropped. Nothing where there is no lock.
#[derive(Debug)]
#[must_use = "the range is released as soon as this is dropped"]
pub(crate) struct Held<'a> {
    _guard: Option<RangeGuard<'a>>,
}

/// What an owner holds, until it is dropped, on whichever thread. Nothing where there is no lock.
#[derive(Debug)]
#[must_use = "the range is released as soon as this is dropped"]
pub(crate) struct OwnedHeld {
    guard: Option<Guard<Arc<RangeLock>, ByOwner>>,
}

impl OwnedHeld {
    /// Whether its own owner holds some of these pages in a mode that conflicts: the page fault of a direct write on
    /// pages that it blocks itself.
    pub(crate) fn is_inside_own_block(&self) -> bool {
        self.guard.as_ref().is_some_and(|guard| matches!(guard.nesting(), Nesting::Conflicting { .. }))
    }

    /// Whether there is a lock at all.
    pub(crate) fn is_locked(&self) -> bool {
        self.guard.is_some()
    }
}

/// Ordinary operations hold one range at a time, and tokens ask first when they hold nothing.
const ALONE: &str = "whoever holds nothing is never refused";

/// The request would have closed a cycle of owners: let go of everything, and ask for all of it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Crossed;

impl FileLock {
    pub(crate) fn new(variant: Variant) -> FileLock {
        FileLock { variant, lock: Arc::new(RangeLock::new()), waits: WaitCounts::default() }
    }

    pub(crate) fn variant(&self) -> Variant {
        self.variant
    }

    pub(crate) fn waits(&self) -> Waits {
        self.waits.now()
    }

    /// Who holds and who waits.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.lock.snapshot()
    }

    /// Waits until `range` is granted in `mode` to this thread, which holds nothing.
    pub(crate) fn take(&self, range: ByteRange, mode: Mode) -> Held<'_> {
        let Some(range) = self.widened(range) else { return Held { _guard: None } };
        // A lock that is not asked for its statistics needs only the wait().
        let guard = self
            .waits
            .count(|| self.lock.request(range, mode).try_now(), || self.lock.request(range, mode).wait().expect(ALONE));
        Held { _guard: Some(guard) }
    }

    /// `range` in `mode`, if it is to be had at once.
    pub(crate) fn try_take(&self, range: ByteRange, mode: Mode) -> Option<Held<'_>> {
        let Some(range) = self.widened(range) else { return Some(Held { _guard: None }) };
        self.lock.request(range, mode).try_now().map(|guard| Held { _guard: Some(guard) })
    }

    /// Waits until `range` is granted in `mode` to `owner`, which may hold something already.
    pub(crate) fn take_as(&self, owner: &Owner, range: ByteRange, mode: Mode) -> Result<OwnedHeld, Crossed> {
        let Some(range) = self.widened(range) else { return Ok(OwnedHeld { guard: None }) };
        let request = || self.lock.request_arc(range, mode).owner(owner);
        match self.waits.count(|| request().try_now().map(Ok), || request().wait()) {
            Ok(guard) => Ok(OwnedHeld { guard: Some(guard) }),
            Err(AcquireError::Deadlock(_)) => Err(Crossed),
            Err(refused) => unreachable!("no deadline and no refusal was asked for: {refused}"),
        }
    }

    /// Lets go of `block`, and waits for it and `range` of `other` together, to add. As one batch of an owner that
    /// holds nothing else this is never refused. Others may have had the pages meanwhile.
    pub(crate) fn retake_with(
        &self,
        owner: &Owner,
        block: OwnedHeld,
        other: &FileLock,
        range: ByteRange,
    ) -> Vec<OwnedHeld> {
        let (Some(block), Some(range)) = (block.guard, other.widened(range)) else {
            unreachable!("where nothing is locked nothing is refused")
        };
        let batch = Batch::new().regain(block).add(other.lock.clone(), range).owner(owner);
        let guards = self.waits.count(|| None, || batch.wait().expect(ALONE));
        guards.into_parts().into_iter().map(|guard| OwnedHeld { guard: Some(guard) }).collect()
    }

    /// What is really asked for: nothing, everything, or the range.
    fn widened(&self, range: ByteRange) -> Option<ByteRange> {
        match self.variant {
            Variant::None | Variant::Twice => None,
            Variant::Whole => Some(ByteRange::WHOLE),
            Variant::Range => Some(range),
        }
    }
}

/// How often a lock was asked for, and how often it was not to be had at once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waits {
    pub(crate) requests: u64,
    pub(crate) waited: u64,
    pub(crate) time: Duration,
}

/// The same, while it is counted. Relaxed throughout: these order nothing.
#[derive(Debug, Default)]
struct WaitCounts {
    requests: AtomicU64,
    waited: AtomicU64,
    nanoseconds: AtomicU64,
}

impl WaitCounts {
    fn count<G>(&self, try_now: impl FnOnce() -> Option<G>, wait: impl FnOnce() -> G) -> G {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if let Some(guard) = try_now() {
            return guard;
        }
        let since = Instant::now();
        let guard = wait();
        self.waited.fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        guard
    }

    fn now(&self) -> Waits {
        Waits {
            requests: self.requests.load(Ordering::Relaxed),
            waited: self.waited.load(Ordering::Relaxed),
            time: Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)),
        }
    }
}
