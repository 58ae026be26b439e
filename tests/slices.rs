//! Promise: slices of a [`RangeLocked`] that overlap are shared. Who has an exclusive one is alone with its elements,
//! its own owner included, whatever threads, tasks, tokens and batches ask for; and the storage changes only when
//! nobody has any.
//!
//! The elements are plain memory: a missing order is a data race there, which ThreadSanitizer reports.
//! `SPANLOCK_STRESS_MS` sets how long each stress test goes on.

mod common;

use common::poll::{Hand, block_on};
use common::stress_time;
use common::watch::Watchdog;
use fastrand::Rng;
use spanlock::{AcquireError, Deadlock, InArc, Mode, Owner, Part, RangeLocked, ReadSlice, WriteSlice};
use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Wake, Waker};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use Mode::{Add, Block, Exclusive};

const fn send<T: Send>() {}
const fn sync<T: Sync>() {}

const _: () = {
    send::<RangeLocked<Vec<u8>>>();
    sync::<RangeLocked<Box<[String]>>>();
    send::<RangeLocked<Vec<std::cell::Cell<u8>>>>();
    send::<WriteSlice<InArc<Vec<u8>>, spanlock::ByTask>>();
    send::<ReadSlice<InArc<Vec<u8>>, spanlock::ByOwner>>();
};

#[track_caller]
fn message<T>(call: impl FnOnce() -> T) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(call)) else { panic!("it should have panicked") };
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast_ref::<&str>().expect("a message").to_string(),
    }
}

#[track_caller]
fn recurses<T>(answer: Result<T, AcquireError>) {
    match answer {
        Err(AcquireError::WouldRecurse { .. }) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a second slice of the same elements"),
    }
}

#[test]
fn slices_are_of_what_was_asked_for() {
    let data = RangeLocked::new((0..10).collect::<Vec<u32>>());
    assert_eq!(data.read(2..4)[..], [2, 3]);
    assert_eq!(data.read(7..)[..], [7, 8, 9]);
    assert_eq!(data.read(..=1)[..], [0, 1]);
    assert_eq!(data.read(..).len(), 10);
    assert!(data.read(5..5).is_empty() && data.read(10..).is_empty() && data.read(99..99).is_empty());
    data.write(3..6).fill(0);
    assert_eq!(data.into_inner(), [0, 1, 2, 0, 0, 0, 6, 7, 8, 9]);
}

#[test]
fn storages_of_all_kinds() {
    let boxed = RangeLocked::new(vec![String::from("a"), String::from("b")].into_boxed_slice());
    boxed.write(1..)[0].push('c');
    let moved = Box::new(boxed);
    assert_eq!(moved.read(..)[1], "bc");
    assert_eq!(*moved.into_inner(), ["a", "bc"]);
    // Nothing to point to.
    let units = RangeLocked::from(vec![(); 5]);
    assert_eq!(units.read(1..4).len(), 3);
    assert_eq!(units.write(..).len(), 5);
    let none = RangeLocked::<Vec<u8>>::default();
    assert!(none.read(..).is_empty());
    assert!(none.write(..).is_empty());
    // What it owns goes with it, once.
    let counted = Arc::new(());
    let data = RangeLocked::new(vec![counted.clone(); 3]);
    drop(data);
    assert_eq!(Arc::strong_count(&counted), 1);
    drop(RangeLocked::new(vec![counted.clone(); 3]).into_inner());
    assert_eq!(Arc::strong_count(&counted), 1);
}

#[cfg(feature = "memmap2")]
#[test]
fn mapped_memory() {
    let data = RangeLocked::new(memmap2::MmapMut::map_anon(8192).unwrap());
    thread::scope(|scope| {
        scope.spawn(|| data.write(..4096).fill(1));
        scope.spawn(|| data.write(4096..).fill(2));
    });
    assert_eq!(data.read(4095..4097)[..], [1, 2]);
    assert!(data.whole().flush().is_ok());
    assert_eq!(data.into_inner()[8191], 2);
}

