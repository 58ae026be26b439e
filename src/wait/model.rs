//! A stand-in for `event-listener` in models: the same promises, few steps, and no order beyond what it needs.

use super::Woken;
use crate::sync::thread::{self, Thread};
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use std::sync::atomic::AtomicBool as Flag;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Tasks are not modelled: nothing waits to be delivered.
pub(crate) fn deliver() {}

#[derive(Debug)]
struct Entry {
    notified: AtomicBool,
    /// Whether the thread is in `wait`. Invisible to the model. Any other thread must not be unparked: loom would wake it from a mutex or a join, and take
    /// the notification for something that both have seen.
    waits: Flag,
    thread: Thread,
}

/// `list` is invisible to the model, which runs one thread at a time; `turn` is where it may switch, and what orders the two sides.
#[derive(Debug)]
pub(super) struct Event {
    turn: AtomicU64,
    list: Mutex<Vec<Arc<Entry>>>,
}

impl Event {
    pub(super) fn new() -> Event {
        Event { turn: AtomicU64::new(0), list: Mutex::new(Vec::new()) }
    }

    pub(super) fn listen(&self) -> EventListener {
        let entry =
            Arc::new(Entry { notified: AtomicBool::new(false), waits: Flag::new(false), thread: thread::current() });
        // The turn comes first, as in `notify`: a model switches before an atomic access and nowhere else, so each turn and the
        // look at the list behind it are one step.
        self.turn.fetch_add(1, Ordering::AcqRel);
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push(entry.clone());
        EventListener(entry)
    }

    pub(super) fn notify(&self, _all: usize) {
        self.turn.fetch_add(1, Ordering::AcqRel);
        let woken = std::mem::take(&mut *self.list.lock().unwrap_or_else(PoisonError::into_inner));
        for entry in woken {
            entry.notified.swap(true, Ordering::Release);
            if entry.waits.load(Ordering::Relaxed) {
                entry.thread.unpark();
            }
        }
    }
}

/// Parks the thread until one of the two is notified; or looks at both of them, if there is a deadline.
pub(super) fn wait_for_first(places: [EventListener; 2], deadline: Option<Instant>) -> Woken {
    places.iter().for_each(|place| place.0.waits.store(true, Ordering::Relaxed));
    let is_heard = || places.iter().fold(false, |any, place| any | place.is_notified());
    let mut heard = is_heard();
    while !heard && deadline.is_none() {
        thread::park();
        heard = is_heard();
    }
    places.iter().for_each(|place| place.0.waits.store(false, Ordering::Relaxed));
    if heard { Woken::Notified } else { Woken::TimedOut }
}

#[derive(Debug)]
pub(super) struct EventListener(Arc<Entry>);

impl EventListener {
    /// By a swap, like its counterpart: that reads the latest value, and nobody sleeps on because a load was behind.
    fn is_notified(&self) -> bool {
        self.0.notified.swap(false, Ordering::Acquire)
    }

    pub(super) fn wait(self) {
        self.0.waits.store(true, Ordering::Relaxed);
        while !self.is_notified() {
            thread::park();
        }
        self.0.waits.store(false, Ordering::Relaxed);
    }

    /// A model has no clock: the deadline passes at once, unless the notification was faster.
    pub(super) fn wait_deadline(self, _deadline: Instant) -> Option<()> {
        self.is_notified().then_some(())
    }
}
