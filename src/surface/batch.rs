//! Several requests under one ticket: all of them are granted, together, or none.

use crate::facts::error::{AcquireError, Refused};
use crate::facts::mode::Mode;
use crate::facts::owner::{Asker, Owner, Recursion, Visitor};
use crate::facts::owner_kind::{ByOwner, Counted, Entered, OwnedBy};
use crate::facts::range::ByteRange;
use crate::protocol::grant::{self, Doorway, Held, Holds, Waiter};
use crate::protocol::lock_state::{Ask, LockState};
use crate::surface::guard::Guard;
use crate::surface::lock::RangeLock;
use crate::surface::request::{LockRef, OwnHold, own_hold, with_deadline, would_recurse};
use crate::wait;
use smallvec::SmallVec;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::ops::{Deref, RangeBounds};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// Ranges of one lock or of several that are asked for together: for copies between files, renames, transactions of
/// several rows.
///
/// All parts take one place in the queue. They are granted together, when no earlier request is in the way of any, and
/// until then the batch holds none of them: so a batch whose owner holds nothing else never deadlocks, in whatever
/// order its parts are given. That makes it the remedy after a [`Deadlock`](crate::Deadlock): see
/// [`regain`](Batch::regain).
///
/// The parts have one owner, and an owner does not conflict with itself. So parts that overlap, in one mode or in
/// several, are all granted; others then see the strictest mode on each byte.
///
/// # Examples
/// ```
/// use spanlock::{AcquireError, Batch, RangeLock};
///
/// /// Copies within the kernel: the source may be read by others meanwhile.
/// fn copy(from: &RangeLock, to: &RangeLock) -> Result<(), AcquireError> {
///     let guards = Batch::new().add(from, 0..65536).exclusive(to, 4096..).wait()?;
///     assert_eq!(guards[1].range().start(), Some(4096));
///     Ok(())
/// }
/// # copy(&RangeLock::new(), &RangeLock::new()).unwrap();
/// ```
#[must_use = "a batch does nothing until it is waited for, tried or awaited"]
#[derive(Clone, Debug)]
pub struct Batch<L: LockRef = &'static RangeLock, O: OwnedBy = <L as LockRef>::Owner> {
    parts: SmallVec<[(L, ByteRange, Mode); 2]>,
    owner: O,
    /// If it was said.
    recursion: Option<Recursion>,
}

impl<L: LockRef> Batch<L> {
    /// A batch without parts.
    pub fn new() -> Batch<L> {
        Batch { parts: SmallVec::new(), owner: L::Owner::default(), recursion: None }
    }
}

impl<L: LockRef> Default for Batch<L> {
    fn default() -> Batch<L> {
        Batch::new()
    }
}

impl<L: LockRef, O: OwnedBy> Batch<L, O> {
    /// One more part: `range` (bytes) of `lock` in `mode`. An empty range is granted with the others and holds nothing.
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    #[track_caller]
    pub fn request(mut self, lock: L, range: impl RangeBounds<u64>, mode: Mode) -> Batch<L, O> {
        self.parts.push((lock, ByteRange::new(range), mode));
        self
    }

    /// One more part, in [`Mode::Add`].
    ///
    /// # Panics
    /// As for [`Batch::request`].
    #[track_caller]
    pub fn add(self, lock: L, range: impl RangeBounds<u64>) -> Batch<L, O> {
        self.request(lock, range, Mode::Add)
    }

    /// One more part, in [`Mode::Block`].
    ///
    /// # Panics
    /// As for [`Batch::request`].
    #[track_caller]
    pub fn block(self, lock: L, range: impl RangeBounds<u64>) -> Batch<L, O> {
        self.request(lock, range, Mode::Block)
    }

    /// One more part, in [`Mode::Exclusive`].
    ///
    /// # Panics
    /// As for [`Batch::request`].
    #[track_caller]
    pub fn exclusive(self, lock: L, range: impl RangeBounds<u64>) -> Batch<L, O> {
        self.request(lock, range, Mode::Exclusive)
    }

    /// Lets `guard` go *now*, and makes what it held a part of the batch: what to do after a
    /// [`Deadlock`](crate::Deadlock), for each guard of the owner that was refused, together with what was refused.
    /// Others may have had the bytes meanwhile: look again at what they guard.
    pub fn regain<P: OwnedBy>(mut self, guard: Guard<L, P>) -> Batch<L, O> {
        self.parts.push((guard.lock_ref().clone(), guard.range(), guard.mode()));
        drop(guard);
        self
    }

