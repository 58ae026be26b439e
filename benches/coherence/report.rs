//! The tables on the terminal, and the pictures.

use crate::Run;
use crate::chart::{self, Frame, Line};
use crate::cpus::Tally;
use crate::figures;
use crate::machine;
use crate::per_pair;
use crate::rivals::Kind;
use crate::sites::Site;
use crate::workloads::Workload;
use comfy_table::Table;
use std::error::Error;
use std::path::Path;

/// Transfers at the foot of a logarithmic axis: fewer are drawn there.
const FOOT: f64 = 0.001;

pub(crate) fn print(workload: Workload, runs: &[Run]) {
    println!("\n{}: {}", workload.name(), workload.describe());
    println!("Transfers per pair after warm-up / first pairs: the lock's lines.");
    let sizes = sizes(runs);
    let mut header = vec!["lock".to_string()];
    header.extend(sizes.iter().map(|cpus| format!("{cpus} CPUs")));
    let mut table = figures::table(header);
    for kind in kinds(runs) {
        let cells = runs.iter().filter(|run| run.kind == kind).map(|run| {
            let first = per_pair(&run.tallies[0], |site| !site.is_epoch());
            format!("{} / {}", figure(run.transfers()), figure(first))
        });
        table.add_row(std::iter::once(kind.name().to_string()).chain(cells));
    }
    println!("{}", right(table));
    println!("spanlock after warm-up, by line: transfers (misses) per pair.");
    print_sites(runs);
    println!(
        "spanlock from the start: transfers of its lines per pair (nodes made in 1000 pairs), by how many pairs each CPU has made."
    );
    print_phases(runs);
    print_asked(runs);
}

/// What is asked where CPUs have no home.
fn print_asked(runs: &[Run]) {
    for (what, holds) in runs.iter().flat_map(|run| Run::asked(std::slice::from_ref(run))) {
        println!("{} {what}", if holds { "reached" } else { "MISSED " });
    }
}

/// How long this lock takes to find its shape.
fn print_phases(runs: &[Run]) {
    let own: Vec<&Run> = runs.iter().filter(|run| run.kind == Kind::Spanlock).collect();
    let mut header = vec!["pairs".to_string()];
    header.extend(own.iter().map(|run| format!("{} CPUs", run.cpus)));
    let mut table = figures::table(header);
    // The shorter ones are the longest one's beginning.
    let longest = own.iter().max_by_key(|run| run.tallies.len());
    let mut end = 0;
    for (phase, tally) in longest.iter().flat_map(|run| &run.tallies).enumerate() {
        let start = end;
        end += tally.pairs as usize / longest.map_or(1, |run| run.cpus);
        let cell = |tally: &Tally| {
            let transfers = figure(per_pair(tally, |site| !site.is_epoch()));
            format!("{transfers} ({})", figure(tally.nodes_made_in_1000()))
        };
        let cells = own.iter().map(|run| run.tallies.get(phase).map_or_else(String::new, cell));
        table.add_row(std::iter::once(format!("{start}..{end}")).chain(cells));
    }
    if own.iter().any(|run| run.nodes.is_some()) {
        let nodes = own.iter().map(|run| run.nodes.map_or_else(String::new, |nodes| nodes.to_string()));
        table.add_row(std::iter::once("nodes at the end".to_string()).chain(nodes));
    }
    println!("{}", right(table));
}

/// What the transfers of this lock were on.
fn print_sites(runs: &[Run]) {
    let own: Vec<&Run> = runs.iter().filter(|run| run.kind == Kind::Spanlock).collect();
    let mut sites: Vec<Site> = own.iter().flat_map(|run| run.settled().by_site.keys().copied()).collect();
    sites.sort_unstable();
    sites.dedup();
    let mut header = vec!["line".to_string()];
    header.extend(own.iter().map(|run| format!("{} CPUs", run.cpus)));
    let mut table = figures::table(header);
    for site in sites {
        let cells = own.iter().map(|run| cell(run.settled(), |other| other == site));
        table.add_row(std::iter::once(site.to_string()).chain(cells));
    }
    table.add_row(std::iter::once("all".to_string()).chain(own.iter().map(|run| cell(run.settled(), |_| true))));
    println!("{}", right(table));
}

fn cell(tally: &Tally, counted: impl Fn(Site) -> bool) -> String {
    let counts = tally.sum(counted);
    if counts.accesses == 0 {
        return String::new();
    }
    let pairs = tally.pairs as f64;
    format!("{} ({})", figure(counts.transfers as f64 / pairs), figure(counts.misses as f64 / pairs))
}

fn figure(number: f64) -> String {
    match number {
        0.0 => "0".to_string(),
        0.1.. => format!("{number:.2}"),
        _ => format!("{number:.4}"),
    }
}

fn right(table: Table) -> Table {
    figures::align_right(table, 1..usize::MAX)
}

fn sizes(runs: &[Run]) -> Vec<usize> {
    let mut sizes: Vec<usize> = runs.iter().map(|run| run.cpus).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

fn kinds(runs: &[Run]) -> Vec<Kind> {
    Kind::ALL.into_iter().filter(|&kind| runs.iter().any(|run| run.kind == kind)).collect()
}

/// Transfers per pair over CPUs, both logarithmic.
pub(crate) fn plot(folder: &Path, workload: Workload, runs: &[Run]) -> Result<(), Box<dyn Error>> {
    let words = workload.name().replace(',', "");
    let path = folder.join(format!("coherence-{}.svg", words.replace(' ', "-")));
    let caption = format!("{}: transfers per acquire and release, after warm-up", workload.name());
    let origin =
        format!("simulated; {}; {}", machine::today(), machine::command("bench -p spanlock-bench --bench coherence"));
    let frame =
        Frame { caption: &caption, x: "CPUs", y: "transfers of a line", base: 2.0, foot: FOOT, origin: &origin };
    let line = |kind: Kind| {
        let runs = runs.iter().filter(|run| run.kind == kind);
        (kind.name().to_string(), runs.map(|run| (run.cpus as f64, run.transfers())).collect())
    };
    let lines: Vec<Line> = kinds(runs).into_iter().map(line).collect();
    chart::draw(&path, frame, &lines)
}
