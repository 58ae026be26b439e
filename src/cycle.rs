//! Cycles of waits: who may pass whom, and when the answer is a deadlock.
//!
//! # Promise
//! - A cycle of owners that wait for one another's *grants* is answered: the request that closes it gets a [`Deadlock`].
//! - A cycle that leads through somebody who only waits is broken: the nested request is let *past* the queued one.
//! - Nothing else is refused, and nobody else passes.
//!
//! # How
//! The tree is the wait-for graph: what a queued request waits for is found by the scan that it would do itself. Beside it there is an
//! [`index`] of blocked requests by owner. A nested request is enlisted when it queues, and so is every request of a token (it may be blocked
//! before its owner holds anything). A batch is enlisted by its ticket. An outermost request of a thread, however contended, is in no index.
//!
//! Before it parks for the first time, a nested request *searches*, one search at a time in the whole process. There are two kinds of edges:
//!
//! - *grant*: from a blocked request to the blocked requests of the owner who holds what it asks for;
//! - *queue*: from a request to a queued one that is in front of it, and to the blocked requests of that one's owner.
//!
//! Let S be the searcher's request and the other blocked ones of its owner, and R all that grant edges lead to from S: the requests that must get
//! through before S can.
//!
//! 1. If a grant edge leads from R back into S, that is a deadlock. The searcher's request leaves the index before the next search begins, so
//!    that one cycle is answered once.
//! 2. Otherwise each z in R passes each queued w in front of it that is in S, or that is outside of R and leads to S by any edges: nobody whom the
//!    searcher needs may stand behind somebody who needs the searcher.
//!
//! All of that is one computation. Breaking one cycle after the other flip-flops, and "passes everybody" overtakes bystanders.
//!
//! # Passing
//! A pass is a pair of tickets, kept in the entry of the one who passes. The searcher
//!
//! 1. marks z's slots as *passing*, and notes the pair, which z does not act upon yet;
//! 2. makes w look again before it is granted (RESCAN): that look finds z marked, asks the index, and takes z for one in front;
//! 3. opens the pass: z, which may be looking at this very moment, skips w from its next look on.
//!
//! So w is held back before z goes ahead. If z is not in the queue yet, or w was granted before (2), nothing of this stands; the graph is another one,
//! and the search starts again.
//!
//! # Invariants
//! - INV-C1: an entry is in the index only while its spaces are in place and its slots live. It is taken out before they are left; if a search may have
//!   seen it, taking it out waits for that search to end. A thread that waits takes it out by itself; a future can be forgotten, and then the entry
//!   stays: so the futures that are enlisted have locks that stay as well ([`AwaitedOn`](crate::AwaitedOn)).
//! - INV-C2: a search sees a request that it comes across decided or not at all: one in its doorway (QUEUING; or a token's that is PENDING) makes the
//!   search begin anew, when it is through. (A thread's that is PENDING is a hold if the thread is blocked elsewhere; if not, no edge leads on from it.)
//! - INV-C3: nobody waits for anything while a search goes on, but for the index's own locks.
//! - INV-C4: a search looks at each request and each owner once, and goes by that to its end: else of two that stand behind one another it could let one be
//!   passed, and the other not, because somebody was blocked in between; and the one who passes would wait for himself.
//!
//! # Source
//! The distinction between edges to holders and edges to queued requests: PostgreSQL's deadlock detector (hard and soft edges). The rule was found
//! by a model search: see `docs/internals.md`.

use crate::error::{AcquireError, Deadlock, OwnerName, Wait};
use crate::mode::Mode;
use crate::observe;
use crate::owner::{Owner, OwnerId};
use crate::range::ByteRange;
use crate::reclaim::LazyPin;
use crate::space::{Ask, Own, Seen, Space, what};
use crate::sync::{AtomicU64, Mutex, Ordering, fence, hint, lock, yield_now};
use crate::tree::{Grant, Query, Rescan};
use crate::wait;
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow::{Break, Continue};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

/// Tickets of those whom a request may pass.
pub(crate) type Passes = SmallVec<[u64; 2]>;

/// Where a waiting request, or a part of it, waits.
#[derive(Clone, Copy)]
pub(crate) struct Site {
    space: NonNull<Space>,
    ask: Ask,
    slot: Own,
}

