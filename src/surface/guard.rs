//! What a granted request hands out: a guard that holds the range until it is dropped, and what can be done with it
//! meanwhile.

use crate::facts::error::{AcquireError, Asked, OwnerName, WouldRecurse};
use crate::facts::mode::Mode;
use crate::facts::owner::{self, Owner, OwnerId, Recursion};
use crate::facts::owner_kind::{ByOwner, ByTask, ByThread, OwnedBy, Stays};
use crate::facts::range::ByteRange;
use crate::protocol::convert;
use crate::protocol::grant::{self, Held};
use crate::protocol::poison;
use crate::surface::drained::Drain;
use crate::surface::lock::RangeLock;
use crate::surface::request::{LockRef, Request};
use crate::wait;
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::Duration;

/// Holds a range until it is dropped, on unwinding too. The common kinds have names:
///
/// | kind | from | owner | `Send` | borrows the lock |
/// |---|---|---|---|---|
/// | [`RangeGuard`] | the blocking calls | the thread | no | yes |
/// | [`SendRangeGuard`] | `.await` | its own | yes | yes |
/// | [`ArcRangeGuard`] | [`RangeLock::request_arc`] | its own | yes | no |
/// | [`ArcThreadGuard`] | [`RangeLock::add_arc`] and its kind | the thread | no | no |
/// | [`OwnerGuard`], [`ArcOwnerGuard`] | [`Request::owner`](crate::Request::owner) | an [`Owner`] | yes | yes, no |
///
/// The guards of one owner may overlap, and may be dropped in any order. A leaked guard keeps its range locked for
/// good, and breaks nothing else.
///
/// # Conversions
/// A guard can give up a part of what it holds without letting go of the rest: [`downgrade`](Guard::downgrade),
/// [`shrink`](Guard::shrink), [`split`](Guard::split), [`release`](Guard::release). Whoever waited for that part goes
/// on. It can become more if nobody is in the way: [`try_convert`](Guard::try_convert),
/// [`try_extend`](Guard::try_extend). And it can wait to become more, without letting go, by a nested request:
/// [`convert`](Guard::convert), [`extend`](Guard::extend).
///
/// # What a guard proves
/// That no other owner holds these bytes in a mode that conflicts. It does not prove that its *own* owner has no other
/// guard of them: an owner does not conflict with itself. Who hands out `&mut` on the strength of an exclusive guard
/// asks with [`Recursion::Refuse`], by one guard a range, or leaves it to a [`RangeLocked`](crate::RangeLocked). Nor
/// does a panic poison anything: it releases the guard, and what it guarded may be half done. (To
/// [poison](Guard::poison) is to say that a holder is stuck.)
///
/// # Conversions and time
/// But for the last two none of these waits for a grant, and none for anybody who came later. `downgrade` and `shrink`
/// wait for nobody at all. The others move the hold within the lock, and let two kinds of others finish a step first:
///
/// - a request for bytes of this guard that had begun when the call did, and has neither found yet that it must wait,
///   nor given up. That takes it a microsecond, unless its thread is taken off its processor there; and each thread can
///   be waited for once.
/// - if the guard is of an [`Owner`]: a search for deadlocks that goes on.
#[must_use = "if unused, the range is released at once"]
#[clippy::has_significant_drop]
pub struct Guard<L: LockRef, O: OwnedBy> {
    // Fields are dropped in this order: the range is released while `lock` keeps the tree in place.
    held: Held,
    lock: L,
    owner: O,
    stays: Stays<O>,
}

/// A guard from a blocking call, owned by its thread.
///
/// It stays on that thread, as the compiler says: within `TheGuardOfAThreadStaysOnIt`. What is to go elsewhere is asked
/// for by [`RangeLock::request_arc`] or by an [`Owner`].
/// ```compile_fail
/// let lock = spanlock::RangeLock::new();
/// let guard = lock.add(..);
/// std::thread::scope(|s| s.spawn(move || drop(guard)));
/// ```
pub type RangeGuard<'lock> = Guard<&'lock RangeLock, ByThread>;

