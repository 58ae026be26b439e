//! Owners: nested requests, passing, and deadlocks that are answered. The patterns are those of a page cache, and each is played
//! by futures that are polled by hand, in the one order that makes the cycle.

mod common;

use common::poll::Hand;
use spanlock::{Acquire, AcquireError, Batch, ByOwner, ByteRange, Deadlock, Guard, Mode, Owner, RangeLock};
use std::task::Poll;

type OwnGuard<'a> = Guard<&'a RangeLock, ByOwner>;
type OwnHand<'a> = Hand<Acquire<&'a RangeLock, ByOwner>>;

fn hand<'a>(lock: &'a RangeLock, owner: &Owner, range: std::ops::Range<u64>, mode: Mode) -> OwnHand<'a> {
    Hand::new(lock.request(range, mode).owner(owner))
}

fn hold<'a>(lock: &'a RangeLock, owner: &Owner, range: std::ops::Range<u64>, mode: Mode) -> OwnGuard<'a> {
    hand(lock, owner, range, mode).ready().expect("it is no cycle")
}

fn waits<'a>(lock: &'a RangeLock, owner: &Owner, range: std::ops::Range<u64>, mode: Mode) -> OwnHand<'a> {
    let mut hand = hand(lock, owner, range, mode);
    hand.pending();
    hand
}

fn deadlock(lock: &RangeLock, owner: &Owner, range: std::ops::Range<u64>, mode: Mode) -> Deadlock {
    match hand(lock, owner, range, mode).poll() {
        Poll::Ready(Err(AcquireError::Deadlock(deadlock))) => deadlock,
        other => panic!("a deadlock was expected, not {other:?}"),
    }
}

use Mode::{Add, Block};

#[test]
fn a_nested_add_passes_a_queued_block_that_waits_for_its_owner() {
    let a = RangeLock::new();
    let (t1, t2) = (Owner::new(), Owner::new());
    let outer = hold(&a, &t1, 0..8, Add);
    let mut queued = waits(&a, &t2, 0..8, Block);
    let inner = hold(&a, &t1, 0..8, Add);
    drop(outer);
    queued.pending();
    drop(inner);
    drop(queued.ready().unwrap());
}

#[test]
fn a_nested_add_elsewhere_passes_a_queued_block_of_both() {
    let a = RangeLock::new();
    let (t1, t2) = (Owner::new(), Owner::new());
    let outer = hold(&a, &t1, 0..4, Add);
    let mut queued = waits(&a, &t2, 0..8, Block);
    let inner = hold(&a, &t1, 4..8, Add);
    drop((outer, inner));
    drop(queued.ready().unwrap());
}

#[test]
fn who_waits_for_a_holder_lets_it_pass_a_third() {
    let (a, b) = (RangeLock::new(), RangeLock::new());
    let (t1, t2, t3) = (Owner::new(), Owner::new(), Owner::new());
    let t1_a = hold(&a, &t1, 0..8, Add);
    let t2_b = hold(&b, &t2, 0..8, Block);
    let mut t1_b = waits(&b, &t1, 0..8, Add);
    let mut t3_a = waits(&a, &t3, 0..8, Block);
    let t2_a = hold(&a, &t2, 0..8, Add); // passes t3
    drop((t2_a, t2_b));
    let t1_b = t1_b.ready().unwrap();
    t3_a.pending();
    drop((t1_a, t1_b));
    drop(t3_a.ready().unwrap());
}

#[test]
fn crossed_files_are_a_deadlock_for_who_comes_second() {
    let (a, b) = (RangeLock::named("a"), RangeLock::named("b"));
    let (t1, t2) = (Owner::named("one"), Owner::named("two"));
    let t1_a = hold(&a, &t1, 0..8, Block);
    let t2_b = hold(&b, &t2, 0..8, Block);
    let mut t1_b = waits(&b, &t1, 0..4, Add);
    let error = deadlock(&a, &t2, 4..8, Add);
    let [first, second] = error.waits() else { panic!("two waits: {error}") };
    assert_eq!((first.owner.id, &*first.lock, first.range, first.mode), (t2.id(), "a", ByteRange::new(4..8), Add));
    assert_eq!((first.held, first.held_mode), (ByteRange::new(0..8), Block));
    assert_eq!((second.owner.name.as_deref(), &*second.lock, second.range), (Some("one"), "b", ByteRange::new(0..4)));
    assert_eq!(
        error.to_string(),
        format!(
            "deadlock: 2 owners wait for one another\n  \
             {} \"two\" asks a for 4..8 (Add); {} \"one\" holds 0..8 (Block)\n  \
             {} \"one\" asks b for 0..4 (Add); {} \"two\" holds 0..8 (Block)",
            t2.id(),
            t1.id(),
            t1.id(),
            t2.id()
        )
    );
    // The remedy: both together.
    let mut both = Hand::new(Batch::new().regain(t2_b).add(&a, 4..8).owner(&t2));
    both.pending();
    let t1_b = t1_b.ready().unwrap();
    drop((t1_a, t1_b));
    assert_eq!(both.ready().unwrap().len(), 2);
}

#[test]
fn crossed_ranges_of_one_file_are_a_deadlock() {
    let a = RangeLock::new();
    let (t1, t2) = (Owner::new(), Owner::new());
    let t1_low = hold(&a, &t1, 0..4, Block);
    let t2_high = hold(&a, &t2, 4..8, Block);
    let mut t1_high = waits(&a, &t1, 4..8, Add);
    deadlock(&a, &t2, 0..4, Add);
    drop(t2_high);
    drop(t1_high.ready().unwrap());
    drop(t1_low);
}

#[test]
fn two_that_hold_the_same_and_want_more_are_a_deadlock() {
    let a = RangeLock::new();
    let (t1, t2) = (Owner::new(), Owner::new());
    let t1_block = hold(&a, &t1, 0..8, Block);
    let t2_block = hold(&a, &t2, 0..8, Block);
    let mut t1_add = waits(&a, &t1, 0..8, Add);
    deadlock(&a, &t2, 0..8, Add);
    drop(t2_block);
    drop((t1_add.ready().unwrap(), t1_block));
}
