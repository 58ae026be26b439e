//! A slot: the tree's record of one request, and the words that its state goes through.
//!
//! # The state word
//!
//! | bits | name | meaning |
//! |---|---|---|
//! | `0..3` | mode | one bit per [`Mode`](crate::facts::mode::Mode). Any of them set: the slot is *live* |
//! | `3..6` | - | always zero, so that the modes of all slots can be counted in one sum of their words |
//! | `6` | `CLAIMED` | taken, and its record is being written; not live yet |
//! | `7` | `QUEUING` | its owner found a conflict and is about to draw a ticket; together with `QUEUED`: *passing*, it goes before somebody with a lower ticket |
//! | `8` | `QUEUED` | it waits, and its ticket stands in the record |
//! | `9` | `GRANTED` | it waited and was granted, or is a token's, or passed somebody who yields, or is the second slot of a hold that moves. (A thread's that never waited stays PENDING: live, and none of these three.) Together with `QUEUED`: it waits, and *yields*: newcomers may go before it, if the lock says so |
//! | `10` | `WAITERS` | somebody sleeps until this word changes; whoever clears this bit must wake them |
//! | `11` | `RESCAN` | somebody has become a blocker behind this request's back: it must look again before it is granted. Of a holder: it is *poisoned*, and whoever would wait for it is refused |
//! | `12..20` | parts | which eighths of the node's span the range touches |
//! | `20..28` | grains | which of eight classes the grains (of 4 KiB) that it touches are of; all of them, if it touches more than two |
//! | `28..64` | version | one more at each claim and each shrink. 36 bits: a scan would have to stand still between two loads for as long as 2^36 claims of one slot take, half an hour at least |
//!
//! Two ranges that share a byte share a part and a class of grains. So most scans pass a live slot over without reading
//! its record: the parts tell far ranges apart, the grains near ones, as pages side by side.
//!
//! ```text
//!        claim            publish            conflict            ticket             no blocker
//! FREE ---------> CLAIMED --------> PENDING ----------> QUEUING --------> QUEUED -----------> GRANTED
//!  ^                                   |                                    |                    |
//!  +-----------------------------------+------------------------------------+--------------------+
//!                                   free (release, or cancel)
//! ```
//!
//! A holder, PENDING or GRANTED, may also change its mode to one that goes with more (downgrade) and give back bytes
//! (shrink). One that is QUEUED and yields must *close* before it is granted: yield no more, behind a full fence, and
//! look once more. (It may *reopen*.)
//!
//! # Invariants
//! - INV-S1: only the request that claimed a slot changes its mode, phase and record. Others set `WAITERS` or `RESCAN`,
//!   or make a queued request a passing one, or poison a holder and take that back, no more. (Who takes a doorway for a
//!   hold, and poisons it, makes it look once more.)
//! - INV-S2: the record is written while the slot is CLAIMED; after that `order` while it is QUEUING, or about to be
//!   GRANTED where a hold moves to it, or by a holder who takes the place of another hold of his; and `start` and
//!   `last` by a holder who shrinks, and who then makes the version a new one; and `owner`, once, by a task's hold that
//!   becomes a token's.
//! - INV-S3: whoever clears `WAITERS` wakes. It is cleared whenever the slot changes in a way that can free a waiter.
//!
//! # Orderings
//!
//! | pair | writer | reader | carries |
//! |---|---|---|---|
//! | S1 | publish: store PENDING, Release | scan: load, Acquire | the record |
//! | S2 | free: CAS or swap, Release | claim: CAS, Acquire; scan: load, Acquire; freeze: load, Acquire | what was done under the range |
//! | S3 | claim: `fence(Release)`, then the record's stores | scan: the record's loads, `fence(Acquire)`, load of the word | a record of another version is noticed |
//! | S7 | shrink: `fence(Release)`, then the record's stores; the new version by CAS, Release | as S3; scan: load of the word, Acquire | what was done under the bytes given back |
//! | S4 | queue, take over: CAS to QUEUED or GRANTED, Release | scan: load, Acquire | the ticket, or the order of the hold that has moved |
//! | S5 | register: CAS of `WAITERS`, AcqRel | free, queue: CAS or swap, AcqRel | the waiter's place on the event |
//! | S6 | publish: `fence(SeqCst)` | the same fence of the other | of two requests at least one sees the other |
//! | S8 | close: CAS, then `fence(SeqCst)` | the fence of a newcomer's publication | of one that closes and one that would pass it, at least one sees the other |
//! | S9 | ask to look again: CAS of `RESCAN`; then, by whoever goes before, `fence(SeqCst)`, and what is done under the grant, by any thread | who was announced: what was read, by any thread; `fence(SeqCst)`, load of the word | who has read anything of that knows that somebody came before |

use super::node::{Node, SLOTS};
use super::{
    Room,
    scan::{Query, Seen},
};
use crate::platform::reclaim::{LazyPin, Pin};
use crate::platform::sync::{AtomicU64, Ordering, const_fn, fence, publish, soon_written};
use std::fmt;
use std::num::NonZero;
use std::ptr::{self, NonNull};

