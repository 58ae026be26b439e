//! The lock around a file, in the variants that are compared. The page cache asks for the same ranges and modes under
//! each.
//!
//! Four are in the demonstration: none, none but invalidating twice, a whole-file lock, a range lock. The others are
//! what else was built or proposed (`tests/races/others.rs` says which races each loses):
//!
//! - *rwsem*: what ext4 and xfs had as `i_mmap_sem` and `MMAPLOCK`, and all file systems have as `invalidate_lock`. Who
//!   fills pages shares it, who changes the shape has it alone. Direct writes cannot use it, since they go together:
//!   they only keep changes of shape out (as by `i_rwsem` and the count of direct I/O), and invalidate twice.
//! - *note*: the lock as it was first proposed. Add and block, one for the file. A direct write's faults on its own
//!   file take no lock and put their pages into the cache; so it invalidates again when it has its buffer, before it
//!   writes.
//! - *lean*: the range lock; but a store to a mapped page that is in the cache asks for nothing. That clean pages are
//!   removed in one step with the look whether they are clean is what makes it right.
//!
//! Ordinary operations own what they hold as threads do. A direct write is an [`Owner`] of its own: it may end on
//! another thread than it began on, and its guards go with it.

use std::sync::Arc;

use spanlock::{AcquireError, Batch, ByOwner, ByteRange, Guard, Mode, Nesting, Owner, RangeGuard, RangeLock, Snapshot};

use crate::waits::{Log, OpenSpan, WaitCounts, WaitTimes, Waits};

/// Which lock the page cache runs under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Variant {
    /// No lock around the file
    None,
    /// No lock, but direct writes invalidate again after the write, as kernels do
    Twice,
    /// A reader-writer lock of the file, for fills and changes of shape; direct writes invalidate twice
    Rwsem,
    /// One lock for all pages at once; a write from a mapping of its own file goes round it
    Note,
    /// One lock for all pages at once
    Whole,
    /// A lock of the pages concerned
    Range,
    /// The same, but none for a store to a mapped page that is cached
    Lean,
}

impl Variant {
    /// Those of the demonstration.
    pub const FOUR: [Variant; 4] = [Variant::None, Variant::Twice, Variant::Whole, Variant::Range];
    /// In the order in which they are declared.
    pub const ALL: [Variant; 7] =
        [Variant::None, Variant::Twice, Variant::Rwsem, Variant::Note, Variant::Whole, Variant::Range, Variant::Lean];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Variant::None => "no lock",
            Variant::Twice => "invalidate twice",
            Variant::Rwsem => "rw-semaphore",
            Variant::Note => "the note's lock",
            Variant::Whole => "whole-file lock",
            Variant::Range => "range lock",
            Variant::Lean => "lean range lock",
        }
    }

    /// The same where there is little room.
    pub fn short(self) -> &'static str {
        match self {
            Variant::None => "no lock",
            Variant::Twice => "twice",
            Variant::Rwsem => "rwsem",
            Variant::Note => "note",
            Variant::Whole => "whole",
            Variant::Range => "range",
            Variant::Lean => "lean",
        }
    }

    /// Whether there is a lock around all that needs one, so that everything is promised.
    pub fn is_locked(self) -> bool {
        matches!(self, Variant::Whole | Variant::Range | Variant::Lean)
    }

    /// Whether there is any lock.
    pub fn has_lock(self) -> bool {
        !matches!(self, Variant::None | Variant::Twice)
    }

    /// Whether direct writes remove their pages again when the disk is written.
    pub fn invalidates_afterwards(self) -> bool {
        matches!(self, Variant::Twice | Variant::Rwsem)
    }
}

/// The lock around one file.
#[derive(Debug)]
pub struct FileLock {
    variant: Variant,
    lock: Arc<RangeLock>,
    waits: WaitCounts,
    log: Arc<Log>,
}

/// What a thread holds, until it is dropped. Nothing where there is no lock.
#[derive(Debug)]
#[must_use = "the range is released as soon as this is dropped"]
pub struct Held<'a> {
    /// Before the guard, so that no hold in the log is longer than the real one.
    _span: Option<OpenSpan>,
    _guard: Option<RangeGuard<'a>>,
}

/// What an owner holds, until it is dropped, on whichever thread. Nothing where there is no lock.
#[derive(Debug)]
#[must_use = "the range is released as soon as this is dropped"]
pub struct OwnedHeld {
    /// As in [`Held`].
    _span: Option<OpenSpan>,
    guard: Option<Guard<Arc<RangeLock>, ByOwner>>,
}

