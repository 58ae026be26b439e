//! Truncate, collapse and insert, and everybody who is on their way to a page: whose bytes are gone, or elsewhere, when
//! they come.

use std::sync::Arc;

use super::{
    LOCKED, P, PAGE, SECTOR, Stage, cached, direct, direct_from, held_by, mapped, on_disk, read, read_all, value,
    waiters,
};
use crate::cache::{File, Read};
use crate::direct::Source;
use crate::error::CacheError;
use crate::file_lock::Variant;
use crate::hooks::{Operation, Point};
use crate::mapping::Mapping;
use crate::queue::Queue;
use crate::tests::check_at_rest;

type Change = fn(&File);

/// Somebody touches page 3 (by a read, a page fault, a store to a mapping), and lingers with what it read; a truncate
/// cuts the page off. I5: the truncate is *exclusive* from its page to the end of all bytes, so it waits; who comes
/// after it finds the end of the file.
#[test]
fn race_14_a_truncate_and_a_page_on_its_way() {
    type Touch = fn(&Arc<File>) -> Result<(), CacheError>;
    let touches: [(Operation, Touch); 3] = [
        (Operation::Read, |file| match file.read(3 * P, &mut [0; PAGE])? {
            Read { bytes: 0, .. } => Err(CacheError::PastEnd { offset: 3 * P, size: file.size() }),
            _ => Ok(()),
        }),
        (Operation::Fault, |file| mapped(file, 3).read(0, &mut [0; PAGE])),
        (Operation::MakeWritable, |file| mapped(file, 3).write(0, &[9; SECTOR])),
    ];
    for (variant, (operation, touch)) in Variant::FOUR.into_iter().flat_map(|v| touches.map(|touch| (v, touch))) {
        let stage = Stage::new(variant);
        let file = stage.file(4);
        let gate = stage.stop_at(Point::Read, operation);
        stage.play(&[&file], |play| {
            let other = play.start("other", || touch(&file));
            play.stands(&gate);
            let truncate = play.start("truncate", || file.truncate(P).unwrap());
            play.held_up_by_lock(&file, &truncate);
            gate.open();
            match (other.join().unwrap(), variant.is_locked() || operation == Operation::MakeWritable) {
                (result, true) => result.expect("it came first"),
                // It looks at the end when the page is there; which is there all the same.
                (result, false) => assert!(matches!(result, Err(CacheError::PastEnd { .. })), "{variant:?}"),
            }
            assert_eq!(truncate.join().unwrap(), 0);
        });
        assert_eq!(file.size(), P);
        assert_eq!(file.cached_from(1), if variant.is_locked() { 0 } else { 1 }, "{variant:?}, {operation:?}");
        if !variant.is_locked() {
            // And it comes to light.
            file.truncate(4 * P).unwrap();
            let mut last = [0; SECTOR];
            file.read(4 * P - SECTOR as u64, &mut last).unwrap();
            assert_eq!(value(&last), 4, "{variant:?}, {operation:?}: what was cut off");
            continue;
        }
        check_at_rest(&file);
        // The other way round.
        file.truncate(4 * P).unwrap();
        let mut page = [0; PAGE];
        file.read(0, &mut page).unwrap();
        let gate = stage.stop_at(Point::WrittenBack, Operation::Truncate);
        stage.play(&[&file], |play| {
            let truncate = play.start("truncate", || file.truncate(100).unwrap());
            play.stands(&gate);
            let other = play.start("other", || touch(&file));
            play.queued(&file, 1, &other);
            gate.open();
            assert!(matches!(other.join().unwrap(), Err(CacheError::PastEnd { .. })), "{variant:?}, {operation:?}");
            assert_eq!(truncate.join().unwrap(), 0);
        });
        check_at_rest(&file);
    }
}

/// A store to a mapping has read its page and lingers; the file is cut off in the middle of that page, and made longer
/// again. I5: what lies behind the cut is zeros from then on; the truncates are *exclusive*, the store holds *add*.
#[test]
fn race_15_a_truncate_down_and_up_and_a_mapped_store() {
    for variant in Variant::FOUR {
        let stage = Stage::new(variant);
        let file = stage.file(4);
        let gate = stage.stop_at(Point::Read, Operation::MakeWritable);
        stage.play(&[&file], |play| {
            play.start("store", || mapped(&file, 1).write(PAGE - 1, &[9]).unwrap());
            play.stands(&gate);
            let truncates = play.start("truncates", || {
                file.truncate(P + 100).unwrap();
                file.truncate(4 * P).unwrap();
            });
            play.held_up_by_lock(&file, &truncates);
            gate.open();
        });
        let mut page = [0; PAGE];
        file.read(P, &mut page).unwrap();
        assert_eq!(value(&page[..100]), 2);
        assert_eq!(value(&page[100..PAGE - 1]), if variant.is_locked() { 0 } else { 2 }, "{variant:?}: was cut off");
        if variant.is_locked() {
            assert_eq!(page[PAGE - 1], 0, "the store came first");
            check_at_rest(&file);
        }
    }
}

