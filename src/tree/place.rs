//! Where a request goes: descend, claim a slot; and grow, where a node is full or shared.
//!
//! # Growth
//! A node gets a child for a cell, so that the *next* request there goes deeper, in two cases.
//!
//! - *Full.* No slot is free. The child's span is the smallest that holds the range and the other live ranges in its
//!   cell. Such nodes follow the live ranges.
//! - *Shared.* Two threads use the node and could use two. This is looked at after one of 32 claims of a slot. Failed
//!   CASes are no measure (two threads that start at different slots rarely fail one, and still fight over the lines),
//!   and a neighbour who only holds does no harm. So each sampled acquire leaves its thread's mark in its node; if
//!   threads take turns in leaving marks there, it is shared. It is so, too, if there are nodes below: who stays above
//!   writes a line that every scan through it reads.
//!
//! A child for threads has to pay. So at least half of the others whose records are in the node must work outside of
//! its span, and unless that is a whole cell, the thread must have been within it when it looked last ([`apart`]). It
//! must not be in the way of others, who ask for more than a part of it ([`is_broad`]). And there are only so many for
//! each thread at work ([`super::quota`]): threads that ask everywhere end with a partition of the part of the space
//! that they use, and leave it alone from then on.
//!
//! Threads that go the same way, as at the tail of a file, would meet again in each child. Whoever is found [going
//! along](goes_along) with others, look after look, gets a node for the *class* of its page (of eight, `slot`) in the
//! chain of the node that they share; so do threads that fill a node all by themselves. They go round these nodes
//! together, and two seldom are in one at the same time: each claim takes a line that somebody has left some pages ago,
//! and nobody else reads it. Who asks for pages of several classes stays in the node itself, and looks at the nodes of
//! these classes too (INV-N6 in `node`).
//!
//! If a child is there but does not cover the range, a node that covers both is spliced in above it, by one CAS; the
//! old child keeps working. A range that crosses the borders of its cells cannot go down; when the node is full it
//! takes a slot of the node's chain: of the first few nodes there, or of a new one in front of them. So a frozen one at
//! the end delays nobody, nor do thousands that are full.
//!
//! Threads that share a node with ranges that cannot go down, in a mode that goes with itself, get nodes of their own
//! in its chain: whole-file adders then neither write nor read one another's lines.

use super::node::{CELL_BITS, CHAINED_BY_CLASS, Link, Node, Occupied, SLOTS, Target};
use super::places::{self, MOST_ALONG};
use super::slot::{Classes, Entry, GRAIN_SHIFT, Placed, Slot};
use super::{Room, Tree, steps};
use crate::facts::mode::Mode;
use crate::facts::owner::{self, OwnerId, Visitor};
use crate::platform::reclaim::{LazyPin, Pin};
use crate::watching::telemetry;
use smallvec::SmallVec;
use std::ptr;

/// Nodes of a chain that a thread looks through for its own. A chain of as many gets no more for threads, only for
/// requests that find no room.
const WITHIN_REACH: usize = 32;

/// log2 of the bytes in the cells of a node that is cut by class when it is full: what is smaller, threads have soon
/// left behind.
const WORTH_A_CUT: u32 = GRAIN_SHIFT + 6;

/// Nodes below its own that a request looks at, from which on it is a broad one.
const BROAD: usize = 4;

/// Nodes of a chain that are tried for a free slot. Others are ahead of a new one in the chain, and run empty.
pub(super) const REACH: usize = if cfg!(any(loom, spanlock_shuttle)) { 2 } else { 4 };

/// Why a child is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    Full,
    Shared,
}

/// Where a request's descent ended.
struct Spot<'t, R> {
    node: &'t Node<R>,
    /// Links between the root and `node`.
    depth: usize,
    /// The cell that a child for the request would be in; `None` if it cannot go down.
    cell: Option<usize>,
}

