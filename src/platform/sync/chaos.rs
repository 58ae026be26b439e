//! A random pause at each access to what threads share.
//!
//! On a few processors two threads seldom stand in the middle of their protocol steps together: a step takes
//! nanoseconds, and a thread is taken off its processor some hundred times a second. Built with
//! `--cfg spanlock_chaos`, a thread may lose its turn at any access, and before any mutex, so that each step meets
//! each other step within seconds. loom tries all orders of two threads in a small scene; this tries some orders of
//! any number of threads in a large one.
//!
//! It does not help to find what only a processor's store buffer breaks, such as a missing fence behind a publication:
//! a pause gives that the time to drain. Such things are loom's.
//!
//! Relaxed accesses are paused at, too: what was looked at ahead of a compare-and-swap may be old by the time of the
//! swap, and records are read while others write them.
//!
//! Each thread draws from a generator of its own, seeded by `SPANLOCK_SEED` and by the thread's number in the order
//! in which threads came here. The same seed makes the same pauses, but not the same schedule.

use std::cell::Cell;
use std::hint::spin_loop;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{sleep, yield_now};
use std::time::Duration;

/// There is a pause at one of so many points. A request passes some ten to a hundred.
const PAUSES: u64 = 16;

/// What an odd multiple of is never zero, and differs in all bits from the next one: the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

static SEED: LazyLock<u64> = LazyLock::new(|| match std::env::var("SPANLOCK_SEED") {
    Ok(text) => text.parse().unwrap_or_else(|_| panic!("SPANLOCK_SEED={text} is not a number")),
    Err(_) => 0,
});

thread_local! {
    /// The generator's state; 0 before its first number.
    static STATE: Cell<u64> = const { Cell::new(0) };
}

/// The next number of this thread (xorshift).
fn draw() -> u64 {
    STATE.with(|state| {
        let mut x = state.get();
        if x == 0 {
            static THREADS: AtomicU64 = AtomicU64::new(0);
            let thread = THREADS.fetch_add(1, Ordering::Relaxed);
            x = ((*SEED << 32) + 2 * thread + 1).wrapping_mul(STEP);
        }
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        state.set(x);
        x >> 20
    })
}

/// Perhaps loses some time: a moment, the rest of the turn, or, rarely, so long that others can go round several times.
#[inline]
fn pause() {
    let drawn = draw();
    if drawn % PAUSES == 0 {
        lose_time(drawn / PAUSES);
    }
}

#[cold]
fn lose_time(drawn: u64) {
    let (kind, length) = (drawn % 128, drawn / 128);
    match kind {
        0..4 => sleep(Duration::from_micros(length % 64)),
        4..48 => yield_now(),
        // Up to some microseconds, in which threads on other processors do whole requests.
        48..64 => (0..length % 2048).for_each(|_| spin_loop()),
        _ => (0..length % 64).for_each(|_| spin_loop()),
    }
}

/// Before an access.
#[inline]
pub(super) fn before(_: &'static str) {
    pause();
}

/// Behind one that changes a word: what is to follow it may come late, too; in between others see the one without the
/// other.
#[inline]
pub(super) fn behind() {
    pause();
}
