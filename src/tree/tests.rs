//! The tree by itself, on one thread: what it finds, and what shape it takes. (What threads do to it is in `models` and
//! `tests/`.)

use super::bare::{Ask, Bare, Put, Thread};
use super::*;
use Thread::{Looking, Passing};
use fastrand::Rng;

/// The lowest mode bit: any would do, the tree does not interpret them.
const MODE: u64 = 1;

fn put(tree: &Bare, start: u64, last: u64, owner: u64, thread: Thread) -> Put {
    tree.put(Ask { start, last, mode: MODE, owner }, thread)
}

/// The owners that a scan of `start..=last` finds.
fn found(tree: &Bare, start: u64, last: u64) -> Vec<u64> {
    tree.found(Ask { start, last, mode: MODE, owner: 0 }, MODE)
}

/// A range somewhere, of some size, now and then the whole or at the very end.
fn some_range(rng: &mut fastrand::Rng, space: u32) -> (u64, u64) {
    match rng.u32(0..20) {
        0 => (0, u64::MAX),
        1 => (u64::MAX - rng.u64(0..4), u64::MAX),
        _ => {
            let start = rng.u64(..) >> (64 - space);
            let len = rng.u64(..) >> (64 - rng.u32(1..=space));
            (start, start.saturating_add(len))
        }
    }
}

#[test]
fn scans_find_what_a_plain_list_finds() {
    for seed in 0..if cfg!(miri) { 4 } else { 400 } {
        let mut rng = fastrand::Rng::with_seed(seed);
        let space = rng.u32(3..64);
        let tree = Bare::new();
        let mut list: Vec<(u64, u64, u64, Put)> = Vec::new();
        for owner in 1..400 {
            if rng.u32(0..100) < 40 && !list.is_empty() {
                let (.., placed) = list.swap_remove(rng.usize(..list.len()));
                tree.free(&placed);
            } else {
                let (start, last) = some_range(&mut rng, space);
                // Threads that take turns, so that contention grows the tree as well.
                let thread = if rng.bool() { Looking(rng.u64(1..5)) } else { Passing(rng.u64(1..5)) };
                let put = if rng.bool() {
                    put(&tree, start, last, owner, thread)
                } else {
                    let (put, met) = tree.put_and_look(Ask { start, last, mode: MODE, owner }, MODE, thread);
                    assert_eq!(
                        met,
                        list.iter().any(|held| held.0 <= last && start <= held.1),
                        "seed {seed}, owner {owner}"
                    );
                    put
                };
                list.push((start, last, owner, put));
            }
            if rng.u32(0..30) == 0 {
                tree.trim();
            }
            let (start, last) = some_range(&mut rng, space);
            if rng.u32(0..10) == 0 {
                tree.part_by_class(Ask { start, last, mode: MODE, owner });
            }
            let mut expected: Vec<u64> =
                list.iter().filter(|held| held.0 <= last && start <= held.1).map(|held| held.2).collect();
            expected.sort_unstable();
            assert_eq!(found(&tree, start, last), expected, "seed {seed}, owner {owner}, {start}..={last}");
            assert_eq!(tree.check(), Ok(list.len()), "seed {seed}, owner {owner}");
        }
        list.iter().for_each(|held| tree.free(&held.3));
        tree.trim();
        assert_eq!(tree.nodes(), 0, "seed {seed}");
    }
}

#[test]
fn a_thread_alone_stays_in_the_root() {
    let tree = Bare::new();
    for _ in 0..1000 {
        tree.free(&put(&tree, 0, 4095, 1, Looking(1)));
    }
    assert_eq!(tree.nodes(), 0);
}

#[test]
fn threads_that_come_one_after_the_other_stay_in_the_root() {
    let tree = Bare::new();
    for thread in 1..50 {
        for _ in 0..3 {
            tree.free(&put(&tree, thread << 20, (thread << 20) + 4095, thread, Looking(thread)));
        }
    }
    assert_eq!(tree.nodes(), 0);
}

