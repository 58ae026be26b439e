//! The command line: what may be asked for, and what is said to whoever asks for
//! something else.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use rustix::io::Errno;
use spanlock_pagecache::PAGE;
use spanlock_pagecache::device::{Access, DeviceError, Existing, Place};
use spanlock_pagecache::error::CacheError;
use spanlock_pagecache::file_lock::Variant;

/// The smallest file worth racing on, and the largest that we would cache whole.
const SIZES: (u64, u64) = (16 * PAGE as u64, 4 << 30);
/// The shortest time in which anything happens at all.
const LEAST_SECONDS: f64 = 0.1;
const MOST_SECONDS: f64 = 86_400.0;

/// Runs one load on a page cache over a real file, under no lock (also invalidating twice, as
/// kernels do), a whole-file lock and a range lock, and looks for stale data
#[derive(Debug, Parser)]
#[command(name = "pagecache", verbatim_doc_comment, after_help = AFTER_HELP)]
pub(crate) struct Options {
    /// The file to work on: it is written over, and stays.
    /// Without this: a temporary file, in ./target if there is one
    #[arg(long, value_name = "PATH", verbatim_doc_comment)]
    pub(crate) file: Option<PathBuf>,

    /// Let --file name a file that exists
    #[arg(long, requires = "file")]
    pub(crate) overwrite: bool,

    /// Size of the file, in whole pages of 4096 bytes, from 64K to 4G.
    /// The cache holds all of it, so it takes as much memory
    #[arg(long, value_name = "BYTES", default_value = "4M", value_parser = parse_size, verbatim_doc_comment)]
    pub(crate) size: u64,

    /// Threads that read, write and truncate (1 to 256); one more writes back
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: u16,

    /// Seconds of load, shared among the variants (3 are enough to see the point).
    /// Filling the file and checking it at the end come on top
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = parse_seconds, verbatim_doc_comment)]
    pub(crate) seconds: Duration,

    /// Percentages of the operations; those not named get 0
    #[arg(long, value_name = "NAME=PERCENT,..", default_value = "read=70,buffered=15,direct=14,truncate=1")]
    pub(crate) mix: Mix,

    /// Seed of the operations and their places: the same for each variant
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,

    /// Microseconds (0 to 100000) to linger where the races are, under each lock alike:
    /// between reading a page from the disk and inserting it into the cache, between writing
    /// it back and dropping it, between that and changing the disk, and so on (hooks.rs has
    /// them all). It makes races more frequent that are there without it
    #[arg(long, value_name = "MICROSECONDS", default_value = "20", value_parser = parse_pause, verbatim_doc_comment)]
    pub(crate) pause: Duration,

    /// Run only these variants. (rwsem, note and lean are other locks; see --help)
    #[arg(
        long,
        value_name = "VARIANT,..",
        value_enum,
        value_delimiter = ',',
        default_value = "none,twice,whole,range"
    )]
    pub(crate) locks: Vec<Variant>,

    /// Do not try O_DIRECT: go through the kernel's page cache
    #[arg(long)]
    pub(crate) buffered: bool,

    /// Afterwards measure what each lock costs and allows, as `pagecache compare` does
    /// (a minute), and write a page with pictures into this folder
    #[arg(long, value_name = "FOLDER", verbatim_doc_comment)]
    pub(crate) report: Option<PathBuf>,

    /// Exit with 0 even if the unlocked variant showed nothing stale
    #[arg(long)]
    pub(crate) accept_no_stale: bool,
}

const AFTER_HELP: &str = "\
Threads read pages through a cache, write to the cache, write past it to the disk, and
truncate the file. A checker watches every sector for reads that miss a completed write
or go backwards. Under no lock there must be some; under the two locks, none. Invalidating
twice without a lock narrows the races: it may show some.

Other commands: `pagecache compare`, `pagecache fsx`, `pagecache stress`, each with its --help.

Exit codes:
  0  as promised
  1  a locked variant was wrong, or the unlocked one showed nothing stale
  2  could not run";

impl Options {
    /// From the command line. Explains and exits (with 2) if it makes no sense, and
    /// after `--help` (with 0).
    pub(crate) fn from_command_line() -> Options {
        let options = Options::parse();
        let share = options.seconds_each().as_secs_f64();
        if share < LEAST_SECONDS {
            let variants = options.variants().len();
            Options::command()
                .error(
                    ErrorKind::ValueValidation,
                    format!(
                        "--seconds leaves each of {variants} variants {share:.3} seconds; \
                         give them {LEAST_SECONDS} each at least"
                    ),
                )
                .exit();
        }
        options
    }

