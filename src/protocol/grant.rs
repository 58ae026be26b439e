//! Who is granted what, and when: the first-come-first-served rules, without a queue lock.
//!
//! # Promise
//! - *Exclusion.* Two conflicting requests are never granted at the same time.
//! - *First come, first served.* A request that finished its doorway before a conflicting one began is granted first.
//! - *Concurrent entering.* A request that conflicts with no earlier live one is granted without waiting for anybody.
//! - *Cancel.* A request can be given up at any moment; whoever waited for it is woken, and nothing leaks.
//!
//! # The rules
//! A request's *doorway* is: publish as PENDING (with a full fence), scan; no conflict is the grant; otherwise draw a
//! ticket and queue.
//!
//! 1. Others take PENDING for a holder. So of two that see each other as PENDING both queue, and their tickets order
//!    them.
//! 2. The ticket is drawn *after* publishing, and stored before the word says QUEUED. Whoever had taken the request for
//!    a holder is then woken to look again: it may be in front now. Before that the *bar* of the lock is raised to it,
//!    which newcomers read before they publish.
//! 3. A queued request waits for the conflicting ones that are GRANTED, QUEUED with a lower ticket, or PENDING with a
//!    stamp below its ticket. So waits lead from higher to lower tickets or to a grant, and form no cycle. Who is
//!    PENDING with another stamp came later: he finds the queued one in his own scan, and is behind it. So of those who
//!    are PENDING only such are waited for who had begun when the bar was raised, each of them at most once.
//! 4. It sleeps on *one* of these, the one with the highest ticket that it has found (some holder if none is queued): a
//!    chain of exclusive waiters is woken one at a time, each by the one before it. Woken, it scans again, but for
//!    those who are behind it (`tree::scan`). If it was woken for nothing, it sleeps on any of those in front, every
//!    other time: so half of them have gone on average when it wakes, in whatever order they go.
//! 5. No blocker left: QUEUED -> GRANTED by CAS, unless RESCAN was set; then it scans again.
//! 6. Release and cancel are one step: free the slot, wake who waited for it.
//!
//! # With a window
//! In a lock that has a [window](LockState::reorders), newcomers go before who waits and *yields*: a single request of
//! a thread or a task that holds nothing. (Who holds makes others wait meanwhile; and who waits with a ticket only, in
//! no index, leads searches nowhere but to what is in front of him.)
//!
//! 7. A newcomer of the same kind, which has not waited, takes those who yield for no conflict until they are
//!    [due](LockState::due_at). If it has found nobody else, that is the grant; and it says GRANTED, as it cannot be
//!    told any more by its stamp from one that came later and is behind.
//! 8. Who yields waits for whoever is PENDING, however late he came: he may be about to pass. No blocker left, it *closes*:
//!    yields no more, behind a full fence, and looks again in full (S8). So of it and a newcomer that passes at least
//!    one finds the other: the newcomer is behind, or is waited for. Somebody there: it reopens, and waits.
//! 9. Who is due closes for good, draws another ticket, and raises the bar to that; its place stays what it is. Whoever
//!    is PENDING with a stamp not below the new ticket has found it closed, and is behind (O1). So of those who are
//!    PENDING it waits for such only as had begun by then.
//!
//! Among those who wait the order is that of their tickets, whether they yield or not.
//!
//! # Invariants
//! - INV-G1: a live request's slot is freed exactly once, by dropping its [`Live`].
//! - INV-G2: nobody parks, and no waker is called, while pinned. (Who looks for a while before it parks, spinning or
//!   giving way, is pinned.) The rooms that pin are this one, `cycle` and `convert`; and `tree::shortcut`, for a look
//!   at the tree that it takes itself.
//! - INV-G3: who parks has listened, and has then set WAITERS in the very word that made it wait.
//!
//! # Source
//! Tickets and "wait for the earlier conflicting requests, held or waiting, and nothing else": Kara's and Bueso's range
//! lock patches for Linux. Publish and scan: Lamport's bakery. The terms are those of group mutual exclusion.

use crate::facts::error::Refused;
use crate::facts::mode::Mode;
use crate::facts::owner::{self, Owner, OwnerId, Visitor};
use crate::facts::range::ByteRange;
use crate::facts::snapshot::{Came, Place, Row};
use crate::platform::reclaim::LazyPin;
use crate::platform::sync::{Ordering, fence};
use crate::protocol::cycle::{self, Enlisted, Passes, Searched, Site};
use crate::protocol::lock_state::{Ask, Bells, LockState, Own, Seen, Tree, what};
use crate::protocol::poison;
use crate::tree::{ByShortcut, Entry, Extent, Glance, Grant, Placed, Query, Rank, Scope, Whose};
use crate::wait::{self, Lingering, Listener, Patience, Woken};
use crate::watching::telemetry::{self, WaitClock};
use smallvec::SmallVec;
use std::cell::Cell;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::ControlFlow::{Break, Continue};
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::task::{Context, Poll, ready};
use std::time::Instant;

#[cfg(all(test, not(any(loom, spanlock_shuttle))))]
// Said in full for `benches/coherence`, which includes this file from elsewhere.
#[path = "grant/tests.rs"]
mod tests;

impl Ask {
    /// Whether no live request of another owner is in the way.
    #[inline(always)]
    pub(crate) fn is_clear(&self, tree: &Tree, own: Option<Own>, pin: &LazyPin) -> bool {
        tree.scan(&self.query(), own, pin, |_| Break(())).is_continue()
    }
}

/// What a request is granted: one hold, or as many as a batch has parts.
pub(crate) type Holds = SmallVec<[Held; 1]>;

/// What a request that is no batch was granted.
pub(crate) fn the_one(mut holds: Holds) -> Held {
    holds.pop().expect("a request has a part")
}

/// A published request. Dropping it is the release, or the cancellation.
pub(crate) struct Live(pub(crate) Placed<Bells>);

impl Live {
    /// # Safety
    /// As for [`Tree::place`](crate::tree::Tree::place): the tree stays where it is for as long as the `Live` lives.
    pub(crate) unsafe fn publish(tree: &Tree, ask: &Ask, visitor: Visitor, pin: &LazyPin) -> Live {
        // SAFETY: the caller's promise, word by word.
        Live(unsafe { tree.place(&ask.entry, visitor, pin) })
    }

    #[cold]
    fn free_and_wake(&self) {
        self.free_watched();
        wait::deliver();
    }

    fn free_watched(&self) {
        // Pinned *before* the slot is freed: from then on the node may be pruned, and the wake-up needs it.
        self.0.free(LazyPin::new().get());
    }

    /// As dropping it, but who waited for it is woken at the next [`wait::deliver`] only.
    fn leave(self) {
        // Its slot is freed here.
        let live = ManuallyDrop::new(self);
        if !live.0.free_unwatched() {
            live.free_watched();
        }
    }
}

