//! Byte-string keys as positions in `u64`, so that key ranges can be locked as byte ranges.
//!
//! # Promise
//! - INV-K1: the position of a key never falls as keys rise.
//! - INV-K2: a key range becomes the smallest range of positions that holds the position of each of its keys: never too
//!   small, and too large only by keys that share a position with one that was asked for.
//!
//! # Why the ends are where they are
//! Every key has a next one, the same with a zero byte behind it; both share a position, since positions are padded
//! with zeros. So an excluded start must stay in: what follows it has its position. A key that ends in a zero byte has
//! a previous one, and an excluded end of that kind must stay in for the same reason. Any other key `c`, `x` (`x` its
//! last byte, not zero) has no previous one: closest below it are `c`, `x - 1`, 0xff, 0xff and so on, however many. If
//! `x` is among the eight bytes, these reach the position just before its own, and nothing below it has its own; if `x`
//! lies behind them, they agree with it in all eight, and its position must stay in. Nothing lies below the empty key.
//!
//! With a prefix all this is true of what follows the prefix. Keys without it are at 0 or at `u64::MAX`, all together,
//! so an end there stays in.
//!
//! # Source
//! Key-range and predicate locks: Eswaran, Gray, Lorie and Traiger, 1976; next-key locking: Mohan, 1990 (ARIES/KVL).
//! Prefixes as integers: the "poor man's normalized keys" of Graefe and Larson, 2001.

use crate::facts::range::ByteRange;
use std::fmt;
use std::ops::{Bound, Range, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

/// How many bytes of a key decide its position.
const DECIDING: usize = size_of::<u64>();

/// Maps keys that are byte strings onto `u64`, in their order, so that a [`RangeLock`](crate::RangeLock) can lock
/// ranges of them.
///
/// A key's position is made of its first eight bytes, the first one most significant, padded with zeros. Where all keys
/// begin alike, [`KeySpace::with_prefix`] looks at the eight bytes behind that. Keys compare as slices do (byte by
/// byte, a key before its extensions); integers in them keep their order if they are written big-endian.
///
/// ```
/// use spanlock::{KeySpace, RangeLock};
///
/// const USERS: KeySpace = KeySpace::with_prefix(b"user/");
/// static TABLE: RangeLock = RangeLock::new();
///
/// // A scan: nobody may change these users meanwhile, nor insert one between them.
/// let scan = TABLE.add(USERS.range("user/a".."user/f"));
/// let another = std::thread::spawn(|| {
///     assert!(TABLE.try_exclusive(USERS.key("user/bob")).is_none());
///     assert!(TABLE.try_exclusive(USERS.key("user/f")).is_some());
/// });
/// another.join().unwrap();
/// drop(scan);
/// ```
///
/// # Where it is wider than asked
/// Never too small: two ranges that share a key overlap, whatever the keys. There are more keys than positions, so a
/// range may be wider than asked, and then two requests conflict that need not have. It is the smallest range of
/// positions that holds the position of every key asked for; what comes with it is this:
///
/// | asked for | locked as well |
/// |---|---|
/// | a key | every key with the same first eight bytes, where a shorter key counts as filled up with zero bytes |
/// | an excluded start | that key itself: the next one (the same with a zero byte behind it) shares its position |
/// | an excluded end of at most eight bytes, the last one not zero | nothing: the range ends just before it |
/// | any other excluded end (longer, or it ends in a zero byte) | that key itself: keys before it share its position |
/// | a key before all that have the prefix | every key before them, and the first that have it: all are at 0 |
/// | a key behind all that have the prefix | every key behind them, and the last that have it: all are at `u64::MAX` |
///
/// With a prefix, bytes are counted behind it. An excluded end that does not begin with the prefix, or that is the
/// prefix itself, stays in.
///
/// # What to watch for
/// - All who share a lock must use the same `KeySpace`: positions of different ones have nothing to do with one
///   another.
/// - Different keys may be one position. A request with an owner of its own (a future, or one of
///   [`request_arc`](crate::RangeLock::request_arc)) conflicts with what its task holds: a task that holds one key and
///   waits for another with the same position may wait for itself. One range that covers both keys is safe.
/// - Taking keys in their order takes positions in theirs, so a rule against deadlock that orders keys still holds.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct KeySpace<'p> {
    prefix: &'p [u8],
}

