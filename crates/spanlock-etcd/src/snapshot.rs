//! What a lock looks like at one revision: who holds, who waits, for whom; and a map of it for people, as `spanlock`
//! draws it.

use crate::error::OwnerName;
use crate::record::{Entry, Part, RequestId};
use crate::store::Revision;
use spanlock::{ByteRange, Mode};
use std::collections::BTreeMap;
use std::fmt;

/// Columns of a map.
const WIDTH: u128 = 64;

/// One range of one request in a [`Snapshot`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RequestInfo {
    /// The bytes that it holds or waits for.
    pub range: ByteRange,
    /// The mode that it holds them in or asks for.
    pub mode: Mode,
    /// Whose request it is.
    pub owner: OwnerName,
    /// Its place in the queue: the revision that made it.
    pub ticket: u64,
    /// The numbers of those that it waits for, in [`Snapshot::requests`]; of a request with several ranges those of
    /// this one.
    pub waits_for: Vec<usize>,
    /// Whether it holds. (One whose last blocker has just gone counts as a holder, whether it has noticed or not. A
    /// request for ranges of several locks is judged by this one.)
    pub is_holder: bool,
}

/// Everybody who held or waited for a range of a lock, on all machines, at one revision of the store.
///
/// `Display` draws a map: holders above the axis, the queue below, both in the order of their tickets.
#[derive(Clone, Debug)]
pub struct Snapshot {
    revision: Revision,
    requests: Vec<RequestInfo>,
}

impl Snapshot {
    pub(crate) fn new(lock: &str, entries: BTreeMap<RequestId, Entry>, revision: Revision) -> Snapshot {
        let waits = |entry: &Entry| entries.values().any(|other| entry.waits_for(other));
        let mut rows: Vec<_> = entries
            .values()
            .map(|entry| (entry, waits(entry)))
            .flat_map(|(entry, waits)| entry.record.parts.iter().map(move |part| (entry, part, waits)))
            .filter(|(_, part, _)| part.lock == lock)
            .collect();
        rows.sort_by_key(|(entry, part, waits)| (*waits, entry.created, part.first));
        let blockers = |entry: &Entry, part: &Part| {
            (0..rows.len()).filter(|&at| part.meets(rows[at].1) && entry.waits_for(rows[at].0)).collect()
        };
        let info = |&(entry, part, waits): &(&Entry, &Part, bool)| RequestInfo {
            range: part.range(),
            mode: part.mode(),
            owner: OwnerName { id: entry.owner(), name: entry.record.name.clone() },
            ticket: entry.created as u64,
            waits_for: if waits { blockers(entry, part) } else { Vec::new() },
            is_holder: !waits,
        };
        Snapshot { revision, requests: rows.iter().map(info).collect() }
    }

    /// The store's revision that was read.
    pub fn revision(&self) -> u64 {
        self.revision as u64
    }

    /// All of them: holders first, then waiters, oldest first.
    pub fn requests(&self) -> &[RequestInfo] {
        &self.requests
    }

    /// Those that hold.
    pub fn holders(&self) -> impl Iterator<Item = &RequestInfo> {
        self.requests.iter().filter(|request| request.is_holder)
    }

    /// Those that wait.
    pub fn waiters(&self) -> impl Iterator<Item = &RequestInfo> {
        self.requests.iter().filter(|request| !request.is_holder)
    }

    /// The bytes that the map shows.
    fn span(&self) -> (u64, u64) {
        let starts = self.requests.iter().filter_map(|request| request.range.start());
        let lasts = self.requests.iter().filter_map(|request| request.range.last());
        (starts.min().unwrap_or(0), lasts.max().unwrap_or(0))
    }

    fn bar(&self, request: &RequestInfo) -> String {
        let (from, to) = self.span();
        let bytes = u128::from(to - from) + 1;
        let column = |byte: u64| u128::from(byte - from) * WIDTH / bytes;
        let (first, last) = (request.range.start().map(column), request.range.last().map(column));
        let letter = match request.mode {
            Mode::Add => 'A',
            Mode::Block => 'B',
            Mode::Exclusive => 'X',
        };
        let letter = if request.is_holder { letter } else { letter.to_ascii_lowercase() };
        (0..WIDTH).map(|at| if first <= Some(at) && Some(at) <= last { letter } else { ' ' }).collect()
    }

    fn row(&self, f: &mut fmt::Formatter<'_>, number: usize) -> fmt::Result {
        let request = &self.requests[number];
        let RequestInfo { range, owner, ticket, .. } = request;
        write!(f, "\n{:>3} |{}| {range}  {owner}  ticket {ticket}", format!("#{number}"), self.bar(request))?;
        let held_up = self.requests.iter().filter(|other| other.waits_for.contains(&number)).count();
        let mut named = request.waits_for.iter().map(|at| format!("#{at}"));
        match (request.is_holder, held_up) {
            (true, 0) => Ok(()),
            (true, count) => write!(f, "  holds up {count}"),
            (false, _) => {
                let first: Vec<_> = named.by_ref().take(6).collect();
                write!(f, "  waits for {}", first.join(", "))?;
                match named.count() {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
        }
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (holders, waiters) = (self.holders().count(), self.waiters().count());
        if self.requests.is_empty() {
            return write!(f, "nothing is held, nobody waits, at revision {}", self.revision);
        }
        write!(f, "{holders} holding, {waiters} waiting, at revision {}", self.revision)?;
        f.write_str("\nA add, B block, X exclusive; small letters wait")?;
        (0..holders).try_for_each(|number| self.row(f, number))?;
        let (from, to) = self.span();
        let axis = "-".repeat(WIDTH as usize);
        write!(f, "\n    +{axis}+ {}", ByteRange::new(from..=to))?;
        (holders..self.requests.len()).try_for_each(|number| self.row(f, number))
    }
}
