//! The library's `platform`, but for `sync`: its atomics are the simulation's.

#[path = "../../src/platform/processors.rs"]
#[allow(dead_code)] // The stand-in for `wait` has processors of its own.
pub(crate) mod processors;
#[path = "../../src/platform/reclaim.rs"]
pub(crate) mod reclaim;
#[path = "sync.rs"]
pub(crate) mod sync;
