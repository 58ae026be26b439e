//! Announced requests: what is clear nobody has had meanwhile, whoever comes, becomes more or is let past in the same
//! moment.
//!
//! Who is announced reads while others write: so they meet at a number that all access Relaxed, which only the lock,
//! and the asking, may order.

use super::check;
use super::stage::{Ask, Stage, add, exclusive, spawn};
use crate::facts::mode::Mode::{Add, Exclusive};
use crate::facts::owner;
use crate::facts::range::ByteRange;
use crate::platform::sync::AtomicU64;
use crate::platform::sync::Ordering::{Acquire, Relaxed, Release};
use crate::protocol::announce::{self, Announced, Entered};
use crate::protocol::convert::convert;
use crate::protocol::grant::Held;
use std::sync::Arc;

impl Stage {
    /// For one whom somebody is in the way of.
    fn announce(&self, ask: &Ask) -> Announced {
        let asker = ask.asker();
        // SAFETY: each model keeps its stage until all its threads have ended.
        match unsafe { announce::announce(&self.state, &ask.ask_in(&self.state, &asker), asker.visitor) } {
            Entered::Granted(_) => panic!("it was granted, and should queue"),
            Entered::Queued(announced) => announced,
        }
    }
}

fn byte(at: u64) -> ByteRange {
    ByteRange::new(at..=at)
}

/// What a holder of byte 0 changes in two steps.
#[derive(Clone)]
struct Number(Arc<AtomicU64>);

impl Number {
    fn new() -> Number {
        Number(Arc::new(AtomicU64::new(0)))
    }

    fn change(&self) {
        self.0.store(1, Relaxed);
        self.0.store(2, Relaxed);
    }

    /// Reads it twice. If byte 0 was clear meanwhile, nobody has changed it.
    fn read(&self, announced: &Announced) {
        let [first, second] = [self.0.load(Relaxed), self.0.load(Relaxed)];
        if announced.is_clear(byte(0)) {
            assert!(first == second && first != 1, "somebody was there: {first}, then {second}");
        }
    }
}

/// Property: who comes at the same time is noted, or waits, or has gone. Shape: he is not there yet, and somebody else
/// is in the way. Bound 3.
#[test]
fn who_comes_is_noted_or_waits() {
    check(3, || {
        let (stage, number) = (Stage::new(), Number::new());
        let far = stage.hold(exclusive(1..=1, 2));
        let its = number.clone();
        let it = spawn(&stage, move |stage| {
            let held = stage.acquire(&exclusive(0..=0, 3));
            its.change();
            drop(held);
        });
        let announced = stage.announce(&add(0..=1, 4));
        number.read(&announced);
        drop(announced);
        it.join().unwrap();
        drop(far);
        stage.assert_idle();
    });
}

/// The same; shape: in a tree with a child, where he is placed below. Bound 3.
#[test]
fn who_comes_below_is_noted_or_waits() {
    check(3, || {
        let (stage, number) = (Stage::with_child(), Number::new());
        let far = stage.hold(exclusive(1 << 63..=1 << 63, 2));
        let its = number.clone();
        let it = spawn(&stage, move |stage| {
            let held = stage.acquire(&exclusive(0..=0, 3));
            its.change();
            drop(held);
        });
        let announced = stage.announce(&add(0..=1 << 63, 4));
        number.read(&announced);
        drop(announced);
        it.join().unwrap();
        drop(far);
        stage.assert_idle();
    });
}

/// The same of one who is in his doorway, and may hold. Bound 4.
#[test]
fn who_may_hold_is_noted() {
    check(4, || {
        let (stage, number) = (Stage::new(), Number::new());
        let far = stage.hold(exclusive(1..=1, 2));
        let live = stage.stop_in_doorway(&exclusive(0..=0, 3));
        let its = number.clone();
        let it = spawn(&stage, move |_| {
            its.change();
            drop(Held(live));
        });
        let announced = stage.announce(&add(0..=1, 4));
        number.read(&announced);
        drop(announced);
        it.join().unwrap();
        drop(far);
        stage.assert_idle();
    });
}

