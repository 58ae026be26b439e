//! What a reader may see. Knows nothing of caches and locks: only when writes began
//! and ended, and what reads returned.
//!
//! # Promise
//! Every fault that is reported is one: there are no false alarms, whatever the
//! threads were doing at the time. Found during the run:
//! - *missed*: a read that began after a write had ended returned something older;
//! - *backwards*: it returned something older than an earlier read had returned;
//! - *broken*: it returned half a sector, or one from elsewhere;
//! - *behind the end*: a truncate left a page in the cache.
//!
//! At the end, when all is written back and nobody is at work:
//! - *differs*: a cached page is not what the disk holds;
//! - *lost*: the disk does not hold the last write that ended.
//!
//! # Shape
//! Each sector has a history of versions 1, 2, 3.. and each is either a write (which
//! stamps its version into the sector) or a truncate (which leaves zeros). A read may
//! return any version that is not older than its *floor*: the newest version of which
//! it was known, when the read began, that it was complete or had been read.
//!
//! # Invariants
//! - INV-K1: the versions of one sector are made one after the other: whoever makes one
//!   holds the sector's `writer` mutex from before it begins until it is complete.
//!   This stands for the application, which does not race its own writes to one place.
//!   Readers and write-back take no part in it, so it hides none of their races. Nor
//!   does it serialise writers of different sectors of one page.
//! - INV-K2: `completed` and `seen` only grow. A version above `completed + 1` does
//!   not exist yet.
//!
//! What it cannot see, for want of anything that a reader could notice: whether a truncate
//! and a direct write of the same place keep apart, since the application never starts both.
//!
//! Zeros carry no version. They are taken for the newest truncate that began before
//! the read ended: if that one may be meant, the read is in order, whoever made the
//! zeros. They count as *seen* only where no older truncate may be meant.
//!
//! # Orderings
//! `completed` and `seen` are stored with Release after the deed and loaded with
//! Acquire before the read: what we demand of a read has happened before it.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::frame::PAGE;
use crate::sector::{self, Content, SECTOR};

/// Sectors in a page.
pub const SECTORS: usize = PAGE / SECTOR;

/// How many faults are kept in full; the others are only counted.
const EXAMPLES: usize = 3;

/// The history of one sector, as far as anybody knows it for certain.
#[derive(Debug)]
struct Record {
    /// Held while a version is made (INV-K1).
    writer: Mutex<()>,
    /// The newest version whose making has ended.
    completed: AtomicU64,
    /// The newest version that a reader has returned.
    seen: AtomicU64,
    /// The version that the newest truncate made or is making; 0 if there was none.
    newest_hole: AtomicU64,
    /// The same for the truncate before it.
    hole_before: AtomicU64,
}

/// The newest versions of the sectors of a page that were complete, and that had
/// been seen, when a read began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    completed: [u64; SECTORS],
    seen: [u64; SECTORS],
}

/// What is wrong with a sector that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is older than what was complete, or seen, or both, before the read began.
    Stale {
        /// What was there.
        found: Content,
        /// The newest version that it may be.
        version: u64,
        /// The newest version that was complete when the read began.
        completed: u64,
        /// The newest version that had been read when the read began.
        seen: u64,
    },
    /// Nobody ever wrote that there.
    Broken {
        /// What was there.
        found: Content,
    },
}

/// How many faults there were, of each kind; and a few of them in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Reads that missed a write, or went backwards, or both.
    pub stale: u64,
    /// Those that missed a write that had ended before.
    pub missed: u64,
    /// Those that returned something older than an earlier read.
    pub backwards: u64,
    /// Reads that returned what nobody wrote there.
    pub broken: u64,
    /// Pages that a truncate left in the cache.
    pub behind_the_end: u64,
    /// Cached pages that are not what the disk holds, at the end.
    pub differs: u64,
    /// Sectors whose last write the disk does not hold, at the end.
    pub lost: u64,
    /// The first few, in words.
    pub examples: Vec<String>,
}

