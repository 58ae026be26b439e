//! A node: an aligned span of the address space with a few slots for requests in it, and a child per cell.
//!
//! ```text
//! line 0     header, read-mostly: span, flags, 4 children, overflow chain, room (the waiting side's part)
//! line 1     states[8]: one word per slot
//! lines 2-5  records[8]: { start, last, owner, order }
//! ```
//!
//! A quiet acquire and release touch lines 0 and 1 and one record. Nodes are aligned to 128 bytes, not 64: with
//! 64 the adjacent-line prefetcher makes two threads on separate nodes share lines after all.
//!
//! # Invariants
//! - INV-N1: a live request in a node's slot lies within the node's span. It need not be in the deepest possible node,
//!   so nothing ever moves.
//! - INV-N2: exactly one link leads to a node that is not removed. A child's span lies within the cell whose link leads
//!   to it; a chained node has the span of the node that it is chained to, or takes its place.
//! - INV-N3: spans are powers of [`CELLS`], like the root's. So two disjoint spans in one cell always have a common
//!   one, in that cell, that puts them into different cells: a node can be spliced in above any child.
//! - INV-N4: a link that carries [`FROZEN`] is changed by nobody but the pruner that froze it.
//! - INV-N5: a link carries the mode that every live request behind it was placed in: in the node that it leads to,
//!   below that, and along its chain. Whoever places a request [announces](Link::announce) its mode on each link that
//!   it follows, first; who puts a node in between, or takes one out, hands on what the link behind it carries. So a
//!   scan passes over what holds nothing in its way, however much it is. A downgrade in place is not announced, and
//!   need not be: the bit of the stricter mode stays, and each scan that the weaker mode concerns goes by that one too
//!   (`mode::tests`).
//! - INV-N6: a node takes requests of some classes of grains (`slot`): of all, unless it is one in a chain that was
//!   made for fewer. All bytes of a live request in it are in grains of these. They do not change, so a scan passes
//!   over a node of other classes than its own, whatever is there. Who has other classes finds his place before it, so
//!   such a node has no children, and never takes the place of the node that it is chained to.

use super::Room;
use super::slot::{Classes, Entry, Parts, Record, Scale, Slot, Sum, Word};
use crate::platform::reclaim::Pin;
use crate::platform::sync::{AtomicBool, AtomicPtr, AtomicU16, AtomicU64, Ordering, atomics, const_fn, hint};
use std::ptr::{self, NonNull};

/// Slots of a node. Small in a model, so that growth and overflow are reached.
pub(crate) const SLOTS: usize = if cfg!(any(loom, spanlock_shuttle)) { 2 } else { 8 };

/// The slots in an order that keeps the records of the first few on lines of their own, so that neighbours do not share
/// one.
const APART: [usize; SLOTS] = {
    let mut order = [0; SLOTS];
    let mut index = 0;
    while index < SLOTS {
        order[index] = index.reverse_bits() >> (usize::BITS - SLOTS.ilog2());
        index += 1;
    }
    order
};

/// Cells of a node, as a power of two.
pub(super) const CELL_BITS: u32 = if cfg!(any(loom, spanlock_shuttle)) { 1 } else { 2 };
pub(super) const CELLS: usize = 1 << CELL_BITS;

/// Nodes of a chain among which one for a class is looked for: of each of the eight classes one, and some others.
pub(super) const CHAINED_BY_CLASS: usize = 12;

/// Set in a node's count of keepers for good: it was made so that threads part, and counts in the tree's quota.
const FOR_THREADS: u16 = 1 << 15;

/// Visits of the pruner's hand that a node survives without being used.
const CHANCES: u8 = if cfg!(spanlock_shuttle) { 1 } else { 3 };

/// Set beside a node's chances: whoever is on the way down stays above. See [`Node::close`].
const CLOSED: u8 = 1 << 7;

#[repr(C, align(128))]
pub(crate) struct Node<R> {
    header: Header<R>,
    states: [AtomicU64; SLOTS],
    records: [Record; SLOTS],
}

#[repr(C, align(64))]
struct Header<R> {
    /// The first byte of the span.
    base: u64,
    /// log2 of the bytes in a cell.
    cell_shift: u8,
    /// The classes of grains that it takes requests of (INV-N6), as a byte.
    classes: u8,
    /// Set while somebody tries to remove the node, and for good once that has succeeded.
    frozen: AtomicBool,
    /// How often the pruner's hand will still spare it: [`CHANCES`] after each use. And [`CLOSED`].
    chances: hint::AtomicU8,
    /// Whose sampled acquire ended here last: see [`Mark`].
    mark: hint::AtomicU16,
    /// Who keeps it: the tree, and each thread that has a shortcut to it. The last one frees it. And [`FOR_THREADS`].
    keepers: AtomicU16,
    children: [Link<R>; CELLS],
    /// More nodes of the same span, for ranges that cannot go down.
    overflow: Link<R>,
    /// What the waiting side keeps for this node; null until somebody waits.
    room: AtomicPtr<R>,
    #[cfg(all(loom, spanlock_epoch))]
    canary: crate::platform::reclaim::Canary,
}

