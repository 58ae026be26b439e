//! How many nodes a tree makes so that threads part: in proportion to the threads at work, not to the places that they touch.
//!
//! # Promise
//! A tree makes at most [`PER_THREAD`] such nodes for each thread at work, wherever these threads ask. Nodes for ranges that find no room are no part of
//! this: they follow the live ranges.
//!
//! # How
//! Each thread that looks at the tree's shape leaves its bit in a set; when all have had some turns to tidy up, that set becomes the last one, and the next one begins.
//! The threads in both are those at work. More than 64 count as 64.
//!
//! Everything here is a hint: it steers growth, and no argument about exclusion, order or memory rests on it.

use crate::owner::Visitor;
use crate::sync::{Ordering, const_fn, hint};

/// Nodes that are made for each thread at work.
const PER_THREAD: usize = 12;

/// Nodes for each thread above which the pruner spares none of them: the others were made for threads that have gone.
const TOO_MANY_PER_THREAD: usize = 16;

/// Turns of tidying up, for each thread at work, that a set of threads lasts.
const TURNS: u64 = 4;

pub(super) struct Quota {
    /// Nodes in the tree that were made for threads to part.
    nodes: hint::AtomicU64,
    /// The threads that looked at the shape lately, a bit each; and those before.
    threads: hint::AtomicU64,
    threads_before: hint::AtomicU64,
    /// Turns of tidying up since the set began.
    turns: hint::AtomicU64,
    /// log2 of the bytes in the largest span of such a node: where they all are. It only rises.
    span_shift: hint::AtomicU8,
}

impl Quota {
    const_fn! {
        pub(super) const fn new() -> Quota {
            Quota {
                nodes: hint::AtomicU64::new(0),
                threads: hint::AtomicU64::new(0),
                threads_before: hint::AtomicU64::new(0),
                turns: hint::AtomicU64::new(0),
                span_shift: hint::AtomicU8::new(0),
            }
        }
    }

    /// `visitor` looks at the tree's shape.
    pub(super) fn note(&self, visitor: Visitor) {
        let bit = 1 << (visitor.mark() % 64);
        let seen = self.threads.load(Ordering::Relaxed);
        if seen & bit == 0 {
            // What another thread stores at the same moment may be lost: it comes again.
            self.threads.store(seen | bit, Ordering::Relaxed);
        }
    }

    /// A thread has its turn to tidy up.
    pub(super) fn count_turn(&self) {
        let turns = self.turns.load(Ordering::Relaxed) + 1;
        let over = turns >= TURNS * self.threads_at_work() as u64;
        self.turns.store(if over { 0 } else { turns }, Ordering::Relaxed);
        if over {
            let seen = self.threads.load(Ordering::Relaxed);
            self.threads_before.store(seen, Ordering::Relaxed);
            self.threads.store(0, Ordering::Relaxed);
        }
    }

    fn threads_at_work(&self) -> usize {
        let threads = self.threads.load(Ordering::Relaxed) | self.threads_before.load(Ordering::Relaxed);
        threads.count_ones() as usize
    }

    /// Whether there are others at work than one thread.
    pub(super) fn is_shared(&self) -> bool {
        self.threads_at_work() > 1
    }

    fn nodes(&self) -> usize {
        self.nodes.load(Ordering::Relaxed) as usize
    }

    /// Whether threads may have one node more.
    pub(super) fn has_room(&self) -> bool {
        self.nodes() < PER_THREAD * self.threads_at_work()
    }

    /// Whether they have more than the threads at work should.
    pub(super) fn is_exceeded(&self) -> bool {
        self.nodes() > TOO_MANY_PER_THREAD * self.threads_at_work()
    }

    /// log2 of the bytes in the part of the space where threads have nodes, about.
    #[inline(always)]
    pub(super) fn span_shift(&self) -> u32 {
        u32::from(self.span_shift.load(Ordering::Relaxed))
    }

    /// A node for threads was linked, with a span of `1 << shift` bytes.
    pub(super) fn node_made(&self, shift: u32) {
        if shift > self.span_shift() {
            self.span_shift.store(shift as u8, Ordering::Relaxed);
        }
        self.nodes.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn node_removed(&self) {
        // Wrapping: one less.
        self.nodes.fetch_add(u64::MAX, Ordering::Relaxed);
    }
}

/// Where threads were found when they last looked at the shape of a tree.
pub(super) mod places {
    use super::super::slot::Entry;
    use crate::owner::Visitor;
    use crate::sync::thread_local;
    use std::cell::Cell;

    /// Places that a thread remembers: of so many trees, if it goes round among them.
    const PLACES: usize = 16;

    #[derive(Clone, Copy)]
    struct Place {
        /// Whose, of the tests' threads, and in which tree.
        of: (u16, usize),
        range: (u64, u64),
    }

    const NOWHERE: Place = Place { of: (0, 0), range: (0, 0) };

    #[cfg(not(any(loom, spanlock_shuttle)))]
    thread_local! {
        static LAST: [Cell<Place>; PLACES] = const { [const { Cell::new(NOWHERE) }; PLACES] };
    }
    #[cfg(any(loom, spanlock_shuttle))]
    thread_local! {
        static LAST: [Cell<Place>; PLACES] = [const { Cell::new(NOWHERE) }; PLACES];
    }

    /// The visitor is found at the range of `entry` in the tree with this key; returns where it was found there before.
    pub(in super::super) fn swap(tree: usize, visitor: Visitor, entry: &Entry) -> Option<(u64, u64)> {
        let of = (visitor.mark(), tree);
        LAST.with(|last| {
            // Trees are as far apart as a lock is large.
            let place = &last[(tree / 512 + usize::from(of.0)) % PLACES];
            let before = place.replace(Place { of, range: (entry.start, entry.last) });
            (before.of == of).then_some(before.range)
        })
    }
}
