//! One range lock per key: a file, an inode, a database table, an object. A key's lock appears when the key is first
//! used, and goes with its last user.
//!
//! # Promise
//! - *One lock per key.* While anybody has a handle to a key's lock, everybody who asks for that key gets the same
//!   lock. Guards, requests and futures have a handle inside. What a user did before it gave its handle back is seen by
//!   whoever is granted anything by the key's next lock.
//! - *No leak.* An entry whose last handle is gone is taken out of the map, by the thread that gave that handle back.
//! - *No waiting inside.* Nobody waits for a range, and no guard, key or lock is dropped, under a lock of the map.
//!
//! # Shape
//! ```text
//! LockTable -> Inner --> Map -> Slot -> Entry { key, lock, users }  <- TableLock, in guards, requests and futures
//!                |        ^              |
//!                '-----> Way <-- Weak ---'
//! ```
//! The way back is weak, so that there is no circle: a guard that was leaked keeps its entry, and not the table with
//! it. Handles that outlive the table keep their lock; nobody can find it any more, and the last of them frees it.
//! There are several ways back, because every entry that comes or goes changes the counts of one: with a single one,
//! two threads that only make and free entries are slower than one of them alone.
//!
//! The map's keys are the entries themselves, hashed once: `Hash` of the key is called by [`LockTable::lock`] only,
//! before any lock of the map is taken. So neither the growth of the map nor the removal of an entry calls it.
//! (dashmap's table loses entries when a hash panics while it is rearranged; a key with a lost entry would have two
//! locks.)
//!
//! # Invariants
//! - INV-L1: `users` counts the handles. It begins at 1 and rises from 0 only under the shard's lock, where the entry
//!   is found in the map; a clone raises it from at least 1.
//! - INV-L2: an entry is taken out under the shard's write lock, with `users` read as 0 there, and never put back. So
//!   it has no handle and gets none: of two entries for one key, at most one has users.
//! - INV-L3: whoever lowers `users` to 0 then tries to take the entry out. So no entry without users stays: the one
//!   that was last to lower it reads, under the lock, its own 0 (nothing came later), and succeeds unless the entry is
//!   out already. One that was not last finds users who came since, and leaves the entry to them; or the entry is out,
//!   and perhaps another one there, which is not the one it looks for.
//! - INV-L4: `Eq` of the key is the only foreign code under a lock of the map, and runs for keys of equal (64-bit)
//!   hash. A removal finds its entry by address. If `Eq` panics, the shard's lock is released, and the map is as it
//!   was: in `lock` nothing has happened; in a removal (two keys of equal hash) the entry stays in the map without
//!   users until its key is used again.
//!
//! # Orderings
//! | pair | writer | reader | carries |
//! |---|---|---|---|
//! | L1 | `TableLock::drop`: `fetch_sub`, Release | `TableLock::take_out`: load, Acquire | what users did, to whoever takes the entry out |
//!
//! From there the shard's lock carries it to whoever makes the key's next entry. Raising `users` is Relaxed: it carries
//! nothing, and as a read-modify-write it keeps L1 whole for those who lowered it before. The load cannot read a 0 that
//! is out of date: what raises `users` from 0 has held the shard's lock before, and is seen.
//!
//! # Cost
//! A key in use: its hash, the shard's read lock, one atomic addition; giving back is one subtraction. A key that is
//! not: besides that one allocation, and the shard's write lock twice, once to put the entry in and once to take it
//! out. The map keeps 9 bytes for each place that it ever needed at the same time (see [`LockTable::trim`]), whatever
//! the number of keys that came and went.

