//! Direct writes whose buffer is a mapping: they fault while they block, on what others block, and on what they block
//! themselves.

use std::sync::Arc;

use spanlock::{Mode, Owner};

use super::{LOCKED, P, PAGE, Stage, cached, direct_from, held_by, mapped, on_disk, read, read_all, waiters};
use crate::cache::{File, bytes_of};
use crate::direct::Source;
use crate::file_lock::Variant;
use crate::hooks::{Operation, Point};
use crate::queue::Queue;
use crate::tests::check_at_rest;

/// A direct write of pages 1 and 2 from a mapping of 0 and 1: it needs page 1, which it blocks, and which will be
/// stale. I8, I1: its own *block* does not stop it, and the page that it gets is a private one: nobody else sees it.
#[test]
fn race_08_a_write_from_a_mapping_of_its_own_range() {
    for variant in Variant::FOUR {
        let stage = Stage::new(variant);
        let file = stage.file(3);
        let gate = stage.stop_at(Point::GotBuffer, Operation::DirectWrite);
        stage.play(&[&file], |play| {
            play.start("writer", || direct_from(&file, 1, &file, 0, 2));
            play.stands_unhindered(&gate, &file);
            let stale = if variant.is_locked() { None } else { Some(2) };
            assert_eq!([1, 2].map(|page| cached(&file, page)), [stale, None], "{variant:?}");
            gate.open();
        });
        assert_eq!([0, 1, 2].map(|page| on_disk(&file, page)), [1, 1, 2]);
        assert_eq!(read(&file, 1), if variant == Variant::None { 2 } else { 1 }, "{variant:?}");
        // Exactly its own range: it invalidates what was stale, and copies each page to itself.
        direct_from(&file, 0, &file, 0, 3);
        assert_eq!([0, 1, 2].map(|page| on_disk(&file, page)), [1, 1, 2], "{variant:?}");
        assert_eq!(file.retries(), 0);
        if variant.is_locked() {
            check_at_rest(&file);
        }
    }
}

/// The buffer lies elsewhere in the file, or overlaps in part. I1: page 0 of the mapping is its own and private, page 1
/// is somebody's like any other: an ordinary nested *add*, through the cache, that goes beside other fillers.
#[test]
fn race_09_a_write_from_another_part_of_its_file() {
    for variant in Variant::FOUR {
        let stage = Stage::new(variant);
        let file = stage.file(4);
        mapped(&file, 2).write(0, &[9; PAGE]).unwrap(); // only the cache has it
        let gate = stage.stop_at(Point::GotBuffer, Operation::DirectWrite);
        stage.play(&[&file], |play| {
            play.start("writer", || direct_from(&file, 0, &file, 1, 2));
            play.stands_unhindered(&gate, &file);
            let stale = if variant.is_locked() { None } else { Some(2) };
            assert_eq!([0, 1, 2].map(|page| cached(&file, page)), [None, stale, Some(9)], "{variant:?}");
            gate.open();
        });
        assert_eq!(on_disk(&file, 1), 9);
        assert_eq!(read_all(&file), [2, if variant == Variant::None { 2 } else { 9 }, 9, 4], "{variant:?}");
        if variant.is_locked() {
            check_at_rest(&file);
        }
    }
    // Beside another filler of the same page.
    let stage = Stage::new(Variant::Range);
    let file = stage.file(4);
    let (reading, writing) = (stage.stop("reader", Point::Read), stage.stop("writer", Point::GotBuffer));
    stage.play(&[&file], |play| {
        play.start("reader", || read(&file, 3));
        play.stands(&reading);
        play.start("writer", || direct_from(&file, 0, &file, 3, 1));
        play.stands_unhindered(&writing, &file);
        writing.open();
        reading.open();
    });
    assert_eq!(read_all(&file), [4, 2, 3, 4]);
    check_at_rest(&file);
}

