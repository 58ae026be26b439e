//! The tables, on the terminal and as Markdown; the pictures; the JSON.

use crate::contests::Kind;
use crate::results::{Outcome, Results};
use crate::series::Series;
use crate::support::chart::{self, Frame, Line};
use crate::support::figures::{align_right, table, table_of_used, used};
use crate::support::machine;
use crate::support::turns::{HEADER, Placement};
use crate::targets;
use comfy_table::Table;
use serde_json::{Value, json};
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Where the figures stand in the page.
const BEGIN: &str = "<!-- figures: written by `cargo bench -p spanlock-bench --bench compare -- --report` -->";
const END: &str = "<!-- end of the figures -->";
/// How cargo is called for this.
const CARGO: &str = "bench -p spanlock-bench --bench compare";

/// One contest, beside its first contender.
fn rows(outcome: &Outcome) -> Vec<[String; HEADER.len()]> {
    let (first, contest) = (&outcome.rows[0], &outcome.contest);
    outcome.rows.iter().map(|row| row.cells(first, contest.threads, contest.kind.tells_rate())).collect()
}

fn header(first: String) -> [String; HEADER.len()] {
    let mut header = HEADER.map(str::to_owned);
    header[0] = first;
    header
}

pub(crate) fn contest(outcome: &Outcome) -> Table {
    align_right(table_of_used(&header(outcome.contest.name()), &rows(outcome)), 1..HEADER.len())
}

/// Seconds that a series is told by.
const SECONDS: [usize; 6] = [1, 2, 5, 10, 30, 60];

/// What became of it: nanoseconds of each contender, and nodes.
fn moments(series: &Series) -> Vec<Vec<String>> {
    let told = SECONDS.into_iter().filter(|&second| second <= series.nodes.len());
    let line = |second: usize| {
        let nanos = series.rows.iter().map(move |row| format!("{:.1}", row.turns[second - 1].nanos));
        let cells = std::iter::once(second.to_string()).chain(nanos);
        cells.chain([series.nodes[second - 1].to_string()]).collect()
    };
    told.map(line).collect()
}

fn moments_header(first: String, series: &Series) -> Vec<String> {
    let names = series.rows.iter().map(|row| format!("{}, ns", row.contender));
    std::iter::once(first).chain(names).chain(["nodes".to_owned()]).collect()
}

pub(crate) fn series(series: &Series) -> Table {
    let header = moments_header(format!("{}: second", Series::name(series.pattern)), series);
    align_right(table_of_used(&header, &moments(series)), 1..usize::MAX)
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

/// What was measured of it; the page tells of the rest, too.
pub(crate) fn targets(results: &Results) -> Table {
    let mut table = table(VERDICTS);
    let measured = verdicts(results).into_iter().filter(|row| results.testing || !row[2].is_empty());
    measured.for_each(|row| _ = table.add_row(row));
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
                "pairs_a_second": row.rate().middle,
                "passed_a_second": row.passed().map(|passed| passed.middle),
                "whole_file_nanos": row.whole().map(|whole| whole.middle),
                "nodes": row.nodes,
            })
        });
        json!({
            "contest": outcome.contest.kind.name(),
            "bound": outcome.contest.placement == Placement::Bound,
            outcome.contest.kind.axis(): outcome.contest.number,
            "element": outcome.contest.kind.describe(),
            "contenders": rows.collect::<Vec<_>>(),
        })
    });
    let series = results.series.iter().map(|series| {
        let rows = series.rows.iter().map(|row| {
            let nanos: Vec<f64> = row.turns.iter().map(|turn| turn.nanos).collect();
            json!({ "contender": row.contender, "nanos": nanos })
        });
        json!({
            "contest": Series::name(series.pattern),
            "contenders": rows.collect::<Vec<_>>(),
            "nodes": series.nodes,
        })
    });
    let (contests, series): (Vec<Value>, Vec<Value>) = (contests.collect(), series.collect());
    let all = json!({ "machine": machine, "contests": contests, "series": series });
    fs::write(path, serde_json::to_string_pretty(&all)? + "\n")?;
    println!("written: {}", path.display());
    Ok(())
}

