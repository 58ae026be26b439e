//! How threads that have no home go about a file: what each asks for next.
//!
//! Threads that keep to a place of their own show a structure that adapts to places at its best. These go anywhere
//! (random pages), move on (a tail, streams), or meet (hot rows). A [`Walk`] is one thread's way. The walks of a
//! pattern belong to one lock, and go on where they were when their threads come back to it: places that were visited
//! once come again only as the pattern wants it.

// Each bench is a crate of its own and uses a part of this.
#![allow(dead_code)]

use crossbeam_utils::CachePadded;
use fastrand::Rng;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
/// Bytes of a piece of a stream.
const PIECE: u64 = 128 << 10;
/// Rows of the table, and those to which half of the asks go.
const ROWS: u64 = 1_000_000;
const HOT_ROWS: u64 = 100;
/// Of so many asks one takes the whole file, in [`Pattern::OneInThousand`].
const THOUSAND: u32 = 1000;

/// What the threads of a program do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pattern {
    /// Random pages of a file of so many bytes; of 100 asks so many are shared, the others exclusive.
    Scattered { bytes: u64, shared: u32 },
    /// Random pages of 1 GiB exclusively, and, one in 1000, the whole file.
    OneInThousand,
    /// A counter, which all of them share, gives the next page; exclusively.
    Tail,
    /// Single rows of a million, half of the asks to a hundred of them; four of five are shared.
    Skewed,
    /// Each thread its own file part from front to back, in pieces of 128 KiB; exclusively.
    Streams,
}

impl Pattern {
    pub(crate) const ALL: [Pattern; 10] = [
        Pattern::Scattered { bytes: MIB, shared: 0 },
        Pattern::Scattered { bytes: GIB, shared: 0 },
        Pattern::Scattered { bytes: TIB, shared: 0 },
        Pattern::Scattered { bytes: MIB, shared: 70 },
        Pattern::Scattered { bytes: GIB, shared: 70 },
        Pattern::Scattered { bytes: TIB, shared: 70 },
        Pattern::OneInThousand,
        Pattern::Tail,
        Pattern::Skewed,
        Pattern::Streams,
    ];

    pub(crate) fn name(self) -> String {
        match self {
            Pattern::Scattered { bytes, shared: 0 } => format!("scattered, {}", size(bytes)),
            Pattern::Scattered { bytes, shared } => format!("scattered, {}, {shared} % shared", size(bytes)),
            Pattern::OneInThousand => "one in 1000 whole".into(),
            Pattern::Tail => "tail".into(),
            Pattern::Skewed => "skewed".into(),
            Pattern::Streams => "streams".into(),
        }
    }

    pub(crate) fn describe(self) -> &'static str {
        match self {
            Pattern::Scattered { shared: 0, .. } => "random pages, exclusively",
            Pattern::Scattered { .. } => "random pages, some shared and some exclusively",
            Pattern::OneInThousand => "random pages of 1 GiB, and, one in 1000, the whole file, all exclusively",
            Pattern::Tail => "the next page behind the last one that anybody took, exclusively",
            Pattern::Skewed => "one of a million rows, half of the time one of a hundred; 80 % shared",
            Pattern::Streams => "128 KiB behind the last ones of the same thread, exclusively",
        }
    }

    /// Bytes of the file, as far as the pattern ends anywhere.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Pattern::Scattered { bytes, .. } => bytes,
            Pattern::OneInThousand => GIB,
            Pattern::Skewed => ROWS,
            Pattern::Tail | Pattern::Streams => u64::MAX,
        }
    }

    /// The ways of so many threads on one lock.
    pub(crate) fn walks(self, threads: usize) -> impl Iterator<Item = Walk> {
        let tail = Arc::<CachePadded<AtomicU64>>::default();
        (0..threads as u64).map(move |thread| Walk {
            pattern: self,
            random: Rng::with_seed(thread),
            stream: thread * TIB,
            tail: Arc::clone(&tail),
        })
    }
}

fn size(bytes: u64) -> String {
    let (number, unit) = match bytes {
        TIB.. => (bytes / TIB, "TiB"),
        GIB.. => (bytes / GIB, "GiB"),
        _ => (bytes / MIB, "MiB"),
    };
    format!("{number} {unit}")
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Shared(Range<u64>),
    Exclusive(Range<u64>),
    /// Every byte, exclusively.
    Whole,
}

/// A thread's way.
#[derive(Debug)]
pub(crate) struct Walk {
    pattern: Pattern,
    random: Rng,
    /// Where the thread's own stream goes on.
    stream: u64,
    /// Pages that all threads of the lock have taken from the tail.
    tail: Arc<CachePadded<AtomicU64>>,
}

impl Walk {
    #[inline]
    pub(crate) fn next(&mut self) -> Ask {
        match self.pattern {
            Pattern::Scattered { bytes, shared } => {
                let page = self.page_of(bytes);
                if shared > 0 && self.random.u32(..100) < shared { Ask::Shared(page) } else { Ask::Exclusive(page) }
            }
            Pattern::OneInThousand if self.random.u32(..THOUSAND) == 0 => Ask::Whole,
            Pattern::OneInThousand => Ask::Exclusive(self.page_of(GIB)),
            Pattern::Tail => {
                // Relaxed: only the number counts.
                let start = self.tail.fetch_add(1, Ordering::Relaxed) * PAGE;
                Ask::Exclusive(start..start + PAGE)
            }
            Pattern::Skewed => {
                let row = match self.random.bool() {
                    // No two of them side by side.
                    true => self.random.u64(..HOT_ROWS) * (ROWS / HOT_ROWS),
                    false => self.random.u64(..ROWS),
                };
                let row = row..row + 1;
                if self.random.u32(..100) < 80 { Ask::Shared(row) } else { Ask::Exclusive(row) }
            }
            Pattern::Streams => {
                let start = self.stream;
                self.stream += PIECE;
                Ask::Exclusive(start..start + PIECE)
            }
        }
    }

    fn page_of(&mut self, bytes: u64) -> Range<u64> {
        let start = self.random.u64(..bytes / PAGE) * PAGE;
        start..start + PAGE
    }
}
