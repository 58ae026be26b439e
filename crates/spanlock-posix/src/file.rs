//! The record locks of one file: what is asked, and who tries again when something has changed.
//!
//! # How
//! Each call takes one *turn*: with the file's mutex it changes the table, and has those try again whom that concerns.
//! When it has left the mutex, it polls the requests that the range lock has called meanwhile, in whichever files, and
//! gives the answers.
//!
//! - In the *kernel's order* nobody queues in the range lock. A request that it refuses hangs in the
//!   [graph](crate::graph) below the lock that it was found in conflict with, and tries again when that changes.
//! - In *order of arrival* a request that waits is a future of the range lock, which knows the queue, who may pass and
//!   what is a deadlock. Its waker only notes that it was called (INV-F1).
//!
//! # Invariants
//! - INV-F1: a waker takes no file's mutex while its thread has one. What it notes is polled before the call returns
//!   that has it called, or by the waker itself.
//! - INV-F2: an owner is in `presence` exactly while it has locks in this file or waits here, between two turns; and
//!   then the domain knows so.
//! - INV-F3: each request is answered once: by who takes it out of `waiters`.

use crate::caller::{Ask, Caller, Class, Key, Kind, Who};
use crate::domain::{self, Account, Domain, Options, Order, Shared, lock};
use crate::error::Error;
use crate::extent::Extent;
use crate::pending::{Answers, Pending, Slot, deliver};
use crate::snapshot::{Lock, Snapshot, Waits};
use crate::table::{Done, Plan, Table};
use spanlock::RangeLock;
use spanlock::guards::ArcOwnerGuard;
use spanlock::owners::ByOwner;
use spanlock::requests::Acquire;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

/// The record locks of a file. A clone is of the same file; if the last one is dropped, all is unlocked and who waits
/// is answered with [`Error::Interrupted`].
///
/// Requests of one owner never conflict, and what it locks replaces what it has there, as `fcntl(F_SETLK)` says: a read
/// lock in the middle of a write lock makes three of it, a neighbour of the same kind becomes one with it. (But for
/// [handles](Class::Handle).) Each call changes all or nothing, at one moment.
///
/// # Examples
/// ```
/// use spanlock_posix::{Caller, Error, Extent, Kind, Order, RecordLocks};
///
/// let file = RecordLocks::new(Order::Kernel);
/// let (one, two) = (Caller::process("a", 100), Caller::process("b", 200));
/// file.set(one, Kind::Write, Extent::new(0, 100)?)?;
/// file.set(one, Kind::Read, Extent::new(50, 10)?)?; // a part of it is downgraded
/// assert_eq!(file.set(two, Kind::Read, Extent::new(55, 10)?), Err(Error::WouldBlock));
/// let in_the_way = file.get(two, Kind::Read, Extent::new(55, 10)?)?.expect("it was refused");
/// assert_eq!((in_the_way.pid, in_the_way.extent), (100, Extent::new(60, 40)?));
/// # Ok::<(), Error>(())
/// ```
pub struct RecordLocks<O: Key> {
    file: Arc<File<O>>,
    /// Locks by `flock`, which do not conflict with the others.
    flocks: Arc<OnceLock<Arc<File<O>>>>,
}

impl<O: Key> Clone for RecordLocks<O> {
    fn clone(&self) -> RecordLocks<O> {
        RecordLocks { file: Arc::clone(&self.file), flocks: Arc::clone(&self.flocks) }
    }
}

/// The locks of one file, or those by `flock`.
pub(crate) struct File<O: Key> {
    pub(crate) id: u64,
    domain: Arc<Shared<O>>,
    space: Mutex<Space<O>>,
}

/// What the mutex of a file guards.
struct Space<O: Key> {
    table: Table<O>,
    /// INV-F2.
    presence: HashMap<Who<O>, Presence>,
    waiters: BTreeMap<u64, Waiter<O>>,
}

/// What an owner has in a file.
struct Presence {
    account: Arc<Account>,
    /// Where its locks are in the table, if it has any.
    group: Option<u64>,
    waiting: BTreeSet<u64>,
}

/// A request that waits.
struct Waiter<O: Key> {
    ask: Ask<O>,
    slot: Arc<Slot>,
    since: Instant,
    /// In order of arrival: its place in the queue, and who is called there.
    queued: Option<(Pin<Box<Queued>>, Waker)>,
}

