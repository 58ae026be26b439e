//! Promise: conversions. A guard can give up a part of what it holds, and become more if nobody is in the way, and
//! never lets go of what it keeps. Whoever can go on is woken at once; nobody is overtaken.
//!
//! `SPANLOCK_STRESS_MS` sets how long each stress test goes on.

mod common;

use common::poll::Hand;
use common::table::{As, Table};
use common::watch::Watchdog;
use common::{lasting, together};
use fastrand::Rng;
use spanlock::{
    Acquire, AcquireError, ArcRangeGuard, Batch, ByteRange, Guard, LockRef, Mode, Nesting, OwnedBy, Owner, RangeGuard,
    RangeLock, SendRangeGuard,
};
use std::fmt::Debug;
use std::ops::{Range, RangeBounds};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use Mode::{Add, Block, Exclusive};

/// A task's guard, granted at once.
#[track_caller]
fn hold(lock: &RangeLock, range: impl RangeBounds<u64>, mode: Mode) -> SendRangeGuard<'_> {
    Hand::new(lock.request(range, mode)).ready()
}

/// A task that waits.
#[track_caller]
fn waits(lock: &RangeLock, range: impl RangeBounds<u64>, mode: Mode) -> Hand<Acquire<&RangeLock>> {
    let mut hand = Hand::new(lock.request(range, mode));
    hand.pending();
    hand
}

/// It was woken, and is granted.
#[track_caller]
fn goes_on<'a>(hand: &mut Hand<Acquire<&'a RangeLock>>) -> SendRangeGuard<'a> {
    assert!(hand.woken(), "nobody woke it");
    hand.ready()
}

/// Whether a stranger would get this at once.
fn is_free(lock: &RangeLock, range: impl RangeBounds<u64>, mode: Mode) -> bool {
    Hand::new(lock.request(range, mode)).poll().is_ready()
}

/// The modes in which strangers get this at once.
fn open_to(lock: &RangeLock, range: impl RangeBounds<u64> + Clone) -> Vec<Mode> {
    Mode::ALL.into_iter().filter(|&mode| is_free(lock, range.clone(), mode)).collect()
}

#[track_caller]
fn all_free(lock: &RangeLock) {
    assert_eq!(format!("{lock:?}"), "RangeLock { holding: 0, waiting: 0, .. }");
    assert!(is_free(lock, .., Exclusive));
}

/// What a call says when it panics.
#[track_caller]
fn panics<T>(call: impl FnOnce() -> T) -> String {
    let panic = catch_unwind(AssertUnwindSafe(|| drop(call()))).expect_err("it should have panicked");
    *panic.downcast::<String>().expect("a panic with a message")
}

fn bytes(range: Range<u64>) -> ByteRange {
    ByteRange::new(range)
}

// Downgrade.

#[test]
fn a_downgrade_lets_in_who_waits_for_that_mode() {
    let lock = RangeLock::new();
    for (to, other) in [(Add, Block), (Block, Add)] {
        let mut guard = hold(&lock, 0..8, Exclusive);
        let mut first = waits(&lock, 0..1, to);
        let mut second = waits(&lock, 4..12, to);
        let mut alone = waits(&lock, 2..3, Exclusive);
        let mut against = waits(&lock, 3..4, other);
        // Behind one that goes on waiting.
        let mut behind = waits(&lock, 2..6, to);
        guard.downgrade(to);
        assert_eq!((guard.range(), guard.mode()), (bytes(0..8), to));
        let (first, second) = (goes_on(&mut first), goes_on(&mut second));
        alone.pending();
        against.pending();
        behind.pending();
        assert_eq!(open_to(&lock, 7..8), [to]);
        assert!(is_free(&lock, 0..1, to) && !is_free(&lock, 0..1, other));
        drop(guard);
        let alone = goes_on(&mut alone);
        drop((goes_on(&mut against), alone, first, second));
        drop(goes_on(&mut behind));
    }
    all_free(&lock);
}

/// A downgrade is no way to overtake: who waits for another mode first keeps those behind it waiting.
#[test]
fn a_downgrade_overtakes_nobody() {
    let lock = RangeLock::new();
    let mut guard = hold(&lock, 0..8, Exclusive);
    let mut blocker = waits(&lock, 0..8, Block);
    let mut adder = waits(&lock, 0..8, Add);
    guard.downgrade(Add);
    blocker.pending();
    adder.pending();
    drop(guard);
    let blocker = goes_on(&mut blocker);
    adder.pending();
    drop(blocker);
    drop(goes_on(&mut adder));
    all_free(&lock);
}

#[test]
fn a_downgrade_to_the_same_mode_changes_nothing() {
    let lock = RangeLock::new();
    for mode in Mode::ALL {
        let mut guard = hold(&lock, 0..8, mode);
        let before = open_to(&lock, 0..8);
        guard.downgrade(mode);
        assert_eq!(guard.mode(), mode);
        assert_eq!(open_to(&lock, 0..8), before);
    }
    all_free(&lock);
}

#[test]
fn what_is_no_downgrade_panics() {
    let lock = RangeLock::new();
    for (from, to) in [(Add, Block), (Block, Add), (Add, Exclusive), (Block, Exclusive)] {
        let mut guard = hold(&lock, 0..8, from);
        let message = panics(|| guard.downgrade(to));
        assert_eq!(
            message,
            format!(
                "a guard in mode {from} cannot be downgraded to {to}: only an exclusive one can, to add or block; try_convert may change it"
            )
        );
        assert_eq!((guard.mode(), open_to(&lock, 0..8)), (from, vec![from]), "it holds what it held");
    }
    all_free(&lock);
}

/// The same owner may hold more than the guard that is downgraded.
#[test]
fn a_downgrade_beside_another_guard_of_the_owner() {
    let lock = RangeLock::new();
    let owner = Owner::new();
    let ask = |range| lock.request(range, Exclusive).owner(&owner).wait().unwrap();
    let (outer, mut inner) = (ask(0..8), ask(4..12));
    let mut inside = waits(&lock, 6..7, Add);
    let mut outside = waits(&lock, 8..9, Add);
    inner.downgrade(Add);
    inside.pending();
    let outside = goes_on(&mut outside);
    drop(outer);
    drop((goes_on(&mut inside), outside, inner));
    all_free(&lock);
}

// Shrink.

