//! Giving nodes back: the only room that unlinks and retires. Memory follows the live requests.
//!
//! A vacant node from which at most one link leads on (a leaf, a link of a chain, a mere step on the way down) is not
//! needed: what leads to it can lead to what comes behind. A hand goes round the tree like a clock's, some steps for
//! each node that is made, a step now and then otherwise (`sweep`), and over everything at once in [`Tree::trim`]. Two
//! kinds of such nodes the hand spares, or growing and pruning would chase each other:
//!
//! - one that was used, or made, not long ago gets another chance, a few times over: threads that were descheduled come
//!   back;
//! - one below a full node stays: the next request there would have to make it anew. There are at most four of them for
//!   each full node, so that memory still follows the live requests.
//!
//! Of the first kind, those that were made for ranges are few: in a round it spares some for each thread at work, and one
//! for two nodes that it finds in use. All others would stay for as long as threads that ask everywhere come by, though
//! what they were made for, many who held something in one place at the same time, has passed.
//!
//! A leaf that is not vacant, but sparse, the hand *closes*: where there is room above for all that are in it, whoever
//! comes stays above, and in the end it is vacant. It is opened when the room above is used up. A node with children is
//! never closed: all who go to these would stay above with the others, for as long as one request stays in it.
//!
//! # Removing a node
//! 1. Set `frozen`, then a full fence: whoever claims a slot from now on sees it and withdraws (T2).
//! 2. Look at all slots, with Acquire: any in use, undo.
//! 3. Freeze all links by CAS, each as it is: whoever would add something there finds the mark. More than one leads on:
//!    undo.
//! 4. CAS the link that leads here to the one that leads on, or to nothing; if it has changed, undo. Retire.
//!
//! Who waits, and comes by many vacant nodes in a chain, takes them out as well: nobody goes there any more, and the
//! hand may be long in coming.
//!
//! Two pruners at neighbouring nodes cannot both succeed: one of them changes, or freezes, the link that the other's
//! CAS compares. Nobody waits for a pruner: a request that finds a frozen node goes to the node above. A scan that is
//! still on a removed node goes on along its frozen links.

use super::node::{Link, Node, Target};
use super::place::REACH;
#[cfg(all(test, not(spanlock_shuttle)))]
use super::slot::Entry;
use super::{Room, Tree, steps};
#[cfg(all(test, not(spanlock_shuttle)))]
use crate::platform::reclaim::LazyPin;
use crate::platform::reclaim::Pin;
use crate::platform::sync::{Ordering, fence};
use crate::watching::telemetry;
use smallvec::SmallVec;
use std::ptr;

/// Leaves that the pruner's hand visits for each node that is made. A dead leaf goes at its fourth visit
/// (`node::CHANCES`): with four visits a growth the tree would grow without bound. In a crowd of a thousand random
/// ranges that come and go there are 640 nodes with 8, 450 with 16, 320 with 32.
const SWEEP_PER_GROWTH: usize = 24;

/// Nodes of a chain that it then looks at, each time; and all of them only when as many nodes were made as there were.
/// So a chain that grows costs in proportion to its nodes, and what is vacant at its end is at most as much as what is
/// in use.
const CHAIN_PER_GROWTH: usize = 8;

/// What a pruner does with a vacant node that seems useful.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Useful {
    /// It stays: while it has chances left, and for as long as the node before it is full.
    Spared,
    /// It goes, if it is vacant now.
    Removed,
}

impl<R: Room, T> Tree<R, T> {
    /// Moves the hand over up to `steps` leaves, but not beyond the end of its round: no leaf is visited twice, so none
    /// that was just made is removed.
    pub(super) fn sweep(&self, steps: usize, pin: &Pin) {
        self.sweep_chains(steps, usize::MAX, pin);
    }

    /// The same for a node that was made for ranges.
    pub(super) fn sweep_after_growth(&self, pin: &Pin) {
        let made = self.made.load(Ordering::Relaxed).saturating_add(1);
        let is_due = made >= self.chained.load(Ordering::Relaxed);
        self.made.store(if is_due { 0 } else { made }, Ordering::Relaxed);
        let reach = if is_due { usize::MAX } else { CHAIN_PER_GROWTH };
        if let Some(chained) = self.sweep_chains(SWEEP_PER_GROWTH, reach, pin).filter(|_| is_due) {
            self.chained.store(u16::try_from(chained).unwrap_or(u16::MAX), Ordering::Relaxed);
        }
    }

