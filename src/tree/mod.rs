//! A lock-free interval tree of requests, whose shape follows contention.
//!
//! # Promise
//! [`Tree::place`] publishes a request; [`Tree::scan`] visits every live request that meets a range. Of two requests
//! that both place themselves and then scan, at least one sees the other. No step waits for another thread, unless a
//! [`Room`] does.
//!
//! # Shape
//! A radix tree over `u64` of fixed fan-out. A node covers an aligned power-of-two span, cut into equal cells, with a
//! few slots for requests and one child per cell; a child may cover less than its cell. A request in a node's slot lies
//! within that node's span, and that is all: it need not be in the deepest possible node. So nothing ever moves, there
//! is no balance and no augmentation to maintain, and a scan visits exactly the nodes whose spans meet its range.
//!
//! The tree is one node, its root, until threads meet there (or it is full). Then children grow where the requests are
//! (`place`), as many as the threads at work need (`quota`), and empty ones are removed again (`prune`). The root is
//! part of the lock: a quiet lock owns no heap and needs no pin.
//!
//! # Orderings
//! The slots' are in `slot` (S1 to S6).
//!
//! | pair | writer | reader | carries |
//! |---|---|---|---|
//! | T1 | link, splice, unlink: CAS of a link, Release | place, scan, prune: load, Acquire | the node; or all that was done in the removed one |
//! | T2 | freeze: `frozen`, `fence(SeqCst)`, then look at the slots | claim: publish, `fence(SeqCst)`, then look at `frozen` | one of them backs off |
//! | T3 | announce: a mode on each link of the way, then publish, `fence(SeqCst)` | scan: `fence(SeqCst)`, then load the link | what is behind a link is passed over only by who came first |
//! | T4 | scan: end the era, `fence(SeqCst)`, then look below its own node | shortcut: publish, `fence(SeqCst)`, then look at the era | one of them sees the other (`shortcut`) |
//! | T5 | who waits: draw a ticket (AcqRel), then look through the nodes of the chain that are newer than its own | who comes to one of these: publish, `fence(SeqCst)`, then scan | who was not there yet is behind, and need not be looked for again (`scan`) |
//!
//! **Why a scan misses nobody.** X and Y both publish, fence, then scan. Say Y's scan does not see X's slot. If Y
//! reached X's node, it read the state before X's publication, so Y's fence came before X's (S6), and X's scan sees Y.
//! If Y did not reach it, Y read some link before X's node was linked there; X had loaded that link, changed, before it
//! published, so again Y's fence came before X's. So too if Y read a link before X's mode stood on it: X had seen it
//! there, on every link up to its node, before it published, and it stays there as long as X (INV-N5). A node is
//! unlinked only when it is frozen and vacant, and X, in a frozen node, withdraws (T2).
//!
//! # Cost
//! A quiet acquire and release in the root, or by a shortcut: three atomic read-modify-writes. Otherwise one node per
//! level on the path, and the subtrees inside the range. A tree has at most 32 levels.
//!
//! # Source
//! Our own; the problem and the rivals' answers are listed in `docs/internals.md`.

mod bar;
#[cfg(all(any(test, fuzzing), not(any(loom, spanlock_shuttle))))]
pub(crate) mod bare;
mod node;
mod place;
mod places;
mod prune;
mod quick;
mod quota;
mod scan;
mod shortcut;
mod slot;
pub(crate) mod steps;
#[cfg(all(test, not(any(loom, spanlock_shuttle))))]
mod tests;

pub(crate) use node::SLOTS;
pub(crate) use quick::Glance;
pub(crate) use scan::{Extent, Query, Rank, Scope, Seen, Whose};
pub(crate) use shortcut::ByShortcut;
#[cfg(all(test, loom, spanlock_epoch))]
pub(crate) use shortcut::forget;
pub(crate) use slot::{Entry, Grant, Own, Placed, Rescan};

use crate::platform::reclaim::{LazyPin, Pin};
use crate::platform::sync::{Ordering, const_fn, hint};
use bar::Bar;
use node::{Node, Target};
use quota::Quota;
use shortcut::Era;

/// What the waiting side keeps for one node: made when somebody waits there for the first time, dropped with the node.
pub(crate) trait Room: Default + Send + Sync + 'static {
    /// Slot `index` went free, or moved from the holders to the queue, from a word of this [age](slot::Word::age): wake
    /// whoever waits for that one. Not those who wait for another: whoever is to say that it has changed wakes them,
    /// and may be late.
    fn slot_changed(&self, index: usize, age: u64);
}

/// `T` is what the layers above keep beside it. It is in here because there it costs nothing: a tree is aligned like a
/// node, and has room to spare.
pub(crate) struct Tree<R, T = ()> {
    root: Node<R>,
    shape: Shape,
    /// The byte that the pruner's hand has reached.
    hand: hint::AtomicU64,
    /// Whether somebody is moving it.
    is_sweeping: hint::AtomicBool,
    /// How many nodes the hand has left in chains when it last went to their ends, or as many as this holds; and how
    /// many were made since.
    chained: hint::AtomicU16,
    made: hint::AtomicU16,
    /// Twice the vacant nodes made for ranges that the hand may still spare in this round.
    credit: hint::AtomicU8,
    /// A number for the layers above, which those in conflict read, and nobody writes. (It is here because there is
    /// room.)
    most: u16,
    pub(crate) beside: T,
}

