//! Troubles that a disk can have, on demand: errors at a chosen call, and latency that the real one does not have.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::Errno;

/// What is asked of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A read of pages or sectors.
    Read,
    /// A write of them.
    Write,
    /// Sizes, holes, and whatever else changes the file's shape.
    Shape,
}

#[derive(Debug)]
struct Planned {
    call: Call,
    /// So many bytes go well first.
    after: usize,
    errno: Errno,
}

/// Belongs to one device.
#[derive(Debug, Default)]
pub struct Faults {
    /// How many are planned, so that a look costs nothing while there are none.
    count: AtomicUsize,
    planned: Mutex<Vec<Planned>>,
    latency: AtomicU64,
}

impl Faults {
    /// The next `call` fails with `errno`, after `after` bytes went well.
    pub fn fail_next(&self, call: Call, after: usize, errno: Errno) {
        let mut planned = self.planned.lock();
        planned.push(Planned { call, after, errno });
        // Relaxed: whoever plans a fault for another thread has other ways to order the two.
        self.count.store(planned.len(), Ordering::Relaxed);
    }

    /// Adds so much to each read and write, asleep.
    pub fn set_latency(&self, latency: Duration) {
        self.latency.store(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// For the device: waits as the latency says. If this call is to fail: after how many bytes, and why.
    pub(crate) fn before(&self, call: Call) -> Option<(usize, Errno)> {
        let latency = self.latency.load(Ordering::Relaxed);
        if latency > 0 && call != Call::Shape {
            thread::sleep(Duration::from_nanos(latency));
        }
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut planned = self.planned.lock();
        let index = planned.iter().position(|fault| fault.call == call)?;
        let fault = planned.remove(index);
        self.count.store(planned.len(), Ordering::Relaxed);
        Some((fault.after, fault.errno))
    }
}
