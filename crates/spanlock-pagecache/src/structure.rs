//! Operations that change which bytes are where: truncate, punch, zero, collapse, insert.
//!
//! All take their pages *exclusively*. Block is not enough: it goes with block, so a direct write could be under way
//! while the bytes below it move. Those that move everything behind them take all bytes up to the last, and so keep out
//! whoever would make the file longer.
//!
//! Pages leave the cache before the disk changes, and nobody can bring them back until it has. What fails leaves the
//! file as it was, except that fewer pages are cached.

use spanlock::{ByteRange, Mode};

use crate::cache::File;
use crate::device::{offset_of, pages};
use crate::error::CacheError;
use crate::file_lock::Held;
use crate::frame::{LockedFrame, PAGE};
use crate::hooks::{Operation, Plant, Point};
use crate::reshape::Zeros;

impl File {
    /// Cuts the file off at `size`, or extends it with zeros. Returns how many pages were cached behind the end when it
    /// was done: there should be none.
    pub fn truncate(&self, size: u64) -> Result<usize, CacheError> {
        self.end_of(size, 0)?;
        // Whether that is shorter or longer stays so now, and who makes the file longer up to there may go on (INV-C8).
        let _alone = self.alone_from(size);
        if size < self.size() {
            self.cut_off(size)?;
        } else {
            self.device.set_size(size)?;
            self.grow(size); // what lies between is zeros already (INV-C7)
        }
        Ok(self.cached_from(self.page_count()))
    }

    /// Everything from the page of `from` on, exclusively.
    fn alone_from(&self, from: u64) -> Held<'_> {
        self.lock.take(ByteRange::new(offset_of(pages(from))..), Mode::Exclusive)
    }

    fn cut_off(&self, size: u64) -> Result<(), CacheError> {
        let kept = pages(size.next_multiple_of(PAGE as u64));
        // The page that stays in part comes back from the disk, which makes its rest zeros.
        if !self.has_planted(Plant::TailKept) {
            self.invalidate(ByteRange::new(offset_of(pages(size))..offset_of(kept)), Operation::Truncate)?;
        }
        self.reached(Point::Resizing, Operation::Truncate, ByteRange::new(offset_of(pages(size))..));
        // All that will be gone, under the page locks: a write-back would make the disk's file longer again.
        let behind: Vec<_> = self
            .table
            .existing(kept..)
            .filter(|(_, frame)| frame.is_present())
            .map(|(page, frame)| self.lock_page(page, frame, Operation::Truncate))
            .collect();
        self.device.set_size(size)?;
        // ORDERING: Release, as in `grow`. Nobody grows the file now.
        self.size.store(size, std::sync::atomic::Ordering::Release);
        behind.iter().for_each(LockedFrame::drop_page); // dirty or not
        drop(behind);
        self.reached(Point::Invalidated, Operation::Truncate, ByteRange::new(offset_of(pages(size))..));
        Ok(())
    }

    /// Makes a hole of what exists of these bytes; the size stays.
    pub fn punch(&self, offset: u64, length: u64) -> Result<(), CacheError> {
        self.make_zeros(offset, length, Zeros::Hole, Operation::Punch)
    }

    /// Makes zeros of what exists of these bytes, and keeps their space; the size stays.
    pub fn zero(&self, offset: u64, length: u64) -> Result<(), CacheError> {
        self.make_zeros(offset, length, Zeros::Allocated, Operation::Zero)
    }

    fn make_zeros(&self, offset: u64, length: u64, zeros: Zeros, operation: Operation) -> Result<(), CacheError> {
        let end = offset.saturating_add(length);
        let range = ByteRange::new(offset..end).to_pages(PAGE as u64);
        let _alone = self.lock.take(range, Mode::Exclusive);
        let size = self.size(); // once: it may grow, behind these pages
        let end = end.min(size);
        if offset >= end {
            return Ok(());
        }
        // Whole pages on the disk; the last one of the file is whole if its bytes are.
        let first = pages(offset.next_multiple_of(PAGE as u64));
        let after = pages(if end == size { end.next_multiple_of(PAGE as u64) } else { end });
        let (head, tail) = (offset_of(first).min(end), offset_of(after).min(end).max(offset));
        if first < after {
            let whole = ByteRange::new(offset_of(first)..offset_of(after));
            if !self.has_planted(Plant::PunchKeepsPages) {
                self.invalidate(whole, operation)?;
            }
            self.reached(Point::Invalidated, operation, whole);
            self.device.zero(offset_of(first), offset_of(after) - offset_of(first), zeros)?;
        }
        // The rest in the cache.
        self.write_locked(offset, &zeros_of(head - offset), operation)?;
        if tail >= head {
            self.write_locked(tail, &zeros_of(end - tail), operation)?;
        }
        Ok(())
    }

    /// Takes whole pages out of the file: what is behind them moves down.
    pub fn collapse(&self, offset: u64, length: u64) -> Result<(), CacheError> {
        check_pages("a collapse", offset, length)?;
        let _alone = self.alone_from(offset);
        let size = self.size();
        if offset.checked_add(length).is_none_or(|end| end >= size) {
            return Err(CacheError::OutsideFile { what: "a collapse", offset, length, size });
        }
        self.prepare_move(offset, Operation::Collapse)?;
        self.device.collapse(offset, length, size)?;
        self.size.store(size - length, std::sync::atomic::Ordering::Release);
        Ok(())
    }

    /// Puts whole pages of zeros into the file: what is behind them moves up.
    pub fn insert(&self, offset: u64, length: u64) -> Result<(), CacheError> {
        check_pages("an insert", offset, length)?;
        let _alone = self.alone_from(offset);
        let size = self.size();
        if offset >= size {
            return Err(CacheError::OutsideFile { what: "an insert", offset, length, size });
        }
        self.end_of(size, usize::try_from(length).unwrap_or(usize::MAX))?;
        self.prepare_move(offset, Operation::Insert)?;
        self.device.insert(offset, length, size)?;
        self.size.store(size + length, std::sync::atomic::Ordering::Release);
        Ok(())
    }

    /// Brings all from `offset` on to the disk and out of the cache.
    fn prepare_move(&self, offset: u64, operation: Operation) -> Result<(), CacheError> {
        let rest = ByteRange::new(offset..);
        self.invalidate(rest, operation)?;
        self.set_disk_size(operation)?;
        self.reached(Point::Invalidated, operation, rest);
        Ok(())
    }
}

fn zeros_of(length: u64) -> Vec<u8> {
    vec![0; usize::try_from(length).expect("less than a page")]
}

fn check_pages(what: &'static str, offset: u64, length: u64) -> Result<(), CacheError> {
    if offset % PAGE as u64 == 0 && length % PAGE as u64 == 0 && length > 0 {
        Ok(())
    } else {
        Err(CacheError::Unaligned { what, offset, length, unit: PAGE })
    }
}