impl Site {
    pub(crate) fn new(space: NonNull<Space>, ask: Ask, slot: Own) -> Site {
        Site { space, ask, slot }
    }
}

/// A request in the index.
pub(crate) struct Blocked {
    ticket: u64,
    owner: OwnerId,
    /// Its owner's name for messages, and what says whether it is nested.
    identity: Identity,
    sites: SmallVec<[Site; 1]>,
    /// For a batch: DECIDED or RESCAN, as in a slot's word.
    decision: AtomicU64,
    passes: Mutex<SmallVec<[Pass; 2]>>,
    /// Whether a search may have seen it. Set under the index's lock, and read by who has left the index: that lock is all the order there is.
    visited: hint::AtomicBool,
}

/// Leave to go before the request with the ticket `over`.
#[derive(Clone, Copy, Debug)]
struct Pass {
    over: u64,
    /// Whether that request is held back, so that this one may go ahead. If not, both take the other one for the one in front.
    open: bool,
}

const DECIDED: u64 = 1;
const RESCAN: u64 = 2;

enum Identity {
    Token(Owner),
    Thread { name: Option<Box<str>>, nested: bool },
}

// SAFETY: `Site` has pointers to a `Space` and to a node, which others than the request's own thread follow only during a search; both are there
// for as long as the entry can be seen (INV-C1), and are `Sync`. All else is `Send` and `Sync`.
unsafe impl Send for Blocked {}
// SAFETY: as above.
unsafe impl Sync for Blocked {}

impl Blocked {
    fn is_batch(&self) -> bool {
        self.sites.len() > 1
    }

    /// Whom it may go before.
    fn open_passes(&self) -> Passes {
        lock(&self.passes).iter().filter(|pass| pass.open).map(|pass| pass.over).collect()
    }

    /// Notes a pass that is not open yet. `false`: there is one.
    fn note_pass(&self, over: u64) -> bool {
        let mut passes = lock(&self.passes);
        let is_new = passes.iter().all(|pass| pass.over != over);
        if is_new {
            passes.push(Pass { over, open: false });
        }
        is_new
    }

    fn set_open(&self, over: u64, open: bool) {
        lock(&self.passes).iter_mut().filter(|pass| pass.over == over).for_each(|pass| pass.open = open);
    }

    fn drop_pass(&self, over: u64) {
        lock(&self.passes).retain(|pass| pass.over != over);
    }

    /// Whether the one with the ticket `other` must take this one for the one in front.
    fn is_ahead_of(&self, other: u64) -> bool {
        lock(&self.passes).iter().any(|pass| pass.over == other)
    }

    fn is_decided(&self) -> bool {
        self.decision.load(Ordering::Acquire) & DECIDED != 0
    }

    /// As [`Seen::ask_to_rescan`], for a batch.
    fn ask_to_rescan(&self) -> Rescan {
        loop {
            let now = self.decision.load(Ordering::Acquire);
            if now & DECIDED != 0 {
                return Rescan::Granted;
            }
            // ORDERING: AcqRel, as for a slot's RESCAN.
            if self.decision.compare_exchange(now, now | RESCAN, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Rescan::Asked;
            }
        }
    }

    fn name(&self) -> OwnerName {
        let name = match &self.identity {
            Identity::Token(owner) => owner.name().map(Box::from),
            Identity::Thread { name, .. } => name.clone(),
        };
        OwnerName { id: self.owner, name }
    }
}

/// A queued request's place in the index. Dropping it leaves the index.
pub(crate) struct Enlisted(Arc<Blocked>);

impl Enlisted {
    /// # Safety
    /// The sites' spaces stay in place, and their slots live, until the `Enlisted` is dropped (INV-C1).
    pub(crate) unsafe fn new(ticket: u64, ask: &Ask, token: Option<&Owner>, sites: SmallVec<[Site; 1]>) -> Enlisted {
        let identity = match token {
            Some(owner) => Identity::Token(owner.clone()),
            None => Identity::Thread { name: std::thread::current().name().map(Box::from), nested: ask.is_nested() },
        };
        let blocked = Arc::new(Blocked {
            ticket,
            owner: ask.owner(),
            identity,
            sites,
            decision: AtomicU64::new(0),
            passes: Mutex::new(SmallVec::new()),
            visited: hint::AtomicBool::new(false),
        });
        index::insert(&blocked);
        Enlisted(blocked)
    }

