//! loom's atomics, with the races that loom overlooks.
//!
//! loom finds the orders that it must try from the accesses that depend on one another, and of each atomic it remembers
//! the *last* access only. So a thread that loads a word and then changes it (as every loop around a compare-and-swap
//! does) hides, by its own load, all loads of others that came before: that its change might come before those is never
//! tried. Therefore each access here first stores to a companion of the atomic. Nobody loads that, so it orders
//! nothing; but loom takes any two stores for dependent, and tries both orders.
//!
//! Relaxed accesses have no companion: they are looks ahead of a compare-and-swap, which has one; and records, whose
//! readers look at a word before and behind, and that has one.

use loom::sync::atomic::{self, AtomicU8, Ordering};

macro_rules! traced {
    ($name:ident $(<$param:ident>)?, $inner:ty, $value:ty) => {
        #[derive(Debug)]
        pub(crate) struct $name $(<$param>)? {
            atomic: $inner,
            companion: AtomicU8,
        }

        // Not every atomic has a use for all of them.
        #[allow(dead_code)]
        impl $(<$param>)? $name $(<$param>)? {
            pub(crate) fn new(value: $value) -> Self {
                Self { atomic: <$inner>::new(value), companion: AtomicU8::new(0) }
            }

            fn traced(&self, order: Ordering) -> &$inner {
                if order != Ordering::Relaxed {
                    self.companion.store(0, Ordering::Relaxed);
                }
                &self.atomic
            }

            pub(crate) fn load(&self, order: Ordering) -> $value {
                self.traced(order).load(order)
            }

            pub(crate) fn store(&self, value: $value, order: Ordering) {
                self.traced(order).store(value, order);
            }

            pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                self.traced(order).swap(value, order)
            }

            pub(crate) fn compare_exchange(
                &self,
                from: $value,
                to: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.traced(success).compare_exchange(from, to, success, failure)
            }

            pub(crate) fn compare_exchange_weak(
                &self,
                from: $value,
                to: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.traced(success).compare_exchange_weak(from, to, success, failure)
            }
        }
    };
}

traced!(AtomicBool, atomic::AtomicBool, bool);
traced!(AtomicU64, atomic::AtomicU64, u64);
traced!(AtomicPtr<T>, atomic::AtomicPtr<T>, *mut T);

impl AtomicU64 {
    /// One access, and no load of one's own before it: loom needs no help.
    pub(crate) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        self.atomic.fetch_add(value, order)
    }
}
