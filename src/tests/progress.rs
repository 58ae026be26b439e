//! Promise: who is stopped in the middle of whatever he does holds up those who wait for him by the contract, and
//! nobody else (`docs/internals.md`, Progress).
//!
//! A *scene* has one thread do one thing, and is played again and again: first the thread is stopped before the first
//! of its steps (`sync::step`: each access to an atomic, each fence, each mutex), then before the second one, and so on
//! to the end. While it stands still, the main thread does everything that must go on: what has nothing to do with it,
//! in the same lock and in another ([`everything_else`]), and what the scene says. Futures are polled by hand. There is
//! one clock, the watchdog's: whoever must go on and does not is named by it, with the step where the other one stands.
//!
//! A step is known by its line in the source. A line of the library with such an access that no scene comes to fails
//! the test ([`UNSEEN`] has the exceptions). What a stopped thread does hold up, because it has a mutex, is in a table:
//! [`HOLDS_UP`].

use crate::Batch;
use crate::Mode;
use crate::Owner;
use crate::RangeLock;
use crate::RangeLocked;
use crate::Recursion;
use crate::platform::sync::step::{Gate, Step, Stop, has_any};
use fastrand::Rng;
use poll::{Hand, poll_once};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fs, io::Write};

#[path = "progress/announcing.rs"]
mod announcing;
#[path = "progress/draining.rs"]
mod draining;
#[path = "progress/poisoning.rs"]
mod poisoning;
#[path = "../../tests/common/poll.rs"]
#[allow(dead_code)]
mod poll;

/// What an operation of the main thread needs that a stopped thread may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Needs {
    /// That no search for deadlocks goes on in the locks of the scene.
    Turn,
    /// The list of those who wait at some slot of the lock: it may be the one that the stopped thread has.
    List,
    /// To wake, or to ask again, the very one whom the stopped thread is waking or putting to sleep.
    Sleeper,
    /// The index of requests that may be in a cycle, or what it has of one of them.
    Index,
    /// The names of tokens.
    Names,
    /// What was said of a lock's poisoned holders.
    Reasons,
}

/// What a thread holds up that is stopped while it has a mutex: by what stands in the line where the mutex is taken.
/// All of it, and nothing else, is passed over where the mutex is had.
const HOLDS_UP: &[(&str, &[Needs])] = &[
    ("lock(&self.0[slot])", &[Needs::List]),
    ("lock(&self.lists[self.slot])", &[Needs::List]),
    ("lock(&self.whom)", &[Needs::Sleeper]),
    ("lock(BY_OWNER", &[Needs::Index]),
    ("lock(BATCHES", &[Needs::Index]),
    ("lock(&self.passes)", &[Needs::Index]),
    ("lock(&self.held_up)", &[Needs::Index]),
    ("lock(&self.blocked.held_up)", &[Needs::Index]),
    ("lock(part(owner))", &[Needs::Names]),
    ("lock(&self.reasons)", &[Needs::Reasons]),
];

/// Where a search takes a turn, and where it gives one back. In between it has something that is no mutex.
const TAKES_A_TURN: &str = "self.word.compare_exchange(now, mine";
const GIVES_A_TURN_BACK: &str = "self.word.swap(search";

/// Steps that no scene comes to: in which file, in lines with which text or below one, and why.
const UNSEEN: &[(&str, &str, &str)] = &[
    ("tree/quota.rs", "", "advice, some of it written once in thousands of requests: plain loads and stores"),
    (
        "cycle.rs",
        "fn drop_pass",
        "two threads have to be stopped: the one who searches, and the one who is let past, between its look and its grant",
    ),
    (
        "turn.rs",
        "let search = self.word.load(Ordering::Acquire)",
        "two threads have to be stopped: the one who searches, and the one who waits for the end of that",
    ),
    ("turn.rs", "let mut now = self.word.load(Ordering::Acquire)", "the same"),
    ("turn.rs", "now | AWAITED", "the same"),
    ("turn.rs", "nobody else uses a lock that is being dropped", "so nobody can be held up"),
    ("tree/node.rs", "fn reserve_for", "in a node that nobody sees yet"),
    ("tree/slot.rs", "fn is_there_still", "the graph has to change within a search"),
    ("tree/slot.rs", "fn word", "for `Debug`"),
    ("wait/mod.rs", "giving_way", "a thread that parks comes to no further step; and it is advice"),
];

/// The bytes that scenes are about.
const PLACE: Range<u64> = 0..100;

/// Bytes near by, and far off, that they have nothing to do with.
const APART: [Range<u64>; 2] = [200..300, 1 << 40..(1 << 40) + 100];

/// Where the lock is full before some scenes begin.
const FAR: u64 = 3 << 62;

/// So often the same line counts as a step. (Who spins, or looks at many slots, passes it again and again.)
const TIMES: usize = 3;

/// Without a step for so long, somebody is held up for good.
const PATIENCE: Duration = Duration::from_secs(20);

/// The locks of one play. For good, as futures of owners want it.
#[derive(Clone, Copy)]
struct World {
    a: &'static RangeLock,
    b: &'static RangeLock,
    /// Which no scene is about.
    c: &'static RangeLock,
}

impl World {
    fn new() -> World {
        let lock = || -> &'static RangeLock { Box::leak(Box::new(RangeLock::new())) };
        World { a: lock(), b: lock(), c: lock() }
    }

    /// A hold by somebody new.
    fn hold(self, range: Range<u64>, mode: Mode) -> crate::Guard<&'static RangeLock, crate::ByTask> {
        Hand::new(self.a.request(range, mode)).ready()
    }

    /// Somebody new who waits.
    fn queue(self, range: Range<u64>, mode: Mode) -> Waiting {
        let mut waiting = Hand::new(self.a.request(range, mode));
        waiting.pending();
        waiting
    }

    /// Fills the root with holds far off, so that whoever comes next goes below it.
    fn fill_root(self) -> Vec<crate::Guard<&'static RangeLock, crate::ByTask>> {
        (0..8).map(|at| self.hold(FAR + at..FAR + at + 1, Mode::Exclusive)).collect()
    }
}

type Waiting = Hand<crate::Acquire<&'static RangeLock>>;

/// Whether nobody is in the way of `range` in `mode`, for who tries.
fn is_free(lock: &'static RangeLock, range: Range<u64>, mode: Mode) -> bool {
    lock.request(range, mode).owner(&Owner::new()).try_now().is_some()
}

/// Ends the process when the main thread makes no step, and says what it was about.
struct Watchdog {
    steps: Arc<AtomicU64>,
    doing: Arc<Mutex<String>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    fn new() -> Watchdog {
        let (steps, doing, over) =
            (Arc::<AtomicU64>::default(), Arc::<Mutex<String>>::default(), Arc::<AtomicBool>::default());
        let thread = thread::spawn({
            let (steps, doing, over) = (steps.clone(), doing.clone(), over.clone());
            move || watch(&steps, &doing, &over)
        });
        Watchdog { steps, doing, over, thread: Some(thread) }
    }

    /// What the main thread does next.
    fn next(&self, doing: String) {
        *self.doing.lock().unwrap() = doing;
        self.steps.fetch_add(1, Ordering::Relaxed);
    }
}

fn watch(steps: &AtomicU64, doing: &Mutex<String>, over: &AtomicBool) {
    let (mut seen, mut since) = (0, Instant::now());
    while !over.load(Ordering::Acquire) {
        thread::park_timeout(Duration::from_millis(500));
        let now = steps.load(Ordering::Relaxed);
        if now != seen {
            (seen, since) = (now, Instant::now());
        } else if since.elapsed() > PATIENCE {
            // Not `eprintln!`: what the harness captured is lost when the process ends like this.
            let text = format!("held up: {}\n", doing.lock().unwrap());
            drop(io_error(&text));
            std::process::abort();
        }
    }
}

fn io_error(text: &str) -> std::io::Result<()> {
    std::io::stderr().write_all(text.as_bytes())
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            drop(thread.join());
        }
    }
}

/// All scenes.
struct Stage {
    dog: Watchdog,
    source: Source,
    /// File and line of the steps at which somebody was stopped.
    seen: BTreeSet<(&'static str, u32)>,
    /// Rows of [`HOLDS_UP`] that were needed.
    held: BTreeSet<usize>,
    plays: usize,
}

/// The text of the library.
#[derive(Default)]
struct Source(HashMap<String, Vec<String>>);

impl Source {
    /// The line of a file that has such a text.
    fn find(&mut self, file: &str, text: &str) -> (String, u32) {
        let path = format!("src/{file}");
        self.line(&path, 1);
        let line = self.0[&path].iter().position(|line| line.contains(text));
        (path, line.unwrap_or_else(|| panic!("{file} has a line with {text}")) as u32 + 1)
    }

    fn line(&mut self, file: &str, line: u32) -> &str {
        let lines = self.0.entry(file.to_string()).or_insert_with(|| {
            let text =
                fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("the source is there");
            text.lines().map(str::to_string).collect()
        });
        lines[line as usize - 1].trim()
    }
}

/// One play, while the thread stands still.
struct Moment<'s> {
    scene: &'static str,
    stop: &'s Stop,
    dog: &'s Watchdog,
    text: String,
    /// What the stopped thread has that others may need.
    taken: BTreeSet<Needs>,
}

impl Moment<'_> {
    /// The main thread does `what`, unless it needs what the stopped thread has.
    fn go_on<T>(&self, what: &str, needs: &[Needs], act: impl FnOnce() -> T) -> Option<T> {
        if needs.iter().any(|need| self.taken.contains(need)) {
            return None;
        }
        self.dog.next(format!(
            "{what}; while {}: a thread is stopped before its {} at {}: {}",
            self.scene, self.stop.step.what, self.stop.step.at, self.text
        ));
        Some(act())
    }

    /// Whether nobody is in the way of `range` in `mode`: for who tries, and for who asks and gives up.
    fn is_free(&self, lock: &'static RangeLock, range: Range<u64>, mode: Mode) -> bool {
        let tried = self.must("a try", || is_free(lock, range.clone(), mode));
        let asked = self.go_on("a request", &[Needs::List, Needs::Index], || {
            poll_once(&mut Hand::new(lock.request(range, mode)).into_inner()).is_ready()
        });
        assert!(
            asked.is_none_or(|asked| asked == tried),
            "a try says {tried}, a poll another; {}: before {}, {}",
            self.scene,
            self.stop.step.at,
            self.text
        );
        tried
    }

    /// The same, of what needs nothing that somebody could have.
    fn must<T>(&self, what: &str, act: impl FnOnce() -> T) -> T {
        self.go_on(what, &[], act).expect("it needs nothing")
    }
}

