//! What the locks of this process have done so far: counters, and how long requests waited. (Feature `stats`.)
//!
//! ```
//! let before = spanlock::stats::read();
//! // ... the work that is looked into ...
//! let meanwhile = spanlock::stats::read().since(&before);
//! println!("{meanwhile}");
//! assert_eq!(meanwhile.deadlocks, 0);
//! ```
//!
//! All locks of the process are counted together. Counting is an add to a cache line that few other threads use; a wait
//! is also written into a histogram, behind a mutex that is held for some nanoseconds.

// Shape: 16 stripes, each a line of counters and a histogram; a thread has one of them for life, and shares it with
// every 16th. Memory: a stripe's histogram is made at its first wait and takes 36 KiB.
//
// All accesses are Relaxed: a counter orders nothing, and a sum of counters that others go on changing is of no one
// moment.

use crate::facts::elapsed::Elapsed;
use crate::platform::sync::{Ordering, hint::AtomicU64};
use crossbeam_utils::CachePadded;
use std::cell::Cell;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use hdrhistogram::Histogram;

const STRIPES: usize = 16;

/// The longest wait that is told apart from longer ones, in nanoseconds: an hour.
const LONGEST: u64 = 3_600_000_000_000;

/// Decimal digits to which a wait is known.
const DIGITS: u8 = 2;

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counter {
    Acquires,
    Contended,
    Nested,
    Passed,
    Deadlocks,
    GivenUp,
    NodesGrown,
    NodesPruned,
    WentBefore,
    WokenInVain,
}

const COUNTERS: usize = Counter::WokenInVain as usize + 1;
const _: () = assert!((Counter::NodesPruned as usize) < 8, "the counters of all locks fill one cache line");

/// What all locks of the process have done since it began, or [since](Stats::since) an earlier reading.
///
/// `Display` writes a small table.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Requests that were granted, at once or after a wait.
    pub acquires: u64,
    /// Requests that found somebody in their way: they queued or, being a `try_`, were refused.
    pub contended: u64,
    /// Requests of an owner that had another one at the time.
    pub nested: u64,
    /// Times that a nested request was let past a queued one, to break a cycle.
    pub passed: u64,
    /// Requests that were answered with a deadlock.
    pub deadlocks: u64,
    /// Waits that ended without a grant: by a deadline, a dropped future or a deadlock.
    pub given_up: u64,
    /// Nodes that trees have grown.
    pub nodes_grown: u64,
    /// Nodes that were taken out of trees, to be freed.
    pub nodes_pruned: u64,
    /// Requests that went before others who waited, in a lock with a [window](crate::RangeLock::reordering).
    pub went_before: u64,
    /// Times that one who let newcomers pass was woken, and found another one in its way.
    pub woken_in_vain: u64,
    /// The longest that somebody has waited, after the window was over, until he was granted; of all since the process
    /// began, also in what is [since](Stats::since) an earlier reading.
    pub latest: Duration,
    /// How long requests waited, in nanoseconds, to two digits, whether they were granted in the end or gave up. A wait
    /// of more than an hour counts as an hour. Who still waits is not in it: see [`Snapshot`](crate::Snapshot).
    pub waits: Histogram<u64>,
}

