//! Promise: ranges are byte ranges over the whole of `u64`, including its last byte. An empty one is granted at once
//! and holds nothing; an inverted one panics with a message, as slicing does.

mod common;

use common::poll::{Hand, poll_once};
use proptest::prelude::*;
use spanlock::{ByteRange, Mode, RangeLock, WholeFileLock};
use std::future::IntoFuture;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::time::Instant;

const MAX: u64 = u64::MAX;

/// Held exclusively, `range` has exactly the bytes `first..=last`: those at its edges are refused to others, their
/// neighbours are not.
#[track_caller]
fn locks_exactly(range: impl RangeBounds<u64>, first: u64, last: u64) {
    let lock = RangeLock::new();
    let guard = Hand::new(lock.request(range, Mode::Exclusive)).ready();
    assert_eq!((guard.range().start(), guard.range().last()), (Some(first), Some(last)));
    let free = |byte: u64| lock.try_add(byte..=byte).is_some();
    assert!(!free(first) && !free(last) && !free(first + (last - first) / 2));
    assert!(first == 0 || (free(first - 1) && free(0)), "the byte before");
    assert!(last == MAX || (free(last + 1) && free(MAX)), "the byte behind");
    drop(guard);
    assert!(free(first) && free(last));
}

#[test]
fn every_way_to_write_a_range() {
    locks_exactly(.., 0, MAX);
    locks_exactly(..=MAX, 0, MAX);
    locks_exactly(0..=MAX, 0, MAX);
    locks_exactly(0.., 0, MAX);
    locks_exactly(..MAX, 0, MAX - 1);
    locks_exactly(5.., 5, MAX);
    locks_exactly(5..=MAX, 5, MAX);
    locks_exactly(MAX.., MAX, MAX);
    locks_exactly(MAX..=MAX, MAX, MAX);
    locks_exactly(MAX - 1..MAX, MAX - 1, MAX - 1);
    locks_exactly(MAX - 1.., MAX - 1, MAX);
    locks_exactly(..1, 0, 0);
    locks_exactly(..=0, 0, 0);
    locks_exactly(0..=0, 0, 0);
    locks_exactly(4096..8192, 4096, 8191);
    // Across the middle, where the first digit of every radix changes.
    locks_exactly((1 << 63) - 1..=1 << 63, (1 << 63) - 1, 1 << 63);
    locks_exactly((Bound::Excluded(4), Bound::Included(6)), 5, 6);
    locks_exactly((Bound::Excluded(4), Bound::Excluded(6)), 5, 5);
    locks_exactly((Bound::Excluded(4), Bound::Unbounded), 5, MAX);
    locks_exactly((Bound::Excluded(MAX - 1), Bound::Unbounded), MAX, MAX);
    locks_exactly((Bound::Excluded(MAX - 1), Bound::Included(MAX)), MAX, MAX);
    locks_exactly((Bound::Unbounded, Bound::Included(MAX)), 0, MAX);
    // By reference, and by the crate's own type.
    locks_exactly((Bound::Included(&3), Bound::Included(&4)), 3, 4);
    locks_exactly(ByteRange::new(3..5), 3, 4);
    locks_exactly(ByteRange::WHOLE, 0, MAX);
}

/// Single bytes and spans around every power of two: where the cells of the tree meet.
#[test]
fn the_edges_of_every_cell() {
    for bit in 0..64 {
        let edge = 1_u64 << bit;
        locks_exactly(edge..=edge, edge, edge);
        locks_exactly(edge - 1..=edge, edge - 1, edge);
        locks_exactly(edge - 1..edge, edge - 1, edge - 1);
        locks_exactly(edge.., edge, MAX);
        locks_exactly(..edge, 0, edge - 1);
        locks_exactly(MAX - edge.., MAX - edge, MAX);
    }
}

fn empty_ranges() -> Vec<(Bound<u64>, Bound<u64>)> {
    use Bound::{Excluded, Included, Unbounded};
    vec![
        (Included(5), Excluded(5)),
        (Included(0), Excluded(0)),
        (Unbounded, Excluded(0)),
        (Included(MAX), Excluded(MAX)),
        (Excluded(4), Excluded(5)),
        (Excluded(5), Included(5)),
        (Excluded(MAX), Unbounded),
        (Excluded(MAX), Included(MAX)),
    ]
}