#[test]
fn a_shrink_lets_in_who_waits_for_what_is_given_back() {
    let lock = RangeLock::new();
    for mode in Mode::ALL {
        let mut guard = hold(&lock, 0..100, mode);
        let mut head = waits(&lock, 0..10, Exclusive);
        let mut tail = waits(&lock, 90..200, Exclusive);
        let mut edge = waits(&lock, 89..90, Exclusive);
        let mut kept = waits(&lock, 40..50, Exclusive);
        let mut across = waits(&lock, 5..45, Exclusive);
        guard.shrink(10..90);
        assert_eq!((guard.range(), guard.mode()), (bytes(10..90), mode));
        let (head, tail) = (goes_on(&mut head), goes_on(&mut tail));
        [&mut edge, &mut kept, &mut across].into_iter().for_each(Hand::pending);
        // At one end, then at the other.
        guard.shrink(10..89);
        let edge = goes_on(&mut edge);
        guard.shrink(50..89);
        let kept = goes_on(&mut kept);
        drop((head, kept));
        drop((goes_on(&mut across), tail, edge));
        assert!(
            is_free(&lock, ..50, Exclusive) && is_free(&lock, 89.., Exclusive) && !is_free(&lock, 50..51, Exclusive)
        );
        assert!(!is_free(&lock, 88..89, Exclusive));
        guard.shrink(50..89);
        guard.shrink(ByteRange::EMPTY);
        assert_eq!((guard.range(), guard.mode()), (ByteRange::EMPTY, mode));
        all_free(&lock);
        drop(guard);
    }
    all_free(&lock);
}

#[test]
fn a_shrink_at_the_ends_of_all_bytes() {
    let lock = RangeLock::new();
    let mut guard = hold(&lock, .., Block);
    let mut first = waits(&lock, 0..1, Add);
    let mut last = waits(&lock, u64::MAX.., Add);
    guard.shrink(1..);
    let first = goes_on(&mut first);
    last.pending();
    guard.shrink(1..u64::MAX);
    drop((goes_on(&mut last), first));
    guard.shrink(7..8);
    guard.shrink(7..7);
    all_free(&lock);
}

/// Byte by byte from both ends, with a waiter for each byte: each is woken when its byte comes free.
#[test]
fn each_byte_is_given_back_in_its_turn() {
    let lock = RangeLock::new();
    // Deep in the tree, and at its root.
    for base in [0, (1 << 63) - 20, u64::MAX - 39] {
        let mut guard = hold(&lock, base..=base + 39, Exclusive);
        let mut waiting: Vec<_> =
            (0..40).map(|i| waits(&lock, base + i..=base + i, Mode::ALL[i as usize % 3])).collect();
        let (mut from, mut to) = (0, 39);
        while from < to {
            let byte = if (from + to) % 3 == 0 { from } else { to };
            (from, to) = if byte == from { (from + 1, to) } else { (from, to - 1) };
            guard.shrink(base + from..=base + to);
            drop(goes_on(&mut waiting[byte as usize]));
            (from..=to).for_each(|byte| waiting[byte as usize].pending());
        }
        drop(guard);
        drop(goes_on(&mut waiting[from as usize]));
    }
    all_free(&lock);
}

#[test]
fn what_is_no_part_panics() {
    let lock = RangeLock::new();
    let mut guard = hold(&lock, 10..20, Block);
    for outside in [9..20, 10..21, 0..5, 30..40, 0..100] {
        let message = panics(|| guard.shrink(outside.clone()));
        assert_eq!(message, format!("{} is not a part of 10..20, which the guard holds", bytes(outside)));
        assert_eq!((guard.range(), open_to(&lock, 10..20)), (bytes(10..20), vec![Block]), "it holds what it held");
    }
    let inverted = (std::ops::Bound::Included(15), std::ops::Bound::Excluded(12));
    assert!(panics(|| guard.shrink(inverted)).starts_with("range starts at 15 but ends at 12"));
    for at in [9, 21, 0, u64::MAX] {
        let again = hold(&lock, 10..20, Block);
        assert_eq!(panics(|| again.split(at)), format!("{at} is neither in 10..20 nor directly behind it"));
        let again = hold(&lock, 10..20, Block);
        assert!(panics(|| again.release(at..=at)).ends_with("is not a part of 10..20, which the guard holds"));
    }
    // Those were moved into the call, and are released as by any panic.
    drop(guard);
    all_free(&lock);
}

// Split and release.

#[test]
fn halves_of_a_split_are_guards_of_their_own() {
    let lock = RangeLock::new();
    for mode in Mode::ALL {
        for head_first in [true, false] {
            let guard = hold(&lock, 10..20, mode);
            let mut low = waits(&lock, 0..13, Exclusive);
            let mut high = waits(&lock, 13..30, Exclusive);
            let mut both = waits(&lock, 12..14, Exclusive);
            let (head, tail) = guard.split(13);
            assert_eq!(
                (head.range(), head.mode(), tail.range(), tail.mode()),
                (bytes(10..13), mode, bytes(13..20), mode)
            );
            [&mut low, &mut high, &mut both].into_iter().for_each(Hand::pending);
            if head_first {
                drop(head);
                let low = goes_on(&mut low);
                high.pending();
                drop(tail);
                drop((goes_on(&mut high), low));
            } else {
                drop(tail);
                let high = goes_on(&mut high);
                low.pending();
                drop(head);
                drop((goes_on(&mut low), high));
            }
            drop(goes_on(&mut both));
        }
    }
    all_free(&lock);
}

#[test]
fn splits_at_the_edges() {
    let lock = RangeLock::new();
    let split = |range: ByteRange, at: u64| {
        let (head, tail) = hold(&lock, range, Add).split(at);
        let held = (head.range(), tail.range());
        // Each byte is held by one of them: nobody else gets it, and all others get the rest.
        assert!(
            range.is_empty()
                || (0..64).all(|bit| !range.contains(1 << bit) || !is_free(&lock, 1 << bit..=1 << bit, Block))
        );
        drop(head);
        assert_eq!(is_free(&lock, range, Block), held.1.is_empty());
        drop(tail);
        assert!(is_free(&lock, range, Exclusive));
        held
    };
    assert_eq!(split(bytes(10..20), 10), (ByteRange::EMPTY, bytes(10..20)));
    assert_eq!(split(bytes(10..20), 11), (bytes(10..11), bytes(11..20)));
    assert_eq!(split(bytes(10..20), 19), (bytes(10..19), bytes(19..20)));
    assert_eq!(split(bytes(10..20), 20), (bytes(10..20), ByteRange::EMPTY));
    assert_eq!(split(bytes(10..11), 10), (ByteRange::EMPTY, bytes(10..11)));
    assert_eq!(split(bytes(0..8), 0), (ByteRange::EMPTY, bytes(0..8)));
    assert_eq!(split(ByteRange::WHOLE, u64::MAX), (bytes(0..u64::MAX), ByteRange::new(u64::MAX..)));
    assert_eq!(split(ByteRange::WHOLE, 1 << 63), (bytes(0..1 << 63), ByteRange::new(1 << 63..)));
    assert_eq!(split(ByteRange::new(u64::MAX..), u64::MAX), (ByteRange::EMPTY, ByteRange::new(u64::MAX..)));
    all_free(&lock);
}

