//! Who asks: the identity that a request is checked against, the tokens that stand for one, and the little that a
//! thread keeps of its own.
//!
//! An owner never conflicts with itself. There are three kinds, told apart by their ids:
//!
//! - a *thread*, the owner of its blocking calls: the first id of a block of [`BLOCK`];
//! - a *token*, an [`Owner`] that somebody made: the highest bit is set;
//! - a *task*, a future or an `Arc` request without a token. It makes one request and no other.
//!
//! Ids are drawn in blocks, one block per thread at a time, so that drawing one for each future touches a shared
//! counter once in [`BLOCK`] times. An id is never used twice (2^63 ids outlast any process).
//!
//! # Order
//! Every request has a number, its *order*, which says when it came among the requests of its owner, and in the queue:
//!
//! | | order |
//! |---|---|
//! | outermost: its owner has nothing else | its *stamp*: the bar of its lock when it came, the highest ticket of those who had queued there; a multiple of [`STEP`] |
//! | queued | its *ticket*: a multiple of [`STEP`], and 1 more if it is nested |
//! | nested, never queued | above the last ticket drawn and above its owner's last nested order, and no multiple of [`STEP`] |
//!
//! So the order of a nested request is above those of all requests that its owner had made before, and tells that it is
//! nested.
//!
//! The order of one who is not in the queue also tells whom it has met. It was read *before* the request was published,
//! and whoever has a ticket was published before he drew it. So if the order is [not below](came_after) a ticket, the
//! request has found the one with the ticket in its scan, if that was in its way, and is behind it: it queues or
//! leaves, and nobody in the queue need wait to see which. (O1)
//!
//! | pair | writer | reader | carries |
//! |---|---|---|---|
//! | O1 | draw: CAS of the last ticket, AcqRel; then raise the bar: CAS, Release | outermost: load of the bar, Acquire; nested: load of the last ticket, or of the owner's last order, Acquire | the publication of who drew the ticket, and of all who drew a lower one |
//!
//! Tickets are also times: nanoseconds since the process first drew one, in units of 64, unless they are drawn faster
//! than that. So a ticket says how long its request has waited, and nobody has to store that.

use crate::platform::sync::{AtomicU64, Ordering, thread_local};
use crossbeam_utils::CachePadded;
use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Ids that a thread draws at once.
const BLOCK: u64 = 1024;

/// Set in the ids of tokens.
const TOKEN: u64 = 1 << 63;

/// Orders between two tickets.
const STEP: u64 = 1 << 10;

/// What an order's unit is of a nanosecond, as a power of two: tickets are 64 ns apart, and 60 bits of nanoseconds are
/// 36 years.
const ORDER_SHIFT: u32 = 4;

/// Of the acquires that look at the tree's shape, one in this many also looks for nodes that are not needed any more
/// (see `tree::prune`).
const TIDY: u32 = if cfg!(spanlock_shuttle) { 2 } else { 32 };

/// The identity of an owner: of a thread, an [`Owner`] or a task. It differs between any two of them for as long as the
/// process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerId(u64);

impl OwnerId {
    #[inline]
    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    /// What a slot says.
    pub(crate) const fn from_slot(id: u64) -> OwnerId {
        OwnerId(id)
    }

    pub(crate) const fn is_token(self) -> bool {
        self.0 & TOKEN != 0
    }

    pub(crate) const fn is_thread(self) -> bool {
        !self.is_token() && self.0 % BLOCK == 0
    }
}

/// `thread 3`, `owner 1025`, `task 1026`. (Numbers of this library: the first thread that took a lock is `thread 1`.)
impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_token() {
            write!(f, "owner {}", self.0 & !TOKEN)
        } else if self.is_thread() {
            write!(f, "thread {}", self.0 / BLOCK)
        } else {
            write!(f, "task {}", self.0)
        }
    }
}

/// In place of the order of a request whose owner has nothing else: its lock says which it is.
pub(crate) const OUTERMOST: u64 = 0;

/// Whether a request that came with this order is nested: its owner had another then.
pub(crate) const fn is_nested(order: u64) -> bool {
    order % STEP != 0
}

/// A ticket without what it says beside the place in the queue.
pub(crate) const fn place_of(ticket: u64) -> u64 {
    ticket - ticket % STEP
}

/// Whether a request of this order, which waits for nobody yet, came so late that it is behind whoever has `ticket`
/// (O1). (Also if the order is its own ticket already, which the word does not say yet.)
pub(crate) const fn came_after(order: u64, ticket: u64) -> bool {
    order >= place_of(ticket)
}

