//! What a holder can do with its hold without letting go: downgrade, shrink, split, convert, extend.
//!
//! # Promise
//! At every moment each byte that is held before *and* after a conversion is held. Whoever can be granted by one is woken, and nobody's
//! wake-up is lost. Nothing in here waits for a grant.
//!
//! # In place
//! A *downgrade* changes the mode bits of the word, a *shrink* the record and the word's version: both in the slot, whose waiters are woken.
//!
//! # By succession
//! Whatever else a hold becomes needs a second slot, published before the first one changes. That alone is not enough. A scan reads one slot after
//! the other: it can look at the second slot's place before that is published, and at the first slot after it has shrunk, and miss both. So between
//! the two steps the holder scans, behind the fence of its publication. Let X be in conflict with the old hold and with the new one:
//!
//! - X published after that fence: its scans see the new slot.
//! - X is queued: it is made to look again before it is granted (RESCAN); that look is behind the fence.
//! - X is still in its doorway: the holder looks until it is not. X finds the old hold, which is still there, and so queues, or gives up.
//!
//! A search for cycles of waits is a scan that nobody can make look again, and matters if the holder is blocked elsewhere: only a token can be. So
//! between the two steps a token lets the search that goes on come to its end.
//!
//! A request that is in conflict with the new hold and *not* with the old one is in the way: converting would overtake it. One that conflicts with
//! both waits for the old hold already, and to wait for it in turn would be a cycle: it is passed, as any nested request would pass it.

use crate::cycle;
use crate::grant::{Held, Live};
use crate::mode::Mode;
use crate::owner::{self, OwnerId};
use crate::range::ByteRange;
use crate::reclaim::LazyPin;
use crate::space::{Ask, Own, Seen, Space, what};
use crate::sync::yield_now;
use crate::wait;
use std::ops::ControlFlow::{Break, Continue};

/// Changes the mode to one that goes with all that the old one goes with. An empty hold has nothing to change.
pub(crate) fn downgrade(held: &mut Held, mode: Mode) {
    if held.is_nothing() {
        *held = Held::nothing(mode);
        return;
    }
    held.0.0.downgrade(mode.bit());
    wait::deliver();
}

/// Gives back all but `range`, which is a part of what is held.
pub(crate) fn shrink(held: &mut Held, range: ByteRange) {
    if range.is_empty() {
        *held = Held::nothing(held.mode());
    } else if range != held.range() {
        let (start, last) = range.bounds();
        held.0.0.shrink(start, last);
        wait::deliver();
    }
}

/// A second hold of `range`, which is a part of what is held and not empty. The first is then to be shrunk.
///
/// # Safety
/// `held` is a hold of `space`, which is neither moved nor dropped while the new `Held` lives.
pub(crate) unsafe fn split_off(space: &Space, held: &Held, range: ByteRange) -> Held {
    let old = held.ask().expect("a part of it is not empty");
    let new = Ask::at(range, held.mode(), old.entry.owner, old.entry.order);
    // SAFETY: the caller's promise.
    unsafe { succeed(space, &old, &new) }.expect("what conflicts with a part conflicts with the whole")
}

/// Makes it a hold of `range` in `mode`, unless somebody is in the way.
///
/// # Safety
/// As for [`split_off`].
pub(crate) unsafe fn convert(space: &Space, held: &mut Held, range: ByteRange, mode: Mode) -> bool {
    let Some(old) = held.ask() else { return false };
    if (range, mode) == (old.range(), old.mode()) {
        return true;
    }
    let new = Ask::at(range, mode, old.entry.owner, old.entry.order);
    // SAFETY: the caller's promise.
    let Some(successor) = (unsafe { succeed(space, &old, &new) }) else { return false };
    // Releases the old one.
    *held = successor;
    true
}

/// What a look at those in conflict with a new hold says.
enum Way {
    Clear,
    Barred,
    /// Somebody is in its doorway.
    Undecided,
}

/// A hold of `new` beside the one of `old`, such that the old one can be given back: see the header. `None` if somebody is in the way.
///
/// # Safety
/// As for [`split_off`].
unsafe fn succeed(space: &Space, old: &Ask, new: &Ask) -> Option<Held> {
    // A look first: who converts in a loop shall not make others wait.
    if let Way::Barred = survey(space, old, new, None, |_| ()) {
        return None;
    }
    let pin = LazyPin::new();
    // SAFETY: the caller's promise.
    let live = unsafe { Live::publish(&space.tree, new, owner::visit(), &pin) };
    let own = live.0.own(new.entry.mode);
    let owes = pin.owes_wakes();
    drop(pin);
    let successor = loop {
        // Nobody who conflicts with what is held is granted meanwhile.
        match survey(space, old, new, Some(own), |seen| _ = cycle::ask_to_rescan(seen)) {
            // Only now does a token say aloud that it holds this: a search for deadlocks must not take a mere attempt for a hold.
            Way::Clear => break Some(Held::decided(live, new)),
            // It leaves before wakers are called: they must not meet it undecided.
            Way::Barred => {
                drop(live);
                break None;
            }
            Way::Undecided => yield_now(),
        }
    };
    if owes {
        wait::deliver();
    }
    if successor.is_some() && OwnerId::from_slot(old.entry.owner).is_token() {
        cycle::let_searches_end();
    }
    successor
}

/// Looks at all that conflict with `new`; shows `visit` those of them who are queued behind `old`.
fn survey(space: &Space, old: &Ask, new: &Ask, own: Option<Own>, mut visit: impl FnMut(&Seen<'_>)) -> Way {
    let mut way = Way::Clear;
    let _ = space.tree.scan(&new.query(), own, &LazyPin::new(), |seen| {
        let (range, mode) = what(&seen);
        let waits_for_old = !mode.goes_with(old.mode()) && range.overlaps(old.range());
        if !waits_for_old {
            way = Way::Barred;
            return Break(());
        }
        match seen.ticket() {
            Some(_) => visit(&seen),
            None => way = Way::Undecided,
        }
        Continue(())
    });
    way
}
