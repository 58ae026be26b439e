//! How many processors there are: for those who wait in this process, and in the system.
//!
//! The answer must not depend on who happens to ask: in a runtime with a thread per processor each thread is bound to
//! one, and yet they run side by side. A process that is bound to one processor as a whole, on the other hand, has one,
//! however many the machine has. So each thread that waits, and each that lets others go on, adds the processors that
//! it may run on itself. (If the system limits the time of the process to less, that counts too.)
//!
//! All of this only advises: the atomics are Relaxed, and models do without.

use std::cell::Cell;
use std::fs;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// A thread says again where it may run after so many visits: it may have been bound meanwhile, or set free.
const VISITS: u16 = 1024;

static KNOWN: AtomicUsize = AtomicUsize::new(1);

std::thread_local! {
    static LEFT: Cell<u16> = const { Cell::new(0) };
}

/// How many threads of those who have waited here, or let others go on, can run at the same time.
pub(crate) fn at_work() -> usize {
    count_in();
    KNOWN.load(Ordering::Relaxed)
}

/// The calling thread is one of them.
pub(crate) fn count_in() {
    LEFT.with(|left| match left.get() {
        0 => {
            left.set(VISITS);
            KNOWN.store(bound::together().unwrap_or_else(limit), Ordering::Relaxed);
        }
        some => left.set(some - 1),
    });
}

/// How many the system has, whoever may use them: for what is laid out once. Opens a file where there is one that says
/// so.
pub(crate) fn of_system() -> usize {
    static ONLINE: OnceLock<usize> = OnceLock::new();
    once(&ONLINE, || {
        let text = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
        ranges(&text).filter(|&count| count > 0).unwrap_or_else(limit)
    })
}

/// What `cell` has, or will have from now on. What there is to say is found out first: if that allocates, an allocator
/// that itself waits for ranges may come back here.
fn once(cell: &OnceLock<usize>, find_out: impl FnOnce() -> usize) -> usize {
    cell.get().copied().unwrap_or_else(|| {
        let found = find_out();
        *cell.get_or_init(|| found)
    })
}

/// Into how many parts a map is cut that all threads use.
pub(crate) fn shards() -> usize {
    (4 * of_system()).next_power_of_two()
}

/// How many numbers are in a list of ranges: 7 in `0-3,8,10-11`.
fn ranges(text: &str) -> Option<usize> {
    text.trim().split(',').try_fold(0, |count: usize, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        count.checked_add(last.checked_sub(first)?)?.checked_add(1)
    })
}

/// What the standard library says, to the thread that asks first: on how many processors it may run, or fewer, if the
/// time of the process is limited.
fn limit() -> usize {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    once(&LIMIT, || thread::available_parallelism().map_or(1, usize::from))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod bound {
    use rustix::thread::{CpuSet, sched_getaffinity};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A bit for each processor that somebody who came here may run on.
    static OURS: [AtomicU64; CpuSet::MAX_CPU.div_ceil(64)] =
        [const { AtomicU64::new(0) }; CpuSet::MAX_CPU.div_ceil(64)];

    /// Adds those that the calling thread may run on; how many there are now. `None`: the system does not say. (It has
    /// more than fit into a set.)
    pub(super) fn together() -> Option<usize> {
        let mine = sched_getaffinity(None).ok()?;
        let mut count = 0;
        for (index, word) in OURS.iter().enumerate() {
            let bits = (0..64).filter(|bit| mine.is_set(index * 64 + bit)).fold(0, |bits, bit| bits | 1 << bit);
            count += (word.fetch_or(bits, Ordering::Relaxed) | bits).count_ones();
        }
        Some((count as usize).min(share(mine.count() as usize)))
    }

    /// For how many processors the process has time, as far as that is known: who is bound to one is not told.
    fn share(mine: usize) -> usize {
        static SHARE: OnceLock<usize> = OnceLock::new();
        if mine > 1 {
            super::once(&SHARE, || if super::limit() < mine { super::limit() } else { usize::MAX })
        } else {
            SHARE.get().copied().unwrap_or(usize::MAX)
        }
    }
}

/// Elsewhere what a process may use is no matter of the thread that asks.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod bound {
    pub(super) fn together() -> Option<usize> {
        None
    }
}

#[cfg(test)]
// Said in full for `benches/coherence`, which includes this file from elsewhere.
#[path = "processors/tests.rs"]
mod tests;
