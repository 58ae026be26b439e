//! Why an operation on a cached file failed, in words for people.
//!
//! After each of these the cache is what it was before, or (after a device error) has the pages concerned no longer;
//! no range stays locked.

use std::error::Error;
use std::fmt;

use crate::device::DeviceError;

#[derive(Debug)]
pub(crate) enum CacheError {
    /// Direct operations take whole units of the device; collapse and insert take whole pages.
    Unaligned { what: &'static str, offset: u64, length: u64, unit: usize },
    /// The file would become larger than its page table.
    TooLarge { end: u64, most: u64 },
    /// A mapping reaches behind the end of the file. (A process would get SIGBUS.)
    PastEnd { offset: u64, size: u64 },
    /// A hole or gap must lie inside of the file.
    OutsideFile { what: &'static str, offset: u64, length: u64, size: u64 },
    /// A direct write ended early: `written` bytes reached the disk, the others did not.
    Short { written: u64, wanted: u64, because: DeviceError },
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
