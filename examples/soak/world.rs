//! What everybody works on: locks of different temper, some with a window, a table, and the word of who failed.

use crate::shadow::Shadow;
use crate::stuck::Stuck;
use fastrand::Rng;
use spanlock::{ByteRange, LockTable, Mode, RangeLock};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Keys of the table, each with a file of one cell.
pub(crate) const KEYS: u64 = 64;

/// A lock and who is inside.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) name: &'static str,
    pub(crate) lock: Arc<RangeLock>,
    pub(crate) shadow: Shadow,
}

impl Place {
    fn new(name: &'static str, cells: usize, scale: u32) -> Place {
        Place::passing(name, cells, scale, Duration::ZERO)
    }

    /// Where newcomers may pass who has not waited for the window. That changes the order, and nothing that is looked
    /// for.
    fn passing(name: &'static str, cells: usize, scale: u32, window: Duration) -> Place {
        let mut lock = RangeLock::new().reordering(window);
        lock.set_name(name);
        Place { name, lock: Arc::new(lock), shadow: Shadow::new(cells, scale) }
    }

    /// Some bytes: mostly few, sometimes many, now and then everything.
    pub(crate) fn range(&self, random: &mut Rng) -> ByteRange {
        let cells = self.shadow.cells();
        let most = match random.u32(..200) {
            0 => return self.shadow.bytes(0, cells - 1),
            1..20 => cells,
            20..80 => 8.min(cells),
            _ => 1,
        };
        let first = random.u64(..cells);
        self.shadow.bytes(first, (first + random.u64(..most)).min(cells - 1))
    }
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) places: [Place; 6],
    pub(crate) stuck: Stuck,
    pub(crate) table: LockTable<u64>,
    pub(crate) table_shadow: Shadow,
    /// That a round is over.
    pub(crate) over: AtomicBool,
    /// What each actor has done, for the watchdog.
    pub(crate) steps: Vec<AtomicU64>,
    failure: Mutex<Option<String>>,
}

impl World {
    pub(crate) fn new(actors: usize) -> World {
        World {
            places: [
                // Everybody meets.
                Place::new("hot", 8, 0),
                // Pages of a file.
                Place::new("pages", 4096, 12),
                // All of u64, each cell a 64th of it.
                Place::new("wide", 64, 58),
                // Few meet.
                Place::new("large", 1 << 16, 20),
                // Everybody meets, and now and then somebody has waited for the window.
                Place::passing("hot, passing", 8, 0, Duration::from_micros(200)),
                Place::passing("wide, passing", 64, 58, Duration::from_millis(2)),
            ],
            stuck: Stuck::new(Place::new("stuck", 8, 2)),
            table: LockTable::new(),
            table_shadow: Shadow::new(KEYS as usize, 0),
            over: AtomicBool::new(false),
            steps: (0..actors).map(|_| AtomicU64::new(0)).collect(),
            failure: Mutex::new(None),
        }
    }

    pub(crate) fn place(&self, random: &mut Rng) -> &Place {
        &self.places[random.usize(..self.places.len())]
    }

    /// Whether an actor should stop: the round is over, or somebody failed.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Something is wrong with the lock. The first one to say so is heard, and everybody stops.
    pub(crate) fn fail(&self, what: String) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
        self.over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a holder does: comes in, stays a little, goes out.
    pub(crate) fn visit(&self, shadow: &Shadow, range: ByteRange, mode: Mode, random: &mut Rng) {
        self.enter(shadow, range, mode);
        stay(random);
        shadow.leave(range, mode);
    }

    pub(crate) fn enter(&self, shadow: &Shadow, range: ByteRange, mode: Mode) {
        if let Err(what) = shadow.enter(range, mode) {
            self.fail(what);
        }
    }

    /// Everybody has let go of everything: what must be true then.
    ///
    /// # Errors
    /// What is not.
    pub(crate) fn check_calm(&self) -> Result<(), String> {
        for place in self.places.iter().chain([&self.stuck.place]) {
            if place.lock.try_exclusive(..).is_none() {
                return Err(format!("everybody has left, and {} is held:\n{}", place.name, place.lock.snapshot()));
            }
            place.lock.trim();
            let nodes = place.lock.heap_nodes();
            if nodes != 0 {
                return Err(format!("everybody has left {}, and {nodes} nodes remain after trim()", place.name));
            }
            if !place.shadow.is_empty() {
                return Err(format!("everybody has left {}, and somebody is inside", place.name));
            }
        }
        if !self.stuck.is_empty() {
            return Err("everybody has left, and somebody is inside, or stuck, where some were".to_owned());
        }
        self.table.trim();
        if !self.table.is_empty() {
            return Err(format!("everybody has left, and the table has {} entries", self.table.len()));
        }
        if !self.table_shadow.is_empty() {
            return Err("everybody has left the table, and somebody is inside".to_owned());
        }
        Ok(())
    }
}

/// A critical section: mostly nothing, sometimes some work, now and then a turn for somebody else.
pub(crate) fn stay(random: &mut Rng) {
    match random.u32(..32) {
        0 => std::thread::yield_now(),
        1..6 => (0..random.u32(..500)).for_each(|_| std::hint::spin_loop()),
        _ => {}
    }
}

/// One of the three, exclusive less often.
pub(crate) fn mode(random: &mut Rng) -> Mode {
    [Mode::Add, Mode::Add, Mode::Block, Mode::Block, Mode::Exclusive][random.usize(..5)]
}
