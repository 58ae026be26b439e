//! Promise: a lock table has one range lock for each key. It appears with the key's first user and goes with its last,
//! and nothing is left behind however many keys come and go; keys never wait for one another, and no lock of the map is
//! held while somebody waits, while a waker is called or while a key is dropped.
//!
//! `SPANLOCK_KEYS` sets how many keys come and go (10^7), `SPANLOCK_STRESS_MS` how long the stress test goes on.

mod common;

use common::alloc::{Counting, allocations, bytes};
use common::forget;
use common::poll::{Hand, block_on};
use common::watch::Watchdog;
use fastrand::Rng;
use parking_lot::Mutex;
use spanlock::{
    Acquire, AcquireError, Batch, LockTable, Mode, Owner, RangeLock, Request, SendTableGuard, TableGuard, TableLock,
};
use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::future::IntoFuture;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes are counted for the whole process: tests run one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// So many keys meet every shard of the map, on any machine.
const EVERY_SHARD: u64 = 10_000;

const fn send<T: Send>() {}
const fn sync<T: Sync>() {}
const fn unpin<T: Unpin>() {}
const fn debug<T: Debug>() {}
const fn lives_by_itself<T: 'static>() {}
const fn survives_unwinding<T: UnwindSafe + RefUnwindSafe>() {}

const _: () = {
    send::<LockTable<String>>();
    sync::<LockTable<String>>();
    send::<TableLock<String>>();
    sync::<TableLock<String>>();
    send::<Request<TableLock<String>>>();
    send::<Acquire<TableLock<String>>>();
    send::<SendTableGuard<String>>();
    sync::<SendTableGuard<String>>();
    sync::<TableGuard<String>>();
    unpin::<Acquire<TableLock<String>>>();
    lives_by_itself::<TableGuard<String>>();
    lives_by_itself::<SendTableGuard<String>>();
    survives_unwinding::<LockTable<String>>();
    survives_unwinding::<TableLock<String>>();
    debug::<LockTable<String>>();
    debug::<TableLock<String>>();
    debug::<TableGuard<String>>();
    debug::<Request<TableLock<String>>>();
};

/// Runs `f` on a thread of its own. What does not end is a failure, not a hang: the thread is left behind.
#[track_caller]
fn ends<T: Send + 'static>(what: &str, f: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    thread::spawn(move || done.send(f()));
    match wait.recv_timeout(Duration::from_secs(30)) {
        Ok(output) => output,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what}: did not end"),
        Err(mpsc::RecvTimeoutError::Disconnected) => panic!("{what}: panicked"),
    }
}

/// Uses keys of every shard, other than those below `from`.
fn use_every_shard(table: &LockTable<u64>, from: u64) {
    for key in from..from + EVERY_SHARD {
        drop(table.exclusive(key, ..));
    }
}

/// Waits until `condition` holds, for half a minute.
#[track_caller]
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{what}");
        thread::yield_now();
    }
}