    /// Makes it a batch of `owner`.
    pub fn owner(self, owner: &Owner) -> Batch<L, ByOwner> {
        Batch { parts: self.parts, owner: ByOwner(owner.clone()), recursion: self.recursion }
    }

    /// What it shall do if its own owner holds bytes of some part in a mode that conflicts. (Its parts do not count:
    /// see [`Batch`].)
    pub fn recursion(self, recursion: Recursion) -> Batch<L, O> {
        Batch { recursion: Some(recursion), ..self }
    }

    /// Waits until all parts are granted.
    ///
    /// # Errors
    /// For a thread or an [`Owner`]: [`AcquireError::Deadlock`], only if the owner holds something beside the batch;
    /// [`AcquireError::Poisoned`]; and [`AcquireError::WouldRecurse`] if it [refuses](Recursion::Refuse) recursion. On
    /// an error none of the parts is held.
    ///
    /// # Panics
    /// As for [`Request::wait`](crate::Request::wait).
    #[track_caller]
    pub fn wait(self) -> O::Answer<BatchGuard<L, O>> {
        O::answer(self.make(
            |asks, visitor, token| {
                // SAFETY: `make` keeps the locks until it has made guards of this, which keep them from then on.
                match unsafe { grant::enter_batch(asks, visitor, token) } {
                    Doorway::Granted(holds) => Ok(holds),
                    Doorway::Queued(waiter) => waiter.wait().map_err(Refused::without_deadline),
                }
            },
            would_recurse,
        ))
    }

    /// All parts, if no conflicting request is in the way of any of them. As for
    /// [`Request::try_now`](crate::Request::try_now).
    #[must_use = "if it is granted, the ranges are released at once"]
    pub fn try_now(self) -> Option<BatchGuard<L, O>> {
        self.make(
            |asks, visitor, _| {
                // SAFETY: as in `wait`.
                unsafe { grant::try_acquire_batch(asks, visitor) }.ok_or(())
            },
            |_, _, _| (),
        )
        .ok()
    }

    /// Gives the wait an end. A deadline that has passed makes it a [`try_now`](Batch::try_now).
    pub fn deadline(self, deadline: Instant) -> TimedBatch<L, O> {
        TimedBatch { batch: self, deadline: Some(deadline) }
    }

    /// As [`Batch::deadline`], from now. A timeout too long to be a time is none.
    pub fn timeout(self, timeout: Duration) -> TimedBatch<L, O> {
        TimedBatch { batch: self, deadline: Instant::now().checked_add(timeout) }
    }

    /// As for a request by itself.
    fn make<E>(
        self,
        acquire: impl FnOnce(&[(&LockState, Ask)], Visitor, Option<&Owner>) -> Result<Holds, E>,
        recurses: impl FnOnce(OwnHold, &LockState, &O) -> E,
    ) -> Result<BatchGuard<L, O>, E> {
        let Batch { parts, owner, recursion } = self;
        if parts.iter().all(|(_, range, _)| range.is_empty()) {
            return Ok(hand_out(parts, Holds::new(), owner));
        }
        begin(&parts, &owner);
        if let Some((own, state)) = own_hold_of_any(&parts, &owner, recursion) {
            return Err(recurses(own, state, &owner));
        }
        let (entered, asker) = Entered::new(&owner);
        let holds = acquire(&asks(&parts, &asker), asker.visitor, owner.token())?;
        entered.keep();
        Ok(hand_out(parts, holds, owner))
    }
}

type PartsOf<L> = SmallVec<[(L, ByteRange, Mode); 2]>;

/// The batch is about to be made. Its guards have one owner, through each of them.
fn begin<L: LockRef, O: OwnedBy>(parts: &PartsOf<L>, owner: &O) {
    owner.join_scope();
    if parts.len() > 1 {
        owner.share(Owner::new);
    }
}

