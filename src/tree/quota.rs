//! How many nodes a tree makes so that threads part: in proportion to the threads at work, not to the places that they
//! touch.
//!
//! # Promise
//! A tree makes at most [`PER_THREAD`] such nodes for each thread at work, wherever these threads ask, and comes down
//! to [`TOO_MANY_PER_THREAD`] when some have gone. Nodes for ranges that find no room are no part of this: they follow
//! the live ranges; of these that are vacant the pruner spares [`SPARED_PER_THREAD`], and one for two that are in use.
//!
//! # How
//! Each thread that looks at the tree's shape leaves its bit in a set. When those in it have had some turns to tidy up,
//! the next set begins: a *spell* is over. At work are the threads of this spell and of the last one: threads that run,
//! that is, as spells are short. More than 64 count as 64. So nodes are made for threads that run beside one another.
//! Whether there are too many, goes by the most that were at work in any of some spells: a thread that was off its
//! processor for a while finds its nodes again.
//!
//! A node that parts threads costs those who look for what is in their way across it. So where one of thirteen requests
//! looks at several nodes below its own, as random ranges of a small file do, no cell is given one more; and where one
//! of nine does, the pruner takes those out that are vacant. That such nodes were in the way is forgotten slowly: in
//! some 6000 requests, when none is left.
//!
//! Everything here is a hint: it steers growth, and no argument about exclusion, order or memory rests on it.

use crate::facts::owner::Visitor;
use crate::platform::sync::{Ordering, const_fn, hint};

/// Nodes that are made for each thread at work.
const PER_THREAD: usize = 12;

/// Nodes for each thread above which the pruner spares none of them: the others were made for threads that have gone.
const TOO_MANY_PER_THREAD: usize = 16;

/// Vacant nodes that were made for ranges, and that the pruner spares, for each thread at work.
const SPARED_PER_THREAD: usize = 2;

/// Turns of tidying up, for each thread at work, that a spell lasts.
const TURNS: u64 = 4;

/// Spells for which it counts how many threads were at work.
const SPELLS: u64 = 8;

/// Shares of the part of the space where threads have nodes: a thread remembers one place in each. (One in a model:
/// there are no more places there.)
pub(super) const SHARES: usize = if cfg!(any(loom, spanlock_shuttle)) { 1 } else { 32 };

pub(super) struct Quota {
    /// Nodes in the tree that were made for threads to part.
    nodes: hint::AtomicU16,
    /// The threads that looked at the shape in this spell, a bit each; and in the one before.
    threads: hint::AtomicU64,
    threads_before: hint::AtomicU64,
    /// Turns of tidying up since the spell began.
    turns: hint::AtomicU8,
    /// Spells since the last one that counts for `most_before`.
    spells: hint::AtomicU8,
    /// The most threads that were at work since then; and in as many spells before.
    most: hint::AtomicU8,
    most_before: hint::AtomicU8,
    /// How often requests look at several nodes below their own: up by a sixteenth of what is left to 255 for each
    /// sampled one that does, down by one for each that does not.
    broad: hint::AtomicU8,
    /// log2 of the bytes in a share of the largest span of such a node: where they all are. It only rises.
    share_shift: hint::AtomicU8,
}

impl Quota {
    const_fn! {
        pub(super) const fn new() -> Quota {
            Quota {
                nodes: hint::AtomicU16::new(0),
                threads: hint::AtomicU64::new(0),
                threads_before: hint::AtomicU64::new(0),
                turns: hint::AtomicU8::new(0),
                spells: hint::AtomicU8::new(0),
                most: hint::AtomicU8::new(0),
                most_before: hint::AtomicU8::new(0),
                broad: hint::AtomicU8::new(0),
                share_shift: hint::AtomicU8::new(0),
            }
        }
    }

    /// `visitor` looks at the tree's shape. (What two threads store at the same moment may be lost, here and below: it
    /// comes again.)
    pub(super) fn note(&self, visitor: Visitor) {
        let bit = 1 << (visitor.mark() % 64);
        let seen = self.threads.load(Ordering::Relaxed);
        if seen & bit == 0 {
            self.threads.store(seen | bit, Ordering::Relaxed);
            let at_work = self.threads_at_work() as u8;
            if at_work > self.most.load(Ordering::Relaxed) {
                self.most.store(at_work, Ordering::Relaxed);
            }
        }
    }

