//! Waiting until a range is drained, as users ask for it: wait, try, wait until a deadline, await.

use crate::facts::error::{AcquireError, Asked, OwnerName, Refused, TimedOut};
use crate::facts::mode::Mode;
use crate::facts::owner::Owner;
use crate::facts::owner_kind::{AwaitedOn, ByOwner, Counted, Entered, OwnedBy};
use crate::facts::range::ByteRange;
use crate::protocol::drain::{self, Begun};
use crate::protocol::lock_state::Ask;
use crate::surface::request::{LockRef, assert_awaitable, assert_kept};
use crate::wait;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// A wait that has not begun yet, until a range is *drained*: the answer of
/// [`RangeLock::drained`](crate::RangeLock::drained).
///
/// It is over when every request has gone that conflicts with the range and the mode, is not of the same owner, and had
/// arrived when the wait began: that held, or waited. It asks for nothing: nobody who comes later waits for it, or is
/// waited for; and nothing is held when it is over.
///
/// - *Gone* is who has released what conflicts, or given up, or downgraded or shrunk the guard so that it is in
///   nobody's way here. A guard that was split, converted or extended is still the same one, and is waited for. (What a
///   guard asks for besides, [through itself](crate::Guard::request), is another request.) A guard that came first, and
///   comes to conflict by becoming more meanwhile, is waited for, too.
/// - *Who comes later knows:* what the caller has done before the wait began, is seen by everybody who is granted these
///   bytes and is not waited for. So it turns users away from something and waits until the last of them has left,
///   while others use the bytes in the new way already (below).
/// - *The wait* begins when it is waited for, or polled first. Those who had arrived are finitely many, and wait for
///   nobody who came after them; so it ends when they have let go, however many come meanwhile. In a lock with a
///   [window](crate::RangeLock::reordering) those who had arrived may be passed themselves, for as long as the window
///   says.
///
/// | | `.wait()` | with a deadline | `.await` |
/// |---|---|---|---|
/// | of the thread (`&RangeLock`) | `Result` | `Result` | `()` |
/// | its own (`Arc<RangeLock>`) | `()` | `Result` | `()` |
/// | of an [`Owner`], by [`owner`](Drain::owner) | `Result` | `Result` | `Result` |
///
/// **Who holds something meanwhile says who it is,** as for any [request](crate::Request): a thread by itself, a task
/// through its [guard](crate::Guard::drained), in a [scope](Owner::scope), or by an [owner](Drain::owner). Then it does
/// not wait for what it holds itself; and if those whom it waits for wait for that, the answer is a
/// [`Deadlock`](crate::Deadlock). A drain lets nobody past anybody: that somebody whom it waits for only *waits* for
/// what its owner holds is a deadlock, too, where a request would have been let past.
///
/// # Examples
/// ```
/// use spanlock::{Mode, RangeLock};
/// use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
///
/// static FILE: RangeLock = RangeLock::new();
/// static IS_SEALED: AtomicBool = AtomicBool::new(false);
///
/// fn append(data: &[u8]) -> bool {
///     let _write = FILE.block(1 << 30..);
///     if IS_SEALED.load(Relaxed) {
///         return false;
///     }
///     // write
///     true
/// }
///
/// fn seal() {
///     IS_SEALED.store(true, Relaxed);
///     // All who have not seen that. Those who come now are not waited for.
///     FILE.drained(1 << 30.., Mode::Exclusive).wait().expect("this thread holds nothing");
///     // Nobody appends any more.
/// }
/// # assert!(append(b"one"));
/// # seal();
/// # assert!(!append(b"two"));
/// ```
#[must_use = "it does nothing until it is waited for, tried or awaited"]
#[derive(Clone, Debug)]
pub struct Drain<L: LockRef, O: OwnedBy = <L as LockRef>::Owner> {
    lock: L,
    range: ByteRange,
    mode: Mode,
    owner: O,
    /// Whether it is made through a guard: then it must stay that guard's owner's.
    through: bool,
}

impl<L: LockRef> Drain<L> {
    pub(crate) fn new(lock: L, range: ByteRange, mode: Mode) -> Drain<L> {
        Drain { lock, range, mode, owner: L::Owner::default(), through: false }
    }
}

impl<L: LockRef, O: OwnedBy> Drain<L, O> {
    /// Of `owner`, which has a guard of `lock` and asks through that.
    pub(crate) fn through(lock: L, range: ByteRange, mode: Mode, owner: O) -> Drain<L, O> {
        Drain { lock, range, mode, owner, through: true }
    }

