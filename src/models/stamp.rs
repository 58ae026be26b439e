//! Who is in his doorway: who came later is waited for by nobody, who came before by all.
//!
//! One who is stopped there stays until those whom he must not hold up have been granted: if they wait for him, that is
//! a deadlock.

use super::check;
use super::stage::{Ask, MIDDLE, Stage, add, assert_idle, exclusive, queue_batch, spawn, spawn_on};
use crate::facts::error::Refused;
use crate::facts::mode::Mode::Exclusive;
use crate::facts::owner::{self, Owner};
use crate::facts::range::ByteRange;
use crate::protocol::convert::{shrink, split_off};
use crate::protocol::grant::{Held, Live, Waiter};
use loom::thread::yield_now;
use std::sync::Arc;

/// Property: who waits is not held up by one in his doorway who came later. Bound 4.
#[test]
fn a_later_one_holds_nobody_up() {
    check(4, || {
        let stage = Stage::new();
        let holder = stage.hold(exclusive(0..=0, 2));
        let waiter = stage.queue(exclusive(0..=0, 3));
        let it = spawn(&stage, |stage| stage.finish(waiter, Exclusive));
        let later = stage.stop_in_doorway(&exclusive(0..=0, 4));
        stage.release(holder, Exclusive);
        it.join().unwrap();
        drop(later);
        stage.assert_idle();
    });
}

/// The same; shape: the later one is nested, so that its order is no stamp of the lock. Bound 4.
#[test]
fn a_later_one_that_is_nested_holds_nobody_up() {
    check(4, || {
        let stage = Stage::new();
        let holder = stage.hold(exclusive(0..=0, 2));
        let waiter = stage.queue(exclusive(0..=0, 3).nested());
        let it = spawn(&stage, |stage| stage.finish(waiter, Exclusive));
        let later = stage.stop_in_doorway(&exclusive(0..=0, 4).nested());
        stage.release(holder, Exclusive);
        it.join().unwrap();
        drop(later);
        stage.assert_idle();
    });
}

/// The same; shape: who waits is a batch, and the later one is in the lock that it named last. Bound 3.
#[test]
fn a_later_one_holds_no_batch_up() {
    check(3, || {
        let stages @ [a, b] = &Stage::two();
        let holder = a.hold(exclusive(0..=0, 2));
        let batch = queue_batch(&[(a, exclusive(0..=0, 3)), (b, exclusive(0..=0, 3))]);
        let it = spawn_on([a, b], |a, b| {
            let holds = batch.wait().unwrap();
            a.byte.touch(Exclusive);
            b.byte.touch(Exclusive);
            drop(holds);
        });
        let later = b.stop_in_doorway(&exclusive(0..=0, 4));
        a.release(holder, Exclusive);
        it.join().unwrap();
        drop(later);
        assert_idle(stages);
    });
}

/// `earlier` stops in its doorway, which is that of a hold; who queues behind it gets on when it has gone.
fn is_waited_for(stage: &Arc<Stage>, earlier: &Ask) {
    let earlier = stage.stop_in_doorway(earlier);
    let waiter = stage.queue(exclusive(0..=0, 3));
    let it = spawn(stage, |stage| stage.finish(waiter, Exclusive));
    stage.byte.touch(Exclusive);
    drop(earlier);
    it.join().unwrap();
    stage.assert_idle();
}

/// Property: one in his doorway who came before may find nobody in his way, and is waited for. Shape: it holds. Bound 4.
#[test]
fn an_earlier_one_is_waited_for() {
    check(4, || {
        is_waited_for(&Stage::new(), &exclusive(0..=0, 2));
    });
}

/// The same; shape: the earlier one is nested, so that its order is no stamp of the lock. Bound 4.
#[test]
fn an_earlier_one_that_is_nested_is_waited_for() {
    check(4, || {
        is_waited_for(&Stage::new(), &exclusive(0..=0, 2).nested());
    });
}

/// The same; shape: somebody has queued in the lock before either of them, so that the stamp is none that says nothing.
/// Bound 4.
#[test]
fn an_earlier_one_with_a_stamp_is_waited_for() {
    check(4, || {
        let stage = Stage::with_child();
        let holder = stage.hold(exclusive(MIDDLE..=MIDDLE, 2));
        drop(stage.queue(exclusive(MIDDLE..=MIDDLE, 3)));
        drop(holder);
        is_waited_for(&stage, &exclusive(0..=0, 2));
    });
}

/// Property: a search waits for nobody who came later. Shape: a token that might be about to hold what the searcher
/// asks for. Bound 3.
#[test]
fn a_later_one_holds_no_search_up() {
    check(3, || {
        let stage = Stage::new();
        let holder = stage.hold(exclusive(0..=0, 2));
        let waiter = stage.queue(exclusive(0..=0, 3).nested());
        let it = spawn(&stage, |stage| stage.finish(waiter, Exclusive));
        let later = stage.stop_in_doorway(&exclusive(0..=0, 4).of(&Owner::new()));
        stage.release(holder, Exclusive);
        it.join().unwrap();
        drop(later);
        stage.assert_idle();
    });
}

