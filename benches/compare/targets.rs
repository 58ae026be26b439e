//! What was asked of this lock, and what came of it.

use crate::contests::Kind;
use crate::results::Results;
use crate::roaming::{PLACEMENTS, Roaming};
use crate::series::{self, Series};
use crate::support::figures::Median;
use crate::support::pattern::Pattern;
use crate::support::turns::{Placement, Row};

/// A bound on a figure.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Limit {
    pub(crate) fn text(self) -> String {
        match self {
            Limit::AtMost(most) => format!("at most {most}"),
            Limit::AtLeast(least) => format!("at least {least}"),
        }
    }

    /// Met, if the whole interval is within; missed, if none of it is.
    pub(crate) fn verdict(self, figure: Median) -> &'static str {
        let (met, may_be) = match self {
            Limit::AtMost(most) => (figure.high <= most, figure.low <= most),
            Limit::AtLeast(least) => (figure.low >= least, figure.high >= least),
        };
        match (met, may_be) {
            (true, _) => "reached",
            (false, true) => "unclear",
            (false, false) => "MISSED",
        }
    }
}

type Figure = dyn Fn(&Results) -> Option<Median>;

pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) limit: Limit,
    figure: Box<Figure>,
}

impl Target {
    fn new(what: impl Into<String>, limit: Limit, figure: impl Fn(&Results) -> Option<Median> + 'static) -> Target {
        Target { what: what.into(), limit, figure: Box::new(figure) }
    }

    /// `None`, if the contests were not run.
    pub(crate) fn figure(&self, results: &Results) -> Option<Median> {
        (self.figure)(results)
    }
}

const OURS: &str = "spanlock";
const WHOLE: &str = "spanlock-whole";
const TREE: &str = "interval-tree";
/// Those that lock ranges.
const RANGES: [&str; 5] = [TREE, "btree", "segments", "range-lock", "ofd"];
const WHOLE_FILES: [&str; 6] = [WHOLE, "std-rwlock", "pl-rwlock", "pl-mutex", "pl-fair-mutex", "tokio-rwlock"];

/// Their time divided by ours: above 1, we are faster.
fn speed(results: &Results, kind: Kind, number: u64, theirs: &str) -> Option<Median> {
    speed_of_best(results, kind, number, &[theirs])
}

/// The same, for the fastest of several.
fn speed_of_best(results: &Results, kind: Kind, number: u64, of: &[&str]) -> Option<Median> {
    speed_where(Placement::Free, results, kind, number, of)
}

fn speed_where(placement: Placement, results: &Results, kind: Kind, number: u64, of: &[&str]) -> Option<Median> {
    let row = |name| results.row_of(placement, kind, number, name);
    let rows = of.iter().filter_map(|name| row(name));
    let best = rows.min_by(|a, b| a.nanos().middle.total_cmp(&b.nanos().middle))?;
    Some(best.times(row(OURS)?))
}

/// The lower one of free threads and bound ones.
fn lowest_speed(results: &Results, kind: Kind, number: u64, of: &[&str]) -> Option<Median> {
    let speeds = PLACEMENTS.into_iter().filter_map(|placement| speed_where(placement, results, kind, number, of));
    speeds.min_by(|a, b| a.middle.total_cmp(&b.middle))
}

/// How much faster this lock is in one contest than in another; they were not run in turns.
fn gain(results: &Results, kind: Kind, from: u64, to: u64) -> Option<Median> {
    let nanos = |number| Some(results.row(kind, number, OURS)?.nanos());
    Some(nanos(from)?.over(nanos(to)?))
}

fn own(results: &Results, kind: Kind, number: u64, figure: impl Fn(&Row) -> Median) -> Option<Median> {
    Some(figure(results.row(kind, number, OURS)?))
}

fn exactly(figure: f64) -> Median {
    Median { low: figure, middle: figure, high: figure }
}