impl Stats {
    /// What happened between `earlier` and this reading.
    ///
    /// Nothing, if `earlier` is the later one.
    pub fn since(&self, earlier: &Stats) -> Stats {
        let mut waits = self.waits.clone();
        if waits.subtract(&earlier.waits).is_err() {
            waits.clear();
        }
        Stats {
            acquires: self.acquires.saturating_sub(earlier.acquires),
            contended: self.contended.saturating_sub(earlier.contended),
            nested: self.nested.saturating_sub(earlier.nested),
            passed: self.passed.saturating_sub(earlier.passed),
            deadlocks: self.deadlocks.saturating_sub(earlier.deadlocks),
            given_up: self.given_up.saturating_sub(earlier.given_up),
            nodes_grown: self.nodes_grown.saturating_sub(earlier.nodes_grown),
            nodes_pruned: self.nodes_pruned.saturating_sub(earlier.nodes_pruned),
            went_before: self.went_before.saturating_sub(earlier.went_before),
            woken_in_vain: self.woken_in_vain.saturating_sub(earlier.woken_in_vain),
            latest: self.latest,
            waits,
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counters = [
            ("acquires", self.acquires),
            ("contended", self.contended),
            ("nested", self.nested),
            ("passed", self.passed),
            ("deadlocks", self.deadlocks),
            ("given up", self.given_up),
            ("nodes grown", self.nodes_grown),
            ("nodes pruned", self.nodes_pruned),
            ("went before", self.went_before),
            ("woken in vain", self.woken_in_vain),
            ("waits", self.waits.len()),
        ];
        let width = counters.iter().map(|(_, count)| count.to_string().len()).max().unwrap_or(0);
        for (at, (name, count)) in counters.iter().enumerate() {
            let end_of_last = if at == 0 { "" } else { "\n" };
            write!(f, "{end_of_last}{name:<13}  {count:>width$}")?;
        }
        if self.waits.is_empty() {
            return Ok(());
        }
        let time = |nanos| Elapsed(Duration::from_nanos(nanos));
        let [p50, p99] = [0.5, 0.99].map(|quantile| time(self.waits.value_at_quantile(quantile)));
        write!(f, ": p50 {p50}, p99 {p99}, max {}", time(self.waits.max()))?;
        if self.latest.is_zero() {
            Ok(())
        } else {
            write!(f, "; granted {} after the window at the latest", Elapsed(self.latest))
        }
    }
}

/// The counters of all locks of the process as they stand. Other threads go on meanwhile, so they need not fit together
/// to the last one.
pub fn read() -> Stats {
    BOARD.read()
}

/// Adds `n` to a counter.
#[inline]
pub(crate) fn add(counter: Counter, n: u64) {
    BOARD.add(home(), counter, n);
}

/// Notes how long a request has waited.
#[cold]
pub(crate) fn waited(time: Duration) {
    BOARD.waited(home(), time);
}

/// Notes how long beyond its window a request has waited.
#[cold]
pub(crate) fn granted_late(by: Duration) {
    LATEST.fetch_max(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

static BOARD: Board = Board::new();

/// The longest of these. (It changes seldom, so all threads share it.)
static LATEST: AtomicU64 = AtomicU64::new(0);

/// The calling thread's stripe. Threads that start one after the other have different ones.
#[inline]
fn home() -> usize {
    const NONE: usize = usize::MAX;
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // No destructor, so that it can be used while a thread ends.
    thread_local!(static HOME: Cell<usize> = const { Cell::new(NONE) });
    HOME.with(|home| {
        if home.get() == NONE {
            home.set(NEXT.fetch_add(1, Ordering::Relaxed) as usize % STRIPES);
        }
        home.get()
    })
}

/// All stripes.
struct Board([CachePadded<Stripe>; STRIPES]);

struct Stripe {
    counters: [AtomicU64; COUNTERS],
    waits: Mutex<Option<Histogram<u64>>>,
}

impl Board {
    const fn new() -> Board {
        Board([const { CachePadded::new(Stripe::new()) }; STRIPES])
    }

    #[inline]
    fn add(&self, stripe: usize, counter: Counter, n: u64) {
        self.0[stripe].counters[counter as usize].fetch_add(n, Ordering::Relaxed);
    }

    fn waited(&self, stripe: usize, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0[stripe].waits().get_or_insert_with(no_waits).saturating_record(nanos);
    }

    fn read(&self) -> Stats {
        let sum = |counter: Counter| -> u64 {
            self.0.iter().map(|stripe| stripe.counters[counter as usize].load(Ordering::Relaxed)).sum()
        };
        let mut waits = no_waits();
        for stripe in &self.0 {
            if let Some(its) = &*stripe.waits() {
                waits.add(its).expect("all histograms have the same bounds");
            }
        }
        Stats {
            acquires: sum(Counter::Acquires),
            contended: sum(Counter::Contended),
            nested: sum(Counter::Nested),
            passed: sum(Counter::Passed),
            deadlocks: sum(Counter::Deadlocks),
            given_up: sum(Counter::GivenUp),
            nodes_grown: sum(Counter::NodesGrown),
            nodes_pruned: sum(Counter::NodesPruned),
            went_before: sum(Counter::WentBefore),
            woken_in_vain: sum(Counter::WokenInVain),
            latest: Duration::from_nanos(LATEST.load(Ordering::Relaxed)),
            waits,
        }
    }
}

impl Stripe {
    const fn new() -> Stripe {
        Stripe { counters: [const { AtomicU64::new(0) }; COUNTERS], waits: Mutex::new(None) }
    }

    fn waits(&self) -> MutexGuard<'_, Option<Histogram<u64>>> {
        // A histogram that somebody panicked in is still good for its purpose.
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_waits() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("the bounds and the digits are in range")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn micros(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn a_reading_is_the_sum_of_all_stripes() {
        let board = Board::new();
        for stripe in 0..STRIPES {
            board.add(stripe, Counter::Acquires, 10);
            board.add(stripe, Counter::NodesPruned, stripe as u64);
            board.waited(stripe, micros(100 + stripe as u64));
        }
        board.add(3, Counter::Contended, 1);
        board.add(3, Counter::Nested, 2);
        board.add(3, Counter::Passed, 3);
        board.add(3, Counter::Deadlocks, 4);
        board.add(3, Counter::GivenUp, 5);
        board.add(3, Counter::NodesGrown, 6);
        board.add(3, Counter::WentBefore, 7);
        board.add(4, Counter::WokenInVain, 8);
        let Stats { acquires, contended, nested, passed, deadlocks, given_up, nodes_grown, nodes_pruned, .. } =
            board.read();
        let Stats { went_before, woken_in_vain, waits, .. } = board.read();
        assert_eq!([went_before, woken_in_vain], [7, 8]);
        assert_eq!([acquires, contended, nested, passed], [160, 1, 2, 3]);
        assert_eq!([deadlocks, given_up, nodes_grown, nodes_pruned], [4, 5, 6, 120]);
        assert_eq!(waits.len(), 16);
        assert!((99_000..=101_000).contains(&waits.min()), "{}", waits.min());
        assert!((114_000..=116_000).contains(&waits.max()), "{}", waits.max());
    }

    #[test]
    fn since_is_what_happened_in_between() {
        let board = Board::new();
        board.add(0, Counter::Acquires, 5);
        board.waited(0, micros(1));
        board.waited(0, micros(900));
        let before = board.read();
        board.add(1, Counter::Acquires, 2);
        board.add(1, Counter::Deadlocks, 1);
        board.waited(1, micros(1));
        let after = board.read();
        let meanwhile = after.since(&before);
        assert_eq!((meanwhile.acquires, meanwhile.deadlocks, meanwhile.contended), (2, 1, 0));
        assert_eq!((meanwhile.waits.len(), meanwhile.waits.count_at(1_000)), (1, 1));
        assert!(meanwhile.waits.max() < 1_100, "the long wait was before");
        let nothing = before.since(&after);
        assert_eq!((nothing.acquires, nothing.deadlocks, nothing.waits.len()), (0, 0, 0));
        assert_eq!((before.acquires, before.waits.len()), (5, 2), "the readings themselves stay");
    }

    #[test]
    fn no_wait_is_too_short_or_too_long() {
        let board = Board::new();
        board.waited(0, Duration::ZERO);
        board.waited(0, Duration::from_secs(3 * 3600));
        board.waited(0, Duration::MAX);
        let waits = board.read().waits;
        assert_eq!((waits.len(), waits.min()), (3, 0));
        assert_eq!(waits.max(), waits.highest_equivalent(LONGEST));
        assert_eq!(waits.distinct_values() * size_of::<u64>(), 36 << 10, "the header says how much memory");
    }

    #[test]
    fn the_table() {
        let board = Board::new();
        let empty = [
            "acquires       0",
            "contended      0",
            "nested         0",
            "passed         0",
            "deadlocks      0",
            "given up       0",
            "nodes grown    0",
            "nodes pruned   0",
            "went before    0",
            "woken in vain  0",
            "waits          0",
        ];
        // That is of the process.
        let after_the_window = |latest| Stats { latest, ..board.read() }.to_string();
        assert_eq!(after_the_window(Duration::ZERO), empty.join("\n"));
        board.add(0, Counter::Acquires, 1234);
        board.add(0, Counter::Contended, 99);
        for _ in 0..98 {
            board.waited(1, micros(12));
        }
        board.waited(2, micros(4_100));
        board.waited(2, micros(1_210_000));
        let full = [
            "acquires       1234",
            "contended        99",
            "nested            0",
            "passed            0",
            "deadlocks         0",
            "given up          0",
            "nodes grown       0",
            "nodes pruned      0",
            "went before       0",
            "woken in vain     0",
            "waits           100: p50 12.0 us, p99 4.1 ms, max 1.2 s",
        ];
        assert_eq!(after_the_window(Duration::ZERO), full.join("\n"));
        let late = after_the_window(Duration::from_millis(3));
        assert_eq!(late, full.join("\n") + "; granted 3.0 ms after the window at the latest");
    }

    #[test]
    fn threads_have_stripes_of_their_own_and_none_is_lost() {
        static BUSY: Board = Board::new();
        let first = home();
        assert_eq!(home(), first, "for life");
        let homes: Vec<_> = thread::scope(|scope| {
            let work = || {
                for _ in 0..10_000 {
                    BUSY.add(home(), Counter::Acquires, 1);
                }
                BUSY.waited(home(), micros(5));
                home()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join().expect("it counts, no more")).collect()
        });
        // Other tests' threads take stripes too, so only this much is certain of four.
        assert!(homes.iter().any(|home| *home != homes[0]), "{homes:?}");
        let stats = BUSY.read();
        assert_eq!((stats.acquires, stats.waits.len()), (40_000, 4));
    }

    /// Other tests count there as well, hence the `>=`.
    #[test]
    fn the_process_has_one_board() {
        let before = read();
        thread::scope(|scope| {
            scope.spawn(|| add(Counter::Passed, 7));
            scope.spawn(|| waited(micros(3)));
        });
        let meanwhile = read().since(&before);
        assert!(meanwhile.passed >= 7 && !meanwhile.waits.is_empty(), "{meanwhile}");
    }
}
