//! Every live slot that meets a range.
//!
//! A scan looks at the nodes whose spans meet the range: one path from the root, then the subtrees inside the range,
//! and the chains of all of these. At each node it ORs the state words first; as long as no mode there concerns it, no
//! record is read.
//!
//! # Who waits
//! Thousands can wait for the same bytes, in a chain: whoever looks whether it is its turn shall not look at all of
//! them ([`Tree::scan_ahead`]).
//!
//! - *What is behind it* it passes over. Chains grow at the front. Once it has looked, with its ticket, through the
//!   nodes that are newer than its own, and found nobody in front of it there, it begins at its own node
//!   ([`Scope::Behind`]).
//! - *What has gone* it takes out: vacant nodes of a chain, far from where newcomers look for a slot. So each is come
//!   by once.
//! - *What is far in front* can wait. Whoever is in front of it keeps it from being granted, and any of them will do to
//!   sleep on; the last of them is best, and that one is near, as who came late is near the front of the chain. So it
//!   breaks off when it has found many in the queue, and some nodes none that came later ([`Extent::Part`]).
//!
//! **Why nobody in front is missed by who begins at its own node (T5).** Let W be the one who waits, with ticket t, and
//! L its look through the newer nodes, with the ticket. Let Z be in conflict with W and in one of these nodes, later.
//! If L saw Z, Z was behind W, and stays so: a ticket does not change, and who is PENDING with a stamp that is not
//! below t is behind W (O1). If L did not see Z, then Z published behind L's load of its slot, or of the link to its
//! node. So Z's fence came behind W's, and Z's scan finds W (the header of [`tree`](super)), for as long as W waits: Z
//! queues or leaves. Its ticket is higher than t. For if Z had drawn first, W, which drew before L, would have had Z's
//! publication from the counter (AcqRel), and L would have seen it. So Z is not granted before W has gone, but in two
//! ways: it is let past W, or it is the second slot of a hold. Both make W look again before it is granted (RESCAN),
//! and then, behind its own CAS, it looks everywhere. In a lock with a window there is a third: newcomers pass W for as
//! long as it yields, wherever they are. So W looks everywhere each time that it yields, and again behind its closing.

use super::node::{Node, SLOTS};
use super::place::REACH;
use super::slot::{Own, Parts, Placed, Reading, Slot, Word};
use super::{Room, Tree, steps};
use crate::platform::reclaim::{LazyPin, Pin};
use smallvec::SmallVec;
use std::cell::Cell;
use std::ops::ControlFlow;

/// What a scan looks for: live requests in one of the modes `against` that meet `start..=last`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query<'a> {
    pub(crate) start: u64,
    pub(crate) last: u64,
    /// The bits of the modes looked for.
    pub(crate) against: u64,
    pub(crate) owner: u64,
    pub(crate) whose: Whose<'a>,
}

/// Of which owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose<'a> {
    /// Of all but the query's.
    Others,
    /// Of the query's only.
    Own,
    /// Of all but the query's, and none who yields: their records are not read, and the cell says in the end whether
    /// somebody of these may be in the way.
    OthersWhoInsist(&'a Cell<bool>),
}

/// Where somebody in front of a waiting request can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Everywhere.
    All,
    /// Everywhere but in nodes of its own chain that are newer than its own node.
    Behind,
}

/// What a waiting request says of one that its scan came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    /// It is not in front.
    Behind,
    /// It is in front, and holds, or is as good as a holder.
    Holder,
    /// It is in front in the queue.
    Ahead,
    /// The same, and behind all others that were found so far.
    Next,
}

/// How much of what is in front a scan has looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    All,
    /// Enough to know that there are many.
    Part,
}

/// So many in the queue are many.
const MANY: usize = if cfg!(any(loom, spanlock_shuttle)) { 2 } else { 32 };

/// Vacant nodes of a chain that who waits leaves behind its own, for those who come and go.
const SPARED: usize = if cfg!(any(loom, spanlock_shuttle)) { 0 } else { REACH };

