//! The scope of an owner: a task in which all that asks without naming an owner asks as this one.

use crate::facts::owner::Owner;
use pin_project_lite::pin_project;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

impl Owner {
    /// Runs `task` as this owner: while it is polled, requests that would have an owner of their own are this owner's.
    /// So they do not wait for one another, and of tasks that wait for one another's ranges, in a scope each, one is
    /// told.
    ///
    /// It is about the requests of tasks: of an `Arc` (by [`request_arc`](crate::RangeLock::request_arc), awaited or
    /// waited for) and of a [`LockTable`](crate::LockTable) (awaited), and batches of these. What they are answered
    /// with has no error in it: a deadlock panics, in the task, with a message that names all who wait. (Where it shall
    /// be an error, ask by [`Request::owner`](crate::Request::owner), with [`Owner::current`] perhaps.)
    ///
    /// - A request on a *borrowed* lock (`&RangeLock`) that is awaited panics, always: it could not take part in the
    ///   search for deadlocks.
    /// - A *blocking call* of the thread (`lock.add(..)`) is the thread's, as ever: its guard stays there. If it has to
    ///   wait, the owner of the scope counts as blocked meanwhile. So a call that waits for what its own task holds is
    ///   a deadlock, and answered.
    /// - Requests that name an owner, and guards that the task brings along, are what they are.
    ///
    /// All that happens in the task is one owner's: two futures that it joins do not exclude one another. Give each a
    /// scope of its own.
    ///
    /// # Cancel safety
    /// Dropping it drops `task`. (What `task` asks for while it is dropped is not in the scope.)
    ///
    /// # Examples
    /// ```
    /// use spanlock::{Mode, Owner, RangeLock};
    /// use std::sync::Arc;
    ///
    /// /// Does not know who calls it, and what they hold.
    /// async fn read(file: &Arc<RangeLock>) {
    ///     let _read = file.request_arc(0..512, Mode::Add).await;
    /// }
    ///
    /// async fn write(file: Arc<RangeLock>) {
    ///     Owner::named("writer").scope(async {
    ///         let _write = file.request_arc(0..4096, Mode::Exclusive).await;
    ///         read(&file).await; // of the same owner: granted
    ///     }).await;
    /// }
    /// # pollster::block_on(write(Arc::new(RangeLock::new())));
    /// ```
    pub fn scope<F: Future>(&self, task: F) -> Scope<F> {
        Scope { owner: self.clone(), task }
    }
}

pin_project! {
    /// A task in the scope of an owner: the answer of [`Owner::scope`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Scope<F> {
        owner: Owner,
        #[pin]
        task: F,
    }
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _inside = this.owner.enter_scope();
        this.task.poll(context)
    }
}

impl<F> fmt::Debug for Scope<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("owner", &self.owner).finish_non_exhaustive()
    }
}
