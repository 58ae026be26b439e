//! One round: a lock, some threads that play on it until they have had their turns, and what they noted, judged.

use crate::common::Span;
use crate::judge::{self, Finding, Order, Stamp, Tally};
use crate::players::{Part, Player};
use fastrand::Rng;
use parking_lot::Mutex;
use spanlock::{Mode, OwnerId, RangeLock};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

/// How often the watch looks.
const LOOK: Duration = Duration::from_millis(250);

/// Looks without a stamp until the round is stuck. Counted in looks and not in time: a process that was stopped has
/// not looked.
const PATIENCE: u32 = 40;

/// The only clock of a history: each reading is one more than the one before, so that two stamps say what came first.
///
/// One counter for all threads, and not the processors' own: these may be some nanoseconds apart, and can be read
/// before an earlier store is seen by others. It costs a line that wanders between the threads, once on each side of
/// a call; in the call it changes nothing.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    /// Who reads a larger number has seen all that came before a smaller one.
    pub(crate) fn tick(&self) -> Stamp {
        self.0.fetch_add(1, Ordering::SeqCst)
    }

    fn peek(&self) -> Stamp {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where the ranges lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    /// In a few bytes: everybody meets everybody.
    Few,
    /// In cells all over `u64`, some of them very large: what is live lies at every level of the tree.
    Levels,
    /// Mostly in each thread's own place, at times in a neighbour's: nodes are made, left and pruned.
    Homes,
}

impl Ground {
    pub(crate) fn part(self, rng: &mut Rng, me: u64) -> Part {
        let mode = Mode::ALL[[0, 0, 1, 1, 2][rng.usize(0..5)]];
        (self.span(rng, me), mode)
    }

    fn span(self, rng: &mut Rng, me: u64) -> Span {
        let cells = |first: u64, last: u64, scale: u32| Span::new(first << scale, last << scale | ((1 << scale) - 1));
        match (self, rng.u8(0..64)) {
            (_, 0) => Span::EMPTY,
            (_, 1) => Span::WHOLE,
            (Ground::Few, _) => {
                let start = rng.u64(0..8);
                Span::new(start, rng.u64(start..8))
            }
            (Ground::Levels, 2) => Span::new(rng.u64(..), u64::MAX),
            (Ground::Levels, _) => {
                let first = rng.u64(0..32);
                cells(first, (first + rng.u64(0..3)).min(31), 59)
            }
            (Ground::Homes, visit) => {
                let home = if visit < 16 { rng.u64(0..8) } else { me % 8 };
                let first = home * 16 + rng.u64(0..16);
                let last = (first + [0, 0, 0, 1, 3, 16][rng.usize(0..6)]).min(127);
                cells(first, last, 40)
            }
        }
    }
}

/// What the threads of a round share.
pub(crate) struct Round {
    pub(crate) seed: u64,
    pub(crate) ground: Ground,
    pub(crate) turns: u32,
    pub(crate) lock: Arc<RangeLock>,
    pub(crate) clock: Arc<Clock>,
    stuck: AtomicBool,
}

impl Round {
    /// The round of this seed.
    pub(crate) fn new(seed: u64) -> Round {
        let mut rng = Rng::with_seed(seed);
        let ground = [Ground::Few, Ground::Levels, Ground::Homes][rng.usize(0..3)];
        let turns = rng.u32(4..64);
        // None, one that is never over, and some that often are.
        let windows = [0, 0, 0, 3_600_000_000, 1000, 50];
        let window = Duration::from_micros(windows[rng.usize(..windows.len())]);
        let lock = Arc::new(RangeLock::new().reordering(window));
        Round { seed, ground, turns, lock, clock: Arc::default(), stuck: AtomicBool::new(false) }
    }

    /// Whether nothing moves any more: then all that can be given up is.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed)
    }

    /// Plays it with so many threads, and judges.
    pub(crate) fn play(self, threads: usize) -> (Tally, Vec<Finding>) {
        let names = Mutex::new(vec![None; threads]);
        let (begin, over) = (Barrier::new(threads), AtomicBool::new(false));
        let (mut rows, mut sights) = (Vec::new(), Vec::new());
        let play = |me: usize| {
            names.lock()[me] = Some(my_name());
            begin.wait();
            let names: Vec<OwnerId> = names.lock().iter().flatten().copied().collect();
            let mut player = Player::new(&self, me, &names);
            player.play();
            (player.rows, player.sights)
        };
        thread::scope(|scope| {
            let watch = scope.spawn(|| self.watch(&over));
            let play = &play;
            let players: Vec<_> = (0..threads).map(|me| scope.spawn(move || play(me))).collect();
            for player in players {
                let noted = player.join().expect("a player does not panic");
                rows.extend(noted.0);
                sights.extend(noted.1);
            }
            over.store(true, Ordering::Relaxed);
            watch.thread().unpark();
        });
        let (tally, findings) =
            judge::judge(rows, &sights, if self.lock.window().is_some() { Order::Window } else { Order::Strict });
        assert!(!self.is_stuck(), "seed {}: nothing moved any more; {}", self.seed, report(&findings));
        assert_eq!(self.lock.snapshot().requests().len(), 0, "seed {}: somebody is left in the lock", self.seed);
        self.lock.trim();
        assert_eq!(self.lock.heap_nodes(), 0, "seed {}: nodes are left with nobody there", self.seed);
        (tally, findings)
    }

    /// Sees to it that a lost wake-up ends the round, and not the patience of whoever runs it.
    fn watch(&self, over: &AtomicBool) {
        let (mut seen, mut looks) = (0, 0);
        while !over.load(Ordering::Relaxed) {
            thread::park_timeout(LOOK);
            let now = self.clock.peek();
            looks = if now == seen { looks + 1 } else { 0 };
            seen = now;
            if looks < PATIENCE {
                continue;
            }
            // Not `eprintln!`: what the harness captured is lost if the process is aborted.
            let (seed, lock) = (self.seed, self.lock.snapshot());
            let text = format!("seed {seed}: no stamp after {now} in {PATIENCE} looks, {LOOK:?} each\n{lock}\n");
            drop(std::io::stderr().write_all(text.as_bytes()));
            if self.stuck.swap(true, Ordering::Relaxed) {
                // Giving up what can be given up has not helped.
                std::process::abort();
            }
            looks = 0;
        }
    }
}

/// What a snapshot calls the requests of this thread.
fn my_name() -> OwnerId {
    let lock = RangeLock::new();
    let _mine = lock.add(0..1);
    lock.snapshot().requests()[0].owner()
}

/// The first few findings, for people.
pub(crate) fn report(findings: &[Finding]) -> String {
    let first: Vec<String> = findings.iter().take(5).map(|finding| format!("- {finding}")).collect();
    format!("{} findings{}{}", findings.len(), if first.is_empty() { "" } else { ":\n" }, first.join("\n"))
}
