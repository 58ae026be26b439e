//! Waking those who were rung: with no lock held and no pin, whoever they are.
//!
//! A task's waker is foreign code: it may poll, release, drop or panic, right there. So what is [found] under a list's
//! lock is kept in a row of the calling thread, until that [delivers](deliver).
//!
//! # Promise
//! - *Everybody is woken.* A waker that panics costs nobody else the wake-up; the first panic goes on when all have
//!   been called.
//! - *One frame of the stack,* however long the chain: a waker that releases, and so finds the next one, leaves it to
//!   the delivery that it was called by. (It is called when that waker has returned. A waker that waits for what
//!   another one is to do may wait for ever, as it may in any executor.) Threads are woken there and then: that calls
//!   nobody.
//! - *Nothing is allocated,* and nothing borrowed while memory is freed or foreign code runs: all of it may come back
//!   here.

use super::event::{Row, Sleeper};
use crate::platform::processors;
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::{mem, thread};

/// What a thread has found. Made of cells without a destructor, so that it is there for the destructors of other
/// thread-locals too.
struct Found {
    /// Rung, and not looked at.
    rung: Cell<Row>,
    /// Of these, the tasks.
    tasks: Cell<Row>,
    /// Whether a delivery is calling wakers, further up on this thread's stack.
    calls: Cell<bool>,
}

std::thread_local! {
    static FOUND: Found = const { Found { rung: Cell::new(Row::EMPTY), tasks: Cell::new(Row::EMPTY), calls: Cell::new(false) } };
}

/// Changes a row in its cell; `change` runs no foreign code.
fn with<T>(cell: &Cell<Row>, change: impl FnOnce(&mut Row) -> T) -> T {
    let mut row = cell.take();
    let answer = change(&mut row);
    cell.set(row);
    answer
}

/// To be woken at this thread's next [`deliver`].
pub(super) fn found(others: Row) {
    if !others.is_empty() {
        FOUND.with(|found| with(&found.rung, |row| row.append(others)));
    }
}

/// Wakes those whom this thread has found.
pub(crate) fn deliver() {
    FOUND.with(Found::deliver);
}

impl Found {
    fn deliver(&self) {
        if with(&self.rung, |row| !row.is_empty()) {
            processors::count_in();
        }
        // The threads first: they may have far to go.
        while let Some(sleeper) = with(&self.rung, Row::pop) {
            if !sleeper.unpark() {
                // SAFETY: it has left the row that it was in.
                with(&self.tasks, |row| unsafe { row.push(sleeper) });
            }
        }
        if !self.calls.get() {
            self.call();
        }
    }

    /// Calls the wakers of all tasks, those included that come meanwhile.
    fn call(&self) {
        let mut first = None;
        while let Some(task) = with(&self.tasks, Row::pop) {
            self.calls.set(true);
            let outcome = catch_unwind(AssertUnwindSafe(|| call(task)));
            self.calls.set(false);
            match outcome {
                Err(panic) if first.is_none() => first = Some(panic),
                Err(panic) => forget(panic),
                Ok(()) => {}
            }
        }
        match first {
            // Into a panic that is on its way already another one would bring the process down.
            Some(panic) if thread::panicking() => forget(panic),
            Some(panic) => resume_unwind(panic),
            None => {}
        }
    }
}

/// By value: what is freed with it may be a task.
fn call(task: Arc<Sleeper>) {
    task.call();
}

/// Drops what somebody has panicked with; should that panic, too, it is leaked.
fn forget(panic: Box<dyn Any + Send>) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        mem::forget(panic);
    }
}
