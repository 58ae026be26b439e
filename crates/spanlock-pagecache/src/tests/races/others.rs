//! Other locks that were built or proposed (`file_lock.rs` says what they are), and which of the races each of them
//! loses.
//!
//! Each story is told once for all variants: one actor stops in the middle, the other goes as far as it comes, the
//! first goes on. Then it is looked whether the file, the cache and what was read are as after one of the two orders.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{P, PAGE, SECTOR, Stage, cached, direct, direct_from, mapped, on_disk, read, read_all, value, waiters};
use crate::cache::File;
use crate::direct::Source;
use crate::file_lock::Variant;
use crate::hooks::{Operation, Point};
use crate::mapping::Mapping;

/// What an actor does; false if it saw what it may not see.
type Act = fn(&Arc<File>) -> bool;

/// One race, on a file of four pages.
#[derive(Clone, Copy)]
struct Story {
    number: u8,
    name: &'static str,
    /// Where the first actor stops.
    stop: (Point, Operation),
    first: Act,
    second: Act,
    /// Whether the file is as it may be when both are done.
    is_right: Act,
}

impl fmt::Debug for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "race {}, {}", self.number, self.name)
    }
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Course {
    /// Whether the second had to wait for the first.
    waited: bool,
    right: bool,
}

fn tell(story: &Story, variant: Variant) -> Course {
    let stage = Stage::with_read_ahead(variant, 2);
    let file = stage.file_of_sectors(4);
    let right = AtomicBool::new(true);
    let note = |saw: bool| {
        right.fetch_and(saw, Ordering::Relaxed);
    };
    let gate = stage.stop_at(story.stop.0, story.stop.1);
    let waited = stage.play(&[&file], |play| {
        let first = play.start("first", || note((story.first)(&file)));
        // Under some locks its way does not lead there: the whole-file lock's faults are all private.
        play.until(|| gate.is_reached() || first.is_finished());
        let second = play.start("second", || note((story.second)(&file)));
        play.until(|| second.is_finished() || waiters(&file) > 0);
        let waited = !second.is_finished();
        gate.open();
        waited
    });
    note((story.is_right)(&file));
    note(what_is_cached_is_on_the_disk(&file));
    Course { waited, right: right.into_inner() }
}

fn what_is_cached_is_on_the_disk(file: &File) -> bool {
    file.sync().unwrap();
    let mut page = [0; PAGE];
    let count = file.page_count();
    let same = |number| !file.cached(number, &mut page) || (page[0], page[PAGE - 1]) == ends_on_disk(file, number);
    file.cached_from(count) == 0 && (0..count).all(same)
}

/// The first and the last byte of a page.
fn ends_on_disk(file: &File, page: usize) -> (u8, u8) {
    let mut bytes = crate::buffer::DiskBuffer::new(PAGE);
    file.device.read(page as u64 * P, &mut bytes).unwrap();
    (bytes[0], bytes[PAGE - 1])
}

/// Writes one sector of page 0 past the cache.
fn direct_sector(file: &Arc<File>) -> bool {
    file.write(7 * SECTOR as u64, &[7; SECTOR]).unwrap(); // its page is dirty
    file.write_direct(0, Source::Memory(&[9; SECTOR])).unwrap();
    true
}

/// Sectors 0, 6 and 7 of page 0, each of which somebody wrote.
fn no_sector_is_lost(file: &Arc<File>) -> bool {
    let mut page = [0; PAGE];
    file.read(0, &mut page).unwrap();
    [0, 6, 7].map(|sector| value(&page[sector * SECTOR..(sector + 1) * SECTOR])) == [9, 6, 7]
}

