//! Segment locks, the idea of pNOVA (APSys'19): the file is an array of 4 KiB segments, each with a lock of its own,
//! taken in ascending order. Ranges are rounded out to segments; the cost grows with the range's length. The locks are
//! parking_lot's. Where the file is larger than it was made for, segments far apart share a lock.

use super::stripes::stripes;
use super::{Access, Covers, Peer};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use smallvec::SmallVec;
use std::ops::Range;

const SEGMENT: u64 = 4096;

#[derive(Debug)]
pub(crate) struct Segments(Box<[RwLock<()>]>);

#[derive(Debug)]
#[allow(dead_code)]
pub(crate) enum Held<'a> {
    Shared(SmallVec<[RwLockReadGuard<'a, ()>; 2]>),
    Exclusive(SmallVec<[RwLockWriteGuard<'a, ()>; 2]>),
}

impl Peer for Segments {
    const NAME: &'static str = "segments";
    const COVERS: Covers = Covers::Range;
    type Guard<'a> = Held<'a>;

    fn new(bytes: u64) -> Segments {
        Segments((0..bytes.div_ceil(SEGMENT)).map(|_| RwLock::new(())).collect())
    }

    #[inline]
    fn acquire(&self, _thread: usize, range: Range<u64>, access: Access) -> Held<'_> {
        let [low, high] = stripes(range.start / SEGMENT..range.end.div_ceil(SEGMENT), self.0.len());
        let segments = self.0[low].iter().chain(&self.0[high]);
        match access {
            Access::Shared => Held::Shared(segments.map(RwLock::read).collect()),
            Access::Exclusive => Held::Exclusive(segments.map(RwLock::write).collect()),
        }
    }
}
