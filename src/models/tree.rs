//! The tree: who publishes and scans is seen or sees, whatever the tree does meanwhile.
//!
//! A request here is an *attempt*: place, look, and if nobody is in the way, touch the byte; free. No queue, so that
//! the tree's own steps are all that is searched.

use super::{Byte, check};
use crate::facts::mode::Mode::{self, Add, Block, Exclusive};
use crate::facts::owner::Visitor;
use crate::platform::reclaim::LazyPin;
use crate::tree::{ByShortcut, Entry, Glance, Placed, Query, Room, Tree, Whose};
use loom::thread::{self, JoinHandle};
use std::ops::ControlFlow::{Break, Continue};
use std::sync::Arc;

/// The first byte of the root's second cell: a range around it cannot go down.
pub(super) const MIDDLE: u64 = 1 << 63;

/// Nobody waits in these models.
#[derive(Default)]
pub(super) struct Nobody;

impl Room for Nobody {
    fn slot_changed(&self, _: usize, _: u64) {}
}

/// A request: bytes `start..=last`. `who` is its owner, and where it looks for a slot first: an even one at slot 0, an
/// odd one at slot 1.
#[derive(Clone, Copy)]
pub(super) struct Ask {
    start: u64,
    last: u64,
    mode: Mode,
    who: u64,
}

pub(super) fn add(start: u64, last: u64, who: u64) -> Ask {
    Ask { start, last, mode: Add, who }
}

pub(super) fn blocking(start: u64, last: u64, who: u64) -> Ask {
    Ask { start, last, mode: Block, who }
}

pub(super) fn exclusive(start: u64, last: u64, who: u64) -> Ask {
    Ask { start, last, mode: Exclusive, who }
}

impl Ask {
    pub(super) fn entry(self) -> Entry {
        Entry { start: self.start, last: self.last, mode: self.mode.bit(), owner: self.who, order: 0 }
    }

    pub(super) fn query(self) -> Query<'static> {
        let Ask { start, last, mode, who } = self;
        Query { start, last, against: mode.against(), owner: who, whose: Whose::Others }
    }
}

/// A tree, and a byte for those to meet at whose ranges do.
pub(super) struct Stage {
    pub(super) tree: Tree<Nobody>,
    byte: Byte,
}

impl Stage {
    pub(super) fn new() -> Arc<Stage> {
        Arc::new(Stage { tree: Tree::new(()), byte: Byte::new() })
    }

    /// One in which the root has a child, for its first cell.
    pub(super) fn with_child() -> Arc<Stage> {
        let stage = Stage::new();
        stage.grow(exclusive(0, 0, 1));
        stage
    }

    /// One in which that child spans bytes 0 and 1, no more.
    pub(super) fn with_small_child() -> Arc<Stage> {
        let stage = Stage::new();
        // A record of somebody else in the cell, for the child to cover as well.
        let neighbour = stage.place(exclusive(0, 0, 2));
        stage.grow(exclusive(1, 1, 1));
        free(neighbour);
        stage
    }

    /// One in which the child is vacant, and only leads on to a node below it, where somebody is.
    fn with_step() -> Arc<Stage> {
        let stage = Stage::with_child();
        stage.grow(exclusive(0, 0, 1));
        stage.place(add(0, 0, 100));
        stage
    }

    /// One in which the root's slots are taken, by requests that nobody else meets.
    fn with_full_root() -> Arc<Stage> {
        let stage = Stage::new();
        stage.place(add(u64::MAX, u64::MAX, 100));
        stage.place(add(u64::MAX, u64::MAX, 101));
        stage
    }

    /// One in which so many vacant nodes are chained to the root, whose slots are taken: the links say that requests to
    /// add may be there, and none else.
    fn with_chain(nodes: usize) -> Arc<Stage> {
        let stage = Stage::with_full_root();
        let chained: Vec<_> = (0..2 * nodes as u64).map(|who| stage.place(add(0, MIDDLE, 10 + who))).collect();
        chained.into_iter().for_each(free);
        assert_eq!(stage.tree.heap_nodes(LazyPin::new().get()), nodes);
        stage
    }

