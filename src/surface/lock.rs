//! The range lock itself: a tree, and the calls that ask it for ranges.

use crate::facts::error::AcquireError;
use crate::facts::mode::Mode;
use crate::facts::owner::Owner;
use crate::facts::owner_kind::ByThread;
use crate::facts::range::ByteRange;
use crate::facts::snapshot::{RequestInfo, Snapshot};
use crate::platform::sync::const_fn;
use crate::protocol::grant;
use crate::protocol::lock_state::LockState;
use crate::protocol::poison;
use crate::surface::drained::Drain;
use crate::surface::guard::{ArcThreadGuard, RangeGuard};
use crate::surface::request::Request;
use std::borrow::Cow;
use std::fmt;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A lock over all bytes that a `u64` can name, taken range by range.
///
/// A request asks for a range in a [`Mode`]. Requests that share no byte, or whose modes go together, hold at the same
/// time; of those that conflict, the first to come is the first served. An owner never conflicts with itself, and the
/// owner of a blocking call is its thread: the calls below can be nested.
///
/// A lock is 512 bytes, aligned to 128, and [`RangeLock::new`] is `const`, so a lock can be a `static` or lie in an
/// inode. It owns no heap memory until threads meet in it: then it grows nodes, which are given back when they are not
/// used, or by [`RangeLock::trim`]. Where somebody has had to wait, a list of sleepers stays until the lock is dropped
/// (about 2 KiB at most, nodes on the heap apart).
///
/// Ranges are in bytes, and anything that is `RangeBounds<u64>`: `0..4096`, `4096..`, `..`, `..=u64::MAX`, a
/// [`ByteRange`]. An empty range is granted at once and holds nothing.
///
/// # Nested requests
/// A thread that holds a range may ask for another. If *others* are in the way it waits like anybody else, with two
/// differences. It passes a queued request exactly when waiting for that one would close a cycle (which waits for what
/// the thread holds, say). And if it would wait for somebody who waits for what the thread holds, it is refused: a
/// [`Deadlock`](crate::Deadlock) is an answer, not a hang. The calls below panic then; [`RangeLock::request`] returns
/// the error.
///
/// # Two jobs of one thread
/// The owner of a blocking call is its thread, and an owner does not conflict with itself. So if one thread has two
/// jobs in hand, *both are inside*: two futures of a `join!` that make blocking calls and hold the guards while they
/// await, or two jobs of a work-stealing pool that runs another job while one waits. Give each job an [`Owner`], or
/// await the requests: each is an owner of its own then. [`Recursion::Refuse`](crate::Recursion::Refuse) tells where it
/// happens:
///
/// ```
/// use spanlock::{AcquireError, Mode, RangeLock, Recursion};
///
/// let lock = RangeLock::new();
/// let one_job = lock.exclusive(0..8);
/// let other_job = lock.request(0..8, Mode::Exclusive).recursion(Recursion::Refuse).wait();
/// assert!(matches!(other_job, Err(AcquireError::WouldRecurse { .. })));
/// # drop(one_job);
/// ```
///
/// # fork(2)
/// It locks within one process. A child has the memory of its parent, and none of its other threads: what these held,
/// or were asking for, stays locked there for ever. So a child must not use a lock that other threads were using at the
/// moment of the fork. And what all locks share, the index of blocked requests and the names of owners, has mutexes: if
/// another thread was in a call of this library, of whichever lock, the child makes no nested requests, batches and
/// owners. Forks while no other thread holds or asks are right, and so are children that go on to exec(2).
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
    state: LockState,
}

#[cfg(not(any(loom, spanlock_shuttle)))]
const _: () = assert!(size_of::<RangeLock>() <= 512, "an idle lock is at most 512 bytes");

impl RangeLock {
    const_fn! {
        /// A lock of which nothing is held.
        pub const fn new() -> RangeLock {
            RangeLock { state: LockState::new(None) }
        }
    }

