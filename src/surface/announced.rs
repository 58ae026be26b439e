//! A request that takes its place and lets its owner go on, as users ask for it: announce, work, ask whether that was
//! clear, and wait if it was not.

use crate::facts::error::Refused;
use crate::facts::mode::Mode;
use crate::facts::owner_kind::sealed::Sealed as _;
use crate::facts::owner_kind::{ByTask, Counted};
use crate::facts::range::ByteRange;
use crate::protocol::announce;
use crate::protocol::grant;
use crate::surface::guard::Guard;
use crate::surface::request::{Acquire, LockRef};
use std::fmt;
use std::future::IntoFuture;
use std::ops::RangeBounds;

/// A request that has its place in the queue, and whose owner goes on: the answer of
/// [`Request::announce`](crate::Request::announce).
///
/// For who knows what he *may* touch, and not what he will. He announces that, works at once, and asks afterwards
/// whether anybody was [in the way](Announced::is_clear) of the part that he has really touched. If not, that is as
/// good as having held the part all the while. If somebody was, he [waits](Announced::wait), in the place that he has
/// had since, and does it again. A scan that ends when it has found ten rows asks so for the rest of the table.
///
/// | | |
/// |---|---|
/// | [`is_clear`](Announced::is_clear) | whether nobody was in the way of a part, from the announcement to now |
/// | [`wait`](Announced::wait), `.await` | the guard of all of it, when it is its turn |
/// | drop | gives the place up; who waits for it goes on |
///
/// - **Who comes later waits for it,** if he is in conflict with any byte that was announced, until it has left. That
///   is so of every request that waits; but this one stays for as long as its owner works. So a thread or a task that
///   has announced something, and asks for bytes of that by another request, waits for itself, and nobody can tell: as
///   one does who holds the guard of a task ([`OwnedBy`](crate::owners::OwnedBy)).
/// - **It overtakes nobody.** If nobody is in its way it is granted, and holds.
/// - **What is read meanwhile may be written at the same time,** by whoever is in the way; only the answer tells. So it
///   has to stand that: versions, atomics, or a place with a latch of its own, not plain memory. What is waited for may
///   be plain. And nothing is to be *written* before it was waited for: whoever is in the way may be reading it.
/// - **In a lock with a [window](crate::RangeLock::reordering)** it is a newcomer when it is announced, and may be
///   granted before others who wait. If it is not, it keeps its place: no newcomer goes before it.
/// - **A holder who was [poisoned](Guard::poison)** is in its way like any other; it is refused for that when it waits.
///
/// In a [snapshot](crate::RangeLock::snapshot) it is one that waits, and the statistics count it as one.
///
/// # Examples
/// ```
/// use spanlock::{Mode, RangeLock};
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
///
/// /// The first row from `from` on that is not zero: most often near.
/// fn first(lock: &RangeLock, rows: &[AtomicU64], from: usize) -> Option<usize> {
///     let look = || (from..rows.len()).find(|&row| rows[row].load(Relaxed) != 0);
///     let scan = lock.request(from as u64..rows.len() as u64, Mode::Add).announce();
///     let found = look();
///     let looked_at = from as u64..found.map_or(rows.len(), |row| row + 1) as u64;
///     if scan.is_clear(looked_at) {
///         return found;
///     }
///     let _guard = scan.wait();
///     look()
/// }
/// let lock = RangeLock::new();
/// let rows: Vec<AtomicU64> = (0..100).map(|row| AtomicU64::new(row / 10)).collect();
/// assert_eq!(first(&lock, &rows, 5), Some(10));
/// let write = lock.exclusive(90..100); // far behind
/// assert_eq!(first(&lock, &rows, 5), Some(10));
/// # drop(write);
/// ```
///
/// # Source
/// The optimistic latches of CockroachDB: sequence, evaluate, check for conflicts, wait if there were some.
#[must_use = "it keeps those who come later waiting until it is dropped, and does so at once if unused"]
#[clippy::has_significant_drop]
pub struct Announced<L: LockRef> {
    range: ByteRange,
    mode: Mode,
    /// `None` when it was handed on.
    state: Option<State<L>>,
}

#[allow(clippy::large_enum_variant)] // A box would be an allocation for each.
enum State<L: LockRef> {
    Granted(Guard<L, ByTask>),
    Queued {
        // In this order, as in `Acquire`: it leaves its tree before the lock goes, and is counted until then.
        place: announce::Announced,
        lock: L,
        owner: Counted<ByTask>,
    },
}

impl<L: LockRef> Announced<L> {
    pub(crate) fn granted(guard: Guard<L, ByTask>) -> Announced<L> {
        Announced { range: guard.range(), mode: guard.mode(), state: Some(State::Granted(guard)) }
    }

