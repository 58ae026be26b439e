//! Random histories: what one thread asks of a lock step by step, by futures that it polls by hand, `try_` and
//! deadlines that have passed. With one thread there is one right answer to every step, and the oracle knows it.
//!
//! After each step (or, with [`Pace::Late`], where the history says so) the runner polls exactly the futures that were
//! woken, until none is. Then every future that the oracle says is granted must have resolved: one that has not lost
//! its wake. No future may ever resolve, and no `try_` succeed, before the oracle says so.

use super::Span;
use super::owners::{Begin, Model, Part, Who};
use super::poll::Hand;
use fastrand::Rng;
use spanlock::{Acquire, ArcRangeGuard, ByTask, Drained, Mode, RangeGuard, RangeLock, SendRangeGuard};
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// Through which face of the lock a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Face {
    Borrowed,
    Arc,
}

/// A request that is answered at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quick {
    Try,
    PastDeadline,
}

/// One step. Requests are named by number, and a step that names one that is gone does nothing: so steps can be left
/// out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Makes a future. It has no place yet.
    Make { id: usize, mode: Mode, span: Span, face: Face },
    /// Polls a future: the first time it takes its place.
    Poll { id: usize, new_waker: bool },
    /// Makes the future of a drain. It has not begun yet.
    Drain { id: usize, mode: Mode, span: Span, face: Face },
    /// Asks whether a range is drained.
    IsDrained { mode: Mode, span: Span, face: Face },
    /// Asks for an answer at once.
    Ask { id: usize, mode: Mode, span: Span, face: Face, how: Quick },
    /// Drops what there is: a future (that is the cancel) or a guard.
    End { id: usize },
    /// Polls the futures that were woken, in order or in reverse order.
    Settle { reverse: bool },
    /// Gives memory back.
    Trim,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Step::Make { id, mode, span, face } => write!(f, "#{id} = future {mode:?} {span:?} {face:?}"),
            Step::Drain { id, mode, span, face } => write!(f, "#{id} = drain {mode:?} {span:?} {face:?}"),
            Step::IsDrained { mode, span, face } => write!(f, "drained? {mode:?} {span:?} {face:?}"),
            Step::Poll { id, new_waker } => write!(f, "poll #{id}{}", if new_waker { " with a new waker" } else { "" }),
            Step::Ask { id, mode, span, face, how } => write!(f, "#{id} = {how:?} {mode:?} {span:?} {face:?}"),
            Step::End { id } => write!(f, "drop #{id}"),
            Step::Settle { reverse } => write!(f, "poll the woken{}", if reverse { ", newest first" } else { "" }),
            Step::Trim => f.write_str("trim"),
        }
    }
}

/// When futures that were woken get polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// After each step.
    AtOnce,
    /// At [`Step::Settle`] only: an executor that is slow.
    Late,
}

#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) pace: Pace,
    /// Of a lock with a window that is never over.
    pub(crate) window: bool,
    pub(crate) steps: Vec<Step>,
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "woken futures are polled: {:?}; window: {}", self.pace, self.window)?;
        self.steps.iter().enumerate().try_for_each(|(at, step)| writeln!(f, "  {at:3}  {step}"))
    }
}

/// Which addresses a history uses.
#[derive(Clone, Debug)]
pub(crate) enum Space {
    /// This many bytes from here on.
    Small { base: u64, bytes: u64 },
    /// 64 cells of 2^58 bytes: all of `u64`.
    Cells,
    /// Ranges between a few points anywhere, and their neighbours.
    Points(Vec<u64>),
}

impl Space {
    /// 8 to 64 bytes: at zero, anywhere, or up to the last byte of all.
    pub(crate) fn small(rng: &mut Rng) -> Space {
        let bytes = rng.u64(8..=64);
        Space::of(rng, bytes)
    }

    /// 3 to 8 bytes: so that most requests meet.
    pub(crate) fn tiny(rng: &mut Rng) -> Space {
        let bytes = rng.u64(3..=8);
        Space::of(rng, bytes)
    }