/// A page of the tail that two threads take in turns, each looking at the shape once in a while.
fn append(tree: &Bare, page: u64) -> Put {
    let thread = 1 + page % 2;
    let ask = Ask { start: page << 12, last: (page << 12) + 4095, mode: 4, owner: thread };
    if page % 33 == 0 {
        tree.sample_for(ask, Looking(thread));
    }
    let (put, met) = tree.put_and_look(ask, 7, Passing(thread));
    assert!(!met, "nobody is in the way of page {page}");
    put
}

/// They would meet again in each child, but seldom on pages of the same class.
#[test]
fn threads_that_go_the_same_way_part_by_class() {
    let tree = Bare::new();
    let end = 64 << 10;
    (0..end).for_each(|page| tree.free(&append(&tree, page)));
    assert!((8..=10).contains(&tree.nodes()), "{} nodes for threads at the tail of a file", tree.nodes());
    // Of pages side by side at least five are of different classes, however these are cut.
    let puts: Vec<_> = (end..end + 5).map(|page| append(&tree, page)).collect();
    for (index, one) in puts.iter().enumerate() {
        for other in &puts[index + 1..] {
            assert!(!one.0.shares_node_with(&other.0), "two pages side by side in one node");
        }
    }
    assert_eq!(tree.check(), Ok(5));
    // One of all classes, and one of two.
    let all = Ask { start: 0, last: u64::MAX, mode: 4, owner: 3 };
    assert_eq!(tree.found(all, 4), [1, 1, 1, 2, 2]);
    let across = Ask { start: (end << 12) - 1, last: end << 12, ..all };
    let (put, met) = tree.put_and_look(across, 7, Passing(3));
    assert!(met && puts.iter().all(|one| !one.0.shares_node_with(&put.0)));
    assert_eq!(tree.check(), Ok(6));
    puts.iter().chain([&put]).for_each(|put| tree.free(put));
    tree.trim();
    assert_eq!(tree.nodes(), 0);
}

/// As many threads as find no room in a node get nodes for their classes, not a new child wherever they are.
#[test]
fn a_crowd_of_threads_that_go_the_same_way_parts_by_class() {
    let tree = Bare::new();
    let append = |page: u64| {
        let ask = Ask { start: page << 12, last: (page << 12) + 4095, mode: 4, owner: (1 + page % 24) << 10 };
        tree.put_and_look(ask, 7, Passing(1 + page % 24)).0
    };
    let mut held: std::collections::VecDeque<Put> = (0..24).map(append).collect();
    for page in 24..4096 {
        tree.free(&held.pop_front().expect("each has one"));
        held.push_back(append(page));
    }
    assert!((4..=12).contains(&tree.nodes()), "{} nodes for threads at the tail of a file", tree.nodes());
    assert_eq!(tree.check(), Ok(24));
    held.iter().for_each(|put| tree.free(put));
    tree.trim();
    assert_eq!(tree.nodes(), 0);
}

/// Who is left alone does not keep the nodes for classes in use.
#[test]
fn who_goes_on_alone_is_parted_from_nobody() {
    let tree = Bare::new();
    (0..64 << 10).for_each(|page| tree.free(&append(&tree, page)));
    // So long that the spells in which there were two are over.
    for page in 64 << 10..128 << 10 {
        let ask = Ask { start: page << 12, last: (page << 12) + 4095, mode: 4, owner: 1 };
        if page % 32 == 0 {
            tree.sample_for(ask, Looking(1));
        }
        tree.free(&tree.put_and_look(ask, 7, Passing(1)).0);
    }
    assert!(tree.nodes() <= 1, "{} nodes for a thread that is alone", tree.nodes());
}

/// The node that nodes for classes are chained to is vacant, for as long as all keep to these. It stays: they cannot
/// take its place.
#[test]
fn a_node_that_is_cut_by_class_stays() {
    let tree = Bare::new();
    part(&tree);
    let nodes = tree.nodes();
    tree.part_by_class(page(1));
    let (put, _) = tree.put_and_look(page(1), 7, Passing(1));
    assert_eq!(tree.nodes(), nodes + 1);
    tree.trim();
    assert_eq!((tree.nodes(), tree.check()), (2, Ok(1)), "the node, and the one for the class in its chain");
    tree.free(&put);
    tree.trim();
    assert_eq!(tree.nodes(), 0);
}

