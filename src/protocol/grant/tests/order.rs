//! Which order a lock with a window keeps: random histories on one thread, whose clock the test moves, and an oracle
//! that knows the one right answer to each step.

use super::*;
use crate::facts::owner::{Asker, pass_time};
use fastrand::Rng;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};
use std::time::Duration;

/// So long that the time which passes by itself is nothing.
const STEP: Duration = Duration::from_secs(10);
/// The window, and a rest, in steps.
const WINDOW: u64 = 80;
const REST: u64 = 10;
/// The window and all rests, in windows, if nothing is said.
const MOST: u64 = 16;

/// What asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Task,
    Token,
    Nested,
    Batch,
}

/// What is asked for: bytes and modes.
type Parts = SmallVec<[(u64, u64, Mode); 2]>;

fn conflict(one: &Parts, other: &Parts) -> bool {
    let pair = |a: &(u64, u64, Mode), b: &(u64, u64, Mode)| a.0 < b.1 && b.0 < a.1 && !a.2.goes_with(b.2);
    one.iter().any(|a| other.iter().any(|b| pair(a, b)))
}

struct Live {
    kind: Kind,
    parts: Parts,
    /// When it queued; `None`, if it holds.
    since: Option<u64>,
    insists: bool,
}

/// The rule, as the documentation has it. Requests are named by when they came.
struct Oracle {
    now: u64,
    /// In steps.
    most: u64,
    live: BTreeMap<usize, Live>,
    /// Who was granted last of those who were due, and until when the others rest.
    late: Option<(usize, u64)>,
}

impl Oracle {
    fn due(&self, id: usize, since: u64) -> u64 {
        match self.late {
            Some((late, until)) if id > late => until.max(since + WINDOW).min(since + self.most),
            _ => since + WINDOW,
        }
    }

    /// Whether a newcomer is granted.
    fn begin(&mut self, id: usize, kind: Kind, parts: Parts) -> bool {
        let may_pass = kind == Kind::Task;
        let in_the_way = |(id, live): (&usize, &Live)| match live.since {
            None => true,
            Some(since) => !may_pass || live.kind != Kind::Task || live.insists || self.now >= self.due(*id, since),
        };
        let granted = !self.live.iter().filter(|(_, live)| conflict(&live.parts, &parts)).any(in_the_way);
        let since = (!granted).then_some(self.now);
        self.live.insert(id, Live { kind, parts, since, insists: false });
        granted
    }

    fn is_free(&self, id: usize) -> bool {
        let me = &self.live[&id];
        let others = self.live.iter().filter(|(other, live)| **other != id && conflict(&live.parts, &me.parts));
        others.into_iter().all(|(other, live)| live.since.is_some() && *other > id)
    }

    /// Whether one that waits, and is polled, is granted.
    fn poll(&mut self, id: usize) -> bool {
        let (me, granted) = (&self.live[&id], self.is_free(id));
        let since = me.since.expect("it waits");
        let is_due = me.insists || me.kind == Kind::Task && self.now >= self.due(id, since);
        if granted && is_due {
            self.late = Some((id, self.now + REST));
        }
        let me = self.live.get_mut(&id).expect("it is there");
        me.insists = is_due;
        if granted {
            me.since = None;
        }
        granted
    }
}

