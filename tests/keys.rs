//! Promise: a range of byte-string keys becomes a range of positions that is never too small, and no wider than the
//! docs of `KeySpace` say. A range without keys is empty; an inverted one panics with a message, as slicing does.

use proptest::prelude::*;
use spanlock::{ByteRange, KeyBounds, KeySpace, RangeLock};
use std::cell::Cell;
use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::ops::RangeBounds;
use std::panic;

const MAX: u64 = u64::MAX;
const PLAIN: KeySpace = KeySpace::new();
const USERS: KeySpace = KeySpace::with_prefix(b"user/");

type Key = Vec<u8>;
type Keys = (Bound<Key>, Bound<Key>);

/// The positions of both ends, both inclusive.
#[track_caller]
fn ends(space: KeySpace, keys: impl KeyBounds) -> (u64, u64) {
    let range = space.range(keys);
    (range.start().expect("it holds a key"), range.last().expect("it holds a key"))
}

/// `keys` as slices, so that `contains` compares what the library was asked for and nothing else of the library's.
fn contains(keys: &Keys, key: &[u8]) -> bool {
    let (start, end) = (keys.0.as_ref().map(Vec::as_slice), keys.1.as_ref().map(Vec::as_slice));
    RangeBounds::<[u8]>::contains(&(start, end), key)
}

#[test]
fn a_position_is_the_first_eight_bytes() {
    assert_eq!(PLAIN.point(""), 0);
    assert_eq!(PLAIN.point(b"\x01"), 1 << 56);
    assert_eq!(PLAIN.point(b"\x01\x02\x03\x04\x05\x06\x07\x08"), 0x0102_0304_0506_0708);
    assert_eq!(PLAIN.point(b"\x01\x02\x03\x04\x05\x06\x07\x08\x09"), 0x0102_0304_0506_0708);
    assert_eq!(PLAIN.point([0xff; 8]), MAX);
    // Whatever is bytes is a key.
    let (text, bytes) = (String::from("alice"), b"alice".to_vec());
    for point in [PLAIN.point(&text), PLAIN.point(text.as_bytes()), PLAIN.point(bytes), PLAIN.point("alice")] {
        assert_eq!(point, 0x616c_6963_6500_0000);
    }
}

