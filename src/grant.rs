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
//!    woken to look again: it may be in front now.
//! 3. A queued request waits for the conflicting ones that are PENDING, GRANTED, or QUEUED with a lower ticket. So waits lead from higher
//!    to lower tickets or to a grant, and form no cycle. A newcomer is PENDING in front of it at most once.
//! 4. It sleeps on *one* of these, the one with the highest ticket (a holder if none is queued): a chain of exclusive waiters is woken
//!    one at a time, each by the one before it. Woken, it scans again, in full.
//! 5. No blocker left: QUEUED -> GRANTED by CAS, unless RESCAN was set; then it scans again.
//! 6. Release and cancel are one step: free the slot, wake who waited for it.
//!
//! # Invariants
//! - INV-G1: a live request's slot is freed exactly once, by dropping its [`Live`].
//! - INV-G2: nobody parks, and no waker is called, while pinned. This is the only room that pins.
//! - INV-G3: who parks has listened, and has then set WAITERS in the very word that made it wait.
//!
//! # Source
//! Tickets and "wait for the earlier conflicting requests, held or waiting, and nothing else": Kara's and Bueso's range lock
//! patches for Linux. Publish and scan: Lamport's bakery. The terms are those of group mutual exclusion.

use crate::mode::Mode;
use crate::owner::{self, OwnerId, Visitor};
use crate::range::ByteRange;
use crate::reclaim::LazyPin;
use crate::tree::{self, Entry, Grant, Own, Placed, Query, Room, SLOTS, Word};
use crate::wait::{self, Events, Listener, Woken};
use std::ops::ControlFlow::{Break, Continue};
use std::task::{Context, Poll, ready};
use std::time::Instant;

/// The events of one node's slots.
pub(crate) type Bells = Events<SLOTS>;
pub(crate) type Tree = tree::Tree<Bells>;
type Seen<'t> = tree::Seen<'t, Bells>;

impl Room for Bells {
    fn slot_changed(&self, index: usize) {
        self.notify(index);
    }
}

/// What is asked for: a range that is not empty, a mode, an owner.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    entry: Entry,
    query: Query,
}

impl Ask {
    #[inline]
    pub(crate) fn new(range: ByteRange, mode: Mode, owner: OwnerId) -> Ask {
        let (start, last) = range.bounds();
        let owner = owner.get();
        Ask {
            entry: Entry { start, last, mode: mode.bit(), owner },
            query: Query { start, last, against: mode.against(), owner },
        }
    }

    /// Whether no live request of another owner is in the way.
    #[inline]
    fn is_clear(&self, tree: &Tree, own: Option<Own<Bells>>, pin: &LazyPin) -> bool {
        tree.scan(&self.query, own, pin, |_| Break(())).is_continue()
    }
}

/// Ends a pin, and only then wakes whoever waited for a slot that was given up under it: a waker is foreign code.
#[inline]
fn unpin(pin: LazyPin) {
    let owes = pin.owes_wakes();
    drop(pin);
    if owes {
        wait::deliver();
    }
}

/// A published request. Dropping it is the release, or the cancellation.
struct Live(Placed<Bells>);

impl Live {
    /// # Safety
    /// As for [`Tree::place`]: the tree stays where it is for as long as the `Live` lives.
    #[inline]
    unsafe fn publish(tree: &Tree, ask: &Ask, visitor: Visitor, pin: &LazyPin) -> Live {
        // SAFETY: the caller's promise, word by word.
        Live(unsafe { tree.place(&ask.entry, visitor, pin) })
    }

