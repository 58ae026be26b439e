//! Judges a history of real threads by the contract, after the fact.
//!
//! # What is known
//! Each thread notes its requests, one [`Row`] each, with stamps of one clock: a counter that every stamp advances by
//! one, so that no two are equal, and that a smaller stamp *happened before* a larger one, whichever threads took
//! them. A stamp is taken before a call or after it, never within. So what the lock did lies somewhere between two
//! stamps, and each rule grants the lock the benefit of that doubt:
//!
//! ```text
//!       asked         seated          granted        leaving      left
//! ------|---------------|----------------|--------------|------------|------>
//!       | doorway       |                | surely held  | release    |
//!       | possibly live                                              |
//! ```
//! - A request is *possibly live* from `asked` to `left`: its slot is taken and freed by calls that lie within.
//! - It *surely holds* from `granted`, behind the answer, to `leaving`, before the release.
//! - Its doorway is *surely over* at `seated`: its first poll has returned, or it was granted.
//! - It *surely has its place* from `seated` on, or from `seen`, if a snapshot has shown it in the queue before. (Then
//!   it may be in its doorway still, and about to wake those who took it for a holder.)
//!
//! # The rules
//! Of two requests that conflict (owners differ, bytes shared, modes that do not go together):
//!
//! 1. *Exclusion.* What they surely hold does not overlap in time.
//! 2. *Order.* If X had a hold or a place before Y asked, X has begun to leave before Y is answered. It does not matter
//!    whether X was granted or cancelled: until its `leaving` it had its place. (Where a request gave up inside of a
//!    call, as at a deadline, `leaving` is not known, and is set to `asked`: then it demands nothing.) Not if Y is
//!    nested: it may pass those who only wait; for holders there is rule 1.
//! 3. *Nothing for nothing.* Who is refused by `try_` or a deadline, told to wait, or told to wait still, has
//!    somebody in his way: at some moment of the call somebody who conflicts was possibly live. (Two `try_` may
//!    refuse each other; both are possibly live.)
//! 4. *Nothing late.* Who was told to wait is woken as soon as nobody is in his way. He waits for a slot of somebody
//!    possibly live, and whoever frees that slot calls the waker before the release returns, that is before his
//!    `left`. So the time from the answer to the call of the waker is covered, without a gap, by those who were
//!    possibly live.
//!
//!    There is one excuse. A search for deadlocks that lets somebody pass wakes whoever sleeps where that one may
//!    sleep, this one perhaps, and comes to calling the wakers when it has ended. So *one* call of anybody, a drain's
//!    too, may go on for all of the time that is not covered.
//!
//! For rules 3 and 4 a request that surely came later (asked when the other had its place) is in the way only while it
//! is in its doorway, until it is seated: then it is behind. Unless it is nested: then it may have passed.
//!
//! In a lock with a *window* a single request of a thread or a task that holds nothing may pass one of the same kind
//! that only waits ([`Row::is_single`]). Then rule 2 asks for no more than rule 1, and for rules 3 and 4 who came later
//! is in the way as if he were nested. (When the window is over is not known from stamps: the oracle in
//! `src/protocol/grant/tests/order.rs` has a clock.)
//!
//! 5. *Seen.* Who is shown in the queue by a snapshot was possibly live while that was taken, and has somebody in his
//!    way since he asked.
//!
//! 6. *Drained.* A drain is a row that is in nobody's way. If X conflicts, and had a hold or a place before the drain
//!    was asked for, X has begun to leave before that is over. It is kept from being over (rules 3 and 4) by those only
//!    who asked before it was seated: and by conversions of what they hold.
//!
//! A batch is one request with several parts. What a conversion leaves is another row of the same owner with the same
//! `asked`, `seated` and `granted`: who holds exclusively and then downgrades has held both all the time, and leaves
//! the one.
//!
//! # Cost
//! One sweep in the order of `asked`, with the rows that are possibly live at that time: each row is compared with
//! those that it met. Some 10^6 rows a second with a few dozen live at a time.

use crate::common::{Span, together};
use spanlock::Mode;
use std::collections::HashMap;
use std::fmt;

/// A reading of the clock.
pub(crate) type Stamp = u64;