/// A guard from `.await`, with an owner of its own.
pub type SendRangeGuard<'lock> = Guard<&'lock RangeLock, ByTask>;

/// A guard that keeps its lock alive, with an owner of its own.
pub type ArcRangeGuard = Guard<Arc<RangeLock>, ByTask>;

/// A guard that keeps its lock alive, owned by its thread: see [`RangeLock::add_arc`].
pub type ArcThreadGuard = Guard<Arc<RangeLock>, ByThread>;

/// A guard of an [`Owner`].
pub type OwnerGuard<'lock> = Guard<&'lock RangeLock, ByOwner>;

/// A guard of an [`Owner`] that keeps its lock alive.
pub type ArcOwnerGuard = Guard<Arc<RangeLock>, ByOwner>;

/// What a guard is nested in: what its owner had when it asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Nesting {
    /// In nothing: the owner had nothing else.
    Outermost,
    /// The owner had something, but none of these bytes (or has let go of it meanwhile).
    Elsewhere,
    /// The owner holds some of these bytes, in modes that go with the guard's.
    Inside {
        /// What it holds.
        held: ByteRange,
        /// In which mode.
        mode: Mode,
    },
    /// The owner holds some of these bytes in a mode that conflicts with the guard's: another owner would have had to
    /// wait. (The page fault of a direct write on its own pages.)
    Conflicting {
        /// What it holds.
        held: ByteRange,
        /// In which mode.
        mode: Mode,
    },
}

impl<L: LockRef, O: OwnedBy> Guard<L, O> {
    /// `held` belongs to the tree of `lock`; `owner` counts it, unless it holds nothing.
    #[inline]
    pub(crate) fn new(lock: L, held: Held, owner: O) -> Guard<L, O> {
        Guard { held, lock, owner, stays: PhantomData }
    }

    /// The bytes that it holds.
    pub fn range(&self) -> ByteRange {
        self.held.range()
    }

    /// The mode that it holds them in.
    pub fn mode(&self) -> Mode {
        self.held.mode()
    }

    /// The lock that they are locked in.
    pub fn lock(&self) -> &RangeLock {
        &self.lock
    }

    /// Whose it is; `None` if it holds nothing.
    pub fn owner(&self) -> Option<OwnerId> {
        self.held.owner()
    }

    /// Whether it holds all of `range` (bytes) in `mode` or one that [covers](Mode::covers) it: what code asserts that
    /// relies on a guard of its caller. True of an empty range.
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    ///
    /// ```
    /// use spanlock::{Mode, RangeGuard, RangeLock};
    ///
    /// fn write_page(page: u64, guard: &RangeGuard<'_>) {
    ///     assert!(guard.covers(page * 4096..(page + 1) * 4096, Mode::Exclusive));
    /// }
    /// let file = RangeLock::new();
    /// write_page(1, &file.exclusive(0..8192));
    /// ```
    #[track_caller]
    pub fn covers(&self, range: impl RangeBounds<u64>, mode: Mode) -> bool {
        let range = ByteRange::new(range);
        range.is_empty() || (self.range().contains_all(range) && self.mode().covers(mode))
    }

    /// Releases the range, and gives back what the guard had of the lock: the `Arc`, for one.
    pub fn into_lock(self) -> L {
        self.lock.clone()
    }

    pub(crate) fn lock_ref(&self) -> &L {
        &self.lock
    }

