//! What is asked for, what was measured, and whether that is enough.

use comfy_table::{CellAlignment, Table};
use spanlock_pagecache::file_lock::Variant;

use super::load::Kind;
use super::options::Options;
use super::{Results, Setting};
use crate::report::STYLE;

/// The range lock against the whole-file lock: direct writes and misses, 16 threads, a device of 100 µs.
const TIMES_WHOLE: f64 = 8.0;
/// What the range lock may cost a cached read, which takes no lock.
const OF_NO_LOCK: f64 = 0.95;
/// The setting that the first goal is meant for.
const MEANT_FOR: (u32, u16) = (100, 16);

/// One thing that was asked for.
pub(super) struct Goal {
    pub(super) what: String,
    /// The least.
    asked: f64,
    measured: f64,
    /// Whether the options are those for which it is asked; if not it is only shown.
    counts: bool,
}

impl Goal {
    pub(super) fn is_reached(&self) -> bool {
        !self.counts || self.measured >= self.asked
    }

    pub(super) fn asked(&self) -> String {
        if self.counts { format!("at least {:.2}", self.asked) } else { "-".to_owned() }
    }

    pub(super) fn measured(&self) -> String {
        format!("{:.2}", self.measured)
    }

    pub(super) fn verdict(&self) -> &'static str {
        match (self.counts, self.is_reached()) {
            (false, _) => "-",
            (true, true) => "reached",
            (true, false) => "MISSED",
        }
    }
}

pub(super) fn judge(options: &Options, all: &[Results]) -> Vec<Goal> {
    let most = usize::from(options.threads);
    let mut goals = Vec::new();
    for results in all {
        let place = results.setting.place(options);
        if let Some(cell) = results.cell(Kind::Mixed, most) {
            goals.push(Goal {
                what: format!("{} with {most} threads, {place}: range/whole", Kind::Mixed.name()),
                asked: TIMES_WHOLE,
                measured: cell.ratio(Variant::Range, Variant::Whole),
                counts: results.setting == Setting::Simulated && (options.latency_us, options.threads) == MEANT_FOR,
            });
        }
        if let Some(cell) = results.cell(Kind::Cached, 1) {
            goals.push(Goal {
                what: format!("{} with 1 thread, {place}: range/no lock", Kind::Cached.name()),
                asked: OF_NO_LOCK,
                measured: cell.ratio(Variant::Range, Variant::None),
                counts: true,
            });
        }
    }
    goals
}

pub(super) fn table(goals: &[Goal]) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic).set_width(80);
    table.set_header(["", "asked", "measured", ""]);
    for goal in goals {
        table.add_row([goal.what.clone(), goal.asked(), goal.measured(), goal.verdict().to_owned()]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(measured: f64, counts: bool) -> Goal {
        Goal { what: String::new(), asked: 8.0, measured, counts }
    }

    #[test]
    fn what_is_below_is_missed_unless_it_was_not_asked_for() {
        assert_eq!(goal(8.0, true).verdict(), "reached");
        assert_eq!(goal(7.99, true).verdict(), "MISSED");
        assert!(!goal(f64::NAN, true).is_reached());
        assert_eq!(goal(1.0, false).verdict(), "-");
        assert!(goal(1.0, false).is_reached());
    }
}
