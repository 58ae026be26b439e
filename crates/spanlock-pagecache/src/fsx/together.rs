//! Many threads in one file, each with a window of its own that it knows every byte of.
//!
//! The windows are no multiples of a page, so that neighbours share pages, and narrower than what is read ahead. The
//! last thread owns everything behind the others: it appends, truncates, collapses and inserts there, while the others
//! go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::cache::Cache;
use crate::device::{Access, Device, Place};
use crate::error::CacheError;
use crate::file_lock::Variant;
use crate::fsx::exercise::{Failure, at_rest};
use crate::fsx::{Actor, Step};
use crate::hooks::{Hook, NoHook, Pauses};
use crate::queue::Queue;

/// Bytes behind the windows that the last thread may use.
const REST: u64 = 32 * 4096;

/// What to run.
#[derive(Debug)]
pub struct Load {
    /// The lock of the cache.
    pub variant: Variant,
    /// Where the file is.
    pub place: Place,
    /// How many threads have a window; one more has the end of the file.
    pub workers: usize,
    /// For how long.
    pub time: Duration,
    /// Of the steps.
    pub seed: u64,
    /// How long to linger where the races are.
    pub pause: Duration,
}

/// Runs the load; how many steps were done, or who found what.
///
/// # Errors
/// The outer one: there is no file to work on. The inner one: the first difference, and whose window it was in.
pub fn run(load: &Load, done: &AtomicU64) -> Result<Result<u64, (usize, Failure)>, CacheError> {
    let hook: Arc<dyn Hook> = if load.pause.is_zero() { Arc::new(NoHook) } else { Arc::new(Pauses(load.pause)) };
    let cache = Cache::new(load.variant, hook, 8);
    // Five pages and a half, so that neighbours share pages: not by O_DIRECT, then, where that takes whole pages.
    let window = 5 * 4096 + 2048_usize;
    let mut device = Device::open(&load.place, 0, Access::Direct)?;
    if window % device.unit() != 0 {
        device = Device::open(&load.place, 0, Access::Buffered { because: "windows share pages".into() })?;
    }
    let device = Arc::new(device);
    let base = (window * load.workers) as u64;
    let file = cache.open(device, base + REST)?;
    file.truncate(base)?;
    // Each with the bytes that its steps are spread over.
    let windows = (0..load.workers)
        .map(|worker| (Actor::of_window(Arc::clone(&file), (worker * window) as u64, window), window as u64));
    let rest = (Actor::of_the_rest(Arc::clone(&file), base, base + REST), REST);
    let actors: Vec<_> = windows.chain([rest]).collect();
    let (stop, end) = (AtomicBool::new(false), Instant::now() + load.time);
    let go = |who: usize, mut actor: Actor, spread: u64| {
        let (mut random, queue) = (Rng::with_seed(load.seed + who as u64), Queue::new(1));
        for number in 1.. {
            if stop.load(Ordering::Relaxed) || Instant::now() >= end {
                break;
            }
            let step = Step::random(&mut random, 1, spread);
            if let Err(difference) = actor.apply(&step, number, None, &queue) {
                stop.store(true, Ordering::Relaxed);
                return Err((who, Failure { number, step: Some(step), difference }));
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
        actor.settle().map_err(|difference| (who, Failure { number: 0, step: None, difference }))
    };
    let results: Vec<_> = thread::scope(|scope| {
        let go = &go;
        let threads: Vec<_> =
            (0..).zip(actors).map(|(who, (actor, spread))| scope.spawn(move || go(who, actor, spread))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no step panics")).collect()
    });
    let at_end = at_rest(&file).map_err(|difference| (load.workers, Failure { number: 0, step: None, difference }));
    Ok(results.into_iter().collect::<Result<(), _>>().and(at_end).map(|()| done.load(Ordering::Relaxed)))
}
