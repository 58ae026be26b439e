//! Steps at which a test can stop a thread, for as long as it likes, and see whether all others go on. In the unit
//! tests' build only.
//!
//! A *step* is an access to an atomic, a fence, or taking a mutex; it is known by where in the source it stands. A
//! thread is stopped *before* it; of a mutex also when it has it. The test decides at which: it gives the thread a
//! [`Gate`], which is asked at each step.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::sync::{self, Condvar, PoisonError};

/// Where a thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Step {
    pub(crate) at: &'static Location<'static>,
    /// What it is about to do there.
    pub(crate) what: &'static str,
}

/// Locks that a thread has at the same time, at most.
const MOST: usize = 4;

/// Where the mutexes were taken that a thread has.
type Held = [Option<&'static Location<'static>>; MOST];

// Without destructors, so that they are there for those of other thread-locals.
thread_local! {
    static GATE: Cell<Option<&'static Gate>> = const { Cell::new(None) };
    static HELD: Cell<Held> = const { Cell::new([None; MOST]) };
}

/// Decides whether to stop at a step.
type Choice = Box<dyn FnMut(Step) -> bool + Send>;

/// What stops a thread at one step after the other.
pub(crate) struct Gate {
    choice: sync::Mutex<Choice>,
    passed: sync::Mutex<Vec<Step>>,
    state: sync::Mutex<State>,
    changed: Condvar,
}

enum State {
    /// The thread goes on, and has not come to the step.
    Running,
    Stopped(Stop),
    /// It may go on; or has come to its end without having come to the step.
    Open,
}

/// A thread that is stopped.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    pub(crate) step: Step,
    /// What it has done before, in its order.
    pub(crate) passed: Vec<Step>,
    /// Where the mutexes were taken that it has.
    pub(crate) has: Vec<&'static Location<'static>>,
}

impl Gate {
    /// For good: a thread can come to it when it ends.
    pub(crate) fn new(choice: impl FnMut(Step) -> bool + Send + 'static) -> &'static Gate {
        let choice: Choice = Box::new(choice);
        Box::leak(Box::new(Gate {
            choice: sync::Mutex::new(choice),
            passed: sync::Mutex::default(),
            state: sync::Mutex::new(State::Running),
            changed: Condvar::new(),
        }))
    }

    /// The calling thread is asked from now on.
    pub(crate) fn begin(&'static self) {
        GATE.set(Some(self));
    }

    /// The calling thread has done what it is watched at.
    pub(crate) fn end(&self) {
        GATE.set(None);
        self.open();
    }

    /// Waits until the thread is stopped; `None`: it has come to its end without that.
    pub(crate) fn stopped(&self) -> Option<Stop> {
        let mut state = lock_of(&self.state);
        loop {
            match &*state {
                State::Running => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                State::Stopped(stop) => return Some(stop.clone()),
                State::Open => return None,
            }
        }
    }

    /// Lets the thread go on, to its next stop. Nothing, if it has come to its end.
    pub(crate) fn go_on(&self) {
        let mut state = lock_of(&self.state);
        if matches!(*state, State::Stopped(_)) {
            *state = State::Running;
            self.changed.notify_all();
        }
    }

    /// Lets the thread go on, to its end.
    pub(crate) fn open(&self) {
        *lock_of(&self.state) = State::Open;
        self.changed.notify_all();
    }

    /// Whether it is to be asked again.
    fn stop(&self, step: Step) -> bool {
        let mut state = lock_of(&self.state);
        let passed = lock_of(&self.passed).clone();
        *state = State::Stopped(Stop { step, passed, has: HELD.get().into_iter().flatten().collect() });
        self.changed.notify_all();
        while matches!(*state, State::Stopped(_)) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        matches!(*state, State::Running)
    }
}

/// Whether the calling thread has a mutex.
pub(crate) fn has_any() -> bool {
    HELD.get().iter().any(Option::is_some)
}

fn lock_of<T>(mutex: &sync::Mutex<T>) -> sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[inline]
#[track_caller]
pub(super) fn before(what: &'static str) {
    if let Some(gate) = GATE.get() {
        ask(gate, Step { at: Location::caller(), what });
    }
}

pub(super) fn behind() {}

#[cold]
fn ask(gate: &'static Gate, step: Step) {
    // Not asked by what it does itself.
    GATE.set(None);
    let stops = (*lock_of(&gate.choice))(step);
    if !stops || gate.stop(step) {
        lock_of(&gate.passed).push(step);
        GATE.set(Some(gate));
    }
}

/// `std`'s, with a step before it is taken and one behind.
#[derive(Debug)]
pub(crate) struct Mutex<T>(sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Mutex<T> {
        Mutex(sync::Mutex::new(value))
    }

    #[track_caller]
    pub(super) fn take(&self) -> MutexGuard<'_, T> {
        before("lock");
        let guard = lock_of(&self.0);
        let noted = if GATE.get().is_some() { note(Location::caller()) } else { None };
        before("have");
        MutexGuard { guard, noted }
    }
}

/// Which of the thread's mutexes it is.
fn note(at: &'static Location<'static>) -> Option<usize> {
    let mut held = HELD.get();
    let place = held.iter().position(Option::is_none)?;
    held[place] = Some(at);
    HELD.set(held);
    Some(place)
}

#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T> {
    guard: sync::MutexGuard<'a, T>,
    noted: Option<usize>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        if let Some(place) = self.noted {
            let mut held = HELD.get();
            held[place] = None;
            HELD.set(held);
        }
    }
}
