//! The contract on real etcd servers, on bad days: members are killed, clients are stopped, history is compacted,
//! leases run out.

mod common;

use common::{Etcds, Process, signal, with_etcd};
use spanlock_etcd::etcd_client::CompactionOptions;
use spanlock_etcd::store::{Answer, Lease, Revision, Store, StoreError, Transaction};
use spanlock_etcd::{Cluster, Error, Etcd, Lock, Mode, Options};
use std::future::Future;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

fn options() -> Options {
    Options::default().ttl(Duration::from_secs(5)).recheck(Duration::from_secs(3))
}

/// What several tasks of several sessions share: each byte says who is inside.
#[derive(Default)]
struct Inside {
    blocks: [AtomicU64; 4],
    token: Mutex<[u64; 4]>,
    grants: AtomicU64,
    stop: AtomicBool,
}

/// Takes ranges exclusively until it is told to stop, with a new session when one is lost, and looks that nobody else
/// is inside.
async fn work(etcds: Vec<String>, inside: Arc<Inside>, number: u64) {
    let mut random = fastrand::Rng::with_seed(number);
    let mut session: Option<Cluster> = None;
    while !inside.stop.load(Ordering::Relaxed) {
        let Some(cluster) = session.clone().filter(|cluster| cluster.check().is_ok()) else {
            session = Cluster::connect(etcds.clone(), options()).await.ok();
            continue;
        };
        let (a, b) = (random.usize(0..4), random.usize(0..4));
        let (first, last) = (a.min(b), a.max(b));
        let guard = match cluster.lock("shared").request(first as u64..=last as u64, Mode::Exclusive).await {
            Ok(guard) => guard,
            Err(Error::SessionLost) => continue,
            Err(error) => panic!("{error}"),
        };
        for at in first..=last {
            let before = inside.blocks[at].swap(number, Ordering::SeqCst);
            assert!(before == 0 || guard.is_lost(), "{number} beside {before}");
            let mut tokens = inside.token.lock().unwrap();
            assert!(tokens[at] < guard.token(), "{} after {}", guard.token(), tokens[at]);
            tokens[at] = guard.token();
        }
        tokio::task::yield_now().await;
        for at in first..=last {
            // Whoever lost its session may find another one here, and must stop before its deadline otherwise.
            let is_mine = inside.blocks[at].compare_exchange(number, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok();
            assert!(is_mine || guard.is_lost());
        }
        inside.grants.fetch_add(1, Ordering::Relaxed);
        guard.release().await;
    }
}

/// Four sessions at work.
fn workers(etcds: &Etcds) -> (Arc<Inside>, JoinSet<()>) {
    let inside = Arc::new(Inside::default());
    let mut tasks = JoinSet::new();
    for number in 1..=4 {
        tasks.spawn(work(etcds.endpoints(), Arc::clone(&inside), number));
    }
    (inside, tasks)
}

/// Until they have been granted something that often.
async fn progress(inside: &Inside, count: u64) {
    let before = inside.grants.load(Ordering::Relaxed);
    let deadline = Instant::now() + Duration::from_secs(60);
    while inside.grants.load(Ordering::Relaxed) < before + count {
        assert!(Instant::now() < deadline, "nobody is granted anything");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn stop(inside: &Inside, tasks: JoinSet<()>) {
    inside.stop.store(true, Ordering::Relaxed);
    tasks.join_all().await;
}

#[test]
fn a_member_and_then_the_leader_are_killed() {
    with_etcd(3, &[], async |mut etcds: Etcds| {
        let (inside, tasks) = workers(&etcds);
        progress(&inside, 20).await;
        let leader = etcds.leader().await;
        let other = (leader + 1) % 3;
        etcds.kill(other);
        progress(&inside, 20).await;
        etcds.restart(other);
        progress(&inside, 20).await;
        let leader = etcds.leader().await;
        etcds.kill(leader);
        progress(&inside, 20).await;
        etcds.restart(leader);
        progress(&inside, 20).await;
        stop(&inside, tasks).await;
    });
}

#[test]
fn without_a_quorum_holds_end_with_their_lease_and_requests_wait() {
    with_etcd(3, &[], async |mut etcds: Etcds| {
        let cluster = etcds.session(options()).await;
        let lock = cluster.lock("x");
        let held = lock.request(0..10, Mode::Exclusive).await.unwrap();
        etcds.kill(0);
        etcds.kill(1);
        let asked = Instant::now();
        let error = lock.request(20..30, Mode::Add).timeout(Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(error, Error::TimedOut);
        let deadline = held.deadline();
        held.lost().await;
        // The leader goes on by itself, and prolongs leases, until it notices that it is alone.
        assert!(
            Instant::now() >= deadline && asked.elapsed() < Duration::from_secs(12),
            "not before its time, nor long after"
        );
        assert_eq!(lock.request(20..30, Mode::Add).await.unwrap_err(), Error::SessionLost);
        drop(held);
        etcds.restart(0);
        etcds.restart(1);
        etcds.leader().await;
        // Everything of the lost session goes; also what was asked without an answer.
        let anew = etcds.session(options()).await;
        let request = anew.lock("x").request(.., Mode::Exclusive).into_future();
        timeout(Duration::from_secs(30), request).await.unwrap().unwrap().release().await;
    });
}

/// A waiter's watch is on a member that is killed.
#[test]
fn who_waits_is_woken_though_its_member_is_gone() {
    with_etcd(3, &[], async |mut etcds: Etcds| {
        let (one, other) =
            (etcds.session(options()).await, etcds.session(options().recheck(Duration::from_secs(600))).await);
        let held = one.lock("x").request(.., Mode::Exclusive).await.unwrap();
        let waiting = tokio::spawn(other.lock("x").request(.., Mode::Add).into_future());
        while one.lock("x").snapshot().await.unwrap().waiters().count() == 0 {
            sleep(Duration::from_millis(20)).await;
        }
        sleep(Duration::from_millis(300)).await;
        for at in 0..3 {
            etcds.kill(at);
            etcds.restart(at);
            etcds.leader().await;
            sleep(Duration::from_millis(500)).await;
        }
        held.release().await;
        let granted = timeout(Duration::from_secs(20), waiting).await.expect("nobody looks again by himself");
        granted.unwrap().unwrap().release().await;
    });
}

#[test]
fn history_is_compacted_under_load() {
    with_etcd(1, &[], async |etcds: Etcds| {
        let (inside, tasks) = workers(&etcds);
        let mut client = etcds.client(0).await;
        for _ in 0..10 {
            progress(&inside, 10).await;
            let now = client.get("x", None).await.unwrap().header().unwrap().revision();
            client.compact(now, Some(CompactionOptions::new().with_physical())).await.unwrap();
            client.defragment().await.unwrap();
        }
        stop(&inside, tasks).await;
    });
}

#[test]
fn a_lease_ends_while_its_request_waits_and_while_another_holds() {
    with_etcd(1, &[], async |etcds: Etcds| {
        let mut client = etcds.client(0).await;
        let (first, second, third) =
            (etcds.session(options()).await, etcds.session(options()).await, etcds.session(options()).await);
        let ask = |cluster: &Cluster| tokio::spawn(cluster.lock("x").request(0..10, Mode::Exclusive).into_future());
        let held = first.lock("x").request(.., Mode::Exclusive).await.unwrap();
        let until = async |count| {
            while first.lock("x").snapshot().await.unwrap().waiters().count() != count {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let dies = ask(&second);
        until(1).await;
        let lives = ask(&third);
        until(2).await;
        client.lease_revoke(second.lease()).await.unwrap();
        let error = dies.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Removed | Error::SessionLost), "{error:?}");
        // The next keep-alive says so.
        timeout(Duration::from_secs(4), second.lost()).await.unwrap();
        assert_eq!(second.lock("x").request(.., Mode::Add).await.unwrap_err(), Error::SessionLost);
        client.lease_revoke(first.lease()).await.unwrap();
        let granted = timeout(Duration::from_secs(2), lives).await.unwrap().unwrap().unwrap();
        assert!(granted.token() > held.token());
        timeout(Duration::from_secs(4), held.lost()).await.unwrap();
    });
}

#[test]
fn a_long_queue_is_drained_in_order() {
    with_etcd(1, &[], async |etcds: Etcds| {
        const COUNT: usize = 300;
        let cluster = etcds.session(Options::default()).await;
        let lock = cluster.lock("x");
        // Many keys that are of no concern.
        let mut elsewhere = JoinSet::new();
        for at in 0..2000u64 {
            elsewhere
                .spawn(lock.request((1 << 40) + at * 4096..(1 << 40) + (at + 1) * 4096, Mode::Exclusive).into_future());
        }
        let elsewhere = elsewhere.join_all().await;
        let held = lock.request(0..10, Mode::Exclusive).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        for _ in 0..COUNT {
            let (request, order) = (lock.request(0..10, Mode::Exclusive), Arc::clone(&order));
            tasks.spawn(async move {
                let guard = request.await.unwrap();
                let place = guard.keys()[0].clone();
                order.lock().unwrap().push((guard.token(), place));
            });
        }
        let waiters = loop {
            let snapshot = lock.snapshot().await.unwrap();
            if snapshot.waiters().count() == COUNT {
                break snapshot.waiters().map(|waiter| waiter.owner.id.to_string()).collect::<Vec<_>>();
            }
            sleep(Duration::from_millis(100)).await;
        };
        held.release().await;
        tasks.join_all().await;
        let order = order.lock().unwrap();
        assert!(order.is_sorted(), "by tokens");
        let number = |text: &str| text.rsplit([' ', '-']).find_map(|part| part.parse::<u64>().ok());
        let granted: Vec<_> = order.iter().map(|(_, key)| number(key.rsplit_once('-').unwrap().0)).collect();
        let waited: Vec<_> = waiters.iter().map(|owner| number(owner)).collect();
        assert_eq!(granted, waited, "in the order of the queue");
        assert!(elsewhere.iter().all(|guard| guard.as_ref().is_ok_and(|guard| !guard.is_lost())));
    });
}

/// Many sessions by one connection.
struct Shared(Arc<Etcd>);

impl Store for Shared {
    fn transact(&self, transaction: Transaction) -> impl Future<Output = Result<Answer, StoreError>> + Send {
        self.0.transact(transaction)
    }

    fn changed(&self, keys: Vec<String>, from: Revision) -> impl Future<Output = ()> + Send {
        self.0.changed(keys, from)
    }

    fn grant(&self, ttl: Duration) -> impl Future<Output = Result<Lease, StoreError>> + Send {
        self.0.grant(ttl)
    }

    fn keep_alive(&self, lease: i64) -> impl Future<Output = Result<Duration, StoreError>> + Send {
        self.0.keep_alive(lease)
    }

    fn revoke(&self, lease: i64) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.0.revoke(lease)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(task);
    }
}

/// Each session has a lease and a range; one more waits for them all.
#[test]
fn the_sessions_of_ten_thousand_clients_come_and_go() {
    with_etcd(1, &[], async |etcds: Etcds| {
        const COUNT: u64 = 10_000;
        let store = Arc::new(Etcd::new(etcds.endpoints(), None).unwrap());
        let mut opening = JoinSet::new();
        for task in 0..50 {
            let store = Arc::clone(&store);
            opening.spawn(async move {
                let mut all = Vec::new();
                for number in (task..COUNT).step_by(50) {
                    // So long that no keep-alive comes in between.
                    let options = Options::default().ttl(Duration::from_secs(3600));
                    let cluster = Cluster::open(Shared(Arc::clone(&store)), options).await.unwrap();
                    let range = number * 4096..(number + 1) * 4096;
                    let guard = cluster.lock("x").request(range, Mode::Exclusive).await.unwrap();
                    all.push((cluster, guard));
                }
                all
            });
        }
        let mut all = opening.join_all().await.into_iter().flatten().collect::<Vec<_>>();
        let last = etcds.session(options()).await;
        let lock = last.lock("x");
        assert_eq!(lock.snapshot().await.unwrap().holders().count() as u64, COUNT);
        let waiting = tokio::spawn(lock.request(.., Mode::Exclusive).into_future());
        fastrand::Rng::with_seed(1).shuffle(&mut all);
        let (kept, guard) = all.pop().unwrap();
        let mut closing = JoinSet::new();
        for (at, (cluster, guard)) in all.into_iter().enumerate() {
            closing.spawn(async move {
                match at % 2 {
                    0 => cluster.close().await,
                    _ => guard.release().await,
                }
            });
        }
        closing.join_all().await;
        assert!(!waiting.is_finished(), "one is enough to wait for");
        assert!(lock.snapshot().await.unwrap().requests().len() == 2 && !guard.is_lost());
        kept.close().await;
        timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap().unwrap().release().await;
        assert_eq!(lock.snapshot().await.unwrap().requests().len(), 0);
    });
}

fn since_epoch() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos()
}

/// Not a test: what the process of the next one does. It holds a range, and says what it learns.
#[test]
fn child_that_is_stopped() {
    let Ok(endpoint) = std::env::var("SPANLOCK_ETCD_CHILD") else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let cluster = Cluster::connect([endpoint], options()).await.unwrap();
        let guard = cluster.lock("x").request(0..10, Mode::Exclusive).await.unwrap();
        let mut out = std::io::stdout();
        writeln!(out, "\nheld {}", guard.token()).unwrap();
        loop {
            // The time first: if it is stopped after it has looked, what it says is from before.
            let now = since_epoch();
            if guard.is_lost() {
                break;
            }
            writeln!(out, "holds {now}").unwrap();
            sleep(Duration::from_millis(20)).await;
        }
        guard.lost().await;
        writeln!(out, "lost").unwrap();
    });
}