/// How a probe's answers change while a thread goes through its steps: from the first to the last one, once, and by one
/// step.
struct Turn {
    scene: &'static str,
    from: bool,
    to: bool,
    /// What the thread had done, and what the answer was.
    answers: Vec<(HashSet<(Step, usize)>, bool)>,
}

impl Turn {
    fn new(scene: &'static str, from: bool, to: bool) -> Turn {
        Turn { scene, from, to, answers: Vec::new() }
    }

    fn note(&mut self, moment: &Moment<'_>, answer: bool) {
        let mut times = HashMap::new();
        let nth = |step: &Step| {
            let times: &mut usize = times.entry(*step).or_default();
            *times += 1;
            (*step, *times)
        };
        self.answers.push((moment.stop.passed.iter().map(nth).collect(), answer));
    }

    fn is(&self, answer: bool) -> bool {
        self.answers.iter().any(|&(_, its)| its == answer)
    }

    fn check(&self) {
        let Turn { scene, from, to, answers } = self;
        assert!(self.is(*from), "{scene}: before it begins");
        if from == to {
            assert!(!self.is(!*to), "{scene}: at no step");
            return;
        }
        // (Two plays need not go the same way: where a thread looks for a slot first depends on its number.)
        let with = answers.iter().filter(|(_, answer)| answer == to).map(|(passed, _)| passed.clone());
        let decisive = with.reduce(|all, passed| &all & &passed).unwrap_or_default();
        let without = answers.iter().filter(|(_, answer)| answer == from).flat_map(|(passed, _)| passed);
        let decisive = without.fold(decisive, |mut left, step| {
            left.remove(step);
            left
        });
        assert!(!decisive.is_empty(), "{scene}: there is a step that makes the difference");
    }
}