/// Into 64 pieces, which go in random order while somebody waits for each.
#[test]
fn a_guard_in_pieces() {
    let lock = RangeLock::new();
    let mut rng = Rng::with_seed(4);
    for _ in 0..20 {
        // Granted at once, or after a wait.
        let owner = Owner::new();
        let in_the_way = rng.bool().then(|| hold(&lock, 30..40, Exclusive));
        let mut whole = Hand::new(lasting(&lock).request(0..64, Mode::ALL[rng.usize(0..3)]).owner(&owner));
        if in_the_way.is_some() {
            assert!(whole.poll().is_pending());
        }
        drop(in_the_way);
        let whole = whole.ready().unwrap();
        let mut waiting: Vec<_> = (0..64).map(|i| waits(&lock, i..i + 1, Exclusive)).collect();
        let mut pieces = vec![whole];
        while pieces.len() < 64 {
            let piece = pieces.swap_remove(rng.usize(0..pieces.len()));
            let (start, last) = (piece.range().start().unwrap(), piece.range().last().unwrap());
            let (head, tail) = piece.split(rng.u64(start..=last));
            pieces.extend([head, tail].into_iter().filter(|piece| !piece.range().is_empty()));
        }
        assert!(format!("{owner:?}").ends_with("live: 64 }"), "{owner:?}");
        assert!(pieces.iter().all(|piece| piece.nesting() == Nesting::Outermost), "a piece is not nested in another");
        rng.shuffle(&mut pieces);
        let mut held: Vec<bool> = vec![true; 64];
        for piece in pieces {
            let byte = piece.range().start().unwrap() as usize;
            drop(piece);
            held[byte] = false;
            drop(goes_on(&mut waiting[byte]));
            (0..64).filter(|&byte| held[byte]).for_each(|byte| waiting[byte].pending());
        }
        assert!(format!("{owner:?}").ends_with("live: 0 }"), "{owner:?}");
    }
    all_free(&lock);
}

#[test]
fn a_release_frees_the_middle() {
    let lock = RangeLock::new();
    for mode in Mode::ALL {
        let guard = hold(&lock, 0..100, mode);
        let mut hole = waits(&lock, 40..60, Exclusive);
        let mut across = waits(&lock, 30..50, Exclusive);
        let mut head_end = waits(&lock, 39..40, Exclusive);
        let mut tail_start = waits(&lock, 60..61, Exclusive);
        let (head, tail) = guard.release(40..60);
        assert_eq!((head.range(), head.mode(), tail.range(), tail.mode()), (bytes(0..40), mode, bytes(60..100), mode));
        drop(goes_on(&mut hole));
        [&mut across, &mut head_end, &mut tail_start].into_iter().for_each(Hand::pending);
        drop(head);
        drop(goes_on(&mut across));
        drop(goes_on(&mut head_end));
        tail_start.pending();
        drop(tail);
        drop(goes_on(&mut tail_start));
    }
    all_free(&lock);
}

#[test]
fn releases_at_the_edges() {
    let lock = RangeLock::new();
    let release = |range: ByteRange, gap: ByteRange| {
        let (head, tail) = hold(&lock, range, Exclusive).release(gap);
        let left = (head.range(), tail.range());
        assert!(gap.is_empty() || is_free(&lock, gap, Exclusive));
        assert!([&head, &tail].into_iter().all(|part| part.range().is_empty() || !is_free(&lock, part.range(), Add)));
        left
    };
    assert_eq!(release(bytes(0..10), bytes(0..4)), (ByteRange::EMPTY, bytes(4..10)));
    assert_eq!(release(bytes(0..10), bytes(6..10)), (bytes(0..6), ByteRange::EMPTY));
    assert_eq!(release(bytes(0..10), bytes(0..10)), (ByteRange::EMPTY, ByteRange::EMPTY));
    assert_eq!(release(bytes(0..10), bytes(3..3)), (bytes(0..10), ByteRange::EMPTY));
    let last = ByteRange::new(u64::MAX..);
    assert_eq!(release(ByteRange::WHOLE, last), (bytes(0..u64::MAX), ByteRange::EMPTY));
    assert_eq!(release(ByteRange::WHOLE, bytes(0..u64::MAX)), (ByteRange::EMPTY, last));
    assert_eq!(release(ByteRange::WHOLE, bytes(1..u64::MAX)), (bytes(0..1), last));
    assert_eq!(release(last, last), (ByteRange::EMPTY, ByteRange::EMPTY));
    all_free(&lock);
}

// Becoming more.

const CHANGES: [(Mode, Mode); 6] =
    [(Add, Block), (Add, Exclusive), (Block, Add), (Block, Exclusive), (Exclusive, Add), (Exclusive, Block)];

#[test]
fn a_guard_that_is_alone_changes_into_any_mode() {
    let lock = RangeLock::new();
    for (from, to) in CHANGES {
        let mut guard = hold(&lock, 4..8, from);
        // Beside it is not in the way.
        let _beside = (hold(&lock, 0..4, Exclusive), hold(&lock, 8..12, Exclusive));
        assert!(guard.try_convert(to));
        assert_eq!((guard.range(), guard.mode()), (bytes(4..8), to));
        assert_eq!(open_to(&lock, 7..8), Mode::ALL.into_iter().filter(|&mode| together(to, mode)).collect::<Vec<_>>());
        assert!(guard.try_convert(to), "it is that already");
        assert!(guard.try_convert(from), "and back");
    }
    all_free(&lock);
}

#[test]
fn another_holder_is_in_the_way_of_what_does_not_go_with_it() {
    let lock = RangeLock::new();
    for (from, to) in [(Add, Block), (Add, Exclusive), (Block, Add), (Block, Exclusive)] {
        let mut guard = hold(&lock, 0..8, from);
        let other = hold(&lock, 7..9, from);
        assert!(!guard.try_convert(to), "{from:?} to {to:?}");
        assert_eq!((guard.mode(), open_to(&lock, 0..8)), (from, vec![from]), "it holds what it held");
        drop(other);
        assert!(guard.try_convert(to));
    }
    // Two that try are in each other's way, until one of them gives up.
    let (mut one, mut other) = (hold(&lock, 0..8, Add), hold(&lock, 0..8, Add));
    assert!(!one.try_convert(Exclusive) && !other.try_convert(Exclusive) && !one.try_convert(Block));
    drop(other);
    assert!(one.try_convert(Exclusive));
    drop(one);
    all_free(&lock);
}

