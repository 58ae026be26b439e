//! The grants: nobody is let in beside another, nobody sleeps on, and who came first is first.
//!
//! Where a request must be granted while another one is still held, the main thread holds on until the granted one's
//! thread has ended: then a wake-up that comes too late is a deadlock.

use super::stage::{MIDDLE, Stage, add, exclusive, soon, spawn};
use super::{Byte, check};
use crate::facts::mode::Mode::{Add, Exclusive};
use crate::platform::reclaim::LazyPin;
use crate::protocol::grant::{self, Doorway, Held};
use crate::surface::lock::RangeLock;
use crate::tree::Rescan;
use loom::sync::atomic::{AtomicBool, Ordering::Relaxed};
use loom::thread;
use std::ops::ControlFlow::{Break, Continue};
use std::sync::Arc;

/// Property: overlapping exclusive holders never coexist, and none sleeps for ever. Shape: the whole library, owners
/// and guards too. Bound 2.
#[test]
fn exclusive_excludes_exclusive() {
    check(2, || {
        let lock = Arc::new(RangeLock::new());
        let byte = Arc::new(Byte::new());
        let cycle = |lock: &RangeLock, byte: &Byte| {
            let guard = lock.exclusive(0..8);
            byte.touch(guard.mode());
        };
        let (its_lock, its_byte) = (Arc::clone(&lock), Arc::clone(&byte));
        let it = thread::spawn(move || cycle(&its_lock, &its_byte));
        cycle(&lock, &byte);
        it.join().unwrap();
    });
}

