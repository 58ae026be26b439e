//! Many clients at work, for many seeds. A scene says what they do and how bad the days are; the seed says the rest.

use super::judge::{Judge, Span};
use super::{Faults, Sim, World, run};
use crate::record::GONE;
use crate::store::Store;
use crate::{Cluster, Error, Guard, Mode, Options, Owner};
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

const TTL: Duration = Duration::from_secs(6);

/// Nobody looks again by himself within a run.
const NEVER: Duration = Duration::from_secs(1 << 20);

#[derive(Clone, Copy, Debug)]
struct Scene {
    clients: usize,
    /// Tasks of each client.
    tasks: usize,
    /// Requests that each task makes.
    rounds: usize,
    locks: usize,
    faults: Faults,
    recheck: Duration,
    /// Of 1000 requests: how many end by a deadline; are tried; are dropped while they wait.
    timeouts: u32,
    tries: u32,
    drops: u32,
    /// Of 1000 grants: how many are followed by a nested request; of a lock that comes later (1), of any (0).
    nested: u32,
    in_order: bool,
    /// Of 1000 nested requests: how many are two, at the same time.
    twice: u32,
    /// Of 1000 requests: how many ask for several ranges.
    batches: u32,
    /// Of 1000 grants: how many are followed by a stop of the whole client.
    stops: u32,
    /// How long the run may take, in virtual time.
    limit: Duration,
}

const QUIET: Scene = Scene {
    clients: 3,
    tasks: 2,
    rounds: 6,
    locks: 2,
    faults: Faults {
        lost_calls: 0,
        lost_answers: 0,
        slow: 0,
        idle_notices: 0,
        silent: 0,
        compactions: 0,
        early_ends: 0,
    },
    recheck: NEVER,
    timeouts: 0,
    tries: 0,
    drops: 0,
    nested: 0,
    in_order: true,
    twice: 0,
    batches: 100,
    stops: 0,
    limit: Duration::from_secs(60),
};

/// All that a task needs.
#[derive(Clone)]
struct Player {
    scene: Scene,
    store: Sim,
    judge: Arc<Judge>,
    random: Arc<Mutex<fastrand::Rng>>,
    number: u64,
}

impl Player {
    fn chance(&self, of_1000: u32) -> bool {
        self.random.lock().unwrap().u32(0..1000) < of_1000
    }

    fn below(&self, end: u64) -> u64 {
        self.random.lock().unwrap().u64(0..end)
    }

    async fn pause(&self, longest: u64) {
        sleep(Duration::from_millis(self.below(longest))).await;
    }

    fn span(&self, locks: std::ops::Range<usize>) -> Span {
        let lock = locks.start + self.below(locks.len() as u64) as usize;
        // Few bytes, far apart or not, so that there is a tree.
        let byte = |at: u64| at % 4 + ((at / 4) << 20);
        let (a, b) = (self.below(12), self.below(12));
        let mode = [Mode::Add, Mode::Block, Mode::Exclusive][self.below(3) as usize];
        Span { lock, first: byte(a.min(b)), last: byte(a.max(b)), mode }
    }

    fn spans(&self, locks: std::ops::Range<usize>) -> Vec<Span> {
        let count = if self.chance(self.scene.batches) { 3 } else { 1 };
        (0..count).map(|_| self.span(locks.clone())).collect()
    }

    /// Makes a request, in one of the ways that there are. `None`: it came to nothing, as it may.
    async fn ask(
        &self,
        cluster: &Cluster<Sim>,
        spans: &[Span],
        owner: Option<&Owner>,
    ) -> Result<Option<Guard<Sim>>, Error> {
        let lock = |span: &Span| cluster.lock(format!("lock-{}", span.lock));
        let mut request = lock(&spans[0]).request(spans[0].first..=spans[0].last, spans[0].mode);
        for span in &spans[1..] {
            request = request.and(&lock(span), span.first..=span.last, span.mode);
        }
        if let Some(owner) = owner {
            request = request.owner(owner);
        }
        if self.chance(self.scene.tries) {
            return request.try_now().await;
        }
        if self.chance(self.scene.timeouts) {
            request = request.timeout(Duration::from_millis(self.below(200)));
        }
        if self.chance(self.scene.drops) {
            let patience = Duration::from_millis(self.below(100));
            return timeout(patience, request.into_future()).await.map_or(Ok(None), |answer| answer.map(Some));
        }
        request.await.map(Some)
    }

