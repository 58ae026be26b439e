//! The three kinds of owner, as types: who owns a request decides whether its guard can leave the thread, and whether
//! it can be refused.

use crate::facts::error::AcquireError;
use crate::facts::owner::{self, Asker, Owner, OwnerId, Recursion};
use crate::platform::sync::OnceLock;
use std::fmt;
use std::marker::PhantomData;
use std::sync::MutexGuard;

/// Who owns a request: [`ByThread`], [`ByTask`] or [`ByOwner`].
///
/// | kind | the owner is | its guards | its requests |
/// |---|---|---|---|
/// | [`ByThread`] | the thread that asks | stay on the thread | can be refused: `Result<Guard, AcquireError>` |
/// | [`ByTask`] | one of its own, for this request only | are `Send` | are not refused: the guard itself, or a panic (see below) |
/// | [`ByOwner`] | an [`Owner`] | are `Send` | can be refused |
///
/// **A task that holds a range and asks for another by itself can wait for itself, and two such tasks for one another,
/// for ever.** Nobody can tell: a guard that a task was given may be anywhere by now, in a channel or another task,
/// from where it will be dropped. (`examples/block_device.rs` does that rightly: a thread hands the guard of a write to
/// whoever completes it, asks for the same block again, and is granted when the other has dropped it.) So a task that
/// holds one range while it awaits another says who it is, in one of three ways, and then a cycle is a deadlock, and
/// answered:
///
/// - [`guard.request(..)`](crate::Guard::request) asks through the guard that it holds;
/// - [`owner.scope(task)`](Owner::scope) makes all that the task asks requests of one owner;
/// - [`request.owner(&owner)`](crate::Request::owner) names the owner of each request.
///
/// A request that has an owner of its own is refused in two cases only. In a scope it is its owner's. And a thread that
/// waits in a call lets go of nothing meanwhile: if it holds as a thread what the request needs (`lock.exclusive(..)`,
/// and then `lock.request_arc(..).wait()`), nobody else could end that. Both are a panic that says who waits for whom;
/// with a deadline it is the error.
///
/// Sealed: guards count on what is in here.
pub trait OwnedBy: sealed::Sealed + Clone + Sized + Unpin {
    /// What a request of this kind is answered with: `G`, or `Result<G, AcquireError>`.
    type Answer<G>;
    /// The kind of the request when it is awaited: tasks move between threads, so that a thread's request becomes a
    /// task's.
    type Awaited: OwnedBy;
    /// The kind of a request that is made through a guard of this kind.
    type Through: OwnedBy;
    /// A type that is `Send` if the guards are.
    type Stays: Unpin;
}

/// Owned by the thread that asks. Guards stay on it: another thread that had one would not conflict with it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByThread(());

/// Owned by the request itself. Guards can be sent to another thread.
///
/// There is an [`Owner`] in it if there is more to own than the one request: if the task is in a [scope](Owner::scope),
/// the guard was split or [asked through](crate::Guard::request), or the request is a batch.
#[derive(Clone, Default)]
pub struct ByTask(OnceLock<Owner>);

impl fmt::Debug for ByTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ByTask").field(&self.0.get()).finish()
    }
}

/// Owned by an [`Owner`]. Guards can be sent to another thread.
#[derive(Clone, Debug)]
pub struct ByOwner(pub(crate) Owner);

/// What keeps the guards of a thread from leaving it. The compiler names it to whoever tries: the remedy is
/// [`RangeLock::request_arc`](crate::RangeLock::request_arc), or an [`Owner`].
#[derive(Debug)]
pub struct TheGuardOfAThreadStaysOnIt {
    // Not `Send`, but `Sync`.
    _like: PhantomData<MutexGuard<'static, ()>>,
}

impl OwnedBy for ByThread {
    type Answer<G> = Result<G, AcquireError>;
    type Awaited = ByTask;
    type Through = ByThread;
    type Stays = TheGuardOfAThreadStaysOnIt;
}

impl OwnedBy for ByTask {
    type Answer<G> = G;
    type Awaited = ByTask;
    type Through = ByOwner;
    type Stays = ();
}

impl OwnedBy for ByOwner {
    type Answer<G> = Result<G, AcquireError>;
    type Awaited = ByOwner;
    type Through = ByOwner;
    type Stays = ();
}