#[test]
fn an_entry_is_there_exactly_while_somebody_uses_it() {
    let _alone = ALONE.lock();
    let table: LockTable<u64> = LockTable::new();
    let gone = |after: &str| assert_eq!((table.len(), table.is_empty()), (0, true), "after {after}");
    let there = |during: &str| assert_eq!((table.len(), table.is_empty()), (1, false), "during {during}");

    let guard = table.add(7, 0..10);
    there("a guard");
    drop(guard);
    gone("a guard");

    let handle = table.lock(7);
    let again = handle.clone();
    drop(handle);
    there("a second handle");
    let guard = again.block(0..10);
    drop(guard);
    there("a guard that borrows a handle");
    let guard = again.into_request(0..10, Mode::Block).wait().unwrap();
    there("a guard that has the handle");
    drop(guard);
    gone("handles");

    let request = table.request(7, .., Mode::Exclusive);
    there("a request that was not made");
    drop(request.clone());
    there("the first of two requests");
    drop(request);
    gone("a request that was not made");
    drop(table.request(7, .., Mode::Exclusive).into_future());
    gone("a future that was not polled");
    drop(table.request(7, 5..5, Mode::Exclusive).wait().unwrap());
    gone("an empty range");
    assert!(
        table.try_add(7, 0..10).is_some() && table.try_block(7, ..).is_some() && table.try_exclusive(7, ..).is_some()
    );
    gone("tries");
    drop(block_on(table.request(7, 0..10, Mode::Add)));
    gone("an awaited guard");

    let inverted = std::hint::black_box(10)..5;
    assert!(catch_unwind(|| table.add(7, inverted)).is_err());
    gone("a range that is none");
    let unwound = catch_unwind(|| {
        let _guards = (table.add(7, ..), table.exclusive(7, 0..10));
        panic!("with guards");
    });
    assert!(unwound.is_err());
    gone("unwinding");

    // The same against somebody who holds it, on another thread's behalf.
    let held = block_on(table.request(7, 0..10, Mode::Block));
    assert!(table.try_add(7, 9..20).is_none());
    assert!(table.request(7, .., Mode::Exclusive).deadline(Instant::now()).wait().is_err());
    assert!(table.request(7, .., Mode::Exclusive).timeout(Duration::from_millis(2)).wait().is_err());
    there("a guard that others wanted in vain");
    let mut given_up = Hand::new(table.request(7, 0..1, Mode::Add));
    given_up.pending();
    drop(held);
    there("a future that may be granted");
    drop(given_up);
    gone("a future that was dropped");

    let held = block_on(table.request(7, 0..10, Mode::Block));
    let mut waits = Hand::new(table.request(7, 0..1, Mode::Add));
    waits.pending();
    drop(held);
    assert!(waits.woken());
    let guard = waits.ready();
    there("the guard of one who waited");
    thread::spawn(move || drop(guard)).join().expect("a drop");
    gone("a guard that was dropped elsewhere");
}

#[test]
fn a_key_has_one_lock() {
    let _alone = ALONE.lock();
    let table: LockTable<String> = LockTable::default();
    let same_table = table.clone();
    let one = table.lock("one".to_owned());
    assert!(std::ptr::eq::<RangeLock>(&*one, &*same_table.lock("one".to_owned())));
    assert!(!std::ptr::eq::<RangeLock>(&*one, &*table.lock("two".to_owned())));
    assert_eq!((one.key().as_str(), table.len()), ("one", 1));

    // Conflicts, and the order, are those of a range lock.
    let first = block_on(same_table.request("one".to_owned(), 0..10, Mode::Exclusive));
    let mut second = Hand::new(table.request("one".to_owned(), 5..20, Mode::Add));
    second.pending();
    let mut third = Hand::new(one.request(15..30, Mode::Block));
    third.pending();
    assert!(table.try_add("one".to_owned(), 30..).is_some() && table.try_add("one".to_owned(), 25..26).is_none());
    drop(first);
    assert!(second.woken() && !third.woken());
    drop(second.ready());
    assert!(third.woken());
    drop(third.ready());
    drop(third);
    // A thread's own requests do not conflict, through whatever handle they came.
    let nested = (table.exclusive("one".to_owned(), ..), one.exclusive(5..), same_table.add("one".to_owned(), 5..6));
    drop(nested);
    drop(one);
    assert!(table.is_empty());
    assert!(format!("{table:?} {:?}", table.lock("one".to_owned())).contains("\"one\""));
}

#[test]
fn keys_never_wait_for_one_another() {
    let _alone = ALONE.lock();
    let table: LockTable<u64> = LockTable::new();
    // Each with an owner of its own, each everything.
    let guards: Vec<_> = (0..1000).map(|key| Hand::new(table.request(key, .., Mode::Exclusive)).ready()).collect();
    assert_eq!(table.len(), 1000);
    for key in 0..1000 {
        assert!(table.try_add(key, 17..18).is_none() && table.try_exclusive(1000 + key, ..).is_some());
    }
    drop(guards);
    assert!(table.is_empty());
}

