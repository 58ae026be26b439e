//! A session: one lease, kept alive, and what is held under it.
//!
//! # Until when
//! The store counts a lease from when it *got* the last keep-alive; the session counts from when it *sent* it, on a
//! monotonic clock, and a margin less. So whoever holds something before the session's deadline holds it in the store,
//! however late an answer comes and however long the process is stopped in between. Once the deadline has passed the
//! session is lost for good: a keep-alive that is answered later does not bring it back, for somebody may have been
//! told.
//!
//! # Two tasks
//! The *keeper* sends the keep-alives. The *sweeper* removes the keys of what is released or given up, many in one
//! transaction if many go at once; it goes on trying until the store has answered, sets aside for a while what the
//! store refuses, and ends the lease when the session ends.

use crate::error::Error;
use crate::record::{GONE, Keys};
use crate::signal::Signal;
use crate::store::{Condition, Op, Store, StoreError, Transaction};
use etcd_client::ConnectOptions;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

/// How a [`Cluster`](crate::Cluster) behaves.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) prefix: String,
    pub(crate) ttl: Duration,
    pub(crate) margin: Option<Duration>,
    pub(crate) recheck: Duration,
    pub(crate) most_ops: usize,
    pub(crate) etcd: Option<ConnectOptions>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            prefix: "spanlock/".into(),
            ttl: Duration::from_secs(10),
            margin: None,
            recheck: Duration::from_secs(5),
            most_ops: 128,
            etcd: None,
        }
    }
}

impl Options {
    /// Where the keys are, `spanlock/` by default: who shares locks must agree on it. A user of etcd who takes locks
    /// needs to read and write this prefix, and no other.
    pub fn prefix(self, prefix: impl Into<String>) -> Options {
        Options { prefix: prefix.into(), ..self }
    }

    /// How long the store waits for a sign of life before it lets others have what the session held: 10 s by default.
    /// (The store may make it longer.)
    pub fn ttl(self, ttl: Duration) -> Options {
        Options { ttl, ..self }
    }

    /// How much earlier the session takes itself for lost than the store does: a tenth of the lease by default. It has
    /// to cover how differently two clocks run within a lease.
    pub fn margin(self, margin: Duration) -> Options {
        Options { margin: Some(margin), ..self }
    }

    /// After how long somebody who waits looks again though nothing has been heard: 5 s by default.
    pub fn recheck(self, recheck: Duration) -> Options {
        Options { recheck, ..self }
    }

    /// How many operations the store takes in a transaction: etcd's `--max-txn-ops`, 128 by default.
    pub fn max_txn_ops(self, most: usize) -> Options {
        Options { most_ops: most, ..self }
    }

    /// How to connect: user and password, TLS, and the like.
    pub fn etcd(self, etcd: ConnectOptions) -> Options {
        Options { etcd: Some(etcd), ..self }
    }

    fn margin_of(&self, ttl: Duration) -> Duration {
        self.margin.unwrap_or(ttl / 10)
    }
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Lost,
    Closed,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// What is held is held until then, if the session is not over.
    until: Instant,
    end: Option<End>,
    /// The sweeper has done its last.
    swept: bool,
}

/// What the tasks share.
struct Core<S> {
    store: S,
    lease: i64,
    state: Signal<State>,
}

/// A session of a store.
pub(crate) struct Session<S> {
    core: Arc<Core<S>>,
    pub(crate) options: Options,
    pub(crate) keys: Keys,
    numbers: AtomicU64,
    sweeper: mpsc::UnboundedSender<Removal>,
}

/// Keys that are to go.
#[derive(Debug)]
pub(crate) struct Removal {
    pub(crate) keys: Vec<String>,
    /// The transaction that makes them may be on its way: the first key must stay, to stop it.
    pub(crate) is_uncertain: bool,
    /// Told when they are gone.
    pub(crate) done: Option<oneshot::Sender<()>>,
}

/// How often a lease is asked for anew, when a session begins.
const GRANT_TRIES: u32 = 5;

