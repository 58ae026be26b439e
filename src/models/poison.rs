//! Holders whom nobody waits for: who waits is refused and sleeps no more, and a hold that moves takes its mark along.

use super::check;
use super::stage::{MIDDLE, Stage, add, exclusive, spawn};
use crate::facts::error::Refused;
use crate::facts::mode::Mode::{Add, Exclusive};
use crate::facts::owner::{self, Asker, Owner, OwnerId};
use crate::facts::range::ByteRange;
use crate::protocol::convert::{convert, shrink, split_off, take_place};
use crate::protocol::grant::Held;
use crate::protocol::poison;
use std::sync::Arc;

/// For whose sake who asked, or waited, was refused, and why; `None` if it was granted.
fn refusal<T>(answer: Result<T, Refused>) -> Option<(OwnerId, Box<str>)> {
    match answer {
        Ok(_) => None,
        Err(Refused::Poisoned(poisoned)) => Some((poisoned.owner().id, poisoned.reason().into())),
        Err(_) => panic!("refused for another reason"),
    }
}

/// The owner in the asks of `who`.
fn id(who: u64) -> OwnerId {
    Asker::numbered(who).owner
}

fn is_refused_by<T>(answer: Result<T, Refused>, who: u64, reason: &str) -> bool {
    refusal(answer) == Some((id(who), reason.into()))
}

/// Whether that is what everybody says who asks for one of its bytes.
fn is_poisoned_for(stage: &Stage, held: &Held, reason: &str) -> bool {
    let start = held.range().start().unwrap();
    let told = || refusal(stage.ask(&exclusive(start..=start, 9)));
    poison::is_poisoned(held) && told() == held.owner().map(|owner| (owner, reason.into()))
}

fn poison_both(stage: &Stage, reason: &str) -> usize {
    poison::poison_all(&stage.state, ByteRange::new(0..=1), reason)
}

fn cure_both(stage: &Stage) -> usize {
    poison::cure_all(&stage.state, ByteRange::new(0..=1))
}

/// Becomes two. SAFETY, here and below: each model keeps its stage until all its threads have ended.
fn split(stage: &Stage, held: &mut Held) -> Held {
    // SAFETY: see above.
    let new = unsafe { split_off(&stage.state, held, ByteRange::new(0..=0)) };
    shrink(held, ByteRange::new(1..=1));
    new
}

/// Becomes another one, in another slot.
fn become_less(stage: &Stage, held: &mut Held) {
    // SAFETY: see above.
    assert!(unsafe { convert(&stage.state, held, ByteRange::new(0..=0), Exclusive) });
}

/// Property: who waits for a hold that is poisoned is refused, while that is held. Shape: it is about to fall asleep.
/// Bound 5.
#[test]
fn who_waits_is_refused() {
    check(5, || {
        let stage = Stage::new();
        let held = stage.hold(exclusive(0..=0, 2));
        let waiter = stage.queue(exclusive(0..=0, 3));
        let it = spawn(&stage, |_| is_refused_by(waiter.wait(), 2, "stuck"));
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
        let one = spawn(&stage, |_| is_refused_by(first.wait(), 2, "stuck"));
        let two = spawn(&stage, |_| is_refused_by(second.wait(), 2, "stuck"));
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
        assert!(is_refused_by(it.join().unwrap(), 2, "stuck"));
        stage.release(held, Add);
        stage.assert_idle();
    });
}

/// Property: a hold that gets a second slot while it is poisoned from outside is poisoned in both, and for that reason.
/// Shapes: the new slot is looked at last, or first, or is in a child. Bound 3.
fn a_hold_that_is_split_while_it_is_poisoned(stage: &Arc<Stage>, who: u64) {
    owner::visit();
    let mut held = stage.hold(exclusive(0..=1, who));
    let it = spawn(stage, |stage| poison_both(stage, "stuck"));
    let new = split(stage, &mut held);
    assert!(it.join().unwrap() > 0);
    assert!([&held, &new].iter().all(|held| is_poisoned_for(stage, held, "stuck")));
    drop((held, new));
    stage.assert_idle();
}