/// A thread, a timed thread and a future wait, for keys of one shard or another; all other keys can be used.
/// As the lock of the key itself answers; and what was refused leaves no entry behind.
#[test]
fn tries_with_an_end_are_those_of_the_key() {
    let _alone = ALONE.lock();
    let table: LockTable<String> = LockTable::new();
    let (key, other) = (|| "held".to_string(), || "free".to_string());
    let (short, past) = (Duration::from_millis(1), Instant::now());
    for held in Mode::ALL {
        let holder = table.request(key(), 0..10, held).owner(&Owner::new()).wait().unwrap();
        for asked in Mode::ALL {
            let ask = |key: fn() -> String| match asked {
                Mode::Add => [table.try_add_for(key(), 5..6, short), table.try_add_until(key(), 5..6, past)],
                Mode::Block => [table.try_block_for(key(), 5..6, short), table.try_block_until(key(), 5..6, past)],
                Mode::Exclusive => {
                    [table.try_exclusive_for(key(), 5..6, short), table.try_exclusive_until(key(), 5..6, past)]
                }
            };
            for answer in ask(key) {
                match answer {
                    Ok(guard) => {
                        assert!(
                            held.goes_with(asked) && guard.mode() == asked && std::ptr::eq(guard.lock(), holder.lock())
                        );
                    }
                    Err(AcquireError::TimedOut(_)) => assert!(!held.goes_with(asked)),
                    Err(other) => panic!("{other}"),
                }
            }
            assert!(ask(other).into_iter().all(|answer| answer.is_ok_and(|guard| guard.mode() == asked)));
            assert_eq!(table.is_locked("held", 9.., asked), !held.goes_with(asked), "{held} {asked}");
            assert!(!table.is_locked("held", 10.., asked) && !table.is_locked("free", .., asked));
            assert_eq!(table.len(), 1, "whoever asks leaves nothing behind, and who looks makes nothing");
        }
        drop(holder);
        assert!(table.is_empty());
    }
    let inverted =
        catch_unwind(AssertUnwindSafe(|| table.is_locked("free", std::ops::Range { start: 5, end: 4 }, Mode::Add)));
    assert!(inverted.is_err(), "also where there is no entry");
}

#[test]
fn no_lock_of_the_map_is_held_while_waiting() {
    let _alone = ALONE.lock();
    let table: LockTable<u64> = LockTable::new();
    let waited_for = 32;
    let held: Vec<_> = (0..waited_for).map(|key| block_on(table.request(key, .., Mode::Block))).collect();
    let begun = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..waited_for)
        .map(|key| {
            let (table, begun) = (table.clone(), begun.clone());
            thread::spawn(move || {
                begun.fetch_add(1, Ordering::Relaxed);
                match key % 3 {
                    0 => drop(table.exclusive(key, 0..10)),
                    1 => drop(table.request(key, 0..10, Mode::Add).timeout(Duration::from_secs(1000)).wait()),
                    _ => drop(block_on(table.request(key, 0..10, Mode::Add))),
                }
            })
        })
        .collect();
    until("the threads begin", || begun.load(Ordering::Relaxed) == waited_for as usize);
    // Behind every guard stands a waiter: counts as a request that waits.
    let waiting = table.clone();
    until("the threads wait", move || {
        (0..waited_for).all(|key| format!("{:?}", waiting.lock(key)).contains("waiting: 1"))
    });
    let others = table.clone();
    ends("keys of every shard while others wait", move || {
        use_every_shard(&others, waited_for);
        assert_eq!(others.len(), waited_for as usize);
        // The keys that are waited for, too.
        for key in 0..waited_for {
            assert!(others.try_add(key, 100..).is_none() && others.try_block(key, 100..).is_some());
        }
    });
    ends("release while the table is used", move || drop(held));
    threads.into_iter().for_each(|thread| thread.join().expect("it only waits"));
    assert!(table.is_empty());
}

struct UsesTable(LockTable<u64>);

impl Wake for UsesTable {
    fn wake(self: Arc<Self>) {
        use_every_shard(&self.0, 1);
    }
}

#[test]
fn a_waker_can_use_the_table() {
    let _alone = ALONE.lock();
    let table: LockTable<u64> = LockTable::new();
    let waked = table.clone();
    ends("a waker that uses every shard", move || {
        let held = block_on(waked.request(0, .., Mode::Exclusive));
        let mut waits = waked.request(0, .., Mode::Add).into_future();
        let waker = Waker::from(Arc::new(UsesTable(waked.clone())));
        assert!(std::pin::Pin::new(&mut waits).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(held);
        // And with nobody left to keep the entry but the one who is woken.
        drop(waits);
    });
    assert!(table.is_empty());
}

/// A key whose destructor uses its table, wherever that may be called.
struct Dropped(u64, Option<LockTable<Dropped>>);

impl Hash for Dropped {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl PartialEq for Dropped {
    fn eq(&self, other: &Dropped) -> bool {
        self.0 == other.0
    }
}

impl Eq for Dropped {}

impl Drop for Dropped {
    fn drop(&mut self) {
        let Some(table) = self.1.take() else { return };
        for key in 0..EVERY_SHARD {
            drop(table.lock(Dropped(key, None)));
        }
    }
}

#[test]
fn keys_are_dropped_with_no_lock_of_the_map_held() {
    let _alone = ALONE.lock();
    let left = ends("keys that use every shard when they are dropped", || {
        let table = LockTable::new();
        let key = |key| Dropped(key, Some(table.clone()));
        let guard = table.add(key(1), ..);
        // Found, so that the key that it was asked with goes at once.
        drop(table.add(key(1), 0..10));
        drop(table.lock(key(2)));
        drop(guard);
        // Two that make the same entry: the slower one's key goes.
        for round in 0..20 {
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| drop(table.add(key(100 + round), 0..10)));
                }
            });
        }
        table.len()
    });
    assert_eq!(left, 0);
}