/// Owner 2 holds `a` and is queued in `b`, owner 3 the other way round. Before owner 2 a token has come to `b`, and is
/// still in its doorway: it might be about to hold what owner 2 waits for, and nobody can tell what that leads to.
struct Crossed {
    of_2: (Held, Waiter),
    of_3: (Held, Waiter),
    earlier: Live,
}

impl Crossed {
    fn new(a: &Stage, b: &Stage) -> Crossed {
        let earlier = b.stop_in_doorway(&add(0..=0, 4).of(&Owner::new()));
        let [held_a, held_b] = [a.hold(exclusive(0..=0, 2)), b.hold(add(0..=0, 3))];
        let in_b = b.queue(exclusive(0..=0, 2).nested());
        let in_a = a.queue(exclusive(0..=0, 3).nested());
        Crossed { of_2: (held_a, in_b), of_3: (held_b, in_a), earlier }
    }
}

fn is_refused((held, waiter): (Held, Waiter)) -> bool {
    let refused = matches!(waiter.wait(), Err(Refused::Deadlock(_)));
    drop(held);
    refused
}

/// Property: a search that met somebody in his doorway is made when he is through, and the deadlock is answered. Shape:
/// he gives up. Bound 2.
#[test]
fn a_search_that_is_owed_is_made_when_the_doorway_is_left() {
    check(2, || {
        let stages @ [a, b] = &Stage::two();
        let Crossed { of_2, of_3, earlier } = Crossed::new(a, b);
        let it = spawn_on([a, b], |_, _| is_refused(of_3));
        let other = spawn_on([a, b], |_, _| drop(earlier));
        assert!(is_refused(of_2) != it.join().unwrap(), "one and only one");
        other.join().unwrap();
        assert_idle(stages);
    });
}

/// The same; shape: he is granted, and holds on until owner 3 was answered. Bound 2.
#[test]
fn a_search_that_is_owed_is_made_when_the_doorway_ends_in_a_hold() {
    check(2, || {
        let stages @ [a, b] = &Stage::two();
        let Crossed { of_2, of_3, earlier } = Crossed::new(a, b);
        let earlier = Arc::new(earlier);
        let its = Arc::clone(&earlier);
        let it = spawn_on([a, b], |_, _| {
            let refused = is_refused(of_3);
            drop(earlier);
            refused
        });
        let other = spawn_on([a, b], move |_, _| _ = its.0.hold());
        assert!(is_refused(of_2) != it.join().unwrap(), "one and only one");
        other.join().unwrap();
        assert_idle(stages);
    });
}

/// Property: a search that is owed keeps nobody from being granted. Shape: what the searcher waits for is released; the
/// one in his doorway, in front of another who is looked at, stays. Bound 3.
#[test]
fn a_search_that_is_owed_keeps_nobody_waiting() {
    check(3, || {
        let stages @ [a, b] = &Stage::two();
        let token = Owner::new();
        let earlier = b.stop_in_doorway(&exclusive(0..=0, 4).of(&Owner::new()));
        let of_token = a.hold(exclusive(0..=0, 3).of(&token));
        let behind = b.queue(exclusive(0..=0, 5).of(&token));
        let waiter = a.queue(exclusive(0..=0, 2).nested());
        let it = spawn_on([a, b], |a, _| a.finish(waiter, Exclusive));
        a.release(of_token, Exclusive);
        it.join().unwrap();
        drop((behind, earlier));
        assert_idle(stages);
    });
}

/// Property: a hold that moves to another slot does not wait for who came after it had drawn a ticket. Shape: the one
/// it does wait for leaves when a later one has come, who stays. Bound 2.
#[test]
fn a_later_one_holds_no_split_up() {
    check(2, || {
        let stage = Stage::with_child();
        owner::visit();
        let mut held = stage.hold(exclusive(0..=MIDDLE, 3));
        let earlier = stage.stop_in_doorway(&exclusive(1..=1, 2));
        let it = spawn(&stage, |stage| {
            // The ticket has been drawn.
            while stage.state.tree.bar() == 0 {
                yield_now();
            }
            let later = stage.stop_in_doorway(&exclusive(1..=1, 4));
            drop(earlier);
            later
        });
        // SAFETY: the stage stays until all threads have ended.
        let other = unsafe { split_off(&stage.state, &held, ByteRange::new(1..=MIDDLE)) };
        shrink(&mut held, ByteRange::new(0..=0));
        drop(it.join().unwrap());
        drop((held, other));
        stage.assert_idle();
    });
}
