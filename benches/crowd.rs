//! What a pair costs one thread while many ranges are held elsewhere.
//!
//! The crowd holds every other page of an area. Three places for the pair: outside of that area, in one gap in the
//! middle of it, and in a gap chosen anew for each pair, which meets cold memory as soon as the crowd is larger than
//! the caches.
//!
//! One element = one pair.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use spanlock::RangeLock;
use std::hint::black_box;
use support::{Crowd, PLACE, release};

/// By size of the crowd. One element = one pair.
fn crowd(c: &mut Criterion) {
    let mut group = c.benchmark_group("crowd");
    group.throughput(Throughput::Elements(1));
    for size in [100, 1000, 10_000, 100_000, 1_000_000] {
        let crowd = Crowd { size };
        let lock = RangeLock::new();
        let held = crowd.gather(&lock);
        group.bench_function(BenchmarkId::new("outside", size), |b| {
            b.iter(|| release(lock.exclusive(black_box(PLACE))))
        });
        let gap = crowd.middle_gap();
        group.bench_function(BenchmarkId::new("in a gap", size), |b| {
            b.iter(|| release(lock.exclusive(black_box(gap.clone()))));
        });
        let mut random = fastrand::Rng::with_seed(2);
        group.bench_function(BenchmarkId::new("in random gaps", size), |b| {
            b.iter(|| release(lock.exclusive(crowd.random_gap(&mut random))));
        });
        drop(held);
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = support::criterion();
    targets = crowd
}
criterion_main!(benches);
