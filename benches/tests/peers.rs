//! The rivals of the benches keep each other out, all by the same torture: a rival that lets two in would be fast for
//! nothing.
//!
//! Threads take random ranges of a few slots, half of them shared, mark the slots that they cover, and look at the
//! marks of others.

#![cfg(not(any(loom, miri)))]

#[path = "../peers/mod.rs"]
mod peers;

use peers::*;
use std::array;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;

const SLOTS: usize = 16;
const SLOT: u64 = 4096;
const THREADS: usize = 4;
const PAIRS: usize = 5000;

/// Who is in a slot, by mode.
#[derive(Default)]
struct Slot {
    shared: AtomicI64,
    exclusive: AtomicI64,
}

impl Slot {
    fn enter(&self, access: Access, excludes: Excludes) {
        let mine = self.of(access).fetch_add(1, Ordering::SeqCst);
        let others = match access {
            Access::Shared => self.exclusive.load(Ordering::SeqCst),
            Access::Exclusive => self.shared.load(Ordering::SeqCst),
        };
        assert_eq!(others, 0, "a shared and an exclusive holder are in one slot");
        let alone = access == Access::Exclusive && excludes == Excludes::AllButShared;
        assert!(!alone || mine == 0, "two exclusive holders are in one slot");
    }

    fn leave(&self, access: Access) {
        self.of(access).fetch_sub(1, Ordering::SeqCst);
    }

    fn of(&self, access: Access) -> &AtomicI64 {
        match access {
            Access::Shared => &self.shared,
            Access::Exclusive => &self.exclusive,
        }
    }
}

/// A lock for a file of so many slots; those behind share what it has for each.
fn torture_of<P: Peer>(slots: usize) {
    let lock = P::new(slots as u64 * SLOT);
    let slots: [Slot; SLOTS] = array::from_fn(|_| Slot::default());
    let work = &|thread: usize| {
        let mut random = fastrand::Rng::with_seed(thread as u64);
        for pair in 0..PAIRS {
            let (a, b) = (random.usize(..SLOTS), random.usize(..SLOTS));
            let covered = a.min(b)..a.max(b) + 1;
            let access = if random.bool() { Access::Shared } else { Access::Exclusive };
            let guard = if covered == (0..SLOTS) && access == Access::Exclusive {
                lock.acquire_whole(thread)
            } else {
                lock.acquire(thread, covered.start as u64 * SLOT..covered.end as u64 * SLOT, access)
            };
            slots[covered.clone()].iter().for_each(|slot| slot.enter(access, P::EXCLUDES));
            if pair % 16 == 0 {
                // Lets others run into the section.
                thread::yield_now();
            }
            slots[covered].iter().for_each(|slot| slot.leave(access));
            drop(guard);
        }
    };
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || work(thread));
        }
    });
}

fn torture<P: Peer>() {
    torture_of::<P>(SLOTS);
}

/// Ranges of the file wrap around the few locks, some of them more than once.
#[test]
fn segments_that_share_locks_exclude() {
    torture_of::<Segments>(5);
}

macro_rules! torture {
    ($($test:ident: $peer:ty,)*) => { $(
        #[test]
        fn $test() {
            torture::<$peer>();
        }
    )* };
}

torture! {
    spanlock_excludes: Spanlock,
    spanlock_whole_excludes: SpanlockWhole,
    spanlock_with_a_window_excludes: Reordering,
    spanlock_whole_with_a_window_excludes: WholeReordering,
    std_rwlock_excludes: StdRwLock,
    parking_lot_rwlock_excludes: RwLock,
    parking_lot_mutex_excludes: Mutex,
    parking_lot_fair_mutex_excludes: FairMutex,
    tokio_rwlock_excludes: TokioRwLock,
    two_state_excludes: TwoState,
    interval_tree_excludes: IntervalTree,
    btree_excludes: BTree,
    list_excludes: List,
    segments_exclude: Segments,
    range_lock_crate_excludes: RangeLockCrate,
    ofd_excludes: Ofd,
}
