//! What is said before the run and after it.

use std::fmt;
use std::io::{self, Write};

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use spanlock_pagecache::device::{Access, Device};
use spanlock_pagecache::file_lock::Variant;

use crate::load::Outcome;
use crate::options::Options;

/// Whether the demonstration showed what it is there to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    AsPromised,
    NotAsPromised,
}

/// Says what is going to be run.
pub(crate) fn introduce(options: &Options, device: &Device) {
    let threads = options.threads;
    let pages = device.pages();
    say(format_args!(
        "A page cache over {}.\nPages: {pages}; threads: {threads}; seed {}.",
        device.name(),
        options.seed
    ));
    match device.access() {
        Access::Direct => {
            say(format_args!("The disk is read and written by O_DIRECT, in units of {} bytes.", device.unit()));
        }
        Access::Buffered { because } => say(format_args!(
            "The disk is read and written through the kernel's page cache:\n{because}.\n\
             The races are the same; the times say little about disks."
        )),
    }
    say(format_args!("Operations in percent: {}.", options.mix));
    if options.pause.is_zero() {
        say(format_args!("No pauses where the races are."));
    } else {
        say(format_args!("Pauses of {} µs where the races are, under each lock alike.", options.pause.as_micros()));
    }
    let seconds = options.seconds_each().as_secs_f64();
    say(format_args!("Each of {} variants runs for {seconds:.1} seconds.\n", options.variants().len()));
}

/// Prints the tables, some of what was found, the verdict, and what it means.
pub(crate) fn conclude(options: &Options, outcomes: &[Outcome]) -> Verdict {
    say(format_args!("{}\n", table("operations per second", &RATES, outcomes)));
    say(format_args!("{}\n", table("found in the whole run", &FOUND, outcomes)));
    for outcome in outcomes {
        if !outcome.faults.examples.is_empty() {
            say(format_args!("Found under {}, among others:", outcome.variant.name()));
            for example in &outcome.faults.examples {
                say(format_args!("  {example}"));
            }
            say(format_args!(""));
        }
    }
    // All of them, so that each variant has its say.
    let verdicts: Vec<_> = outcomes.iter().map(|outcome| judge(options, outcome)).collect();
    say(format_args!("\n{}", meaning(outcomes)));
    if verdicts.contains(&Verdict::NotAsPromised) { Verdict::NotAsPromised } else { Verdict::AsPromised }
}

/// Prints a line. Whoever closes the pipe early wants no more of it, and the exit code
/// still says the rest; `println!` would panic.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// What a reader of the tables should take home.
fn meaning(outcomes: &[Outcome]) -> String {
    let of = |variant| outcomes.iter().find(|outcome: &&Outcome| outcome.variant == variant);
    let per_second = |outcome: &Outcome| outcome.tally.operations() as f64 / outcome.time.as_secs_f64();
    let mut text = String::from(
        "A stale read gave bytes that had been overwritten before it began: whoever wrote\n\
         them, and was told so, reads the old ones, and so does everybody until the page\n\
         happens to leave the cache. Nothing reports it.",
    );
    if let (Some(whole), Some(range)) = (of(Variant::Whole), of(Variant::Range)) {
        let times = per_second(range) / per_second(whole);
        text += &format!("\nBoth locks prevent it. The range lock does {times:.2} times as much as the\n");
        text += "whole-file lock, because only those wait who want the same pages";
        if let Some(none) = of(Variant::None) {
            let percent = 100.0 * per_second(range) / per_second(none);
            text += &format!(";\nthat is {percent:.0} % of what is done, wrongly, without a lock");
        }
        text += ".";
    }
    text
}

/// Judges one variant, and says so.
fn judge(options: &Options, outcome: &Outcome) -> Verdict {
    let name = outcome.variant.name();
    let faults = &outcome.faults;
    match outcome.variant {
        Variant::None if faults.stale + faults.differs > 0 => {
            say(format_args!("ok: {name} showed stale data, as it must."));
            Verdict::AsPromised
        }
        Variant::None => {
            say(format_args!(
                "{name} showed nothing stale this time: nothing for a lock to prevent.\n\
                 Try more --threads, more --seconds or a longer --pause."
            ));
            if options.accept_no_stale { Verdict::AsPromised } else { Verdict::NotAsPromised }
        }
        Variant::Twice | Variant::Rwsem | Variant::Note if faults.total() > 0 => {
            say(format_args!("ok: {name} showed {} faults, as it may.", faults.total()));
            Verdict::AsPromised
        }
        Variant::Twice | Variant::Rwsem | Variant::Note => {
            say(format_args!("{name} showed nothing this time; its races are narrower."));
            Verdict::AsPromised
        }
        Variant::Whole | Variant::Range | Variant::Lean if faults.total() > 0 => {
            say(format_args!("WRONG: the {name} let {} faults through.", faults.total()));
            Verdict::NotAsPromised
        }
        Variant::Whole | Variant::Range | Variant::Lean => {
            say(format_args!("ok: the {name} showed no stale data."));
            Verdict::AsPromised
        }
    }
}

