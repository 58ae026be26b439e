//! What the protocol knows of one lock: its tree of requests, with the events that waiters sleep on, and its name.

use crate::facts::mode::Mode;
use crate::facts::owner::{self, Asker, OwnerId};
use crate::facts::range::ByteRange;
use crate::platform::sync::{AtomicU64, Ordering, const_fn, fence, hint};
use crate::protocol::turn::{Place, Turn};
use crate::tree::{self, Entry, Query, Room, SLOTS, Whose};
use crate::wait::{Events, Luck};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The events of one node's slots.
pub(crate) type Bells = Events<SLOTS>;
pub(crate) type Tree = tree::Tree<Bells, Beside>;

/// What a lock is called, if it has a name.
pub(crate) type Name = Option<Cow<'static, str>>;

/// What is known of a lock beside its requests.
pub(crate) struct Beside {
    name: Name,
    pub(crate) luck: Luck,
    /// Who is *due* has waited for the lock's window, and nobody passes him any more. When he is granted he gives the
    /// newcomers a *rest*, before whoever came later than he is due as well. Else a queue whose hand-overs take longer
    /// than the window would be all that there is, once it has begun. The tree keeps until when
    /// ([`Tree::rests_until`](crate::tree::Tree::rests_until)); this is the ticket of whoever gave it, as [`coarse`]
    /// has it.
    ///
    /// Relaxed, both: they only advise. What they let a newcomer do is safe whatever they say, as the word of the one
    /// whom it passes has to say it too.
    late: hint::AtomicU32,
    /// How many holds have moved from one slot to another, in units of [`ONE_MOVE`]; and [`MARKED`].
    moves: AtomicU64,
    turn: Place,
}

/// Some of the lock's holds may be poisoned: whoever moves one has to hand on what was said of it.
const MARKED: u64 = 1;
const ONE_MOVE: u64 = 2;

/// The rest is the window, divided by this.
const RESTS: u64 = 8;

/// So many windows after its begin a wait is over with letting newcomers pass, rests or not, if nothing else is said.
const MOST: u16 = 16;

/// A ticket in units of 65 us; which of two is the earlier one can be told if they are less than a day apart.
fn coarse(ticket: u64) -> u32 {
    (ticket >> 20) as u32
}

fn is_earlier(ticket: u64, late: u32) -> bool {
    (coarse(ticket).wrapping_sub(late) as i32) < 0
}

pub(crate) type Seen<'t> = tree::Seen<'t, Bells>;
pub(crate) type Own = tree::Own<Bells>;

impl Room for Bells {
    fn slot_changed(&self, index: usize, age: u64) {
        self.notify(index, age);
    }
}

/// The requests of one lock, and its name.
pub(crate) struct LockState {
    pub(crate) tree: Tree,
}

impl LockState {
    const_fn! {
        pub(crate) const fn new(name: Name) -> LockState {
            LockState {
                tree: Tree::new(Beside {
                    name,
                    luck: Luck::new(),
                    late: hint::AtomicU32::new(0),
                    moves: AtomicU64::new(0),
                    turn: Place::new(),
                }),
            }
        }
    }

    /// Somebody has drawn `ticket` here, after he had published: who comes from now on is known to come later (O1, in
    /// `owner`).
    pub(crate) fn raise_bar(&self, ticket: u64) {
        self.tree.raise_bar(owner::place_of(ticket));
    }

    /// A hold has another slot, and is about to give back the one that it had. Whether some of this lock's holds may be
    /// poisoned: see [`LockState::say_marked`].
    ///
    /// ORDERING: Release, for the other slot. Whoever finds the old one given back (Acquire) finds this, too. And M1,
    /// in `poison`.
    pub(crate) fn note_move(&self) -> bool {
        self.tree.beside.moves.fetch_add(ONE_MOVE, Ordering::Release) & MARKED != 0
    }

    /// How many holds have moved so far: for who looks at all who hold, and looks again if that has changed meanwhile
    /// (as [`LockState::look_at_rest`], which says why).
    pub(crate) fn moves(&self) -> u64 {
        self.tree.beside.moves.load(Ordering::Acquire) / ONE_MOVE
    }

    /// Says to those who move a hold from now on that some may be poisoned, or that none is: in the count of moves,
    /// which they change in any case. With the mutex of the reasons in hand.
    ///
    /// ORDERING (M1, in `poison`): Acquire, so that the second slot of each hold that has moved before is found. Of
    /// "none is" nobody learns anything but that.
    pub(crate) fn say_marked(&self, is_marked: bool) {
        // Relaxed: who has the mutex knows.
        let moves = &self.tree.beside.moves;
        match (is_marked, moves.load(Ordering::Relaxed) & MARKED != 0) {
            (true, false) => _ = moves.fetch_add(MARKED, Ordering::Acquire),
            (false, true) => _ = moves.fetch_add(MARKED.wrapping_neg(), Ordering::Relaxed),
            _ => {}
        }
    }

    /// Whether that is what was said last.
    pub(crate) fn says_marked(&self) -> bool {
        self.tree.beside.moves.load(Ordering::Acquire) & MARKED != 0
    }

    /// What `look` finds, where it must not miss anybody who holds all the while: it looks again as long as holds move
    /// meanwhile. So somebody else has got on each time.
    ///
    /// A look that finds neither slot has looked at the new one's place before that was published, and at the old one
    /// after that was given back. So the move was not counted when it began (Acquire), and is when it has ended.
    pub(crate) fn look_at_rest<T>(&self, mut look: impl FnMut(&Tree) -> T) -> T {
        loop {
            let before = self.moves();
            let found = look(&self.tree);
            if self.moves() == before {
                return found;
            }
        }
    }

