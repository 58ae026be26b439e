//! Cycles of waits: who may pass whom, and when the answer is a deadlock.
//!
//! # Promise
//! - A cycle of owners that wait for one another's *grants* is answered: the request that closes it gets a
//!   [`Deadlock`].
//! - A cycle that leads through somebody who only waits is broken: the nested request is let *past* the queued one.
//! - Nothing else is refused, and nobody else passes.
//!
//! # How
//! The tree is the wait-for graph: what a queued request waits for is found by the scan that it would do itself. Beside
//! it there is an [`index`] of blocked requests by owner. A nested request is enlisted when it queues, and so is every
//! request of a token (it may be blocked before its owner holds anything). A batch is enlisted by its ticket. An
//! outermost request of a thread, however contended, is in no index.
//!
//! A thread that waits in a call for a request that is not its own (a task's, or a token's) lets go of nothing
//! meanwhile. So if it has requests of its own, the request that it waits for is *also* among its blocked requests: it
//! holds the thread up. In the same way a call holds up the owner in whose scope it is. Edges from such a request are
//! those of the request; edges to it come from whoever waits for what its own owner, or anybody whom it holds up, has.
//!
//! Before it parks for the first time, a nested request *searches*. (If it meets somebody in front who is in his
//! doorway, or another search, it parks all the same, hears from that one too, and searches again when it wakes. If the
//! graph has changed under it, it begins anew.) There are two kinds of edges:
//!
//! - *grant*: from a blocked request to the blocked requests of the owner who holds what it asks for;
//! - *queue*: from a request to a queued one that is in front of it, and to the blocked requests of that one's owner.
//!
//! Let S be the searcher's request and the other blocked ones of its owner, and R all that grant edges lead to from S:
//! the requests that must get through before S can.
//!
//! 1. If a grant edge leads from R back into S, that is a deadlock. The searcher's request leaves the index before the
//!    next search begins, so that one cycle is answered once.
//! 2. Otherwise each z in R passes each queued w in front of it that is in S, or that is outside of R and leads to S by
//!    any edges: nobody whom the searcher needs may stand behind somebody who needs the searcher.
//!
//! All of that is one computation. Breaking one cycle after the other flip-flops, and "passes everybody" overtakes
//! bystanders. `search.rs` says how it is done without looking at each edge.
//!
//! # Passing
//! A pass is a pair of tickets, kept in the entry of the one who passes. The searcher
//!
//! 1. marks z's slots as *passing*, and notes the pair, which z does not act upon yet;
//! 2. makes w look again before it is granted (RESCAN): that look finds z marked, asks the index, and takes z for one
//!    in front;
//! 3. opens the pass: z, which may be looking at this very moment, skips w from its next look on.
//!
//! So w is held back before z goes ahead. If z is not in the queue yet, or w was granted before (2), nothing of this
//! stands; the graph is another one, and the search starts again.
//!
//! # Turns
//! Each lock has a [`Turn`], and a search has those of all locks that it comes to: of all requests that it looks at,
//! its own included. So searches that come to one lock go one after the other, and those that do not know nothing of
//! one another. It takes a turn where it finds the first request of that lock. If another search has it, this one lets
//! go of all, sleeps until that one is given back (or it is granted, or its time is up), and begins anew, with all
//! those that it knows by then.
//!
//! 1. *Searches answer as if they went one after the other, in the order of their first looks.* Of two that come to one
//!    lock, the first has ended before the first look of the second: if the second took the turn in the middle of its
//!    search, and any search has ended since that began, it begins anew, with the turn (INV-C5). Of two that come to no
//!    common lock neither looks at an edge that the other changes, nor at its request: whoever has found a request in
//!    the index has come to its locks.
//! 2. *No cycle stays.* Of the searches by its requests, and those that have let somebody pass in it, look at the one
//!    that comes last in that order. All those requests were in the index before their own searches' first looks, so
//!    before this one's; and who has let somebody pass had the turn of that lock, and ended before. So this search
//!    finds all of the cycle, but for what it is about to do.
//! 3. *One cycle is answered once.* Two that find it have come to the same locks, and the request of the first leaves
//!    the index before the turns are given back.
//! 4. *Some search ends,* or somebody else gets on. One fails at a turn that another has; at who is in his doorway, who
//!    leaves that without waiting for a search; or because the graph has changed under it: a hold has gone or become
//!    another one, somebody was granted or has left, or another search has ended. That is a step of somebody who got
//!    on. Who has the turn is under way, or takes the turns that it knows, in the order of their numbers: it may fail
//!    as well, but at a turn with a higher number; or at one that it did not know, and knows from then on.
//!
//! # Invariants
//! - INV-C1: an entry is in the index only while its states are in place and its slots live. It is taken out before
//!   they are left. A search follows an entry if it took, or had, all its turns when it found it there, under a lock
//!   that whoever takes it out needs as well; and it lets go of the entry, and of what it has found in those states,
//!   before it gives the turns back. So who has left the index and finds that somebody else has the entry, waits for
//!   the turn to be given back, and then leaves the states. A thread that waits takes the entry out by itself; a future
//!   can be forgotten, and then the entry stays: so the futures that are enlisted have locks that stay as well
//!   ([`AwaitedOn`](crate::AwaitedOn)).
//! - INV-C2: a search sees a request in front of one whom it looks at decided or not at all: one in its doorway
//!   (QUEUING; or a token's that is PENDING) makes the search begin anew, when it is through. (A thread's that is
//!   PENDING is a hold if the thread is blocked elsewhere; if not, no edge leads on from it.) Who is in his doorway and
//!   came later is not in front, and never will be unless a later search lets him past: there is no edge to him, as if
//!   he came when the search is over.
//! - INV-C3: a search waits for nothing but short mutexes: the index's own locks, which are held in proportion to one
//!   owner's requests; those of an entry (its passes, whom it holds up); and an event's. Not for who is in his doorway,
//!   nor for another search: its request goes on waiting, as if it had searched, and hears from that one too. For a
//!   search wait: who leaves the index, granted or given up, and was found by it; and a token that converts a hold in
//!   one of its locks.
//! - INV-C4: a search looks once at the blocked requests of each owner, and once at what a request has in front of it,
//!   and goes by that to its end: else of two that stand behind one another it could let one be passed, and the other
//!   not, because somebody was blocked in between; and the one who passes would wait for himself.
//! - INV-C5: of two searches that have come to one lock, and say that there is no cycle, or let somebody pass, one has
//!   ended before the other's first look. (A cycle of grants stands by itself: each of its requests was found with its
//!   turns in hand, so that none of them was refused meanwhile.)
//!
//! # Source
//! The distinction between edges to holders and edges to queued requests: PostgreSQL's deadlock detector (hard and soft
//! edges). The rule was found by a model search: see `docs/internals.md`.

