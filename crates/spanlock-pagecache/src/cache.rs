//! The page cache: which lock is held where, and why that is enough.
//!
//! # Promise
//! Under [`Variant::Whole`] and [`Variant::Range`] a read that begins after a write ended finds that write or a later
//! one, whichever way the two went; and once everything is written back, each cached page equals the disk. Under the
//! other two neither holds, although every single step is atomic.
//!
//! # Who takes what
//! | operation | range | mode | while it |
//! |---|---|---|---|
//! | cached read, hit | - | - | copies the page from its frame |
//! | cached read or fault, miss | the page | add | reads the disk and inserts the page |
//! | read-ahead | a page | add, tried only | the same |
//! | buffered write, mkwrite | its bytes, widened to pages | add | fills what is missing, copies in, marks dirty |
//! | append | from the page of the end on | exclusive | the same; if the end moved to before it meanwhile: once more |
//! | write-back | - | - | writes a dirty page to the disk, under its page lock |
//! | eviction | the page | block, tried only | writes back and removes |
//! | direct read (`direct.rs`) | its bytes, widened | add | writes back, reads the disk |
//! | direct write (`direct.rs`) | its bytes, widened | block | writes back, removes, writes the disk |
//! | truncate, punch, .. (`structure.rs`) | from its page (to the end of all bytes) | exclusive | removes, changes the disk |
//!
//! # Invariants
//! - INV-C1: a page enters the cache or becomes dirty only under add (or exclusive).
//! - INV-C2: a page leaves the cache only under block or exclusive. So whoever holds add, and finds the frame empty
//!   when inserting, knows that it was empty ever since add was granted; hence that nobody had anything to write back,
//!   and nobody may write past the cache; hence that what was read from the disk is what the disk holds. (For this
//!   eviction takes block: with the page lock alone, a page could be filled, changed, written back and evicted while
//!   another filler stands there with what it read before.)
//! - INV-C3: a direct write changes the disk after its pages left the cache and before
//!   block is released. Nobody can fetch an old page in between, for that takes add.
//! - INV-C4: ranges are whole pages, because pages are what is cached: a direct write of
//!   sector 3 must keep everybody from filling the page for the sake of sector 5.
//! - INV-C5: a page is written back, and dropped, under its page lock; the lock is held until
//!   the disk has the bytes. So once a page is out of the cache no old copy of it is on its
//!   way to the disk, and write-back needs no range. (Neither does it in the kernel.)
//! - INV-C6: the file's lock before the page lock. Whoever holds a page lock waits for nothing but the disk (a truncate
//!   takes several, in the order of the file). A thread holds one range at a time, and none while it copies from or to
//!   its caller's memory, which may be a mapping. Only direct writes nest (`direct.rs`).
//! - INV-C7: bytes behind the end of the file are zeros, in the cache and on the disk. (The file on the disk may be
//!   longer by less than a page, or shorter if the last pages are dirty; `sync` makes it exact.) So who makes the file
//!   longer need not look at what lies between its old end and the write.
//! - INV-C8: the size shrinks only under exclusive from the page of its new end to the end of all bytes, and grows only
//!   under add, block or exclusive on the page of its new end. So whoever holds a page, in whichever mode, knows that
//!   what the file has of it stays in the file; whoever holds everything from the page of the end on, exclusively,
//!   knows the end; and nobody else may look at it twice and expect the same.
//! - INV-C9: what was seen of the size before a wait is not used after it. A page is copied together with the size that
//!   went with it (`File::look`): bytes reach the page before the size covers them, and a page leaves the cache before
//!   the size cuts into it, so at no moment does a page have less in it than the size says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use spanlock::{ByteRange, Mode, Snapshot};

use crate::device::{Device, PageBuffer, offset_of, pages};
use crate::error::CacheError;
use crate::file_lock::{FileLock, Variant};
use crate::frame::{Frame, LockedFrame, PAGE};
use crate::hooks::{Hook, Operation, Plant, Point, Site};
use crate::mapping::Mapping;
use crate::table::PageTable;
use crate::waits::Waits;

/// A memory that several files share.
pub struct Cache {
    variant: Variant,
    hook: Arc<dyn Hook>,
    /// Pages to read ahead after a miss.
    read_ahead: usize,
    files: AtomicUsize,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("variant", &self.variant).finish_non_exhaustive()
    }
}

