//! The oracle for owners, tested by itself: the patterns of the page cache, and all that small programs can do.
//!
//! A program is a few tasks, each with a list of what to ask for and what to release. Every order in which they can run
//! is walked, and in each state: nobody hangs; nobody waits for himself; a deadlock is answered only where there is
//! one; no two that conflict are held; nobody overtakes but by a pass, and nobody passes but where waiting would be a
//! part of a cycle. The rule, broken on purpose, must fail.
//!
//! `SPANLOCK_PROGRAMS` sets how many random programs run, `SPANLOCK_SEED` chooses the first.

mod common;

use Mode::{Add, Block, Exclusive};
use common::owners::{Begin, Model, Part, Rule, Who};
use common::{Span, by_build, from_env};
use fastrand::Rng;
use spanlock::Mode;
use std::collections::{BTreeSet, HashSet};
use std::fmt;

fn part(lock: usize, start: u64, last: u64, mode: Mode) -> Part {
    Part { lock, span: Span::new(start, last), mode }
}

/// The page cache: two files, of eight pages each.
const A: usize = 0;
const B: usize = 1;
const T1: Who = Who::Many(1);
const T2: Who = Who::Many(2);
const T3: Who = Who::Many(3);

struct Scene {
    model: Model,
    next: usize,
}

impl Scene {
    fn new() -> Scene {
        Scene { model: Model::default(), next: 0 }
    }

    /// A request for the pages `start..=last`, and what becomes of it.
    fn ask(&mut self, who: Who, lock: usize, mode: Mode, start: u64, last: u64) -> (usize, Begin) {
        let id = self.next;
        self.next += 1;
        let answer = self.model.begin(id, who, vec![part(lock, start, last, mode)]);
        self.model.check_invariants().unwrap();
        (id, answer)
    }

    #[track_caller]
    fn holds(&mut self, who: Who, lock: usize, mode: Mode, start: u64, last: u64) -> usize {
        let (id, answer) = self.ask(who, lock, mode, start, last);
        assert_eq!(answer, Begin::Granted);
        id
    }

    #[track_caller]
    fn waits(&mut self, who: Who, lock: usize, mode: Mode, start: u64, last: u64) -> usize {
        let (id, answer) = self.ask(who, lock, mode, start, last);
        assert_eq!((answer, self.model.settle()), (Begin::Queued, vec![]));
        id
    }

    /// It is let past somebody, and nobody else is in its way.
    #[track_caller]
    fn passes(&mut self, who: Who, lock: usize, mode: Mode, start: u64, last: u64) -> usize {
        let (id, answer) = self.ask(who, lock, mode, start, last);
        assert_eq!((answer, self.model.settle()), (Begin::Queued, vec![id]));
        id
    }

    #[track_caller]
    fn deadlock(&mut self, who: Who, lock: usize, mode: Mode, start: u64, last: u64, others: &[usize]) {
        let (id, answer) = self.ask(who, lock, mode, start, last);
        assert_eq!(answer, Begin::Deadlock { cycle: [&[id], others].concat() });
        assert!(self.model.would_be_deadlocked(who, vec![part(lock, start, last, mode)]));
    }

    #[track_caller]
    fn end(&mut self, id: usize, granted: &[usize]) {
        self.model.end(id);
        assert_eq!(self.model.settle(), granted);
        self.model.check_invariants().unwrap();
    }
}

#[test]
fn a_nested_add_passes_a_queued_block_that_waits_for_its_owner() {
    let mut scene = Scene::new();
    let outer = scene.holds(T1, A, Add, 0, 7);
    let queued = scene.waits(T2, A, Block, 0, 7);
    let inner = scene.passes(T1, A, Add, 0, 7);
    scene.end(outer, &[]);
    scene.end(inner, &[queued]);
}

#[test]
fn a_nested_add_elsewhere_passes_a_queued_block_of_both() {
    let mut scene = Scene::new();
    let outer = scene.holds(T1, A, Add, 0, 3);
    let queued = scene.waits(T2, A, Block, 0, 7);
    let inner = scene.passes(T1, A, Add, 4, 7);
    scene.end(inner, &[]);
    scene.end(outer, &[queued]);
}

#[test]
fn who_waits_for_a_holder_lets_it_pass_a_third() {
    let mut scene = Scene::new();
    let t1_a = scene.holds(T1, A, Add, 0, 7);
    let t2_b = scene.holds(T2, B, Block, 0, 7);
    let t1_b = scene.waits(T1, B, Add, 0, 7);
    let t3_a = scene.waits(T3, A, Block, 0, 7);
    let t2_a = scene.passes(T2, A, Add, 0, 7);
    scene.end(t2_a, &[]);
    scene.end(t2_b, &[t1_b]);
    scene.end(t1_a, &[t3_a]);
}