#[test]
fn with_a_prefix_it_is_the_eight_bytes_behind_that() {
    assert_eq!(USERS.point("user/"), 0);
    assert_eq!(USERS.point(b"user/\x01\x02\x03\x04\x05\x06\x07\x08\x09"), 0x0102_0304_0506_0708);
    assert_eq!(USERS.point("user/alice"), PLAIN.point("alice"));
    for before in ["", "u", "user", "user.", "user.zzz", "a"] {
        assert_eq!(USERS.point(before), 0, "{before}");
    }
    for behind in ["user0", "user0/alice", "uses", "v"] {
        assert_eq!(USERS.point(behind), MAX, "{behind}");
    }
    // Nothing comes behind this prefix.
    let top = KeySpace::with_prefix(b"\xff\xff");
    assert_eq!((top.point(b"\xff"), top.point(b"\xff\xff"), top.point([0xff; 10])), (0, 0, MAX));
    assert_eq!(KeySpace::with_prefix(b""), KeySpace::default());
    assert_eq!(format!("{USERS:?} {PLAIN:?} {top:?}"), r#"KeySpace("user/") KeySpace("") KeySpace("\xff\xff")"#);
}

/// The kind of key is known from the range, without annotations.
#[test]
fn every_way_to_write_a_range() {
    let (a, b) = (PLAIN.point("a"), PLAIN.point("b"));
    let (key, vec): (&[u8], Vec<u8>) = (b"a", b"b".to_vec());
    assert_eq!(PLAIN.range(..), ByteRange::WHOLE);
    assert_eq!(ends(PLAIN, "a".."b"), (a, b - 1));
    assert_eq!(ends(PLAIN, b"a"..b"b"), (a, b - 1));
    assert_eq!(ends(PLAIN, *b"a"..=*b"b"), (a, b));
    assert_eq!(ends(PLAIN, key..=key), (a, a));
    assert_eq!(ends(PLAIN, &vec..=&vec), (b, b));
    assert_eq!(ends(PLAIN, String::from("a")..), (a, MAX));
    assert_eq!(ends(PLAIN, ..vec.clone()), (0, b - 1));
    assert_eq!(ends(PLAIN, ..=vec.clone()), (0, b));
    assert_eq!(ends(PLAIN, vec..), (b, MAX));
    assert_eq!(ends(PLAIN, (Excluded(key), Unbounded)), (a, MAX));
    assert_eq!(ends(PLAIN, (Excluded("a"), Excluded("b"))), (a, b - 1));
    assert_eq!(ends(PLAIN, (Bound::<&str>::Unbounded, Unbounded)), (0, MAX));
    assert_eq!(PLAIN.key("a"), PLAIN.range("a"..="a"));
    assert_eq!(USERS.key("user/a"), ByteRange::new(a..=a));
}

/// The rows of the table in the docs, top to bottom.
#[test]
fn where_it_is_wider_than_asked() {
    // A key: those that agree in eight bytes, filled up with zeros.
    assert_eq!(PLAIN.key("account/1"), PLAIN.key("account/2"));
    assert_eq!(PLAIN.key("account/"), PLAIN.key("account/2"));
    assert_eq!(PLAIN.key("a"), PLAIN.key("a\0"));
    assert_eq!(PLAIN.key("a"), PLAIN.key("a\0\0\0\0\0\0\0anything"));
    assert!(!PLAIN.key("a").overlaps(PLAIN.key("a\0\0\0\0\0\0\x01")));
    // An excluded start.
    assert!(PLAIN.range((Excluded("a"), Unbounded)).contains(PLAIN.point("a")));
    assert!(!PLAIN.range((Excluded("a"), Unbounded)).contains(PLAIN.point("a") - 1));
    // An excluded end of at most eight bytes, the last one not zero.
    assert_eq!(ends(PLAIN, .."b").1, PLAIN.point("b") - 1);
    assert_eq!(ends(PLAIN, .."12345678").1, PLAIN.point("12345678") - 1);
    assert_eq!(ends(PLAIN, ..b"\0\x01").1, PLAIN.point(b"\0\x01") - 1);
    assert_eq!(ends(PLAIN, ..b"\0\0\0\0\0\0\0\x01").1, 0);
    assert_eq!(ends(PLAIN, ..[0xff; 8]).1, MAX - 1);
    // Any other excluded end.
    assert_eq!(ends(PLAIN, .."123456789").1, PLAIN.point("12345678"));
    assert_eq!(ends(PLAIN, ..[0xff; 9]).1, MAX);
    assert_eq!(ends(PLAIN, .."b\0").1, PLAIN.point("b"));
    assert_eq!(ends(PLAIN, .."b\0\0").1, PLAIN.point("b"));
    assert_eq!(ends(PLAIN, .."\0"), (0, 0));
    assert_eq!(ends(PLAIN, .."12345678\0").1, PLAIN.point("12345678"));
    // Keys before the prefix.
    assert_eq!(USERS.key("product/1"), USERS.key("account/1"));
    assert_eq!(USERS.key("product/1"), USERS.key("user/"));
    assert_eq!(USERS.key("product/1"), USERS.key("user/\0"));
    assert_eq!(ends(USERS, .."user"), (0, 0));
    assert_eq!(ends(USERS, .."user/"), (0, 0));
    assert!(!USERS.range(.."user/").contains(USERS.point("user/\0\0\0\0\0\0\0\x01")));
    // Keys behind the prefix.
    assert_eq!(USERS.key("vendor/1"), USERS.key("zebra/1"));
    assert_eq!(USERS.key("vendor/1"), USERS.key(b"user/\xff\xff\xff\xff\xff\xff\xff\xff"));
    assert_eq!(ends(USERS, "user0".."v"), (MAX, MAX));
    assert!(!USERS.range("user0"..).contains(USERS.point(b"user/\xff\xff\xff\xff\xff\xff\xff\xfe")));
    // With a prefix, bytes are counted behind it.
    assert_eq!(USERS.range("user/".."user0"), ByteRange::WHOLE);
    assert_eq!(ends(USERS, "user/a".."user/b"), (PLAIN.point("a"), PLAIN.point("b") - 1));
    assert_eq!(ends(USERS, .."user/12345678").1, PLAIN.point("12345678") - 1);
    assert_eq!(ends(USERS, .."user/123456789").1, PLAIN.point("12345678"));
    assert_eq!(ends(USERS, .."user/b\0").1, PLAIN.point("b"));
}

#[test]
fn a_range_without_keys_is_empty() {
    for key in ["", "\0", "b", "b\0", "12345678", "123456789", "user", "user/", "user/b", "v"] {
        for space in [PLAIN, USERS] {
            let next = format!("{key}\0");
            assert_eq!(space.range(key..key), ByteRange::EMPTY, "{key:?}");
            assert_eq!(space.range((Excluded(key), Included(key))), ByteRange::EMPTY, "{key:?}");
            assert_eq!(space.range((Excluded(key), Excluded(key))), ByteRange::EMPTY, "{key:?}");
            assert_eq!(space.range((Excluded(key), Excluded(&*next))), ByteRange::EMPTY, "{key:?}");
            // Those that hold just one.
            assert_eq!(space.range(key..=key), space.key(key), "{key:?}");
            assert_eq!(space.range(key..&*next), space.key(key), "{key:?}");
            assert_eq!(space.range((Excluded(key), Included(&*next))), space.key(&next), "{key:?}");
            let after_next = format!("{next}\0");
            assert_eq!(space.range((Excluded(key), Excluded(&*after_next))), space.key(&next), "{key:?}");
        }
    }
    assert_eq!(PLAIN.range(..""), ByteRange::EMPTY);
    assert_eq!(USERS.range(..""), ByteRange::EMPTY);
    assert_eq!(PLAIN.range(..=""), PLAIN.key(""));
}

thread_local! {
    /// The line of the last panic on this thread.
    static PANICKED_AT: Cell<Option<u32>> = const { Cell::new(None) };
}

#[test]
#[allow(clippy::reversed_empty_ranges)]
fn an_inverted_range_panics_where_it_was_asked_for() {
    let quiet = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICKED_AT.set(info.location().filter(|at| at.file() == file!()).map(|at| at.line()));
        quiet(info);
    }));
    let asked = |line: u32, ask: fn() -> ByteRange| {
        let message = *panic::catch_unwind(ask).unwrap_err().downcast::<String>().expect("a message");
        assert_eq!(PANICKED_AT.take(), Some(line), "{message}");
        message
    };
    assert_eq!(
        asked(line!(), || PLAIN.range("b\n".."a\"")),
        r#"key range starts at "b\n" but ends at "a\"": the start of a key range must not lie after its end"#
    );
    assert!(asked(line!(), || PLAIN.range(b"\xff\xff"..=b"\xff\x00")).contains(r#""\xff\xff" but ends at "\xff\x00""#));
    // Even where both are one position, and however the ends are excluded.
    asked(line!(), || PLAIN.range("account/2".."account/1"));
    asked(line!(), || PLAIN.range("a\0"..="a"));
    asked(line!(), || PLAIN.range("a\0".."a"));
    asked(line!(), || PLAIN.range((Excluded("a\0"), Included("a"))));
    asked(line!(), || PLAIN.range((Excluded("a\0"), Excluded("a"))));
    asked(line!(), || USERS.range("b".."a"));
    asked(line!(), || USERS.range("a"..""));
}

/// What the mapping is for: the lock refuses what shares a key, and grants what does not.
#[test]
fn a_lock_locks_key_ranges() {
    let lock = RangeLock::new();
    let scan = lock.add(USERS.range("user/a".."user/f"));
    std::thread::scope(|threads| {
        let other = threads.spawn(|| {
            assert!(lock.try_exclusive(USERS.key("user/bob")).is_none());
            assert!(lock.try_exclusive(USERS.range(.."user/az")).is_none());
            assert!(lock.try_exclusive(USERS.range("user/f"..)).is_some());
            assert!(lock.try_exclusive(USERS.range(.."user/a")).is_some());
            assert!(lock.try_exclusive(USERS.range("user/b".."user/b")).is_some());
        });
        other.join().unwrap();
    });
    drop(scan);
}

/// Bytes that meet each other, their neighbours and the edges often.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![3 => Just(0), 3 => Just(1), 3 => Just(0xff), 1 => Just(0xfe), 1 => any::<u8>()]
}

