//! A hold becomes another: no byte that is held before and after is let go of, and whoever can go on does.
//!
//! Whoever is let in by a conversion is let in while the rest is still held: the main thread joins before it releases.

use super::check;
use super::stage::{Ask, MIDDLE, Stage, add, block, exclusive, spawn};
use crate::facts::mode::Mode::{self, Add, Block, Exclusive};
use crate::facts::owner::{self, Owner};
use crate::facts::range::ByteRange;
use crate::platform::reclaim::LazyPin;
use crate::protocol::convert::{convert, downgrade, shrink, split_off};
use crate::protocol::grant::{self, Doorway, Held};
use crate::wait;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// The main thread will need a second slot: it is introduced here, as the first thread, and so looks at slot 1 first.
fn introduce() {
    owner::visit();
}

/// As [`crate::Guard::split`] does it: `held` keeps one part, the other is the answer.
fn split(stage: &Stage, held: &mut Held, kept: RangeInclusive<u64>, off: RangeInclusive<u64>) -> Held {
    // SAFETY: each model keeps its stage until all its threads have ended.
    let other = unsafe { split_off(&stage.state, held, ByteRange::new(off)) };
    shrink(held, ByteRange::new(kept));
    other
}

fn try_convert(stage: &Stage, held: &mut Held, bytes: RangeInclusive<u64>, mode: Mode) -> bool {
    // SAFETY: each model keeps its stage until all its threads have ended.
    unsafe { convert(&stage.state, held, ByteRange::new(bytes), mode) }
}

/// Asks, touches byte 1, releases.
fn cycle_next(stage: &Stage, ask: &Ask) {
    let held = stage.acquire(ask);
    stage.next.touch(ask.mode);
    drop(held);
}

// In place.

/// Property: a downgrade lets in who waits and now may, with what was written before. Shape: an adder arrives. Bound 4.
#[test]
fn a_downgrade_lets_an_adder_in() {
    check(4, || {
        let stage = Stage::new();
        let mut held = stage.hold(exclusive(0..=0, 2));
        let it = spawn(&stage, |stage| stage.cycle(add(0..=0, 3)));
        stage.byte.touch(Exclusive);
        downgrade(&mut held, Add);
        it.join().unwrap();
        stage.release(held, Add);
        stage.assert_idle();
    });
}

/// The same; shape: a blocker was queued, so that its registration races. Bound 5.
#[test]
fn a_downgrade_lets_a_queued_blocker_in() {
    check(5, || {
        let stage = Stage::new();
        let mut held = stage.hold(exclusive(0..=0, 2));
        let waiter = stage.queue(block(0..=0, 3));
        let it = spawn(&stage, |_| drop(waiter.finish()));
        stage.byte.touch(Exclusive);
        downgrade(&mut held, Block);
        it.join().unwrap();
        drop(held);
        stage.assert_idle();
    });
}