impl Drop for Live {
    #[inline]
    fn drop(&mut self) {
        if !self.0.free_unwatched() {
            self.free_and_wake();
        }
    }
}

/// A granted request. Dropping it releases the range.
pub(crate) struct Held(pub(crate) Live);

impl Held {
    /// What is held when the range is empty: nothing.
    pub(crate) fn nothing(mode: Mode) -> Held {
        Held(Live(Placed::nowhere(mode.bit())))
    }

    /// The request that is held by `live`, whose scan found nobody in the way. A token says so: it may have other
    /// requests under way, so that nobody could tell whether this one is decided (see `cycle`). `owes_wakes` becomes
    /// true if somebody has listened for that.
    #[inline]
    fn decided(live: Live, ask: &Ask, owes_wakes: &mut bool) -> Held {
        if OwnerId::from_slot(ask.entry.owner).is_token() {
            *owes_wakes |= live.0.hold();
        }
        Held(live)
    }

    #[inline]
    pub(crate) fn is_nothing(&self) -> bool {
        self.0.0.is_nothing()
    }

    pub(crate) fn range(&self) -> ByteRange {
        self.0.0.range().map_or(ByteRange::EMPTY, |(start, last)| ByteRange::new(start..=last))
    }

    pub(crate) fn mode(&self) -> Mode {
        Mode::from_bit(self.0.0.mode())
    }

    /// What was asked for when this was granted, or became what it is; `None` if nothing is held.
    pub(crate) fn ask(&self) -> Option<Ask> {
        let placed = &self.0.0;
        let (owner, order) = (placed.owner()?, self.order()?);
        Some(Ask::at(self.range(), self.mode(), owner, order))
    }

    /// Whose it is; `None` if nothing is held.
    pub(crate) fn owner(&self) -> Option<OwnerId> {
        self.0.0.owner().map(OwnerId::from_slot)
    }

    /// Makes it a hold of `owner`, which nobody else is and which has made no request yet. Whether wakers are to be
    /// delivered.
    #[must_use]
    pub(crate) fn hand_over(&self, owner: OwnerId) -> bool {
        self.0.0.hand_over(owner.get())
    }

    /// When it was asked for, among its owner's requests; `None` if nothing is held.
    pub(crate) fn order(&self) -> Option<u64> {
        self.0.0.order()
    }
}

/// Waits until the range is granted.
///
/// # Errors
/// [`Refused::Deadlock`]. In a box, so that the answer comes in registers, and not through memory: see [`Placed`].
///
/// # Safety
/// The state is neither moved nor dropped while the `Held` lives.
#[inline(always)]
pub(crate) unsafe fn acquire(
    state: &LockState,
    ask: &Ask,
    visitor: Visitor,
    token: Option<&Owner>,
) -> Result<Held, Box<Refused>> {
    // SAFETY: the caller's promise, word by word.
    match unsafe { publish_and_look(state, ask, visitor, Some(Patience::Spin)) } {
        Ok(held) => Ok(held),
        Err(barred) => {
            let Entry { start, last, mode, owner, order } = ask.entry;
            // SAFETY: as above.
            unsafe { come_again_or_wait(state, barred, start, last, mode, owner, order, token, visitor) }
        }
    }
}

/// For who has found somebody in its way.
///
/// # Safety
/// As for [`acquire`].
#[cold]
#[allow(clippy::too_many_arguments)]
unsafe fn come_again_or_wait(
    state: &LockState,
    barred: Barred,
    start: u64,
    last: u64,
    mode: u64,
    owner: u64,
    order: u64,
    token: Option<&Owner>,
    visitor: Visitor,
) -> Result<Held, Box<Refused>> {
    let ask = Ask { entry: Entry { start, last, mode, owner, order } };
    // SAFETY: the caller's promise.
    match unsafe { come_again_or_queue(state, barred, ask, token, visitor, Patience::Spin) } {
        Doorway::Granted(held) => Ok(held),
        Doorway::Queued(waiter) => waiter.wait().map(the_one).map_err(Box::new),
    }
}

/// Queues what was published. But if it may pass who yields, and has found a holder only, and has some `patience`, it
/// leaves, looks for a moment whether that one goes, and comes again: who has waited for no longer than that, and has
/// no place in the queue, is a newcomer still.
///
/// # Safety
/// As for [`acquire`], and for the `Waiter` too.
#[cold]
unsafe fn come_again_or_queue(
    state: &LockState,
    mut barred: Barred,
    mut ask: Ask,
    token: Option<&Owner>,
    visitor: Visitor,
    patience: Patience,
) -> Doorway<Held> {
    let (luck, mut lingering) = (&state.tree.beside.luck, Lingering::new());
    while matches!(barred, Barred::ByHolder(_)) && lingering.may_go_on(luck, patience) {
        barred.live().leave();
        wait::deliver();
        lingering.pause();
        ask.entry.order = state.tree.bar();
        // SAFETY: the caller's promise.
        match unsafe { publish_and_look(state, &ask, visitor, Some(patience)) } {
            Ok(held) => {
                lingering.has_paid(luck);
                return Doorway::Granted(held);
            }
            Err(again) => barred = again,
        }
    }
    let part = Part { state: NonNull::from(state), live: barred.live(), ask, is_covered: false };
    Doorway::Queued(Waiter::queue(SmallVec::from_buf([part]), token, Manner::Waits))
}

/// Whether it is such a request as may go before those who yield: none whose owner has other requests, or which holds
/// up somebody who has. What these hold, others wait for, and so they would wait for who came later. A token can have
/// them at any moment, on another thread.
#[cold]
fn may_pass(ask: &Ask, patience: Patience) -> bool {
    // A poll holds nobody up.
    let holds_up = || patience != Patience::None && matches!(held_up_by(ask), (Some(_), _) | (_, Some(_)));
    !ask.is_nested() && !ask.owner().is_token() && !holds_up()
}

/// Whom a call that waits for the request holds up, beside its owner: the calling thread, and the owner in whose scope
/// it is.
pub(crate) fn held_up_by(ask: &Ask) -> (Option<OwnerId>, Option<Owner>) {
    (owner::thread_held_up_by(ask.owner()), Owner::current())
}

/// Who is in the way of a request that was published, and may pass who yields.
enum Way {
    Clear,
    /// Such as yield, and may be passed.
    Past,
    /// Somebody whom it may not pass.
    Barred {
        /// Or by one in the queue.
        by_holder: bool,
    },
}

