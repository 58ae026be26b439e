//! Who listens to what. Each slot of a node has a list of *sleepers*. Whoever changes the slot takes all of them off,
//! and rings them later, when nothing is locked any more and nothing pinned (`delivery`).
//!
//! Nothing is allocated, freed or called under a lock of this room: an allocator that itself uses range locks meets no
//! lock of its own thread here.
//!
//! # Shape
//! ```text
//! Events --> lists (Arc) --> of slot 0: Sleeper (Arc) <-> Sleeper
//!              ^       '---> of slot 1    ^
//! Listener ----'                          |
//!     '-----------------------------------'
//! ```
//! A listener has the lists and its sleeper, so it needs neither a pin nor the node that it was made in. (It can have
//! two of each, and is woken by what it hears first.)
//!
//! # Invariants
//! - INV-W1: a sleeper is in a list from when it is made until it is *rung*, or its listener leaves. Both happen under
//!   the list's lock, and either of them once.
//! - INV-W2: a sleeper is in one row at a time, in that of a list or that of the thread which has rung it; and its
//!   links are used by whoever may change that row.
//! - INV-W3: to be in a row is one count of the sleeper's `Arc`.
//! - INV-W4: whoever changes a slot from a watched word of an age rings all sleepers of that age, and no others. A
//!   sleeper that is to be woken has set WAITERS in the very word whose age it says (INV-G3), so whoever changes that
//!   one rings it; and a thread that has freed the slot and is late with its call has nothing to do with who has come
//!   to listen to the slot's next request since.
//!
//! # Who wakes whom
//! The one who rings sets `rung` first, and then looks for *whom* to wake. The one who sleeps says whom, under the lock
//! where the other looks, and only if it finds that it was not rung yet. So either it does not fall asleep, or it is
//! found.
//!
//! # What becomes of wakers
//! One that is called is consumed by that. One that nobody has called goes with its listener, when the request has left
//! the queue. One that is replaced, because a task has moved, is dropped by the poll that replaces it, as the last that
//! this does: nothing is locked, and whoever is to be called from now on is the new one, also by what the destructor
//! does. But the request has its place still (it could be kept until that is given up, but a task can move without
//! end): so a destructor that *waits* for what the request stands in the way of, waits for ever.

#[cfg(not(loom))]
use super::Woken;
use super::{budget, delivery};
#[cfg(loom)] // A model of this room alone.
use crate::platform::sync::thread::{self, Thread};
use crate::platform::sync::{AtomicBool, Mutex, Ordering, lock};
use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::{fmt, mem};
#[cfg(not(loom))]
use std::{
    thread::{self, Thread},
    time::Instant,
};

/// Somebody who listens to one slot, once.
pub(super) struct Sleeper {
    links: UnsafeCell<Links>,
    /// For a model to judge whether two use the links at a time.
    #[cfg(loom)]
    used: loom::cell::UnsafeCell<()>,
    rung: AtomicBool,
    /// Which of the slot's requests it listens to.
    age: u64,
    /// Whom to wake, as soon as it sleeps.
    whom: Mutex<Option<Whom>>,
}

/// The slot has changed already.
struct Rung;

enum Whom {
    Thread(Thread),
    Task(Waker),
}

#[derive(Default)]
struct Links {
    previous: Link,
    next: Link,
}

type Link = Option<NonNull<Sleeper>>;

// SAFETY: the links are used by one thread at a time (INV-W2), and lead to sleepers only; all else is `Send` by itself.
unsafe impl Send for Sleeper {}
// SAFETY: as above, and all else is `Sync` by itself.
unsafe impl Sync for Sleeper {}

impl Sleeper {
    fn new(age: u64) -> Sleeper {
        Sleeper {
            links: UnsafeCell::default(),
            #[cfg(loom)]
            used: loom::cell::UnsafeCell::new(()),
            rung: AtomicBool::new(false),
            age,
            whom: Mutex::new(None),
        }
    }

    fn is_rung(&self) -> bool {
        // ORDERING: Acquire, from `Lists::ring`: who goes on sees what was done before.
        self.rung.load(Ordering::Acquire)
    }

