//! Whose turn it is to search a lock for cycles of waits (see [`cycle`](crate::protocol::cycle)).
//!
//! # Promise
//! - One search at a time has a lock's turn, and it takes it or does not: nobody waits *for* a turn with another one in
//!   hand.
//! - Who did not get it can listen, and hears when it is given back.
//!
//! A lock has none until somebody asks for it: a request that goes into the index does. From then on it is shared by
//! the lock, by the entries of the requests that wait there, and by the searches that have come to them: so that it can
//! be taken, and given back, by who does not know whether the lock is still there.
//!
//! # Orderings
//! | pair | writer | reader | carries |
//! |---|---|---|---|
//! | U1 | give back: swap, Release | take: CAS and fence; whoever waits for the end: load, Acquire | all that the search has done and looked at |
//! | U2 | take: CAS, `fence(SeqCst)`, then look at the lock | publish, `fence(SeqCst)`, then look at the turn ([`Turn::let_search_end`]) | one of them sees the other |
//! | U3 | end: add to the count of ended searches, AcqRel, then give back | take: load of the count, Acquire | whether some search has ended since this one began |

use crate::platform::sync::{AtomicPtr, AtomicU64, Mutex, Ordering, const_fn, fence, hint, lock};
use crate::wait::{Events, Listener};
use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::Arc;

/// A lock's turn to be searched.
#[derive(Debug)]
pub(crate) struct Turn {
    /// Which differs between any two. In the order of these they are taken by who knows several.
    number: u64,
    word: AtomicU64,
    /// Of one slot.
    events: Events<1>,
    /// Why holders of this lock were poisoned. (It is here because a lock has no room for what it seldom needs.)
    reasons: Mutex<Reasons>,
}

/// What was said of a lock's poisoned holders: `poison` says what holds of it.
#[derive(Debug, Default)]
pub(crate) struct Reasons {
    /// By what tells a slot from all others of the lock.
    pub(crate) by_place: BTreeMap<(usize, usize), Box<str>>,
    /// So often it is used before it is looked through for those who have gone.
    pub(crate) until_swept: usize,
}

const TAKEN: u64 = 1;
/// Somebody listens.
const AWAITED: u64 = 2;
/// Who has it is somebody, if any of these is set. The rest of the word counts the searches that have had it.
const STATE: u64 = TAKEN | AWAITED;
const NEXT: u64 = 4;

/// Which of the searches that have had a turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SearchNumber(u64);

impl Turn {
    fn new() -> Turn {
        static NUMBERS: hint::AtomicU64 = hint::AtomicU64::new(0);
        // Relaxed: only distinct values matter.
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        Turn { number, word: AtomicU64::new(0), events: Events::default(), reasons: Mutex::new(Reasons::default()) }
    }

    /// Does something with what was said of the lock's poisoned holders, under a short mutex.
    pub(crate) fn with_reasons<T>(&self, act: impl FnOnce(&mut Reasons) -> T) -> T {
        act(&mut lock(&self.reasons))
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.search().is_some()
    }

    /// Takes it, if nobody has it.
    fn take(&self) -> bool {
        let now = self.word.load(Ordering::Relaxed);
        let mine = (now + NEXT) | TAKEN;
        // Relaxed: the fence makes it Acquire (U1), and stands before whatever is looked at (U2).
        let is_mine =
            now & STATE == 0 && self.word.compare_exchange(now, mine, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        fence(Ordering::SeqCst); // of a turn
        is_mine
    }

    /// Gives it back. Who listens is woken at the next [`deliver`](crate::wait::deliver).
    fn give_back(&self) {
        // Nobody else changes the count meanwhile.
        let search = self.word.load(Ordering::Relaxed) & !STATE;
        // ORDERING (U1): Release; and Acquire, so that who has said that he listens is among those who do.
        if self.word.swap(search, Ordering::AcqRel) & AWAITED != 0 {
            self.events.notify(0, search);
        }
    }

    /// The search that has it.
    pub(crate) fn search(&self) -> Option<SearchNumber> {
        // ORDERING (U1): Acquire, for who leaves because no search goes on.
        let now = self.word.load(Ordering::Acquire);
        (now & STATE != 0).then_some(SearchNumber(now & !STATE))
    }

    /// What hears when that search gives it back; `None` if it has.
    ///
    /// It listens to that search, and no other: one that was before, and is late with its call, is not taken for it.
    pub(crate) fn listen(&self, SearchNumber(search): SearchNumber) -> Option<Listener> {
        // Listen first, then ask to be told (INV-G3).
        let listener = self.events.listen(0, search);
        let mut now = self.word.load(Ordering::Acquire);
        while now == search | TAKEN {
            // ORDERING: Release for the listener, to `give_back`.
            match self.word.compare_exchange(now, now | AWAITED, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => now |= AWAITED,
                Err(other) => now = other,
            }
        }
        (now == search | TAKEN | AWAITED).then_some(listener)
    }

    /// Waits for that search to give it back: for none that comes after it.
    pub(crate) fn let_end(&self, search: SearchNumber) {
        if let Some(listener) = self.listen(search) {
            listener.wait();
        }
    }

    /// Waits for the search that has it, if one does, to give it back.
    pub(crate) fn let_search_end(&self) {
        if let Some(search) = self.search() {
            self.let_end(search);
        }
    }

    /// Whether somebody has it, and somebody else listens.
    #[cfg(all(test, not(any(loom, spanlock_shuttle))))]
    pub(crate) fn is_awaited(&self) -> bool {
        self.word.load(Ordering::Acquire) & AWAITED != 0
    }
}

/// Where a lock has its turn, as soon as somebody has asked for it.
#[derive(Debug)]
pub(crate) struct Place(AtomicPtr<Turn>);

impl Place {
    const_fn! {
        pub(crate) const fn new() -> Place {
            Place(AtomicPtr::new(ptr::null_mut()))
        }
    }