/// Later than any reading: it has not happened.
pub(crate) const NEVER: Stamp = u64::MAX;

/// An owner. Two rows of one owner never conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Who(pub(crate) u64);

/// Whether its owner had something else when it asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Outermost,
    Nested,
}

/// Whether the lock has a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Strict,
    Window,
}

/// A time in which somebody was kept waiting or refused: see rules 3 and 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delay {
    /// Before the call.
    pub(crate) from: Stamp,
    /// Behind its answer.
    pub(crate) answered: Stamp,
    /// When the waker was called, or what it waited for was given up. A refusal ends with the answer.
    pub(crate) until: Stamp,
}

impl Delay {
    pub(crate) fn refusal(from: Stamp, answered: Stamp) -> Delay {
        Delay { from, answered, until: answered }
    }
}

/// A request, or a hold that is left of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) who: Who,
    pub(crate) standing: Standing,
    /// How it was asked for, for people.
    pub(crate) way: &'static str,
    pub(crate) parts: Vec<(Span, Mode)>,
    pub(crate) asked: Stamp,
    pub(crate) seated: Stamp,
    pub(crate) seen: Stamp,
    pub(crate) granted: Stamp,
    pub(crate) leaving: Stamp,
    pub(crate) left: Stamp,
    pub(crate) delays: Vec<Delay>,
}

impl Row {
    fn conflicts(&self, other: &Row) -> bool {
        self.who != other.who
            && self.parts.iter().any(|&(span, mode)| {
                other.parts.iter().any(|&(its_span, its_mode)| !together(mode, its_mode) && span.meets(its_span))
            })
    }

    /// Whether one of its calls goes on all that time.
    fn calls(&self, from: Stamp, until: Stamp) -> bool {
        let spans = |begun: Stamp, over: Stamp| begun <= from && until <= over;
        spans(self.asked, self.seated.min(self.left))
            || spans(self.leaving, self.left)
            || self.delays.iter().any(|delay| spans(delay.from, delay.answered))
            // The poll that was answered with the grant.
            || (self.granted != NEVER && self.delays.last().is_some_and(|delay| spans(delay.until, self.granted)))
    }

    /// From when on it surely has a hold or a place.
    fn placed(&self) -> Stamp {
        self.seated.min(self.seen)
    }

    /// Whether it may go before others, and be passed, in a lock with a window.
    pub(crate) fn is_single(&self) -> bool {
        let ways =
            ["call", "timeout", "owner of its own", "outer call", "future", "future of its own", "left over of one"];
        self.standing == Standing::Outermost && ways.contains(&self.way)
    }

    /// Whether it may be granted before `first`, which came before it and only waits.
    fn may_pass(&self, first: &Row, order: Order) -> bool {
        self.standing == Standing::Nested || order == Order::Window && self.is_single() && first.is_single()
    }

    fn is_drain(&self) -> bool {
        self.way.starts_with("drain")
    }

    /// When a drain, which it conflicts with, may wait for it.
    fn keeps_drain(&self, drain: &Row) -> (Stamp, Stamp) {
        let came_later = drain.seated < self.asked && self.way != "conversion";
        (self.asked, if came_later { self.asked } else { self.left })
    }

    /// When it may be in the way of `other`, which it conflicts with.
    fn in_the_way_of(&self, other: &Row, order: Order) -> (Stamp, Stamp) {
        let behind = other.placed() < self.asked && !self.may_pass(other, order);
        (self.asked, if behind { self.seated.min(self.left) } else { self.left })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |stamp: Stamp| if stamp == NEVER { "never".to_owned() } else { stamp.to_string() };
        let Row { who, standing, way, parts, asked, seated, seen, granted, leaving, left, delays } = self;
        write!(f, "{way} of {:x} ({standing:?}) for {parts:?}: asked {asked}, seated {}, ", who.0, at(*seated))?;
        if *seen != NEVER {
            write!(f, "seen {seen}, ")?;
        }
        write!(f, "granted {}, leaving {}, left {}", at(*granted), at(*leaving), at(*left))?;
        for delay in delays {
            write!(f, ", kept {}..{}..{}", delay.from, delay.answered, at(delay.until))?;
        }
        Ok(())
    }
}

