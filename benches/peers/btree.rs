//! A B-tree of held ranges under a mutex, with one condition variable for all who wait: what Chinner tried for XFS,
//! with std's `BTreeMap`.
//!
//! The held pieces never overlap: where shared ranges do, they are cut into pieces, each with a count of its holders.
//! So the pieces in a range are found from their starts alone. No order among waiters; each release with waiters wakes
//! all of them.

use super::{Access, Covers, Peer};
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::ops::Range;

#[derive(Debug)]
pub(crate) struct BTree {
    held: Mutex<Held>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    /// By start.
    pieces: BTreeMap<u64, Piece>,
    waiters: usize,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    end: u64,
    access: Access,
    holders: usize,
}

impl Held {
    fn is_free(&self, range: &Range<u64>, access: Access) -> bool {
        let mut before = self.pieces.range(..range.end).rev();
        // From the last one backwards: the ends descend, too.
        let mut overlapping = before.by_ref().map(|(_, piece)| piece).take_while(|piece| piece.end > range.start);
        overlapping.all(|piece| access == Access::Shared && piece.access == Access::Shared)
    }

    /// Cuts the piece that has `at` inside.
    fn cut(&mut self, at: u64) {
        if let Some((_, piece)) = self.pieces.range_mut(..at).next_back() {
            if piece.end > at {
                let rest = *piece;
                piece.end = at;
                self.pieces.insert(at, rest);
            }
        }
    }

    fn insert(&mut self, range: &Range<u64>, access: Access) {
        if access == Access::Shared {
            self.cut(range.start);
            self.cut(range.end);
        }
        let mut at = range.start;
        while at < range.end {
            let next = self.pieces.range_mut(at..range.end).next();
            let (start, end) = next.map_or((range.end, range.end), |(&start, piece)| {
                piece.holders += 1;
                (start, piece.end)
            });
            if at < start {
                self.pieces.insert(at, Piece { end: start, access, holders: 1 });
            }
            at = end;
        }
    }

    fn remove(&mut self, range: &Range<u64>) {
        let mut at = range.start;
        while at < range.end {
            let piece = self.pieces.get_mut(&at).expect("held pieces cover a held range");
            let start = std::mem::replace(&mut at, piece.end);
            piece.holders -= 1;
            if piece.holders == 0 {
                self.pieces.remove(&start);
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Guard<'a>(&'a BTree, Range<u64>);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let mut held = self.0.held.lock();
        held.remove(&self.1);
        let waiters = held.waiters;
        drop(held);
        if waiters > 0 {
            self.0.bell.notify_all();
        }
    }
}

impl Peer for BTree {
    const NAME: &'static str = "btree";
    const COVERS: Covers = Covers::Range;
    type Guard<'a> = Guard<'a>;

    fn new(_bytes: u64) -> BTree {
        BTree { held: Mutex::default(), bell: Condvar::new() }
    }

    fn acquire(&self, _thread: usize, range: Range<u64>, access: Access) -> Guard<'_> {
        let mut held = self.held.lock();
        while !held.is_free(&range, access) {
            held.waiters += 1;
            self.bell.wait(&mut held);
            held.waiters -= 1;
        }
        held.insert(&range, access);
        Guard(self, range)
    }
}
