//! A session and its locks.

use crate::error::Error;
use crate::etcd::Etcd;
use crate::record::{check_name, entries};
use crate::request::{Owner, Request};
use crate::session::{Options, Session};
use crate::snapshot::Snapshot;
use crate::store::{Store, Transaction};
use spanlock::{ByteRange, Mode};
use std::fmt;
use std::ops::RangeBounds;
use std::sync::Arc;

/// A session of a cluster: one lease, kept alive in the background, and everything that is held under it.
///
/// Cheap to clone. The session ends when the last clone, lock, request and guard of it are dropped, or by
/// [`Cluster::close`]; and it is lost, for good, if the store has not heard of it for as long as the lease lasts.
pub struct Cluster<S: Store = Etcd> {
    session: Arc<Session<S>>,
}

impl<S: Store> Cluster<S> {
    /// A session on a store of your own.
    ///
    /// # Errors
    /// What the store says when it is asked for a lease.
    pub async fn open(store: S, options: Options) -> Result<Cluster<S>, Error> {
        Ok(Cluster { session: Session::open(store, options).await? })
    }

    /// The lock of that name: whoever asks for the same name, on any machine, gets the same lock. It takes no room
    /// while nobody holds or waits.
    ///
    /// A name is any text of up to some hundred bytes that is not empty; another one makes requests end with
    /// [`Error::Name`].
    pub fn lock(&self, name: impl Into<String>) -> Lock<S> {
        let name = name.into();
        let escaped = check_name(&name).map_err(|why| Error::Name { name: name.clone(), why });
        Lock { session: Arc::clone(&self.session), name, escaped }
    }

    /// A token that owns requests, for transactions and the like: its requests do not conflict with one another. The
    /// name, which may be empty, is for messages.
    pub fn owner(&self, name: impl Into<String>) -> Owner {
        Owner::new(self.session.lease(), self.session.number(), name.into())
    }

    /// Ends the session: what it holds and waits for goes at once, and its guards are told.
    pub async fn close(&self) {
        self.session.close().await;
    }

    /// Whether the session is still good.
    ///
    /// # Errors
    /// [`Error::SessionLost`], [`Error::Closed`].
    pub fn check(&self) -> Result<(), Error> {
        self.session.check()
    }

    /// Ends when the session is not good any more.
    pub async fn lost(&self) {
        self.session.lost().await;
    }

    /// The number of the session's lease, by which it goes in messages (in hexadecimal digits, as `etcdctl lease list`
    /// shows it).
    pub fn lease(&self) -> i64 {
        self.session.lease()
    }
}

impl<S: Store> Clone for Cluster<S> {
    fn clone(&self) -> Cluster<S> {
        Cluster { session: Arc::clone(&self.session) }
    }
}

impl<S: Store> fmt::Debug for Cluster<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cluster").field(&self.session).finish()
    }
}

/// A lock over all of `u64` that machines share, by its name.
pub struct Lock<S: Store = Etcd> {
    pub(crate) session: Arc<Session<S>>,
    name: String,
    pub(crate) escaped: Result<String, Error>,
}

impl<S: Store> Lock<S> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A request for a range, which is made when it is awaited.
    ///
    /// An empty range is granted without asking, and holds nothing.
    ///
    /// # Panics
    /// If the range is inverted (it ends before it starts), as slicing does.
    #[track_caller]
    pub fn request(&self, range: impl RangeBounds<u64>, mode: Mode) -> Request<S> {
        Request::new(self, ByteRange::new((range.start_bound().cloned(), range.end_bound().cloned())), mode)
    }

    /// Who holds and who waits, on all machines, at one moment.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Foreign`], and what the store says. (A session that is lost may look.)
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        let all = self.session.keys.all_of(self.escaped.as_ref().map_err(Clone::clone)?);
        let answer = self.session.store().transact(Transaction::read(&[all], None)).await?;
        let entries = entries(answer.found).map_err(|key| Error::Foreign { key })?;
        Ok(Snapshot::new(self.escaped.as_deref().unwrap_or_default(), entries, answer.revision))
    }
}

impl<S: Store> Clone for Lock<S> {
    fn clone(&self) -> Lock<S> {
        Lock { session: Arc::clone(&self.session), name: self.name.clone(), escaped: self.escaped.clone() }
    }
}

impl<S: Store> fmt::Debug for Lock<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lock").field(&self.name).finish()
    }
}
