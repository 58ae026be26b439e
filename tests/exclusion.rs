//! Promise: exclusion. Two conflicting requests are never granted at the same time, and what one holder wrote, the next
//! one sees.
//!
//! Threads hammer overlapping ranges through every face of the lock. Each cell of a shadow counts who is inside, with
//! relaxed atomics, and carries plain memory that the modes read and write as their table allows: a missing
//! happens-before is a data race there, which ThreadSanitizer reports. Threads meet in atomics and parking_lot only,
//! which are compiled with the test: the sanitizer does not see into a std that was not built for it.
//!
//! Each guard draws tickets besides, as it comes in and before it goes: they must grow along every chain of conflicting
//! grants, with a window and without.
//!
//! `SPANLOCK_STRESS_MS` sets how long each test goes on.

mod common;

use common::inside::Inside;
use common::poll::{block_on, poll_once};
use common::watch::Watchdog;
use fastrand::Rng;
use spanlock::{ByteRange, Mode, RangeLock, WholeFileLock};
use std::cell::UnsafeCell;
use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const MAX_THREADS: usize = 32;

/// One cell of the shadow. Its plain memory:
/// - `alone` is written by exclusive holders and read by everybody;
/// - `marks[Add][t]` is written by thread t as an adder, and read by blockers and exclusive holders;
/// - `marks[Block][t]` the other way round.
///
/// Beside it, of each mode, the highest ticket that one of its guards has drawn.
#[derive(Default)]
struct Cell {
    inside: Inside,
    alone: UnsafeCell<u64>,
    marks: [[UnsafeCell<u64>; MAX_THREADS]; 2],
    tickets: [AtomicU64; 3],
}

impl Cell {
    /// Thread `me` comes in.
    fn enter(&self, me: usize, mode: Mode) -> u64 {
        self.inside.enter(mode);
        let mut sum = 0;
        match mode {
            Mode::Exclusive => {
                // SAFETY: nobody else is inside, if the lock keeps its promise; that is what is tested.
                unsafe { *self.alone.get() += 1 };
                sum += self.sum(0) + self.sum(1);
            }
            Mode::Add | Mode::Block => {
                // SAFETY: only holders of the same mode are inside, and they read `alone` as we do.
                sum += unsafe { *self.alone.get() };
                // SAFETY: this entry is this thread's, and holders of the same mode do not look at it.
                unsafe { *self.marks[mode as usize][me].get() += 1 };
                sum += self.sum(1 - mode as usize);
            }
        }
        sum
    }

    /// What the holders of a mode wrote, read by somebody whom it does not go with.
    fn sum(&self, mode: usize) -> u64 {
        // SAFETY: no holder of `mode` is inside, and only they write its marks.
        self.marks[mode].iter().map(|mark| unsafe { *mark.get() }).sum()
    }

    /// A holder has drawn `ticket`. Relaxed: that those who conflict have left, and what they drew, the lock itself has
    /// to make known.
    fn stamp(&self, ticket: u64, mode: Mode) {
        let goes_with = |other: Mode| other == mode && mode != Mode::Exclusive;
        for other in Mode::ALL.into_iter().filter(|other| !goes_with(*other)) {
            let earlier = self.tickets[other as usize].load(Ordering::Relaxed);
            assert!(ticket > earlier, "{mode:?} drew {ticket}, and {other:?} before it {earlier}");
        }
        self.tickets[mode as usize].fetch_max(ticket, Ordering::Relaxed);
    }

    fn leave(&self, mode: Mode) {
        self.inside.leave(mode);
    }
}

struct Shadow(Vec<Cell>);

// SAFETY: the plain memory is reached in `enter` only, under the lock that is tested, as `Cell` says.
unsafe impl Sync for Shadow {}

impl Shadow {
    fn new(cells: usize) -> Shadow {
        Shadow((0..cells).map(|_| Cell::default()).collect())
    }

