//! The page table: from the number of a page to its frame, without a lock.
//!
//! # Shape
//! An array of chunks, each of which is allocated when one of its pages is first wanted and stays until the file is
//! closed. So a frame never moves, a look-up is two loads, and nothing need be reclaimed: *pages* come and go inside of
//! their frames. The price: a file has a largest size, fixed when it is opened, and the memory of a
//! sparse file's chunks is kept. (A cache that must give memory back would put frames behind an epoch; the rest stays.)
//!
//! # Orderings
//! `OnceLock` publishes a chunk (Release) to whoever finds it (Acquire). Two who make one chunk at the same moment wait
//! for one another; a look-up never does.

use std::ops::RangeFrom;
use std::sync::OnceLock;

use crate::frame::{Frame, PAGE};

/// Pages in a chunk.
const CHUNK: usize = 16;

#[derive(Debug)]
pub(crate) struct PageTable {
    chunks: Box<[OnceLock<Box<[Frame]>>]>,
}

impl PageTable {
    /// For files of up to `most` bytes.
    pub(crate) fn new(most: u64) -> PageTable {
        let chunks = most.div_ceil((CHUNK * PAGE) as u64);
        PageTable { chunks: (0..chunks).map(|_| OnceLock::new()).collect() }
    }

    /// The largest file that it can hold, in bytes.
    pub(crate) fn most(&self) -> u64 {
        (self.chunks.len() * CHUNK * PAGE) as u64
    }

    /// The frame of `page`, if it was ever wanted.
    pub(crate) fn find(&self, page: usize) -> Option<&Frame> {
        Some(&self.chunks.get(page / CHUNK)?.get()?[page % CHUNK])
    }

    /// The frame of `page`, which must lie below [`PageTable::most`].
    pub(crate) fn frame(&self, page: usize) -> &Frame {
        let chunk = self.chunks[page / CHUNK].get_or_init(|| (0..CHUNK).map(|_| Frame::new()).collect());
        &chunk[page % CHUNK]
    }

    /// The frames that exist, from a page on.
    pub(crate) fn existing(&self, pages: RangeFrom<usize>) -> impl Iterator<Item = (usize, &Frame)> {
        let first = pages.start;
        let chunks = self.chunks.iter().enumerate().skip(first / CHUNK);
        chunks
            .filter_map(|(number, chunk)| Some((number * CHUNK, chunk.get()?)))
            .flat_map(|(base, chunk)| (base..).zip(chunk.iter()))
            .filter(move |&(page, _)| page >= first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_into_being_by_chunks_and_stay() {
        let table = PageTable::new((CHUNK * 3 * PAGE) as u64);
        assert_eq!(table.most(), (CHUNK * 3 * PAGE) as u64);
        assert!(table.find(CHUNK).is_none());
        let frame = table.frame(CHUNK + 1);
        assert!(std::ptr::eq(frame, table.find(CHUNK + 1).unwrap()));
        assert!(table.find(CHUNK * 2).is_none() && table.find(usize::MAX).is_none());
        let found: Vec<_> = table.existing(CHUNK + 14..).map(|(page, _)| page).collect();
        assert_eq!(found, [CHUNK + 14, CHUNK + 15]);
    }
}
