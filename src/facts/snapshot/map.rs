//! A snapshot as a text for people: a map of the lock.
//!
//! ```text
//! 2 holding, 2 waiting, the longest for 12.3 ms
//! A add, B block, X exclusive; small letters wait
//! #0 |AAAAAAAAAAAAAAAA                                                | 0..4096      add        thread 1  holds up 1
//! #1 |                                BBBBBBBBBBBBBBBB                | 8192..12288  block      thread 2  holds up 1
//!    +----------------+---------------+---------------+---------------+ 0..16384, a column is 256 bytes
//! #2 |xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx| 0..16384     exclusive  thread 3  12.3 ms, waits for #0, #1
//! #3 |aaaaaaaaaaaaaaaa                                                | 0..4096      add        thread 4  830.0 us, waits for #2
//! ```
//! Holders stand above the axis, in the order of their ranges; the queue below, oldest first. A row begins with the
//! number that its request has in [`Snapshot::requests`]. "Holds up" counts the waiters whose way it is in.
//!
//! The axis reaches from the first byte that a row names to the last. Ranges that touch are drawn side by side, and
//! every range is at least one column wide. If too many are narrower than that (a page here and a page far off), the
//! scale gives each stretch between two neighbouring bounds the same width instead, and the first line says so.

use super::{RequestInfo, Snapshot};
use crate::facts::elapsed::Elapsed;
use crate::facts::mode::Mode;
use crate::facts::range::ByteRange;
use std::collections::BTreeSet;

/// Columns of a map.
pub(super) const WIDTH: usize = 64;

/// Holders, and as many waiters, that a map shows unless it is asked for all.
pub(super) const SHOWN: usize = 24;

/// Requests that a row of a map names as those that it waits for.
const NAMED: usize = 6;

/// What is drawn of a snapshot.
pub(super) struct Map<'s> {
    snapshot: &'s Snapshot,
    holders: Vec<&'s RequestInfo>,
    waiters: Vec<&'s RequestInfo>,
    scale: Scale,
    widths: Widths,
    /// Requests that a row names as those that it waits for.
    named: usize,
}

/// How wide the parts of a row are.
struct Widths {
    number: usize,
    range: usize,
    mode: usize,
    owner: usize,
}

impl<'s> Map<'s> {
    /// At most `most` holders and as many waiters.
    pub(super) fn new(snapshot: &'s Snapshot, most: usize) -> Map<'s> {
        let waiters: Vec<_> = snapshot.waiters().take(most).collect();
        let holders = pick_holders(snapshot, &waiters, most);
        let rows: Vec<_> = holders.iter().chain(&waiters).copied().collect();
        let widest = |text: fn(&RequestInfo) -> String| rows.iter().map(|row| text(row).len()).max().unwrap_or(0);
        let widths = Widths {
            number: widest(|row| row.number.to_string()),
            range: widest(|row| row.range.to_string()),
            mode: widest(|row| row.mode.to_string()),
            owner: widest(RequestInfo::who),
        };
        let scale = Scale::choose(rows.iter().map(|row| row.range));
        let named = if most == usize::MAX { most } else { NAMED };
        Map { snapshot, holders, waiters, scale, widths, named }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.summary(), "A add, B block, X exclusive; small letters wait".to_string()];
        for row in &self.holders {
            let end = match self.snapshot.held_up_by(row).count() {
                0 => String::new(),
                count => format!("holds up {count}"),
            };
            lines.push(self.row(row, letter(row.mode), &end));
        }
        lines.extend(cut(self.snapshot.holders().len() - self.holders.len(), "hold"));
        lines.push(format!("{:margin$}{}", "", self.scale.axis(), margin = self.widths.number + 2));
        for row in &self.waiters {
            let age = Elapsed(row.waiting().unwrap_or_default());
            let end = format!("{age}, {}", self.blockers(row));
            lines.push(self.row(row, letter(row.mode).to_ascii_lowercase(), &end));
        }
        lines.extend(cut(self.snapshot.waiters().len() - self.waiters.len(), "wait"));
        lines
    }

    fn summary(&self) -> String {
        let (holders, waiters) = (self.snapshot.holders().len(), self.snapshot.waiters().len());
        let mut line = self.snapshot.lock().map(|name| format!("{name}: ")).unwrap_or_default();
        line += &format!("{holders} holding, {waiters} waiting");
        if let Some(longest) = self.snapshot.waiters().filter_map(RequestInfo::waiting).max() {
            line += &format!(", the longest for {}", Elapsed(longest));
        }
        if let Scale::Ranks(_) = self.scale {
            line += "; columns are not to scale";
        }
        line
    }

    fn row(&self, row: &RequestInfo, letter: char, end: &str) -> String {
        let columns = self.scale.columns();
        let (first, behind) = self.scale.place(row.range);
        let bar: String = (0..columns).map(|at| if (first..behind).contains(&at) { letter } else { ' ' }).collect();
        let (number, range, mode, owner) =
            (format!("#{}", row.number), row.range.to_string(), row.mode.to_string(), row.who());
        let Widths { number: w0, range: w1, mode: w2, owner: w3 } = self.widths;
        let w0 = w0 + 1;
        let line = format!("{number:w0$} |{bar}| {range:w1$}  {mode:w2$}  {owner:w3$}  {end}");
        line.trim_end().to_string()
    }

    /// Whom a waiter waits for.
    fn blockers(&self, waiter: &RequestInfo) -> String {
        let mut blockers = self.snapshot.waits_for(waiter).map(|blocker| format!("#{}", blocker.number));
        let named: Vec<_> = blockers.by_ref().take(self.named).collect();
        match (named.is_empty(), blockers.count()) {
            (true, _) if waiter.place.as_ref().is_some_and(|place| place.is_part) => {
                "nobody in front of this part of a batch: waits for the others".to_string()
            }
            // It is looking at this moment, or nobody has polled it since: when it was called, nobody has written down.
            (true, _) => "nobody in front: called, and has not come yet".to_string(),
            (false, 0) => format!("waits for {}", named.join(", ")),
            (false, more) => format!("waits for {} and {more} more", named.join(", ")),
        }
    }
}

