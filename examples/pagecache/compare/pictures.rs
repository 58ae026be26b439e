//! The page of `compare`: one HTML file with its pictures inside, that needs nothing else.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use plotters::prelude::*;
use spanlock::Mode;
use spanlock_pagecache::device::offset_of;
use spanlock_pagecache::file_lock::Variant;
use spanlock_pagecache::waits::Span;

use super::goals::Goal;
use super::load::{Kind, PART};
use super::options::Options;
use super::{Cell, LockWork, Results};

const SIZE: (u32, u32) = (560, 340);

type Drawn = Result<String, Box<dyn Error>>;

/// What it is called.
pub(super) const PAGE: &str = "index.html";

/// Writes the page into `folder`, which is there; its path.
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
    page += &format!("</table>\n<p>{}</p>\n", super::RATIO);
    let circumstances = circumstances();
    let legend =
        legend(&options.variants().iter().map(|&variant| (color(variant), variant.name())).collect::<Vec<_>>());
    let modes = legend_of_modes();
    let mut figure = |svg: &str, legend: &str| {
        page += &format!("<figure>\n{svg}<figcaption>{legend}<br>{circumstances}</figcaption></figure>\n");
    };
    for results in all {
        let title = |what: &str| format!("<h3>{what}</h3><p>{}</p>\n", results.device);
        for kind in Kind::ALL {
            let cells: Vec<&Cell> = results.cells.iter().filter(|cell| cell.kind == kind).collect();
            if !cells.is_empty() {
                figure(&(title(kind.name()) + &throughput(options, &cells)?), &legend);
            }
        }
        figure(&(title("How long those waited that had to") + &waits(&results.locks)?), &legend);
        let bytes = offset_of(PART * usize::from(options.threads).min(super::RECORDED_THREADS));
        for lock in &results.locks {
            let what = format!("Who held which bytes when: {}", lock.variant.name());
            figure(&(title(&what) + &holds(lock, bytes)?), &modes);
        }
    }
    page += "</body></html>\n";
    let path = folder.join(PAGE);
    fs::write(&path, page).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(path)
}

const HEAD: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>pagecache compare</title>\n\
<style>body{font-family:sans-serif;margin:2em;max-width:1200px}td,th{padding:.2em .8em;text-align:left}\
figure{display:inline-block;margin:0 2em 2em 0;vertical-align:top}figcaption{font-size:80%}</style></head><body>\n\
<h1>A page cache under several locks</h1>\n";

/// What was measured when, on what and by which command.
fn circumstances() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, name)| name.trim());
    let count = thread::available_parallelism().map_or(0, usize::from);
    let days = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400;
    let (year, month, day) = date(days);
    let command: Vec<String> = env::args().skip(1).collect();
    format!("{model}, {count} processors; {year}-{month:02}-{day:02}; pagecache {}", escaped(&command.join(" ")))
}