    /// Moves the hand, and says how many nodes it has left in chains, which it looks at up to the node `reach`. `None`:
    /// somebody else moves it.
    fn sweep_chains(&self, steps: usize, reach: usize, pin: &Pin) -> Option<usize> {
        // One at a time, and nobody waits for him (INV-P8): if several visited one leaf at the same moment, they would
        // use up all its chances, and remove what is in use.
        if self.is_sweeping.swap(true, Ordering::Relaxed) {
            return None;
        }
        let mut chained = 0;
        for _ in 0..steps {
            if self.hand.load(Ordering::Relaxed) == 0 {
                self.set_credit(2 * self.shape.quota.spared());
            }
            let next = self.visit_leaf(self.hand.load(Ordering::Relaxed), reach, &mut chained, pin);
            self.hand.store(next, Ordering::Relaxed);
            if next == 0 {
                break;
            }
        }
        self.is_sweeping.store(false, Ordering::Relaxed);
        Some(chained)
    }

    /// Visits the first leaf that ends at byte `at` or behind, and everything on the way to it; returns where the next
    /// one may begin.
    fn visit_leaf(&self, at: u64, reach: usize, chained: &mut usize, pin: &Pin) -> u64 {
        let mut node = &self.root;
        loop {
            *chained += self.prune_chain(node, Useful::Spared, reach, pin);
            let first = node.cell_of(at.max(node.base()));
            let next = node.children()[first..].iter().find_map(|link| {
                let child = link.load().node(pin)?;
                (at <= child.last()).then_some((link, child))
            });
            // Behind the last byte of all the round begins again at 0.
            let Some((link, child)) = next else { return node.last().wrapping_add(1) };
            let is_leaf = child.is_leaf();
            if is_leaf {
                self.note_use(child);
                *chained += self.prune_chain(child, Useful::Spared, reach, pin);
            }
            self.prune(node, link, Useful::Spared, pin);
            if is_leaf {
                return child.last().wrapping_add(1);
            }
            // If it was removed, its links still lead on.
            node = child;
        }
    }

    /// Removes all nodes below `node` that are not needed, the deepest first.
    pub(super) fn trim_below(&self, node: &Node<R>, pin: &Pin) {
        self.prune_chain(node, Useful::Removed, usize::MAX, pin);
        for link in node.children() {
            if let Some(child) = link.load().node(pin) {
                self.trim_below(child, pin);
                self.prune(node, link, Useful::Removed, pin);
            }
        }
    }

    /// Removes the vacant nodes of a chain, among the first `reach` of it; returns how many of these are left.
    fn prune_chain(&self, owner: &Node<R>, useful: Useful, reach: usize, pin: &Pin) -> usize {
        let (mut before, mut looked, mut left) = (owner, 0, 0);
        while looked < reach {
            let Some(node) = before.overflow().load().node(pin) else { break };
            looked += 1;
            self.note_use(node);
            // So far from the front nobody finds it any more, unless it is a thread's own.
            let is_useless = looked > REACH && !node.is_for_threads();
            if !self.prune(before, before.overflow(), if is_useless { Useful::Removed } else { useful }, pin) {
                before = node;
                left += 1;
            }
        }
        steps::add(looked);
        left
    }

    fn set_credit(&self, credit: usize) {
        self.credit.store(u8::try_from(credit).unwrap_or(u8::MAX), Ordering::Relaxed);
    }

    /// The hand comes by a leaf, or a node of a chain.
    fn note_use(&self, node: &Node<R>) {
        if !node.is_vacant() {
            self.set_credit(usize::from(self.credit.load(Ordering::Relaxed)) + 1);
        }
    }

    /// Whether the hand spares this node, which is vacant, and hangs on `before`.
    fn may_spare(&self, before: &Node<R>, node: &Node<R>, is_chained: bool) -> bool {
        let quota = &self.shape.quota;
        if node.is_for_threads() {
            let is_one_too_many = quota.is_exceeded() || !is_chained && quota.is_in_the_way(true);
            return !is_one_too_many && (node.take_chance() || before.is_full());
        }
        if before.is_full() {
            return true;
        }
        let credit = self.credit.load(Ordering::Relaxed);
        let is_spared = credit >= 2 && node.take_chance();
        if is_spared {
            self.set_credit(usize::from(credit - 2));
        }
        is_spared
    }

    /// Removes a node that is chained to `before`, whose link leads to it as `target`, at the word of a waiter that
    /// came by many vacant ones, too far from the front for anybody to go there. Nodes that threads have stay.
    pub(super) fn remove_chained(&self, before: &Node<R>, target: Target<R>, node: &Node<R>, pin: &Pin) -> bool {
        let is_needed = target.is_frozen() || node.is_for_threads() || !node.is_vacant();
        !is_needed && self.remove(before, before.overflow(), target, node, pin)
    }

