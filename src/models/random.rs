//! Random schedules of the whole lock, by shuttle: scenes that are too large for loom, which tries all orders of small
//! ones.
//!
//! Run: `RUSTFLAGS="--cfg spanlock_shuttle" cargo test --release --lib models::`
//!
//! | variable | says |
//! |---|---|
//! | `SPANLOCK_SHUTTLE_ITERATIONS` | schedules of each scene (20,000) |
//! | `SPANLOCK_SHUTTLE_SEED` | what all of them are drawn from; else another one each time, which is printed |
//! | `SPANLOCK_SHUTTLE_REPLAY` | a file with the one schedule to run: what a scene that failed has printed between the quotes (name that scene's test too) |
//!
//! A node has two slots and two cells here, every second claim of a slot looks at the tree's shape, and a node has one
//! chance: so that few requests make the tree grow, splice, chain and prune. What the threads ask for is drawn by
//! shuttle too, and so is replayed with the schedule.
//!
//! What each scene checks:
//! - Who is granted writes himself down, and looks whether somebody is written down whom he conflicts with ([`Book`]).
//! - Everybody is granted in the end: threads that are left asleep are a deadlock, which shuttle reports.
//! - Who is refused is in a cycle of the waits and holds that are written down, or was told of a poisoned holder who is
//!   in its way ([`Marks`]).
//! - When a drain is over, who was written down when it began has been struck out ([`Book::watch`]).
//! - Nothing is left behind: no request, and after a trim no node.
//!
//! What this cannot see: shuttle's schedules are sequentially consistent, so all that is said of orderings is loom's to
//! check; time stands still, and a deadline passes when it is looked at; nobody spins; futures are not modelled; and
//! the epoch is the real one, but all threads of a schedule share one pin (see `reclaim`), so a node that is freed too
//! early is rarely noticed.

use crate::facts::error::{AcquireError, Poisoned};
use crate::facts::mode::Mode::{self, Add, Block, Exclusive};
use crate::facts::owner::Owner;
use crate::facts::range::ByteRange;
use crate::protocol::drain::{Begun, Drain};
use crate::protocol::grant;
use crate::protocol::lock_state::Ask;
use crate::surface::batch::Batch;
use crate::surface::guard::RangeGuard;
use crate::surface::lock::RangeLock;
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::sync::Barrier;
use shuttle::sync::atomic::AtomicU8;
use shuttle::{Config, MaxSteps, Runner, thread};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs};

/// Change points of the priorities, and one: how many preemptions a bug may need for PCT to have a fair chance of
/// finding it.
const DEPTHS: [usize; 2] = [3, 6];

/// Steps after which a schedule is taken for one without an end.
const STEPS: usize = 200_000;

fn from_env<T: FromStr>(name: &str) -> Option<T> {
    let said = env::var(name).ok()?;
    Some(said.parse().unwrap_or_else(|_| panic!("{name}={said}: a number is wanted")))
}

/// Plays `scene` in many schedules: half of them random, half by priorities that change at a few random steps.
fn check(scene: fn()) {
    if let Ok(file) = env::var("SPANLOCK_SHUTTLE_REPLAY") {
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("SPANLOCK_SHUTTLE_REPLAY={file}: {error}"));
        return run("replay", 0, ReplayScheduler::new_from_encoded(text.trim()), scene);
    }
    let schedules = from_env("SPANLOCK_SHUTTLE_ITERATIONS").unwrap_or(20_000);
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    let seed = from_env("SPANLOCK_SHUTTLE_SEED").unwrap_or_else(now);
    for (index, depth) in DEPTHS.into_iter().enumerate() {
        let part = schedules / 2 / DEPTHS.len();
        let scheduler = PctScheduler::new_from_seed(seed + index as u64, depth, part.max(1));
        run(&format!("priorities, depth {depth}"), seed, scheduler, scene);
    }
    run("random", seed, RandomScheduler::new_from_seed(seed, schedules.div_ceil(2)), scene);
}

fn run(how: &str, seed: u64, scheduler: impl Scheduler + 'static, scene: fn()) {
    let mut config = Config::new();
    config.max_steps = MaxSteps::FailAfter(STEPS);
    config.silence_warnings = true;
    config.stack_size = 1 << 18;
    // Whoever is left alone by a failure would fail once more, and that would end the process.
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;
    let played = Arc::new(AtomicU64::new(0));
    let report = Report { how, seed, begin: Instant::now(), played: Arc::clone(&played) };
    Runner::new(scheduler, config).run(move || {
        played.fetch_add(1, SeqCst);
        scene();
    });
    drop(report);
}

/// Says how many schedules were played, also if one failed.
struct Report<'a> {
    how: &'a str,
    seed: u64,
    begin: Instant,
    played: Arc<AtomicU64>,
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        let played = self.played.load(SeqCst);
        let end = if std::thread::panicking() { "FAILED, the last of" } else { "passed:" };
        let took = self.begin.elapsed().as_secs_f64();
        println!("{end} {played} schedules ({}), {took:.1} s, SPANLOCK_SHUTTLE_SEED={}", self.how, self.seed);
    }
}

