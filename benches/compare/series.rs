//! A minute of threads that take random pages: what becomes of the speed, and of the tree.
//!
//! Two threads, empty sections; this lock takes turns with the interval tree, a second each, so that what the machine
//! does shows in both. Nodes are counted behind each of this lock's seconds. A shape that follows how many threads
//! there are stands after the first second; one that follows where they have been grows on.

use crate::peers::{IntervalTree, Spanlock};
use crate::roaming::Roaming;
use crate::support::figures::Median;
use crate::support::pattern::Pattern;
use crate::support::turns::{self, Effort, Placement, Row};
use std::time::Duration;

pub(crate) const THREADS: usize = 2;

/// Seconds that are compared: the first one is that in which the tree grows.
const EARLY: usize = 1;
const FEW: usize = 5;

pub(crate) struct Series {
    pub(crate) pattern: Pattern,
    /// Its nodes behind each turn.
    pub(crate) nodes: Vec<usize>,
    /// This lock, and the interval tree.
    pub(crate) rows: Vec<Row>,
}

impl Series {
    /// Patterns that have one.
    pub(crate) fn patterns() -> impl Iterator<Item = Pattern> {
        Pattern::ALL.into_iter().filter(|pattern| matches!(pattern, Pattern::Scattered { shared: 0, .. }))
    }

    pub(crate) fn name(pattern: Pattern) -> String {
        format!("{}, a minute", pattern.name())
    }

    pub(crate) fn effort(testing: bool) -> Effort {
        match testing {
            true => Effort { rounds: 2, ..Effort::TEST },
            false => Effort { rounds: 60, warm_up: 0, turn: Duration::from_secs(1) },
        }
    }

    /// `after` is called behind each turn.
    pub(crate) fn run(pattern: Pattern, effort: Effort, after: impl Fn()) -> Series {
        let roaming = Roaming { pattern, section: 0 };
        let contenders = [roaming.contender::<Spanlock>(), roaming.contender::<IntervalTree>()];
        let mut nodes = Vec::with_capacity(effort.rounds);
        let rows = turns::run(THREADS, Placement::Free, &contenders, effort, |contender| {
            nodes.extend(contender.nodes());
            after();
        });
        Series { pattern, nodes, rows }
    }

    /// The speed of this lock in the last seconds, beside that in the second one and those behind it. `None`, if it was
    /// too short.
    pub(crate) fn steadiness(&self) -> Option<Median> {
        let turns = &self.rows[0].turns;
        let early = turns.get(EARLY..EARLY + FEW)?;
        let late = &turns[turns.len() - FEW..];
        let nanos = |turns: &[turns::Turn]| Median::of(turns.iter().map(|turn| turn.nanos));
        Some(nanos(early).over(nanos(late)))
    }
}
