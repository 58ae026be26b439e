//! Who asks: the identity that a request is checked against, and the little that a thread keeps of its own.
//!
//! An owner never conflicts with itself. A blocking call's owner is its thread; a future has one of its own, because tasks
//! move between threads. Ids are drawn in blocks, one block per thread at a time, so that drawing one for each future
//! touches a shared counter once in [`BLOCK`] times. An id is never used twice (2^64 ids outlast any process).

use crate::sync::{AtomicU64, Ordering, thread_local};
use crossbeam_utils::CachePadded;
use std::cell::Cell;

/// Ids that a thread draws at once.
const BLOCK: u64 = 1024;

/// One acquire in this many looks at whether its node is contended (see `tree::place`), so that the others stay clean.
const SAMPLE: u32 = 32;

/// One acquire in this many looks for nodes that are not needed any more (see `tree::prune`).
const TIDY: u32 = 1024;

/// An owner. Never zero: zero is what a slot that was never used says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnerId(u64);

impl OwnerId {
    #[inline]
    pub(crate) const fn get(self) -> u64 {
        self.0
    }
}

/// What a thread brings to an acquire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visitor {
    /// The thread as an owner.
    pub(crate) thread: OwnerId,
    /// The number of this acquire among the thread's own.
    acquire: u32,
}

impl Visitor {
    /// A thread of a test's own making, at its first sampled acquire.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn sampling(number: u64) -> Visitor {
        Visitor { thread: OwnerId(number * BLOCK), acquire: SAMPLE }
    }

    /// The same, at an acquire that samples nothing.
    #[cfg(test)]
    pub(crate) fn passing(number: u64) -> Visitor {
        Visitor { thread: OwnerId(number * BLOCK), acquire: 1 }
    }

    /// A number that differs between threads that were started one after the other: where to look for a slot first.
    #[inline]
    pub(crate) fn home(self) -> usize {
        (self.thread.0 / BLOCK) as usize
    }

    /// Whether this acquire is one of those that look at the tree's shape. Models decide about growth themselves.
    #[inline]
    pub(crate) fn samples(self) -> bool {
        cfg!(not(loom)) && self.acquire % SAMPLE == 0
    }

    /// Whether it also tidies up; only one that samples does.
    pub(crate) fn tidies(self) -> bool {
        self.acquire % TIDY == 0
    }

    /// The thread's mark in the nodes that it uses: 31 bits, never zero.
    #[inline]
    pub(crate) fn mark(self) -> u32 {
        // Two threads may share one by chance: then they look like one to the tree's growth, no more.
        (self.thread.0 / BLOCK) as u32 % (u32::MAX >> 1) + 1
    }
}

/// A thread's own state. No destructor, so that it can be used while a thread ends.
struct Local {
    /// The thread's own id; zero until its first acquire.
    thread: Cell<u64>,
    /// The next id of the thread's block, and the end of that block.
    next: Cell<u64>,
    end: Cell<u64>,
    /// Acquires so far.
    acquires: Cell<u32>,
}

impl Local {
    const fn new() -> Local {
        Local { thread: Cell::new(0), next: Cell::new(0), end: Cell::new(0), acquires: Cell::new(0) }
    }

    #[cold]
    fn refill(&self) {
        // Relaxed: only distinct values matter.
        let base = draw_block();
        self.next.set(base);
        self.end.set(base + BLOCK);
    }

    fn draw(&self) -> u64 {
        if self.next.get() == self.end.get() {
            self.refill();
        }
        let id = self.next.get();
        self.next.set(id + 1);
        id
    }

    #[cold]
    fn introduce(&self) -> u64 {
        // A new block, so that threads differ in more than the low bits (see `Visitor::home`).
        self.refill();
        let id = self.draw();
        self.thread.set(id);
        id
    }
}

#[cfg(not(loom))]
thread_local! {
    static LOCAL: Local = const { Local::new() };
}
#[cfg(loom)]
thread_local! {
    static LOCAL: Local = Local::new();
}

/// The calling thread, at the start of an acquire.
#[inline]
pub(crate) fn visit() -> Visitor {
    LOCAL.with(|local| {
        let thread = match local.thread.get() {
            0 => local.introduce(),
            id => id,
        };
        let acquire = local.acquires.get().wrapping_add(1);
        local.acquires.set(acquire);
        Visitor { thread: OwnerId(thread), acquire }
    })
}

/// An owner that nobody had before.
pub(crate) fn fresh() -> OwnerId {
    LOCAL.with(|local| OwnerId(local.draw()))
}

/// The next ticket: a place in the order in which conflicting requests are granted. One sequence for the whole process,
/// touched under conflict only.
///
/// ORDERING: AcqRel, and drawn after the request was published: whoever draws a higher ticket has then seen, or will see, the
/// publication of everyone with a lower one. With Relaxed two requests can each believe to be first (loom finds it).
pub(crate) fn next_ticket() -> u64 {
    counters(|counters| counters.tickets.fetch_add(1, Ordering::AcqRel))
}

fn draw_block() -> u64 {
    counters(|counters| counters.blocks.fetch_add(BLOCK, Ordering::Relaxed))
}

/// What the whole process shares. Ids start at one block, tickets at one: zero means none.
struct Counters {
    blocks: CachePadded<AtomicU64>,
    tickets: CachePadded<AtomicU64>,
}

#[cfg(not(loom))]
fn counters<T>(f: impl FnOnce(&Counters) -> T) -> T {
    static COUNTERS: Counters =
        Counters { blocks: CachePadded::new(AtomicU64::new(BLOCK)), tickets: CachePadded::new(AtomicU64::new(1)) };
    f(&COUNTERS)
}

#[cfg(loom)]
fn counters<T>(f: impl FnOnce(&Counters) -> T) -> T {
    loom::lazy_static! {
        static ref COUNTERS: Counters = Counters {
            blocks: CachePadded::new(AtomicU64::new(BLOCK)),
            tickets: CachePadded::new(AtomicU64::new(1)),
        };
    }
    f(&COUNTERS)
}