/// A snapshot showed a request of a thread in the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight {
    pub(crate) who: Who,
    pub(crate) part: (Span, Mode),
    pub(crate) from: Stamp,
    pub(crate) to: Stamp,
}

/// What the contract forbids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// Rule 1: they held at the same time.
    Together(Row, Row),
    /// Rule 2: the first was there before the second began, and the second was granted before the first went.
    Overtaken(Row, Row),
    /// Rule 3: nobody was in the way.
    ForNothing(Row, Delay),
    /// Rule 4: nobody was in the way any more at this time, and the waker had not been called.
    Late(Row, Delay, Stamp),
    /// Rule 6: the first was there before the drain began, and that was over before the first went.
    NotDrained(Row, Row),
    /// Rule 5: it was seen in the queue, and was not there.
    Ghost(Who, (Span, Mode), Stamp),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Together(one, other) => write!(f, "exclusion: both held at once:\n    {one}\n    {other}"),
            Finding::Overtaken(first, second) => write!(f, "order: overtaken:\n    {first}\nby\n    {second}"),
            Finding::NotDrained(first, drain) => write!(f, "drained, and not gone:\n    {first}\nby\n    {drain}"),
            Finding::ForNothing(row, delay) => write!(
                f,
                "kept waiting or refused in {}..{} though nobody was in the way:\n    {row}",
                delay.from, delay.answered
            ),
            Finding::Late(row, delay, since) => write!(
                f,
                "told to wait at {}, and not woken though nobody was in the way from {since} on:\n    {row}",
                delay.answered
            ),
            Finding::Ghost(who, part, at) => {
                write!(f, "a snapshot at {at} shows {part:?} of {:x} waiting, which was not there", who.0)
            }
        }
    }
}

/// How much there was to judge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) rows: u64,
    /// Pairs that conflicted and were possibly live at the same time.
    pub(crate) meetings: u64,
    /// Those of them whose order was certain.
    pub(crate) in_order: u64,
    /// Those in which the later one, a single one as the other, was granted first.
    pub(crate) passed: u64,
    /// Refusals, and answers that there was something to wait for.
    pub(crate) delays: u64,
    /// Those of them that went on after the answer: waits for a waker.
    pub(crate) waits: u64,
    /// Wakers that were called late, perhaps by somebody else's search.
    pub(crate) excused: u64,
    /// Doorways of threads that a snapshot showed to be over.
    pub(crate) sights: u64,
    /// Drains, and those whom they had to wait for.
    pub(crate) drains: u64,
    pub(crate) drained: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Tally) {
        self.rows += other.rows;
        self.meetings += other.meetings;
        self.in_order += other.in_order;
        self.passed += other.passed;
        self.delays += other.delays;
        self.waits += other.waits;
        self.excused += other.excused;
        self.sights += other.sights;
        self.drains += other.drains;
        self.drained += other.drained;
    }
}

/// A row that is possibly live at the time that the sweep has come to, and when others were in its way.
struct Live {
    row: usize,
    in_the_way: Vec<(Stamp, Stamp)>,
}

struct Judge<'h> {
    rows: &'h [Row],
    drains: &'h [Row],
    order: Order,
    tally: Tally,
    findings: Vec<Finding>,
}

/// Judges what all threads have noted, in any order.
pub(crate) fn judge(mut rows: Vec<Row>, sights: &[Sight], order: Order) -> (Tally, Vec<Finding>) {
    rows.sort_unstable_by_key(|row| row.asked);
    let (drains, mut rows): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(Row::is_drain);
    let (seen, ghosts) = take_in(&mut rows, sights);
    let tally = Tally { rows: rows.len() as u64, sights: seen, ..Tally::default() };
    let mut judge = Judge { rows: &rows, drains: &drains, order, tally, findings: ghosts };
    judge.sweep();
    drains.iter().for_each(|drain| judge.drain(drain));
    (judge.tally, judge.findings)
}

