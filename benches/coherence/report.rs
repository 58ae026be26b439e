//! The tables on the terminal, and the pictures.

use crate::cpus::Tally;
use crate::rivals::Kind;
use crate::sites::Site;
use crate::workloads::Workload;
use crate::{Run, per_pair};
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use plotters::prelude::*;
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
    let mut table = table(header);
    for kind in kinds(runs) {
        let cells = runs.iter().filter(|run| run.kind == kind).map(|run| {
            let first = per_pair(&run.tallies[0], |site| !site.is_epoch());
            format!("{} / {}", figure(run.transfers()), figure(first))
        });
        table.add_row(std::iter::once(kind.name().to_string()).chain(cells));
    }
    println!("{table}");
    println!("spanlock after warm-up, by line: transfers (misses) per pair.");
    print_sites(runs);
    println!("spanlock from the start: transfers of its lines per pair, by how many pairs each CPU has made.");
    print_phases(runs);
}

/// How long this lock takes to find its shape.
fn print_phases(runs: &[Run]) {
    let own: Vec<&Run> = runs.iter().filter(|run| run.kind == Kind::Spanlock).collect();
    let mut header = vec!["pairs".to_string()];
    header.extend(own.iter().map(|run| format!("{} CPUs", run.cpus)));
    let mut table = table(header);
    let mut end = 0;
    for phase in 0..own.iter().map(|run| run.tallies.len()).min().unwrap_or(0) {
        let start = end;
        end += own[0].tallies[phase].pairs as usize / own[0].cpus;
        let cells = own.iter().map(|run| figure(per_pair(&run.tallies[phase], |site| !site.is_epoch())));
        table.add_row(std::iter::once(format!("{start}..{end}")).chain(cells));
    }
    println!("{table}");
}

/// What the transfers of this lock were on.
fn print_sites(runs: &[Run]) {
    let own: Vec<&Run> = runs.iter().filter(|run| run.kind == Kind::Spanlock).collect();
    let mut sites: Vec<Site> = own.iter().flat_map(|run| run.settled().by_site.keys().copied()).collect();
    sites.sort_unstable();
    sites.dedup();
    let mut header = vec!["line".to_string()];
    header.extend(own.iter().map(|run| format!("{} CPUs", run.cpus)));
    let mut table = table(header);
    for site in sites {
        let cells = own.iter().map(|run| cell(run.settled(), |other| other == site));
        table.add_row(std::iter::once(site.to_string()).chain(cells));
    }
    table.add_row(std::iter::once("all".to_string()).chain(own.iter().map(|run| cell(run.settled(), |_| true))));
    println!("{table}");
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

fn table(header: Vec<String>) -> Table {
    /// A line under the header, and nothing else.
    const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));
    let mut table = Table::new();
    table.load_style(STYLE);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
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
    std::fs::create_dir_all(folder)?;
    let path = folder.join(format!("coherence-{}.svg", workload.name()));
    let most = runs.iter().map(|run| run.transfers()).fold(1.0, f64::max);
    let cpus = sizes(runs).last().copied().unwrap_or(1).max(2) as f64;
    let root = SVGBackend::new(&path, (800, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let caption = format!("{}: transfers per acquire and release, after warm-up", workload.name());
    let mut chart = ChartBuilder::on(&root)
        .caption(caption, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((1.0..cpus).log_scale().base(2.0), (FOOT..2.0 * most).log_scale())?;
    chart.configure_mesh().x_desc("CPUs").y_desc("transfers").x_label_formatter(&|cpus| format!("{cpus:.0}")).draw()?;
    for (index, kind) in kinds(runs).into_iter().enumerate() {
        let colour = Palette99::pick(index).stroke_width(2);
        let points: Vec<(f64, f64)> = runs
            .iter()
            .filter(|run| run.kind == kind)
            .map(|run| (run.cpus as f64, run.transfers().max(FOOT)))
            .collect();
        chart
            .draw_series(LineSeries::new(points, colour).point_size(3))?
            .label(kind.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour));
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
    root.present()?;
    println!("written: {}", path.display());
    Ok(())
}