    fn of(rng: &mut Rng, bytes: u64) -> Space {
        let base = match rng.u8(0..4) {
            0 => rng.u64(0..u64::MAX - bytes),
            1 => u64::MAX - (bytes - 1),
            _ => 0,
        };
        Space::Small { base, bytes }
    }

    /// All of `u64`.
    pub(crate) fn wide(rng: &mut Rng) -> Space {
        if rng.bool() {
            return Space::Cells;
        }
        let mut points = vec![0, u64::MAX];
        // Of every magnitude, not only the highest.
        points.extend((0..rng.usize(2..8)).map(|_| rng.u64(..) >> rng.u32(0..64)));
        Space::Points(points)
    }

    pub(crate) fn span(&self, rng: &mut Rng) -> Span {
        match rng.u8(0..50) {
            0 => return Span::EMPTY,
            1 => return Span::WHOLE,
            _ => {}
        }
        let (a, b) = match self {
            Space::Small { base, bytes } => {
                // Mostly short, so that some requests meet and some do not.
                let start = rng.u64(0..*bytes);
                let longest = if rng.bool() { 4 } else { *bytes };
                (base + start, base + (start + rng.u64(0..longest)).min(bytes - 1))
            }
            Space::Cells => {
                let (first, count) = (rng.u64(0..64), rng.u64(0..8));
                (first << 58, ((first + count).min(63) << 58) | ((1 << 58) - 1))
            }
            Space::Points(points) => {
                let mut pick = || match (points[rng.usize(0..points.len())], rng.u8(0..4)) {
                    (point, 0) => point.saturating_sub(1),
                    (point, 1) => point.saturating_add(1),
                    (point, _) => point,
                };
                (pick(), pick())
            }
        };
        Span::new(a.min(b), a.max(b))
    }
}

impl History {
    /// `len` steps, with up to about `crowd` live requests.
    pub(crate) fn random(rng: &mut Rng, space: &Space, len: usize, crowd: usize) -> History {
        let pace = if rng.bool() { Pace::AtOnce } else { Pace::Late };
        // Some histories have few exclusive requests, or none of a mode: then more is held at once.
        let weights = [rng.usize(1..8), rng.usize(0..8), rng.usize(0..4)];
        let mut steps = Vec::with_capacity(len);
        let mut live: Vec<usize> = Vec::new();
        let mut next = 0;
        while steps.len() < len {
            let growing = live.len() < crowd;
            match rng.u8(0..20) {
                0..=7 if growing => {
                    let face = random_face(rng);
                    steps.push(Step::Make { id: next, mode: random_mode(rng, weights), span: space.span(rng), face });
                    if rng.u8(0..8) > 0 {
                        steps.push(Step::Poll { id: next, new_waker: false });
                    }
                    live.push(next);
                    next += 1;
                }
                8 | 9 if growing => {
                    let (mode, span, face) = (random_mode(rng, weights), space.span(rng), random_face(rng));
                    let how = if rng.u8(0..4) == 0 { Quick::PastDeadline } else { Quick::Try };
                    steps.push(Step::Ask { id: next, mode, span, face, how });
                    live.push(next);
                    next += 1;
                }
                10 => {
                    let (mode, span, face) = (random_mode(rng, weights), space.span(rng), random_face(rng));
                    if rng.bool() {
                        steps.push(Step::IsDrained { mode, span, face });
                        continue;
                    }
                    steps.push(Step::Drain { id: next, mode, span, face });
                    if rng.u8(0..8) > 0 {
                        steps.push(Step::Poll { id: next, new_waker: false });
                    }
                    live.push(next);
                    next += 1;
                }
                11 | 12 if !live.is_empty() => {
                    steps.push(Step::Poll { id: live[rng.usize(0..live.len())], new_waker: rng.bool() });
                }
                13 | 14 if pace == Pace::Late => steps.push(Step::Settle { reverse: rng.bool() }),
                15 if rng.u8(0..8) == 0 => steps.push(Step::Trim),
                _ if !live.is_empty() => {
                    let id = live.swap_remove(rng.usize(0..live.len()));
                    steps.push(Step::End { id });
                }
                _ => {}
            }
        }
        History { pace, window: rng.u8(0..3) == 0, steps }
    }
}

