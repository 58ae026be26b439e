//! What is measured: each contest, and the contenders that can take part in it.

use crate::peers::*;
use crate::roaming::{LOOK, PLACEMENTS, Roaming};
use crate::support::turns::{Contender, Laps, Placement, Tally};
use crate::support::{PAGE, PLACE, Section, deepen, release};
use crossbeam_utils::CachePadded;
use dashmap::DashMap;
use fastrand::Rng;
use parking_lot::Mutex as Cell;
use spanlock::{LockTable, Mode, RangeLock};
use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that a thread has for itself, and those of the file.
const REGION: u64 = 1 << 22;
const FILE: u64 = MOST_THREADS as u64 * REGION;

/// What a contest is about. Contests of one kind differ by threads or size, and make one picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Uncontended,
    Levels,
    Disjoint,
    Disjoint200,
    ChinnerOwn,
    ChinnerMixed,
    ArrayRandom(u32),
    ArrayDisjoint,
    ArrayFull(u32),
    Crowd,
    Covering,
    Readers,
    Mixed,
    Hot,
    Hot200,
    Windows,
    HandOff,
    Tasks,
    Files,
    Roaming(Roaming),
}

impl Kind {
    pub(crate) fn name(self) -> String {
        match self {
            Kind::ArrayRandom(readers) => format!("array, random ranges, {readers} % readers"),
            Kind::ArrayFull(readers) => format!("array, full range, {readers} % readers"),
            Kind::Uncontended => "uncontended".into(),
            Kind::Levels => "levels".into(),
            Kind::Disjoint => "disjoint".into(),
            Kind::Disjoint200 => "disjoint, 200 ns".into(),
            Kind::ChinnerOwn => "a hundred held, own regions".into(),
            Kind::ChinnerMixed => "a hundred held, interleaved".into(),
            Kind::ArrayDisjoint => "array, disjoint ranges, 60 % readers".into(),
            Kind::Crowd => "crowd".into(),
            Kind::Covering => "covering adders".into(),
            Kind::Readers => "whole-file readers".into(),
            Kind::Mixed => "one whole file in a thousand, 200 ns".into(),
            Kind::Hot => "hot range".into(),
            Kind::Hot200 => "hot range, 200 ns".into(),
            Kind::Windows => "windows and waiters".into(),
            Kind::HandOff => "hand-off".into(),
            Kind::Tasks => "tasks".into(),
            Kind::Files => "a million files".into(),
            Kind::Roaming(roaming) => roaming.name(),
        }
    }

    /// What one element is, and what the threads do.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Kind::Uncontended => "a pair on one thread: a page, exclusively",
            Kind::Levels => "a pair on one thread, that many nodes below the root",
            Kind::Disjoint => "a pair; each thread takes a page of its own, exclusively, and holds nothing else",
            Kind::Disjoint200 => "the same, with critical sections of 200 ns",
            Kind::ChinnerOwn => "a pair; each thread takes 100 pages of its own region, then releases them all",
            Kind::ChinnerMixed => "the same, and the pages of the threads alternate",
            Kind::ArrayRandom(_) => {
                "a pair; 256 padded slots, a random range of them is read or changed, and random work between (the longest wait is the longest pair)"
            }
            Kind::ArrayDisjoint => "a pair; the same, each thread with its own share of the slots",
            Kind::ArrayFull(_) => "a pair; the same, all slots",
            Kind::Crowd => "a pair on one thread: a page between two of as many as stand there, all held, at random",
            Kind::Covering => "a pair on one thread: the whole file shared, while that many hold it so",
            Kind::Readers => "a pair; the whole file, shared",
            Kind::Mixed => {
                "a pair; a random page of the thread's own region, or, one in 1000, the whole file; 200 ns (the longest wait is that of 16 pairs in a row)"
            }
            Kind::Hot => "a pair; all threads the same page, exclusively, each acquire timed",
            Kind::Hot200 => "the same, with critical sections of 200 ns",
            Kind::Windows => {
                "a pair; all threads the same page, exclusively, 200 ns, each acquire timed: it shows whether many waiters turn a short window into first come, first served"
            }
            Kind::HandOff => {
                "from a release to the grant of the other thread, which waits; sections of 1 us; the median"
            }
            Kind::Tasks => "a pair; 1000 tasks on two workers, a random one of 64 pages, and a yield while it is held",
            Kind::Files => "a pair; a random one of 10^6 files, a page, exclusively",
            Kind::Roaming(roaming) => roaming.pattern.describe(),
        }
    }

    /// Whether it is told how many pairs there were in a second, beside what one took.
    pub(crate) fn tells_rate(self) -> bool {
        self == Kind::Windows
    }

    /// What the numbers of the contests count.
    pub(crate) fn axis(self) -> &'static str {
        match self {
            Kind::Crowd | Kind::Covering => "held",
            Kind::Levels => "levels",
            _ => "threads",
        }
    }
}

