//! Range locks in async code: owners that outlive a task, deadlines, cancels, and a
//! deadlock that is answered.
//!
//! ```text
//! cargo run --release --example async_io
//! ```
//!
//! Any runtime will do; this one is tokio. What to know: a request takes its place in the
//! queue when it is polled first, dropping its future cancels it, and its guard can be sent
//! to another task. `request(..)` borrows the lock, `request_arc(..)` shares it.
//! An [`Owner`] is for those who make several requests; without one, each request is by itself.
//!
//! Exit codes: 0 it all went as it says; 101 (a panic) otherwise.

use spanlock::{AcquireError, Batch, Deadlock, Mode, Nesting, Owner, RangeLock};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Barrier, oneshot};
use tokio::time::timeout;

/// Waits until so many wait for the lock.
async fn until_waiting(lock: &RangeLock, count: usize) {
    while lock.snapshot().waiters().count() != count {
        tokio::task::yield_now().await;
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), AcquireError> {
    completes_elsewhere().await?;
    deadline().await;
    cancel().await;
    deadlock().await
}

/// A write is submitted by one task and completed by another. Its owner goes with it: what it asks for there does not
/// conflict with what it holds.
async fn completes_elsewhere() -> Result<(), AcquireError> {
    println!("1. A write that starts in one task and completes in another");
    let file = Arc::new(RangeLock::named("file"));
    let write = Owner::named("write 1");
    let (submit, completion) = oneshot::channel();
    let submitter = tokio::spawn({
        let (file, write) = (file.clone(), write.clone());
        async move {
            let guard = file.request_arc(0..8192, Mode::Block).owner(&write).await?;
            println!("   submitted: {guard:?}");
            assert!(file.try_add(0..1).is_none(), "nobody else comes in, not even this thread");
            assert!(submit.send(guard).is_ok(), "the other task is there");
            Ok::<(), AcquireError>(())
        }
    });
    let completer = tokio::spawn({
        let file = file.clone();
        async move {
            let guard = completion.await.expect("it is submitted");
            // Updates a page of its own range: by the same owner, so it need not wait for itself.
            let page = file.request_arc(0..4096, Mode::Add).owner(&write).await?;
            println!("   completed on another task; the page is nested: {:?}", page.nesting());
            assert_eq!(page.nesting(), Nesting::Conflicting { held: guard.range(), mode: Mode::Block });
            drop((page, guard));
            Ok::<(), AcquireError>(())
        }
    });
    submitter.await.expect("it does not panic")?;
    completer.await.expect("it does not panic")?;
    assert_free(&file);
    Ok(())
}

/// A runtime's timeout drops the future: that is the cancel.
async fn deadline() {
    println!("2. A request with a deadline");
    let file = RangeLock::new();
    let reader = file.request(0..4096, Mode::Add).await;
    let truncate = timeout(Duration::from_millis(20), file.request(.., Mode::Exclusive)).await;
    assert!(truncate.is_err(), "the reader never left");
    assert_eq!(file.snapshot().waiters().count(), 0, "it has left the queue");
    println!("   the truncate gave up after 20 ms, and waits no longer");
    drop(reader);
    assert_free(&file);
}

/// Whoever stood behind a request that gives up goes on.
async fn cancel() {
    println!("3. A request that gives up, and the one behind it");
    let file = Arc::new(RangeLock::new());
    let first = file.request(0..4096, Mode::Add).await;
    let mut truncate = Box::pin(file.request(.., Mode::Exclusive).into_future());
    // A timeout of the future itself would cancel it. One of `&mut` future leaves it where it is in the queue.
    assert!(timeout(Duration::from_millis(20), &mut truncate).await.is_err());
    let second = tokio::spawn({
        let file = file.clone();
        // First come, first served: it waits behind the truncate, although it would go with the first reader.
        async move { file.request_arc(0..4096, Mode::Add).await }
    });
    until_waiting(&file, 2).await;
    println!("{}", indented(&file.snapshot().to_string()));
    drop(truncate);
    let second = second.await.expect("it does not panic");
    println!("   the truncate gave up, and the second reader went on beside the first");
    assert_eq!(file.snapshot().holders().count(), 2);
    drop((first, second));
    assert_free(&file);
}

/// Two tasks take two locks in opposite order.
async fn deadlock() -> Result<(), AcquireError> {
    println!("4. Two tasks that cross");
    let (left, right) = (Arc::new(RangeLock::named("left")), Arc::new(RangeLock::named("right")));
    let both_have_one = Arc::new(Barrier::new(2));
    let one = tokio::spawn(take_both("one", left.clone(), right.clone(), both_have_one.clone()));
    let two = tokio::spawn(take_both("two", right.clone(), left.clone(), both_have_one));
    // Which of the two is refused is a matter of chance: the one that closes the cycle.
    let answers = [one.await.expect("it does not panic")?, two.await.expect("it does not panic")?];
    let ([Some(deadlock), None] | [None, Some(deadlock)]) = answers else { panic!("one steps back: {answers:?}") };
    println!("{}", indented(&deadlock.to_string()));
    println!("   the one that was refused asked for both by one batch; both tasks are done");
    assert_free(&left);
    assert_free(&right);
    Ok(())
}

/// One of them: the deadlock that it met on the way, if it did.
async fn take_both(
    name: &str,
    first: Arc<RangeLock>,
    second: Arc<RangeLock>,
    both_have_one: Arc<Barrier>,
) -> Result<Option<Deadlock>, AcquireError> {
    let me = Owner::named(name);
    let held = first.request_arc(.., Mode::Exclusive).owner(&me).await?;
    both_have_one.wait().await;
    match second.request_arc(.., Mode::Exclusive).owner(&me).await {
        Ok(_both) => Ok(None), // Work.
        Err(AcquireError::Deadlock(deadlock)) => {
            // The remedy: let go, and ask for both together. `regain` lets go at once, so that the other task goes on.
            let _both = Batch::new().regain(held).exclusive(second, ..).owner(&me).await?;
            Ok(Some(deadlock)) // Look again at what `first` guards, then work.
        }
        Err(other) => Err(other),
    }
}

/// A step is over: nobody holds anything, and nobody waits.
fn assert_free(lock: &RangeLock) {
    assert!(lock.try_exclusive(..).is_some(), "{}", lock.snapshot());
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("   {line}")).collect::<Vec<_>>().join("\n")
}
