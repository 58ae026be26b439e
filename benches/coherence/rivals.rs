//! The contenders: this lock, and others on the same traced atomics.
//!
//! The rivals are small and honest, not complete: each has the words that its kind cannot do without, and nothing more,
//! so that what they pay is the least that their kind pays. Waiters spin on a copy in their own cache, which is free
//! until somebody writes.

use crate::cpus;
use crate::facts::mode::Mode;
use crate::facts::range::ByteRange;
use crate::pattern::PAGE;
use crate::platform::sync::{AtomicU64, Ordering};
use crate::stripes::stripes;
use crate::surface::lock::RangeLock;
use crate::surface::request::Request;
use crossbeam_utils::CachePadded;
use std::cell::Cell;
use std::ptr;

/// One request: bytes and a mode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) range: ByteRange,
    pub(crate) mode: Mode,
}

/// A lock that is to be counted.
pub(crate) trait Contender: Sync {
    /// Acquires, runs `section`, releases, for CPU `cpu`.
    fn pair(&self, cpu: usize, ask: Ask, section: &dyn Fn());

    /// Takes a range for good, before anybody runs.
    fn hold(&self, cpu: usize, ask: Ask);

    /// The range locks in it, for the atlas.
    fn addresses(&self) -> Vec<usize> {
        Vec::new()
    }

    /// How many nodes it has on the heap now, if it makes and removes them.
    fn nodes(&self) -> Option<usize> {
        None
    }
}

/// Which contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Spanlock,
    /// A range lock for each CPU: what one lock for all could be at best.
    Private,
    ReaderWriter,
    TwoState,
    IntervalTree,
    Segments,
}

impl Kind {
    pub(crate) const ALL: [Kind; 6] =
        [Kind::Spanlock, Kind::Private, Kind::ReaderWriter, Kind::TwoState, Kind::IntervalTree, Kind::Segments];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Spanlock => "spanlock",
            Kind::Private => "spanlock, one for each CPU",
            Kind::ReaderWriter => "whole-file reader-writer lock",
            Kind::TwoState => "whole-file two-state lock",
            Kind::IntervalTree => "interval tree under a mutex",
            Kind::Segments => "segment locks, 4 KiB",
        }
    }

    /// A lock for so many CPUs and at most `held` ranges at once, on a file of `bytes`.
    pub(crate) fn make(self, cpus: usize, held: usize, bytes: u64) -> Box<dyn Contender> {
        match self {
            Kind::Spanlock => Box::new(RangeLock::new()),
            Kind::Private => Box::new((0..cpus).map(|_| RangeLock::new()).collect::<Vec<_>>()),
            Kind::ReaderWriter => Box::<CachePadded<ReaderWriter>>::default(),
            Kind::TwoState => Box::<CachePadded<TwoState>>::default(),
            Kind::IntervalTree => Box::new(IntervalTree::new(held)),
            Kind::Segments => Box::new(Segments::new(bytes)),
        }
    }
}

impl Contender for RangeLock {
    fn pair(&self, _cpu: usize, ask: Ask, section: &dyn Fn()) {
        let guard = Request::new(self, ask.range, ask.mode).wait().expect("no cycles here");
        section();
        drop(guard);
    }

    fn hold(&self, _cpu: usize, ask: Ask) {
        // By nobody who runs: an owner that holds something is nested from then on, which is another matter.
        std::mem::forget(Request::new(self, ask.range, ask.mode).wait().expect("no cycles here"));
    }

    fn addresses(&self) -> Vec<usize> {
        vec![ptr::from_ref(self).addr()]
    }

    fn nodes(&self) -> Option<usize> {
        Some(self.heap_nodes())
    }
}

impl Contender for Vec<RangeLock> {
    fn pair(&self, cpu: usize, ask: Ask, section: &dyn Fn()) {
        self[cpu].pair(cpu, ask, section);
    }

    fn hold(&self, cpu: usize, ask: Ask) {
        self[cpu].hold(cpu, ask);
    }

    fn addresses(&self) -> Vec<usize> {
        self.iter().flat_map(Contender::addresses).collect()
    }
}

/// Readers in one word, or a writer: the whole file, whatever the range. `Add` reads, everything else writes.
#[derive(Debug, Default)]
struct ReaderWriter(AtomicU64);

const WRITER: u64 = 1 << 63;

impl ReaderWriter {
    fn acquire(&self, mode: Mode) {
        loop {
            let word = self.0.load(Ordering::Relaxed);
            let next = match mode {
                Mode::Add if word & WRITER == 0 => word + 1,
                Mode::Block | Mode::Exclusive if word == 0 => WRITER,
                _ => {
                    self.0.wait_for_write();
                    continue;
                }
            };
            if self.0.compare_exchange(word, next, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return;
            }
        }
    }

    fn release(&self, mode: Mode) {
        let less = if mode == Mode::Add { u64::MAX } else { WRITER };
        self.0.fetch_add(less, Ordering::Release);
    }
}

impl Contender for CachePadded<ReaderWriter> {
    fn pair(&self, _cpu: usize, ask: Ask, section: &dyn Fn()) {
        self.acquire(ask.mode);
        section();
        self.release(ask.mode);
    }

