//! A lock with a window: newcomers go before those who wait and yield, and nobody is let in beside another, or sleeps
//! on.

use super::check;
use super::stage::{Ask, MIDDLE, Stage, add, assert_idle, block, enter_batch, exclusive, spawn, spawn_on};
use crate::facts::error::Refused;
use crate::facts::mode::Mode::{Add, Block, Exclusive};
use crate::facts::owner::{self, Owner};
use crate::platform::reclaim::LazyPin;
use crate::protocol::grant::{Doorway, Waiter};
use loom::thread::yield_now;
use std::sync::Arc;
use std::time::Duration;

const WINDOW: Duration = Duration::from_secs(1);

/// Locks have a window from here on, and time stands still until the model has it [pass](owner::pass_time).
fn reordering(stage: Arc<Stage>) -> Arc<Stage> {
    let mut stage = Arc::into_inner(stage).expect("nobody has it yet");
    stage.state.set_window(WINDOW);
    Arc::new(stage)
}

/// One in which `waiter` waits, and the one that it waits for has gone: so it could have been granted, and does not
/// know that yet.
fn with_waiter(stage: Arc<Stage>, waiter: Ask) -> (Arc<Stage>, Waiter) {
    let stage = reordering(stage);
    let holder = stage.hold(exclusive(MIDDLE - 1..=MIDDLE, 6));
    let waiter = stage.queue(waiter);
    drop(holder);
    (stage, waiter)
}

/// What all waiters here meet the first holder at.
fn up_to_it(ask: fn(std::ops::RangeInclusive<u64>, u64) -> Ask) -> Ask {
    ask(0..=MIDDLE, 3)
}