    /// Whether its owner has other live requests, so that it may be a part of a cycle.
    ///
    /// A token is asked *now*, behind the entry into the index: a request of the same owner that began meanwhile may hold what somebody waits for, who
    /// has searched before this one could be found.
    pub(crate) fn is_nested(&self) -> bool {
        match &self.0.identity {
            Identity::Token(owner) => owner.has_several(),
            Identity::Thread { nested, .. } => *nested,
        }
    }

    pub(crate) fn passes(&self) -> Passes {
        self.0.open_passes()
    }

    /// A batch is granted, unless somebody asked for another scan.
    pub(crate) fn decide(&self) -> Grant {
        let decision = &self.0.decision;
        loop {
            let now = decision.load(Ordering::Relaxed);
            let (next, outcome) = match now & RESCAN {
                0 => (now | DECIDED, Grant::Granted),
                _ => (now & !RESCAN, Grant::LookAgain),
            };
            // ORDERING: Acquire, so that the scan that follows a RESCAN sees whoever asked for it; Release for the decision.
            if decision.compare_exchange(now, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return outcome;
            }
        }
    }

    /// Looks for cycles that this request closes; lets pass whom that takes.
    ///
    /// # Errors
    /// [`AcquireError::Deadlock`].
    #[cold]
    pub(crate) fn search(&self) -> Result<(), AcquireError> {
        loop {
            let outcome = {
                // Pinned first: to pin may run what other users of the epoch have left to be dropped, a future that waits for this turn perhaps. (It
                // is waited for while pinned. But a search is short.)
                let pin = LazyPin::new();
                pin.get();
                let _alone = lock(turn());
                // ORDERING: behind the index's lock, which orders it with whoever enlisted before; the fence is for slots that were published by
                // other threads of a token than the one that enlisted.
                fence(Ordering::SeqCst);
                let outcome = Search::new(&pin).run(&self.0);
                if let Err(Stop::Deadlock(_)) = outcome {
                    // It leaves: whoever searches next must not be refused for a cycle that is broken already.
                    index::remove(&self.0);
                }
                outcome
            };
            // Not under the turn, and not pinned.
            wait::deliver();
            match outcome {
                Ok(()) => return Ok(()),
                Err(Stop::Deadlock(deadlock)) => {
                    observe::deadlock(&deadlock);
                    return Err(AcquireError::Deadlock(deadlock));
                }
                Err(Stop::Unsettled) => yield_now(),
            }
        }
    }
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        index::remove(&self.0);
        // The index's lock orders this with whoever set it.
        if self.0.visited.load(Ordering::Relaxed) {
            let_searches_end();
        }
    }
}

/// Waits for the search that goes on, if one does. (A search is short, and waits for nobody: INV-C3.)
pub(crate) fn let_searches_end() {
    drop(lock(turn()));
}

/// Whether the request that was seen in conflict is in front of one with `ticket` that may pass `passes`.
pub(crate) fn is_before(seen: &Seen<'_>, ticket: u64, passes: &Passes) -> bool {
    match seen.ticket() {
        None => true,
        Some(its) if its < ticket => !passes.contains(&its),
        Some(its) => seen.word().is_passing() && index::may_pass(OwnerId::from_slot(seen.owner()), its, ticket),
    }
}

/// The tickets of those whom a queued request may pass.
pub(crate) fn passes_of(owner: OwnerId, ticket: u64) -> Passes {
    index::find(owner, ticket).map(|blocked| blocked.open_passes()).unwrap_or_default()
}

/// Makes a queued request that was seen look again before it is granted.
pub(crate) fn ask_to_rescan(seen: &Seen<'_>) -> Rescan {
    match seen.ticket().and_then(index::batch) {
        Some(batch) => batch.ask_to_rescan(),
        None => seen.ask_to_rescan(),
    }
}