    const_fn! {
        /// A lock with a name, for the messages about deadlocks.
        pub const fn named(name: &'static str) -> RangeLock {
            RangeLock { state: LockState::new(Some(Cow::Borrowed(name))) }
        }
    }

    /// The same lock, in which newcomers may go before those who wait, as long as these have waited for less than
    /// `window`. With a window of zero, and if nothing is said, nobody does.
    ///
    /// First come, first served means that whoever is next may be asleep while nobody runs; where many ask for the same
    /// bytes and hold them briefly, that costs most of what a lock can do. With a *time-bounded bypass* (a reorder
    /// window) a request that finds the bytes free has them, though others wait for them, and these get on as they
    /// wake.
    ///
    /// - *Who passes:* a single request of a thread or a task that holds nothing else, when it comes; with a deadline,
    ///   too. No batch, no request of an [`Owner`], no nested one, no conversion, and no `try_`. Among those who wait
    ///   the order is the one in which they came.
    /// - *Who is passed:* the same, waiting. The others are passed by nobody, as they are what somebody waits for who
    ///   holds something.
    /// - *For how long:* nobody who comes later is granted before one who has waited for the window, but for a *rest*:
    ///   for an eighth of the window after somebody who came earlier, and had waited for the window himself, was
    ///   granted. Rests end for one who has waited for 16 windows ([`reordering_within`](RangeLock::reordering_within)
    ///   says another number). So of `k` who wait in a lock, the last is passed for one window and `k / 8` windows, 16
    ///   in all at most, and waits for `k` conflicting sections beside. (Without the rests a queue whose hand-overs
    ///   take longer than the window in all would be first come, first served for good.)
    ///
    /// A window of 1 ms suits sections of up to some microseconds. See "Which order?" in the documentation of the
    /// repository.
    ///
    /// # Examples
    /// ```
    /// use spanlock::RangeLock;
    /// use std::time::Duration;
    ///
    /// static ROWS: RangeLock = RangeLock::new().reordering(Duration::from_millis(1));
    ///
    /// assert_eq!(ROWS.window(), Some(Duration::from_millis(1)));
    /// let _row = ROWS.exclusive(7..8);
    /// ```
    pub const fn reordering(mut self, window: Duration) -> RangeLock {
        self.set_window(window);
        self
    }

    /// As [`reordering`](RangeLock::reordering), and nobody who comes later is granted before one who has waited for
    /// `most`, rests or not. It is taken as a number of windows, rounded down, one at least and 65,535 at most: with
    /// `most` equal to the window there are no rests.
    ///
    /// The shorter that is, the sooner a long queue is served first come, first served: about when it takes longer to
    /// hand the lock over to all who wait.
    ///
    /// # Examples
    /// ```
    /// use spanlock::RangeLock;
    /// use std::time::Duration;
    ///
    /// static ROWS: RangeLock = RangeLock::new().reordering_within(Duration::from_micros(500), Duration::from_millis(2));
    ///
    /// assert_eq!(ROWS.longest_bypass(), Some(Duration::from_millis(2)));
    /// ```
    pub const fn reordering_within(mut self, window: Duration, most: Duration) -> RangeLock {
        self.set_window_within(window, most);
        self
    }

    pub(crate) const fn set_window(&mut self, window: Duration) {
        self.state.set_window(window);
    }

    pub(crate) const fn set_window_within(&mut self, window: Duration, most: Duration) {
        self.state.set_window_within(window, most);
    }

    /// For how long those who wait let newcomers pass; `None` if nobody does.
    pub fn window(&self) -> Option<Duration> {
        self.state.window()
    }

    /// How long after its begin a wait lets nobody pass any more, whatever happens: the window and all rests. `None` if
    /// nobody passes.
    pub fn longest_bypass(&self) -> Option<Duration> {
        self.state.longest_bypass()
    }

    /// Gives it a name that was made at run time.
    pub fn set_name(&mut self, name: impl Into<Cow<'static, str>>) {
        self.state.set_name(Some(name.into()));
    }