    /// Makes it a wait of `owner`: it does not wait for the requests of that owner.
    ///
    /// To be awaited it needs a lock that is there for good, as [`Request::owner`](crate::Request::owner).
    pub fn owner(self, owner: &Owner) -> Drain<L, ByOwner> {
        let Drain { lock, range, mode, .. } = self;
        Drain { lock, range, mode, owner: ByOwner(owner.clone()), through: false }
    }

    /// Waits until the range is drained.
    ///
    /// # Errors
    /// For a thread or an [`Owner`]: [`AcquireError::Deadlock`], if those who are waited for wait for what the owner
    /// holds; [`AcquireError::Poisoned`], if one of them was [poisoned](crate::Guard::poison).
    ///
    /// # Panics
    /// As [`Request::wait`](crate::Request::wait): a wait with an owner of its own, if only the calling thread could
    /// end it, or if one of those was poisoned; and in an owner's [scope](Owner::scope), where the others have an
    /// error.
    #[track_caller]
    pub fn wait(self) -> O::Answer<()> {
        O::answer(self.make(None))
    }

    /// Whether it is drained: whether nobody holds, waits or is just asking who is in conflict. It does not wait, and
    /// changes nothing.
    ///
    /// As for the wait, whoever is granted these bytes later knows of what the caller has done before it was told
    /// `true`.
    #[must_use = "it changes nothing"]
    pub fn try_now(self) -> bool {
        self.make(Some(Instant::now())).is_ok()
    }

    /// Gives the wait an end. A deadline that has passed makes it a [`try_now`](Drain::try_now).
    ///
    /// For a future, use your runtime's timeout: dropping the future ends the wait.
    pub fn deadline(self, deadline: Instant) -> TimedDrain<L, O> {
        TimedDrain { drain: self, deadline: Some(deadline) }
    }

    /// As [`Drain::deadline`], from now. A timeout too long to be a time is none.
    pub fn timeout(self, timeout: Duration) -> TimedDrain<L, O> {
        TimedDrain { drain: self, deadline: Instant::now().checked_add(timeout) }
    }

    fn make(self, deadline: Option<Instant>) -> Result<(), AcquireError> {
        let Drain { lock, range, mode, owner, .. } = self;
        if range.is_empty() {
            return Ok(());
        }
        owner.join_scope();
        let state = lock.state();
        // Counted until the wait is over: what is asked for meanwhile is nested in it, and it in what there is.
        let (_entered, asker) = Entered::new(&owner);
        let ask = Ask::new(state, range, mode, &asker);
        let told = |refused: Refused| {
            refused.told(|| {
                let asked = Asked::new(state.label(), ask.range(), ask.mode());
                TimedOut::of_drain(OwnerName::of(ask.owner(), owner.token()), asked)
            })
        };
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return if drain::is_drained(state, &ask) { Ok(()) } else { Err(told(Refused::TimedOut)) };
        }
        // SAFETY: the lock is here, and stays, until the wait is over, or given up.
        let begun = unsafe { drain::Drain::begin(state, &ask, owner.token(), Begun::InCall) };
        match (begun, deadline) {
            (None, _) => Ok(()),
            (Some(drain), None) => drain.wait(state).map_err(told),
            (Some(drain), Some(deadline)) => drain.wait_until(state, deadline).map_err(told),
        }
    }
}

/// A [`Drain`] with a deadline: to be waited for by [`wait`](TimedDrain::wait).
///
/// It is no future: see [`TimedRequest`](crate::TimedRequest).
#[must_use = "it does nothing until it is waited for, by `.wait()`; in a task put the runtime's timeout around `drained(..)` and await that"]
#[derive(Clone, Debug)]
pub struct TimedDrain<L: LockRef, O: OwnedBy = <L as LockRef>::Owner> {
    drain: Drain<L, O>,
    deadline: Option<Instant>,
}

impl<L: LockRef, O: OwnedBy> TimedDrain<L, O> {
    /// Waits until the range is drained or the deadline has passed.
    ///
    /// # Errors
    /// [`AcquireError::TimedOut`] if the deadline passed first; [`AcquireError::Deadlock`] as for [`Drain::wait`].
    pub fn wait(self) -> Result<(), AcquireError> {
        self.drain.make(self.deadline)
    }
}

impl<L: LockRef, O: OwnedBy> IntoFuture for Drain<L, O>
where
    O::Awaited: AwaitedOn<L>,
{
    type Output = <O::Awaited as OwnedBy>::Answer<()>;
    type IntoFuture = Drained<L, O::Awaited>;

    /// # Panics
    /// If it is made through the guard of a thread: as a task's it would wait for that very guard.
    #[track_caller]
    fn into_future(self) -> Drained<L, O::Awaited> {
        let Drain { lock, range, mode, owner, through } = self;
        assert_awaitable(&owner, through);
        Drained { state: State::New(Drain { lock, range, mode, owner: owner.awaited(), through }) }
    }
}