#[cfg(not(any(loom, spanlock_shuttle)))]
const _: () = {
    assert!(size_of::<Header<()>>() == 64, "the header is one line");
    assert!(size_of::<Node<()>>() == 384, "a node is six lines");
    assert!(super::slot::PARTS as usize == 2 * CELLS, "a part is half a cell");
};

/// The trace of a sampled acquire: a thread, and whether it had found another thread's mark.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mark(u16);

impl Mark {
    const NONE: Mark = Mark(0);
    const TURN: u16 = 1 << 15;

    fn of(thread: u16, turn: bool) -> Mark {
        Mark(thread | if turn { Mark::TURN } else { 0 })
    }

    fn thread(self) -> u16 {
        self.0 & !Mark::TURN
    }

    fn is_turn(self) -> bool {
        self.0 & Mark::TURN != 0
    }
}

/// Where a node's claim of a slot ended.
pub(super) enum Occupied {
    /// In this slot.
    Slot(usize),
    /// Every slot is taken.
    Full,
    /// The node is being removed.
    Frozen,
}

impl<R> Node<R> {
    const_fn! {
        pub(super) const fn root() -> Node<R> {
            Node::new(0, 64 - CELL_BITS)
        }
    }

    const_fn! {
        /// A node whose span begins at `base`, with cells of `1 << cell_shift` bytes.
        pub(super) const fn new(base: u64, cell_shift: u32) -> Node<R> {
            Node {
                header: Header {
                    base,
                    cell_shift: cell_shift as u8,
                    classes: Classes::ALL.to_byte(),
                    frozen: AtomicBool::new(false),
                    chances: hint::AtomicU8::new(CHANCES),
                    mark: hint::AtomicU16::new(0),
                    keepers: AtomicU16::new(1),
                    children: atomics!(Link::null(); CELLS),
                    overflow: Link::null(),
                    room: AtomicPtr::new(ptr::null_mut()),
                    #[cfg(all(loom, spanlock_epoch))]
                    canary: crate::platform::reclaim::Canary::new(),
                },
                states: atomics!(AtomicU64::new(0); SLOTS),
                records: atomics!(Record::new(); SLOTS),
            }
        }
    }

    /// Tells a model on the real epoch that the node is being used.
    #[inline(always)]
    pub(super) fn used(&self) -> &Self {
        #[cfg(all(loom, spanlock_epoch))]
        self.header.canary.read();
        self
    }

    pub(super) fn base(&self) -> u64 {
        self.header.base
    }

    pub(super) fn cell_shift(&self) -> u32 {
        u32::from(self.header.cell_shift)
    }

    /// log2 of the bytes in the span.
    pub(super) fn span_shift(&self) -> u32 {
        self.cell_shift() + CELL_BITS
    }

    /// Makes it one that threads have, of a tree's quota.
    pub(super) fn set_for_threads(&mut self) {
        self.header.keepers = AtomicU16::new(FOR_THREADS | 1);
    }

    /// Whether it is: see [`Node::set_for_threads`].
    pub(super) fn is_for_threads(&self) -> bool {
        self.header.keepers.load(Ordering::Relaxed) & FOR_THREADS != 0
    }

    /// Makes it one of a chain for requests of these classes, and for no others.
    pub(super) fn set_classes(&mut self, classes: Classes) {
        self.header.classes = classes.to_byte();
    }

    /// The classes of grains that it takes requests of (INV-N6).
    #[inline]
    pub(super) fn classes(&self) -> Classes {
        Classes::from_byte(self.header.classes)
    }

    /// Whether there are requests within its span that it does not take (INV-N6).
    pub(super) fn is_of_a_class(&self) -> bool {
        self.classes() != Classes::ALL
    }

    /// The first and the last byte of a cell.
    pub(super) fn cell(&self, cell: usize) -> (u64, u64) {
        let first = self.header.base | (cell as u64) << self.header.cell_shift;
        (first, first | !(u64::MAX << self.header.cell_shift))
    }