    fn hold(&self, _cpu: usize, ask: Ask) {
        self.acquire(ask.mode);
    }
}

/// Adders or blockers, counted in one word, and the word says which: the whole file. It has no exclusive mode, so that
/// blockers stand for those: they go together, and what is counted is the least that such a lock could pay.
#[derive(Debug, Default)]
struct TwoState(AtomicU64);

/// One blocker; the bits below count adders.
const BLOCKER: u64 = 1 << 32;

impl TwoState {
    fn one(mode: Mode) -> u64 {
        if mode == Mode::Add { 1 } else { BLOCKER }
    }

    fn acquire(&self, mode: Mode) {
        loop {
            let word = self.0.load(Ordering::Relaxed);
            let others = if mode == Mode::Add { word / BLOCKER } else { word % BLOCKER };
            if others != 0 {
                self.0.wait_for_write();
            } else if self
                .0
                .compare_exchange(word, word + TwoState::one(mode), Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
            {
                return;
            }
        }
    }
}

impl Contender for CachePadded<TwoState> {
    fn pair(&self, _cpu: usize, ask: Ask, section: &dyn Fn()) {
        self.acquire(ask.mode);
        section();
        self.0.fetch_add(TwoState::one(ask.mode).wrapping_neg(), Ordering::Release);
    }

    fn hold(&self, _cpu: usize, ask: Ask) {
        self.acquire(ask.mode);
    }
}

/// A reader-writer word for each page, eight on a line; a range takes those that it touches, in order.
struct Segments(Vec<CachePadded<[ReaderWriter; 8]>>);

impl Segments {
    /// In a larger file pages far apart share a word.
    const MOST_LINES: u64 = 512;

    fn new(bytes: u64) -> Segments {
        let lines = bytes.div_ceil(8 * PAGE).min(Segments::MOST_LINES);
        Segments((0..lines).map(|_| CachePadded::default()).collect())
    }

    fn of(&self, range: ByteRange) -> impl Iterator<Item = &ReaderWriter> {
        let (first, last) = range.bounds();
        let locks = stripes(first / PAGE..last / PAGE + 1, 8 * self.0.len());
        locks.into_iter().flatten().map(|lock| &self.0[lock / 8][lock % 8])
    }
}

impl Contender for Segments {
    fn pair(&self, cpu: usize, ask: Ask, section: &dyn Fn()) {
        self.hold(cpu, ask);
        section();
        self.of(ask.range).for_each(|segment| segment.release(ask.mode));
    }

    fn hold(&self, _cpu: usize, ask: Ask) {
        self.of(ask.range).for_each(|segment| segment.acquire(ask.mode));
    }
}

/// A treap of ranges, with the last byte below each node, under a mutex. (Kara's and Bueso's locks have such a tree;
/// they count conflicts and serve in order, which costs more than this: who meets a conflict here looks again when
/// something has gone.)
struct IntervalTree {
    mutex: CachePadded<AtomicU64>,
    /// The root's index, the first free node's, and the releases so far: one line.
    top: CachePadded<Top>,
    /// A line each; index 0 means none.
    nodes: Vec<CachePadded<TreeNode>>,
}

struct Top {
    root: AtomicU64,
    free: AtomicU64,
    releases: AtomicU64,
}

#[derive(Default)]
struct TreeNode {
    start: AtomicU64,
    last: AtomicU64,
    add: AtomicU64,
    /// The highest `last` from here on down.
    reach: AtomicU64,
    left: AtomicU64,
    right: AtomicU64,
    /// Never changes.
    priority: u64,
}

impl IntervalTree {
    fn new(held: usize) -> IntervalTree {
        let mut random = fastrand::Rng::with_seed(1);
        let nodes: Vec<CachePadded<TreeNode>> = (0..=held as u64)
            .map(|index| {
                let next = if index < held as u64 { index + 1 } else { 0 };
                // Free nodes are chained by `left`.
                CachePadded::new(TreeNode {
                    left: AtomicU64::new(next),
                    priority: random.u64(..),
                    ..TreeNode::default()
                })
            })
            .collect();
        let top = Top { root: AtomicU64::new(0), free: AtomicU64::new(1), releases: AtomicU64::new(0) };
        IntervalTree { mutex: CachePadded::default(), top: CachePadded::new(top), nodes }
    }

    /// Under the mutex.
    fn locked<T>(&self, f: impl FnOnce() -> T) -> T {
        while self.mutex.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            while self.mutex.load(Ordering::Relaxed) != 0 {
                self.mutex.wait_for_write();
            }
        }
        let result = f();
        self.mutex.store(0, Ordering::Release);
        result
    }

    fn get(word: &AtomicU64) -> u64 {
        word.load(Ordering::Relaxed)
    }

    fn set(word: &AtomicU64, value: u64) {
        // As a compiler would keep it in a register: what is there already is not written.
        if word.load(Ordering::Relaxed) != value {
            word.store(value, Ordering::Relaxed);
        }
    }

    fn node(&self, index: u64) -> &TreeNode {
        &self.nodes[index as usize]
    }

