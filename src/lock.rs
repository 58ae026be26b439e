//! The range lock itself: a tree, and the calls that ask it for ranges.

use crate::grant::{self, Tree};
use crate::guard::RangeGuard;
use crate::mode::Mode;
use crate::range::ByteRange;
use crate::request::Request;
use crate::sync::const_fn;
use std::fmt;
use std::ops::RangeBounds;
use std::sync::Arc;

/// A lock over all bytes that a `u64` can name, taken range by range.
///
/// A request asks for a range in a [`Mode`]. Requests that share no byte, or whose modes go together, hold at the same time; of those
/// that conflict, the first to come is the first served. An owner never conflicts with itself, and the owner of a blocking call
/// is its thread: the calls below can be nested.
///
/// A lock is 512 bytes, aligned to 128, and [`RangeLock::new`] is `const`, so a lock can be a `static` or lie in an inode. It owns no
/// heap memory until threads meet in it: then it grows nodes, which are given back when they are not used, or by [`RangeLock::trim`]. Where
/// somebody has had to wait, a list of sleepers stays until the lock is dropped (about 2 KiB at most, nodes on the heap apart).
///
/// Ranges are in bytes, and anything that is `RangeBounds<u64>`: `0..4096`, `4096..`, `..`, `..=u64::MAX`, a [`ByteRange`].
/// An empty range is granted at once and holds nothing.
///
/// # Nested requests
/// A thread that holds a range and asks for another is queued like anybody else if *others* are in the way. So two threads that
/// each hold what the other asks for wait for ever, and so does a thread that asks behind a queued request which waits for
/// what the thread holds. Use `try_` or a deadline there.
///
/// # Examples
/// ```
/// use spanlock::RangeLock;
///
/// static FILE: RangeLock = RangeLock::new();
///
/// let read_ahead = FILE.add(0..65536);
/// let fault = FILE.add(4096..8192); // adders go together
/// assert!(std::thread::scope(|s| s.spawn(|| FILE.try_block(0..4096).is_none()).join().unwrap()));
/// assert!(std::thread::scope(|s| s.spawn(|| FILE.try_block(65536..).is_some()).join().unwrap()));
/// # drop((read_ahead, fault));
/// ```
pub struct RangeLock {
    tree: Tree,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<RangeLock>() <= 512, "an idle lock is at most 512 bytes");

impl RangeLock {
    const_fn! {
        /// A lock of which nothing is held.
        pub const fn new() -> RangeLock {
            RangeLock { tree: Tree::new() }
        }
    }

    /// Waits until `range` (bytes) is granted in [`Mode::Add`].
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    #[track_caller]
    #[inline]
    pub fn add(&self, range: impl RangeBounds<u64>) -> RangeGuard<'_> {
        self.request(range, Mode::Add).wait()
    }

    /// Waits until `range` (bytes) is granted in [`Mode::Block`].
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    #[track_caller]
    #[inline]
    pub fn block(&self, range: impl RangeBounds<u64>) -> RangeGuard<'_> {
        self.request(range, Mode::Block).wait()
    }

    /// Waits until `range` (bytes) is granted in [`Mode::Exclusive`].
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    #[track_caller]
    #[inline]
    pub fn exclusive(&self, range: impl RangeBounds<u64>) -> RangeGuard<'_> {
        self.request(range, Mode::Exclusive).wait()
    }

    /// `range` (bytes) in [`Mode::Add`], or `None` if a conflicting request holds, waits or is just arriving.
    ///
    /// Two `try_` calls that race for one free range may both get `None`.
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    #[track_caller]
    pub fn try_add(&self, range: impl RangeBounds<u64>) -> Option<RangeGuard<'_>> {
        self.request(range, Mode::Add).try_now()
    }

    /// `range` (bytes) in [`Mode::Block`], or `None` as for [`RangeLock::try_add`].
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    #[track_caller]
    pub fn try_block(&self, range: impl RangeBounds<u64>) -> Option<RangeGuard<'_>> {
        self.request(range, Mode::Block).try_now()
    }

    /// `range` (bytes) in [`Mode::Exclusive`], or `None` as for [`RangeLock::try_add`].
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    #[track_caller]
    pub fn try_exclusive(&self, range: impl RangeBounds<u64>) -> Option<RangeGuard<'_>> {
        self.request(range, Mode::Exclusive).try_now()
    }

    /// Asks for `range` (bytes) in `mode`: to be waited for, tried, given a deadline or awaited. Nothing happens before that.
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    ///
    /// # Examples
    /// ```
    /// # use spanlock::{Mode, RangeLock};
    /// # use std::time::Duration;
    /// # pollster::block_on(async {
    /// let lock = RangeLock::new();
    /// let head = lock.request(..4096, Mode::Exclusive).await;
    /// let tail = lock.request(4096.., Mode::Block).timeout(Duration::from_millis(10)).wait()?;
    /// assert!(lock.request(0..1, Mode::Add).try_now().is_none());
    /// # drop((head, tail)); Ok::<(), spanlock::TimedOut>(()) }).unwrap();
    /// ```
    #[track_caller]
    #[inline]
    pub fn request(&self, range: impl RangeBounds<u64>, mode: Mode) -> Request<&RangeLock> {
        Request::new(self, ByteRange::new(range), mode)
    }

    /// As [`RangeLock::request`], for a guard that keeps the lock alive itself and borrows nothing: for async tasks and worker pools.
    ///
    /// Such a request has an owner of its own, however it is waited for: it conflicts with what the calling thread holds.
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    ///
    /// # Examples
    /// ```
    /// # use spanlock::{Mode, RangeLock};
    /// # use std::{sync::Arc, thread};
    /// let lock = Arc::new(RangeLock::new());
    /// let guard = lock.request_arc(0..4096, Mode::Block).wait();
    /// let write = thread::spawn(move || drop(guard)); // completes elsewhere
    /// # write.join().unwrap();
    /// ```
    #[track_caller]
    pub fn request_arc(self: &Arc<Self>, range: impl RangeBounds<u64>, mode: Mode) -> Request<Arc<RangeLock>> {
        Request::new(Arc::clone(self), ByteRange::new(range), mode)
    }

    /// Gives the nodes back that no live request needs. Never waits; other threads go on meanwhile.
    ///
    /// Unused nodes are given back bit by bit anyway, while the lock is used.
    pub fn trim(&self) {
        grant::trim(&self.tree);
    }

    /// How many nodes (of 384 bytes) the lock has on the heap now: 0 for one that is quiet. Counts them: takes time in proportion.
    pub fn heap_nodes(&self) -> usize {
        grant::heap_nodes(&self.tree)
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }
}

impl Default for RangeLock {
    fn default() -> RangeLock {
        RangeLock::new()
    }
}

/// Says how many requests hold and wait, at some moment of the call.
impl fmt::Debug for RangeLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (holding, waiting) = grant::count(&self.tree);
        f.debug_struct("RangeLock").field("holding", &holding).field("waiting", &waiting).finish_non_exhaustive()
    }
}
