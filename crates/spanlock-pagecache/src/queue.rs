//! The device's queue: a few threads that finish what others have begun.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

use crate::error::CacheError;

type Job = Box<dyn FnOnce() + Send>;

/// Dropped, it finishes what was submitted, and ends its threads.
#[derive(Debug)]
pub struct Queue {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

/// What was submitted and may be under way.
#[derive(Debug)]
#[must_use = "its result says whether it failed"]
pub struct Pending<T> {
    result: Receiver<Result<T, CacheError>>,
}

impl<T> Pending<T> {
    /// Waits until it is done.
    pub fn wait(self) -> Result<T, CacheError> {
        self.result.recv().unwrap_or(Err(CacheError::QueueClosed))
    }
}

impl Queue {
    /// With so many threads.
    pub fn new(threads: usize) -> Queue {
        let (jobs, queued) = mpsc::channel::<Job>();
        let queued = Arc::new(Mutex::new(queued));
        let threads = (0..threads).map(|_| {
            let queued = queued.clone();
            thread::spawn(move || {
                loop {
                    // In a statement of its own, so that the next thread can wait while this one works.
                    let job = queued.lock().recv();
                    match job {
                        Ok(job) => job(),
                        Err(_) => return, // the queue is being dropped
                    }
                }
            })
        });
        Queue { jobs: Some(jobs), threads: threads.collect() }
    }

    /// Has one of the threads do `job`.
    pub fn submit<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, CacheError> + Send + 'static,
    ) -> Pending<T> {
        let (done, result) = mpsc::channel();
        let job = Box::new(move || {
            // Nobody need wait for the result.
            let _ = done.send(job());
        });
        self.jobs.as_ref().expect("there until the drop").send(job).expect("the threads end after the queue");
        Pending { result }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A panic has been reported on its thread.
            let _ = thread.join();
        }
    }
}
