//! Record locks by hand: what each call does, and the ways to wait, to cancel and to release.

use spanlock_posix::{
    Caller, Canceller, Class, Domain, Error, Extent, Kind, Lock, Options, Order, Pending, RecordLocks, Who,
};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use Kind::{Read, Write};

const ORDERS: [Order; 2] = [Order::Kernel, Order::Arrival];

fn of(key: u32) -> Caller<u32> {
    Caller::process(key, key as i32 + 100)
}

fn bytes(first: u64, end: u64) -> Extent {
    Extent::bytes(first..end).expect("some bytes of a file")
}

/// Kind, first byte and the one behind, of all locks of an owner.
fn held(file: &RecordLocks<u32>, key: u32) -> Vec<(Kind, u64, u64)> {
    let own = file.held(&of(key).who);
    let dumped = file.dump().into_iter().filter(|lock| lock.who == of(key).who);
    assert_eq!(own, dumped.collect::<Vec<_>>());
    own.into_iter().map(|lock| (lock.kind, lock.extent.start(), lock.extent.last().unwrap() + 1)).collect()
}

/// One that a test waits for in vain is a hang: it says so.
fn soon(pending: Pending<u32>) -> Result<(), Error> {
    pending.wait_for(Duration::from_secs(300))
}

/// One that has to be answered by now.
fn at_once(pending: Pending<u32>) -> Result<(), Error> {
    assert!(pending.is_answered(), "it waits");
    pending.wait()
}

#[test]
fn what_an_owner_locks_replaces_what_it_has() {
    for order in ORDERS {
        let file = RecordLocks::new(order);
        file.set(of(1), Write, bytes(0, 100)).unwrap();
        file.set(of(1), Read, bytes(40, 60)).unwrap();
        assert_eq!(held(&file, 1), [(Write, 0, 40), (Read, 40, 60), (Write, 60, 100)]);
        file.set(of(1), Write, bytes(50, 60)).unwrap();
        assert_eq!(held(&file, 1), [(Write, 0, 40), (Read, 40, 50), (Write, 50, 100)]);
        file.unlock(of(1), bytes(45, 70)).unwrap();
        assert_eq!(held(&file, 1), [(Write, 0, 40), (Read, 40, 45), (Write, 70, 100)]);
        file.set(of(1), Write, bytes(40, 70)).unwrap();
        assert_eq!(held(&file, 1), [(Write, 0, 100)]);
        file.unlock(of(1), Extent::WHOLE).unwrap();
        assert!(file.dump().is_empty());
        file.unlock(of(1), Extent::WHOLE).unwrap(); // no error
    }
}

#[test]
fn what_the_table_says_the_others_meet() {
    for order in ORDERS {
        let file = RecordLocks::new(order);
        file.set(of(1), Write, bytes(0, 100)).unwrap();
        file.set(of(1), Read, bytes(40, 60)).unwrap();
        file.unlock(of(1), bytes(80, 90)).unwrap();
        let tries = |kind: Kind| {
            (0..10).map(|at| file.set(of(2), kind, bytes(at * 10, at * 10 + 10)).is_ok()).collect::<Vec<_>>()
        };
        let reads = tries(Read);
        file.unlock(of(2), Extent::WHOLE).unwrap();
        let writes = tries(Write);
        assert_eq!(reads, [false, false, false, false, true, true, false, false, true, false]);
        assert_eq!(writes, [false, false, false, false, false, false, false, false, true, false]);
    }
}

#[test]
fn a_refused_upgrade_leaves_what_was_held() {
    for order in ORDERS {
        let file = RecordLocks::new(order);
        file.set(of(1), Read, bytes(0, 10)).unwrap();
        file.set(of(2), Read, bytes(5, 15)).unwrap();
        assert_eq!(file.set(of(1), Write, bytes(0, 10)), Err(Error::WouldBlock));
        assert_eq!(held(&file, 1), [(Read, 0, 10)]);
        // One waits, and the other would wait for it: an upgrade of two against each other.
        let upgrade = file.request(of(1), Write, bytes(0, 10));
        assert_eq!(at_once(file.request(of(2), Write, bytes(5, 15))), Err(Error::Deadlock));
        assert_eq!(held(&file, 2), [(Read, 5, 15)]);
        assert!(!upgrade.is_answered());
        file.unlock(of(2), Extent::WHOLE).unwrap();
        assert_eq!(soon(upgrade), Ok(()));
        // And one against itself is none.
        file.set_wait(of(1), Read, bytes(0, 10)).unwrap();
        file.set_wait(of(1), Write, bytes(0, 10)).unwrap();
        assert_eq!(held(&file, 1), [(Write, 0, 10)]);
    }
}

#[test]
fn a_cycle_over_files_is_answered_to_who_closes_it() {
    for order in ORDERS {
        let domain = Domain::new(Options::new().order(order));
        let files: Vec<_> = (0..3).map(|_| domain.file()).collect();
        for key in 0..3 {
            files[key as usize].set(of(key), Write, bytes(0, 1)).unwrap();
        }
        let waits: Vec<_> = (0..2).map(|key| files[key as usize + 1].request(of(key), Write, bytes(0, 1))).collect();
        assert_eq!(at_once(files[0].request(of(2), Read, Extent::WHOLE)), Err(Error::Deadlock));
        assert_eq!(domain.stats().deadlocks, 1);
        domain.release(&of(2).who);
        for (key, wait) in waits.into_iter().enumerate().rev() {
            assert_eq!(soon(wait), Ok(()));
            domain.release(&of(key as u32).who);
        }
        assert_eq!(domain.size(), (0, 0));
    }
}

