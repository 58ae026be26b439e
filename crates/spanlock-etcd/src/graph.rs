//! Who waits for whom, across all machines: cycles, and what is done about them.
//!
//! # The graph
//! At one revision of the store the graph is a function of the keys, so everybody who reads that revision sees the
//! same. Its nodes are requests. One that waits leads to those that it waits for. One that holds leads to those
//! requests of its owner that wait: it is let go of only when the owner goes on.
//!
//! A step from one that waits is *soft* if it can be turned round: if it is *nested* (its owner holds something, or it
//! was let past somebody before), and waits for one that is only queued, and was not let past it. All others are *hard*.
//!
//! # What is done
//! A cycle is broken by whoever sees it; all who are in it choose the same way:
//! - If there is a soft step in it, from N to W, N is let *past* W; unless hard steps lead from N to W as well, so that
//!   this would only make another cycle. A pass is written down in N's keys by a transaction that holds only if nothing
//!   of the cycle has changed: so at its revision W, which waits for the next in the cycle, is not granted, and from
//!   then on its own reads tell it to wait.
//! - Otherwise, of the nested ones, that which came last gets an error. If that is another one than who sees it, it is
//!   told, by writing its keys once more as they are, and its key is watched: there may be another cycle behind this
//!   one.
//!
//! # Why every cycle is seen
//! A cycle is closed by a write, or by a grant. If it is the publication of a request, that request has the highest
//! revision of all; so it is nested, and looks for cycles at once. If it is a pass, its author looks again. A grant
//! makes a new step from what is held to what the same owner waits for in another task: that task is woken. And all
//! requests of tokens look again whenever they are woken, and by their slow timer.
//!
//! # Cost
//! A token's request that has to wait reads its owner's entries, and if there are others, those locks as wholes that
//! the search comes to.

use crate::error::{Deadlock, Error, OwnerName, Wait};
use crate::record::{self, Entry, OwnerId, Record, RequestId};
use crate::session::Session;
use crate::store::{Condition, KeyRange, Op, Revision, Store, StoreError, Transaction};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use tokio::time::Instant;

/// What comes of a search.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Nothing: wait; in a cycle that another request is to leave, also for a change of that one's key.
    Wait(Option<String>),
    /// Something has changed, or was changed: read again.
    Again,
    /// There is a cycle, and this request is to leave it.
    Refuse(Deadlock),
}

/// Looks for a cycle through `me`, as things were at `revision`, and does something about it. `told` are those whom it
/// has told before.
pub(crate) async fn search<S: Store>(
    session: &Session<S>,
    me: &Entry,
    revision: Revision,
    deadline: Option<Instant>,
    told: &mut BTreeSet<RequestId>,
) -> Result<Verdict, Error> {
    let mut picture = Picture {
        session,
        revision,
        deadline,
        locks: BTreeMap::new(),
        owners: BTreeMap::new(),
        nodes: BTreeMap::new(),
    };
    match picture.break_cycle(me, told).await {
        Err(Error::Store(StoreError::Compacted)) => Ok(Verdict::Again),
        verdict => verdict,
    }
}

/// What has been read, all at one revision.
struct Picture<'s, S> {
    session: &'s Session<S>,
    revision: Revision,
    deadline: Option<Instant>,
    locks: BTreeMap<String, BTreeMap<RequestId, Entry>>,
    owners: BTreeMap<OwnerId, BTreeMap<RequestId, Entry>>,
    nodes: BTreeMap<RequestId, Arc<Node>>,
}

/// A node of the graph, and where it leads.
#[derive(Debug)]
struct Node {
    entry: Entry,
    /// Whom it waits for; if nobody, it holds.
    blockers: Vec<Entry>,
}

impl Node {
    fn holds(&self) -> bool {
        self.blockers.is_empty()
    }
}

/// Which steps a way may take.
#[derive(Clone, Copy, Debug)]
enum Steps {
    All,
    Hard,
}

/// A cycle: each node leads to the next, the last one to the first, which waits.
#[derive(Debug)]
struct Cycle(Vec<Arc<Node>>);