/// Threads read and write pages of it, and one puts larger maps in its place: the old ones are unmapped, and nobody
/// touches them any more. (A sanitizer watches.)
#[cfg(feature = "memmap2")]
#[test]
fn a_map_is_exchanged_while_others_use_it() {
    const PAGE: usize = 4096;
    let map = |pages: usize| memmap2::MmapMut::map_anon(pages * PAGE).unwrap();
    let data = RangeLocked::new(map(4));
    let writes = [const { AtomicU64::new(0) }; 4];
    let watchdog = Watchdog::new("a_map_is_exchanged_while_others_use_it");
    thread::scope(|scope| {
        for seed in 0..3 {
            let (data, writes, watchdog) = (&data, &writes, &watchdog);
            scope.spawn(move || {
                let mut random = Rng::with_seed(seed);
                for _ in 0..400 {
                    let page = random.usize(..4);
                    let bytes = page * PAGE..(page + 1) * PAGE;
                    if random.bool() {
                        let mut page_of = data.write(bytes);
                        let value = page_of[0].wrapping_add(1);
                        page_of.fill(value);
                        writes[page].fetch_add(1, Relaxed);
                    } else {
                        let page_of = data.read(bytes);
                        assert!(page_of.iter().all(|byte| *byte == page_of[PAGE - 1]), "half of another's write");
                    }
                    watchdog.step();
                }
            });
        }
        scope.spawn(|| {
            for pages in 5..40 {
                let mut all = data.whole();
                let mut larger = map(pages);
                larger[..all.len()].copy_from_slice(&all);
                *all = larger;
            }
        });
    });
    let end = data.into_inner();
    assert_eq!(end.len(), 39 * PAGE);
    for (page, writes) in writes.iter().enumerate() {
        assert_eq!(u64::from(end[page * PAGE]), writes.load(Relaxed) % 256, "a write to page {page} is lost");
    }
    assert!(end[4 * PAGE..].iter().all(|byte| *byte == 0));
}

#[test]
fn out_of_range_panics_and_holds_nothing() {
    let data = RangeLocked::new(vec![0_u8; 10]);
    assert!(message(|| data.read(5..11)).contains("11 is out of range for 10 elements"));
    assert!(message(|| data.write(11..)).contains("start 11"));
    assert!(message(|| data.write(..=usize::MAX)).contains("out of range"));
    assert!(message(|| data.writing(20..30).try_now()).contains("out of range"));
    assert!(message(|| data.parts(&[(0..5, Add), (5..12, Exclusive)])).contains("out of range"));
    assert!(message(|| block_on(async { drop(data.reading(5..11).await) })).contains("out of range"));
    assert!(data.holding().try_now().is_some());
}

/// Nobody has two slices that overlap, if either is exclusive.
#[test]
fn an_owner_is_refused_a_second_slice() {
    let data = Arc::new(RangeLocked::new(vec![0_u8; 10]));
    let owner = Owner::new();
    let (read, write) = (data.read(0..4), data.write(4..8));
    assert!(data.reading(0..4).wait().is_ok() && data.writing(8..).wait().is_ok());
    recurses(data.writing(3..4).wait());
    recurses(data.reading(7..9).wait());
    recurses(data.writing(7..8).wait());
    recurses(data.holding().wait());
    recurses(data.parts(&[(8..9, Exclusive), (3..4, Exclusive)]));
    assert!(data.writing(3..4).try_now().is_none() && data.holding().try_now().is_none());
    let said = message(|| drop(data.write(0..1)));
    assert!(said.contains("refuses recursion"), "{said}");
    drop((read, write));
    let of_token = data.writing(0..4).owner(&owner).wait().unwrap();
    recurses(data.reading(0..1).owner(&owner).wait());
    recurses(Hand::new(data.writing_arc(3..5).owner(&owner)).ready());
    drop(Hand::new(data.writing_arc(4..5).owner(&owner)).ready().unwrap());
    drop(of_token);
    assert!(data.holding().try_now().is_some(), "nothing is left");
}

/// Also one that was asked for before its owner had the other.
#[test]
fn who_has_waited_is_refused_what_its_owner_has_got_meanwhile() {
    let data = Arc::new(RangeLocked::new(vec![0_u8; 10]));
    let owner = Owner::new();
    let in_the_way = data.writing_arc(0..5).wait();
    let mut waits = Hand::new(data.writing_arc(4..6).owner(&owner));
    waits.pending();
    let mut both = Hand::new(data.reading_arc(4..7).owner(&owner));
    both.pending();
    let has = data.writing(5..7).owner(&owner).wait().unwrap();
    drop(in_the_way);
    recurses(waits.ready());
    recurses(both.ready());
    drop(has);
    assert!(data.holding().try_now().is_some(), "nothing is left");
}

