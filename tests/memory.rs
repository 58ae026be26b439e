//! Promise: memory follows the live requests. Any number of ranges can be held at once; when they are gone, later use
//! and `trim()` bring the lock back to its root, which is at most 512 bytes; a lock that is dropped leaves nothing
//! behind.
//!
//! And it follows the threads at work, not the places where they have been: on the heap are never more nodes than 16
//! for each thread at work, and one for each two live ranges.
//!
//! `SPANLOCK_RANGES` sets how many ranges are held at once (10^5), `SPANLOCK_ASKS` how often the threads of a test
//! without a home ask (10^6).

mod common;
#[path = "../benches/support/pattern.rs"]
mod pattern;

use common::alloc::{Counting, bytes};
use common::poll::Hand;
use fastrand::Rng;
use parking_lot::Mutex;
use pattern::{Ask, PAGE, Pattern, Walk};
use spanlock::{Mode, RangeGuard, RangeLock, WholeFileLock};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes are counted for the whole process: tests that look at them run one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn ranges() -> u64 {
    common::from_env("SPANLOCK_RANGES", common::by_build(30_000, 100_000)).max(1000)
}

/// Where the ranges of a crowd lie: range i of `count`, and a byte beside it that nobody holds.
#[derive(Clone, Copy, Debug)]
enum Layout {
    /// 16 bytes of every 32, one after the other.
    Dense,
    /// Spread evenly over all of `u64`.
    Even,
    /// A few clusters far apart, of single bytes.
    Clusters,
}

impl Layout {
    fn range(self, i: u64, count: u64) -> (u64, u64) {
        match self {
            Layout::Dense => (32 * i, 32 * i + 15),
            Layout::Even => {
                let step = u64::MAX / count;
                (i * step, i * step + step / 2)
            }
            Layout::Clusters => {
                let start = (i % 7) * (u64::MAX / 7) + 2 * (i / 7);
                (start, start)
            }
        }
    }
}

/// `count` ranges held at once, in random order.
fn hold(lock: &RangeLock, layout: Layout, count: u64) -> Vec<RangeGuard<'_>> {
    let mut order: Vec<u64> = (0..count).collect();
    Rng::with_seed(3).shuffle(&mut order);
    let held = order.into_iter().map(|i| {
        let (start, last) = layout.range(i, count);
        lock.request(start..=last, Mode::ALL[i as usize % 3]).wait().unwrap()
    });
    held.collect()
}

#[test]
fn very_many_ranges_are_held_at_once_and_each_is_found() {
    let _alone = ALONE.lock();
    let count = ranges();
    for layout in [Layout::Dense, Layout::Even, Layout::Clusters] {
        let lock = RangeLock::new();
        let guards = hold(&lock, layout, count);
        // At least one node for so many: the count below means something.
        assert!(lock.heap_nodes() as u64 > count / 64, "{} nodes for {count} ranges", lock.heap_nodes());
        let refused = |byte: u64, mode| {
            let mut hand = Hand::new(lock.request(byte..=byte, mode));
            hand.poll().is_pending()
        };
        for i in 0..count {
            let (start, last) = layout.range(i, count);
            let mode = Mode::ALL[i as usize % 3];
            for asked in [start, last] {
                assert!(refused(asked, Mode::Exclusive), "{layout:?}: range {i} is not found");
            }
            assert!(!refused(last + 1, Mode::Exclusive), "{layout:?}: the byte behind range {i} is nobody's");
            if i % 16 == 0 {
                for asked in Mode::ALL {
                    assert_eq!(
                        refused(start, asked),
                        !common::together(mode, asked),
                        "{layout:?}: range {i}, {asked:?}"
                    );
                }
            }
        }
        let mut whole = Hand::new(lock.request(.., Mode::Add));
        whole.pending();
        drop(guards);
        assert!(whole.woken(), "{layout:?}: the whole file is free, and nobody said so");
        drop(whole.ready());
        lock.trim();
        assert_eq!(lock.heap_nodes(), 0, "{layout:?}");
    }
}

