//! The files that this process has open as databases, each with the lock of its ranges.
//!
//! # Promise
//! - One file has one lock, whatever names and handles it was opened by, for as long as one of them is there: a file is
//!   told by what it is (device and inode, or what the system has in their place), and stays open here meanwhile, so
//!   that no other can be taken for it.
//! - Meanwhile nobody else has it open as a database: neither another process nor redb's own storage in this one. They
//!   take the kernel's locks on bytes from [`LOCK_BYTES`] on, and so does the first handle here, all of them
//!   exclusively.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redb::backends::FileBackend;
use redb::{DatabaseError, StorageBackend};
use same_file::Handle;
use spanlock::RangeLock;

/// Where redb's lock bytes begin; each of its handles holds some of them while it is open. (The bytes before are the
/// file's own, which some systems let nobody read who has no lock on them.)
const LOCK_BYTES: u64 = 1 << 62;

static FILES: LazyLock<Mutex<HashMap<Arc<Handle>, Shared>>> = LazyLock::new(Mutex::default);

/// What the handles of one file share.
#[derive(Debug)]
struct Shared {
    ranges: Arc<RangeLock>,
    /// Holds the kernel's lock.
    kernel: FileBackend,
    /// How many handles there are.
    users: usize,
}

/// One handle's part in a file. Dropped, it is gone; the last one lets the file go.
#[derive(Debug)]
pub(crate) struct Part {
    file: Arc<Handle>,
    ranges: Arc<RangeLock>,
    number: u64,
}

/// Nobody panics with it; and if somebody did, the counts would be right all the same.
fn files() -> MutexGuard<'static, HashMap<Arc<Handle>, Shared>> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Part {
    /// For one more handle of `file`. The first one says which window its lock has.
    pub(crate) fn new(file: &File, window: Duration) -> Result<Part, DatabaseError> {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let file_handle = Arc::new(Handle::from_file(file.try_clone()?)?);
        let mut files = files();
        let shared = match files.entry(file_handle.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let kernel = FileBackend::new(file.try_clone()?)?;
                match kernel.try_lock_range(Bound::Included(LOCK_BYTES), Bound::Unbounded) {
                    Ok(true) => {}
                    Ok(false) => return Err(DatabaseError::DatabaseAlreadyOpen),
                    Err(error) => return Err(io::Error::from(error).into()),
                }
                let ranges = Arc::new(RangeLock::new().reordering(window));
                entry.insert(Shared { ranges, kernel, users: 0 })
            }
        };
        shared.users += 1;
        // Relaxed: only that numbers differ matters.
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        Ok(Part { file: file_handle, ranges: shared.ranges.clone(), number })
    }

    /// The lock of the file's ranges.
    pub(crate) fn ranges(&self) -> &Arc<RangeLock> {
        &self.ranges
    }

    /// Tells the handles of this process apart.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut files = files();
        let Entry::Occupied(mut entry) = files.entry(self.file.clone()) else { return };
        entry.get_mut().users -= 1;
        if entry.get().users == 0 {
            let shared = entry.remove();
            // By name, and not by closing the file, which somebody may have cloned. If it fails there is nobody to
            // tell, and closing does it.
            let _ = shared.kernel.close();
        }
    }
}
