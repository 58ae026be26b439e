//! Waiting: spin a little, then park. Threads, deadlines and futures sleep on one mechanism, `event-listener`.
//!
//! A waiter *listens* first and then makes sure that there is something to wait for; whoever changes things notifies everyone
//! who listens to the slot concerned. Wake-ups may be spurious (a slot has many occupants over time), so a woken waiter looks again.
//!
//! A listener owns its place in the list: it needs neither a pin nor the node that it was made in.
//!
//! A task's waker is foreign code: it may poll, drop or release whatever it likes, right there. `event-listener` calls wakers under
//! its list's mutex, so tasks are woken through a [`relay`], which collects their wakers and calls them when the list is free again.

#[cfg(any(loom, spanlock_shuttle))]
mod model;
#[cfg(not(any(loom, spanlock_shuttle)))]
mod relay;

use crate::sync::hint;
#[cfg(not(any(loom, spanlock_shuttle)))]
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

#[cfg(any(loom, spanlock_shuttle))]
pub(crate) use model::deliver;
#[cfg(any(loom, spanlock_shuttle))]
use model::{Event, EventListener, wait_for_first};
#[cfg(not(any(loom, spanlock_shuttle)))]
pub(crate) use relay::deliver;
#[cfg(not(any(loom, spanlock_shuttle)))]
use {
    event_listener::{Event, EventListener, Listener as _},
    relay::Relay,
    std::{
        future::Future,
        pin::Pin,
        sync::{Arc, OnceLock},
        task::{Wake, Waker},
        thread,
    },
};

/// How long a waiter looks before it sleeps, as long as that pays: about as long as it takes to wake a thread up through the system, where the
/// processor has to be woken too. (Less, and two threads that hand over in turns and have once fallen asleep go on waking each other for long.)
const LONG: Duration = Duration::from_micros(20);

/// How long it looks if that has not paid of late.
const SHORT: Duration = Duration::from_micros(4);

/// Whether looking before sleeping has paid of late on a lock: 0 if it has not. Where critical sections are long it is in vain, and takes a processor away.
#[derive(Debug)]
pub(crate) struct Luck(hint::AtomicU8);

impl Luck {
    const MOST: u8 = 8;

    pub(crate) const fn new() -> Luck {
        Luck(hint::AtomicU8::new(Luck::MOST))
    }

    #[cfg(not(any(loom, spanlock_shuttle)))]
    fn patience(&self) -> Duration {
        if self.0.load(Ordering::Relaxed) > 0 { LONG } else { SHORT }
    }

    #[cfg(not(any(loom, spanlock_shuttle)))]
    fn note(&self, paid: bool) {
        let before = self.0.load(Ordering::Relaxed);
        let now = if paid { (before + 1).min(Luck::MOST) } else { before.saturating_sub(1) };
        if now != before {
            self.0.store(now, Ordering::Relaxed);
        }
    }
}

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
            also: None,
            #[cfg(not(any(loom, spanlock_shuttle)))]
            relay: None,
        }
    }

    /// Wakes all that listen to `slot`: threads now, tasks at the next [`deliver`] of this thread.
    pub(crate) fn notify(&self, slot: usize) {
        self.0[slot].notify(usize::MAX);
    }
}

/// A place among those who listen, or two of them. Dropping it leaves.
#[derive(Debug)]
pub(crate) struct Listener {
    /// Taken only by what consumes the listener.
    place: Option<EventListener>,
    /// Where it listens as well: what is heard first wakes it.
    also: Option<EventListener>,
    /// How a task is woken, once it has polled.
    #[cfg(not(any(loom, spanlock_shuttle)))]
    relay: Option<Relay>,
}

/// How a wait with a deadline ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    Notified,
    TimedOut,
}

impl Listener {
    /// Hears what `other`, which has not been polled, would hear as well.
    pub(crate) fn and(mut self, mut other: Listener) -> Listener {
        debug_assert!(self.also.is_none() && other.also.is_none(), "two are enough");
        self.also = other.place.take();
        self
    }

    /// Parks the thread until the slot is notified.
    pub(crate) fn wait(mut self) {
        match (self.place.take(), self.also.take()) {
            (Some(place), Some(also)) => _ = wait_for_first([place, also], None),
            (place, also) => place.into_iter().chain(also).for_each(EventListener::wait),
        }
    }

