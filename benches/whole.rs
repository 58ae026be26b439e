//! Threads that all take the whole file: adders beside `parking_lot`'s readers; and one at a time, beside its writers
//! and its FairMutex.
//!
//! The range lock is first come, first served: with as many threads as processors or more, one at a time means a
//! hand-off per pair. The RwLock lets whoever runs take it again (barging). The FairMutex hands over like we do, and is
//! the one to compare with.
//!
//! One element = one pair, by any of the threads.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use parking_lot::{FairMutex, RwLock};
use spanlock::WholeFileLock;
use support::{Section, run};

const THREADS: [u64; 3] = [1, 2, 16];

/// All together: nobody waits for anybody. One element = one pair.
fn together(c: &mut Criterion) {
    for nanos in [0, 200] {
        let section = Section::nanos(nanos);
        let mut group = c.benchmark_group(format!("whole/together/{nanos} ns"));
        group.throughput(Throughput::Elements(1));
        for threads in THREADS {
            group.bench_function(BenchmarkId::new("add", threads), |b| {
                b.iter_custom(|pairs| {
                    let lock = WholeFileLock::new();
                    run(threads, pairs, |_| section.under(lock.add()))
                });
            });
            group.bench_function(BenchmarkId::new("parking_lot RwLock read", threads), |b| {
                b.iter_custom(|pairs| {
                    let lock = RwLock::new(());
                    run(threads, pairs, |_| section.under(lock.read()))
                });
            });
        }
        group.finish();
    }
}

/// One at a time. One element = one pair.
fn one_at_a_time(c: &mut Criterion) {
    for nanos in [0, 200] {
        let section = Section::nanos(nanos);
        let mut group = c.benchmark_group(format!("whole/one at a time/{nanos} ns"));
        group.throughput(Throughput::Elements(1));
        for threads in THREADS {
            group.bench_function(BenchmarkId::new("exclusive", threads), |b| {
                b.iter_custom(|pairs| {
                    let lock = WholeFileLock::new();
                    run(threads, pairs, |_| section.under(lock.exclusive()))
                });
            });
            group.bench_function(BenchmarkId::new("parking_lot RwLock write", threads), |b| {
                b.iter_custom(|pairs| {
                    let lock = RwLock::new(());
                    run(threads, pairs, |_| section.under(lock.write()))
                });
            });
            group.bench_function(BenchmarkId::new("parking_lot FairMutex", threads), |b| {
                b.iter_custom(|pairs| {
                    let lock = FairMutex::new(());
                    run(threads, pairs, |_| section.under(lock.lock()))
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = support::criterion();
    targets = together, one_at_a_time
}
criterion_main!(benches);