/// A [`Drain`] being awaited. If it names no owner, it has one of its own, since tasks move between threads: it waits
/// for what its task holds, for ever, unless it is awaited [through the guard](crate::Guard::drained), in an owner's
/// [scope](Owner::scope), or by a [named owner](Drain::owner).
///
/// The wait begins at the first poll. (Of some hundred that the tasks of one thread make in a row one is put off by a
/// poll, as [requests](crate::Acquire) are.)
///
/// # Errors
/// For one of an [`Owner`], as for [`Drain::wait`].
///
/// # Cancel safety
/// Dropping it ends the wait; nobody else is concerned. Awaiting another one waits for those, too, who have come since.
/// The drop of one of an [`Owner`] blocks for a search for deadlocks that has found it and goes on, as does the poll
/// that is ready; no other does.
///
/// # Panics
/// If polled after it was ready. If it has an owner of its own, and one of those who are waited for was
/// [poisoned](crate::Guard::poison). In the [scope](Owner::scope) of an owner: if the answer is an error; and always,
/// if it is of no `Owner` and on a borrowed lock (`&RangeLock`).
#[must_use = "futures do nothing unless polled"]
pub struct Drained<L: LockRef, O: OwnedBy> {
    state: State<L, O>,
}

#[allow(clippy::large_enum_variant)] // A box would be an allocation for each that waits.
enum State<L: LockRef, O: OwnedBy> {
    New(Drain<L, O>),
    Waiting {
        // First, so that it leaves the index before the lock goes.
        drain: drain::Drain,
        lock: L,
        /// Counts it until it is dropped.
        _owner: Counted<O>,
    },
    Done,
}

impl<L: LockRef, O: OwnedBy> Future for Drained<L, O> {
    type Output = O::Answer<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let State::New(_) = this.state {
            ready!(wait::spend(context));
            if this.begin() {
                return Poll::Ready(O::answer(Ok(())));
            }
        }
        let State::Waiting { drain, lock, .. } = &mut this.state else { panic!("polled after it was ready") };
        let result = ready!(drain.poll(lock.state(), context));
        let State::Waiting { drain, lock, _owner } = std::mem::replace(&mut this.state, State::Done) else {
            unreachable!("it was waiting a moment ago");
        };
        // By itself, and before the lock goes.
        match result {
            Ok(()) => drain.end(),
            Err(_) => drop(drain),
        }
        drop(lock);
        Poll::Ready(O::answer(result.map_err(Refused::without_deadline)))
    }
}

impl<L: LockRef, O: OwnedBy> Drained<L, O> {
    /// The first poll. `true`: nobody is there.
    fn begin(&mut self) -> bool {
        let State::New(request) = std::mem::replace(&mut self.state, State::Done) else {
            unreachable!("called at the first poll only");
        };
        let Drain { lock, range, mode, owner, .. } = request;
        if owner.join_scope() {
            // A forgotten future would be in the index for good, and its lock perhaps gone (INV-C1).
            assert_kept::<L>();
        }
        if range.is_empty() {
            return true;
        }
        let (entered, asker) = Entered::new(&owner);
        let ask = Ask::new(lock.state(), range, mode, &asker);
        // SAFETY: it goes into `state` together with the lock, and is dropped before it. All kinds of `L` keep the lock
        // where it is when they, or this future, are moved.
        let begun = unsafe { drain::Drain::begin(lock.state(), &ask, owner.token(), Begun::InPoll) };
        let Some(drain) = begun else { return true };
        entered.keep();
        self.state = State::Waiting { drain, lock, _owner: Counted::new(owner) };
        false
    }
}

/// Does nothing itself, but makes the future a user of its lock while it is dropped, as for [`Guard`](crate::Guard):
/// ```compile_fail,E0597
/// use spanlock::{Mode, RangeLock};
/// let mut future;
/// let lock = RangeLock::new();
/// future = std::future::IntoFuture::into_future(lock.drained(.., Mode::Add));
/// ```
impl<L: LockRef, O: OwnedBy> Drop for Drained<L, O> {
    fn drop(&mut self) {}
}

impl<L: LockRef, O: OwnedBy> fmt::Debug for Drained<L, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Drained");
        let state = match &self.state {
            State::New(request) => {
                out.field("range", &request.range).field("mode", &request.mode);
                "not begun yet"
            }
            State::Waiting { drain, .. } => {
                out.field("waits_for", drain);
                "waiting"
            }
            State::Done => "answered",
        };
        out.field("state", &format_args!("{state}")).finish()
    }
}