/// The first page is taken out, or one is put before it, while somebody fills page 3: before it, with the page from its
/// old place in hand; or while it stands between its invalidation and the disk. I6: it is *exclusive* from its page to
/// the end of all bytes, since all of those move.
#[test]
fn race_16_a_collapse_or_insert_and_a_fill() {
    let changes: [(Operation, Change, u8); 2] = [
        (Operation::Collapse, |file| file.collapse(0, P).unwrap(), 5),
        (Operation::Insert, |file| file.insert(0, P).unwrap(), 3),
    ];
    for (variant, (operation, change, moved)) in
        Variant::FOUR.into_iter().flat_map(|v| changes.map(|change| (v, change)))
    {
        for fill_first in [true, false] {
            let stage = Stage::new(variant);
            let file = stage.file(6);
            let gate = match fill_first {
                true => stage.stop_at(Point::Read, Operation::Read),
                false => stage.stop_at(Point::Invalidated, operation),
            };
            let found = stage.play(&[&file], |play| {
                let fill = || play.start("filler", || read(&file, 3));
                let shift = || play.start("shift", || change(&file));
                if fill_first {
                    let filler = fill();
                    play.stands(&gate);
                    play.held_up_by_lock(&file, &shift());
                    gate.open();
                    filler.join().unwrap()
                } else {
                    shift();
                    play.stands(&gate);
                    let filler = fill();
                    play.held_up_by_lock(&file, &filler);
                    gate.open();
                    filler.join().unwrap()
                }
            });
            let expected = if fill_first || !variant.is_locked() { 4 } else { moved };
            assert_eq!(found, expected, "{variant:?}, {operation:?}");
            assert_eq!(on_disk(&file, 3), moved);
            let expected = if variant.is_locked() { moved } else { 4 };
            assert_eq!(read(&file, 3), expected, "{variant:?}, {operation:?}: from its old place for ever");
            if variant.is_locked() {
                check_at_rest(&file);
            }
        }
    }
}

/// A direct write has copied page 0 from a mapping, and will write it to page 3; a page is put before all of them. I6:
/// either the write is first, or the insert. Both are done "past" the cache, but *exclusive* does not go with *block*:
/// to change the shape is to wait for the direct I/O under way, reads too, whose *add* spans the disk.
#[test]
fn race_17_a_shape_changes_under_direct_io() {
    for variant in Variant::FOUR {
        let stage = Stage::new(variant);
        let file = stage.file(5);
        let gate = stage.stop_at(Point::GotBuffer, Operation::DirectWrite);
        stage.play(&[&file], |play| {
            play.start("writer", || direct_from(&file, 3, &file, 0, 1));
            play.stands(&gate);
            let insert = play.start("insert", || file.insert(0, P).unwrap());
            play.held_up_by_lock(&file, &insert);
            gate.open();
        });
        if variant.is_locked() {
            assert_eq!(read_all(&file), [0, 1, 2, 3, 1, 5], "{variant:?}: the write, then the insert");
            check_at_rest(&file);
        } else {
            // The insert first would have given zeros for page 3.
            assert_eq!(read_all(&file), [0, 1, 2, 1, 4, 5], "{variant:?}: in no order");
        }
    }
    let changes: [(Change, u8); 4] = [
        (|file| file.collapse(0, P).unwrap(), 5),
        (|file| file.insert(0, P).unwrap(), 3),
        (|file| assert_eq!(file.truncate(2 * P).unwrap(), 0), 0),
        (|file| file.punch(3 * P, P).unwrap(), 0),
    ];
    for (variant, (change, seen)) in Variant::FOUR.into_iter().flat_map(|v| changes.map(|change| (v, change))) {
        a_read_in_flight(variant, change, seen);
        if variant.is_locked() {
            a_write_in_flight(variant, change);
        }
    }
}

/// A direct read of page 3 has written back what was dirty and waits for the disk. Without a lock the disk changes
/// under it, and it sees what it did not ask for: `seen` (or the end, shown as 0).
fn a_read_in_flight(variant: Variant, change: Change, seen: u8) {
    let stage = Stage::new(variant);
    let file = stage.file(6);
    let queue = Queue::new(1);
    let plug = held_by(&queue);
    let pending = file.submit_read(3 * P, PAGE, &queue).unwrap();
    let bytes = stage.play(&[&file], |play| {
        let shape = play.start("shape", || change(&file));
        play.held_up_by_lock(&file, &shape);
        drop(plug);
        pending.wait().unwrap()
    });
    let found = if bytes.is_empty() { 0 } else { value(&bytes) };
    assert_eq!(found, if variant.is_locked() { 4 } else { seen }, "{variant:?}");
    if variant.is_locked() {
        check_at_rest(&file);
    }
}