/// The same, but the second task is in the queue before there is any cycle.
#[test]
fn who_waits_for_a_waiting_holder_lets_it_pass_a_third() {
    let mut scene = Scene::new();
    let t1_a = scene.holds(T1, A, Add, 0, 7);
    let t2_b = scene.holds(T2, B, Block, 0, 7);
    let t3_a = scene.waits(T3, A, Block, 0, 7);
    let t2_a = scene.waits(T2, A, Add, 0, 7);
    let (t1_b, answer) = scene.ask(T1, B, Add, 0, 7);
    assert_eq!((answer, scene.model.settle()), (Begin::Queued, vec![t2_a]));
    scene.end(t2_a, &[]);
    scene.end(t2_b, &[t1_b]);
    scene.end(t1_a, &[t3_a]);
}

#[test]
fn crossed_files_are_a_deadlock_for_who_comes_second() {
    let mut scene = Scene::new();
    scene.holds(T1, A, Block, 0, 7);
    let t2_b = scene.holds(T2, B, Block, 0, 7);
    let t1_b = scene.waits(T1, B, Add, 0, 7);
    scene.deadlock(T2, A, Add, 0, 7, &[t1_b]);
    scene.end(t2_b, &[t1_b]);
}

#[test]
fn crossed_ranges_of_one_file_are_a_deadlock() {
    let mut scene = Scene::new();
    scene.holds(T1, A, Block, 0, 3);
    let t2_high = scene.holds(T2, A, Block, 4, 7);
    let t1_high = scene.waits(T1, A, Add, 4, 7);
    scene.deadlock(T2, A, Add, 0, 3, &[t1_high]);
    scene.end(t2_high, &[t1_high]);
}

#[test]
fn two_that_hold_the_same_and_want_more_are_a_deadlock() {
    let mut scene = Scene::new();
    scene.holds(T1, A, Block, 0, 7);
    let t2_block = scene.holds(T2, A, Block, 0, 7);
    let t1_add = scene.waits(T1, A, Add, 0, 7);
    scene.deadlock(T2, A, Add, 0, 7, &[t1_add]);
    scene.end(t2_block, &[t1_add]);
}

#[test]
fn three_in_a_ring_are_a_deadlock_for_who_closes_it() {
    let mut scene = Scene::new();
    for (who, byte) in [(T1, 0), (T2, 1), (T3, 2)] {
        scene.holds(who, A, Exclusive, byte, byte);
    }
    let first = scene.waits(T1, A, Exclusive, 1, 1);
    let second = scene.waits(T2, A, Exclusive, 2, 2);
    scene.deadlock(T3, A, Exclusive, 0, 0, &[first, second]);
}

#[test]
fn a_solo_request_waits_and_is_never_refused() {
    let mut scene = Scene::new();
    let outer = scene.holds(T1, A, Block, 0, 3);
    let solo = scene.waits(Who::Solo(7), A, Add, 0, 7);
    let inner = scene.passes(T1, A, Block, 4, 7);
    scene.end(outer, &[]);
    scene.end(inner, &[solo]);
}

#[test]
fn conversions_let_go_of_what_they_say_and_overtake_nobody_else() {
    let mut scene = Scene::new();
    let first = scene.holds(T1, A, Exclusive, 0, 7);
    let adder = scene.waits(T2, A, Add, 0, 1);
    let blocker = scene.waits(T3, A, Block, 6, 7);
    scene.model.downgrade(first, Add);
    assert_eq!(scene.model.settle(), [adder]);
    // The adder holds, which conflicts with what it would be.
    assert!(!scene.model.try_convert(first, Exclusive));
    scene.model.end(adder);
    // The one that blocks waits for it already.
    assert!(scene.model.try_convert(first, Exclusive));
    let tail = 100;
    scene.model.split(first, 4, tail);
    scene.model.shrink(tail, Span::new(4, 5));
    assert_eq!(scene.model.settle(), [blocker]);
    assert!(!scene.model.try_extend(tail, Span::new(4, 6)));
    let late = scene.waits(T2, A, Block, 5, 7);
    scene.model.end(blocker);
    assert!(scene.model.try_extend(tail, Span::new(4, 6)), "only one who waits for it is in the way");
    scene.model.shrink(tail, Span::EMPTY);
    assert_eq!(scene.model.settle(), [late]);
}