    /// `place` is in `lock`, and `owner` has counted it.
    pub(crate) fn queued(
        range: ByteRange,
        mode: Mode,
        place: announce::Announced,
        lock: L,
        owner: Counted<ByTask>,
    ) -> Announced<L> {
        Announced { range, mode, state: Some(State::Queued { place, lock, owner }) }
    }

    /// The bytes that were announced.
    pub fn range(&self) -> ByteRange {
        self.range
    }

    /// The mode that they were announced in.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether nobody has been in the way of `part` (bytes) since the announcement: nobody has held any of it in a mode
    /// that conflicts, from the moment that [`announce`](crate::Request::announce) returned to this call. So all that
    /// was read of it meanwhile is as if it had been read under a guard; and what earlier holders did there was known
    /// when the announcement returned. An open end is that of the announced range. An empty part is clear.
    ///
    /// `false` may also mean that nobody knows. So it says that of a part if, at the announcement, somebody in the way
    /// of it only waited in front, or was just asking, even if he has not held since; if there were many, and the part
    /// lies between two of them (16 ranges are kept in mind); or if a guard in the way of any of the announced bytes was
    /// split, converted or extended, or a nested request was let past it, whatever their bytes. Once `false`, it stays
    /// so for this part.
    ///
    /// It never waits, and does not look at the requests of others.
    ///
    /// # Panics
    /// If `part` is not a part of what was announced, or is inverted.
    ///
    /// # Examples
    /// ```
    /// use spanlock::{Mode, RangeLock};
    ///
    /// async fn look(lock: &RangeLock) {
    ///     let write = lock.request(0..10, Mode::Exclusive).await;
    ///     let scan = lock.request(0..100, Mode::Add).announce();
    ///     assert!(scan.is_clear(10..50) && !scan.is_clear(5..15));
    ///     drop(write);
    ///     assert!(!scan.is_clear(5..15)); // he was there
    ///     let _guard = scan.await;
    /// }
    /// # pollster::block_on(look(&RangeLock::new()));
    /// ```
    #[track_caller]
    pub fn is_clear(&self, part: impl RangeBounds<u64>) -> bool {
        let part = self.range.part(part, "was announced");
        match self.state.as_ref().expect(HANDED_ON) {
            State::Queued { place, .. } => place.is_clear(part),
            State::Granted(_) => true,
        }
    }

    /// Waits until it is granted, in the place that it has had since it was announced.
    ///
    /// # Panics
    /// As a request that has an owner of its own does: if only the calling thread could make way for it, and if somebody
    /// in its way was [poisoned](Guard::poison). See [`Request::wait`](crate::Request::wait).
    #[track_caller]
    pub fn wait(mut self) -> Guard<L, ByTask> {
        match self.state.take().expect(HANDED_ON) {
            State::Granted(guard) => guard,
            State::Queued { place, lock, owner } => {
                // If it is refused, or a waker panics, the place is dropped in there, before the lock.
                let holds = place.into_waiter().wait().map_err(Refused::without_deadline);
                ByTask::answer(holds.map(|holds| Guard::new(lock, grant::the_one(holds), owner.into_owner())))
            }
        }
    }
}

const HANDED_ON: &str = "it is handed on by value only";

/// The wait begins at the first poll, in the place that it has had since it was announced. It can be given a deadline by
/// the runtime's timeout, as any [`Acquire`]; what that drops has lost its place.
impl<L: LockRef> IntoFuture for Announced<L> {
    type Output = Guard<L, ByTask>;
    type IntoFuture = Acquire<L>;

    fn into_future(mut self) -> Acquire<L> {
        match self.state.take().expect(HANDED_ON) {
            State::Granted(guard) => Acquire::of_granted(guard),
            State::Queued { place, lock, owner } => Acquire::of_announced(place.into_waiter(), lock, owner),
        }
    }
}

/// Does nothing itself, but makes it a user of its lock while it is dropped, as for [`Guard`]:
/// ```compile_fail,E0597
/// use spanlock::{Mode, RangeLock};
/// let announced;
/// let lock = RangeLock::new();
/// announced = lock.request(.., Mode::Add).announce();
/// ```
impl<L: LockRef> Drop for Announced<L> {
    fn drop(&mut self) {}
}

impl<L: LockRef> fmt::Debug for Announced<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            Some(State::Granted(_)) => "granted",
            Some(State::Queued { .. }) => "queued",
            None => "handed on",
        };
        let mut out = f.debug_struct("Announced");
        out.field("range", &self.range).field("mode", &format_args!("{}", self.mode));
        out.field("state", &format_args!("{state}")).finish()
    }
}