pub(crate) fn all() -> Vec<Target> {
    use Limit::{AtLeast, AtMost};
    let faster = AtLeast(1.0);
    let mut all = vec![
        Target::new("uncontended pair / parking_lot's write", AtMost(2.0), |r| {
            Some(r.row(Kind::Uncontended, 1, OURS)?.times(r.row(Kind::Uncontended, 1, "pl-rwlock")?))
        }),
        Target::new("uncontended: speed against the fastest range lock", faster, |r| {
            speed_of_best(r, Kind::Uncontended, 1, &RANGES)
        }),
        Target::new("disjoint, 2 threads: speed against private locks", AtLeast(0.95), |r| {
            speed(r, Kind::Disjoint, 2, "spanlock, private")
        }),
        Target::new("disjoint, 200 ns: 2 threads against 1", AtLeast(1.8), |r| gain(r, Kind::Disjoint200, 1, 2)),
        Target::new("disjoint: 16 threads against 2", AtLeast(0.8), |r| gain(r, Kind::Disjoint, 2, 16)),
        Target::new("three levels deep / in the root", AtMost(2.0), |r| gain(r, Kind::Levels, 3, 0)),
    ];
    for (kind, least) in [(Kind::ChinnerOwn, 2.0), (Kind::ChinnerMixed, 2.0)] {
        for threads in [1, 2, 4, 8, 16] {
            let limit = if threads == 2 { AtLeast(least) } else { faster };
            let what = format!("{}, {threads} threads: speed against the interval tree", kind.name());
            all.push(Target::new(what, limit, move |r| speed(r, kind, threads, TREE)));
        }
    }
    all.push(Target::new("crowd: time at 10^6 / at 10^2", AtMost(8.0), |r| gain(r, Kind::Crowd, 1_000_000, 100)));
    for held in [1000, 10_000, 100_000, 1_000_000] {
        let what = format!("crowd of {held}: speed against the fastest rival");
        all.push(Target::new(what, faster, move |r| speed_of_best(r, Kind::Crowd, held, &RANGES)));
        let what = format!("crowd of {held}: speed against the range-lock crate's B-tree");
        all.push(Target::new(what, faster, move |r| speed(r, Kind::Crowd, held, "range-lock")));
    }
    all.push(Target::new("10,000 covering adders: ns for a further one", AtMost(1000.0), |r| {
        own(r, Kind::Covering, 10_000, Row::nanos)
    }));
    for threads in [1, 2, 4, 16] {
        let what = format!("array, disjoint, {threads} threads: speed against the fastest range lock");
        all.push(Target::new(what, faster, move |r| speed_of_best(r, Kind::ArrayDisjoint, threads, &RANGES)));
    }
    for readers in [100, 60, 0] {
        let kind = Kind::ArrayRandom(readers);
        let what = format!("{}, 2 threads: speed against the fastest rival of any kind", kind.name());
        let rivals: Vec<&str> = RANGES.iter().chain(&WHOLE_FILES).copied().filter(|&name| name != WHOLE).collect();
        all.push(Target::new(what, AtLeast(0.9), move |r| speed_of_best(r, kind, 2, &rivals)));
        for threads in [4, 16] {
            let what = format!("{}, {threads} threads: speed against the interval tree", kind.name());
            all.push(Target::new(what, AtLeast(5.0), move |r| speed(r, kind, threads, TREE)));
        }
    }
    all.extend([
        Target::new("one whole file in a thousand: speed against the fastest whole-file lock", AtLeast(1.6), |r| {
            speed_of_best(r, Kind::Mixed, 2, &WHOLE_FILES)
        }),
        Target::new("hot range, 16 threads: Jain's index", AtLeast(0.99), |r| own(r, Kind::Hot, 16, Row::jain)),
        Target::new("hot range, 16 threads: speed against parking_lot's fair mutex", AtLeast(2.0), |r| {
            speed(r, Kind::Hot, 16, "pl-fair-mutex")
        }),
        // Every other thread once before it, at the pace of the fair mutex, and one time slice of the system.
        Target::new("hot range, 16 threads: longest wait / 16 pairs and 4 ms", AtMost(1.0), |r| {
            let row = r.row(Kind::Hot, 16, OURS)?;
            Some(exactly(row.longest() / (16.0 * row.nanos().high + 4e6)))
        }),
        Target::new("hand-off between two running threads, ns", AtMost(300.0), |r| {
            own(r, Kind::HandOff, 2, Row::nanos)
        }),
        Target::new("whole-file readers, 2 threads: speed against parking_lot's RwLock", faster, |r| {
            Some(r.row(Kind::Readers, 2, "pl-rwlock")?.times(r.row(Kind::Readers, 2, WHOLE)?))
        }),
    ]);
    all.extend(strict());
    all.extend(window());
    all.extend(roaming());
    all
}

