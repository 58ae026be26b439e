//! Promise: an announced request has its place and does not wait; it says of a part that it is clear only if nobody was
//! in the way of that since; and it is waited for like any request.
//!
//! One thread, futures polled by hand, but where a call has to block. At the end random histories, against a list of
//! who has held what.

mod common;

use common::poll::{Hand, block_on};
use common::watch::Watchdog;
use common::{by_build, from_env, never_over, together};
use fastrand::Rng;
use spanlock::requests::Acquire;
use spanlock::{
    AcquireError, Announced, ArcOwnerGuard, ArcRangeGuard, Batch, ByteRange, Mode, Nesting, Owner, RangeLock,
};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::thread;

use Mode::{Add, Block, Exclusive};

fn lock() -> Arc<RangeLock> {
    Arc::new(RangeLock::new())
}

/// One that was polled, and waits.
fn pending<F: Future + Unpin>(future: impl IntoFuture<IntoFuture = F>) -> Hand<F> {
    let mut hand = Hand::new(future);
    assert!(hand.poll().is_pending(), "it should wait");
    hand
}

/// Runs on another thread, to its end.
fn elsewhere<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    thread::scope(|s| s.spawn(run).join().unwrap())
}

#[track_caller]
fn message<T>(call: impl FnOnce() -> T) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(call)) else { panic!("it should have panicked") };
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().expect("a message")).to_owned(),
    }
}

#[test]
fn a_part_is_clear_if_nobody_in_conflict_has_it() {
    for held in Mode::ALL {
        for mode in Mode::ALL {
            let lock = lock();
            let guard = block_on(lock.request(10..20, held));
            let scan = lock.request_arc(0..100, mode).announce();
            let is_free = together(held, mode);
            for (part, meets) in
                [(0..10, false), (20..100, false), (19..21, true), (0..11, true), (12..13, true), (15..15, false)]
            {
                assert_eq!(scan.is_clear(part.clone()), is_free || !meets, "{held} {mode} {part:?}");
            }
            assert_eq!(scan.is_clear(..), is_free);
            drop(guard);
            assert_eq!(scan.is_clear(..), is_free, "he was there");
            drop(block_on(scan));
        }
    }
}

#[test]
fn who_waits_in_front_is_in_the_way() {
    let lock = lock();
    let guard = block_on(lock.request(0..10, Exclusive));
    let waiter = pending(lock.request(5..20, Exclusive));
    let scan = lock.request_arc(0..100, Add).announce();
    assert!(!scan.is_clear(15..16) && scan.is_clear(20..));
    drop((guard, waiter));
    assert!(!scan.is_clear(15..16), "nobody knows whether he was granted");
}

#[test]
fn who_comes_later_waits_and_is_not_in_the_way() {
    let lock = lock();
    let guard = block_on(lock.request(0..10, Exclusive));
    let scan = lock.request_arc(0..100, Add).announce();
    let mut later = pending(lock.request(50..60, Exclusive));
    assert!(lock.try_exclusive(70..71).is_none() && lock.try_add(70..71).is_some());
    drop(guard);
    assert!(scan.is_clear(10..100));
    later.pending();
    drop(scan);
    assert!(later.woken(), "who waits behind one that leaves is woken");
    drop(later.ready());
}

#[test]
fn one_that_nobody_is_in_the_way_of_holds() {
    let lock = lock();
    let scan = lock.request_arc(0..100, Add).announce();
    assert!(lock.try_exclusive(5..6).is_none());
    assert_eq!(lock.snapshot().holders().count(), 1);
    assert!(scan.is_clear(..));
    let guard = block_on(scan);
    assert_eq!((guard.range(), guard.nesting()), (ByteRange::new(0..100), Nesting::Outermost));
    drop(guard);
    assert_eq!(lock.request(5..10, Add).announce().wait().range(), ByteRange::new(5..10));
    assert!(lock.try_exclusive(..).is_some());
}

#[test]
fn it_waits_in_the_place_that_it_has_had() {
    let lock = lock();
    let guard = block_on(lock.request(0..10, Exclusive));
    let scan = lock.request_arc(0..100, Block).announce();
    let mut later = pending(lock.request(0..100, Add));
    let mut scan = pending(scan);
    drop(guard);
    assert!(scan.woken() && !later.woken());
    let held = scan.ready();
    assert_eq!(held.nesting(), Nesting::Outermost);
    later.pending();
    drop(held);
    drop(later.ready());
}