    /// Asks for `range` (bytes) of the same lock in `mode`, as the owner of this guard: so it does not conflict with
    /// what this guard holds, and a deadlock is answered.
    ///
    /// The way to ask for more in a task that holds something already: `lock.request(..)` would have an owner of its
    /// own there, and might wait for this very guard. (For a thread it is the same as asking the lock.) From then on
    /// the guard, and all that was asked for through it, are of one [`Owner`]: for a guard with an owner of its own one
    /// is made, which allocates once.
    ///
    /// To be awaited it needs a lock that is there for good, as any request [of an owner](crate::Request::owner): the
    /// guard of a task is best from [`RangeLock::request_arc`].
    ///
    /// # Panics
    /// If the range is inverted, as slicing does. And if a request through the guard of a *thread* is awaited: it would
    /// be a task's.
    ///
    /// # Examples
    /// ```
    /// use spanlock::{AcquireError, Mode, RangeLock};
    /// use std::sync::Arc;
    ///
    /// async fn write(lock: Arc<RangeLock>) -> Result<(), AcquireError> {
    ///     let write = lock.request_arc(0..4096, Mode::Exclusive).await;
    ///     let _fault = write.request(0..512, Mode::Add).await?; // `lock.request(0..512, Mode::Add).await` would wait for `write`
    ///     Ok(())
    /// }
    /// # pollster::block_on(write(Arc::new(RangeLock::new()))).unwrap();
    /// ```
    #[track_caller]
    pub fn request(&self, range: impl RangeBounds<u64>, mode: Mode) -> Request<L, O::Through> {
        let range = ByteRange::new(range);
        Request::through(self.lock.clone(), range, mode, self.asker())
    }

    /// Waits, when it is told to, until everybody *else* has gone who is in conflict with `range` (bytes) in `mode` and
    /// came first: [`RangeLock::drained`], as the owner of this guard. What that holds is not waited for; and if
    /// somebody who is waited for waits for it, the answer is a deadlock.
    ///
    /// The way to wait so in a task that holds something: see [`Guard::request`], which says what becomes of the
    /// guard's owner, and what lock it takes to await it.
    ///
    /// # Panics
    /// As for [`Guard::request`].
    ///
    /// ```
    /// use spanlock::{AcquireError, Mode, RangeLock};
    /// use std::sync::Arc;
    ///
    /// async fn seal(lock: Arc<RangeLock>) -> Result<(), AcquireError> {
    ///     let write = lock.request_arc(0..4096, Mode::Block).await;
    ///     write.drained(.., Mode::Exclusive).await // `lock.drained(.., Mode::Exclusive).await` would wait for `write`
    /// }
    /// # pollster::block_on(seal(Arc::new(RangeLock::new()))).unwrap();
    /// ```
    #[track_caller]
    pub fn drained(&self, range: impl RangeBounds<u64>, mode: Mode) -> Drain<L, O::Through> {
        let range = ByteRange::new(range);
        Drain::through(self.lock.clone(), range, mode, self.asker())
    }

    /// Who asks through this guard: its owner, which has a name for others from now on.
    fn asker(&self) -> O::Through {
        let mut owes_wakes = false;
        let owner = self.owner.through(|| self.own(&mut owes_wakes));
        if owes_wakes {
            wait::deliver();
        }
        owner
    }

    /// An owner for what has none but the request itself.
    fn own(&self, owes_wakes: &mut bool) -> Owner {
        let Some(task) = self.held.owner() else { return Owner::new() };
        let owner = Owner::of_task(task);
        *owes_wakes = self.held.hand_over(owner.id());
        owner
    }

    /// The fields of a guard, or of what is made of one and calls its `range` `what`.
    pub(crate) fn say(&self, out: &mut fmt::DebugStruct<'_, '_>, what: &str, range: ByteRange) -> fmt::Result {
        out.field("lock", &format_args!("{}", self.lock.state().label())).field(what, &range);
        out.field("mode", &format_args!("{}", self.mode()));
        if let Some(owner) = self.owner() {
            match owner::name_of(owner) {
                Some(name) => out.field("owner", &format_args!("{owner} {name:?}")),
                None => out.field("owner", &format_args!("{owner}")),
            };
        }
        out.finish()
    }

    /// Whether its owner holds some of these bytes by another guard too, in a mode that conflicts.
    #[cfg_attr(any(loom, spanlock_shuttle), allow(dead_code))]
    pub(crate) fn conflict_beside(&self) -> Option<WouldRecurse> {
        let (held, mode) = grant::conflict_beside(self.lock.state(), &self.held)?;
        let owner = OwnerName::of(self.owner()?, self.owner.token());
        Some(WouldRecurse::new(owner, Asked::new(self.lock.state().label(), held, mode)))
    }

