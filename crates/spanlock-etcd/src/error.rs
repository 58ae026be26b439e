//! Every error, in words for people. Contention is none: it waits.

use crate::record::OwnerId;
use crate::store::StoreError;
use spanlock::{ByteRange, Mode};
use std::fmt;

/// Why a request was not granted. It has left the queue, or leaves it as soon as the store answers (at the latest with
/// the session); what its owner held before, it still holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The deadline passed first.
    TimedOut,
    /// Granting it takes what only those could give who wait for its owner.
    Deadlock(Deadlock),
    /// The session's lease is gone, or may be: all that it held is lost, and its places in the queue are. Connect anew.
    SessionLost,
    /// The session was closed.
    Closed,
    /// The request's key was removed by somebody else while it waited.
    Removed,
    /// A lock cannot have that name.
    Name {
        /// The name.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// More ranges than one transaction takes.
    TooManyParts {
        /// How many it takes.
        most: usize,
    },
    /// The owner is another session's, or one of the locks is.
    OtherSession,
    /// A key among those of the locks that this version cannot read.
    Foreign {
        /// The key.
        key: String,
    },
    /// What the store said.
    Store(StoreError),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Error {
        Error::Store(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::TimedOut => f.write_str("the range was not granted before the deadline"),
            Error::Deadlock(deadlock) => deadlock.fmt(f),
            Error::SessionLost => f.write_str("the session's lease is gone, or may be: connect anew"),
            Error::Closed => f.write_str("the session was closed"),
            Error::Removed => f.write_str("the request's key was removed by somebody else"),
            Error::Name { name, why } => write!(f, "a lock cannot be called {name:?}: {why}"),
            Error::TooManyParts { most } => write!(f, "a request takes at most {most} ranges"),
            Error::OtherSession => f.write_str("the owner or one of the locks belongs to another session"),
            Error::Foreign { key } => {
                write!(f, "the key {key:?} is not of this version of spanlock-etcd, or of something else altogether")
            }
            Error::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Deadlock(deadlock) => Some(deadlock),
            Error::Store(error) => Some(error),
            _ => None,
        }
    }
}

/// A cycle of owners, each of which waits for bytes that the next one holds; the last one waits for the first.
///
/// Of all requests in the cycle, the one that got this answer came last. *The remedy* is to let go of all that its
/// owner holds, and to ask for that and for what was refused anew, together, as one request with several ranges
/// ([`Request::and`](crate::Request::and)), which of an owner that holds nothing else never deadlocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadlock {
    pub(crate) waits: Vec<Wait>,
}

impl Deadlock {
    /// The waits of the cycle: the first is the one that was refused.
    pub fn waits(&self) -> &[Wait] {
        &self.waits
    }
}

/// One wait of a [`Deadlock`]: `owner` wants `range` in `mode`, and the owner of the next wait holds `held` of the same
/// lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wait {
    /// Who waits.
    pub owner: OwnerName,
    /// The lock's name.
    pub lock: String,
    /// The bytes that are asked for.
    pub range: ByteRange,
    /// The mode that they are asked for in.
    pub mode: Mode,
    /// The bytes that are held against it.
    pub held: ByteRange,
    /// The mode that those are held in.
    pub held_mode: Mode,
}

/// An owner in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnerName {
    /// Its identity.
    pub id: OwnerId,
    /// What the token is called, if it is called something.
    pub name: String,
}

impl fmt::Display for OwnerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.as_str() {
            "" => self.id.fmt(f),
            name => write!(f, "{} \"{name}\"", self.id),
        }
    }
}

/// One line for the whole and one for each wait.
impl fmt::Display for Deadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "deadlock: {} owners wait for one another", self.waits.len())?;
        let holders = self.waits.iter().cycle().skip(1);
        for (wait, holder) in self.waits.iter().zip(holders) {
            let Wait { owner, lock, range, mode, held, held_mode } = wait;
            write!(f, "\n  {owner} asks {lock} for {range} ({mode:?}); {} holds {held} ({held_mode:?})", holder.owner)?;
        }
        Ok(())
    }
}

impl std::error::Error for Deadlock {}
