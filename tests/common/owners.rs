//! The naive oracle for owners: who is granted, who is let past whom, and who is told of a deadlock, read off a list of
//! requests.
//!
//! One thing happens at a time in here, so every question has one answer. The rule, as the contract has it:
//!
//! 1. A request that no live request of another owner is in conflict with, held or queued, is granted at once. Any
//!    other one queues. (In locks with a window that is never over, a single request of an owner that never has another
//!    is granted at once, too, if all that are in conflict with it are queued, and such requests themselves.)
//! 2. A queued request waits for the conflicting ones that are held or in front of it; in front is who came earlier,
//!    unless one of the two was let past the other.
//! 3. One that queues, of an owner that has others, looks at whom the owner waits for. Let S be the owner's queued
//!    requests, and R all that must get through before S can: the queued requests of whoever *holds* what S waits for,
//!    of whoever holds what those wait for, and so on. If R waits for a hold of S's owner, that is a deadlock: the
//!    request goes, and nobody else does. (A *drain* is a request that nobody waits for, and that waits for those only
//!    who came before it: until they have gone, not only until they make way. So an edge from it to one that is queued
//!    counts as one to a holder; and so does an edge from a request that is its owner's only one, and so let past
//!    nobody, if R needs it for a drain's sake.)
//! 4. Otherwise everybody in R is let past each queued one in front of it that is in S, or that is outside of R and
//!    leads to S: by what it and the others of its owner wait for, held or queued, and what the others of those owners
//!    wait for.

use super::{Span, together};
use spanlock::Mode;
use std::collections::BTreeSet;
use std::fmt;

/// Whom a request is checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Who {
    /// An owner that makes this one request, ever: a future without an owner.
    Solo(usize),
    /// An owner that makes as many as it likes: a token, or a thread.
    Many(usize),
}

/// What is asked of one lock.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Part {
    pub(crate) lock: usize,
    pub(crate) span: Span,
    pub(crate) mode: Mode,
}

impl Part {
    pub(crate) fn conflicts(&self, other: &Part) -> bool {
        self.lock == other.lock && !together(self.mode, other.mode) && self.span.meets(other.span)
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}:{:?}", self.mode, self.lock, self.span)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Held,
    Queued,
}

/// A live request: one part, or the parts of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Live {
    id: usize,
    who: Who,
    drain: bool,
    parts: Vec<Part>,
    state: State,
    /// The queued requests that it was let past.
    passes: BTreeSet<usize>,
    /// Whether its owner had another live request when it began, and which of those are left.
    nested: bool,
    within: BTreeSet<usize>,
}

impl Live {
    /// Whether one of them has to wait for the other as requests do, which hold something in the end.
    fn conflicts(&self, other: &Live) -> bool {
        !self.drain && !other.drain && self.meets(other)
    }

    /// Whether this one, which drains, has to wait for the other if that came first.
    fn drains(&self, other: &Live) -> bool {
        self.drain && !other.drain && self.meets(other)
    }

    fn meets(&self, other: &Live) -> bool {
        self.who != other.who && self.parts.iter().any(|a| other.parts.iter().any(|b| a.conflicts(b)))
    }

    /// Whether it may pass, and be passed. A part of a batch that is empty makes it one of several: what is held of it
    /// can be extended.
    fn is_single(&self) -> bool {
        matches!(self.who, Who::Solo(_)) && self.parts.len() == 1
    }

    /// Whether it covers a byte.
    fn covers(&self) -> bool {
        self.parts.iter().any(|part| !part.span.is_empty())
    }
}

/// The answer to a request that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    Granted,
    Queued,
    /// It is gone. The cycle: itself first, and each waits for the owner of the next.
    Deadlock {
        cycle: Vec<usize>,
    },
}

/// What a held request is nested in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Nested {
    Outermost,
    Elsewhere,
    /// In one of these, in modes that go with its own.
    Inside(Vec<Part>),
    /// In one of these, in modes that conflict with its own.
    Conflicting(Vec<Part>),
}

/// The rule, or one that is broken on purpose: a test must be able to tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Rule {
    #[default]
    AsDesigned,
    /// First come, first served, and nothing else.
    NobodyPasses,
    /// Whom R waits for is passed, wanted or not.
    EverybodyIsPassed,
    /// S is let past, the rest of R is not.
    OnlyTheSearcherPasses,
    /// A cycle through somebody who only waits is a deadlock too.
    EveryCycleIsADeadlock,
    /// A request that queues stands for itself, not for its owner.
    SiblingsAreStrangers,
    /// A batch waits for its first part only, as far as the search knows.
    BatchesAreTheirFirstPart,
}