/// Adds what snapshots tell to the rows, which are sorted; says how many doorways they showed to be over.
fn take_in(rows: &mut [Row], sights: &[Sight]) -> (u64, Vec<Finding>) {
    let mut of: HashMap<Who, Vec<usize>> = HashMap::new();
    for (number, row) in rows.iter().enumerate() {
        of.entry(row.who).or_default().push(number);
    }
    let (mut seen, mut ghosts) = (0, Vec::new());
    for sight in sights {
        let its = of.get(&sight.who).map_or(&[][..], |numbers| numbers);
        let mut meant = live_at(rows, its, sight).filter(|&number| rows[number].parts.contains(&sight.part));
        let (first, second) = (meant.next(), meant.next());
        drop(meant);
        match (first, second) {
            (None, _) => ghosts.push(Finding::Ghost(sight.who, sight.part, sight.to)),
            (Some(number), None) => {
                let row = &mut rows[number];
                seen += u64::from(sight.to < row.seated);
                row.seen = row.seen.min(sight.to);
                row.delays.push(Delay::refusal(row.asked, sight.to));
            }
            // One of several.
            _ => {}
        }
    }
    (seen, ghosts)
}

/// Those of an owner's rows, which are sorted, that were possibly live while a snapshot was taken.
fn live_at<'r>(rows: &'r [Row], its: &'r [usize], sight: &Sight) -> impl Iterator<Item = usize> + 'r {
    // Before so many in a row that had left, all had: a request has fewer than that nested in it, or left over from it.
    const NESTED: u32 = 64;
    let (from, mut gone) = (sight.from, 0);
    let end = its.partition_point(|&number| rows[number].asked < sight.to);
    let recent = its[..end].iter().rev().copied().take_while(move |&number| {
        gone = if rows[number].left > from { 0 } else { gone + 1 };
        gone < NESTED
    });
    recent.filter(move |&number| rows[number].left > from)
}

impl Judge<'_> {
    fn sweep(&mut self) {
        let mut live: Vec<Live> = Vec::new();
        for (number, row) in self.rows.iter().enumerate() {
            let mut new = Live { row: number, in_the_way: Vec::new() };
            let mut at = 0;
            while at < live.len() {
                let other = &self.rows[live[at].row];
                if other.left < row.asked {
                    self.finish(live.swap_remove(at));
                    continue;
                }
                if row.conflicts(other) {
                    self.compare(other, row);
                    if !other.delays.is_empty() {
                        live[at].in_the_way.push(row.in_the_way_of(other, self.order));
                    }
                    if !row.delays.is_empty() {
                        new.in_the_way.push(other.in_the_way_of(row, self.order));
                    }
                }
                at += 1;
            }
            live.push(new);
        }
        live.into_iter().for_each(|row| self.finish(row));
    }

    /// Rules 1 and 2, of two that conflict, in the order in which they asked.
    fn compare(&mut self, first: &Row, second: &Row) {
        self.tally.meetings += 1;
        let both = first.granted != NEVER && second.granted != NEVER;
        if both && first.granted < second.leaving && second.granted < first.leaving {
            self.findings.push(Finding::Together(first.clone(), second.clone()));
            return;
        }
        if first.placed() < second.asked && second.may_pass(first, Order::Window) {
            self.tally.passed += u64::from(
                second.standing == Standing::Outermost
                    && second.granted != NEVER
                    && second.granted < first.granted.min(first.leaving),
            );
        }
        if first.placed() < second.asked && !second.may_pass(first, self.order) {
            self.tally.in_order += 1;
            if second.granted != NEVER && second.granted < first.leaving {
                self.findings.push(Finding::Overtaken(first.clone(), second.clone()));
            }
        }
    }

    /// Rule 6, and with it 3 and 4, of a drain.
    fn drain(&mut self, drain: &Row) {
        self.tally.drains += 1;
        let end = self.rows.partition_point(|row| row.asked <= drain.left);
        let met = self.rows[..end].iter().filter(|row| drain.asked < row.left && row.conflicts(drain));
        let mut kept_by = Vec::new();
        for row in met {
            kept_by.push(row.keeps_drain(drain));
            if row.placed() < drain.asked && drain.granted != NEVER {
                self.tally.drained += 1;
                if drain.granted < row.leaving {
                    self.findings.push(Finding::NotDrained(row.clone(), drain.clone()));
                }
            }
        }
        self.judge_delays(drain, kept_by);
    }

    /// Rules 3 and 4, of one that all others have been compared with.
    fn finish(&mut self, Live { row, in_the_way }: Live) {
        self.judge_delays(&self.rows[row], in_the_way);
    }

    fn judge_delays(&mut self, row: &Row, mut in_the_way: Vec<(Stamp, Stamp)>) {
        in_the_way.sort_unstable();
        for &delay in &row.delays {
            self.tally.delays += 1;
            self.tally.waits += u64::from(delay.until > delay.answered);
            if !in_the_way.iter().any(|&(from, to)| from < delay.answered && delay.from < to) {
                self.findings.push(Finding::ForNothing(row.clone(), delay));
            } else if let Some(since) = uncovered(&in_the_way, delay.answered, delay.until) {
                let mut others = self.rows.iter().chain(self.drains).filter(|other| other.who != row.who);
                if others.any(|other| other.calls(since, delay.until)) {
                    self.tally.excused += 1;
                } else {
                    self.findings.push(Finding::Late(row.clone(), delay, since));
                }
            }
        }
    }
}