/// What a scan of who waits has found so far.
#[derive(Default)]
struct Tally {
    /// Requests in front of it in the queue.
    queued: Cell<usize>,
    /// Whether anybody is in front in the node that it looks at.
    is_here: Cell<bool>,
    /// Whether the last one of the queue is there.
    is_next_here: Cell<bool>,
    is_part: Cell<bool>,
}

impl Tally {
    fn count(&self, rank: Rank) {
        self.is_here.set(self.is_here.get() || rank != Rank::Behind);
        self.is_next_here.set(self.is_next_here.get() || rank == Rank::Next);
        self.queued.set(self.queued.get() + usize::from(matches!(rank, Rank::Ahead | Rank::Next)));
    }

    /// It may break off here, if it has found many.
    fn may_end(&self) -> bool {
        let may_end = self.queued.get() >= MANY;
        self.is_part.set(self.is_part.get() || may_end);
        may_end
    }
}

/// A request that a scan found, as it was when the scan read it. It can be watched for as long as the pin lasts.
pub(crate) struct Seen<'t, R> {
    node: &'t Node<R>,
    index: usize,
    reading: Reading,
}

impl<R> Clone for Seen<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Seen<'_, R> {}

impl<'t, R: Room> Seen<'t, R> {
    pub(super) fn new(node: &'t Node<R>, index: usize, reading: Reading) -> Seen<'t, R> {
        Seen { node, index, reading }
    }

    pub(super) fn slot(&self) -> Slot<'t> {
        self.node.slot(self.index)
    }

    /// The state that was evaluated.
    pub(crate) fn word(&self) -> Word {
        self.reading.word
    }

    /// Its place in the queue, if it waits.
    pub(crate) fn ticket(&self) -> Option<u64> {
        self.reading.word.is_queued().then_some(self.reading.order)
    }

    pub(crate) fn owner(&self) -> u64 {
        self.reading.owner
    }

    /// When it came: see [`crate::facts::owner`].
    pub(crate) fn order(&self) -> u64 {
        self.reading.order
    }

    /// Its bytes, inclusive.
    pub(crate) fn range(&self) -> (u64, u64) {
        (self.reading.start, self.reading.last)
    }

    /// The bit of its mode.
    pub(crate) fn mode(&self) -> u64 {
        self.reading.word.mode()
    }

    pub(super) fn node(&self) -> &'t Node<R> {
        self.node
    }

    pub(super) fn room_index(&self) -> usize {
        self.index
    }

    /// The waiting side's part of its node, and which slot there is meant.
    pub(crate) fn room(&self) -> (&'t R, usize) {
        (self.node.room(), self.index)
    }
}

impl<R: Room, T> Tree<R, T> {
    /// Visits every request that `query` is about, but for the caller's `own`, until `visit` breaks off.
    ///
    /// A request whose publication (and fence) came before the caller's own fence is visited, if it is still there. Of
    /// one that comes or goes meanwhile nothing is promised.
    #[inline(always)]
    pub(crate) fn scan<'t>(
        &'t self,
        query: &Query,
        own: Option<Own<R>>,
        pin: &'t LazyPin,
        mut visit: impl FnMut(Seen<'t, R>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        look(&self.root, query, own, &mut visit)?;
        if self.root.is_alone() {
            return ControlFlow::Continue(());
        }
        self.scan_from(&self.root, query, own, pin, &mut visit)
    }

