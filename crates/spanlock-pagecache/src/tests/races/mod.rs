//! The races between a page cache and direct I/O, one test each.
//!
//! # Promise
//! Each test is one story of threads, and plays it in exactly one order: a [`Gate`] stops an operation in the middle,
//! the others go as far as they come, the gate opens. Under the locks ([`Variant::Whole`], [`Variant::Range`]) the
//! story ends well. Where a variant without a lock is prone to the race, the test asserts that *this* story corrupts
//! it: else the test would show nothing about the lock.
//!
//! | file | numbers | what meets |
//! |---|---|---|
//! | `fills.rs` | 1, 2, 3, 6, 7, 21, 26 | those who fill pages, and direct writes |
//! | `dirty.rs` | 4, 5, 18, 20 | dirty pages, and direct I/O; two direct writes |
//! | `recursion.rs` | 8 to 13, 23, 25 | buffers that are mappings |
//! | `shape.rs` | 14 to 17, 19, 22, 24 | sizes and shifted pages, and everybody else |
//! | `ends.rs` | - | those who wait, and a file that has another end when they go on |
//!
//! # The invariants, by the numbers that the tests give
//! - I1: with nobody at work, a clean page is what the disk holds.
//! - I2: a read that begins after a write ended finds that write or a later one.
//! - I3: nobody sees versions go backwards.
//! - I4: no write that ended is lost.
//! - I5: nothing is cached behind the end of the file, and what a larger size brings into view is zeros.
//! - I6: after a collapse or insert each page holds what was moved to it.
//! - I7: no add meets a block of somebody else.
//! - I8: nobody hangs.
//!
//! # How a test fails
//! An actor that panics, or the test itself, opens all gates. If the actors of a story have not ended after a minute,
//! the watchdog prints what the locks hold, and ends the process: a thread that hangs cannot be ended alone.

mod dirty;
mod ends;
mod fills;
mod others;
mod recursion;
mod shape;

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

use super::{MOST, P, device, device_of_sectors};
use crate::buffer::DiskBuffer;
use crate::cache::{Cache, File};
use crate::device::Device;
use crate::direct::Source;
use crate::file_lock::Variant;
use crate::hooks::{Gate, Gates, Hook, Operation, Point};
use crate::mapping::Mapping;
use crate::queue::Queue;

const PAGE: usize = P as usize;
const SECTOR: usize = 512;

const LOCKED: [Variant; 2] = [Variant::Whole, Variant::Range];

/// How long a story may take. Counted in ticks, so that time during which the whole process was stopped is one tick.
const TICKS: usize = 60;
const TICK: Duration = Duration::from_secs(1);

/// What a story is played on: a cache of one variant, and its gates.
struct Stage {
    variant: Variant,
    cache: Arc<Cache>,
    gates: Arc<Gates>,
}

impl Stage {
    fn new(variant: Variant) -> Stage {
        Stage::with_read_ahead(variant, 0)
    }

    fn with_read_ahead(variant: Variant, pages: usize) -> Stage {
        let gates = Gates::new();
        let hook: Arc<dyn Hook> = gates.clone();
        Stage { variant, cache: Cache::new(variant, hook, pages), gates }
    }

    /// A file whose page `n` holds bytes of `n + 1`, on the disk and not in the cache.
    fn file(&self, pages: u8) -> Arc<File> {
        self.filled(device(0), pages)
    }

    /// The same, on a device that takes single sectors.
    fn file_of_sectors(&self, pages: u8) -> Arc<File> {
        let file = self.filled(device_of_sectors(), pages);
        assert_eq!(file.device.unit(), SECTOR);
        file
    }

    fn filled(&self, device: Arc<Device>, pages: u8) -> Arc<File> {
        let file = self.cache.open(device, MOST).expect("a file");
        let bytes: Vec<u8> = (1..=pages).flat_map(|value| [value; PAGE]).collect();
        file.write_direct(0, Source::Memory(&bytes)).expect("a working disk");
        assert_eq!(file.cached_from(0), 0);
        file
    }