impl<R: Room, T> Tree<R, T> {
    /// Publishes a request (PENDING), behind a full fence. From then on every scan that follows a full fence sees it.
    ///
    /// # Safety
    /// The tree is neither moved nor dropped while the `Placed` is used.
    pub(crate) unsafe fn place(&self, entry: &Entry, visitor: Visitor, pin: &LazyPin) -> Placed<R> {
        let in_root = if self.root.is_alone() { self.root.occupy(entry, visitor.home()) } else { None };
        let placed = match in_root {
            Some(index) => Placed::new(&self.root, index),
            None => self.place_below(entry, visitor, pin),
        };
        if placed.is_due() {
            self.sample(entry, visitor, pin);
        }
        placed
    }

    /// The common case below the root: the deepest node has room.
    fn place_below(&self, entry: &Entry, visitor: Visitor, lazy: &LazyPin) -> Placed<R> {
        let pin = lazy.get();
        let mut node = &self.root;
        while let Some((_, _, child)) = node.way_down(entry, pin) {
            node = child;
        }
        match node.occupy_unless_frozen(entry, visitor.home(), pin) {
            Occupied::Slot(index) => Placed::new(node, index),
            Occupied::Full | Occupied::Frozen => {
                // A withdrawal from a frozen node notifies.
                lazy.owe_wakes();
                self.make_room(node, entry, visitor, pin)
            }
        }
    }

    /// The deepest node that covers the range, at most `limit` links below the root.
    fn descend<'t>(&'t self, entry: &Entry, limit: usize, pin: &'t Pin) -> Spot<'t, R> {
        let mut spot = Spot { node: &self.root, depth: 0, cell: None };
        loop {
            spot.cell = match spot.node.cell_around(entry.start, entry.last) {
                Some(cell) if spot.depth < limit => Some(cell),
                _ => None,
            };
            if spot.cell.is_none() {
                return spot;
            }
            let Some((_, _, child)) = spot.node.way_down(entry, pin) else {
                spot.cell = spot.cell.filter(|_| spot.node.can_have_children());
                return spot;
            };
            spot.node = child;
            spot.depth += 1;
        }
    }

    /// The rest: nodes that are full, or being removed, as `tried` is.
    #[cold]
    pub(super) fn make_room(&self, tried: &Node<R>, entry: &Entry, visitor: Visitor, pin: &Pin) -> Placed<R> {
        // How deep it may go: a node that is being removed pushes the request up above itself. It only falls, and the
        // root is never frozen; so each round but the last was made necessary by another thread's progress (INV-P1).
        let mut limit = usize::MAX;
        let mut tried = Some(tried).filter(|tried| !tried.is_frozen());
        loop {
            let spot = self.descend(entry, limit, pin);
            let node = spot.node;
            if !tried.take().is_some_and(|tried| ptr::eq(tried, node)) {
                match node.occupy_unless_frozen(entry, visitor.home(), pin) {
                    Occupied::Slot(index) => return Placed::new(node, index),
                    Occupied::Frozen => {
                        limit = spot.depth - 1;
                        continue;
                    }
                    Occupied::Full => {}
                }
            }
            if let Some(cell) = spot.cell {
                if let Some(placed) = self.place_by_class(node, entry, visitor, pin) {
                    return placed;
                }
                if node.child(cell).load().is_frozen() {
                    limit = spot.depth - 1;
                } else {
                    self.grow(
                        node,
                        cell,
                        entry,
                        together(node, cell, entry, |slot| slot.is_live_now()),
                        Why::Full,
                        pin,
                    );
                }
                continue;
            }
            if let Some(placed) = self.place_in_chain(node, entry, visitor, pin) {
                return placed;
            }
            if node.overflow().load().is_frozen() {
                limit = spot.depth - 1;
            }
        }
    }