    /// One in which a thread has a node of its own in the root's chain, for requests to add.
    fn with_node_of(who: u64) -> Arc<Stage> {
        let stage = Stage::new();
        stage.part(who);
        assert_eq!(stage.tree.heap_nodes(LazyPin::new().get()), 1, "it is there");
        stage
    }

    /// One in which a node is in the root's chain for requests of the class of the first page, and of this mode so far.
    fn with_node_of_a_class(ask: Ask) -> Arc<Stage> {
        let stage = Stage::new();
        stage.part_by_class(ask);
        assert_eq!(stage.tree.heap_nodes(LazyPin::new().get()), 1, "it is there");
        stage
    }

    fn part_by_class(&self, ask: Ask) {
        self.tree.part_by_class_for(&ask.entry(), Visitor::numbered(ask.who), &LazyPin::new());
    }

    fn part(&self, who: u64) {
        self.tree.part_for(&add(0, MIDDLE, who).entry(), Visitor::numbered(who), &LazyPin::new());
    }

    pub(super) fn grow(&self, ask: Ask) {
        self.tree.grow_for(&ask.entry(), &LazyPin::new());
    }

    pub(super) fn trim(&self) {
        self.tree.trim(&LazyPin::new());
    }

    pub(super) fn place(&self, ask: Ask) -> Placed<Nobody> {
        // SAFETY: each model keeps its stage until all its threads have ended.
        unsafe { self.tree.place(&ask.entry(), Visitor::numbered(ask.who), &LazyPin::new()) }
    }

    fn is_clear(&self, ask: Ask, own: Option<&Placed<Nobody>>) -> bool {
        let own = own.map(|placed| placed.own(ask.entry().mode));
        self.tree.scan(&ask.query(), own, &LazyPin::new(), |_| Break(())).is_continue()
    }

    /// Places a request and looks, as `grant` does; and whether nobody is in the way.
    pub(super) fn enter(&self, ask: Ask) -> (Placed<Nobody>, bool) {
        let (entry, query, visitor) = (ask.entry(), ask.query(), Visitor::numbered(ask.who));
        let (tree, pin) = (&self.tree, LazyPin::new());
        // SAFETY, here and below: as in `place`.
        let placed = unsafe { tree.place_in_root(&entry, query.against, visitor) };
        let placed = placed.or_else(|| match unsafe { tree.place_by_shortcut(entry, query.against, visitor) } {
            ByShortcut::Placed(placed, glance) => Some((placed, glance)),
            ByShortcut::TurnedBack | ByShortcut::None => None,
        });
        let (placed, glance) = placed.unwrap_or_else(|| unsafe { tree.place_along(&entry, &query, visitor, &pin) });
        let clear = match glance {
            Glance::Clear => true,
            Glance::Met => false,
            Glance::Unsure => self.is_clear(ask, Some(&placed)),
        };
        (placed, clear)
    }

    /// The same; whether it saw somebody. The request stays.
    pub(super) fn place_and_look(&self, ask: Ask) -> bool {
        !self.enter(ask).1
    }

    pub(super) fn attempt(&self, ask: Ask) {
        let (placed, clear) = self.enter(ask);
        if clear {
            self.byte.touch(ask.mode);
        }
        free(placed);
    }

    /// No pruner has left a node half removed.
    pub(super) fn assert_can_be_emptied(&self) {
        self.trim();
        assert_eq!(self.tree.heap_nodes(LazyPin::new().get()), 0, "nodes that nobody can remove");
    }

    /// Whether a scan from the root finds the request of `who`, for whatever mode it is that conflicts with its own.
    pub(super) fn finds(&self, who: u64) -> bool {
        let found = |scanner: Mode| {
            let mut found = None;
            let _ = self.tree.scan(
                &Ask { mode: scanner, ..exclusive(0, u64::MAX, u64::MAX) }.query(),
                None,
                &LazyPin::new(),
                |seen| {
                    found = found.or((seen.owner() == who).then_some(seen.mode()));
                    Continue(())
                },
            );
            found
        };
        let mode = found(Exclusive);
        mode.is_some_and(|mode| {
            [Add, Block]
                .into_iter()
                .filter(|scanner| scanner.against() & mode != 0)
                .all(|scanner| found(scanner).is_some())
        })
    }
}