impl Cache {
    /// A cache whose files are locked as `variant` says, that calls `hook` wherever a race could be, and reads
    /// `read_ahead` pages ahead.
    pub fn new(variant: Variant, hook: Arc<dyn Hook>, read_ahead: usize) -> Arc<Cache> {
        Arc::new(Cache { variant, hook, read_ahead, files: AtomicUsize::new(0) })
    }

    /// Opens the file on `device`, as large as that is now. It may grow up to `most` bytes.
    pub fn open(self: &Arc<Cache>, device: Arc<Device>, most: u64) -> Result<Arc<File>, CacheError> {
        let size = device.size_now()?;
        let table = PageTable::new(most.max(size));
        let number = u32::try_from(self.files.fetch_add(1, Ordering::Relaxed)).expect("fewer files than that");
        Ok(Arc::new(File {
            cache: self.clone(),
            number,
            lock: FileLock::new(self.variant),
            device,
            table,
            size: AtomicU64::new(size),
            retries: AtomicU64::new(0),
        }))
    }
}

/// A file, in the cache and on its disk. All operations may be called from any number of threads.
///
/// What they return when they fail says [`CacheError`], and what the file is then its module. They wait for other
/// operations on the same pages, and for the disk; none waits for ever, whatever its buffers are mapped to.
#[derive(Debug)]
pub struct File {
    cache: Arc<Cache>,
    number: u32,
    pub(crate) lock: FileLock,
    pub(crate) device: Arc<Device>,
    pub(crate) table: PageTable,
    /// Where the file ends.
    ///
    /// ORDERING: stored with Release after what lies below it is there; loaded with Acquire.
    pub(crate) size: AtomicU64,
    /// How often a direct write had to begin again because its way crossed another's.
    pub(crate) retries: AtomicU64,
}

/// What a read did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Fewer than were asked for if the file ends before.
    pub bytes: usize,
    /// Pages that were not in the cache.
    pub misses: usize,
}

/// What is to be done about a page behind the end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behind {
    /// Nothing is cached there.
    Refuse,
    /// A write is about to extend the file: zeros.
    Extend,
}

impl File {
    /// Tells the files of one cache apart, in hooks.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Where it ends now.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// How often direct writes had to begin again because of crossed ways.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// The disk that it lies on.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Its lock, for whoever counts, logs, or holds a range beside the operations.
    pub fn lock(&self) -> &FileLock {
        &self.lock
    }

    /// What its lock was asked for, and how long was waited.
    pub fn waits(&self) -> Waits {
        self.lock.waits()
    }

    /// Who holds and waits for ranges.
    pub fn snapshot(&self) -> Snapshot {
        self.lock.snapshot()
    }

    /// Reads through the cache.
    pub fn read(&self, offset: u64, to: &mut [u8]) -> Result<Read, CacheError> {
        let mut read = Read::default();
        let mut scratch = [0; PAGE];
        let wanted = to.len();
        while read.bytes < wanted {
            let at = offset + read.bytes as u64;
            let within = (at % PAGE as u64) as usize;
            let length = (wanted - read.bytes).min(PAGE - within);
            // No lock of any kind on a hit, and nothing is held while the bytes go to the reader.
            let seen = self.page(pages(at), Operation::Read, &mut scratch)?;
            match seen.found {
                Found::InCache => {}
                Found::OnDisk => read.misses += 1,
                Found::Behind => break,
            }
            // The end that goes with the page, not the one from before it was waited for (INV-C9).
            let there = length.min(usize::try_from(seen.size.saturating_sub(at)).unwrap_or(usize::MAX));
            to[read.bytes..read.bytes + there].copy_from_slice(&scratch[within..within + there]);
            read.bytes += there;
            if there < length {
                break;
            }
        }
        Ok(read)
    }

    /// Copies a page, from the cache or else through it.
    pub(crate) fn page(&self, page: usize, operation: Operation, to: &mut [u8; PAGE]) -> Result<Seen, CacheError> {
        if let Some(size) = self.look(page, to) {
            return Ok(Seen { found: Found::InCache, size });
        }
        loop {
            if page >= self.page_count() {
                return Ok(self.behind());
            }
            let add = self.lock.take(bytes_of(page), Mode::Add);
            if !self.fill(page, operation, Behind::Refuse)? {
                return Ok(self.behind());
            }
            // Under add it stays until it is copied. Without a lock it may be gone again.
            if let Some(size) = self.look(page, to) {
                drop(add); // one range at a time (INV-C6)
                self.read_ahead(page);
                return Ok(Seen { found: Found::OnDisk, size });
            }
        }
    }