pub(crate) fn random_mode(rng: &mut Rng, weights: [usize; 3]) -> Mode {
    let mut at = rng.usize(0..weights.iter().sum());
    for (mode, weight) in [Mode::Add, Mode::Block, Mode::Exclusive].into_iter().zip(weights) {
        if at < weight {
            return mode;
        }
        at -= weight;
    }
    unreachable!("`at` is below the sum of the weights")
}

fn random_face(rng: &mut Rng) -> Face {
    if rng.u8(0..4) == 0 { Face::Arc } else { Face::Borrowed }
}

enum Waiting<'a> {
    Borrowed(Hand<Acquire<&'a RangeLock>>),
    Arc(Hand<Acquire<Arc<RangeLock>>>),
}

enum Draining<'a> {
    Borrowed(Hand<Drained<&'a RangeLock, ByTask>>),
    Arc(Hand<Drained<Arc<RangeLock>, ByTask>>),
}

impl Draining<'_> {
    fn poll(&mut self, new_waker: bool) -> Poll<()> {
        match (self, new_waker) {
            (Draining::Borrowed(hand), false) => hand.poll(),
            (Draining::Borrowed(hand), true) => hand.poll_elsewhere(),
            (Draining::Arc(hand), false) => hand.poll(),
            (Draining::Arc(hand), true) => hand.poll_elsewhere(),
        }
    }

    fn begun(&self) -> bool {
        match self {
            Draining::Borrowed(hand) => hand.begun(),
            Draining::Arc(hand) => hand.begun(),
        }
    }

    fn woken(&self) -> bool {
        match self {
            Draining::Borrowed(hand) => hand.woken(),
            Draining::Arc(hand) => hand.woken(),
        }
    }
}

/// A drain, what it is of, and whom it still waits for, once it has begun.
struct Drain<'a> {
    future: Draining<'a>,
    mode: Mode,
    span: Span,
    before: Vec<usize>,
}

#[derive(Debug)]
enum Guard<'a> {
    Thread(RangeGuard<'a>),
    Send(SendRangeGuard<'a>),
    Arc(ArcRangeGuard),
}

impl Guard<'_> {
    fn says(&self) -> (spanlock::ByteRange, Mode) {
        match self {
            Guard::Thread(guard) => (guard.range(), guard.mode()),
            Guard::Send(guard) => (guard.range(), guard.mode()),
            Guard::Arc(guard) => (guard.range(), guard.mode()),
        }
    }
}

impl<'a> Waiting<'a> {
    fn poll(&mut self, new_waker: bool) -> Poll<Guard<'a>> {
        match (self, new_waker) {
            (Waiting::Borrowed(hand), false) => hand.poll().map(Guard::Send),
            (Waiting::Borrowed(hand), true) => hand.poll_elsewhere().map(Guard::Send),
            (Waiting::Arc(hand), false) => hand.poll().map(Guard::Arc),
            (Waiting::Arc(hand), true) => hand.poll_elsewhere().map(Guard::Arc),
        }
    }

    fn begun(&self) -> bool {
        match self {
            Waiting::Borrowed(hand) => hand.begun(),
            Waiting::Arc(hand) => hand.begun(),
        }
    }

    fn woken(&self) -> bool {
        match self {
            Waiting::Borrowed(hand) => hand.woken(),
            Waiting::Arc(hand) => hand.woken(),
        }
    }
}

/// What the histories of a run came to, so that a test can see that they were not empty talk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Requests granted at the first poll, or by `try_`.
    pub(crate) at_once: usize,
    /// Futures granted after a wait.
    pub(crate) waited: usize,
    /// `try_` and past deadlines refused.
    pub(crate) refused: usize,
    /// Futures dropped while they waited, and of these the ones that had been woken.
    pub(crate) cancelled: usize,
    pub(crate) cancelled_woken: usize,
    /// Drains that were over at the first poll, and after a wait, and given up; and asked for at once and refused.
    pub(crate) drained: [usize; 4],
    /// The most nodes that the tree had.
    pub(crate) nodes: usize,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.at_once += other.at_once;
        self.waited += other.waited;
        self.refused += other.refused;
        self.cancelled += other.cancelled;
        self.cancelled_woken += other.cancelled_woken;
        self.drained.iter_mut().zip(other.drained).for_each(|(mine, other)| *mine += other);
        self.nodes = self.nodes.max(other.nodes);
    }
}

