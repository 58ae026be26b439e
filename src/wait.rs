//! Waiting: spin a little, then park. Threads, deadlines and futures sleep on one mechanism, `event-listener`.
//!
//! A waiter *listens* first and then makes sure that there is something to wait for; whoever changes things notifies everyone
//! who listens to the slot concerned. Wake-ups may be spurious (a slot has many occupants over time), so a woken waiter looks again.
//!
//! A listener owns its place in the list: it needs neither a pin nor the node that it was made in.
//!
//! A task's waker is foreign code: it may poll, drop or release whatever it likes, right there. `event-listener` calls wakers under
//! its list's mutex, so tasks are woken through a [`relay`], which collects their wakers and calls them when the list is free again.

#[cfg(loom)]
mod model;
#[cfg(not(loom))]
mod relay;

use std::task::{Context, Poll};
use std::time::Instant;

#[cfg(loom)]
pub(crate) use model::deliver;
#[cfg(loom)]
use model::{Event, EventListener};
#[cfg(not(loom))]
pub(crate) use relay::deliver;
#[cfg(not(loom))]
use {
    event_listener::{Event, EventListener, Listener as _},
    relay::Relay,
    std::{future::Future, pin::Pin, sync::OnceLock, thread},
};

/// How often a waiter looks before it sleeps: for some microseconds, about as long as a wake-up through the system takes.
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
        Listener {
            place: Some(self.0[slot].listen()),
            #[cfg(not(loom))]
            relay: None,
        }
    }

    /// Wakes all that listen to `slot`: threads now, tasks at the next [`deliver`] of this thread.
    pub(crate) fn notify(&self, slot: usize) {
        self.0[slot].notify(usize::MAX);
    }
}

/// A place among those who listen. Dropping it leaves.
#[derive(Debug)]
pub(crate) struct Listener {
    /// Taken only by what consumes the listener.
    place: Option<EventListener>,
    /// How a task is woken, once it has polled.
    #[cfg(not(loom))]
    relay: Option<Relay>,
}

/// How a wait with a deadline ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    Notified,
    TimedOut,
}

impl Listener {
    /// Parks the thread until the slot is notified.
    pub(crate) fn wait(mut self) {
        if let Some(place) = self.place.take() {
            place.wait();
        }
    }

    /// Parks the thread until the slot is notified, or `deadline` has passed.
    pub(crate) fn wait_until(mut self, deadline: Instant) -> Woken {
        match self.place.take().and_then(|place| place.wait_deadline(deadline)) {
            Some(()) => Woken::Notified,
            None => Woken::TimedOut,
        }
    }

    /// Ready when the slot was notified.
    #[cfg(not(loom))]
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(place) = &mut self.place else { return Poll::Ready(()) };
        let relay = self.relay.get_or_insert_with(Relay::new);
        relay.lead_to(context.waker());
        Pin::new(place).poll(&mut Context::from_waker(relay.waker()))
    }

    /// Futures are not modelled: they differ from threads in how they are woken, no more.
    #[cfg(loom)]
    pub(crate) fn poll(&mut self, _context: &mut Context<'_>) -> Poll<()> {
        unreachable!("futures are not modelled")
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Leaving after a notification passes it on to somebody else in the list.
        drop(self.place.take());
        deliver();
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
