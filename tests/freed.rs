//! Promise: a request leaves its lock before it lets go of it. Nothing is written into a lock that was freed.
//!
//! A guard that was leaked keeps its range locked, but not its lock alive. So a future can be the last one to have its
//! lock while it is still queued there; and when it is refused, it must leave the queue first, and only then give its
//! lock up.
//!
//! The allocator of this file keeps what is freed with the alignment of locks, with a copy of how it was: so a write
//! behind the end is seen for certain, and without a sanitizer.

mod common;

use common::forget;
use common::poll::Hand;
use parking_lot::Mutex;
use spanlock::{AcquireError, Batch, Mode, Owner, RangeLock};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

#[global_allocator]
static ALLOCATOR: Keeping = Keeping;

/// Frees nothing that is aligned like a lock.
struct Keeping;

/// Heads a freed block's copy: a list of these, never taken apart.
struct Kept {
    block: *const u8,
    size: usize,
    copy: *mut u8,
    next: *mut Kept,
}

static KEPT: AtomicPtr<Kept> = AtomicPtr::new(std::ptr::null_mut());

const ALIGN: usize = align_of::<RangeLock>();

// SAFETY: all is the system's, but that some blocks are never freed.
unsafe impl GlobalAlloc for Keeping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if layout.align() != ALIGN {
            // SAFETY: the caller's promise: it came from `alloc`, and so from `System`.
            return unsafe { System.dealloc(block, layout) };
        }
        // SAFETY: the layout of a block that was allocated is a valid one, and not empty.
        let copy = unsafe { System.alloc(layout) };
        // SAFETY: as above.
        let kept = unsafe { System.alloc(Layout::new::<Kept>()) }.cast::<Kept>();
        assert!(!copy.is_null() && !kept.is_null(), "no memory");
        // SAFETY: both are of this size, and the copy is new.
        unsafe { block.copy_to_nonoverlapping(copy, layout.size()) };
        let mut next = KEPT.load(Ordering::Acquire);
        loop {
            // SAFETY: it is new and large enough, and nobody has seen it yet.
            unsafe { kept.write(Kept { block, size: layout.size(), copy, next }) };
            match KEPT.compare_exchange(next, kept, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => next = now,
            }
        }
    }
}

/// How many blocks were freed so far, and how many of them were written to afterwards.
fn freed_and_changed() -> (usize, usize) {
    let (mut freed, mut changed) = (0, 0);
    let mut next = KEPT.load(Ordering::Acquire);
    // SAFETY: what is in the list is never freed, and not changed once it is in it; nobody has the blocks but who
    // should not.
    while let Some(kept) = unsafe { next.as_ref() } {
        // SAFETY: of this size, never freed, and used by nobody who keeps the rules.
        let now = unsafe { std::slice::from_raw_parts(kept.block, kept.size) };
        // SAFETY: of this size, and used here only.
        let then = unsafe { std::slice::from_raw_parts(kept.copy, kept.size) };
        freed += 1;
        changed += usize::from(now != then);
        next = kept.next;
    }
    (freed, changed)
}

/// One at a time: they count all blocks of the process.
static ALONE: Mutex<()> = Mutex::new(());

/// `holder` holds all of `lock` for good, by a guard that was leaked, and waits for what `asker` holds elsewhere: so
/// `asker` is refused `lock`. Has `refuse` ask for it, with the only handle that is left, and looks whether that was
/// freed, and then left alone.
fn refused_with_the_last_handle<L: std::ops::Deref<Target = RangeLock>>(lock: L, refuse: impl FnOnce(L, &Owner)) {
    let (holder, asker) = (Owner::named("holder"), Owner::named("asker"));
    let elsewhere = Arc::new(RangeLock::new());
    forget(lock.request(.., Mode::Exclusive).owner(&holder).wait().unwrap());
    let held = elsewhere.request_arc(.., Mode::Exclusive).owner(&asker).wait().unwrap();
    let mut wait = Hand::new(elsewhere.request_arc(.., Mode::Exclusive).owner(&holder));
    wait.pending();

    let (freed, changed) = freed_and_changed();
    refuse(lock, &asker);
    let (freed_now, changed_now) = freed_and_changed();
    assert_eq!(freed_now, freed + 1, "the lock went with its last handle");
    assert_eq!(changed_now, changed, "somebody wrote into the lock after it was freed");
    drop(held);
    drop(wait.ready().unwrap());
}

fn is_deadlock<G>(answer: Result<G, AcquireError>) -> bool {
    matches!(answer, Err(AcquireError::Deadlock(_)))
}

#[test]
fn a_refused_future_leaves_its_lock_before_it_lets_go_of_it() {
    let _alone = ALONE.lock();
    refused_with_the_last_handle(Arc::new(RangeLock::new()), |lock, asker| {
        let mut future = Hand::new(lock.request_arc(0..1, Mode::Add).owner(asker));
        drop(lock);
        assert!(is_deadlock(future.ready()));
    });
}

#[cfg(feature = "table")]
#[test]
fn a_refused_future_leaves_its_key_before_the_entry_goes() {
    let _alone = ALONE.lock();
    let table = spanlock::LockTable::new();
    refused_with_the_last_handle(table.lock(17), |lock, asker| {
        let mut future = Hand::new(lock.into_request(0..1, Mode::Add).owner(asker));
        assert!(is_deadlock(future.ready()));
        assert!(table.is_empty());
    });
}

#[test]
fn a_refused_batch_leaves_its_locks_before_it_lets_go_of_them() {
    let _alone = ALONE.lock();
    refused_with_the_last_handle(Arc::new(RangeLock::new()), |lock, asker| {
        let mut future = Hand::new(Batch::new().add(lock.clone(), 0..1).add(lock, 4..5).owner(asker));
        assert!(is_deadlock(future.ready()));
    });
}

#[test]
fn a_cancelled_future_leaves_its_lock_before_it_lets_go_of_it() {
    let _alone = ALONE.lock();
    let lock = Arc::new(RangeLock::new());
    forget(lock.exclusive(..));
    let mut future = Hand::new(lock.request_arc(0..1, Mode::Add));
    drop(lock);
    future.pending();
    let (freed, changed) = freed_and_changed();
    drop(future);
    assert_eq!(freed_and_changed(), (freed + 1, changed));
}
