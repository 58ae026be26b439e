//! Pictures, most of them of lines over two logarithmic axes: the names beside it, and below it what it was made on,
//! when, and by which command. The benches draw by this, and so does `examples/pagecache`.

// Each bench is a crate of its own and uses a part of this.
#![allow(dead_code)]

use plotters::prelude::*;
use std::error::Error;
use std::fs;
use std::path::Path;

/// What stands around the lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) caption: &'a str,
    pub(crate) x: &'a str,
    /// With its unit.
    pub(crate) y: &'a str,
    /// The distance of the marks on the axis across, as a factor: 2, or 10.
    pub(crate) base: f64,
    /// Smaller values are drawn here, hollow; if zero is among them, the axis says so.
    pub(crate) foot: f64,
    /// The machine, the day, the command.
    pub(crate) origin: &'a str,
}

/// A line: its name, and its points. Without a name it does not stand beside the others, but has its colour.
pub(crate) type Line = (String, Vec<(f64, f64)>);

pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
pub(crate) type Drawn<T> = Result<T, Box<dyn Error>>;

const NOTHING: &str = "there is nothing of this to show";
pub(crate) const SIZE: (u32, u32) = (960, 520);
/// What stands for a name's colour, and space around it.
const ASIDE: usize = 50;
/// A letter of a name, widely.
const LETTER: usize = 7;
/// Letters in a line below all, and its height.
const BELOW: (usize, u32) = (150, 14);

/// Colours that an eye tells apart, and sees on white. Whoever comes behind them is grey.
const COLOURS: [RGBColor; 10] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(214, 39, 40),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(227, 119, 194),
    RGBColor(23, 190, 207),
    RGBColor(188, 189, 34),
    BLACK,
];

fn colour(index: usize) -> RGBColor {
    COLOURS.get(index).copied().unwrap_or(RGBColor(160, 160, 160))
}

/// A number as people write it: 80k, 2.5M.
pub(crate) fn short(number: f64) -> String {
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

/// In lines that are not too long to stand below a picture.
fn folded(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is one from the beginning");
        if line.is_empty() {
            line.push_str(word);
        } else if line.len() + word.len() < BELOW.0 {
            *line += &format!(" {word}");
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// Writes a picture of lines as SVG.
pub(crate) fn draw(path: &Path, frame: Frame<'_>, lines: &[Line]) -> Drawn<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, picture(frame, lines)?)?;
    println!("written: {}", path.display());
    Ok(())
}

/// The SVG of it.
pub(crate) fn picture(frame: Frame<'_>, lines: &[Line]) -> Drawn<String> {
    let lines: Vec<(RGBColor, &Line)> = lines.iter().enumerate().map(|(index, line)| (colour(index), line)).collect();
    let named = lines.iter().filter(|(_, (name, _))| !name.is_empty());
    let names: Vec<_> = named.map(|(colour, (name, _))| (name.as_str(), colour.stroke_width(2))).collect();
    let has_points = lines.iter().any(|(_, (_, points))| !points.is_empty());
    framed(frame.caption, frame.origin, &names, has_points.then_some(|area: &Area<'_>| plot(area, frame, &lines)))
}

/// Any picture as SVG: `plot` draws what stands left of the names. Without it there is nothing, and that is said.
pub(crate) fn framed(
    caption: &str,
    origin: &str,
    names: &[(&str, ShapeStyle)],
    plot: Option<impl FnOnce(&Area<'_>) -> Drawn<()>>,
) -> Drawn<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let origin = folded(origin);
        let (all, below) = root.split_vertically(SIZE.1 - BELOW.1 * origin.len() as u32 - 10);
        for (y, line) in (4..).step_by(BELOW.1 as usize).zip(origin) {
            below.draw(&Text::new(line, (10, y), ("sans-serif", 11).into_font().color(&BLACK.mix(0.6))))?;
        }
        let longest = names.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let (left, aside) = all.split_horizontally(SIZE.0 - (ASIDE + LETTER * longest) as u32);
        let left = left.margin(10, 0, 0, 0).titled(caption, ("sans-serif", 18))?;
        match plot {
            Some(plot) => plot(&left)?,
            None => left.draw(&Text::new(NOTHING, (60, 200), ("sans-serif", 16).into_font()))?,
        }
        for (y, &(name, style)) in (50..).step_by(18).zip(names) {
            aside.draw(&PathElement::new([(6, y + 6), (26, y + 6)], style))?;
            aside.draw(&Text::new(name, (32, y), ("sans-serif", 13).into_font()))?;
        }
        root.present()?;
    }
    Ok(svg)
}

/// The marks of a logarithmic axis: powers, and where ten's are few, some between them. (Those of plotters are so dense
/// on a short axis that they repeat, or too few to read it.)
fn marks(low: f64, high: f64, base: f64) -> Vec<f64> {
    let between: &[f64] = if base > 2.0 && high / low < 1e3 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let powers = low.log(base).floor() as i32..=high.log(base).ceil() as i32;
    let marks = powers.flat_map(|power| between.iter().map(move |factor| factor * base.powi(power)));
    // A power that is an end of the axis may be computed to lie beyond it.
    let near = |mark: &f64| (low * 0.999..=high * 1.001).contains(mark);
    marks.filter(near).map(|mark| mark.clamp(low, high)).collect()
}

fn plot(area: &Area<'_>, frame: Frame<'_>, lines: &[(RGBColor, &Line)]) -> Drawn<()> {
    let points = || lines.iter().flat_map(|(_, (_, points))| points.iter().copied());
    let (left, right) = points().fold((f64::INFINITY, 1.0_f64), |(low, high), (x, _)| (low.min(x), high.max(x)));
    let top = points().map(|(_, y)| y).fold(frame.foot, f64::max);
    let has_zero = points().any(|(_, y)| y <= 0.0);
    let (right, top) = (right.max(2.0 * left), 2.0 * top);
    let mut across = marks(left, right, frame.base);
    // Where the last of them is far from the end, the end has one, too.
    if across.last().is_none_or(|&last| right >= 1.5 * last) {
        across.push(right);
    }
    let mut chart = ChartBuilder::on(area).margin(10).x_label_area_size(40).y_label_area_size(60).build_cartesian_2d(
        (left..right).log_scale().with_key_points(across),
        (frame.foot..top).log_scale().with_key_points(marks(frame.foot, top, 10.0)),
    )?;
    let of_y = |y: &f64| if has_zero && *y <= frame.foot { "0".to_owned() } else { short(*y) };
    let of_x = |x: &f64| short(*x);
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(frame.x).y_desc(frame.y).x_label_formatter(&of_x).y_label_formatter(&of_y).draw()?;
    for (colour, (_, points)) in lines {
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
