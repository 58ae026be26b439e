//! A lost wake-up hangs a test with threads. The watchdog turns that into a failure that says where.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Without a step for this long, nothing moves any more (also under a sanitizer, with more threads than processors).
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends the process when the threads of a test stop making steps. Dropping it ends the watch.
#[derive(Debug)]
pub(crate) struct Watchdog {
    steps: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    pub(crate) fn new(test: &'static str) -> Watchdog {
        let steps = Arc::new(AtomicU64::new(0));
        let over = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (steps, over) = (steps.clone(), over.clone());
            move || watch(test, &steps, &over)
        });
        Watchdog { steps, over, thread: Some(thread) }
    }

    /// Something moved.
    pub(crate) fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It neither panics nor returns anything; if it did, the test goes on all the same.
            drop(thread.join());
        }
    }
}

fn watch(test: &str, steps: &AtomicU64, over: &AtomicBool) {
    let (mut seen, mut since) = (0, Instant::now());
    while !over.load(Ordering::Acquire) {
        thread::park_timeout(Duration::from_millis(500));
        let now = steps.load(Ordering::Relaxed);
        if now != seen {
            (seen, since) = (now, Instant::now());
        } else if since.elapsed() > PATIENCE {
            // Not `eprintln!`: what the harness captured is lost when the process ends like this.
            let text = format!("{test}: no step in {PATIENCE:?} after {now}: a lost wake-up, or a circle of waiters\n");
            drop(std::io::stderr().write_all(text.as_bytes()));
            std::process::abort();
        }
    }
}