/// Up to twelve bytes: anything, or something short behind one of few stems, so that keys often agree for long.
fn any_key() -> impl Strategy<Value = Key> {
    let free = prop::collection::vec(byte(), 0..=12);
    let stem = prop::sample::select(vec![
        &b"\x01"[..],
        b"\x01\xff",
        b"\x01\xff\0\0\0\0\0",
        b"\x01\xff\x01\x01\x01\x01\x01\x01\x01",
    ]);
    let stemmed = (stem, prop::collection::vec(byte(), 0..=3)).prop_map(|(stem, rest)| [stem, &rest].concat());
    prop_oneof![free, stemmed]
}

/// Two keys, the second one often made from the first.
fn two_keys() -> impl Strategy<Value = (Key, Key)> {
    let near =
        (any_key(), prop::collection::vec(byte(), 0..=2)).prop_map(|(key, more)| (key.clone(), [key, more].concat()));
    prop_oneof![2 => (any_key(), any_key()), 1 => near]
}

fn any_keys() -> impl Strategy<Value = Keys> {
    (two_keys(), 0..3_usize, 0..3_usize).prop_map(|((a, b), first, second)| {
        let bound = |kind: usize, key| [Included, Excluded, |_| Unbounded][kind](key);
        let (start, end) = if a <= b { (a, b) } else { (b, a) };
        (bound(first, start), bound(second, end))
    })
}