/// What a key does wrong, when it is told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Hash,
    Eq,
}

/// A key with few different hashes, that counts them and can panic.
struct Rude<'t> {
    key: u64,
    hashed: &'t AtomicUsize,
    fault: &'t Mutex<Fault>,
}

impl Hash for Rude<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        assert!(*self.fault.lock() != Fault::Hash, "a hash that panics");
        self.hashed.fetch_add(1, Ordering::Relaxed);
        (self.key / 4).hash(state);
    }
}

impl PartialEq for Rude<'_> {
    fn eq(&self, other: &Self) -> bool {
        assert!(*self.fault.lock() != Fault::Eq, "a comparison that panics");
        self.key == other.key
    }
}

impl Eq for Rude<'_> {}

#[test]
fn a_key_that_panics_changes_nothing() {
    let _alone = ALONE.lock();
    let (hashed, fault) = (AtomicUsize::new(0), Mutex::new(Fault::None));
    let table = LockTable::new();
    let rude = |key| Rude { key, hashed: &hashed, fault: &fault };
    let panics = |f: &dyn Fn()| catch_unwind(AssertUnwindSafe(f)).is_err();
    let held: Vec<_> = (0..8).map(|key| table.exclusive(rude(key), 0..10)).collect();

    *fault.lock() = Fault::Hash;
    assert!(panics(&|| drop(table.lock(rude(2)))) && panics(&|| drop(table.lock(rude(1000)))));
    // Even the release of what is held goes on without it, and so does the growth of the map (below).
    drop(held);
    *fault.lock() = Fault::None;
    assert!(table.is_empty());

    let held: Vec<_> = (0..8).map(|key| block_on(table.request(rude(key), 0..10, Mode::Exclusive))).collect();
    *fault.lock() = Fault::Eq;
    // 7 and those before it have the same hash.
    assert!(panics(&|| drop(table.lock(rude(7)))));
    *fault.lock() = Fault::None;
    // The shard is free, and everyone still in it.
    assert_eq!(table.len(), 8);
    assert!((0..8).all(|key| table.try_add(rude(key), 5..6).is_none()));

    // Taking out an entry may compare it with another key of its hash. Then it remains, without users, until it is used
    // again.
    *fault.lock() = Fault::Eq;
    let panicked = held.into_iter().rev().map(|guard| catch_unwind(AssertUnwindSafe(|| drop(guard))).is_err());
    let panicked = panicked.filter(|panicked| *panicked).count();
    *fault.lock() = Fault::None;
    assert_eq!(table.len(), panicked);
    assert!(panicked > 0, "keys of one hash, and no comparison");
    assert!((0..8).all(|key| table.try_exclusive(rude(key), ..).is_some()));
    assert!(table.is_empty(), "the next use took them out");
}

/// The map moves its entries when it grows and when it is trimmed. It does so without calling the key's `Hash`.
#[test]
fn a_key_is_hashed_once_for_each_call() {
    let _alone = ALONE.lock();
    let (hashed, fault) = (AtomicUsize::new(0), Mutex::new(Fault::None));
    let table = LockTable::new();
    let rude = |key| Rude { key, hashed: &hashed, fault: &fault };
    let handles: Vec<_> = (0..EVERY_SHARD).map(|key| table.lock(rude(key))).collect();
    assert_eq!(hashed.load(Ordering::Relaxed) as u64, EVERY_SHARD);
    assert_eq!(table.len() as u64, EVERY_SHARD);
    *fault.lock() = Fault::Hash;
    drop(handles);
    table.trim();
    assert!(table.is_empty());
}

