//! The locks of one file: of each owner, in the order of their bytes, with the guards of the range lock that hold them.
//!
//! # Promise
//! What a table shows is what `fcntl` would show: an owner's locks of the classes that replace each other share no
//! byte, and those of one kind do not touch. The range lock is what excludes: each byte of a lock is covered by a guard
//! of its owner in its mode, before, while and after the lock is extended, split or replaced. A new guard is there
//! before an old one goes.
//!
//! # Invariants
//! - INV-R1: owners stand in the order in which they came to hold something here, since they last held nothing. That is
//!   the order in which the kernel looks at them.
//! - INV-R2: a record of bytes has a cover, guards of all of its bytes and of no others; a record of a place has none.
//! - INV-R3: a record that keeps all of its bytes and its kind keeps its id, and so those who wait for it in the
//!   kernel's order; any other is new or lets them try again.
//!
//! # Cost
//! O(log n) for who is not in anybody's way, n the locks; and O(log n) for each owner who is in the way, or for the
//! first 32 if that is less. Neighbours are one record and, as a rule, one guard: to append costs no memory.

use crate::caller::{Ask, Caller, Class, Key, Kind, Who};
use crate::domain::Order;
use crate::extent::Extent;
use smallvec::SmallVec;
use spanlock::guards::ArcOwnerGuard;
use spanlock::owners::OwnerId;
use spanlock::{ByteRange, Owner, RangeLock};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Guards, mostly one.
pub(crate) type Cover = SmallVec<[ArcOwnerGuard; 1]>;

/// How many owners are looked at one after the other for who is in the way, before the range lock is asked.
///
/// (One where checks are on: tests have few owners, and shall go both ways.)
const LOOKED_AT: usize = if cfg!(debug_assertions) { 1 } else { 32 };

/// Where a record stands among those of its owner: its start, then its id, as the records of a handle may start at the
/// same byte.
type Key2 = (u64, u64);

/// One lock.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) id: u64,
    pub(crate) extent: Extent,
    pub(crate) kind: Kind,
    pub(crate) pid: i32,
    cover: Cover,
}

/// The locks of an owner.
#[derive(Debug)]
pub(crate) struct Group<O> {
    pub(crate) who: Who<O>,
    /// Who it is in the range lock.
    token: OwnerId,
    pub(crate) records: BTreeMap<Key2, Record>,
}

/// The locks of a file.
#[derive(Debug)]
pub(crate) struct Table<O> {
    lock: Arc<RangeLock>,
    order: Order,
    /// INV-R1.
    groups: BTreeMap<u64, Group<O>>,
    by_token: HashMap<OwnerId, u64>,
    next_group: u64,
    /// Records of places.
    places: usize,
}

/// What a call will do to the records of its owner.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Those that go as wholes.
    gone: Vec<Key2>,
    /// Those of which a part stays.
    cut: Vec<Key2>,
    /// How many of them become two.
    split: usize,
    survivor: Survivor,
    first: u64,
    last: u64,
}

/// What the bytes are a lock of afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Survivor {
    /// Of none: they are unlocked.
    None,
    /// Of one that was there, extended if need be.
    Kept(Key2),
    /// Of a new one.
    New,
}

/// What a call has done.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// The ids of records that are gone or smaller: who waits for them is to try again.
    pub(crate) changed: Vec<u64>,
    /// The id of the record that was made.
    pub(crate) made: Option<u64>,
}

impl Plan {
    /// How many locks more the owner has afterwards.
    pub(crate) fn growth(&self) -> isize {
        self.split as isize + isize::from(self.survivor == Survivor::New) - self.gone.len() as isize
    }
}

impl<O: Key> Table<O> {
    pub(crate) fn new(order: Order) -> Table<O> {
        Table {
            lock: Arc::new(RangeLock::new()),
            order,
            groups: BTreeMap::new(),
            by_token: HashMap::new(),
            next_group: 0,
            places: 0,
        }
    }

