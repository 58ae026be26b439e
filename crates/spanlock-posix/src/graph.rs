//! Who waits for whom in the kernel's order, over all files of a domain.
//!
//! # Shape
//! A forest. A request that waits hangs below the lock that it was first found in conflict with, or below a request
//! that waits for that lock already and is in conflict with it. So a lock that goes wakes only requests that are not in
//! each other's way; the others follow when these are granted, go elsewhere or give up. Who waits for whom is read at
//! the roots.
//!
//! # Invariants
//! - INV-G1: each request below another node has that node's id as its parent, and is among its children.
//! - INV-G2: a request is in `waiting` of its owner exactly while it has a parent.
//! - INV-G3: no cycle: a request gets a parent only if the parent's root does not lead to its owner, looked at and
//!   written in one step of the domain's mutex. (Those of descriptions and of `flock` are left out of that: see
//!   [`Class`](crate::Class).)
//!
//! - INV-G4: what `last` says holds as long as nodes are only added: of a request and a later one for the same bytes,
//!   of other owners, the later one goes the same way to where the earlier one hangs. (Of an owner that waits several
//!   times it may go another way, and then comes to hang below another request in conflict with it, which is as good.)
//!   So whenever a node leaves its place, `last` is emptied.
//!
//! # Cost
//! To block: of each node on the way the children up to the first in conflict; for bytes for which somebody has just
//! come to wait, as if one were there already. To wake: those who try again.

use crate::caller::{Ask, Key, Kind, Who};
use crate::extent::Extent;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// A request that waits, or a lock that somebody waits for.
#[derive(Debug)]
struct Node<O> {
    who: Who<O>,
    /// What is asked for; `None` for a lock.
    ask: Option<Ask<O>>,
    parent: Option<u64>,
    children: Vec<u64>,
}

/// The forest.
#[derive(Debug)]
pub(crate) struct Graph<O> {
    nodes: HashMap<u64, Node<O>, BuildHasherDefault<ByNumber>>,
    /// Of each owner the requests that have a parent which counts for deadlocks.
    waiting: HashMap<Who<O>, Vec<u64>>,
    /// Where the last request for the same bytes of a lock was hung: below whom, and as which child. Another one comes
    /// the same way there, as long as nobody has left his place (INV-G4).
    last: HashMap<(u64, Kind, Extent), (u64, usize)>,
}

/// Hashes the numbers of nodes, which nobody outside chooses: spreading them is enough.
#[derive(Default)]
struct ByNumber(u64);

