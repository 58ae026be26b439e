//! The stamp that every 512-byte sector carries: (version, sector, checksum).
//!
//! A sector is what is read and written in one piece, so it is the unit in which
//! the checker thinks. Its 64 words are
//!
//! | word | content |
//! |---|---|
//! | 0 | version: how many times this sector was written or truncated away, from 1 |
//! | 1 | sector: its number in the file |
//! | 2..63 | filler that depends on both, so that half a sector is never a whole one |
//! | 63 | checksum of all the words before it |
//!
//! A sector of nothing but zeros is a *hole*: what a truncate leaves behind.

/// Bytes in a sector.
pub const SECTOR: usize = 512;

/// Bytes in a word.
const WORD: usize = 8;
const WORDS: usize = SECTOR / WORD;
const CHECKSUM: usize = WORDS - 1;

/// What was found in a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Only zeros: truncated away and not written since.
    Hole,
    /// A whole stamp, at the place it was made for.
    Version(u64),
    /// The checksum does not fit: a mixture of two writes, or garbage.
    Torn,
    /// A whole stamp that belongs to another sector.
    Misplaced {
        /// The sector that it was made for.
        belongs_to: u64,
    },
}

/// Fills `bytes` (one sector) with the stamp of `version`.
///
/// # Panics
/// If `bytes` is not one sector long, or `version` is 0 (which stands for the
/// time before the first write).
pub fn stamp(bytes: &mut [u8], sector: u64, version: u64) {
    assert_eq!(bytes.len(), SECTOR);
    assert_ne!(version, 0);
    let mut words = [0; WORDS];
    words[0] = version;
    words[1] = sector;
    let mut filler = version.wrapping_mul(ODD) ^ sector;
    for word in &mut words[2..CHECKSUM] {
        filler = mix(filler);
        *word = filler;
    }
    words[CHECKSUM] = checksum(&words);
    for (place, word) in bytes.chunks_exact_mut(WORD).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
}

/// What `bytes`, read from the place of `sector`, hold.
///
/// # Panics
/// If `bytes` is not one sector long.
pub fn read(bytes: &[u8], sector: u64) -> Content {
    assert_eq!(bytes.len(), SECTOR);
    let mut words = [0; WORDS];
    for (word, place) in words.iter_mut().zip(bytes.chunks_exact(WORD)) {
        let mut le_bytes = [0; WORD];
        le_bytes.copy_from_slice(place);
        *word = u64::from_le_bytes(le_bytes);
    }
    if words[0] == 0 && words.iter().all(|&word| word == 0) {
        Content::Hole
    } else if words[CHECKSUM] != checksum(&words) {
        Content::Torn
    } else if words[1] != sector {
        Content::Misplaced { belongs_to: words[1] }
    } else {
        Content::Version(words[0])
    }
}

/// An odd number with its bits well spread: 2^64 divided by the golden ratio.
const ODD: u64 = 0x9E37_79B9_7F4A_7C15;

/// Spreads a change in any bit over the word; never maps two words to one.
fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 32)).wrapping_mul(ODD);
    word ^ (word >> 29)
}

fn checksum(words: &[u64; WORDS]) -> u64 {
    words[..CHECKSUM].iter().fold(ODD, |sum, &word| mix(sum.rotate_left(7) ^ word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(sector: u64, version: u64) -> [u8; SECTOR] {
        let mut bytes = [0xAA; SECTOR];
        stamp(&mut bytes, sector, version);
        bytes
    }

    #[test]
    fn a_stamp_reads_back() {
        for (sector, version) in [(0, 1), (1, 1), (7, 123_456), (u64::MAX, u64::MAX)] {
            let bytes = stamped(sector, version);
            assert_eq!(read(&bytes, sector), Content::Version(version));
        }
    }

    #[test]
    fn only_zeros_are_a_hole() {
        let mut bytes = [0; SECTOR];
        assert_eq!(read(&bytes, 3), Content::Hole);
        bytes[SECTOR - 1] = 1;
        assert_eq!(read(&bytes, 3), Content::Torn);
    }

    #[test]
    fn a_stamp_in_the_wrong_place_is_found() {
        assert_eq!(read(&stamped(8, 5), 9), Content::Misplaced { belongs_to: 8 });
    }

    #[test]
    fn a_change_in_any_bit_is_found() {
        let whole = stamped(4, 9);
        for bit in 0..SECTOR * 8 {
            let mut bytes = whole;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bytes, 4), Content::Torn, "bit {bit}");
        }
    }

    #[test]
    fn a_mixture_of_two_versions_is_found_wherever_it_is_torn() {
        let (old, new) = (stamped(4, 9), stamped(4, 10));
        let hole = [0; SECTOR];
        for first in [old, hole] {
            for start in (0..SECTOR).step_by(WORD) {
                for end in (start + WORD..=SECTOR).step_by(WORD) {
                    // The sector's number is the one word that both have.
                    let torn = (start, end) != (0, SECTOR) && (first == hole || (start, end) != (WORD, 2 * WORD));
                    if torn {
                        let mut bytes = first;
                        bytes[start..end].copy_from_slice(&new[start..end]);
                        assert_eq!(read(&bytes, 4), Content::Torn, "new in {start}..{end}");
                    }
                }
            }
        }
    }

    #[test]
    fn words_in_the_wrong_order_are_found() {
        let whole = stamped(4, 9);
        for word in 0..WORDS - 1 {
            let mut bytes = whole;
            bytes[word * WORD..(word + 2) * WORD].rotate_left(WORD);
            assert_eq!(read(&bytes, 4), Content::Torn, "words {word} and the next");
        }
    }
}
