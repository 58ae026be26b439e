//! What a holder can do with its hold without letting go: downgrade, shrink, split, convert, extend.
//!
//! # Promise
//! At every moment each byte that is held before *and* after a conversion is held. Whoever can be granted by one is
//! woken, and nobody's wake-up is lost. Nothing in here waits for a grant, nor for anybody who came later.
//!
//! # In place
//! A *downgrade* changes the mode bits of the word, a *shrink* the record and the word's version: both in the slot,
//! whose waiters are woken.
//!
//! # By succession
//! Whatever else a hold becomes needs a second slot, published before the first one changes. That alone is not enough.
//! A scan reads one slot after the other: it can look at the second slot's place before that is published, and at the
//! first slot after it has shrunk, and miss both. So between the two steps the holder scans, behind the fence of its
//! publication. Let X be in conflict with the old hold and with the new one:
//!
//! - X published after that fence: its scans see the new slot.
//! - X is queued: it is made to look again before it is granted (RESCAN); that look is behind the fence.
//! - X is still in its doorway. If there is such a one, the holder draws a ticket, behind the fence, and raises the bar
//!   to it. If X came after that, its scans see the new slot (O1, in `owner`). If not, the holder waits until it is
//!   through. X finds the old hold, which is still there, and so queues, or gives up. There are finitely many: those
//!   who had begun when the ticket was drawn.
//!
//! While all this may still come to nothing, the second slot is PENDING like a newcomer's, with a newcomer's stamp:
//! whoever was queued before need not wait for the attempt. If it succeeds, it gets the order that the hold has, and
//! says GRANTED, a thread's too: the hold may have been let past somebody in the queue, who must not take the new slot
//! for a later request. So that comes before RESCAN is asked for.
//!
//! Whoever looks for an owner's holds, or for all of them, scans without having published anything, and nobody knows of
//! him. So each move is counted, between the two steps, and he looks again if there was one meanwhile
//! ([`LockState::look_at_rest`]). Who marks holds as poisoned, or takes that back, keeps a mutex instead that a hold
//! needs in order to move in a lock that has such: the count tells the holder (`poison`).
//!
//! A search for cycles of waits is a scan that nobody can make look again, and matters if the holder is blocked
//! elsewhere: only a token can be. So between the two steps, when it has said GRANTED, a token lets the search that
//! goes on in this lock come to its end. One that begins later finds the new slot.
//!
//! A hold that has waited, and takes the place of another one ([`take_place`]), is a move too: it gets that one's
//! order, so that whoever waits until the hold has gone (`drain`) waits for what it has become.
//!
//! A request that is in conflict with the new hold and *not* with the old one is in the way: converting would overtake
//! it. One that conflicts with both waits for the old hold already, and to wait for it in turn would be a cycle: it is
//! passed, as any nested request would pass it.

use crate::facts::mode::Mode;
use crate::facts::owner::{self, OwnerId};
use crate::facts::range::ByteRange;
use crate::platform::reclaim::LazyPin;
use crate::platform::sync::{Ordering, fence};
use crate::protocol::cycle::{self, Passes};
use crate::protocol::grant::{Held, Live};
use crate::protocol::lock_state::{Ask, LockState, Own, Seen, what};
use crate::protocol::poison;
use crate::tree::Entry;
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
/// `held` is a hold of `state`, which is neither moved nor dropped while the new `Held` lives.
pub(crate) unsafe fn split_off(state: &LockState, held: &Held, range: ByteRange) -> Held {
    let old = held.ask().expect("a part of it is not empty");
    let new = Ask::at(range, held.mode(), old.entry.owner, old.entry.order);
    // SAFETY: the caller's promise.
    unsafe { succeed(state, held, &old, &new) }.expect("what conflicts with a part conflicts with the whole")
}

/// Makes it a hold of `range` in `mode`, unless somebody is in the way.
///
/// # Safety
/// As for [`split_off`].
pub(crate) unsafe fn convert(state: &LockState, held: &mut Held, range: ByteRange, mode: Mode) -> bool {
    let Some(old) = held.ask() else { return false };
    if (range, mode) == (old.range(), old.mode()) {
        return true;
    }
    let new = Ask::at(range, mode, old.entry.owner, old.entry.order);
    // SAFETY: the caller's promise.
    let Some(successor) = (unsafe { succeed(state, held, &old, &new) }) else { return false };
    // Releases the old one.
    *held = successor;
    true
}

/// `new`, which has waited, takes the place of `old`, which is then given back: who waits until the one has gone, waits
/// on for the other. Both are of one owner, and of `state`.
pub(crate) fn take_place(state: &LockState, old: &Held, new: &Held) {
    let (Some(order), Some(owner)) = (old.order(), new.owner()) else { return };
    new.0.0.keep_order(order);
    poison::note_move(state, old, new);
    if owner.is_token() {
        state.let_search_end();
    }
}