    /// A thread has its turn to tidy up.
    pub(super) fn count_turn(&self) {
        let turns = u64::from(self.turns.load(Ordering::Relaxed)) + 1;
        let is_over = turns >= TURNS * self.threads_at_work().min(32) as u64;
        self.turns.store(if is_over { 0 } else { turns as u8 }, Ordering::Relaxed);
        if is_over {
            self.threads_before.store(self.threads.load(Ordering::Relaxed), Ordering::Relaxed);
            self.threads.store(0, Ordering::Relaxed);
            self.count_spell();
        }
    }

    fn count_spell(&self) {
        let spells = u64::from(self.spells.load(Ordering::Relaxed)) + 1;
        self.spells.store((spells % SPELLS) as u8, Ordering::Relaxed);
        if spells >= SPELLS {
            self.most_before.store(self.most.load(Ordering::Relaxed), Ordering::Relaxed);
            self.most.store(self.threads_at_work() as u8, Ordering::Relaxed);
        }
    }

    fn threads_at_work(&self) -> usize {
        let threads = self.threads.load(Ordering::Relaxed) | self.threads_before.load(Ordering::Relaxed);
        threads.count_ones() as usize
    }

    /// Whether there are others at work than one thread.
    #[inline]
    pub(super) fn is_shared(&self) -> bool {
        let threads = self.threads.load(Ordering::Relaxed) | self.threads_before.load(Ordering::Relaxed);
        threads & threads.wrapping_sub(1) != 0
    }

    fn nodes(&self) -> usize {
        usize::from(self.nodes.load(Ordering::Relaxed))
    }

    /// Whether threads may have one node more: to cut a node that is whole, or, up to the end, to complete one that is
    /// cut already. So no thread is left above nodes of others for want of those that were spent on smaller places.
    pub(super) fn has_room(&self, is_cut: bool) -> bool {
        let most = if is_cut { PER_THREAD } else { PER_THREAD / 2 };
        self.nodes() < most * self.threads_at_work()
    }

    /// Whether they have more than the threads that were at work lately should.
    pub(super) fn is_exceeded(&self) -> bool {
        self.nodes() > TOO_MANY_PER_THREAD * self.threads_lately()
    }

    /// How many vacant nodes that were made for ranges are spared for the threads that were at work lately.
    /// (Whoever asks is at work, and may not have been counted yet.)
    pub(super) fn spared(&self) -> usize {
        SPARED_PER_THREAD * self.threads_lately().max(1)
    }

    fn threads_lately(&self) -> usize {
        usize::from(self.most.load(Ordering::Relaxed).max(self.most_before.load(Ordering::Relaxed)))
    }

    /// A request looks at several nodes below its own, or not.
    pub(super) fn note_breadth(&self, is_broad: bool) {
        let before = self.broad.load(Ordering::Relaxed);
        let now = if is_broad { before + (u8::MAX - before).div_ceil(16) } else { before.saturating_sub(1) };
        if now != before {
            self.broad.store(now, Ordering::Relaxed);
        }
    }

    /// Whether nodes that part threads cost others too much: one more, or those that are there.
    pub(super) fn is_in_the_way(&self, is_there: bool) -> bool {
        self.broad.load(Ordering::Relaxed) > if is_there { u8::MAX / 2 } else { u8::MAX / 4 }
    }

    /// log2 of the bytes in a share of the part of the space where threads have nodes, about.
    #[inline(always)]
    pub(super) fn share_shift(&self) -> u32 {
        u32::from(self.share_shift.load(Ordering::Relaxed))
    }

    /// A node for threads was linked, with a span of `1 << shift` bytes.
    pub(super) fn node_made(&self, shift: u32) {
        let share = shift.saturating_sub(SHARES.ilog2());
        if share > self.share_shift() {
            self.share_shift.store(share as u8, Ordering::Relaxed);
        }
        self.nodes.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn node_removed(&self) {
        // Wrapping: one less.
        self.nodes.fetch_add(u16::MAX, Ordering::Relaxed);
    }
}
