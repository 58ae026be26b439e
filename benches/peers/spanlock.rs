//! This library: shared is add, exclusive is exclusive.

use super::{Access, Covers, MOST_THREADS, Peer};
use crossbeam_utils::CachePadded;
use spanlock::{RangeGuard, RangeLock, WholeFileLock};
use std::ops::Range;
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Spanlock(RangeLock);

impl Peer for Spanlock {
    const NAME: &'static str = "spanlock";
    const COVERS: Covers = Covers::Range;
    type Guard<'a> = RangeGuard<'a>;

    fn new(_bytes: u64) -> Spanlock {
        Spanlock(RangeLock::new())
    }

    #[inline(always)]
    fn acquire(&self, _thread: usize, range: Range<u64>, access: Access) -> RangeGuard<'_> {
        match access {
            Access::Shared => self.0.add(range),
            Access::Exclusive => self.0.exclusive(range),
        }
    }

    #[inline(always)]
    fn acquire_whole(&self, _thread: usize) -> RangeGuard<'_> {
        self.0.exclusive(..)
    }

    fn nodes(&self) -> Option<usize> {
        Some(self.0.heap_nodes())
    }
}

/// The same with a window of so many microseconds.
#[derive(Debug)]
pub(crate) struct Window<const MICROS: u64>(RangeLock);

/// With the window that the contests have which do not name another.
pub(crate) type Reordering = Window<USUAL>;

/// In microseconds.
const USUAL: u64 = 1000;

impl<const MICROS: u64> Peer for Window<MICROS> {
    const NAME: &'static str = match MICROS {
        100 => "spanlock, window 0.1 ms",
        1000 => "spanlock, window 1 ms",
        4000 => "spanlock, window 4 ms",
        _ => panic!("a window of that length has no name"),
    };
    const COVERS: Covers = Covers::Range;
    const PASSES: bool = true;
    type Guard<'a> = RangeGuard<'a>;

    fn new(_bytes: u64) -> Window<MICROS> {
        Window(RangeLock::new().reordering(Duration::from_micros(MICROS)))
    }

    #[inline(always)]
    fn acquire(&self, _thread: usize, range: Range<u64>, access: Access) -> RangeGuard<'_> {
        match access {
            Access::Shared => self.0.add(range),
            Access::Exclusive => self.0.exclusive(range),
        }
    }

    #[inline(always)]
    fn acquire_whole(&self, _thread: usize) -> RangeGuard<'_> {
        self.0.exclusive(..)
    }

    fn nodes(&self) -> Option<usize> {
        Some(self.0.heap_nodes())
    }
}

#[derive(Debug)]
pub(crate) struct SpanlockWhole(WholeFileLock);

impl Peer for SpanlockWhole {
    const NAME: &'static str = "spanlock-whole";
    const COVERS: Covers = Covers::WholeFile;
    type Guard<'a> = RangeGuard<'a>;

    fn new(_bytes: u64) -> SpanlockWhole {
        SpanlockWhole(WholeFileLock::new())
    }

    #[inline(always)]
    fn acquire(&self, _thread: usize, _range: Range<u64>, access: Access) -> RangeGuard<'_> {
        match access {
            Access::Shared => self.0.add(),
            Access::Exclusive => self.0.exclusive(),
        }
    }
}

/// The whole-file lock with a window.
#[derive(Debug)]
pub(crate) struct WholeReordering(WholeFileLock);

impl Peer for WholeReordering {
    const NAME: &'static str = "spanlock-whole, window 1 ms";
    const COVERS: Covers = Covers::WholeFile;
    const PASSES: bool = true;
    type Guard<'a> = RangeGuard<'a>;

    fn new(_bytes: u64) -> WholeReordering {
        WholeReordering(WholeFileLock::new().reordering(Duration::from_micros(USUAL)))
    }

    #[inline(always)]
    fn acquire(&self, _thread: usize, _range: Range<u64>, access: Access) -> RangeGuard<'_> {
        match access {
            Access::Shared => self.0.add(),
            Access::Exclusive => self.0.exclusive(),
        }
    }
}

/// A lock for each thread: what threads that never meet could have at best. It excludes nobody, so it is no rival.
#[derive(Debug)]
pub(crate) struct Private(Box<[CachePadded<RangeLock>]>);

impl Peer for Private {
    const NAME: &'static str = "spanlock, private";
    const COVERS: Covers = Covers::Range;
    type Guard<'a> = RangeGuard<'a>;

    fn new(_bytes: u64) -> Private {
        Private((0..MOST_THREADS).map(|_| CachePadded::new(RangeLock::new())).collect())
    }

    #[inline(always)]
    fn acquire(&self, thread: usize, range: Range<u64>, access: Access) -> RangeGuard<'_> {
        match access {
            Access::Shared => self.0[thread].add(range),
            Access::Exclusive => self.0[thread].exclusive(range),
        }
    }
}