    /// Says whom to wake, and returns who was to be woken before: a waker's destructor is foreign code, and meets no
    /// lock.
    ///
    /// # Errors
    /// It was rung already.
    fn lie_down(&self, whom: Whom) -> Result<Option<Whom>, Rung> {
        let mut place = lock(&self.whom);
        if self.is_rung() {
            return Err(Rung);
        }
        Ok(place.replace(whom))
    }

    /// The same for a task, which may have said so before.
    fn lie_down_as(&self, waker: &Waker) -> Result<Option<Whom>, Rung> {
        // Without the lock first: whoever has rung, and is about to call, may be stopped with it.
        if self.is_rung() {
            return Err(Rung);
        }
        let is_known = {
            let whom = lock(&self.whom);
            if self.is_rung() {
                return Err(Rung);
            }
            matches!(&*whom, Some(Whom::Task(known)) if known.will_wake(waker))
        };
        // Cloned out of the lock: that is foreign code as well.
        if is_known { Ok(None) } else { self.lie_down(Whom::Task(waker.clone())) }
    }

    /// Wakes it, if it is a thread. `false`: it is a task, and has to be [called](Sleeper::call).
    pub(super) fn unpark(&self) -> bool {
        let mut place = lock(&self.whom);
        if matches!(*place, Some(Whom::Task(_))) {
            return false;
        }
        let whom = place.take();
        drop(place);
        if let Some(Whom::Thread(thread)) = whom {
            unpark_and_drop(thread);
        }
        true
    }

    /// Wakes it, if it is a task: calls foreign code.
    pub(super) fn call(&self) {
        // In a line of its own: the lock is free when the waker is called.
        let whom = lock(&self.whom).take();
        if let Some(Whom::Task(waker)) = whom {
            waker.wake();
        }
    }
}

/// A function of its own for ThreadSanitizer: the last handle of a thread may be dropped here (`tests/tsan.supp`).
#[cfg_attr(spanlock_tsan, inline(never))]
fn unpark_and_drop(thread: Thread) {
    thread.unpark();
}

/// Sleepers one behind the other. Dropping it frees none of them, so that a thread can have one to its very end: all
/// rows are emptied by those who fill them.
pub(super) struct Row {
    first: Link,
    last: Link,
}

// SAFETY: who may change the row may use the links of those who are in it (INV-W2), and they are `Sync`.
unsafe impl Send for Row {}

/// By which it can be made an `Arc` again.
fn address(sleeper: &Arc<Sleeper>) -> NonNull<Sleeper> {
    NonNull::new(Arc::as_ptr(sleeper).cast_mut()).expect("an `Arc` has an address")
}

/// # Safety
/// The sleeper is in a row that the caller may change, or about to enter it; and no other reference to its links is in
/// use.
unsafe fn links<'a>(sleeper: NonNull<Sleeper>) -> &'a mut Links {
    // SAFETY: it is there, by its row's count (INV-W3).
    let sleeper = unsafe { sleeper.as_ref() };
    #[cfg(loom)]
    sleeper.used.with_mut(|_| ());
    // SAFETY: nobody else uses them (INV-W2; the caller's promise).
    unsafe { &mut *sleeper.links.get() }
}

impl Row {
    pub(super) const EMPTY: Row = Row { first: None, last: None };

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// # Safety
    /// The sleeper is in no row.
    pub(super) unsafe fn push(&mut self, sleeper: Arc<Sleeper>) {
        let new = address(&sleeper);
        // Its count stays with the row.
        mem::forget(sleeper);
        // SAFETY: it enters this row.
        *unsafe { links(new) } = Links { previous: self.last, next: None };
        self.join(new);
        self.last = Some(new);
    }

    /// All of `others` behind those who are here.
    pub(super) fn append(&mut self, others: Row) {
        if let Some(first) = others.first {
            // SAFETY: it is in `others`, which is ours.
            unsafe { links(first) }.previous = self.last;
            self.join(first);
            self.last = others.last;
        }
    }