/// The first time in `from..until` that lies in none of the intervals, which are sorted.
fn uncovered(intervals: &[(Stamp, Stamp)], from: Stamp, until: Stamp) -> Option<Stamp> {
    let mut covered = from;
    for &(start, end) in intervals {
        if start > covered {
            break;
        }
        covered = covered.max(end);
    }
    // The stamp at `covered` is that of whoever left then. The next is the first that has to be covered.
    (covered < until).then_some(covered)
}

#[cfg(test)]
mod tests {
    //! Histories made by hand: each rule finds what breaks it, and nothing in what is only nearly broken.

    use super::*;
    use Mode::{Add, Block, Exclusive};

    /// Granted as it was asked, held in `20..30`, gone at 40, unless a test says otherwise. Stamps are spread by hand.
    fn row(who: u64, start: u64, last: u64, mode: Mode) -> Row {
        Row {
            who: Who(who),
            standing: Standing::Outermost,
            way: "test",
            parts: vec![(Span::new(start, last), mode)],
            asked: 10 + who,
            seated: 20 + who,
            seen: NEVER,
            granted: 20 + who,
            leaving: 30 + who,
            left: 40 + who,
            delays: Vec::new(),
        }
    }

    /// Refused in `asked..left`.
    fn refused(who: u64, asked: Stamp, left: Stamp) -> Row {
        let delays = vec![Delay::refusal(asked, left)];
        Row { asked, seated: left, granted: NEVER, leaving: asked, left, delays, ..row(who, 0, 9, Exclusive) }
    }

    fn findings(rows: &[Row]) -> Vec<Finding> {
        let found = judge(rows.to_vec(), &[], Order::Strict).1;
        // The order in which threads hand in what they noted is no matter.
        assert_eq!(judge(rows.iter().rev().cloned().collect(), &[], Order::Strict).1.len(), found.len());
        found
    }

    #[test]
    fn two_that_conflict_and_hold_at_once_are_found() {
        for (one, other) in [(Exclusive, Exclusive), (Exclusive, Add), (Add, Block), (Block, Exclusive)] {
            let (a, b) = (row(1, 0, 9, one), row(2, 9, 12, other));
            assert_eq!(findings(&[a.clone(), b.clone()]), [Finding::Together(a, b)]);
        }
    }

    #[test]
    fn two_that_go_together_or_share_nothing_are_not() {
        assert_eq!(findings(&[row(1, 0, 9, Add), row(2, 9, 12, Add)]), []);
        assert_eq!(findings(&[row(1, 0, 9, Block), row(2, 9, 12, Block)]), []);
        assert_eq!(findings(&[row(1, 0, 9, Exclusive), row(2, 10, 12, Exclusive)]), []);
        assert_eq!(findings(&[row(1, 0, 9, Exclusive), row(1, 0, 9, Add)]), [], "an owner and itself");
        let empty = Row { parts: vec![(Span::EMPTY, Exclusive)], ..row(2, 0, 0, Exclusive) };
        assert_eq!(findings(&[row(1, 0, 9, Exclusive), empty]), []);
    }