/// A direct write of page 3 waits for the disk.
fn a_write_in_flight(variant: Variant, change: Change) {
    let stage = Stage::new(variant);
    let (file, other) = (stage.file(6), stage.file(6));
    let queue = Queue::new(1);
    let plug = held_by(&queue);
    let pending = file.submit_write(3 * P, Source::Memory(&[9; PAGE]), &queue).unwrap();
    stage.play(&[&file], |play| {
        let shape = play.start("shape", || change(&file));
        play.queued(&file, 1, &shape);
        assert_eq!(file.size(), 6 * P);
        drop(plug);
        pending.wait().unwrap();
    });
    // As one after the other.
    direct(&other, 3, 9);
    change(&other);
    assert_eq!(read_all(&file), read_all(&other), "{variant:?}");
    check_at_rest(&file);
}

/// A direct read of page 0 into a mapping of page 3 of the same file; while it is under way, page 3 is cut off. What a
/// device does to pages that it was given would bring it back. I5: the bytes go to the mapping as a store, with *add*
/// on its page and a look at the end of the file.
#[test]
fn race_19_a_direct_read_into_a_mapping_that_is_cut_off() {
    for variant in Variant::FOUR {
        let stage = Stage::new(variant);
        let file = stage.file(4);
        let gate = stage.stop_at(Point::GotBuffer, Operation::DirectRead);
        let result = stage.play(&[&file], |play| {
            let reader = play.start("reader", || file.read_direct_into(0, &mapped(&file, 3)));
            play.stands(&gate);
            let truncate = play.start("truncate", || file.truncate(P).unwrap());
            match variant {
                Variant::Whole => play.queued(&file, 1, &truncate),
                _ => play.ends_unhindered(&file, &truncate), // the read holds page 0 only
            }
            gate.open();
            reader.join().unwrap()
        });
        assert_eq!(file.size(), P);
        if variant.is_locked() {
            assert!(matches!(result, Err(CacheError::PastEnd { .. })), "{variant:?}: {result:?}");
            assert_eq!(file.cached_from(1), 0, "{variant:?}");
            check_at_rest(&file);
        } else {
            assert_eq!((result.unwrap(), cached(&file, 3)), (PAGE, Some(1)), "{variant:?}: behind the end");
        }
    }
}

/// Who waits is not overtaken for ever, though add goes with add and block with block. Fillers that come after a
/// truncate wait behind it, and a direct write behind a filler that waits for another one. I8: first come, first
/// served. (Without a lock nobody waits.)
#[test]
fn race_22_a_stream_of_one_kind_lets_the_other_in() {
    for variant in LOCKED {
        let stage = Stage::new(variant);
        let file = stage.file(4);
        let (filling, cutting) = (stage.stop("first", Point::Read), stage.stop("truncate", Point::Invalidated));
        stage.play(&[&file], |play| {
            play.start("first", || read(&file, 3));
            play.stands(&filling);
            let truncate = play.start("truncate", || file.truncate(P).unwrap());
            play.queued(&file, 1, &truncate);
            let second = play.start("second", || file.read(3 * P, &mut [0; PAGE]).unwrap());
            play.queued(&file, 2, &second);
            filling.open();
            play.stands(&cutting);
            assert!(!second.is_finished() && waiters(&file) == 1, "{variant:?}: it goes behind the truncate");
            cutting.open();
            assert_eq!(second.join().unwrap().bytes, 0);
        });
        check_at_rest(&file);

        let file = stage.file(1);
        let writing = stage.stop("first", Point::GotBuffer);
        let (filling, late) = (stage.stop("filler", Point::Read), stage.stop("second", Point::Invalidated));
        stage.play(&[&file], |play| {
            play.start("first", || direct(&file, 0, 8));
            play.stands(&writing);
            let filler = play.start("filler", || read(&file, 0));
            play.queued(&file, 1, &filler);
            let second = play.start("second", || direct(&file, 0, 9));
            play.queued(&file, 2, &second);
            writing.open();
            play.stands(&filling);
            assert!(!late.is_reached() && waiters(&file) == 1, "{variant:?}: it goes behind the filler");
            filling.open();
            assert_eq!(filler.join().unwrap(), 8);
            late.open();
        });
        assert_eq!(read(&file, 0), 9);
        check_at_rest(&file);
    }
}

