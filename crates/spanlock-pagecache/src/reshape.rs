//! What changes the shape of the file on the disk: holes, and pieces taken out or put in.
//!
//! By `fallocate` where the file system has it, and otherwise by moving the bytes, a page at a time. All offsets and
//! lengths are whole pages. Nobody else uses the part of the disk concerned meanwhile: that is the cache's part.

use rustix::io::Errno;

use crate::device::{Device, DeviceError, PageBuffer, offset_of, pages};
use crate::frame::PAGE;

/// How to make zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zeros {
    /// Give the space back.
    Hole,
    /// Keep it.
    Allocated,
}

/// What `fallocate` is to do.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Zeros(Zeros),
    Collapse,
    Insert,
}

impl Device {
    /// Makes zeros of existing bytes.
    pub(crate) fn zero(&self, offset: u64, length: u64, zeros: Zeros) -> Result<(), DeviceError> {
        if length == 0 || self.allocate(Shape::Zeros(zeros), offset, length)? == Done::Yes {
            return Ok(());
        }
        let page = PageBuffer::new();
        for number in pages(offset)..pages(offset + length) {
            self.write(offset_of(number), &page[..])?;
        }
        Ok(())
    }

    /// Takes bytes out; `size` is that of the whole file before.
    pub(crate) fn collapse(&self, offset: u64, length: u64, size: u64) -> Result<(), DeviceError> {
        if self.allocate(Shape::Collapse, offset, length)? == Done::Yes {
            return Ok(());
        }
        for page in pages(offset)..pages((size - length).next_multiple_of(PAGE as u64)) {
            self.copy_page(page + pages(length), page)?;
        }
        self.set_size(size - length)
    }

    /// Puts zeros in; `size` is that of the whole file before.
    pub(crate) fn insert(&self, offset: u64, length: u64, size: u64) -> Result<(), DeviceError> {
        if self.allocate(Shape::Insert, offset, length)? == Done::Yes {
            return Ok(());
        }
        for page in (pages(offset)..pages(size.next_multiple_of(PAGE as u64))).rev() {
            self.copy_page(page, page + pages(length))?;
        }
        self.zero(offset, length, Zeros::Allocated)?;
        self.set_size(size + length)
    }

    fn copy_page(&self, from: usize, to: usize) -> Result<(), DeviceError> {
        let mut page = PageBuffer::new();
        self.read_page(from, &mut page)?;
        self.write(offset_of(to), &page[..])
    }

    fn allocate(&self, shape: Shape, offset: u64, length: u64) -> Result<Done, DeviceError> {
        match self.reshape(|file| fallocate(file, shape, offset, length)) {
            Ok(()) => Ok(Done::Yes),
            // What the system does not do we do by hand.
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => Ok(Done::No),
            Err(errno) => Err(self.failed(&format!("change {length} bytes at byte {offset} of"), errno)),
        }
    }
}

/// Whether the system did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Yes,
    No,
}

#[cfg(target_os = "linux")]
fn fallocate(file: &std::os::fd::OwnedFd, shape: Shape, offset: u64, length: u64) -> Result<(), Errno> {
    use rustix::fs::FallocateFlags;
    let flags = match shape {
        Shape::Zeros(Zeros::Hole) => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        Shape::Zeros(Zeros::Allocated) => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
        Shape::Collapse => FallocateFlags::COLLAPSE_RANGE,
        Shape::Insert => FallocateFlags::INSERT_RANGE,
    };
    rustix::fs::fallocate(file, flags, offset, length)
}

#[cfg(not(target_os = "linux"))]
fn fallocate(_: &std::os::fd::OwnedFd, _: Shape, _: u64, _: u64) -> Result<(), Errno> {
    Err(Errno::OPNOTSUPP)
}