    fn drain(asked: Stamp, granted: Stamp) -> Row {
        let over =
            Row { way: "drain", asked, seated: granted, granted, leaving: granted, left: granted, ..row(9, 0, 9, Add) };
        Row { parts: vec![(Span::new(0, 9), Exclusive)], ..over }
    }

    #[test]
    fn who_has_not_gone_when_a_drain_is_over_is_found() {
        let first = row(1, 0, 9, Add); // placed at 21, leaving at 31
        let early = drain(22, 30);
        assert_eq!(findings(&[first.clone(), early.clone()]), [Finding::NotDrained(first.clone(), early)]);
        assert_eq!(findings(&[first.clone(), drain(22, 32)]), []);
        assert_eq!(findings(&[first.clone(), drain(20, 30)]), [], "it may not have arrived");
        assert_eq!(findings(&[row(1, 10, 19, Add), drain(22, 30)]), [], "elsewhere");
        assert_eq!(findings(&[Row { who: Who(9), ..first.clone() }, drain(22, 30)]), [], "its own");
        // It is in nobody's way: who is refused because of it is refused for nothing.
        let alone = refused(2, 50, 60);
        assert_eq!(findings(&[drain(45, 70), alone]).len(), 1);
        // A place counts, until it is given up.
        let queued = Row { granted: NEVER, ..first };
        assert_eq!(findings(&[queued.clone(), drain(22, 30)]).len(), 1);
        assert_eq!(findings(&[Row { leaving: 25, ..queued }, drain(22, 30)]), []);
    }

    #[test]
    fn a_drain_that_waits_for_who_comes_later_is_found() {
        // Told to wait at 25, because of the first; woken at 60, when that had gone at 41.
        let delays = vec![Delay { from: 23, answered: 25, until: 60 }];
        let late = Row { asked: 22, seated: 25, delays, ..drain(22, 70) };
        let first = row(1, 0, 9, Add);
        let later =
            |asked| Row { asked, seated: asked + 1, granted: asked + 1, leaving: 64, left: 65, ..row(2, 0, 9, Add) };
        let found = findings(&[first.clone(), later(30), late.clone()]);
        assert!(matches!(found[..], [Finding::Late(_, _, 41)]), "{found:?}");
        assert_eq!(findings(&[first.clone(), later(24), late.clone()]), [], "it may have come before");
        let conversion = Row { way: "conversion", standing: Standing::Nested, ..later(30) };
        assert_eq!(findings(&[first, conversion, late]), [], "of what came before");
        let refusal =
            Row { granted: NEVER, delays: vec![Delay::refusal(22, 25)], left: 25, seated: 25, ..drain(22, 25) };
        assert_eq!(findings(&[refusal]).len(), 1, "for nothing");
    }

    #[test]
    fn a_second_part_conflicts_like_the_first() {
        let batch = Row { parts: vec![(Span::new(50, 59), Add), (Span::new(0, 9), Exclusive)], ..row(1, 0, 0, Add) };
        assert_eq!(findings(&[batch, row(2, 9, 9, Add)]).len(), 1);
    }

    #[test]
    fn a_hold_that_begins_with_the_release_of_the_other_is_right() {
        // The answer comes between the beginning of the release and its return.
        let second = Row { granted: 35, seated: 35, leaving: 50, left: 51, ..row(2, 0, 9, Exclusive) };
        assert_eq!(findings(&[row(1, 0, 9, Exclusive), second]), []);
    }

    #[test]
    fn who_overtakes_a_queued_request_is_found() {
        let first = Row { seated: 15, granted: 70, leaving: 80, left: 81, ..row(1, 0, 9, Exclusive) };
        let second = Row { asked: 16, ..row(2, 5, 5, Add) };
        assert_eq!(findings(&[first.clone(), second.clone()]), [Finding::Overtaken(first.clone(), second.clone())]);
        // Nobody knows who came first.
        let late = Row { seated: 17, ..first.clone() };
        assert_eq!(findings(&[late, second.clone()]), []);
        // It may pass who only waits.
        let nested = Row { standing: Standing::Nested, ..second.clone() };
        assert_eq!(findings(&[first.clone(), nested]), []);
        // A place counts until it is given up, and no longer.
        let cancelled = Row { granted: NEVER, leaving: 50, left: 51, ..first.clone() };
        assert_eq!(findings(&[cancelled.clone(), second.clone()]).len(), 1);
        let before = Row { leaving: 21, ..cancelled };
        assert_eq!(findings(&[before, second]), []);
    }

