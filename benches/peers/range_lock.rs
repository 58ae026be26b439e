//! The crate `range-lock` (0.2): exclusive ranges of a vector in a B-tree under a mutex. It can only try, so a waiter
//! yields and tries again.

use super::{Access, Covers, Peer};
use range_lock::{VecRangeLock, VecRangeLockGuard};
use std::ops::Range;
use std::thread;

pub(crate) struct RangeLockCrate(VecRangeLock<()>);

impl Peer for RangeLockCrate {
    const NAME: &'static str = "range-lock";
    const COVERS: Covers = Covers::Range;
    const SHARES: bool = false;
    type Guard<'a> = VecRangeLockGuard<'a, ()>;

    fn new(_bytes: u64) -> RangeLockCrate {
        // As many elements as there can be, of no size each.
        let elements: Box<[()]> = Box::new([(); usize::MAX]);
        RangeLockCrate(VecRangeLock::new(elements.into_vec()))
    }

    #[inline]
    fn acquire(&self, _thread: usize, range: Range<u64>, _access: Access) -> Self::Guard<'_> {
        let range = range.start as usize..range.end as usize;
        loop {
            match self.0.try_lock(range.clone()) {
                Ok(guard) => return guard,
                Err(_) => thread::yield_now(),
            }
        }
    }
}
