//! Promise: exclusion, and first come, first served, for threads that are at home somewhere and so take shortcuts
//! (`tree::shortcut`).
//!
//! Each thread takes its own page again and again, which is what gives it a shortcut past the nodes above. Others ask
//! for ranges that cover many homes, change what they hold, give up, or give nodes back. Each page of a shadow counts
//! who is inside. Whoever is queued says so, and nobody who begins then may be granted before him.
//!
//! `SPANLOCK_STRESS_MS` sets how long each test goes on.

mod common;

use common::inside::Inside;
use common::poll::{block_on, poll_once};
use common::watch::Watchdog;
use fastrand::Rng;
use parking_lot::RwLock;
use spanlock::{Batch, Mode, Owner, RangeGuard, RangeLock};
use std::cell::Cell;
use std::future::{Future, IntoFuture};
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, LazyLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Pages that are somebody's home, or are not.
const PAGES: usize = 16;
const PAGE_SHIFT: u32 = 12;

/// Waiters that can be in everybody's sight at once.
const SEATS: usize = 4;

/// Some pages, by the first and the last.
type Pages = RangeInclusive<usize>;

fn bytes(pages: &Pages) -> RangeInclusive<u64> {
    (*pages.start() as u64) << PAGE_SHIFT..=((*pages.end() as u64 + 1) << PAGE_SHIFT) - 1
}

fn meet(one: &Pages, other: &Pages) -> bool {
    one.start().max(other.start()) <= one.end().min(other.end())
}

/// A page of its own for thread `me`: some close together, so that there are nodes below nodes.
fn home(me: usize) -> usize {
    me * 5 % PAGES
}

fn any_pages(rng: &mut Rng) -> Pages {
    match rng.u8(0..4) {
        0 => 0..=PAGES - 1,
        1 => {
            // The span of a node, or of half of one.
            let size = [2, 4, 8][rng.usize(0..3)];
            let first = rng.usize(0..PAGES / size) * size;
            first..=first + size - 1
        }
        _ => {
            let first = rng.usize(0..PAGES);
            first..=rng.usize(first..PAGES)
        }
    }
}

fn any_mode(rng: &mut Rng) -> Mode {
    Mode::ALL[[0, 1, 2, 2][rng.usize(0..4)]]
}

/// Somebody who is queued, as a word: the number of the request, its pages and its mode; odd while it waits.
#[derive(Debug, Default)]
struct Seat(AtomicU64);

impl Seat {
    fn take(&self, pages: &Pages, mode: Mode) -> u64 {
        let number = (self.0.load(Ordering::Relaxed) >> 16) + 1;
        let said = number << 16 | (*pages.start() as u64) << 8 | (*pages.end() as u64) << 4 | (mode as u64) << 1;
        self.0.store(said | 1, Ordering::SeqCst);
        said
    }

    fn leave(&self, said: u64) {
        self.0.store(said, Ordering::SeqCst);
    }

    /// What it says, if he who has it is in the way of such a request.
    fn in_the_way(&self, pages: &Pages, mode: Mode) -> Option<u64> {
        let said = self.0.load(Ordering::SeqCst);
        let its_pages = (said >> 8 & 15) as usize..=(said >> 4 & 15) as usize;
        let its_mode = Mode::ALL[(said >> 1 & 3) as usize];
        (said & 1 == 1 && meet(&its_pages, pages) && !common::together(its_mode, mode)).then_some(said)
    }
}

/// Who is inside, and who waits.
#[derive(Debug, Default)]
struct Shadow {
    pages: [Inside; PAGES],
    seats: [Seat; SEATS],
    visits: AtomicU64,
}

impl Shadow {
    fn enter(&self, pages: Pages, mode: Mode) {
        for page in pages {
            self.pages[page].enter(mode);
        }
    }

    fn leave(&self, pages: Pages, mode: Mode) {
        for page in pages {
            self.pages[page].leave(mode);
        }
    }

    /// Who waits in front of such a request that begins now.
    fn queue(&self, pages: &Pages, mode: Mode) -> [Option<u64>; SEATS] {
        std::array::from_fn(|seat| self.seats[seat].in_the_way(pages, mode))
    }

    /// The request is granted: nobody who was in the queue waits still.
    fn assert_in_turn(&self, queue: [Option<u64>; SEATS]) {
        for (seat, found) in self.seats.iter().zip(queue) {
            let now = seat.0.load(Ordering::SeqCst);
            assert!(found.is_none_or(|found| found != now), "somebody who waited was overtaken: {now:x}");
        }
    }

