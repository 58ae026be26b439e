//! What the library stands on: atomics and threads of `std` or of a model, the reclamation of memory, the processors.

#[cfg(not(any(loom, spanlock_shuttle)))] // A model has threads, and no processors.
pub(crate) mod processors;
pub(crate) mod reclaim;
pub(crate) mod sync;
