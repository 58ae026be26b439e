//! Promise: a drain waits for those who came before it and are in conflict, until they have gone; for nobody else; and
//! nobody waits for it. Who holds something meanwhile is answered instead of waiting for ever.
//!
//! One thread, futures polled by hand, but where a call has to block. (Random histories of drains among all else are in
//! `fifo.rs` and `contract`.)

mod common;

use common::poll::{Hand, block_on};
use common::watch::Watchdog;
use common::{lasting, together};
use spanlock::{AcquireError, Batch, Deadlock, Drained, Mode, Owner, RangeLock, WholeFileLock};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use Mode::{Add, Block, Exclusive};

const SHORT: Duration = Duration::from_millis(2);

/// One that was polled, and waits.
fn pending<F: Future + Unpin>(future: impl IntoFuture<IntoFuture = F>) -> Hand<F> {
    let mut hand = Hand::new(future);
    assert!(hand.poll().is_pending(), "it should wait");
    hand
}

#[track_caller]
fn deadlock(answer: Result<(), AcquireError>) -> Deadlock {
    match answer {
        Err(AcquireError::Deadlock(deadlock)) => deadlock,
        other => panic!("it should be a deadlock: {other:?}"),
    }
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
fn who_conflicts_is_waited_for() {
    for held in Mode::ALL {
        for drained in Mode::ALL {
            let lock = RangeLock::new();
            let guard = block_on(lock.request(10..20, held));
            let conflicts = !together(held, drained);
            for (range, meets) in [(0..10, false), (20..30, false), (19..20, true), (0..11, true), (15..15, false)] {
                let waits = conflicts && meets;
                assert_eq!(lock.drained(range.clone(), drained).try_now(), !waits, "{held} {drained} {range:?}");
                let mut drain = Hand::new(lock.drained(range, drained));
                assert_eq!(drain.poll().is_pending(), waits);
            }
            let mut drain = Hand::new(lock.drained(.., drained));
            assert_eq!(drain.poll().is_pending(), conflicts);
            drop(guard);
            if conflicts {
                assert!(drain.woken());
                drain.ready();
            }
            assert!(lock.drained(.., drained).try_now());
        }
    }
}

#[test]
fn who_comes_later_is_not_waited_for_and_does_not_wait() {
    let lock = RangeLock::new();
    let first = block_on(lock.request(0..10, Add));
    let mut drain = pending(lock.drained(0..10, Exclusive));
    let second = block_on(lock.request(0..10, Add)); // granted: nobody is in its way
    assert!(lock.try_add(5..6).is_some(), "a `try_` neither");
    drop(first);
    assert!(drain.woken());
    drain.ready();
    assert!(!lock.drained(0..10, Exclusive).try_now(), "the second is there still");
    drop(second);
}

#[test]
fn who_waits_is_waited_for_until_it_has_held_and_let_go() {
    let lock = RangeLock::new();
    let holder = block_on(lock.request(0..1, Exclusive));
    let mut before = pending(lock.request(0..10, Exclusive));
    let mut drain = pending(lock.drained(5..6, Exclusive));
    let mut later = pending(lock.request(5..6, Exclusive));
    drop(holder);
    drain.pending();
    let before = before.ready();
    drain.pending();
    drop(before);
    let later = later.ready();
    assert!(drain.woken());
    drain.ready();
    drop(later);
}

#[test]
fn who_gives_up_has_gone() {
    let lock = RangeLock::new();
    let holder = block_on(lock.request(0..1, Exclusive));
    let before = pending(lock.request(0..10, Exclusive));
    let mut drain = pending(lock.drained(5..6, Exclusive));
    drop(before);
    assert!(drain.woken());
    drain.ready();
    drop(holder);
}

#[test]
fn many_who_came_before_and_many_who_came_later() {
    let lock = RangeLock::new();
    let mut before: Vec<_> = (0..60).map(|i| block_on(lock.request(i..i + 1, Exclusive))).collect();
    let mut drain = pending(lock.drained(.., Exclusive));
    let mut later: Vec<_> = (0..60).map(|i| pending(lock.request(i..i + 1, Exclusive))).collect();
    fastrand::Rng::with_seed(7).shuffle(&mut before);
    let mut polls = 0;
    while let Some(guard) = before.pop() {
        drop(guard);
        let done = drain.woken() && drain.poll().is_ready();
        polls += 1;
        assert_eq!(done, before.is_empty(), "after {polls}");
    }
    // None of those who came later was polled meanwhile.
    later.iter_mut().for_each(|hand| drop(hand.ready()));
}

#[test]
fn an_owner_does_not_wait_for_itself() {
    let lock = Arc::new(RangeLock::new());
    let mine = lock.exclusive(0..10);
    assert_eq!(lock.drained(.., Exclusive).wait(), Ok(()));
    assert!(lock.drained(.., Exclusive).try_now());
    assert_eq!(mine.drained(.., Exclusive).wait(), Ok(()));
    let me = Owner::new();
    let its = lock.request(20..30, Block).owner(&me).wait().unwrap();
    assert_eq!(lock.drained(15.., Exclusive).owner(&me).wait(), Ok(()));
    assert!(!lock.drained(15.., Exclusive).owner(&Owner::new()).try_now());
    assert!(!lock.drained_arc(.., Exclusive).try_now(), "an owner of its own");
    drop((mine, its));
    // A task, through its guard.
    let held = block_on(lock.request_arc(0..10, Block));
    assert_eq!(block_on(held.drained(.., Exclusive)), Ok(()));
    let other = block_on(lock.request_arc(10..20, Add));
    let mut drain = pending(held.drained(.., Exclusive));
    drop(other);
    assert_eq!(drain.ready(), Ok(()));
    drop(held);
    assert_eq!(block_on(me.scope(async { lock.drained_arc(.., Exclusive).await })), ());
}

#[test]
fn what_a_guard_becomes_is_waited_for() {
    let lock = RangeLock::new();
    let wait = |range: std::ops::Range<u64>, mode| pending(lock.drained(range, mode));
    // Downgraded and shrunk out of the way.
    let mut guard = lock.request_by_other(0..10, Exclusive);
    let (mut add, mut block) = (wait(0..10, Add), wait(0..10, Block));
    guard.downgrade(Add);
    assert!(add.woken());
    add.ready();
    block.pending();
    let mut tail = wait(8..10, Block);
    guard.shrink(0..5);
    tail.ready();
    block.pending();
    // Split, and moved by a conversion in place.
    let (mut head, rest) = guard.split(2);
    block.pending();
    assert!(head.try_convert(Exclusive));
    drop(rest);
    block.pending();
    assert!(head.try_extend(0..7));
    block.pending();
    drop(head);
    assert!(block.woken());
    block.ready();
    // What is asked for by hand is another request.
    let guard = lock.request_by_other(0..10, Add);
    let mut drain = wait(0..10, Exclusive);
    let more = guard.request(0..10, Exclusive).wait().unwrap();
    drain.pending();
    drop(guard);
    drain.ready();
    drop(more);
}

/// For guards whose owner is none of the test's.
trait Others {
    fn request_by_other(&self, range: std::ops::Range<u64>, mode: Mode) -> spanlock::OwnerGuard<'_>;
}

impl Others for RangeLock {
    fn request_by_other(&self, range: std::ops::Range<u64>, mode: Mode) -> spanlock::OwnerGuard<'_> {
        self.request(range, mode).owner(&Owner::new()).wait().unwrap()
    }
}