#[test]
fn who_comes_first_depends_on_the_order() {
    for order in ORDERS {
        let file = RecordLocks::new(order);
        file.set(of(1), Read, bytes(0, 10)).unwrap();
        let writer = file.request(of(2), Write, bytes(5, 6));
        let reader = file.set(of(3), Read, bytes(0, 10));
        match order {
            Order::Kernel => assert_eq!(reader, Ok(()), "it passes the writer who waits"),
            _ => assert_eq!(reader, Err(Error::WouldBlock), "the writer came first"),
        }
        // Nobody holds what is in the way.
        assert_eq!(file.get(of(3), Read, bytes(0, 10)).unwrap(), None);
        // What an owner has it is never refused, whoever waits.
        file.set(of(1), Read, bytes(0, 10)).unwrap();
        file.set(of(1), Read, bytes(2, 7)).unwrap();
        file.unlock(of(1), Extent::WHOLE).unwrap();
        file.unlock(of(3), Extent::WHOLE).unwrap();
        assert_eq!(soon(writer), Ok(()));
    }
}

#[test]
fn a_downgrade_is_never_refused() {
    for order in ORDERS {
        let file = RecordLocks::new(order);
        file.set(of(1), Write, bytes(0, 10)).unwrap();
        let (writer, reader) = (file.request(of(2), Write, bytes(0, 5)), file.request(of(3), Read, bytes(5, 10)));
        file.set(of(1), Read, bytes(0, 10)).unwrap();
        assert_eq!(soon(reader), Ok(()), "it goes with the reader");
        assert!(!writer.is_answered());
        file.unlock(of(1), bytes(0, 5)).unwrap();
        assert_eq!(soon(writer), Ok(()));
    }
}

#[test]
fn neighbours_become_one_though_somebody_waits() {
    for order in ORDERS {
        let file = RecordLocks::new(order);
        file.set(of(1), Write, bytes(0, 10)).unwrap();
        file.set(of(1), Write, bytes(20, 30)).unwrap();
        let first = file.request(of(2), Read, bytes(5, 15));
        let second = file.request(of(3), Read, bytes(25, 26));
        // Also in order of arrival: the first one waits for the gap, but for this owner, too.
        file.set(of(1), Write, bytes(10, 20)).unwrap();
        assert_eq!(held(&file, 1), [(Write, 0, 30)]);
        assert!(!first.is_answered() && !second.is_answered());
        file.unlock(of(1), bytes(5, 15)).unwrap();
        assert_eq!(soon(first), Ok(()));
        assert!(!second.is_answered());
        file.unlock(of(1), bytes(25, 26)).unwrap();
        assert_eq!(soon(second), Ok(()));
    }
}

#[test]
fn a_million_appended_locks_are_one() {
    let many = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
    for order in ORDERS {
        let file = RecordLocks::new(order);
        for at in 0..many {
            file.set(of(1), Write, bytes(at, at + 1)).unwrap();
        }
        for at in (0..many).rev() {
            file.set(of(2), Read, bytes(many + at, many + at + 1)).unwrap();
        }
        assert_eq!(held(&file, 1), [(Write, 0, many)]);
        assert_eq!(held(&file, 2), [(Read, many, 2 * many)]);
        assert!(file.heap_nodes() < 32, "{} nodes", file.heap_nodes());
        assert_eq!(file.domain().count(&of(1).who), 1);
    }
}

#[test]
fn a_cancelled_request_has_changed_nothing() {
    for order in ORDERS {
        let file = RecordLocks::new(order);
        file.set(of(1), Write, bytes(0, 10)).unwrap();
        file.set(of(2), Read, bytes(10, 20)).unwrap();
        let pending = file.request(of(2), Write, bytes(5, 20));
        let behind = file.request(of(3), Read, bytes(5, 6));
        let (cancel, both) = (pending.canceller(), Barrier::new(2));
        thread::scope(|s| {
            s.spawn(|| {
                both.wait();
                assert!(cancel.cancel());
                assert!(!cancel.cancel(), "once");
            });
            both.wait();
            assert_eq!(pending.wait(), Err(Error::Interrupted));
        });
        assert_eq!(held(&file, 2), [(Read, 10, 20)]);
        assert_eq!(file.domain().count(&of(2).who), 1);
        // It holds nobody up.
        file.set(of(1), Read, bytes(0, 10)).unwrap();
        assert_eq!(soon(behind), Ok(()));
        // What has been granted is not cancelled.
        let granted = file.request(of(4), Read, bytes(30, 31));
        assert!(!granted.canceller().cancel());
        drop(granted);
        assert_eq!(held(&file, 4), [(Read, 30, 31)]);
    }
}

