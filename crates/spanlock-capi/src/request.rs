//! Requests that call back when they are granted: a future, polled by whoever wakes it.
//!
//! # How
//! A request is a future and its waker in one object. A wake-up polls it at once, on the thread that released the
//! range; the library calls wakers outside of all its locks. The future is taken out of the object while it is polled:
//! so a callback of another request, which may run within that poll, can cancel this one, and a wake-up that comes
//! meanwhile only notes that it did.

use crate::guard::spanlock_guard;
use crate::lock::{Asked, spanlock_lock, spanlock_owner};
use crate::status::{
    Failure, SPANLOCK_OK, answer, borrow, free, invalid, place, say, spanlock_mode, spanlock_status, value,
};
use std::ffi::c_void;
use std::future::Future;
use std::pin::Pin;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// What is called when a request is answered: with SPANLOCK_OK and the guard, which is the
/// callback's from then on, or with SPANLOCK_DEADLOCK and NULL (`spanlock_message` says more).
///
/// It runs on the thread that made it possible: the one that asks, or the one that released the
/// range, before that call returns. So it should be short, and must not wait for what that thread
/// holds. It may call this library, also to cancel this request or others.
#[allow(non_camel_case_types)]
pub type spanlock_granted =
    Option<unsafe extern "C" fn(context: *mut c_void, status: spanlock_status, guard: *mut spanlock_guard)>;

/// A request under way. Free it with `spanlock_request_free`, whatever became of it.
#[allow(non_camel_case_types)]
pub struct spanlock_request(Arc<Task>);

type Answer = Result<spanlock_guard, Failure>;
type Work = Pin<Box<dyn Future<Output = Answer> + Send>>;

struct Task {
    state: Mutex<State>,
    granted: unsafe extern "C" fn(*mut c_void, spanlock_status, *mut spanlock_guard),
    context: *mut c_void,
}

enum State {
    Waiting(Work),
    /// Somebody polls it; `again`: a wake-up came meanwhile.
    Polled {
        again: bool,
    },
    /// Answered or cancelled.
    Over,
}

// SAFETY: `context` is only handed on, and whoever starts a request allows that on any thread.
unsafe impl Send for Task {}
// SAFETY: as above.
unsafe impl Sync for Task {}

impl Wake for Task {
    fn wake(self: Arc<Task>) {
        self.poll();
    }
}

impl Task {
    fn poll(self: &Arc<Task>) {
        let waker = Waker::from(Arc::clone(self));
        let mut context = Context::from_waker(&waker);
        loop {
            let mut work = match &mut *self.state() {
                State::Polled { again } => {
                    *again = true;
                    return;
                }
                State::Over => return,
                state => match std::mem::replace(state, State::Polled { again: false }) {
                    State::Waiting(work) => work,
                    _ => unreachable!("the others are above"),
                },
            };
            let polled = work.as_mut().poll(&mut context);
            let mut state = self.state();
            match (&*state, polled) {
                // What it holds, or its place in the queue, goes; not under the mutex, since that may wake somebody.
                (State::Over, polled) => {
                    drop(state);
                    return drop((polled, work));
                }
                (_, Poll::Ready(answer)) => {
                    *state = State::Over;
                    drop(state);
                    return self.call_back(answer);
                }
                (State::Polled { again: true }, Poll::Pending) => *state = State::Waiting(work),
                (_, Poll::Pending) => {
                    *state = State::Waiting(work);
                    return;
                }
            }
        }
    }

    fn call_back(&self, answer: Answer) {
        let (status, guard) = match answer {
            Ok(guard) => (SPANLOCK_OK, guard.into_raw()),
            Err(Failure(status, message)) => {
                say(&message);
                (status, ptr::null_mut())
            }
        };
        // SAFETY: whoever started the request has promised that it may be called, once, with this context.
        unsafe { (self.granted)(self.context, status, guard) }
    }

    /// Whether it was neither answered nor cancelled before.
    fn cancel(&self) -> bool {
        let before = std::mem::replace(&mut *self.state(), State::Over);
        // A waiting one leaves the queue here, not under the mutex. One that is being polled is let go of by whoever
        // polls it.
        !matches!(before, State::Over)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks for `length` bytes from `offset` on (0: to the end), and returns; `granted` is called with
/// `context` when the request is answered: exactly once, perhaps before this returns, unless it is
/// cancelled first. It has its place in the queue when this returns. `*request` is a handle to cancel
/// it by, for a deadline say, and has to be freed; if `request` is NULL, there is none.
///
/// # Safety
/// As for `spanlock_wait`; `granted` may be called with `context` on any thread until the request was
/// answered or cancelled; `request` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanlock_request_start(
    lock: *const spanlock_lock,
    offset: u64,
    length: u64,
    mode: spanlock_mode,
    owner: *const spanlock_owner,
    granted: spanlock_granted,
    context: *mut c_void,
    request: *mut *mut spanlock_request,
) -> spanlock_status {
    answer(|| {
        // SAFETY: the caller's promise. (NULL is allowed.)
        let out = unsafe { place(request) }.ok();
        // SAFETY: as above.
        let ask = unsafe { Asked::new(lock, offset, length, mode, owner) }?;
        let granted = granted.ok_or_else(|| invalid("there is no callback"))?;
        let work: Work = match ask.owner {
            Some(owner) => {
                let acquire = ask.request().owner(owner).into_future();
                Box::pin(async { acquire.await.map(spanlock_guard::from).map_err(Failure::from) })
            }
            None => {
                let acquire = ask.request().into_future();
                Box::pin(async { Ok(acquire.await.into()) })
            }
        };
        let task = Arc::new(Task { state: Mutex::new(State::Waiting(work)), granted, context });
        if let Some(out) = out {
            // First: the callback may want to free it.
            *out = Box::into_raw(Box::new(spanlock_request(Arc::clone(&task))));
        }
        task.poll();
        Ok(())
    })
}

/// Gives the request up. True: it had not been answered, and its callback is not going to be
/// called. False: it was answered (the callback may be running still), or cancelled before, or is
/// NULL.
///
/// # Safety
/// `request` is NULL or a request of this library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanlock_request_cancel(request: *const spanlock_request) -> bool {
    // SAFETY: the caller's promise.
    value(false, || Ok(unsafe { borrow(request, "the request") }?.0.cancel()))
}

/// Gives the request up, unless it was answered, and frees the handle. NULL is allowed.
///
/// # Safety
/// `request` is NULL or a request of this library, and nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanlock_request_free(request: *mut spanlock_request) {
    // SAFETY: the caller's promise.
    unsafe { spanlock_request_cancel(request) };
    // SAFETY: as above.
    unsafe { free(request) }
}
