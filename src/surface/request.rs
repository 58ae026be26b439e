//! What is asked, and the ways to get it: wait, try, wait until a deadline, await.

use crate::facts::error::{AcquireError, Asked, OwnerName, Refused, TimedOut, WouldRecurse};
use crate::facts::mode::Mode;
use crate::facts::owner::{Owner, OwnerId, Recursion, Visitor};
use crate::facts::owner_kind::{AwaitedOn, ByOwner, ByTask, ByThread, Counted, Entered, OwnedBy};
use crate::facts::range::ByteRange;
use crate::protocol::announce;
use crate::protocol::grant::{self, Doorway, Held, Waiter};
use crate::protocol::lock_state::{Ask, LockState};
use crate::surface::announced::Announced;
use crate::surface::guard::Guard;
use crate::surface::lock::RangeLock;
use crate::wait;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// How a request and its guard hold on to their lock: `&RangeLock`, or `Arc<RangeLock>` for guards that borrow nothing.
///
/// Sealed: the guards rely on the lock staying where it is for as long as this value, or a clone of it, lives.
pub trait LockRef: sealed::Sealed + Clone + Deref<Target = RangeLock> + Unpin {
    /// Who owns a request that names no owner: [`ByThread`] or [`ByTask`].
    type Owner: OwnedBy + Default;
}

impl LockRef for &RangeLock {
    type Owner = ByThread;
}
impl LockRef for Arc<RangeLock> {
    type Owner = ByTask;
}

pub(crate) mod sealed {
    use super::{Arc, RangeLock};

    pub trait Sealed {
        /// Whether it keeps the lock where it is for as long as there is any clone of it, forgotten ones included.
        const KEEPS: bool;
    }

    impl Sealed for &RangeLock {
        const KEEPS: bool = false;
    }
    impl Sealed for Arc<RangeLock> {
        const KEEPS: bool = true;
    }
}

/// A request for a range that has not been made yet: the answer of [`RangeLock::request`].
///
/// **A task that holds something and asks for more says who it is: through its guard, in a scope, or by an owner. Else
/// it can wait for itself, and nobody can tell** ([`OwnedBy`] says why):
///
/// ```
/// use spanlock::{AcquireError, Mode, RangeLock};
/// use std::sync::Arc;
///
/// async fn grow(file: Arc<RangeLock>) -> Result<(), AcquireError> {
///     let write = file.request_arc(0..4096, Mode::Block).await;
///     // `file.request(0..512, Mode::Exclusive).await` would wait for `write`, for ever.
///     let _tail = write.request(0..512, Mode::Exclusive).await?;
///     Ok(())
/// }
/// # pollster::block_on(grow(Arc::new(RangeLock::new()))).unwrap();
/// ```
///
/// It is made by [`wait`](Request::wait), [`try_now`](Request::try_now), [`deadline`](Request::deadline) or `.await`.
/// Who owns it (see [`OwnedBy`]) says what it is answered with:
///
/// | | `.wait()` | with a deadline | `.await` |
/// |---|---|---|---|
/// | of the thread (`&RangeLock`) | `Result` | `Result` | the guard; it is then a task's |
/// | its own (`Arc<RangeLock>`) | the guard | `Result` | the guard |
/// | of an [`Owner`], by [`owner`](Request::owner) | `Result` | `Result` | `Result` |
///
/// The error is an [`AcquireError`]: a deadlock, a holder who was poisoned, a recursion that was to be refused, a
/// deadline that has passed.
#[must_use = "a request does nothing until it is waited for, tried or awaited"]
#[derive(Clone, Debug)]
pub struct Request<L: LockRef, O: OwnedBy = <L as LockRef>::Owner> {
    lock: L,
    range: ByteRange,
    mode: Mode,
    owner: O,
    /// If it was said.
    recursion: Option<Recursion>,
    /// Whether it is made through a guard: then it must stay that guard's owner's.
    through: bool,
}

impl<L: LockRef, O: OwnedBy + Default> Request<L, O> {
    /// Whatever the lock is referred to by, of this kind of owner.
    #[inline]
    pub(crate) fn by(lock: L, range: ByteRange, mode: Mode) -> Request<L, O> {
        Request { lock, range, mode, owner: O::default(), recursion: None, through: false }
    }
}

