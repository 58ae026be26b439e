//! What was measured, to be asked for by contest and contender.

use crate::contests::{Contest, Kind};
use crate::support::turns::Row;

pub(crate) struct Outcome {
    pub(crate) contest: Contest,
    pub(crate) rows: Vec<Row>,
}

#[derive(Default)]
pub(crate) struct Results {
    pub(crate) outcomes: Vec<Outcome>,
    /// Whether it was long enough to say anything.
    pub(crate) testing: bool,
}

impl Results {
    pub(crate) fn outcome(&self, kind: Kind, number: u64) -> Option<&Outcome> {
        self.outcomes.iter().find(|outcome| outcome.contest.kind == kind && outcome.contest.number == number)
    }

    pub(crate) fn row(&self, kind: Kind, number: u64, contender: &str) -> Option<&Row> {
        self.outcome(kind, number)?.rows.iter().find(|row| row.contender.trim_end_matches('*') == contender)
    }

    /// Kinds that were measured, in order.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<Kind> = self.outcomes.iter().map(|outcome| outcome.contest.kind).collect();
        kinds.dedup();
        kinds
    }
}
