//! The tree's shortcuts: who comes by one, and looks at one node only, is seen by or sees whoever is above that node.
//!
//! The main thread, which is owner 3, has the shortcut, or tries to get it.

use super::check;
use super::tree::{Ask, MIDDLE, Stage, add, blocking, exclusive, free, spawn};
use crate::facts::owner::Visitor;
use crate::platform::reclaim::LazyPin;
use crate::tree::ByShortcut;
use std::sync::Arc;

impl Stage {
    /// The calling thread looks for a shortcut to where `ask` would be placed.
    fn remember(&self, ask: Ask) {
        self.tree.remember_for(&ask.entry(), &LazyPin::new());
    }

    /// Whether a request could be placed by one now.
    fn has_shortcut(&self, ask: Ask) -> bool {
        // SAFETY: each model keeps its stage until all its threads have ended.
        match unsafe { self.tree.place_by_shortcut(ask.entry(), ask.query().against, Visitor::numbered(3)) } {
            ByShortcut::Placed(placed, _) => {
                free(placed);
                true
            }
            ByShortcut::TurnedBack | ByShortcut::None => false,
        }
    }

    /// One whose main thread has a shortcut to the root's child for requests like `ask`.
    fn with_shortcut(stage: Arc<Stage>, ask: Ask) -> Arc<Stage> {
        stage.remember(ask);
        assert!(stage.has_shortcut(ask), "there should be one");
        stage
    }
}

/// The main thread places `mine` by its shortcut, and another thread `other`, and both look.
fn one_sees_the_other(stage: &Arc<Stage>, mine: Ask, other: Ask) {
    let it = spawn(stage, move |stage| stage.place_and_look(other));
    let i_saw = stage.place_and_look(mine);
    assert!(it.join().unwrap() | i_saw, "neither saw the other");
}

/// Property: of two that publish and then look, one sees the other. Shape: one in the root, the other comes to the
/// root's child by a shortcut. Bound 4.
#[test]
fn one_of_two_sees_the_other_by_a_shortcut() {
    check(4, || {
        let stage = Stage::with_shortcut(Stage::with_child(), exclusive(0, 0, 3));
        one_sees_the_other(&stage, exclusive(0, 0, 3), exclusive(0, MIDDLE, 2));
    });
}

/// The same; shape: who has the shortcut looks for it while the other arrives. Bound 3.
#[test]
fn one_of_two_sees_the_other_by_a_new_shortcut() {
    check(3, || {
        let stage = Stage::with_child();
        let it = spawn(&stage, |stage| stage.place_and_look(exclusive(0, MIDDLE, 2)));
        stage.remember(exclusive(0, 0, 3));
        let i_saw = stage.place_and_look(exclusive(0, 0, 3));
        assert!(it.join().unwrap() | i_saw, "neither saw the other");
    });
}

/// The same; shape: who has the shortcut gets it by a request of its own, on whose way the other arrives. Bound 3.
#[test]
fn one_of_two_sees_the_other_by_a_shortcut_that_a_request_has_found() {
    check(3, || {
        let stage = Stage::with_child();
        // Found there twice, in an era that has begun: the next one remembers.
        (0..2).for_each(|_| stage.attempt(exclusive(0, 0, 3)));
        let it = spawn(&stage, |stage| stage.place_and_look(exclusive(0, MIDDLE, 2)));
        let (placed, _) = stage.enter(exclusive(0, 0, 3));
        free(placed);
        let i_saw = stage.place_and_look(exclusive(0, 0, 3));
        assert!(it.join().unwrap() | i_saw, "neither saw the other");
    });
}

/// The same; shape: and that request has begun the era. Bound 3.
#[test]
fn one_of_two_sees_the_other_by_a_shortcut_of_a_request_that_has_begun_the_era() {
    check(3, || {
        let stage = Stage::with_child();
        // Found there once: the next one begins an era.
        stage.attempt(exclusive(0, 0, 3));
        let it = spawn(&stage, |stage| stage.place_and_look(exclusive(0, MIDDLE, 2)));
        let (placed, _) = stage.enter(exclusive(0, 0, 3));
        free(placed);
        let i_saw = stage.place_and_look(exclusive(0, 0, 3));
        assert!(it.join().unwrap() | i_saw, "neither saw the other");
    });
}

