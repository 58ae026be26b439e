//! Holders whom nobody waits for: who waits is refused and sleeps no more, and a hold that moves takes its mark along.

use super::check;
use super::stage::{Stage, add, exclusive, spawn};
use crate::facts::error::Refused;
use crate::facts::mode::Mode::{Add, Exclusive};
use crate::facts::owner;
use crate::facts::range::ByteRange;
use crate::protocol::convert::{shrink, split_off};
use crate::protocol::grant::Waiter;
use crate::protocol::poison;
use std::sync::Arc;

fn is_refused(waiter: Waiter) -> bool {
    matches!(waiter.wait(), Err(Refused::Poisoned(_)))
}

/// Property: who waits for a hold that is poisoned is refused, while that is held. Shape: it is about to fall asleep.
/// Bound 5.
#[test]
fn who_waits_is_refused() {
    check(5, || {
        let stage = Stage::new();
        let held = stage.hold(exclusive(0..=0, 2));
        let waiter = stage.queue(exclusive(0..=0, 3));
        let it = spawn(&stage, |_| is_refused(waiter));
        poison::poison(&stage.state, &held, "stuck");
        assert!(it.join().unwrap());
        stage.release(held, Exclusive);
        stage.assert_idle();
    });
}

/// The same of who waits behind another one that waits. Three threads, bound 2.
#[test]
fn who_waits_behind_another_is_refused() {
    check(2, || {
        let stage = Stage::new();
        let held = stage.hold(exclusive(0..=0, 2));
        let [first, second] = [stage.queue(exclusive(0..=0, 3)), stage.queue(exclusive(0..=0, 4))];
        let one = spawn(&stage, |_| is_refused(first));
        let two = spawn(&stage, |_| is_refused(second));
        poison::poison(&stage.state, &held, "stuck");
        assert!(one.join().unwrap() && two.join().unwrap());
        stage.release(held, Exclusive);
        stage.assert_idle();
    });
}

/// The same of a drain; shape: it finds somebody, or begins when he is poisoned. Bound 4.
#[test]
fn who_drains_is_refused() {
    check(4, || {
        let stage = Stage::new();
        let held = stage.hold(add(0..=0, 2));
        let it = spawn(&stage, |stage| stage.drain(&exclusive(0..=0, 3)));
        poison::poison(&stage.state, &held, "stuck");
        assert!(matches!(it.join().unwrap(), Err(Refused::Poisoned(_))));
        stage.release(held, Add);
        stage.assert_idle();
    });
}

/// Property: a hold that gets a second slot while it is poisoned from outside is poisoned in both. Bound 3.
#[test]
fn a_hold_that_moves_takes_its_mark_along() {
    check(3, || {
        let stage = Stage::new();
        owner::visit();
        let mut held = stage.hold(exclusive(0..=1, 2));
        let it = spawn(&stage, |stage| poison::poison_all(&stage.state, ByteRange::new(0..=1), "stuck"));
        // SAFETY: each model keeps its stage until all its threads have ended.
        let new = unsafe { split_off(&stage.state, &held, ByteRange::new(0..=0)) };
        shrink(&mut held, ByteRange::new(1..=1));
        assert!(it.join().unwrap() > 0);
        assert!(poison::is_poisoned(&held) && poison::is_poisoned(&new));
        drop((held, new));
        stage.assert_idle();
    });
}

/// Property: a release that is raced by who poisons frees the slot, and whoever has it next is no worse for that. Bound 4.
#[test]
fn a_release_is_one_all_the_same() {
    check(4, || {
        let stage: Arc<Stage> = Stage::new();
        let held = stage.hold(exclusive(0..=0, 2));
        let it = spawn(&stage, |stage| poison::poison_all(&stage.state, ByteRange::new(0..=0), "stuck"));
        stage.release(held, Exclusive);
        let next = stage.hold(exclusive(0..=0, 4));
        let marked = it.join().unwrap();
        assert!(marked == 1 || !poison::is_poisoned(&next));
        stage.release(next, Exclusive);
        stage.assert_idle();
    });
}
