//! A task that is granted again and again, at once each time, never comes back to its executor by itself; and no
//! timeout, no cancellation and no other task of that executor's thread has its turn. So a thread has a *budget* of
//! requests that its tasks may make in a row. Once it is used up, the next one is made a poll later: the task calls its
//! own waker and waits for nothing else.
//!
//! The request is put off before it is made: meanwhile it holds nothing, and nobody waits for it. The budget is a
//! thread's, because nobody can say what a task is; it is full again when a task of the thread comes to wait, since
//! that one returns to its executor.

use std::cell::Cell;
use std::task::{Context, Poll};

/// As many requests may be made in a row.
pub(crate) const REQUESTS: u8 = 128;

std::thread_local! {
    static LEFT: Cell<u8> = const { Cell::new(REQUESTS) };
}

/// Whether the task may make one more request now. If not, it is called again.
///
/// A waker without data, such as [`noop`](std::task::Waker::noop), leads to no task: whoever polls with it polls by
/// hand, once perhaps, and is not put off. (`will_wake` would not tell: that waker's table of functions may be there
/// several times.)
pub(crate) fn spend(context: &Context<'_>) -> Poll<()> {
    match LEFT.get() {
        0 => {
            refill();
            if context.waker().data().is_null() {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }
        left => {
            LEFT.set(left - 1);
            Poll::Ready(())
        }
    }
}

/// A task of this thread waits.
pub(super) fn refill() {
    LEFT.set(REQUESTS);
}
