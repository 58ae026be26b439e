//! What was measured, to be asked for by contest and contender.

use crate::contests::{Contest, Kind};
use crate::series::Series;
use crate::support::turns::{Placement, Row};

pub(crate) struct Outcome {
    pub(crate) contest: Contest,
    pub(crate) rows: Vec<Row>,
}

#[derive(Default)]
pub(crate) struct Results {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) series: Vec<Series>,
    /// Whether it was long enough to say anything.
    pub(crate) testing: bool,
}

impl Results {
    /// Of threads that the system places.
    pub(crate) fn row(&self, kind: Kind, number: u64, contender: &str) -> Option<&Row> {
        self.row_of(Placement::Free, kind, number, contender)
    }

    pub(crate) fn row_of(&self, placement: Placement, kind: Kind, number: u64, contender: &str) -> Option<&Row> {
        let outcome = self.of_kind(kind).find(|outcome| {
            let contest = &outcome.contest;
            contest.number == number && contest.placement == placement
        });
        outcome?.rows.iter().find(|row| row.contender.trim_end_matches('*') == contender)
    }

    pub(crate) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(move |outcome| outcome.contest.kind == kind)
    }

    /// Kinds that were measured, in order.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<Kind> = Vec::new();
        for outcome in &self.outcomes {
            if !kinds.contains(&outcome.contest.kind) {
                kinds.push(outcome.contest.kind);
            }
        }
        kinds
    }
}
