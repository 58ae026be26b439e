//! Byte ranges over the whole of `u64`, the last byte included.

use std::fmt;
use std::ops::{Bound, Range, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

/// A range of bytes. It may be empty, and it may contain the byte `u64::MAX`, which `Range<u64>` cannot.
///
/// Inside, the bounds are inclusive (`start..=last`), so that no sum ever overflows. Ranges are ordered by their start,
/// and then by their last byte; the empty one comes behind those that start at 0.
///
/// It is made from ranges of other integers, too; a negative bound panics:
/// ```
/// use spanlock::ByteRange;
///
/// let (offset, len): (i64, usize) = (4096, 512); // as system calls have them
/// assert_eq!(ByteRange::from(offset..offset + len as i64), ByteRange::new(4096..4608));
/// assert_eq!(ByteRange::from(0..len).end(), Some(512));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRange {
    /// Never above `last`, but for the one empty range, `1..=0`.
    start: u64,
    last: u64,
}

impl ByteRange {
    /// Every byte that a `u64` can name.
    pub const WHOLE: ByteRange = ByteRange { start: 0, last: u64::MAX };

    /// No byte.
    pub const EMPTY: ByteRange = ByteRange { start: 1, last: 0 };

    /// The bytes that `bounds` names; an empty range of any position is [`ByteRange::EMPTY`].
    ///
    /// # Panics
    /// If the range is inverted (it ends before it starts), as slicing does.
    ///
    /// ```
    /// use spanlock::ByteRange;
    ///
    /// assert_eq!(ByteRange::new(..), ByteRange::WHOLE);
    /// assert_eq!(ByteRange::new(4096..8192).last(), Some(8191));
    /// assert!(ByteRange::new(5..5).is_empty());
    /// assert!(ByteRange::new(u64::MAX..=u64::MAX).contains(u64::MAX));
    /// ```
    #[track_caller]
    #[inline]
    pub fn new(bounds: impl RangeBounds<u64>) -> ByteRange {
        // In 128 bits the exclusive end of a range that holds the last byte is a number like any other.
        let start = match bounds.start_bound() {
            Bound::Included(&start) => u128::from(start),
            Bound::Excluded(&before) => u128::from(before) + 1,
            Bound::Unbounded => 0,
        };
        let end = match bounds.end_bound() {
            Bound::Included(&last) => u128::from(last) + 1,
            Bound::Excluded(&end) => u128::from(end),
            Bound::Unbounded => 1 << 64,
        };
        if start >= end {
            if start > end {
                inverted(start, end);
            }
            return ByteRange::EMPTY;
        }
        ByteRange { start: start as u64, last: (end - 1) as u64 }
    }

    /// The bytes from `start` to `last`, which is not below it.
    #[inline]
    pub(crate) const fn between(start: u64, last: u64) -> ByteRange {
        debug_assert!(start <= last);
        ByteRange { start, last }
    }

    /// Whether it contains no byte.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.start > self.last
    }

    /// The first byte, or `None` if the range is empty.
    pub const fn start(self) -> Option<u64> {
        if self.is_empty() { None } else { Some(self.start) }
    }

    /// The last byte (inclusive), or `None` if the range is empty.
    pub const fn last(self) -> Option<u64> {
        if self.is_empty() { None } else { Some(self.last) }
    }

    /// The byte behind the last (exclusive end), from 1 to 2^64, or `None` if the range is empty.
    ///
    /// ```
    /// use spanlock::ByteRange;
    ///
    /// assert_eq!(ByteRange::new(0..4096).end(), Some(4096));
    /// assert_eq!(ByteRange::WHOLE.end(), Some(1 << 64)); // no `u64`
    /// ```
    pub const fn end(self) -> Option<u128> {
        if self.is_empty() { None } else { Some(self.last as u128 + 1) }
    }

    /// The number of bytes, from 0 to 2^64.
    pub const fn len(&self) -> u128 {
        if self.is_empty() { 0 } else { (self.last - self.start) as u128 + 1 }
    }

    /// Whether `byte` lies in the range.
    pub const fn contains(&self, byte: u64) -> bool {
        self.start <= byte && byte <= self.last
    }

    /// Whether the two ranges share a byte.
    #[inline]
    pub const fn overlaps(self, other: ByteRange) -> bool {
        // Empty ranges (`1..=0`) need their own test: they lie "inside" any range around 0 and 1.
        self.start <= other.last && other.start <= self.last && !self.is_empty() && !other.is_empty()
    }

    /// Whether every byte of `other` lies in this range. Every range contains all of an empty one.
    pub const fn contains_all(self, other: ByteRange) -> bool {
        other.is_empty() || (self.start <= other.start && other.last <= self.last)
    }

    /// The bytes before `at`, and those from `at` on.
    ///
    /// # Panics
    /// If `at` lies neither in the range nor directly behind it.
    ///
    /// ```
    /// use spanlock::ByteRange;
    ///
    /// assert_eq!(ByteRange::new(0..10).split(4), (ByteRange::new(0..4), ByteRange::new(4..10)));
    /// assert_eq!(ByteRange::new(0..10).split(10), (ByteRange::new(0..10), ByteRange::EMPTY));
    /// ```
    #[track_caller]
    pub fn split(self, at: u64) -> (ByteRange, ByteRange) {
        if !self.contains(at) {
            assert!(
                !self.is_empty() && self.last.checked_add(1) == Some(at),
                "{at} is neither in {self} nor directly behind it"
            );
            return (self, ByteRange::EMPTY);
        }
        let head = if at == self.start { ByteRange::EMPTY } else { ByteRange { start: self.start, last: at - 1 } };
        (head, ByteRange { start: at, last: self.last })
    }

    /// The bytes that both ranges contain.
    pub fn intersect(self, other: ByteRange) -> ByteRange {
        if !self.overlaps(other) {
            return ByteRange::EMPTY;
        }
        ByteRange { start: self.start.max(other.start), last: self.last.min(other.last) }
    }

    /// Widened to whole pages of `page` bytes; an empty range stays empty.
    ///
    /// # Panics
    /// If `page` is not a power of two.
    ///
    /// ```
    /// use spanlock::ByteRange;
    ///
    /// assert_eq!(ByteRange::new(4095..4097).to_pages(4096), ByteRange::new(0..8192));
    /// ```
    pub fn to_pages(self, page: u64) -> ByteRange {
        assert!(page.is_power_of_two(), "a page must be a power of two of bytes, not {page}");
        if self.is_empty() {
            return self;
        }
        ByteRange { start: self.start & !(page - 1), last: self.last | (page - 1) }
    }

    /// The inclusive bounds that the tree works with. Only for a range that is not empty.
    #[inline]
    pub(crate) fn bounds(self) -> (u64, u64) {
        debug_assert!(!self.is_empty());
        (self.start, self.last)
    }

    /// `range`, if it is a part of this one, which somebody has by what `whose` says; panics otherwise. An open end is
    /// this one's own.
    #[track_caller]
    pub(crate) fn part(self, range: impl RangeBounds<u64>, whose: &str) -> ByteRange {
        let (start, end) = (range.start_bound().cloned(), range.end_bound().cloned());
        let is_open = start == Bound::Unbounded || end == Bound::Unbounded;
        let part = match (self.start(), self.last()) {
            (Some(first), Some(last)) => {
                let start = if start == Bound::Unbounded { Bound::Included(first) } else { start };
                let end = if end == Bound::Unbounded { Bound::Included(last) } else { end };
                ByteRange::new((start, end))
            }
            _ if is_open => ByteRange::EMPTY,
            _ => ByteRange::new((start, end)),
        };
        assert!(self.contains_all(part), "{part} is not a part of {self}, which {whose}");
        part
    }
}

