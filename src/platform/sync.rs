//! The one place that chooses `std`, `loom` or `shuttle`. (Or, where ThreadSanitizer has to see it, another mutex; or
//! `std` with a step before each access: for chaos a pause, in the unit tests a gate where a thread can be stopped.)
//!
//! Everything that carries an order between threads comes from here, so that the models run the very code that ships.
//! loom tries all orders of a small scene, and knows what each ordering allows. shuttle tries some orders of a large
//! one, and takes every access for `SeqCst`: of the orderings it says nothing. Two conventions keep those models
//! honest:
//!
//! - loom treats `SeqCst` *accesses* as `AcqRel`, so full order is always [`fence`]`(SeqCst)`, and the protocol's one
//!   full fence is in [`publish`].
//! - [`hint`] atomics stay `std`'s even in a model: they steer growth and pruning, are read and written `Relaxed`, and
//!   no argument about exclusion, order or memory rests on them.

#[cfg(not(any(loom, spanlock_shuttle, spanlock_chaos, test)))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, fence};
#[cfg(not(any(loom, spanlock_shuttle, spanlock_tsan)))]
pub(crate) use std::sync::{LazyLock, OnceLock};
#[cfg(not(any(loom, spanlock_shuttle, spanlock_tsan, all(test, not(spanlock_chaos)))))]
pub(crate) use std::sync::{Mutex, MutexGuard};
#[cfg(not(any(loom, spanlock_shuttle)))]
pub(crate) use std::{sync::atomic::Ordering, thread_local};

#[cfg(all(any(spanlock_chaos, test), not(any(loom, spanlock_shuttle))))]
mod watched;
#[cfg(all(any(spanlock_chaos, test), not(any(loom, spanlock_shuttle))))]
pub(crate) use watched::{AtomicBool, AtomicPtr, AtomicU64, fence};

// What happens at a step.
#[cfg(all(spanlock_chaos, not(any(loom, spanlock_shuttle))))]
#[path = "sync/chaos.rs"]
mod step;
#[cfg(all(test, not(any(loom, spanlock_shuttle, spanlock_chaos))))]
#[path = "sync/gate.rs"]
pub(crate) mod step;
#[cfg(all(test, not(any(loom, spanlock_shuttle, spanlock_chaos, spanlock_tsan))))]
pub(crate) use step::{Mutex, MutexGuard};

// ThreadSanitizer sees the order that a mutex makes only if the mutex was built for it, as std is not.
#[cfg(spanlock_tsan)]
pub(crate) use {
    once_cell::sync::{Lazy as LazyLock, OnceCell as OnceLock},
    parking_lot::{Mutex, MutexGuard},
};

#[cfg(loom)]
mod model;
#[cfg(loom)]
pub(crate) use {
    loom::{
        lazy_static,
        sync::{
            Mutex, MutexGuard,
            atomic::{Ordering, fence},
        },
        thread, thread_local,
    },
    model::{AtomicBool, AtomicPtr, AtomicU64},
};

/// In a model a guard is used by one thread at a time.
#[cfg(any(loom, spanlock_shuttle))]
pub(crate) use std::sync::OnceLock;

#[cfg(all(spanlock_shuttle, not(loom)))]
pub(crate) use shuttle::{
    lazy_static,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering, fence},
    },
    thread, thread_local,
};

/// For a count of who keeps an object. Not shuttle's: the epoch may let go of one in no schedule at all.
#[cfg(loom)]
pub(crate) use loom::sync::atomic::AtomicU16;
#[cfg(not(any(loom, all(test, not(any(spanlock_shuttle, spanlock_chaos))))))]
pub(crate) use std::sync::atomic::AtomicU16;
#[cfg(all(test, not(any(loom, spanlock_shuttle, spanlock_chaos))))]
pub(crate) use watched::AtomicU16;

/// Atomics that only advise: see the header.
pub(crate) mod hint {
    #[cfg(all(test, not(any(loom, spanlock_shuttle, spanlock_chaos))))]
    pub(crate) use super::watched::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64};
    #[cfg(not(all(test, not(any(loom, spanlock_shuttle, spanlock_chaos)))))]
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64};
}

/// Stores `value` and puts a full fence behind it: whoever publishes this way and then looks, sees every such
/// publication whose fence came before its own.
///
/// ORDERING: the store is Release and pairs with the Acquire load of whoever finds `value`. The fence pairs with itself
/// on the other thread: of two threads that publish and then look, the one whose fence is second sees the other's
/// store. Without it both can miss (store buffering), on x86 too.
#[inline(always)]
#[cfg_attr(test, track_caller)]
pub(crate) fn publish(word: &AtomicU64, value: u64) {
    word.store(value, Ordering::Release);
    fence(Ordering::SeqCst);
}

/// The word is going to be read, and then changed by a compare-and-swap. Where another processor has changed it last,
/// it is fetched once for both that way, not once for reading and once more for writing. It changes nothing else.
#[inline(always)]
pub(crate) fn soon_written(word: &AtomicU64) {
    #[cfg(all(target_arch = "x86_64", not(any(loom, spanlock_shuttle, spanlock_chaos, miri))))]
    // SAFETY: prefetching reads and writes nothing, whatever the address; processors that do not know it do nothing.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) word, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(all(target_arch = "x86_64", not(any(loom, spanlock_shuttle, spanlock_chaos, miri)))))]
    let _ = word;
}

/// Locks; a panic under the lock changes nothing for the others, because what is locked here is whole at every line.
#[cfg_attr(test, track_caller)]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(all(spanlock_chaos, not(any(loom, spanlock_shuttle))))]
    step::before("lock");
    #[cfg(spanlock_tsan)]
    return mutex.lock();
    #[cfg(all(test, not(any(loom, spanlock_shuttle, spanlock_chaos, spanlock_tsan))))]
    return mutex.take();
    #[cfg(not(any(spanlock_tsan, all(test, not(any(loom, spanlock_shuttle, spanlock_chaos))))))]
    return mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
}

/// Declares a `const fn`, which loom's atomics force to be an ordinary one in a model.
macro_rules! const_fn {
    ($(#[$meta:meta])* $vis:vis const fn $($rest:tt)*) => {
        #[cfg(not(loom))]
        $(#[$meta])* $vis const fn $($rest)*
        #[cfg(loom)]
        $(#[$meta])* $vis fn $($rest)*
    };
}

/// An array of atomics, built in a constant where the atomics allow it.
macro_rules! atomics {
    ($make:expr; $len:expr) => {{
        #[cfg(not(loom))]
        let array = [const { $make }; $len];
        #[cfg(loom)]
        let array: [_; $len] = std::array::from_fn(|_| $make);
        array
    }};
}

pub(crate) use {atomics, const_fn};