/// All that this thread asks for by itself has one owner.
const THREAD: Who = Who::Many(0);

/// What is asked of the one lock.
fn part(mode: Mode, span: Span) -> Part {
    Part { lock: 0, span, mode }
}

struct Runner<'a> {
    lock: &'a Arc<RangeLock>,
    oracle: Model,
    waiting: BTreeMap<usize, (Waiting<'a>, Mode, Span)>,
    held: BTreeMap<usize, Guard<'a>>,
    drains: BTreeMap<usize, Drain<'a>>,
    tally: Tally,
    past: Instant,
}

impl<'a> Runner<'a> {
    fn step(&mut self, step: Step, pace: Pace) -> Result<(), String> {
        match step {
            Step::Make { id, mode, span, face } => {
                let waiting = match face {
                    Face::Borrowed => Waiting::Borrowed(Hand::new(self.lock.request(span.bounds(), mode))),
                    Face::Arc => Waiting::Arc(Hand::new(self.lock.request_arc(span.bounds(), mode))),
                };
                self.waiting.insert(id, (waiting, mode, span));
            }
            Step::Drain { id, mode, span, face } => {
                let future = match face {
                    Face::Borrowed => Draining::Borrowed(Hand::new(self.lock.drained(span.bounds(), mode))),
                    Face::Arc => Draining::Arc(Hand::new(self.lock.drained_arc(span.bounds(), mode))),
                };
                self.drains.insert(id, Drain { future, mode, span, before: Vec::new() });
            }
            Step::IsDrained { mode, span, face } => {
                let (who, drained) = match face {
                    Face::Borrowed => (THREAD, self.lock.drained(span.bounds(), mode).try_now()),
                    Face::Arc => (Who::Solo(usize::MAX), self.lock.drained_arc(span.bounds(), mode).try_now()),
                };
                let before = self.oracle.before_drain(who, part(mode, span));
                if drained != before.is_empty() {
                    return Err(format!("drained: {drained}, and there are {before:?}"));
                }
                self.tally.drained[3] += usize::from(!drained);
            }
            Step::Poll { id, new_waker } if self.drains.contains_key(&id) => self.poll_drain(id, new_waker)?,
            Step::Poll { id, new_waker } => self.poll(id, new_waker)?,
            Step::Ask { id, mode, span, face, how } => {
                let (guard, who) = self.ask(id, mode, span, face, how);
                let expected = self.oracle.try_begin(id, who, vec![part(mode, span)]);
                if guard.is_some() != expected {
                    return Err(self.wrong(id, guard.is_some()));
                }
                if let Some(guard) = guard {
                    self.hold(id, guard, mode, span)?;
                }
                *(if expected { &mut self.tally.at_once } else { &mut self.tally.refused }) += 1;
            }
            Step::End { id } => self.end(id),
            Step::Settle { reverse } => return self.settle(reverse),
            Step::Trim => self.lock.trim(),
        }
        self.tally.nodes = self.tally.nodes.max(self.lock.heap_nodes());
        if pace == Pace::AtOnce { self.settle(false) } else { Ok(()) }
    }

    fn ask(&self, id: usize, mode: Mode, span: Span, face: Face, how: Quick) -> (Option<Guard<'a>>, Who) {
        let bounds = span.bounds();
        match face {
            Face::Borrowed => {
                let guard = match (how, mode) {
                    (Quick::PastDeadline, _) => self.lock.request(bounds, mode).deadline(self.past).wait().ok(),
                    (Quick::Try, Mode::Add) => self.lock.try_add(bounds),
                    (Quick::Try, Mode::Block) => self.lock.try_block(bounds),
                    (Quick::Try, Mode::Exclusive) => self.lock.try_exclusive(bounds),
                };
                (guard.map(Guard::Thread), THREAD)
            }
            Face::Arc => {
                let request = self.lock.request_arc(bounds, mode);
                let guard = match how {
                    Quick::PastDeadline => request.timeout(Duration::ZERO).wait().ok(),
                    Quick::Try => request.try_now(),
                };
                (guard.map(Guard::Arc), Who::Solo(id))
            }
        }
    }

