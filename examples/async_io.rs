//! Range locks in async code: owners that outlive a task, deadlines, cancels, and a deadlock that is answered.
//!
//! ```console
//! $ cargo run --example async_io
//! ```

use spanlock::{AcquireError, Batch, Mode, Owner, RangeLock};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Waits until somebody queues on the lock, or nobody does any more.
async fn until_waiting(lock: &RangeLock, count: usize) {
    while lock.snapshot().waiters().count() != count {
        tokio::task::yield_now().await;
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), AcquireError> {
    completes_elsewhere().await?;
    deadline_and_cancel().await;
    deadlock().await?;
    println!("Nothing is held any more.");
    Ok(())
}

/// A write is submitted by one task and completed by another. Its owner goes with it: what it asks for there does not conflict with what it holds.
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
            assert!(submit.send(guard).is_ok(), "the other task is there");
            Ok::<(), AcquireError>(())
        }
    });
    let completer = tokio::spawn({
        let file = file.clone();
        async move {
            let guard = completion.await.expect("it is submitted");
            // Updates a page of its own range: by the same owner, so it need not wait for itself.
            let page = file.request(0..4096, Mode::Add).owner(&write).await?;
            println!("   completed on another task; the page is nested: {:?}", page.nesting());
            drop((page, guard));
            Ok::<(), AcquireError>(())
        }
    });
    submitter.await.expect("it does not panic")?;
    completer.await.expect("it does not panic")?;
    assert!(file.try_exclusive(..).is_some());
    Ok(())
}

/// A runtime's timeout drops the future: that is the cancel. Whoever stood behind it goes on.
async fn deadline_and_cancel() {
    println!("2. A request that gives up, and the one behind it");
    let file = Arc::new(RangeLock::new());
    let reader = file.request(0..4096, Mode::Add).await;
    let truncate = tokio::spawn({
        let file = file.clone();
        async move { timeout(Duration::from_millis(50), file.request(.., Mode::Exclusive)).await.is_err() }
    });
    until_waiting(&file, 1).await;
    let second = tokio::spawn({
        let file = file.clone();
        // First come, first served: it waits behind the truncate, although it would go with the reader.
        async move { drop(file.request(0..4096, Mode::Add).await) }
    });
    until_waiting(&file, 2).await;
    println!("{}", indented(&file.snapshot().to_string()));
    assert!(truncate.await.expect("it does not panic"), "the reader never left, so the deadline passed");
    second.await.expect("it does not panic");
    println!("   the truncate gave up, and the second reader went on beside the first");
    drop(reader);
}

/// Two tasks take two ranges in opposite order.
async fn deadlock() -> Result<(), AcquireError> {
    println!("3. Two tasks that cross");
    let (left, right) = (Arc::new(RangeLock::named("left")), Arc::new(RangeLock::named("right")));
    let (one, two) = (Owner::named("one"), Owner::named("two"));
    let held_left = left.request(.., Mode::Exclusive).owner(&one).await?;
    let held_right = right.request(.., Mode::Exclusive).owner(&two).await?;
    let crossing = tokio::spawn({
        let (right, one) = (right.clone(), one.clone());
        async move { right.request(.., Mode::Exclusive).owner(&one).await.map(drop) }
    });
    until_waiting(&right, 1).await;
    let answer = left.request(.., Mode::Exclusive).owner(&two).await;
    let Err(AcquireError::Deadlock(deadlock)) = answer else { panic!("{answer:?}") };
    println!("{}", indented(&deadlock.to_string()));
    // The remedy: let go, and ask for both together. The other task goes first.
    let both = Batch::new().regain(held_right).exclusive(&left, ..).owner(&two).into_future();
    crossing.await.expect("it does not panic")?;
    drop(held_left);
    let guards = both.await?;
    println!("   the second task has both, by one batch: {} guards", guards.len());
    Ok(())
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("   {line}")).collect::<Vec<_>>().join("\n")
}