#[test]
fn a_hold_that_moves_takes_its_mark_along() {
    check(3, || a_hold_that_is_split_while_it_is_poisoned(&Stage::new(), 2));
}

/// A look comes to the new slot first.
#[test]
fn a_hold_that_moves_forward_takes_its_mark_along() {
    check(3, || a_hold_that_is_split_while_it_is_poisoned(&Stage::new(), 3));
}

#[test]
fn a_hold_that_moves_down_takes_its_mark_along() {
    check(3, || a_hold_that_is_split_while_it_is_poisoned(&Stage::with_child(), 2));
}

/// Property: a hold that moves while it is cured from outside is cured, wherever it goes. Shapes: as above, and one
/// whose old slot is given back. Bound 3.
fn a_hold_that_is_split_while_it_is_cured(stage: &Arc<Stage>, who: u64) {
    owner::visit();
    let mut held = stage.hold(exclusive(0..=1, who));
    poison::poison(&stage.state, &held, "stuck");
    let it = spawn(stage, cure_both);
    let new = split(stage, &mut held);
    assert!(it.join().unwrap() > 0);
    assert!(!poison::is_poisoned(&held) && !poison::is_poisoned(&new));
    drop((held, new));
    stage.assert_idle();
}

#[test]
fn a_hold_that_moves_is_cured() {
    check(3, || a_hold_that_is_split_while_it_is_cured(&Stage::new(), 2));
}

#[test]
fn a_hold_that_moves_forward_is_cured() {
    check(3, || a_hold_that_is_split_while_it_is_cured(&Stage::new(), 3));
}

#[test]
fn a_hold_that_moves_down_is_cured() {
    check(3, || a_hold_that_is_split_while_it_is_cured(&Stage::with_child(), 2));
}

#[test]
fn a_hold_that_gives_its_slot_back_is_cured() {
    check(3, || {
        let stage = Stage::new();
        owner::visit();
        let mut held = stage.hold(exclusive(0..=1, 2));
        poison::poison(&stage.state, &held, "stuck");
        let it = spawn(&stage, cure_both);
        become_less(&stage, &mut held);
        assert!(it.join().unwrap() > 0 && !poison::is_poisoned(&held));
        drop(held);
        stage.assert_idle();
    });
}

/// The same of one that has waited, and takes the place of another. Bound 4.
#[test]
fn a_hold_that_takes_another_s_place_is_cured() {
    check(4, || {
        let stage = Stage::new();
        let token = Owner::new();
        let held = stage.hold(add(0..=0, 3).of(&token));
        poison::poison(&stage.state, &held, "stuck");
        let new = stage.hold(exclusive(0..=0, 2).of(&token));
        let it = spawn(&stage, cure_both);
        take_place(&stage.state, &held, &new);
        drop(held);
        assert!(it.join().unwrap() > 0 && !poison::is_poisoned(&new));
        drop(new);
        stage.assert_idle();
    });
}

/// Property: what is said last of a hold that moves meanwhile is what is known of it. Shape: it is cured, and poisoned
/// for another reason. Bound 3.
#[test]
fn a_hold_that_moves_keeps_what_was_said_last() {
    check(3, || {
        let stage = Stage::new();
        owner::visit();
        let mut held = stage.hold(exclusive(0..=1, 2));
        poison::poison(&stage.state, &held, "first");
        let it = spawn(&stage, |stage| (cure_both(stage), poison_both(stage, "second")));
        become_less(&stage, &mut held);
        let (cured, poisoned) = it.join().unwrap();
        assert!(cured > 0 && poisoned > 0 && is_poisoned_for(&stage, &held, "second"));
        drop(held);
        stage.assert_idle();
    });
}