use crate::facts::error::AcquireError;
use crate::facts::mode::Mode;
use crate::facts::owner_kind::{ByTask, ByThread};
use crate::facts::range::ByteRange;
use crate::facts::snapshot::Snapshot;
use crate::platform::processors;
use crate::platform::sync::{AtomicU64, Ordering};
use crate::surface::any::AnyLock;
use crate::surface::guard::Guard;
use crate::surface::lock::{RangeLock, granted};
use crate::surface::request::{LockRef, Request, sealed};
use dashmap::{DashMap, Entry as Place};
use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::ops::{Deref, RangeBounds};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// A range lock for each key: for each file, inode, database table or object. Nothing has to be set up for a key, and
/// nothing torn down: its [`RangeLock`] is there from first use on, and goes when nobody uses it any more.
///
/// Each call takes a handle to the key's lock, a [`TableLock`], which the request, the future or the guard keeps; the
/// last one to go takes the lock out of the table. Guards borrow nothing, neither the table nor the key. Cloning a
/// `LockTable` gives the same table.
///
/// Keys never wait for one another. Otherwise all is as for a [`RangeLock`]: first come, first served for each key, and
/// a thread or an [`Owner`](crate::Owner) that holds a range of one key may ask for another key's; a deadlock is
/// answered. Several keys at once: a [`Batch`](crate::Batch) of [`TableLock`]s.
///
/// **Locking behaviour:** finding a key's lock, and giving the last handle back, take the lock of one of the table's
/// shards, and hold it for one lookup; a new key in a shard that is full moves the shard's entries (8 bytes each) to a
/// larger place meanwhile. Nobody holds it while waiting, while a waker is called, or while a guard, a key or a lock is
/// dropped. So the table can be used from everywhere, wakers and destructors included; but not from within the key's
/// own `Eq`, which may then wait for itself.
///
/// # Cost
/// A key that nobody uses costs nothing. First use of a key allocates 768 bytes (for keys of up to 104), and last use
/// frees them: together about ten times what an uncontended request does. Whoever comes back often keeps a
/// [`TableLock`], in its open file for example. A table without entries is about 9 KiB and something for each
/// processor.
///
/// # Panics
/// If the key's `Hash` or `Eq` panics, so does the call, and nothing has happened. As in any map the two must agree:
/// otherwise a key may have several locks.
///
/// # Examples
/// ```
/// use spanlock::{LockTable, Mode};
///
/// let inodes: LockTable<u64> = LockTable::new();
///
/// let fault = inodes.add(17, 0..4096);
/// let truncate = inodes.exclusive(18, 4096..); // another file
/// std::thread::scope(|s| {
///     s.spawn(|| assert!(inodes.try_block(17, 0..1).is_none())); // another thread
/// });
/// assert_eq!(inodes.len(), 2);
/// drop((fault, truncate));
/// assert!(inodes.is_empty());
/// ```
pub struct LockTable<K>(Arc<Inner<K>>);

type Map<K> = DashMap<Slot<K>, (), BuildHasherDefault<Hashed>>;

/// Ways back to the map. A table has them from the beginning: 256 bytes each.
const WAYS: usize = 32;

struct Inner<K> {
    map: Arc<Map<K>>,
    ways: [Arc<Way<K>>; WAYS],
    hasher: RandomState,
    /// [`RangeLock::new`], if nothing is said.
    maker: Option<Maker<K>>,
}

/// Makes the lock of a key.
type Maker<K> = Box<dyn Fn(&K) -> RangeLock + Send + Sync>;

/// A way back from an entry to its map, which ends with the table. Aligned, so that its `Arc`'s counts share no cache
/// line.
#[repr(align(128))]
struct Way<K>(Arc<Map<K>>);

/// A handle to the lock of one key: what [`LockTable::lock`] returns. It dereferences to the [`RangeLock`], and the
/// key's lock stays in its table for as long as there is a handle.
///
/// Cloning it is another handle to the same lock.
///
/// **Locking behaviour:** dropping the last one takes the lock of one of the table's shards, for one lookup.
///
/// # Examples
/// An open file keeps its handle, so that nobody has to look for the lock again:
/// ```
/// use spanlock::{LockTable, TableLock};
///
/// struct File {
///     lock: TableLock<u64>,
/// }
///
/// let inodes = LockTable::new();
/// let file = File { lock: inodes.lock(17) };
/// let guard = file.lock.block(0..4096); // borrows `file`
/// # drop(guard);
/// let guard = inodes.block(17, 0..4096); // the same lock, and borrows nothing
/// # drop(guard);
/// ```
pub struct TableLock<K: Eq>(Arc<Entry<K>>);

