//! The short forms and conversions of the public surface: each does what the long form does, and says so as it is
//! spelled.

mod common;

use common::poll::Hand;
use spanlock::{
    AcquireError, ArcOwnerGuard, ArcThreadGuard, Batch, ByteRange, KeySpace, Mode, Nesting, Owner, OwnerGuard,
    RangeLock, RangeLocked, Recursion, WholeFileLock,
};
#[cfg(feature = "table")]
use spanlock::{AnyLock, LockTable};
use std::error::Error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use Mode::{Add, Block, Exclusive};

const FOREVER: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(2);

#[track_caller]
fn message<T>(call: impl FnOnce() -> T) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(call)) else { panic!("it should have panicked") };
    *panic.downcast::<String>().expect("a message")
}

#[test]
fn tries_with_an_end() {
    let lock = RangeLock::new();
    let other = Owner::new();
    for held in Mode::ALL {
        let _held = lock.request(0..10, held).owner(&other).wait().unwrap();
        for asked in Mode::ALL {
            let (long, until) = match asked {
                Add => (lock.try_add_for(5..6, SHORT), lock.try_add_until(5..6, Instant::now())),
                Block => (lock.try_block_for(5..6, SHORT), lock.try_block_until(5..6, Instant::now())),
                Exclusive => (lock.try_exclusive_for(5..6, SHORT), lock.try_exclusive_until(5..6, Instant::now())),
            };
            for answer in [long, until] {
                match answer {
                    Ok(guard) => assert!(held.goes_with(asked) && guard.mode() == asked),
                    Err(AcquireError::TimedOut(_)) => assert!(!held.goes_with(asked)),
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }
}

#[test]
fn arc_forms_are_the_thread_s() {
    let lock = Arc::new(RangeLock::new());
    let head: ArcThreadGuard = lock.exclusive_arc(0..10);
    let (inner, blocks) = (lock.add_arc(5..6), lock.block_arc(0..1));
    drop(lock.add(0..10)); // the thread's, too
    let tried = [lock.try_add_arc(0..1), lock.try_block_arc(0..1), lock.try_exclusive_arc(0..1)];
    assert!(tried.iter().all(Option::is_some));
    thread::scope(|s| s.spawn(|| assert!(lock.try_exclusive_arc(0..1).is_none())).join().unwrap());
    drop((head, inner, blocks, tried));
    let guard = lock.exclusive_arc(..);
    drop(lock);
    let lock = Arc::try_unwrap(guard.into_lock()).expect("it was the last");
    assert!(lock.try_exclusive(..).is_some(), "released");
}

#[test]
fn a_guard_says_whose_it_is_and_what_it_covers() {
    let lock = Arc::new(RangeLock::named("file"));
    let owner = Owner::named("writer");
    let one: OwnerGuard<'_> = lock.request(0..10, Exclusive).owner(&owner).wait().unwrap();
    let other: ArcOwnerGuard = lock.request_arc(5..6, Add).owner(&owner).wait().unwrap();
    assert_eq!((one.owner(), other.token()), (Some(owner.id()), &owner));
    assert!(one.covers(0..10, Add) && one.covers(9..10, Block) && !one.covers(.., Add) && one.covers(20..20, Add));
    assert!(other.covers(5..6, Add) && !other.covers(5..6, Block) && !other.covers(5..6, Exclusive));
    let said = format!("{one:?}");
    assert_eq!(
        said,
        format!("Guard {{ lock: file, range: 0..10, mode: exclusive, owner: {} \"writer\" }}", owner.id())
    );
    let nothing = lock.add(5..5);
    assert_eq!(nothing.owner(), None);
    assert!(format!("{:?}", *lock).contains("\"file\""));
    assert!(lock.snapshot().to_string().starts_with("file: 2 holding, 0 waiting"), "{}", lock.snapshot());
    assert_eq!(lock.snapshot().lock(), Some("file"));
    assert!(lock.snapshot().requests().iter().all(|request| request.owner_name() == Some("writer")));
    assert!(lock.snapshot().to_string().contains(&format!("{} \"writer\"", owner.id())), "{}", lock.snapshot());
    assert!(lock.request_arc(0..10, Add).timeout(SHORT).wait().is_err());
}

#[test]
fn is_locked_asks_for_somebody_new() {
    let lock = RangeLock::new();
    for held in Mode::ALL {
        let _mine = lock.request(10..20, held).wait().unwrap();
        for asked in Mode::ALL {
            assert_eq!(lock.is_locked(0..11, asked), !held.goes_with(asked), "{held} {asked}");
            assert!(!lock.is_locked(0..10, asked) && !lock.is_locked(20.., asked) && !lock.is_locked(15..15, asked));
        }
    }
    assert!(!lock.is_locked(.., Exclusive));
    let whole = WholeFileLock::new();
    let _held = whole.add();
    assert!(whole.is_locked(Block) && !whole.is_locked(Add));
}

#[test]
fn open_ends_are_the_guard_s() {
    let lock = RangeLock::new();
    let bytes = |start, end| ByteRange::new(start..end);
    let mut guard = lock.exclusive(10..100);
    guard.shrink(20..);
    assert_eq!(guard.range(), bytes(20, 100));
    guard.shrink(..90);
    assert_eq!(guard.range(), bytes(20, 90));
    guard.shrink(..);
    assert_eq!(guard.range(), bytes(20, 90));
    let tail = guard.split_off(50);
    assert_eq!((guard.range(), tail.range()), (bytes(20, 50), bytes(50, 90)));
    assert!(message(|| tail.request(0..1, Add).wait().unwrap().shrink(5..)).contains("5"));
    let (head, rest) = tail.release(60..);
    assert_eq!((head.range(), rest.range()), (bytes(50, 60), ByteRange::EMPTY));
    thread::scope(|s| s.spawn(|| assert!(lock.try_exclusive(60..).is_some())).join().unwrap());
    let mut nothing = rest;
    nothing.shrink(5..);
    nothing.shrink(..);
    assert!(nothing.range().is_empty());
    guard.shrink(..=30);
    assert_eq!(guard.range(), bytes(20, 31));
}

/// It waits its turn, and holds what it held meanwhile.
#[test]
fn a_conversion_that_waits_lets_nobody_in_between() {
    let lock = RangeLock::new();
    let other = lock.request(0..10, Add).owner(&Owner::new()).wait().unwrap();
    let waiting = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut guard = lock.add(0..10);
            waiting.wait();
            guard.convert(Exclusive).unwrap();
            assert!(guard.covers(0..10, Exclusive));
            assert!(lock.snapshot().requests().len() <= 2, "one hold, and perhaps the one who waits");
            waiting.wait();
        });
        waiting.wait();
        while lock.snapshot().waiters().len() == 0 {
            thread::yield_now();
        }
        // It is before who comes now, and still has what it had.
        let mut later = Hand::new(lock.request(0..10, Add));
        later.pending();
        assert_eq!(lock.snapshot().holders().len(), 2);
        drop(other);
        waiting.wait();
        while later.poll().is_pending() {
            thread::yield_now();
        }
    });
    assert!(lock.try_exclusive(..).is_some(), "nothing is left");
}