#[test]
fn a_thread_waits_in_a_call() {
    let _watch = Watchdog::new("a_thread_waits_in_a_call");
    let lock = lock();
    let guard = block_on(lock.request_arc(0..10, Exclusive));
    let scan = lock.request(0..100, Add).announce();
    assert!(!scan.is_clear(..) && scan.is_clear(10..));
    let it = thread::spawn(move || drop(guard));
    let held = scan.wait();
    it.join().unwrap();
    assert!(elsewhere(|| lock.try_exclusive(99..).is_none()));
    // It is nobody's but its own.
    assert!(lock.try_exclusive(99..).is_none());
    elsewhere(move || drop(held));
    assert!(lock.try_exclusive(..).is_some());
}

#[test]
fn who_becomes_more_is_noticed() {
    let lock = lock();
    let mut guard = block_on(lock.request_arc(0..20, Add));
    let scan = lock.request_arc(15..100, Exclusive).announce();
    assert!(scan.is_clear(50..60));
    assert!(guard.try_extend(0..60), "who waits for a hold is passed by it");
    assert!(!scan.is_clear(50..60));
    drop(guard);
    assert!(!scan.is_clear(50..60) && scan.is_clear(50..50));
    assert_eq!(block_on(scan).mode(), Exclusive);
}

#[test]
fn who_is_not_in_its_way_and_would_come_to_be_may_not() {
    let lock = lock();
    let blocker = block_on(lock.request_arc(0..10, Exclusive));
    let mut far = block_on(lock.request_arc(100..110, Exclusive));
    let mut adder = block_on(lock.request_arc(50..60, Add));
    let scan = lock.request_arc(0..100, Add).announce();
    assert!(!far.try_extend(90..110) && !adder.try_convert(Exclusive));
    assert!(scan.is_clear(10..));
    drop((blocker, far, adder));
}

#[test]
fn who_is_let_past_is_noticed() {
    let lock = lock();
    let me = Owner::new();
    let mine = lock.request_arc(0..10, Add).owner(&me).wait().unwrap();
    let scan = lock.request_arc(0..100, Exclusive).announce();
    assert!(scan.is_clear(50..60));
    // It waits for `mine`, so that to wait for it would be a cycle.
    let nested = lock.request_arc(50..60, Add).owner(&me).wait().unwrap();
    assert!(!scan.is_clear(50..60));
    drop(nested);
    assert!(!scan.is_clear(50..60), "he may have been there");
    drop(mine);
}

/// One who holds something that one behind it waits for, and asks for what was announced, is no part of a cycle by it.
#[test]
fn who_waits_behind_it_is_overtaken_by_nobody() {
    let lock = lock();
    let [me, it] = [Owner::new(), Owner::new()];
    let blocker = block_on(lock.request_arc(0..1, Exclusive));
    let mine = lock.request_arc(200..210, Exclusive).owner(&me).wait().unwrap();
    let scan = lock.request_arc(0..100, Add).announce();
    let theirs = lock.request_arc(300..310, Exclusive).owner(&it).wait().unwrap();
    let mut first = pending(lock.request_arc(50..60, Exclusive).owner(&it));
    let mut second = pending(lock.request_arc(55..70, Exclusive).owner(&me));
    drop(blocker);
    assert!(scan.is_clear(1..));
    second.pending();
    first.pending();
    drop(scan);
    drop((first.ready().unwrap(), theirs));
    drop((second.ready().unwrap(), mine));
}

/// A thread that waits in a call for what it holds itself is told, as with any request of an owner of its own.
#[test]
fn a_thread_that_is_in_its_own_way_is_told() {
    let _watch = Watchdog::new("a_thread_that_is_in_its_own_way_is_told");
    let lock = lock();
    let held = lock.exclusive(0..10);
    let scan = lock.request(0..100, Add).announce();
    assert!(!scan.is_clear(..) && scan.is_clear(10..));
    let said = message(|| scan.wait());
    assert!(said.contains("deadlock"), "{said}");
    assert!(lock.try_exclusive(10..).is_some(), "it has left");
    drop(held);
}