#[test]
fn threads_that_take_turns_part_and_meet_nowhere() {
    let tree = Bare::new();
    let at = |thread: u64, how: fn(u64) -> Thread| put(&tree, thread << 20, (thread << 20) + 4095, thread, how(thread));
    // Round after round, each thread once, one acquire in 32 of each looking at the shape.
    for round in 0..32 * 20 {
        for thread in 1..=16 {
            let samples = (round + thread) % 32 == 0;
            tree.free(&at(thread, if samples { Looking } else { Passing }));
        }
    }
    let placed: Vec<_> = (1..=16).map(|thread| at(thread, Passing)).collect();
    for (index, one) in placed.iter().enumerate() {
        for other in &placed[index + 1..] {
            assert!(!one.0.shares_node_with(&other.0), "two threads on one node after 20 looks each");
        }
    }
    placed.iter().for_each(|put| tree.free(put));
}

/// Four threads without a home ask for single pages, then for ranges of any length, then for single pages again: nodes
/// below are for those who stay within one of them.
#[test]
fn threads_that_ask_across_nodes_get_few() {
    const PAGES: u64 = 256;
    let tree = Bare::new();
    let mut rng = Rng::with_seed(1);
    let mut nodes_of = |is_range: bool, asks: u64| {
        for turn in 0..asks {
            let thread = 1 + turn % 4;
            let (one, other) = (rng.u64(..PAGES), rng.u64(..PAGES));
            let (first, last) = if is_range { (one.min(other), one.max(other)) } else { (one, one) };
            let ask = Ask { start: first << 12, last: (last << 12) + 4095, mode: 4, owner: thread };
            let looks = turn / 4 % 32 == thread;
            tree.free(&tree.put(ask, if looks { Looking(thread) } else { Passing(thread) }));
        }
        tree.nodes()
    };
    let many = 64 << 10;
    // Soon, and not only when the pruner's hand has come by so often that all chances are used up.
    let nodes = [nodes_of(false, many), nodes_of(true, 1 << 10), nodes_of(true, many), nodes_of(false, many)];
    assert!(nodes[0] >= 16, "{nodes:?}: threads part");
    assert!(nodes[1] <= 10 && nodes[2] <= 10, "{nodes:?}: and come together");
    assert!(nodes[3] >= 16, "{nodes:?}: and part again");
}

#[test]
fn who_stays_above_is_told_to_go_down() {
    let tree = Bare::new();
    let at = |thread: u64, start: u64| {
        let placed = put(&tree, start, start, thread, Looking(thread));
        tree.free(&placed);
        placed
    };
    // 1 and 2 take turns in the root, until one of them has gone down.
    for _ in 0..2 {
        at(1, 0);
        at(2, 1 << 40);
    }
    // Both in different nodes, and neither in the root, after a few more visits.
    for _ in 0..4 {
        at(1, 0);
        at(2, 1 << 40);
    }
    let (one, two) = (at(1, 0), at(2, 1 << 40));
    assert!(!one.0.shares_node_with(&two.0));
    let root = put(&tree, 0, u64::MAX, 3, Passing(3));
    assert!(!one.0.shares_node_with(&root.0) && !two.0.shares_node_with(&root.0));
    tree.free(&root);
}

/// Where thread `n` works.
fn page(n: u64) -> Ask {
    Ask { start: n << 20, last: (n << 20) + 4095, mode: MODE, owner: n }
}

/// Threads 1 and 2 take turns, until each has a node of its own.
fn part(tree: &Bare) {
    for n in (1..=2).cycle().take(100) {
        tree.free(&tree.put(page(n), Looking(n)));
    }
}

/// Found there twice running, a thread is at home there. (And once more, if an era is to begin.)
fn come_home(tree: &Bare, ask: Ask) {
    for _ in 0..3 {
        tree.free(&tree.put_and_look(ask, MODE, Passing(ask.owner)).0);
    }
}

