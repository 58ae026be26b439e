//! A MESI machine: which CPU has a copy of which cache line, and what an access costs the others.
//!
//! # What it is
//! Up to 64 CPUs with private caches that never run out of room, kept coherent by invalidation. A line is *modified* or *exclusive*
//! in one cache, or *shared* by some, or nowhere. There is no time: an access is a hit, or it is a miss, a transfer, or
//! both.
//!
//! - *Miss*: the CPU had no copy. *Cold*, if nobody had one.
//! - *Transfer*: the access could not go on without another CPU. It fetched a line that another one had modified, or it
//!   wrote to a line that others had copies of, and took those away. These are what does not scale: they are served one
//!   after the other for a line.
//!
//! # Invariant
//! A line that is modified or exclusive has one copy.

use rustc_hash::FxHashMap;

/// CPUs that a set of sharers has room for.
pub(crate) const MAX_CPUS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    /// A store, or any read-modify-write: one that fails takes the line as well.
    Write,
}

/// The copies of one line. (Invalid: it is not in the map.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Modified(usize),
    Exclusive(usize),
    /// A bit for each CPU that has a copy.
    Shared(u64),
}

/// What one access came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) miss: bool,
    /// A miss for which nobody had a copy.
    pub(crate) cold: bool,
    pub(crate) transfer: bool,
    /// Copies that others lost.
    pub(crate) invalidated: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Machine {
    lines: FxHashMap<usize, Line>,
}

impl Machine {
    pub(crate) fn access(&mut self, cpu: usize, line: usize, access: Access) -> Outcome {
        let me = 1_u64 << cpu;
        let before = self.lines.get(&line).copied();
        let (after, outcome) = match (before, access) {
            (None, Access::Read) => (Line::Exclusive(cpu), Outcome { miss: true, cold: true, ..Outcome::default() }),
            (None, Access::Write) => (Line::Modified(cpu), Outcome { miss: true, cold: true, ..Outcome::default() }),
            (Some(Line::Modified(owner)), _) if owner == cpu => return Outcome::default(),
            (Some(Line::Exclusive(owner)), Access::Read) if owner == cpu => return Outcome::default(),
            (Some(Line::Exclusive(owner)), Access::Write) if owner == cpu => {
                (Line::Modified(cpu), Outcome::default()) // silently
            }
            (Some(Line::Modified(owner)), Access::Read) => {
                (Line::Shared(me | 1 << owner), Outcome { miss: true, transfer: true, ..Outcome::default() })
            }
            (Some(Line::Exclusive(owner)), Access::Read) => {
                (Line::Shared(me | 1 << owner), Outcome { miss: true, ..Outcome::default() })
            }
            (Some(Line::Modified(_) | Line::Exclusive(_)), Access::Write) => {
                (Line::Modified(cpu), Outcome { miss: true, transfer: true, invalidated: 1, ..Outcome::default() })
            }
            (Some(Line::Shared(set)), Access::Read) => {
                (Line::Shared(set | me), Outcome { miss: set & me == 0, ..Outcome::default() })
            }
            (Some(Line::Shared(set)), Access::Write) => {
                let invalidated = (set & !me).count_ones();
                let miss = set & me == 0;
                (Line::Modified(cpu), Outcome { miss, cold: false, transfer: invalidated > 0, invalidated })
            }
        };
        self.lines.insert(line, after);
        outcome
    }

    #[cfg_attr(not(test), allow(dead_code))]
    pub(crate) fn line(&self, line: usize) -> Option<Line> {
        self.lines.get(&line).copied()
    }
}
