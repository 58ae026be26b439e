//! Where threads were found when they last looked at the shape of a tree: whether they come back (`place`).

use super::slot::Entry;
use crate::owner::Visitor;
use crate::sync::thread_local;
use std::cell::Cell;

/// Places that a thread remembers: of so many trees, if it goes round among them.
const PLACES: usize = 16;

#[derive(Clone, Copy)]
struct Place {
    /// Whose, of the tests' threads, and in which tree.
    of: (u16, usize),
    range: (u64, u64),
}

const NOWHERE: Place = Place { of: (0, 0), range: (0, 0) };

#[cfg(not(any(loom, spanlock_shuttle)))]
thread_local! {
    static LAST: [Cell<Place>; PLACES] = const { [const { Cell::new(NOWHERE) }; PLACES] };
}
#[cfg(any(loom, spanlock_shuttle))]
thread_local! {
    static LAST: [Cell<Place>; PLACES] = [const { Cell::new(NOWHERE) }; PLACES];
}

/// The visitor is found at the range of `entry` in the tree with this key; returns where it was found there before.
pub(super) fn swap(tree: usize, visitor: Visitor, entry: &Entry) -> Option<(u64, u64)> {
    let of = (visitor.mark(), tree);
    LAST.with(|last| {
        // Trees are as far apart as a lock is large.
        let place = &last[(tree / 512 + usize::from(of.0)) % PLACES];
        let before = place.replace(Place { of, range: (entry.start, entry.last) });
        (before.of == of).then_some(before.range)
    })
}