    /// A slot in the node for the class of `entry` that is chained to `node`, which is full. It is made now, if all who
    /// are there are threads, which would fill one child after the other where they go on together.
    fn place_by_class(&self, node: &Node<R>, entry: &Entry, visitor: Visitor, pin: &Pin) -> Option<Placed<R>> {
        self.shape.quota.note(visitor);
        let of_its_class = node.of_its_class(entry, pin).or_else(|| {
            if node.cell_shift() >= WORTH_A_CUT && is_full_of_threads(node) && self.shape.quota.has_room(true) {
                self.part_by_class(node, entry, pin);
            }
            node.of_its_class(entry, pin)
        })?;
        match of_its_class.occupy_unless_frozen(entry, visitor.home(), pin) {
            Occupied::Slot(index) => Some(Placed::new(of_its_class, index)),
            Occupied::Full | Occupied::Frozen => None,
        }
    }

    /// A slot in one of the first nodes chained to `node`. `None`: there is none, and a new node is in front of them,
    /// or somebody else changed the front of the chain meanwhile.
    ///
    /// Not in any of them: there can be thousands, all full. So those who are far from the front are older than those
    /// who are near, and leave vacant nodes, which go (`prune`).
    fn place_in_chain(&self, node: &Node<R>, entry: &Entry, visitor: Visitor, pin: &Pin) -> Option<Placed<R>> {
        let classes = Classes::of(entry.start, entry.last);
        let (mut before, mut tried) = (node, 0);
        while tried < REACH {
            let Some(chained) = before.overflow().announce(entry.mode).and_then(|target| target.node(pin)) else {
                break;
            };
            steps::add(1);
            // (INV-N6) Those for other classes do not count, and are few.
            if classes.are_among(chained.classes()) {
                tried += 1;
                if let Occupied::Slot(index) = chained.occupy_unless_frozen(entry, visitor.home(), pin) {
                    return Some(Placed::new(chained, index));
                }
            }
            before = chained;
        }
        self.lengthen_chain(node, entry.mode, 0, pin);
        None
    }

    /// Puts a node in front of the chain of `node` for requests of `mode`, reserved for `thread` if that is not 0,
    /// unless somebody else changes the chain first.
    fn lengthen_chain(&self, node: &Node<R>, mode: u64, thread: u16, pin: &Pin) {
        let front = node.overflow().load();
        if front.is_frozen() {
            return;
        }
        let mut more = Node::new(node.base(), node.cell_shift());
        more.overflow().set(front);
        if thread != 0 {
            more.reserve_for(thread);
            more.set_for_threads();
        }
        if self.link(node.overflow(), front, more, front.modes() | mode) {
            self.sweep_after_growth(pin);
        }
    }

