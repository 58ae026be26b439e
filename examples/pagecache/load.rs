//! The load: the same threads with the same seeds, under each lock in turn.
//!
//! A run of one variant: fill the file with version 1; let the threads loose; write
//! everything back; compare cache, disk and history.

use std::cell::Cell;
use std::ops::{AddAssign, Range};
use std::panic;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use fastrand::Rng;
use indicatif::{ProgressBar, ProgressStyle};
use spanlock_pagecache::PAGE;
use spanlock_pagecache::cache::{Cache, File};
use spanlock_pagecache::checker::{Checker, Faults, SECTORS};
use spanlock_pagecache::device::{Aligned, Device, PageBuffer, offset_of};
use spanlock_pagecache::direct::Source;
use spanlock_pagecache::error::CacheError;
use spanlock_pagecache::file_lock::Variant;
use spanlock_pagecache::hooks::{Operation, Pauses};
use spanlock_pagecache::sector::{self, SECTOR};
use spanlock_pagecache::waits::Waits;

use crate::options::{Kind, Options};

/// The longest write, in pages. It may touch one page more.
const LONGEST_WRITE: usize = 2;

/// How many pages are written at once when the file is filled.
const FILL_PAGES: usize = 16;

/// Half of the operations go to so many pages in the middle of the file, or to a sixteenth
/// of it if that is less: files have places that everybody wants.
const HOT_PAGES: usize = 64;

/// How long dirty pages lie between two rounds of write-back.
const WRITE_BACK_EVERY: Duration = Duration::from_millis(5);

/// Pages to read ahead after a miss. A few: the load is not sequential.
const READ_AHEAD: usize = 2;

/// How often the progress bar moves.
const TICK: Duration = Duration::from_millis(50);

/// Where there is no bar: how often a line says how far it is.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How long the threads may take to come to an end. No operation takes anything like
/// that long, so a thread that has not ended by then was forgotten by its lock.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often each kind of operation was done, and how long locks were waited for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) buffered: u64,
    pub(crate) direct: u64,
    pub(crate) truncates: u64,
    /// Pages that the write-back thread wrote; not an operation of the load.
    pub(crate) written_back: u64,
    pub(crate) waits: Waits,
}

impl Tally {
    /// Operations of the load.
    pub(crate) fn operations(&self) -> u64 {
        self.hits + self.misses + self.buffered + self.direct + self.truncates
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.buffered += other.buffered;
        self.direct += other.direct;
        self.truncates += other.truncates;
        self.written_back += other.written_back;
    }
}

/// What one variant did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) variant: Variant,
    pub(crate) time: Duration,
    pub(crate) tally: Tally,
    pub(crate) faults: Faults,
}

/// Runs the load under one variant of the lock.
pub(crate) fn run(variant: Variant, device: &Arc<Device>, options: &Options) -> Result<Outcome, CacheError> {
    write_version_one(variant, device)?;
    let cache = Cache::new(variant, Arc::new(Pauses(options.pause)), READ_AHEAD);
    let run = Run {
        device,
        options,
        file: cache.open(device.clone(), device.size())?,
        checker: Checker::new(device.pages()),
        stop: AtomicBool::new(false),
        operations: AtomicU64::new(0),
    };
    let began = Instant::now();
    let tally = thread::scope(|scope| {
        let run = &run;
        let mut threads: Vec<_> = (0..options.threads).map(|number| scope.spawn(move || run.operate(number))).collect();
        threads.push(scope.spawn(|| run.write_back_while_running()));
        run.watch(variant, &threads);
        let mut tally = Tally::default();
        for thread in threads {
            match thread.join() {
                Ok(result) => tally += result?,
                Err(panic) => panic::resume_unwind(panic),
            }
        }
        Ok::<_, CacheError>(tally)
    })?;
    let time = began.elapsed();
    let tally = Tally { waits: run.file.waits(), ..tally };
    run.check_the_end(variant)?;
    Ok(Outcome { variant, time, tally, faults: run.checker.faults() })
}

/// What all threads of a run share.
struct Run<'a> {
    device: &'a Device,
    options: &'a Options,
    file: Arc<File>,
    checker: Checker,
    stop: AtomicBool,
    /// For the progress bar.
    operations: AtomicU64,
}

