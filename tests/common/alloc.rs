//! An allocator that counts. A test file that wants it says `#[global_allocator] static A: Counting = Counting;`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering};

#[derive(Debug)]
pub(crate) struct Counting;

thread_local! {
    /// Allocations of this thread. Constant and without a destructor: counting must not allocate.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// Bytes that are allocated now, by all threads.
static BYTES: AtomicIsize = AtomicIsize::new(0);

// SAFETY: every call goes to `System` unchanged; the counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        BYTES.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller keeps `dealloc`'s contract, and `memory` came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// How often `f` allocates on this thread.
pub(crate) fn allocations<T>(f: impl FnOnce() -> T) -> (usize, T) {
    let before = ALLOCATIONS.get();
    let output = f();
    (ALLOCATIONS.get() - before, output)
}

/// Bytes that the process has allocated now.
pub(crate) fn bytes() -> isize {
    BYTES.load(Ordering::Relaxed)
}
