//! The page cache: which lock is held where, and why that is enough.
//!
//! # Promise
//! Under [`FileLock::Whole`] and [`FileLock::Range`] a read that begins after a
//! write ended finds that write or a later one, whichever way the two went; and once
//! everything is written back, each cached page equals the disk. Under
//! [`FileLock::None`] neither holds, although every single step is atomic.
//!
//! # Who takes what
//! | operation | range | mode | while it |
//! |---|---|---|---|
//! | cached read, hit | - | - | copies the page from its frame |
//! | cached read, miss | the page | add | reads the disk and inserts the page |
//! | buffered write | its bytes, widened to pages | add | fills what is missing, copies in, marks dirty |
//! | write-back | - | - | writes a dirty page to the disk, under its page lock |
//! | direct write | its bytes, widened to pages | block | writes back, drops, writes the disk |
//! | truncate | from its page to the end of all bytes | exclusive | drops, cuts off, extends |
//!
//! # Invariants
//! - INV-C1: a page enters the cache or becomes dirty only under add.
//! - INV-C2: a page leaves the cache only under block or exclusive. So whoever holds add,
//!   and finds the frame empty when inserting, knows that it was empty ever since add was
//!   granted; hence that nobody had anything to write back, and nobody may write past the
//!   cache; hence that what was read from the disk is what the disk holds.
//! - INV-C3: a direct write changes the disk after its pages left the cache and before
//!   block is released. Nobody can fetch an old page in between, for that takes add.
//! - INV-C4: ranges are whole pages, because pages are what is cached: a direct write of
//!   sector 3 must keep everybody from filling the page for the sake of sector 5.
//! - INV-C5: a page is written back, and dropped, under its page lock; the lock is held until
//!   the disk has the bytes. So once a page is out of the cache no old copy of it is on its
//!   way to the disk, and write-back needs no range. (Neither does it in the kernel.)
//! - INV-C6: the file's lock before the page lock; one range at a time per thread. Whoever
//!   holds a page lock waits for nothing but the disk.
//!
//! Truncates are exclusive because blockers go with blockers: a direct write in the middle
//! of a truncate would leave bytes behind the end of the file.
//!
//! # What is left out
//! Pages leave the cache only by direct writes and truncates; there is no eviction.
//! (It would take block, by `try_block`, on what it evicts.) The file never grows
//! beyond its size, so no write extends it.

use std::thread;
use std::time::{Duration, Instant};

use spanlock::{ByteRange, Mode};

use crate::device::{Device, DeviceError, PageBuffer, offset_of, pages};
use crate::file_lock::{FileLock, Waits};
use crate::frame::{Frame, LockedFrame, PAGE};

/// What each thread brings along: a page to move bytes through, and its statistics.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) waits: Waits,
    scratch: Box<PageBuffer>,
}

impl Thread {
    pub(crate) fn new() -> Thread {
        Thread { waits: Waits::default(), scratch: PageBuffer::new() }
    }
}

/// Where a read found its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    InCache,
    OnDisk,
}

/// A page cache over the whole of a [`Device`].
#[derive(Debug)]
pub(crate) struct PageCache<'a> {
    device: &'a Device,
    lock: FileLock,
    /// One for each page of the file: the page table needs no lock of its own.
    frames: Box<[Frame]>,
    /// How long to linger where the races are, under each lock alike.
    pause: Duration,
}