/// What a task does next. Requests are named by the step that asked for them.
#[derive(Clone, Debug)]
enum Do {
    Ask(Vec<Part>),
    Release(usize),
    Convert(usize, Mode),
    Extend(usize, Span),
    Shrink(usize, Span),
}

/// Last of all, a task releases what it holds. While one task waits, the others of its owner release nothing: that is
/// the contract.
#[derive(Clone, Debug)]
struct Task {
    who: Who,
    steps: Vec<Do>,
}

#[derive(Clone, Debug)]
struct Program {
    tasks: Vec<Task>,
    /// Whether those who wait may give up at any time.
    cancels: bool,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cancels: {}", self.cancels)?;
        self.tasks.iter().try_for_each(|task| writeln!(f, "  {:?} {:?}", task.who, task.steps))
    }
}

/// Steps of a task, at most; the id of its batch is this.
const STEPS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Running,
    Waiting,
    /// It was refused, and asks for everything at once instead.
    Again,
    WaitingAgain,
    Over,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    model: Model,
    tasks: Vec<(usize, Phase)>,
}

/// What walking programs came to.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    states: usize,
    passes: usize,
    deadlocks: usize,
    /// Programs with too many states to walk them all.
    cut_short: usize,
}

struct Walk<'a> {
    program: &'a Program,
    tally: &'a mut Tally,
}

