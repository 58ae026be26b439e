//! A store in memory, for tests: what etcd does on its bad days, in virtual time, the same for the same seed.
//!
//! Calls and answers travel for random times; they get lost, and calls whose callers have given them up are carried out
//! all the same, later. Notices come late, for nothing, or never; history is compacted; leases end early; a client as a
//! whole is stopped for a while and goes on.

mod judge;
mod scenes;

use crate::signal::Signal;
use crate::store::{Answer, Condition, KeyRange, KeyValue, Lease, Op, Revision, Store, StoreError, Transaction};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// How bad the days are: of 1000 chances each.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// A call does not arrive.
    pub(super) lost_calls: u32,
    /// A call is carried out, and its caller does not learn of it, or learns of it before.
    pub(super) lost_answers: u32,
    /// A call or an answer travels for seconds.
    pub(super) slow: u32,
    /// A notice comes for nothing.
    pub(super) idle_notices: u32,
    /// A notice does not come.
    pub(super) silent: u32,
    /// After a write the history before is compacted.
    pub(super) compactions: u32,
    /// A keep-alive finds that the lease has ended early.
    pub(super) early_ends: u32,
}

/// One version of a key; without a value it was removed.
#[derive(Clone, Debug)]
struct Version {
    revision: Revision,
    created: Revision,
    lease: i64,
    value: Option<String>,
}

#[derive(Debug)]
pub(super) struct World {
    random: fastrand::Rng,
    pub(super) faults: Faults,
    revision: Revision,
    compacted: Revision,
    keys: BTreeMap<String, Vec<Version>>,
    leases: BTreeMap<i64, Instant>,
    ended_early: BTreeSet<i64>,
    ttl: Duration,
    /// Until when each client is stopped.
    stopped: BTreeMap<usize, Instant>,
    news: Arc<Signal<Revision>>,
    pub(super) calls: u64,
}

/// The world as one client reaches it.
#[derive(Clone, Debug)]
pub(super) struct Sim {
    pub(super) world: Arc<Mutex<World>>,
    pub(super) client: usize,
}

impl World {
    pub(super) fn new(seed: u64, faults: Faults, ttl: Duration) -> Arc<Mutex<World>> {
        Arc::new(Mutex::new(World {
            random: fastrand::Rng::with_seed(seed),
            faults,
            revision: 1,
            compacted: 0,
            keys: BTreeMap::new(),
            leases: BTreeMap::new(),
            ended_early: BTreeSet::new(),
            ttl,
            stopped: BTreeMap::new(),
            news: Arc::new(Signal::new(1)),
            calls: 0,
        }))
    }

    pub(super) fn chance(&mut self, of_1000: u32) -> bool {
        self.random.u32(0..1000) < of_1000
    }

    fn travel(&mut self) -> Duration {
        // Whole milliseconds, the grain of the timers.
        let longest = if self.chance(self.faults.slow) { 3000 } else { 5 };
        Duration::from_millis(self.random.u64(1..=longest))
    }

    /// Whether the lease was ended before its time: what was held under it was lost without a warning.
    pub(super) fn ended_early(&self, lease: i64) -> bool {
        self.ended_early.contains(&lease)
    }

    pub(super) fn is_alive(&self, lease: i64) -> bool {
        self.leases.contains_key(&lease)
    }

    /// Stops a client.
    pub(super) fn stop(&mut self, client: usize, how_long: Duration) {
        self.stopped.insert(client, Instant::now() + how_long);
    }

    /// All keys, as they are.
    pub(super) fn dump(&self) -> Vec<KeyValue> {
        let all = KeyRange { first: String::new(), end: "~".into() };
        self.read(&all, self.revision)
    }

    fn read(&self, range: &KeyRange, at: Revision) -> Vec<KeyValue> {
        let versions = self.keys.range(range.first.clone()..range.end.clone());
        let found = versions.filter_map(|(key, versions)| {
            let version = versions.iter().rev().find(|version| version.revision <= at)?;
            let (created, modified) = (version.created, version.revision);
            Some(KeyValue { key: key.clone(), value: version.value.clone()?, created, modified })
        });
        found.collect()
    }

