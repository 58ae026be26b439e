//! Tests of the cache as a whole: each operation against a plain buffer, recursion, errors; and the races, one by one.

mod errors;
mod model;
mod operations;
mod races;
mod recursion;

use std::path::PathBuf;
use std::sync::Arc;

use crate::cache::{Cache, File};
use crate::device::{Access, Device, Place};
use crate::file_lock::Variant;
use crate::frame::PAGE;
use crate::hooks::{Gates, Hook, NoHook};

/// The largest file of these tests.
pub(crate) const MOST: u64 = 1 << 20;
pub(crate) const P: u64 = PAGE as u64;

/// Where the tests were built, which is on a disk; what is for temporary files may be memory, and knows no `O_DIRECT`.
pub(crate) fn folder() -> PathBuf {
    let test = std::env::current_exe().expect("it has a file");
    test.parent().expect("in a folder").to_owned()
}

/// A device over a temporary file of `size` bytes.
pub(crate) fn device(size: u64) -> Arc<Device> {
    Arc::new(Device::open(&Place::Temporary { folder: folder() }, size, Access::Direct).expect("a temporary file"))
}

/// A device that takes single sectors on every file system: through the kernel's cache, not by `O_DIRECT`.
pub(crate) fn device_of_sectors() -> Arc<Device> {
    let access = Access::Buffered { because: "the test writes single sectors".into() };
    Arc::new(Device::open(&Place::Temporary { folder: folder() }, 0, access).expect("a temporary file"))
}

/// A cache with one file, where nobody is stopped.
pub(crate) fn file(variant: Variant, size: u64) -> Arc<File> {
    in_cache(&Cache::new(variant, Arc::new(NoHook), 0), size)
}

/// The same, with gates.
pub(crate) fn gated(variant: Variant, size: u64) -> (Arc<File>, Arc<Gates>) {
    let gates = Gates::new();
    let hook: Arc<dyn Hook> = gates.clone();
    (in_cache(&Cache::new(variant, hook, 0), size), gates)
}

/// One more file in a cache.
pub(crate) fn in_cache(cache: &Arc<Cache>, size: u64) -> Arc<File> {
    cache.open(device(size), MOST).expect("a file")
}

/// What the file holds, read through the cache.
pub(crate) fn contents(file: &File) -> Vec<u8> {
    let mut bytes = vec![0xEE; usize::try_from(file.size()).expect("small") + 7];
    let read = file.read(0, &mut bytes).expect("readable");
    bytes.truncate(read.bytes);
    bytes
}

/// What the disk holds of the file, read past the cache.
pub(crate) fn on_disk(file: &File) -> Vec<u8> {
    let length = usize::try_from(file.size().next_multiple_of(P)).expect("small");
    let mut bytes = crate::buffer::DiskBuffer::new(length);
    file.device.read(0, &mut bytes).expect("readable");
    bytes[..usize::try_from(file.size()).expect("small")].to_vec()
}

/// That nobody holds or waits, every cached page is the disk's, and nothing is cached behind the end.
pub(crate) fn check_at_rest(file: &File) {
    assert_eq!(file.snapshot().requests().len(), 0, "{}", file.snapshot());
    file.sync().expect("a working disk");
    assert_eq!(file.cached_from(file.page_count()), 0, "pages behind the end");
    assert_eq!(file.device.size_now().expect("a file"), file.size());
    assert!(contents(file) == on_disk(file), "the cache is not the disk");
    let mut page = [0; PAGE];
    if file.size() % P != 0 && file.cached(file.page_count() - 1, &mut page) {
        let tail = usize::try_from(file.size() % P).expect("small");
        assert!(page[tail..].iter().all(|&byte| byte == 0), "the last page's tail");
    }
}
