//! What scans, walks for a free slot and the pruner's hand look at, nodes and slots: counted in tests, which judge by
//! it what an operation costs.

#[cfg(all(test, not(any(loom, spanlock_shuttle))))]
thread_local! {
    static STEPS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

#[inline(always)]
#[cfg_attr(not(all(test, not(any(loom, spanlock_shuttle)))), allow(unused_variables))]
pub(super) fn add(steps: usize) {
    #[cfg(all(test, not(any(loom, spanlock_shuttle))))]
    STEPS.set(STEPS.get() + steps as u64);
}

/// How many steps the calling thread has made since it last asked.
#[cfg(all(test, not(any(loom, spanlock_shuttle))))]
pub(crate) fn take() -> u64 {
    STEPS.take()
}
