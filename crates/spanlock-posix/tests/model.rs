//! Record locks against a model that knows a kind for each byte and owner, by random histories of calls, in both
//! orders.
//!
//! In order of arrival the oracle of the range lock (`tests/common/owners.rs`) says who is granted, let past, or told
//! of a deadlock: each owner's locks are to it what the owner was granted and has not given up since.
//!
//! In the kernel's order the model says what may be granted; that those who wait could not be, and that nobody waits in
//! a cycle. (Who is refused is the kernel's to say: `tests/kernel.rs`.)
//!
//! Handles are held against a list of their locks.
//!
//! `SPANLOCK_POSIX_STEPS` says how many calls (50,000 in each order).

#[path = "../../../tests/common/mod.rs"]
mod common;

use common::owners::{Begin, Model, Part, Who as Asker};
use common::{Span, from_env};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use spanlock_posix::{Caller, Class, Domain, Error, Extent, Kind, Lock, Options, Order, Pending, RecordLocks, Who};
use std::collections::{BTreeMap, BTreeSet};

const OWNERS: usize = 4;
const FILES: usize = 2;
const BYTES: usize = 12;
const CALLS: usize = 60;
/// Requests of one owner that may wait at a time: a process has threads.
const WAITS: usize = 2;

#[derive(Clone, Copy, Debug)]
enum Verb {
    Try(Kind),
    Wait(Kind),
    Get(Kind),
    Unlock,
    Close,
    Exit,
    Cancel,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    owner: usize,
    verb: Verb,
    file: usize,
    first: u64,
    last: u64,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let kind = prop_oneof![Just(Kind::Read), Just(Kind::Write)];
    let verb = prop_oneof![
        10 => kind.clone().prop_map(Verb::Try),
        12 => kind.clone().prop_map(Verb::Wait),
        3 => kind.prop_map(Verb::Get),
        12 => Just(Verb::Unlock),
        1 => Just(Verb::Close),
        1 => Just(Verb::Exit),
        2 => Just(Verb::Cancel),
    ];
    let file = prop_oneof![4 => Just(0), 1 => Just(1)];
    let call = (0..OWNERS, verb, file, 0..BYTES as u64, 0..5_u64).prop_map(|(owner, verb, file, first, more)| Call {
        owner,
        verb,
        file,
        first,
        last: (first + more).min(BYTES as u64 - 1),
    });
    prop::collection::vec(call, 1..CALLS)
}

fn who(owner: usize) -> Who<usize> {
    Who { class: Class::Process, key: owner }
}

fn pid(owner: usize) -> i32 {
    100 + owner as i32
}

fn extent(first: u64, last: u64) -> Extent {
    Extent::bytes(first..=last).expect("some bytes of a file")
}

/// A kind for each byte of each file.
type Bytes = [[Option<Kind>; BYTES]; FILES];

/// What `owner` holds of `file`, as locks.
fn locks_of(owner: usize, bytes: &[Option<Kind>; BYTES]) -> Vec<Lock<usize>> {
    let mut locks: Vec<Lock<usize>> = Vec::new();
    for (at, kind) in bytes.iter().enumerate() {
        let Some(kind) = *kind else { continue };
        let at = at as u64;
        let first = match locks.pop() {
            Some(last) if last.kind == kind && last.extent.last() == Some(at.wrapping_sub(1)) => last.extent.start(),
            other => {
                locks.extend(other);
                at
            }
        };
        locks.push(Lock { who: who(owner), pid: pid(owner), kind, extent: extent(first, at) });
    }
    locks
}

/// A request that waits, on both sides.
struct Waiting {
    call: Call,
    kind: Kind,
    pending: Pending<usize>,
}

struct World {
    order: Order,
    domain: Domain<usize>,
    files: Vec<RecordLocks<usize>>,
    bytes: [Bytes; OWNERS],
    /// By number.
    waiting: BTreeMap<usize, Waiting>,
    /// In order of arrival only.
    oracle: Model,
    /// What the oracle calls the locks of each owner.
    pieces: BTreeMap<usize, Vec<usize>>,
    next_id: usize,
}

impl World {
    fn new(order: Order) -> World {
        let domain = Domain::new(Options::new().order(order));
        let files = (0..FILES).map(|_| domain.file()).collect();
        let bytes = [[[None; BYTES]; FILES]; OWNERS];
        let (oracle, pieces, waiting) = (Model::default(), BTreeMap::new(), BTreeMap::new());
        World { order, domain, files, bytes, waiting, oracle, pieces, next_id: 0 }
    }

