//! What the test files share: the naive oracle ([`owners::Model`]), polling by hand, random histories, and an allocator
//! that counts.
//!
//! Nothing in here uses the library's own idea of overlap or conflict: the oracle would then agree with its mistakes.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code)]

pub(crate) mod actors;
pub(crate) mod alloc;
pub(crate) mod history;
pub(crate) mod inside;
pub(crate) mod owners;
pub(crate) mod owners_history;
pub(crate) mod poll;
pub(crate) mod table;
pub(crate) mod watch;

use spanlock::Mode;
use std::fmt;
use std::ops::Bound;
use std::sync::Mutex;
use std::time::Duration;

/// A window that no history outlasts, or none.
pub(crate) fn never_over(window: bool) -> Duration {
    if window { Duration::from_secs(1 << 20) } else { Duration::ZERO }
}

/// Bytes as the oracle sees them: first and last (inclusive), or nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Span(Option<(u64, u64)>);

impl Span {
    pub(crate) const EMPTY: Span = Span(None);
    pub(crate) const WHOLE: Span = Span(Some((0, u64::MAX)));

    /// `start..=last`.
    pub(crate) fn new(start: u64, last: u64) -> Span {
        assert!(start <= last, "a span of the oracle is not inverted");
        Span(Some((start, last)))
    }

    /// Whether a byte lies in both.
    pub(crate) fn meets(self, other: Span) -> bool {
        let (Some((start, last)), Some((other_start, other_last))) = (self.0, other.0) else { return false };
        !(last < other_start || other_last < start)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0.is_none()
    }

    /// What lies in both.
    pub(crate) fn cut(self, other: Span) -> Span {
        let (Some((start, last)), Some((other_start, other_last))) = (self.0, other.0) else { return Span::EMPTY };
        let (start, last) = (start.max(other_start), last.min(other_last));
        if start <= last { Span::new(start, last) } else { Span::EMPTY }
    }

    /// From the first byte of either to the last.
    pub(crate) fn hull(self, other: Span) -> Span {
        let (Some((start, last)), Some((other_start, other_last))) = (self.0, other.0) else {
            return if self.is_empty() { other } else { self };
        };
        Span::new(start.min(other_start), last.max(other_last))
    }

    /// What lies before the byte `at`, and the rest.
    pub(crate) fn split(self, at: u64) -> (Span, Span) {
        let head = if at == 0 { Span::EMPTY } else { self.cut(Span::new(0, at - 1)) };
        (head, self.cut(Span::new(at, u64::MAX)))
    }

    pub(crate) fn first(self) -> Option<u64> {
        self.0.map(|(start, _)| start)
    }

    pub(crate) fn last(self) -> Option<u64> {
        self.0.map(|(_, last)| last)
    }

    /// Whether `at` lies in it or directly behind it.
    pub(crate) fn splits_at(self, at: u64) -> bool {
        self.0.is_some_and(|(start, last)| start <= at && at.saturating_sub(1) <= last)
    }

    /// What lies before `gap`, and what lies behind it.
    pub(crate) fn around(self, gap: Span) -> (Span, Span) {
        let Some((start, last)) = gap.0 else { return (self, Span::EMPTY) };
        let tail = if last == u64::MAX { Span::EMPTY } else { self.split(last + 1).1 };
        (self.split(start).0, tail)
    }

    /// The bounds to pass to the lock.
    pub(crate) fn bounds(self) -> (Bound<u64>, Bound<u64>) {
        match self.0 {
            None => (Bound::Included(5), Bound::Excluded(5)),
            Some((start, last)) => (Bound::Included(start), Bound::Included(last)),
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("5..5"),
            Some((0, u64::MAX)) => f.write_str(".."),
            Some((start, u64::MAX)) => write!(f, "{start}.."),
            Some((start, last)) => write!(f, "{start}..{}", last + 1),
        }
    }
}

/// The table of the contract, written out.
pub(crate) fn together(a: Mode, b: Mode) -> bool {
    matches!((a, b), (Mode::Add, Mode::Add) | (Mode::Block, Mode::Block))
}

/// A number from the environment, so that a run can be made longer or shorter.
pub(crate) fn from_env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

/// How long each stress test goes on: `SPANLOCK_STRESS_MS`.
pub(crate) fn stress_time() -> Duration {
    Duration::from_millis(from_env("SPANLOCK_STRESS_MS", 500))
}

/// `release` in an optimised build, `debug` otherwise.
pub(crate) fn by_build(debug: u64, release: u64) -> u64 {
    if cfg!(debug_assertions) { debug } else { release }
}

/// The lock, or several, as there for good, as the futures of an owner, or of a batch, ask for.
pub(crate) fn lasting<T: ?Sized>(lock: &T) -> &'static T {
    // SAFETY: the tests forget no future: what is made from this is dropped before the lock, which is declared first
    // and not moved.
    unsafe { &*std::ptr::from_ref(lock) }
}

/// [`std::mem::forget`], and the memory stays in sight: LeakSanitizer then tells what the test leaks from what the
/// library does.
pub(crate) fn forget<T>(leaked: T) {
    static SHELF: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    let at = Box::into_raw(Box::new(leaked));
    SHELF.lock().expect("nobody panics here").push(at.expose_provenance());
}