/// A queued request's place in the list.
type Place = usize;
type Places = BTreeSet<Place>;

/// All live requests in the order in which they began, which is the order of tickets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Model {
    rule: Rule,
    /// Whether newcomers pass.
    reorders: bool,
    /// Whether a hold has become more while somebody drained: that can close a cycle, which is found when the drain
    /// looks again.
    loose: bool,
    live: Vec<Live>,
}

impl Model {
    /// The same requests under another rule.
    pub(crate) fn under(self, rule: Rule) -> Model {
        Model { rule, ..self }
    }

    /// The same of locks that have a window.
    pub(crate) fn reordering(self, reorders: bool) -> Model {
        Model { reorders, ..self }
    }

    /// A request begins.
    pub(crate) fn begin(&mut self, id: usize, who: Who, parts: Vec<Part>) -> Begin {
        let new = self.new_request(id, who, parts);
        let passed =
            |other: &Live| self.reorders && other.state == State::Queued && new.is_single() && other.is_single();
        if !self.live.iter().any(|other| other.conflicts(&new) && !passed(other)) {
            self.live.push(Live { state: State::Held, ..new });
            return Begin::Granted;
        }
        self.queue(id, new)
    }

    /// A drain begins. [`Begin::Granted`]: nobody is there, and it is over.
    pub(crate) fn begin_drain(&mut self, id: usize, who: Who, part: Part) -> Begin {
        let new = Live { drain: true, ..self.new_request(id, who, vec![part]) };
        if !self.live.iter().any(|other| new.drains(other)) {
            return Begin::Granted;
        }
        self.queue(id, new)
    }

    /// What somebody is in the way of waits, unless it would close a cycle.
    fn queue(&mut self, id: usize, new: Live) -> Begin {
        let nested = new.nested;
        self.live.push(new);
        if nested {
            if let Some(cycle) = self.search(self.live.len() - 1) {
                self.end(id);
                return Begin::Deadlock { cycle };
            }
        }
        Begin::Queued
    }

    /// A request that does not wait: whether it was granted. If not, it is gone.
    pub(crate) fn try_begin(&mut self, id: usize, who: Who, parts: Vec<Part>) -> bool {
        let new = self.new_request(id, who, parts);
        let free = !self.live.iter().any(|other| other.conflicts(&new));
        if free {
            self.live.push(Live { state: State::Held, ..new });
        }
        free
    }

    fn new_request(&self, id: usize, who: Who, parts: Vec<Part>) -> Live {
        let others = self.live.iter().filter(|other| other.who == who && other.covers());
        let within: BTreeSet<usize> = others.map(|other| other.id).collect();
        Live {
            id,
            who,
            drain: false,
            parts,
            state: State::Queued,
            passes: BTreeSet::new(),
            nested: !within.is_empty(),
            within,
        }
    }

    /// A request is over: released or cancelled.
    pub(crate) fn end(&mut self, id: usize) {
        let place = self.place(id);
        self.live.remove(place);
        self.live.iter_mut().for_each(|other| {
            other.passes.remove(&id);
            other.within.remove(&id);
        });
    }

    /// Grants all that nobody stands in front of; says whom.
    pub(crate) fn settle(&mut self) -> Vec<usize> {
        let mut granted = Vec::new();
        while let Some(place) = (0..self.live.len()).find(|&place| self.queued(place) && !self.blocked(place)) {
            let id = self.live[place].id;
            self.grant(id);
            granted.push(id);
        }
        granted
    }

    /// Grants one that waits. The caller has looked that nobody stands in front of it.
    pub(crate) fn grant(&mut self, id: usize) {
        let place = self.place(id);
        self.live[place].state = State::Held;
        self.live[place].passes.clear();
        self.live.iter_mut().for_each(|other| _ = other.passes.remove(&id));
    }

    /// Whether a request that waits has to go on waiting.
    pub(crate) fn waits(&self, id: usize) -> bool {
        self.queued(self.place(id)) && self.blocked(self.place(id))
    }

    /// Whom a drain of `part` by `who`, which begins now, waits for: all who are live and in conflict.
    pub(crate) fn before_drain(&self, who: Who, part: Part) -> Vec<usize> {
        let conflicts = |live: &&Live| live.who != who && live.parts.iter().any(|its| its.conflicts(&part));
        self.live.iter().filter(conflicts).map(|live| live.id).collect()
    }

