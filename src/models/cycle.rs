//! Cycles of waits: one that leads through grants alone is answered, once; one that leads through somebody who waits is
//! broken, and who is let past excludes whom it passes like any other.
//!
//! A cycle that nobody finds leaves its threads parked.

use super::check;
use super::stage::{MIDDLE, Stage, add, assert_idle, block, exclusive, queue_batch, soon, spawn_on};
use crate::facts::error::Refused;
use crate::facts::mode::Mode::{self, Add, Exclusive};
use crate::facts::owner::{self, Owner};
use crate::facts::range::ByteRange;
use crate::protocol::convert::{shrink, split_off};
use crate::protocol::grant::{self, Doorway, Held, Waiter};
use crate::protocol::lock_state::Ask;
use crate::wait;

/// Whether it was refused, as part of a cycle.
pub(super) fn is_refused<T>(result: &Result<T, Refused>) -> bool {
    match result {
        Ok(_) | Err(Refused::TimedOut | Refused::Poisoned(_)) => false,
        Err(Refused::Deadlock(_)) => true,
    }
}

/// Waits, touches byte 0 of the stage if it was granted, and then lets go of it and of what its owner held before.
/// Whether it was refused.
fn finish(stage: &Stage, waiter: Waiter, held: Held) -> bool {
    finish_in(stage, waiter, Exclusive, held)
}

/// The same of one that asks in `mode`.
fn finish_in(stage: &Stage, waiter: Waiter, mode: Mode, held: Held) -> bool {
    let result = waiter.wait().map(|holds| {
        stage.byte.touch(mode);
        drop(holds);
    });
    drop(held);
    is_refused(&result)
}

/// Two owners that cross: 2 holds `a` and is queued in `b`, 3 the other way round.
fn crossed(a: &Stage, b: &Stage) -> [(Held, Waiter); 2] {
    let [held_a, held_b] = [a.hold(exclusive(0..=0, 2)), b.hold(exclusive(0..=0, 3))];
    let in_b = b.queue(exclusive(0..=0, 2).nested());
    let in_a = a.queue(exclusive(0..=0, 3).nested());
    [(held_a, in_b), (held_b, in_a)]
}

/// Property: of two owners that wait for one another, one is refused, and one only. Shape: both were queued. Bound 4.
#[test]
fn one_of_two_that_cross_is_refused() {
    check(4, || {
        let stages @ [a, b] = &Stage::two();
        let [(held_a, in_b), (held_b, in_a)] = crossed(a, b);
        let it = spawn_on([a, b], |a, _| finish(a, in_a, held_b));
        let refused = finish(b, in_b, held_a);
        assert!(refused != it.join().unwrap(), "one and only one");
        assert_idle(stages);
    });
}

/// The same; shape: both are in their doorways. Bound 2.
#[test]
fn one_of_two_that_cross_in_their_doorways_is_refused() {
    check(2, || {
        let stages @ [a, b] = &Stage::two();
        let [held_a, held_b] = [a.hold(exclusive(0..=0, 2)), b.hold(exclusive(0..=0, 3))];
        let it = spawn_on([a, b], |a, _| {
            let result = a.ask(&exclusive(0..=0, 3).nested()).map(|held| a.release(held, Exclusive));
            drop(held_b);
            is_refused(&result)
        });
        let result = b.ask(&exclusive(0..=0, 2).nested()).map(|held| b.release(held, Exclusive));
        drop(held_a);
        assert!(is_refused(&result) != it.join().unwrap(), "one and only one");
        assert_idle(stages);
    });
}

/// The same; shape: one of them asks by a batch, of `b` and of bytes that nobody else wants. Bound 3.
#[test]
fn one_of_two_that_cross_by_a_batch_is_refused() {
    check(3, || {
        let stages @ [a, b] = &Stage::two();
        let [held_a, held_b] = [a.hold(exclusive(0..=0, 2)), b.hold(exclusive(0..=0, 3))];
        let in_b = queue_batch(&[(b, exclusive(0..=0, 2).nested()), (b, exclusive(1..=1, 2).nested())]);
        let in_a = a.queue(exclusive(0..=0, 3).nested());
        let it = spawn_on([a, b], |a, _| finish(a, in_a, held_b));
        let refused = finish(b, in_b, held_a);
        assert!(refused != it.join().unwrap(), "one and only one");
        assert_idle(stages);
    });
}

