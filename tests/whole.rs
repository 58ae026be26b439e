//! Promise: `WholeFileLock` is the range lock at the full range, and nothing more: the same table, the same order, the
//! same guards.

mod common;

use common::poll::Hand;
use common::together;
use fastrand::Rng;
use spanlock::{ByteRange, Mode, RangeLock, WholeFileLock};
use std::thread;

/// What another thread gets by `try_`.
fn tried_elsewhere(lock: &WholeFileLock, mode: Mode) -> bool {
    let attempt = || match mode {
        Mode::Add => lock.try_add().is_some(),
        Mode::Block => lock.try_block().is_some(),
        Mode::Exclusive => lock.try_exclusive().is_some(),
    };
    thread::scope(|scope| scope.spawn(attempt).join().expect("a try does not panic"))
}

#[test]
fn the_modes_table() {
    for held in Mode::ALL {
        let lock = WholeFileLock::new();
        let guard = match held {
            Mode::Add => lock.add(),
            Mode::Block => lock.block(),
            Mode::Exclusive => lock.exclusive(),
        };
        assert_eq!((guard.range(), guard.mode()), (ByteRange::WHOLE, held));
        for asked in Mode::ALL {
            assert_eq!(tried_elsewhere(&lock, asked), together(held, asked), "{asked:?} beside {held:?}");
        }
        drop(guard);
        assert!(tried_elsewhere(&lock, Mode::Exclusive));
    }
}

/// A waiting request holds back those that came after it, as the range lock's does.
#[test]
fn first_come_first_served() {
    let lock = WholeFileLock::default();
    let adder = Hand::new(lock.request(Mode::Add)).ready();
    let mut blocker = Hand::new(lock.request(Mode::Block));
    blocker.pending();
    let mut late_adder = Hand::new(lock.request(Mode::Add));
    late_adder.pending();
    assert!(!tried_elsewhere(&lock, Mode::Add), "barged past the blocker");
    drop(adder);
    assert!(blocker.woken());
    let blocker = blocker.ready();
    late_adder.pending();
    drop(blocker);
    assert!(late_adder.woken());
    drop(late_adder.ready());
}

/// The same random requests to both: the same answers throughout.
#[test]
fn it_answers_as_the_range_lock_does_at_the_full_range() {
    for seed in 0..common::by_build(200, 2000) {
        let mut rng = Rng::with_seed(seed);
        let (whole, ranges) = (WholeFileLock::new(), RangeLock::new());
        let (mut waiting, mut held) = (Vec::new(), Vec::new());
        for _ in 0..60 {
            let mode = Mode::ALL[rng.usize(0..3)];
            match rng.u8(0..6) {
                0..=2 => waiting.push((Hand::new(whole.request(mode)), Hand::new(ranges.request(.., mode)))),
                3 if !waiting.is_empty() => drop(waiting.swap_remove(rng.usize(0..waiting.len()))),
                4 if !held.is_empty() => drop(held.swap_remove(rng.usize(0..held.len()))),
                _ => {
                    let tried = whole.request(mode).try_now();
                    assert_eq!(tried.is_some(), ranges.request(.., mode).try_now().is_some(), "seed {seed}");
                }
            }
            let mut at = 0;
            while at < waiting.len() {
                let (one, other) = &mut waiting[at];
                match (one.poll(), other.poll()) {
                    (std::task::Poll::Ready(one), std::task::Poll::Ready(other)) => {
                        held.push((one, other));
                        waiting.remove(at);
                    }
                    (one, other) => {
                        assert!(one.is_pending() && other.is_pending(), "seed {seed}: granted by one of them only");
                        at += 1;
                    }
                }
            }
        }
    }
}