/// The bits of all modes.
pub(super) const MODES: u64 = 0b111;
/// The bits that a sum of all words' modes can reach.
const MODES_SUM: u64 = 0b11_1111;
const CLAIMED: u64 = 1 << 6;
const QUEUING: u64 = 1 << 7;
const QUEUED: u64 = 1 << 8;
const GRANTED: u64 = 1 << 9;
/// Both bits: queued, and let past somebody with a lower ticket.
const PASSING: u64 = QUEUING | QUEUED;
/// Both bits: queued, and newcomers may go before it.
const YIELDING: u64 = QUEUED | GRANTED;
const WAITERS: u64 = 1 << 10;
const RESCAN: u64 = 1 << 11;
/// Parts of a node's span that a word tells apart.
pub(super) const PARTS: u32 = 8;
const PARTS_SHIFT: u32 = 12;
const ALL_PARTS: u64 = ((1 << PARTS) - 1) << PARTS_SHIFT;
/// log2 of the bytes in a grain: a page.
pub(super) const GRAIN_SHIFT: u32 = 12;
/// log2 of the classes of grains that a word tells apart.
const CLASS_BITS: u32 = 3;
const GRAINS_SHIFT: u32 = PARTS_SHIFT + PARTS;
const ALL_GRAINS: u64 = ((1 << (1 << CLASS_BITS)) - 1) << GRAINS_SHIFT;
const ONE_VERSION: u64 = 1 << (GRAINS_SHIFT + (1 << CLASS_BITS));
const VERSION: u64 = !(ONE_VERSION - 1);
/// One claim of a slot in this many is followed by a look at the tree's shape (see `place`), so that the others stay
/// clean.
const SAMPLE: u64 = if cfg!(spanlock_shuttle) { 2 } else { 32 };

const _: () =
    assert!(SLOTS as u64 * 0b100 <= MODES_SUM, "a node full of the highest mode bit does not overflow the sum");

/// The words of several slots, added up: their modes, that is.
#[derive(Clone, Copy)]
pub(super) struct Sum(u64);

impl Sum {
    pub(super) const ZERO: Sum = Sum(0);

    #[inline]
    pub(super) fn plus(self, word: u64) -> Sum {
        Sum(self.0.wrapping_add(word))
    }

    /// Whether the only live slot among them is one of `mode`; none at all if that is 0.
    #[inline]
    pub(super) fn is_only(self, mode: u64) -> bool {
        self.0 & MODES_SUM == mode
    }
}

/// A value of the state word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(u64);

impl Word {
    pub(super) fn from_bits(bits: u64) -> Word {
        Word(bits)
    }

    pub(super) fn is_live(self) -> bool {
        self.0 & MODES != 0
    }

    pub(super) fn is_free(self) -> bool {
        self.0 & (MODES | CLAIMED) == 0
    }

    /// Whether a look at the tree's shape is due after this claim. Not at every 32nd, but once in each 32 and a step
    /// later each time: whoever goes round 16 pages would look at the same one for ever. (loom's models decide about
    /// growth themselves.)
    #[inline]
    pub(super) fn is_due(self) -> bool {
        cfg!(not(loom)) && (self.0 ^ (self.0 / SAMPLE)) & (ONE_VERSION * (SAMPLE - 1)) == 0
    }

    /// The word of the next claim, but for what it is claimed for.
    #[inline]
    pub(super) fn next_claim(self) -> Word {
        Word((self.0 & VERSION).wrapping_add(ONE_VERSION))
    }

    /// Whether any of `bits` is set.
    pub(super) fn has(self, bits: u64) -> bool {
        self.0 & bits != 0
    }

    #[inline]
    fn may_be_in_the_way(self, parts: Parts, against: u64) -> bool {
        self.has(against) && parts.are_in(self.0)
    }

    /// The bit of its mode.
    pub(crate) fn mode(self) -> u64 {
        self.0 & MODES
    }

    pub(crate) fn is_queued(self) -> bool {
        self.0 & QUEUED != 0
    }

    /// Whether it waits, and has been let past somebody with a lower ticket.
    pub(crate) fn is_passing(self) -> bool {
        self.0 & PASSING == PASSING
    }

    /// Whether it is neither a holder nor in the queue yet: it has found a conflict, and its ticket is on the way.
    pub(crate) fn is_queuing(self) -> bool {
        self.0 & PASSING == QUEUING
    }

    /// Whether it holds its range for certain. (One that is PENDING may only be about to find out that it does not.)
    pub(crate) fn is_granted(self) -> bool {
        self.0 & YIELDING == GRANTED
    }

    /// Whether it waits, and newcomers may go before it.
    pub(crate) fn is_yielding(self) -> bool {
        self.0 & YIELDING == YIELDING
    }

    /// Its bits; none if newcomers may go before it. (Without a branch: for a look at all words of a node.)
    pub(super) fn unless_yielding(self) -> u64 {
        const _: () = assert!(QUEUED << 1 == GRANTED);
        let yields = self.0 & (self.0 >> 1) & QUEUED;
        self.0 & (yields / QUEUED).wrapping_sub(1)
    }

    /// Whether it is of a holder whom nobody shall wait for.
    pub(crate) fn is_poisoned(self) -> bool {
        self.is_live() && self.0 & (PASSING | RESCAN) == RESCAN
    }

    /// Which of the slot's requests it is of, a shrunk one being another: for [`Room`].
    pub(crate) fn age(self) -> u64 {
        self.0 & VERSION
    }

