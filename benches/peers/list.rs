//! A list of held ranges, sorted by where they begin, under a mutex: what kernels had before they had trees. With as
//! many ranges as there are threads nothing is simpler, or faster, that knows ranges of any bytes. (Nothing in it is
//! lock-free.) A release rings those waiters whose ranges meet its own, outside of the mutex, and they try again: no
//! order.

use super::{Access, Covers, Peer, SPINS};
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};

#[derive(Debug)]
struct Waiter {
    rung: AtomicBool,
    thread: Thread,
}

#[derive(Debug, Default)]
struct Lists {
    held: Vec<(Range<u64>, Access)>,
    waiting: Vec<(Range<u64>, Arc<Waiter>)>,
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

impl Lists {
    /// Ends the wait of those whose ranges meet `range`; they are to be unparked.
    fn rung_by(&mut self, range: &Range<u64>) -> SmallVec<[Arc<Waiter>; 4]> {
        let mut rung = SmallVec::new();
        self.waiting.retain(|(wanted, waiter)| {
            let meets = overlap(wanted, range);
            if meets {
                rung.push(Arc::clone(waiter));
            }
            !meets
        });
        rung
    }

    fn try_hold(&mut self, range: &Range<u64>, access: Access) -> bool {
        // Those that begin behind it are never looked at.
        let end = self.held.partition_point(|(held, _)| held.start < range.end);
        let conflicts = |(held, other): &(Range<u64>, Access)| {
            held.end > range.start && (access == Access::Exclusive || *other == Access::Exclusive)
        };
        let is_free = !self.held[..end].iter().any(conflicts);
        if is_free {
            let at = self.held[..end].partition_point(|(held, _)| held.start < range.start);
            self.held.insert(at, (range.clone(), access));
        }
        is_free
    }

    fn remove(&mut self, range: &Range<u64>, access: Access) {
        let first = self.held.partition_point(|(held, _)| held.start < range.start);
        let at = self.held[first..].iter().position(|held| held.0 == *range && held.1 == access);
        self.held.remove(first + at.expect("it is held"));
    }
}

#[derive(Debug)]
pub(crate) struct List(Mutex<Lists>);

#[derive(Debug)]
pub(crate) struct Guard<'a>(&'a List, Range<u64>, Access);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let Guard(List(lists), ref range, access) = *self;
        let mut lists = lists.lock();
        lists.remove(range, access);
        if lists.waiting.is_empty() {
            return;
        }
        let rung = lists.rung_by(range);
        drop(lists);
        for waiter in rung {
            waiter.rung.store(true, Ordering::Release);
            waiter.thread.unpark();
        }
    }
}

impl Peer for List {
    const NAME: &'static str = "list";
    const COVERS: Covers = Covers::Range;
    type Guard<'a> = Guard<'a>;

    fn new(_bytes: u64) -> List {
        List(Mutex::default())
    }

    fn acquire(&self, _thread: usize, range: Range<u64>, access: Access) -> Guard<'_> {
        loop {
            let mut lists = self.0.lock();
            if lists.try_hold(&range, access) {
                return Guard(self, range, access);
            }
            let waiter = Arc::new(Waiter { rung: AtomicBool::new(false), thread: thread::current() });
            lists.waiting.push((range.clone(), Arc::clone(&waiter)));
            drop(lists);
            let rung = || waiter.rung.load(Ordering::Acquire);
            if !(0..SPINS).any(|_| {
                std::hint::spin_loop();
                rung()
            }) {
                while !rung() {
                    thread::park();
                }
            }
        }
    }
}