/// All that can be asked of ranges, against sets of the bytes in a small window: at either end of `u64`, and across its
/// middle.
#[test]
fn a_range_is_a_set_of_bytes() {
    const SIZE: u64 = 6;
    for base in [0, (1 << 63) - 3, MAX - (SIZE - 1)] {
        // Each range as its set of bytes, as bits.
        let bytes =
            |range: ByteRange| (0..SIZE).filter(|i| range.contains(base + i)).fold(0_u64, |set, i| set | 1 << i);
        let mut ranges = vec![(ByteRange::EMPTY, 0)];
        for first in 0..SIZE {
            for last in first..SIZE {
                let set = (first..=last).fold(0, |set, i| set | 1 << i);
                ranges.push((ByteRange::new(base + first..=base + last), set));
            }
        }
        for &(one, its) in &ranges {
            assert_eq!((bytes(one), one.is_empty()), (its, its == 0));
            assert_eq!(one.len(), u128::from(its.count_ones()));
            let edges = (one.start().map(|start| start - base), one.last().map(|last| last - base));
            let expected = (its != 0).then(|| (u64::from(its.trailing_zeros()), u64::from(its.ilog2())));
            assert_eq!(edges, (expected.map(|edge| edge.0), expected.map(|edge| edge.1)));
            for &(other, others) in &ranges {
                let common = one.intersect(other);
                assert_eq!((bytes(common), common.is_empty()), (its & others, its & others == 0), "{one} and {other}");
                assert_eq!(one.overlaps(other), its & others != 0, "{one} and {other}");
                assert_eq!(one.contains_all(other), its & others == others, "{one} and {other}");
            }
            for at in (0..SIZE).filter(|at| its >> at & 1 == 1) {
                let (head, tail) = one.split(base + at);
                assert_eq!((bytes(head), bytes(tail)), (its & ((1 << at) - 1), its >> at << at), "{one} at {at}");
            }
        }
    }
}

#[test]
fn a_range_is_widened_to_whole_pages() {
    for (start, last) in [(0, 0), (5, 9), (4095, 4096), (4096, 8191), (8191, 8191), (MAX - 4096, MAX), (MAX, MAX)] {
        let pages = ByteRange::new(start..=last).to_pages(4096);
        assert_eq!(pages, ByteRange::new(start / 4096 * 4096..=last / 4096 * 4096 + 4095));
        assert_eq!(pages.to_pages(4096), pages);
        assert_eq!(pages.to_pages(1), pages);
    }
    assert_eq!(ByteRange::EMPTY.to_pages(4096), ByteRange::EMPTY);
    assert_eq!(ByteRange::new(7..9).to_pages(1 << 63), ByteRange::new(..1 << 63));
}

#[test]
#[should_panic(expected = "must be a power of two of bytes, not 4095")]
fn a_page_of_no_power_of_two() {
    let _ = ByteRange::new(0..1).to_pages(4095);
}

#[test]
fn an_empty_range_is_granted_at_once_and_holds_nothing() {
    let lock = Arc::new(RangeLock::new());
    for range in empty_ranges() {
        assert_eq!(ByteRange::new(range), ByteRange::EMPTY, "{range:?}");
        for mode in Mode::ALL {
            // Against a holder of everything and somebody in the queue.
            let whole = Hand::new(lock.request(.., Mode::Exclusive)).ready();
            let mut queued = Hand::new(lock.request(.., Mode::Exclusive));
            queued.pending();
            let by_thread = lock.request(range, mode).wait().expect("nothing is in its way");
            let tried = lock.request(range, mode).try_now().expect("nothing is in its way");
            let in_time = lock.request(range, mode).deadline(Instant::now()).wait().expect("nothing is in its way");
            let awaited = Hand::new(lock.request(range, mode)).ready();
            let arc = lock.request_arc(range, mode).wait();
            let arc_awaited = Hand::new(lock.request_arc(range, mode)).ready();
            for guard in [&by_thread, &tried, &in_time] {
                assert_eq!((guard.range(), guard.mode()), (ByteRange::EMPTY, mode));
            }
            assert!(awaited.range().is_empty() && arc.range().is_empty() && arc_awaited.range().is_empty());
            // They are in nobody's way either, not even in their own place.
            drop(whole);
            assert!(queued.woken());
            drop(queued.ready());
            assert!(lock.request_arc(.., Mode::Exclusive).try_now().is_some());
            drop((by_thread, tried, in_time, awaited, arc, arc_awaited));
        }
    }
    assert_eq!(lock.heap_nodes(), 0);
}