#[cold]
#[track_caller]
fn inverted(start: u128, end: u128) -> ! {
    panic!("range starts at {start} but ends at {end}: the start of a byte range must not lie after its end")
}

/// # Panics
/// Each of these if the range is inverted, or has a negative bound.
macro_rules! from_ranges {
    ($($int:ty),*) => { $(
        impl From<Range<$int>> for ByteRange {
            #[track_caller]
            fn from(range: Range<$int>) -> ByteRange {
                ByteRange::new(byte(range.start)..byte(range.end))
            }
        }

        impl From<RangeInclusive<$int>> for ByteRange {
            #[track_caller]
            fn from(range: RangeInclusive<$int>) -> ByteRange {
                ByteRange::new((bound(range.start_bound()), bound(range.end_bound())))
            }
        }

        impl From<RangeFrom<$int>> for ByteRange {
            #[track_caller]
            fn from(range: RangeFrom<$int>) -> ByteRange {
                ByteRange::new(byte(range.start)..)
            }
        }

        impl From<RangeTo<$int>> for ByteRange {
            #[track_caller]
            fn from(range: RangeTo<$int>) -> ByteRange {
                ByteRange::new(..byte(range.end))
            }
        }

        impl From<RangeToInclusive<$int>> for ByteRange {
            #[track_caller]
            fn from(range: RangeToInclusive<$int>) -> ByteRange {
                ByteRange::new(..=byte(range.end))
            }
        }
    )* };
}

from_ranges!(u64, usize, u32, i64, i32);

impl From<RangeFull> for ByteRange {
    fn from(_: RangeFull) -> ByteRange {
        ByteRange::WHOLE
    }
}

#[track_caller]
fn byte<I: TryInto<u64> + fmt::Display + Copy>(bound: I) -> u64 {
    match bound.try_into() {
        Ok(byte) => byte,
        Err(_) => panic!("a byte range cannot begin or end at {bound}: bytes are counted from 0"),
    }
}

#[track_caller]
fn bound<I: TryInto<u64> + fmt::Display + Copy>(bound: Bound<&I>) -> Bound<u64> {
    match bound {
        Bound::Included(&at) => Bound::Included(byte(at)),
        Bound::Excluded(&at) => Bound::Excluded(byte(at)),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// So that a `ByteRange` can be passed wherever the lock takes a range.
impl RangeBounds<u64> for ByteRange {
    fn start_bound(&self) -> Bound<&u64> {
        Bound::Included(&self.start)
    }

    fn end_bound(&self) -> Bound<&u64> {
        Bound::Included(&self.last)
    }
}

/// Half-open where that can be written (`0..4096`), `start..` up to the last byte, `empty` for no byte.
impl fmt::Debug for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.is_empty(), self.last.checked_add(1)) {
            (true, _) => f.write_str("empty"),
            (false, Some(end)) => write!(f, "{}..{end}", self.start),
            (false, None) => write!(f, "{}..", self.start),
        }
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