/// As a release does it.
pub(super) fn free(placed: Placed<Nobody>) {
    if !placed.free_unwatched() {
        placed.free(LazyPin::new().get());
    }
}

pub(super) fn spawn<T: 'static>(stage: &Arc<Stage>, run: impl FnOnce(&Stage) -> T + 'static) -> JoinHandle<T> {
    let stage = Arc::clone(stage);
    thread::spawn(move || run(&stage))
}

/// Two place themselves and look; `others` do what they do to the tree meanwhile.
pub(super) fn one_sees_the_other(stage: &Arc<Stage>, one: Ask, other: Ask, meanwhile: Option<fn(&Stage)>) {
    let meanwhile = meanwhile.map(|meanwhile| spawn(stage, meanwhile));
    let it = spawn(stage, move |stage| stage.place_and_look(other));
    let one_saw = stage.place_and_look(one);
    let other_saw = it.join().unwrap();
    if let Some(meanwhile) = meanwhile {
        meanwhile.join().unwrap();
    }
    assert!(one_saw | other_saw, "neither saw the other");
    assert!(stage.finds(one.who) && stage.finds(other.who), "lost");
}

/// Property: of two that publish and then scan, one sees the other. Shape: both in the root. Bound 3.
#[test]
fn one_of_two_sees_the_other_in_one_node() {
    check(3, || {
        let stage = Stage::new();
        one_sees_the_other(&stage, exclusive(0, 1, 2), exclusive(0, 0, 3), None);
    });
}

/// The same; shape: one in the root, the other in its child. Bound 3.
#[test]
fn one_of_two_sees_the_other_in_parent_and_child() {
    check(3, || {
        let stage = Stage::with_child();
        one_sees_the_other(&stage, exclusive(0, MIDDLE, 2), exclusive(0, 0, 3), None);
    });
}

/// The same; shape: the second has itself linked the child that it goes to. Bound 3.
#[test]
fn one_of_two_sees_the_other_in_a_child_of_its_own() {
    check(3, || {
        let stage = Stage::new();
        let it = spawn(&stage, |stage| {
            stage.grow(exclusive(0, 0, 3));
            stage.place_and_look(exclusive(0, 0, 3))
        });
        let one_saw = stage.place_and_look(exclusive(0, MIDDLE, 2));
        assert!(it.join().unwrap() | one_saw, "neither saw the other");
    });
}

/// The same; shape: a third thread links the child. Three threads, bound 2.
#[test]
fn one_of_two_sees_the_other_while_a_child_is_linked() {
    check(2, || {
        let stage = Stage::new();
        let link = |stage: &Stage| stage.grow(exclusive(0, 0, 4));
        one_sees_the_other(&stage, exclusive(0, MIDDLE, 2), exclusive(0, 0, 3), Some(link));
    });
}

/// The same; shape: the root is full but for one slot, so that one of them goes to a child that it has to make. Bound 3.
#[test]
fn one_of_two_sees_the_other_while_a_full_node_grows() {
    check(3, || {
        let stage = Stage::new();
        stage.place(add(MIDDLE, MIDDLE, 100));
        one_sees_the_other(&stage, exclusive(0, 0, 2), exclusive(0, 0, 3), None);
    });
}

/// The same; shape: the second splices a node in above the child that the first goes to. Bound 3.
#[test]
fn one_of_two_sees_the_other_across_a_splice() {
    check(3, || {
        let stage = Stage::with_small_child();
        let it = spawn(&stage, |stage| {
            stage.grow(exclusive(0, 2, 3));
            stage.place_and_look(exclusive(0, 2, 3))
        });
        let one_saw = stage.place_and_look(exclusive(0, 0, 2));
        assert!(it.join().unwrap() | one_saw, "neither saw the other");
    });
}

/// The same; shape: the root is full, and both go to its chain, which is made now. Bound 2.
#[test]
fn one_of_two_sees_the_other_in_a_chain() {
    check(2, || {
        let stage = Stage::with_full_root();
        one_sees_the_other(&stage, exclusive(0, MIDDLE, 2), exclusive(0, MIDDLE, 3), None);
    });
}

