//! Placing and looking in one go: what most acquires are made of.
//!
//! Both ways do what [`Tree::place`] and [`Tree::scan`] do, in the same order: publish, full fence, look. They save
//! what these two do twice, and leave it to a scan where it is not so simple.
//!
//! - In a quiet root: one look at its slots' words and at its links.
//! - Along a path: the way down to the deepest node that covers the range is remembered, link by link. As long as
//!   behind the fence each of these links still leads where it led, a scan would visit just these nodes; from the first
//!   that does not, it is a scan. (A node that was reached under a pin is not freed before the pin ends, so an equal
//!   link leads to the same node.)

use super::node::{Link, Node, Occupied, Target};
use super::scan::{self, Query};
use super::slot::{Entry, Own, Placed};
use super::{Room, Tree};
use crate::facts::owner::Visitor;
use crate::platform::reclaim::{LazyPin, Pin};
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
pub(super) struct Step<'t, R> {
    pub(super) node: &'t Node<R>,
    pub(super) link: &'t Link<R>,
    pub(super) target: Target<R>,
}

impl<R> Step<'_, R> {
    /// Whether the link leads where it led.
    #[inline(always)]
    pub(super) fn is_as_before(&self) -> bool {
        self.link.load() == self.target
    }
}

/// The way from the root to the deepest node that covers a range.
pub(super) struct Path<'t, R> {
    pub(super) steps: SmallVec<[Step<'t, R>; LONGEST]>,
    pub(super) end: &'t Node<R>,
}

impl<'t, R: Room> Path<'t, R> {
    #[inline(always)]
    pub(super) fn from(root: &'t Node<R>) -> Path<'t, R> {
        Path { steps: SmallVec::new(), end: root }
    }

    /// Goes on to the deepest node that covers the range of `entry`; each link of the way says from now on that such a
    /// request may be behind it. `false`: it is longer than is remembered.
    #[inline(always)]
    pub(super) fn lead_to(&mut self, entry: &Entry, pin: &'t Pin) -> bool {
        while let Some((link, target, child)) = self.end.way_down(entry, pin) {
            if self.steps.len() == LONGEST {
                return false;
            }
            self.steps.push(Step { node: self.end, link, target });
            self.end = child;
        }
        true
    }
}

impl<R: Room, T> Tree<R, T> {
    /// Publishes a request in the root, and looks whether another in one of the modes `against` could be in its way;
    /// `None` if the root is not the place, or a look at the tree's shape is due.
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
        let glance = if self.is_quiet(against, Some(entry.mode)) { Glance::Clear } else { Glance::Unsure };
        Some((Placed::new(&self.root, index), glance))
    }

    /// Whether there is nobody in one of the modes `against`, as far as one look tells; but for one who asks, if he is
    /// in the root in the mode `own`.
    #[inline(always)]
    pub(crate) fn is_quiet(&self, against: u64, own: Option<u64>) -> bool {
        self.root.is_quiet(against, own) && self.root.is_alone()
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
        let era = self.era_before();
        let mut path = Path::from(&self.root);
        if !path.lead_to(entry, pin) {
            // SAFETY: the caller's promise.
            return (unsafe { self.place(entry, visitor, lazy) }, Glance::Unsure);
        }
        let node = path.end;
        if !node.overflow().is_null() {
            if let Some(done) = self.place_apart(&path, entry, query, visitor, lazy) {
                return done;
            }
        }
        let Occupied::Slot(index) = node.occupy_unless_frozen(entry, visitor.home(), pin) else {
            // A withdrawal from a frozen node notifies.
            lazy.owe_wakes();
            let placed = self.make_room(node, entry, visitor, pin);
            if placed.is_due() {
                self.sample(entry, visitor, lazy);
            }
            return (placed, Glance::Unsure);
        };
        let placed = Placed::new(node, index);
        let own = placed.own(entry.mode);
        let glance = self.look_along(&path, query, Some(own), own, lazy);
        let is_due = placed.is_due();
        if glance == Glance::Clear && !path.steps.is_empty() {
            self.remember(&path, entry, era, is_due, pin);
        }
        if is_due {
            self.sample(entry, visitor, lazy);
        }
        (placed, glance)
    }

    /// The same for a request that goes to a node in the chain at the end of its way down: the thread's own, if it has
    /// one, or that of its class.
    #[inline(never)]
    fn place_apart(
        &self,
        path: &Path<'_, R>,
        entry: &Entry,
        query: &Query,
        visitor: Visitor,
        lazy: &LazyPin,
    ) -> Option<(Placed<R>, Glance)> {
        let (pin, node) = (lazy.get(), path.end);
        let own = if node.sends_down(entry.start, entry.last) {
            // Who works alone here leaves these nodes alone, and in the end they go.
            if !self.shape.quota.is_shared() {
                return None;
            }
            node.of_its_class(entry, pin)?
        } else if query.against & entry.mode == 0 {
            self.reserved_in_chain(node, entry.mode, visitor.mark(), pin)?
        } else {
            return None;
        };
        let Occupied::Slot(index) = own.occupy_unless_frozen(entry, visitor.home(), pin) else {
            lazy.owe_wakes();
            return None;
        };
        let placed = Placed::new(own, index);
        // None of its own is at the end of the path.
        let glance = self.look_along(path, query, None, placed.own(entry.mode), lazy);
        if placed.is_due() {
            self.sample(entry, visitor, lazy);
        }
        Some((placed, glance))
    }

    /// Looks for who is in the way of `own`: at the nodes of a path, at its end, where `at_end` is its own slot if it
    /// is there, and at what lies beyond.
    #[inline(always)]
    fn look_along(
        &self,
        path: &Path<'_, R>,
        query: &Query,
        at_end: Option<Own<R>>,
        own: Own<R>,
        lazy: &LazyPin,
    ) -> Glance {
        match self.meets_along(path, query, at_end, own, lazy) {
            Continue(()) => Glance::Clear,
            Break(()) => Glance::Met,
        }
    }

    #[inline(always)]
    fn meets_along(
        &self,
        path: &Path<'_, R>,
        query: &Query,
        at_end: Option<Own<R>>,
        own: Own<R>,
        lazy: &LazyPin,
    ) -> ControlFlow<()> {
        for step in &path.steps {
            look(step.node, query, None)?;
            if !step.node.overflow().is_null() {
                scan::look_along_chain(step.node, query, None, lazy.get(), &mut |_| Break(()))?;
            }
            if !step.is_as_before() {
                return self.scan_from(step.node, query, Some(own), lazy, &mut |_| Break(()));
            }
            if !step.target.may_hold(query.against) {
                return Continue(());
            }
        }
        look(path.end, query, at_end)?;
        if !path.end.leads_on_from(query.start, query.last, query.against) {
            return Continue(());
        }
        self.scan_from(path.end, query, Some(own), lazy, &mut |_| Break(()))
    }
}

/// Breaks off if somebody is in the way in a slot of `node`, which covers the range.
#[inline(always)]
fn look<R: Room>(node: &Node<R>, query: &Query, own: Option<Own<R>>) -> ControlFlow<()> {
    match node.unclear_within(query.start, query.last, query.against, own.map(|own| own.mode())) {
        None => Continue(()),
        Some(parts) => scan::look_closer(node, query, parts, own.map(|own| own.index()), &mut |_| Break(())),
    }
}