    /// A number that grows along every chain of conflicting grants: if two guards of this process conflict, whatever
    /// the later one says is above whatever the earlier one said. For logs, tests, and fencing: who keeps the highest
    /// number that he has seen can refuse one who comes too late.
    ///
    /// It is drawn by the call, from a counter of the process: so it holds in a lock with a
    /// [window](RangeLock::reordering), too, where the order of grants is not that in which they were asked for. Each
    /// call draws another one; call it once for what shall have one number. A guard that holds nothing conflicts with
    /// nobody.
    ///
    /// ```
    /// let log = spanlock::RangeLock::new();
    /// let first = log.exclusive(0..64).ticket();
    /// let second = log.exclusive(32..96).ticket();
    /// assert!(first < second);
    /// ```
    pub fn ticket(&self) -> u64 {
        owner::next_ticket()
    }

    /// What it is nested in. Cheap if it is [`Outermost`](Nesting::Outermost), else a look at the lock; and another one
    /// whenever some guard of the lock was converted, extended or split meanwhile. So it is lock-free: it looks on only
    /// as long as others get on.
    ///
    /// So a page fault can tell that it was caused by a direct write of the same thread, and skip read-ahead:
    ///
    /// ```
    /// use spanlock::{Nesting, RangeLock, Mode};
    ///
    /// let file = RangeLock::new();
    /// let write = file.block(0..8192);
    /// assert_eq!(write.nesting(), Nesting::Outermost);
    ///
    /// let fault = file.add(4096..8192); // granted: an owner does not conflict with itself
    /// assert_eq!(fault.nesting(), Nesting::Conflicting { held: write.range(), mode: Mode::Block });
    /// ```
    pub fn nesting(&self) -> Nesting {
        if !self.held.order().is_some_and(owner::is_nested) {
            return Nesting::Outermost;
        }
        let around = grant::holds_around(self.lock.state(), &self.held);
        let conflicting = around.iter().find(|(_, mode)| !mode.goes_with(self.mode()));
        match (conflicting, around.first()) {
            (Some(&(held, mode)), _) => Nesting::Conflicting { held, mode },
            (None, Some(&(held, mode))) => Nesting::Inside { held, mode },
            (None, None) => Nesting::Elsewhere,
        }
    }

    /// Says that this holder is stuck, for instance because what it waits for elsewhere will not come: from now on
    /// whoever would have to wait for it is refused, with [`AcquireError::Poisoned`], which gives the `reason`, instead
    /// of waiting. So are those who wait already.
    ///
    /// It is a mark of the holder, not of the data: the guard holds what it held, and nobody is granted beside it. When
    /// it is dropped the mark has gone with it; where it moves to by a conversion, or is split, it takes the mark
    /// along. A panic poisons nothing: who wants that calls this, or keeps a flag with the data.
    ///
    /// Refused is who conflicts with it, each time that it looks who is in front of it: a whole queue, one behind the
    /// other, at once. One that sleeps because of somebody else who is in its way, too, looks when that one has gone.
    /// Requests that answer with the guard itself (of tasks without an [`Owner`]) panic, as [`Request::wait`] says; a
    /// `try_` is refused in any case.
    ///
    /// Whoever has no guard in hand poisons by the lock: [`RangeLock::poison`].
    ///
    /// **Locking behaviour:** it takes a short mutex, of what was said of this lock's poisoned holders. Who is refused
    /// takes it, too; and, while somebody in the lock is poisoned, who converts, extends or splits a guard of it.
    ///
    /// # Examples
    /// ```
    /// use spanlock::{AcquireError, Mode, Owner, RangeLock};
    /// let log = RangeLock::named("log");
    /// let write = log.exclusive(0..4096);
    /// write.poison("the disk does not answer");
    /// let refused = log.request(0..1, Mode::Add).owner(&Owner::new()).wait().unwrap_err();
    /// assert!(refused.to_string().ends_with("holds 0..4096 of log (exclusive) and was poisoned: the disk does not answer"));
    /// drop(write);
    /// assert!(log.request(0..1, Mode::Add).owner(&Owner::new()).wait().is_ok());
    /// ```
    pub fn poison(&self, reason: impl AsRef<str>) {
        poison::poison(self.lock.state(), &self.held, reason.as_ref());
    }

