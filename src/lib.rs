//! Range locks for file systems, databases and virtual machines: byte ranges taken to **add**, to **block** or **exclusively**,
//! granted first come, first served, by a lock-free interval tree whose shape follows the threads at work.
//!
//! ```text
//! cargo add spanlock
//! ```
//!
//! ```
//! use spanlock::{Mode, RangeLock};
//!
//! let file = RangeLock::new();
//!
//! // A page fault puts a page into the cache: it adds, together with other adders.
//! let fault = file.add(0..4096);
//!
//! // A direct write elsewhere blocks adding while it changes the bytes underneath, together with other blockers.
//! let write = file.block(1 << 20..2 << 20);
//!
//! // Truncate wants everything behind the new end for itself; it would wait for `write`, if that were another thread's.
//! let truncate = file.request(1 << 30.., Mode::Exclusive).try_now();
//! assert!(truncate.is_some());
//! # drop((fault, write));
//! ```
//!
//! **A task that holds something and asks for more says who it is**: through its guard ([`Guard::request`]), in an
//! owner's scope ([`Owner::scope`]), or by naming the owner ([`Request::owner`]). Else each request has an owner of its
//! own, and the task can wait for itself, or two for one another, for ever: see [`OwnedBy`]. Threads need not say it.
//! And a blocking call stops all tasks of its thread: in async code, await.
//!
//! # The contract
//! A request is a range, a [`Mode`] and an owner (the thread of a blocking call, an [`Owner`], or its own if it is
//! awaited). Two requests *conflict* when they share a byte, their modes do not go together, and their owners differ.
//!
//! - **Exclusion.** Two conflicting requests are never granted at the same time.
//! - **First come, first served.** Conflicting requests are granted in order of arrival. A request has arrived when it
//!   was granted or has begun to wait. Nobody barges, `try_` included. (In a lock with a window,
//!   [`RangeLock::reordering`], newcomers may go before who waits, for a bounded time.)
//! - **Concurrent entering.** A request that conflicts with no earlier live one is granted without waiting for anybody.
//! - **Nothing else blocks.** Disjoint ranges never wait for one another, not even for a thread that was descheduled in
//!   the middle of an acquire or a release; and a request that waits does not wait for one that came later. (Asking,
//!   granting and releasing are lock-free; falling asleep, waking somebody, taking a [snapshot](RangeLock::snapshot),
//!   and moving a hold by a conversion in a lock in which somebody is poisoned take short mutexes. A request in
//!   conflict that is nested searches for deadlocks, and a token's may, or a batch. Such a search never leads to a lock
//!   that no waits connect with its own. But it keeps each nested request, token's or batch that it has found from
//!   being granted, given up or dropped, until it has ended: a poll may block for so long.)
//! - **Nested.** A request of an owner that holds something already is let past a queued one exactly when waiting for
//!   that one would close a cycle.
//! - **Deadlock is an answer.** A cycle of owners that wait for one another's ranges, in whichever locks of the
//!   process, is found when it closes; the request that closes it gets [`AcquireError::Deadlock`]. A thread that waits
//!   in a call counts as waiting with all that it holds as a thread, whoever owns the request.
//! - **Cancel.** A request can be given up at any moment (deadline passed, future dropped); whoever waited for it goes
//!   on. A deadline is kept within the clock's grain, whatever others do, short mutexes and the wakers of tasks that
//!   waited for the request apart, with one exception: a nested request, a token's or a batch that a search for
//!   deadlocks has found leaves when that search has ended.
//! - **Memory.** The nodes on the heap never exceed 16 for each thread at work and one for each two live
//!   ranges; where a crowd goes and leaves one in each node, one for each live range, until that one goes.
//!
//! Two things it does not do. A thread is *one* owner, whatever jobs it runs in turns; and a child of fork(2) is
//! another process. [`RangeLock`] says of both what follows.
//!
//! Start at [`RangeLock`], or at [`RangeLocked`], which owns the data and gives slices of it; [`WholeFileLock`] is the
//! same without ranges, and [`LockTable`] has a range lock for each of many files. [`Batch`] asks for several ranges at
//! once, [`Drain`] waits until all have gone who came first and asks for nothing, [`Announced`] works first and asks
//! afterwards whether anybody was in the way, [`Guard::poison`] says of a holder that nobody shall wait for it,
//! [`Guard`] says what a guard can be turned into, [`RangeLock::snapshot`] who holds and who waits, and [`KeySpace`]
//! maps byte-string keys to ranges.
//!
//! # Features
//! - `table`, on by default: [`LockTable`]. Without it the library does not depend on dashmap, and what that needs.
//! - `stats`: counters of the process, and a histogram of waits, in the module `stats`.
//! - `tracing`: events for waits and deadlocks.
//! - `memmap2`: mapped memory in a [`RangeLocked`].