    #[test]
    fn in_a_lock_with_a_window_a_single_request_passes_a_single_one_that_waits() {
        let single = |row: Row| Row { way: "call", ..row };
        let first = single(Row { asked: 1, seated: 2, granted: 60, leaving: 70, left: 71, ..row(1, 0, 9, Exclusive) });
        let second = single(row(2, 0, 9, Exclusive));
        let judge = |first: &Row, second: &Row, order| judge(vec![first.clone(), second.clone()], &[], order).1;
        assert_eq!(judge(&first, &second, Order::Window), []);
        assert_eq!(judge(&first, &second, Order::Strict), [Finding::Overtaken(first.clone(), second.clone())]);
        for other in ["try", "token", "batch"] {
            let [one, two] = [&first, &second].map(|row| Row { way: other, ..row.clone() });
            assert_eq!(judge(&first, &two, Order::Window), [Finding::Overtaken(first.clone(), two)]);
            assert_eq!(judge(&one, &second, Order::Window), [Finding::Overtaken(one, second.clone())]);
        }
        let holds = Row { granted: 3, ..first };
        assert_eq!(judge(&holds, &second, Order::Window), [Finding::Together(holds.clone(), second.clone())]);
    }

    #[test]
    fn a_nested_request_does_not_pass_a_holder() {
        let nested = Row { standing: Standing::Nested, asked: 25, granted: 27, ..row(2, 5, 5, Add) };
        assert_eq!(findings(&[row(1, 0, 9, Exclusive), nested]).len(), 1);
    }

    #[test]
    fn a_refusal_without_a_reason_is_found() {
        let alone = refused(2, 50, 60);
        assert_eq!(findings(std::slice::from_ref(&alone)), [Finding::ForNothing(alone.clone(), alone.delays[0])]);
        // Somebody who has left, who goes together, who lies elsewhere, who came later.
        assert_eq!(findings(&[row(1, 0, 9, Add), alone.clone()]).len(), 1);
        assert_eq!(findings(&[Row { left: 70, leaving: 69, ..row(1, 10, 19, Add) }, alone.clone()]).len(), 1);
        assert_eq!(
            findings(&[Row { asked: 61, seated: 62, granted: 62, leaving: 63, left: 64, ..row(1, 0, 9, Add) }, alone])
                .len(),
            1
        );
    }

    #[test]
    fn a_refusal_with_a_reason_is_right() {
        assert_eq!(findings(&[row(1, 0, 9, Add), refused(2, 40, 60)]), [], "just leaving");
        let arriving = Row { asked: 59, seated: 61, granted: 61, leaving: 62, left: 63, ..row(1, 0, 9, Add) };
        assert_eq!(findings(&[arriving, refused(2, 50, 60)]), [], "just arriving");
        assert_eq!(findings(&[refused(1, 49, 51), refused(2, 50, 60)]), [], "each other");
    }

    /// Told to wait at 15, granted at 70 after a wake at `woken`.
    fn waited(who: u64, woken: Stamp) -> Row {
        let delays = vec![Delay { from: 13, answered: 15, until: woken }];
        Row { asked: 13, seated: 15, granted: 70, leaving: 80, left: 81, delays, ..row(who, 0, 9, Exclusive) }
    }

    #[test]
    fn a_late_wake_is_found() {
        let holder = row(1, 0, 9, Exclusive);
        assert_eq!(findings(&[holder.clone(), waited(2, 39)]), [], "woken in the release");
        let late = waited(2, 60);
        assert_eq!(findings(&[holder.clone(), late.clone()]), [Finding::Late(late.clone(), late.delays[0], 41)]);
        // Somebody else stands in front until then; or comes a moment too late to be a reason.
        let third = |asked| Row { asked, seated: NEVER, granted: NEVER, leaving: asked, left: 62, ..row(3, 0, 0, Add) };
        assert_eq!(findings(&[holder.clone(), third(14), late.clone()]), []);
        assert_eq!(findings(&[holder, third(42), late]).len(), 1);
    }

