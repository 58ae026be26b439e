//! Dirty pages, and direct I/O: no write that ended is lost, whichever way it went.

use std::sync::Arc;

use super::{P, PAGE, SECTOR, Stage, cached, direct, held_by, mapped, on_disk, read, read_all, value, write};
use crate::cache::File;
use crate::direct::Source;
use crate::file_lock::Variant;
use crate::hooks::{Operation, Point};
use crate::mapping::Mapping;
use crate::queue::Queue;
use crate::tests::check_at_rest;

/// Numbers 4 and 5: a direct write of sector 0 has written its page back, and is about to remove it; `redirty` changes
/// sector 6 of the page. (Sector 7 was dirty before.)
fn a_page_dirty_again(redirty: fn(&Arc<File>, u64, &[u8])) {
    for variant in Variant::FOUR {
        let stage = Stage::new(variant);
        let file = stage.file_of_sectors(1);
        let sector = SECTOR as u64;
        file.write(7 * sector, &[7; SECTOR]).unwrap();
        let gate = stage.stop_at(Point::WrittenBack, Operation::DirectWrite);
        stage.play(&[&file], |play| {
            play.start("writer", || file.write_direct(0, Source::Memory(&[9; SECTOR])).unwrap());
            play.stands(&gate);
            let other = play.start("other", || redirty(&file, 6 * sector, &[6; SECTOR]));
            play.held_up_by_lock(&file, &other);
            gate.open();
        });
        let mut page = [0; PAGE];
        file.read(0, &mut page).unwrap();
        let found = [0, 1, 6, 7].map(|sector| value(&page[sector * SECTOR..(sector + 1) * SECTOR]));
        match variant {
            Variant::None => assert_eq!(found, [9, 1, 1, 7], "sector 6 went with the page"),
            // The page stays, and the second invalidation writes it over what was written past it.
            Variant::Twice => assert_eq!(found, [1, 1, 6, 7], "sector 0 is lost"),
            _ => {
                assert_eq!(found, [9, 1, 6, 7], "{variant:?}");
                check_at_rest(&file);
            }
        }
    }
}

/// A buffered write makes a page dirty between its write-back and its removal by a direct write. I4, I1: whoever makes
/// pages dirty holds *add*, so it waits for the *block*.
#[test]
fn race_04_a_buffered_write_redirties_the_page() {
    a_page_dirty_again(|file, offset, bytes| file.write(offset, bytes).unwrap());
}

/// A store to a mapping does the same. I4: so does "mkwrite", also for a page that is there.
#[test]
fn race_05_a_mapped_store_redirties_the_page() {
    a_page_dirty_again(|file, offset, bytes| Mapping::new(file, offset, bytes.len()).write(0, bytes).unwrap());
}

/// A direct read of a page whose newest bytes are in the cache only, put there by a write or through a mapping. I2, I3:
/// it writes the page back first; that alone gives it, so all variants pass. Its *add* is for the rest of the way: a
/// direct write that begins meanwhile waits for it.
#[test]
fn race_18_a_direct_read_of_a_dirty_page() {
    for variant in Variant::FOUR {
        let stage = Stage::new(variant);
        let file = stage.file(2);
        let mut page = [0; PAGE];
        write(&file, 0, 8);
        assert_eq!(read(&file, 0), 8);
        file.read_direct(0, &mut page).unwrap();
        assert_eq!(value(&page), 8, "{variant:?}: older than what a cached read saw");

        let queue = Queue::new(1);
        let plug = held_by(&queue);
        mapped(&file, 0).write(0, &[9; PAGE]).unwrap();
        let pending = file.submit_read(0, PAGE, &queue).unwrap();
        stage.play(&[&file], |play| {
            let writer = play.start("writer", || direct(&file, 0, 10));
            play.held_up_by_lock(&file, &writer);
            drop(plug);
            let expected = if variant.is_locked() { 9 } else { 10 };
            assert_eq!(value(&pending.wait().unwrap()), expected, "{variant:?}");
        });
        assert_eq!(read(&file, 0), 10);
        if variant.is_locked() {
            check_at_rest(&file);
        }
    }
}