/// Who waits for this very guard in any case is passed, goes on waiting, and is served when the guard goes.
#[test]
fn a_conversion_passes_who_waits_for_it_already() {
    let lock = RangeLock::new();
    for (from, to) in CHANGES {
        for asked in Mode::ALL {
            if together(from, asked) {
                continue;
            }
            let mut guard = hold(&lock, 0..8, from);
            let mut waiting = waits(&lock, 4..12, asked);
            assert!(guard.try_convert(to), "{from:?} to {to:?} with {asked:?} behind it");
            if together(to, asked) {
                drop((goes_on(&mut waiting), guard));
                continue;
            }
            waiting.pending();
            assert!(!is_free(&lock, 8..12, Exclusive), "it has its place still");
            drop(guard);
            drop(goes_on(&mut waiting));
        }
    }
    all_free(&lock);
}

/// Who waits for somebody else, and not for this guard as it is, would be overtaken: that is refused.
#[test]
fn a_conversion_does_not_overtake() {
    let lock = RangeLock::new();
    for (from, to) in [(Add, Block), (Add, Exclusive), (Block, Add), (Block, Exclusive)] {
        let mut guard = hold(&lock, 0..8, from);
        let elsewhere = hold(&lock, 8..12, Exclusive);
        let mut waiting = waits(&lock, 4..12, from);
        assert!(!guard.try_convert(to));
        assert_eq!(guard.mode(), from);
        drop(elsewhere);
        let waiting = goes_on(&mut waiting);
        assert!(!guard.try_convert(to), "it holds now");
        drop(waiting);
        assert!(guard.try_convert(to));
    }
    all_free(&lock);
}

#[test]
fn newcomers_see_what_a_guard_has_become() {
    let lock = RangeLock::new();
    for (from, to) in CHANGES {
        let mut guard = hold(&lock, 4..8, from);
        assert!(guard.try_convert(to) && guard.try_extend(0..12));
        assert_eq!((guard.range(), guard.mode()), (bytes(0..12), to));
        for byte in [0, 4, 11] {
            assert_eq!(
                open_to(&lock, byte..=byte),
                Mode::ALL.into_iter().filter(|&mode| together(to, mode)).collect::<Vec<_>>()
            );
        }
        assert!(is_free(&lock, 12.., Exclusive));
    }
    all_free(&lock);
}

#[test]
fn a_guard_extends_to_what_is_free() {
    let lock = RangeLock::new();
    for mode in Mode::ALL {
        let mut guard = hold(&lock, 40..50, mode);
        for range in [40..60, 30..60, 30..60, 20..70, 0..100] {
            assert!(guard.try_extend(range.clone()));
            assert_eq!((guard.range(), guard.mode()), (bytes(range.clone()), mode));
            assert_eq!(open_to(&lock, range.start..range.start + 1).len(), usize::from(mode != Exclusive));
            assert!(is_free(&lock, range.end.., Exclusive) && is_free(&lock, ..range.start, Exclusive));
        }
        assert!(guard.try_extend(..));
        assert_eq!(open_to(&lock, u64::MAX..).len(), usize::from(mode != Exclusive));
        drop(guard);
        all_free(&lock);
    }
}

#[test]
fn who_is_in_the_way_of_an_extension() {
    let lock = RangeLock::new();
    for mode in Mode::ALL {
        for other in Mode::ALL {
            let mut guard = hold(&lock, 0..8, mode);
            // A holder there.
            let holder = hold(&lock, 12..16, other);
            assert_eq!(guard.try_extend(0..13), together(mode, other), "{mode:?} beside {other:?}");
            drop((holder, guard));
            // Somebody who waits for others.
            let mut guard = hold(&lock, 0..8, mode);
            let elsewhere = hold(&lock, 16..20, Exclusive);
            let mut waiting = waits(&lock, 12..17, other);
            assert_eq!(guard.try_extend(0..13), together(mode, other), "{mode:?} before a waiting {other:?}");
            drop(elsewhere);
            drop((goes_on(&mut waiting), guard));
            // Somebody who waits for this guard.
            if together(mode, other) {
                continue;
            }
            let mut guard = hold(&lock, 0..8, mode);
            let mut waiting = waits(&lock, 7..13, other);
            assert!(guard.try_extend(0..16), "{mode:?} before a {other:?} that waits for it");
            waiting.pending();
            guard.shrink(0..7);
            drop((goes_on(&mut waiting), guard));
        }
    }
    all_free(&lock);
}

#[test]
fn what_is_no_extension_panics() {
    let lock = RangeLock::new();
    let mut guard = hold(&lock, 10..20, Add);
    for range in [10..19, 11..20, 0..5, 30..40, 12..15] {
        let message = panics(|| guard.try_extend(range.clone()));
        assert_eq!(
            message,
            format!("{} does not contain 10..20, which the guard holds: try_extend only adds bytes", bytes(range))
        );
        assert_eq!((guard.range(), open_to(&lock, 10..20)), (bytes(10..20), vec![Add]), "it holds what it held");
    }
    assert!(panics(|| guard.try_extend(5..5)).starts_with("empty does not contain 10..20"));
    drop(guard);
    all_free(&lock);
}

/// The owner's own are in nobody's way.
#[test]
fn other_guards_of_the_owner_are_not_in_the_way() {
    let lock = RangeLock::new();
    let mut one = lock.add(0..8);
    let other = lock.block(4..12);
    let beside = lock.exclusive(20..24);
    assert!(one.try_convert(Exclusive) && one.try_convert(Block) && one.try_extend(0..30));
    assert_eq!(open_to(&lock, 12..20), [Block]);
    assert_eq!(open_to(&lock, 20..24), []);
    drop((other, beside));
    assert_eq!(open_to(&lock, 0..30), [Block]);
    drop(one);
    all_free(&lock);
}

// Random histories: the rule, in two lines.

#[derive(Clone, Copy, Debug)]
struct Asks {
    range: ByteRange,
    mode: Mode,
}

impl Asks {
    fn conflicts(self, other: Asks) -> bool {
        // Not by the library's own idea of overlap.
        !together(self.mode, other.mode) && (0..16).any(|byte| self.range.contains(byte) && other.range.contains(byte))
    }

    fn random(rng: &mut Rng) -> Asks {
        let start = rng.u64(0..16);
        Asks { range: bytes(start..rng.u64(start..16) + 1), mode: Mode::ALL[[0, 0, 1, 1, 2][rng.usize(0..5)]] }
    }
}

/// A task of a history.
struct Task<'a> {
    asks: Asks,
    future: Hand<Acquire<&'a RangeLock>>,
    guard: Option<SendRangeGuard<'a>>,
}