/// Two writers that stop when both have their block, and neither its buffer. `first` and `second` are their acts.
fn cross(stage: &Stage, files: &[&Arc<File>], first: impl Fn() + Sync, second: impl Fn() + Sync) {
    let (one, two) = (stage.stop("first", Point::Invalidated), stage.stop("second", Point::Invalidated));
    stage.play(files, |play| {
        play.start("first", &first);
        play.start("second", &second);
        play.stands_unhindered(&one, files[0]);
        play.stands_unhindered(&two, files[0]);
        one.open();
        two.open();
    });
}

/// `second` stalls in its fault, with the old page in hand; `first` runs from its beginning to its end.
fn stall(stage: &Stage, files: &[&Arc<File>], first: impl Fn() + Sync, second: impl Fn() + Sync) {
    let gate = stage.stop("second", Point::Read);
    stage.play(files, |play| {
        play.start("second", &second);
        play.stands(&gate);
        play.start("first", &first).join().unwrap();
        gate.open();
    });
}

/// Inside of one file: one writes page 0 from page 1, the other 1 from 0. Each blocks what the other needs. I8: the
/// lock answers one of them with a deadlock; it lets go, asks for everything at once, and begins again. (Under the
/// whole-file lock too: block goes with block, and then each wants to add.)
#[test]
fn race_10_two_writes_with_crossed_ranges() {
    for variant in Variant::FOUR {
        let stage = Stage::new(variant);
        let file = stage.file(2);
        let (first, second) = (|| direct_from(&file, 0, &file, 1, 1), || direct_from(&file, 1, &file, 0, 1));
        if variant.is_locked() {
            cross(&stage, &[&file], first, second);
            let pages = read_all(&file);
            assert!(pages == [1, 1] || pages == [2, 2], "{variant:?}: {pages:?}: as one after the other");
            assert_eq!(file.retries(), 1, "{variant:?}");
            check_at_rest(&file);
        } else {
            stall(&stage, &[&file], first, second);
            assert_eq!((cached(&file, 0), on_disk(&file, 0)), (Some(1), 2), "{variant:?}: stale for ever");
        }
    }
}

/// Both write pages 1 and 2 from 0 and 1, so that each faults on a page that both block. To ignore one's own block is
/// not enough (I8), and to take no lock for such pages shows an old page to readers although a write is done (I2). Here
/// one begins again; and a reader that comes between the two waits for the second.
#[test]
fn race_11_two_self_mapped_writes_of_one_range() {
    for variant in LOCKED {
        let stage = Stage::new(variant);
        let file = stage.file(3);
        let invalidated = ["first", "second"].map(|actor| stage.stop(actor, Point::Invalidated));
        let sooner = stage.stop_at(Point::GotBuffer, Operation::DirectWrite);
        let later = stage.stop_at(Point::GotBuffer, Operation::DirectWrite);
        stage.play(&[&file], |play| {
            play.start("first", || direct_from(&file, 1, &file, 0, 2));
            play.start("second", || direct_from(&file, 1, &file, 0, 2));
            invalidated.iter().for_each(|gate| play.stands_unhindered(gate, &file));
            invalidated.iter().for_each(|gate| gate.open());
            play.stands(&sooner);
            play.until(|| waiters(&file) > 0); // the other one has begun again
            sooner.open();
            play.stands(&later);
            assert_eq!([1, 2].map(|page| on_disk(&file, page)), [1, 2], "one is done");
            assert_eq!(cached(&file, 1), None);
            let reader = play.start("reader", || read(&file, 1));
            play.queued(&file, 1, &reader);
            assert_eq!(cached(&file, 1), None);
            later.open();
            assert_eq!(reader.join().unwrap(), 1);
        });
        assert_eq!(file.retries(), 1, "{variant:?}");
        check_at_rest(&file);
    }
    for variant in [Variant::None, Variant::Twice, Variant::Rwsem, Variant::Note] {
        let stage = Stage::new(variant);
        let file = stage.file(3);
        let page = bytes_of(1);
        let fault = stage.gates.stop(move |site| {
            site.point == Point::Read && site.range == page && std::thread::current().name() == Some("second")
        });
        let copied = stage.stop("second", Point::GotBuffer);
        stage.play(&[&file], |play| {
            play.start("second", || direct_from(&file, 1, &file, 0, 2));
            play.stands(&fault);
            play.start("first", || direct_from(&file, 1, &file, 0, 2)).join().unwrap();
            fault.open();
            play.stands(&copied);
            assert_eq!((read(&file, 1), on_disk(&file, 1)), (2, 1), "{variant:?}: older than the write that is done");
            copied.open();
        });
    }
}

