//! A handle of a database: its file, and what redb asks of it as requests of the file's lock.
//!
//! # What becomes what
//! | redb | spanlock |
//! |---|---|
//! | an exclusive lock, a shared one | `Mode::Exclusive`, `Mode::Add` |
//! | `lock`, `try_lock` | `wait`, `try_now` |
//! | `unlock` of a range | the drop of its guard |
//! | `query_lock_range`: who *holds* something there? | `RangeLock::conflicts`, which does not mind who waits |
//! | `close` | the drop of all guards, and of the part in the file |
//!
//! # Who owns what
//! Each lock has an owner of its own. Two handles of one file are kept apart by that, and so would be two locks of one
//! handle, were they to overlap; redb asks for none such. That a handle were *one* owner would be wrong: the threads
//! that use it go on independently of each other. One of them may wait for the writer whose handle, to commit, waits
//! for the header that another of them is about to leave. As an owner, the handle would wait for itself, and that
//! commit would be refused as a deadlock, which it is not. Nor may a lock be a thread's or that of a task's scope: a
//! thread with two handles would be let into both.
//!
//! # Order
//! Locks that conflict are granted in the order in which they were asked for, or with a window: then only those of an
//! owner of this kind are passed that was not named ([`RangeLock::reordering`]), so they go without the name that they
//! have in snapshots otherwise.
//!
//! A `try_lock` is also refused while somebody who came before it waits, although nobody holds anything, and of two
//! that race for one range both may be.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};
use spanlock::guards::{ArcOwnerGuard, ArcRangeGuard};
use spanlock::{ByteRange, Mode, Owner, RangeLock, Snapshot};

use crate::files::Part;

type Bounds = (Bound<u64>, Bound<u64>);

/// Dropped, it releases. Nothing looks at what is in it.
#[derive(Debug)]
enum Held {
    Named { _guard: ArcOwnerGuard },
    Nameless { _guard: ArcRangeGuard },
}

/// Stores a database in a file whose ranges are locked by [`spanlock`]: for several handles of one process.
///
/// Each handle has a backend of its own. Those of one file share its lock, however they were opened, in any
/// [`ConcurrencyMode`](redb::ConcurrencyMode). A handle that is dropped, by a panic too, releases what it holds.
#[derive(Debug)]
pub struct SpanlockBackend {
    /// Reads and writes the file. It locks nothing.
    data: FileBackend,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// By the bounds that redb gave. Before the part: what is held goes first.
    held: HashMap<Bounds, Held>,
    /// `None` when it is closed.
    part: Option<Part>,
}

impl SpanlockBackend {
    /// A handle of `file`, which is open for reading and writing. Handles that want the same bytes have them in the
    /// order in which they came.
    ///
    /// # Errors
    /// [`DatabaseAlreadyOpen`](DatabaseError::DatabaseAlreadyOpen): another process has it open, or this one has by
    /// redb's own storage. Or the system refuses something, for example because it has no locks on ranges of bytes.
    pub fn new(file: File) -> Result<SpanlockBackend, DatabaseError> {
        SpanlockBackend::with_window(file, Duration::ZERO)
    }

    /// The same, but whoever finds the bytes free has them, as long as nobody has waited for them for `window`: see
    /// [`RangeLock::reordering`]. More is committed in all when many write all the time, and waits are less even.
    ///
    /// The first handle of a file says which window its lock has; what the others say is not looked at while there is
    /// one.
    ///
    /// # Errors
    /// As for [`SpanlockBackend::new`].
    pub fn with_window(file: File, window: Duration) -> Result<SpanlockBackend, DatabaseError> {
        let part = Part::new(&file, window)?;
        let state = Mutex::new(State { held: HashMap::new(), part: Some(part) });
        Ok(SpanlockBackend { data: FileBackend::new(file)?, state })
    }

    /// Who holds and who waits for which bytes of the file, of all its handles; none if this one is closed. From byte
    /// 2^62 on, bytes stand for other things than themselves (redb's "lock bytes").
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.ranges().ok().map(|(ranges, _)| ranges.snapshot())
    }

    /// Nobody panics with it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock, and the number of this handle.
    fn ranges(&self) -> io::Result<(Arc<RangeLock>, u64)> {
        let state = self.state();
        let part = state.part.as_ref().ok_or_else(|| io::Error::other("the handle is closed"))?;
        Ok((part.ranges().clone(), part.number()))
    }

    /// Asks for `bounds`, with nothing locked meanwhile. False if it was to be had `now` or not at all.
    fn take(&self, bounds: Bounds, mode: Mode, now: bool) -> io::Result<bool> {
        let range = checked(bounds)?;
        let (ranges, number) = self.ranges()?;
        let request = ranges.request_arc(range, mode);
        // In a scope a request without an owner would be the scope's.
        let held = if ranges.window().is_some() && Owner::current().is_none() {
            let guard = if now { request.try_now() } else { Some(request.wait()) };
            guard.map(|guard| Held::Nameless { _guard: guard })
        } else {
            let word = if mode == Mode::Exclusive { "exclusive" } else { "shared" };
            let request = request.owner(&Owner::named(format!("handle {number}, {word}")));
            let guard = if now { request.try_now() } else { Some(request.wait().map_err(io::Error::other)?) };
            guard.map(|guard| Held::Named { _guard: guard })
        };
        let Some(held) = held else { return Ok(false) };
        let mut state = self.state();
        if state.part.is_none() {
            return Err(io::Error::other("the handle was closed meanwhile"));
        }
        match state.held.entry(bounds) {
            Entry::Vacant(entry) => {
                entry.insert(held);
                Ok(true)
            }
            // An unlock would not know which.
            Entry::Occupied(_) => Err(invalid("this handle has locked that range already")),
        }
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// The range, which must have a byte.
fn checked((start, end): Bounds) -> io::Result<ByteRange> {
    let first = match start {
        Bound::Unbounded => Some(0),
        Bound::Included(first) => Some(first),
        Bound::Excluded(before) => before.checked_add(1),
    };
    let last = match end {
        Bound::Unbounded => Some(u64::MAX),
        Bound::Included(last) => Some(last),
        Bound::Excluded(end) => end.checked_sub(1),
    };
    match (first, last) {
        (Some(first), Some(last)) if first <= last => Ok(ByteRange::new(first..=last)),
        _ => Err(invalid("a range without bytes cannot be locked")),
    }
}

impl StorageBackend for SpanlockBackend {
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        Ok(self.take((start, end), Mode::Exclusive, true)?)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        Ok(self.take((start, end), Mode::Add, true)?)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.take((start, end), Mode::Exclusive, false)?;
        Ok(())
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.take((start, end), Mode::Add, false)?;
        Ok(())
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        let guard = self.state().held.remove(&(start, end));
        // Released here, with nothing locked: it wakes who waits.
        guard.map(drop).ok_or_else(|| invalid("this handle has not locked that range").into())
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        let range = checked((start, end))?;
        let (ranges, _) = self.ranges()?;
        Ok(!ranges.conflicts(range, Mode::Exclusive, None).is_empty())
    }

    fn close(&self) -> io::Result<()> {
        let (held, part) = {
            let mut state = self.state();
            (std::mem::take(&mut state.held), state.part.take())
        };
        drop(held);
        drop(part);
        self.data.close()
    }

    fn len(&self) -> io::Result<u64> {
        self.data.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.data.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.data.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.data.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.data.write(offset, data)
    }
}
