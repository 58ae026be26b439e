//! Random histories of owners: one thread plays them all, by futures that it polls by hand, and the oracle of
//! [`super::owners`] knows the one right answer to every step: granted, waiting, let past somebody, deadlock.
//!
//! As in [`super::history`] the runner polls exactly the futures that were woken, after each step or where the history
//! says so. A request that could be granted and was not polled yet is still queued, for the lock and for the oracle; so
//! both paces have exact answers.

use super::history::{Pace, Space, caught, random_mode, shrink};
use super::owners::{Begin, Model, Nested, Part, Who};
use super::poll::Hand;
use super::{Span, from_env};
use fastrand::Rng;
use spanlock::{
    AcquireError, Batch, BatchGuard, ByOwner, ByTask, ByThread, ByteRange, Deadlock, Guard, Mode, Nesting, OwnedBy,
    Owner, OwnerId, RangeLock, Recursion, TimedOut, Wait,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

/// The thread that runs everything. It cannot wait, so all it does is try.
pub(crate) const THREAD: Who = Who::Many(0);

/// How a request is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// By a future, which is polled once.
    Await,
    Try,
    PastDeadline,
}

/// A request, or a batch. Its parts have numbers of their own when they are held: the request's own, and those after
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) id: usize,
    pub(crate) who: Who,
    pub(crate) parts: Vec<Part>,
    /// Guards that are let go, and whose ranges are further parts.
    pub(crate) regain: Vec<usize>,
    pub(crate) batch: bool,
    pub(crate) recursion: Recursion,
    pub(crate) how: How,
}

/// What is done to a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Downgrade(Mode),
    /// To what the guard holds of this.
    Shrink(Span),
    /// The second guard gets this number.
    Split(u64, usize),
    /// Releases what it holds of this; the second guard gets this number.
    Release(Span, usize),
    Convert(Mode),
    /// As far as this.
    Extend(Span),
}

/// One step. One that names a request that is gone, or that makes no sense as things are, does nothing: so steps can be
/// left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Ask(Ask),
    /// Begins a drain by a future, which is polled once.
    Drain {
        id: usize,
        who: Who,
        part: Part,
    },
    /// Polls a future once more.
    Poll {
        id: usize,
        new_waker: bool,
    },
    /// Drops what there is: a future (that is the cancel) or a guard.
    End {
        id: usize,
    },
    Change {
        id: usize,
        change: Change,
    },
    /// Polls the futures that were woken, in order or in reverse order.
    Settle {
        reverse: bool,
    },
    /// Looks at what every guard says of itself.
    Look,
    Trim,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Ask(Ask { id, who, parts, regain, batch, recursion, how }) => {
                write!(f, "#{id} = {who:?} {how:?} {parts:?}")?;
                if *batch {
                    write!(f, " as a batch, which regains {regain:?}")?;
                }
                if *recursion == Recursion::Refuse { f.write_str(", refuses recursion") } else { Ok(()) }
            }
            Step::Drain { id, who, part } => write!(f, "#{id} = {who:?} drains {part:?}"),
            Step::Poll { id, new_waker } => {
                write!(f, "poll #{id}{}", if *new_waker { " with a new waker" } else { "" })
            }
            Step::End { id } => write!(f, "drop #{id}"),
            Step::Change { id, change: Change::Split(at, tail) } => write!(f, "split #{id} at {at}: #{tail}"),
            Step::Change { id, change: Change::Release(gap, tail) } => write!(f, "release {gap:?} of #{id}: #{tail}"),
            Step::Change { id, change } => write!(f, "#{id}: {change:?}"),
            Step::Settle { reverse } => write!(f, "poll the woken{}", if *reverse { ", newest first" } else { "" }),
            Step::Look => f.write_str("look at the guards"),
            Step::Trim => f.write_str("trim"),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) pace: Pace,
    /// Of locks with a window that is never over.
    pub(crate) window: bool,
    pub(crate) locks: usize,
    pub(crate) tokens: usize,
    pub(crate) steps: Vec<Step>,
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} locks, owners Many(1) to Many({}); {THREAD:?} is the thread", self.locks, self.tokens)?;
        writeln!(f, "woken futures are polled: {:?}; window: {}", self.pace, self.window)?;
        self.steps.iter().enumerate().try_for_each(|(at, step)| writeln!(f, "  {at:3}  {step}"))
    }
}

/// What a random history is made of.
struct Maker<'a> {
    rng: &'a mut Rng,
    space: &'a Space,
    locks: usize,
    tokens: usize,
    /// Of the modes.
    weights: [usize; 3],
    /// Out of 16 requests, how many are batches; out of 16 steps, how many change a guard.
    batches: u8,
    changes: u8,
    /// Out of 16 requests, how many are drains instead.
    drains: u8,
    /// Whether there are requests beside those of tokens.
    others: bool,
    live: Vec<(usize, Who)>,
    next: usize,
}