/// Which kinds of owner can await a request on a lock that is referred to by `L`.
///
/// A task can await any. A request of an [`Owner`] is known to the whole process while it waits, for the sake of
/// deadlocks; and a future that was polled can be forgotten (`mem::forget`), and its lock dropped. So for those the
/// lock must be there for good, or be kept by the future itself: `&'static RangeLock`, `Arc<RangeLock>` or a
/// [`TableLock`](crate::TableLock). The same goes for a [`Batch`](crate::Batch) of any owner.
///
/// # If the compiler speaks of `'static`
/// It says of a borrowed lock that it "does not live long enough" and that the "argument requires that `lock` is
/// borrowed for `'static`" (E0597), or, of one that came as a reference, that "borrowed data escapes outside of
/// function" and "must outlive `'static`" (E0521). *The remedy is an `Arc`, asked by
/// [`request_arc`](crate::RangeLock::request_arc)*; or not to await: `.wait()` takes any lock.
///
/// ```compile_fail,E0597
/// use spanlock::{AcquireError, Mode, Owner, RangeLock};
/// use std::sync::Arc;
///
/// async fn task(file: Arc<RangeLock>, me: Owner) -> Result<(), AcquireError> {
///     let _guard = file.request(0..4096, Mode::Add).owner(&me).await?; // borrows `file`
///     Ok(())
/// }
/// ```
/// ```
/// use spanlock::{AcquireError, Mode, Owner, RangeLock};
/// use std::sync::Arc;
///
/// async fn task(file: Arc<RangeLock>, me: Owner) -> Result<(), AcquireError> {
///     let _guard = file.request_arc(0..4096, Mode::Add).owner(&me).await?; // keeps it
///     Ok(())
/// }
/// ```
/// The same through a guard: that of [`request_arc`](crate::RangeLock::request_arc) can be asked through, and the
/// answer awaited ([`Guard::request`](crate::Guard::request)); that of `request` cannot.
pub trait AwaitedOn<L: ?Sized>: OwnedBy {}

impl<L> AwaitedOn<L> for ByTask {}
impl<L: 'static> AwaitedOn<L> for ByOwner {}

/// What a guard keeps of its kind: the kind's own value, and whether the guard may leave its thread.
pub(crate) type Stays<O> = PhantomData<<O as OwnedBy>::Stays>;

pub(crate) mod sealed {
    use super::{AcquireError, Asker, ByOwner, ByTask, ByThread, OwnedBy, Owner, OwnerId, Recursion, owner};

    #[allow(private_interfaces)] // Nobody outside can name the trait.
    pub trait Sealed {
        /// A request of this owner begins: from now on it counts.
        fn enter(&self) -> Asker;
        /// One more begins, as a part of one that is live: a guard was split, or the request is a batch.
        fn join(&self);
        /// One has ended.
        fn leave(&self);
        /// What the requests of this owner do about recursion, unless they say otherwise.
        fn recursion(&self) -> Recursion {
            Recursion::Reenter
        }
        /// Who it is, if it may have requests already.
        fn identity(&self) -> Option<OwnerId>;
        /// The token, if it is one.
        fn token(&self) -> Option<&Owner> {
            None
        }
        /// Its request is about to be made: in the scope of an owner it is that owner's, unless it has one already.
        /// Whether it has become so.
        #[inline]
        fn join_scope(&self) -> bool {
            false
        }
        /// There will be more to own than one request. `make` makes an owner, for one that has none; and has its hold,
        /// if it has one, handed over.
        fn share(&self, make: impl FnOnce() -> Owner) {
            let _ = make;
        }
        fn through(&self, make: impl FnOnce() -> Owner) -> <Self as OwnedBy>::Through
        where
            Self: OwnedBy;
        fn awaited(self) -> <Self as OwnedBy>::Awaited
        where
            Self: OwnedBy;
        fn answer<G>(result: Result<G, AcquireError>) -> <Self as OwnedBy>::Answer<G>
        where
            Self: OwnedBy;
        /// The other way round.
        fn result<G>(answer: <Self as OwnedBy>::Answer<G>) -> Result<G, AcquireError>
        where
            Self: OwnedBy;
    }