#[test]
fn parts_are_granted_together_and_do_not_overlap() {
    let data = RangeLocked::new((0..10).collect::<Vec<u32>>());
    let mut parts = data.parts(&[(8..10, Exclusive), (0..4, Add), (2..6, Add), (7..7, Exclusive)]).unwrap();
    assert_eq!(parts.len(), 4);
    let Part::Read(shared) = &parts[2] else { panic!("{parts:?}") };
    assert_eq!(shared[..], [2, 3, 4, 5]);
    let Part::Write(alone) = &mut parts[0] else { panic!("it was asked for exclusively") };
    alone.swap(0, 1);
    drop(parts);
    assert!(message(|| data.parts(&[(0..4, Add), (3..5, Exclusive)])).contains("overlap"));
    assert!(message(|| data.parts(&[(0..9, Exclusive), (1..2, Add), (8..10, Add)])).contains("overlap"));
    assert!(message(|| data.parts(&[(0..9, Add), (1..2, Add), (8..10, Exclusive)])).contains("overlap"));
    assert!(message(|| data.write_all([0..3, 5..6, 2..3])).contains("overlap"));
    assert!(message(|| data.parts(&[(0..4, Block)])).contains("Block"));
    let [mut a, mut b] = data.write_all([0..1, 9..10]);
    std::mem::swap(&mut a[0], &mut b[0]);
    drop((a, b));
    assert_eq!(data.into_inner(), [8, 1, 2, 3, 4, 5, 6, 7, 9, 0]);
}

/// `..` goes as far as there is something when it is granted.
#[test]
fn the_length_changes_when_nobody_looks() {
    let data = Arc::new(RangeLocked::new(vec![1_u8, 2]));
    let first = data.reading_arc(0..1).wait();
    let mut whole = Hand::new(data.holding_arc());
    whole.pending();
    let mut behind = Hand::new(data.reading_arc(1..));
    behind.pending();
    drop(first);
    let mut storage = whole.ready();
    storage.extend([3; 1000]);
    behind.pending();
    drop(storage);
    assert_eq!(behind.ready().len(), 1001);
    data.whole().truncate(1);
    assert_eq!(data.read(..)[..], [1]);
}

/// Of elements that cannot be printed, too.
#[test]
fn slices_say_which_and_whose_they_are() {
    struct Secret(#[allow(dead_code)] u8);
    let mut data = RangeLocked::new((0..100).map(Secret).collect::<Vec<_>>());
    data.set_name("pages");
    let (reader, writer) = (Owner::named("reader"), Owner::named("writer"));
    let read = data.reading(10..20).owner(&reader).wait().unwrap();
    assert_eq!(
        format!("{read:?}"),
        format!("ReadSlice {{ lock: pages, elements: 10..20, mode: add, owner: {} \"reader\" }}", reader.id())
    );
    // An open end is where the elements end.
    let write = data.writing(90..).owner(&writer).wait().unwrap();
    assert_eq!(
        format!("{write:?}"),
        format!("WriteSlice {{ lock: pages, elements: 90..100, mode: exclusive, owner: {} \"writer\" }}", writer.id())
    );
    assert_eq!(format!("{:?}", data.read(5..5)), "ReadSlice { lock: pages, elements: empty, mode: add }");
    let said = format!("{data:?}");
    assert!(said.starts_with("RangeLocked { storage: alloc::vec::Vec<") && said.contains("Secret>"), "{said}");
    assert!(said.ends_with(r#"lock: RangeLock { name: "pages", holding: 2, waiting: 0, .. }, .. }"#), "{said}");
    let asked = data.writing(15..16);
    assert_eq!(format!("{asked:?}"), "SliceRequest { elements: 15..16, mode: exclusive }");
    drop((read, write, asked));
    let whole = data.holding().owner(&writer).wait().unwrap();
    assert_eq!(
        format!("{whole:?}"),
        format!("WholeStorage {{ lock: pages, elements: 0.., mode: exclusive, owner: {} \"writer\" }}", writer.id())
    );
    drop(whole);
    let part = data.parts(&[(0..1, Add)]).unwrap();
    assert!(
        format!("{part:?}").starts_with("[Read(ReadSlice { lock: pages, elements: 0..1, mode: add, owner: thread ")
    );
}

#[test]
fn what_is_leaked_dangles_nowhere() {
    let mut data = RangeLocked::new(vec![1_u8; 100]);
    std::mem::forget(data.whole());
    assert!(data.reading(0..1).try_now().is_none(), "it is held for good");
    std::mem::forget(data.get_mut());
    data.get_mut().push(7);
    assert_eq!(data.get_mut().len(), 101);
    assert_eq!(data.into_inner().pop(), Some(7));
    let mut data = RangeLocked::new(vec![1_u8; 100]);
    let mut reached = data.get_mut();
    *reached = Vec::new();
    std::mem::forget(reached);
    assert!(data.read(..).is_empty(), "of nothing");
    drop(data.get_mut());
    assert!(data.read(..).is_empty());
    // A slice.
    std::mem::forget(data.write(..));
    assert!(data.reading(..).try_now().is_none());
}

#[test]
fn a_panic_releases_and_poisons_nothing() {
    let data = RangeLocked::new(vec![0_u8; 10]);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut slice = data.write(0..5);
        slice[0] = 1;
        panic!("under it");
    }));
    assert!(panicked.is_err());
    assert_eq!(data.read(..)[0], 1);
}

