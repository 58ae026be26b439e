//! The page of `compare`: one HTML file with its pictures inside, that needs nothing else, and beside it each picture
//! as a file, for other pages.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plotters::prelude::*;
use spanlock::Mode;
use spanlock_pagecache::device::offset_of;
use spanlock_pagecache::file_lock::Variant;
use spanlock_pagecache::waits::Span;

use super::chart::{self, Drawn, Frame, Line};
use super::goals::Goal;
use super::load::{Kind, PART};
use super::options::Options;
use super::{Cell, LockWork, Results, machine};

/// What it is called.
pub(super) const PAGE: &str = "index.html";

/// How cargo is called for this.
const CARGO: &str = "run --release --example pagecache";

/// Writes the page into `folder`, which is there; its path.
pub(super) fn write(
    folder: &Path,
    options: &Options,
    all: &[Results],
    goals: &[Goal],
) -> Result<PathBuf, Box<dyn Error>> {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok::<_, String>(path)
    };
    let mut page = String::from(HEAD);
    page += "<table><tr><th></th><th>asked</th><th>measured</th><th></th></tr>\n";
    for goal in goals {
        let (what, asked, measured) = (&goal.what, goal.asked(), goal.measured());
        page += &format!("<tr><td>{what}</td><td>{asked}</td><td>{measured}</td><td>{}</td></tr>\n", goal.verdict());
    }
    page += &format!("</table>\n<p>{}</p>\n", super::RATIO);
    let origin = machine::origin(CARGO);
    for results in all {
        page += &format!("<p>{}</p>\n", results.device);
        for (name, svg) in pictures(options, results, &origin)? {
            write(&format!("{}-{}.svg", results.setting.name(), name.replace(' ', "-")), &svg)?;
            page += &format!("<figure>\n{svg}</figure>\n");
        }
    }
    page += "</body></html>\n";
    Ok(write(PAGE, &page)?)
}

const HEAD: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>pagecache compare</title>\n\
<style>body{font-family:sans-serif;margin:2em;max-width:1000px}td,th{padding:.2em .8em;text-align:left}\
figure{margin:0 0 2em 0}</style></head><body>\n\
<h1>A page cache under several locks</h1>\n";

/// All of one setting, with their names.
fn pictures(options: &Options, results: &Results, origin: &str) -> Drawn<Vec<(String, String)>> {
    let place = results.setting.place(options);
    let mut pictures = Vec::new();
    for kind in Kind::ALL {
        let cells: Vec<&Cell> = results.cells.iter().filter(|cell| cell.kind == kind).collect();
        if !cells.is_empty() {
            let caption = format!("{place}: {}", kind.name());
            pictures.push((kind.name().to_owned(), throughput(options, &cells, &caption, origin)?));
        }
    }
    pictures.push(("waits".to_owned(), waits(options, &results.locks, &place, origin)?));
    let pages = PART * usize::from(options.threads).min(super::RECORDED_THREADS);
    for lock in &results.locks {
        let caption = format!("{place}: who held what when, {}", lock.variant.name());
        pictures.push((format!("holds {}", lock.variant.short()), holds(lock, pages, &caption, origin)?));
    }
    Ok(pictures)
}

/// One line for each variant.
fn throughput(options: &Options, cells: &[&Cell], caption: &str, origin: &str) -> Drawn<String> {
    let line = |variant: Variant| -> Line {
        let points = cells.iter().map(|cell| (cell.threads as f64, cell.median(variant)));
        (variant.name().to_owned(), points.collect())
    };
    let lines: Vec<Line> = options.variants().into_iter().map(line).collect();
    let lowest = lines.iter().flat_map(|(_, points)| points).map(|(_, y)| *y).fold(f64::INFINITY, f64::min);
    let frame = Frame { caption, x: "threads", y: "operations per second", base: 2.0, foot: lowest / 2.0, origin };
    chart::picture(frame, &lines)
}

/// The least that the picture of waits shows, in microseconds: there is no zero on a logarithmic axis.
const LEAST: f64 = 0.1;

/// The distribution of the waits, one line for each lock.
fn waits(options: &Options, locks: &[LockWork], place: &str, origin: &str) -> Drawn<String> {
    /// So many percent of the waits are longer than what is shown there.
    const LONGER: [f64; 9] = [0.1, 1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0];
    let line = |variant: Variant| -> Line {
        // Those without a lock are there for the colours: each has the same in all pictures.
        let found = locks.iter().find(|lock| lock.variant == variant);
        let Some(LockWork { wait_times, .. }) = found else { return (String::new(), Vec::new()) };
        let micros = |longer: f64| wait_times.value_at_percentile(100.0 - longer) as f64 / 1e3;
        let points = LONGER.map(|longer| (longer, micros(longer)));
        let name = format!("{}, {} waits", variant.name(), chart::short(wait_times.len() as f64));
        (name, if wait_times.is_empty() { Vec::new() } else { points.into() })
    };
    let lines: Vec<Line> = options.variants().into_iter().map(line).collect();
    let caption = format!("{place}: how long those waited who had to");
    let frame = Frame {
        caption: &caption,
        x: "percent of the waits that are longer",
        y: "wait, microseconds",
        base: 10.0,
        foot: LEAST,
        origin,
    };
    chart::picture(frame, &lines)
}