/// What a request does when its own owner holds the same bytes in a mode that conflicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Recursion {
    /// It is granted: an owner does not conflict with itself. The guard [says so](crate::Guard::nesting).
    #[default]
    Reenter,
    /// It is refused, with [`AcquireError::WouldRecurse`](crate::AcquireError::WouldRecurse). To find what its owner
    /// holds takes a look at the lock, and another one whenever some guard of that lock was converted, extended or
    /// split meanwhile.
    Refuse,
}

/// A token that owns requests: for transactions, async tasks, and I/O that starts on one thread and completes on
/// another.
///
/// Requests made [by an owner](crate::Request::owner) never conflict with one another, and a deadlock between owners is
/// answered with an error. Its guards are `Send`. A clone is the same owner.
///
/// *An owner with a blocked request is assumed to release nothing until that request is answered*: that is what makes a
/// cycle of waits a deadlock. So independent activities take an owner each.
///
/// Dropping an `Owner` releases nothing. Its guards keep the identity alive for as long as they live, and its requests
/// go on; all that ends is the ability to make more.
///
/// A thread that holds a guard of a token and then asks *as a thread* for the same bytes waits for itself. Nobody can
/// tell: the guard might have been sent elsewhere. So ask by the token, or [through the guard](crate::Guard::request).
/// The other way round is found: a thread that waits in a call holds what it holds, so a token's request that it waits
/// for, and that waits for that, is a deadlock.
///
/// A task that shall have one owner for all that it asks runs in its [`scope`](Owner::scope).
///
/// # Examples
/// ```
/// use spanlock::{AcquireError, Mode, Owner, RangeLock};
///
/// fn transfer(accounts: &RangeLock, log: &RangeLock) -> Result<(), AcquireError> {
///     let transaction = Owner::named("transfer 7");
///     let from = accounts.request(40..41, Mode::Exclusive).owner(&transaction).wait()?;
///     let entry = log.request(.., Mode::Add).owner(&transaction).wait()?;
///     assert!(accounts.request(40..41, Mode::Add).owner(&transaction).try_now().is_some());
///     assert!(accounts.request(40..41, Mode::Add).owner(&Owner::new()).try_now().is_none());
///     drop((from, entry)); // or another thread does: they are `Send`
///     Ok(())
/// }
/// # transfer(&RangeLock::new(), &RangeLock::new()).unwrap();
/// ```
#[derive(Clone)]
pub struct Owner {
    core: Arc<Core>,
    recursion: Recursion,
}

struct Core {
    id: OwnerId,
    name: Option<Box<str>>,
    /// Requests between the start of their doorway and their end.
    live: AtomicU64,
    /// The last order given to a nested request.
    order: AtomicU64,
}

impl Owner {
    /// An owner that nobody had before.
    pub fn new() -> Owner {
        Owner::make(None)
    }

    /// A new owner with a name, for snapshots and for the messages about deadlocks. Names need not differ.
    ///
    /// **Locking behaviour:** to make it, and to drop its last handle or guard, takes a lock of the list of names for
    /// one entry.
    pub fn named(name: impl Into<Box<str>>) -> Owner {
        Owner::make(Some(name.into()))
    }

    fn make(name: Option<Box<str>>) -> Owner {
        let id = OwnerId(TOKEN | fresh().0);
        if let Some(name) = &name {
            names::note(id, name);
        }
        let core = Core { id, name, live: AtomicU64::new(0), order: AtomicU64::new(0) };
        Owner { core: Arc::new(core), recursion: Recursion::Reenter }
    }

    /// The same owner, whose requests by this handle do as `recursion` says unless they say otherwise.
    pub fn recursion(mut self, recursion: Recursion) -> Owner {
        self.recursion = recursion;
        self
    }

    /// Its identity, as snapshots and errors give it.
    pub fn id(&self) -> OwnerId {
        self.core.id
    }

    /// The name that it was given.
    pub fn name(&self) -> Option<&str> {
        self.core.name.as_deref()
    }

    pub(crate) fn policy(&self) -> Recursion {
        self.recursion
    }

    /// The owner of a task that has one request so far, which holds: its next ones are of this owner, too.
    pub(crate) fn of_task(task: OwnerId) -> Owner {
        let core = Core { id: OwnerId(TOKEN | task.0), name: None, live: AtomicU64::new(1), order: AtomicU64::new(0) };
        Owner { core: Arc::new(core), recursion: Recursion::Reenter }
    }