/// Those who are granted in order pay for it what that costs, and not more.
fn strict() -> Vec<Target> {
    use Limit::{AtLeast, AtMost};
    let mut all = Vec::new();
    for kind in [Kind::Hot, Kind::Hot200] {
        for threads in [4, 16] {
            for rival in [TREE, "pl-fair-mutex"] {
                let what = format!("{}, {threads} threads: speed against {rival}", kind.name());
                all.push(Target::new(what, AtLeast(1.0), move |r| speed(r, kind, threads, rival)));
            }
            let what = format!("{}, {threads} threads, 100 turns each and more: Jain's index", kind.name());
            all.push(Target::new(what, AtLeast(0.99), move |r| own(r, kind, threads, Row::jain)));
        }
    }
    for threads in [2, 4, 16] {
        let kind = Kind::ArrayRandom(0);
        let what = format!("{}, {threads} threads, free or bound: speed against the interval tree", kind.name());
        all.push(Target::new(what, AtLeast(1.0), move |r| lowest_speed(r, kind, threads, &[TREE])));
    }
    all.push(Target::new("hand-off between two bound threads, ns", AtMost(1000.0), |r| {
        Some(r.row_of(Placement::Bound, Kind::HandOff, 2, OURS)?.nanos())
    }));
    all
}

/// Those that let newcomers pass are as fast as others that do.
fn window() -> Vec<Target> {
    use Limit::{AtLeast, AtMost};
    const WINDOW: &str = "spanlock, window 1 ms";
    const WHOLE_WINDOW: &str = "spanlock-whole, window 1 ms";
    fn speed_of(ours: &str, results: &Results, kind: Kind, number: u64, of: &[&str]) -> Option<Median> {
        let rows = of.iter().filter_map(|name| results.row(kind, number, name));
        let best = rows.min_by(|a, b| a.nanos().middle.total_cmp(&b.nanos().middle))?;
        Some(best.times(results.row(kind, number, ours)?))
    }
    let mut all = vec![
        Target::new("hot range, 200 ns, 16 threads, window: speed against parking_lot's RwLock", AtLeast(0.7), |r| {
            speed_of(WINDOW, r, Kind::Hot200, 16, &["pl-rwlock"])
        }),
        Target::new(
            "hot range, 200 ns, 16 threads, window: speed against first come, first served",
            AtLeast(10.0),
            |r| speed_of(WINDOW, r, Kind::Hot200, 16, &[OURS]),
        ),
        Target::new("hot range, 200 ns, 16 threads, window: Jain's index", AtLeast(0.95), |r| {
            Some(r.row(Kind::Hot200, 16, WINDOW)?.jain())
        }),
        Target::new("hot range, 200 ns, 16 threads, window: longest wait, ms", AtMost(10.0), |r| {
            Some(exactly(r.row(Kind::Hot200, 16, WINDOW)?.longest() / 1e6))
        }),
        Target::new("uncontended, window / strict", AtMost(1.02), |r| {
            Some(r.row(Kind::Uncontended, 1, WINDOW)?.times(r.row(Kind::Uncontended, 1, OURS)?))
        }),
    ];
    let rivals: Vec<&'static str> = RANGES.iter().chain(&WHOLE_FILES).copied().filter(|&name| name != WHOLE).collect();
    for threads in [2, 4, 8, 16] {
        for readers in [60, 0] {
            let (kind, rivals) = (Kind::ArrayRandom(readers), rivals.clone());
            let what = format!("{}, {threads} threads, window: speed against the fastest of any kind", kind.name());
            all.push(Target::new(what, AtLeast(0.7), move |r| speed_of(WINDOW, r, kind, threads, &rivals)));
        }
        let kind = Kind::ArrayFull(0);
        let what = format!("{}, {threads} threads, window: speed against parking_lot's RwLock", kind.name());
        all.push(Target::new(what, AtLeast(0.5), move |r| speed_of(WHOLE_WINDOW, r, kind, threads, &["pl-rwlock"])));
    }
    all
}

