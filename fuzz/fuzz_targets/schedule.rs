//! Histories of futures, `try_` and cancels on one thread against the naive oracle of the tests: who is granted, and who is woken.
//!
//! `cargo fuzz run schedule` (on a stable compiler: `cargo fuzz run -s none schedule`).

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use arbitrary::Arbitrary;
use common::Span;
use common::history::{Face, History, Pace, Quick, Step, run};
use libfuzzer_sys::fuzz_target;
use spanlock::Mode;

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

fuzz_target!(|input: (bool, Vec<Move>)| {
    let (late, moves) = input;
    let mut made = 0;
    let mut next = || {
        made += 1;
        made - 1
    };
    let mode = |mode: u8| Mode::ALL[usize::from(mode) % 3];
    let face = |arc| if arc { Face::Arc } else { Face::Borrowed };
    let mut steps = Vec::new();
    for one in moves.into_iter().take(400) {
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
    let history = History { pace: if late { Pace::Late } else { Pace::AtOnce }, steps };
    if let Err(why) = run(&history) {
        panic!("{why}\n{history}");
    }
});

/// The number of one of the last sixteen requests.
fn recent(steps: &[Step], of: u8) -> usize {
    let made = steps.iter().filter(|step| matches!(step, Step::Make { .. } | Step::Ask { .. })).count();
    made.saturating_sub(1 + usize::from(of % 16))
}
