//! The range lock proposed for Linux (Kara 2013, Bueso 2017): an interval tree under a lock has all requests, held and
//! waiting. Each counts the conflicting ones that it found on arrival; a release takes one from each later conflicting
//! one and wakes those that come to none. So it is first come, first served. The tree is a treap whose nodes know the
//! greatest end below; the lock is parking_lot's mutex.

use super::{Access, Covers, Peer, SPINS};
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};

const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Waiter {
    granted: AtomicBool,
    thread: Thread,
}

#[derive(Debug)]
struct Node {
    range: Range<u64>,
    access: Access,
    /// Arrival.
    number: u64,
    /// Earlier conflicting requests that live.
    blockers: usize,
    waiter: Option<Arc<Waiter>>,
    /// Of the treap: a parent's is no smaller.
    priority: u32,
    /// The greatest end in this subtree.
    greatest: u64,
    left: u32,
    right: u32,
}

impl Node {
    /// Equal starts are ordered by arrival.
    fn key(&self) -> (u64, u64) {
        (self.range.start, self.number)
    }
}

#[derive(Debug)]
struct Tree {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: u32,
    next: u64,
    random: fastrand::Rng,
}

impl Tree {
    fn at(&mut self, node: u32) -> &mut Node {
        &mut self.nodes[node as usize]
    }

    fn greatest(&self, node: u32) -> u64 {
        self.nodes.get(node as usize).map_or(0, |node| node.greatest)
    }

    fn update(&mut self, node: u32) {
        let Node { left, right, ref range, .. } = self.nodes[node as usize];
        self.at(node).greatest = range.end.max(self.greatest(left)).max(self.greatest(right));
    }

    /// Those before the key, and those after.
    fn split(&mut self, node: u32, key: (u64, u64)) -> (u32, u32) {
        if node == NONE {
            return (NONE, NONE);
        }
        let halves;
        if self.at(node).key() < key {
            let right = self.at(node).right;
            let (low, high) = self.split(right, key);
            self.at(node).right = low;
            halves = (node, high);
        } else {
            let left = self.at(node).left;
            let (low, high) = self.split(left, key);
            self.at(node).left = high;
            halves = (low, node);
        }
        self.update(node);
        halves
    }

    /// All of `low` are before all of `high`.
    fn merge(&mut self, low: u32, high: u32) -> u32 {
        if low == NONE || high == NONE {
            return if low == NONE { high } else { low };
        }
        let top;
        if self.at(low).priority >= self.at(high).priority {
            top = low;
            let right = self.at(low).right;
            self.at(low).right = self.merge(right, high);
        } else {
            top = high;
            let left = self.at(high).left;
            self.at(high).left = self.merge(low, left);
        }
        self.update(top);
        top
    }

    fn insert_below(&mut self, node: u32, new: u32) -> u32 {
        let key = self.at(new).key();
        if node == NONE || self.at(new).priority > self.at(node).priority {
            let (left, right) = self.split(node, key);
            self.at(new).left = left;
            self.at(new).right = right;
            self.update(new);
            return new;
        }
        if self.at(node).key() < key {
            let right = self.at(node).right;
            self.at(node).right = self.insert_below(right, new);
        } else {
            let left = self.at(node).left;
            self.at(node).left = self.insert_below(left, new);
        }
        self.update(node);
        node
    }

    fn remove_below(&mut self, node: u32, old: u32) -> u32 {
        if node == old {
            let Node { left, right, .. } = *self.at(node);
            return self.merge(left, right);
        }
        if self.at(node).key() < self.at(old).key() {
            let right = self.at(node).right;
            self.at(node).right = self.remove_below(right, old);
        } else {
            let left = self.at(node).left;
            self.at(node).left = self.remove_below(left, old);
        }
        self.update(node);
        node
    }

    /// Visits what conflicts with a request.
    fn conflicts(&mut self, node: u32, range: &Range<u64>, access: Access, visit: &mut impl FnMut(&mut Node)) {
        if node == NONE || self.at(node).greatest <= range.start {
            return;
        }
        let Node { left, right, .. } = *self.at(node);
        self.conflicts(left, range, access, visit);
        let here = self.at(node);
        if here.range.start >= range.end {
            return;
        }
        let both_shared = access == Access::Shared && here.access == Access::Shared;
        if here.range.end > range.start && !both_shared {
            visit(here);
        }
        self.conflicts(right, range, access, visit);
    }

    fn arrive(&mut self, range: Range<u64>, access: Access) -> (u32, Option<Arc<Waiter>>) {
        let mut blockers = 0;
        self.conflicts(self.root, &range, access, &mut |_| blockers += 1);
        let waiter =
            (blockers > 0).then(|| Arc::new(Waiter { granted: AtomicBool::new(false), thread: thread::current() }));
        self.next += 1;
        let (number, priority, greatest) = (self.next, self.random.u32(..), range.end);
        let node = Node {
            range,
            access,
            number,
            blockers,
            waiter: waiter.clone(),
            priority,
            greatest,
            left: NONE,
            right: NONE,
        };
        let new = match self.free.pop() {
            Some(free) => {
                *self.at(free) = node;
                free
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        };
        self.root = self.insert_below(self.root, new);
        (new, waiter)
    }

    fn leave(&mut self, node: u32) {
        self.root = self.remove_below(self.root, node);
        let Node { ref range, access, number, .. } = *self.at(node);
        let range = range.clone();
        self.conflicts(self.root, &range, access, &mut |other| {
            if other.number > number {
                other.blockers -= 1;
                let waiter = if other.blockers == 0 { other.waiter.take() } else { None };
                if let Some(waiter) = waiter {
                    waiter.granted.store(true, Ordering::Release);
                    waiter.thread.unpark();
                }
            }
        });
        self.free.push(node);
    }
}

#[derive(Debug)]
pub(crate) struct IntervalTree(Mutex<Tree>);

#[derive(Debug)]
pub(crate) struct Guard<'a>(&'a IntervalTree, u32);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.0.lock().leave(self.1);
    }
}

impl Peer for IntervalTree {
    const NAME: &'static str = "interval-tree";
    const COVERS: Covers = Covers::Range;
    type Guard<'a> = Guard<'a>;

    fn new(_bytes: u64) -> IntervalTree {
        let random = fastrand::Rng::with_seed(1);
        IntervalTree(Mutex::new(Tree { nodes: Vec::new(), free: Vec::new(), root: NONE, next: 0, random }))
    }

    fn acquire(&self, _thread: usize, range: Range<u64>, access: Access) -> Guard<'_> {
        let (node, waiter) = self.0.lock().arrive(range, access);
        if let Some(waiter) = waiter {
            let granted = || waiter.granted.load(Ordering::Acquire);
            for _ in 0..SPINS {
                if granted() {
                    return Guard(self, node);
                }
                std::hint::spin_loop();
            }
            while !granted() {
                thread::park();
            }
        }
        Guard(self, node)
    }
}
