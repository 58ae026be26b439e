//! Holders whom nobody waits for, as they are known to be stuck.
//!
//! # Promise
//! - Who would wait for a poisoned hold is refused, as long as that is one: each time that it looks who is in front of
//!   it. It is told what was said of that very hold.
//! - The hold itself is what it was: nobody is granted beside it, and a release frees its bytes. With that the mark has
//!   gone.
//! - A hold that moves, or is split, takes its mark along; who takes the mark back meanwhile takes it back wherever it
//!   is.
//! - A lock in which nobody is poisoned pays nothing for it.
//!
//! # How
//! The *mark* is a bit of the holder's word, one that means nothing else there: so whoever holds, asks or releases does
//! nothing more than before. It changes the word, as a downgrade does: who sleeps on the hold is woken, who is about to
//! fails, and both look again, find it, and leave; which wakes those who sleep on *them*. So a queue behind it falls at
//! once. (Who waits for several, and sleeps on another, finds it when that one has gone: he had to wait for that one in
//! any case.)
//!
//! The *reasons* are kept beside the lock's turn, by slot, under a mutex. Marks are set, taken back and handed on under
//! that mutex and nowhere else, each together with its reason, and a look at many holds that does so keeps it from its
//! begin to its end. All else that can become of a mark is that it goes with its hold. (Or it was set on one who is in
//! his doorway, as nobody can tell from outside. If he queues it is none any more, and makes him look once more.) So,
//! for who has the mutex:
//!
//! - INV-M1: *a hold that is marked has a reason at its slot, and it is the one that was given for this hold.* (Whoever
//!   had the slot before left a reason there at most, and the mark that is set later brings its own. A hold that
//!   shrinks keeps slot, mark and reason.) A slot without a mark may have the reason of somebody who has gone; nobody
//!   asks for it, and now and then these are dropped ([`Reasons::sweep`]).
//! - INV-M2: *while any reason is kept, the count of moves says so* ([`LockState::say_marked`]), and has said so since
//!   before the look that set the first of these marks.
//!
//! **Who is refused** has found the mark without the mutex. He takes it, and looks whether the word is still the one
//! that he has found. If it is, the reason is that of this hold (INV-M1). If not, the hold has changed, or gone, or was
//! cured: he looks again. So he is refused at a moment at which the hold is marked.
//!
//! **A hold that moves** has its second slot, and holds by it, when it counts the move; then it gives the first one
//! back, or shrinks it. Let P be a look at the lock that marks, or cures. (Both are changes of one word, the count, so
//! one of the two is first.)
//!
//! - The move is counted before the count says that reasons are kept. Nothing is marked yet. Whoever says so in order
//!   to mark has the second slot from there (M1), and hands that on by the mutex: P finds it, and does with it as with
//!   any.
//! - The move is counted later. Then the holder sees that reasons are kept, and takes the mutex, with both slots in
//!   hand. P before that: it has found the first slot; what it left there is what the second slot gets. P after that:
//!   it finds the second slot, by the mutex.
//!
//! So whatever is said of many holds comes, for each that was there when it began and moves, wholly before the move or
//! wholly after it. (Of one that is granted meanwhile, and split, it can find the second part only.) To count the moves
//! is one step for every conversion in any case; to see that nothing else is to be done is to look at what that step
//! has returned.
//!
//! # Orderings
//! | pair | writer | reader | carries |
//! |---|---|---|---|
//! | M1 | a move: add to the count, Release | first mark: set the count's bit, Acquire | the second slot |

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

/// So many times at least a reason is noted, or looked for in vain, before those of who has gone are dropped.
const MANY: usize = if cfg!(any(loom, spanlock_shuttle)) { 1 } else { 64 };

impl Reasons {
    /// Marks the holder that was seen; `false`: it holds no more, or less.
    fn mark(&mut self, seen: &Seen<'_>, reason: &str) -> bool {
        let is_marked = seen.poison();
        if is_marked {
            self.by_place.insert(place_of(seen), reason.into());
            self.until_swept = self.until_swept.saturating_sub(1);
        }
        is_marked
    }

    /// Takes that back; `false` as above.
    fn cure(&mut self, seen: &Seen<'_>) -> bool {
        let is_cured = seen.cure();
        if is_cured {
            self.by_place.remove(&place_of(seen));
        }
        is_cured
    }

    /// What was said of a hold that is marked.
    fn of(&self, seen: &Seen<'_>) -> Box<str> {
        self.by_place.get(&place_of(seen)).cloned().expect("who is marked has a reason (INV-M1)")
    }

    /// Drops the reasons of who has gone, if it is time: so each step that makes that due pays for a few requests that
    /// are looked at. Whoever is marked stays where he is meanwhile, and is found.
    fn sweep(&mut self, state: &LockState) {
        if self.until_swept > 0 {
            self.until_swept -= 1;
            return;
        }
        let (mut there, mut looked) = (BTreeSet::new(), 0);
        grant::survey(&state.tree, |seen| {
            looked += 1;
            if seen.word().is_poisoned() {
                there.insert(place_of(seen));
            }
        });
        self.by_place.retain(|place, _| there.contains(place));
        self.until_swept = MANY.max(looked) - 1;
    }
}

/// Does something with marks and reasons that adds none. Whoever was woken is called at the next [`wait::deliver`].
fn change<T>(state: &LockState, act: impl FnOnce(&mut Reasons) -> T) -> T {
    state.turn().with_reasons(|reasons| {
        let done = act(reasons);
        if reasons.by_place.is_empty() {
            state.say_marked(false);
        }
        done
    })
}