/// Two files: a write to A from a mapping of B, and one to B from A. I8: as with crossed ranges; the order of
/// locks is the callers' choice here, and no hierarchy could help.
#[test]
fn race_12_two_writes_with_crossed_files() {
    for variant in Variant::FOUR {
        let stage = Stage::new(variant);
        let (a, b) = (stage.file(1), stage.file(2));
        let (first, second) = (|| direct_from(&a, 0, &b, 1, 1), || direct_from(&b, 1, &a, 0, 1));
        if variant.is_locked() {
            cross(&stage, &[&a, &b], first, second);
            let pages = [read(&a, 0), read(&b, 1)];
            assert!(pages == [1, 1] || pages == [2, 2], "{variant:?}: {pages:?}: as one after the other");
            assert_eq!(a.retries() + b.retries(), 1, "{variant:?}");
            check_at_rest(&a);
            check_at_rest(&b);
        } else {
            stall(&stage, &[&a, &b], first, second);
            assert_eq!((cached(&a, 0), on_disk(&a, 0)), (Some(1), 2), "{variant:?}: stale for ever");
        }
    }
}

/// A buffered read of B into a mapping of A, which misses in both; somebody blocks first A, then B (as reflink does).
/// I8: the reader has let go of B when it touches A. Without a lock there is nothing to hang in.
#[test]
fn race_13_a_read_into_a_mapping_against_two_blocks() {
    for variant in LOCKED {
        let stage = Stage::new(variant);
        let (a, b) = (stage.file(1), stage.file(2));
        let gate = stage.stop("reader", Point::Read);
        stage.play(&[&a, &b], |play| {
            play.start("reader", || b.read_into(P, &mapped(&a, 0)).unwrap());
            play.stands(&gate); // with add on B
            let both = play.start("two blocks", || {
                let owner = Owner::named("two blocks");
                let _first = a.lock.take_as(&owner, bytes_of(0), Mode::Block).expect("nothing is held yet");
                let _second = b.lock.take_as(&owner, bytes_of(1), Mode::Block).expect("the reader holds no two");
            });
            play.queued(&b, 1, &both);
            gate.open();
        });
        assert_eq!(read(&a, 0), 2, "{variant:?}");
        check_at_rest(&a);
        check_at_rest(&b);
    }
}

/// A truncate waits for a direct write's *block*; the write then faults, on a page that the truncate wants too.
/// Strictly first come, first served is a deadlock. I8: a nested request waits for those who hold, and passes those who
/// wait for its owner, also through a second file. (Without a lock nobody waits.)
#[test]
fn race_23_a_nested_add_passes_who_waits_for_its_owner() {
    for (variant, from_page) in LOCKED.into_iter().flat_map(|variant| [0, 2].map(|page| (variant, page))) {
        let stage = Stage::new(variant);
        let file = stage.file(3);
        let gate = stage.stop("writer", Point::Invalidated);
        stage.play(&[&file], |play| {
            let writer = play.start("writer", || direct_from(&file, 0, &file, from_page, 1));
            play.stands(&gate);
            let truncate = play.start("truncate", || file.truncate(0).unwrap());
            play.queued(&file, 1, &truncate);
            gate.open();
            writer.join().unwrap();
        });
        assert_eq!((file.size(), file.retries()), (0, 0), "{variant:?}");
        check_at_rest(&file);
    }
    for variant in LOCKED {
        three_in_two_files(variant);
    }
}