use crate::facts::error::{Deadlock, OwnerName, Refused};
use crate::facts::owner::{self, Owner, OwnerId};
use crate::platform::reclaim::LazyPin;
use crate::platform::sync::{AtomicU64, Mutex, Ordering, lock};
use crate::protocol::lock_state::{Ask, LockState, Own, Seen};
use crate::protocol::turn::{Known, Turn, Turns};
use crate::tree::{Grant, Rescan};
use crate::wait::{self, Listener, Luck, Patience};
use crate::watching::telemetry;
use search::Search;
use smallvec::SmallVec;
use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

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
    state: NonNull<LockState>,
    ask: Ask,
    /// A drain has none.
    slot: Option<Own>,
}

impl Site {
    pub(crate) fn new(state: NonNull<LockState>, ask: Ask, slot: Own) -> Site {
        Site { state, ask, slot: Some(slot) }
    }

    /// Of who waits until those are gone who came before, and asks for nothing: nobody finds it in the tree.
    pub(crate) fn of_drain(state: NonNull<LockState>, ask: Ask) -> Site {
        Site { state, ask, slot: None }
    }
}

/// A request in the index.
pub(crate) struct Blocked {
    ticket: u64,
    owner: OwnerId,
    /// Its owner's name for messages, and what says whether it is nested.
    identity: Identity,
    /// Who else lets go of nothing until it is answered: see [`Enlisted::hold_up`].
    held_up: Mutex<SmallVec<[OwnerName; 1]>>,
    sites: SmallVec<[Site; 1]>,
    /// Of the locks that the sites are in, each once.
    turns: SmallVec<[Arc<Turn>; 1]>,
    /// For a batch: DECIDED or RESCAN, as in a slot's word.
    decision: AtomicU64,
    /// By `over`.
    passes: Mutex<SmallVec<[Pass; 2]>>,
}

