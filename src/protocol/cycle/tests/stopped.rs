//! A thread is stopped in the middle of a search: who goes on meanwhile, and who waits for it, and for what.

use super::*;
use crate::facts::error::AcquireError;
use crate::protocol::cycle::Searched;
use crate::wait::{self, Luck, Patience};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::task::Wake;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What takes longer is not going to come.
const LONG: Duration = Duration::from_secs(20);

/// What goes on takes no longer than this, and most often much less.
const SOON: Duration = Duration::from_millis(5);

/// A thread that is stopped in the middle of its search.
struct Stopped<T> {
    go_on: Sender<()>,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Stopped<T> {
    /// It does what `run` says, and stops at this step of the search that comes of it.
    fn at(step: usize, run: impl FnOnce() -> T + Send + 'static) -> Stopped<T> {
        let (arrive, arrived) = mpsc::channel();
        let (go_on, gone_on) = mpsc::channel();
        let thread = thread::spawn(move || {
            steps::stop_at(step, move || {
                arrive.send(()).unwrap();
                gone_on.recv().unwrap();
            });
            run()
        });
        arrived.recv_timeout(LONG).expect("its search has so many steps");
        Stopped { go_on, thread }
    }

    fn go_on(self) -> T {
        self.go_on.send(()).unwrap();
        self.thread.join().unwrap()
    }
}

/// What `run` comes to, which must wait for nobody.
#[track_caller]
fn at_once<T: Send + 'static>(what: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || done.send(run()));
    is_done.recv_timeout(LONG).unwrap_or_else(|_| panic!("{what} waits for a search"))
}

/// `run` waits for the search in `state` to end, which another thread has stopped.
#[track_caller]
fn with_the_search<T: Send + 'static, U: Send + 'static>(
    state: &LockState,
    stopped: Stopped<T>,
    run: impl FnOnce() -> U + Send + 'static,
) -> (T, U) {
    assert!(!state.turn().is_awaited());
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let waits = thread::spawn(move || {
        let answer = run();
        over.store(true, Ordering::Release);
        answer
    });
    while !state.turn().is_awaited() {
        assert!(!is_over.load(Ordering::Acquire), "it has not waited");
        thread::yield_now();
    }
    assert!(!is_over.load(Ordering::Acquire));
    (stopped.go_on(), waits.join().unwrap())
}

/// Queues a request of an owner.
fn queue(
    lock: &'static RangeLock,
    owner: &Owner,
    range: Range<u64>,
    mode: Mode,
) -> Pin<Box<impl Future<Output: Send> + Send + use<>>> {
    let mut future = Box::pin(lock.request(range, mode).owner(owner).into_future());
    assert!(poll(&mut future).is_pending(), "somebody is in its way");
    future
}