/// Property: a downgrade loses nobody's wake-up: who still conflicts hears of the release. Bound 4.
#[test]
fn a_downgrade_leaves_who_still_conflicts_waiting() {
    check(4, || {
        let stage = Stage::new();
        let mut held = stage.hold(exclusive(0..=0, 2));
        let it = spawn(&stage, |stage| stage.cycle(exclusive(0..=0, 3)));
        downgrade(&mut held, Add);
        stage.release(held, Add);
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: a downgrade lets nobody overtake: an adder behind a queued exclusive one stays behind it. Shape: both are
/// queued. Three threads, bound 2.
#[test]
fn a_downgrade_keeps_the_queue() {
    check(2, || {
        let stage = Stage::new();
        let mut held = stage.hold(exclusive(0..=0, 2));
        let first = stage.queue(exclusive(0..=0, 3));
        let second = stage.queue(add(0..=0, 4));
        let one = spawn(&stage, |stage| stage.finish(first, Exclusive));
        let two = spawn(&stage, |stage| stage.finish(second, Add));
        downgrade(&mut held, Add);
        stage.release(held, Add);
        one.join().unwrap();
        two.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: a task's hold that is handed over to a token is in nobody else's way more or less than before, and not in
/// the token's. Shape: one asks for it meanwhile. Bound 4.
#[test]
fn a_hold_is_handed_over() {
    check(4, || {
        let stage = Stage::new();
        let held = stage.hold(exclusive(0..=0, 2));
        let it = spawn(&stage, |stage| stage.cycle(exclusive(0..=0, 3)));
        let token = Owner::of_task(exclusive(0..=0, 2).asker().owner);
        if held.hand_over(token.id()) {
            wait::deliver();
        }
        let nested = stage.acquire(&exclusive(0..=0, 2).of(&token));
        stage.byte.touch(Exclusive);
        drop(held);
        stage.release(nested, Exclusive);
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// Shrinks a hold of bytes 0 and 1 to byte 0 while somebody asks for byte 1.
fn shrink_while_the_rest_is_asked_for(stage: &Arc<Stage>, ask: Ask) {
    let mut held = stage.hold(exclusive(0..=1, 2));
    let it = spawn(stage, move |stage| cycle_next(stage, &ask));
    stage.next.touch(Exclusive);
    shrink(&mut held, ByteRange::new(0..=0));
    stage.byte.touch(Exclusive);
    it.join().unwrap();
    stage.release(held, Exclusive);
    stage.assert_idle();
}

/// Property: a shrink wakes who waits for the bytes given back, who sees what was written there. Shape: one in the
/// root. Bound 4.
#[test]
fn a_shrink_lets_in_who_asks_for_the_rest() {
    check(4, || shrink_while_the_rest_is_asked_for(&Stage::new(), exclusive(1..=1, 3)));
}

/// The same; shape: the holder in the child, the asker in the root. Bound 3.
#[test]
fn a_shrink_in_a_child_lets_in_who_asks_for_the_rest() {
    check(3, || shrink_while_the_rest_is_asked_for(&Stage::with_child(), add(1..=MIDDLE, 3)));
}

/// The same; shape: the asker was queued, so that its registration races. Bound 5.
#[test]
fn a_shrink_wakes_who_is_queued() {
    check(5, || {
        let stage = Stage::new();
        let mut held = stage.hold(exclusive(0..=1, 2));
        let waiter = stage.queue(exclusive(0..=0, 3));
        let it = spawn(&stage, |stage| stage.finish(waiter, Exclusive));
        stage.byte.touch(Exclusive);
        shrink(&mut held, ByteRange::new(1..=1));
        it.join().unwrap();
        drop(held);
        stage.assert_idle();
    });
}

/// The same; shape: the bytes given back lie in other parts of the node's span than those kept. Bound 5.
#[test]
fn a_shrink_to_another_part_wakes_who_is_queued() {
    check(5, || {
        let stage = Stage::new();
        let mut held = stage.hold(exclusive(0..=MIDDLE, 2));
        let waiter = stage.queue(exclusive(0..=0, 3));
        let it = spawn(&stage, |stage| stage.finish(waiter, Exclusive));
        stage.byte.touch(Exclusive);
        shrink(&mut held, ByteRange::new(MIDDLE..=MIDDLE));
        it.join().unwrap();
        drop(held);
        stage.assert_idle();
    });
}

/// Property: a shrink lets nobody into the bytes kept, and loses nobody's wake-up. Shape: an adder for all bytes
/// arrives. Bound 4.
#[test]
fn a_shrink_lets_nobody_into_the_rest() {
    check(4, || {
        let stage = Stage::new();
        let mut held = stage.hold(exclusive(0..=1, 2));
        let it = spawn(&stage, |stage| stage.cycle(add(0..=1, 3)));
        shrink(&mut held, ByteRange::new(0..=0));
        stage.release(held, Exclusive);
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// The same; shape: the asker was queued. Bound 4.
#[test]
fn a_shrink_keeps_who_is_queued_out_of_the_rest() {
    check(4, || {
        let stage = Stage::new();
        let mut held = stage.hold(exclusive(0..=1, 2));
        let waiter = stage.queue(exclusive(0..=0, 3));
        let it = spawn(&stage, |stage| stage.finish(waiter, Exclusive));
        shrink(&mut held, ByteRange::new(0..=0));
        stage.release(held, Exclusive);
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: a single look never misses a holder who shrinks, and never finds more than what it held. Shape: both
/// bounds change. Bound 8.
#[test]
fn a_look_during_a_shrink_finds_the_holder() {
    check(8, || {
        let stage = Stage::new();
        let mut held = stage.hold(exclusive(1..=3, 2));
        let it = spawn(&stage, |stage| {
            assert!(!stage.is_clear_for(&add(2..=2, 3)), "missed a holder");
            assert!(stage.is_clear_for(&add(4..=4, 3)), "found who is not there");
        });
        shrink(&mut held, ByteRange::new(2..=2));
        it.join().unwrap();
        drop(held);
        stage.assert_idle();
    });
}

/// The same; shape: two shrinks, which leave the node's parts one by one, and one look. Bound 8.
#[test]
fn a_look_during_two_shrinks_finds_the_holder() {
    check(8, || {
        let stage = Stage::new();
        let mut held = stage.hold(exclusive(0..=u64::MAX, 2));
        let it = spawn(&stage, |stage| assert!(!stage.is_clear_for(&add(MIDDLE..=MIDDLE, 3)), "missed a holder"));
        shrink(&mut held, ByteRange::new(1..=MIDDLE));
        shrink(&mut held, ByteRange::new(MIDDLE..=MIDDLE));
        it.join().unwrap();
        drop(held);
        stage.assert_idle();
    });
}

// By succession.

/// Two spans: bytes 0 to `MIDDLE` in slot 1 of the root, then byte 0 there and the rest in slot 0, which a scan looks
/// at first. Whoever asks for byte 1 is in the child.
fn hold_in_slot_1(stage: &Stage) -> Held {
    introduce();
    stage.hold(exclusive(0..=MIDDLE, 3))
}

fn split_in_the_root(stage: &Stage, mut held: Held) {
    let other = split(stage, &mut held, 0..=0, 1..=MIDDLE);
    stage.next.touch(Exclusive);
    drop(other);
    drop(held);
}

/// Property: no scan misses what is held while it is split. Shape: a newcomer, in its doorway; the second slot is
/// looked at before the first one. Bound 3.
#[test]
fn a_newcomer_does_not_miss_a_split() {
    check(3, || {
        let stage = Stage::with_child();
        let held = hold_in_slot_1(&stage);
        let it = spawn(&stage, |stage| cycle_next(stage, &exclusive(1..=1, 2)));
        split_in_the_root(&stage, held);
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// The same; shape: what the first slot keeps touches no part of the root's span that the newcomer's byte is in, so
/// that one look at the words is enough to miss both. Bound 2.
#[test]
fn a_newcomer_does_not_miss_a_split_into_other_parts() {
    const LAST: u64 = MIDDLE | MIDDLE >> 1;
    check(2, || {
        let stage = Stage::with_child();
        introduce();
        let mut held = stage.hold(exclusive(0..=LAST, 3));
        let it = spawn(&stage, move |stage| {
            let other = split(stage, &mut held, LAST..=LAST, 0..=LAST - 1);
            stage.next.touch(Exclusive);
            drop(other);
            drop(held);
        });
        cycle_next(&stage, &exclusive(1..=1, 2));
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// The same; shape: the newcomer was queued, and looks again. Bound 4.
#[test]
fn who_is_queued_does_not_miss_a_split() {
    check(4, || {
        let stage = Stage::with_child();
        let held = hold_in_slot_1(&stage);
        let waiter = stage.queue(exclusive(1..=1, 2));
        let it = spawn(&stage, |stage| {
            let held = waiter.finish();
            stage.next.touch(Exclusive);
            drop(held);
        });
        split_in_the_root(&stage, held);
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// The same; shape: `try_`, which gives up in its doorway. Bound 3.
#[test]
fn a_try_does_not_miss_a_split() {
    check(3, || {
        let stage = Stage::with_child();
        let held = hold_in_slot_1(&stage);
        let it = spawn(&stage, |stage| {
            if let Some(held) = stage.try_acquire(&exclusive(1..=1, 2)) {
                stage.next.touch(Exclusive);
                drop(held);
            }
        });
        split_in_the_root(&stage, held);
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// The same; shape: the second slot is in a child, and is looked at last. Bound 3.
#[test]
fn a_newcomer_does_not_miss_a_split_into_a_child() {
    check(3, || {
        let stage = Stage::with_child();
        introduce();
        let mut held = stage.hold(exclusive(0..=MIDDLE, 3));
        let it = spawn(&stage, |stage| stage.cycle(exclusive(0..=0, 2)));
        let other = split(&stage, &mut held, 1..=MIDDLE, 0..=0);
        stage.release(other, Exclusive);
        drop(held);
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// The same; shape: the second slot is in the root, and the first one in the child: what a byte more takes. Bound 3.
#[test]
fn a_newcomer_does_not_miss_an_extension_into_the_parent() {
    check(3, || {
        let stage = Stage::with_child();
        introduce();
        let mut held = stage.hold(exclusive(0..=0, 3));
        let it = spawn(&stage, |stage| stage.cycle(exclusive(0..=0, 2)));
        assert!(try_convert(&stage, &mut held, 0..=MIDDLE, Exclusive), "he waits for what is held");
        stage.release(held, Exclusive);
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// The same; shape: that one was queued, and looks again. Bound 4.
#[test]
fn who_is_queued_does_not_miss_an_extension_into_the_parent() {
    check(4, || {
        let stage = Stage::with_child();
        introduce();
        let mut held = stage.hold(exclusive(0..=0, 3));
        let waiter = stage.queue(exclusive(0..=0, 2));
        let it = spawn(&stage, |stage| stage.finish(waiter, Exclusive));
        assert!(try_convert(&stage, &mut held, 0..=MIDDLE, Exclusive), "he waits for what is held");
        stage.release(held, Exclusive);
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: what a split gives back is free at once, and who waits for it is woken. Shape: one is queued for the first
/// part. Bound 3.
#[test]
fn a_split_part_wakes_who_waits() {
    check(3, || {
        let stage = Stage::with_child();
        introduce();
        let mut held = stage.hold(exclusive(0..=MIDDLE, 3));
        let waiter = stage.queue(exclusive(0..=0, 2));
        let it = spawn(&stage, |stage| stage.finish(waiter, Exclusive));
        let other = split(&stage, &mut held, 0..=0, MIDDLE..=MIDDLE);
        stage.release(held, Exclusive);
        it.join().unwrap();
        drop(other);
        stage.assert_idle();
    });
}

/// Property: two who hold together never both become exclusive, neither waits for the other, and no attempt is taken
/// for a grant. Bound 3.
#[test]
fn two_that_convert_do_not_both_succeed() {
    check(3, || {
        let stage = Stage::with_child();
        introduce();
        let [mut one, mut other] = [add(0..=MIDDLE, 2), add(0..=0, 3)].map(|ask| stage.hold(ask));
        let it = spawn(&stage, move |stage| {
            let converted = try_convert(stage, &mut other, 0..=0, Exclusive);
            stage.release(other, if converted { Exclusive } else { Add });
        });
        let converted = try_convert(&stage, &mut one, 0..=MIDDLE, Exclusive);
        stage.release(one, if converted { Exclusive } else { Add });
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: a conversion succeeds only when nobody shares the bytes, and one that fails wakes who took it for a hold.
/// Shape: an adder arrives beside an adder who becomes exclusive. Bound 3.
#[test]
fn a_conversion_meets_a_newcomer_who_shares() {
    check(3, || {
        let stage = Stage::with_child();
        introduce();
        let mut held = stage.hold(add(0..=MIDDLE, 2));
        let it = spawn(&stage, |stage| stage.cycle(add(0..=0, 3)));
        if try_convert(&stage, &mut held, 0..=MIDDLE, Exclusive) {
            stage.release(held, Exclusive);
            it.join().unwrap();
        } else {
            it.join().unwrap();
            stage.release(held, Add);
        }
        stage.assert_idle();
    });
}

/// Property: a conversion passes who waits for the old hold, and he waits on. Shape: one that was queued looks again
/// while an adder becomes exclusive. Bound 3.
#[test]
fn a_conversion_passes_who_waits_for_it() {
    check(3, || {
        let stage = Stage::with_child();
        introduce();
        let mut held = stage.hold(add(0..=MIDDLE, 3));
        let waiter = stage.queue(exclusive(0..=0, 2));
        let it = spawn(&stage, |stage| stage.finish(waiter, Exclusive));
        assert!(try_convert(&stage, &mut held, 0..=MIDDLE, Exclusive), "he waits for what is held");
        stage.release(held, Exclusive);
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: an extension succeeds only when nobody has the new bytes, and one that fails wakes who took it for a hold.
/// Shape: a newcomer for byte 1. Bound 3.
#[test]
fn an_extension_meets_a_newcomer() {
    check(3, || {
        let stage = Stage::with_child();
        introduce();
        let mut held = stage.hold(exclusive(MIDDLE..=MIDDLE, 2));
        let it = spawn(&stage, |stage| cycle_next(stage, &exclusive(1..=1, 3)));
        if try_convert(&stage, &mut held, 1..=MIDDLE, Exclusive) {
            stage.next.touch(Exclusive);
            drop(held);
            it.join().unwrap();
        } else {
            it.join().unwrap();
            drop(held);
        }
        stage.assert_idle();
    });
}

/// Property: two that extend into one gap never both get it, and neither waits for the other. Bound 3.
#[test]
fn two_that_extend_do_not_both_succeed() {
    check(3, || {
        let stage = Stage::with_child();
        introduce();
        let mut one = stage.hold(exclusive(MIDDLE..=MIDDLE, 2));
        let mut other = stage.hold(exclusive(0..=0, 3));
        let it = spawn(&stage, move |stage| {
            if try_convert(stage, &mut other, 0..=1, Exclusive) {
                stage.next.touch(Exclusive);
            }
            drop(other);
        });
        if try_convert(&stage, &mut one, 1..=MIDDLE, Exclusive) {
            stage.next.touch(Exclusive);
        }
        drop(one);
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: whoever has a shortcut to a node is not let past a hold that moves from one slot above it to another.
/// Shape: the shortcut is looked for during a split; the hold is in the slot that is looked at last, its second half
/// goes to the first one. Bound 3.
#[test]
fn a_split_is_not_missed_by_a_new_shortcut() {
    check(3, || {
        let stage = Stage::with_child();
        let mut held = stage.hold(exclusive(0..=MIDDLE + 1, 5));
        let it = spawn(&stage, |stage| {
            let ask = exclusive(0..=0, 2);
            stage.state.tree.remember_for(&ask.ask().entry, &LazyPin::new());
            match stage.enter(&ask) {
                Doorway::Granted(held) => stage.release(held, Exclusive),
                Doorway::Queued(waiter) => drop(waiter),
            }
        });
        let off = split(&stage, &mut held, MIDDLE + 1..=MIDDLE + 1, 0..=MIDDLE);
        stage.byte.touch(Exclusive);
        drop(off);
        it.join().unwrap();
        drop(held);
        stage.assert_idle();
    });
}

/// Property: who was passed by a hold is not let in when that moves. Shape: owner 3 holds, and was let past a waiter in
/// front, who looks while the hold is split. What it keeps in the first slot is nothing to the waiter. Bound 2.
#[test]
fn who_was_passed_does_not_miss_a_split() {
    check(2, || {
        let stage = Stage::with_child();
        introduce();
        let held = stage.hold(add(1..=1, 3));
        let passed = stage.queue(exclusive(1..=1, 2));
        // In slot 1 of the root: its second slot is looked at before it.
        let mut more = stage.acquire(&exclusive(0..=MIDDLE, 3).nested());
        drop(held);
        let it = spawn(&stage, |stage| {
            let held = passed.finish();
            stage.next.touch(Exclusive);
            drop(held);
        });
        let other = split(&stage, &mut more, 0..=0, 1..=MIDDLE);
        stage.next.touch(Exclusive);
        drop(other);
        drop(more);
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: who looks for its own holds finds one that is never let go of, and so does who looks for all. Shape: two
/// spans; another activity of the owner splits it, and the slots are looked at in the order in which both halves can be
/// missed. Bound 4.
#[test]
fn a_look_for_holds_does_not_miss_a_split() {
    check(4, || {
        let stage = Stage::with_child();
        introduce();
        let token = Owner::new();
        let mut held = stage.hold(exclusive(0..=MIDDLE, 3).of(&token));
        let ask = add(1..=1, 2).of(&token);
        let it = spawn(&stage, move |stage| {
            let other = split(stage, &mut held, 0..=0, 1..=MIDDLE);
            (held, other)
        });
        let asker = ask.asker();
        let found = grant::own_conflict(&stage.state, &ask.ask_in(&stage.state, &asker));
        assert!(found.is_some(), "its owner holds byte 1 all the time");
        drop(it.join().unwrap());
        stage.assert_idle();
    });
}

/// The same of who looks for all. Shape: the hold moves as a whole. Bound 4.
#[test]
fn a_snapshot_does_not_miss_a_hold_that_moves() {
    check(4, || {
        let stage = Stage::with_child();
        introduce();
        let mut held = stage.hold(add(0..=MIDDLE, 3));
        let it = spawn(&stage, move |stage| {
            assert!(try_convert(stage, &mut held, 0..=MIDDLE, Block), "nobody is in the way");
            held
        });
        assert!(!grant::rows(&stage.state).is_empty(), "somebody holds all the time");
        drop(it.join().unwrap());
        stage.assert_idle();
    });
}

/// Property: one who waits finds a hold that has moved to a node of its chain that is newer than its own (T5). Shape:
/// it has looked at the newer ones before, or not. Bound 3.
#[test]
fn a_split_into_a_newer_node_is_not_missed() {
    check(3, || {
        introduce();
        let stage = Stage::new();
        let full = [100, 101].map(|who| stage.hold(add(u64::MAX..=u64::MAX, who)));
        let mut held = stage.hold(exclusive(0..=MIDDLE, 2));
        let waiter = stage.queue(exclusive(1..=MIDDLE, 3));
        let it = spawn(&stage, |stage| {
            let held = waiter.finish();
            stage.next.touch(Exclusive);
            drop(held);
        });
        let other = split(&stage, &mut held, 0..=0, 1..=MIDDLE);
        stage.next.touch(Exclusive);
        drop(other);
        it.join().unwrap();
        drop((held, full));
        stage.assert_idle();
    });
}