const MODES: [(Mode, RGBColor, &str); 3] = [
    (Mode::Add, RGBColor(60, 110, 210), "add"),
    (Mode::Block, RGBColor(210, 70, 60), "block"),
    (Mode::Exclusive, BLACK, "exclusive"),
];
const WAITING: RGBColor = RGBColor(215, 215, 215);

/// Time goes right, the file up: a stroke for each hold, a grey one for the wait before it. All are of a single page,
/// which is hardly higher than a pixel.
fn holds(lock: &LockWork, pages: usize, caption: &str, origin: &str) -> Drawn<String> {
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let first = lock.spans.iter().map(|span| millis(span.asked)).fold(f64::INFINITY, f64::min);
    let last = lock.spans.iter().map(|span| millis(span.released)).fold(first, f64::max);
    let used = MODES.iter().filter(|(mode, ..)| lock.spans.iter().any(|span| span.mode == *mode));
    let mut names: Vec<_> = used.map(|&(_, color, name)| (name, color.mix(0.6).stroke_width(10))).collect();
    if lock.spans.iter().any(|span| span.granted > span.asked) {
        names.push(("waiting for it", WAITING.stroke_width(10)));
    }
    let draw = |area: &chart::Area<'_>| {
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..last - first, 0.0..pages as f64)?;
        let label = |number: &f64| chart::short(*number);
        let mut mesh = chart.configure_mesh();
        mesh.disable_mesh().x_desc("time, milliseconds").y_desc("place in the file, pages");
        mesh.x_label_formatter(&label).y_label_formatter(&label).draw()?;
        let of = |span: &Span, from: Duration, to: Duration, color: RGBAColor| {
            let page = span.range.start().unwrap_or(0) as f64 / offset_of(1) as f64 + 0.5;
            PathElement::new([(millis(from) - first, page), (millis(to) - first, page)], color.stroke_width(2))
        };
        chart.draw_series(lock.spans.iter().map(|span| of(span, span.asked, span.granted, WAITING.to_rgba())))?;
        chart.draw_series(lock.spans.iter().map(|span| {
            let color = MODES.iter().find(|(mode, ..)| *mode == span.mode).map_or(BLACK, |&(_, color, _)| color);
            of(span, span.granted, span.released, color.mix(0.6))
        }))?;
        Ok(())
    };
    chart::framed(caption, origin, &names, (!lock.spans.is_empty()).then_some(draw))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use spanlock_pagecache::waits::no_wait_times;

    use super::super::Setting;
    use super::*;

    /// Longer than any machine's, and any command that would be typed.
    fn long_origin() -> String {
        machine::origin(CARGO) + &" --kinds mixed,direct,miss".repeat(12)
    }

    fn options() -> Options {
        Options::parse_from(["compare", "--locks", "none,twice,rwsem,note,whole,range,lean", "--latency-us", "100000"])
    }

    fn lock(variant: Variant, nanos: &[u64]) -> LockWork {
        let mut wait_times = no_wait_times();
        nanos.iter().for_each(|&nanos| wait_times.record(nanos).unwrap());
        LockWork { variant, wait_times, spans: Vec::new() }
    }

    fn span(number: u64) -> Span {
        let (start, [asked, granted, released]) =
            (offset_of(number as usize), [1, 2, 3].map(|time| Duration::from_micros(time * 10 * number)));
        let mode = MODES[number as usize % MODES.len()].0;
        Span { range: (start..start + 4096).into(), mode, asked, granted, released }
    }

    /// A word or line in a picture, and the box that it takes: left, top, right, bottom.
    type Label = (String, [f64; 4]);

    fn labels(svg: &str) -> Vec<Label> {
        svg.split("<text ").skip(1).map(label).collect()
    }

    fn label(element: &str) -> Label {
        let (attributes, rest) = element.split_once('>').unwrap();
        let attributes = format!(" {attributes}");
        let attribute = |name: &str| attributes.split_once(&format!(" {name}=\""))?.1.split_once('"').map(|(it, _)| it);
        let number = |name: &str| attribute(name).unwrap().parse::<f64>().unwrap();
        let text = rest.split_once("</text>").unwrap().0.trim().to_owned();
        // Letters of the widest font that browsers have for this are that wide on average.
        let (x, y, height) = (number("x"), number("y"), number("font-size"));
        let width = 0.6 * height * text.chars().count() as f64;
        let before = match attribute("text-anchor") {
            Some("middle") => width / 2.0,
            Some("end") => width,
            _ => 0.0,
        };
        let above = match attribute("dy").unwrap() {
            "0.76em" => 0.0,
            "0.5ex" => height / 2.0,
            _ => height,
        };
        let place = match attribute("transform") {
            // Upwards.
            Some(turned) if turned.starts_with("rotate(270") => {
                [x - above, y + before - width, x - above + height, y + before]
            }
            Some(other) => panic!("{other}"),
            None => [x - before, y - above, x - before + width, y - above + height],
        };
        (text, place)
    }

    fn assert_readable(svg: &str) {
        let labels = labels(svg);
        assert!(labels.len() > 3, "{labels:?}");
        for (number, (text, [left, top, right, bottom])) in labels.iter().enumerate() {
            let (width, height) = (f64::from(chart::SIZE.0), f64::from(chart::SIZE.1));
            assert!(*left >= 0.0 && *top >= 0.0 && *right <= width && *bottom <= height, "cut: {text}");
            for (other, place) in &labels[..number] {
                let apart = *right <= place[0] || place[2] <= *left || *bottom <= place[1] || place[3] <= *top;
                assert!(apart, "{text:?} covers {other:?}");
            }
        }
    }

    #[test]
    fn no_label_is_cut_or_covers_another() {
        let mut options = options();
        let rounds = |threads: usize| [5.0, 1e3, 2e3, 4e3, 8e3, 16e3, 32e3].map(|rate: f64| rate * threads as f64);
        let locks = || -> Vec<LockWork> {
            let nanos = |variant| if variant == Variant::Lean { vec![] } else { vec![0, 30, 5_000, 123_456_789] };
            let work = |variant| LockWork { spans: (1..40).map(span).collect(), ..lock(variant, &nanos(variant)) };
            Variant::ALL.map(work).into()
        };
        for setting in [Setting::Simulated, Setting::File] {
            for most in [1, 4, 256] {
                options.threads = most;
                let threads = options.thread_counts();
                let cell =
                    |kind| threads.iter().map(move |&threads| Cell { kind, threads, rounds: vec![rounds(threads)] });
                let cells = Kind::ALL.into_iter().flat_map(cell).collect();
                let results = Results { setting, device: String::new(), cells, locks: locks() };
                let pictures = pictures(&options, &results, &long_origin()).unwrap();
                assert!(pictures.len() > Kind::ALL.len());
                pictures.iter().for_each(|(_, svg)| assert_readable(svg));
            }
        }
    }

    #[test]
    fn a_picture_of_nothing_says_so() {
        let options = options();
        let idle = lock(Variant::Range, &[]);
        let says_so = |svg: Drawn<String>| {
            let svg = svg.unwrap();
            assert_readable(&svg);
            svg.contains("there is nothing of this to show")
        };
        assert!(says_so(holds(&idle, 64, "holds", &long_origin())));
        assert!(says_so(throughput(&options, &[], "misses", &long_origin())));
        let all_idle = waits(&options, &[idle], "here", &long_origin());
        assert!(all_idle.as_ref().unwrap().contains("range lock, 0 waits"));
        assert!(says_so(all_idle));
        let somebody = lock(Variant::Whole, &[1000]);
        assert!(!waits(&options, &[somebody], "here", "").unwrap().contains("nothing"));
    }

    #[test]
    fn a_wait_of_zero_is_marked_as_one() {
        let zeros = |nanos: &[u64]| {
            let svg = waits(&options(), &[lock(Variant::Range, nanos)], "here", "").unwrap();
            labels(&svg).iter().filter(|(text, _)| text == "0").count()
        };
        assert_eq!(zeros(&[0, 1000]), 1);
        assert_eq!(zeros(&[10, 1000]), 0);
    }

    #[test]
    fn ten_lines_have_colours_of_their_own() {
        let lines: Vec<Line> = (1..=12).map(|number| (number.to_string(), vec![(1.0, f64::from(number))])).collect();
        let frame = Frame { caption: "", x: "x", y: "y", base: 2.0, foot: 0.5, origin: "" };
        let svg = chart::picture(frame, &lines).unwrap();
        let strokes = svg.split("<circle ").skip(1).map(|circle| circle.split_once("fill=\"").unwrap().1);
        let colours: Vec<&str> = strokes.map(|rest| rest.split_once('"').unwrap().0).collect();
        assert_eq!(colours.iter().collect::<std::collections::BTreeSet<_>>().len(), 11, "{colours:?}");
        assert_eq!(colours[10..], ["#A0A0A0"; 2]);
    }
}
