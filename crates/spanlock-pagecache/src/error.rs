//! Why an operation on a cached file failed, in words for people.
//!
//! After each of these the cache is what it was before, or (after a device error) has the pages concerned no longer;
//! no range stays locked.

use std::error::Error;
use std::fmt;

use crate::device::DeviceError;

/// Why it failed.
#[derive(Debug)]
pub enum CacheError {
    /// Direct operations take whole units of the device; collapse and insert take whole pages.
    Unaligned {
        /// The operation, in words.
        what: &'static str,
        /// The byte at which it was to begin.
        offset: u64,
        /// How many bytes it was to have.
        length: u64,
        /// What both must be multiples of.
        unit: usize,
    },
    /// The file would become larger than its page table.
    TooLarge {
        /// The size that it would have.
        end: u64,
        /// The size that it may have.
        most: u64,
    },
    /// A mapping reaches behind the end of the file. (A process would get SIGBUS.)
    PastEnd {
        /// The byte of the file that was wanted.
        offset: u64,
        /// How many the file has.
        size: u64,
    },
    /// A hole or gap must lie inside of the file.
    OutsideFile {
        /// The operation, in words.
        what: &'static str,
        /// The byte at which it was to begin.
        offset: u64,
        /// How many bytes it was to have.
        length: u64,
        /// How many the file has.
        size: u64,
    },
    /// A direct write ended early: `written` bytes reached the disk, the others did not.
    Short {
        /// Bytes that reached the disk.
        written: u64,
        /// Bytes that should have.
        wanted: u64,
        /// What the device said.
        because: DeviceError,
    },
    /// The device said no, and nothing was written.
    Device(DeviceError),
    /// The queue was shut down before the operation was done.
    QueueClosed,
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CacheError::Unaligned { what, offset, length, unit } => write!(
                f,
                "{what} of {length} bytes at byte {offset} is not aligned; offset and length must be multiples of {unit}"
            ),
            CacheError::TooLarge { end, most } => {
                write!(f, "the file would end at byte {end}; this cache holds files of up to {most} bytes")
            }
            CacheError::PastEnd { offset, size } => {
                write!(f, "the mapping's byte {offset} lies behind the end of the file, which has {size} bytes (now)")
            }
            CacheError::OutsideFile { what, offset, length, size } => write!(
                f,
                "{what} of {length} bytes at byte {offset} does not lie inside of the file, which has {size} bytes"
            ),
            CacheError::Short { written, wanted, because } => {
                write!(f, "only {written} of {wanted} bytes were written: {because}")
            }
            CacheError::Device(error) => error.fmt(f),
            CacheError::QueueClosed => f.write_str("the device queue was shut down before the operation was done"),
        }
    }
}

impl Error for CacheError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            CacheError::Device(error) | CacheError::Short { because: error, .. } => Some(error),
            _ => None,
        }
    }
}

impl From<DeviceError> for CacheError {
    fn from(error: DeviceError) -> CacheError {
        CacheError::Device(error)
    }
}