#[test]
fn what_an_owner_asks_for_is_not_announced() {
    let lock = lock();
    let me = Owner::new();
    let said = message(|| block_on(me.scope(async { lock.request_arc(0..10, Add).announce() })));
    assert!(said.contains("cannot be announced"), "{said}");
    let held = lock.add(0..10);
    let said = message(|| held.request(0..10, Add).announce());
    assert!(said.contains("cannot be announced"), "{said}");
    drop(held);
    assert_eq!(lock.snapshot().requests().len(), 0);
}

/// A drain waits for one that is announced, as for who waits: until it has gone.
#[test]
fn a_drain_waits_for_it() {
    let lock = lock();
    let guard = block_on(lock.request_arc(0..10, Exclusive));
    let scan = lock.request_arc(0..100, Add).announce();
    let mut drain = pending(lock.drained(50..60, Exclusive));
    let mut scan = pending(scan);
    drop(guard);
    let held = scan.ready();
    drain.pending();
    drop(held);
    drain.ready();
    // A drain of one who holds what is in its way would wait for itself.
    let me = Owner::new();
    let mine = lock.request_arc(0..10, Exclusive).owner(&me).wait().unwrap();
    let scan = lock.request_arc(0..100, Add).announce();
    let drained = lock.drained_arc(50..60, Exclusive).owner(&me).wait();
    assert!(matches!(drained, Err(AcquireError::Deadlock(_))), "{drained:?}");
    drop((mine, scan));
}

#[test]
fn a_poisoned_holder_refuses_who_waits() {
    let lock = lock();
    let guard = block_on(lock.request_arc(0..10, Exclusive));
    guard.poison("stuck");
    let scan = lock.request(0..100, Add).announce();
    assert!(scan.is_clear(10..) && !scan.is_clear(..10));
    let said = message(|| scan.wait());
    assert!(said.contains("stuck"), "{said}");
    let scan = lock.request(0..100, Add).announce();
    assert!(guard.clear_poison());
    drop(guard);
    drop(scan.wait());
}

#[test]
fn no_newcomer_goes_before_it() {
    let lock = Arc::new(RangeLock::new().reordering(never_over(true)));
    let guard = block_on(lock.request(0..10, Exclusive));
    let yields = pending(lock.request(0..100, Exclusive));
    assert!(lock.try_add(50..51).is_none(), "a `try_` goes before nobody");
    let newcomer = block_on(lock.request(50..51, Add));
    drop(newcomer);
    // It comes as a newcomer itself, and goes before who yields; if it need not queue.
    drop(block_on(lock.request_arc(60..100, Block).announce()));
    let other = block_on(lock.request(95..100, Add));
    let scan = lock.request_arc(60..100, Block).announce();
    let mut late = pending(lock.request(70..71, Add));
    assert!(!scan.is_clear(70..71), "somebody waits in front");
    drop((guard, yields, other));
    late.pending();
    drop(scan);
    drop(late.ready());
}

#[test]
fn batches_come_behind_it_and_are_noted() {
    let lock = lock();
    let guard = block_on(lock.request(0..10, Exclusive));
    let mut first = pending(Batch::new().exclusive(lock.clone(), 5..6).exclusive(lock.clone(), 20..30));
    let scan = lock.request_arc(0..100, Add).announce();
    let mut second = pending(Batch::new().exclusive(lock.clone(), 200..210).exclusive(lock.clone(), 50..60));
    assert!(!scan.is_clear(25..26) && scan.is_clear(30..));
    drop(guard);
    drop(first.ready());
    second.pending();
    assert!(scan.is_clear(30..));
    drop(scan);
    drop(second.ready());
}

#[test]
fn many_in_front_are_kept_in_mind() {
    let lock = lock();
    let few: Vec<_> = (0..16).map(|i| block_on(lock.request_arc(i * 10..i * 10 + 1, Exclusive))).collect();
    let scan = lock.request_arc(0..1000, Add).announce();
    assert!((0..16).all(|i| !scan.is_clear(i * 10..i * 10 + 1) && scan.is_clear(i * 10 + 1..i * 10 + 10)));
    drop((few, scan));
    let many: Vec<_> = (0..300).map(|i| block_on(lock.request_arc(i * 3..i * 3 + 1, Exclusive))).collect();
    let scan = lock.request_arc(0..10_000, Add).announce();
    assert!((0..300).all(|i| !scan.is_clear(i * 3..i * 3 + 1)));
    assert!(scan.is_clear(900..), "what lies behind all of them is clear");
    drop(many);
}