/// The same; shape: a third one, who is in nobody's way, ends the era. Three threads, bound 3.
#[test]
fn one_of_two_sees_the_other_by_a_shortcut_while_a_third_ends_the_era() {
    check(3, || {
        let stage = Stage::with_shortcut(Stage::with_child(), exclusive(0, 0, 3));
        let third = spawn(&stage, |stage| stage.tree.end_era());
        one_sees_the_other(&stage, exclusive(0, 0, 3), exclusive(0, MIDDLE, 2));
        third.join().unwrap();
    });
}

/// The same; shape: and begins another. Three threads, bound 2.
#[test]
fn one_of_two_sees_the_other_by_a_shortcut_of_an_era_that_is_over() {
    check(2, || {
        let stage = Stage::with_shortcut(Stage::with_child(), exclusive(0, 0, 3));
        let third = spawn(&stage, |stage| {
            stage.tree.end_era();
            stage.remember(exclusive(0, 0, 5));
        });
        one_sees_the_other(&stage, exclusive(0, 0, 3), exclusive(0, MIDDLE, 2));
        third.join().unwrap();
    });
}

/// The same; shape: a shortcut for requests to add, a request to block, and somebody above whom the adders do not
/// concern. Bound 3.
#[test]
fn one_of_two_sees_the_other_of_another_mode_than_the_shortcuts() {
    check(3, || {
        let stage = Stage::new();
        stage.grow(add(0, 0, 1));
        let stage = Stage::with_shortcut(stage, add(0, 0, 3));
        one_sees_the_other(&stage, blocking(0, 0, 3), add(0, MIDDLE, 2));
    });
}

/// The same; shape: the link gets that mode while the shortcut is looked for. Three threads, bound 2.
#[test]
fn one_of_two_sees_the_other_of_a_mode_that_is_announced_meanwhile() {
    check(2, || {
        let stage = Stage::new();
        stage.grow(add(0, 0, 1));
        let announcer = spawn(&stage, |stage| stage.tree.announce_for(&blocking(1, 1, 4).entry(), &LazyPin::new()));
        let it = spawn(&stage, |stage| stage.place_and_look(add(0, MIDDLE, 2)));
        stage.remember(add(0, 0, 3));
        let i_saw = stage.place_and_look(blocking(0, 0, 3));
        announcer.join().unwrap();
        assert!(it.join().unwrap() | i_saw, "neither saw the other");
    });
}

/// The same; shape: a node is spliced in above the one that the shortcut leads to. Bound 3.
#[test]
fn one_of_two_sees_the_other_by_a_shortcut_across_a_splice() {
    check(3, || {
        let stage = Stage::with_shortcut(Stage::with_small_child(), exclusive(0, 0, 3));
        let it = spawn(&stage, |stage| {
            stage.grow(exclusive(0, 2, 2));
            stage.place_and_look(exclusive(0, 2, 2))
        });
        let i_saw = stage.place_and_look(exclusive(0, 0, 3));
        assert!(it.join().unwrap() | i_saw, "neither saw the other");
    });
}

/// The same; shape: and the shortcut is looked for meanwhile. Bound 2.
#[test]
fn one_of_two_sees_the_other_by_a_new_shortcut_across_a_splice() {
    check(2, || {
        let stage = Stage::with_small_child();
        let it = spawn(&stage, |stage| {
            stage.grow(exclusive(0, 2, 2));
            stage.place_and_look(exclusive(0, 2, 2))
        });
        stage.remember(exclusive(0, 0, 3));
        let i_saw = stage.place_and_look(exclusive(0, 0, 3));
        assert!(it.join().unwrap() | i_saw, "neither saw the other");
    });
}