pub(crate) struct Contest {
    pub(crate) kind: Kind,
    /// Threads, held ranges, levels: see [`Kind::axis`].
    pub(crate) number: u64,
    pub(crate) threads: usize,
    /// How much longer a turn is than others'.
    pub(crate) stretch: u32,
    /// How many times fewer rounds it has.
    pub(crate) fewer: usize,
    pub(crate) placement: Placement,
}

impl Contest {
    pub(crate) fn name(&self) -> String {
        format!("{}, {} {}{}", self.kind.name(), self.number, self.kind.axis(), self.placement.suffix())
    }
}

/// All contests for these numbers of threads. In a test crowds are small.
pub(crate) fn all(threads: &[usize], testing: bool) -> Vec<Contest> {
    let lone = |kind, number| Contest { kind, number, threads: 1, stretch: 1, fewer: 1, placement: Placement::Free };
    let contest = |kind, threads: usize| Contest { threads, ..lone(kind, threads as u64) };
    let bound = |kind, threads| Contest { placement: Placement::Bound, ..contest(kind, threads) };
    let each = |kind| threads.iter().map(move |&threads| contest(kind, threads));
    let mut all = vec![contest(Kind::Uncontended, 1)];
    all.extend([0, 1, 2, 3].map(|levels| lone(Kind::Levels, levels)));
    all.extend(each(Kind::Disjoint));
    all.extend(each(Kind::Disjoint200));
    all.extend(each(Kind::ChinnerOwn));
    all.extend(each(Kind::ChinnerMixed));
    for readers in [100, 60, 0] {
        all.extend(each(Kind::ArrayRandom(readers)));
    }
    all.extend([2, 4, 16].map(|threads| bound(Kind::ArrayRandom(0), threads)));
    all.extend(each(Kind::ArrayDisjoint));
    for readers in [100, 60, 0] {
        all.extend(each(Kind::ArrayFull(readers)));
    }
    let sizes: &[u64] = if testing { &[100] } else { &[100, 1000, 10_000, 100_000, 1_000_000] };
    all.extend(sizes.iter().map(|&size| lone(Kind::Crowd, size)));
    all.push(lone(Kind::Covering, if testing { 100 } else { 10_000 }));
    all.extend(each(Kind::Readers));
    all.push(contest(Kind::Mixed, 2));
    all.push(Contest { stretch: 6, ..contest(Kind::Hot, 2) });
    // Half a second: in less, a system with few processors has not given its turn to each thread.
    all.push(Contest { stretch: 60, fewer: 3, ..contest(Kind::Hot, 16) });
    // Here each thread has its hundred turns in a seventh of a second.
    all.push(Contest { stretch: 20, fewer: 3, ..contest(Kind::Hot, 4) });
    // A second, for that is what Jain's index of a lock with a window is asked of.
    let second = |kind, threads| Contest { stretch: 125, fewer: 5, ..contest(kind, threads) };
    all.extend([4, 16].map(|threads| second(Kind::Hot200, threads)));
    all.extend([4, 16, 64].map(|threads| second(Kind::Windows, threads)));
    all.extend([contest(Kind::HandOff, 2), bound(Kind::HandOff, 2)]);
    all.push(Contest { stretch: 4, ..lone(Kind::Tasks, 1) });
    all.extend([1, 2].map(|threads| contest(Kind::Files, threads)));
    for kind in Roaming::all().map(Kind::Roaming) {
        let placed = |placement| each(kind).map(move |contest| Contest { placement, ..contest });
        all.extend(PLACEMENTS.into_iter().flat_map(placed));
    }
    all
}

