//! Locks of the whole file from std, parking_lot and tokio: what a range lock has to be better than.

use super::{Access, Covers, Peer};
use std::ops::Range;
use std::sync::PoisonError;

/// Held either way; dropping it is all that is done with it.
#[derive(Debug)]
#[allow(dead_code)]
pub(crate) enum Either<R, W> {
    Shared(R),
    Exclusive(W),
}

/// A peer from a lock with two modes: what it is called, its type, and its two calls.
macro_rules! two_modes {
    ($peer:ident, $name:literal, $lock:ty, $read:ty, $write:ty, |$this:ident| $shared:expr, $exclusive:expr) => {
        #[derive(Debug)]
        pub(crate) struct $peer($lock);

        impl Peer for $peer {
            const NAME: &'static str = $name;
            const COVERS: Covers = Covers::WholeFile;
            type Guard<'a> = Either<$read, $write>;

            fn new(_bytes: u64) -> $peer {
                $peer(Default::default())
            }

            #[inline(always)]
            fn acquire(&self, _thread: usize, _range: Range<u64>, access: Access) -> Self::Guard<'_> {
                let $this = &self.0;
                match access {
                    Access::Shared => Either::Shared($shared),
                    Access::Exclusive => Either::Exclusive($exclusive),
                }
            }
        }
    };
}

two_modes!(
    StdRwLock,
    "std-rwlock",
    std::sync::RwLock<()>,
    std::sync::RwLockReadGuard<'a, ()>,
    std::sync::RwLockWriteGuard<'a, ()>,
    |lock| lock.read().unwrap_or_else(PoisonError::into_inner),
    lock.write().unwrap_or_else(PoisonError::into_inner)
);
two_modes!(
    RwLock,
    "pl-rwlock",
    parking_lot::RwLock<()>,
    parking_lot::RwLockReadGuard<'a, ()>,
    parking_lot::RwLockWriteGuard<'a, ()>,
    |lock| lock.read(),
    lock.write()
);
two_modes!(
    TokioRwLock,
    "tokio-rwlock",
    tokio::sync::RwLock<()>,
    tokio::sync::RwLockReadGuard<'a, ()>,
    tokio::sync::RwLockWriteGuard<'a, ()>,
    |lock| lock.blocking_read(),
    lock.blocking_write()
);

/// Barging allowed; a fair hand-off now and then.
#[derive(Debug)]
pub(crate) struct Mutex(parking_lot::Mutex<()>);

impl Peer for Mutex {
    const NAME: &'static str = "pl-mutex";
    const COVERS: Covers = Covers::WholeFile;
    const SHARES: bool = false;
    type Guard<'a> = parking_lot::MutexGuard<'a, ()>;

    fn new(_bytes: u64) -> Mutex {
        Mutex(Default::default())
    }

    #[inline(always)]
    fn acquire(&self, _thread: usize, _range: Range<u64>, _access: Access) -> Self::Guard<'_> {
        self.0.lock()
    }
}

/// Each unlock hands over to the first waiter.
#[derive(Debug)]
pub(crate) struct FairMutex(parking_lot::FairMutex<()>);

impl Peer for FairMutex {
    const NAME: &'static str = "pl-fair-mutex";
    const COVERS: Covers = Covers::WholeFile;
    const SHARES: bool = false;
    type Guard<'a> = parking_lot::FairMutexGuard<'a, ()>;

    fn new(_bytes: u64) -> FairMutex {
        FairMutex(Default::default())
    }

    #[inline(always)]
    fn acquire(&self, _thread: usize, _range: Range<u64>, _access: Access) -> Self::Guard<'_> {
        self.0.lock()
    }
}
