//! A page cache over a real file, in which buffered reads and writes, mappings, direct I/O and changes of shape stay
//! coherent by a range lock; or do not, under the other locks that it knows.
//!
//! It is a model to copy from and to measure, not a cache to ship: pages never leave their frames' memory, and the disk
//! is one file.
//!
//! ```
//! # #[cfg(unix)]
//! # fn main() -> Result<(), spanlock_pagecache::error::CacheError> {
//! use std::sync::Arc;
//!
//! use spanlock_pagecache::cache::Cache;
//! use spanlock_pagecache::device::{Access, Device, Place};
//! use spanlock_pagecache::direct::Source;
//! use spanlock_pagecache::file_lock::Variant;
//! use spanlock_pagecache::hooks::NoHook;
//! use spanlock_pagecache::mapping::Mapping;
//!
//! let cache = Cache::new(Variant::Range, Arc::new(NoHook), 0);
//! let device = Device::open(&Place::Memory, 0, Access::Direct)?;
//! let file = cache.open(Arc::new(device), 1 << 20)?; // which may grow to a mebibyte
//!
//! file.write(0, &[1; 8192])?; // into the cache: add
//! file.write_direct(4096, Source::Memory(&[2; 4096]))?; // past it: block
//! let mapping = Mapping::new(&file, 0, 8192);
//! mapping.write(10, b"mapped")?; // a fault: add
//! file.truncate(5000)?; // exclusive
//!
//! let mut bytes = [0; 8192];
//! assert_eq!(file.read(0, &mut bytes)?.bytes, 5000);
//! assert!(bytes[10..16] == *b"mapped" && bytes[4999] == 2);
//! # Ok(())
//! # }
//! # #[cfg(not(unix))]
//! # fn main() {}
//! ```
//!
//! | module | what it is | what it knows |
//! |---|---|---|
//! | [`sector`] | the stamp that every 512-byte sector carries | nothing else |
//! | `frame`, `table` | one cached page, read without any lock; all those of a file | nothing else |
//! | [`device`], `reshape` | the file, by `O_DIRECT` where it can be had; its holes | sizes |
//! | [`faults`], [`buffer`] | troubles that a disk can have; memory for it | |
//! | [`file_lock`], [`waits`] | the variants behind one face; counts, times and notes what is waited for and held | spanlock |
//! | [`hooks`] | the points where the races are: pauses, and gates for tests | |
//! | **[`cache`]** | **the page cache: where which lock is held, and why** | all of these |
//! | [`mapping`] | page faults | the cache |
//! | [`direct`], [`queue`] | direct reads and writes, also queued; their recursion | cache and mappings |
//! | `structure` | truncate, punch, zero, collapse, insert | the cache |
//! | [`error`] | why an operation failed | devices |
//! | [`checker`] | what a reader may see; finds stale data during a run | sectors |
//! | [`fsx`] | random operations against plain buffers | all |
//! | `tests` | each operation against a plain buffer; recursion; errors; the races, one by one | all |
//!
//! `cache.rs` is the one to read first; `docs/pagecache.md` of the repository walks through it. Unix only: elsewhere
//! the crate is empty.

#![forbid(unsafe_code)]
#![cfg(unix)]

/// The README's examples, compiled as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod buffer;
pub mod cache;
pub mod checker;
pub mod device;
pub mod direct;
pub mod error;
pub mod faults;
pub mod file_lock;
mod frame;
pub mod fsx;
pub mod hooks;
pub mod mapping;
pub mod queue;
mod reshape;
pub mod sector;
mod structure;
mod table;
#[cfg(test)]
mod tests;
pub mod waits;

pub use frame::PAGE;
