//! Where the key of a range is filed, so that whoever might be in its way is found by a few reads.
//!
//! The space of bytes is cut into 4 blocks, each of these into 4, and so on, 32 times, as in the tree of `spanlock`. A
//! range is filed under the smallest block that holds it; the block's *path* is the number of the quarter at each step,
//! a digit each:
//!
//! ```text
//! lock/inode-42/.7f1-3-0         a range that lies in no quarter: filed under the whole
//! lock/inode-42/0000031.7f1-9-0  one within the block of 7 digits
//! ```
//!
//! Ranges that share a byte are filed under blocks of which one holds the other. So whoever conflicts with a range is
//! under one of the at most 32 blocks above its own (each a prefix: the path and a dot) or in or below it (one run of
//! keys, since a dot sorts before the digits).

use crate::store::KeyRange;

/// Steps from the whole down to a single byte.
const LEVELS: u32 = 32;

/// The path of the smallest block that holds the bytes from `first` to `last`.
pub(crate) fn path(first: u64, last: u64) -> String {
    let shared = ((first ^ last).leading_zeros() / 2).min(LEVELS);
    (0..shared).map(|step| char::from(b'0' + (first >> (62 - 2 * step) & 3) as u8)).collect()
}

/// The ranges of keys below `lock` (a prefix) that hold everybody who shares a byte with a range filed under `path`.
pub(crate) fn reads(lock: &str, path: &str) -> impl Iterator<Item = KeyRange> {
    let above = (0..path.len()).map(move |digits| {
        let block = &path[..digits];
        KeyRange { first: format!("{lock}{block}."), end: format!("{lock}{block}/") }
    });
    above.chain([KeyRange { first: format!("{lock}{path}"), end: format!("{lock}{path}4") }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_filed_under_the_smallest_block_that_holds_it() {
        assert_eq!(path(0, u64::MAX), "");
        assert_eq!(path(0, 0), "0".repeat(32));
        assert_eq!(path(u64::MAX, u64::MAX), "3".repeat(32));
        assert_eq!(path(0, 4095), "0".repeat(26));
        assert_eq!(path(4096, 8191), format!("{}1", "0".repeat(25)));
        assert_eq!(path(4095, 4096), "0".repeat(25), "one that straddles a border goes up");
        assert_eq!(path((1 << 62) - 1, 1 << 62), "");
    }

    /// Whoever shares a byte is read, also with bounds at borders of blocks; and of what is far away nothing is.
    #[test]
    fn whoever_shares_a_byte_is_read() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let bits = random.u32(0..64);
            let mut byte = || (random.u64(..) >> bits).wrapping_sub(random.u64(0..2));
            let [a, b, c, d] = [byte(), byte(), byte(), byte()];
            let (mine, other) = ((a.min(b), a.max(b)), (c.min(d), c.max(d)));
            let key = format!("lock/x/{}.1-2-0", path(other.0, other.1));
            let found = reads("lock/x/", &path(mine.0, mine.1)).any(|range| range.contains(&key));
            assert!(found || mine.1 < other.0 || other.1 < mine.0, "{mine:?} does not see {other:?}");
        }
        let far = format!("lock/x/{}.1-2-0", path(1 << 40, 1 << 40));
        assert!(!reads("lock/x/", &path(0, 4095)).any(|range| range.contains(&far)));
        assert!(reads("lock/x/", &path(0, 0)).count() == 33);
    }
}
