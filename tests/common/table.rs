//! Who holds what, byte by byte, as the holders themselves say it: each enters after its grant and leaves before its
//! release, and finds whether somebody is there who should not be.

use super::together;
use spanlock::{ByteRange, Mode};
use std::sync::atomic::{AtomicU64, Ordering};

/// As what a holder stands in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum As {
    Holder(Mode),
    /// Between adding and blocking, while the lock converts one to the other: others may do either, and may not be
    /// alone.
    Changing,
}

const ALL: [As; 4] = [As::Holder(Mode::Add), As::Holder(Mode::Block), As::Holder(Mode::Exclusive), As::Changing];

impl As {
    fn shift(self) -> usize {
        16 * ALL.iter().position(|each| *each == self).expect("it is one of them")
    }

    fn together(self, other: As) -> bool {
        match (self, other) {
            (As::Holder(a), As::Holder(b)) => together(a, b),
            (As::Changing, As::Holder(mode)) | (As::Holder(mode), As::Changing) => mode != Mode::Exclusive,
            (As::Changing, As::Changing) => true,
        }
    }
}

/// One word for each byte, with a count for each kind of holder.
#[derive(Debug)]
pub(crate) struct Table(Vec<AtomicU64>);

impl Table {
    pub(crate) fn new(bytes: usize) -> Table {
        Table((0..bytes).map(|_| AtomicU64::new(0)).collect())
    }

    fn words(&self, range: ByteRange) -> &[AtomicU64] {
        match (range.start(), range.last()) {
            (Some(start), Some(last)) => &self.0[start as usize..=last as usize],
            _ => &[],
        }
    }

    /// Comes in. Nobody may be there who does not go with that.
    #[track_caller]
    pub(crate) fn enter(&self, range: ByteRange, kind: As) {
        for word in self.words(range) {
            // Relaxed, here and below: the counts of one byte have one order, and only the lock may keep holders apart.
            let others = word.fetch_add(1 << kind.shift(), Ordering::Relaxed);
            for other in ALL {
                let count = others >> other.shift() & 0xffff;
                assert!(kind.together(other) || count == 0, "{count} of {other:?} in {range} with a new {kind:?}");
            }
        }
    }

    pub(crate) fn leave(&self, range: ByteRange, kind: As) {
        for word in self.words(range) {
            word.fetch_sub(1 << kind.shift(), Ordering::Relaxed);
        }
    }

    /// From one standing to another, without being away in between.
    #[track_caller]
    pub(crate) fn change(&self, range: ByteRange, from: As, to: As) {
        self.leave(range, from);
        self.enter(range, to);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| word.load(Ordering::Relaxed) == 0)
    }
}