/// A hold of `new` beside `held`, which is one of `old`, such that the old one can be given back: see the header.
/// `None` if somebody is in the way.
///
/// # Safety
/// As for [`split_off`].
unsafe fn succeed(state: &LockState, held: &Held, old: &Ask, new: &Ask) -> Option<Held> {
    // A look first: who converts in a loop shall not make others wait.
    if survey(state, old, new, None, None, &LazyPin::new()).is_err() {
        return None;
    }
    let pin = LazyPin::new();
    let attempt = Ask { entry: Entry { order: state.tree.bar(), ..new.entry } };
    // SAFETY: the caller's promise.
    let live = unsafe { Live::publish(&state.tree, &attempt, owner::visit(), &pin) };
    let mut owes_wakes = pin.owes_wakes();
    drop(pin);
    let own = live.0.own(new.entry.mode);
    let successor = match wait_for_doorways(state, old, new, own) {
        Ok(queued) => {
            owes_wakes |= live.0.take_over(old.entry.order);
            if queued == Queued::Some {
                ask_to_rescan(state, new, own);
                // ORDERING (S9): who reads what is done under the new hold, and was told to look again, finds that.
                fence(Ordering::SeqCst);
            }
            let successor = Held(live);
            poison::note_move(state, held, &successor);
            Some(successor)
        }
        // It leaves before wakers are called: they must not meet it undecided.
        Err(Barred) => {
            drop(live);
            None
        }
    };
    if owes_wakes {
        wait::deliver();
    }
    if successor.is_some() && OwnerId::from_slot(old.entry.owner).is_token() {
        state.let_search_end();
    }
    successor
}

/// Makes all who are queued for what `new` holds look again.
fn ask_to_rescan(state: &LockState, new: &Ask, own: Own) {
    let _ = state.tree.scan(&new.query(), Some(own), &LazyPin::new(), |seen| {
        if seen.ticket().is_some() {
            cycle::ask_to_rescan(&seen);
        }
        Continue(())
    });
}

/// Somebody is in the way.
struct Barred;

/// Whether somebody is queued behind the old hold and in conflict with the new one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Queued {
    None,
    Some,
}

/// Waits until nobody is in his doorway who is in conflict with both holds, and may not have found the new one: who had
/// begun before the ticket was drawn that is drawn for that. They are finitely many (INV-P5).
fn wait_for_doorways(state: &LockState, old: &Ask, new: &Ask, own: Own) -> Result<Queued, Barred> {
    let mut ticket = None;
    loop {
        let pin = LazyPin::new();
        let undecided = match survey(state, old, new, Some(own), ticket, &pin)? {
            (queued, None) => return Ok(queued),
            (_, Some(undecided)) => undecided,
        };
        if ticket.is_none() {
            // Drawn behind the publication, like any other: who comes from now on finds the new hold.
            let drawn = owner::next_ticket();
            state.raise_bar(drawn);
            ticket = Some(drawn);
            continue;
        }
        if wait::look_for(&state.tree.beside.luck, wait::Patience::GiveWay, 1, || undecided.has_changed()) {
            continue;
        }
        // Listen first, then ask to be told (INV-G3).
        let (bells, index) = undecided.room();
        let listener = bells.listen(index, undecided.word().age());
        let will_hear = undecided.ask_for_wake();
        drop(pin);
        if will_hear {
            listener.wait();
        }
    }
}

/// Looks at all that conflict with `new`: whether any of them is queued behind `old`; and one in its doorway that may
/// not have found the new hold, if there is one: it came before the `ticket` that was drawn behind the publication, if
/// one was.
fn survey<'t>(
    state: &'t LockState,
    old: &Ask,
    new: &Ask,
    own: Option<Own>,
    ticket: Option<u64>,
    pin: &'t LazyPin,
) -> Result<(Queued, Option<Seen<'t>>), Barred> {
    let (mut queued, mut undecided) = (Queued::None, None);
    let looked = state.tree.scan(&new.query(), own, pin, |seen| {
        let is_behind = ticket.is_some_and(|ticket| !cycle::is_before(&seen, ticket, &Passes::default()));
        let (range, mode) = what(&seen);
        let waits_for_old = !mode.goes_with(old.mode()) && range.overlaps(old.range());
        match seen.ticket() {
            Some(_) if waits_for_old => queued = Queued::Some,
            None if is_behind => {}
            None if waits_for_old => undecided = Some(seen),
            _ => return Break(()),
        }
        Continue(())
    });
    if looked.is_break() { Err(Barred) } else { Ok((queued, undecided)) }
}