/// The bytes that ranges begin and end at: close to one another, on both sides of the border between the root's cells,
/// and the last of all.
const POINTS: [u64; 6] = [0, 1, 2, (1 << 63) - 1, 1 << 63, u64::MAX];

/// A range, by the indices of the first and the last of its points. Two ranges share a byte exactly if they share a
/// point.
type Span = RangeInclusive<usize>;

fn bytes(span: &Span) -> RangeInclusive<u64> {
    POINTS[*span.start()]..=POINTS[*span.end()]
}

fn draw(below: usize) -> usize {
    thread_rng().gen_range(0..below)
}

fn any_span() -> Span {
    let (one, other) = (draw(POINTS.len()), draw(POINTS.len()));
    one.min(other)..=one.max(other)
}

fn any_mode() -> Mode {
    [Add, Block, Exclusive, Exclusive][draw(4)]
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

/// A request that is granted, or waits.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    who: usize,
    lock: usize,
    span: Span,
    mode: Mode,
}

impl Entry {
    fn meets(&self, other: &Entry) -> bool {
        let shared = self.span.start().max(other.span.start()) <= self.span.end().min(other.span.end());
        self.lock == other.lock && self.who != other.who && shared && !self.mode.goes_with(other.mode)
    }
}

/// Who holds and who waits, as the threads themselves see it: entered after a grant, struck out before a release. It
/// has no steps of its own for shuttle to come between; [`Book::stay`] is one.
#[derive(Debug, Default)]
struct Book {
    holds: Mutex<Vec<Entry>>,
    waits: Mutex<Vec<Entry>>,
    /// What was written down whenever somebody was refused.
    refusals: Mutex<Vec<Picture>>,
    /// For each drain, what it is about, and who is there still of those whom it has to wait for.
    drains: Mutex<Vec<(Entry, Vec<Entry>)>>,
    steps: AtomicU8,
}

/// A book at some moment.
#[derive(Debug)]
struct Picture {
    holds: Vec<Entry>,
    waits: Vec<Entry>,
}

impl Picture {
    /// Whether `entry` waits for somebody who waits, and so on, for what its owner holds.
    fn has_cycle(&self, entry: &Entry) -> bool {
        let (mut reached, mut next) = (Vec::new(), vec![entry]);
        while let Some(wait) = next.pop() {
            for hold in self.holds.iter().filter(|hold| hold.meets(wait)) {
                if hold.who == entry.who {
                    return true;
                }
                if !reached.contains(&hold.who) {
                    reached.push(hold.who);
                    next.extend(self.waits.iter().filter(|wait| wait.who == hold.who));
                }
            }
        }
        false
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn strike(list: &Mutex<Vec<Entry>>, entry: &Entry) {
    let mut list = locked(list);
    let at = list.iter().position(|other| other == entry).expect("it was entered");
    list.swap_remove(at);
}

impl Book {
    fn enter(&self, entry: Entry) {
        let mut holds = locked(&self.holds);
        if let Some(other) = holds.iter().find(|other| other.meets(&entry)) {
            panic!("{entry:?} was granted beside {other:?}");
        }
        holds.push(entry);
    }

    fn leave(&self, entry: &Entry) {
        strike(&self.holds, entry);
        for (_, left) in locked(&self.drains).iter_mut() {
            left.retain(|other| other != entry);
        }
    }

    fn rewrite(&self, held: &mut Entry, new: Entry) {
        // A drain that waits for the one waits for what it becomes.
        for (asked, left) in locked(&self.drains).iter_mut() {
            if left.contains(held) && new.meets(asked) {
                left.push(new.clone());
            }
        }
        self.leave(held);
        self.enter(new.clone());
        *held = new;
    }

    /// A drain of what `asked` is about begins. Its number here.
    fn watch(&self, asked: &Entry) -> usize {
        let left = locked(&self.holds).iter().filter(|held| held.meets(asked)).cloned().collect();
        let mut drains = locked(&self.drains);
        drains.push((asked.clone(), left));
        drains.len() - 1
    }

    /// That one is over.
    fn assert_drained(&self, drain: usize) {
        let (asked, left) = &locked(&self.drains)[drain];
        assert!(left.is_empty(), "{asked:?} was drained, and there are {left:?}");
    }

    /// A moment inside, in which others may come.
    fn stay(&self) {
        self.steps.load(SeqCst);
    }

    fn picture(&self) -> Picture {
        Picture { holds: locked(&self.holds).clone(), waits: locked(&self.waits).clone() }
    }

    /// Whether `entry`, which is refused, is in a cycle. All others in it are asleep, so that what they wait for and
    /// hold is written down; unless one of them was in a second cycle, and has been refused in the meantime. Then all
    /// was still there when that was written down, after the first `since`.
    fn is_in_cycle(&self, entry: &Entry, since: usize) -> bool {
        let then = &locked(&self.refusals)[since..];
        self.picture().has_cycle(entry) || then.iter().any(|picture| picture.has_cycle(entry))
    }

    /// Strikes out a wait that has been refused.
    fn refuse(&self, wait: &Entry) {
        locked(&self.refusals).push(self.picture());
        strike(&self.waits, wait);
    }
}

/// What a scene plays with: locks, and the book that is kept of them.
#[derive(Debug, Default)]
struct Stage {
    locks: [RangeLock; 3],
    book: Book,
}

/// Whether a request was granted, and the guard was let go again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Granted,
    GaveUp,
    /// And so many had been refused when it asked.
    Refused {
        since: usize,
    },
}

/// How a request is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Wait,
    Try,
    Deadline,
}

