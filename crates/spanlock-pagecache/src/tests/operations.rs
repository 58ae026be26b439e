//! Single promises of the cache: lock-free hits, read-ahead that gives way, eviction, gates.

use std::sync::Arc;
use std::thread;

use super::{P, check_at_rest, contents, file, gated, in_cache};
use crate::cache::{Cache, Read};
use crate::direct::Source;
use crate::file_lock::Variant;
use crate::hooks::{NoHook, Operation, Point};

const PAGE: usize = P as usize;

#[test]
fn a_hit_asks_for_no_lock() {
    let file = file(Variant::Range, 4 * P);
    let mut bytes = [0; 2 * PAGE];
    assert_eq!(file.read(0, &mut bytes).unwrap(), Read { bytes: 2 * PAGE, misses: 2 });
    let before = file.waits().requests;
    assert!(before > 0);
    assert_eq!(file.read(0, &mut bytes).unwrap(), Read { bytes: 2 * PAGE, misses: 0 });
    assert_eq!(file.waits().requests, before);
}

#[test]
fn read_ahead_stops_at_a_blocked_page() {
    let file = in_cache(&Cache::new(Variant::Range, Arc::new(NoHook), 4), 16 * P);
    let mut page = [0; PAGE];
    thread::scope(|scope| {
        let block = file.lock.take(crate::cache::bytes_of(3), spanlock::Mode::Block);
        scope.spawn(|| file.read(0, &mut page).unwrap()).join().unwrap();
        drop(block);
    });
    assert_eq!([0, 1, 2, 3, 4].map(|number| file.cached(number, &mut page)), [true, true, true, false, false]);
    file.read(8 * P, &mut page).unwrap();
    assert_eq!(file.cached_from(8), 5);
    file.read(15 * P, &mut page).unwrap();
    assert_eq!(file.cached_from(15), 1, "there is nothing behind the end");
}

#[test]
fn eviction_leaves_alone_what_is_being_filled() {
    let (file, gates) = gated(Variant::Range, 4 * P);
    let gate = gates.stop_at(Point::Read, Operation::Read);
    thread::scope(|scope| {
        let _guard = gates.open_on_panic();
        scope.spawn(|| file.read(0, &mut [0; PAGE]).unwrap());
        gate.wait_until_reached();
        // Goes with the filler: both add.
        file.write(0, &[5; PAGE]).unwrap();
        assert!(!file.evict(0).unwrap(), "or the filler would insert what it read before");
        gate.open();
    });
    assert!(file.evict(0).unwrap());
    assert!(contents(&file)[..PAGE] == [5; PAGE]);
    check_at_rest(&file);
}

/// The race that it is all about: with a lock the direct write waits for the fill, without one a stale page stays.
#[test]
fn a_stalled_fill_leaves_a_stale_page_only_without_a_lock() {
    for variant in Variant::FOUR {
        let (file, gates) = gated(variant, 0);
        file.write_direct(0, Source::Memory(&[1; PAGE])).unwrap();
        let gate = gates.stop_at(Point::Read, Operation::Read);
        thread::scope(|scope| {
            let _guard = gates.open_on_panic();
            scope.spawn(|| file.read(0, &mut [0; PAGE]).unwrap());
            gate.wait_until_reached();
            let write = scope.spawn(|| file.write_direct(0, Source::Memory(&[2; PAGE])).unwrap());
            if variant.is_locked() {
                while file.snapshot().waiters().len() == 0 {
                    thread::yield_now();
                }
            } else {
                write.join().unwrap();
            }
            gate.open();
        });
        let found = contents(&file)[0];
        assert_eq!(found, if variant.is_locked() { 2 } else { 1 }, "{variant:?}");
    }
}

#[test]
fn appends_of_several_threads_follow_one_another() {
    let file = file(Variant::Range, 0);
    thread::scope(|scope| {
        for number in 1..=4_u8 {
            let file = &file;
            scope.spawn(move || {
                for _ in 0..50 {
                    file.append(&[number; 100]).unwrap();
                }
            });
        }
    });
    assert_eq!(file.size(), 4 * 50 * 100);
    assert!(contents(&file).chunks(100).all(|piece| piece[0] != 0 && piece.iter().all(|&byte| byte == piece[0])));
    check_at_rest(&file);
}
