//! Waiting: spin a little or give way, then sleep. Threads, deadlines and futures sleep in one way, on the [`event`]s
//! of a slot.
//!
//! A waiter *listens* first and then makes sure that there is something to wait for; whoever changes things notifies
//! everyone who listens to the slot concerned, and then [delivers](deliver). A slot has many occupants over time, so
//! the one who listens says to which (its *age*), and so does the one who notifies: that takes all who listen to this
//! one, and leaves the others to who notifies of theirs. Wake-ups may be spurious, so a woken waiter looks again.

mod budget;
#[cfg(not(any(loom, spanlock_shuttle)))]
mod delivery;
#[cfg(not(any(loom, spanlock_shuttle)))]
mod event;
#[cfg(any(loom, spanlock_shuttle))]
mod model;

use crate::platform::sync::hint;
use std::time::Duration;

pub(crate) use budget::spend;
#[cfg(any(loom, spanlock_shuttle))]
pub(crate) use model::{Events, Listener, deliver};
#[cfg(not(any(loom, spanlock_shuttle)))]
use {crate::platform::processors, std::sync::atomic::Ordering, std::thread, std::time::Instant};
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

/// How long a waiter looks before it sleeps, as long as that pays: about as long as it takes to wake a thread up
/// through the system, where the processor has to be woken too. (Less, and two threads that hand over in turns and have
/// once fallen asleep go on waking each other for long.)
const LONG: Duration = Duration::from_micros(20);

/// How long it looks if that has not paid of late.
const SHORT: Duration = Duration::from_micros(4);

/// How long a waiter gives way, at most, before it sleeps. (Among threads that do the same its turn comes within that.
/// If it does not, somebody is on the processor who does not care.)
const GIVING_WAY: Duration = Duration::from_micros(200);

/// Whether it has paid of late on a lock not to sleep at once, in each of the two ways. Where critical sections are
/// long it is in vain, and takes a processor away.
#[derive(Debug)]
pub(crate) struct Luck {
    spinning: hint::AtomicU8,
    giving_way: hint::AtomicU8,
}

impl Luck {
    /// The best. The worst is 0.
    const MOST: u8 = 8;
    /// Where it begins who has had none. From there it counts upwards: so many waits sleep at once, and then one tries
    /// again.
    const REST: u8 = 255 - 32;

    pub(crate) const fn new() -> Luck {
        Luck { spinning: hint::AtomicU8::new(Luck::MOST), giving_way: hint::AtomicU8::new(Luck::MOST) }
    }
}

#[cfg(not(any(loom, spanlock_shuttle)))]
impl Luck {
    fn patience(&self) -> Duration {
        if self.spinning.load(Ordering::Relaxed) > 0 { LONG } else { SHORT }
    }

    fn note_spinning(&self, paid: bool) {
        let before = self.spinning.load(Ordering::Relaxed);
        let now = if paid { (before + 1).min(Luck::MOST) } else { before.saturating_sub(1) };
        set(&self.spinning, before, now);
    }

    fn may_give_way(&self) -> bool {
        let now = self.giving_way.load(Ordering::Relaxed);
        let rests = now > Luck::MOST;
        if rests {
            self.giving_way.store(if now == u8::MAX { 1 } else { now + 1 }, Ordering::Relaxed);
        }
        !rests
    }

    fn note_giving_way(&self, paid: bool) {
        let before = self.giving_way.load(Ordering::Relaxed).min(Luck::MOST);
        let now = match (paid, before) {
            (true, _) => (before + 1).min(Luck::MOST),
            (false, 0 | 1) => Luck::REST,
            (false, _) => before - 1,
        };
        set(&self.giving_way, before, now);
    }
}

/// Writes a line that others read only if it must.
#[cfg(not(any(loom, spanlock_shuttle)))]
fn set(luck: &hint::AtomicU8, before: u8, now: u8) {
    if now != before {
        luck.store(now, Ordering::Relaxed);
    }
}