#[test]
fn an_empty_one_has_no_place() {
    let lock = lock();
    let guard = block_on(lock.request(.., Exclusive));
    let nothing = lock.request(5..5, Add).announce();
    assert!(nothing.is_clear(..) && nothing.range().is_empty());
    assert!(nothing.wait().range().is_empty());
    drop(guard);
    assert_eq!(lock.add(..).nesting(), Nesting::Outermost);
}

#[test]
fn a_part_is_one() {
    let lock = lock();
    let guard = block_on(lock.request(0..10, Exclusive));
    let scan = lock.request_arc(5..100, Add).announce();
    assert_eq!(message(|| scan.is_clear(0..10)), "0..10 is not a part of 5..100, which was announced");
    assert_eq!(format!("{scan:?}"), "Announced { range: 5..100, mode: add, state: queued }");
    let waiter = lock.snapshot();
    assert_eq!(waiter.waiters().next().unwrap().range(), scan.range());
    assert_eq!(waiter.waits_for(waiter.waiters().next().unwrap()).count(), 1);
    drop(guard);
}

#[test]
fn one_that_is_forgotten_stays() {
    let lock = RangeLock::new();
    let guard = block_on(lock.request(0..10, Exclusive));
    let scan = lock.request(0..100, Exclusive).announce();
    common::forget(scan);
    drop(guard);
    assert!(elsewhere(|| lock.try_add(50..51).is_none()));
}

// Random histories.

/// Bytes, as bits.
type Bytes = u64;

fn bytes(start: u64, end: u64) -> Bytes {
    let below = |at: u64| if at == 64 { u64::MAX } else { (1 << at) - 1 };
    below(end) & !below(start)
}

enum Guard {
    Task(ArcRangeGuard),
    Token(ArcOwnerGuard),
}

macro_rules! either {
    ($guard:expr, $it:ident => $act:expr) => {
        match $guard {
            Guard::Task($it) => $act,
            Guard::Token($it) => $act,
        }
    };
}

/// What is asked for, by whom, and when it came.
#[derive(Clone, Copy, Debug)]
struct Asked {
    bytes: Bytes,
    mode: Mode,
    who: usize,
    came: usize,
}

impl Asked {
    fn conflicts(&self, other: &Asked) -> bool {
        self.who != other.who && !together(self.mode, other.mode)
    }

    fn meets(&self, other: &Asked) -> bool {
        self.conflicts(other) && self.bytes & other.bytes != 0
    }
}

type Waiting = Hand<Pin<Box<dyn Future<Output = Result<Guard, AcquireError>>>>>;

struct Scan {
    asked: Asked,
    place: Announced<Arc<RangeLock>>,
    /// What was in the way at the announcement, held or waited for.
    in_front: Bytes,
    /// What was held in its way since, at any time.
    touched: Bytes,
    /// Whether somebody may have been let past since, or become more.
    is_sure: bool,
}

#[derive(Default, Debug)]
struct Counts {
    clear: usize,
    not_clear: usize,
    passed: usize,
    moved: usize,
    waited: usize,
    refused: usize,
}

struct History {
    lock: Arc<RangeLock>,
    tokens: Vec<Owner>,
    rng: Rng,
    came: usize,
    strangers: usize,
    held: Vec<(Asked, Guard)>,
    waiting: Vec<(Asked, Waiting)>,
    scans: Vec<Scan>,
    counts: Counts,
}

impl History {
    fn new(seed: u64) -> History {
        let lock = Arc::new(RangeLock::new().reordering(never_over(seed % 3 == 0)));
        let tokens: Vec<Owner> = (0..3).map(|_| Owner::new()).collect();
        let strangers = tokens.len();
        let rng = Rng::with_seed(seed);
        let (held, waiting, scans, counts) = (Vec::new(), Vec::new(), Vec::new(), Counts::default());
        History { lock, tokens, rng, came: 0, strangers, held, waiting, scans, counts }
    }

    fn range(&mut self) -> (u64, u64) {
        let start = self.rng.u64(0..64);
        let longest = if self.rng.bool() { 4 } else { 64 };
        (start, (start + self.rng.u64(1..=longest)).min(64))
    }