#[test]
fn a_wait_ends_at_its_limit() {
    for order in ORDERS {
        let file = RecordLocks::new(order);
        file.set(of(1), Write, Extent::WHOLE).unwrap();
        assert_eq!(file.request(of(2), Read, bytes(0, 1)).wait_for(Duration::ZERO), Err(Error::Interrupted));
        assert_eq!(file.domain().stats().cancelled, 1);
        assert_eq!(file.request(of(1), Read, bytes(0, 1)).wait_for(Duration::ZERO), Ok(()));
    }
}

#[test]
fn dropping_a_request_cancels_it() {
    for order in ORDERS {
        let file = RecordLocks::new(order);
        file.set(of(1), Read, bytes(0, 10)).unwrap();
        drop(file.request(of(2), Write, bytes(0, 10)));
        file.set(of(3), Read, bytes(0, 10)).unwrap();
        assert_eq!(file.domain().count(&of(2).who), 0);
    }
}

#[test]
fn a_callback_may_use_the_locks() {
    for order in ORDERS {
        let domain = Domain::new(Options::new().order(order));
        let (file, other) = (domain.file(), domain.file());
        file.set(of(1), Write, bytes(0, 10)).unwrap();
        let (told, answers) = channel();
        let (again, elsewhere) = (file.clone(), other.clone());
        file.request(of(2), Write, bytes(0, 10)).then(move |answer| {
            let further = elsewhere.set(of(2), Write, bytes(0, 1)).and(again.unlock(of(2), bytes(0, 5)));
            told.send((answer, further)).unwrap();
        });
        let third = file.request(of(3), Read, bytes(0, 5));
        assert!(answers.try_recv().is_err(), "not yet");
        file.unlock(of(1), Extent::WHOLE).unwrap();
        assert_eq!(answers.try_recv(), Ok((Ok(()), Ok(()))), "by the end of the call");
        assert_eq!(soon(third), Ok(()));
        assert_eq!(held(&other, 2), [(Write, 0, 1)]);
        // One that is answered already is told at once.
        let (told, answers) = channel();
        file.request(of(3), Read, bytes(0, 1)).then(move |answer| told.send(answer).unwrap());
        assert_eq!(answers.try_recv(), Ok(Ok(())));
    }
}

