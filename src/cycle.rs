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
//! Before it parks for the first time, a nested request *searches*, one search at a time in the whole process. (If it meets somebody in front who is in his
//! doorway, it parks all the same, hears from him too, and searches again when it wakes.) There are two kinds of edges:
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
//! All of that is one computation. Breaking one cycle after the other flip-flops, and "passes everybody" overtakes bystanders. `search.rs` says how it is done
//! without looking at each edge.
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
//! - INV-C2: a search sees a request in front of one whom it looks at decided or not at all: one in its doorway (QUEUING; or a token's that is PENDING) makes
//!   the search begin anew, when it is through. (A thread's that is PENDING is a hold if the thread is blocked elsewhere; if not, no edge leads on from it.)
//!   Who is in his doorway and came later is not in front, and never will be unless a later search lets him past: there is no edge to him, as if he came when
//!   the search is over.
//! - INV-C3: nobody waits for anything while a search goes on, but for the index's own locks and an event's. The searcher does not wait for who is in his
//!   doorway: it goes on waiting for its turn, as if it had searched, and hears from that one too.
//! - INV-C4: a search looks once at the blocked requests of each owner, and once at what a request has in front of it, and goes by that to its end: else of two that stand behind one another it could let one be
//!   passed, and the other not, because somebody was blocked in between; and the one who passes would wait for himself.
//!
//! # Source
//! The distinction between edges to holders and edges to queued requests: PostgreSQL's deadlock detector (hard and soft edges). The rule was found
//! by a model search: see `docs/internals.md`.

use crate::error::{AcquireError, Deadlock, OwnerName};
use crate::observe;
use crate::owner::{self, Owner, OwnerId};
use crate::reclaim::LazyPin;
use crate::space::{Ask, Own, Seen, Space};
use crate::sync::{AtomicU64, Mutex, Ordering, fence, hint, lock};
use crate::tree::{Grant, Rescan};
use crate::wait::{self, Listener};
use search::Search;
use smallvec::SmallVec;
use std::ptr::NonNull;
use std::sync::Arc;

// Said in full for `benches/coherence`, which includes this file from elsewhere.
#[path = "cycle/search.rs"]
mod search;

/// Tickets of those whom a request may pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passes(SmallVec<[u64; 2]>);

impl Passes {
    pub(crate) fn contains(&self, ticket: &u64) -> bool {
        // They are in order: there can be thousands, and this is asked of each of those.
        self.0.binary_search(ticket).is_ok()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn to_vec(&self) -> Vec<u64> {
        self.0.to_vec()
    }
}

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
    /// By `over`.
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

/// Where the pass over `over` is, or would be.
fn place_of(passes: &[Pass], over: u64) -> Result<usize, usize> {
    passes.binary_search_by_key(&over, |pass| pass.over)
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
        Passes(lock(&self.passes).iter().filter(|pass| pass.open).map(|pass| pass.over).collect())
    }

    /// Notes a pass that is not open yet. `false`: there is one.
    fn note_pass(&self, over: u64) -> bool {
        let mut passes = lock(&self.passes);
        let place = place_of(&passes, over);
        if let Err(place) = place {
            passes.insert(place, Pass { over, open: false });
        }
        place.is_err()
    }

    fn set_open(&self, over: u64, open: bool) {
        let mut passes = lock(&self.passes);
        if let Ok(place) = place_of(&passes, over) {
            passes[place].open = open;
        }
    }

    fn drop_pass(&self, over: u64) {
        let mut passes = lock(&self.passes);
        if let Ok(place) = place_of(&passes, over) {
            passes.remove(place);
        }
    }

