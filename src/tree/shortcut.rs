//! A thread's shortcuts: straight to the nodes below the root where it was found before, past the nodes above, and
//! without a pin.
//!
//! Whoever places a request in a node must look at all nodes above, and so pays for each level of its way. But threads
//! that have parted leave the nodes above to others for good. So a request that went down the whole way, and found
//! nobody in its way, leaves its thread a shortcut: if nobody above the node has its bytes, the thread remembers the
//! node, the bytes around its own that nobody above has any of, and that the tree is in this *era*. An era ends when
//! somebody's scan goes down past its own node: that is, before he can be granted something above nodes that others
//! have shortcuts to. As long as the era is the same, a request that is placed by a shortcut needs to look at its node,
//! and at nothing else.
//!
//! A thread remembers [`SHARES`] ways, each for its share of the part of the space where threads have nodes: so threads
//! that ask everywhere in a large file have one to most of the nodes that such threads share it by.
//!
//! # Why nobody is missed
//! Let R have a shortcut to node C, and X be in conflict with a request that R places there, within those bytes. X is
//! in C or below, and R looks there as any scan does. Or X is above C, or in the chain of such a node. X announces,
//! publishes, has its full fence, and scans; R, when it got the shortcut, had the fence of its publication between its
//! look at the era and the look at the nodes above C.
//!
//! - X's fence came before that one: then R saw X, and has no shortcut for its bytes unless X was gone. (If it was
//!   gone, R has seen that, and knows what it did. A range never grows in its slot.)
//! - R's fence came before X's. Then X, on its way down from its own node, finds that era or a later one, ends it, and
//!   has another fence before it looks at the nodes below (T4). R publishes, has its fence, and looks at the era.
//!   Either X sees R's request or R sees the end of the era, and then scans.
//! - X does not go down there, because the link carries nothing that is in its way (INV-N5). But each mode that R uses
//!   the shortcut for was on each link of the way before R's fence, and stays there as long as the way leads to C: so
//!   X, whose fence came later, finds it.
//! - C was removed. Then it is frozen for good, and R withdraws (T2).
//!
//! A hold that moves to another slot without a scan of its own does scan, for those who queue and who arrive
//! (`convert`), and that scan ends the era too. Whoever queues has been above all that it conflicts with since before
//! it was QUEUED, but may have broken its scan off at the first conflict: it ends the era before it queues, if its scan
//! would have ([`Tree::bar_shortcuts`]), or others would come past it.
//!
//! # Memory
//! The thread that has a shortcut to a node is one of its *keepers*, as the tree is: the last of them frees it. So a
//! thread keeps [`SHARES`] nodes at most that are in no tree any more, until it has other shortcuts, or ends. No two
//! eras of any two trees are alike, so that a shortcut into one tree is never taken for one into another, wherever
//! either is moved.

use super::node::Node;
use super::quick::{Glance, Path, Step};
use super::quota::SHARES;
use super::scan::{self, Query, Seen, Whose};
use super::slot::{Entry, MODES, Own, Placed};
use super::{Room, Tree, steps};
use crate::facts::owner::{self, Visitor};
use crate::platform::reclaim::{LazyPin, Pin};
use crate::platform::sync::{AtomicU64, Ordering, const_fn, fence, thread_local};
use std::cell::Cell;
use std::ops::ControlFlow::{Break, Continue};
use std::ptr;

/// Which era the tree is in.
pub(super) struct Era(AtomicU64);

/// No era has begun yet.
const BEFORE: u64 = 0;
/// The last one has ended.
const OVER: u64 = 1;
/// No tree is ever in this one: the era of a shortcut that leads nowhere.
const NEVER: u64 = u64::MAX;

impl Era {
    const_fn! {
        pub(super) const fn new() -> Era {
            Era(AtomicU64::new(BEFORE))
        }
    }

