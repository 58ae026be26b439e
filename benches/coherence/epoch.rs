//! A stand-in for crossbeam-epoch, whose own atomics cannot be traced: the same accesses to the same lines.
//!
//! It follows crossbeam-epoch 0.9 (`internal.rs`): a pin loads the global epoch and writes the thread's own; an unpin
//! writes the thread's own; each 128th pin of a thread tries to advance the epoch. For that it reads the epoch of every
//! thread in turn, gives up at one that is pinned in an older epoch, and otherwise writes the global one. Then it looks
//! for garbage, on the line of the queue's head. 64 retired objects make a bag, which goes into that queue.
//!
//! What it leaves out: nothing is freed before the next simulation, so that no address is used twice; and the list of
//! threads does not change, as everybody was there before.

use crate::cpus;
use crate::mesi::MAX_CPUS;
use crate::platform::sync::{AtomicU64, Ordering};
use crate::sites::Site;
use crossbeam_utils::CachePadded;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::ptr;

const PINS_BETWEEN_COLLECT: u64 = 128;
/// Retired objects that a thread keeps before it hands them to all.
const BAG: usize = 64;
const PINNED: u64 = 1;

/// A thread that takes part: on a line of its own each, what everybody reads who walks the list, and what the thread
/// writes.
struct Participant {
    next: CachePadded<AtomicU64>,
    epoch: CachePadded<AtomicU64>,
}

static GLOBAL: CachePadded<AtomicU64> = CachePadded::new(AtomicU64::new(0));
static QUEUE: CachePadded<AtomicU64> = CachePadded::new(AtomicU64::new(0));
static PARTICIPANTS: [Participant; MAX_CPUS] =
    [const { Participant { next: CachePadded::new(AtomicU64::new(0)), epoch: CachePadded::new(AtomicU64::new(0)) } };
        MAX_CPUS];

/// What a thread keeps to itself.
struct Local {
    guards: Cell<u64>,
    pins: Cell<u64>,
    bag: Cell<usize>,
}

crate::platform::sync::thread_local! {
    static LOCAL: Local = const { Local { guards: Cell::new(0), pins: Cell::new(0), bag: Cell::new(0) } };
}

type Garbage = Vec<Box<dyn FnOnce()>>;

std::thread_local! {
    static GARBAGE: RefCell<Garbage> = const { RefCell::new(Vec::new()) };
    static CPUS: Cell<usize> = const { Cell::new(0) };
}

/// Names the lines, for a simulation of so many CPUs.
pub(crate) fn begin(cpus: usize, atlas: &mut crate::sites::Atlas) {
    CPUS.set(cpus);
    let address = |atomic: &AtomicU64| ptr::from_ref(atomic).addr();
    atlas.name(address(&GLOBAL), Site::GlobalEpoch);
    atlas.name(address(&QUEUE), Site::GlobalEpoch);
    for participant in &PARTICIPANTS {
        atlas.name(address(&participant.next), Site::GlobalEpoch);
        atlas.name(address(&participant.epoch), Site::LocalEpoch);
    }
}

/// Frees what was retired: nobody runs.
pub(crate) fn end() {
    for free in GARBAGE.take() {
        free();
    }
}

/// Everybody is in one collector, and is known from the start.
pub(crate) struct Collector(());

impl Collector {
    pub(crate) fn new() -> Collector {
        Collector(())
    }

    pub(crate) fn register(&self) -> LocalHandle {
        LocalHandle(())
    }
}

pub(crate) struct LocalHandle(());

impl LocalHandle {
    pub(crate) fn pin(&self) -> Guard {
        pin()
    }

    #[cfg(test)]
    pub(crate) fn is_pinned(&self) -> bool {
        LOCAL.with(|local| local.guards.get() > 0)
    }
}

/// While it lives, the thread is pinned.
pub(crate) struct Guard(());

fn pin() -> Guard {
    let first = LOCAL.with(|local| {
        local.guards.set(local.guards.get() + 1);
        local.guards.get() == 1
    });
    if let (true, Some(cpu)) = (first, cpus::current()) {
        let epoch = GLOBAL.load(Ordering::Relaxed);
        let _was_unpinned =
            PARTICIPANTS[cpu].epoch.compare_exchange(0, epoch | PINNED, Ordering::SeqCst, Ordering::SeqCst);
        let pins = LOCAL.with(|local| local.pins.replace(local.pins.get() + 1));
        if pins % PINS_BETWEEN_COLLECT == 0 {
            try_advance();
            QUEUE.load(Ordering::Acquire);
        }
    }
    Guard(())
}

fn try_advance() {
    let global = GLOBAL.load(Ordering::Relaxed);
    for participant in &PARTICIPANTS[..CPUS.get()] {
        participant.next.load(Ordering::Acquire);
        let epoch = participant.epoch.load(Ordering::Relaxed);
        if epoch & PINNED != 0 && epoch & !PINNED != global {
            return;
        }
    }
    GLOBAL.store(global + 2, Ordering::Release);
}

impl Guard {
    /// # Safety
    /// `free` may be called at any later time, on this thread.
    pub(crate) unsafe fn defer_unchecked(&self, free: impl FnOnce() + 'static) {
        GARBAGE.with_borrow_mut(|garbage| garbage.push(Box::new(free)));
        let full = LOCAL.with(|local| {
            local.bag.set((local.bag.get() + 1) % BAG);
            local.bag.get() == 0
        });
        if full {
            self.flush();
        }
    }

    pub(crate) fn flush(&self) {
        if cpus::current().is_some() {
            GLOBAL.load(Ordering::Relaxed);
            QUEUE.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let last = LOCAL.with(|local| {
            local.guards.set(local.guards.get() - 1);
            local.guards.get() == 0
        });
        if let (true, Some(cpu)) = (last, cpus::current()) {
            PARTICIPANTS[cpu].epoch.store(0, Ordering::Release);
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}