impl<L: LockRef> Request<L> {
    #[inline]
    pub(crate) fn new(lock: L, range: ByteRange, mode: Mode) -> Request<L> {
        Request { lock, range, mode, owner: L::Owner::default(), recursion: None, through: false }
    }
}

impl<L: LockRef, O: OwnedBy> Request<L, O> {
    /// Makes it a request of `owner`: it does not conflict with the others of that owner, and its guard is `Send`.
    ///
    /// To be awaited it needs a lock that is there for good: `&'static RangeLock`, or an `Arc` by
    /// [`RangeLock::request_arc`]. If the compiler says that a lock "does not live long enough", is "borrowed for
    /// `'static`" or "must outlive `'static`", this is why, and `request_arc` the remedy: see [`AwaitedOn`].
    pub fn owner(self, owner: &Owner) -> Request<L, ByOwner> {
        let Request { lock, range, mode, recursion, .. } = self;
        Request { lock, range, mode, owner: ByOwner(owner.clone()), recursion, through: false }
    }

    /// A request of `owner`, which has a guard of `lock` and asks through that.
    pub(crate) fn through(lock: L, range: ByteRange, mode: Mode, owner: O) -> Request<L, O> {
        Request { lock, range, mode, owner, recursion: None, through: true }
    }

    /// What it shall do if its own owner holds some of the bytes in a mode that conflicts.
    pub fn recursion(self, recursion: Recursion) -> Request<L, O> {
        Request { recursion: Some(recursion), ..self }
    }

    /// Waits until the range is granted. Conflicting requests are granted in the order in which they came; others never
    /// wait.
    ///
    /// # Errors
    /// For a thread or an [`Owner`] (a task gets the guard itself): [`AcquireError::Deadlock`],
    /// [`AcquireError::Poisoned`] if somebody in its way was [poisoned](Guard::poison), and
    /// [`AcquireError::WouldRecurse`] if the request [refuses](Recursion::Refuse) recursion.
    ///
    /// # Panics
    /// A request with an owner of its own, if only the calling thread could make way for it, as what it holds itself is
    /// in the way: the message says what; and if somebody in its way was [poisoned](Guard::poison). So does one in an
    /// owner's [scope](Owner::scope), where the others have an error.
    #[inline]
    #[track_caller]
    pub fn wait(self) -> O::Answer<Guard<L, O>> {
        let granted = self.make(
            |state, ask, visitor, token| {
                // SAFETY: the guard that `make` makes of this keeps the lock where it is until the `Held` in it is
                // dropped (see `Guard`); between here and there the request itself does.
                unsafe { grant::acquire(state, ask, visitor, token) }.map_err(without_deadline)
            },
            |own, state, owner| Box::new(would_recurse(own, state, owner)),
        );
        O::answer(granted.map_err(|refused| *refused))
    }

    /// The range, if no conflicting request holds, waits or is just arriving: nobody barges.
    ///
    /// Two that race for one free range may both get `None`. So does one that refuses recursion and would recurse.
    #[must_use = "if it is granted, the range is released at once"]
    pub fn try_now(self) -> Option<Guard<L, O>> {
        self.make(
            |state, ask, visitor, _| {
                // SAFETY: as in `wait`.
                unsafe { grant::try_acquire(state, ask, visitor) }.ok_or(())
            },
            |_, _, _| (),
        )
        .ok()
    }

    /// Gives the wait an end. A deadline that has passed makes it a [`try_now`](Request::try_now).
    ///
    /// For a future, use your runtime's timeout: dropping the future cancels the request.
    pub fn deadline(self, deadline: Instant) -> TimedRequest<L, O> {
        TimedRequest { request: self, deadline: Some(deadline) }
    }

    /// As [`Request::deadline`], from now. A timeout too long to be a time is none.
    pub fn timeout(self, timeout: Duration) -> TimedRequest<L, O> {
        TimedRequest { request: self, deadline: Instant::now().checked_add(timeout) }
    }