/// What the parts that are not empty ask for.
fn asks<'a, L: LockRef>(parts: &'a PartsOf<L>, asker: &Asker) -> SmallVec<[(&'a LockState, Ask); 2]> {
    let not_empty = parts.iter().filter(|(_, range, _)| !range.is_empty());
    not_empty.map(|(lock, range, mode)| (lock.state(), Ask::new(lock.state(), *range, *mode, asker))).collect()
}

/// As [`own_hold`], and where.
fn own_hold_of_any<'a, L: LockRef, O: OwnedBy>(
    parts: &'a PartsOf<L>,
    owner: &O,
    recursion: Option<Recursion>,
) -> Option<(OwnHold, &'a LockState)> {
    let refuses = recursion.unwrap_or(owner.recursion()) == Recursion::Refuse;
    let mut not_empty = parts.iter().filter(|(_, range, _)| refuses && !range.is_empty());
    not_empty.find_map(|(lock, range, mode)| Some((own_hold(lock.state(), *range, *mode, owner)?, lock.state())))
}

/// A guard for each part: the empty ones hold nothing, the others what is in `holds`. `owner` counts one of them so
/// far.
fn hand_out<L: LockRef, O: OwnedBy>(parts: PartsOf<L>, holds: Holds, owner: O) -> BatchGuard<L, O> {
    (1..holds.len()).for_each(|_| owner.join());
    let mut holds = holds.into_iter();
    let guards = parts.into_iter().map(|(lock, range, mode)| {
        let held = if range.is_empty() { None } else { holds.next() };
        Guard::new(lock, held.unwrap_or_else(|| Held::nothing(mode)), owner.clone())
    });
    BatchGuard { guards: guards.collect() }
}

/// A batch with a deadline.
///
/// It is no future: see [`TimedRequest`](crate::TimedRequest).
#[must_use = "a batch does nothing until it is waited for, by `.wait()`; in a task put the runtime's timeout around the batch and await that"]
#[derive(Clone, Debug)]
pub struct TimedBatch<L: LockRef, O: OwnedBy = <L as LockRef>::Owner> {
    batch: Batch<L, O>,
    deadline: Option<Instant>,
}

impl<L: LockRef, O: OwnedBy> TimedBatch<L, O> {
    /// Waits until all parts are granted or the deadline has passed.
    ///
    /// # Errors
    /// [`AcquireError::TimedOut`] if the deadline passed first; the others as for [`Batch::wait`].
    pub fn wait(self) -> Result<BatchGuard<L, O>, AcquireError> {
        let TimedBatch { batch, deadline } = self;
        let acquire = |asks: &[(&LockState, Ask)], visitor, token: Option<&Owner>| {
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                // SAFETY: as in `Batch::wait`.
                return unsafe { grant::try_acquire_batch(asks, visitor) }.ok_or(Refused::TimedOut);
            }
            // SAFETY: as in `Batch::wait`.
            match unsafe { grant::enter_batch(asks, visitor, token) } {
                Doorway::Granted(holds) => Ok(holds),
                Doorway::Queued(waiter) => match deadline {
                    Some(deadline) => waiter.wait_until(deadline),
                    None => waiter.wait(),
                },
            }
        };
        batch.make(
            |asks, visitor, token| acquire(asks, visitor, token).map_err(|refused| with_deadline(refused, asks, token)),
            would_recurse,
        )
    }
}

/// Of locks that are there for good, or that the future keeps: see [`AwaitedOn`](crate::AwaitedOn).
impl<L: LockRef + 'static, O: OwnedBy> IntoFuture for Batch<L, O> {
    type Output = <O::Awaited as OwnedBy>::Answer<BatchGuard<L, O::Awaited>>;
    type IntoFuture = AcquireBatch<L, O::Awaited>;

    fn into_future(self) -> AcquireBatch<L, O::Awaited> {
        let Batch { parts, owner, recursion } = self;
        AcquireBatch { state: State::New(Batch { parts, owner: owner.awaited(), recursion }) }
    }
}

/// A batch being awaited: see [`Acquire`](crate::Acquire).
///
/// # Cancel safety
/// As for [`Acquire`](crate::Acquire): dropping it leaves the queue, with all parts. A batch of several parts is found
/// by searches, whoever owns it: if one has found it and is under way, the drop, and the poll that is granted, block
/// until that search has ended.
///
/// # Panics
/// If polled after it was ready; and in the [scope](Owner::scope) of an owner, if the answer is an error.
#[must_use = "futures do nothing unless polled"]
pub struct AcquireBatch<L: LockRef, O: OwnedBy> {
    state: State<L, O>,
}