/// Who takes part in a contest, on new locks. The first one is what the others are compared with.
pub(crate) fn contenders(contest: &Contest) -> Vec<Contender> {
    let threads = contest.threads as u64;
    let (own, page_of) = (|thread| page(thread as u64 * REGION / PAGE), |at: u64| page(at));
    match contest.kind {
        Kind::Uncontended => {
            let pairs = Pairs::new(move |thread, _: &mut Rng| (own(thread), Access::Exclusive));
            let mut all = everybody(&pairs);
            // Beside the strict one, whose price it is to have: what a machine does meanwhile shows in both.
            all.insert(1, pairs.contender::<Reordering>());
            all
        }
        Kind::Levels => vec![levels(contest.number as u32)],
        Kind::Disjoint | Kind::Disjoint200 => {
            let nanos = if contest.kind == Kind::Disjoint { 0 } else { 200 };
            let plan = move |thread, _: &mut Rng| (own(thread), Access::Exclusive);
            let pairs = Pairs { section: Section::nanos(nanos), ..Pairs::new(plan) };
            let mut all = everybody(&pairs);
            all.push(pairs.contender::<Private>());
            all
        }
        Kind::ChinnerOwn => {
            who_locks_ranges(&Hundred(move |thread, at| page_of(thread as u64 * REGION / PAGE + 2 * at)))
        }
        Kind::ChinnerMixed => who_locks_ranges(&Hundred(move |thread, at| page_of(at * threads + thread as u64))),
        Kind::ArrayRandom(readers) => everybody_in_any_order(&Array { readers, share: Share::Random }),
        Kind::ArrayDisjoint => everybody(&Array { readers: 60, share: Share::Own { threads: contest.threads } }),
        Kind::ArrayFull(readers) => everybody_in_any_order(&Array { readers, share: Share::All }),
        Kind::Crowd => {
            let crowd = Crowd { held: contest.number };
            let mut all = who_shares_ranges(&crowd);
            all.push(crowd.contender::<RangeLockCrate>());
            // The system's locks are a list: it would take hours to fill in more of them.
            if contest.number <= 1000 {
                all.push(crowd.contender::<Ofd>());
            }
            all
        }
        Kind::Covering => who_shares_ranges(&Covering { held: contest.number }),
        Kind::Readers => everybody_and_two_state(&Pairs::new(|_, _: &mut Rng| (0..FILE, Access::Shared))),
        Kind::Mixed => {
            let plan = move |thread: usize, random: &mut Rng| {
                let pages = REGION / PAGE;
                let range =
                    if random.u32(..1000) == 0 { 0..FILE } else { page(thread as u64 * pages + random.u64(..pages)) };
                (range, Access::Exclusive)
            };
            everybody_in_any_order(&Pairs { section: Section::nanos(200), timed: Timed::Laps, ..Pairs::new(plan) })
        }
        Kind::Hot => everybody_in_any_order(&hot(0)),
        Kind::Hot200 => everybody_in_any_order(&hot(200)),
        Kind::Windows => {
            let hot = hot(200);
            vec![
                hot.contender::<Spanlock>(),
                hot.contender::<Window<100>>(),
                hot.contender::<Window<1000>>(),
                hot.contender::<Window<4000>>(),
                hot.contender::<RwLock>(),
            ]
        }
        Kind::HandOff => everybody(&HandOff),
        Kind::Tasks => tasks(),
        Kind::Files => files(),
        Kind::Roaming(roaming) => roaming.contenders(),
    }
}

/// All want one page.
fn hot(nanos: u64) -> impl Recipe {
    let pairs = Pairs::new(|_, _: &mut Rng| (page(0), Access::Exclusive));
    Pairs { section: Section::nanos(nanos), timed: Timed::Acquires, ..pairs }
}

fn page(index: u64) -> Range<u64> {
    index * PAGE..(index + 1) * PAGE
}

/// Something that can be done with any lock.
trait Recipe {
    fn contender<P: Peer + Send + 'static>(&self) -> Contender;
}

fn who_locks_ranges(recipe: &impl Recipe) -> Vec<Contender> {
    let mut all = who_shares_ranges(recipe);
    all.extend([recipe.contender::<RangeLockCrate>(), recipe.contender::<Ofd>()]);
    all
}

fn who_shares_ranges(recipe: &impl Recipe) -> Vec<Contender> {
    vec![
        recipe.contender::<Spanlock>(),
        recipe.contender::<IntervalTree>(),
        recipe.contender::<BTree>(),
        recipe.contender::<Segments>(),
    ]
}