    pub(crate) fn lock(&self) -> &Arc<RangeLock> {
        &self.lock
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = &Group<O>> {
        self.groups.values()
    }

    pub(crate) fn group(&self, group: u64) -> Option<&Group<O>> {
        self.groups.get(&group)
    }

    pub(crate) fn has_places(&self) -> bool {
        self.places > 0
    }

    /// What it takes to make `extent` a lock of `kind`, or of none, for an owner whose locks replace each other.
    ///
    /// Who looks at the records one after the other, as the kernel does, has the first one of the same kind that
    /// touches, or the first one that is replaced as a whole, become the lock of all these bytes: that says whose
    /// process is named, and who waits on.
    pub(crate) fn plan(&self, group: Option<u64>, kind: Option<Kind>, extent: Extent) -> Plan {
        let (first, last) = (extent.start(), extent.end());
        let mut plan = Plan { gone: Vec::new(), cut: Vec::new(), split: 0, survivor: Survivor::None, first, last };
        let records = group.and_then(|group| self.groups.get(&group)).map(|group| &group.records);
        if let Some(records) = records {
            let before = records.range(..(first, 0)).next_back();
            let before = before.filter(|(_, record)| record.extent.end().saturating_add(1) >= first);
            let others = records.range((first, 0)..=(last.saturating_add(1), u64::MAX));
            for (&key, record) in before.into_iter().chain(others) {
                let (start, end) = (record.extent.start(), record.extent.end());
                if Some(record.kind) == kind {
                    plan.first = plan.first.min(start);
                    plan.last = plan.last.max(end);
                    match plan.survivor {
                        Survivor::None => plan.survivor = Survivor::Kept(key),
                        _ => plan.gone.push(key),
                    }
                } else if record.extent.meets(extent) {
                    if first <= start && end <= last {
                        if kind.is_some() && plan.survivor == Survivor::None {
                            plan.survivor = Survivor::New;
                        }
                        plan.gone.push(key);
                    } else {
                        plan.cut.push(key);
                        plan.split += usize::from(start < first && last < end);
                    }
                }
            }
        }
        if kind.is_some() && plan.survivor == Survivor::None {
            plan.survivor = Survivor::New;
        }
        plan
    }

    /// Whether the plan changes nothing: the owner has it all already.
    pub(crate) fn is_done(&self, group: Option<u64>, plan: &Plan) -> bool {
        if !plan.gone.is_empty() || !plan.cut.is_empty() {
            return false;
        }
        match plan.survivor {
            Survivor::None => true,
            Survivor::New => false,
            Survivor::Kept(key) => {
                let record = &self.groups[&group.expect("a record is a group's")].records[&key];
                record.extent == Extent::between(plan.first, plan.last)
            }
        }
    }

    /// Carries out a plan that only extends one record, if nobody is in the way; whether it did. No new guard is needed
    /// for that.
    pub(crate) fn extend(&mut self, group: Option<u64>, plan: &Plan) -> bool {
        let (Some(group), Survivor::Kept(key)) = (group, plan.survivor) else { return false };
        if !plan.gone.is_empty() || !plan.cut.is_empty() {
            return false;
        }
        let records = &mut self.groups.get_mut(&group).expect("a record is a group's").records;
        let record = records.get_mut(&key).expect("planned");
        let [guard] = &mut record.cover[..] else { return false };
        if !guard.try_extend(plan.first..=plan.last) {
            return false;
        }
        let mut record = records.remove(&key).expect("planned");
        record.extent = Extent::between(plan.first, plan.last);
        records.insert((plan.first, record.id), record);
        true
    }

    /// A guard, if nobody is in the way. In order of arrival in the way is who waits, too, unless it waits for this
    /// owner.
    pub(crate) fn ask(&self, ask: &Ask<O>, token: &Owner) -> Option<ArcOwnerGuard> {
        let Ask { caller, kind, extent } = ask;
        let request = self.lock.request_arc(extent.range(), kind.mode()).owner(token);
        let free = request.clone().try_now();
        if free.is_some()
            || self.order == Order::Kernel
            || self.first_conflict(&caller.who, Some(token), *kind, *extent).is_some()
        {
            return free;
        }
        // Only such are in the way as wait. A request that waits is let past those of them who wait for its owner, as a
        // `try_now` is not; and as it waits for no holder, nobody else is let past anybody for its sake.
        match pin!(request.into_future()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(guard)) => Some(guard),
            _ => None,
        }
    }

