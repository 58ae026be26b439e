//! `compare`: what each lock costs and allows, in figures.
//!
//! # Shape
//! Two settings: a *simulated* device (memory, and so many microseconds of sleep on top), and a *file* as it is. In
//! each, every kind of operation runs with 1, 2, 4.. threads under every variant. One round is all variants once, in an
//! order that turns; a figure is the median of the rounds. Ratios are taken within a round, and then their median: this
//! host may be twice as slow in the next second, but hardly in the next measurement.
//!
//! | file | what it is |
//! |---|---|
//! | `options.rs` | its command line |
//! | `load.rs` | one measurement |
//! | `goals.rs` | what is asked for, and whether it was reached |
//! | `pictures.rs` | its page; how a picture looks is the benches' matter, too (`benches/support/chart.rs`) |

#[path = "../../../benches/support/chart.rs"]
mod chart;
mod goals;
mod load;
#[path = "../../../benches/support/machine.rs"]
mod machine;
pub(crate) mod options;
mod pictures;

use std::error::Error;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use comfy_table::{CellAlignment, Table};
use indicatif::{ProgressBar, ProgressStyle};
use spanlock_pagecache::device::{Access, Device, PageBuffer, Place, offset_of};
use spanlock_pagecache::error::CacheError;
use spanlock_pagecache::file_lock::Variant;
use spanlock_pagecache::waits::{Span, WaitTimes};

use crate::report::{STYLE, Verdict, say};
use load::{Bench, Kind, PART};
use options::Options;

/// Why the columns and the ratio need not fit.
const RATIO: &str = "\
Each column is the median of one lock's rounds; range/whole is the median of the
ratios within the rounds, since the machine may be slower in the next round.
So it need not be the ratio of the columns.";

/// How long the log is on, for the picture of holds and waits.
const RECORDED: Duration = Duration::from_millis(4);
const RECORDED_THREADS: usize = 8;

/// Where it was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    /// A device in memory, which sleeps.
    Simulated,
    /// A file, with nothing added.
    File,
}

impl Setting {
    fn name(self) -> &'static str {
        match self {
            Setting::Simulated => "device",
            Setting::File => "file",
        }
    }

    /// In a few words.
    fn place(self, options: &Options) -> String {
        match self {
            Setting::Simulated => format!("device of {} µs", options.latency_us),
            Setting::File => "file, nothing added".to_owned(),
        }
    }
}

/// One kind of operation with so many threads: operations per second of each round, variant by variant.
struct Cell {
    kind: Kind,
    threads: usize,
    rounds: Vec<[f64; Variant::ALL.len()]>,
}

impl Cell {
    fn median(&self, variant: Variant) -> f64 {
        median(self.rounds.iter().map(|round| round[variant as usize]))
    }

    /// The median of the rounds' ratios.
    fn ratio(&self, of: Variant, to: Variant) -> f64 {
        median(self.rounds.iter().map(|round| round[of as usize] / round[to as usize]))
    }
}

/// What one variant's lock did in all of this.
struct LockWork {
    variant: Variant,
    wait_times: WaitTimes,
    spans: Vec<Span>,
}

/// All that was measured in one setting.
struct Results {
    setting: Setting,
    /// In words.
    device: String,
    cells: Vec<Cell>,
    locks: Vec<LockWork>,
}

impl Results {
    fn cell(&self, kind: Kind, threads: usize) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.kind == kind && cell.threads == threads)
    }
}

/// What the command line asks for, if it is `compare`.
pub(crate) fn asked_for() -> Option<fn() -> ExitCode> {
    let is_named = std::env::args().nth(1)? == "compare";
    is_named.then_some(|| compare(&Options::parse_from(std::env::args().skip(1))))
}

/// Everything as it is without options, and the page into `folder`.
pub(crate) fn into_folder(folder: &Path) -> ExitCode {
    compare(&Options::parse_from([OsStr::new("compare"), OsStr::new("--report"), folder.as_os_str()]))
}

fn compare(options: &Options) -> ExitCode {
    let folder = Path::new("target");
    let folder = if folder.is_dir() { folder.to_owned() } else { std::env::temp_dir() };
    match run(options, &Place::Temporary { folder }, Access::Direct) {
        Ok(Verdict::AsPromised) => ExitCode::SUCCESS,
        Ok(Verdict::NotAsPromised) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(crate::COULD_NOT_RUN)
        }
    }
}