    /// Has `acquire` make the request, and makes a guard of what that says; `recurses` makes an error of what refuses
    /// recursion.
    #[inline(always)]
    fn make<E>(
        self,
        acquire: impl FnOnce(&LockState, &Ask, Visitor, Option<&Owner>) -> Result<Held, E>,
        recurses: impl FnOnce(OwnHold, &LockState, &O) -> E,
    ) -> Result<Guard<L, O>, E> {
        let Request { lock, range, mode, owner, recursion, .. } = self;
        if range.is_empty() {
            return Ok(Guard::new(lock, Held::nothing(mode), owner));
        }
        owner.join_scope();
        if recursion.unwrap_or(owner.recursion()) == Recursion::Refuse {
            if let Some(own) = own_hold(lock.state(), range, mode, &owner) {
                return Err(recurses(own, lock.state(), &owner));
            }
        }
        let held = begin(lock.state(), range, mode.bit(), &owner, acquire)?;
        Ok(Guard::new(lock, held, owner))
    }
}

impl<L: LockRef, O: OwnedBy<Awaited = ByTask>> Request<L, O> {
    /// Takes its place in the queue, and does not wait: its owner works at once, and asks afterwards whether anybody
    /// was in the way of what it has touched. See [`Announced`], which also says what that means for others.
    ///
    /// If nobody is in its way it is granted. It never waits; it takes time in proportion to those in its way.
    ///
    /// It has an owner of its own, as if it were awaited: so what its thread or task holds otherwise is in its way, and
    /// it is in theirs. There is none of an [`Owner`]: what that waits for meanwhile would be in front of it and behind
    /// it. (The compiler then speaks of `Awaited` and [`ByTask`].)
    ///
    /// # Panics
    /// In the [scope](Owner::scope) of an owner, and if it is made through the guard of a thread.
    ///
    /// # Cancel safety
    /// Dropping what it returns gives the place up. Forgetting that leaves the place in the queue for good, as a
    /// forgotten guard.
    ///
    /// # Examples
    /// ```
    /// use spanlock::{Mode, RangeLock};
    ///
    /// let lock = RangeLock::new();
    /// let scan = lock.request(0..100, Mode::Add).announce();
    /// assert!(scan.is_clear(0..100));
    /// ```
    #[track_caller]
    pub fn announce(self) -> Announced<L> {
        let Request { lock, range, mode, owner, through, .. } = self;
        assert!(!through && Owner::current().is_none(), "{OWNED}");
        let owner = owner.awaited();
        if range.is_empty() {
            return Announced::granted(Guard::new(lock, Held::nothing(mode), owner));
        }
        let (entered, asker) = Entered::new(&owner);
        let ask = Ask::new(lock.state(), range, mode, &asker);
        // SAFETY: what comes back goes into a guard or an `Announced`, together with the lock, and is dropped before
        // it. All kinds of `L` keep the lock where it is when they, or these, are moved.
        let announced = unsafe { announce::announce(lock.state(), &ask, asker.visitor) };
        entered.keep();
        match announced {
            announce::Entered::Granted(held) => Announced::granted(Guard::new(lock, held, owner)),
            announce::Entered::Queued(place) => Announced::queued(range, mode, place, lock, Counted::new(owner)),
        }
    }
}

const OWNED: &str = "what an owner asks for, in its scope or through a guard, cannot be announced: an announced request has an owner \
    of its own, and would wait for that one";

/// Counts the request, and has `acquire` do the rest.
///
/// This is where a call out of the caller's code goes to, with arguments and an answer that fit into registers: through
/// memory they would cost as much as another atomic operation. (The mode as its bit, which the caller most often knows
/// as he is compiled.)
#[inline(never)]
fn begin<O: OwnedBy, E>(
    state: &LockState,
    range: ByteRange,
    mode: u64,
    owner: &O,
    acquire: impl FnOnce(&LockState, &Ask, Visitor, Option<&Owner>) -> Result<Held, E>,
) -> Result<Held, E> {
    let (entered, asker) = Entered::new(owner);
    let ask = Ask::with_bit(state, range, mode, &asker);
    let held = acquire(state, &ask, asker.visitor, owner.token())?;
    entered.keep();
    Ok(held)
}

/// What an owner holds in the way of its own request.
pub(crate) struct OwnHold {
    owner: OwnerId,
    held: ByteRange,
    mode: Mode,
}

/// Why a request that refuses recursion may not begin, if it may not.
#[cold]
pub(crate) fn own_hold<O: OwnedBy>(state: &LockState, range: ByteRange, mode: Mode, owner: &O) -> Option<OwnHold> {
    let owner = owner.identity()?;
    let (held, mode) = grant::own_conflict(state, &Ask::at(range, mode, owner.get(), 0))?;
    Some(OwnHold { owner, held, mode })
}

