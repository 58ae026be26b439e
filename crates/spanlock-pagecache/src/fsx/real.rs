//! The log of the real fsx (`--record-ops`), as steps of ours.
//!
//! A line is an operation and three numbers (four for copies): the place, the length, and the size of the file before,
//! or for copies the place that is copied to. `skip` in front says that nothing was done; words behind say how.
//!
//! One line becomes one step, or two if the file was closed and opened again behind it: what step `n` writes says `n`,
//! so the numbers are those of this list.

use crate::fsx::exercise::MOST;
use crate::fsx::{Kind, Step};

/// The steps of a whole log. Lines that are empty or begin with `#` are left out.
pub fn steps(text: &str) -> Result<Vec<Step>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let steps: Vec<_> = lines.map(steps_of).collect::<Result<_, _>>()?;
    Ok(steps.into_iter().flatten().collect())
}

/// Whether a log is one of the real fsx: ours have the number of a file in front.
pub fn is_real(text: &str) -> bool {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    first.is_some_and(|line| !line.starts_with(|first: char| first.is_ascii_digit()))
}

fn steps_of(line: &str) -> Result<Vec<Step>, String> {
    let wrong = |what: &str| format!("`{line}` {what}: a line of fsx is NAME 0xPLACE 0xLENGTH 0xSIZE");
    let mut words = line.split_whitespace().peekable();
    let skipped = words.next_if_eq(&"skip").is_some();
    let name = words.next().ok_or_else(|| wrong("names no operation"))?;
    let mut numbers = Vec::new();
    while let Some(word) = words.next_if(|word| word.starts_with(|first: char| first.is_ascii_digit())) {
        let number = match word.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => word.parse(),
        };
        numbers.push(number.map_err(|_| wrong(&format!("has `{word}` for a number")))?);
    }
    let flags: Vec<&str> = words.collect();
    let known = ["keep_size", "close_open", "unshare", "dontcache", "atomic", "*"];
    if let Some(flag) = flags.iter().find(|flag| !known.contains(flag)) {
        return Err(wrong(&format!("has `{flag}` behind it, which is not known")));
    }
    let &[a, b, c, ..] = numbers.as_slice() else { return Err(wrong("has fewer than three numbers")) };
    let keeps_size = flags.contains(&"keep_size");
    let (kind, a, b) = match name {
        _ if skipped => (Kind::Skip, a, b),
        "read" => (Kind::Read, a, b),
        "write" | "write_dontcache" | "write_atomic" => (Kind::Write, a, b),
        "read_dontcache" => (Kind::Read, a, b),
        "mapread" => (Kind::MapRead, a, b),
        "mapwrite" => (Kind::MapWrite, a, b),
        "truncate" => (Kind::Truncate, b, 0),
        "fallocate" if keeps_size => (Kind::Skip, a, b),
        "fallocate" => (Kind::Allocate, a, b),
        "punch_hole" => (Kind::Punch, a, b),
        "zero_range" if keeps_size => (Kind::Zero, a, b),
        "zero_range" => (Kind::ZeroExtend, a, b),
        "collapse_range" => (Kind::Collapse, a, b),
        "insert_range" => (Kind::Insert, a, b),
        "clone_range" | "copy_range" => (Kind::Copy, a, b),
        "dedupe_range" => (Kind::Skip, a, b), // the bytes are the same afterwards
        "fsync" => (Kind::Sync, a, b),
        _ => return Err(wrong(&format!("names `{name}`, which is not known here"))),
    };
    let c = if kind == Kind::Copy { c } else { 0 };
    if kind != Kind::Skip && a.max(c).checked_add(b).is_none_or(|end| end > MOST) {
        return Err(format!("`{line}` reaches behind byte {MOST}, which is as large as files become here (fsx -l)"));
    }
    let step = Step { file: 0, kind, a, b, c };
    let reopen = Step { file: 0, kind: Kind::Reopen, a: 0, b: 0, c: 0 };
    Ok(if flags.contains(&"close_open") { vec![step, reopen] } else { vec![step] })
}
