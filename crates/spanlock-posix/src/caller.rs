//! Who asks, and for what kind of lock.

use spanlock::Mode;
use std::fmt;

/// The kind of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Shared: goes with other read locks.
    Read,
    /// Exclusive.
    Write,
}

impl Kind {
    /// Whether locks of these kinds, of two owners, can hold the same byte.
    pub const fn goes_with(self, other: Kind) -> bool {
        matches!((self, other), (Kind::Read, Kind::Read))
    }

    pub(crate) const fn mode(self) -> Mode {
        match self {
            Kind::Read => Mode::Add,
            Kind::Write => Mode::Exclusive,
        }
    }
}

/// `read` or `write`.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Read => "read",
            Kind::Write => "write",
        })
    }
}

/// What an owner is, and so what its locks do. Keys of different classes are different owners, also if they are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Class {
    /// A process, as `fcntl(F_SETLK)` has it: an owner's locks of a byte replace each other.
    Process,
    /// An open file description, as `fcntl(F_OFD_SETLK)` has it: the same, but in the [kernel's
    /// order](crate::Order::Kernel) its waits are never answered with a deadlock.
    Description,
    /// An open file description, as `flock(2)` has it: locks of the whole file, which do not conflict with those of the
    /// other classes.
    Flock,
    /// A handle, as SMB and `LockFileEx` have it: locks lie beside each other, a write lock conflicts with those of its
    /// own owner, too, and what is unlocked is exactly what was locked.
    Handle,
}

impl Class {
    /// Whether a cycle of waits that leads through it is looked for in the kernel's order.
    pub(crate) const fn answers_deadlocks(self) -> bool {
        matches!(self, Class::Process | Class::Handle)
    }
}

/// An owner of locks: a key, and what class of owner that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Who<O> {
    /// What it is.
    pub class: Class,
    /// The caller's key.
    pub key: O,
}

/// Who asks: the owner, and the process that [`get`](crate::RecordLocks::get) names, which need not be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Caller<O> {
    /// Whose the lock is.
    pub who: Who<O>,
    /// The process to name to whoever asks.
    pub pid: i32,
}

impl<O> Caller<O> {
    /// A process, or whatever else owns locks as one does: a client with its handle, say.
    pub const fn process(key: O, pid: i32) -> Caller<O> {
        Caller { who: Who { class: Class::Process, key }, pid }
    }

    /// An open file description. It has no process: `get` names -1.
    pub const fn description(key: O) -> Caller<O> {
        Caller { who: Who { class: Class::Description, key }, pid: -1 }
    }

    /// An open file description that locks by `flock(2)`.
    pub const fn flock(key: O, pid: i32) -> Caller<O> {
        Caller { who: Who { class: Class::Flock, key }, pid }
    }

    /// A handle of SMB.
    pub const fn handle(key: O, pid: i32) -> Caller<O> {
        Caller { who: Who { class: Class::Handle, key }, pid }
    }
}

/// What can be the key of an owner. It is compared and cloned under short locks: it must not use the record locks that
/// it is a key of.
///
/// Whatever has these traits has this one.
pub trait Key: Clone + Eq + std::hash::Hash + fmt::Debug + Send + Sync + 'static {}

impl<O: Clone + Eq + std::hash::Hash + fmt::Debug + Send + Sync + 'static> Key for O {}

/// A request: of whom, for what.
#[derive(Clone, Debug)]
pub(crate) struct Ask<O> {
    pub(crate) caller: Caller<O>,
    pub(crate) kind: Kind,
    pub(crate) extent: crate::extent::Extent,
}

impl<O: Eq> Ask<O> {
    /// Whether two requests, or a request and a lock, are in each other's way.
    pub(crate) fn conflicts(&self, who: &Who<O>, kind: Kind, extent: crate::extent::Extent) -> bool {
        !self.kind.goes_with(kind) && self.extent.meets(extent) && self.caller.who != *who
    }
}