    #[cold]
    fn free_and_wake(&self) {
        let pin = LazyPin::new();
        // Pinned *before* the slot is freed: from then on the node may be pruned, and the wake-up needs it.
        self.0.free(pin.get());
        drop(pin);
        wait::deliver();
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
pub(crate) struct Held(Live);

impl Held {
    /// What is held when the range is empty: nothing.
    pub(crate) fn nothing(mode: Mode) -> Held {
        Held(Live(Placed::nowhere(mode.bit())))
    }

    pub(crate) fn range(&self) -> ByteRange {
        self.0.0.range().map_or(ByteRange::EMPTY, |(start, last)| ByteRange::new(start..=last))
    }

    pub(crate) fn mode(&self) -> Mode {
        Mode::from_bit(self.0.0.mode())
    }

    /// The state word, for `Debug`; `None` if nothing is held.
    pub(crate) fn word(&self) -> Option<Word> {
        self.0.0.word()
    }
}

/// Waits until the range is granted.
///
/// # Safety
/// The tree is neither moved nor dropped while the `Held` lives.
#[inline]
pub(crate) unsafe fn acquire(tree: &Tree, ask: &Ask, visitor: Visitor) -> Held {
    let pin = LazyPin::new();
    // SAFETY: the caller's promise, word by word.
    let live = unsafe { Live::publish(tree, ask, visitor, &pin) };
    let clear = ask.is_clear(tree, Some(live.0.own(ask.entry.mode)), &pin);
    unpin(pin);
    if clear { Held(live) } else { Waiter::queue(live, ask).wait(tree) }
}

/// Waits until the range is granted or `deadline` has passed.
///
/// # Safety
/// As for [`acquire`].
pub(crate) unsafe fn acquire_until(tree: &Tree, ask: &Ask, visitor: Visitor, deadline: Instant) -> Option<Held> {
    if deadline <= Instant::now() {
        // SAFETY: the caller's promise, word by word.
        return unsafe { try_acquire(tree, ask, visitor) };
    }
    // SAFETY: the caller's promise, word by word.
    match unsafe { enter(tree, ask, visitor) } {
        Doorway::Granted(held) => Some(held),
        Doorway::Queued(waiter) => waiter.wait_until(tree, deadline),
    }
}

/// Grants the range if no live request of another owner is in the way: held, waiting or just arriving.
///
/// # Safety
/// As for [`acquire`].
pub(crate) unsafe fn try_acquire(tree: &Tree, ask: &Ask, visitor: Visitor) -> Option<Held> {
    let pin = LazyPin::new();
    // A look first, so that one who tries in a loop publishes nothing that others would have to wait for.
    if !ask.is_clear(tree, None, &pin) {
        return None;
    }
    // SAFETY: the caller's promise, word by word.
    let live = unsafe { Live::publish(tree, ask, visitor, &pin) };
    let clear = ask.is_clear(tree, Some(live.0.own(ask.entry.mode)), &pin);
    unpin(pin);
    clear.then(|| Held(live))
}

/// How a request leaves its doorway.
pub(crate) enum Doorway {
    Granted(Held),
    Queued(Waiter),
}

/// The doorway: publish, scan, and queue if somebody is in the way.
///
/// # Safety
/// As for [`acquire`], and for the `Waiter` too.
pub(crate) unsafe fn enter(tree: &Tree, ask: &Ask, visitor: Visitor) -> Doorway {
    let pin = LazyPin::new();
    // SAFETY: the caller's promise, word by word.
    let live = unsafe { Live::publish(tree, ask, visitor, &pin) };
    let clear = ask.is_clear(tree, Some(live.0.own(ask.entry.mode)), &pin);
    unpin(pin);
    if clear { Doorway::Granted(Held(live)) } else { Doorway::Queued(Waiter::queue(live, ask)) }
}

/// A queued request. Dropping it gives the place in the queue up.
pub(crate) struct Waiter {
    /// Where a future sleeps.
    listener: Option<Listener>,
    live: Live,
    ask: Ask,
    ticket: u64,
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

/// Whether a waiter may spin before it listens: a thread may, a future must not hold its executor up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    Spin,
    None,
}

impl Waiter {
    #[cold]
    fn queue(live: Live, ask: &Ask) -> Waiter {
        live.0.start_queuing();
        let ticket = owner::next_ticket();
        live.0.queue(ticket);
        wait::deliver();
        Waiter { listener: None, live, ask: *ask, ticket }
    }

    /// The blocker that must go last before this request can be granted: the queued one with the highest ticket below its own, or
    /// else a holder.
    fn nearest_blocker<'t>(&self, tree: &'t Tree, pin: &'t LazyPin) -> Option<Seen<'t>> {
        let mut nearest: Option<Seen<'t>> = None;
        let _ = tree.scan(&self.ask.query, Some(self.live.0.own(self.ask.entry.mode)), pin, |seen| {
            let behind_me = seen.ticket().is_some_and(|ticket| ticket > self.ticket);
            // `None`, a holder, is less than any ticket.
            if !behind_me && nearest.as_ref().is_none_or(|nearest| seen.ticket() >= nearest.ticket()) {
                nearest = Some(seen);
            }
            Continue(())
        });
        nearest
    }

    fn look(&self, tree: &Tree, patience: Patience) -> Turn {
        let pin = LazyPin::new();
        let Some(blocker) = self.nearest_blocker(tree, &pin) else {
            return match self.live.0.grant() {
                Grant::Granted => Turn::Mine,
                Grant::LookAgain => Turn::LookAgain,
            };
        };
        // Only behind a holder: who has others in front would spin in vain, and hold up those others.
        let next_in_line = blocker.ticket().is_none();
        if patience == Patience::Spin && next_in_line && wait::spin_until(|| blocker.has_changed()) {
            return Turn::LookAgain;
        }
        // Listen first, then ask to be told (INV-G3).
        let (bells, index) = blocker.room();
        let listener = bells.listen(index);
        let will_hear = blocker.ask_for_wake();
        // Before the listener goes, which may wake others.
        drop(pin);
        if will_hear { Turn::Wait(listener) } else { Turn::LookAgain }
    }

    #[cold]
    fn wait(self, tree: &Tree) -> Held {
        loop {
            match self.look(tree, Patience::Spin) {
                Turn::Mine => return Held(self.live),
                Turn::LookAgain => {}
                Turn::Wait(listener) => listener.wait(),
            }
        }
    }

    fn wait_until(self, tree: &Tree, deadline: Instant) -> Option<Held> {
        loop {
            match self.look(tree, Patience::Spin) {
                Turn::Mine => return Some(Held(self.live)),
                // Newcomers that come and go can make it look again and again.
                Turn::LookAgain if Instant::now() >= deadline => return None,
                Turn::LookAgain => {}
                Turn::Wait(listener) => {
                    if listener.wait_until(deadline) == Woken::TimedOut {
                        return None;
                    }
                }
            }
        }
    }

    /// Ready when the range is granted: the waiter is then to be made into its [`Held`].
    pub(crate) fn poll(&mut self, tree: &Tree, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(listener) = &mut self.listener {
                ready!(listener.poll(context));
                self.listener = None;
            }
            match self.look(tree, Patience::None) {
                Turn::Mine => return Poll::Ready(()),
                Turn::LookAgain => {}
                Turn::Wait(listener) => self.listener = Some(listener),
            }
        }
    }

    /// What a waiter becomes when [`Waiter::poll`] has said `Ready`.
    pub(crate) fn into_held(self) -> Held {
        Held(self.live)
    }
}

/// What models do with a queued request, step by step.
#[cfg(all(test, loom))]
impl Waiter {
    pub(crate) fn finish(self, tree: &Tree) -> Held {
        self.wait(tree)
    }

    pub(crate) fn finish_until(self, tree: &Tree, deadline: Instant) -> Option<Held> {
        self.wait_until(tree, deadline)
    }
}

/// How many requests hold and how many wait, at some moment of the call.
pub(crate) fn count(tree: &Tree) -> (usize, usize) {
    let everything = Query { start: 0, last: u64::MAX, against: Mode::Exclusive.against(), owner: 0 };
    let (mut holding, mut waiting) = (0, 0);
    let _ = tree.scan(&everything, None, &LazyPin::new(), |seen| {
        match seen.ticket() {
            Some(_) => waiting += 1,
            None => holding += 1,
        }
        Continue(())
    });
    (holding, waiting)
}

/// Nodes of the tree that are on the heap.
pub(crate) fn heap_nodes(tree: &Tree) -> usize {
    tree.heap_nodes(LazyPin::new().get())
}

/// Removes every node that is not in use.
pub(crate) fn trim(tree: &Tree) {
    tree.trim(&LazyPin::new());
}
