//! One operation, as numbers and as a line of text: `1 write 4096 512 0`, the file, the operation and what it is about.

use std::fmt;
use std::str::FromStr;

use fastrand::Rng;

/// What is done. The comment says what the three numbers `a`, `b`, `c` of a step mean; each is cut down to what the
/// file allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `b` bytes at `a`, through the cache.
    Read,
    /// The same, written.
    Write,
    /// `b` bytes at `a`, from a mapping of them.
    MapRead,
    /// The same, written.
    MapWrite,
    /// `b` bytes at `a`, past the cache.
    DirectRead,
    /// The same, written.
    DirectWrite,
    /// `b` bytes at `a`, past the cache, by a thread of a queue.
    QueuedRead,
    /// The same, written.
    QueuedWrite,
    /// `b` bytes at `a` become a hole.
    Punch,
    /// `b` bytes at `a` become zeros.
    Zero,
    /// As [`Kind::Zero`], but makes the file longer if need be.
    ZeroExtend,
    /// `b` bytes at `a` are there afterwards, zeros where there was nothing.
    Allocate,
    /// `b` bytes at `a` to `c`, through the cache.
    Copy,
    /// `b` bytes at `a`, from a mapping of `c` and behind, of this file.
    CopyWithin,
    /// The same, of the other file.
    CopyAcross,
    /// `b` bytes at `a`, read directly into a mapping of `c` and behind, of this file.
    ReadInto,
    /// `b` bytes at the end.
    Append,
    /// To size `a`.
    Truncate,
    /// `b` bytes, in whole pages, at the page of `a`.
    Collapse,
    /// The same, put in.
    Insert,
    /// `fsync`. Without numbers, as those that follow.
    Sync,
    /// What is dirty is written back.
    Flush,
    /// What can be evicted is.
    Evict,
    /// Closes the file and opens it again.
    Reopen,
    /// Nothing: what the real fsx has left out.
    Skip,
    /// Reads and compares everything. (A step like the others, because to read a page puts it into the cache.)
    Check,
}

impl Kind {
    /// All of them, with their names, and how often each comes.
    const TABLE: [(Kind, &'static str, u8); 26] = [
        (Kind::Read, "read", 4),
        (Kind::Write, "write", 4),
        (Kind::MapRead, "map-read", 2),
        (Kind::MapWrite, "map-write", 3),
        (Kind::DirectRead, "direct-read", 2),
        (Kind::DirectWrite, "direct-write", 4),
        (Kind::QueuedRead, "queued-read", 2),
        (Kind::QueuedWrite, "queued-write", 3),
        (Kind::Punch, "punch", 2),
        (Kind::Zero, "zero", 1),
        (Kind::ZeroExtend, "zero-extend", 1),
        (Kind::Allocate, "allocate", 1),
        (Kind::Copy, "copy", 1),
        (Kind::CopyWithin, "copy-within", 2),
        (Kind::CopyAcross, "copy-across", 2),
        (Kind::ReadInto, "read-into", 1),
        (Kind::Append, "append", 1),
        (Kind::Truncate, "truncate", 2),
        (Kind::Collapse, "collapse", 1),
        (Kind::Insert, "insert", 1),
        (Kind::Sync, "sync", 1),
        (Kind::Flush, "flush", 1),
        (Kind::Evict, "evict", 1),
        (Kind::Reopen, "reopen", 1),
        (Kind::Skip, "skip", 0),
        (Kind::Check, "check", 1),
    ];

    /// All of them.
    pub fn all() -> [Kind; Kind::TABLE.len()] {
        Kind::TABLE.map(|(kind, ..)| kind)
    }

    fn name(self) -> &'static str {
        Kind::TABLE.iter().find(|(kind, ..)| *kind == self).expect("all are in the table").1
    }

    /// Whether other bytes than those of its own range are changed or moved, or the size.
    pub fn is_structural(self) -> bool {
        use Kind::{Allocate, Append, Collapse, Insert, Truncate, ZeroExtend};
        matches!(self, Append | Truncate | Collapse | Insert | Allocate | ZeroExtend)
    }

    /// Whether it goes together with a direct write that is under way, also in the same place.
    pub fn writes_directly(self) -> bool {
        matches!(self, Kind::DirectWrite | Kind::QueuedWrite | Kind::CopyWithin | Kind::CopyAcross)
    }

    fn random(random: &mut Rng) -> Kind {
        let all: u8 = Kind::TABLE.iter().map(|(.., weight)| weight).sum();
        let mut left = random.u8(..all);
        for (kind, _, weight) in Kind::TABLE {
            if left < weight {
                return kind;
            }
            left -= weight;
        }
        unreachable!("drawn below the sum")
    }
}

/// One operation. As text: `FILE NAME A B C`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which of the two files.
    pub file: u8,
    /// What is done.
    pub kind: Kind,
    /// See [`Kind`].
    pub a: u64,
    /// See [`Kind`].
    pub b: u64,
    /// See [`Kind`].
    pub c: u64,
}

impl Step {
    /// A random one, on files of up to `most` bytes.
    pub fn random(random: &mut Rng, files: u8, most: u64) -> Step {
        let longest = if random.u8(..8) == 0 { 5 * 4096 } else { 6000 };
        let mut place = || {
            let place = random.u64(..most);
            // Borders of pages and sectors are where the mistakes are.
            match random.u8(..4) {
                0 => place / 4096 * 4096,
                1 => place / 512 * 512,
                _ => place,
            }
        };
        let (a, c) = (place(), place());
        Step { file: random.u8(..files), kind: Kind::random(random), a, b: random.u64(1..longest), c }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {} {}", self.file, self.kind.name(), self.a, self.b, self.c)
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(line: &str) -> Result<Step, String> {
        let wrong = |what: &str| format!("`{line}` {what}: a step is FILE NAME A B C, as in `0 write 4096 512 0`");
        // What it did is for people, and for other programs.
        let words: Vec<&str> = line.split("->").next().unwrap_or(line).split_whitespace().collect();
        let [file, name, a, b, c] = words[..] else { return Err(wrong("has not five words")) };
        let number = |word: &str| word.parse::<u64>().map_err(|_| wrong(&format!("has `{word}` for a number")));
        let file = match number(file)? {
            file @ (0 | 1) => file as u8,
            _ => return Err(wrong("names a file that is neither 0 nor 1")),
        };
        let Some((kind, ..)) = Kind::TABLE.iter().find(|(_, known, _)| *known == name) else {
            let names: Vec<_> = Kind::TABLE.iter().map(|(_, name, _)| *name).collect();
            return Err(wrong(&format!("names no operation (there are {})", names.join(", "))));
        };
        Ok(Step { file, kind: *kind, a: number(a)?, b: number(b)?, c: number(c)? })
    }
}