/// 10^6 ranges (with the default crowd) in waves: the tree does not grow from wave to wave, and goes back to its root.
#[test]
fn waves_of_ranges_leave_only_the_root() {
    let _alone = ALONE.lock();
    let count = ranges();
    let lock = RangeLock::new();
    let mut most = Vec::new();
    for wave in 0..10 {
        let layout = [Layout::Dense, Layout::Even, Layout::Clusters][wave % 3];
        let guards = hold(&lock, layout, count);
        most.push(lock.heap_nodes());
        drop(guards);
    }
    // The same layout needs about the same: what the waves before left is used again or given back.
    for (early, late) in most.iter().zip(&most[3..]) {
        assert!(*late < 3 * early + 100, "nodes in use from wave to wave: {most:?}");
    }
    lock.trim();
    assert_eq!(lock.heap_nodes(), 0);
    assert!(lock.try_exclusive(..).is_some());
}

/// Use alone gives memory back too, without `trim()`: a crowd that is gone does not stay for good. In small crowds
/// somewhere else, which need nodes of their own, and in pairs of acquire and release, which need none.
#[test]
fn later_use_gives_memory_back() {
    let _alone = ALONE.lock();
    for crowded in [false, true] {
        let lock = RangeLock::new();
        drop(hold(&lock, Layout::Even, 2000));
        let before = lock.heap_nodes();
        assert!(before > 2000 / 64);
        // The pruner visits a leaf in about a thousand acquires, and each leaf twice; so this is more than enough.
        let enough = 8 * 1024 * before as u64;
        let mut acquires = 0;
        let mut rng = Rng::with_seed(5);
        while lock.heap_nodes() >= before / 4 {
            assert!(acquires < enough, "{before} nodes before, {} after {acquires} acquires", lock.heap_nodes());
            let place = if crowded { rng.u64(0..1 << 40) } else { 0 };
            for _ in 0..100 {
                let crowd = (0..if crowded { 40 } else { 1 }).map(|i| lock.add(place + i..place + i + 1));
                acquires += crowd.collect::<Vec<_>>().len() as u64;
            }
        }
    }
}

#[test]
fn trim_keeps_what_is_held_and_what_waits() {
    let _alone = ALONE.lock();
    let lock = RangeLock::new();
    let count = 2000;
    let mut guards = hold(&lock, Layout::Even, count);
    let mut rng = Rng::with_seed(11);
    rng.shuffle(&mut guards);
    let mut waiting: Vec<_> =
        guards.iter().step_by(50).map(|g| Hand::new(lock.request(g.range(), Mode::Exclusive))).collect();
    waiting.iter_mut().for_each(Hand::pending);
    while !guards.is_empty() {
        guards.truncate(guards.len() * 3 / 4);
        lock.trim();
        for guard in &guards {
            let mut hand = Hand::new(lock.request(guard.range(), Mode::Exclusive));
            assert!(hand.poll().is_pending(), "{guard:?} was lost by trim()");
        }
    }
    // Every one of them was woken by the release it waited for, and found its way through the trimmed tree.
    for hand in &mut waiting {
        assert!(hand.woken());
        drop(hand.ready());
    }
    drop(waiting);
    lock.trim();
    assert_eq!(lock.heap_nodes(), 0);
}

#[test]
fn an_idle_lock_is_small_and_owns_no_heap() {
    let _alone = ALONE.lock();
    assert!(size_of::<RangeLock>() <= 512, "{} bytes", size_of::<RangeLock>());
    assert!(size_of::<WholeFileLock>() <= 512);
    let (allocations, lock) = common::alloc::allocations(RangeLock::new);
    assert_eq!(allocations, 0);
    assert_eq!(lock.heap_nodes(), 0);
}

static FILE: RangeLock = RangeLock::new();
static WHOLE: WholeFileLock = WholeFileLock::new();
const _: RangeLock = RangeLock::new();

/// A `static` lock, with guards that live as long as anything.
#[test]
fn a_static_lock_works() {
    let guard: RangeGuard<'static> = FILE.exclusive(0..10);
    let whole: RangeGuard<'static> = WHOLE.add();
    let other =
        std::thread::spawn(|| (FILE.try_add(9..10).is_none(), FILE.try_add(10..).is_some(), WHOLE.try_add().is_some()));
    assert_eq!(other.join().expect("a try does not panic"), (true, true, true));
    drop((guard, whole));
    assert!(FILE.try_exclusive(..).is_some() && WHOLE.try_exclusive().is_some());
}

