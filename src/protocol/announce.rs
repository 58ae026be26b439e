//! A place in the queue for who does not wait yet: it works at once, and asks afterwards whether anybody was in its
//! way.
//!
//! # Promise
//! - *A place like any other.* It stands in the queue with its ticket from the announcement on: it overtakes nobody,
//!   and who comes later and is in conflict is behind it, until it leaves.
//! - *Clear is true.* [`Announced::is_clear`] says `true` of a part only if nobody in conflict with the part has held a
//!   byte of it at any time between the end of the announcement and the call; and all that was done under such holds
//!   before is known since the announcement. It says `false` where it is not sure.
//! - *Nothing blocks.* To announce, to ask and to leave wait for nobody (INV-P12).
//!
//! # How
//! It enters as a request of an owner does that has nothing else. If nobody is in its way it is granted, and all of it
//! is clear. If somebody is, it queues, and then looks once, in full, and *notes* the bytes of all who are in front of
//! it: who holds, who is queued with a lower ticket, and who is in his doorway and may hold. From then on it looks at
//! nobody. A part is clear if it meets nothing that was noted, and if nobody has come in front since; and of that it
//! hears by the mark that makes any queued request look again (RESCAN). The mark says no more than that somebody came,
//! and he may have gone before one could look; so it holds for all parts, and stays until the request begins to wait.
//!
//! To the others it is a queued request like any: one that is not polled. It is in no index, as its owner has nothing
//! else, and who searches for a cycle finds it in the tree. But in a lock with a window it does not yield: newcomers who
//! pass those who yield do not mark them.
//!
//! # Why `true` is true
//! Let A be announced, with ticket t; let a part of it be found clear; and let X, in conflict with the part, hold a byte
//! of it after the announcement. When did X come?
//!
//! 1. *A's look has found it* in front: then all of its bytes were noted, and the part meets them, unless it became
//!    more (4). Found, and not in front, it was queued with a higher ticket, or in its doorway with a stamp that is not
//!    below t: it has found A, or will, and is behind it (O1), unless it was let past (3).
//! 2. *The look has not found it.* Either it had gone, or given the byte back: then it did not hold it afterwards, and
//!    the look has what was done under it (S2, S7). Or its fence is behind A's (S6; by a shortcut, behind the end of the
//!    era, T4): then it finds A, which is QUEUED or will be, and is behind it. A batch is that in each of its parts; a
//!    `try_` leaves; and a newcomer in a lock with a window takes A for one that does not yield.
//! 3. *It was let past A* by a search, which marks A before it opens the pass. X is granted behind that.
//! 4. *It holds by a conversion* (`convert`): in its second slot, and what it held before did not meet the part in
//!    conflict. In the way of A it was let in only if A waited for the old hold as well, and was QUEUED: then it has
//!    marked A behind its publication, and before the end of the call. If A queued later than that, its look finds the
//!    second slot, which is GRANTED, or has a stamp from before t. A hold that *waited* to become more was a request of
//!    its own, (1) to (3). In place a hold becomes less only.
//! 5. *It moved while A looked*, which was at the second slot's place too early, and at the first slot too late: then A
//!    was QUEUED before the second one's fence, and marked before the first one was given back.
//!
//! **The mark is found in time** (S9). Whoever has set it, or is let in behind it, has a full fence before all that is
//! done under the new hold. Who asks has one behind all that was read, and before the load of its word. So if anything
//! was read that was written under such a hold, be it by a Relaxed load, the first fence came before the second one, and
//! the mark is found. (Not so with a release and an acquire fence: a guard goes to another thread, which writes, and
//! others read for who asks. Such fences order only what their own threads write and read.)
//!
//! # Source
//! CockroachDB's latch manager: `AcquireOptimistic`, `CheckOptimisticNoConflicts`, `WaitUntilAcquired`. There the check
//! compares with a snapshot of the latches in front, too.

use crate::facts::owner::Visitor;
use crate::facts::range::ByteRange;
use crate::protocol::grant::{self, Doorway, Held, Waiter};
use crate::protocol::lock_state::{Ask, LockState};
use smallvec::SmallVec;

/// What an announcement has come to.
#[allow(clippy::large_enum_variant)] // A box would be an allocation for each.
pub(crate) enum Entered {
    /// Nobody was in its way.
    Granted(Held),
    Queued(Announced),
}

/// A queued request whose owner goes on. Dropping it gives the place up.
pub(crate) struct Announced {
    waiter: Waiter,
    in_front: Noted,
}