impl Stage {
    /// Asks for `entry`, and if it is granted does `inside` what is to be done before it is let go. `token` is who
    /// asks, if it is not the thread.
    fn take(&self, entry: &Entry, how: How, token: Option<&Owner>, inside: impl FnOnce()) -> Answer {
        let request = self.locks[entry.lock].request(bytes(&entry.span), entry.mode);
        locked(&self.book.waits).push(entry.clone());
        let since = locked(&self.book.refusals).len();
        // `None`: not at once.
        let answer = match (token, how) {
            (None, How::Wait) => Some(request.wait().map(|guard| self.hold(guard, entry, inside))),
            (None, How::Deadline) => Some(request.deadline(soon()).wait().map(|guard| self.hold(guard, entry, inside))),
            (None, How::Try) => request.try_now().map(|guard| Ok(self.hold(guard, entry, inside))),
            (Some(token), How::Wait) => Some(request.owner(token).wait().map(|guard| self.hold(guard, entry, inside))),
            (Some(token), How::Deadline) => {
                Some(request.owner(token).deadline(soon()).wait().map(|guard| self.hold(guard, entry, inside)))
            }
            (Some(token), How::Try) => request.owner(token).try_now().map(|guard| Ok(self.hold(guard, entry, inside))),
        };
        match answer {
            Some(Ok(())) => Answer::Granted,
            None | Some(Err(AcquireError::TimedOut(_))) => {
                assert_ne!(how, How::Wait, "it has no deadline");
                strike(&self.book.waits, entry);
                Answer::GaveUp
            }
            Some(Err(AcquireError::Deadlock(_))) => Answer::Refused { since },
            Some(Err(other)) => panic!("{other}"),
        }
    }

    /// The granted part of `take`.
    fn hold<G>(&self, guard: G, entry: &Entry, inside: impl FnOnce()) {
        strike(&self.book.waits, entry);
        self.book.enter(entry.clone());
        self.book.stay();
        inside();
        self.book.leave(entry);
        drop(guard);
    }

    /// The tickets of those who are queued, and in conflict with `asked`.
    fn queue(&self, asked: &Entry) -> Vec<u64> {
        let range = ByteRange::new(bytes(&asked.span));
        let rows = grant::rows(self.locks[asked.lock].state());
        let in_the_way = rows
            .iter()
            .filter(|row| range.overlaps(ByteRange::new(row.start..=row.last)) && !asked.mode.goes_with(row.mode));
        in_the_way.filter_map(|row| Some(row.place.as_ref()?.ticket)).collect()
    }

    /// `asked` is granted, before which there was this `queue`: nobody who was in it waits any more.
    fn assert_in_turn(&self, queue: &[u64]) {
        let rows = grant::rows(self.locks[0].state());
        let waits = |ticket| rows.iter().any(|row| row.place.as_ref().is_some_and(|place| place.ticket == ticket));
        assert!(!queue.iter().any(|&ticket| waits(ticket)), "who came first waits still");
    }

    /// For one that waits, and holds nothing else.
    fn visit(&self, entry: &Entry) {
        assert_eq!(self.take(entry, How::Wait, None, || ()), Answer::Granted, "{entry:?} waits for nobody who waits");
    }

    /// If it was refused, that must have been with reason. (Until now it was in the list of waits, for others to be
    /// judged by.) Whether it was.
    fn judge(&self, answer: Answer, entry: &Entry) -> bool {
        let Answer::Refused { since } = answer else { return false };
        let book = &self.book;
        assert!(book.is_in_cycle(entry, since), "{entry:?} was refused, and is in no cycle of {book:#?}");
        book.refuse(entry);
        true
    }

    /// Everyone has ended: nothing may be left behind.
    fn assert_idle(&self) {
        for lock in &self.locks {
            assert_eq!(lock.snapshot().requests().len(), 0, "a request was left behind");
            lock.trim();
            assert_eq!(lock.heap_nodes(), 0, "a node was left behind");
        }
    }
}

/// Has so many threads play at once, each of which gets its number, and looks at what they leave.
fn play(threads: usize, part: impl Fn(&Stage, usize) + Sync) {
    let stage = Stage::default();
    play_on(&stage, threads, part);
    stage.assert_idle();
}

/// The same with nodes below the root, for the points of its lower half.
fn play_below_the_root(threads: usize, part: impl Fn(&Stage, usize) + Sync) {
    let stage = Stage::default();
    drop(fill_the_root(&stage));
    play_on(&stage, threads, part);
    stage.assert_idle();
}

/// The same, and the root has no room as long as they play.
fn play_below_a_full_root(threads: usize, part: impl Fn(&Stage, usize) + Sync) {
    let stage = Stage::default();
    let crowd = fill_the_root(&stage);
    play_on(&stage, threads, part);
    drop(crowd);
    stage.assert_idle();
}