impl Faults {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.stale + self.broken + self.behind_the_end + self.differs + self.lost
    }
}

/// The truth about a file that many threads read and write.
#[derive(Debug)]
pub struct Checker {
    records: Box<[Record]>,
    faults: Mutex<Faults>,
}

impl Checker {
    /// For a file of `pages`, each sector of which holds version 1.
    pub fn new(pages: usize) -> Checker {
        let record = |_| Record {
            writer: Mutex::new(()),
            completed: AtomicU64::new(1),
            seen: AtomicU64::new(1),
            newest_hole: AtomicU64::new(0),
            hole_before: AtomicU64::new(0),
        };
        Checker { records: (0..pages * SECTORS).map(record).collect(), faults: Mutex::new(Faults::default()) }
    }

    /// To be called before a read of `page` begins.
    pub fn before_read(&self, page: usize) -> Floor {
        let mut floor = Floor::default();
        for (index, record) in self.page(page).iter().enumerate() {
            floor.completed[index] = record.completed.load(Ordering::Acquire);
            floor.seen[index] = record.seen.load(Ordering::Acquire);
        }
        floor
    }

    /// To be called after the read, with what it returned. However many of its sectors
    /// are faulty, it counts as one faulty read.
    pub fn after_read(&self, page: usize, floor: &Floor, bytes: &[u8; PAGE]) {
        let (mut missed, mut backwards, mut broken) = (false, false, false);
        let mut first = None;
        for (index, bytes) in bytes.chunks_exact(SECTOR).enumerate() {
            let number = number_of(page, index);
            let found = sector::read(bytes, number);
            let record = &self.page(page)[index];
            let judgement = record.judge(found, floor.completed[index], floor.seen[index]);
            let Err(fault) = judgement else { continue };
            match fault {
                Fault::Stale { version, completed, seen, .. } => {
                    missed |= version < completed;
                    backwards |= version < seen;
                }
                Fault::Broken { .. } => broken = true,
            }
            first.get_or_insert((number, fault));
        }
        if let Some((sector, fault)) = first {
            self.report(|faults| {
                faults.stale += u64::from(missed || backwards);
                faults.missed += u64::from(missed);
                faults.backwards += u64::from(backwards);
                faults.broken += u64::from(broken);
                format!("sector {sector} (page {page}): {fault}")
            });
        }
    }

    /// Begins a write of these sectors: the next version of each.
    pub fn begin_write(&self, sectors: Range<usize>) -> Making<'_> {
        self.begin(sectors)
    }

    /// Begins a truncate of the file in front of `page`.
    pub fn begin_truncate(&self, page: usize) -> Making<'_> {
        self.begin_holes(page * SECTORS..self.records.len())
    }

    /// Begins to make holes of these sectors.
    fn begin_holes(&self, sectors: Range<usize>) -> Making<'_> {
        let making = self.begin(sectors);
        for (record, (_, version)) in making.records.iter().zip(making.versions()) {
            let before = record.newest_hole.load(Ordering::Relaxed);
            // In this order: see `Record::judge`.
            record.hole_before.store(before, Ordering::Relaxed);
            record.newest_hole.store(version, Ordering::Release);
        }
        making
    }

    /// Notes that `left` pages were cached behind the end of the file, which was then
    /// in front of `page`.
    pub fn behind_the_end(&self, page: usize, left: usize) {
        if left > 0 {
            self.report(|faults| {
                faults.behind_the_end += left as u64;
                format!("pages cached behind the end of the file, then in front of page {page}: {left}")
            });
        }
    }

    /// Checks one page at the end: what the disk holds, and what the cache holds of it.
    pub fn at_the_end(&self, page: usize, disk: &[u8; PAGE], cached: Option<&[u8; PAGE]>) {
        if cached.is_some_and(|cached| cached != disk) {
            self.report(|faults| {
                faults.differs += 1;
                format!("page {page}: at the end the cache and the disk differ")
            });
        }
        for (index, bytes) in disk.chunks_exact(SECTOR).enumerate() {
            let number = number_of(page, index);
            let found = sector::read(bytes, number);
            let record = &self.page(page)[index];
            // Relaxed: all threads were joined.
            let completed = record.completed.load(Ordering::Relaxed);
            let expected = if record.newest_hole.load(Ordering::Relaxed) == completed {
                Content::Hole
            } else {
                Content::Version(completed)
            };
            if found != expected {
                self.report(|faults| {
                    faults.lost += 1;
                    format!(
                        "sector {number} (page {page}): at the end the disk holds {}, not {}",
                        Words(found),
                        Words(expected)
                    )
                });
            }
        }
    }

    /// What was found so far.
    pub fn faults(&self) -> Faults {
        self.faults.lock().clone()
    }

    fn begin(&self, sectors: Range<usize>) -> Making<'_> {
        let records = &self.records[sectors.clone()];
        // In the order of the file, as everybody does, so that nobody waits in a circle.
        let writers = records.iter().map(|record| record.writer.lock()).collect();
        Making { first: sectors.start as u64, records, _writers: writers }
    }

    fn page(&self, page: usize) -> &[Record] {
        &self.records[page * SECTORS..(page + 1) * SECTORS]
    }

    fn report(&self, count: impl FnOnce(&mut Faults) -> String) {
        let mut faults = self.faults.lock();
        let example = count(&mut faults);
        if faults.examples.len() < EXAMPLES {
            faults.examples.push(example);
        }
    }
}