impl Way {
    #[cold]
    fn past(state: &LockState, ask: &Ask, own: Own, pin: &LazyPin) -> Way {
        let barred_by = |seen: Seen<'_>| Way::Barred { by_holder: seen.ticket().is_none() };
        let some_yield = Cell::new(false);
        let insisting = Query { whose: Whose::OthersWhoInsist(&some_yield), ..ask.query() };
        if let Some(seen) = find(state, &insisting, own, pin, |_| true) {
            return barred_by(seen);
        }
        if !some_yield.get() {
            return Way::Clear;
        }
        // Behind the publication: who was due before that is passed by nobody.
        let now = owner::now();
        if !state.is_calm(now) {
            let insists = |seen: &Seen<'_>| !seen.word().is_yielding() || state.due_at(seen.order()) <= now;
            if let Some(seen) = find(state, &ask.query(), own, pin, insists) {
                return barred_by(seen);
            }
            find_calm(state, ask.entry.order, pin);
        }
        telemetry::went_before();
        Way::Past
    }
}

/// Somebody whom `query` is about, but for the caller's `own`, and for whom `is` says so.
fn find<'t>(
    state: &'t LockState,
    query: &Query,
    own: Own,
    pin: &'t LazyPin,
    is: impl Fn(&Seen<'t>) -> bool,
) -> Option<Seen<'t>> {
    let mut found = None;
    let _ = state.tree.scan(query, Some(own), pin, |seen| {
        if !is(&seen) {
            return Continue(());
        }
        found = Some(seen);
        Break(())
    });
    found
}

/// Finds out until when nobody is going to be due in `state`, if few are there. A newcomer knows then that it may pass
/// whoever yields, without a look at who that is.
///
/// `bar` is what the caller has read before it published. Who has not queued yet when this looks at him, and who is not
/// seen as he came later, has a ticket above that one, if he ever has one: he draws it when this caller's publication,
/// or its look, is over. So what is found is true for good.
fn find_calm(state: &LockState, bar: u64, pin: &LazyPin) {
    const MOST: usize = 64;
    let (mut calm, mut looked) = (bar.saturating_add(state.tree.window()), 0);
    let scan = state.tree.scan(&EVERYBODY, None, pin, |seen| {
        looked += 1;
        if looked > MOST || seen.word().is_queuing() {
            return Break(());
        }
        // Whoever waits, for who has closed may open again.
        if seen.word().is_queued() {
            calm = calm.min(state.due_at(seen.order()));
        }
        Continue(())
    });
    if scan.is_continue() {
        state.tree.set_calm(calm);
    }
}

/// Waits until the range is granted or `deadline` has passed.
///
/// # Errors
/// [`Refused::Deadlock`] or [`Refused::TimedOut`].
///
/// # Safety
/// As for [`acquire`].
pub(crate) unsafe fn acquire_until(
    state: &LockState,
    ask: &Ask,
    visitor: Visitor,
    token: Option<&Owner>,
    deadline: Instant,
) -> Result<Held, Refused> {
    if deadline <= Instant::now() {
        // SAFETY: the caller's promise, word by word.
        return unsafe { try_acquire(state, ask, visitor) }.ok_or(Refused::TimedOut);
    }
    // SAFETY: the caller's promise, word by word.
    let entered = match unsafe { publish_and_look(state, ask, visitor, Some(Patience::Spin)) } {
        Ok(held) => return Ok(held),
        // SAFETY: as above.
        Err(barred) => unsafe { come_again_or_queue(state, barred, *ask, token, visitor, Patience::Spin) },
    };
    match entered {
        Doorway::Granted(held) => Ok(held),
        Doorway::Queued(waiter) => waiter.wait_until(deadline).map(the_one),
    }
}

/// Grants the range if no live request of another owner is in the way: held, waiting or just arriving.
///
/// # Safety
/// As for [`acquire`].
pub(crate) unsafe fn try_acquire(state: &LockState, ask: &Ask, visitor: Visitor) -> Option<Held> {
    // A look first, so that one who tries in a loop publishes nothing that others would have to wait for.
    if !state.tree.is_quiet(ask.against(), None) && !ask.is_clear(&state.tree, None, &LazyPin::new()) {
        telemetry::contended();
        return None;
    }
    // SAFETY: the caller's promise, word by word.
    unsafe { publish_and_look(state, ask, visitor, None) }.map_err(|barred| refuse([barred.live()])).ok()
}

/// A request that was published, and has found somebody in its way.
enum Barred {
    /// By a holder only; and it may pass who yields, and so come again.
    ByHolder(Live),
    Else(Live),
}

impl Barred {
    fn live(self) -> Live {
        match self {
            Barred::ByHolder(live) | Barred::Else(live) => live,
        }
    }
}

/// The first half of the doorway: publishes the request; and grants it if nobody is in its way, or only such as it may
/// pass. If not, wakers may have to be [delivered](wait::deliver) when it is decided: not before, or they would meet an
/// undecided request of the same thread. It will wait with some `patience`, or not at all.
///
/// # Safety
/// As for [`acquire`].
#[inline(always)]
unsafe fn publish_and_look(
    state: &LockState,
    ask: &Ask,
    visitor: Visitor,
    patience: Option<Patience>,
) -> Result<Held, Barred> {
    /// In line at each of its callers: that is most of what a quiet acquire does behind its look.
    #[inline(always)]
    fn granted(placed: Placed<Bells>, ask: &Ask) -> Held {
        let mut owes_wakes = false;
        let held = Held::decided(Live(placed), ask, &mut owes_wakes);
        if owes_wakes {
            wait::deliver();
        }
        count_grants(1, ask);
        held
    }
    let against = ask.against();
    // SAFETY: the caller's promise, word by word.
    let (published, turned_back) = match unsafe { state.tree.place_in_root(&ask.entry, against, visitor) } {
        Some((placed, Glance::Clear)) => return Ok(granted(placed, ask)),
        Some((placed, _)) => (Some(Live(placed)), false),
        // SAFETY: as above.
        None => match unsafe { state.tree.place_by_shortcut(ask.entry, against, visitor) } {
            ByShortcut::Placed(placed, Glance::Clear) => return Ok(granted(placed, ask)),
            ByShortcut::Placed(placed, Glance::Met) if !state.reorders() => {
                return Err(Barred::Else(Live(placed)));
            }
            ByShortcut::Placed(placed, _) => (Some(Live(placed)), false),
            ByShortcut::TurnedBack => (None, true),
            ByShortcut::None => (None, false),
        },
    };
    let Entry { start, last, mode, owner, order } = ask.entry;
    // SAFETY: as above.
    unsafe {
        publish_and_look_from_root(state, start, last, mode, owner, order, visitor, patience, published, turned_back)
    }
}