/// The same with what may add some: it begins when whoever moves knows (INV-M2).
fn add<T>(state: &LockState, act: impl FnOnce(&mut Reasons) -> T) -> T {
    change(state, |reasons| {
        if reasons.by_place.is_empty() {
            state.say_marked(true);
        }
        reasons.sweep(state);
        act(reasons)
    })
}

/// Poisons a hold.
pub(crate) fn poison(state: &LockState, held: &Held, reason: &str) {
    if !held.is_nothing() {
        add(state, |reasons| reasons.mark(&held.0.0.seen(&LazyPin::new()), reason));
        wait::deliver();
    }
}

/// Takes that back; whether it was poisoned.
pub(crate) fn cure(state: &LockState, held: &Held) -> bool {
    is_poisoned(held)
        && change(state, |reasons| {
            let pin = LazyPin::new();
            let seen = held.0.0.seen(&pin);
            seen.word().is_poisoned() && reasons.cure(&seen)
        })
}

/// Whether a hold is poisoned.
pub(crate) fn is_poisoned(held: &Held) -> bool {
    !held.is_nothing() && held.0.0.seen(&LazyPin::new()).word().is_poisoned()
}

/// Poisons all that hold some of `range`; says how many.
pub(crate) fn poison_all(state: &LockState, range: ByteRange, reason: &str) -> usize {
    let Some(query) = holds_in(range) else { return 0 };
    let count = add(state, |reasons| count_holds(state, &query, |seen| Done::of(reasons.mark(seen, reason))));
    wait::deliver();
    count
}

/// Takes that back; says of how many.
pub(crate) fn cure_all(state: &LockState, range: ByteRange) -> usize {
    match holds_in(range) {
        // ORDERING: who has been told that somebody is marked finds that said here.
        Some(query) if state.says_marked() => change(state, |reasons| {
            count_holds(state, &query, |seen| match seen.word().is_poisoned() {
                true => Done::of(reasons.cure(seen)),
                false => Done::No,
            })
        }),
        _ => 0,
    }
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

impl Done {
    fn of(is_done: bool) -> Done {
        if is_done { Done::Yes } else { Done::Unknown }
    }
}

/// All that is there of these bytes, if they are any.
fn holds_in(range: ByteRange) -> Option<Query<'static>> {
    if range.is_empty() {
        return None;
    }
    let (start, last) = range.bounds();
    // No owner has the id 0: all are others.
    Some(Query { start, last, against: Mode::Exclusive.against(), owner: 0, whose: Whose::Others })
}

/// Does something with all holds that `query` finds; says with how many. With the mutex of the reasons in hand: so none
/// of them moves away (see the header).
fn count_holds(state: &LockState, query: &Query, mut act: impl FnMut(&Seen<'_>) -> Done) -> usize {
    let pin = LazyPin::new();
    let mut count = 0;
    let _ = state.tree.scan(query, None, &pin, |seen| {
        let mut next = Some(seen);
        while let Some(seen) = next.take().filter(|seen| seen.ticket().is_none() && !cycle::is_undecided(seen)) {
            match act(&seen) {
                Done::Yes => count += 1,
                Done::No => {}
                // It may hold still, under another version of its word.
                Done::Unknown => next = seen.again(query),
            }
        }
        Continue(())
    });
    count
}

/// `new` has become what `old` is to be, or a part of it, and holds; `old` is about to be given back, or to shrink.
/// Counts that as a move, and marks `new` if `old` is marked.
pub(crate) fn note_move(state: &LockState, old: &Held, new: &Held) {
    if state.note_move() {
        inherit(state, old, new);
    }
}

#[cold]
fn inherit(state: &LockState, old: &Held, new: &Held) {
    let is_marked = change(state, |reasons| {
        reasons.sweep(state);
        let pin = LazyPin::new();
        let [old, new] = [old, new].map(|held| held.0.0.seen(&pin));
        // If something was said of the new one already, that stands.
        if !old.word().is_poisoned() || new.word().is_poisoned() {
            return false;
        }
        let reason = reasons.of(&old);
        reasons.mark(&new, &reason)
    });
    if is_marked {
        wait::deliver();
    }
}

/// What is answered to who would wait for the holder that was seen, which was poisoned; `None` if it has changed since:
/// who asks is to look again.
#[cold]
pub(crate) fn refusal(state: &LockState, seen: &Seen<'_>) -> Option<Refused> {
    // Whether it has changed is looked at with the mutex in hand: if not, the reason is its own (INV-M1).
    let reason = state.turn().with_reasons(|reasons| {
        let is_still = !seen.has_changed();
        is_still.then(|| reasons.of(seen))
    })?;
    let owner = OwnerId::from_slot(seen.owner());
    let (range, mode) = what(seen);
    let name = OwnerName { id: owner, name: owner::name_of(owner) };
    Some(Refused::Poisoned(Poisoned::new(state.label(), name, range, mode, reason)))
}

#[cfg(test)]
mod tests {
    /// As many as are live, and as were noted by the last two calls, at most; and some.
    #[cfg(not(any(loom, spanlock_shuttle)))]
    #[test]
    fn reasons_of_who_has_gone_do_not_pile_up() {
        const HOLDERS: u64 = 500;
        let lock = crate::RangeLock::new();
        for round in 0..40 {
            let page = |at: u64| (round * HOLDERS + at) << 12;
            let guards: Vec<_> = (0..HOLDERS).map(|at| lock.exclusive(page(at)..page(at) + 10)).collect();
            assert_eq!(lock.poison(.., "stuck"), guards.len());
            let kept = lock.state().turn().with_reasons(|reasons| reasons.by_place.len());
            assert!(kept <= 3 * guards.len(), "{kept} reasons in round {round}");
        }
    }
}
