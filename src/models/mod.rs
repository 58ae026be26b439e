//! Loom models of the tree and of the protocol, run against the code itself.
//!
//! | file | models |
//! |---|---|
//! | `tree` | publish and scan, in every shape that a tree can take or change into; removal; torn slots |
//! | `shortcut` | the same for who comes by a shortcut, and looks at one node only |
//! | `grant` | the queue: no grant to two, no lost wake-up, first come first served, cancel |
//! | `stamp` | who came later is not waited for, who came before is; and a search that is owed is made |
//! | `reorder` | a lock with a window: newcomers pass those who yield, and both directions of that race |
//! | `convert` | a hold becomes another: what is kept is never let go of, what is given up wakes |
//! | `batch` | several requests under one ticket: all or nothing |
//! | `cycle` | a cycle of waits is answered or broken, and who is let past is past |
//! | `drain` | who came before is waited for, who came later is not, and knows |
//! | `announce` | what is clear nobody has had |
//! | `poison` | who waits for a holder that is stuck is refused |
//! | `turn` | one search at a time in a lock; who leaves lets it end; what it sees of what others publish |
//! | `event` | the lists of those who wait, by themselves: who asks to be called is called |
//! | `epoch` | on the real reclaimer: nobody reads a node that was freed |
//!
//! # How they see a fault
//! - What a lock protects is a [`Byte`]. It counts who is inside, and holds data that loom watches: two accesses that
//!   no happens-before orders are reported even where they do not meet in time.
//! - A wake-up that is lost leaves a thread parked for ever, which loom reports as a deadlock.
//! - A request that is lost is not found by a scan from the root after all threads have ended.
//!
//! # How far they look
//! Each names its bound: so many times a thread is preempted that could go on. They are searched with one preemption
//! first, then with two, up to the bound; each of these depth first, until `SPANLOCK_LOOM_SECONDS` (default 20) are
//! over in all. `SPANLOCK_LOOM_BOUND` sets another bound for all.
//!
//! loom's limits: at most four threads and the main one; `SeqCst` fences order a little more than they must, and can so
//! hide a missing Acquire: hence each order is tested in a shape in which no fence of a third thread helps. Requests
//! that only set the scene are made by the main thread before the others start, where they cost next to nothing.
//!
//! Tests are run one in a process: a model that fails leaves loom unusable.

#[cfg(not(spanlock_epoch))]
mod announce;
#[cfg(not(spanlock_epoch))]
mod batch;
#[cfg(not(spanlock_epoch))]
mod convert;
#[cfg(not(spanlock_epoch))]
mod cycle;
#[cfg(not(spanlock_epoch))]
mod drain;
#[cfg(spanlock_epoch)]
mod epoch;
#[cfg(not(spanlock_epoch))]
mod event;
#[cfg(not(spanlock_epoch))]
mod grant;
#[cfg(not(spanlock_epoch))]
mod poison;
#[cfg(not(spanlock_epoch))]
mod reorder;
#[cfg(not(spanlock_epoch))]
mod shortcut;
#[cfg(not(spanlock_epoch))]
mod stage;
#[cfg(not(spanlock_epoch))]
mod stamp;
#[cfg(not(spanlock_epoch))]
mod tree;
#[cfg(not(spanlock_epoch))]
mod turn;

use crate::facts::mode::Mode;
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::env;
use std::fmt::Debug;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Runs `model` in all orders of its threads' steps in which at most `bound` preemptions happen: those with one first,
/// then those with two, and so on, so that a model too large to be exhausted has at least been searched where faults
/// are most likely.
fn check(bound: usize, model: impl Fn() + Send + Sync + 'static) {
    let seconds = from_env("SPANLOCK_LOOM_SECONDS").unwrap_or(20);
    let bound = from_env("SPANLOCK_LOOM_BOUND").unwrap_or(bound);
    let model = Arc::new(model);
    let end = Instant::now() + Duration::from_secs(seconds);
    for bound in 1..=bound {
        let left = end.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            check_to(bound, left, Arc::clone(&model));
        }
    }
}

/// The same for one bound.
fn check_to(bound: usize, limit: Duration, model: Arc<impl Fn() + Send + Sync + 'static>) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(bound);
    builder.max_branches = 50_000;
    builder.max_duration = Some(limit);
    // The clock is looked at once in so many executions.
    builder.checkpoint_interval = 64;

    let executions = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let report = Report { bound, begin: Instant::now(), limit, executions: Arc::clone(&executions) };
    builder.check(move || {
        executions.fetch_add(1, Relaxed);
        model();
    });
    drop(report);
}

/// Says how far a model was searched, a failed one too.
struct Report {
    bound: usize,
    begin: Instant,
    limit: Duration,
    executions: Arc<std::sync::atomic::AtomicU64>,
}

impl Drop for Report {
    fn drop(&mut self) {
        let took = self.begin.elapsed();
        let end = match (std::thread::panicking(), took >= self.limit) {
            (true, _) => "FAILED",
            (false, true) => "cut off",
            (false, false) => "exhausted",
        };
        let executions = self.executions.load(Relaxed);
        println!("{end} at {}: {executions} in {:.1} s", self.bound, took.as_secs_f64());
    }
}

fn from_env<T: FromStr<Err: Debug>>(name: &str) -> Option<T> {
    env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// A byte that a lock protects.
#[derive(Debug)]
struct Byte {
    data: UnsafeCell<u64>,
    /// Who is inside: [`ALONE`] for who excludes all others, one for each who shares. Relaxed: only the lock may order
    /// these.
    inside: AtomicUsize,
}

// SAFETY: its data is accessed under the lock that is being modelled, and loom reports every access that is not.
unsafe impl Sync for Byte {}

const ALONE: usize = 1 << 16;

impl Byte {
    fn new() -> Byte {
        Byte { data: UnsafeCell::new(0), inside: AtomicUsize::new(0) }
    }

    /// What the holder of a range in `mode` may do.
    fn touch(&self, mode: Mode) {
        match mode {
            Mode::Add => {
                assert!(self.inside.fetch_add(1, Relaxed) < ALONE, "granted beside an exclusive one");
                // SAFETY: the lock keeps writers out, which is what loom checks here.
                self.data.with(|data| unsafe { data.read() });
                self.inside.fetch_sub(1, Relaxed);
            }
            // Blockers go together too, but no model has two of them.
            Mode::Block | Mode::Exclusive => {
                assert_eq!(self.inside.fetch_add(ALONE, Relaxed), 0, "granted beside another one");
                // SAFETY: the lock keeps everybody else out, which is what loom checks here.
                self.data.with_mut(|data| unsafe { data.write(1) });
                self.inside.fetch_sub(ALONE, Relaxed);
            }
        }
    }
}