/// If there are too many holders, those that the shown waiters wait for come first: they are whom one looks for. In
/// order.
fn pick_holders<'s>(snapshot: &'s Snapshot, waiters: &[&RequestInfo], most: usize) -> Vec<&'s RequestInfo> {
    if snapshot.holders().len() <= most {
        return snapshot.holders().collect();
    }
    let (wanted, others): (Vec<_>, Vec<_>) =
        snapshot.holders().partition(|holder| waiters.iter().any(|waiter| waiter.waits_for(holder)));
    let mut picked: Vec<_> = wanted.into_iter().chain(others).take(most).collect();
    picked.sort_by_key(|holder| holder.number);
    picked
}

/// The line that stands for `more` rows that are not drawn.
fn cut(more: usize, verb: &str) -> Option<String> {
    (more > 0).then(|| format!("... and {more} more {verb}"))
}

fn letter(mode: Mode) -> char {
    match mode {
        Mode::Add => 'A',
        Mode::Block => 'B',
        Mode::Exclusive => 'X',
    }
}

/// Which columns a range takes.
///
/// Both scales cut the axis into *units* of equal width, and a bound between two units is drawn at the column where it
/// falls, or the one before. So two ranges that touch are drawn side by side.
pub(super) enum Scale {
    /// A unit is a byte of this range.
    Bytes(ByteRange),
    /// A unit is a stretch between neighbouring bounds: these are its first byte, and behind the last unit the last
    /// bound is.
    Ranks(Vec<u128>),
}

impl Scale {
    /// True to scale, unless that would make at least half of the ranges vanish and the other scale fewer.
    pub(super) fn choose(ranges: impl Iterator<Item = ByteRange>) -> Scale {
        let bounds: BTreeSet<(u64, u64)> = ranges.map(ByteRange::bounds).collect();
        let first = bounds.iter().map(|&(start, _)| start).min().unwrap_or(0);
        let last = bounds.iter().map(|&(_, last)| last).max().unwrap_or(0);
        let bytes = Scale::Bytes(ByteRange::new(first..=last));
        let edges: BTreeSet<u128> =
            bounds.iter().flat_map(|&(start, last)| [u128::from(start), u128::from(last) + 1]).collect();
        let ranks = Scale::Ranks(edges.into_iter().collect());
        let vanish = |scale: &Scale| {
            bounds
                .iter()
                .filter(|&&(start, last)| scale.column(start.into()) == scale.column(u128::from(last) + 1))
                .count()
        };
        let lost = vanish(&bytes);
        if lost * 2 >= bounds.len() && vanish(&ranks) < lost { ranks } else { bytes }
    }

    fn units(&self) -> u128 {
        match self {
            Scale::Bytes(range) => range.len(),
            Scale::Ranks(edges) => edges.len() as u128 - 1,
        }
    }

    pub(super) fn columns(&self) -> usize {
        let width = WIDTH as u128;
        // Few units: as many columns for each.
        (if self.units() <= width { width / self.units() * self.units() } else { width }) as usize
    }

    /// The column that begins at, or contains, the bound `edge`: the first byte of a range, or the one behind its last.
    pub(super) fn column(&self, edge: u128) -> usize {
        let unit = match self {
            Scale::Bytes(range) => edge - u128::from(range.bounds().0),
            Scale::Ranks(edges) => edges.partition_point(|&other| other < edge) as u128,
        };
        (unit * self.columns() as u128 / self.units()) as usize
    }

    /// The columns `first..behind`, at least one.
    pub(super) fn place(&self, range: ByteRange) -> (usize, usize) {
        let (start, last) = range.bounds();
        let first = self.column(start.into());
        (first, self.column(u128::from(last) + 1).max(first + 1))
    }

    /// The line between holders and waiters, with ticks: at the quarters, or at the bounds if these are what the
    /// columns stand for.
    fn axis(&self) -> String {
        let columns = self.columns();
        let (ticks, legend): (BTreeSet<usize>, _) = match self {
            Scale::Bytes(range) => {
                let parts = range.len().min(4) as usize;
                let ticks = (1..parts).map(|part| part * columns / parts).collect();
                (ticks, format!("{range}, {}", ratio(range.len(), columns)))
            }
            Scale::Ranks(edges) => {
                let (first, last) = (edges[0] as u64, (edges[edges.len() - 1] - 1) as u64);
                (edges.iter().map(|&edge| self.column(edge)).collect(), ByteRange::new(first..=last).to_string())
            }
        };
        let line: String = (0..columns).map(|at| if at > 0 && ticks.contains(&at) { '+' } else { '-' }).collect();
        format!("+{line}+ {legend}")
    }
}

/// What a column stands for, where `columns` are `bytes`.
fn ratio(bytes: u128, columns: usize) -> String {
    const UNITS: [&str; 7] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < columns as u128 {
        return format!("a byte is {} columns", columns as u128 / bytes);
    }
    let mut size = bytes as f64 / columns as f64;
    let mut unit = 0;
    while size >= 1024.0 {
        size /= 1024.0;
        unit += 1;
    }
    match (size.fract() == 0.0, UNITS[unit]) {
        (true, "bytes") if size == 1.0 => "a column is 1 byte".to_string(),
        (true, unit) => format!("a column is {size:.0} {unit}"),
        (false, unit) => format!("a column is {size:.1} {unit}"),
    }
}