/// Of two that wait for one another one is told, and the other gets on when that has let go.
#[test]
fn of_two_that_convert_one_is_told() {
    let lock = RangeLock::new();
    let both_hold = Barrier::new(2);
    let outcomes = thread::scope(|scope| {
        let threads = [0, 1].map(|_| {
            scope.spawn(|| {
                let mut guard = lock.add(0..10);
                both_hold.wait();
                match guard.convert(Exclusive) {
                    Ok(()) => true,
                    Err(AcquireError::Deadlock(_)) => {
                        assert_eq!((guard.mode(), guard.range()), (Add, ByteRange::new(0..10)), "as it was");
                        let both = Batch::new().regain(guard).exclusive(&lock, 0..10).wait().unwrap();
                        assert!(both.covers(&lock, 0..10, Exclusive));
                        false
                    }
                    Err(other) => panic!("{other}"),
                }
            })
        });
        threads.map(|thread| thread.join().unwrap())
    });
    assert_ne!(outcomes[0], outcomes[1]);
    assert!(lock.try_exclusive(..).is_some(), "nothing is left");
}

#[test]
fn guards_of_all_kinds_wait_to_become_more() {
    let lock = Arc::new(RangeLock::new());
    let owner = Owner::new();
    let in_the_way = lock.request(10..20, Add).owner(&Owner::new()).wait().unwrap();
    let frees = thread::scope(|scope| {
        let threads = scope.spawn(|| {
            let mut guard = lock.add(0..1);
            guard.extend(0..2).unwrap();
            guard.convert(Exclusive).and_then(|()| guard.extend(0..5)).unwrap();
            assert_eq!((guard.range(), guard.nesting()), (ByteRange::new(0..5), Nesting::Outermost));
        });
        threads.join().unwrap();
        let task = scope.spawn(|| {
            let mut guard = lock.request_arc(9..10, Exclusive).wait();
            guard.extend(9..20).unwrap();
            assert!(lock.request_arc(9..10, Add).try_now().is_none(), "it holds what it held");
            assert!(guard.request(9..19, Add).try_now().is_some(), "and is one owner");
        });
        let of_owner = scope.spawn(|| {
            let mut guard = lock.request(20..21, Block).owner(&owner).wait().unwrap();
            guard.extend(19..21).unwrap();
            assert_eq!(guard.owner(), Some(owner.id()));
        });
        while lock.snapshot().waiters().len() < 2 {
            thread::yield_now();
        }
        drop(in_the_way);
        [task.join(), of_owner.join()]
    });
    frees.into_iter().for_each(|joined| joined.unwrap());
    assert!(lock.try_exclusive(..).is_some(), "nothing is left");
    // Counted out: it is nested in nothing.
    assert_eq!(lock.request(0..1, Add).owner(&owner).wait().unwrap().nesting(), Nesting::Outermost);
    assert_eq!(lock.add(0..1).nesting(), Nesting::Outermost);
}

