//! The bar: a number of the tree that only rises, for the layers above. Whoever comes reads it, so it lies where that
//! costs nothing more: on a line that is hardly ever written. It is raised under conflict alone.

use crate::platform::sync::{AtomicU64, Ordering, const_fn};

pub(super) struct Bar(AtomicU64);

impl Bar {
    const_fn! {
        pub(super) const fn new() -> Bar {
            Bar(AtomicU64::new(0))
        }
    }

    /// ORDERING (O1, in `owner`): Acquire, from whoever raised it, and from all who did before: each change is a
    /// read-modify-write.
    #[inline(always)]
    pub(super) fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Raises it to `to`, unless it is there or higher.
    pub(super) fn raise(&self, to: u64) {
        // Relaxed: if it is high enough, whoever raised it knew what this caller did before (the tickets are drawn in a
        // chain); else the CAS decides.
        let mut found = self.0.load(Ordering::Relaxed);
        while found < to {
            // ORDERING (O1): Release, for what the caller did before it drew what it raises the bar to.
            match self.0.compare_exchange_weak(found, to, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => found = now,
            }
        }
    }
}