impl KeySpace<'static> {
    /// Positions by the first eight bytes of a key.
    pub const fn new() -> KeySpace<'static> {
        KeySpace { prefix: &[] }
    }
}

impl<'p> KeySpace<'p> {
    /// Positions by the eight bytes behind `prefix`, for keys that begin with it.
    ///
    /// Other keys are allowed: those before all that have the prefix are at 0, those behind them at `u64::MAX`.
    ///
    /// ```
    /// use spanlock::{ByteRange, KeySpace};
    ///
    /// let users = KeySpace::with_prefix(b"user/");
    /// assert_eq!(users.point("user/\x01\x02"), 0x0102_0000_0000_0000);
    /// assert_eq!((users.point("product/1"), users.point("vendor/1")), (0, u64::MAX));
    /// assert_eq!(users.range("user/".."user0"), ByteRange::WHOLE); // all that have the prefix: '0' comes after '/'
    /// ```
    pub const fn with_prefix(prefix: &'p [u8]) -> KeySpace<'p> {
        KeySpace { prefix }
    }

    /// Positions by the eight bytes behind what `first` and `last` have in common, for keys between the two: so that
    /// keys that begin alike, as digits of one length, are told apart as far as eight bytes go.
    ///
    /// All who share a lock must use the same: so take two keys that stay what they are, the least and the greatest
    /// that there can be.
    ///
    /// # Panics
    /// If `first` is a greater key than `last`.
    ///
    /// ```
    /// use spanlock::KeySpace;
    ///
    /// let orders = KeySpace::between(b"order/2026-0000000000", b"order/2026-9999999999");
    /// assert_eq!(orders.prefix(), b"order/2026-");
    /// assert_ne!(orders.point("order/2026-0000012300"), orders.point("order/2026-0000024500"));
    /// ```
    #[track_caller]
    pub fn between(first: &'p [u8], last: &[u8]) -> KeySpace<'p> {
        if first > last {
            inverted(first, last);
        }
        let common = first.iter().zip(last).take_while(|(a, b)| a == b).count();
        KeySpace { prefix: &first[..common] }
    }

    /// What the keys are to begin with.
    pub const fn prefix(&self) -> &'p [u8] {
        self.prefix
    }

    /// The position of a key. It never falls as keys rise; different keys may share one.
    ///
    /// ```
    /// use spanlock::KeySpace;
    ///
    /// let keys = KeySpace::new();
    /// assert_eq!(keys.point(b"\x01\x02"), 0x0102_0000_0000_0000);
    /// assert_eq!(keys.point("account/1"), keys.point("account/2")); // eight bytes alike
    /// ```
    pub fn point(&self, key: impl AsRef<[u8]>) -> u64 {
        let key = key.as_ref();
        match key.strip_prefix(self.prefix) {
            Some(rest) => {
                let mut bytes = [0; DECIDING];
                let taken = rest.len().min(DECIDING);
                bytes[..taken].copy_from_slice(&rest[..taken]);
                u64::from_be_bytes(bytes)
            }
            // A part of the prefix is one of these: it comes before its extensions.
            None if key < self.prefix => 0,
            None => u64::MAX,
        }
    }

    /// What to lock for one key: its position alone.
    ///
    /// ```
    /// use spanlock::KeySpace;
    ///
    /// let keys = KeySpace::new();
    /// assert_eq!(keys.key("alice").start(), Some(keys.point("alice")));
    /// assert_eq!(keys.key("alice").last(), Some(keys.point("alice")));
    /// ```
    pub fn key(&self, key: impl AsRef<[u8]>) -> ByteRange {
        let point = self.point(key);
        ByteRange::new(point..=point)
    }

    /// What to lock for a range of keys: the smallest range that holds the position of each of them.
    ///
    /// A range that holds no key is [`ByteRange::EMPTY`]: `k..k`, however its ends are excluded; `..""`; and what lies
    /// strictly between a key and the same key with a zero byte behind it.
    ///
    /// `ByteRange::len` of the result counts positions, which is neither a number of keys nor of bytes.
    ///
    /// # Panics
    /// If the range is inverted (its start is a greater key than its end), as slicing does.
    ///
    /// ```
    /// use spanlock::{ByteRange, KeySpace};
    ///
    /// let keys = KeySpace::new();
    /// assert_eq!(keys.range(..), ByteRange::WHOLE);
    /// assert_eq!(keys.range("a".."b").last(), Some(keys.point("b") - 1));
    /// assert_eq!(keys.range("a"..="b").last(), Some(keys.point("b")));
    /// assert!(keys.range("a".."a").is_empty());
    /// ```
    #[track_caller]
    pub fn range(&self, keys: impl KeyBounds) -> ByteRange {
        let (start, end) = keys.bounds();
        if let (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) =
            (start, end)
        {
            if start > end {
                inverted(start, end);
            }
        }
        if holds_no_key(start, end) {
            return ByteRange::EMPTY;
        }
        let first = match start {
            Bound::Included(key) | Bound::Excluded(key) => self.point(key),
            Bound::Unbounded => 0,
        };
        let last = match end {
            Bound::Included(key) => self.point(key),
            Bound::Excluded(key) => self.last_before(key),
            Bound::Unbounded => u64::MAX,
        };
        ByteRange::new(first..=last)
    }

    /// The greatest position of the keys before `end`, if there are any in the range.
    fn last_before(&self, end: &[u8]) -> u64 {
        let point = self.point(end);
        // Outside of the prefix nothing can be told apart; nor can the prefix itself and what comes before it.
        let alone = end
            .strip_prefix(self.prefix)
            .is_some_and(|rest| rest.len() <= DECIDING && rest.last().is_some_and(|&byte| byte != 0));
        // No underflow: a byte that is not zero is in `point`.
        if alone { point - 1 } else { point }
    }
}

/// Whether no key lies within bounds that are not inverted.
fn holds_no_key(start: Bound<&[u8]>, end: Bound<&[u8]>) -> bool {
    match (start, end) {
        (_, Bound::Unbounded) | (Bound::Unbounded, Bound::Included(_)) => false,
        (Bound::Unbounded, Bound::Excluded(end)) => end.is_empty(),
        (Bound::Included(_), Bound::Included(_)) => false,
        (Bound::Included(start), Bound::Excluded(end)) | (Bound::Excluded(start), Bound::Included(end)) => start == end,
        (Bound::Excluded(start), Bound::Excluded(end)) => start == end || end.strip_prefix(start) == Some(&[0]),
    }
}

#[cold]
#[track_caller]
fn inverted(start: &[u8], end: &[u8]) -> ! {
    panic!(
        "key range starts at \"{}\" but ends at \"{}\": the start of a key range must not lie after its end",
        start.escape_ascii(),
        end.escape_ascii()
    )
}

/// The key is shown as text: `KeySpace("user/")`.
impl fmt::Debug for KeySpace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySpace(\"{}\")", self.prefix.escape_ascii())
    }
}

/// What [`KeySpace::range`] takes: every range of the language, and pairs of [`Bound`]s, of anything that is bytes
/// (`&str`, `&[u8]`, `Vec<u8>`, ...).
///
/// It is [`RangeBounds`] where the kind of key is known from the range: with that, `b"a"..b"b"` and `..` would not say
/// which key they mean. A range type of your own can have it too.
pub trait KeyBounds {
    /// Start and end.
    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>);
}

impl KeyBounds for RangeFull {
    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (Bound::Unbounded, Bound::Unbounded)
    }
}

macro_rules! key_bounds {
    ($($range:ty),*) => { $(
        impl<K: AsRef<[u8]>> KeyBounds for $range {
            fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
                let (start, end) = (RangeBounds::<K>::start_bound(self), RangeBounds::<K>::end_bound(self));
                (start.map(K::as_ref), end.map(K::as_ref))
            }
        }
    )* };
}

key_bounds!(Range<K>, RangeFrom<K>, RangeInclusive<K>, RangeTo<K>, RangeToInclusive<K>, (Bound<K>, Bound<K>));