/// A conversion that waits ends in a hold that had a place behind the drain; but it is what the guard has become, which
/// came before.
#[test]
fn what_a_guard_becomes_by_waiting_is_waited_for() {
    for extends in [false, true] {
        let watchdog = Watchdog::new("what_a_guard_becomes_by_waiting_is_waited_for");
        let lock = RangeLock::new();
        // In the way of the conversion, and not of the drain.
        let other = if extends { lock.request_by_other(20..30, Add) } else { lock.request_by_other(0..1, Add) };
        let (orders, incoming) = mpsc::channel::<()>();
        let (done, converted) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let (lock, orders, converted) = (&lock, orders, converted);
            scope.spawn(move || {
                let mut guard = lock.request_by_other(0..10, if extends { Exclusive } else { Add });
                done.send(()).unwrap();
                incoming.recv().unwrap();
                match extends {
                    false => guard.convert(Exclusive).unwrap(),
                    true => guard.extend(0..30).unwrap(),
                }
                done.send(()).unwrap();
                incoming.recv().unwrap();
                drop(guard);
            });
            converted.recv().unwrap();
            let mut drain = pending(lock.drained(5..6, Exclusive));
            orders.send(()).unwrap();
            while lock.snapshot().waiters().count() == 0 {
                thread::yield_now();
            }
            drop(other);
            converted.recv().unwrap();
            drain.pending();
            orders.send(()).unwrap();
            block_on(drain.into_inner());
        });
        watchdog.step();
    }
}