    fn now(&self, key: &str) -> Option<&Version> {
        self.keys.get(key)?.last().filter(|version| version.value.is_some())
    }

    fn write(&mut self, key: &str, value: Option<(String, i64)>) {
        let revision = self.revision + 1;
        if value.is_none() && self.now(key).is_none() {
            return;
        }
        let created = self.now(key).map_or(revision, |version| version.created);
        let (value, lease) = value.map_or((None, 0), |(value, lease)| (Some(value), lease));
        self.keys.entry(key.into()).or_default().push(Version { revision, created, lease, value });
    }

    /// What was written since becomes one revision.
    fn commit(&mut self) {
        self.revision += 1;
        if self.chance(self.faults.compactions) {
            self.compacted = self.revision;
        }
        let revision = self.revision;
        self.news.modify(|last| *last = revision);
    }

    fn apply(&mut self, transaction: &Transaction) -> Result<Answer, StoreError> {
        let holds = |condition: &Condition| match condition {
            Condition::Absent(key) => self.now(key).is_none(),
            Condition::Unchanged(key, revision) => self.now(key).is_some_and(|version| version.revision == *revision),
        };
        let held = transaction.when.iter().all(holds);
        let steps = if held { &transaction.then } else { &transaction.otherwise };
        let mut writes = 0;
        let mut written = BTreeSet::new();
        assert!(steps.len().max(transaction.when.len()) <= 128, "etcd takes no more steps in a transaction");
        for step in steps {
            if let Op::Put { key, .. } | Op::Delete(key) = step {
                assert!(written.insert(key), "etcd writes no key twice in a transaction: {key}");
            }
            match step {
                Op::Put { lease, .. } if !self.leases.contains_key(lease) => return Err(StoreError::LeaseGone),
                Op::Read(_, Some(at)) if *at < self.compacted => return Err(StoreError::Compacted),
                Op::Put { .. } => writes += 1,
                Op::Delete(key) => writes += usize::from(self.now(key).is_some()),
                Op::Read(..) => {}
            }
        }
        for step in steps {
            match step {
                Op::Put { key, value, lease } => self.write(key, Some((value.clone(), *lease))),
                Op::Delete(key) => self.write(key, None),
                Op::Read(..) => {}
            }
        }
        if writes > 0 {
            self.commit();
        }
        let reads = steps.iter().filter_map(|step| match step {
            Op::Read(range, at) => Some(self.read(range, at.unwrap_or(self.revision))),
            _ => None,
        });
        Ok(Answer { revision: self.revision, held, found: reads.flatten().collect() })
    }

    fn end_lease(&mut self, lease: i64) {
        self.leases.remove(&lease);
        let is_its =
            |versions: &Vec<Version>| versions.last().is_some_and(|last| last.value.is_some() && last.lease == lease);
        let keys: Vec<_> = self.keys.iter().filter(|(_, its)| is_its(its)).map(|(key, _)| key.clone()).collect();
        if !keys.is_empty() {
            keys.iter().for_each(|key| self.write(key, None));
            self.commit();
        }
    }
}

impl Sim {
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Has `work` done by the world, sometime, and its answer brought back, perhaps.
    async fn call<A: Send + 'static>(
        &self,
        work: impl FnOnce(&mut World) -> Result<A, StoreError> + Send + 'static,
    ) -> Result<A, StoreError> {
        let (there, back, arrives, is_answered, patience) = {
            let mut world = self.world();
            world.calls += 1;
            let Faults { lost_calls, lost_answers, .. } = world.faults;
            let (there, back) = (world.travel(), world.travel());
            (there, back, !world.chance(lost_calls), !world.chance(lost_answers), world.random.u64(1..2000))
        };
        let (answer, answered) = oneshot::channel();
        let world = Arc::clone(&self.world);
        // Not the client's task: it goes on when the client has given it up, or is stopped.
        tokio::spawn(async move {
            sleep(there).await;
            if arrives {
                let came = work(&mut world.lock().unwrap());
                sleep(back).await;
                if is_answered {
                    let _ = answer.send(came);
                    return;
                }
            }
            sleep(Duration::from_secs(3600)).await;
            drop(answer);
        });
        let out = || Err(StoreError::Unavailable("no answer".into()));
        // The caller's patience may end before the call has arrived.
        let patience = if arrives && is_answered { Duration::from_secs(2) } else { Duration::from_millis(patience) };
        tokio::select! {
            biased;
            answer = answered => answer.unwrap_or_else(|_| out()),
            () = sleep(patience) => out(),
        }
    }
}