const STORIES: [Story; 12] = [
    Story {
        number: 1,
        name: "a reader fills between invalidation and write",
        stop: (Point::Invalidated, Operation::DirectWrite),
        first: |file| {
            direct(file, 0, 9);
            true
        },
        second: |file| matches!(read(file, 0), 1 | 9),
        is_right: |file| read(file, 0) == 9,
    },
    Story {
        number: 3,
        name: "a fill stalls during a whole direct write",
        stop: (Point::Read, Operation::Read),
        first: |file| matches!(read(file, 0), 1 | 9),
        second: |file| {
            direct(file, 0, 9);
            true
        },
        is_right: |file| read(file, 0) == 9,
    },
    Story {
        number: 4,
        name: "a buffered write makes the page dirty again",
        stop: (Point::WrittenBack, Operation::DirectWrite),
        first: direct_sector,
        second: |file| file.write(6 * SECTOR as u64, &[6; SECTOR]).is_ok(),
        is_right: no_sector_is_lost,
    },
    Story {
        number: 5,
        name: "a store makes the page dirty again",
        stop: (Point::WrittenBack, Operation::DirectWrite),
        first: direct_sector,
        second: |file| Mapping::new(file, 6 * SECTOR as u64, SECTOR).write(0, &[6; SECTOR]).is_ok(),
        is_right: no_sector_is_lost,
    },
    Story {
        number: 6,
        name: "read-ahead stalls during a whole direct write",
        stop: (Point::Read, Operation::ReadAhead),
        first: |file| read(file, 0) == 1,
        second: |file| {
            direct(file, 1, 9);
            true
        },
        is_right: |file| read(file, 1) == 9,
    },
    Story {
        number: 8,
        name: "a reader meets a write from a mapping of its own pages",
        stop: (Point::GotBuffer, Operation::DirectWrite),
        first: |file| {
            direct_from(file, 1, file, 0, 2);
            true
        },
        second: |file| matches!(read(file, 1), 1 | 2),
        is_right: |file| read_all(file) == [1, 1, 2, 4],
    },
    Story {
        number: 10,
        name: "two writes with crossed ranges",
        stop: (Point::Read, Operation::Fault),
        first: |file| {
            direct_from(file, 1, file, 0, 1);
            true
        },
        second: |file| {
            direct_from(file, 0, file, 1, 1);
            true
        },
        is_right: |file| matches!([0, 1].map(|page| on_disk(file, page)), [1, 1] | [2, 2]),
    },
    Story {
        number: 14,
        name: "a truncate and a page on its way",
        stop: (Point::Read, Operation::Read),
        first: |file| file.read(3 * P, &mut [0; PAGE]).is_ok(),
        second: |file| file.truncate(P).is_ok(),
        is_right: |file| file.cached_from(1) == 0,
    },
    Story {
        number: 16,
        name: "a collapse and a fill",
        stop: (Point::Invalidated, Operation::Collapse),
        first: |file| file.collapse(0, P).is_ok(),
        second: |file| matches!(read(file, 1), 2 | 3),
        is_right: |file| read_all(file) == [2, 3, 4],
    },
    Story {
        number: 17,
        name: "an insert under a direct write",
        stop: (Point::GotBuffer, Operation::DirectWrite),
        first: |file| {
            direct_from(file, 3, file, 0, 1);
            true
        },
        second: |file| file.insert(0, P).is_ok(),
        is_right: |file| matches!(read_all(file)[..], [0, 1, 2, 3, 1] | [0, 1, 2, 0, 4]),
    },
    Story {
        number: 24,
        name: "an append and a direct write that extends",
        stop: (Point::Written, Operation::DirectWrite),
        first: |file| {
            direct(file, 4, 9);
            true
        },
        second: |file| file.append(&[5; 100]).is_ok(),
        is_right: |file| file.size() == 5 * P + 100 && read(file, 4) == 9,
    },
    Story {
        number: 26,
        name: "neighbours inside of a page",
        stop: (Point::GotBuffer, Operation::DirectWrite),
        first: direct_sector,
        second: |file| Mapping::new(file, 6 * SECTOR as u64, SECTOR).write(0, &[6; SECTOR]).is_ok(),
        is_right: no_sector_is_lost,
    },
];

