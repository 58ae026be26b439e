//! Promise: what redb is told about locks is so. Each story is played by hand on the backend: who must wait is seen to
//! wait, by a snapshot, before the story goes on.

use std::fs::File;
use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};
use spanlock_redb::SpanlockBackend;
use tempfile::TempDir;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

fn open_file(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).expect("a file")
}

fn handle(path: &Path) -> SpanlockBackend {
    SpanlockBackend::new(open_file(path)).expect("nobody else has it")
}

/// Handles of one file, which is gone with the folder.
fn handles<const N: usize>() -> (TempDir, [Arc<SpanlockBackend>; N]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("database");
    let handles = std::array::from_fn(|_| Arc::new(handle(&path)));
    (folder, handles)
}

fn bytes(range: std::ops::Range<u64>) -> (Bound<u64>, Bound<u64>) {
    (Included(range.start), Excluded(range.end))
}

/// Starts `wait`, and returns when it waits: so many do then. (In a thread that a test which fails does not wait for.)
fn start(
    watch: &SpanlockBackend,
    waiting: usize,
    wait: impl FnOnce() -> Result<(), BackendError> + Send + 'static,
) -> Receiver<Result<(), BackendError>> {
    let (done, result) = mpsc::channel();
    thread::spawn(move || done.send(wait()));
    let since = Instant::now();
    while watch.snapshot().expect("it is open").waiters().len() < waiting {
        assert!(since.elapsed() < PATIENCE, "it does not wait");
        thread::yield_now();
    }
    result
}

fn waits_on(
    handle: &Arc<SpanlockBackend>,
    from: Bound<u64>,
    to: Bound<u64>,
) -> impl FnOnce() -> Result<(), BackendError> + Send + 'static {
    let handle = Arc::clone(handle);
    move || handle.lock_range(from, to)
}

fn is_waiting(result: &Receiver<Result<(), BackendError>>) -> bool {
    matches!(result.try_recv(), Err(TryRecvError::Empty))
}

fn granted(result: &Receiver<Result<(), BackendError>>) {
    result.recv_timeout(PATIENCE).expect("it goes on").expect("it is granted");
}

#[test]
fn handles_of_one_file_conflict_whatever_names_they_were_opened_by() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, other_name) = (folder.path().join("database"), folder.path().join("link"));
    let a = handle(&path);
    std::fs::hard_link(&path, &other_name).expect("a second name");
    let (b, stranger) = (handle(&other_name), handle(&folder.path().join("another")));
    let (start, end) = bytes(10..20);
    assert!(a.try_lock_range(start, end).unwrap());
    assert!(!b.try_lock_range(start, end).unwrap());
    assert!(!b.try_lock_shared_range(Included(19), Included(19)).unwrap());
    assert!(!b.try_lock_range(Unbounded, Unbounded).unwrap());
    assert!(b.try_lock_range(Excluded(19), Unbounded).unwrap() && b.try_lock_range(Unbounded, Excluded(10)).unwrap());
    assert!(stranger.try_lock_range(start, end).unwrap(), "another file has another lock");
}

#[test]
fn shared_locks_go_together_and_keep_an_exclusive_one_out() {
    let (_folder, [a, b, c]) = handles();
    let (start, end) = bytes(0..320);
    a.lock_shared_range(start, end).unwrap();
    b.lock_shared_range(start, end).unwrap();
    assert!(!c.try_lock_range(start, end).unwrap());
    a.unlock_range(start, end).unwrap();
    assert!(!c.try_lock_range(start, end).unwrap());
    b.unlock_range(start, end).unwrap();
    assert!(c.try_lock_range(start, end).unwrap());
}

#[test]
fn who_waits_goes_on_when_it_is_unlocked_and_in_order_of_arrival() {
    let (_folder, [a, b, c]) = handles();
    let (from, to) = bytes(7..8);
    a.lock_range(from, to).unwrap();
    let second = start(&a, 1, waits_on(&b, from, to));
    let third = start(&a, 2, waits_on(&c, from, to));
    assert!(is_waiting(&second) && is_waiting(&third));
    a.unlock_range(from, to).unwrap();
    granted(&second);
    assert!(is_waiting(&third));
    assert!(!a.try_lock_range(from, to).unwrap(), "who came first is not passed");
    b.unlock_range(from, to).unwrap();
    granted(&third);
}

/// Somebody who waits holds nothing; to try for the range in order to find out would say that it does.
#[test]
fn a_query_sees_who_holds_and_not_who_waits() {
    let (_folder, [a, b, c]) = handles();
    let (from, to) = bytes(0..10);
    a.lock_shared_range(from, to).unwrap();
    assert!(
        c.query_lock_range(Included(9), Unbounded).unwrap(),
        "also shared locks are in the way of an exclusive one"
    );
    assert!(!c.query_lock_range(Included(10), Unbounded).unwrap());
    let waits = start(&a, 1, waits_on(&b, Unbounded, Excluded(20)));
    assert!(!c.query_lock_range(Included(10), Excluded(20)).unwrap());
    assert!(is_waiting(&waits));
    a.unlock_range(from, to).unwrap();
    granted(&waits);
    assert!(c.query_lock_range(Included(10), Excluded(20)).unwrap());
}