    /// The owner in whose [scope](Owner::scope) the caller is, if it is in one.
    ///
    /// For code deep in a task that has to name an owner: a request on a borrowed lock, say.
    ///
    /// ```
    /// use spanlock::Owner;
    ///
    /// async fn look() {
    ///     let me = Owner::new();
    ///     assert_eq!(Owner::current(), None);
    ///     assert_eq!(me.scope(async { Owner::current() }).await, Some(me));
    /// }
    /// # pollster::block_on(look());
    /// ```
    pub fn current() -> Option<Owner> {
        // A thread that ends is in no scope.
        let look = |scope: &Cell<Option<Owner>>| {
            let current = scope.take();
            scope.set(current.clone());
            current
        };
        SCOPE.try_with(look).ok().flatten()
    }

    /// Makes it the one in whose scope the caller is, until what this returns is dropped.
    pub(crate) fn enter_scope(&self) -> InScope {
        InScope { before: SCOPE.try_with(|scope| scope.replace(Some(self.clone()))).ok().flatten() }
    }

    /// Whether it has more than one live request.
    ///
    /// ORDERING: Acquire, and Release in `enter`; what counts is that a request that others could see comes before this
    /// look: the index's lock orders that (see `cycle`).
    pub(crate) fn has_several(&self) -> bool {
        self.core.live.load(Ordering::Acquire) > 1
    }

    /// A request begins.
    pub(crate) fn enter(&self) -> Asker {
        self.enter_from(visit())
    }

    /// The same, by this thread.
    pub(crate) fn enter_from(&self, visitor: Visitor) -> Asker {
        let nested = self.core.live.fetch_add(1, Ordering::AcqRel) > 0;
        let order = if nested { self.next_order() } else { OUTERMOST };
        Asker { visitor, owner: self.core.id, order }
    }

    /// One more request that began as a part of one that is live already.
    pub(crate) fn join(&self) {
        self.core.live.fetch_add(1, Ordering::AcqRel);
    }

    /// A request has ended.
    pub(crate) fn leave(&self) {
        // Wrapping: one less.
        self.core.live.fetch_add(u64::MAX, Ordering::AcqRel);
    }

    fn next_order(&self) -> u64 {
        // ORDERING (O1): Acquire and Release, as the order may be that of another thread of this owner, counted on:
        // then this one knows what that one knew.
        let mut last = self.core.order.load(Ordering::Acquire);
        loop {
            let next = order_after(last);
            match self.core.order.compare_exchange(last, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return next,
                Err(now) => last = now,
            }
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if self.name.is_some() {
            names::forget(self.id);
        }
    }
}

/// The name of a token, for who has its id only: a snapshot. (A thread knows its name itself, and nobody else is told:
/// that would allocate.)
pub(crate) fn name_of(owner: OwnerId) -> Option<Box<str>> {
    if owner.is_token() { names::of(owner) } else { None }
}

/// The names of the tokens that have one, for as long as they live.
#[cfg(not(any(loom, spanlock_shuttle)))]
mod names {
    use super::{BLOCK, OwnerId, TOKEN};
    use crate::platform::sync::{Mutex, lock};
    use std::collections::BTreeMap;

    /// By id. In parts, so that threads which make and drop tokens seldom meet: their ids are of different blocks.
    static NAMES: [Mutex<BTreeMap<u64, Box<str>>>; 16] = [const { Mutex::new(BTreeMap::new()) }; 16];

    fn part(owner: OwnerId) -> &'static Mutex<BTreeMap<u64, Box<str>>> {
        &NAMES[((owner.0 & !TOKEN) / BLOCK) as usize % NAMES.len()]
    }

    pub(super) fn note(owner: OwnerId, name: &str) {
        lock(part(owner)).insert(owner.0, name.into());
    }

    pub(super) fn forget(owner: OwnerId) {
        lock(part(owner)).remove(&owner.0);
    }

    pub(super) fn of(owner: OwnerId) -> Option<Box<str>> {
        lock(part(owner)).get(&owner.0).cloned()
    }
}

/// In models nobody is called anything.
#[cfg(any(loom, spanlock_shuttle))]
mod names {
    use super::OwnerId;

    pub(super) fn note(_: OwnerId, _: &str) {}

    pub(super) fn forget(_: OwnerId) {}

    pub(super) fn of(_: OwnerId) -> Option<Box<str>> {
        None
    }
}

impl Default for Owner {
    fn default() -> Owner {
        Owner::new()
    }
}

