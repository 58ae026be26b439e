//! The tree by itself, used by one thread that plays several: for the unit tests, and for the fuzz target `tree_ops`
//! (`crate::fuzzing`).

// Public for the fuzz target alone.
#![cfg_attr(not(fuzzing), allow(unreachable_pub))]

use super::node::Node;
use super::slot::{Classes, MODES};
use super::{ByShortcut, Entry, Glance, Placed, Query, Room, Tree, Whose};
use crate::facts::owner::Visitor;
use crate::platform::reclaim::{LazyPin, Pin};
use std::fmt;
use std::ops::ControlFlow::{Break, Continue};

impl Room for () {
    fn slot_changed(&self, _: usize, _: u64) {}
}

/// What is put there: first and last byte, the bit of its mode, the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The first byte.
    pub start: u64,
    /// The last byte.
    pub last: u64,
    /// One bit of the lowest three.
    pub mode: u64,
    /// Whose it is: not 0.
    pub owner: u64,
}

/// Whether a thread looks at the tree's shape before it puts something there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// It does. Threads have numbers.
    Looking(u64),
    /// It does not.
    Passing(u64),
}

impl Thread {
    fn visitor(self) -> Visitor {
        let (Thread::Looking(number) | Thread::Passing(number)) = self;
        Visitor::numbered(number)
    }
}

/// A request that was put there.
pub struct Put(pub(super) Placed<()>);

impl fmt::Debug for Put {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Put")
    }
}

/// A tree. What is put there is freed before it is dropped.
pub struct Bare(pub(super) Box<Tree<()>>);

impl fmt::Debug for Bare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} nodes", self.nodes())
    }
}

impl Default for Bare {
    fn default() -> Bare {
        Bare::new()
    }
}

impl Bare {
    /// A root.
    pub fn new() -> Bare {
        Bare(Box::new(Tree::new(())))
    }

    /// Puts something there, as a request does whose quick path was of no use.
    pub fn put(&self, ask: Ask, thread: Thread) -> Put {
        let (entry, pin) = (entry(ask), LazyPin::new());
        if let Thread::Looking(_) = thread {
            self.0.sample(&entry, thread.visitor(), &pin);
        }
        // SAFETY: the tree is in its box until it is dropped, and whoever has a `Put` frees it before.
        let placed = unsafe { self.0.place(&entry, thread.visitor(), &pin) };
        // Every request looks, and what it looks at counts for who comes by a shortcut later.
        let _ = self.0.scan(&query(ask, MODES), Some(placed.own(ask.mode)), &pin, |_| Continue(()));
        Put(placed)
    }

    /// Looks at the shape for what is about to be put there.
    #[cfg(test)]
    pub(super) fn sample_for(&self, ask: Ask, thread: Thread) {
        self.0.sample(&entry(ask), thread.visitor(), &LazyPin::new());
    }

    /// Gives the node that such a request comes to one for its class.
    #[cfg(test)]
    pub(super) fn part_by_class(&self, ask: Ask) {
        self.0.part_by_class_for(&entry(ask), Visitor::numbered(1), &LazyPin::new());
    }

    /// Leaves the root's child for such a request as a pruner does who is taken off its processor just before it
    /// unlinks it.
    #[cfg(test)]
    pub(super) fn freeze(&self, ask: Ask) {
        self.0.freeze_links_for(&entry(ask), &LazyPin::new());
    }

    /// Puts something there as most requests are put, and says whether it met one of the modes `against`, of another
    /// owner.
    pub fn put_and_look(&self, ask: Ask, against: u64, thread: Thread) -> (Put, bool) {
        let (entry, query, pin) = (entry(ask), query(ask, against), LazyPin::new());
        // SAFETY: as in `put`.
        let in_root = unsafe { self.0.place_in_root(&entry, against, thread.visitor()) };
        // SAFETY: as in `put`.
        let quickly = in_root.or_else(|| match unsafe { self.0.place_by_shortcut(entry, against, thread.visitor()) } {
            ByShortcut::Placed(placed, glance) => Some((placed, glance)),
            ByShortcut::TurnedBack | ByShortcut::None => None,
        });
        // SAFETY: as in `put`.
        let along = || unsafe { self.0.place_along(&entry, &query, thread.visitor(), &pin) };
        let (placed, glance) = quickly.unwrap_or_else(along);
        let met = match glance {
            Glance::Clear => false,
            Glance::Met => true,
            Glance::Unsure => self.0.scan(&query, Some(placed.own(ask.mode)), &pin, |_| Break(())).is_break(),
        };
        if met {
            // It stays, as one who waits does.
            self.0.bar_shortcuts(&query, placed.own(ask.mode), &pin);
        }
        (Put(placed), met)
    }