/// The same from the root down, for who is not alone there and has no shortcut; or for who is `published`, and may have
/// somebody in its way. What an [`Ask`] says comes in registers: had it an address, the quiet cases would have to put
/// it into memory too.
///
/// # Safety
/// As for [`acquire`].
#[inline(never)]
#[allow(clippy::too_many_arguments)]
unsafe fn publish_and_look_from_root(
    state: &LockState,
    start: u64,
    last: u64,
    mode: u64,
    owner: u64,
    order: u64,
    visitor: Visitor,
    patience: Option<Patience>,
    published: Option<Live>,
    owes_wakes: bool,
) -> Result<Held, Barred> {
    let ask = Ask { entry: Entry { start, last, mode, owner, order } };
    let pin = LazyPin::new();
    if owes_wakes {
        pin.owe_wakes();
    }
    let (live, glance) = match published {
        Some(live) => (live, Glance::Unsure),
        None => {
            // SAFETY: the caller's promise, word by word.
            let (placed, glance) = unsafe { state.tree.place_along(&ask.entry, &ask.query(), visitor, &pin) };
            (Live(placed), glance)
        }
    };
    if glance != Glance::Clear {
        if state.reorders() && patience.is_some_and(|patience| may_pass(&ask, patience)) {
            match Way::past(state, &ask, live.0.own(ask.entry.mode), &pin) {
                Way::Clear => {}
                // It says GRANTED, as it is no later request that is still in its doorway.
                Way::Past => live.0.hold_quietly(),
                Way::Barred { by_holder: true } => return Err(Barred::ByHolder(live)),
                Way::Barred { by_holder: false } => return Err(Barred::Else(live)),
            }
        } else if glance == Glance::Met || !ask.is_clear(&state.tree, Some(live.0.own(ask.entry.mode)), &pin) {
            return Err(Barred::Else(live));
        }
    }
    let mut owes_wakes = pin.owes_wakes();
    drop(pin);
    let held = Held::decided(live, &ask, &mut owes_wakes);
    if owes_wakes {
        wait::deliver();
    }
    count_grants(1, &ask);
    Ok(held)
}

/// What has found somebody in its way, and is not going to wait, leaves: with all its parts before the first waker is
/// called. A waker that met one of them undecided, in a search or a conversion, would wait for this thread, which calls
/// it.
#[cold]
fn refuse(parts: impl IntoIterator<Item = Live>) {
    telemetry::contended();
    parts.into_iter().for_each(Live::leave);
    // What has come up since it was published, too.
    wait::deliver();
}

/// For the statistics: so many requests were granted as they came.
#[inline]
fn count_grants(requests: usize, ask: &Ask) {
    for _ in 0..requests {
        telemetry::acquired();
        if ask.is_nested() {
            telemetry::nested();
        }
    }
}

/// How a request leaves its doorway.
#[allow(clippy::large_enum_variant)] // A box would be an allocation for each that waits.
pub(crate) enum Doorway<H> {
    Granted(H),
    Queued(Waiter),
}

/// The doorway: publish, scan, and queue if somebody is in the way.
///
/// # Safety
/// As for [`acquire`], and for the `Waiter` too.
pub(crate) unsafe fn enter(state: &LockState, ask: &Ask, visitor: Visitor, token: Option<&Owner>) -> Doorway<Held> {
    // SAFETY: the caller's promise, word by word.
    match unsafe { publish_and_look(state, ask, visitor, Some(Patience::None)) } {
        Ok(held) => Doorway::Granted(held),
        // SAFETY: as above.
        Err(barred) => unsafe { come_again_or_queue(state, barred, *ask, token, visitor, Patience::None) },
    }
}

/// The doorway of a request whose owner, who has nothing else, does not wait yet ([`announce`](super::announce)).
///
/// # Safety
/// As for [`acquire`], and for the `Waiter` too.
pub(crate) unsafe fn announce(state: &LockState, ask: &Ask, visitor: Visitor) -> Doorway<Held> {
    // SAFETY: the caller's promise, word by word.
    match unsafe { publish_and_look(state, ask, visitor, Some(Patience::None)) } {
        Ok(held) => Doorway::Granted(held),
        Err(barred) => {
            let part = Part { state: NonNull::from(state), live: barred.live(), ask: *ask, is_covered: false };
            Doorway::Queued(Waiter::queue(SmallVec::from_buf([part]), None, Manner::Works))
        }
    }
}

/// Grants all of a batch, if no live request of another owner is in the way of any part.
///
/// # Safety
/// As for [`acquire`], for each state.
pub(crate) unsafe fn try_acquire_batch(asks: &[(&LockState, Ask)], visitor: Visitor) -> Option<Holds> {
    let pin = LazyPin::new();
    let mut widest = asks.iter().zip(covered(asks)).filter(|(_, is_covered)| !is_covered);
    if !widest.all(|((state, ask), _)| ask.is_clear(&state.tree, None, &pin)) {
        telemetry::contended();
        return None;
    }
    drop(pin);
    // SAFETY: the caller's promise, word by word.
    let holds = unsafe { publish_and_look_batch(asks, visitor) };
    holds.map_err(|parts| refuse(parts.into_iter().map(|part| part.live))).ok()
}

/// The doorway of a batch: all parts are published before the first of them looks.
///
/// # Safety
/// As for [`acquire`], for each state, and for the `Waiter` too.
pub(crate) unsafe fn enter_batch(
    asks: &[(&LockState, Ask)],
    visitor: Visitor,
    token: Option<&Owner>,
) -> Doorway<Holds> {
    // One part is a request like any other.
    if let [(state, ask)] = asks {
        // SAFETY: the caller's promise, word by word.
        return match unsafe { enter(state, ask, visitor, token) } {
            Doorway::Granted(held) => Doorway::Granted(Holds::from_buf([held])),
            Doorway::Queued(waiter) => Doorway::Queued(waiter),
        };
    }
    // SAFETY: the caller's promise, word by word.
    match unsafe { publish_and_look_batch(asks, visitor) } {
        Ok(holds) => Doorway::Granted(holds),
        Err(parts) => Doorway::Queued(Waiter::queue(parts, token, Manner::Waits)),
    }
}

/// As [`publish_and_look`], for all parts together.
///
/// # Safety
/// As for [`acquire`], for each state.
unsafe fn publish_and_look_batch(asks: &[(&LockState, Ask)], visitor: Visitor) -> Result<Holds, Parts> {
    let pin = LazyPin::new();
    let parts: Parts = asks
        .iter()
        .zip(covered(asks))
        .map(|(&(state, ask), is_covered)| {
            // SAFETY: the caller's promise, word by word.
            let live = unsafe { Live::publish(&state.tree, &ask, visitor, &pin) };
            Part { state: NonNull::from(state), live, ask, is_covered }
        })
        .collect();
    if !are_clear(&parts, &pin) {
        return Err(parts);
    }
    let mut owes_wakes = pin.owes_wakes();
    // Wakers are foreign code: none is called while pinned, nor before all parts are decided.
    drop(pin);
    let holds: Holds = parts.into_iter().map(|part| Held::decided(part.live, &part.ask, &mut owes_wakes)).collect();
    if owes_wakes {
        wait::deliver();
    }
    count_grants(holds.len(), &asks[0].1);
    Ok(holds)
}