    /// The last one here, or the row itself, leads to `next`.
    fn join(&mut self, next: NonNull<Sleeper>) {
        match self.last {
            // SAFETY: it is in this row.
            Some(last) => unsafe { links(last) }.next = Some(next),
            None => self.first = Some(next),
        }
    }

    pub(super) fn pop(&mut self) -> Option<Arc<Sleeper>> {
        // SAFETY: the first one is in this row.
        self.first.map(|first| unsafe { self.remove(first) })
    }

    /// # Safety
    /// The sleeper is in this row.
    unsafe fn remove(&mut self, sleeper: NonNull<Sleeper>) -> Arc<Sleeper> {
        // SAFETY: it is in this row.
        let Links { previous, next } = mem::take(unsafe { links(sleeper) });
        match previous {
            // SAFETY: it is in this row, too.
            Some(previous) => unsafe { links(previous) }.next = next,
            None => self.first = next,
        }
        match next {
            // SAFETY: as above.
            Some(next) => unsafe { links(next) }.previous = previous,
            None => self.last = previous,
        }
        // SAFETY: it is the address of an `Arc`, which was forgotten in `push`: this is its count (INV-W3).
        unsafe { Arc::from_raw(sleeper.as_ptr()) }
    }

    /// Says to those who listen to the slot's request of this `age` that it has changed, and takes them off.
    fn ring(&mut self, age: u64) -> Row {
        let mut are_all = true;
        let mut next = self.first;
        while let Some(sleeper) = next {
            // SAFETY: it is in this row.
            next = unsafe { links(sleeper) }.next;
            // SAFETY: it is there, by its row's count (INV-W3).
            let sleeper = unsafe { sleeper.as_ref() };
            if sleeper.age == age {
                // ORDERING: Release, to `is_rung`.
                sleeper.rung.store(true, Ordering::Release);
            } else {
                are_all = false;
            }
        }
        if are_all { mem::take(self) } else { self.take_rung() }
    }

    /// Those of the row that are rung. The others stay.
    #[cold]
    fn take_rung(&mut self) -> Row {
        let mut rung = Row::EMPTY;
        let mut next = self.first;
        while let Some(sleeper) = next {
            // SAFETY: it is in this row.
            next = unsafe { links(sleeper) }.next;
            // SAFETY: it is there, by its row's count (INV-W3).
            if unsafe { sleeper.as_ref() }.is_rung() {
                // SAFETY: it is in this row.
                let sleeper = unsafe { self.remove(sleeper) };
                // SAFETY: it has just left the row that it was in.
                unsafe { rung.push(sleeper) };
            }
        }
        rung
    }
}

impl Default for Row {
    fn default() -> Row {
        Row::EMPTY
    }
}

/// A list of sleepers for each slot of a node.
pub(crate) struct Events<const N: usize>(Arc<[Mutex<Row>; N]>);

impl<const N: usize> Default for Events<N> {
    fn default() -> Self {
        Events(Arc::new(std::array::from_fn(|_| Mutex::new(Row::EMPTY))))
    }
}

impl<const N: usize> Events<N> {
    /// Hears the [`Events::notify`] of `slot` from now on that is of this `age`.
    pub(crate) fn listen(&self, slot: usize, age: u64) -> Listener {
        let sleeper = Arc::new(Sleeper::new(age));
        // SAFETY: it is new.
        unsafe { lock(&self.0[slot]).push(Arc::clone(&sleeper)) };
        Listener { place: Place { lists: self.0.clone(), slot, sleeper }, also: None }
    }

    /// Wakes all that listen to the request of this `age` in `slot`, at the next [`deliver`](delivery::deliver) of this
    /// thread.
    pub(crate) fn notify(&self, slot: usize, age: u64) {
        let row = lock(&self.0[slot]).ring(age);
        delivery::found(row);
    }
}

#[cfg(loom)]
impl<const N: usize> Events<N> {
    pub(super) fn are_empty(&self) -> bool {
        self.0.iter().all(|list| lock(list).is_empty())
    }
}

