//! Giving memory back while others may still read it: crossbeam-epoch, or a stand-in for the models.
//!
//! A thread that follows pointers into the tree holds a [`Pin`]. What was unlinked is [retired](Pin::retire), and freed
//! when every thread that was pinned at that moment has unpinned. A pin held for long stops reclamation for all locks
//! of the process, so nobody waits while pinned.
//!
//! The collector is our own, not crossbeam's shared one: who pins may have to free what others have left, and there
//! that could be anything, a destructor that waits for a range included.
//!
//! Under loom the default is a stand-in that pins nothing and frees nothing: it adds no order of its own, so it can't
//! hide a missing one. `--cfg spanlock_epoch` puts the real epoch into the model; there a freed node is *written*, so
//! that loom reports whoever still reads it.
//!
//! Under shuttle it is the real one, which shuttle does not see. All threads of a schedule are one thread of the system
//! there, so that their pins nest: nothing is freed while any of them is pinned, and a pin that is missing goes
//! unnoticed as long as another one lasts.

use std::cell::{Cell, OnceCell};

/// A pin taken when it is first needed: a request that stays in the root never needs one.
#[derive(Debug, Default)]
pub(crate) struct LazyPin {
    pin: OnceCell<Pin>,
    /// Somebody was notified under this pin, and must be woken when it has ended.
    owes_wakes: Cell<bool>,
}

impl LazyPin {
    pub(crate) const fn new() -> LazyPin {
        LazyPin { pin: OnceCell::new(), owes_wakes: Cell::new(false) }
    }

    #[inline]
    pub(crate) fn get(&self) -> &Pin {
        self.pin.get_or_init(Pin::new)
    }

    /// Notes that a wake-up may be due when the pin has ended.
    pub(crate) fn owe_wakes(&self) {
        self.owes_wakes.set(true);
    }

    #[inline]
    pub(crate) fn owes_wakes(&self) -> bool {
        self.owes_wakes.get()
    }
}

/// Frees `object`.
///
/// # Safety
/// It came from `Box::into_raw`, nobody else can reach it, and this is done once.
pub(crate) unsafe fn free<T>(object: *mut T) {
    // In a model the memory itself stays, for loom to judge who still reads it.
    #[cfg(all(loom, spanlock_epoch))]
    // SAFETY: from `Box::into_raw`, and this is its only release, by this function's own contract.
    unsafe {
        object.drop_in_place();
    }
    #[cfg(not(all(loom, spanlock_epoch)))]
    // SAFETY: as above.
    drop(unsafe { Box::from_raw(object) });
}

/// Part of a node on the real epoch in a model: read by whoever uses the node, written when it is freed.
#[cfg(all(loom, spanlock_epoch))]
#[derive(Debug)]
pub(crate) struct Canary(loom::cell::UnsafeCell<()>);

#[cfg(all(loom, spanlock_epoch))]
impl Canary {
    pub(crate) fn new() -> Canary {
        Canary(loom::cell::UnsafeCell::new(()))
    }

    pub(crate) fn read(&self) {
        self.0.with(|_| ());
    }
}

#[cfg(all(loom, spanlock_epoch))]
impl Drop for Canary {
    fn drop(&mut self) {
        self.0.with_mut(|_| ());
    }
}

#[cfg(any(not(loom), spanlock_epoch))]
mod imp {
    use crossbeam_epoch::Guard;
    // In a model the shared one will do: nobody else is there.
    #[cfg(not(any(loom, spanlock_shuttle)))]
    use crate::platform::sync::OnceLock;
    #[cfg(loom)]
    use crossbeam_epoch::pin;
    #[cfg(not(loom))]
    use crossbeam_epoch::{Collector, LocalHandle};
    // All threads of shuttle's are one thread of the system, and its collector outlives each schedule.
    #[cfg(all(spanlock_shuttle, not(loom)))]
    use std::sync::OnceLock;

    /// While it lives, nothing that was reachable when it was taken is freed.
    #[derive(Debug)]
    pub(crate) struct Pin(Guard);

    #[cfg(not(loom))]
    static COLLECTOR: OnceLock<Collector> = OnceLock::new();

    /// Made before it is put in its place: an allocator that itself uses range locks may come back here meanwhile, and
    /// would wait for its own thread.
    #[cfg(not(loom))]
    fn collector() -> &'static Collector {
        COLLECTOR.get().unwrap_or_else(|| {
            let new = Collector::new();
            COLLECTOR.get_or_init(|| new)
        })
    }

    #[cfg(not(loom))]
    std::thread_local! {
        static HANDLE: LocalHandle = collector().register();
    }

    #[cfg(not(loom))]
    fn pin() -> Guard {
        // A thread that is ending may have dropped its handle already: then one for this pin.
        HANDLE.try_with(LocalHandle::pin).unwrap_or_else(|_| collector().register().pin())
    }

    /// Whether the calling thread is pinned.
    #[cfg(all(test, not(any(loom, spanlock_shuttle))))]
    pub(crate) fn is_pinned() -> bool {
        HANDLE.with(LocalHandle::is_pinned)
    }

    impl Pin {
        pub(crate) fn new() -> Pin {
            Pin(pin())
        }

        /// Lets go of `object`, by `let_go`, once nobody can still be reading it who has not said that he keeps it.
        ///
        /// # Safety
        /// `let_go` may be called with `object`, on any thread; the object is retired once, and nobody who pins from
        /// now on can reach it.
        pub(crate) unsafe fn retire<T: 'static>(&self, object: *mut T, let_go: unsafe fn(*mut T)) {
            // SAFETY: this function's own contract.
            let free = move || unsafe { let_go(object) };
            // SAFETY: the closure may run on another thread at a later time: it captures a raw pointer to a `'static`
            // type, a function and nothing else, and by this function's contract that may be called then. The nodes
            // that are retired consist of atomics, integers and wait lists, all of them Send.
            unsafe { self.0.defer_unchecked(free) };
        }

        /// Pushes what this thread has retired towards reclamation.
        pub(crate) fn flush(&self) {
            self.0.flush();
        }
    }
}

#[cfg(all(loom, not(spanlock_epoch)))]
mod imp {
    /// Stands for an epoch that never ends within a model.
    #[derive(Debug)]
    pub(crate) struct Pin(());

    impl Pin {
        pub(crate) fn new() -> Pin {
            Pin(())
        }

        /// Keeps `object` for good: a model is short.
        ///
        /// # Safety
        /// As for the real one.
        pub(crate) unsafe fn retire<T: 'static>(&self, _object: *mut T, _let_go: unsafe fn(*mut T)) {}

        pub(crate) fn flush(&self) {}
    }

    /// So that unpinning is something that can be said.
    impl Drop for Pin {
        fn drop(&mut self) {}
    }
}

pub(crate) use imp::Pin;
#[cfg(all(test, not(any(loom, spanlock_shuttle))))]
pub(crate) use imp::is_pinned;