    fn poll(&mut self, id: usize, new_waker: bool) -> Result<(), String> {
        let Some((waiting, mode, span)) = self.waiting.get_mut(&id) else { return Ok(()) };
        let (mode, span, first) = (*mode, *span, !waiting.begun());
        if first {
            let begun = self.oracle.begin(id, Who::Solo(id), vec![part(mode, span)]);
            assert!(!matches!(begun, Begin::Deadlock { .. }), "who holds nothing closes no cycle");
        }
        match waiting.poll(new_waker) {
            Poll::Pending if first && !self.oracle.waits(id) => Err(self.wrong(id, false)),
            Poll::Pending => Ok(()),
            Poll::Ready(_) if self.oracle.waits(id) => Err(self.wrong(id, true)),
            Poll::Ready(guard) => {
                if !self.oracle.is_held(id) {
                    self.oracle.grant(id);
                }
                *(if first { &mut self.tally.at_once } else { &mut self.tally.waited }) += 1;
                self.waiting.remove(&id);
                self.hold(id, guard, mode, span)
            }
        }
    }

    fn poll_drain(&mut self, id: usize, new_waker: bool) -> Result<(), String> {
        let Some(drain) = self.drains.get_mut(&id) else { return Ok(()) };
        let first = !drain.future.begun();
        if first {
            drain.before = self.oracle.before_drain(Who::Solo(id), part(drain.mode, drain.span));
        }
        match (drain.future.poll(new_waker), drain.before.is_empty()) {
            (Poll::Pending, true) => Err(format!("drain #{id} is not over, and all have gone")),
            (Poll::Pending, false) => Ok(()),
            (Poll::Ready(()), false) => Err(format!("drain #{id} is over, and {:?} are there", drain.before)),
            (Poll::Ready(()), true) => {
                self.tally.drained[usize::from(!first)] += 1;
                self.drains.remove(&id);
                Ok(())
            }
        }
    }

    /// A request has gone.
    fn gone(&mut self, id: usize) {
        self.oracle.end(id);
        self.drains.values_mut().for_each(|drain| drain.before.retain(|&other| other != id));
    }

    fn hold(&mut self, id: usize, guard: Guard<'a>, mode: Mode, span: Span) -> Result<(), String> {
        let said = guard.says();
        if said != (spanlock::ByteRange::new(span.bounds()), mode) {
            return Err(format!("the guard of #{id} says {said:?}"));
        }
        self.held.insert(id, guard);
        Ok(())
    }

    fn end(&mut self, id: usize) {
        if let Some((waiting, ..)) = self.waiting.remove(&id) {
            if waiting.begun() {
                self.tally.cancelled += 1;
                self.tally.cancelled_woken += usize::from(waiting.woken());
                drop(waiting);
                self.gone(id);
            }
        } else if let Some(guard) = self.held.remove(&id) {
            drop(guard);
            self.gone(id);
        } else if let Some(drain) = self.drains.remove(&id) {
            self.tally.drained[2] += usize::from(drain.future.begun());
        }
    }

    /// Polls the woken futures until there is none, and then looks for one whose wake was lost.
    fn settle(&mut self, reverse: bool) -> Result<(), String> {
        let mut rounds = 0;
        loop {
            let woken = self.waiting.iter().filter(|(_, (waiting, ..))| waiting.woken()).map(|(id, _)| *id);
            let drains = self.drains.iter().filter(|(_, drain)| drain.future.woken()).map(|(id, _)| *id);
            let mut woken: Vec<usize> = woken.chain(drains).collect();
            woken.sort_unstable();
            if woken.is_empty() {
                break;
            }
            if reverse {
                woken.reverse();
            }
            for id in woken {
                match self.drains.contains_key(&id) {
                    true => self.poll_drain(id, false)?,
                    false => self.poll(id, false)?,
                }
            }
            rounds += 1;
            if rounds > 1000 {
                return Err("futures wake without end, and none is granted".to_owned());
            }
        }
        for (id, (waiting, ..)) in &self.waiting {
            if waiting.begun() && !self.oracle.waits(*id) {
                return Err(format!("nobody stands in the way of #{id}, and its waker was not called: a lost wake"));
            }
        }
        for (id, drain) in &self.drains {
            if drain.future.begun() && drain.before.is_empty() {
                return Err(format!("all have gone whom drain #{id} waits for, and its waker was not called"));
            }
        }
        Ok(())
    }