impl Run<'_> {
    /// One thread of the load.
    fn operate(&self, number: u16) -> Result<Tally, CacheError> {
        let mut random = Rng::with_seed(self.options.seed);
        for _ in 0..number {
            random = random.fork();
        }
        let mut tally = Tally::default();
        let mut read = [0; PAGE];
        let mut write = Aligned::<{ LONGEST_WRITE * PAGE }>::new();
        // Relaxed, as all of `stop` and `operations`: they order nothing, and whoever
        // looks at results has joined the threads.
        while !self.stop.load(Ordering::Relaxed) {
            match self.options.mix.draw(&mut random) {
                Kind::Read => {
                    let page = self.any_page(&mut random);
                    let floor = self.checker.before_read(page);
                    // While the file is cut off there is nothing; soon there will be zeros.
                    read.fill(0);
                    let found = self.file.read(offset_of(page), &mut read)?;
                    self.checker.after_read(page, &floor, &read);
                    match found.misses {
                        0 => tally.hits += 1,
                        _ => tally.misses += 1,
                    }
                }
                Kind::Buffered => {
                    let sectors = self.any_sectors(1, &mut random);
                    let bytes = &mut write[..sectors.len() * SECTOR];
                    let making = self.checker.begin_write(sectors.clone());
                    making.stamp(bytes);
                    self.file.write(offset_of_sector(sectors.start), bytes)?;
                    making.complete();
                    tally.buffered += 1;
                }
                Kind::Direct => {
                    let unit = self.device.unit() / SECTOR;
                    let sectors = self.any_sectors(unit, &mut random);
                    let bytes = &mut write[..sectors.len() * SECTOR];
                    let making = self.checker.begin_write(sectors.clone());
                    making.stamp(bytes);
                    self.file.write_direct(offset_of_sector(sectors.start), Source::Memory(bytes))?;
                    making.complete();
                    tally.direct += 1;
                }
                Kind::Truncate => {
                    let page = self.any_tail(&mut random);
                    let making = self.checker.begin_truncate(page);
                    let left = self.file.truncate(offset_of(page))?;
                    self.file.truncate(self.device.size())?;
                    making.complete();
                    self.checker.behind_the_end(page, left);
                    tally.truncates += 1;
                }
            }
            self.operations.fetch_add(1, Ordering::Relaxed);
        }
        Ok(tally)
    }

    /// The thread that brings dirty pages to the disk.
    fn write_back_while_running(&self) -> Result<Tally, CacheError> {
        let mut tally = Tally::default();
        while !self.stop.load(Ordering::Relaxed) {
            tally.written_back += self.file.flush()?;
            thread::sleep(WRITE_BACK_EVERY);
        }
        Ok(tally)
    }

    /// Moves the progress bar until the time is up, or a thread has ended early
    /// because something failed. Then waits for the threads to end.
    fn watch(&self, variant: Variant, threads: &[ScopedJoinHandle<'_, Result<Tally, CacheError>>]) {
        let time = self.options.seconds_each();
        let bar = Progress::new(variant, "running", time.as_millis());
        let began = Instant::now();
        while began.elapsed() < time && !threads.iter().any(ScopedJoinHandle::is_finished) {
            thread::sleep(TICK.min(time.saturating_sub(began.elapsed())));
            let operations = self.operations.load(Ordering::Relaxed);
            bar.says(&format!("{operations} operations"));
            bar.is_at(began.elapsed().as_millis());
        }
        self.stop.store(true, Ordering::Relaxed);
        let stopped = Instant::now();
        while !threads.iter().all(ScopedJoinHandle::is_finished) {
            if stopped.elapsed() > PATIENCE {
                // These threads cannot be joined any more, so there is no way back.
                eprintln!(
                    "error: under the {}, threads still wait {} seconds after the end: a lock \
                     was never granted",
                    variant.name(),
                    PATIENCE.as_secs()
                );
                process::exit(1);
            }
            thread::sleep(Duration::from_millis(1));
        }
        bar.ends();
    }

    /// When nobody is at work any more: writes everything back, and compares.
    fn check_the_end(&self, variant: Variant) -> Result<(), CacheError> {
        let bar = Progress::new(variant, "writing back what is dirty", self.device.pages() as u128);
        for page in 0..self.device.pages() {
            self.file.write_back(page, Operation::Sync)?;
            bar.is_at(page as u128);
        }
        self.file.sync()?;
        bar.ends();
        let bar = Progress::new(variant, "comparing cache and disk", self.device.pages() as u128);
        let mut disk = PageBuffer::new();
        let mut cached = [0; PAGE];
        for page in 0..self.device.pages() {
            self.device.read_page(page, &mut disk)?;
            let is_cached = self.file.cached(page, &mut cached);
            self.checker.at_the_end(page, &disk, is_cached.then_some(&cached));
            bar.is_at(page as u128);
        }
        bar.ends();
        Ok(())
    }

    /// Any page; every second time one of the hot ones.
    fn any_page(&self, random: &mut Rng) -> usize {
        let pages = self.device.pages();
        if random.bool() {
            let hot = HOT_PAGES.min(pages / 16); // the smallest file has 16
            pages / 2 + random.usize(..hot)
        } else {
            random.usize(..pages)
        }
    }

    /// The sectors of a write: whole pages every second time, and otherwise any piece
    /// made of `unit` sectors.
    fn any_sectors(&self, unit: usize, random: &mut Rng) -> Range<usize> {
        let mut first = self.any_page(random) * SECTORS;
        let unit = if random.bool() { SECTORS } else { unit };
        first += random.usize(..SECTORS / unit) * unit;
        let length = unit * random.usize(1..=LONGEST_WRITE * SECTORS / unit);
        first..(first + length).min(self.device.pages() * SECTORS)
    }

    /// Where to truncate: rather near the end of the file, or there would be little
    /// left to race for.
    fn any_tail(&self, random: &mut Rng) -> usize {
        let pages = self.device.pages();
        let (longest, longer) = (random.usize(1..=pages), random.usize(1..=pages));
        pages - random.usize(1..=longest.min(longer))
    }
}

