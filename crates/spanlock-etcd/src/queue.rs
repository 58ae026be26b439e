//! How a request takes its place, waits, and is granted.
//!
//! # The rule
//! A request *waits for* another that conflicts with it (a byte of the same lock, modes that do not go together,
//! another owner) if that one's keys were created before its own. It is granted when a read at one revision finds
//! nobody that it waits for. There is one exception, a *pass*: see [`graph`].
//!
//! # Why that is exclusion, and first come first served
//! 1. A request publishes all its keys in one transaction, which reads whoever may be in its way after that. Of two
//!    that conflict, one has the lower create revision; the other one's reads, which are all of its own create revision
//!    or later, find it for as long as it is there. So the later is not granted before the earlier has gone, granted or
//!    not.
//! 2. The key of a request is made once. A transaction whose answer is lost is sent again only as it was, on the
//!    condition that the first key is absent; a request that is given up awaits the answer to its last try for a while,
//!    and if some try was never answered, the first key stays behind, saying `gone`, when the request goes: a try that
//!    arrives then finds it, and makes nothing. (It goes with the session's lease.)
//! 3. A key goes when its holder lets go, or with the lease. The holder's session takes itself for lost before the
//!    store does (see [`session`](crate::session)); a grant is given only while the session is good, looked at *after*
//!    the read that says so was answered.
//!
//! # Why nobody is forgotten
//! A waiter is woken by a change of its own key or of one blocker's (the nearest), from the revision after its read on;
//! by the end of that watch, for whatever reason; and by a slow timer. Each leads to the same step: read again, decide
//! again. So a notice that says nothing, or comes for nothing, costs a read; one that does not come costs time.

use crate::error::Error;
use crate::graph::{self, Verdict};
use crate::record::{self, Entry, Record, RequestId};
use crate::request::Owner;
use crate::session::{Removal, Session, at, publish};
use crate::signal::Signal;
use crate::store::{Answer, Op, Revision, Store, StoreError, Transaction};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

/// What to do where others are in front.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// Leave at once.
    None,
    /// Wait.
    Endless,
}

/// A request that has been sent to the store. Dropping it gives it up, or lets go of what it was granted.
#[derive(Debug)]
pub(crate) struct Place<S: Store> {
    pub(crate) session: Arc<Session<S>>,
    pub(crate) id: RequestId,
    /// The parts' keys, then the index entry.
    pub(crate) keys: Vec<String>,
    tries: Arc<Signal<Tries>>,
}

/// How the tries of a publication have fared.
#[derive(Clone, Copy, Debug, Default)]
struct Tries {
    /// On their way.
    open: u32,
    /// Not answered: they may be carried out yet.
    lost: u32,
}

/// How long a request that is given up waits for the answer to its publication. Without that its first key must stay.
const ANSWER: Duration = Duration::from_secs(3);

impl<S: Store> Drop for Place<S> {
    fn drop(&mut self) {
        self.remove(None);
    }
}

impl<S: Store> Place<S> {
    fn remove(&mut self, done: Option<oneshot::Sender<()>>) {
        let keys = std::mem::take(&mut self.keys);
        if keys.is_empty() {
            return;
        }
        let Tries { open, lost } = self.tries.get();
        if open == 0 {
            return self.session.sweep(Removal { keys, is_uncertain: lost > 0, done });
        }
        let (session, tries) = (Arc::clone(&self.session), Arc::clone(&self.tries));
        self.session.store().spawn(async move {
            // Whoever is stopped or not answered keeps nobody waiting for longer.
            let _ = timeout(ANSWER, tries.wait_until(|tries| tries.open == 0)).await;
            let Tries { open, lost } = tries.get();
            session.sweep(Removal { keys, is_uncertain: open + lost > 0, done });
        });
    }

    /// Removes the keys, and waits until they are.
    pub(crate) async fn leave(mut self) {
        let (done, gone) = oneshot::channel();
        self.remove(Some(done));
        // No answer: the session is over, and its lease with it.
        let _ = gone.await;
    }
}

/// A place at the front.
#[derive(Debug)]
pub(crate) struct Granted<S: Store> {
    pub(crate) place: Place<S>,
    /// The revision that was read when it was granted.
    pub(crate) revision: Revision,
}