    /// Who has it may search this lock for cycles of waits.
    pub(crate) fn turn(&self) -> Arc<Turn> {
        self.tree.beside.turn.get_or_make()
    }

    /// Waits for the search that goes on here, if one does. One that begins later finds whatever the caller has
    /// published.
    pub(crate) fn let_search_end(&self) {
        // ORDERING (U2, in `turn`): either this sees that the turn is there, and taken, or whoever takes it sees what
        // was published before.
        fence(Ordering::SeqCst);
        if let Some(turn) = self.tree.beside.turn.get() {
            turn.let_search_end();
        }
    }

    /// A window of zero is none.
    pub(crate) const fn set_window(&mut self, window: Duration) {
        self.tree.set_window(owner::span_of(window), MOST);
    }

    /// The same, with so many windows in all at most: `most` divided by the window, rounded down, but one at least.
    pub(crate) const fn set_window_within(&mut self, window: Duration, most: Duration) {
        let window = owner::span_of(window);
        let most = match owner::span_of(most).checked_div(window) {
            None | Some(0) => 1,
            Some(windows) if windows > u16::MAX as u64 => u16::MAX,
            Some(windows) => windows as u16,
        };
        self.tree.set_window(window, most);
    }

    pub(crate) fn window(&self) -> Option<Duration> {
        self.reorders().then(|| owner::time_of(self.tree.window()))
    }

    /// The window and all rests.
    fn longest(&self) -> u64 {
        self.tree.window().saturating_mul(u64::from(self.tree.most()))
    }

    pub(crate) fn longest_bypass(&self) -> Option<Duration> {
        self.reorders().then(|| owner::time_of(self.longest()))
    }

    /// Whether newcomers may go before who waits.
    #[inline]
    pub(crate) fn reorders(&self) -> bool {
        self.tree.window() != 0
    }

    /// When it is over with letting newcomers pass, for the one who waits with `ticket`.
    pub(crate) fn due_at(&self, ticket: u64) -> u64 {
        let due = ticket.saturating_add(self.tree.window());
        if is_earlier(ticket, self.tree.beside.late.load(Ordering::Relaxed)) {
            due
        } else {
            due.max(self.tree.rests_until()).min(ticket.saturating_add(self.longest()))
        }
    }

    /// Whether nobody is due here at `now`, as far as is known.
    pub(crate) fn is_calm(&self, now: u64) -> bool {
        now < self.tree.calm()
    }

    /// The one with `ticket` was due, and is granted. It has waited for so long beyond the window.
    pub(crate) fn rest(&self, ticket: u64) -> Duration {
        let (now, window) = (owner::now(), self.tree.window());
        self.tree.beside.late.store(coarse(ticket), Ordering::Relaxed);
        self.tree.rest_until(now.saturating_add(window / RESTS));
        owner::time_of(now.saturating_sub(ticket.saturating_add(window)))
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.tree.beside.name.as_deref()
    }

    pub(crate) fn set_name(&mut self, name: Name) {
        self.tree.beside.name = name;
    }

    /// What to call it in a message: its name, or else its address, which tells at least whether two are the same.
    pub(crate) fn label(&self) -> Box<str> {
        match self.name() {
            Some(name) => name.into(),
            None => format!("lock@{:#x}", std::ptr::from_ref(self).addr()).into(),
        }
    }
}

/// What is asked for: a range that is not empty, a mode, an owner.
#[derive(Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) entry: Entry,
}

impl Ask {
    /// A request of `asker` in `state`: from now on whoever queues there need not wait for it.
    #[inline]
    pub(crate) fn new(state: &LockState, range: ByteRange, mode: Mode, asker: &Asker) -> Ask {
        Ask::with_bit(state, range, mode.bit(), asker)
    }

    /// The same in the mode of this bit.
    #[inline]
    pub(crate) fn with_bit(state: &LockState, range: ByteRange, mode: u64, asker: &Asker) -> Ask {
        let (start, last) = range.bounds();
        let order = if asker.order == owner::OUTERMOST { state.tree.bar() } else { asker.order };
        Ask { entry: Entry { start, last, mode, owner: asker.owner.get(), order } }
    }

    /// A request of `owner` that came at `order`.
    #[inline]
    pub(crate) fn at(range: ByteRange, mode: Mode, owner: u64, order: u64) -> Ask {
        let (start, last) = range.bounds();
        Ask { entry: Entry { start, last, mode: mode.bit(), owner, order } }
    }

    /// What is in its way: requests of other owners.
    #[inline]
    pub(crate) fn query(&self) -> Query<'static> {
        let Entry { start, last, owner, .. } = self.entry;
        Query { start, last, against: self.against(), owner, whose: Whose::Others }
    }

    #[inline]
    pub(crate) fn range(&self) -> ByteRange {
        ByteRange::between(self.entry.start, self.entry.last)
    }

    #[inline]
    pub(crate) fn owner(&self) -> OwnerId {
        OwnerId::from_slot(self.entry.owner)
    }

    /// Whether its owner had another live request when it came.
    #[inline]
    pub(crate) fn is_nested(&self) -> bool {
        owner::is_nested(self.entry.order)
    }

    #[inline]
    pub(crate) fn mode(&self) -> Mode {
        Mode::from_bit(self.entry.mode)
    }

    /// The bits of the modes that are in its way.
    #[inline]
    pub(crate) fn against(&self) -> u64 {
        Mode::against_bit(self.entry.mode)
    }
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.mode(), self.range())
    }
}

/// The bytes and the mode of a request that a scan found.
pub(crate) fn what(seen: &Seen<'_>) -> (ByteRange, Mode) {
    let (start, last) = seen.range();
    (ByteRange::between(start, last), Mode::from_bit(seen.mode()))
}
