//! Futures polled by hand, so that a test decides what happens when.

use parking_lot::{Condvar, Mutex};
use std::future::{Future, IntoFuture};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Counts its wakes and does nothing else.
#[derive(Debug, Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// A future and the wakes that it got since it was last polled.
#[derive(Debug)]
pub(crate) struct Hand<F> {
    future: F,
    begun: bool,
    wakes: Arc<Wakes>,
    waker: Waker,
}

impl<F: Future + Unpin> Hand<F> {
    /// Does not poll yet.
    pub(crate) fn new(future: impl IntoFuture<IntoFuture = F>) -> Hand<F> {
        let (wakes, waker) = fresh_waker();
        Hand { future: future.into_future(), begun: false, wakes, waker }
    }

    /// Polls with the waker of the last time; and once more, as executors do, a future that has called its waker
    /// meanwhile: it only let others have their turn.
    pub(crate) fn poll(&mut self) -> Poll<F::Output> {
        let polled = self.poll_once();
        if polled.is_pending() && self.woken() { self.poll_once() } else { polled }
    }

    /// Polls with the waker of the last time.
    pub(crate) fn poll_once(&mut self) -> Poll<F::Output> {
        self.begun = true;
        self.wakes.0.store(0, Ordering::Relaxed);
        Pin::new(&mut self.future).poll(&mut Context::from_waker(&self.waker))
    }

    /// Polls with a new waker, as a task that moved does; wakes of the old one no longer count.
    pub(crate) fn poll_elsewhere(&mut self) -> Poll<F::Output> {
        (self.wakes, self.waker) = fresh_waker();
        self.poll()
    }

    /// Polls, and fails the test if that does not resolve it.
    #[track_caller]
    pub(crate) fn ready(&mut self) -> F::Output {
        match self.poll() {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("the future should have resolved"),
        }
    }

    /// Polls, and fails the test if that resolves it.
    #[track_caller]
    pub(crate) fn pending(&mut self) {
        assert!(self.poll().is_pending(), "the future should not have resolved");
    }

    /// Whether it was polled: whether it has a place.
    pub(crate) fn begun(&self) -> bool {
        self.begun
    }

    /// Whether its waker was called since it was last polled.
    pub(crate) fn woken(&self) -> bool {
        self.wakes.0.load(Ordering::Acquire) > 0
    }

    /// The future, with whatever place it has.
    pub(crate) fn into_inner(self) -> F {
        self.future
    }
}

fn fresh_waker() -> (Arc<Wakes>, Waker) {
    let wakes = Arc::new(Wakes::default());
    (wakes.clone(), Waker::from(wakes))
}

/// Polls once with a waker that nobody looks at.
pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock() = true;
        self.changed.notify_one();
    }
}

/// A `block_on` whose every step is compiled with the test, so that ThreadSanitizer sees it.
pub(crate) fn block_on<F: IntoFuture>(future: F) -> F::Output {
    let mut future = pin!(future.into_future());
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let mut rung = bell.rung.lock();
        while !*rung {
            bell.changed.wait(&mut rung);
        }
        *rung = false;
    }
}
