//! Ranges at every edge of `u64` against 128-bit arithmetic: what `ByteRange` makes of bounds, and whether two ranges
//! meet.
//!
//! `cargo fuzz run ranges` (on a stable compiler: `cargo fuzz run -s none ranges`).

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use spanlock::{ByteRange, Mode, RangeLock};
use std::ops::Bound;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Edge {
    Included(u64),
    Excluded(u64),
    Unbounded,
}

impl Edge {
    fn bound(self) -> Bound<u64> {
        match self {
            Edge::Included(byte) => Bound::Included(byte),
            Edge::Excluded(byte) => Bound::Excluded(byte),
            Edge::Unbounded => Bound::Unbounded,
        }
    }
}

/// Half-open, in numbers that hold the end of the last byte; `None` if the range is inverted.
fn plain(start: Edge, end: Edge) -> Option<(u128, u128)> {
    let start = match start {
        Edge::Included(byte) => byte.into(),
        Edge::Excluded(byte) => u128::from(byte) + 1,
        Edge::Unbounded => 0,
    };
    let end = match end {
        Edge::Included(byte) => u128::from(byte) + 1,
        Edge::Excluded(byte) => byte.into(),
        Edge::Unbounded => 1 << 64,
    };
    (start <= end).then_some((start, end))
}

fuzz_target!(|edges: [(Edge, Edge); 2]| {
    let [Some(a), Some(b)] = edges.map(|(start, end)| plain(start, end)) else { return };
    let ranges = edges.map(|(start, end)| ByteRange::new((start.bound(), end.bound())));
    for (range, (start, end)) in ranges.iter().zip([a, b]) {
        assert_eq!(range.len(), end - start);
        assert_eq!(range.start().map(u128::from), (start < end).then_some(start));
        assert_eq!(range.last().map(u128::from), (start < end).then(|| end - 1));
        assert_eq!(ByteRange::new(*range), *range, "a range is its own bounds");
    }
    let meet = a.0.max(b.0) < a.1.min(b.1);
    assert_eq!(ranges[0].overlaps(ranges[1]), meet);
    assert_eq!(!ranges[0].intersect(ranges[1]).is_empty(), meet);
    // An owner of its own, as the thread would not conflict with itself.
    let lock = std::sync::Arc::new(RangeLock::new());
    let held = lock.request_arc(ranges[0], Mode::Exclusive).wait();
    assert_eq!(lock.try_add(ranges[1]).is_none(), meet);
    drop(held);
});
