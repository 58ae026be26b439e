//! Where a request goes: descend, claim a slot; and grow, where the tree is full or contended.
//!
//! # Growth
//! A node gets a child for a cell, so that the *next* request there goes deeper, in two cases.
//!
//! - *Full.* No slot is free. The child's span is the smallest that holds the range and the other live ranges in its cell.
//! - *Contended.* Two threads use the node and could use two. This is looked at after one of 32 claims of a slot. Failed CASes are no
//!   measure (two threads that start at different slots rarely fail one, and still fight over the lines), and a neighbour who only
//!   holds does not contend. So each sampled acquire leaves its thread's mark in its node; if threads take turns in leaving marks there,
//!   it is contended. And since whoever stays in a node writes a line that every scan through it reads, who finds a foreign
//!   mark on the way down *tells* the node; its occupant goes down at its own next sampled acquire.
//!
//! If a child is there but does not cover the range, a node that covers both is spliced in above it, by one CAS; the old child
//! keeps working. A range that crosses the borders of its cells cannot go down; when the node is full it takes a slot of
//! the node's chain. New chain nodes go in at the front, so that a frozen one at the end delays nobody.
//!
//! Threads that take turns in a node with ranges that cannot go down, in a mode that goes with itself, get nodes of their own in its chain:
//! whole-file adders then neither write nor read one another's lines.

use super::node::{CELL_BITS, Link, Node, Occupied, Target};
use super::slot::{Entry, Placed};
use super::{Room, Tree};
use crate::mode::Mode;
use crate::observe;
use crate::owner::{self, Visitor};
use crate::reclaim::{LazyPin, Pin};

/// Leaves that the pruner's hand visits for each node that is made. A dead leaf goes at its fourth visit (`node::CHANCES`): with four
/// visits a growth the tree would grow without bound, with eight at most every other leaf is a dead one.
const SWEEP_PER_GROWTH: usize = 8;

/// Nodes of a chain that a thread looks through for its own. A chain of as many gets no more for threads, only for requests that find no room.
const WITHIN_REACH: usize = 32;

