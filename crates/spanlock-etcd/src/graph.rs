//! Who waits for whom, across all machines: cycles, and what is done about them.
//!
//! # The graph
//! At one revision of the store the graph is a function of the keys, so everybody who reads that revision sees the same. Its nodes are requests. One that waits leads to those that it
//! waits for. One that holds leads to those requests of its owner that wait: it is let go of only when the owner goes on.
//!
//! # What is done
//! A cycle is broken by whoever sees it; all who are in it choose the same way:
//! - If one of its requests that is *nested* (its owner holds something, or it was let past somebody before) waits for one that is itself only queued, it is let *past* that one. This is
//!   written down, in the nested request's keys, by a transaction that holds only if nothing of the cycle has changed: so at its revision the other one, which waits for the next in the
//!   cycle, is not granted, and from then on its own reads tell it to wait.
//! - Otherwise the nested ones wait for holds, or for who was let past them. Then of these the one that came last gets an error, and the others wait until it has gone.
//!
//! # Why every cycle is seen
//! A cycle is closed by a write. If it is the publication of a request, that request has the highest revision of all; so it is nested, and looks for cycles at once. If it is a
//! pass, its author looks again. And all requests of tokens look again whenever they are woken, and by their slow timer.
//!
//! # Cost
//! A token's request that has to wait reads its owner's entries, and if there are others, those locks as wholes that the search comes to.

use crate::error::{Deadlock, Error, OwnerName, Wait};
use crate::record::{self, Entry, RequestId};
use crate::session::Session;
use crate::store::{Condition, KeyRange, Op, Revision, Store, StoreError, Transaction};
use std::collections::{BTreeMap, VecDeque};
use tokio::time::Instant;

/// What comes of a search.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Nothing: wait.
    Wait,
    /// Something has changed, or was changed: read again.
    Again,
    /// There is a cycle, and this request is to leave it.
    Refuse(Deadlock),
}

/// Looks for a cycle through `me`, as things were at `revision`, and does something about it.
pub(crate) async fn search<S: Store>(
    session: &Session<S>,
    me: &Entry,
    revision: Revision,
    deadline: Option<Instant>,
) -> Result<Verdict, Error> {
    let mut picture = Picture { session, revision, deadline, locks: BTreeMap::new() };
    let found = match picture.cycle(me).await {
        Err(Error::Store(StoreError::Compacted)) => return Ok(Verdict::Again),
        found => found?,
    };
    let Some(cycle) = found else { return Ok(Verdict::Wait) };
    if let Some((nested, passed)) = cycle.pass() {
        picture.write_pass(&cycle, nested, passed).await?;
        return Ok(Verdict::Again);
    }
    match cycle.victim() == Some(me.id) {
        true => Ok(Verdict::Refuse(cycle.deadlock())),
        false => Ok(Verdict::Wait),
    }
}

/// What has been read, all at one revision.
struct Picture<'s, S> {
    session: &'s Session<S>,
    revision: Revision,
    deadline: Option<Instant>,
    locks: BTreeMap<String, BTreeMap<RequestId, Entry>>,
}

/// A node of the graph, and where it leads.
#[derive(Clone, Debug)]
struct Node {
    entry: Entry,
    /// Whom it waits for; if nobody, it holds.
    blockers: Vec<Entry>,
    /// Only known within a cycle.
    is_nested: bool,
}

impl Node {
    fn holds(&self) -> bool {
        self.blockers.is_empty()
    }
}

/// A cycle: each node leads to the next, the last one to the first, which waits.
#[derive(Debug)]
struct Cycle(Vec<Node>);