/// Why a search ended without a result.
enum Stop {
    Deadlock(Deadlock),
    /// Somebody was in the doorway, or the graph has changed meanwhile.
    Unsettled,
}

/// A waiting request in the graph: a single one or a batch.
struct Knot {
    ticket: u64,
    owner: OwnerId,
    /// None for an outermost request of a thread, and for a task's.
    blocked: Option<Arc<Blocked>>,
    places: SmallVec<[(NonNull<Space>, Query); 1]>,
}

/// A knot's number in its search.
type KnotId = usize;

/// What one knot waits for.
struct Edges<'p> {
    /// Holders, and at which of the knot's places.
    grants: Vec<(usize, Seen<'p>)>,
    /// Queued requests in front.
    queued: Vec<(KnotId, Seen<'p>)>,
}

/// One search: the part of the graph that it has looked at.
struct Search<'p> {
    pin: &'p LazyPin,
    knots: Vec<Knot>,
    by_ticket: BTreeMap<u64, KnotId>,
    edges: BTreeMap<KnotId, Rc<Edges<'p>>>,
    blocked: BTreeMap<u64, Rc<[KnotId]>>,
}

impl<'p> Search<'p> {
    fn new(pin: &'p LazyPin) -> Search<'p> {
        Search { pin, knots: Vec::new(), by_ticket: BTreeMap::new(), edges: BTreeMap::new(), blocked: BTreeMap::new() }
    }

    fn run(mut self, searcher: &Arc<Blocked>) -> Result<(), Stop> {
        let start: BTreeSet<KnotId> = self.blocked_of(searcher.owner).iter().copied().collect();
        let needed = self.needed(&start)?;
        let mut pairs = Vec::new();
        for &z in &needed {
            for (w, seen) in &self.edges(z)?.queued {
                if start.contains(w) || (!needed.contains(w) && self.leads_to(*w, &start)?) {
                    pairs.push((z, *w, *seen));
                }
            }
        }
        self.let_pass(&pairs, searcher)
    }

    /// R: what grant edges lead to from `start`, itself included. Stops at a deadlock.
    fn needed(&mut self, start: &BTreeSet<KnotId>) -> Result<BTreeSet<KnotId>, Stop> {
        let mut needed = start.clone();
        let mut rest: Vec<KnotId> = start.iter().copied().collect();
        // Whence each of them was reached, for the message.
        let mut led_by: BTreeMap<KnotId, Link<'p>> = BTreeMap::new();
        while let Some(from) = rest.pop() {
            for &(place, seen) in &self.edges(from)?.grants {
                let link = Link { from, place, seen };
                let blocked = self.blocked_of(OwnerId::from_slot(seen.owner()));
                // What was seen PENDING may have been in its doorway, and be among the blocked ones by now.
                if !blocked.is_empty() && !link.stands() {
                    return Err(Stop::Unsettled);
                }
                for &to in blocked.iter() {
                    if start.contains(&to) {
                        return Err(self.deadlock(link, &led_by));
                    }
                    if needed.insert(to) {
                        led_by.insert(to, link);
                        rest.push(to);
                    }
                }
            }
        }
        Ok(needed)
    }

    /// Whether `from`, or another blocked request of its owner, leads into `targets` by any edges.
    fn leads_to(&mut self, from: KnotId, targets: &BTreeSet<KnotId>) -> Result<bool, Stop> {
        let mut rest = self.with_siblings(from);
        let mut seen: BTreeSet<KnotId> = rest.iter().copied().collect();
        while let Some(knot) = rest.pop() {
            let edges = self.edges(knot)?;
            let mut next = Vec::new();
            for (_, grant) in &edges.grants {
                next.extend_from_slice(&self.blocked_of(OwnerId::from_slot(grant.owner())));
            }
            for (queued, _) in &edges.queued {
                next.extend(self.with_siblings(*queued));
            }
            for to in next {
                if targets.contains(&to) {
                    return Ok(true);
                }
                if seen.insert(to) {
                    rest.push(to);
                }
            }
        }
        Ok(false)
    }

    /// Lets each z pass its w, and wakes the z that sleep. The searcher itself is awake.
    fn let_pass(&mut self, pairs: &[(KnotId, KnotId, Seen<'p>)], searcher: &Arc<Blocked>) -> Result<(), Stop> {
        let mut unsettled = false;
        for &(z, w, seen) in pairs {
            let over = self.knots[w].ticket;
            let passing = self.knots[z].blocked.clone().expect("only enlisted requests are needed by anybody");
            // SAFETY: the slots are live while the entry can be seen (INV-C1).
            if !passing.sites.iter().all(|site| unsafe { site.slot.let_pass() }) {
                unsettled = true;
                continue;
            }
            let is_new = passing.note_pass(over);
            let passed = self.knots[w].blocked.clone();
            // From here on w waits for z; and if it was to pass z before, z still waits for w.
            passed.iter().for_each(|passed| passed.set_open(passing.ticket, false));
            if ask_to_rescan(&seen) == Rescan::Granted {
                if is_new {
                    passing.drop_pass(over);
                }
                unsettled = true;
                continue;
            }
            passed.iter().for_each(|passed| passed.drop_pass(passing.ticket));
            passing.set_open(over, true);
            if is_new {
                observe::passed(1);
            }
        }
        let mut woken = BTreeSet::new();
        for &(z, ..) in pairs {
            if self.knots[z].ticket != searcher.ticket && woken.insert(z) {
                self.wake(z);
            }
        }
        if unsettled { Err(Stop::Unsettled) } else { Ok(()) }
    }

    /// Wakes a request that sleeps: on one of those that are in conflict with it.
    fn wake(&self, knot: KnotId) {
        for &(space, query) in &self.knots[knot].places {
            let _ = self.space(space).tree.scan(&query, None, self.pin, |seen| {
                seen.tell();
                Continue(())
            });
        }
    }

    /// What `knot` waits for, as its own scans would tell it.
    fn edges(&mut self, knot: KnotId) -> Result<Rc<Edges<'p>>, Stop> {
        if let Some(edges) = self.edges.get(&knot) {
            return Ok(edges.clone());
        }
        let Knot { ticket, ref blocked, ref places, .. } = self.knots[knot];
        let passes = blocked.as_ref().map(|blocked| blocked.open_passes()).unwrap_or_default();
        let places = places.clone();
        let mut edges = Edges { grants: Vec::new(), queued: Vec::new() };
        for (place, &(space, query)) in places.iter().enumerate() {
            let clear = self.space(space).tree.scan(&query, None, self.pin, |seen| {
                if is_undecided(&seen) {
                    return Break(());
                }
                match seen.ticket() {
                    None => edges.grants.push((place, seen)),
                    // A batch's words may lag behind its decision.
                    Some(its) if index::batch(its).is_some_and(|batch| batch.is_decided()) => {
                        edges.grants.push((place, seen));
                    }
                    Some(_) if is_before(&seen, ticket, &passes) => {
                        edges.queued.push((self.knot_of(&seen, space), seen));
                    }
                    Some(_) => {}
                }
                Continue(())
            });
            if clear.is_break() {
                return Err(Stop::Unsettled);
            }
        }
        let edges = Rc::new(edges);
        self.edges.insert(knot, edges.clone());
        Ok(edges)
    }

    /// The knot of a queued request that a scan of `space` found.
    fn knot_of(&mut self, seen: &Seen<'_>, space: NonNull<Space>) -> KnotId {
        let ticket = seen.ticket().expect("only queued requests have a knot");
        if let Some(&knot) = self.by_ticket.get(&ticket) {
            return knot;
        }
        let owner = OwnerId::from_slot(seen.owner());
        match index::batch(ticket).or_else(|| index::find(owner, ticket)) {
            Some(blocked) => self.knot(blocked),
            None => {
                let (range, mode) = what(seen);
                let query = Ask::at(range, mode, owner.get(), ticket).query();
                let places = SmallVec::from_buf([(space, query)]);
                self.add(Knot { ticket, owner, blocked: None, places })
            }
        }
    }

    fn knot(&mut self, blocked: Arc<Blocked>) -> KnotId {
        if let Some(&knot) = self.by_ticket.get(&blocked.ticket) {
            return knot;
        }
        let places = blocked.sites.iter().map(|site| (site.space, site.ask.query())).collect();
        self.add(Knot { ticket: blocked.ticket, owner: blocked.owner, blocked: Some(blocked), places })
    }

    fn add(&mut self, knot: Knot) -> KnotId {
        let id = self.knots.len();
        self.by_ticket.insert(knot.ticket, id);
        self.knots.push(knot);
        id
    }

    /// The blocked requests of an owner, as they were when this search asked first (INV-C4).
    fn blocked_of(&mut self, owner: OwnerId) -> Rc<[KnotId]> {
        if let Some(blocked) = self.blocked.get(&owner.get()) {
            return blocked.clone();
        }
        let blocked: Rc<[KnotId]> = index::of(owner).into_iter().map(|blocked| self.knot(blocked)).collect();
        self.blocked.insert(owner.get(), blocked.clone());
        blocked
    }

    fn with_siblings(&mut self, knot: KnotId) -> Vec<KnotId> {
        let mut all = self.blocked_of(self.knots[knot].owner).to_vec();
        if !all.contains(&knot) {
            all.push(knot);
        }
        all
    }

    fn space(&self, space: NonNull<Space>) -> &'p Space {
        // SAFETY: it comes from an entry that this search has seen in the index, and is in place until the search has ended (INV-C1); `'p` is
        // no longer than that.
        unsafe { space.as_ref() }
    }

    /// The answer, if each wait of the cycle is still what it was when it was looked at: then there was a moment at which all of them were.
    fn deadlock(&self, closing: Link<'p>, led_by: &BTreeMap<KnotId, Link<'p>>) -> Stop {
        let mut links = vec![closing];
        while let Some(&link) = links.last().and_then(|link| led_by.get(&link.from)) {
            links.push(link);
        }
        links.reverse();
        let mut waits = Vec::with_capacity(links.len());
        for link in links {
            let Link { from, place, seen } = link;
            let blocked = self.knots[from].blocked.as_ref().expect("only enlisted requests are needed by anybody");
            let site = &blocked.sites[place];
            // SAFETY: the slot is live while the entry can be seen (INV-C1).
            let waits_still = unsafe { site.slot.waits_with(blocked.ticket) } && !blocked.is_decided();
            if !waits_still || !link.stands() {
                return Stop::Unsettled;
            }
            let (held, held_mode) = what(&seen);
            let (range, mode): (ByteRange, Mode) = (site.ask.range(), site.ask.mode());
            let lock = self.space(site.space).label();
            waits.push(Wait { owner: blocked.name(), lock, range, mode, held, held_mode });
        }
        Stop::Deadlock(Deadlock::new(waits))
    }
}

/// A grant edge: the request `from` waits, at one of its places, for who was seen there.
#[derive(Clone, Copy)]
struct Link<'p> {
    from: KnotId,
    place: usize,
    seen: Seen<'p>,
}

