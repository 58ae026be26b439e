//! What goes wrong: a clear error, a consistent cache, nothing left locked.

use rustix::io::Errno;

use super::{MOST, P, check_at_rest, contents, file};
use crate::direct::Source;
use crate::error::CacheError;
use crate::faults::Call;
use crate::file_lock::Variant;
use crate::mapping::Mapping;
use crate::queue::Queue;

const PAGE: usize = P as usize;

#[test]
fn what_is_not_aligned_is_refused_and_changes_nothing() {
    let file = file(Variant::Range, 0);
    file.write(0, &[1; 3 * PAGE]).unwrap();
    let unit = file.device.unit();
    let refused = [
        file.write_direct(1, Source::Memory(&[2; PAGE])),
        file.write_direct(0, Source::Memory(&[2; 100])),
        file.read_direct(7, &mut [0; PAGE]).map(drop),
        file.collapse(512, P),
        file.insert(0, 100),
    ];
    for refused in refused {
        let Err(error @ CacheError::Unaligned { .. }) = refused else { panic!("{refused:?}") };
        let text = error.to_string();
        assert!(text.contains(&format!("multiples of {unit}")) || text.contains("multiples of 4096"), "{text}");
    }
    assert!(contents(&file) == [1; 3 * PAGE]);
    check_at_rest(&file);
}

#[test]
fn what_does_not_fit_is_refused() {
    let file = file(Variant::Range, 0);
    file.write(0, &[1; 2 * PAGE]).unwrap();
    assert!(matches!(file.write(MOST, &[1]), Err(CacheError::TooLarge { .. })));
    assert!(matches!(file.write(u64::MAX, &[1; 9]), Err(CacheError::TooLarge { .. })));
    assert!(matches!(file.truncate(MOST + 1), Err(CacheError::TooLarge { .. })));
    assert!(matches!(file.insert(0, MOST), Err(CacheError::TooLarge { .. })));
    assert!(matches!(file.insert(2 * P, P), Err(CacheError::OutsideFile { .. })));
    assert!(matches!(file.collapse(P, P), Err(CacheError::OutsideFile { .. })));
    assert_eq!(file.size(), 2 * P);
    check_at_rest(&file);
}

#[test]
fn a_file_that_shrinks_under_a_mapping_is_an_error_of_its_users() {
    let file = file(Variant::Range, 0);
    file.write(0, &[1; 4 * PAGE]).unwrap();
    let mapping = Mapping::new(&file, 2 * P, 2 * PAGE);
    mapping.write(0, &[2; 2 * PAGE]).unwrap();
    file.truncate(3 * P - 10).unwrap();
    assert!(matches!(mapping.read(0, &mut [0; 2 * PAGE]), Err(CacheError::PastEnd { .. })));
    assert!(matches!(mapping.write(PAGE, &[3]), Err(CacheError::PastEnd { .. })));
    assert!(matches!(file.write_direct(0, Source::Mapped(&mapping)), Err(CacheError::PastEnd { .. })));
    assert!(matches!(file.write_from(0, &mapping), Err(CacheError::PastEnd { .. })));
    assert!(contents(&file)[..2 * PAGE] == [1; 2 * PAGE]);
    check_at_rest(&file);
}

#[test]
fn a_read_error_is_reported_and_caches_nothing() {
    let file = file(Variant::Range, 0);
    file.write(0, &[1; 4 * PAGE]).unwrap();
    file.evict_all().unwrap();
    let mut bytes = [0; 4 * PAGE];
    // Half way: the first two pages are there.
    file.read(0, &mut bytes[..2 * PAGE]).unwrap();
    file.device.faults().fail_next(Call::Read, 0, Errno::IO);
    assert!(matches!(file.read(0, &mut bytes), Err(CacheError::Device(_))));
    assert_eq!((file.cached_from(0), file.snapshot().requests().len()), (2, 0));
    // A direct write that cannot read its buffer writes nothing.
    file.device.faults().fail_next(Call::Read, 0, Errno::IO);
    let mapping = Mapping::new(&file, 2 * P, PAGE);
    assert!(matches!(file.write_direct(2 * P, Source::Mapped(&mapping)), Err(CacheError::Device(_))));
    file.device.faults().fail_next(Call::Read, 0, Errno::IO);
    assert!(matches!(file.read_direct(0, &mut bytes), Err(CacheError::Device(_))));
    assert!(contents(&file) == [1; 4 * PAGE]);
    check_at_rest(&file);
}