#[test]
fn a_drain_leaves_nothing_behind() {
    let lock = RangeLock::new();
    let lock = lasting(&lock);
    let holder = block_on(lock.request(0..10, Exclusive));
    let me = Owner::new();
    for _ in 0..3 {
        let drains: Vec<_> = (0..20).map(|_| pending(lock.drained(.., Exclusive))).collect();
        let owned: Vec<_> = (0..20).map(|_| pending(lock.drained(.., Exclusive).owner(&me))).collect();
        assert_eq!(lock.snapshot().requests().len(), 1, "nobody else asks for anything");
        drop((drains, owned));
    }
    // Whom nobody polls any more is in nobody's way, and a search does not come by it.
    let mut last = pending(lock.drained(.., Exclusive));
    drop(holder);
    assert!(lock.try_exclusive(..).is_some());
    last.ready();
    lock.trim();
    assert_eq!(lock.heap_nodes(), 0);
}

#[test]
fn deadlines_and_tries() {
    let lock = RangeLock::new();
    assert_eq!(lock.drained(.., Exclusive).deadline(Instant::now()).wait(), Ok(()));
    let holder = lock.request_by_other(0..10, Exclusive);
    let begun = Instant::now();
    let late = lock.drained(.., Add).timeout(SHORT).wait();
    assert!(matches!(late, Err(AcquireError::TimedOut(_))));
    let told = late.unwrap_err().to_string();
    assert!(told.contains("waited until the deadline for those to go who were in the way of"), "{told}");
    assert!(begun.elapsed() >= SHORT);
    assert!(matches!(lock.drained(.., Add).timeout(Duration::ZERO).wait(), Err(AcquireError::TimedOut(_))));
    assert_eq!(lock.drained(5..5, Add).timeout(Duration::ZERO).wait(), Ok(()));
    assert_eq!(lock.drained(10.., Add).timeout(SHORT).wait(), Ok(()));
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(lock.drained(.., Add).timeout(Duration::MAX).wait(), Ok(())));
        scope.spawn(|| assert_eq!(lock.drained(.., Add).timeout(Duration::from_secs(60)).wait(), Ok(())));
        scope.spawn(|| drop(holder));
    });
    let whole = WholeFileLock::new();
    let guard = whole.as_range_lock().request_by_other(3..4, Block);
    assert!(whole.drained(Block).try_now() && !whole.drained(Add).try_now());
    drop(guard);
    assert!(message(|| lock.drained(std::ops::Range { start: 5, end: 4 }, Add)).contains('5'));
    let mine = lock.exclusive(..);
    assert!(message(|| mine.drained(.., Add).into_future()).contains("cannot be awaited"));
}

#[test]
fn a_drain_says_what_it_does() {
    let lock = RangeLock::new();
    let holder = block_on(lock.request(0..10, Exclusive));
    let mut drain = lock.drained(0..4096, Add).into_future();
    assert!(format!("{drain:?}").contains("not begun yet"), "{drain:?}");
    assert!(common::poll::poll_once(&mut drain).is_pending());
    assert_eq!(format!("{drain:?}"), "Drained { waits_for: Add 0..4096, state: waiting }");
    drop(holder);
    assert!(common::poll::poll_once(&mut drain).is_ready());
    assert!(message(|| common::poll::poll_once(&mut drain)).contains("polled after"));
}

/// A lock that a newcomer may have while somebody else waits: he is not waited for either.
#[test]
fn with_a_window() {
    let lock = RangeLock::new().reordering(common::never_over(true));
    let holder = block_on(lock.request(0..10, Add));
    let mut waiter = pending(lock.request(0..10, Exclusive));
    let mut drain = pending(lock.drained(0..10, Exclusive));
    let newcomer = block_on(lock.request(0..10, Add));
    drop(holder);
    drain.pending();
    waiter.pending();
    drop(newcomer);
    let guard = waiter.ready();
    let another = pending(lock.request(0..10, Add));
    drain.pending();
    drop(guard);
    drain.ready();
    drop(another);
}