/// The same; shape: one goes to a child whose link does not speak of its mode yet. Bound 3.
#[test]
fn one_of_two_sees_the_other_in_a_child_of_another_mode() {
    check(3, || {
        let stage = Stage::new();
        stage.grow(blocking(0, 0, 1));
        one_sees_the_other(&stage, blocking(0, MIDDLE, 2), add(0, 0, 3), None);
    });
}

/// The same; shape: and a node is spliced in above that child. Three threads, bound 1.
#[test]
fn one_of_two_sees_the_other_in_a_child_of_another_mode_across_a_splice() {
    check(1, || {
        let stage = Stage::new();
        let neighbour = stage.place(blocking(0, 0, 2));
        stage.grow(blocking(1, 1, 1));
        free(neighbour);
        let splice = |stage: &Stage| stage.grow(blocking(0, 2, 4));
        one_sees_the_other(&stage, blocking(0, MIDDLE, 2), add(0, 0, 3), Some(splice));
    });
}

/// The same; shape: and a vacant node above that child is taken out. Three threads, bound 1.
#[test]
fn one_of_two_sees_the_other_in_a_child_of_another_mode_below_a_step() {
    check(1, || {
        let stage = Stage::new();
        stage.grow(blocking(0, 0, 1));
        stage.grow(blocking(0, 0, 1));
        // Keeps the lower one.
        drop_slot(stage.place(blocking(0, 0, 100)));
        one_sees_the_other(&stage, blocking(1, MIDDLE, 2), add(1, 1, 3), Some(Stage::trim));
    });
}

/// The same; shape: one goes to a chain whose links do not speak of its mode yet. Bound 2.
#[test]
fn one_of_two_sees_the_other_in_a_chain_of_another_mode() {
    check(2, || {
        let stage = Stage::with_chain(1);
        one_sees_the_other(&stage, exclusive(0, MIDDLE, 2), add(0, MIDDLE, 3), None);
    });
}

/// The same; shape: that chain has two nodes, and is being pruned. Three threads, bound 1.
#[test]
fn one_of_two_sees_the_other_in_a_chain_that_is_pruned() {
    check(1, || {
        let stage = Stage::with_chain(2);
        one_sees_the_other(&stage, exclusive(0, MIDDLE, 2), add(0, MIDDLE, 3), Some(Stage::trim));
    });
}

/// The same; shape: a node is put in front of that chain, by a third. Three threads, bound 1.
#[test]
fn one_of_two_sees_the_other_in_a_chain_that_grows() {
    check(1, || {
        let stage = Stage::with_chain(1);
        one_sees_the_other(&stage, exclusive(0, MIDDLE, 2), add(0, MIDDLE, 3), Some(|stage| stage.part(5)));
    });
}

/// The same; shape: one is in the root, the other goes to a node of its own in the chain. Bound 3.
#[test]
fn one_of_two_sees_the_other_apart() {
    check(3, || {
        let stage = Stage::with_node_of(3);
        one_sees_the_other(&stage, exclusive(0, MIDDLE, 2), add(0, MIDDLE, 3), None);
    });
}

/// The same; shape: and makes that node now. Bound 3.
#[test]
fn one_of_two_sees_the_other_in_a_node_of_its_own() {
    check(3, || {
        let stage = Stage::new();
        let it = spawn(&stage, |stage| {
            stage.part(3);
            stage.place_and_look(add(0, MIDDLE, 3))
        });
        let one_saw = stage.place_and_look(exclusive(0, MIDDLE, 2));
        assert!(it.join().unwrap() | one_saw, "neither saw the other");
    });
}

/// The same; shape: the root is full, and the one goes to the chain in which the other has its node. Bound 2.
#[test]
fn one_of_two_sees_the_other_apart_in_one_chain() {
    check(2, || {
        let stage = Stage::with_full_root();
        stage.part(3);
        one_sees_the_other(&stage, exclusive(0, MIDDLE, 2), add(0, MIDDLE, 3), None);
    });
}

/// The same; shape: both go to the node for the class of their page, in the root's chain. Bound 3.
#[test]
fn one_of_two_sees_the_other_in_a_node_of_their_class() {
    check(3, || {
        let stage = Stage::with_node_of_a_class(exclusive(0, 0, 1));
        one_sees_the_other(&stage, exclusive(0, 1, 2), exclusive(0, 0, 3), None);
    });
}