/// Two direct writes, of one range or of two: both hold their *block* at once, and are under way together. (Any other
/// lock that keeps fillers out would put one behind the other.) I1, I4: all that either wrote is there.
#[test]
fn race_20_two_direct_writes_go_together() {
    for (variant, other) in Variant::FOUR.into_iter().flat_map(|variant| [0, 1].map(|page| (variant, page))) {
        let stage = Stage::new(variant);
        let file = stage.file(2);
        write(&file, 0, 7); // dirty: both meet it
        let (one, two) = (stage.stop("one", Point::GotBuffer), stage.stop("two", Point::GotBuffer));
        stage.play(&[&file], |play| {
            let first = play.start("one", || direct(&file, 0, 8));
            play.start("two", || direct(&file, other, 9));
            play.stands_unhindered(&one, &file);
            play.stands_unhindered(&two, &file);
            assert_eq!(cached(&file, 0), None);
            one.open();
            first.join().unwrap();
            assert_eq!(on_disk(&file, 0), 8);
            two.open();
        });
        let expected = if other == 0 { [9, 2] } else { [8, 9] };
        assert_eq!([read(&file, 0), read(&file, 1)], expected, "{variant:?}");
        assert_eq!(file.size(), 2 * P);
        check_at_rest(&file);
    }
}

/// A write-back has taken the bytes of page 1 and not written them: the page counts as clean, and the disk is old.
/// (Write-back holds no range: nothing but the page lock tells of it.)
fn beside_a_write_back(variant: Variant, operation: Operation, act: fn(&Arc<File>)) -> Arc<File> {
    let stage = Stage::new(variant);
    let file = stage.file(4);
    write(&file, 1, 8);
    let (taken, busy) = (stage.stop_at(Point::Taken, Operation::Flush), stage.stop_at(Point::PageBusy, operation));
    stage.play(&[&file], |play| {
        play.start("flush", || file.flush().unwrap());
        play.stands(&taken);
        let actor = play.start("actor", || act(&file));
        play.until(|| busy.is_reached() || actor.is_finished());
        assert!(!actor.is_finished(), "{variant:?}, {operation:?}: it does not wait for the write-back");
        busy.open();
        taken.open();
    });
    let (size, on_disk) = (file.size(), file.device.size_now().unwrap());
    assert!(on_disk <= size.next_multiple_of(P), "{variant:?}, {operation:?}: {on_disk} bytes for a file of {size}");
    check_at_rest(&file);
    file
}

/// Whoever needs the disk to have what is in the cache waits for a write-back that is under way, also where the page is
/// clean: a direct read would see old bytes, a direct write be written over by them, `sync` return too early. I2, I4:
/// the page lock is held until the disk has the bytes.
#[test]
fn a_write_back_under_way_is_waited_for() {
    type Act = fn(&Arc<File>);
    let acts: [(Operation, Act, &[u8]); 8] = [
        (Operation::DirectRead, |file| assert_eq!(read_directly(file, 1), 8), &[1, 8, 3, 4]),
        (Operation::DirectWrite, |file| direct(file, 1, 9), &[1, 9, 3, 4]),
        (
            Operation::Sync,
            |file| {
                file.sync().unwrap();
                assert_eq!(on_disk(file, 1), 8);
            },
            &[1, 8, 3, 4],
        ),
        (
            Operation::Evict,
            |file| {
                assert!(file.evict(1).unwrap());
                assert_eq!(read(file, 1), 8);
            },
            &[1, 8, 3, 4],
        ),
        (Operation::Truncate, |file| file.truncate(P).map(drop).unwrap(), &[1]),
        (Operation::Punch, |file| file.punch(P, P).unwrap(), &[1, 0, 3, 4]),
        (Operation::Collapse, |file| file.collapse(P, P).unwrap(), &[1, 3, 4]),
        (Operation::Insert, |file| file.insert(0, P).unwrap(), &[0, 1, 8, 3, 4]),
    ];
    for (variant, (operation, act, expected)) in Variant::FOUR.into_iter().flat_map(|v| acts.map(|act| (v, act))) {
        let file = beside_a_write_back(variant, operation, act);
        assert_eq!(read_all(&file), expected, "{variant:?}, {operation:?}");
    }
}

/// Reads a page past the cache.
fn read_directly(file: &File, page: u64) -> u8 {
    let mut bytes = [0; PAGE];
    assert_eq!(file.read_direct(page * P, &mut bytes).unwrap(), PAGE);
    value(&bytes)
}
