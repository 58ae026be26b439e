//! Batches: all parts are granted together or none is, and whoever waits for one of them is woken.

use super::check;
use super::stage::{Ask, MIDDLE, Stage, add, assert_idle, enter_batch, exclusive, queue_batch, soon, spawn, spawn_on};
use crate::facts::mode::Mode::{Add, Exclusive};
use crate::facts::owner;
use crate::facts::range::ByteRange;
use crate::protocol::convert::{shrink, split_off};
use crate::protocol::grant::{Doorway, Holds, Waiter};

fn wait(doorway: Doorway<Holds>) -> Holds {
    match doorway {
        Doorway::Granted(holds) => holds,
        Doorway::Queued(waiter) => waiter.wait().expect("a batch of an owner without other holds is never refused"),
    }
}

/// Touches byte 0 of both, and releases.
fn release(one: &Stage, other: &Stage, holds: Holds) {
    one.byte.touch(Exclusive);
    other.byte.touch(Exclusive);
    drop(holds);
}

/// A batch for byte 0 of both, from its doorway to its end.
fn cycle(one: &Stage, other: &Stage, who: u64) {
    let holds = wait(enter_batch(&[(one, exclusive(0..=0, who)), (other, exclusive(0..=0, who))]));
    release(one, other, holds);
}

/// Property: two batches that name two locks in opposite orders never hold both, and neither hangs. Bound 2.
#[test]
fn two_batches_in_opposite_orders_take_turns() {
    check(2, || {
        let stages @ [a, b] = &Stage::two();
        let it = spawn_on([a, b], |a, b| cycle(a, b, 3));
        cycle(b, a, 2);
        it.join().unwrap();
        assert_idle(stages);
    });
}

/// The same; shape: both are queued behind a holder, who leaves. Three threads, bound 2.
#[test]
fn two_queued_batches_take_turns() {
    check(2, || {
        let stages @ [a, b] = &Stage::two();
        let holder = a.hold(exclusive(0..=0, 2));
        let queue = |one: &Stage, other: &Stage, who: u64| -> Waiter {
            queue_batch(&[(one, exclusive(0..=0, who)), (other, exclusive(0..=0, who))])
        };
        let (first, second) = (queue(a, b, 3), queue(b, a, 4));
        let one = spawn_on([a, b], |a, b| release(a, b, first.wait().unwrap()));
        let two = spawn_on([a, b], |a, b| release(a, b, second.wait().unwrap()));
        a.release(holder, Exclusive);
        one.join().unwrap();
        two.join().unwrap();
        assert_idle(stages);
    });
}

/// Property: a batch and single requests take turns, in each lock. Three threads, bound 1.
#[test]
fn a_batch_and_two_single_requests_take_turns() {
    check(1, || {
        let stages @ [a, b] = &Stage::two();
        let one = spawn(a, |stage| stage.cycle(exclusive(0..=0, 3)));
        let two = spawn(b, |stage| stage.cycle(exclusive(0..=0, 5)));
        cycle(a, b, 2);
        one.join().unwrap();
        two.join().unwrap();
        assert_idle(stages);
    });
}

/// The same; shape: the batch is queued behind two holders, who leave one after the other, and meets a newcomer. Bound 3.
#[test]
fn a_queued_batch_waits_for_all_its_parts() {
    check(3, || {
        let stages @ [a, b] = &Stage::two();
        let [in_a, in_b] = [a, b].map(|stage| stage.hold(exclusive(0..=0, 2)));
        let batch = queue_batch(&[(a, exclusive(0..=0, 3)), (b, exclusive(0..=0, 3))]);
        let it = spawn_on([a, b], |a, b| release(a, b, batch.wait().unwrap()));
        a.release(in_a, Exclusive);
        b.release(in_b, Exclusive);
        b.cycle(add(0..=0, 4));
        it.join().unwrap();
        assert_idle(stages);
    });
}

/// Property: a batch of which one part is in the way wakes who sleeps on another part when it is granted and goes.
/// Shape: an adder arrives in one lock while the batch waits in the other. Three threads, bound 1.
#[test]
fn a_batch_wakes_who_waits_for_any_part() {
    check(1, || {
        let stages @ [a, b] = &Stage::two();
        let holder = a.hold(exclusive(0..=0, 2));
        let batch = queue_batch(&[(a, exclusive(0..=0, 3)), (b, exclusive(0..=0, 3))]);
        let it = spawn_on([a, b], |a, b| release(a, b, batch.wait().unwrap()));
        let newcomer = spawn(b, |stage| stage.cycle(add(0..=0, 4)));
        a.release(holder, Exclusive);
        it.join().unwrap();
        newcomer.join().unwrap();
        assert_idle(stages);
    });
}

