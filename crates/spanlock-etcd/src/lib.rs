//! Range locks across machines, on etcd.

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