impl<const N: usize> fmt::Debug for Events<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

/// A place among those who listen, or two of them. Dropping it leaves.
#[derive(Debug)]
pub(crate) struct Listener {
    place: Place,
    /// Where it listens as well: what is heard first wakes it. Seldom, so it takes little room.
    also: Option<Box<Place>>,
}

impl Listener {
    /// Hears what `other` would hear as well.
    pub(crate) fn and(self, other: Listener) -> Listener {
        debug_assert!(self.also.is_none() && other.also.is_none(), "two are enough");
        Listener { place: self.place, also: Some(Box::new(other.place)) }
    }

    fn sleepers(&self) -> impl Iterator<Item = &Sleeper> {
        [Some(&self.place), self.also.as_deref()].into_iter().flatten().map(|place| &*place.sleeper)
    }

    fn is_rung(&self) -> bool {
        self.sleepers().any(Sleeper::is_rung)
    }

    /// Parks the thread until a slot is notified.
    pub(crate) fn wait(self) {
        if self.sleepers().all(|sleeper| sleeper.lie_down(Whom::Thread(thread::current())).is_ok()) {
            while !self.is_rung() {
                thread::park();
            }
        }
    }

    /// Parks the thread until a slot is notified, or `deadline` has passed.
    #[cfg(not(loom))] // A model has no clock.
    pub(crate) fn wait_until(self, deadline: Instant) -> Woken {
        let sleeps = self.sleepers().all(|sleeper| sleeper.lie_down(Whom::Thread(thread::current())).is_ok());
        while sleeps && !self.is_rung() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Woken::TimedOut;
            }
            thread::park_timeout(left);
        }
        Woken::Notified
    }

    /// Ready when a slot was notified.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut replaced = [None, None];
        for (sleeper, replaced) in self.sleepers().zip(&mut replaced) {
            match sleeper.lie_down_as(context.waker()) {
                Ok(old) => *replaced = old,
                Err(Rung) => return Poll::Ready(()),
            }
        }
        budget::refill();
        // Foreign code, so it comes last: see the header.
        drop(replaced);
        Poll::Pending
    }
}