/// Opens the gate when the main thread fails, so that the test ends.
struct OpenAtLast(&'static Gate);

impl Drop for OpenAtLast {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// Does what a thread is to be stopped at.
fn stoppable<T>(gate: &'static Gate, act: impl FnOnce() -> T) -> T {
    struct Ends(&'static Gate);
    impl Drop for Ends {
        fn drop(&mut self) {
            self.0.end();
        }
    }
    let _ends = Ends(gate);
    gate.begin();
    act()
}

impl Stage {
    fn new() -> Stage {
        Stage {
            dog: Watchdog::new(),
            source: Source::default(),
            seen: BTreeSet::new(),
            held: BTreeSet::new(),
            plays: 0,
        }
    }

    /// Plays a scene as often as it has steps. `prepare` makes what the main thread and the other one have; `role` is
    /// the other one's part; `meanwhile` is what the main thread does while that one stands still, beside everything
    /// else; `after` what it does when that one has ended.
    fn play<S, I: Send, O: Send>(
        &mut self,
        scene: &'static str,
        prepare: impl Fn(World) -> (S, I),
        role: impl Fn(World, I, &'static Gate) -> O + Sync,
        meanwhile: impl FnMut(World, &mut S, &Moment<'_>),
        after: impl Fn(World, S, O),
    ) {
        self.play_from(scene, None, prepare, |_, _| {}, role, meanwhile, after);
    }

    /// The same from a step on, known by its file and a text in its line, at which the main thread does `first`.
    #[allow(clippy::too_many_arguments)]
    fn play_from<S, I: Send, O: Send>(
        &mut self,
        scene: &'static str,
        from: Option<(&str, &str)>,
        prepare: impl Fn(World) -> (S, I),
        first: impl Fn(World, &mut S),
        role: impl Fn(World, I, &'static Gate) -> O + Sync,
        mut meanwhile: impl FnMut(World, &mut S, &Moment<'_>),
        after: impl Fn(World, S, O),
    ) {
        let from = from.map(|(file, text)| self.source.find(file, text));
        let (done, mut through) = (Arc::default(), 0);
        loop {
            let world = World::new();
            self.dog.next(format!("preparing {scene}"));
            let (mut mine, theirs) = prepare(world);
            let gate = next_step(&done, from.clone());
            let stopped = thread::scope(|scope| {
                let role = &role;
                let thread = scope.spawn(move || role(world, theirs, gate));
                let mut stop = gate.stopped();
                if from.is_some() {
                    assert!(stop.is_some(), "{scene}: the thread comes to the step that it is about");
                    let _open = OpenAtLast(gate);
                    self.dog.next(format!("{scene}: stopped before {stop:?}"));
                    first(world, &mut mine);
                    gate.go_on();
                    stop = gate.stopped();
                    std::mem::forget(_open);
                }
                if let Some(stop) = &stop {
                    let _open = OpenAtLast(gate);
                    let moment = self.moment(scene, stop);
                    // First, as everything else may remove nodes.
                    meanwhile(world, &mut mine, &moment);
                    everything_else(world, &moment);
                }
                self.dog.next(format!("{scene}: the thread goes on, stopped before {stop:?}"));
                let theirs = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                self.dog.next(format!("{scene}: afterwards, stopped before {stop:?}"));
                after(world, mine, theirs);
                stop
            });
            self.dog.next(format!("{scene}: all is free again, stopped before {stopped:?}"));
            for lock in [world.a, world.b, world.c] {
                assert!(lock.try_exclusive(..).is_some(), "{scene}: free again, after a stop before {stopped:?}");
                assert!(lock.snapshot().requests().is_empty());
            }
            self.plays += 1;
            let Some(stop) = stopped else {
                // Two plays need not go the same way.
                through += 1;
                if through < 3 {
                    continue;
                }
                assert!(!done.lock().unwrap().is_empty(), "{scene}: it has a step");
                return;
            };
            self.note(&stop);
        }
    }

    fn moment<'s>(&'s mut self, scene: &'static str, stop: &'s Stop) -> Moment<'s> {
        let text = self.source.line(stop.step.at.file(), stop.step.at.line()).to_string();
        let mut taken = BTreeSet::new();
        for at in &stop.has {
            let line = self.source.line(at.file(), at.line());
            let known = HOLDS_UP.iter().any(|(text, _)| line.contains(text));
            assert!(known, "{scene}: nothing is known of a mutex that is taken by {line}, {at}");
        }
        for at in &stop.has {
            let line = self.source.line(at.file(), at.line());
            for (row, (_, needs)) in HOLDS_UP.iter().enumerate().filter(|(_, (text, _))| line.contains(text)) {
                self.held.insert(row);
                taken.extend(*needs);
            }
        }
        let mut times = |what: &str| {
            let passed =
                stop.passed.iter().filter(|step| self.source.line(step.at.file(), step.at.line()).contains(what));
            passed.count()
        };
        if times(TAKES_A_TURN) > times(GIVES_A_TURN_BACK) {
            taken.insert(Needs::Turn);
        }
        Moment { scene, stop, dog: &self.dog, text, taken }
    }

    fn note(&mut self, stop: &Stop) {
        self.seen.insert((stop.step.at.file(), stop.step.at.line()));
    }
}

/// Stops a thread before the first step that is not among `done`, and adds that. (Not the nth, as two plays need not go
/// the same way: where a thread looks for a slot first depends on its number.) If `from` is a line: there first, and
/// then at such a step behind it.
fn next_step(done: &Arc<Mutex<HashSet<(Step, usize)>>>, from: Option<(String, u32)>) -> &'static Gate {
    let (mut times, mut from, done) = (HashMap::<Step, usize>::new(), from, done.clone());
    Gate::new(move |step| {
        if let Some((file, line)) = &from {
            let is_it = step.at.line() == *line && step.at.file().ends_with(file);
            if is_it {
                from = None;
            }
            return is_it;
        }
        let times = times.entry(step).or_default();
        *times += 1;
        *times <= TIMES && done.lock().unwrap().insert((step, *times))
    })
}

/// Stops a thread when it has published a request: before the fence, which stands in the same line (`sync::publish`).
fn at_publication() -> &'static Gate {
    let mut before = None;
    Gate::new(move |step| before.replace(step.at) == Some(step.at) && step.what == "fence")
}

/// What has nothing to do with the one who is stopped, and must go on.
fn everything_else(world: World, moment: &Moment<'_>) {
    for (lock, which) in
        [(world.a, "the same lock"), (world.b, "the other lock of the scene"), (world.c, "another lock")]
    {
        for apart in APART {
            // Nobody has the lists of a lock that the scene is not about.
            let list: &[Needs] = if which == "another lock" { &[] } else { &[Needs::List] };
            goes_on(lock, &apart, moment, which, list);
        }
    }
    // It says whom each of those who wait may pass, and what they are called.
    moment.go_on("a snapshot", &[Needs::Index, Needs::Names], || {
        (world.a.snapshot(), world.b.snapshot(), format!("{:?}", world.a))
    });
    let [near, far] = APART;
    moment.go_on("a batch of both locks", &[Needs::List, Needs::Index], || {
        let holder = Hand::new(world.b.request(near.clone(), Mode::Add)).ready();
        let batch = || Batch::new().exclusive(world.a, far.clone()).block(world.b, near.clone());
        assert!(batch().owner(&Owner::new()).try_now().is_none());
        let mut asked = Hand::new(batch());
        asked.pending();
        drop(holder);
        assert!(asked.woken());
        drop(asked.ready());
    });
    let search_in = |a: &'static RangeLock, b: &'static RangeLock| {
        let (one, other) = (Owner::new(), Owner::new());
        let first = b.request(far.clone(), Mode::Exclusive).owner(&one).try_now().unwrap();
        let second = a.request(near.clone(), Mode::Exclusive).owner(&other).try_now().unwrap();
        let mut asked = Hand::new(a.request(near.clone(), Mode::Add).owner(&one));
        asked.pending();
        let mut closing = Hand::new(b.request(far.clone(), Mode::Add).owner(&other));
        assert!(closing.ready().is_err(), "a deadlock");
        drop(second);
        assert!(asked.woken());
        drop((asked.ready(), first));
    };
    moment.go_on("a search in other places", &[Needs::Turn, Needs::List, Needs::Index], || {
        search_in(world.a, world.b);
    });
    // Locks that have nothing to do with one another do not meet, but for some steps in the index.
    moment.go_on("a search in another lock", &[Needs::Index], || search_in(world.c, world.c));
}

/// All kinds of requests in one place.
fn goes_on(lock: &'static RangeLock, apart: &Range<u64>, moment: &Moment<'_>, which: &str, list: &[Needs]) {
    let Range { start, end } = *apart;
    let middle = start + 50;
    let must = |what: &str, act: &dyn Fn()| moment.must(&format!("{what} in {which}, {apart:?}"), act);
    must("a thread's request, and a try", &|| {
        let guard = lock.exclusive(start..end);
        assert!(!is_free(lock, start..end, Mode::Add));
        assert!(lock.try_exclusive(start..end).is_some(), "an owner's own");
        assert!(lock.request(start..end, Mode::Add).recursion(Recursion::Refuse).wait().is_err());
        let inner = lock.add(start..middle);
        assert!(inner.nesting() != crate::Nesting::Outermost);
        drop((guard, inner));
        assert!(is_free(lock, start..end, Mode::Exclusive));
    });
    must("a task's request", &|| {
        let guard = Hand::new(lock.request(start..end, Mode::Block)).ready();
        assert!(is_free(lock, start..end, Mode::Block));
        drop(guard);
    });
    must("a drain", &|| assert!(lock.drained(start..end, Mode::Exclusive).try_now()));
    must("conversions in place", &|| {
        let mut guard = Hand::new(lock.request(start..end, Mode::Exclusive)).ready();
        guard.downgrade(Mode::Add);
        guard.shrink(start..middle);
        drop(guard);
    });
    // A hold that moves takes its mark along, where there are marks: not in a lock that the scene is not about.
    let moves: &[Needs] = if list.is_empty() { &[] } else { &[Needs::Reasons] };
    moment.go_on(&format!("conversions by succession in {which}, {apart:?}"), moves, || {
        let mut guard = Hand::new(lock.request(start..middle, Mode::Add)).ready();
        assert!(guard.try_convert(Mode::Exclusive));
        assert!(guard.try_extend(start..end));
        drop(guard);
        let (left, right) = lock.exclusive(start..end).release(middle + 10..middle + 20);
        assert!(is_free(lock, middle + 10..middle + 20, Mode::Exclusive));
        drop((left, right));
    });
    must("many requests", &|| {
        let guards: Vec<_> =
            (start..start + 12).map(|at| Hand::new(lock.request(at..=at, Mode::Exclusive)).ready()).collect();
        drop(guards);
        lock.trim();
    });
    moment.go_on(&format!("waiting in {which}, {apart:?}"), list, || {
        let holder = Hand::new(lock.request(start..end, Mode::Exclusive)).ready();
        let mut drain = Hand::new(lock.drained(middle..end, Mode::Add));
        drain.pending();
        let timed = lock.request(start..middle, Mode::Add).timeout(Duration::from_micros(100)).wait();
        assert!(timed.is_err(), "timed out");
        let [mut first, mut given_up, mut last] =
            [Mode::Exclusive, Mode::Exclusive, Mode::Add].map(|mode| Hand::new(lock.request(start..end, mode)));
        first.pending();
        given_up.pending();
        last.pending();
        drop(holder);
        assert!(first.woken());
        drop(given_up);
        let mut first = first.ready();
        last.pending();
        first.downgrade(Mode::Add);
        assert!(last.woken());
        assert!(drain.woken());
        drain.ready();
        drop((last.ready(), first));
    });
    let token = |needs: &[Needs]| {
        moment.go_on(&format!("a token's conversion in {which}, {apart:?}"), needs, || {
            let guard = lock.request(start..end, Mode::Exclusive).owner(&Owner::new()).try_now().unwrap();
            drop(guard.split(middle));
            // The parts of a task's have a token as well.
            let (head, tail) = Hand::new(lock.request(start..end, Mode::Exclusive)).ready().split(middle);
            drop((tail.release(middle + 10..middle + 20), head));
        })
    };
    token(if which == "another lock" { &[] } else { &[Needs::Turn, Needs::Reasons] });
}

#[test]
fn who_is_stopped_holds_up_nobody_else() {
    let stage = &mut Stage::new();
    asking(stage);
    waiting(stage);
    leaving(stage);
    being_late(stage);
    converting(stage);
    batches(stage);
    searching(stage);
    looking(stage);
    announcing::announcing(stage);
    draining::draining(stage);
    poisoning::poisoning(stage);
    passing_the_young(stage);
    holding_others_up(stage);
    growing(stage);

    for (row, (text, _)) in HOLDS_UP.iter().enumerate() {
        assert!(stage.held.contains(&row), "nobody was stopped who had {text}");
    }
    let unseen = stage.unseen();
    assert!(unseen.is_empty(), "{} steps that no scene comes to:\n{}", unseen.len(), unseen.join("\n"));
    println!("{} plays, {} lines of source", stage.plays, stage.seen.len());
}

/// Requests that nobody is in the way of; or somebody who comes while they ask.
fn asking(stage: &mut Stage) {
    for mode in Mode::ALL {
        let mut turn = Turn::new("asking", true, false);
        stage.play(
            "asking",
            |_| ((), ()),
            |world, (), gate| drop(stoppable(gate, || world.a.request(PLACE, mode).wait())),
            |world, (), moment| turn.note(moment, moment.is_free(world.a, PLACE, other(mode))),
            |_, (), ()| {},
        );
        turn.check();
    }
    let mut turn = Turn::new("asking by a token", true, false);
    stage.play(
        "asking by a token",
        |_| ((), ()),
        |world, (), gate| drop(stoppable(gate, || world.a.request(PLACE, Mode::Add).owner(&Owner::new()).wait())),
        |world, (), moment| turn.note(moment, moment.is_free(world.a, PLACE, Mode::Block)),
        |_, (), ()| {},
    );
    turn.check();
    let mut turn = Turn::new("asking below the root", true, false);
    stage.play(
        "asking below the root",
        |world| (world.fill_root(), ()),
        |world, (), gate| drop(stoppable(gate, || world.a.exclusive(PLACE))),
        |world, _, moment| turn.note(moment, moment.is_free(world.a, PLACE, Mode::Exclusive)),
        |_, crowd, ()| drop(crowd),
    );
    turn.check();
    let mut turn = Turn::new("asking by a shortcut", true, false);
    stage.play(
        "asking by a shortcut",
        |world| (world.fill_root(), ()),
        |world, (), gate| {
            (0..8).for_each(|_| drop(world.a.exclusive(PLACE)));
            drop(stoppable(gate, || world.a.exclusive(PLACE)));
        },
        |world, _, moment| turn.note(moment, moment.is_free(world.a, PLACE, Mode::Exclusive)),
        |_, crowd, ()| drop(crowd),
    );
    turn.check();
    stage.play(
        "finding a shortcut",
        |world| (world.fill_root(), ()),
        |world, (), gate| stoppable(gate, || (0..6).for_each(|_| drop(world.a.exclusive(PLACE)))),
        |_, _, _| {},
        |_, crowd, ()| drop(crowd),
    );
    // The main thread has a shortcut to a node below, and one stays above, across the border of a cell.
    const BELOW: Range<u64> = (1 << 62) - 10..(1 << 62) - 5;
    stage.play(
        "ending an era",
        |world| {
            let mut crowd = world.fill_root();
            (0..8).for_each(|_| drop(world.a.exclusive(BELOW)));
            drop(crowd.pop());
            ((crowd, None), ())
        },
        |world, (), gate| {
            let mut asked = Hand::new(world.a.request(BELOW.start..BELOW.end + 10, Mode::Exclusive));
            let polled = stoppable(gate, || asked.poll());
            (asked, polled)
        },
        |world, (_, other), moment| {
            // A try may be refused where this is granted: when the other has published, and has not had its fence.
            moment.go_on("a request by a shortcut", &[Needs::List], || {
                *other = match Hand::new(world.a.request(BELOW, Mode::Exclusive)).poll() {
                    Poll::Ready(guard) => Some(guard),
                    Poll::Pending => None,
                };
            });
        },
        |_, (crowd, other), (mut asked, polled)| {
            assert_eq!(polled.is_ready(), other.is_none(), "one of them gets it");
            drop(other);
            if polled.is_pending() {
                assert!(asked.woken(), "when the other has gone");
                drop(asked.ready());
            }
            drop(crowd);
        },
    );
    // Somebody takes it meanwhile, and keeps it.
    stage.play(
        "trying",
        |_| (None, ()),
        |world, (), gate| stoppable(gate, || world.a.request(PLACE, Mode::Exclusive).owner(&Owner::new()).try_now()),
        |world, other, moment| {
            *other =
                moment.must("a conflicting try", || world.a.request(PLACE, Mode::Add).owner(&Owner::new()).try_now());
        },
        |_, other, tried| assert_eq!(tried.is_some(), other.is_none(), "one of them gets it"),
    );
    stage.play(
        "trying, in vain",
        |world| (Some(world.hold(PLACE, Mode::Add)), ()),
        |world, (), gate| stoppable(gate, || world.a.request(PLACE, Mode::Exclusive).owner(&Owner::new()).try_now()),
        |world, holder, moment| {
            assert!(moment.is_free(world.a, PLACE, Mode::Add), "it goes with the holder's");
            moment.must("a release", || drop(holder.take()));
        },
        |_, _, tried| drop(tried),
    );
    stage.play(
        "asking, and somebody comes",
        |_| (None, ()),
        |world, (), gate| {
            let mut asked = Hand::new(world.a.request(PLACE, Mode::Exclusive));
            let polled = stoppable(gate, || asked.poll());
            (asked, polled)
        },
        |world, other, moment| {
            *other =
                moment.must("a conflicting try", || world.a.request(PLACE, Mode::Add).owner(&Owner::new()).try_now());
        },
        |_, other, (mut asked, polled)| {
            assert_eq!(polled.is_ready(), other.is_none(), "one of them gets it");
            drop(other);
            if polled.is_pending() {
                assert!(asked.woken(), "when the other has gone");
                drop(asked.ready());
            }
        },
    );
}

/// A mode that conflicts.
fn other(mode: Mode) -> Mode {
    match mode {
        Mode::Add => Mode::Block,
        _ => Mode::Add,
    }
}

/// Requests that find somebody in their way.
fn waiting(stage: &mut Stage) {
    let mut turn = Turn::new("queuing", true, false);
    stage.play(
        "queuing",
        |world| {
            let holder = world.hold(PLACE, Mode::Exclusive);
            ((Some((holder, world.queue(PLACE, Mode::Exclusive))), None), ())
        },
        |world, (), gate| {
            let mut asked = Hand::new(world.a.request(PLACE, Mode::Exclusive));
            let polled = stoppable(gate, || asked.poll());
            (asked, polled)
        },
        |world, (before, guard), moment| {
            let (holder, mut first) = before.take().unwrap();
            moment.go_on("a newcomer's poll", &[Needs::List], || {
                let mut late = Hand::new(world.a.request(PLACE, Mode::Add));
                assert!(late.poll().is_pending());
            });
            moment.must("the holder's release", || drop(holder));
            assert!(first.woken());
            *guard = Some(moment.must("the first one's turn", || first.ready()));
            // What the stopped one may listen to.
            let left = moment.go_on("the first one's release", &[Needs::List, Needs::Sleeper], || drop(guard.take()));
            if left.is_some() {
                turn.note(moment, moment.is_free(world.a, PLACE, Mode::Exclusive));
            }
        },
        |_, before, (mut asked, polled)| {
            drop(before);
            if polled.is_pending() {
                assert!(asked.woken(), "nobody is in front");
                drop(asked.ready());
            }
        },
    );
    turn.check();
    stage.play(
        "taking one's turn",
        |world| {
            let holder = world.hold(PLACE, Mode::Exclusive);
            let first = world.queue(PLACE, Mode::Exclusive);
            let second = world.queue(PLACE, Mode::Exclusive);
            drop(holder);
            assert!(first.woken());
            (second, first)
        },
        |_, mut first, gate| stoppable(gate, || first.ready()),
        |world, second, moment| {
            moment.must("the next one's poll", || second.pending());
            assert!(!moment.is_free(world.a, PLACE, Mode::Add));
        },
        |_, mut second, guard| {
            second.pending();
            drop(guard);
            assert!(second.woken());
            drop(second.ready());
        },
    );
    stage.play(
        "waiting until a deadline",
        |world| (Some(world.hold(PLACE, Mode::Exclusive)), ()),
        |world, (), gate| {
            let result =
                stoppable(gate, || world.a.request(PLACE, Mode::Add).timeout(Duration::from_micros(300)).wait());
            drop(result);
        },
        |world, holder, moment| {
            moment.go_on("a newcomer's poll", &[Needs::List], || drop(world.queue(PLACE, Mode::Block)));
            moment.go_on("the holder's release", &[Needs::List, Needs::Sleeper], || drop(holder.take()));
        },
        |_, holder, ()| drop(holder),
    );
    // Whoever is called, and found that there is more to wait for.
    stage.play(
        "looking again",
        |world| {
            let (one, two) = (world.hold(PLACE, Mode::Add), world.hold(PLACE, Mode::Add));
            let asked = world.queue(PLACE, Mode::Exclusive);
            drop(two);
            let _ = asked.woken();
            (Some(one), asked)
        },
        |_, mut asked, gate| {
            let polled = stoppable(gate, || asked.poll_elsewhere());
            (asked, polled)
        },
        |world, one, moment| {
            assert!(!moment.is_free(world.a, PLACE, Mode::Add));
            moment.go_on("the holder's release", &[Needs::List, Needs::Sleeper], || drop(one.take()));
        },
        |_, one, (mut asked, polled)| {
            drop(one);
            if polled.is_pending() {
                assert!(asked.woken(), "nobody is in front");
                drop(asked.ready());
            }
        },
    );
}

/// Requests that end.
fn leaving(stage: &mut Stage) {
    let mut turn = Turn::new("releasing", false, true);
    stage.play(
        "releasing",
        |world| ((), world.hold(PLACE, Mode::Exclusive)),
        |_, guard, gate| stoppable(gate, || drop(guard)),
        |world, (), moment| turn.note(moment, moment.is_free(world.a, PLACE, Mode::Add)),
        |_, (), ()| {},
    );
    // Before its last step it has not let go.
    assert!(!turn.is(true));
    for crowded in [false, true] {
        let mut turn = Turn::new("releasing what somebody waits for", false, true);
        stage.play(
            "releasing what somebody waits for",
            |world| {
                let crowd = crowded.then(|| world.fill_root());
                let guard = world.hold(PLACE, Mode::Exclusive);
                ((Some(world.queue(PLACE, Mode::Exclusive)), crowd), guard)
            },
            |_, guard, gate| stoppable(gate, || drop(guard)),
            |world, (first, _), moment| {
                let granted = moment.go_on("the first one's poll", &[Needs::List, Needs::Sleeper], || {
                    let polled = first.as_mut().unwrap().poll();
                    polled.is_ready()
                });
                if let Some(granted) = granted {
                    turn.note(moment, granted);
                }
                if granted == Some(true) {
                    *first = None;
                    assert!(moment.is_free(world.a, PLACE, Mode::Exclusive));
                }
            },
            |_, (first, crowd), ()| {
                if let Some(mut first) = first {
                    assert!(first.woken());
                    drop(first.ready());
                }
                drop(crowd);
            },
        );
        turn.check();
    }
    let mut turn = Turn::new("giving up", false, true);
    stage.play(
        "giving up",
        |world| {
            let holder = world.hold(PLACE, Mode::Exclusive);
            let asked = world.queue(PLACE, Mode::Exclusive);
            ((Some(holder), Some(world.queue(PLACE, Mode::Exclusive))), asked)
        },
        |_, asked, gate| stoppable(gate, || drop(asked)),
        |world, (holder, next), moment| {
            let left = moment.go_on("the holder's release", &[Needs::List, Needs::Sleeper], || drop(holder.take()));
            if left.is_none() {
                return;
            }
            let granted = moment.must("the next one's poll", || next.as_mut().unwrap().poll().is_ready());
            turn.note(moment, granted);
            if granted {
                *next = None;
                assert!(moment.is_free(world.a, PLACE, Mode::Exclusive));
            }
        },
        |_, (holder, next), ()| {
            drop(holder);
            if let Some(mut next) = next {
                assert!(next.woken());
                drop(next.ready());
            }
        },
    );
    turn.check();
}

/// Whoever has freed a slot that somebody waited for, and is late with its call, has nothing to do with who has come to
/// wait for the slot's next request since.
fn being_late(stage: &mut Stage) {
    for (released, kept) in [(0, 1), (1, 0)] {
        stage.play_from(
            "being late with a call",
            Some(("wait/event.rs", "lock(&self.0[slot]).ring(age)")),
            |world| {
                // All slots of the root are taken.
                let crowd: Vec<_> = world.fill_root().into_iter().skip(2).collect();
                let guard = world.hold(PLACE, Mode::Exclusive);
                let waits = world.queue(PLACE, Mode::Exclusive);
                ((crowd, Some(waits), Vec::new()), guard)
            },
            |world, (_, waits, pairs)| {
                // Two slots are free, that one and this one's: one of two requests that come is in that one.
                drop(waits.take());
                let holds = [0..10, 10..20].map(|range| world.hold(range, Mode::Exclusive));
                let waits = [0..10, 10..20].map(|range| world.queue(range, Mode::Exclusive));
                *pairs = holds.into_iter().map(Some).zip(waits).collect();
            },
            |_, guard, gate| stoppable(gate, || drop(guard)),
            |_, (_, _, pairs), moment| {
                moment.go_on("a release", &[Needs::List], || drop(pairs[released].0.take()));
                if pairs[released].0.is_none() {
                    assert!(pairs[released].1.woken(), "though the other thread is stopped");
                    moment.must("the poll of who waited for that", || drop(pairs[released].1.ready()));
                }
            },
            |_, (_crowd, _, mut pairs), ()| {
                let (hold, mut waits) = pairs.swap_remove(kept);
                assert!(!waits.woken(), "what it waits for is there");
                drop(hold);
                assert!(waits.woken());
                drop(waits.ready());
                drop(pairs);
            },
        );
    }
}

fn converting(stage: &mut Stage) {
    type Owned = crate::Guard<&'static RangeLock, crate::ByTask>;
    /// A conversion of an exclusive hold of [`PLACE`] beside somebody who waits for a part of it, what it leaves held,
    /// and whether that one gets it.
    struct Case {
        name: &'static str,
        before: Mode,
        asked: (Range<u64>, Mode),
        gets: bool,
        keeps: &'static [u64],
        change: fn(Owned) -> Vec<Owned>,
    }
    let cases = [
        Case {
            name: "shrinking",
            before: Mode::Exclusive,
            asked: (60..70, Mode::Exclusive),
            gets: true,
            keeps: &[0, 49],
            change: |mut guard| {
                guard.shrink(0..50);
                vec![guard]
            },
        },
        Case {
            name: "downgrading",
            before: Mode::Exclusive,
            asked: (10..70, Mode::Add),
            gets: true,
            keeps: &[0, 99],
            change: |mut guard| {
                guard.downgrade(Mode::Add);
                vec![guard]
            },
        },
        Case {
            name: "splitting",
            before: Mode::Exclusive,
            asked: (40..60, Mode::Exclusive),
            gets: false,
            keeps: &[0, 49, 50, 99],
            change: |guard| {
                let (head, tail) = guard.split(50);
                vec![head, tail]
            },
        },
        Case {
            name: "releasing the middle",
            before: Mode::Block,
            asked: (40..60, Mode::Add),
            gets: true,
            keeps: &[0, 39, 60, 99],
            change: |guard| {
                let (head, tail) = guard.release(40..60);
                vec![head, tail]
            },
        },
        Case {
            name: "converting",
            before: Mode::Add,
            asked: (40..60, Mode::Exclusive),
            gets: false,
            keeps: &[0, 99],
            change: |mut guard| {
                assert!(guard.try_convert(Mode::Block));
                vec![guard]
            },
        },
        Case {
            name: "extending",
            before: Mode::Exclusive,
            asked: (40..60, Mode::Exclusive),
            gets: false,
            keeps: &[0, 99],
            change: |mut guard| {
                assert!(guard.try_extend(0..150));
                vec![guard]
            },
        },
    ];
    for Case { name, before, asked: (bytes, mode), gets, keeps, change } in cases {
        let mut turn = Turn::new(name, false, gets);
        stage.play(
            name,
            |world| {
                let guard = world.hold(PLACE, before);
                (Some(world.queue(bytes.clone(), mode)), guard)
            },
            |_, guard, gate| stoppable(gate, || change(guard)),
            |world, first, moment| {
                for &byte in keeps {
                    assert!(!moment.is_free(world.a, byte..byte + 1, Mode::Exclusive));
                }
                let granted = moment.go_on("the first one's poll", &[Needs::List, Needs::Sleeper], || {
                    first.as_mut().unwrap().poll().is_ready()
                });
                if let Some(granted) = granted {
                    turn.note(moment, granted);
                }
                if granted == Some(true) {
                    *first = None;
                }
            },
            |world, first, guards| {
                assert!(keeps.iter().all(|&byte| !is_free(world.a, byte..byte + 1, Mode::Exclusive)));
                let Some(mut first) = first else { return };
                if !gets {
                    first.pending();
                    drop(guards);
                }
                assert!(first.woken());
                drop(first.ready());
            },
        );
        if gets && !turn.is(true) {
            // Its last step is the one that lets him in.
            continue;
        }
        turn.check();
    }
    stage.play(
        "splitting what a batch waits for",
        |world| {
            let guard = world.hold(PLACE, Mode::Exclusive);
            let mut batch = Hand::new(Batch::new().exclusive(world.a, 40..60).exclusive(world.b, PLACE));
            batch.pending();
            (batch, guard)
        },
        |_, guard, gate| stoppable(gate, || guard.split(50)),
        |_, batch, moment| {
            moment.go_on("the batch's poll", &[Needs::List, Needs::Sleeper, Needs::Index], || batch.pending());
        },
        |_, mut batch, parts| {
            batch.pending();
            drop(parts);
            assert!(batch.woken());
            drop(batch.ready());
        },
    );
    // Nobody waits: what is new of a hold is free before, and not after.
    let mut turn = Turn::new("extending freely", true, false);
    stage.play(
        "extending freely",
        |world| ((), world.hold(PLACE, Mode::Exclusive)),
        |_, mut guard, gate| {
            assert!(stoppable(gate, || guard.try_extend(0..150)));
            guard
        },
        |world, (), moment| turn.note(moment, moment.is_free(world.a, 120..130, Mode::Add)),
        |_, (), guard| drop(guard),
    );
    turn.check();
    stage.play(
        "converting in vain",
        |world| (Some(world.hold(PLACE, Mode::Add)), world.hold(PLACE, Mode::Add)),
        |_, mut guard, gate| {
            let converted = stoppable(gate, || guard.try_convert(Mode::Block));
            (guard, converted)
        },
        |world, beside, moment| {
            assert!(!moment.is_free(world.a, PLACE, Mode::Block));
            moment.go_on("the other's release", &[Needs::List], || drop(beside.take()));
        },
        |_, _, (guard, _)| drop(guard),
    );
    stage.play(
        "splitting a token's",
        |world| ((), world.a.request(PLACE, Mode::Exclusive).owner(&Owner::new()).try_now().unwrap()),
        |_, guard, gate| stoppable(gate, || guard.split(50)),
        |world, (), moment| {
            assert!(!moment.is_free(world.a, 0..10, Mode::Add));
            assert!(!moment.is_free(world.a, 60..99, Mode::Add));
        },
        |_, (), parts| drop(parts),
    );
    convert_beside_who_is_stopped(stage);
}

/// Who converts waits for one who came before, and is in his doorway; not for one who comes after it has raised the
/// bar.
fn convert_beside_who_is_stopped(stage: &mut Stage) {
    let world = World::new();
    let guard = world.hold(PLACE, Mode::Exclusive);
    let earlier = stopped_in_doorway(world, stage);
    let bar = world.a.state().tree.bar();
    let converting = thread::spawn(move || drop(guard.split(50)));
    stage.dog.next("a conversion draws its ticket".to_string());
    while world.a.state().tree.bar() == bar {
        thread::yield_now();
    }
    let later = stopped_in_doorway(world, stage);
    assert!(!earlier.go_on(), "it queues");
    stage.dog.next("a conversion beside one who is stopped in his doorway, and came later".to_string());
    converting.join().unwrap();
    later.go_on();

    // One who comes at any of its steps, and is through before it goes on, has found the hold or the new one.
    let done = Arc::default();
    loop {
        let world = World::new();
        let guard = world.hold(PLACE, Mode::Exclusive);
        let gate = next_step(&done, None);
        let stopped = thread::scope(|scope| {
            let converting = scope.spawn(move || stoppable(gate, || guard.split(50)));
            let _open = OpenAtLast(gate);
            let stop = gate.stopped();
            let other = stopped_in_doorway(world, stage);
            gate.open();
            assert!(!other.go_on(), "it queues");
            stage.dog.next(format!("a conversion, stopped before {stop:?}, beside one who came meanwhile"));
            drop(converting.join().unwrap());
            stop.is_some()
        });
        stage.plays += 1;
        if !stopped {
            break;
        }
    }
}

/// Somebody who asks for a part of [`PLACE`], and is stopped when he has published that.
fn stopped_in_doorway(world: World, stage: &Stage) -> InDoorway {
    let gate = at_publication();
    let thread = thread::spawn(move || {
        let mut asked = Hand::new(world.a.request(40..60, Mode::Exclusive));
        stoppable(gate, || asked.poll().is_ready())
    });
    stage.dog.next("somebody comes to his doorway".to_string());
    assert!(gate.stopped().is_some());
    InDoorway { gate, thread: Some(thread) }
}

struct InDoorway {
    gate: &'static Gate,
    thread: Option<JoinHandle<bool>>,
}

impl InDoorway {
    /// Whether he was granted what he asks for. (He has left.)
    fn go_on(mut self) -> bool {
        self.gate.open();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for InDoorway {
    fn drop(&mut self) {
        self.gate.open();
    }
}

fn batches(stage: &mut Stage) {
    let batch = |world: World| Batch::new().exclusive(world.a, PLACE).exclusive(world.b, PLACE);
    let mut turn = Turn::new("a batch that queues", true, false);
    stage.play(
        "a batch that queues",
        |world| (Some(world.hold(PLACE, Mode::Exclusive)), ()),
        |world, (), gate| {
            let mut asked = Hand::new(batch(world));
            let polled = stoppable(gate, || asked.poll());
            (asked, polled)
        },
        |world, holder, moment| {
            turn.note(moment, moment.is_free(world.b, PLACE, Mode::Add));
            moment.go_on("the holder's release", &[Needs::List, Needs::Sleeper], || drop(holder.take()));
        },
        |_, holder, (mut asked, polled)| {
            drop(holder);
            if polled.is_pending() {
                assert!(asked.woken());
                drop(asked.ready());
            }
        },
    );
    turn.check();
    stage.play(
        "a batch that takes its turn",
        |world| {
            let holder = world.hold(PLACE, Mode::Exclusive);
            let mut asked = Hand::new(batch(world));
            asked.pending();
            let next = world.queue(PLACE, Mode::Add);
            drop(holder);
            (next, asked)
        },
        |_, mut asked, gate| stoppable(gate, || asked.ready()),
        |world, next, moment| {
            moment.must("the next one's poll", || next.pending());
            assert!(!moment.is_free(world.b, PLACE, Mode::Add));
        },
        |_, mut next, guards| {
            next.pending();
            drop(guards);
            assert!(next.woken());
            drop(next.ready());
        },
    );
    let mut turn = Turn::new("a batch that gives up", false, true);
    stage.play(
        "a batch that gives up",
        |world| {
            let holder = world.hold(PLACE, Mode::Exclusive);
            let mut asked = Hand::new(batch(world));
            asked.pending();
            let mut next = Hand::new(world.b.request(PLACE, Mode::Add));
            next.pending();
            ((holder, Some(next)), asked)
        },
        |_, asked, gate| stoppable(gate, || drop(asked)),
        |_, (_, next), moment| {
            let granted = moment.go_on("the next one's poll", &[Needs::List, Needs::Sleeper], || {
                next.as_mut().unwrap().poll().is_ready()
            });
            if let Some(granted) = granted {
                turn.note(moment, granted);
            }
            if granted == Some(true) {
                *next = None;
            }
        },
        |_, (holder, next), ()| {
            if let Some(mut next) = next {
                assert!(next.woken());
                drop(next.ready());
            }
            drop(holder);
        },
    );
    turn.check();
    let mut turn = Turn::new("a batch at once", true, false);
    stage.play(
        "a batch at once",
        |_| ((), ()),
        |world, (), gate| drop(stoppable(gate, || batch(world).owner(&Owner::new()).wait())),
        |world, (), moment| turn.note(moment, moment.is_free(world.b, PLACE, Mode::Add)),
        |_, (), ()| {},
    );
    turn.check();
    stage.play(
        "a batch that tries",
        |_| (None, ()),
        |world, (), gate| stoppable(gate, || batch(world).try_now()).is_some(),
        |world, other, moment| {
            *other =
                moment.must("a conflicting try", || world.b.request(PLACE, Mode::Add).owner(&Owner::new()).try_now());
        },
        |_, other, tried| assert_eq!(tried, other.is_none(), "one of them gets it"),
    );
}

/// Requests that look for deadlocks.
fn searching(stage: &mut Stage) {
    let mut turn = Turn::new("a search", true, false);
    stage.play(
        "a search",
        |world| {
            let token = Owner::new();
            let own = world.b.request(PLACE, Mode::Exclusive).owner(&token).try_now().unwrap();
            ((Some(world.hold(PLACE, Mode::Exclusive)), own), token)
        },
        |world, token, gate| {
            let mut asked = Hand::new(world.a.request(PLACE, Mode::Exclusive).owner(&token));
            let polled = stoppable(gate, || asked.poll());
            (asked, polled)
        },
        |world, (holder, _), moment| {
            moment.go_on("the holder's release", &[Needs::List, Needs::Sleeper], || drop(holder.take()));
            if holder.is_none() {
                turn.note(moment, moment.is_free(world.a, PLACE, Mode::Exclusive));
            }
        },
        |_, (holder, own), (mut asked, polled)| {
            drop(holder);
            if polled.is_pending() {
                assert!(asked.woken());
                drop(asked.ready());
            }
            drop(own);
        },
    );
    turn.check();
    stage.play(
        "a deadlock",
        |world| {
            let [one, two] = [(); 2].map(|()| Owner::new());
            let first = world.a.request(PLACE, Mode::Exclusive).owner(&one).try_now().unwrap();
            let second = world.b.request(PLACE, Mode::Exclusive).owner(&two).try_now().unwrap();
            let mut asked = Hand::new(world.b.request(PLACE, Mode::Exclusive).owner(&one));
            asked.pending();
            ((first, asked), (second, two))
        },
        |world, (second, two), gate| {
            let mut asked = Hand::new(world.a.request(PLACE, Mode::Exclusive).owner(&two));
            let refused = stoppable(gate, || asked.ready()).is_err();
            (second, refused)
        },
        |_, (_, asked), moment| moment.must("the other one's poll", || asked.pending()),
        |_, (first, mut asked), (second, refused)| {
            assert!(refused);
            drop(second);
            assert!(asked.woken());
            drop((asked.ready(), first));
        },
    );
    // The nested one goes before who is queued for what it waits for.
    stage.play(
        "letting somebody pass",
        |world| {
            let token = Owner::new();
            let own = world.a.request(PLACE, Mode::Add).owner(&token).try_now().unwrap();
            let queued = world.queue(PLACE, Mode::Exclusive);
            ((own, queued), token)
        },
        |world, token, gate| {
            let mut asked = Hand::new(world.a.request(0..50, Mode::Add).owner(&token));
            let passed = stoppable(gate, || asked.poll());
            assert!(passed.is_ready(), "it is let past");
        },
        |_, (_, queued), moment| {
            moment.go_on("the poll of who is passed", &[Needs::Index], || queued.pending());
        },
        |_, (own, mut queued), ()| {
            queued.pending();
            drop(own);
            assert!(queued.woken());
            drop(queued.ready());
        },
    );
    // He leaves before he is held back.
    stage.play_from(
        "letting somebody pass who leaves",
        Some(("tree/slot.rs", "word.0 | RESCAN, Ordering::AcqRel")),
        |world| {
            let token = Owner::new();
            let own = world.a.request(PLACE, Mode::Add).owner(&token).try_now().unwrap();
            ((own, Some(world.queue(PLACE, Mode::Exclusive))), token)
        },
        |_, (_, queued)| *queued = None,
        |world, token, gate| {
            let mut asked = Hand::new(world.a.request(0..50, Mode::Add).owner(&token));
            assert!(stoppable(gate, || asked.poll()).is_ready());
        },
        |world, _, moment| assert!(!moment.is_free(world.a, PLACE, Mode::Block)),
        |_, (own, _), ()| drop(own),
    );
    // The other way round: who was passed looks again, and finds the one who passes still waiting.
    stage.play(
        "the look of who was passed",
        |world| {
            let token = Owner::new();
            let mut own = world.a.request(PLACE, Mode::Add).owner(&token).try_now().unwrap();
            let holder = world.hold(120..150, Mode::Block);
            let queued = world.queue(PLACE, Mode::Exclusive);
            let mut passing = Hand::new(world.a.request(0..150, Mode::Add).owner(&token));
            passing.pending();
            own.shrink(0..50);
            assert!(queued.woken());
            ((own, holder, passing), queued)
        },
        |_, mut queued, gate| {
            assert!(stoppable(gate, || queued.poll()).is_pending());
            queued
        },
        |_, _, _| {},
        |_, (own, holder, mut passing), mut queued| {
            drop((own, holder));
            drop(passing.ready());
            assert!(queued.woken());
            drop(queued.ready());
        },
    );
}

/// Who only looks.
fn looking(stage: &mut Stage) {
    stage.play(
        "a snapshot",
        |world| {
            let crowd = world.fill_root();
            let holder = world.hold(PLACE, Mode::Exclusive);
            ((crowd, Some(holder), world.queue(PLACE, Mode::Add)), ())
        },
        |world, (), gate| stoppable(gate, || world.a.snapshot()),
        |_, (_, holder, _), moment| {
            // A move of its hold, so that whoever looks, looks again. (It asks who is queued there to look again, too:
            // the index knows which are batches.)
            if let Some(part) = moment.go_on("a split", &[Needs::Index], || holder.take().unwrap().split(50).0) {
                *holder = Some(part);
            }
        },
        |_, (crowd, holder, queued), snapshot| {
            assert!(snapshot.holders().any(|row| row.range().contains(10)), "who holds throughout is in it");
            assert_eq!(snapshot.waiters().len(), 1);
            drop((queued, holder, crowd));
        },
    );
    // The one who passes waits still, so that a snapshot asks the index whom it passes.
    stage.play(
        "who passes somebody, in a snapshot",
        |world| {
            let token = Owner::new();
            let own = world.a.request(PLACE, Mode::Add).owner(&token).try_now().unwrap();
            let holder = world.hold(120..150, Mode::Block);
            let queued = world.queue(PLACE, Mode::Exclusive);
            let mut passing = Hand::new(world.a.request(50..150, Mode::Add).owner(&token));
            passing.pending();
            ((own, holder, passing, queued), token.id())
        },
        |world, id, gate| (stoppable(gate, || world.a.snapshot()), id),
        |world, (_, _, passing, queued), moment| {
            assert!(!moment.is_free(world.a, PLACE, Mode::Block));
            moment.go_on("the poll of who passes", &[Needs::Index], || passing.pending());
            moment.go_on("the poll of who is passed", &[Needs::Index], || queued.pending());
        },
        |_, (own, holder, mut passing, mut queued), (snapshot, id)| {
            let [first, second] = snapshot.waiters().collect::<Vec<_>>()[..] else { panic!("two wait: {snapshot}") };
            assert!(second.owner() == id && first.owner() != id);
            assert!(
                snapshot.waits_for(first).any(|other| other.number() == second.number()),
                "it is passed: {snapshot}"
            );
            assert!(snapshot.waits_for(second).all(|other| other.is_holder()), "it passes: {snapshot}");
            drop(holder);
            let guard = passing.ready();
            drop(own);
            queued.pending();
            drop(guard);
            assert!(queued.woken());
            drop(queued.ready());
        },
    );
    looking_at_own_holds(stage);
}

/// Whether an owner has something in its own way, and what it was nested in, while another thread converts that.
fn looking_at_own_holds(stage: &mut Stage) {
    /// Bytes of which the hold moves to another slot, and those of another hold within it.
    const MOVED: Range<u64> = 60..70;
    const INNER: Range<u64> = 80..90;
    // At any of the steps, however often it comes by the same line: of the slots the new one may be looked at before
    // the old one, or behind it.
    for before in [false, true] {
        for at in 0.. {
            let world = World::new();
            let token = Owner::new();
            let ask = || world.a.request(PLACE, Mode::Exclusive).owner(&token).try_now().unwrap();
            let other = before.then(|| world.hold(1000..1001, Mode::Exclusive));
            let guard = ask();
            let inner = world.a.request(INNER, Mode::Exclusive).owner(&token).try_now().unwrap();
            drop(other);
            let mut left = at;
            let gate = Gate::new(move |_| {
                left -= 1;
                left == -1
            });
            let stopped = thread::scope(|scope| {
                let (token, inner) = (&token, &inner);
                let looks = scope.spawn(move || {
                    stoppable(gate, || {
                        let refused =
                            world.a.request(MOVED, Mode::Add).owner(token).recursion(Recursion::Refuse).wait();
                        (refused.is_err(), inner.nesting())
                    })
                });
                let stop = gate.stopped();
                let _open = OpenAtLast(gate);
                stage.dog.next(format!("a split beside who looks at its own holds, stopped before {stop:?}"));
                let parts = guard.split(50);
                gate.open();
                let (refused, nesting) = looks.join().unwrap();
                let is_nested = matches!(nesting, crate::Nesting::Conflicting { mode: Mode::Exclusive, .. });
                assert!(refused && is_nested, "{refused}, {nesting:?}: stopped before {stop:?}");
                drop(parts);
                stop
            });
            stopped.iter().for_each(|stop| stage.note(stop));
            stage.plays += 1;
            if stopped.is_none() {
                assert!(at > 0);
                break;
            }
        }
    }
    // The other way round: who converts is stopped.
    stage.play(
        "splitting what the owner looks for",
        |world| {
            let token = Owner::new();
            let guard = world.a.request(PLACE, Mode::Exclusive).owner(&token).try_now().unwrap();
            let inner = world.a.request(INNER, Mode::Exclusive).owner(&token).try_now().unwrap();
            ((token, inner), guard)
        },
        |_, guard, gate| stoppable(gate, || guard.split(50)),
        |world, (token, inner), moment| {
            moment.must("a request that refuses recursion", || {
                let request = world.a.request(MOVED, Mode::Add).owner(token).recursion(Recursion::Refuse);
                assert!(request.wait().is_err(), "{}", moment.text);
            });
            let nesting = moment.must("a look at what it is nested in", || inner.nesting());
            assert!(matches!(nesting, crate::Nesting::Conflicting { .. }), "{nesting:?}, {}", moment.text);
        },
        |_, held, parts| drop((held, parts)),
    );
}

/// In a lock with a window: a newcomer goes before who waits; and one who waits takes its turn, young or due.
fn passing_the_young(stage: &mut Stage) {
    let lock = |window| -> &'static RangeLock { Box::leak(Box::new(RangeLock::new().reordering(window))) };
    let crowd = |lock: &'static RangeLock| {
        let holder = Hand::new(lock.request(PLACE, Mode::Add)).ready();
        let mut young = Hand::new(lock.request(PLACE, Mode::Exclusive));
        young.pending();
        (holder, young)
    };
    stage.play(
        "going before who waits",
        |_| {
            let lock = lock(Duration::from_secs(1000));
            // Who does not yield, and is in nobody's way: newcomers look at each slot by itself.
            let elsewhere = Hand::new(lock.request(PLACE.end + 10..PLACE.end + 20, Mode::Block)).ready();
            ((lock, crowd(lock), elsewhere), lock)
        },
        // The second time it is known until when nobody is due.
        |_, lock, gate| {
            stoppable(gate, || (0..2).for_each(|_| drop(Hand::new(lock.request(PLACE, Mode::Add)).ready())))
        },
        |_, (lock, ..), moment| {
            moment.must("another newcomer", || drop(Hand::new(lock.request(10..20, Mode::Add)).ready()));
            assert!(!moment.must("a try", || is_free(lock, PLACE, Mode::Add)), "it passes nobody");
        },
        |_, (lock, (holder, mut young), elsewhere), ()| {
            drop((holder, elsewhere));
            assert!(young.woken());
            drop(young.ready());
            assert!(lock.try_exclusive(..).is_some());
        },
    );
    for (scene, window) in
        [("taking a young one's turn", Duration::from_secs(1000)), ("taking one's turn late", Duration::from_nanos(1))]
    {
        stage.play(
            scene,
            |_| {
                let lock = lock(window);
                let (holder, young) = crowd(lock);
                drop(holder);
                assert!(young.woken());
                (lock, young)
            },
            |_, mut young, gate| stoppable(gate, || young.ready()),
            |_, lock, moment| assert!(!moment.must("a try", || is_free(lock, PLACE, Mode::Add))),
            |_, lock, guard| {
                drop(guard);
                assert!(lock.try_exclusive(..).is_some());
            },
        );
    }
}

/// A thread that has something waits in a call for what is not its own; and what else takes a mutex, or a look of its
/// own.
fn holding_others_up(stage: &mut Stage) {
    stage.play(
        "waiting for another owner's request",
        |world| (world.hold(PLACE, Mode::Exclusive), Owner::named("waits")),
        |world, owner, gate| {
            let own = world.b.exclusive(PLACE);
            let request = world.a.request(PLACE, Mode::Add).owner(&owner).timeout(Duration::from_micros(100));
            let refused = stoppable(gate, || request.wait()).is_err();
            drop(own);
            refused
        },
        |world, _, moment| assert!(!moment.is_free(world.b, PLACE, Mode::Exclusive)),
        |_, holder, refused| {
            assert!(refused);
            drop(holder);
        },
    );
    stage.play(
        "a named token, and a snapshot",
        |_| ((), ()),
        |world, (), gate| {
            stoppable(gate, || {
                let owner = Owner::named("somebody");
                let guard = world.a.request(PLACE, Mode::Add).owner(&owner).try_now().unwrap();
                let name = world.a.snapshot().to_string();
                drop(guard);
                name
            })
        },
        |_, (), _| {},
        |_, (), name| assert!(name.contains("somebody"), "{name}"),
    );
    stage.play(
        "a slice of what is behind a lock",
        |_| {
            let data: &'static RangeLocked<Vec<u8>> = Box::leak(Box::new(RangeLocked::new(vec![0; 100])));
            (data, data)
        },
        |_, data, gate| stoppable(gate, || data.write(0..10)[0] += 1),
        |_, data, moment| moment.must("another slice", || data.write(50..60)[0] += 1),
        |_, data, ()| assert_eq!(data.read(..)[0], 1),
    );
}

/// Nodes that come and go.
fn growing(stage: &mut Stage) {
    let mut turn = Turn::new("growing", true, false);
    stage.play(
        "growing",
        |world| {
            // In a node of its own, which is full.
            let root = world.fill_root();
            let child: Vec<_> = (0..8).map(|at| world.hold(1000 + at..1001 + at, Mode::Exclusive)).collect();
            ((root, child), ())
        },
        |world, (), gate| drop(stoppable(gate, || world.a.exclusive(PLACE))),
        |world, _, moment| turn.note(moment, moment.is_free(world.a, PLACE, Mode::Add)),
        |_, crowd, ()| drop(crowd),
    );
    turn.check();
    // The pruner's hand comes by nodes in use, and by a vacant one, which it spares; and that is used then.
    let far_off = |at: u64| (at << 62) + 5000..(at << 62) + 5001;
    stage.play(
        "growing beside a vacant node",
        |world| {
            let mut crowd = world.fill_root();
            crowd.extend((0..8).map(|at| world.hold(1000 + 2 * at..1001 + 2 * at, Mode::Exclusive)));
            crowd.extend([1, 2].map(|at| world.hold(far_off(at), Mode::Exclusive)));
            drop(world.hold(far_off(3), Mode::Exclusive));
            // There is room above it.
            drop(crowd.swap_remove(0));
            (crowd, ())
        },
        |world, (), gate| {
            stoppable(gate, || {
                drop(world.a.exclusive(1001..1002));
                drop(world.a.exclusive(far_off(3)));
            });
        },
        |world, _, moment| assert!(moment.is_free(world.a, 1003..1004, Mode::Exclusive)),
        |_, crowd, ()| drop(crowd),
    );
    /// Across the middle of everything.
    const MIDDLE: u64 = 1 << 63;
    let mut turn = Turn::new("a longer chain", true, false);
    stage.play(
        "a longer chain",
        |world| {
            let crowd: Vec<_> = (1..20).map(|at| world.hold(MIDDLE - at..MIDDLE + at, Mode::Add)).collect();
            (crowd, ())
        },
        |world, (), gate| drop(stoppable(gate, || world.a.add(MIDDLE - 100..MIDDLE + 100))),
        |world, _, moment| turn.note(moment, moment.is_free(world.a, MIDDLE + 50..MIDDLE + 60, Mode::Block)),
        |_, crowd, ()| drop(crowd),
    );
    turn.check();
    stage.play(
        "pruning",
        |world| {
            let crowd = world.fill_root();
            drop(world.hold(PLACE, Mode::Exclusive));
            let chain: Vec<_> = (1..10).map(|at| world.hold(MIDDLE - at..MIDDLE + at, Mode::Add)).collect();
            drop(chain);
            ((crowd, None), ())
        },
        |world, (), gate| stoppable(gate, || world.a.trim()),
        |world, (_, guard), moment| {
            moment.must("a request in a node that is being removed", || {
                *guard = Some(world.hold(PLACE, Mode::Exclusive))
            });
        },
        |world, (crowd, guard), ()| {
            assert_eq!(guard.is_none(), is_free(world.a, PLACE, Mode::Add));
            drop((crowd, guard));
        },
    );
    // Somebody takes a slot in the node before it is frozen; or puts a mode on the link that leads there, when it is.
    for (from, mode) in [
        (("tree/node.rs", "frozen.compare_exchange(false, true"), Mode::Exclusive),
        (("tree/prune.rs", "fence(Ordering::SeqCst)"), Mode::Add),
    ] {
        stage.play_from(
            "pruning, and somebody comes",
            Some(from),
            |world| {
                let mut crowd = world.fill_root();
                drop(world.hold(PLACE, Mode::Exclusive));
                drop(crowd.pop());
                ((crowd, None), ())
            },
            |world, (_, guard)| *guard = Some(world.hold(PLACE, mode)),
            |world, (), gate| stoppable(gate, || world.a.trim()),
            |world, _, moment| assert!(!moment.is_free(world.a, PLACE, Mode::Block)),
            |_, held, ()| drop(held),
        );
    }
    // Below the root are a leaf with one request in it, and a full one; and in the root is room.
    let sparse = |world: World| {
        let above: Vec<_> = (1..9).map(|at| world.hold(MIDDLE - at..MIDDLE + at, Mode::Add)).collect();
        let mut below = vec![world.hold(PLACE, Mode::Add)];
        below.extend((0..8).map(|at| world.hold(FAR + at..FAR + at + 1, Mode::Add)));
        drop(above);
        below
    };
    stage.play(
        "closing a leaf",
        |world| (sparse(world), ()),
        |world, (), gate| stoppable(gate, || world.hold(FAR + 100..FAR + 101, Mode::Add)),
        |world, _, moment| assert!(!moment.is_free(world.a, PLACE, Mode::Block)),
        |_, below, more| drop((below, more)),
    );
    stage.play(
        "opening it",
        |world| {
            let mut below = sparse(world);
            below.push(world.hold(FAR + 100..FAR + 101, Mode::Add));
            (below, ())
        },
        |world, (), gate| stoppable(gate, || (0..12).map(|_| world.hold(PLACE, Mode::Add)).collect::<Vec<_>>()),
        |world, _, moment| assert!(!moment.is_free(world.a, PLACE, Mode::Block)),
        |_, below, more| drop((below, more)),
    );
    // The marks of two threads, in turns; then the second one's next look finds that they share the node.
    let take_turns = |world: World, mine: &dyn Fn(&'static RangeLock), other: fn(&'static RangeLock)| {
        let other = || {
            thread::scope(|scope| scope.spawn(|| (0..33).for_each(|_| other(world.a))).join().unwrap());
        };
        other();
        (0..33).for_each(|_| mine(world.a));
        other();
    };
    stage.play(
        "threads that could part",
        |_| ((), ()),
        |world, (), gate| {
            let mine = |lock: &'static RangeLock| drop(lock.exclusive(PLACE));
            take_turns(world, &mine, |lock| drop(lock.exclusive(1 << 20..(1 << 20) + 8)));
            stoppable(gate, || (0..40).for_each(|_| mine(world.a)));
        },
        |_, (), _| {},
        |_, (), ()| {},
    );
    stage.play(
        "threads that share a chain",
        |_| ((), ()),
        |world, (), gate| {
            let mine = |lock: &'static RangeLock| drop(lock.add(MIDDLE - 100..MIDDLE + 100));
            take_turns(world, &mine, |lock| drop(lock.add(MIDDLE - 200..MIDDLE + 200)));
            stoppable(gate, || (0..80).for_each(|_| mine(world.a)));
        },
        |_, (), _| {},
        |_, (), ()| {},
    );
    stage.play(
        "being at home",
        |world| (world.fill_root(), ()),
        |world, (), gate| {
            (0..70).for_each(|_| drop(world.a.exclusive(PLACE)));
            stoppable(gate, || (0..40).for_each(|_| drop(world.a.exclusive(PLACE))));
        },
        |_, _, _| {},
        |_, crowd, ()| drop(crowd),
    );
}

/// Threads that come and go while others wait, each stopped and let go on as the main thread likes: never while it has
/// a mutex.
struct Churn<'scope, 'env> {
    scope: &'scope thread::Scope<'scope, 'env>,
    world: World,
    rng: Rng,
    threads: Vec<(&'static Gate, thread::ScopedJoinHandle<'scope, ()>)>,
}

/// For how long those who come and go wait, if they do.
const SOON: Duration = Duration::from_millis(1);

/// Of those who come and go, who asks for more in the name of an owner that holds something.
const NESTED: u32 = 5;

impl<'scope> Churn<'scope, '_> {
    /// One who does something of all that does not wait for long, around [`PLACE`].
    fn come(&mut self) {
        let (world, kind, start) = (self.world, self.rng.u32(0..10), self.rng.u64(0..120));
        let (range, mode) = (start..start + self.rng.u64(1..60), Mode::ALL[self.rng.usize(0..3)]);
        let (seed, mut left) = (self.rng.u64(..), 0_u32);
        let mut rng = Rng::with_seed(seed);
        // Who is nested is not stopped from when it goes into the index: its search would hold up those that it has
        // found.
        let mut may_search = false;
        let gate = Gate::new(move |step| {
            may_search |= kind == NESTED && step.at.file().ends_with("turn.rs");
            if left > 0 || may_search || has_any() {
                left = left.saturating_sub(1);
                return false;
            }
            left = rng.u32(0..12);
            true
        });
        let thread = self.scope.spawn(move || {
            let owner = Owner::new();
            let at = seed % 1_000_000;
            let _own = (kind == NESTED).then(|| world.c.request(at..=at, Mode::Exclusive).owner(&owner).try_now());
            stoppable(gate, || match kind {
                0 => drop(poll_once(&mut Hand::new(world.a.request(range, mode)).into_inner())),
                1 => drop(world.a.request(range, mode).try_now()),
                2 => drop(world.a.request(range, mode).timeout(SOON).wait()),
                3 => drop(Batch::new().request(world.a, range, mode).exclusive(world.b, PLACE).try_now()),
                4 => {
                    let mut asked = Hand::new(world.a.request(range, mode));
                    if asked.poll().is_pending() {
                        drop(asked.poll_elsewhere());
                    }
                }
                NESTED if seed % 2 == 0 => drop(world.a.request(range, mode).owner(&owner).timeout(SOON).wait()),
                NESTED | 6 => drop(poll_once(&mut Hand::new(world.a.request(range, mode).owner(&owner)).into_inner())),
                7 => {
                    let batch = Batch::new().request(world.a, range, mode).exclusive(world.b, PLACE);
                    drop(poll_once(&mut Hand::new(batch).into_inner()));
                }
                // It moves nothing, so that it waits for nobody.
                8 => {
                    if let Some(mut guard) = world.a.request(range.clone(), Mode::Exclusive).owner(&owner).try_now() {
                        guard.downgrade(mode);
                        guard.shrink(range.start..range.start + 1);
                    }
                }
                // Where nobody else is, for the same reason.
                _ => {
                    let at = 1000 + seed % 1_000_000 * 100;
                    let mut guard = Hand::new(world.a.request(at..at + 50, Mode::Exclusive)).ready();
                    guard.downgrade(Mode::Add);
                    drop(guard.split(at + 20));
                }
            });
        });
        self.threads.push((gate, thread));
    }

    /// Some of them do some steps; who has come to his end is followed by another.
    fn go_on(&mut self) {
        for _ in 0..self.rng.usize(1..6) {
            let one = self.rng.usize(0..self.threads.len());
            self.threads[one].0.go_on();
            if self.threads[one].0.stopped().is_none() {
                drop(self.threads.swap_remove(one).1.join());
                self.come();
                self.threads.last().unwrap().0.stopped();
            }
        }
    }

    /// All come to their ends, one after the other, and as many others have come by then, which have not.
    fn renew(&mut self) {
        for (gate, thread) in std::mem::take(&mut self.threads) {
            self.come();
            let newcomer = self.threads.last().unwrap().0;
            newcomer.stopped();
            for _ in 0..self.rng.u32(0..8) {
                newcomer.go_on();
                newcomer.stopped();
            }
            gate.open();
            thread.join().unwrap();
        }
    }

    fn end(self) {
        for (gate, thread) in self.threads {
            gate.open();
            thread.join().unwrap();
        }
    }
}

/// Beside those who come and go, each stopped wherever it is: who waits, and has nobody in front who came before, is
/// granted at its next poll; a search, a conversion, and a deadline come to their ends.
#[test]
fn who_waits_is_not_held_up_by_those_who_come_and_go() {
    let dog = Watchdog::new();
    for seed in 0..60 {
        let world = World::new();
        let at = |what: &str| dog.next(format!("{what}, seed {seed}, beside those who come and go"));
        thread::scope(|scope| {
            at("the scene is set");
            let crowd = (seed % 2 == 1).then(|| world.fill_root());
            let [one, other] = [(); 2].map(|()| Owner::new());
            let holder = world.a.request(PLACE, Mode::Exclusive).owner(&one).try_now().unwrap();
            let elsewhere = world.b.request(200..300, Mode::Exclusive).owner(&other).try_now().unwrap();
            let (mut first, mut second) = (world.queue(PLACE, Mode::Exclusive), world.queue(0..50, Mode::Add));
            let mut churn = Churn { scope, world, rng: Rng::with_seed(seed), threads: Vec::new() };
            for _ in 0..4 {
                churn.come();
                churn.threads.last().unwrap().0.stopped();
            }
            churn.go_on();
            at("a deadline");
            assert!(world.a.request(PLACE, Mode::Add).timeout(Duration::from_micros(50)).wait().is_err());
            churn.go_on();
            at("a conversion");
            let mut own = world.hold(1 << 50..(1 << 50) + 100, Mode::Exclusive);
            assert!(own.try_extend(1 << 50..(1 << 50) + 200));
            churn.go_on();
            drop(own.split((1 << 50) + 50));
            at("a search");
            let mut nested = Hand::new(world.a.request(PLACE, Mode::Exclusive).owner(&other));
            nested.pending();
            churn.go_on();
            at("a deadlock");
            let mut closing = Hand::new(world.b.request(200..300, Mode::Add).owner(&one));
            let mut answer = closing.poll();
            // Somebody who came before, and is about to draw his ticket, may have to be through.
            while answer.is_pending() {
                churn.go_on();
                if closing.woken() {
                    answer = closing.poll();
                }
            }
            assert!(matches!(answer, Poll::Ready(Err(_))));
            first.pending();
            second.pending();

            at("a conversion of what they ask for");
            let bar = world.a.state().tree.bar();
            let converting = scope.spawn(move || holder.split(50));
            while world.a.state().tree.bar() == bar && !converting.is_finished() {
                thread::yield_now();
            }
            // It waits for those who are here by now, at the most.
            churn.renew();
            let (head, tail) = converting.join().unwrap();

            at("a hand-over");
            drop(head);
            churn.go_on();
            first.pending();
            drop(tail);
            assert!(first.woken());
            churn.go_on();
            let guard = first.ready();
            churn.go_on();
            second.pending();
            nested.pending();
            drop(guard);
            assert!(second.woken());
            churn.go_on();
            let guard = second.ready();
            churn.go_on();
            nested.pending();
            drop(guard);
            // That one came later than some of them, and waits for whoever of these is in its way.
            let mut answer = nested.poll();
            while answer.is_pending() {
                churn.go_on();
                if nested.woken() {
                    answer = nested.poll();
                }
            }
            drop((answer, elsewhere, crowd));
            at("the end");
            churn.end();
        });
        at("all is free");
        assert!([world.a, world.b].iter().all(|lock| lock.try_exclusive(..).is_some()));
    }
}

impl Stage {
    /// The lines of the library where a thread could be stopped, and was not.
    fn unseen(&mut self) -> Vec<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        sources(&root.join("src"), &mut files);
        let mut unseen = Vec::new();
        for path in files {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            let text = fs::read_to_string(&path).unwrap();
            let lines: Vec<_> = text.lines().collect();
            let elsewhere = built_elsewhere(&lines);
            for (at, line) in lines.iter().enumerate().filter(|(at, _)| !elsewhere[*at]) {
                let number = at as u32 + 1;
                let here = is_step(line, &lines[at + 1..lines.len().min(at + 7)]);
                let above = lines[at.saturating_sub(1)];
                let is_meant = |text| line.contains(text) || above.contains(text);
                let known = UNSEEN.iter().any(|&(file, text, _)| name.ends_with(file) && is_meant(text));
                if here && !known && !self.seen.iter().any(|&(file, line)| line == number && name.ends_with(file)) {
                    unseen.push(format!("{name}:{number}: {}", line.trim()));
                }
            }
        }
        unseen
    }
}

/// Which lines are not of the library itself: of models, tests and fuzz targets, as the attribute in front of an item
/// says; and those of `Debug`.
fn built_elsewhere(lines: &[&str]) -> Vec<bool> {
    let mut elsewhere = vec![false; lines.len()];
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at].trim_start();
        let without = line.split("not(").next().unwrap_or_default();
        let is_cfg = line.starts_with("#[cfg(")
            && ["test", "loom", "shuttle", "fuzzing"].iter().any(|word| without.contains(word));
        if !is_cfg && !line.contains("fmt::Debug for") {
            at += 1;
            continue;
        }
        let mut depth = 0;
        loop {
            let line = lines[at];
            elsewhere[at] = true;
            depth += line.matches('{').count() as isize - line.matches('}').count() as isize;
            at += 1;
            let is_attribute = line.trim_start().starts_with("#[") || line.trim_start().starts_with("//");
            if at == lines.len() || !is_attribute && depth == 0 && (line.contains(';') || line.contains('}')) {
                break;
            }
        }
    }
    elsewhere
}

