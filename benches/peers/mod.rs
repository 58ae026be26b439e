//! The rivals, behind one trait, and spanlock as the first of them.
//!
//! Each is written from its published description, or wraps the crate that it names; each file says which. A lock of
//! the whole file ignores the range. `tests/peers.rs` puts all of them through the same torture. Lock-free sorted lists
//! of ranges stay out: they are patented.

// The benches and the test use different parts.
#![allow(dead_code, unused_imports)]

mod btree;
mod counter;
mod interval_tree;
mod list;
mod ofd;
mod range_lock;
mod segments;
mod spanlock;
#[path = "../support/stripes.rs"]
mod stripes;
mod whole;

pub(crate) use self::btree::BTree;
pub(crate) use self::counter::TwoState;
pub(crate) use self::interval_tree::IntervalTree;
pub(crate) use self::list::List;
pub(crate) use self::ofd::Ofd;
pub(crate) use self::range_lock::RangeLockCrate;
pub(crate) use self::segments::Segments;
pub(crate) use self::spanlock::Private;
pub(crate) use self::spanlock::{Reordering, Spanlock, SpanlockWhole, WholeReordering, Window};
pub(crate) use self::whole::{FairMutex, Mutex, RwLock, StdRwLock, TokioRwLock};
use std::ops::Range;

/// Threads that a lock may be asked by: some have a file description for each.
pub(crate) const MOST_THREADS: usize = 16;

/// Looks before a waiter sleeps, for rivals of ours: as long as the others spin.
const SPINS: u32 = 200;

/// How something is taken. A lock without a shared mode takes all exclusively.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Shared,
    Exclusive,
}

/// What a lock covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Covers {
    Range,
    WholeFile,
}

/// Which two holders shut each other out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excludes {
    /// All but two shared ones.
    AllButShared,
    /// Only one that is shared and one that is exclusive: two groups, each together with its own.
    OtherMode,
}

pub(crate) trait Peer: Sync {
    const NAME: &'static str;
    const COVERS: Covers;
    const EXCLUDES: Excludes = Excludes::AllButShared;
    /// Whether two shared holders go together. If not, who asks for shared gets exclusive.
    const SHARES: bool = true;
    /// Whether it counts the newcomers that go before others who wait. (This library's do, where they have a window.)
    const PASSES: bool = false;
    type Guard<'a>
    where
        Self: 'a;

    /// A lock for a file of that many bytes. Who has something for each page has so much; pages behind share it.
    fn new(bytes: u64) -> Self;

    /// Waits for the range. `thread` is the asking thread's number, below [`MOST_THREADS`].
    fn acquire(&self, thread: usize, range: Range<u64>, access: Access) -> Self::Guard<'_>;

    /// Waits for every byte, exclusively.
    #[inline(always)]
    fn acquire_whole(&self, thread: usize) -> Self::Guard<'_> {
        self.acquire(thread, 0..u64::MAX, Access::Exclusive)
    }

    /// How many nodes it has on the heap now, if it makes and removes them.
    fn nodes(&self) -> Option<usize> {
        None
    }
}

/// A lock's name; with a star, if it takes exclusively what others share.
pub(crate) fn title<P: Peer>() -> String {
    format!("{}{}", P::NAME, if P::SHARES { "" } else { "*" })
}

/// A number of threads on a command line.
pub(crate) fn parse_threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(threads @ 1..=MOST_THREADS) => Ok(threads),
        _ => Err(format!("1 to {MOST_THREADS} threads")),
    }
}
