//! Threads that ask for ranges in every way there is, and note what they were answered.
//!
//! A thread takes turns at two games. As a *caller* it asks by calls that block, with nothing in its hands but what a
//! nested request is nested in: so no circle of waiters leads through the game itself, and those of nested requests
//! are answered. As a *juggler* it has several futures in the air, and never blocks: it polls a future when its waker
//! was called (or, at times, for no reason), and drops others whether they were granted or not. In the end it only
//! waits to be woken: then a waker that is not called stops it, and the watch of the round says so.

use crate::common::Span;
use crate::judge::{Delay, NEVER, Row, Sight, Stamp, Standing, Who};
use crate::round::{Clock, Round};
use fastrand::Rng;
use spanlock::{Batch, BatchGuard, ByOwner, ByTask, Guard, LockRef, Mode, OwnedBy, Owner, OwnerId, RangeLock};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

/// A range and a mode.
pub(crate) type Part = (Span, Mode);

/// Says when a future's waker was called, and wakes the thread that juggles it.
struct Bell {
    clock: Arc<Clock>,
    rung: AtomicU64,
    thread: Thread,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let now = self.clock.tick();
        self.rung.fetch_min(now, Ordering::Release);
        self.thread.unpark();
    }
}

/// What a future is granted.
enum Hold<'r> {
    Borrowed(Guard<&'r RangeLock, ByTask>),
    Shared(Guard<Arc<RangeLock>, ByTask>),
    Token(Guard<Arc<RangeLock>, ByOwner>),
    Batch(BatchGuard<Arc<RangeLock>, ByTask>),
    /// It was a drain.
    Nothing,
}

type Asking<'r> = Pin<Box<dyn Future<Output = Hold<'r>> + 'r>>;

/// One ball in the air.
enum Ball<'r> {
    Waiting { future: Asking<'r>, bell: Arc<Bell>, row: Row },
    Held(Hold<'r>, Row),
}

impl Ball<'_> {
    fn is_ripe(&self) -> bool {
        match self {
            Ball::Waiting { bell, .. } => bell.rung.load(Ordering::Acquire) != NEVER,
            Ball::Held(..) => true,
        }
    }
}

/// One thread of a round.
pub(crate) struct Player<'r> {
    round: &'r Round,
    me: u64,
    rng: Rng,
    owners: u64,
    /// By the ids that snapshots show: who the threads are.
    names: &'r [OwnerId],
    pub(crate) rows: Vec<Row>,
    pub(crate) sights: Vec<Sight>,
}