#[test]
fn a_thread_has_a_shortcut_past_vacant_nodes() {
    let parted = || {
        let tree = Bare::new();
        part(&tree);
        come_home(&tree, page(1));
        tree
    };
    let tree = parted();
    assert!(tree.has_shortcut(page(1)), "nobody is above");
    assert!(!tree.has_shortcut(page(2)), "another node");
    assert!(!tree.has_shortcut(Ask { mode: MODE << 1, ..page(1) }), "the links of the way do not carry this mode");
    come_home(&tree, page(2));
    assert!(tree.has_shortcut(page(1)) && tree.has_shortcut(page(2)), "a way to each of a few nodes");
    assert!(!parted().has_shortcut(page(2)), "it is of this tree");

    let tree = parted();
    let around = tree.put(Ask { start: 0, last: u64::MAX, mode: MODE, owner: 3 }, Passing(3));
    assert!(!tree.has_shortcut(page(1)), "somebody has looked below");
    come_home(&tree, page(1));
    assert!(!tree.has_shortcut(page(1)), "somebody is above");
    tree.free(&around);
    come_home(&tree, page(1));
    assert!(tree.has_shortcut(page(1)), "nobody is above any more");
    tree.trim();
    assert!(!tree.has_shortcut(page(1)), "its node is gone");
}

/// Two nodes in the share of one shortcut: who goes from one to the other and back keeps what there was.
#[test]
fn who_is_at_home_nowhere_keeps_what_there_was() {
    let tree = Bare::new();
    part(&tree);
    // Children of their own for the two halves of thread 1's page, which are as near as nodes can be.
    let half = |n: u64| Ask { start: (1 << 20) + 2048 * n, last: (1 << 20) + 2048 * n + 7, ..page(1) };
    let beside = |n: u64| Ask { start: half(n % 2).start + 64 * n, last: half(n % 2).start + 64 * n, ..page(1) };
    let filler: Vec<_> = (2..3 * SLOTS as u64).map(|n| tree.put(beside(n), Passing(1))).collect();
    come_home(&tree, half(0));
    for n in [1, 0].into_iter().cycle().take(10) {
        tree.free(&tree.put_and_look(half(n), 0, Passing(1)).0);
    }
    assert!(tree.has_shortcut(half(0)) && !tree.has_shortcut(half(1)));
    filler.iter().for_each(|put| tree.free(put));
}

/// Its node is cut by now where the thread asks: it goes down, and does not look below from there, which would end
/// everybody's shortcuts.
#[test]
fn a_shortcut_to_a_node_that_has_been_cut_is_none() {
    let tree = Bare::new();
    part(&tree);
    let byte = |n: u64| Ask { start: page(1).start + 64 * n, last: page(1).start + 64 * n, ..page(1) };
    come_home(&tree, byte(0));
    let mut filler: Vec<_> = (1..2 * SLOTS as u64).map(|n| tree.put(byte(n), Passing(1))).collect();
    // The first ones are in the node; who found no room there is below.
    filler.drain(..SLOTS).for_each(|put| tree.free(&put));
    assert!(!tree.has_shortcut(byte(0)));
    let (put, met) = tree.put_and_look(byte(0), MODE, Passing(1));
    assert!(!met && filler.iter().any(|below| below.0.shares_node_with(&put.0)));
    tree.free(&put);
    filler.iter().for_each(|put| tree.free(put));
}

#[test]
fn somebody_above_who_has_other_bytes_bars_no_shortcut() {
    let tree = Bare::new();
    part(&tree);
    // Across a border of the root's cells: it stays there.
    let elsewhere = tree.put(Ask { start: (1 << 62) - 1, last: 1 << 62, mode: MODE, owner: 3 }, Passing(3));
    come_home(&tree, page(1));
    assert!(tree.has_shortcut(page(1)));
    assert!(!tree.put_and_look(page(1), MODE, Passing(1)).1, "nobody is in the way");
    tree.free(&elsewhere);
}

