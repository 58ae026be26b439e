//! The record locks of a file server: byte-range locks as `fcntl(2)` has them, whose owners are keys of the caller's
//! choice.
//!
//! For servers of NFS, SMB, 9P or FUSE, and for kernels in user space. See the README for what is promised.
//!
//! ```
//! use spanlock_posix::{Caller, Domain, Error, Extent, Kind, Options};
//!
//! let server = Domain::new(Options::new()); // the owners and their waits, over all files
//! let file = server.file(); // one for each file
//!
//! // An owner is a key, say a client with its lock owner; the process is only what `get` names.
//! let (alice, bob) = (Caller::process(("client 1", 7), 100), Caller::process(("client 2", 7), 200));
//! file.set(alice, Kind::Write, Extent::new(0, 100)?)?;
//! assert_eq!(file.set(bob, Kind::Read, Extent::new(0, 0)?), Err(Error::WouldBlock)); // EAGAIN
//!
//! let pending = file.request(bob, Kind::Read, Extent::new(0, 0)?); // F_SETLKW: wait, await, or a callback
//! file.unlock(alice, Extent::WHOLE)?;
//! pending.wait()?;
//! server.release(&bob.who); // the client is gone
//! # Ok::<(), Error>(())
//! ```
//!
//! Layers, each of which names only those above it here: `error`, `extent` and `caller` (facts), `graph` (who waits for
//! whom in the kernel's order), `table` (the locks of a file, held by guards of [`spanlock`]), then the surface, whose
//! modules name one another: `domain`, `file`, `pending`, `snapshot`.

#![forbid(unsafe_code)]

/// The README's examples, compiled as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod caller;
mod domain;
mod error;
mod extent;
mod file;
mod graph;
mod pending;
mod snapshot;
mod table;

pub use caller::{Caller, Class, Key, Kind, Who};
pub use domain::{Domain, Options, Order, Stats};
pub use error::Error;
pub use extent::Extent;
pub use file::RecordLocks;
pub use pending::{Canceller, Pending};
pub use snapshot::{Lock, Snapshot, Waits};