/// A guard from a blocking call on a [`LockTable`], owned by its thread. It borrows nothing, and stays on that thread:
/// ```compile_fail,E0277
/// let guard: spanlock::TableGuard<u64> = spanlock::LockTable::new().add(17, ..);
/// std::thread::spawn(move || drop(guard));
/// ```
pub type TableGuard<K> = Guard<TableLock<K>, ByThread>;

/// A guard from `.await` on a [`LockTable`], with an owner of its own. It borrows nothing, and can be sent to another
/// thread.
pub type SendTableGuard<K> = Guard<TableLock<K>, ByTask>;

struct Entry<K> {
    lock: RangeLock,
    key: Key<K>,
    /// How many [`TableLock`]s there are (INV-L1). It cannot overflow: each of them counts in the `Arc` too, which
    /// aborts first.
    users: AtomicU64,
    way: Weak<Way<K>>,
}

/// A key with its hash, which is drawn once.
struct Key<K> {
    hash: u64,
    key: K,
}

impl<K> Hash for Key<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl<K: Eq> PartialEq for Key<K> {
    fn eq(&self, other: &Key<K>) -> bool {
        // The address first: an entry that is taken out finds itself without foreign code (INV-L4).
        std::ptr::eq(self, other) || self.hash == other.hash && self.key == other.key
    }
}

impl<K: Eq> Eq for Key<K> {}

/// The hasher of the map: the hash is there already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a `Key` is one u64");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A key that somebody looks up by: of another type perhaps, that the keys can be borrowed as.
trait Looked<Q: ?Sized> {
    fn hash(&self) -> u64;
    fn key(&self) -> &Q;
}

/// Such a key with its hash.
struct By<'q, Q: ?Sized> {
    hash: u64,
    key: &'q Q,
}

impl<Q: ?Sized> Looked<Q> for By<'_, Q> {
    fn hash(&self) -> u64 {
        self.hash
    }

    fn key(&self) -> &Q {
        self.key
    }
}

impl<K: Borrow<Q>, Q: ?Sized> Looked<Q> for Slot<K> {
    fn hash(&self) -> u64 {
        self.0.key.hash
    }

    fn key(&self) -> &Q {
        self.0.key.key.borrow()
    }
}

impl<'q, K: Borrow<Q> + 'q, Q: ?Sized + 'q> Borrow<dyn Looked<Q> + 'q> for Slot<K> {
    fn borrow(&self) -> &(dyn Looked<Q> + 'q) {
        self
    }
}

impl<Q: ?Sized> Hash for dyn Looked<Q> + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(Looked::hash(self));
    }
}

impl<Q: Eq + ?Sized> PartialEq for dyn Looked<Q> + '_ {
    fn eq(&self, other: &Self) -> bool {
        Looked::hash(self) == Looked::hash(other) && self.key() == other.key()
    }
}

impl<Q: Eq + ?Sized> Eq for dyn Looked<Q> + '_ {}

/// An entry in the map. Not a handle: it does not count as a user.
struct Slot<K>(Arc<Entry<K>>);

impl<K> Borrow<Key<K>> for Slot<K> {
    fn borrow(&self) -> &Key<K> {
        &self.0.key
    }
}

impl<K> Hash for Slot<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

impl<K: Eq> PartialEq for Slot<K> {
    fn eq(&self, other: &Slot<K>) -> bool {
        self.0.key == other.0.key
    }
}

impl<K: Eq> Eq for Slot<K> {}

impl<K: Eq> Slot<K> {
    /// A new handle. Called under the shard's lock: the entry may have no user at this moment.
    fn handle(&self) -> TableLock<K> {
        // Relaxed: carries nothing (see the header); whoever takes entries out has the shard's lock before or after us.
        self.0.users.fetch_add(1, Ordering::Relaxed);
        TableLock(Arc::clone(&self.0))
    }
}

impl<K: Eq + Hash> LockTable<K> {
    /// A table without entries. The first one, of any key type, asks the system for the number of processors, and may
    /// open files to do so.
    pub fn new() -> LockTable<K> {
        LockTable::made_by(None)
    }