/// Threads that have no home, with empty sections: those measure the lock. A figure is the worse one of free threads
/// and bound ones.
fn roaming() -> Vec<Target> {
    use Limit::{AtLeast, AtMost};
    let mut all = Vec::new();
    for pattern in Pattern::ALL {
        let (name, kind) = (pattern.name(), Kind::Roaming(Roaming { pattern, section: 0 }));
        for threads in [2, 4, 16] {
            let mut faster = |than: &str, limit, rivals: &'static [&'static str]| {
                let what = format!("{name}, {threads} threads: speed against {than}");
                all.push(Target::new(what, limit, move |r| lowest_speed(r, kind, threads, rivals)));
            };
            match pattern {
                Pattern::Scattered { .. } | Pattern::Tail | Pattern::Skewed => {
                    faster("the fastest tree", AtLeast(1.5), &[TREE, "btree", "range-lock"]);
                    faster("the fastest that takes any bytes", AtLeast(1.3), &[TREE, "btree", "range-lock", "list"]);
                    faster("segment locks", AtLeast(0.5), &["segments"]);
                }
                Pattern::OneInThousand => faster("the interval tree", AtLeast(1.5), &[TREE]),
                Pattern::Streams => {}
            }
        }
        // When nobody was in the way it was 1.5 to 1.75, before this was asked: it is to stay there.
        let what = format!("{name}, 1 thread: time / that of parking_lot's RwLock");
        all.push(Target::new(what, AtMost(1.8), move |r| {
            Some(r.row(kind, 1, OURS)?.times(r.row(kind, 1, "pl-rwlock")?))
        }));
        all.push(Target::new(format!("{name}: nodes at the end / 16 for each thread"), AtMost(1.0), move |r| {
            nodes_beyond(r, pattern)
        }));
    }
    let whole = Kind::Roaming(Roaming { pattern: Pattern::OneInThousand, section: 0 });
    all.push(Target::new("one in 1000 whole, 2 threads: the whole file, median, us", AtMost(20.0), move |r| {
        let waits = PLACEMENTS.into_iter().filter_map(|placement| r.row_of(placement, whole, 2, OURS)?.whole());
        let Median { low, middle, high } = waits.max_by(|a, b| a.middle.total_cmp(&b.middle))?;
        Some(Median { low: low / 1e3, middle: middle / 1e3, high: high / 1e3 })
    }));
    for pattern in Series::patterns() {
        let series =
            move |r: &Results| r.series.iter().find(|series| series.pattern == pattern).map(Series::steadiness);
        let what = format!("{}, 2 threads: speed of the 60th second against the 2nd", pattern.name());
        all.push(Target::new(what, AtLeast(0.95), move |r| series(r)?));
        let what = format!("{}, 2 threads: nodes behind the last second / 16 for each thread", pattern.name());
        all.push(Target::new(what, AtMost(1.0), move |r| {
            let series = r.series.iter().find(|series| series.pattern == pattern)?;
            Some(exactly(*series.nodes.last()? as f64 / (16 * series::THREADS) as f64))
        }));
    }
    all
}

/// The most nodes that a contest of this pattern left, beside what is promised. Nothing is held then.
fn nodes_beyond(results: &Results, pattern: Pattern) -> Option<Median> {
    let of_pattern = |kind| matches!(kind, Kind::Roaming(roaming) if roaming.pattern == pattern);
    let outcomes = results.outcomes.iter().filter(|outcome| of_pattern(outcome.contest.kind));
    let ratios = outcomes.filter_map(|outcome| {
        let ours = outcome.rows.iter().find(|row| row.contender == OURS)?;
        Some(ours.nodes? as f64 / (16 * outcome.contest.threads) as f64)
    });
    ratios.reduce(f64::max).map(exactly)
}
