//! A page cache over a real file, three times: with no lock, with a whole-file
//! lock, and with a range lock.
//!
//! ```text
//! cargo run --release --example pagecache
//! cargo run --release --example pagecache -- --help
//! ```
//!
//! The race is the one that add/block locks were asked for. A reader misses the
//! cache and reads a page from the disk; before it has inserted the page, a
//! direct write empties the cache and changes the disk; then the reader inserts
//! what it read. From now on the cache holds bytes that the disk no longer has,
//! and nothing will ever correct them. With *add* around read-and-insert and
//! *block* around drop-and-write, the two cannot interleave, and yet readers
//! still go beside readers and direct writers beside direct writers.
//!
//! | file | what it is | what it knows |
//! |---|---|---|
//! | `sector.rs` | the stamp that every 512-byte sector carries | nothing else |
//! | `frame.rs` | one cached page, read without any lock | nothing else |
//! | `device.rs` | the file, by `O_DIRECT` where it can be had | sizes |
//! | `file_lock.rs` | the three variants behind one face; counts waits | spanlock |
//! | **`cache.rs`** | **the page cache: where which lock is held, and why** | the four above |
//! | `checker.rs` | what a reader may see; finds stale data during the run | sectors |
//! | `load.rs` | the threads, the same for each variant | cache and checker |
//! | `options.rs`, `report.rs` | the command line; the table and the verdict | |
//!
//! `cache.rs` is the one to read first.
//!
//! Exit codes: 0 the locked variants were right and the unlocked one was not;
//! 1 the demonstration failed, one way or the other; 2 it could not run.

#[cfg(unix)]
mod cache;
#[cfg(unix)]
mod checker;
#[cfg(unix)]
mod device;
#[cfg(unix)]
mod file_lock;
#[cfg(unix)]
mod frame;
#[cfg(unix)]
mod load;
#[cfg(unix)]
mod options;
#[cfg(unix)]
mod report;
#[cfg(unix)]
mod sector;

use std::process::ExitCode;

/// The exit code for "could not run", the same that clap uses for bad options.
const COULD_NOT_RUN: u8 = 2;

#[cfg(unix)]
fn main() -> ExitCode {
    let options = options::Options::from_command_line();
    match demonstrate(&options) {
        Ok(report::Verdict::AsPromised) => ExitCode::SUCCESS,
        Ok(report::Verdict::NotAsPromised) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(COULD_NOT_RUN)
        }
    }
}

#[cfg(unix)]
fn demonstrate(options: &options::Options) -> Result<report::Verdict, device::DeviceError> {
    let device = device::Device::open(&options.place(), options.size, options.access())?;
    report::introduce(options, &device);
    let mut outcomes = Vec::new();
    for variant in options.variants() {
        outcomes.push(load::run(variant, &device, options)?);
    }
    Ok(report::conclude(options, &outcomes))
}

#[cfg(not(unix))]
fn main() -> ExitCode {
    eprintln!("error: this example reads and writes its file through Unix system calls");
    ExitCode::from(COULD_NOT_RUN)
}