    /// What a holder does: into every cell, perhaps a pause, out again. `draw` gives it a ticket.
    fn visit(&self, me: usize, (range, scale): (ByteRange, u32), mode: Mode, rng: &mut Rng, draw: &dyn Fn() -> u64) {
        let cells = match (range.start(), range.last()) {
            (Some(start), Some(last)) => (start >> scale) as usize..=(last >> scale) as usize,
            _ => return,
        };
        let seen: Vec<u64> = self.0[cells.clone()].iter().map(|cell| cell.enter(me, mode)).collect();
        // Drawing orders as well: so it is behind the first look at the plain memory, and before the last change, which
        // only the lock makes known.
        let stamp = |ticket| self.0[cells.clone()].iter().for_each(|cell| cell.stamp(ticket, mode));
        stamp(draw());
        match rng.u8(0..16) {
            0 => thread::yield_now(),
            1..4 => (0..rng.u32(0..200)).for_each(|_| std::hint::spin_loop()),
            _ => {}
        }
        stamp(draw());
        for (cell, seen) in self.0[cells.clone()].iter().zip(seen) {
            if mode == Mode::Exclusive {
                // SAFETY: as in `enter`.
                let alone = unsafe { &mut *cell.alone.get() };
                // Nobody marked the cell meanwhile.
                assert_eq!(cell.sum(0) + cell.sum(1), seen);
                *alone += 1;
            }
            cell.leave(mode);
        }
    }

    /// What was counted inside, once all threads are gone: exclusive visits count two for each cell.
    fn counted(self) -> [u64; 3] {
        let mut counted = [0; 3];
        for cell in self.0 {
            cell.inside.assert_empty();
            counted[2] += cell.alone.into_inner() / 2;
            for (mode, marks) in cell.marks.into_iter().enumerate() {
                counted[mode] += marks.into_iter().map(UnsafeCell::into_inner).sum::<u64>();
            }
        }
        counted
    }
}

/// Asks for `range` in one of the ways there are, visits the shadow if it was granted, and says how many cells that
/// were.
fn ask_somehow(
    lock: &Arc<RangeLock>,
    shadow: &Shadow,
    me: usize,
    (range, scale): (ByteRange, u32),
    mode: Mode,
    rng: &mut Rng,
) -> u64 {
    let seed = rng.u64(..);
    let visit = |draw: &dyn Fn() -> u64| shadow.visit(me, (range, scale), mode, &mut Rng::with_seed(seed), draw);
    let patience = Duration::from_micros(rng.u64(0..300));
    // The guard is named in each arm: it must live through the visit.
    let granted = match rng.u8(0..12) {
        0 | 1 => {
            let guard = match mode {
                Mode::Add => lock.add(range),
                Mode::Block => lock.block(range),
                Mode::Exclusive => lock.exclusive(range),
            };
            visit(&|| guard.ticket());
            true
        }
        2 => {
            let guard = lock.request(range, mode).wait().unwrap();
            visit(&|| guard.ticket());
            true
        }
        3 | 4 => lock.request(range, mode).try_now().map(|guard| visit(&|| guard.ticket())).is_some(),
        5 | 6 => lock.request(range, mode).timeout(patience).wait().map(|guard| visit(&|| guard.ticket())).is_ok(),
        7 => {
            let guard = block_on(lock.request(range, mode));
            visit(&|| guard.ticket());
            true
        }
        8 => {
            let guard = block_on(lock.request_arc(range, mode));
            visit(&|| guard.ticket());
            true
        }
        9 => lock.request_arc(range, mode).timeout(patience).wait().map(|guard| visit(&|| guard.ticket())).is_ok(),
        10 => {
            let guard = lock.request_arc(range, mode).wait();
            visit(&|| guard.ticket());
            true
        }
        // Polled a few times, then given up.
        _ => {
            let mut future = lock.request(range, mode).into_future();
            (0..rng.u8(1..4)).any(|_| {
                let ready = match poll_once(&mut future) {
                    std::task::Poll::Ready(guard) => {
                        visit(&|| guard.ticket());
                        true
                    }
                    std::task::Poll::Pending => false,
                };
                if !ready {
                    thread::yield_now();
                }
                ready
            })
        }
    };
    match (granted, range.start(), range.last()) {
        (true, Some(start), Some(last)) => (last >> scale) - (start >> scale) + 1,
        _ => 0,
    }
}

/// [`hammer_on`] with a lock of its own, which is its root again at the end.
fn hammer(
    test: &'static str,
    threads: usize,
    cells: usize,
    scale: u32,
    range: impl Fn(&mut Rng, usize) -> ByteRange + Sync,
) {
    hammer_with(Duration::ZERO, test, threads, cells, scale, range);
}