/// Property: who meets a poisoned hold that moves is refused, and told what was said of it. Bound 3.
#[test]
fn who_waits_for_one_that_moves_is_told_why() {
    check(3, || {
        let stage = Stage::new();
        owner::visit();
        let mut held = stage.hold(exclusive(0..=1, 2));
        poison::poison(&stage.state, &held, "stuck");
        let it = spawn(&stage, |stage| is_refused_by(stage.ask(&exclusive(0..=0, 3)), 2, "stuck"));
        become_less(&stage, &mut held);
        assert!(it.join().unwrap());
        drop(held);
        stage.assert_idle();
    });
}

/// Property: who is refused is told what was said of the very one whom he has met. Shape: that one goes, one that is
/// not in his way has its slot, and is poisoned too. Bound 4.
#[test]
fn who_is_refused_is_told_of_no_other() {
    check(4, || {
        let stage = Stage::new();
        let first = stage.hold(exclusive(0..=0, 2));
        let waiter = stage.queue(exclusive(0..=0, 3));
        poison::poison(&stage.state, &first, "first");
        let it = spawn(&stage, |stage| {
            drop(first);
            let second = stage.hold(exclusive(1..=1, 4));
            poison::poison(&stage.state, &second, "second");
            second
        });
        let told = refusal(waiter.wait());
        assert!([None, Some((id(2), "first".into()))].contains(&told), "{told:?}");
        drop(it.join().unwrap());
        stage.assert_idle();
    });
}

/// Property: nobody is refused when the only one who was poisoned has been cured, whatever is found in its place. Bound 4.
#[test]
fn who_asks_behind_a_cure_is_not_refused() {
    check(4, || {
        let stage = Stage::new();
        let held = stage.hold(exclusive(0..=0, 2));
        poison::poison(&stage.state, &held, "stuck");
        let it = spawn(&stage, |stage| refusal(stage.ask(&exclusive(0..=0, 3))));
        assert!(poison::cure(&stage.state, &held));
        stage.release(held, Exclusive);
        assert!([None, Some((id(2), "stuck".into()))].contains(&it.join().unwrap()));
        stage.assert_idle();
    });
}

/// Property: a reason is kept for as long as its hold is poisoned. Shape: those of who has gone are dropped while one
/// moves. Bound 3.
#[test]
fn reasons_are_dropped_beside_one_that_moves() {
    check(3, || {
        let stage = Stage::with_child();
        owner::visit();
        let other = stage.hold(exclusive(MIDDLE..=MIDDLE, 4));
        let mut held = stage.hold(exclusive(0..=1, 2));
        poison::poison(&stage.state, &held, "stuck");
        let it = spawn(&stage, move |stage| {
            poison::poison(&stage.state, &other, "other");
            other
        });
        become_less(&stage, &mut held);
        let other = it.join().unwrap();
        assert!(is_poisoned_for(&stage, &held, "stuck") && is_poisoned_for(&stage, &other, "other"));
        drop((held, other));
        stage.assert_idle();
    });
}

/// Property: who moves a hold looks for no mark when there is none any more: it was taken back, or has gone with its
/// hold. Shape: one after the other.
#[test]
fn who_moves_is_told_that_nobody_is_marked() {
    check(1, || {
        let stage = Stage::new();
        let held = stage.hold(exclusive(0..=0, 2));
        for _ in 0..2 {
            poison::poison(&stage.state, &held, "stuck");
            assert!(stage.state.says_marked());
            assert!(poison::cure(&stage.state, &held) && !stage.state.says_marked());
        }
        poison::poison(&stage.state, &held, "stuck");
        drop(held);
        let mut held = stage.hold(exclusive(0..=1, 2));
        (0..4).for_each(|_| {
            let part = split(&stage, &mut held);
            drop(std::mem::replace(&mut held, stage.hold(exclusive(0..=1, 2))));
            drop(part);
        });
        assert!(!stage.state.says_marked());
        drop(held);
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