impl Record {
    /// Judges what a read returned, and notes it as seen.
    fn judge(&self, found: Content, completed: u64, seen: u64) -> Result<(), Fault> {
        let floor = completed.max(seen);
        // What the read returned, at best; and whether it is certain.
        let (version, certain) = match found {
            Content::Torn | Content::Misplaced { .. } => return Err(Fault::Broken { found }),
            Content::Version(version) => {
                // INV-K2. Loaded after the read, so it is an upper bound.
                if version > self.completed.load(Ordering::Acquire) + 1 {
                    return Err(Fault::Broken { found });
                }
                (version, true)
            }
            Content::Hole => {
                let newest = self.newest_hole.load(Ordering::Acquire);
                // Loaded second, stored first: this is the truncate before `newest`, or
                // a later one, and then we are merely less certain.
                let before = self.hole_before.load(Ordering::Relaxed);
                if newest == 0 {
                    return Err(Fault::Broken { found });
                }
                (newest, before < floor)
            }
        };
        if version < floor {
            return Err(Fault::Stale { found, version, completed, seen });
        }
        if certain {
            self.seen.fetch_max(version, Ordering::Release);
        }
        Ok(())
    }
}

/// A write or a truncate under way: the right to make the next version of some sectors.
#[derive(Debug)]
#[must_use = "tell the checker when it has ended, by `complete`"]
pub struct Making<'a> {
    first: u64,
    records: &'a [Record],
    _writers: Vec<MutexGuard<'a, ()>>,
}

impl Making<'_> {
    /// The sectors, each with the version to make of it.
    pub fn versions(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let version = |record: &Record| record.completed.load(Ordering::Relaxed) + 1;
        (self.first..).zip(self.records.iter().map(version))
    }

    /// Fills `bytes` with the stamps of the versions to make.
    pub fn stamp(&self, bytes: &mut [u8]) {
        for (bytes, (sector, version)) in bytes.chunks_exact_mut(SECTOR).zip(self.versions()) {
            sector::stamp(bytes, sector, version);
        }
    }

    /// It has ended: from now on readers must see it.
    pub fn complete(self) {
        for (record, (_, version)) in self.records.iter().zip(self.versions()) {
            record.completed.store(version, Ordering::Release);
        }
    }
}

fn number_of(page: usize, index: usize) -> u64 {
    (page * SECTORS + index) as u64
}

