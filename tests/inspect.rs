//! Seeing what is locked: snapshots of a lock in use, and the counters of the feature `stats`.

mod common;

use common::lasting;
use common::poll::Hand;
use spanlock::{Batch, ByteRange, Mode, Owner, RangeLock, Snapshot};
use std::sync::Arc;
use std::time::Duration;

/// The numbers of those that the waiter at `number` waits for.
fn waits_for(snapshot: &Snapshot, number: usize) -> Vec<usize> {
    snapshot.waits_for(&snapshot.requests()[number]).map(|request| request.number()).collect()
}

#[test]
fn a_snapshot_says_who_holds_who_waits_and_for_whom() {
    let lock = RangeLock::new();
    let (reader, writer) = (Owner::new(), Owner::new());
    let _read = lock.request(0..4096, Mode::Add).owner(&reader).try_now().unwrap();
    let _thread = lock.block(8192..12288);
    let mut truncate = Hand::new(lasting(&lock).request(.., Mode::Exclusive).owner(&writer));
    truncate.pending();
    let mut late = Hand::new(lock.request(100..200, Mode::Add));
    late.pending();

    let before = lock.snapshot();
    let [read, thread, truncate_info, late_info] = before.requests() else { panic!("four requests: {before}") };
    assert_eq!((read.range(), read.mode(), read.owner()), (ByteRange::new(0..4096), Mode::Add, reader.id()));
    assert!(read.is_holder() && thread.is_holder() && read.waiting().is_none());
    assert!(!truncate_info.is_holder() && !late_info.is_holder());
    assert!(thread.owner().to_string().starts_with("thread "));
    assert_eq!((truncate_info.range(), truncate_info.owner()), (ByteRange::WHOLE, writer.id()));
    assert!(late_info.owner().to_string().starts_with("task "));
    assert_eq!(waits_for(&before, 2), [0, 1]);
    assert_eq!(waits_for(&before, 3), [2]);
    let after = lock.snapshot();
    assert!(after.waiters().next().unwrap().waiting() > truncate_info.waiting(), "its age grows");
    assert!(late_info.waiting() <= truncate_info.waiting(), "who came first has waited longer");
    assert!(truncate_info.waiting().unwrap() < Duration::from_secs(600));

    // The reader asks again: it passes the truncate, which now waits for it as well.
    let inner = lock.request(100..200, Mode::Add).owner(&reader).try_now();
    assert!(inner.is_none(), "a try does not pass");
    let _inner = Hand::new(lasting(&lock).request(100..200, Mode::Add).owner(&reader)).ready().unwrap();
    let map = lock.snapshot();
    assert_eq!(map.holders().count(), 3);
    let text = map.to_string();
    assert!(text.starts_with("3 holding, 2 waiting"), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains("waits for")).count(), 2, "{text}");
}