impl OwnedHeld {
    /// Whether its own owner holds some of these pages in a mode that conflicts: the page fault of a direct write on
    /// pages that it blocks itself.
    pub fn is_inside_own_block(&self) -> bool {
        self.guard.as_ref().is_some_and(|guard| matches!(guard.nesting(), Nesting::Conflicting { .. }))
    }

    /// Whether there is a lock at all.
    pub fn is_locked(&self) -> bool {
        self.guard.is_some()
    }
}

/// Ordinary operations hold one range at a time, and tokens ask first when they hold nothing.
const ALONE: &str = "whoever holds nothing is never refused";

/// The request would have closed a cycle of owners: let go of everything, and ask for all of it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crossed;

impl FileLock {
    /// The lock of a new file.
    pub fn new(variant: Variant) -> FileLock {
        FileLock { variant, lock: Arc::new(RangeLock::new()), waits: WaitCounts::default(), log: Arc::default() }
    }

    /// Which it is.
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// How often it was asked for, and waited for.
    pub fn waits(&self) -> Waits {
        self.waits.now()
    }

    /// How long those waited that had to.
    pub fn wait_times(&self) -> WaitTimes {
        self.waits.times()
    }

    /// Who held what and waited for what, while the log was on.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Who holds and who waits.
    pub fn snapshot(&self) -> Snapshot {
        self.lock.snapshot()
    }

    /// Waits until `range` is granted in `mode` to this thread, which holds nothing.
    pub fn take(&self, range: ByteRange, mode: Mode) -> Held<'_> {
        let asked = self.log.ask(range, mode);
        let Some(range) = self.widened(range) else { return Held { _span: None, _guard: None } };
        // A lock that is not asked for its statistics needs only the wait().
        let guard = self
            .waits
            .count(|| self.lock.request(range, mode).try_now(), || self.lock.request(range, mode).wait().expect(ALONE));
        Held { _span: asked.map(|asked| asked.granted(&self.log)), _guard: Some(guard) }
    }

    /// `range` in `mode`, if it is to be had at once.
    pub fn try_take(&self, range: ByteRange, mode: Mode) -> Option<Held<'_>> {
        let asked = self.log.ask(range, mode);
        let Some(range) = self.widened(range) else { return Some(Held { _span: None, _guard: None }) };
        let guard = self.lock.request(range, mode).try_now()?;
        Some(Held { _span: asked.map(|asked| asked.granted(&self.log)), _guard: Some(guard) })
    }

    /// Waits until `range` is granted in `mode` to `owner`, which may hold something already.
    pub fn take_as(&self, owner: &Owner, range: ByteRange, mode: Mode) -> Result<OwnedHeld, Crossed> {
        let asked = self.log.ask(range, mode);
        let Some(range) = self.widened(range) else { return Ok(OwnedHeld { _span: None, guard: None }) };
        // Direct writes go beside everybody but changes of shape.
        let mode = if self.variant == Variant::Rwsem { Mode::Add } else { mode };
        let request = || self.lock.request_arc(range, mode).owner(owner);
        match self.waits.count(|| request().try_now().map(Ok), || request().wait()) {
            Ok(guard) => Ok(OwnedHeld { _span: asked.map(|asked| asked.granted(&self.log)), guard: Some(guard) }),
            Err(AcquireError::Deadlock(_)) => Err(Crossed),
            Err(refused) => unreachable!("no deadline and no refusal was asked for: {refused}"),
        }
    }

    /// Lets go of `block`, and waits for it and `range` of `other` together, to add. As one batch of an owner that
    /// holds nothing else this is never refused. Others may have had the pages meanwhile.
    pub fn retake_with(&self, owner: &Owner, block: OwnedHeld, other: &FileLock, range: ByteRange) -> Vec<OwnedHeld> {
        let (Some(block), Some(range)) = (block.guard, other.widened(range)) else {
            unreachable!("where nothing is locked nothing is refused")
        };
        let batch = Batch::new().regain(block).add(other.lock.clone(), range).owner(owner);
        let guards = self.waits.count(|| None, || batch.wait().expect(ALONE));
        guards.into_parts().into_iter().map(|guard| OwnedHeld { _span: None, guard: Some(guard) }).collect()
    }

    /// What is really asked for: nothing, everything, or the range.
    fn widened(&self, range: ByteRange) -> Option<ByteRange> {
        match self.variant {
            Variant::None | Variant::Twice => None,
            Variant::Rwsem | Variant::Note | Variant::Whole => Some(ByteRange::WHOLE),
            Variant::Range | Variant::Lean => Some(range),
        }
    }
}
