//! A stand-in for the library's `wait`: who parks is a CPU that does nothing until the event's line is written.
//!
//! An event is one word that counts notifications. To listen is a read-modify-write of it, as the real one takes a
//! mutex there and puts itself into a list; so is to leave, and to notify. Spinning is the library's.

use crate::platform::sync::{AtomicU64, Ordering};
use crossbeam_utils::CachePadded;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// As in `src/wait/mod.rs`.
const SPINS: u32 = 200;

/// One notification; the bits below count those who came and went.
const NOTIFIED: u64 = 1 << 32;

type Event = Arc<CachePadded<AtomicU64>>;

#[derive(Debug)]
pub(crate) struct Events<const N: usize>([Event; N]);

impl<const N: usize> Default for Events<N> {
    fn default() -> Self {
        Events(std::array::from_fn(|_| Event::default()))
    }
}

impl<const N: usize> Events<N> {
    pub(crate) fn listen(&self, slot: usize, _age: u64) -> Listener {
        let event = self.0[slot].clone();
        let seen = event.fetch_add(1, Ordering::AcqRel) / NOTIFIED;
        Listener { event, seen }
    }

    pub(crate) fn notify(&self, slot: usize, _age: u64) {
        self.0[slot].fetch_add(NOTIFIED, Ordering::AcqRel);
    }
}

#[derive(Debug)]
pub(crate) struct Listener {
    event: Event,
    /// Notifications when it began to listen.
    seen: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    Notified,
    TimedOut,
}

impl Listener {
    fn was_notified(&self) -> bool {
        self.event.load(Ordering::Acquire) / NOTIFIED != self.seen
    }

    /// No request of a workload is nested: none owes a search.
    pub(crate) fn and(self, _other: Listener) -> Listener {
        unreachable!("searches that are owed are not simulated")
    }

    pub(crate) fn wait(self) {
        while !self.was_notified() {
            self.event.wait_for_write();
        }
    }

    pub(crate) fn wait_until(self, deadline: Instant) -> Woken {
        while !self.was_notified() {
            if Instant::now() >= deadline {
                return Woken::TimedOut;
            }
        }
        Woken::Notified
    }

    pub(crate) fn poll(&mut self, _context: &mut Context<'_>) -> Poll<()> {
        unreachable!("futures are not simulated")
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.event.fetch_add(1, Ordering::AcqRel);
    }
}

pub(crate) fn spend(_context: &Context<'_>) -> Poll<()> {
    unreachable!("futures are not simulated")
}

/// Tasks are not simulated, and threads are woken at once.
pub(crate) fn deliver() {}

/// Nothing is remembered: a simulated processor has nothing better to do.
#[derive(Debug)]
pub(crate) struct Luck;

impl Luck {
    pub(crate) const fn new() -> Luck {
        Luck
    }
}

/// As the library's. Only threads that wait without an end are simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code)]
pub(crate) enum Patience {
    None,
    Spin,
    GiveWay,
}

pub(crate) fn look_for(_luck: &Luck, _: Patience, _ahead: usize, done: impl Fn() -> bool) -> bool {
    (0..SPINS).any(|_| done())
}

/// No lock of a simulation has a window.
#[derive(Debug)]
pub(crate) struct Lingering;

impl Lingering {
    pub(crate) fn new() -> Lingering {
        Lingering
    }

    pub(crate) fn may_go_on(&mut self, _: &Luck, _: Patience) -> bool {
        false
    }

    pub(crate) fn pause(&mut self) {}

    pub(crate) fn has_paid(&self, _: &Luck) {}
}