    /// Whether the calling thread, whatever it plays, has a shortcut to where this would be put.
    #[cfg(test)]
    pub(super) fn has_shortcut(&self, ask: Ask) -> bool {
        // SAFETY: as in `put`; it is freed at once.
        match unsafe { self.0.place_by_shortcut(entry(ask), 0, Visitor::numbered(1)) } {
            ByShortcut::Placed(placed, _) => {
                self.free(&Put(placed));
                true
            }
            ByShortcut::TurnedBack | ByShortcut::None => false,
        }
    }

    /// Takes it away again.
    pub fn free(&self, put: &Put) {
        put.0.free(LazyPin::new().get());
    }

    /// The owners of what a scan for `ask`, against these modes, finds: those of others, in order.
    pub fn found(&self, ask: Ask, against: u64) -> Vec<u64> {
        let (mut owners, pin) = (Vec::new(), LazyPin::new());
        let _ = self.0.scan(&query(ask, against), None, &pin, |seen| {
            owners.push(seen.owner());
            Continue(())
        });
        owners.sort_unstable();
        owners
    }

    /// Nodes beside the root.
    pub fn nodes(&self) -> usize {
        self.0.heap_nodes(LazyPin::new().get())
    }

    /// Moves the pruner's hand on.
    pub fn sweep(&self, steps: usize) {
        self.0.sweep(steps, LazyPin::new().get());
    }

    /// Removes what is not in use.
    pub fn trim(&self) {
        self.0.trim(&LazyPin::new());
    }

    /// Looks at the shape; how many requests there are.
    ///
    /// # Errors
    /// What is not as the header of the tree says.
    pub fn check(&self) -> Result<usize, String> {
        check_below(&self.0.root, u64::MAX, LazyPin::new().get())
    }
}

fn entry(Ask { start, last, mode, owner }: Ask) -> Entry {
    Entry { start, last, mode, owner, order: 0 }
}

fn query(Ask { start, last, owner, .. }: Ask, against: u64) -> Query<'static> {
    Query { start, last, against, owner, whose: Whose::Others }
}

/// Requests lie within their node's span, and are of its classes; and the links that lead to them carry their modes
/// (`carried`: those to this node); chains have the span of what they hang on, and children lie within their cells.
fn check_below(node: &Node<()>, carried: u64, pin: &Pin) -> Result<usize, String> {
    let (mut live, mut announced) = (0, carried);
    if node.is_of_a_class() {
        return Err(format!("{:#x} is for some classes, and no node of a chain", node.base()));
    }
    for one in std::iter::once(node).chain(node.chain(pin)) {
        if (one.base(), one.span_shift()) != (node.base(), node.span_shift()) {
            return Err(format!("a chain of {:#x} has a node of {:#x}", node.base(), one.base()));
        }
        for slot in one.slots().filter(|slot| slot.is_live_now()) {
            let (start, last, _) = slot.hint();
            if start < node.base() || last > node.last() {
                return Err(format!(
                    "{start:#x}..={last:#x} lies in a node of {:#x}..={:#x}",
                    node.base(),
                    node.last()
                ));
            }
            if !Classes::of(start, last).are_among(one.classes()) {
                return Err(format!("{start:#x}..={last:#x} lies in a node for another class"));
            }
            if slot.mode_now() & !announced != 0 {
                return Err(format!("{start:#x}..={last:#x} is behind a link that does not say so"));
            }
            live += 1;
        }
        announced &= one.overflow().load().modes();
    }
    for (cell, link) in node.children().iter().enumerate() {
        let target = link.load();
        if target.is_frozen() {
            return Err(format!("a link of {:#x} stayed frozen", node.base()));
        }
        let Some(child) = target.node(pin) else { continue };
        let inside = node.cell_around(child.base(), child.last()) == Some(cell);
        if !inside || child.span_shift() > node.cell_shift() {
            return Err(format!("the child {:#x} does not lie in cell {cell} of {:#x}", child.base(), node.base()));
        }
        live += check_below(child, carried & target.modes(), pin)?;
    }
    Ok(live)
}
