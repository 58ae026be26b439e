//! The lists of those who wait (`wait::event`), by themselves: the very code, with the threads of a model, and with
//! wake-ups that are made at once.
//!
//! A thread that parks does nothing else afterwards: loom's `unpark` would wake it from a mutex or a join. So do most
//! of these have tasks.
//!
//! The other models have a stand-in for it (`wait::model`), which keeps them small. What it promises is shown here: who
//! listens, and has then asked to be called, is called; nobody else is; and no list is changed by two at a time.

use super::check;
use event::{Events, Listener};
use loom::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use loom::thread;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

#[path = "../wait/event.rs"]
mod event;

/// In the place of the real one: nothing waits to be delivered.
mod delivery {
    use super::event::Row;

    pub(super) fn found(others: Row) {
        let mut row = Row::EMPTY;
        row.append(others);
        while let Some(sleeper) = row.pop() {
            if !sleeper.unpark() {
                sleeper.call();
            }
        }
    }
}

/// No task is put off.
mod budget {
    pub(super) fn refill() {}
}

/// A slot's word, as far as waiting goes: an age, and in the lowest bit whether somebody is to be called when it
/// changes.
struct Slot {
    word: AtomicU64,
    events: Events<2>,
}

const AGE: u64 = 2;
const WATCHED: u64 = 1;

impl Slot {
    fn new() -> Arc<Slot> {
        Arc::new(Slot { word: AtomicU64::new(0), events: Events::default() })
    }

    /// Listens to the request of `age`, and asks to be called. `None`: it has gone.
    fn ask(&self, age: u64) -> Option<Listener> {
        let listener = self.events.listen(0, age);
        loop {
            let found = self.word.fetch_add(0, Acquire);
            if found & !WATCHED != age {
                return None;
            }
            if self.word.compare_exchange(found, age | WATCHED, AcqRel, Relaxed).is_ok() {
                return Some(listener);
            }
        }
    }

    /// The request goes, and another one comes.
    fn change(&self) {
        let now = self.word.fetch_add(0, Relaxed) | WATCHED;
        let before = self.word.swap(now - WATCHED + AGE, AcqRel);
        if before & WATCHED != 0 {
            self.events.notify(0, before & !WATCHED);
        }
    }

    fn age(&self) -> u64 {
        self.word.fetch_add(0, Acquire) & !WATCHED
    }
}

fn spawn(slot: &Arc<Slot>, run: impl FnOnce(&Slot) + 'static) -> thread::JoinHandle<()> {
    let slot = Arc::clone(slot);
    thread::spawn(move || run(&slot))
}

/// A task's waker that notes that it was called.
struct Called(AtomicBool);

impl Wake for Called {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Release);
    }
}

impl Called {
    fn new() -> Arc<Called> {
        Arc::new(Called(AtomicBool::new(false)))
    }

    fn is(&self) -> bool {
        self.0.swap(false, Acquire)
    }
}

fn poll(listener: &mut Listener, called: &Arc<Called>) -> Poll<()> {
    listener.poll(&mut Context::from_waker(&Waker::from(Arc::clone(called))))
}

/// Property: a thread that asks to be called is called (else it is parked for good). Shape: two of them, and one who
/// changes the slot. Bound 3.
#[test]
fn who_asks_is_called() {
    check(3, || {
        let slot = Slot::new();
        let waits = |slot: &Slot| {
            if let Some(listener) = slot.ask(0) {
                listener.wait();
            }
            assert_eq!(slot.age(), AGE);
        };
        let [one, other] = [spawn(&slot, waits), spawn(&slot, waits)];
        slot.change();
        one.join().unwrap();
        other.join().unwrap();
        assert!(slot.events.are_empty());
    });
}

/// Property: the same for a task: if a poll is pending, the waker of that poll is called, or the next poll is ready.
/// Shape: it moves between two polls. Bound 4.
#[test]
fn a_task_is_called_by_its_last_waker() {
    check(4, || {
        let slot = Slot::new();
        let changes = spawn(&slot, Slot::change);
        if let Some(mut listener) = slot.ask(0) {
            let [first, second] = [Called::new(), Called::new()];
            let moved = poll(&mut listener, &first).is_pending() && poll(&mut listener, &second).is_pending();
            changes.join().unwrap();
            assert!(!moved || second.is());
            assert!(poll(&mut listener, &second).is_ready());
            drop(listener);
            assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (1, 1), "no waker is left");
        } else {
            changes.join().unwrap();
        }
        assert!(slot.events.are_empty());
    });
}

/// Property: whoever leaves, called or not, takes nobody with it. Shape: one of two who listen leaves while the slot
/// changes. Bound 4.
#[test]
fn who_leaves_keeps_nobody_from_a_call() {
    check(4, || {
        let slot = Slot::new();
        let [leaves, stays] = [slot.ask(0).unwrap(), slot.ask(0).unwrap()];
        let called = Called::new();
        let mut stays = stays;
        assert!(poll(&mut stays, &called).is_pending());
        let changes = spawn(&slot, Slot::change);
        drop(leaves);
        changes.join().unwrap();
        assert!(called.is() && poll(&mut stays, &called).is_ready());
        assert!(slot.events.are_empty());
    });
}

/// Property: who listens to a later request is not called for an earlier one, and is for its own. Shape: the one who
/// ended the earlier request is late. Bound 4.
#[test]
fn who_is_late_calls_nobody_of_the_next_request() {
    check(4, || {
        let slot = Slot::new();
        let mut first = slot.ask(0).unwrap();
        let is_first_called = Called::new();
        assert!(poll(&mut first, &is_first_called).is_pending());
        let late = spawn(&slot, Slot::change);
        let next = spawn(&slot, |slot| {
            if slot.age() == AGE {
                let called = Called::new();
                let mut listener = slot.ask(AGE).unwrap();
                assert!(poll(&mut listener, &called).is_pending(), "its request is there");
                assert!(!called.is());
                // Called there and then, though the late one may be late still.
                slot.change();
                assert!(called.is() && poll(&mut listener, &called).is_ready());
            }
        });
        late.join().unwrap();
        next.join().unwrap();
        assert!(is_first_called.is() && poll(&mut first, &is_first_called).is_ready());
        assert!(slot.events.are_empty());
    });
}

/// Property: who listens to two slots is called by either. Shape: both change at once. Bound 4.
#[test]
fn who_listens_to_two_is_called_by_either() {
    check(4, || {
        let events = Arc::new(Events::<2>::default());
        let mut both = events.listen(0, 0).and(events.listen(1, 0));
        let called = Called::new();
        let is_pending = poll(&mut both, &called).is_pending();
        assert!(is_pending);
        let changes = {
            let events = Arc::clone(&events);
            thread::spawn(move || events.notify(0, 0))
        };
        let also = {
            let events = Arc::clone(&events);
            thread::spawn(move || events.notify(1, 0))
        };
        let ready = poll(&mut both, &called).is_ready();
        if ready {
            drop(both);
            changes.join().unwrap();
            also.join().unwrap();
        } else {
            changes.join().unwrap();
            also.join().unwrap();
            assert!(called.is() && poll(&mut both, &called).is_ready());
        }
        assert!(events.are_empty());
    });
}
