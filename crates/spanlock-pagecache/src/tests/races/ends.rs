//! Whoever waits for a range goes on in a file that has changed: what was known of its end before the wait is worth
//! nothing after it. And whoever changes the end keeps everybody out who relies on it.

use std::sync::Arc;

use super::{LOCKED, P, PAGE, Stage, direct, direct_from, held_by, mapped, read, read_all, value, waiters};
use crate::cache::File;
use crate::direct::Source;
use crate::error::CacheError;
use crate::file_lock::Variant;
use crate::hooks::{Operation, Point};
use crate::mapping::Mapping;
use crate::queue::Queue;
use crate::tests::check_at_rest;

/// Where the truncates of these stories cut: into page 2.
const CUT: u64 = 2 * P + 100;

/// `act` has to wait for a truncate of a file of four pages to [`CUT`], which has emptied the cache and not changed the
/// size yet.
fn behind_a_cut<R: Send>(variant: Variant, act: impl FnOnce(&Arc<File>) -> R + Send) -> (R, Arc<File>) {
    let stage = Stage::new(variant);
    let file = stage.file(4);
    let gate = stage.stop_at(Point::Resizing, Operation::Truncate);
    let result = stage.play(&[&file], |play| {
        play.start("truncate", || file.truncate(CUT).unwrap());
        play.stands(&gate);
        assert_eq!(file.size(), 4 * P, "nobody knows yet");
        let actor = play.start("actor", || act(&file));
        play.queued(&file, 1, &actor);
        gate.open();
        actor.join().unwrap()
    });
    check_at_rest(&file);
    (result, file)
}

/// Reads, by whichever way, end where the file ends when they get at the page, not where it ended when they were begun.
#[test]
fn a_read_that_waited_looks_at_the_end_again() {
    fn is_past_end<T>(result: Result<T, CacheError>) -> bool {
        matches!(result, Err(CacheError::PastEnd { size: CUT, .. }))
    }
    for variant in LOCKED {
        let mut page = [0xEE; PAGE];
        let (count, _) = behind_a_cut(variant, |file| file.read(2 * P, &mut page).unwrap().bytes);
        assert_eq!((count, value(&page[..100]), value(&page[100..])), (100, 3, 0xEE), "{variant:?}");

        let mut page = [0xEE; PAGE];
        let (count, _) = behind_a_cut(variant, |file| file.read_direct(2 * P, &mut page).unwrap());
        assert_eq!((count, value(&page[..100]), value(&page[100..])), (100, 3, 0xEE), "{variant:?}");

        // Somebody who has mapped the page: what is behind the end is an error, whoever asks for it.
        let (load, _) = behind_a_cut(variant, |file| mapped(file, 2).read(0, &mut [0; PAGE]));
        assert!(is_past_end(load), "{variant:?}");
        let (store, _) = behind_a_cut(variant, |file| mapped(file, 2).write(200, &[9]));
        assert!(is_past_end(store), "{variant:?}");
        let (write, file) = behind_a_cut(variant, |file| file.write_from(0, &mapped(file, 2)));
        assert!(is_past_end(write), "{variant:?}");
        assert_eq!(read(&file, 0), 1);
        let (write, file) = behind_a_cut(variant, |file| file.write_direct(0, Source::Mapped(&mapped(file, 2))));
        assert!(is_past_end(write), "{variant:?}");
        assert_eq!(read(&file, 0), 1);
        let (part, file) =
            behind_a_cut(variant, |file| file.write_direct(3 * P, Source::Mapped(&Mapping::new(file, 2 * P, PAGE))));
        assert!(is_past_end(part), "{variant:?}");
        assert_eq!(file.size(), CUT);
    }
}