type Queued = Acquire<Arc<RangeLock>, ByOwner>;

/// What a call does if somebody is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    Try,
    Wait,
}

/// Why an attempt has changed nothing.
enum Refusal<O> {
    /// This lock is in the way, of this owner.
    Held(u64, Who<O>),
    /// Somebody is in the way whom it cannot wait for.
    Busy,
    /// The quota.
    Full,
    /// A cycle.
    Cycle,
}

impl<O: Key> RecordLocks<O> {
    /// Those of a file that is the only one of its [`Domain`].
    pub fn new(order: Order) -> RecordLocks<O> {
        Domain::new(Options::new().order(order)).file()
    }

    pub(crate) fn in_domain(domain: &Arc<Shared<O>>) -> RecordLocks<O> {
        RecordLocks { file: File::new(domain), flocks: Arc::default() }
    }

    /// The domain that it is of.
    pub fn domain(&self) -> Domain<O> {
        Domain { shared: Arc::clone(&self.file.domain) }
    }

    fn of(&self, class: Class) -> &Arc<File<O>> {
        match class {
            Class::Flock => self.flocks.get_or_init(|| File::new(&self.file.domain)),
            _ => &self.file,
        }
    }

    /// Makes `extent` a lock of this kind, if nobody is in the way: `F_SETLK`.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] if a lock of another owner is in conflict with it (in [order of arrival](Order::Arrival):
    /// or a request that waits). [`Error::NoLocks`] for the quota. [`Error::Invalid`] if the extent is a place and the
    /// caller no handle, or not the whole file for `flock`. Nothing has changed then, with one exception, which is
    /// `flock`'s: who changes the kind of such a lock gives the old one up first, and is without if it does not get the
    /// new one.
    pub fn set(&self, caller: Caller<O>, kind: Kind, extent: Extent) -> Result<(), Error> {
        self.check(&caller, extent)?;
        let file = self.of(caller.who.class);
        file.turn(|turn| turn.begin(Ask { caller, kind, extent }, Patience::Try)).map(|_| ())
    }

    /// As [`set`](RecordLocks::set), and waits if somebody is in the way: `F_SETLKW`. The same as `request(..).wait()`.
    ///
    /// # Errors
    /// Those of [`Pending::wait`], and [`Error::Invalid`] as for [`set`](RecordLocks::set).
    pub fn set_wait(&self, caller: Caller<O>, kind: Kind, extent: Extent) -> Result<(), Error> {
        self.request(caller, kind, extent).wait()
    }

    /// Asks for a lock, and takes a place among those who wait if somebody is in the way. What comes back is to be
    /// waited for, awaited, or given a callback, and can be cancelled.
    ///
    /// A lock that conflicts with one of its own owner (a [handle](Class::Handle)), or, in order of arrival, one that
    /// is in conflict with a place, does not wait: [`Error::WouldBlock`].
    pub fn request(&self, caller: Caller<O>, kind: Kind, extent: Extent) -> Pending<O> {
        if let Err(error) = self.check(&caller, extent) {
            return Pending::answered(Err(error));
        }
        let file = self.of(caller.who.class);
        match file.turn(|turn| turn.begin(Ask { caller, kind, extent }, Patience::Wait)) {
            Ok(Some((id, slot))) => Pending::waiting(slot, Arc::clone(file), id),
            Ok(None) => Pending::answered(Ok(())),
            Err(error) => Pending::answered(Err(error)),
        }
    }

    /// Unlocks what the caller has of `extent`: `F_SETLK` with `F_UNLCK`. To have nothing there is no error, but for a
    /// handle, which unlocks exactly what it locked.
    ///
    /// # Errors
    /// [`Error::NoLocks`] if a lock would become two, and that is one too many. [`Error::NotLocked`] for a handle.
    /// [`Error::Invalid`] as for [`set`](RecordLocks::set).
    pub fn unlock(&self, caller: Caller<O>, extent: Extent) -> Result<(), Error> {
        self.check(&caller, extent)?;
        self.of(caller.who.class).turn(|turn| turn.unlock(&caller.who, extent))
    }

