//! The file that plays the disk: read and written by `O_DIRECT`, past the
//! kernel's page cache, so that the only cache in play is the one of this program.
//!
//! Where the file system refuses `O_DIRECT` the file is read and written through
//! the kernel's cache instead. That one is coherent with itself, so the races of
//! *our* cache stay what they are; only the times no longer say much about disks.

use std::error::Error;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::faults::{Call, Faults};
use crate::frame::PAGE;
use crate::sector::SECTOR;

/// Bytes that the disk can take or give, at an address that `O_DIRECT` accepts.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(crate) struct Aligned<const N: usize>([u8; N]);

impl<const N: usize> Aligned<N> {
    pub(crate) fn new() -> Box<Aligned<N>> {
        Box::new(Aligned([0; N]))
    }
}

impl<const N: usize> Deref for Aligned<N> {
    type Target = [u8; N];

    fn deref(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> DerefMut for Aligned<N> {
    fn deref_mut(&mut self) -> &mut [u8; N] {
        &mut self.0
    }
}

/// One page for the disk.
pub(crate) type PageBuffer = Aligned<PAGE>;

/// Where the file is to be.
#[derive(Debug)]
pub(crate) enum Place {
    /// A file without a name in this folder: it is gone when the program is,
    /// however the program ends.
    Temporary {
        /// The folder.
        folder: PathBuf,
    },
    /// Memory, which is no disk, and so shows what a given latency does and nothing else.
    Memory,
    /// A named file, which stays.
    Named {
        /// Its path.
        path: PathBuf,
        /// What to do if it exists.
        existing: Existing,
    },
}

/// What to do with a named file that exists already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Leave it alone, and report an error.
    Refuse,
    /// Write over it.
    Overwrite,
}

/// How the file is read and written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// By `O_DIRECT`.
    Direct,
    /// Through the kernel's page cache.
    Buffered {
        /// Why not by `O_DIRECT`, in words.
        because: String,
    },
}

/// The file that plays the disk.
#[derive(Debug)]
pub(crate) struct Device {
    file: OwnedFd,
    name: String,
    size: u64,
    unit: usize,
    access: Access,
    faults: Faults,
}

impl Device {
    /// Opens the file, and finds out how it can be accessed: `wanted`, or less.
    pub(crate) fn open(place: &Place, size: u64, wanted: Access) -> Result<Device, DeviceError> {
        let (path, name) = match place {
            Place::Memory => return in_memory(size),
            Place::Temporary { folder } => {
                let random = fastrand::u64(..);
                let path = folder.join(format!("pagecache-{random:016x}.tmp"));
                (path, format!("a temporary file in {}", folder.display()))
            }
            Place::Named { path, .. } => (path.clone(), path.display().to_string()),
        };
        // First without O_DIRECT: a file system that refuses the flag may do so
        // after it has created the file.
        let buffered = create(&path, place, &name)?;
        let direct = match &wanted {
            Access::Direct => open_direct(&path).map(Some),
            Access::Buffered { .. } => Ok(None),
        };
        if let Place::Temporary { .. } = place {
            // From here on the file lives as long as we hold it open. No error, no
            // panic and no Ctrl-C can leave it behind.
            rustix::fs::unlink(&path).map_err(|errno| failed("unlink", &name, errno))?;
        }
        let mut device = Device { file: buffered, name, size, unit: SECTOR, access: wanted, faults: Faults::default() };
        device.set_size(size)?;
        match direct.and_then(|file| file.map(probe).transpose()) {
            Ok(None) => {}
            Ok(Some((file, unit))) => {
                device.file = file;
                device.unit = unit;
                device.set_size(size)?; // the probe may have made it longer
            }
            Err(errno @ (Errno::INVAL | Errno::OPNOTSUPP)) => {
                let because = format!("its file system refuses O_DIRECT ({})", words(errno));
                device.access = Access::Buffered { because };
            }
            Err(errno) => return Err(device.failed("use O_DIRECT for", errno)),
        }
        Ok(device)
    }

    /// What to call the file when talking to people.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How the file is read and written.
    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// The troubles that it is to have.
    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The size that it was opened with.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// How many pages that is.
    pub(crate) fn pages(&self) -> usize {
        pages(self.size)
    }

