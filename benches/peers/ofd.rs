//! The kernel's locks of open file descriptions (`fcntl` with `F_OFD_SETLKW`) on a temporary file. A lock belongs to a
//! description, so each thread has one of its own.

use super::{Access, Covers, MOST_THREADS, Peer};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug)]
pub(crate) struct Ofd(Vec<File>);

#[derive(Debug)]
pub(crate) struct Guard<'a>(&'a File, Range<u64>);

fn set(file: &File, kind: libc::c_int, range: &Range<u64>) {
    let request = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: range.start as libc::off_t,
        // Offsets are signed. No length means up to the end, wherever that is.
        l_len: libc::off_t::try_from(range.end - range.start).unwrap_or(0),
        l_pid: 0,
    };
    loop {
        // SAFETY: the descriptor is open while `file` is borrowed, and the kernel only reads the structure during the
        // call.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLKW, &request) };
        if result == 0 {
            return;
        }
        let error = io::Error::last_os_error();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted, "the file system has no OFD locks: {error}");
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        set(self.0, libc::F_UNLCK, &self.1);
    }
}

impl Peer for Ofd {
    const NAME: &'static str = "ofd";
    const COVERS: Covers = Covers::Range;
    type Guard<'a> = Guard<'a>;

    fn new(_bytes: u64) -> Ofd {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("spanlock-ofd-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let mut options = File::options();
        let first = options.read(true).write(true).create_new(true).open(&path);
        let first = first.expect("a temporary file can be made");
        let open = |_| File::options().read(true).write(true).open(&path);
        let others: io::Result<Vec<_>> = (1..MOST_THREADS).map(open).collect();
        std::fs::remove_file(&path).expect("a temporary file can be removed");
        let mut files = others.expect("a temporary file can be opened again");
        files.push(first);
        Ofd(files)
    }

    fn acquire(&self, thread: usize, range: Range<u64>, access: Access) -> Guard<'_> {
        let kind = match access {
            Access::Shared => libc::F_RDLCK,
            Access::Exclusive => libc::F_WRLCK,
        };
        set(&self.0[thread], kind, &range);
        Guard(&self.0[thread], range)
    }
}
