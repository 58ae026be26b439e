//! What files share: the owners with what they have, the graph of waits, the rules and the counters.
//!
//! # Locks
//! Each file has a mutex, the domain has four: owners, graph, and calls to make. One of the domain's may be taken while
//! a file's is held; never two files', and never a file's under one of the domain's. Each is held for one step, nothing
//! waits under it for a lock to be granted, and no code of a user runs under it but that of keys (see [`Key`]).

use crate::caller::{Key, Who};
use crate::file::{File, RecordLocks};
use crate::graph::Graph;
use spanlock::Owner;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Which of those who wait goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Order {
    /// As Linux does it: a request that no *held* lock conflicts with is granted, whoever waits. Who waits tries again
    /// when the lock that he was found in conflict with is unlocked, in a part or as a whole.
    ///
    /// Programs notice nothing that they would not notice on a local file system. A writer may wait for ever while
    /// readers come and go.
    #[default]
    Kernel,
    /// First come, first served: of two requests in conflict the one that came first is granted first. POSIX leaves the
    /// order open.
    ///
    /// Programs notice: a try is refused (`EAGAIN`) while somebody *waits* for the bytes in conflict with it, though
    /// `get` shows nobody who holds them. A second reader waits behind a writer who waits for the first one. More waits
    /// can close a cycle, so there are more `EDEADLK`: a process that waits for who waits counts, and descriptions and
    /// `flock` get that answer, too, where the kernel would let them hang. What an owner holds already is never
    /// refused: the same lock again, a weaker one, and an upgrade that only those stand before who wait for this very
    /// owner.
    Arrival,
}

/// How the record locks of a domain work.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// Who goes first.
    pub order: Order,
    /// How many locks an owner may have in all files, requests that wait included; `None` for as many as it likes. What
    /// would make it more is refused with [`Error::NoLocks`](crate::Error::NoLocks); an unlock in the middle of a lock,
    /// too, as it makes two of one.
    pub quota: Option<usize>,
    /// For tests: who tries first, of several who may, by chance from this seed.
    #[doc(hidden)]
    pub shuffle: Option<u64>,
}

impl Options {
    /// The kernel's order, and no quota.
    pub const fn new() -> Options {
        Options { order: Order::Kernel, quota: None, shuffle: None }
    }

    /// The same with this order.
    pub const fn order(self, order: Order) -> Options {
        Options { order, ..self }
    }

    /// The same with a quota.
    pub const fn quota(self, locks: usize) -> Options {
        Options { quota: Some(locks), ..self }
    }
}

/// Files whose owners are the same: deadlocks are found over all of them, and an owner's locks can be released in all
/// at once. A clone is the same domain.
///
/// # Examples
/// ```
/// use spanlock_posix::{Caller, Domain, Error, Extent, Kind, Options};
///
/// let server = Domain::new(Options::new());
/// let (a, b) = (server.file(), server.file());
/// let (one, two) = (Caller::process("client 1", 0), Caller::process("client 2", 0));
/// a.set(one, Kind::Write, Extent::WHOLE)?;
/// b.set(one, Kind::Read, Extent::WHOLE)?;
/// server.release(&one.who); // it is gone
/// b.set(two, Kind::Write, Extent::WHOLE)?;
/// # Ok::<(), Error>(())
/// ```
pub struct Domain<O: Key> {
    pub(crate) shared: Arc<Shared<O>>,
}

impl<O: Key> Clone for Domain<O> {
    fn clone(&self) -> Domain<O> {
        Domain { shared: Arc::clone(&self.shared) }
    }
}

/// The domain itself.
pub(crate) struct Shared<O: Key> {
    pub(crate) options: Options,
    owners: Mutex<HashMap<Who<O>, Entry<O>>>,
    pub(crate) graph: Mutex<Graph<O>>,
    /// In order of arrival: requests that have been called, and are to be polled by whoever has left the files'
    /// mutexes.
    pub(crate) called: Mutex<Vec<(Weak<File<O>>, u64)>>,
    ids: AtomicU64,
    chance: AtomicU64,
    pub(crate) counters: Counters,
}

/// An owner that holds something or waits.
struct Entry<O: Key> {
    account: Arc<Account>,
    /// The files where it does, by their ids.
    files: HashMap<u64, Weak<File<O>>>,
}

/// What an owner has in all files.
#[derive(Debug)]
pub(crate) struct Account {
    /// Who it is in the range locks.
    pub(crate) token: Owner,
    /// Locks, and requests that wait.
    count: AtomicUsize,
}

