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
//! # The map
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
//!
//! # Cost
//! Taking one is linear in the requests, and so is each question who waits for whom: the pairs, which a jammed lock has
//! by the million, are not stored.

use crate::facts::elapsed::Elapsed;
use crate::facts::mode::Mode;
use crate::facts::owner::{self, OwnerId};
use crate::facts::range::ByteRange;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// Columns of a map.
const WIDTH: usize = 64;

/// Holders, and as many waiters, that a map shows unless it is asked for all.
const SHOWN: usize = 24;

/// Requests that a row of a map names as those that it waits for.
const NAMED: usize = 6;

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
        let most = if f.alternate() { usize::MAX } else { SHOWN };
        f.write_str(&Map::new(self, most).lines().join("\n"))
    }
}

/// What is drawn of a snapshot.
struct Map<'s> {
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
    fn new(snapshot: &'s Snapshot, most: usize) -> Map<'s> {
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

    fn lines(&self) -> Vec<String> {
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
enum Scale {
    /// A unit is a byte of this range.
    Bytes(ByteRange),
    /// A unit is a stretch between neighbouring bounds: these are its first byte, and behind the last unit the last
    /// bound is.
    Ranks(Vec<u128>),
}

impl Scale {
    /// True to scale, unless that would make at least half of the ranges vanish and the other scale fewer.
    fn choose(ranges: impl Iterator<Item = ByteRange>) -> Scale {
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

    fn columns(&self) -> usize {
        let width = WIDTH as u128;
        // Few units: as many columns for each.
        (if self.units() <= width { width / self.units() * self.units() } else { width }) as usize
    }

    /// The column that begins at, or contains, the bound `edge`: the first byte of a range, or the one behind its last.
    fn column(&self, edge: u128) -> usize {
        let unit = match self {
            Scale::Bytes(range) => edge - u128::from(range.bounds().0),
            Scale::Ranks(edges) => edges.partition_point(|&other| other < edge) as u128,
        };
        (unit * self.columns() as u128 / self.units()) as usize
    }

    /// The columns `first..behind`, at least one.
    fn place(&self, range: ByteRange) -> (usize, usize) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use Mode::{Add, Block, Exclusive};
    use std::ops::RangeBounds;

    fn row(range: impl RangeBounds<u64>, mode: Mode, thread: u64) -> Row {
        let (start, last) = ByteRange::new(range).bounds();
        Row { start, last, mode, owner: OwnerId::from_slot(thread * 1024), came: Came::Holds, place: None }
    }

    fn queued(range: impl RangeBounds<u64>, mode: Mode, thread: u64, ticket: u64, millis: u64) -> Row {
        let place = Place { ticket, age: Duration::from_millis(millis), passes: Vec::new(), is_part: false };
        Row { place: Some(place), ..row(range, mode, thread) }
    }

    fn numbers<'s>(requests: impl Iterator<Item = &'s RequestInfo>) -> Vec<usize> {
        requests.map(RequestInfo::number).collect()
    }

    #[track_caller]
    fn assert_drawn(rows: Vec<Row>, expected: &[&str]) {
        let drawn = Snapshot::new(rows).to_string();
        assert!(drawn.lines().eq(expected.iter().copied()), "drawn:\n{drawn}\nexpected:\n{}", expected.join("\n"));
    }

    #[test]
    fn holders_are_in_the_order_of_ranges_and_waiters_in_that_of_tickets() {
        let snapshot = Snapshot::new(vec![
            queued(0..10, Exclusive, 1, 9, 1),
            row(90..100, Add, 2),
            queued(50..60, Block, 3, 4, 20),
            row(10..20, Block, 4),
        ]);
        assert_eq!(numbers(snapshot.requests().iter()), [0, 1, 2, 3]);
        assert_eq!(numbers(snapshot.holders()), [0, 1]);
        assert_eq!(numbers(snapshot.waiters()), [2, 3]);
        let seen: Vec<_> =
            snapshot.requests().iter().map(|one| (one.range().start(), one.mode(), one.owner().get())).collect();
        assert_eq!(
            seen,
            [(Some(10), Block, 4096), (Some(90), Add, 2048), (Some(50), Block, 3072), (Some(0), Exclusive, 1024)]
        );
        let waiting: Vec<_> = snapshot.requests().iter().map(RequestInfo::waiting).collect();
        assert_eq!(waiting, [None, None, Some(Duration::from_millis(20)), Some(Duration::from_millis(1))]);
    }

    /// Everything that makes a conflict, and each part of it missing once.
    #[test]
    fn a_waiter_waits_for_what_conflicts_and_came_before() {
        let snapshot = Snapshot::new(vec![
            row(0..10, Add, 1),                // 0: goes with it
            row(10..20, Block, 2),             // 1: waited for
            row(15..25, Block, 9),             // 2: its own owner's
            row(20..30, Exclusive, 3),         // 3: touches, shares no byte
            queued(0..20, Block, 4, 5, 9),     // 4: waited for
            queued(0..20, Add, 5, 6, 9),       // 5: goes with it
            queued(0..20, Add, 9, 7, 9),       // 6: whose waits these are
            queued(0..20, Exclusive, 6, 8, 9), // 7: came later
        ]);
        let me = &snapshot.requests()[6];
        assert_eq!(numbers(snapshot.waits_for(me)), [1, 4]);
        assert_eq!(numbers(snapshot.held_up_by(me)), [7]);
        let holder = &snapshot.requests()[1];
        assert_eq!(numbers(snapshot.waits_for(holder)), []);
        assert_eq!(numbers(snapshot.held_up_by(holder)), [5, 6, 7]);
    }

    #[test]
    fn who_was_let_past_is_waited_for_by_who_came_before() {
        let mut nested = queued(0..10, Add, 1, 8, 1);
        nested.place.as_mut().expect("it waits").passes.push(5);
        let snapshot = Snapshot::new(vec![queued(0..10, Block, 2, 5, 2), queued(0..10, Block, 3, 6, 2), nested]);
        let [passed, between, nested] = snapshot.requests() else { panic!("three requests") };
        assert_eq!(numbers(snapshot.waits_for(passed)), [2]);
        assert_eq!(numbers(snapshot.waits_for(between)), []);
        assert_eq!(numbers(snapshot.waits_for(nested)), [1]);
    }

    #[test]
    fn a_quiet_lock() {
        assert_drawn(vec![], &["nothing is held, nobody waits"]);
    }

    #[test]
    fn one_holder_of_everything() {
        assert_drawn(
            vec![row(.., Exclusive, 1)],
            &[
                "1 holding, 0 waiting",
                "A add, B block, X exclusive; small letters wait",
                "#0 |XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX| 0..  exclusive  thread 1",
                "   +----------------+---------------+---------------+---------------+ 0.., a column is 256 PiB",
            ],
        );
    }

    /// The picture of the header.
    #[test]
    fn disjoint_holders_and_a_queue() {
        let mut last = queued(0..4096, Add, 4, 8, 0);
        last.place.as_mut().expect("it waits").age = Duration::from_micros(830);
        assert_drawn(
            vec![
                row(0..4096, Add, 1),
                row(8192..12288, Block, 2),
                Row {
                    place: Some(Place {
                        ticket: 7,
                        age: Duration::from_micros(12_345),
                        passes: Vec::new(),
                        is_part: false,
                    }),
                    ..row(0..16384, Exclusive, 3)
                },
                last,
            ],
            &[
                "2 holding, 2 waiting, the longest for 12.3 ms",
                "A add, B block, X exclusive; small letters wait",
                "#0 |AAAAAAAAAAAAAAAA                                                | 0..4096      add        thread 1  holds up 1",
                "#1 |                                BBBBBBBBBBBBBBBB                | 8192..12288  block      thread 2  holds up 1",
                "   +----------------+---------------+---------------+---------------+ 0..16384, a column is 256 bytes",
                "#2 |xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx| 0..16384     exclusive  thread 3  12.3 ms, waits for #0, #1",
                "#3 |aaaaaaaaaaaaaaaa                                                | 0..4096      add        thread 4  830.0 us, waits for #2",
            ],
        );
    }

    #[test]
    fn few_bytes_are_wide() {
        assert_drawn(
            vec![row(7..8, Add, 1)],
            &[
                "1 holding, 0 waiting",
                "A add, B block, X exclusive; small letters wait",
                "#0 |AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA| 7..8  add  thread 1",
                "   +----------------------------------------------------------------+ 7..8, a byte is 64 columns",
            ],
        );
        assert_drawn(
            vec![row(u64::MAX.., Add, 1), row(u64::MAX - 10..u64::MAX, Add, 1 << 53 | 2)],
            &[
                "2 holding, 0 waiting",
                "A add, B block, X exclusive; small letters wait",
                "#0 |AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA     | 18446744073709551605..18446744073709551615  add  owner 2048",
                "#1 |                                                  AAAAA| 18446744073709551615..                      add  thread 1",
                "   +-------------+-------------+-------------+-------------+ 18446744073709551605.., a byte is 5 columns",
            ],
        );
    }

    #[test]
    fn a_column_for_each_byte() {
        assert_drawn(
            vec![row(0..64, Add, 1)],
            &[
                "1 holding, 0 waiting",
                "A add, B block, X exclusive; small letters wait",
                "#0 |AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA| 0..64  add  thread 1",
                "   +----------------+---------------+---------------+---------------+ 0..64, a column is 1 byte",
            ],
        );
    }

    #[test]
    fn ranges_far_apart_are_not_to_scale() {
        assert_drawn(
            vec![row(0..4096, Add, 1), row(u64::MAX - 4095.., Block, 2)],
            &[
                "2 holding, 0 waiting; columns are not to scale",
                "A add, B block, X exclusive; small letters wait",
                "#0 |AAAAAAAAAAAAAAAAAAAAA                                          | 0..4096                 add    thread 1",
                "#1 |                                          BBBBBBBBBBBBBBBBBBBBB| 18446744073709547520..  block  thread 2",
                "   +---------------------+--------------------+--------------------+ 0..",
            ],
        );
    }

    /// Half of them too narrow to be seen is too many.
    #[test]
    fn as_many_pages_as_wide_ranges_are_not_to_scale() {
        let wide = |n: u64| row(n << 60..(n + 1) << 60, Add, 1);
        let page = |n: u64| row(n << 12..(n + 1) << 12, Add, 2);
        let is_to_scale = |rows: Vec<Row>| !Snapshot::new(rows).to_string().contains("not to scale");
        assert!(!is_to_scale((0..4).map(page).chain((4..8).map(wide)).collect()));
        assert!(is_to_scale((0..3).map(page).chain((4..9).map(wide)).collect()));
    }

    /// A range that is too narrow among wide ones is one column, and the others keep their scale.
    #[test]
    fn one_page_of_gigabytes() {
        let gib = 1 << 30;
        assert_drawn(
            vec![
                row(0..gib, Add, 1),
                row(gib..2 * gib, Add, 2),
                row(2 * gib..3 * gib, Block, 2),
                queued(gib + 4096..gib + 8192, Exclusive, 3, 4, 5),
            ],
            &[
                "3 holding, 1 waiting, the longest for 5.0 ms",
                "A add, B block, X exclusive; small letters wait",
                "#0 |AAAAAAAAAAAAAAAAAAAAA                                           | 0..1073741824           add        thread 1",
                "#1 |                     AAAAAAAAAAAAAAAAAAAAA                      | 1073741824..2147483648  add        thread 2  holds up 1",
                "#2 |                                          BBBBBBBBBBBBBBBBBBBBBB| 2147483648..3221225472  block      thread 2",
                "   +----------------+---------------+---------------+---------------+ 0..3221225472, a column is 48 MiB",
                "#3 |                     x                                          | 1073745920..1073750016  exclusive  thread 3  5.0 ms, waits for #1",
            ],
        );
    }

    /// 60 holders, of which the last is waited for, and 40 in the queue: all but the first of these wait for all before
    /// them.
    fn crowd() -> Snapshot {
        let holders = (0..60).map(|n| row(n * 4096..(n + 1) * 4096, Add, n + 1));
        let waiters = (0..40).map(|n| queued(59 * 4096..60 * 4096, Exclusive, n + 100, n, 100 - n));
        Snapshot::new(holders.chain(waiters).collect())
    }

    #[test]
    fn long_lists_are_cut() {
        let drawn = crowd().to_string();
        let lines: Vec<_> = drawn.lines().collect();
        assert_eq!(lines.len(), 2 + SHOWN + 1 + 1 + SHOWN + 1, "{drawn}");
        assert_eq!(lines[0], "60 holding, 40 waiting, the longest for 100.0 ms");
        assert_eq!(
            &lines[2..4],
            [
                "#0  |A                                                               | 0..4096         add        thread 1",
                "#1  | A                                                              | 4096..8192      add        thread 2",
            ]
        );
        // The holder that is waited for is there, though the cut would have met it.
        assert_eq!(
            &lines[24..30],
            [
                "#22 |                       A                                        | 90112..94208    add        thread 23",
                "#59 |                                                              AA| 241664..245760  add        thread 60   holds up 40",
                "... and 36 more hold",
                "    +----------------+---------------+---------------+---------------+ 0..245760, a column is 3.8 KiB",
                "#60 |                                                              xx| 241664..245760  exclusive  thread 100  100.0 ms, waits for #59",
                "#61 |                                                              xx| 241664..245760  exclusive  thread 101  99.0 ms, waits for #59, #60",
            ]
        );
        assert!(lines[51].ends_with("77.0 ms, waits for #59, #60, #61, #62, #63, #64 and 18 more"), "{drawn}");
        assert_eq!(lines[52..], ["... and 16 more wait"]);
    }

    /// More ranges than columns, all alike: the other scale would show no more of them, so this one is kept.
    #[test]
    fn a_crowd_of_pages_stays_to_scale() {
        let pages = (0..200).map(|n| row(n * 4096..(n + 1) * 4096, Add, n + 1)).collect();
        let drawn = format!("{:#}", Snapshot::new(pages));
        assert_eq!(drawn.lines().next(), Some("200 holding, 0 waiting"));
        assert!(drawn.ends_with("+ 0..819200, a column is 12.5 KiB"), "{drawn}");
    }

    #[test]
    fn everything_is_shown_if_asked_for() {
        let drawn = format!("{:#}", crowd());
        assert_eq!(drawn.lines().count(), 2 + 60 + 1 + 40);
        assert!(!drawn.contains("more"), "{drawn}");
    }

    /// Who is just arriving is in nobody's way who queued before it came.
    #[test]
    fn nobody_waits_for_who_came_later() {
        let waiter = queued(0..8, Exclusive, 1, 5 * 1024, 3);
        let pending = |order| Row { came: Came::At(order), ..row(0..8, Exclusive, 2) };
        for (other, is_in_front) in [
            (pending(0), true),
            (pending(4 * 1024), true),
            (pending(4 * 1024 + 7), true),
            (pending(5 * 1024), false),
            (pending(5 * 1024 + 2), false),
            (Row { came: Came::Holds, ..pending(0) }, true),
        ] {
            let snapshot = Snapshot::new(vec![waiter.clone(), other]);
            let waiter = snapshot.waiters().next().expect("it waits");
            assert_eq!(snapshot.waits_for(waiter).count(), usize::from(is_in_front));
        }
    }

    /// Of ranges in any places: each gets a column, none leaves the picture, and two that share no byte share no column
    /// unless one of them is too narrow for a column of its own.
    #[test]
    fn every_range_has_its_place() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..2000 {
            let bits = random.u32(0..64);
            let mut byte = || random.u64(..) >> bits;
            let ranges: Vec<_> =
                (0..30).map(|_| (byte(), byte())).map(|(a, b)| ByteRange::new(a.min(b)..=a.max(b))).collect();
            let scale = Scale::choose(ranges.iter().copied());
            assert!((WIDTH / 2 + 1..=WIDTH).contains(&scale.columns()));
            let narrow = |range: ByteRange| {
                let (start, last) = range.bounds();
                scale.column(start.into()) == scale.column(u128::from(last) + 1)
            };
            for &range in &ranges {
                let (first, behind) = scale.place(range);
                assert!(first < behind && behind <= scale.columns(), "{range} at {first}..{behind}");
                for &other in ranges.iter().filter(|other| !other.overlaps(range)) {
                    let (its_first, its_behind) = scale.place(other);
                    let share = first < its_behind && its_first < behind;
                    assert!(!share || narrow(range) || narrow(other), "{range} and {other}");
                }
            }
        }
    }
}
