//! What a pair costs when nobody else is there: one thread, one lock, no critical section.
//!
//! One element = one pair: acquire and release.

mod support;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use range_lock::VecRangeLock;
use spanlock::{Mode, RangeLock, WholeFileLock};
use std::future::{Future, IntoFuture};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use support::{PAGE, PLACE, deepen, release};

const MODES: [(&str, Mode); 3] = [("add", Mode::Add), ("block", Mode::Block), ("exclusive", Mode::Exclusive)];

/// Measures `acquire` and the drop of what it returns.
fn pair<G>(group: &mut BenchmarkGroup<'_, WallTime>, name: impl Into<String>, mut acquire: impl FnMut() -> G) {
    group.bench_function(BenchmarkId::from_parameter(name.into()), |b| b.iter(|| release(acquire())));
}

/// One page of a quiet lock, which is its root alone. One element = one pair.
fn quiet(c: &mut Criterion) {
    let lock = RangeLock::new();
    let mut group = c.benchmark_group("uncontended");
    group.throughput(Throughput::Elements(1));
    pair(&mut group, "add", || lock.add(black_box(PLACE)));
    pair(&mut group, "block", || lock.block(black_box(PLACE)));
    pair(&mut group, "exclusive", || lock.exclusive(black_box(PLACE)));
    pair(&mut group, "try_add", || lock.try_add(black_box(PLACE)).expect("it is free"));
    pair(&mut group, "try_block", || lock.try_block(black_box(PLACE)).expect("it is free"));
    pair(&mut group, "try_exclusive", || lock.try_exclusive(black_box(PLACE)).expect("it is free"));
    for (name, mode) in MODES {
        pair(&mut group, format!("await/{name}"), || {
            granted_at_once(lock.request(black_box(PLACE), mode).into_future())
        });
    }
    group.finish();
}

/// The output of a future that is ready when it is polled first: no executor is measured with it.
fn granted_at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("nobody holds anything"),
    }
}

/// All bytes. One element = one pair.
fn whole(c: &mut Criterion) {
    let lock = WholeFileLock::new();
    let mut group = c.benchmark_group("uncontended/whole");
    group.throughput(Throughput::Elements(1));
    pair(&mut group, "add", || lock.add());
    pair(&mut group, "block", || lock.block());
    pair(&mut group, "exclusive", || lock.exclusive());
    group.finish();
}

/// One page, that many nodes below the root. From the first level on a pair pins the epoch. One element = one pair.
fn levels(c: &mut Criterion) {
    let mut group = c.benchmark_group("uncontended/levels");
    group.throughput(Throughput::Elements(1));
    for levels in 0..=3 {
        let lock = RangeLock::new();
        let held = deepen(&lock, levels);
        pair(&mut group, levels.to_string(), || lock.exclusive(black_box(PLACE)));
        drop(held);
    }
    group.finish();
}

/// The others, under the same loop. `range-lock` locks parts of a vector. One element = one pair.
fn others(c: &mut Criterion) {
    let mut group = c.benchmark_group("uncontended/others");
    group.throughput(Throughput::Elements(1));

    let lock = std::sync::RwLock::new(());
    pair(&mut group, "std RwLock read", || lock.read().expect("nobody panics"));
    pair(&mut group, "std RwLock write", || lock.write().expect("nobody panics"));
    let lock = std::sync::Mutex::new(());
    pair(&mut group, "std Mutex", || lock.lock().expect("nobody panics"));

    let lock = parking_lot::RwLock::new(());
    pair(&mut group, "parking_lot RwLock read", || lock.read());
    pair(&mut group, "parking_lot RwLock write", || lock.write());
    let lock = parking_lot::Mutex::new(());
    pair(&mut group, "parking_lot Mutex", || lock.lock());
    let lock = parking_lot::FairMutex::new(());
    pair(&mut group, "parking_lot FairMutex", || lock.lock());

    let lock = VecRangeLock::new(vec![0_u8; 4 * PAGE as usize]);
    let place = PLACE.start as usize..PLACE.end as usize;
    pair(&mut group, "range-lock", || lock.try_lock(black_box(place.clone())).expect("it is free"));
    group.finish();
}

criterion_group! {
    name = benches;
    config = support::criterion();
    targets = quiet, whole, levels, others
}
criterion_main!(benches);
