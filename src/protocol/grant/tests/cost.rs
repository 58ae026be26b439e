//! What it costs to wait among many, in steps: nodes and slots looked at (`tree::steps`). And how often who waits is
//! woken.

use super::*;
use crate::RangeLock;
use crate::surface::batch::Batch;
use crate::tree::{SLOTS, steps};
use fastrand::Rng;
use std::collections::VecDeque;
use std::future::IntoFuture;
use std::ops::Range;
use std::pin::pin;

/// How many of everything.
const SIZES: &[u64] = if cfg!(debug_assertions) { &[100, 1_000, 10_000] } else { &[100, 1_000, 10_000, 100_000] };

/// A request that waits among others, and leaves, may look at so many nodes and slots, however many there are.
const EACH: u64 = 200;

#[track_caller]
fn assert_few(steps: u64, each: u64, things: u64, what: &str) {
    assert!(steps > 0, "nothing was counted");
    assert!(steps <= each * things + 2_000, "{steps} steps for {things} things: {what}");
}

/// What the same thing costs among few and among many.
#[derive(Default)]
struct Flat(u64);

impl Flat {
    /// `n` of these took so many steps: each as many as each of fewer.
    #[track_caller]
    fn assert(&mut self, steps: u64, n: u64, what: &str) {
        assert_few(steps, EACH, n, what);
        let each = steps / n;
        assert!(
            self.0 == 0 || each <= self.0 + 16,
            "{each} steps for each of {n}, and {} for each of fewer: {what}",
            self.0
        );
        // A few are cheaper: there is no chain yet.
        self.0 = if n < 1_000 { 0 } else { each };
    }
}

/// A request of a task, up to the end of its doorway.
fn enter_task(state: &'static LockState, range: Range<u64>, mode: Mode) -> Doorway<Held> {
    let asker = Asker { visitor: owner::visit(), owner: owner::fresh(), order: owner::OUTERMOST };
    // SAFETY: the state is there for good.
    unsafe { enter(state, &Ask::new(state, ByteRange::new(range), mode, &asker), asker.visitor, None) }
}

fn hold_task(state: &'static LockState, range: Range<u64>, mode: Mode) -> Held {
    match enter_task(state, range, mode) {
        Doorway::Granted(held) => held,
        Doorway::Queued(_) => panic!("nobody is in the way"),
    }
}

/// Who was woken, in the order of that.
type Woken = Arc<Mutex<VecDeque<u64>>>;

struct Call {
    id: u64,
    woken: Woken,
    times: AtomicUsize,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.times.fetch_add(1, Ordering::Relaxed);
        self.woken.lock().unwrap().push_back(self.id);
    }
}

/// Many who wait, and are polled when they are woken.
#[derive(Default)]
struct Crowd {
    waiters: Vec<Option<Waiter>>,
    calls: Vec<Arc<Call>>,
    woken: Woken,
}

impl Crowd {
    fn queue(&mut self, state: &'static LockState, range: Range<u64>, mode: Mode) {
        let Doorway::Queued(waiter) = enter_task(state, range, mode) else { panic!("somebody is in the way") };
        let id = self.waiters.len() as u64;
        self.waiters.push(Some(waiter));
        self.calls.push(Arc::new(Call { id, woken: self.woken.clone(), times: AtomicUsize::new(0) }));
        assert!(self.poll(id).is_none());
    }

    /// What it is granted.
    fn poll(&mut self, id: u64) -> Option<Holds> {
        let waker = Waker::from(self.calls[id as usize].clone());
        let waiter = self.waiters[id as usize].as_mut()?;
        match waiter.poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => None,
            Poll::Ready(result) => {
                result.unwrap();
                Some(self.waiters[id as usize].take().unwrap().into_holds())
            }
        }
    }

    /// Polls who is woken next; what it is granted.
    fn next(&mut self) -> Option<Holds> {
        loop {
            let id = self.woken.lock().unwrap().pop_front()?;
            if let Some(holds) = self.poll(id) {
                return Some(holds);
            }
        }
    }

    /// Lets all of them have their turn.
    fn drain(&mut self) {
        while let Some(holds) = self.next() {
            drop(holds);
        }
        assert!(self.waiters.iter().all(Option::is_none), "somebody was forgotten");
    }

    fn cancel(&mut self, id: u64) {
        self.waiters[id as usize] = None;
    }

    /// How often one of them was woken at most.
    fn most_calls(&self) -> usize {
        self.calls.iter().map(|call| call.times.load(Ordering::Relaxed)).max().unwrap_or(0)
    }
}

