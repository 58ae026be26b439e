//! Random exercisers in the manner of `fsx`: operations on cached files, each checked against a flat buffer.
//!
//! - [`exercise`]: one thread, two files, all operations; what fails is recorded and shrunk to the steps that it takes.
//! - [`together`]: many threads in one file, each in its own window. Windows share pages and read-ahead, and the last
//!   thread, who owns the end of the file, changes its shape meanwhile.
//!
//! What step number `n` writes says `n` and the sector it is for, so that a wrong byte names the step that it came
//! from. A step is a line of text, so that a run can be recorded, cut down and played again; every step makes sense in
//! every state, so that any of them can be left out. What it did is noted behind it: where, how many bytes, and how
//! long the file was then; so that somebody who knows nothing of this cache can do the same to a file, and compare.
//! Logs of the real fsx can be played, too ([`real`]).
//!
//! The idea is Apple's and NeXT's file system exerciser, as it lives on in xfstests; nothing of its code is used.

pub mod actor;
pub mod exercise;
pub mod real;
pub mod step;
#[cfg(test)]
mod tests;
pub mod together;

pub use actor::Actor;
pub use step::{Kind, Step};
