//! A request on its way: waited for by a thread, awaited by a task, or answered by a callback; and its cancel.

use crate::caller::Key;
use crate::domain::lock;
use crate::error::Error;
use crate::file::File;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

type Answer = Result<(), Error>;

/// Where the answer to a request goes.
#[derive(Default)]
pub(crate) struct Slot {
    state: Mutex<State>,
    answered: Condvar,
}

#[derive(Default)]
enum State {
    /// Nobody has said yet where the answer shall go.
    #[default]
    Open,
    /// A task is to be woken.
    Task(Waker),
    /// A callback is to be called.
    Callback(Box<dyn FnOnce(Answer) + Send>),
    /// The answer is there.
    Answered(Answer),
    /// The answer went to a callback.
    Gone,
}

/// Code of users that is to run.
enum Due {
    Wake(Waker),
    Call(Box<dyn FnOnce(Answer) + Send>, Answer),
}

impl Slot {
    /// The answer comes, once. What comes back is to be run with no mutex held.
    fn answer(&self, answer: Answer) -> Option<Due> {
        let mut state = lock(&self.state);
        let due = match mem::replace(&mut *state, State::Answered(answer)) {
            State::Task(waker) => Some(Due::Wake(waker)),
            State::Callback(callback) => {
                *state = State::Gone;
                Some(Due::Call(callback, answer))
            }
            _ => None,
        };
        drop(state);
        self.answered.notify_all();
        due
    }
}

/// Answers, which go out when no mutex is held.
pub(crate) type Answers = Vec<(Arc<Slot>, Answer)>;

thread_local! {
    /// What this thread is to run, if it runs such already.
    static DUE: RefCell<Option<VecDeque<Due>>> = const { RefCell::new(None) };
}

/// Gives all answers. A waker or a callback that panics keeps nobody else from his; the first panic goes on when all is
/// done.
///
/// All who wait in calls have their answers before code of users runs. And that does not nest: what a callback lets go
/// on is called by the loop that has called it, so that a chain of callbacks needs no stack.
pub(crate) fn deliver(answers: Answers) {
    let mut due: VecDeque<Due> = answers.into_iter().filter_map(|(slot, answer)| slot.answer(answer)).collect();
    if due.is_empty() {
        return;
    }
    // A thread that ends has no such list any more, and nests.
    let is_outermost = DUE.try_with(|list| match &mut *list.borrow_mut() {
        Some(list) => {
            list.append(&mut due);
            false
        }
        none => {
            *none = Some(VecDeque::new());
            true
        }
    });
    let mut panicked = None;
    loop {
        if due.is_empty() && is_outermost == Ok(true) {
            due = DUE.with(|list| list.borrow_mut().as_mut().map(mem::take)).unwrap_or_default();
        }
        let Some(next) = due.pop_front() else { break };
        let run = || match next {
            Due::Wake(waker) => waker.wake(),
            Due::Call(callback, answer) => callback(answer),
        };
        panicked = panicked.or(panic::catch_unwind(AssertUnwindSafe(run)).err());
    }
    if is_outermost == Ok(true) {
        DUE.set(None);
    }
    if let Some(panic) = panicked {
        panic::resume_unwind(panic);
    }
}

/// A request that was made by [`RecordLocks::request`](crate::RecordLocks::request): it has its place already.
///
/// It is waited for by [`wait`](Pending::wait), awaited, or left to a callback by [`then`](Pending::then).
///
/// # Cancel safety
/// Dropping it cancels the request, and then nothing has changed. If it was granted already the locks are there, as
/// they are if a signal comes to a process that has been granted its lock: unlock them.
///
/// # Examples
/// ```
/// # use spanlock_posix::{Caller, Error, Extent, Kind, RecordLocks, Order};
/// # use std::sync::mpsc;
/// let file = RecordLocks::new(Order::Kernel);
/// let [one, two, three] = [1, 2, 3].map(|key| Caller::process(key, 0));
/// file.set(one, Kind::Write, Extent::WHOLE)?;
/// let (granted, answer) = mpsc::channel();
/// file.request(two, Kind::Read, Extent::WHOLE).then(move |answer| granted.send(answer).unwrap());
/// let given_up = file.request(three, Kind::Read, Extent::WHOLE);
/// assert!(given_up.canceller().cancel()); // from wherever
/// assert_eq!(given_up.wait(), Err(Error::Interrupted));
/// file.unlock(one, Extent::WHOLE)?;
/// assert_eq!(answer.recv(), Ok(Ok(())));
/// # Ok::<(), Error>(())
/// ```
#[must_use = "if unused, the request is cancelled at once"]
pub struct Pending<O: Key> {
    slot: Arc<Slot>,
    request: Option<(Arc<File<O>>, u64)>,
}

