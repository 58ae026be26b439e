//! A lock however it is referred to, so that a batch can have parts of different kinds.

use crate::facts::owner_kind::ByThread;
use crate::surface::lock::RangeLock;
use crate::surface::request::{LockRef, sealed};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A reference to a lock, an `Arc` or a [`TableLock`](crate::TableLock): whichever, as one type. For a
/// [`Batch`](crate::Batch) of several kinds.
///
/// A table's lock is put in a box for that, and a request that names no owner is the thread's.
///
/// # Examples
#[cfg_attr(feature = "table", doc = "```")]
#[cfg_attr(not(feature = "table"), doc = "```ignore")]
/// use spanlock::{AcquireError, AnyLock, Batch, LockTable, RangeLock};
///
/// /// The directory, and the file.
/// fn rename(names: &RangeLock, inodes: &LockTable<u64>) -> Result<(), AcquireError> {
///     let _both = Batch::new().exclusive(AnyLock::from(names), 0..10).add(AnyLock::from(inodes.lock(17)), ..).wait()?;
///     Ok(())
/// }
/// # rename(&RangeLock::new(), &LockTable::new()).unwrap();
/// ```
#[derive(Clone)]
pub struct AnyLock<'l>(Kind<'l>);

#[derive(Clone)]
enum Kind<'l> {
    Ref(&'l RangeLock),
    Arc(Arc<RangeLock>),
    Boxed(Arc<dyn Keeps + 'l>),
}

/// Keeps its lock where it is.
trait Keeps: Send + Sync {
    fn lock(&self) -> &RangeLock;
}

impl<L: LockRef + Send + Sync> Keeps for L {
    fn lock(&self) -> &RangeLock {
        self
    }
}

impl<'l> AnyLock<'l> {
    /// As `From`, for any other kind of reference: it is put in a box.
    #[cfg_attr(not(feature = "table"), allow(dead_code))] // There is no other kind.
    pub(crate) fn boxed(lock: impl LockRef + Send + Sync + 'l) -> AnyLock<'l> {
        AnyLock(Kind::Boxed(Arc::new(lock)))
    }
}

impl<'l> From<&'l RangeLock> for AnyLock<'l> {
    fn from(lock: &'l RangeLock) -> AnyLock<'l> {
        AnyLock(Kind::Ref(lock))
    }
}

impl From<Arc<RangeLock>> for AnyLock<'_> {
    fn from(lock: Arc<RangeLock>) -> Self {
        AnyLock(Kind::Arc(lock))
    }
}

impl Deref for AnyLock<'_> {
    type Target = RangeLock;

    fn deref(&self) -> &RangeLock {
        match &self.0 {
            Kind::Ref(lock) => lock,
            Kind::Arc(lock) => lock,
            Kind::Boxed(lock) => lock.lock(),
        }
    }
}

impl LockRef for AnyLock<'_> {
    type Owner = ByThread;
}

/// Each kind keeps the lock where it is, and so does a clone.
impl sealed::Sealed for AnyLock<'_> {
    const KEEPS: bool = false;
}

impl fmt::Debug for AnyLock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
