//! What goes wrong around a lock, and what must not go wrong with it.
//!
//! | fault | where |
//! |---|---|
//! | guards and futures that are leaked | `cancel.rs`; of a table: `surface/table.rs`; of a nested request: `owners.rs` |
//! | guards dropped on other threads, in a thread that is ending, while unwinding | `cancel.rs`, `wakers.rs`, `guards.rs` |
//! | wakers that panic, release, poll or drop futures of the lock | `wakers.rs` |
//! | deadlines in the past, or without end; that race with a release | `cancel.rs` |
//! | the last handle goes while a request is refused | `freed.rs` |
//! | threads that end while others wait for them, owners whose handles are gone | here |
//! | an allocation at the worst moment | here |
//! | a million cancels, ten thousand waiters | here |
//!
//! An allocation that *fails* ends the process, as everywhere in Rust: the library promises nothing then.

#![cfg(not(any(loom, miri)))]

mod common;

use common::alloc::{Counting, bytes};
use common::forget;
use common::poll::Hand;
use common::watch::Watchdog;
use parking_lot::Mutex;
use spanlock::{AcquireError, ArcRangeGuard, Batch, Mode, Owner, RangeLock};
use std::alloc::{GlobalAlloc, Layout};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

/// Counts, and calls [`at_allocation`] on threads that want it.
struct Interrupting(Counting);

thread_local! {
    static INTERRUPTED: Cell<Option<&'static RangeLock>> = const { Cell::new(None) };
    static INTERRUPTIONS: Cell<u64> = const { Cell::new(0) };
    /// Whether this thread releases one of its `STOCK` whenever it allocates or frees.
    static RELEASES: Cell<bool> = const { Cell::new(false) };
    static STOCK: RefCell<Vec<ArcRangeGuard>> = const { RefCell::new(Vec::new()) };
}

/// Releases a range that somebody waits for, in the middle of whatever this thread is doing. What that allocates and
/// frees is not interrupted again.
fn at_any_memory() {
    if RELEASES.replace(false) {
        drop(STOCK.with_borrow_mut(Vec::pop));
        RELEASES.set(true);
    }
}

// SAFETY: every call goes to `Counting`, which goes to the system; what is done before that allocates by itself, but no
// second time.
unsafe impl GlobalAlloc for Interrupting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(lock) = INTERRUPTED.take() {
            at_allocation(lock);
            INTERRUPTED.set(Some(lock));
        }
        at_any_memory();
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { self.0.dealloc(memory, layout) }
        at_any_memory();
    }
}

#[global_allocator]
static ALLOCATOR: Interrupting = Interrupting(Counting);

/// One at a time: they count all bytes of the process.
static ALONE: Mutex<()> = Mutex::new(());

/// Somebody else's turn, in the middle of an acquire: takes and releases ranges of the same lock, which grow the tree
/// as well.
fn at_allocation(lock: &'static RangeLock) {
    let count = INTERRUPTIONS.get();
    INTERRUPTIONS.set(count + 1);
    thread::yield_now();
    let start = BESIDE + count % 512 * 64;
    drop(lock.try_exclusive(start..start + 32).expect("nobody else is there"));
    let stranger = lock.request(HELD..=HELD, Mode::Add).owner(&Owner::new()).try_now();
    assert!(stranger.is_none(), "what is held is given away during an allocation");
}

/// Where the interruptions work, and what the interrupted thread holds all the time.
const BESIDE: u64 = 1 << 40;
const HELD: u64 = 7;

#[test]
fn an_allocation_in_the_middle_of_an_acquire_can_use_the_lock() {
    let _alone = ALONE.lock();
    static LOCK: RangeLock = RangeLock::new();
    let held = LOCK.exclusive(HELD..=HELD);
    INTERRUPTED.set(Some(&LOCK));
    // Nodes, chains and events are made meanwhile.
    let crowd: Vec<_> = (0..2000_u64)
        .map(|index| LOCK.request(1000 + index % 700 * 4..1004 + index % 700 * 4, Mode::Add).wait())
        .collect();
    let mut waiter = Hand::new(LOCK.request(0..2000, Mode::Block));
    waiter.pending();
    INTERRUPTED.set(None);
    assert!(INTERRUPTIONS.get() > 100, "{} allocations are few", INTERRUPTIONS.get());
    assert!(crowd.iter().all(Result::is_ok));
    drop((crowd, held));
    assert!(waiter.woken());
    drop(waiter.ready());
    LOCK.trim();
    assert_eq!(LOCK.heap_nodes(), 0);
}

