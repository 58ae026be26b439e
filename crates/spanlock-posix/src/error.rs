//! Every error, with the number that a system call gives for it.

use std::fmt;
use std::io;

/// Why a call has changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Error {
    /// Somebody else is in the way, and the call was not to wait. (`EAGAIN`)
    WouldBlock,
    /// Owners would wait for one another, and this request would close the cycle. (`EDEADLK`)
    Deadlock,
    /// The request was cancelled while it waited: by its handle, or since its owner was released. (`EINTR`)
    Interrupted,
    /// The owner would have more locks than its quota. (`ENOLCK`)
    NoLocks,
    /// The range reaches past the last byte that a file can have. (`EOVERFLOW`)
    Overflow,
    /// The range begins before byte 0, or holds no byte, or is not a whole file's where that is asked for. (`EINVAL`)
    Invalid,
    /// The owner, which unlocks exactly what it has locked, has no lock of this range. (`EINVAL`)
    NotLocked,
}

impl Error {
    /// The number of `errno(3)`.
    ///
    /// ```
    /// # use spanlock_posix::{Error, Extent};
    /// assert_eq!(Extent::new(i64::MAX, 2).unwrap_err().errno(), libc::EOVERFLOW);
    /// ```
    pub const fn errno(self) -> i32 {
        match self {
            Error::WouldBlock => libc::EAGAIN,
            Error::Deadlock => libc::EDEADLK,
            Error::Interrupted => libc::EINTR,
            Error::NoLocks => libc::ENOLCK,
            Error::Overflow => libc::EOVERFLOW,
            Error::Invalid | Error::NotLocked => libc::EINVAL,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::WouldBlock => "another owner holds some of the range, or waits for it, and the call does not wait",
            Error::Deadlock => "to wait for the range would close a cycle of owners that wait for one another: unlock something first",
            Error::Interrupted => "the request was cancelled while it waited; nothing has changed",
            Error::NoLocks => "the owner would have more locks than its quota allows: unlock something first",
            Error::Overflow => "the range reaches past the last byte that a file can have (2^63 - 1; 2^64 - 1 for exact locks)",
            Error::Invalid => "the range begins before byte 0, or holds no byte, or is a part of a file where only the whole can be locked",
            Error::NotLocked => "the owner has no lock of exactly this range",
        })
    }
}

impl std::error::Error for Error {}

/// The error of a system call with the same number.
///
/// ```
/// # use spanlock_posix::Error;
/// assert_eq!(std::io::Error::from(Error::Deadlock).raw_os_error(), Some(libc::EDEADLK));
/// ```
impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        io::Error::from_raw_os_error(error.errno())
    }
}