impl Account {
    /// Counts so many more; not if that is above the quota.
    pub(crate) fn grow(&self, growth: isize, quota: Option<usize>) -> bool {
        // Relaxed: a number, which orders nothing.
        let grown = |count: usize| {
            let count = count.saturating_add_signed(growth);
            (growth <= 0 || quota.is_none_or(|most| count <= most)).then_some(count)
        };
        self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok()
    }
}

/// A mutex of which nobody minds that another thread panicked under it: that is a key's doing, and nothing was half
/// done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<O: Key> Domain<O> {
    /// A domain without files.
    pub fn new(options: Options) -> Domain<O> {
        let shared = Shared {
            options,
            owners: Mutex::new(HashMap::new()),
            graph: Mutex::new(Graph::new()),
            called: Mutex::new(Vec::new()),
            ids: AtomicU64::new(1),
            chance: AtomicU64::new(options.shuffle.unwrap_or(0)),
            counters: Counters::default(),
        };
        Domain { shared: Arc::new(shared) }
    }

    /// The record locks of one more file: to be kept where the server keeps what it knows of the file.
    pub fn file(&self) -> RecordLocks<O> {
        RecordLocks::in_domain(&self.shared)
    }

    /// Unlocks all that an owner has, in all files, and cancels all that it waits for: the process has ended, the
    /// client is gone.
    ///
    /// What it asks for *while* this goes on may stay. Other classes of the same key are other owners.
    pub fn release(&self, who: &Who<O>) {
        let files: Vec<_> = {
            let owners = lock(&self.shared.owners);
            owners.get(who).map(|entry| entry.files.values().cloned().collect()).unwrap_or_default()
        };
        for file in files.iter().filter_map(Weak::upgrade) {
            file.release(who);
        }
    }

    /// How many locks an owner has in all files, requests that wait included.
    pub fn count(&self, who: &Who<O>) -> usize {
        lock(&self.shared.owners).get(who).map_or(0, |entry| entry.account.count.load(Ordering::Relaxed))
    }

    /// What has been done so far in all files.
    pub fn stats(&self) -> Stats {
        self.shared.counters.read()
    }

    /// How many owners hold something or wait, and how many nodes the graph of waits has: 0 and 0 when all is unlocked.
    #[doc(hidden)]
    pub fn size(&self) -> (usize, usize) {
        (lock(&self.shared.owners).len(), lock(&self.shared.graph).len())
    }
}

impl<O: Key> Shared<O> {
    /// A number that nothing else in the domain has.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Which of `count` goes next: the first, but for tests.
    pub(crate) fn next_of(&self, count: usize) -> usize {
        if self.options.shuffle.is_none() {
            return 0;
        }
        // SplitMix64, whose state is a counter.
        let mut x = self.chance.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) as usize % count
    }

    /// An owner begins to have something to do with a file.
    pub(crate) fn enter(&self, who: &Who<O>, file: &Arc<File<O>>) -> Arc<Account> {
        let mut owners = lock(&self.owners);
        let entry = owners.entry(who.clone()).or_insert_with(|| {
            let account = Account { token: Owner::new(), count: AtomicUsize::new(0) };
            Entry { account: Arc::new(account), files: HashMap::new() }
        });
        entry.files.insert(file.id, Arc::downgrade(file));
        Arc::clone(&entry.account)
    }

    /// It has nothing there any more.
    pub(crate) fn leave(&self, who: &Who<O>, file: u64) {
        let mut owners = lock(&self.owners);
        if let Some(entry) = owners.get_mut(who) {
            entry.files.remove(&file);
            if entry.files.is_empty() {
                owners.remove(who);
            }
        }
    }
}

impl<O: Key> fmt::Debug for Domain<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owners = lock(&self.shared.owners).len();
        f.debug_struct("Domain").field("options", &self.shared.options).field("owners", &owners).finish_non_exhaustive()
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The counters of a domain.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
        }

        /// What has been done in a domain since it was made.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            fn read(&self) -> Stats {
                Stats { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Locks that were set at once.
    granted,
    /// Unlocks, releases not counted.
    unlocked,
    /// Tries that were refused since somebody was in the way.
    refused,
    /// Requests that had to wait.
    waited,
    /// Those of them that were granted.
    granted_later,
    /// Those of them that were cancelled, by a handle or a release.
    cancelled,
    /// Requests that were answered with a deadlock.
    deadlocks,
    /// Calls and requests that were refused for the quota.
    over_quota,
    /// How often a request that waits was tried again.
    retried,
}

/// Counts one more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