    fn fresh(&mut self) -> usize {
        self.next_id += 1;
        self.next_id
    }

    /// The owners who hold a byte in conflict.
    fn holders(&self, call: &Call, kind: Kind) -> BTreeSet<usize> {
        let in_conflict = |&other: &usize| {
            let held = &self.bytes[other][call.file][call.first as usize..=call.last as usize];
            other != call.owner && held.iter().flatten().any(|held| *held == Kind::Write || kind == Kind::Write)
        };
        (0..OWNERS).filter(in_conflict).collect()
    }

    fn write(&mut self, call: &Call, kind: Option<Kind>) {
        self.bytes[call.owner][call.file][call.first as usize..=call.last as usize].fill(kind);
    }

    fn has_all(&self, call: &Call, kind: Kind) -> bool {
        self.bytes[call.owner][call.file][call.first as usize..=call.last as usize]
            .iter()
            .all(|held| *held == Some(kind))
    }

    // ---- The oracle of order of arrival ----

    fn part(call: &Call, kind: Kind) -> Part {
        let mode = if kind == Kind::Read { spanlock::Mode::Add } else { spanlock::Mode::Exclusive };
        Part { lock: call.file, span: Span::new(call.first, call.last), mode }
    }

    /// All that the owner has of these bytes goes, but what it was granted as `but`.
    fn give_up(&mut self, owner: usize, file: usize, span: Span, but: Option<usize>) {
        let pieces = std::mem::take(self.pieces.entry(owner).or_default());
        let mut left = Vec::new();
        for piece in pieces {
            let held = self.oracle.held(piece);
            let gap = held.span.cut(span);
            if Some(piece) == but || held.lock != file || gap.is_empty() {
                left.push(piece);
            } else {
                let (head, tail) = held.span.around(gap);
                match (head.is_empty(), tail.is_empty()) {
                    (true, true) => self.oracle.end(piece),
                    (true, false) => self.oracle.shrink(piece, tail),
                    (false, true) => self.oracle.shrink(piece, head),
                    (false, false) => {
                        let id = self.fresh();
                        self.oracle.release(piece, gap, id);
                        left.push(id);
                    }
                }
                if !(head.is_empty() && tail.is_empty()) {
                    left.push(piece);
                }
            }
        }
        self.pieces.insert(owner, left);
    }

    /// What the oracle says was granted as `id` replaces what the owner had there.
    fn take(&mut self, id: usize, call: &Call) {
        self.pieces.entry(call.owner).or_default().push(id);
        self.give_up(call.owner, call.file, Span::new(call.first, call.last), Some(id));
    }

    /// All requests that the oracle grants. `trying` is a call that does not wait: whether it was.
    fn settle(&mut self, trying: Option<(usize, &Call)>) -> (bool, BTreeSet<usize>) {
        let (mut granted_try, mut ids) = (false, BTreeSet::new());
        loop {
            let granted = self.oracle.settle();
            if granted.is_empty() {
                return (granted_try, ids);
            }
            for id in granted {
                match trying {
                    Some((tried, call)) if tried == id => {
                        granted_try = true;
                        self.take(id, call);
                    }
                    _ => {
                        let call = self.waiting[&id].call;
                        ids.insert(id);
                        self.take(id, &call);
                    }
                }
            }
        }
    }

    /// What a request is answered with in order of arrival, and which others were granted. `None`: it waits.
    fn oracle_asks(
        &mut self,
        call: &Call,
        kind: Kind,
        id: usize,
        waits: bool,
    ) -> (Option<Result<(), Error>>, BTreeSet<usize>) {
        if self.has_all(call, kind) {
            return (Some(Ok(())), BTreeSet::new());
        }
        // A try never waits for a holder, so that nobody is let past anybody for its sake.
        if !waits && !self.holders(call, kind).is_empty() {
            return (Some(Err(Error::WouldBlock)), BTreeSet::new());
        }
        match self.oracle.begin(id, Asker::Many(call.owner), vec![World::part(call, kind)]) {
            Begin::Granted => {
                self.take(id, call);
                let (_, others) = self.settle(None);
                (Some(Ok(())), others)
            }
            Begin::Queued => {
                let (granted, mut others) = self.settle(Some((id, call)));
                if granted {
                    return (Some(Ok(())), others);
                }
                if waits {
                    return (None, others);
                }
                self.oracle.end(id);
                others.extend(self.settle(None).1);
                (Some(Err(Error::WouldBlock)), others)
            }
            Begin::Deadlock { .. } => {
                let error = if waits { Error::Deadlock } else { Error::WouldBlock };
                (Some(Err(error)), self.settle(None).1)
            }
        }
    }