#[test]
fn tasks_wait_for_slices() {
    let data = Arc::new(RangeLocked::new(vec![0_u8; 10]));
    let write = Hand::new(data.writing_arc(0..5)).ready();
    let mut read = Hand::new(data.reading(4..6));
    read.pending();
    let mut given_up = Hand::new(data.writing(..));
    given_up.pending();
    drop(given_up);
    thread::spawn(move || drop(write)).join().unwrap();
    assert_eq!(read.ready().len(), 2);
    let (one, two) = (Owner::named("one"), Owner::named("two"));
    let [_a, _b] =
        [(&one, 0..5), (&two, 5..10)].map(|(owner, range)| data.writing_arc(range).owner(owner).wait().unwrap());
    let mut crosses = Hand::new(data.writing_arc(5..6).owner(&one));
    crosses.pending();
    let Err(AcquireError::Deadlock(cycle)) = Hand::new(data.writing_arc(0..1).owner(&two)).ready() else { panic!() };
    let _: &Deadlock = &cycle;
}

thread_local! {
    static KEPT: RefCell<Option<Box<dyn std::any::Any>>> = const { RefCell::new(None) };
}

/// A waker is foreign code, which may ask for a slice in the middle of a request of its thread for the same elements.
#[test]
fn a_waker_does_not_slip_in() {
    struct Takes(&'static RangeLocked<Vec<u8>>, AtomicBool);
    impl Wake for Takes {
        fn wake(self: Arc<Self>) {
            if let Ok(slice) = self.0.writing(0..5).wait() {
                KEPT.set(Some(Box::new(slice)));
                self.1.store(true, Relaxed);
            }
        }
    }
    let data: &'static RangeLocked<Vec<u8>> = Box::leak(Box::new(RangeLocked::new(vec![0; 10])));
    let takes = Arc::new(Takes(data, AtomicBool::new(false)));
    let waker = Waker::from(takes.clone());
    let held = Hand::new(data.writing(8..9)).ready();
    let mut sleeps = std::future::IntoFuture::into_future(data.reading(8..9));
    let polled = std::pin::Pin::new(&mut sleeps).poll(&mut std::task::Context::from_waker(&waker));
    assert!(polled.is_pending());
    let mine = data.writing(4..6).wait();
    drop(held);
    // The waker was called, by the release, while this thread had `mine`.
    assert!(mine.is_ok() && !takes.1.load(Relaxed), "two exclusive slices of one element");
    drop((mine, sleeps));
    KEPT.take();
    // SAFETY: from `Box::leak`, and nobody has it any more.
    drop(unsafe { Box::from_raw(std::ptr::from_ref(data).cast_mut()) });
}

const CELLS: usize = 16;

/// Each element says how often it was changed: whoever has it alone sees to it that all of his agree at the end of his
/// turn.
fn check_and_change(slice: &mut [u64]) {
    for value in &mut *slice {
        let before = *value;
        *value = before | 1 << 63;
        std::hint::black_box(&mut *value);
        assert_eq!(*value, before | 1 << 63, "somebody else is here");
        *value = before + 1;
    }
}

fn check(slice: &[u64]) {
    assert!(slice.iter().all(|value| value >> 63 == 0), "somebody changes it");
}

/// Waits for workers. (So does their scope, but that order is made in std, where ThreadSanitizer does not see it.)
fn join<'scope>(workers: impl Iterator<Item = ScopedJoinHandle<'scope, ()>>) {
    // All of them start before the first is waited for.
    let workers: Vec<_> = workers.collect();
    workers.into_iter().for_each(|worker| worker.join().expect("a worker found somebody else in its slice"));
}