impl<O: Key> Pending<O> {
    /// One that is answered already.
    pub(crate) fn answered(answer: Answer) -> Pending<O> {
        let slot = Arc::new(Slot::default());
        let due = slot.answer(answer);
        debug_assert!(due.is_none());
        Pending { slot, request: None }
    }

    pub(crate) fn waiting(slot: Arc<Slot>, file: Arc<File<O>>, id: u64) -> Pending<O> {
        Pending { slot, request: Some((file, id)) }
    }

    /// Whether it is answered: none of the calls below would wait.
    pub fn is_answered(&self) -> bool {
        matches!(*lock(&self.slot.state), State::Answered(_))
    }

    /// Waits, in a call, for the answer.
    ///
    /// # Errors
    /// [`Error::Deadlock`] if to wait would close a cycle. [`Error::Interrupted`] if it was cancelled, or its owner
    /// released. [`Error::NoLocks`] if the lock would be one too many for its owner. Nothing has changed then.
    pub fn wait(mut self) -> Result<(), Error> {
        let mut state = lock(&self.slot.state);
        loop {
            if let State::Answered(answer) = *state {
                drop(state);
                self.request = None;
                return answer;
            }
            state = self.slot.answered.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    /// Waits for so long, and cancels it then: [`Error::Interrupted`], as by an alarm.
    ///
    /// # Errors
    /// As for [`wait`](Pending::wait).
    pub fn wait_for(self, limit: Duration) -> Result<(), Error> {
        let Some(deadline) = Instant::now().checked_add(limit) else { return self.wait() };
        let mut state = lock(&self.slot.state);
        while !matches!(*state, State::Answered(_)) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(state);
                self.canceller().cancel();
                return self.wait();
            }
            state = self.slot.answered.wait_timeout(state, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        drop(state);
        self.wait()
    }

    /// Has `callback` called with the answer: at once, if it is there; else by the thread that unlocks, cancels or
    /// releases, at the end of its call and with nothing locked, so that it may use any record locks. Callbacks do not
    /// nest: what one of them lets go on is called when it has returned.
    ///
    /// The answers are those of [`wait`](Pending::wait). From now on only a [`Canceller`] or a release cancels it.
    pub fn then(mut self, callback: impl FnOnce(Result<(), Error>) + Send + 'static) {
        self.request = None;
        let mut state = lock(&self.slot.state);
        if let State::Answered(answer) = *state {
            drop(state);
            callback(answer);
        } else {
            *state = State::Callback(Box::new(callback));
        }
    }

    /// A handle to cancel it by, from wherever: a signal, the end of a connection.
    pub fn canceller(&self) -> Canceller<O> {
        Canceller { request: self.request.as_ref().map(|(file, id)| (Arc::downgrade(file), *id)) }
    }
}

/// # Panics
/// If it is polled after it was ready.
impl<O: Key> Future for Pending<O> {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // A waker is code of users when it is cloned or dropped: with nothing locked.
        let waker = context.waker().clone();
        let mut state = lock(&self.slot.state);
        let before = match *state {
            State::Answered(answer) => {
                *state = State::Gone;
                drop(state);
                self.request = None;
                return Poll::Ready(answer);
            }
            State::Gone => panic!("polled after it was ready"),
            _ => mem::replace(&mut *state, State::Task(waker)),
        };
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl<O: Key> Drop for Pending<O> {
    fn drop(&mut self) {
        if let Some((file, id)) = self.request.take() {
            file.cancel(id);
        }
    }
}

impl<O: Key> fmt::Debug for Pending<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("answered", &self.is_answered()).finish_non_exhaustive()
    }
}

/// Cancels a request from elsewhere. It keeps nothing alive, and a clone cancels the same request.
pub struct Canceller<O: Key> {
    request: Option<(Weak<File<O>>, u64)>,
}

impl<O: Key> Canceller<O> {
    /// Cancels the request: whether it was still waiting. Then it is answered with [`Error::Interrupted`] and nothing
    /// has changed; else it was answered already.
    pub fn cancel(&self) -> bool {
        let Some((file, id)) = &self.request else { return false };
        file.upgrade().is_some_and(|file| file.cancel(*id))
    }
}

impl<O: Key> Clone for Canceller<O> {
    fn clone(&self) -> Canceller<O> {
        Canceller { request: self.request.clone() }
    }
}

impl<O: Key> fmt::Debug for Canceller<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller").finish_non_exhaustive()
    }
}
