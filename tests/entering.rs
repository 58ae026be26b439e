//! Promise: concurrent entering, and nothing else blocks. A request that conflicts with no earlier live request is
//! granted at its first poll, however many others hold or wait elsewhere; and who does conflict waits for exactly
//! those.

mod common;

use common::Span;
use common::owners::{Begin, Model, Part, Who};
use common::poll::{Hand, poll_once};
use common::watch::Watchdog;
use fastrand::Rng;
use spanlock::{Mode, Owner, RangeLock};
use std::future::IntoFuture;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Barrier, mpsc};
use std::thread;

/// Granted at the first poll, and released again.
#[track_caller]
fn enters(lock: &RangeLock, span: Span, mode: Mode) {
    let guard = Hand::new(lock.request(span.bounds(), mode)).poll();
    assert!(guard.is_ready(), "{mode:?} {span:?} has to wait, and nobody is in its way");
}

/// Not granted at the first poll, and given up again.
#[track_caller]
fn waits(lock: &RangeLock, span: Span, mode: Mode) {
    let guard = Hand::new(lock.request(span.bounds(), mode)).poll();
    assert!(guard.is_pending(), "{mode:?} {span:?} was granted against an earlier request");
}

#[test]
fn a_mode_goes_with_itself_in_any_number() {
    for mode in [Mode::Add, Mode::Block] {
        let lock = RangeLock::new();
        let mut rng = Rng::with_seed(7);
        let mut guards = vec![Hand::new(lock.request(.., mode)).ready()];
        for _ in 0..1000 {
            let start = rng.u64(0..1000);
            let range = start..start + rng.u64(1..1000);
            guards.push(Hand::new(lock.request(range, mode)).ready());
        }
        for other in Mode::ALL {
            if other != mode {
                waits(&lock, Span::new(500, 500), other);
            }
        }
        drop(guards);
        enters(&lock, Span::WHOLE, Mode::Exclusive);
    }
}

/// The table, both ways round.
#[test]
fn the_modes_table() {
    for held in Mode::ALL {
        for asked in Mode::ALL {
            let lock = RangeLock::new();
            let _guard = Hand::new(lock.request(10..20, held)).ready();
            let meeting = Span::new(19, 19);
            if common::together(held, asked) {
                enters(&lock, meeting, asked)
            } else {
                waits(&lock, meeting, asked)
            }
            for apart in [Span::new(0, 9), Span::new(20, u64::MAX)] {
                enters(&lock, apart, asked);
            }
        }
    }
}

/// A holder and a queue behind it on one byte; everything up to its neighbours is free for all.
#[test]
fn a_queue_blocks_nothing_beside_it() {
    let edges = [0, 1, 1 << 20, (1 << 63) - 1, 1 << 63, u64::MAX - 1, u64::MAX];
    for byte in edges {
        let lock = RangeLock::new();
        let here = Span::new(byte, byte);
        let _holder = Hand::new(lock.request(here.bounds(), Mode::Exclusive)).ready();
        let mut queue: Vec<_> = (0..20).map(|i| Hand::new(lock.request(here.bounds(), Mode::ALL[i % 3]))).collect();
        queue.iter_mut().for_each(Hand::pending);
        for mode in Mode::ALL {
            // Whole file minus one byte.
            if byte > 0 {
                enters(&lock, Span::new(0, byte - 1), mode);
                enters(&lock, Span::new(byte - 1, byte - 1), mode);
            }
            if byte < u64::MAX {
                enters(&lock, Span::new(byte + 1, u64::MAX), mode);
                enters(&lock, Span::new(byte + 1, byte + 1), mode);
            }
            waits(&lock, Span::WHOLE, mode);
        }
    }
}

/// A waiter stands in the way with all of its range, also where nobody holds anything; behind its range nothing is
/// blocked.
#[test]
fn a_waiter_blocks_its_own_range_and_no_more() {
    let lock = RangeLock::new();
    let holder = Hand::new(lock.request(0..1, Mode::Add)).ready();
    let mut waiter = Hand::new(lock.request(0..100, Mode::Exclusive));
    waiter.pending();
    for mode in Mode::ALL {
        waits(&lock, Span::new(50, 60), mode);
        waits(&lock, Span::new(99, 200), mode);
        enters(&lock, Span::new(100, u64::MAX), mode);
    }
    drop(waiter);
    enters(&lock, Span::new(50, 60), Mode::Exclusive);
    drop(holder);
}

/// A waiting adder is no obstacle to adders, and neither to a blocker that it does not meet.
#[test]
fn a_waiter_lets_its_own_mode_in() {
    let lock = RangeLock::new();
    let _holder = Hand::new(lock.request(0..10, Mode::Block)).ready();
    let mut waiter = Hand::new(lock.request(0..100, Mode::Add));
    waiter.pending();
    // It conflicts with nobody who was there before it: the holder is elsewhere, and the waiter is an adder.
    enters(&lock, Span::new(10, 100), Mode::Add);
    waits(&lock, Span::new(10, 100), Mode::Block);
    waits(&lock, Span::new(0, 9), Mode::Add);
    enters(&lock, Span::new(100, 200), Mode::Block);
}