    /// The last byte of the span.
    pub(super) fn last(&self) -> u64 {
        self.header.base | u64::MAX >> (64 - self.span_shift())
    }

    /// Whether `start..=last` lies within the span. (The root's is everything, and nobody asks.)
    #[inline]
    pub(super) fn covers(&self, start: u64, last: u64) -> bool {
        let outside = (start ^ self.header.base) | (last ^ self.header.base);
        outside >> self.header.cell_shift >> CELL_BITS == 0
    }

    /// Whether its span is that of `other`: it is that node, or of its chain.
    pub(super) fn has_span_of(&self, other: &Node<R>) -> bool {
        (self.header.base, self.header.cell_shift) == (other.header.base, other.header.cell_shift)
    }

    /// Whether `start..=last` shares a byte with the span.
    #[inline]
    pub(super) fn meets(&self, start: u64, last: u64) -> bool {
        self.header.base <= last && start <= self.last()
    }

    /// The cell that `byte`, a byte of the span, lies in.
    #[inline]
    pub(super) fn cell_of(&self, byte: u64) -> usize {
        (byte >> self.header.cell_shift) as usize % CELLS
    }

    /// The one cell that holds `start..=last`, a part of the span; `None` if it crosses a border.
    #[inline]
    pub(super) fn cell_around(&self, start: u64, last: u64) -> Option<usize> {
        ((start ^ last) >> self.header.cell_shift == 0).then(|| self.cell_of(start))
    }

    /// The parts of the span that `start..=last`, which meets it, touches.
    #[inline]
    pub(super) fn parts(&self, start: u64, last: u64) -> Parts {
        self.parts_within(start.max(self.header.base), last.min(self.last()))
    }

    /// The parts that `start..=last`, a part of the span, touches.
    #[inline]
    pub(super) fn parts_within(&self, start: u64, last: u64) -> Parts {
        self.scale().parts(start, last)
    }

    /// Parts are half cells. Cells of one byte have no halves, and leave the upper parts unused.
    #[inline(always)]
    fn scale(&self) -> Scale {
        Scale::new(self.header.base, self.cell_shift().saturating_sub(1))
    }

    /// Whether `start..=last`, a part of the span, could be in a child.
    pub(super) fn sends_down(&self, start: u64, last: u64) -> bool {
        self.cell_around(start, last).is_some() && self.can_have_children()
    }