    /// The lock of another owner that a lock of this kind would conflict with, of several the one that begins first:
    /// `F_GETLK`. Who only waits is none. (A [handle](Class::Handle) may be told of its own.)
    ///
    /// # Errors
    /// [`Error::Invalid`] as for [`set`](RecordLocks::set).
    pub fn get(&self, caller: Caller<O>, kind: Kind, extent: Extent) -> Result<Option<Lock<O>>, Error> {
        self.check(&caller, extent)?;
        let space = lock(&self.of(caller.who.class).space);
        let token = space.presence.get(&caller.who).map(|presence| &presence.account.token);
        Ok(space.table.lowest_conflict(&caller.who, token, kind, extent).map(Lock::of))
    }

    /// All of them: owners in the order in which they came to hold something in this file, of each the locks in the
    /// order of their bytes. The first one is what Linux says to `F_GETLK`.
    ///
    /// # Errors
    /// [`Error::Invalid`] as for [`set`](RecordLocks::set).
    pub fn conflicts(&self, caller: Caller<O>, kind: Kind, extent: Extent) -> Result<Vec<Lock<O>>, Error> {
        self.check(&caller, extent)?;
        let space = lock(&self.of(caller.who.class).space);
        Ok(space.table.conflicts(&caller.who, kind, extent).map(Lock::of).collect())
    }

    /// All that an owner has of this file, in the order of the bytes.
    pub fn held(&self, who: &Who<O>) -> Vec<Lock<O>> {
        let Some(file) = (if who.class == Class::Flock { self.flocks.get() } else { Some(&self.file) }) else {
            return Vec::new();
        };
        let space = lock(&file.space);
        space
            .presence
            .get(who)
            .and_then(|presence| presence.group)
            .map_or(Vec::new(), |group| space.table.locks_of(group))
    }

    /// Unlocks all that an owner has of this file, and cancels what it waits for: `close(2)`. [`Domain::release`] does
    /// so in all files.
    pub fn release(&self, who: &Who<O>) {
        // No need to make locks by `flock` to look for them.
        match (who.class, self.flocks.get()) {
            (Class::Flock, None) => {}
            (Class::Flock, Some(flocks)) => flocks.release(who),
            _ => self.file.release(who),
        }
    }

    /// All locks, as [`restore`](RecordLocks::restore) takes them: owners in the order of
    /// [`conflicts`](RecordLocks::conflicts), of each the locks in the order of their bytes. Those by `flock` come
    /// last. Who waits is not among them: after a fail-over clients ask again.
    pub fn dump(&self) -> Vec<Lock<O>> {
        let mut locks = lock(&self.file.space).table.locks();
        locks.extend(self.flocks.get().into_iter().flat_map(|flocks| lock(&flocks.space).table.locks()));
        locks
    }

    /// Sets all locks of a [`dump`](RecordLocks::dump), each as [`set`](RecordLocks::set) would: in a file of which
    /// nothing is locked, all that was dumped is there again, and said by `get` as before.
    ///
    /// # Errors
    /// The first one that is refused, with why. What was set by then stays: [`release`](RecordLocks::release) the
    /// owners, or tell the clients which locks are lost.
    pub fn restore(&self, locks: impl IntoIterator<Item = Lock<O>>) -> Result<(), (Lock<O>, Error)> {
        locks.into_iter().try_for_each(|lock| {
            let caller = Caller { who: lock.who.clone(), pid: lock.pid };
            self.set(caller, lock.kind, lock.extent).map_err(|error| (lock, error))
        })
    }

    /// Who holds and who waits for whom. `Display` draws a map of it.
    pub fn snapshot(&self) -> Snapshot<O> {
        let mut snapshot = self.file.snapshot();
        if let Some(flocks) = self.flocks.get() {
            snapshot.append(flocks.snapshot());
        }
        snapshot
    }

    /// How many nodes the range lock of this file has on the heap.
    #[doc(hidden)]
    pub fn heap_nodes(&self) -> usize {
        lock(&self.file.space).table.lock().heap_nodes()
    }

    fn check(&self, caller: &Caller<O>, extent: Extent) -> Result<(), Error> {
        let is_right = match caller.who.class {
            Class::Flock => extent == Extent::WHOLE,
            Class::Handle => true,
            _ => !extent.is_empty() && extent.end() <= Extent::WHOLE.end(),
        };
        if is_right { Ok(()) } else { Err(Error::Invalid) }
    }
}