    #[test]
    fn a_wake_may_be_in_the_hands_of_a_search() {
        let (holder, late) = (row(1, 0, 9, Exclusive), waited(2, 60));
        // Of bytes that nobody else wants; it must have begun before the holder was gone, and go on until the wake.
        let other = |leaving, left| Row { leaving, left, ..row(3, 50, 59, Add) };
        assert_eq!(findings(&[holder.clone(), late.clone(), other(35, 62)]), []);
        assert_eq!(findings(&[holder.clone(), late.clone(), other(35, 55)]).len(), 1);
        assert_eq!(findings(&[holder.clone(), late.clone(), other(45, 62)]).len(), 1);
        // Drains search, too.
        let drain = |asked| Row { parts: vec![(Span::new(50, 59), Exclusive)], ..drain(asked, 62) };
        assert_eq!(findings(&[holder.clone(), late.clone(), drain(35)]), []);
        assert_eq!(findings(&[holder, late, drain(45)]).len(), 1);
    }

    #[test]
    fn who_came_later_is_in_the_way_in_its_doorway_only() {
        let holder = row(1, 0, 9, Exclusive);
        let later = Row { asked: 35, seated: 45, granted: 90, leaving: 91, left: 92, ..row(3, 0, 0, Add) };
        assert_eq!(findings(&[holder.clone(), later.clone(), waited(2, 44)]), []);
        assert_eq!(findings(&[holder.clone(), later.clone(), waited(2, 46)]).len(), 1);
        let nested = Row { standing: Standing::Nested, ..later };
        assert_eq!(findings(&[holder, nested, waited(2, 46)]), [], "it may have passed");
    }

    #[test]
    fn a_sight_is_a_doorway_that_is_over() {
        let holder = row(1, 0, 9, Exclusive);
        // Blocked in a call until 70; seen at 16; and overtaken by one who asked at 18.
        let blocked = Row { seated: 70, granted: 70, leaving: 80, left: 81, ..row(2, 10, 19, Exclusive) };
        let beside = Row { asked: 11, parts: vec![(Span::new(12, 12), Add)], ..holder };
        let later = Row { asked: 48, seated: 50, granted: 50, leaving: 52, left: 53, ..row(3, 10, 10, Add) };
        let sight = Sight { who: Who(2), part: blocked.parts[0], from: 14, to: 16 };
        let rows = vec![beside, blocked.clone(), later];
        assert_eq!(judge(rows.clone(), &[], Order::Strict).1, []);
        let (tally, found) = judge(rows.clone(), &[sight], Order::Strict);
        assert!(matches!(found[..], [Finding::Overtaken(..)]), "{found:?}");
        assert_eq!(tally.sights, 1);
        // Seen when it was not there; seen by another name.
        for ghost in [Sight { from: 5, to: 11, ..sight }, Sight { part: (Span::new(10, 18), Exclusive), ..sight }] {
            assert_eq!(judge(rows.clone(), &[ghost], Order::Strict).1, [Finding::Ghost(Who(2), ghost.part, ghost.to)]);
        }
    }

    #[test]
    fn who_is_seen_in_the_queue_may_be_about_to_wake() {
        // Asked later, was seen at 42, and woke the first at 44, before its doorway was over.
        let later = Row { asked: 35, seated: 45, granted: 90, leaving: 91, left: 92, ..row(3, 0, 0, Add) };
        let sight = Sight { who: Who(3), part: later.parts[0], from: 41, to: 42 };
        assert_eq!(judge(vec![row(1, 0, 9, Exclusive), later, waited(2, 44)], &[sight], Order::Strict).1, []);
    }

    #[test]
    fn a_long_history_is_judged_in_no_time() {
        let rows: Vec<Row> = (0..200_000)
            .map(|n| {
                let at = 10 * n;
                let (asked, granted) = (at + 1, at + 3);
                Row { asked, seated: granted, granted, leaving: at + 7, left: at + 8, ..row(n, 0, 9, Exclusive) }
            })
            .collect();
        let begun = std::time::Instant::now();
        assert_eq!(judge(rows, &[], Order::Strict).1, []);
        assert!(begun.elapsed().as_secs() < 20, "not linear: {:?}", begun.elapsed());
    }
}