/// Waiting, giving up, releasing and waking: whatever of that allocates or frees meets a release, which wakes somebody
/// too.
#[test]
fn an_allocation_in_the_middle_of_a_wait_or_a_release_can_release() {
    const EACH: u64 = 400;
    let _alone = ALONE.lock();
    let watch = Watchdog::new("an_allocation_in_the_middle_of_a_wait_or_a_release_can_release");
    let lock = Arc::new(RangeLock::new());
    let mut interrupted = 0;
    for start in (0..EACH).map(|round| round * 64) {
        watch.step();
        // Behind each of a few holders two wait, in one node with those that the test is about.
        let stock: Vec<_> =
            (1..4).map(|at| lock.request_arc(start + at..=start + at, Mode::Exclusive).wait()).collect();
        let mut behind: Vec<_> =
            (2..8).map(|at| Hand::new(lock.request_arc(start + at / 2..=start + at / 2, Mode::Add))).collect();
        behind.iter_mut().for_each(Hand::pending);
        let held = lock.request_arc(start..=start, Mode::Exclusive).wait();
        let mut waiters: Vec<_> = (0..3).map(|_| Hand::new(lock.request_arc(start..=start, Mode::Add))).collect();
        let mut batch =
            Hand::new(Batch::new().add(lock.clone(), start..=start).add(lock.clone(), start + 8..start + 9));
        STOCK.set(stock);
        // The stock is soon used up, so each step has its rounds.
        let mut step = 0;
        let mut interrupt = |action: &mut dyn FnMut()| {
            RELEASES.set(start / 64 % 5 == step);
            action();
            RELEASES.set(false);
            step += 1;
        };
        interrupt(&mut || waiters.iter_mut().for_each(Hand::pending));
        interrupt(&mut || batch.pending());
        interrupt(&mut || drop(waiters.pop()));
        let mut held = Some(held);
        interrupt(&mut || drop(held.take()));
        // What it waits for is the first of the stock to go: that is released while it is about to listen to it.
        let mut last = Hand::new(lock.request_arc(start + 3..=start + 3, Mode::Add));
        let mut granted = None;
        interrupt(&mut || granted = Some(last.poll()).filter(Poll::is_ready));
        interrupted += 3 - STOCK.with_borrow(Vec::len) as u64;
        drop(STOCK.take());
        assert!(behind.iter().chain(&waiters).all(Hand::woken), "somebody is forgotten");
        behind.into_iter().chain(waiters).for_each(|mut waiter| drop(waiter.ready()));
        if granted.is_none() {
            assert!(last.woken());
            drop(last.ready());
        }
        assert!(batch.woken());
        drop(batch.ready());
    }
    assert!(interrupted > EACH, "{interrupted} interruptions are few");
    assert!(lock.try_exclusive(..).is_some());
}

/// Its range stays locked for good, as the guard says; who waits can give up, and everybody else goes on.
#[test]
fn a_thread_that_ends_with_a_leaked_guard_leaves_the_others_whole() {
    let _alone = ALONE.lock();
    let lock = Arc::new(RangeLock::new());
    let mut waiter = thread::scope(|scope| {
        let ends = scope.spawn(|| {
            forget(lock.exclusive(0..100));
            // Somebody waits for it while it still lives.
            let mut waiter = Hand::new(lock.request_arc(50..150, Mode::Add));
            waiter.pending();
            waiter
        });
        ends.join().expect("it only leaks")
    });
    let patient = wait_elsewhere(&lock, 0..10);
    assert!(matches!(patient, Err(AcquireError::TimedOut(_))), "{patient:?}");
    waiter.pending();
    assert!(lock.request_arc(120..130, Mode::Exclusive).try_now().is_none(), "who waits keeps its place");
    drop(waiter);
    assert!(lock.request_arc(100.., Mode::Exclusive).try_now().is_some());
}