/// The same on a lock with a window.
fn hammer_with(
    window: Duration,
    test: &'static str,
    threads: usize,
    cells: usize,
    scale: u32,
    range: impl Fn(&mut Rng, usize) -> ByteRange + Sync,
) {
    let lock = Arc::new(RangeLock::new().reordering(window));
    hammer_on(&lock, test, threads, cells, scale, range);
    lock.trim();
    assert_eq!(lock.heap_nodes(), 0, "nodes are left with nobody there");
}

/// `threads` threads, each asking for ranges from `range` until the time is over. The shadow must have counted what
/// they did.
fn hammer_on(
    lock: &Arc<RangeLock>,
    test: &'static str,
    threads: usize,
    cells: usize,
    scale: u32,
    range: impl Fn(&mut Rng, usize) -> ByteRange + Sync,
) {
    let shadow = Shadow::new(cells);
    let watchdog = Watchdog::new(test);
    let end = Instant::now() + common::stress_time();
    let mut expected = [0; 3];
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|me| {
                let (shadow, watchdog, range) = (&shadow, &watchdog, &range);
                scope.spawn(move || {
                    let mut rng = Rng::with_seed(me as u64);
                    let mut done = [0; 3];
                    while Instant::now() < end {
                        let mode = Mode::ALL[[0, 0, 0, 1, 1, 1, 2][rng.usize(0..7)]];
                        let range = range(&mut rng, me);
                        done[mode as usize] += ask_somehow(lock, shadow, me, (range, scale), mode, &mut rng);
                        watchdog.step();
                    }
                    done
                })
            })
            .collect();
        for worker in workers {
            let done = worker.join().expect("a worker found two holders at once");
            (0..3).for_each(|mode| expected[mode] += done[mode]);
        }
    });
    assert_eq!(shadow.counted(), expected, "visits (add, block, exclusive) were lost");
    assert!(expected.iter().all(|&visits| visits > 0), "a mode was never granted: {expected:?}");
}

/// Everybody meets everybody.
#[test]
fn four_threads_on_a_few_bytes() {
    hammer("four_threads_on_a_few_bytes", 4, 8, 0, |rng, _| {
        let start = rng.u64(0..8);
        ByteRange::new(start..=rng.u64(start..8))
    });
}

/// More threads than processors: whoever is descheduled in the middle of something must not open a gap.
#[test]
fn sixteen_threads_oversubscribed() {
    hammer("sixteen_threads_oversubscribed", 16, 32, 0, |rng, _| {
        let start = rng.u64(0..32);
        ByteRange::new(start..=(start + rng.u64(0..6)).min(31))
    });
}

/// Newcomers pass, and now and then somebody has waited for the window.
#[test]
fn sixteen_threads_with_a_window() {
    let window = Duration::from_micros(200);
    hammer_with(window, "sixteen_threads_with_a_window", 16, 32, 0, |rng, _| {
        let start = rng.u64(0..32);
        ByteRange::new(start..=(start + rng.u64(0..6)).min(31))
    });
}

/// All in each other's way, and more of them than a node has room for: those who wait are in several, and newcomers go
/// into the newest.
#[test]
fn a_crowd_at_one_range_with_a_window() {
    hammer_with(Duration::from_millis(1), "a_crowd_at_one_range_with_a_window", MAX_THREADS, 8, 0, |_, _| {
        ByteRange::new(0..8)
    });
}

/// The same all over a tree.
#[test]
fn all_of_u64_with_a_window() {
    let window = Duration::from_millis(1);
    hammer_with(window, "all_of_u64_with_a_window", 6, 64, 58, |rng, _| {
        let first = rng.u64(0..64);
        let last = if rng.u8(0..40) == 0 { 63 } else { (first + rng.u64(0..3)).min(63) };
        ByteRange::new(first << 58..=(last << 58 | ((1 << 58) - 1)))
    });
}

/// Over all of `u64`, with whole-file requests and single cells: the tree grows, and what is held lies at every level
/// of it.
#[test]
fn all_of_u64_at_every_level() {
    hammer("all_of_u64_at_every_level", 6, 64, 58, |rng, _| match rng.u8(0..40) {
        0 => ByteRange::WHOLE,
        1 => ByteRange::new(rng.u64(..)..),
        2 => ByteRange::EMPTY,
        _ => {
            let first = rng.u64(0..64);
            let last = (first + rng.u64(0..3)).min(63);
            ByteRange::new(first << 58..=(last << 58 | ((1 << 58) - 1)))
        }
    });
}