    /// Carries out a plan. `fresh` holds the bytes in the new kind's mode, if there is one; `ids` makes ids.
    pub(crate) fn execute(
        &mut self,
        group: &mut Option<u64>,
        who: &Who<O>,
        token: &Owner,
        plan: Plan,
        lock: Option<(Kind, i32, ArcOwnerGuard)>,
        ids: &mut dyn FnMut() -> u64,
    ) -> Done {
        let mut done = Done::default();
        let place = match *group {
            Some(place) if self.groups.contains_key(&place) => place,
            // Nothing to unlock.
            _ if lock.is_none() => return done,
            _ => {
                let place = self.new_group(who, token);
                *group = Some(place);
                place
            }
        };
        let mut records = std::mem::take(&mut self.groups.get_mut(&place).expect("made above").records);
        let asked = Extent::between(plan.first, plan.last);
        // The cut ones first: they are cut by what was asked, and may lie within what that becomes.
        let (mut replaced, mut joined) = (Vec::new(), Cover::new());
        for key in &plan.gone {
            let record = records.remove(key).expect("planned");
            done.changed.push(record.id);
            match &lock {
                Some((kind, ..)) if record.kind == *kind => joined.extend(record.cover),
                _ => replaced.push(record),
            }
        }
        if let Some((kind, pid, fresh)) = lock {
            let mut record = match plan.survivor {
                Survivor::Kept(key) => records.remove(&key).expect("planned"),
                _ => {
                    let id = ids();
                    done.made = Some(id);
                    Record { id, extent: asked, kind, pid, cover: Cover::new() }
                }
            };
            record.extent = asked;
            record.cover.push(fresh);
            record.cover.append(&mut joined);
            if record.cover.len() > 1 {
                // Whoever is in conflict with the whole is so with a part, and waits for that: so this is granted. If
                // not, the parts do as well.
                let caller = Caller { who: who.clone(), pid };
                if let Some(whole) = self.ask(&Ask { caller, kind, extent: asked }, token) {
                    record.cover = SmallVec::from_buf([whole]);
                }
            }
            records.insert((asked.start(), record.id), record);
        }
        for key in &plan.cut {
            let record = records.remove(key).expect("planned");
            done.changed.push(record.id);
            for piece in cut(record, plan.first, plan.last, ids) {
                records.insert((piece.extent.start(), piece.id), piece);
            }
        }
        drop(replaced);
        if records.is_empty() {
            self.remove_group(place);
            *group = None;
        } else {
            self.groups.get_mut(&place).expect("made above").records = records;
        }
        done
    }

    /// A place behind all owners (INV-R1).
    fn new_group(&mut self, who: &Who<O>, token: &Owner) -> u64 {
        let place = self.next_group;
        self.next_group += 1;
        self.by_token.insert(token.id(), place);
        self.groups.insert(place, Group { who: who.clone(), token: token.id(), records: BTreeMap::new() });
        place
    }

    fn remove_group(&mut self, place: u64) -> Option<Group<O>> {
        let group = self.groups.remove(&place)?;
        self.by_token.remove(&group.token);
        Some(group)
    }

    /// Puts a lock beside the others of its owner, a handle. Nobody is in its way, and `fresh` holds its bytes if it
    /// has any.
    pub(crate) fn lay(
        &mut self,
        group: &mut Option<u64>,
        (who, token): (&Who<O>, &Owner),
        (id, extent, kind, pid): (u64, Extent, Kind, i32),
        fresh: Option<ArcOwnerGuard>,
    ) {
        let place = *group.get_or_insert_with(|| self.new_group(who, token));
        let records = &mut self.groups.get_mut(&place).expect("a group that is there, or was made").records;
        self.places += usize::from(extent.is_empty());
        records.insert((extent.start(), id), Record { id, extent, kind, pid, cover: fresh.into_iter().collect() });
    }

    /// Takes the lock of exactly this extent away, of two the one for writing.
    pub(crate) fn lift(&mut self, group: &mut Option<u64>, extent: Extent) -> Option<u64> {
        let place = (*group)?;
        let records = &mut self.groups.get_mut(&place)?.records;
        let same = |(_, record): &(&Key2, &Record)| record.extent == extent;
        let here = records.range((extent.start(), 0)..=(extent.start(), u64::MAX)).filter(same);
        let key = here.max_by_key(|(key, record)| (record.kind, std::cmp::Reverse(key.1))).map(|(&key, _)| key)?;
        let record = records.remove(&key).expect("found");
        self.places -= usize::from(extent.is_empty());
        if records.is_empty() {
            self.remove_group(place);
            *group = None;
        }
        Some(record.id)
    }

    /// Takes all locks of an owner away; their ids.
    pub(crate) fn clear(&mut self, group: &mut Option<u64>) -> Vec<u64> {
        let Some(records) = group.take().and_then(|place| self.remove_group(place)).map(|group| group.records) else {
            return Vec::new();
        };
        self.places -= records.values().filter(|record| record.extent.is_empty()).count();
        records.values().map(|record| record.id).collect()
    }

    /// The locks that a request of `who` conflicts with: owners in the order of INV-R1, of each in the order of the
    /// bytes.
    pub(crate) fn conflicts(
        &self,
        who: &Who<O>,
        kind: Kind,
        extent: Extent,
    ) -> impl Iterator<Item = (&Who<O>, &Record)> {
        self.groups.values().flat_map(move |group| group.conflicts(who, kind, extent))
    }

    /// The first one of them.
    pub(crate) fn first_conflict(
        &self,
        who: &Who<O>,
        token: Option<&Owner>,
        kind: Kind,
        extent: Extent,
    ) -> Option<(&Who<O>, &Record)> {
        self.in_the_way(who, token, kind, extent).find_map(|group| group.conflicts(who, kind, extent).next())
    }

