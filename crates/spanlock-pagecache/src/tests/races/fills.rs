//! Those who fill pages, and direct writes: a page that was read before the write must not be cached after it.

use std::sync::Arc;

use super::{LOCKED, P, PAGE, Play, SECTOR, Stage, cached, direct, fault, on_disk, read, waiters, write};
use crate::cache::File;
use crate::direct::Source;
use crate::file_lock::Variant;
use crate::hooks::{Operation, Point};
use crate::tests::check_at_rest;

/// Gets at a page by filling it if need be.
type Fill = fn(&Arc<File>, usize) -> u8;

/// Numbers 1 and 2: `fill` comes while a direct write stands between its invalidation and the disk.
fn a_fill_during_a_direct_write(fill: Fill) {
    for variant in Variant::FOUR {
        let stage = Stage::new(variant);
        let file = stage.file(1);
        let gate = stage.stop_at(Point::Invalidated, Operation::DirectWrite);
        let found = stage.play(&[&file], |play| {
            play.start("writer", || direct(&file, 0, 9));
            play.stands(&gate);
            let filler = play.start("filler", || fill(&file, 0));
            play.held_up_by_lock(&file, &filler);
            assert_eq!(cached(&file, 0).is_some(), !variant.is_locked(), "{variant:?}");
            gate.open();
            filler.join().unwrap()
        });
        assert_eq!(on_disk(&file, 0), 9);
        match variant {
            Variant::None => assert_eq!((found, read(&file, 0)), (1, 1), "the cache stays behind the disk"),
            // The second invalidation is made for this race, and heals it.
            Variant::Twice => assert_eq!((found, read(&file, 0)), (1, 9)),
            _ => {
                assert_eq!((found, read(&file, 0)), (9, 9), "{variant:?}");
                check_at_rest(&file);
            }
        }
    }
}

/// A direct write has emptied the cache; a reader misses, and fills the page from the old disk; the write reaches the
/// disk. I1, I2: the reader's *add* waits for the write's *block*.
#[test]
fn race_01_a_reader_fills_between_invalidation_and_write() {
    a_fill_during_a_direct_write(|file, page| read(file, page));
}

/// The same with a page fault. I1, I2: faults take *add* too.
#[test]
fn race_02_a_fault_fills_between_invalidation_and_write() {
    a_fill_during_a_direct_write(fault);
}

/// A filler has read the old page and lingers; a direct write runs from its beginning to its end; the filler inserts.
/// No number of invalidations helps. I1: *add* spans read and insert, so the write waits.
#[test]
fn race_03_a_fill_stalls_during_a_whole_direct_write() {
    let fills: [(Operation, Fill); 2] = [(Operation::Read, |file, page| read(file, page)), (Operation::Fault, fault)];
    for (variant, (operation, fill)) in Variant::FOUR.into_iter().flat_map(|v| fills.map(|fill| (v, fill))) {
        let stage = Stage::new(variant);
        let file = stage.file(1);
        let gate = stage.stop_at(Point::Read, operation);
        stage.play(&[&file], |play| {
            play.start("filler", || fill(&file, 0));
            play.stands(&gate);
            let writer = play.start("writer", || direct(&file, 0, 9));
            play.held_up_by_lock(&file, &writer);
            gate.open();
        });
        assert_eq!(on_disk(&file, 0), 9);
        if variant.is_locked() {
            assert_eq!(read(&file, 0), 9, "{variant:?}");
            check_at_rest(&file);
        } else {
            assert_eq!(read(&file, 0), 1, "{variant:?}: for ever");
        }
    }
}

/// Somebody reads a page, and read-ahead runs on into pages that a direct write has in hand. I1: read-ahead takes *add*
/// page by page, and ends before the first page that it does not get; and it holds add when it inserts.
#[test]
fn race_06_read_ahead_runs_into_a_direct_write() {
    for variant in Variant::FOUR {
        read_ahead_comes_second(variant);
        read_ahead_comes_first(variant);
    }
}

fn read_ahead_comes_second(variant: Variant) {
    let stage = Stage::with_read_ahead(variant, 4);
    let file = stage.file(6);
    let gate = stage.stop_at(Point::Invalidated, Operation::DirectWrite);
    stage.play(&[&file], |play| {
        play.start("writer", || direct(&file, 2, 9));
        play.stands(&gate);
        let reader = play.start("reader", || read(&file, 0));
        match variant {
            Variant::Whole => play.queued(&file, 1, &reader),
            _ => play.ends_unhindered(&file, &reader),
        }
        let found = [0, 1, 2, 3, 4].map(|page| cached(&file, page));
        match variant {
            Variant::Whole => assert_eq!(found, [None; 5]),
            Variant::Range => assert_eq!(found, [Some(1), Some(2), None, None, None], "up to the block, not past it"),
            _ => assert_eq!(found, [1, 2, 3, 4, 5].map(Some), "{variant:?}"),
        }
        gate.open();
    });
    assert_eq!(on_disk(&file, 2), 9);
    assert_eq!(read(&file, 2), if variant == Variant::None { 3 } else { 9 }, "{variant:?}");
    if variant.is_locked() {
        check_at_rest(&file);
    }
}

fn read_ahead_comes_first(variant: Variant) {
    let stage = Stage::with_read_ahead(variant, 4);
    let file = stage.file(6);
    let gate = stage.stop_at_page(Point::Read, Operation::ReadAhead, 2);
    stage.play(&[&file], |play| {
        play.start("reader", || read(&file, 0));
        play.stands(&gate);
        let writer = play.start("writer", || direct(&file, 2, 9));
        play.held_up_by_lock(&file, &writer);
        gate.open();
    });
    assert_eq!(on_disk(&file, 2), 9);
    assert_eq!(read(&file, 2), if variant.is_locked() { 9 } else { 3 }, "{variant:?}");
    if variant.is_locked() {
        check_at_rest(&file);
    }
}