/// An owner that holds something, so that what it asks for is nested.
fn nested() -> (Owner, impl Sized + Send) {
    let owner = Owner::new();
    let row = lock().request(0..1, Mode::Exclusive).owner(&owner).try_now().expect("it is free");
    (owner, row)
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// An exclusive request that has been polled once, which must wait for nobody, and is pending; and how often it is
/// woken.
#[track_caller]
fn polled(
    lock: &'static RangeLock,
    owner: Owner,
    range: Range<u64>,
) -> (Pin<Box<impl Future<Output = Result<impl Send + use<>, AcquireError>> + Send + use<>>>, Arc<Count>) {
    let calls = Arc::new(Count::default());
    let waker = Waker::from(calls.clone());
    let future = at_once("a poll", move || {
        let mut future = Box::pin(lock.request(range, Mode::Exclusive).owner(&owner).into_future());
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        future
    });
    (future, calls)
}

#[test]
fn nobody_in_another_lock_waits_for_it() {
    let (one, other, third) = (lock(), lock(), lock());
    let [(first, row_1), (second, row_2), (third_owner, row_3), (late, row_4), (me, row_5)] =
        [(); 5].map(|()| nested());
    let held = hold(one, &Owner::new(), 0..1, Mode::Exclusive);
    let in_other = other.request(0..1, Mode::Exclusive).owner(&Owner::new()).try_now().unwrap();
    let to_be_split = other.request(8..16, Mode::Exclusive).owner(&Owner::new()).try_now().unwrap();
    let mut granted = Box::pin(other.request(0..1, Mode::Exclusive).owner(&first).into_future());
    assert!(poll(&mut granted).is_pending());
    let dropped = queue(other, &second, 0..1, Mode::Exclusive);
    // Its search has come to both of them.
    let behind = queue(other, &third_owner, 0..1, Mode::Exclusive);

    let stopped = Stopped::at(1, move || search(one, &me, 0..1, Mode::Exclusive));
    assert!(one.state().turn().is_taken());
    let owner = late.clone();
    let timed_out = at_once("a deadline", move || {
        other.request(0..1, Mode::Exclusive).owner(&owner).timeout(SOON).wait().map(drop)
    });
    assert!(matches!(timed_out, Err(AcquireError::TimedOut(_))));
    let owner = late.clone();
    let timed_out = at_once("a batch's deadline", move || {
        Batch::new().add(other, 0..1).add(other, 2..3).owner(&owner).timeout(SOON).wait().map(drop)
    });
    assert!(matches!(timed_out, Err(AcquireError::TimedOut(_))));
    at_once("a future that is dropped", move || drop(dropped));
    let halves = at_once("a conversion", move || to_be_split.split(12));
    let guard = at_once("a grant", move || {
        drop(in_other);
        poll(&mut granted)
    });
    let Poll::Ready(Ok(guard)) = guard else { panic!("its way is free") };
    // And a deadlock is answered.
    let crossing = third.request(0..1, Mode::Exclusive).owner(&late).try_now().unwrap();
    let for_it = queue(third, &first, 0..1, Mode::Exclusive);
    let refused = at_once("a deadlock", move || {
        let mut future = Box::pin(other.request(0..1, Mode::Exclusive).owner(&late).into_future());
        poll(&mut future).map_ok(drop)
    });
    assert!(matches!(refused, Poll::Ready(Err(AcquireError::Deadlock(_)))));
    assert!(one.state().turn().is_taken(), "it was stopped all the while");
    drop((stopped.go_on(), for_it, crossing, halves, guard, behind, held));
    drop((row_1, row_2, row_3, row_4, row_5));
}

/// In its own lock, too, nobody waits for it who is not what it looks at.
#[test]
fn who_would_search_where_it_goes_on_sleeps() {
    let (hot, cold) = (lock(), lock());
    let [(me, row_1), (one, row_2), (two, row_3)] = [(); 3].map(|()| nested());
    let in_cold = cold.request(0..1, Mode::Exclusive).owner(&two).try_now().unwrap();
    let in_hot = hot.request(8..9, Mode::Exclusive).owner(&one).try_now().unwrap();
    let held = hot.request(0..1, Mode::Exclusive).owner(&Owner::new()).try_now().unwrap();
    let crossed = queue(cold, &one, 0..1, Mode::Exclusive);
    let stopped = Stopped::at(1, move || search(hot, &me, 0..1, Mode::Exclusive));

    let owner = one.clone();
    let timed_out =
        at_once("a deadline", move || hot.request(0..1, Mode::Add).owner(&owner).timeout(SOON).wait().map(drop));
    assert!(matches!(timed_out, Err(AcquireError::TimedOut(_))));
    let (mut nested, calls) = polled(hot, two, 8..9);
    let apart = hot.request(16..17, Mode::Exclusive).owner(&Owner::new()).try_now().unwrap();
    let granted = at_once("a grant", move || {
        let mut future = Box::pin(hot.request(16..17, Mode::Add).owner(&one).into_future());
        assert!(poll(&mut future).is_pending());
        drop(apart);
        poll(&mut future)
    });
    assert!(matches!(granted, Poll::Ready(Ok(_))));
    assert_eq!(calls.0.load(Ordering::Relaxed), 0);
    let _answer = stopped.go_on();
    assert_eq!(calls.0.load(Ordering::Relaxed), 1, "it hears that the search has ended");
    let answer = poll(&mut nested);
    assert!(matches!(answer, Poll::Ready(Err(AcquireError::Deadlock(_)))), "and makes its own");
    drop((granted, nested, crossed, in_hot, in_cold, held, row_1, row_2, row_3));
}

/// A search that came to where another goes on has let go of what it had.
#[test]
fn who_sleeps_has_no_turn() {
    let (a, b) = (lock(), lock());
    let [(me, row_1), (it, row_2), (other, row_3)] = [(); 3].map(|()| nested());
    let in_a = hold(a, &Owner::new(), 0..1, Mode::Exclusive);
    let in_b = hold(b, &it, 0..1, Mode::Exclusive);
    let waiting = queue(a, &it, 0..1, Mode::Exclusive);
    let stopped = Stopped::at(1, move || search(a, &me, 0..1, Mode::Exclusive));
    let (mut nested, calls) = polled(b, other, 0..1);
    assert!(a.state().turn().is_awaited() && !b.state().turn().is_taken());
    let _answer = stopped.go_on();
    assert_eq!(calls.0.load(Ordering::Relaxed), 1);
    assert!(poll(&mut nested).is_pending());
    assert!(!a.state().turn().is_taken() && !b.state().turn().is_taken());
    drop((nested, waiting, in_b, in_a, row_1, row_2, row_3));
}

/// A nested request that waits for bytes 0..1 of `hot`, and how many steps its search has.
fn measured(hot: &'static RangeLock) -> usize {
    let (me, row) = nested();
    let (future, steps) = search(hot, &me, 0..1, Mode::Exclusive);
    drop((future, row));
    steps as usize
}

#[test]
fn who_is_looked_at_stays_until_it_ends() {
    let hot = lock();
    let owner = Owner::new();
    let held = hold(hot, &owner, 0..1, Mode::Exclusive);
    let other = hold(hot, &Owner::new(), 8..9, Mode::Exclusive);
    let looked_at = queue(hot, &owner, 8..9, Mode::Exclusive);
    let steps = measured(hot);
    let (me, row) = nested();
    let stopped = Stopped::at(steps, move || search(hot, &me, 0..1, Mode::Exclusive));
    let answer = with_the_search(hot.state(), stopped, move || drop(looked_at));
    drop((answer, held, other, row));
}

/// So does one whose way is free meanwhile: it is granted in a poll that waits for the search.
#[test]
fn who_is_looked_at_is_granted_when_it_ends() {
    let hot = lock();
    let owner = Owner::new();
    let held = hold(hot, &owner, 0..1, Mode::Exclusive);
    let other = hold(hot, &Owner::new(), 8..9, Mode::Exclusive);
    let mut looked_at = queue(hot, &owner, 8..9, Mode::Exclusive);
    let steps = measured(hot);
    let (me, row) = nested();
    let stopped = Stopped::at(steps, move || search(hot, &me, 0..1, Mode::Exclusive));
    drop(other);
    let (answer, is_granted) = with_the_search(hot.state(), stopped, move || poll(&mut looked_at).is_ready());
    assert!(is_granted);
    drop((answer, held, row));
}

/// And one whose time is up.
#[test]
fn who_is_looked_at_gives_up_when_it_ends() {
    let hot = lock();
    let owner = Owner::new();
    let held = hold(hot, &owner, 0..1, Mode::Exclusive);
    let other = hold(hot, &Owner::new(), 8..9, Mode::Exclusive);
    let deadline = Instant::now() + Duration::from_secs(1);
    let looked_at =
        thread::spawn(move || hot.request(8..9, Mode::Exclusive).owner(&owner).deadline(deadline).wait().map(drop));
    while hot.snapshot().waiters().len() == 0 {
        thread::yield_now();
    }
    let steps = measured(hot);
    let (me, row) = nested();
    let stopped = Stopped::at(steps, move || search(hot, &me, 0..1, Mode::Exclusive));
    assert!(Instant::now() < deadline, "it still waits");
    let (answer, timed_out) = with_the_search(hot.state(), stopped, move || looked_at.join().unwrap());
    assert!(matches!(timed_out, Err(AcquireError::TimedOut(_))));
    drop((answer, held, other, row));
}

#[test]
fn a_token_that_converts_lets_it_end() {
    let hot = lock();
    let owner = Owner::new();
    let held = hot.request(0..8, Mode::Exclusive).owner(&owner).try_now().unwrap();
    let steps = measured(hot);
    let (me, row) = nested();
    let stopped = Stopped::at(steps, move || search(hot, &me, 0..1, Mode::Exclusive));
    let answer = with_the_search(hot.state(), stopped, move || held.split(4));
    drop((answer, row));
}

/// `me` waits in `here` for `it`, which waits in `there`.
struct Chain {
    here: &'static LockState,
    there: &'static LockState,
    mine: Request,
    others: [Request; 3],
}

impl Chain {
    fn new() -> Chain {
        let (here, there) = (state(), state());
        let [me, it] = [(); 2].map(|()| Owner::new());
        let of_it = Request::publish(here, &it.enter(), &[bytes(0..1)], Mode::Exclusive).hold();
        let in_its_way = Request::publish(there, &Owner::new().enter(), &[bytes(0..1)], Mode::Exclusive).hold();
        let its = Request::publish(there, &it.enter(), &[bytes(0..1)], Mode::Exclusive).queue(Some(&it));
        let mine = Request::publish(here, &me.enter(), &[bytes(0..1)], Mode::Exclusive).queue(Some(&me));
        Chain { here, there, mine, others: [its, in_its_way, of_it] }
    }
}

fn search_for(request: &mut Request) -> Searched {
    let enlisted = request.enlisted.as_mut().unwrap();
    enlisted
        .search(&Luck::new(), Patience::None, None)
        .unwrap_or_else(|refused| panic!("there is no cycle: {refused:?}"))
}

/// What was looked at before a turn was taken can be older than what another search has seen there, which has ended
/// meanwhile.
#[test]
fn a_search_begins_anew_if_another_has_ended_before_it_had_all_turns() {
    let Chain { here, there, mut mine, others } = Chain::new();
    let elsewhere = lock();
    let stopped = Stopped::at(1, move || ([(); 2].map(|()| search_for(&mut mine)), mine));
    assert!(here.turn().is_taken() && !there.turn().is_taken());
    let held = hold(elsewhere, &Owner::new(), 0..1, Mode::Exclusive);
    measured(elsewhere);
    let (answers, mine) = stopped.go_on();
    assert!(matches!(answers, [Searched::InVain, Searched::Done]));
    drop((mine, others, held));
}

/// Who did not get a turn takes all that it knows before it looks again: else two could keep one another from theirs
/// for ever.
#[test]
fn who_has_failed_begins_with_all_turns_that_it_knows() {
    let Chain { here, there, mut mine, others } = Chain::new();
    let mut turns = Turns::default();
    assert!(turns.take(&there.turn()).is_ok());
    assert!(matches!(search_for(&mut mine), Searched::Owed(_)));
    assert!(!here.turn().is_taken());
    drop(turns);
    let stopped = Stopped::at(1, move || (search_for(&mut mine), mine));
    assert!(here.turn().is_taken() && there.turn().is_taken());
    let (answer, mine) = stopped.go_on();
    assert!(matches!(answer, Searched::Done));
    drop((mine, others));
}

/// Whom it is to let past is in his doorway: it sleeps until he has queued, beside those who wait for the same as he
/// does, and wakes none of them for nothing.
#[test]
fn who_cannot_let_somebody_past_yet_sleeps() {
    let (hot, rows, me, it) = (lock(), lock(), Owner::new(), Owner::new());
    let row = hold(rows, &me, 0..1, Mode::Exclusive);
    let held = [(&it, 0..2), (&Owner::new(), 1..2)].map(|(owner, range)| hold(hot, owner, range, Mode::Add));
    // It waits for the searcher, and he whom the searcher needs comes behind it.
    let mut between = Box::pin(Batch::new().exclusive(rows, 0..1).exclusive(hot, 1..2).into_future());
    assert!(poll(&mut between).is_pending());
    let in_its_doorway = Request::publish(hot.state(), &it.enter(), &[bytes(1..2)], Mode::Exclusive).enlist(Some(&it));

    let (mut searcher, calls) = polled(hot, me, 0..1);
    let passes = |request: &Request| !request.enlisted.as_ref().expect("it is in the index").passes().is_empty();
    assert_eq!((calls.0.load(Ordering::Relaxed), passes(&in_its_doorway)), (0, false));
    in_its_doorway.lives[0].0.queue(in_its_doorway.ticket);
    wait::deliver();
    assert_eq!(calls.0.load(Ordering::Relaxed), 1, "it hears that the other one has queued");
    assert!(poll(&mut searcher).is_pending());
    assert!(passes(&in_its_doorway), "and lets it past");
    drop((searcher, in_its_doorway, between, held, row));
}