/// Takes all slots of the root, far away from the points of its lower half, for which it then grows nodes.
fn fill_the_root(stage: &Stage) -> [RangeGuard<'_>; 2] {
    let lock = &stage.locks[0];
    let crowd = [4, 5].map(|point| lock.add(POINTS[point]..=POINTS[point]));
    (0..3).for_each(|point| drop(lock.add(POINTS[point]..=POINTS[point])));
    crowd
}

fn play_on(stage: &Stage, threads: usize, part: impl Fn(&Stage, usize) + Sync) {
    let part = &part;
    thread::scope(|scope| {
        for who in 0..threads {
            scope.spawn(move || part(stage, who));
        }
    });
}

fn entry(who: usize, span: Span, mode: Mode) -> Entry {
    Entry { who, lock: 0, span, mode }
}

fn any_entry(who: usize) -> Entry {
    entry(who, any_span(), any_mode())
}

/// Five at one byte, twice each: registrations, releases and grants at one slot's words.
#[test]
fn a_crowd_at_one_byte() {
    check(|| {
        play(5, |stage, who| {
            for _ in 0..2 {
                stage.visit(&entry(who, 0..=0, any_mode()));
            }
        });
    });
}

/// Ranges of all sizes: growth, splices, chains, and the pruning that comes with growth.
#[test]
fn ranges_of_all_sizes() {
    check(|| {
        play(4, |stage, who| {
            for _ in 0..3 {
                stage.visit(&any_entry(who));
            }
        });
    });
}

/// The same, while one thread gives nodes back all the time.
#[test]
fn trims_beside_growth() {
    check(|| {
        play(5, |stage, who| {
            for _ in 0..3 {
                match who {
                    0 => stage.locks[0].trim(),
                    _ => stage.visit(&any_entry(who)),
                }
            }
        });
    });
}

/// Points close together, so that leaves are made and removed where somebody arrives: who claims in a frozen node
/// withdraws.
#[test]
fn trims_below_waiters() {
    check(|| {
        play(5, |stage, who| {
            for _ in 0..3 {
                let first = draw(3);
                match who {
                    0 => stage.locks[0].trim(),
                    1 => stage.visit(&entry(who, 0..=4, any_mode())),
                    _ => stage.visit(&entry(who, first..=first + draw(3 - first), any_mode())),
                }
            }
        });
    });
}

/// Has a thread get a shortcut: it takes its own point in one mode, as often as that needs if nobody comes in between.
fn settle(stage: &Stage, who: usize) {
    let asked = entry(who, who..=who, any_mode());
    (0..5).for_each(|_| stage.visit(&asked));
}

/// One's own point again, and now and then the neighbour's too; nobody who is queued by then is overtaken.
fn be_at_home(stage: &Stage, who: usize, times: usize) {
    for _ in 0..times {
        let span = if draw(4) == 0 { 0..=1 } else { who..=who };
        let asked = entry(who, span, any_mode());
        let queue = stage.queue(&asked);
        stage.take(&asked, How::Wait, None, || stage.assert_in_turn(&queue));
    }
}

/// One at home, and one who comes by when that one has a shortcut: few steps, so that each of the one meets each of the
/// other's.
#[test]
fn a_home_and_a_visitor() {
    check(|| {
        let settled = Barrier::new(2);
        play_below_the_root(2, |stage, who| {
            if who == 0 {
                settle(stage, who);
                settled.wait();
                return stage.visit(&entry(who, 0..=0, any_mode()));
            }
            settled.wait();
            let asked = entry(who, 0..=2 + draw(3), any_mode());
            stage.take(&asked, [How::Wait, How::Try][draw(2)], None, || ());
        });
    });
}

/// One who waits behind a holder elsewhere for what somebody takes again and again who has a shortcut: whoever begins
/// then is behind him.
#[test]
fn a_home_and_one_who_waits() {
    check(|| {
        let settled = Barrier::new(3);
        play_below_the_root(3, |stage, who| match who {
            0 => {
                settle(stage, who);
                settled.wait();
                be_at_home(stage, who, 2);
            }
            1 => {
                stage.take(&entry(who, 3..=4, Add), How::Wait, None, || {
                    settled.wait();
                    (0..draw(20)).for_each(|_| stage.book.stay());
                });
            }
            _ => {
                settled.wait();
                stage.visit(&entry(who, 0..=4, Exclusive));
            }
        });
    });
}

/// Two at home, and two who come by with ranges of all sizes.
#[test]
fn homes_and_visitors() {
    check(|| {
        let settled = Barrier::new(4);
        play_below_the_root(4, |stage, who| {
            if who < 2 {
                settle(stage, who);
            }
            settled.wait();
            match who {
                0 | 1 => be_at_home(stage, who, 3),
                _ => (0..2).for_each(|_| stage.visit(&any_entry(who))),
            }
        });
    });
}

/// The same, and what the others hold changes, or they give up, or give nodes back.
#[test]
fn homes_and_visitors_who_change() {
    check(|| {
        let settled = Barrier::new(4);
        play_below_the_root(4, |stage, who| {
            if who < 2 {
                settle(stage, who);
            }
            settled.wait();
            match who {
                0 | 1 => be_at_home(stage, who, 3),
                2 => change(stage, any_entry(who)),
                _ => {
                    for _ in 0..2 {
                        let how = [How::Wait, How::Try, How::Deadline];
                        match draw(4) {
                            3 => stage.locks[0].trim(),
                            at => _ = stage.take(&any_entry(who), how[at], None, || ()),
                        }
                    }
                }
            }
        });
    });
}

