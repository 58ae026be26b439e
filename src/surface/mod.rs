//! What users call: locks, requests, guards. Thin: each call checks its arguments, says who owns the request, and leaves the rest to the
//! protocol.

pub(crate) mod announced;
#[cfg(not(any(loom, spanlock_shuttle)))] // In a model all parts of a batch are of one kind.
pub(crate) mod any;
pub(crate) mod batch;
pub(crate) mod drained;
pub(crate) mod guard;
pub(crate) mod lock;
pub(crate) mod misnomer;
pub(crate) mod request;
pub(crate) mod scope;
#[cfg(not(any(loom, spanlock_shuttle)))] // The data is no model's.
pub(crate) mod slices;
#[cfg(all(feature = "table", not(any(loom, spanlock_shuttle))))] // dashmap knows no models.
pub(crate) mod table;
pub(crate) mod whole;