/// A tree that grows and goes again, some times over; says how many nodes it had. Each time what was removed before is
/// reclaimed, that of other locks too.
fn grow_and_trim(rounds: usize) -> usize {
    let lock = RangeLock::new();
    let mut nodes = 0;
    for _ in 0..rounds {
        let guards = hold(&lock, Layout::Even, 2000);
        nodes = lock.heap_nodes();
        drop(guards);
        lock.trim();
        assert_eq!(lock.heap_nodes(), 0);
    }
    nodes
}

/// Nodes that were removed are freed, not only forgotten.
#[test]
fn removed_nodes_are_freed() {
    let _alone = ALONE.lock();
    // What other tests left to be reclaimed would hide what this one leaves.
    let nodes = grow_and_trim(50);
    let before = bytes();
    grow_and_trim(50);
    let grown = bytes() - before;
    // A node has some hundreds of bytes. Those of a few rounds may wait to be reclaimed, those of fifty may not.
    assert!(grown < 4096 * nodes as isize, "{grown} bytes more after 50 rounds of {nodes} nodes");
}

/// What `trim` removes goes at once, as soon as nobody can be reading it: it does not lie about until there is more of
/// it.
#[test]
fn what_is_trimmed_does_not_pile_up() {
    let _alone = ALONE.lock();
    let lock = RangeLock::new();
    let round = || {
        drop(hold(&lock, Layout::Even, 20));
        assert!((1..10).contains(&lock.heap_nodes()));
        lock.trim();
        assert_eq!(lock.heap_nodes(), 0);
        bytes()
    };
    // What other tests left to be reclaimed goes first.
    (0..300).for_each(|_| _ = round());
    let (least, most) =
        (0..100).map(|_| round()).fold((isize::MAX, 0), |(least, most), now| (least.min(now), most.max(now)));
    // Some rounds' nodes, of 384 bytes, wait for the epochs that end with the next rounds.
    assert!(most - least < 60 * 384, "from {least} to {most} bytes");
}

/// Grown trees, with requests in them whose guards were leaked: the lock's drop frees every node.
#[test]
fn a_dropped_lock_leaves_nothing_behind() {
    let _alone = ALONE.lock();
    let count = 10_000;
    let round = || {
        let lock = RangeLock::new();
        hold(&lock, Layout::Even, count).into_iter().for_each(std::mem::forget);
        hold(&lock, Layout::Clusters, count).into_iter().for_each(drop);
        // Somebody waited here: what was made for it goes too.
        let mut waiter = Hand::new(lock.request(.., Mode::Exclusive));
        waiter.pending();
        drop(waiter);
        let before = bytes();
        drop(lock);
        before - bytes()
    };
    grow_and_trim(50);
    let freed = round();
    assert!(freed > 8 * count as isize, "the drop freed {freed} bytes of a tree with {count} ranges");
    let before = bytes();
    let rounds = 10;
    for _ in 0..rounds {
        round();
    }
    let grown = bytes() - before;
    // What was unlinked and waits for other threads to move on may still be there: about a round's worth, never ten.
    assert!(grown < 2 * freed, "{grown} bytes more after {rounds} rounds of {freed}");
}

/// Locks come and go by the thousand (one per open file), some of them through an `Arc` that a guard keeps alive.
#[test]
fn many_locks_leave_nothing_behind() {
    let _alone = ALONE.lock();
    let round = || {
        for i in 0..1000_u64 {
            let lock = Arc::new(RangeLock::new());
            let guard = lock.request_arc(i..i + 10, Mode::Exclusive).wait();
            let mut waiter = Hand::new(lock.request_arc(.., Mode::Add));
            waiter.pending();
            drop(lock);
            drop(guard);
            assert!(waiter.woken());
            drop(waiter.ready());
        }
    };
    grow_and_trim(50);
    round();
    let before = bytes();
    (0..10).for_each(|_| round());
    let grown = bytes() - before;
    // One lock is 512 bytes; one in fifty leaked would show.
    assert!(grown < 100_000, "{grown} bytes more after 10,000 locks");
}