/// Nodes for classes above bar nobody's shortcut. Who is in them does.
#[test]
fn there_are_shortcuts_below_a_node_that_is_cut_by_class() {
    let tree = Bare::new();
    part(&tree);
    // Goes nowhere below the root: a node there for the class of its page.
    let above = Ask { start: 1 << 63, last: 1 << 63, mode: MODE, owner: 3 };
    tree.part_by_class(above);
    let (put, met) = tree.put_and_look(above, MODE, Passing(3));
    assert!(!met && tree.check() == Ok(1));
    come_home(&tree, page(1));
    assert!(tree.has_shortcut(page(1)), "who is above has other bytes");
    assert!(!tree.put_and_look(page(1), MODE, Passing(1)).1);
    tree.free(&put);

    // One whose bytes are in the node that came later.
    let tree = Bare::new();
    let beside = Ask { start: page(1).start + 8192, last: page(1).start + 8192, owner: 3, ..page(1) };
    tree.part_by_class(beside);
    let put = tree.put_and_look(beside, MODE, Passing(3)).0;
    part(&tree);
    come_home(&tree, page(1));
    assert!(tree.has_shortcut(page(1)), "who is above has other bytes");
    let both = Ask { last: beside.last, ..page(1) };
    assert!(!tree.has_shortcut(both) && !tree.has_shortcut(Ask { start: beside.last, ..both }), "and these");
    tree.free(&put);
}

#[test]
fn a_shortcut_ends_where_somebody_above_begins() {
    let tree = Bare::new();
    part(&tree);
    // Around what is at home in the one cell, two that cross its borders: they stay above.
    let bytes = |start: u64, last: u64| Ask { start: (1 << 20) + start, last: (1 << 20) + last, ..page(1) };
    let before = tree.put(Ask { start: 0, owner: 3, ..bytes(0, 999) }, Passing(3));
    let behind = tree.put(Ask { last: 2 << 20, owner: 4, ..bytes(5000, 5000) }, Passing(4));
    come_home(&tree, bytes(2000, 3000));
    assert!(tree.has_shortcut(bytes(1000, 4999)), "nobody above has these");
    assert!(!tree.has_shortcut(bytes(999, 4999)), "somebody's last byte");
    assert!(!tree.has_shortcut(bytes(1000, 5000)), "somebody's first byte");
    tree.free(&before);
    tree.free(&behind);
}

/// Requests that go with their like and cannot go down: each of the threads that take turns gets a node of its own,
/// whoever conflicts finds them there, and in the end all is given back.
#[test]
fn threads_that_share_a_range_part_in_the_chain() {
    // Each mode against the other: one that goes with its like.
    const OTHER: u64 = 2;
    let tree = Bare::new();
    let share = |thread| {
        let ask = Ask { start: 0, last: u64::MAX, mode: MODE, owner: thread };
        tree.sample_for(ask, Looking(thread));
        tree.put_and_look(ask, OTHER, Looking(thread))
    };
    for turn in 0..30 {
        let (put, met) = share(1 + turn % 3);
        assert!(!met, "nobody is in the way");
        tree.free(&put);
    }
    assert_eq!(tree.nodes(), 3);
    let puts = [1, 2, 3].map(|thread| share(thread).0);
    let [one, two, three] = puts.each_ref().map(|put| &put.0);
    assert!(!one.shares_node_with(two) && !two.shares_node_with(three) && !one.shares_node_with(three));
    let conflicts = Ask { start: 5, last: 5, mode: OTHER, owner: 9 };
    assert_eq!(tree.found(conflicts, MODE), [1, 2, 3]);
    assert!(tree.found(Ask { owner: 1, mode: MODE, ..conflicts }, OTHER).is_empty());
    // One of the other mode among them, in the chain or not.
    let (other, met) = tree.put_and_look(conflicts, MODE, Looking(1));
    assert!(met);
    assert_eq!(tree.found(Ask { owner: 1, mode: MODE, ..conflicts }, OTHER), [9]);
    assert_eq!(tree.check(), Ok(4));
    puts.iter().chain([&other]).for_each(|put| tree.free(put));
    tree.trim();
    assert_eq!(tree.nodes(), 0);
}

/// However many threads: they have no more nodes than each of them looks through.
#[test]
fn a_chain_has_room_for_some_threads_only() {
    let tree = Bare::new();
    for turn in 0..10_000 {
        let ask = Ask { start: 0, last: u64::MAX, mode: MODE, owner: 1 + turn % 100 };
        tree.free(&tree.put(ask, Looking(ask.owner)));
    }
    assert!((2..=32).contains(&tree.nodes()), "{tree:?}");
}

/// What does not go with its like stays together: a thread would only have more nodes to look at.
#[test]
fn threads_that_exclude_one_another_stay_together() {
    let tree = Bare::new();
    for turn in 0..30 {
        let ask = Ask { start: 0, last: u64::MAX, mode: 4, owner: 1 + turn % 3 };
        tree.free(&tree.put(ask, Looking(ask.owner)));
    }
    assert_eq!(tree.nodes(), 0);
}