    /// Removes the node that `link`, a link of `before`, leads to, if it is not needed.
    fn prune(&self, before: &Node<R>, link: &Link<R>, useful: Useful, pin: &Pin) -> bool {
        let target = link.load();
        let Some(node) = target.node(pin) else { return false };
        if useful == Useful::Spared && node.is_sparse_leaf(before) {
            // Those who come would keep it in use else, although there is room for all of them above.
            node.close();
        }
        // `before` may be on its way out itself.
        if target.is_frozen() || !node.is_vacant() || node.links().filter(|link| !link.is_null()).count() > 1 {
            return false;
        }
        if !may_lead_to(before, link, node.overflow().load(), pin) {
            return false;
        }
        let is_chained = ptr::eq(link, before.overflow());
        if useful == Useful::Spared && self.may_spare(before, node, is_chained) {
            return false;
        }
        self.remove(before, link, target, node, pin)
    }

    /// The four steps of the header, for a node that was vacant, and that `link`, a link of `before`, led to as
    /// `target`.
    fn remove(&self, before: &Node<R>, link: &Link<R>, target: Target<R>, node: &Node<R>, pin: &Pin) -> bool {
        if !node.freeze() {
            return false;
        }
        // ORDERING (T2): pairs with the fence of a publication: either its slot is seen below, or it sees `frozen`.
        fence(Ordering::SeqCst);
        let mut frozen = Frozen::default();
        let is_for_threads = node.is_for_threads();
        if node.is_vacant()
            && frozen.all_links_of(node)
            && may_lead_to(before, link, frozen.rest, pin)
            && link.change(target, frozen.rest)
        {
            // SAFETY:
            // - from `Box::into_raw`: every node but the root is made by `Target::make`, and the root is behind no
            //   link;
            // - once: only the winner of the CAS that unlinks it gets here, and it cannot be linked again;
            // - unreachable: that link was the only one to it (INV-N2, and its own links stay frozen), and whoever read
            //   it before is still pinned.
            unsafe { target.retire(pin) };
            telemetry::node_pruned(1);
            if is_for_threads {
                self.shape.quota.node_removed();
            }
            return true;
        }
        frozen.undo();
        node.thaw();
        false
    }

    /// The same at a model's word, for the root's child that a request of `entry` goes to, which may have been vacant a
    /// moment ago.
    #[cfg(all(test, loom))]
    pub(crate) fn remove_for(&self, entry: &Entry, pin: &LazyPin) {
        if let Some((link, target, node)) = self.root.way_down(entry, pin.get()) {
            self.remove(&self.root, link, target, node, pin.get());
        }
    }

    /// As a pruner leaves that node who is taken off its processor.
    #[cfg(all(test, not(spanlock_shuttle)))]
    pub(crate) fn freeze_for(&self, entry: &Entry, pin: &LazyPin) {
        let (_, _, node) = self.root.way_down(entry, pin.get()).expect("there is a child");
        assert!(node.freeze());
    }

    /// As it leaves it when it goes on, and finds somebody there.
    #[cfg(all(test, not(any(loom, spanlock_shuttle))))]
    pub(crate) fn thaw_for(&self, entry: &Entry, pin: &LazyPin) {
        let (_, _, node) = self.root.way_down(entry, pin.get()).expect("there is a child");
        node.thaw();
    }

    /// The same, when it has frozen the links as well.
    #[cfg(all(test, not(any(loom, spanlock_shuttle))))]
    pub(super) fn freeze_links_for(&self, entry: &Entry, pin: &LazyPin) {
        self.freeze_for(entry, pin);
        let (_, _, node) = self.root.way_down(entry, pin.get()).expect("there is a child");
        assert!(Frozen::default().all_links_of(node));
    }
}

/// Whether `link`, a link of `before`, may lead to what `rest` leads to: to a node for a class only along a chain
/// (INV-N6).
fn may_lead_to<R>(before: &Node<R>, link: &Link<R>, rest: Target<R>, pin: &Pin) -> bool {
    ptr::eq(link, before.overflow()) || !rest.node(pin).is_some_and(Node::is_of_a_class)
}

/// The links of a node that this pruner has frozen, with what they held.
struct Frozen<'a, R> {
    links: SmallVec<[(&'a Link<R>, Target<R>); 5]>,
    /// The one that leads on, if any does, with the modes that it carries (INV-N5).
    rest: Target<R>,
}

impl<R> Default for Frozen<'_, R> {
    fn default() -> Self {
        Frozen { links: SmallVec::new(), rest: Target::NONE }
    }
}

impl<'a, R> Frozen<'a, R> {
    /// Freezes them all; `false` if somebody else was faster at one, or a second one leads on.
    fn all_links_of(&mut self, node: &'a Node<R>) -> bool {
        node.links().all(|link| {
            let held = link.load();
            let second = held.leads_somewhere() && self.rest.leads_somewhere();
            // A mark on it would be another pruner's, who cannot be here: `frozen` is ours.
            if second || held.is_frozen() || !link.change(held, held.frozen()) {
                return false;
            }
            self.links.push((link, held));
            if held.leads_somewhere() {
                self.rest = held;
            }
            true
        })
    }

    fn undo(self) {
        for (link, held) in self.links {
            link.set(held);
        }
    }
}