/// Leave to go before the request with the ticket `over`.
#[derive(Clone, Copy, Debug)]
struct Pass {
    over: u64,
    /// Whether that request is held back, so that this one may go ahead. If not, both take the other one for the one in
    /// front.
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

// SAFETY: `Site` has pointers to a `LockState` and to a node, which others than the request's own thread follow only
// during a search; both are there for as long as the entry can be seen (INV-C1), and are `Sync`. All else is `Send` and
// `Sync`.
unsafe impl Send for Blocked {}
// SAFETY: as above.
unsafe impl Sync for Blocked {}

impl Blocked {
    fn is_batch(&self) -> bool {
        self.sites.len() > 1
    }

    /// Whether it waits until those who came before are gone: see [`Site::of_drain`].
    fn is_drain(&self) -> bool {
        self.sites.iter().any(|site| site.slot.is_none())
    }

    /// Whether its owner, or another whom it holds up, has other live requests: see [`Enlisted::is_nested`].
    fn is_nested(&self) -> bool {
        let alone = match &self.identity {
            Identity::Token(owner) => !owner.has_several(),
            Identity::Thread { nested, .. } => !*nested,
        };
        !alone || !lock(&self.held_up).is_empty()
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

    /// Whether that changed anything.
    fn set_open(&self, over: u64, open: bool) -> bool {
        let mut passes = lock(&self.passes);
        let Ok(place) = place_of(&passes, over) else { return false };
        mem::replace(&mut passes[place].open, open) != open
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

    /// Whom it holds up beside its owner.
    fn held_up(&self) -> SmallVec<[OwnerId; 1]> {
        lock(&self.held_up).iter().map(|name| name.id).collect()
    }

    /// The name of one whom it holds up: of its own owner, or another.
    fn name_of(&self, id: OwnerId) -> OwnerName {
        let held_up = lock(&self.held_up);
        held_up.iter().find(|name| name.id == id).cloned().unwrap_or_else(|| self.name())
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
pub(crate) struct Enlisted {
    blocked: Arc<Blocked>,
    /// What its search takes first, if it has to begin anew: the turns that it has come to.
    known: Known,
}

impl Enlisted {
    /// # Safety
    /// The sites' states stay in place, and their slots live, until the `Enlisted` is dropped (INV-C1).
    pub(crate) unsafe fn new(ticket: u64, ask: &Ask, token: Option<&Owner>, sites: SmallVec<[Site; 1]>) -> Enlisted {
        let identity = match token {
            Some(owner) => Identity::Token(owner.clone()),
            None => Identity::Thread { name: std::thread::current().name().map(Box::from), nested: ask.is_nested() },
        };
        // SAFETY: the caller's promise.
        let mut turns: SmallVec<[Arc<Turn>; 1]> =
            sites.iter().map(|site| unsafe { site.state.as_ref() }.turn()).collect();
        turns.sort_unstable_by_key(|turn| turn.number());
        turns.dedup_by_key(|turn| turn.number());
        let blocked = Arc::new(Blocked {
            ticket,
            owner: ask.owner(),
            identity,
            held_up: Mutex::new(SmallVec::new()),
            sites,
            turns,
            decision: AtomicU64::new(0),
            passes: Mutex::new(SmallVec::new()),
        });
        index::insert(&blocked);
        Enlisted { blocked, known: Known::new() }
    }

    /// The call that waits for this request keeps others from letting go of anything until it is answered: the calling
    /// `thread`, if it has requests of its own and this is none of them; and the owner in whose `scope` the call is. So
    /// it is found among their blocked requests, too. Before the search: as for whoever enlists.
    #[cold]
    pub(crate) fn hold_up(&self, thread: Option<OwnerId>, scope: Option<Owner>) {
        let thread = thread.map(|id| OwnerName { id, name: std::thread::current().name().map(Box::from) });
        let scope = scope.map(|owner| OwnerName { id: owner.id(), name: owner.name().map(Box::from) });
        for name in thread.into_iter().chain(scope).filter(|name| name.id != self.blocked.owner) {
            let id = name.id;
            lock(&self.blocked.held_up).push(name);
            index::insert_for(id, &self.blocked);
        }
    }

    /// Whether its owner, or another whom it holds up, has other live requests, so that it may be a part of a cycle.
    ///
    /// A token is asked *now*, behind the entry into the index: a request of the same owner that began meanwhile may
    /// hold what somebody waits for, who has searched before this one could be found.
    pub(crate) fn is_nested(&self) -> bool {
        self.blocked.is_nested()
    }

    pub(crate) fn passes(&self) -> Passes {
        self.blocked.open_passes()
    }

    /// A batch is granted, unless somebody asked for another scan.
    pub(crate) fn decide(&self) -> Grant {
        let decision = &self.blocked.decision;
        loop {
            let now = decision.load(Ordering::Relaxed);
            let (next, outcome) = match now & RESCAN {
                0 => (now | DECIDED, Grant::Granted),
                _ => (now & !RESCAN, Grant::LookAgain),
            };
            // ORDERING: Acquire, so that the scan that follows a RESCAN sees whoever asked for it; Release for the
            // decision.
            if decision.compare_exchange(now, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return outcome;
            }
        }
    }

    /// Looks for cycles that this request closes, until `deadline`; lets pass whom that takes. It waits for nobody:
    /// neither for who is in his doorway nor for another search. It says what will end what kept it.
    ///
    /// # Errors
    /// [`Refused::Deadlock`]; [`Refused::TimedOut`].
    #[cold]
    pub(crate) fn search(
        &mut self,
        luck: &Luck,
        patience: Patience,
        deadline: Option<Instant>,
    ) -> Result<Searched, Refused> {
        let (mut unheard, mut taken) = (None, None);
        let outcome = {
            // Pinned first: to pin may free what others have left.
            let pin = LazyPin::new();
            pin.get();
            let mut turns = Turns::default();
            let begun = turns.begin(&self.known).map_err(Stop::Taken);
            match begun.and_then(|()| Search::new(&pin, &mut turns, deadline).run(&self.blocked)) {
                Ok(()) => Ok(Searched::Done),
                Err(Stop::Unsettled) => {
                    self.known.extend(turns.known());
                    Ok(Searched::InVain)
                }
                Err(Stop::Taken(turn)) => {
                    self.known.extend(turns.known());
                    self.known.insert(turn.number(), Arc::clone(&turn));
                    taken = Some(turn);
                    Ok(Searched::InVain)
                }
                // Here and not later: its lock may be gone when this search has ended (INV-C1).
                Err(Stop::Undecided(seen)) => {
                    // Listen first, then ask to be told (INV-G3).
                    let (bells, index) = seen.room();
                    let listener = bells.listen(index, seen.word().age());
                    match seen.ask_for_wake() {
                        true => Ok(Searched::Owed(listener)),
                        false => {
                            unheard = Some(listener);
                            Ok(Searched::InVain)
                        }
                    }
                }
                Err(Stop::Deadlock(deadlock)) => {
                    // It leaves: whoever searches next must not be refused for a cycle that is broken already.
                    index::remove(&self.blocked);
                    Err(Refused::Deadlock(deadlock))
                }
                Err(Stop::Late) => Err(Refused::TimedOut),
            }
        };
        // With no turn in hand, and not pinned. So for a listener that goes, and may wake others.
        drop(unheard);
        wait::deliver();
        if let Some(turn) = taken {
            if !wait::look_for(luck, patience, 1, || !turn.is_taken()) {
                return Ok(turn
                    .search()
                    .and_then(|search| turn.listen(search))
                    .map_or(Searched::InVain, Searched::Owed));
            }
        }
        if let Err(Refused::Deadlock(deadlock)) = &outcome {
            telemetry::deadlock(deadlock);
        }
        outcome
    }
}

/// What a search has come to.
pub(crate) enum Searched {
    /// There is no deadlock, and whoever must pass somebody has been let past.
    Done,
    /// The graph has changed meanwhile: to be done again, now.
    InVain,
    /// Somebody in front of one whom it looked at is in its doorway, or another search goes on where this one came to:
    /// to be done again when that is through, which this one will hear.
    Owed(Listener),
}

/// For who gives up, and for who was granted. Waits for one search at most (INV-P4).
impl Drop for Enlisted {
    fn drop(&mut self) {
        index::remove(&self.blocked);
        // Before the look at who has it: if that is a search, it is this one, as later ones do not find it.
        let search = self.blocked.turns[0].search();
        // Who has it still is a search, which has all its turns, and lets go of it before it gives them back (INV-C1).
        if let (None, Some(search)) = (Arc::get_mut(&mut self.blocked), search) {
            self.blocked.turns[0].let_end(search);
        }
    }
}

/// Whether the request that was seen in conflict is in front of one with `ticket` that may pass `passes`.
///
/// One in its doorway is not if it came after the ticket was drawn (O1): it finds the slot of the one with the ticket
/// in its own scan, for as long as that one waits, and so queues behind it, or leaves (INV-P2). It cannot be a hold:
/// whoever holds and did not wait had found nobody, and whoever was let past says GRANTED, also where his hold moves
/// (`convert`).
pub(crate) fn is_before(seen: &Seen<'_>, ticket: u64, passes: &Passes) -> bool {
    match seen.ticket() {
        None => seen.word().is_granted() || !owner::came_after(seen.order(), ticket),
        Some(its) if its < ticket => !passes.contains(&its),
        // If it has left the index, its slot has changed or is about to, and for the time being it is in front.
        Some(its) => {
            let is_ahead = |blocked: &Arc<Blocked>| blocked.is_ahead_of(ticket);
            seen.word().is_passing() && index::ask(OwnerId::from_slot(seen.owner()), its, is_ahead).unwrap_or(true)
        }
    }
}

/// Whether the request that was seen had arrived, or had begun to, when `ticket` was drawn by somebody who asks for
/// nothing: whatever its phase. A hold has the order that it came with, or was queued with, wherever it has moved
/// since. And of who is in its doorway nobody can tell yet whether it holds, unless it came after (O1).
pub(crate) fn came_before(seen: &Seen<'_>, ticket: u64) -> bool {
    !owner::came_after(seen.order(), ticket)
}

/// The tickets of those whom a queued request may pass.
pub(crate) fn passes_of(owner: OwnerId, ticket: u64) -> Passes {
    index::ask(owner, ticket, |blocked| blocked.open_passes()).unwrap_or_default()
}

/// Whether a ticket is a batch's, which waits.
pub(crate) fn is_batch(ticket: u64) -> bool {
    index::ask_batch(ticket, |_| ()).is_some()
}

/// Makes a queued request that was seen look again before it is granted.
pub(crate) fn ask_to_rescan(seen: &Seen<'_>) -> Rescan {
    let batch = seen.ticket().and_then(|ticket| index::ask_batch(ticket, |batch| batch.ask_to_rescan()));
    batch.unwrap_or_else(|| seen.ask_to_rescan())
}

/// Whether it is of a batch that was decided: its words may lag behind.
fn is_decided(seen: &Seen<'_>) -> bool {
    seen.ticket().and_then(|ticket| index::ask_batch(ticket, |batch| batch.is_decided())).unwrap_or(false)
}

/// Why a search ended without a result.
enum Stop<'p> {
    Deadlock(Deadlock),
    /// This one is in its doorway.
    Undecided(Seen<'p>),
    /// Another search goes on where this one came to.
    Taken(Arc<Turn>),
    /// The graph has changed meanwhile.
    Unsettled,
    /// The request's time is up.
    Late,
}

/// Whether it is still in its doorway, so that nobody can tell what will become of it (INV-C2).
pub(crate) fn is_undecided(seen: &Seen<'_>) -> bool {
    let word = seen.word();
    let pending = !word.is_queued() && !word.is_granted();
    word.is_queuing() || (pending && OwnerId::from_slot(seen.owner()).is_token())
}

/// What a search has looked at: counted in tests, which judge by it what a search costs, and stop one in the middle.
mod steps {
    #[cfg(all(test, not(any(loom, spanlock_shuttle))))]
    thread_local! {
        static STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
        static STOP: std::cell::Cell<Option<Stop>> = const { std::cell::Cell::new(None) };
    }

    /// What to do behind which step.
    #[cfg(all(test, not(any(loom, spanlock_shuttle))))]
    type Stop = (usize, Box<dyn FnOnce()>);

    /// A search begins.
    #[inline(always)]
    pub(super) fn begin() {
        #[cfg(all(test, not(any(loom, spanlock_shuttle))))]
        STEPS.set(0);
    }

    #[inline(always)]
    #[cfg_attr(not(all(test, not(any(loom, spanlock_shuttle)))), allow(unused_variables))]
    pub(super) fn add(steps: usize) {
        #[cfg(all(test, not(any(loom, spanlock_shuttle))))]
        {
            STEPS.set(STEPS.get() + steps);
            match STOP.take() {
                Some((at, stop)) if at <= STEPS.get() => stop(),
                other => STOP.set(other),
            }
        }
    }

    /// How many steps the calling thread's last search has made.
    #[cfg(all(test, not(any(loom, spanlock_shuttle))))]
    pub(super) fn of_the_last_search() -> usize {
        STEPS.get()
    }

    /// Has the calling thread do something in the middle of a search: the next one that makes so many steps.
    #[cfg(all(test, not(any(loom, spanlock_shuttle))))]
    pub(super) fn stop_at(step: usize, stop: impl FnOnce() + 'static) {
        STOP.set(Some((step, Box::new(stop))));
    }
}

/// The blocked requests by owner, those of one owner by ticket, and the queued batches by ticket.
///
/// What is asked of an entry is asked under the mutex of its shard, which whoever removes it takes too: so who takes
/// its turns there, has them before it has left.
///
/// Two maps of `std`'s in shards, not a concurrent map: nobody looks here but who waits, what is done under a mutex is
/// short, and a tree gives back what a crowd needed.
#[cfg(not(any(loom, spanlock_shuttle)))]
mod index {
    use super::{Arc, Blocked, Mutex, OwnerId, SmallVec, lock};
    use crate::platform::processors;
    use crate::platform::sync::LazyLock;
    use crossbeam_utils::CachePadded;
    use std::collections::BTreeMap;

    /// In the order of their tickets: a token can have thousands.
    type Entries = SmallVec<[(u64, Arc<Blocked>); 1]>;

    /// A map whose keys are ids or tickets, in shards.
    struct Shards<V>(Box<[CachePadded<Shard<V>>]>);

    type Shard<V> = Mutex<BTreeMap<u64, V>>;

    impl<V> Shards<V> {
        /// `shards` is a power of two.
        fn new(shards: usize) -> Shards<V> {
            Shards((0..shards).map(|_| CachePadded::new(Mutex::new(BTreeMap::new()))).collect())
        }

        fn of(&self, key: u64) -> &Shard<V> {
            // Keys are drawn in steps of some power of two. An odd factor (2^64 by the golden ratio) spreads any of
            // them over the upper half.
            let spread = key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
            &self.0[spread as usize & (self.0.len() - 1)]
        }
    }

    static BY_OWNER: LazyLock<Shards<Entries>> = LazyLock::new(|| Shards::new(processors::shards()));
    static BATCHES: LazyLock<Shards<Arc<Blocked>>> = LazyLock::new(|| Shards::new(processors::shards()));

    pub(super) fn insert(blocked: &Arc<Blocked>) {
        if blocked.is_batch() {
            lock(BATCHES.of(blocked.ticket)).insert(blocked.ticket, blocked.clone());
        }
        insert_for(blocked.owner, blocked);
    }

    /// Among the blocked requests of `owner`.
    pub(super) fn insert_for(owner: OwnerId, blocked: &Arc<Blocked>) {
        let ticket = blocked.ticket;
        let mut shard = lock(BY_OWNER.of(owner.get()));
        let entries = shard.entry(owner.get()).or_default();
        let place = entries.partition_point(|(its, _)| *its < ticket);
        entries.insert(place, (ticket, blocked.clone()));
    }

    pub(super) fn remove(blocked: &Blocked) {
        if blocked.is_batch() {
            lock(BATCHES.of(blocked.ticket)).remove(&blocked.ticket);
        }
        remove_for(blocked.owner, blocked);
        blocked.held_up().into_iter().for_each(|owner| remove_for(owner, blocked));
    }

    fn remove_for(owner: OwnerId, blocked: &Blocked) {
        let mut shard = lock(BY_OWNER.of(owner.get()));
        let Some(entries) = shard.get_mut(&owner.get()) else { return };
        if let Ok(place) = place_of(entries, blocked.ticket) {
            entries.remove(place);
        }
        if entries.is_empty() {
            shard.remove(&owner.get());
        }
    }

    /// The entries of `owner`, each of which is asked first.
    pub(super) fn of<E>(
        owner: OwnerId,
        mut ask: impl FnMut(&Blocked) -> Result<(), E>,
    ) -> Result<SmallVec<[Arc<Blocked>; 1]>, E> {
        let shard = lock(BY_OWNER.of(owner.get()));
        let Some(entries) = shard.get(&owner.get()) else { return Ok(SmallVec::new()) };
        entries.iter().map(|(_, entry)| ask(entry).map(|()| entry.clone())).collect()
    }

    pub(super) fn ask<T>(owner: OwnerId, ticket: u64, ask: impl FnOnce(&Arc<Blocked>) -> T) -> Option<T> {
        let shard = lock(BY_OWNER.of(owner.get()));
        let entries = shard.get(&owner.get())?;
        place_of(entries, ticket).ok().map(|place| ask(&entries[place].1))
    }

    pub(super) fn ask_batch<T>(ticket: u64, ask: impl FnOnce(&Arc<Blocked>) -> T) -> Option<T> {
        lock(BATCHES.of(ticket)).get(&ticket).map(ask)
    }

    fn place_of(entries: &Entries, ticket: u64) -> Result<usize, usize> {
        entries.binary_search_by_key(&ticket, |(its, _)| *its)
    }
}

/// The same for models, by one list: with fewer steps that a model has to try.
#[cfg(any(loom, spanlock_shuttle))]
mod index {
    use super::{Arc, Blocked, Mutex, OwnerId, SmallVec, lock};

    type Entries = SmallVec<[Arc<Blocked>; 1]>;

    crate::platform::sync::lazy_static! {
        static ref ALL: Mutex<Vec<Arc<Blocked>>> = Mutex::new(Vec::new());
    }

    pub(super) fn insert(blocked: &Arc<Blocked>) {
        lock(&ALL).push(blocked.clone());
    }

    /// It is among all, and says itself whom it holds up.
    pub(super) fn insert_for(_: OwnerId, _: &Arc<Blocked>) {}

    pub(super) fn remove(blocked: &Blocked) {
        lock(&ALL).retain(|entry| entry.ticket != blocked.ticket);
    }

    pub(super) fn of<E>(owner: OwnerId, mut ask: impl FnMut(&Blocked) -> Result<(), E>) -> Result<Entries, E> {
        let all = lock(&ALL);
        let entries = all.iter().filter(|entry| entry.owner == owner || entry.held_up().contains(&owner));
        entries.map(|entry| ask(entry).map(|()| entry.clone())).collect()
    }

    pub(super) fn ask<T>(_: OwnerId, ticket: u64, ask: impl FnOnce(&Arc<Blocked>) -> T) -> Option<T> {
        lock(&ALL).iter().find(|entry| entry.ticket == ticket).map(ask)
    }

    pub(super) fn ask_batch<T>(ticket: u64, ask: impl FnOnce(&Arc<Blocked>) -> T) -> Option<T> {
        lock(&ALL).iter().find(|entry| entry.ticket == ticket && entry.is_batch()).map(ask)
    }
}