/// None, one that many keys have, and others.
fn any_prefix() -> impl Strategy<Value = Key> {
    let some =
        prop::sample::select(vec![&b"\x01"[..], b"\x01\xff", b"\0", b"\xff", b"\x01\xff\0\0"]).prop_map(<[u8]>::to_vec);
    prop_oneof![3 => Just(Key::new()), 3 => some, 1 => prop::collection::vec(byte(), 1..=3)]
}

/// The least key of a range, if it has any: every key has a next one, the same with a zero behind it.
fn least(keys: &Keys) -> Option<Key> {
    let least = match &keys.0 {
        Unbounded => Key::new(),
        Included(start) => start.clone(),
        Excluded(start) => [start, &b"\0"[..]].concat(),
    };
    contains(keys, &least).then_some(least)
}

/// A key of a range that holds one, as great as makes a difference to positions: greatest, or close enough to an end
/// that is never reached.
fn nearly_greatest(keys: &Keys) -> Key {
    let far = [0xff; 32];
    let greatest = match &keys.1 {
        Unbounded => far.to_vec(),
        Included(end) => end.clone(),
        Excluded(end) => match end.split_last().expect("a key comes before it") {
            (0, rest) => rest.to_vec(),
            (byte, rest) => [rest, &[byte - 1], &far].concat(),
        },
    };
    assert!(contains(keys, &greatest), "{keys:?} has {greatest:?}");
    greatest
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn positions_never_fall((a, b) in two_keys(), prefix in any_prefix()) {
        let space = KeySpace::with_prefix(&prefix);
        let (low, high) = if a <= b { (&a, &b) } else { (&b, &a) };
        prop_assert!(space.point(low) <= space.point(high));
    }

    /// Whatever lies between two keys begins with what they have in common, and that is all that they have: the next
    /// byte tells them apart.
    #[test]
    fn what_is_between_two_keys_has_their_prefix((a, b) in two_keys(), (c, _) in two_keys(), common in any_prefix()) {
        let mut keys = [a, b, c].map(|key| [&common[..], &key].concat());
        keys.sort();
        let [first, between, last] = &keys;
        let space = KeySpace::between(first, last);
        let length = space.prefix().len();
        prop_assert!(length >= common.len() && between.starts_with(space.prefix()));
        prop_assert!(first == last || first.get(length) != last.get(length));
        prop_assert!(space.point(first) <= space.point(between) && space.point(between) <= space.point(last));
        let is_told_apart = |a: &[u8], b: &[u8]| a.get(length).unwrap_or(&0) != b.get(length).unwrap_or(&0);
        prop_assert!(!is_told_apart(first, last) || space.point(first) < space.point(last));
    }

    /// The digits of the position, drawn the other way round.
    #[test]
    fn positions_are_the_bytes(
        prefix in any_prefix(),
        position in any::<u64>(),
        more in any_key(),
        cut in 0..=8_usize,
    ) {
        let space = KeySpace::with_prefix(&prefix);
        let digits: Key = (0..8).rev().map(|digit| (position >> (8 * digit)) as u8).collect();
        prop_assert_eq!(space.point([&*prefix, &digits, &more].concat()), position);
        let filled_up = position & MAX.checked_shl(64 - 8 * cut as u32).unwrap_or(0);
        prop_assert_eq!(space.point([&prefix, &digits[..cut]].concat()), filled_up);
    }

    #[test]
    fn never_too_small(keys in any_keys(), key in any_key(), prefix in any_prefix()) {
        let space = KeySpace::with_prefix(&prefix);
        let range = space.range(keys.clone());
        let asked = [keys.0.clone(), keys.1.clone()].into_iter().filter_map(|bound| match bound {
            Included(key) | Excluded(key) => Some(key),
            Unbounded => None,
        });
        // Besides the random key, those around the ends: random ones are rarely so close.
        let near = asked.flat_map(|end| {
            let shorter = end[..end.len().saturating_sub(1)].to_vec();
            let longer = [&end, &key[..]].concat();
            let below = end.split_last().filter(|(byte, _)| **byte > 0);
            let below = below.map(|(byte, rest)| [rest, &[byte - 1], &[0xff; 12]].concat());
            [Some(shorter), Some([&end, &b"\0"[..]].concat()), Some(longer), Some(end), below].into_iter().flatten()
        });
        for key in near.chain([key.clone()]) {
            prop_assert!(!contains(&keys, &key) || range.contains(space.point(&key)), "{:?}", key);
        }
    }

    #[test]
    fn ranges_that_share_a_key_overlap(a in any_keys(), b in any_keys(), prefix in any_prefix()) {
        let space = KeySpace::with_prefix(&prefix);
        // Two ranges share a key exactly if the least key of one lies in both.
        let shared = [&a, &b].into_iter().filter_map(least).any(|key| contains(&a, &key) && contains(&b, &key));
        prop_assert!(!shared || space.range(a).overlaps(space.range(b)));
    }

    /// Both ends are positions of keys that were asked for.
    #[test]
    fn never_wider_than_it_must_be(keys in any_keys(), prefix in any_prefix()) {
        let space = KeySpace::with_prefix(&prefix);
        let range = space.range(keys.clone());
        match least(&keys) {
            None => prop_assert_eq!(range, ByteRange::EMPTY),
            Some(least) => {
                prop_assert_eq!(range.start(), Some(space.point(least)));
                prop_assert_eq!(range.last(), Some(space.point(nearly_greatest(&keys))));
            }
        }
    }

    /// Before an end of at most eight bytes, the last one not zero, a range stops; what begins there does not meet it.
    #[test]
    fn a_short_excluded_end_is_not_locked(
        start in any_key(),
        stem in prop::collection::vec(byte(), 0..=7),
        last in 1..=255_u8,
        prefix in any_prefix(),
    ) {
        let space = KeySpace::with_prefix(&prefix);
        let end = [&*prefix, &stem, &[last]].concat();
        let start = [prefix.clone(), start].concat();
        let start = if start < end { &start } else { &prefix };
        for start in [Included(start), Excluded(start), Unbounded] {
            let before = space.range((start, Excluded(&end)));
            prop_assert!(!before.is_empty());
            prop_assert!(!before.contains(space.point(&end)));
            prop_assert!(!before.overlaps(space.range(&end..)));
        }
    }
}