/// Dropping the future of an empty range, polled or not, does nothing.
#[test]
fn an_empty_future_comes_and_goes() {
    let lock = RangeLock::new();
    drop(lock.request(7..7, Mode::Block).into_future());
    let mut future = lock.request(7..7, Mode::Block).into_future();
    assert!(poll_once(&mut future).is_ready());
    drop(future);
    assert!(lock.try_exclusive(..).is_some());
}

macro_rules! inverted {
    ($($name:ident: $asked:expr;)*) => { $(
        #[test]
        #[should_panic(expected = "range starts at 9 but ends at 5")]
        #[allow(clippy::reversed_empty_ranges)]
        fn $name() {
            let lock = Arc::new(RangeLock::new());
            let ask: fn(&Arc<RangeLock>) = $asked;
            ask(&lock);
        }
    )* };
}

inverted! {
    inverted_add_panics: |lock| drop(lock.add(9..5));
    inverted_block_panics: |lock| drop(lock.block(9..=4));
    inverted_exclusive_panics: |lock| drop(lock.exclusive(9..5));
    inverted_try_add_panics: |lock| drop(lock.try_add(9..5));
    inverted_try_block_panics: |lock| drop(lock.try_block(9..5));
    inverted_try_exclusive_panics: |lock| drop(lock.try_exclusive((Bound::Excluded(8), Bound::Excluded(5))));
    inverted_request_panics: |lock| drop(lock.request(9..5, Mode::Add));
    inverted_arc_request_panics: |lock| drop(lock.request_arc(9..5, Mode::Add));
    inverted_byte_range_panics: |_| drop(format!("{:?}", ByteRange::new(9..5)));
}

/// At the upper end, where a start behind the last byte does not fit a `u64`.
#[test]
#[should_panic(expected = "range starts at")]
fn inverted_at_the_last_byte_panics() {
    let _ = ByteRange::new((Bound::Excluded(MAX), Bound::Excluded(MAX)));
}

/// The panic says where the *caller* is, and leaves nothing locked.
#[test]
fn an_inverted_range_leaves_the_lock_as_it_was() {
    let lock = RangeLock::new();
    #[allow(clippy::reversed_empty_ranges)]
    let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(lock.exclusive(9..5))));
    assert!(asked.is_err());
    assert!(lock.try_exclusive(..).is_some());
}

#[test]
fn guards_say_what_they_hold() {
    let lock = Arc::new(RangeLock::new());
    let whole = WholeFileLock::new();
    for mode in Mode::ALL {
        let by_thread = lock.request(4096..8192, mode).wait().expect("nobody is in its way");
        let awaited = Hand::new(lock.request(10_000..20_000, mode)).ready();
        let arc = lock.request_arc(30_000.., mode).wait();
        let file = whole.request(mode).wait().expect("nobody is in its way");
        let said = [
            (by_thread.range(), by_thread.mode(), format!("{by_thread:?}"), "4096..8192"),
            (awaited.range(), awaited.mode(), format!("{awaited:?}"), "10000..20000"),
            (arc.range(), arc.mode(), format!("{arc:?}"), "30000.."),
            (file.range(), file.mode(), format!("{file:?}"), "0.."),
        ];
        for (range, held, debug, written) in said {
            assert_eq!(held, mode);
            assert_eq!(format!("{range:?}"), written);
            assert!(debug.contains(written) && debug.contains(&format!("mode: {mode},")), "{debug}");
        }
    }
    let waiting = lock.request(0..10, Mode::Block);
    assert!(format!("{waiting:?}").contains("0..10"));
    assert!(!format!("{lock:?}").is_empty() && !format!("{whole:?}").is_empty());
}

#[test]
fn debug_of_a_range_is_the_range() {
    assert_eq!(format!("{:?}", ByteRange::new(0..4096)), "0..4096");
    assert_eq!(format!("{:?}", ByteRange::new(4096..)), "4096..");
    assert_eq!(format!("{:?}", ByteRange::new(..=MAX - 1)), format!("0..{MAX}"));
    assert!(format!("{:?}", ByteRange::EMPTY).contains("empty"));
}