/// With a window, who finds the bytes free has them, until somebody has waited for as long as that.
#[test]
fn a_window_lets_newcomers_in_and_exclusion_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("database");
    let open = || {
        let window = Duration::from_secs(3600);
        Arc::new(SpanlockBackend::with_window(open_file(&path), window).expect("nobody else has it"))
    };
    let (a, b, c) = (open(), open(), open());
    let (from, to) = bytes(7..8);
    a.lock_range(from, to).unwrap();
    assert!(!c.try_lock_shared_range(from, to).unwrap() && c.query_lock_range(from, to).unwrap());
    let waits = start(&a, 1, waits_on(&b, Unbounded, Unbounded));
    c.lock_range(Included(8), Unbounded).unwrap(); // passes who waits
    a.unlock_range(from, to).unwrap();
    assert!(is_waiting(&waits));
    c.unlock_range(Included(8), Unbounded).unwrap();
    granted(&waits);
}

/// What a task asks in a scope is the scope's, unless somebody else is named: two handles in it would both be let in.
#[test]
fn handles_in_one_scope_are_two() {
    for window in [Duration::ZERO, Duration::from_millis(1)] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("database");
        let open = || SpanlockBackend::with_window(open_file(&path), window).expect("nobody else has it");
        let (a, b) = (open(), open());
        pollster::block_on(spanlock::Owner::named("task").scope(async {
            a.lock_range(Unbounded, Unbounded).unwrap();
            assert!(!b.try_lock_range(Unbounded, Unbounded).unwrap());
            a.unlock_range(Unbounded, Unbounded).unwrap();
            assert!(b.try_lock_range(Unbounded, Unbounded).unwrap());
        }));
    }
}

/// Threads of one handle go on independently: that one waits for somebody who waits for another of them is no deadlock.
#[test]
fn a_handle_that_waits_for_a_writer_who_waits_for_a_reader_of_it_is_no_deadlock() {
    let (_folder, [a, b]) = handles();
    let (writer, header) = (bytes(1000..1001), bytes(0..320));
    b.lock_range(writer.0, writer.1).unwrap();
    a.lock_shared_range(header.0, header.1).unwrap(); // a thread of `a` that begins to read
    let next = start(&a, 1, waits_on(&a, writer.0, writer.1)); // another one, that is to write
    let commit = start(&a, 2, waits_on(&b, header.0, header.1));
    assert!(is_waiting(&next) && is_waiting(&commit));
    a.unlock_range(header.0, header.1).unwrap();
    granted(&commit);
    b.unlock_range(header.0, header.1).unwrap();
    b.unlock_range(writer.0, writer.1).unwrap();
    granted(&next);
}

#[test]
fn a_handle_that_is_closed_or_dropped_releases_all() {
    let (_folder, [a, b, c]) = handles();
    a.lock_range(Included(0), Excluded(10)).unwrap();
    b.lock_shared_range(Included(10), Excluded(20)).unwrap();
    assert!(!c.try_lock_range(Unbounded, Excluded(10)).unwrap());
    let waits = start(&c, 1, waits_on(&c, Unbounded, Unbounded));
    a.close().unwrap();
    assert!(is_waiting(&waits));
    drop(b);
    granted(&waits);
    assert!(a.try_lock_range(Included(30), Excluded(31)).is_err(), "it is closed");
    assert!(a.snapshot().is_none());
}

#[test]
fn a_thread_that_panics_with_a_handle_releases_all() {
    let (_folder, [a, b]) = handles();
    let died = thread::spawn(move || {
        a.lock_range(Unbounded, Unbounded).unwrap();
        panic!("as a test of what a panic leaves behind")
    });
    assert!(died.join().is_err());
    assert!(b.try_lock_range(Unbounded, Unbounded).unwrap());
}

#[test]
fn what_cannot_be_locked_is_refused_and_changes_nothing() {
    let (_folder, [a, b]) = handles();
    for (start, end) in [
        (Included(5), Excluded(5)),
        (Included(6), Included(5)),
        (Excluded(u64::MAX), Unbounded),
        (Unbounded, Excluded(0)),
    ] {
        assert!(a.lock_range(start, end).is_err() && a.try_lock_shared_range(start, end).is_err());
        assert!(a.query_lock_range(start, end).is_err(), "{start:?} {end:?}");
    }
    assert!(a.unlock_range(Included(0), Included(0)).is_err(), "nobody has locked it");
    assert!(a.try_lock_range(Included(u64::MAX), Included(u64::MAX)).unwrap());
    assert!(a.unlock_range(Included(u64::MAX), Unbounded).is_err(), "other bounds");
    a.lock_shared_range(Included(0), Included(0)).unwrap();
    assert!(a.lock_shared_range(Included(0), Included(0)).is_err(), "twice");
    assert!(!b.try_lock_range(Included(0), Included(0)).unwrap(), "the first one is still there");
    a.unlock_range(Included(0), Included(0)).unwrap();
    assert!(b.try_lock_range(Included(0), Included(0)).unwrap());
}

/// Nobody has the file open by the kernel's locks meanwhile: neither with redb's own storage, nor in another process,
/// whose locks are as foreign.
#[test]
fn others_are_kept_out_until_the_last_handle_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("database");
    let foreign = || redb::Builder::new().set_concurrency_mode(redb::ConcurrencyMode::MultiWriter).create(&path);
    let (a, b) = (handle(&path), handle(&path));
    assert!(matches!(foreign(), Err(DatabaseError::DatabaseAlreadyOpen)));
    a.close().unwrap();
    assert!(matches!(foreign(), Err(DatabaseError::DatabaseAlreadyOpen)), "one handle is left");
    drop(b);
    let theirs = foreign().expect("it is free");
    assert!(matches!(SpanlockBackend::new(open_file(&path)), Err(DatabaseError::DatabaseAlreadyOpen)));
    drop(theirs);
    let c = handle(&path);
    // What was closed and refused left no count behind.
    drop(c);
    let lock = FileBackend::new(open_file(&path)).expect("a file");
    assert!(lock.try_lock_range(Unbounded, Unbounded).unwrap());
    drop(a);
}
