//! Holders whom nobody waits for, as they are known to be stuck.
//!
//! # Promise
//! - Who would wait for a poisoned hold is refused, as long as that is one: each time that it looks who is in front of
//!   it.
//! - The hold itself is what it was: nobody is granted beside it, and a release frees its bytes. With that the mark has
//!   gone.
//!
//! # How
//! The mark is a bit of the holder's word, one that means nothing else there: so whoever holds, asks or releases does
//! nothing more than before. It changes the word, as a downgrade does: who sleeps on the hold is woken, who is about to
//! fails, and both look again, find it, and leave; which wakes those who sleep on *them*. So a queue behind it falls at
//! once. (Who waits for several, and sleeps on another, finds it when that one has gone: he had to wait for that one in
//! any case.)
//!
//! The reason is kept beside the lock's turn, by the slot: it is put there before the bit is set, and read by who has
//! found that. A hold that moves to another slot takes both along: behind the count of moves, so that either the one
//! who poisons finds the new slot, or the one who moves finds the old one poisoned. (He *changes* that word to find
//! out: a look of his and a look at the count could both be too early.)

use crate::facts::error::{OwnerName, Poisoned, Refused};
use crate::facts::mode::Mode;
use crate::facts::owner::{self, OwnerId};
use crate::facts::range::ByteRange;
use crate::platform::reclaim::LazyPin;
use crate::protocol::cycle;
use crate::protocol::grant::{self, Held};
use crate::protocol::lock_state::{LockState, Seen, what};
use crate::protocol::turn::Reasons;
use crate::tree::{Query, Whose};
use crate::wait;
use std::collections::BTreeSet;
use std::ops::ControlFlow::Continue;

/// What tells the slot of `seen` from all others of its lock.
fn place_of(seen: &Seen<'_>) -> (usize, usize) {
    let (bells, index) = seen.room();
    (std::ptr::from_ref(bells).addr(), index)
}

fn mark(state: &LockState, seen: &Seen<'_>, reason: &str) -> bool {
    state.turn().with_reasons(|reasons| {
        if reasons.len() >= MANY {
            forget_the_gone(state, reasons);
        }
        reasons.insert(place_of(seen), reason.into());
        seen.poison()
    })
}

/// So many reasons are kept for holders who may have gone.
const MANY: usize = 64;

/// Keeps the reasons of those who are poisoned still. (A mark is set with the mutex in hand.)
fn forget_the_gone(state: &LockState, reasons: &mut Reasons) {
    let mut there = BTreeSet::new();
    grant::survey(&state.tree, |seen| {
        if seen.word().is_poisoned() {
            there.insert(place_of(seen));
        }
    });
    reasons.retain(|place, _| there.contains(place));
}

/// Poisons a hold.
pub(crate) fn poison(state: &LockState, held: &Held, reason: &str) {
    if !held.is_nothing() {
        mark(state, &held.0.0.seen(&LazyPin::new()), reason);
        wait::deliver();
    }
}

/// Takes that back; whether it was poisoned.
pub(crate) fn cure(state: &LockState, held: &Held) -> bool {
    !held.is_nothing() && cure_seen(state, &held.0.0.seen(&LazyPin::new())) == Done::Yes
}

fn cure_seen(state: &LockState, seen: &Seen<'_>) -> Done {
    if !seen.word().is_poisoned() {
        return Done::No;
    }
    if !seen.cure() {
        return Done::Unknown;
    }
    state.turn().with_reasons(|reasons| reasons.remove(&place_of(seen)));
    Done::Yes
}

/// What has been done to a hold that was seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Done {
    Yes,
    /// There was nothing to do.
    No,
    /// It has changed meanwhile: it has gone, or shrunk.
    Unknown,
}

/// Whether a hold is poisoned.
pub(crate) fn is_poisoned(held: &Held) -> bool {
    !held.is_nothing() && held.0.0.seen(&LazyPin::new()).word().is_poisoned()
}

/// Poisons all that hold some of `range`; says how many. Lock-free but for short mutexes: it looks again if one of them
/// has changed, or a hold of the lock has moved, meanwhile.
pub(crate) fn poison_all(state: &LockState, range: ByteRange, reason: &str) -> usize {
    let act = |seen: &Seen<'_>| if mark(state, seen, reason) { Done::Yes } else { Done::Unknown };
    let (in_the_last_look, _) = each_hold(state, range, act);
    wait::deliver();
    in_the_last_look
}

/// Takes that back; says of how many.
pub(crate) fn cure_all(state: &LockState, range: ByteRange) -> usize {
    let (_, in_all) = each_hold(state, range, |seen| cure_seen(state, seen));
    in_all
}

/// Does something with all that hold some of `range`. Says to how many, in its last look, and in all.
fn each_hold(state: &LockState, range: ByteRange, mut act: impl FnMut(&Seen<'_>) -> Done) -> (usize, usize) {
    if range.is_empty() {
        return (0, 0);
    }
    let (start, last) = range.bounds();
    // No owner has the id 0: all are others.
    let query = Query { start, last, against: Mode::Exclusive.against(), owner: 0, whose: Whose::Others };
    let pin = LazyPin::new();
    let mut in_all = 0;
    loop {
        let (count, is_unknown) = state.look_at_rest(|tree| {
            let (mut count, mut is_unknown) = (0, false);
            let _ = tree.scan(&query, None, &pin, |seen| {
                if seen.ticket().is_none() && !cycle::is_undecided(&seen) {
                    let done = act(&seen);
                    count += usize::from(done == Done::Yes);
                    is_unknown |= done == Done::Unknown;
                }
                Continue(())
            });
            in_all += count;
            (count, is_unknown)
        });
        // Who has changed may hold still, under another version of its word.
        if !is_unknown {
            return (count, in_all);
        }
    }
}

/// `new` has become what `old` is to be, or a part of it, and has been counted as a move: it is poisoned if that is.
pub(crate) fn inherit(state: &LockState, old: &Held, new: &Held) {
    if !old.is_nothing() && old.0.0.moves_poisoned() {
        let reason = reason_of(state, &old.0.0.seen(&LazyPin::new()));
        poison(state, new, &reason);
    }
}

fn reason_of(state: &LockState, seen: &Seen<'_>) -> Box<str> {
    let reason = state.turn().with_reasons(|reasons| reasons.get(&place_of(seen)).cloned());
    // It was cured meanwhile.
    reason.unwrap_or_else(|| "it has been cured since".into())
}

/// What is answered to who would wait for the holder that was seen.
#[cold]
pub(crate) fn refusal(state: &LockState, seen: &Seen<'_>) -> Refused {
    let owner = OwnerId::from_slot(seen.owner());
    let (range, mode) = what(seen);
    let name = OwnerName { id: owner, name: owner::name_of(owner) };
    Refused::Poisoned(Poisoned::new(state.label(), name, range, mode, reason_of(state, seen)))
}
