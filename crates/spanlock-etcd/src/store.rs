//! What the locks ask of a key-value store, and nothing more: transactions, notices of changes, leases.
//!
//! # Promise (of whoever implements it)
//! - Every transaction that writes has a *revision* of its own, and these grow. All reads of a transaction are of one
//!   revision, which is its own if it writes, and not older than the last write that was answered before it was sent
//!   (linearizable).
//! - A transaction is carried out at most once for each call, as a whole or not at all; but if its answer is lost it
//!   may still be carried out, and *later* than the caller was told so.
//! - A key under a lease goes when the lease does, in one revision, and a lease lasts at least as long as was promised,
//!   counted from when the last keep-alive was sent.
//! - A notice may come though nothing has happened, late, or (a fault, against which the protocol has a slow timer)
//!   never.

use std::fmt;
use std::future::Future;
use std::time::Duration;

/// A point in the history of the store.
pub type Revision = i64;

/// The keys from `first` up to but not including `end`, in the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyRange {
    /// The first key.
    pub first: String,
    /// The first key behind.
    pub end: String,
}

impl KeyRange {
    /// Whether `key` lies in it.
    pub fn contains(&self, key: &str) -> bool {
        self.first.as_str() <= key && key < self.end.as_str()
    }
}

/// What must be so for the first half of a transaction to be carried out.
#[derive(Clone, Debug)]
pub enum Condition {
    /// There is no such key.
    Absent(String),
    /// The key has not been written since this revision, in which it was.
    Unchanged(String, Revision),
}

/// A step of a transaction.
#[derive(Clone, Debug)]
pub enum Op {
    /// Writes a key, under a lease.
    Put {
        /// The key.
        key: String,
        /// What it is to be.
        value: String,
        /// The lease that it goes with.
        lease: i64,
    },
    /// Removes a key, if it is there.
    Delete(String),
    /// Reads keys: as they are then and there, or at an earlier revision.
    Read(KeyRange, Option<Revision>),
}

/// Steps that are carried out together: `then` if all conditions hold, `otherwise` if not.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// The conditions.
    pub when: Vec<Condition>,
    /// What is done if they hold.
    pub then: Vec<Op>,
    /// What is done if they do not.
    pub otherwise: Vec<Op>,
}

impl Transaction {
    /// One that only reads.
    pub(crate) fn read(ranges: &[KeyRange], at: Option<Revision>) -> Transaction {
        let then = ranges.iter().map(|range| Op::Read(range.clone(), at)).collect();
        Transaction { then, ..Transaction::default() }
    }
}

/// A key as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: String,
    /// What it was.
    pub value: String,
    /// The revision in which it was made.
    pub created: Revision,
    /// The revision in which it was last written.
    pub modified: Revision,
}

/// What a transaction came to.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its revision.
    pub revision: Revision,
    /// Whether the conditions held.
    pub held: bool,
    /// What its reads found, one after the other.
    pub found: Vec<KeyValue>,
}

/// A lease: keys go with it.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    /// Its number, which the store never gives again.
    pub id: i64,
    /// How long it lasts without a keep-alive.
    pub ttl: Duration,
}

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError {
    /// No answer, or one that says nothing: it may have been done, be done yet, or never. Worth another try.
    Unavailable(String),
    /// There is no such lease any more.
    LeaseGone,
    /// The revision that was to be read has been compacted away.
    Compacted,
    /// The store takes no writes: its database is full.
    Full,
    /// The user may not do that, or is not known.
    Denied(String),
    /// The store did not understand, or refuses for another reason that stays.
    Refused(String),
}

impl StoreError {
    /// Whether the request was answered: it was not carried out, and will not be.
    pub fn is_definite(&self) -> bool {
        !matches!(self, StoreError::Unavailable(_))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Unavailable(why) => write!(f, "the store does not answer: {why}"),
            StoreError::LeaseGone => f.write_str("the lease is gone"),
            StoreError::Compacted => f.write_str("the revision has been compacted"),
            StoreError::Full => {
                f.write_str("the store's database is full (NOSPACE): compact, defragment, disarm the alarm")
            }
            StoreError::Denied(why) => write!(f, "the store denies it: {why}"),
            StoreError::Refused(why) => write!(f, "the store refuses it: {why}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// An ordered key-value store: see the [module](self) for what is relied upon.
pub trait Store: Send + Sync + 'static {
    /// Carries out a transaction.
    fn transact(&self, transaction: Transaction) -> impl Future<Output = Result<Answer, StoreError>> + Send;

    /// Ends when one of the keys may have been written or removed in revision `from` or later: at the first such event,
    /// and whenever that can no longer be told.
    fn changed(&self, keys: Vec<String>, from: Revision) -> impl Future<Output = ()> + Send;

    /// Makes a lease of at least about `ttl`.
    fn grant(&self, ttl: Duration) -> impl Future<Output = Result<Lease, StoreError>> + Send;

    /// Prolongs a lease: from when this was sent it lasts as long as the answer says.
    fn keep_alive(&self, lease: i64) -> impl Future<Output = Result<Duration, StoreError>> + Send;

    /// Ends a lease, and removes its keys.
    fn revoke(&self, lease: i64) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Runs a task in the background. May be called from anywhere.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);
}
