//! The tree by itself against a plain list: placing (by both ways), looking, growing, splicing, chains, pruning.
//!
//! One thread plays several, some of which look at the tree's shape as they come, as one in 32 does. After each step a
//! scan must find what the list has, and the shape must be as the tree's header says; at the end nothing but the root
//! may be left.
//!
//! `cargo fuzz run tree_ops` (on a stable compiler: `cargo fuzz run -s none tree_ops`).

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use spanlock::fuzzing::{Ask, Bare, Put, Thread};

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    /// By the slow way.
    Put {
        at: Place,
        who: Who,
    },
    /// As most requests are put.
    PutAndLook {
        at: Place,
        who: Who,
    },
    /// So many of the same, side by side or one on the other: nodes become full.
    Crowd {
        at: Place,
        count: u8,
        apart: u8,
    },
    /// One of the last 64.
    Free {
        of: u8,
    },
    /// All from there on.
    FreeFrom {
        of: u8,
    },
    Look {
        at: Place,
        against: u8,
    },
    Sweep {
        steps: u8,
    },
    Trim,
}

/// A range: few places, of every magnitude, from either end.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Place {
    from: u8,
    len: u8,
    shift: u8,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Who {
    mode: u8,
    owner: u8,
    thread: u8,
}

impl Place {
    fn ask(self, who: Who) -> Ask {
        let (shift, far) = (u32::from(self.shift % 64), self.shift & 0x80 != 0);
        let start = u64::from(self.from) << shift;
        // Directly before a border, too.
        let start = if self.shift & 0x40 != 0 { start.saturating_sub(1) } else { start };
        // One byte, or up to 16 units: across the borders of cells too.
        let len = match self.len {
            0 => 0,
            255 => u64::MAX,
            len => (u64::from(len % 16) << shift) | u64::from(len >> 4),
        };
        let last = start.saturating_add(len);
        let (start, last) = if far { (u64::MAX - last, u64::MAX - start) } else { (start, last) };
        Ask { start, last, mode: 1 << (who.mode % 3), owner: u64::from(who.owner % 8) + 1 }
    }
}

impl Who {
    fn thread(self) -> Thread {
        let number = u64::from(self.thread % 8) + 1;
        if self.thread & 0x80 != 0 { Thread::Looking(number) } else { Thread::Passing(number) }
    }
}

/// What is in the way of the modes of which these are the bits, of another owner.
fn expected(list: &[(Ask, Put)], ask: Ask, against: u64) -> Vec<u64> {
    let meets = |held: &Ask| {
        held.owner != ask.owner && held.mode & against != 0 && held.start <= ask.last && ask.start <= held.last
    };
    let mut owners: Vec<u64> = list.iter().filter(|(held, _)| meets(held)).map(|(held, _)| held.owner).collect();
    owners.sort_unstable();
    owners
}

/// As the contract's table has it: add and block go with their own.
fn against(mode: u64) -> u64 {
    match mode {
        1 => 0b110,
        2 => 0b101,
        _ => 0b111,
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let tree = Bare::new();
    let mut list: Vec<(Ask, Put)> = Vec::new();
    for step in steps.into_iter().take(300) {
        let mut probe = None;
        match step {
            Step::Put { at, who } => {
                let ask = at.ask(who);
                list.push((ask, tree.put(ask, who.thread())));
                probe = Some((ask, against(ask.mode)));
            }
            Step::PutAndLook { at, who } => {
                let ask = at.ask(who);
                let modes = against(ask.mode);
                let (put, met) = tree.put_and_look(ask, modes, who.thread());
                assert_eq!(met, !expected(&list, ask, modes).is_empty(), "{ask:?} looked");
                list.push((ask, put));
            }
            Step::Crowd { at, count, apart } => {
                let who = Who { mode: count, owner: apart, thread: count };
                let first = at.ask(who);
                let step = u64::from(apart >> 3).saturating_mul((first.last - first.start).saturating_add(1));
                for number in 0..u64::from(count % 32) {
                    let start = first.start.saturating_add(step.saturating_mul(number));
                    let last = first.last.saturating_add(step.saturating_mul(number));
                    let ask = Ask { start, last, ..first };
                    list.push((ask, tree.put(ask, who.thread())));
                }
                probe = Some((Ask { start: 0, last: u64::MAX, ..first }, 0b111));
            }
            Step::Free { of } => {
                if !list.is_empty() {
                    let at = list.len() - 1 - usize::from(of % 64) % list.len();
                    tree.free(&list.swap_remove(at).1);
                }
            }
            Step::FreeFrom { of } => {
                let from = list.len().saturating_sub(usize::from(of));
                list.drain(from..).for_each(|(_, put)| tree.free(&put));
            }
            Step::Look { at, against } => {
                let who = Who { mode: 0, owner: against >> 3, thread: 0 };
                probe = Some((at.ask(who), u64::from(against % 8)));
            }
            Step::Sweep { steps } => tree.sweep(usize::from(steps)),
            Step::Trim => tree.trim(),
        }
        if let Some((ask, modes)) = probe {
            assert_eq!(tree.found(ask, modes), expected(&list, ask, modes), "a scan of {ask:?} against {modes:#b}");
        }
        assert_eq!(tree.check(), Ok(list.len()), "after {step:?}");
    }
    let everything = Ask { start: 0, last: u64::MAX, mode: 1, owner: u64::MAX };
    assert_eq!(tree.found(everything, 0b111), expected(&list, everything, 0b111), "at the end");
    list.iter().for_each(|(_, put)| tree.free(put));
    tree.trim();
    assert_eq!((tree.check(), tree.nodes()), (Ok(0), 0), "after everything was freed");
});
