//! Copies between two files, in both directions at once: batches.
//!
//! ```text
//! cargo run --release --example reflink
//! cargo run --release --example reflink -- --help
//! ```
//!
//! A copy within the kernel (`copy_file_range`; where the file system can, it only
//! shares the blocks: a reflink) needs a range of the source and a range of the
//! destination. Locked one after the other, two copies in opposite directions wait for
//! one another. Kernels sort the two files by address to avoid that. A [`Batch`] takes
//! both under one ticket, and never deadlocks in whatever order its parts are given; here
//! the order is drawn by lot.
//!
//! | who | source | destination |
//! |---|---|---|
//! | a copy | `Add`: others may read it meanwhile | `Exclusive` |
//! | a striped copy: only the thread's own blocks of the range | `Add` | `Block`: beside other striped copies |
//! | a write | - | `Exclusive` |
//! | the checker | `Add`, on both files | |
//!
//! The files are real. Each block is full of one number, so that a reader sees a copy that
//! is half done: a block with two numbers, a torn one. `--unlocked` shows that there
//! are such blocks if nobody locks.
//!
//! Exit codes: 0 no block was torn (with `--unlocked`: some were); 1 the files could not be
//! used; 101 (a panic) otherwise.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use spanlock::{Batch, BatchGuard, ByThread, Mode, RangeLock};

/// Copies blocks between two files in both directions, and checks that nobody sees half a copy
#[derive(Debug, Parser)]
#[command(name = "reflink")]
struct Options {
    /// Threads that copy and write; one more checks
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=64))]
    threads: u64,

    /// Seconds of load
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,

    /// Blocks of 64 KiB in each file
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(8..=65536))]
    blocks: u64,

    /// Folder for the two temporary files (btrfs and XFS share blocks instead of copying)
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    folder: PathBuf,

    /// Lock nothing, to see the torn blocks
    #[arg(long)]
    unlocked: bool,
}

const BLOCK: u64 = 65536;
/// Blocks that are copied or looked at together, at most.
const MOST: u64 = 8;

/// Two files of the same size, and a lock for the bytes of each.
struct Pair {
    paths: [PathBuf; 2],
    locks: [RangeLock; 2],
    options: Options,
}

/// A thread's own handles of the two files, since a handle has one position.
type Handles = [File; 2];

/// What a thread holds; nothing if nobody locks.
type Held<'a> = Option<BatchGuard<&'a RangeLock, ByThread>>;

impl Pair {
    fn create(options: Options) -> io::Result<Pair> {
        let name = |side| options.folder.join(format!("spanlock-{side}-{}", process::id()));
        let pair = Pair {
            paths: ["left", "right"].map(name),
            locks: [RangeLock::named("left"), RangeLock::named("right")],
            options,
        };
        for path in &pair.paths {
            let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
            (0..pair.options.blocks).try_for_each(|_| file.write_all(&[0; BLOCK as usize]))?;
        }
        Ok(pair)
    }

    fn open(&self) -> io::Result<Handles> {
        let open = |path| OpenOptions::new().read(true).write(true).open(path);
        Ok([open(&self.paths[0])?, open(&self.paths[1])?])
    }

    /// Who holds nothing else is never refused a batch.
    fn take<'a>(&'a self, batch: Batch<&'a RangeLock>) -> Held<'a> {
        (!self.options.unlocked).then(|| batch.wait().expect("never a deadlock"))
    }

    /// `Add` on some blocks of file `from`, `mode` on as many of the other one. The parts come in either order.
    fn take_both(&self, from: usize, source: &Range<u64>, destination: &Range<u64>, mode: Mode) -> Held<'_> {
        let (source_lock, destination_lock) = (&self.locks[from], &self.locks[1 - from]);
        let (source, destination) = (bytes(source), bytes(destination));
        self.take(match fastrand::bool() {
            true => Batch::new().add(source_lock, source).request(destination_lock, destination, mode),
            false => Batch::new().request(destination_lock, destination, mode).add(source_lock, source),
        })
    }

    fn some_blocks(&self, count: u64) -> Range<u64> {
        let first = fastrand::u64(..=self.options.blocks - count);
        first..first + count
    }

    /// Copies and writes until `end`, and counts what it did.
    fn work(&self, thread: u64, end: Instant, done: &Done) -> io::Result<()> {
        let handles = self.open()?;
        while Instant::now() < end {
            let (from, count) = (fastrand::usize(..2), fastrand::u64(1..=MOST));
            let (source, destination) = (self.some_blocks(count), self.some_blocks(count));
            match fastrand::u8(..4) {
                0 => {
                    let _alone = self.take(Batch::new().exclusive(&self.locks[from], bytes(&source)));
                    fill(&handles[from], &source, done.writes.fetch_add(1, Relaxed) + 1)?;
                }
                1 => {
                    // Nobody else's striped copy touches the blocks of this thread, so that they may go together.
                    let _striped = self.take_both(from, &source, &destination, Mode::Block);
                    let mine = |block: &u64| block % self.options.threads == thread;
                    for (source, destination) in source.zip(destination).filter(|(_, block)| mine(block)) {
                        let (source, destination) = (source..source + 1, destination..destination + 1);
                        copy(&handles[from], &source, &handles[1 - from], &destination)?;
                    }
                    done.striped.fetch_add(1, Relaxed);
                }
                _ => {
                    let _alone = self.take_both(from, &source, &destination, Mode::Exclusive);
                    copy(&handles[from], &source, &handles[1 - from], &destination)?;
                    done.copies.fetch_add(1, Relaxed);
                }
            }
        }
        Ok(())
    }

    /// Looks at the same blocks of both files until `end`, and counts the torn ones.
    fn check(&self, end: Instant, done: &Done) -> io::Result<()> {
        let handles = self.open()?;
        while Instant::now() < end {
            self.check_blocks(&handles, self.some_blocks(MOST), done)?;
        }
        Ok(())
    }

    fn check_blocks(&self, handles: &Handles, blocks: Range<u64>, done: &Done) -> io::Result<()> {
        let _shared = self.take(Batch::new().add(&self.locks[0], bytes(&blocks)).add(&self.locks[1], bytes(&blocks)));
        for file in handles {
            for block in blocks.clone() {
                done.looked_at.fetch_add(1, Relaxed);
                done.torn.fetch_add(u64::from(!is_uniform(file, block)?), Relaxed);
            }
        }
        Ok(())
    }
}