/// The same owner, not an equal one.
impl PartialEq for Owner {
    fn eq(&self, other: &Owner) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Owner {}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Owner");
        out.field("id", &format_args!("{}", self.id()));
        if let Some(name) = self.name() {
            out.field("name", &name);
        }
        out.field("live", &self.core.live.load(Ordering::Relaxed)).finish()
    }
}

/// The thread that makes an acquire, as an owner.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visitor(OwnerId);

impl Visitor {
    /// A thread of a test's own making.
    #[cfg(any(all(test, not(spanlock_shuttle)), fuzzing))]
    pub(crate) fn numbered(number: u64) -> Visitor {
        Visitor(OwnerId(number * BLOCK))
    }

    /// A number that differs between threads that were started one after the other: where to look for a slot first.
    #[inline]
    pub(crate) fn home(self) -> usize {
        (self.0.0 / BLOCK) as usize
    }

    /// The thread's mark in the nodes that it uses: 15 bits, never zero.
    #[inline]
    pub(crate) fn mark(self) -> u16 {
        // Two threads may share one by chance: then they look like one to the tree's growth, no more.
        (self.0.0 / BLOCK % u64::from(u16::MAX >> 1)) as u16 + 1
    }
}

/// Whether the calling thread, which looks at a tree's shape, also tidies up there.
pub(crate) fn is_turn_to_tidy() -> bool {
    LOCAL.with(|local| {
        let looks = local.looks.get().wrapping_add(1);
        local.looks.set(looks);
        looks % TIDY == 0
    })
}

/// Who makes a request, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    /// The thread that does the work.
    pub(crate) visitor: Visitor,
    pub(crate) owner: OwnerId,
    /// The request's order, unless it has to queue; [`OUTERMOST`] if its lock is to say.
    pub(crate) order: u64,
}

impl Asker {
    /// A thread of a test's own making that asks for itself and has nothing else.
    #[cfg(all(test, loom))]
    pub(crate) fn numbered(number: u64) -> Asker {
        let visitor = Visitor::numbered(number);
        Asker { visitor, owner: visitor.0, order: OUTERMOST }
    }

    /// The same of one that has something already.
    #[cfg(all(test, loom))]
    pub(crate) fn nested(self) -> Asker {
        Asker { order: order_after(0), ..self }
    }
}

/// A thread's own state. No destructor, so that it can be used while a thread ends.
struct Local {
    /// The thread's own id; zero until its first acquire.
    thread: Cell<u64>,
    /// The next id of the thread's block, and the end of that block.
    next: Cell<u64>,
    end: Cell<u64>,
    /// The thread's requests between the start of their doorway and their end.
    live: Cell<u64>,
    /// The last order given to a nested request of the thread.
    order: Cell<u64>,
    /// How often it has looked at the shape of a tree.
    looks: Cell<u32>,
}

impl Local {
    const fn new() -> Local {
        Local {
            thread: Cell::new(0),
            next: Cell::new(0),
            end: Cell::new(0),
            live: Cell::new(0),
            order: Cell::new(0),
            looks: Cell::new(0),
        }
    }

    #[cold]
    fn refill(&self) {
        // Relaxed: only distinct values matter.
        let base = draw_block();
        self.next.set(base);
        self.end.set(base + BLOCK);
    }

    fn draw(&self) -> u64 {
        if self.next.get() == self.end.get() {
            self.refill();
            // The first id of a block is a thread's, and only one thread has this block.
            self.next.set(self.next.get() + 1);
        }
        let id = self.next.get();
        self.next.set(id + 1);
        id
    }

    #[cold]
    fn introduce(&self) -> u64 {
        // A new block, so that threads differ in more than the low bits (see `Visitor::home`).
        self.refill();
        let id = self.next.get();
        self.next.set(id + 1);
        self.thread.set(id);
        id
    }

    #[inline]
    fn visit(&self) -> Visitor {
        Visitor(OwnerId(match self.thread.get() {
            0 => self.introduce(),
            id => id,
        }))
    }

    #[inline(never)]
    fn next_order(&self) -> u64 {
        let order = order_after(self.order.get());
        self.order.set(order);
        order
    }
}

#[cfg(not(any(loom, spanlock_shuttle)))]
thread_local! {
    static LOCAL: Local = const { Local::new() };
}
#[cfg(any(loom, spanlock_shuttle))]
thread_local! {
    static LOCAL: Local = Local::new();
}

