//! What a granted request hands out: a guard that holds the range until it is dropped.

use crate::grant::Held;
use crate::lock::RangeLock;
use crate::mode::Mode;
use crate::range::ByteRange;
use crate::request::LockRef;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, MutexGuard};

/// Marks guards whose owner is the thread that asked. They stay on it: another thread that had one would not conflict with it.
#[derive(Debug)]
pub struct ByThread(
    // Like a mutex guard: not `Send`, but `Sync`.
    PhantomData<MutexGuard<'static, ()>>,
);

/// Marks guards that have an owner of their own, and can be sent to another thread.
#[derive(Debug)]
pub struct ByTask(());

/// Holds a range until it is dropped, on unwinding too. Its three kinds have names:
///
/// | kind | from | owner | `Send` | borrows the lock |
/// |---|---|---|---|---|
/// | [`RangeGuard`] | the blocking calls | the thread | no | yes |
/// | [`SendRangeGuard`] | `.await` | its own | yes | yes |
/// | [`ArcRangeGuard`] | [`RangeLock::request_arc`] | its own | yes | no |
///
/// A leaked guard keeps its range locked for good, and breaks nothing else.
#[must_use = "if unused, the range is released at once"]
#[clippy::has_significant_drop]
pub struct Guard<L: LockRef, O> {
    // Fields are dropped in this order: the range is released while `lock` keeps the tree in place.
    held: Held,
    lock: L,
    owner: PhantomData<O>,
}

/// A guard from a blocking call, owned by its thread.
///
/// It stays on that thread:
/// ```compile_fail
/// # let lock = spanlock::RangeLock::new();
/// let guard = lock.add(..);
/// std::thread::scope(|s| s.spawn(move || drop(guard)));
/// ```
pub type RangeGuard<'lock> = Guard<&'lock RangeLock, ByThread>;

/// A guard from `.await`, with an owner of its own.
pub type SendRangeGuard<'lock> = Guard<&'lock RangeLock, ByTask>;

/// A guard that keeps its lock alive, with an owner of its own.
pub type ArcRangeGuard = Guard<Arc<RangeLock>, ByTask>;

impl<L: LockRef, O> Guard<L, O> {
    /// `held` belongs to the tree of `lock`.
    #[inline]
    pub(crate) fn new(lock: L, held: Held) -> Guard<L, O> {
        Guard { held, lock, owner: PhantomData }
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
}

/// Does nothing itself: dropping `held` is the release. But it makes a guard count as a user of its lock while it is dropped, so that
/// the compiler refuses a lock that goes first:
/// ```compile_fail,E0597
/// let guard;
/// let lock = spanlock::RangeLock::new();
/// guard = lock.add(..);
/// ```
impl<L: LockRef, O> Drop for Guard<L, O> {
    #[inline]
    fn drop(&mut self) {}
}

impl<L: LockRef, O> fmt::Debug for Guard<L, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Guard");
        out.field("range", &self.range()).field("mode", &self.mode());
        match self.held.word() {
            Some(word) => out.field("state", &word),
            None => out.field("state", &format_args!("holds nothing")),
        };
        out.finish()
    }
}
