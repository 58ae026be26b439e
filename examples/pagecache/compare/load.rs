//! One measurement: some threads do one kind of operation, each on a part of the file of its own, for a given time.
//!
//! The parts are disjoint, so all that the threads share is the lock, the disk and the processors. A thread makes a
//! miss by removing a page of its own part just before it reads it, as if memory had run short: nobody else touches
//! that page, so this needs no lock, and costs each variant the same.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use fastrand::Rng;
use spanlock_pagecache::PAGE;
use spanlock_pagecache::cache::{Cache, File};
use spanlock_pagecache::device::{Aligned, Device, offset_of};
use spanlock_pagecache::direct::Source;
use spanlock_pagecache::error::CacheError;
use spanlock_pagecache::file_lock::Variant;
use spanlock_pagecache::hooks::NoHook;

/// Pages that belong to one thread.
pub(crate) const PART: usize = 32;

/// What the threads do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Reads of pages that are cached
    Cached,
    /// Reads of pages that are not
    Miss,
    /// Buffered writes of a page
    Buffered,
    /// Direct writes of a page
    Direct,
    /// Direct writes and misses, drawn by lot
    Mixed,
}

impl Kind {
    pub(crate) const ALL: [Kind; 5] = [Kind::Mixed, Kind::Direct, Kind::Miss, Kind::Buffered, Kind::Cached];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Cached => "cached reads",
            Kind::Miss => "misses",
            Kind::Buffered => "buffered writes",
            Kind::Direct => "direct writes",
            Kind::Mixed => "writes and misses",
        }
    }
}

/// A file under one variant, that is used again for each measurement.
pub(crate) struct Bench {
    pub(crate) variant: Variant,
    pub(crate) file: Arc<File>,
}

/// How much was done in how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) operations: u64,
    pub(crate) time: Duration,
}

impl Done {
    /// From the first thread's beginning to the last one's end, by their own clocks. Whoever started them may get the
    /// processor back long after they have begun: with many threads on few processors that made rates several times too
    /// high.
    fn of(shifts: &[Shift]) -> Done {
        let (began, ended) =
            (shifts.iter().map(|shift| shift.began).min(), shifts.iter().map(|shift| shift.ended).max());
        let time = began.zip(ended).map_or(Duration::ZERO, |(began, ended)| ended - began);
        Done { operations: shifts.iter().map(|shift| shift.operations).sum(), time }
    }

    pub(crate) fn per_second(self) -> f64 {
        self.operations as f64 / self.time.as_secs_f64()
    }
}

impl Bench {
    pub(crate) fn new(variant: Variant, device: &Arc<Device>) -> Result<Bench, CacheError> {
        let cache = Cache::new(variant, Arc::new(NoHook), 0);
        Ok(Bench { variant, file: cache.open(device.clone(), device.size())? })
    }

    /// Lets `threads` threads do `kind` for about `time`.
    pub(crate) fn measure(&self, kind: Kind, threads: usize, time: Duration, seed: u64) -> Result<Done, CacheError> {
        let (stop, start) = (AtomicBool::new(false), Barrier::new(threads + 1));
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|number| {
                    let worker = Worker::new(&self.file, number, seed);
                    let (stop, start) = (&stop, &start);
                    scope.spawn(move || worker.work(kind, stop, start))
                })
                .collect();
            start.wait();
            thread::sleep(time);
            // Relaxed: it orders nothing.
            stop.store(true, Ordering::Relaxed);
            let shifts = workers.into_iter().map(|worker| worker.join().expect("a worker does not panic"));
            Ok(Done::of(&shifts.collect::<Result<Vec<_>, _>>()?))
        })
    }

    /// The same, with everything that is asked of the lock noted in its log.
    pub(crate) fn record(&self, kind: Kind, threads: usize, time: Duration) -> Result<(), CacheError> {
        self.file.lock().log().start();
        let done = self.measure(kind, threads, time, 1);
        self.file.lock().log().stop();
        done.map(|_| ())
    }
}

/// What one thread has done, from when to when.
struct Shift {
    operations: u64,
    began: Instant,
    ended: Instant,
}

/// One thread, and its part of the file.
struct Worker<'a> {
    file: &'a Arc<File>,
    first: usize,
    random: Rng,
    page: Box<Aligned<PAGE>>,
}

impl Worker<'_> {
    fn new(file: &Arc<File>, number: usize, seed: u64) -> Worker<'_> {
        let mut random = Rng::with_seed(seed);
        for _ in 0..number {
            random = random.fork();
        }
        Worker { file, first: number * PART, random, page: Aligned::new() }
    }

    fn work(mut self, kind: Kind, stop: &AtomicBool, start: &Barrier) -> Result<Shift, CacheError> {
        let ready = self.prepare(kind);
        start.wait(); // also after an error, or the others would wait for ever
        ready?;
        let (began, mut operations) = (Instant::now(), 0);
        while !stop.load(Ordering::Relaxed) {
            self.operate(kind)?;
            operations += 1;
        }
        Ok(Shift { operations, began, ended: Instant::now() })
    }

    /// Cached reads and buffered writes find their pages in the cache.
    fn prepare(&mut self, kind: Kind) -> Result<(), CacheError> {
        if matches!(kind, Kind::Cached | Kind::Buffered) {
            for page in self.first..self.first + PART {
                self.file.read(offset_of(page), &mut self.page[..])?;
            }
        }
        Ok(())
    }

    fn operate(&mut self, kind: Kind) -> Result<(), CacheError> {
        let page = self.first + self.random.usize(..PART);
        let offset = offset_of(page);
        match kind {
            Kind::Cached => self.file.read(offset, &mut self.page[..]).map(|_| ()),
            Kind::Miss => {
                self.file.forget(page);
                self.file.read(offset, &mut self.page[..]).map(|_| ())
            }
            Kind::Buffered => self.file.write(offset, &self.page[..]),
            Kind::Direct => self.file.write_direct(offset, Source::Memory(&self.page[..])),
            Kind::Mixed if self.random.bool() => self.operate(Kind::Direct),
            Kind::Mixed => self.operate(Kind::Miss),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_from_the_first_beginning_to_the_last_end() {
        let zero = Instant::now();
        let shift = |began, ended| Shift {
            operations: 10,
            began: zero + Duration::from_millis(began),
            ended: zero + Duration::from_millis(ended),
        };
        let done = Done::of(&[shift(20, 40), shift(10, 30), shift(15, 50)]);
        assert_eq!((done.operations, done.time), (30, Duration::from_millis(40)));
    }
}
