//! What the lock of a file cost and did: how often it was asked for, how long was waited, and, while the log is on,
//! who held which bytes when.
//!
//! # Shape
//! Counters are spread over 16 lines by thread, so that counting is not what the threads share. How long a wait
//! was is noted by whoever has just waited, which is slow anyway: a mutex each. The log is off but for a few
//! milliseconds in the middle of a run; off, it costs one load of a word that nobody writes.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use spanlock::{ByteRange, Mode};

const SHARDS: usize = 16;
/// Two significant digits are more than a picture shows.
const DIGITS: u8 = 2;
/// The log ends when it has so many entries: more than a picture can show.
const MOST_SPANS: usize = 50_000;

/// Nanoseconds, of each request that had to wait.
pub type WaitTimes = Histogram<u64>;

/// None yet.
pub fn no_wait_times() -> WaitTimes {
    Histogram::new(DIGITS).expect("a number of digits that it takes")
}

/// How often a lock was asked for, and how often it was not to be had at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waits {
    /// How often it was asked for.
    pub requests: u64,
    /// How often it was not to be had at once.
    pub waited: u64,
    /// How long was waited, all waits together.
    pub time: Duration,
}

/// The same, while it is counted. Relaxed throughout: these order nothing.
#[derive(Debug)]
pub(crate) struct WaitCounts {
    shards: [CachePadded<Shard>; SHARDS],
}

#[derive(Debug)]
struct Shard {
    requests: AtomicU64,
    waited: Mutex<Waited>,
}

#[derive(Debug)]
struct Waited {
    time: Duration,
    times: WaitTimes,
}

impl Default for WaitCounts {
    fn default() -> WaitCounts {
        let shard = |_| Shard {
            requests: AtomicU64::new(0),
            waited: Mutex::new(Waited { time: Duration::ZERO, times: no_wait_times() }),
        };
        WaitCounts { shards: std::array::from_fn(|index| CachePadded::new(shard(index))) }
    }
}

impl WaitCounts {
    /// Counts a request, and measures it if `try_now` does not get it.
    pub(crate) fn count<G>(&self, try_now: impl FnOnce() -> Option<G>, wait: impl FnOnce() -> G) -> G {
        let shard = &self.shards[shard_of_this_thread()];
        shard.requests.fetch_add(1, Ordering::Relaxed);
        if let Some(guard) = try_now() {
            return guard;
        }
        let since = Instant::now();
        let guard = wait();
        let time = since.elapsed();
        let mut waited = shard.waited.lock();
        waited.time += time;
        waited.times += u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        guard
    }

    pub(crate) fn now(&self) -> Waits {
        let mut waits = Waits::default();
        for shard in &self.shards {
            let waited = shard.waited.lock();
            waits.requests += shard.requests.load(Ordering::Relaxed);
            waits.waited += waited.times.len();
            waits.time += waited.time;
        }
        waits
    }

    pub(crate) fn times(&self) -> WaitTimes {
        let mut times = no_wait_times();
        for shard in &self.shards {
            times += &shard.waited.lock().times;
        }
        times
    }
}

fn shard_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
    }
    SHARD.get()
}

/// One request: when it was asked for, granted and given back, since the log began. The range is the one that the
/// operation needs, also where the whole file was locked.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The bytes.
    pub range: ByteRange,
    /// In which mode.
    pub mode: Mode,
    /// When it was asked for.
    pub asked: Duration,
    /// When it was granted.
    pub granted: Duration,
    /// When it was given back.
    pub released: Duration,
}

/// Who held what when. (A batch, which direct writes with crossed ways ask for, is not in it.)
#[derive(Debug, Default)]
pub struct Log {
    on: AtomicBool,
    state: Mutex<LogState>,
}

#[derive(Debug, Default)]
struct LogState {
    began: Option<Instant>,
    spans: Vec<Span>,
}

impl Log {
    /// Notes all requests that begin from now on.
    pub fn start(&self) {
        *self.state.lock() = LogState { began: Some(Instant::now()), spans: Vec::new() };
        self.on.store(true, Ordering::Relaxed);
    }

    /// Notes no more of them.
    pub fn stop(&self) {
        self.on.store(false, Ordering::Relaxed);
    }

    /// What was noted, and has ended.
    pub fn spans(&self) -> Vec<Span> {
        self.state.lock().spans.clone()
    }

    pub(crate) fn ask(&self, range: ByteRange, mode: Mode) -> Option<Asked> {
        self.on.load(Ordering::Relaxed).then(|| Asked { range, mode, asked: Instant::now() })
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(crate) struct Asked {
    range: ByteRange,
    mode: Mode,
    asked: Instant,
}

impl Asked {
    pub(crate) fn granted(self, log: &Arc<Log>) -> OpenSpan {
        OpenSpan { log: log.clone(), granted: Instant::now(), asked: self }
    }
}

/// A range that is held. Dropped, it is noted.
#[derive(Debug)]
pub(crate) struct OpenSpan {
    log: Arc<Log>,
    asked: Asked,
    granted: Instant,
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        let released = Instant::now();
        let mut state = self.log.state.lock();
        let Some(began) = state.began else { return };
        if state.spans.len() < MOST_SPANS {
            let Asked { range, mode, asked } = self.asked;
            let since = |moment: Instant| moment.saturating_duration_since(began);
            let (asked, granted, released) = (since(asked), since(self.granted), since(released));
            state.spans.push(Span { range, mode, asked, granted, released });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_waits_is_in_the_histogram() {
        let counts = WaitCounts::default();
        counts.count(|| Some(()), || unreachable!("it was to be had at once"));
        counts.count(|| None, || ());
        let (waits, times) = (counts.now(), counts.times());
        assert_eq!((waits.requests, waits.waited, times.len()), (2, 1, 1));
    }

    #[test]
    fn the_log_holds_what_was_asked_for_while_it_was_on() {
        let log = Arc::new(Log::default());
        let range = ByteRange::new(0..4096);
        assert!(log.ask(range, Mode::Add).is_none());
        log.start();
        let held = log.ask(range, Mode::Add).expect("it is on").granted(&log);
        log.stop();
        assert!(log.spans().is_empty(), "it has not ended");
        drop(held);
        let spans = log.spans();
        assert_eq!((spans.len(), spans[0].range, spans[0].mode), (1, range, Mode::Add));
        assert!(spans[0].asked <= spans[0].granted && spans[0].granted <= spans[0].released);
    }
}