    /// A gate for the first `operation` that reaches `point`.
    fn stop_at(&self, point: Point, operation: Operation) -> Arc<Gate> {
        self.gates.stop_at(point, operation)
    }

    /// A gate for one actor, at `point`.
    fn stop(&self, actor: &'static str, point: Point) -> Arc<Gate> {
        self.gates.stop(move |site| site.point == point && thread::current().name() == Some(actor))
    }

    /// A gate for the first `operation` that reaches `point` with exactly this page.
    fn stop_at_page(&self, point: Point, operation: Operation, page: usize) -> Arc<Gate> {
        let range = crate::cache::bytes_of(page);
        self.gates.stop(move |site| site.point == point && site.operation == operation && site.range == range)
    }

    /// Plays a story, and waits for all its actors. `files` are those that the watchdog would show.
    fn play<'env, R>(&'env self, files: &[&Arc<File>], story: impl for<'scope> FnOnce(&Play<'scope, 'env>) -> R) -> R {
        let files: Vec<_> = files.iter().map(|&file| file.clone()).collect();
        let (actor, actors) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || watch(&files, &actors));
            let _guard = self.gates.open_on_panic();
            story(&Play { stage: self, scope, actor })
        })
    }
}

/// Returns when the last sender is gone. Ends the process if that takes too long.
fn watch(files: &[Arc<File>], actors: &Receiver<()>) {
    for _ in 0..TICKS {
        match actors.recv_timeout(TICK) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
    // Straight to the stream: what `eprintln!` prints the test harness keeps, to show it when the test has ended.
    let mut stderr = std::io::stderr().lock();
    for file in files {
        let (number, size, retries) = (file.number(), file.size(), file.retries());
        let _ = writeln!(stderr, "file {number}, {size} bytes, {retries} retries:\n{}", file.snapshot());
    }
    let _ = writeln!(stderr, "a story does not end: see the locks above");
    std::process::exit(101);
}

/// A story under way.
struct Play<'scope, 'env: 'scope> {
    stage: &'env Stage,
    scope: &'scope Scope<'scope, 'env>,
    actor: Sender<()>,
}

impl<'scope> Play<'scope, '_> {
    /// A thread of this name begins to act.
    fn start<T: Send + 'scope>(
        &self,
        name: &str,
        act: impl FnOnce() -> T + Send + 'scope,
    ) -> ScopedJoinHandle<'scope, T> {
        let (gates, alive) = (self.stage.gates.clone(), self.actor.clone());
        let act = move || {
            let _alive = alive;
            let _guard = gates.open_on_panic();
            act()
        };
        thread::Builder::new().name(name.into()).spawn_scoped(self.scope, act).expect("a thread")
    }

    /// Waits until something is so.
    fn until(&self, so: impl Fn() -> bool) {
        while !so() {
            assert!(!self.stage.gates.is_abandoned(), "an actor failed");
            thread::yield_now();
        }
    }

    /// Waits until somebody stands at `gate`.
    fn stands(&self, gate: &Gate) {
        self.until(|| gate.is_reached());
    }

    /// The same; and nobody may have to wait for the file's lock before.
    fn stands_unhindered(&self, gate: &Gate, file: &File) {
        self.until(|| gate.is_reached() || waiters(file) > 0);
        assert!(gate.is_reached(), "{:?}: somebody waits\n{}", self.stage.variant, file.snapshot());
    }

    /// Waits until so many requests are queued, the last of which is `actor`'s.
    fn queued<T>(&self, file: &File, count: usize, actor: &ScopedJoinHandle<'_, T>) {
        self.until(|| waiters(file) == count || actor.is_finished());
        assert!(!actor.is_finished(), "{:?}: nothing held it up", self.stage.variant);
    }

    /// Waits until `actor` has to wait if there is a lock, or has ended if there is none.
    fn held_up_by_lock<T>(&self, file: &File, actor: &ScopedJoinHandle<'_, T>) {
        match self.stage.variant.is_locked() {
            true => self.queued(file, 1, actor),
            false => self.until(|| actor.is_finished()),
        }
    }

    /// Waits until `actor` has ended, for which it may need nobody.
    fn ends_unhindered<T>(&self, file: &File, actor: &ScopedJoinHandle<'_, T>) {
        self.until(|| actor.is_finished() || waiters(file) > 0);
        assert!(actor.is_finished(), "{:?}: it waits\n{}", self.stage.variant, file.snapshot());
    }
}