#[test]
fn to_queue_on_one_range_and_to_be_granted_it_costs_the_same_however_many_wait() {
    for modes in [[Mode::Exclusive; 2], [Mode::Add, Mode::Block], [Mode::Add, Mode::Exclusive]] {
        let (mut to_queue, mut to_be_granted) = (Flat::default(), Flat::default());
        for &n in SIZES {
            let (state, mut crowd) = (new_space(), Crowd::default());
            let holder = hold_task(state, 0..64, Mode::Exclusive);
            steps::take();
            (0..n).for_each(|i| crowd.queue(state, 0..64, modes[(i % 2) as usize]));
            to_queue.assert(steps::take(), n, "who queues");
            drop(holder);
            crowd.drain();
            to_be_granted.assert(steps::take(), n, "who is granted");
            assert!(crowd.most_calls() <= 2, "{} times", crowd.most_calls());
        }
    }
}

/// They go together: nobody waits for another of them.
#[test]
fn who_waits_for_one_holder_looks_at_none_of_the_others_who_do() {
    for &n in SIZES {
        let (state, mut crowd) = (new_space(), Crowd::default());
        let holder = hold_task(state, 0..64, Mode::Exclusive);
        steps::take();
        (0..n).for_each(|_| crowd.queue(state, 0..64, Mode::Add));
        assert_few(steps::take(), EACH, n, "who queues");
        drop(holder);
        crowd.drain();
        assert_few(steps::take(), EACH, n, "who is granted");
        assert_eq!(crowd.most_calls(), 1);
    }
}

/// Whoever queues ends an era, and looks at nobody for that.
#[test]
fn to_queue_beside_shortcuts_costs_no_more() {
    for &n in SIZES {
        let (state, mut crowd) = (new_space(), Crowd::default());
        // The root is full, and this thread at home in a node below it.
        let _far: Vec<_> =
            (0..SLOTS as u64).map(|i| hold_task(state, (3 << 62) + i..(3 << 62) + i + 1, Mode::Add)).collect();
        for _ in 0..8 {
            drop(hold_task(state, 1 << 40..(1 << 40) + 1, Mode::Add));
        }
        let holder = hold_task(state, 0..64, Mode::Exclusive);
        steps::take();
        (0..n).for_each(|_| crowd.queue(state, 0..64, Mode::Exclusive));
        assert_few(steps::take(), EACH, n, "who queues");
        drop(holder);
        crowd.drain();
        assert_few(steps::take(), EACH, n, "who is granted");
    }
}

/// One leaves, one comes.
#[test]
fn a_queue_that_stays_as_long_as_it_is_costs_the_same_however_long() {
    for &n in SIZES {
        let (state, mut crowd) = (new_space(), Crowd::default());
        let mut holder = Holds::from_buf([hold_task(state, 0..64, Mode::Exclusive)]);
        (0..n).for_each(|_| crowd.queue(state, 0..64, Mode::Exclusive));
        steps::take();
        for _ in 0..2 * n {
            drop(holder);
            holder = crowd.next().expect("somebody is next");
            crowd.queue(state, 0..64, Mode::Exclusive);
        }
        assert_few(steps::take(), 2 * EACH, 2 * n, "one leaves, one comes");
        let nodes = heap_nodes(&state.tree) as u64;
        assert!(nodes <= n / 4 + 32, "{nodes} nodes for {n} who wait");
        drop(holder);
        crowd.drain();
        assert!(crowd.most_calls() <= 2, "{} times", crowd.most_calls());
    }
}

#[test]
fn to_give_up_costs_the_same_however_many_wait() {
    let orders: [fn(u64, u64) -> u64; 3] = [|_, i| i, |n, i| n - 1 - i, |n, i| (i * 61 + 7) % n];
    for order in orders {
        for &n in SIZES {
            let (state, mut crowd) = (new_space(), Crowd::default());
            let holder = hold_task(state, 0..64, Mode::Exclusive);
            (0..n).for_each(|_| crowd.queue(state, 0..64, Mode::Exclusive));
            steps::take();
            for i in 0..n {
                crowd.cancel(order(n, i));
                assert!(crowd.next().is_none(), "it is held");
            }
            assert_few(steps::take() + 1, EACH, n, "who gives up, and who was behind");
            drop(holder);
            crowd.drain();
        }
    }
}

