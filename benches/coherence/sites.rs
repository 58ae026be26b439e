//! Which line is what: names for addresses, so that a transfer can be blamed on somebody.
//!
//! A node is six lines: header, states, four of records (`src/tree/node.rs`, which asserts it). The root lies at the
//! start of the lock. The others are found as the CPUs find them: whoever loads a link of a node learns where the next
//! one is, and how deep.

use rustc_hash::FxHashMap;
use std::fmt;

/// Bytes of a line.
const LINE: usize = 64;
/// Bytes that a node is aligned to.
const BLOCK: usize = 128;
/// Bytes of a node.
pub(crate) const NODE: usize = 6 * LINE;
/// Where the link to a node of the same span lies in a header.
const OVERFLOW: usize = 48;

/// Part of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Part {
    Header,
    States,
    Records,
}

/// What an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Site {
    /// A node of the tree, so many links below the root.
    Node(u8, Part),
    /// The era of the tree, which tells whether shortcuts are good.
    Era,
    /// The pruner's hand.
    Hand,
    /// The epoch of all CPUs, and the list of those who take part in it.
    GlobalEpoch,
    /// A CPU's own epoch.
    LocalEpoch,
    /// The rest: counters of the process, what waiters sleep on, and all of a rival.
    Elsewhere,
}

impl Site {
    /// Whether it is part of memory reclamation, not of a lock.
    pub(crate) fn is_epoch(self) -> bool {
        matches!(self, Site::GlobalEpoch | Site::LocalEpoch)
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Site::Node(depth, part) => {
                let part = match part {
                    Part::Header => "header",
                    Part::States => "states",
                    Part::Records => "records",
                };
                match depth {
                    0 => write!(f, "root {part}"),
                    depth => write!(f, "depth {depth} {part}"),
                }
            }
            Site::Era => f.write_str("era"),
            Site::Hand => f.write_str("pruner's hand"),
            Site::GlobalEpoch => f.write_str("global epoch"),
            Site::LocalEpoch => f.write_str("a CPU's epoch"),
            Site::Elsewhere => f.write_str("elsewhere"),
        }
    }
}

/// What is known about addresses.
#[derive(Debug, Default)]
pub(crate) struct Atlas {
    /// By block: the node's address, and its depth.
    nodes: FxHashMap<usize, (usize, u8)>,
    /// By line.
    others: FxHashMap<usize, Site>,
}

impl Atlas {
    /// A range lock, whose root lies at `address`; the era lies behind the root, and the hand behind that.
    pub(crate) fn lock(&mut self, address: usize) {
        self.node(address, 0);
        self.name(address + NODE, Site::Era);
        self.name(address + NODE + LINE, Site::Hand);
    }

    /// `site` is the line at `address`.
    pub(crate) fn name(&mut self, address: usize, site: Site) {
        self.others.insert(address / LINE, site);
    }

    /// A link at `from` leads to the node at `to`.
    pub(crate) fn link(&mut self, from: usize, to: usize) {
        let Some(&(node, depth)) = self.nodes.get(&(from / BLOCK)) else { return };
        let chained = from - node == OVERFLOW;
        self.node(to, if chained { depth } else { depth + 1 });
    }

    fn node(&mut self, address: usize, depth: u8) {
        for block in (address..address + NODE).step_by(BLOCK) {
            self.nodes.insert(block / BLOCK, (address, depth));
        }
    }

    pub(crate) fn site(&self, address: usize) -> Site {
        if let Some(&site) = self.others.get(&(address / LINE)) {
            return site;
        }
        match self.nodes.get(&(address / BLOCK)) {
            Some(&(node, depth)) => Site::Node(
                depth,
                match (address - node) / LINE {
                    0 => Part::Header,
                    1 => Part::States,
                    _ => Part::Records,
                },
            ),
            None => Site::Elsewhere,
        }
    }
}