/// The same; shape: three in a ring, all queued. Three threads, bound 1.
#[test]
fn one_of_three_in_a_ring_is_refused() {
    check(1, || {
        let stages @ [a, b, c] = &[Stage::new(), Stage::new(), Stage::new()];
        let [held_a, held_b, held_c] = [(a, 2), (b, 3), (c, 4)].map(|(stage, who)| stage.hold(exclusive(0..=0, who)));
        let [in_b, in_c, in_a] =
            [(b, 2), (c, 3), (a, 4)].map(|(stage, who)| stage.queue(exclusive(0..=0, who).nested()));
        let one = spawn_on([b, c], |_, c| finish(c, in_c, held_b));
        let two = spawn_on([c, a], |_, a| finish(a, in_a, held_c));
        let refused = [finish(b, in_b, held_a), one.join().unwrap(), two.join().unwrap()];
        assert_eq!(refused.into_iter().filter(|&refused| refused).count(), 1, "one and only one");
        assert_idle(stages);
    });
}

/// The same; shape: three owners, two locks, and one of the three, who only waits, is to be passed by the first. Bound 2.
#[test]
fn one_of_three_in_two_locks_is_refused() {
    check(2, || {
        let stages @ [a, b] = &Stage::two();
        let token = Owner::new();
        let [held_2, held_4] = [a.hold(add(0..=0, 2)), a.hold(add(1..=1, 4))];
        let held = b.hold(exclusive(0..=0, 3).of(&token));
        let w = a.queue(exclusive(0..=0, 3).of(&token));
        let in_a = a.queue(exclusive(0..=1, 2).nested());
        let in_b = b.queue(exclusive(0..=0, 4).nested());
        let it = spawn_on([a, b], |_, b| finish(b, in_b, held_4));
        let refused = finish(a, in_a, held_2);
        a.finish(w, Exclusive);
        drop(held);
        assert!(refused != it.join().unwrap(), "one and only one");
        assert_idle(stages);
    });
}

/// A hold of byte 0 that is the calling thread's own, which counts it.
fn hold_as_thread(stage: &Stage) -> Held {
    let asker = owner::enter();
    let ask = Ask::new(&stage.state, ByteRange::new(0..=0), Exclusive, &asker);
    // SAFETY: each model keeps its stage until all its threads have ended.
    match unsafe { grant::enter(&stage.state, &ask, asker.visitor, None) } {
        Doorway::Granted(held) => held,
        Doorway::Queued(_) => panic!("it waits, and should not"),
    }
}

/// Property: a thread that waits in a call for a task's request is held up by it, so that of two that cross one is
/// refused. Shape: both were queued; the task's is enlisted, and found among the thread's, while the other may be
/// searching. Bound 4.
#[test]
fn a_thread_that_waits_as_a_task_is_found() {
    check(4, || {
        let stages @ [a, b] = &Stage::two();
        let [held_a, held_b] = [hold_as_thread(a), b.hold(exclusive(0..=0, 41))];
        // Has nothing else: a task.
        let in_b = b.queue(exclusive(0..=0, 42));
        let in_a = a.queue(exclusive(0..=0, 41).nested());
        let it = spawn_on([a, b], |a, _| finish(a, in_a, held_b));
        let refused = finish(b, in_b, held_a);
        owner::leave();
        assert!(refused != it.join().unwrap(), "one and only one");
        assert_idle(stages);
    });
}

/// Property: of two searches that come to one another's lock, one is made, and the other one after it, by who gives up
/// meanwhile or not. Shape: no cycle; each waits for one who is blocked in the other's lock. Bound 3.
#[test]
fn two_searches_that_meet_are_both_made() {
    check(3, || {
        let stages @ [a, b] = &Stage::two();
        let (before_a, before_b) = (a.hold(exclusive(1..=1, 6)), b.hold(exclusive(1..=1, 7)));
        let [held_4, held_5] = [a.hold(exclusive(0..=0, 4)), b.hold(exclusive(0..=0, 5))];
        let (of_4, of_5) = (b.queue(exclusive(1..=1, 4).nested()), a.queue(exclusive(1..=1, 5).nested()));
        let (in_a, in_b) = (a.queue(exclusive(0..=0, 2).nested()), b.queue(exclusive(0..=0, 3).nested()));
        let it = spawn_on([a, b], |_, b| {
            drop((of_4, held_4));
            b.finish(in_b, Exclusive);
        });
        drop((of_5, held_5));
        a.finish(in_a, Exclusive);
        it.join().unwrap();
        drop((before_a, before_b));
        assert_idle(stages);
    });
}