/// Runs everything, prints it, and writes the page if one is wanted.
fn run(options: &Options, place: &Place, access: Access) -> Result<Verdict, Box<dyn Error>> {
    if let Some(folder) = &options.report {
        make_folder(folder)?; // now, not when all is measured
    }
    let size = offset_of(usize::from(options.threads) * PART);
    let memory = Arc::new(Device::open(&Place::Memory, size, Access::Direct)?);
    memory.faults().set_latency(options.latency());
    let file = Arc::new(Device::open(place, size, access)?);
    let mut all = Vec::new();
    for (setting, device) in [(Setting::Simulated, memory), (Setting::File, file)] {
        let results = measure_all(options, setting, &device)?;
        say(format_args!("{}\n\n{}\n", results.device, table(options, &results)));
        all.push(results);
    }
    say(format_args!("{RATIO}\n"));
    let goals = goals::judge(options, &all);
    say(format_args!("{}", goals::table(&goals)));
    if let Some(folder) = &options.report {
        let path = pictures::write(folder, options, &all, &goals)?;
        say(format_args!("\nPictures: {}", path.display()));
    }
    Ok(if goals.iter().all(goals::Goal::is_reached) { Verdict::AsPromised } else { Verdict::NotAsPromised })
}

/// Makes sure that the page can be written.
pub(crate) fn make_folder(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("cannot make the folder {}: {error}", folder.display()))?;
    let path = folder.join(pictures::PAGE);
    let opened = OpenOptions::new().create(true).append(true).open(&path); // as it is, if there is one
    opened.map(drop).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn measure_all(options: &Options, setting: Setting, device: &Arc<Device>) -> Result<Results, CacheError> {
    let variants = options.variants().into_iter();
    let benches = variants.map(|variant| Bench::new(variant, device)).collect::<Result<Vec<_>, _>>()?;
    let words = describe(options, setting, device)?;
    let mut cells: Vec<_> = Kind::ALL
        .into_iter()
        .filter(|kind| options.kinds.contains(kind))
        .flat_map(|kind| {
            options.thread_counts().into_iter().map(move |threads| Cell { kind, threads, rounds: Vec::new() })
        })
        .collect();
    let bar = progress_bar((cells.len() * usize::from(options.rounds)) as u64);
    for number in 0..usize::from(options.rounds) {
        for cell in &mut cells {
            bar.set_message(format!("{}, {} threads", cell.kind.name(), cell.threads));
            cell.rounds.push(round(&benches, cell.kind, cell.threads, options.round(), number)?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    // The waits of the measurements, without those of the log.
    let mut locks = Vec::new();
    for bench in benches.iter().filter(|bench| bench.variant.has_lock()) {
        let wait_times = bench.file.lock().wait_times();
        bench.record(Kind::Mixed, RECORDED_THREADS.min(usize::from(options.threads)), RECORDED)?;
        locks.push(LockWork { variant: bench.variant, wait_times, spans: bench.file.lock().log().spans() });
    }
    Ok(Results { setting, device: words, cells, locks })
}

/// All variants once. Who comes first changes from round to round.
fn round(
    benches: &[Bench],
    kind: Kind,
    threads: usize,
    time: Duration,
    number: usize,
) -> Result<[f64; Variant::ALL.len()], CacheError> {
    let mut rates = [f64::NAN; Variant::ALL.len()];
    for turn in 0..benches.len() {
        let bench = &benches[(turn + number) % benches.len()];
        rates[bench.variant as usize] = bench.measure(kind, threads, time, number as u64)?.per_second();
        bench.file.sync()?; // what one variant left dirty is not the next one's to write
    }
    Ok(rates)
}

/// What the device is, and how long it takes: measured, since a sleep is longer than it is asked to be.
fn describe(options: &Options, setting: Setting, device: &Device) -> Result<String, CacheError> {
    const READS: usize = 50;
    let mut page = PageBuffer::new();
    let mut times = Vec::new();
    for number in 0..READS {
        let began = Instant::now();
        device.read_page(number % device.pages(), &mut page)?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    let takes = median(times);
    Ok(match (setting, device.access()) {
        (Setting::Simulated, _) => format!(
            "Simulated device: memory, and {} µs of sleep added to each read and write;\na read takes {takes:.0} µs.",
            options.latency_us
        ),
        (Setting::File, Access::Direct) => {
            format!("{}, by O_DIRECT, with nothing added:\na read takes {takes:.0} µs.", capital(device.name()))
        }
        (Setting::File, Access::Buffered { because }) => format!(
            "{}, through the kernel's page cache\n({because}),\nwith nothing added: a read takes {takes:.0} µs.",
            capital(device.name())
        ),
    })
}

/// Operations per second, each kind with the fewest and the most threads; last the range lock against the whole-file
/// lock.
fn table(options: &Options, results: &Results) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE);
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    let names = options.variants().into_iter().map(|variant| variant.short().to_owned());
    let head = ["per second".to_owned(), "threads".to_owned()];
    table.set_header(head.into_iter().chain(names).chain(["range/whole".to_owned()]));
    let shown = [1, usize::from(options.threads)];
    for cell in results.cells.iter().filter(|cell| shown.contains(&cell.threads)) {
        let variants = options.variants().into_iter();
        let rates = variants.map(|variant| rate(cell.median(variant)));
        let ratio = format!("{:.2}", cell.ratio(Variant::Range, Variant::Whole));
        let head = [cell.kind.name().to_owned(), cell.threads.to_string()];
        table.add_row(head.into_iter().chain(rates).chain([ratio]));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Three digits of it: 12.3k, 4.56M.
fn rate(number: f64) -> String {
    let (number, unit) = match number {
        number if number >= 1e6 => (number / 1e6, "M"),
        number if number >= 1e3 => (number / 1e3, "k"),
        number => (number, ""),
    };
    let digits = if number >= 100.0 { 0 } else { 2 - usize::from(number >= 10.0) };
    format!("{number:.digits$}{unit}")
}

/// The middle of some numbers; NaN of none.
fn median(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let mut numbers: Vec<_> = numbers.into_iter().collect();
    numbers.sort_by(f64::total_cmp);
    match numbers.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => numbers[count / 2],
        count => f64::midpoint(numbers[count / 2 - 1], numbers[count / 2]),
    }
}

fn capital(words: &str) -> String {
    let mut characters = words.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

fn progress_bar(length: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("[{bar:40}] {pos}/{len} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style.progress_chars("=> "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_three_digits() {
        for (number, text) in
            [(7.0, "7.00"), (999.0, "999"), (86_692.0, "86.7k"), (143_210.0, "143k"), (4.92e6, "4.92M")]
        {
            assert_eq!(rate(number), text);
        }
    }

    #[test]
    fn all_that_is_printed_fits_eighty_columns() {
        let options = Options::parse_from(["compare"]);
        let cells = Kind::ALL.map(|kind| Cell { kind, threads: 16, rounds: vec![[12.3e6; Variant::ALL.len()]] });
        let results =
            Results { setting: Setting::Simulated, device: String::new(), cells: cells.into(), locks: Vec::new() };
        let texts = [table(&options, &results), goals::table(&goals::judge(&options, &[results]))];
        for text in texts.map(|table| table.to_string()).into_iter().chain([RATIO.to_owned()]) {
            assert!(text.lines().all(|line| line.trim_end().chars().count() <= 80), "{text}");
        }
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_found_before_the_run() {
        let folder = std::env::temp_dir().join(format!("spanlock-report-{}", std::process::id()));
        let (file, page) = (folder.join("file"), folder.join("page"));
        fs::create_dir_all(page.join(pictures::PAGE)).unwrap();
        fs::write(&file, "").unwrap();
        // Nor can this be opened, but the run does not come that far.
        let nowhere = Place::Temporary { folder: folder.join("nowhere") };
        for (report, said) in [(&file, "cannot make the folder"), (&page, "cannot write")] {
            let options = Options { report: Some(report.clone()), ..Options::parse_from(["compare"]) };
            let error = run(&options, &nowhere, Access::Direct).err().unwrap().to_string();
            assert!(error.starts_with(said) && error.contains(&*report.to_string_lossy()), "{error}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn every_kind_runs_under_every_variant() {
        let device = Arc::new(Device::open(&Place::Memory, offset_of(2 * PART), Access::Direct).unwrap());
        let benches: Vec<_> = Variant::ALL.iter().map(|&variant| Bench::new(variant, &device).unwrap()).collect();
        for kind in Kind::ALL {
            let rates = round(&benches, kind, 2, Duration::from_millis(2), 1).unwrap();
            assert!(rates.iter().all(|&rate| rate > 0.0), "{kind:?}: {rates:?}");
        }
        // A cached read takes no lock; each of the others does.
        let file = &benches[Variant::Range as usize].file;
        let before = file.waits().requests;
        benches[Variant::Range as usize].measure(Kind::Cached, 2, Duration::from_millis(2), 1).unwrap();
        // Buffered writes and misses left its pages in the cache, but for those that direct writes removed.
        assert!(file.waits().requests - before <= 2 * PART as u64);
    }
}