    /// Parks the thread until the slot is notified, or `deadline` has passed.
    pub(crate) fn wait_until(mut self, deadline: Instant) -> Woken {
        match (self.place.take(), self.also.take()) {
            (Some(place), Some(also)) => wait_for_first([place, also], Some(deadline)),
            (place, also) => match place.or(also).and_then(|place| place.wait_deadline(deadline)) {
                Some(()) => Woken::Notified,
                None => Woken::TimedOut,
            },
        }
    }

    /// Ready when the slot was notified.
    #[cfg(not(any(loom, spanlock_shuttle)))]
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(place) = &mut self.place else { return Poll::Ready(()) };
        let relay = self.relay.get_or_insert_with(Relay::new);
        relay.lead_to(context.waker());
        let context = &mut Context::from_waker(relay.waker());
        // Each of them: both have to know whom to call.
        let heard = [Some(place), self.also.as_mut()].into_iter().flatten().map(|place| Pin::new(place).poll(context));
        if heard.fold(false, |any, heard| any | heard.is_ready()) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Futures are not modelled: they differ from threads in how they are woken, no more.
    #[cfg(any(loom, spanlock_shuttle))]
    pub(crate) fn poll(&mut self, _context: &mut Context<'_>) -> Poll<()> {
        unreachable!("futures are not modelled")
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Leaving after a notification passes it on to somebody else in the list.
        drop((self.place.take(), self.also.take()));
        deliver();
    }
}

/// Parks the thread until one of the two is notified, or the deadline has passed.
#[cfg(not(any(loom, spanlock_shuttle)))]
fn wait_for_first(mut places: [EventListener; 2], deadline: Option<Instant>) -> Woken {
    struct Unpark(thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let context = &mut Context::from_waker(&waker);
    loop {
        if places.iter_mut().any(|place| Pin::new(place).poll(context).is_ready()) {
            return Woken::Notified;
        }
        match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            None => thread::park(),
            Some(Duration::ZERO) => return Woken::TimedOut,
            Some(left) => thread::park_timeout(left),
        }
    }
}

/// Spins until `done`, for a short while; whether it came to that. `ahead` are in front, all of whom have to be through: if there is not a processor for each
/// of them beside this one, one of them may need this one.
#[cfg(not(any(loom, spanlock_shuttle)))]
pub(crate) fn spin_until(luck: &Luck, ahead: usize, done: impl Fn() -> bool) -> bool {
    /// Looks between two at the clock.
    const LOOKS: u32 = 32;
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    if ahead >= *PROCESSORS.get_or_init(|| thread::available_parallelism().map_or(1, usize::from)) {
        return false;
    }
    let look = || {
        std::hint::spin_loop();
        done()
    };
    let mut paid = (0..LOOKS).any(|_| look());
    if !paid {
        let end = Instant::now() + luck.patience();
        while !paid && Instant::now() < end {
            paid = (0..LOOKS).any(|_| look());
        }
    }
    luck.note(paid);
    paid
}

/// In a model spinning is only more of the same.
#[cfg(any(loom, spanlock_shuttle))]
pub(crate) fn spin_until(luck: &Luck, _ahead: usize, _done: impl Fn() -> bool) -> bool {
    let _ = (&luck.0, LONG, SHORT, Luck::MOST);
    false
}

#[cfg(all(test, not(any(loom, spanlock_shuttle))))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Calls(AtomicUsize);

    impl Wake for Calls {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A task that listens to slot 0, and how often it was woken.
    fn task(events: &Events<1>) -> (Listener, impl Fn() -> usize) {
        let calls = Arc::new(Calls::default());
        let mut listener = events.listen(0);
        assert!(listener.poll(&mut Context::from_waker(&Waker::from(Arc::clone(&calls)))).is_pending());
        (listener, move || calls.0.load(Ordering::Relaxed))
    }

    #[test]
    fn who_leaves_after_it_was_notified_passes_that_on() {
        let events = Events::default();
        let (first, first_calls) = task(&events);
        events.notify(0);
        assert_eq!(first_calls(), 0, "not under the event's lock");
        deliver();
        assert_eq!(first_calls(), 1);
        let (_second, second_calls) = task(&events);
        drop(first);
        assert_eq!(second_calls(), 1, "whom the event takes for notified from now on");
    }
}
