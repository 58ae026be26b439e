//! Where the lock says what it does, to whoever watches: counters (feature `stats`) and events (feature `tracing`).
//!
//! # Promise
//! Without these features, and in models, everything here is empty, [`WaitClock`] has no size and no time is taken. So
//! callers name no feature.
//!
//! # Who may call what, where
//! - What only counts may be called anywhere: it is a Relaxed add.
//! - [`waiting`], the end of a [`WaitClock`], and [`deadlock`] tell a subscriber, which is foreign code: not while
//!   pinned (INV-G2), nor under a mutex.

#![cfg_attr(
    any(loom, spanlock_shuttle, not(all(feature = "stats", feature = "tracing"))),
    allow(unused_variables, unused_macros, reason = "what nobody watches is not looked at")
)]

use crate::facts::mode::Mode;
use crate::facts::owner::OwnerId;
use crate::facts::range::ByteRange;
#[cfg(all(feature = "stats", not(any(loom, spanlock_shuttle))))]
use crate::watching::stats::{self, Counter};
use std::fmt;
use std::time::Duration;

/// Code for the feature `stats`, in a block of its own.
macro_rules! if_counted {
    ($($code:tt)*) => { #[cfg(all(feature = "stats", not(any(loom, spanlock_shuttle))))] { $($code)* } };
}

/// Code for the feature `tracing`, in a block of its own.
macro_rules! if_traced {
    ($($code:tt)*) => { #[cfg(all(feature = "tracing", not(any(loom, spanlock_shuttle))))] { $($code)* } };
}

#[cfg(all(any(feature = "stats", feature = "tracing"), not(any(loom, spanlock_shuttle))))]
mod clock;
pub(crate) use clock::WaitClock;

/// The clock of a wait that nobody watches.
#[cfg(not(all(any(feature = "stats", feature = "tracing"), not(any(loom, spanlock_shuttle)))))]
mod clock {
    use super::*;

    #[derive(Debug)]
    #[must_use = "dropping it says that the request gave up"]
    pub(crate) struct WaitClock(());

    const _: () = assert!(size_of::<WaitClock>() == 0 && !std::mem::needs_drop::<WaitClock>(), "it costs nothing");

    impl WaitClock {
        #[inline(always)]
        pub(super) fn start(range: ByteRange, mode: Mode, owner: OwnerId) -> WaitClock {
            WaitClock(())
        }

        #[inline(always)]
        pub(crate) fn granted(self) {}
    }
}

/// A request was granted, at once or after a wait.
#[inline(always)]
pub(crate) fn acquired() {
    if_counted!(stats::add(Counter::Acquires, 1));
}

/// A request found somebody in its way: it will queue or, being a `try_`, is refused.
#[inline(always)]
pub(crate) fn contended() {
    if_counted!(stats::add(Counter::Contended, 1));
}

/// A request of an owner that has another one.
#[inline(always)]
pub(crate) fn nested() {
    if_counted!(stats::add(Counter::Nested, 1));
}

/// Requests were let past queued ones: so many `pairs` of them.
#[inline(always)]
pub(crate) fn passed(pairs: usize) {
    if_counted!(stats::add(Counter::Passed, pairs as u64));
}

/// A newcomer went before some who yield.
#[inline(always)]
pub(crate) fn went_before() {
    if_counted!(stats::add(Counter::WentBefore, 1));
}

/// One who yields was woken, and finds somebody else in front of it that has not waited.
#[inline(always)]
pub(crate) fn woken_in_vain() {
    if_counted!(stats::add(Counter::WokenInVain, 1));
}

/// One who yielded is granted so long after its window was over.
#[inline(always)]
pub(crate) fn granted_late(by: Duration) {
    if_counted!(stats::granted_late(by));
}

/// A tree has one more node on the heap.
#[inline(always)]
pub(crate) fn node_grown() {
    if_counted!(stats::add(Counter::NodesGrown, 1));
}

/// So many `nodes` were taken out of a tree.
#[inline(always)]
pub(crate) fn node_pruned(nodes: usize) {
    if_counted!(stats::add(Counter::NodesPruned, nodes as u64));
}

/// A request is answered with a deadlock; `cycle` says who waits for whom.
#[inline(always)]
pub(crate) fn deadlock(cycle: &dyn fmt::Display) {
    if_counted!(stats::add(Counter::Deadlocks, 1));
    if_traced!(tracing::warn!(target: "spanlock", %cycle, "deadlock"));
}

/// A request has queued: its wait begins. Whoever waits keeps the clock, and ends it.
#[inline(always)]
pub(crate) fn waiting(range: ByteRange, mode: Mode, owner: OwnerId) -> WaitClock {
    WaitClock::start(range, mode, owner)
}

#[cfg(all(test, any(feature = "stats", feature = "tracing"), not(any(loom, spanlock_shuttle))))]
mod tests;