    /// The node that `thread` has for itself among the first of the chain of `node`, if all requests there are of
    /// `mode`.
    pub(super) fn reserved_in_chain<'t>(
        &self,
        node: &'t Node<R>,
        mode: u64,
        thread: u16,
        pin: &'t Pin,
    ) -> Option<&'t Node<R>> {
        let mut before = node;
        for _ in 0..WITHIN_REACH {
            let target = before.overflow().load();
            if target.is_frozen() || target.modes() != mode {
                return None;
            }
            let chained = target.node(pin)?;
            // (INV-N6)
            if chained.is_reserved_for(thread) && !chained.is_of_a_class() {
                return Some(chained);
            }
            before = chained;
        }
        None
    }

    /// Gives `cell` of `node` a child that covers the range of `entry` and the bytes `first..=last` of that cell,
    /// unless somebody else changes the cell first. Whoever calls this descends again.
    fn grow(&self, node: &Node<R>, cell: usize, entry: &Entry, (mut first, mut last): (u64, u64), why: Why, pin: &Pin) {
        let link = node.child(cell);
        let seen = link.load();
        let old = seen.node(pin);
        if let Some(old) = old.filter(|old| old.covers(entry.start, entry.last)) {
            old.open();
            return;
        }
        if seen.is_frozen() {
            return;
        }
        if let Some(old) = old {
            (first, last) = (first.min(old.base()), last.max(old.last()));
        }
        let span_shift = span_shift_around(first, last);
        let base = first & (u64::MAX << span_shift);
        let mut new = Node::new(base, span_shift - CELL_BITS);
        if let Some(old) = old {
            new.child(new.cell_of(old.base())).set(seen);
        }
        if why == Why::Shared {
            new.set_for_threads();
        }
        if self.link(link, seen, new, seen.modes() | entry.mode) && why == Why::Full {
            self.sweep_after_growth(pin);
        }
    }

    /// A node for `thread` in the chain of the node that a request of `entry` ends its way at, at a model's word.
    #[cfg(all(test, loom))]
    pub(crate) fn part_for(&self, entry: &Entry, visitor: Visitor, pin: &LazyPin) {
        // One for a thread that is not at work would be one too many.
        self.shape.quota.note(visitor);
        let spot = self.descend(entry, usize::MAX, pin.get());
        self.lengthen_chain(spot.node, entry.mode, visitor.mark(), pin.get());
    }

    /// A node for the class of `entry` in the chain of the node that such a request ends its way at, at a model's or a
    /// test's word; of two threads that are at work, the visitor is one.
    #[cfg(all(test, not(spanlock_shuttle)))]
    pub(crate) fn part_by_class_for(&self, entry: &Entry, visitor: Visitor, pin: &LazyPin) {
        self.shape.quota.note(visitor);
        self.shape.quota.note(Visitor::numbered(visitor.home() as u64 + 1));
        let spot = self.descend(entry, usize::MAX, pin.get());
        self.part_by_class(spot.node, entry, pin.get());
    }

    /// Growth at a model's word: the node that a request of `entry` would go to gets a child for it, or a node spliced
    /// in above the child.
    #[cfg(all(test, loom))]
    pub(crate) fn grow_for(&self, entry: &Entry, pin: &LazyPin) {
        let pin = pin.get();
        let spot = self.descend(entry, usize::MAX, pin);
        if let Some(cell) = spot.cell {
            let others = |slot: Slot<'_>| slot.hint().2 != 0 && slot.hint().2 != entry.owner;
            self.grow(spot.node, cell, entry, together(spot.node, cell, entry, others), Why::Full, pin);
        }
    }

    /// Puts a new node where `link` leads to `seen`; drops it if the link has changed. The link then carries `modes`.
    fn link(&self, link: &Link<R>, seen: Target<R>, new: Node<R>, modes: u64) -> bool {
        let (is_for_threads, span_shift) = (new.is_for_threads(), new.span_shift());
        let new = Target::make(new);
        let linked = link.change(seen, new.with_modes(modes));
        if linked {
            telemetry::node_grown();
            if is_for_threads {
                self.shape.quota.node_made(span_shift);
            }
        } else {
            // SAFETY: made above, and the failed CAS showed it to nobody.
            unsafe { new.let_go() };
        }
        linked
    }

    /// One acquire in 32 looks whether threads had better part: see the header. In a tree that is only its root it
    /// needs no pin.
    #[cold]
    pub(super) fn sample(&self, entry: &Entry, visitor: Visitor, pin: &LazyPin) {
        let mine = visitor.mark();
        self.shape.quota.note(visitor);
        let before = places::swap(self.key(), visitor, entry);
        let (node, cell, is_broad) = if self.root.is_alone() {
            (&self.root, self.root.cell_around(entry.start, entry.last), false)
        } else {
            self.tidy_now_and_then(pin);
            let spot = self.descend(entry, usize::MAX, pin.get());
            (spot.node, spot.cell, is_broad(spot.node, entry, pin.get()))
        };
        self.shape.quota.note_breadth(is_broad);
        if self.shape.quota.is_in_the_way(true) {
            self.sweep(1, pin.get());
        }
        // Those who were parted by class meet there, if anywhere.
        let meeting = if node.is_alone() { None } else { node.of_its_class(entry, pin.get()) };
        let place = meeting.unwrap_or(node);
        if !self.is_shared_node(place, mine) || !self.shape.quota.has_room(!node.is_alone()) {
            return;
        }
        let Some(cell) = cell else { return self.part(node, entry, mine, pin) };
        let goes = before.and_then(|before| goes_along(place, entry, before));
        let along = places::count_along(self.key(), visitor, goes);
        if along == MOST_ALONG {
            if meeting.is_none() {
                self.part_by_class(node, entry, pin.get());
            }
            return;
        }
        // Who is parted by class already, and may go on with the others, is not to leave them a node wherever they
        // were.
        let stays = goes == Some(false) || goes.is_none() && meeting.is_none();
        if stays && along < MOST_ALONG / 2 && !self.shape.quota.is_in_the_way(false) {
            if let Some(block) = apart(place, entry, before) {
                self.grow(node, cell, entry, block, Why::Shared, pin.get());
            }
        }
    }

    /// Gives `node` a node in its chain for requests of the class of `entry`, for threads that work all over the node
    /// together: at the tail of a file, they take one page after the other, and seldom two of one class at the same
    /// time.
    fn part_by_class(&self, node: &Node<R>, entry: &Entry, pin: &Pin) {
        let front = node.overflow().load();
        let is_free = front.node(pin).is_none_or(Node::is_of_a_class) && !front.is_frozen();
        let is_full = node.chain(pin).nth(CHAINED_BY_CLASS - 1).is_some();
        let classes = Classes::of(entry.start, entry.last);
        if !is_free || is_full || !classes.is_one() || node.cell_shift() < GRAIN_SHIFT {
            return;
        }
        let mut more = Node::new(node.base(), node.cell_shift());
        more.set_classes(classes);
        more.set_for_threads();
        more.overflow().set(front);
        self.link(node.overflow(), front, more, front.modes() | entry.mode);
    }

    /// Whether a thread whose sampled acquire ended in `node` had better have another: see the header.
    fn is_shared_node(&self, node: &Node<R>, thread: u16) -> bool {
        node.leave_mark(thread) || !node.is_alone() && self.shape.quota.is_shared()
    }

    /// For who looks at the shape of the tree: tidies up there too, if it is this thread's turn.
    pub(super) fn tidy_now_and_then(&self, pin: &LazyPin) {
        if owner::is_turn_to_tidy() {
            self.shape.quota.count_turn();
            self.sweep(1, pin.get());
        }
    }

    /// Gives the thread a node of its own in the chain of `node`, which it shares with others, if its requests go with
    /// their like but cannot go down. As long as the chain is of one such mode, those who ask for it need not even look
    /// at one another's nodes.
    fn part(&self, node: &Node<R>, entry: &Entry, mine: u16, pin: &LazyPin) {
        let is_shared = Mode::against_bit(entry.mode) & entry.mode == 0;
        let front = node.overflow().load();
        if !is_shared || front.modes() & !entry.mode != 0 {
            return;
        }
        let has_one = front.leads_somewhere() && self.reserved_in_chain(node, entry.mode, mine, pin.get()).is_some();
        if !has_one && node.chain(pin.get()).nth(WITHIN_REACH - 1).is_none() {
            self.lengthen_chain(node, entry.mode, mine, pin.get());
        }
    }
}

