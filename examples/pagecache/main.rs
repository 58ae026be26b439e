//! A page cache over a real file, four times: with no lock, without a lock but invalidating twice, with a
//! whole-file lock, and with a range lock.
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
//! | `frame.rs`, `surface/table.rs` | one cached page, read without any lock; all those of a file | nothing else |
//! | `device.rs`, `reshape.rs` | the file, by `O_DIRECT` where it can be had; its holes | sizes |
//! | `faults.rs`, `buffer.rs` | troubles that a disk can have; memory for it | |
//! | `file_lock.rs`, `waits.rs` | the variants behind one face; counts, times and notes what is waited for and held | spanlock |
//! | `hooks.rs` | the points where the races are: pauses, and gates for tests | |
//! | **`cache.rs`** | **the page cache: where which lock is held, and why** | all of these |
//! | `mapping.rs` | page faults | the cache |
//! | `direct.rs`, `queue.rs` | direct reads and writes, also queued; their recursion | cache and mappings |
//! | `structure.rs` | truncate, punch, zero, collapse, insert | the cache |
//! | `checker.rs` | what a reader may see; finds stale data during the run | sectors |
//! | `load.rs` | the threads, the same for each variant | cache and checker |
//! | `options.rs`, `report.rs` | the command line; the table and the verdict | |
//! | `compare/` | what each lock costs and allows, with pictures: `-- compare --help` | all |
//! | `fsx/` | random operations against plain buffers: `-- fsx --help`, `-- stress --help` | all |
//! | `tests/` | each operation against a plain buffer; recursion; errors | all |
//!
//! `cache.rs` is the one to read first.
//!
//! Exit codes: 0 the locked variants were right and the unlocked one was not;
//! 1 the demonstration failed, one way or the other; 2 it could not run.

// The cache is complete, and neither the demonstration nor a single test uses all of it.
#![allow(dead_code)]

#[cfg(unix)]
mod buffer;
#[cfg(unix)]
mod cache;
#[cfg(unix)]
mod checker;
#[cfg(unix)]
mod compare;
#[cfg(unix)]
mod device;
#[cfg(unix)]
mod direct;
#[cfg(unix)]
mod error;
#[cfg(unix)]
mod faults;
#[cfg(unix)]
mod file_lock;
#[cfg(unix)]
mod frame;
#[cfg(unix)]
mod fsx;
#[cfg(unix)]
mod hooks;
#[cfg(unix)]
mod load;
#[cfg(unix)]
mod mapping;
#[cfg(unix)]
mod options;
#[cfg(unix)]
mod queue;
#[cfg(unix)]
mod report;
#[cfg(unix)]
mod reshape;
#[cfg(unix)]
mod sector;
#[cfg(unix)]
mod structure;
#[cfg(unix)]
mod table;
#[cfg(all(test, unix))]
mod tests;
#[cfg(unix)]
mod waits;

use std::process::ExitCode;

/// The exit code for "could not run", the same that clap uses for bad options.
const COULD_NOT_RUN: u8 = 2;

#[cfg(unix)]
fn main() -> ExitCode {
    if let Some(command) = fsx::command::asked_for().or_else(compare::asked_for) {
        return command();
    }
    let options = options::Options::from_command_line();
    // A folder that cannot be written is better found now than after the run.
    if let Some(Err(error)) = options.report.as_deref().map(compare::make_folder) {
        eprintln!("error: {error}");
        return ExitCode::from(COULD_NOT_RUN);
    }
    match demonstrate(&options) {
        Ok(report::Verdict::AsPromised) => options.report.as_deref().map_or(ExitCode::SUCCESS, compare::into_folder),
        Ok(report::Verdict::NotAsPromised) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(COULD_NOT_RUN)
        }
    }
}

#[cfg(unix)]
fn demonstrate(options: &options::Options) -> Result<report::Verdict, error::CacheError> {
    let device = std::sync::Arc::new(device::Device::open(&options.place(), options.size, options.access())?);
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