/// The same; shape: one has bytes of several classes, and stays in the root. Bound 3.
#[test]
fn one_of_two_sees_the_other_in_a_node_of_one_class() {
    check(3, || {
        let stage = Stage::with_node_of_a_class(exclusive(0, 0, 1));
        one_sees_the_other(&stage, exclusive(0, MIDDLE, 2), exclusive(0, 0, 3), None);
    });
}

/// The same; shape: a third makes that node. Three threads, bound 2.
#[test]
fn one_of_two_sees_the_other_while_a_node_is_cut_by_class() {
    check(2, || {
        let stage = Stage::new();
        let cut = |stage: &Stage| stage.part_by_class(exclusive(0, 0, 1));
        one_sees_the_other(&stage, exclusive(0, 1, 2), exclusive(0, 0, 3), Some(cut));
    });
}

/// The same; shape: the links to that node do not speak of the second's mode yet. Bound 3.
#[test]
fn one_of_two_sees_the_other_in_a_node_of_one_class_and_another_mode() {
    check(3, || {
        let stage = Stage::with_node_of_a_class(blocking(0, 0, 1));
        one_sees_the_other(&stage, blocking(0, MIDDLE, 2), add(0, 0, 3), None);
    });
}

/// The same; shape: one goes below the root, in whose chain the other is. Bound 3.
#[test]
fn one_of_two_sees_the_other_below_a_node_that_is_cut_by_class() {
    check(3, || {
        // A child for the bytes 0 and 1 alone; the other one's bytes are of the same page, and not in there.
        let stage = Stage::with_small_child();
        stage.part_by_class(exclusive(1, 2, 1));
        one_sees_the_other(&stage, exclusive(1, 2, 2), exclusive(1, 1, 3), None);
    });
}

/// The same; shape: the child that the second goes to is being pruned. Three threads, bound 2.
#[test]
fn one_of_two_sees_the_other_while_a_child_is_pruned() {
    check(2, || {
        let stage = Stage::with_child();
        one_sees_the_other(&stage, exclusive(0, MIDDLE, 2), exclusive(0, 0, 3), Some(Stage::trim));
    });
}

/// Property: one at a time, and each after the other's writes. Shape: the root. Bound 3.
#[test]
fn attempts_exclude_one_another_in_one_node() {
    check(3, || {
        let stage = Stage::new();
        let it = spawn(&stage, |stage| stage.attempt(exclusive(0, 0, 3)));
        stage.attempt(exclusive(0, 0, 2));
        it.join().unwrap();
    });
}

/// The same; shape: one slot of a child is used twice, for different ranges. Bound 3.
#[test]
fn attempts_exclude_one_another_in_a_slot_used_again() {
    check(3, || {
        let stage = Stage::with_child();
        let it = spawn(&stage, |stage| {
            stage.attempt(exclusive(0, 0, 3));
            free(stage.place(exclusive(1, 1, 3)));
        });
        stage.attempt(exclusive(0, MIDDLE, 2));
        it.join().unwrap();
    });
}

/// Property: a request is never lost in a node that was unlinked. Shape: claim against prune. Bound 3.
#[test]
fn a_claim_is_found_after_a_prune() {
    check(3, || {
        let stage = Stage::with_child();
        let pruner = spawn(&stage, Stage::trim);
        stage.place(exclusive(0, 0, 2));
        pruner.join().unwrap();
        assert!(stage.finds(2), "lost");
    });
}

/// The same; shape: a child is linked to the node that is being pruned, and a request goes there. Bound 3.
#[test]
fn a_claim_below_a_pruned_node_is_found() {
    check(3, || {
        let stage = Stage::with_child();
        let pruner = spawn(&stage, Stage::trim);
        stage.grow(exclusive(0, 0, 2));
        stage.place(exclusive(0, 0, 2));
        pruner.join().unwrap();
        assert!(stage.finds(2), "lost");
    });
}

/// The same; shape: parent and child pruned by two at the same time. Three threads, bound 2.
#[test]
fn a_claim_is_found_after_parent_and_child_were_pruned_by_two() {
    check(2, || {
        let stage = Stage::with_child();
        stage.grow(exclusive(0, 0, 1));
        let pruners = [spawn(&stage, Stage::trim), spawn(&stage, Stage::trim)];
        let placed = stage.place(exclusive(0, 0, 2));
        pruners.into_iter().for_each(|pruner| pruner.join().unwrap());
        assert!(stage.finds(2), "lost");
        free(placed);
        stage.assert_can_be_emptied();
    });
}