/// What changes with the tree's shape, or under conflict, and no more often, on a line of its own: whoever comes reads
/// it.
#[repr(align(64))]
struct Shape {
    /// Whether shortcuts are good.
    era: Era,
    /// The highest ticket of whoever queued here.
    bar: Bar,
    /// How many nodes there are for threads, and may be.
    quota: Quota,
    /// Numbers for the layers above, which those in conflict read: one that nobody writes, and two that are written
    /// seldom.
    window: u64,
    calm: hint::AtomicU64,
    rests_until: hint::AtomicU64,
}

// SAFETY: a tree owns its nodes and reaches them through atomic links; what is stored in them is atomics, integers and
// rooms, and rooms are used by several threads at once: hence `R: Send + Sync`. `T` is an ordinary field.
unsafe impl<R: Send + Sync, T: Send> Send for Tree<R, T> {}
// SAFETY: as above; every method takes `&self` and is made of atomic operations.
unsafe impl<R: Send + Sync, T: Sync> Sync for Tree<R, T> {}

impl<R: Room, T> Tree<R, T> {
    const_fn! {
        pub(crate) const fn new(beside: T) -> Tree<R, T> {
            Tree {
                root: Node::root(),
                shape: Shape {
                    era: Era::new(),
                    bar: Bar::new(),
                    quota: Quota::new(),
                    window: 0,
                    calm: hint::AtomicU64::new(0),
                    rests_until: hint::AtomicU64::new(0),
                },
                hand: hint::AtomicU64::new(0),
                is_sweeping: hint::AtomicBool::new(false),
                chained: hint::AtomicU16::new(0),
                made: hint::AtomicU16::new(0),
                credit: hint::AtomicU8::new(0),
                most: 0,
                beside,
            }
        }
    }

    /// What tells this tree from others, as long as it stays where it is.
    fn key(&self) -> usize {
        (&raw const self.root).addr()
    }

    /// What the bar has been raised to.
    #[inline(always)]
    pub(crate) fn bar(&self) -> u64 {
        self.shape.bar.now()
    }

    /// Raises the bar to `to`, unless it is there or higher.
    pub(crate) fn raise_bar(&self, to: u64) {
        self.shape.bar.raise(to);
    }

    #[inline]
    pub(crate) fn window(&self) -> u64 {
        self.shape.window
    }

    /// How many windows.
    #[inline]
    pub(crate) fn most(&self) -> u16 {
        self.most
    }

    pub(crate) const fn set_window(&mut self, window: u64, most: u16) {
        self.shape.window = window;
        self.most = most;
    }

    #[inline]
    pub(crate) fn calm(&self) -> u64 {
        self.shape.calm.load(Ordering::Relaxed)
    }

    pub(crate) fn set_calm(&self, calm: u64) {
        self.shape.calm.store(calm, Ordering::Relaxed);
    }

    pub(crate) fn rests_until(&self) -> u64 {
        self.shape.rests_until.load(Ordering::Relaxed)
    }

    pub(crate) fn rest_until(&self, time: u64) {
        self.shape.rests_until.store(time, Ordering::Relaxed);
    }

    /// Nodes on the heap: all but the root.
    pub(crate) fn heap_nodes(&self, pin: &Pin) -> usize {
        fn below<R: Room>(node: &Node<R>, pin: &Pin) -> usize {
            let children = node.children().iter().filter_map(|child| child.load().node(pin));
            node.chain(pin).count() + children.map(|child| 1 + below(child, pin)).sum::<usize>()
        }
        below(&self.root, pin)
    }

    /// Removes every node that is not in use. Each is looked at once, and who is at one meanwhile is not waited for
    /// (INV-P8).
    pub(crate) fn trim(&self, pin: &LazyPin) {
        if self.root.is_alone() {
            return;
        }
        let pin = pin.get();
        self.trim_below(&self.root, pin);
        self.hand.store(0, Ordering::Relaxed);
        pin.flush();
    }
}

impl<R, T> Drop for Tree<R, T> {
    fn drop(&mut self) {
        /// Recursion goes down levels, at most 32; chains, which can be long, are walked in the loop.
        fn free_below<R>(node: &Node<R>) {
            for child in node.children() {
                free(child.load());
            }
        }
        fn free<R>(mut target: Target<R>) {
            // SAFETY: the tree is being dropped: nobody else follows its links, and each node is linked in one place.
            while let Some(node) = unsafe { target.node_at_last() } {
                free_below(node);
                let next = node.overflow().load();
                // SAFETY: as above; the node was made by `Target::make`, and is not used any more.
                unsafe { target.let_go() };
                target = next;
            }
        }
        free_below(&self.root);
        free(self.root.overflow().load());
    }
}