/// Read-ahead that holds something and *waits* for add, against a writer that blocks and waits for that something: a
/// deadlock. I8: read-ahead only tries. So a reader's miss ends while the writer stands there with block and page lock,
/// and also while a writer is merely queued.
#[test]
fn race_07_read_ahead_does_not_wait_for_a_writer() {
    for variant in LOCKED {
        let stage = Stage::with_read_ahead(variant, 2);
        let file = stage.file(4);
        write(&file, 1, 7); // dirty: the writer's way leads through write-back, under the page lock
        let gate = stage.stop_at(Point::WrittenBack, Operation::DirectWrite);
        stage.play(&[&file], |play| {
            play.start("writer", || direct(&file, 1, 9));
            play.stands(&gate);
            read_beside(play, &file, 0);
            gate.open();
        });
        assert_eq!(file.evict_all().unwrap(), 0);

        let gate = stage.stop_at(Point::Read, Operation::Read);
        stage.play(&[&file], |play| {
            play.start("filler", || read(&file, 1));
            play.stands(&gate);
            let writer = play.start("writer", || direct(&file, 1, 8));
            play.queued(&file, 1, &writer);
            read_beside(play, &file, 1);
            assert_eq!(cached(&file, 1), None, "read-ahead does not overtake the writer");
            gate.open();
        });
        assert_eq!(read(&file, 1), 8);
        check_at_rest(&file);
    }
}

/// Reads page 0, whose read-ahead meets a writer of page 1. Under the range lock that ends at once, and leaves no
/// request.
fn read_beside(play: &Play<'_, '_>, file: &Arc<File>, queued_before: usize) {
    let reader = {
        let file = file.clone();
        play.start("reader", move || read(&file, 0))
    };
    if play.stage.variant == Variant::Whole {
        play.queued(file, queued_before + 1, &reader); // not read-ahead: the read itself waits
        return;
    }
    play.until(|| reader.is_finished() || waiters(file) > queued_before);
    assert!(reader.is_finished(), "read-ahead waits\n{}", file.snapshot());
    assert_eq!(waiters(file), queued_before);
}

/// Two fill one page: both may, and the first insert stays. Between the two the page is written, and somebody tries to
/// evict it: had that worked, the second would insert what it read before the write. I1, I4: eviction is a *block*,
/// tried.
#[test]
fn race_21_two_fillers_of_one_page() {
    for variant in Variant::FOUR {
        let stage = Stage::new(variant);
        let file = stage.file(1);
        let (one, two) = (stage.stop("one", Point::Read), stage.stop("two", Point::Read));
        stage.play(&[&file], |play| {
            let first = play.start("one", || read(&file, 0));
            let second = play.start("two", || read(&file, 0));
            // Both at once: add goes with add.
            play.stands_unhindered(&one, &file);
            play.stands_unhindered(&two, &file);
            let writer = play.start("writer", || write(&file, 0, 9));
            play.ends_unhindered(&file, &writer);
            one.open();
            assert_eq!(first.join().unwrap(), 9, "{variant:?}: the page in the cache is newer than what was read");
            assert_eq!(file.evict(0).unwrap(), !variant.is_locked(), "{variant:?}");
            two.open();
            assert_eq!(second.join().unwrap(), if variant.is_locked() { 9 } else { 1 }, "{variant:?}");
        });
        if variant.is_locked() {
            assert_eq!(read(&file, 0), 9);
            check_at_rest(&file);
        } else {
            assert_eq!((read(&file, 0), on_disk(&file, 0)), (1, 9), "{variant:?}: for ever");
        }
    }
}

/// A direct write of one sector, and a reader of another one of the same page. The bytes do not meet, the page does: it
/// is what is cached. I1: ranges are rounded to whole pages.
#[test]
fn race_26_neighbours_inside_of_a_page() {
    for variant in Variant::FOUR {
        let stage = Stage::new(variant);
        let file = stage.file_of_sectors(1);
        let read_last = || {
            let mut sector = [0; SECTOR];
            file.read(P - SECTOR as u64, &mut sector).unwrap();
            super::value(&sector)
        };
        let write_first = |value| file.write_direct(0, Source::Memory(&[value; SECTOR])).unwrap();
        // The writer first.
        let gate = stage.stop_at(Point::GotBuffer, Operation::DirectWrite);
        stage.play(&[&file], |play| {
            play.start("writer", || write_first(9));
            play.stands(&gate);
            let reader = play.start("reader", read_last);
            play.held_up_by_lock(&file, &reader);
            gate.open();
            assert_eq!(reader.join().unwrap(), 1);
        });
        let expected = if variant == Variant::None { 1 } else { 9 };
        assert_eq!(first_and_last(&file), (expected, 1), "{variant:?}");
        // The reader first.
        file.evict_all().unwrap();
        let gate = stage.stop_at(Point::Read, Operation::Read);
        stage.play(&[&file], |play| {
            play.start("reader", read_last);
            play.stands(&gate);
            let writer = play.start("writer", || write_first(8));
            play.held_up_by_lock(&file, &writer);
            gate.open();
        });
        let expected = if variant.is_locked() { 8 } else { 9 };
        assert_eq!(first_and_last(&file), (expected, 1), "{variant:?}");
        if variant.is_locked() {
            check_at_rest(&file);
        }
    }
}

/// The first and the last byte of page 0.
fn first_and_last(file: &File) -> (u8, u8) {
    let mut page = [0; PAGE];
    file.read(0, &mut page).unwrap();
    (page[0], page[PAGE - 1])
}
