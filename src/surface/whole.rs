//! The whole-file lock: the full range, nothing more.

use crate::facts::error::AcquireError;
use crate::facts::mode::Mode;
use crate::facts::snapshot::Snapshot;
use crate::platform::sync::const_fn;
use crate::surface::drained::Drain;
use crate::surface::guard::RangeGuard;
use crate::surface::lock::RangeLock;
use crate::surface::request::Request;
use std::time::{Duration, Instant};

/// A lock with the three modes and no ranges: the two-state lock (add, block) that Kent Overstreet's notes on
/// page-cache consistency ask for, and an exclusive mode. It is a [`RangeLock`] of which always everything is asked
/// for, and grants first come, first served.
///
/// ```
/// use spanlock::WholeFileLock;
///
/// let file = WholeFileLock::new();
/// let fill = file.add();
/// std::thread::scope(|s| {
///     s.spawn(|| assert!(file.try_block().is_none())); // another thread
/// });
/// drop(fill);
/// ```
#[derive(Debug, Default)]
pub struct WholeFileLock {
    lock: RangeLock,
}

impl WholeFileLock {
    const_fn! {
        /// A lock that nobody holds.
        pub const fn new() -> WholeFileLock {
            WholeFileLock { lock: RangeLock::new() }
        }
    }

    /// The same lock, in which newcomers may go before those who have waited for less than `window`: see
    /// [`RangeLock::reordering`].
    pub const fn reordering(mut self, window: Duration) -> WholeFileLock {
        self.lock.set_window(window);
        self
    }

    /// As [`RangeLock::reordering_within`].
    pub const fn reordering_within(mut self, window: Duration, most: Duration) -> WholeFileLock {
        self.lock.set_window_within(window, most);
        self
    }

    /// For how long those who wait let newcomers pass; `None` if nobody does.
    pub fn window(&self) -> Option<Duration> {
        self.lock.window()
    }

    /// Waits until it is granted in [`Mode::Add`].
    #[inline]
    pub fn add(&self) -> RangeGuard<'_> {
        self.lock.add(..)
    }

    /// Waits until it is granted in [`Mode::Block`].
    #[inline]
    pub fn block(&self) -> RangeGuard<'_> {
        self.lock.block(..)
    }

    /// Waits until it is granted in [`Mode::Exclusive`].
    #[inline]
    pub fn exclusive(&self) -> RangeGuard<'_> {
        self.lock.exclusive(..)
    }

    /// The lock in [`Mode::Add`], or `None` if a conflicting request holds, waits or is just arriving.
    #[must_use = "if it is granted, the lock is released at once"]
    pub fn try_add(&self) -> Option<RangeGuard<'_>> {
        self.lock.try_add(..)
    }

    /// The lock in [`Mode::Block`], or `None` as for [`WholeFileLock::try_add`].
    #[must_use = "if it is granted, the lock is released at once"]
    pub fn try_block(&self) -> Option<RangeGuard<'_>> {
        self.lock.try_block(..)
    }

    /// The lock in [`Mode::Exclusive`], or `None` as for [`WholeFileLock::try_add`].
    #[must_use = "if it is granted, the lock is released at once"]
    pub fn try_exclusive(&self) -> Option<RangeGuard<'_>> {
        self.lock.try_exclusive(..)
    }

    /// As [`RangeLock::try_add_for`].
    ///
    /// # Errors
    /// As for that.
    pub fn try_add_for(&self, timeout: Duration) -> Result<RangeGuard<'_>, AcquireError> {
        self.lock.try_add_for(.., timeout)
    }

    /// As [`RangeLock::try_block_for`].
    ///
    /// # Errors
    /// As for that.
    pub fn try_block_for(&self, timeout: Duration) -> Result<RangeGuard<'_>, AcquireError> {
        self.lock.try_block_for(.., timeout)
    }

    /// As [`RangeLock::try_exclusive_for`].
    ///
    /// # Errors
    /// As for that.
    pub fn try_exclusive_for(&self, timeout: Duration) -> Result<RangeGuard<'_>, AcquireError> {
        self.lock.try_exclusive_for(.., timeout)
    }

    /// As [`RangeLock::try_add_until`].
    ///
    /// # Errors
    /// As for that.
    pub fn try_add_until(&self, deadline: Instant) -> Result<RangeGuard<'_>, AcquireError> {
        self.lock.try_add_until(.., deadline)
    }

    /// As [`RangeLock::try_block_until`].
    ///
    /// # Errors
    /// As for that.
    pub fn try_block_until(&self, deadline: Instant) -> Result<RangeGuard<'_>, AcquireError> {
        self.lock.try_block_until(.., deadline)
    }

    /// As [`RangeLock::try_exclusive_until`].
    ///
    /// # Errors
    /// As for that.
    pub fn try_exclusive_until(&self, deadline: Instant) -> Result<RangeGuard<'_>, AcquireError> {
        self.lock.try_exclusive_until(.., deadline)
    }

    /// Who holds and who waits: see [`RangeLock::snapshot`].
    pub fn snapshot(&self) -> Snapshot {
        self.lock.snapshot()
    }

    /// The lock of ranges that it is, of which everything is asked for. It can be asked for parts as well; whoever asks
    /// for all of it waits for them.
    ///
    /// ```
    /// use spanlock::{Mode, WholeFileLock};
    ///
    /// let file = WholeFileLock::new();
    /// let header = file.as_range_lock().add(0..512);
    /// assert!(file.is_locked(Mode::Exclusive));
    /// # drop(header);
    /// ```
    pub fn as_range_lock(&self) -> &RangeLock {
        &self.lock
    }

    /// The same for keeps: in an `Arc` it gives guards that keep the lock ([`RangeLock::add_arc`]), and its requests
    /// can be awaited whoever owns them.
    pub fn into_range_lock(self) -> RangeLock {
        self.lock
    }

    /// Whether a new owner that asked for it in `mode` would have to wait: see [`RangeLock::is_locked`].
    pub fn is_locked(&self, mode: Mode) -> bool {
        self.lock.is_locked(.., mode)
    }

    /// Waits, when it is told to, until everybody has gone who conflicts with `mode` and came first: see
    /// [`RangeLock::drained`].
    pub fn drained(&self, mode: Mode) -> Drain<&RangeLock> {
        self.lock.drained(.., mode)
    }

    /// Asks for the lock in `mode`: see [`RangeLock::request`].
    pub fn request(&self, mode: Mode) -> Request<&RangeLock> {
        self.lock.request(.., mode)
    }
}