    fn made_by(maker: Option<Maker<K>>) -> LockTable<K> {
        let map = Arc::new(Map::with_hasher_and_shard_amount(BuildHasherDefault::default(), processors::shards()));
        let ways = std::array::from_fn(|_| Arc::new(Way(Arc::clone(&map))));
        LockTable(Arc::new(Inner { map, ways, hasher: RandomState::new(), maker }))
    }

    /// A table whose locks are what `make` makes of a key, at the key's first use: with a name, a window or both. (If
    /// several threads use a key for the first time at once, `make` is called by each, and one of the locks is taken.)
    ///
    /// # Panics
    /// If `make` panics, so does the call that used the key, and the table is as before.
    ///
    /// # Examples
    /// ```
    /// use spanlock::{LockTable, RangeLock};
    /// use std::time::Duration;
    ///
    /// let inodes = LockTable::with_locks(|number: &u64| {
    ///     let mut lock = RangeLock::new().reordering(Duration::from_millis(1));
    ///     lock.set_name(format!("inode {number}"));
    ///     lock
    /// });
    /// assert_eq!(inodes.lock(17).name(), Some("inode 17"));
    /// ```
    pub fn with_locks(make: impl Fn(&K) -> RangeLock + Send + Sync + 'static) -> LockTable<K> {
        LockTable::made_by(Some(Box::new(make)))
    }

    /// A table without entries, in whose locks newcomers may go before those who have waited for less than `window`:
    /// see [`RangeLock::reordering`].
    ///
    /// ```
    /// use spanlock::LockTable;
    /// use std::time::Duration;
    ///
    /// let rows: LockTable<&str> = LockTable::reordering(Duration::from_millis(1));
    /// assert_eq!(rows.lock("accounts").window(), Some(Duration::from_millis(1)));
    /// ```
    pub fn reordering(window: Duration) -> LockTable<K> {
        LockTable::with_locks(move |_| RangeLock::new().reordering(window))
    }

    /// A table whose locks have names, for snapshots and for the messages about deadlocks: what `namer` makes of a key,
    /// at the key's first use. That allocates once more.
    ///
    /// # Examples
    /// ```
    /// use spanlock::LockTable;
    ///
    /// let inodes = LockTable::with_names(|number: &u64| format!("inode {number}"));
    /// assert_eq!(inodes.lock(17).name(), Some("inode 17"));
    /// ```
    pub fn with_names(namer: impl Fn(&K) -> String + Send + Sync + 'static) -> LockTable<K> {
        LockTable::with_locks(move |key| {
            let mut lock = RangeLock::new();
            lock.set_name(namer(key));
            lock
        })
    }

    /// The lock of `key`, made if there is none.
    ///
    /// **Locking behaviour:** takes a shard's lock for one lookup, and once more if there is no entry.
    ///
    /// # Panics
    /// If the key's `Hash` or `Eq` does. Nothing has happened then.
    ///
    /// # Examples
    /// ```
    /// use spanlock::LockTable;
    ///
    /// let objects: LockTable<&str> = LockTable::new();
    /// let left = objects.lock("left");
    /// assert_eq!((*left.key(), objects.len()), ("left", 1));
    /// {
    ///     let _both = (left.add(0..10), objects.add("left", 0..10));
    /// }
    /// drop(left);
    /// assert_eq!(objects.len(), 0);
    /// ```
    pub fn lock(&self, key: K) -> TableLock<K> {
        let key = Key { hash: self.0.hasher.hash_one(&key), key };
        // The shard is locked within this statement only.
        let found = self.0.map.get(&key).map(|entry| entry.key().handle());
        found.unwrap_or_else(|| self.make(key))
    }