/// Property: of one who closes and a newcomer who would pass it one finds the other, and nobody sleeps on. Bound 4.
#[test]
fn a_newcomer_and_a_waiter_take_turns() {
    check(4, || {
        let (stage, waiter) = with_waiter(Stage::new(), up_to_it(exclusive));
        let it = spawn(&stage, |stage| stage.finish(waiter, Exclusive));
        stage.cycle(exclusive(0..=0, 2));
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// The same; shape: the newcomer is in the root's child, the waiter in the root. Bound 3.
#[test]
fn a_newcomer_below_and_a_waiter_take_turns() {
    check(3, || {
        let (stage, waiter) = with_waiter(Stage::with_child(), up_to_it(exclusive));
        let it = spawn(&stage, |stage| stage.finish(waiter, Exclusive));
        stage.cycle(exclusive(0..=0, 2));
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// The same; shape: the newcomer has a shortcut past the root, or had. Bound 3.
#[test]
fn a_newcomer_by_a_shortcut_and_a_waiter_take_turns() {
    check(3, || {
        let stage = Stage::with_child();
        stage.state.tree.remember_for(&exclusive(0..=0, 2).ask().entry, &LazyPin::new());
        let (stage, waiter) = with_waiter(stage, up_to_it(exclusive));
        let it = spawn(&stage, |stage| stage.finish(waiter, Exclusive));
        stage.cycle(exclusive(0..=0, 2));
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// The same; shape: the newcomer gets the shortcut while the other waits. Bound 2.
#[test]
fn a_newcomer_by_a_new_shortcut_and_a_waiter_take_turns() {
    check(2, || {
        let (stage, waiter) = with_waiter(Stage::with_child(), up_to_it(exclusive));
        let it = spawn(&stage, |stage| stage.finish(waiter, Exclusive));
        stage.state.tree.remember_for(&exclusive(0..=0, 2).ask().entry, &LazyPin::new());
        stage.cycle(exclusive(0..=0, 2));
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// The same; shape: the root and the waiter's node are full of others who wait, so the newcomer is in a node that is
/// newer than the waiter's, and that the waiter has looked at. Bound 2.
#[test]
fn a_newcomer_in_a_newer_node_and_a_waiter_take_turns() {
    check(2, || {
        let stage = reordering(Stage::new());
        // The others wait for it, to the end.
        let holder = stage.hold(exclusive(MIDDLE + 1..=MIDDLE + 1, 6));
        let others = |who| exclusive(0..=MIDDLE + 1, who);
        let first = stage.hold(up_to_it(exclusive));
        let waiter = stage.queue(exclusive(0..=MIDDLE, 5));
        drop(first);
        let others = [stage.queue(others(7)), stage.queue(others(8))];
        let it = spawn(&stage, |stage| stage.finish(waiter, Exclusive));
        // If it is not let in, it gives up: it would wait for the others.
        if let Doorway::Granted(newcomer) = stage.enter(&exclusive(0..=MIDDLE, 2)) {
            stage.release(newcomer, Exclusive);
        }
        it.join().unwrap();
        drop((others, holder));
        stage.assert_idle();
    });
}

/// The same; shape: two newcomers, who pass the waiter, but not each other. Three threads, bound 2.
#[test]
fn two_newcomers_and_a_waiter_take_turns() {
    check(2, || {
        let (stage, waiter) = with_waiter(Stage::new(), up_to_it(exclusive));
        let it = spawn(&stage, |stage| stage.finish(waiter, Exclusive));
        let other = spawn(&stage, |stage| stage.cycle(exclusive(0..=0, 4)));
        stage.cycle(exclusive(0..=0, 2));
        it.join().unwrap();
        other.join().unwrap();
        stage.assert_idle();
    });
}

/// The same; shape: two waiters, who would go together, and a newcomer. Three threads, bound 2.
#[test]
fn a_newcomer_and_two_adders_take_turns() {
    check(2, || {
        let (stage, waiter) = with_waiter(Stage::new(), up_to_it(add));
        let second = {
            // In front of both, for as long as that one queues.
            let holder = stage.hold(block(MIDDLE + 1..=MIDDLE + 1, 4));
            let second = stage.queue(add(0..=MIDDLE + 1, 5));
            drop(holder);
            second
        };
        let threads = [waiter, second].map(|waiter| spawn(&stage, |stage| stage.finish(waiter, Add)));
        stage.cycle(block(0..=0, 2));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        stage.assert_idle();
    });
}

/// Property: among those who wait the order is that of their tickets, though both yield. Shape: the first one waits for
/// a holder that is not in the second one's way, and nobody else is. Bound 2.
#[test]
fn nobody_who_waits_passes() {
    check(2, || {
        let stage = reordering(Stage::new());
        let holder = stage.hold(exclusive(0..=0, 2));
        let other = stage.hold(exclusive(2..=2, 5));
        let first = stage.queue(exclusive(0..=1, 3));
        let second = stage.queue(exclusive(1..=2, 4));
        drop(other);
        let it = spawn(&stage, |stage| stage.finish(second, Exclusive));
        // The second one's turn comes behind the first one's, and that behind this.
        stage.release(holder, Exclusive);
        stage.finish(first, Exclusive);
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: a newcomer passes who waits and is young; and who is due is passed by nobody. Shape: nothing moves
/// meanwhile.
#[test]
fn only_the_young_are_passed() {
    check(1, || {
        let (stage, waiter) = with_waiter(Stage::new(), up_to_it(exclusive));
        let newcomer = stage.hold(exclusive(0..=0, 2));
        drop(newcomer);
        owner::pass_time(2 * WINDOW);
        drop(stage.queue(exclusive(0..=0, 2)));
        stage.finish(waiter, Exclusive);
        stage.assert_idle();
    });
}

/// Property: nobody passes but a single, outermost request of a thread or a task. Shape: nothing moves meanwhile.
#[test]
fn nobody_else_passes() {
    check(1, || {
        let (stage, waiter) = with_waiter(Stage::new(), up_to_it(exclusive));
        let (mine, other) = (exclusive(0..=0, 2), exclusive(1..=1, 2));
        drop(stage.queue(mine.clone().nested()));
        drop(stage.queue(mine.clone().of(&Owner::new())));
        assert!(stage.try_acquire(&mine).is_none());
        match enter_batch(&[(&stage, mine.clone()), (&stage, other)]) {
            Doorway::Granted(_) => panic!("a batch has passed"),
            Doorway::Queued(batch) => drop(batch),
        }
        drop(stage.hold(mine));
        stage.finish(waiter, Exclusive);
        stage.assert_idle();
    });
}

/// Property: as above, for one who becomes due while the newcomer comes. Bound 3.
#[test]
fn a_newcomer_and_a_waiter_who_becomes_due_take_turns() {
    check(3, || {
        let (stage, waiter) = with_waiter(Stage::new(), up_to_it(exclusive));
        let it = spawn(&stage, |stage| stage.finish(waiter, Exclusive));
        let clock = spawn(&stage, |_| owner::pass_time(2 * WINDOW));
        stage.cycle(exclusive(0..=0, 2));
        it.join().unwrap();
        clock.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: who is due is waited for, and does not wait for those who came when he had closed. Shape: one is stopped
/// in his doorway until the waiter is through. Bound 3.
#[test]
fn who_came_when_it_had_closed_holds_nobody_up() {
    check(3, || {
        let stage = reordering(Stage::new());
        let holder = stage.hold(exclusive(0..=0, 2));
        let waiter = stage.queue(exclusive(0..=0, 3));
        let bar = stage.state.tree.bar();
        owner::pass_time(2 * WINDOW);
        let it = spawn(&stage, |stage| stage.finish(waiter, Exclusive));
        while stage.state.tree.bar() == bar {
            yield_now();
        }
        let later = stage.stop_in_doorway(&exclusive(0..=0, 4));
        stage.release(holder, Exclusive);
        it.join().unwrap();
        drop(later);
        stage.assert_idle();
    });
}

/// Property: one in his doorway who came before that may have passed, and is waited for. Shape: he has begun to hold,
/// and has not said so. Bound 3.
#[test]
fn who_came_before_it_closed_is_waited_for() {
    check(3, || {
        let (stage, waiter) = with_waiter(Stage::new(), up_to_it(exclusive));
        let passing = stage.stop_in_doorway(&exclusive(0..=0, 4));
        owner::pass_time(2 * WINDOW);
        let it = spawn(&stage, |stage| stage.finish(waiter, Exclusive));
        stage.byte.touch(Exclusive);
        passing.0.hold_quietly();
        stage.byte.touch(Exclusive);
        drop(passing);
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: nobody sleeps on who registered on a newcomer that finds it must queue. Shape: a blocker holds beside an
/// adder who waits; the newcomer meets both. Bound 2.
#[test]
fn a_newcomer_who_queues_after_all_wakes_who_registered() {
    check(2, || {
        let stage = reordering(Stage::new());
        let holder = stage.hold(block(0..=0, 6));
        let first = stage.hold(exclusive(1..=1, 4));
        let waiter = stage.queue(block(0..=1, 3));
        let it = spawn(&stage, |stage| stage.finish(waiter, Block));
        let newcomer = spawn(&stage, |stage| drop(stage.enter(&exclusive(0..=0, 2))));
        drop(first);
        it.join().unwrap();
        drop(holder);
        newcomer.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: a cycle that leads through one who was passed is found. Shape: owner 2 passes the waiter, and asks for
/// what owner 3 holds, who waits behind the waiter. Bound 2.
#[test]
fn a_cycle_through_one_who_was_passed_is_broken() {
    check(2, || {
        let (a, waiter) = with_waiter(Stage::new(), up_to_it(exclusive));
        let b = Stage::new();
        let passed = a.hold(exclusive(0..=0, 2));
        let held = b.hold(exclusive(0..=0, 3));
        let it = spawn_on([&a, &b], |a, _| {
            drop(a.acquire(&exclusive(1..=1, 3).nested()));
            drop(held);
        });
        drop(b.acquire(&exclusive(0..=0, 2).nested()));
        it.join().unwrap();
        drop(passed);
        a.finish(waiter, Exclusive);
        assert_idle(&[a, b]);
    });
}

/// Property: of a cycle of holds that came of passing, one gets the answer. Shape: as above, but owner 3 waits for what
/// owner 2 has by passing. Bound 2.
#[test]
fn a_deadlock_with_one_who_passed_is_answered() {
    check(2, || {
        let (a, waiter) = with_waiter(Stage::new(), up_to_it(exclusive));
        let b = Stage::new();
        let passed = a.hold(exclusive(0..=0, 2));
        let held = b.hold(exclusive(0..=0, 3));
        let it = spawn_on([&a, &b], |a, _| {
            let refused = matches!(a.ask(&exclusive(0..=0, 3).nested()), Err(Refused::Deadlock(_)));
            drop(held);
            refused
        });
        let refused = matches!(b.ask(&exclusive(0..=0, 2).nested()), Err(Refused::Deadlock(_)));
        drop(passed);
        // It has to wait no longer for the one who passed; but it stands in front of owner 3.
        a.finish(waiter, Exclusive);
        assert!(refused != it.join().unwrap(), "one and only one");
        assert_idle(&[a, b]);
    });
}
