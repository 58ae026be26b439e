//! A stand-in for [`event`](super) and its deliveries in models: the same promises, few steps, and no order beyond what
//! it needs.
//!
//! Futures are not modelled: they differ from threads in how they are woken, no more.

use super::Woken;
use crate::platform::sync::thread::{self, Thread};
use crate::platform::sync::{AtomicBool, AtomicU64, Ordering};
use std::sync::atomic::AtomicBool as Flag;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

/// Threads are woken at once: nothing waits to be delivered.
pub(crate) fn deliver() {}

/// One event per slot of a node.
#[derive(Debug)]
pub(crate) struct Events<const N: usize>([Event; N]);

impl<const N: usize> Default for Events<N> {
    fn default() -> Self {
        Events(std::array::from_fn(|_| Event::new()))
    }
}

impl<const N: usize> Events<N> {
    pub(crate) fn listen(&self, slot: usize, age: u64) -> Listener {
        self.0[slot].listen(age)
    }

    pub(crate) fn notify(&self, slot: usize, age: u64) {
        self.0[slot].notify(age);
    }
}

#[derive(Debug)]
struct Entry {
    age: u64,
    notified: AtomicBool,
    /// Whether the thread is in `wait`. Invisible to the model. Any other thread must not be unparked: loom would wake
    /// it from a mutex or a join, and take the notification for something that both have seen.
    waits: Flag,
    thread: Thread,
}

/// `list` is invisible to the model, which runs one thread at a time; `turn` is where it may switch, and what orders
/// the two sides.
#[derive(Debug)]
struct Event {
    turn: AtomicU64,
    list: Mutex<Vec<Arc<Entry>>>,
}

impl Event {
    fn new() -> Event {
        Event { turn: AtomicU64::new(0), list: Mutex::new(Vec::new()) }
    }

    fn listen(&self, age: u64) -> Listener {
        let entry = Arc::new(Entry {
            age,
            notified: AtomicBool::new(false),
            waits: Flag::new(false),
            thread: thread::current(),
        });
        // The turn comes first, as in `notify`: a model switches before an atomic access and nowhere else, so each turn
        // and the look at the list behind it are one step.
        self.turn.fetch_add(1, Ordering::AcqRel);
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push(entry.clone());
        Listener { place: entry, also: None }
    }

    fn notify(&self, age: u64) {
        self.turn.fetch_add(1, Ordering::AcqRel);
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let (woken, later) = std::mem::take(&mut *list).into_iter().partition(|entry| entry.age == age);
        *list = later;
        drop(list);
        let woken: Vec<Arc<Entry>> = woken;
        for entry in woken {
            entry.notified.swap(true, Ordering::Release);
            if entry.waits.load(Ordering::Relaxed) {
                entry.thread.unpark();
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Listener {
    place: Arc<Entry>,
    also: Option<Arc<Entry>>,
}

impl Listener {
    pub(crate) fn and(self, other: Listener) -> Listener {
        Listener { place: self.place, also: Some(other.place) }
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        [Some(&self.place), self.also.as_ref()].into_iter().flatten().map(|entry| &**entry)
    }

    /// By swaps, like their counterpart: they read the latest value, and nobody sleeps on because a load was behind.
    fn is_notified(&self) -> bool {
        self.entries().fold(false, |any, entry| any | entry.notified.swap(false, Ordering::Acquire))
    }

    pub(crate) fn wait(self) {
        self.entries().for_each(|entry| entry.waits.store(true, Ordering::Relaxed));
        while !self.is_notified() {
            thread::park();
        }
        self.entries().for_each(|entry| entry.waits.store(false, Ordering::Relaxed));
    }

    /// A model has no clock: the deadline passes at once, unless the notification was faster.
    pub(crate) fn wait_until(self, _deadline: Instant) -> Woken {
        if self.is_notified() { Woken::Notified } else { Woken::TimedOut }
    }

    pub(crate) fn poll(&mut self, _context: &mut Context<'_>) -> Poll<()> {
        unreachable!("futures are not modelled")
    }
}