    fn wrong(&self, id: usize, granted: bool) -> String {
        match (granted, self.oracle.blocker(id)) {
            (true, blocker) => format!("#{id} was granted although #{} came first", blocker.unwrap_or(id)),
            (false, _) => format!("#{id} was not granted, and nobody stands in its way"),
        }
    }

    /// Everything ends, oldest first; nobody who waits may be forgotten, and the tree must shrink to its root.
    fn finish(&mut self) -> Result<(), String> {
        self.settle(false)?;
        while let Some(id) = self.held.keys().next().copied() {
            self.end(id);
            self.settle(true)?;
        }
        // What was begun is granted and ended by now; the rest never had a place.
        if self.oracle.len() > 0 {
            return Err("somebody waits, and nobody holds anything".to_owned());
        }
        self.waiting.clear();
        if self.drains.values().any(|drain| drain.future.begun()) {
            return Err("a drain waits, and nobody is there".to_owned());
        }
        self.drains.clear();
        self.lock.trim();
        match self.lock.heap_nodes() {
            0 => Ok(()),
            nodes => Err(format!("{nodes} nodes are left after everything ended and trim()")),
        }
    }
}

/// Runs a history on a new lock.
pub(crate) fn run(history: &History) -> Result<Tally, String> {
    let lock = Arc::new(RangeLock::new().reordering(super::never_over(history.window)));
    let mut runner = Runner {
        lock: &lock,
        oracle: Model::default().reordering(history.window),
        waiting: BTreeMap::new(),
        held: BTreeMap::new(),
        drains: BTreeMap::new(),
        tally: Tally::default(),
        past: Instant::now(),
    };
    caught(|| {
        for (at, step) in history.steps.iter().enumerate() {
            runner.step(*step, history.pace).map_err(|why| format!("at step {at}: {why}"))?;
        }
        runner.finish().map_err(|why| format!("at the end: {why}"))?;
        Ok(runner.tally)
    })
}

/// What `run` says, or the message of its panic.
pub(crate) fn caught<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(format!("the library panicked: {text}"))
    })
}

/// Leaves out of a failing history what it fails without: long stretches first, single steps last.
pub(crate) fn shrink<S: Clone>(mut steps: Vec<S>, fails: impl Fn(&[S]) -> bool) -> Vec<S> {
    let mut stretch = steps.len().div_ceil(2);
    while stretch > 0 {
        let mut left_out = false;
        let mut at = 0;
        while at < steps.len() {
            let mut shorter = steps.clone();
            shorter.drain(at..(at + stretch).min(steps.len()));
            if fails(&shorter) {
                steps = shorter;
                left_out = true;
            } else {
                at += stretch;
            }
        }
        // At the end again and again, until no single step can go.
        if stretch > 1 || !left_out {
            stretch /= 2;
        }
    }
    steps
}

/// Runs `count` random histories; a failure is shrunk and printed. `SPANLOCK_SEED` chooses the first, and with
/// `SPANLOCK_HISTORIES=1` runs it alone.
pub(crate) fn check_many(count: u64, make: impl Fn(&mut Rng) -> History) -> Tally {
    let first = super::from_env("SPANLOCK_SEED", 1);
    let mut tally = Tally::default();
    for seed in first..first + count {
        let history = make(&mut Rng::with_seed(seed));
        match run(&history) {
            Ok(one) => tally.add(one),
            Err(why) => {
                let (pace, window) = (history.pace, history.window);
                let fails = |steps: &[Step]| run(&History { pace, window, steps: steps.to_vec() }).is_err();
                let short = History { pace, window, steps: shrink(history.steps, fails) };
                let why = run(&short).err().unwrap_or(why);
                panic!("seed {seed}, {why}\n{short}");
            }
        }
    }
    tally
}