/// The same; shape: the other one is a task's hold that is handed over to a token meanwhile, which then asks. Bound 3.
#[test]
fn a_hold_that_is_handed_over_is_found() {
    check(3, || {
        let stages @ [a, b] = &Stage::two();
        let [held_a, held_b] = [a.hold(exclusive(0..=0, 2)), b.hold(exclusive(0..=0, 3))];
        let in_b = b.queue(exclusive(0..=0, 2).nested());
        let it = spawn_on([a, b], |a, _| {
            let token = Owner::of_task(exclusive(0..=0, 3).asker().owner);
            if held_b.hand_over(token.id()) {
                wait::deliver();
            }
            let result = a.ask(&exclusive(0..=0, 3).of(&token)).map(|held| a.release(held, Exclusive));
            drop(held_b);
            is_refused(&result)
        });
        let refused = finish(b, in_b, held_a);
        assert!(refused != it.join().unwrap(), "one and only one");
        assert_idle(stages);
    });
}

/// Property: a request that leaves the queue while a search looks at it leaves nothing behind, and nobody hangs; who is
/// refused was in a cycle at some moment. Shape: of two that cross, one is cancelled. Bound 4.
#[test]
fn a_cancel_races_with_a_search() {
    check(4, || {
        let stages @ [a, b] = &Stage::two();
        let [(held_a, in_b), (held_b, in_a)] = crossed(a, b);
        let it = spawn_on([a, b], |_, _| {
            drop(in_a);
            drop(held_b);
        });
        finish(b, in_b, held_a);
        it.join().unwrap();
        assert_idle(stages);
    });
}

/// The same; shape: one has a deadline, and searches too. Bound 3.
#[test]
fn a_deadline_races_with_a_search() {
    check(3, || {
        let stages @ [a, b] = &Stage::two();
        let [(held_a, in_b), (held_b, in_a)] = crossed(a, b);
        let it = spawn_on([a, b], |a, _| {
            let result = in_a.wait_until(soon()).map(|holds| {
                a.byte.touch(Exclusive);
                drop(holds);
            });
            drop(held_b);
            is_refused(&result)
        });
        let refused = [finish(b, in_b, held_a), it.join().unwrap()];
        assert_ne!(refused, [true; 2], "both refused");
        assert_idle(stages);
    });
}