/// Many held and many waiting, everywhere and of every size: the oracle says who may enter, and they do at once.
#[test]
fn whoever_is_free_to_enter_does_so_in_a_crowd() {
    let rounds = common::by_build(4, 20);
    for seed in 0..rounds {
        let mut rng = Rng::with_seed(seed);
        let lock = RangeLock::new();
        let mut oracle = Model::default();
        let mut crowd = Vec::new();
        let (mut entered, mut waiting) = (0, 0);
        for id in 0..1000 {
            let start = rng.u64(..) >> rng.u32(0..64);
            let span = Span::new(start, start.saturating_add(rng.u64(..) >> rng.u32(20..64)));
            let mode = Mode::ALL[[0, 0, 0, 0, 0, 0, 1, 2][rng.usize(0..8)]];
            let mut hand = Hand::new(lock.request(span.bounds(), mode));
            let granted = hand.poll();
            let expected = oracle.begin(id, Who::Solo(id), vec![Part { lock: 0, span, mode }]) == Begin::Granted;
            assert_eq!(
                granted.is_ready(),
                expected,
                "seed {seed}, #{id} {mode:?} {span:?} behind {:?}",
                oracle.blocker(id)
            );
            *(if expected { &mut entered } else { &mut waiting }) += 1;
            crowd.push((granted, hand));
        }
        assert!(entered > 50 && waiting > 50, "{entered} entered, {waiting} wait: not much of a test");
    }
}

/// A thread asleep in the queue, a thread that holds: neither is in anybody's way elsewhere.
#[test]
fn threads_that_hold_or_sleep_elsewhere_are_in_nobodys_way() {
    let lock = RangeLock::new();
    let (held, over) = (Barrier::new(2), Barrier::new(2));
    let _watchdog = Watchdog::new("threads_that_hold_or_sleep_elsewhere_are_in_nobodys_way");
    thread::scope(|scope| {
        scope.spawn(|| {
            let guard = lock.exclusive(0..10);
            held.wait();
            over.wait();
            drop(guard);
        });
        held.wait();
        let sleeper = scope.spawn(|| drop(lock.block(5..20)));
        // Bytes 10..20 are free until the sleeper has its place.
        while lock.try_add(10..20).is_some() {
            thread::yield_now();
        }
        for mode in Mode::ALL {
            // Another thread, which would hang here if it had to wait.
            let (done, answer) = mpsc::channel();
            let lock = &lock;
            scope.spawn(move || {
                drop(lock.request(20.., mode).wait().unwrap());
                drop(lock.request(20..21, mode).try_now().expect("nobody is there"));
                done.send(()).expect("the test waits for it");
            });
            answer.recv().expect("granted");
        }
        assert!(!sleeper.is_finished());
        over.wait();
    });
}

/// A thread never conflicts with itself, however it asks; its futures have owners of their own and do.
#[test]
fn an_owner_never_conflicts_with_itself() {
    for (held, asked) in Mode::ALL.into_iter().flat_map(|held| Mode::ALL.map(|asked| (held, asked))) {
        let lock = RangeLock::new();
        let outer = lock.request(0..100, held).wait().unwrap();
        let inner = lock.request(50..150, asked).wait().unwrap();
        assert!(lock.request(.., asked).try_now().is_some());
        let in_time = lock.request(99..=99, asked).deadline(std::time::Instant::now()).wait();
        assert!(in_time.is_ok());
        drop(in_time);
        // The order of release is free.
        drop(outer);
        if !common::together(asked, Mode::Add) {
            waits(&lock, Span::new(149, 149), Mode::Add);
        }
        enters(&lock, Span::new(0, 49), Mode::Exclusive);
        drop(inner);
        enters(&lock, Span::WHOLE, Mode::Exclusive);
    }
}

/// Others who come later, and give up at once, again and again, hold up neither who is first in the queue when its way
/// is free, nor the holder who gives back a part, and converts the other.
#[test]
fn whoever_comes_and_goes_holds_up_nobody_who_came_before() {
    const CHURNERS: u64 = 4;
    const ROUNDS: usize = 100;
    static LOCK: RangeLock = RangeLock::new();
    let watch = Watchdog::new("whoever_comes_and_goes_holds_up_nobody_who_came_before");
    let (turn, over, came) = (Barrier::new(CHURNERS as usize + 1), AtomicBool::new(false), AtomicU64::new(0));
    let come_and_go = |of_owner: bool| {
        for _ in 0..ROUNDS {
            turn.wait();
            while !over.load(Relaxed) {
                // As `select!` does it.
                let request = LOCK.request(0..16, Mode::Exclusive);
                let is_pending = match of_owner {
                    true => poll_once(&mut request.owner(&Owner::new()).into_future()).is_pending(),
                    false => poll_once(&mut request.into_future()).is_pending(),
                };
                assert!(is_pending);
                came.fetch_add(1, Relaxed);
            }
            turn.wait();
        }
    };
    thread::scope(|scope| {
        for thread in 0..CHURNERS {
            let come_and_go = &come_and_go;
            scope.spawn(move || come_and_go(thread % 2 == 0));
        }
        for _ in 0..ROUNDS {
            watch.step();
            let holder = Hand::new(LOCK.request(0..16, Mode::Exclusive)).ready();
            let mut first = Hand::new(LOCK.request(0..16, Mode::Exclusive));
            first.pending();
            over.store(false, Relaxed);
            let before = came.load(Relaxed);
            turn.wait();
            while came.load(Relaxed) < before + 2 * CHURNERS {
                thread::yield_now();
            }
            let (head, mut tail) = holder.split(8);
            drop(head);
            first.pending();
            // All of them wait for what it has.
            assert!(tail.try_convert(Mode::Block) && tail.try_convert(Mode::Exclusive));
            drop(tail);
            assert!(first.woken());
            let guard = first.ready();
            over.store(true, Relaxed);
            turn.wait();
            drop(guard);
        }
    });
}
