//! Promise: several handles of one database commit at once, and nothing is lost.

use std::sync::Barrier;
use std::thread;

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, TransactionError};

const COUNTERS: TableDefinition<&str, u64> = TableDefinition::new("counters");
const ROWS: TableDefinition<(u64, u64), u64> = TableDefinition::new("rows");

/// Adds one to what all share, and a row that says what it was.
fn commit(database: &Database, handle: u64, number: u64) {
    let write = database.begin_write().expect("a transaction");
    let total = {
        let mut counters = write.open_table(COUNTERS).expect("a table");
        let total = counters.get("total").expect("readable").map_or(0, |total| total.value()) + 1;
        counters.insert("total", total).expect("writable");
        total
    };
    write.open_table(ROWS).expect("a table").insert((handle, number), total).expect("writable");
    write.commit().expect("committed");
}

#[test]
fn handles_that_commit_at_once_lose_nothing() {
    const HANDLES: u64 = 4;
    const COMMITS: u64 = 60;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("database");
    let open = || spanlock_redb::create(&path).expect("a handle");
    let first = open();
    commit(&first, HANDLES, 0);
    let start = Barrier::new(HANDLES as usize + 1);
    thread::scope(|scope| {
        for handle in 0..HANDLES {
            let (database, start) = (open(), &start);
            scope.spawn(move || {
                start.wait();
                (0..COMMITS).for_each(|number| commit(&database, handle, number));
            });
        }
        // Somebody reads meanwhile: what is read fits together.
        start.wait();
        for _ in 0..COMMITS {
            let read = first.begin_read().expect("a transaction");
            let rows = read.open_table(ROWS).expect("there").len().expect("readable");
            let total =
                read.open_table(COUNTERS).expect("there").get("total").expect("readable").expect("there").value();
            assert_eq!(rows, total);
        }
    });
    drop(first);
    let mut last = open();
    assert!(last.check_integrity().expect("checked"));
    let read = last.begin_read().expect("a transaction");
    let rows = read.open_table(ROWS).expect("there");
    let mut totals: Vec<u64> = rows.iter().expect("readable").map(|row| row.expect("readable").1.value()).collect();
    totals.sort_unstable();
    assert!(totals.into_iter().eq(1..=HANDLES * COMMITS + 1), "each commit built on the one before it");
}

/// One that holds a write transaction in one handle keeps the other handle's out, and a thread that dies with it does
/// not.
#[test]
fn a_writer_that_dies_is_rolled_back_and_lets_others_write() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("database");
    let (first, second) =
        (spanlock_redb::create(&path).expect("a handle"), spanlock_redb::create(&path).expect("a handle"));
    commit(&first, 0, 0);
    let held = second.begin_write().expect("a transaction");
    assert!(matches!(first.try_begin_write(), Err(TransactionError::WouldBlock)));
    held.abort().expect("aborted");
    let died = thread::spawn(move || {
        let write = second.begin_write().expect("a transaction");
        write.open_table(COUNTERS).expect("a table").insert("total", 1000).expect("writable");
        panic!("as a test of what a panic leaves behind");
    });
    assert!(died.join().is_err());
    commit(&first, 0, 1);
    let read = first.begin_read().expect("a transaction");
    assert_eq!(read.open_table(COUNTERS).expect("there").get("total").expect("readable").expect("there").value(), 2);
}

/// Also under the mode in which a handle has the whole file: the others are told that it is open.
#[test]
fn one_exclusive_writer_keeps_the_other_handles_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("database");
    let open = || {
        let file =
            std::fs::File::options().read(true).write(true).create(true).truncate(false).open(&path).expect("a file");
        redb::Builder::new().create_with_backend(spanlock_redb::SpanlockBackend::new(file).expect("ours"))
    };
    let alone = open().expect("nobody has it");
    assert!(matches!(open(), Err(redb::DatabaseError::DatabaseAlreadyOpen)));
    assert!(matches!(spanlock_redb::create(&path), Err(redb::DatabaseError::DatabaseAlreadyOpen)));
    commit(&alone, 0, 0);
    drop(alone);
    commit(&spanlock_redb::create(&path).expect("it is free"), 0, 1);
}
