//! What a request costs on real servers: in transactions and watches, which are counted, and in time, which depends on
//! disks and on who else is there.
//!
//! `cargo bench -p spanlock-etcd` takes three members on loopback; `-- --test` makes it short.

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Etcds, with_etcd};
use spanlock_etcd::etcd_client::LockOptions;
use spanlock_etcd::store::{Answer, Lease, Revision, Store, StoreError, Transaction};
use spanlock_etcd::{Cluster, Etcd, Lock, Mode, Options};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What was asked of a store.
#[derive(Default)]
struct Counts {
    transactions: AtomicUsize,
    watches: AtomicUsize,
}

impl Counts {
    fn take(&self) -> (usize, usize) {
        (self.transactions.swap(0, Ordering::Relaxed), self.watches.swap(0, Ordering::Relaxed))
    }
}

struct Counted(Etcd, Arc<Counts>);

impl Store for Counted {
    fn transact(&self, transaction: Transaction) -> impl Future<Output = Result<Answer, StoreError>> + Send {
        self.1.transactions.fetch_add(1, Ordering::Relaxed);
        self.0.transact(transaction)
    }

    fn changed(&self, keys: Vec<String>, from: Revision) -> impl Future<Output = ()> + Send {
        self.1.watches.fetch_add(1, Ordering::Relaxed);
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

async fn counted(etcds: &Etcds) -> (Cluster<Counted>, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let store = Counted(Etcd::new(etcds.endpoints(), None).unwrap(), Arc::clone(&counts));
    let options = Options::default().ttl(Duration::from_secs(30)).recheck(Duration::from_secs(600));
    (Cluster::open(store, options).await.unwrap(), counts)
}

fn mean(times: &[Duration]) -> f64 {
    times.iter().sum::<Duration>().as_secs_f64() * 1e3 / times.len() as f64
}

/// One after the other, nobody else there; and etcd's own mutex, in turns, since other programs disturb both.
async fn uncontended(etcds: &Etcds, rounds: usize) {
    let (cluster, counts) = counted(etcds).await;
    let lock = cluster.lock("uncontended");
    let mut client = etcds.client(0).await;
    let lease = client.lease_grant(600, None).await.unwrap().id();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    counts.take();
    for round in 0..rounds as u64 {
        let begun = Instant::now();
        let guard = lock.request(round * 4096..(round + 1) * 4096, Mode::Exclusive).await.unwrap();
        guard.release().await;
        ours.push(begun.elapsed());
        let begun = Instant::now();
        let key = client.lock("mutex", Some(LockOptions::new().with_lease(lease))).await.unwrap();
        client.unlock(key.key().to_vec()).await.unwrap();
        theirs.push(begun.elapsed());
    }
    let (transactions, watches) = counts.take();
    let each = transactions as f64 / rounds as f64;
    println!(
        "uncontended: {each:.2} transactions and {watches} watches for request and release, {:.2} ms; etcd's mutex {:.2} ms",
        mean(&ours),
        mean(&theirs)
    );
}

/// Many who wait for the same bytes.
async fn queue(etcds: &Etcds, length: usize) {
    let (cluster, counts) = counted(etcds).await;
    let lock = cluster.lock("queue");
    let held = lock.request(0..10, Mode::Exclusive).await.unwrap();
    let mut waiting = JoinSet::new();
    for _ in 0..length {
        let request = lock.request(0..10, Mode::Exclusive);
        waiting.spawn(async move { request.await.unwrap().release().await });
    }
    while lock.snapshot().await.unwrap().waiters().count() < length {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (_, watches) = counts.take();
    let begun = Instant::now();
    held.release().await;
    waiting.join_all().await;
    let time = begun.elapsed().as_secs_f64();
    let (transactions, more) = counts.take();
    println!(
        "a queue of {length}: {:.2} watches a waiter, then {:.2} transactions (a read, a removal) and {more} more watches for all, {:.0} grants a second",
        watches as f64 / length as f64,
        transactions as f64 / length as f64,
        length as f64 / time
    );
}

/// Sessions that work at once, each on its own bytes or all on the same.
async fn crowd(etcds: &Etcds, sessions: usize, time: Duration, is_hot: bool) {
    let mut tasks = JoinSet::new();
    for number in 0..sessions as u64 {
        let cluster = etcds.session(Options::default().ttl(Duration::from_secs(30))).await;
        let lock: Lock = cluster.lock("crowd");
        tasks.spawn(async move {
            let first = if is_hot { 0 } else { number * 4096 };
            let (end, mut count) = (Instant::now() + time, 0);
            while Instant::now() < end {
                lock.request(first..first + 4096, Mode::Exclusive).await.unwrap().release().await;
                count += 1;
            }
            count
        });
    }
    let all: usize = tasks.join_all().await.iter().sum();
    let what = if is_hot { "one range" } else { "ranges of their own" };
    println!("{sessions} sessions on {what}: {:.0} grants a second", all as f64 / time.as_secs_f64());
}

fn main() {
    let is_test = std::env::args().any(|argument| argument == "--test");
    let (rounds, length, time) = if is_test { (5, 20, 0.3) } else { (200, 1000, 5.0) };
    let time = Duration::from_secs_f64(time);
    for members in [1, 3] {
        with_etcd(members, &[], async |etcds| {
            println!("{members} members");
            uncontended(&etcds, rounds).await;
            queue(&etcds, length).await;
            for sessions in [2, 8] {
                crowd(&etcds, sessions, time, false).await;
                crowd(&etcds, sessions, time, true).await;
            }
        });
    }
}
