//! The three modes, and the one table of what goes together.

use std::fmt;

/// What a request wants to do with its range.
///
/// | held \ asked | `Add` | `Block` | `Exclusive` |
/// |---|---|---|---|
/// | `Add` | together | wait | wait |
/// | `Block` | wait | together | wait |
/// | `Exclusive` | wait | wait | wait |
///
/// In a page cache, whoever puts pages into the cache *adds* and whoever changes the bytes underneath *blocks* adding.
/// A reader-writer lock is `Add` (or `Block`) for readers and `Exclusive` for writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Goes with other adders: buffered I/O, page faults; the shared mode of database users.
    Add,
    /// Goes with other blockers: direct writes.
    Block,
    /// Goes with nothing: truncate, collapse, insert; the exclusive mode of database users.
    Exclusive,
}

impl Mode {
    /// All three, in the order of the table.
    pub const ALL: [Mode; 3] = [Mode::Add, Mode::Block, Mode::Exclusive];

    /// Whether two owners may hold one byte in these modes at the same time.
    ///
    /// ```
    /// use spanlock::Mode;
    ///
    /// assert!(Mode::Block.goes_with(Mode::Block));
    /// assert!(!Mode::Block.goes_with(Mode::Add));
    /// ```
    pub const fn goes_with(self, other: Mode) -> bool {
        self.against() & other.bit() == 0
    }

    /// Whether who holds a byte in this mode may do with it all that the other mode allows: each mode covers itself,
    /// and [`Exclusive`](Mode::Exclusive) covers all.
    ///
    /// ```
    /// use spanlock::Mode;
    ///
    /// assert!(Mode::Exclusive.covers(Mode::Add) && Mode::Add.covers(Mode::Add));
    /// assert!(!Mode::Add.covers(Mode::Block) && !Mode::Block.covers(Mode::Add));
    /// ```
    pub const fn covers(self, other: Mode) -> bool {
        // Whom the other is in the way of, this one is too.
        other.against() & !self.against() == 0
    }

    /// One bit per mode, so that many slots can be compared by OR-ing their words.
    pub(crate) const fn bit(self) -> u64 {
        1 << self as u64
    }

    /// The mode of a bit that [`Mode::bit`] gave.
    pub(crate) const fn from_bit(bit: u64) -> Mode {
        match bit {
            0b001 => Mode::Add,
            0b010 => Mode::Block,
            _ => Mode::Exclusive,
        }
    }

    /// The bits of the modes that this one does not go with.
    pub(crate) const fn against(self) -> u64 {
        Mode::against_bit(self.bit())
    }

    /// The same for the mode's bit.
    pub(crate) const fn against_bit(bit: u64) -> u64 {
        // All, but for itself if it goes with itself. (Computed, not looked up: this is on every path.)
        0b111 ^ (bit & 0b011)
    }
}

/// `add`, `block`, `exclusive`: as the calls are called.
impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Mode::Add => "add",
            Mode::Block => "block",
            Mode::Exclusive => "exclusive",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Mode::{self, Add, Block};

    #[test]
    fn the_table_is_symmetric_and_says_what_the_docs_say() {
        for a in Mode::ALL {
            for b in Mode::ALL {
                let together = matches!((a, b), (Add, Add) | (Block, Block));
                assert_eq!(a.goes_with(b), together, "{a:?} {b:?}");
            }
            assert_eq!(Mode::from_bit(a.bit()), a);
        }
    }

    /// A downgrade leaves the bit of the stricter mode on the links that lead to it, and does not announce the weaker
    /// one.
    #[test]
    fn whom_a_mode_is_in_the_way_of_a_stricter_one_is_too() {
        for strict in Mode::ALL {
            for weak in Mode::ALL.into_iter().filter(|weak| weak.against() & !strict.against() == 0) {
                let concerned = |by: Mode| Mode::ALL.into_iter().filter(move |mode| mode.against() & by.bit() != 0);
                assert!(concerned(weak).all(|mode| mode.against() & strict.bit() != 0), "{strict:?} to {weak:?}");
            }
        }
    }
}
