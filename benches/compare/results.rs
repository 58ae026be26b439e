//! What was measured, to be asked for by contest and contender.

use crate::contests::{Contest, Kind};
use crate::support::figures::Median;
use crate::turns::Turn;

pub(crate) struct Row {
    pub(crate) contender: String,
    pub(crate) turns: Vec<Turn>,
}

impl Row {
    pub(crate) fn nanos(&self) -> Median {
        Median::of(self.turns.iter().map(|turn| turn.nanos))
    }

    pub(crate) fn jain(&self) -> Median {
        Median::of(self.turns.iter().map(|turn| turn.jain))
    }

    /// The longest wait of all rounds, in nanoseconds.
    pub(crate) fn longest(&self) -> f64 {
        self.turns.iter().map(|turn| turn.longest).fold(0.0, f64::max)
    }

    /// The rounds' ratios of this one's time to the other's.
    pub(crate) fn times(&self, other: &Row) -> Median {
        Median::of(self.turns.iter().zip(&other.turns).map(|(mine, theirs)| mine.nanos / theirs.nanos))
    }
}

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