impl Maker<'_> {
    fn part(&mut self) -> Part {
        let lock = self.rng.usize(0..self.locks);
        Part { lock, span: self.space.span(self.rng), mode: random_mode(self.rng, self.weights) }
    }

    fn ask(&mut self) -> Step {
        let id = self.next;
        let who = match self.rng.u8(0..16) {
            0 | 1 if self.others => Who::Solo(id),
            2 if self.others => THREAD,
            _ => Who::Many(self.rng.usize(1..=self.tokens)),
        };
        let how = match self.rng.u8(0..16) {
            0 | 1 => How::Try,
            2 => How::PastDeadline,
            _ => How::Await,
        };
        let how = match (who, how) {
            (Who::Solo(_), _) => How::Await,
            (THREAD, How::Await) => How::Try,
            _ => how,
        };
        let batch = self.rng.u8(0..16) < self.batches;
        let count = if batch { self.rng.usize(1..=3) } else { 1 };
        let parts: Vec<Part> = (0..count).map(|_| self.part()).collect();
        let mut regain = Vec::new();
        if batch && self.rng.u8(0..3) == 0 {
            let own: Vec<usize> = self.live.iter().filter(|(_, owner)| *owner == who).map(|(id, _)| *id).collect();
            regain.extend(own.into_iter().filter(|_| self.rng.bool()).take(3));
            self.live.retain(|(id, _)| !regain.contains(id));
        }
        let recursion = if self.rng.u8(0..16) == 0 { Recursion::Refuse } else { Recursion::Reenter };
        let count = count + regain.len();
        self.live.extend((id..id + count).map(|id| (id, who)));
        self.next += count;
        Step::Ask(Ask { id, who, parts, regain, batch, recursion, how })
    }

    fn drain(&mut self) -> Step {
        let (id, part) = (self.next, self.part());
        let who = if self.others && self.rng.u8(0..4) == 0 {
            Who::Solo(id)
        } else {
            Who::Many(self.rng.usize(1..=self.tokens))
        };
        self.live.push((id, who));
        self.next += 1;
        Step::Drain { id, who, part }
    }

    fn change(&mut self) -> Option<Step> {
        let (id, who) = *self.rng.choice(&self.live)?;
        let part = self.part();
        let tail = self.next;
        let change = match self.rng.u8(0..8) {
            0 => Change::Downgrade(part.mode),
            1 => Change::Shrink(part.span),
            2 | 3 => {
                self.next += 1;
                self.live.push((tail, who));
                let some_byte = part.span.first().unwrap_or(0);
                if self.rng.bool() { Change::Split(some_byte, tail) } else { Change::Release(part.span, tail) }
            }
            4 | 5 => Change::Convert(part.mode),
            _ => Change::Extend(part.span),
        };
        Some(Step::Change { id, change })
    }
}

impl History {
    /// `len` steps of `tokens` owners and a few others, with up to about `crowd` live requests.
    pub(crate) fn random(rng: &mut Rng, space: &Space, len: usize, crowd: usize) -> History {
        let pace = if rng.bool() { Pace::AtOnce } else { Pace::Late };
        let (locks, tokens) = (rng.usize(1..=3), rng.usize(2..=6));
        let weights = [rng.usize(1..8), rng.usize(0..8), rng.usize(0..4)];
        let (batches, changes, others) = (rng.u8(0..6), rng.u8(0..6), rng.u8(0..3) > 0);
        let drains = [0, 0, 2, 6][rng.usize(0..4)];
        let (live, next) = (Vec::new(), 0);
        let mut maker = Maker { rng, space, locks, tokens, weights, batches, changes, drains, others, live, next };
        let mut steps = Vec::with_capacity(len);
        while steps.len() < len {
            if maker.rng.u8(0..16) < maker.changes {
                steps.extend(maker.change());
                continue;
            }
            let live = maker.live.len();
            match maker.rng.u8(0..20) {
                0..=11 if live < crowd => {
                    let drains = maker.rng.u8(0..16) < maker.drains;
                    steps.push(if drains { maker.drain() } else { maker.ask() });
                }
                12 if live > 0 => {
                    let (id, _) = maker.live[maker.rng.usize(0..live)];
                    steps.push(Step::Poll { id, new_waker: maker.rng.bool() });
                }
                13 | 14 if pace == Pace::Late => steps.push(Step::Settle { reverse: maker.rng.bool() }),
                15 => steps.push(if maker.rng.u8(0..8) == 0 { Step::Trim } else { Step::Look }),
                16.. if live > 0 => {
                    let (id, _) = maker.live.swap_remove(maker.rng.usize(0..live));
                    steps.push(Step::End { id });
                }
                _ => {}
            }
        }
        let window = maker.rng.u8(0..3) == 0;
        History { pace, window, locks, tokens, steps }
    }
}