/// The same; shape: a node still looks full to one who therefore grows its chain, and is vacant for the pruner. Three
/// threads, bound 2.
#[test]
fn a_chain_on_a_pruned_node_is_found() {
    check(2, || {
        let stage = Stage::with_child();
        let held = [stage.place(add(0, 0, 100)), stage.place(add(0, 0, 101))];
        // A quarter of everything lies on either side: not for a grandchild.
        let quarter = MIDDLE / 2;
        let it = spawn(&stage, move |stage| drop_slot(stage.place(exclusive(quarter - 1, quarter, 2))));
        let pruner = spawn(&stage, Stage::trim);
        held.into_iter().for_each(free);
        it.join().unwrap();
        pruner.join().unwrap();
        assert!(stage.finds(2), "lost");
    });
}

/// The same; shape: a chain of two vacant nodes, and one that claims in it. Bound 2.
#[test]
fn a_claim_in_a_chain_is_found_after_a_prune() {
    check(2, || {
        let stage = Stage::with_full_root();
        let chained = [4, 5, 6, 7].map(|who| stage.place(add(0, MIDDLE, who)));
        chained.into_iter().for_each(free);
        let pruner = spawn(&stage, Stage::trim);
        stage.place(exclusive(0, MIDDLE, 2));
        pruner.join().unwrap();
        assert!(stage.finds(2), "lost");
    });
}

/// The same; shape: two pruners at neighbours in a chain of three, whose last is in use. Bound 3.
#[test]
fn a_claim_in_a_chain_is_found_after_neighbours_were_pruned_by_two() {
    check(3, || {
        let stage = Stage::with_full_root();
        let [oldest, rest @ ..] = [4, 5, 6, 7, 8, 9].map(|who| stage.place(add(0, MIDDLE, who)));
        drop_slot(oldest);
        rest.into_iter().for_each(free);
        let pruner = spawn(&stage, Stage::trim);
        stage.trim();
        pruner.join().unwrap();
        assert!(stage.finds(4), "lost");
    });
}

/// The same; shape: a thread's own node in a chain is pruned while it goes there. Bound 3.
#[test]
fn a_claim_in_a_node_of_its_own_is_found_after_a_prune() {
    check(3, || {
        let stage = Stage::with_node_of(2);
        let pruner = spawn(&stage, Stage::trim);
        let (placed, clear) = stage.enter(add(0, MIDDLE, 2));
        pruner.join().unwrap();
        assert!(clear && stage.finds(2), "lost");
        free(placed);
        stage.assert_can_be_emptied();
    });
}

/// The same; shape: a node for a class is pruned while somebody of that class goes there. Bound 3.
#[test]
fn a_claim_in_a_node_of_its_class_is_found_after_a_prune() {
    check(3, || {
        let stage = Stage::with_node_of_a_class(exclusive(0, 0, 1));
        let pruner = spawn(&stage, Stage::trim);
        let (placed, clear) = stage.enter(exclusive(0, 0, 2));
        pruner.join().unwrap();
        assert!(clear && stage.finds(2), "lost");
        free(placed);
        stage.assert_can_be_emptied();
    });
}

/// The same; shape: a node is being pruned while it is cut by class, and somebody goes there. Three threads, bound 2.
#[test]
fn a_claim_below_a_pruned_node_that_is_cut_by_class_is_found() {
    check(2, || {
        let stage = Stage::with_child();
        let pruner = spawn(&stage, Stage::trim);
        let it = spawn(&stage, |stage| stage.part_by_class(exclusive(0, 0, 1)));
        // (Of another class than the first page, by the way.)
        let (placed, clear) = stage.enter(exclusive(4096, 4096, 2));
        pruner.join().unwrap();
        it.join().unwrap();
        assert!(clear && stage.finds(2), "lost");
        free(placed);
        stage.assert_can_be_emptied();
    });
}

