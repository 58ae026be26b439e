//! The page cache (`crates/spanlock-pagecache`): its operations on two files against flat buffers, as `fsx` does, with
//! steps made of bytes instead of random numbers.
//!
//! The files lie in memory. `fsx/step.rs` says what a step is, `fsx/actor.rs` what it must bring about; here one thread
//! does them all, as `-- fsx` does.
//!
//! `cargo fuzz run pagecache_ops` (on a stable compiler: `cargo fuzz run -s none pagecache_ops`).

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use spanlock_pagecache::device::Place;
use spanlock_pagecache::file_lock::Variant;
use spanlock_pagecache::fsx::exercise::{MOST, Setting, run};
use spanlock_pagecache::fsx::{Kind, Step};

/// A step in eight bytes.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Move {
    /// What, and in the highest bit of which file.
    kind: u8,
    a: Spot,
    /// Bytes; the finer ones come from `rest`.
    len: u8,
    rest: u8,
    c: Spot,
}

/// A byte of the file: a page, and where in it.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Spot {
    page: u8,
    /// Of 16 bytes; the borders, the bytes beside them, and what lies between.
    within: u8,
}

impl Spot {
    fn byte(self) -> u64 {
        let within = match self.within {
            0..=127 => u64::from(self.within / 16) * 512,
            128..=191 => u64::from(self.within - 128) * 64 + 1,
            _ => u64::from(self.within - 192) * 64 + 63,
        };
        u64::from(self.page) % (MOST / 4096) * 4096 + within
    }
}

impl Move {
    fn step(self) -> Step {
        let kinds = Kind::all();
        let len = match self.len {
            // Whole sectors, whole pages, and neither.
            0..=63 => (u64::from(self.len) + 1) * 512 / 4,
            64..=127 => (u64::from(self.len) - 63) % 8 * 4096 + 4096,
            _ => u64::from(self.len - 127) * 64 + u64::from(self.rest),
        };
        Step {
            file: self.kind >> 7,
            kind: kinds[usize::from(self.kind & 0x7f) % kinds.len()],
            a: self.a.byte(),
            b: len.max(1),
            c: self.c.byte(),
        }
    }
}

fuzz_target!(|input: (bool, Vec<Move>)| {
    let (whole, moves) = input;
    let variant = if whole { Variant::Whole } else { Variant::Range };
    let setting = Setting { variant, place: Place::Memory, plant: None };
    let steps: Vec<Step> = moves.into_iter().take(60).map(Move::step).collect();
    match run(&setting, steps.iter().copied(), |_, _, _| {}) {
        Ok(Ok(_)) => {}
        Ok(Err(failure)) => {
            let lines: Vec<String> = steps.iter().map(Step::to_string).collect();
            panic!("{failure}\n{}", lines.join("\n"));
        }
        Err(error) => panic!("there is no file to work on: {error}"),
    }
});