// Apart from `LOCAL`, which is there until the very end of a thread.
#[cfg(not(any(loom, spanlock_shuttle)))]
thread_local! {
    static SCOPE: Cell<Option<Owner>> = const { Cell::new(None) };
}
#[cfg(any(loom, spanlock_shuttle))]
thread_local! {
    static SCOPE: Cell<Option<Owner>> = Cell::new(None);
}

/// The caller is in the scope of an owner. When this is dropped, it is in the one where it was before.
#[must_use]
pub(crate) struct InScope {
    before: Option<Owner>,
}

impl Drop for InScope {
    fn drop(&mut self) {
        let before = self.before.take();
        // What was there is dropped behind the access.
        drop(SCOPE.try_with(|scope| scope.replace(before)));
    }
}

/// The calling thread, if it has requests of its own, and is about to wait in a call for one of `owner`, another one:
/// it keeps them until that is answered.
pub(crate) fn thread_held_up_by(owner: OwnerId) -> Option<OwnerId> {
    LOCAL.with(|local| {
        let thread = OwnerId(local.thread.get());
        (local.live.get() > 0 && thread != owner).then_some(thread)
    })
}

/// The calling thread, which begins a request of its own.
#[inline]
pub(crate) fn enter() -> Asker {
    LOCAL.with(|local| {
        let visitor = local.visit();
        let live = local.live.get();
        local.live.set(live + 1);
        let order = if live == 0 { OUTERMOST } else { local.next_order() };
        Asker { visitor, owner: visitor.0, order }
    })
}

/// The calling thread has one more request, as a part of one that is live already.
pub(crate) fn join() {
    LOCAL.with(|local| local.live.set(local.live.get() + 1));
}

/// A request of the calling thread has ended.
#[inline]
pub(crate) fn leave() {
    LOCAL.with(|local| local.live.set(local.live.get() - 1));
}

/// The calling thread as an owner.
pub(crate) fn thread() -> OwnerId {
    visit().0
}

/// The calling thread, which does something for another owner.
#[inline]
pub(crate) fn visit() -> Visitor {
    LOCAL.with(Local::visit)
}

/// An owner that nobody had before.
pub(crate) fn fresh() -> OwnerId {
    LOCAL.with(|local| OwnerId(local.draw()))
}

/// One for a nested request of an owner who has made none before.
#[cfg(all(test, not(any(loom, spanlock_shuttle))))]
pub(crate) fn order_of_nested() -> u64 {
    order_after(0)
}

/// An order for a nested request whose owner's last one was `last`.
fn order_after(last: u64) -> u64 {
    // ORDERING (O1): Acquire: the request will find whoever has drawn a ticket up to this one.
    let base = counters(|counters| counters.last_ticket.load(Ordering::Acquire)).max(last);
    match base % STEP {
        // A nested request that queued has the one above its ticket.
        0 => base + 2,
        used if used == STEP - 1 => next_ticket() + 2,
        _ => base + 1,
    }
}

/// The next ticket: a place in the order in which conflicting requests are granted. One sequence for the whole process,
/// touched under conflict only.
///
/// ORDERING: AcqRel, and drawn after the request was published: whoever draws a higher ticket has then seen, or will
/// see, the publication of everyone with a lower one. With Relaxed two requests can each believe to be first (loom
/// finds it).
#[cfg(any(loom, spanlock_shuttle))]
pub(crate) fn next_ticket() -> u64 {
    counters(|counters| counters.last_ticket.fetch_add(STEP, Ordering::AcqRel)) + STEP
}

/// As the one for models, which have no clock, but not behind the time.
#[cfg(not(any(loom, spanlock_shuttle)))]
pub(crate) fn next_ticket() -> u64 {
    let now = (nanoseconds() << ORDER_SHIFT) & !(STEP - 1);
    counters(|counters| {
        // Relaxed: the CAS decides.
        let mut last = counters.last_ticket.load(Ordering::Relaxed);
        loop {
            let next = now.max(last + STEP);
            match counters.last_ticket.compare_exchange_weak(last, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return next,
                Err(drawn) => last = drawn,
            }
        }
    })
}

/// The last ticket that was drawn, as it stands in the slot of a nested request: none that was drawn is above it.
///
/// ORDERING: Acquire, from whoever drew this one and those below: what they had published, and what they saw, is seen
/// by who looks now.
pub(crate) fn last_ticket() -> u64 {
    counters(|counters| counters.last_ticket.load(Ordering::Acquire)) | 1
}

/// The next ticket, as it stands in the slot of who draws it.
pub(crate) fn ticket_for(nested: bool) -> u64 {
    next_ticket() | u64::from(nested)
}