    /// The part of a scan beyond the slots of `node`, which covers the range: down the path as long as the nodes cover
    /// it, then everything below.
    pub(super) fn scan_from<'t>(
        &'t self,
        mut node: &'t Node<R>,
        query: &Query,
        own: Option<Own<R>>,
        pin: &'t LazyPin,
        visit: &mut impl FnMut(Seen<'t, R>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let pin = pin.get();
        let mut above = own;
        while let Some(cell) = node.cell_around(query.start, query.last) {
            look_along_chain(node, query, own, pin, visit)?;
            let Some(child) = node.child(cell).load_if(query.against).node(pin) else {
                return ControlFlow::Continue(());
            };
            if !child.meets(query.start, query.last) {
                return ControlFlow::Continue(());
            }
            self.going_down_to(child, &mut above);
            look(child, query, own, visit)?;
            node = child;
            if !child.covers(query.start, query.last) {
                break;
            }
        }
        self.look_below(node, query, own, above, pin, visit)
    }

    /// Visits what there is beyond the slots of `node`: its chain, and all subtrees that meet the range.
    fn look_below<'t>(
        &'t self,
        node: &'t Node<R>,
        query: &Query,
        own: Option<Own<R>>,
        mut above: Option<Own<R>>,
        pin: &'t Pin,
        visit: &mut impl FnMut(Seen<'t, R>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut rest: SmallVec<[&Node<R>; 16]> = SmallVec::new();
        let mut next = Some(node);
        while let Some(node) = next {
            look_along_chain(node, query, own, pin, visit)?;
            let first = node.cell_of(query.start.max(node.base()));
            let last = node.cell_of(query.last.min(node.last()));
            for link in &node.children()[first..=last] {
                let Some(child) = link.load_if(query.against).node(pin) else { continue };
                if !child.meets(query.start, query.last) {
                    continue;
                }
                self.going_down_to(child, &mut above);
                look(child, query, own, visit)?;
                rest.push(child);
            }
            next = rest.pop();
        }
        ControlFlow::Continue(())
    }
}

/// For those who wait.
impl<R: Room, T> Tree<R, T> {
    /// Visits who may be in front of a queued request, in `placed`: not all of them, if there are many. `rank` says
    /// what each is; `scope`, where any of them can be, as an earlier scan with the same ticket has left it. It is to
    /// be `All` again if the request was made to look again (RESCAN).
    pub(crate) fn scan_ahead<'t>(
        &'t self,
        query: &Query,
        placed: &'t Placed<R>,
        scope: &mut Scope,
        pin: &'t LazyPin,
        mut rank: impl FnMut(Seen<'t, R>) -> Rank,
    ) -> Extent {
        let (own, tally) = (placed.own(placed.mode()), Tally::default());
        let mut visit = |seen| {
            tally.count(rank(seen));
            ControlFlow::Continue(())
        };
        let _ = look(&self.root, query, Some(own), &mut visit);
        if self.root.is_alone() {
            return Extent::All;
        }
        let mut above = Some(own);
        let mut rest: SmallVec<[&Node<R>; 16]> = SmallVec::new();
        let mut next = Some(&self.root);
        while let Some(node) = next {
            self.look_along_chain_ahead(node, query, placed, scope, pin, &tally, &mut visit);
            let first = node.cell_of(query.start.max(node.base()));
            let last = node.cell_of(query.last.min(node.last()));
            for link in &node.children()[first..=last] {
                let Some(child) = link.load_if(query.against).node(pin.get()) else { continue };
                if !child.meets(query.start, query.last) {
                    continue;
                }
                // On the way down to its own node it goes on: the last of the queue may be there.
                if own.is_above(child) && tally.may_end() {
                    return Extent::Part;
                }
                self.going_down_to(child, &mut above);
                let _ = look(child, query, Some(own), &mut visit);
                rest.push(child);
            }
            next = rest.pop();
        }
        if tally.is_part.get() { Extent::Part } else { Extent::All }
    }