    /// Takes [`poison`](Guard::poison) back: it gets on after all. Whether it was poisoned. (Who was refused has left.)
    pub fn clear_poison(&self) -> bool {
        poison::cure(self.lock.state(), &self.held)
    }

    /// Whether it was [poisoned](Guard::poison), by this guard or [by the lock](RangeLock::poison).
    pub fn is_poisoned(&self) -> bool {
        poison::is_poisoned(&self.held)
    }

    /// Makes an exclusive guard one in `mode`, in place: those who wait for the bytes in that mode go on.
    ///
    /// # Panics
    /// If that is not a downgrade: from [`Mode::Add`] to [`Mode::Block`], or the other way, or to [`Mode::Exclusive`].
    /// See [`try_convert`](Guard::try_convert). (To the mode that it has is none, and allowed.)
    ///
    /// ```
    /// use spanlock::{Mode, RangeLock};
    ///
    /// let file = RangeLock::new();
    /// let mut guard = file.exclusive(0..4096);
    /// guard.downgrade(Mode::Add);
    /// std::thread::scope(|s| {
    ///     s.spawn(|| assert!(file.try_add(0..1).is_some())); // another thread
    /// });
    /// ```
    #[track_caller]
    pub fn downgrade(&mut self, mode: Mode) {
        let from = self.mode();
        if from != mode {
            assert!(
                from == Mode::Exclusive,
                "a guard in mode {from} cannot be downgraded to {mode}: only an exclusive one can, to add or block; try_convert may change it"
            );
            convert::downgrade(&mut self.held, mode);
        }
    }

    /// Gives back all bytes but `range`. If that is empty, all: the guard then holds nothing. An open end is the
    /// guard's own: `shrink(4096..)` keeps what lies behind.
    ///
    /// # Panics
    /// If `range` is not a part of what the guard holds, or is inverted.
    ///
    /// ```
    /// use spanlock::{ByteRange, RangeLock};
    ///
    /// let file = RangeLock::new();
    /// let mut guard = file.block(0..8192);
    /// guard.shrink(4096..);
    /// assert_eq!(guard.range(), ByteRange::new(4096..8192));
    /// ```
    #[track_caller]
    pub fn shrink(&mut self, range: impl RangeBounds<u64>) {
        let to = self.part(range);
        self.shrink_to(to);
    }

    /// `range`, if it is a part of what is held; panics otherwise.
    #[track_caller]
    fn part(&self, range: impl RangeBounds<u64>) -> ByteRange {
        self.range().part(range, "the guard holds")
    }

    fn shrink_to(&mut self, range: ByteRange) {
        if range.is_empty() && !self.held.is_nothing() {
            // First, as in `drop`: whoever is woken may panic.
            self.owner.leave();
        }
        convert::shrink(&mut self.held, range);
    }

    /// Two guards of it: of the bytes before `at`, and of those from `at` on. No byte is let go of, and either may be
    /// empty.
    ///
    /// Both have one owner. (A guard with an owner of its own is given an [`Owner`] for that: the only conversion that
    /// allocates.)
    ///
    /// It waits for nobody who came later: see [`Guard`] for whom it may let finish a step.
    ///
    /// # Panics
    /// If `at` lies neither in the range nor directly behind it.
    ///
    /// ```
    /// use spanlock::{ByteRange, RangeLock};
    ///
    /// let file = RangeLock::new();
    /// let (head, tail) = file.block(0..8192).split(4096);
    /// drop(head); // 0..4096 is free now
    /// assert_eq!(tail.range(), ByteRange::new(4096..8192));
    /// ```
    #[track_caller]
    pub fn split(mut self, at: u64) -> (Guard<L, O>, Guard<L, O>) {
        let (head, tail) = self.range().split(at);
        let tail = self.part_off(tail);
        self.shrink_to(head);
        (self, tail)
    }