#[test]
fn byte_ranges_of_other_integers() {
    let want = ByteRange::new(4..10);
    let of: [ByteRange; 5] =
        [(4_u64..10).into(), (4_usize..10).into(), (4_u32..10).into(), (4_i64..10).into(), (4..10).into()];
    assert!(of.iter().all(|&range| range == want));
    assert_eq!([ByteRange::from(4_i64..=9), ByteRange::from(4_u32..=9)], [want; 2]);
    assert_eq!((ByteRange::from(4_usize..), ByteRange::from(..10_i64)), (ByteRange::new(4..), ByteRange::new(..10)));
    assert_eq!((ByteRange::from(..), ByteRange::from(0..=u64::MAX)), (ByteRange::WHOLE, ByteRange::WHOLE));
    assert!(message(|| ByteRange::from(-1_i64..5)).contains("-1"));
    assert!(message(|| ByteRange::from(std::ops::Range { start: 5_usize, end: 4 })).contains("starts at 5"));
    assert_eq!((want.end(), ByteRange::EMPTY.end(), ByteRange::WHOLE.end()), (Some(10), None, Some(1 << 64)));
    let mut sorted = [ByteRange::new(4..9), want, ByteRange::new(..2), ByteRange::new(3..)];
    sorted.sort();
    assert_eq!(sorted, [ByteRange::new(..2), ByteRange::new(3..), ByteRange::new(4..9), want]);
}