/// Who is inside, and plain memory that only the lock protects.
#[derive(Default)]
struct Cell {
    inside: AtomicU32,
    entered: UnsafeCell<u64>,
}

struct Cells(Vec<Cell>);

// SAFETY: the plain memory is reached in `visit` only, with the range locked exclusively that the cell stands for.
unsafe impl Sync for Cells {}

impl Cells {
    fn new(count: u64) -> Cells {
        Cells((0..count).map(|_| Cell::default()).collect())
    }

    /// What a holder of the cell does. Relaxed: only the lock may order it.
    fn visit(&self, cell: u64, pause: u32) {
        let cell = &self.0[cell as usize];
        assert_eq!(cell.inside.fetch_add(1, Ordering::Relaxed), 0, "two are inside");
        // SAFETY: nobody else is inside, if the lock keeps its promise; that is what is tested.
        unsafe { *cell.entered.get() += 1 };
        (0..pause).for_each(|_| std::hint::spin_loop());
        cell.inside.fetch_sub(1, Ordering::Relaxed);
    }

    fn entered(self) -> u64 {
        self.0.into_iter().map(|cell| cell.entered.into_inner()).sum()
    }
}

/// Threads take and release few keys in every way, so that entries appear and go all the time. A key has two cells, so
/// that there are users of one entry who do not conflict. One lock per key: nobody meets anybody inside, and what one
/// wrote the next one sees, though there may be a new lock by then.
#[test]
fn exclusion_outlasts_entries_that_come_and_go() {
    const KEYS: u64 = 3;
    let _alone = ALONE.lock();
    let watchdog = Watchdog::new("exclusion_outlasts_entries_that_come_and_go");
    let table: LockTable<u64> = LockTable::new();
    let cells = Cells::new(2 * KEYS);
    let end = Instant::now() + common::stress_time();
    let round = |rng: &mut Rng| -> u64 {
        let (key, half) = (rng.u64(0..KEYS), rng.u64(0..2));
        let range = 10 * half..10 * half + 10;
        let visit = |rng: &mut Rng| {
            cells.visit(2 * key + half, rng.u32(0..50));
            1
        };
        match rng.u8(0..8) {
            0 => {
                let _guard = table.exclusive(key, range);
                visit(rng)
            }
            1 => {
                let handle = table.lock(key);
                let _guard = handle.exclusive(range);
                visit(rng)
            }
            2 => {
                let _guard = block_on(table.request(key, range, Mode::Exclusive));
                visit(rng)
            }
            3 => table.try_exclusive(key, range).map_or(0, |_guard| visit(rng)),
            4 => {
                let timed = table.request(key, range, Mode::Exclusive).timeout(Duration::from_micros(rng.u64(0..100)));
                timed.wait().map_or(0, |_guard| visit(rng))
            }
            5 => {
                let mut hand = Hand::new(table.request(key, range, Mode::Exclusive));
                match hand.poll() {
                    std::task::Poll::Ready(_guard) => visit(rng),
                    std::task::Poll::Pending => 0,
                }
            }
            6 => {
                // A handle that goes before the guard of its clone.
                let handle = table.lock(key);
                let guard = handle.clone().into_request(range, Mode::Exclusive).wait().unwrap();
                drop(handle);
                let visits = visit(rng);
                drop(guard);
                visits
            }
            _ => {
                drop(table.lock(key));
                0
            }
        }
    };
    let visits: u64 = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|seed| {
                let (watchdog, round) = (&watchdog, &round);
                scope.spawn(move || {
                    let mut rng = Rng::with_seed(seed);
                    let mut visits = 0;
                    while Instant::now() < end {
                        visits += (0..100).map(|_| round(&mut rng)).sum::<u64>();
                        watchdog.step();
                    }
                    visits
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("exclusion")).sum()
    });
    assert_eq!(cells.entered(), visits, "visits were lost: two were inside");
    assert!(table.is_empty(), "{table:?} is left");
}

/// A turn that passes from thread to thread without ordering anything.
#[derive(Default)]
struct Turn(AtomicU32);

impl Turn {
    fn wait(&self, turn: u32) {
        until("turns are passed on", || self.0.load(Ordering::Relaxed) == turn);
    }