/// Whoever holds converts at random. It works exactly if nobody is in conflict with the new hold who is not with the
/// old one; and after each step exactly those wait who must.
#[test]
fn random_conversions_follow_the_rule() {
    let lock = RangeLock::new();
    let [mut worked, mut refused, mut passed] = [0; 3];
    for seed in 0..common::by_build(1500, 15_000) {
        let mut rng = Rng::with_seed(seed);
        // In the order of their coming.
        let mut tasks: Vec<Task<'_>> = Vec::new();
        for _ in 0..40 {
            match rng.u8(0..6) {
                0 | 1 if tasks.len() < 7 => {
                    let asks = Asks::random(&mut rng);
                    let mut future = Hand::new(lock.request(asks.range, asks.mode));
                    let answer = future.poll();
                    tasks.push(Task { asks, future, guard: None });
                    if let Poll::Ready(guard) = answer {
                        let new = tasks.len() - 1;
                        assert!(!must_wait(&tasks, new), "seed {seed}: {asks:?} barged");
                        tasks[new].guard = Some(guard);
                    }
                }
                2 if !tasks.is_empty() => drop(tasks.remove(rng.usize(0..tasks.len()))),
                _ if !tasks.is_empty() => {
                    let me = rng.usize(0..tasks.len());
                    let (old, mut new) = (tasks[me].asks, Asks::random(&mut rng));
                    let Some(guard) = &mut tasks[me].guard else { continue };
                    let held = guard.range();
                    let (start, last) = (held.start().unwrap(), held.last().unwrap());
                    let done = match rng.u8(0..5) {
                        0 => {
                            new = Asks { range: old.range, mode: new.mode };
                            Some(guard.try_convert(new.mode))
                        }
                        1 => {
                            let wider = new.range.start().unwrap().min(start)..new.range.last().unwrap().max(last) + 1;
                            new = Asks { range: bytes(wider), mode: old.mode };
                            Some(guard.try_extend(new.range))
                        }
                        2 => {
                            let part = rng.u64(start..=last);
                            new = Asks { range: bytes(part..rng.u64(part..=last) + 1), mode: old.mode };
                            guard.shrink(new.range);
                            None
                        }
                        3 if old.mode == Exclusive => {
                            new = Asks { range: old.range, mode: new.mode };
                            guard.downgrade(new.mode);
                            None
                        }
                        _ => {
                            // The tail goes at once.
                            let at = rng.u64(start..=last);
                            let (head, tail) = tasks[me].guard.take().expect("it holds").split(at);
                            drop(tail);
                            new = Asks { range: head.range(), mode: old.mode };
                            if head.range().is_empty() {
                                tasks.remove(me);
                            } else {
                                tasks[me].guard = Some(head);
                                tasks[me].asks = new;
                            }
                            settle(&mut tasks);
                            check(&tasks, seed);
                            continue;
                        }
                    };
                    let others = || (0..tasks.len()).filter(|&other| other != me).map(|other| tasks[other].asks);
                    let barred = others().any(|other| other.conflicts(new) && !other.conflicts(old));
                    if let Some(done) = done {
                        assert_eq!(done, !barred, "seed {seed}: {old:?} to {new:?}");
                        worked += u32::from(done);
                        refused += u32::from(!done);
                        passed += u32::from(done && others().any(|other| other.conflicts(new)));
                    }
                    if done != Some(false) {
                        tasks[me].asks = new;
                    }
                }
                _ => {}
            }
            settle(&mut tasks);
            check(&tasks, seed);
        }
    }
    all_free(&lock);
    assert!(
        worked > 1000 && refused > 1000 && passed > 100,
        "{worked} worked, {refused} refused, {passed} passed somebody"
    );
}