/// Waits a little on another thread.
fn wait_elsewhere(lock: &RangeLock, range: std::ops::Range<u64>) -> Result<(), AcquireError> {
    let wait = || lock.request(range, Mode::Add).timeout(Duration::from_millis(20)).wait().map(drop);
    thread::scope(|scope| scope.spawn(wait).join().expect("it only waits"))
}

/// A request keeps its owner, a guard too: the handles are only names.
#[test]
fn an_owner_without_handles_is_granted_and_holds() {
    let _alone = ALONE.lock();
    let (lock, other) = (Arc::new(RangeLock::new()), Arc::new(RangeLock::new()));
    let holder = lock.request_arc(.., Mode::Exclusive).wait();
    let owner = Owner::named("gone");
    let elsewhere = other.request_arc(0..10, Mode::Block).owner(&owner).wait().expect("nobody is there");
    let mut waits = Hand::new(lock.request_arc(0..10, Mode::Block).owner(&owner));
    waits.pending();
    drop(owner);
    waits.pending();
    drop(holder);
    assert!(waits.woken());
    let held = waits.ready().expect("nobody waits for the owner");
    assert!(lock.request_arc(5..6, Mode::Add).try_now().is_none());
    drop((held, elsewhere));
    assert!(lock.try_exclusive(..).is_some() && other.try_exclusive(..).is_some());
}

/// Memory follows those who wait now, not those who once did.
#[test]
fn a_million_cancels_against_one_holder_take_no_memory() {
    let _alone = ALONE.lock();
    const AT_ONCE: usize = 100;
    let cancels = common::by_build(100_000, 1_000_000) as usize;
    let lock = Arc::new(RangeLock::new());
    let holder = lock.request_arc(.., Mode::Exclusive).wait();
    let mut random = fastrand::Rng::with_seed(1);
    let mut waiting = VecDeque::new();
    let mut warm = 0;
    for number in 0..cancels {
        let start = random.u64(..) >> random.u32(0..63);
        let mut hand = Hand::new(lock.request_arc(start..=start.saturating_add(random.u64(..5000)), Mode::Add));
        hand.pending();
        waiting.push_back(hand);
        if waiting.len() > AT_ONCE {
            let at = random.usize(..waiting.len());
            drop(waiting.swap_remove_back(at));
        }
        if number == cancels / 10 {
            warm = bytes();
        }
        if number > cancels / 10 && number % 1000 == 0 {
            let more = bytes() - warm;
            assert!(more < 1 << 20, "{more} bytes more after {number} cancels than after a tenth of them");
        }
    }
    waiting.clear();
    assert_eq!(lock.snapshot().requests().len(), 1, "only the holder is left");
    drop(holder);
    lock.trim();
    assert_eq!(lock.heap_nodes(), 0);
}

/// One after the other: each release wakes the next one and nobody else.
#[test]
fn ten_thousand_waiters_on_one_range_are_drained_in_order() {
    let _alone = ALONE.lock();
    let count = common::by_build(1000, 10_000) as usize;
    let lock = Arc::new(RangeLock::new());
    let mut held = lock.request_arc(0..4096, Mode::Exclusive).wait();
    let mut waiting: VecDeque<_> = (0..count)
        .map(|_| {
            let mut hand = Hand::new(lock.request_arc(0..4096, Mode::Exclusive));
            hand.pending();
            hand
        })
        .collect();
    while let Some(mut next) = waiting.pop_front() {
        drop(held);
        assert!(next.woken(), "{} wait, and the first of them was not woken", waiting.len() + 1);
        held = next.ready();
        let early = waiting.iter().take(3).chain(waiting.back()).filter(|other| other.woken()).count();
        assert_eq!(early, 0, "somebody was woken out of turn, with {} behind", waiting.len());
    }
    drop(held);
    lock.trim();
    assert_eq!((lock.heap_nodes(), lock.snapshot().requests().len()), (0, 0));
}