    /// The one of them that begins first.
    pub(crate) fn lowest_conflict(
        &self,
        who: &Who<O>,
        token: Option<&Owner>,
        kind: Kind,
        extent: Extent,
    ) -> Option<(&Who<O>, &Record)> {
        let firsts =
            self.in_the_way(who, token, kind, extent).filter_map(|group| group.conflicts(who, kind, extent).next());
        firsts.min_by_key(|(_, record)| record.extent.start())
    }

    /// Owners of which some are in the way, and nobody else is, in the order of INV-R1.
    fn in_the_way(
        &self,
        who: &Who<O>,
        token: Option<&Owner>,
        kind: Kind,
        extent: Extent,
    ) -> Box<dyn Iterator<Item = &Group<O>> + '_> {
        // Where many hold the same bytes one of the first is in the way, and the range lock would name them all; where
        // each has bytes of its own few are in the way at all, and it finds them.
        let mut first = self.groups.values().take(LOOKED_AT);
        let is_crowd = first.any(|group| group.conflicts(who, kind, extent).next().is_some());
        if is_crowd || self.groups.len() <= LOOKED_AT {
            return Box::new(self.groups.values());
        }
        match self.holders(who, token, kind, extent) {
            Some(holders) => Box::new(holders.into_iter().map(|place| &self.groups[&place])),
            None => Box::new(self.groups.values()),
        }
    }

    /// The owners of locks that are in the way, as the range lock knows them; `None` if it does not know all: places,
    /// and what a handle has itself.
    fn holders(&self, who: &Who<O>, token: Option<&Owner>, kind: Kind, extent: Extent) -> Option<BTreeSet<u64>> {
        if self.has_places() || extent.is_empty() || who.class == Class::Handle {
            return None;
        }
        let holds = self.lock.conflicts(extent.range(), kind.mode(), token);
        holds.iter().map(|hold| self.by_token.get(&hold.owner()).copied()).collect()
    }
}

impl<O: Key> Group<O> {
    fn conflicts(&self, who: &Who<O>, kind: Kind, extent: Extent) -> impl Iterator<Item = (&Who<O>, &Record)> {
        let is_own = self.who == *who;
        // A write lock of a handle is not laid beside another lock of its own; a read lock is.
        let is_exempt = is_own && (who.class != Class::Handle || kind == Kind::Read);
        let records = (!is_exempt).then(|| self.reaching(extent)).into_iter().flatten();
        let in_the_way = move |record: &&Record| !record.kind.goes_with(kind) && record.extent.meets(extent);
        records.filter(in_the_way).map(|record| (&self.who, record))
    }

    /// Records that may share bytes with `extent`, in the order of their bytes: all that do, and perhaps more.
    fn reaching(&self, extent: Extent) -> impl Iterator<Item = &Record> {
        let start = extent.start();
        let last = extent.last().unwrap_or(start);
        // Those of a handle overlap, so that any before it may reach it; of the others only one does.
        let before = if self.who.class == Class::Handle {
            (0, 0)
        } else {
            self.records.range(..(start, 0)).next_back().map_or((start, 0), |(&key, _)| key)
        };
        self.records.range(before..=(last, u64::MAX)).map(|(_, record)| record)
    }
}

/// What is left of a record without the bytes from `first` to `last`: one piece or two. The one behind keeps the id, or
/// the only one.
fn cut(record: Record, first: u64, last: u64, ids: &mut dyn FnMut() -> u64) -> impl Iterator<Item = Record> {
    let Record { id, extent, kind, pid, cover } = record;
    let head = (extent.start() < first).then(|| Extent::between(extent.start(), first - 1));
    let tail = (last < extent.end()).then(|| Extent::between(last + 1, extent.end()));
    let (mut of_head, mut of_tail) = (Cover::new(), Cover::new());
    for guard in cover {
        let gap = guard.range().intersect(ByteRange::new(first..=last));
        if gap.is_empty() {
            let is_head = guard.range().start() < Some(first);
            if is_head {
                of_head.push(guard)
            } else {
                of_tail.push(guard)
            }
            continue;
        }
        let (before, behind) = guard.release(gap);
        of_head.extend(Some(before).filter(|guard| !guard.range().is_empty()));
        of_tail.extend(Some(behind).filter(|guard| !guard.range().is_empty()));
    }
    let head_id = if tail.is_some() && head.is_some() { ids() } else { id };
    let head = head.map(|extent| Record { id: head_id, extent, kind, pid, cover: of_head });
    head.into_iter().chain(tail.map(|extent| Record { id, extent, kind, pid, cover: of_tail }))
}