    #[allow(clippy::too_many_arguments)]
    fn look_along_chain_ahead<'t>(
        &'t self,
        head: &'t Node<R>,
        query: &Query,
        placed: &'t Placed<R>,
        scope: &mut Scope,
        pin: &'t LazyPin,
        tally: &Tally,
        visit: &mut impl FnMut(Seen<'t, R>) -> ControlFlow<()>,
    ) {
        let own = placed.own(placed.mode());
        let home = placed.node();
        let mut before = head;
        // Whether it is among the nodes that are newer than its own. (If its own has taken the place of the one that it
        // was chained to, all of the chain is older.)
        let mut is_newer = home.has_span_of(head) && !own.is_in(head);
        if is_newer && *scope == Scope::Behind {
            is_newer = false;
            before = home;
            let _ = look(home, query, Some(own), visit);
        }
        let (mut is_clear, mut since_next, mut vacant) = (true, 0, 0);
        loop {
            let target = before.overflow().load_if(query.against);
            let Some(node) = target.node(pin.get()) else { break };
            tally.is_here.set(false);
            tally.is_next_here.set(false);
            let _ = look(node, query, Some(own), visit);
            if is_newer {
                if own.is_in(node) {
                    narrow(scope, is_clear);
                    is_newer = false;
                }
                is_clear &= !tally.is_here.get();
                before = node;
                continue;
            }
            since_next = if tally.is_next_here.get() { 0 } else { since_next + 1 };
            if since_next >= REACH && tally.may_end() {
                return;
            }
            // Its own node is not vacant.
            if node.is_vacant() {
                vacant += 1;
                if vacant > SPARED && self.remove_chained(before, target, node, pin.get()) {
                    continue;
                }
            }
            before = node;
        }
        if is_newer {
            // What is behind a link that does not carry the modes in its way is in nobody's way.
            narrow(scope, is_clear);
        }
    }
}

/// The nodes that are newer than its own have been looked at: from now on they need not be, if nobody in front of it is
/// there.
fn narrow(scope: &mut Scope, is_clear: bool) {
    if is_clear {
        *scope = Scope::Behind;
    }
}

#[inline]
pub(super) fn look_along_chain<'t, R: Room>(
    node: &'t Node<R>,
    query: &Query,
    own: Option<Own<R>>,
    pin: &'t Pin,
    visit: &mut impl FnMut(Seen<'t, R>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    node.chain_against((query.start, query.last), query.against, pin)
        .try_for_each(|chained| look(chained, query, own, visit))
}

/// Visits what there is in the slots of one node.
#[inline(always)]
fn look<'t, R: Room>(
    node: &'t Node<R>,
    query: &Query,
    own: Option<Own<R>>,
    visit: &mut impl FnMut(Seen<'t, R>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    steps::add(1);
    let own = own.filter(|own| own.is_in(node));
    let Some(parts) = node.unclear(query.start, query.last, query.against, own.map(|own| own.mode())) else {
        return ControlFlow::Continue(());
    };
    look_closer(node, query, parts, own.map(|own| own.index()), visit)
}

/// Visits what there is in the slots of a node, of whose span the range touches `parts`.
#[inline(never)]
pub(super) fn look_closer<'t, R: Room>(
    node: &'t Node<R>,
    query: &Query,
    parts: Parts,
    own: Option<usize>,
    visit: &mut impl FnMut(Seen<'t, R>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    steps::add(SLOTS);
    let some_yield = match query.whose {
        Whose::OthersWhoInsist(some_yield) => Some(some_yield),
        Whose::Others | Whose::Own => None,
    };
    if let Some(some_yield) = some_yield {
        if !node.has_insisting(query.against, own) {
            some_yield.set(true);
            return ControlFlow::Continue(());
        }
    }
    for index in 0..SLOTS {
        let slot = node.slot(index);
        if !slot.may_be_in_the_way(parts, query.against) || Some(index) == own {
            continue;
        }
        match some_yield {
            Some(some_yield) if slot.yields() => some_yield.set(true),
            _ => match slot.read(query.start, query.last, parts, query.against) {
                Some(reading) if (reading.owner == query.owner) == (query.whose == Whose::Own) => {
                    visit(Seen { node, index, reading })?;
                }
                _ => {}
            },
        }
    }
    ControlFlow::Continue(())
}
