//! The atomics of `std`, with a *step* before each access: there a thread may lose its turn at random (chaos), or be
//! stopped by a test (gate).
//!
//! Relaxed accesses are steps, too: what was looked at ahead of a compare-and-swap may be old by the time of the swap,
//! and records are read while others write them.

use super::step;
use std::sync::atomic::{self, Ordering};

/// What changes a word may come late, and what is to follow it, too.
#[track_caller]
fn around<T>(what: &'static str, access: impl FnOnce() -> T) -> T {
    step::before(what);
    let answer = access();
    step::behind();
    answer
}

#[track_caller]
pub(crate) fn fence(order: Ordering) {
    around("fence", || atomic::fence(order));
}

macro_rules! watched {
    ($name:ident $(<$param:ident>)?, $inner:ty, $value:ty) => {
        #[derive(Debug)]
        pub(crate) struct $name $(<$param>)? ($inner);

        // Not every atomic has a use for all of them.
        #[allow(dead_code)]
        impl $(<$param>)? $name $(<$param>)? {
            pub(crate) const fn new(value: $value) -> Self {
                Self(<$inner>::new(value))
            }

            #[track_caller]
            pub(crate) fn load(&self, order: Ordering) -> $value {
                step::before("load");
                self.0.load(order)
            }

            #[track_caller]
            pub(crate) fn store(&self, value: $value, order: Ordering) {
                around("store", || self.0.store(value, order));
            }

            #[track_caller]
            pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                around("swap", || self.0.swap(value, order))
            }

            #[track_caller]
            pub(crate) fn compare_exchange(
                &self,
                from: $value,
                to: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                around("compare_exchange", || self.0.compare_exchange(from, to, success, failure))
            }

            #[track_caller]
            pub(crate) fn compare_exchange_weak(
                &self,
                from: $value,
                to: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                around("compare_exchange", || self.0.compare_exchange_weak(from, to, success, failure))
            }
        }
    };
}

watched!(AtomicBool, atomic::AtomicBool, bool);
watched!(AtomicU64, atomic::AtomicU64, u64);
watched!(AtomicPtr<T>, atomic::AtomicPtr<T>, *mut T);

macro_rules! counting {
    ($name:ident, $value:ty) => {
        #[allow(dead_code)]
        impl $name {
            #[track_caller]
            pub(crate) fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                around("fetch_add", || self.0.fetch_add(value, order))
            }

            #[track_caller]
            pub(crate) fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                around("fetch_sub", || self.0.fetch_sub(value, order))
            }

            #[track_caller]
            pub(crate) fn fetch_max(&self, value: $value, order: Ordering) -> $value {
                around("fetch_max", || self.0.fetch_max(value, order))
            }
        }
    };
}

counting!(AtomicU64, u64);

#[cfg(not(spanlock_chaos))]
macro_rules! bits {
    ($name:ident, $value:ty) => {
        #[allow(dead_code)]
        impl $name {
            #[track_caller]
            pub(crate) fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                around("fetch_or", || self.0.fetch_or(value, order))
            }

            #[track_caller]
            pub(crate) fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                around("fetch_and", || self.0.fetch_and(value, order))
            }
        }
    };
}

/// Only a test stops there: they order nothing.
#[cfg(not(spanlock_chaos))]
mod advice {
    use super::*;

    watched!(AtomicU8, atomic::AtomicU8, u8);
    bits!(AtomicU8, u8);
    watched!(AtomicU16, atomic::AtomicU16, u16);
    watched!(AtomicU32, atomic::AtomicU32, u32);
    counting!(AtomicU16, u16);
}
#[cfg(not(spanlock_chaos))]
pub(crate) use advice::{AtomicU8, AtomicU16, AtomicU32};