type OwnedDrain = Hand<Drained<&'static RangeLock, spanlock::ByOwner>>;

fn drain_of(lock: &'static RangeLock, owner: &Owner, range: std::ops::Range<u64>) -> OwnedDrain {
    Hand::new(lock.drained(range, Exclusive).owner(owner))
}

#[test]
fn whom_it_waits_for_waits_for_what_its_owner_holds() {
    let (file, log) = (RangeLock::named("file"), RangeLock::named("log"));
    let (file, log) = (lasting(&file), lasting(&log));
    let (me, other) = (Owner::named("drainer"), Owner::named("holder"));
    let mine = log.request(0..1, Exclusive).owner(&me).wait().unwrap();
    let its = file.request(0..10, Add).owner(&other).wait().unwrap();
    let mut wait = pending(log.request(0..1, Exclusive).owner(&other));
    let answer = deadlock(drain_of(file, &me, 5..6).ready());
    assert_eq!(answer.waits().len(), 2);
    assert!(answer.waits().iter().all(|wait| !wait.queued));
    let said = answer.to_string();
    assert!(
        said.contains("\"drainer\" asks file for 5..6 (exclusive)") && said.contains("\"holder\" holds 0..10 (add)"),
        "{said}"
    );
    // The refused one has left, and the other gets on.
    drop(mine);
    drop((wait.ready().unwrap(), its));
    assert_eq!(drain_of(file, &me, 5..6).ready(), Ok(()));
}

#[test]
fn who_closes_the_cycle_later_is_refused() {
    let (file, log) = (RangeLock::new(), RangeLock::new());
    let (file, log) = (lasting(&file), lasting(&log));
    let (me, other) = (Owner::new(), Owner::new());
    let mine = log.request(0..1, Exclusive).owner(&me).wait().unwrap();
    let its = file.request(0..10, Add).owner(&other).wait().unwrap();
    let mut drain = drain_of(file, &me, 5..6);
    drain.pending();
    let refused = block_on(log.request(0..1, Exclusive).owner(&other));
    let Err(AcquireError::Deadlock(answer)) = refused else { panic!("{refused:?}") };
    assert!(answer.waits().iter().any(|wait| wait.owner.id == me.id()));
    drain.pending();
    drop(its);
    assert_eq!(drain.ready(), Ok(()));
    drop(mine);
}

/// Who came later is nobody whom the drain waits for, though he holds the bytes.
#[test]
fn who_comes_later_closes_no_cycle() {
    let (file, log) = (RangeLock::new(), RangeLock::new());
    let (file, log) = (lasting(&file), lasting(&log));
    let (me, later) = (Owner::new(), Owner::new());
    let mine = log.request(0..1, Exclusive).owner(&me).wait().unwrap();
    let before = file.request_by_other(0..10, Add);
    let mut drain = drain_of(file, &me, 5..6);
    drain.pending();
    let its = file.request(0..10, Add).owner(&later).wait().unwrap();
    let mut wait = pending(log.request(0..1, Exclusive).owner(&later));
    drop(before);
    assert_eq!(drain.ready(), Ok(()));
    drop(mine);
    drop((wait.ready().unwrap(), its));
}

/// A request that only waits has to be granted before it can let go: in front of a drain it counts as a hold. It is in
/// no index.
#[test]
fn one_that_waits_for_what_the_owner_holds_is_a_deadlock_too() {
    let lock = RangeLock::named("file");
    let lock = lasting(&lock);
    let me = Owner::named("drainer");
    let mine = lock.request(0..10, Exclusive).owner(&me).wait().unwrap();
    let mut waiter = pending(lock.request(0..100, Exclusive));
    let answer = deadlock(drain_of(lock, &me, 50..60).ready());
    let waits = answer.waits();
    assert_eq!((waits.len(), waits[0].queued, waits[1].queued), (2, true, false), "{answer}");
    assert!(answer.to_string().contains("waits first for 0..100 (exclusive)"), "{answer}");
    assert_eq!((waits[1].range, waits[1].mode), (spanlock::ByteRange::new(0..100), Exclusive));
    assert_eq!(waits[1].held, spanlock::ByteRange::new(0..10));
    // A request in its place would have been let past: nobody holds those bytes.
    assert!(block_on(lock.request(50..60, Exclusive).owner(&me)).is_ok());
    drop(mine);
    drop(waiter.ready());
}

