//! Mapped access: what a process does to a file that it has mapped.
//!
//! A [`Mapping`] has no page table of its own: each access looks the page up in the cache, and *faults* if it is not
//! there. Reads fault as misses do; writes always do what kernels call *mkwrite* (a page that is already there costs a
//! request of the lock, nothing more). An access behind the end of the file is an error, where a process would get
//! SIGBUS; so is one to the rest of the last page, which kernels let through.

use std::sync::Arc;

use spanlock::{Mode, Owner};

use crate::cache::{Behind, File, Found, Piece, Seen, bytes_of, pieces};
use crate::device::{PageBuffer, offset_of, pages};
use crate::error::CacheError;
use crate::file_lock::{Crossed, OwnedHeld, Variant};
use crate::frame::PAGE;
use crate::hooks::Operation;

/// A range of a file, as memory.
#[derive(Clone, Debug)]
pub struct Mapping {
    pub(crate) file: Arc<File>,
    pub(crate) offset: u64,
    length: usize,
}

/// How a direct write gets at the pages of its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Faults {
    /// It asks for each.
    Ask,
    /// It holds add on all of them already.
    Covered,
    /// It goes round the lock.
    Unlocked,
}

/// Why the pages of a direct write's buffer are not to be had.
#[derive(Debug)]
pub(crate) enum GatherError {
    /// Its way crosses another's: begin again.
    Crossed,
    Failed(CacheError),
}

impl<E: Into<CacheError>> From<E> for GatherError {
    fn from(error: E) -> GatherError {
        GatherError::Failed(error.into())
    }
}