/// Of each part of a batch, whether another one covers it: asks for all of its bytes, and maybe more, in the same mode.
/// Whoever is in the way of the one is in the way of the other, as both have one owner and one ticket; so it is enough
/// that the widest look.
fn covered(asks: &[(&LockState, Ask)]) -> SmallVec<[bool; 2]> {
    let mut covered: SmallVec<[bool; 2]> = SmallVec::from_elem(false, asks.len());
    // By state and mode; the one that begins first, and of these the longest, comes first.
    let key = |&index: &usize| {
        let (state, Ask { entry }) = asks[index];
        ((&raw const *state).addr(), entry.mode, entry.start, u64::MAX - entry.last)
    };
    let mut order: SmallVec<[usize; 2]> = (0..asks.len()).collect();
    order.sort_by_key(key);
    let mut widest: Option<usize> = None;
    for index in order {
        let covers = |&widest: &usize| {
            let ((state, wide), (its_space, its)) = (asks[widest], asks[index]);
            ptr::eq(state, its_space) && wide.entry.mode == its.entry.mode && its.entry.last <= wide.entry.last
        };
        covered[index] = widest.as_ref().is_some_and(covers);
        if !covered[index] {
            widest = Some(index);
        }
    }
    covered
}

/// One lock's part of a waiting request.
struct Part {
    /// INV-G4: neither moved nor dropped while the part lives.
    state: NonNull<LockState>,
    live: Live,
    ask: Ask,
    /// Whether another part covers it: see [`covered`].
    is_covered: bool,
}

type Parts = SmallVec<[Part; 1]>;

/// Whether nobody is in the way of any of the parts, which are published.
fn are_clear(parts: &[Part], pin: &LazyPin) -> bool {
    // A part that is covered leaves the look to the one that covers it, but not the end of the era: it may be higher
    // up, and held for longer.
    parts.iter().filter(|part| part.is_covered).for_each(|part| part.bar_shortcuts(pin));
    widest(parts).all(|part| part.ask.is_clear(&part.state().tree, Some(part.own()), pin))
}

/// Those that look for the others, too.
fn widest(parts: &[Part]) -> impl Iterator<Item = &Part> {
    parts.iter().filter(|part| !part.is_covered)
}

// SAFETY: `state` is a shared reference in all but its lifetime, and a `LockState` is `Sync`; the rest is `Send` by
// itself.
unsafe impl Send for Part {}
// SAFETY: as above, and nothing in a part changes but through atomics.
unsafe impl Sync for Part {}

impl Part {
    fn state(&self) -> &LockState {
        // SAFETY: it is there for as long as the part is (INV-G4).
        unsafe { self.state.as_ref() }
    }

    fn own(&self) -> Own {
        self.live.0.own(self.ask.entry.mode)
    }

    /// Nobody gets past it by a shortcut from now on.
    fn bar_shortcuts(&self, pin: &LazyPin) {
        self.state().tree.bar_shortcuts(&self.ask.query(), self.own(), pin);
    }
}

/// The parts of a request that stands in the queue. Dropping them gives all of their places up, and only then wakes
/// whoever waited for one: a waker is foreign code, and may ask for what another part stands in the way of.
struct Queued(Parts);

impl Queued {
    fn into_parts(mut self) -> Parts {
        std::mem::take(&mut self.0)
    }
}

impl Deref for Queued {
    type Target = [Part];

    fn deref(&self) -> &[Part] {
        &self.0
    }
}

impl<'a> IntoIterator for &'a Queued {
    type Item = &'a Part;
    type IntoIter = std::slice::Iter<'a, Part>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            std::mem::take(&mut self.0).into_iter().for_each(|part| part.live.leave());
            wait::deliver();
        }
    }
}

/// A queued request: one part, or the parts of a batch under one ticket. Dropping it gives the place in the queue up.
pub(crate) struct Waiter {
    /// Its place in the index. Before `parts`: the index is left before the slots are.
    enlisted: Option<Enlisted>,
    /// Whether it has looked for a cycle that it closes. If not, though it sleeps, it hears from who kept it from that.
    searched: bool,
    parts: Queued,
    ticket: u64,
    stand: Stand,
    lingering: Lingering,
    /// Of each of the widest parts, where somebody in front of it can be.
    scopes: SmallVec<[Scope; 1]>,
    /// How often it has gone to sleep.
    sleeps: u32,
    /// Whether it has slept since it looked last.
    has_slept: bool,
    /// Where a future sleeps. Behind `parts`: the waker in it is foreign code, and may ask for what the request stood
    /// in the way of when it is dropped.
    listener: Option<Listener>,
    /// Last: that a request gave up is told when it has gone.
    clock: WaitClock,
}

/// What its owner does when a request is queued.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Waits,
    /// It goes on, and asks later whether anybody was in its way. So nobody goes before the request unmarked: it does
    /// not yield.
    Works,
}

/// Whom a waiter has found in front of it.
struct InFront<'t> {
    /// The one with the highest ticket, if one is queued.
    last: Option<Seen<'t>>,
    /// Any of all that were found, each as likely as the others.
    any: Option<Seen<'t>>,
    /// A holder whom nobody waits for, if one is there.
    poisoned: Option<(&'t LockState, Seen<'t>)>,
    queued: usize,
    holders: usize,
    extent: Extent,
    /// Decides which is any. (It need only have nothing to do with the order in which they go.)
    dice: u64,
}

impl<'t> InFront<'t> {
    /// All who are in front of a request with `ticket`, or so many that it is not its turn for long. `scopes` are of
    /// its widest parts.
    fn of(
        parts: &'t [Part],
        ticket: u64,
        stand: Stand,
        passes: &Passes,
        scopes: &mut [Scope],
        dice: u64,
        pin: &'t LazyPin,
    ) -> InFront<'t> {
        let mut found =
            InFront { last: None, any: None, poisoned: None, queued: 0, holders: 0, extent: Extent::All, dice };
        for (part, scope) in widest(parts).zip(scopes) {
            let state = part.state();
            let extent = state.tree.scan_ahead(&part.ask.query(), &part.live.0, scope, pin, |seen| {
                match cycle::is_before(&seen, ticket, passes) || stand.may_be_passed_by(&seen) {
                    true if seen.word().is_poisoned() => {
                        found.poisoned = Some((state, seen));
                        found.add(seen)
                    }
                    true => found.add(seen),
                    false => Rank::Behind,
                }
            });
            if extent == Extent::Part {
                found.extent = extent;
            }
        }
        found
    }

    fn add(&mut self, seen: Seen<'t>) -> Rank {
        // The n-th of them takes the place of those before it once in n times. The multiplier is Knuth's, for MMIX.
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let count = (self.queued + self.holders) as u64 + 1;
        if ((self.dice >> 32) * count) >> 32 == 0 {
            self.any = Some(seen);
        }
        let ticket = seen.ticket();
        if ticket.is_none() {
            self.holders += 1;
            return Rank::Holder;
        }
        self.queued += 1;
        if self.last.as_ref().is_some_and(|last| ticket < last.ticket()) {
            return Rank::Ahead;
        }
        self.last = Some(seen);
        Rank::Next
    }

    fn is_nobody(&self) -> bool {
        self.queued + self.holders == 0
    }

    /// How many have to be through before: the queued ones, and the holders, who count as one.
    fn count(&self) -> usize {
        match self.extent {
            Extent::All => self.queued + usize::from(self.holders > 0),
            Extent::Part => usize::MAX,
        }
    }
}

