//! Who is inside of what a lock protects.

use spanlock::Mode;
use std::sync::atomic::{AtomicU64, Ordering};

/// One counter per mode in one word, so that one `fetch_add` enters and sees all the others.
#[derive(Debug, Default)]
pub(crate) struct Inside(AtomicU64);

const FIELD: u64 = 0xffff;

fn shift(mode: Mode) -> usize {
    16 * mode as usize
}

impl Inside {
    /// Somebody comes in; fails if somebody is there who does not go with him.
    pub(crate) fn enter(&self, mode: Mode) {
        // Relaxed on purpose, here and in `leave`: only the lock may order what follows.
        let others = self.0.fetch_add(1 << shift(mode), Ordering::Relaxed);
        for held in Mode::ALL {
            let count = others >> shift(held) & FIELD;
            assert!(
                super::together(held, mode) || count == 0,
                "{count} holders of {held:?} inside with a new {mode:?}"
            );
        }
    }

    pub(crate) fn leave(&self, mode: Mode) {
        self.0.fetch_sub(1 << shift(mode), Ordering::Relaxed);
    }

    pub(crate) fn assert_empty(&self) {
        assert_eq!(self.0.load(Ordering::Relaxed), 0, "somebody never left");
    }
}