// What the pages say of tables leads nowhere then.
#![cfg_attr(not(feature = "table"), allow(rustdoc::broken_intra_doc_links))]

/// The README's examples, compiled as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// And those of the guides.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../docs/guides/from-rwlock.md")]
    struct FromRwLock;
    #[doc = include_str!("../docs/guides/from-fcntl.md")]
    struct FromFcntl;
    #[cfg(feature = "table")]
    #[doc = include_str!("../docs/guides/from-database-locks.md")]
    struct FromDatabaseLocks;
}

// The layers, from top to bottom. Each names only those below it; `tree` and `wait` do not know each other. Blank lines
// keep them in this order. `tests/layering.rs` checks the arrows.
mod surface;

mod protocol;

mod tree;
mod wait;

mod watching;

mod facts;

mod platform;

#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, spanlock_shuttle, not(loom)))]
#[path = "models/random.rs"]
mod models;
#[cfg(all(test, not(any(loom, spanlock_shuttle, spanlock_chaos))))]
#[path = "tests/progress.rs"]
mod progress;

pub use facts::error::{AcquireError, Deadlock, Poisoned};
pub use facts::keys::{KeyBounds, KeySpace};
pub use facts::mode::Mode;
pub use facts::owner::{Owner, Recursion};
pub use facts::range::ByteRange;
pub use facts::snapshot::Snapshot;
pub use surface::announced::Announced;
pub use surface::batch::Batch;
pub use surface::drained::Drain;
pub use surface::guard::{Guard, RangeGuard};
pub use surface::lock::RangeLock;
pub use surface::request::Request;
#[cfg(not(any(loom, spanlock_shuttle)))]
pub use surface::slices::RangeLocked;
#[cfg(all(feature = "table", not(any(loom, spanlock_shuttle))))]
pub use surface::table::LockTable;
pub use surface::whole::WholeFileLock;

#[cfg(all(feature = "stats", not(any(loom, spanlock_shuttle))))]
pub use watching::stats;

// What users seldom name stands in the modules, so that the front page shows what they begin with. It has its name
// here, too.
#[doc(hidden)]
pub use guards::*;
#[doc(hidden)]
pub use owners::*;
#[doc(hidden)]
pub use requests::*;
#[doc(hidden)]
#[cfg(not(any(loom, spanlock_shuttle)))]
pub use slice::*;
#[doc(hidden)]
pub use snapshots::*;

/// Guards, by who owns them and what they keep the lock by. All are a [`Guard`], or are made of one.
pub mod guards {
    pub use crate::surface::batch::BatchGuard;
    pub use crate::surface::guard::{
        ArcOwnerGuard, ArcRangeGuard, ArcThreadGuard, Nesting, OwnerGuard, SendRangeGuard,
    };
    #[cfg(all(feature = "table", not(any(loom, spanlock_shuttle))))]
    pub use crate::surface::table::{SendTableGuard, TableGuard};
}

/// Requests on their way: with a deadline, as futures, and by what they reach a lock.
pub mod requests {
    #[cfg(not(any(loom, spanlock_shuttle)))]
    pub use crate::surface::any::AnyLock;
    pub use crate::surface::batch::{AcquireBatch, TimedBatch};
    pub use crate::surface::drained::{Drained, TimedDrain};
    pub use crate::surface::request::{Acquire, LockRef, TimedRequest};
    #[cfg(all(feature = "table", not(any(loom, spanlock_shuttle))))]
    pub use crate::surface::table::TableLock;
}

/// Who owns a request: the kinds of owners, their numbers and names, and the scope that makes a future's requests
/// theirs. See [`Owner`].
pub mod owners {
    pub use crate::facts::error::OwnerName;
    pub use crate::facts::owner::OwnerId;
    pub use crate::facts::owner_kind::{AwaitedOn, ByOwner, ByTask, ByThread, OwnedBy, TheGuardOfAThreadStaysOnIt};
    pub use crate::surface::scope::Scope;
}

/// Slices of the data in a [`RangeLocked`]: how they are asked for, what they are, and what may lie behind the lock.
#[cfg(not(any(loom, spanlock_shuttle)))]
pub mod slice {
    pub use crate::surface::slices::{
        AcquireSlice, DataRef, InArc, InRef, Part, Read, ReadSlice, SliceKind, SliceRequest, Storage, TimedSlice,
        Whole, WholeStorage, Write, WriteSlice,
    };
}

/// What a [`Snapshot`] and an [`AcquireError`] are made of.
pub mod snapshots {
    pub use crate::facts::error::{Asked, TimedOut, Wait, WouldRecurse};
    pub use crate::facts::snapshot::RequestInfo;
}