/// From now on anybody in front can be anywhere.
fn look_everywhere(scopes: &mut [Scope]) {
    scopes.fill(Scope::All);
}

/// How a queued request stands to those who come later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// Nobody passes it.
    Strict,
    /// It yields, and its slot says so.
    Open,
    /// It has closed, for as long as it looks.
    Closed,
    /// It was due, or holds others up, and has closed for good. Who comes with a stamp that is not below this ticket
    /// knows that.
    Due(u64),
}

impl Stand {
    /// Whether the request that was seen may be about to pass, or has passed and not said so yet: it came later, and
    /// was in its doorway.
    fn may_be_passed_by(self, seen: &Seen<'_>) -> bool {
        let before = match self {
            Stand::Strict => return false,
            Stand::Open | Stand::Closed => u64::MAX,
            Stand::Due(ticket) => ticket,
        };
        let (word, order, owner) = (seen.word(), seen.order(), OwnerId::from_slot(seen.owner()));
        !word.is_queued()
            && !word.is_queuing()
            && !owner::is_nested(order)
            && !owner.is_token()
            && !owner::came_after(order, before)
    }
}

/// What a look at the tree says to a waiter.
enum Turn {
    /// It was granted.
    Mine,
    /// Something changed while it looked.
    LookAgain,
    /// It is not its turn: it will hear when that may have changed.
    Wait(Listener),
}

impl Waiter {
    #[cold]
    fn queue(parts: Parts, token: Option<&Owner>, manner: Manner) -> Waiter {
        let parts = Queued(parts);
        let first = parts[0].ask;
        let pin = LazyPin::new();
        for part in &parts {
            part.live.0.start_queuing();
            // Who comes when it is QUEUED shall not get past it.
            part.bar_shortcuts(&pin);
        }
        drop(pin);
        // One ticket for all parts, drawn when all of them are published (rule 2). Who comes from now on knows that it
        // comes later (O1).
        let ticket = owner::ticket_for(first.is_nested());
        parts.iter().for_each(|part| part.state().raise_bar(ticket));
        // Whoever finds the ticket in a slot must find the batch behind it, so it is enlisted before the words say
        // QUEUED.
        let enlisted = (parts.len() > 1 || first.is_nested() || token.is_some()).then(|| {
            let sites = parts.iter().map(|part| Site::new(part.state, part.ask, part.own())).collect();
            // SAFETY: the states are there for as long as the parts are (INV-G4), and the slots are left by dropping
            // the parts: the waiter drops `enlisted` first, and so does this function if it unwinds.
            unsafe { Enlisted::new(ticket, &first, token, sites) }
        });
        let yields = enlisted.is_none() && manner == Manner::Waits && parts[0].state().reorders();
        let stand = if yields { Stand::Open } else { Stand::Strict };
        for part in &parts {
            match stand {
                Stand::Strict => part.live.0.queue(ticket),
                _ => part.live.0.queue_and_yield(ticket),
            }
        }
        wait::deliver();
        telemetry::contended();
        parts.iter().filter(|part| part.ask.is_nested()).for_each(|_| telemetry::nested());
        let clock = telemetry::waiting(first.range(), first.mode(), first.owner());
        let scopes = SmallVec::from_elem(Scope::All, widest(&parts).count());
        Waiter {
            enlisted,
            searched: false,
            parts,
            ticket,
            stand,
            lingering: Lingering::new(),
            scopes,
            sleeps: 0,
            has_slept: false,
            listener: None,
            clock,
        }
    }