/// The error of a request by `owner`, which has that in its own way.
#[cold]
pub(crate) fn would_recurse<O: OwnedBy>(own: OwnHold, state: &LockState, owner: &O) -> AcquireError {
    let held = Asked::new(state.label(), own.held, own.mode);
    AcquireError::WouldRecurse(WouldRecurse::new(OwnerName::of(own.owner, owner.token()), held))
}

/// The error of a request that waited for as long as it took.
#[cold]
#[allow(clippy::boxed_local)] // As it comes, and goes: in a register.
fn without_deadline(refused: Box<Refused>) -> Box<AcquireError> {
    Box::new(refused.without_deadline())
}

/// The error of a request that had a deadline: what it asked for, of one owner, of whom there is a `token` perhaps.
#[cold]
pub(crate) fn with_deadline(refused: Refused, asks: &[(&LockState, Ask)], token: Option<&Owner>) -> AcquireError {
    refused.told(|| {
        let asked = asks.iter().map(|(state, ask)| Asked::new(state.label(), ask.range(), ask.mode()));
        TimedOut::new(OwnerName::of(asks[0].1.owner(), token), asked)
    })
}

/// A request with a deadline: to be waited for by [`wait`](TimedRequest::wait).
///
/// It is no future, since the library has no clock that wakes tasks: put your runtime's timeout around the request,
/// `timeout(limit, lock.request(range, mode).into_future())`. What the timeout drops has left the queue.
#[must_use = "a request does nothing until it is waited for, by `.wait()`; in a task put the runtime's timeout around `request(..)` and await that"]
#[derive(Clone, Debug)]
pub struct TimedRequest<L: LockRef, O: OwnedBy = <L as LockRef>::Owner> {
    request: Request<L, O>,
    deadline: Option<Instant>,
}

/// What no kind of owner does: a request with a deadline waits in a call, as the library has no clock that wakes tasks.
/// The compiler names this to whoever awaits one.
pub trait AwaitTheRequestItselfInsideOfTheRuntimesTimeout {}

/// For the compiler's message only.
///
/// ```compile_fail,E0277
/// use spanlock::{Mode, RangeLock};
///
/// # async {
/// RangeLock::new().request(.., Mode::Add).timeout(std::time::Duration::MAX).await;
/// # };
/// ```
impl<L: LockRef, O: OwnedBy + AwaitTheRequestItselfInsideOfTheRuntimesTimeout> IntoFuture for TimedRequest<L, O> {
    type Output = Result<Guard<L, O>, AcquireError>;
    type IntoFuture = std::future::Pending<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        unreachable!("no await of it compiles")
    }
}

impl<L: LockRef, O: OwnedBy> TimedRequest<L, O> {
    /// Waits until the range is granted or the deadline has passed.
    ///
    /// # Errors
    /// [`AcquireError::TimedOut`] if the deadline passed first; the others as for [`Request::wait`]. The request has
    /// then left the queue, and whoever waited for it goes on.
    pub fn wait(self) -> Result<Guard<L, O>, AcquireError> {
        let TimedRequest { request, deadline } = self;
        let granted = request.make(
            |state, ask, visitor, token| match deadline {
                None => {
                    // SAFETY: as in `Request::wait`.
                    unsafe { grant::acquire(state, ask, visitor, token) }.map_err(without_deadline)
                }
                Some(deadline) => {
                    // SAFETY: as in `Request::wait`.
                    let granted = unsafe { grant::acquire_until(state, ask, visitor, token, deadline) };
                    granted.map_err(|refused| Box::new(with_deadline(refused, &[(state, *ask)], token)))
                }
            },
            |own, state, owner| Box::new(would_recurse(own, state, owner)),
        );
        granted.map_err(|refused| *refused)
    }
}

impl<L: LockRef, O: OwnedBy> IntoFuture for Request<L, O>
where
    O::Awaited: AwaitedOn<L>,
{
    type Output = <O::Awaited as OwnedBy>::Answer<Guard<L, O::Awaited>>;
    type IntoFuture = Acquire<L, O::Awaited>;

    /// # Panics
    /// If it is made through the guard of a thread: as a task's it would wait for that very guard.
    #[track_caller]
    fn into_future(self) -> Acquire<L, O::Awaited> {
        let Request { lock, range, mode, owner, recursion, through } = self;
        assert_awaitable(&owner, through);
        let request = Request { lock, range, mode, owner: owner.awaited(), recursion, through };
        Acquire { state: State::New(request) }
    }
}