/// Each pair of modes, and what lies beside.
#[test]
fn conflicts_are_the_holds_of_others_that_are_in_the_way() {
    let lock = RangeLock::new();
    let (one, two) = (Owner::named("one"), Owner::named("two"));
    for held in Mode::ALL {
        let mine = lock.request(30..40, held).owner(&two).try_now().unwrap();
        let theirs = lock.request(10..20, held).owner(&one).try_now().unwrap();
        let again = lock.request(15..18, held).owner(&one).try_now().unwrap();
        // Who waits is not among them.
        let mut waits = Hand::new(lock.request(0..50, Mode::Exclusive));
        waits.pending();
        for asked in Mode::ALL {
            let ranges = |range: ByteRange, owner: Option<&Owner>| -> Vec<ByteRange> {
                lock.conflicts(range, asked, owner).iter().map(|hold| hold.range()).collect()
            };
            let if_in_the_way = |ranges: &[ByteRange]| if held.goes_with(asked) { Vec::new() } else { ranges.to_vec() };
            let [a, b, c] = [10..20, 15..18, 30..40].map(ByteRange::new);
            assert_eq!(ranges(ByteRange::WHOLE, None), if_in_the_way(&[a, b, c]), "{held} {asked}");
            assert_eq!(ranges(ByteRange::WHOLE, Some(&one)), if_in_the_way(&[c]));
            assert_eq!(ranges(ByteRange::new(17..=30), Some(&two)), if_in_the_way(&[a, b]));
            assert_eq!(ranges(ByteRange::new(18..30), None), if_in_the_way(&[a]));
            assert!(ranges(ByteRange::new(20..30), None).is_empty() && ranges(ByteRange::EMPTY, None).is_empty());
        }
        let asked = if held == Mode::Add { Mode::Block } else { Mode::Add };
        let told = lock.conflicts(15.., asked, None);
        assert_eq!(told.iter().map(|hold| hold.number()).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(told.iter().all(|hold| hold.is_holder() && hold.mode() == held && hold.waiting().is_none()));
        assert_eq!((told[2].owner(), told[2].owner_name()), (two.id(), Some("two")));
        drop((mine, theirs, again, waits));
    }
}

/// A request that may pass another, and still waits for a third, is in front of that other.
#[test]
fn a_snapshot_knows_who_passes_whom() {
    let (a, b) = (RangeLock::new(), RangeLock::new());
    let (t1, t3, t4) = (Owner::new(), Owner::new(), Owner::new());
    let t4_a = a.request(0..8, Mode::Add).owner(&t4).try_now().unwrap();
    let _t1_b = b.request(0..8, Mode::Exclusive).owner(&t1).try_now().unwrap();
    let t1_a = a.request(0..4, Mode::Add).owner(&t1).try_now().unwrap();
    // Waits for t1 and t4.
    let mut t3_a = Hand::new(lasting(&a).request(0..16, Mode::Exclusive).owner(&t3));
    t3_a.pending();
    // Waits for t4, and behind t3, who waits for t1: it passes t3.
    let mut t1_more = Hand::new(lasting(&a).request(4..12, Mode::Block).owner(&t1));
    t1_more.pending();
    let snapshot = a.snapshot();
    let of = |owner: &Owner| snapshot.waiters().find(|request| request.owner() == owner.id()).expect("it waits");
    let blockers = |owner: &Owner| -> Vec<_> { snapshot.waits_for(of(owner)).map(|request| request.owner()).collect() };
    assert_eq!(blockers(&t1), [t4.id()]);
    assert!(blockers(&t3).contains(&t1.id()));
    assert_eq!(blockers(&t3).iter().filter(|id| **id == t1.id()).count(), 2, "what it holds, and what it waits for");
    drop(t4_a);
    let t1_more = t1_more.ready().unwrap();
    t3_a.pending();
    drop((t1_a, t1_more));
    drop(t3_a.ready().unwrap());
}

#[cfg(feature = "stats")]
#[test]
fn the_counters_count() {
    use spanlock::stats;

    let lock = RangeLock::new();
    let before = stats::read();
    let (one, two) = (Owner::new(), Owner::new());
    let outer = lock.request(0..8, Mode::Add).owner(&one).wait().unwrap();
    let mut queued = Hand::new(lasting(&lock).request(0..8, Mode::Block).owner(&two));
    queued.pending();
    let inner = Hand::new(lasting(&lock).request(0..8, Mode::Add).owner(&one)).ready().unwrap();
    assert!(lock.request(0..8, Mode::Exclusive).owner(&two).try_now().is_none());
    drop((outer, inner));
    drop(queued.ready().unwrap());
    let mut gives_up = Hand::new(lock.request(0..8, Mode::Block));
    let held = lock.add(..);
    gives_up.pending();
    drop(gives_up);
    drop(held);
    // Other tests of this process count too.
    let now = stats::read().since(&before);
    assert!(
        now.acquires >= 4 && now.contended >= 4 && now.nested >= 1 && now.passed >= 1 && now.given_up >= 1,
        "{now}"
    );
    assert!(now.waits.len() >= 3, "{now}");
}

/// No other test of this process has a window, so these counts are exact.
#[cfg(feature = "stats")]
#[test]
fn the_counters_know_who_was_passed_and_who_was_late() {
    use spanlock::stats;
    use std::time::Instant;

    let counted = || {
        let now = stats::read();
        (now.went_before, now.woken_in_vain, now.latest)
    };
    let ask = |lock: &RangeLock| Hand::new(lasting(lock).request(0..8, Mode::Exclusive));
    assert_eq!(counted(), (0, 0, Duration::ZERO));

    // So long that nobody here waits for it.
    let lock = RangeLock::new().reordering(Duration::from_secs(3600));
    let holder = ask(&lock).ready();
    let mut waiter = ask(&lock);
    waiter.pending();
    assert_eq!(counted(), (0, 0, Duration::ZERO));
    drop(holder);
    assert!(waiter.woken());
    let newcomer = ask(&lock).ready();
    assert_eq!(counted(), (1, 0, Duration::ZERO), "it went before the one who waits");
    waiter.pending();
    assert_eq!(counted(), (1, 1, Duration::ZERO), "who waits has found it there");
    drop(newcomer);
    drop(waiter.ready());
    assert_eq!(counted(), (1, 1, Duration::ZERO), "nobody was late");

    // So short that it is over at the first look.
    let lock = RangeLock::new().reordering(Duration::from_nanos(1));
    let begun = Instant::now();
    let holder = ask(&lock).ready();
    let mut waiter = ask(&lock);
    waiter.pending();
    drop(holder);
    let mut newcomer = ask(&lock);
    newcomer.pending();
    drop(waiter.ready());
    let (went_before, _, latest) = counted();
    assert_eq!(went_before, 1, "nobody goes before one who has waited for the window");
    assert!(latest > Duration::ZERO && latest < begun.elapsed(), "granted {latest:?} after the window");
    assert!(stats::read().to_string().ends_with("after the window at the latest"));
    drop(newcomer.ready());
}

#[test]
fn a_lock_has_the_name_that_it_was_given() {
    let mut lock = RangeLock::new();
    assert_eq!(lock.name(), None);
    lock.set_name(format!("inode {}", 7));
    assert_eq!(lock.name(), Some("inode 7"));
    static LOG: RangeLock = RangeLock::named("log");
    assert_eq!(LOG.name(), Some("log"));
}

/// A future that was called, and that nobody polls, keeps its place: the snapshot says so, and how long it has waited
/// in all.
#[test]
fn a_snapshot_tells_who_was_called_and_has_not_come() {
    let lock = RangeLock::new();
    let holder = Hand::new(lock.request(0..8, Mode::Exclusive)).ready();
    let mut forgotten = Hand::new(lock.request(0..8, Mode::Exclusive));
    forgotten.pending();
    let behind = Hand::new(lock.request(4..8, Mode::Add));
    let drawn = lock.snapshot().to_string();
    assert!(drawn.contains("waits for #0") && !drawn.contains("called"), "{drawn}");
    drop((holder, behind));
    assert!(forgotten.woken());
    let snapshot = lock.snapshot();
    let waiter = snapshot.waiters().next().expect("it waits");
    assert_eq!(snapshot.waits_for(waiter).count(), 0);
    let drawn = snapshot.to_string();
    assert!(drawn.contains("called, and has not come yet"), "{drawn}");
    drop(forgotten.ready());
}

/// A part of a batch that nobody is in front of has not been called: another part waits, in another lock perhaps.
#[test]
fn a_snapshot_tells_a_part_that_waits_for_the_others() {
    let [here, there] = [(); 2].map(|()| Arc::new(RangeLock::new()));
    let holder = Hand::new(there.request(0..8, Mode::Exclusive)).ready();
    let mut batch = Hand::new(Batch::new().exclusive(here.clone(), 0..8).exclusive(there.clone(), 0..8));
    batch.pending();
    let [drawn, other] = [&here, &there].map(|lock| lock.snapshot().to_string());
    assert!(drawn.contains("waits for the others") && !drawn.contains("called"), "{drawn}");
    assert!(other.contains("waits for #0"), "{other}");
    drop(holder);
    drop(batch.ready());
}