impl<S: Store> Session<S> {
    pub(crate) async fn open(store: S, options: Options) -> Result<Arc<Session<S>>, Error> {
        let mut backoff = Backoff::default();
        let (sent, lease) = loop {
            let sent = Instant::now();
            match store.grant(options.ttl).await {
                // The next member may answer. (A lease that was made for nobody runs out.)
                Err(error) if !error.is_definite() && backoff.count() < GRANT_TRIES => backoff.pause().await,
                lease => break (sent, lease?),
            }
        };
        let margin = options.margin_of(lease.ttl);
        let until = sent + lease.ttl.saturating_sub(margin);
        let state = Signal::new(State { until, end: None, swept: false });
        let core = Arc::new(Core { store, lease: lease.id, state });
        let (sweeper, removals) = mpsc::unbounded_channel();
        core.store.spawn(keep(Arc::clone(&core), lease.ttl, margin));
        core.store.spawn(sweep(Arc::clone(&core), removals, options.most_ops));
        let keys = Keys { prefix: options.prefix.clone() };
        Ok(Arc::new(Session { core, options, keys, numbers: AtomicU64::new(1), sweeper }))
    }

    pub(crate) fn store(&self) -> &S {
        &self.core.store
    }

    pub(crate) fn lease(&self) -> i64 {
        self.core.lease
    }

    /// A number that this session has not used yet.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Until when what is held is held, unless another keep-alive is answered before.
    pub(crate) fn deadline(&self) -> Instant {
        self.core.state.get().until
    }

    /// Whether the session is still good, by the clock too.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let state = self.core.state.get();
        match state.end {
            Some(End::Closed) => Err(Error::Closed),
            Some(End::Lost) => Err(Error::SessionLost),
            None if Instant::now() >= state.until => Err(Error::SessionLost),
            None => Ok(()),
        }
    }

    /// The store has no lease of that number any more.
    pub(crate) fn lose(&self) -> Error {
        self.core.end(End::Lost);
        self.check().err().unwrap_or(Error::SessionLost)
    }

    /// Ends when the session is not good any more.
    pub(crate) async fn lost(&self) -> Error {
        while self.check().is_ok() {
            let until = self.deadline();
            tokio::select! {
                biased;
                () = self.core.state.wait_until(|state| state.end.is_some() || state.until != until) => {}
                () = sleep_until(until) => {}
            }
        }
        self.lose()
    }

    /// Runs `call` until it is answered, the deadline has passed or the session is lost.
    pub(crate) async fn persist<F, A>(&self, deadline: Option<Instant>, mut call: impl FnMut() -> F) -> Result<A, Error>
    where
        F: Future<Output = Result<A, StoreError>>,
    {
        let mut backoff = Backoff::default();
        loop {
            self.check()?;
            let answer = self.or_end(deadline, call()).await?;
            if !matches!(&answer, Err(error) if !error.is_definite()) {
                return answer.map_err(Error::from);
            }
            self.or_end(deadline, backoff.pause()).await?;
        }
    }

    /// `work`, unless the session or the time ends first.
    pub(crate) async fn or_end<A>(&self, deadline: Option<Instant>, work: impl Future<Output = A>) -> Result<A, Error> {
        tokio::select! {
            biased;
            answer = work => Ok(answer),
            error = self.lost() => Err(error),
            () = at(deadline) => Err(Error::TimedOut),
        }
    }

    /// Has keys removed.
    pub(crate) fn sweep(&self, removal: Removal) {
        // If there is no sweeper any more, the lease is gone, and the keys with it.
        let _ = self.sweeper.send(removal);
    }

    /// Ends the session: what it holds and waits for goes at once.
    pub(crate) async fn close(&self) {
        self.core.end(End::Closed);
        self.core.state.wait_until(|state| state.swept).await;
    }
}

/// Ends at `deadline`, if there is one.
pub(crate) async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Pauses between tries: from 20 ms up to 1 s, of random length, so that many who were cut off together do not come
/// back together.
#[derive(Debug, Default)]
pub(crate) struct Backoff(u32);

impl Backoff {
    pub(crate) fn count(&self) -> u32 {
        self.0
    }

    pub(crate) async fn pause(&mut self) {
        let longest = 20u64 << self.0.min(6);
        self.0 += 1;
        sleep(Duration::from_millis(fastrand::u64(longest / 2..=longest.min(1000)))).await;
    }
}

impl<S> Core<S> {
    /// The session is over, if it is not already.
    fn end(&self, why: End) {
        if !self.is_over() {
            self.state.modify(|state| state.end = state.end.or(Some(why)));
        }
    }

    fn is_over(&self) -> bool {
        self.state.get().end.is_some()
    }

    async fn over(&self) {
        self.state.wait_until(|state| state.end.is_some()).await;
    }

    /// A keep-alive has been answered: the lease lasts until then, if the answer came in time.
    fn extend(&self, until: Instant) {
        self.state.modify(|state| match Instant::now() < state.until {
            true => state.until = until,
            false => state.end = state.end.or(Some(End::Lost)),
        });
    }
}

