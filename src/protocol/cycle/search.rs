//! One search: who needs whom, and what follows from it.
//!
//! # Promise
//! - The answer is the one that the rule gives (sections 1 and 2 of [`cycle`](super)), as if no other search went on
//!   meanwhile.
//! - *Cost.* A search scans once for each different range and mode, of each lock, in which a request waits that edges
//!   lead to: it makes a *view*. After that it takes time in proportion to the things in its views, to the requests and
//!   owners that it came by, to the things that were let past somebody times the waiters of their views, and to the
//!   passes that come of it: each once, a logarithm apart. So N waiters on one row are N steps, and N such searches are
//!   a square.
//!
//! # Views
//! Requests that wait for the same bytes of a lock in the same mode see the same things, and have them in front of them
//! in the same order. So they share a view: the result of one scan, for nobody in particular. 10,000 waiters on one row
//! have 50 million edges between them, and one view of 10,000 things. What a request waits for is read off its view:
//!
//! - INV-V1: a thing that is in front of one waiter of a view is in front of those with higher tickets ("in front" is
//!   [`is_before`], which grows with the ticket), unless the thing was let past somebody, or the waiter was. The former
//!   are asked about for each waiter ([`View::ahead`]); the latter have a view of their own each.
//! - INV-V2: a view is not older than a waiter in it. A ticket above those that were drawn when the view was scanned
//!   makes a new view. So whatever was in front of the waiter when it queued is in its view, as if it had scanned by
//!   itself.
//!
//! A view also has the waiters' own slots, and others of their owners. Nobody waits for his own. But who waits for the
//! same as an owner's request, waits for that owner's things too.
//!
//! # How
//! An edge leads to the blocked requests of an *owner*, all of them, whichever of its holds or queued requests the edge
//! meets. (One that is in no index is its owner's only one.) So the rule speaks of owners: S is one owner's, R is of
//! some owners, and either all blocked requests of an owner lead to S, or none does. Hence:
//!
//! A request may hold others up than its owner ([`cycle`](super)): then it is among the blocked requests of each of
//! them, and if one of these leads to S, so do the others.
//!
//! 1. *Needed*: R, by grant edges, forwards. A view hands out each of its things once (a [`Front`]). A further waiter
//!    gets only what is in front of it and was of nobody before: the owners of the others are in R already, for they
//!    are those of what was handed out, or of whoever it was handed to. Only one thing is more than being in R: a hold
//!    of the searcher's owner closes a cycle, if somebody of another owner waits for it. What S has been past of those
//!    is kept ([`View::own_holds`]).
//! 2. If nobody else's queued request is in front of anybody in R, nobody is to be passed.
//! 3. *Everywhere*: whatever any edges lead to from R, forwards, and in the same way: what was handed out before leads
//!    nowhere new. Whom somebody in R may have to pass is among that.
//! 4. *Leading back*: the owners that lead to S, backwards. If an owner leads to S, so does whoever is behind one of
//!    its things: in each view, an upper end of the waiters in the order of their tickets (INV-V1), and those that
//!    [`View::ahead`] names. A waiter of the thing's own owner may be among these. It does not wait for that thing, but
//!    is marked already. Each waiter is marked once: the unmarked ones are a lower end that shrinks.
//! 5. *Pairs*: in the views of R, each queued thing of S's owner, or of an owner outside of R that leads to S; with
//!    whoever in R has it in front, and is of another owner.
//!
//! # Drains
//! A drain (`drain`) is in the index, and in no view: nobody waits for it. It waits until all who came before its
//! ticket have *gone*, who wait included. So:
//!
//! - it sees by itself, and only who came before ([`came_before`]): the holders who came later are in front of a queued
//!   request, and not of a drain;
//! - its edges to those who are queued are grant edges, as they have to be granted before they can let go. What they
//!   lead to is in R. (If one of them is in no index, that is the request itself.) Where its owner has nothing else, it
//!   is let past nobody, or it would overtake; so its own edges to who is queued are grant edges, too ([`Way::Stays`]).
//!   Those who wait for the same, and stay, share a view of their own, which hands out holders and queued ones alike;
//! - it passes nobody.
//!
//! What is in its doorway, and in front of a waiter of another owner, ends a search at (1) or (3), for it to begin anew
//! (INV-C2). So does an entry of the index one of whose turns another search has; and at the end, that another search
//! has ended before this one had all its turns (INV-C5).
//!
//! At its request's deadline a search stops where it is ([`Pace`]). Whom it has let pass by then, is let past; those
//! whose sleep that ends are woken.

use super::{
    Blocked, Passes, Site, Stop, ask_to_rescan, came_before, index, is_before, is_decided, is_undecided, steps,
};
use crate::facts::error::{Deadlock, OwnerName, Wait};
use crate::facts::mode::Mode;
use crate::facts::owner::{self, OwnerId};
use crate::facts::range::ByteRange;
use crate::platform::reclaim::LazyPin;
use crate::protocol::lock_state::{Ask, LockState, Seen, what};
use crate::protocol::turn::Turns;
use crate::tree::{Query, Rescan};
use crate::watching::telemetry;
use smallvec::SmallVec;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::iter;
use std::mem;
use std::ops::ControlFlow::{Break, Continue};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