/// Fills the file: version 1 of every sector.
fn write_version_one(variant: Variant, device: &Device) -> Result<(), CacheError> {
    let bar = Progress::new(variant, "filling the file", device.pages() as u128);
    // Cut off first: what is left of another variant must not be mistaken for ours.
    device.set_size(0)?;
    device.set_size(device.size())?;
    let mut bytes = Aligned::<{ FILL_PAGES * PAGE }>::new();
    for first in (0..device.pages()).step_by(FILL_PAGES) {
        let pages = FILL_PAGES.min(device.pages() - first);
        for (number, bytes) in (first * SECTORS..).zip(bytes.chunks_exact_mut(SECTOR)) {
            sector::stamp(bytes, number as u64, 1);
        }
        device.write(offset_of(first), &bytes[..pages * PAGE])?;
        bar.is_at((first + pages) as u128);
    }
    bar.ends();
    Ok(())
}

fn offset_of_sector(sector: usize) -> u64 {
    sector as u64 * SECTOR as u64
}

/// How far something has come: a bar on standard error, or a line there every few seconds if that is no terminal.
struct Progress {
    bar: ProgressBar,
    what: &'static str,
    /// When the last line was printed.
    said: Cell<Instant>,
}

impl Progress {
    fn new(variant: Variant, what: &'static str, length: u128) -> Progress {
        let style = ProgressStyle::with_template("{prefix:>16} [{bar:24}] {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        let bar = ProgressBar::new(clamp(length)).with_style(style).with_prefix(variant.name());
        bar.set_message(what);
        Progress { bar, what, said: Cell::new(Instant::now()) }
    }

    fn says(&self, message: &str) {
        self.bar.set_message(format!("{}, {message}", self.what));
    }

    fn is_at(&self, position: u128) {
        self.bar.set_position(clamp(position));
        if self.bar.is_hidden() && self.said.get().elapsed() > LINE_EVERY {
            self.said.set(Instant::now());
            let percent = position * 100 / u128::from(self.bar.length().unwrap_or(1).max(1));
            eprintln!("{}: {}, {percent} %", self.bar.prefix(), self.what);
        }
    }

    fn ends(self) {
        self.bar.finish_and_clear();
    }
}

fn clamp(length: u128) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
