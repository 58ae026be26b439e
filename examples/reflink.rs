//! Copies between two files, in both directions at once: batches.
//!
//! A copy within the kernel (`copy_file_range`, reflink) needs a range of the source and a range of the destination. Taken one after the other, two copies in
//! opposite directions can wait for one another. As one `Batch` they cannot, in whatever order the parts are given.
//!
//! The files are real. Each block of 4 KiB is filled with one byte, so that a reader sees a torn copy at once: a block that is not uniform.
//!
//! ```console
//! $ cargo run --release --example reflink -- --seconds 3
//! ```

use clap::Parser;
use spanlock::{AcquireError, Batch, RangeLock};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const BLOCK: u64 = 4096;
const BLOCKS: u64 = 64;

#[derive(Parser)]
#[command(about = "Copies blocks between two files from several threads, and checks that nobody sees a torn block")]
struct Options {
    /// How long to copy.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// How many threads copy; one more reads.
    #[arg(long, default_value_t = 4)]
    threads: u64,
}

/// A file, and the lock of its bytes.
struct Locked {
    file: File,
    lock: RangeLock,
}

impl Locked {
    /// A temporary file that has no name any more.
    fn create(name: &str) -> io::Result<Locked> {
        let path = std::env::temp_dir().join(format!("spanlock-{name}-{}", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(&path)?;
        for block in 0..BLOCKS {
            file.write_all_at(&[block as u8; BLOCK as usize], block * BLOCK)?;
        }
        let mut lock = RangeLock::new();
        lock.set_name(name.to_owned());
        Ok(Locked { file, lock })
    }
}

/// Copies `count` blocks. Others may read the source meanwhile, nobody may touch the destination.
///
/// In small pieces, so that a copy that is not locked would be seen half done.
fn copy(from: &Locked, from_block: u64, to: &Locked, to_block: u64, count: u64) -> Result<(), Error> {
    let bytes = |block: u64| block * BLOCK..(block + count) * BLOCK;
    let _both = Batch::new().add(&from.lock, bytes(from_block)).exclusive(&to.lock, bytes(to_block)).wait()?;
    let mut piece = [0; 512];
    for at in (0..count * BLOCK).step_by(piece.len()) {
        from.file.read_exact_at(&mut piece, from_block * BLOCK + at)?;
        to.file.write_all_at(&piece, to_block * BLOCK + at)?;
    }
    Ok(())
}

/// Reads a block and says whether it is uniform.
fn is_whole(locked: &Locked, block: u64) -> io::Result<bool> {
    let _shared = locked.lock.add(block * BLOCK..(block + 1) * BLOCK);
    let mut bytes = [0; BLOCK as usize];
    locked.file.read_exact_at(&mut bytes, block * BLOCK)?;
    Ok(bytes.iter().all(|byte| *byte == bytes[0]))
}

#[derive(Debug)]
#[allow(dead_code)] // For whoever reads the message.
enum Error {
    Lock(AcquireError),
    File(io::Error),
}

impl From<AcquireError> for Error {
    fn from(error: AcquireError) -> Error {
        Error::Lock(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::File(error)
    }
}

fn main() -> Result<(), Error> {
    let options = Options::parse();
    let files = [Locked::create("left")?, Locked::create("right")?];
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let (copies, checks) = (AtomicU64::new(0), AtomicU64::new(0));
    println!("{} threads copy between two files of {BLOCKS} blocks for {} s", options.threads, options.seconds);
    thread::scope(|scope| -> Result<(), Error> {
        let (files, copies) = (&files, &copies);
        let copiers: Vec<_> = (0..options.threads)
            .map(|seed| {
                scope.spawn(move || -> Result<(), Error> {
                    let mut rng = fastrand::Rng::with_seed(seed);
                    while Instant::now() < end {
                        let count = rng.u64(1..=8);
                        let (from, to) = (rng.u64(0..=BLOCKS - count), rng.u64(0..=BLOCKS - count));
                        // Half of them this way, half the other.
                        let way = rng.usize(0..2);
                        copy(&files[way], from, &files[1 - way], to, count)?;
                        copies.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        let mut rng = fastrand::Rng::new();
        while Instant::now() < end {
            let (file, block) = (rng.usize(0..2), rng.u64(0..BLOCKS));
            assert!(is_whole(&files[file], block)?, "block {block} of file {file} is torn");
            checks.fetch_add(1, Ordering::Relaxed);
        }
        copiers.into_iter().try_for_each(|copier| copier.join().expect("it does not panic"))
    })?;
    for (file, locked) in files.iter().enumerate() {
        for block in 0..BLOCKS {
            assert!(is_whole(locked, block)?, "block {block} of file {file} is torn");
        }
        assert!(locked.lock.try_exclusive(..).is_some(), "something is still held: {}", locked.lock.snapshot());
    }
    println!(
        "{} copies, {} blocks looked at meanwhile, none of them torn; nobody waited for ever",
        copies.into_inner(),
        checks.into_inner()
    );
    Ok(())
}