/// A direct write makes the file longer; meanwhile somebody appends. I4: the size and the bytes below it grow together:
/// the write *blocks* the pages up to its end, an append is *exclusive* from the old end on, so it looks at the size
/// when nobody changes it.
#[test]
fn race_24_an_append_and_a_direct_write_that_extends() {
    for variant in Variant::FOUR {
        let stage = Stage::new(variant);
        let file = stage.file(1);
        let gate = stage.stop_at(Point::GotBuffer, Operation::DirectWrite);
        let appended_at = stage.play(&[&file], |play| {
            play.start("writer", || direct(&file, 1, 9));
            play.stands(&gate);
            assert_eq!(file.size(), P, "not before the bytes are there");
            let append = play.start("append", || file.append(&[5; 100]).unwrap());
            play.held_up_by_lock(&file, &append);
            gate.open();
            append.join().unwrap()
        });
        let mut page = [0; PAGE];
        file.read(P, &mut page).unwrap();
        if variant.is_locked() {
            assert_eq!((appended_at, file.size()), (2 * P, 2 * P + 100), "{variant:?}");
            assert_eq!(value(&page), 9);
            check_at_rest(&file);
        } else {
            // Neither order of the two leaves zeros there.
            assert_eq!(
                (appended_at, value(&page[..100]), value(&page[100..])),
                (P, 5, 0),
                "{variant:?}: page 1 is lost"
            );
        }
    }
    for variant in Variant::FOUR {
        two_appends(variant);
    }
    for variant in LOCKED {
        two_that_extend(variant);
        an_extension_that_begins_again(variant);
    }
}

/// An append fills the file's last page, of which there is only a part, and lingers; another one comes.
fn two_appends(variant: Variant) {
    let stage = Stage::new(variant);
    let file = stage.file(2);
    file.truncate(P + 100).unwrap();
    let gate = stage.stop("one", Point::Read);
    let offsets = stage.play(&[&file], |play| {
        let first = play.start("one", || file.append(&[8; 10]).unwrap());
        play.stands(&gate);
        let second = play.start("two", || file.append(&[9; 10]).unwrap());
        play.held_up_by_lock(&file, &second);
        gate.open();
        [first, second].map(|append| append.join().unwrap() - P)
    });
    let expected = if variant.is_locked() { [100, 110] } else { [100, 100] };
    assert_eq!(offsets, expected, "{variant:?}");
    assert_eq!(file.size(), P + expected[1] + 10, "{variant:?}: no byte too many or too few");
    if variant.is_locked() {
        check_at_rest(&file);
    }
}

/// Two direct writes behind the end go together, and the second page is there before the first.
fn two_that_extend(variant: Variant) {
    let stage = Stage::new(variant);
    let file = stage.file(1);
    let gates = ["one", "two"].map(|actor| stage.stop(actor, Point::GotBuffer));
    stage.play(&[&file], |play| {
        play.start("one", || direct(&file, 1, 8));
        let second = play.start("two", || direct(&file, 2, 9));
        gates.iter().for_each(|gate| play.stands_unhindered(gate, &file));
        gates[1].open();
        second.join().unwrap();
        assert_eq!((file.size(), on_disk(&file, 1)), (3 * P, 0), "{variant:?}: a hole");
        gates[0].open();
    });
    assert_eq!(read_all(&file), [1, 8, 9], "{variant:?}");
    check_at_rest(&file);
}

/// A direct write that extends the file, from pages that are not cached and that another one blocks, which needs the
/// file's last sector: one of them begins again, and the size is exact.
fn an_extension_that_begins_again(variant: Variant) {
    let stage = Stage::new(variant);
    let file = stage.file_of_sectors(2);
    let sector = SECTOR as u64;
    file.truncate(P + sector).unwrap();
    let gates = ["extends", "crosses"].map(|actor| stage.stop(actor, Point::Invalidated));
    let source = |offset| Mapping::new(&file, offset, SECTOR);
    stage.play(&[&file], |play| {
        play.start("extends", || file.write_direct(P + sector, Source::Mapped(&source(0))).unwrap());
        play.start("crosses", || file.write_direct(0, Source::Mapped(&source(P))).unwrap());
        gates.iter().for_each(|gate| play.stands_unhindered(gate, &file));
        gates.iter().for_each(|gate| gate.open());
    });
    assert_eq!((file.size(), file.retries()), (P + 2 * sector, 1), "{variant:?}");
    let mut bytes = [0; 2 * PAGE];
    let length = file.read(0, &mut bytes).unwrap().bytes;
    let [first, old, new] = [0, PAGE, PAGE + SECTOR].map(|at| value(&bytes[at..at + SECTOR]));
    assert_eq!((length as u64, old, first), (file.size(), 2, 2), "{variant:?}");
    assert!(new == 1 || new == 2, "{variant:?}: {new}: before the other's write or after it");
    check_at_rest(&file);
}