/// The files go with it.
impl Drop for Pair {
    fn drop(&mut self) {
        for path in &self.paths {
            // It may not have been made, and a file that stays in a temporary folder hurts nobody.
            _ = fs::remove_file(path);
        }
    }
}

#[derive(Default)]
struct Done {
    copies: AtomicU64,
    striped: AtomicU64,
    writes: AtomicU64,
    looked_at: AtomicU64,
    torn: AtomicU64,
}

fn bytes(blocks: &Range<u64>) -> Range<u64> {
    blocks.start * BLOCK..blocks.end * BLOCK
}

/// Fills each of the blocks with a number.
fn fill(mut file: &File, blocks: &Range<u64>, number: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(bytes(blocks).start))?;
    let full = number.to_le_bytes().repeat(BLOCK as usize / size_of::<u64>());
    blocks.clone().try_for_each(|_| file.write_all(&full))
}

/// Whether a block is full of one number. Read page by page, so that a copy has time to come in between if nothing
/// keeps it out.
fn is_uniform(mut file: &File, block: u64) -> io::Result<bool> {
    let mut content = [0; BLOCK as usize];
    file.seek(SeekFrom::Start(block * BLOCK))?;
    content.chunks_mut(4096).try_for_each(|page| file.read_exact(page))?;
    // All numbers are like the first one if each is like the one before.
    Ok(content[size_of::<u64>()..] == content[..content.len() - size_of::<u64>()])
}

/// Copies blocks from one file to another, which have as many.
fn copy(mut from: &File, source: &Range<u64>, mut to: &File, destination: &Range<u64>) -> io::Result<()> {
    let (source, destination) = (bytes(source), bytes(destination));
    let copied = copy_in_kernel(from, &source, to, destination.start);
    // What the kernel would not do.
    from.seek(SeekFrom::Start(source.start + copied))?;
    to.seek(SeekFrom::Start(destination.start + copied))?;
    let rest = source.end - source.start - copied;
    io::copy(&mut from.take(rest), &mut to).map(drop)
}

/// How many bytes the kernel has copied by itself: all, or those before the first thing that it would not do.
#[cfg(target_os = "linux")]
fn copy_in_kernel(from: &File, source: &Range<u64>, to: &File, destination: u64) -> u64 {
    let (mut source_at, mut destination_at) = (source.start, destination);
    while source_at < source.end {
        let rest = (source.end - source_at) as usize;
        match rustix::fs::copy_file_range(from, Some(&mut source_at), to, Some(&mut destination_at), rest) {
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
    }
    source_at - source.start
}

#[cfg(not(target_os = "linux"))]
fn copy_in_kernel(_: &File, _: &Range<u64>, _: &File, _: u64) -> u64 {
    0
}

fn main() -> io::Result<()> {
    let pair = Pair::create(Options::parse())?;
    let Options { threads, seconds, blocks, unlocked, .. } = pair.options;
    println!(
        "{threads} threads copy between two files of {blocks} blocks for {seconds} s; another one looks for torn blocks."
    );
    let end = Instant::now() + Duration::from_secs(seconds);
    let done = Done::default();
    thread::scope(|scope| {
        let (pair, done) = (&pair, &done);
        let checker = scope.spawn(move || pair.check(end, done));
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || pair.work(thread, end, done))).collect();
        let mut threads = workers.into_iter().chain([checker]);
        threads.try_for_each(|thread| thread.join().expect("no deadlock, nothing torn"))
    })?;
    // What was torn and not looked at since.
    pair.check_blocks(&pair.open()?, 0..blocks, &done)?;

    let [copies, striped, writes] = [&done.copies, &done.striped, &done.writes].map(|count| count.load(Relaxed));
    println!("{copies} copies, {striped} striped ones, {writes} writes; no deadlock");
    let (looked_at, torn) = (done.looked_at.into_inner(), done.torn.into_inner());
    println!("{looked_at} blocks looked at, {torn} torn");
    for lock in &pair.locks {
        assert!(lock.try_exclusive(..).is_some(), "something is still held: {}", lock.snapshot());
    }
    match unlocked {
        true => assert!(torn > 0, "without a lock some blocks should be torn: try more --threads or --seconds"),
        false => assert_eq!(torn, 0, "a block was torn under the lock"),
    }
    Ok(())
}