    // ---- One call ----

    fn call(&mut self, call: &Call) -> Result<(), TestCaseError> {
        let caller = Caller { who: who(call.owner), pid: pid(call.owner) };
        let (file, extent) = (self.files[call.file].clone(), extent(call.first, call.last));
        let waits = self.waits_of(call.owner).count();
        let arrival = self.order == Order::Arrival;
        // By number, what those who waited are to be answered.
        let mut expected: BTreeMap<usize, Result<(), Error>> = BTreeMap::new();
        let id = self.fresh();
        match call.verb {
            // Not the same bytes: which of the two is granted last would say what is held.
            Verb::Wait(_) if waits == WAITS || self.waits_for(call) => {}
            Verb::Try(kind) => {
                let answer = file.set(caller, kind, extent);
                if arrival {
                    let (told, others) = self.oracle_asks(call, kind, id, false);
                    prop_assert_eq!(Some(answer), told);
                    expected.extend(others.into_iter().map(|id| (id, Ok(()))));
                } else {
                    prop_assert_eq!(answer.is_ok(), self.holders(call, kind).is_empty());
                    prop_assert!(matches!(answer, Ok(()) | Err(Error::WouldBlock)));
                }
                if answer.is_ok() {
                    self.write(call, Some(kind));
                }
            }
            Verb::Wait(kind) => {
                let pending = file.request(caller, kind, extent);
                let answer = pending.is_answered();
                if arrival {
                    let (told, others) = self.oracle_asks(call, kind, id, true);
                    prop_assert_eq!(told.is_some(), answer, "answered at once: {:?}", told);
                    expected.extend(others.into_iter().map(|id| (id, Ok(()))));
                    match told {
                        None => _ = self.waiting.insert(id, Waiting { call: *call, kind, pending }),
                        Some(told) => {
                            prop_assert_eq!(pending.wait(), told);
                            if told.is_ok() {
                                self.write(call, Some(kind));
                            }
                        }
                    }
                } else if answer {
                    let holders = self.holders(call, kind);
                    match pending.wait() {
                        Ok(()) => {
                            prop_assert!(holders.is_empty());
                            self.write(call, Some(kind));
                        }
                        Err(error) => {
                            prop_assert_eq!(error, Error::Deadlock);
                            prop_assert!(self.leads(&holders, call.owner), "no cycle");
                        }
                    }
                } else {
                    prop_assert!(!self.holders(call, kind).is_empty());
                    self.waiting.insert(id, Waiting { call: *call, kind, pending });
                }
            }
            Verb::Get(kind) => self.get(call, kind)?,
            Verb::Unlock => {
                prop_assert_eq!(file.unlock(caller, extent), Ok(()));
                self.write(call, None);
                self.give_up_all(call.owner, call.file, Span::new(call.first, call.last));
            }
            Verb::Close => {
                file.release(&who(call.owner));
                self.release(call.owner, call.file, &mut expected);
            }
            Verb::Exit => {
                self.domain.release(&who(call.owner));
                (0..FILES).for_each(|file| self.release(call.owner, file, &mut expected));
            }
            Verb::Cancel => {
                let first = self.waits_of(call.owner).next();
                if let Some(id) = first {
                    prop_assert!(self.waiting[&id].pending.canceller().cancel());
                    self.end(id);
                    expected.insert(id, Err(Error::Interrupted));
                }
            }
        }
        if arrival {
            let (_, others) = self.settle(None);
            expected.extend(others.into_iter().map(|id| (id, Ok(()))));
        }
        self.answers(arrival.then_some(expected))?;
        self.check()
    }

    fn give_up_all(&mut self, owner: usize, file: usize, span: Span) {
        if self.order == Order::Arrival {
            self.give_up(owner, file, span, None);
        }
    }

    fn end(&mut self, id: usize) {
        if self.order == Order::Arrival {
            self.oracle.end(id);
        }
    }

    /// Whether the owner waits for some of these bytes already.
    fn waits_for(&self, call: &Call) -> bool {
        self.waiting.values().any(|Waiting { call: other, .. }| {
            (other.owner, other.file) == (call.owner, call.file) && other.first <= call.last && call.first <= other.last
        })
    }

    /// The requests of an owner that wait.
    fn waits_of(&self, owner: usize) -> impl Iterator<Item = usize> {
        self.waiting.iter().filter(move |(_, waiting)| waiting.call.owner == owner).map(|(&id, _)| id)
    }