impl Mapping {
    /// Of a file that may be shorter, now or later.
    pub fn new(file: &Arc<File>, offset: u64, length: usize) -> Mapping {
        Mapping { file: file.clone(), offset, length }
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Loads from the mapping, at `at` bytes into it.
    ///
    /// # Panics
    /// If that is outside of the mapping, as slicing does.
    pub fn read(&self, at: usize, to: &mut [u8]) -> Result<(), CacheError> {
        self.load(at, to, |page, scratch| self.file.page(page, Operation::Fault, scratch))
    }

    /// Stores to the mapping, at `at` bytes into it.
    ///
    /// # Panics
    /// If that is outside of the mapping, as slicing does.
    pub fn write(&self, at: usize, bytes: &[u8]) -> Result<(), CacheError> {
        assert!(at + bytes.len() <= self.length, "inside of the mapping");
        for piece in pieces(self.offset + at as u64, bytes) {
            let start = offset_of(piece.page) + piece.at as u64;
            if self.file.lock.variant() == Variant::Lean && self.store_to_cached(&piece, start) {
                continue;
            }
            let _add = self.file.lock.take(bytes_of(piece.page), Mode::Add);
            check_end(start, piece.bytes.len(), self.file.size())?;
            while !self.file.table.frame(piece.page).write(piece.at, piece.bytes) {
                if !self.file.fill(piece.page, Operation::MakeWritable, Behind::Refuse)? {
                    return Err(CacheError::PastEnd { offset: start, size: self.file.size() });
                }
            }
        }
        Ok(())
    }

    /// Stores to a page that is there, without a lock. A page leaves the cache before the file is cut off in the middle
    /// of it, and who removes it looks in the same step whether it is clean.
    fn store_to_cached(&self, piece: &Piece<'_>, start: u64) -> bool {
        let inside = || start + piece.bytes.len() as u64 <= self.file.size();
        self.file.table.find(piece.page).is_some_and(|frame| frame.write_present(piece.at, piece.bytes, inside))
    }

    /// Stores to pages that were looked up before, whatever has become of the file since: what a device does that
    /// writes to a mapping's pages. Only without a lock; with one, see [`Mapping::write`].
    pub(crate) fn write_pinned(&self, bytes: &[u8]) {
        for piece in pieces(self.offset, bytes) {
            let frame = self.file.table.frame(piece.page);
            while !frame.write(piece.at, piece.bytes) {
                frame.insert(&[0; PAGE]);
            }
        }
    }

    /// Copies all of it for a direct write of `owner`, which blocks pages while it faults.
    pub(crate) fn gather(&self, owner: &Owner, faults: Faults, to: &mut [u8]) -> Result<(), GatherError> {
        self.load(0, to, |page, scratch| self.fault_nested(page, owner, faults, scratch))
    }

    /// One fault while `owner` blocks something.
    fn fault_nested(
        &self,
        page: usize,
        owner: &Owner,
        faults: Faults,
        to: &mut [u8; PAGE],
    ) -> Result<Seen, GatherError> {
        let file = &self.file;
        loop {
            if let Some(size) = file.look(page, to) {
                return Ok(Seen { found: Found::InCache, size });
            }
            if page >= file.page_count() {
                return Ok(file.behind());
            }
            let add = match faults {
                Faults::Covered => return Ok(self.read_privately(page, to)?),
                Faults::Unlocked => None,
                Faults::Ask => Some(file.lock.take_as(owner, bytes_of(page), Mode::Add)),
            };
            let add = add.transpose().map_err(|Crossed| GatherError::Crossed)?;
            // The page would be stale as soon as the write below it is done, so nobody else may ever see it.
            if add.as_ref().is_some_and(OwnedHeld::is_inside_own_block) {
                return Ok(self.read_privately(page, to)?);
            }
            // No read-ahead from here: it might bring back what was just removed.
            if !file.fill(page, Operation::Fault, Behind::Refuse)? {
                return Ok(file.behind());
            }
            // Under add, or somebody who waits for the page might take it away again.
            if let Some(size) = file.look(page, to) {
                return Ok(Seen { found: Found::OnDisk, size });
            }
        }
    }

    /// Reads a page for its reader alone: from the cache, or else from the disk into a page that never enters the
    /// cache. The owner holds add or block on it, so that the disk has all that the cache does not.
    fn read_privately(&self, page: usize, to: &mut [u8; PAGE]) -> Result<Seen, CacheError> {
        if let Some(size) = self.file.look(page, to) {
            return Ok(Seen { found: Found::InCache, size });
        }
        // Before the disk is read: it has all that the size covers, and later ones may cover what was not there yet.
        let size = self.file.size();
        let mut private = PageBuffer::new();
        self.file.device.read_page(page, &mut private)?;
        to.copy_from_slice(&private[..]);
        Ok(Seen { found: Found::OnDisk, size })
    }

    /// Copies, with `fault` to get at each page.
    fn load<E: From<CacheError>>(
        &self,
        at: usize,
        to: &mut [u8],
        mut fault: impl FnMut(usize, &mut [u8; PAGE]) -> Result<Seen, E>,
    ) -> Result<(), E> {
        assert!(at + to.len() <= self.length, "inside of the mapping");
        let mut scratch = [0; PAGE];
        let mut done = 0;
        while done < to.len() {
            let start = self.offset + (at + done) as u64;
            let within = (start % PAGE as u64) as usize;
            let length = (to.len() - done).min(PAGE - within);
            let seen = fault(pages(start), &mut scratch)?;
            // Not before the fault, which may have waited (INV-C9).
            match seen.found {
                Found::Behind => return Err(CacheError::PastEnd { offset: start, size: seen.size }.into()),
                Found::InCache | Found::OnDisk => check_end(start, length, seen.size)?,
            }
            to[done..done + length].copy_from_slice(&scratch[within..within + length]);
            done += length;
        }
        Ok(())
    }
}

/// Whether a file of `size` has these bytes.
fn check_end(start: u64, length: usize, size: u64) -> Result<(), CacheError> {
    match start.saturating_add(length as u64) {
        end if end <= size => Ok(()),
        end => Err(CacheError::PastEnd { offset: end.saturating_sub(1).max(start), size }),
    }
}
