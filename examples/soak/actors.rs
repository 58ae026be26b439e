//! What the threads and tasks of a round do, again and again, until it is over.

use crate::shadow::Shadow;
use crate::stuck;
use crate::world::{KEYS, Place, World, mode, stay};
use fastrand::Rng;
use spanlock::{AcquireError, Batch, ByteRange, Guard, LockRef, Mode, OwnedBy, Owner, RangeLock};
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// How often what was done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) counts: [u64; KINDS.len()],
    pub(crate) deadlocks: u64,
    pub(crate) timed_out: u64,
    pub(crate) refused: u64,
    pub(crate) stuck: u64,
    pub(crate) cancelled: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Tally) {
        self.counts.iter_mut().zip(other.counts).for_each(|(sum, count)| *sum += count);
        self.deadlocks += other.deadlocks;
        self.timed_out += other.timed_out;
        self.refused += other.refused;
        self.stuck += other.stuck;
        self.cancelled += other.cancelled;
    }

    pub(crate) fn sum(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn note(&mut self, error: &AcquireError) {
        *(match error {
            AcquireError::Deadlock(_) => &mut self.deadlocks,
            _ => &mut self.timed_out,
        }) += 1;
    }
}

type Action = fn(&World, &mut Rng, &mut Tally);

/// What is done, how often (of the sum of all), and how.
pub(crate) const KINDS: [(&str, u32, Action); 15] = [
    ("waits", 22, waits),
    ("tries", 10, tries),
    ("deadlines", 10, deadlines),
    ("nested, by a thread", 8, nests),
    ("transactions of an owner", 12, transaction),
    ("batches", 8, batch),
    ("conversions", 10, converts),
    ("futures, cancelled or not", 8, futures),
    ("table", 8, table),
    ("crowds", 1, crowd),
    ("snapshots", 1, snapshot),
    ("trims", 2, trim),
    ("where some are stuck", 20, stuck::comes),
    ("marks, taken back", 4, stuck::marks),
    ("drains", 4, stuck::drains),
];

