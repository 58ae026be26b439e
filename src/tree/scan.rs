//! Every live slot that meets a range.
//!
//! A scan looks at the nodes whose spans meet the range: one path from the root, then the subtrees inside the range, and the
//! chains of all of these. At each node it ORs the state words first; as long as no mode there concerns it, no record is read.

use super::node::{Node, SLOTS};
use super::slot::{Own, Reading, Slot, Word};
use super::{Room, Tree};
use crate::reclaim::{LazyPin, Pin};
use smallvec::SmallVec;
use std::ops::ControlFlow;

/// What a scan looks for: live requests in one of the modes `against` that meet `start..=last`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query {
    pub(crate) start: u64,
    pub(crate) last: u64,
    /// The bits of the modes looked for.
    pub(crate) against: u64,
    pub(crate) owner: u64,
    pub(crate) whose: Whose,
}

/// Of which owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Of all but the query's.
    Others,
    /// Of the query's only.
    Own,
    /// Of all but the query's, and none who yields. Their records are not read.
    OthersWhoInsist,
}

/// A request that a scan found, as it was when the scan read it. It can be watched for as long as the pin lasts.
pub(crate) struct Seen<'t, R> {
    node: &'t Node<R>,
    index: usize,
    reading: Reading,
}

impl<R> Clone for Seen<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Seen<'_, R> {}

impl<'t, R: Room> Seen<'t, R> {
    pub(super) fn new(node: &'t Node<R>, index: usize, reading: Reading) -> Seen<'t, R> {
        Seen { node, index, reading }
    }

    pub(super) fn slot(&self) -> Slot<'t> {
        self.node.slot(self.index)
    }

    /// The state that was evaluated.
    pub(crate) fn word(&self) -> Word {
        self.reading.word
    }

    /// Its place in the queue, if it waits.
    pub(crate) fn ticket(&self) -> Option<u64> {
        self.reading.word.is_queued().then_some(self.reading.order)
    }

    pub(crate) fn owner(&self) -> u64 {
        self.reading.owner
    }

    /// When it came: see [`crate::owner`].
    pub(crate) fn order(&self) -> u64 {
        self.reading.order
    }

    /// Its bytes, inclusive.
    pub(crate) fn range(&self) -> (u64, u64) {
        (self.reading.start, self.reading.last)
    }

    /// The bit of its mode.
    pub(crate) fn mode(&self) -> u64 {
        self.reading.word.mode()
    }

    pub(super) fn node(&self) -> &'t Node<R> {
        self.node
    }

    pub(super) fn room_index(&self) -> usize {
        self.index
    }

    /// The waiting side's part of its node, and which slot there is meant.
    pub(crate) fn room(&self) -> (&'t R, usize) {
        (self.node.room(), self.index)
    }
}

impl<R: Room, T> Tree<R, T> {
    /// Visits every request that `query` is about, but for the caller's `own`, until `visit` breaks off.
    ///
    /// A request whose publication (and fence) came before the caller's own fence is visited, if it is still there. Of one that
    /// comes or goes meanwhile nothing is promised.
    #[inline(always)]
    pub(crate) fn scan<'t>(
        &'t self,
        query: &Query,
        own: Option<Own<R>>,
        pin: &'t LazyPin,
        mut visit: impl FnMut(Seen<'t, R>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        look(&self.root, query, own, &mut visit)?;
        if self.root.is_alone() {
            return ControlFlow::Continue(());
        }
        self.scan_from(&self.root, query, own, pin, &mut visit)
    }

    /// The part of a scan beyond the slots of `node`, which covers the range: down the path as long as the nodes cover it, then everything below.
    pub(super) fn scan_from<'t>(
        &'t self,
        mut node: &'t Node<R>,
        query: &Query,
        own: Option<Own<R>>,
        pin: &'t LazyPin,
        visit: &mut impl FnMut(Seen<'t, R>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let pin = pin.get();
        let mut above = own;
        while let Some(cell) = node.cell_around(query.start, query.last) {
            look_along_chain(node, query, own, pin, visit)?;
            let Some(child) = node.child(cell).load_if(query.against).node(pin) else {
                return ControlFlow::Continue(());
            };
            if !child.meets(query.start, query.last) {
                return ControlFlow::Continue(());
            }
            self.going_down_to(child, &mut above);
            look(child, query, own, visit)?;
            node = child;
            if !child.covers(query.start, query.last) {
                break;
            }
        }
        self.look_below(node, query, own, above, pin, visit)
    }

    /// Visits what there is beyond the slots of `node`: its chain, and all subtrees that meet the range.
    fn look_below<'t>(
        &'t self,
        node: &'t Node<R>,
        query: &Query,
        own: Option<Own<R>>,
        mut above: Option<Own<R>>,
        pin: &'t Pin,
        visit: &mut impl FnMut(Seen<'t, R>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut rest: SmallVec<[&Node<R>; 16]> = SmallVec::new();
        let mut next = Some(node);
        while let Some(node) = next {
            look_along_chain(node, query, own, pin, visit)?;
            let first = node.cell_of(query.start.max(node.base()));
            let last = node.cell_of(query.last.min(node.last()));
            for link in &node.children()[first..=last] {
                let Some(child) = link.load_if(query.against).node(pin) else { continue };
                if !child.meets(query.start, query.last) {
                    continue;
                }
                self.going_down_to(child, &mut above);
                look(child, query, own, visit)?;
                rest.push(child);
            }
            next = rest.pop();
        }
        ControlFlow::Continue(())
    }
}

#[inline]
fn look_along_chain<'t, R: Room>(
    node: &'t Node<R>,
    query: &Query,
    own: Option<Own<R>>,
    pin: &'t Pin,
    visit: &mut impl FnMut(Seen<'t, R>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    node.chain_against(query.against, pin).try_for_each(|chained| look(chained, query, own, visit))
}

/// Visits what there is in the slots of one node.
#[inline(always)]
fn look<'t, R: Room>(
    node: &'t Node<R>,
    query: &Query,
    own: Option<Own<R>>,
    visit: &mut impl FnMut(Seen<'t, R>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let own = own.filter(|own| own.is_in(node));
    if node.is_clear(query.start, query.last, query.against, own.map(|own| own.mode())) {
        return ControlFlow::Continue(());
    }
    let own = own.map(|own| own.index());
    look_closer(node, query, own, visit)
}

#[inline(never)]
pub(super) fn look_closer<'t, R: Room>(
    node: &'t Node<R>,
    query: &Query,
    own: Option<usize>,
    visit: &mut impl FnMut(Seen<'t, R>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let parts = node.parts(query.start, query.last);
    for index in (0..SLOTS).filter(|&index| Some(index) != own) {
        if query.whose == Whose::OthersWhoInsist && node.slot(index).yields() {
            continue;
        }
        match node.slot(index).read(query.start, query.last, parts, query.against) {
            Some(reading) if (reading.owner == query.owner) == (query.whose == Whose::Own) => {
                visit(Seen { node, index, reading })?;
            }
            _ => {}
        }
    }
    ControlFlow::Continue(())
}
