//! Calling wakers outside of the lock under which they are found.
//!
//! `event-listener` holds a [`Relay`]'s waker in place of the task's. Called, it only puts the task's own waker on a list of the
//! calling thread; whoever has notified an event, or left one, then calls [`deliver`], with no lock held and no pin.

use crate::sync::{Mutex, lock};
use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::{mem, vec};

thread_local! {
    /// Wakers to be called as soon as this thread has left the event's lock. Never dropped, so that it is there for destructors of other
    /// thread-locals too; nothing leaks, because whoever adds to it delivers, and an empty list owns nothing.
    static FOUND: ManuallyDrop<RefCell<Vec<Waker>>> = const { ManuallyDrop::new(RefCell::new(Vec::new())) };
}

/// Stands between an event and a task.
#[derive(Debug)]
pub(super) struct Relay {
    target: Arc<Target>,
    /// Leads to `target`.
    waker: Waker,
}

/// Whom to wake; empty once that was done.
#[derive(Debug, Default)]
struct Target(Mutex<Option<Waker>>);

impl Target {
    fn replace(&self, waker: Option<Waker>) -> Option<Waker> {
        mem::replace(&mut lock(&self.0), waker)
    }
}

impl Wake for Target {
    fn wake(self: Arc<Self>) {
        let waker = self.replace(None);
        FOUND.with(|found| found.borrow_mut().extend(waker));
    }
}

impl Relay {
    pub(super) fn new() -> Relay {
        let target = Arc::new(Target::default());
        Relay { waker: Waker::from(Arc::clone(&target)), target }
    }

    /// From now on the task of `waker` is woken.
    pub(super) fn lead_to(&self, waker: &Waker) {
        // The old one is dropped here, not under the mutex: it is foreign code too.
        let _old = self.target.replace(Some(waker.clone()));
    }

    /// What the event is to call.
    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }
}

/// Calls the wakers that this thread has found.
pub(crate) fn deliver() {
    let found = FOUND.with(|found| mem::take(&mut *found.borrow_mut()));
    if !found.is_empty() {
        Delivery(found.into_iter()).finish();
    }
}

/// Wakers still to be called: all of them are, even if one panics.
struct Delivery(vec::IntoIter<Waker>);

impl Delivery {
    fn finish(&mut self) {
        self.0.by_ref().for_each(Waker::wake);
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.finish();
    }
}