    /// Whether somebody sleeps until it changes.
    pub(super) fn is_watched(self) -> bool {
        self.has(WAITERS)
    }

    fn same_version(self, other: Word) -> bool {
        (self.0 ^ other.0) & VERSION == 0
    }

    /// The same slot at rest: of the version that was claimed last, and nothing else.
    fn freed(self) -> Word {
        Word(self.0 & VERSION)
    }

    fn but_for_waiters(self) -> u64 {
        self.0 & !WAITERS
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (0b001, "add"),
            (0b010, "block"),
            (0b100, "exclusive"),
            (CLAIMED, "claimed"),
            (QUEUING, "queuing"),
            (QUEUED, "queued"),
            (GRANTED, "granted"),
            (WAITERS, "waiters"),
            (RESCAN, "rescan"),
        ];
        let set = names.iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, name)| name);
        f.debug_list().entries(set).finish()?;
        write!(f, "v{}", self.0 / ONE_VERSION)
    }
}

/// The bits of a word that say where its range is: the parts of its node's span, and the classes of grains, that it
/// touches.
#[derive(Clone, Copy)]
pub(super) struct Parts(u64);

impl Parts {
    /// Parts `first..=last`, and the grains of the bytes `start..=end`.
    #[inline(always)]
    fn new(first: u64, last: u64, start: u64, end: u64) -> Parts {
        debug_assert!(first <= last && last < u64::from(PARTS));
        // Ones up to `last`, without those below `first`.
        let parts = ((2 << last) - (1 << first)) << PARTS_SHIFT;
        Parts(parts | Classes::of(start, end).0)
    }

    /// All parts, and the grains of the bytes `start..=end`.
    #[inline(always)]
    pub(super) fn all(start: u64, end: u64) -> Parts {
        Parts(ALL_PARTS | Classes::of(start, end).0)
    }

    /// Whether the range of a word, or of one of several OR-ed, may share a byte with this one.
    #[inline]
    pub(super) fn are_in(self, words: u64) -> bool {
        let shared = words & self.0;
        shared & ALL_PARTS != 0 && shared & ALL_GRAINS != 0
    }
}

/// Some of the classes of grains, as bits where a word has them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Classes(u64);

impl Classes {
    pub(super) const ALL: Classes = Classes(ALL_GRAINS);

    /// Those of the grains that the bytes `start..=last` touch. If these are more than two: all of them.
    #[inline(always)]
    pub(super) fn of(start: u64, last: u64) -> Classes {
        let (low, high) = (start >> GRAIN_SHIFT, last >> GRAIN_SHIFT);
        if low == high {
            Classes(Classes::bit_of(low))
        } else if low + 1 == high {
            Classes(Classes::bit_of(low) | Classes::bit_of(high))
        } else {
            Classes::ALL
        }
    }

    /// The bit of a grain's class. The golden ratio's multiples are spread evenly, also those of numbers in regular
    /// steps.
    #[inline(always)]
    fn bit_of(grain: u64) -> u64 {
        1 << GRAINS_SHIFT << (grain.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - CLASS_BITS))
    }

    /// What fits into a byte.
    pub(super) const fn from_byte(byte: u8) -> Classes {
        Classes((byte as u64) << GRAINS_SHIFT)
    }

    pub(super) const fn to_byte(self) -> u8 {
        (self.0 >> GRAINS_SHIFT) as u8
    }

    pub(super) fn is_one(self) -> bool {
        self.0.is_power_of_two()
    }

    /// Whether all of these are among `others`.
    #[inline]
    pub(super) fn are_among(self, others: Classes) -> bool {
        self.0 & !others.0 == 0
    }

    /// Whether one of these is among `others`. If not, nothing of the one shares a byte with anything of the other.
    #[inline]
    pub(super) fn meet(self, others: Classes) -> bool {
        self.0 & others.0 != 0
    }
}

/// How a node's span is cut into parts.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    base: u64,
    /// log2 of the bytes in a part.
    shift: u32,
}

impl Scale {
    #[inline(always)]
    pub(super) fn new(base: u64, shift: u32) -> Scale {
        Scale { base, shift }
    }

    /// The parts that `start..=last`, a part of the span, touches.
    #[inline(always)]
    pub(super) fn parts(self, start: u64, last: u64) -> Parts {
        Parts::new((start - self.base) >> self.shift, (last - self.base) >> self.shift, start, last)
    }
}

/// What a request says of itself in its slot. All accesses are Relaxed: S1, S3 and S4 order them.
pub(super) struct Record {
    pub(super) start: AtomicU64,
    pub(super) last: AtomicU64,
    pub(super) owner: AtomicU64,
    /// See [`crate::facts::owner`].
    pub(super) order: AtomicU64,
}

impl Record {
    const_fn! {
        pub(super) const fn new() -> Record {
            Record { start: AtomicU64::new(0), last: AtomicU64::new(0), owner: AtomicU64::new(0), order: AtomicU64::new(0) }
        }
    }
}

/// A request on its way into a slot. The range is inclusive, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) start: u64,
    pub(crate) last: u64,
    /// The bit of its mode.
    pub(crate) mode: u64,
    pub(crate) owner: u64,
    /// When it came among its owner's requests: see [`crate::facts::owner`].
    pub(crate) order: u64,
}