#[allow(clippy::large_enum_variant)] // A box would be an allocation for each that waits.
enum State<L: LockRef, O: OwnedBy> {
    New(Batch<L, O>),
    Queued {
        // First, as in `Acquire`.
        waiter: Waiter,
        parts: PartsOf<L>,
        owner: Counted<O>,
    },
    Done,
}

impl<L: LockRef, O: OwnedBy> Future for AcquireBatch<L, O> {
    type Output = O::Answer<BatchGuard<L, O>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let State::New(_) = this.state {
            ready!(wait::spend(context));
            match this.begin() {
                Ok(None) => {}
                Ok(Some(guards)) => return Poll::Ready(O::answer(Ok(guards))),
                Err(refused) => return Poll::Ready(O::answer(Err(refused))),
            }
        }
        let State::Queued { waiter, .. } = &mut this.state else { panic!("polled after it was ready") };
        let result = ready!(waiter.poll(context));
        let State::Queued { waiter, parts, owner } = std::mem::replace(&mut this.state, State::Done) else {
            unreachable!("it was queued a moment ago");
        };
        // By itself, as in `Acquire`: with an error the waiter leaves its trees here, before `parts` go.
        let holds = result.map(|()| waiter.into_holds()).map_err(Refused::without_deadline);
        Poll::Ready(O::answer(holds.map(|holds| hand_out(parts, holds, owner.into_owner()))))
    }
}

impl<L: LockRef, O: OwnedBy> AcquireBatch<L, O> {
    /// The first poll: the doorway. `None`: it is queued.
    fn begin(&mut self) -> Result<Option<BatchGuard<L, O>>, AcquireError> {
        let State::New(batch) = std::mem::replace(&mut self.state, State::Done) else {
            unreachable!("called at the first poll only");
        };
        let Batch { parts, owner, recursion } = batch;
        if parts.iter().all(|(_, range, _)| range.is_empty()) {
            return Ok(Some(hand_out(parts, Holds::new(), owner)));
        }
        begin(&parts, &owner);
        if let Some((own, state)) = own_hold_of_any(&parts, &owner, recursion) {
            return Err(would_recurse(own, state, &owner));
        }
        let (entered, asker) = Entered::new(&owner);
        // SAFETY: what comes back goes into `state` or into guards, together with the locks, and is dropped before
        // them. All kinds of `L` keep the lock where it is when they, or this future, are moved.
        let doorway = unsafe { grant::enter_batch(&asks(&parts, &asker), asker.visitor, owner.token()) };
        entered.keep();
        match doorway {
            Doorway::Granted(holds) => Ok(Some(hand_out(parts, holds, owner))),
            Doorway::Queued(waiter) => {
                self.state = State::Queued { waiter, parts, owner: Counted::new(owner) };
                Ok(None)
            }
        }
    }
}

impl<L: LockRef, O: OwnedBy> fmt::Debug for AcquireBatch<L, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("AcquireBatch");
        let state = match &self.state {
            State::New(batch) => {
                out.field("parts", &batch.parts.len());
                "not asked yet"
            }
            State::Queued { waiter, .. } => {
                out.field("asks", &waiter);
                "waiting"
            }
            State::Done => "answered",
        };
        out.field("state", &format_args!("{state}")).finish()
    }
}

/// The guards of a batch, one for each part, in the order in which the parts were given. From here on each is a guard
/// like any other.
#[must_use = "if unused, the ranges are released at once"]
#[derive(Debug)]
pub struct BatchGuard<L: LockRef, O: OwnedBy> {
    guards: Vec<Guard<L, O>>,
}

impl<L: LockRef, O: OwnedBy> BatchGuard<L, O> {
    /// The guards by themselves.
    pub fn into_parts(self) -> Vec<Guard<L, O>> {
        self.guards
    }

    /// Whether one of the guards [covers](Guard::covers) `range` (bytes) of `lock` in `mode`.
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    #[track_caller]
    pub fn covers(&self, lock: &RangeLock, range: impl RangeBounds<u64>, mode: Mode) -> bool {
        let range = ByteRange::new(range);
        self.guards.iter().any(|guard| std::ptr::eq(guard.lock(), lock) && guard.covers(range, mode))
    }
}

impl<L: LockRef, O: OwnedBy> Deref for BatchGuard<L, O> {
    type Target = [Guard<L, O>];

    fn deref(&self) -> &[Guard<L, O>] {
        &self.guards
    }
}
