//! A two-state lock of the whole file, the idea of bcachefs's `two_state_lock`: one signed counter, positive while
//! there are adders, negative while there are blockers. Each kind goes with its own; whoever finds the other kind
//! sleeps, and the last one out wakes all. There is no exclusive mode and no order.

use super::{Access, Covers, Excludes, Peer};
use parking_lot::{Condvar, Mutex};
use std::ops::Range;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

#[derive(Debug)]
pub(crate) struct TwoState {
    count: AtomicI64,
    sleepers: AtomicUsize,
    bed: Mutex<()>,
    bell: Condvar,
}

#[derive(Debug)]
pub(crate) struct Held<'a>(&'a TwoState, i64);

impl TwoState {
    #[inline]
    fn enter(&self, step: i64) -> bool {
        // SeqCst: a sleeper says that it sleeps before it looks here, and who leaves looks for sleepers after leaving.
        let enter = |count: i64| (count * step >= 0).then_some(count + step);
        self.count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, enter).is_ok()
    }

    #[cold]
    fn sleep(&self, step: i64) {
        let mut bed = self.bed.lock();
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while !self.enter(step) {
            self.bell.wait(&mut bed);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        let Held(lock, step) = *self;
        let last = lock.count.fetch_sub(step, Ordering::SeqCst) == step;
        if last && lock.sleepers.load(Ordering::SeqCst) > 0 {
            let _bed = lock.bed.lock();
            lock.bell.notify_all();
        }
    }
}

impl Peer for TwoState {
    const NAME: &'static str = "two-state";
    const COVERS: Covers = Covers::WholeFile;
    const EXCLUDES: Excludes = Excludes::OtherMode;
    type Guard<'a> = Held<'a>;

    fn new(_bytes: u64) -> TwoState {
        TwoState { count: AtomicI64::new(0), sleepers: AtomicUsize::new(0), bed: Mutex::new(()), bell: Condvar::new() }
    }

    #[inline]
    fn acquire(&self, _thread: usize, _range: Range<u64>, access: Access) -> Held<'_> {
        let step = match access {
            Access::Shared => 1,
            Access::Exclusive => -1,
        };
        if !self.enter(step) {
            self.sleep(step);
        }
        Held(self, step)
    }
}