/// Property: a batch is found by whoever searches from the moment on at which it stands in front. Shape: owner 2 holds
/// what one part waits for, and asks for what the other part asks for, behind which he would wait for himself. Bound 2.
#[test]
fn a_batch_that_queues_is_passed_by_who_holds_a_part() {
    check(2, || {
        let stages @ [a, b] = &Stage::two();
        let held = a.hold(exclusive(0..=0, 2));
        let it = spawn(b, |stage| stage.cycle(exclusive(0..=0, 2).nested()));
        let batch = queue_batch(&[(a, exclusive(0..=0, 3)), (b, exclusive(0..=0, 3))]);
        it.join().unwrap();
        drop((batch, held));
        assert_idle(stages);
    });
}

/// Property: a cancelled batch wakes who stood behind it in each lock, while the holders in front stay. Three threads,
/// bound 2.
#[test]
fn a_cancelled_batch_wakes_both() {
    check(2, || {
        let stages @ [a, b] = &Stage::two();
        let holders = [a, b].map(|stage| stage.hold(add(0..=0, 2)));
        let batch = queue_batch(&[(a, exclusive(0..=0, 3)), (b, exclusive(0..=0, 3))]);
        let waiters = [a, b].map(|stage| stage.queue(add(0..=0, 4)));
        let [in_a, in_b] = waiters;
        let one = spawn(a, |stage| stage.finish(in_a, Add));
        let two = spawn(b, |stage| stage.finish(in_b, Add));
        drop(batch);
        one.join().unwrap();
        two.join().unwrap();
        drop(holders);
        assert_idle(stages);
    });
}

/// Property: a deadline against the release: the batch holds all or nothing, and nothing is left behind. Bound 3.
#[test]
fn a_deadline_of_a_batch_races_with_a_release() {
    check(3, || {
        let stages @ [a, b] = &Stage::two();
        let holder = b.hold(exclusive(0..=0, 2));
        let it = spawn_on([a, b], |a, b| match enter_batch(&[(a, exclusive(0..=0, 3)), (b, exclusive(0..=0, 3))]) {
            Doorway::Granted(holds) => release(a, b, holds),
            Doorway::Queued(waiter) => {
                if let Ok(holds) = waiter.wait_until(soon()) {
                    release(a, b, holds);
                }
            }
        });
        b.release(holder, Exclusive);
        it.join().unwrap();
        assert_idle(stages);
        let free = |stage: &Stage| stage.try_acquire(&exclusive(0..=0, 4)).is_some();
        assert!(free(a) && free(b), "it is free");
    });
}

/// Property: a RESCAN that reaches a batch before its decision makes it look again, with all its parts. Shape: a split,
/// of which a look can miss both halves (see `convert`), in the lock of the part that comes `first` or second. Bound 4.
fn a_batch_does_not_miss_a_split(first: bool) {
    check(4, move || {
        let stages @ [a, b] = &[Stage::with_child(), Stage::new()];
        owner::visit();
        let mut held = a.hold(exclusive(0..=MIDDLE, 3));
        let mut parts: [(&Stage, Ask); 2] = [(a, exclusive(1..=1, 2)), (b, exclusive(0..=0, 2))];
        if !first {
            parts.reverse();
        }
        let batch = queue_batch(&parts);
        let it = spawn_on([a, b], |a, b| {
            let holds = batch.wait().unwrap();
            a.next.touch(Exclusive);
            b.byte.touch(Exclusive);
            drop(holds);
        });
        // SAFETY: the stages stay until all threads have ended.
        let other = unsafe { split_off(&a.state, &held, ByteRange::new(1..=MIDDLE)) };
        shrink(&mut held, ByteRange::new(0..=0));
        a.next.touch(Exclusive);
        drop(other);
        it.join().unwrap();
        drop(held);
        assert_idle(stages);
    });
}

/// See [`a_batch_does_not_miss_a_split`].
#[test]
fn a_batch_does_not_miss_a_split_in_its_first_part() {
    a_batch_does_not_miss_a_split(true);
}

/// See [`a_batch_does_not_miss_a_split`].
#[test]
fn a_batch_does_not_miss_a_split_in_its_second_part() {
    a_batch_does_not_miss_a_split(false);
}
