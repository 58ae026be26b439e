//! What is asked, and the ways to get it: wait, try, wait until a deadline, await.

use crate::error::TimedOut;
use crate::grant::{self, Ask, Doorway, Held, Waiter};
use crate::guard::{ByTask, ByThread, Guard};
use crate::lock::RangeLock;
use crate::mode::Mode;
use crate::owner::{self, OwnerId, Visitor};
use crate::range::ByteRange;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// How a request and its guard hold on to their lock: `&RangeLock`, or `Arc<RangeLock>` for guards that borrow nothing.
///
/// Sealed: the guards rely on the lock staying where it is for as long as this value lives.
pub trait LockRef: sealed::Sealed + Deref<Target = RangeLock> + Unpin {
    /// Who owns the requests that a thread waits for: [`ByThread`] or [`ByTask`].
    type Blocking;
}

impl LockRef for &RangeLock {
    type Blocking = ByThread;
}
impl LockRef for Arc<RangeLock> {
    type Blocking = ByTask;
}

mod sealed {
    use super::{Arc, OwnerId, RangeLock, Visitor, owner};

    pub trait Sealed {
        /// The owner of a request that a thread waits for.
        #[allow(private_interfaces)] // Nobody outside can name the trait.
        fn blocking_owner(visitor: Visitor) -> OwnerId;
    }

    impl Sealed for &RangeLock {
        #[allow(private_interfaces)]
        #[inline]
        fn blocking_owner(visitor: Visitor) -> OwnerId {
            visitor.thread
        }
    }

    impl Sealed for Arc<RangeLock> {
        #[allow(private_interfaces)]
        fn blocking_owner(_: Visitor) -> OwnerId {
            owner::fresh()
        }
    }
}

/// A request for a range that has not been made yet: the answer of [`RangeLock::request`].
///
/// It is made by [`wait`](Request::wait), [`try_now`](Request::try_now), [`deadline`](Request::deadline) or `.await`.
#[must_use = "a request does nothing until it is waited for, tried or awaited"]
#[derive(Clone, Debug)]
pub struct Request<L> {
    lock: L,
    range: ByteRange,
    mode: Mode,
}

impl<L: LockRef> Request<L> {
    #[inline]
    pub(crate) fn new(lock: L, range: ByteRange, mode: Mode) -> Request<L> {
        Request { lock, range, mode }
    }

    /// Waits until the range is granted. Conflicting requests are granted in the order in which they came; others never wait.
    #[inline]
    pub fn wait(self) -> Guard<L, L::Blocking> {
        if self.range.is_empty() {
            return self.empty();
        }
        let (ask, visitor) = self.ask();
        // SAFETY: the guard made below keeps the lock where it is until the `Held` in it is dropped (see `Guard`); between
        // here and there `self.lock` does.
        let held = unsafe { grant::acquire(self.lock.tree(), &ask, visitor) };
        self.granted(held)
    }

    /// The range, if no conflicting request holds, waits or is just arriving: nobody barges.
    ///
    /// Two that race for one free range may both get `None`.
    pub fn try_now(self) -> Option<Guard<L, L::Blocking>> {
        if self.range.is_empty() {
            return Some(self.empty());
        }
        let (ask, visitor) = self.ask();
        // SAFETY: as in `wait`.
        let held = unsafe { grant::try_acquire(self.lock.tree(), &ask, visitor) }?;
        Some(self.granted(held))
    }

    /// Gives the wait an end. A deadline that has passed makes it a [`try_now`](Request::try_now).
    ///
    /// For a future, use your runtime's timeout: dropping the future cancels the request.
    pub fn deadline(self, deadline: Instant) -> TimedRequest<L> {
        TimedRequest { request: self, deadline: Some(deadline) }
    }

    /// As [`Request::deadline`], from now. A timeout too long to be a time is none.
    pub fn timeout(self, timeout: Duration) -> TimedRequest<L> {
        TimedRequest { request: self, deadline: Instant::now().checked_add(timeout) }
    }

    /// What the calling thread asks the tree for.
    #[inline]
    fn ask(&self) -> (Ask, Visitor) {
        let visitor = owner::visit();
        (Ask::new(self.range, self.mode, L::blocking_owner(visitor)), visitor)
    }

    #[inline]
    fn granted(self, held: Held) -> Guard<L, L::Blocking> {
        Guard::new(self.lock, held)
    }

    fn empty(self) -> Guard<L, L::Blocking> {
        let nothing = Held::nothing(self.mode);
        self.granted(nothing)
    }
}