    /// Copies a page if it is cached. Returns where the file ended at the moment at which the page was so.
    pub(crate) fn look(&self, page: usize, to: &mut [u8; PAGE]) -> Option<u64> {
        self.table.find(page)?.read_with(to, || self.size())
    }

    /// That a page is not to be had.
    pub(crate) fn behind(&self) -> Seen {
        Seen { found: Found::Behind, size: self.size() }
    }

    /// Writes into the cache, from where the bytes reach the disk later. Extends the file if need be.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), CacheError> {
        let end = self.end_of(offset, bytes.len())?;
        let _add = self.lock.take(ByteRange::new(offset..end).to_pages(PAGE as u64), Mode::Add);
        self.write_locked(offset, bytes, Operation::Write)
    }

    /// Writes behind the end of the file, wherever that is. Returns where it was.
    pub fn append(&self, bytes: &[u8]) -> Result<u64, CacheError> {
        loop {
            let size = self.size();
            self.end_of(size, bytes.len())?;
            let range = ByteRange::new(offset_of(pages(size))..);
            let _alone = self.lock.take(range, Mode::Exclusive);
            // If it shrank meanwhile we hold too little.
            let size = match self.size() {
                now if pages(now) >= pages(size) => now,
                _ => continue,
            };
            self.end_of(size, bytes.len())?;
            self.write_locked(size, bytes, Operation::Write)?;
            return Ok(size);
        }
    }

    /// Reads into a mapping, which may be one of this file: nothing is held while its pages are written.
    pub fn read_into(&self, offset: u64, to: &Mapping) -> Result<Read, CacheError> {
        let mut bytes = vec![0; to.len()];
        let read = self.read(offset, &mut bytes)?;
        to.write(0, &bytes[..read.bytes])?;
        Ok(read)
    }

    /// Writes from a mapping, which may be one of this file: its pages are read before anything is held.
    pub fn write_from(&self, offset: u64, from: &Mapping) -> Result<(), CacheError> {
        let mut bytes = vec![0; from.len()];
        from.read(0, &mut bytes)?;
        self.write(offset, &bytes)
    }

    /// The caller holds add or exclusive on the pages.
    pub(crate) fn write_locked(&self, offset: u64, bytes: &[u8], operation: Operation) -> Result<(), CacheError> {
        for piece in pieces(offset, bytes) {
            // Under a lock a page that was filled stays, so this takes two rounds at
            // most. Without one it may be dropped before we come to write to it.
            while !self.table.frame(piece.page).write(piece.at, piece.bytes) {
                self.fill(piece.page, operation, Behind::Extend)?;
            }
            // Piece by piece: if a later one fails, nothing is cached behind the end.
            self.grow(offset_of(piece.page) + (piece.at + piece.bytes.len()) as u64);
        }
        Ok(())
    }

    /// The file is at least so large from now on.
    pub(crate) fn grow(&self, size: u64) {
        // ORDERING: Release, so that whoever sees the size finds what lies below it.
        self.size.fetch_max(size, Ordering::AcqRel);
    }

    /// Reads `page` from the disk and inserts it, unless it is there. The caller
    /// holds add on it (INV-C2). Two may fill one page at a time; the first insert stays.
    /// False if it lies behind the end of the file, and so was refused.
    pub(crate) fn fill(&self, page: usize, operation: Operation, behind: Behind) -> Result<bool, CacheError> {
        if page >= self.page_count() {
            if behind == Behind::Extend {
                self.table.frame(page).insert(&[0; PAGE]);
            }
            return Ok(behind == Behind::Extend);
        }
        let frame = self.table.frame(page);
        if frame.is_present() {
            return Ok(true); // filled while we waited for add
        }
        let mut scratch = PageBuffer::new();
        self.device.read_page(page, &mut scratch)?;
        self.reached(Point::Read, operation, bytes_of(page)); // where the disk may change under a reader without a lock
        frame.insert(&scratch);
        Ok(true)
    }

    /// After a miss: fills the next pages, as far as they are to be had at once. A page that somebody blocks, or waits
    /// to block, ends it, and so does an error: nobody asked for these pages.
    fn read_ahead(&self, page: usize) {
        for page in (page + 1..self.page_count()).take(self.cache.read_ahead) {
            let Some(_add) = self.lock.try_take(bytes_of(page), Mode::Add) else { return };
            if !matches!(self.fill(page, Operation::ReadAhead, Behind::Refuse), Ok(true)) {
                return;
            }
        }
    }

    /// Writes one page back if it is dirty. Returns whether it was. When this returns, all that was in the
    /// page when it began is on the disk.
    pub fn write_back(&self, page: usize, operation: Operation) -> Result<bool, CacheError> {
        match self.table.find(page) {
            Some(frame) if frame.is_present() => {
                self.write_back_locked(page, &self.lock_page(page, frame, operation), operation)
            }
            _ => Ok(false),
        }
    }

    /// Writes back what is dirty, without waiting for the disk's own cache: for a background thread. Returns how many.
    pub fn flush(&self) -> Result<u64, CacheError> {
        let mut written = 0;
        for (page, frame) in self.table.existing(0..) {
            if frame.is_dirty() {
                let locked = self.lock_page(page, frame, Operation::Flush);
                written += u64::from(self.write_back_locked(page, &locked, Operation::Flush)?);
            }
        }
        Ok(written)
    }

    /// `fsync`: everything that was written before is on the disk afterwards, whose file is exactly as large as ours.
    pub fn sync(&self) -> Result<(), CacheError> {
        for (page, _) in self.table.existing(0..) {
            self.write_back(page, Operation::Sync)?; // also if it is clean: its write-back may be under way
        }
        while self.device.size_now()? != self.size() {
            let size = self.size();
            let _alone = self.lock.take(ByteRange::new(offset_of(pages(size))..), Mode::Exclusive);
            // If it shrank meanwhile we hold too little.
            if pages(self.size()) >= pages(size) {
                self.set_disk_size(Operation::Sync)?;
                break;
            }
        }
        Ok(self.device.flush()?)
    }

    /// Brings everything to the disk, and opens the file anew, with nothing in its cache.
    pub fn reopen(&self) -> Result<Arc<File>, CacheError> {
        self.sync()?;
        self.cache.open(self.device.clone(), self.table.most())
    }

    /// Makes the file on the disk as large as ours; the caller holds everything behind its last full page exclusively.
    /// Dirty pages there come first, or their write-back would make it longer again.
    pub(crate) fn set_disk_size(&self, operation: Operation) -> Result<(), CacheError> {
        for (page, _) in self.table.existing(pages(self.size())..) {
            self.write_back(page, operation)?;
        }
        self.reached(Point::Resizing, operation, ByteRange::new(offset_of(pages(self.size()))..));
        Ok(self.device.set_size(self.size())?)
    }

    /// Removes a page from the cache, if nobody has it or waits for it. Returns whether it is gone.
    pub fn evict(&self, page: usize) -> Result<bool, CacheError> {
        let Some(frame) = self.table.find(page) else { return Ok(true) };
        let Some(_block) = self.lock.try_take(bytes_of(page), Mode::Block) else { return Ok(false) };
        self.remove(page, frame, Operation::Evict)?;
        Ok(!frame.is_present())
    }

    /// Evicts what can be evicted. Returns how many pages are left.
    pub fn evict_all(&self) -> Result<usize, CacheError> {
        for (page, _) in self.table.existing(0..) {
            self.evict(page)?;
        }
        Ok(self.cached_from(0))
    }

    /// Brings the pages of `range` to the disk and out of the cache; the caller holds block or exclusive on them.
    pub(crate) fn invalidate(&self, range: ByteRange, operation: Operation) -> Result<(), CacheError> {
        let (Some(start), Some(last)) = (range.start(), range.last()) else { return Ok(()) };
        let first = pages(start);
        for (page, frame) in self.table.existing(first..).take_while(|&(page, _)| offset_of(page) <= last) {
            self.remove(page, frame, operation)?;
        }
        Ok(())
    }

    fn remove(&self, page: usize, frame: &Frame, operation: Operation) -> Result<(), CacheError> {
        let locked = self.lock_page(page, frame, operation);
        if !frame.is_present() {
            return Ok(());
        }
        loop {
            // Written back first: the page may have dirty bytes that the caller does not replace.
            self.write_back_locked(page, &locked, operation)?;
            self.reached(Point::WrittenBack, operation, bytes_of(page)); // where it may become dirty again
            match self.cache.variant {
                Variant::None => {
                    locked.drop_page();
                    return Ok(());
                }
                // Kernels leave a page that is dirty again in the cache.
                Variant::Twice | Variant::Rwsem => {
                    locked.remove_clean();
                    return Ok(());
                }
                // Under block only a store that asked for nothing makes it dirty again (lean); this sees it.
                Variant::Note | Variant::Whole | Variant::Range | Variant::Lean if locked.remove_clean() => {
                    return Ok(());
                }
                Variant::Note | Variant::Whole | Variant::Range | Variant::Lean => {}
            }
        }
    }

    /// Takes the lock of a page. Whoever must wait for it passes a point first.
    pub(crate) fn lock_page<'a>(&self, page: usize, frame: &'a Frame, operation: Operation) -> LockedFrame<'a> {
        frame.try_lock().unwrap_or_else(|| {
            self.reached(Point::PageBusy, operation, bytes_of(page));
            frame.lock()
        })
    }

    fn write_back_locked(
        &self,
        page: usize,
        frame: &LockedFrame<'_>,
        operation: Operation,
    ) -> Result<bool, CacheError> {
        let mut scratch = PageBuffer::new();
        if !frame.take_dirty(&mut scratch) {
            return Ok(false);
        }
        self.reached(Point::Taken, operation, bytes_of(page)); // where the disk may change past the cache
        let written = self.device.write(offset_of(page), &scratch[..]);
        if written.is_err() {
            frame.dirty_again();
        }
        Ok(written.map(|()| true)?)
    }

    /// Drops a page from the cache as it is, dirty or not, and asks for no range: for who measures misses, of pages
    /// that nobody else uses.
    pub fn forget(&self, page: usize) {
        self.table.frame(page).lock().drop_page();
    }

    /// Copies what is cached of `page`: for tests and checks.
    pub fn cached(&self, page: usize, to: &mut [u8; PAGE]) -> bool {
        self.look(page, to).is_some()
    }

    /// How many pages are cached from `page` on.
    pub fn cached_from(&self, page: usize) -> usize {
        self.table.existing(page..).filter(|(_, frame)| frame.is_present()).count()
    }

    /// How many pages the file has, the last of which may be a part.
    pub fn page_count(&self) -> usize {
        pages(self.size().next_multiple_of(PAGE as u64))
    }

    /// Whether this fault was put into the cache.
    pub(crate) fn has_planted(&self, plant: Plant) -> bool {
        self.cache.hook.plants(plant)
    }

    pub(crate) fn reached(&self, point: Point, operation: Operation, range: ByteRange) {
        self.cache.hook.reached(&Site { point, operation, file: self.number, range });
    }

    /// Where a write ends, if the file may be that large.
    pub(crate) fn end_of(&self, offset: u64, length: usize) -> Result<u64, CacheError> {
        let most = self.table.most();
        match offset.checked_add(length as u64) {
            Some(end) if end <= most => Ok(end),
            end => Err(CacheError::TooLarge { end: end.unwrap_or(u64::MAX), most }),
        }
    }
}