/// Drainer -> one that waits -> another that waits in front of it -> holder -> what the drainer holds. Those in the
/// middle are in no index, and the last edge comes last.
#[test]
fn a_cycle_through_a_queue_is_found_by_who_closes_it() {
    let (file, log) = (RangeLock::new(), RangeLock::new());
    let (file, log) = (lasting(&file), lasting(&log));
    let (me, other) = (Owner::new(), Owner::new());
    let mine = log.request(0..1, Exclusive).owner(&me).wait().unwrap();
    let its = file.request(90..91, Exclusive).owner(&other).wait().unwrap();
    let front = pending(file.request(70..95, Exclusive));
    let mut queue = vec![front];
    // So many behind one another that a view of each would be noticed.
    queue.extend((0..20).map(|_| pending(file.request(50..75, Exclusive))));
    let mut drain = drain_of(file, &me, 50..60);
    drain.pending();
    let refused = block_on(log.request(0..1, Exclusive).owner(&other));
    let Err(AcquireError::Deadlock(answer)) = refused else { panic!("{refused:?}") };
    let waits = answer.waits();
    // The refused one, the drain, one of the queue, its front; and no more need be in it.
    assert_eq!(waits.iter().filter(|wait| wait.queued).count(), 2, "{answer}");
    assert_eq!(waits.len(), 4, "{answer}");
    drain.pending();
    drop(its);
    queue.iter_mut().for_each(|hand| drop(hand.ready()));
    assert_eq!(drain.ready(), Ok(()));
    drop(mine);
}

/// The drain waits for a holder, who waits behind somebody who waits for what the drain's owner holds: that holder is
/// let past him, like anybody whom a searcher needs.
#[test]
fn whom_it_needs_is_let_past() {
    let (file, log) = (RangeLock::new(), RangeLock::new());
    let (file, log) = (lasting(&file), lasting(&log));
    let (me, other) = (Owner::new(), Owner::new());
    let mine = log.request(0..1, Exclusive).owner(&me).wait().unwrap();
    let its = file.request(0..10, Add).owner(&other).wait().unwrap();
    let mut wide = pending(log.request(0..10, Exclusive));
    let mut behind = Hand::new(log.request(5..6, Exclusive).owner(&other));
    behind.pending();
    let mut drain = drain_of(file, &me, 5..6);
    drain.pending();
    let more = behind.ready().expect("it was let past");
    drop((more, its));
    assert_eq!(drain.ready(), Ok(()));
    drop(mine);
    drop(wide.ready());
}

/// A guard that came first comes into the way by becoming more, and its owner is blocked: nobody who converts looks for
/// drains, so that one looks again.
#[test]
fn a_guard_that_becomes_more_can_close_a_cycle() {
    let (file, log) = (RangeLock::new(), RangeLock::new());
    let (file, log) = (lasting(&file), lasting(&log));
    let (me, other) = (Owner::new(), Owner::new());
    let mine = log.request(0..1, Exclusive).owner(&me).wait().unwrap();
    let first = file.request_by_other(0..10, Add);
    let mut its = file.request(20..30, Add).owner(&other).wait().unwrap();
    let mut drain = drain_of(file, &me, 5..6);
    drain.pending();
    let mut blocked = pending(log.request(0..1, Exclusive).owner(&other));
    assert!(its.try_extend(0..30));
    drain.pending();
    drop(first);
    assert!(drain.woken());
    deadlock(drain.ready());
    drop(mine);
    drop((blocked.ready().unwrap(), its));
}

/// A drain needs a batch, which stands behind somebody who waits for what the drain's owner holds. The batch's owner
/// has nothing else: it is let past nobody.
#[test]
fn who_holds_nothing_is_let_past_nobody() {
    let lock = RangeLock::new();
    let lock = lasting(&lock);
    let me = Owner::new();
    let mine = lock.request(0..1, Exclusive).owner(&me).wait().unwrap();
    let mut wide = pending(lock.request(0..20, Exclusive));
    let mut batch = pending(Batch::new().exclusive(lock, 10..11).exclusive(lock, 30..31));
    deadlock(drain_of(lock, &me, 30..31).ready());
    batch.pending();
    drop(mine);
    batch.pending();
    drop(wide.ready());
    drop(batch.ready());
}