/// Property: what holders did who had gone is known, and who comes when it has left knows that all was read. Plain
/// memory. Bound 3.
#[test]
fn what_is_clear_can_be_read() {
    check(3, || {
        let stage = Stage::new();
        let far = stage.hold(exclusive(1..=1, 2));
        let held = stage.hold(exclusive(0..=0, 3));
        let it = spawn(&stage, |stage| {
            stage.release(held, Exclusive);
            stage.cycle(exclusive(0..=0, 3));
        });
        let announced = stage.announce(&add(0..=1, 4));
        if announced.is_clear(byte(0)) {
            stage.byte.touch(Add);
        }
        drop(announced);
        it.join().unwrap();
        drop(far);
        stage.assert_idle();
    });
}

/// One who holds byte 1 asks for byte 0, too, in the way of one that is announced; he is let past it.
fn let_past(stage: &Stage, number: &Number) {
    let held = stage.ask(&add(0..=0, 2).nested()).expect("he is let past");
    number.change();
    drop(held);
}

/// Property: who is let past is found. Shape: the other one was announced before. Bound 4.
#[test]
fn who_is_let_past_is_found() {
    check(4, || {
        let (stage, number) = (Stage::new(), Number::new());
        let held = stage.hold(add(1..=1, 2));
        let announced = stage.announce(&exclusive(0..=1, 4));
        let its = number.clone();
        let it = spawn(&stage, move |stage| let_past(stage, &its));
        number.read(&announced);
        it.join().unwrap();
        assert!(!announced.is_clear(byte(0)), "he was there");
        drop((announced, held));
        stage.assert_idle();
    });
}

/// The same; shape: it is announced meanwhile. Bound 3.
#[test]
fn who_is_let_past_at_the_announcement_is_found() {
    check(3, || {
        let (stage, number) = (Stage::new(), Number::new());
        let held = stage.hold(add(1..=1, 2));
        let its = number.clone();
        let it = spawn(&stage, move |stage| let_past(stage, &its));
        let announced = stage.announce(&exclusive(0..=1, 4));
        number.read(&announced);
        it.join().unwrap();
        drop((announced, held));
        stage.assert_idle();
    });
}

/// One who holds byte 1 comes to hold byte 0, too.
fn extend(stage: &Stage, mut held: Held, number: &Number) {
    // SAFETY: each model keeps its stage until all its threads have ended.
    if unsafe { convert(&stage.state, &mut held, ByteRange::new(0..=1), Add) } {
        number.change();
    }
    drop(held);
}

/// Property: who becomes more is found. Shape: the other one was announced before. Bound 4.
#[test]
fn who_becomes_more_is_found() {
    check(4, || {
        let (stage, number) = (Stage::new(), Number::new());
        owner::visit();
        let held = stage.hold(add(1..=1, 2));
        let announced = stage.announce(&exclusive(0..=1, 4));
        let its = number.clone();
        let it = spawn(&stage, move |stage| extend(stage, held, &its));
        number.read(&announced);
        it.join().unwrap();
        assert!(!announced.is_clear(byte(0)), "he was there");
        drop(announced);
        stage.assert_idle();
    });
}

/// The same; shape: it is announced meanwhile; somebody else keeps it from being granted. Bound 3.
#[test]
fn who_becomes_more_at_the_announcement_is_found() {
    check(3, || {
        let (stage, number) = (Stage::new(), Number::new());
        owner::visit();
        let other = stage.hold(add(1..=1, 3));
        let held = stage.hold(add(1..=1, 2));
        let its = number.clone();
        let it = spawn(&stage, move |stage| extend(stage, held, &its));
        let announced = stage.announce(&exclusive(0..=1, 4));
        number.read(&announced);
        it.join().unwrap();
        drop((announced, other));
        stage.assert_idle();
    });
}