#[test]
fn callbacks_do_not_nest() {
    for order in ORDERS {
        let file = RecordLocks::new(order);
        file.set(of(0), Write, bytes(0, 1)).unwrap();
        let (depth, most, done) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        for key in 1..2000 {
            let (file2, depth, most, done) = (file.clone(), Arc::clone(&depth), Arc::clone(&most), Arc::clone(&done));
            file.request(of(key), Write, bytes(0, 1)).then(move |answer| {
                most.fetch_max(depth.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                assert_eq!(answer, Ok(()));
                file2.unlock(of(key), Extent::WHOLE).unwrap();
                depth.fetch_sub(1, Ordering::Relaxed);
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        file.unlock(of(0), Extent::WHOLE).unwrap();
        assert_eq!((done.load(Ordering::Relaxed), most.load(Ordering::Relaxed)), (1999, 1));
    }
}

/// Who waits in a call is answered before code of users runs: it may be that code which waits.
#[test]
fn a_callback_may_wait_for_who_was_granted_with_it() {
    for order in ORDERS {
        let file = RecordLocks::new(order);
        file.set(of(1), Write, bytes(0, 10)).unwrap();
        let (told, answers) = channel();
        let (send, receive) = channel::<Pending<u32>>();
        file.request(of(2), Read, bytes(0, 5)).then(move |_| told.send(at_once(receive.recv().unwrap())).unwrap());
        send.send(file.request(of(3), Read, bytes(5, 10))).unwrap();
        file.unlock(of(1), Extent::WHOLE).unwrap();
        assert_eq!(answers.try_recv(), Ok(Ok(())));
    }
}

#[test]
fn a_callback_that_panics_keeps_nobody_waiting() {
    for order in ORDERS {
        let file = RecordLocks::new(order);
        file.set(of(1), Write, bytes(0, 10)).unwrap();
        file.request(of(2), Read, bytes(0, 10)).then(|_| panic!("in a callback"));
        let reader = file.request(of(3), Read, bytes(0, 10));
        let unlocks = std::panic::AssertUnwindSafe(|| file.unlock(of(1), Extent::WHOLE));
        assert!(std::panic::catch_unwind(unlocks).is_err());
        assert_eq!(soon(reader), Ok(()));
        file.set(of(2), Read, bytes(0, 20)).unwrap();
    }
}

struct Called(AtomicUsize);

impl Wake for Called {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_task_is_woken_once_it_is_answered() {
    for order in ORDERS {
        let file = RecordLocks::new(order);
        file.set(of(1), Write, bytes(0, 10)).unwrap();
        let called = Arc::new(Called(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&called));
        let mut context = Context::from_waker(&waker);
        let mut pending = pin!(file.request(of(2), Read, bytes(0, 10)));
        assert_eq!(pending.as_mut().poll(&mut context), Poll::Pending);
        file.unlock(of(1), bytes(5, 6)).unwrap();
        assert_eq!(called.0.load(Ordering::SeqCst), 0, "there is a rest in the way");
        file.unlock(of(1), Extent::WHOLE).unwrap();
        assert_eq!(called.0.load(Ordering::SeqCst), 1);
        assert_eq!(pending.as_mut().poll(&mut context), Poll::Ready(Ok(())));
        assert_eq!(pollster::block_on(file.request(of(3), Read, bytes(0, 1))), Ok(()));
    }
}

#[test]
fn a_release_takes_what_waits_too() {
    for order in ORDERS {
        let domain = Domain::new(Options::new().order(order));
        let (a, b) = (domain.file(), domain.file());
        a.set(of(1), Write, bytes(0, 10)).unwrap();
        b.set(of(2), Write, bytes(0, 10)).unwrap();
        b.set(of(1), Write, bytes(20, 30)).unwrap();
        let mine = b.request(of(1), Read, bytes(0, 5));
        let theirs = [a.request(of(3), Read, bytes(0, 1)), b.request(of(3), Read, bytes(25, 26))];
        // Close of one file: not the other one's.
        b.release(&of(1).who);
        assert_eq!(soon(mine), Err(Error::Interrupted));
        assert!(!theirs[0].is_answered() && theirs[1].is_answered());
        let mine = b.request(of(1), Read, bytes(0, 5));
        domain.release(&of(1).who);
        assert_eq!(soon(mine), Err(Error::Interrupted));
        assert!(theirs.into_iter().all(|pending| soon(pending) == Ok(())));
        assert_eq!(domain.count(&of(1).who), 0);
        assert_eq!(held(&a, 3), [(Read, 0, 1)]);
        assert_eq!(domain.stats().cancelled, 2);
    }
}

#[test]
fn a_file_that_goes_answers_who_waits() {
    for order in ORDERS {
        let domain = Domain::new(Options::new().order(order));
        let file = domain.file();
        file.set(of(1), Write, Extent::WHOLE).unwrap();
        let (told, answers) = channel();
        file.request(of(2), Write, Extent::WHOLE).then(move |answer| told.send(answer).unwrap());
        drop(file);
        assert_eq!(answers.try_recv(), Ok(Err(Error::Interrupted)));
        assert_eq!((domain.size(), domain.count(&of(1).who)), ((0, 0), 0));
    }
}

#[test]
fn a_quota_counts_what_a_call_leaves() {
    for order in ORDERS {
        let domain = Domain::new(Options::new().order(order).quota(3));
        let (a, b) = (domain.file(), domain.file());
        a.set(of(1), Write, bytes(0, 10)).unwrap();
        a.set(of(1), Write, bytes(20, 30)).unwrap();
        b.set(of(1), Write, bytes(0, 10)).unwrap();
        assert_eq!(b.set(of(1), Write, bytes(20, 30)), Err(Error::NoLocks));
        assert_eq!(a.unlock(of(1), bytes(5, 6)), Err(Error::NoLocks), "it would make two of one");
        assert_eq!(a.set(of(1), Read, bytes(5, 6)), Err(Error::NoLocks), "it would make three of one");
        assert_eq!(held(&a, 1), [(Write, 0, 10), (Write, 20, 30)]);
        a.set(of(1), Write, bytes(10, 20)).unwrap(); // makes one of two
        assert_eq!(domain.count(&of(1).who), 2);
        // Who waits counts.
        b.set(of(2), Write, bytes(50, 60)).unwrap();
        let waits = b.request(of(1), Write, bytes(50, 51));
        assert_eq!(domain.count(&of(1).who), 3);
        assert_eq!(soon(b.request(of(1), Write, bytes(55, 56))), Err(Error::NoLocks));
        b.unlock(of(2), Extent::WHOLE).unwrap();
        assert_eq!((soon(waits), domain.count(&of(1).who)), (Ok(()), 3));
        // What is granted later may be too much by then: the grant would make three of one.
        b.set(of(2), Read, bytes(5, 6)).unwrap_err();
        domain.release(&of(1).who);
        a.set(of(1), Read, bytes(0, 10)).unwrap();
        a.set(of(2), Read, bytes(5, 6)).unwrap();
        let upgrade = a.request(of(1), Write, bytes(5, 6));
        b.set(of(1), Read, bytes(0, 1)).unwrap();
        a.unlock(of(2), Extent::WHOLE).unwrap();
        assert_eq!(soon(upgrade), Err(Error::NoLocks));
        assert_eq!(held(&a, 1), [(Read, 0, 10)]);
        assert_eq!(domain.count(&of(1).who), 2);
        a.set(of(2), Read, Extent::WHOLE).unwrap(); // nothing is left of the upgrade
        assert!(domain.stats().over_quota >= 5);
    }
}

#[test]
fn the_process_is_not_the_owner() {
    for order in ORDERS {
        let file = RecordLocks::new(order);
        let who = |pid| Caller::process(1, pid);
        file.set(who(10), Write, bytes(0, 10)).unwrap();
        file.set(who(11), Write, bytes(10, 20)).unwrap(); // joined to that of 10
        file.set(who(12), Read, bytes(5, 6)).unwrap();
        let pid = |at: u64| file.get(of(2), Write, bytes(at, at + 1)).unwrap().unwrap().pid;
        assert_eq!([pid(0), pid(5), pid(15)], [10, 12, 10]);
        // Of several the first one of the same kind, or the first that is replaced, becomes the lock of all.
        file.set(who(13), Write, bytes(30, 40)).unwrap();
        file.set(who(14), Write, bytes(20, 30)).unwrap();
        assert_eq!((held(&file, 1).pop(), pid(35)), (Some((Write, 6, 40)), 10));
        file.set(who(15), Write, bytes(5, 6)).unwrap();
        assert_eq!((held(&file, 1).len(), pid(5), pid(35)), (1, 10, 10));
        file.unlock(who(15), Extent::WHOLE).unwrap();
        file.set(who(16), Read, bytes(0, 10)).unwrap();
        file.set(who(17), Write, bytes(10, 20)).unwrap();
        file.set(who(18), Write, bytes(0, 10)).unwrap();
        assert_eq!((held(&file, 1), pid(0), pid(15)), (vec![(Write, 0, 20)], 18, 18));
    }
}

#[test]
fn get_tells_the_lowest_and_conflicts_all() {
    for order in ORDERS {
        let file = RecordLocks::new(order);
        file.set(of(1), Read, bytes(50, 60)).unwrap();
        file.set(of(2), Read, bytes(10, 20)).unwrap();
        file.set(of(2), Read, bytes(30, 55)).unwrap();
        let lock = |key, first, end| Lock { who: of(key).who, pid: of(key).pid, kind: Read, extent: bytes(first, end) };
        assert_eq!(file.get(of(3), Write, Extent::WHOLE).unwrap(), Some(lock(2, 10, 20)));
        let all = [lock(1, 50, 60), lock(2, 10, 20), lock(2, 30, 55)];
        assert_eq!(file.conflicts(of(3), Write, Extent::WHOLE).unwrap(), all);
        assert_eq!(file.get(of(3), Write, bytes(19, 31)).unwrap(), Some(lock(2, 10, 20)));
        assert_eq!(file.get(of(2), Write, Extent::WHOLE).unwrap(), Some(lock(1, 50, 60)));
        assert_eq!(file.get(of(3), Read, Extent::WHOLE).unwrap(), None);
        assert_eq!(file.get(of(3), Write, bytes(20, 30)).unwrap(), None);
    }
}

/// Each of them is tried again once, and in the order in which they came.
#[test]
fn a_crowd_for_one_byte_goes_through_in_turn() {
    let file = RecordLocks::new(Order::Kernel);
    let (crowd, order) = (500, Arc::new(Mutex::new(Vec::new())));
    file.set(of(0), Write, bytes(0, 1)).unwrap();
    // One of another kind, and one for more bytes, in the midst of them.
    let asked = |key: u32| match key {
        100 => (Read, bytes(0, 1)),
        200 => (Write, bytes(0, 2)),
        _ => (Write, bytes(0, 1)),
    };
    for key in 1..=crowd {
        let (file, order) = (file.clone(), Arc::clone(&order));
        let (kind, extent) = asked(key);
        file.clone().request(of(key), kind, extent).then(move |answer| {
            assert_eq!(answer, Ok(()));
            order.lock().unwrap().push(key);
            file.unlock(of(key), Extent::WHOLE).unwrap();
        });
    }
    // Who leaves lets those behind go on waiting.
    let gone = file.request(of(1000), Write, bytes(0, 1));
    let behind = file.request(of(1001), Write, bytes(0, 1));
    drop(gone);
    assert!(!behind.is_answered());
    file.unlock(of(0), Extent::WHOLE).unwrap();
    assert_eq!(*order.lock().unwrap(), (1..=crowd).collect::<Vec<_>>());
    assert_eq!(soon(behind), Ok(()));
    let stats = file.domain().stats();
    assert!(stats.retried <= u64::from(crowd) + 4, "{} tries", stats.retried);
    assert_eq!(file.domain().size().1, 0);
}

/// The range lock finds them, not a look at one owner after the other.
#[test]
fn who_is_in_the_way_is_found_among_many() {
    for order in ORDERS {
        let file = RecordLocks::new(order);
        for key in 0..200 {
            let at = u64::from(key) * 10;
            file.set(of(key), if key % 2 == 0 { Write } else { Read }, bytes(at, at + 5)).unwrap();
        }
        let me = of(1000);
        for key in [0, 31, 32, 150, 199_u32] {
            let at = u64::from(key) * 10;
            let told = file.get(me, Write, bytes(at + 4, at + 1000)).unwrap().unwrap();
            assert_eq!((told.who.key, told.extent), (key, bytes(at, at + 5)));
            assert_eq!(file.get(me, Read, bytes(at, at + 7)).unwrap().is_some(), key % 2 == 0);
            assert_eq!(file.get(of(key), Write, bytes(at, at + 7)).unwrap(), None, "its own");
            let waits = file.request(me, Write, bytes(at + 4, at + 6));
            let holder = file.snapshot().waits[0].holder;
            assert_eq!(holder, (order == Order::Kernel).then(|| of(key).who));
            file.unlock(of(key), bytes(at + 3, at + 10)).unwrap();
            assert_eq!(soon(waits), Ok(()));
            file.unlock(me, Extent::WHOLE).unwrap();
        }
        assert_eq!(file.get(me, Write, bytes(5, 10)).unwrap(), None);
    }
}

#[test]
fn descriptions_conflict_with_processes_and_hang_as_the_kernel_has_them() {
    let domain = Domain::new(Options::new());
    let (a, b) = (domain.file(), domain.file());
    let (one, two) = (Caller::description(1), Caller::description(2));
    a.set(one, Write, bytes(0, 1)).unwrap();
    assert_eq!(a.set(of(1), Read, bytes(0, 1)), Err(Error::WouldBlock), "of the same key, and another owner");
    assert_eq!(a.get(of(1), Read, bytes(0, 1)).unwrap().map(|lock| lock.pid), Some(-1));
    b.set(two, Write, bytes(0, 1)).unwrap();
    let first = b.request(one, Write, bytes(0, 1));
    let second = a.request(two, Write, bytes(0, 1));
    assert!(!first.is_answered() && !second.is_answered(), "as two that lock each other out in the kernel");
    drop(first);
    a.release(&one.who);
    assert_eq!(soon(second), Ok(()));
    // In order of arrival it is an answer.
    let domain = Domain::new(Options::new().order(Order::Arrival));
    let (a, b) = (domain.file(), domain.file());
    a.set(one, Write, bytes(0, 1)).unwrap();
    b.set(two, Write, bytes(0, 1)).unwrap();
    let _first = b.request(one, Write, bytes(0, 1));
    assert_eq!(at_once(a.request(two, Write, bytes(0, 1))), Err(Error::Deadlock));
}

#[test]
fn flock_is_beside_the_others_and_gives_up_to_change() {
    for order in ORDERS {
        let file = RecordLocks::new(order);
        let [one, two, three] = [1, 2, 3].map(|key| Caller::flock(key, 0));
        file.set(of(1), Write, Extent::WHOLE).unwrap();
        assert_eq!(file.set(one, Read, bytes(0, 10)), Err(Error::Invalid));
        file.set(one, Read, Extent::WHOLE).unwrap();
        file.set(two, Read, Extent::WHOLE).unwrap();
        assert_eq!(file.set(one, Write, Extent::WHOLE), Err(Error::WouldBlock));
        // The shared lock is lost.
        file.set(two, Write, Extent::WHOLE).unwrap();
        let waits = file.request(three, Read, Extent::WHOLE);
        file.unlock(two, Extent::WHOLE).unwrap();
        assert_eq!(soon(waits), Ok(()));
        assert_eq!((file.held(&three.who).len(), file.held(&two.who).len()), (1, 0));
        file.release(&three.who);
        let classes: Vec<_> = file.dump().into_iter().map(|lock| lock.who.class).collect();
        assert_eq!(classes, [Class::Process]);
    }
}

#[test]
fn handles_lock_beside_themselves_and_unlock_exactly() {
    for order in ORDERS {
        let file = RecordLocks::new(order);
        let [one, two] = [1, 2].map(|key| Caller::handle(key, 0));
        let at = |offset, length| Extent::exact(offset, length).unwrap();
        file.set(one, Write, at(0, 10)).unwrap();
        // A read lock can lie upon its own write lock, a write lock upon nothing.
        assert_eq!(file.set(one, Write, at(5, 10)), Err(Error::WouldBlock));
        assert_eq!(soon(file.request(one, Write, at(5, 10))), Err(Error::WouldBlock), "it would wait for itself");
        file.set(one, Read, at(0, 10)).unwrap();
        assert_eq!(file.set(two, Read, at(9, 1)), Err(Error::WouldBlock));
        assert_eq!(file.unlock(one, at(0, 5)), Err(Error::NotLocked));
        file.unlock(one, at(0, 10)).unwrap(); // the one for writing goes first
        file.set(two, Read, at(9, 1)).unwrap();
        assert_eq!(file.set(two, Write, at(9, 1)), Err(Error::WouldBlock));
        file.unlock(one, at(0, 10)).unwrap();
        assert_eq!(file.unlock(one, at(0, 10)), Err(Error::NotLocked));
        file.unlock(two, at(9, 1)).unwrap();
        // All of u64, and they conflict with others' POSIX locks.
        file.set(one, Write, at(u64::MAX, 1)).unwrap();
        file.set(one, Write, at(50, 10)).unwrap();
        assert_eq!(file.set(of(1), Read, bytes(55, 56)), Err(Error::WouldBlock));
        let waits = file.request(of(2), Read, bytes(55, 56));
        file.unlock(one, at(50, 10)).unwrap();
        assert_eq!(soon(waits), Ok(()));
        assert_eq!(file.domain().count(&one.who), 1);
        file.release(&one.who);
        assert_eq!(file.domain().count(&one.who), 0);
    }
}

#[test]
fn a_place_is_in_the_way_of_what_covers_both_sides() {
    for order in ORDERS {
        let file = RecordLocks::new(order);
        let [one, two] = [1, 2].map(|key| Caller::handle(key, 0));
        let at = |offset, length| Extent::exact(offset, length).unwrap();
        file.set(one, Write, at(10, 0)).unwrap();
        for (offset, length, is_free) in [(0, 10, true), (10, 5, true), (9, 2, false), (0, 100, false), (10, 0, true)] {
            let answer = file.set(two, Read, at(offset, length));
            assert_eq!(answer.is_ok(), is_free, "{offset}, {length}: {answer:?}");
            let _ = file.unlock(two, at(offset, length));
        }
        file.set(two, Write, at(20, 10)).unwrap();
        assert_eq!(file.set(one, Read, at(25, 0)), Err(Error::WouldBlock));
        file.set(one, Read, at(20, 0)).unwrap();
        file.set(one, Read, at(30, 0)).unwrap();
        let waits = file.request(of(3), Write, bytes(9, 11));
        if order == Order::Kernel {
            assert!(!waits.is_answered());
            file.unlock(one, at(10, 0)).unwrap();
            assert_eq!(soon(waits), Ok(()));
        } else {
            assert_eq!(soon(waits), Err(Error::WouldBlock), "the queue knows no places");
            file.unlock(one, at(10, 0)).unwrap();
            file.set(of(3), Write, bytes(9, 11)).unwrap();
        }
        assert_eq!(file.set(of(3), Write, Extent::exact(1, 0).unwrap()), Err(Error::Invalid), "no handle");
    }
}

#[test]
fn what_is_dumped_can_be_restored() {
    for order in ORDERS {
        let file = RecordLocks::new(order);
        file.set(of(2), Read, bytes(5, 50)).unwrap();
        file.set(of(1), Read, bytes(0, 10)).unwrap();
        file.set(of(2), Write, bytes(60, 70)).unwrap();
        file.set(Caller::description(1), Read, bytes(7, 8)).unwrap();
        file.set(Caller::flock(1, 3), Write, Extent::WHOLE).unwrap();
        let handle = Caller::handle(1, 0);
        file.set(handle, Write, Extent::exact(100, 10).unwrap()).unwrap();
        file.set(handle, Read, Extent::exact(100, 10).unwrap()).unwrap();
        file.set(handle, Write, Extent::exact(200, 0).unwrap()).unwrap();
        let dump = file.dump();
        assert_eq!(dump.len(), 8);
        let next = RecordLocks::new(order);
        next.restore(dump.clone()).unwrap();
        assert_eq!(next.dump(), dump);
        assert_eq!(next.set(of(3), Write, bytes(65, 66)), Err(Error::WouldBlock));
        let (lock, error) = next
            .restore([
                Lock { who: of(3).who, ..dump[0].clone() },
                Lock { who: of(3).who, kind: Write, ..dump[0].clone() },
            ])
            .unwrap_err();
        assert_eq!((lock.kind, error), (Write, Error::WouldBlock));
    }
}

#[test]
fn ranges_are_those_of_struct_flock() {
    let max = i64::MAX;
    let at = |start, len| Extent::new(start, len).map(|extent| (extent.start(), extent.last().unwrap(), extent.len()));
    let end = max as u64;
    for (start, len, expected) in [
        (0, 0, Ok((0, end, 0))),
        (5, 0, Ok((5, end, 0))),
        (5, 10, Ok((5, 14, 10))),
        (5, -5, Ok((0, 4, 5))),
        (5, -6, Err(Error::Invalid)),
        (0, -1, Err(Error::Invalid)),
        (-1, 5, Err(Error::Invalid)),
        (-1, 0, Err(Error::Invalid)),
        (5, i64::MIN, Err(Error::Invalid)),
        (max, 0, Ok((end, end, 0))),
        (max, 1, Ok((end, end, 0))),
        (max, 2, Err(Error::Overflow)),
        (1, max, Ok((1, end, 0))),
        (2, max, Err(Error::Overflow)),
        (max, -max, Ok((0, end - 1, max))),
        (max - 1, 1, Ok((end - 1, end - 1, 1))),
    ] {
        assert_eq!(at(start, len), expected, "{start}, {len}");
    }
    assert_eq!(Extent::relative(10, -3, 5), Extent::new(7, 5));
    assert_eq!(Extent::relative(max, 1, 0), Err(Error::Overflow));
    assert_eq!(Extent::relative(10, -11, 0), Err(Error::Invalid));
    assert_eq!(Extent::exact(u64::MAX, 2), Err(Error::Overflow));
    assert_eq!(Extent::bytes(5..5), Err(Error::Invalid));
    assert_eq!(Extent::bytes(0..=1 << 63), Err(Error::Overflow));
    let file = RecordLocks::new(Order::Kernel);
    let too_far = Extent::exact(1 << 63, 1).unwrap();
    assert_eq!(file.set(of(1), Read, too_far), Err(Error::Invalid), "no file has that byte");
}

#[test]
fn the_map_says_who_holds_and_who_waits() {
    let file = RecordLocks::new(Order::Kernel);
    assert_eq!(file.snapshot().to_string(), "0 locks, 0 waiting");
    file.set(of(1), Write, bytes(0, 4096)).unwrap();
    file.set(of(2), Read, bytes(4096, 8192)).unwrap();
    file.set(Caller::description(7), Read, bytes(8192, 8193)).unwrap();
    let _waits = file.request(of(3), Read, bytes(0, 8192));
    let map = file.snapshot().to_string();
    let lines: Vec<&str> = map.lines().collect();
    assert!(lines[0].starts_with("3 locks, 1 waiting, the longest for "), "{map}");
    assert_eq!(
        lines[2..5],
        [
            "#0 |WWWWWWWWWWWWWWWWWWWWW                                          | 0..4096     write  process 1 (pid 101)",
            "#1 |                     RRRRRRRRRRRRRRRRRRRRR                     | 4096..8192  read   process 2 (pid 102)",
            "#2 |                                          RRRRRRRRRRRRRRRRRRRRR| 8192..8193  read   description 7",
        ],
        "{map}"
    );
    let waits =
        "   |rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr                     | 0..8192     read   process 3 (pid 103), ";
    assert!(lines[5].starts_with(waits) && lines[5].ends_with(", for process 1"), "{map}");
    for key in 10..50 {
        file.set(of(key), Read, bytes(10_000, 20_000)).unwrap();
    }
    let map = file.snapshot().to_string();
    assert!(map.contains("\n... and 19 more who hold\n"), "{map}");
    assert!(format!("{:#}", file.snapshot()).contains("process 49"));
}

#[test]
fn the_counters_count() {
    let file = RecordLocks::new(Order::Kernel);
    file.set(of(1), Write, bytes(0, 10)).unwrap();
    file.set(of(2), Write, bytes(0, 10)).unwrap_err();
    let waits = file.request(of(2), Write, bytes(0, 10));
    file.unlock(of(1), bytes(0, 5)).unwrap();
    file.unlock(of(1), bytes(5, 10)).unwrap();
    soon(waits).unwrap();
    let stats = file.domain().stats();
    assert_eq!((stats.granted, stats.refused, stats.unlocked), (1, 1, 2));
    assert_eq!((stats.waited, stats.granted_later, stats.retried, stats.cancelled), (1, 1, 2, 0));
}

/// Threads that lock, unlock, are cancelled and released: nobody is inside with somebody in conflict, nobody waits for
/// ever, and nothing is left.
#[test]
fn threads_exclude_each_other() {
    const BYTES: usize = 16;
    for order in ORDERS {
        let domain = Domain::new(Options::new().order(order));
        let files = [domain.file(), domain.file()];
        // Readers count up, a writer makes it very small.
        let inside: [[AtomicI64; BYTES]; 2] = Default::default();
        let cancellers: Mutex<Vec<Canceller<u32>>> = Mutex::default();
        let rounds = if cfg!(debug_assertions) { 2_000 } else { 20_000 };
        thread::scope(|s| {
            for key in 0..4 {
                let (domain, files, inside, cancellers) = (&domain, &files, &inside, &cancellers);
                s.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(u64::from(key));
                    let mut mine: Vec<(usize, Kind, u64, u64)> = Vec::new();
                    let leave = |(file, kind, first, end): (usize, Kind, u64, u64)| {
                        let weight = if kind == Read { -1 } else { 1000 };
                        (first..end).for_each(|at| _ = inside[file][at as usize].fetch_add(weight, Ordering::Relaxed));
                    };
                    for _ in 0..rounds {
                        let file = rng.usize(..2);
                        let (first, kind) = (rng.u64(..BYTES as u64), if rng.bool() { Read } else { Write });
                        let end = (first + rng.u64(1..5)).min(BYTES as u64);
                        // What it has there is replaced, and this test does not follow that.
                        if mine.iter().any(|&(f, _, a, b)| f == file && a < end && first < b) || mine.len() > 2 {
                            for held in mine.drain(..) {
                                leave(held);
                                files[held.0].unlock(of(key), bytes(held.2, held.3)).unwrap();
                            }
                        }
                        let answer = if rng.u32(..3) == 0 {
                            files[file].set(of(key), kind, bytes(first, end))
                        } else {
                            let pending = files[file].request(of(key), kind, bytes(first, end));
                            cancellers.lock().unwrap().push(pending.canceller());
                            if rng.u32(..8) == 0 { pollster::block_on(pending) } else { soon(pending) }
                        };
                        match answer {
                            Ok(()) => {
                                let weight = if kind == Read { 1 } else { -1000 };
                                for at in first..end {
                                    let before = inside[file][at as usize].fetch_add(weight, Ordering::Relaxed);
                                    assert!(before == 0 || (before > 0 && kind == Read), "{before} inside");
                                }
                                mine.push((file, kind, first, end));
                            }
                            Err(Error::Deadlock) => {
                                mine.drain(..).for_each(leave);
                                domain.release(&of(key).who);
                            }
                            Err(error) => assert!([Error::WouldBlock, Error::Interrupted].contains(&error), "{error}"),
                        }
                        if rng.u32(..4) == 0 {
                            let some = std::mem::take(&mut *cancellers.lock().unwrap());
                            some.iter().for_each(|canceller| _ = canceller.cancel());
                        }
                    }
                    mine.drain(..).for_each(leave);
                    domain.release(&of(key).who);
                });
            }
        });
        let stats = domain.stats();
        assert!(stats.granted_later > 0 && stats.cancelled > 0, "hollow: {stats:?}");
        assert_eq!(domain.size(), (0, 0));
        assert!(files.iter().all(|file| file.dump().is_empty()));
    }
}

/// What a server keeps and sends between its threads.
#[test]
fn all_can_be_sent() {
    fn sent<T: Send + Sync>() {}
    sent::<RecordLocks<String>>();
    sent::<Domain<String>>();
    sent::<Pending<String>>();
    sent::<Canceller<String>>();
    sent::<Who<String>>();
}