impl Walk<'_> {
    /// All that can happen from here on; an error is a broken promise.
    fn run(&mut self, rule: Rule, most: usize) -> Result<(), String> {
        let tasks = vec![(0, Phase::Running); self.program.tasks.len()];
        let start = State { model: Model::default().under(rule), tasks };
        let mut seen = HashSet::from([start.clone()]);
        let mut rest = vec![start];
        while let Some(state) = rest.pop() {
            self.tally.states += 1;
            let mut next = Vec::new();
            for task in 0..state.tasks.len() {
                self.moves(&state, task, &mut next)?;
            }
            if next.is_empty() && state.tasks.iter().any(|(_, phase)| *phase != Phase::Over) {
                return Err(format!("hang: {:?}", state.tasks));
            }
            if self.program.cancels {
                next.extend((0..state.tasks.len()).filter_map(|task| self.cancel(&state, task)));
            }
            if seen.len() > most {
                self.tally.cut_short += 1;
                return Ok(());
            }
            for state in next {
                state.model.check_exclusion()?;
                if rule == Rule::AsDesigned {
                    state.model.check_invariants()?;
                }
                if !seen.contains(&state) {
                    seen.insert(state.clone());
                    rest.push(state);
                }
            }
        }
        Ok(())
    }

    /// What `task` can do in `state`.
    fn moves(&mut self, state: &State, task: usize, next: &mut Vec<State>) -> Result<(), String> {
        let Task { who, ref steps } = self.program.tasks[task];
        let (at, phase) = state.tasks[task];
        let mut after = state.clone();
        after.tasks[task] = (at + 1, Phase::Running);
        match phase {
            Phase::Over => return Ok(()),
            Phase::Again => {
                let everything =
                    steps.iter().filter_map(|step| if let Do::Ask(parts) = step { Some(parts) } else { None });
                after.tasks[task] = (steps.len(), Phase::Running);
                let parts = everything.flatten().copied().collect();
                match self.begin(&mut after.model, task * (STEPS + 1) + STEPS, who, parts)? {
                    Begin::Granted => {}
                    Begin::Queued => after.tasks[task] = (steps.len(), Phase::WaitingAgain),
                    Begin::Deadlock { .. } => return Err("an outermost batch was refused".to_owned()),
                }
            }
            Phase::Waiting | Phase::WaitingAgain => {
                let id = task * (STEPS + 1) + if phase == Phase::Waiting { at } else { STEPS };
                if state.model.waits(id) {
                    return Ok(());
                }
                state.model.check_order(id)?;
                after.model.grant(id);
                if phase == Phase::WaitingAgain {
                    after.tasks[task].0 = at;
                }
            }
            Phase::Running => match steps.get(at) {
                Some(Do::Ask(parts)) => {
                    match self.begin(&mut after.model, task * (STEPS + 1) + at, who, parts.clone())? {
                        Begin::Granted => {}
                        Begin::Queued => after.tasks[task] = (at, Phase::Waiting),
                        Begin::Deadlock { .. } => self.refuse(&mut after, task),
                    }
                }
                _ if self.must_wait_for_siblings(state, task) => return Ok(()),
                Some(step) => self.change(&mut after.model, task, step),
                None => {
                    after.tasks[task] = (at, Phase::Over);
                    self.held(&after.model, task).into_iter().for_each(|id| after.model.end(id));
                }
            },
        }
        next.push(after);
        Ok(())
    }

    fn begin(&mut self, model: &mut Model, id: usize, who: Who, parts: Vec<Part>) -> Result<Begin, String> {
        let before = model.clone();
        let passed = model.passes();
        let answer = model.begin(id, who, parts.clone());
        match answer {
            Begin::Granted => model.check_order(id)?,
            Begin::Queued => {}
            Begin::Deadlock { .. } => {
                self.tally.deadlocks += 1;
                if !before.would_be_deadlocked(who, parts) {
                    return Err(format!("#{id} was refused, and there was no deadlock"));
                }
                return Ok(answer);
            }
        }
        let new: BTreeSet<_> = model.passes().difference(&passed).copied().collect();
        if !new.is_empty() {
            let mut waiting = before.under(Rule::NobodyPasses);
            waiting.begin(id, who, parts);
            if let Some((z, w)) = new.iter().find(|(z, w)| !waiting.closes_a_cycle(*z, *w)) {
                return Err(format!("order: #{z} was let past #{w}, and there was no cycle"));
            }
        }
        self.tally.passes += new.len();
        Ok(answer)
    }

    /// The owner lets everything go. If it is one task, it tries again, by one batch.
    fn refuse(&self, state: &mut State, refused: usize) {
        let who = self.program.tasks[refused].who;
        let tasks: Vec<usize> = (0..state.tasks.len()).filter(|&task| self.program.tasks[task].who == who).collect();
        for &task in &tasks {
            let (at, phase) = state.tasks[task];
            if phase == Phase::Waiting {
                state.model.end(task * (STEPS + 1) + at);
            }
            self.held(&state.model, task).into_iter().for_each(|id| state.model.end(id));
            state.tasks[task] = (0, if tasks.len() == 1 { Phase::Again } else { Phase::Over });
        }
    }

    fn cancel(&self, state: &State, task: usize) -> Option<State> {
        let (at, Phase::Waiting) = state.tasks[task] else { return None };
        let mut after = state.clone();
        after.model.end(task * (STEPS + 1) + at);
        after.tasks[task] = (at + 1, Phase::Running);
        Some(after)
    }

    /// An owner with a blocked request releases nothing.
    fn must_wait_for_siblings(&self, state: &State, task: usize) -> bool {
        let who = self.program.tasks[task].who;
        let waits = |other: usize| self.program.tasks[other].who == who && state.tasks[other].1 == Phase::Waiting;
        (0..state.tasks.len()).any(|other| other != task && waits(other))
    }

    fn held(&self, model: &Model, task: usize) -> Vec<usize> {
        let ids = task * (STEPS + 1)..(task + 1) * (STEPS + 1);
        ids.filter(|&id| model.is_held(id)).collect()
    }

    /// A step that is no request; it does nothing if there is nothing that it could be done to.
    fn change(&self, model: &mut Model, task: usize, step: &Do) {
        let (Do::Release(of) | Do::Convert(of, _) | Do::Extend(of, _) | Do::Shrink(of, _)) = *step else { return };
        let id = task * (STEPS + 1) + of;
        if !model.is_held(id) {
            return;
        }
        match (step, model.is_batch(id)) {
            (Do::Release(_), _) => model.end(id),
            (Do::Convert(_, mode), false) => _ = model.try_convert(id, *mode),
            (Do::Extend(_, span), false) => _ = model.try_extend(id, model.held(id).span.hull(*span)),
            (Do::Shrink(_, span), false) => model.shrink(id, model.held(id).span.cut(*span)),
            _ => {}
        }
    }
}

/// Runs programs until one breaks a promise under `rule`.
fn walk(programs: impl Iterator<Item = Program>, rule: Rule, most: usize) -> Result<Tally, String> {
    let mut tally = Tally::default();
    for program in programs {
        let result = Walk { program: &program, tally: &mut tally }.run(rule, most);
        result.map_err(|why| format!("{why}\n{program}"))?;
    }
    Ok(tally)
}