/// What a waiter may do before it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Nothing: a future must not hold its executor up.
    None,
    /// Look for a moment, if it has a processor for that. Not more with a deadline: who gives way comes back when the
    /// system likes.
    Spin,
    /// Spin or give way.
    GiveWay,
}

/// Looks for `done` for a while, before the caller sleeps; whether it came to that. `ahead` are in front, all of whom
/// have to be through. If there is a processor for each of them beside this one, it spins. If not, one of them may need
/// this one: it gives way, and so do they, if they wait here; as long as they hand over faster than a thread can be put
/// to sleep and woken, nobody has to be.
#[cfg(not(any(loom, spanlock_shuttle)))]
pub(crate) fn look_for(luck: &Luck, patience: Patience, ahead: usize, done: impl Fn() -> bool) -> bool {
    match patience {
        Patience::None => false,
        _ if ahead < processors::at_work() => spin(luck, done),
        Patience::Spin => false,
        Patience::GiveWay => give_way(luck, done),
    }
}

/// What is left of its patience to one who is next but for newcomers, or is one. It looks now and then, each time after
/// twice as long, and not all the time: it would look at the lines that those write who get on, and these are faster by
/// far if they can keep them for some turns.
#[derive(Debug)]
pub(crate) struct Lingering {
    #[cfg(not(any(loom, spanlock_shuttle)))]
    since: Option<Instant>,
    #[cfg(not(any(loom, spanlock_shuttle)))]
    step: Duration,
}

#[cfg(not(any(loom, spanlock_shuttle)))]
impl Lingering {
    /// Until it looks for the first time.
    const FIRST: Duration = Duration::from_micros(2);

    pub(crate) fn new() -> Lingering {
        Lingering { since: None, step: Lingering::FIRST }
    }

    /// Whether to look again, in a moment. If not, it is time to sleep.
    pub(crate) fn may_go_on(&mut self, luck: &Luck, patience: Patience) -> bool {
        if patience == Patience::None || processors::at_work() < 2 {
            return false;
        }
        let now = Instant::now();
        let goes_on = now - *self.since.get_or_insert(now) < luck.patience();
        if !goes_on {
            luck.note_spinning(false);
        }
        goes_on
    }

    pub(crate) fn pause(&mut self) {
        let end = Instant::now() + self.step;
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        self.step *= 2;
    }

    /// It was its turn.
    pub(crate) fn has_paid(&self, luck: &Luck) {
        if self.since.is_some() {
            luck.note_spinning(true);
        }
    }
}

/// In a model nobody lingers.
#[cfg(any(loom, spanlock_shuttle))]
impl Lingering {
    pub(crate) fn new() -> Lingering {
        Lingering {}
    }

    pub(crate) fn may_go_on(&mut self, _: &Luck, _: Patience) -> bool {
        false
    }

    pub(crate) fn pause(&mut self) {}

    pub(crate) fn has_paid(&self, _: &Luck) {}
}

#[cfg(not(any(loom, spanlock_shuttle)))]
fn spin(luck: &Luck, done: impl Fn() -> bool) -> bool {
    /// Looks between two at the clock.
    const LOOKS: u32 = 32;
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
    luck.note_spinning(paid);
    paid
}

#[cfg(not(any(loom, spanlock_shuttle)))]
fn give_way(luck: &Luck, done: impl Fn() -> bool) -> bool {
    /// With nobody else to run, that is a few microseconds.
    const TIMES: u32 = 8;
    if !luck.may_give_way() {
        return false;
    }
    let end = Instant::now() + GIVING_WAY;
    let mut paid = false;
    for _ in 0..TIMES {
        thread::yield_now();
        paid = done();
        if paid || Instant::now() > end {
            break;
        }
    }
    luck.note_giving_way(paid);
    paid
}

/// In a model looking is only more of the same.
#[cfg(any(loom, spanlock_shuttle))]
pub(crate) fn look_for(luck: &Luck, _: Patience, _ahead: usize, _done: impl Fn() -> bool) -> bool {
    let _ = (&luck.spinning, &luck.giving_way, LONG, SHORT, GIVING_WAY, Luck::MOST, Luck::REST);
    false
}