    #[cold]
    fn make(&self, key: Key<K>) -> TableLock<K> {
        let way = Arc::downgrade(&self.0.ways[key.hash as usize % WAYS]);
        let lock = self.0.maker.as_ref().map_or_else(RangeLock::new, |make| make(&key.key));
        let new = Arc::new(Entry { lock, key, users: AtomicU64::new(1), way });
        match self.0.map.entry(Slot(Arc::clone(&new))) {
            Place::Vacant(place) => {
                // What `insert` returns has the shard's lock.
                drop(place.insert(()));
                TableLock(new)
            }
            // Somebody else was faster. `new` goes at the end of this function, when the shard is free.
            Place::Occupied(place) => place.key().handle(),
        }
    }

    /// The lock of `key`, if it has an entry: if it is held, waited for, requested, or has a [`TableLock`]. The key may
    /// be of a type that the table's can be borrowed as (`&str` for `String`), with the same `Hash` and `Eq`. Makes no
    /// entry.
    ///
    /// **Locking behaviour:** takes a shard's lock for one lookup.
    ///
    /// # Panics
    /// If the key's `Hash` or `Eq` does.
    ///
    /// # Examples
    /// ```
    /// use spanlock::LockTable;
    ///
    /// let objects: LockTable<String> = LockTable::new();
    /// assert!(objects.get("left").is_none());
    /// let left = objects.lock("left".to_string());
    /// assert_eq!(objects.get("left").unwrap().key(), left.key());
    /// ```
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<TableLock<K>>
    where
        K: Borrow<Q>,
    {
        let by = By { hash: self.0.hasher.hash_one(key), key };
        self.0.map.get(&by as &dyn Looked<Q>).map(|entry| entry.key().handle())
    }