    /// Whether a range in the tree is in the way.
    fn conflicts(&self, root: u64, first: u64, last: u64, ask: Ask) -> bool {
        if root == 0 {
            return false;
        }
        let node = self.node(root);
        if Self::get(&node.reach) < first {
            return false;
        }
        let start = Self::get(&node.start);
        let meets = start <= last && first <= Self::get(&node.last);
        if meets && !(ask.mode == Mode::Add && Self::get(&node.add) == 1) {
            return true;
        }
        self.conflicts(Self::get(&node.left), first, last, ask)
            || start <= last && self.conflicts(Self::get(&node.right), first, last, ask)
    }

    fn update(&self, index: u64) {
        let node = self.node(index);
        let below = [&node.left, &node.right].map(|child| match Self::get(child) {
            0 => 0,
            child => Self::get(&self.node(child).reach),
        });
        Self::set(&node.reach, Self::get(&node.last).max(below[0]).max(below[1]));
    }

    /// The part below `(start, index)`, and the rest.
    fn split(&self, root: u64, start: u64, index: u64) -> (u64, u64) {
        if root == 0 {
            return (0, 0);
        }
        let node = self.node(root);
        if (Self::get(&node.start), root) < (start, index) {
            let (left, right) = self.split(Self::get(&node.right), start, index);
            Self::set(&node.right, left);
            self.update(root);
            (root, right)
        } else {
            let (left, right) = self.split(Self::get(&node.left), start, index);
            Self::set(&node.left, right);
            self.update(root);
            (left, root)
        }
    }

    fn merge(&self, left: u64, right: u64) -> u64 {
        if left == 0 || right == 0 {
            return left.max(right);
        }
        let (a, b) = (self.node(left), self.node(right));
        if a.priority > b.priority {
            Self::set(&a.right, self.merge(Self::get(&a.right), right));
            self.update(left);
            left
        } else {
            Self::set(&b.left, self.merge(left, Self::get(&b.left)));
            self.update(right);
            right
        }
    }

    /// Takes a node for the request, or says how many releases there had been when somebody was in the way.
    fn try_insert(&self, ask: Ask) -> Result<u64, u64> {
        let (first, last) = ask.range.bounds();
        self.locked(|| {
            let root = Self::get(&self.top.root);
            if self.conflicts(root, first, last, ask) {
                return Err(Self::get(&self.top.releases));
            }
            let index = Self::get(&self.top.free);
            assert!(index != 0, "more ranges than it was made for");
            let node = self.node(index);
            Self::set(&self.top.free, Self::get(&node.left));
            Self::set(&node.start, first);
            Self::set(&node.last, last);
            Self::set(&node.add, u64::from(ask.mode == Mode::Add));
            Self::set(&node.left, 0);
            Self::set(&node.right, 0);
            self.update(index);
            let (below, above) = self.split(root, first, index);
            Self::set(&self.top.root, self.merge(self.merge(below, index), above));
            Ok(index)
        })
    }

    fn insert(&self, ask: Ask) -> u64 {
        loop {
            match self.try_insert(ask) {
                Ok(index) => return index,
                Err(releases) => {
                    while Self::get(&self.top.releases) == releases {
                        self.top.releases.wait_for_write();
                    }
                }
            }
        }
    }

    fn remove(&self, index: u64) {
        self.locked(|| {
            let node = self.node(index);
            let start = Self::get(&node.start);
            let (below, rest) = self.split(Self::get(&self.top.root), start, index);
            let (_this, above) = self.split(rest, start, index + 1);
            Self::set(&self.top.root, self.merge(below, above));
            Self::set(&node.left, Self::get(&self.top.free));
            Self::set(&self.top.free, index);
            Self::set(&self.top.releases, Self::get(&self.top.releases) + 1);
        });
    }
}

impl Contender for IntervalTree {
    fn pair(&self, _cpu: usize, ask: Ask, section: &dyn Fn()) {
        let index = self.insert(ask);
        section();
        self.remove(index);
    }

    fn hold(&self, _cpu: usize, ask: Ask) {
        self.insert(ask);
    }
}

thread_local! {
    /// Requests that hold now, in a check.
    static INSIDE: Cell<u64> = const { Cell::new(0) };
}

/// That a contender excludes: CPUs that take one page, exclusively, and stay for a while, are never two.
pub(crate) fn check_exclusion(kind: Kind, cpus: usize) {
    let lock = kind.make(cpus, cpus, 8 * PAGE);
    let ask = Ask { range: ByteRange::new(0..PAGE), mode: Mode::Exclusive };
    let section = || {
        assert_eq!(INSIDE.replace(INSIDE.get() + 1), 0, "{} lets two in", kind.name());
        (0..20).for_each(|_| cpus::pass_time());
        INSIDE.set(INSIDE.get() - 1);
    };
    let setup = cpus::Setup { cpus, seed: 1, line: 64 };
    cpus::run(setup, crate::atlas_for(&*lock, cpus), &[20], &|cpu, _| lock.pair(cpu, ask, &section));
    drop(lock);
    crate::epoch::end();
}