/// What changes the file is done to the file that there is then.
#[test]
fn a_change_that_waited_looks_at_the_end_again() {
    for variant in LOCKED {
        let (at, file) = behind_a_cut(variant, |file| file.append(&[9; 50]).unwrap());
        assert_eq!((at, file.size()), (CUT, CUT + 50), "{variant:?}");
        let ((), file) = behind_a_cut(variant, |file| file.write(3 * P + 5, &[9; 5]).unwrap());
        let mut bytes = [0xEE; 2 * PAGE];
        assert_eq!(file.read(2 * P, &mut bytes).unwrap().bytes, PAGE + 10, "{variant:?}");
        assert_eq!([&bytes[..100], &bytes[100..PAGE + 5], &bytes[PAGE + 5..PAGE + 10]].map(value), [3, 0, 9]);
        let ((), file) = behind_a_cut(variant, |file| direct(file, 3, 9));
        assert_eq!((file.size(), read(&file, 3)), (4 * P, 9), "{variant:?}");
        let (_, file) = behind_a_cut(variant, |file| file.truncate(3 * P).unwrap());
        let mut bytes = [0xEE; PAGE];
        file.read(2 * P, &mut bytes).unwrap();
        assert_eq!((file.size(), value(&bytes[..100]), value(&bytes[100..])), (3 * P, 3, 0), "{variant:?}");
        let ((), file) = behind_a_cut(variant, |file| file.punch(2 * P, 2 * P).unwrap());
        assert_eq!(file.size(), CUT, "{variant:?}: a hole makes no file longer");
        let (collapse, file) = behind_a_cut(variant, |file| file.collapse(2 * P, P));
        assert!(matches!(collapse, Err(CacheError::OutsideFile { size: CUT, .. })), "{variant:?}");
        assert_eq!(file.size(), CUT);
        let (insert, file) = behind_a_cut(variant, |file| file.insert(3 * P, P));
        assert!(matches!(insert, Err(CacheError::OutsideFile { size: CUT, .. })), "{variant:?}");
        assert_eq!(file.size(), CUT);
    }
}

/// A truncate keeps out whoever would make the file longer, also far behind what is cut off.
#[test]
fn nobody_extends_a_file_that_is_being_cut_off() {
    type Extend = fn(&Arc<File>);
    let ways: [Extend; 5] = [
        |file| file.write(5 * P, &[9; PAGE]).unwrap(),
        |file| direct(file, 5, 9),
        |file| direct_from(file, 5, file, 0, 1),
        |file| file.append(&[9; PAGE]).map(drop).unwrap(),
        |file| file.truncate(6 * P).map(drop).unwrap(),
    ];
    for (variant, extend) in LOCKED.into_iter().flat_map(|variant| ways.map(|way| (variant, way))) {
        let ((), file) = behind_a_cut(variant, extend);
        let mut bytes = [0xEE; 6 * PAGE];
        let count = file.read(0, &mut bytes).unwrap().bytes as u64;
        assert_eq!(count, file.size(), "{variant:?}");
        assert!(count == 6 * P || count == CUT + P, "{variant:?}: {count}: not as one after the other");
    }
}

/// An append that waited for a truncate appends to another page than it thought. It holds that one, or another write of
/// the page would go beside it: here one that takes the page from under its fill.
#[test]
fn an_append_behind_a_truncate_holds_its_page() {
    for variant in LOCKED {
        let stage = Stage::new(variant);
        let file = stage.file(4);
        let cutting = stage.stop_at(Point::Resizing, Operation::Truncate);
        let filling = stage.stop("append", Point::Read);
        let end = stage.play(&[&file], |play| {
            play.start("truncate", || file.truncate(100).unwrap());
            play.stands(&cutting);
            let append = play.start("append", || file.append(&[8; 50]).unwrap());
            play.queued(&file, 1, &append);
            cutting.open();
            play.stands(&filling);
            let writer = play.start("writer", || direct(&file, 0, 9));
            play.queued(&file, 1, &writer);
            filling.open();
            append.join().unwrap()
        });
        assert_eq!((end, file.size(), read(&file, 0)), (100, P, 9), "{variant:?}");
        check_at_rest(&file);
    }
}

/// `sync` gives the disk's file its exact size, for which it keeps everybody from the end. If that was moved while it
/// waited, it has the wrong place, and begins again.
#[test]
fn a_sync_behind_a_truncate() {
    for variant in LOCKED {
        let stage = Stage::new(variant);
        let file = stage.file(4);
        file.append(&[9; 50]).unwrap(); // so that the disk will have too much: a whole page
        let cutting = stage.stop_at(Point::Resizing, Operation::Truncate);
        let resizing = stage.stop_at(Point::Resizing, Operation::Sync);
        stage.play(&[&file], |play| {
            play.start("truncate", || file.truncate(P + 100).unwrap());
            play.stands(&cutting);
            let sync = play.start("sync", || file.sync().unwrap());
            play.queued(&file, 1, &sync);
            cutting.open();
            play.until(|| sync.is_finished() || resizing.is_reached());
            assert!(sync.is_finished(), "{variant:?}: it would change the size, and does not hold the end");
        });
        check_at_rest(&file);
    }
}

