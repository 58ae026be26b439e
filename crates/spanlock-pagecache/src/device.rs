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
pub struct Aligned<const N: usize>([u8; N]);

impl<const N: usize> Aligned<N> {
    /// Zeros.
    pub fn new() -> Box<Aligned<N>> {
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
pub type PageBuffer = Aligned<PAGE>;

/// Where the file is to be.
#[derive(Debug)]
pub enum Place {
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
pub enum Existing {
    /// Leave it alone, and report an error.
    Refuse,
    /// Work on it with its bytes and its size as they are. Only a file that does not exist yet gets the size that is
    /// asked for.
    Keep,
    /// Write over it. What it has stays until it is written over, or cut off by the size that is asked for.
    Overwrite,
}

/// How the file is read and written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
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
pub struct Device {
    file: OwnedFd,
    name: String,
    size: u64,
    unit: usize,
    access: Access,
    faults: Faults,
}

impl Device {
    /// Opens the file, and finds out how it can be accessed: `wanted`, or less. No byte of a file that exists is
    /// changed by this; for [`Existing::Overwrite`] its size becomes `size`.
    ///
    /// # Errors
    /// The file exists and may not be used, is no regular file, or the system refuses what is needed. (It refuses
    /// nothing by having no `O_DIRECT`: see [`Device::access`].)
    pub fn open(place: &Place, size: u64, wanted: Access) -> Result<Device, DeviceError> {
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
        let (buffered, before) = create(&path, place, &name)?;
        let direct = match &wanted {
            Access::Direct => open_direct(&path).map(Some),
            Access::Buffered { .. } => Ok(None),
        };
        if let Place::Temporary { .. } = place {
            // From here on the file lives as long as we hold it open. No error, no
            // panic and no Ctrl-C can leave it behind.
            rustix::fs::unlink(&path).map_err(|errno| failed("unlink", &name, errno))?;
        }
        let size = match place {
            Place::Named { existing: Existing::Keep, .. } if before > 0 => before,
            _ => size,
        };
        let mut device = Device { file: buffered, name, size, unit: SECTOR, access: wanted, faults: Faults::default() };
        match direct.and_then(|file| file.map(|file| Ok((probe(&file, &path, before)?, file))).transpose()) {
            Ok(None) => {}
            Ok(Some((unit, file))) => {
                device.file = file;
                device.unit = unit;
            }
            Err(errno @ (Errno::INVAL | Errno::OPNOTSUPP)) => {
                let because = format!("its file system refuses O_DIRECT ({})", words(errno));
                device.access = Access::Buffered { because };
            }
            Err(errno) => return Err(device.failed("use O_DIRECT for", errno)),
        }
        // Also if it is as long as that: the probe may have made an empty one longer.
        device.set_size(size)?;
        Ok(device)
    }

    /// What to call the file when talking to people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the file is read and written.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The troubles that it is to have.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The size that it was opened with.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many pages that is.
    pub fn pages(&self) -> usize {
        pages(self.size)
    }

    /// The smallest piece that can be written: one sector, or one page.
    pub fn unit(&self) -> usize {
        self.unit
    }

    /// Reads page number `page`. Beyond the end of the file there are zeros.
    pub fn read_page(&self, page: usize, to: &mut PageBuffer) -> Result<(), DeviceError> {
        self.read(offset_of(page), &mut to[..])
    }

    /// Reads at `offset`. Beyond the end of the file there are zeros. `to` must start at an aligned address,
    /// and both `offset` and its length be multiples of [`Device::unit`].
    pub fn read(&self, offset: u64, to: &mut [u8]) -> Result<(), DeviceError> {
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
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.write_counted(offset, bytes).map_err(|(_, error)| error)
    }

    /// The same; an error comes with the number of bytes that were written before it.
    pub fn write_counted(&self, offset: u64, bytes: &[u8]) -> Result<(), (usize, DeviceError)> {
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
    pub fn set_size(&self, size: u64) -> Result<(), DeviceError> {
        self.reshape(|file| rustix::fs::ftruncate(file, size))
            .map_err(|errno| self.failed(&format!("set the size to {size} of"), errno))
    }

    /// How large the file on the disk is just now.
    pub fn size_now(&self) -> Result<u64, DeviceError> {
        let stat = rustix::fs::fstat(&self.file).map_err(|errno| self.failed("look at", errno))?;
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    }

    /// Has the disk keep what was written so far.
    pub fn flush(&self) -> Result<(), DeviceError> {
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
pub fn offset_of(page: usize) -> u64 {
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

/// Creates the file, or opens the existing one if that is wanted. Says how many bytes it has.
fn create(path: &Path, place: &Place, name: &str) -> Result<(OwnedFd, u64), DeviceError> {
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
        FileType::RegularFile => Ok((file, u64::try_from(stat.st_size).unwrap_or(0))),
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

/// Finds the smallest piece that can be written by `O_DIRECT` to `file`, which lies at `path` and had `before` bytes
/// when it was opened. Those stay.
fn probe(file: &OwnedFd, path: &Path, before: u64) -> Result<usize, Errno> {
    if before == 0 {
        return probe_by_writing(file);
    }
    match probe_beside(path) {
        // Whether a file can be made there, and has room, says nothing about this one.
        Err(errno) if !matches!(errno, Errno::INVAL | Errno::OPNOTSUPP) => probe_by_reading(file),
        answer => answer,
    }
}

/// By writing a piece: some file systems accept the flag and then refuse the reads and writes. (Reading is not enough:
/// where a file ends, or has a hole, kernels look at no alignment.)
fn probe_by_writing(file: &OwnedFd) -> Result<usize, Errno> {
    let mut page = PageBuffer::new();
    for unit in [SECTOR, PAGE] {
        let tried = rustix::io::pwrite(file, &page[..unit], unit as u64)
            .and_then(|_| rustix::io::pread(file, &mut page[..unit], unit as u64));
        match tried {
            Ok(_) => return Ok(unit),
            Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::INVAL)
}

/// By writing to another file of the same folder, which is gone afterwards: what `path` has is not ours to write over.
fn probe_beside(path: &Path) -> Result<usize, Errno> {
    // Where the file really is, should `path` be a link.
    let real = path.canonicalize().map_err(|_| Errno::NOENT)?;
    let beside = real.with_file_name(format!("pagecache-{:016x}.tmp", fastrand::u64(..)));
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    drop(rustix::fs::open(&beside, flags, Mode::RUSR | Mode::WUSR)?);
    let direct = open_direct(&beside);
    rustix::fs::unlink(&beside)?;
    probe_by_writing(&direct?)
}

/// By reading: that shows whether a page can be had at all, and not whether less can.
fn probe_by_reading(file: &OwnedFd) -> Result<usize, Errno> {
    let mut page = PageBuffer::new();
    rustix::io::pread(file, &mut page[..], 0).map(|_| PAGE)
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
pub enum DeviceError {
    /// It exists, and nobody said that it may be written over.
    Exists {
        /// What to call it.
        name: String,
    },
    /// It is a folder, a pipe, a device...
    NotAFile {
        /// What to call it.
        name: String,
    },
    /// The system said no.
    Failed {
        /// What was being done, in words: "create /tmp/a".
        doing: String,
        /// Why not.
        errno: Errno,
    },
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceError::Exists { name } => write!(f, "{name} exists, and this program would write over it"),
            DeviceError::NotAFile { name } => write!(f, "{name} is not a regular file"),
            DeviceError::Failed { doing, errno } => write!(f, "cannot {doing}: {}", words(*errno)),
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder of its own, on the disk that the tests were built on.
    fn folder() -> PathBuf {
        let folder = crate::tests::folder().join(format!("pagecache-device-{:016x}", fastrand::u64(..)));
        fs::create_dir(&folder).expect("a folder");
        folder
    }

    fn some_bytes(length: usize) -> Vec<u8> {
        (1..=251).cycle().take(length).collect()
    }

    /// To find out what `O_DIRECT` takes, nothing is written into a file that has bytes.
    #[test]
    fn a_file_that_exists_is_opened_and_not_changed() {
        let folder = folder();
        let path = folder.join("precious");
        let fresh = Device::open(&Place::Temporary { folder: folder.clone() }, 0, Access::Direct).expect("a file");
        for length in [1, SECTOR, 3 * PAGE, 3 * PAGE + 100] {
            for existing in [Existing::Keep, Existing::Overwrite] {
                let bytes = some_bytes(length);
                fs::write(&path, &bytes).expect("written");
                let place = Place::Named { path: path.clone(), existing };
                let size = if existing == Existing::Keep { 77 } else { length as u64 };
                let device = Device::open(&place, size, Access::Direct).expect("it may be used");
                assert_eq!((device.access(), device.unit()), (fresh.access(), fresh.unit()), "{length} {existing:?}");
                assert_eq!(device.size(), length as u64);
                drop(device);
                assert!(fs::read(&path).expect("there") == bytes, "{length} {existing:?}");
                assert_eq!(fs::read_dir(&folder).expect("readable").count(), 1, "something was left beside it");
            }
        }
        fs::remove_dir_all(folder).expect("ours");
    }

    #[test]
    fn an_empty_file_stays_empty_and_a_new_one_has_its_size() {
        let folder = folder();
        for (name, existing, size) in
            [("empty", Existing::Keep, 0), ("new", Existing::Keep, 5000), ("cut", Existing::Overwrite, 10)]
        {
            let path = folder.join(name);
            match name {
                "empty" => fs::write(&path, []).expect("written"),
                "cut" => fs::write(&path, some_bytes(20)).expect("written"),
                _ => {}
            }
            let device =
                Device::open(&Place::Named { path: path.clone(), existing }, size, Access::Direct).expect("a file");
            assert_eq!((device.size(), device.size_now().expect("its size")), (size, size), "{name}");
            let expected = if name == "cut" { some_bytes(10) } else { vec![0; size as usize] };
            assert!(fs::read(&path).expect("there") == expected, "{name}");
        }
        fs::remove_dir_all(folder).expect("ours");
    }

    /// Where no file can be made beside it, the file itself is read.
    #[test]
    fn to_probe_by_reading_is_to_take_whole_pages() {
        let folder = folder();
        let path = folder.join("precious");
        fs::write(&path, some_bytes(PAGE + 1)).expect("written");
        if let Ok(direct) = open_direct(&path) {
            assert_eq!(probe_by_reading(&direct), Ok(PAGE));
        }
        fs::remove_dir_all(folder).expect("ours");
    }

    #[test]
    fn what_exists_is_refused_and_what_is_no_file_too() {
        let folder = folder();
        let path = folder.join("precious");
        fs::write(&path, some_bytes(10)).expect("written");
        let open = |path: &Path, existing| {
            Device::open(&Place::Named { path: path.to_owned(), existing }, 0, Access::Direct).expect_err("not for us")
        };
        assert!(matches!(open(&path, Existing::Refuse), DeviceError::Exists { .. }));
        assert!(matches!(open(&folder, Existing::Refuse), DeviceError::NotAFile { .. }));
        assert_eq!(fs::read(&path).expect("there"), some_bytes(10));
        fs::remove_dir_all(folder).expect("ours");
    }
}