/// Mostly each thread in its own place, so that the tree grows there, and at times in its neighbour's: then nodes are
/// made, left and pruned while others look for them.
#[test]
fn growing_and_pruning_under_fire() {
    hammer("growing_and_pruning_under_fire", 8, 256, 40, |rng, me| {
        let home = if rng.u8(0..10) == 0 { rng.u64(0..8) } else { me as u64 };
        let first = home * 32 + rng.u64(0..32);
        let last = (first + [0, 0, 0, 1, 5, 64][rng.usize(0..6)]).min(255);
        ByteRange::new(first << 40..=(last << 40 | ((1 << 40) - 1)))
    });
}

/// Nodes are removed all the time, and made anew for the next request: the root has no room, and a thread does nothing
/// but trim.
#[test]
fn trimming_under_fire() {
    let lock = Arc::new(RangeLock::new());
    // Across the middle of all bytes: these cannot go down, and fill the root. Nobody else comes near.
    let crowd: Vec<_> = (0..20).map(|_| lock.request_arc((1 << 63) - 1..=1 << 63, Mode::Add).wait()).collect();
    let (over, pruned) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let trimmer = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let before = lock.heap_nodes();
                lock.trim();
                pruned.fetch_add(before.saturating_sub(lock.heap_nodes()), Ordering::Relaxed);
            }
        });
        // Again if the trimmer had no processor in that time: it then has one sooner or later.
        for _ in 0..10 {
            hammer_on(&lock, "trimming_under_fire", 4, 4, 4, |rng, _| {
                let first = rng.u64(0..4);
                ByteRange::new(first << 4..=first << 4 | 15)
            });
            if pruned.load(Ordering::Relaxed) > 0 {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
        // ThreadSanitizer knows of a join what it does not of a scope's end, which is the standard library's.
        trimmer.join().expect("trim does not panic");
    });
    assert!(pruned.into_inner() > 0, "nothing was ever removed: nothing was tested");
    drop(crowd);
    lock.trim();
    assert_eq!(lock.heap_nodes(), 0, "nodes are left with nobody there");
}

/// A request takes its place in a node at the moment when that node is removed: it must not go with the node, out of
/// everybody's sight. Nobody but this thread asks, so who is granted can see for himself whether a second owner would
/// be refused.
#[test]
fn a_node_is_not_removed_under_a_request() {
    let lock = Arc::new(RangeLock::new());
    // As above: the root has no room.
    let crowd: Vec<_> = (0..20).map(|_| lock.request_arc((1 << 63) - 1..=1 << 63, Mode::Add).wait()).collect();
    let over = AtomicBool::new(false);
    let end = Instant::now() + common::stress_time();
    let mut lost = 0;
    thread::scope(|scope| {
        let trimmer = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                lock.trim();
            }
        });
        while Instant::now() < end {
            for start in 0..100 {
                let guard = lock.exclusive(start..start + 8);
                lost += usize::from(lock.request_arc(start + 7..start + 8, Mode::Add).try_now().is_some());
                drop(guard);
            }
        }
        over.store(true, Ordering::Relaxed);
        trimmer.join().expect("trim does not panic");
    });
    assert_eq!(lost, 0, "held ranges that nobody saw");
    drop(crowd);
    lock.trim();
    assert_eq!(lock.heap_nodes(), 0, "nodes are left with nobody there");
}

/// Two threads meet at the door: released by the same store, they ask for conflicting ranges within a few nanoseconds.
/// That is where each could publish, look, and miss the other.
#[test]
fn two_at_the_door_in_the_same_moment() {
    let end = Instant::now() + common::stress_time();
    let mut both_at_once = 0;
    for round in 0_u64.. {
        // A new lock now and then, alone or with a crowd that has made the tree grow.
        let lock = RangeLock::new();
        let crowd = if round % 2 == 0 { 0 } else { 100 };
        let _crowd: Vec<_> = (0..crowd).map(|i| lock.add(1000 + i..1001 + i)).collect();
        both_at_once += meet_at_the_door(&lock, round);
        if Instant::now() > end {
            break;
        }
    }
    assert!(both_at_once > 0, "they never met: nothing was tested");
}