/// Who waits for a holder, and stays, may be behind one that was let past him.
#[test]
fn one_that_was_let_past_is_in_front_too() {
    let lock = RangeLock::new();
    let lock = lasting(&lock);
    let (me, other) = (Owner::new(), Owner::new());
    let mine = lock.request(5..7, Add).owner(&me).wait().unwrap();
    let its = lock.request(0..2, Block).owner(&other).wait().unwrap();
    let mut alone = pending(lock.request(5..8, Exclusive));
    let mut past = pending(lock.request(.., Add).owner(&me));
    drop(mine);
    // It waits for the one alone, who waits for the one who was let past, which is of its own owner.
    let answer = deadlock(drain_of(lock, &me, 7..8).ready());
    assert!(answer.waits().iter().all(|wait| wait.queued), "{answer}");
    drop(its);
    drop(past.ready().unwrap());
    drop(alone.ready());
}

/// Two drains wait for each other's holds.
#[test]
fn two_drains_that_cross() {
    let (a, b) = (RangeLock::new(), RangeLock::new());
    let (a, b) = (lasting(&a), lasting(&b));
    let (one, two) = (Owner::new(), Owner::new());
    let of_one = a.request(0..1, Add).owner(&one).wait().unwrap();
    let of_two = b.request(0..1, Add).owner(&two).wait().unwrap();
    let mut first = drain_of(b, &one, 0..1);
    first.pending();
    deadlock(drain_of(a, &two, 0..1).ready());
    drop(of_two);
    assert_eq!(first.ready(), Ok(()));
    drop(of_one);
}

/// A thread that waits in a call keeps what it holds as a thread, whoever owns the drain.
#[test]
fn a_call_holds_its_thread_up() {
    let watchdog = Watchdog::new("a_call_holds_its_thread_up");
    let (file, log) = (RangeLock::new(), RangeLock::new());
    let log = lasting(&log);
    let other = Owner::new();
    let its = file.request(0..10, Add).owner(&other).wait().unwrap();
    let mine = log.exclusive(0..1);
    let wait = pending(log.request(0..1, Exclusive).owner(&other));
    deadlock(file.drained(5..6, Exclusive).owner(&Owner::new()).wait());
    deadlock(file.drained(5..6, Exclusive).wait());
    let shared = Arc::new(RangeLock::new());
    let held = shared.request_arc(0..1, Add).wait();
    let of_thread = shared.block(5..6);
    // Nobody but this thread could let go of it.
    assert!(message(|| shared.drained_arc(5..6, Exclusive).wait()).contains("deadlock"));
    drop((mine, wait, its, held, of_thread));
    watchdog.step();
}

/// What is said of flags: all who do not see it are waited for.
#[test]
fn who_is_not_waited_for_knows() {
    const USERS: usize = 3;
    let watchdog = Watchdog::new("who_is_not_waited_for_knows");
    let end = Instant::now() + common::stress_time();
    let (mut in_vain, mut turned_away) = (0, 0);
    while Instant::now() < end {
        let (lock, sealed, written) = (RangeLock::new(), AtomicBool::new(false), AtomicU64::new(0));
        let away = AtomicU64::new(0);
        thread::scope(|scope| {
            for user in 0..USERS as u64 {
                let (lock, sealed, written, away) = (&lock, &sealed, &written, &away);
                scope.spawn(move || {
                    for round in 0..200 {
                        let at = (user * 7 + round) % 20;
                        let _guard = lock.block(at..at + 5);
                        if sealed.load(Relaxed) {
                            away.fetch_add(1, Relaxed);
                        } else {
                            written.store(written.load(Relaxed) + 1, Relaxed);
                        }
                    }
                });
            }
            (0..fastrand::u32(0..2000)).for_each(|_| std::hint::spin_loop());
            sealed.store(true, Relaxed);
            lock.drained(.., Exclusive).wait().expect("this thread holds nothing");
            let now = written.load(Relaxed);
            thread::yield_now();
            assert_eq!(written.load(Relaxed), now, "written when the last one had left");
            in_vain += u64::from(now == 0);
        });
        turned_away += away.into_inner();
        watchdog.step();
    }
    assert!(turned_away > 0, "nobody came later");
    println!("{turned_away} turned away, {in_vain} rounds in which nobody had come");
}
