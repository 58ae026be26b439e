//! Promise: who says who he is does not wait for himself. A request through a guard, or in the scope of an owner, is
//! that owner's; and a wait in a call that only the calling thread itself could end is an answer, whoever owns the
//! request.

mod common;

use common::poll::{Hand, block_on};
use spanlock::{AcquireError, ArcRangeGuard, Batch, Deadlock, Mode, Owner, RangeLock, Scope};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Barrier, mpsc};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use Mode::{Add, Block, Exclusive};

/// Longer than any test takes.
const FOREVER: Duration = Duration::from_secs(20);

fn task(lock: &Arc<RangeLock>, range: std::ops::Range<u64>, mode: Mode) -> ArcRangeGuard {
    Hand::new(lock.request_arc(range, mode)).ready()
}

fn scoped<F: Future>(owner: &Owner, task: F) -> Hand<Pin<Box<Scope<F>>>> {
    Hand::new(Box::pin(owner.scope(task)))
}

/// What `call` panics with.
#[track_caller]
fn message<T>(call: impl FnOnce() -> T) -> String {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(_) => panic!("it should have panicked"),
        Err(panic) => match panic.downcast::<String>() {
            Ok(message) => *message,
            Err(panic) => panic.downcast_ref::<&str>().expect("a message").to_string(),
        },
    }
}

#[track_caller]
fn deadlock<T>(answer: Result<T, AcquireError>) -> Deadlock {
    match answer {
        Err(AcquireError::Deadlock(deadlock)) => deadlock,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was granted"),
    }
}

#[test]
fn a_task_asks_through_its_guard() {
    let lock = Arc::new(RangeLock::new());
    let write = task(&lock, 0..10, Exclusive);
    assert!(lock.request_arc(5..6, Add).try_now().is_none(), "of somebody else");
    let fault = Hand::new(write.request(5..6, Add)).ready().expect("its own");
    let more = fault.request(0..20, Exclusive).wait().expect("its own, too");
    // All of them hold.
    drop(write);
    assert!(lock.try_add(0..1).is_none() && lock.try_add(19..20).is_none());
    drop(more);
    assert!(lock.try_add(0..1).is_some() && lock.try_block(5..6).is_none() && lock.try_add(5..6).is_some());
    drop(fault);
    assert!(lock.try_exclusive(..).is_some());
}

#[test]
fn the_parts_of_a_guard_ask_as_one() {
    let lock = Arc::new(RangeLock::new());
    let (head, tail) = task(&lock, 0..10, Exclusive).split(4);
    assert!(head.request(4..10, Add).try_now().is_some() && tail.request(0..4, Add).try_now().is_some());
    drop((head, tail));
    let both = Batch::new().exclusive(lock.clone(), 0..4).exclusive(lock.clone(), 8..10).wait();
    assert!(both[0].request(8..10, Add).try_now().is_some() && both[1].request(0..4, Add).try_now().is_some());
    drop(both);
    // One that holds nothing has an owner, too.
    let nothing = task(&lock, 0..0, Add);
    drop(nothing.request(0..1, Exclusive).wait().unwrap());
    assert!(lock.try_exclusive(..).is_some());
}

#[test]
fn two_tasks_that_ask_through_their_guards_are_told() {
    let lock = Arc::new(RangeLock::named("rows"));
    let (a, b) = (task(&lock, 0..10, Exclusive), task(&lock, 10..20, Exclusive));
    let mut crosses = Hand::new(a.request(10..11, Add));
    crosses.pending();
    let refused = deadlock(Hand::new(b.request(0..1, Add)).ready());
    assert_eq!(refused.waits().len(), 2, "{refused}");
    assert!(refused.waits().iter().all(|wait| &*wait.lock == "rows"), "{refused}");
    drop(b);
    drop(crosses.ready().expect("the other has let go"));
}

/// Who waited for the guard waits for it still when that becomes an owner's.
#[test]
fn a_waiter_sleeps_through_the_change_of_the_owner() {
    let lock = Arc::new(RangeLock::new());
    let held = task(&lock, 0..10, Exclusive);
    let mut waiter = Hand::new(lock.request_arc(0..1, Add));
    waiter.pending();
    let nested = held.request(0..1, Add).wait().expect("it passes the one who waits for it");
    waiter.pending();
    drop(held);
    drop(waiter.ready());
    drop(nested);
}