/// A thread's life in a round.
pub(crate) fn act(world: &World, actor: usize, seed: u64) -> Tally {
    let (mut tally, mut random) = (Tally::default(), Rng::with_seed(seed));
    while !world.is_over() {
        let mut at = random.u32(..KINDS.iter().map(|(_, weight, _)| weight).sum::<u32>());
        let kind = KINDS.iter().position(|(_, weight, _)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        let kind = kind.expect("it is below the sum");
        (KINDS[kind].2)(world, &mut random, &mut tally);
        tally.counts[kind] += 1;
        world.steps[actor].fetch_add(1, Ordering::Relaxed);
    }
    tally
}

fn waits(world: &World, random: &mut Rng, _: &mut Tally) {
    let (place, mode) = (world.place(random), mode(random));
    let range = place.range(random);
    let guard = match mode {
        Mode::Add => place.lock.add(range),
        Mode::Block => place.lock.block(range),
        Mode::Exclusive => place.lock.exclusive(range),
    };
    world.visit(&place.shadow, range, mode, random);
    drop(guard);
}

fn tries(world: &World, random: &mut Rng, tally: &mut Tally) {
    let (place, mode) = (world.place(random), mode(random));
    let range = place.range(random);
    match place.lock.request_arc(range, mode).try_now() {
        Some(_guard) => world.visit(&place.shadow, range, mode, random),
        None => tally.refused += 1,
    }
}

fn deadlines(world: &World, random: &mut Rng, tally: &mut Tally) {
    let (place, mode) = (world.place(random), mode(random));
    let range = place.range(random);
    let timeout = Duration::from_micros(random.u64(..300));
    match place.lock.request(range, mode).timeout(timeout).wait() {
        Ok(_guard) => world.visit(&place.shadow, range, mode, random),
        Err(error) => tally.note(&error),
    }
}

/// A second range while the first is held. Cells that are held already are not entered again: an owner may hold them in
/// two modes.
fn nests(world: &World, random: &mut Rng, tally: &mut Tally) {
    let outer = world.place(random);
    let (outer_range, outer_mode) = (outer.range(random), mode(random));
    let Ok(first) = outer.lock.request(outer_range, outer_mode).wait() else {
        return world.fail("an outermost request was refused".to_owned());
    };
    world.enter(&outer.shadow, outer_range, outer_mode);
    let (inner, inner_mode) = (world.place(random), mode(random));
    let inner_range = inner.range(random);
    match inner.lock.request(inner_range, inner_mode).wait() {
        Ok(_second) => {
            if !std::ptr::eq(inner, outer) {
                world.visit(&inner.shadow, inner_range, inner_mode, random);
            }
        }
        Err(error) => tally.note(&error),
    }
    outer.shadow.leave(outer_range, outer_mode);
    drop(first);
}

/// Two to four ranges, one in each of several places, as an owner takes them that does not know before what it needs.
/// If it is refused, it lets go of everything and takes all at once.
fn transaction(world: &World, random: &mut Rng, tally: &mut Tally) {
    let owner = Owner::new();
    let mut order: Vec<usize> = (0..world.places.len()).collect();
    random.shuffle(&mut order);
    order.truncate(random.usize(2..=4));
    let mut held = Vec::new();
    for at in order {
        let (place, mode) = (&world.places[at], mode(random));
        let range = place.range(random);
        match place.lock.request_arc(range, mode).owner(&owner).wait() {
            Ok(guard) => {
                world.enter(&place.shadow, range, mode);
                held.push((place, guard));
            }
            Err(error) => {
                tally.note(&error);
                let mut batch = Batch::new().owner(&owner).request(Arc::clone(&place.lock), range, mode);
                let mut regained = vec![(place, range, mode)];
                for (place, guard) in held.drain(..) {
                    regained.push((place, guard.range(), guard.mode()));
                    place.shadow.leave(guard.range(), guard.mode());
                    batch = batch.regain(guard);
                }
                match batch.wait() {
                    Ok(_all) => {
                        regained.iter().for_each(|&(place, range, mode)| world.enter(&place.shadow, range, mode));
                        regained.iter().for_each(|&(place, range, mode)| place.shadow.leave(range, mode));
                    }
                    Err(error) => world.fail(format!("an outermost batch was refused: {error}")),
                }
                return;
            }
        }
    }
    stay(random);
    for (place, guard) in held {
        place.shadow.leave(guard.range(), guard.mode());
        drop(guard);
    }
}

fn batch(world: &World, random: &mut Rng, tally: &mut Tally) {
    let mut batch: Batch<Arc<RangeLock>> = Batch::new();
    let mut asked: Vec<(&Place, ByteRange, Mode)> = Vec::new();
    // Places are not named twice: parts of one batch do not conflict with one another.
    for place in &world.places {
        if random.u32(..2) == 0 {
            let (range, mode) = (place.range(random), mode(random));
            batch = batch.request(Arc::clone(&place.lock), range, mode);
            asked.push((place, range, mode));
        }
    }
    let granted = match random.u32(..4) {
        0 => batch.try_now().ok_or(None),
        1 => batch.timeout(Duration::from_micros(random.u64(..300))).wait().map_err(Some),
        _ => Ok(batch.wait()),
    };
    match granted {
        Ok(_guard) => {
            asked.iter().for_each(|&(place, range, mode)| world.enter(&place.shadow, range, mode));
            stay(random);
            asked.iter().for_each(|&(place, range, mode)| place.shadow.leave(range, mode));
        }
        Err(None) => tally.timed_out += 1,
        Err(Some(error)) => tally.note(&error),
    }
}

fn converts(world: &World, random: &mut Rng, _: &mut Tally) {
    let (place, mode) = (world.place(random), mode(random));
    let range = place.range(random);
    let mut guard = place.lock.request_arc(range, mode).wait();
    let shadow = &place.shadow;
    world.enter(shadow, range, mode);
    // The shadow is left before something is given up, and entered after something is won.
    for _ in 0..random.u32(1..4) {
        let cell = |random: &mut Rng, held: ByteRange| some_cell(random, shadow, held);
        let (held, mode) = (guard.range(), guard.mode());
        match random.u32(..5) {
            0 if mode == Mode::Exclusive => {
                let weaker = if random.bool() { Mode::Add } else { Mode::Block };
                shadow.leave(held, mode);
                world.enter(shadow, held, weaker);
                guard.downgrade(weaker);
            }
            1 => {
                let part = cell(random, held);
                shadow.leave(held, mode);
                world.enter(shadow, part, mode);
                guard.shrink(part);
            }
            2 => {
                let part = cell(random, held);
                let (head, tail) = guard.split(part.start().expect("a cell has bytes"));
                stay(random);
                let (kept, given) = if random.bool() { (head, tail) } else { (tail, head) };
                shadow.leave(given.range(), given.mode());
                drop(given);
                guard = kept;
                if guard.range().is_empty() {
                    return;
                }
            }
            3 => {
                shadow.leave(held, mode);
                let stronger = guard.try_convert(Mode::Exclusive);
                world.enter(shadow, held, if stronger { Mode::Exclusive } else { mode });
            }
            _ => {
                let (first, end) = (shadow.covered(held).start as u64, shadow.cells() - 1);
                let wider =
                    shadow.bytes(first, (first + random.u64(..8)).max(shadow.covered(held).end as u64 - 1).min(end));
                if guard.try_extend(wider) {
                    shadow.leave(held, mode);
                    world.enter(shadow, wider, mode);
                }
            }
        }
        stay(random);
    }
    leave(shadow, &guard);
}

fn some_cell(random: &mut Rng, shadow: &Shadow, held: ByteRange) -> ByteRange {
    let cells = shadow.covered(held);
    let cell = random.usize(cells) as u64;
    shadow.bytes(cell, cell)
}

fn leave<L: LockRef, O: OwnedBy>(shadow: &Shadow, guard: &Guard<L, O>) {
    shadow.leave(guard.range(), guard.mode());
}

/// Says that it was woken.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// Some futures at once, polled when they were woken; a part of them is dropped on the way. Whoever was granted lets go
/// at once, so they come to an end.
fn futures(world: &World, random: &mut Rng, tally: &mut Tally) {
    let place = world.place(random);
    let request = |random: &mut Rng| {
        let (range, mode) = (place.range(random), mode(random));
        (place.lock.request_arc(range, mode).into_future(), Arc::new(Flag(AtomicBool::new(true))), range, mode)
    };
    let mut all: Vec<_> = (0..random.usize(1..8)).map(|_| request(random)).collect();
    let mut idle = 0_u32;
    while !all.is_empty() {
        let at = random.usize(..all.len());
        let (future, flag, range, mode) = &mut all[at];
        if flag.0.swap(false, Ordering::AcqRel) {
            let waker = Waker::from(Arc::clone(flag));
            if let Poll::Ready(guard) = Pin::new(future).poll(&mut Context::from_waker(&waker)) {
                world.visit(&place.shadow, *range, *mode, random);
                drop(guard);
                drop(all.swap_remove(at));
            }
            idle = 0;
        } else if random.u32(..200) == 0 {
            tally.cancelled += 1;
            drop(all.swap_remove(at));
        } else {
            idle += 1;
            if idle > 8 {
                std::thread::yield_now();
            }
        }
    }
}

fn table(world: &World, random: &mut Rng, tally: &mut Tally) {
    let (key, mode) = (random.u64(..KEYS), mode(random));
    let cell = world.table_shadow.bytes(key, key);
    let guard = match random.u32(..3) {
        0 => match mode {
            Mode::Add => world.table.try_add(key, ..),
            Mode::Block => world.table.try_block(key, ..),
            Mode::Exclusive => world.table.try_exclusive(key, ..),
        },
        1 => world.table.request(key, 0..4096, mode).timeout(Duration::from_micros(200)).wait().ok(),
        _ => world.table.request(key, 0..4096, mode).wait().ok(),
    };
    match guard {
        Some(_guard) => world.visit(&world.table_shadow, cell, mode, random),
        None => tally.refused += 1,
    }
}

/// Many at once, somewhere: the tree grows.
fn crowd(world: &World, random: &mut Rng, _: &mut Tally) {
    let place = &world.places[3];
    let first = random.u64(..place.shadow.cells() - 600);
    let cells = (0..random.u64(10..300)).map(|index| first + 2 * index);
    let owner = Owner::new();
    let held: Vec<_> = cells
        .map_while(|cell| {
            let range = place.shadow.bytes(cell, cell);
            let guard =
                place.lock.request_arc(range, Mode::Block).owner(&owner).timeout(Duration::from_millis(1)).wait();
            guard.ok().inspect(|_| world.enter(&place.shadow, range, Mode::Block))
        })
        .collect();
    stay(random);
    held.iter().for_each(|guard| leave(&place.shadow, guard));
}

fn snapshot(world: &World, random: &mut Rng, _: &mut Tally) {
    let snapshot = world.place(random).lock.snapshot();
    if snapshot.requests().len() != snapshot.holders().len() + snapshot.waiters().len() {
        world.fail(format!("a snapshot does not add up:\n{snapshot}"));
    }
}

fn trim(world: &World, random: &mut Rng, _: &mut Tally) {
    world.place(random).lock.trim();
}

/// A task's life in a round: takes a range, lets others go on while it holds it.
pub(crate) async fn task(world: Arc<World>, actor: usize, seed: u64) -> u64 {
    let (mut count, mut random) = (0, Rng::with_seed(seed));
    while !world.is_over() {
        let place = world.place(&mut random);
        let (range, mode) = (place.range(&mut random), mode(&mut random));
        let guard = place.lock.request_arc(range, mode).await;
        world.enter(&place.shadow, range, mode);
        if random.u32(..4) == 0 {
            tokio::task::yield_now().await;
        }
        place.shadow.leave(range, mode);
        drop(guard);
        count += 1;
        world.steps[actor].fetch_add(1, Ordering::Relaxed);
    }
    count
}
