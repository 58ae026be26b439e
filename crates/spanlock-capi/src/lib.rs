//! The range lock for C.
//!
//! What C programs see is `include/spanlock.h`, which cbindgen makes of this crate, its comments included;
//! `tests/header.rs` says if it is out of date.
//!
//! # Promise
//! - Nothing unwinds into C: a panic becomes `SPANLOCK_PANIC`. (One in a callback of the caller's would be C's own, and
//!   does not exist.)
//! - Bad input becomes `SPANLOCK_INVALID`, and a sentence that says what was wrong. What cannot be told, as a pointer
//!   that was freed, is the caller's to avoid.
//! - A handle may be used from any thread, and by several at once, but for those that a function takes as a pointer to
//!   non-const: these by one at a time.
//!
//! # Files
//! `status` what a call answers, `lock` locks, owners and requests that block, `guard` what is held, `batch` several
//! ranges at once, `request` requests that call back.

// C has no use for it.
#![allow(missing_debug_implementations)]

mod batch;
mod guard;
mod lock;
mod request;
mod status;

pub use batch::*;
pub use guard::*;
pub use lock::*;
pub use request::*;
pub use status::*;
