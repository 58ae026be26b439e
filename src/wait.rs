//! Waiting: spin a little, then park. Threads, deadlines and futures sleep on one mechanism, `event-listener`.
//!
//! A waiter *listens* first and then makes sure that there is something to wait for; whoever changes things notifies everyone
//! who listens to the slot concerned. Wake-ups may be spurious (a slot has many occupants over time), so a woken waiter looks again.
//!
//! A listener owns its place in the list: it needs neither a pin nor the node that it was made in.

use std::task::{Context, Poll};
use std::time::Instant;

#[cfg(loom)]
use model::{Event, EventListener};
#[cfg(not(loom))]
use {
    event_listener::{Event, EventListener, Listener as _},
    std::{future::Future, pin::Pin, sync::OnceLock, thread},
};

/// How often a waiter looks before it sleeps. Some microseconds: a grant that a spinner picks up costs a tenth of a
/// microsecond, one that goes through the system twenty or more.
const SPINS: u32 = 200;

/// One event per slot of a node.
#[derive(Debug)]
pub(crate) struct Events<const N: usize>([Event; N]);

impl<const N: usize> Default for Events<N> {
    fn default() -> Self {
        Events(std::array::from_fn(|_| Event::new()))
    }
}

impl<const N: usize> Events<N> {
    /// Hears every [`Events::notify`] of `slot` from now on.
    pub(crate) fn listen(&self, slot: usize) -> Listener {
        Listener(self.0[slot].listen())
    }

    /// Wakes all that listen to `slot`.
    pub(crate) fn notify(&self, slot: usize) {
        self.0[slot].notify(usize::MAX);
    }
}

/// A place among those who listen. Dropping it leaves.
#[derive(Debug)]
pub(crate) struct Listener(EventListener);

/// How a wait with a deadline ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    Notified,
    TimedOut,
}

impl Listener {
    /// Parks the thread until the slot is notified.
    pub(crate) fn wait(self) {
        self.0.wait();
    }

    /// Parks the thread until the slot is notified, or `deadline` has passed.
    #[cfg(not(loom))]
    pub(crate) fn wait_until(self, deadline: Instant) -> Woken {
        match self.0.wait_deadline(deadline) {
            Some(()) => Woken::Notified,
            None => Woken::TimedOut,
        }
    }

    /// A model has no clock: the deadline passes at once, unless the notification was faster.
    #[cfg(loom)]
    pub(crate) fn wait_until(self, _deadline: Instant) -> Woken {
        if self.0.is_notified() { Woken::Notified } else { Woken::TimedOut }
    }

    /// Ready when the slot was notified.
    #[cfg(not(loom))]
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(context)
    }

    /// Futures are not modelled: they differ from threads in this line only.
    #[cfg(loom)]
    pub(crate) fn poll(&mut self, _context: &mut Context<'_>) -> Poll<()> {
        unreachable!("futures are not modelled")
    }
}

/// Spins until `done`, for a short while; whether it came to that. On one processor there is nobody to wait for.
#[cfg(not(loom))]
pub(crate) fn spin_until(done: impl Fn() -> bool) -> bool {
    static SEVERAL: OnceLock<bool> = OnceLock::new();
    let several = *SEVERAL.get_or_init(|| thread::available_parallelism().is_ok_and(|n| n.get() > 1));
    several
        && (0..SPINS).any(|_| {
            std::hint::spin_loop();
            done()
        })
}

/// In a model spinning is only more of the same.
#[cfg(loom)]
pub(crate) fn spin_until(_done: impl Fn() -> bool) -> bool {
    let _ = SPINS;
    false
}

/// A stand-in for `event-listener` in models: the same promises, few steps, and no order beyond what it needs.
#[cfg(loom)]
mod model {
    use crate::sync::{AtomicBool, AtomicU64, Ordering};
    use loom::thread::{self, Thread};
    use std::sync::{Arc, Mutex, PoisonError};

    #[derive(Debug)]
    struct Entry {
        notified: AtomicBool,
        thread: Thread,
    }

    /// `list` is invisible to loom, which runs one thread at a time; `turn` is where it may switch, and what orders the two sides.
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
            let entry = Arc::new(Entry { notified: AtomicBool::new(false), thread: thread::current() });
            self.list.lock().unwrap_or_else(PoisonError::into_inner).push(entry.clone());
            self.turn.fetch_add(1, Ordering::AcqRel);
            EventListener(entry)
        }

        pub(super) fn notify(&self, _all: usize) {
            self.turn.fetch_add(1, Ordering::AcqRel);
            let woken = std::mem::take(&mut *self.list.lock().unwrap_or_else(PoisonError::into_inner));
            for entry in woken {
                entry.notified.store(true, Ordering::Release);
                entry.thread.unpark();
            }
        }
    }

    #[derive(Debug)]
    pub(super) struct EventListener(Arc<Entry>);

    impl EventListener {
        pub(super) fn is_notified(&self) -> bool {
            self.0.notified.load(Ordering::Acquire)
        }

        pub(super) fn wait(self) {
            while !self.is_notified() {
                thread::park();
            }
        }
    }
}