/// The keeper.
async fn keep<S: Store>(core: Arc<Core<S>>, ttl: Duration, margin: Duration) {
    let mut pause = ttl / 3;
    loop {
        tokio::select! {
            biased;
            () = core.over() => return,
            () = sleep(pause) => {}
        }
        let (sent, until) = (Instant::now(), core.state.get().until);
        let answer = tokio::select! {
            biased;
            answer = core.store.keep_alive(core.lease) => answer,
            () = sleep_until(until) => return core.end(End::Lost),
            () = core.over() => return,
        };
        match answer {
            Ok(ttl) => {
                core.extend(sent + ttl.saturating_sub(margin));
                pause = ttl / 3;
            }
            Err(StoreError::LeaseGone) => return core.end(End::Lost),
            Err(_) => pause = (ttl / 20).min(Duration::from_millis(500)),
        }
    }
}

/// After how long a removal that the store refused is tried anew.
const AGAIN: Duration = Duration::from_secs(1);

/// The sweeper. It ends with the session, or when nobody has the session any more.
async fn sweep<S: Store>(core: Arc<Core<S>>, mut removals: mpsc::UnboundedReceiver<Removal>, most_ops: usize) {
    // What the store refused, each with the time of its next try, the earliest first: it must not hold up the others.
    let mut refused: VecDeque<(Instant, Removal)> = VecDeque::new();
    // Their turn is every other one at most: to try many takes longer than until the first is due again.
    let mut was_refused = false;
    loop {
        let is_new = was_refused && !removals.is_empty();
        let next = refused.front().filter(|_| !is_new).map(|&(next, _)| next);
        let first = tokio::select! {
            biased;
            () = core.over() => break,
            () = at(next) => {
                was_refused = true;
                refused.pop_front().map(|(_, removal)| removal)
            }
            first = removals.recv() => {
                was_refused = false;
                first
            }
        };
        let Some(first) = first else { break core.end(End::Closed) };
        let mut batch = vec![first];
        let mut size = batch[0].keys.len();
        // No request has more than half as many keys. Who was refused comes alone.
        while next.is_none()
            && size < most_ops / 2
            && let Ok(next) = removals.try_recv()
        {
            size += next.keys.len();
            batch.push(next);
        }
        match remove(&core, &removals, &batch).await {
            Removed::Done => {
                for done in batch.into_iter().filter_map(|removal| removal.done) {
                    // Whoever waited may have stopped.
                    let _ = done.send(());
                }
            }
            Removed::Refused if batch.len() == 1 => {
                refused.extend(batch.into_iter().map(|removal| (Instant::now() + AGAIN, removal)));
            }
            // One of them may be to blame: each by itself.
            Removed::Refused => {
                batch.into_iter().rev().for_each(|removal| refused.push_front((Instant::now(), removal)));
            }
        }
    }
    // Without this the keys would stay until the lease runs out: so it is tried for as long as that may take, but not
    // for ever.
    let mut backoff = Backoff::default();
    for _ in 0..10 {
        match core.store.revoke(core.lease).await {
            Err(error) if !error.is_definite() => backoff.pause().await,
            _ => break,
        }
    }
    core.state.modify(|state| state.swept = true);
}

/// What became of a removal.
enum Removed {
    /// The keys are gone, or go with the session.
    Done,
    /// The store will not: its database is full, or a right was taken away.
    Refused,
}

/// Removes keys, however often that must be tried, unless the session ends or nobody has it any more, which removes
/// them too.
async fn remove<S: Store>(core: &Core<S>, removals: &mpsc::UnboundedReceiver<Removal>, batch: &[Removal]) -> Removed {
    let steps = batch.iter().flat_map(|removal| {
        let stays = removal.is_uncertain.then(|| removal.keys.first()).flatten();
        removal.keys.iter().map(move |key| match stays {
            Some(first) if first == key => Op::Put { key: key.clone(), value: GONE.into(), lease: core.lease },
            _ => Op::Delete(key.clone()),
        })
    });
    let then: Vec<_> = steps.collect();
    let mut backoff = Backoff::default();
    while !core.is_over() {
        let transaction = Transaction { then: then.clone(), ..Transaction::default() };
        match core.store.transact(transaction).await {
            Ok(_) | Err(StoreError::LeaseGone) => return Removed::Done,
            Err(error) if error.is_definite() => return Removed::Refused,
            // The end of the lease removes as much.
            Err(_) if removals.is_closed() => return Removed::Done,
            Err(_) => {
                tokio::select! {
                    biased;
                    () = core.over() => {}
                    () = backoff.pause() => {}
                }
            }
        }
    }
    Removed::Done
}