#[cfg(all(test, not(any(loom, spanlock_shuttle))))]
#[path = "tests.rs"]
mod tests;

/// How many steps a search has made, and whether its request has time for more.
struct Pace {
    deadline: Option<Instant>,
    steps: Cell<usize>,
    is_late: Cell<bool>,
}

impl Pace {
    /// Steps between two looks at the clock: some microseconds.
    const FEW: usize = 256;

    fn new(deadline: Option<Instant>) -> Pace {
        steps::begin();
        Pace { deadline, steps: Cell::new(0), is_late: Cell::new(false) }
    }

    #[inline]
    fn step(&self, steps: usize) {
        steps::add(steps);
        let Some(deadline) = self.deadline else { return };
        let before = self.steps.replace(self.steps.get() + steps);
        if before / Pace::FEW != self.steps.get() / Pace::FEW && Instant::now() >= deadline {
            self.is_late.set(true);
        }
    }

    fn in_time<'p>(&self) -> Result<(), Stop<'p>> {
        if self.is_late.get() { Err(Stop::Late) } else { Ok(()) }
    }
}

/// What a waiting request takes those in front of it for who only wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It waits for a grant, and can be let past them.
    Passes,
    /// It waits for a grant, and its owner has nothing else: so it is let past nobody, as first come, first served has
    /// it. But a drain needs it to get through.
    Stays,
    /// It waits until they have let go of what they are still to be granted: a drain.
    Drains,
}

/// A waiting request in the graph: a single one or a batch.
struct Knot {
    way: Way,
    /// What it asks for, if it is in no index.
    asked: Option<(ByteRange, Mode)>,
    ticket: u64,
    owner: OwnerId,
    /// None for an outermost request of a thread, and for a task's.
    blocked: Option<Arc<Blocked>>,
    places: SmallVec<[(NonNull<LockState>, Query<'static>); 1]>,
    /// What it sees from its places, different views only, and from which place. Empty until somebody asks.
    views: SmallVec<[(ViewId, usize); 1]>,
    /// Whether any edges lead to it.
    is_reached: bool,
}

impl Knot {
    /// It is needed because it waits. Whether it can be let past others for that depends on whether its owner has
    /// anything else.
    fn stay_if_alone(&mut self) {
        if self.way == Way::Passes && self.blocked.as_ref().is_some_and(|blocked| !blocked.is_nested()) {
            self.way = Way::Stays;
        }
    }
}

/// A knot's number in its search.
type KnotId = usize;

/// What a scan found.
#[derive(Clone, Copy)]
struct Thing<'p> {
    seen: Seen<'p>,
    /// It is of a batch that was decided; a batch's words may lag behind its decision.
    decided: bool,
}

impl Thing<'_> {
    fn owner(&self) -> OwnerId {
        OwnerId::from_slot(self.seen.owner())
    }

    /// Its place in the queue, if it waits.
    fn ticket(&self) -> Option<u64> {
        self.seen.ticket().filter(|_| !self.decided)
    }

    /// Whether it is in front of a waiter with a lower ticket, or may be: it was let past somebody.
    fn may_be_ahead_of(&self, ticket: u64) -> bool {
        self.seen.word().is_passing() && self.ticket().is_some_and(|its| its > ticket)
    }

    fn is_before(&self, ticket: u64, passes: &Passes) -> bool {
        self.decided || is_before(&self.seen, ticket, passes)
    }

    /// Whether it is in front by the order of tickets. If it is, it also is for those with higher ones (INV-V1).
    fn is_before_by_ticket(&self, ticket: u64, passes: &Passes) -> bool {
        !self.may_be_ahead_of(ticket) && self.is_before(ticket, passes)
    }
}

/// What those see who wait for the same bytes in the same mode.
struct View<'p> {
    state: NonNull<LockState>,
    query: Query<'static>,
    /// The last ticket that had been drawn before the scan.
    since: u64,
    /// Whom its only waiter may pass. Nobody, if there are several.
    passes: Passes,
    things: Vec<Thing<'p>>,
    /// Those of the things that were let past somebody.
    passing: Vec<usize>,
    /// How far the search has come by the requests in R, and by all.
    fronts: [Front; 2],
    /// Holds of the searcher's owner, which its own requests have come across.
    own_holds: Vec<usize>,
    /// The waiters that the search came by, with their tickets.
    waiters: Vec<(u64, KnotId)>,
    /// Which of the passing things is in front of which waiter with a lower ticket.
    ahead: BTreeSet<(usize, KnotId)>,
}

/// A view's number in its search.
type ViewId = usize;