    /// As [`Guard::split`], and keeps the bytes before `at` itself: the answer has those from `at` on.
    ///
    /// # Panics
    /// As for [`Guard::split`].
    ///
    /// ```
    /// use spanlock::{ByteRange, RangeLock};
    ///
    /// let file = RangeLock::new();
    /// let mut head = file.block(0..8192);
    /// let tail = head.split_off(4096);
    /// assert_eq!((head.range(), tail.range()), (ByteRange::new(0..4096), ByteRange::new(4096..8192)));
    /// ```
    #[track_caller]
    pub fn split_off(&mut self, at: u64) -> Guard<L, O> {
        let (head, tail) = self.range().split(at);
        let tail = self.part_off(tail);
        self.shrink_to(head);
        tail
    }

    /// Gives back `range`, from the middle perhaps: two guards, of what lies before and of what lies behind. Either may
    /// be empty. An open end is the guard's own.
    ///
    /// It waits for nobody who came later, as [`Guard::split`].
    ///
    /// # Panics
    /// If `range` is not a part of what the guard holds, or is inverted.
    #[track_caller]
    pub fn release(mut self, range: impl RangeBounds<u64>) -> (Guard<L, O>, Guard<L, O>) {
        let gap = self.part(range);
        let (Some(start), Some(last)) = (gap.start(), gap.last()) else {
            let nothing = Guard::new(self.lock.clone(), Held::nothing(self.mode()), self.owner.clone());
            return (self, nothing);
        };
        let held = self.range();
        let (head, _) = held.split(start);
        let tail = last.checked_add(1).map_or(ByteRange::EMPTY, |behind| held.split(behind).1);
        let tail = self.part_off(tail);
        self.shrink_to(head);
        (self, tail)
    }

    /// A second guard of a part of the range.
    fn part_off(&self, range: ByteRange) -> Guard<L, O> {
        let mut owes_wakes = false;
        self.owner.share(|| self.own(&mut owes_wakes));
        if owes_wakes {
            wait::deliver();
        }
        let (lock, owner) = (self.lock.clone(), self.owner.clone());
        if range.is_empty() {
            return Guard::new(lock, Held::nothing(self.mode()), owner);
        }
        // SAFETY: `held` is of this lock, which the new guard keeps in place too.
        let held = unsafe { convert::split_off(self.lock.state(), &self.held, range) };
        owner.join();
        Guard::new(lock, held, owner)
    }

    /// Changes the mode if nobody is in the way; whether it did. On `false` the guard holds what it held.
    ///
    /// It waits for no grant, and for nobody who came later: see [`Guard`] for whom it may let finish a step.
    ///
    /// In the way is who holds, waits for or is just asking for some of these bytes in a mode that goes with the
    /// guard's, and does not go with `mode`. (Not who waits for this very guard: he goes on waiting.) Two guards that
    /// try to become exclusive are in each other's way.
    #[must_use = "if it is false, the mode is what it was"]
    pub fn try_convert(&mut self, mode: Mode) -> bool {
        if self.held.is_nothing() {
            self.held = Held::nothing(mode);
            return true;
        }
        let range = self.range();
        // SAFETY: `held` is of this lock, which the guard keeps in place.
        unsafe { convert::convert(self.lock.state(), &mut self.held, range, mode) }
    }

    /// Extends the guard to `range` if nobody is in the way; whether it did. On `false` the guard holds what it held.
    ///
    /// It waits for no grant, and for nobody who came later: see [`Guard`] for whom it may let finish a step.
    ///
    /// In the way is who holds, waits for or is just asking for some of the new bytes in a mode that conflicts, and
    /// does not wait for what the guard holds already.
    ///
    /// # Panics
    /// If `range` does not contain what the guard holds, or is inverted, or if the guard holds nothing.
    #[must_use = "if it is false, the range is what it was"]
    #[track_caller]
    pub fn try_extend(&mut self, range: impl RangeBounds<u64>) -> bool {
        let (range, held) = (ByteRange::new(range), self.range());
        assert!(!held.is_empty(), "the guard holds nothing that could be extended to {range}: make a new request");
        assert!(
            range.contains_all(held),
            "{range} does not contain {held}, which the guard holds: try_extend only adds bytes"
        );
        let mode = self.mode();
        // SAFETY: `held` is of this lock, which the guard keeps in place.
        unsafe { convert::convert(self.lock.state(), &mut self.held, range, mode) }
    }