fn waiters(file: &File) -> usize {
    file.snapshot().waiters().len()
}

/// The one value of all bytes of a page.
fn value(page: &[u8]) -> u8 {
    assert!(page.iter().all(|&byte| byte == page[0]), "the page is torn");
    page[0]
}

/// Reads a page through the cache.
fn read(file: &File, page: usize) -> u8 {
    let mut bytes = [0; PAGE];
    assert_eq!(file.read(page as u64 * P, &mut bytes).unwrap().bytes, PAGE);
    value(&bytes)
}

/// Reads all pages through the cache.
fn read_all(file: &File) -> Vec<u8> {
    (0..file.page_count()).map(|page| read(file, page)).collect()
}

/// Touches a page through a mapping.
fn fault(file: &Arc<File>, page: usize) -> u8 {
    let mut bytes = [0; PAGE];
    mapped(file, page).read(0, &mut bytes).unwrap();
    value(&bytes)
}

/// A mapping of one page.
fn mapped(file: &Arc<File>, page: usize) -> Mapping {
    Mapping::new(file, page as u64 * P, PAGE)
}

/// What the disk holds of a page.
fn on_disk(file: &File, page: usize) -> u8 {
    let mut bytes = DiskBuffer::new(PAGE);
    file.device.read(page as u64 * P, &mut bytes).unwrap();
    value(&bytes)
}

/// What the cache holds of a page, if anything.
fn cached(file: &File, page: usize) -> Option<u8> {
    let mut bytes = [0; PAGE];
    file.cached(page, &mut bytes).then(|| value(&bytes))
}

/// Writes a page through the cache.
fn write(file: &File, page: usize, value: u8) {
    file.write(page as u64 * P, &[value; PAGE]).unwrap();
}

/// Writes a page past the cache.
fn direct(file: &Arc<File>, page: usize, value: u8) {
    file.write_direct(page as u64 * P, Source::Memory(&[value; PAGE])).unwrap();
}

/// Writes `count` pages past the cache, from a mapping.
fn direct_from(to: &Arc<File>, page: usize, from: &Arc<File>, from_page: usize, count: usize) {
    let mapping = Mapping::new(from, from_page as u64 * P, count * PAGE);
    to.write_direct(page as u64 * P, Source::Mapped(&mapping)).unwrap();
}

/// Keeps a queue of one thread busy until what it returns is dropped. What is submitted meanwhile is *in flight*: it
/// holds its range, and has not come to the disk.
fn held_by(queue: &Queue) -> Sender<()> {
    let (plug, plugged) = mpsc::channel::<()>();
    let _ = queue.submit(move || {
        let _ = plugged.recv(); // an error, when the plug is dropped
        Ok(())
    });
    plug
}

/// Of the harness itself: nobody is left standing at a gate.
#[test]
#[should_panic(expected = "an actor failed")]
fn a_story_that_fails_ends() {
    let stage = Stage::new(Variant::Range);
    let file = stage.file(1);
    let gate = stage.stop_at(Point::Read, Operation::Read);
    stage.play(&[&file], |play| {
        play.start("reader", || read(&file, 0));
        play.stands(&gate);
        play.start("failing", || direct(&file, MOST as usize, 0));
        play.until(|| false);
    });
}
