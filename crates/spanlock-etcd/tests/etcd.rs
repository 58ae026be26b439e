//! The contract on real etcd servers, on good days: order, waiting, trying, batches, owners, errors for people.

mod common;

use common::{Etcds, with_etcd};
use spanlock_etcd::etcd_client::{self, ConnectOptions, PermissionType};
use spanlock_etcd::store::StoreError;
use spanlock_etcd::{Cluster, Error, Guard, Lock, Mode, Options};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const A_MOMENT: Duration = Duration::from_millis(300);

/// Until as many wait in the lock.
async fn until_waiting(lock: &Lock, count: usize) {
    while lock.snapshot().await.unwrap().waiters().count() != count {
        sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn requests_are_granted_in_order_across_sessions() {
    with_etcd(1, &[], async |etcds: Etcds| {
        let (one, other) = (etcds.session(Options::default()).await, etcds.session(Options::default()).await);
        let (mine, its) = (one.lock("volume-7/inode-42"), other.lock("volume-7/inode-42"));
        let held = mine.request(0..4096, Mode::Block).await.unwrap();
        // What goes together is granted at once, and so is what is elsewhere.
        let beside = its.request(0..4096, Mode::Block).await.unwrap();
        let elsewhere = its.request(4096..8192, Mode::Exclusive).await.unwrap();
        assert!(its.request(4095..4096, Mode::Add).try_now().await.unwrap().is_none());
        // The try has left its place, and is not taken for one of those who wait.
        until_waiting(&mine, 0).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        for (number, mode) in [Mode::Exclusive, Mode::Add, Mode::Add, Mode::Exclusive].into_iter().enumerate() {
            let (lock, order) = (if number % 2 == 0 { its.clone() } else { mine.clone() }, Arc::clone(&order));
            tasks.spawn(async move {
                let guard = lock.request(0..100, mode).await.unwrap();
                order.lock().unwrap().push((number, guard.token()));
                sleep(Duration::from_millis(50)).await;
                guard.release().await;
            });
            until_waiting(&mine, number + 1).await;
        }
        let map = mine.snapshot().await.unwrap().to_string();
        assert!(map.starts_with("3 holding, 4 waiting"), "{map}");
        assert!(map.contains("waits for #0, #1"), "{map}");
        let token = held.token();
        drop(held);
        sleep(A_MOMENT).await;
        assert!(order.lock().unwrap().is_empty(), "one of two holders is enough to wait for");
        beside.release().await;
        tasks.join_all().await;
        let order = order.lock().unwrap().clone();
        let numbers: Vec<_> = order.iter().map(|(number, _)| *number).collect();
        assert!(numbers == [0, 1, 2, 3] || numbers == [0, 2, 1, 3], "{numbers:?}");
        assert!(
            token < order[0].1 && order[0].1 < order[1].1.min(order[2].1) && order[1].1.max(order[2].1) < order[3].1
        );
        elsewhere.release().await;
        assert_eq!(mine.snapshot().await.unwrap().requests().len(), 0);
    });
}

#[test]
fn a_request_is_given_up_by_its_deadline_or_by_dropping_it() {
    with_etcd(1, &[], async |etcds: Etcds| {
        let cluster = etcds.session(Options::default()).await;
        let lock = cluster.lock("x");
        let held = lock.request(0..10, Mode::Exclusive).await.unwrap();
        assert_eq!(lock.request(5..6, Mode::Add).timeout(A_MOMENT).await.unwrap_err(), Error::TimedOut);
        assert!(timeout(A_MOMENT, lock.request(5..6, Mode::Add).into_future()).await.is_err());
        until_waiting(&lock, 0).await;
        drop(held);
        lock.request(5..6, Mode::Add).await.unwrap().release().await;
    });
}

#[test]
fn a_session_that_is_closed_or_dropped_leaves_nothing() {
    with_etcd(1, &[], async |etcds: Etcds| {
        let (one, other) = (etcds.session(Options::default()).await, etcds.session(Options::default()).await);
        let held = one.lock("x").request(.., Mode::Exclusive).await.unwrap();
        let waiting = tokio::spawn(one.lock("x").request(.., Mode::Add).into_future());
        until_waiting(&other.lock("x"), 1).await;
        one.close().await;
        assert!(held.is_lost());
        held.lost().await;
        assert_eq!(waiting.await.unwrap().unwrap_err(), Error::Closed);
        assert_eq!(one.lock("x").request(.., Mode::Add).await.unwrap_err(), Error::Closed);
        assert!(other.lock("x").request(.., Mode::Exclusive).try_now().await.unwrap().is_some());
        let lock = other.lock("y");
        let _held = lock.request(.., Mode::Exclusive).await.unwrap();
        drop((other, lock));
        let third = etcds.session(Options::default()).await;
        assert!(third.lock("y").request(.., Mode::Add).try_now().await.unwrap().is_none(), "a guard keeps its session");
        drop(_held);
        third.lock("y").request(.., Mode::Add).await.unwrap().release().await;
    });
}

/// Three ranges of two locks, under one place in the queue; and an owner that does not conflict with itself.
#[test]
fn batches_and_owners() {
    with_etcd(1, &[], async |etcds: Etcds| {
        let (one, other) = (etcds.session(Options::default()).await, etcds.session(Options::default()).await);
        let both = |cluster: &Cluster| {
            let (a, b) = (cluster.lock("a"), cluster.lock("b"));
            a.request(0..10, Mode::Exclusive).and(&b, 0..10, Mode::Add).and(&a, 1 << 40..=u64::MAX, Mode::Block)
        };
        let held = both(&one).await.unwrap();
        assert!(other.lock("a").request(u64::MAX..=u64::MAX, Mode::Add).try_now().await.unwrap().is_none());
        assert!(other.lock("b").request(0..10, Mode::Add).try_now().await.unwrap().is_some());
        let waiting = tokio::spawn(both(&other).into_future());
        until_waiting(&one.lock("a"), 2).await;
        held.release().await;
        waiting.await.unwrap().unwrap().release().await;

        let many = (0..64).fold(one.lock("m").request(0..1, Mode::Add), |all, at| {
            all.and(&one.lock("m"), at << 32..(at << 32) + 1, Mode::Exclusive)
        });
        assert_eq!(many.await.unwrap_err(), Error::TooManyParts { most: 64 });
        let many = (0..63).fold(one.lock("m").request(0..1, Mode::Add), |all, at| {
            all.and(&one.lock("m"), at << 32..(at << 32) + 1, Mode::Exclusive)
        });
        assert_eq!(many.await.unwrap().keys().len(), 64);

        let owner = one.owner("transfer");
        let outer = one.lock("a").request(0..10, Mode::Add).owner(&owner).await.unwrap();
        let waiting = tokio::spawn(other.lock("a").request(0..10, Mode::Exclusive).into_future());
        until_waiting(&one.lock("a"), 1).await;
        // Nested: it is let past the one that waits for its own owner.
        let inner = one.lock("a").request(5..20, Mode::Exclusive).owner(&owner).timeout(A_MOMENT * 20).await.unwrap();
        drop((inner, outer));
        let guard: Guard = waiting.await.unwrap().unwrap();
        guard.release().await;
        assert_eq!(other.lock("a").request(.., Mode::Add).owner(&owner).await.unwrap_err(), Error::OtherSession);
    });
}

#[test]
fn a_deadlock_is_an_answer() {
    with_etcd(1, &[], async |etcds: Etcds| {
        let (one, other) = (etcds.session(Options::default()).await, etcds.session(Options::default()).await);
        let (me, you) = (one.owner("me"), other.owner("you"));
        let mine = one.lock("a").request(0..10, Mode::Exclusive).owner(&me).await.unwrap();
        let yours = other.lock("b").request(0..10, Mode::Exclusive).owner(&you).await.unwrap();
        let waiting = tokio::spawn(one.lock("b").request(5..6, Mode::Add).owner(&me).into_future());
        until_waiting(&other.lock("b"), 1).await;
        let Err(Error::Deadlock(deadlock)) = other.lock("a").request(5..6, Mode::Add).owner(&you).await else {
            panic!("it closes a cycle");
        };
        assert_eq!(deadlock.waits().len(), 2);
        let text = deadlock.to_string();
        assert!(
            text.contains("owner")
                && text.contains("\"you\" asks a for 5..6 (Add)")
                && text.contains("\"me\" holds 0..10"),
            "{text}"
        );
        drop(yours);
        waiting.await.unwrap().unwrap().release().await;
        drop(mine);
    });
}

/// A request and its release are one transaction each.
#[test]
fn an_uncontended_request_takes_two_revisions() {
    with_etcd(1, &[], async |etcds: Etcds| {
        let cluster = etcds.session(Options::default()).await;
        let lock = cluster.lock("x");
        let before = lock.snapshot().await.unwrap().revision();
        let guard = lock.request(100..200, Mode::Exclusive).await.unwrap();
        assert_eq!(guard.token(), before + 1);
        guard.release().await;
        assert_eq!(lock.snapshot().await.unwrap().revision(), before + 2);
        assert!(lock.request(5..5, Mode::Exclusive).await.unwrap().keys().is_empty());
        assert_eq!(lock.snapshot().await.unwrap().revision(), before + 2);
    });
}

#[test]
fn bad_input_is_a_clear_error() {
    with_etcd(1, &[], async |etcds: Etcds| {
        let cluster = etcds.session(Options::default()).await;
        let unnamed = cluster.lock("").request(.., Mode::Add).await.unwrap_err();
        assert_eq!(unnamed.to_string(), "a lock cannot be called \"\": it is empty");
        for name in ["a/b", "//", "a b", "ä", "..", "%2F", "\0"] {
            let one = cluster.lock(name).request(.., Mode::Exclusive).await.unwrap();
            assert!(cluster.lock(name).request(0..1, Mode::Add).try_now().await.unwrap().is_none());
            assert!(cluster.lock(format!("{name}/")).request(.., Mode::Exclusive).try_now().await.unwrap().is_some());
            drop(one);
        }
        let lock = cluster.lock("x");
        let inverted = std::ops::Range { start: 5, end: 4 };
        let inverted = tokio::spawn(async move { drop(lock.request(inverted, Mode::Add)) }).await;
        assert!(inverted.is_err());
        etcds.client(0).await.put("spanlock/lock/x/.what", "is that", None).await.unwrap();
        let foreign = cluster.lock("x").request(.., Mode::Add).await.unwrap_err();
        assert_eq!(foreign, Error::Foreign { key: "spanlock/lock/x/.what".into() });
        etcds.client(0).await.delete("spanlock/lock/x/.what", None).await.unwrap();
        cluster.lock("x").request(.., Mode::Exclusive).await.unwrap().release().await;

        let error = Cluster::connect(["http://127.0.0.1:1"], Options::default()).await.unwrap_err();
        assert!(matches!(error, Error::Store(StoreError::Unavailable(_))), "{error:?}");
        let error = Cluster::connect(["no url at all"], Options::default()).await.unwrap_err();
        assert!(matches!(error, Error::Store(StoreError::Refused(_))), "{error:?}");
        let error = Cluster::connect(Vec::<String>::new(), Options::default()).await.unwrap_err();
        assert!(matches!(error, Error::Store(StoreError::Refused(_))), "{error:?}");
        // Something that listens and is no etcd.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let error = Cluster::connect([endpoint.clone()], Options::default()).await.unwrap_err();
        assert!(error.to_string().contains(&endpoint), "{error}");
    });
}

#[test]
fn who_may_not_is_told() {
    with_etcd(1, &[], async |etcds: Etcds| {
        let mut root = etcds.client(0).await;
        let mut client = root.clone();
        client.user_add("root", "secret", None).await.unwrap();
        client.role_add("root").await.unwrap();
        client.user_grant_role("root", "root").await.unwrap();
        client.user_add("reader", "word", None).await.unwrap();
        client.role_add("locks").await.unwrap();
        let permission = etcd_client::Permission::new(PermissionType::Readwrite, "mine/").with_prefix();
        client.role_grant_permission("locks", permission).await.unwrap();
        client.user_grant_role("reader", "locks").await.unwrap();
        root.auth_enable().await.unwrap();
        let options = || Options::default().etcd(ConnectOptions::new().with_user("reader", "word"));
        let denied = Cluster::connect(etcds.endpoints(), options()).await.unwrap();
        let error = denied.lock("x").request(.., Mode::Add).await.unwrap_err();
        assert!(matches!(error, Error::Store(StoreError::Denied(_))), "{error:?}");
        let allowed = Cluster::connect(etcds.endpoints(), options().prefix("mine/")).await.unwrap();
        let held = allowed.lock("x").request(.., Mode::Add).await.unwrap();
        let waiting = tokio::spawn(allowed.lock("x").request(.., Mode::Exclusive).into_future());
        until_waiting(&allowed.lock("x"), 1).await;
        drop(held);
        timeout(Duration::from_secs(2), waiting).await.unwrap().unwrap().unwrap().release().await;
        let wrong = Options::default().etcd(ConnectOptions::new().with_user("reader", "wrong"));
        assert!(Cluster::connect(etcds.endpoints(), wrong).await.is_err());
    });
}

#[test]
fn a_full_database_is_said() {
    with_etcd(1, &["--quota-backend-bytes", "1048576"], async |etcds: Etcds| {
        let cluster = etcds.session(Options::default()).await;
        let held = cluster.lock("x").request(0..10, Mode::Exclusive).await.unwrap();
        let mut client = etcds.client(0).await;
        for at in 0..64 {
            if client.put(format!("fill{at}"), vec![b'x'; 100_000], None).await.is_err() {
                break;
            }
        }
        let error = cluster.lock("x").request(20..30, Mode::Add).await.unwrap_err();
        assert_eq!(error, Error::Store(StoreError::Full));
        // What is held can be let go of all the same.
        timeout(Duration::from_secs(5), held.release()).await.unwrap();
        assert_eq!(cluster.lock("x").snapshot().await.unwrap().requests().len(), 0);
    });
}

/// etcd takes 1.5 MiB by default, and its transport half a MiB more.
#[test]
fn what_is_too_large_is_said() {
    with_etcd(1, &[], async |etcds: Etcds| {
        let cluster = etcds.session(Options::default()).await;
        let lock = cluster.lock("x");
        for size in [1 << 20, 1 << 21, 1 << 23] {
            let owner = cluster.owner("o".repeat(size));
            let request = lock.request(.., Mode::Add).owner(&owner).into_future();
            let error = timeout(Duration::from_secs(8), request).await.expect("it will never be taken").unwrap_err();
            assert!(matches!(error, Error::Store(StoreError::Refused(_))), "{size}: {error:?}");
        }
        lock.request(.., Mode::Exclusive).await.unwrap().release().await;
    });
}