/// A request being awaited. If it names no owner, it has one of its own, since tasks move between threads.
///
/// **A task that holds a guard and awaits bytes of that guard waits for itself, and two tasks that await each other's
/// for one another: nobody can tell.** Ask [through the guard](Guard::request), or in an owner's [scope](Owner::scope),
/// or by a [named owner](Request::owner): then the first is granted, and the second is a deadlock, and answered. See
/// [`OwnedBy`].
///
/// **A blocking call stops all tasks of its thread.** If one of them holds what the call asks for, and runs on that
/// thread only, both wait for ever. So in async code, await.
///
/// It takes its place in the queue when it is polled first (but see below). Once queued it keeps those who come later
/// waiting, so it must be polled on (or dropped), like the future of any fair lock.
///
/// A task that asks in a loop, and is granted at once each time, would keep its executor from everything else: so of
/// some hundred requests that the tasks of one thread make in a row, one is put off. Its first poll calls the waker and
/// is pending; it has not asked yet, and holds up nobody. So a poll is no way to try ([`Request::try_now`] is), unless
/// it is by a waker that leads nowhere, as [`Waker::noop`](std::task::Waker::noop).
///
/// # Errors
/// For a request of an [`Owner`], as for [`Request::wait`]. One without is answered with the guard.
///
/// # Cancel safety
/// Dropping it leaves the queue and wakes whoever waited for it. The place is lost: awaiting a new request begins at
/// the end.
///
/// A request of an [`Owner`], or of a task in a [scope](Owner::scope), is found by searches for deadlocks while it
/// waits. If one has found it and is under way, the drop blocks until that search has ended, and so does the poll that
/// is granted. (A search takes some microseconds among few waiters, and milliseconds among ten thousand. It waits for
/// nobody; but its thread can be taken off its processor.) The future of any other single request never blocks for
/// that.
///
/// # Wakers
/// A poll with another waker drops the last one, when all else is done and with nothing locked: its destructor may use
/// any lock, and release what this request waits for (the new waker is called then). But the request stands in the
/// queue meanwhile. So the destructor must not wait for what that is in the way of: it would wait for the poll that it
/// is called by. (The waker that is there when the future is dropped goes after the request's place.)
///
/// # Panics
/// If polled after it was ready. If it has an owner of its own, and somebody in its way was [poisoned](Guard::poison).
/// In the [scope](Owner::scope) of an owner: if the answer is an error; and always, if it is of no `Owner` and on a
/// borrowed lock (`&RangeLock`), which nobody could follow when the search for deadlocks comes by.
#[must_use = "futures do nothing unless polled"]
pub struct Acquire<L: LockRef, O: OwnedBy = ByTask> {
    state: State<L, O>,
}

#[allow(clippy::large_enum_variant)] // A box would be an allocation for each that waits.
enum State<L: LockRef, O: OwnedBy> {
    New(Request<L, O>),
    Queued {
        // First, so that the waiter leaves its tree before the lock goes, and the owner counts it until then.
        waiter: Waiter,
        lock: L,
        owner: Counted<O>,
    },
    /// It was announced, and nobody was in its way.
    Granted(Guard<L, O>),
    Done,
}

impl<L: LockRef, O: OwnedBy> Future for Acquire<L, O> {
    type Output = O::Answer<Guard<L, O>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let State::New(_) = this.state {
            ready!(wait::spend(context));
            match this.begin() {
                Ok(None) => {}
                Ok(Some(guard)) => return Poll::Ready(O::answer(Ok(guard))),
                Err(refused) => return Poll::Ready(O::answer(Err(refused))),
            }
        }
        let State::Queued { waiter, .. } = &mut this.state else {
            return Poll::Ready(O::answer(Ok(this.granted_before())));
        };
        let result = ready!(waiter.poll(context));
        let State::Queued { waiter, lock, owner } = std::mem::replace(&mut this.state, State::Done) else {
            unreachable!("it was queued a moment ago");
        };
        // By itself: with an error the waiter leaves its tree here, before `lock` goes. (A closure drops what it has in
        // the order of its use.)
        let holds = result.map(|()| waiter.into_holds()).map_err(Refused::without_deadline);
        Poll::Ready(O::answer(holds.map(|holds| Guard::new(lock, grant::the_one(holds), owner.into_owner()))))
    }
}

