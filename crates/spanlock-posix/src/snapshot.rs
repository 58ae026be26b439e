//! What a file looks like at one moment: its locks and who waits, for programs and for people.
//!
//! # The map
//! ```text
//! 2 locks, 1 waiting, the longest for 12.3 ms
//! R read, W write; small letters wait
//! #0 |WWWWWWWWWWWWWWWW                | 0..4096     write  process 7 (pid 100)
//! #1 |                RRRRRRRRRRRRRRRR| 4096..8192  read   process 8 (pid 200)
//!    |rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr| 0..8192     read   process 9 (pid 300), 12.3 ms, for process 7
//! ```
//! Each stretch between two neighbouring bounds has the same number of columns, however long it is.

use crate::caller::{Class, Key, Kind, Who};
use crate::extent::Extent;
use crate::table::{Group, Record, Table};
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// Columns of a map, at most, if there are not more bounds than that.
const WIDTH: usize = 64;

/// Locks, and as many requests that wait, that a map shows unless it is asked for all.
const SHOWN: usize = 24;

/// A lock, as `F_GETLK` tells of it and as it is dumped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lock<O> {
    /// Whose it is.
    pub who: Who<O>,
    /// The process that has set it, or the one of the lock that it was joined to. (`l_pid`: -1 for an open file
    /// description.)
    pub pid: i32,
    /// Its kind.
    pub kind: Kind,
    /// What it covers.
    pub extent: Extent,
}

impl<O: Clone> Lock<O> {
    pub(crate) fn of((who, record): (&Who<O>, &Record)) -> Lock<O> {
        Lock { who: who.clone(), pid: record.pid, kind: record.kind, extent: record.extent }
    }
}

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waits<O> {
    /// What it asks for.
    pub lock: Lock<O>,
    /// How long it has waited.
    pub since: Duration,
    /// In the kernel's order: for whom. `None` in order of arrival, where it may be many.
    pub holder: Option<Who<O>>,
}

/// The locks of a file, and who waits, at one moment.
///
/// `Display` draws a map; `{:#}` shows all of long lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot<O> {
    /// Owners in the order in which they came to hold something, of each the locks in the order of their bytes. Those
    /// by `flock` come last.
    pub locks: Vec<Lock<O>>,
    /// Who waits, in the order in which they came.
    pub waits: Vec<Waits<O>>,
}

impl<O> Snapshot<O> {
    pub(crate) fn append(&mut self, mut other: Snapshot<O>) {
        self.locks.append(&mut other.locks);
        self.waits.append(&mut other.waits);
    }
}

impl<O: Key> Table<O> {
    /// All of them, as a dump has them.
    pub(crate) fn locks(&self) -> Vec<Lock<O>> {
        self.groups().flat_map(Group::locks).collect()
    }

    /// Those of an owner.
    pub(crate) fn locks_of(&self, group: u64) -> Vec<Lock<O>> {
        self.group(group).into_iter().flat_map(Group::locks).collect()
    }
}

impl<O: Clone> Group<O> {
    fn locks(&self) -> impl Iterator<Item = Lock<O>> {
        self.records.values().map(|record| Lock::of((&self.who, record)))
    }
}

/// `process 7`.
impl<O: fmt::Debug> fmt::Display for Who<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = match self.class {
            Class::Process => "process",
            Class::Description => "description",
            Class::Flock => "flock",
            Class::Handle => "handle",
        };
        write!(f, "{class} {:?}", self.key)
    }
}

/// `process 7 (pid 100)`.
fn named<O: fmt::Debug>(lock: &Lock<O>) -> String {
    match lock.pid {
        0 | -1 => lock.who.to_string(),
        pid => format!("{} (pid {pid})", lock.who),
    }
}

impl<O: fmt::Debug> fmt::Display for Snapshot<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.locks.len() == 1 { "" } else { "s" };
        write!(f, "{} lock{plural}, {} waiting", self.locks.len(), self.waits.len())?;
        if let Some(longest) = self.waits.iter().map(|waits| waits.since).max() {
            write!(f, ", the longest for {longest:.1?}")?;
        }
        if self.locks.is_empty() && self.waits.is_empty() {
            return Ok(());
        }
        let most = if f.alternate() { usize::MAX } else { SHOWN };
        let locks = || self.locks.iter().take(most);
        let waits = || self.waits.iter().take(most);
        let all = || locks().chain(waits().map(|waits| &waits.lock));
        let bounds: BTreeSet<u128> = all().flat_map(|lock| bounds(lock.extent)).collect();
        let bounds: Vec<u128> = bounds.into_iter().collect();
        let each = (WIDTH / (bounds.len() - 1).max(1)).max(1);
        let column = |at: u128| bounds.partition_point(|&bound| bound < at) * each;
        let number = self.locks.len().min(most).saturating_sub(1).to_string().len() + 1;
        let extent = all().map(|lock| lock.extent.to_string().len()).max().unwrap_or(0);
        let row = |f: &mut fmt::Formatter<'_>, name: &str, letter: char, lock: &Lock<O>| {
            let [first, behind] = bounds_of(lock.extent).map(column);
            let (columns, letter) = (column(u128::MAX).saturating_sub(each), String::from(letter));
            let bar = " ".repeat(first) + &letter.repeat(behind - first) + &" ".repeat(columns - behind);
            write!(f, "\n{name:number$} |{bar}| {:extent$}  {:5}  {}", lock.extent, lock.kind, named(lock))
        };
        f.write_str("\nR read, W write; small letters wait")?;
        for (index, lock) in locks().enumerate() {
            row(f, &format!("#{index}"), if lock.kind == Kind::Read { 'R' } else { 'W' }, lock)?;
        }
        cut(f, self.locks.len().saturating_sub(most), "hold")?;
        for Waits { lock, since, holder } in waits() {
            row(f, "", if lock.kind == Kind::Read { 'r' } else { 'w' }, lock)?;
            write!(f, ", {since:.1?}")?;
            if let Some(holder) = holder {
                write!(f, ", for {holder}")?;
            }
        }
        cut(f, self.waits.len().saturating_sub(most), "wait")
    }
}

/// The first byte and the one behind. Of a place as well: it is drawn as the byte at it.
fn bounds_of(extent: Extent) -> [u128; 2] {
    let first = u128::from(extent.start());
    [first, extent.last().map_or(first, u128::from) + 1]
}

fn bounds(extent: Extent) -> impl Iterator<Item = u128> {
    bounds_of(extent).into_iter()
}

fn cut(f: &mut fmt::Formatter<'_>, count: usize, what: &str) -> fmt::Result {
    match count {
        0 => Ok(()),
        _ => write!(f, "\n... and {count} more who {what}"),
    }
}
