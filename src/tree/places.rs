//! Where threads were found when they last looked at the shape of a tree: whether they come back (`place`).

use super::slot::Entry;
use crate::facts::owner::Visitor;
use crate::platform::sync::thread_local;
use std::cell::Cell;

/// Places that a thread remembers: of so many trees, if it goes round among them.
const PLACES: usize = 16;

#[derive(Clone, Copy)]
struct Place {
    /// Whose, of the tests' threads, and in which tree.
    of: (u16, usize),
    range: (u64, u64),
    /// How often it was found going the same way as others: one more each time, and two less where it was not.
    along: u8,
}

const NOWHERE: Place = Place { of: (0, 0), range: (0, 0), along: 0 };

#[cfg(not(any(loom, spanlock_shuttle)))]
thread_local! {
    static LAST: [Cell<Place>; PLACES] = const { [const { Cell::new(NOWHERE) }; PLACES] };
}
#[cfg(any(loom, spanlock_shuttle))]
thread_local! {
    static LAST: [Cell<Place>; PLACES] = [const { Cell::new(NOWHERE) }; PLACES];
}

/// The place that is remembered for this visitor in this tree, or will be.
fn with<A>(tree: usize, visitor: Visitor, use_it: impl FnOnce(&Cell<Place>, (u16, usize)) -> A) -> A {
    let of = (visitor.mark(), tree);
    // Trees are as far apart as a lock is large.
    LAST.with(|last| use_it(&last[(tree / 512 + usize::from(of.0)) % PLACES], of))
}

/// The visitor is found at the range of `entry` in the tree with this key; returns where it was found there before.
pub(super) fn swap(tree: usize, visitor: Visitor, entry: &Entry) -> Option<(u64, u64)> {
    with(tree, visitor, |place, of| {
        let before = place.get();
        let is_known = before.of == of;
        let along = if is_known { before.along } else { 0 };
        place.set(Place { of, range: (entry.start, entry.last), along });
        is_known.then_some(before.range)
    })
}

/// Times that are counted by [`count_along`].
pub(super) const MOST_ALONG: u8 = 8;

/// The visitor, who has been found just now, goes the same way as others, or not, or it cannot tell; returns how often
/// it did: one more for each time, and two less for each time that it did not.
pub(super) fn count_along(tree: usize, visitor: Visitor, goes_along: Option<bool>) -> u8 {
    with(tree, visitor, |place, _| {
        let before = place.get();
        let along = match goes_along {
            Some(true) => (before.along + 1).min(MOST_ALONG),
            Some(false) => before.along.saturating_sub(2),
            None => before.along,
        };
        place.set(Place { along, ..before });
        along
    })
}
