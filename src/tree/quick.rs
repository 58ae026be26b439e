//! Placing and looking in one go: what most acquires are made of.
//!
//! Both ways do what [`Tree::place`] and [`Tree::scan`] do, in the same order: publish, full fence, look. They save what these two do
//! twice, and leave it to a scan where it is not so simple.
//!
//! - In a quiet root: one look at its slots' words and at its links.
//! - Along a path: the way down to the deepest node that covers the range is remembered, link by link. As long as behind the fence each of these
//!   links still leads where it led, a scan would visit just these nodes; from the first that does not, it is a scan. (A node that was reached under
//!   a pin is not freed before the pin ends, so an equal link leads to the same node.)

use super::node::{Link, Node, Occupied, Target};
use super::scan::{self, Query};
use super::slot::{Entry, Own, Placed};
use super::{Room, Tree};
use crate::owner::Visitor;
use crate::reclaim::LazyPin;
use smallvec::SmallVec;
use std::ops::ControlFlow::{self, Break, Continue};

/// Links of a path that are remembered. Deeper requests are left to the scan.
const LONGEST: usize = 16;

/// What one look has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Glance {
    /// Nobody is in the way.
    Clear,
    /// Somebody is.
    Met,
    /// A scan will tell.
    Unsure,
}

/// A node on the way to a deeper one, and the link that led on.
struct Step<'t, R> {
    node: &'t Node<R>,
    link: &'t Link<R>,
    target: Target<R>,
}

impl<R: Room, T> Tree<R, T> {
    /// Publishes a request in the root, and looks whether another in one of the modes `against` could be in its way; `None` if the root is not the
    /// place, or a look at the tree's shape is due.
    ///
    /// # Safety
    /// As for [`Tree::place`].
    #[inline(always)]
    pub(crate) unsafe fn place_in_root(
        &self,
        entry: &Entry,
        against: u64,
        visitor: Visitor,
    ) -> Option<(Placed<R>, Glance)> {
        let index = self.root.occupy_root(entry, visitor.home())?;
        let clear = self.root.is_quiet(against, Some(entry.mode)) && self.root.is_alone();
        let glance = if clear { Glance::Clear } else { Glance::Unsure };
        Some((Placed::new(&self.root, index), glance))
    }

    /// Publishes a request as [`Tree::place`] does, and looks along the way there for others that `query` is about.
    ///
    /// # Safety
    /// As for [`Tree::place`].
    #[inline]
    pub(crate) unsafe fn place_along(
        &self,
        entry: &Entry,
        query: &Query,
        visitor: Visitor,
        lazy: &LazyPin,
    ) -> (Placed<R>, Glance) {
        if self.root.is_alone() {
            // SAFETY: the caller's promise.
            return (unsafe { self.place(entry, visitor, lazy) }, Glance::Unsure);
        }
        let pin = lazy.get();
        let mut path: SmallVec<[Step<'_, R>; LONGEST]> = SmallVec::new();
        let mut node = &self.root;
        while let Some((link, target, child)) = node.way_down(entry, pin) {
            if path.len() == LONGEST {
                // SAFETY: the caller's promise.
                return (unsafe { self.place(entry, visitor, lazy) }, Glance::Unsure);
            }
            path.push(Step { node, link, target });
            node = child;
        }
        if !node.overflow().is_null() {
            if let Some(done) = self.place_apart(&path, node, entry, query, visitor, lazy) {
                return done;
            }
        }
        let Occupied::Slot(index) = node.occupy_unless_frozen(entry, visitor.home(), pin) else {
            // A withdrawal from a frozen node notifies.
            lazy.owe_wakes();
            // SAFETY: the caller's promise.
            return (unsafe { self.place(entry, visitor, lazy) }, Glance::Unsure);
        };
        let placed = Placed::new(node, index);
        let glance = self.look_along(&path, node, query, Some(placed.own(entry.mode)), lazy);
        if placed.is_due() {
            self.sample(entry, visitor, lazy);
        }
        (placed, glance)
    }

    /// The same for a request that ends its way down at `node`, and goes to the thread's own node in the chain there, if it has one.
    #[inline(never)]
    fn place_apart(
        &self,
        path: &[Step<'_, R>],
        node: &Node<R>,
        entry: &Entry,
        query: &Query,
        visitor: Visitor,
        lazy: &LazyPin,
    ) -> Option<(Placed<R>, Glance)> {
        let pin = lazy.get();
        if query.against & entry.mode != 0 || node.sends_down(entry.start, entry.last) {
            return None;
        }
        let own = self.reserved_in_chain(node, entry.mode, visitor.mark(), pin)?;
        let Occupied::Slot(index) = own.occupy_unless_frozen(entry, visitor.home(), pin) else {
            lazy.owe_wakes();
            return None;
        };
        let placed = Placed::new(own, index);
        // It is in nobody's way there, itself included.
        let glance = self.look_along(path, node, query, None, lazy);
        if placed.is_due() {
            self.sample(entry, visitor, lazy);
        }
        Some((placed, glance))
    }

    /// Looks for who is in the way: at the nodes of a path, at `end`, to which it leads, with the request `own` in it, and at what lies beyond.
    #[inline(always)]
    fn look_along(
        &self,
        path: &[Step<'_, R>],
        end: &Node<R>,
        query: &Query,
        own: Option<Own<R>>,
        lazy: &LazyPin,
    ) -> Glance {
        match self.meets_along(path, end, query, own, lazy) {
            Continue(()) => Glance::Clear,
            Break(()) => Glance::Met,
        }
    }

    #[inline(always)]
    fn meets_along(
        &self,
        path: &[Step<'_, R>],
        end: &Node<R>,
        query: &Query,
        own: Option<Own<R>>,
        lazy: &LazyPin,
    ) -> ControlFlow<()> {
        for step in path {
            look(step.node, query, None)?;
            let target = step.link.load();
            if target != step.target || !step.node.overflow().is_null() {
                // Another way down than before.
                return self.scan_from(step.node, query, own, lazy, &mut |_| Break(()));
            }
            if !target.may_hold(query.against) {
                return Continue(());
            }
        }
        look(end, query, own)?;
        if !end.leads_on(query.against) {
            return Continue(());
        }
        self.scan_from(end, query, own, lazy, &mut |_| Break(()))
    }
}

/// Breaks off if somebody is in the way in a slot of `node`, which covers the range.
#[inline(always)]
fn look<R: Room>(node: &Node<R>, query: &Query, own: Option<Own<R>>) -> ControlFlow<()> {
    if node.is_clear_within(query.start, query.last, query.against, own.map(|own| own.mode())) {
        return Continue(());
    }
    scan::look_closer(node, query, own.map(|own| own.index()), &mut |_| Break(()))
}