/// Says how many locks there are and how many requests wait.
impl<O: Key> fmt::Debug for RecordLocks<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = lock(&self.file.space);
        let locks = space.table.groups().map(|group| group.records.len()).sum::<usize>();
        let mut out = f.debug_struct("RecordLocks");
        out.field("locks", &locks).field("waiting", &space.waiters.len()).finish_non_exhaustive()
    }
}

impl<O: Key> File<O> {
    fn new(domain: &Arc<Shared<O>>) -> Arc<File<O>> {
        let table = Table::new(domain.options.order);
        let space = Space { table, presence: HashMap::new(), waiters: BTreeMap::new() };
        Arc::new(File { id: domain.next_id(), domain: Arc::clone(domain), space: Mutex::new(space) })
    }

    /// One call: see the header.
    fn turn<R>(self: &Arc<Self>, call: impl FnOnce(&mut Turn<'_, O>) -> R) -> R {
        let mut answers = Answers::new();
        let result = self.step(&mut answers, call);
        settle(&self.domain, &mut answers);
        deliver(answers);
        result
    }

    /// What a turn does with the mutex.
    fn step<R>(self: &Arc<Self>, answers: &mut Answers, call: impl FnOnce(&mut Turn<'_, O>) -> R) -> R {
        let _inside = Inside::enter();
        let mut space = lock(&self.space);
        let mut turn = Turn { file: self, space: &mut space, answers, retry: VecDeque::new(), met: Vec::new() };
        let result = call(&mut turn);
        turn.retry_all();
        turn.tidy();
        result
    }

    pub(crate) fn cancel(self: &Arc<Self>, id: u64) -> bool {
        self.turn(|turn| turn.cancel(id))
    }

    pub(crate) fn release(self: &Arc<Self>, who: &Who<O>) {
        self.turn(|turn| turn.release(who));
    }

    fn snapshot(&self) -> Snapshot<O> {
        let space = lock(&self.space);
        let waits = space.waiters.iter().map(|(&id, waiter)| {
            let Ask { caller, kind, extent } = &waiter.ask;
            let holder = lock(&self.domain.graph).holder(id);
            let lock = Lock { who: caller.who.clone(), pid: caller.pid, kind: *kind, extent: *extent };
            Waits { lock, since: waiter.since.elapsed(), holder }
        });
        Snapshot { locks: space.table.locks(), waits: waits.collect() }
    }
}

impl<O: Key> Drop for File<O> {
    fn drop(&mut self) {
        let space = self.space.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut answers = Answers::new();
        for (id, waiter) in std::mem::take(&mut space.waiters) {
            lock(&self.domain.graph).remove(id);
            let account = &space.presence[&waiter.ask.caller.who].account;
            account.grow(-1, None);
            answers.push((waiter.slot, Err(Error::Interrupted)));
        }
        for (who, mut presence) in std::mem::take(&mut space.presence) {
            let gone = space.table.clear(&mut presence.group);
            presence.account.grow(-(gone.len() as isize), None);
            self.domain.leave(&who, self.id);
        }
        deliver(answers);
    }
}

thread_local! {
    /// Whether the thread has a file's mutex.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// The thread has a file's mutex until this is dropped.
struct Inside;

impl Inside {
    fn enter() -> Inside {
        // A thread that ends has no mutex, and needs no note of it.
        let _ = INSIDE.try_with(|inside| inside.set(true));
        Inside
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = INSIDE.try_with(|inside| inside.set(false));
    }
}

/// What the range lock calls when a request may go on.
struct Bell<O: Key> {
    domain: Weak<Shared<O>>,
    file: Weak<File<O>>,
    id: u64,
}

impl<O: Key> Wake for Bell<O> {
    fn wake(self: Arc<Self>) {
        let Some(domain) = self.domain.upgrade() else { return };
        lock(&domain.called).push((Weak::clone(&self.file), self.id));
        // INV-F1.
        if !INSIDE.try_with(Cell::get).unwrap_or(false) {
            let mut answers = Answers::new();
            settle(&domain, &mut answers);
            deliver(answers);
        }
    }
}

/// Polls all that were called, in order.
fn settle<O: Key>(domain: &Shared<O>, answers: &mut Answers) {
    loop {
        let called = std::mem::take(&mut *lock(&domain.called));
        if called.is_empty() {
            return;
        }
        for (file, id) in called {
            if let Some(file) = file.upgrade() {
                file.step(answers, |turn| turn.poll(id));
            }
        }
    }
}

/// A file, by who has its mutex.
struct Turn<'f, O: Key> {
    file: &'f Arc<File<O>>,
    space: &'f mut Space<O>,
    answers: &'f mut Answers,
    /// In the kernel's order: those who wait and are to try again.
    retry: VecDeque<u64>,
    /// Owners that may have nothing here any more.
    met: Vec<Who<O>>,
}

impl<O: Key> Turn<'_, O> {
    fn domain(&self) -> &Shared<O> {
        &self.file.domain
    }

    fn order(&self) -> Order {
        self.domain().options.order
    }

    fn presence(&mut self, who: &Who<O>) -> &mut Presence {
        // Two looks, as most are there, and their key need not be cloned.
        if !self.space.presence.contains_key(who) {
            let account = self.file.domain.enter(who, self.file);
            self.space.presence.insert(who.clone(), Presence { account, group: None, waiting: BTreeSet::new() });
        }
        if self.met.last() != Some(who) {
            self.met.push(who.clone());
        }
        self.space.presence.get_mut(who).expect("made above")
    }

    /// INV-F2.
    fn tidy(&mut self) {
        for who in std::mem::take(&mut self.met) {
            let is_idle = |presence: &Presence| presence.group.is_none() && presence.waiting.is_empty();
            if self.space.presence.get(&who).is_some_and(is_idle) {
                self.space.presence.remove(&who);
                self.domain().leave(&who, self.file.id);
            }
        }
    }

    /// A request comes. Whoever has to wait is told where the answer will be.
    fn begin(&mut self, ask: Ask<O>, patience: Patience) -> Result<Option<(u64, Arc<Slot>)>, Error> {
        if ask.caller.who.class == Class::Flock {
            self.give_up_other_kind(&ask);
        }
        let id = self.domain().next_id();
        let outcome = match (self.order(), patience) {
            (Order::Arrival, Patience::Wait) => self.queue(id, &ask),
            (Order::Kernel, Patience::Wait) => match self.attempt(&ask, patience, None) {
                Err(Refusal::Held(lock, holder)) => self.wait_for(id, &ask, lock, &holder).map(Some),
                other => other.map(|()| None),
            },
            (_, Patience::Try) => self.attempt(&ask, patience, None).map(|()| None),
        };
        let counters = &self.domain().counters;
        match outcome {
            Ok(None) => {
                domain::count(&counters.granted);
                Ok(None)
            }
            Ok(Some(slot)) => {
                domain::count(&counters.waited);
                Ok(Some((id, slot)))
            }
            Err(refusal) => Err(self.refuse(&refusal)),
        }
    }

    fn refuse(&self, refusal: &Refusal<O>) -> Error {
        let counters = &self.domain().counters;
        let (counter, error) = match refusal {
            Refusal::Held(..) | Refusal::Busy => (&counters.refused, Error::WouldBlock),
            Refusal::Full => (&counters.over_quota, Error::NoLocks),
            Refusal::Cycle => (&counters.deadlocks, Error::Deadlock),
        };
        domain::count(counter);
        error
    }

    /// What needs no new guard: whether that was all.
    fn prepare(&mut self, ask: &Ask<O>) -> Result<bool, Refusal<O>> {
        let who = &ask.caller.who;
        let group = self.presence(who).group;
        let table = &mut self.space.table;
        if who.class == Class::Handle {
            // Its own locks are in its way, and it would wait for itself.
            if table.conflicts(who, ask.kind, ask.extent).any(|(holder, _)| holder == who) {
                return Err(Refusal::Busy);
            }
        } else {
            let plan = table.plan(group, Some(ask.kind), ask.extent);
            if table.is_done(group, &plan) {
                return Ok(true);
            }
        }
        // The range lock does not know places.
        if table.has_places() || ask.extent.is_empty() {
            let is_of_place = |record: &crate::table::Record| record.extent.is_empty() || ask.extent.is_empty();
            let found = table.conflicts(who, ask.kind, ask.extent).find(|(_, record)| is_of_place(record));
            if let Some((holder, record)) = found {
                return Err(match self.file.domain.options.order {
                    Order::Kernel => Refusal::Held(record.id, holder.clone()),
                    Order::Arrival => Refusal::Busy,
                });
            }
        }
        if who.class == Class::Handle {
            return Ok(false);
        }
        let plan = table.plan(group, Some(ask.kind), ask.extent);
        Ok(table.extend(group, &plan))
    }

    /// Grants a request, if nobody is in the way. `waiting` is its number, if it has waited.
    fn attempt(&mut self, ask: &Ask<O>, patience: Patience, waiting: Option<u64>) -> Result<(), Refusal<O>> {
        if self.prepare(ask)? {
            self.finish(Done::default(), waiting);
            return Ok(());
        }
        let Ask { caller: Caller { who, .. }, kind, extent } = ask;
        let fresh = if extent.is_empty() {
            None
        } else {
            let account = Arc::clone(&self.presence(who).account);
            let table = &self.space.table;
            let Some(fresh) = table.ask(ask, &account.token) else {
                if patience == Patience::Try {
                    return Err(Refusal::Busy);
                }
                let holder = table.first_conflict(who, Some(&account.token), *kind, *extent);
                debug_assert!(holder.is_some() || self.order() == Order::Arrival, "the range lock and the table agree");
                return Err(holder.map_or(Refusal::Busy, |(holder, record)| Refusal::Held(record.id, holder.clone())));
            };
            Some(fresh)
        };
        self.carry_out(ask, fresh, waiting)
    }

    /// Makes a lock of what was granted.
    fn carry_out(
        &mut self,
        ask: &Ask<O>,
        fresh: Option<ArcOwnerGuard>,
        waiting: Option<u64>,
    ) -> Result<(), Refusal<O>> {
        let Ask { caller: Caller { who, pid }, kind, extent } = ask;
        let (quota, domain) = (self.domain().options.quota, Arc::clone(&self.file.domain));
        let Presence { account, group, .. } = self.presence(who);
        let (account, mut place) = (Arc::clone(account), *group);
        let table = &mut self.space.table;
        let done = if who.class == Class::Handle {
            if !account.grow(1, quota) {
                return Err(Refusal::Full);
            }
            let id = domain.next_id();
            table.lay(&mut place, (who, &account.token), (id, *extent, *kind, *pid), fresh);
            Done { changed: Vec::new(), made: Some(id) }
        } else {
            let plan = table.plan(place, Some(*kind), *extent);
            let fresh = fresh.expect("a place is a handle's");
            if table.is_done(place, &plan) {
                Done::default()
            } else if account.grow(plan.growth(), quota) {
                table.execute(&mut place, who, &account.token, plan, Some((*kind, *pid, fresh)), &mut || {
                    domain.next_id()
                })
            } else {
                return Err(Refusal::Full);
            }
        };
        self.presence(who).group = place;
        self.finish(done, waiting);
        Ok(())
    }

    /// Has those try again whom it concerns that the table has changed, by a request that has waited as number
    /// `waiting` perhaps.
    fn finish(&mut self, done: Done, waiting: Option<u64>) {
        if self.order() != Order::Kernel
            || (self.space.waiters.is_empty() && waiting.is_none() && self.retry.is_empty())
        {
            return;
        }
        let file = Arc::clone(self.file);
        let mut graph = lock(&file.domain.graph);
        for id in done.changed {
            self.retry.extend(graph.wake(id));
        }
        if let Some(waiting) = waiting {
            self.retry.extend(match done.made {
                Some(made) => graph.become_lock(waiting, made),
                None => graph.remove(waiting),
            });
        }
    }

    /// In the kernel's order: a place in the graph, and one among those who wait.
    fn wait_for(&mut self, id: u64, ask: &Ask<O>, record: u64, holder: &Who<O>) -> Result<Arc<Slot>, Refusal<O>> {
        let quota = self.domain().options.quota;
        if !self.presence(&ask.caller.who).account.grow(1, quota) {
            return Err(Refusal::Full);
        }
        if lock(&self.domain().graph).block(id, ask, record, holder).is_err() {
            self.presence(&ask.caller.who).account.grow(-1, None);
            return Err(Refusal::Cycle);
        }
        Ok(self.wait_as(id, ask, None))
    }

    fn wait_as(&mut self, id: u64, ask: &Ask<O>, queued: Option<(Pin<Box<Queued>>, Waker)>) -> Arc<Slot> {
        let slot = Arc::new(Slot::default());
        let waiter = Waiter { ask: ask.clone(), slot: Arc::clone(&slot), since: Instant::now(), queued };
        self.space.waiters.insert(id, waiter);
        self.presence(&ask.caller.who).waiting.insert(id);
        slot
    }

    /// In the kernel's order: all who may try again do.
    fn retry_all(&mut self) {
        while !self.retry.is_empty() {
            let next = self.domain().next_of(self.retry.len());
            let id = self.retry.remove(next).expect("it is one of them");
            let Some(waiter) = self.space.waiters.remove(&id) else { continue };
            domain::count(&self.domain().counters.retried);
            let who = &waiter.ask.caller.who;
            self.presence(who).account.grow(-1, None);
            let outcome = match self.attempt(&waiter.ask, Patience::Wait, Some(id)) {
                Err(Refusal::Held(record, holder)) => {
                    self.presence(who).account.grow(1, None);
                    let file = Arc::clone(self.file);
                    let mut graph = lock(&file.domain.graph);
                    // First: nobody who waits for it is to be found by the search.
                    self.retry.extend(graph.wake(id));
                    if graph.block(id, &waiter.ask, record, &holder).is_ok() {
                        self.space.waiters.insert(id, waiter);
                        continue;
                    }
                    drop(graph);
                    self.presence(who).account.grow(-1, None);
                    Err(Refusal::Cycle)
                }
                other => other,
            };
            self.answer(id, waiter, outcome);
        }
    }

    /// A request that has waited is answered. It is not among those who wait any more, nor counted.
    fn answer(&mut self, id: u64, waiter: Waiter<O>, outcome: Result<(), Refusal<O>>) {
        self.presence(&waiter.ask.caller.who).waiting.remove(&id);
        let answer = match outcome {
            Ok(()) => {
                domain::count(&self.domain().counters.granted_later);
                Ok(())
            }
            Err(refusal) => {
                self.leave_graph(id);
                Err(self.refuse(&refusal))
            }
        };
        self.answers.push((waiter.slot, answer));
    }

    /// Those who hang below a request that is over try again.
    fn leave_graph(&mut self, id: u64) {
        if self.order() == Order::Kernel {
            let woken = lock(&self.domain().graph).remove(id);
            self.retry.extend(woken);
        }
    }

    /// In order of arrival: a place in the queue, unless it is granted at once.
    fn queue(&mut self, id: u64, ask: &Ask<O>) -> Result<Option<Arc<Slot>>, Refusal<O>> {
        if self.prepare(ask)? {
            return Ok(None);
        }
        let Ask { caller: Caller { who, .. }, kind, extent } = ask;
        if extent.is_empty() {
            return self.carry_out(ask, None, None).map(|()| None);
        }
        let account = Arc::clone(&self.presence(who).account);
        let table = &self.space.table;
        let request = table.lock().request_arc(extent.range(), kind.mode()).owner(&account.token);
        let mut queued = Box::pin(request.into_future());
        // A waker that leads nowhere, as others may have the request put off, so that it would come later than it did.
        let granted = match queued.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => {
                if !account.grow(1, self.domain().options.quota) {
                    return Err(Refusal::Full);
                }
                let (domain, file) = (Arc::downgrade(&self.file.domain), Arc::downgrade(self.file));
                let waker = Waker::from(Arc::new(Bell { domain, file, id }));
                match queued.as_mut().poll(&mut Context::from_waker(&waker)) {
                    Poll::Pending => return Ok(Some(self.wait_as(id, ask, Some((queued, waker))))),
                    Poll::Ready(answer) => {
                        account.grow(-1, None);
                        answer
                    }
                }
            }
            Poll::Ready(answer) => answer,
        };
        match granted {
            Ok(fresh) => self.carry_out(ask, Some(fresh), None).map(|()| None),
            Err(_) => Err(Refusal::Cycle),
        }
    }