    /// The smallest piece that can be written: one sector, or one page.
    pub(crate) fn unit(&self) -> usize {
        self.unit
    }

    /// Reads page number `page`. Beyond the end of the file there are zeros.
    pub(crate) fn read_page(&self, page: usize, to: &mut PageBuffer) -> Result<(), DeviceError> {
        self.read(offset_of(page), &mut to[..])
    }

    /// Reads at `offset`. Beyond the end of the file there are zeros. `to` must start at an aligned address,
    /// and both `offset` and its length be multiples of [`Device::unit`].
    pub(crate) fn read(&self, offset: u64, to: &mut [u8]) -> Result<(), DeviceError> {
        let fault = self.faults.before(Call::Read);
        if let Some((_, errno)) = fault {
            return Err(self.failed(&format!("read at byte {offset} of"), errno));
        }
        let mut done = 0;
        // A read that stops between units has met the end of the file.
        while done < to.len() && done % self.unit == 0 {
            match rustix::io::pread(&self.file, &mut to[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.failed(&format!("read at byte {offset} of"), errno)),
            }
        }
        to[done..].fill(0);
        Ok(())
    }

    /// Writes `bytes` at `offset`. `bytes` must start at an aligned address, and
    /// both `offset` and its length be multiples of [`Device::unit`].
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.write_counted(offset, bytes).map_err(|(_, error)| error)
    }

    /// The same; an error comes with the number of bytes that were written before it.
    pub(crate) fn write_counted(&self, offset: u64, bytes: &[u8]) -> Result<(), (usize, DeviceError)> {
        let fault = self.faults.before(Call::Write);
        let most = match fault {
            Some((after, _)) => (after - after % self.unit).min(bytes.len()),
            None => bytes.len(),
        };
        let mut done = 0;
        while done < most {
            match rustix::io::pwrite(&self.file, &bytes[done..most], offset + done as u64) {
                Ok(0) => return Err((done, self.failed(&format!("write at byte {offset} of"), Errno::IO))),
                Ok(written) => done += written,
                Err(Errno::INTR) => {}
                Err(errno) => {
                    return Err((done, self.failed(&format!("write at byte {offset} of"), errno)));
                }
            }
        }
        match fault {
            Some((_, errno)) => Err((done, self.failed(&format!("write at byte {offset} of"), errno))),
            None => Ok(()),
        }
    }

    /// Cuts the file off at `size`, or extends it with zeros up to there.
    pub(crate) fn set_size(&self, size: u64) -> Result<(), DeviceError> {
        self.reshape(|file| rustix::fs::ftruncate(file, size))
            .map_err(|errno| self.failed(&format!("set the size to {size} of"), errno))
    }

    /// How large the file on the disk is just now.
    pub(crate) fn size_now(&self) -> Result<u64, DeviceError> {
        let stat = rustix::fs::fstat(&self.file).map_err(|errno| self.failed("look at", errno))?;
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    }

    /// Has the disk keep what was written so far.
    pub(crate) fn flush(&self) -> Result<(), DeviceError> {
        rustix::fs::fdatasync(&self.file).map_err(|errno| self.failed("flush", errno))
    }

    pub(crate) fn reshape(&self, how: impl FnOnce(&OwnedFd) -> Result<(), Errno>) -> Result<(), Errno> {
        match self.faults.before(Call::Shape) {
            Some((_, errno)) => Err(errno),
            None => how(&self.file),
        }
    }

    pub(crate) fn failed(&self, doing: &str, errno: Errno) -> DeviceError {
        failed(doing, &self.name, errno)
    }
}

/// The offset at which a page begins.
pub(crate) fn offset_of(page: usize) -> u64 {
    page as u64 * PAGE as u64
}

/// How many whole pages `bytes` are. The options keep sizes far below `usize::MAX`.
pub(crate) fn pages(bytes: u64) -> usize {
    usize::try_from(bytes / PAGE as u64).expect("sizes that fit memory")
}

