//! Histories on one thread against the oracle of the tests: who is granted, who is woken, who is let past whom, who is
//! told of a deadlock.
//!
//! Two kinds. Plain ones: futures, `try_` and cancels of many. And those of owners: nested requests, batches,
//! conversions, guards that are let go for a batch, by tokens, tasks and a thread.
//!
//! `cargo fuzz run schedule` (on a stable compiler: `cargo fuzz run -s none schedule`).

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use arbitrary::Arbitrary;
use common::Span;
use common::history::{self, Face, History, Pace, Quick, Step};
use common::owners::{Part, Who};
use common::owners_history::{self, Ask, Change, How, THREAD};
use libfuzzer_sys::fuzz_target;
use spanlock::{Mode, Recursion};

/// Most steps of a history: the oracle is slow where many wait.
const MOST: usize = 400;

#[derive(Arbitrary, Debug)]
enum Input {
    Plain { late: bool, window: bool, moves: Vec<Move> },
    Owners { late: bool, window: bool, locks: u8, tokens: u8, scale: u8, moves: Vec<OwnersMove> },
}

/// A step in few bytes. Requests are numbered as they are made; `of` names one of the last sixteen.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Move {
    Make { mode: u8, span: Place, arc: bool },
    Ask { mode: u8, span: Place, arc: bool, deadline: bool },
    Poll { of: u8, new_waker: bool },
    End { of: u8 },
    Settle { reverse: bool },
    Trim,
}

/// Where a range lies: few places, so that ranges meet, but of every magnitude.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Place {
    from: u8,
    to: u8,
    scale: u8,
}

impl Place {
    fn span(self) -> Span {
        let point = |at: u8| {
            if self.scale % 4 == 3 { u64::MAX - u64::from(at) } else { u64::from(at) << (self.scale % 4 * 24) }
        };
        let (a, b) = (point(self.from % 64), point(self.to % 64));
        match self.scale {
            255 => Span::EMPTY,
            254 => Span::WHOLE,
            _ => Span::new(a.min(b), a.max(b)),
        }
    }
}

fn mode(mode: u8) -> Mode {
    Mode::ALL[usize::from(mode) % 3]
}

fn pace(late: bool) -> Pace {
    if late { Pace::Late } else { Pace::AtOnce }
}

fn plain(late: bool, window: bool, moves: Vec<Move>) -> History {
    let mut made = 0;
    let mut next = || {
        made += 1;
        made - 1
    };
    let face = |arc| if arc { Face::Arc } else { Face::Borrowed };
    let mut steps = Vec::new();
    for one in moves.into_iter().take(MOST) {
        match one {
            Move::Make { mode: m, span, arc } => {
                let id = next();
                steps.push(Step::Make { id, mode: mode(m), span: span.span(), face: face(arc) });
                steps.push(Step::Poll { id, new_waker: false });
            }
            Move::Ask { mode: m, span, arc, deadline } => {
                let how = if deadline { Quick::PastDeadline } else { Quick::Try };
                steps.push(Step::Ask { id: next(), mode: mode(m), span: span.span(), face: face(arc), how });
            }
            Move::Poll { of, new_waker } => steps.push(Step::Poll { id: recent(&steps, of), new_waker }),
            Move::End { of } => steps.push(Step::End { id: recent(&steps, of) }),
            Move::Settle { reverse } => steps.push(Step::Settle { reverse }),
            Move::Trim => steps.push(Step::Trim),
        }
    }
    History { pace: pace(late), window, steps }
}

/// The number of one of the last sixteen requests.
fn recent(steps: &[Step], of: u8) -> usize {
    let made = steps.iter().filter(|step| matches!(step, Step::Make { .. } | Step::Ask { .. })).count();
    made.saturating_sub(1 + usize::from(of % 16))
}

/// A step of owners. `of` names one of the last 32 requests or parts.
#[derive(Arbitrary, Clone, Debug)]
enum OwnersMove {
    Ask { who: u8, part: Bytes, how: u8 },
    Batch { who: u8, parts: [Bytes; 3], count: u8, regain: Option<u8>, how: u8 },
    Change { of: u8, what: u8, part: Bytes },
    Poll { of: u8, new_waker: bool },
    End { of: u8 },
    Settle { reverse: bool },
    Look,
    Trim,
}

