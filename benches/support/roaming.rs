//! Contests of threads that have no home: who takes part, and what they do. `pairs` and `compare` have them.
//!
//! Each pattern (see `pattern`) with critical sections of 0, 200 ns and 1 us, on threads that are free and on threads
//! that are bound to processors. Every contender has a lock of its own, and its threads' walks go on from turn to turn.
//! A thread looks at the clock once in 16 pairs; so its *longest wait* is the longest that 16 pairs in a row took, what
//! they held included. Requests for the whole file are timed each. *Nodes* are those that a lock has on the heap at the
//! end.

// Each bench is a crate of its own and uses a part of this.
#![allow(dead_code)]

use crate::peers::*;
use crate::support::Section;
use crate::support::pattern::{Ask, PAGE, Pattern, Walk};
use crate::support::turns::{Contender, Effort, Laps, Placement, Tally, processors};
use crossbeam_utils::CachePadded;
use parking_lot::Mutex as Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Critical sections, in nanoseconds.
pub(crate) const SECTIONS: [u64; 3] = [0, 200, 1000];

/// For whoever has a lock for each page: so many are enough for a file of any size, if pages far apart share one.
const MOST_LOCKS: u64 = 4096;

/// Pairs between two looks at the clock.
pub(crate) const LOOK: u64 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Roaming {
    pub(crate) pattern: Pattern,
    /// Nanoseconds of a critical section.
    pub(crate) section: u64,
}

impl Roaming {
    pub(crate) fn all() -> impl Iterator<Item = Roaming> {
        Pattern::ALL.into_iter().flat_map(|pattern| SECTIONS.map(|section| Roaming { pattern, section }))
    }

    pub(crate) fn name(self) -> String {
        let section = match self.section {
            0 => String::new(),
            1000.. => format!(", {} us", self.section / 1000),
            nanos => format!(", {nanos} ns"),
        };
        self.pattern.name() + &section
    }

    /// New locks, this one first.
    pub(crate) fn contenders(self) -> Vec<Contender> {
        let mut all = vec![
            self.contender::<Spanlock>(),
            self.contender::<IntervalTree>(),
            self.contender::<BTree>(),
            self.contender::<RangeLockCrate>(),
            self.contender::<List>(),
            self.contender::<Segments>(),
            self.contender::<RwLock>(),
        ];
        if matches!(self.pattern, Pattern::Skewed | Pattern::OneInThousand) {
            all.push(self.contender::<Reordering>());
        }
        all
    }

    /// One of them.
    pub(crate) fn contender<P: Peer + Send + 'static>(self) -> Contender {
        let lock = Arc::new(P::new(self.pattern.bytes().min(MOST_LOCKS * PAGE)));
        let walks: Vec<CachePadded<Cell<Walk>>> =
            self.pattern.walks(MOST_THREADS).map(|walk| CachePadded::new(Cell::new(walk))).collect();
        let (section, grown) = (Section::nanos(self.section), Arc::clone(&lock));
        let work = move |thread: usize, stop: &AtomicBool| {
            let (mut tally, mut walk) = (Tally::default(), walks[thread].lock());
            let mut laps = Laps::every(LOOK);
            while !stop.load(Ordering::Relaxed) {
                match walk.next() {
                    Ask::Shared(range) => section.under(lock.acquire(thread, range, Access::Shared)),
                    Ask::Exclusive(range) => section.under(lock.acquire(thread, range, Access::Exclusive)),
                    Ask::Whole => {
                        let asked = Instant::now();
                        let guard = lock.acquire_whole(thread);
                        let waited = asked.elapsed();
                        section.under(guard);
                        tally.whole.push(waited.as_nanos() as u32);
                    }
                }
                tally.count += 1;
                laps.lap(&mut tally);
            }
            tally
        };
        Contender::new(title::<P>(), work).with_nodes(move || grown.nodes()).passing(P::PASSES)
    }
}

/// How long a contest is measured, of so many threads, where `effort` is right for one that has a processor for each.
pub(crate) fn effort(threads: usize, effort: Effort) -> Effort {
    if threads <= processors().len() {
        return effort;
    }
    // A system with few processors gives each thread a few milliseconds at a time: a turn has to have several of those
    // for each.
    let turn = effort.turn.max(Duration::from_millis(4) * threads as u32);
    Effort { rounds: effort.rounds.div_ceil(3), warm_up: effort.warm_up.div_ceil(3), turn }
}

/// Placements, the free ones first: a library may ask for the system's processors once and for all, from a thread that
/// sees one of them.
pub(crate) const PLACEMENTS: [Placement; 2] = [Placement::Free, Placement::Bound];