#[test]
fn a_client_is_stopped_past_its_lease() {
    with_etcd(1, &[], async |etcds: Etcds| {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_is_stopped", "--nocapture"])
            .env("SPANLOCK_ETCD_CHILD", &etcds.endpoints()[0])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let Process(child) = &mut Process(child);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let token: u64 = lines.find_map(|line| line.strip_prefix("held ")?.parse().ok()).unwrap();
        let cluster = etcds.session(options()).await;
        let lock: Lock = cluster.lock("x");
        let waiting = tokio::spawn(lock.request(0..10, Mode::Add).into_future());
        // It is alive, and keeps its lease.
        sleep(Duration::from_secs(6)).await;
        assert!(!waiting.is_finished());
        signal(child.id(), "STOP");
        let granted = timeout(Duration::from_secs(10), waiting).await.expect("the lease runs out").unwrap().unwrap();
        assert!(granted.token() > token);
        let granted_at = since_epoch();
        signal(child.id(), "CONT");
        let said: Vec<_> = lines.collect();
        assert!(said.iter().any(|line| line == "lost"), "it is told");
        let times: Vec<u128> = said.iter().filter_map(|line| line.strip_prefix("holds ")?.parse().ok()).collect();
        assert!(times.len() > 100 && times.iter().all(|&time| time < granted_at), "it takes itself for the holder");
        assert!(child.wait().unwrap().success());
    });
}