/// A thread that is at home in a node keeps it, also when its lock has gone; and lets go of it when it ends.
#[test]
fn threads_that_end_keep_no_nodes() {
    let _alone = ALONE.lock();
    let round = || {
        let lock = Arc::new(RangeLock::new());
        // The root is full, and has a child for whoever comes next.
        (0..8).for_each(|i| std::mem::forget(lock.exclusive(1 << 63 | i..=1 << 63 | i)));
        let at_home = Arc::clone(&lock);
        let worker = thread::spawn(move || (0..1000).for_each(|_| drop(at_home.exclusive(0..1))));
        worker.join().expect("a pair does not panic");
        assert_eq!(lock.heap_nodes(), 1);
    };
    grow_and_trim(50);
    round();
    let before = bytes();
    (0..1000).for_each(|_| round());
    let grown = bytes() - before;
    // A node is some hundreds of bytes.
    assert!(grown < 100_000, "{grown} bytes more after 1000 threads");
}

/// What a thread of [`roam`] holds while it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holding {
    Nothing,
    /// A page of its own, all the time. Nobody asks for those of others.
    APage,
    /// What it got last, until it gets the next. So it may only try: two could want what the other one has.
    TheLast,
}

/// The most nodes that the promise allows.
fn allowed(threads: usize, live: usize) -> usize {
    16 * threads + live / 2
}

/// Asks of all threads of a test together. Those that are one of many have a quarter.
fn asks(pattern: Pattern, holding: Holding) -> u64 {
    let asks = common::from_env("SPANLOCK_ASKS", common::by_build(40_000, 1_000_000));
    match (pattern, holding) {
        (Pattern::Scattered { shared: 0, .. }, Holding::Nothing) => asks,
        _ => asks / 4,
    }
}

/// So many threads ask as the pattern wants it, all together [`asks`] times. If there are ever more nodes than
/// promised, it says how many.
fn roam(lock: &RangeLock, pattern: Pattern, threads: usize, holding: Holding) -> Option<String> {
    /// Asks between two looks at the nodes.
    const LOOK: u64 = 1000;
    /// Asks between two of which others run into what is held, also where there is one processor.
    const MEET: u64 = 8;
    let live = threads * if holding == Holding::Nothing { 1 } else { 2 };
    let most = allowed(threads, live);
    let (seen, start) = (AtomicUsize::new(0), Barrier::new(threads));
    let look = || seen.fetch_max(lock.heap_nodes(), Ordering::Relaxed);
    // The pages that are held all the time are so far apart.
    let stride = pattern.bytes() / PAGE / threads as u64;
    let is_anybodys = |start: u64| holding == Holding::APage && start / PAGE % stride == 0;
    let work = |thread: usize, mut walk: Walk| {
        let own = thread as u64 * stride * PAGE;
        let _held = (holding == Holding::APage).then(|| lock.exclusive(own..own + PAGE));
        let mut last = None;
        start.wait();
        for ask in 0..asks(pattern, holding) / threads as u64 {
            let guard = match walk.next() {
                Ask::Exclusive(range) if holding == Holding::TheLast => {
                    last = lock.try_exclusive(range).or(last);
                    None
                }
                Ask::Exclusive(range) if is_anybodys(range.start) => None,
                Ask::Exclusive(range) => Some(lock.exclusive(range)),
                Ask::Shared(range) => Some(lock.add(range)),
                Ask::Whole => Some(lock.exclusive(..)),
            };
            if ask % MEET == 0 {
                thread::yield_now();
            }
            drop(guard);
            if thread == 0 && ask % LOOK == 0 {
                look();
            }
        }
    };
    let work = &work;
    thread::scope(|scope| {
        for (thread, walk) in pattern.walks(threads).enumerate() {
            scope.spawn(move || work(thread, walk));
        }
    });
    look();
    let nodes = seen.into_inner();
    let who = format!("{}, {threads} threads, {holding:?} held", pattern.name());
    (nodes > most).then(|| format!("{who}: {nodes} nodes, at most {most} are promised"))
}