/// Nodes that are removed all the time, and made anew: one at home in them, and one who wants the same point, and more.
#[test]
fn homes_that_are_removed() {
    check(|| {
        let settled = Barrier::new(3);
        play_below_a_full_root(3, |stage, who| {
            if who == 0 {
                settle(stage, who);
            }
            settled.wait();
            match who {
                0 => be_at_home(stage, who, 3),
                1 => (0..2).for_each(|_| stage.visit(&entry(who, 0..=draw(3), Exclusive))),
                _ => (0..3).for_each(|_| stage.locks[0].trim()),
            }
        });
    });
}

/// Some give up: tries that withdraw, and deadlines that pass while somebody stands behind.
#[test]
fn some_give_up() {
    check(|| {
        play(5, |stage, who| {
            for _ in 0..3 {
                let how = [How::Wait, How::Try, How::Deadline][draw(3)];
                let asked = any_entry(who);
                let answer = stage.take(&asked, how, None, || ());
                assert!(!stage.judge(answer, &asked), "it holds nothing else");
            }
        });
    });
}

/// The same at one byte, with a holder that stays until all the others have been granted: a wake-up that comes only
/// with its release is too late. Adders are among them, who go with it.
#[test]
fn who_gives_up_wakes_who_may_go_on() {
    check(|| {
        let (adders, done) = (3, Barrier::new(4));
        play(5, |stage, who| match who {
            0 => {
                stage.take(&entry(who, 0..=0, Add), How::Wait, None, || {
                    done.wait();
                });
            }
            _ if who <= adders => {
                stage.visit(&entry(who, 0..=draw(2), Add));
                done.wait();
            }
            _ => {
                for _ in 0..2 {
                    let how = [How::Try, How::Deadline][draw(2)];
                    stage.take(&entry(who, 0..=draw(2), Exclusive), how, None, || ());
                }
            }
        });
    });
}

/// Holds that change while others wait for them.
#[test]
fn holds_that_change() {
    check(|| {
        play(4, |stage, who| {
            for _ in 0..2 {
                change(stage, any_entry(who));
            }
        });
    });
}

/// Takes `held`, changes it once or twice, and lets it go.
fn change(stage: &Stage, mut held: Entry) {
    let mut guard = stage.locks[0].request(bytes(&held.span), held.mode).wait().expect("it holds nothing else");
    stage.book.enter(held.clone());
    for _ in 0..=draw(2) {
        guard = match draw(5) {
            0 if held.mode == Exclusive => downgraded(&stage.book, guard, &mut held),
            1 => shrunk(&stage.book, guard, &mut held),
            2 => split(&stage.book, guard, &mut held),
            3 => converted(&stage.book, guard, &mut held),
            _ => extended(&stage.book, guard, &mut held),
        };
        stage.book.stay();
    }
    stage.book.leave(&held);
    drop(guard);
}

// In all of them: what is held less is struck out before, what is held more is entered behind.

fn downgraded<'l>(book: &Book, mut guard: RangeGuard<'l>, held: &mut Entry) -> RangeGuard<'l> {
    let mode = [Add, Block][draw(2)];
    book.rewrite(held, Entry { mode, ..held.clone() });
    guard.downgrade(mode);
    guard
}

fn shrunk<'l>(book: &Book, mut guard: RangeGuard<'l>, held: &mut Entry) -> RangeGuard<'l> {
    let (first, last) = (*held.span.start(), *held.span.end());
    let from = first + draw(last - first + 1);
    book.rewrite(held, Entry { span: from..=from + draw(last - from + 1), ..held.clone() });
    guard.shrink(bytes(&held.span));
    guard
}

/// Splits it, and lets one of the two go.
fn split<'l>(book: &Book, guard: RangeGuard<'l>, held: &mut Entry) -> RangeGuard<'l> {
    let (first, last) = (*held.span.start(), *held.span.end());
    if first == last {
        return guard;
    }
    let at = first + 1 + draw(last - first);
    let (head, tail) = guard.split(POINTS[at]);
    book.stay();
    let (span, mut kept, gone) = if draw(2) == 0 { (first..=at - 1, head, tail) } else { (at..=last, tail, head) };
    book.rewrite(held, Entry { span, ..held.clone() });
    drop(gone);
    // The first part ends before the next point, not at its last one.
    kept.shrink(bytes(&held.span));
    kept
}

fn converted<'l>(book: &Book, mut guard: RangeGuard<'l>, held: &mut Entry) -> RangeGuard<'l> {
    let mode = any_mode();
    if mode == held.mode {
        assert!(guard.try_convert(mode), "nothing changes");
    } else if mode == Exclusive {
        if guard.try_convert(mode) {
            book.rewrite(held, Entry { mode, ..held.clone() });
        }
    } else {
        // It becomes weaker at some moment of the call.
        book.leave(held);
        if guard.try_convert(mode) {
            held.mode = mode;
        }
        book.enter(held.clone());
    }
    guard
}