    /// The child that covers a request of `entry`, and the link to it, which says from now on that such a request may
    /// be behind it.
    #[inline(always)]
    pub(super) fn way_down<'a>(&'a self, entry: &Entry, pin: &'a Pin) -> Option<(&'a Link<R>, Target<R>, &'a Node<R>)> {
        let link = self.child(self.cell_around(entry.start, entry.last)?);
        let covering = |target: Target<R>| {
            target.node(pin).filter(|child| child.covers(entry.start, entry.last) && !child.is_closed())
        };
        let mut target = link.load();
        let mut child = covering(target)?;
        if !target.may_hold(entry.mode) {
            target = link.announce(entry.mode)?;
            child = covering(target)?;
        }
        Some((link, target, child))
    }

    /// Whether its cells are large enough to be cut up again.
    pub(super) fn can_have_children(&self) -> bool {
        self.cell_shift() >= CELL_BITS
    }

    #[inline]
    pub(super) fn child(&self, cell: usize) -> &Link<R> {
        self.used();
        &self.header.children[cell]
    }

    pub(super) fn children(&self) -> &[Link<R>; CELLS] {
        &self.header.children
    }

    #[inline]
    pub(super) fn overflow(&self) -> &Link<R> {
        self.used();
        &self.header.overflow
    }

    /// Whether it has neither children nor a chain.
    #[inline]
    pub(super) fn is_alone(&self) -> bool {
        // Without a branch for each: this is on every path.
        self.links().fold(0, |any, link| any | link.load().0.addr()) == 0
    }

    /// Its children's links, and its chain's.
    #[inline]
    pub(super) fn links(&self) -> impl Iterator<Item = &Link<R>> {
        self.header.children.iter().chain([&self.header.overflow])
    }

    /// Whether a request in one of the modes `against` may be found beyond its slots.
    #[inline(always)]
    pub(super) fn leads_on(&self, against: u64) -> bool {
        // Without a branch for each: this is on every path below the root.
        let modes = |link: &Link<R>| link.load().modes();
        self.children().iter().fold(modes(self.overflow()), |any, link| any | modes(link)) & against != 0
    }

    /// The same for who asks for `start..=last`, a part of the span.
    #[inline(always)]
    pub(super) fn leads_on_from(&self, start: u64, last: u64, against: u64) -> bool {
        match self.cell_around(start, last) {
            Some(cell) => (self.child(cell).load().modes() | self.overflow().load().modes()) & against != 0,
            None => self.leads_on(against),
        }
    }

    /// Whether there is a child in the cell that holds `start..=last`, a part of the span.
    #[inline(always)]
    pub(super) fn is_cut_at(&self, start: u64, last: u64) -> bool {
        self.cell_around(start, last).is_some_and(|cell| !self.child(cell).is_null())
    }

    /// The nodes chained to this one.
    pub(super) fn chain<'a>(&'a self, pin: &'a Pin) -> impl Iterator<Item = &'a Node<R>> {
        std::iter::successors(self.overflow().load().node(pin), |node| node.overflow().load().node(pin))
    }

    /// Those of them that may hold a request in one of the modes `against` that meets `start..=last`, and some more.
    #[inline]
    pub(super) fn chain_against<'a>(
        &'a self,
        (start, last): (u64, u64),
        against: u64,
        pin: &'a Pin,
    ) -> impl Iterator<Item = &'a Node<R>> {
        let next = move |node: &Node<R>| node.overflow().load_if(against).node(pin);
        let chain = std::iter::successors(next(self), move |node| next(node));
        let classes = Classes::of(start, last);
        chain.filter(move |node| node.classes().meet(classes))
    }

    /// The one of them that is for requests of the class of `entry`, among the first of the chain, which are for
    /// classes; the links to it say from now on that such a request may be there.
    #[inline]
    pub(super) fn of_its_class<'a>(&'a self, entry: &Entry, pin: &'a Pin) -> Option<&'a Node<R>> {
        let classes = Classes::of(entry.start, entry.last);
        let mut node = self;
        for _ in 0..CHAINED_BY_CLASS {
            let link = node.overflow();
            let mut target = link.load();
            if !target.node(pin)?.is_of_a_class() {
                return None;
            }
            if !target.may_hold(entry.mode) {
                target = link.announce(entry.mode)?;
            }
            node = target.node(pin)?;
            if node.is_of_a_class() && classes.are_among(node.classes()) {
                return Some(node);
            }
        }
        None
    }

    /// Whether its chain begins with a node for requests of a class.
    pub(super) fn is_cut_by_class(&self, pin: &Pin) -> bool {
        self.overflow().load().node(pin).is_some_and(Node::is_of_a_class)
    }

    #[inline]
    pub(super) fn slot(&self, index: usize) -> Slot<'_> {
        self.used();
        Slot { state: &self.states[index], record: &self.records[index] }
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        self.states.iter().zip(&self.records).map(|(state, record)| Slot { state, record })
    }

    /// The parts of the span that a scan of `start..=last` for the modes `against` has to look at more closely. `None`
    /// if one look at the state words tells that nothing here concerns it: no slot is live in one of these modes, or
    /// none in a part that the range touches, or none but the scanner's own, of mode `own`.
    ///
    /// ORDERING (S2): Acquire: a slot that is seen free is passed over without another look.
    #[inline(always)]
    pub(super) fn unclear(&self, start: u64, last: u64, against: u64, own: Option<u64>) -> Option<Parts> {
        match self.words_against(against, own) {
            0 => None,
            any => Some(self.parts(start, last)).filter(|parts| parts.are_in(any)),
        }
    }

    /// The same for `start..=last`, a part of the span.
    #[inline(always)]
    pub(super) fn unclear_within(&self, start: u64, last: u64, against: u64, own: Option<u64>) -> Option<Parts> {
        match self.words_against(against, own) {
            0 => None,
            any => Some(self.parts_within(start, last)).filter(|parts| parts.are_in(any)),
        }
    }

    /// Whether nothing in the whole span concerns such a scan.
    #[inline(always)]
    pub(super) fn is_quiet(&self, against: u64, own: Option<u64>) -> bool {
        self.words_against(against, own) == 0
    }

    /// The words of all slots, OR-ed, if a slot may be live in one of the modes `against`; all ones if one that is not
    /// the scanner's own, of mode `own`, is; 0 if none is.
    #[inline(always)]
    fn words_against(&self, against: u64, own: Option<u64>) -> u64 {
        let words = self.states.iter().map(|state| state.load(Ordering::Acquire));
        match own {
            Some(mode) if against & mode != 0 => {
                if words.fold(Sum::ZERO, Sum::plus).is_only(mode) {
                    0
                } else {
                    u64::MAX
                }
            }
            // Its own mode does not concern it.
            _ => {
                let any = words.fold(0, |any, word| any | word);
                if any & against == 0 { 0 } else { any }
            }
        }
    }

    /// Whether somebody insists: a slot may be live in one of the modes `against` that does not yield, and is not the
    /// scanner's own.
    ///
    /// ORDERING (S2, S8): Acquire, as for [`Node::unclear`]; and who has closed before the scanner's fence is found to
    /// have.
    #[inline(never)] // Few ask.
    pub(super) fn has_insisting(&self, against: u64, own: Option<usize>) -> bool {
        let insisting = |(index, state): (usize, &AtomicU64)| {
            let word = Word::from_bits(state.load(Ordering::Acquire)).unless_yielding();
            if Some(index) == own { 0 } else { word }
        };
        self.states.iter().enumerate().map(insisting).fold(0, |any, word| any | word) & against != 0
    }

    /// Whether no slot is in use. Acquire (S2): whoever removes the node goes on behind everything done under its
    /// slots.
    pub(super) fn is_vacant(&self) -> bool {
        self.states.iter().all(|state| Word::from_bits(state.load(Ordering::Acquire)).is_free())
    }

    /// Whether every slot is in use. A hint.
    pub(super) fn is_full(&self) -> bool {
        self.used_slots() == SLOTS
    }

    /// Takes a free slot for `entry` and publishes it there, trying `home` first. Each slot is tried once: if its claim
    /// fails, somebody else has it (INV-P1).
    #[inline]
    pub(super) fn occupy(&self, entry: &Entry, home: usize) -> Option<usize> {
        let scale = self.scale();
        let home = APART[home % SLOTS];
        (0..SLOTS).map(|step| (home + step) % SLOTS).find(|&index| {
            let slot = self.slot(index);
            slot.found_free().is_some_and(|found| slot.occupy(found, entry, Some(scale)))
        })
    }

    /// The same for the root, in the most frequent case: the slot at `home` or the next one is free, nothing leads on
    /// from there, and no look at the shape is due.
    #[inline(always)]
    pub(super) fn occupy_root(&self, entry: &Entry, home: usize) -> Option<usize> {
        const SHIFT: u32 = 64 - CELL_BITS;
        debug_assert!(self.cell_shift() == SHIFT);
        let is_a_leaf_here = self.child((entry.start >> SHIFT) as usize).is_null() & self.overflow().is_null();
        if !is_a_leaf_here {
            return None;
        }
        let home = APART[home % SLOTS];
        self.occupy_in_root(entry, home).or_else(|| self.occupy_in_root(entry, (home + 1) % SLOTS))
    }

    #[inline(always)]
    fn occupy_in_root(&self, entry: &Entry, index: usize) -> Option<usize> {
        let slot = self.slot(index);
        let found = slot.found_free().filter(|found| !found.next_claim().is_due())?;
        // A part is 2 EiB: which of them it is, tells hardly any two ranges apart.
        slot.occupy(found, entry, None).then_some(index)
    }

    /// The same for a node of any span; and the word of the claim. For who comes by a shortcut.
    #[inline(always)]
    pub(super) fn occupy_near(&self, entry: Entry, home: usize) -> Option<(usize, Word)> {
        let home = APART[home % SLOTS];
        let scale = self.scale();
        match self.occupy_at(home, &entry, scale) {
            None => self.occupy_at((home + 1) % SLOTS, &entry, scale),
            done => done,
        }
    }

    #[inline(always)]
    fn occupy_at(&self, index: usize, entry: &Entry, scale: Scale) -> Option<(usize, Word)> {
        let slot = self.slot(index);
        let found = slot.found_free()?;
        slot.occupy(found, entry, Some(scale)).then_some((index, found.next_claim()))
    }

    /// Sets `frozen`; `false` if somebody else has.
    pub(super) fn freeze(&self) -> bool {
        // ORDERING: AcqRel against the thaw of another pruner; T2 is about the fence that the caller puts behind this.
        self.header.frozen.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    pub(super) fn thaw(&self) {
        self.header.frozen.store(false, Ordering::Release);
    }

    /// Whether it is being removed, or has been (T2).
    #[inline]
    pub(super) fn is_frozen(&self) -> bool {
        self.header.frozen.load(Ordering::Acquire)
    }

    /// It is being used: the pruner's hand is to spare it.
    #[inline]
    pub(super) fn renew_chances(&self) {
        let found = self.header.chances.load(Ordering::Relaxed);
        if found & CHANCES != CHANCES {
            // That it was closed, or opened, just now may be lost: it comes again.
            self.header.chances.store(found | CHANCES, Ordering::Relaxed);
        }
    }

    /// Uses up a chance; whether there was one left.
    pub(super) fn take_chance(&self) -> bool {
        let found = self.header.chances.load(Ordering::Relaxed);
        let is_left = found & CHANCES > 0;
        if is_left {
            // Unless it was used, or opened, meanwhile: then the next visit takes it.
            let _ = self.header.chances.compare_exchange(found, found - 1, Ordering::Relaxed, Ordering::Relaxed);
        }
        is_left
    }

    /// Nobody goes down here any more: there is room above, and in the end this leaf is vacant, and goes. (Who is here
    /// already stays, and who has a shortcut may come.)
    pub(super) fn close(&self) {
        self.header.chances.fetch_or(CLOSED, Ordering::Relaxed);
    }

    /// The room above is used up.
    pub(super) fn open(&self) {
        self.header.chances.fetch_and(!CLOSED, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn is_closed(&self) -> bool {
        self.header.chances.load(Ordering::Relaxed) & CLOSED != 0
    }

    /// Whether it has no children.
    pub(super) fn is_leaf(&self) -> bool {
        self.children().iter().all(Link::is_null)
    }

    /// Whether it is a leaf for ranges, with some in it for whom there is room in the node `above`. A hint.
    pub(super) fn is_sparse_leaf(&self, above: &Node<R>) -> bool {
        !self.is_for_threads() && self.is_leaf() && (1..=SLOTS - above.used_slots()).contains(&self.used_slots())
    }

    /// Slots in use. A hint.
    pub(super) fn used_slots(&self) -> usize {
        self.states.iter().filter(|state| !Word::from_bits(state.load(Ordering::Relaxed)).is_free()).count()
    }

    /// A node that one thread made for itself, in a chain.
    pub(super) fn reserve_for(&self, thread: u16) {
        self.header.mark.store(Mark::of(thread, false).0, Ordering::Relaxed);
    }

    /// Whether it is: see [`Node::reserve_for`]. A hint, as threads may share a number.
    pub(super) fn is_reserved_for(&self, thread: u16) -> bool {
        Mark(self.header.mark.load(Ordering::Relaxed)).thread() == thread
    }

    /// Leaves the mark of a thread whose sampled acquire ended here. Whether threads take turns here: `thread` came
    /// between two visits of others, or others between two of its own. (Once is not enough: a lock that passes from one
    /// thread to the next is not contended.)
    pub(super) fn leave_mark(&self, thread: u16) -> bool {
        let found = Mark(self.header.mark.load(Ordering::Relaxed));
        let foreign = found != Mark::NONE && found.thread() != thread;
        let left = Mark::of(thread, foreign);
        if left != found {
            self.header.mark.store(left.0, Ordering::Relaxed);
        }
        foreign && found.is_turn()
    }

    /// Whether the thread's own mark is the last one that was left here, not in a turn with others, and no node is
    /// below.
    pub(super) fn is_left_to(&self, thread: u16) -> bool {
        Mark(self.header.mark.load(Ordering::Relaxed)) == Mark::of(thread, false) && self.is_alone()
    }
}

impl<R: Room> Node<R> {
    /// [`Node::occupy`] in a node that can be removed. (The root never is, and never frozen.)
    ///
    /// ORDERING (T2): the publication ends with a full fence, and so does freezing. Either that fence comes first, and
    /// the pruner finds the slot in use; or the pruner's does, and this load finds the node frozen.
    #[inline]
    pub(super) fn occupy_unless_frozen(&self, entry: &Entry, home: usize, _pin: &Pin) -> Occupied {
        let Some(index) = self.occupy(entry, home) else { return Occupied::Full };
        if self.is_frozen() {
            self.withdraw(index);
            return Occupied::Frozen;
        }
        self.renew_chances();
        Occupied::Slot(index)
    }

    /// Frees a slot that was taken in a node that is being removed.
    #[cold]
    pub(super) fn withdraw(&self, index: usize) {
        let before = self.slot(index).free();
        if before.is_watched() {
            self.tell_room(index, before);
        }
    }

    /// The waiting side's part of this node, made now if this is the first time.
    pub(crate) fn room(&self) -> &R {
        let room = self.header.room.load(Ordering::Acquire);
        // SAFETY: a room is never replaced or freed before its node, and never written but through its own atomics.
        if let Some(room) = unsafe { room.as_ref() } {
            return room;
        }
        let new = Box::into_raw(Box::<R>::default());
        // ORDERING: Release for the room's contents; Acquire to use another thread's room. Pairs with the loads here
        // and in `tell_room`.
        let room = match self.header.room.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => new,
            Err(first) => {
                // SAFETY: it came from `into_raw` a few lines above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(new) });
                first
            }
        };
        // SAFETY: as above; not null in either case.
        unsafe { &*room }
    }

    /// Wakes whoever waits for slot `index` to change from `word`.
    #[cold]
    pub(super) fn tell_room(&self, index: usize, word: Word) {
        self.used();
        // ORDERING: Acquire, from `room`. Not null: `WAITERS` was set by someone who had made the room first (S5).
        let room = self.header.room.load(Ordering::Acquire);
        // SAFETY: as in `room`.
        if let Some(room) = unsafe { room.as_ref() } {
            room.slot_changed(index, word.age());
        }
    }
}

impl<R> Node<R> {
    /// As many threads as can have a shortcut to one node: those who come later go without.
    const MOST_KEEPERS: u16 = FOR_THREADS / 2;

    /// One keeper more, at the word of somebody who knows of another that stays one meanwhile. `false` if there are too
    /// many.
    pub(super) fn keep(&self) -> bool {
        // Relaxed: nothing is handed on by it. (As in `Arc::clone`, and so is the limit, which many at once can pass by
        // a little.)
        if self.header.keepers.load(Ordering::Relaxed) & !FOR_THREADS >= Self::MOST_KEEPERS {
            return false;
        }
        self.header.keepers.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// One keeper less. The last one frees the node.
    ///
    /// # Safety
    /// It is from [`Target::make`], and the caller is one of its keepers, and is so no more.
    pub(super) unsafe fn let_go(node: *mut Node<R>) {
        // SAFETY: the caller is a keeper.
        let keepers = unsafe { &(*node).header.keepers };
        // ORDERING: Release for what this keeper did to the node, Acquire for what the others did. As in `Arc::drop`.
        if keepers.fetch_sub(1, Ordering::AcqRel) & !FOR_THREADS == 1 {
            // SAFETY: from `Box::into_raw`, and nobody else can reach it.
            unsafe { crate::platform::reclaim::free(node) };
        }
    }
}

impl<R> Drop for Node<R> {
    fn drop(&mut self) {
        #[cfg(not(spanlock_shuttle))]
        let room = self.header.room.load(Ordering::Relaxed);
        // The epoch may drop it in another schedule than its own, or in none: there must be no step of shuttle's in
        // here.
        #[cfg(spanlock_shuttle)]
        // SAFETY: nobody else uses a node that is being dropped.
        let room = unsafe { self.header.room.raw_load() };
        if !room.is_null() {
            // SAFETY: made by `Box::into_raw` in `room`, which stores it once; the node is being dropped, so nobody
            // uses it.
            drop(unsafe { Box::from_raw(room) });
        }
    }
}

/// A pointer to a node that others may change, possibly frozen.
pub(super) struct Link<R>(AtomicPtr<Node<R>>);

/// What a link holds: nothing or a node, each of them frozen or not.
pub(super) struct Target<R>(*mut Node<R>);

impl<R> Clone for Target<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Target<R> {}

/// The lowest bit of a link: its node is being removed.
const FROZEN: usize = 1;
/// The next ones: the modes that may be live behind it (INV-N5).
const MODES: usize = 0b111 << MODES_SHIFT;
const MODES_SHIFT: u32 = 1;
const _: () = assert!(FROZEN | MODES < align_of::<Node<()>>(), "a node's address leaves these bits free");

impl<R> Target<R> {
    pub(super) const NONE: Target<R> = Target(ptr::null_mut());

    /// A new node, owned by the caller until it is linked.
    pub(super) fn make(node: Node<R>) -> Target<R> {
        Target(Box::into_raw(Box::new(node)))
    }

    pub(super) fn is_frozen(self) -> bool {
        self.0.addr() & FROZEN != 0
    }

    pub(super) fn frozen(self) -> Target<R> {
        Target(self.0.map_addr(|addr| addr | FROZEN))
    }

    /// The modes that it carries, as their bits.
    pub(super) fn modes(self) -> u64 {
        ((self.0.addr() & MODES) >> MODES_SHIFT) as u64
    }

    /// Whether a request in one of the modes `against` may be behind this link.
    #[inline]
    pub(super) fn may_hold(self, against: u64) -> bool {
        self.modes() & against != 0
    }

    /// The same, carrying `modes` as well.
    pub(super) fn with_modes(self, modes: u64) -> Target<R> {
        Target(self.0.map_addr(|addr| addr | (modes as usize) << MODES_SHIFT))
    }

    #[inline]
    pub(super) fn pointer(self) -> *mut Node<R> {
        self.0.map_addr(|addr| addr & !(FROZEN | MODES))
    }

    pub(super) fn leads_somewhere(self) -> bool {
        !self.pointer().is_null()
    }

    /// The node, if there is one.
    #[inline]
    pub(super) fn node(self, _pin: &Pin) -> Option<&Node<R>> {
        let node = NonNull::new(self.pointer())?;
        // SAFETY: a target comes from a link of a node that was itself reached under this pin (or from the root), and
        // nodes are retired only after they are unlinked: what could be reached under a pin is not freed before it
        // ends. A node is never borrowed mutably while it is shared.
        Some(unsafe { node.as_ref() }.used())
    }

    /// Leaves the node to be freed when nobody can be reading it any more.
    ///
    /// # Safety
    /// The target is a node from [`Target::make`] that was unlinked, and this is done once.
    pub(super) unsafe fn retire(self, pin: &Pin)
    where
        R: 'static,
    {
        // SAFETY: by the caller's word it is from `Box::into_raw`, cannot be reached any more but by those of its other
        // keepers, and is retired once.
        unsafe { pin.retire(self.pointer(), Node::let_go) };
    }

    /// Lets go of a node that was never linked, or whose tree is being dropped.
    ///
    /// # Safety
    /// The target is a node from [`Target::make`] that nobody can reach, but for those of its keepers that are threads;
    /// and this is done once.
    pub(super) unsafe fn let_go(self) {
        // SAFETY: by the caller's word it came from `make`, and the tree's part in keeping it ends here.
        unsafe { Node::let_go(self.pointer()) };
    }

    /// The node, if there is one, of a tree that is being dropped.
    ///
    /// # Safety
    /// It has not been let go of, and is not while it is borrowed.
    pub(super) unsafe fn node_at_last<'t>(self) -> Option<&'t Node<R>> {
        // SAFETY: it came from `make`, and by the caller's word it is still there. A node is never borrowed mutably
        // while it is shared.
        unsafe { self.pointer().as_ref() }
    }
}

impl<R> PartialEq for Target<R> {
    fn eq(&self, other: &Target<R>) -> bool {
        self.0 == other.0
    }
}

impl<R> Link<R> {
    const_fn! {
        pub(super) const fn null() -> Link<R> {
            Link(AtomicPtr::new(ptr::null_mut()))
        }
    }

    /// ORDERING (T1): Acquire, the null ones too: it pairs with the Release of whoever linked, or unlinked. A scan that
    /// finds a cell empty after a pruner emptied it knows all that was done under the pruned slots.
    #[inline]
    pub(super) fn load(&self) -> Target<R> {
        Target(self.0.load(Ordering::Acquire))
    }

    /// The same, or nothing if no request in one of the modes `against` is behind it.
    #[inline]
    pub(super) fn load_if(&self, against: u64) -> Target<R> {
        let target = self.load();
        if target.may_hold(against) { target } else { Target::NONE }
    }

    /// Whether it leads nowhere. (Acquire, as for [`Link::load`].)
    #[inline]
    pub(super) fn is_null(&self) -> bool {
        self.load().0.is_null()
    }

    /// Changes the link from `from` to `to`, unless somebody else was faster.
    ///
    /// ORDERING (T1): Release for the node behind `to`, or for the emptiness of the one that was removed; Acquire
    /// because a pruner that freezes an empty link must know what the pruner before it knew.
    pub(super) fn change(&self, from: Target<R>, to: Target<R>) -> bool {
        self.0.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Says that a request of `mode` may be behind the link; returns what it leads to. `None` if that cannot be said,
    /// because the link is frozen: then nothing of that mode is to be placed behind it.
    ///
    /// ORDERING (T3): this comes before the publication, and that ends with a full fence. A scan that finds the mode
    /// missing has its own fence before that one, or the link has led elsewhere since. Release and Acquire as in
    /// [`Link::change`]: the node behind it stays the same.
    #[cold]
    pub(super) fn announce(&self, mode: u64) -> Option<Target<R>> {
        loop {
            let found = self.load();
            if found.may_hold(mode) || !found.leads_somewhere() {
                return Some(found);
            }
            if found.is_frozen() {
                return None;
            }
            let announced = found.with_modes(mode);
            if self.change(found, announced) {
                return Some(announced);
            }
        }
    }

    /// Sets the link of a node that is not shared yet, or takes a frozen mark back (INV-N4: nobody else changes it
    /// then).
    pub(super) fn set(&self, to: Target<R>) {
        self.0.store(to.0, Ordering::Release);
    }
}