/// What a scan read in a slot, untorn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) word: Word,
    pub(super) start: u64,
    pub(super) last: u64,
    pub(super) owner: u64,
    /// The ticket, if the word says QUEUED.
    pub(super) order: u64,
}

/// One slot of a node.
#[derive(Clone, Copy)]
pub(super) struct Slot<'a> {
    pub(super) state: &'a AtomicU64,
    pub(super) record: &'a Record,
}

impl Slot<'_> {
    /// The record as it stands, whatever the word says: `start`, `last`, `owner`. A hint, possibly a mixture of two
    /// records.
    pub(super) fn hint(self) -> (u64, u64, u64) {
        let Record { start, last, owner, .. } = self.record;
        (start.load(Ordering::Relaxed), last.load(Ordering::Relaxed), owner.load(Ordering::Relaxed))
    }

    /// The bit of its mode at this moment, if it is live. A hint as well.
    #[cfg(all(any(test, fuzzing), not(any(loom, spanlock_shuttle))))]
    pub(super) fn mode_now(self) -> u64 {
        Word(self.state.load(Ordering::Relaxed)).mode()
    }

    /// Whether it is live at this moment. A hint as well.
    pub(super) fn is_live_now(self) -> bool {
        Word(self.state.load(Ordering::Relaxed)).is_live()
    }

    /// Whether newcomers may go before it.
    pub(super) fn yields(self) -> bool {
        // ORDERING (S8): who has closed before the caller's fence is found to have.
        Word(self.state.load(Ordering::Acquire)).is_yielding()
    }

    /// The word, if the slot seems free. Relaxed: the CAS of `occupy` decides.
    #[inline(always)]
    pub(super) fn found_free(self) -> Option<Word> {
        soon_written(self.state);
        Some(Word(self.state.load(Ordering::Relaxed))).filter(|word| word.is_free())
    }

    /// Claims the slot if it is as it was found, writes the record and publishes: PENDING, behind a full fence. Without
    /// a `scale` the word says all parts.
    #[inline(always)]
    pub(super) fn occupy(self, found: Word, entry: &Entry, scale: Option<Scale>) -> bool {
        let claim = found.next_claim().0;
        // ORDERING (S2): Acquire, from the release of whoever was here before. It hands on what was done under that
        // range to whoever finds *this* request, and keeps the record's stores behind the claim.
        if self.state.compare_exchange(found.0, claim | CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return false;
        }
        // ORDERING (S3): a scan that reads any of the stores below reads, behind its own fence, a word no older than
        // CLAIMED: it notices that the record is of another version than the word that it began with.
        fence(Ordering::Release);
        self.record.start.store(entry.start, Ordering::Relaxed);
        self.record.last.store(entry.last, Ordering::Relaxed);
        self.record.owner.store(entry.owner, Ordering::Relaxed);
        self.record.order.store(entry.order, Ordering::Relaxed);
        // Here and not earlier: what the claim had to wait for would delay it.
        let parts = match scale {
            Some(scale) => scale.parts(entry.start, entry.last),
            None => Parts::all(entry.start, entry.last),
        };
        // ORDERING (S1, S6): no plain store can be lost here: nobody else changes a CLAIMED word (INV-S1).
        publish(self.state, claim | parts.0 | entry.mode);
        true
    }

    /// Whether its word says that it is live in one of the modes `against`, and that it may meet what touches `parts`.
    ///
    /// ORDERING (S2, S7): Acquire, as for [`Node::unclear`].
    #[inline]
    pub(super) fn may_be_in_the_way(self, parts: Parts, against: u64) -> bool {
        Word(self.state.load(Ordering::Acquire)).may_be_in_the_way(parts, against)
    }

    /// Reads the slot if it is live in one of the modes `against` and meets `start..=last`, which touches `parts` of
    /// the node.
    #[inline]
    pub(super) fn read(self, start: u64, last: u64, parts: Parts, against: u64) -> Option<Reading> {
        // ORDERING (S1, S2, S4, S7): Acquire, so that the record is the one that this word speaks of, or a younger one.
        let mut word = Word(self.state.load(Ordering::Acquire));
        loop {
            if !word.may_be_in_the_way(parts, against) {
                return None;
            }
            let its_start = self.record.start.load(Ordering::Relaxed);
            let its_last = self.record.last.load(Ordering::Relaxed);
            let owner = self.record.owner.load(Ordering::Relaxed);
            let order = self.record.order.load(Ordering::Relaxed);
            // ORDERING (S3): if one of the loads above read a younger record, the load below sees its claim.
            fence(Ordering::Acquire);
            // Acquire: what its owner did under the range before it went is then known to whoever skips it.
            let again = Word(self.state.load(Ordering::Acquire));
            if again.same_version(word) && again.is_live() {
                let reading = Reading { word, start: its_start, last: its_last, owner, order };
                return (its_start <= last && start <= its_last).then_some(reading);
            }
            // The request that the word spoke of has shrunk, or is gone. If it is gone, whoever has replaced it
            // published after the load of that word, hence after the caller's own fence, and will see the caller: it
            // could be passed over. But not one that shrank.
            word = again;
        }
    }

    /// Asks to be woken when the slot changes from `evaluated`: sets `WAITERS`. `false`: it has changed already.
    ///
    /// The caller listens *first* (S5), so that no wake-up falls between.
    pub(super) fn ask_for_wake(self, evaluated: Word) -> bool {
        let mut word = Word(self.state.load(Ordering::Acquire));
        loop {
            // Compared with the word that was *evaluated*: with a younger one, the caller could sleep on a slot that is
            // free.
            if word.but_for_waiters() != evaluated.but_for_waiters() {
                return false;
            }
            if word.has(WAITERS) {
                return true;
            }
            // ORDERING (S5): Release, so that whoever clears the bit finds the listener; Acquire, as for the load.
            match self.state.compare_exchange(word.0, word.0 | WAITERS, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) => word = Word(now),
            }
        }
    }

    /// Frees the slot if nobody waits for it: the whole of an uncontended release.
    #[inline]
    fn free_unwatched(self) -> bool {
        // Relaxed: the CAS decides.
        let word = Word(self.state.load(Ordering::Relaxed));
        // ORDERING (S2): Release: what was done under the range is seen by whoever finds the slot free, or claimed
        // anew.
        !word.has(WAITERS)
            && self.state.compare_exchange(word.0, word.freed().0, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Frees the slot; returns the word before. If that was watched, those who wait must be woken (INV-S3).
    /// One step, like the CAS of [`Slot::free_unwatched`] (INV-P3).
    pub(super) fn free(self) -> Word {
        // Relaxed: the version is this request's own, and nobody else changes it (INV-S1).
        let word = Word(self.state.load(Ordering::Relaxed));
        // ORDERING: Release as in `free_unwatched` (S2); Acquire to find the listeners of whoever set WAITERS (S5).
        Word(self.state.swap(word.freed().0, Ordering::AcqRel))
    }

    /// Changes the word by `change`, clearing nothing that others set meanwhile; returns the word before.
    fn update(self, change: impl Fn(u64) -> u64) -> Word {
        let mut word = self.state.load(Ordering::Relaxed);
        loop {
            // ORDERING: Release for what the new word promises (S4: the ticket); Acquire for the listeners if it clears
            // WAITERS (S5).
            match self.state.compare_exchange_weak(word, change(word), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Word(word),
                Err(now) => word = now,
            }
        }
    }
}

/// The slot of a live request, in the hands of whoever made the request. It is left by [`Placed::free_unwatched`] or
/// [`Placed::free`]; dropping it otherwise leaves the range locked for good.
///
/// A node with a live slot is neither pruned nor freed (`prune`), and the tree outlives the request (the contract of
/// [`Tree::place`](super::Tree::place)), so the node can be used without a pin for as long as the slot is not freed.
///
/// One word, the node's address with the slot's index in its low bits, so that a guard fits into two registers: through
/// memory it costs as much as another atomic operation. A request for no byte is in no node; its word is its mode's
/// bit.
pub(crate) struct Placed<R>(NonNull<Node<R>>);

// SAFETY: a `Placed` is a pointer to a node that is kept in place by the slot itself; everything that it does there
// goes through atomics, and `R` (the events) is shared between threads: hence `R: Send + Sync`.
unsafe impl<R: Send + Sync> Send for Placed<R> {}
// SAFETY: as above; all methods that take `&self` are atomic operations.
unsafe impl<R: Send + Sync> Sync for Placed<R> {}

/// The slot of a request, for its own scans to pass over. By value, so that the request's handle can stay in a
/// register.
pub(crate) struct Own<R> {
    node: *const Node<R>,
    index: usize,
    mode: u64,
    /// log2 of the bytes in the node's cells.
    cell_shift: u32,
}

impl<R> Clone for Own<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Own<R> {}

impl<R> Own<R> {
    #[inline]
    pub(super) fn is_in(self, node: &Node<R>) -> bool {
        ptr::eq(self.node, node)
    }

    /// Whether `node`, which the request's own scan has come to, lies below the one that it is in: if it spans less.
    /// For both meet the range, which its own node covers whole, and of two spans that meet the smaller one lies within
    /// the other.
    #[inline]
    pub(super) fn is_above(self, node: &Node<R>) -> bool {
        node.cell_shift() < self.cell_shift
    }

    pub(super) fn index(self) -> usize {
        self.index
    }

    /// The bit of its mode.
    #[inline]
    pub(super) fn mode(self) -> u64 {
        self.mode
    }

    /// # Safety
    /// The request still has its slot.
    unsafe fn slot<'a>(self) -> Slot<'a>
    where
        R: 'a,
    {
        // SAFETY: a node with a live slot is neither pruned nor freed (see `Placed`); the caller says that this slot is
        // live.
        let node = unsafe { &*self.node };
        node.slot(self.index)
    }

    /// Makes a queued request a passing one: whoever has a lower ticket asks whom it passes. `false`: it is not queued,
    /// yet or any more.
    ///
    /// # Safety
    /// The request still has its slot.
    pub(crate) unsafe fn let_pass(self) -> bool {
        // SAFETY: the caller's promise.
        let slot = unsafe { self.slot() };
        let mut word = slot.state.load(Ordering::Relaxed);
        while Word(word).is_queued() {
            // ORDERING: AcqRel, so that it is in the chain that leads to `ask_to_rescan` and from there to whoever
            // looks again.
            match slot.state.compare_exchange(word, word | PASSING, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// The request as it stands, to be watched.
    ///
    /// # Safety
    /// The request still has its slot.
    pub(crate) unsafe fn seen<'p>(self, _pin: &'p LazyPin) -> Seen<'p, R>
    where
        R: Room,
    {
        // SAFETY: as in `slot`; and the node is not freed before the pin ends, or its tree, whichever comes first.
        let node = unsafe { &*self.node };
        let slot = node.slot(self.index);
        let word = Word(slot.state.load(Ordering::Acquire));
        let (start, last, owner) = slot.hint();
        let order = slot.record.order.load(Ordering::Relaxed);
        Seen::new(node, self.index, Reading { word, start, last, owner, order })
    }

    /// Whether the request waits with `ticket`.
    ///
    /// # Safety
    /// The request still has its slot.
    pub(crate) unsafe fn waits_with(self, ticket: u64) -> bool {
        // SAFETY: the caller's promise.
        let slot = unsafe { self.slot() };
        Word(slot.state.load(Ordering::Acquire)).is_queued() && slot.record.order.load(Ordering::Relaxed) == ticket
    }
}

/// What asking a queued request to look again has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rescan {
    /// It will, before it is granted.
    Asked,
    /// It was granted before.
    Granted,
    /// It has left.
    Gone,
}

/// What became of a request that found no blocker left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// It holds its range.
    Granted,
    /// Somebody became a blocker meanwhile: scan once more.
    LookAgain,
}

/// The low bits of a node's address, which are free to hold an index.
const LOW: usize = align_of::<Node<()>>() - 1;
const _: () = assert!(SLOTS <= LOW && MODES as usize <= LOW);

impl<R: Room> Placed<R> {
    #[inline]
    pub(super) fn new(node: &Node<R>, index: usize) -> Placed<R> {
        Placed(NonNull::from(node).map_addr(|addr| addr | index))
    }

    /// A request for no byte in the mode of this bit.
    pub(crate) fn nowhere(mode: u64) -> Placed<R> {
        Placed(NonNull::dangling().with_addr(NonZero::new(mode as usize).expect("a mode's bit is set")))
    }

    /// Whether its slot has been claimed so often that a look at the tree's shape is due.
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        // Relaxed: the version is this request's own.
        Word(self.slot().state.load(Ordering::Relaxed)).is_due()
    }

    #[inline]
    fn is_nowhere(&self) -> bool {
        self.0.addr().get() <= LOW
    }

    #[inline]
    fn index(&self) -> usize {
        self.0.addr().get() & LOW
    }

    #[inline]
    fn node_ptr(&self) -> *const Node<R> {
        self.0.as_ptr().map_addr(|addr| addr & !LOW)
    }

    #[inline]
    pub(super) fn node(&self) -> &Node<R> {
        debug_assert!(!self.is_nowhere());
        // SAFETY: the slot is live, so the node is neither pruned nor freed, and it is only ever shared (see the type).
        unsafe { &*self.node_ptr() }.used()
    }

    #[inline]
    fn slot(&self) -> Slot<'_> {
        self.node().slot(self.index())
    }

    /// Where this request, of the mode with this bit, is: for its own scans to pass over.
    #[inline]
    pub(crate) fn own(&self, mode: u64) -> Own<R> {
        Own { node: self.node_ptr(), index: self.index(), mode, cell_shift: self.node().cell_shift() }
    }

    /// The range, inclusive; `None` if it is empty.
    pub(crate) fn range(&self) -> Option<(u64, u64)> {
        if self.is_nowhere() {
            return None;
        }
        // Relaxed: written by this request, and by nobody else while it lives (INV-S1).
        let (start, last, _) = self.slot().hint();
        Some((start, last))
    }

    /// The mode's bit.
    pub(crate) fn mode(&self) -> u64 {
        if self.is_nowhere() { self.index() as u64 } else { Word(self.slot().state.load(Ordering::Relaxed)).mode() }
    }

    #[cfg(all(test, not(any(loom, spanlock_shuttle))))]
    pub(super) fn shares_node_with(&self, other: &Placed<R>) -> bool {
        ptr::eq(self.node_ptr(), other.node_ptr())
    }

    /// PENDING -> QUEUING: from now on this request draws a ticket, and is no holder.
    pub(crate) fn start_queuing(&self) {
        self.slot().update(|word| word | QUEUING);
    }

    /// QUEUING -> QUEUED with `ticket`. Wakes whoever took it for a holder: they may be in front of it now.
    pub(crate) fn queue(&self, ticket: u64) {
        self.queue_as(QUEUED, ticket);
    }

    /// The same of one that yields.
    pub(crate) fn queue_and_yield(&self, ticket: u64) {
        self.queue_as(YIELDING, ticket);
    }

    fn queue_as(&self, queued: u64, ticket: u64) {
        let slot = self.slot();
        // Relaxed: S4 orders it.
        slot.record.order.store(ticket, Ordering::Relaxed);
        self.tell(slot.update(|word| word & !(QUEUING | WAITERS) | queued));
    }

    /// A queued request that yields does so no more: whoever has looked before may have passed it, and is found by who
    /// looks now.
    ///
    /// ORDERING (S8): the fence pairs with that of a publication. If the newcomer's comes first, its slot is found
    /// behind this one; if not, it reads what is written here.
    pub(crate) fn close(&self) {
        self.slot().update(|word| word & !GRANTED);
        fence(Ordering::SeqCst);
    }

    /// A queued request yields again. (Nobody need learn of that: who is behind it by its ticket stays there.)
    pub(crate) fn reopen(&self) {
        self.slot().update(|word| word | GRANTED);
    }

    /// PENDING -> GRANTED of one that has passed somebody who yields, so that it is taken for no later request that is
    /// still in its doorway. Whoever waits for it, waits on.
    pub(crate) fn hold_quietly(&self) {
        self.slot().update(|word| word | GRANTED);
    }

    /// QUEUED -> GRANTED, unless somebody asked for another scan.
    ///
    /// By CAS: a plain store would lose a `RESCAN` that arrives now, and with it the exclusion.
    pub(crate) fn grant(&self) -> Grant {
        let before =
            self.slot().update(|word| if word & RESCAN != 0 { word & !RESCAN } else { word & !PASSING | GRANTED });
        if before.has(RESCAN) { Grant::LookAgain } else { Grant::Granted }
    }

    /// Whether this queued request was told to look again, and has not done so yet.
    ///
    /// ORDERING (S9): behind a full fence, so that it comes behind all that was read, by the caller or for it. Release
    /// and Acquire would do only if who is granted, and who asks, wrote and read themselves.
    pub(crate) fn is_to_look_again(&self) -> bool {
        fence(Ordering::SeqCst);
        // Relaxed: the fence is what orders it.
        Word(self.slot().state.load(Ordering::Relaxed)).has(RESCAN)
    }

    /// PENDING -> GRANTED: says aloud that this request holds its range. Wakes whoever listens for that; whether there
    /// is any.
    #[must_use = "who has listened is woken by `wait::deliver`"]
    pub(crate) fn hold(&self) -> bool {
        let before = self.slot().update(|word| word & !WAITERS | GRANTED);
        self.tell(before);
        before.is_watched()
    }

    /// The same of the second slot of a hold that came at `order`.
    #[must_use = "who has listened is woken by `wait::deliver`"]
    pub(crate) fn take_over(&self, order: u64) -> bool {
        // Relaxed: S4 orders it.
        self.slot().record.order.store(order, Ordering::Relaxed);
        self.hold()
    }

    /// A hold that has waited takes the place of one that came at `order`, and came no later than that. Nobody who
    /// reads the old number is misled by it before the hold whose place it takes is given back: whoever goes by the
    /// order of a hold looks again if one has moved meanwhile.
    pub(crate) fn keep_order(&self, order: u64) {
        // Relaxed: as for `take_over`, but what hands it on is the count of moves.
        self.slot().record.order.store(order, Ordering::Relaxed);
    }

    /// The holder as it stands, to be looked at.
    pub(crate) fn seen<'p>(&'p self, _pin: &'p LazyPin) -> Seen<'p, R> {
        let slot = self.slot();
        let word = Word(slot.state.load(Ordering::Acquire));
        let (start, last, owner) = slot.hint();
        let order = slot.record.order.load(Ordering::Relaxed);
        Seen::new(self.node(), self.index(), Reading { word, start, last, owner, order })
    }

    /// A holder's owner becomes `owner`, which nobody else is, and which has made no request yet. It says GRANTED
    /// first: a token's request that does not is taken for one in its doorway. Whether somebody has listened for that.
    #[must_use = "who has listened is woken by `wait::deliver`"]
    pub(crate) fn hand_over(&self, owner: u64) -> bool {
        let is_watched = self.hold();
        // Relaxed: to all others the old owner and the new one are alike, somebody else. The new owner's requests begin
        // behind this, by whatever they have the owner from. Who reads the new owner beside the word of before takes it
        // for undecided, and finds the word changed (S1).
        self.slot().record.owner.store(owner, Ordering::Relaxed);
        is_watched
    }

    /// A holder's mode becomes the one with this bit, which goes with all that the old one went with, and more.
    ///
    /// ORDERING (S2): Release, as for a release: what was done under the old mode is seen by whoever is let in.
    pub(crate) fn downgrade(&self, mode: u64) {
        self.tell(self.slot().update(|word| word & !(MODES | WAITERS) | mode));
    }

    /// A holder gives back what lies outside of `start..=last`, which lies in its range.
    ///
    /// The version changes, and so every registration on the old range fails, or is told. A scan that reads one bound
    /// before and the other one after sees a range between the two: too large for the new word, whose version it then
    /// finds, and right for the old one.
    pub(crate) fn shrink(&self, start: u64, last: u64) {
        let slot = self.slot();
        let parts = self.node().parts_within(start, last);
        // ORDERING (S7): a scan that reads a bound stored below and passes on knows what was done under the bytes given
        // back.
        fence(Ordering::Release);
        slot.record.start.store(start, Ordering::Relaxed);
        slot.record.last.store(last, Ordering::Relaxed);
        let before =
            slot.update(|word| (word & !(ALL_PARTS | ALL_GRAINS | WAITERS)).wrapping_add(ONE_VERSION) | parts.0);
        self.tell(before);
    }

    /// Wakes whoever waits for the slot to change, if there is anybody: it has changed from `before`.
    fn tell(&self, before: Word) {
        if before.is_watched() {
            self.node().tell_room(self.index(), before);
        }
    }

    /// When it came among its owner's requests; `None` for no byte.
    pub(crate) fn order(&self) -> Option<u64> {
        // Relaxed: as for `range`.
        (!self.is_nowhere()).then(|| self.slot().record.order.load(Ordering::Relaxed))
    }

    /// Whose it is; `None` for no byte.
    pub(crate) fn owner(&self) -> Option<u64> {
        (!self.is_nowhere()).then(|| self.slot().hint().2)
    }

    /// Whether it is a request for no byte.
    #[inline]
    pub(crate) fn is_nothing(&self) -> bool {
        self.is_nowhere()
    }

    /// Frees the slot if nobody waits for it. If it returns `true`, the node may be gone.
    #[inline]
    pub(crate) fn free_unwatched(&self) -> bool {
        self.is_nowhere() || self.slot().free_unwatched()
    }

    /// Frees the slot and wakes whoever waits for it.
    ///
    /// The pin keeps the node, which may be pruned as soon as the slot is free, until the wake-up is done.
    pub(crate) fn free(&self, _pin: &Pin) {
        let node = self.node();
        let before = node.slot(self.index()).free();
        if before.is_watched() {
            node.tell_room(self.index(), before);
        }
    }
}