fn extended<'l>(book: &Book, mut guard: RangeGuard<'l>, held: &mut Entry) -> RangeGuard<'l> {
    let (first, last) = (*held.span.start(), *held.span.end());
    let span = draw(first + 1)..=last + draw(POINTS.len() - last);
    if guard.try_extend(bytes(&span)) {
        book.rewrite(held, Entry { span, ..held.clone() });
    }
    guard
}

/// A split, both parts of which stay for a while, beside those who wait for the whole or arrive: whoever is looking
/// meanwhile may miss the second part, which was not there yet, and the first, which has shrunk.
#[test]
fn a_split_beside_waiters() {
    check(|| {
        play(4, |stage, who| {
            if who > 0 {
                return stage.visit(&entry(who, draw(2)..=2 + draw(2), any_mode()));
            }
            let whole = entry(who, 0..=3, any_mode());
            let guard = stage.locks[0].request(bytes(&whole.span), whole.mode).wait().expect("it holds nothing else");
            stage.book.enter(whole.clone());
            let at = 1 + draw(3);
            let (head, tail) = guard.split(POINTS[at]);
            stage.book.stay();
            stage.book.leave(&whole);
            // One goes first, the other stays.
            let (rest, kept, gone) = if draw(2) == 0 { (0..=at - 1, head, tail) } else { (at..=3, tail, head) };
            let rest = entry(who, rest, whole.mode);
            stage.book.enter(rest.clone());
            drop(gone);
            stage.book.stay();
            stage.book.leave(&rest);
            drop(kept);
        });
    });
}

/// One who holds asks for more, where somebody else holds, and behind one who waits for both: that one is passed, and
/// must mind it when he is granted.
#[test]
fn one_who_is_passed() {
    check(|| {
        play(4, |stage, who| match who {
            0 | 1 => {
                let outer = entry(who, who..=who, any_mode());
                stage.take(&outer, How::Wait, None, || stage.visit(&entry(who, 2..=2, any_mode())));
            }
            2 => stage.visit(&entry(who, draw(2)..=2, any_mode())),
            _ => stage.visit(&entry(who, 2..=2, any_mode())),
        });
    });
}

/// Nested requests that all threads make in one order of the points: nobody waits in a circle, so nobody is refused;
/// but without passes some would hang, because who comes later and is nested may have to be let past.
#[test]
fn nested_in_one_order() {
    check(|| {
        play(4, |stage, who| {
            let first = draw(3);
            let (outer, inner) =
                (entry(who, first..=first, any_mode()), entry(who, first + 1..=3 + draw(2), any_mode()));
            stage.take(&outer, How::Wait, None, || stage.visit(&inner));
        });
    });
}

/// Nested requests in any order, of threads and of tokens: some are refused, and each of them is in a cycle.
#[test]
fn nested_in_any_order() {
    check(|| {
        play(4, |stage, who| {
            let token = (draw(2) == 0).then(Owner::new);
            nest(stage, who, token.as_ref(), 2, || Entry { lock: draw(2), ..entry(who, any_span(), any_mode()) });
        });
    });
}

/// The same in three locks, of which they want a byte each: searches that go on at once come to one another's locks, in
/// any order.
#[test]
fn nested_in_three_locks() {
    check(|| {
        play(5, |stage, who| {
            let token = (draw(2) == 0).then(Owner::new);
            let mode = || [Add, Exclusive, Exclusive][draw(3)];
            nest(stage, who, token.as_ref(), 2, || Entry { lock: draw(3), ..entry(who, 1..=1, mode()) });
        });
    });
}

/// A request, and `depth` more inside of it.
fn nest(stage: &Stage, who: usize, token: Option<&Owner>, depth: usize, any: impl Fn() -> Entry + Copy) {
    let asked = any();
    let answer = stage.take(&asked, How::Wait, token, || {
        if depth > 0 {
            nest(stage, who, token, depth - 1, any);
        }
    });
    stage.judge(answer, &asked);
}

/// Three in a ring, each of which holds a point and asks for the next one's, and two who come in between: one of the
/// three is refused, and one only.
#[test]
fn rings_of_three() {
    check(|| {
        let (all_hold, refusals) = (Barrier::new(5), AtomicU64::new(0));
        play(5, |stage, who| {
            if who >= 3 {
                // Not before: in the queue he would keep the others from holding, and they this one from having them
                // wait.
                all_hold.wait();
                return stage.visit(&entry(who, any_span(), any_mode()));
            }
            let token = (draw(2) == 0).then(Owner::new);
            stage.take(&entry(who, who..=who, Exclusive), How::Wait, token.as_ref(), || {
                all_hold.wait();
                let next = (who + 1) % 3;
                let asked = entry(who, next..=next, any_mode());
                if stage.judge(stage.take(&asked, How::Wait, token.as_ref(), || ()), &asked) {
                    refusals.fetch_add(1, SeqCst);
                }
            });
        });
        assert_eq!(refusals.into_inner(), 1, "one of the ring is refused");
    });
}

