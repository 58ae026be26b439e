//! The tables, on the terminal and as Markdown; the pictures; the JSON.

use crate::contests::Kind;
use crate::results::{Outcome, Results};
use crate::support::chart::{self, Frame, Line};
use crate::support::figures::{align_right, table, table_of_used, used};
use crate::support::turns::HEADER;
use crate::targets;
use comfy_table::Table;
use serde_json::{Value, json};
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Where the figures stand in the page.
const BEGIN: &str = "<!-- figures: written by `cargo bench --bench compare -- --report` -->";
const END: &str = "<!-- end of the figures -->";

/// One contest, beside its first contender.
fn rows(outcome: &Outcome) -> Vec<[String; HEADER.len()]> {
    outcome.rows.iter().map(|row| row.cells(&outcome.rows[0], outcome.contest.threads)).collect()
}

fn header(first: String) -> [String; HEADER.len()] {
    let mut header = HEADER.map(str::to_owned);
    header[0] = first;
    header
}

pub(crate) fn contest(outcome: &Outcome) -> Table {
    align_right(table_of_used(header(outcome.contest.name()), rows(outcome)), 1..HEADER.len())
}

fn verdicts(results: &Results) -> Vec<[String; 5]> {
    let row = |target: targets::Target| {
        let (measured, interval, verdict) = match target.figure(results) {
            Some(figure) if !results.testing => (
                format!("{:.2}", figure.middle),
                format!("{:.2} to {:.2}", figure.low, figure.high),
                target.limit.verdict(figure),
            ),
            _ => (String::new(), String::new(), "not measured"),
        };
        [target.what.clone(), target.limit.text(), measured, interval, verdict.to_owned()]
    };
    targets::all().into_iter().map(row).collect()
}

const VERDICTS: [&str; 5] = ["target", "asked", "measured", "95 %", ""];

pub(crate) fn targets(results: &Results) -> Table {
    let mut table = table(VERDICTS);
    verdicts(results).into_iter().for_each(|row| _ = table.add_row(row));
    align_right(table, 2..4)
}

pub(crate) fn json(path: &Path, results: &Results, machine: &Value) -> Result<(), Box<dyn Error>> {
    let contests = results.outcomes.iter().map(|outcome| {
        let rows = outcome.rows.iter().map(|row| {
            let rounds: Vec<f64> = row.turns.iter().map(|turn| turn.nanos).collect();
            json!({
                "contender": row.contender,
                "nanos": rounds,
                "median": row.nanos().middle,
                "jain": row.jain().middle,
                "longest_wait_nanos": row.longest(),
            })
        });
        json!({
            "contest": outcome.contest.kind.name(),
            outcome.contest.kind.axis(): outcome.contest.number,
            "element": outcome.contest.kind.describe(),
            "contenders": rows.collect::<Vec<_>>(),
        })
    });
    let all = json!({ "machine": machine, "contests": contests.collect::<Vec<_>>() });
    fs::write(path, serde_json::to_string_pretty(&all)? + "\n")?;
    println!("written: {}", path.display());
    Ok(())
}

/// A picture for each kind of contest that was run at several numbers of threads, or sizes.
pub(crate) fn pictures(folder: &Path, results: &Results) -> Result<Vec<(Kind, String)>, Box<dyn Error>> {
    let mut written = Vec::new();
    for kind in results.kinds() {
        let outcomes: Vec<&Outcome> = results.outcomes.iter().filter(|outcome| outcome.contest.kind == kind).collect();
        if outcomes.len() < 2 || kind == Kind::Levels {
            continue;
        }
        let line = |name: &str| -> Line {
            let point = |outcome: &&Outcome| {
                let row = outcome.rows.iter().find(|row| row.contender == name)?;
                Some((outcome.contest.number as f64, row.nanos().middle))
            };
            (name.to_owned(), outcomes.iter().filter_map(point).collect())
        };
        let lines: Vec<Line> = outcomes[0].rows.iter().map(|row| line(&row.contender)).collect();
        let lowest = lines.iter().flat_map(|(_, points)| points).map(|(_, y)| *y).fold(f64::INFINITY, f64::min);
        let caption = format!("{}: nanoseconds for a pair", kind.name());
        let base = if kind.axis() == "held" { 10.0 } else { 2.0 };
        let frame = Frame { caption: &caption, x: kind.axis(), y: "ns", base, foot: lowest / 2.0 };
        let words = kind.name().replace(['%', ','], "");
        let file = words.split_whitespace().collect::<Vec<_>>().join("-") + ".svg";
        chart::draw(&folder.join(&file), frame, &lines)?;
        written.push((kind, file));
    }
    Ok(written)
}

/// Puts the figures into `benchmarks.md` of the folder, between the marks, and the pictures beside it.
pub(crate) fn page(folder: &Path, results: &Results, machine: &Value) -> Result<(), Box<dyn Error>> {
    let path = folder.join("benchmarks.md");
    let text = fs::read_to_string(&path).unwrap_or_else(|_| format!("# Benchmarks\n\n{BEGIN}\n{END}\n"));
    let Some((head, rest)) = text.split_once(BEGIN) else {
        return Err(format!("{} has no line {BEGIN}", path.display()).into());
    };
    let (_, tail) = rest.split_once(END).ok_or_else(|| format!("{} has no line {END}", path.display()))?;
    let pictures = pictures(&folder.join("benchmarks"), results)?;
    let mut figures = String::new();
    let words: Vec<String> = machine
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}: {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect();
    writeln!(figures, "\n{}.\n\n## What was asked\n", words.join("; "))?;
    markdown(&mut figures, VERDICTS.map(str::to_owned), verdicts(results))?;
    for kind in results.kinds() {
        writeln!(figures, "\n## {}\n\nOne element: {}.", capital(&kind.name()), kind.describe())?;
        if let Some((_, file)) = pictures.iter().find(|(of, _)| *of == kind) {
            writeln!(figures, "\n![{}](benchmarks/{file})", kind.name())?;
        }
        for outcome in results.outcomes.iter().filter(|outcome| outcome.contest.kind == kind) {
            let header = header(format!("{} {}", outcome.contest.number, kind.axis()));
            writeln!(figures)?;
            markdown(&mut figures, header, rows(outcome))?;
        }
    }
    fs::write(&path, format!("{head}{BEGIN}\n{figures}\n{END}{tail}"))?;
    println!("written: {}", path.display());
    Ok(())
}

/// A table without its empty columns.
fn markdown<const N: usize>(out: &mut String, header: [String; N], rows: Vec<[String; N]>) -> std::fmt::Result {
    let used = used(&rows);
    let line = |cells: &[String; N]| {
        format!("| {} |", used.iter().map(|&column| &*cells[column]).collect::<Vec<_>>().join(" | "))
    };
    writeln!(out, "{}", line(&header))?;
    writeln!(out, "{}", line(&std::array::from_fn(|_| "---".to_owned())))?;
    rows.iter().try_for_each(|row| writeln!(out, "{}", line(row)))
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