/// A part of a request: the lock and the mode, and few bytes, so that most meet.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Bytes {
    what: u8,
    from_to: u8,
}

struct Scene {
    locks: usize,
    tokens: usize,
    scale: u8,
    next: usize,
}

impl Scene {
    fn part(&self, Bytes { what, from_to }: Bytes) -> Part {
        let place = Place { from: from_to % 16, to: from_to / 16, scale: self.scale };
        let span = match what >> 4 {
            0 => Span::EMPTY,
            1 => Span::WHOLE,
            _ => place.span(),
        };
        Part { lock: usize::from(what / 3 % 5) % self.locks, span, mode: mode(what % 3) }
    }

    /// Takes numbers for `count` parts.
    fn take(&mut self, count: usize) -> usize {
        self.next += count;
        self.next - count
    }

    fn of(&self, of: u8) -> usize {
        self.next.saturating_sub(1 + usize::from(of % 32))
    }

    fn ask(&mut self, who: u8, how: u8, parts: Vec<Part>, regain: Option<u8>, batch: bool) -> Ask {
        let regain: Vec<usize> = regain.map(|of| self.of(of)).into_iter().collect();
        let id = self.take(parts.len() + regain.len());
        let (who, how) = match (who % 16, how % 8) {
            (0, _) => (Who::Solo(id), How::Await),
            (1, 0..4) => (THREAD, How::Try),
            (1, _) => (THREAD, How::PastDeadline),
            (token, 0) => (Who::Many(1 + usize::from(token) % self.tokens), How::Try),
            (token, 1) => (Who::Many(1 + usize::from(token) % self.tokens), How::PastDeadline),
            (token, _) => (Who::Many(1 + usize::from(token) % self.tokens), How::Await),
        };
        let recursion = if how_refuses(how, id) { Recursion::Refuse } else { Recursion::Reenter };
        Ask { id, who, parts, regain, batch, recursion, how }
    }

    fn step(&mut self, one: OwnersMove) -> owners_history::Step {
        use owners_history::Step;
        match one {
            OwnersMove::Ask { who, part, how } => Step::Ask(self.ask(who, how, vec![self.part(part)], None, false)),
            OwnersMove::Batch { who, parts, count, regain, how } => {
                let parts = parts[..1 + usize::from(count % 3)].iter().map(|part| self.part(*part)).collect();
                Step::Ask(self.ask(who, how, parts, regain, true))
            }
            OwnersMove::Change { of, what, part } => {
                let (id, part) = (self.of(of), self.part(part));
                let change = match what % 6 {
                    0 => Change::Downgrade(part.mode),
                    1 => Change::Shrink(part.span),
                    2 => Change::Split(part.span.first().unwrap_or(0), self.take(1)),
                    3 => Change::Release(part.span, self.take(1)),
                    4 => Change::Convert(part.mode),
                    _ => Change::Extend(part.span),
                };
                Step::Change { id, change }
            }
            OwnersMove::Poll { of, new_waker } => Step::Poll { id: self.of(of), new_waker },
            OwnersMove::End { of } => Step::End { id: self.of(of) },
            OwnersMove::Settle { reverse } => Step::Settle { reverse },
            OwnersMove::Look => Step::Look,
            OwnersMove::Trim => Step::Trim,
        }
    }
}

/// Every eighth request of a kind that can say so.
fn how_refuses(how: How, id: usize) -> bool {
    how != How::PastDeadline && id % 8 == 7
}

fuzz_target!(|input: Input| {
    match input {
        Input::Plain { late, window, moves } => {
            let history = plain(late, window, moves);
            if let Err(why) = history::run(&history) {
                panic!("{why}\n{history}");
            }
        }
        Input::Owners { late, window, locks, tokens, scale, moves } => {
            let (locks, tokens) = (1 + usize::from(locks % 3), 2 + usize::from(tokens % 5));
            let mut scene = Scene { locks, tokens, scale: scale % 4, next: 0 };
            // Owners' histories are dearer: a search goes over everybody.
            let steps = moves.into_iter().take(MOST / 4).map(|one| scene.step(one)).collect();
            let history = owners_history::History { pace: pace(late), window, locks, tokens, steps };
            if let Err(why) = owners_history::run(&history) {
                panic!("{why}\n{history}");
            }
        }
    }
});
