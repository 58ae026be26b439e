//! The command line of `compare`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use spanlock_pagecache::file_lock::Variant;

use super::load::Kind;

/// Measures what each lock costs and allows: threads on disjoint parts of a file, under each variant in turn, in
/// interleaved rounds. Once on a device in memory that takes --latency-us longer, once on a file with nothing added
#[derive(Debug, Parser)]
#[command(name = "pagecache compare", after_help = AFTER_HELP)]
pub(crate) struct Options {
    /// Microseconds (0 to 100000) that each read and write of the device in memory sleeps.
    /// The system wakes sleepers late: what it comes to is measured and said
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 100, verbatim_doc_comment,
          value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub(crate) latency_us: u32,

    /// The most threads (1 to 256); fewer are measured, too: 1, 2, 4, ..
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: u16,

    /// Milliseconds of each measurement (5 to 60000)
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(5..=60_000))]
    pub(crate) round_ms: u32,

    /// How often each is measured (1 to 1000); the median counts
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) rounds: u16,

    /// Only these operations
    #[arg(
        long,
        value_name = "KIND,..",
        value_enum,
        value_delimiter = ',',
        default_value = "mixed,direct,miss,buffered,cached"
    )]
    pub(crate) kinds: Vec<Kind>,

    /// Only these locks
    #[arg(
        long,
        value_name = "VARIANT,..",
        value_enum,
        value_delimiter = ',',
        default_value = "none,twice,whole,range"
    )]
    pub(crate) locks: Vec<Variant>,

    /// Write a page with pictures, index.html, into this folder, and each picture beside it
    #[arg(long, value_name = "FOLDER")]
    pub(crate) report: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Exit codes:
  0  all that is asked for was reached
  1  something was missed
  2  could not run";

impl Options {
    pub(crate) fn latency(&self) -> Duration {
        Duration::from_micros(u64::from(self.latency_us))
    }

    pub(crate) fn round(&self) -> Duration {
        Duration::from_millis(u64::from(self.round_ms))
    }

    /// The locks, each once.
    pub(crate) fn variants(&self) -> Vec<Variant> {
        Variant::ALL.into_iter().filter(|variant| self.locks.contains(variant)).collect()
    }

    /// How many threads are measured: the powers of two below the most, and the most.
    pub(crate) fn thread_counts(&self) -> Vec<usize> {
        let most = usize::from(self.threads);
        let mut counts: Vec<_> =
            std::iter::successors(Some(1), |count| Some(count * 2)).take_while(|&count| count < most).collect();
        counts.push(most);
        counts
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::Options;

    #[test]
    fn threads_go_up_in_powers_of_two_to_the_most() {
        for (most, counts) in [("1", vec![1]), ("2", vec![1, 2]), ("6", vec![1, 2, 4, 6]), ("16", vec![1, 2, 4, 8, 16])]
        {
            let options = Options::parse_from(["compare", "--threads", most]);
            assert_eq!(options.thread_counts(), counts);
        }
    }
}