fn all_parts(locks: usize, bytes: u64) -> Vec<Part> {
    let mut parts = Vec::new();
    for (lock, mode) in (0..locks).flat_map(|lock| Mode::ALL.map(|mode| (lock, mode))) {
        for start in 0..bytes {
            parts.extend((start..bytes).map(|last| part(lock, start, last, mode)));
        }
    }
    parts
}

/// Two owners that ask for one thing or for two, in every way that there is.
fn pairs() -> impl Iterator<Item = Program> {
    let parts = all_parts(1, 2);
    let one = parts.iter().map(|a| vec![*a]);
    let two = parts.iter().flat_map(|a| parts.iter().map(move |b| vec![*a, *b]));
    let lists: Vec<Vec<Part>> = one.chain(two).collect();
    let pairs: Vec<(usize, usize)> = (0..lists.len()).flat_map(|a| (a..lists.len()).map(move |b| (a, b))).collect();
    pairs.into_iter().map(move |(a, b)| {
        let task = |owner, list: &[Part]| Task {
            who: Who::Many(owner),
            steps: list.iter().map(|part| Do::Ask(vec![*part])).collect(),
        };
        Program { tasks: vec![task(0, &lists[a]), task(1, &lists[b])], cancels: true }
    })
}

/// Up to four tasks of two to four owners, on two locks of three bytes.
fn random_program(rng: &mut Rng) -> Program {
    let locks = rng.usize(1..=2);
    let parts = all_parts(locks, rng.u64(1..=3));
    let count = rng.usize(2..=4);
    // Two tasks of one owner: what one of them waits for, the other may hold up.
    let shared = rng.u8(0..4) == 0;
    let longest = if count == 4 { 2 } else { 3 };
    let batches = rng.u8(0..3) == 0;
    let changes = rng.u8(0..3) == 0;
    let task = |number: usize, rng: &mut Rng| {
        let who = Who::Many(if shared && number == 1 { 0 } else { number });
        let mut steps = Vec::new();
        for ask in 0..rng.usize(1..=longest) {
            let several = if batches && rng.u8(0..3) == 0 { rng.usize(2..=3) } else { 1 };
            steps.push(Do::Ask((0..several).map(|_| parts[rng.usize(0..parts.len())]).collect()));
            let (of, some) = (rng.usize(0..=ask), parts[rng.usize(0..parts.len())]);
            match rng.u8(0..16) {
                0 | 1 => steps.push(Do::Release(of)),
                2..=4 if changes => steps.push(Do::Convert(of, some.mode)),
                5..=7 if changes => steps.push(Do::Extend(of, some.span)),
                8 | 9 if changes => steps.push(Do::Shrink(of, some.span)),
                _ => {}
            }
        }
        Task { who, steps }
    };
    let tasks = (0..count).map(|number| task(number, rng)).collect();
    Program { tasks, cancels: rng.u8(0..4) == 0 }
}

fn random_programs(count: u64) -> impl Iterator<Item = Program> {
    let first = from_env("SPANLOCK_SEED", 1);
    (first..first + count).map(|seed| random_program(&mut Rng::with_seed(seed)))
}

#[test]
fn pairs_of_owners_in_every_way() {
    let tally = walk(pairs(), Rule::AsDesigned, usize::MAX).unwrap_or_else(|why| panic!("{why}"));
    assert!(tally.passes > 0 && tally.deadlocks > 0, "programs without conflict: {tally:?}");
}

#[test]
fn random_programs_of_up_to_four_tasks() {
    let count = from_env("SPANLOCK_PROGRAMS", by_build(200, 3_000));
    let tally = walk(random_programs(count), Rule::AsDesigned, 20_000).unwrap_or_else(|why| panic!("{why}"));
    assert!(tally.passes > 0 && tally.deadlocks > 0, "programs without conflict: {tally:?}");
}

/// The walk must see through every broken rule: it says how.
#[test]
fn a_broken_rule_is_found() {
    let broken = [
        (Rule::NobodyPasses, "hang"),
        (Rule::EverybodyIsPassed, "there was no cycle"),
        (Rule::OnlyTheSearcherPasses, "hang"),
        (Rule::EveryCycleIsADeadlock, "there was no deadlock"),
        (Rule::SiblingsAreStrangers, "hang"),
        (Rule::BatchesAreTheirFirstPart, "hang"),
    ];
    for (rule, how) in broken {
        match walk(random_programs(20_000), rule, 20_000) {
            Ok(_) => panic!("{rule:?} passes for the rule"),
            Err(why) => assert!(why.contains(how), "{rule:?} fails for another reason: {why}"),
        }
    }
}