    /// What a holder does.
    fn stay(&self, pages: Pages, mode: Mode, rng: &mut Rng) {
        self.enter(pages.clone(), mode);
        pause(rng);
        self.leave(pages, mode);
        self.visits.fetch_add(1, Ordering::Relaxed);
    }

    fn assert_empty(&self) {
        assert!(self.visits.load(Ordering::Relaxed) > 0, "nobody came");
        self.pages.iter().for_each(Inside::assert_empty);
    }

    /// What who is granted in his turn does, and then drops his guard.
    fn visit<G>(&self, guard: G, queue: [Option<u64>; SEATS], pages: Pages, mode: Mode, rng: &mut Rng) {
        self.assert_in_turn(queue);
        self.stay(pages, mode, rng);
        drop(guard);
    }
}

fn pause(rng: &mut Rng) {
    match rng.u8(0..64) {
        0 => thread::yield_now(),
        1..8 => (0..rng.u32(0..200)).for_each(|_| std::hint::spin_loop()),
        _ => {}
    }
}

/// A visit of one's own page, in the one or the other way.
fn be_at_home(lock: &RangeLock, shadow: &Shadow, page: usize, rng: &mut Rng) {
    let (pages, mode) = (page..=page, [Mode::Exclusive, Mode::Exclusive, Mode::Block, Mode::Add][rng.usize(0..4)]);
    let queue = shadow.queue(&pages, mode);
    let request = lock.request(bytes(&pages), mode);
    let granted = match rng.u8(0..32) {
        0 => request.try_now(),
        1 => request.timeout(Duration::from_micros(rng.u64(0..50))).wait().ok(),
        _ => Some(request.wait().expect("it holds nothing else")),
    };
    if let Some(guard) = granted {
        shadow.visit(guard, queue, pages, mode, rng);
    }
}

/// Queues in everybody's sight, and then waits or gives up.
fn be_seen_waiting(lock: &RangeLock, shadow: &Shadow, seat: usize, rng: &mut Rng) {
    let (pages, mode) = (any_pages(rng), any_mode(rng));
    let queue = shadow.queue(&pages, mode);
    let mut future = lock.request(bytes(&pages), mode).into_future();
    let guard = match poll_once(&mut future) {
        Poll::Ready(guard) => guard,
        Poll::Pending => {
            let seat = &shadow.seats[seat];
            let said = seat.take(&pages, mode);
            (0..rng.u32(0..300)).for_each(|_| std::hint::spin_loop());
            if rng.u8(0..4) == 0 {
                seat.leave(said);
                return drop(future);
            }
            let guard = block_on(future);
            seat.leave(said);
            guard
        }
    };
    shadow.visit(guard, queue, pages, mode, rng);
}

/// What a holder has, and what is written down of it.
struct Hold<'l> {
    guard: RangeGuard<'l>,
    pages: Pages,
    mode: Mode,
}

impl<'l> Hold<'l> {
    fn take(lock: &'l RangeLock, shadow: &Shadow, rng: &mut Rng) -> Hold<'l> {
        let (pages, mode) = (any_pages(rng), any_mode(rng));
        let queue = shadow.queue(&pages, mode);
        let guard = lock.request(bytes(&pages), mode).wait().expect("it holds nothing else");
        shadow.assert_in_turn(queue);
        shadow.enter(pages.clone(), mode);
        Hold { guard, pages, mode }
    }

    fn rewrite(&mut self, shadow: &Shadow, pages: Pages, mode: Mode) {
        shadow.leave(self.pages.clone(), self.mode);
        shadow.enter(pages.clone(), mode);
        (self.pages, self.mode) = (pages, mode);
    }

    /// What is held less is struck out before, what is held more is entered behind.
    fn change(mut self, shadow: &Shadow, rng: &mut Rng) -> Hold<'l> {
        let (first, last) = (*self.pages.start(), *self.pages.end());
        match rng.u8(0..5) {
            0 if self.mode == Mode::Exclusive => {
                let mode = [Mode::Add, Mode::Block][rng.usize(0..2)];
                self.rewrite(shadow, self.pages.clone(), mode);
                self.guard.downgrade(mode);
            }
            1 => {
                let from = rng.usize(first..=last);
                self.rewrite(shadow, from..=rng.usize(from..=last), self.mode);
                self.guard.shrink(bytes(&self.pages));
            }
            2 if first < last => {
                let at = rng.usize(first + 1..=last);
                let (head, tail) = self.guard.split(*bytes(&(at..=at)).start());
                let (pages, kept, gone) =
                    if rng.bool() { (first..=at - 1, head, tail) } else { (at..=last, tail, head) };
                self = Hold { guard: kept, pages: self.pages, mode: self.mode };
                pause(rng);
                self.rewrite(shadow, pages, self.mode);
                drop(gone);
            }
            3 => {
                let mode = any_mode(rng);
                shadow.leave(self.pages.clone(), self.mode);
                if self.guard.try_convert(mode) {
                    self.mode = mode;
                }
                shadow.enter(self.pages.clone(), self.mode);
            }
            _ => {
                let pages = rng.usize(0..=first)..=rng.usize(last..PAGES);
                if self.guard.try_extend(bytes(&pages)) {
                    self.rewrite(shadow, pages, self.mode);
                }
            }
        }
        self
    }

