//! On the real epoch: nobody uses a node that was freed. Each use of a node reads its canary, and freeing it writes
//! that, so that loom reports a use that isn't ordered before the end.

use super::check;
use crate::facts::mode::Mode::{self, Exclusive};
use crate::facts::owner::Asker;
use crate::facts::range::ByteRange;
use crate::platform::reclaim::{LazyPin, Pin};
use crate::protocol::grant::{self, Doorway, Held, Waiter};
use crate::protocol::lock_state::{Ask, LockState};
use crate::tree::{self, Entry};
use loom::thread::{self, JoinHandle};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// The first byte of the root's second cell: a range around it cannot go down.
const MIDDLE: u64 = 1 << 63;

/// A tree whose root has a child, for its first cell.
struct Stage {
    state: LockState,
}

// SAFETY, here and below: each model keeps its stage until all its threads have ended.
impl Stage {
    fn with_child() -> Arc<Stage> {
        let stage = Stage { state: LockState::new(None) };
        let entry = Entry { start: 0, last: 0, mode: Exclusive.bit(), owner: 1, order: 0 };
        stage.state.tree.grow_for(&entry, &LazyPin::new());
        Arc::new(stage)
    }

    fn enter(&self, bytes: RangeInclusive<u64>, mode: Mode, who: u64) -> Doorway<Held> {
        let asker = Asker::numbered(who);
        let ask = Ask::new(&self.state, ByteRange::new(bytes), mode, &asker);
        // SAFETY: see above.
        unsafe { grant::enter(&self.state, &ask, asker.visitor, None) }
    }

    fn hold(&self, bytes: RangeInclusive<u64>, who: u64) -> Held {
        match self.enter(bytes, Exclusive, who) {
            Doorway::Granted(held) => held,
            Doorway::Queued(_) => panic!("it waits, and should not"),
        }
    }

    fn queue(&self, bytes: RangeInclusive<u64>, who: u64) -> Waiter {
        match self.enter(bytes, Exclusive, who) {
            Doorway::Granted(_) => panic!("it was granted, and should wait"),
            Doorway::Queued(waiter) => waiter,
        }
    }

    /// Removes what is vacant.
    fn trim(&self) {
        self.state.tree.trim(&LazyPin::new());
    }
}

/// Frees what was retired, if nobody is pinned: the epoch moves one step at a flush, and must move two.
fn reclaim() {
    for _ in 0..3 {
        Pin::new().flush();
    }
}

fn spawn(stage: &Arc<Stage>, run: impl FnOnce(&Stage) + 'static) -> JoinHandle<()> {
    let stage = Arc::clone(stage);
    thread::spawn(move || run(&stage))
}

/// Property: a release that rings for a waiter uses no node that was freed. Shape: the node is pruned and freed as soon
/// as the slot is free. Two threads, bound 2.
#[test]
fn a_release_rings_before_its_node_is_freed() {
    check(2, || {
        let stage = Stage::with_child();
        let holder = stage.hold(0..=0, 2);
        let waiter = stage.queue(0..=MIDDLE, 3);
        // It registers, and its time is up at once: WAITERS stays behind.
        let soon = std::time::Instant::now() + std::time::Duration::from_secs(3600);
        assert!(waiter.finish_until(soon).is_none());
        let pruner = spawn(&stage, |stage| {
            stage.trim();
            reclaim();
        });
        drop(holder);
        pruner.join().unwrap();
        stage.trim();
        reclaim();
        assert_eq!(grant::heap_nodes(&stage.state.tree), 0);
    });
}

/// The same without a waiter: a release that nobody waits for is not pinned, and touches nothing behind its one step.
/// Two threads, bound 3.
#[test]
fn a_release_leaves_its_node_at_once() {
    check(3, || {
        let stage = Stage::with_child();
        let holder = stage.hold(0..=0, 2);
        let pruner = spawn(&stage, |stage| {
            stage.trim();
            reclaim();
        });
        drop(holder);
        pruner.join().unwrap();
        stage.trim();
        reclaim();
    });
}

/// Property: who claims and scans uses no node that was freed. Shape: a request for the pruned node's bytes. Two
/// threads, bound 2.
#[test]
fn a_request_passes_a_node_that_is_freed() {
    check(2, || {
        let stage = Stage::with_child();
        let pruner = spawn(&stage, |stage| {
            stage.trim();
            reclaim();
        });
        drop(stage.hold(0..=0, 2));
        pruner.join().unwrap();
        stage.trim();
        reclaim();
    });
}

/// Property: who sleeps on a slot needs neither a pin nor the node. Shape: holder in the child, waiter in the root, and
/// a pruner. Three threads, bound 1.
#[test]
fn a_waiter_outlives_the_node_that_it_waits_for() {
    check(1, || {
        let stage = Stage::with_child();
        let holder = stage.hold(0..=0, 2);
        let waiter = stage.queue(0..=MIDDLE, 3);
        let it = spawn(&stage, |_| drop(waiter.finish()));
        let pruner = spawn(&stage, |stage| {
            stage.trim();
            reclaim();
        });
        drop(holder);
        it.join().unwrap();
        pruner.join().unwrap();
        stage.trim();
        reclaim();
    });
}

/// Property: who comes by a shortcut, unpinned, uses no node that was freed. Shape: the node is pruned meanwhile, and
/// let go of by the tree. Two threads, bound 3.
#[test]
fn a_shortcut_keeps_its_node() {
    check(3, || {
        let stage = Stage::with_child();
        let entry = Entry { start: 0, last: 0, mode: Exclusive.bit(), owner: 2, order: 0 };
        stage.state.tree.remember_for(&entry, &LazyPin::new());
        let pruner = spawn(&stage, |stage| {
            stage.trim();
            reclaim();
        });
        drop(stage.hold(0..=0, 2));
        tree::forget();
        pruner.join().unwrap();
        stage.trim();
        reclaim();
        assert_eq!(grant::heap_nodes(&stage.state.tree), 0);
    });
}
