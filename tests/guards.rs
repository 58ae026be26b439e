//! What the types promise, checked when this file is compiled: which guards may move to another thread, what may be
//! shared, and that everything says what it is.

mod common;

use spanlock::{
    Acquire, AcquireBatch, AcquireError, ArcRangeGuard, Batch, BatchGuard, ByOwner, ByTask, ByThread, ByteRange,
    Deadlock, Guard, Mode, Owner, OwnerId, RangeGuard, RangeLock, Recursion, Request, SendRangeGuard, WholeFileLock,
};
use std::error::Error;
use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

/// Compiles only for types that are not `Send`: for the others both implementations apply, and `_` is ambiguous.
macro_rules! assert_not_send {
    ($($type:ty),*) => { $( const _: () = {
        trait Ambiguous<Marker> {
            const HERE: () = ();
        }
        impl<T: ?Sized> Ambiguous<()> for T {}
        #[allow(dead_code)]
        struct IfSend;
        impl<T: ?Sized + Send> Ambiguous<IfSend> for T {}
        <$type as Ambiguous<_>>::HERE
    }; )* };
}

// Its owner is its thread: another thread would find itself holding what it never asked for.
assert_not_send!(RangeGuard<'static>, BatchGuard<&'static RangeLock, ByThread>, Guard<Arc<RangeLock>, ByThread>);

const fn send<T: Send>() {}
const fn sync<T: Sync>() {}
const fn unpin<T: Unpin>() {}
const fn debug<T: Debug>() {}
const fn lives_by_itself<T: 'static>() {}
const fn survives_unwinding<T: UnwindSafe + RefUnwindSafe>() {}
const fn value<T: Copy + Eq + Hash + Send + Sync>() {}
const fn error<T: Error + Display + Send + Sync + 'static>() {}
const fn future<F: Future<Output = T>, T>() {}

const _: () = {
    send::<SendRangeGuard<'static>>();
    send::<ArcRangeGuard>();
    sync::<RangeGuard<'static>>();
    sync::<SendRangeGuard<'static>>();
    sync::<ArcRangeGuard>();
    lives_by_itself::<ArcRangeGuard>();

    send::<Acquire<&'static RangeLock>>();
    send::<Acquire<Arc<RangeLock>>>();
    unpin::<Acquire<&'static RangeLock>>();
    unpin::<Acquire<Arc<RangeLock>>>();
    future::<Acquire<&'static RangeLock>, SendRangeGuard<'static>>();
    future::<Acquire<Arc<RangeLock>>, ArcRangeGuard>();
    send::<Request<&'static RangeLock>>();
    send::<Request<Arc<RangeLock>>>();

    send::<RangeLock>();
    sync::<RangeLock>();
    send::<WholeFileLock>();
    sync::<WholeFileLock>();
    survives_unwinding::<RangeLock>();

    debug::<RangeLock>();
    debug::<WholeFileLock>();
    debug::<RangeGuard<'static>>();
    debug::<SendRangeGuard<'static>>();
    debug::<ArcRangeGuard>();
    debug::<Acquire<&'static RangeLock>>();
    debug::<Acquire<Arc<RangeLock>>>();
    debug::<Request<&'static RangeLock>>();
    debug::<Mode>();
    debug::<ByteRange>();

    // A token's guards, and a batch's.
    send::<Guard<&'static RangeLock, ByOwner>>();
    send::<Guard<Arc<RangeLock>, ByOwner>>();
    sync::<Guard<&'static RangeLock, ByOwner>>();
    lives_by_itself::<Guard<Arc<RangeLock>, ByOwner>>();
    send::<BatchGuard<&'static RangeLock, ByTask>>();
    send::<BatchGuard<Arc<RangeLock>, ByOwner>>();
    send::<Owner>();
    sync::<Owner>();
    send::<Batch<Arc<RangeLock>, ByOwner>>();
    send::<AcquireBatch<&'static RangeLock, ByTask>>();
    send::<AcquireBatch<Arc<RangeLock>, ByOwner>>();
    unpin::<AcquireBatch<&'static RangeLock, ByOwner>>();
    future::<Acquire<&'static RangeLock, ByOwner>, Result<Guard<&'static RangeLock, ByOwner>, AcquireError>>();
    future::<AcquireBatch<&'static RangeLock, ByTask>, BatchGuard<&'static RangeLock, ByTask>>();
    debug::<Batch<Arc<RangeLock>>>();
    debug::<BatchGuard<&'static RangeLock, ByThread>>();
    value::<OwnerId>();
    value::<Recursion>();

    value::<Mode>();
    value::<ByteRange>();
    error::<AcquireError>();
    error::<Deadlock>();
};

/// An async task as a multi-threaded executor takes it: `Send`, borrowing the lock or owning it.
#[test]
fn tasks_that_hold_guards_across_awaits_are_send() {
    fn is_send<T: Send>(task: T) -> T {
        task
    }
    let lock = Arc::new(RangeLock::new());
    let borrowed = is_send(async {
        let add = lock.request(0..10, Mode::Add).await;
        let block = lock.request(10..20, Mode::Block).await;
        (add.mode(), block.mode())
    });
    assert_eq!(pollster::block_on(borrowed), (Mode::Add, Mode::Block));
    let owned = is_send({
        let lock = lock.clone();
        async move {
            let guard = lock.request_arc(.., Mode::Exclusive).await;
            drop(lock);
            guard
        }
    });
    // From another thread, which keeps nothing that lives here.
    let guard = std::thread::spawn(move || pollster::block_on(owned)).join().expect("the task only locks");
    assert!(lock.try_add(..).is_none());
    drop(guard);
    assert!(lock.try_add(..).is_some());
}

/// The guard keeps the lock alive, and its release finds it.
#[test]
fn an_arc_guard_outlives_every_other_handle() {
    let lock = Arc::new(RangeLock::new());
    let watch = Arc::downgrade(&lock);
    let guard = lock.request_arc(5.., Mode::Block).wait();
    drop(lock);
    assert!(watch.upgrade().is_some_and(|lock| lock.try_add(9..10).is_none() && lock.try_add(..5).is_some()));
    drop(guard);
    assert!(watch.upgrade().is_none());
}