#[test]
fn modes_are_spelled_as_the_calls() {
    assert_eq!(Mode::ALL.map(|mode| mode.to_string()), ["add", "block", "exclusive"]);
    assert_eq!(format!("{Add:>5}|"), "  add|");
    for a in Mode::ALL {
        for b in Mode::ALL {
            assert_eq!(a.covers(b), a == b || a == Exclusive, "{a} {b}");
        }
    }
}

/// Whoever finds it in a log knows who asked which lock for what.
#[test]
fn an_error_says_whose_it_is_and_of_which_lock() {
    let late = |answer: Result<(), AcquireError>| match answer {
        Err(AcquireError::TimedOut(late)) => late,
        other => panic!("it is held, and was answered {other:?}"),
    };
    let (named, nameless) = (Arc::new(RangeLock::named("inode 17")), RangeLock::new());
    let (holder, reader) = (Owner::new(), Owner::named("reader"));
    let _held = named.request(0..10, Exclusive).owner(&holder).wait().unwrap();
    let _more = nameless.request(.., Exclusive).owner(&holder).wait().unwrap();
    let past = Instant::now();

    // At once and after a wait; of a token, a thread and a task.
    for timeout in [Duration::ZERO, SHORT] {
        let of_token = late(named.request(4..20, Add).owner(&reader).timeout(timeout).wait().map(drop));
        let [asked] = of_token.asked() else { panic!("{of_token:?}") };
        assert_eq!((&*asked.lock, asked.range, asked.mode), ("inode 17", ByteRange::new(4..20), Add));
        assert_eq!((of_token.owner().id, of_token.owner().name.as_deref()), (reader.id(), Some("reader")));
        assert_eq!(
            of_token.to_string(),
            format!("{} \"reader\" was not granted 4..20 (add) of inode 17 before the deadline", reader.id())
        );
        let of_thread = late(nameless.try_block_for(.., timeout).map(drop));
        let mine = RangeLock::new();
        assert_eq!(Some(of_thread.owner().id), mine.add(..).owner());
        assert_eq!(of_thread.owner().name.as_deref(), thread::current().name());
        assert!(of_thread.asked()[0].lock.starts_with("lock@0x"), "{of_thread}");
        let of_task = late(named.request_arc(0..1, Block).timeout(timeout).wait().map(drop));
        assert!(of_task.owner().name.is_none() && of_task.to_string().starts_with("task "), "{of_task}");
    }

    // A batch names what it asked for, and no empty part.
    let parts = || Batch::new().add(&*named, 0..5).block(&nameless, 7..7).exclusive(&nameless, 1..2).owner(&reader);
    for answer in [parts().deadline(past).wait(), parts().timeout(SHORT).wait()] {
        let batch = late(answer.map(drop));
        let asked: Vec<_> = batch.asked().iter().map(|asked| (asked.range, asked.mode)).collect();
        assert_eq!(asked, [(ByteRange::new(0..5), Add), (ByteRange::new(1..2), Exclusive)]);
        let lines: Vec<String> = batch.to_string().lines().map(str::to_owned).collect();
        assert!(lines[0].ends_with("\"reader\" was not granted 2 ranges at once before the deadline:"), "{batch}");
        assert_eq!(lines[1], "  0..5 (add) of inode 17");
        assert!(lines[2].starts_with("  1..2 (exclusive) of lock@0x") && lines.len() == 3, "{batch}");
    }

    // And what an owner has in its own way.
    let again = named.request(5..15, Block).owner(&holder).recursion(Recursion::Refuse).wait();
    let Err(AcquireError::WouldRecurse(own)) = again else { panic!("{again:?}") };
    assert_eq!((own.owner().id, own.lock()), (holder.id(), "inode 17"));
    assert_eq!((own.held(), own.mode()), (ByteRange::new(0..10), Exclusive));
    let data = RangeLocked::new(vec![0; 10]);
    let writer = Owner::named("writer");
    let _slice = data.writing(0..5).owner(&writer).wait().unwrap();
    let again = data.reading(4..6).owner(&writer).wait();
    let Err(AcquireError::WouldRecurse(own)) = again else { panic!("{again:?}") };
    assert_eq!(own.owner().name.as_deref(), Some("writer"));
    assert_eq!((own.held(), own.mode()), (ByteRange::new(0..5), Exclusive));
}