/// Makes a request, and waits for its grant. `Ok(None)`: somebody is in front, and it has no patience.
pub(crate) async fn acquire<S: Store>(
    session: &Arc<Session<S>>,
    record: Record,
    owner: Option<&Owner>,
    patience: Patience,
    deadline: Option<Instant>,
) -> Result<Option<Granted<S>>, Error> {
    session.check()?;
    let id = RequestId { lease: session.lease(), number: session.number() };
    let mut asked = Asked::new(session, id, &record, owner)?;
    let mut answer = asked.publish(&record, deadline).await?;
    loop {
        let revision = answer.revision;
        let others = record::entries(answer.found).map_err(|key| Error::Foreign { key })?;
        let Some(me) = others.get(&id) else {
            session.check()?;
            return Err(Error::Removed);
        };
        let nearest = others.values().filter(|other| me.waits_for(other)).max_by_key(|other| other.created);
        let Some(nearest) = nearest else {
            session.check()?;
            if let Some(owner) = owner {
                owner.grants.modify(|count| *count += 1);
            }
            return Ok(Some(Granted { place: asked.place, revision }));
        };
        if let Patience::None = patience {
            return Ok(None);
        }
        match asked.verdict(me, revision, deadline).await? {
            Verdict::Wait(also) => asked.sleep([Some(nearest.key.clone()), also], revision, deadline).await?,
            Verdict::Again => {}
            Verdict::Refuse(deadlock) => return Err(Error::Deadlock(deadlock)),
        }
        if let Some((grants, seen)) = &mut asked.grants {
            *seen = grants.get();
        }
        answer = asked.read(deadline).await?;
    }
}

/// A request that is waiting, or about to.
struct Asked<S: Store> {
    place: Place<S>,
    /// What is read to decide.
    reads: Vec<Op>,
    /// How often the owner, if it is a token, was granted something, and how often that was when last looked.
    grants: Option<(Arc<Signal<u64>>, u64)>,
    /// Whom it has told to leave a cycle.
    told: BTreeSet<RequestId>,
}

impl<S: Store> Asked<S> {
    fn new(
        session: &Arc<Session<S>>,
        id: RequestId,
        record: &Record,
        owner: Option<&Owner>,
    ) -> Result<Asked<S>, Error> {
        let keys = session.keys.of(id, record);
        // Half for the reads at least, so that batches are read narrowly too.
        let most = session.options.most_ops.saturating_sub(keys.len());
        if most < session.options.most_ops / 2 {
            return Err(Error::TooManyParts { most: session.options.most_ops / 2 });
        }
        let ranges = session.keys.reads(&record.parts, most);
        let reads = ranges.into_iter().map(|range| Op::Read(range, None)).collect();
        let place = Place { session: Arc::clone(session), id, keys, tries: Arc::default() };
        let grants = owner.map(|owner| (Arc::clone(&owner.grants), owner.grants.get()));
        Ok(Asked { place, reads, grants, told: BTreeSet::new() })
    }

    async fn publish(&self, record: &Record, deadline: Option<Instant>) -> Result<Answer, Error> {
        let Place { session, id, keys, tries } = &self.place;
        let transaction = publish(keys, &record.to_string(), id.lease, &self.reads);
        // Each try is a task of its own, and goes on to its answer though the request is given up: after most answers
        // no key must stay.
        let call = || {
            tries.modify(|tries| tries.open += 1);
            let (told, answered) = oneshot::channel();
            let (tries, at, transaction) = (Arc::clone(tries), Arc::clone(session), transaction.clone());
            session.store().spawn(async move {
                let answer = at.store().transact(transaction).await;
                tries.modify(|tries| {
                    tries.open -= 1;
                    tries.lost += u32::from(answer.as_ref().is_err_and(|error| !error.is_definite()));
                });
                let _ = told.send(answer);
            });
            async { answered.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the runtime has ended".into()))) }
        };
        match session.persist(deadline, call).await {
            Err(Error::Store(StoreError::LeaseGone)) => Err(session.lose()),
            answer => answer,
        }
    }

    async fn read(&self, deadline: Option<Instant>) -> Result<Answer, Error> {
        let session = &self.place.session;
        let call = || session.store().transact(Transaction { then: self.reads.clone(), ..Transaction::default() });
        session.persist(deadline, call).await
    }

    /// Whether it is part of a cycle, and what comes of that. Only a token's request can close one: nobody waits for a
    /// grant of an owner that has nothing else.
    async fn verdict(&mut self, me: &Entry, revision: Revision, deadline: Option<Instant>) -> Result<Verdict, Error> {
        match self.grants {
            Some(_) => graph::search(&self.place.session, me, revision, deadline, &mut self.told).await,
            None => Ok(Verdict::Wait(None)),
        }
    }

    /// Until something may have changed.
    async fn sleep(
        &self,
        others: [Option<String>; 2],
        revision: Revision,
        deadline: Option<Instant>,
    ) -> Result<(), Error> {
        let session = &self.place.session;
        let watched = others.into_iter().flatten().chain([self.place.keys[0].clone()]).collect();
        // Of those who wait for the same, not all look at the same moment.
        let recheck = session.options.recheck.as_millis() as u64;
        let recheck = Duration::from_millis(recheck / 2 + fastrand::u64(0..=recheck / 2));
        let granted = async {
            match &self.grants {
                Some((grants, seen)) => grants.wait_until(|count| count != *seen).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = session.store().changed(watched, revision + 1) => Ok(()),
            () = granted => Ok(()),
            error = session.lost() => Err(error),
            () = at(deadline) => Err(Error::TimedOut),
            () = sleep(recheck) => Ok(()),
        }
    }
}
