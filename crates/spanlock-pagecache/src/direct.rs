//! Direct I/O: past the cache, and yet in step with it.
//!
//! # A direct write
//! 1. *block* on its pages, as an [`Owner`] of its own; write them back and remove them.
//! 2. Get the buffer's bytes. If the buffer is a [`Mapping`] this faults, inside of the block:
//!    - on a page that it blocks itself: a private page, which never enters the cache;
//!    - elsewhere: an ordinary *add*, nested. Two such writes can cross (each wants a page that the other blocks). The
//!      lock answers one of them with a deadlock. It lets go, asks for block and buffer *together*, removes its pages
//!      again (others had them meanwhile), and goes on. As one batch that is never refused, so one retry is enough.
//! 3. Write the disk; release. A queued write does this on another thread, to which the guards go with it.
//!
//! # A direct read
//! *add* on its pages: direct writes and whatever changes the file's shape stay out until it is done, so that it never
//! reads a disk that is being moved. Dirty pages are written back, then the disk is read. The bytes go to the buffer
//! when nothing is held any more: for a mapping that is an ordinary write to it, with its own look at the file's end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use spanlock::{ByteRange, Mode, Owner};

use crate::buffer::DiskBuffer;
use crate::cache::File;
use crate::device::pages;
use crate::error::CacheError;
use crate::file_lock::{OwnedHeld, Variant};
use crate::frame::PAGE;
use crate::hooks::{Operation, Point};
use crate::mapping::{Faults, GatherError, Mapping};
use crate::queue::{Pending, Queue};

/// Where the bytes of a direct write come from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// From memory of its own.
    Memory(&'a [u8]),
    /// From a mapping, whose pages it faults in while it blocks the pages that it writes.
    Mapped(&'a Mapping),
}

impl Source<'_> {
    fn len(&self) -> usize {
        match self {
            Source::Memory(bytes) => bytes.len(),
            Source::Mapped(mapping) => mapping.len(),
        }
    }
}

/// A direct write that has all that it needs: the range, the bytes. Dropped, it releases the range.
#[derive(Debug)]
struct Prepared {
    file: Arc<File>,
    offset: u64,
    range: ByteRange,
    bytes: DiskBuffer,
    /// The block on `range`; the add on the buffer, after a retry.
    held: Vec<OwnedHeld>,
}

/// A direct read that has its range, and whose bytes are all on the disk.
#[derive(Debug)]
struct Reading {
    offset: u64,
    bytes: DiskBuffer,
    /// How many of them lie before the end of the file.
    there: usize,
    held: OwnedHeld,
}

impl File {
    /// Writes past the cache. Offset and length are whole units of the device; the file may be extended.
    pub fn write_direct(self: &Arc<File>, offset: u64, from: Source<'_>) -> Result<(), CacheError> {
        self.prepare_write(offset, from)?.write()
    }

    /// The same, but the disk is written, and the range released, by a thread of `queue`.
    pub fn submit_write(
        self: &Arc<File>,
        offset: u64,
        from: Source<'_>,
        queue: &Queue,
    ) -> Result<Pending<()>, CacheError> {
        let prepared = self.prepare_write(offset, from)?;
        Ok(queue.submit(move || prepared.write()))
    }

    /// Reads past the cache. Offset and length are whole units of the device. Returns how many bytes there were before
    /// the end of the file.
    pub fn read_direct(&self, offset: u64, to: &mut [u8]) -> Result<usize, CacheError> {
        let read = self.prepare_read(offset, to.len())?.read(self)?;
        to[..read.len()].copy_from_slice(&read);
        Ok(read.len())
    }

    /// The same, into a mapping.
    pub fn read_direct_into(&self, offset: u64, to: &Mapping) -> Result<usize, CacheError> {
        self.prepare_read_into(offset, to)?.read_into(self, to)
    }

    /// A direct read, done by a thread of `queue`.
    pub fn submit_read(
        self: &Arc<File>,
        offset: u64,
        length: usize,
        queue: &Queue,
    ) -> Result<Pending<Vec<u8>>, CacheError> {
        let (file, reading) = (self.clone(), self.prepare_read(offset, length)?);
        Ok(queue.submit(move || reading.read(&file)))
    }

    /// The same, into a mapping.
    pub fn submit_read_into(
        self: &Arc<File>,
        offset: u64,
        to: &Mapping,
        queue: &Queue,
    ) -> Result<Pending<usize>, CacheError> {
        let (file, reading, to) = (self.clone(), self.prepare_read_into(offset, to)?, to.clone());
        Ok(queue.submit(move || reading.read_into(&file, &to)))
    }

    fn prepare_write(self: &Arc<File>, offset: u64, from: Source<'_>) -> Result<Prepared, CacheError> {
        let end = self.check_direct("a direct write", offset, from.len())?;
        let range = ByteRange::new(offset..end).to_pages(PAGE as u64);
        let owner = Owner::named("direct write");
        let block =
            self.lock.take_as(&owner, range, Mode::Block).expect("an owner that holds nothing is never refused");
        self.invalidate(range, Operation::DirectWrite)?;
        self.reached(Point::Invalidated, Operation::DirectWrite, range); // where a reader may fill from the old disk
        let mut bytes = DiskBuffer::new(from.len());
        let held = self.get_buffer(range, from, &owner, block, &mut bytes)?;
        self.reached(Point::GotBuffer, Operation::DirectWrite, range);
        if self.lock.variant() == Variant::Note {
            self.invalidate(range, Operation::DirectWrite)?; // what its own faults brought back
        }
        Ok(Prepared { file: self.clone(), offset, range, bytes, held })
    }