/// A write and a truncate that share no byte, but a page: that is filled, and goes out of the cache, as a whole.
#[test]
fn a_write_and_a_truncate_meet_in_a_page() {
    for variant in LOCKED {
        let stage = Stage::new(variant);
        let file = stage.file(2);
        let check = || {
            let mut bytes = [0xEE; PAGE];
            assert_eq!(file.read(P, &mut bytes).unwrap().bytes, 100, "{variant:?}");
            assert_eq!((value(&bytes[..50]), value(&bytes[50..100])), (9, 2), "{variant:?}");
            check_at_rest(&file);
        };
        let filling = stage.stop("writer", Point::Read);
        stage.play(&[&file], |play| {
            play.start("writer", || file.write(P, &[9; 50]).unwrap());
            play.stands(&filling);
            let truncate = play.start("truncate", || file.truncate(P + 100).unwrap());
            play.queued(&file, 1, &truncate);
            filling.open();
        });
        check();

        file.write_direct(P, Source::Memory(&[2; PAGE])).unwrap();
        let cutting = stage.stop_at(Point::Resizing, Operation::Truncate);
        stage.play(&[&file], |play| {
            play.start("truncate", || file.truncate(P + 100).unwrap());
            play.stands(&cutting);
            let writer = play.start("writer", || file.write(P, &[9; 50]).unwrap());
            play.queued(&file, 1, &writer);
            cutting.open();
        });
        check();
    }
}

/// A direct write that extends the file has its bytes on the disk, and the size is not there yet: an append would not
/// find the end, and a truncate would be undone. The range is held until the size is known.
#[test]
fn a_direct_write_holds_on_until_the_size_is_there() {
    type Other = fn(&File) -> u64;
    let others: [(Other, u64); 2] =
        [(|file| file.append(&[9; 10]).unwrap(), 2 * P), (|file| file.truncate(P + 100).unwrap() as u64, 0)];
    for (variant, (other, expected)) in LOCKED.into_iter().flat_map(|variant| others.map(|other| (variant, other))) {
        let stage = Stage::new(variant);
        let file = stage.file(1);
        let gate = stage.stop_at(Point::Written, Operation::DirectWrite);
        let result = stage.play(&[&file], |play| {
            play.start("writer", || direct(&file, 1, 8));
            play.stands(&gate);
            assert_eq!(file.size(), P);
            let other = play.start("other", || other(&file));
            play.queued(&file, 1, &other);
            gate.open();
            other.join().unwrap()
        });
        assert_eq!(result, expected, "{variant:?}");
        assert_eq!(file.size(), if expected == 0 { P + 100 } else { 2 * P + 10 }, "{variant:?}");
        check_at_rest(&file);
    }
}

/// A direct read holds *add*, and so does a buffered write that makes the file longer meanwhile, in the cache only. The
/// read sees the file before it or after it: never its length without its bytes.
#[test]
fn a_direct_read_and_a_write_that_extends() {
    for variant in LOCKED {
        let stage = Stage::new(variant);
        let file = stage.file(2);
        file.truncate(P + 100).unwrap();
        let queue = Queue::new(1);
        let plug = held_by(&queue);
        let pending = file.submit_read(P, PAGE, &queue).unwrap();
        file.write(P + 100, &[9; 200]).unwrap();
        assert_eq!((file.size(), waiters(&file)), (P + 300, 0), "{variant:?}: add goes with add");
        drop(plug);
        let bytes = pending.wait().unwrap();
        assert_eq!((bytes.len(), value(&bytes)), (100, 2), "{variant:?}");
        check_at_rest(&file);
    }
}

/// Whoever waits in the fault of its buffer holds nothing of the file that it is going to write.
#[test]
fn a_write_from_a_mapping_holds_nothing_while_it_faults() {
    for variant in LOCKED {
        let stage = Stage::new(variant);
        let (from, to) = (stage.file(2), stage.file(2));
        let gate = stage.stop("writer", Point::Read);
        stage.play(&[&from, &to], |play| {
            play.start("writer", || to.write_from(0, &Mapping::new(&from, 0, 2 * PAGE)).unwrap());
            play.stands(&gate);
            let other = play.start("other", || direct(&to, 0, 9));
            play.ends_unhindered(&to, &other);
            gate.open();
        });
        assert_eq!(read_all(&to), [1, 2], "{variant:?}");
        check_at_rest(&to);
    }
}
