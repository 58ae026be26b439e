//! The three kinds of owner, as types: who owns a request decides whether its guard can leave the thread, and whether it can be refused.

use crate::error::AcquireError;
use crate::owner::{self, Asker, Owner, OwnerId, Recursion};
use std::marker::PhantomData;
use std::sync::MutexGuard;

/// Who owns a request: [`ByThread`], [`ByTask`] or [`ByOwner`].
///
/// | kind | the owner is | its guards | its requests |
/// |---|---|---|---|
/// | [`ByThread`] | the thread that asks | stay on the thread | can be refused: `Result<Guard, AcquireError>` |
/// | [`ByTask`] | one of its own, for this request only | are `Send` | cannot be refused: it holds nothing that anybody could wait for |
/// | [`ByOwner`] | an [`Owner`] | are `Send` | can be refused |
///
/// Two tasks that each hold a range and await the other's wait for ever: their requests have nothing to do with one another, for all that anybody can
/// tell. A task that holds one range while it awaits another takes an [`Owner`]; then that is a deadlock, and answered.
///
/// Sealed: guards count on what is in here.
pub trait OwnedBy: sealed::Sealed + Clone + Sized + Unpin {
    /// What a request of this kind is answered with: `G`, or `Result<G, AcquireError>`.
    type Answer<G>;
    /// The kind of the request when it is awaited: tasks move between threads, so that a thread's request becomes a task's.
    type Awaited: OwnedBy;
    /// A type that is `Send` if the guards are.
    type Stays;
}

/// Owned by the thread that asks. Guards stay on it: another thread that had one would not conflict with it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByThread(());

/// Owned by the request itself. Guards can be sent to another thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByTask(());

/// Owned by an [`Owner`]. Guards can be sent to another thread.
#[derive(Clone, Debug)]
pub struct ByOwner(pub(crate) Owner);

impl OwnedBy for ByThread {
    type Answer<G> = Result<G, AcquireError>;
    type Awaited = ByTask;
    // Like a mutex guard: not `Send`, but `Sync`.
    type Stays = MutexGuard<'static, ()>;
}

impl OwnedBy for ByTask {
    type Answer<G> = G;
    type Awaited = ByTask;
    type Stays = ();
}

impl OwnedBy for ByOwner {
    type Answer<G> = Result<G, AcquireError>;
    type Awaited = ByOwner;
    type Stays = ();
}

/// Which kinds of owner can await a request on a lock that is referred to by `L`.
///
/// A task can await any. A request of an [`Owner`] is known to the whole process while it waits, for the sake of deadlocks; and a future that was polled can be
/// forgotten (`mem::forget`), and its lock dropped. So for those the lock must be there for good, or be kept by the future itself: `&'static RangeLock`,
/// `Arc<RangeLock>` or a [`TableLock`](crate::TableLock). The same goes for a [`Batch`](crate::Batch) of any owner.
///
/// ```compile_fail,E0597
/// use spanlock::{Mode, Owner, RangeLock};
/// let lock = RangeLock::new();
/// let future = std::future::IntoFuture::into_future(lock.request(.., Mode::Add).owner(&Owner::new()));
/// ```
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
        fn awaited(self) -> <Self as OwnedBy>::Awaited
        where
            Self: OwnedBy;
        fn answer<G>(result: Result<G, AcquireError>) -> <Self as OwnedBy>::Answer<G>
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
        fn awaited(self) -> ByTask {
            ByTask(())
        }
        #[inline]
        fn answer<G>(result: Result<G, AcquireError>) -> Result<G, AcquireError> {
            result
        }
    }

    #[allow(private_interfaces)]
    impl Sealed for ByTask {
        fn enter(&self) -> Asker {
            Asker { owner: owner::fresh(), visitor: owner::visit(), order: owner::OUTERMOST }
        }
        // It has one request: nobody counts.
        fn join(&self) {}
        #[inline]
        fn leave(&self) {}
        fn identity(&self) -> Option<OwnerId> {
            None
        }
        fn awaited(self) -> ByTask {
            self
        }
        fn answer<G>(result: Result<G, AcquireError>) -> G {
            match result {
                Ok(granted) => granted,
                Err(refused) => {
                    unreachable!("a request that is alone can wait for ever, but not be refused: {refused}")
                }
            }
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
        fn awaited(self) -> ByOwner {
            self
        }
        fn answer<G>(result: Result<G, AcquireError>) -> Result<G, AcquireError> {
            result
        }
    }
}

/// A request of an owner that has begun: it counts until this is dropped, unless somebody else [keeps](Entered::keep) count from then on.
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