/// The bytes around the range of `entry` and the other ranges in `cell` of `node` whose slots count; the whole cell if
/// there are none.
///
/// The records are read without a look at the words around them, so a range may be a mixture of two: that gives a worse
/// shape, never a wrong one.
fn together<R>(node: &Node<R>, cell: usize, entry: &Entry, counts: impl Fn(Slot<'_>) -> bool) -> (u64, u64) {
    let inside = |&(start, last): &(u64, u64)| {
        start <= last && node.covers(start, last) && node.cell_around(start, last) == Some(cell)
    };
    let ranges = node.slots().filter(|&slot| counts(slot)).map(|slot| (slot.hint().0, slot.hint().1)).filter(inside);
    let around = ranges.reduce(|(first, last), (start, end)| (first.min(start), last.max(end)));
    around.map_or(node.cell(cell), |(first, last)| (first.min(entry.start), last.max(entry.last)))
}

/// The bytes of a node that would part a thread which asks for `entry` in `node`, and was found at `before` when it
/// last looked, from half of the others there: a whole cell if that will do, or less, if the thread was there before as
/// well. `None` if there is no such node: these threads go the same way, and would meet there again.
///
/// Where the others work is in the records, of live requests or of those just gone (a freed slot keeps its record).
fn apart<R>(node: &Node<R>, entry: &Entry, before: Option<(u64, u64)>) -> Option<(u64, u64)> {
    let shift_to = |(start, last): (u64, u64)| span_shift_around(entry.start.min(start), entry.last.max(last));
    let others = node.slots().map(Slot::hint).filter(|&(_, _, owner)| owner != 0 && owner != entry.owner);
    let mut shifts: SmallVec<[u32; SLOTS]> = others.map(|(start, last, _)| shift_to((start, last))).collect();
    shifts.sort_unstable();
    // At most half of them lie within as much.
    let apart = shifts.get(shifts.len() / 2).map_or(u32::MAX, |&shift| shift - CELL_BITS);
    let shift = apart.min(node.cell_shift());
    let pays = shift == node.cell_shift() || before.is_some_and(|before| shift >= shift_to(before));
    pays.then(|| {
        let span = !(u64::MAX << shift);
        (entry.start & !span, entry.start | span)
    })
}

/// Whether a request of `entry`, which is in `node`, looks at several nodes below.
fn is_broad<R>(node: &Node<R>, entry: &Entry, pin: &Pin) -> bool {
    let (against, mut found) = (Mode::against_bit(entry.mode), 0);
    let mut rest: SmallVec<[&Node<R>; BROAD]> = SmallVec::from_elem(node, 1);
    while let Some(node) = rest.pop() {
        let first = node.cell_of(entry.start.max(node.base()));
        let last = node.cell_of(entry.last.min(node.last()));
        let below = node.children()[first..=last].iter().filter_map(|link| link.load_if(against).node(pin));
        for child in below.filter(|child| child.meets(entry.start, entry.last)) {
            found += 1;
            if found == BROAD {
                return true;
            }
            rest.push(child);
        }
    }
    false
}

/// Whether the slots are threads', nearly each another one's. A hint. (By the records: some of those who fill a node
/// have not published yet.)
fn is_full_of_threads<R>(node: &Node<R>) -> bool {
    let owners = node.slots().map(|slot| slot.hint().2);
    let mut owners: SmallVec<[u64; SLOTS]> = owners.filter(|&owner| OwnerId::from_slot(owner).is_thread()).collect();
    owners.sort_unstable();
    owners.dedup();
    owners.len() >= SLOTS * 3 / 4
}

/// Whether a thread that asks for `entry`, and was found at `before` when it last looked, goes the same way as others
/// in `node`: it has come forward, and half of them are nearer than where it was. (At random that is so for one look in
/// three or four.) `None` if it has not come far enough to tell.
fn goes_along<R>(node: &Node<R>, entry: &Entry, (before, its_last): (u64, u64)) -> Option<bool> {
    /// In lengths of what it asks for.
    const FAR_ENOUGH: u64 = 32;
    if its_last >= entry.start {
        return Some(false);
    }
    let way = entry.start - before;
    if way / FAR_ENOUGH <= entry.last - entry.start {
        return None;
    }
    let (mut near, mut far) = (0, 0);
    for (start, _, owner) in node.slots().map(Slot::hint) {
        if owner != 0 && owner != entry.owner {
            *(if start.abs_diff(entry.start) < way { &mut near } else { &mut far }) += 1;
        }
    }
    Some(near > 0 && near >= far)
}

/// log2 of the smallest span of a node that holds `first..=last` (INV-N3).
fn span_shift_around(first: u64, last: u64) -> u32 {
    let bits = 64 - (first ^ last).leading_zeros();
    bits.next_multiple_of(CELL_BITS).max(CELL_BITS)
}