impl<L: LockRef> Acquire<L> {
    /// One that was announced, and waits from now on. `owner` has counted it.
    pub(crate) fn of_announced(waiter: Waiter, lock: L, owner: Counted<ByTask>) -> Acquire<L> {
        Acquire { state: State::Queued { waiter, lock, owner } }
    }

    /// One that was granted when it was announced.
    pub(crate) fn of_granted(guard: Guard<L, ByTask>) -> Acquire<L> {
        Acquire { state: State::Granted(guard) }
    }
}

impl<L: LockRef, O: OwnedBy> Acquire<L, O> {
    /// What was granted before it was polled.
    #[cold]
    #[track_caller]
    fn granted_before(&mut self) -> Guard<L, O> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Granted(guard) => guard,
            _ => panic!("polled after it was ready"),
        }
    }

    /// The first poll: the doorway. `None`: it is queued.
    fn begin(&mut self) -> Result<Option<Guard<L, O>>, AcquireError> {
        let State::New(request) = std::mem::replace(&mut self.state, State::Done) else {
            unreachable!("called at the first poll only");
        };
        let Request { lock, range, mode, owner, recursion, .. } = request;
        if owner.join_scope() {
            // A forgotten future would be in the index for good, and its lock perhaps gone (INV-C1).
            assert_kept::<L>();
        }
        if range.is_empty() {
            return Ok(Some(Guard::new(lock, Held::nothing(mode), owner)));
        }
        if recursion.unwrap_or(owner.recursion()) == Recursion::Refuse {
            if let Some(own) = own_hold(lock.state(), range, mode, &owner) {
                return Err(would_recurse(own, lock.state(), &owner));
            }
        }
        let (entered, asker) = Entered::new(&owner);
        let ask = Ask::new(lock.state(), range, mode, &asker);
        // SAFETY: what comes back goes into `state` or into a guard, together with the lock, and is dropped before it.
        // All kinds of `L` keep the lock where it is when they, or this future, are moved.
        let doorway = unsafe { grant::enter(lock.state(), &ask, asker.visitor, owner.token()) };
        entered.keep();
        match doorway {
            Doorway::Granted(held) => Ok(Some(Guard::new(lock, held, owner))),
            Doorway::Queued(waiter) => {
                self.state = State::Queued { waiter, lock, owner: Counted::new(owner) };
                Ok(None)
            }
        }
    }
}

/// What is asked for through the guard of a thread stays the thread's.
#[track_caller]
pub(crate) fn assert_awaitable<O: OwnedBy>(owner: &O, through: bool) {
    let is_of_thread = through && owner.token().is_none();
    assert!(
        !is_of_thread,
        "a request through the guard of a thread cannot be awaited: a task's request would wait for that guard; `.wait()` for it, or take an `Owner`"
    );
}

/// For a future that has become one of an owner's.
pub(crate) fn assert_kept<L: LockRef>() {
    assert!(L::KEEPS, "{BORROWED}");
}

const BORROWED: &str = "in the scope of an owner a request on a borrowed lock cannot be awaited: ask an `Arc` by `request_arc`, \
    or a lock that is there for good by `request(..).owner(&Owner::current().unwrap())`";

/// Does nothing itself, but makes the future a user of its lock while it is dropped, as for [`Guard`]:
/// ```compile_fail,E0597
/// use spanlock::{Mode, RangeLock};
/// let mut future;
/// let lock = RangeLock::new();
/// future = std::future::IntoFuture::into_future(lock.request(.., Mode::Add));
/// ```
impl<L: LockRef, O: OwnedBy> Drop for Acquire<L, O> {
    fn drop(&mut self) {}
}

impl<L: LockRef, O: OwnedBy> fmt::Debug for Acquire<L, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Acquire");
        let state = match &self.state {
            State::New(request) => {
                out.field("range", &request.range).field("mode", &request.mode);
                "not asked yet"
            }
            State::Queued { waiter, .. } => {
                out.field("asks", &waiter);
                "waiting"
            }
            State::Granted(guard) => {
                out.field("range", &guard.range()).field("mode", &guard.mode());
                "granted"
            }
            State::Done => "answered",
        };
        out.field("state", &format_args!("{state}")).finish()
    }
}