    /// Whether `key` has an entry: as [`LockTable::get`]. It may be past by the time that one looks.
    pub fn contains<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        let by = By { hash: self.0.hasher.hash_one(key), key };
        self.0.map.contains_key(&by as &dyn Looked<Q>)
    }

    /// A handle to the lock of each key that has an entry, in no order. Keys that come or go meanwhile may be there or
    /// not.
    ///
    /// **Locking behaviour:** takes each shard's lock in turn, to count its entries up; none is held when this returns.
    ///
    /// # Examples
    /// ```
    /// use spanlock::{LockTable, Mode};
    ///
    /// let inodes: LockTable<u64> = LockTable::new();
    /// let _guards = (inodes.add(17, ..), inodes.block(18, 0..10));
    /// let mut held: Vec<u64> = inodes.locks().iter().map(|lock| *lock.key()).collect();
    /// held.sort();
    /// assert_eq!(held, [17, 18]);
    /// ```
    pub fn locks(&self) -> Vec<TableLock<K>> {
        self.0.map.iter().map(|entry| entry.key().handle()).collect()
    }

    /// What everybody holds and waits for, key by key: a [`Snapshot`] of each lock that is in use, in no order. Each is
    /// of its own moment.
    ///
    /// **Locking behaviour:** as [`LockTable::locks`].
    pub fn snapshots(&self) -> Vec<(TableLock<K>, Snapshot)> {
        let locks = self.locks().into_iter().map(|lock| (lock.snapshot(), lock));
        locks.filter(|(snapshot, _)| !snapshot.requests().is_empty()).map(|(snapshot, lock)| (lock, snapshot)).collect()
    }

    /// Asks for `range` (bytes) of `key` in `mode`: to be waited for, tried, given a deadline or awaited. From now on
    /// the key has an entry; its lock is not touched before that.
    ///
    /// # Panics
    /// If the range is inverted, as slicing does; and as [`LockTable::lock`].
    ///
    /// # Cancel safety
    /// Dropping the request, or the future, leaves the queue, wakes whoever waited for it, and gives the handle back.
    ///
    /// # Examples
    /// ```
    /// use spanlock::{LockTable, Mode, SendTableGuard};
    /// use std::{thread, time::Duration};
    ///
    /// async fn write(inodes: LockTable<u64>) {
    ///     let write: SendTableGuard<u64> = inodes.request(17, 0..4096, Mode::Block).await;
    ///     assert!(inodes.request(17, .., Mode::Add).timeout(Duration::from_millis(1)).wait().is_err());
    ///     thread::spawn(move || drop(write)); // completes elsewhere
    /// }
    /// # pollster::block_on(write(LockTable::new()));
    /// ```
    #[track_caller]
    pub fn request(&self, key: K, range: impl RangeBounds<u64>, mode: Mode) -> Request<TableLock<K>> {
        // The range first: if it is no range, no entry is made.
        let range = ByteRange::new(range);
        Request::new(self.lock(key), range, mode)
    }

    /// Waits until `range` (bytes) of `key` is granted in [`Mode::Add`].
    ///
    /// # Panics
    /// As [`LockTable::request`].
    #[track_caller]
    pub fn add(&self, key: K, range: impl RangeBounds<u64>) -> TableGuard<K> {
        granted(self.request(key, range, Mode::Add).wait())
    }

    /// Waits until `range` (bytes) of `key` is granted in [`Mode::Block`].
    ///
    /// # Panics
    /// As [`LockTable::request`].
    #[track_caller]
    pub fn block(&self, key: K, range: impl RangeBounds<u64>) -> TableGuard<K> {
        granted(self.request(key, range, Mode::Block).wait())
    }

    /// Waits until `range` (bytes) of `key` is granted in [`Mode::Exclusive`].
    ///
    /// # Panics
    /// As [`LockTable::request`].
    #[track_caller]
    pub fn exclusive(&self, key: K, range: impl RangeBounds<u64>) -> TableGuard<K> {
        granted(self.request(key, range, Mode::Exclusive).wait())
    }

    /// `range` (bytes) of `key` in [`Mode::Add`], or `None` if a conflicting request of that key holds, waits or is
    /// just arriving.
    ///
    /// # Panics
    /// As [`LockTable::request`].
    #[track_caller]
    #[must_use = "if it is granted, the range is released at once"]
    pub fn try_add(&self, key: K, range: impl RangeBounds<u64>) -> Option<TableGuard<K>> {
        self.request(key, range, Mode::Add).try_now()
    }

    /// `range` (bytes) of `key` in [`Mode::Block`], or `None` as for [`LockTable::try_add`].
    ///
    /// # Panics
    /// As [`LockTable::request`].
    #[track_caller]
    #[must_use = "if it is granted, the range is released at once"]
    pub fn try_block(&self, key: K, range: impl RangeBounds<u64>) -> Option<TableGuard<K>> {
        self.request(key, range, Mode::Block).try_now()
    }

    /// `range` (bytes) of `key` in [`Mode::Exclusive`], or `None` as for [`LockTable::try_add`].
    ///
    /// # Panics
    /// As [`LockTable::request`].
    #[track_caller]
    #[must_use = "if it is granted, the range is released at once"]
    pub fn try_exclusive(&self, key: K, range: impl RangeBounds<u64>) -> Option<TableGuard<K>> {
        self.request(key, range, Mode::Exclusive).try_now()
    }

    /// As [`RangeLock::try_add_for`], of `key`.
    ///
    /// # Errors
    /// As for that.
    ///
    /// # Panics
    /// As [`LockTable::request`].
    ///
    /// # Examples
    /// ```
    /// use spanlock::LockTable;
    /// use std::time::Duration;
    ///
    /// let inodes: LockTable<u64> = LockTable::new();
    /// match inodes.try_add_for(17, 0..4096, Duration::from_millis(10)) {
    ///     Ok(_read) => {} // others of this key may add meanwhile
    ///     Err(refused) => println!("{refused}"),
    /// }
    /// ```
    #[track_caller]
    pub fn try_add_for(
        &self,
        key: K,
        range: impl RangeBounds<u64>,
        timeout: Duration,
    ) -> Result<TableGuard<K>, AcquireError> {
        self.request(key, range, Mode::Add).timeout(timeout).wait()
    }

    /// As [`RangeLock::try_add_until`], of `key`.
    ///
    /// # Errors
    /// As for that.
    ///
    /// # Panics
    /// As [`LockTable::request`].
    #[track_caller]
    pub fn try_add_until(
        &self,
        key: K,
        range: impl RangeBounds<u64>,
        deadline: Instant,
    ) -> Result<TableGuard<K>, AcquireError> {
        self.request(key, range, Mode::Add).deadline(deadline).wait()
    }

    /// As [`RangeLock::try_block_for`], of `key`.
    ///
    /// # Errors
    /// As for that.
    ///
    /// # Panics
    /// As [`LockTable::request`].
    #[track_caller]
    pub fn try_block_for(
        &self,
        key: K,
        range: impl RangeBounds<u64>,
        timeout: Duration,
    ) -> Result<TableGuard<K>, AcquireError> {
        self.request(key, range, Mode::Block).timeout(timeout).wait()
    }

    /// As [`RangeLock::try_block_until`], of `key`.
    ///
    /// # Errors
    /// As for that.
    ///
    /// # Panics
    /// As [`LockTable::request`].
    #[track_caller]
    pub fn try_block_until(
        &self,
        key: K,
        range: impl RangeBounds<u64>,
        deadline: Instant,
    ) -> Result<TableGuard<K>, AcquireError> {
        self.request(key, range, Mode::Block).deadline(deadline).wait()
    }

    /// As [`RangeLock::try_exclusive_for`], of `key`.
    ///
    /// # Errors
    /// As for that.
    ///
    /// # Panics
    /// As [`LockTable::request`].
    #[track_caller]
    pub fn try_exclusive_for(
        &self,
        key: K,
        range: impl RangeBounds<u64>,
        timeout: Duration,
    ) -> Result<TableGuard<K>, AcquireError> {
        self.request(key, range, Mode::Exclusive).timeout(timeout).wait()
    }

    /// As [`RangeLock::try_exclusive_until`], of `key`.
    ///
    /// # Errors
    /// As for that.
    ///
    /// # Panics
    /// As [`LockTable::request`].
    #[track_caller]
    pub fn try_exclusive_until(
        &self,
        key: K,
        range: impl RangeBounds<u64>,
        deadline: Instant,
    ) -> Result<TableGuard<K>, AcquireError> {
        self.request(key, range, Mode::Exclusive).deadline(deadline).wait()
    }

    /// Whether a new owner that asked for `range` (bytes) of `key` in `mode` at this moment would have to wait: see
    /// [`RangeLock::is_locked`]. The key may be of a type that the table's can be borrowed as. Makes no entry: of a key
    /// that has none, nothing is locked.
    ///
    /// # Panics
    /// As [`LockTable::request`].
    ///
    /// # Examples
    /// ```
    /// use spanlock::{LockTable, Mode};
    ///
    /// let objects: LockTable<String> = LockTable::new();
    /// let _read = objects.add("left".to_string(), 0..4096);
    /// assert!(objects.is_locked("left", .., Mode::Exclusive) && !objects.is_locked("right", .., Mode::Exclusive));
    /// assert_eq!(objects.len(), 1);
    /// ```
    #[track_caller]
    pub fn is_locked<Q: Hash + Eq + ?Sized>(&self, key: &Q, range: impl RangeBounds<u64>, mode: Mode) -> bool
    where
        K: Borrow<Q>,
    {
        let range = ByteRange::new(range);
        self.get(key).is_some_and(|lock| lock.is_locked(range, mode))
    }

    /// How many keys have an entry: those that are held, waited for, requested, or have a [`TableLock`].
    ///
    /// **Locking behaviour:** takes each shard's lock in turn, to read one number; what it adds up is not of one
    /// moment.
    pub fn len(&self) -> usize {
        self.0.map.len()
    }

    /// Whether no key has an entry.
    ///
    /// **Locking behaviour:** as [`LockTable::len`].
    pub fn is_empty(&self) -> bool {
        self.0.map.is_empty()
    }

    /// Gives back what the table keeps for a crowd of keys that has gone: 9 bytes for each that had an entry at the
    /// same time, or twice that. The entries themselves never stay.
    ///
    /// **Locking behaviour:** takes each shard's lock in turn, and moves the shard's entries (8 bytes each) to a
    /// smaller place.
    pub fn trim(&self) {
        self.0.map.shrink_to_fit();
    }
}