    /// Somebody who stands in front of `id`.
    pub(crate) fn blocker(&self, id: usize) -> Option<usize> {
        let me = self.place(id);
        (0..self.live.len()).find(|&other| self.stands_before(other, me)).map(|other| self.live[other].id)
    }

    /// A batch that was granted becomes a request for each part, in the order of the parts.
    pub(crate) fn unbundle(&mut self, id: usize, ids: &[usize]) {
        let place = self.place(id);
        let batch = self.live.remove(place);
        assert!(batch.state == State::Held && batch.parts.len() == ids.len());
        for other in &mut self.live {
            if other.within.remove(&id) {
                other.within.extend(ids);
            }
        }
        let parts = ids.iter().zip(&batch.parts).map(|(&id, part)| Live { id, parts: vec![*part], ..batch.clone() });
        self.live.splice(place..place, parts);
    }

    pub(crate) fn is_held(&self, id: usize) -> bool {
        self.live.iter().any(|live| live.id == id && live.state == State::Held)
    }

    pub(crate) fn is_batch(&self, id: usize) -> bool {
        self.live[self.place(id)].parts.len() > 1
    }

    /// What a held request, which is no batch, holds.
    pub(crate) fn held(&self, id: usize) -> Part {
        let live = &self.live[self.place(id)];
        assert!(live.state == State::Held && live.parts.len() == 1);
        live.parts[0]
    }

    /// Exclusive becomes something weaker.
    pub(crate) fn downgrade(&mut self, id: usize, mode: Mode) {
        assert!(self.held(id).mode == Mode::Exclusive);
        self.held_mut(id).mode = mode;
    }

    /// Gives back all but `span`, a part of what is held.
    pub(crate) fn shrink(&mut self, id: usize, span: Span) {
        assert!(self.held(id).span.cut(span) == span);
        self.held_mut(id).span = span;
        self.forget_if_empty(id);
    }

    /// What lies from `at` on becomes the request `tail`.
    pub(crate) fn split(&mut self, id: usize, at: u64, tail: usize) {
        let (head_span, tail_span) = self.held(id).span.split(at);
        self.part(id, head_span, tail, tail_span);
    }

    /// Gives back `gap`, a part of what is held. What lies behind it becomes the request `tail`.
    pub(crate) fn release(&mut self, id: usize, gap: Span, tail: usize) {
        let (head_span, tail_span) = self.held(id).span.around(gap);
        self.part(id, head_span, tail, tail_span);
    }

    fn part(&mut self, id: usize, head_span: Span, tail: usize, tail_span: Span) {
        let place = self.place(id);
        let mut second = self.live[place].clone();
        second.id = tail;
        second.parts[0].span = tail_span;
        for other in &mut self.live {
            if other.within.contains(&id) {
                other.within.insert(tail);
            }
        }
        self.held_mut(id).span = head_span;
        self.live.insert(place + 1, second);
        self.forget_if_empty(id);
        self.forget_if_empty(tail);
    }

    /// Changes the mode if nobody is in the way; whether it did.
    pub(crate) fn try_convert(&mut self, id: usize, mode: Mode) -> bool {
        self.try_become(id, Part { mode, ..self.held(id) })
    }

    /// Extends the hold to `span`, which contains it, if nobody is in the way; whether it did.
    pub(crate) fn try_extend(&mut self, id: usize, span: Span) -> bool {
        assert!(self.held(id).span.cut(span) == self.held(id).span);
        self.try_become(id, Part { span, ..self.held(id) })
    }

    /// In the way is what conflicts with the hold that it would be, and not with the one that it is: whatever does with
    /// both, waits behind it already. The parts of a batch count one by one, as if they did not wait for one another.
    /// (That is stricter than it need be.)
    fn try_become(&mut self, id: usize, new: Part) -> bool {
        let (old, who) = (self.held(id), self.live[self.place(id)].who);
        let bars = |part: &Part| part.conflicts(&new) && !part.conflicts(&old);
        let in_the_way = |other: &Live| !other.drain && other.who != who && other.parts.iter().any(bars);
        if self.live.iter().any(in_the_way) {
            return false;
        }
        *self.held_mut(id) = new;
        self.loose |= self.live.iter().any(|live| live.drain);
        true
    }