/// A place in one list. Dropping it leaves.
struct Place {
    lists: Arc<[Mutex<Row>]>,
    slot: usize,
    sleeper: Arc<Sleeper>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.sleeper.is_rung() {
            return;
        }
        let mut list = lock(&self.lists[self.slot]);
        // Looked at again under the lock under which it changes.
        let left = (!self.sleeper.is_rung()).then(|| {
            // SAFETY: it was pushed into this list, and is not rung, so it is there still (INV-W1).
            unsafe { list.remove(address(&self.sleeper)) }
        });
        drop(list);
        drop(left);
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("slot", &self.slot).field("rung", &self.sleeper.is_rung()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;
    use std::time::Duration;

    #[derive(Default)]
    struct Calls(AtomicUsize);

    impl Wake for Calls {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A task that listens to slot 0, and how often it was woken.
    fn task(events: &Events<1>) -> (Listener, Arc<Calls>) {
        listener_of(events, 0)
    }

    fn listener_of(events: &Events<1>, age: u64) -> (Listener, Arc<Calls>) {
        let calls = Arc::new(Calls::default());
        let mut listener = events.listen(0, age);
        assert!(poll(&mut listener, &calls).is_pending());
        (listener, calls)
    }

    fn poll(listener: &mut Listener, calls: &Arc<Calls>) -> Poll<()> {
        listener.poll(&mut Context::from_waker(&Waker::from(Arc::clone(calls))))
    }

    fn calls(calls: &Calls) -> usize {
        calls.0.load(Ordering::Relaxed)
    }

    #[test]
    fn all_who_listen_are_woken_once_and_not_before_the_delivery() {
        let events = Events::default();
        let mut tasks: Vec<_> = (0..3).map(|_| task(&events)).collect();
        events.notify(0, 0);
        assert!(tasks.iter().all(|(_, woken)| calls(woken) == 0), "not under the list's lock");
        delivery::deliver();
        assert!(tasks.iter().all(|(_, woken)| calls(woken) == 1));
        events.notify(0, 0);
        delivery::deliver();
        assert!(tasks.iter_mut().all(|(listener, woken)| calls(woken) == 1 && poll(listener, woken).is_ready()));
    }

    #[test]
    fn who_was_rung_before_it_sleeps_does_not() {
        let events = Events::<1>::default();
        let [thread, timed, mut task] = [0; 3].map(|slot| events.listen(slot, 0));
        events.notify(0, 0);
        delivery::deliver();
        assert_eq!(timed.wait_until(Instant::now() + Duration::from_secs(10)), Woken::Notified);
        thread.wait();
        assert!(poll(&mut task, &Arc::default()).is_ready());
    }

    #[test]
    fn who_leaves_is_in_no_list_and_keeps_nothing() {
        let events = Events::default();
        let (first, woken) = task(&events);
        let (second, last) = (task(&events), task(&events));
        drop(second);
        drop(first);
        assert_eq!(Arc::strong_count(&woken), 1, "its waker is gone");
        events.notify(0, 0);
        delivery::deliver();
        assert_eq!((calls(&woken), calls(&last.1)), (0, 1));
        assert!(lock(&events.0[0]).is_empty());
        let timed_out = events.listen(0, 0).wait_until(Instant::now() + Duration::from_millis(1));
        assert_eq!(timed_out, Woken::TimedOut);
        assert!(lock(&events.0[0]).is_empty());
    }

    #[test]
    fn a_task_that_moved_is_woken_where_it_is() {
        let events = Events::default();
        let (mut listener, before) = task(&events);
        let after = Arc::new(Calls::default());
        assert!(poll(&mut listener, &after).is_pending());
        assert_eq!(Arc::strong_count(&before), 1, "its old waker is gone");
        events.notify(0, 0);
        delivery::deliver();
        assert_eq!((calls(&before), calls(&after)), (0, 1));
    }

    #[test]
    fn who_listens_to_two_slots_is_woken_by_either() {
        for rung in 0..2 {
            let events = Events::<2>::default();
            let mut task = events.listen(0, 0).and(events.listen(1, 0));
            let woken = Arc::default();
            assert!(poll(&mut task, &woken).is_pending());
            let thread = events.listen(1, 0).and(events.listen(0, 0));
            let timed_out =
                events.listen(0, 0).and(events.listen(1, 0)).wait_until(Instant::now() + Duration::from_millis(1));
            assert_eq!(timed_out, Woken::TimedOut);
            events.notify(rung, 0);
            delivery::deliver();
            thread.wait();
            assert!(calls(&woken) == 1 && poll(&mut task, &woken).is_ready());
            drop(task);
            assert!(events.0.iter().all(|list| lock(list).is_empty()));
        }
    }

    /// Of those who listen to one request of a slot after the other, whoever notifies of one takes its own.
    #[test]
    fn who_listens_to_another_request_is_left_to_that() {
        // They come in any order, those who notify as well: each of them may be late.
        for calls_in in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
            for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 0, 2]] {
                let events = Events::<1>::default();
                let mut tasks: Vec<_> = order.iter().map(|&age| (age, listener_of(&events, age))).collect();
                for said in 1..=3 {
                    events.notify(0, calls_in[said - 1]);
                    delivery::deliver();
                    let is_said = |age: &u64| calls_in[..said].contains(age);
                    assert!(tasks.iter().all(|(age, (_, woken))| calls(woken) == usize::from(is_said(age))));
                }
                assert!(tasks.iter_mut().all(|(_, (listener, woken))| poll(listener, woken).is_ready()));
                assert!(lock(&events.0[0]).is_empty());
            }
        }
    }

    #[test]
    fn a_thread_that_sleeps_is_woken() {
        let events = Events::<1>::default();
        let listener = events.listen(0, 0);
        thread::scope(|scope| {
            scope.spawn(|| listener.wait());
            events.notify(0, 0);
            delivery::deliver();
        });
    }
}