/// Why a child is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    Full,
    Contended,
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
                self.make_room(entry, visitor, pin)
            }
        }
    }

    /// The deepest node that covers the range, at most `limit` links below the root; `passing` is shown each node on the way to it.
    fn descend<'t>(
        &'t self,
        entry: &Entry,
        limit: usize,
        pin: &'t Pin,
        mut passing: impl FnMut(&'t Node<R>),
    ) -> Spot<'t, R> {
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
            passing(spot.node);
            spot.node = child;
            spot.depth += 1;
        }
    }

    /// The rest: nodes that are full, or being removed.
    #[cold]
    fn make_room(&self, entry: &Entry, visitor: Visitor, pin: &Pin) -> Placed<R> {
        // How deep it may go: a node that is being removed pushes the request up above itself. It only falls, and the root is never
        // frozen; so each round but the last was made necessary by another thread's progress.
        let mut limit = usize::MAX;
        loop {
            let spot = self.descend(entry, limit, pin, |_| {});
            let node = spot.node;
            match node.occupy_unless_frozen(entry, visitor.home(), pin) {
                Occupied::Slot(index) => return Placed::new(node, index),
                Occupied::Frozen => {
                    limit = spot.depth - 1;
                    continue;
                }
                Occupied::Full => {}
            }
            if let Some(cell) = spot.cell {
                if node.child(cell).load().is_frozen() {
                    limit = spot.depth - 1;
                } else {
                    self.grow(node, cell, entry, Why::Full, pin);
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

    /// A slot in one of the nodes chained to `node`, or in a new one. `None`: somebody changed the front of the chain meanwhile.
    fn place_in_chain(&self, node: &Node<R>, entry: &Entry, visitor: Visitor, pin: &Pin) -> Option<Placed<R>> {
        let mut before = node;
        while let Some(chained) = before.overflow().announce(entry.mode).and_then(|target| target.node(pin)) {
            if let Occupied::Slot(index) = chained.occupy_unless_frozen(entry, visitor.home(), pin) {
                return Some(Placed::new(chained, index));
            }
            before = chained;
        }
        self.lengthen_chain(node, entry.mode, 0, pin);
        None
    }

    /// Puts a node in front of the chain of `node` for requests of `mode`, reserved for `thread` if that is not 0, unless somebody else changes the chain first.
    fn lengthen_chain(&self, node: &Node<R>, mode: u64, thread: u16, pin: &Pin) {
        let front = node.overflow().load();
        if front.is_frozen() {
            return;
        }
        let more = Node::new(node.base(), node.cell_shift());
        more.overflow().set(front);
        more.reserve_for(thread);
        if self.link(node.overflow(), front, more, front.modes() | mode) {
            self.sweep(SWEEP_PER_GROWTH, pin);
        }
    }

    /// The node that `thread` has for itself among the first of the chain of `node`, if all requests there are of `mode`.
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
            if chained.is_reserved_for(thread) {
                return Some(chained);
            }
            before = chained;
        }
        None
    }

    /// Gives `cell` of `node` a child that covers the range of `entry`, unless somebody else changes the cell first. Whoever calls this
    /// descends again.
    fn grow(&self, node: &Node<R>, cell: usize, entry: &Entry, why: Why, pin: &Pin) {
        let link = node.child(cell);
        let seen = link.load();
        let old = seen.node(pin);
        if seen.is_frozen() || old.is_some_and(|old| old.covers(entry.start, entry.last)) {
            return;
        }
        // The bytes that the new node is to cover, `first..=last`.
        let (mut first, mut last, mut alone) = (entry.start, entry.last, true);
        let mut include = |its_first: u64, its_last: u64| {
            first = first.min(its_first);
            last = last.max(its_last);
            alone = false;
        };
        if let Some(old) = old {
            include(old.base(), old.last());
        }
        for (start, end) in neighbours(node, cell, entry, why) {
            include(start, end);
        }
        let span_shift = if alone { node.cell_shift() } else { span_shift_around(first, last) };
        let base = first & (u64::MAX << span_shift);
        let new = Node::new(base, span_shift - CELL_BITS);
        if let Some(old) = old {
            new.child(new.cell_of(old.base())).set(seen);
        }
        if self.link(link, seen, new, seen.modes() | entry.mode) {
            self.sweep(SWEEP_PER_GROWTH, pin);
        }
    }

    /// A node for `thread` in the chain of the node that a request of `entry` ends its way at, at a model's word.
    #[cfg(all(test, loom))]
    pub(crate) fn part_for(&self, entry: &Entry, visitor: Visitor, pin: &LazyPin) {
        let spot = self.descend(entry, usize::MAX, pin.get(), |_| {});
        self.lengthen_chain(spot.node, entry.mode, visitor.mark(), pin.get());
    }

    /// Growth at a model's word: the node that a request of `entry` would go to gets a child for it, or a node spliced in above the child.
    #[cfg(all(test, loom))]
    pub(crate) fn grow_for(&self, entry: &Entry, pin: &LazyPin) {
        let pin = pin.get();
        let spot = self.descend(entry, usize::MAX, pin, |_| {});
        if let Some(cell) = spot.cell {
            self.grow(spot.node, cell, entry, Why::Contended, pin);
        }
    }

    /// Puts a new node where `link` leads to `seen`; drops it if the link has changed. The link then carries `modes`.
    fn link(&self, link: &Link<R>, seen: Target<R>, new: Node<R>, modes: u64) -> bool {
        let new = Target::make(new);
        let linked = link.change(seen, new.with_modes(modes));
        if linked {
            observe::node_grown();
        } else {
            // SAFETY: made above, and the failed CAS showed it to nobody.
            unsafe { new.let_go() };
        }
        linked
    }

    /// One acquire in 32 looks for contention: see the header. In a tree that is only its root it needs no pin.
    #[cold]
    pub(super) fn sample(&self, entry: &Entry, visitor: Visitor, pin: &LazyPin) {
        let mine = visitor.mark();
        let (node, cell) = if self.root.is_alone() {
            (&self.root, self.root.cell_around(entry.start, entry.last))
        } else {
            self.tidy_now_and_then(pin);
            let spot = self.descend(entry, usize::MAX, pin.get(), |passed| passed.pass(mine));
            (spot.node, spot.cell)
        };
        match cell {
            Some(cell) if is_contended(node, mine) => return self.grow(node, cell, entry, Why::Contended, pin.get()),
            Some(_) => {}
            None => self.part(node, entry, mine, pin),
        }
        if !self.is_root(node) {
            self.remember(node, entry, pin.get());
        }
    }

    /// For who looks at the shape of the tree: tidies up there too, if it is this thread's turn.
    pub(super) fn tidy_now_and_then(&self, pin: &LazyPin) {
        if owner::is_turn_to_tidy() {
            self.sweep(1, pin.get());
        }
    }

    /// Gives the thread a node of its own in the chain of `node`, if others take turns with it there, and its requests go with their like but cannot go
    /// down. As long as the chain is of one such mode, those who ask for it need not even look at one another's nodes.
    fn part(&self, node: &Node<R>, entry: &Entry, mine: u16, pin: &LazyPin) {
        let is_shared = Mode::from_bit(entry.mode).against() & entry.mode == 0;
        let front = node.overflow().load();
        if !is_shared || front.modes() & !entry.mode != 0 {
            return;
        }
        if front.leads_somewhere() && self.reserved_in_chain(node, entry.mode, mine, pin.get()).is_some() {
            // Whoever has stayed in the node itself writes what all others read.
            node.pass(mine);
        } else if is_contended(node, mine) && node.chain(pin.get()).nth(WITHIN_REACH - 1).is_none() {
            self.lengthen_chain(node, entry.mode, mine, pin.get());
        }
    }
}

/// Whether a thread whose sampled acquire ended in `node` had better have another: see the header.
fn is_contended<R>(node: &Node<R>, thread: u16) -> bool {
    node.leave_mark(thread) | node.take_told()
}

/// The other ranges in `cell` of `node` that a new child there should cover: the live ones when the node is full; and when it is contended
/// those of other owners, live or just gone (a freed slot keeps its record), because where they work is where to part from them.
///
/// The records are read without a look at the words around them, so a range may be a mixture of two: that gives a worse
/// shape, never a wrong one.
fn neighbours<R>(node: &Node<R>, cell: usize, entry: &Entry, why: Why) -> impl Iterator<Item = (u64, u64)> {
    node.slots().filter_map(move |slot| {
        let (start, last, owner) = slot.hint();
        let counts = match why {
            Why::Full => slot.is_live_now(),
            Why::Contended => owner != 0 && owner != entry.owner,
        };
        let inside = start <= last && node.covers(start, last) && node.cell_around(start, last) == Some(cell);
        (counts && inside).then_some((start, last))
    })
}

/// log2 of the smallest span of a node that holds `first..=last` (INV-N3).
fn span_shift_around(first: u64, last: u64) -> u32 {
    let bits = 64 - (first ^ last).leading_zeros();
    bits.next_multiple_of(CELL_BITS).max(CELL_BITS)
}
