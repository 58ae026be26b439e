//! Of the library's `surface`, what a workload calls.

#[path = "../../src/surface/announced.rs"]
pub(crate) mod announced;
#[path = "../../src/surface/batch.rs"]
pub(crate) mod batch;
#[path = "../../src/surface/drained.rs"]
pub(crate) mod drained;
#[path = "../../src/surface/guard.rs"]
pub(crate) mod guard;
#[path = "../../src/surface/lock.rs"]
pub(crate) mod lock;
#[path = "../../src/surface/request.rs"]
pub(crate) mod request;
