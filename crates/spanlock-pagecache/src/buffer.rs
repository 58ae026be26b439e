//! Memory that `O_DIRECT` accepts, of any length: it begins at a page's border.
//!
//! Without unsafe code: a vector that is a page longer than needed, of which the aligned part is used. The vector
//! is never resized, so the part stays where it is.

use std::ops::{Deref, DerefMut};

use crate::frame::PAGE;

/// Bytes for the disk.
#[derive(Debug)]
pub struct DiskBuffer {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl DiskBuffer {
    /// Zeros.
    pub fn new(length: usize) -> DiskBuffer {
        let memory = vec![0; length + PAGE];
        let start = memory.as_ptr().align_offset(PAGE);
        DiskBuffer { memory, start, length }
    }
}

impl Deref for DiskBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }
}

impl DerefMut for DiskBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.length]
    }
}