    /// In order of arrival: a request was called.
    fn poll(&mut self, id: u64) {
        let Some(waiter) = self.space.waiters.get_mut(&id) else { return };
        let Some((queued, waker)) = &mut waiter.queued else { return };
        domain::count(&self.file.domain.counters.retried);
        let Poll::Ready(granted) = queued.as_mut().poll(&mut Context::from_waker(waker)) else { return };
        let waiter = self.space.waiters.remove(&id).expect("it was there");
        let ask = &waiter.ask;
        self.presence(&ask.caller.who).account.grow(-1, None);
        let outcome = match granted {
            Ok(fresh) => self.grant(ask, fresh),
            Err(_) => Err(Refusal::Cycle),
        };
        self.answer(id, waiter, outcome);
    }

    /// Makes a lock of what was granted after a wait, unless something is in the way that the range lock knows nothing
    /// of and that has come meanwhile: a place, or a lock of the same handle.
    fn grant(&mut self, ask: &Ask<O>, fresh: ArcOwnerGuard) -> Result<(), Refusal<O>> {
        let who = &ask.caller.who;
        let is_barred = (self.space.table.has_places() || who.class == Class::Handle)
            && self
                .space
                .table
                .conflicts(who, ask.kind, ask.extent)
                .any(|(holder, record)| holder == who || record.extent.is_empty());
        if is_barred {
            return Err(Refusal::Busy);
        }
        self.carry_out(ask, Some(fresh), None)
    }

