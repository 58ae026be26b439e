//! Who is granted what, and when: the first-come-first-served rules, without a queue lock.
//!
//! # Promise
//! - *Exclusion.* Two conflicting requests are never granted at the same time.
//! - *First come, first served.* A request that finished its doorway before a conflicting one began is granted first.
//! - *Concurrent entering.* A request that conflicts with no earlier live one is granted without waiting for anybody.
//! - *Cancel.* A request can be given up at any moment; whoever waited for it is woken, and nothing leaks.
//!
//! # The rules
//! A request's *doorway* is: publish as PENDING (with a full fence), scan; no conflict is the grant; otherwise draw a ticket and queue.
//!
//! 1. Others take PENDING for a holder. So of two that see each other as PENDING both queue, and their tickets order them.
//! 2. The ticket is drawn *after* publishing, and stored before the word says QUEUED. Whoever had taken the request for a holder is then
//!    woken to look again: it may be in front now. Before that the *bar* of the lock is raised to it, which newcomers read before they publish.
//! 3. A queued request waits for the conflicting ones that are GRANTED, QUEUED with a lower ticket, or PENDING with a stamp below its ticket. So waits lead
//!    from higher to lower tickets or to a grant, and form no cycle. Who is PENDING with another stamp came later: he finds the queued one in his own scan, and
//!    is behind it. So of those who are PENDING only such are waited for who had begun when the bar was raised, each of them at most once.
//! 4. It sleeps on *one* of these, the one with the highest ticket (a holder if none is queued): a chain of exclusive waiters is woken
//!    one at a time, each by the one before it. Woken, it scans again, in full.
//! 5. No blocker left: QUEUED -> GRANTED by CAS, unless RESCAN was set; then it scans again.
//! 6. Release and cancel are one step: free the slot, wake who waited for it.
//!
//! # Invariants
//! - INV-G1: a live request's slot is freed exactly once, by dropping its [`Live`].
//! - INV-G2: nobody parks, and no waker is called, while pinned. (Who looks for a while before it parks, spinning or giving way, is pinned.) The rooms that pin
//!   are this one, `cycle` and `convert`; and `tree::shortcut`, for a look at the tree that it takes itself.
//! - INV-G3: who parks has listened, and has then set WAITERS in the very word that made it wait.
//!
//! # Source
//! Tickets and "wait for the earlier conflicting requests, held or waiting, and nothing else": Kara's and Bueso's range lock
//! patches for Linux. Publish and scan: Lamport's bakery. The terms are those of group mutual exclusion.

use crate::cycle::{self, Enlisted, Passes, Searched, Site};
use crate::error::AcquireError;
use crate::inspect::{Came, Place, Row};
use crate::mode::Mode;
use crate::observe::{self, WaitClock};
use crate::owner::{self, Owner, OwnerId, Visitor};
use crate::range::ByteRange;
use crate::reclaim::LazyPin;
use crate::space::{Ask, Bells, Own, Seen, Space, Tree, what};
use crate::tree::{ByShortcut, Glance, Grant, Placed, Query, Whose, Word};
use crate::wait::{self, Listener, Patience, Woken};
use smallvec::SmallVec;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::ControlFlow::{Break, Continue};
use std::ops::Deref;
use std::ptr::NonNull;
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

    /// The request that is held by `live`, whose scan found nobody in the way. A token says so: it may have other requests under way, so that
    /// nobody could tell whether this one is decided (see `cycle`). `owes_wakes` becomes true if somebody has listened for that.
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

    /// When it was asked for, among its owner's requests; `None` if nothing is held.
    pub(crate) fn order(&self) -> Option<u64> {
        self.0.0.order()
    }

    /// The state word, for `Debug`; `None` if nothing is held.
    pub(crate) fn word(&self) -> Option<Word> {
        self.0.0.word()
    }
}

/// Waits until the range is granted.
///
/// # Errors
/// [`AcquireError::Deadlock`]. In a box, so that the answer comes in registers, and not through memory: see [`Placed`].
///
/// # Safety
/// The space is neither moved nor dropped while the `Held` lives.
#[inline(always)]
pub(crate) unsafe fn acquire(
    space: &Space,
    ask: &Ask,
    visitor: Visitor,
    token: Option<&Owner>,
) -> Result<Held, Box<AcquireError>> {
    // SAFETY: the caller's promise, word by word.
    match unsafe { publish_and_look(space, ask, visitor) } {
        Ok(held) => Ok(held),
        Err(live) => {
            // SAFETY: as above.
            unsafe { Waiter::queue_one(space, live, ask.range(), ask.mode(), ask.owner(), ask.entry.order, token) }
                .wait_for_one()
        }
    }
}