impl Link<'_> {
    /// Whether who was seen holds still.
    fn stands(&self) -> bool {
        match self.seen.ticket() {
            None => self.seen.holds_still(),
            // Of a batch that was decided.
            Some(_) => self.seen.is_there_still(),
        }
    }
}

/// Whether it is still in its doorway, so that nobody can tell what will become of it (INV-C2).
pub(crate) fn is_undecided(seen: &Seen<'_>) -> bool {
    let word = seen.word();
    let pending = !word.is_queued() && !word.is_granted();
    word.is_queuing() || (pending && OwnerId::from_slot(seen.owner()).is_token())
}

/// Whoever searches holds this.
#[cfg(not(any(loom, spanlock_shuttle)))]
fn turn() -> &'static Mutex<()> {
    static TURN: Mutex<()> = Mutex::new(());
    &TURN
}

#[cfg(any(loom, spanlock_shuttle))]
fn turn() -> &'static Mutex<()> {
    crate::sync::lazy_static! {
        static ref TURN: Mutex<()> = Mutex::new(());
    }
    &TURN
}

/// The blocked requests by owner, and the queued batches by ticket. What is found in it counts as visited.
#[cfg(not(any(loom, spanlock_shuttle)))]
mod index {
    use super::{Arc, Blocked, Ordering, OwnerId, SmallVec};
    use crate::processors;
    use crate::sync::LazyLock;
    use dashmap::DashMap;