/// A guard of any owner.
enum AnyGuard<'a> {
    Token(Guard<&'a RangeLock, ByOwner>),
    Task(Guard<&'a RangeLock, ByTask>),
    Thread(Guard<&'a RangeLock, ByThread>),
}

macro_rules! with {
    ($any:expr, $guard:ident => $do:expr) => {
        match $any {
            AnyGuard::Token($guard) => $do,
            AnyGuard::Task($guard) => $do,
            AnyGuard::Thread($guard) => $do,
        }
    };
}

impl<'a> From<Guard<&'a RangeLock, ByOwner>> for AnyGuard<'a> {
    fn from(guard: Guard<&'a RangeLock, ByOwner>) -> AnyGuard<'a> {
        AnyGuard::Token(guard)
    }
}

impl<'a> From<Guard<&'a RangeLock, ByTask>> for AnyGuard<'a> {
    fn from(guard: Guard<&'a RangeLock, ByTask>) -> AnyGuard<'a> {
        AnyGuard::Task(guard)
    }
}

impl<'a> From<Guard<&'a RangeLock, ByThread>> for AnyGuard<'a> {
    fn from(guard: Guard<&'a RangeLock, ByThread>) -> AnyGuard<'a> {
        AnyGuard::Thread(guard)
    }
}

/// What a request is answered with: the guards of its parts.
type Answer<'a> = Result<Vec<AnyGuard<'a>>, AcquireError>;
type Asked<'a> = Pin<Box<dyn Future<Output = Answer<'a>> + 'a>>;

fn single<'a, O: OwnedBy>(guard: Guard<&'a RangeLock, O>) -> Vec<AnyGuard<'a>>
where
    AnyGuard<'a>: From<Guard<&'a RangeLock, O>>,
{
    vec![guard.into()]
}

fn several<'a, O: OwnedBy>(guards: BatchGuard<&'a RangeLock, O>) -> Vec<AnyGuard<'a>>
where
    AnyGuard<'a>: From<Guard<&'a RangeLock, O>>,
{
    guards.into_parts().into_iter().map(AnyGuard::from).collect()
}

/// What the histories of a run came to, so that a test can see that they were not empty talk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Requests granted at once, nobody being in the way.
    pub(crate) at_once: usize,
    /// Those that were let past somebody, and so were granted at once too; and all passes.
    pub(crate) passed_at_once: usize,
    pub(crate) passes: usize,
    /// Futures granted after a wait.
    pub(crate) waited: usize,
    /// Requests that were tried in vain.
    pub(crate) failed: usize,
    pub(crate) deadlocks: usize,
    pub(crate) longest_cycle: usize,
    pub(crate) recursions: usize,
    /// Batches of several parts that were granted after a wait, and ones that were refused.
    pub(crate) batches: usize,
    pub(crate) deadlocked_batches: usize,
    /// Guards that became more, and ones that could not.
    pub(crate) converted: usize,
    pub(crate) not_converted: usize,
    /// Futures dropped while they waited, and of these the ones that had been woken.
    pub(crate) cancelled: usize,
    pub(crate) cancelled_woken: usize,
    /// Drains that were over at once, and after a wait; and that were refused, in all, and because of somebody who
    /// waited.
    pub(crate) drained: [usize; 2],
    pub(crate) drains_refused: [usize; 2],
    /// And because of a hold that became more meanwhile.
    pub(crate) drains_refused_late: usize,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.at_once += other.at_once;
        self.passed_at_once += other.passed_at_once;
        self.passes += other.passes;
        self.waited += other.waited;
        self.failed += other.failed;
        self.deadlocks += other.deadlocks;
        self.longest_cycle = self.longest_cycle.max(other.longest_cycle);
        self.recursions += other.recursions;
        self.batches += other.batches;
        self.deadlocked_batches += other.deadlocked_batches;
        self.converted += other.converted;
        self.not_converted += other.not_converted;
        self.cancelled += other.cancelled;
        self.cancelled_woken += other.cancelled_woken;
        self.drained.iter_mut().zip(other.drained).for_each(|(mine, other)| *mine += other);
        self.drains_refused_late += other.drains_refused_late;
        self.drains_refused.iter_mut().zip(other.drains_refused).for_each(|(mine, other)| *mine += other);
    }
}