/// Property: no grant to two, no lost wake-up (who was taken for a holder and then queues wakes whoever sleeps on it).
/// Shape: two in the root that arrive together. Bound 3.
#[test]
fn two_that_arrive_together_take_turns() {
    check(3, || {
        let stage = Stage::new();
        let it = spawn(&stage, |stage| stage.cycle(exclusive(0..=0, 3)));
        stage.cycle(exclusive(0..=0, 2));
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// The same; shape: one in the root, one in its child. Bound 2.
#[test]
fn two_in_parent_and_child_take_turns() {
    check(2, || {
        let stage = Stage::with_child();
        let it = spawn(&stage, |stage| stage.cycle(exclusive(0..=0, 3)));
        stage.cycle(exclusive(0..=MIDDLE, 2));
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// The same; shape: three; the first holds in the root, whose child takes what the root has no slot for. Three threads,
/// bound 1.
#[test]
fn two_that_arrive_behind_a_holder_take_turns() {
    check(1, || {
        let stage = Stage::new();
        let holder = stage.hold(exclusive(0..=0, 2));
        let one = spawn(&stage, |stage| stage.cycle(exclusive(0..=0, 3)));
        let two = spawn(&stage, |stage| stage.cycle(exclusive(0..=0, 4)));
        stage.release(holder, Exclusive);
        one.join().unwrap();
        two.join().unwrap();
        stage.assert_idle();
    });
}

/// The same; shape: three that arrive together. Three threads, bound 1.
#[test]
fn three_that_arrive_together_take_turns() {
    check(1, || {
        let stage = Stage::new();
        let one = spawn(&stage, |stage| stage.cycle(exclusive(0..=0, 3)));
        let two = spawn(&stage, |stage| stage.cycle(add(0..=0, 4)));
        stage.cycle(exclusive(0..=0, 2));
        one.join().unwrap();
        two.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: who registers on a holder is woken by its release. Bound 5.
#[test]
fn a_release_wakes_who_registers() {
    check(5, || {
        let stage = Stage::new();
        let holder = stage.hold(exclusive(0..=0, 2));
        let it = spawn(&stage, |stage| stage.cycle(exclusive(0..=0, 3)));
        stage.release(holder, Exclusive);
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// The same; shape: the holder is in a child, and the waiter in the root. Bound 4.
#[test]
fn a_release_in_a_child_wakes_who_registers() {
    check(4, || {
        let stage = Stage::with_child();
        let holder = stage.hold(exclusive(0..=0, 2));
        let it = spawn(&stage, |stage| stage.cycle(exclusive(0..=MIDDLE, 3)));
        stage.release(holder, Exclusive);
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// The same; shape: two adders register on one holder, one in its node and one in a child, and go on together. Three
/// threads, bound 1.
#[test]
fn a_release_wakes_two_who_register() {
    check(1, || {
        let stage = Stage::new();
        let holder = stage.hold(exclusive(0..=0, 2));
        let one = spawn(&stage, |stage| stage.cycle(add(0..=0, 3)));
        let two = spawn(&stage, |stage| stage.cycle(add(0..=0, 4)));
        stage.release(holder, Exclusive);
        one.join().unwrap();
        two.join().unwrap();
        stage.assert_idle();
    });
}

/// The same; shape: both are queued before, so that it is their registrations that race. Three threads, bound 2.
#[test]
fn a_release_wakes_two_queued_adders() {
    check(2, || {
        let stage = Stage::new();
        let holder = stage.hold(exclusive(0..=0, 2));
        let waiters = [3, 4].map(|who| stage.queue(add(0..=0, who)));
        let threads = waiters.map(|waiter| spawn(&stage, |stage| stage.finish(waiter, Add)));
        stage.release(holder, Exclusive);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        stage.assert_idle();
    });
}

/// Property: a `try_` that withdraws wakes whoever took it for a holder. Bound 3.
#[test]
fn a_try_that_withdraws_wakes_who_registered() {
    check(3, || {
        let stage = Stage::new();
        let it = spawn(&stage, |stage| {
            if let Some(held) = stage.try_acquire(&exclusive(0..=0, 3)) {
                stage.release(held, Exclusive);
            }
        });
        stage.cycle(exclusive(0..=0, 2));
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// The same; shape: what it withdraws for is a third, which stays; and the waiter shares with that one. Three threads,
/// bound 2.
#[test]
fn a_try_that_withdraws_wakes_who_may_go_on() {
    check(2, || {
        let stage = Stage::new();
        let holder = stage.hold(add(0..=0, 2));
        let it = spawn(&stage, |stage| drop(stage.try_acquire(&exclusive(0..=0, 3))));
        let waiter = spawn(&stage, |stage| stage.cycle(add(0..=0, 4)));
        waiter.join().unwrap();
        stage.release(holder, Add);
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: a request that withdraws from a node which is being removed wakes whoever took it for a holder there.
/// Three threads, bound 2.
#[test]
fn a_claim_that_withdraws_wakes_who_registered() {
    check(2, || {
        let stage = Stage::with_child();
        let it = spawn(&stage, |stage| stage.cycle(exclusive(0..=0, 3)));
        let waiter = spawn(&stage, |stage| stage.cycle(exclusive(0..=MIDDLE, 2)));
        stage.state.tree.trim(&LazyPin::new());
        it.join().unwrap();
        waiter.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: a queued request that is cancelled wakes who stood behind it, while the holder in front of both stays.
/// Bound 4.
#[test]
fn a_cancel_wakes_who_registers() {
    check(4, || {
        let stage = Stage::new();
        let holder = stage.hold(add(0..=0, 2));
        let cancelled = stage.queue(exclusive(0..=0, 3));
        let it = spawn(&stage, |stage| stage.cycle(add(0..=0, 4)));
        drop(cancelled);
        it.join().unwrap();
        stage.release(holder, Add);
        stage.assert_idle();
    });
}

/// Property: a deadline races with the grant: granted or gone, never both or neither, and who stands behind goes on.
/// Three threads, bound 1.
#[test]
fn a_deadline_races_with_the_grant() {
    check(1, || {
        let stage = Stage::new();
        let holder = stage.hold(add(0..=0, 2));
        let waiter = stage.queue(exclusive(0..=0, 3));
        let one = spawn(&stage, |stage| {
            if let Some(held) = waiter.finish_until(soon()) {
                stage.release(held, Exclusive);
            }
        });
        let two = spawn(&stage, |stage| stage.cycle(add(0..=0, 4)));
        stage.release(holder, Add);
        one.join().unwrap();
        two.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: a deadline against a release, from the doorway on: nothing is left behind. Bound 5.
#[test]
fn a_deadline_races_with_a_release() {
    check(5, || {
        let stage = Stage::new();
        let holder = stage.hold(exclusive(0..=0, 2));
        let it = spawn(&stage, |stage| {
            let ask = exclusive(0..=0, 3);
            let asker = ask.asker();
            let its = ask.ask_in(&stage.state, &asker);
            // SAFETY: the stage stays until all threads have ended.
            let held = unsafe { grant::acquire_until(&stage.state, &its, asker.visitor, None, soon()) };
            if let Ok(held) = held {
                stage.release(held, Exclusive);
            }
        });
        stage.release(holder, Exclusive);
        it.join().unwrap();
        stage.assert_idle();
        assert!(stage.try_acquire(&exclusive(0..=0, 4)).is_some(), "it is free");
    });
}

/// Property: one that is cancelled in the middle of the queue lets the one behind it wait for the one before it. Three
/// threads, bound 3.
#[test]
fn a_cancel_in_the_middle_loses_nobody() {
    check(3, || {
        let stage = Stage::new();
        let holder = stage.hold(exclusive(0..=0, 2));
        let middle = stage.queue(exclusive(0..=0, 3));
        let behind = stage.queue(exclusive(0..=0, 4));
        let one = spawn(&stage, |_| drop(middle));
        let two = spawn(&stage, |stage| stage.finish(behind, Exclusive));
        stage.release(holder, Exclusive);
        one.join().unwrap();
        two.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: a request that finished its doorway before another began is granted first. Shape: the second begins when
/// it sees a flag that the first sets; the holder in front of both may leave at any time. Three threads, bound 1.
#[test]
fn who_came_first_is_first() {
    check(1, || {
        let stage = Stage::new();
        let holder = stage.hold(add(0..=0, 2));
        let queued = Arc::new(AtomicBool::new(false));
        let granted = Arc::new(AtomicBool::new(false));
        let (its_queued, its_granted) = (Arc::clone(&queued), Arc::clone(&granted));
        let first = spawn(&stage, move |stage| {
            let door = stage.enter(&exclusive(0..=0, 3));
            its_queued.store(true, Relaxed);
            let held = match door {
                Doorway::Granted(held) => held,
                Doorway::Queued(waiter) => waiter.finish(),
            };
            its_granted.store(true, Relaxed);
            stage.release(held, Exclusive);
        });
        let second = spawn(&stage, move |stage| {
            if queued.load(Relaxed) {
                // "Began after": whatever told this thread so has synchronised with the first.
                loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
                let held = stage.acquire(&add(0..=0, 4));
                assert!(granted.load(Relaxed), "the second overtook the first");
                stage.release(held, Add);
            }
        });
        stage.release(holder, Add);
        first.join().unwrap();
        second.join().unwrap();
        stage.assert_idle();
    });
}

/// The same; shape: the first was queued by the main thread; the second is a `try_`, which must not barge. Bound 4.
#[test]
fn nobody_barges() {
    check(4, || {
        let stage = Stage::new();
        let holder = stage.hold(add(0..=0, 2));
        let waiter = stage.queue(exclusive(0..=0, 3));
        let granted = Arc::new(AtomicBool::new(false));
        let its_granted = Arc::clone(&granted);
        let first = spawn(&stage, move |stage| {
            let held = waiter.finish();
            its_granted.store(true, Relaxed);
            stage.release(held, Exclusive);
        });
        drop(holder);
        if let Some(held) = stage.try_acquire(&add(0..=0, 4)) {
            assert!(granted.load(Relaxed), "`try_` overtook a queued one");
            stage.release(held, Add);
        }
        first.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: the ticket that decides belongs to the request that the scan looks at, not to the one that uses the slot
/// next: of that one the scanner knows nothing yet, and would miss what the one before it wrote. Shape: two are queued;
/// the first is granted, releases, and queues again while the second looks. Bound 2.
#[test]
fn a_ticket_of_the_next_request_is_not_believed() {
    check(2, || {
        let stage = Stage::with_child();
        let holder = stage.hold(exclusive(0..=MIDDLE, 4));
        let first = stage.queue(exclusive(0..=0, 3));
        let second = stage.queue(exclusive(0..=0, 2));
        let it = spawn(&stage, |stage| {
            stage.finish(first, Exclusive);
            stage.cycle(exclusive(0..=0, 3));
        });
        drop(holder);
        stage.finish(second, Exclusive);
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: who waits is not put off by a newcomer elsewhere: a slot that is used again is not taken for the request
/// that was in it before. Shape: the newcomer stays until the waiter was granted. Bound 3.
#[test]
fn who_waits_is_not_put_off_by_who_is_elsewhere() {
    check(3, || {
        let stage = Stage::new();
        let holder = stage.hold(exclusive(0..=0, 2));
        let it = spawn(&stage, |stage| stage.cycle(exclusive(0..=0, 3)));
        stage.release(holder, Exclusive);
        let elsewhere = stage.hold(exclusive(1..=1, 4));
        it.join().unwrap();
        drop(elsewhere);
        stage.assert_idle();
    });
}

/// Property: a ticket is drawn after publishing: with an older one, a newcomer would be in front of one who has looked
/// already, and both would be granted. Shape: one is queued behind a holder that leaves, while another arrives. Bound 3.
#[test]
fn a_newcomer_is_behind_who_is_queued() {
    check(3, || {
        let stage = Stage::new();
        let holder = stage.hold(exclusive(0..=0, 2));
        let it = spawn(&stage, |stage| stage.cycle(exclusive(0..=0, 3)));
        let queued = stage.queue(exclusive(0..=0, 4));
        drop(holder);
        stage.finish(queued, Exclusive);
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: RESCAN between a queued request's scan and its grant makes it look again. Shape: a holder appears behind
/// the back of a queued one, as a nested request will: publish, ask for the rescan, and hold if the other was still
/// queued. Three threads, bound 2.
#[test]
fn a_rescan_is_not_lost() {
    check(2, || {
        let stage = Stage::new();
        let holder = stage.hold(add(0..=0, 2));
        let waiter = stage.queue(exclusive(0..=0, 3));
        let it = spawn(&stage, |stage| stage.finish(waiter, Exclusive));
        let passing = spawn(&stage, |stage| {
            let ask = add(0..=0, 4);
            let pin = LazyPin::new();
            // SAFETY: the stage stays until all threads have ended.
            let placed = unsafe { stage.state.tree.place(&ask.ask().entry, ask.asker().visitor, &pin) };
            let mut asked = false;
            let queued = exclusive(0..=0, 3).asker().owner.get();
            let in_the_way =
                stage.state.tree.scan(&ask.ask().query(), Some(placed.own(ask.ask().entry.mode)), &pin, |seen| {
                    if seen.owner() == queued && !asked {
                        asked = seen.ask_to_rescan() == Rescan::Asked;
                        if asked { Continue(()) } else { Break(()) }
                    } else {
                        Break(())
                    }
                });
            if in_the_way.is_continue() {
                stage.byte.touch(Add);
            }
            placed.free(pin.get());
        });
        stage.release(holder, Add);
        it.join().unwrap();
        passing.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: whoever took a request for one in the way is woken when it withdraws from a node that is being removed.
/// Shape: the node is frozen from the beginning. Bound 3.
#[test]
fn a_claim_in_a_frozen_node_wakes_who_registered() {
    check(3, || {
        let stage = Stage::with_child();
        let ask = exclusive(0..=0, 2);
        stage.state.tree.freeze_for(&ask.ask().entry, &LazyPin::new());
        let it = spawn(&stage, |stage| stage.cycle(exclusive(0..=MIDDLE, 3)));
        // Granted or queued: it gives up.
        drop(stage.enter(&ask));
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: first come, first served, for who comes by a shortcut too. Shape: the other queues behind a holder in the
/// root, whom it finds before it has looked below. Bound 2.
#[test]
fn nobody_overtakes_by_a_shortcut() {
    check(2, || {
        let stage = Stage::with_child();
        let newcomer = exclusive(0..=0, 2);
        stage.state.tree.remember_for(&newcomer.ask().entry, &LazyPin::new());
        let holder = stage.hold(exclusive(MIDDLE..=MIDDLE, 4));
        let waiter = stage.queue(exclusive(0..=MIDDLE, 3));
        let it = spawn(&stage, move |stage| stage.finish(waiter, Exclusive));
        // It would have to be granted to the other one first, and that cannot be yet.
        let behind = stage.queue(newcomer);
        drop(holder);
        it.join().unwrap();
        stage.finish(behind, Exclusive);
        stage.assert_idle();
    });
}

/// A root without room, of requests that nobody else meets: whoever asks for bytes on both sides of the middle goes to
/// its chain.
fn with_full_root() -> (Arc<Stage>, [Held; 2]) {
    let stage = Stage::new();
    let full = [100, 101].map(|who| stage.hold(add(u64::MAX..=u64::MAX, who)));
    (stage, full)
}

/// Property: one who waits passes over newer nodes of its chain only when nobody in front of it is there (T5). Shape:
/// two come to a chain of one node, where one of them finds room, and draw their tickets in either order. Bound 3.
#[test]
fn who_is_in_a_newer_node_is_waited_for() {
    check(3, || {
        let (stage, full) = with_full_root();
        let holder = stage.hold(exclusive(0..=MIDDLE, 2));
        let it = spawn(&stage, |stage| stage.cycle(exclusive(0..=MIDDLE, 3)));
        let waiter = stage.queue(exclusive(0..=MIDDLE, 4));
        stage.release(holder, Exclusive);
        stage.finish(waiter, Exclusive);
        it.join().unwrap();
        drop(full);
        stage.assert_idle();
    });
}

/// Property: a node that one who waits takes out of a chain has nobody in it. Shape: another goes there, who then is
/// behind. Bound 2.
#[test]
fn who_waits_takes_out_nobody() {
    check(2, || {
        let (stage, full) = with_full_root();
        let older = [4, 5].map(|who| stage.hold(add(0..=MIDDLE, who)));
        let holder = stage.hold(add(0..=MIDDLE, 6));
        let waiter = stage.queue(exclusive(0..=MIDDLE, 7));
        drop(older);
        let it = spawn(&stage, |stage| stage.finish(waiter, Exclusive));
        let behind = stage.queue(exclusive(0..=MIDDLE, 8));
        stage.release(holder, Add);
        stage.finish(behind, Exclusive);
        it.join().unwrap();
        drop(full);
        stage.assert_idle();
    });
}
