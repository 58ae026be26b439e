//! What the fuzz targets reach beside the public interface: the tree by itself. There in builds with `--cfg fuzzing`
//! only, as `cargo fuzz` makes them.

pub use crate::tree::bare::{Ask, Bare, Put, Thread};
