//! A lock in which some are poisoned, by themselves or by others, and in which some drain: who asks there may be
//! refused. In all other locks nobody is.
//!
//! - Who is refused was told of somebody who is in its way, and for a reason that stood when it asked, or was given
//!   since: a mark that outlives its cure, or its holder, is seen.
//! - Who drains says first that the place is closed, and uses it as if it held all of it when the drain is over. Users
//!   come in only if nothing is said, which they read under their grants: one that the drain has missed, or who does
//!   not know, is found inside.

use crate::actors::Tally;
use crate::shadow::Shadow;
use crate::world::{Place, World, mode, stay};
use fastrand::Rng;
use spanlock::{AcquireError, ByteRange, Mode, Poisoned};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The lock, and what is known of it.
#[derive(Debug)]
pub(crate) struct Stuck {
    pub(crate) place: Place,
    reasons: Mutex<Reasons>,
    /// Somebody drains it, and has said so: Relaxed, as only the drain may order that. That it is open again is
    /// Release, to who comes in.
    is_closed: AtomicBool,
    /// One at a time.
    drains: Mutex<()>,
    /// Who is inside because nothing was said.
    open: Shadow,
}

/// Reasons are numbers.
#[derive(Clone, Debug, Default)]
struct Reasons {
    next: u64,
    /// Those that were given, and not taken back by now.
    stand: BTreeSet<u64>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stuck {
    pub(crate) fn new(place: Place) -> Stuck {
        let open = place.shadow.like();
        Stuck { place, reasons: Mutex::default(), is_closed: AtomicBool::new(false), drains: Mutex::new(()), open }
    }

    fn give_reason(&self) -> u64 {
        let mut reasons = locked(&self.reasons);
        let reason = reasons.next;
        reasons.next += 1;
        reasons.stand.insert(reason);
        reason
    }

    /// Nobody is poisoned for it any more.
    fn take_back(&self, reason: u64) {
        locked(&self.reasons).stand.remove(&reason);
    }

    fn reasons(&self) -> Reasons {
        locked(&self.reasons).clone()
    }

    /// That nobody is inside because nothing was said.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty() && locked(&self.reasons).stand.is_empty()
    }
}

/// Whether it was right to refuse who asked for that, when there were those reasons.
fn judge(world: &World, before: &Reasons, range: ByteRange, mode: Mode, told: &Poisoned) {
    let stood = told.reason().parse().is_ok_and(|reason| before.stand.contains(&reason) || reason >= before.next);
    if !stood {
        world.fail(format!("{mode} of {range} was refused for a reason that had been taken back: {told}"));
    }
    if !told.range().overlaps(range) || told.mode().goes_with(mode) {
        world.fail(format!("{mode} of {range} was refused because of somebody who is not in the way: {told}"));
    }
}

fn note(world: &World, before: &Reasons, asked: (ByteRange, Mode), error: &AcquireError, tally: &mut Tally) {
    match error {
        AcquireError::Poisoned(told) => {
            judge(world, before, asked.0, asked.1, told);
            tally.stuck += 1;
        }
        other => world.fail(format!("one that holds nothing was refused: {other}")),
    }
}

/// Comes, is stuck now and then, moves, and goes.
pub(crate) fn comes(world: &World, random: &mut Rng, tally: &mut Tally) {
    let stuck = &world.stuck;
    let (range, mode) = (stuck.place.range(random), mode(random));
    let before = stuck.reasons();
    let guard = match stuck.place.lock.request(range, mode).wait() {
        Ok(guard) => guard,
        Err(error) => return note(world, &before, (range, mode), &error, tally),
    };
    world.enter(&stuck.place.shadow, range, mode);
    if !stuck.is_closed.load(Ordering::Acquire) {
        world.visit(&stuck.open, range, mode, random);
    }
    let reason = (random.u32(..4) == 0).then(|| stuck.give_reason());
    if let Some(reason) = reason {
        guard.poison(reason.to_string());
        stay(random);
    }
    if random.bool() {
        let (mut head, tail) = guard.split(range.start().expect("it has bytes") + random.u64(1..4));
        stay(random);
        if random.bool() {
            // It has become more, or not.
            let _ = head.try_extend(range);
        }
        stuck.place.shadow.leave(range, mode);
        drop((head, tail));
    } else {
        if random.bool() && reason.is_some() {
            guard.clear_poison();
        }
        stuck.place.shadow.leave(range, mode);
        drop(guard);
    }
    if let Some(reason) = reason {
        stuck.take_back(reason);
    }
}

/// Says of whoever is there that they are stuck, and takes that back.
pub(crate) fn marks(world: &World, random: &mut Rng, _: &mut Tally) {
    let stuck = &world.stuck;
    let reason = stuck.give_reason();
    stuck.place.lock.poison(stuck.place.range(random), reason.to_string());
    stay(random);
    stuck.place.lock.clear_poison(..);
    stuck.take_back(reason);
}

/// Turns users away, and waits until the last has left.
pub(crate) fn drains(world: &World, random: &mut Rng, tally: &mut Tally) {
    let stuck = &world.stuck;
    let Ok(_alone) = stuck.drains.try_lock() else { return };
    let range = stuck.place.range(random);
    let before = stuck.reasons();
    stuck.is_closed.store(true, Ordering::Relaxed);
    match stuck.place.lock.drained(range, Mode::Exclusive).wait() {
        Ok(()) => world.visit(&stuck.open, range, Mode::Exclusive, random),
        Err(error) => note(world, &before, (range, Mode::Exclusive), &error, tally),
    }
    stuck.is_closed.store(false, Ordering::Release);
}