impl Store for Sim {
    async fn transact(&self, transaction: Transaction) -> Result<Answer, StoreError> {
        self.call(move |world| world.apply(&transaction)).await
    }

    async fn changed(&self, keys: Vec<String>, from: Revision) {
        let (news, idle, silent) = {
            let mut world = self.world();
            let Faults { idle_notices, silent, .. } = world.faults;
            let idle = world.chance(idle_notices).then(|| Duration::from_millis(world.random.u64(0..2000)));
            (Arc::clone(&world.news), idle, world.chance(silent))
        };
        if silent {
            return std::future::pending().await;
        }
        let happened = async {
            let is_new = |world: &World, key: &String| {
                world.keys.get(key).and_then(|its| its.last()).is_some_and(|last| last.revision >= from)
            };
            loop {
                let seen = news.get();
                let done = {
                    let world = self.world();
                    from <= world.compacted || keys.iter().any(|key| is_new(&world, key))
                };
                if done {
                    let late = self.world().travel();
                    return sleep(late).await;
                }
                news.wait_until(|last| last != seen).await;
            }
        };
        tokio::select! {
            biased;
            () = happened => {}
            () = crate::session::at(idle.map(|idle| Instant::now() + idle)) => {}
        }
    }

    async fn grant(&self, _: Duration) -> Result<Lease, StoreError> {
        let world = Arc::clone(&self.world);
        self.call(move |inner| {
            let (ttl, id) = (inner.ttl, inner.random.i64(1 << 40..1 << 41));
            inner.leases.insert(id, Instant::now() + ttl);
            tokio::spawn(async move {
                loop {
                    let Some(&end) = world.lock().unwrap().leases.get(&id) else { return };
                    if Instant::now() >= end {
                        return world.lock().unwrap().end_lease(id);
                    }
                    sleep_until(end).await;
                }
            });
            Ok(Lease { id, ttl })
        })
        .await
    }

    async fn keep_alive(&self, lease: i64) -> Result<Duration, StoreError> {
        self.call(move |world| {
            let ttl = world.ttl;
            if world.chance(world.faults.early_ends) && world.leases.contains_key(&lease) {
                world.ended_early.insert(lease);
                world.end_lease(lease);
            }
            match world.leases.get_mut(&lease) {
                Some(end) => *end = Instant::now() + ttl,
                None => return Err(StoreError::LeaseGone),
            }
            Ok(ttl)
        })
        .await
    }

    async fn revoke(&self, lease: i64) -> Result<(), StoreError> {
        self.call(move |world| {
            world.end_lease(lease);
            Ok(())
        })
        .await
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(Stoppable { store: self.clone(), stopped: None, task: Box::pin(task) });
    }
}

/// A task that does nothing while its client is stopped.
struct Stoppable {
    store: Sim,
    stopped: Option<Pin<Box<Sleep>>>,
    task: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Future for Stoppable {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let until = this.store.world().stopped.get(&this.store.client).copied();
        if let Some(until) = until.filter(|&until| until > Instant::now()) {
            let stopped = this.stopped.insert(Box::pin(sleep_until(until)));
            if stopped.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        this.task.as_mut().poll(context)
    }
}

/// Runs a future in virtual time, the same for the same seed.
pub(super) fn run<A>(seed: u64, future: impl Future<Output = A>) -> A {
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(future)
}