/// A page, and the size of the file, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) found: Found,
    pub(crate) size: u64,
}

/// Where a page was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    InCache,
    OnDisk,
    /// Nowhere: the file ends before.
    Behind,
}

/// The part of a write that falls on one page.
pub(crate) struct Piece<'a> {
    pub(crate) page: usize,
    /// Where in the page.
    pub(crate) at: usize,
    pub(crate) bytes: &'a [u8],
}

/// Cuts a write at the borders of pages.
pub(crate) fn pieces(offset: u64, bytes: &[u8]) -> impl Iterator<Item = Piece<'_>> {
    let page = pages(offset);
    let at = (offset - offset_of(page)) as usize;
    let (first, rest) = bytes.split_at(bytes.len().min(PAGE - at));
    let first = Piece { page, at, bytes: first };
    let rest = rest.chunks(PAGE).zip(page + 1..);
    std::iter::once(first)
        .chain(rest.map(|(bytes, page)| Piece { page, at: 0, bytes }))
        .filter(|piece| !piece.bytes.is_empty())
}

/// The bytes of a page.
pub(crate) fn bytes_of(page: usize) -> ByteRange {
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
        assert_eq!(cut(0, 0), []);
        assert_eq!(cut(0, 512), [(0, 0, 512)]);
        assert_eq!(cut(PAGE as u64, PAGE), [(1, 0, PAGE)]);
        assert_eq!(cut(PAGE as u64 - 512, 1024), [(0, PAGE - 512, 512), (1, 0, 512)]);
        assert_eq!(cut(512, 2 * PAGE), [(0, 512, PAGE - 512), (1, 0, PAGE), (2, 0, 512)]);
    }
}