/// Whoever makes it an owner's tells those who listen to it: another thread may let go of it, which finds nobody
/// listening any more.
#[test]
fn the_change_of_the_owner_loses_no_wake_up() {
    let lock = Arc::new(RangeLock::new());
    let held = task(&lock, 0..10, Exclusive);
    let mut waiter = Hand::new(lock.request_arc(0..1, Add));
    waiter.pending();
    let (back, guard) = mpsc::channel();
    let (may_end, end) = mpsc::channel::<()>();
    let asks = thread::spawn(move || {
        drop(held.request(20..21, Add));
        back.send(held).expect("the test waits for it");
        // It makes no call of the library any more, until all is over.
        end.recv().expect_err("nobody sends anything");
    });
    let held = guard.recv().expect("it is sent");
    if waiter.woken() {
        waiter.pending();
    }
    assert!(held.owner().is_some_and(|id| id.to_string().starts_with("owner")), "{held:?}");
    drop(held);
    assert!(waiter.woken(), "nobody told it");
    drop((waiter.ready(), may_end));
    asks.join().expect("it only asks");
}

#[test]
fn in_a_scope_a_task_is_one_owner() {
    let lock = Arc::new(RangeLock::new());
    let owner = Owner::named("writer");
    let mut whole = scoped(&owner, async {
        assert_eq!(Owner::current().as_ref(), Some(&owner));
        let write = lock.request_arc(0..10, Exclusive).await;
        let fault = lock.request_arc(5..6, Add).await;
        let blocking = lock.request_arc(5..6, Block).wait();
        let both = Batch::new().add(lock.clone(), 0..1).block(lock.clone(), 5..6).await;
        // It is not in the scope of another, and of none outside.
        let other = Owner::new();
        assert!(other.scope(async { lock.request_arc(0..1, Add).try_now().is_none() }).await);
        drop((write, fault, blocking, both));
    });
    whole.ready();
    assert_eq!(Owner::current(), None);
    assert!(lock.try_exclusive(..).is_some());
}

#[cfg(feature = "table")]
#[test]
fn in_a_scope_what_a_table_is_asked_is_the_owner_s() {
    let table: spanlock::LockTable<u64> = spanlock::LockTable::new();
    let mut whole = scoped(&Owner::new(), async {
        let one = table.request(1, 0..10, Exclusive).await;
        drop((table.request(1, 0..10, Add).await, one));
    });
    whole.ready();
    assert!(table.is_empty());
}

#[test]
fn two_tasks_in_scopes_are_told() {
    let lock = Arc::new(RangeLock::named("rows"));
    let (alice, bob) = (Owner::named("alice"), Owner::named("bob"));
    let one = |first: u64, second: u64| {
        let lock = lock.clone();
        async move {
            let held = lock.request_arc(first..=first, Exclusive).await;
            YieldOnce(false).await;
            let more = lock.request_arc(second..=second, Exclusive).await;
            drop((held, more));
        }
    };
    let (mut a, mut b) = (scoped(&alice, one(1, 2)), scoped(&bob, one(2, 1)));
    for hand in [&mut a, &mut b] {
        assert!(hand.poll_once().is_pending(), "it holds its first");
    }
    assert!(a.poll_once().is_pending(), "it waits for bob");
    let said = message(|| b.poll_once());
    assert!(said.contains("\"alice\"") && said.contains("\"bob\"") && said.contains("rows"), "{said}");
    assert_eq!(Owner::current(), None, "also after a panic");
    drop(b);
    a.ready();
}

/// Pending once, and no more.
struct YieldOnce(bool);