/// The same, where threads meet: ours with a window, too.
fn everybody_in_any_order(recipe: &impl Recipe) -> Vec<Contender> {
    let mut all = everybody(recipe);
    all.extend([recipe.contender::<Reordering>(), recipe.contender::<WholeReordering>()]);
    all
}

fn everybody(recipe: &impl Recipe) -> Vec<Contender> {
    let mut all = who_locks_ranges(recipe);
    all.extend([
        recipe.contender::<SpanlockWhole>(),
        recipe.contender::<StdRwLock>(),
        recipe.contender::<RwLock>(),
        recipe.contender::<Mutex>(),
        recipe.contender::<FairMutex>(),
        recipe.contender::<TokioRwLock>(),
    ]);
    all
}

/// Its blockers do not exclude one another, so it takes part where all share.
fn everybody_and_two_state(recipe: &impl Recipe) -> Vec<Contender> {
    let mut all = everybody(recipe);
    all.push(recipe.contender::<TwoState>());
    all
}

/// What the longest wait is taken from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Timed {
    No,
    /// Each acquire: two looks at the clock for a pair, one of them while it is held.
    Acquires,
    /// [`LOOK`] pairs in a row, where a look for each would be a part of what is measured.
    Laps,
}

/// Pairs, one after the other: what to ask for is up to `plan`.
struct Pairs<F> {
    plan: F,
    section: Section,
    timed: Timed,
}

impl<F> Pairs<F> {
    fn new(plan: F) -> Pairs<F>
    where
        F: Fn(usize, &mut Rng) -> (Range<u64>, Access),
    {
        Pairs { plan, section: Section::nanos(0), timed: Timed::No }
    }
}

impl<F: Fn(usize, &mut Rng) -> (Range<u64>, Access) + Copy + Send + Sync + 'static> Recipe for Pairs<F> {
    fn contender<P: Peer + Send + 'static>(&self) -> Contender {
        let (lock, plan, section, timed) = (P::new(FILE), self.plan, self.section, self.timed);
        Contender::new(title::<P>(), move |thread, stop: &AtomicBool| {
            let (mut tally, mut random) = (Tally::default(), Rng::with_seed(thread as u64));
            let mut laps = (timed == Timed::Laps).then(|| Laps::every(LOOK));
            while !stop.load(Ordering::Relaxed) {
                let (range, access) = black_box(plan(thread, &mut random));
                let asked = (timed == Timed::Acquires).then(Instant::now);
                let guard = lock.acquire(thread, range, access);
                if let Some(asked) = asked {
                    tally.longest = tally.longest.max(asked.elapsed());
                }
                section.under(guard);
                tally.count += 1;
                if let Some(laps) = &mut laps {
                    laps.lap(&mut tally);
                }
            }
            tally
        })
        .passing(P::PASSES)
    }
}

/// Takes a hundred, then releases them: `place` says which, for a thread.
struct Hundred<F>(F);

impl<F: Fn(usize, u64) -> Range<u64> + Copy + Send + Sync + 'static> Recipe for Hundred<F> {
    fn contender<P: Peer + Send + 'static>(&self) -> Contender {
        const HELD: u64 = 100;
        let (lock, place) = (P::new(FILE), self.0);
        Contender::new(title::<P>(), move |thread, stop: &AtomicBool| {
            let (mut tally, mut held) = (Tally::default(), Vec::with_capacity(HELD as usize));
            while !stop.load(Ordering::Relaxed) {
                held.extend((0..HELD).map(|at| lock.acquire(thread, place(thread, at), Access::Exclusive)));
                held.clear();
                tally.count += HELD;
            }
            tally
        })
    }
}

/// What a request of [`Array`] covers.
#[derive(Clone, Copy)]
enum Share {
    Random,
    Own { threads: usize },
    All,
}

/// The array benchmark of Kogan, Dice and Issa (EuroSys'20), from its description.
#[derive(Clone, Copy)]
struct Array {
    /// Percent.
    readers: u32,
    share: Share,
}