/// A slot's word as a scan found it, which a waiter can watch while it is pinned.
impl<R: Room> Seen<'_, R> {
    /// Whether the slot's word is another one by now, waiters apart.
    pub(crate) fn has_changed(&self) -> bool {
        // Acquire: who sees the slot free goes on without looking at it again.
        let now = Word(self.slot().state.load(Ordering::Acquire));
        now.but_for_waiters() != self.word().but_for_waiters()
    }

    /// Makes whoever changes the slot from what was seen ring in the node's room. `false`: it has changed already.
    pub(crate) fn ask_for_wake(&self) -> bool {
        self.slot().ask_for_wake(self.word())
    }

    /// Tells a queued request that somebody has become its blocker behind its back.
    pub(crate) fn ask_to_rescan(&self) -> Rescan {
        let slot = self.slot();
        let mut word = Word(slot.state.load(Ordering::Acquire));
        loop {
            if !word.same_version(self.word()) || !word.is_live() {
                return Rescan::Gone;
            }
            if !word.is_queued() {
                return Rescan::Granted;
            }
            // ORDERING: Release, so that the scan behind the request's own CAS, which clears the bit, sees the blocker.
            match slot.state.compare_exchange(word.0, word.0 | RESCAN, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Rescan::Asked,
                Err(now) => word = Word(now),
            }
        }
    }

    /// Whether the request that was seen as a holder has been one ever since, and of the same bytes in the same mode.
    pub(crate) fn holds_still(&self) -> bool {
        let word = self.word();
        let now = Word(self.slot().state.load(Ordering::Acquire));
        now.same_version(word) && now.0 & MODES == word.0 & MODES && !now.has(PASSING)
    }

    /// What is in the slot by now, if `query` is about that. (Whose it is, is not asked.)
    pub(crate) fn again(&self, query: &Query) -> Option<Self> {
        let Query { start, last, against, .. } = *query;
        let reading = self.slot().read(start, last, self.node().parts(start, last), against)?;
        Some(Seen::new(self.node(), self.room_index(), reading))
    }

    /// Poisons the holder that was seen, if it is there still, and wakes whoever waits for it to change; whether it is
    /// poisoned now. (`false` as below.)
    pub(crate) fn poison(&self) -> bool {
        // ORDERING: AcqRel: Acquire for the listeners of whoever set WAITERS (S5). What is said of it is handed on by a
        // mutex.
        self.change_hold(|word| word & !WAITERS | RESCAN)
    }

    /// Takes that back. Nobody has slept on it meanwhile. `false` as below.
    pub(crate) fn cure(&self) -> bool {
        self.change_hold(|word| word & !RESCAN)
    }

    /// Changes the word of the holder that was seen; `false`: it holds no more, or less.
    fn change_hold(&self, change: impl Fn(u64) -> u64) -> bool {
        let slot = self.slot();
        let mut word = Word(slot.state.load(Ordering::Acquire));
        while word.same_version(self.word()) && word.is_live() && !word.has(PASSING) {
            match slot.state.compare_exchange(word.0, change(word.0), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    // If that has left WAITERS as it was, there is nothing to tell.
                    if word.is_watched() && change(word.0) & WAITERS == 0 {
                        self.node().tell_room(self.room_index(), word);
                    }
                    return true;
                }
                Err(now) => word = Word(now),
            }
        }
        false
    }

    /// Whether the request that was seen is still in the slot, and waits.
    pub(crate) fn waits_still(&self) -> bool {
        let now = Word(self.slot().state.load(Ordering::Acquire));
        now.same_version(self.word()) && now.is_queued()
    }

    /// Whether the request that was seen is still in the slot, whatever its phase.
    pub(crate) fn is_there_still(&self) -> bool {
        let now = Word(self.slot().state.load(Ordering::Acquire));
        now.same_version(self.word()) && now.is_live()
    }

    /// Wakes all that wait for the slot to change.
    pub(crate) fn tell(&self) {
        self.node().tell_room(self.room_index(), self.word());
    }
}