fn none_of(too_many: Vec<String>) {
    assert!(too_many.is_empty(), "\n{}\n", too_many.join("\n"));
}

const ROAMERS: [usize; 2] = [2, 8];

fn scattered() -> impl Iterator<Item = Pattern> {
    Pattern::ALL.into_iter().filter(|pattern| matches!(pattern, Pattern::Scattered { shared: 0, .. }))
}

#[test]
fn threads_without_a_home_need_few_nodes() {
    let _alone = ALONE.lock();
    let mut too_many = Vec::new();
    for threads in ROAMERS {
        for pattern in Pattern::ALL {
            too_many.extend(roam(&RangeLock::new(), pattern, threads, Holding::Nothing));
        }
    }
    none_of(too_many);
}

#[test]
fn threads_without_a_home_that_hold_a_page_need_few_nodes() {
    let _alone = ALONE.lock();
    let mut too_many = Vec::new();
    for threads in ROAMERS {
        for pattern in scattered() {
            too_many.extend(roam(&RangeLock::new(), pattern, threads, Holding::APage));
            too_many.extend(roam(&RangeLock::new(), pattern, threads, Holding::TheLast));
        }
    }
    none_of(too_many);
}

/// A crowd of neighbours goes, and every eighth stays: what is left keeps a node each, until it goes too.
#[test]
fn who_stays_of_a_crowd_of_neighbours_keeps_a_node_at_most() {
    const CROWD: u64 = 20_000;
    let _alone = ALONE.lock();
    let lock = RangeLock::new();
    let mut guards: Vec<_> = (0..CROWD).map(|at| lock.add(at * PAGE..(at + 1) * PAGE)).collect();
    let mut at = 0;
    guards.retain(|_| {
        at += 1;
        at % 8 == 0
    });
    lock.trim();
    let nodes = lock.heap_nodes();
    println!("{nodes} nodes for {} ranges", guards.len());
    assert!(nodes <= guards.len(), "{nodes} nodes for {} ranges", guards.len());
    drop(guards);
    lock.trim();
    assert_eq!(lock.heap_nodes(), 0);
}

/// A crowd that is gone leaves none of its nodes to those who ask everywhere, although they use all of them.
#[test]
fn nodes_of_a_crowd_do_not_stay_for_those_who_ask_everywhere() {
    const CROWD: u64 = 2000;
    let _alone = ALONE.lock();
    let lock = RangeLock::new();
    drop(hold(&lock, Layout::Even, CROWD));
    let before = lock.heap_nodes();
    assert!(before > CROWD as usize / 64);
    // As in `later_use_gives_memory_back`.
    let enough = 8 * 1024 * before;
    let mut rng = Rng::with_seed(7);
    let mut asks = 0;
    while lock.heap_nodes() > allowed(1, 1) {
        assert!(asks < enough, "{before} nodes before, {} after {asks} asks", lock.heap_nodes());
        for _ in 0..1000 {
            let (start, last) = Layout::Even.range(rng.u64(0..CROWD), CROWD);
            drop(lock.exclusive(start..=last));
        }
        asks += 1000;
    }
}

/// Threads that have gone are not at work: whoever goes on alone gives their nodes back.
#[test]
fn nodes_go_with_the_threads_that_needed_them() {
    let _alone = ALONE.lock();
    for pattern in scattered() {
        let lock = RangeLock::new();
        none_of(Vec::from_iter(roam(&lock, pattern, 8, Holding::Nothing)));
        // As in `later_use_gives_memory_back`.
        let enough = 8 * 1024 * (lock.heap_nodes() as u64 + 1);
        let mut walk = pattern.walks(1).next().expect("a thread has a way");
        let mut asks = 0;
        while lock.heap_nodes() > allowed(1, 0) {
            assert!(asks < enough, "{}: {} nodes after {asks} asks", pattern.name(), lock.heap_nodes());
            for _ in 0..100 {
                let Ask::Exclusive(range) = walk.next() else { unreachable!("all are exclusive") };
                drop(lock.exclusive(range));
            }
            asks += 100;
        }
    }
}