    fn drop(self, shadow: &Shadow) {
        shadow.leave(self.pages, self.mode);
        drop(self.guard);
    }
}

/// Two ranges under one ticket, what a token asks for, or what has a deadline.
fn ask_otherwise(lock: &RangeLock, shadow: &Shadow, rng: &mut Rng) {
    let (pages, mode) = (any_pages(rng), any_mode(rng));
    let queue = shadow.queue(&pages, mode);
    match rng.u8(0..3) {
        0 => {
            let far = 1 << 40..=1 << 41;
            let batch = Batch::new().request(lock, bytes(&pages), mode).request(lock, far, Mode::Add);
            let granted = if rng.bool() { batch.try_now() } else { Some(batch.wait().expect("it holds nothing else")) };
            if let Some(guard) = granted {
                shadow.visit(guard, queue, pages, mode, rng);
            }
        }
        1 => {
            let guard = lock.request(bytes(&pages), mode).owner(&Owner::new()).wait().expect("it holds nothing else");
            shadow.visit(guard, queue, pages, mode, rng);
        }
        _ => {
            if let Ok(guard) = lock.request(bytes(&pages), mode).timeout(Duration::from_micros(50)).wait() {
                shadow.visit(guard, queue, pages, mode, rng);
            }
        }
    }
}

/// Fills the root for a moment with pages far away, so that homes have nodes of their own below.
fn crowd(lock: &RangeLock, rng: &mut Rng) {
    let far = |at: u64| (3 << 62) + (at << 20)..=(3 << 62) + (at << 20);
    let guards: Vec<_> = (0..8).filter_map(|at| lock.try_add(far(at))).collect();
    (0..rng.u32(0..20_000)).for_each(|_| std::hint::spin_loop());
    drop(guards);
}

/// What thread `me` of those who are at home nowhere does once.
fn roam(lock: &RangeLock, shadow: &Shadow, me: usize, rng: &mut Rng) {
    match rng.u8(0..16) {
        0 => lock.trim(),
        1 => crowd(lock, rng),
        2..7 => be_seen_waiting(lock, shadow, me % SEATS, rng),
        7..11 => {
            let mut hold = Hold::take(lock, shadow, rng);
            if rng.u8(0..4) == 0 {
                // Those whose homes are elsewhere get shortcuts beside it, and others queue behind it.
                thread::sleep(Duration::from_micros(rng.u64(0..300)));
            }
            for _ in 0..rng.u8(1..4) {
                hold = hold.change(shadow, rng);
                pause(rng);
            }
            hold.drop(shadow);
        }
        _ => ask_otherwise(lock, shadow, rng),
    }
}

/// Some time in which others are left alone, so that they get shortcuts.
fn leave_alone(rng: &mut Rng) {
    match rng.u8(0..4) {
        0 => {}
        1 => (0..rng.u32(0..5_000)).for_each(|_| std::hint::spin_loop()),
        _ => thread::sleep(Duration::from_micros(rng.u64(0..300))),
    }
}

/// Everybody has gone.
fn assert_idle(lock: &RangeLock, shadow: &Shadow) {
    shadow.assert_empty();
    assert_eq!(lock.snapshot().requests().len(), 0, "a request was left behind");
    lock.trim();
    assert_eq!(lock.heap_nodes(), 0, "nodes are left with nobody there");
}

