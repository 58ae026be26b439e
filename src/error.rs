//! Every error type. Contention is never an error: it waits.

use std::fmt;

/// The deadline of a request passed before it was granted. The request has left the queue and holds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimedOut;

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the range was not granted before the deadline")
    }
}

impl std::error::Error for TimedOut {}