    /// Changes the mode, and waits for that if it must; the guard holds what it held meanwhile, so that nobody gets in
    /// between.
    ///
    /// It is [`try_convert`](Guard::try_convert), and if somebody is in the way, a [request through the
    /// guard](Guard::request) that waits its turn like any other, and takes the guard's place when it is granted. So of
    /// two guards that wait to become exclusive on one byte each waits for the other: one is answered with a deadlock,
    /// and has to let go of what it holds ([`Batch::regain`](crate::Batch::regain)); the other then gets on. Nobody is
    /// starved: who asks later waits.
    ///
    /// In a task do the same by hand: `let more = guard.request(guard.range(), mode).await?`, and drop the guard then.
    /// So with a deadline.
    ///
    /// # Errors
    /// [`AcquireError::Deadlock`], [`AcquireError::Poisoned`]. The guard holds what it held.
    ///
    /// # Examples
    /// ```
    /// use spanlock::{AcquireError, Mode, RangeLock};
    ///
    /// fn raise(rows: &RangeLock) -> Result<(), AcquireError> {
    ///     let mut guard = rows.add(7..8);
    ///     // read it, and find that it has to be written
    ///     guard.convert(Mode::Exclusive)?;
    ///     assert_eq!(guard.mode(), Mode::Exclusive);
    ///     Ok(())
    /// }
    /// # raise(&RangeLock::new()).unwrap();
    /// ```
    pub fn convert(&mut self, mode: Mode) -> Result<(), AcquireError> {
        if self.try_convert(mode) { Ok(()) } else { self.succeed(self.range(), mode) }
    }

    /// Extends the guard to `range`, and waits for that if it must, as [`convert`](Guard::convert) does.
    ///
    /// # Errors
    /// [`AcquireError::Deadlock`], [`AcquireError::Poisoned`]. The guard holds what it held.
    ///
    /// # Panics
    /// As for [`try_extend`](Guard::try_extend).
    #[track_caller]
    pub fn extend(&mut self, range: impl RangeBounds<u64>) -> Result<(), AcquireError> {
        let range = ByteRange::new(range);
        if self.try_extend(range) { Ok(()) } else { self.succeed(range, self.mode()) }
    }

    /// Waits for a hold of `range` in `mode`, which then takes the place of the one that it has.
    #[cold]
    fn succeed(&mut self, range: ByteRange, mode: Mode) -> Result<(), AcquireError> {
        // It conflicts with its own hold, which is the point.
        let request = self.request(range, mode).recursion(Recursion::Reenter);
        let mut more = request.timeout(Duration::MAX).wait()?;
        // From here on this guard counts it.
        let held = mem::replace(&mut more.held, Held::nothing(mode));
        convert::take_place(self.lock.state(), &self.held, &held);
        // First, as in `drop`: whoever is woken may panic.
        self.owner.leave();
        self.held = held;
        Ok(())
    }
}

impl<L: LockRef> Guard<L, ByOwner> {
    /// The owner itself, to make more requests of it.
    pub fn token(&self) -> &Owner {
        &self.owner.0
    }
}

/// Dropping `held` is the release. But it also makes a guard count as a user of its lock while it is dropped, so that
/// the compiler refuses a lock that goes first:
/// ```compile_fail,E0597
/// let guard;
/// let lock = spanlock::RangeLock::new();
/// guard = lock.add(..);
/// ```
impl<L: LockRef, O: OwnedBy> Drop for Guard<L, O> {
    #[inline]
    fn drop(&mut self) {
        if !self.held.is_nothing() {
            self.owner.leave();
        }
    }
}

impl<L: LockRef, O: OwnedBy> fmt::Debug for Guard<L, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.say(&mut f.debug_struct("Guard"), "range", self.range())
    }
}