/// How often it was called since it was last polled.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Woken {
    fn times(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[allow(clippy::large_enum_variant)] // A few of them.
enum Real {
    Waits(Waiter, Arc<Woken>),
    Holds(#[expect(dead_code, reason = "dropping it is the release")] Holds),
}

/// What a history came to.
#[derive(Debug, Default)]
struct Tally {
    passed: usize,
    behind_who_was_due: usize,
    late: usize,
}

/// Who moves the clock moves it for all.
static CLOCK: Mutex<()> = Mutex::new(());

struct History {
    _alone: MutexGuard<'static, ()>,
    state: &'static LockState,
    oracle: Oracle,
    real: BTreeMap<usize, (Real, Option<Owner>)>,
    tally: Tally,
    next: usize,
}

impl History {
    fn new() -> History {
        let mut state = LockState::new(None);
        state.set_window(STEP * WINDOW as u32);
        History::of(state, MOST)
    }

    /// With so many windows at most.
    fn within(most: u64) -> History {
        let mut state = LockState::new(None);
        state.set_window_within(STEP * WINDOW as u32, STEP * (WINDOW * most) as u32);
        History::of(state, most)
    }

    fn of(state: LockState, most: u64) -> History {
        let state = Box::leak(Box::new(state));
        let _alone = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
        History {
            _alone,
            state,
            oracle: Oracle { now: 0, most: most * WINDOW, live: BTreeMap::new(), late: None },
            real: BTreeMap::new(),
            tally: Tally::default(),
            next: 0,
        }
    }

    fn later(&mut self, steps: u64) {
        pass_time(STEP * steps as u32);
        self.oracle.now += steps;
    }

    fn enter(&mut self, kind: Kind, parts: Parts) {
        // No two tickets are of one time.
        self.later(1);
        let token = matches!(kind, Kind::Token).then(Owner::new);
        let asker = match &token {
            Some(token) => token.enter(),
            None => {
                let order = if kind == Kind::Nested { owner::order_of_nested() } else { owner::OUTERMOST };
                Asker { visitor: owner::visit(), owner: owner::fresh(), order }
            }
        };
        let ask = |&(start, end, mode)| Ask::new(self.state, ByteRange::new(start..end), mode, &asker);
        let asks: Vec<_> = parts.iter().map(|part| (self.state, ask(part))).collect();
        let in_front = |live: &&Live| live.since.is_some() && conflict(&live.parts, &parts);
        let waiting = self.oracle.live.values().filter(in_front).count();
        let held = self.oracle.live.values().any(|live| live.since.is_none() && conflict(&live.parts, &parts));
        let doorway = match kind {
            // SAFETY: the state is leaked, here and below.
            Kind::Batch => unsafe { enter_batch(&asks, asker.visitor, token.as_ref()) },
            // SAFETY: as above.
            _ => match unsafe { enter(self.state, &asks[0].1, asker.visitor, token.as_ref()) } {
                Doorway::Granted(held) => Doorway::Granted(Holds::from_iter([held])),
                Doorway::Queued(waiter) => Doorway::Queued(waiter),
            },
        };
        let id = self.next;
        self.next += 1;
        let expected = self.oracle.begin(id, kind, parts);
        let real = match doorway {
            Doorway::Granted(holds) => Real::Holds(holds),
            // To be polled for the first time.
            Doorway::Queued(waiter) => Real::Waits(waiter, Arc::new(Woken(AtomicUsize::new(1)))),
        };
        assert_eq!(matches!(real, Real::Holds(_)), expected, "#{id}, a {kind:?}, granted as it came");
        self.tally.passed += usize::from(expected && waiting > 0);
        self.tally.behind_who_was_due += usize::from(!expected && !held && kind == Kind::Task);
        self.real.insert(id, (real, token));
    }

    fn poll(&mut self, id: usize) {
        let Some((Real::Waits(waiter, woken), _)) = self.real.get_mut(&id) else { return };
        woken.0.store(0, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(woken));
        let polled = waiter.poll(&mut Context::from_waker(&waker));
        let expected = self.oracle.poll(id);
        let granted = polled.is_ready();
        assert_eq!(granted, expected, "#{id} granted, when it was polled");
        if granted {
            self.tally.late += usize::from(self.oracle.late.is_some_and(|(late, _)| late == id));
            let (real, token) = self.real.remove(&id).expect("it is there");
            let Real::Waits(waiter, _) = real else { unreachable!("it was polled") };
            self.real.insert(id, (Real::Holds(waiter.into_holds()), token));
        }
    }

    fn end(&mut self, id: usize) {
        self.real.remove(&id);
        self.oracle.live.remove(&id);
    }

    fn check(&self) {
        for (id, (real, _)) in &self.real {
            if let Real::Waits(_, woken) = real {
                let times = woken.times();
                assert!(times > 0 || !self.oracle.is_free(*id), "#{id} could be granted, and was not woken");
                // A release does not call again whom another one has called, and who has not come yet.
                assert!(times <= 1, "#{id} was woken {times} times, and has not looked once");
            }
        }
    }

    fn step(&mut self, rng: &mut Rng, bytes: u64, modes: &[Mode]) {
        let (few, ids) = (self.real.len() < 12, self.real.keys().copied().collect::<Vec<_>>());
        let id = (!ids.is_empty()).then(|| ids[rng.usize(..ids.len())]);
        match (rng.u8(..16), id) {
            (0..=6, _) if few => {
                let kind = [
                    Kind::Task,
                    Kind::Task,
                    Kind::Task,
                    Kind::Task,
                    Kind::Task,
                    Kind::Token,
                    Kind::Batch,
                    Kind::Nested,
                ];
                let kind = kind[rng.usize(..kind.len())];
                let parts = if kind == Kind::Batch { 2 } else { 1 };
                let mut part = || {
                    let start = rng.u64(..bytes);
                    (start, start + 1 + rng.u64(..bytes), modes[rng.usize(..modes.len())])
                };
                let parts = (0..parts).map(|_| part()).collect();
                self.enter(kind, parts);
            }
            (7..=10, Some(id)) => self.poll(id),
            (11, _) => self.later(rng.u64(1..12)),
            (12, _) if rng.u8(..8) == 0 => self.later(WINDOW),
            (13.., Some(id)) => self.end(id),
            _ => {}
        }
        self.check();
    }

    fn finish(mut self) -> Tally {
        while !self.real.is_empty() {
            let ids: Vec<_> = self.real.keys().copied().collect();
            for id in ids {
                self.poll(id);
                if matches!(self.real.get(&id), Some((Real::Holds(_), _))) {
                    self.end(id);
                    self.check();
                }
            }
        }
        assert_eq!(count(&self.state.tree), (0, 0));
        self.tally
    }
}

#[test]
fn histories_with_a_window() {
    let (mut passed, mut behind, mut late) = (0, 0, 0);
    for seed in 0..if cfg!(miri) { 10 } else { 600 } {
        let mut rng = Rng::with_seed(seed);
        let mut history = if seed % 2 == 0 { History::new() } else { History::within(rng.u64(1..4)) };
        let bytes = rng.u64(1..6);
        let modes = [Mode::Exclusive, Mode::Add, Mode::Block];
        let modes = &modes[..rng.usize(1..=3)];
        for _ in 0..120 {
            history.step(&mut rng, bytes, modes);
        }
        let tally = history.finish();
        (passed, behind, late) = (passed + tally.passed, behind + tally.behind_who_was_due, late + tally.late);
    }
    assert!(passed > 400 && behind > 400 && late > 200, "empty talk: {passed}, {behind}, {late}");
}

fn exclusive() -> Parts {
    SmallVec::from_iter([(0, 8, Mode::Exclusive)])
}

/// How many wait.
const CROWDS: &[usize] = if cfg!(miri) { &[4] } else { &[4, 16, 64] };

/// Steps from a release to the coming of who was called: if that takes 50 us, the window is one of 0.1, 1 and 4 ms.
const HAND_OFFS: [u64; 3] = [WINDOW / 2, WINDOW / 20, WINDOW / 80];

/// Each with a lock whose rests do not end before the queue has gone round once: behind that it is first come, first
/// served, as the caller has said.
fn crowds() -> impl Iterator<Item = (usize, u64, History)> {
    let crowds = CROWDS.iter().flat_map(|&waiters| HAND_OFFS.map(|hand_off| (waiters, hand_off)));
    crowds.map(|(waiters, hand_off)| {
        let round = waiters as u64 * (hand_off + REST);
        (waiters, hand_off, History::within(2 + round.div_ceil(WINDOW)))
    })
}

/// As many as wait get on one after the other, a rest apart: the newcomers have the time between, however many there
/// are. (Handing over in turns would be for good otherwise.)
#[test]
fn newcomers_have_a_rest_behind_each_who_was_due() {
    for (waiters, hand_off, mut history) in crowds() {
        history.enter(Kind::Task, exclusive());
        (0..waiters).for_each(|_| history.enter(Kind::Task, exclusive()));
        history.later(2 * WINDOW);
        let mut holder = 0;
        for waiter in 1..=waiters {
            history.end(holder);
            // It is due, and nobody goes before it.
            history.enter(Kind::Task, exclusive());
            let refused = history.next - 1;
            assert!(matches!(history.real[&refused].0, Real::Waits(..)), "#{refused} came when #{waiter} was due");
            history.end(refused);
            history.later(hand_off - 1);
            history.poll(waiter);
            assert!(matches!(history.real[&waiter].0, Real::Holds(..)));
            history.end(waiter);
            for _ in 1..REST {
                history.enter(Kind::Task, exclusive());
                let newcomer = history.next - 1;
                assert!(matches!(history.real[&newcomer].0, Real::Holds(..)), "#{newcomer} came in the rest");
                history.end(newcomer);
            }
            holder = usize::MAX;
        }
        history.finish();
    }
}

/// The same of those who come again: whoever was served is the last, and where a round takes longer than the window
/// each is due when its turn comes. It is not first come, first served for good: of the newcomers as many go before
/// somebody as come in a rest between two hand-offs.
#[test]
fn newcomers_get_on_though_all_who_wait_are_due() {
    for (waiters, hand_off, mut history) in crowds() {
        history.enter(Kind::Task, exclusive());
        (0..waiters).for_each(|_| history.enter(Kind::Task, exclusive()));
        history.end(0);
        let (mut came, rounds) = (0, 4);
        for _ in 0..rounds * waiters {
            // Whoever is first was called, and is on its way.
            for _ in 0..hand_off {
                history.enter(Kind::Task, exclusive());
                history.end(history.next - 1);
                history.check();
                came += 1;
            }
            let first = *history.real.keys().next().expect("all come again");
            history.poll(first);
            assert!(matches!(history.real[&first].0, Real::Holds(..)), "#{first} is the first");
            history.enter(Kind::Task, exclusive());
            history.end(first);
        }
        let went = history.tally.passed as u64;
        // Two steps of a rest are not theirs: who was served comes again, and the first to come when it is over is
        // refused.
        let least = came * (REST - 2) / (REST + hand_off);
        assert!(went >= least, "{waiters} wait, hand-offs of {hand_off}: {went} of {came} went before others");
        let round = waiters as u64 * (hand_off + 1);
        assert!(round <= WINDOW || history.tally.late >= waiters / 2, "{waiters}, {hand_off}: they were due");
        history.finish();
    }
}

/// Rests end for whoever has waited for as long as the caller has said: from then on those who wait get on one after
/// the other.
#[test]
fn rests_end_for_who_has_waited_for_long() {
    let mut history = History::within(2);
    (0..40).for_each(|_| history.enter(Kind::Task, exclusive()));
    history.later(WINDOW);
    let (mut passed, mut refused) = (0, 0);
    history.end(0);
    for waiter in 1..39 {
        history.poll(waiter);
        history.end(waiter);
        history.later(REST / 2);
        let next = history.oracle.live[&(waiter + 1)].since.expect("it waits");
        history.enter(Kind::Task, exclusive());
        let newcomer = history.next - 1;
        let passes = matches!(history.real[&newcomer].0, Real::Holds(_));
        assert_eq!(passes, history.oracle.now < next + 2 * WINDOW, "#{newcomer}, in the rest behind #{waiter}");
        *if passes { &mut passed } else { &mut refused } += 1;
        history.end(newcomer);
        history.later(REST / 2);
    }
    assert!(passed > 2 && refused > 20, "empty talk: {passed}, {refused}");
    history.finish();
}

/// Two queues in one lock: a newcomer to the one finds out until when nobody is due, while the first in the other one
/// is about to look whether it is granted, and is not.
#[test]
fn who_looks_whether_it_is_granted_will_be_due_as_well() {
    let mut history = History::new();
    let part = |start| Parts::from_iter([(start, start + 8, Mode::Exclusive)]);
    let [here, there] = [0, 100].map(part);
    [&here, &here].into_iter().for_each(|parts| history.enter(Kind::Task, parts.clone()));
    history.later(WINDOW / 2);
    [&there, &there].into_iter().for_each(|parts| history.enter(Kind::Task, parts.clone()));
    let word = |history: &History, change: fn(&Placed<Bells>)| match &history.real[&1].0 {
        Real::Waits(waiter, _) => change(&waiter.parts[0].live.0),
        Real::Holds(_) => unreachable!("it was not polled"),
    };
    word(&history, Placed::close);
    history.end(2);
    history.enter(Kind::Task, there);
    assert!(matches!(history.real[&4].0, Real::Holds(_)), "it came before #3 was due");
    word(&history, Placed::reopen);
    // Of these two only the earlier one is due.
    history.later(WINDOW * 3 / 4);
    history.end(0);
    history.enter(Kind::Task, here);
    assert!(matches!(history.real[&5].0, Real::Waits(..)), "#1 was due");
    history.finish();
}

/// Two queues in one lock: that somebody of the one was due gives newcomers no time with those of the other who came
/// before him.
#[test]
fn a_rest_is_for_those_who_came_later() {
    let mut history = History::new();
    let part = |start| Parts::from_iter([(start, start + 8, Mode::Exclusive)]);
    let [here, there] = [0, 100].map(part);
    for parts in [&here, &there, &there, &here] {
        history.enter(Kind::Task, parts.clone());
    }
    let waits = |history: &History, id: usize| matches!(history.real[&id].0, Real::Waits(..));
    history.later(2 * WINDOW);
    (0..2).for_each(|holder| history.end(holder));
    history.poll(3);
    assert!(waits(&history, 2) && !waits(&history, 3), "the later one was due, and is granted");
    history.enter(Kind::Task, there);
    assert!(waits(&history, 4), "the earlier one is due as well");
    history.finish();
}