    type Entries = SmallVec<[Arc<Blocked>; 1]>;

    static BY_OWNER: LazyLock<DashMap<u64, Entries>> =
        LazyLock::new(|| DashMap::with_shard_amount(processors::shards()));
    static BATCHES: LazyLock<DashMap<u64, Arc<Blocked>>> =
        LazyLock::new(|| DashMap::with_shard_amount(processors::shards()));

    pub(super) fn insert(blocked: &Arc<Blocked>) {
        if blocked.is_batch() {
            BATCHES.insert(blocked.ticket, blocked.clone());
        }
        BY_OWNER.entry(blocked.owner.get()).or_default().push(blocked.clone());
    }

    pub(super) fn remove(blocked: &Blocked) {
        if blocked.is_batch() {
            BATCHES.remove(&blocked.ticket);
        }
        BY_OWNER.remove_if_mut(&blocked.owner.get(), |_, entries| {
            entries.retain(|entry| entry.ticket != blocked.ticket);
            entries.is_empty()
        });
    }

    pub(super) fn of(owner: OwnerId) -> Entries {
        BY_OWNER.get(&owner.get()).map(|entries| entries.iter().map(visited).collect()).unwrap_or_default()
    }

    pub(super) fn find(owner: OwnerId, ticket: u64) -> Option<Arc<Blocked>> {
        BY_OWNER.get(&owner.get())?.iter().find(|entry| entry.ticket == ticket).map(visited)
    }