#[test]
fn a_used_leaf_gets_its_chances_again_and_an_unused_one_goes() {
    let tree = Bare::new();
    // Fill the root, so that one more goes to a child; then make room above.
    let held: Vec<_> = (0..SLOTS as u64).map(|n| put(&tree, n << 8, n << 8, 1, Passing(1))).collect();
    let visit = || tree.free(&put(&tree, 77, 77, 1, Passing(1)));
    visit();
    assert_eq!(tree.nodes(), 1);
    // One leaf: a sweep goes round once, however many steps it has.
    let sweeps = |rounds| (0..rounds).for_each(|_| tree.sweep(4));
    sweeps(10);
    assert_eq!(tree.nodes(), 1, "the root is full: the leaf would only be made anew");
    held.iter().for_each(|put| tree.free(put));
    visit();
    sweeps(3);
    assert_eq!(tree.nodes(), 1);
    visit();
    sweeps(3);
    assert_eq!(tree.nodes(), 1, "used in between");
    sweeps(1);
    assert_eq!(tree.nodes(), 0, "not used for four visits of the hand");
}

/// Requests that are about to withdraw can fill a node that is being removed. Whoever finds it so waits neither for
/// them nor for the pruner.
#[test]
fn who_finds_a_full_node_that_is_being_removed_goes_above() {
    let tree = Bare::new();
    let fill = |last, owner| (0..SLOTS).map(|_| put(&tree, 0, last, owner, Passing(1))).collect::<Vec<_>>();
    let (above, below) = (fill(u64::MAX, 1), fill(0, 2));
    assert_eq!(tree.nodes(), 1);
    tree.freeze(Ask { start: 0, last: 0, mode: MODE, owner: 2 });
    above.iter().for_each(|put| tree.free(put));
    // One that could go further down, and one for the chain.
    let late = [(0, 0), (0, 1 << 61)].map(|(start, last)| put(&tree, start, last, 3, Passing(1)));
    assert!(late.iter().all(|late| !late.0.shares_node_with(&below[0].0)));
    assert_eq!((tree.nodes(), found(&tree, 1 << 60, 1 << 60)), (1, vec![3]));
    below.iter().chain(&late).for_each(|put| tree.free(put));
}

#[test]
fn chains_give_back_from_the_middle() {
    let tree = Bare::new();
    let all: Vec<_> = (1..=10 * SLOTS as u64).map(|owner| put(&tree, 0, u64::MAX, owner, Passing(1))).collect();
    assert_eq!(tree.nodes(), 9);
    let (keep, rest): (Vec<_>, Vec<_>) = all.iter().enumerate().partition(|(index, _)| index % (3 * SLOTS) == 0);
    rest.iter().for_each(|(_, placed)| tree.free(placed));
    tree.trim();
    assert_eq!(tree.nodes(), 3, "one node for each that is held outside the root");
    assert_eq!(found(&tree, 5, 5).len(), 4);
    keep.iter().for_each(|(_, placed)| tree.free(placed));
    tree.trim();
    assert_eq!(tree.nodes(), 0);
}

#[test]
fn steps_on_the_way_down_go_when_nobody_is_on_them() {
    let tree = Bare::new();
    // Nine requests in cells of their own at each level force the next level; only the deepest stay.
    let deep: Vec<_> = (0..16_u64)
        .map(|path| {
            let at = path << 60;
            let mut upper = Vec::new();
            for level in (4..58).step_by(4).rev() {
                upper.extend(
                    (0..=SLOTS as u64).map(|_| put(&tree, at + (1 << level), at + (1 << level), 1, Passing(1))),
                );
            }
            let deepest = put(&tree, at, at, 2, Passing(1));
            upper.iter().for_each(|put| tree.free(put));
            deepest
        })
        .collect();
    tree.trim();
    assert!(tree.nodes() <= 32, "{} nodes for 16 requests", tree.nodes());
    assert_eq!(found(&tree, 0, u64::MAX), vec![2; 16]);
    deep.iter().for_each(|put| tree.free(put));
    tree.trim();
    assert_eq!(tree.nodes(), 0);
}

