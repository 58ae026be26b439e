//! Where the races are: the points at which an operation can be held up.
//!
//! # Promise
//! The cache calls [`Hook::reached`] at each [`Point`], with the same locks held under every variant as it would hold
//! there anyway. The demonstration sets [`Pauses`]; a test sets [`Gates`], and decides itself who goes first: an
//! operation that a [`Gate`] waits for stops there until the gate is opened. No test needs to sleep.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use spanlock::ByteRange;

/// How long a gate waits for anybody before it takes the test for hung.
const PATIENCE: Duration = Duration::from_secs(120);

/// A point inside of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A page was written back if it was dirty, and has not left the cache yet.
    WrittenBack,
    /// The pages have left the cache; the disk is as it was.
    Invalidated,
    /// The page was read from the disk, and is not in the cache yet.
    Read,
    /// A direct operation has the pages of its buffer ("get user pages"); the disk was not touched yet.
    GotBuffer,
    /// A direct write is on the disk. It still holds its range, and the file's size is as it was.
    Written,
    /// The bytes of a dirty page were taken, and the page counts as clean; the disk does not have them yet.
    Taken,
    /// Somebody else has the page lock: whoever is here is going to wait for it.
    PageBusy,
    /// The file on the disk is about to get another size.
    Resizing,
}

/// What an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A cached read.
    Read,
    /// What a miss reads ahead.
    ReadAhead,
    /// A buffered write, or an append.
    Write,
    /// A page fault that reads.
    Fault,
    /// A page fault that makes a page writable.
    MakeWritable,
    /// A direct read.
    DirectRead,
    /// A direct write.
    DirectWrite,
    /// A truncate.
    Truncate,
    /// A hole.
    Punch,
    /// Zeros.
    Zero,
    /// Pages that are taken out of the file.
    Collapse,
    /// Pages that are put into the file.
    Insert,
    /// Eviction.
    Evict,
    /// Write-back in the background.
    Flush,
    /// `fsync`.
    Sync,
}

/// Who is there.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// Where in the operation.
    pub point: Point,
    /// Which operation.
    pub operation: Operation,
    /// The number of the file: [`crate::cache::File::number`].
    pub file: u32,
    /// The bytes concerned, in whole pages.
    pub range: ByteRange,
}

/// A fault in the cache, for whoever tests the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Plant {
    /// A truncate forgets that the page that stays in part is cached.
    TailKept,
    /// A hole is made on the disk, and forgotten in the cache.
    PunchKeepsPages,
}

/// Is told of each point that is reached, on the thread that reaches it, and can take its time.
pub trait Hook: Send + Sync {
    /// An operation is at `site`. It goes on when this returns.
    fn reached(&self, site: &Site);

    /// Whether the cache shall have this fault.
    fn plants(&self, _: Plant) -> bool {
        false
    }
}

/// Gives the cache one fault.
#[derive(Debug)]
pub struct Planted(pub Plant);

impl Hook for Planted {
    fn reached(&self, _: &Site) {}

    fn plants(&self, plant: Plant) -> bool {
        self.0 == plant
    }
}

/// Does nothing.
#[derive(Debug)]
pub struct NoHook;

impl Hook for NoHook {
    fn reached(&self, _: &Site) {}
}

/// Lingers at each point, so that a short run on two processors shows what a long one on many would. It yields: the
/// others are to use the time.
#[derive(Debug)]
pub struct Pauses(pub Duration);

impl Hook for Pauses {
    fn reached(&self, _: &Site) {
        if self.0.is_zero() {
            return;
        }
        let since = Instant::now();
        while since.elapsed() < self.0 {
            thread::yield_now();
        }
    }
}

/// Any number of gates, which can be put up while the cache is in use.
#[derive(Debug, Default)]
pub struct Gates {
    gates: Mutex<Vec<Arc<Gate>>>,
    abandoned: AtomicBool,
}

/// Abandons its gates if it is dropped by a panic. It belongs *inside* of a scope of threads: the scope waits for them
/// before the panic comes out of it.
#[derive(Debug)]
#[must_use = "it does its work when it is dropped"]
pub struct OpenOnPanic<'a>(&'a Gates);

impl Drop for OpenOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.abandon();
        }
    }
}

impl Gates {
    /// None yet.
    pub fn new() -> Arc<Gates> {
        Arc::default()
    }

    /// Stops the first operation for which `who` is true. (`who` runs on that operation's thread, and may ask
    /// for its name.)
    pub fn stop(&self, who: impl Fn(&Site) -> bool + Send + Sync + 'static) -> Arc<Gate> {
        let mut gates = self.gates.lock();
        // Under the list's lock, so that no gate is put up behind the back of `abandon`.
        let state = if self.is_abandoned() { State::Open } else { State::Waiting };
        let gate = Arc::new(Gate { who: Box::new(who), state: Mutex::new(state), changed: Condvar::new() });
        gates.push(gate.clone());
        gate
    }

    /// Stops the first `operation` that reaches `point`.
    pub fn stop_at(&self, point: Point, operation: Operation) -> Arc<Gate> {
        self.stop(move |site| site.point == point && site.operation == operation)
    }

    /// For a test that failed: opens every gate, and those to come, so that nobody is left standing.
    pub fn abandon(&self) {
        let gates = self.gates.lock();
        // Relaxed: the list's lock orders it for `stop`; whoever polls it only wants to end.
        self.abandoned.store(true, Ordering::Relaxed);
        for gate in &*gates {
            gate.open();
        }
    }

    /// Whether a test has failed.
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// For each thread of a test, and for the one that tells them when to go on.
    pub fn open_on_panic(&self) -> OpenOnPanic<'_> {
        OpenOnPanic(self)
    }
}

impl Hook for Gates {
    fn reached(&self, site: &Site) {
        let gate = self.gates.lock().iter().find(|gate| gate.catches(site)).cloned();
        if let Some(gate) = gate {
            gate.hold();
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody came yet.
    Waiting,
    /// Somebody stands there.
    Holding,
    /// Nobody is stopped any more.
    Open,
}

/// Stops one operation, once, until it is opened.
pub struct Gate {
    who: Box<dyn Fn(&Site) -> bool + Send + Sync>,
    state: Mutex<State>,
    changed: Condvar,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("state", &*self.state.lock()).finish_non_exhaustive()
    }
}

impl Gate {
    /// Waits until an operation stands there.
    ///
    /// # Panics
    /// If none comes for two minutes.
    pub fn wait_until_reached(&self) {
        let mut state = self.state.lock();
        while *state == State::Waiting {
            assert!(!self.changed.wait_for(&mut state, PATIENCE).timed_out(), "nobody came to the gate");
        }
    }

    /// Whether an operation stands there.
    pub fn is_reached(&self) -> bool {
        *self.state.lock() == State::Holding
    }

    /// Lets it go on. From now on the gate stops nobody.
    pub fn open(&self) {
        *self.state.lock() = State::Open;
        self.changed.notify_all();
    }

    /// Whether this gate is for that one; it is for nobody else from then on.
    fn catches(&self, site: &Site) -> bool {
        let mut state = self.state.lock();
        let caught = *state == State::Waiting && (self.who)(site);
        if caught {
            *state = State::Holding;
            self.changed.notify_all();
        }
        caught
    }

    fn hold(&self) {
        let mut state = self.state.lock();
        while *state == State::Holding {
            assert!(!self.changed.wait_for(&mut state, PATIENCE).timed_out(), "nobody opened the gate");
        }
    }
}