impl<S: Store> Picture<'_, S> {
    async fn read(&self, range: KeyRange) -> Result<BTreeMap<RequestId, Entry>, Error> {
        let transaction = Transaction::read(&[range], Some(self.revision));
        let call = || self.session.store().transact(transaction.clone());
        let answer = self.session.persist(self.deadline, call, |_| {}).await?;
        record::entries(answer.found).map_err(|key| Error::Foreign { key })
    }

    /// The node of a request.
    async fn node(&mut self, entry: Entry) -> Result<Node, Error> {
        let mut blockers = BTreeMap::new();
        for part in &entry.record.parts {
            if !self.locks.contains_key(&part.lock) {
                let all = self.read(self.session.keys.all_of(&part.lock)).await?;
                self.locks.insert(part.lock.clone(), all);
            }
            let others = self.locks[&part.lock].values().filter(|other| entry.waits_for(other));
            blockers.extend(others.map(|other| (other.id, other.clone())));
        }
        Ok(Node { entry, blockers: blockers.into_values().collect(), is_nested: false })
    }

    /// The other requests of a token.
    async fn siblings(&mut self, entry: &Entry) -> Result<Vec<Node>, Error> {
        let all = self.read(self.session.keys.all_by(entry.id.lease, entry.record.token)).await?;
        let mut nodes = Vec::new();
        for sibling in all.into_values().filter(|sibling| sibling.id != entry.id) {
            nodes.push(self.node(sibling).await?);
        }
        Ok(nodes)
    }

    /// Where a node leads.
    async fn next(&mut self, node: &Node) -> Result<Vec<Entry>, Error> {
        if !node.holds() || node.entry.record.token == 0 {
            return Ok(node.blockers.clone());
        }
        let siblings = self.siblings(&node.entry).await?;
        Ok(siblings.into_iter().filter(|sibling| !sibling.holds()).map(|sibling| sibling.entry).collect())
    }

    async fn is_nested(&mut self, node: &Node) -> Result<bool, Error> {
        if node.holds() || node.entry.record.token == 0 {
            return Ok(false);
        }
        let was_passing = !node.entry.record.passes.is_empty();
        Ok(was_passing || self.siblings(&node.entry).await?.iter().any(Node::holds))
    }

    /// The shortest cycle through `me`, if there is one.
    async fn cycle(&mut self, me: &Entry) -> Result<Option<Cycle>, Error> {
        let siblings = self.read(self.session.keys.all_by(me.id.lease, me.record.token)).await?;
        if siblings.len() < 2 && me.record.passes.is_empty() {
            // It holds nothing that anybody could wait for.
            return Ok(None);
        }
        let mut nodes = vec![(self.node(me.clone()).await?, 0)];
        let mut queue = VecDeque::from([0]);
        while let Some(at) = queue.pop_front() {
            let node = nodes[at].0.clone();
            for next in self.next(&node).await? {
                if next.id == me.id {
                    let mut path: Vec<_> =
                        std::iter::successors(Some(at), |&at| (at != 0).then(|| nodes[at].1)).collect();
                    path.reverse();
                    let mut cycle = Vec::new();
                    for at in path {
                        let is_nested = self.is_nested(&nodes[at].0).await?;
                        cycle.push(Node { is_nested, ..nodes[at].0.clone() });
                    }
                    return Ok(Some(Cycle(cycle)));
                }
                if nodes.iter().all(|(node, _)| node.entry.id != next.id) {
                    queue.push_back(nodes.len());
                    nodes.push((self.node(next).await?, at));
                }
            }
        }
        Ok(None)
    }

    /// Writes down that `nested` was let past `passed`, if the cycle still stands.
    async fn write_pass(&self, cycle: &Cycle, nested: &Entry, passed: RequestId) -> Result<(), Error> {
        let mut record = nested.record.clone();
        record.passes.insert(passed);
        let unchanged = |node: &Node| Condition::Unchanged(node.entry.key.clone(), node.entry.modified);
        let put = |key| Op::Put { key, value: record.to_string(), lease: nested.id.lease };
        let transaction = Transaction {
            when: cycle.0.iter().map(unchanged).collect(),
            then: self.session.keys.of(nested.id, &nested.record).into_iter().map(put).collect(),
            otherwise: Vec::new(),
        };
        let call = || self.session.store().transact(transaction.clone());
        match self.session.persist(self.deadline, call, |_| {}).await {
            // The nested one's, which ends the cycle. If it is ours, that will be seen.
            Err(Error::Store(StoreError::LeaseGone)) => Ok(()),
            answer => answer.map(drop),
        }
    }
}

impl Cycle {
    /// Each node with the one that it leads to.
    fn steps(&self) -> impl Iterator<Item = (&Node, &Node)> {
        self.0.iter().zip(self.0.iter().cycle().skip(1))
    }

    /// A nested request that waits for one that is only queued, by order: it can be let past.
    fn pass(&self) -> Option<(&Entry, RequestId)> {
        let can_pass = |from: &Node, next: &Node| {
            from.is_nested && !next.holds() && !next.entry.record.passes.contains(&from.entry.id)
        };
        self.steps().find(|(from, next)| can_pass(from, next)).map(|(from, next)| (&from.entry, next.entry.id))
    }

    /// Who is to leave the cycle.
    fn victim(&self) -> Option<RequestId> {
        let nested = self.0.iter().filter(|node| node.is_nested);
        nested.max_by_key(|node| node.entry.created).map(|last| last.entry.id)
    }

    fn deadlock(&self) -> Deadlock {
        let wait = |(from, next): (&Node, &Node)| {
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