    /// Whether the one with the ticket `other` must take this one for the one in front.
    fn is_ahead_of(&self, other: u64) -> bool {
        place_of(&lock(&self.passes), other).is_ok()
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

    /// Looks for cycles that this request closes; lets pass whom that takes. It waits for nobody who is in his doorway, and says whom it has met there.
    ///
    /// # Errors
    /// [`AcquireError::Deadlock`].
    #[cold]
    pub(crate) fn search(&self) -> Result<Searched, AcquireError> {
        let (outcome, unheard) = {
            // Pinned first: to pin may run what other users of the epoch have left to be dropped, a future that waits for this turn perhaps. (It
            // is waited for while pinned. But a search is short.)
            let pin = LazyPin::new();
            pin.get();
            let _alone = lock(turn());
            // ORDERING: behind the index's lock, which orders it with whoever enlisted before; the fence is for slots that were published by
            // other threads of a token than the one that enlisted.
            fence(Ordering::SeqCst);
            match Search::new(&pin).run(&self.0) {
                Ok(()) => (Ok(Searched::Done), None),
                Err(Stop::Unsettled) => (Ok(Searched::InVain), None),
                // Here and not later: its lock may be gone when this search has ended (INV-C1).
                Err(Stop::Undecided(seen)) => {
                    // Listen first, then ask to be told (INV-G3).
                    let (bells, index) = seen.room();
                    let listener = bells.listen(index, seen.word().age());
                    match seen.ask_for_wake() {
                        true => (Ok(Searched::Owed(listener)), None),
                        false => (Ok(Searched::InVain), Some(listener)),
                    }
                }
                Err(Stop::Deadlock(deadlock)) => {
                    // It leaves: whoever searches next must not be refused for a cycle that is broken already.
                    index::remove(&self.0);
                    (Err(deadlock), None)
                }
            }
        };
        // Not under the turn, and not pinned. So for a listener that goes, and may wake others.
        drop(unheard);
        wait::deliver();
        outcome.map_err(|deadlock| {
            observe::deadlock(&deadlock);
            AcquireError::Deadlock(deadlock)
        })
    }
}

/// What a search has come to.
pub(crate) enum Searched {
    /// There is no deadlock, and whoever must pass somebody has been let past.
    Done,
    /// The graph has changed meanwhile: to be done again, now.
    InVain,
    /// Somebody in front of one whom it looked at is in its doorway: to be done again when that is through, which this one will hear.
    Owed(Listener),
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
///
/// One in its doorway is not if it came after the ticket was drawn (O1): it finds the slot of the one with the ticket in its own scan, for as long as that one
/// waits, and so queues behind it, or leaves. It cannot be a hold: whoever holds and did not wait had found nobody, and whoever was let past says GRANTED, also
/// where his hold moves (`convert`).
pub(crate) fn is_before(seen: &Seen<'_>, ticket: u64, passes: &Passes) -> bool {
    match seen.ticket() {
        None => seen.word().is_granted() || !owner::came_after(seen.order(), ticket),
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
enum Stop<'p> {
    Deadlock(Deadlock),
    /// This one is in its doorway.
    Undecided(Seen<'p>),
    /// The graph has changed meanwhile.
    Unsettled,
}

/// Whether it is still in its doorway, so that nobody can tell what will become of it (INV-C2).
pub(crate) fn is_undecided(seen: &Seen<'_>) -> bool {
    let word = seen.word();
    let pending = !word.is_queued() && !word.is_granted();
    word.is_queuing() || (pending && OwnerId::from_slot(seen.owner()).is_token())
}

/// What searches have looked at: counted in tests, which judge by it what a search costs.
mod steps {
    #[cfg(all(test, not(any(loom, spanlock_shuttle))))]
    thread_local! {
        static STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    #[inline(always)]
    #[cfg_attr(not(all(test, not(any(loom, spanlock_shuttle)))), allow(unused_variables))]
    pub(super) fn add(steps: usize) {
        #[cfg(all(test, not(any(loom, spanlock_shuttle))))]
        STEPS.set(STEPS.get() + steps);
    }

    /// How many steps the calling thread has made since it last asked.
    #[cfg(all(test, not(any(loom, spanlock_shuttle))))]
    pub(super) fn take() -> usize {
        STEPS.take()
    }
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

/// The blocked requests by owner, those of one owner by ticket, and the queued batches by ticket. What is found in it counts as visited.
#[cfg(not(any(loom, spanlock_shuttle)))]
mod index {
    use super::{Arc, Blocked, Ordering, OwnerId, SmallVec};
    use crate::processors;
    use crate::sync::LazyLock;
    use dashmap::DashMap;

    /// In the order of their tickets: a token can have thousands.
    type Entries = SmallVec<[(u64, Arc<Blocked>); 1]>;

    static BY_OWNER: LazyLock<DashMap<u64, Entries>> =
        LazyLock::new(|| DashMap::with_shard_amount(processors::shards()));
    static BATCHES: LazyLock<DashMap<u64, Arc<Blocked>>> =
        LazyLock::new(|| DashMap::with_shard_amount(processors::shards()));

    pub(super) fn insert(blocked: &Arc<Blocked>) {
        let ticket = blocked.ticket;
        if blocked.is_batch() {
            BATCHES.insert(ticket, blocked.clone());
        }
        let mut entries = BY_OWNER.entry(blocked.owner.get()).or_default();
        let place = entries.partition_point(|(its, _)| *its < ticket);
        entries.insert(place, (ticket, blocked.clone()));
    }

    pub(super) fn remove(blocked: &Blocked) {
        if blocked.is_batch() {
            BATCHES.remove(&blocked.ticket);
        }
        BY_OWNER.remove_if_mut(&blocked.owner.get(), |_, entries| {
            if let Ok(place) = place_of(entries, blocked.ticket) {
                entries.remove(place);
            }
            entries.is_empty()
        });
    }

    pub(super) fn of(owner: OwnerId) -> SmallVec<[Arc<Blocked>; 1]> {
        let entries = BY_OWNER.get(&owner.get());
        entries.map(|entries| entries.iter().map(|(_, entry)| visited(entry)).collect()).unwrap_or_default()
    }

    pub(super) fn find(owner: OwnerId, ticket: u64) -> Option<Arc<Blocked>> {
        let entries = BY_OWNER.get(&owner.get())?;
        place_of(&entries, ticket).ok().map(|place| visited(&entries[place].1))
    }

    pub(super) fn batch(ticket: u64) -> Option<Arc<Blocked>> {
        BATCHES.get(&ticket).map(|entry| visited(&entry))
    }

    /// Whether the request of `owner` with `ticket` may pass the one with the ticket `over`. If it has left the index, its slot has changed or is about
    /// to, and for the time being it is in front.
    pub(super) fn may_pass(owner: OwnerId, ticket: u64, over: u64) -> bool {
        let entries = BY_OWNER.get(&owner.get());
        let entry = entries.as_ref().and_then(|entries| Some(&entries[place_of(entries, ticket).ok()?].1));
        entry.is_none_or(|entry| entry.is_ahead_of(over))
    }

    fn place_of(entries: &Entries, ticket: u64) -> Result<usize, usize> {
        entries.binary_search_by_key(&ticket, |(its, _)| *its)
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