/// In whatever order they leave: half of them have gone on average when it is woken for nothing.
#[test]
fn who_waits_for_many_holders_is_woken_a_few_times() {
    for &n in SIZES {
        let mut orders =
            [(0..n as usize).collect::<Vec<_>>(), (0..n as usize).rev().collect(), (0..n as usize).collect()];
        Rng::with_seed(n).shuffle(&mut orders[2]);
        for order in orders {
            let (state, mut crowd) = (new_space(), Crowd::default());
            let mut held: Vec<_> =
                (0..n).map(|i| Some(hold_task(state, 4096 * i..4096 * (i + 1), Mode::Exclusive))).collect();
            steps::take();
            crowd.queue(state, 0..4096 * n, Mode::Exclusive);
            for &next in &order[1..] {
                held[next] = None;
                assert!(crowd.next().is_none(), "somebody holds yet");
            }
            held[order[0]] = None;
            crowd.drain();
            // The sum of what is left each time: 2 n on average, each a node and its slots.
            assert_few(steps::take(), EACH, n, "holders in the way");
            // As many as a record is broken in so many throws: 12.1 times on average for 100,000, with a deviation of 3.2.
            assert!(crowd.most_calls() <= 45, "{} times", crowd.most_calls());
        }
    }
}

/// The same of those who wait themselves, and give up, the last one first.
#[test]
fn who_waits_for_many_in_the_queue_is_woken_a_few_times() {
    for &n in SIZES {
        let (state, mut crowd) = (new_space(), Crowd::default());
        let holder = hold_task(state, 0..4096 * n, Mode::Exclusive);
        (0..n).for_each(|i| crowd.queue(state, 4096 * i..4096 * (i + 1), Mode::Exclusive));
        crowd.queue(state, 0..4096 * n, Mode::Exclusive);
        steps::take();
        for i in (0..n).rev() {
            crowd.cancel(i);
            assert!(crowd.next().is_none(), "it is held");
        }
        drop(holder);
        crowd.drain();
        assert_few(steps::take(), EACH, n, "who was in front");
        // Half of them have gone every other time.
        assert!(crowd.most_calls() <= 90, "{} times", crowd.most_calls());
    }
}

/// Equal ones, and such as lie in one another.
#[test]
fn a_batch_looks_once_for_ranges_that_cover_one_another() {
    for inward in [0, 1] {
        for &n in SIZES {
            let (lock, me) = (&*Box::leak(Box::new(RangeLock::new())), Owner::new());
            let batch = || {
                // The widest in the middle.
                let ranges = (0..n).map(|i| i.abs_diff(n / 2) * inward).map(|i| i..4 * n - i);
                ranges.fold(Batch::new(), |batch, range| batch.exclusive(lock, range)).owner(&me)
            };
            steps::take();
            let held = batch().try_now().expect("it is free");
            assert_few(steps::take(), EACH, n, "parts of a batch that is granted");
            drop(held);
            steps::take();

            let held = lock.request(0..4 * n, Mode::Add).owner(&Owner::new()).try_now().unwrap();
            let mut future = pin!(batch().into_future());
            let mut noop = Context::from_waker(Waker::noop());
            assert!(future.as_mut().poll(&mut noop).is_pending());
            drop(held);
            assert!(future.as_mut().poll(&mut noop).is_ready());
            assert_few(steps::take(), EACH, n, "parts of a batch that waits");
        }
    }
}

/// Each of them is looked at by a search: see `cycle::search::tests`. The queue itself costs no more than others'
/// requests do.
#[test]
fn one_owner_with_many_requests_pays_for_the_queue_as_others_do() {
    let n = SIZES[1];
    for apart in [0, 64] {
        let (state, elsewhere, me) = (new_space(), new_space(), Owner::new());
        let holder = hold_task(state, 0..64 * (n + 1), Mode::Exclusive);
        let row = hold_of(elsewhere, &me, 0..1, Mode::Exclusive);
        let mut noop = Context::from_waker(Waker::noop());
        let mut waiters = Vec::new();
        for i in 0..n {
            let mut waiter = queue_of(state, &me, apart * i..apart * i + 64, Mode::Exclusive);
            steps::take();
            assert!(waiter.poll(&mut noop).is_pending());
            // A view of each other range.
            assert_few(steps::take(), EACH, i + 1, "requests of one owner");
            waiters.push(waiter);
        }
        drop(holder);
        steps::take();
        waiters.iter_mut().for_each(|waiter| assert!(waiter.poll(&mut noop).is_ready()));
        let steps = steps::take();
        // On one range each comes by those before it, which are held by then.
        if apart > 0 {
            assert_few(steps, EACH, n, "requests that are granted");
        }
        drop((waiters, row));
    }
}