    fn release(&mut self, owner: usize, file: usize, expected: &mut BTreeMap<usize, Result<(), Error>>) {
        let waits: Vec<usize> = self.waits_of(owner).filter(|id| self.waiting[id].call.file == file).collect();
        for id in waits {
            self.end(id);
            expected.insert(id, Err(Error::Interrupted));
        }
        self.bytes[owner][file] = [None; BYTES];
        self.give_up_all(owner, file, Span::WHOLE);
    }

    /// Takes the answers of those who waited, and compares them if they are known.
    fn answers(&mut self, expected: Option<BTreeMap<usize, Result<(), Error>>>) -> Result<(), TestCaseError> {
        let answered: Vec<usize> =
            self.waiting.iter().filter(|(_, w)| w.pending.is_answered()).map(|(&o, _)| o).collect();
        let mut answers = BTreeMap::new();
        for id in answered {
            let Waiting { call, kind, pending } = self.waiting.remove(&id).expect("it was there");
            let answer = pending.wait();
            if answer.is_ok() {
                self.write(&call, Some(kind));
            }
            answers.insert(id, answer);
        }
        match expected {
            Some(expected) => prop_assert_eq!(answers, expected),
            None => {
                let fair = [Ok(()), Err(Error::Deadlock), Err(Error::Interrupted)];
                prop_assert!(answers.values().all(|answer| fair.contains(answer)), "{:?}", answers);
            }
        }
        Ok(())
    }

    fn get(&self, call: &Call, kind: Kind) -> Result<(), TestCaseError> {
        let asked = extent(call.first, call.last);
        let others = (0..OWNERS).filter(|&other| other != call.owner);
        let locks = others.flat_map(|other| locks_of(other, &self.bytes[other][call.file]));
        let in_the_way = locks.filter(|lock| lock.extent.meets(asked) && !lock.kind.goes_with(kind));
        let in_the_way: Vec<Lock<usize>> = in_the_way.collect();
        let caller = Caller { who: who(call.owner), pid: 0 };
        let told = self.files[call.file].get(caller, kind, asked).expect("a range of bytes");
        let lowest = in_the_way.iter().map(|lock| lock.extent.start()).min();
        prop_assert_eq!(told.as_ref().map(|lock| lock.extent.start()), lowest);
        prop_assert!(told.is_none_or(|told| in_the_way.contains(&told)));
        Ok(())
    }

    /// In the kernel's order: whether one of `from` waits, directly or by others, for `to`.
    fn leads(&self, from: &BTreeSet<usize>, to: usize) -> bool {
        let (mut seen, mut rest) = (from.clone(), from.iter().copied().collect::<Vec<_>>());
        while let Some(owner) = rest.pop() {
            if owner == to {
                return true;
            }
            for id in self.waits_of(owner) {
                let Waiting { call, kind, .. } = &self.waiting[&id];
                rest.extend(self.holders(call, *kind).into_iter().filter(|&holder| seen.insert(holder)));
            }
        }
        false
    }

    /// What is so between any two calls.
    fn check(&self) -> Result<(), TestCaseError> {
        for (file, locks) in self.files.iter().enumerate() {
            let mut told = locks.dump();
            told.sort_by_key(|lock| (lock.who.key, lock.extent));
            let model: Vec<_> = (0..OWNERS).flat_map(|owner| locks_of(owner, &self.bytes[owner][file])).collect();
            prop_assert_eq!(told, model);
        }
        for Waiting { call, kind, .. } in self.waiting.values() {
            let holders = self.holders(call, *kind);
            if self.order == Order::Kernel {
                prop_assert!(!holders.is_empty(), "{:?} waits for nobody", call);
            }
            // Where there is one way only, it does not lead back.
            let mut way = holders;
            while way.len() == 1 {
                let owner = *way.first().expect("one");
                prop_assert!(owner != call.owner, "{:?} waits for itself", call);
                let waits: Vec<usize> = self.waits_of(owner).collect();
                let [next] = waits[..] else { break };
                way = self.holders(&self.waiting[&next].call, self.waiting[&next].kind);
            }
        }
        for owner in 0..OWNERS {
            let locks: usize = (0..FILES).map(|file| locks_of(owner, &self.bytes[owner][file]).len()).sum();
            let waits = self.waits_of(owner).count();
            prop_assert_eq!(self.domain.count(&who(owner)), locks + waits);
        }
        if self.order == Order::Arrival {
            self.oracle.check_exclusion().map_err(TestCaseError::fail)?;
        }
        Ok(())
    }
}