    /// Copies the source's bytes. Returns what is held then.
    fn get_buffer(
        &self,
        range: ByteRange,
        from: Source<'_>,
        owner: &Owner,
        block: OwnedHeld,
        bytes: &mut DiskBuffer,
    ) -> Result<Vec<OwnedHeld>, CacheError> {
        let mapping = match from {
            Source::Memory(memory) => {
                bytes.copy_from_slice(memory);
                return Ok(vec![block]);
            }
            Source::Mapped(mapping) => mapping,
        };
        let own = std::ptr::eq(self, &*mapping.file);
        let faults = if own && self.lock.variant() == Variant::Note { Faults::Unlocked } else { Faults::Ask };
        match mapping.gather(owner, faults, bytes) {
            Ok(()) => return Ok(vec![block]),
            Err(GatherError::Failed(error)) => return Err(error),
            Err(GatherError::Crossed) => {}
        }
        self.retries.fetch_add(1, Ordering::Relaxed);
        let buffer = ByteRange::new(mapping.offset..mapping.offset + mapping.len() as u64).to_pages(PAGE as u64);
        let held = self.lock.retake_with(owner, block, &mapping.file.lock, buffer);
        self.invalidate(range, Operation::DirectWrite)?;
        self.reached(Point::Invalidated, Operation::DirectWrite, range);
        match mapping.gather(owner, Faults::Covered, bytes) {
            Ok(()) => Ok(held),
            Err(GatherError::Failed(error)) => Err(error),
            Err(GatherError::Crossed) => unreachable!("nothing more is asked for"),
        }
    }

    fn prepare_read(&self, offset: u64, length: usize) -> Result<Reading, CacheError> {
        let end = self.check_direct("a direct read", offset, length)?;
        let range = ByteRange::new(offset..end).to_pages(PAGE as u64);
        let owner = Owner::named("direct read");
        let held = self.lock.take_as(&owner, range, Mode::Add).expect("an owner that holds nothing is never refused");
        // Now: not before the wait, and not when the disk has been read, since the file may have become longer by what
        // is only in the cache. All up to here is on the disk when the next lines are done.
        let there = usize::try_from(self.size().saturating_sub(offset)).unwrap_or(usize::MAX).min(length);
        for page in pages(offset)..pages((offset + length as u64).next_multiple_of(PAGE as u64)) {
            self.write_back(page, Operation::DirectRead)?;
        }
        Ok(Reading { offset, bytes: DiskBuffer::new(length), there, held })
    }

    /// Faults the mapping's pages in first, as "get user pages" does.
    fn prepare_read_into(&self, offset: u64, to: &Mapping) -> Result<Reading, CacheError> {
        to.read(0, &mut vec![0; to.len()])?;
        let prepared = self.prepare_read(offset, to.len())?;
        let range = ByteRange::new(offset..offset + to.len() as u64).to_pages(PAGE as u64);
        self.reached(Point::GotBuffer, Operation::DirectRead, range);
        Ok(prepared)
    }

    /// Whether a direct operation can be had; where it ends.
    fn check_direct(&self, what: &'static str, offset: u64, length: usize) -> Result<u64, CacheError> {
        let unit = self.device.unit();
        if offset % unit as u64 != 0 || length % unit != 0 {
            return Err(CacheError::Unaligned { what, offset, length: length as u64, unit });
        }
        self.end_of(offset, length)
    }
}

impl Reading {
    /// Reads the disk, and lets go.
    fn read(mut self, file: &File) -> Result<Vec<u8>, CacheError> {
        file.device.read(self.offset, &mut self.bytes)?;
        drop(self.held);
        Ok(self.bytes[..self.there].to_vec())
    }

    fn read_into(self, file: &File, to: &Mapping) -> Result<usize, CacheError> {
        let locked = self.held.is_locked();
        let read = self.read(file)?;
        if locked {
            to.write(0, &read)?;
        } else {
            to.write_pinned(&read); // where the file may have become shorter
        }
        Ok(read.len())
    }
}

impl Prepared {
    /// Writes the disk, and lets go.
    fn write(self) -> Result<(), CacheError> {
        let Prepared { file, offset, range, bytes, held } = self;
        let result = file.device.write_counted(offset, &bytes);
        let written = match &result {
            Ok(()) => bytes.len(),
            Err((written, _)) => *written,
        };
        file.reached(Point::Written, Operation::DirectWrite, range); // where nobody knows yet that the file has grown
        // What is on the disk belongs to the file, also if the rest failed.
        if written > 0 {
            file.grow(offset + written as u64);
        }
        if file.lock.variant().invalidates_afterwards() {
            file.invalidate(range, Operation::DirectWrite)?;
        }
        drop(held);
        match result {
            Ok(()) => Ok(()),
            Err((0, error)) => Err(CacheError::Device(error)),
            Err((written, because)) => {
                Err(CacheError::Short { written: written as u64, wanted: bytes.len() as u64, because })
            }
        }
    }
}