impl<S: Store> Picture<'_, S> {
    async fn read(&self, range: KeyRange) -> Result<BTreeMap<RequestId, Entry>, Error> {
        let transaction = Transaction::read(&[range], Some(self.revision));
        let call = || self.session.store().transact(transaction.clone());
        let answer = self.session.persist(self.deadline, call).await?;
        record::entries(answer.found).map_err(|key| Error::Foreign { key })
    }

    /// The node of a request.
    async fn node(&mut self, entry: Entry) -> Result<Arc<Node>, Error> {
        if let Some(node) = self.nodes.get(&entry.id) {
            return Ok(Arc::clone(node));
        }
        let mut blockers = BTreeMap::new();
        for part in &entry.record.parts {
            if !self.locks.contains_key(&part.lock) {
                let all = self.read(self.session.keys.all_of(&part.lock)).await?;
                self.locks.insert(part.lock.clone(), all);
            }
            let others = self.locks[&part.lock].values().filter(|other| entry.waits_for(other));
            blockers.extend(others.map(|other| (other.id, other.clone())));
        }
        let node = Arc::new(Node { entry, blockers: blockers.into_values().collect() });
        self.nodes.insert(node.entry.id, Arc::clone(&node));
        Ok(node)
    }

    /// The other requests of its owner.
    async fn siblings(&mut self, entry: &Entry) -> Result<Vec<Arc<Node>>, Error> {
        let owner = entry.owner();
        if !owner.is_token {
            return Ok(Vec::new());
        }
        if !self.owners.contains_key(&owner) {
            let all = self.read(self.session.keys.all_by(owner.lease, owner.number)).await?;
            self.owners.insert(owner, all);
        }
        let others: Vec<_> = self.owners[&owner].values().filter(|other| other.id != entry.id).cloned().collect();
        let mut nodes = Vec::new();
        for other in others {
            nodes.push(self.node(other).await?);
        }
        Ok(nodes)
    }

    /// Where a node leads.
    async fn next(&mut self, node: &Node) -> Result<Vec<Arc<Node>>, Error> {
        if node.holds() {
            let siblings = self.siblings(&node.entry).await?;
            return Ok(siblings.into_iter().filter(|sibling| !sibling.holds()).collect());
        }
        let mut next = Vec::new();
        for blocker in node.blockers.clone() {
            next.push(self.node(blocker).await?);
        }
        Ok(next)
    }

    async fn is_nested(&mut self, node: &Node) -> Result<bool, Error> {
        let was_passing = !node.entry.record.passes.is_empty();
        Ok(!node.holds() && (was_passing || self.siblings(&node.entry).await?.iter().any(|sibling| sibling.holds())))
    }

    /// Whether the step can be turned round.
    async fn is_soft(&mut self, from: &Node, to: &Node) -> Result<bool, Error> {
        let is_by_order = !to.holds() && !to.entry.record.passes.contains(&from.entry.id);
        Ok(is_by_order && self.is_nested(from).await?)
    }

    /// The shortest way from one node to another, or from one round to itself, by all steps or by the hard ones only:
    /// all its nodes but the last.
    async fn way(&mut self, from: &Arc<Node>, to: RequestId, steps: Steps) -> Result<Option<Vec<Arc<Node>>>, Error> {
        let mut nodes = vec![(Arc::clone(from), 0)];
        let mut queue = VecDeque::from([0]);
        while let Some(at) = queue.pop_front() {
            let node = Arc::clone(&nodes[at].0);
            for next in self.next(&node).await? {
                if let Steps::Hard = steps
                    && self.is_soft(&node, &next).await?
                {
                    continue;
                }
                if next.entry.id == to {
                    let back = std::iter::successors(Some(at), |&at| (at != 0).then(|| nodes[at].1));
                    let mut way: Vec<_> = back.map(|at| Arc::clone(&nodes[at].0)).collect();
                    way.reverse();
                    return Ok(Some(way));
                }
                if nodes.iter().all(|(node, _)| node.entry.id != next.entry.id) {
                    queue.push_back(nodes.len());
                    nodes.push((next, at));
                }
            }
        }
        Ok(None)
    }

    async fn break_cycle(&mut self, me: &Entry, told: &mut BTreeSet<RequestId>) -> Result<Verdict, Error> {
        let start = self.node(me.clone()).await?;
        if !self.is_nested(&start).await? {
            // Nobody waits for it but those who came later, and they will see what it does.
            return Ok(Verdict::Wait(None));
        }
        let Some(cycle) = self.way(&start, me.id, Steps::All).await? else { return Ok(Verdict::Wait(None)) };
        let cycle = Cycle(cycle);
        if let Some((nested, passed)) = self.pass(&cycle).await? {
            let mut record = nested.record.clone();
            record.passes.insert(passed);
            self.write(&cycle, &nested, &record).await?;
            return Ok(Verdict::Again);
        }
        match self.victim(&cycle).await? {
            Some(victim) if victim.id != me.id => {
                if told.insert(victim.id) {
                    self.write(&cycle, &victim, &victim.record).await?;
                    return Ok(Verdict::Again);
                }
                // There may be other cycles, which are to be looked for when this one is no more.
                Ok(Verdict::Wait(Some(victim.key)))
            }
            _ => Ok(Verdict::Refuse(cycle.deadlock())),
        }
    }

    /// Who is to be let past whom.
    async fn pass(&mut self, cycle: &Cycle) -> Result<Option<(Entry, RequestId)>, Error> {
        for (from, to) in cycle.steps() {
            let passed = to.entry.id;
            if self.is_soft(from, to).await? && self.way(from, passed, Steps::Hard).await?.is_none() {
                return Ok(Some((from.entry.clone(), passed)));
            }
        }
        Ok(None)
    }

    /// Who is to leave the cycle.
    async fn victim(&mut self, cycle: &Cycle) -> Result<Option<Entry>, Error> {
        let mut last: Option<&Entry> = None;
        for node in &cycle.0 {
            if self.is_nested(node).await? && last.is_none_or(|last| last.created < node.entry.created) {
                last = Some(&node.entry);
            }
        }
        Ok(last.cloned())
    }

    /// Writes a request's keys, if the cycle still stands.
    async fn write(&self, cycle: &Cycle, request: &Entry, record: &Record) -> Result<(), Error> {
        let unchanged = |node: &Arc<Node>| Condition::Unchanged(node.entry.key.clone(), node.entry.modified);
        let put = |key| Op::Put { key, value: record.to_string(), lease: request.id.lease };
        let transaction = Transaction {
            when: cycle.0.iter().map(unchanged).collect(),
            then: self.session.keys.of(request.id, record).into_iter().map(put).collect(),
            otherwise: Vec::new(),
        };
        let call = || self.session.store().transact(transaction.clone());
        match self.session.persist(self.deadline, call).await {
            // That request's, which ends the cycle. If it is ours, that will be seen.
            Err(Error::Store(StoreError::LeaseGone)) => Ok(()),
            answer => answer.map(drop),
        }
    }
}

impl Cycle {
    /// Each node with the one that it leads to.
    fn steps(&self) -> impl Iterator<Item = (&Arc<Node>, &Arc<Node>)> {
        self.0.iter().zip(self.0.iter().cycle().skip(1))
    }

    fn deadlock(&self) -> Deadlock {
        let wait = |(from, next): (&Arc<Node>, &Arc<Node>)| {
            let (mine, its) = from.entry.conflict(&next.entry)?;
            Some(Wait {
                owner: OwnerName { id: from.entry.owner(), name: from.entry.record.name.clone() },
                lock: record::unescape(&mine.lock).unwrap_or_else(|| mine.lock.clone()),
                range: mine.range(),
                mode: mine.mode(),
                held: its.range(),
                held_mode: its.mode(),
            })
        };
        // A hold and the request nested in it have one owner: no conflict, and no wait.
        Deadlock { waits: self.steps().filter_map(wait).collect() }
    }
}