/// Batches whose parts cross in two locks, beside single requests: all or nothing, and nobody is refused.
#[test]
fn batches_that_cross() {
    check(|| {
        play(4, |stage, who| {
            for _ in 0..2 {
                let parts: Vec<Entry> =
                    (0..=draw(3)).map(|_| Entry { lock: draw(2), ..entry(who, any_span(), any_mode()) }).collect();
                let batch = parts.iter().fold(Batch::new(), |batch, part| {
                    batch.request(&stage.locks[part.lock], bytes(&part.span), part.mode)
                });
                let granted = match draw(4) {
                    0 => batch.try_now(),
                    1 => batch.deadline(soon()).wait().ok(),
                    _ => Some(batch.wait().expect("it holds nothing else")),
                };
                if let Some(guard) = granted {
                    parts.iter().for_each(|part| stage.book.enter(part.clone()));
                    stage.book.stay();
                    parts.iter().for_each(|part| stage.book.leave(part));
                    drop(guard);
                }
            }
        });
    });
}

/// Two tokens, each of which asks on two threads at the same time, one request nested in the other or beside it; and a
/// thread. Which of a token's requests is refused depends on what the other does meanwhile, so it is not judged here.
#[test]
fn tokens_on_two_threads() {
    check(|| {
        let tokens = [Owner::new(), Owner::new()];
        play(5, |stage, who| {
            let token = tokens.get(who / 2);
            // One owner, one name: what a token holds on one thread does not conflict with what it holds on the other.
            let (who, how) = (who / 2, [How::Wait, How::Wait, How::Try, How::Deadline][draw(4)]);
            let (outer, inner) = (entry(who, any_span(), any_mode()), entry(who, any_span(), any_mode()));
            let settle = |answer: Answer, asked: &Entry| {
                if let Answer::Refused { .. } = answer {
                    stage.book.refuse(asked);
                }
            };
            let answer = stage.take(&outer, How::Wait, token, || {
                settle(stage.take(&inner, how, token, || ()), &inner);
            });
            settle(answer, &outer);
        });
    });
}

/// What was said of poisoned holders: each reason is a number, of which no two are equal.
#[derive(Debug, Default)]
struct Marks(Mutex<Vec<Mark>>);

/// Whether what was said with this number is still said of anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Stands,
    Over,
}

impl Marks {
    /// Somebody is about to be poisoned for this reason.
    fn say(&self) -> usize {
        let mut marks = locked(&self.0);
        marks.push(Mark::Stands);
        marks.len() - 1
    }

    /// All that was said so has been taken back, or has gone.
    fn is_over(&self, reasons: &mut Vec<usize>) {
        let mut marks = locked(&self.0);
        reasons.drain(..).for_each(|reason| marks[reason] = Mark::Over);
    }

    fn picture(&self) -> Vec<Mark> {
        locked(&self.0).clone()
    }

    /// `asked` was refused, before which there were these marks: somebody was poisoned for the reason that it was told,
    /// and in its way.
    fn judge(&self, before: &[Mark], asked: &Entry, poisoned: &Poisoned) {
        let reason: usize = poisoned.reason().parse().expect("a reason is a number here");
        assert!(reason < locked(&self.0).len());
        assert_ne!(
            before.get(reason),
            Some(&Mark::Over),
            "{asked:?} was refused for what has been taken back: {poisoned}"
        );
        let is_in_the_way = poisoned.range().overlaps(ByteRange::new(bytes(&asked.span)));
        assert!(is_in_the_way && !poisoned.mode().goes_with(asked.mode), "{asked:?} was refused for {poisoned}");
    }