/// One holds add on A and wants add on B; a writer blocks B and faults on A; a truncate of A is queued between the two.
fn three_in_two_files(variant: Variant) {
    let stage = Stage::new(variant);
    let (a, b) = (stage.file(1), stage.file(1));
    let gate = stage.stop("writer", Point::Invalidated);
    stage.play(&[&a, &b], |play| {
        let writer = play.start("writer", || direct_from(&b, 0, &a, 0, 1));
        play.stands(&gate);
        let owner = Owner::named("two adds");
        let first = a.lock.take_as(&owner, bytes_of(0), Mode::Add).expect("nothing is held yet");
        let two_adds = play.start("two adds", || {
            let owner = owner; // with its first add, which it lets go of when it has the second
            let _second = b.lock.take_as(&owner, bytes_of(0), Mode::Add).expect("no cycle of holders");
            drop(first);
        });
        play.queued(&b, 1, &two_adds);
        let truncate = play.start("truncate", || a.truncate(0).unwrap());
        play.queued(&a, 1, &truncate);
        gate.open();
        writer.join().unwrap();
    });
    assert_eq!((a.size(), read(&b, 0)), (0, 1), "{variant:?}");
    assert_eq!(a.retries() + b.retries(), 0, "{variant:?}: nobody had to begin again");
    check_at_rest(&a);
    check_at_rest(&b);
}

/// Crossed files once more; before them, readers wait for the very pages. Whoever has to let go lets its reader in,
/// which fills the old page. I1: it invalidates again when it has its block back. (Without a lock nobody lets go.)
#[test]
fn race_25_a_filler_comes_in_when_a_crossed_write_lets_go() {
    for variant in LOCKED {
        let stage = Stage::new(variant);
        let (a, b) = (stage.file(1), stage.file(2));
        let gates = ["first", "second"].map(|actor| stage.stop(actor, Point::Invalidated));
        stage.play(&[&a, &b], |play| {
            play.start("first", || direct_from(&a, 0, &b, 1, 1));
            play.start("second", || direct_from(&b, 1, &a, 0, 1));
            gates.iter().for_each(|gate| play.stands(gate));
            let again = stage.stop_at(Point::Invalidated, Operation::DirectWrite);
            let readers = [("reader of a", &a, 0), ("reader of b", &b, 1)].map(|(name, file, page)| {
                let reader = {
                    let file = file.clone();
                    play.start(name, move || read(&file, page))
                };
                play.queued(file, 1, &reader);
                reader
            });
            gates.iter().for_each(|gate| gate.open());
            play.stands(&again);
            // It stands there with its block back, and its page is gone again. The other write is done, or the page
            // that it copied would still be blocked.
            let (file, page) = if on_disk(&a, 0) == 2 { (&b, 1) } else { (&a, 0) };
            assert_eq!(on_disk(file, page), page as u8 + 1, "{variant:?}: not written yet");
            assert_eq!(cached(file, page), None, "{variant:?}: what its reader filled is removed");
            again.open();
            for reader in readers {
                reader.join().unwrap();
            }
        });
        let pages = [read(&a, 0), read(&b, 1)];
        assert!(pages == [1, 1] || pages == [2, 2], "{variant:?}: {pages:?}");
        assert_eq!([on_disk(&a, 0), on_disk(&b, 1)], pages, "{variant:?}");
        assert_eq!(a.retries() + b.retries(), 1, "{variant:?}");
        check_at_rest(&a);
        check_at_rest(&b);
    }
}