    fn unlock(&mut self, who: &Who<O>, extent: Extent) -> Result<(), Error> {
        if who.class != Class::Handle && !self.space.presence.contains_key(who) {
            return Ok(());
        }
        let (quota, domain) = (self.domain().options.quota, Arc::clone(&self.file.domain));
        let Presence { account, group, .. } = self.presence(who);
        let (account, mut place) = (Arc::clone(account), *group);
        let table = &mut self.space.table;
        let done = if who.class == Class::Handle {
            let Some(id) = table.lift(&mut place, extent) else { return Err(Error::NotLocked) };
            account.grow(-1, None);
            Done { changed: vec![id], made: None }
        } else {
            let plan: Plan = table.plan(place, None, extent);
            if !account.grow(plan.growth(), quota) {
                domain::count(&domain.counters.over_quota);
                return Err(Error::NoLocks);
            }
            table.execute(&mut place, who, &account.token, plan, None, &mut || domain.next_id())
        };
        self.presence(who).group = place;
        domain::count(&domain.counters.unlocked);
        self.finish(done, None);
        Ok(())
    }

    /// As Linux changes the kind of such a lock: the old one is given up first.
    fn give_up_other_kind(&mut self, ask: &Ask<O>) {
        let who = &ask.caller.who;
        let group = self.presence(who).group;
        let plan = self.space.table.plan(group, Some(ask.kind), ask.extent);
        if !self.space.table.is_done(group, &plan) && group.is_some() {
            // It makes nothing two: the quota does not matter.
            let _ = self.unlock(who, ask.extent);
            // Who waits for it wakes up as this one goes on, and most often comes too late.
            if self.domain().next_of(2) == 1 {
                self.retry_all();
            }
        }
    }

    fn cancel(&mut self, id: u64) -> bool {
        let Some(waiter) = self.space.waiters.remove(&id) else { return false };
        let who = &waiter.ask.caller.who;
        let presence = self.presence(who);
        presence.waiting.remove(&id);
        presence.account.grow(-1, None);
        domain::count(&self.domain().counters.cancelled);
        self.leave_graph(id);
        // Its place in the queue goes with what is left of it.
        self.answers.push((waiter.slot, Err(Error::Interrupted)));
        true
    }

    fn release(&mut self, who: &Who<O>) {
        if !self.space.presence.contains_key(who) {
            return;
        }
        for id in self.presence(who).waiting.clone() {
            self.cancel(id);
        }
        let mut place = self.presence(who).group.take();
        let gone = self.space.table.clear(&mut place);
        self.presence(who).account.grow(-(gone.len() as isize), None);
        self.finish(Done { changed: gone, made: None }, None);
    }
}