    fn pass(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The order between a user and the maker of the key's next entry, when a third one took the old entry out. On most
/// machines only ThreadSanitizer can see that it is missing.
#[test]
fn what_a_user_did_is_seen_under_the_keys_next_lock() {
    let _alone = ALONE.lock();
    for round in 0..20 {
        let table: LockTable<u64> = LockTable::new();
        let (cells, turn) = (Cells::new(1), Turn::default());
        thread::scope(|scope| {
            scope.spawn(|| {
                let guard = table.exclusive(round, 0..10);
                turn.pass();
                turn.wait(2);
                cells.visit(0, 0);
                drop(guard);
                turn.pass();
            });
            scope.spawn(|| {
                turn.wait(1);
                let guard = table.exclusive(round, 20..30);
                turn.pass();
                turn.wait(3);
                drop(guard); // the last
                turn.pass();
            });
            scope.spawn(|| {
                turn.wait(4);
                let _guard = table.exclusive(round, 0..10);
                cells.visit(0, 0);
            });
        });
        assert_eq!(cells.entered(), 2);
        assert!(table.is_empty());
    }
}

/// 10^7 keys come and go, a few hundred at a time; memory is that of a few hundred.
#[test]
fn memory_is_bounded_however_many_keys_come_and_go() {
    let _alone = ALONE.lock();
    const THREADS: u64 = 4;
    const AT_ONCE: usize = 100;
    let keys = common::from_env("SPANLOCK_KEYS", common::by_build(200_000, 10_000_000));
    let table: LockTable<u64> = LockTable::new();
    let before = bytes();
    // 768 bytes each, a list that holds them, and what the map and the threads need: never as much as one in a hundred
    // leaked.
    let most = 1_000_000 + (768 + 200) * AT_ONCE as isize * THREADS as isize;
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let table = &table;
            scope.spawn(move || {
                let mut rng = Rng::with_seed(thread);
                let mut held = VecDeque::new();
                for number in 0..keys / THREADS {
                    let key = number * THREADS + thread;
                    match rng.u8(0..4) {
                        0 => drop(table.exclusive(key, ..)),
                        1 => assert!(table.try_add(key, 0..10).is_some()),
                        2 => drop(table.lock(key)),
                        _ => held.push_back(table.block(key, 5..10)),
                    }
                    if held.len() > AT_ONCE {
                        held.pop_front();
                    }
                    if number % 1000 == 0 {
                        let grown = bytes() - before;
                        assert!(grown < most, "{grown} bytes more after {number} keys of each thread");
                        // Its sum is not of one moment: keys that move meanwhile may count twice.
                        assert!(table.len() <= 2 * AT_ONCE * THREADS as usize, "{table:?}");
                    }
                }
            });
        }
    });
    assert!(table.is_empty(), "{table:?} is left");
    let left = bytes() - before;
    assert!(left < 200_000, "{left} bytes are left of {keys} keys");
    drop(table);
    let left = bytes() - before;
    assert!(left < 100_000, "{left} bytes are left of a table that is gone");
}

/// One allocation for a key that nobody uses, none for one in use; and a crowd's places are given back by `trim`.
#[test]
fn keys_cost_what_is_promised() {
    let _alone = ALONE.lock();
    let table: LockTable<u64> = LockTable::new();
    use_every_shard(&table, 0); // every shard has a place now
    let before = bytes();
    let (count, handle) = allocations(|| table.lock(1));
    assert_eq!(count, 1);
    assert!(bytes() - before <= 768, "{} bytes", bytes() - before);
    let (count, ()) = allocations(|| {
        for mode in Mode::ALL {
            drop(table.request(1, 0..10, mode).wait().unwrap());
            assert!(table.request(1, 0..10, mode).try_now().is_some());
        }
        drop((handle.clone(), table.lock(1), table.clone()));
    });
    assert_eq!(count, 0);
    drop(handle);
    assert_eq!(bytes(), before);

    let empty = bytes();
    let crowd: Vec<_> = (0..100_000).map(|key| table.lock(key)).collect();
    drop(crowd);
    let places = bytes() - empty;
    assert!((100_000 * size_of::<usize>() as isize..3_000_000).contains(&places), "{places} bytes for 100,000 places");
    let stays = table.lock(7);
    table.trim();
    assert!(bytes() - empty < 2000, "{} bytes are left of a crowd", bytes() - empty);
    assert!(std::ptr::eq::<RangeLock>(&*stays, &*table.lock(7)));
}