/// Two ends anywhere, or close to one another, or at the edges of `u64`.
fn any_range() -> impl Strategy<Value = ByteRange> {
    let near = (any::<u64>(), 0..40_u64).prop_map(|(start, length)| (start, start.saturating_add(length)));
    let low = (0..64_u64, 0..64_u64);
    let high = (0..64_u64, 0..64_u64).prop_map(|(a, b)| (MAX - a, MAX - b));
    let ends = prop_oneof![(any::<u64>(), any::<u64>()), near, low, high];
    let full = ends.prop_map(|(a, b)| ByteRange::new(a.min(b)..=a.max(b)));
    prop_oneof![9 => full, 1 => Just(ByteRange::EMPTY)]
}

/// Ranges within 64 bytes, as the sets of bytes that they are.
fn byte_set() -> impl Strategy<Value = (ByteRange, u64)> {
    (0..64_u64, 0..=64_u64).prop_map(|(start, end)| {
        let range = ByteRange::new(start..end.max(start));
        let set = (start..end.max(start)).fold(0, |set, byte| set | 1 << byte);
        (range, set)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn overlap_is_a_shared_byte((a, a_set) in byte_set(), (b, b_set) in byte_set()) {
        prop_assert_eq!(a.overlaps(b), a_set & b_set != 0);
        prop_assert_eq!(a.is_empty(), a_set == 0);
        for byte in 0..64 {
            prop_assert_eq!(a.contains(byte), a_set >> byte & 1 == 1);
        }
    }

    #[test]
    fn overlap_is_symmetric_and_nothing_meets_an_empty_range(a in any_range(), b in any_range()) {
        prop_assert_eq!(a.overlaps(b), b.overlaps(a));
        prop_assert_eq!(a.overlaps(a), !a.is_empty());
        prop_assert!(!a.overlaps(ByteRange::EMPTY));
        prop_assert_eq!(a.overlaps(ByteRange::WHOLE), !a.is_empty());
        // Ends decide: two intervals meet exactly if one of them contains an end of the other.
        let ends = |range: ByteRange| range.start().into_iter().chain(range.last());
        let met = ends(a).any(|byte| b.contains(byte)) || ends(b).any(|byte| a.contains(byte));
        prop_assert_eq!(a.overlaps(b), met);
    }

    #[test]
    fn a_range_goes_through_its_bounds_unchanged(a in any_range()) {
        prop_assert_eq!(ByteRange::new(a), a);
        prop_assert_eq!(a.start().is_none(), a.is_empty());
        prop_assert_eq!(a.last().is_none(), a.is_empty());
        prop_assert!(a.start() <= a.last());
    }

    #[test]
    fn whole_pages_cover_the_range_and_no_page_more(a in any_range(), bit in 0..64_u32) {
        let page = 1_u64 << bit;
        let pages = a.to_pages(page);
        prop_assert_eq!(pages.is_empty(), a.is_empty());
        if let (Some(start), Some(last), Some(first), Some(end)) = (a.start(), a.last(), pages.start(), pages.last()) {
            prop_assert!(first <= start && last <= end);
            prop_assert_eq!(first % page, 0);
            prop_assert_eq!(end % page, page - 1);
            prop_assert!(start - first < page && end - last < page);
        }
    }

    /// The lock's own idea of conflict: two ranges and two modes on a lock of their own, and the other way round.
    #[test]
    fn the_lock_refuses_exactly_what_conflicts(a in any_range(), b in any_range(), modes in (0..3_usize, 0..3_usize)) {
        let (held, asked) = (Mode::ALL[modes.0], Mode::ALL[modes.1]);
        let bytes_meet = match (a.start(), a.last(), b.start(), b.last()) {
            (Some(a0), Some(a1), Some(b0), Some(b1)) => a0.max(b0) <= a1.min(b1),
            _ => false,
        };
        let lock = RangeLock::new();
        let guard = Hand::new(lock.request(a, held)).ready();
        let granted = Hand::new(lock.request(b, asked)).poll().is_ready();
        prop_assert_eq!(granted, !bytes_meet || common::together(held, asked));
        drop(guard);
    }
}
