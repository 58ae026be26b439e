//! Waiting: spin a little, then sleep. Threads, deadlines and futures sleep in one way, on the [`event`]s of a slot.
//!
//! A waiter *listens* first and then makes sure that there is something to wait for; whoever changes things notifies everyone
//! who listens to the slot concerned, and then [delivers](deliver). Wake-ups may be spurious (a slot has many occupants over time), so a woken waiter looks again.

mod budget;
#[cfg(not(any(loom, spanlock_shuttle)))]
mod delivery;
#[cfg(not(any(loom, spanlock_shuttle)))]
mod event;
#[cfg(any(loom, spanlock_shuttle))]
mod model;

use crate::sync::hint;
use std::time::Duration;

pub(crate) use budget::spend;
#[cfg(any(loom, spanlock_shuttle))]
pub(crate) use model::{Events, Listener, deliver};
#[cfg(not(any(loom, spanlock_shuttle)))]
use {crate::processors, std::sync::atomic::Ordering, std::time::Instant};
#[cfg(not(any(loom, spanlock_shuttle)))]
pub(crate) use {
    delivery::deliver,
    event::{Events, Listener},
};

/// How a wait with a deadline ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    Notified,
    TimedOut,
}

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

/// Spins until `done`, for a short while; whether it came to that. `ahead` are in front, all of whom have to be through: if there is not a processor for each
/// of them beside this one, one of them may need this one.
#[cfg(not(any(loom, spanlock_shuttle)))]
pub(crate) fn spin_until(luck: &Luck, ahead: usize, done: impl Fn() -> bool) -> bool {
    /// Looks between two at the clock.
    const LOOKS: u32 = 32;
    if ahead >= processors::at_work() {
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