/// Polls the woken until none is. Who is granted then was in nobody's queue.
fn settle(tasks: &mut [Task<'_>]) {
    while let Some(place) = tasks.iter().position(|task| task.guard.is_none() && task.future.woken()) {
        if let Poll::Ready(guard) = tasks[place].future.poll() {
            assert!(!must_wait(tasks, place), "{:?} was granted too early", tasks[place].asks);
            tasks[place].guard = Some(guard);
        }
    }
}

/// Whether a task that waits must wait on: holders are before it, whenever they came, and so are those that wait and
/// came first.
fn must_wait(tasks: &[Task<'_>], place: usize) -> bool {
    let others = tasks.iter().enumerate().filter(|(other, task)| *other < place || task.guard.is_some());
    others.filter(|(other, _)| *other != place).any(|(_, task)| task.asks.conflicts(tasks[place].asks))
}

fn check(tasks: &[Task<'_>], seed: u64) {
    for (place, task) in tasks.iter().enumerate() {
        let Some(guard) = &task.guard else {
            assert!(must_wait(tasks, place), "seed {seed}: nobody woke {:?}", task.asks);
            continue;
        };
        assert_eq!((guard.range(), guard.mode()), (task.asks.range, task.asks.mode));
        let holders = tasks[..place].iter().filter(|other| other.guard.is_some());
        holders.for_each(|other| assert!(!other.asks.conflicts(task.asks), "seed {seed}: two hold"));
    }
}

// Every kind of guard.

/// One of each conversion, on a guard of 0..32 in exclusive mode; ends with nothing held.
fn convert_all_ways<L: LockRef + Debug, O: OwnedBy>(lock: &RangeLock, mut guard: Guard<L, O>) {
    let mut low = waits(lock, 0..4, Block);
    guard.shrink(4..32);
    drop(goes_on(&mut low));
    guard.downgrade(Block);
    assert_eq!(open_to(lock, 31..32), [Block]);
    assert!(guard.try_convert(Add) && guard.try_extend(0..40));
    assert_eq!(open_to(lock, 39..40), [Add]);
    let in_the_way = hold(lock, 40..41, Block);
    assert!(!guard.try_extend(0..41));
    drop(in_the_way);
    let mut middle = waits(lock, 16..24, Exclusive);
    let (head, tail) = guard.release(16..24);
    drop(goes_on(&mut middle));
    let (first, second) = head.split(8);
    assert_eq!([&first, &second, &tail].map(|piece| piece.range()), [bytes(0..8), bytes(8..16), bytes(24..40)]);
    assert!([&first, &second, &tail].iter().all(|piece| piece.nesting() == Nesting::Outermost));
    drop(second);
    assert!(is_free(lock, 8..24, Exclusive) && !is_free(lock, 7..8, Block) && !is_free(lock, 24..25, Block));
    drop((first, tail));
    all_free(lock);
}

#[test]
fn every_kind_of_guard_converts() {
    let lock = Arc::new(RangeLock::new());
    let owner = Owner::new();
    convert_all_ways(&lock, lock.exclusive(0..32));
    convert_all_ways(&lock, lock.request_arc(0..32, Exclusive).wait());
    convert_all_ways(&lock, lock.request(0..32, Exclusive).owner(&owner).wait().unwrap());
    convert_all_ways(&lock, lock.request_arc(0..32, Exclusive).owner(&owner).wait().unwrap());
    // The same after a wait.
    let in_the_way = hold(&lock, 31..33, Block);
    let mut task = Hand::new(lock.request(0..32, Exclusive));
    let mut arc = Hand::new(lock.request_arc(0..32, Exclusive));
    let mut token = Hand::new(lasting(&*lock).request(0..32, Exclusive).owner(&owner));
    let mut batch =
        Hand::new(Batch::new().exclusive(lasting(&*lock), 0..32).add(lasting(&*lock), 30..60).owner(&owner));
    task.pending();
    drop(in_the_way);
    convert_all_ways(&lock, task.ready());
    let in_the_way = hold(&lock, 31..33, Block);
    arc.pending();
    drop(in_the_way);
    convert_all_ways(&lock, arc.ready());
    let in_the_way = hold(&lock, 31..33, Block);
    token.pending();
    drop(in_the_way);
    convert_all_ways(&lock, token.ready().unwrap());
    let in_the_way = hold(&lock, 31..33, Block);
    batch.pending();
    drop(in_the_way);
    let [first, second] = <[_; 2]>::try_from(batch.ready().unwrap().into_parts()).expect("two parts");
    drop(second);
    convert_all_ways(&lock, first);
    assert!(format!("{owner:?}").ends_with("live: 0 }"), "{owner:?}");
    assert_eq!(lock.add(..).nesting(), Nesting::Outermost, "the thread's pieces are all accounted for");
}

/// A piece keeps the lock of an `Arc` alive, and goes to another thread.
#[test]
fn pieces_outlive_the_guard_that_they_came_from() {
    let lock = Arc::new(RangeLock::new());
    let watch = Arc::downgrade(&lock);
    let guard: ArcRangeGuard = lock.request_arc(.., Exclusive).wait();
    drop(lock);
    let (head, tail) = guard.split(1 << 40);
    thread::spawn(move || drop(head)).join().expect("a release does not panic");
    let lock = watch.upgrade().expect("the tail keeps it");
    assert!(is_free(&lock, ..1 << 40, Exclusive) && !is_free(&lock, 1 << 40.., Add));
    drop((lock, tail));
    assert!(watch.upgrade().is_none());
}

#[test]
fn guards_that_hold_nothing_convert_to_nothing() {
    let lock = RangeLock::new();
    let owner = Owner::new();
    let _in_the_way = hold(&lock, .., Exclusive);
    let nothing = |mode| lock.request(5..5, mode).owner(&owner).wait().unwrap();
    for (from, to) in CHANGES {
        let mut guard = nothing(from);
        assert!(guard.try_convert(to));
        assert_eq!((guard.range(), guard.mode()), (ByteRange::EMPTY, to));
    }
    let mut guard = nothing(Exclusive);
    guard.downgrade(Add);
    assert_eq!(guard.mode(), Add);
    assert!(panics(|| guard.downgrade(Block)).starts_with("a guard in mode add cannot be downgraded"));
    guard.shrink(7..7);
    assert!(panics(|| guard.shrink(5..6)).starts_with("5..6 is not a part of empty"));
    assert_eq!(
        panics(|| guard.try_extend(0..8)),
        "the guard holds nothing that could be extended to 0..8: make a new request"
    );
    assert_eq!(guard.nesting(), Nesting::Outermost);
    let (one, other) = guard.release(3..3);
    assert!(one.range().is_empty() && other.range().is_empty());
    assert!(panics(|| one.split(5)).contains("neither in empty nor directly behind it"));
    assert!(panics(|| other.release(5..6)).starts_with("5..6 is not a part of empty"));
    // One that was emptied is like one that was empty.
    let beside = RangeLock::new();
    let mut emptied = beside.request(0..8, Block).owner(&owner).wait().unwrap();
    emptied.shrink(0..0);
    assert!(format!("{owner:?}").ends_with("live: 0 }"), "{owner:?}");
    assert!(emptied.try_convert(Exclusive) && is_free(&beside, .., Exclusive));
    drop(emptied);
    assert!(format!("{owner:?}").ends_with("live: 0 }"), "{owner:?}");
}

// Conversions and owners.

#[test]
fn conversions_keep_a_guard_s_place_among_its_owner_s() {
    let lock = RangeLock::new();
    let owner = Owner::new();
    let ask = |range: Range<u64>, mode| lock.request(range, mode).owner(&owner).wait().unwrap();
    let mut outer = ask(0..8, Exclusive);
    let mut inner = ask(4..12, Add);
    let innermost = ask(6..7, Block);
    assert!(
        outer.try_extend(0..20) && outer.try_convert(Block) && inner.try_convert(Exclusive) && inner.try_convert(Add)
    );
    assert_eq!(outer.nesting(), Nesting::Outermost);
    assert_eq!(inner.nesting(), Nesting::Conflicting { held: bytes(0..20), mode: Block });
    let (head, tail) = inner.split(7);
    assert_eq!(tail.nesting(), Nesting::Conflicting { held: bytes(0..20), mode: Block });
    assert_eq!(innermost.nesting(), Nesting::Conflicting { held: bytes(4..7), mode: Add });
    outer.shrink(0..6);
    assert_eq!(tail.nesting(), Nesting::Elsewhere);
    assert_eq!(head.nesting(), Nesting::Conflicting { held: bytes(0..6), mode: Block });
    drop((outer, head, tail, innermost));
    all_free(&lock);
}

/// A deadlock is found, or is none any more, by what the guards have become.
#[test]
fn deadlocks_through_converted_guards() {
    let (a, b) = (RangeLock::new(), RangeLock::new());
    let (one, other) = (Owner::new(), Owner::new());
    // Of 0..8 in mode Add becomes something that holds `byte`.
    for way in 0..4 {
        let other_b = b.request(0..8, Exclusive).owner(&other).wait().unwrap();
        let mut guard = a.request(0..8, Add).owner(&one).wait().unwrap();
        let (pieces, byte, held, mode) = match way {
            0 => {
                assert!(guard.try_extend(0..12));
                (vec![guard], 10, bytes(0..12), Add)
            }
            1 => {
                assert!(guard.try_convert(Exclusive));
                (vec![guard], 3, bytes(0..8), Exclusive)
            }
            2 => {
                let (head, tail) = guard.split(2);
                (vec![head, tail], 3, bytes(2..8), Add)
            }
            _ => {
                let (head, tail) = guard.release(4..6);
                (vec![head, tail], 3, bytes(0..4), Add)
            }
        };
        let mut one_b = Hand::new(lasting(&b).request(0..8, Add).owner(&one));
        one_b.pending();
        let Err(AcquireError::Deadlock(error)) = a.request(byte..byte + 1, Block).owner(&other).wait() else {
            panic!("a deadlock was expected")
        };
        assert_eq!((error.waits()[0].held, error.waits()[0].held_mode), (held, mode));
        // What is not held any more is no deadlock.
        if way == 3 {
            drop(a.request(4..6, Block).owner(&other).wait().unwrap());
        }
        drop(other_b);
        drop((one_b.ready().unwrap(), pieces));
    }
    // A downgrade and a shrink end waits of others that are in no cycle yet.
    let other_b = b.request(0..8, Exclusive).owner(&other).wait().unwrap();
    let mut one_a = a.request(0..8, Exclusive).owner(&one).wait().unwrap();
    let mut add = Hand::new(lasting(&a).request(0..4, Add).owner(&other));
    let mut block = Hand::new(lasting(&a).request(4..8, Block).owner(&other));
    add.pending();
    block.pending();
    one_a.downgrade(Add);
    assert!(add.woken());
    drop(add.ready().unwrap());
    block.pending();
    one_a.shrink(0..4);
    assert!(block.woken());
    drop((block.ready().unwrap(), other_b, one_a));
    all_free(&a);
    all_free(&b);
}

/// A token's guard is split by one thread all the time, into pieces that lie in ever other slots. Somebody whom the
/// token waits for asks for its bytes: that is a deadlock, also when it looks for the piece where that is not yet, or
/// no longer.
#[test]
fn a_deadlock_is_found_while_what_closes_it_is_split() {
    const MIDDLE: u64 = 1 << 63;
    const END: u64 = MIDDLE + (1 << 40);
    let (a, b) = (RangeLock::new(), RangeLock::new());
    let (one, other) = (Owner::new(), Owner::new());
    // All across the middle, so that they lie in one chain of nodes. One slot at its start is left, and one at its end
    // is the piece's.
    let mut crowd: Vec<_> = (0..103).map(|_| Some(hold(&a, MIDDLE - 1..END, Add))).collect();
    let whole = a.request(MIDDLE - 1..END, Add).owner(&one).wait().unwrap();
    crowd[4] = None;
    let other_b = b.request(0..8, Exclusive).owner(&other).wait().unwrap();
    let mut one_b = Hand::new(lasting(&b).request(0..8, Exclusive).owner(&one));
    one_b.pending();
    let over = AtomicBool::new(false);
    let watchdog = Watchdog::new("a_deadlock_is_found_while_what_closes_it_is_split");
    let end = Instant::now() + common::stress_time();
    thread::scope(|scope| {
        let splitter = scope.spawn(|| {
            let mut piece = whole;
            for at in MIDDLE.. {
                let (head, tail) = piece.split(at);
                drop(head);
                piece = tail;
                if at % 5 == 0 {
                    thread::yield_now();
                }
                if over.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        while Instant::now() < end {
            let answer = a.request(END - 1..END, Exclusive).owner(&other).wait();
            assert!(matches!(answer, Err(AcquireError::Deadlock(_))), "{answer:?}");
            watchdog.step();
        }
        over.store(true, Ordering::Relaxed);
        splitter.join().expect("a split does not panic");
    });
    drop((crowd, other_b));
    drop(one_b.ready().unwrap());
    all_free(&a);
    all_free(&b);
}

// The tree under it.

/// Among so many that the tree is deep, from its leaves to its root and back.
#[test]
fn conversions_in_a_crowd() {
    let lock = RangeLock::new();
    let crowd: Vec<_> = (0..2000).map(|i| hold(&lock, 64 * i..64 * i + 16, Mode::ALL[i as usize % 2])).collect();
    assert!(lock.heap_nodes() > 100);
    let mut rng = Rng::with_seed(9);
    for round in 0..200 {
        // Between two neighbours.
        let start = 64 * rng.u64(0..1999) + 16;
        let free = start..start + 48;
        let mut guard = hold(&lock, start + 8..start + 16, Exclusive);
        assert!(guard.try_extend(free.clone()));
        assert!(
            !guard.try_extend(start..start + 49) && !guard.try_extend(start - 1..start + 48),
            "the neighbours hold"
        );
        let at = start + rng.u64(1..48);
        let (mut head, tail) = guard.split(at);
        let mut waiting = waits(&lock, free.clone(), Mode::ALL[round % 3]);
        head.downgrade(Block);
        waiting.pending();
        drop(tail);
        let behind = waiting.poll();
        assert_eq!(behind.is_ready(), Mode::ALL[round % 3] == Block);
        drop(behind);
        head.shrink(ByteRange::EMPTY);
        drop(waiting);
        assert!(is_free(&lock, free, Exclusive));
    }
    drop(crowd);
    // All that is left is to become everything, and one byte again.
    let mut guard = hold(&lock, 1000..1001, Exclusive);
    assert!(guard.try_extend(..));
    assert!(!is_free(&lock, u64::MAX.., Add));
    guard.shrink(1 << 50..(1 << 50) + 1);
    assert!(is_free(&lock, ..1 << 50, Exclusive) && is_free(&lock, (1 << 50) + 1.., Exclusive));
    assert!(guard.try_convert(Add));
    drop(guard);
    lock.trim();
    assert_eq!(lock.heap_nodes(), 0);
    all_free(&lock);
}

// Threads.

/// A guard in a table: what it stands for is entered there.
struct Piece<'t, L: LockRef, O: OwnedBy> {
    table: &'t Table,
    /// Taken only where the piece ends.
    guard: Option<Guard<L, O>>,
}

impl<'t, L: LockRef, O: OwnedBy> Piece<'t, L, O> {
    fn new(table: &'t Table, guard: Guard<L, O>) -> Piece<'t, L, O> {
        table.enter(guard.range(), As::Holder(guard.mode()));
        Piece { table, guard: Some(guard) }
    }

    fn guard(&self) -> &Guard<L, O> {
        self.guard.as_ref().expect("it has not ended")
    }

    fn guard_mut(&mut self) -> &mut Guard<L, O> {
        self.guard.as_mut().expect("it has not ended")
    }

    /// Takes the guard out of the table.
    fn leave(mut self) -> Guard<L, O> {
        let guard = self.guard.take().expect("it has not ended");
        self.table.leave(guard.range(), As::Holder(guard.mode()));
        guard
    }

    /// Some conversion; what became of it. The table says at every moment at most what is held for certain.
    fn convert(mut self, rng: &mut Rng, done: &Done) -> Vec<Piece<'t, L, O>> {
        let table = self.table;
        let (range, mode) = (self.guard().range(), self.guard().mode());
        let (Some(start), Some(last)) = (range.start(), range.last()) else { return vec![self] };
        let part = rng.u64(start..=last);
        let part = bytes(part..rng.u64(part..=last) + 1);
        let at = rng.u64(start..=last + 1);
        match rng.u8(0..7) {
            0 if mode == Exclusive => {
                let to = [Add, Block][rng.usize(0..2)];
                table.change(range, As::Holder(mode), As::Holder(to));
                self.guard_mut().downgrade(to);
                vec![self]
            }
            1 => {
                let (head, rest) = range.split(part.start().expect("not empty"));
                table.leave(head, As::Holder(mode));
                table.leave(rest.split(part.last().expect("not empty") + 1).1, As::Holder(mode));
                self.guard_mut().shrink(part);
                vec![self]
            }
            2 => {
                // No byte is let go of: the table stays as it is.
                let (head, tail) = self.guard.take().expect("it has not ended").split(at);
                [head, tail].map(|guard| Piece { table, guard: Some(guard) }).into()
            }
            3 => {
                table.leave(part, As::Holder(mode));
                let (head, tail) = self.guard.take().expect("it has not ended").release(part);
                [head, tail].map(|guard| Piece { table, guard: Some(guard) }).into()
            }
            4 | 5 => {
                let to = Mode::ALL[rng.usize(0..3)];
                // What holds before, meanwhile and after.
                let meanwhile = match (mode, to) {
                    (Exclusive, to) => As::Holder(to),
                    (from, Exclusive) => As::Holder(from),
                    (from, to) if from == to => As::Holder(to),
                    _ => As::Changing,
                };
                table.change(range, As::Holder(mode), meanwhile);
                let converted = self.guard_mut().try_convert(to);
                table.change(range, meanwhile, As::Holder(if converted { to } else { mode }));
                if converted { &done.worked } else { &done.refused }.fetch_add(1, Ordering::Relaxed);
                vec![self]
            }
            _ => {
                let wider = bytes(rng.u64(0..=start)..rng.u64(last..BYTES) + 1);
                if self.guard_mut().try_extend(wider) {
                    let (head, rest) = wider.split(start);
                    table.enter(head, As::Holder(mode));
                    table.enter(rest.split(last + 1).1, As::Holder(mode));
                    done.worked.fetch_add(1, Ordering::Relaxed);
                } else {
                    done.refused.fetch_add(1, Ordering::Relaxed);
                }
                vec![self]
            }
        }
    }
}

impl<L: LockRef, O: OwnedBy> Drop for Piece<'_, L, O> {
    fn drop(&mut self) {
        if let Some(guard) = &self.guard {
            self.table.leave(guard.range(), As::Holder(guard.mode()));
        }
    }
}

const BYTES: u64 = 16;

/// Conversions that can be refused, and what came of them.
#[derive(Debug, Default)]
struct Done {
    worked: AtomicU64,
    refused: AtomicU64,
}

/// Converts at random, and lets go.
fn play_with<L: LockRef, O: OwnedBy>(table: &Table, guard: Guard<L, O>, rng: &mut Rng, done: &Done) {
    let mut piece = Piece::new(table, guard);
    for _ in 0..rng.u8(0..6) {
        let mut pieces = piece.convert(rng, done);
        if rng.u8(0..8) == 0 {
            thread::yield_now();
        }
        // One is played with on; an owner's pieces would be in the table twice if one was extended over another.
        piece = pieces.swap_remove(rng.usize(0..pieces.len()));
    }
    // By hand, or by being dropped.
    if rng.bool() {
        drop(piece.leave());
    }
}

fn convert_at_random(test: &'static str, threads: usize) {
    let lock = Arc::new(RangeLock::new());
    let table = Table::new(BYTES as usize);
    let done = Done::default();
    let watchdog = Watchdog::new(test);
    let end = Instant::now() + common::stress_time();
    let visit = |seed: u64| {
        let mut rng = Rng::with_seed(seed);
        let token = Owner::new();
        while Instant::now() < end {
            let start = rng.u64(0..BYTES);
            let range = bytes(start..rng.u64(start..BYTES) + 1);
            let mode = Mode::ALL[rng.usize(0..3)];
            let patience = Duration::from_micros(rng.u64(0..200));
            let request = lock.request(range, mode);
            match rng.u8(0..6) {
                0 => {
                    let guard: RangeGuard<'_> = request.wait().expect("it holds nothing else");
                    play_with(&table, guard, &mut rng, &done);
                }
                1 => play_with(&table, common::poll::block_on(request), &mut rng, &done),
                2 => play_with(&table, lock.request_arc(range, mode).wait(), &mut rng, &done),
                3 => play_with(&table, request.owner(&token).wait().expect("it holds nothing else"), &mut rng, &done),
                4 => drop(request.try_now().map(|guard| play_with(&table, guard, &mut rng, &done))),
                _ => drop(request.timeout(patience).wait().map(|guard| play_with(&table, guard, &mut rng, &done))),
            }
            watchdog.step();
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads as u64).map(|seed| scope.spawn(move || visit(seed))).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("somebody was there who should not be"));
    });
    let (worked, refused) = (done.worked.into_inner(), done.refused.into_inner());
    assert!(worked > 0 && refused > 0, "{worked} worked, {refused} were refused: nothing was tested");
    assert!(table.is_empty(), "somebody never left");
    assert!(lock.try_exclusive(..).is_some());
    lock.trim();
    assert_eq!(lock.heap_nodes(), 0);
    all_free(&lock);
}

#[test]
fn threads_convert_at_random() {
    convert_at_random("threads_convert_at_random", 4);
}

#[test]
fn many_threads_convert_at_random() {
    convert_at_random("many_threads_convert_at_random", 12);
}

/// Adders that all try to be alone, in the same moment and over and over: never two of them.
#[test]
fn of_two_that_try_to_be_alone_at_most_one_is() {
    let lock = RangeLock::new();
    let alone = AtomicU64::new(0);
    let tally = Done::default();
    let watchdog = Watchdog::new("of_two_that_try_to_be_alone_at_most_one_is");
    let end = Instant::now() + common::stress_time();
    let visit = |seed: u64| {
        let mut rng = Rng::with_seed(seed);
        while Instant::now() < end {
            let mut guard = lock.add(0..8);
            for _ in 0..rng.u8(1..5) {
                if guard.try_convert(Exclusive) {
                    assert_eq!(alone.fetch_add(1, Ordering::Relaxed), 0, "two are alone");
                    std::hint::spin_loop();
                    alone.fetch_sub(1, Ordering::Relaxed);
                    guard.downgrade(Add);
                    tally.worked.fetch_add(1, Ordering::Relaxed);
                } else {
                    tally.refused.fetch_add(1, Ordering::Relaxed);
                }
                assert_eq!(alone.load(Ordering::Relaxed), 0, "somebody is alone beside an adder");
            }
            watchdog.step();
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|seed| scope.spawn(move || visit(seed))).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("two were alone"));
    });
    assert!(tally.worked.into_inner() > 0 && tally.refused.into_inner() > 0, "they never met");
    all_free(&lock);
}