/// A request with a deadline.
#[must_use = "a request does nothing until it is waited for"]
#[derive(Clone, Debug)]
pub struct TimedRequest<L> {
    request: Request<L>,
    deadline: Option<Instant>,
}

impl<L: LockRef> TimedRequest<L> {
    /// Waits until the range is granted or the deadline has passed.
    ///
    /// # Errors
    /// [`TimedOut`] if the deadline passed first. The request has then left the queue, and whoever waited for it goes on.
    pub fn wait(self) -> Result<Guard<L, L::Blocking>, TimedOut> {
        let TimedRequest { request, deadline } = self;
        let Some(deadline) = deadline else { return Ok(request.wait()) };
        if request.range.is_empty() {
            return Ok(request.empty());
        }
        let (ask, visitor) = request.ask();
        // SAFETY: as in `Request::wait`.
        let held = unsafe { grant::acquire_until(request.lock.tree(), &ask, visitor, deadline) };
        held.map(|held| request.granted(held)).ok_or(TimedOut)
    }
}

impl<L: LockRef> IntoFuture for Request<L> {
    type Output = Guard<L, ByTask>;
    type IntoFuture = Acquire<L>;

    fn into_future(self) -> Acquire<L> {
        Acquire { state: State::New, request: Some(self) }
    }
}

/// A request being awaited. Its owner is its own, since tasks move between threads.
///
/// It takes its place in the queue when it is polled first. Once queued it keeps those who come later waiting, so it must be polled
/// on (or dropped), like the future of any fair lock.
///
/// # Cancel safety
/// Dropping it leaves the queue and wakes whoever waited for it. The place is lost: awaiting a new request begins at the end.
///
/// # Panics
/// If polled after it was ready.
#[must_use = "futures do nothing unless polled"]
pub struct Acquire<L: LockRef> {
    // First, so that a waiter leaves its tree before the lock goes.
    state: State,
    /// `None` when the guard was handed out.
    request: Option<Request<L>>,
}

enum State {
    New,
    Queued(Waiter),
    Done,
}

impl<L: LockRef> Future for Acquire<L> {
    type Output = Guard<L, ByTask>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Guard<L, ByTask>> {
        let this = &mut *self;
        let request = this.request.as_ref().expect("polled after it was ready");
        let tree = request.lock.tree();
        if let State::New = this.state {
            if request.range.is_empty() {
                let nothing = Held::nothing(request.mode);
                return this.ready(nothing);
            }
            let ask = Ask::new(request.range, request.mode, owner::fresh());
            // SAFETY: what comes back goes into `state`, which is dropped before `request` and its lock, or into a guard together with
            // that lock. Both kinds of `L` keep the lock where it is when they, or this future, are moved.
            match unsafe { grant::enter(tree, &ask, owner::visit()) } {
                Doorway::Granted(held) => return this.ready(held),
                Doorway::Queued(waiter) => this.state = State::Queued(waiter),
            }
        }
        if let State::Queued(waiter) = &mut this.state {
            ready!(waiter.poll(tree, context));
        }
        match std::mem::replace(&mut this.state, State::Done) {
            State::Queued(waiter) => this.ready(waiter.into_held()),
            State::New | State::Done => unreachable!("it was queued a moment ago"),
        }
    }
}

impl<L: LockRef> Acquire<L> {
    fn ready(&mut self, held: Held) -> Poll<Guard<L, ByTask>> {
        let request = self.request.take().expect("`poll` has looked");
        self.state = State::Done;
        Poll::Ready(Guard::new(request.lock, held))
    }
}

/// Does nothing itself, but makes the future a user of its lock while it is dropped, as for [`Guard`]:
/// ```compile_fail,E0597
/// use spanlock::{Mode, RangeLock};
/// let mut future;
/// let lock = RangeLock::new();
/// future = std::future::IntoFuture::into_future(lock.request(.., Mode::Add));
/// ```
impl<L: LockRef> Drop for Acquire<L> {
    fn drop(&mut self) {}
}

impl<L: LockRef> fmt::Debug for Acquire<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match (&self.state, &self.request) {
            (State::New, _) => "not asked yet",
            (State::Queued(_), _) => "waiting",
            (State::Done, _) => "granted",
        };
        let mut out = f.debug_struct("Acquire");
        if let Some(request) = &self.request {
            out.field("range", &request.range).field("mode", &request.mode);
        }
        out.field("state", &format_args!("{state}")).finish()
    }
}