/// A device in memory.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn in_memory(size: u64) -> Result<Device, DeviceError> {
    let name = "memory".to_owned();
    let file = rustix::fs::memfd_create("pagecache", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|errno| failed("make a file in", &name, errno))?;
    let access = Access::Buffered { because: "it is memory".to_owned() };
    let device = Device { file, name, size, unit: SECTOR, access, faults: Faults::default() };
    device.set_size(size)?;
    Ok(device)
}

/// The temporary folder is as near to memory as this system gets.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn in_memory(size: u64) -> Result<Device, DeviceError> {
    let access = Access::Buffered { because: "it stands for memory".to_owned() };
    Device::open(&Place::Temporary { folder: std::env::temp_dir() }, size, access)
}

/// Creates the file, or opens the existing one if that is wanted.
fn create(path: &Path, place: &Place, name: &str) -> Result<OwnedFd, DeviceError> {
    let existing = match place {
        Place::Temporary { .. } | Place::Memory => Existing::Refuse,
        Place::Named { existing, .. } => *existing,
    };
    let mut flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    if existing == Existing::Refuse {
        flags |= OFlags::EXCL;
    } else {
        // A named pipe must get a refusal below, not make us wait for its reader.
        flags |= OFlags::NONBLOCK;
    }
    let file = match rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => file,
        Err(Errno::EXIST) => {
            let name = name.to_owned();
            return match rustix::fs::stat(path) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile => {
                    Err(DeviceError::NotAFile { name })
                }
                _ => Err(DeviceError::Exists { name }),
            };
        }
        Err(errno) => return Err(failed("create", name, errno)),
    };
    let stat = rustix::fs::fstat(&file).map_err(|errno| failed("look at", name, errno))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(file),
        _ => Err(DeviceError::NotAFile { name: name.to_owned() }),
    }
}

/// Opens the file by `O_DIRECT`.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "netbsd"))]
fn open_direct(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC | OFlags::DIRECT, Mode::empty())
}

/// There is no `O_DIRECT` on this system.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "netbsd")))]
fn open_direct(_: &Path) -> Result<OwnedFd, Errno> {
    Err(Errno::OPNOTSUPP)
}

/// Finds the smallest piece that can be written by `O_DIRECT`, by writing one: some file
/// systems accept the flag and then refuse the reads and writes. (What the file holds is
/// of no interest yet.)
fn probe(file: OwnedFd) -> Result<(OwnedFd, usize), Errno> {
    let mut page = PageBuffer::new();
    for unit in [SECTOR, PAGE] {
        let tried = rustix::io::pwrite(&file, &page[..unit], unit as u64)
            .and_then(|_| rustix::io::pread(&file, &mut page[..unit], unit as u64));
        match tried {
            Ok(_) => return Ok((file, unit)),
            Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::INVAL)
}

fn failed(doing: &str, name: &str, errno: Errno) -> DeviceError {
    DeviceError::Failed { doing: format!("{doing} {name}"), errno }
}

/// The system's own words for an error, without the number.
fn words(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// Why the file could not be used.
#[derive(Debug)]
pub(crate) enum DeviceError {
    /// It exists, and nobody said that it may be written over.
    Exists { name: String },
    /// It is a folder, a pipe, a device...
    NotAFile { name: String },
    /// The system said no.
    Failed { doing: String, errno: Errno },
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceError::Exists { name } => write!(
                f,
                "{name} exists, and this program would write over it; \
                 add --overwrite if it may, or name a file that does not exist"
            ),
            DeviceError::NotAFile { name } => write!(
                f,
                "{name} is not a regular file; \
                 --file takes a regular file, or a name that does not exist yet"
            ),
            DeviceError::Failed { doing, errno } => {
                write!(f, "cannot {doing}: {}", words(*errno))?;
                match *errno {
                    Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::PERM | Errno::ROFS => {
                        write!(f, "; --file takes a path in a folder that exists and is writable")
                    }
                    Errno::ISDIR => write!(f, "; --file takes the path of a file"),
                    Errno::NOSPC | Errno::DQUOT | Errno::FBIG => {
                        write!(f, "; choose a smaller --size, or another place with --file")
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

impl Error for DeviceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            DeviceError::Failed { errno, .. } => Some(errno),
            DeviceError::Exists { .. } | DeviceError::NotAFile { .. } => None,
        }
    }
}
