//! Who is inside, by the word of the holders themselves: a counter for each mode in each cell of a lock. A double grant
//! shows as somebody found there who does not go together with the one who comes in.

use spanlock::{ByteRange, Mode};
use std::sync::atomic::{AtomicU64, Ordering};

/// One counter per mode in one word, so that one `fetch_add` enters and sees all others.
const BITS: u32 = 20;
const FIELD: u64 = (1 << BITS) - 1;

fn field(mode: Mode) -> u32 {
    match mode {
        Mode::Add => 0,
        Mode::Block => BITS,
        Mode::Exclusive => 2 * BITS,
    }
}

/// The contract's table, written out: nothing here asks the library.
fn together(a: Mode, b: Mode) -> bool {
    matches!((a, b), (Mode::Add, Mode::Add) | (Mode::Block, Mode::Block))
}

/// The cells of one lock, `1 << scale` bytes each.
#[derive(Debug)]
pub(crate) struct Shadow {
    cells: Vec<AtomicU64>,
    scale: u32,
}

impl Shadow {
    pub(crate) fn new(cells: usize, scale: u32) -> Shadow {
        Shadow { cells: (0..cells).map(|_| AtomicU64::new(0)).collect(), scale }
    }

    /// One with the same cells.
    pub(crate) fn like(&self) -> Shadow {
        Shadow::new(self.cells.len(), self.scale)
    }

    pub(crate) fn cells(&self) -> u64 {
        self.cells.len() as u64
    }

    /// The bytes of some cells. With cells of 2^58 bytes the last one ends with the last byte of all.
    pub(crate) fn bytes(&self, first: u64, last: u64) -> ByteRange {
        let end = ((last + 1) << self.scale).wrapping_sub(1);
        ByteRange::new((first << self.scale)..=end)
    }

    /// Comes in. Relaxed, here and in `leave`: only the lock may order what follows.
    ///
    /// # Errors
    /// Who was found inside, and does not go with `mode`.
    pub(crate) fn enter(&self, range: ByteRange, mode: Mode) -> Result<(), String> {
        for cell in self.covered(range) {
            let others = self.cells[cell].fetch_add(1 << field(mode), Ordering::Relaxed);
            let wrong = Mode::ALL.into_iter().find(|&held| !together(held, mode) && others >> field(held) & FIELD != 0);
            if let Some(held) = wrong {
                return Err(format!("{mode:?} of {range} was granted, and cell {cell} is held in {held:?}"));
            }
        }
        Ok(())
    }

    pub(crate) fn leave(&self, range: ByteRange, mode: Mode) {
        for cell in self.covered(range) {
            self.cells[cell].fetch_sub(1 << field(mode), Ordering::Relaxed);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.cells.iter().all(|cell| cell.load(Ordering::Relaxed) == 0)
    }

    /// The numbers of the cells that a range touches.
    pub(crate) fn covered(&self, range: ByteRange) -> std::ops::Range<usize> {
        match (range.start(), range.last()) {
            (Some(start), Some(last)) => (start >> self.scale) as usize..(last >> self.scale) as usize + 1,
            _ => 0..0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_belong_is_seen() {
        let shadow = Shadow::new(8, 4);
        shadow.enter(shadow.bytes(0, 3), Mode::Add).unwrap();
        shadow.enter(shadow.bytes(2, 2), Mode::Add).unwrap();
        shadow.enter(shadow.bytes(4, 7), Mode::Exclusive).unwrap();
        assert!(shadow.enter(shadow.bytes(3, 3), Mode::Block).is_err());
        assert!(shadow.enter(shadow.bytes(7, 7), Mode::Add).is_err());
    }

    #[test]
    fn who_has_left_is_gone() {
        let shadow = Shadow::new(64, 58);
        let all = shadow.bytes(0, 63);
        assert_eq!(all, ByteRange::new(..));
        shadow.enter(all, Mode::Exclusive).unwrap();
        shadow.leave(all, Mode::Exclusive);
        assert!(shadow.is_empty());
        shadow.enter(all, Mode::Block).unwrap();
        assert!(!shadow.is_empty());
    }
}
