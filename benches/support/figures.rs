//! What the benches do with figures: medians, and tables on the terminal.

// Each bench is a crate of its own and uses a part of this.
#![allow(dead_code)]

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use std::ops::Range;

/// A median, and the 95 % confidence interval around it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Median {
    pub(crate) low: f64,
    pub(crate) middle: f64,
    pub(crate) high: f64,
}

impl Median {
    /// Of at least one value.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Median {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        // The rank of the true median is binomial: n/2, with a deviation of sqrt(n)/2.
        let off = (n as f64).sqrt().round() as usize;
        let at = |rank: usize| sorted[rank.min(n - 1)];
        Median { low: at((n / 2).saturating_sub(off)), middle: at(n / 2), high: at(n / 2 + off) }
    }

    /// The ratio of two that were not measured in turns.
    pub(crate) fn over(self, other: Median) -> Median {
        Median { low: self.low / other.high, middle: self.middle / other.middle, high: self.high / other.low }
    }
}

/// A table with a line under its header and no other.
pub(crate) fn table(header: impl IntoIterator<Item = impl Into<String>>) -> Table {
    const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));
    let mut table = Table::new();
    table.load_style(STYLE);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.into_iter().map(Into::<String>::into));
    table
}

/// The same, of these rows, but for columns that are empty in all of them.
pub(crate) fn table_of_used(header: &[String], rows: &[impl AsRef<[String]>]) -> Table {
    let used = used(header.len(), rows);
    let kept = |cells: &[String]| used.iter().map(|&column| cells[column].clone()).collect::<Vec<_>>();
    let mut table = table(kept(header));
    rows.iter().for_each(|row| _ = table.add_row(kept(row.as_ref())));
    table
}

/// Columns, of so many, in which something stands.
pub(crate) fn used(columns: usize, rows: &[impl AsRef<[String]>]) -> Vec<usize> {
    (0..columns).filter(|&column| rows.iter().any(|row| !row.as_ref()[column].is_empty())).collect()
}

pub(crate) fn align_right(mut table: Table, columns: Range<usize>) -> Table {
    for column in table.column_iter_mut().skip(columns.start).take(columns.len()) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