/// The doorway. `ask` is of an owner who has nothing else.
///
/// # Safety
/// The state is neither moved nor dropped while what is returned lives.
pub(crate) unsafe fn announce(state: &LockState, ask: &Ask, visitor: Visitor) -> Entered {
    debug_assert!(!ask.is_nested() && !ask.owner().is_token());
    // SAFETY: the caller's promise.
    match unsafe { grant::announce(state, ask, visitor) } {
        Doorway::Granted(held) => Entered::Granted(held),
        Doorway::Queued(waiter) => {
            let mut in_front = Noted::default();
            waiter.survey_front(|seen| {
                let (start, last) = seen.range();
                in_front.add(start, last);
            });
            Entered::Queued(Announced { waiter, in_front })
        }
    }
}

impl Announced {
    /// Whether nobody has been in the way of `part`, which lies in its range, since the announcement.
    pub(crate) fn is_clear(&self, part: ByteRange) -> bool {
        part.is_empty() || !self.waiter.is_to_look_again() && !self.in_front.meets(part)
    }

    /// Its owner waits from now on.
    pub(crate) fn into_waiter(self) -> Waiter {
        self.waiter
    }
}

/// Bytes that somebody in front has or waits for; and some others perhaps, if they are of many.
#[derive(Debug, Default)]
struct Noted {
    /// Inclusive ranges, in order, with a gap between any two.
    ranges: SmallVec<[(u64, u64); 4]>,
}

impl Noted {
    /// No more ranges than this: then the smallest gap is closed.
    const MOST: usize = 16;

    fn add(&mut self, start: u64, last: u64) {
        let ranges = &mut self.ranges;
        // Those that the new one meets or touches become one with it.
        let first = ranges.partition_point(|&(_, its_last)| its_last < start.saturating_sub(1));
        let behind = ranges.partition_point(|&(its_start, _)| its_start <= last.saturating_add(1)).max(first);
        let all = ranges[first..behind]
            .iter()
            .fold((start, last), |(start, last), &(its_start, its_last)| (start.min(its_start), last.max(its_last)));
        ranges.drain(first..behind);
        ranges.insert(first, all);
        if ranges.len() > Noted::MOST {
            let gap = |&at: &usize| ranges[at + 1].0 - ranges[at].1;
            let smallest = (0..ranges.len() - 1).min_by_key(gap).expect("there are several");
            ranges[smallest].1 = ranges[smallest + 1].1;
            ranges.remove(smallest + 1);
        }
    }

    fn meets(&self, part: ByteRange) -> bool {
        let (start, last) = part.bounds();
        let next = self.ranges.partition_point(|&(_, its_last)| its_last < start);
        self.ranges.get(next).is_some_and(|&(its_start, _)| its_start <= last)
    }
}

#[cfg(all(test, not(any(loom, spanlock_shuttle))))]
mod tests {
    use super::*;

    /// Against a list of all ranges: nothing of them is forgotten; and as long as they are few, nothing else is noted.
    #[test]
    fn what_was_noted_is_met() {
        let mut rng = fastrand::Rng::with_seed(30);
        for _ in 0..2000 {
            let (mut noted, mut all) = (Noted::default(), Vec::new());
            let (count, most) = (rng.usize(0..60), rng.u64(1..8));
            for _ in 0..count {
                let start = rng.u64(0..400);
                let (start, last) = (start, start + rng.u64(0..most));
                noted.add(start, last);
                all.push((start, last));
            }
            let met = |start: u64, last: u64| all.iter().any(|&(s, l)| s <= last && start <= l);
            let mut pieces = 0;
            for at in 0..420 {
                pieces += usize::from(met(at, at) && (at == 0 || !met(at - 1, at - 1)));
            }
            assert!(noted.ranges.len() <= Noted::MOST && noted.ranges.len() <= pieces);
            for _ in 0..100 {
                let start = rng.u64(0..420);
                let last = start + rng.u64(0..6);
                let said = noted.meets(ByteRange::new(start..=last));
                assert!(said || !met(start, last), "{all:?} {start}..={last}");
                assert!(count > Noted::MOST || said == met(start, last), "{all:?} {start}..={last}");
            }
        }
    }

    #[test]
    fn the_ends_of_everything_are_noted() {
        let mut noted = Noted::default();
        noted.add(0, 0);
        noted.add(u64::MAX, u64::MAX);
        assert!(noted.meets(ByteRange::new(0..=0)) && noted.meets(ByteRange::new(u64::MAX..=u64::MAX)));
        assert!(!noted.meets(ByteRange::new(1..=u64::MAX - 1)));
        noted.add(1, u64::MAX - 1);
        assert_eq!(noted.ranges[..], [(0, u64::MAX)]);
    }
}