/// The date so many days after 1 January 1970.
fn date(mut days: u64) -> (u64, usize, u64) {
    let is_leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    for (month, length) in (1..).zip([31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
        if days < length {
            return (year, month, days + 1);
        }
        days -= length;
    }
    unreachable!("the year has as many days")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Below a picture, where it is in nobody's way.
fn legend(entries: &[(RGBColor, &str)]) -> String {
    let entry = |&(RGBColor(red, green, blue), name): &(RGBColor, &str)| {
        format!("<span style=\"color:rgb({red},{green},{blue})\">&#9632;</span> {name}")
    };
    entries.iter().map(entry).collect::<Vec<_>>().join(" &nbsp; ")
}

const MODES: [(Mode, RGBColor, &str); 3] = [
    (Mode::Add, RGBColor(60, 110, 210), "add"),
    (Mode::Block, RGBColor(210, 70, 60), "block"),
    (Mode::Exclusive, BLACK, "exclusive"),
];
const WAITING: RGBColor = RGBColor(215, 215, 215);

fn legend_of_modes() -> String {
    let modes = MODES.map(|(_, color, name)| (color, name));
    legend(&[modes[0], modes[1], modes[2], (WAITING, "waiting for it")])
}

/// Where there is nothing to draw.
fn nothing(why: &str) -> String {
    format!("<p><em>{why}</em></p>\n")
}

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
fn throughput(options: &Options, cells: &[&Cell]) -> Drawn {
    let variants = options.variants();
    let most = variants.iter().flat_map(|&variant| cells.iter().map(move |cell| cell.median(variant)));
    let top = most.fold(1.0, f64::max) * 1.1;
    let threads = cells.iter().map(|cell| cell.threads).max().unwrap_or(1).max(2);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d((1..threads).log_scale().base(2.0), 0.0..top)?;
        chart
            .configure_mesh()
            .x_desc("threads")
            .y_desc("operations per second")
            .y_labels(6)
            .y_label_formatter(&|rate| super::rate(*rate))
            .draw()?;
        for variant in variants {
            let points = cells.iter().map(|cell| (cell.threads, cell.median(variant)));
            chart.draw_series(LineSeries::new(points, color(variant).stroke_width(2)))?;
        }
        area.present()?;
    }
    Ok(svg)
}

/// The least that the picture of waits shows, in microseconds: there is no zero on a logarithmic axis.
const LEAST: f64 = 0.1;

/// The distribution of the waits, one line for each lock.
fn waits(locks: &[LockWork]) -> Drawn {
    const PERCENTS: [f64; 8] = [1.0, 10.0, 25.0, 50.0, 75.0, 90.0, 99.0, 100.0];
    let locks: Vec<_> = locks.iter().filter(|lock| !lock.wait_times.is_empty()).collect();
    if locks.is_empty() {
        return Ok(nothing("Nobody had to wait."));
    }
    let micros = |lock: &LockWork, percent| lock.wait_times.value_at_percentile(percent) as f64 / 1e3;
    let top = locks.iter().map(|lock| micros(lock, 100.0)).fold(10.0, f64::max);
    let label = |&micros: &f64| match micros {
        micros if micros <= LEAST => format!("0 to {LEAST}"),
        micros => super::rate(micros),
    };
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..100.0, (LEAST..top * 1.5).log_scale())?;
        chart
            .configure_mesh()
            .x_desc("percent of the waits are not longer")
            .y_desc("microseconds")
            .y_label_formatter(&label)
            .draw()?;
        for lock in &locks {
            let points = PERCENTS.map(|percent| (percent, micros(lock, percent).max(LEAST)));
            chart.draw_series(LineSeries::new(points, color(lock.variant).stroke_width(2)))?;
        }
        area.present()?;
    }
    let counts = locks.iter().map(|lock| format!("{}: {} waits", lock.variant.name(), lock.wait_times.len()));
    Ok(svg + &format!("<p>{}</p>\n", counts.collect::<Vec<_>>().join("; ")))
}

/// Time goes right, the file up: a box for each hold, a grey one for the wait before it.
fn holds(lock: &LockWork, bytes: u64) -> Drawn {
    if lock.spans.is_empty() {
        return Ok(nothing("Nothing was held while the log was on."));
    }
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let first = lock.spans.iter().map(|span| micros(span.asked)).fold(f64::MAX, f64::min).min(1e15);
    let last = lock.spans.iter().map(|span| micros(span.released)).fold(first + 1.0, f64::max);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (1120, 340)).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..last - first, 0.0..bytes as f64 / 1024.0)?;
        chart.configure_mesh().disable_mesh().x_desc("microseconds").y_desc("place in the file, KiB").draw()?;
        let of = |span: &Span, from: Duration, to: Duration, style: ShapeStyle| {
            let (start, end) = (span.range.start().unwrap_or(0), span.range.last().unwrap_or(0).min(bytes));
            let place = |byte: u64| byte as f64 / 1024.0;
            Rectangle::new([(micros(from) - first, place(start)), (micros(to) - first, place(end))], style)
        };
        chart.draw_series(lock.spans.iter().map(|span| of(span, span.asked, span.granted, WAITING.filled())))?;
        chart.draw_series(lock.spans.iter().map(|span| {
            let color = MODES.iter().find(|(mode, ..)| *mode == span.mode).map_or(BLACK, |&(_, color, _)| color);
            of(span, span.granted, span.released, color.mix(0.6).filled())
        }))?;
        area.present()?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        for (days, expected) in [(0, (1970, 1, 1)), (59, (1970, 3, 1)), (11_016, (2000, 2, 29)), (20_454, (2026, 1, 1))]
        {
            assert_eq!(date(days), expected, "{days}");
        }
    }

    #[test]
    fn a_picture_of_nothing_says_so() {
        let lock = LockWork {
            variant: Variant::Range,
            wait_times: spanlock_pagecache::waits::no_wait_times(),
            spans: Vec::new(),
        };
        assert!(waits(&[]).unwrap().contains("Nobody had to wait"));
        assert!(holds(&lock, 4096).unwrap().contains("Nothing was held"));
        assert!(waits(&[lock]).unwrap().contains("Nobody had to wait"));
    }
}