impl<K: Eq> TableLock<K> {
    /// Whose lock it is.
    pub fn key(&self) -> &K {
        &self.0.key.key
    }

    /// As [`RangeLock::request`], for a guard that has this handle and borrows nothing.
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    ///
    /// # Examples
    /// ```
    /// use spanlock::{AcquireError, LockTable, Mode, TableGuard};
    ///
    /// fn read(inodes: LockTable<u64>) -> Result<TableGuard<u64>, AcquireError> {
    ///     let file = inodes.lock(17);
    ///     file.into_request(0..4096, Mode::Add).wait() // borrows neither
    /// }
    /// # assert_eq!(read(LockTable::new()).unwrap().range().len(), 4096);
    /// ```
    #[track_caller]
    pub fn into_request(self, range: impl RangeBounds<u64>, mode: Mode) -> Request<TableLock<K>> {
        Request::new(self, ByteRange::new(range), mode)
    }

    /// Takes the entry out of the map, if it still has no users.
    #[cold]
    fn take_out(&self) {
        // No table any more, no map to take it out of.
        let Some(way) = self.0.way.upgrade() else { return };
        // ORDERING (L1): Acquire, with the Release of all who gave a handle back. Without it the maker of the key's
        // next entry, who comes after us by the shard's lock, would not have seen what they did under this one.
        let unused = |entry: &Slot<K>| Arc::ptr_eq(&entry.0, &self.0) && entry.0.users.load(Ordering::Acquire) == 0;
        let taken = way.0.remove_if(&self.0.key, |entry, ()| unused(entry));
        // The shard is free again. `self` has the entry still, so not even now does its lock go, nor its key.
        drop(taken);
    }
}