/// The time, in the unit of tickets.
#[cfg(not(any(loom, spanlock_shuttle)))]
pub(crate) fn now() -> u64 {
    nanoseconds() << ORDER_SHIFT
}

/// A model's time passes when the model [says so](pass_time). Relaxed: as of any clock, one who knows of a reading
/// reads no less.
#[cfg(any(loom, spanlock_shuttle))]
pub(crate) fn now() -> u64 {
    counters(|counters| counters.clock.load(Ordering::Relaxed))
}

/// A time in the unit of tickets.
pub(crate) const fn span_of(time: Duration) -> u64 {
    let (nanoseconds, most) = (time.as_nanos(), u64::MAX >> ORDER_SHIFT);
    (if nanoseconds < most as u128 { nanoseconds as u64 } else { most }) << ORDER_SHIFT
}

/// The other way round.
pub(crate) const fn time_of(span: u64) -> Duration {
    Duration::from_nanos(span >> ORDER_SHIFT)
}

/// Since the process first asked.
#[cfg(not(any(loom, spanlock_shuttle)))]
fn nanoseconds() -> u64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed().as_nanos() as u64 + ahead()
}

#[cfg(not(any(test, fuzzing, loom, spanlock_shuttle)))]
fn ahead() -> u64 {
    0
}

/// How far the clock is ahead, of all threads: a ticket is not below one that was drawn before.
#[cfg(all(any(test, fuzzing), not(any(loom, spanlock_shuttle))))]
static AHEAD: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

#[cfg(all(any(test, fuzzing), not(any(loom, spanlock_shuttle))))]
fn ahead() -> u64 {
    AHEAD.load(Ordering::Relaxed)
}

/// For tests that do not sleep: from now on it is so much later. (For other tests, too: none goes by the time that
/// passes.)
#[cfg(all(any(test, fuzzing), not(any(loom, spanlock_shuttle))))]
pub(crate) fn pass_time(time: Duration) {
    AHEAD.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
}

/// The same for a model.
#[cfg(all(test, loom))]
pub(crate) fn pass_time(time: Duration) {
    counters(|counters| counters.clock.fetch_add(span_of(time), Ordering::Relaxed));
}

fn draw_block() -> u64 {
    counters(|counters| counters.blocks.fetch_add(BLOCK, Ordering::Relaxed))
}

/// What the whole process shares. Ids start at one block: zero means none.
struct Counters {
    blocks: CachePadded<AtomicU64>,
    last_ticket: CachePadded<AtomicU64>,
    #[cfg(any(loom, spanlock_shuttle))]
    clock: AtomicU64,
}

#[cfg(not(any(loom, spanlock_shuttle)))]
fn counters<T>(f: impl FnOnce(&Counters) -> T) -> T {
    static COUNTERS: Counters =
        Counters { blocks: CachePadded::new(AtomicU64::new(BLOCK)), last_ticket: CachePadded::new(AtomicU64::new(0)) };
    f(&COUNTERS)
}

#[cfg(any(loom, spanlock_shuttle))]
fn counters<T>(f: impl FnOnce(&Counters) -> T) -> T {
    crate::platform::sync::lazy_static! {
        static ref COUNTERS: Counters = Counters {
            blocks: CachePadded::new(AtomicU64::new(BLOCK)),
            last_ticket: CachePadded::new(AtomicU64::new(0)),
            clock: AtomicU64::new(0),
        };
    }
    f(&COUNTERS)
}

#[cfg(all(test, not(any(loom, spanlock_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_nested_order_is_above_all_that_came_before() {
        let mut last = 0;
        for _ in 0..5 * STEP {
            let next = order_after(last);
            assert!(next > last && is_nested(next));
            // Otherwise it is not known to be above a ticket that was drawn meanwhile.
            assert!(next == last + 1 || next % STEP == 2, "counted on, or right behind a ticket");
            last = next;
        }
        let ticket = next_ticket();
        assert!(ticket > last && !is_nested(ticket) && is_nested(ticket | 1));
        assert!(order_after(last) > ticket | 1, "not a tie with a nested request that queued");
    }

    #[test]
    fn only_threads_have_the_first_id_of_a_block() {
        let printed = |id: OwnerId| id.to_string();
        assert!(printed(enter().owner).starts_with("thread "));
        leave();
        for _ in 0..3 * BLOCK {
            assert!(printed(fresh()).starts_with("task "));
        }
        assert!(printed(Owner::new().id()).starts_with("owner "));
    }
}
