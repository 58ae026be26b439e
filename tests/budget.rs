//! Promise: a task that is granted at once, again and again, lets its executor have its turn: timeouts fire, and other
//! tasks of the thread go on. It holds nothing of its next request while it does so.

#![cfg(not(any(loom, miri)))]

mod common;

use common::poll::Hand;
use spanlock::{Batch, Mode, RangeLock};
use std::future::{Future, IntoFuture};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// More than a task may ask for in a row.
const MANY: usize = 1000;

#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Polls to the end; how often it was pending, with its waker called each time.
fn run(task: impl Future) -> usize {
    let mut task = pin!(task);
    let counter = Arc::new(Counter::default());
    let waker = Waker::from(counter.clone());
    for turns in 0.. {
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            return turns;
        }
        assert_eq!(counter.0.load(Ordering::Relaxed), turns + 1, "pending, and nobody calls");
    }
    unreachable!("a task that never ends");
}

#[test]
fn a_task_that_asks_for_ever_comes_back() {
    let lock = RangeLock::new();
    let turns = run(async {
        for _ in 0..MANY {
            drop(lock.request(0..10, Mode::Exclusive).await);
        }
    });
    assert!((2..MANY / 10).contains(&turns), "{turns} turns");
}

#[test]
fn so_do_batches_and_ranges_without_bytes() {
    let lock = Arc::new(RangeLock::new());
    let batches = run(async {
        for _ in 0..MANY {
            drop(Batch::new().add(lock.clone(), 0..1).exclusive(lock.clone(), 5..6).await);
        }
    });
    let empty = run(async {
        for _ in 0..MANY {
            drop(lock.request(3..3, Mode::Block).await);
        }
    });
    for turns in [batches, empty] {
        assert!((2..MANY / 10).contains(&turns), "{turns} turns");
    }
}

#[cfg(feature = "table")]
#[test]
fn so_do_tables() {
    let table = spanlock::LockTable::new();
    let turns = run(async {
        for _ in 0..MANY {
            drop(table.request(7, .., Mode::Add).await);
        }
    });
    assert!((2..MANY / 10).contains(&turns), "{turns} turns");
}

/// Whoever has to come back has not asked yet: nobody meets it.
#[test]
fn who_lets_others_have_their_turn_is_in_nobodys_way() {
    let lock = Arc::new(RangeLock::new());
    let mut put_off = 0;
    for _ in 0..MANY {
        let mut one = Hand::new(lock.request_arc(0..10, Mode::Exclusive));
        match one.poll_once() {
            Poll::Ready(guard) => drop(guard),
            Poll::Pending => {
                assert!(one.woken(), "pending, and nobody calls");
                put_off += 1;
                let other = lock.request_arc(.., Mode::Exclusive).try_now();
                drop(other.expect("who has not asked holds nothing, and is in no queue"));
                assert!(one.poll_once().is_ready(), "its budget is full again");
            }
        }
    }
    assert!(put_off > 1);
}

/// Polling by hand, once and for all: there is no executor to come back to.
#[test]
fn a_waker_that_does_nothing_is_never_put_off() {
    let lock = Arc::new(RangeLock::new());
    for _ in 0..MANY {
        let mut future = lock.request_arc(.., Mode::Exclusive).into_future();
        assert!(Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }
}

/// Who waits comes back to its executor anyway.
#[test]
fn a_task_that_has_waited_begins_anew() {
    let lock = Arc::new(RangeLock::new());
    for _ in 0..MANY {
        let held = lock.request_arc(.., Mode::Exclusive).try_now().expect("nobody is there");
        let mut waits = Hand::new(lock.request_arc(.., Mode::Exclusive));
        assert!(waits.poll_once().is_pending() && !waits.woken(), "it was put off");
        drop(held);
        assert!(waits.poll_once().is_ready());
    }
}

/// The timer is the task's own runtime's: without a budget this does not end.
#[test]
fn a_timeout_fires_beside_a_task_that_asks_for_ever() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("it can be made");
    let lock = RangeLock::new();
    let ended = runtime.block_on(async {
        let asks = async {
            loop {
                drop(lock.request(0..10, Mode::Exclusive).await);
            }
        };
        tokio::time::timeout(Duration::from_millis(50), asks).await
    });
    assert!(ended.is_err());
    assert!(lock.try_exclusive(..).is_some());
}