impl Recipe for Array {
    fn contender<P: Peer + Send + 'static>(&self) -> Contender {
        const SLOTS: usize = 256;
        let (lock, Array { readers, share }) = (P::new(SLOTS as u64 * PAGE), *self);
        let array: Vec<CachePadded<AtomicU64>> = (0..SLOTS).map(|_| CachePadded::default()).collect();
        Contender::new(title::<P>(), move |thread, stop: &AtomicBool| {
            let (mut tally, mut random) = (Tally::default(), Rng::with_seed(thread as u64));
            // Who never waits is not asked how long.
            let mut laps = (!matches!(share, Share::Own { .. })).then(|| Laps::every(1));
            while !stop.load(Ordering::Relaxed) {
                let (first, last) = match share {
                    Share::Random => {
                        let (a, b) = (random.usize(..SLOTS), random.usize(..SLOTS));
                        (a.min(b), a.max(b))
                    }
                    Share::Own { threads } => (thread * SLOTS / threads, (thread + 1) * SLOTS / threads - 1),
                    Share::All => (0, SLOTS - 1),
                };
                let access = if random.u32(..100) < readers { Access::Shared } else { Access::Exclusive };
                let guard = lock.acquire(thread, first as u64 * PAGE..(last as u64 + 1) * PAGE, access);
                for slot in &array[first..=last] {
                    let value = slot.load(Ordering::Relaxed);
                    if access == Access::Exclusive {
                        slot.store(value + 1, Ordering::Relaxed);
                    }
                }
                drop(guard);
                // Nothing that needs the lock: up to 2048 empty turns.
                (0..random.u32(..2048)).for_each(|turn| _ = black_box(turn));
                tally.count += 1;
                if let Some(laps) = &mut laps {
                    laps.lap(&mut tally);
                }
            }
            tally
        })
        .passing(P::PASSES)
    }
}

/// Fills a lock from a thread of its own, which holds for good: so nobody who is measured has held anything.
fn fill<P: Peer + 'static>(lock: &P, ranges: impl Iterator<Item = Range<u64>> + Send, access: Access) {
    thread::scope(|scope| {
        let filler =
            scope.spawn(|| ranges.for_each(|range| std::mem::forget(lock.acquire(MOST_THREADS - 1, range, access))));
        filler.join().expect("filling does not panic");
    });
}

struct Crowd {
    held: u64,
}

impl Recipe for Crowd {
    fn contender<P: Peer + Send + 'static>(&self) -> Contender {
        let held = self.held;
        let lock = P::new(2 * held * PAGE);
        let mut order: Vec<u64> = (0..held).collect();
        Rng::with_seed(1).shuffle(&mut order);
        fill(&lock, order.into_iter().map(|index| page(2 * index)), Access::Exclusive);
        Contender::new(title::<P>(), move |thread, stop: &AtomicBool| {
            let (mut tally, mut random) = (Tally::default(), Rng::with_seed(thread as u64));
            while !stop.load(Ordering::Relaxed) {
                release(lock.acquire(thread, page(2 * random.u64(..held) + 1), Access::Exclusive));
                tally.count += 1;
            }
            tally
        })
    }
}

struct Covering {
    held: u64,
}

impl Recipe for Covering {
    fn contender<P: Peer + Send + 'static>(&self) -> Contender {
        let lock = P::new(16 * PAGE);
        fill(&lock, (0..self.held).map(|_| 0..16 * PAGE), Access::Shared);
        Contender::new(title::<P>(), move |thread, stop: &AtomicBool| {
            let mut tally = Tally::default();
            while !stop.load(Ordering::Relaxed) {
                release(lock.acquire(thread, black_box(0..16 * PAGE), Access::Shared));
                tally.count += 1;
            }
            tally
        })
    }
}

/// Two threads on one page: the time from a release to the grant of the other.
struct HandOff;

impl Recipe for HandOff {
    fn contender<P: Peer + Send + 'static>(&self) -> Contender {
        let (lock, section, epoch) = (P::new(FILE), Section::nanos(1000), Instant::now());
        /// Whoever released last, and when.
        #[derive(Default)]
        struct Last {
            thread: usize,
            nanos: u64,
        }
        let last = Cell::new(Last::default());
        Contender::new(title::<P>(), move |thread, stop: &AtomicBool| {
            let mut tally = Tally::default();
            while !stop.load(Ordering::Relaxed) {
                let asked = epoch.elapsed().as_nanos() as u64;
                let guard = lock.acquire(thread, page(0), Access::Exclusive);
                let granted = epoch.elapsed().as_nanos() as u64;
                let released = std::mem::take(&mut *last.lock());
                // Only one who was waiting when the other let go.
                if released.thread != thread && released.nanos > asked {
                    tally.count += 1;
                    tally.samples.push(granted.saturating_sub(released.nanos) as u32);
                }
                section.under(());
                *last.lock() = Last { thread, nanos: epoch.elapsed().as_nanos() as u64 };
                drop(guard);
            }
            tally
        })
    }
}