    /// What a held request is nested in.
    pub(crate) fn nested(&self, id: usize) -> Nested {
        let (me, live) = (self.held(id), &self.live[self.place(id)]);
        if me.span.is_empty() || !live.nested {
            return Nested::Outermost;
        }
        let around = self.live.iter().filter(|other| other.state == State::Held && live.within.contains(&other.id));
        let around = around.flat_map(|other| other.parts.iter().copied());
        let around = around.filter(|part| part.lock == me.lock && part.span.meets(me.span));
        let (inside, conflicting): (Vec<Part>, Vec<Part>) = around.partition(|part| together(part.mode, me.mode));
        match (inside.is_empty(), conflicting.is_empty()) {
            (true, true) => Nested::Elsewhere,
            (false, true) => Nested::Inside(inside),
            (_, false) => Nested::Conflicting(conflicting),
        }
    }

    /// Whether an owner holds some of these bytes in a mode that conflicts.
    pub(crate) fn recurses(&self, who: Who, parts: &[Part]) -> bool {
        let own = self.live.iter().filter(|live| live.who == who && live.state == State::Held);
        own.flat_map(|live| &live.parts).any(|held| parts.iter().any(|part| part.conflicts(held)))
    }

    /// Whether an owner has a live request with this part.
    pub(crate) fn asks(&self, who: Who, part: Part) -> bool {
        self.live.iter().any(|live| live.who == who && live.state == State::Queued && live.parts.contains(&part))
    }

    /// Whose only request is this one, which waits. (If there are several, any of them.)
    pub(crate) fn who_asks_alone(&self, part: Part) -> Option<Who> {
        let alone = |live: &&Live| {
            matches!(live.who, Who::Solo(_)) && live.state == State::Queued && live.parts.contains(&part)
        };
        self.live.iter().find(alone).map(|live| live.who)
    }

    /// Whether an owner holds exactly this.
    pub(crate) fn holds(&self, who: Who, part: Part) -> bool {
        self.live.iter().any(|live| live.who == who && live.state == State::Held && live.parts.contains(&part))
    }

    /// Pairs of queued requests that conflict, of which the first was let past the second.
    pub(crate) fn passes(&self) -> BTreeSet<(usize, usize)> {
        self.live.iter().flat_map(|z| z.passes.iter().map(|w| (z.id, *w))).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.live.iter().filter(|live| live.covers()).count()
    }

    /// Whether an owner can get no further whatever everybody does, as long as who waits releases nothing: found by
    /// letting one after the other run to its end. The order of the queue does not matter, only what is held.
    pub(crate) fn truly_deadlocked(&self, who: Who) -> bool {
        let mut stuck: BTreeSet<Who> = self.live.iter().map(|live| live.who).collect();
        let can_go = |who: Who, stuck: &BTreeSet<Who>| {
            self.live.iter().filter(|asks| asks.who == who && asks.state == State::Queued).all(|asks| {
                let me = self.place(asks.id);
                let in_the_way = (0..self.live.len()).filter(|&other| self.stands_before(other, me));
                in_the_way
                    .filter(|&other| !self.queued(other) || self.stays(me))
                    .all(|other| !stuck.contains(&self.live[other].who))
            })
        };
        while let Some(next) = stuck.iter().copied().find(|&who| can_go(who, &stuck)) {
            stuck.remove(&next);
        }
        stuck.contains(&who)
    }

    /// As [`Model::truly_deadlocked`], if `who` asked for `parts` too and waited.
    pub(crate) fn would_be_deadlocked(&self, who: Who, parts: Vec<Part>) -> bool {
        let mut with = self.clone();
        with.live.push(self.new_request(usize::MAX, who, parts));
        with.truly_deadlocked(who)
    }

    /// The same, if `who` drained `part`.
    pub(crate) fn would_be_deadlocked_by_a_drain(&self, who: Who, part: Part) -> bool {
        let mut with = self.clone();
        with.live.push(Live { drain: true, ..self.new_request(usize::MAX, who, vec![part]) });
        with.truly_deadlocked(who)
    }

    /// Whether a drain that waits does so for its own owner: as a hold has become more meanwhile.
    pub(crate) fn is_deadlocked_drain(&self, id: usize) -> bool {
        let start = self.siblings(self.place(id));
        let needed = Model::closure(&start, |place| self.grants(place));
        self.loose && needed.iter().any(|&place| !self.grants(place).is_disjoint(&start))
    }