/// Waits until the range is granted or `deadline` has passed.
///
/// # Errors
/// [`AcquireError::Deadlock`] or [`AcquireError::TimedOut`].
///
/// # Safety
/// As for [`acquire`].
pub(crate) unsafe fn acquire_until(
    space: &Space,
    ask: &Ask,
    visitor: Visitor,
    token: Option<&Owner>,
    deadline: Instant,
) -> Result<Held, AcquireError> {
    if deadline <= Instant::now() {
        // SAFETY: the caller's promise, word by word.
        return unsafe { try_acquire(space, ask, visitor) }.ok_or(AcquireError::TimedOut);
    }
    // SAFETY: the caller's promise, word by word.
    match unsafe { enter(space, ask, visitor, token) } {
        Doorway::Granted(held) => Ok(held),
        Doorway::Queued(waiter) => waiter.wait_until(deadline).map(the_one),
    }
}

/// Grants the range if no live request of another owner is in the way: held, waiting or just arriving.
///
/// # Safety
/// As for [`acquire`].
pub(crate) unsafe fn try_acquire(space: &Space, ask: &Ask, visitor: Visitor) -> Option<Held> {
    // A look first, so that one who tries in a loop publishes nothing that others would have to wait for.
    if !ask.is_clear(&space.tree, None, &LazyPin::new()) {
        observe::contended();
        return None;
    }
    // SAFETY: the caller's promise, word by word.
    unsafe { publish_and_look(space, ask, visitor) }.map_err(|live| refuse([live])).ok()
}

/// The first half of the doorway: publishes the request; and grants it if nobody is in its way. If not, wakers may have to be
/// [delivered](wait::deliver) when it is decided: not before, or they would meet an undecided request of the same thread.
///
/// # Safety
/// As for [`acquire`].
#[inline(always)]
unsafe fn publish_and_look(space: &Space, ask: &Ask, visitor: Visitor) -> Result<Held, Live> {
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
    let against = ask.mode().against();
    // SAFETY: the caller's promise, word by word.
    let (published, turned_back) = match unsafe { space.tree.place_in_root(&ask.entry, against, visitor) } {
        Some((placed, Glance::Clear)) => return Ok(granted(placed, ask)),
        Some((placed, _)) => (Some(Live(placed)), false),
        // SAFETY: as above.
        None => match unsafe { space.tree.place_by_shortcut(ask.entry, against, visitor) } {
            ByShortcut::Placed(placed, Glance::Clear) => return Ok(granted(placed, ask)),
            ByShortcut::Placed(placed, _) => (Some(Live(placed)), false),
            ByShortcut::TurnedBack => (None, true),
            ByShortcut::None => (None, false),
        },
    };
    let (range, mode, owner, order) = (ask.range(), ask.mode(), ask.owner(), ask.entry.order);
    // SAFETY: as above.
    unsafe { publish_and_look_from_root(space, range, mode, owner, order, visitor, published, turned_back) }
}