impl<'a> PageCache<'a> {
    pub(crate) fn new(device: &'a Device, lock: FileLock, pause: Duration) -> PageCache<'a> {
        let frames = (0..device.pages()).map(|_| Frame::new()).collect();
        PageCache { device, lock, frames, pause }
    }

    /// Reads one page.
    pub(crate) fn read(&self, page: usize, to: &mut [u8; PAGE], thread: &mut Thread) -> Result<Found, DeviceError> {
        let frame = &self.frames[page];
        let mut found = Found::InCache;
        // No lock of any kind on a hit. Nothing is held while the bytes go to the
        // reader either, so the page may be dropped again first: then once more.
        while !frame.read(to) {
            found = Found::OnDisk;
            let _add = self.lock.take(bytes_of(page), Mode::Add, &mut thread.waits);
            self.fill(page, thread)?;
        }
        Ok(found)
    }

    /// Writes `bytes` at `offset` into the cache, from where they reach the disk
    /// later. Both are in whole sectors.
    pub(crate) fn write_buffered(&self, offset: u64, bytes: &[u8], thread: &mut Thread) -> Result<(), DeviceError> {
        let range = ByteRange::new(offset..offset + bytes.len() as u64).to_pages(PAGE as u64);
        let _add = self.lock.take(range, Mode::Add, &mut thread.waits);
        for piece in pieces(offset, bytes) {
            // Under add a page that was filled stays, so this takes two rounds at
            // most. Under no lock it may be dropped before we come to write to it.
            while !self.frames[piece.page].write(piece.at, piece.bytes) {
                self.fill(piece.page, thread)?;
            }
        }
        Ok(())
    }

    /// Writes `bytes` at `offset` to the disk, past the cache. Both are in whole units
    /// of the device, and `bytes` start at an aligned address.
    pub(crate) fn write_direct(&self, offset: u64, bytes: &[u8], thread: &mut Thread) -> Result<(), DeviceError> {
        let range = ByteRange::new(offset..offset + bytes.len() as u64).to_pages(PAGE as u64);
        let _block = self.lock.take(range, Mode::Block, &mut thread.waits);
        for piece in pieces(offset, bytes) {
            // Written back first: the page may have dirty sectors that this write does
            // not replace. Under block nobody makes it dirty again before it is dropped.
            let frame = self.frames[piece.page].lock();
            self.write_back_locked(piece.page, &frame, thread)?;
            frame.drop_page();
        }
        self.linger(); // where a reader may fill the page from the old disk
        self.device.write(offset, bytes)
    }

    /// Cuts the file off in front of `page`, and extends it again with zeros up to the
    /// size that it had. Returns how many pages were still cached behind the end of
    /// the file when it was at its shortest: there should be none.
    pub(crate) fn truncate(&self, page: usize, thread: &mut Thread) -> Result<usize, DeviceError> {
        let _exclusive = self.lock.take(ByteRange::new(offset_of(page)..), Mode::Exclusive, &mut thread.waits);
        let behind = &self.frames[page..];
        for frame in behind {
            // Dirty or not: these bytes are on their way out.
            frame.lock().drop_page();
        }
        self.linger(); // where a reader may fill a page that is about to go
        self.device.set_size(offset_of(page))?;
        let left = behind.iter().filter(|frame| frame.is_present()).count();
        self.device.set_size(self.device.size())?;
        Ok(left)
    }

    /// Writes one page back, if it is dirty. Returns whether it was.
    pub(crate) fn write_back(&self, page: usize, thread: &mut Thread) -> Result<bool, DeviceError> {
        if !self.frames[page].is_dirty() {
            return Ok(false);
        }
        // Under INV-C5 the page lock is enough. Buffered writes may go on: what they change
        // meanwhile is dirty again.
        let frame = self.frames[page].lock();
        self.write_back_locked(page, &frame, thread)
    }

    /// Copies what is cached of `page`, when nobody is at work any more.
    pub(crate) fn cached(&self, page: usize, to: &mut [u8; PAGE]) -> bool {
        self.frames[page].read(to)
    }

    /// Reads `page` from the disk and inserts it, unless somebody else did. The caller
    /// holds add on it (INV-C2). Two may fill one page at a time; the first insert stays.
    fn fill(&self, page: usize, thread: &mut Thread) -> Result<(), DeviceError> {
        if self.frames[page].is_present() {
            return Ok(()); // filled while we waited for add
        }
        self.device.read_page(page, &mut thread.scratch)?;
        self.linger(); // where the disk may change under a reader without a lock
        self.frames[page].insert(&thread.scratch);
        Ok(())
    }

    /// Writes `page` back if it is dirty. Returns whether it was.
    fn write_back_locked(
        &self,
        page: usize,
        frame: &LockedFrame<'_>,
        thread: &mut Thread,
    ) -> Result<bool, DeviceError> {
        if !frame.take_dirty(&mut thread.scratch) {
            return Ok(false);
        }
        let written = self.device.write(offset_of(page), &thread.scratch[..]);
        if written.is_err() {
            frame.dirty_again();
        }
        written.map(|()| true)
    }

    /// Makes a race wider than it is, so that a short run on two processors shows what
    /// a long one on many would. It yields: the others are to use the time.
    fn linger(&self) {
        if self.pause.is_zero() {
            return;
        }
        let since = Instant::now();
        while since.elapsed() < self.pause {
            thread::yield_now();
        }
    }
}

/// The part of a write that falls on one page.
struct Piece<'a> {
    page: usize,
    /// Where in the page.
    at: usize,
    bytes: &'a [u8],
}

/// Cuts a write at the borders of pages.
fn pieces(offset: u64, bytes: &[u8]) -> impl Iterator<Item = Piece<'_>> {
    let page = pages(offset);
    let at = (offset - offset_of(page)) as usize;
    let (first, rest) = bytes.split_at(bytes.len().min(PAGE - at));
    let first = Piece { page, at, bytes: first };
    let rest = rest.chunks(PAGE).zip(page + 1..);
    std::iter::once(first).chain(rest.map(|(bytes, page)| Piece { page, at: 0, bytes }))
}

/// The bytes of a page.
fn bytes_of(page: usize) -> ByteRange {
    ByteRange::new(offset_of(page)..offset_of(page + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_cut_at_the_borders_of_pages() {
        let bytes = vec![7; 2 * PAGE];
        let cut = |offset, len: usize| -> Vec<_> {
            pieces(offset, &bytes[..len]).map(|piece| (piece.page, piece.at, piece.bytes.len())).collect()
        };
        assert_eq!(cut(0, 512), [(0, 0, 512)]);
        assert_eq!(cut(PAGE as u64, PAGE), [(1, 0, PAGE)]);
        assert_eq!(cut(PAGE as u64 - 512, 1024), [(0, PAGE - 512, 512), (1, 0, 512)]);
        assert_eq!(cut(512, 2 * PAGE), [(0, 512, PAGE - 512), (1, 0, PAGE), (2, 0, 512)]);
    }
}