    /// The variants to run, each once, in the order of the table.
    pub(crate) fn variants(&self) -> Vec<Variant> {
        Variant::ALL.into_iter().filter(|variant| self.locks.contains(variant)).collect()
    }

    /// How long each variant runs.
    pub(crate) fn seconds_each(&self) -> Duration {
        let variants = u32::try_from(self.variants().len()).expect("at most seven");
        self.seconds / variants
    }

    /// Where the file is to be.
    pub(crate) fn place(&self) -> Place {
        match &self.file {
            Some(path) => Place::Named {
                path: path.clone(),
                existing: if self.overwrite { Existing::Overwrite } else { Existing::Refuse },
            },
            // Temporary folders are often in memory, where there is no O_DIRECT.
            None if Path::new("target").is_dir() => Place::Temporary { folder: "target".into() },
            None => Place::Temporary { folder: env::temp_dir() },
        }
    }

    /// How the file is to be accessed.
    pub(crate) fn access(&self) -> Access {
        if self.buffered { Access::Buffered { because: "--buffered was given".to_owned() } } else { Access::Direct }
    }
}

/// What a thread may do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Buffered,
    Direct,
    Truncate,
}

impl Kind {
    pub(crate) const ALL: [Kind; 4] = [Kind::Read, Kind::Buffered, Kind::Direct, Kind::Truncate];

    /// Its name in `--mix`.
    fn name(self) -> &'static str {
        match self {
            Kind::Read => "read",
            Kind::Buffered => "buffered",
            Kind::Direct => "direct",
            Kind::Truncate => "truncate",
        }
    }
}

/// Percentages of the operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mix {
    percent: [u8; Kind::ALL.len()],
}

impl Mix {
    /// How many in a hundred are of this kind.
    pub(crate) fn percent(self, kind: Kind) -> u8 {
        self.percent[kind as usize]
    }

    /// A kind, drawn with these percentages.
    pub(crate) fn draw(self, random: &mut fastrand::Rng) -> Kind {
        let mut below = random.u8(..100);
        for kind in Kind::ALL {
            match below.checked_sub(self.percent(kind)) {
                Some(rest) => below = rest,
                None => return kind,
            }
        }
        unreachable!("the percentages add up to 100")
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = Kind::ALL.map(|kind| format!("{}={}", kind.name(), self.percent(kind)));
        f.write_str(&parts.join(","))
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Mix, String> {
        const SHAPE: &str = "give it as read=70,buffered=15,direct=14,truncate=1";
        let mut percent: [Option<u8>; Kind::ALL.len()] = [None; Kind::ALL.len()];
        for part in text.split(',') {
            let Some((name, number)) = part.split_once('=') else {
                return Err(format!("'{part}' is not NAME=PERCENT; {SHAPE}"));
            };
            let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == name.trim()) else {
                let names = Kind::ALL.map(Kind::name).join(", ");
                return Err(format!("there is no operation '{}'; there are {names}", name.trim()));
            };
            let number = match number.trim().parse() {
                Ok(number @ 0..=100) => number,
                _ => return Err(format!("'{number}' is not a percentage; use 0 to 100")),
            };
            if percent[kind as usize].replace(number).is_some() {
                return Err(format!("'{}' is given twice", kind.name()));
            }
        }
        let percent = percent.map(Option::unwrap_or_default);
        match percent.iter().map(|&percent| u32::from(percent)).sum() {
            100 => Ok(Mix { percent }),
            sum => Err(format!("the percentages add up to {sum}; they must add up to 100")),
        }
    }
}

/// Bytes, with K, M or G for the powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let (number, factor) = match text.trim_end_matches(['K', 'k', 'M', 'm', 'G', 'g']) {
        number if number.len() + 1 < text.len() => (text, 1), // "4MM"
        number => match text[number.len()..].to_ascii_uppercase().as_str() {
            "K" => (number, 1 << 10),
            "M" => (number, 1 << 20),
            "G" => (number, 1 << 30),
            _ => (number, 1),
        },
    };
    let (least, most) = SIZES;
    let bytes = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or("not a number of bytes; use a whole number, with K, M or G if you like")?;
    if bytes < least || bytes > most {
        return Err("out of bounds; use 64K to 4G".to_owned());
    }
    if bytes % PAGE as u64 != 0 {
        let below = bytes - bytes % PAGE as u64;
        return Err(format!("not a whole number of pages; use a multiple of {PAGE}, such as {below}"));
    }
    Ok(bytes)
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (LEAST_SECONDS..=MOST_SECONDS).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("use a number of seconds from {LEAST_SECONDS} to {MOST_SECONDS}")),
    }
}

