//! Plain values: ranges, modes, owners, errors, and the snapshot of a lock. They know neither tree nor protocol.

pub(crate) mod elapsed;
pub(crate) mod error;
pub(crate) mod keys;
pub(crate) mod mode;
pub(crate) mod owner;
pub(crate) mod owner_kind;
pub(crate) mod range;
pub(crate) mod snapshot;