    /// Somebody asks: one of the tokens, or somebody new.
    fn asked(&mut self, (start, end): (u64, u64)) -> Asked {
        self.came += 1;
        let is_new = self.rng.u8(0..5) < 3;
        let who = if is_new { self.somebody_new() } else { self.rng.usize(0..self.tokens.len()) };
        Asked { bytes: bytes(start, end), mode: Mode::ALL[self.rng.usize(0..3)], who, came: self.came }
    }

    fn somebody_new(&mut self) -> usize {
        self.strangers += 1;
        self.strangers
    }

    fn is_alone(&self, asked: &Asked) -> bool {
        asked.who >= self.tokens.len()
    }

    /// It holds from now on.
    fn grant(&mut self, asked: Asked, guard: Guard) {
        for (other, _) in &self.held {
            assert!(!asked.meets(other), "{asked:?} beside {other:?}");
        }
        for scan in &mut self.scans {
            let passes = scan.asked.meets(&asked) && asked.came > scan.asked.came;
            assert!(!passes || asked.who < self.tokens.len(), "{asked:?} has overtaken {:?}", scan.asked);
            self.counts.passed += usize::from(passes);
            scan.is_sure &= !passes;
        }
        self.held.push((asked, guard));
        self.look();
    }

    /// Who holds now was in the way of those who are announced.
    fn look(&mut self) {
        for scan in &mut self.scans {
            let in_the_way = self.held.iter().filter(|(held, _)| held.conflicts(&scan.asked));
            scan.touched |= in_the_way.fold(0, |all, (held, _)| all | held.bytes) & scan.asked.bytes;
        }
    }

    /// Polls those who were woken, and no others.
    fn settle(&mut self) {
        while let Some(next) = self.waiting.iter().position(|(_, hand)| hand.woken()) {
            let (asked, mut hand) = self.waiting.swap_remove(next);
            match hand.poll() {
                Poll::Pending => self.waiting.push((asked, hand)),
                Poll::Ready(Ok(guard)) => self.grant(asked, guard),
                Poll::Ready(Err(refused)) => self.refused(&refused),
            }
        }
    }

    fn refused(&mut self, refused: &AcquireError) {
        assert!(matches!(refused, AcquireError::Deadlock(_)), "{refused}");
        self.counts.refused += 1;
    }

    fn wait(&mut self, asked: Asked, future: Pin<Box<dyn Future<Output = Result<Guard, AcquireError>>>>) {
        let mut hand = Hand::new(future);
        // A nested one is let past at its first poll, or others are.
        if !self.is_alone(&asked) {
            self.scans.iter_mut().for_each(|scan| scan.is_sure = false);
        }
        match hand.poll() {
            Poll::Pending => self.waiting.push((asked, hand)),
            Poll::Ready(Ok(guard)) => self.grant(asked, guard),
            Poll::Ready(Err(refused)) => self.refused(&refused),
        }
    }

    fn ask(&mut self) {
        let range = self.range();
        let asked = self.asked(range);
        let request = self.lock.request_arc(range.0..range.1, asked.mode);
        let future: Pin<Box<dyn Future<Output = _>>> = match self.tokens.get(asked.who) {
            Some(token) => {
                let acquire = request.owner(token).into_future();
                Box::pin(async { acquire.await.map(Guard::Token) })
            }
            None => {
                let acquire: Acquire<_, _> = request.into_future();
                Box::pin(async { Ok(Guard::Task(acquire.await)) })
            }
        };
        self.wait(asked, future);
    }

    fn announce(&mut self) {
        let range = self.range();
        let asked = Asked { who: self.somebody_new(), ..self.asked(range) };
        let others = self.held.iter().map(|(other, _)| other).chain(self.waiting.iter().map(|(other, _)| other));
        let others = others.chain(self.scans.iter().map(|scan| &scan.asked));
        let in_front = others.filter(|other| other.conflicts(&asked)).fold(0, |all, other| all | other.bytes);
        let request = self.lock.request_arc(range.0..range.1, asked.mode);
        let place = request.announce();
        let in_front = in_front & asked.bytes;
        self.scans.push(Scan { asked, place, in_front, touched: 0, is_sure: true });
        self.look();
    }

