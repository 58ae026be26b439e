//! A table of locks for a file of any size: segment n has lock n modulo their number.

use std::ops::Range;

/// Which of `locks` locks a run of segments has: two ascending runs of them, the lower one first, none twice. Whoever
/// takes them in this order closes no cycle.
#[inline]
pub(crate) fn stripes(segments: Range<u64>, locks: usize) -> [Range<usize>; 2] {
    let count = (segments.end - segments.start).min(locks as u64) as usize;
    let start = (segments.start % locks as u64) as usize;
    let over = (start + count).saturating_sub(locks);
    [0..over, start..start + count - over]
}
