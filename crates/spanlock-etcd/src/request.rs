//! What is asked, and the ways to get it: await, try, wait until a deadline.

use crate::error::Error;
use crate::etcd::Etcd;
use crate::guard::Guard;
use crate::lock::Lock;
use crate::queue::{self, Patience};
use crate::record::{Part, Record};
use crate::session::Session;
use crate::signal::Signal;
use crate::store::Store;
use spanlock::{ByteRange, Mode};
use std::collections::BTreeSet;
use std::future::{Future, IntoFuture};
use std::ops::RangeBounds;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A token that owns requests: see [`Cluster::owner`](crate::Cluster::owner).
#[derive(Clone, Debug)]
pub struct Owner {
    pub(crate) lease: i64,
    pub(crate) number: u64,
    pub(crate) name: String,
    /// How many requests it was granted: its others look for cycles at each.
    pub(crate) grants: Arc<Signal<u64>>,
}

impl Owner {
    pub(crate) fn new(lease: i64, number: u64, name: String) -> Owner {
        Owner { lease, number, name, grants: Arc::default() }
    }
}

/// A request that has not been made yet: the answer of [`Lock::request`].
///
/// It is made by `.await`, which takes its place in the queue when it is polled first.
///
/// # Cancel safety
/// Dropping the future leaves the queue: the keys are removed in the background, and whoever waited for them goes on.
/// The place is lost.
#[must_use = "a request does nothing until it is awaited or tried"]
#[derive(Debug)]
pub struct Request<S: Store = Etcd> {
    session: Arc<Session<S>>,
    parts: Vec<(Result<String, Error>, ByteRange, Mode)>,
    owner: Option<Owner>,
    deadline: Option<Instant>,
    /// A lock of another session is among the parts.
    is_mixed: bool,
}

impl<S: Store> Request<S> {
    pub(crate) fn new(lock: &Lock<S>, range: ByteRange, mode: Mode) -> Request<S> {
        let session = Arc::clone(&lock.session);
        let request = Request { session, parts: Vec::new(), owner: None, deadline: None, is_mixed: false };
        request.and(lock, range, mode)
    }

    /// Asks for this range as well, under the same place in the queue: all are granted together, or none is.
    ///
    /// # Panics
    /// If the range is inverted.
    #[track_caller]
    pub fn and(mut self, lock: &Lock<S>, range: impl RangeBounds<u64>, mode: Mode) -> Request<S> {
        let range = ByteRange::new((range.start_bound().cloned(), range.end_bound().cloned()));
        self.is_mixed |= !Arc::ptr_eq(&self.session, &lock.session);
        self.parts.push((lock.escaped.clone(), range, mode));
        self
    }

    /// Makes it a request of `owner`: it does not conflict with that owner's others.
    pub fn owner(self, owner: &Owner) -> Request<S> {
        Request { owner: Some(owner.clone()), ..self }
    }

    /// Gives the wait an end: [`Error::TimedOut`].
    pub fn deadline(self, deadline: std::time::Instant) -> Request<S> {
        Request { deadline: Some(deadline.into()), ..self }
    }

    /// As [`Request::deadline`], from now. A timeout too long to be a time is none.
    pub fn timeout(self, timeout: Duration) -> Request<S> {
        Request { deadline: Instant::now().checked_add(timeout), ..self }
    }

    /// The ranges, if nobody in conflict holds them or waits for them: nobody barges. One round trip.
    ///
    /// # Errors
    /// All but [`Error::Deadlock`]; [`Error::TimedOut`] if a deadline was given and the store does not answer before
    /// it.
    pub async fn try_now(self) -> Result<Option<Guard<S>>, Error> {
        self.make(Patience::None).await
    }

    async fn make(self, patience: Patience) -> Result<Option<Guard<S>>, Error> {
        let foreign = |owner: &Owner| owner.lease != self.session.lease();
        if self.is_mixed || self.owner.as_ref().is_some_and(foreign) {
            return Err(Error::OtherSession);
        }
        let mut parts = BTreeSet::new();
        for (lock, range, mode) in self.parts {
            let lock = lock?;
            if let (Some(first), Some(last)) = (range.start(), range.last()) {
                parts.insert(Part { first, last, mode: mode.into(), lock });
            }
        }
        if parts.is_empty() {
            self.session.check()?;
            return Ok(Some(Guard::nothing(self.session)));
        }
        let (token, name) = self.owner.as_ref().map_or((0, ""), |owner| (owner.number, owner.name.as_str()));
        let parts = parts.into_iter().collect();
        let record = Record { token, name: name.into(), parts, passes: BTreeSet::new() };
        let granted = queue::acquire(&self.session, record, self.owner.as_ref(), patience, self.deadline).await?;
        Ok(granted.map(Guard::new))
    }
}

impl<S: Store> IntoFuture for Request<S> {
    type Output = Result<Guard<S>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(self.make(Patience::Endless).await?.expect("it was to wait")) })
    }
}