/// Crossed writes of pages 0 and 1, while others of both pages are in flight. Whoever begins again lets go of its own
/// block and waits for *everybody* who blocks its buffer. To keep the block and to read the buffer privately, since one
/// may read what one blocks, would be to copy a page that another is writing: nobody copies anything before those in
/// flight are done.
#[test]
fn who_begins_again_waits_for_all_who_block_its_buffer() {
    for variant in LOCKED {
        let stage = Stage::new(variant);
        let file = stage.file(2);
        let queue = Queue::new(1);
        let plug = held_by(&queue);
        let flights = [8, 9].map(|value| (u64::from(value - 8) * P, [value; PAGE]));
        let flights = flights.map(|(at, page)| file.submit_write(at, Source::Memory(&page), &queue).unwrap());
        let gates = ["first", "second"].map(|actor| stage.stop(actor, Point::Invalidated));
        let copied = ["first", "second"].map(|actor| stage.stop(actor, Point::GotBuffer));
        stage.play(&[&file], |play| {
            play.start("first", || direct_from(&file, 0, &file, 1, 1));
            play.start("second", || direct_from(&file, 1, &file, 0, 1));
            gates.iter().for_each(|gate| play.stands_unhindered(gate, &file));
            gates.iter().for_each(|gate| gate.open());
            // An add, and a batch of a block and an add.
            play.until(|| waiters(&file) == 3 || copied.iter().any(|gate| gate.is_reached()));
            assert_eq!(waiters(&file), 3, "{variant:?}: a buffer was copied\n{}", file.snapshot());
            copied.iter().for_each(|gate| gate.open());
            drop(plug);
        });
        flights.into_iter().for_each(|flight| flight.wait().unwrap());
        let pages = read_all(&file);
        assert!(pages == [8, 8] || pages == [9, 9], "{variant:?}: {pages:?}: as one after the other");
        assert_eq!(file.retries(), 1, "{variant:?}");
        check_at_rest(&file);
    }
}

/// Whoever has begun again holds *add* on its buffer until it has copied it: a direct write of the buffer's page waits.
#[test]
fn who_has_begun_again_keeps_its_buffer_until_it_is_copied() {
    for variant in LOCKED {
        let stage = Stage::new(variant);
        let file = stage.file(2);
        let gates = ["first", "second"].map(|actor| stage.stop(actor, Point::Invalidated));
        stage.play(&[&file], |play| {
            play.start("first", || direct_from(&file, 0, &file, 1, 1));
            play.start("second", || direct_from(&file, 1, &file, 0, 1));
            gates.iter().for_each(|gate| play.stands_unhindered(gate, &file));
            let again = stage.stop_at(Point::Invalidated, Operation::DirectWrite);
            gates.iter().for_each(|gate| gate.open());
            play.stands(&again);
            // The other one is done: both pages are the same now, and its own is the buffer of the one that stands
            // here.
            let buffer = if read_of_disk(&file) == [2, 2] { 0 } else { 1 };
            let writer = {
                let file = file.clone();
                play.start("writer", move || super::direct(&file, buffer, 7))
            };
            play.queued(&file, 1, &writer);
            again.open();
        });
        let pages = read_all(&file);
        assert!(pages == [7, 2] || pages == [1, 7], "{variant:?}: {pages:?}");
        check_at_rest(&file);
    }
}

fn read_of_disk(file: &File) -> [u8; 2] {
    [0, 1].map(|page| on_disk(file, page))
}

/// The fault of a direct write has read its page and not inserted it: it holds *add* on it, nested, so that a direct
/// write of that page waits, or what was read would be inserted behind it.
#[test]
fn a_nested_fault_holds_its_page_until_it_is_filled() {
    for variant in [Variant::Range, Variant::Lean] {
        let stage = Stage::new(variant);
        let file = stage.file(2);
        let gate = stage.stop("faulting", Point::Read);
        stage.play(&[&file], |play| {
            play.start("faulting", || direct_from(&file, 0, &file, 1, 1));
            play.stands(&gate);
            let writer = play.start("writer", || super::direct(&file, 1, 9));
            play.queued(&file, 1, &writer);
            gate.open();
        });
        assert_eq!(read_all(&file), [2, 9], "{variant:?}");
        check_at_rest(&file);
    }
}