/// The races that each loses. (11, which those with all but a lock of ranges or of the whole file lose for a moment, is
/// told in `recursion.rs`.)
#[test]
fn each_variant_loses_its_races() {
    for (variant, expected) in [
        (Variant::None, &[1, 3, 4, 5, 6, 8, 10, 14, 16, 17, 24, 26][..]),
        (Variant::Twice, &[3, 4, 5, 6, 10, 14, 16, 17, 24, 26]),
        (Variant::Rwsem, &[3, 4, 5, 6, 10, 26]),
        (Variant::Note, &[10]),
        (Variant::Whole, &[]),
        (Variant::Range, &[]),
        (Variant::Lean, &[]),
    ] {
        let lost: Vec<u8> =
            STORIES.iter().filter(|story| !tell(story, variant).right).map(|story| story.number).collect();
        assert_eq!(lost, expected, "{variant:?}");
    }
}

/// What a lock costs those who do not meet: each pair works on different pages. (A change of shape concerns all behind
/// it.)
#[test]
fn who_waits_for_whom_elsewhere() {
    let on =
        |act: Act, other: Act, stop| Story { number: 0, name: "", stop, first: act, second: other, is_right: |_| true };
    let write = (Point::Invalidated, Operation::DirectWrite);
    let miss = (Point::Read, Operation::Read);
    let cut = (Point::Resizing, Operation::Truncate);
    let (writes, reads): (Act, Act) =
        (|file| file.write_direct(0, Source::Memory(&[9; PAGE])).is_ok(), |file| read(file, 2) == 3);
    let (stores, cuts): (Act, Act) =
        (|file| mapped(file, 2).write(0, &[7; PAGE]).is_ok(), |file| file.truncate(3 * P).is_ok());
    let misses: Act = |file| read(file, 0) == 1;
    let pairs = [
        ("a direct write, a miss elsewhere", on(writes, reads, write)),
        ("a direct write, a store elsewhere", on(writes, stores, write)),
        (
            "a miss, a direct write elsewhere",
            on(misses, |file| file.write_direct(2 * P, Source::Memory(&[9; PAGE])).is_ok(), miss),
        ),
        ("a truncate, a miss before it", on(cuts, reads, cut)),
    ];
    for variant in Variant::ALL {
        let waits = pairs.map(|(_, story)| tell(&story, variant).waited);
        let expected = match variant {
            Variant::None | Variant::Twice | Variant::Range | Variant::Lean => [false; 4],
            Variant::Rwsem => [false, false, false, true],
            Variant::Note | Variant::Whole => [true; 4],
        };
        let names = pairs.map(|(name, _)| name);
        assert_eq!(waits, expected, "{variant:?}: {names:?}");
    }
}

/// What a store to a page that is there asks of the lock: something, or nothing.
#[test]
fn what_a_store_to_a_cached_page_asks_for() {
    for (variant, expected) in Variant::ALL.into_iter().zip([0, 0, 1, 1, 1, 1, 0]) {
        let stage = Stage::new(variant);
        let file = stage.file(2);
        read(&file, 0);
        let before = file.waits().requests;
        mapped(&file, 0).write(0, &[9; PAGE]).unwrap();
        assert_eq!(file.waits().requests - before, expected, "{variant:?}");
        // Behind the end there is nothing to store to, whether the page is there or not.
        file.truncate(100).unwrap();
        assert_eq!(file.read(0, &mut [0; PAGE]).unwrap().bytes, 100);
        mapped(&file, 0).write(200, &[9]).unwrap_err();
    }
}

/// Without a lock for stores the page may be dirty again as often as somebody stores to it: each time it is written
/// once more.
#[test]
fn a_page_that_is_dirty_again_is_written_again() {
    let stage = Stage::new(Variant::Lean);
    let file = stage.file(1);
    read(&file, 0);
    let gate = stage.stop_at(Point::WrittenBack, Operation::Evict);
    let again = stage.stop_at(Point::WrittenBack, Operation::Evict);
    stage.play(&[&file], |play| {
        let evict = play.start("evict", || file.evict(0).unwrap());
        for (gate, value) in [(&gate, 7), (&again, 8)] {
            play.stands(gate);
            mapped(&file, 0).write(0, &[value; PAGE]).unwrap();
            gate.open();
        }
        assert!(evict.join().unwrap());
    });
    assert_eq!((cached(&file, 0), on_disk(&file, 0)), (None, 8));
}
