//! Giving nodes back: the only room that unlinks and retires. Memory follows the live requests.
//!
//! A hand goes round the leaves like a clock's, some steps for each node that is made, a step now and then otherwise
//! (`sweep`), and over all at once in [`Tree::trim`]. Two kinds of vacant leaves it spares, or growing and pruning would chase each other:
//!
//! - one that was used, or made, not long ago gets another chance, a few times over: threads that were descheduled come back;
//! - one below a full node stays: the next request in its cell would have to make it anew. There are at most four of them for each full
//!   node, so that memory still follows the live requests.
//!
//! # Removing a node
//! 1. Set `frozen`, then a full fence: whoever claims a slot from now on sees it and withdraws (T2).
//! 2. Look at all slots, with Acquire: any in use, undo.
//! 3. Freeze the links by CAS: each child must be null, and stays null; a chained node's own link is frozen as it is, and
//!    whoever would add something there finds the mark.
//! 4. CAS the link that leads here to what comes behind (nothing, or the rest of the chain); if it has changed, undo. Retire.
//!
//! Two pruners at neighbouring nodes cannot both succeed: one of them changes, or freezes, the link that the other's CAS compares.
//! Nobody waits for a pruner: a request that finds a frozen node goes to the node above.

use super::node::{Link, Node, Target};
use super::{Room, Tree};
use crate::reclaim::Pin;
use crate::sync::{Ordering, fence};

/// What a pruner does with a vacant node that seems useful.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Useful {
    /// It stays: while it has chances left, and for as long as the node above is full.
    Spared,
    /// It goes, if it is vacant now.
    Removed,
}

impl<R: Room> Tree<R> {
    /// Moves the hand over up to `steps` leaves, but not beyond the end of its round: no leaf is visited twice, so none that was just
    /// made is removed.
    pub(super) fn sweep(&self, steps: usize, pin: &Pin) {
        for _ in 0..steps {
            // Two pruners may read the same place: they then visit the same leaf, which is harmless.
            let at = self.hand.load(Ordering::Relaxed);
            let next = self.visit_leaf(at, pin);
            self.hand.store(next, Ordering::Relaxed);
            if next == 0 {
                break;
            }
        }
    }

    /// Visits the first leaf that ends at byte `at` or behind, with the chains on the way to it; returns where the next one may begin.
    fn visit_leaf(&self, at: u64, pin: &Pin) -> u64 {
        let mut node = &self.root;
        loop {
            self.prune_chain(node, Useful::Spared, pin);
            let first = node.cell_of(at.max(node.base()));
            let next = node.children()[first..].iter().find_map(|link| {
                let target = link.load();
                let child = target.node(pin)?;
                (at <= child.last()).then_some((link, target, child))
            });
            // Behind the last byte of all the round begins again at 0.
            let Some((link, target, child)) = next else { return node.last().wrapping_add(1) };
            if child.children().iter().all(Link::is_null) {
                self.prune_chain(child, Useful::Spared, pin);
                if !node.is_full() {
                    self.prune(link, target, child, Useful::Spared, pin);
                }
                return child.last().wrapping_add(1);
            }
            node = child;
        }
    }

    /// Removes all vacant nodes below `node`, children first.
    pub(super) fn trim_below(&self, node: &Node<R>, pin: &Pin) {
        self.prune_chain(node, Useful::Removed, pin);
        for link in node.children() {
            let target = link.load();
            if let Some(child) = target.node(pin) {
                self.trim_below(child, pin);
                self.prune(link, target, child, Useful::Removed, pin);
            }
        }
    }

    /// Removes the vacant nodes of a chain.
    fn prune_chain(&self, owner: &Node<R>, useful: Useful, pin: &Pin) {
        let mut before = owner;
        loop {
            let link = before.overflow();
            let target = link.load();
            if target.is_frozen() {
                // The node that holds this link is being removed by somebody else.
                return;
            }
            let Some(node) = target.node(pin) else { return };
            let spared = useful == Useful::Spared && before.is_full();
            if spared || !self.prune_chained(link, target, node, useful, pin) {
                before = node;
            }
        }
    }

    /// Removes a leaf that `link` leads to.
    fn prune(&self, link: &Link<R>, target: Target<R>, leaf: &Node<R>, useful: Useful, pin: &Pin) -> bool {
        self.remove(link, target, leaf, useful, pin, || {
            let overflow = leaf.overflow();
            (overflow.change(Target::NONE, Target::NONE.frozen())).then_some(Target::NONE)
        })
    }

    /// Removes a chained node that `link` leads to.
    fn prune_chained(&self, link: &Link<R>, target: Target<R>, node: &Node<R>, useful: Useful, pin: &Pin) -> bool {
        self.remove(link, target, node, useful, pin, || {
            let rest = node.overflow().load();
            (!rest.is_frozen() && node.overflow().change(rest, rest.frozen())).then_some(rest)
        })
    }

    /// The four steps of the header. `freeze_rest` freezes the node's overflow link and says what comes in the node's place.
    fn remove(
        &self,
        link: &Link<R>,
        target: Target<R>,
        node: &Node<R>,
        useful: Useful,
        pin: &Pin,
        freeze_rest: impl FnOnce() -> Option<Target<R>>,
    ) -> bool {
        if (useful == Useful::Spared && node.take_chance()) || target.is_frozen() || !node.is_vacant() || !node.freeze()
        {
            return false;
        }
        // ORDERING (T2): pairs with the fence of a publication: either its slot is seen below, or it sees `frozen`.
        fence(Ordering::SeqCst);
        let children = node.children();
        let mut frozen = 0;
        if node.is_vacant() {
            frozen = children.iter().take_while(|child| child.change(Target::NONE, Target::NONE.frozen())).count();
            if frozen == children.len() {
                if let Some(rest) = freeze_rest() {
                    if link.change(target, rest) {
                        // SAFETY:
                        // - from `Box::into_raw`: every node but the root is made by `Target::make`, and the root is behind no link;
                        // - once: only the winner of the CAS that unlinks it gets here, and it cannot be linked again;
                        // - unreachable: that link was the only one to it (INV-N2, and its own links stay frozen), and whoever read it
                        //   before is still pinned.
                        unsafe { target.retire(pin) };
                        return true;
                    }
                    node.overflow().set(rest);
                }
            }
        }
        for child in &children[..frozen] {
            child.set(Target::NONE);
        }
        node.thaw();
        false
    }
}
