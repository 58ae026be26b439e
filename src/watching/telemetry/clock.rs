//! The clock of a wait that somebody watches.

use crate::facts::mode::Mode;
use crate::facts::owner::OwnerId;
use crate::facts::range::ByteRange;
#[cfg(feature = "stats")]
use crate::watching::stats::{self, Counter};
use std::time::{Duration, Instant};

/// Runs while a request waits. Dropping it says that the request gave up.
#[derive(Debug)]
#[must_use = "dropping it says that the request gave up"]
pub(crate) struct WaitClock {
    /// `None` when the end of the wait was told.
    began: Option<Instant>,
    #[cfg(feature = "tracing")]
    asked: (ByteRange, Mode, OwnerId),
}

impl WaitClock {
    #[cold]
    pub(super) fn start(range: ByteRange, mode: Mode, owner: OwnerId) -> WaitClock {
        if_traced!(tracing::debug!(target: "spanlock", %range, %mode, %owner, "waiting"));
        WaitClock {
            // Behind the event: what a subscriber does is no part of the wait.
            began: Some(Instant::now()),
            #[cfg(feature = "tracing")]
            asked: (range, mode, owner),
        }
    }

    /// The request was granted.
    #[cold]
    pub(crate) fn granted(mut self) {
        let waited = self.stop();
        if_traced! {
            let ((range, mode, owner), waited_us) = (self.asked, micros(waited));
            tracing::debug!(target: "spanlock", %range, %mode, %owner, waited_us, "granted");
        }
    }

    /// How long the request has waited, now that this is over.
    fn stop(&mut self) -> Duration {
        let waited = self.began.take().map_or(Duration::ZERO, |began| began.elapsed());
        if_counted!(stats::waited(waited));
        waited
    }
}

impl Drop for WaitClock {
    fn drop(&mut self) {
        if self.began.is_none() {
            return;
        }
        let waited = self.stop();
        if_counted!(stats::add(Counter::GivenUp, 1));
        if_traced! {
            let ((range, mode, owner), waited_us) = (self.asked, micros(waited));
            tracing::debug!(target: "spanlock", %range, %mode, %owner, waited_us, "gave up");
        }
    }
}

/// For the field of an event.
#[cfg(feature = "tracing")]
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
