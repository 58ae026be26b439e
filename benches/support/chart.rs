//! A picture of lines over two logarithmic axes: the names beside it, and below it what it was made on, when, and by
//! which command.

// Each bench is a crate of its own and uses a part of this.
#![allow(dead_code)]

use plotters::prelude::*;
use std::error::Error;
use std::path::Path;

/// What stands around the lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) caption: &'a str,
    pub(crate) x: &'a str,
    /// With its unit.
    pub(crate) y: &'a str,
    /// The distance of the marks on the axis across, as a factor.
    pub(crate) base: f64,
    /// Smaller values are drawn here, hollow; if zero is among them, the axis says so.
    pub(crate) foot: f64,
    /// The machine, the day, the command.
    pub(crate) origin: &'a str,
}

/// A line: its name, and its points.
pub(crate) type Line = (String, Vec<(f64, f64)>);

const SIZE: (u32, u32) = (960, 520);
/// For the names, and for the line below all.
const ASIDE: u32 = 230;
const BELOW: u32 = 24;

/// Colours that an eye tells apart. Whoever comes behind them is grey.
const COLOURS: usize = 10;

fn colour(index: usize) -> RGBAColor {
    if index < COLOURS { Palette99::pick(index).to_rgba() } else { RGBColor(160, 160, 160).to_rgba() }
}

/// A number as people write it: 80k, 2.5M.
fn short(number: f64) -> String {
    let (number, unit) = match number {
        1e9.. => (number / 1e9, "G"),
        1e6.. => (number / 1e6, "M"),
        1e3.. => (number / 1e3, "k"),
        _ => (number, ""),
    };
    // Three figures at most, and no zeros behind the point.
    let digits = if number >= 100.0 { 0 } else { 2 };
    let text = format!("{number:.digits$}");
    let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

/// Writes the picture as SVG.
pub(crate) fn draw(path: &Path, frame: Frame<'_>, lines: &[Line]) -> Result<(), Box<dyn Error>> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (all, below) = root.split_vertically(SIZE.1 - BELOW);
    below.draw(&Text::new(frame.origin, (10, 4), ("sans-serif", 11).into_font().color(&BLACK.mix(0.6))))?;
    let (left, aside) = all.split_horizontally(SIZE.0 - ASIDE);
    let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    if points().next().is_none() {
        all.draw(&Text::new(frame.caption, (10, 10), ("sans-serif", 18).into_font()))?;
        all.draw(&Text::new("nothing of this was measured", (60, 200), ("sans-serif", 16).into_font()))?;
    } else {
        plot(&left, frame, lines)?;
        for (index, (name, _)) in lines.iter().enumerate() {
            let y = 50 + 18 * index as i32;
            aside.draw(&PathElement::new([(6, y + 6), (26, y + 6)], colour(index).stroke_width(2)))?;
            aside.draw(&Text::new(name.as_str(), (32, y), ("sans-serif", 13).into_font()))?;
        }
    }
    root.present()?;
    println!("written: {}", path.display());
    Ok(())
}

fn plot<B: DrawingBackend>(
    area: &DrawingArea<B, plotters::coord::Shift>,
    frame: Frame<'_>,
    lines: &[Line],
) -> Result<(), Box<dyn Error>>
where
    B::ErrorType: 'static,
{
    let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let (left, right) = points().fold((f64::INFINITY, 1.0_f64), |(low, high), (x, _)| (low.min(x), high.max(x)));
    let top = points().map(|(_, y)| y).fold(frame.foot, f64::max);
    let has_zero = points().any(|(_, y)| y <= 0.0);
    let mut chart = ChartBuilder::on(area)
        .caption(frame.caption, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(
            (left..right.max(2.0 * left)).log_scale().base(frame.base),
            (frame.foot..2.0 * top).log_scale(),
        )?;
    let of_y = |y: &f64| if has_zero && *y <= frame.foot { "0".to_owned() } else { short(*y) };
    let of_x = |x: &f64| short(*x);
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(frame.x).y_desc(frame.y).x_label_formatter(&of_x).y_label_formatter(&of_y).draw()?;
    for (index, (_, points)) in lines.iter().enumerate() {
        let colour = colour(index);
        let shown = points.iter().map(|&(x, y)| (x, y.max(frame.foot)));
        chart.draw_series(LineSeries::new(shown, colour.stroke_width(2)))?;
        let mark = |&(x, y): &(f64, f64)| {
            let style = if y < frame.foot { colour.stroke_width(1) } else { colour.filled() };
            Circle::new((x, y.max(frame.foot)), 3, style)
        };
        chart.draw_series(points.iter().map(mark))?;
    }
    Ok(())
}
