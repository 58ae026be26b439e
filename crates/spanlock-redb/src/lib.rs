//! Several writable handles of one [`redb`] database in one process, whose file ranges are locked first come, first
//! served.
//!
//! redb lets several handles write one file, one transaction at a time ([`ConcurrencyMode::MultiWriter`]), if its
//! storage has locks on ranges of bytes. Its own storage takes the kernel's. [`SpanlockBackend`] takes those of
//! [`spanlock`] instead, one lock for each file, whichever handle opened it under whichever name:
//!
//! ```
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path().join("accounts.redb");
//! use redb::{ReadableDatabase, TableDefinition};
//!
//! const ACCOUNTS: TableDefinition<&str, u64> = TableDefinition::new("accounts");
//!
//! let first = spanlock_redb::create(&path)?; // two handles, as two components of a program would have them
//! let second = spanlock_redb::create(&path)?;
//!
//! let write = first.begin_write()?;
//! write.open_table(ACCOUNTS)?.insert("alice", 7)?;
//! assert!(matches!(second.try_begin_write(), Err(redb::TransactionError::WouldBlock)));
//! write.commit()?;
//!
//! let read = second.begin_read()?; // it sees what the other has committed
//! assert_eq!(read.open_table(ACCOUNTS)?.get("alice")?.unwrap().value(), 7);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | module | what it is | what it knows |
//! |---|---|---|
//! | `files` | the files that this process has open, each with its lock; keeps other processes out | same-file, spanlock |
//! | `backend` | a handle: what redb asks of it, as requests | `files`, redb, spanlock |

#![forbid(unsafe_code)]

/// The README's examples, compiled as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod backend;
mod files;

use std::fs::File;
use std::path::Path;

use redb::{ConcurrencyMode, Database, DatabaseError};

pub use backend::SpanlockBackend;

/// Opens the database at `path` for writing, beside the other handles of this process; makes it if there is none.
///
/// For other settings, give a [`SpanlockBackend`] to [`redb::Builder::create_with_backend`]. Handles of one file must
/// agree on the mode.
///
/// # Errors
/// Those of [`SpanlockBackend::new`] and of redb.
pub fn create(path: impl AsRef<Path>) -> Result<Database, DatabaseError> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    redb::Builder::new()
        .set_concurrency_mode(ConcurrencyMode::MultiWriter)
        .create_with_backend(SpanlockBackend::new(file)?)
}
