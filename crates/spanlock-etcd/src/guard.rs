//! What was granted.

use crate::etcd::Etcd;
use crate::queue::{Granted, Place};
use crate::session::Session;
use crate::store::Store;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// Ranges that are held. Dropping it lets go of them, in the background; [`Guard::release`] waits until that is done.
///
/// It holds while the session's lease does, and no longer: see [`Guard::lost`] and [`Guard::token`].
#[must_use = "dropping the guard lets go of the range"]
pub struct Guard<S: Store = Etcd> {
    session: Arc<Session<S>>,
    /// `None` for empty ranges.
    place: Option<Place<S>>,
    token: u64,
}

impl<S: Store> Guard<S> {
    pub(crate) fn new(granted: Granted<S>) -> Guard<S> {
        let Granted { place, revision } = granted;
        Guard { session: Arc::clone(&place.session), token: revision as u64, place: Some(place) }
    }

    pub(crate) fn nothing(session: Arc<Session<S>>) -> Guard<S> {
        Guard { session, place: None, token: 0 }
    }

    /// The fencing token: the store's revision at which the range was granted. It grows along every chain of
    /// conflicting grants.
    ///
    /// Whoever keeps the data refuses an access whose token is lower than that of a conflicting one before: see
    /// [`TokenMap`](crate::TokenMap). 0 if only empty ranges were asked for.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// The keys in the store by which the range is held. A transaction of your own in the same etcd that compares their
    /// existence (create revision above 0) cannot come too late.
    pub fn keys(&self) -> &[String] {
        self.place.as_ref().map_or(&[], |place| &place.keys)
    }

    /// Until when the range is held for certain, if nothing more is heard of the store. It moves on with each
    /// keep-alive.
    pub fn deadline(&self) -> Instant {
        self.session.deadline().into_std()
    }

    /// Whether the lease is gone, or may be.
    pub fn is_lost(&self) -> bool {
        self.session.check().is_err()
    }

    /// Ends when the lease is gone, or may be: stop. (A process that is stopped itself learns of it when it goes on:
    /// against that only the token helps.)
    pub async fn lost(&self) {
        self.session.lost().await;
    }

    /// Lets go, and waits until others can see that.
    pub async fn release(mut self) {
        if let Some(place) = self.place.take() {
            place.leave().await;
        }
    }
}

impl<S: Store> fmt::Debug for Guard<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("token", &self.token).field("keys", &self.keys()).finish()
    }
}