impl<K: Eq> Clone for TableLock<K> {
    fn clone(&self) -> TableLock<K> {
        // Relaxed: carries nothing; it is above 0 and cannot fall to it, since `self` counts.
        self.0.users.fetch_add(1, Ordering::Relaxed);
        TableLock(Arc::clone(&self.0))
    }
}

/// The key's lock goes with its last handle.
impl<K: Eq> Drop for TableLock<K> {
    fn drop(&mut self) {
        // ORDERING (L1): Release, to whoever takes the entry out.
        if self.0.users.fetch_sub(1, Ordering::Release) == 1 {
            self.take_out();
        }
    }
}

impl<K: Eq> Deref for TableLock<K> {
    type Target = RangeLock;

    fn deref(&self) -> &RangeLock {
        &self.0.lock
    }
}

impl<K: Eq> LockRef for TableLock<K> {
    type Owner = ByThread;
}

/// The lock lies in its `Arc`, and stays where it is.
impl<K: Eq> sealed::Sealed for TableLock<K> {
    const KEEPS: bool = true;
}

/// For a batch of several kinds of locks.
impl<'l, K: Eq + Send + Sync + 'l> From<TableLock<K>> for AnyLock<'l> {
    fn from(lock: TableLock<K>) -> AnyLock<'l> {
        AnyLock::boxed(lock)
    }
}

impl<K> Clone for LockTable<K> {
    fn clone(&self) -> LockTable<K> {
        LockTable(Arc::clone(&self.0))
    }
}

impl<K: Eq + Hash> Default for LockTable<K> {
    fn default() -> LockTable<K> {
        LockTable::new()
    }
}

// What is in the map is changed by whole steps, and foreign code that panics comes before them (INV-L4).
impl<K: RefUnwindSafe> UnwindSafe for LockTable<K> {}
impl<K: RefUnwindSafe> RefUnwindSafe for LockTable<K> {}
impl<K: Eq + RefUnwindSafe> UnwindSafe for TableLock<K> {}
impl<K: Eq + RefUnwindSafe> RefUnwindSafe for TableLock<K> {}

/// Says how many keys have an entry.
impl<K: Eq + Hash> fmt::Debug for LockTable<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockTable").field("entries", &self.len()).finish_non_exhaustive()
    }
}

impl<K: Eq + fmt::Debug> fmt::Debug for TableLock<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableLock").field("key", self.key()).field("lock", &self.0.lock).finish()
    }
}