/// Whether there is an access in this line. `next` are those that follow.
fn is_step(line: &str, next: &[&str]) -> bool {
    let code = line.trim_start();
    if code.starts_with("//") || code.starts_with("use ") || code.starts_with("pub(crate) use ") {
        return false;
    }
    let calls = [
        "load(",
        "store(",
        "swap(",
        "compare_exchange(",
        "compare_exchange_weak(",
        "fetch_add(",
        "fetch_sub(",
        "fetch_or(",
        "fetch_and(",
    ];
    let is_access = calls.iter().any(|call| {
        code.find(&format!(".{call}")).is_some_and(|at| {
            let rest = &code[at + call.len() + 1..];
            rest.contains("Ordering::") || !rest.contains(')') && next.iter().any(|line| line.contains("Ordering::"))
        })
    });
    let is_call = |name: &str| {
        code.match_indices(name)
            .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || "_.:".contains(c)))
            && !code.contains(&format!("fn {name}"))
    };
    is_access || is_call("fence(") || is_call("lock(") || is_call("publish(")
}

/// The files of the library itself.
fn sources(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    const OUTSIDE: [&str; 9] = ["models", "tests", "bare", "fuzzing", "sync", "model", "stats", "processors", "table"];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.file_stem().is_some_and(|name| OUTSIDE.iter().any(|outside| name == *outside)) {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}