/// Property: who waits behind one that leaves is woken, and one that waits after all is woken in its turn. Three
/// threads, bound 2.
#[test]
fn who_leaves_and_who_waits_wake_and_are_woken() {
    check(2, || {
        let stage = Stage::new();
        let held = stage.hold(exclusive(0..=0, 2));
        let [first, second] = [exclusive(0..=0, 3), exclusive(0..=0, 4)].map(|ask| stage.announce(&ask));
        let last = stage.queue(exclusive(0..=0, 5));
        let one = spawn(&stage, move |stage| stage.finish(first.into_waiter(), Exclusive));
        let two = spawn(&stage, |stage| stage.finish(last, Exclusive));
        drop(second);
        stage.release(held, Exclusive);
        one.join().unwrap();
        two.join().unwrap();
        stage.assert_idle();
    });
}

/// Property: what is done under a hold by another thread than was granted it, is found too. Shape: who becomes more
/// tells a second thread, which writes in his place. Three threads, bound 3.
#[test]
fn who_becomes_more_and_has_another_write_is_found() {
    check(3, || {
        let (stage, number, told) = (Stage::new(), Number::new(), Arc::new(AtomicU64::new(0)));
        owner::visit();
        let mut held = stage.hold(add(1..=1, 2));
        let announced = stage.announce(&exclusive(0..=1, 4));
        let tells = told.clone();
        let it = spawn(&stage, move |stage| {
            // SAFETY: each model keeps its stage until all its threads have ended.
            assert!(unsafe { convert(&stage.state, &mut held, ByteRange::new(0..=1), Add) });
            tells.store(1, Release);
            held
        });
        let its = number.clone();
        let writer = spawn(&stage, move |_| {
            if told.load(Acquire) == 1 {
                its.change();
            }
        });
        number.read(&announced);
        writer.join().unwrap();
        drop((it.join().unwrap(), announced));
        stage.assert_idle();
    });
}

/// Property: what another thread has read for the one who asks, is as if he had read it. Shape: it hands on what it has
/// seen, and he asks. Three threads, bound 3.
#[test]
fn who_has_another_read_hears_of_who_became_more() {
    check(3, || {
        let (stage, number, seen) = (Stage::new(), Number::new(), Arc::new(AtomicU64::new(0)));
        owner::visit();
        let held = stage.hold(add(1..=1, 2));
        let announced = stage.announce(&exclusive(0..=1, 4));
        let its = number.clone();
        let it = spawn(&stage, move |stage| extend(stage, held, &its));
        let sees = seen.clone();
        let reader = spawn(&stage, move |_| {
            let value = number.0.load(Relaxed);
            sees.store(value, Release);
        });
        if seen.load(Acquire) != 0 {
            assert!(!announced.is_clear(byte(0)), "somebody was there");
        }
        reader.join().unwrap();
        it.join().unwrap();
        drop(announced);
        stage.assert_idle();
    });
}

/// The same as the first; shape: who was let past tells the second thread. Bound 2.
#[test]
fn who_is_let_past_and_has_another_write_is_found() {
    check(2, || {
        let (stage, number, told) = (Stage::new(), Number::new(), Arc::new(AtomicU64::new(0)));
        let held = stage.hold(add(1..=1, 2));
        let announced = stage.announce(&exclusive(0..=1, 4));
        let tells = told.clone();
        let it = spawn(&stage, move |stage| {
            let held = stage.ask(&add(0..=0, 2).nested()).expect("he is let past");
            tells.store(1, Release);
            held
        });
        let its = number.clone();
        let writer = spawn(&stage, move |_| {
            if told.load(Acquire) == 1 {
                its.change();
            }
        });
        number.read(&announced);
        writer.join().unwrap();
        drop((it.join().unwrap(), announced, held));
        stage.assert_idle();
    });
}