    /// Asks for `asked`, and may be refused; holds it while `inside` goes on, if it is not. Whether it was granted.
    fn dare(&self, stage: &Stage, asked: &Entry, inside: impl FnOnce(RangeGuard<'_>, Entry)) -> bool {
        let before = self.picture();
        match stage.locks[0].request(bytes(&asked.span), asked.mode).wait() {
            Ok(guard) => {
                stage.book.enter(asked.clone());
                stage.book.stay();
                inside(guard, asked.clone());
                true
            }
            Err(AcquireError::Poisoned(poisoned)) => {
                self.judge(&before, asked, &poisoned);
                false
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn visit(&self, stage: &Stage, asked: &Entry) -> bool {
        self.dare(stage, asked, |guard, held| {
            stage.book.leave(&held);
            drop(guard);
        })
    }

    /// Drains what `asked` is about, and may be refused. Whether it was not.
    fn drain(&self, stage: &Stage, asked: &Entry) -> bool {
        let (before, drain) = (self.picture(), stage.book.watch(asked));
        match stage.locks[0].drained(bytes(&asked.span), asked.mode).wait() {
            Ok(()) => {
                stage.book.assert_drained(drain);
                true
            }
            Err(AcquireError::Poisoned(poisoned)) => {
                self.judge(&before, asked, &poisoned);
                false
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// Poisons all that hold some of this, and takes it back from all: whoever has moved meanwhile, too.
    fn come_and_go(&self, stage: &Stage) {
        let reason = self.say();
        stage.locks[0].poison(bytes(&any_span()), reason.to_string());
        stage.book.stay();
        stage.locks[0].clear_poison(..);
        self.is_over(&mut vec![reason]);
    }

    /// As [`change`], of one who may be refused, and who says of itself now and then that it is stuck.
    fn change(&self, stage: &Stage, asked: &Entry) {
        self.dare(stage, asked, |mut guard, mut held| {
            let (book, mut said) = (&stage.book, Vec::new());
            for _ in 0..=draw(3) {
                guard = match draw(7) {
                    0 if held.mode == Exclusive => downgraded(book, guard, &mut held),
                    1 => shrunk(book, guard, &mut held),
                    2 => split(book, guard, &mut held),
                    3 => converted(book, guard, &mut held),
                    4 => {
                        if guard.clear_poison() {
                            self.is_over(&mut said);
                        }
                        guard
                    }
                    5 => extended(book, guard, &mut held),
                    _ => {
                        said.push(self.say());
                        guard.poison(said[said.len() - 1].to_string());
                        guard
                    }
                };
                book.stay();
            }
            book.leave(&held);
            drop(guard);
            self.is_over(&mut said);
        });
    }
}

/// Holds that change, drains, and marks that come and go, from inside and from outside: who is refused is told of
/// somebody who is poisoned then, and who drains waits for all that were there.
#[test]
fn marks_beside_holds_that_change() {
    check(|| {
        let marks = Marks::default();
        play(4, |stage, who| {
            for _ in 0..2 {
                match (who, draw(3)) {
                    (0 | 1, _) => marks.change(stage, &any_entry(who)),
                    (2, 0) | (3, 1 | 2) => _ = marks.drain(stage, &any_entry(who)),
                    (2, _) => marks.come_and_go(stage),
                    _ => _ = marks.visit(stage, &any_entry(who)),
                }
            }
        });
    });
}

/// One who moves while others poison it, and take that back for good.
#[test]
fn marks_on_one_that_moves() {
    check(|| {
        let marks = Marks::default();
        play(3, |stage, who| match who {
            0 => {
                let asked = entry(who, 0..=3, Exclusive);
                marks.dare(stage, &asked, |mut guard, mut held| {
                    for _ in 0..=draw(2) {
                        guard = match draw(2) {
                            0 => split(&stage.book, guard, &mut held),
                            _ => extended(&stage.book, guard, &mut held),
                        };
                    }
                    stage.book.leave(&held);
                    drop(guard);
                });
            }
            1 => (0..2).for_each(|_| marks.come_and_go(stage)),
            _ => (0..2).for_each(|_| _ = marks.visit(stage, &entry(who, draw(2)..=2, any_mode()))),
        });
    });
}

/// One who is stuck, and moves all the same, and does not let go before all others are through: nobody waits for it,
/// who came before it was poisoned or after.
#[test]
fn one_who_is_stuck() {
    check(|| {
        let (marks, holds, done) = (Marks::default(), Barrier::new(4), Barrier::new(4));
        play(4, |stage, who| {
            if who == 0 {
                let asked = entry(who, 0..=3, Exclusive);
                let is_granted = marks.dare(stage, &asked, |guard, held| {
                    holds.wait();
                    let (head, mut tail) = guard.split(POINTS[1 + draw(3)]);
                    stage.book.stay();
                    let _ = tail.try_extend(..);
                    done.wait();
                    assert!(head.is_poisoned() && tail.is_poisoned());
                    stage.book.leave(&held);
                    drop((head, tail));
                });
                return assert!(is_granted);
            }
            holds.wait();
            if who == 1 {
                assert!(stage.locks[0].poison(.., marks.say().to_string()) > 0);
            }
            let asked = entry(who, draw(4)..=3 + draw(2), any_mode());
            let is_through = if draw(3) == 0 { marks.drain(stage, &asked) } else { marks.visit(stage, &asked) };
            assert!(!is_through, "it was in the way");
            done.wait();
        });
    });
}

/// Who comes when a drain has begun is not waited for, and does not let go before it is over; nor does he wait for it.
#[test]
fn who_comes_later_is_not_drained() {
    check(|| {
        let (holds, begun, over) = (Barrier::new(2), Barrier::new(2), Barrier::new(2));
        play(3, |stage, who| match who {
            0 => {
                stage.take(&entry(who, 0..=draw(4), Add), How::Wait, None, || {
                    holds.wait();
                    (0..draw(20)).for_each(|_| stage.book.stay());
                });
            }
            1 => {
                holds.wait();
                let (state, asked) = (stage.locks[0].state(), entry(who, 0..=draw(5), Exclusive));
                let drain = stage.book.watch(&asked);
                let token = Owner::new();
                let ask = Ask::new(state, ByteRange::new(bytes(&asked.span)), asked.mode, &token.enter());
                // SAFETY: the lock is the stage's, which stays until all threads have ended.
                let its = unsafe { Drain::begin(state, &ask, None, Begun::InPoll) };
                begun.wait();
                if let Some(its) = its {
                    its.wait(state).expect("nobody is poisoned, and it holds nothing");
                }
                stage.book.assert_drained(drain);
                over.wait();
            }
            _ => {
                begun.wait();
                stage.take(&entry(who, draw(2)..=2 + draw(3), Add), How::Wait, None, || {
                    over.wait();
                });
            }
        });
    });
}
