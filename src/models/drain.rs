//! Drains: whoever came before has gone when one is over, and all that he did is known; who came later is not waited
//! for, and knows what was done before it began.
//!
//! One that forgets somebody touches a byte that is not free; one that waits for who came later, and stays, is a
//! deadlock of the model.

use super::check;
use super::cycle::is_refused;
use super::stage::{MIDDLE, Stage, add, assert_idle, exclusive, spawn, spawn_on};
use crate::facts::mode::Mode::{Add, Exclusive};
use crate::facts::owner::{self, Owner};
use crate::facts::range::ByteRange;
use crate::protocol::convert::{shrink, split_off, take_place};
use crate::protocol::grant::Held;
use loom::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;

/// Property: who held when a drain began has gone when it is over, and what he did is known. Bound 5.
#[test]
fn who_held_has_gone() {
    check(5, || {
        let stage = Stage::new();
        let held = stage.hold(add(0..=0, 2));
        let it = spawn(&stage, |stage| stage.release(held, Add));
        stage.drain(&exclusive(0..=0, 3)).unwrap();
        stage.byte.touch(Exclusive);
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// The same of one who waited. Shape: three threads, bound 2.
#[test]
fn who_waited_has_gone() {
    check(2, || {
        let stage = Stage::new();
        let held = stage.hold(exclusive(0..=0, 2));
        let waiter = stage.queue(exclusive(0..=0, 3));
        let it = spawn(&stage, |stage| stage.finish(waiter, Exclusive));
        let other = spawn(&stage, |stage| stage.release(held, Exclusive));
        stage.drain(&exclusive(0..=0, 4)).unwrap();
        stage.byte.touch(Exclusive);
        it.join().unwrap();
        other.join().unwrap();
        stage.assert_idle();
    });
}

/// The same of one who was in his doorway, and may have had it. Bound 4.
#[test]
fn who_may_have_held_has_gone() {
    check(4, || {
        let stage = Stage::new();
        let live = stage.stop_in_doorway(&exclusive(0..=0, 2));
        let it = spawn(&stage, |stage| stage.release(Held(live), Exclusive));
        stage.drain(&exclusive(0..=0, 3)).unwrap();
        stage.byte.touch(Exclusive);
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: who comes when a drain has begun is not waited for. Shape: he is granted beside the one who came before,
/// and stays. Bound 4.
#[test]
fn who_comes_later_is_not_waited_for() {
    check(4, || {
        let stage = Stage::new();
        let held = stage.hold(add(0..=0, 2));
        let drain = stage.begin_drain(&exclusive(0..=0, 3)).expect("somebody is there");
        let later = stage.hold(add(0..=0, 4));
        let it = spawn(&stage, |stage| drain.wait(&stage.state).unwrap());
        stage.release(held, Add);
        it.join().unwrap();
        drop(later);
        stage.assert_idle();
    });
}

/// The same; shape: he is stopped in his doorway. Bound 4.
#[test]
fn who_comes_later_is_not_waited_for_in_his_doorway() {
    check(4, || {
        let stage = Stage::new();
        let held = stage.hold(exclusive(0..=0, 2));
        let drain = stage.begin_drain(&exclusive(0..=0, 3)).expect("somebody is there");
        let later = stage.stop_in_doorway(&exclusive(0..=0, 4).nested());
        let it = spawn(&stage, |stage| drain.wait(&stage.state).unwrap());
        stage.release(held, Exclusive);
        it.join().unwrap();
        drop(later);
        stage.assert_idle();
    });
}

/// Says so, and waits until all have gone who may not have heard; a user does so as long as nothing is said. The byte
/// is nobody's but by that.
fn turn_away(stage: Arc<Stage>, held: Option<Held>) {
    let said = Arc::new(AtomicBool::new(false));
    let its = Arc::clone(&said);
    let it = spawn(&stage, move |stage| {
        let guard = stage.acquire(&add(0..=0, 3));
        // Relaxed on purpose: only the lock may order these.
        if !its.load(Relaxed) {
            stage.next.touch(Exclusive);
        }
        drop(guard);
    });
    let other = held.map(|held| spawn(&stage, |stage| stage.release(held, Add)));
    said.store(true, Relaxed);
    stage.drain(&exclusive(0..=0, 4)).unwrap();
    stage.next.touch(Exclusive);
    it.join().unwrap();
    other.into_iter().for_each(|other| other.join().unwrap());
    stage.assert_idle();
}

/// Property: who is not waited for knows what was done before the drain began. Shape: the drain finds nobody, or the
/// one. Bound 5.
#[test]
fn who_is_not_waited_for_knows() {
    check(5, || turn_away(Stage::new(), None));
}

/// The same; shape: somebody else is there, so that a ticket is drawn. Three threads, bound 2.
#[test]
fn who_comes_by_the_bar_knows() {
    check(2, || {
        let stage = Stage::with_child();
        let held = stage.hold(add(0..=0, 2));
        turn_away(stage, Some(held));
    });
}

/// Property: a hold that gets another slot is not missed. Shape: what is drained is in the new one; the slots are in
/// two nodes, and the new one's is looked at first, or last. Bound 4.
fn a_hold_that_is_split(stage: &Arc<Stage>, in_root: bool) {
    owner::visit();
    let mut held = stage.hold(exclusive(0..=if in_root { MIDDLE } else { 1 }, 2));
    let it = spawn(stage, |stage| {
        stage.drain(&exclusive(0..=0, 3)).unwrap();
        stage.byte.touch(Exclusive);
    });
    // SAFETY: each model keeps its stage until all its threads have ended.
    let new = unsafe { split_off(&stage.state, &held, ByteRange::new(0..=0)) };
    shrink(&mut held, ByteRange::new(1..=1));
    stage.release(new, Exclusive);
    it.join().unwrap();
    drop(held);
    stage.assert_idle();
}

#[test]
fn a_hold_that_is_split_is_not_missed() {
    check(4, || a_hold_that_is_split(&Stage::new(), false));
}

#[test]
fn a_hold_that_is_split_downwards_is_not_missed() {
    check(4, || a_hold_that_is_split(&Stage::with_child(), true));
}

/// Property: a hold that has waited, and takes the place of one that came before the drain, is waited for. Shape: a
/// scan comes to the new slot first. Bound 4.
#[test]
fn what_a_hold_has_become_is_not_missed() {
    check(4, || {
        let stage = Stage::new();
        let token = Owner::new();
        let held = stage.hold(add(0..=0, 3).of(&token));
        let drain = stage.begin_drain(&exclusive(0..=0, 5)).expect("somebody is there");
        let new = stage.hold(exclusive(0..=0, 2).of(&token));
        let it = spawn(&stage, |stage| {
            drain.wait(&stage.state).unwrap();
            stage.byte.touch(Exclusive);
        });
        take_place(&stage.state, &held, &new);
        drop(held);
        stage.release(new, Exclusive);
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: of a drain, and one whom it waits for and who waits for what the drain's owner holds, one is refused, and
/// one only. Bound 3.
#[test]
fn one_of_two_that_cross_is_refused() {
    check(3, || {
        let stages @ [a, b] = &Stage::two();
        let [held_a, held_b] = [a.hold(exclusive(0..=0, 2)), b.hold(exclusive(0..=0, 3))];
        let it = spawn_on([a, b], |a, _| {
            let result = a.ask(&exclusive(0..=0, 3).nested()).map(|held| a.release(held, Exclusive));
            drop(held_b);
            is_refused(&result)
        });
        let result = b.drain(&exclusive(0..=0, 2).nested()).map(|()| b.byte.touch(Exclusive));
        drop(held_a);
        assert!(is_refused(&result) != it.join().unwrap(), "one and only one");
        assert_idle(stages);
    });
}

/// The same; shape: it waits for one that is queued behind the other, and is in no index. Bound 2.
#[test]
fn one_of_two_that_cross_behind_a_waiter_is_refused() {
    check(2, || {
        let stages @ [a, b] = &Stage::two();
        let [held_a, held_b] = [a.hold(exclusive(0..=0, 2)), b.hold(exclusive(1..=1, 3))];
        let waiter = b.queue(exclusive(0..=1, 4));
        let it = spawn_on([a, b], |a, _| {
            let result = a.ask(&exclusive(0..=0, 3).nested()).map(|held| a.release(held, Exclusive));
            drop(held_b);
            is_refused(&result)
        });
        let other = spawn_on([a, b], |_, b| b.finish(waiter, Exclusive));
        let result = b.drain(&exclusive(0..=0, 2).nested()).map(|()| b.byte.touch(Exclusive));
        drop(held_a);
        assert!(is_refused(&result) != it.join().unwrap(), "one and only one");
        other.join().unwrap();
        assert_idle(stages);
    });
}