impl Future for YieldOnce {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[test]
fn a_borrowed_lock_is_refused_in_a_scope_at_once() {
    let lock = RangeLock::new();
    let owner = Owner::new();
    let said = message(|| block_on(owner.scope(async { drop(lock.request(0..1, Add).await) })));
    assert!(said.contains("request_arc"), "{said}");
    assert!(lock.try_exclusive(..).is_some());
}

/// What a thread holds stays held while it waits in a call, whoever owns the request.
#[test]
fn a_thread_that_waits_for_itself_is_told() {
    let lock = Arc::new(RangeLock::named("file"));
    let _held = lock.exclusive(0..10);
    let said = message(|| lock.request_arc(0..10, Add).wait());
    assert!(said.contains("task ") && said.contains("thread ") && said.contains("file"), "{said}");
    let refused = deadlock(lock.request_arc(5..6, Add).timeout(FOREVER).wait());
    let [wait] = refused.waits() else { panic!("{refused}") };
    assert_eq!(wait.holder.name.as_deref(), thread::current().name());
    assert_ne!(wait.holder.id, wait.owner.id);
    // A token's.
    let token = Owner::named("token");
    let refused = deadlock(lock.request(0..1, Add).owner(&token).wait());
    assert_eq!(refused.waits()[0].owner.name.as_deref(), Some("token"), "{refused}");
    // A batch.
    let both = Batch::new().add(lock.clone(), 0..1).add(lock.clone(), 20..30);
    deadlock(both.timeout(FOREVER).wait());
    assert!(lock.request_arc(0..1, Add).try_now().is_none());
    assert_eq!(lock.snapshot().requests().len(), 1, "all of them have left");
}

/// And so it is told if that is somebody else's turn to wait.
#[test]
fn a_thread_that_waits_as_a_task_is_found_in_a_longer_cycle() {
    for of_token in [false, true] {
        let (a, b) = (Arc::new(RangeLock::named("a")), Arc::new(RangeLock::named("b")));
        let meet = Barrier::new(2);
        let refused = thread::scope(|scope| {
            let one = scope.spawn(|| {
                let _held = a.exclusive(..);
                meet.wait();
                if of_token {
                    b.request(.., Exclusive).owner(&Owner::named("one")).timeout(FOREVER).wait().err()
                } else {
                    b.request_arc(.., Exclusive).timeout(FOREVER).wait().err()
                }
            });
            let two = scope.spawn(|| {
                let _held = b.exclusive(..);
                meet.wait();
                a.request(.., Exclusive).timeout(FOREVER).wait().err()
            });
            [one.join().unwrap(), two.join().unwrap()]
        });
        let refused: Vec<_> = refused.into_iter().flatten().collect();
        let [AcquireError::Deadlock(cycle)] = &refused[..] else { panic!("{refused:?}") };
        let locks: Vec<&str> = cycle.waits().iter().map(|wait| &*wait.lock).collect();
        assert!(locks == ["a", "b"] || locks == ["b", "a"], "{cycle}");
    }
}

/// It passes whom it would wait for himself, as any nested request does.
#[test]
fn a_thread_that_waits_as_a_task_passes_who_waits_for_it() {
    let lock = Arc::new(RangeLock::new());
    let outer = lock.add(0..8);
    let mut queued = Hand::new(lock.request_arc(0..8, Block));
    queued.pending();
    let inner = lock.request_arc(0..8, Add).timeout(FOREVER).wait().expect("it would wait for itself else");
    drop(outer);
    queued.pending();
    drop(inner);
    drop(queued.ready());
}

/// Nobody is told who only has to wait.
#[test]
fn who_can_be_let_in_waits() {
    let lock = Arc::new(RangeLock::new());
    let elsewhere = lock.exclusive(0..10);
    let held = lock.request_arc(10..20, Exclusive).wait();
    let (waits, frees) = (Barrier::new(2), Instant::now());
    thread::scope(|scope| {
        scope.spawn(|| {
            waits.wait();
            while lock.snapshot().waiters().len() == 0 {
                thread::yield_now();
            }
            drop(held);
        });
        waits.wait();
        drop(lock.request_arc(10..20, Add).timeout(FOREVER).wait().expect("the other thread lets go"));
    });
    assert!(frees.elapsed() < FOREVER);
    drop(elsewhere);
}

#[test]
fn a_blocking_call_in_a_scope_is_told_that_its_task_holds() {
    let lock = Arc::new(RangeLock::new());
    let owner = Owner::named("writer");
    let mut whole = scoped(&owner, async {
        let held = lock.request_arc(0..10, Exclusive).await;
        let said = message(|| drop(lock.add(5..6)));
        assert!(said.contains("thread ") && said.contains("\"writer\""), "{said}");
        drop(lock.add(20..30));
        drop(held);
        drop(lock.add(5..6));
    });
    whole.ready();
}

#[test]
fn through_the_guard_of_a_thread_one_waits_and_does_not_await() {
    let lock = Arc::new(RangeLock::new());
    let held = lock.exclusive(0..10);
    drop(held.request(0..1, Add).wait().expect("its own"));
    let said = message(|| block_on(async { drop(held.request(0..1, Add).await) }));
    assert!(said.contains("Owner"), "{said}");
}