    /// Hands a grant to the judge. What comes back is its number there.
    fn note(&self, cluster: &Cluster<Sim>, spans: &[Span], guard: Guard<Sim>, owner: u64) -> usize {
        self.judge.granted(&self.store.world(), spans.to_vec(), owner, cluster.lease(), guard)
    }

    async fn release(&self, number: usize) {
        let guard = Arc::try_unwrap(self.judge.released(number)).expect("the judge's is the only other");
        match self.chance(500) {
            true => drop(guard),
            false => guard.release().await,
        }
    }

    async fn round(&self, cluster: &Cluster<Sim>, round: usize) -> Result<(), Error> {
        let scene = &self.scene;
        let is_nested = self.chance(scene.nested);
        let owner = is_nested.then(|| cluster.owner(format!("task {}", self.number)));
        // To the judge each round is an owner of its own.
        let identity = self.number * 1000 + round as u64;
        let outer = if is_nested && scene.in_order { 0..scene.locks - 1 } else { 0..scene.locks };
        let spans = self.spans(outer);
        let Some(guard) = self.ask(cluster, &spans, owner.as_ref()).await? else { return Ok(()) };
        let outer = self.note(cluster, &spans, guard, identity);
        self.pause(20).await;
        if self.chance(scene.stops) {
            let how_long =
                Duration::from_millis(self.below(4000)) + if self.chance(500) { TTL } else { Duration::ZERO };
            self.store.world().stop(self.store.client, how_long);
            sleep(Duration::from_millis(1)).await;
        }
        let inner = async |after: std::ops::Range<usize>| {
            let spans = self.spans(after);
            match self.ask(cluster, &spans, owner.as_ref()).await {
                Ok(Some(guard)) => Ok(Some(self.note(cluster, &spans, guard, identity))),
                Ok(None) | Err(Error::TimedOut) => Ok(None),
                Err(Error::Deadlock(deadlock)) => {
                    self.judge.count("deadlocks");
                    if scene.in_order {
                        self.judge.fault(format!("nobody asks against the order: {deadlock}"));
                    }
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        };
        let mut answer = Ok(());
        if is_nested {
            let after = if scene.in_order { spans[0].lock + 1..scene.locks } else { 0..scene.locks };
            // In order, and as one: with several of the outer range the last counts.
            let after = if spans.len() > 1 && scene.in_order { scene.locks - 1..scene.locks } else { after };
            // What is granted to one of two is let go of when the other is through as well.
            let answers = if self.chance(scene.twice) {
                <[_; 2]>::from(tokio::join!(inner(after.clone()), inner(after)))
            } else {
                [inner(after).await, Ok(None)]
            };
            self.pause(20).await;
            for inner in answers {
                match inner {
                    Ok(Some(inner)) => self.release(inner).await,
                    Ok(None) => {}
                    Err(error) => answer = Err(error),
                }
            }
        }
        self.release(outer).await;
        answer
    }

    /// Works until all rounds are done; with a new session when one is lost.
    async fn play(self, shared: Arc<tokio::sync::Mutex<Option<Cluster<Sim>>>>) {
        let mut round = 0;
        while round < self.scene.rounds {
            let cluster = self.session(&shared).await;
            match self.round(&cluster, round).await {
                Ok(()) => {}
                Err(Error::TimedOut) => self.judge.count("timeouts"),
                Err(Error::SessionLost) => {
                    self.judge.count("sessions lost");
                    if cluster.check().is_ok() {
                        self.judge.fault("a session that is lost says that it is good".into());
                    }
                }
                // The lease has ended early, and the keys were seen to be gone first.
                Err(Error::Removed) if self.store.world().ended_early(cluster.lease()) => {}
                Err(error) => self.judge.fault(format!("{error}")),
            }
            round += 1;
            self.pause(20).await;
        }
    }

    async fn session(&self, shared: &tokio::sync::Mutex<Option<Cluster<Sim>>>) -> Cluster<Sim> {
        let mut shared = shared.lock().await;
        loop {
            if let Some(cluster) = shared.as_ref().filter(|cluster| cluster.check().is_ok()) {
                return cluster.clone();
            }
            let options =
                Options::default().recheck(self.scene.recheck).max_txn_ops(if self.chance(300) { 20 } else { 128 });
            match Cluster::open(self.store.clone(), options).await {
                Ok(cluster) => *shared = Some(cluster),
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

/// Plays a scene, and judges it.
fn play(scene: Scene, seed: u64) -> Result<Arc<Judge>, String> {
    run(seed, async move {
        let world = World::new(seed, scene.faults, TTL);
        let judge = Arc::new(Judge::default());
        let random = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
        let (done, mut all) = mpsc::channel::<()>(1);
        let mut sessions = Vec::new();
        for client in 0..scene.clients {
            let shared = Arc::new(tokio::sync::Mutex::new(None));
            sessions.push(Arc::clone(&shared));
            for task in 0..scene.tasks {
                let store = Sim { world: Arc::clone(&world), client };
                let number = (client * scene.tasks + task) as u64;
                let (judge, random) = (Arc::clone(&judge), Arc::clone(&random));
                let player = Player { scene, store: store.clone(), judge, random, number };
                let (shared, done) = (Arc::clone(&shared), done.clone());
                store.spawn(async move {
                    player.play(shared).await;
                    drop(done);
                });
            }
        }
        drop(done);
        if timeout(scene.limit, all.recv()).await.is_err() {
            judge.verdict()?;
            return Err(format!("somebody was forgotten: {:#?}", world.lock().unwrap().dump()));
        }
        judge.verdict()?;
        judge.add("calls", world.lock().unwrap().calls as usize);
        // What is given up is removed soon, however often that must be tried; and what comes late stays out.
        sleep(Duration::from_secs(60)).await;
        let left: Vec<_> = world.lock().unwrap().dump().into_iter().filter(|kv| kv.value != GONE).collect();
        if !left.is_empty() {
            return Err(format!("left behind: {left:?}"));
        }
        for session in sessions {
            let cluster = session.lock().await.take();
            if let Some(cluster) = cluster {
                timeout(Duration::from_secs(120), cluster.close()).await.map_err(|_| "a session does not close")?;
                if world.lock().unwrap().is_alive(cluster.lease()) {
                    return Err("a closed session has left its lease to run out".into());
                }
            }
        }
        sleep(TTL * 2).await;
        let left = world.lock().unwrap().dump();
        if !left.is_empty() { Err(format!("left behind by closed sessions: {left:?}")) } else { Ok(judge) }
    })
}

/// Plays a scene for many seeds; `wanted` must have happened often enough for the scene to be worth something.
fn play_all(scene: Scene, seeds: u64, wanted: &[(&str, usize)]) {
    // By hand: more, or a certain one.
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let wanted = if number("SPANLOCK_ETCD_SEEDS").is_some() { &[] } else { wanted };
    let seeds: u64 = number("SPANLOCK_ETCD_SEEDS").unwrap_or(seeds);
    let first = number("SPANLOCK_ETCD_SEED").unwrap_or(0);
    let mut sums = std::collections::BTreeMap::<_, usize>::new();
    for seed in first..first + seeds {
        match play(scene, seed) {
            Ok(judge) => {
                judge.counts.lock().unwrap().iter().for_each(|(what, count)| *sums.entry(*what).or_default() += count)
            }
            Err(fault) => panic!("seed {seed}: {fault}"),
        }
    }
    println!("{seeds} schedules: {sums:?}");
    for (what, count) in wanted {
        assert!(sums.get(what).unwrap_or(&0) >= count, "too few {what}: {sums:?}");
    }
}

#[test]
fn a_quiet_day() {
    play_all(Scene { timeouts: 100, tries: 100, drops: 100, ..QUIET }, 300, &[("grants", 4000), ("timeouts", 50)]);
}

#[test]
fn notices_come_late_for_nothing_and_after_compactions() {
    let faults = Faults { idle_notices: 200, compactions: 200, slow: 20, ..QUIET.faults };
    play_all(
        Scene { faults, nested: 200, drops: 50, limit: Duration::from_secs(600), ..QUIET },
        150,
        &[("grants", 2000)],
    );
}

#[test]
fn notices_do_not_come() {
    let faults = Faults { silent: 300, ..QUIET.faults };
    let recheck = Duration::from_secs(2);
    play_all(
        Scene { faults, recheck, nested: 200, limit: Duration::from_secs(1200), ..QUIET },
        100,
        &[("grants", 1333)],
    );
}

#[test]
fn calls_and_answers_are_lost() {
    let faults = Faults { lost_calls: 60, lost_answers: 120, slow: 30, ..QUIET.faults };
    let scene = Scene { faults, timeouts: 300, drops: 200, nested: 200, limit: Duration::from_secs(1200), ..QUIET };
    play_all(scene, 150, &[("grants", 1250)]);
}

#[test]
fn clients_are_stopped() {
    let faults = Faults { slow: 30, ..QUIET.faults };
    let scene = Scene { faults, stops: 150, nested: 200, limit: Duration::from_secs(1200), ..QUIET };
    play_all(scene, 150, &[("grants", 1250), ("sessions lost", 25)]);
}

#[test]
fn leases_end_early() {
    let faults = Faults { early_ends: 300, ..QUIET.faults };
    let scene = Scene { faults, rounds: 60, clients: 2, limit: Duration::from_secs(1200), ..QUIET };
    play_all(scene, 50, &[("grants", 416), ("sessions lost", 1)]);
}

#[test]
fn cycles_are_answered() {
    let scene = Scene { nested: 900, in_order: false, twice: 200, locks: 1, limit: Duration::from_secs(100), ..QUIET };
    play_all(scene, 60, &[("deadlocks", 20), ("passes", 20)]);
    let scene = Scene { locks: 3, ..scene };
    play_all(scene, 60, &[("deadlocks", 10), ("passes", 10)]);
}

/// Who asks for locks in one order gets no deadlock, whoever queues in between.
#[test]
fn who_asks_in_order_gets_no_deadlock() {
    let scene = Scene { nested: 900, locks: 4, limit: Duration::from_secs(100), ..QUIET };
    play_all(scene, 60, &[("grants", 1000)]);
}

#[test]
fn everything_goes_wrong() {
    let faults = Faults {
        lost_calls: 30,
        lost_answers: 60,
        slow: 30,
        idle_notices: 50,
        silent: 50,
        compactions: 100,
        early_ends: 10,
    };
    let scene = Scene {
        faults,
        recheck: Duration::from_secs(3),
        timeouts: 100,
        tries: 50,
        drops: 100,
        nested: 400,
        in_order: false,
        twice: 100,
        stops: 30,
        rounds: 10,
        limit: Duration::from_secs(3600),
        ..QUIET
    };
    play_all(scene, 100, &[("grants", 833), ("deadlocks", 3), ("passes", 3), ("sessions lost", 16)]);
}

/// A request that is given up while its publication travels leaves nothing, however long the session goes on.
#[test]
fn what_is_given_up_on_its_way_leaves_nothing() {
    run(0, async {
        let world = World::new(0, QUIET.faults, TTL);
        let store = Sim { world: Arc::clone(&world), client: 0 };
        let cluster = Cluster::open(store, Options::default()).await.unwrap();
        let lock = cluster.lock("lock-0");
        for round in 0..100 {
            let patience = Duration::from_millis(1 + round % 8);
            match round % 2 {
                0 => drop(timeout(patience, lock.request(0..10, Mode::Add).into_future()).await),
                _ => drop(lock.request(0..10, Mode::Add).timeout(patience).await),
            }
        }
        sleep(Duration::from_secs(60)).await;
        assert_eq!(world.lock().unwrap().dump(), []);
    });
}
