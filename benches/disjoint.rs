//! Threads that never conflict: each takes a page of its own region again and again. What do they cost one another?
//!
//! Three ways: regions of one range lock; a private range lock for each thread, which is the best that one lock could
//! do; and one `parking_lot` RwLock taken for writing, which is what a file has without range locks.
//!
//! One element = one pair, by any of the threads: where threads run side by side the time per element falls as they
//! grow more, down to as many threads as there are processors. Empty sections reward a lock that lets one thread run
//! alone in its cache (barging), so look at the others for concurrency.

mod support;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use parking_lot::RwLock;
use spanlock::RangeLock;
use std::hint::black_box;
use support::{Region, Section, release, run};

const THREADS: [u64; 4] = [1, 2, 4, 16];

/// One range lock for all, and that many ranges held around each thread's page.
fn shared(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, threads: u64, section: Section, neighbours: u64) {
    group.bench_function(BenchmarkId::new(name, threads), |b| {
        b.iter_custom(|pairs| {
            let lock = RangeLock::new();
            let held: Vec<_> = (0..threads).map(|thread| Region { thread }.pile_up(&lock, neighbours)).collect();
            let time = run(threads, pairs, |thread| section.under(lock.exclusive(black_box(Region { thread }.page()))));
            release(held);
            time
        });
    });
}

/// The same with a lock for each thread.
fn private(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, threads: u64, section: Section, neighbours: u64) {
    group.bench_function(BenchmarkId::new(name, threads), |b| {
        b.iter_custom(|pairs| {
            let locks: Vec<_> = (0..threads).map(|_| RangeLock::new()).collect();
            let regions = (0..threads).map(|thread| Region { thread });
            let held: Vec<_> =
                locks.iter().zip(regions).map(|(lock, region)| region.pile_up(lock, neighbours)).collect();
            let time = run(threads, pairs, |thread| {
                section.under(locks[thread as usize].exclusive(black_box(Region { thread }.page())));
            });
            release(held);
            time
        });
    });
}

/// Without neighbours, by length of the critical section. One element = one pair.
fn sections(c: &mut Criterion) {
    for nanos in [0, 200, 1000] {
        let section = Section::nanos(nanos);
        let mut group = c.benchmark_group(format!("disjoint/{nanos} ns"));
        group.throughput(Throughput::Elements(1));
        for threads in THREADS {
            shared(&mut group, "one lock", threads, section, 0);
            private(&mut group, "private locks", threads, section, 0);
            group.bench_function(BenchmarkId::new("parking_lot RwLock write", threads), |b| {
                b.iter_custom(|pairs| {
                    let lock = RwLock::new(());
                    run(threads, pairs, |_| section.under(lock.write()))
                });
            });
        }
        group.finish();
    }
}

/// Empty sections, with ranges held by others around each thread's page. One element = one pair.
fn neighbours(c: &mut Criterion) {
    let section = Section::nanos(0);
    for neighbours in [0, 100, 1000] {
        let mut group = c.benchmark_group(format!("disjoint/{neighbours} neighbours"));
        group.throughput(Throughput::Elements(1));
        for threads in THREADS {
            shared(&mut group, "one lock", threads, section, neighbours);
            private(&mut group, "private locks", threads, section, neighbours);
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = support::criterion();
    targets = sections, neighbours
}
criterion_main!(benches);