/// One line of a table: its name, and what to say of an outcome.
type Line = (&'static str, fn(&Outcome) -> String);

/// All of them per second, but for the last.
const RATES: [Line; 10] = [
    ("all operations", |o| rate(o, o.tally.operations())),
    ("  cached reads, hits", |o| rate(o, o.tally.hits)),
    ("  cached reads, misses", |o| rate(o, o.tally.misses)),
    ("  buffered writes", |o| rate(o, o.tally.buffered)),
    ("  direct writes", |o| rate(o, o.tally.direct)),
    ("  truncates", |o| rate(o, o.tally.truncates)),
    ("pages written back", |o| rate(o, o.tally.written_back)),
    ("lock requests", |o| of_lock(o, rate(o, o.tally.waits.requests))),
    ("  that had to wait", |o| of_lock(o, rate(o, o.tally.waits.waited))),
    ("  for, on average, µs", |o| of_lock(o, average_wait(o))),
];

/// Totals.
const FOUND: [Line; 8] = [
    ("reads", |o| grouped(o.tally.hits + o.tally.misses)),
    ("  stale", |o| grouped(o.faults.stale)),
    ("  missed a whole write", |o| grouped(o.faults.missed)),
    ("  went backwards", |o| grouped(o.faults.backwards)),
    ("torn or foreign", |o| grouped(o.faults.broken)),
    ("pages behind the end", |o| grouped(o.faults.behind_the_end)),
    ("at end: unlike the disk", |o| grouped(o.faults.differs)),
    ("at end: sectors lost", |o| grouped(o.faults.lost)),
];

/// A line under the header, and nothing else.
pub(crate) const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

fn table(what: &str, lines: &[Line], outcomes: &[Outcome]) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE);
    table.set_content_arrangement(ContentArrangement::Disabled);
    let names = outcomes.iter().map(|outcome| outcome.variant.short().to_owned());
    table.set_header(std::iter::once(what.to_owned()).chain(names));
    for &(name, value) in lines {
        table.add_row(std::iter::once(name.to_owned()).chain(outcomes.iter().map(value)));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn rate(outcome: &Outcome, count: u64) -> String {
    let rate = count as f64 / outcome.time.as_secs_f64();
    if count > 0 && rate < 10.0 { format!("{rate:.1}") } else { grouped(rate.round() as u64) }
}

/// A dash where there is no lock.
fn of_lock(outcome: &Outcome, text: String) -> String {
    if outcome.variant.has_lock() { text } else { "-".to_owned() }
}

fn average_wait(outcome: &Outcome) -> String {
    let waits = outcome.tally.waits;
    if waits.waited == 0 {
        return "-".to_owned();
    }
    let microseconds = waits.time.as_micros() / u128::from(waits.waited);
    grouped(clamp(microseconds))
}

fn clamp(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Tally;
    use spanlock_pagecache::checker::Faults;
    use std::time::Duration;

    #[test]
    fn all_that_is_printed_fits_eighty_columns() {
        let outcomes = [Variant::None, Variant::Twice, Variant::Whole, Variant::Range].map(|variant| Outcome {
            variant,
            time: Duration::from_secs(1),
            tally: Tally { hits: 12_345_678, misses: 123_456, ..Tally::default() },
            faults: Faults { stale: 123_456, ..Faults::default() },
        });
        let tables =
            [table("operations per second", &RATES, &outcomes), table("found in the whole run", &FOUND, &outcomes)];
        for text in tables.map(|table| table.to_string()).into_iter().chain([meaning(&outcomes)]) {
            assert!(text.lines().all(|line| line.trim_end().chars().count() <= 80), "{text}");
        }
    }

    #[test]
    fn digits_come_in_groups_of_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1 000"), (1_234_567, "1 234 567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