    /// The name that it was given.
    pub fn name(&self) -> Option<&str> {
        self.state.name()
    }

    /// Waits until `range` (bytes) is granted in [`Mode::Add`].
    ///
    /// # Panics
    /// If the range is inverted, as slicing does; and if waiting would be a [`Deadlock`](crate::Deadlock), which only a
    /// thread that holds something already can meet. [`RangeLock::request`] returns that as an error.
    #[track_caller]
    #[inline]
    pub fn add(&self, range: impl RangeBounds<u64>) -> RangeGuard<'_> {
        granted(self.request(range, Mode::Add).wait())
    }

    /// Waits until `range` (bytes) is granted in [`Mode::Block`].
    ///
    /// # Panics
    /// As for [`RangeLock::add`].
    #[track_caller]
    #[inline]
    pub fn block(&self, range: impl RangeBounds<u64>) -> RangeGuard<'_> {
        granted(self.request(range, Mode::Block).wait())
    }

    /// Waits until `range` (bytes) is granted in [`Mode::Exclusive`].
    ///
    /// # Panics
    /// As for [`RangeLock::add`].
    #[track_caller]
    #[inline]
    pub fn exclusive(&self, range: impl RangeBounds<u64>) -> RangeGuard<'_> {
        granted(self.request(range, Mode::Exclusive).wait())
    }

    /// `range` (bytes) in [`Mode::Add`], or `None` if a conflicting request holds, waits or is just arriving.
    ///
    /// Two `try_` calls that race for one free range may both get `None`.
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    #[track_caller]
    #[must_use = "if it is granted, the range is released at once"]
    pub fn try_add(&self, range: impl RangeBounds<u64>) -> Option<RangeGuard<'_>> {
        self.request(range, Mode::Add).try_now()
    }

    /// `range` (bytes) in [`Mode::Block`], or `None` as for [`RangeLock::try_add`].
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    #[track_caller]
    #[must_use = "if it is granted, the range is released at once"]
    pub fn try_block(&self, range: impl RangeBounds<u64>) -> Option<RangeGuard<'_>> {
        self.request(range, Mode::Block).try_now()
    }

    /// `range` (bytes) in [`Mode::Exclusive`], or `None` as for [`RangeLock::try_add`].
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    #[track_caller]
    #[must_use = "if it is granted, the range is released at once"]
    pub fn try_exclusive(&self, range: impl RangeBounds<u64>) -> Option<RangeGuard<'_>> {
        self.request(range, Mode::Exclusive).try_now()
    }

    /// Waits until `range` (bytes) is granted in [`Mode::Add`], for `timeout` at most.
    ///
    /// # Errors
    /// [`AcquireError::TimedOut`] if it was not granted in time. [`AcquireError::Deadlock`] if waiting would be one,
    /// which only a thread that holds something already can meet.
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    #[track_caller]
    pub fn try_add_for(&self, range: impl RangeBounds<u64>, timeout: Duration) -> Result<RangeGuard<'_>, AcquireError> {
        self.request(range, Mode::Add).timeout(timeout).wait()
    }

    /// As [`RangeLock::try_add_for`], until `deadline`.
    ///
    /// # Errors
    /// As for [`RangeLock::try_add_for`].
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    #[track_caller]
    pub fn try_add_until(
        &self,
        range: impl RangeBounds<u64>,
        deadline: Instant,
    ) -> Result<RangeGuard<'_>, AcquireError> {
        self.request(range, Mode::Add).deadline(deadline).wait()
    }

    /// As [`RangeLock::add`], for a guard that keeps the lock alive itself and borrows nothing.
    ///
    /// It is the thread's, and stays there; so the thread can ask for more meanwhile. For a guard that goes elsewhere
    /// there is [`RangeLock::request_arc`].
    ///
    /// # Panics
    /// As for [`RangeLock::add`].
    ///
    /// ```
    /// use spanlock::{ArcThreadGuard, RangeLock};
    /// use std::sync::Arc;
    ///
    /// struct Open {
    ///     head: ArcThreadGuard, // no lifetime
    /// }
    /// let open = Open { head: Arc::new(RangeLock::new()).add_arc(..4096) };
    /// # drop(open.head);
    /// ```
    #[track_caller]
    pub fn add_arc(self: &Arc<Self>, range: impl RangeBounds<u64>) -> ArcThreadGuard {
        granted(self.by_thread(range, Mode::Add).wait())
    }

    /// As [`RangeLock::try_add`], for a guard that keeps the lock alive: see [`RangeLock::add_arc`].
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    #[track_caller]
    #[must_use = "if it is granted, the range is released at once"]
    pub fn try_add_arc(self: &Arc<Self>, range: impl RangeBounds<u64>) -> Option<ArcThreadGuard> {
        self.by_thread(range, Mode::Add).try_now()
    }

    /// Waits until `range` (bytes) is granted in [`Mode::Block`], for `timeout` at most.
    ///
    /// # Errors
    /// [`AcquireError::TimedOut`] if it was not granted in time. [`AcquireError::Deadlock`] if waiting would be one,
    /// which only a thread that holds something already can meet.
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    #[track_caller]
    pub fn try_block_for(
        &self,
        range: impl RangeBounds<u64>,
        timeout: Duration,
    ) -> Result<RangeGuard<'_>, AcquireError> {
        self.request(range, Mode::Block).timeout(timeout).wait()
    }

    /// As [`RangeLock::try_block_for`], until `deadline`.
    ///
    /// # Errors
    /// As for [`RangeLock::try_block_for`].
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    #[track_caller]
    pub fn try_block_until(
        &self,
        range: impl RangeBounds<u64>,
        deadline: Instant,
    ) -> Result<RangeGuard<'_>, AcquireError> {
        self.request(range, Mode::Block).deadline(deadline).wait()
    }

    /// As [`RangeLock::block`], for a guard that keeps the lock alive: see [`RangeLock::add_arc`].
    ///
    /// # Panics
    /// As for [`RangeLock::add`].
    #[track_caller]
    pub fn block_arc(self: &Arc<Self>, range: impl RangeBounds<u64>) -> ArcThreadGuard {
        granted(self.by_thread(range, Mode::Block).wait())
    }

    /// As [`RangeLock::try_block`], for a guard that keeps the lock alive: see [`RangeLock::add_arc`].
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    #[track_caller]
    #[must_use = "if it is granted, the range is released at once"]
    pub fn try_block_arc(self: &Arc<Self>, range: impl RangeBounds<u64>) -> Option<ArcThreadGuard> {
        self.by_thread(range, Mode::Block).try_now()
    }

    /// Waits until `range` (bytes) is granted in [`Mode::Exclusive`], for `timeout` at most.
    ///
    /// # Errors
    /// [`AcquireError::TimedOut`] if it was not granted in time. [`AcquireError::Deadlock`] if waiting would be one,
    /// which only a thread that holds something already can meet.
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    #[track_caller]
    pub fn try_exclusive_for(
        &self,
        range: impl RangeBounds<u64>,
        timeout: Duration,
    ) -> Result<RangeGuard<'_>, AcquireError> {
        self.request(range, Mode::Exclusive).timeout(timeout).wait()
    }

    /// As [`RangeLock::try_exclusive_for`], until `deadline`.
    ///
    /// # Errors
    /// As for [`RangeLock::try_exclusive_for`].
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    #[track_caller]
    pub fn try_exclusive_until(
        &self,
        range: impl RangeBounds<u64>,
        deadline: Instant,
    ) -> Result<RangeGuard<'_>, AcquireError> {
        self.request(range, Mode::Exclusive).deadline(deadline).wait()
    }

    /// As [`RangeLock::exclusive`], for a guard that keeps the lock alive: see [`RangeLock::add_arc`].
    ///
    /// # Panics
    /// As for [`RangeLock::add`].
    #[track_caller]
    pub fn exclusive_arc(self: &Arc<Self>, range: impl RangeBounds<u64>) -> ArcThreadGuard {
        granted(self.by_thread(range, Mode::Exclusive).wait())
    }

    /// As [`RangeLock::try_exclusive`], for a guard that keeps the lock alive: see [`RangeLock::add_arc`].
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    #[track_caller]
    #[must_use = "if it is granted, the range is released at once"]
    pub fn try_exclusive_arc(self: &Arc<Self>, range: impl RangeBounds<u64>) -> Option<ArcThreadGuard> {
        self.by_thread(range, Mode::Exclusive).try_now()
    }

    #[track_caller]
    fn by_thread(self: &Arc<Self>, range: impl RangeBounds<u64>, mode: Mode) -> Request<Arc<RangeLock>, ByThread> {
        Request::by(Arc::clone(self), ByteRange::new(range), mode)
    }

    /// Whether a new owner that asked for `range` (bytes) in `mode` at this moment would have to wait: somebody, the
    /// caller perhaps, holds some of it in a mode that conflicts, waits for it, or is just asking. True or false, it
    /// may be past by the time that one looks; who holds all the while is seen. It makes no request: nobody has to wait
    /// because of it.
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    ///
    /// ```
    /// use spanlock::{Mode, RangeLock};
    ///
    /// let file = RangeLock::new();
    /// let _read = file.add(0..4096);
    /// assert!(file.is_locked(.., Mode::Exclusive) && !file.is_locked(.., Mode::Add));
    /// ```
    #[track_caller]
    pub fn is_locked(&self, range: impl RangeBounds<u64>, mode: Mode) -> bool {
        let range = ByteRange::new(range);
        !range.is_empty() && !grant::is_free(&self.state, range, mode)
    }

    /// The holds that a request of `owner` for `range` (bytes) in `mode` would meet, in the order of their ranges: each
    /// of another owner, with a byte of the range, and in a mode that does not go with `mode`. With `None`, a request
    /// of somebody who holds nothing.
    ///
    /// What `fcntl(F_GETLK)` asks, without the rest of the lock: it takes time in proportion to what is in the way, not
    /// to all requests. Who waits is not among them (but one that is just arriving counts as a holder, as in a
    /// [snapshot](RangeLock::snapshot)), so that there may be a wait though nothing is returned:
    /// [`is_locked`](RangeLock::is_locked) says that. Others go on meanwhile; who holds all the while is among them. It
    /// makes no request: nobody has to wait because of it.
    ///
    /// **Locking behaviour:** it waits for no request and for no search for deadlocks. It takes, for a moment, a lock
    /// of the list of names for each hold of an [`Owner`] that it returns.
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    ///
    /// ```
    /// use spanlock::{ByteRange, Mode, Owner, RangeLock};
    /// let file = RangeLock::new();
    /// let client = Owner::named("client 7");
    /// let _write = file.request(4096..8192, Mode::Exclusive).owner(&client).wait().unwrap();
    /// let conflicts = file.conflicts(.., Mode::Add, None);
    /// assert_eq!((conflicts[0].range(), conflicts[0].owner_name()), (ByteRange::new(4096..8192), Some("client 7")));
    /// assert!(file.conflicts(.., Mode::Add, Some(&client)).is_empty()); // it is its own
    /// ```
    #[track_caller]
    pub fn conflicts(&self, range: impl RangeBounds<u64>, mode: Mode, owner: Option<&Owner>) -> Vec<RequestInfo> {
        let range = ByteRange::new(range);
        if range.is_empty() {
            return Vec::new();
        }
        // No owner has the id 0.
        let owner = owner.map_or(0, |owner| owner.id().get());
        Snapshot::new(grant::conflicts(&self.state, range, mode, owner)).into_requests()
    }

    /// Asks for `range` (bytes) in `mode`: to be waited for, tried, given a deadline or awaited. Nothing happens before
    /// that.
    ///
    /// The guard borrows the lock. For one that goes to another task or thread, and for a request of an [`Owner`] that
    /// is awaited, there is [`RangeLock::request_arc`].
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    ///
    /// # Examples
    /// ```
    /// use spanlock::{AcquireError, Mode, RangeLock};
    /// use std::time::Duration;
    ///
    /// async fn both(lock: &RangeLock) -> Result<(), AcquireError> {
    ///     let _head = lock.request(..4096, Mode::Exclusive).await;
    ///     let _tail = lock.request(4096.., Mode::Block).timeout(Duration::from_millis(10)).wait()?;
    ///     assert!(lock.request(0..1, Mode::Add).try_now().is_none());
    ///     Ok(())
    /// }
    /// # pollster::block_on(both(&RangeLock::new())).unwrap();
    /// ```
    #[track_caller]
    #[inline]
    pub fn request(&self, range: impl RangeBounds<u64>, mode: Mode) -> Request<&RangeLock> {
        Request::new(self, ByteRange::new(range), mode)
    }

    /// As [`RangeLock::request`], for a guard that keeps the lock alive itself and borrows nothing: for async tasks and
    /// worker pools.
    ///
    /// Such a request has an owner of its own, however it is waited for: it conflicts with what the calling thread
    /// holds. (A thread that waits so for itself is told, by a panic.) Who holds such a guard and wants more asks
    /// [through it](crate::Guard::request).
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    ///
    /// # Examples
    /// ```
    /// use spanlock::{Mode, RangeLock};
    /// use std::{sync::Arc, thread};
    ///
    /// let lock = Arc::new(RangeLock::new());
    /// let guard = lock.request_arc(0..4096, Mode::Block).wait();
    /// let write = thread::spawn(move || drop(guard)); // completes elsewhere
    /// # write.join().unwrap();
    /// ```
    #[track_caller]
    pub fn request_arc(self: &Arc<Self>, range: impl RangeBounds<u64>, mode: Mode) -> Request<Arc<RangeLock>> {
        Request::new(Arc::clone(self), ByteRange::new(range), mode)
    }

    /// Says that all who hold some of `range` (bytes) now are stuck, or dead: whoever would have to wait for one of
    /// them is refused from now on, with [`AcquireError::Poisoned`]. As [`Guard::poison`](crate::Guard::poison), which
    /// says what that means, for whoever has none of their guards: a watcher, when a thread has ended with its guard
    /// forgotten. Says how many they are; one that is being converted, extended or split can count twice, and one who is
    /// just asking can count, too.
    ///
    /// To find them takes a look at the lock, as long as which a guard of a lock in which somebody is poisoned waits to
    /// be converted, extended or split.
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    ///
    /// ```
    /// use spanlock::{AcquireError, Mode, Owner, RangeLock};
    /// let log = RangeLock::new();
    /// std::mem::forget(log.exclusive(0..4096)); // nobody will let go of it
    /// assert_eq!(log.poison(.., "its thread has ended"), 1);
    /// let refused = log.request(0..1, Mode::Add).owner(&Owner::new()).wait();
    /// assert!(matches!(refused, Err(AcquireError::Poisoned(_))));
    /// assert_eq!(log.clear_poison(..), 1);
    /// ```
    #[track_caller]
    pub fn poison(&self, range: impl RangeBounds<u64>, reason: impl AsRef<str>) -> usize {
        poison::poison_all(&self.state, ByteRange::new(range), reason.as_ref())
    }

    /// Takes [`poison`](RangeLock::poison) back, and what a guard has said of itself by
    /// [`Guard::poison`](crate::Guard::poison), for all who hold some of `range` (bytes): they get on after all. Says
    /// of how many. One that is being converted, extended or split is cured wherever it is.
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    #[track_caller]
    pub fn clear_poison(&self, range: impl RangeBounds<u64>) -> usize {
        poison::cure_all(&self.state, ByteRange::new(range))
    }

    /// Waits, when it is told to, until everybody has gone who is in conflict with `range` (bytes) in `mode` and came
    /// first, holders and those who wait; and asks for nothing: nobody who comes later waits for it, or is waited for.
    /// See [`Drain`].
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    ///
    /// # Examples
    /// ```
    /// use spanlock::{AcquireError, Mode, RangeLock};
    /// use std::time::Duration;
    ///
    /// async fn drain(lock: &RangeLock) {
    ///     let read = lock.request(0..4096, Mode::Add).await;
    ///     assert!(lock.drained(0..8192, Mode::Add).try_now()); // no adder is in its way
    ///     let late = lock.drained(0..8192, Mode::Exclusive).timeout(Duration::from_millis(1)).wait();
    ///     assert!(matches!(late, Err(AcquireError::TimedOut(_))));
    ///     drop(read);
    ///     lock.drained(0..8192, Mode::Exclusive).await;
    /// }
    /// # pollster::block_on(drain(&RangeLock::new()));
    /// ```
    #[track_caller]
    pub fn drained(&self, range: impl RangeBounds<u64>, mode: Mode) -> Drain<&RangeLock> {
        Drain::new(self, ByteRange::new(range), mode)
    }

    /// As [`RangeLock::drained`], of one that keeps the lock alive itself, and has an owner of its own however it is
    /// waited for: see [`RangeLock::request_arc`].
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    #[track_caller]
    pub fn drained_arc(self: &Arc<Self>, range: impl RangeBounds<u64>, mode: Mode) -> Drain<Arc<RangeLock>> {
        Drain::new(Arc::clone(self), ByteRange::new(range), mode)
    }

    /// Who holds and who waits, for how long and for whom. `Display` draws a map of it.
    ///
    /// Takes time in proportion to the requests; others go on meanwhile, so that it is not the picture of one moment.
    /// But who holds all the while is in it: so it looks once more whenever a guard of this lock was converted,
    /// extended or split meanwhile; where guards are converted without a pause it can take many looks.
    ///
    /// **Locking behaviour:** it waits for no request and for no search for deadlocks. It takes, one after the other
    /// and for a moment each, a lock of the index of blocked requests for each request that waits, and a lock of the
    /// list of names for each request of an [`Owner`].
    ///
    /// ```
    /// use spanlock::{Mode, RangeLock};
    ///
    /// let file = RangeLock::new();
    /// let write = file.block(0..8192);
    /// let snapshot = file.snapshot();
    /// println!("{snapshot}");
    /// assert_eq!(snapshot.holders().next().unwrap().mode(), Mode::Block);
    /// assert_eq!(snapshot.waiters().count(), 0);
    /// ```
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.name(), grant::rows(&self.state))
    }

    /// Gives the nodes back that no live request needs. Never waits; other threads go on meanwhile.
    ///
    /// Unused nodes are given back bit by bit anyway, while the lock is used.
    pub fn trim(&self) {
        grant::trim(&self.state.tree);
    }

    /// How many nodes (of 384 bytes) the lock has on the heap now: 0 for one that is quiet. Counts them: takes time in
    /// proportion.
    pub fn heap_nodes(&self) -> usize {
        grant::heap_nodes(&self.state.tree)
    }

    pub(crate) fn state(&self) -> &LockState {
        &self.state
    }
}

/// The guard of a call that returns no error.
#[inline]
#[track_caller]
pub(crate) fn granted<G>(answer: Result<G, AcquireError>) -> G {
    match answer {
        Ok(guard) => guard,
        Err(refused) => refuse(&refused),
    }
}

#[cold]
#[track_caller]
fn refuse(refused: &AcquireError) -> ! {
    panic!("{refused}")
}

impl Default for RangeLock {
    fn default() -> RangeLock {
        RangeLock::new()
    }
}

/// Says how many requests hold and wait, at some moment of the call.
impl fmt::Debug for RangeLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (holding, waiting) = grant::count(&self.state.tree);
        let mut out = f.debug_struct("RangeLock");
        if let Some(name) = self.name() {
            out.field("name", &name);
        }
        out.field("holding", &holding).field("waiting", &waiting).finish_non_exhaustive()
    }
}