    /// Visits all who are in front of it, and is no batch: holders, who is queued before it, and who may hold already.
    pub(crate) fn survey_front(&self, mut visit: impl FnMut(&Seen<'_>)) {
        let (part, passes, pin) = (&self.parts[0], self.passes(), LazyPin::new());
        let _ = part.state().tree.scan(&part.ask.query(), Some(part.own()), &pin, |seen| {
            if cycle::is_before(&seen, self.ticket, &passes) {
                visit(&seen);
            }
            Continue(())
        });
    }

    /// Whether somebody may have come before it behind its back, and it has not looked again since.
    pub(crate) fn is_to_look_again(&self) -> bool {
        self.parts.iter().any(|part| part.live.0.is_to_look_again())
    }

    /// QUEUED -> GRANTED, all parts or none, unless somebody asked for another scan.
    fn grant(&self) -> Grant {
        let [one] = &self.parts[..] else {
            // A batch has one decision, which is not in any slot; once it has fallen, the words may follow at leisure.
            if self.enlisted.as_ref().is_some_and(|enlisted| enlisted.decide() == Grant::LookAgain) {
                return Grant::LookAgain;
            }
            self.parts.iter().for_each(|part| while part.live.0.grant() == Grant::LookAgain {});
            return Grant::Granted;
        };
        one.live.0.grant()
    }

    fn look(&mut self, patience: Patience, deadline: Option<Instant>) -> Result<Turn, Refused> {
        let passes = self.passes();
        let pin = LazyPin::new();
        if self.yields() {
            self.insist_if_due();
        }
        let dice = self.ticket ^ u64::from(self.sleeps);
        let mut found = InFront::of(&self.parts, self.ticket, self.stand, &passes, &mut self.scopes, dice, &pin);
        if found.is_nobody() && self.stand == Stand::Open {
            self.parts[0].live.0.close();
            self.stand = Stand::Closed;
            // Newcomers that have passed it need not be where the first look has found nobody: in nodes newer than its
            // own, as well (T5 is of those who queue).
            look_everywhere(&mut self.scopes);
            found = InFront::of(&self.parts, self.ticket, self.stand, &passes, &mut self.scopes, dice, &pin);
        }
        let poisoned = found.poisoned;
        if let Some(refusal) = poisoned.and_then(|(state, seen)| poison::refusal(state, &seen)) {
            return Err(refusal);
        }
        // Whom it may pass is not in front now, and can be so again; and newcomers can be, where they may pass it.
        if !passes.is_empty() || self.stand != Stand::Strict {
            look_everywhere(&mut self.scopes);
        }
        // In the order of their tickets, if they go as they came; else half of them at a time.
        let blocker = if self.sleeps % 2 == 0 { found.last.or(found.any) } else { found.any };
        let Some(blocker) = blocker else {
            return Ok(match self.grant() {
                Grant::Granted => {
                    if !passes.is_empty() {
                        // ORDERING (S9): whom it passes was marked before the pass was opened. Who reads what is done
                        // under this grant finds the mark.
                        fence(Ordering::SeqCst);
                    }
                    self.lingering.has_paid(&self.parts[0].state().tree.beside.luck);
                    Turn::Mine
                }
                Grant::LookAgain => {
                    // Behind its own CAS, which has cleared RESCAN (T5).
                    look_everywhere(&mut self.scopes);
                    Turn::LookAgain
                }
            });
        };
        let ahead = found.count();
        if self.stand == Stand::Closed {
            self.parts[0].live.0.reopen();
            self.stand = Stand::Open;
        }
        // Who was found poisoned has changed meanwhile.
        if poisoned.is_some() {
            return Ok(Turn::LookAgain);
        }
        if self.has_slept && self.yields() && blocker.ticket().is_none() {
            telemetry::woken_in_vain();
        }
        let luck = &self.parts[0].state().tree.beside.luck;
        if self.yields() && blocker.ticket().is_none() {
            if self.has_slept {
                self.lingering = Lingering::new();
            }
            self.has_slept = false;
            if self.lingering.may_go_on(luck, patience) {
                self.lingering.pause();
                return Ok(Turn::LookAgain);
            }
        } else if wait::look_for(luck, patience, ahead, || blocker.has_changed()) {
            return Ok(Turn::LookAgain);
        }
        // Listen first, then ask to be told (INV-G3).
        let (bells, index) = blocker.room();
        let mut listener = bells.listen(index, blocker.word().age());
        let will_hear = blocker.ask_for_wake();
        drop(pin);
        if !will_hear {
            return Ok(Turn::LookAgain);
        }
        if let Some(enlisted) = &mut self.enlisted {
            if !self.searched && enlisted.is_nested() {
                match enlisted.search(luck, patience, deadline)? {
                    Searched::Done => self.searched = true,
                    // The graph is another one by now, as somebody else has got on; so may its own turn have come.
                    Searched::InVain => return Ok(Turn::LookAgain),
                    // It goes on waiting, and will search when that one is through.
                    Searched::Owed(undecided) => listener = listener.and(undecided),
                }
            }
            // Whoever lets it pass from now on, wakes the listener.
            if enlisted.passes() != passes {
                return Ok(Turn::LookAgain);
            }
        }
        self.sleeps = self.sleeps.wrapping_add(1);
        self.has_slept = true;
        Ok(Turn::Wait(listener))
    }

    /// Whether newcomers may pass it yet.
    fn yields(&self) -> bool {
        matches!(self.stand, Stand::Open | Stand::Closed)
    }

    /// Closes for good, if it is time.
    #[cold]
    fn insist_if_due(&mut self) {
        if owner::now() >= self.parts[0].state().due_at(self.ticket) {
            self.insist();
        }
    }

    /// Closes for good.
    fn insist(&mut self) {
        let part = &self.parts[0];
        part.live.0.close();
        // Drawn behind the word: who finds the bar there finds that too (O1).
        let since = owner::next_ticket();
        part.state().raise_bar(since);
        self.stand = Stand::Due(since);
    }

    /// The tickets of those whom it may pass.
    fn passes(&self) -> Passes {
        self.enlisted.as_ref().map(Enlisted::passes).unwrap_or_default()
    }

    /// The calling thread waits for it: see [`Enlisted::hold_up`]. It may be enlisted only now, behind its QUEUED,
    /// since it searches when it is.
    fn hold_up(&mut self) {
        let first = self.parts[0].ask;
        let (thread, scope) = held_up_by(&first);
        if thread.is_none() && scope.is_none() {
            return;
        }
        let enlisted = self.enlisted.get_or_insert_with(|| {
            let sites = self.parts.iter().map(|part| Site::new(part.state, part.ask, part.own())).collect();
            // SAFETY: as in `queue`. This one is no token's.
            unsafe { Enlisted::new(self.ticket, &first, None, sites) }
        });
        enlisted.hold_up(thread, scope);
        // Others wait for what those hold: so from now on nobody passes it.
        if self.stand == Stand::Open {
            self.insist();
        }
    }

    pub(crate) fn wait(mut self) -> Result<Holds, Refused> {
        self.hold_up();
        loop {
            match self.look(Patience::GiveWay, None)? {
                Turn::Mine => return Ok(self.into_holds()),
                Turn::LookAgain => {}
                Turn::Wait(listener) => listener.wait(),
            }
        }
    }

    /// What it waits for beyond `deadline` is short mutexes, one search of somebody else, and wakers (INV-P9).
    pub(crate) fn wait_until(mut self, deadline: Instant) -> Result<Holds, Refused> {
        self.hold_up();
        loop {
            match self.look(Patience::Spin, Some(deadline))? {
                Turn::Mine => return Ok(self.into_holds()),
                // Others who get on can make it look again and again.
                Turn::LookAgain if Instant::now() >= deadline => return Err(Refused::TimedOut),
                Turn::LookAgain => {}
                Turn::Wait(listener) => {
                    if listener.wait_until(deadline) == Woken::TimedOut {
                        return Err(Refused::TimedOut);
                    }
                }
            }
        }
    }

    /// Ready when the request is granted, and the waiter is to be made into its [`Holds`]; or refused, and the waiter
    /// is to be dropped.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Refused>> {
        loop {
            if let Some(listener) = &mut self.listener {
                ready!(listener.poll(context));
                self.listener = None;
            }
            match self.look(Patience::None, None)? {
                Turn::Mine => return Poll::Ready(Ok(())),
                Turn::LookAgain => {}
                Turn::Wait(listener) => self.listener = Some(listener),
            }
        }
    }

    /// What a waiter becomes when [`Waiter::poll`] has said that it is granted.
    pub(crate) fn into_holds(self) -> Holds {
        let Waiter { parts, clock, enlisted, stand, ticket, .. } = self;
        // Who is in the index has closed because it holds others up.
        if let (Stand::Due(_), None) = (stand, &enlisted) {
            telemetry::granted_late(parts[0].state().rest(ticket));
        }
        drop(enlisted);
        let holds: Holds = parts.into_parts().into_iter().map(|part| Held(part.live)).collect();
        holds.iter().for_each(|_| telemetry::acquired());
        clock.granted();
        holds
    }
}

