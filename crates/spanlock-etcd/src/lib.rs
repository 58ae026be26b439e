//! Range locks across machines: add, block and exclusive modes, first come, first served, on etcd.
//!
//! ```no_run
//! use spanlock_etcd::{Cluster, Error, Mode, Options};
//! use std::time::Duration;
//!
//! # async fn example() -> Result<(), Error> {
//! let cluster = Cluster::connect(["http://127.0.0.1:2379"], Options::default()).await?; // one lease, kept alive
//! let inode = cluster.lock("volume-7/inode-42");
//! let write = inode.request(0..4096, Mode::Block).timeout(Duration::from_secs(5)).await?;
//! write.token(); // for whoever keeps the data: see `TokenMap`
//! write.release().await;
//! # Ok(())
//! # }
//! ```
//!
//! A hold ends with the session's lease: [`Guard::lost`] says so, [`Guard::deadline`] says when at the earliest, and
//! [`Guard::token`] is for the storage to refuse whoever was overtaken. The crate's README has the contract, and what
//! no lease can promise.
//!
//! Layers, each of which names only those above it here: `store` (what is asked of etcd, as a trait), `block` and
//! `record` (keys and values), `session` (the lease, removals), `graph` (cycles), `queue` (the protocol), then the
//! surface (`lock`, `request`, `guard`, `snapshot`); beside them `etcd` (the store), `tokens`, and for tests `sim`.

#![forbid(unsafe_code)]

mod block;
mod error;
mod etcd;
mod graph;
mod guard;
mod lock;
mod queue;
mod record;
mod request;
mod session;
mod signal;
#[cfg(test)]
mod sim;
mod snapshot;
pub mod store;
mod tokens;

pub use error::{Deadlock, Error, OwnerName, Wait};
pub use etcd::Etcd;
pub use etcd_client;
pub use guard::Guard;
pub use lock::{Cluster, Lock};
pub use record::{OwnerId, RequestId};
pub use request::{Owner, Request};
pub use session::Options;
pub use snapshot::{RequestInfo, Snapshot};
pub use spanlock::{ByteRange, Mode};
pub use tokens::{Overtaken, TokenMap};
