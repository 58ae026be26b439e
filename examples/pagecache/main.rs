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
//! The cache is a crate of its own, `crates/spanlock-pagecache`, whose `cache.rs` is the file to read first. Here is
//! what runs it:
//!
//! | file | what it is | what it knows |
//! |---|---|---|
//! | `load.rs` | the threads, the same for each variant | cache and checker |
//! | `options.rs`, `report.rs` | the command line; the table and the verdict | |
//! | `compare/` | what each lock costs and allows, with pictures: `-- compare --help` | all |
//! | `fsx.rs` | random operations against plain buffers: `-- fsx --help`, `-- stress --help` | all |
//!
//! Exit codes: 0 the locked variants were right and the unlocked one was not;
//! 1 the demonstration failed, one way or the other; 2 it could not run.

#[cfg(unix)]
mod compare;
#[cfg(unix)]
mod fsx;
#[cfg(unix)]
mod load;
#[cfg(unix)]
mod options;
#[cfg(unix)]
mod report;

use std::process::ExitCode;

/// The exit code for "could not run", the same that clap uses for bad options.
const COULD_NOT_RUN: u8 = 2;

#[cfg(unix)]
fn main() -> ExitCode {
    if let Some(command) = fsx::asked_for().or_else(compare::asked_for) {
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
            eprintln!("error: {error}{}", options::advice(&error));
            ExitCode::from(COULD_NOT_RUN)
        }
    }
}

#[cfg(unix)]
fn demonstrate(options: &options::Options) -> Result<report::Verdict, spanlock_pagecache::error::CacheError> {
    let device = spanlock_pagecache::device::Device::open(&options.place(), options.size, options.access())?;
    let device = std::sync::Arc::new(device);
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