/// The same; shape: the node that the shortcut leads to gets a child, and somebody goes there. Bound 3.
#[test]
fn one_of_two_sees_the_other_below_a_shortcut() {
    check(3, || {
        let stage = Stage::with_shortcut(Stage::with_child(), exclusive(0, 0, 3));
        let it = spawn(&stage, |stage| {
            stage.grow(exclusive(0, 0, 2));
            stage.place_and_look(exclusive(0, 0, 2))
        });
        let i_saw = stage.place_and_look(exclusive(0, 0, 3));
        assert!(it.join().unwrap() | i_saw, "neither saw the other");
    });
}

/// The same; shape: two by shortcuts of their own to one node. Bound 3.
#[test]
fn one_of_two_sees_the_other_by_two_shortcuts() {
    check(3, || {
        let stage = Stage::with_shortcut(Stage::with_child(), exclusive(0, 0, 3));
        let it = spawn(&stage, |stage| {
            stage.remember(exclusive(0, 0, 2));
            stage.place_and_look(exclusive(0, 1, 2))
        });
        let i_saw = stage.place_and_look(exclusive(0, 0, 3));
        assert!(it.join().unwrap() | i_saw, "neither saw the other");
    });
}

/// Property: a request is never lost in a node that was unlinked. Shape: the node that the shortcut leads to is pruned.
/// Bound 4.
#[test]
fn a_claim_by_a_shortcut_is_found_after_a_prune() {
    check(4, || {
        let stage = Stage::with_shortcut(Stage::with_child(), exclusive(0, 0, 3));
        let pruner = spawn(&stage, Stage::trim);
        let (placed, clear) = stage.enter(exclusive(0, 0, 3));
        pruner.join().unwrap();
        assert!(clear && stage.finds(3), "lost");
        free(placed);
        stage.assert_can_be_emptied();
    });
}

/// The same; shape: it has been pruned, and there is another in its place. Bound 2.
#[test]
fn a_shortcut_to_a_node_that_is_gone_is_none() {
    check(2, || {
        let stage = Stage::with_shortcut(Stage::with_child(), exclusive(0, 0, 3));
        stage.trim();
        let it = spawn(&stage, |stage| stage.grow(exclusive(0, 0, 2)));
        let (placed, clear) = stage.enter(exclusive(0, 0, 3));
        it.join().unwrap();
        assert!(clear && stage.finds(3), "lost");
        free(placed);
        stage.assert_can_be_emptied();
    });
}

/// Property: one at a time, and each after the other's writes. Shape: one above, one by a shortcut, twice. Bound 3.
#[test]
fn attempts_by_a_shortcut_exclude_one_another() {
    check(3, || {
        let stage = Stage::with_shortcut(Stage::with_child(), exclusive(0, 0, 3));
        let it = spawn(&stage, |stage| stage.attempt(exclusive(0, MIDDLE, 2)));
        stage.attempt(exclusive(0, 0, 3));
        stage.attempt(exclusive(0, 0, 3));
        it.join().unwrap();
    });
}

/// The same; shape: the shortcut is looked for while somebody is above, or has just gone. Bound 3.
#[test]
fn attempts_by_a_new_shortcut_exclude_one_another() {
    check(3, || {
        let stage = Stage::with_child();
        let it = spawn(&stage, |stage| stage.attempt(exclusive(0, MIDDLE, 2)));
        stage.remember(exclusive(0, 0, 3));
        stage.attempt(exclusive(0, 0, 3));
        it.join().unwrap();
    });
}

/// Property: a shortcut is good for no byte that somebody above has. Shape: he has others of the node than those that
/// it was looked for with. Bound 2.
#[test]
fn a_shortcut_is_not_past_who_has_other_bytes_of_the_node() {
    check(2, || {
        let stage = Stage::with_child();
        let half = MIDDLE / 2;
        let it = spawn(&stage, move |stage| stage.place_and_look(exclusive(half, MIDDLE, 2)));
        stage.remember(exclusive(0, 0, 3));
        let i_saw = stage.place_and_look(exclusive(half, half, 3));
        assert!(it.join().unwrap() | i_saw, "neither saw the other");
    });
}