fn play(order: Order) {
    let steps = from_env("SPANLOCK_POSIX_STEPS", 50_000);
    let config =
        Config { cases: (steps / (CALLS as u64 / 2)) as u32 + 1, failure_persistence: None, ..Config::default() };
    let played = TestRunner::new(config).run(&calls(), |calls| {
        let mut world = World::new(order);
        for call in &calls {
            world.call(call)?;
        }
        // Whoever is gone leaves nothing.
        for owner in 0..OWNERS {
            world.domain.release(&who(owner));
        }
        prop_assert_eq!(world.domain.size(), (0, 0));
        prop_assert!(world.waiting.values().all(|waiting| waiting.pending.is_answered()));
        prop_assert!(world.files.iter().all(|file| file.dump().is_empty()));
        Ok(())
    });
    if let Err(failed) = played {
        panic!("{failed}");
    }
}

#[test]
fn in_the_kernels_order() {
    play(Order::Kernel);
}

#[test]
fn in_order_of_arrival() {
    play(Order::Arrival);
}

// ---- Handles, which lock beside themselves and unlock exactly ----

/// A lock of a handle, as SMB tells of it: its offset and length.
type Exact = (usize, Kind, u64, u64);

/// Whether a lock would be in the way of another: they share a byte, or one is a place within the other.
fn overlap((_, _, a, a_len): Exact, (_, _, b, b_len): Exact) -> bool {
    match (a_len, b_len) {
        (0, 0) => false,
        (0, _) => b < a && a < b + b_len,
        (_, 0) => a < b && b < a + a_len,
        _ => a < b + b_len && b < a + a_len,
    }
}

/// Whether a handle may lay `new` beside what is held.
fn may_lie(new: Exact, held: &[Exact]) -> bool {
    held.iter().all(|&old| {
        let own_reader = new.0 == old.0 && new.1 == Kind::Read;
        let both_read = new.1 == Kind::Read && old.1 == Kind::Read;
        !overlap(new, old) || own_reader || both_read
    })
}

fn play_handles(order: Order) {
    let steps = from_env("SPANLOCK_POSIX_STEPS", 50_000);
    let config =
        Config { cases: (steps / (CALLS as u64 / 2)) as u32 + 1, failure_persistence: None, ..Config::default() };
    let kind = prop_oneof![2 => Just(Some(Kind::Read)), 2 => Just(Some(Kind::Write)), 3 => Just(None)];
    let call = (0..3_usize, kind, 0..8_u64, 0..4_u64, 0..30_u32);
    let played = TestRunner::new(config).run(&prop::collection::vec(call, 1..CALLS), |calls| {
        let file = Domain::new(Options::new().order(order)).file();
        let mut held: Vec<Exact> = Vec::new();
        for (owner, kind, offset, length, chance) in calls {
            let (caller, extent) =
                (Caller::handle(owner, pid(owner)), Extent::exact(offset, length).expect("not too far"));
            let same = |kind: Kind| move |&old: &Exact| old == (owner, kind, offset, length);
            match kind {
                _ if chance == 0 => {
                    file.release(&caller.who);
                    held.retain(|old| old.0 != owner);
                }
                Some(kind) => {
                    let new = (owner, kind, offset, length);
                    let told = file.get(caller, kind, extent).expect("all of u64");
                    prop_assert_eq!(told.is_none(), may_lie(new, &held), "{:?} among {:?}: {:?}", new, held, told);
                    let answer = file.set(caller, kind, extent);
                    prop_assert_eq!(answer.is_ok(), may_lie(new, &held), "{:?} among {:?}", new, held);
                    held.extend(answer.is_ok().then_some(new));
                }
                None => {
                    let writer = held.iter().position(same(Kind::Write));
                    let found = writer.or_else(|| held.iter().position(same(Kind::Read)));
                    prop_assert_eq!(file.unlock(caller, extent).is_ok(), found.is_some());
                    found.map(|at| held.remove(at));
                }
            }
            let mut all: Vec<Exact> = file.dump().into_iter().map(|lock| exact(&lock)).collect();
            all.sort_unstable();
            held.sort_unstable();
            prop_assert_eq!(&all, &held);
        }
        Ok(())
    });
    if let Err(failed) = played {
        panic!("{failed}");
    }
}

fn exact(lock: &Lock<usize>) -> Exact {
    let length = lock.extent.last().map_or(0, |last| last - lock.extent.start() + 1);
    (lock.who.key, lock.kind, lock.extent.start(), length)
}

#[test]
fn handles_in_the_kernels_order() {
    play_handles(Order::Kernel);
}

#[test]
fn handles_in_order_of_arrival() {
    play_handles(Order::Arrival);
}