/// The same; shape: a chain gets a node in front while the one that was in front is pruned. Three threads, bound 2.
#[test]
fn a_claim_in_a_new_chain_node_is_found_after_a_prune() {
    check(2, || {
        let stage = Stage::with_full_root();
        let [one, two] = [4, 5].map(|who| stage.place(add(0, MIDDLE, who)));
        let it = spawn(&stage, |stage| drop_slot(stage.place(exclusive(0, MIDDLE, 2))));
        let pruner = spawn(&stage, Stage::trim);
        free(one);
        free(two);
        it.join().unwrap();
        pruner.join().unwrap();
        assert!(stage.finds(2), "lost");
    });
}

/// The same; shape: a node is spliced in above the one that is being pruned. Bound 3.
#[test]
fn a_claim_above_a_pruned_node_is_found() {
    check(3, || {
        let stage = Stage::with_small_child();
        let pruner = spawn(&stage, Stage::trim);
        stage.grow(exclusive(0, 2, 2));
        stage.place(exclusive(0, 2, 2));
        pruner.join().unwrap();
        assert!(stage.finds(2), "lost");
    });
}

/// The same; shape: a vacant node between the root and a node in use is taken out, while a request goes to it. Bound 3.
#[test]
fn a_claim_in_a_step_that_is_taken_out_is_found() {
    check(3, || {
        let stage = Stage::with_step();
        let pruner = spawn(&stage, Stage::trim);
        // Too wide for the node below.
        stage.place(exclusive(MIDDLE / 2 - 1, MIDDLE / 2, 2));
        pruner.join().unwrap();
        assert!(stage.finds(2) && stage.finds(100), "lost");
    });
}

/// The same; shape: such a node gets another child, and a request goes there. Bound 2.
#[test]
fn a_claim_below_a_step_that_is_taken_out_is_found() {
    check(2, || {
        let stage = Stage::with_step();
        let pruner = spawn(&stage, Stage::trim);
        let ask = exclusive(MIDDLE / 2, MIDDLE / 2, 2);
        stage.grow(ask);
        stage.place(ask);
        pruner.join().unwrap();
        assert!(stage.finds(2) && stage.finds(100), "lost");
    });
}

/// The same; shape: such a node is taken out by one, and what is below it by another. Three threads, bound 1.
#[test]
fn a_claim_is_found_after_a_step_and_its_child_were_pruned_by_two() {
    check(1, || {
        let stage = Stage::with_child();
        stage.grow(exclusive(0, 0, 1));
        stage.grow(exclusive(0, 0, 1));
        let pruners = [spawn(&stage, Stage::trim), spawn(&stage, Stage::trim)];
        let placed = stage.place(exclusive(0, 0, 2));
        pruners.into_iter().for_each(|pruner| pruner.join().unwrap());
        assert!(stage.finds(2), "lost");
        free(placed);
        stage.assert_can_be_emptied();
    });
}

/// Property: of two that publish and then scan, one sees the other. Shape: above one of them a node is taken out. Three
/// threads, bound 1.
#[test]
fn one_of_two_sees_the_other_while_a_step_is_taken_out() {
    check(1, || {
        let stage = Stage::with_step();
        // The one is too wide for the node below, and none meets who is there.
        one_sees_the_other(&stage, exclusive(1, MIDDLE / 2, 2), exclusive(1, 1, 3), Some(Stage::trim));
    });
}

/// The same; shape: a child goes, and the node of its chain takes its place, and gets a child of its own. Bound 2.
#[test]
fn one_of_two_sees_the_other_while_a_chain_takes_its_nodes_place() {
    check(2, || {
        let stage = Stage::with_child();
        let quarter = MIDDLE / 2;
        let [one, two, _chained] = [100, 101, 102].map(|who| stage.place(add(quarter - 1, quarter, who)));
        free(one);
        free(two);
        let ask = exclusive(0, 0, 3);
        let it = spawn(&stage, move |stage| {
            stage.trim();
            stage.grow(ask);
            stage.place_and_look(ask)
        });
        let one_saw = stage.place_and_look(exclusive(0, 0, 2));
        assert!(it.join().unwrap() | one_saw, "neither saw the other");
        assert!(stage.finds(2) && stage.finds(3) && stage.finds(102), "lost");
    });
}