#[test]
fn errors_of_input_and_output() {
    let lock = RangeLock::new();
    let _held = lock.request(.., Exclusive).owner(&Owner::new()).wait().unwrap();
    let late: io::Error = lock.try_add_for(.., SHORT).unwrap_err().into();
    assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    assert!(late.get_ref().is_some_and(|inner| inner.is::<AcquireError>()));
    let arc = Arc::new(RangeLock::new());
    let _mine = arc.exclusive(..);
    let crossed: io::Error = arc.request_arc(.., Add).timeout(FOREVER).wait().unwrap_err().into();
    assert_eq!(crossed.kind(), io::ErrorKind::Deadlock);
    assert!(crossed.to_string().contains("exclusive") && crossed.source().is_some(), "{crossed}");
}

#[cfg(feature = "table")]
#[test]
fn batches_of_different_kinds() {
    let (here, shared, table) = (RangeLock::new(), Arc::new(RangeLock::new()), LockTable::<String>::new());
    let parts = Batch::new()
        .exclusive(AnyLock::from(&here), 0..10)
        .block(AnyLock::from(shared.clone()), 0..10)
        .add(AnyLock::from(table.lock("a".to_string())), 0..10);
    let guards = parts.clone().wait().unwrap();
    assert!(guards.covers(&shared, 0..10, Block) && !guards.covers(&here, 0..11, Add));
    assert!(here.is_locked(.., Add) && shared.is_locked(.., Add) && table.get("a").unwrap().is_locked(.., Block));
    drop((guards, parts));
    assert!(table.is_empty());
    assert!(here.try_exclusive(..).is_some() && shared.try_exclusive(..).is_some());
}

#[cfg(feature = "table")]
#[test]
fn a_table_can_be_looked_through() {
    let table = LockTable::with_names(|key: &String| format!("object {key}"));
    assert!(!table.contains("left") && table.get("left").is_none() && table.is_empty(), "looking makes nothing");
    let (left, right) = (table.add("left".to_string(), 0..10), table.lock("right".to_string()));
    assert!(table.contains("left") && table.contains("right") && !table.contains("middle"));
    assert!(std::ptr::eq(&*table.get("left").unwrap(), left.lock()), "the same lock");
    let mut keys: Vec<String> = table.locks().iter().map(|lock| lock.key().clone()).collect();
    keys.sort();
    assert_eq!(keys, ["left", "right"]);
    let all = table.snapshots();
    let [(lock, snapshot)] = &all[..] else { panic!("{all:?}") };
    assert_eq!((lock.key().as_str(), snapshot.lock(), snapshot.holders().len()), ("left", Some("object left"), 1));
    drop((all, left, right));
    assert!(table.is_empty());
    // Its deadlocks name the key.
    let _held = table.exclusive("left".to_string(), ..);
    let refused = table.request("left".to_string(), .., Add).owner(&Owner::new()).timeout(FOREVER).wait().unwrap_err();
    assert!(refused.to_string().contains("asks object left for"), "{refused}");
}

#[test]
fn keys_between_two() {
    let orders = KeySpace::between(b"order/0000000000", b"order/0009999999");
    assert_eq!(orders.prefix(), b"order/000");
    assert!(orders.point("order/0000000001") < orders.point("order/0000000002"));
    assert_eq!(KeySpace::between(b"a", b"b").prefix(), b"");
    assert_eq!(KeySpace::between(b"abc", b"abc").prefix(), b"abc");
    assert!(message(|| KeySpace::between(b"b", b"a")).contains("starts at"));
}