struct Waiting<'a> {
    hand: Hand<Asked<'a>>,
    /// The numbers of its parts. A drain has none.
    ids: Vec<usize>,
}

struct Runner<'a> {
    locks: &'a [RangeLock],
    tokens: Vec<Owner>,
    model: Model,
    waiting: BTreeMap<usize, Waiting<'a>>,
    held: BTreeMap<usize, AnyGuard<'a>>,
    tally: Tally,
    past: Instant,
}

impl Runner<'static> {
    fn step(&mut self, step: &Step, pace: Pace) -> Result<(), String> {
        match *step {
            Step::Ask(ref ask) => self.ask(ask)?,
            Step::Drain { id, who, part } => self.drain(id, who, part)?,
            Step::Poll { id, new_waker } => self.poll(id, new_waker)?,
            Step::End { id } => self.end(id),
            Step::Change { id, change } => self.change(id, change)?,
            Step::Settle { reverse } => self.settle(reverse)?,
            Step::Look => self.held.keys().try_for_each(|&id| self.look(id))?,
            Step::Trim => self.locks.iter().for_each(RangeLock::trim),
        }
        if pace == Pace::AtOnce {
            self.settle(false)?;
        }
        self.model.check_invariants()
    }

    fn ask(&mut self, ask: &Ask) -> Result<(), String> {
        let mut ask = ask.clone();
        let mut regained = Vec::new();
        for id in &ask.regain {
            if let Some(guard) = self.held.remove(id) {
                ask.parts.push(self.model.held(*id));
                self.model.end(*id);
                regained.push(guard);
            }
        }
        let ids = (ask.id..ask.id + ask.parts.len()).collect();
        if ask.how != How::Await {
            return self.ask_at_once(&ask, regained, ids);
        }
        let passes = self.model.passes();
        let refuses = ask.recursion == Recursion::Refuse && self.model.recurses(ask.who, &ask.parts);
        let mut waiting = Waiting { hand: Hand::new(self.future(&ask, regained)), ids };
        if refuses {
            return match waiting.hand.poll() {
                Poll::Ready(Err(error)) => self.check_recursion(&ask, &error),
                other => Err(differs(ask.id, "it would recurse", &other)),
            };
        }
        let says = self.model.begin(ask.id, ask.who, ask.parts.clone());
        self.tally.passes += self.model.passes().difference(&passes).count();
        match (&says, waiting.hand.poll()) {
            (Begin::Granted, Poll::Ready(Ok(guards))) => {
                self.tally.at_once += 1;
                self.hold(ask.id, guards, &waiting.ids)?;
            }
            (Begin::Queued, Poll::Ready(Ok(guards))) if !self.model.waits(ask.id) => {
                self.tally.passed_at_once += 1;
                self.model.grant(ask.id);
                self.hold(ask.id, guards, &waiting.ids)?;
            }
            (Begin::Queued, Poll::Pending) if self.model.waits(ask.id) => _ = self.waiting.insert(ask.id, waiting),
            (Begin::Deadlock { .. }, Poll::Ready(Err(AcquireError::Deadlock(deadlock)))) => {
                self.tally.deadlocks += 1;
                self.tally.longest_cycle = self.tally.longest_cycle.max(deadlock.waits().len());
                self.tally.deadlocked_batches += usize::from(ask.parts.len() > 1);
                if !self.model.would_be_deadlocked(ask.who, ask.parts.clone()) {
                    return Err(format!("#{} was refused, and there is no deadlock: {deadlock}", ask.id));
                }
                self.check_deadlock(ask.id, ask.who, &ask.parts, &deadlock)?;
            }
            (says, other) => return Err(differs(ask.id, says, &other)),
        }
        Ok(())
    }

    fn drain(&mut self, id: usize, who: Who, part: Part) -> Result<(), String> {
        let drain = self.locks[part.lock].drained(part.span.bounds(), part.mode);
        let future: Asked<'static> = match self.token(who).cloned() {
            Some(owner) => {
                let drain = drain.owner(&owner);
                Box::pin(async move { drain.await.map(|()| Vec::new()) })
            }
            None => Box::pin(async move {
                drain.await;
                Ok(Vec::new())
            }),
        };
        let mut waiting = Waiting { hand: Hand::new(future), ids: Vec::new() };
        let passes = self.model.passes();
        let says = self.model.begin_drain(id, who, part);
        self.tally.passes += self.model.passes().difference(&passes).count();
        match (&says, waiting.hand.poll()) {
            (Begin::Granted, Poll::Ready(Ok(_))) => self.tally.drained[0] += 1,
            (Begin::Queued, Poll::Pending) => _ = self.waiting.insert(id, waiting),
            (Begin::Deadlock { .. }, Poll::Ready(Err(AcquireError::Deadlock(deadlock)))) => {
                self.tally.drains_refused[0] += 1;
                self.tally.drains_refused[1] += usize::from(deadlock.waits().iter().any(|wait| wait.queued));
                if !self.model.would_be_deadlocked_by_a_drain(who, part) {
                    return Err(format!("drain #{id} was refused, and there is no deadlock: {deadlock}"));
                }
                self.check_deadlock(id, who, &[part], &deadlock)?;
            }
            (says, other) => return Err(differs(id, says, &other)),
        }
        Ok(())
    }

    fn ask_at_once(&mut self, ask: &Ask, regained: Vec<AnyGuard<'static>>, ids: Vec<usize>) -> Result<(), String> {
        let refuses = ask.recursion == Recursion::Refuse && self.model.recurses(ask.who, &ask.parts);
        let answer = self.answer_at_once(ask, regained);
        let says = !refuses && self.model.try_begin(ask.id, ask.who, ask.parts.clone());
        match answer {
            Some(Ok(guards)) if says => {
                self.tally.at_once += 1;
                self.hold(ask.id, guards, &ids)
            }
            None if !says => {
                self.tally.failed += 1;
                Ok(())
            }
            Some(Err(AcquireError::TimedOut(late))) if !says && !refuses => {
                self.tally.failed += 1;
                self.check_timeout(ask, &late)
            }
            Some(Err(error)) if refuses => self.check_recursion(ask, &error),
            other => Err(differs(ask.id, (says, refuses), &other.map_or(Poll::Pending, Poll::Ready))),
        }
    }

    fn batch(&self, ask: &Ask, regained: Vec<AnyGuard<'static>>) -> Batch<&'static RangeLock> {
        let own_parts = &ask.parts[..ask.parts.len() - regained.len()];
        let batch = own_parts.iter().fold(Batch::new(), |batch, part| {
            let (lock, bounds) = (&self.locks[part.lock], part.span.bounds());
            match part.mode {
                Mode::Add => batch.add(lock, bounds),
                Mode::Block => batch.block(lock, bounds),
                Mode::Exclusive => batch.exclusive(lock, bounds),
            }
        });
        regained.into_iter().fold(batch, |batch, guard| with!(guard, guard => batch.regain(guard)))
    }

    /// Not polled yet.
    fn future(&self, ask: &Ask, regained: Vec<AnyGuard<'static>>) -> Asked<'static> {
        let token = self.token(ask.who).cloned();
        if ask.batch {
            let batch = self.batch(ask, regained);
            return match token {
                Some(owner) => {
                    let batch = batch.owner(&owner).recursion(ask.recursion);
                    Box::pin(async move { batch.await.map(several) })
                }
                None => Box::pin(async move { Ok(several(batch.await)) }),
            };
        }
        let part = ask.parts[0];
        let request = self.locks[part.lock].request(part.span.bounds(), part.mode);
        match token {
            Some(owner) => {
                let request = request.owner(&owner).recursion(ask.recursion);
                Box::pin(async move { request.await.map(single) })
            }
            None => Box::pin(async move { Ok(single(request.await)) }),
        }
    }

    /// `None`: it was tried, and is not free.
    fn answer_at_once(&self, ask: &Ask, regained: Vec<AnyGuard<'static>>) -> Option<Answer<'static>> {
        // The same calls for two types.
        macro_rules! answer {
            ($request:expr, $guards:ident) => {{
                let request = $request.recursion(ask.recursion);
                match ask.how {
                    How::Try => request.try_now().map($guards).map(Ok),
                    _ => Some(request.deadline(self.past).wait().map($guards)),
                }
            }};
        }
        let part = ask.parts[0];
        match (ask.batch, self.token(ask.who)) {
            (true, Some(owner)) => answer!(self.batch(ask, regained).owner(owner), several),
            (true, None) => answer!(self.batch(ask, regained), several),
            (false, Some(owner)) => {
                answer!(self.locks[part.lock].request(part.span.bounds(), part.mode).owner(owner), single)
            }
            (false, None) => answer!(self.locks[part.lock].request(part.span.bounds(), part.mode), single),
        }
    }

    fn token(&self, who: Who) -> Option<&Owner> {
        match who {
            Who::Many(number) if who != THREAD => Some(&self.tokens[number - 1]),
            _ => None,
        }
    }

    fn poll(&mut self, id: usize, new_waker: bool) -> Result<(), String> {
        let Some(waiting) = self.waiting.get_mut(&id) else { return Ok(()) };
        let looks = waiting.hand.woken() && waiting.ids.is_empty();
        let answer = if new_waker { waiting.hand.poll_elsewhere() } else { waiting.hand.poll() };
        match answer {
            Poll::Pending if looks && self.model.is_deadlocked_drain(id) => {
                Err(format!("drain #{id} has looked again, and waits for its own owner"))
            }
            // If it need not wait and was not woken, `settle` will say so.
            Poll::Pending => Ok(()),
            Poll::Ready(Err(AcquireError::Deadlock(_))) if looks && self.model.is_deadlocked_drain(id) => {
                self.tally.drains_refused_late += 1;
                self.waiting.remove(&id);
                self.model.end(id);
                Ok(())
            }
            Poll::Ready(Ok(_)) if waiting.ids.is_empty() && !self.model.waits(id) => {
                self.tally.drained[1] += 1;
                self.waiting.remove(&id);
                self.model.end(id);
                Ok(())
            }
            Poll::Ready(Ok(guards)) if !self.model.waits(id) => {
                self.tally.waited += 1;
                self.tally.batches += usize::from(guards.len() > 1);
                let waiting = self.waiting.remove(&id).expect("it was there a moment ago");
                self.model.grant(id);
                self.hold(id, guards, &waiting.ids)
            }
            other => Err(differs(id, format_args!("it waits for {:?}", self.model.blocker(id)), &other)),
        }
    }

    fn hold(&mut self, id: usize, guards: Vec<AnyGuard<'static>>, ids: &[usize]) -> Result<(), String> {
        if guards.len() != ids.len() {
            return Err(format!("#{id} got {} guards for {} parts", guards.len(), ids.len()));
        }
        self.model.unbundle(id, ids);
        self.held.extend(ids.iter().copied().zip(guards));
        ids.iter().try_for_each(|&id| self.look(id))
    }

    /// What a guard says of itself.
    fn look(&self, id: usize) -> Result<(), String> {
        let (says, nesting) = with!(&self.held[&id], guard => ((guard.range(), guard.mode()), guard.nesting()));
        let Part { span, mode, .. } = self.model.held(id);
        if says != (range(span), mode) {
            return Err(format!("the guard of #{id} says {says:?}"));
        }
        let one_of = |parts: &[Part], held: ByteRange, mode: Mode| {
            parts.iter().any(|part| (range(part.span), part.mode) == (held, mode))
        };
        let nested = self.model.nested(id);
        let right = match (&nested, nesting) {
            (Nested::Outermost, Nesting::Outermost) | (Nested::Elsewhere, Nesting::Elsewhere) => true,
            (Nested::Inside(parts), Nesting::Inside { held, mode }) => one_of(parts, held, mode),
            (Nested::Conflicting(parts), Nesting::Conflicting { held, mode }) => one_of(parts, held, mode),
            _ => false,
        };
        if right { Ok(()) } else { Err(format!("#{id} is nested so: {nested:?}; the guard says {nesting:?}")) }
    }

    fn end(&mut self, id: usize) {
        if let Some(waiting) = self.waiting.remove(&id) {
            self.tally.cancelled += 1;
            self.tally.cancelled_woken += usize::from(waiting.hand.woken());
            self.model.end(id);
        } else if let Some(guard) = self.held.remove(&id) {
            drop(guard);
            self.model.end(id);
        }
    }

    fn change(&mut self, id: usize, change: Change) -> Result<(), String> {
        let Some(guard) = self.held.get_mut(&id) else { return Ok(()) };
        let Part { span, mode: held_mode, .. } = self.model.held(id);
        match change {
            Change::Downgrade(mode) if held_mode == Mode::Exclusive => {
                with!(guard, guard => guard.downgrade(mode));
                self.model.downgrade(id, mode);
            }
            Change::Shrink(to) => {
                let to = span.cut(to);
                with!(guard, guard => guard.shrink(to.bounds()));
                self.model.shrink(id, to);
            }
            Change::Split(at, tail) if span.splits_at(at) => {
                self.take(id, tail, |guard| with!(guard, guard => pair(guard.split(at))));
                self.model.split(id, at, tail);
                self.look(tail)?;
            }
            Change::Release(gap, tail) if span.meets(gap) => {
                let gap = span.cut(gap);
                self.take(id, tail, |guard| with!(guard, guard => pair(guard.release(gap.bounds()))));
                self.model.release(id, gap, tail);
                self.look(tail)?;
            }
            Change::Convert(mode) => {
                let became = with!(guard, guard => guard.try_convert(mode));
                self.converted(id, became, |model| model.try_convert(id, mode))?;
            }
            Change::Extend(to) if !span.is_empty() => {
                let to = span.hull(to);
                let became = with!(guard, guard => guard.try_extend(to.bounds()));
                self.converted(id, became, |model| model.try_extend(id, to))?;
            }
            Change::Downgrade(_) | Change::Split(..) | Change::Release(..) | Change::Extend(_) => {}
        }
        self.look(id)
    }

    /// Makes two guards of one.
    fn take(
        &mut self,
        id: usize,
        tail: usize,
        two: impl FnOnce(AnyGuard<'static>) -> (AnyGuard<'static>, AnyGuard<'static>),
    ) {
        let guard = self.held.remove(&id).expect("the caller has looked");
        let (first, second) = two(guard);
        self.held.extend([(id, first), (tail, second)]);
    }

    fn converted(&mut self, id: usize, became: bool, model: impl FnOnce(&mut Model) -> bool) -> Result<(), String> {
        *(if became { &mut self.tally.converted } else { &mut self.tally.not_converted }) += 1;
        if model(&mut self.model) == became {
            return Ok(());
        }
        Err(format!("#{id} {} become more", if became { "should not have" } else { "could have" }))
    }

    /// Polls the woken futures until there is none, and then looks for one whose wake was lost.
    fn settle(&mut self, reverse: bool) -> Result<(), String> {
        for _ in 0..1000 {
            let woken = self.waiting.iter().filter(|(_, waiting)| waiting.hand.woken()).map(|(id, _)| *id);
            let mut woken: Vec<usize> = woken.collect();
            if woken.is_empty() {
                return match self.waiting.keys().find(|&&id| !self.model.waits(id)) {
                    Some(id) => {
                        Err(format!("nobody stands in the way of #{id}, and its waker was not called: a lost wake"))
                    }
                    None => Ok(()),
                };
            }
            if reverse {
                woken.reverse();
            }
            woken.into_iter().try_for_each(|id| self.poll(id, false))?;
        }
        Err("futures wake without end, and none is granted".to_owned())
    }

    /// Who is late is told who asked, and for what.
    fn check_timeout(&self, ask: &Ask, late: &TimedOut) -> Result<(), String> {
        let asked = ask.parts.iter().filter(|part| !part.span.is_empty());
        let named = late.asked().iter().map(|asked| (span(asked.range), asked.mode));
        let token = self.token(ask.who);
        let is_it = match token {
            Some(owner) => late.owner().id == owner.id(),
            None => late.owner().id.to_string().starts_with("thread"),
        };
        match is_it && named.eq(asked.map(|part| (part.span, part.mode))) {
            true => Ok(()),
            false => Err(format!("#{} asked for {:?}, and is told: {late}", ask.id, ask.parts)),
        }
    }

    /// A refusal must name a part of the request and something that its owner holds in conflict with it.
    fn check_recursion(&mut self, ask: &Ask, error: &AcquireError) -> Result<(), String> {
        self.tally.recursions += 1;
        if let AcquireError::WouldRecurse(own) = error {
            let held = (0..self.locks.len()).map(|lock| Part { lock, span: span(own.held()), mode: own.mode() });
            let mut held = held.filter(|held| self.model.holds(ask.who, *held));
            if held.any(|held| ask.parts.iter().any(|part| part.conflicts(&held))) {
                return Ok(());
            }
        }
        Err(format!("#{} was refused for another reason than recursion: {error:?}", ask.id))
    }

    /// A deadlock must be one, and say so: each waits for what the next one holds.
    fn check_deadlock(&self, id: usize, who: Who, parts: &[Part], deadlock: &Deadlock) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("#{id}: {what}: {deadlock}"));
        let waits = deadlock.waits();
        // One that is no token's is known by what it asks for: a single request, which waits.
        let part_of = |wait: &Wait| {
            let lock = wait.lock.parse().expect("the locks are named by numbers");
            Part { lock, span: span(wait.range), mode: wait.mode }
        };
        let owner_of = |wait: &Wait| self.who(wait.owner.id).or_else(|| self.model.who_asks_alone(part_of(wait)));
        let owners: Option<Vec<Who>> = waits.iter().map(owner_of).collect();
        let Some(owners) = owners else { return wrong("the cycle names strangers") };
        if owners.first() != Some(&who) || owners.iter().collect::<BTreeSet<_>>().len() != owners.len() {
            return wrong("the cycle does not begin with the one who was refused, or is not simple");
        }
        for (at, wait) in waits.iter().enumerate() {
            let wanted = part_of(wait);
            let held = Part { span: span(wait.held), mode: wait.held_mode, ..wanted };
            let asks = at == 0 && parts.contains(&wanted) || self.model.asks(owners[at], wanted);
            let holder = owners[(at + 1) % owners.len()];
            let has = if wait.queued { self.model.asks(holder, held) } else { self.model.holds(holder, held) };
            if !(asks && has && wanted.conflicts(&held)) {
                return wrong("the cycle is not what happened");
            }
        }
        Ok(())
    }

    /// The token of an identity.
    fn who(&self, id: OwnerId) -> Option<Who> {
        self.tokens.iter().position(|owner| owner.id() == id).map(|at| Who::Many(at + 1))
    }

    /// Everything ends, oldest first; nobody who waits may be forgotten, the trees must shrink to their roots, and the
    /// owners must be as new.
    fn finish(&mut self) -> Result<(), String> {
        self.settle(false)?;
        while let Some(id) = self.held.keys().next().copied() {
            self.end(id);
            self.settle(true)?;
        }
        if self.model.len() > 0 {
            return Err("somebody waits, and nobody holds anything".to_owned());
        }
        for lock in self.locks {
            lock.trim();
            if lock.heap_nodes() > 0 {
                return Err(format!("{} nodes are left after everything ended and trim()", lock.heap_nodes()));
            }
        }
        for owner in &self.tokens {
            let guard = self.locks[0].request(.., Mode::Exclusive).owner(owner).try_now();
            if guard.as_ref().map(Guard::nesting) != Some(Nesting::Outermost) {
                return Err(format!("{owner:?} gets {guard:?}, and holds nothing else"));
            }
        }
        let guard = self.locks[0].try_exclusive(..);
        if guard.as_ref().map(Guard::nesting) != Some(Nesting::Outermost) {
            return Err(format!("the thread gets {guard:?}, and holds nothing else"));
        }
        Ok(())
    }
}

fn pair<'a, O: OwnedBy>(
    (first, second): (Guard<&'a RangeLock, O>, Guard<&'a RangeLock, O>),
) -> (AnyGuard<'a>, AnyGuard<'a>)
where
    AnyGuard<'a>: From<Guard<&'a RangeLock, O>>,
{
    (first.into(), second.into())
}