/// Only this lock has levels.
fn levels(levels: u32) -> Contender {
    let lock: &'static RangeLock = Box::leak(Box::default());
    thread::scope(|scope| {
        // By a thread of its own, as for a crowd.
        let fill = || deepen(lock, levels).into_iter().for_each(std::mem::forget);
        scope.spawn(fill).join().expect("filling does not panic");
    });
    Contender::new(Spanlock::NAME, move |_, stop: &AtomicBool| {
        let mut tally = Tally::default();
        while !stop.load(Ordering::Relaxed) {
            release(lock.exclusive(black_box(PLACE)));
            tally.count += 1;
        }
        tally
    })
}

/// Something that gives a task exclusive access to one of a few pages.
trait TaskLock: Default + Send + Sync + 'static {
    const NAME: &'static str;
    fn with_page(&self, index: u64) -> impl Future<Output = ()> + Send;
}

#[derive(Default)]
struct SpanlockTasks(RangeLock);

impl TaskLock for SpanlockTasks {
    const NAME: &'static str = "spanlock";

    async fn with_page(&self, index: u64) {
        let _guard = self.0.request(page(index), Mode::Exclusive).await;
        tokio::task::yield_now().await;
    }
}

#[derive(Default)]
struct TokioTasks(tokio::sync::RwLock<()>);

impl TaskLock for TokioTasks {
    const NAME: &'static str = "tokio-rwlock";

    async fn with_page(&self, _index: u64) {
        let _guard = self.0.write().await;
        tokio::task::yield_now().await;
    }
}

fn tasks() -> Vec<Contender> {
    vec![task_contender::<SpanlockTasks>(), task_contender::<TokioTasks>()]
}

fn task_contender<L: TaskLock>() -> Contender {
    const TASKS: u64 = 1000;
    const PAGES: u64 = 64;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
    let runtime = runtime.expect("a runtime can be started");
    let lock = Arc::new(L::default());
    Contender::new(L::NAME, move |_, stop: &AtomicBool| {
        let over = Arc::new(AtomicBool::new(false));
        let task = |seed| {
            let (lock, over) = (Arc::clone(&lock), Arc::clone(&over));
            runtime.spawn(async move {
                let (mut count, mut random) = (0, Rng::with_seed(seed));
                while !over.load(Ordering::Relaxed) {
                    lock.with_page(random.u64(..PAGES)).await;
                    count += 1;
                }
                count
            })
        };
        let tasks: Vec<_> = (0..TASKS).map(task).collect();
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_micros(200));
        }
        over.store(true, Ordering::Relaxed);
        let counts = tasks.into_iter().map(|task| runtime.block_on(task).expect("a task does not panic"));
        Tally { count: counts.sum(), ..Tally::default() }
    })
}

const FILES: u64 = 1_000_000;

/// A table of locks, and the usual way to have a lock for each file: a concurrent map of reader-writer locks, made when
/// first asked for.
fn files() -> Vec<Contender> {
    let table: LockTable<u64> = LockTable::new();
    let map: DashMap<u64, Arc<parking_lot::RwLock<()>>> = DashMap::new();
    let pairs = |mut take: Box<dyn FnMut(u64)>, thread: usize, stop: &AtomicBool| {
        let (mut tally, mut random) = (Tally::default(), Rng::with_seed(thread as u64));
        while !stop.load(Ordering::Relaxed) {
            take(random.u64(..FILES));
            tally.count += 1;
        }
        tally
    };
    let table = Arc::new(table);
    let map = Arc::new(map);
    vec![
        Contender::new("spanlock table", move |thread, stop: &AtomicBool| {
            let table = Arc::clone(&table);
            pairs(Box::new(move |file| drop(black_box(table.exclusive(file, page(0))))), thread, stop)
        }),
        Contender::new("dashmap of pl-rwlock", move |thread, stop: &AtomicBool| {
            let map = Arc::clone(&map);
            let take = move |file| {
                let lock = Arc::clone(&map.entry(file).or_default());
                drop(black_box(lock.write()));
            };
            pairs(Box::new(take), thread, stop)
        }),
    ]
}