/// Some hundred meetings; says how often one found the other there.
fn meet_at_the_door(lock: &RangeLock, seed: u64) -> u64 {
    const MEETINGS: u64 = 500;
    let [arrived, left, inside, both_let_in] = [const { AtomicU64::new(0) }; 4];
    let gather = |count: &AtomicU64, meeting: u64| {
        count.fetch_add(1, Ordering::Relaxed);
        let mut spins = 0;
        while count.load(Ordering::Relaxed) < 2 * (meeting + 1) {
            spins += 1;
            if spins < 2000 { std::hint::spin_loop() } else { thread::yield_now() }
        }
    };
    let visitor = |me: u64| {
        // The same numbers for both but for the pause at the door.
        let (mut rng, mut pause) = (Rng::with_seed(seed), Rng::with_seed(seed ^ me << 32));
        let mut refused = 0;
        for meeting in 0..MEETINGS {
            let modes = [(0, 1), (1, 2), (2, 0), (2, 2)][rng.usize(0..4)];
            let mode = Mode::ALL[if me == 0 { modes.0 } else { modes.1 }];
            let range = match (me, rng.u8(0..4)) {
                (_, 0) => ByteRange::new(0..1),
                (0, 1) => ByteRange::new(0..64),
                (1, 2) => ByteRange::new(..1000),
                _ => ByteRange::new(0..8),
            };
            let tries = rng.bool();
            gather(&arrived, meeting);
            (0..pause.u8(0..8)).for_each(|_| std::hint::spin_loop());
            let mut future = lock.request(range, mode).into_future();
            let tried = if tries { lock.request(range, mode).try_now() } else { None };
            let polled = if tries { std::task::Poll::Pending } else { poll_once(&mut future) };
            if tried.is_some() || polled.is_ready() {
                // Counted, and judged at the end: a panic here would leave the other one alone at the door.
                both_let_in.fetch_add(inside.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
            } else {
                refused += 1;
            }
            // Nobody leaves before both have asked.
            gather(&left, meeting);
            if tried.is_some() || polled.is_ready() {
                inside.fetch_sub(1, Ordering::Relaxed);
            }
        }
        refused
    };
    let refused = thread::scope(|scope| {
        let other = scope.spawn(|| visitor(1));
        visitor(0) + other.join().expect("a visitor only counts")
    });
    assert_eq!(both_let_in.into_inner(), 0, "meetings where both were let in, of {MEETINGS} (seed {seed})");
    refused
}

/// The whole-file face of the same lock.
#[test]
fn whole_file() {
    let lock = WholeFileLock::new();
    let shadow = Shadow::new(1);
    let watchdog = Watchdog::new("whole_file");
    let end = Instant::now() + common::stress_time();
    let mut expected = [0; 3];
    thread::scope(|scope| {
        let workers: Vec<_> = (0..6)
            .map(|me| {
                let (lock, shadow, watchdog) = (&lock, &shadow, &watchdog);
                scope.spawn(move || {
                    let mut rng = Rng::with_seed(me as u64);
                    let mut done = [0; 3];
                    while Instant::now() < end {
                        let mode = Mode::ALL[rng.usize(0..3)];
                        let guard = match (rng.u8(0..4), mode) {
                            (0, Mode::Add) => lock.try_add(),
                            (0, Mode::Block) => lock.try_block(),
                            (0, Mode::Exclusive) => lock.try_exclusive(),
                            (1, _) => lock.request(mode).timeout(Duration::from_micros(100)).wait().ok(),
                            (_, Mode::Add) => Some(lock.add()),
                            (_, Mode::Block) => Some(lock.block()),
                            (_, Mode::Exclusive) => Some(lock.exclusive()),
                        };
                        if let Some(guard) = &guard {
                            shadow.visit(me, (ByteRange::new(0..1), 0), mode, &mut rng, &|| guard.ticket());
                            done[mode as usize] += 1;
                        }
                        drop(guard);
                        watchdog.step();
                    }
                    done
                })
            })
            .collect();
        for worker in workers {
            let done = worker.join().expect("a worker found two holders at once");
            (0..3).for_each(|mode| expected[mode] += done[mode]);
        }
    });
    assert_eq!(shadow.counted(), expected, "visits (add, block, exclusive) were lost");
}