    #[allow(private_interfaces)]
    impl Sealed for ByThread {
        #[inline]
        fn enter(&self) -> Asker {
            owner::enter()
        }
        fn join(&self) {
            owner::join();
        }
        #[inline]
        fn leave(&self) {
            owner::leave();
        }
        fn identity(&self) -> Option<OwnerId> {
            Some(owner::thread())
        }
        fn through(&self, _: impl FnOnce() -> Owner) -> ByThread {
            *self
        }
        fn awaited(self) -> ByTask {
            ByTask::default()
        }
        #[inline]
        fn answer<G>(result: Result<G, AcquireError>) -> Result<G, AcquireError> {
            result
        }
        fn result<G>(answer: Result<G, AcquireError>) -> Result<G, AcquireError> {
            answer
        }
    }

    #[allow(private_interfaces)]
    impl Sealed for ByTask {
        fn enter(&self) -> Asker {
            match self.0.get() {
                None => Asker { owner: owner::fresh(), visitor: owner::visit(), order: owner::OUTERMOST },
                Some(owner) => owner.enter(),
            }
        }
        // While it has one request, nobody counts.
        fn join(&self) {
            self.0.get().into_iter().for_each(Owner::join);
        }
        #[inline]
        fn leave(&self) {
            if let Some(owner) = self.0.get() {
                owner.leave();
            }
        }
        fn recursion(&self) -> Recursion {
            self.0.get().map(Owner::policy).unwrap_or_default()
        }
        fn identity(&self) -> Option<OwnerId> {
            self.0.get().map(Owner::id)
        }
        fn token(&self) -> Option<&Owner> {
            self.0.get()
        }
        fn join_scope(&self) -> bool {
            self.0.get().is_none() && Owner::current().is_some_and(|owner| self.0.set(owner).is_ok())
        }
        fn share(&self, make: impl FnOnce() -> Owner) {
            self.0.get_or_init(make);
        }
        fn through(&self, make: impl FnOnce() -> Owner) -> ByOwner {
            ByOwner(self.0.get_or_init(make).clone())
        }
        fn awaited(self) -> ByTask {
            self
        }
        #[track_caller]
        fn answer<G>(result: Result<G, AcquireError>) -> G {
            match result {
                Ok(granted) => granted,
                Err(refused) => panic!("{refused}"),
            }
        }
        fn result<G>(answer: G) -> Result<G, AcquireError> {
            Ok(answer)
        }
    }

    #[allow(private_interfaces)]
    impl Sealed for ByOwner {
        fn enter(&self) -> Asker {
            self.0.enter()
        }
        fn join(&self) {
            self.0.join();
        }
        fn leave(&self) {
            self.0.leave();
        }
        fn recursion(&self) -> Recursion {
            self.0.policy()
        }
        fn token(&self) -> Option<&Owner> {
            Some(&self.0)
        }
        fn identity(&self) -> Option<OwnerId> {
            Some(self.0.id())
        }
        fn through(&self, _: impl FnOnce() -> Owner) -> ByOwner {
            self.clone()
        }
        fn awaited(self) -> ByOwner {
            self
        }
        fn answer<G>(result: Result<G, AcquireError>) -> Result<G, AcquireError> {
            result
        }
        fn result<G>(answer: Result<G, AcquireError>) -> Result<G, AcquireError> {
            answer
        }
    }
}

/// A request of an owner that has begun: it counts until this is dropped, unless somebody else [keeps](Entered::keep)
/// count from then on.
#[must_use]
pub(crate) struct Entered<'a, O: OwnedBy>(&'a O);

impl<'a, O: OwnedBy> Entered<'a, O> {
    /// A request of `owner` begins.
    #[inline]
    pub(crate) fn new(owner: &'a O) -> (Entered<'a, O>, Asker) {
        let asker = owner.enter();
        (Entered(owner), asker)
    }

    /// Somebody else will count the request out.
    #[inline]
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl<O: OwnedBy> Drop for Entered<'_, O> {
    #[inline]
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// An owner that counts one request until this is dropped, unless a guard [takes it over](Counted::into_owner).
pub(crate) struct Counted<O: OwnedBy>(Option<O>);

impl<O: OwnedBy> Counted<O> {
    /// `owner` has counted the request already.
    pub(crate) fn new(owner: O) -> Counted<O> {
        Counted(Some(owner))
    }

    /// For the guard, which counts the request out when it is dropped.
    pub(crate) fn into_owner(mut self) -> O {
        self.0.take().expect("taken here only")
    }
}

impl<O: OwnedBy> Drop for Counted<O> {
    fn drop(&mut self) {
        if let Some(owner) = &self.0 {
            owner.leave();
        }
    }
}
