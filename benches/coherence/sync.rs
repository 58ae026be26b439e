//! The library's `sync` with traced atomics: each access to one is an access of the simulated machine to its line.
//!
//! Everything in `src/` takes its atomics from `crate::platform::sync`, the ones that only advise ([`hint`]) too. All
//! CPUs are fibers of one thread, so that each atomic operation takes effect when it is its CPU's turn, whatever its
//! ordering; a fence touches no line and is none.

use crate::cpus;
use crate::mesi::Access;
use std::ptr;
use std::sync::atomic;

pub(crate) use std::sync::{
    LazyLock, Mutex, MutexGuard, OnceLock,
    atomic::{Ordering, fence},
};

macro_rules! traced {
    ($($name:ident: $value:ty),*) => { $(
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub(crate) struct $name(atomic::$name);

        impl $name {
            pub(crate) const fn new(value: $value) -> $name {
                $name(atomic::$name::new(value))
            }

            fn trace(&self, access: Access) -> &atomic::$name {
                cpus::access(ptr::from_ref(self).addr(), access);
                &self.0
            }

            pub(crate) fn load(&self, order: Ordering) -> $value {
                self.trace(Access::Read).load(order)
            }

            pub(crate) fn store(&self, value: $value, order: Ordering) {
                self.trace(Access::Write).store(value, order);
            }

            pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                self.trace(Access::Write).swap(value, order)
            }

            pub(crate) fn compare_exchange(
                &self,
                from: $value,
                to: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.trace(Access::Write).compare_exchange(from, to, success, failure)
            }

            pub(crate) fn compare_exchange_weak(
                &self,
                from: $value,
                to: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(from, to, success, failure)
            }
        }
    )* };
}

traced!(AtomicBool: bool, AtomicU8: u8, AtomicU16: u16, AtomicU32: u32, AtomicU64: u64);

impl AtomicU8 {
    pub(crate) fn fetch_or(&self, bits: u8, order: Ordering) -> u8 {
        self.trace(Access::Write).fetch_or(bits, order)
    }

    pub(crate) fn fetch_and(&self, bits: u8, order: Ordering) -> u8 {
        self.trace(Access::Write).fetch_and(bits, order)
    }
}

impl AtomicU16 {
    pub(crate) fn fetch_add(&self, more: u16, order: Ordering) -> u16 {
        self.trace(Access::Write).fetch_add(more, order)
    }

    pub(crate) fn fetch_sub(&self, less: u16, order: Ordering) -> u16 {
        self.trace(Access::Write).fetch_sub(less, order)
    }
}

impl AtomicU64 {
    pub(crate) fn fetch_add(&self, more: u64, order: Ordering) -> u64 {
        self.trace(Access::Write).fetch_add(more, order)
    }

    /// Sleeps until its line is written: for who has just loaded a value that is to be waited out.
    pub(crate) fn wait_for_write(&self) {
        cpus::wait_for_write(ptr::from_ref(self).addr());
    }
}

/// A traced pointer. Whoever follows one that leads to a node, charts it.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct AtomicPtr<T>(atomic::AtomicPtr<T>);

impl<T> AtomicPtr<T> {
    pub(crate) const fn new(value: *mut T) -> AtomicPtr<T> {
        AtomicPtr(atomic::AtomicPtr::new(value))
    }

    fn trace(&self, access: Access) -> &atomic::AtomicPtr<T> {
        cpus::access(ptr::from_ref(self).addr(), access);
        &self.0
    }

    pub(crate) fn load(&self, order: Ordering) -> *mut T {
        let value = self.trace(Access::Read).load(order);
        // The low bits of a link are no part of the address.
        let to = value.addr() & !0b1111;
        if size_of::<T>() == crate::sites::NODE && to != 0 {
            cpus::chart(|atlas| atlas.link(ptr::from_ref(self).addr(), to));
        }
        value
    }

    pub(crate) fn store(&self, value: *mut T, order: Ordering) {
        self.trace(Access::Write).store(value, order);
    }

    pub(crate) fn compare_exchange(
        &self,
        from: *mut T,
        to: *mut T,
        success: Ordering,
        failure: Ordering,
    ) -> Result<*mut T, *mut T> {
        self.trace(Access::Write).compare_exchange(from, to, success, failure)
    }
}

/// Traced like the others: advice is shared as well.
pub(crate) mod hint {
    pub(crate) use super::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64};
}

pub(crate) fn publish(word: &AtomicU64, value: u64) {
    word.store(value, Ordering::Release);
    fence(Ordering::SeqCst);
}

/// The line is fetched as for a write.
pub(crate) fn soon_written(word: &AtomicU64) {
    cpus::access(ptr::from_ref(word).addr(), Access::Write);
}

/// A mutex of the slow paths: taking it is a write to its line.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    loop {
        cpus::access(ptr::from_ref(mutex).addr(), Access::Write);
        // Another fiber of this thread may have it: never block.
        if let Ok(guard) = mutex.try_lock() {
            return guard;
        }
    }
}

pub(crate) fn yield_now() {
    cpus::pass_time();
}

/// What is thread-local in the library is local to a CPU here.
pub(crate) struct PerCpu<T: 'static> {
    pub(crate) all: &'static std::thread::LocalKey<std::cell::RefCell<Vec<std::rc::Rc<T>>>>,
    pub(crate) make: fn() -> T,
}

impl<T> PerCpu<T> {
    pub(crate) fn with<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        // Outside of the simulation is one more.
        let index = cpus::current().map_or(0, |cpu| cpu + 1);
        let mine = self.all.with_borrow_mut(|all| {
            while all.len() <= index {
                all.push(std::rc::Rc::new((self.make)()));
            }
            all[index].clone()
        });
        f(&mine)
    }

    /// A CPU never ends.
    pub(crate) fn try_with<R>(&self, f: impl FnOnce(&T) -> R) -> Result<R, std::convert::Infallible> {
        Ok(self.with(f))
    }
}

macro_rules! cpu_local {
    ($(static $name:ident: $t:ty = const { $init:expr };)+) => {$(
        static $name: crate::platform::sync::PerCpu<$t> = {
            std::thread_local!(static ALL: std::cell::RefCell<Vec<std::rc::Rc<$t>>> = const { std::cell::RefCell::new(Vec::new()) });
            crate::platform::sync::PerCpu { all: &ALL, make: || $init }
        };
    )+};
}

macro_rules! const_fn {
    ($(#[$meta:meta])* $vis:vis const fn $($rest:tt)*) => {
        $(#[$meta])* $vis const fn $($rest)*
    };
}

macro_rules! atomics {
    ($make:expr; $len:expr) => {
        [const { $make }; $len]
    };
}

pub(crate) use {atomics, const_fn, cpu_local as thread_local};