impl View<'_> {
    /// Whether the thing is in front of a waiter that the search came by.
    fn is_in_front(&self, index: usize, ticket: u64, knot: KnotId) -> bool {
        let thing = &self.things[index];
        match thing.may_be_ahead_of(ticket) {
            true => self.ahead.contains(&(index, knot)),
            false => thing.is_before(ticket, &self.passes),
        }
    }
}

/// By which edges a search goes forwards.
#[derive(Clone, Copy)]
enum By {
    Grants,
    All,
}

/// How far a search has come in a view: which of its things it has handed out.
#[derive(Default)]
struct Front {
    /// The highest ticket of the waiters that were here.
    top: u64,
    /// What is behind all of them. Everything, before anybody was.
    behind: Option<Vec<usize>>,
    /// What is in front, but in its doorway, and of the owner of whoever was here: others could not pass it over.
    undecided: Vec<usize>,
}

impl Front {
    /// Puts into `out` what is in front of a waiter by the order of tickets, and was not handed out before.
    fn advance<'p>(
        &mut self,
        things: &[Thing<'p>],
        passes: &Passes,
        knot: &Knot,
        pace: &Pace,
        out: &mut Vec<usize>,
    ) -> Result<(), Stop<'p>> {
        let Knot { ticket, owner, .. } = *knot;
        let is_next = |index: usize| {
            pace.step(1);
            things[index].is_before_by_ticket(ticket, passes)
        };
        let in_the_way = |&&index: &&usize| things[index].owner() != owner && is_next(index);
        if let Some(&index) = self.undecided.iter().find(in_the_way) {
            return Err(Stop::Undecided(things[index].seen));
        }
        if ticket <= self.top {
            return Ok(());
        }
        self.top = ticket;
        let mut behind = Vec::new();
        let mut place = |index: usize| {
            pace.in_time()?;
            if !is_next(index) {
                behind.push(index);
            } else if !is_undecided(&things[index].seen) {
                out.push(index);
            } else if things[index].owner() == owner {
                self.undecided.push(index);
            } else {
                return Err(Stop::Undecided(things[index].seen));
            }
            Ok(())
        };
        match self.behind.take() {
            None => (0..things.len()).try_for_each(&mut place)?,
            Some(behind) => behind.into_iter().try_for_each(&mut place)?,
        }
        self.behind = Some(behind);
        Ok(())
    }
}

/// The owners in R, and their blocked requests.
struct Needed {
    /// The searcher's owner, and whomever its blocked requests hold up.
    ours: BTreeSet<OwnerId>,
    owners: BTreeSet<OwnerId>,
    /// Requests in R of owners who may not be: they hold up one who is.
    others: BTreeSet<KnotId>,
    knots: Vec<KnotId>,
    /// Whether somebody else's queued request can be in front of one of them. If not, nobody is to be passed.
    queue: bool,
}

/// A pass that is to be: who passes, who is passed, and as what it was seen.
type Pair<'p> = (KnotId, KnotId, Seen<'p>);

/// Whether two requests see the same: state, bytes and modes; whether they stay; and who sees it alone.
type Outlook = (usize, u64, u64, u64, bool, Option<KnotId>);

/// The part of the graph that a search has looked at.
pub(super) struct Search<'p> {
    pace: Pace,
    pin: &'p LazyPin,
    turns: &'p mut Turns,
    knots: Vec<Knot>,
    by_ticket: HashMap<u64, KnotId>,
    views: Vec<View<'p>>,
    by_outlook: HashMap<Outlook, ViewId>,
    blocked: HashMap<OwnerId, Rc<[KnotId]>>,
}

