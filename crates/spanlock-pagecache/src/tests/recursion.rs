//! Direct writes whose buffer is a mapping: each way in which they can meet themselves or one another.

use std::sync::Arc;
use std::thread;

use super::{P, check_at_rest, contents, file, gated};
use crate::cache::{Cache, File};
use crate::direct::Source;
use crate::file_lock::Variant;
use crate::hooks::{Gates, Hook, Operation, Point};
use crate::mapping::Mapping;
use crate::queue::Queue;

const LOCKED: [Variant; 2] = [Variant::Whole, Variant::Range];

/// Page `n` holds bytes of `n + 1`.
fn numbered(file: &File, pages: u8) {
    for page in 0..pages {
        file.write(u64::from(page) * P, &[page + 1; P as usize]).unwrap();
    }
}

fn page_of(file: &File, page: usize) -> u8 {
    let bytes = &contents(file)[page * P as usize..(page + 1) * P as usize];
    assert!(bytes.iter().all(|&byte| byte == bytes[0]), "page {page} is torn");
    bytes[0]
}

/// Runs `first` to its invalidation, then `second` to its own, then both to their ends: so both block before either
/// faults. Returns how often they began again.
fn cross(gates: &Gates, first: impl FnOnce() + Send, second: impl FnOnce() + Send) {
    let at = |name: &'static str| {
        gates.stop(move |site| {
            site.point == Point::Invalidated
                && site.operation == Operation::DirectWrite
                && thread::current().name() == Some(name)
        })
    };
    let (one, two) = (at("first"), at("second"));
    thread::scope(|scope| {
        let _guard = gates.open_on_panic();
        thread::Builder::new().name("first".into()).spawn_scoped(scope, first).unwrap();
        thread::Builder::new().name("second".into()).spawn_scoped(scope, second).unwrap();
        one.wait_until_reached();
        two.wait_until_reached();
        one.open();
        two.open();
    });
}

fn write_from(to: &Arc<File>, page: u64, from: &Arc<File>, from_page: u64) {
    to.write_direct(page * P, Source::Mapped(&Mapping::new(from, from_page * P, P as usize))).unwrap();
}

#[test]
fn a_write_from_its_own_range_gets_private_pages() {
    for variant in LOCKED {
        let (file, gates) = gated(variant, 0);
        numbered(&file, 4);
        let gate = gates.stop_at(Point::GotBuffer, Operation::DirectWrite);
        thread::scope(|scope| {
            let _guard = gates.open_on_panic();
            // Pages 1 and 2 from 0 and 1: page 1 is in both.
            scope.spawn(|| {
                file.write_direct(P, Source::Mapped(&Mapping::new(&file, 0, 2 * P as usize))).unwrap();
            });
            gate.wait_until_reached();
            let mut page = [0; P as usize];
            assert!(!file.cached(1, &mut page) && !file.cached(2, &mut page), "nothing entered the cache");
            gate.open();
        });
        assert_eq!([0, 1, 2, 3].map(|page| page_of(&file, page)), [1, 1, 2, 4]);
        assert_eq!(file.retries(), 0);
        check_at_rest(&file);
    }
}

#[test]
fn crossed_ranges_of_one_file_begin_again() {
    for variant in LOCKED {
        let (file, gates) = gated(variant, 0);
        numbered(&file, 2);
        // Under the whole-file lock too: block goes with block, and then each waits for the other's.
        file.evict_all().unwrap();
        cross(&gates, || write_from(&file, 0, &file, 1), || write_from(&file, 1, &file, 0));
        // One read the other's page before it was written, or after: never a third thing.
        let pages = [0, 1].map(|page| page_of(&file, page));
        assert!(pages == [1, 1] || pages == [2, 2], "{variant:?}: {pages:?}: as one after the other");
        assert_eq!(file.retries(), 1, "{variant:?}");
        check_at_rest(&file);
    }
}

#[test]
fn two_self_mapped_writers_of_one_range_begin_again() {
    for variant in LOCKED {
        let (file, gates) = gated(variant, 0);
        numbered(&file, 2);
        cross(&gates, || write_from(&file, 0, &file, 0), || write_from(&file, 0, &file, 0));
        assert_eq!([0, 1].map(|page| page_of(&file, page)), [1, 2]);
        assert_eq!(file.retries(), 1, "{variant:?}");
        check_at_rest(&file);
    }
}

#[test]
fn crossed_files_begin_again() {
    for variant in LOCKED {
        let gates = Gates::new();
        let hook: Arc<dyn Hook> = gates.clone();
        let cache = Cache::new(variant, hook, 0);
        let (a, b) = (super::in_cache(&cache, 0), super::in_cache(&cache, 0));
        numbered(&a, 1);
        b.write(0, &[9; P as usize]).unwrap();
        cross(&gates, || write_from(&a, 0, &b, 0), || write_from(&b, 0, &a, 0));
        let pages = [page_of(&a, 0), page_of(&b, 0)];
        assert!(pages == [1, 1] || pages == [9, 9], "{variant:?}: {pages:?}");
        assert_eq!(a.retries() + b.retries(), 1, "{variant:?}");
        check_at_rest(&a);
        check_at_rest(&b);
    }
}

#[test]
fn another_range_and_another_file_are_ordinary_faults() {
    let (a, b) = (file(Variant::Range, 0), file(Variant::Range, 0));
    numbered(&a, 3);
    numbered(&b, 2);
    a.evict_all().unwrap();
    b.evict_all().unwrap();
    write_from(&a, 0, &a, 2);
    write_from(&a, 1, &b, 0);
    assert_eq!((a.cached_from(0), b.cached_from(0)), (1, 1), "the pages read are cached, those written are not");
    assert_eq!([0, 1, 2].map(|page| page_of(&a, page)), [3, 1, 3]);
    assert_eq!(a.retries() + b.retries(), 0);
}

#[test]
fn a_queued_write_holds_its_range_until_another_thread_is_done() {
    for variant in LOCKED {
        let file = file(variant, 0);
        numbered(&file, 2);
        let queue = Queue::new(2);
        let pending = file.submit_write(0, Source::Mapped(&Mapping::new(&file, P, P as usize)), &queue).unwrap();
        pending.wait().unwrap();
        assert_eq!(page_of(&file, 0), 2);
        let read = file.submit_read(0, P as usize, &queue).unwrap().wait().unwrap();
        assert!(read.iter().all(|&byte| byte == 2));
        let to = Mapping::new(&file, P, P as usize);
        file.write(0, &[7; P as usize]).unwrap();
        assert_eq!(file.submit_read_into(0, &to, &queue).unwrap().wait().unwrap(), P as usize);
        assert_eq!(page_of(&file, 1), 7);
        check_at_rest(&file);
    }
}