    fn check(&mut self) {
        let range = self.range();
        let part = bytes(range.0, range.1);
        for scan in &self.scans {
            let whole = range.0..range.1;
            let inside = part & scan.asked.bytes == part;
            if !inside {
                continue;
            }
            let is_clear = scan.place.is_clear(whole);
            assert!(!is_clear || scan.touched & part == 0, "{:?} was in the way of {range:?}", scan.asked);
            assert!(is_clear || !scan.is_sure || scan.in_front & part != 0, "nobody was in the way of {range:?}");
            self.counts.clear += usize::from(is_clear && scan.in_front != 0);
            self.counts.not_clear += usize::from(!is_clear);
        }
    }

    /// Something happens to one that is announced.
    fn go_on(&mut self) {
        if self.scans.is_empty() {
            return;
        }
        let Scan { asked, place, .. } = self.scans.swap_remove(self.rng.usize(0..self.scans.len()));
        if self.rng.bool() {
            return;
        }
        self.counts.waited += 1;
        let acquire = place.into_future();
        self.wait(asked, Box::pin(async { Ok(Guard::Task(acquire.await)) }));
    }

    /// A hold has moved, or may have.
    fn moved(&mut self) {
        self.counts.moved += 1;
        self.scans.iter_mut().for_each(|scan| scan.is_sure = false);
    }

    fn convert(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let at = self.rng.usize(0..self.held.len());
        let (mut asked, mut guard) = self.held.swap_remove(at);
        let (range, mode) = (self.range(), Mode::ALL[self.rng.usize(0..3)]);
        let (start, end) = (u64::from(asked.bytes.trailing_zeros()), u64::from(64 - asked.bytes.leading_zeros()));
        match self.rng.u8(0..4) {
            0 => {
                self.moved();
                if either!(&mut guard, it => it.try_convert(mode)) {
                    asked.mode = mode;
                }
            }
            1 => {
                self.moved();
                let more = (range.0.min(start), range.1.max(end));
                if either!(&mut guard, it => it.try_extend(more.0..more.1)) {
                    asked.bytes = bytes(more.0, more.1);
                }
            }
            2 if end - start > 1 => {
                either!(&mut guard, it => it.shrink(start + 1..end));
                asked.bytes = bytes(start + 1, end);
            }
            _ if asked.mode == Exclusive => {
                either!(&mut guard, it => it.downgrade(mode));
                asked.mode = mode;
            }
            _ => {}
        }
        self.grant(asked, guard);
    }

    fn play(mut self, steps: usize) -> Counts {
        for _ in 0..steps {
            match self.rng.u8(0..12) {
                // As many as are kept in mind one by one, at most.
                0..3 if self.held.len() + self.waiting.len() + self.scans.len() < 14 => self.ask(),
                3..5 if self.scans.len() < 4 => self.announce(),
                5..7 if !self.held.is_empty() => {
                    drop(self.held.swap_remove(self.rng.usize(0..self.held.len())));
                }
                7 if !self.waiting.is_empty() && self.rng.u8(0..4) == 0 => {
                    drop(self.waiting.swap_remove(self.rng.usize(0..self.waiting.len())));
                }
                8 => self.convert(),
                9 => self.go_on(),
                _ => {}
            }
            self.settle();
            (0..4).for_each(|_| self.check());
        }
        // All who are left get on, and only by being woken.
        self.scans.clear();
        self.settle();
        while let Some(held) = self.held.pop() {
            drop(held);
            self.settle();
        }
        assert!(
            self.waiting.is_empty(),
            "{:?} sleeps on",
            self.waiting.iter().map(|(asked, _)| asked).collect::<Vec<_>>()
        );
        assert_eq!(self.lock.snapshot().requests().len(), 0);
        self.counts
    }
}

#[test]
fn histories_judged_by_who_has_held_what() {
    let first = from_env("SPANLOCK_SEED", 0);
    let seeds = from_env("SPANLOCK_ANNOUNCE_SEEDS", by_build(1500, 20_000));
    let mut all = Counts::default();
    for seed in first..first + seeds {
        let counts = catch_unwind(|| History::new(seed).play(120)).unwrap_or_else(|_| panic!("seed {seed}"));
        let Counts { clear, not_clear, passed, moved, waited, refused } = counts;
        all.clear += clear;
        all.not_clear += not_clear;
        all.passed += passed;
        all.moved += moved;
        all.waited += waited;
        all.refused += refused;
    }
    println!("{all:?}");
    let Counts { clear, not_clear, passed, moved, waited, refused } = all;
    assert!([clear, not_clear, passed, moved, waited, refused].iter().all(|&count| count > 0), "{all:?}");
}