/// What was found in a sector, in words.
struct Words(Content);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Content::Hole => write!(f, "zeros"),
            Content::Version(version) => write!(f, "version {version}"),
            Content::Torn => write!(f, "a torn sector"),
            Content::Misplaced { belongs_to } => write!(f, "sector {belongs_to}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Fault::Stale { found, version, completed, seen } => {
                write!(f, "a read returned {} after ", Words(found))?;
                if version < completed {
                    write!(f, "version {completed} was complete")
                } else {
                    write!(f, "another had returned version {seen}")
                }
            }
            Fault::Broken { found } => {
                write!(f, "a read returned {}, which nobody wrote there", Words(found))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One page of which only sector 0 is of interest; the others stay at version 1.
    fn page(content: Content) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        for (sector, bytes) in (0..).zip(page.chunks_exact_mut(SECTOR)) {
            match content {
                Content::Version(version) if sector == 0 => sector::stamp(bytes, 0, version),
                Content::Hole if sector == 0 => {}
                _ => sector::stamp(bytes, sector, 1),
            }
        }
        page
    }

    fn version(version: u64) -> [u8; PAGE] {
        page(Content::Version(version))
    }

    fn hole() -> [u8; PAGE] {
        page(Content::Hole)
    }

    fn write(checker: &Checker) {
        checker.begin_write(0..1).complete();
    }

    /// Of sector 0 alone, so that the others need no care.
    fn begin_truncate(checker: &Checker) -> Making<'_> {
        checker.begin_holes(0..1)
    }

    fn truncate(checker: &Checker) {
        begin_truncate(checker).complete();
    }

    fn read(checker: &Checker, bytes: &[u8; PAGE]) -> Faults {
        let before = checker.faults();
        let floor = checker.before_read(0);
        checker.after_read(0, &floor, bytes);
        let mut after = checker.faults();
        after.stale -= before.stale;
        after.missed -= before.missed;
        after.backwards -= before.backwards;
        after.broken -= before.broken;
        after.examples.clear();
        after
    }

    fn missed() -> Faults {
        Faults { stale: 1, missed: 1, ..Faults::default() }
    }

    fn backwards() -> Faults {
        Faults { stale: 1, backwards: 1, ..Faults::default() }
    }

    fn missed_and_backwards() -> Faults {
        Faults { stale: 1, missed: 1, backwards: 1, ..Faults::default() }
    }

    fn broken() -> Faults {
        Faults { broken: 1, ..Faults::default() }
    }

    fn fine() -> Faults {
        Faults::default()
    }

    #[test]
    fn a_read_must_return_what_was_complete_before_it() {
        let checker = Checker::new(1);
        assert_eq!(read(&checker, &version(1)), fine());
        write(&checker);
        assert_eq!(read(&checker, &version(1)), missed());
        assert_eq!(read(&checker, &version(2)), fine());
    }

    #[test]
    fn a_write_that_ends_during_the_read_may_be_missed() {
        let checker = Checker::new(1);
        let floor = checker.before_read(0);
        write(&checker);
        checker.after_read(0, &floor, &version(1));
        checker.after_read(0, &floor, &version(2));
        assert_eq!(checker.faults(), fine());
    }

    #[test]
    fn a_write_under_way_may_be_seen_but_then_never_unseen() {
        let checker = Checker::new(1);
        let making = checker.begin_write(0..1);
        assert_eq!(read(&checker, &version(1)), fine());
        assert_eq!(read(&checker, &version(2)), fine());
        assert_eq!(read(&checker, &version(1)), backwards());
        making.complete();
        assert_eq!(read(&checker, &version(1)), missed_and_backwards());
    }

    #[test]
    fn what_nobody_wrote_is_broken() {
        let checker = Checker::new(1);
        let _making = checker.begin_write(0..1); // version 2
        assert_eq!(read(&checker, &version(3)), broken());
        assert_eq!(read(&checker, &hole()), broken());
        let mut torn = version(2);
        torn[100] ^= 1;
        assert_eq!(read(&checker, &torn), broken());
        let mut misplaced = version(2);
        misplaced.copy_within(SECTOR..2 * SECTOR, 0);
        assert_eq!(read(&checker, &misplaced), broken());
    }

    #[test]
    fn zeros_are_as_new_as_the_newest_truncate() {
        let checker = Checker::new(1);
        truncate(&checker); // version 2
        assert_eq!(read(&checker, &version(1)), missed());
        assert_eq!(read(&checker, &hole()), fine());
        write(&checker); // version 3
        assert_eq!(read(&checker, &hole()), missed());
        let making = begin_truncate(&checker); // version 4
        assert_eq!(read(&checker, &version(3)), fine());
        // These zeros can only be version 4.
        assert_eq!(read(&checker, &hole()), fine());
        assert_eq!(read(&checker, &version(3)), backwards());
        making.complete();
        assert_eq!(read(&checker, &version(3)), missed_and_backwards());
        assert_eq!(read(&checker, &hole()), fine());
    }

    #[test]
    fn zeros_that_may_be_old_do_not_count_as_the_new_ones() {
        let checker = Checker::new(1);
        truncate(&checker); // version 2
        let floor = checker.before_read(0);
        write(&checker); // version 3
        let _making = begin_truncate(&checker); // version 4
        checker.after_read(0, &floor, &hole()); // 2 or 4
        assert_eq!(read(&checker, &version(3)), fine());
    }

    #[test]
    fn a_truncate_reaches_from_its_page_to_the_end() {
        let checker = Checker::new(3);
        checker.begin_truncate(1).complete();
        for page in 0..3 {
            let floor = checker.before_read(page);
            checker.after_read(page, &floor, &[0; PAGE]);
        }
        assert_eq!(checker.faults().total(), 1);
        assert_eq!(checker.faults().broken, 1, "page 0 never had a truncate");
    }

    #[test]
    fn one_faulty_sector_makes_one_faulty_read() {
        let checker = Checker::new(1);
        checker.begin_write(0..SECTORS).complete();
        assert_eq!(read(&checker, &version(1)), missed());
        assert_eq!(read(&checker, &version(2)), missed()); // sectors 1.. are still old
        let mut torn_as_well = version(2);
        torn_as_well[100] ^= 1;
        assert_eq!(read(&checker, &torn_as_well), Faults { broken: 1, ..missed() });
    }

    #[test]
    fn at_the_end_the_disk_holds_the_last_write_and_the_cache_equals_it() {
        /// How many faults of each kind the end adds.
        fn last(checker: &Checker, disk: &[u8; PAGE], cached: Option<&[u8; PAGE]>) -> (u64, u64) {
            let before = checker.faults();
            checker.at_the_end(0, disk, cached);
            let after = checker.faults();
            (after.differs - before.differs, after.lost - before.lost)
        }
        let checker = Checker::new(1);
        write(&checker);
        assert_eq!(last(&checker, &version(2), None), (0, 0));
        assert_eq!(last(&checker, &version(2), Some(&version(2))), (0, 0));
        assert_eq!(last(&checker, &version(2), Some(&version(1))), (1, 0));
        assert_eq!(last(&checker, &version(1), None), (0, 1));
        assert_eq!(last(&checker, &version(1), Some(&version(2))), (1, 1));
        assert_eq!(last(&checker, &hole(), None), (0, 1));
        truncate(&checker);
        assert_eq!(last(&checker, &hole(), None), (0, 0));
        assert_eq!(last(&checker, &version(2), None), (0, 1));
    }

    #[test]
    fn pages_behind_the_end_are_counted() {
        let checker = Checker::new(4);
        checker.behind_the_end(1, 0);
        assert_eq!(checker.faults(), fine());
        checker.behind_the_end(1, 2);
        assert_eq!(checker.faults().behind_the_end, 2);
        assert_eq!(checker.faults().examples.len(), 1);
    }
}
