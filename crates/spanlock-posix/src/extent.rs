//! What a lock covers: the bytes that `struct flock` names by start and length, and the places without a byte that SMB
//! locks.

use crate::error::Error;
use spanlock::ByteRange;
use std::fmt;
use std::ops::{Bound, RangeBounds};

/// The last byte that a file can have: the largest `off_t`.
const LAST: u64 = i64::MAX as u64;

/// The bytes that a lock covers, or a place between two bytes ([`Extent::exact`] with a length of 0).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Extent {
    start: u64,
    /// Inclusive. Below `start`, or meaningless, if it holds no byte.
    last: u64,
    is_place: bool,
}

impl Extent {
    /// Every byte that a file can have: from 0, with a length of 0.
    pub const WHOLE: Extent = Extent { start: 0, last: LAST, is_place: false };

    /// What `l_start` and `l_len` of a `struct flock` name, from the file's begin (`SEEK_SET`). A length of 0 is to the
    /// end, which is byte `i64::MAX`; a negative one are the bytes before `start`.
    ///
    /// # Errors
    /// [`Error::Overflow`] if it reaches past the end. [`Error::Invalid`] if it begins before byte 0.
    ///
    /// ```
    /// # use spanlock_posix::{Error, Extent};
    /// assert_eq!(Extent::new(100, -10), Extent::new(90, 10));
    /// assert_eq!(Extent::new(0, 0), Ok(Extent::WHOLE));
    /// assert_eq!(Extent::new(5, i64::MAX), Err(Error::Overflow));
    /// assert_eq!(Extent::new(5, -6), Err(Error::Invalid));
    /// ```
    pub const fn new(start: i64, len: i64) -> Result<Extent, Error> {
        Extent::relative(0, start, len)
    }

    /// The same, from `base`: the file's position (`SEEK_CUR`) or its size (`SEEK_END`), neither of which is negative.
    ///
    /// # Errors
    /// As for [`Extent::new`]; and [`Error::Overflow`] if `base + start` is too large for an `off_t`.
    pub const fn relative(base: i64, start: i64, len: i64) -> Result<Extent, Error> {
        let Some(start) = base.checked_add(start) else { return Err(Error::Overflow) };
        if start < 0 {
            return Err(Error::Invalid);
        }
        let (start, last) = if len > 0 {
            match start.checked_add(len - 1) {
                Some(last) => (start, last),
                None => return Err(Error::Overflow),
            }
        } else if len < 0 {
            // Neither sum overflows: `start` is not negative.
            if start + len < 0 {
                return Err(Error::Invalid);
            }
            (start + len, start - 1)
        } else {
            (start, i64::MAX)
        };
        Ok(Extent { start: start as u64, last: last as u64, is_place: false })
    }

    /// The bytes of a range, `4096..8192` say; an open end is that of the file.
    ///
    /// # Errors
    /// [`Error::Overflow`] if it reaches past byte `i64::MAX`. [`Error::Invalid`] if it holds no byte.
    ///
    /// ```
    /// # use spanlock_posix::Extent;
    /// assert_eq!(Extent::bytes(90..100), Extent::new(90, 10));
    /// assert_eq!(Extent::bytes(..), Ok(Extent::WHOLE));
    /// ```
    pub fn bytes(range: impl RangeBounds<u64>) -> Result<Extent, Error> {
        let start = match range.start_bound() {
            Bound::Included(&start) => Some(start),
            Bound::Excluded(&before) => before.checked_add(1),
            Bound::Unbounded => Some(0),
        };
        let last = match range.end_bound() {
            Bound::Included(&last) => Some(last),
            Bound::Excluded(&end) => end.checked_sub(1),
            Bound::Unbounded => Some(LAST),
        };
        match (start, last) {
            (Some(start), Some(last)) if start <= last && last <= LAST => Ok(Extent { start, last, is_place: false }),
            (Some(start), Some(last)) if start <= last => Err(Error::Overflow),
            _ => Err(Error::Invalid),
        }
    }

    /// What SMB and `LockFileEx` name by offset and length: all of `u64`, and a length of 0 is a place, between the
    /// byte before `offset` and the one at it. It is in the way of whatever covers both.
    ///
    /// # Errors
    /// [`Error::Overflow`] if it reaches past byte `u64::MAX`.
    pub const fn exact(offset: u64, length: u64) -> Result<Extent, Error> {
        if length == 0 {
            return Ok(Extent { start: offset, last: 0, is_place: true });
        }
        match offset.checked_add(length - 1) {
            Some(last) => Ok(Extent { start: offset, last, is_place: false }),
            None => Err(Error::Overflow),
        }
    }

    pub(crate) const fn between(start: u64, last: u64) -> Extent {
        debug_assert!(start <= last);
        Extent { start, last, is_place: false }
    }

    /// The first byte, or the one behind the place.
    pub const fn start(self) -> u64 {
        self.start
    }

    /// The last byte (inclusive); `None` for a place.
    pub const fn last(self) -> Option<u64> {
        if self.is_place { None } else { Some(self.last) }
    }

    /// The length in bytes as `l_len` has it: 0 if it reaches to byte `i64::MAX` or beyond. (And for a place, which has
    /// none.)
    pub const fn len(self) -> i64 {
        if self.is_place || self.last >= LAST { 0 } else { (self.last - self.start) as i64 + 1 }
    }

    /// Whether it is a place between two bytes, and holds none.
    pub const fn is_empty(self) -> bool {
        self.is_place
    }

    /// The same bytes for [`spanlock`].
    pub fn range(self) -> ByteRange {
        if self.is_place { ByteRange::EMPTY } else { ByteRange::new(self.start..=self.last) }
    }

    /// Whether two locks of these, of owners that conflict, would be in each other's way.
    pub const fn meets(self, other: Extent) -> bool {
        match (self.is_place, other.is_place) {
            (false, false) => self.start <= other.last && other.start <= self.last,
            (true, false) => other.start < self.start && self.start <= other.last,
            (false, true) => self.start < other.start && other.start <= self.last,
            (true, true) => false,
        }
    }

    /// The last byte of what is known to be no place.
    pub(crate) const fn end(self) -> u64 {
        debug_assert!(!self.is_place);
        self.last
    }
}

/// `90..100`, `90..` if it reaches to the end of the file or beyond, `at 90` for a place.
impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_place {
            f.pad(&format!("at {}", self.start))
        } else if self.last >= LAST {
            f.pad(&format!("{}..", self.start))
        } else {
            f.pad(&format!("{}..{}", self.start, self.last + 1))
        }
    }
}

impl fmt::Debug for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