    /// What must hold between any two steps.
    pub(crate) fn check_invariants(&self) -> Result<(), String> {
        self.check_exclusion()?;
        for place in 0..self.live.len() {
            let Live { id, ref passes, .. } = self.live[place];
            for &w in passes {
                let passed = self.live.iter().find(|live| live.id == w);
                let Some(passed) = passed else { return Err(format!("#{id} passes #{w}, which is gone")) };
                if passed.state == State::Held || passed.passes.contains(&id) {
                    return Err(format!("#{id} passes #{w}, which is held or passes it in turn"));
                }
            }
            let edges = |place: Place| match self.loose && self.live[place].drain {
                true => Places::new(),
                false => self.edges(place),
            };
            if Model::closure(&edges(place), edges).contains(&place) {
                return Err(format!("#{id} waits for itself"));
            }
        }
        Ok(())
    }

    /// No two that conflict are held.
    pub(crate) fn check_exclusion(&self) -> Result<(), String> {
        let held: Vec<&Live> = self.live.iter().filter(|live| live.state == State::Held).collect();
        for (at, a) in held.iter().enumerate() {
            if let Some(b) = held[..at].iter().find(|b| a.conflicts(b)) {
                return Err(format!("exclusion: #{} and #{} are both held", b.id, a.id));
            }
        }
        Ok(())
    }

    /// Of `id`, which is about to be granted: nobody earlier may wait in conflict with it, but whom it passes.
    pub(crate) fn check_order(&self, id: usize) -> Result<(), String> {
        let place = self.place(id);
        let me = &self.live[place];
        let overtaken = |&other: &Place| {
            self.queued(other) && me.conflicts(&self.live[other]) && !me.passes.contains(&self.live[other].id)
        };
        match (0..place).find(overtaken) {
            Some(other) => Err(format!("order: #{id} overtakes #{}", self.live[other].id)),
            None => Ok(()),
        }
    }

    /// Whether waiting for `w`, which stands in front of `z`, is a part of a cycle.
    pub(crate) fn closes_a_cycle(&self, z: usize, w: usize) -> bool {
        let (z, w) = (self.place(z), self.place(w));
        self.heads(z).contains(&w) && self.reach(&self.siblings(w)).contains(&z)
    }

    fn place(&self, id: usize) -> Place {
        self.live.iter().position(|live| live.id == id).expect("the model knows every live request")
    }

    fn held_mut(&mut self, id: usize) -> &mut Part {
        let place = self.place(id);
        &mut self.live[place].parts[0]
    }

    /// One that holds nothing is nothing that others are nested in.
    fn forget_if_empty(&mut self, id: usize) {
        if self.held(id).span.is_empty() {
            self.live.iter_mut().for_each(|other| _ = other.within.remove(&id));
        }
    }

    fn queued(&self, place: Place) -> bool {
        self.live[place].state == State::Queued
    }

    /// Of two queued requests: whether the first is in front.
    fn in_front(&self, first: Place, second: Place) -> bool {
        if self.live[second].passes.contains(&self.live[first].id) {
            return false;
        }
        self.live[first].passes.contains(&self.live[second].id) || first < second
    }

    /// Whether `other` must end before `me`, which is queued, can be granted.
    fn stands_before(&self, other: Place, me: Place) -> bool {
        if self.live[me].drain {
            return other < me && self.live[me].drains(&self.live[other]);
        }
        other != me && self.live[other].conflicts(&self.live[me]) && (!self.queued(other) || self.in_front(other, me))
    }

    fn blocked(&self, me: Place) -> bool {
        (0..self.live.len()).any(|other| self.stands_before(other, me))
    }

    /// The queued requests of an owner.
    fn queued_of(&self, who: Who) -> Places {
        (0..self.live.len()).filter(|&place| self.queued(place) && self.live[place].who == who).collect()
    }

    fn siblings(&self, place: Place) -> Places {
        match self.rule {
            Rule::SiblingsAreStrangers => [place].into(),
            _ => self.queued_of(self.live[place].who),
        }
    }

    /// Whether it is let past nobody: those who are queued in front of it are in its way as if they held. (Of requests
    /// that matters where there are drains: else nobody needs one that is its owner's only one, and holds nothing.)
    fn stays(&self, me: Place) -> bool {
        let who = self.live[me].who;
        let is_only = self.live.iter().filter(|live| live.who == who && live.covers()).count() == 1;
        self.live[me].drain || (is_only && self.live.iter().any(|live| live.drain))
    }