/// The same from the root down, for who is not alone there and has no shortcut; or for who is `published`, and may have somebody in its way. What an [`Ask`] says
/// comes in registers: had it an address, the quiet cases would have to put it into memory too.
///
/// # Safety
/// As for [`acquire`].
#[inline(never)]
#[allow(clippy::too_many_arguments)]
unsafe fn publish_and_look_from_root(
    space: &Space,
    range: ByteRange,
    mode: Mode,
    owner: OwnerId,
    order: u64,
    visitor: Visitor,
    published: Option<Live>,
    owes_wakes: bool,
) -> Result<Held, Live> {
    let ask = Ask::at(range, mode, owner.get(), order);
    let pin = LazyPin::new();
    if owes_wakes {
        pin.owe_wakes();
    }
    let (live, glance) = match published {
        Some(live) => (live, Glance::Unsure),
        None => {
            // SAFETY: the caller's promise, word by word.
            let (placed, glance) = unsafe { space.tree.place_along(&ask.entry, &ask.query(), visitor, &pin) };
            (Live(placed), glance)
        }
    };
    let clear = match glance {
        Glance::Clear => true,
        Glance::Met => false,
        Glance::Unsure => ask.is_clear(&space.tree, Some(live.0.own(ask.entry.mode)), &pin),
    };
    if !clear {
        return Err(live);
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

/// What has found somebody in its way, and is not going to wait, leaves: with all its parts before the first waker is called. A waker that
/// met one of them undecided, in a search or a conversion, would wait for this thread, which calls it.
#[cold]
fn refuse(parts: impl IntoIterator<Item = Live>) {
    observe::contended();
    parts.into_iter().for_each(Live::leave);
    // What has come up since it was published, too.
    wait::deliver();
}

/// For the statistics: so many requests were granted as they came.
#[inline]
fn count_grants(requests: usize, ask: &Ask) {
    for _ in 0..requests {
        observe::acquired();
        if ask.is_nested() {
            observe::nested();
        }
    }
}

/// How a request leaves its doorway.
pub(crate) enum Doorway<H> {
    Granted(H),
    Queued(Waiter),
}

/// The doorway: publish, scan, and queue if somebody is in the way.
///
/// # Safety
/// As for [`acquire`], and for the `Waiter` too.
pub(crate) unsafe fn enter(space: &Space, ask: &Ask, visitor: Visitor, token: Option<&Owner>) -> Doorway<Held> {
    // SAFETY: the caller's promise, word by word.
    match unsafe { publish_and_look(space, ask, visitor) } {
        Ok(held) => Doorway::Granted(held),
        // SAFETY: as above.
        Err(live) => Doorway::Queued(unsafe {
            Waiter::queue_one(space, live, ask.range(), ask.mode(), ask.owner(), ask.entry.order, token)
        }),
    }
}

/// Grants all of a batch, if no live request of another owner is in the way of any part.
///
/// # Safety
/// As for [`acquire`], for each space.
pub(crate) unsafe fn try_acquire_batch(asks: &[(&Space, Ask)], visitor: Visitor) -> Option<Holds> {
    let pin = LazyPin::new();
    if !asks.iter().all(|(space, ask)| ask.is_clear(&space.tree, None, &pin)) {
        observe::contended();
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
/// As for [`acquire`], for each space, and for the `Waiter` too.
pub(crate) unsafe fn enter_batch(asks: &[(&Space, Ask)], visitor: Visitor, token: Option<&Owner>) -> Doorway<Holds> {
    // SAFETY: the caller's promise, word by word.
    match unsafe { publish_and_look_batch(asks, visitor) } {
        Ok(holds) => Doorway::Granted(holds),
        Err(parts) => Doorway::Queued(Waiter::queue(parts, token)),
    }
}

/// As [`publish_and_look`], for all parts together.
///
/// # Safety
/// As for [`acquire`], for each space.
unsafe fn publish_and_look_batch(asks: &[(&Space, Ask)], visitor: Visitor) -> Result<Holds, Parts> {
    let pin = LazyPin::new();
    let parts: Parts = asks
        .iter()
        .map(|&(space, ask)| {
            // SAFETY: the caller's promise, word by word.
            let live = unsafe { Live::publish(&space.tree, &ask, visitor, &pin) };
            Part { space: NonNull::from(space), live, ask }
        })
        .collect();
    if !parts.iter().all(|part| part.ask.is_clear(&part.space().tree, Some(part.own()), &pin)) {
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

/// One lock's part of a waiting request.
struct Part {
    /// INV-G4: neither moved nor dropped while the part lives.
    space: NonNull<Space>,
    live: Live,
    ask: Ask,
}

type Parts = SmallVec<[Part; 1]>;

// SAFETY: `space` is a shared reference in all but its lifetime, and a `Space` is `Sync`; the rest is `Send` by itself.
unsafe impl Send for Part {}
// SAFETY: as above, and nothing in a part changes but through atomics.
unsafe impl Sync for Part {}

impl Part {
    fn space(&self) -> &Space {
        // SAFETY: it is there for as long as the part is (INV-G4).
        unsafe { self.space.as_ref() }
    }

    fn own(&self) -> Own {
        self.live.0.own(self.ask.entry.mode)
    }
}

/// The parts of a request that stands in the queue. Dropping them gives all of their places up, and only then wakes whoever waited for one: a waker is
/// foreign code, and may ask for what another part stands in the way of.
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
    /// Where a future sleeps. Behind `parts`: the waker in it is foreign code, and may ask for what the request stood in the way of when it is dropped.
    listener: Option<Listener>,
    /// Last: that a request gave up is told when it has gone.
    clock: WaitClock,
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
    /// # Safety
    /// The space is neither moved nor dropped while the waiter lives.
    #[cold]
    unsafe fn queue_one(
        space: &Space,
        live: Live,
        range: ByteRange,
        mode: Mode,
        owner: OwnerId,
        order: u64,
        token: Option<&Owner>,
    ) -> Waiter {
        let ask = Ask::at(range, mode, owner.get(), order);
        let part = Part { space: NonNull::from(space), live, ask };
        Waiter::queue(SmallVec::from_buf([part]), token)
    }

    #[cold]
    fn queue(parts: Parts, token: Option<&Owner>) -> Waiter {
        let parts = Queued(parts);
        let first = parts[0].ask;
        let pin = LazyPin::new();
        for part in &parts {
            part.live.0.start_queuing();
            // Who comes when it is QUEUED shall not get past it.
            part.space().tree.bar_shortcuts(&part.ask.query(), part.own(), &pin);
        }
        drop(pin);
        // One ticket for all parts, drawn when all of them are published (rule 2). Who comes from now on knows that it comes later (O1).
        let ticket = owner::ticket_for(first.is_nested());
        parts.iter().for_each(|part| part.space().raise_bar(ticket));
        // Whoever finds the ticket in a slot must find the batch behind it, so it is enlisted before the words say QUEUED.
        let enlisted = (parts.len() > 1 || first.is_nested() || token.is_some()).then(|| {
            let sites = parts.iter().map(|part| Site::new(part.space, part.ask, part.own())).collect();
            // SAFETY: the spaces are there for as long as the parts are (INV-G4), and the slots are left by dropping the parts: the
            // waiter drops `enlisted` first, and so does this function if it unwinds.
            unsafe { Enlisted::new(ticket, &first, token, sites) }
        });
        for part in &parts {
            part.live.0.queue(ticket);
        }
        wait::deliver();
        observe::contended();
        parts.iter().filter(|part| part.ask.is_nested()).for_each(|_| observe::nested());
        let clock = observe::waiting(first.range(), first.mode(), first.owner());
        Waiter { enlisted, searched: false, parts, ticket, listener: None, clock }
    }

    /// The blocker that must go last before this request can be granted: the queued one with the highest ticket of those in front, or
    /// else a holder. And how many have to be through before: the queued ones, and the holders, who count as one.
    fn nearest_blocker<'t>(&'t self, passes: &Passes, pin: &'t LazyPin) -> Option<(Seen<'t>, usize)> {
        let mut nearest: Option<Seen<'t>> = None;
        let (mut queued, mut is_held) = (0, false);
        for part in &self.parts {
            let _ = part.space().tree.scan(&part.ask.query(), Some(part.own()), pin, |seen| {
                if cycle::is_before(&seen, self.ticket, passes) {
                    let ticket = seen.ticket();
                    queued += usize::from(ticket.is_some());
                    is_held |= ticket.is_none();
                    // `None`, a holder, is less than any ticket.
                    if nearest.as_ref().is_none_or(|nearest| ticket >= nearest.ticket()) {
                        nearest = Some(seen);
                    }
                }
                Continue(())
            });
        }
        nearest.map(|nearest| (nearest, queued + usize::from(is_held)))
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

    fn look(&mut self, patience: Patience) -> Result<Turn, AcquireError> {
        let passes = self.passes();
        let pin = LazyPin::new();
        let Some((blocker, ahead)) = self.nearest_blocker(&passes, &pin) else {
            return Ok(match self.grant() {
                Grant::Granted => Turn::Mine,
                Grant::LookAgain => Turn::LookAgain,
            });
        };
        let luck = &self.parts[0].space().tree.beside.luck;
        if wait::look_for(luck, patience, ahead, || blocker.has_changed()) {
            return Ok(Turn::LookAgain);
        }
        // Listen first, then ask to be told (INV-G3).
        let (bells, index) = blocker.room();
        let mut listener = bells.listen(index);
        let will_hear = blocker.ask_for_wake();
        drop(pin);
        if !will_hear {
            return Ok(Turn::LookAgain);
        }
        if let Some(enlisted) = &self.enlisted {
            if !self.searched && enlisted.is_nested() {
                match enlisted.search()? {
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
        Ok(Turn::Wait(listener))
    }

    /// The tickets of those whom it may pass.
    fn passes(&self) -> Passes {
        self.enlisted.as_ref().map(Enlisted::passes).unwrap_or_default()
    }

    #[cold]
    fn wait_for_one(self) -> Result<Held, Box<AcquireError>> {
        self.wait().map(the_one).map_err(Box::new)
    }

    pub(crate) fn wait(mut self) -> Result<Holds, AcquireError> {
        loop {
            match self.look(Patience::GiveWay)? {
                Turn::Mine => return Ok(self.into_holds()),
                Turn::LookAgain => {}
                Turn::Wait(listener) => listener.wait(),
            }
        }
    }

    pub(crate) fn wait_until(mut self, deadline: Instant) -> Result<Holds, AcquireError> {
        loop {
            match self.look(Patience::Spin)? {
                Turn::Mine => return Ok(self.into_holds()),
                // Others who get on can make it look again and again.
                Turn::LookAgain if Instant::now() >= deadline => return Err(AcquireError::TimedOut),
                Turn::LookAgain => {}
                Turn::Wait(listener) => {
                    if listener.wait_until(deadline) == Woken::TimedOut {
                        return Err(AcquireError::TimedOut);
                    }
                }
            }
        }
    }

    /// Ready when the request is granted, and the waiter is to be made into its [`Holds`]; or refused, and the waiter is to be dropped.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), AcquireError>> {
        loop {
            if let Some(listener) = &mut self.listener {
                ready!(listener.poll(context));
                self.listener = None;
            }
            match self.look(Patience::None)? {
                Turn::Mine => return Poll::Ready(Ok(())),
                Turn::LookAgain => {}
                Turn::Wait(listener) => self.listener = Some(listener),
            }
        }
    }

    /// What a waiter becomes when [`Waiter::poll`] has said that it is granted.
    pub(crate) fn into_holds(self) -> Holds {
        let Waiter { parts, clock, enlisted, .. } = self;
        drop(enlisted);
        let holds: Holds = parts.into_parts().into_iter().map(|part| Held(part.live)).collect();
        holds.iter().for_each(|_| observe::acquired());
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

/// What the owner of `ask` holds itself of these bytes in a mode that conflicts. Lock-free: if it looks again, a hold of this lock has been converted.
#[cold]
pub(crate) fn own_conflict(space: &Space, ask: &Ask) -> Option<(ByteRange, Mode)> {
    let query = Query { whose: Whose::Own, ..ask.query() };
    space.look_at_rest(|tree| {
        let mut found = None;
        own_holds(tree, &query, |seen| found = Some(what(seen)));
        found
    })
}

/// The holds that meet this one and that its owner had when it asked for it. Lock-free, as [`own_conflict`].
#[cold]
pub(crate) fn holds_around(space: &Space, held: &Held) -> SmallVec<[(ByteRange, Mode); 1]> {
    let Some(ask) = held.ask() else { return SmallVec::new() };
    let query = Query { whose: Whose::Own, against: Mode::Exclusive.against(), ..ask.query() };
    space.look_at_rest(|tree| {
        let mut found = SmallVec::new();
        own_holds(tree, &query, |seen| {
            if seen.order() < ask.entry.order {
                found.push(what(seen));
            }
        });
        found
    })
}

/// Visits the holders that `query`, which is about an owner's own requests, finds. A token may be about to ask for something on another thread: that
/// is no hold yet.
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

/// Every live request. Lock-free, as [`own_conflict`].
pub(crate) fn rows(space: &Space) -> Vec<Row> {
    space.look_at_rest(|tree| {
        let mut rows = Vec::new();
        survey(tree, |seen| rows.push(row(seen)));
        rows
    })
}

fn row(seen: &Seen<'_>) -> Row {
    let (start, last) = seen.range();
    let owner = OwnerId::from_slot(seen.owner());
    let place = seen.ticket().map(|ticket| {
        let passes = cycle::passes_of(owner, ticket).to_vec();
        Place { ticket, age: owner::age_of(ticket), passes }
    });
    let came = if seen.word().is_granted() { Came::Holds } else { Came::At(seen.order()) };
    Row { start, last, mode: Mode::from_bit(seen.mode()), owner, came, place }
}

/// Visits every live request. Not a picture of one moment: some come and go meanwhile.
pub(crate) fn survey(tree: &Tree, mut visit: impl FnMut(&Seen<'_>)) {
    // No owner has the id 0: all are others.
    let against = Mode::Exclusive.against();
    let everything = Query { start: 0, last: u64::MAX, against, owner: 0, whose: Whose::Others };
    let _ = tree.scan(&everything, None, &LazyPin::new(), |seen| {
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