    /// The era's number; not more than `OVER` if there is none.
    ///
    /// ORDERING: the fences of T4 order all accesses here. (Release and Acquire cost nothing, and loom tries more
    /// orders of them.)
    #[inline(always)]
    fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Begins one if there is none.
    fn begin(&self) {
        let found = self.now();
        if found <= OVER {
            // If this fails, somebody else is about it.
            let _ = self.0.compare_exchange(found, owner::fresh().get(), Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Ends it, for a scan that is about to look below its own node.
    ///
    /// ORDERING (T4): pairs with the fence of a publication that is followed by a look at the era. Also where it had
    /// ended already: only who sees that *and then* has a fence is seen by whoever does not see it. Not so if there was
    /// none: then the caller's publication, which is behind it, is seen by whoever begins one.
    #[cold]
    fn end(&self) {
        let found = self.now();
        if found == BEFORE {
            return;
        }
        if found != OVER {
            self.0.store(OVER, Ordering::Release);
        }
        fence(Ordering::SeqCst);
    }
}

/// One way that a thread remembers. A line of its own, for a cheap index.
#[repr(align(64))]
struct Shortcut {
    era: Cell<u64>,
    /// The modes, as their bits, that the links of the way carry.
    modes: Cell<u64>,
    /// The first and the last byte that nobody above the node had any of, in the node's span.
    start: Cell<u64>,
    last: Cell<u64>,
    /// A node of the tree that this era is of, which the thread is a keeper of; or null.
    node: Cell<*mut ()>,
    /// How to let it go.
    let_go: Cell<unsafe fn(*mut ())>,
    /// Where the thread was found last. Nobody follows this one: there may be another node by now.
    home: Cell<*const ()>,
}

/// There is nothing to let go of.
fn nothing(_: *mut ()) {}

impl Shortcut {
    const fn none() -> Shortcut {
        Shortcut {
            era: Cell::new(NEVER),
            modes: Cell::new(0),
            start: Cell::new(0),
            last: Cell::new(0),
            node: Cell::new(ptr::null_mut()),
            let_go: Cell::new(nothing),
            home: Cell::new(ptr::null()),
        }
    }

    /// The node for such a request in this era.
    #[inline]
    fn node_for(&self, era: u64, entry: Entry) -> Option<*mut ()> {
        let is_good = self.era.get() == era
            && self.modes.get() & entry.mode != 0
            && self.start.get() <= entry.start
            && entry.last <= self.last.get();
        is_good.then(|| self.node.get())
    }

    /// The thread is found in `node`. Whether this shall lead there from now on: who is at home nowhere would only
    /// write to nodes that others read. So it must be the second time running, and what is good in this era goes only
    /// `rarely`.
    fn is_due(&self, node: *const (), era: u64, rarely: bool) -> bool {
        let was_here = ptr::eq(self.home.replace(node), node);
        ptr::eq(self.node.get(), node) || was_here && (rarely || self.era.get() != era)
    }

    fn forget(&self) {
        self.era.set(NEVER);
        let node = self.node.replace(ptr::null_mut());
        let let_go = self.let_go.replace(nothing);
        // SAFETY: `lead_to` put the two there together, for a node that the thread became a keeper of; by this it is so
        // no more.
        unsafe { let_go(node) };
    }

    /// # Safety
    /// The node is one of the tree that this era is of. Unless it is the one that this leads to already, the caller is
    /// a keeper of it, and hands that on.
    unsafe fn lead_to<R>(&self, node: *mut Node<R>, era: u64, modes: u64, (start, last): (u64, u64)) {
        unsafe fn let_go<R>(node: *mut ()) {
            // SAFETY: the caller's promise: it is a node of this type, and the caller is a keeper.
            unsafe { Node::let_go(node.cast::<Node<R>>()) };
        }
        let is_new = !ptr::eq(self.node.get(), node.cast());
        let old = is_new.then(|| (self.node.replace(node.cast()), self.let_go.replace(let_go::<R>)));
        self.era.set(era);
        self.modes.set(modes);
        self.start.set(start);
        self.last.set(last);
        // Last, as it may free a node, and so call an allocator that comes back here.
        if let Some((node, let_go)) = old {
            // SAFETY: as in `forget`.
            unsafe { let_go(node) };
        }
    }
}

/// The thread's shortcuts, each for its share of the places.
struct Shortcuts([Shortcut; SHARES]);

impl Shortcuts {
    /// The one for requests that begin at `start`, in a tree with such a `key` where a share is of `1 << shift` bytes.
    #[inline(always)]
    fn at(&self, key: usize, start: u64, shift: u32) -> &Shortcut {
        &self.0[((start >> shift) as usize).wrapping_add(key / 512) % SHARES]
    }
}

/// Lets go of the thread's shortcuts when the thread ends. Apart from them, so that whoever takes a shortcut need not
/// ask whether the thread has ended.
struct AtEnd;

impl Drop for AtEnd {
    fn drop(&mut self) {
        forget();
    }
}

#[cfg(not(any(loom, spanlock_shuttle)))]
thread_local! {
    static SHORTCUTS_HERE: Shortcuts = const { Shortcuts([const { Shortcut::none() }; SHARES]) };
    static AT_END: AtEnd = const { AtEnd };
}
#[cfg(any(loom, spanlock_shuttle))]
thread_local! {
    static SHORTCUTS_HERE: Shortcuts = Shortcuts([const { Shortcut::none() }; SHARES]);
    static AT_END: AtEnd = AtEnd;
}

/// Lets go of what the thread remembers. (At a model's word, too: loom ends a thread's own objects in an order that
/// differs from one execution to the next.)
#[cold]
pub(crate) fn forget() {
    let _ = SHORTCUTS_HERE.try_with(|shortcuts| shortcuts.0.iter().for_each(Shortcut::forget));
}

/// What has come of a shortcut.
pub(crate) enum ByShortcut<R> {
    /// There is none that is good for this request.
    None,
    /// The node is being removed. Whoever took the withdrawn request for one in the way has been notified, and must be
    /// woken.
    TurnedBack,
    /// The request is placed.
    Placed(Placed<R>, Glance),
}

impl<R: Room, T> Tree<R, T> {
    /// Publishes a request in the node that the thread has a shortcut to, and looks whether another in one of the modes
    /// `against` could be in its way there, if there is such a node and it is the place. All in registers: what has an
    /// address is in memory before the claim, and delays it.
    ///
    /// # Safety
    /// As for [`Tree::place`].
    #[inline(always)]
    pub(crate) unsafe fn place_by_shortcut(&self, entry: Entry, against: u64, visitor: Visitor) -> ByShortcut<R> {
        let era = self.shape.era.now();
        let found = self.with_shortcut(entry.start, |shortcut| shortcut.node_for(era, entry));
        let Some(Some(node)) = found else { return ByShortcut::None };
        // SAFETY: the era is the tree's, so it is a node of this tree, of the same type. The thread is one of its
        // keepers until it forgets it, below, or remembers another, which only a walk does: not while this one is
        // borrowed.
        let node = unsafe { &*node.cast::<Node<R>>() };
        // Others who share its chain have nodes of their own there; and by now it may not be the deepest one for the
        // range: whoever took it would look below, and end the era.
        if !node.overflow().is_null() || node.is_cut_at(entry.start, entry.last) {
            return ByShortcut::None;
        }
        let Some((index, claim)) = node.occupy_near(entry, visitor.home()) else { return ByShortcut::None };
        if node.is_frozen() {
            node.withdraw(index);
            // The last keeper frees it: nobody borrows it any more.
            self.with_shortcut(entry.start, Shortcut::forget);
            return ByShortcut::TurnedBack;
        }
        node.renew_chances();
        let placed = Placed::new(node, index);
        if claim.is_due() {
            self.sample_here(node, entry, visitor);
        }
        // Behind the fence of the publication (T4). If the node has a child for the range by now: who comes next goes
        // there.
        let glance = if self.shape.era.now() != era {
            Glance::Unsure
        } else if !node.leads_on_from(entry.start, entry.last, against)
            && node.unclear_within(entry.start, entry.last, against, Some(entry.mode)).is_none()
        {
            Glance::Clear
        } else {
            self.look_from(node, index, entry.start, entry.last, against, entry.owner)
        };
        ByShortcut::Placed(placed, glance)
    }

    /// Looks at the records in `node`, where the request is in slot `index`, and below.
    #[cold]
    fn look_from(&self, node: &Node<R>, index: usize, start: u64, last: u64, against: u64, owner: u64) -> Glance {
        let query = Query { start, last, against, owner, whose: Whose::Others };
        let own = Placed::new(node, index).own(0);
        let mut meet = |_: Seen<'_, R>| Break(());
        let parts = node.parts_within(start, last);
        let met = scan::look_closer(node, &query, parts, Some(index), &mut meet).is_break()
            || self.scan_from(node, &query, Some(own), &LazyPin::new(), &mut meet).is_break();
        if met { Glance::Met } else { Glance::Clear }
    }

    /// For who has published, and does not scan to the end: sees to it that no shortcut leads past him any more, as his
    /// scan would that goes down past his own node. So it looks for a node there that the scan would come to, and at no
    /// request.
    ///
    /// If there is no era there are none; and whoever gets one in a later era sees him: it loads that era, has a fence,
    /// and looks above. Had its fence come before the caller's (the one of his publication), then the load below,
    /// behind that, would find that era too, or its end.
    ///
    /// If the era is over, somebody may believe in it still. But there is a fence behind the caller's load (that of
    /// [`Era::end`]), and whatever looks for the caller's sake comes later: of it and that one's publication it finds
    /// the one whose fence was before, and that one finds the caller, or the end, if his came after.
    pub(crate) fn bar_shortcuts(&self, query: &Query, own: Own<R>, pin: &LazyPin) {
        let era = self.shape.era.now();
        if era == OVER || era > OVER && self.leads_below(query, own, pin) {
            self.shape.era.end();
        }
    }

    /// Whether a scan for `query` goes down past `own`. A child that does not span less than the node of `own` covers
    /// that, and so the range: there is no other one for it.
    fn leads_below(&self, query: &Query, own: Own<R>, pin: &LazyPin) -> bool {
        let mut node = &self.root;
        loop {
            let cells = node.cell_of(query.start.max(node.base()))..=node.cell_of(query.last.min(node.last()));
            let next = node.children()[cells].iter().find_map(|link| {
                steps::add(1);
                let child = link.load_if(query.against).node(pin.get())?;
                child.meets(query.start, query.last).then_some(child)
            });
            match next {
                None => return false,
                Some(child) if own.is_above(child) => return true,
                Some(child) => node = child,
            }
        }
    }

    /// Looks at the tree's shape. Who is left alone in its node need not walk there from the root: it looks at no node
    /// above, so nobody there is in its way.
    #[cold]
    fn sample_here(&self, node: &Node<R>, entry: Entry, visitor: Visitor) {
        if node.is_left_to(visitor.mark()) {
            self.tidy_now_and_then(&LazyPin::new());
        } else {
            self.sample(&entry, visitor, &LazyPin::new());
        }
    }

    /// For the scan of a request that is about to look at `child`. `own` is where the request is, until it has ended
    /// the era: once is enough, as whoever has a shortcut in a later one has seen the request.
    #[inline]
    pub(super) fn going_down_to(&self, child: &Node<R>, own: &mut Option<Own<R>>) {
        if own.is_some_and(|own| own.is_above(child)) {
            *own = None;
            self.shape.era.end();
        }
    }

    /// The thread's shortcut for requests that begin at `start`; `None` if the thread has ended, and has none any more.
    #[inline(always)]
    fn with_shortcut<A>(&self, start: u64, use_it: impl FnOnce(&Shortcut) -> A) -> Option<A> {
        let shift = self.shape.quota.share_shift();
        SHORTCUTS_HERE.try_with(|shortcuts| use_it(shortcuts.at(self.key(), start, shift))).ok()
    }

    /// Which era it is, for who is going to publish a request, and may then [remember](Tree::remember) where.
    #[inline(always)]
    pub(super) fn era_before(&self) -> u64 {
        self.shape.era.now()
    }

    /// For a request of `entry` that was placed at the end of `path`, in this `era` or later, and has found nobody in
    /// its way: makes that end the thread's shortcut, if nobody above has any of its bytes, and if the thread seems to
    /// be at home there. What is remembered and good is given up for it only if a look at the shape was due.
    #[inline]
    pub(super) fn remember(&self, path: &Path<'_, R>, entry: &Entry, era: u64, rarely: bool, pin: &Pin) {
        let node = ptr::from_ref(path.end).cast();
        if self.with_shortcut(entry.start, |shortcut| shortcut.is_due(node, era, rarely)) == Some(true) {
            self.remember_now(path, entry, era, pin);
        }
    }

    #[cold]
    fn remember_now(&self, path: &Path<'_, R>, entry: &Entry, era: u64, pin: &Pin) {
        let Some(last_step) = path.steps.last() else { return };
        if era <= OVER {
            // Whoever comes next will have been there since before its publication.
            self.shape.era.begin();
            return;
        }
        // In a chain of others than of a class somebody comes, and ends the era, all the time.
        let has_chain_of_others =
            |step: &Step<'_, R>| !step.node.overflow().is_null() && !step.node.is_cut_by_class(pin);
        if path.steps.iter().any(has_chain_of_others) {
            return;
        }
        // As it came from `Target::make`: whoever lets go of it last frees it by this.
        let (node, address) = (path.end, last_step.target.pointer());
        let modes = path.steps.iter().fold(MODES, |modes, step| modes & step.target.modes());
        // No owner has the id 0: all are others.
        let (mut start, mut last) = (node.base(), node.last());
        let anybody = Query { start, last, against: MODES, owner: 0, whose: Whose::Others };
        let mut keep_away = |seen: Seen<'_, R>| {
            let (its_start, its_last) = seen.range();
            if its_last < entry.start {
                start = start.max(its_last + 1);
            } else if entry.last < its_start {
                last = last.min(its_start - 1);
            } else {
                return Break(());
            }
            Continue(())
        };
        // ORDERING (T4): the era, and the links with their modes, were there before the publication, and its fence; who
        // is above, is looked for behind it.
        let is_clear = path.steps.iter().all(|step| {
            let mut look = |node: &Node<R>| {
                let parts = node.parts_within(anybody.start, anybody.last);
                scan::look_closer(node, &anybody, parts, None, &mut keep_away).is_continue()
            };
            let is_clear = look(step.node) && step.node.chain(pin).all(look);
            is_clear && step.is_as_before()
        });
        // A thread that ends keeps no more.
        if !is_clear || node.is_frozen() || AT_END.try_with(|_| ()).is_err() {
            return;
        }
        self.with_shortcut(entry.start, |shortcut| {
            if ptr::eq(shortcut.node.get(), address.cast()) || node.keep() {
                // SAFETY: by `keep`; the node is of this tree, as it was reached from its root.
                unsafe { shortcut.lead_to(address, era, modes, (start, last)) };
            }
        });
    }

    /// The same at a model's word, for who has no request there.
    #[cfg(all(test, loom))]
    pub(crate) fn remember_for(&self, entry: &Entry, pin: &LazyPin) {
        let mut path = Path::from(&self.root);
        assert!(path.lead_to(entry, pin.get()));
        self.shape.era.begin();
        let era = self.shape.era.now();
        fence(Ordering::SeqCst);
        self.remember_now(&path, entry, era, pin.get());
    }

    /// What a request of `entry` says on its way, without the request.
    #[cfg(all(test, loom))]
    pub(crate) fn announce_for(&self, entry: &Entry, pin: &LazyPin) {
        assert!(Path::from(&self.root).lead_to(entry, pin.get()));
    }

    /// What a scan does that goes down past its own node, without the scan.
    #[cfg(all(test, loom))]
    pub(crate) fn end_era(&self) {
        self.shape.era.end();
    }
}