/// Property: what was written under a range is known to who finds the range free, though its node is gone. Three
/// threads, bound 2.
#[test]
fn writes_are_known_through_a_pruned_node() {
    check(2, || {
        let stage = Stage::with_child();
        let it = spawn(&stage, |stage| stage.attempt(exclusive(0, 0, 3)));
        let pruner = spawn(&stage, Stage::trim);
        stage.attempt(exclusive(0, MIDDLE, 2));
        it.join().unwrap();
        pruner.join().unwrap();
    });
}

/// The same; shape: the node was vacant when the pruner looked first, and is again when it looks behind its fence.
/// Three threads, bound 2.
#[test]
fn writes_are_known_through_a_node_that_was_used_while_it_was_pruned() {
    check(2, || {
        let stage = Stage::with_child();
        let ask = exclusive(0, 0, 2);
        let writer = stage.place(ask);
        let pruner = spawn(&stage, move |stage| stage.tree.remove_for(&ask.entry(), &LazyPin::new()));
        let reader = spawn(&stage, |stage| stage.attempt(exclusive(0, MIDDLE, 3)));
        stage.byte.touch(Exclusive);
        free(writer);
        pruner.join().unwrap();
        reader.join().unwrap();
    });
}

/// The same; shape: the slot was claimed by somebody else, whom the reader does not conflict with. Three threads, bound 2.
#[test]
fn writes_are_known_through_a_slot_used_again() {
    check(2, || {
        let stage = Stage::with_child();
        let writer = stage.place(exclusive(0, 0, 2));
        stage.byte.touch(Exclusive);
        let next = spawn(&stage, |stage| drop_slot(stage.place(add(1, 1, 4))));
        let reader = spawn(&stage, |stage| stage.attempt(add(0, MIDDLE, 5)));
        free(writer);
        next.join().unwrap();
        reader.join().unwrap();
    });
}

/// The same; shape: the slot changes hands while the reader reads it. Three threads, bound 2.
#[test]
fn writes_are_known_through_a_slot_that_changes_hands() {
    check(2, || {
        let stage = Stage::new();
        let writer = stage.place(exclusive(0, 0, 2));
        let ask = add(0, 0, 3);
        let placed = stage.place(ask);
        let reader = spawn(&stage, move |stage| {
            if stage.is_clear(ask, Some(&placed)) {
                stage.byte.touch(Add);
            }
        });
        let next = spawn(&stage, |stage| drop_slot(stage.place(add(1, 1, 4))));
        stage.byte.touch(Exclusive);
        free(writer);
        next.join().unwrap();
        reader.join().unwrap();
    });
}

/// Property: a record that is half of one request and half of another is not believed. Shape: a slot is used again for
/// a range that the scan must see, beside one that it must not. Bound 3.
#[test]
fn a_slot_used_again_is_not_missed() {
    check(3, || {
        let stage = Stage::new();
        let it = spawn(&stage, |stage| {
            free(stage.place(exclusive(0, 0, 3)));
            stage.attempt(exclusive(2, 3, 3));
        });
        stage.attempt(exclusive(3, 3, 2));
        it.join().unwrap();
    });
}

/// The same; shape: the slot is free for a moment, then used again by who does not conflict. Bound 3.
#[test]
fn a_slot_seen_free_hands_its_writes_on() {
    check(3, || {
        let stage = Stage::new();
        let it = spawn(&stage, |stage| {
            stage.attempt(exclusive(0, 0, 3));
            stage.place(exclusive(1, 1, 3));
        });
        stage.attempt(exclusive(0, 0, 2));
        it.join().unwrap();
    });
}

/// Property: a look without a request of one's own (`try_`) never finds a conflict that was not there: not with the
/// start of one record and the end of the next. Bound 3.
#[test]
fn a_torn_record_is_no_conflict() {
    check(3, || {
        let stage = Stage::new();
        let before = stage.place(exclusive(0, 0, 3));
        let it = spawn(&stage, |stage| {
            free(before);
            stage.place(exclusive(2, 2, 3));
        });
        assert!(stage.is_clear(exclusive(1, 1, 2), None), "a conflict with nobody");
        it.join().unwrap();
    });
}

/// Leaves a request where it is.
fn drop_slot(_: Placed<Nobody>) {}