/// The transaction that publishes a request, if it is not there yet, and reads what is in front of it.
pub(crate) fn publish(keys: &[String], value: &str, lease: i64, reads: &[Op]) -> Transaction {
    let put = |key: &String| Op::Put { key: key.clone(), value: value.into(), lease };
    Transaction {
        when: vec![Condition::Absent(keys[0].clone())],
        then: keys.iter().map(put).chain(reads.iter().cloned()).collect(),
        otherwise: reads.to_vec(),
    }
}

impl<S> fmt::Debug for Session<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.core.state.get();
        f.debug_struct("Session")
            .field("lease", &format_args!("{:x}", self.core.lease))
            .field("end", &state.end)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::run;
    use crate::store::{Answer, Lease, Revision};
    use std::sync::Mutex;
    use tokio::time::timeout;

    /// A store that may be full, which takes removals all the same.
    #[derive(Clone, Debug, Default)]
    struct Tight(Arc<Mutex<Seen>>);

    #[derive(Debug, Default)]
    struct Seen {
        is_full: bool,
        is_revoked: bool,
        /// How long it takes for an answer.
        pause: Duration,
    }

    impl Store for Tight {
        async fn transact(&self, transaction: Transaction) -> Result<Answer, StoreError> {
            let writes = transaction.then.iter().any(|op| matches!(op, Op::Put { .. }));
            let pause = self.0.lock().unwrap().pause;
            sleep(pause).await;
            match writes && self.0.lock().unwrap().is_full {
                true => Err(StoreError::Full),
                false => Ok(Answer { revision: 1, held: true, found: Vec::new() }),
            }
        }

        async fn changed(&self, _: Vec<String>, _: Revision) {
            std::future::pending().await
        }

        async fn grant(&self, ttl: Duration) -> Result<Lease, StoreError> {
            Ok(Lease { id: 1, ttl })
        }

        async fn keep_alive(&self, _: i64) -> Result<Duration, StoreError> {
            Ok(Duration::from_secs(10))
        }

        async fn revoke(&self, _: i64) -> Result<(), StoreError> {
            self.0.lock().unwrap().is_revoked = true;
            Ok(())
        }

        fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
            tokio::spawn(task);
        }
    }

    fn remove(session: &Session<Tight>, key: &str, is_uncertain: bool) -> oneshot::Receiver<()> {
        let (done, gone) = oneshot::channel();
        session.sweep(Removal { keys: vec![key.into()], is_uncertain, done: Some(done) });
        gone
    }

    #[test]
    fn a_removal_that_is_refused_holds_up_no_other_and_no_session() {
        run(0, async {
            let store = Tight::default();
            let session = Session::open(store.clone(), Options::default()).await.unwrap();
            store.0.lock().unwrap().is_full = true;
            // Together, then apart.
            let (mut stuck, fine) = (remove(&session, "stuck", true), remove(&session, "fine", false));
            timeout(AGAIN / 2, fine).await.expect("it is not to blame").unwrap();
            sleep(AGAIN * 5).await;
            timeout(AGAIN / 2, remove(&session, "later", false)).await.expect("it is not to blame").unwrap();
            assert!(stuck.try_recv().is_err());
            store.0.lock().unwrap().is_full = false;
            timeout(AGAIN * 2, stuck).await.expect("there is room").unwrap();

            store.0.lock().unwrap().is_full = true;
            let _stuck = remove(&session, "stuck", true);
            sleep(AGAIN * 5).await;
            drop(session);
            sleep(AGAIN * 5).await;
            assert!(store.0.lock().unwrap().is_revoked, "nobody has the session, and its lease lives on");
        });
    }

    /// Even if it takes longer to try all of them than until the first is due again.
    #[test]
    fn many_that_are_refused_hold_up_no_other() {
        run(0, async {
            let store = Tight::default();
            let session = Session::open(store.clone(), Options::default()).await.unwrap();
            *store.0.lock().unwrap() = Seen { is_full: true, is_revoked: false, pause: AGAIN / 100 };
            let stuck: Vec<_> = (0..300).map(|at| remove(&session, &format!("stuck{at}"), true)).collect();
            sleep(AGAIN * 10).await;
            timeout(AGAIN, remove(&session, "fine", false)).await.expect("it is not to blame").unwrap();
            store.0.lock().unwrap().is_full = false;
            for stuck in stuck {
                timeout(AGAIN * 10, stuck).await.expect("there is room").unwrap();
            }
        });
    }
}