    /// The turn, if somebody has asked for it before.
    pub(crate) fn get(&self) -> Option<&Turn> {
        // ORDERING: Acquire, from `get_or_make`.
        let turn = self.0.load(Ordering::Acquire);
        // SAFETY: null, or from `Arc::into_raw` by `get_or_make`, whose count stays until the place is dropped; it is
        // only ever shared.
        unsafe { turn.as_ref() }
    }

    pub(crate) fn get_or_make(&self) -> Arc<Turn> {
        let mut turn = self.0.load(Ordering::Acquire);
        if turn.is_null() {
            let new = Arc::into_raw(Arc::new(Turn::new())).cast_mut();
            // ORDERING: Release for what is in it; Acquire to use another thread's.
            match self.0.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => turn = new,
                Err(theirs) => {
                    // SAFETY: it is from `into_raw`, and nobody else has seen it.
                    drop(unsafe { Arc::from_raw(new) });
                    turn = theirs;
                }
            }
        }
        // SAFETY: it is from `into_raw`, above, and its count is the place's: it is not dropped here.
        let of_the_place = ManuallyDrop::new(unsafe { Arc::from_raw(turn) });
        Arc::clone(&of_the_place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Relaxed: nobody else uses a lock that is being dropped.
        let turn = self.0.load(Ordering::Relaxed);
        if !turn.is_null() {
            // SAFETY: it is from `into_raw` in `get_or_make`, which stores it once: this is its count.
            drop(unsafe { Arc::from_raw(turn) });
        }
    }
}

/// Turns that a search is to begin with, by their numbers.
pub(crate) type Known = BTreeMap<u64, Arc<Turn>>;

/// The turns that a search has. Dropping it gives them back: the search has ended.
#[derive(Default)]
pub(crate) struct Turns {
    held: Known,
    /// How many searches had ended when this one began.
    since: u64,
    /// Whether others had ended by the time that a turn was taken: what was looked at before can be older than what
    /// they have left.
    are_late: bool,
}

impl Turns {
    /// A search begins: takes the turns that it knows, in the order of their numbers. The others it takes when it comes
    /// to them.
    ///
    /// # Errors
    /// One that somebody else has.
    pub(crate) fn begin(&mut self, known: &Known) -> Result<(), Arc<Turn>> {
        known.values().try_for_each(|turn| self.take(turn))?;
        self.since = ended(|count| count.load(Ordering::Acquire));
        self.are_late = false;
        Ok(())
    }

    /// Takes `turn`, unless it has it.
    ///
    /// # Errors
    /// The turn, if somebody else has it.
    pub(crate) fn take(&mut self, turn: &Arc<Turn>) -> Result<(), Arc<Turn>> {
        if self.held.contains_key(&turn.number) {
            return Ok(());
        }
        if !turn.take() {
            return Err(Arc::clone(turn));
        }
        self.held.insert(turn.number, Arc::clone(turn));
        // ORDERING (U3): Acquire. If somebody had the turn since this search began, his end is counted here.
        self.are_late |= ended(|count| count.load(Ordering::Acquire)) != self.since;
        Ok(())
    }

    /// Whether all that it has looked at is as if it had had all its turns from the beginning.
    pub(crate) fn are_whole(&self) -> bool {
        !self.are_late
    }

    /// Those that it has, to begin with another time.
    pub(crate) fn known(&self) -> Known {
        self.held.clone()
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        // ORDERING (U3): AcqRel, a chain; before the first of them is given back.
        ended(|count| count.fetch_add(1, Ordering::AcqRel));
        self.held.values().for_each(|turn| turn.give_back());
    }
}

/// How many searches have ended in the process.
#[cfg(not(any(loom, spanlock_shuttle)))]
fn ended<T>(f: impl FnOnce(&AtomicU64) -> T) -> T {
    static ENDED: AtomicU64 = AtomicU64::new(0);
    f(&ENDED)
}

#[cfg(any(loom, spanlock_shuttle))]
fn ended<T>(f: impl FnOnce(&AtomicU64) -> T) -> T {
    crate::platform::sync::lazy_static! {
        static ref ENDED: AtomicU64 = AtomicU64::new(0);
    }
    f(&ENDED)
}
