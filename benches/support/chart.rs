//! A picture of lines over two logarithmic axes.

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
    pub(crate) y: &'a str,
    /// The distance of the marks on the axis across, as a factor.
    pub(crate) base: f64,
    /// Smaller values are drawn here.
    pub(crate) foot: f64,
}

/// A line: its name, and its points.
pub(crate) type Line = (String, Vec<(f64, f64)>);

/// Writes the picture as SVG.
pub(crate) fn draw(path: &Path, frame: Frame<'_>, lines: &[Line]) -> Result<(), Box<dyn Error>> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let (left, right) = points().fold((f64::INFINITY, 1.0_f64), |(low, high), (x, _)| (low.min(x), high.max(x)));
    let top = points().map(|(_, y)| y).fold(frame.foot, f64::max);
    let root = SVGBackend::new(path, (800, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(frame.caption, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(
            (left..right.max(2.0 * left)).log_scale().base(frame.base),
            (frame.foot..2.0 * top).log_scale(),
        )?;
    chart.configure_mesh().x_desc(frame.x).y_desc(frame.y).x_label_formatter(&|x| format!("{x:.0}")).draw()?;
    for (index, (name, points)) in lines.iter().enumerate() {
        let colour = Palette99::pick(index).stroke_width(2);
        let points = points.iter().map(|&(x, y)| (x, y.max(frame.foot)));
        chart
            .draw_series(LineSeries::new(points, colour).point_size(3))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour));
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
    root.present()?;
    println!("written: {}", path.display());
    Ok(())
}