    pub(super) fn batch(ticket: u64) -> Option<Arc<Blocked>> {
        BATCHES.get(&ticket).map(|entry| visited(&entry))
    }

    /// Whether the request of `owner` with `ticket` may pass the one with the ticket `over`. If it has left the index, its slot has changed or is about
    /// to, and for the time being it is in front.
    pub(super) fn may_pass(owner: OwnerId, ticket: u64, over: u64) -> bool {
        let entries = BY_OWNER.get(&owner.get());
        let entry = entries.as_ref().and_then(|entries| entries.iter().find(|entry| entry.ticket == ticket));
        entry.is_none_or(|entry| entry.is_ahead_of(over))
    }

    fn visited(entry: &Arc<Blocked>) -> Arc<Blocked> {
        // Relaxed: under the lock of the map, which whoever removes the entry takes too.
        entry.visited.store(true, Ordering::Relaxed);
        entry.clone()
    }
}

/// The same for models, by a list: dashmap cannot be modelled.
#[cfg(any(loom, spanlock_shuttle))]
mod index {
    use super::{Arc, Blocked, Mutex, Ordering, OwnerId, SmallVec, lock};

    type Entries = SmallVec<[Arc<Blocked>; 1]>;

    crate::sync::lazy_static! {
        static ref ALL: Mutex<Vec<Arc<Blocked>>> = Mutex::new(Vec::new());
    }

    pub(super) fn insert(blocked: &Arc<Blocked>) {
        lock(&ALL).push(blocked.clone());
    }

    pub(super) fn remove(blocked: &Blocked) {
        lock(&ALL).retain(|entry| entry.ticket != blocked.ticket);
    }

    pub(super) fn of(owner: OwnerId) -> Entries {
        lock(&ALL).iter().filter(|entry| entry.owner == owner).map(visited).collect()
    }

    pub(super) fn find(_: OwnerId, ticket: u64) -> Option<Arc<Blocked>> {
        lock(&ALL).iter().find(|entry| entry.ticket == ticket).map(visited)
    }

    pub(super) fn batch(ticket: u64) -> Option<Arc<Blocked>> {
        lock(&ALL).iter().find(|entry| entry.ticket == ticket && entry.is_batch()).map(visited)
    }

    pub(super) fn may_pass(_: OwnerId, ticket: u64, over: u64) -> bool {
        let all = lock(&ALL);
        all.iter().find(|entry| entry.ticket == ticket).is_none_or(|entry| entry.is_ahead_of(over))
    }

    fn visited(entry: &Arc<Blocked>) -> Arc<Blocked> {
        entry.visited.store(true, Ordering::Relaxed);
        entry.clone()
    }
}