fn range(span: Span) -> ByteRange {
    ByteRange::new(span.bounds())
}

fn span(range: ByteRange) -> Span {
    match (range.start(), range.last()) {
        (Some(start), Some(last)) => Span::new(start, last),
        _ => Span::EMPTY,
    }
}

/// The lock answers something else than the oracle.
fn differs(id: usize, says: impl fmt::Debug, answer: &Poll<Answer<'_>>) -> String {
    let answer = match answer {
        Poll::Pending => "lets it wait".to_owned(),
        Poll::Ready(Ok(guards)) => format!("grants it {} guards", guards.len()),
        Poll::Ready(Err(error)) => format!("refuses it: {error}"),
    };
    format!("#{id}: the oracle says {says:?}, the lock {answer}")
}

/// Runs a history on new locks.
pub(crate) fn run(history: &History) -> Result<Tally, String> {
    let window = super::never_over(history.window);
    let named = |name: &&'static str| RangeLock::named(name).reordering(window);
    let locks: Vec<RangeLock> = ["0", "1", "2"][..history.locks].iter().map(named).collect();
    let mut runner = Runner {
        locks: super::lasting(&locks[..]),
        tokens: (0..history.tokens).map(|_| Owner::new()).collect(),
        model: Model::default().reordering(history.window),
        waiting: BTreeMap::new(),
        held: BTreeMap::new(),
        tally: Tally::default(),
        past: Instant::now(),
    };
    caught(|| {
        for (at, step) in history.steps.iter().enumerate() {
            runner.step(step, history.pace).map_err(|why| format!("at step {at}: {why}"))?;
        }
        runner.finish().map_err(|why| format!("at the end: {why}"))?;
        Ok(runner.tally)
    })
}

/// Runs `count` random histories; a failure is shrunk and printed. `SPANLOCK_SEED` chooses the first, and with
/// `SPANLOCK_HISTORIES=1` runs it alone. `step` is called after each.
pub(crate) fn check_many(count: u64, make: impl Fn(&mut Rng) -> History, step: impl Fn()) -> Tally {
    let first = from_env("SPANLOCK_SEED", 1);
    let mut tally = Tally::default();
    for seed in first..first + count {
        let history = make(&mut Rng::with_seed(seed));
        match run(&history) {
            Ok(one) => tally.add(one),
            Err(why) => {
                let with = |steps: Vec<Step>| History { steps, ..history };
                let short = with(shrink(history.steps.clone(), |steps| run(&with(steps.to_vec())).is_err()));
                let why = run(&short).err().unwrap_or(why);
                panic!("seed {seed}, {why}\n{short}");
            }
        }
        step();
    }
    tally
}
