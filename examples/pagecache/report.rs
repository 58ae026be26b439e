//! What is said before the run and after it.

use std::fmt;
use std::io::{self, Write};

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};

use crate::device::{Access, Device};
use crate::file_lock::Variant;
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
    say(format_args!("A page cache over {}. Pages: {pages}; threads: {threads}.", device.name()));
    match device.access() {
        Access::Direct => {
            say(format_args!("The disk is read and written by O_DIRECT, in units of {} bytes.", device.unit()));
        }
        Access::Buffered { because } => say(format_args!(
            "The disk is read and written through the kernel's page cache: {because}.\n\
             The races are the same; the times say little about disks."
        )),
    }
    say(format_args!("Operations in percent: {}; seed {}.", options.mix, options.seed));
    if options.pause.is_zero() {
        say(format_args!("No pauses where the races are."));
    } else {
        say(format_args!("Pauses of {} µs where the races are, under each lock alike.", options.pause.as_micros()));
    }
    let seconds = options.seconds_each().as_secs_f64();
    say(format_args!("Each of {} variants runs for {seconds:.1} seconds.\n", options.variants().len()));
}

/// Prints the table, some of what was found, and the verdict.
pub(crate) fn conclude(options: &Options, outcomes: &[Outcome]) -> Verdict {
    say(format_args!("{}\n", table(outcomes)));
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
    if verdicts.contains(&Verdict::NotAsPromised) { Verdict::NotAsPromised } else { Verdict::AsPromised }
}

/// Prints a line. Whoever closes the pipe early wants no more of it, and the exit code
/// still says the rest; `println!` would panic.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
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
                "{name} showed nothing stale this time, so there was nothing for a lock to \
                 prevent.\nTry more --threads, more --seconds or a longer --pause."
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

/// One line of the table: its name, and what to say of an outcome.
type Line = (&'static str, fn(&Outcome) -> String);

const LINES: [Line; 19] = [
    ("operations per second", |o| rate(o, o.tally.operations())),
    ("  cached reads, hits", |o| rate(o, o.tally.hits)),
    ("  cached reads, misses", |o| rate(o, o.tally.misses)),
    ("  buffered writes", |o| rate(o, o.tally.buffered)),
    ("  direct writes", |o| rate(o, o.tally.direct)),
    ("  truncates", |o| rate(o, o.tally.truncates)),
    ("pages written back per second", |o| rate(o, o.tally.written_back)),
    EMPTY_LINE,
    ("lock requests", |o| of_lock(o, grouped(o.tally.waits.requests))),
    ("  that had to wait", |o| of_lock(o, grouped(o.tally.waits.waited))),
    ("  for, on average", |o| of_lock(o, average_wait(o))),
    EMPTY_LINE,
    ("stale reads", |o| grouped(o.faults.stale)),
    ("  that missed a completed write", |o| grouped(o.faults.missed)),
    ("  that went backwards", |o| grouped(o.faults.backwards)),
    ("reads of torn or foreign sectors", |o| grouped(o.faults.broken)),
    ("pages behind the end of the file", |o| grouped(o.faults.behind_the_end)),
    ("at the end: pages unlike the disk", |o| grouped(o.faults.differs)),
    ("at the end: sectors lost", |o| grouped(o.faults.lost)),
];

const EMPTY_LINE: Line = ("", |_| String::new());

/// A line under the header, and nothing else.
pub(crate) const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

fn table(outcomes: &[Outcome]) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE);
    table.set_content_arrangement(ContentArrangement::Disabled);
    let names = outcomes.iter().map(|outcome| outcome.variant.name().to_owned());
    table.set_header(std::iter::once(String::new()).chain(names));
    for (name, value) in LINES {
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
    format!("{} µs", grouped(clamp(microseconds)))
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

    #[test]
    fn digits_come_in_groups_of_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1 000"), (1_234_567, "1 234 567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