fn homes_under_fire(test: &'static str, homes: usize, roamers: usize) {
    let (lock, shadow, watchdog) = (RangeLock::new(), Shadow::default(), Watchdog::new(test));
    let end = Instant::now() + common::stress_time();
    thread::scope(|scope| {
        for me in 0..homes + roamers {
            let (lock, shadow, watchdog) = (&lock, &shadow, &watchdog);
            scope.spawn(move || {
                let mut rng = Rng::with_seed(me as u64 + common::from_env("SPANLOCK_SEED", 0) * 1000);
                while Instant::now() < end {
                    if me < homes {
                        (0..64).for_each(|_| be_at_home(lock, shadow, home(me), &mut rng));
                    } else {
                        leave_alone(&mut rng);
                        roam(lock, shadow, me - homes, &mut rng);
                    }
                    watchdog.step();
                }
            });
        }
    });
    assert_idle(&lock, &shadow);
}

/// A few at home, one who comes by.
#[test]
fn two_at_home_and_one_who_roams() {
    homes_under_fire("two_at_home_and_one_who_roams", 2, 1);
}

/// As many waiters at once as have seats.
#[test]
fn four_at_home_and_four_who_roam() {
    homes_under_fire("four_at_home_and_four_who_roam", 4, SEATS);
}

/// Locks that are moved, exchanged for one another, dropped and made anew where another one was, under threads that
/// stay and keep what they remember; and threads that end while they remember something.
#[test]
fn locks_that_come_and_go() {
    const LOCKS: usize = 3;
    const THREADS: usize = 4;
    let watchdog = Watchdog::new("locks_that_come_and_go");
    let end = Instant::now() + common::stress_time();
    let mut rng = Rng::with_seed(common::from_env("SPANLOCK_SEED", 0));
    let locks: RwLock<Vec<RangeLock>> = RwLock::new((0..LOCKS).map(|_| RangeLock::new()).collect());
    let shadows: [Shadow; LOCKS] = Default::default();
    while Instant::now() < end {
        // Threads for some rounds.
        const ROUNDS: usize = 8;
        let (begin, over) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
        let seed = rng.u64(..);
        thread::scope(|scope| {
            for me in 0..THREADS {
                let (locks, shadows, begin, over) = (&locks, &shadows, &begin, &over);
                scope.spawn(move || {
                    let mut rng = Rng::with_seed(seed + me as u64);
                    for _ in 0..ROUNDS {
                        begin.wait();
                        let locks = locks.read();
                        for _ in 0..rng.u8(1..4) {
                            let which = rng.usize(0..LOCKS);
                            let (lock, shadow) = (&locks[which], &shadows[which]);
                            (0..rng.u32(0..200)).for_each(|_| be_at_home(lock, shadow, home(me), &mut rng));
                            if rng.u8(0..4) == 0 {
                                roam(lock, shadow, me, &mut rng);
                            }
                        }
                        drop(locks);
                        over.wait();
                    }
                });
            }
            for _ in 0..ROUNDS {
                if rng.bool() {
                    locks.read().iter().for_each(|lock| crowd(lock, &mut rng));
                }
                begin.wait();
                over.wait();
                let mut locks = locks.write();
                let (one, other) = (rng.usize(0..LOCKS), rng.usize(0..LOCKS));
                match rng.u8(0..6) {
                    0 => locks[one] = RangeLock::new(),
                    1 => locks.swap(one, other),
                    2 => *locks = locks.drain(..).collect::<Vec<_>>().into_iter().rev().collect(),
                    3 => locks[one].trim(),
                    4 => {
                        let moved = std::mem::take(&mut locks[one]);
                        locks[other] = moved;
                    }
                    _ => {}
                }
                watchdog.step();
            }
        });
    }
    for (lock, shadow) in locks.into_inner().into_iter().zip(&shadows) {
        assert_idle(&lock, shadow);
    }
}

/// Wakes a thread; but first it takes a page, or gives nodes back, on whatever thread it is called.
struct Visiting {
    lock: Arc<RangeLock>,
    shadow: &'static Shadow,
    page: usize,
    sleeper: Thread,
}