/// How many bytes a round leaves allocated. Over many rounds, after some that warm up: threads and the epoch keep a
/// little.
fn leaves(round: impl Fn()) -> isize {
    const ROUNDS: isize = 50;
    (0..ROUNDS).for_each(|_| round());
    let before = bytes();
    (0..ROUNDS).for_each(|_| round());
    (bytes() - before) / ROUNDS
}

#[test]
fn a_leaked_guard_keeps_only_its_entry() {
    let _alone = ALONE.lock();
    let left = leaves(|| {
        let table: LockTable<u64> = LockTable::new();
        forget(block_on(table.request(7, 0..10, Mode::Exclusive)));
        drop((8..1000).map(|key| table.add(key, ..)).collect::<Vec<_>>());
        assert_eq!(table.len(), 1);
        // For good; but nothing else is.
        assert!(table.try_add(7, 9..10).is_none() && table.try_add(7, 10..).is_some());
        assert_eq!(table.len(), 1);
    });
    // The entry, and the way back that its `Weak` keeps allocated, and what `forget` keeps of the guard; not the
    // table's 9 KiB, nor the places of the crowd.
    assert!((600..=768 + 256 + 150).contains(&left), "a table with a leaked guard leaves {left} bytes");
}

#[test]
fn handles_outlive_their_table() {
    let _alone = ALONE.lock();
    let left = leaves(|| {
        let table: LockTable<u64> = LockTable::new();
        let handle = table.lock(7);
        let guard = block_on(table.request(7, 0..10, Mode::Exclusive));
        let mut waits = Hand::new(table.request(7, 0..10, Mode::Exclusive));
        waits.pending();
        drop(table);
        assert!(handle.try_add(5..6).is_none() && handle.clone().try_add(10..).is_some());
        drop(guard);
        assert!(waits.woken());
        drop(waits.ready());
    });
    assert!(left < 50, "each round leaves {left} bytes");
}

/// A table that goes while its last handles do, on other threads.
#[test]
fn a_table_and_its_handles_go_at_the_same_time() {
    let _alone = ALONE.lock();
    let left = leaves(|| {
        let table: LockTable<u64> = LockTable::new();
        let go = AtomicBool::new(false);
        let handles: Vec<_> = (0..2).map(|_| (0..20).map(|key| table.lock(key)).collect::<Vec<_>>()).collect();
        thread::scope(|scope| {
            for handles in handles {
                let go = &go;
                scope.spawn(move || {
                    until("all begin", || go.load(Ordering::Relaxed));
                    drop(handles);
                });
            }
            go.store(true, Ordering::Relaxed);
            drop(table);
        });
    });
    assert!(left < 200, "each round leaves {left} bytes");
}

#[test]
fn batches_and_owners_work_through_a_table() {
    let _alone = ALONE.lock();
    let table: LockTable<u32> = LockTable::new();
    let (one, two) = (Owner::new(), Owner::new());
    // A rename: two directories at once, kept alive by the guards alone.
    let rename =
        Batch::new().exclusive(table.lock(1), 0..10).exclusive(table.lock(2), 0..10).owner(&one).wait().unwrap();
    assert_eq!(table.len(), 2);
    assert!(
        table.request(2, 5..6, Mode::Add).owner(&one).try_now().is_some(),
        "an owner does not conflict with itself"
    );
    let mut queued = Hand::new(Batch::new().add(table.lock(2), ..).add(table.lock(3), ..).owner(&two));
    queued.pending();
    assert_eq!(table.len(), 3, "a waiting batch uses its keys");
    drop(rename);
    let held = queued.ready().unwrap();
    assert_eq!(table.len(), 2);
    // A cycle between keys is found like any other.
    let first = table.request(1, .., Mode::Exclusive).owner(&one).try_now().unwrap();
    let mut crossed = Hand::new(table.request(2, .., Mode::Exclusive).owner(&one));
    crossed.pending();
    let refused = table.request(1, 0..1, Mode::Add).owner(&two).wait();
    assert!(matches!(refused, Err(AcquireError::Deadlock(_))), "{refused:?}");
    drop((held, refused));
    drop((crossed.ready().unwrap(), first));
    assert!(table.is_empty());
}