#[test]
fn stress_slices_of_threads_tasks_and_batches() {
    let data = Arc::new(RangeLocked::new(vec![0_u64; CELLS]));
    let changes = AtomicU64::new(0);
    let watchdog = Watchdog::new("stress_slices_of_threads_tasks_and_batches");
    let end = Instant::now() + stress_time();
    thread::scope(|scope| {
        let worker = |seed| {
            let (data, changes, watchdog) = (&data, &changes, &watchdog);
            scope.spawn(move || {
                let mut rng = Rng::with_seed(seed);
                while Instant::now() < end {
                    watchdog.step();
                    let start = rng.usize(0..CELLS);
                    let range = start..rng.usize(start + 1..=CELLS);
                    let count = range.len() as u64;
                    let changed = match rng.u32(0..8) {
                        0 => {
                            check_and_change(&mut data.write(range));
                            count
                        }
                        1 => {
                            check(&data.read(range));
                            0
                        }
                        2 => {
                            block_on(async { check_and_change(&mut data.writing_arc(range).await) });
                            count
                        }
                        3 => {
                            block_on(async { check(&data.reading(range).await) });
                            0
                        }
                        4 => match data.writing(range).timeout(Duration::from_micros(50)).wait() {
                            Ok(mut slice) => {
                                check_and_change(&mut slice);
                                count
                            }
                            Err(_) => 0,
                        },
                        5 => {
                            let [mut a, mut b] = data.write_all([0..start, start..CELLS]);
                            check_and_change(&mut a);
                            check_and_change(&mut b);
                            CELLS as u64
                        }
                        6 => match data.writing(range).try_now() {
                            Some(mut slice) => {
                                check_and_change(&mut slice);
                                count
                            }
                            None => 0,
                        },
                        // Elsewhere in memory from now on.
                        _ => {
                            let mut whole = data.whole();
                            let copy = whole.clone();
                            *whole = copy;
                            check_and_change(&mut whole);
                            CELLS as u64
                        }
                    };
                    changes.fetch_add(changed, Relaxed);
                }
            })
        };
        join((0..4).map(worker));
    });
    let data = Arc::try_unwrap(data).expect("all have ended").into_inner();
    assert_eq!(data.iter().sum::<u64>(), changes.into_inner(), "no change is lost");
}

/// Threads that ask as one owner: the lock lets all of them in, and the slices do not.
#[test]
fn stress_one_owner_on_several_threads() {
    let data = RangeLocked::new(vec![0_u64; CELLS]);
    let owner = Owner::new();
    let (granted, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let end = Instant::now() + stress_time();
    thread::scope(|scope| {
        let worker = |seed| {
            let (data, owner, granted, refused) = (&data, &owner, &granted, &refused);
            scope.spawn(move || {
                let mut rng = Rng::with_seed(seed);
                while Instant::now() < end {
                    let start = rng.usize(0..4);
                    match data.writing(start..start + 2).owner(owner).wait() {
                        Ok(mut slice) => {
                            check_and_change(&mut slice);
                            granted.fetch_add(2, Relaxed);
                        }
                        Err(AcquireError::WouldRecurse { .. }) => drop(refused.fetch_add(1, Relaxed)),
                        Err(other) => panic!("{other}"),
                    }
                }
            })
        };
        join((0..4).map(worker));
    });
    let (granted, refused) = (granted.into_inner(), refused.into_inner());
    assert!(granted > 0 && refused > 0, "{granted} granted, {refused} refused");
    assert_eq!(data.into_inner().iter().sum::<u64>(), granted, "no change is lost");
}