impl Wake for Visiting {
    fn wake(self: Arc<Self>) {
        let mut rng = Rng::with_seed(self.page as u64);
        let (pages, mode) = (self.page..=self.page, Mode::Exclusive);
        // Each asks as an owner of its own: the thread that calls may hold something.
        for _ in 0..3 {
            let queue = self.shadow.queue(&pages, mode);
            if let Some(guard) = self.lock.request_arc(bytes(&pages), mode).try_now() {
                self.shadow.visit(guard, queue, pages.clone(), mode, &mut rng);
            }
        }
        if self.page == 0 {
            self.lock.trim();
        }
        self.sleeper.unpark();
    }
}

/// Wakers that use the lock themselves, on the thread that has just released there, or turned back.
#[test]
fn wakers_that_visit() {
    const HOMES: usize = 2;
    static SHADOW: LazyLock<Shadow> = LazyLock::new(Shadow::default);
    let (lock, watchdog) = (Arc::new(RangeLock::new()), Watchdog::new("wakers_that_visit"));
    let end = Instant::now() + common::stress_time();
    thread::scope(|scope| {
        for me in 0..HOMES + 2 {
            let (lock, watchdog) = (&lock, &watchdog);
            scope.spawn(move || {
                let mut rng = Rng::with_seed(me as u64 + common::from_env("SPANLOCK_SEED", 0) * 1000);
                while Instant::now() < end {
                    watchdog.step();
                    if me < HOMES {
                        (0..64).for_each(|_| be_at_home(lock, &SHADOW, home(me), &mut rng));
                        continue;
                    }
                    leave_alone(&mut rng);
                    if rng.u8(0..8) == 0 {
                        crowd(lock, &mut rng);
                    }
                    let (pages, mode) = (any_pages(&mut rng), any_mode(&mut rng));
                    let mut future = lock.request_arc(bytes(&pages), mode).into_future();
                    let page = home(rng.usize(0..HOMES));
                    let visiting = Visiting { lock: lock.clone(), shadow: &SHADOW, page, sleeper: thread::current() };
                    let waker = Waker::from(Arc::new(visiting));
                    let guard = loop {
                        match Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
                            Poll::Ready(guard) => break guard,
                            Poll::Pending => thread::park(),
                        }
                    };
                    SHADOW.stay(pages, mode, &mut rng);
                    drop(guard);
                }
            });
        }
    });
    assert_idle(&lock, &SHADOW);
}

/// Threads that end, and use locks on while they do: before and after what they remember is let go of. Nothing stays
/// (LeakSanitizer looks).
#[test]
fn threads_that_end() {
    static LOCK: RangeLock = RangeLock::new();
    static SHADOW: LazyLock<Shadow> = LazyLock::new(Shadow::default);
    struct AtEnd(Cell<usize>);
    impl Drop for AtEnd {
        fn drop(&mut self) {
            let mut rng = Rng::with_seed(1);
            (0..200).for_each(|_| be_at_home(&LOCK, &SHADOW, home(self.0.get()), &mut rng));
        }
    }
    thread_local! {
        static FIRST: AtEnd = const { AtEnd(Cell::new(0)) };
        static LAST: AtEnd = const { AtEnd(Cell::new(0)) };
    }
    let watchdog = Watchdog::new("threads_that_end");
    let end = Instant::now() + common::stress_time();
    let mut rng = Rng::with_seed(common::from_env("SPANLOCK_SEED", 0));
    while Instant::now() < end {
        crowd(&LOCK, &mut rng);
        let own = RangeLock::new();
        thread::scope(|scope| {
            for me in 0..3 {
                let (own, seed) = (&own, rng.u64(..));
                scope.spawn(move || {
                    let mut rng = Rng::with_seed(seed);
                    FIRST.with(|first| first.0.set(me));
                    let lock = if rng.bool() { &LOCK } else { own };
                    let shadow = Shadow::default();
                    let shadow = if std::ptr::eq(lock, &LOCK) { &*SHADOW } else { &shadow };
                    if std::ptr::eq(lock, own) {
                        // Alone with its own shadow: others of the same lock have other pages.
                        crowd(lock, &mut rng);
                    }
                    (0..rng.u32(0..400)).for_each(|_| be_at_home(lock, shadow, home(me), &mut rng));
                    LAST.with(|last| last.0.set(me));
                    if rng.u8(0..4) == 0 {
                        LOCK.trim();
                    }
                });
            }
        });
        watchdog.step();
    }
    LOCK.trim();
}