impl<'p> Search<'p> {
    /// One that stops at `deadline`.
    pub(super) fn new(pin: &'p LazyPin, turns: &'p mut Turns, deadline: Option<Instant>) -> Search<'p> {
        Search {
            pace: Pace::new(deadline),
            pin,
            turns,
            knots: Vec::new(),
            by_ticket: HashMap::new(),
            views: Vec::new(),
            by_outlook: HashMap::new(),
            blocked: HashMap::new(),
        }
    }

    /// Waits neither for a turn nor for who is in his doorway: it stops there, for its request to search again
    /// (INV-P6).
    pub(super) fn run(mut self, searcher: &Arc<Blocked>) -> Result<(), Stop<'p>> {
        let mine = searcher.owner;
        let needed = self.needed(mine)?;
        let mut pairs = Vec::new();
        if needed.queue {
            self.go_everywhere(&needed)?;
            let back = self.leading_back(&needed.ours)?;
            pairs = self.pairs(mine, &needed, &back)?;
        }
        // What this one has looked at may be older than what another has seen, with a turn that came late (INV-C5).
        if !self.turns.are_whole() {
            return Err(Stop::Unsettled);
        }
        self.let_pass(&pairs, searcher)
    }

    /// R: what grant edges lead to from the blocked requests of the searcher's owner, these included. Stops at a
    /// deadlock.
    fn needed(&mut self, mine: OwnerId) -> Result<Needed, Stop<'p>> {
        let own = self.blocked_of(mine)?;
        let ours = iter::once(mine).chain(own.iter().flat_map(|&knot| self.held_up_by(knot))).collect();
        let (owners, others) = (BTreeSet::from([mine]), BTreeSet::new());
        let mut needed = Needed { ours, owners, others, knots: Vec::new(), queue: false };
        // Whence each of them was reached, for the message.
        let mut led_by: BTreeMap<KnotId, Link<'p>> = BTreeMap::new();
        // The highest ticket first: a view is best entered from behind.
        let mut rest: BinaryHeap<(u64, KnotId)> = BinaryHeap::new();
        self.push(&own, &mut rest);
        let mut new = Vec::new();
        while let Some((ticket, from)) = rest.pop() {
            self.pace.in_time()?;
            needed.knots.push(from);
            let Knot { owner, way, .. } = self.knots[from];
            for (view, place) in self.views_of(from)? {
                self.advance(view, By::Grants, from, &mut new)?;
                let View { things, passes, passing, own_holds, .. } = &mut self.views[view];
                // What was of the first one's owner is not handed out again: whoever is not of S may have that in
                // front.
                needed.queue |= owner != mine || !passing.is_empty();
                new.retain(|&index| {
                    let is_queued = things[index].ticket().is_some();
                    needed.queue |= is_queued && things[index].owner() != owner;
                    !is_queued || way != Way::Passes
                });
                if owner == mine {
                    own_holds.extend(new.iter().copied().filter(|&index| things[index].owner() == mine));
                } else {
                    new.extend(own_holds.iter().copied().find(|&index| things[index].is_before(ticket, passes)));
                }
                for &index in &new {
                    let Thing { seen, .. } = self.views[view].things[index];
                    let its_ticket = self.views[view].things[index].ticket();
                    let its_owner = OwnerId::from_slot(seen.owner());
                    if its_owner == owner {
                        continue;
                    }
                    let link = Link { from, place, seen, queued: its_ticket.is_some() };
                    let blocked = self.blocked_of(its_owner)?;
                    // What was seen PENDING may have been in its doorway, and be among the blocked ones by now.
                    if !blocked.is_empty() && !link.stands() {
                        return Err(Stop::Unsettled);
                    }
                    if needed.ours.contains(&its_owner) {
                        return Err(self.deadlock(link, &led_by));
                    }
                    // It holds by now, though it had nothing but what it waits for.
                    if its_ticket.is_none() && blocked.iter().any(|&to| self.knots[to].way == Way::Stays) {
                        return Err(Stop::Unsettled);
                    }
                    if !blocked.is_empty() && needed.owners.insert(its_owner) {
                        // One that holds up others too may have been led to before.
                        let is_new = |to: &KnotId| !led_by.contains_key(to);
                        let new: SmallVec<[KnotId; 1]> = blocked.iter().copied().filter(is_new).collect();
                        needed.others.extend(new.iter().filter(|&&to| self.knots[to].owner != its_owner));
                        led_by.extend(new.iter().map(|&to| (to, link)));
                        if its_ticket.is_some() {
                            new.iter().for_each(|&to| self.knots[to].stay_if_alone());
                        }
                        self.push(&new, &mut rest);
                    }
                    // In no index: its owner's only request. (If it has been granted, or has gone, nothing leads on
                    // from it.)
                    if let (true, Some(ticket)) = (blocked.is_empty() && seen.waits_still(), its_ticket) {
                        if needed.owners.insert(its_owner) {
                            let to = self.knot_of(&seen, ticket, view)?;
                            if self.knots[to].blocked.is_some() {
                                return Err(Stop::Unsettled);
                            }
                            self.knots[to].way = Way::Stays;
                            led_by.insert(to, link);
                            self.push(&[to], &mut rest);
                        }
                    }
                }
            }
        }
        Ok(needed)
    }

    /// Goes wherever any edges lead to from R, so that each waiter that is led to is known to its views.
    fn go_everywhere(&mut self, needed: &Needed) -> Result<(), Stop<'p>> {
        let mut rest: BinaryHeap<(u64, KnotId)> = BinaryHeap::new();
        self.push(&needed.knots, &mut rest);
        let mut owners = needed.owners.clone();
        needed.knots.iter().for_each(|&knot| self.knots[knot].is_reached = true);
        let mut new = Vec::new();
        while let Some((ticket, from)) = rest.pop() {
            self.pace.in_time()?;
            for (view, _) in self.views_of(from)? {
                self.views[view].waiters.push((ticket, from));
                self.advance(view, By::All, from, &mut new)?;
                for &index in &new {
                    let thing = self.views[view].things[index];
                    let owner = thing.owner();
                    if let Some(ticket) = thing.ticket() {
                        let knot = self.knot_of(&thing.seen, ticket, view)?;
                        self.reach(knot, &mut rest);
                        // Who is not in the index, and no token, has nothing but the one request.
                        if self.knots[knot].blocked.is_none() && !owner.is_token() {
                            continue;
                        }
                    }
                    if owners.insert(owner) {
                        self.blocked_of(owner)?.iter().for_each(|&knot| self.reach(knot, &mut rest));
                    }
                }
            }
        }
        Ok(())
    }

    fn reach(&mut self, knot: KnotId, rest: &mut BinaryHeap<(u64, KnotId)>) {
        if !mem::replace(&mut self.knots[knot].is_reached, true) {
            rest.push((self.knots[knot].ticket, knot));
        }
    }

    /// The owners whose blocked requests lead to those of the searcher's, which is one of them. And those whom such
    /// requests hold up.
    fn leading_back(&mut self, ours: &BTreeSet<OwnerId>) -> Result<BTreeSet<OwnerId>, Stop<'p>> {
        for view in &mut self.views {
            view.waiters.sort_unstable();
            view.waiters.dedup();
        }
        let all = || {
            self.views.iter().enumerate().flat_map(|(id, view)| (0..view.things.len()).map(move |index| (id, index)))
        };
        let owner_of = |&(id, index): &(ViewId, usize)| self.views[id].things[index].owner();
        // By owner. The searcher's own are found without: most often nobody leads back to them.
        let mut things: Vec<(ViewId, usize)> = all().filter(|place| ours.contains(&owner_of(place))).collect();
        things.sort_by_cached_key(owner_of);
        let mut are_all_there = false;
        // Of each view's waiters, those up to here are not marked.
        let mut unmarked: Vec<usize> = self.views.iter().map(|view| view.waiters.len()).collect();
        let mut back = ours.clone();
        let mut rest: Vec<OwnerId> = back.iter().copied().collect();
        while let Some(owner) = rest.pop() {
            if !ours.contains(&owner) && !mem::replace(&mut are_all_there, true) {
                things = all().collect();
                things.sort_by_cached_key(owner_of);
            }
            let first = things.partition_point(|place| owner_of(place) < owner);
            for &(id, index) in things[first..].iter().take_while(|place| owner_of(place) == owner) {
                self.pace.step(1);
                self.pace.in_time()?;
                let View { things, passes, waiters, ahead, .. } = &self.views[id];
                let thing = &things[index];
                let waiters = &waiters[..unmarked[id]];
                let first = waiters.partition_point(|&(ticket, _)| {
                    self.pace.step(1);
                    !thing.is_before_by_ticket(ticket, passes)
                });
                let behind = waiters[first..].iter().map(|&(_, knot)| knot);
                let passed = ahead.range((index, 0)..=(index, KnotId::MAX)).map(|&(_, knot)| knot);
                for knot in behind.chain(passed) {
                    self.pace.step(1);
                    self.pace.in_time()?;
                    for owner in iter::once(self.knots[knot].owner).chain(self.held_up_by(knot)) {
                        if back.insert(owner) {
                            rest.push(owner);
                        }
                    }
                }
                unmarked[id] = first;
            }
        }
        Ok(back)
    }

    /// Who must pass whom: each of R whoever is queued in front of it, and of S's owner, or outside of R and leading to
    /// S.
    fn pairs(&mut self, mine: OwnerId, needed: &Needed, back: &BTreeSet<OwnerId>) -> Result<Vec<Pair<'p>>, Stop<'p>> {
        // Of each view, those of S, and the others; the highest ticket first.
        let mut by_view: BTreeMap<ViewId, [Vec<KnotId>; 2]> = BTreeMap::new();
        let mut knots: Vec<(u64, KnotId)> = needed.knots.iter().map(|&knot| (self.knots[knot].ticket, knot)).collect();
        knots.sort_unstable();
        for &(_, knot) in knots.iter().rev() {
            if self.knots[knot].way != Way::Passes {
                continue;
            }
            let is_other = usize::from(self.knots[knot].owner != mine);
            for (view, _) in self.views_of(knot)? {
                by_view.entry(view).or_default()[is_other].push(knot);
            }
        }
        let mut pairs = Vec::new();
        for (view, [own, others]) in by_view {
            for index in 0..self.views[view].things.len() {
                self.pace.step(1);
                self.pace.in_time()?;
                let thing = self.views[view].things[index];
                let (Some(ticket), owner) = (thing.ticket(), thing.owner()) else { continue };
                let is_mine = owner == mine;
                let is_needed = || self.by_ticket.get(&ticket).is_some_and(|knot| needed.others.contains(knot));
                if !is_mine && (needed.owners.contains(&owner) || !back.contains(&owner) || is_needed()) {
                    continue;
                }
                let own: &[KnotId] = if is_mine { &[] } else { &own };
                for knots in [&others[..], own] {
                    for &z in knots {
                        self.pace.step(1);
                        self.pace.in_time()?;
                        if self.views[view].is_in_front(index, self.knots[z].ticket, z) {
                            pairs.push((z, self.knot_of(&thing.seen, ticket, view)?, thing.seen));
                        } else if !thing.seen.word().is_passing() {
                            // Nor is it for those with lower tickets (INV-V1).
                            break;
                        }
                    }
                }
            }
        }
        Ok(pairs)
    }

    /// Lets each z pass its w, and wakes the z that sleep. The searcher itself is awake.
    fn let_pass(&mut self, pairs: &[Pair<'p>], searcher: &Arc<Blocked>) -> Result<(), Stop<'p>> {
        let (mut unsettled, mut undecided, mut late) = (false, None, Ok(()));
        // Of each z, whether its slots say that it passes somebody.
        let mut marked: BTreeMap<KnotId, bool> = BTreeMap::new();
        // Those who may pass somebody as of now. Nobody else is woken: the searcher may sleep beside them, and search
        // again when it wakes.
        let mut enabled = BTreeSet::new();
        for &(z, w, seen) in pairs {
            self.pace.step(1);
            late = self.pace.in_time();
            if late.is_err() {
                break;
            }
            let over = self.knots[w].ticket;
            let passing = self.knots[z].blocked.as_ref().expect("only enlisted requests are needed by anybody");
            let is_marked = *marked.entry(z).or_insert_with(|| {
                self.pace.step(passing.sites.len());
                let lets_pass = |site: &Site| {
                    let slot = site.slot.expect("a drain passes nobody");
                    // SAFETY: the slots are live while the entry can be seen (INV-C1).
                    unsafe { slot.let_pass() }
                };
                let stuck = passing.sites.iter().find(|site| !lets_pass(site));
                match stuck.map(|site| self.in_its_doorway(site)) {
                    Some(Some(seen)) => undecided = Some(seen),
                    Some(None) => unsettled = true,
                    None => {}
                }
                stuck.is_none()
            });
            if !is_marked {
                continue;
            }
            let is_new = passing.note_pass(over);
            let passed = self.knots[w].blocked.as_ref();
            // From here on w waits for z; and if it was to pass z before, z still waits for w.
            passed.iter().for_each(|passed| _ = passed.set_open(passing.ticket, false));
            if ask_to_rescan(&seen) == Rescan::Granted {
                if is_new {
                    passing.drop_pass(over);
                }
                unsettled = true;
                continue;
            }
            passed.iter().for_each(|passed| passed.drop_pass(passing.ticket));
            if passing.set_open(over, true) {
                enabled.insert(z);
            }
            if is_new {
                telemetry::passed(1);
            }
        }
        let sleepers = enabled.iter().filter(|&&z| self.knots[z].ticket != searcher.ticket);
        let views: BTreeSet<ViewId> =
            sleepers.flat_map(|&z| self.knots[z].views.iter().map(|&(view, _)| view)).collect();
        views.into_iter().for_each(|view| self.wake(view));
        late?;
        match undecided {
            _ if unsettled => Err(Stop::Unsettled),
            Some(seen) => Err(Stop::Undecided(seen)),
            None => Ok(()),
        }
    }

    /// The slot of an enlisted request that is not in the queue yet. (A drain has no doorway.)
    fn in_its_doorway(&self, site: &Site) -> Option<Seen<'p>> {
        let slot = site.slot?;
        // SAFETY: the slot is live while the entry can be seen (INV-C1).
        let seen = unsafe { slot.seen(self.pin) };
        seen.word().is_queuing().then_some(seen)
    }

    /// Wakes the waiters of a view that sleep: each on something that is in conflict with it.
    fn wake(&self, view: ViewId) {
        let View { state, query, .. } = self.views[view];
        let _ = self.state(state).tree.scan(&query, None, self.pin, |seen| {
            self.pace.step(1);
            seen.tell();
            Continue(())
        });
    }

    /// Puts into `new` what is in front of `knot` in a view, and was not handed out before to one that came by the same
    /// edges.
    fn advance(&mut self, view: ViewId, by: By, knot: KnotId, new: &mut Vec<usize>) -> Result<(), Stop<'p>> {
        let View { things, passes, passing, fronts, ahead, .. } = &mut self.views[view];
        new.clear();
        fronts[by as usize].advance(things, passes, &self.knots[knot], &self.pace, new)?;
        let Knot { way, ticket, owner, .. } = self.knots[knot];
        if matches!(by, By::All) || way == Way::Stays {
            for &index in &*passing {
                self.pace.step(1);
                self.pace.in_time()?;
                let thing = &things[index];
                if thing.may_be_ahead_of(ticket) && thing.owner() != owner && thing.is_before(ticket, passes) {
                    ahead.insert((index, knot));
                    new.push(index);
                }
            }
        }
        Ok(())
    }

    /// What `knot` sees.
    fn views_of(&mut self, knot: KnotId) -> Result<SmallVec<[(ViewId, usize); 1]>, Stop<'p>> {
        if self.knots[knot].views.is_empty() {
            let Knot { way, ticket, ref blocked, ref places, .. } = self.knots[knot];
            let passes = blocked.as_ref().map(|blocked| blocked.open_passes()).unwrap_or_default();
            let drain = (way == Way::Drains).then_some(ticket);
            let alone = (!passes.is_empty() || drain.is_some()).then_some(knot);
            let places = places.clone();
            let mut views: SmallVec<[(ViewId, usize); 1]> = SmallVec::new();
            for (place, &(state, query)) in places.iter().enumerate() {
                self.pace.step(1);
                let outlook = (state.as_ptr().addr(), query.start, query.last, query.against, way == Way::Stays, alone);
                let known = self.by_outlook.get(&outlook).copied();
                let known = known.filter(|&view| ticket <= self.views[view].since);
                let view = match known {
                    Some(view) => view,
                    None => self.look(state, query, passes.clone(), drain)?,
                };
                self.by_outlook.insert(outlook, view);
                views.push((view, place));
            }
            views.sort_unstable();
            views.dedup_by_key(|(view, _)| *view);
            self.knots[knot].views = views;
        }
        Ok(self.knots[knot].views.clone())
    }

    /// A new view of what is in the way of `query`, whoever asks; or of what came before a `drain`.
    fn look(
        &mut self,
        state: NonNull<LockState>,
        query: Query<'static>,
        passes: Passes,
        drain: Option<u64>,
    ) -> Result<ViewId, Stop<'p>> {
        // Before the scan: see INV-V2.
        let since = owner::last_ticket();
        // No owner has the id 0.
        let query = Query { owner: 0, ..query };
        let mut things = Vec::new();
        let _ = self.state(state).tree.scan(&query, None, self.pin, |seen| {
            self.pace.step(1);
            if drain.is_none_or(|ticket| came_before(&seen, ticket)) {
                things.push(Thing { seen, decided: is_decided(&seen) });
            }
            if self.pace.is_late.get() { Break(()) } else { Continue(()) }
        });
        self.pace.in_time()?;
        let passing = (0..things.len()).filter(|&index| things[index].seen.word().is_passing()).collect();
        let fronts = [Front::default(), Front::default()];
        let (own_holds, waiters, ahead) = (Vec::new(), Vec::new(), BTreeSet::new());
        self.views.push(View { state, query, since, passes, things, passing, fronts, own_holds, waiters, ahead });
        Ok(self.views.len() - 1)
    }

    /// The knot of a queued request that is in a view.
    fn knot_of(&mut self, seen: &Seen<'_>, ticket: u64, view: ViewId) -> Result<KnotId, Stop<'p>> {
        self.pace.step(1);
        if let Some(&knot) = self.by_ticket.get(&ticket) {
            return Ok(knot);
        }
        let owner = OwnerId::from_slot(seen.owner());
        // A single request of who is no token, and had nothing else, is in no index. (Or holds somebody up: that
        // matters if it was let past somebody.)
        let is_enlisted = owner::is_nested(ticket) || owner.is_token() || seen.word().is_passing();
        let mut take = |blocked: &Arc<Blocked>| take(self.turns, blocked).map(|()| blocked.clone());
        let found = match index::ask_batch(ticket, &mut take) {
            None if is_enlisted => index::ask(owner, ticket, take),
            batch => batch,
        };
        Ok(match found.transpose()? {
            Some(blocked) => self.knot(blocked),
            None => {
                let (range, mode) = what(seen);
                let query = Ask::at(range, mode, owner.get(), ticket).query();
                let places = SmallVec::from_buf([(self.views[view].state, query)]);
                let (way, asked, views) = (Way::Passes, Some((range, mode)), SmallVec::new());
                self.add(Knot { way, asked, ticket, owner, blocked: None, places, views, is_reached: false })
            }
        })
    }

    fn knot(&mut self, blocked: Arc<Blocked>) -> KnotId {
        if let Some(&knot) = self.by_ticket.get(&blocked.ticket) {
            // One that holds somebody up may have been met in the queue before, where it looks like one that is alone.
            self.knots[knot].blocked.get_or_insert(blocked);
            return knot;
        }
        let places = blocked.sites.iter().map(|site| (site.state, site.ask.query())).collect();
        let (ticket, owner, views) = (blocked.ticket, blocked.owner, SmallVec::new());
        let way = if blocked.is_drain() { Way::Drains } else { Way::Passes };
        self.add(Knot { way, asked: None, ticket, owner, blocked: Some(blocked), places, views, is_reached: false })
    }

    fn add(&mut self, knot: Knot) -> KnotId {
        let id = self.knots.len();
        self.by_ticket.insert(knot.ticket, id);
        self.knots.push(knot);
        id
    }

    /// Whom a request holds up beside its owner.
    fn held_up_by(&self, knot: KnotId) -> SmallVec<[OwnerId; 1]> {
        self.knots[knot].blocked.as_ref().map(|blocked| blocked.held_up()).unwrap_or_default()
    }

    fn push(&self, knots: &[KnotId], onto: &mut BinaryHeap<(u64, KnotId)>) {
        onto.extend(knots.iter().map(|&knot| (self.knots[knot].ticket, knot)));
    }

    /// The blocked requests of an owner, as they were when this search asked first (INV-C4).
    fn blocked_of(&mut self, owner: OwnerId) -> Result<Rc<[KnotId]>, Stop<'p>> {
        if let Some(blocked) = self.blocked.get(&owner) {
            return Ok(blocked.clone());
        }
        let found = index::of(owner, |blocked| take(self.turns, blocked))?;
        self.pace.step(1 + found.len());
        let blocked: Rc<[KnotId]> = found.into_iter().map(|blocked| self.knot(blocked)).collect();
        self.blocked.insert(owner, blocked.clone());
        Ok(blocked)
    }

    fn state(&self, state: NonNull<LockState>) -> &'p LockState {
        // SAFETY: it comes from an entry that this search has found in the index with its turns in hand, and is in
        // place until they are given back (INV-C1); `'p` is no longer than that.
        unsafe { state.as_ref() }
    }

    /// The answer, if each hold of the cycle is still what it was when it was looked at: then there was a moment at
    /// which all of them were, and all waits.
    ///
    /// Nobody has to look whether `from` waits still. Its entry was in the index, so its slots are there until the
    /// search ends (INV-C1). Who was seen in its way has blocked requests, and was the same before and after these were
    /// looked up: so it is none in its doorway, and holds. And nobody is granted what is in conflict with a hold, as
    /// long as that stands.
    fn deadlock(&self, closing: Link<'p>, led_by: &BTreeMap<KnotId, Link<'p>>) -> Stop<'p> {
        let mut links = vec![closing];
        while let Some(&link) = links.last().and_then(|link| led_by.get(&link.from)) {
            links.push(link);
        }
        links.reverse();
        let mut waits = Vec::with_capacity(links.len());
        let next: Vec<KnotId> = links.iter().cycle().skip(1).take(links.len()).map(|link| link.from).collect();
        for (link, next) in links.into_iter().zip(next) {
            let Link { from, place, seen, queued } = link;
            let Knot { blocked, asked, owner, places, .. } = &self.knots[from];
            let site = blocked.as_ref().map(|blocked| &blocked.sites[place]);
            // First, as it may leave its doorway meanwhile.
            if let Some(seen) = site.and_then(|site| self.in_its_doorway(site)) {
                return Stop::Undecided(seen);
            }
            let waits_still = match (blocked, site.and_then(|site| site.slot)) {
                // SAFETY: the slot is live while the entry can be seen (INV-C1).
                (Some(blocked), Some(slot)) => (unsafe { slot.waits_with(blocked.ticket) }) && !blocked.is_decided(),
                // A drain waits for as long as its entry can be seen. One that is in no index was the end of the link
                // before, which stands.
                _ => true,
            };
            if !link.stands() {
                return Stop::Unsettled;
            }
            // Also in models, which are optimised.
            assert!(waits_still || cfg!(not(any(debug_assertions, loom))), "granted in spite of a hold");
            let (held, held_mode) = what(&seen);
            let asked = site.map(|site| (site.ask.range(), site.ask.mode())).or(*asked);
            let (range, mode): (ByteRange, Mode) =
                asked.expect("who is in no index has one place, and says what it asks for");
            let lock = self.state(places[place].0).label();
            let owner = blocked.as_ref().map_or(OwnerName { id: *owner, name: None }, |blocked| blocked.name());
            let its = OwnerId::from_slot(seen.owner());
            let next = self.knots[next].blocked.as_ref();
            let holder = next.map_or(OwnerName { id: its, name: None }, |next| next.name_of(its));
            waits.push(Wait { owner, lock, range, mode, held, held_mode, holder, queued });
        }
        Stop::Deadlock(Deadlock::new(waits))
    }
}

/// Takes the turns of an entry that the index has: from now on it can be followed, until the search ends (INV-C1).
fn take<'p>(turns: &mut Turns, blocked: &Blocked) -> Result<(), Stop<'p>> {
    blocked.turns.iter().try_for_each(|turn| turns.take(turn)).map_err(Stop::Taken)
}

/// A grant edge: the request `from` waits, at one of its places, for who was seen there.
#[derive(Clone, Copy)]
struct Link<'p> {
    from: KnotId,
    place: usize,
    seen: Seen<'p>,
    /// Whether that one only waits yet: see [`Way`].
    queued: bool,
}

impl Link<'_> {
    /// Whether who was seen holds still, or is there still.
    fn stands(&self) -> bool {
        match self.seen.ticket() {
            None => self.seen.holds_still(),
            // Of a batch that was decided; or it waits, and that matters.
            Some(_) => self.seen.is_there_still(),
        }
    }
}