/// A picture for each kind of contest that was run at several numbers of threads, or sizes.
pub(crate) fn pictures(folder: &Path, results: &Results) -> Result<Vec<(Kind, String)>, Box<dyn Error>> {
    let (mut written, origin) = (Vec::new(), machine::origin(CARGO));
    for kind in results.kinds() {
        let is_free = |outcome: &&Outcome| outcome.contest.placement == Placement::Free;
        let outcomes: Vec<&Outcome> = results.of_kind(kind).filter(is_free).collect();
        // Those of threads without a home are many, and have denser tables.
        if outcomes.len() < 2 || matches!(kind, Kind::Levels | Kind::Roaming(_)) {
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
        let caption = format!("{}: an acquire and its release", kind.name());
        let base = if kind.axis() == "held" { 10.0 } else { 2.0 };
        let frame =
            Frame { caption: &caption, x: kind.axis(), y: "ns a pair", base, foot: lowest / 2.0, origin: &origin };
        let words = kind.name().replace(['%', ','], "");
        let file = words.split_whitespace().collect::<Vec<_>>().join("-") + ".svg";
        chart::draw(&folder.join(&file), frame, &lines)?;
        written.push((kind, file));
    }
    Ok(written)
}

const SPEED_OVER_TIME: &str = "scattered-speed-over-a-minute.svg";
const NODES_OVER_TIME: &str = "scattered-nodes-over-a-minute.svg";

/// Speed and nodes over time; nothing, if no series was run.
pub(crate) fn pictures_of_series(folder: &Path, results: &Results) -> Result<(), Box<dyn Error>> {
    let over_time = |values: &mut dyn Iterator<Item = f64>| (1..).map(f64::from).zip(values).collect::<Vec<_>>();
    let (mut speeds, mut nodes): (Vec<Line>, Vec<Line>) = (Vec::new(), Vec::new());
    for series in &results.series {
        for row in &series.rows {
            let name = format!("{}, {}", row.contender, series.pattern.name());
            speeds.push((name, over_time(&mut row.turns.iter().map(|turn| 1e3 / turn.nanos))));
        }
        nodes.push((series.pattern.name(), over_time(&mut series.nodes.iter().map(|&nodes| nodes as f64))));
    }
    if results.series.is_empty() {
        return Ok(());
    }
    let origin = machine::origin(CARGO);
    let frame = Frame { caption: "", x: "seconds", y: "", base: 2.0, foot: 1.0, origin: &origin };
    let caption = "two threads at random pages: millions of pairs a second";
    chart::draw(&folder.join(SPEED_OVER_TIME), Frame { caption, y: "10^6 pairs/s", foot: 0.1, ..frame }, &speeds)?;
    let caption = "two threads at random pages: nodes on the heap";
    chart::draw(&folder.join(NODES_OVER_TIME), Frame { caption, y: "nodes", ..frame }, &nodes)
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
    pictures_of_series(&folder.join("benchmarks"), results)?;
    let mut figures = String::new();
    let words: Vec<String> = machine
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}: {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect();
    writeln!(figures, "\n{}.\n\n## What was asked\n", words.join("; "))?;
    markdown(&mut figures, &VERDICTS.map(str::to_owned), &verdicts(results))?;
    for kind in results.kinds() {
        writeln!(figures, "\n## {}\n\nOne element: {}.", capital(&kind.name()), kind.describe())?;
        if let Some((_, file)) = pictures.iter().find(|(of, _)| *of == kind) {
            writeln!(figures, "\n![{}](benchmarks/{file})", kind.name())?;
        }
        let outcomes: Vec<&Outcome> = results.of_kind(kind).collect();
        if matches!(kind, Kind::Roaming(_)) {
            writeln!(figures, "Nanoseconds; the last columns are this lock's.\n")?;
            let (header, rows) = dense(&outcomes);
            markdown(&mut figures, &header, &rows)?;
            continue;
        }
        for outcome in outcomes {
            let name = format!("{} {}{}", outcome.contest.number, kind.axis(), outcome.contest.placement.suffix());
            writeln!(figures)?;
            markdown(&mut figures, &header(name), &rows(outcome))?;
        }
    }
    if let [first, ..] = &results.series[..] {
        writeln!(figures, "\n## A minute of random pages\n\nTwo threads, empty sections, a second each in turns.\n")?;
        writeln!(figures, "![speed](benchmarks/{SPEED_OVER_TIME})\n![nodes](benchmarks/{NODES_OVER_TIME})\n")?;
        let named = |series: &Series| {
            let name = |mut cells: Vec<String>| {
                cells.insert(0, series.pattern.name());
                cells
            };
            moments(series).into_iter().map(name).collect::<Vec<_>>()
        };
        let mut header = moments_header("second".to_owned(), first);
        header.insert(0, "file".to_owned());
        markdown(&mut figures, &header, &results.series.iter().flat_map(named).collect::<Vec<_>>())?;
    }
    fs::write(&path, format!("{head}{BEGIN}\n{figures}\n{END}{tail}"))?;
    println!("written: {}", path.display());
    Ok(())
}

/// The contests of one kind in one table: times of all, and what else there is to tell of the first.
fn dense(outcomes: &[&Outcome]) -> (Vec<String>, Vec<Vec<String>>) {
    /// Columns of [`HEADER`] from here on are told of the first.
    const REST: usize = 4;
    let names = outcomes[0].rows.iter().map(|row| row.contender.clone());
    let rest = HEADER[REST..].iter().map(|&title| title.to_owned());
    let header = std::iter::once("threads".to_owned()).chain(names).chain(rest);
    let line = |outcome: &&Outcome| {
        let contest = &outcome.contest;
        let all = rows(outcome);
        let times = all.iter().map(|cells| cells[1].clone());
        let cells = std::iter::once(format!("{}{}", contest.number, contest.placement.suffix())).chain(times);
        cells.chain(all[0][REST..].iter().cloned()).collect()
    };
    (header.collect(), outcomes.iter().map(line).collect())
}

/// A table without its empty columns.
fn markdown(out: &mut String, header: &[String], rows: &[impl AsRef<[String]>]) -> std::fmt::Result {
    let used = used(header.len(), rows);
    let line = |cells: &[String]| {
        format!("| {} |", used.iter().map(|&column| &*cells[column]).collect::<Vec<_>>().join(" | "))
    };
    writeln!(out, "{}", line(header))?;
    writeln!(out, "{}", line(&vec!["---".to_owned(); header.len()]))?;
    rows.iter().try_for_each(|row| writeln!(out, "{}", line(row.as_ref())))
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
