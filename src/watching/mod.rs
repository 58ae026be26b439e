//! What the layers above say to whoever watches a lock. Empty without the features `stats` and `tracing`.

#[cfg(all(feature = "stats", not(any(loom, spanlock_shuttle))))]
pub mod stats;
pub(crate) mod telemetry;