/// Property: an owner that holds bytes passes who is queued for them, and is never refused. Shape: add, and add again;
/// a blocker was queued between. Bound 3.
#[test]
fn a_nested_request_passes_who_waits_for_its_owner() {
    check(3, || {
        let stage = Stage::with_child();
        let held = stage.hold(add(0..=0, 2));
        let waiter = stage.queue(block(0..=MIDDLE, 3));
        let it = spawn_on([&stage, &stage], |stage, _| stage.finish(waiter, Exclusive));
        let more = stage.acquire(&add(0..=0, 2).nested());
        stage.byte.touch(Add);
        drop(more);
        stage.release(held, Add);
        it.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: of two, one who is let past the other and the other one, never both hold. Shape: the other's owner, a
/// token, also waits for who passes; else nothing keeps the other from being granted. Bound 2.
#[test]
fn a_pass_races_with_the_grant() {
    check(2, || {
        let stages @ [a, b] = &Stage::two();
        let token = Owner::new();
        let held = b.hold(exclusive(0..=0, 2));
        let behind = b.queue(exclusive(0..=0, 3).of(&token));
        let before = a.hold(add(0..=0, 4));
        let w = a.queue(exclusive(0..=0, 3).of(&token));
        drop(before);
        let z = a.queue(add(0..=0, 2).nested());
        let it = spawn_on([a, b], |a, _| a.finish(w, Exclusive));
        // Refused if the other was granted before: its owner waits.
        if let Ok(holds) = z.wait() {
            a.byte.touch(Add);
            drop(holds);
        }
        it.join().unwrap();
        drop(behind);
        drop(held);
        assert_idle(stages);
    });
}

/// A batch of `c` and `a`, which waits for a token that holds `c` and is queued, in `b`, behind owner 2. So a nested
/// request of owner 2, `z`, which is queued behind the batch in `a`, passes it if it is not too late.
struct Passable {
    /// Of owner 2, in `b`.
    held: Held,
    /// Of the token, in `b`.
    behind: Waiter,
    /// Of the token, in `c`: another activity may let go of it.
    in_front: Held,
    batch: Waiter,
    z: Waiter,
}

impl Passable {
    fn new(a: &Stage, b: &Stage, c: &Stage) -> Passable {
        let token = Owner::new();
        let held = b.hold(exclusive(0..=0, 2));
        let behind = b.queue(exclusive(0..=0, 3).of(&token));
        let in_front = c.hold(add(0..=0, 2).of(&token));
        let batch = queue_batch(&[(c, exclusive(0..=0, 3)), (a, exclusive(0..=0, 3))]);
        let z = a.queue(add(0..=0, 2).nested());
        Passable { held, behind, in_front, batch, z }
    }
}

/// The same; shape: the other is a batch, whose words follow its decision, and what it waits for is released. Bound 2.
#[test]
fn a_pass_races_with_the_decision_of_a_batch() {
    check(2, || {
        let stages @ [a, b, c] = &[Stage::new(), Stage::new(), Stage::new()];
        let Passable { held, behind, in_front, batch, z } = Passable::new(a, b, c);
        let it = spawn_on([a, b], |a, _| {
            drop(in_front);
            let holds = batch.wait().unwrap();
            a.byte.touch(Exclusive);
            drop(holds);
        });
        a.finish(z, Add);
        it.join().unwrap();
        drop(behind);
        drop(held);
        assert_idle(stages);
    });
}

/// Property: a batch that was passed in one part holds none of the others. Shape: who passed asks for those too. Bound 2.
#[test]
fn a_batch_that_is_passed_holds_nothing() {
    check(2, || {
        let stages @ [a, b, c] = &[Stage::new(), Stage::new(), Stage::new()];
        let Passable { held, behind, in_front, batch, z } = Passable::new(a, b, c);
        let it = spawn_on([a, c], |a, c| {
            drop(in_front);
            let holds = batch.wait().unwrap();
            a.byte.touch(Exclusive);
            c.byte.touch(Exclusive);
            drop(holds);
        });
        let passed = z.finish();
        let more = c.acquire(&add(0..=0, 2).nested());
        c.release(more, Add);
        a.release(passed, Add);
        it.join().unwrap();
        drop(behind);
        drop(held);
        assert_idle(stages);
    });
}

/// A token is first in the queue for byte 0 of `a`, as `w`, and asks owner 5 for byte 0 of `b`, as `r`. Owner 5 is to
/// ask for byte 0 of `a`, behind `w`, and is then let past, by the search of `r`.
struct Needed {
    w: Waiter,
    r: Waiter,
    held: Held,
}

fn needed(a: &Stage, b: &Stage) -> Needed {
    let token = Owner::new();
    let before = a.hold(add(0..=0, 4));
    let w = a.queue(exclusive(0..=0, 3).of(&token));
    drop(before);
    let held = b.hold(exclusive(0..=0, 5));
    let r = b.queue(exclusive(0..=0, 2).of(&token));
    Needed { w, r, held }
}

/// Property: as [`a_pass_races_with_the_grant`], for one who is let past by another's search and looks for itself
/// meanwhile. Three threads, bound 1.
#[test]
fn a_pass_for_another_races_with_the_grant() {
    check(1, || {
        let stages @ [a, b] = &Stage::two();
        let Needed { w, r, held } = needed(a, b);
        let z = a.queue(add(0..=0, 5).nested());
        let one = spawn_on([a, b], |a, _| finish_in(a, z, Add, held));
        let two = spawn_on([a, b], |a, _| a.finish(w, Exclusive));
        let refused = [is_refused(&r.wait()), one.join().unwrap()];
        two.join().unwrap();
        assert_ne!(refused, [true; 2], "both refused");
        assert_idle(stages);
    });
}

/// The same; shape: the one who is passed looks first, then it is passed, and then the one who passes looks. Three
/// threads, bound 2.
#[test]
fn a_pass_for_another_who_looks_races_with_the_grant() {
    check(2, || {
        let stages @ [a, b] = &Stage::two();
        let Needed { w, r, held } = needed(a, b);
        let z = a.queue(add(0..=0, 5).nested());
        let search = spawn_on([a, b], |_, _| is_refused(&r.wait()));
        let it = spawn_on([a, b], |a, _| finish_in(a, z, Add, held));
        a.finish(w, Exclusive);
        let refused = [search.join().unwrap(), it.join().unwrap()];
        assert_ne!(refused, [true; 2], "both refused");
        assert_idle(stages);
    });
}

/// The same; shape: who is let past is in its doorway, and the search is made by who then looks whether it can be
/// granted. Bound 2.
#[test]
fn a_pass_for_one_in_its_doorway_races_with_the_grant() {
    check(2, || {
        let stages @ [a, b] = &Stage::two();
        let Needed { w, r, held } = needed(a, b);
        let it = spawn_on([a, b], |a, _| {
            let result = a.ask(&add(0..=0, 5).nested()).map(|held| a.release(held, Add));
            drop(held);
            is_refused(&result)
        });
        // It searches, and then its time is up.
        let refused = is_refused(&r.wait_until(soon()));
        a.finish(w, Exclusive);
        let refused = [refused, it.join().unwrap()];
        assert_ne!(refused, [true; 2], "both refused");
        assert_idle(stages);
    });
}

/// Property: what a token is just being granted counts for a search, and what it is just asking too: no cycle is
/// missed. Shape: a token waits for owner 2, and is granted what owner 2 asks for. Bound 3.
#[test]
fn a_grant_to_a_token_races_with_a_search() {
    check(3, || {
        let stages @ [a, b] = &Stage::two();
        let token = Owner::new();
        let held = a.hold(exclusive(0..=0, 2));
        let waiter = a.queue(exclusive(0..=0, 3).of(&token));
        let it = spawn_on([a, b], move |a, b| {
            let more = b.acquire(&exclusive(0..=0, 3).of(&token));
            finish(a, waiter, more)
        });
        let result = b.ask(&exclusive(0..=0, 2).nested()).map(|held| b.release(held, Exclusive));
        drop(held);
        let refused = [is_refused(&result), it.join().unwrap()];
        assert_ne!(refused, [true; 2], "both refused");
        assert_idle(stages);
    });
}

/// The same; shape: the token's two requests are made by two threads. Three threads, bound 2.
#[test]
fn two_requests_of_a_token_race_with_a_search() {
    check(2, || {
        let stages @ [a, b] = &Stage::two();
        let token = Owner::new();
        let held = a.hold(exclusive(0..=0, 2));
        let its = token.clone();
        let one = spawn_on([a, b], move |a, _| {
            let result = a.ask(&exclusive(0..=0, 3).of(&its)).map(|held| a.release(held, Exclusive));
            is_refused(&result)
        });
        let two = spawn_on([a, b], move |_, b| {
            let more = b.acquire(&exclusive(0..=0, 3).of(&token));
            let refused = one.join().unwrap();
            b.release(more, Exclusive);
            refused
        });
        let result = b.ask(&exclusive(0..=0, 2).nested()).map(|held| b.release(held, Exclusive));
        drop(held);
        let refused = [is_refused(&result), two.join().unwrap()];
        assert_ne!(refused, [true; 2], "both refused");
        assert_idle(stages);
    });
}

/// Property: nobody is refused for a hold that is none. Shape: a token, one request of which waits for owner 2, is just
/// asking for what owner 2 asks for, and will wait, for a third owner. Bound 2.
#[test]
fn a_request_of_a_token_in_its_doorway_is_no_hold() {
    check(2, || {
        let stages @ [a, b] = &[Stage::new(), Stage::with_child()];
        let token = Owner::new();
        let held = a.hold(exclusive(0..=0, 2));
        let for_2 = a.queue(exclusive(0..=0, 3).of(&token));
        let beside = b.hold(exclusive(MIDDLE..=MIDDLE, 4));
        let it = spawn_on([a, b], move |_, b| b.queue(exclusive(0..=MIDDLE, 5).of(&token)));
        b.cycle(exclusive(0..=0, 2).nested());
        drop(it.join().unwrap());
        drop((for_2, beside, held));
        assert_idle(stages);
    });
}

/// Property: nobody is refused for a cycle that never stood. Shape: three owners; what the first waits for is given
/// back before the last begins to wait. Bound 2.
#[test]
fn a_cycle_that_never_stood_is_none() {
    check(2, || {
        let stages @ [a, b, c] = &[Stage::new(), Stage::new(), Stage::new()];
        let [two, three] = [Owner::new(), Owner::new()];
        let held = a.hold(exclusive(0..=0, 2));
        let in_b = b.hold(exclusive(0..=0, 3).of(&two));
        let in_c = c.hold(exclusive(0..=0, 5).of(&three));
        let for_c = c.queue(exclusive(0..=0, 2).of(&two));
        let it = spawn_on([a, b], move |a, _| {
            drop(in_b);
            a.queue(exclusive(0..=0, 5).of(&three))
        });
        b.cycle(exclusive(0..=0, 2).nested());
        drop(it.join().unwrap());
        drop((for_c, in_c, held));
        assert_idle(stages);
    });
}

/// The same; shape: and its slot is taken again, in the same mode, by somebody who is in nobody's way. Bound 2.
#[test]
fn a_cycle_through_a_slot_that_changed_hands_is_none() {
    check(2, || {
        let stages @ [a, b, c] = &[Stage::new(), Stage::new(), Stage::new()];
        let [two, three] = [Owner::new(), Owner::new()];
        let held = a.hold(exclusive(0..=0, 2));
        let in_b = b.hold(exclusive(0..=0, 3).of(&two));
        let in_c = c.hold(exclusive(0..=0, 5).of(&three));
        let for_c = c.queue(exclusive(0..=0, 2).of(&two));
        let it = spawn_on([a, b], move |a, b| {
            drop(in_b);
            let elsewhere = b.hold(exclusive(MIDDLE..=MIDDLE, 7));
            (a.queue(exclusive(0..=0, 5).of(&three)), elsewhere)
        });
        b.cycle(exclusive(0..=0, 2).nested());
        drop(it.join().unwrap());
        drop((for_c, in_c, held));
        assert_idle(stages);
    });
}

/// Property: a search does not miss a hold that moves. Shape: a token waits for owner 2, since long; owner 2 is queued
/// for what the token holds, and another activity of the token splits that, so that a scan can miss both halves (see
/// `convert`). Bound 2.
#[test]
fn a_search_does_not_miss_a_split() {
    check(2, || {
        let stages @ [a, b] = &[Stage::new(), Stage::with_child()];
        owner::visit();
        let token = Owner::new();
        let of_2 = a.hold(exclusive(0..=0, 2));
        let mut of_token = b.hold(exclusive(0..=MIDDLE, 3).of(&token));
        let for_2 = a.queue(exclusive(0..=0, 3).of(&token));
        let waiter = b.queue(exclusive(1..=1, 2).nested());
        let it = spawn_on([a, b], move |_, _| {
            let result = waiter.wait();
            drop(of_2);
            is_refused(&result)
        });
        // SAFETY: the stages stay until all threads have ended.
        let other = unsafe { split_off(&b.state, &of_token, ByteRange::new(1..=MIDDLE)) };
        shrink(&mut of_token, ByteRange::new(0..=0));
        assert!(it.join().unwrap(), "it closed the cycle");
        a.finish(for_2, Exclusive);
        drop(other);
        drop(of_token);
        assert_idle(stages);
    });
}

/// The same; shape: the other activity is the other thread. Bound 1.
#[test]
fn a_search_does_not_miss_a_split_by_another_thread() {
    check(1, || {
        let stages @ [a, b] = &[Stage::new(), Stage::with_child()];
        owner::visit();
        let token = Owner::new();
        let of_2 = a.hold(exclusive(0..=0, 2));
        let mut of_token = b.hold(exclusive(0..=MIDDLE, 3).of(&token));
        let for_2 = a.queue(exclusive(0..=0, 3).of(&token));
        let waiter = b.queue(exclusive(1..=1, 2).nested());
        let it = spawn_on([a, b], move |_, b| {
            // SAFETY: the stages stay until all threads have ended.
            let other = unsafe { split_off(&b.state, &of_token, ByteRange::new(1..=MIDDLE)) };
            shrink(&mut of_token, ByteRange::new(0..=0));
            (of_token, other)
        });
        assert!(is_refused(&waiter.wait()), "it closed the cycle");
        drop(of_2);
        a.finish(for_2, Exclusive);
        drop(it.join().unwrap());
        assert_idle(stages);
    });
}
