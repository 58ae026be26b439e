//! A block device over a file with several queues, whose writes need not be aligned.
//!
//! ```text
//! cargo run --release --example block_device
//! ```
//!
//! A write of whole blocks goes to the file as it is. One that is not aligned reads its
//! block, changes a part and writes the block back, as a hypervisor must for a guest with
//! small sectors when the image is opened with `O_DIRECT`. Two queues that do so in one
//! block at the same time lose an update: each writes back the other's old bytes.
//!
//! `Device::write` is the answer: an unaligned write takes its blocks exclusively, an
//! aligned one adds. The writing is done by another thread, as with asynchronous I/O, and
//! the guard travels with it. Without the lock the check at the end finds what is lost.
//!
//! The same as a C program: `crates/spanlock-capi/examples/block_cache.c`.

use spanlock::{ArcRangeGuard, Mode, RangeLock};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, mpsc};
use std::{io, thread};

const BLOCK: u64 = 512;
const BLOCKS: u64 = 64;
const QUEUES: u64 = 4;
const WRITES: u64 = 2000;

/// A write on its way to the file, and the range that it keeps until it is there.
struct Job {
    offset: u64,
    bytes: Vec<u8>,
    _guard: Option<ArcRangeGuard>,
}

#[derive(Clone)]
struct Device {
    file: Arc<File>,
    /// `None`: without a lock, to see what that does.
    ranges: Option<Arc<RangeLock>>,
    /// To the thread that completes writes.
    submit: mpsc::Sender<Job>,
}

impl Device {
    /// Changes some bytes. It returns when the write is on its way; a later one that meets its blocks waits until it
    /// has arrived.
    fn write(&self, offset: u64, change: impl FnOnce(&mut [u8]), len: u64) -> io::Result<()> {
        let start = offset / BLOCK * BLOCK;
        let end = (offset + len).next_multiple_of(BLOCK);
        let is_aligned = (start, end) == (offset, offset + len);
        let mode = if is_aligned { Mode::Add } else { Mode::Exclusive };
        // From before the blocks are read to after they are written.
        let guard = self.ranges.as_ref().map(|ranges| ranges.request_arc(start..end, mode).wait());
        let mut bytes = vec![0; (end - start) as usize];
        if !is_aligned {
            self.file.read_exact_at(&mut bytes, start)?;
        }
        change(&mut bytes[(offset - start) as usize..][..len as usize]);
        let job = Job { offset: start, bytes, _guard: guard };
        self.submit.send(job).map_err(|_| io::Error::other("the device is closed"))
    }
}

/// Several queues at once; how many updates are lost.
fn run(ranges: Option<Arc<RangeLock>>) -> io::Result<u64> {
    let file = Arc::new(tempfile()?);
    file.set_len(BLOCKS * BLOCK)?;
    let (submit, jobs) = mpsc::channel::<Job>();
    let completer = thread::spawn({
        let file = Arc::clone(&file);
        // Each job's guard goes with it, here.
        move || jobs.into_iter().try_for_each(|job| file.write_all_at(&job.bytes, job.offset))
    });
    let device = Device { file: Arc::clone(&file), ranges, submit };
    thread::scope(|scope| {
        let queue = |queue: u64| {
            let device = device.clone();
            scope.spawn(move || {
                for i in 0..WRITES {
                    let block = i % (BLOCKS / 2);
                    // A number of this queue's own, in a block that all queues write to.
                    device.write(block * BLOCK + queue * 8, add_one, 8)?;
                    // And whole blocks.
                    device.write((BLOCKS / 2 + block) * BLOCK, |bytes| bytes.fill(i as u8), BLOCK)?;
                }
                io::Result::Ok(())
            })
        };
        let queues: Vec<_> = (0..QUEUES).map(queue).collect();
        queues.into_iter().try_for_each(|queue| queue.join().expect("a queue does not panic"))
    })?;
    drop(device);
    completer.join().expect("the completing thread does not panic")?;

    let mut counted = 0;
    for block in 0..BLOCKS / 2 {
        for queue in 0..QUEUES {
            let mut number = [0; 8];
            file.read_exact_at(&mut number, block * BLOCK + queue * 8)?;
            counted += u64::from_le_bytes(number);
        }
    }
    Ok(QUEUES * WRITES - counted)
}

fn add_one(bytes: &mut [u8]) {
    let bytes: &mut [u8; 8] = bytes.try_into().expect("a number has 8 bytes");
    *bytes = (u64::from_le_bytes(*bytes) + 1).to_le_bytes();
}

/// A file without a name.
fn tempfile() -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("block_device.{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

fn main() -> io::Result<()> {
    let writes = QUEUES * WRITES;
    println!("{writes} unaligned writes of {QUEUES} queues, and as many aligned ones:");
    println!("without a lock    {:>5} updates lost", run(None)?);
    let lost = run(Some(Arc::new(RangeLock::new())))?;
    println!("with a range lock {lost:>5} updates lost");
    assert_eq!(lost, 0, "no two unaligned writes are in one block at a time");
    Ok(())
}
