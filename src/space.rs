//! What the protocol knows of one lock: its tree of requests, with the events that waiters sleep on, and its name.

use crate::mode::Mode;
use crate::owner::{self, Asker, OwnerId};
use crate::range::ByteRange;
use crate::sync::{AtomicU64, Ordering, const_fn};
use crate::tree::{self, Entry, Query, Room, SLOTS, Whose};
use crate::wait::{Events, Luck};
use std::borrow::Cow;
use std::fmt;

/// The events of one node's slots.
pub(crate) type Bells = Events<SLOTS>;
pub(crate) type Tree = tree::Tree<Bells, Beside>;

/// What a lock is called, if it has a name.
pub(crate) type Name = Option<Cow<'static, str>>;

/// What is known of a lock beside its requests.
pub(crate) struct Beside {
    name: Name,
    pub(crate) luck: Luck,
    /// How many holds have moved from one slot to another.
    moves: AtomicU64,
}

pub(crate) type Seen<'t> = tree::Seen<'t, Bells>;
pub(crate) type Own = tree::Own<Bells>;

impl Room for Bells {
    fn slot_changed(&self, index: usize, age: u64) {
        self.notify(index, age);
    }
}

/// The requests of one lock, and its name.
pub(crate) struct Space {
    pub(crate) tree: Tree,
}

impl Space {
    const_fn! {
        pub(crate) const fn new(name: Name) -> Space {
            Space { tree: Tree::new(Beside { name, luck: Luck::new(), moves: AtomicU64::new(0) }) }
        }
    }

    /// Somebody has drawn `ticket` here, after he had published: who comes from now on is known to come later (O1, in `owner`).
    pub(crate) fn raise_bar(&self, ticket: u64) {
        self.tree.raise_bar(owner::place_of(ticket));
    }

    /// A hold has another slot, and is about to give back the one that it had.
    ///
    /// ORDERING: Release, for the other slot. Whoever finds the old one given back (Acquire) finds this, too.
    pub(crate) fn note_move(&self) {
        self.tree.beside.moves.fetch_add(1, Ordering::Release);
    }

    /// What `look` finds, where it must not miss anybody who holds all the while: it looks again as long as holds move meanwhile. So somebody else has got on
    /// each time.
    ///
    /// A look that finds neither slot has looked at the new one's place before that was published, and at the old one after that was given back. So the move
    /// was not counted when it began (Acquire), and is when it has ended.
    pub(crate) fn look_at_rest<T>(&self, mut look: impl FnMut(&Tree) -> T) -> T {
        loop {
            let before = self.tree.beside.moves.load(Ordering::Acquire);
            let found = look(&self.tree);
            if self.tree.beside.moves.load(Ordering::Acquire) == before {
                return found;
            }
        }
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
    /// A request of `asker` in `space`: from now on whoever queues there need not wait for it.
    #[inline]
    pub(crate) fn new(space: &Space, range: ByteRange, mode: Mode, asker: &Asker) -> Ask {
        let order = if asker.order == owner::OUTERMOST { space.tree.bar() } else { asker.order };
        Ask::at(range, mode, asker.owner.get(), order)
    }

    /// A request of `owner` that came at `order`.
    #[inline]
    pub(crate) fn at(range: ByteRange, mode: Mode, owner: u64, order: u64) -> Ask {
        let (start, last) = range.bounds();
        Ask { entry: Entry { start, last, mode: mode.bit(), owner, order } }
    }

    /// What is in its way: requests of other owners.
    #[inline]
    pub(crate) fn query(&self) -> Query {
        let Entry { start, last, owner, .. } = self.entry;
        Query { start, last, against: self.mode().against(), owner, whose: Whose::Others }
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