/// Threads that ask everywhere share the space by nodes below one that was made for ranges, and in which one request
/// stays.
#[test]
fn one_that_stays_in_a_node_keeps_nobody_above() {
    let tree = Bare::new();
    let spread: Vec<_> = (0..=SLOTS as u64).map(|n| put(&tree, n << 36, n << 36, 3, Passing(3))).collect();
    let (above, stays) = spread.split_at(SLOTS);
    above.iter().for_each(|put| tree.free(put));
    assert_eq!(tree.nodes(), 1);
    let mut rng = Rng::with_seed(7);
    // How often of so many times two threads ask at random, and find themselves in one node.
    let mut meetings = |times: usize| {
        let meet = |_: &usize| {
            let [one, two] = [1, 2].map(|thread| {
                let page = rng.u64(0..1 << 18) << 12;
                let ask = Ask { start: page, last: page + 4095, mode: MODE, owner: thread };
                tree.put_and_look(ask, MODE << 1, Passing(thread)).0
            });
            let together = one.0.shares_node_with(&two.0);
            [one, two].iter().for_each(|put| tree.free(put));
            together
        };
        (0..times).filter(meet).count()
    };
    meetings(20_000);
    let (met, of) = (meetings(20_000), 20_000);
    assert!(met < of / 4, "{met} times of {of} in one node, with {tree:?}");
    stays.iter().for_each(|put| tree.free(put));
}

/// A node for each two live requests at most.
const LIVE_PER_NODE: usize = 2;

#[test]
fn memory_follows_a_moving_window() {
    let tree = Bare::new();
    let mut window = std::collections::VecDeque::new();
    for n in 0..100_000_u64 {
        window.push_back(put(&tree, n * 8192, n * 8192 + 4095, 1, Passing(1)));
        if window.len() > 1000 {
            tree.free(&window.pop_front().unwrap());
        }
        let nodes = nodes_at_most(n, || tree.nodes());
        assert!(nodes <= 1000 / LIVE_PER_NODE, "{nodes} nodes after {n}");
    }
    window.iter().for_each(|put| tree.free(put));
}

#[test]
fn memory_follows_a_crowd_that_changes() {
    const LIVE: usize = 1000;
    let (tree, mut rng) = (Bare::new(), Rng::with_seed(7));
    let mut page = || rng.u64(0..1 << 28) << 12;
    let mut live: Vec<_> = (0..LIVE).map(|_| page()).map(|at| put(&tree, at, at + 4095, 1, Passing(1))).collect();
    for n in 0..200_000 {
        let at = page();
        tree.free(&std::mem::replace(&mut live[n * 7 % LIVE], put(&tree, at, at + 4095, 1, Passing(1))));
        let nodes = nodes_at_most(n as u64, || tree.nodes());
        assert!(nodes <= LIVE / LIVE_PER_NODE, "{nodes} nodes after {n}");
    }
    live.iter().for_each(|put| tree.free(put));
}

/// Ranges that cannot go down: the oldest goes, or any. A node goes when the last one in it has gone, and there is room
/// for new ones near the front only.
#[test]
fn memory_follows_a_chain_that_changes() {
    const LIVE: usize = 1000;
    for any in [false, true] {
        let (tree, mut rng) = (Bare::new(), Rng::with_seed(7));
        let one = || put(&tree, 0, u64::MAX, 1, Passing(1));
        let mut live: Vec<_> = (0..LIVE).map(|_| one()).collect();
        let mut most = 0;
        for n in 0..10 * LIVE {
            let index = if any { rng.usize(..LIVE) } else { n % LIVE };
            tree.free(&live[index]);
            live[index] = one();
            most = most.max(nodes_at_most(n as u64, || tree.nodes()));
        }
        let per_node = if any { 1 } else { SLOTS / 2 };
        assert!(most <= LIVE / per_node, "{most} nodes");
        live.iter().for_each(|put| tree.free(put));
        tree.trim();
        assert_eq!(tree.nodes(), 0);
    }
}

/// Counts now and then only: it takes time in proportion.
fn nodes_at_most(n: u64, count: impl Fn() -> usize) -> usize {
    if n % 1000 == 0 { count() } else { 0 }
}