    /// As [`Live::conflicts`], as far as the search knows.
    fn in_conflict(&self, me: Place, other: Place) -> bool {
        if self.live[me].drain {
            return self.stands_before(other, me);
        }
        let mut me = self.live[me].clone();
        if self.rule == Rule::BatchesAreTheirFirstPart {
            me.parts.truncate(1);
        }
        me.conflicts(&self.live[other])
    }

    /// Grant edges: to the queued requests of those who hold what `from` waits for.
    fn grants(&self, from: Place) -> Places {
        let holders = (0..self.live.len()).filter(|&held| !self.queued(held) && self.in_conflict(from, held));
        let queued = if self.stays(from) { self.all_heads(from) } else { Places::new() };
        holders.chain(queued).flat_map(|held| self.queued_of(self.live[held].who)).collect()
    }

    /// The queued requests that `from` waits for, and could be let past.
    fn heads(&self, from: Place) -> Places {
        if self.stays(from) { Places::new() } else { self.all_heads(from) }
    }

    fn all_heads(&self, from: Place) -> Places {
        let queued = (0..self.live.len()).filter(|&other| self.queued(other) && self.in_conflict(from, other));
        queued.filter(|&other| self.in_front(other, from)).collect()
    }

    /// Edges of both kinds: queue edges lead to the whole owner.
    fn edges(&self, from: Place) -> Places {
        let queue = self.heads(from).into_iter().flat_map(|head| self.siblings(head));
        self.grants(from).into_iter().chain(queue).collect()
    }

    /// All that `edges` lead to, those that they start from included.
    fn closure(from: &Places, edges: impl Fn(Place) -> Places) -> Places {
        let mut reached = from.clone();
        let mut rest: Vec<Place> = from.iter().copied().collect();
        while let Some(place) = rest.pop() {
            rest.extend(edges(place).into_iter().filter(|&next| reached.insert(next)));
        }
        reached
    }

    fn reach(&self, from: &Places) -> Places {
        Model::closure(from, |place| self.edges(place))
    }

    /// Looks for cycles that the request at `searcher` closes: the cycle if it is a deadlock; else lets pass whom that
    /// takes.
    fn search(&mut self, searcher: Place) -> Option<Vec<usize>> {
        let start = self.siblings(searcher);
        let needed = Model::closure(&start, |place| self.grants(place));
        let leads_to_start = |from: Place| {
            let first = self.siblings(from).into_iter().flat_map(|place| self.edges(place)).collect();
            !self.reach(&first).is_disjoint(&start)
        };
        if needed.iter().any(|&place| !self.grants(place).is_disjoint(&start)) {
            return Some(self.cycle(searcher, &start));
        }
        if self.rule == Rule::EveryCycleIsADeadlock && leads_to_start(searcher) {
            return Some(vec![self.live[searcher].id]);
        }
        let may_pass = |z: Place, w: Place| match self.rule {
            Rule::NobodyPasses => false,
            Rule::EverybodyIsPassed => true,
            Rule::OnlyTheSearcherPasses if !start.contains(&z) => false,
            _ => start.contains(&w) || (!needed.contains(&w) && leads_to_start(w)),
        };
        let pairs: Vec<(Place, Place)> = needed
            .iter()
            .flat_map(|&z| self.heads(z).into_iter().map(move |w| (z, w)))
            .filter(|&(z, w)| may_pass(z, w))
            .collect();
        for (z, w) in pairs {
            let (z_id, w_id) = (self.live[z].id, self.live[w].id);
            self.live[z].passes.insert(w_id);
            self.live[w].passes.remove(&z_id);
        }
        None
    }

    /// A way along grant edges from `searcher` back to its owner.
    fn cycle(&self, searcher: Place, start: &Places) -> Vec<usize> {
        // The others of its owner may be in an older cycle only if a hold has become more beside a drain.
        let others = start.iter().copied().filter(|&other| self.loose && other != searcher);
        let mut ways: Vec<Vec<Place>> = std::iter::once(searcher).chain(others).map(|place| vec![place]).collect();
        let mut seen = Places::from_iter(ways.iter().map(|way| way[0]));
        // The shortest first; `ways` grows while it is walked.
        for at in 0.. {
            let Some(way) = ways.get(at).cloned() else { break };
            let here = *way.last().expect("a way begins somewhere");
            for next in self.grants(here) {
                if start.contains(&next) {
                    return way.into_iter().map(|place| self.live[place].id).collect();
                }
                if seen.insert(next) {
                    ways.push([way.clone(), vec![next]].concat());
                }
            }
        }
        unreachable!("a deadlock that leads through another request of the owner only is older than the searcher")
    }
}
