//! The page of `compare`: one HTML file with its pictures inside, that needs nothing else.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plotters::prelude::*;

use super::goals::Goal;
use super::load::{Kind, PART};
use super::options::Options;
use super::{Cell, LockWork, Results};
use crate::device::offset_of;
use crate::file_lock::Variant;
use crate::waits::Span;
use spanlock::Mode;

const SIZE: (u32, u32) = (560, 340);
const FONT: (&str, u32) = ("sans-serif", 14);

type Drawn = Result<String, Box<dyn Error>>;

/// Writes `index.html` into `folder`, which is made if it is not there; its path.
pub(super) fn write(
    folder: &Path,
    options: &Options,
    all: &[Results],
    goals: &[Goal],
) -> Result<PathBuf, Box<dyn Error>> {
    let mut page = String::from(HEAD);
    page += "<table><tr><th></th><th>asked</th><th>measured</th><th></th></tr>\n";
    for goal in goals {
        let (what, asked, measured) = (&goal.what, goal.asked(), goal.measured());
        page += &format!("<tr><td>{what}</td><td>{asked}</td><td>{measured}</td><td>{}</td></tr>\n", goal.verdict());
    }
    page += "</table>\n";
    for results in all {
        page += &format!("<h2>{}</h2>\n<h3>Operations per second, by threads</h3>\n", results.device);
        for kind in Kind::ALL {
            let cells: Vec<&Cell> = results.cells.iter().filter(|cell| cell.kind == kind).collect();
            page += &throughput(kind, &cells)?;
        }
        page += "<h3>How long those waited that had to: microseconds, by percentile</h3>\n";
        page += &waits(&results.locks)?;
        page += "<h3>Who held which bytes when: add blue, block red, exclusive black; grey: waiting</h3>\n";
        let bytes = offset_of(PART * usize::from(options.threads).min(super::RECORDED_THREADS));
        for lock in &results.locks {
            page += &holds(lock, bytes)?;
        }
    }
    page += "</body></html>\n";
    fs::create_dir_all(folder).map_err(|error| format!("cannot make the folder {}: {error}", folder.display()))?;
    let path = folder.join("index.html");
    fs::write(&path, page).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(path)
}

const HEAD: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>pagecache compare</title>\n\
<style>body{font-family:sans-serif;margin:2em;max-width:1200px}td,th{padding:.2em .8em;text-align:left}</style></head><body>\n\
<h1>A page cache under four locks</h1>\n";

fn color(variant: Variant) -> RGBColor {
    match variant {
        Variant::None => RGBColor(150, 150, 150),
        Variant::Twice => RGBColor(220, 150, 40),
        Variant::Rwsem => RGBColor(120, 90, 40),
        Variant::Note => RGBColor(150, 60, 160),
        Variant::Whole => RGBColor(200, 60, 50),
        Variant::Range => RGBColor(40, 90, 190),
        Variant::Lean => RGBColor(30, 150, 110),
    }
}

/// One line for each variant.
fn throughput(kind: Kind, cells: &[&Cell]) -> Drawn {
    let most = Variant::ALL.iter().flat_map(|&variant| cells.iter().map(move |cell| cell.median(variant)));
    let top = most.fold(1.0, f64::max) * 1.1;
    let threads = cells.iter().map(|cell| cell.threads).max().unwrap_or(1).max(2);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .caption(kind.name(), FONT)
            .margin(10)
            .x_label_area_size(30)
            .y_label_area_size(70)
            .build_cartesian_2d((1..threads).log_scale().base(2.0), 0.0..top)?;
        chart.configure_mesh().x_desc("threads").y_labels(6).draw()?;
        for variant in Variant::ALL {
            let points = cells.iter().map(|cell| (cell.threads, cell.median(variant)));
            chart
                .draw_series(LineSeries::new(points, color(variant).stroke_width(2)))?
                .label(variant.name())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color(variant).stroke_width(2)));
        }
        chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
        area.present()?;
    }
    Ok(svg)
}

/// The distribution of the waits, one line for each lock.
fn waits(locks: &[LockWork]) -> Drawn {
    const PERCENTS: [f64; 8] = [1.0, 10.0, 25.0, 50.0, 75.0, 90.0, 99.0, 100.0];
    let micros = |lock: &LockWork, percent| lock.wait_times.value_at_percentile(percent) as f64 / 1e3;
    let top = locks.iter().map(|lock| micros(lock, 100.0)).fold(10.0, f64::max);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .x_label_area_size(30)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..100.0, (0.1..top * 1.5).log_scale())?;
        chart.configure_mesh().x_desc("percentile").draw()?;
        for lock in locks.iter().filter(|lock| !lock.wait_times.is_empty()) {
            let style = color(lock.variant);
            let points = PERCENTS.map(|percent| (percent, micros(lock, percent).max(0.1)));
            let name = format!("{}: {} waits", lock.variant.name(), lock.wait_times.len());
            chart
                .draw_series(LineSeries::new(points, style.stroke_width(2)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style.stroke_width(2)));
        }
        chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
        area.present()?;
    }
    Ok(svg)
}

/// Time goes right, the file up: a box for each hold, a grey one for the wait before it.
fn holds(lock: &LockWork, bytes: u64) -> Drawn {
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let first = lock.spans.iter().map(|span| micros(span.asked)).fold(f64::MAX, f64::min).min(1e15);
    let last = lock.spans.iter().map(|span| micros(span.released)).fold(first + 1.0, f64::max);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (1120, 340)).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .caption(lock.variant.name(), FONT)
            .margin(10)
            .x_label_area_size(30)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..last - first, 0.0..bytes as f64)?;
        chart.configure_mesh().disable_mesh().x_desc("microseconds").y_desc("byte").draw()?;
        let of = |span: &Span, from: Duration, to: Duration, style: ShapeStyle| {
            let (start, end) = (span.range.start().unwrap_or(0), span.range.last().unwrap_or(0).min(bytes));
            Rectangle::new([(micros(from) - first, start as f64), (micros(to) - first, end as f64)], style)
        };
        chart.draw_series(
            lock.spans.iter().map(|span| of(span, span.asked, span.granted, RGBColor(215, 215, 215).filled())),
        )?;
        chart.draw_series(lock.spans.iter().map(|span| {
            let style = match span.mode {
                Mode::Add => RGBColor(60, 110, 210),
                Mode::Block => RGBColor(210, 70, 60),
                Mode::Exclusive => BLACK,
            };
            of(span, span.granted, span.released, style.mix(0.6).filled())
        }))?;
        area.present()?;
    }
    Ok(svg)
}
