//! What a lock looks like at some moment: who holds, who waits, for whom; and a map of it for people.
//!
//! # Promise
//! Each request in a [`Snapshot`] was live at some moment of the call that took it, and each that was live during the
//! whole of that call is in it, also if its guard was converted meanwhile. The lock goes on: of two requests of which
//! one made way for the other, both may be there, and so may a guard as it was before it was converted and as it is
//! since.
//!
//! A waiter with nobody in front has been called, or is looking at this moment (or it is a part of a batch, and waits
//! for the others). If a snapshot says so again and again, it is a future that nobody polls. Since when it has been
//! called is written down nowhere: nothing leads from a slot to who sleeps for it, and a word more in each slot would
//! make a node a third larger. The snapshot says how long it waits in all.
//!
//! `{}` draws a map of it (`snapshot/map.rs`).
//!
//! # Cost
//! Taking one is linear in the requests, and so is each question who waits for whom: the pairs, which a jammed lock has
//! by the million, are not stored.

use crate::facts::mode::Mode;
use crate::facts::owner::{self, OwnerId};
use crate::facts::range::ByteRange;
use map::Map;
use std::fmt;
use std::time::Duration;

mod map;
#[cfg(test)]
mod tests;

/// A request as it was seen in a lock's tree.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) start: u64,
    /// Inclusive, and not below `start`.
    pub(crate) last: u64,
    pub(crate) mode: Mode,
    pub(crate) owner: OwnerId,
    pub(crate) came: Came,
    /// Where it waits; `None` for one that holds or is just arriving, which others take for a holder.
    pub(crate) place: Option<Place>,
}

/// What is known of when a request came that does not wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Came {
    /// At this order: it may be just arriving, and then it is behind those who have queued before.
    At(u64),
    /// It holds for certain.
    Holds,
}

impl Came {
    /// Whether it is known to be behind whoever has `ticket`.
    fn is_after(self, ticket: u64) -> bool {
        matches!(self, Came::At(order) if owner::came_after(order, ticket))
    }
}

/// A place in the queue.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) ticket: u64,
    pub(crate) age: Duration,
    /// Tickets of the requests that this one was let past: they wait for it now, though they came before.
    pub(crate) passes: Vec<u64>,
    /// Whether it is a part of a batch, whose other parts may be in other locks.
    pub(crate) is_part: bool,
}

/// One request of a [`Snapshot`], or a hold of which [`RangeLock::conflicts`](crate::RangeLock::conflicts) tells.
#[derive(Clone, Debug)]
pub struct RequestInfo {
    number: usize,
    range: ByteRange,
    mode: Mode,
    owner: OwnerId,
    name: Option<Box<str>>,
    came: Came,
    place: Option<Place>,
}

impl RequestInfo {
    /// Its index in [`Snapshot::requests`], which is `#number` in the map; or in what
    /// [`RangeLock::conflicts`](crate::RangeLock::conflicts) returned.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The bytes that it holds or waits for.
    pub fn range(&self) -> ByteRange {
        self.range
    }

    /// The mode that it holds them in or asks for.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whose request it is.
    pub fn owner(&self) -> OwnerId {
        self.owner
    }

    /// What its owner is called, if it is an [`Owner`](crate::Owner) with a name.
    pub fn owner_name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The owner as the map shows it.
    fn who(&self) -> String {
        match &self.name {
            Some(name) => format!("{} \"{name}\"", self.owner),
            None => self.owner.to_string(),
        }
    }

    /// How long it had waited; `None` for a holder.
    pub fn waiting(&self) -> Option<Duration> {
        self.place.as_ref().map(|place| place.age)
    }

    /// Whether it holds its range. (One that is just arriving and has found nobody in its way yet counts as a holder.)
    pub fn is_holder(&self) -> bool {
        self.place.is_none()
    }

    /// The rule of [`Snapshot::waits_for`].
    fn waits_for(&self, other: &RequestInfo) -> bool {
        let Some(mine) = &self.place else { return false };
        let conflict =
            self.owner != other.owner && !self.mode.goes_with(other.mode) && self.range.overlaps(other.range);
        conflict
            && match &other.place {
                None => !other.came.is_after(mine.ticket),
                Some(its) if mine.passes.contains(&its.ticket) => false,
                Some(its) => its.ticket < mine.ticket || its.passes.contains(&mine.ticket),
            }
    }
}

/// Everybody who held or waited for a range of a lock at some moment.
///
/// The lock was not stopped for it: requests that come and go meanwhile may or may not be there.
///
/// `Display` draws a map of the bytes in use, holders above and the queue below. Long lists are cut; `{:#}` shows
/// everything.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Of the lock.
    name: Option<Box<str>>,
    /// Holders by range, then waiters by ticket.
    requests: Vec<RequestInfo>,
    holders: usize,
}

impl Snapshot {
    pub(crate) fn new(mut rows: Vec<Row>) -> Snapshot {
        // Whoever has no ticket comes first.
        rows.sort_by_key(|row| (row.place.as_ref().map(|place| place.ticket), row.start, row.last, row.owner));
        let holders = rows.partition_point(|row| row.place.is_none());
        let info = |(number, row): (usize, Row)| {
            let Row { start, last, mode, owner, came, place } = row;
            let name = owner::name_of(owner);
            RequestInfo { number, range: ByteRange::new(start..=last), mode, owner, name, came, place }
        };
        Snapshot { name: None, requests: rows.into_iter().enumerate().map(info).collect(), holders }
    }

    pub(crate) fn of(name: Option<&str>, rows: Vec<Row>) -> Snapshot {
        Snapshot { name: name.map(Box::from), ..Snapshot::new(rows) }
    }

    pub(crate) fn into_requests(self) -> Vec<RequestInfo> {
        self.requests
    }

    /// The lock's name, if it has one.
    pub fn lock(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// All requests: first the holders in the order of their ranges, then the waiters, oldest first.
    pub fn requests(&self) -> &[RequestInfo] {
        &self.requests
    }

    /// Those that hold their range, in the order of these ranges.
    pub fn holders(&self) -> impl ExactSizeIterator<Item = &RequestInfo> {
        self.requests[..self.holders].iter()
    }

    /// Those that wait, in the order in which they queued.
    pub fn waiters(&self) -> impl ExactSizeIterator<Item = &RequestInfo> {
        self.requests[self.holders..].iter()
    }

    /// Those that must end before `waiter`, a request of this snapshot, is granted: every other owner's that shares a
    /// byte with it in a mode that does not go with its own, and holds or stands before it in the queue.
    ///
    /// Looks through all requests.
    pub fn waits_for<'s>(&'s self, waiter: &'s RequestInfo) -> impl Iterator<Item = &'s RequestInfo> {
        self.requests.iter().filter(move |other| waiter.waits_for(other))
    }

    /// Those that wait for `request`, a request of this snapshot, to end: [`Snapshot::waits_for`] the other way round.
    ///
    /// Looks through all waiters.
    pub fn held_up_by<'s>(&'s self, request: &'s RequestInfo) -> impl Iterator<Item = &'s RequestInfo> {
        self.waiters().filter(move |waiter| waiter.waits_for(request))
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requests.is_empty() {
            return match self.lock() {
                Some(name) => write!(f, "{name}: nothing is held, nobody waits"),
                None => f.write_str("nothing is held, nobody waits"),
            };
        }
        let most = if f.alternate() { usize::MAX } else { map::SHOWN };
        f.write_str(&Map::new(self, most).lines().join("\n"))
    }
}