impl<'r> Player<'r> {
    pub(crate) fn new(round: &'r Round, me: usize, names: &'r [OwnerId]) -> Player<'r> {
        let rng = Rng::with_seed(round.seed << 16 | me as u64);
        Player { round, me: me as u64, rng, owners: 0, names, rows: Vec::new(), sights: Vec::new() }
    }

    pub(crate) fn play(&mut self) {
        for _ in 0..self.round.turns {
            if self.round.is_stuck() {
                break;
            }
            match self.rng.u8(0..8) {
                0..4 => (0..4).for_each(|_| self.call()),
                4..7 => self.juggle(),
                _ => self.look(),
            }
        }
    }

    fn tick(&self) -> Stamp {
        self.round.clock.tick()
    }

    fn part(&mut self) -> Part {
        self.round.ground.part(&mut self.rng, self.me)
    }

    /// The thread itself.
    fn myself(&self) -> Who {
        Who(self.me)
    }

    /// Somebody who has not been there before.
    fn somebody(&mut self) -> Who {
        self.owners += 1;
        Who(self.owners << 16 | self.me)
    }

    /// A holder does something, mostly very little.
    fn linger(&mut self) {
        match self.rng.u8(0..16) {
            0 => thread::yield_now(),
            1..4 => (0..self.rng.u32(0..200)).for_each(|_| std::hint::spin_loop()),
            _ => {}
        }
    }

    /// Takes a snapshot, and notes which threads it shows waiting.
    fn look(&mut self) {
        let from = self.tick();
        let snapshot = self.round.lock.snapshot();
        let to = self.tick();
        for waiter in snapshot.waiters() {
            let Some(thread) = self.names.iter().position(|&name| name == waiter.owner()) else { continue };
            let (Some(start), Some(last)) = (waiter.range().start(), waiter.range().last()) else { continue };
            let part = (Span::new(start, last), waiter.mode());
            self.sights.push(Sight { who: Who(thread as u64), part, from, to });
        }
    }

    // The caller.

    fn call(&mut self) {
        let lock: &'r RangeLock = &self.round.lock;
        let (me, part) = (self.myself(), self.part());
        let (bounds, mode) = (part.0.bounds(), part.1);
        let patience = Duration::from_micros(self.rng.u64(0..300));
        let parts = |part| vec![part];
        match self.rng.u8(0..26) {
            24 => {
                let way = self.rng.u8(0..4);
                let call = || {
                    let drain = lock.drained(bounds, mode);
                    match way {
                        0 => drain.try_now().then_some(()),
                        1 => drain.timeout(patience).wait().ok(),
                        2 => drain.owner(&Owner::new()).wait().ok(),
                        _ => drain.wait().ok(),
                    }
                };
                // A token of its own holds nothing either.
                self.ask("drain call", me, Standing::Outermost, parts(part), call, Self::release);
            }
            25 => {
                let who = self.somebody();
                let call = || {
                    self.round.lock.drained_arc(bounds, mode).wait();
                    Some(())
                };
                self.ask("drain of its own", who, Standing::Outermost, parts(part), call, Self::release);
            }
            0..4 => {
                let call = || match mode {
                    Mode::Add => Some(lock.add(bounds)),
                    Mode::Block => Some(lock.block(bounds)),
                    Mode::Exclusive => Some(lock.exclusive(bounds)),
                };
                self.ask("call", me, Standing::Outermost, parts(part), call, Self::hold);
            }
            4..8 => {
                let call = || lock.request(bounds, mode).try_now();
                self.ask("try", me, Standing::Outermost, parts(part), call, Self::hold);
            }
            8..12 => {
                let call = || lock.request(bounds, mode).timeout(patience).wait().ok();
                self.ask("timeout", me, Standing::Outermost, parts(part), call, Self::hold);
            }
            12 | 13 => {
                let (who, call) = (self.somebody(), || Some(self.round.lock.request_arc(bounds, mode).wait()));
                self.ask("owner of its own", who, Standing::Outermost, parts(part), call, Self::hold);
            }
            14..16 => {
                let (who, owner) = (self.somebody(), Owner::new());
                let call = || lock.request(bounds, mode).owner(&owner).wait().ok();
                self.ask("token", who, Standing::Outermost, parts(part), call, Self::hold);
            }
            16 | 17 => {
                let both = vec![part, self.part()];
                let batch = self.batch(&both).owner(&Owner::new());
                let who = self.somebody();
                let way = self.rng.u8(0..3);
                let call = || match way {
                    0 => batch.try_now(),
                    1 => batch.timeout(patience).wait().ok(),
                    _ => batch.wait().ok(),
                };
                self.ask("batch", who, Standing::Outermost, both, call, |player, guards, row| {
                    player.release(guards, row)
                });
            }
            18..21 => {
                let call = || lock.request(bounds, mode).wait().ok();
                self.ask("outer call", me, Standing::Outermost, parts(part), call, |player, guard, row| {
                    player.nest(&row, &|bounds, mode| lock.request(bounds, mode));
                    if player.rng.u8(0..4) == 0 {
                        let part = player.part();
                        let call = || lock.drained(part.0.bounds(), part.1).wait().ok();
                        player.ask("drain, nested", row.who, Standing::Nested, vec![part], call, Self::release);
                    }
                    player.hold(guard, row);
                });
            }
            _ => {
                let (who, owner) = (self.somebody(), Owner::new());
                let call = || lock.request(bounds, mode).owner(&owner).wait().ok();
                self.ask("outer token", who, Standing::Outermost, parts(part), call, |player, guard, row| {
                    player.nest(&row, &|bounds, mode| lock.request(bounds, mode).owner(&owner));
                    if player.rng.u8(0..4) == 0 {
                        let part = player.part();
                        let call = || guard.drained(part.0.bounds(), part.1).wait().ok();
                        player.ask("drain of a guard", row.who, Standing::Nested, vec![part], call, Self::release);
                    }
                    player.hold(guard, row);
                });
            }
        }
    }

    /// Asks for more while something is held; it may be refused, as it would close a circle.
    fn nest<L: LockRef, O: OwnedBy<Answer<Guard<L, O>> = Result<Guard<L, O>, spanlock::AcquireError>>>(
        &mut self,
        outer: &Row,
        request: &dyn Fn(Bounds, Mode) -> spanlock::Request<L, O>,
    ) {
        // In an empty range nothing is held: what is asked for within it is nested in nothing.
        let (within, standing) = match outer.way {
            _ if !outer.parts[0].0.is_empty() => ("nested", Standing::Nested),
            "outer call" => ("call", Standing::Outermost),
            _ => ("token", Standing::Outermost),
        };
        for _ in 0..self.rng.u8(1..3) {
            let part = self.part();
            let (patience, way) = (Duration::from_micros(self.rng.u64(0..300)), self.rng.u8(0..4));
            let call = || {
                let request = request(part.0.bounds(), part.1);
                match way {
                    0 => request.try_now(),
                    1 => request.timeout(patience).wait().ok(),
                    _ => request.wait().ok(),
                }
            };
            self.ask(within, outer.who, standing, vec![part], call, Self::hold);
        }
    }

    fn batch(&mut self, parts: &[Part]) -> Batch<Arc<RangeLock>> {
        let asks = parts.iter();
        asks.fold(Batch::new(), |batch, &(span, mode)| batch.request(self.round.lock.clone(), span.bounds(), mode))
    }

    /// Calls; then notes the refusal, or has `then` do something with what was granted.
    fn ask<G>(
        &mut self,
        way: &'static str,
        who: Who,
        standing: Standing,
        parts: Vec<Part>,
        call: impl FnOnce() -> Option<G>,
        then: impl FnOnce(&mut Self, G, Row),
    ) {
        let asked = self.round.clock.tick();
        let answer = call();
        let answered = self.round.clock.tick();
        let mut row = Row {
            who,
            standing,
            way,
            parts,
            asked,
            seated: answered,
            seen: NEVER,
            granted: answered,
            leaving: NEVER,
            left: NEVER,
            delays: Vec::new(),
        };
        match answer {
            Some(granted) => then(self, granted, row),
            None => {
                // When it gave up, in there, nobody knows.
                (row.granted, row.leaving, row.left) = (NEVER, asked, answered);
                row.delays.push(Delay::refusal(asked, answered));
                self.rows.push(row);
            }
        }
    }

    /// Holds it for a while, perhaps as something else in the end.
    fn hold<L: LockRef, O: OwnedBy>(&mut self, mut guard: Guard<L, O>, row: Row) {
        self.linger();
        let (span, mode) = row.parts[0];
        match self.rng.u8(0..12) {
            0 if mode == Mode::Exclusive => {
                let weaker = if self.rng.bool() { Mode::Add } else { Mode::Block };
                let [left] = self.convert(row, [(span, weaker)], || guard.downgrade(weaker));
                self.linger();
                self.release(guard, left);
            }
            1 if !span.is_empty() => {
                let to = self.some_of(span);
                let [left] = self.convert(row, [(to, mode)], || guard.shrink(to.bounds()));
                self.linger();
                self.release(guard, left);
            }
            2 | 3 if !span.is_empty() => {
                let at = self.some_of(span).first().expect("it is not empty");
                let (head, tail) = span.split(at);
                let mut halves = None;
                let [first, second] =
                    self.convert(row, [(head, mode), (tail, mode)], || halves = Some(guard.split(at)));
                let (head, tail) = halves.expect("it was split");
                self.release(head, first);
                self.linger();
                self.release(tail, second);
            }
            4 if mode != Mode::Exclusive => {
                self.upgrade(guard, row);
            }
            _ => self.release(guard, row),
        }
    }

    /// A part of a span, never empty.
    fn some_of(&mut self, span: Span) -> Span {
        let (start, last) = (span.first().expect("not empty"), span.last().expect("not empty"));
        let (one, other) = (self.rng.u64(start..=last), self.rng.u64(start..=last));
        Span::new(one.min(other), one.max(other))
    }

    /// `change` leaves `parts` of what `row` says: that ends, and each of them has been held all the time.
    fn convert<const N: usize>(&mut self, mut row: Row, parts: [Part; N], change: impl FnOnce()) -> [Row; N] {
        let way = if row.is_single() { "left over of one" } else { "left over" };
        let left = parts.map(|part| Row { parts: vec![part], delays: Vec::new(), way, ..row.clone() });
        row.leaving = self.tick();
        change();
        row.left = self.tick();
        self.rows.push(row);
        left
    }

    /// Tries to become exclusive; then it holds both, as far as anybody can tell.
    fn upgrade<L: LockRef, O: OwnedBy>(&mut self, mut guard: Guard<L, O>, row: Row) {
        let (who, parts) = (row.who, vec![(row.parts[0].0, Mode::Exclusive)]);
        let mut more = None;
        let change = || guard.try_convert(Mode::Exclusive).then_some(());
        self.ask("conversion", who, Standing::Nested, parts, change, |_, (), row| more = Some(row));
        self.linger();
        self.release_all(guard, row, more);
    }

    fn release<G>(&mut self, guard: G, row: Row) {
        self.release_all(guard, row, None);
    }

    fn release_all<G>(&mut self, guard: G, row: Row, more: Option<Row>) {
        let leaving = self.tick();
        drop(guard);
        let left = self.tick();
        self.rows.extend([Some(row), more].into_iter().flatten().map(|row| Row { leaving, left, ..row }));
    }

    // The juggler.

    fn juggle(&mut self) {
        let (mut balls, most) = (Vec::new(), self.rng.usize(1..6));
        for _ in 0..self.rng.u8(8..40) {
            if balls.len() < most && self.rng.bool() {
                balls.push(self.throw());
            } else if !balls.is_empty() {
                let ball = balls.swap_remove(self.rng.usize(0..balls.len()));
                balls.extend(self.handle(ball));
            }
        }
        // Only who was woken is polled from here on.
        while !balls.is_empty() {
            let (ripe, waiting): (Vec<_>, Vec<_>) = balls.into_iter().partition(Ball::is_ripe);
            balls = waiting;
            if self.round.is_stuck() {
                balls.drain(..).chain(ripe).for_each(|ball| self.give_up(ball));
                break;
            }
            if ripe.is_empty() {
                // A call of a waker that came before is not forgotten.
                thread::park_timeout(Duration::from_secs(1));
            }
            for ball in ripe {
                match ball {
                    Ball::Held(..) => self.give_up(ball),
                    waiting => balls.extend(self.poll(waiting)),
                }
            }
        }
    }

    /// A new future, polled once.
    fn throw(&mut self) -> Ball<'r> {
        let (round, part) = (self.round, self.part());
        let ((span, mode), mut parts) = (part, vec![part]);
        let lock = || round.lock.clone();
        let (way, future): (_, Asking<'r>) = match self.rng.u8(0..13) / 2 {
            6 => {
                let drain = lock().drained_arc(span.bounds(), mode);
                let over = async {
                    drain.await;
                    Hold::Nothing
                };
                ("drain", Box::pin(over))
            }
            0..2 => {
                let request = round.lock.request(span.bounds(), mode);
                ("future", Box::pin(async { Hold::Borrowed(request.await) }))
            }
            2 | 3 => {
                let request = lock().request_arc(span.bounds(), mode);
                ("future of its own", Box::pin(async { Hold::Shared(request.await) }))
            }
            4 => {
                let request = lock().request_arc(span.bounds(), mode).owner(&Owner::new());
                let held = async { Hold::Token(request.await.expect("a token with one request closes no circle")) };
                ("future of a token", Box::pin(held))
            }
            _ => {
                parts.push(self.part());
                let batch = self.batch(&parts);
                ("future batch", Box::pin(async { Hold::Batch(batch.await) }))
            }
        };
        let row = Row {
            who: self.somebody(),
            standing: Standing::Outermost,
            way,
            parts,
            asked: self.tick(),
            seated: NEVER,
            seen: NEVER,
            granted: NEVER,
            leaving: NEVER,
            left: NEVER,
            delays: Vec::new(),
        };
        let bell =
            Arc::new(Bell { clock: round.clock.clone(), rung: AtomicU64::new(NEVER), thread: thread::current() });
        self.poll(Ball::Waiting { future, bell, row }).expect("polling drops nothing")
    }

    /// Does something with a ball; `None`: it is gone.
    fn handle(&mut self, ball: Ball<'r>) -> Option<Ball<'r>> {
        match &ball {
            Ball::Held(..) if self.rng.bool() => {
                self.give_up(ball);
                None
            }
            Ball::Waiting { .. } if self.rng.u8(0..16) == 0 => {
                self.give_up(ball);
                None
            }
            Ball::Waiting { .. } if ball.is_ripe() || self.rng.u8(0..16) == 0 => self.poll(ball),
            _ => {
                self.linger();
                Some(ball)
            }
        }
    }

    fn poll(&mut self, ball: Ball<'r>) -> Option<Ball<'r>> {
        let Ball::Waiting { mut future, bell, mut row } = ball else { return Some(ball) };
        let from = self.tick();
        if let Some(delay) = row.delays.last_mut() {
            delay.until = bell.rung.load(Ordering::Acquire).min(from);
        }
        bell.rung.store(NEVER, Ordering::Release);
        let answer = future.as_mut().poll(&mut Context::from_waker(&Waker::from(bell.clone())));
        let answered = self.tick();
        row.seated = row.seated.min(answered);
        Some(match answer {
            Poll::Ready(hold) => {
                row.granted = answered;
                Ball::Held(hold, row)
            }
            Poll::Pending => {
                row.delays.push(Delay { from, answered, until: NEVER });
                Ball::Waiting { future, bell, row }
            }
        })
    }

    /// Drops a ball: a cancellation, or a release.
    fn give_up(&mut self, ball: Ball<'r>) {
        match ball {
            Ball::Held(Hold::Borrowed(guard), row) => self.hold(guard, row),
            Ball::Held(Hold::Shared(guard), row) => self.hold(guard, row),
            Ball::Held(Hold::Token(guard), row) => self.hold(guard, row),
            Ball::Held(Hold::Batch(guards), row) => self.release(guards, row),
            Ball::Held(Hold::Nothing, row) => self.release((), row),
            Ball::Waiting { future, bell, mut row } => {
                row.leaving = self.tick();
                if let Some(delay) = row.delays.last_mut() {
                    delay.until = bell.rung.load(Ordering::Acquire).min(row.leaving);
                }
                drop(future);
                row.left = self.tick();
                self.rows.push(row);
            }
        }
    }
}

/// What [`Span::bounds`] makes.
type Bounds = (std::ops::Bound<u64>, std::ops::Bound<u64>);