fn parse_pause(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(microseconds @ 0..=100_000) => Ok(Duration::from_micros(microseconds)),
        _ => Err("use a whole number of microseconds from 0 to 100000".to_owned()),
    }
}

/// What to do about an error: which option has to do with it.
pub(crate) fn advice(error: &CacheError) -> &'static str {
    let errno = match error {
        CacheError::Device(DeviceError::Exists { .. }) => {
            return "; add --overwrite if it may, or name a file that does not exist";
        }
        CacheError::Device(DeviceError::NotAFile { .. }) => {
            return "; --file takes a regular file, or a name that does not exist yet";
        }
        CacheError::Device(DeviceError::Failed { errno, .. })
        | CacheError::Short { because: DeviceError::Failed { errno, .. }, .. } => *errno,
        _ => return "",
    };
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::PERM | Errno::ROFS => {
            "; --file takes a path in a folder that exists and is writable"
        }
        Errno::ISDIR => "; --file takes the path of a file",
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => "; choose a smaller --size, or another place with --file",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
        let options = Options::parse_from(["pagecache"]);
        assert_eq!(options.variants(), Variant::FOUR);
        assert_eq!(options.seconds_each(), Duration::from_millis(3750));
    }

    #[test]
    fn sizes_are_whole_pages_within_bounds() {
        assert_eq!(parse_size("65536"), Ok(65536));
        assert_eq!(parse_size("64K"), Ok(65536));
        assert_eq!(parse_size("4g"), Ok(4 << 30));
        assert!(parse_size("65537").unwrap_err().contains("such as 65536"));
        for bad in ["", "K", "4MM", "-4M", "4 M", "4T", "0", "60K", "5G", "99999999999G"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mix_adds_up_to_a_hundred() {
        let mix: Mix = "read=60, direct=40".parse().unwrap();
        assert_eq!((mix.percent(Kind::Read), mix.percent(Kind::Buffered)), (60, 0));
        assert_eq!(mix.to_string(), "read=60,buffered=0,direct=40,truncate=0");
        for (bad, why) in [
            ("read=60,direct=39", "add up to 99"),
            ("read=60,direct=41", "add up to 101"),
            ("read=101", "0 to 100"),
            ("read=-1,direct=101", "0 to 100"),
            ("reed=100", "no operation 'reed'"),
            ("read=50,read=50", "twice"),
            ("70,15,14,1", "NAME=PERCENT"),
            ("", "NAME=PERCENT"),
        ] {
            let said = bad.parse::<Mix>().unwrap_err();
            assert!(said.contains(why), "{bad}: {said}");
        }
    }

    #[test]
    fn a_mix_is_drawn_as_it_says() {
        let mix: Mix = "read=50,buffered=0,direct=49,truncate=1".parse().unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        let mut drawn = [0_u32; Kind::ALL.len()];
        for _ in 0..100_000 {
            drawn[mix.draw(&mut random) as usize] += 1;
        }
        for (kind, drawn) in Kind::ALL.into_iter().zip(drawn) {
            assert!(drawn.abs_diff(1000 * u32::from(mix.percent(kind))) < 1000, "{kind:?}: {drawn}");
        }
        assert_eq!(drawn[Kind::Buffered as usize], 0);
    }

    #[test]
    fn an_error_names_the_option_that_helps() {
        let device = |error| advice(&CacheError::Device(error));
        assert!(device(DeviceError::Exists { name: "a".into() }).contains("--overwrite"));
        assert!(device(DeviceError::NotAFile { name: "a".into() }).contains("--file"));
        for (errno, option) in
            [(Errno::NOENT, "--file"), (Errno::ISDIR, "--file"), (Errno::NOSPC, "--size"), (Errno::IO, "")]
        {
            let said = device(DeviceError::Failed { doing: "create it".into(), errno });
            assert!(said.contains(option) && said.is_empty() == option.is_empty(), "{errno}: {said}");
        }
        assert_eq!(advice(&CacheError::QueueClosed), "");
    }
}