/// What it asks for, part by part.
impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.parts.iter().map(|part| part.ask)).finish()
    }
}

/// What models do with a queued request, step by step.
#[cfg(all(test, loom))]
impl Waiter {
    pub(crate) fn finish(self) -> Held {
        self.wait().map(the_one).expect("no cycle in this model")
    }

    pub(crate) fn finish_until(self, deadline: Instant) -> Option<Held> {
        self.wait_until(deadline).map(the_one).ok()
    }
}

/// What the owner of `ask` holds itself of these bytes in a mode that conflicts. Lock-free: if it looks again, a hold
/// of this lock has been converted.
#[cold]
pub(crate) fn own_conflict(state: &LockState, ask: &Ask) -> Option<(ByteRange, Mode)> {
    let query = Query { whose: Whose::Own, ..ask.query() };
    state.look_at_rest(|tree| {
        let mut found = None;
        own_holds(tree, &query, |seen| found = Some(what(seen)));
        found
    })
}

/// What the owner of `held` holds beside it of these bytes in a mode that conflicts, if it holds anything. Of two holds
/// of an owner that conflict, at least the one that is granted later finds the other, whichever threads ask: so who
/// asks this behind each grant, and lets go if there is one, never has two. (Holds of this lock must not move.)
#[cold]
pub(crate) fn conflict_beside(state: &LockState, held: &Held) -> Option<(ByteRange, Mode)> {
    let ask = held.ask()?;
    let query = Query { whose: Whose::Own, ..ask.query() };
    // ORDERING: it has said that it holds (or is a thread's, whose other requests are this thread's own), and then
    // looks. So does the other. Either its fence is behind this one, and it finds this hold; or it is not, and what it
    // had said before is found here. (A request that waits, or is undecided, is no hold; when it has become one, it
    // looks.)
    fence(Ordering::SeqCst);
    let mut found = None;
    let _ = state.tree.scan(&query, Some(held.0.0.own(ask.entry.mode)), &LazyPin::new(), |seen| {
        if seen.ticket().is_none() && !cycle::is_undecided(&seen) {
            found = Some(what(&seen));
        }
        Continue(())
    });
    found
}

/// The holds that meet this one and that its owner had when it asked for it. Lock-free, as [`own_conflict`].
#[cold]
pub(crate) fn holds_around(state: &LockState, held: &Held) -> SmallVec<[(ByteRange, Mode); 1]> {
    let Some(ask) = held.ask() else { return SmallVec::new() };
    let query = Query { whose: Whose::Own, against: Mode::Exclusive.against(), ..ask.query() };
    state.look_at_rest(|tree| {
        let mut found = SmallVec::new();
        own_holds(tree, &query, |seen| {
            if seen.order() < ask.entry.order {
                found.push(what(seen));
            }
        });
        found
    })
}

/// Visits the holders that `query`, which is about an owner's own requests, finds. A token may be about to ask for
/// something on another thread: that is no hold yet.
fn own_holds(tree: &Tree, query: &Query, mut visit: impl FnMut(&Seen<'_>)) {
    let _ = tree.scan(query, None, &LazyPin::new(), |seen| {
        if seen.ticket().is_none() && !cycle::is_undecided(&seen) {
            visit(&seen);
        }
        Continue(())
    });
}

/// How many requests hold and how many wait, at some moment of the call. Of those that move meanwhile it may miss some.
pub(crate) fn count(tree: &Tree) -> (usize, usize) {
    let (mut holding, mut waiting) = (0, 0);
    survey(tree, |seen| match seen.ticket() {
        Some(_) => waiting += 1,
        None => holding += 1,
    });
    (holding, waiting)
}

/// Every live request. To find them is lock-free, as for [`own_conflict`]; to ask whom those who wait may pass takes
/// locks of the index (INV-P7).
pub(crate) fn rows(state: &LockState) -> Vec<Row> {
    state.look_at_rest(|tree| {
        // One time for all: who came first has waited longer.
        let (mut rows, now) = (Vec::new(), owner::now());
        survey(tree, |seen| rows.push(row(seen, now)));
        rows
    })
}

/// The holds that a request of `owner` (the id 0: of somebody new) would meet. Lock-free, as [`own_conflict`].
pub(crate) fn conflicts(state: &LockState, range: ByteRange, mode: Mode, owner: u64) -> Vec<Row> {
    let query = Ask::at(range, mode, owner, 0).query();
    state.look_at_rest(|tree| {
        let mut rows = Vec::new();
        let _ = tree.scan(&query, None, &LazyPin::new(), |seen| {
            if seen.ticket().is_none() {
                rows.push(row(&seen, 0));
            }
            Continue(())
        });
        rows
    })
}

fn row(seen: &Seen<'_>, now: u64) -> Row {
    let (start, last) = seen.range();
    let owner = OwnerId::from_slot(seen.owner());
    let place = seen.ticket().map(|ticket| {
        let passes = cycle::passes_of(owner, ticket).to_vec();
        // Less than nothing: it has come since.
        let age = owner::time_of(now.saturating_sub(ticket));
        Place { ticket, age, passes, is_part: cycle::is_batch(ticket) }
    });
    let came = if seen.word().is_granted() { Came::Holds } else { Came::At(seen.order()) };
    Row { start, last, mode: Mode::from_bit(seen.mode()), owner, came, place }
}

/// Whether nobody would be in the way of an owner that has nothing. Lock-free: it looks again if a hold has moved
/// meanwhile, which it could have missed.
pub(crate) fn is_free(state: &LockState, range: ByteRange, mode: Mode) -> bool {
    // No owner has the id 0.
    let (ask, pin) = (Ask::at(range, mode, 0, 0), LazyPin::new());
    state.look_at_rest(|tree| ask.is_clear(tree, None, &pin))
}

/// Every live request. (No owner has the id 0: all are others.)
const EVERYBODY: Query =
    Query { start: 0, last: u64::MAX, against: Mode::Exclusive.against(), owner: 0, whose: Whose::Others };

/// Visits every live request. Not a picture of one moment: some come and go meanwhile.
pub(crate) fn survey(tree: &Tree, mut visit: impl FnMut(&Seen<'_>)) {
    let _ = tree.scan(&EVERYBODY, None, &LazyPin::new(), |seen| {
        visit(&seen);
        Continue(())
    });
}

/// Nodes of the tree that are on the heap.
pub(crate) fn heap_nodes(tree: &Tree) -> usize {
    tree.heap_nodes(LazyPin::new().get())
}

/// Removes every node that is not in use.
pub(crate) fn trim(tree: &Tree) {
    tree.trim(&LazyPin::new());
}