#[test]
fn a_direct_write_that_ends_early_says_how_far_it_came() {
    let file = file(Variant::Range, 0);
    file.write(0, &[1; 2 * PAGE]).unwrap();
    file.sync().unwrap();
    let queue = Queue::new(1);
    // It would have extended the file by a page, and does by half of one... in whole units.
    file.device.faults().fail_next(Call::Write, PAGE, Errno::NOSPC);
    let error = file.submit_write(P, Source::Memory(&[2; 2 * PAGE]), &queue).unwrap().wait().unwrap_err();
    assert!(matches!(error, CacheError::Short { written, wanted, .. } if (written, wanted) == (P, 2 * P)), "{error}");
    assert_eq!(file.size(), 2 * P);
    assert!(contents(&file) == [[1; PAGE], [2; PAGE]].concat());
    check_at_rest(&file);
    file.device.faults().fail_next(Call::Write, 2 * PAGE, Errno::NOSPC);
    assert!(matches!(file.write_direct(P, Source::Memory(&[3; 3 * PAGE])), Err(CacheError::Short { .. })));
    assert_eq!(file.size(), 3 * P, "what was written belongs to the file");
    assert!(contents(&file) == [[1; PAGE], [3; PAGE], [3; PAGE]].concat());
    check_at_rest(&file);
}

#[test]
fn on_a_full_disk_dirty_pages_stay_dirty() {
    let file = file(Variant::Range, 0);
    file.write(0, &[1; 2 * PAGE]).unwrap();
    type Operation = fn(&std::sync::Arc<crate::cache::File>) -> Result<(), CacheError>;
    let operations: [(&str, Operation); 6] = [
        ("sync", |file| file.sync()),
        ("flush", |file| file.flush().map(drop)),
        ("direct write", |file| file.write_direct(0, Source::Memory(&[9; PAGE]))),
        ("direct read", |file| file.read_direct(0, &mut [9; PAGE]).map(drop)),
        ("collapse", |file| file.collapse(0, P)),
        ("evict", |file| file.evict(0).map(drop)),
    ];
    for (name, operation) in operations {
        file.write(0, &[1]).unwrap(); // dirty again
        file.device.faults().fail_next(Call::Write, 0, Errno::NOSPC);
        let error = operation(&file).unwrap_err();
        assert!(matches!(error, CacheError::Device(_)), "{name}: {error}");
        assert_eq!(file.snapshot().requests().len(), 0, "{name}");
        assert!(contents(&file) == [1; 2 * PAGE], "{name}: nothing is lost");
    }
    check_at_rest(&file);
}

#[test]
fn a_change_of_shape_that_fails_changes_nothing() {
    let file = file(Variant::Range, 0);
    file.write(0, &[1; 4 * PAGE]).unwrap();
    file.sync().unwrap();
    type Operation = fn(&crate::cache::File) -> Result<(), CacheError>;
    let operations: [Operation; 5] = [
        |file| file.truncate(5).map(drop),
        |file| file.truncate(6 * P).map(drop),
        |file| file.punch(0, P),
        |file| file.collapse(0, P),
        |file| file.insert(0, P),
    ];
    for operation in operations {
        file.write(0, &[1; 2 * PAGE]).unwrap();
        file.device.faults().fail_next(Call::Shape, 0, Errno::NOSPC);
        assert!(matches!(operation(&file), Err(CacheError::Device(_))));
        assert_eq!(file.size(), 4 * P);
        assert!(contents(&file) == [1; 4 * PAGE]);
        check_at_rest(&file);
    }
}