impl Hasher for ByNumber {
    fn write(&mut self, _: &[u8]) {
        unreachable!("the keys are numbers")
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// To wait would close a cycle.
#[derive(Debug)]
pub(crate) struct Cycle;

impl<O: Key> Graph<O> {
    pub(crate) fn new() -> Graph<O> {
        Graph { nodes: HashMap::default(), waiting: HashMap::new(), last: HashMap::new() }
    }

    /// Hangs `request` below `lock`, which is `holder`'s, or below who waits for that already; unless that would close
    /// a cycle.
    pub(crate) fn block(&mut self, request: u64, ask: &Ask<O>, lock: u64, holder: &Who<O>) -> Result<(), Cycle> {
        if ask.caller.who.class.answers_deadlocks() && self.leads_to(holder, &ask.caller.who) {
            return Err(Cycle);
        }
        let lock_node = || Node { who: holder.clone(), ask: None, parent: None, children: Vec::new() };
        self.nodes.entry(lock).or_insert_with(lock_node);
        let parent = self.lowest_in_conflict(lock, ask);
        let above = self.nodes.get_mut(&parent).expect("INV-G1");
        self.last.insert((lock, ask.kind, ask.extent), (parent, above.children.len()));
        above.children.push(request);
        let counts = above.who.class.answers_deadlocks();
        let who = ask.caller.who.clone();
        let node = self.nodes.entry(request).or_insert_with(|| Node {
            who: who.clone(),
            ask: Some(ask.clone()),
            parent: None,
            children: Vec::new(),
        });
        node.parent = Some(parent);
        if counts {
            self.waiting.entry(who).or_default().push(request);
        }
        Ok(())
    }

    /// The node to hang a request below: `lock`, or who waits for that and is in conflict with it, as far down as there
    /// is such a one.
    fn lowest_in_conflict(&self, lock: u64, ask: &Ask<O>) -> u64 {
        let last = self.last.get(&(lock, ask.kind, ask.extent)).copied();
        // What is its own is not in its way.
        let is_others =
            |(parent, _): &(u64, usize)| self.nodes.get(parent).is_some_and(|node| node.who != ask.caller.who);
        let (mut lowest, mut from) = last.filter(is_others).unwrap_or((lock, 0));
        let mut node = &self.nodes[&lowest];
        let next = |node: &Node<O>, from: usize| {
            node.children[from..].iter().map(|child| (*child, &self.nodes[child])).find(|(_, child)| {
                let other = child.ask.as_ref().expect("what hangs below something is a request");
                ask.conflicts(&other.caller.who, other.kind, other.extent)
            })
        };
        while let Some((child, below)) = next(node, from) {
            (lowest, node, from) = (child, below, 0);
        }
        lowest
    }

    /// Whether `from` waits for `to`, directly or by others. An owner with a request that waits is taken to unlock
    /// nothing until that is answered.
    fn leads_to(&self, from: &Who<O>, to: &Who<O>) -> bool {
        let (mut seen, mut rest) = (HashSet::from([from]), vec![from]);
        while let Some(who) = rest.pop() {
            for &request in self.waiting.get(who).into_iter().flatten() {
                let holder = self.root(request);
                if holder == to {
                    return true;
                }
                if seen.insert(holder) {
                    rest.push(holder);
                }
            }
        }
        false
    }

    fn root(&self, request: u64) -> &Who<O> {
        let mut node = &self.nodes[&request];
        while let Some(parent) = node.parent {
            node = &self.nodes[&parent];
        }
        &node.who
    }

    /// A node changes: those directly below it wait no more, and are to try again.
    pub(crate) fn wake(&mut self, node: u64) -> Vec<u64> {
        let Some(found) = self.nodes.get_mut(&node) else { return Vec::new() };
        let woken = std::mem::take(&mut found.children);
        if !woken.is_empty() {
            self.last.clear();
        }
        if found.ask.is_none() {
            self.nodes.remove(&node);
        }
        for &child in &woken {
            self.orphan(child);
        }
        woken
    }

    /// It has no parent any more, which has forgotten it already.
    fn orphan(&mut self, request: u64) {
        let node = self.nodes.get_mut(&request).expect("INV-G1");
        node.parent = None;
        let who = node.who.clone();
        if let Some(waiting) = self.waiting.get_mut(&who) {
            waiting.retain(|&other| other != request);
            if waiting.is_empty() {
                self.waiting.remove(&who);
            }
        }
    }

    /// A request ends: those below it are to try again.
    pub(crate) fn remove(&mut self, request: u64) -> Vec<u64> {
        let woken = self.wake(request);
        if let Some(parent) = self.nodes.get(&request).and_then(|node| node.parent) {
            let above = self.nodes.get_mut(&parent).expect("INV-G1");
            above.children.retain(|&other| other != request);
            self.last.clear();
            if above.children.is_empty() && above.ask.is_none() {
                self.nodes.remove(&parent);
            }
            self.orphan(request);
        }
        self.nodes.remove(&request);
        woken
    }

    /// A request, which is woken, has become the lock `lock`: those below it go on waiting, for that. But if its owner
    /// has others that wait, they are to try again, as their new root may lead to themselves (INV-G3).
    pub(crate) fn become_lock(&mut self, request: u64, lock: u64) -> Vec<u64> {
        let Some(node) = self.nodes.get(&request) else { return Vec::new() };
        debug_assert!(node.parent.is_none());
        if self.waiting.contains_key(&node.who) {
            return self.remove(request);
        }
        let node = self.nodes.remove(&request).expect("it was there");
        self.last.clear();
        for child in &node.children {
            self.nodes.get_mut(child).expect("INV-G1").parent = Some(lock);
        }
        if !node.children.is_empty() {
            self.nodes.insert(lock, Node { ask: None, ..node });
        }
        Vec::new()
    }

    /// How many nodes there are.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whom a request waits for.
    pub(crate) fn holder(&self, request: u64) -> Option<Who<O>> {
        self.nodes.get(&request)?.parent?;
        Some(self.root(request).clone())
    }
}
