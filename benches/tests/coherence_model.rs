//! The simulator behind `cargo bench -p spanlock-bench --bench coherence`, by itself: the MESI machine on sequences
//! whose outcome is known, and the simulated CPUs.

#![allow(dead_code, unused_imports, unused_macros)] // The bench uses all of it.

#[path = "../coherence/cpus.rs"]
mod cpus;
#[path = "../coherence/mesi.rs"]
mod mesi;
#[path = "../coherence/sites.rs"]
mod sites;
#[path = "../coherence/sync.rs"]
mod sync;

use cpus::{Setup, Tally};
use crossbeam_utils::CachePadded;
use mesi::{Access::Read, Access::Write, Line, Machine, Outcome};
use sites::{Atlas, NODE, Part, Site};
use sync::{AtomicU64, Ordering};

const HIT: Outcome = Outcome { miss: false, cold: false, transfer: false, invalidated: 0 };
const COLD: Outcome = Outcome { miss: true, cold: true, ..HIT };
/// A copy of what nobody has changed.
const COPY: Outcome = Outcome { miss: true, ..HIT };
/// A copy of what somebody has changed.
const FETCH: Outcome = Outcome { miss: true, transfer: true, ..HIT };
/// The line, taken from its one owner.
const STEAL: Outcome = Outcome { miss: true, transfer: true, invalidated: 1, ..HIT };

fn upgrade(invalidated: u32) -> Outcome {
    Outcome { transfer: true, invalidated, ..HIT }
}

#[test]
fn a_cpu_alone_misses_once() {
    let mut machine = Machine::default();
    assert_eq!(machine.access(3, 7, Read), COLD);
    assert_eq!(machine.line(7), Some(Line::Exclusive(3)));
    assert_eq!(machine.access(3, 7, Read), HIT);
    assert_eq!(machine.access(3, 7, Write), HIT, "an exclusive line becomes modified in silence");
    assert_eq!(machine.line(7), Some(Line::Modified(3)));
    assert_eq!(machine.access(3, 7, Read), HIT);
    assert_eq!(machine.access(3, 8, Write), COLD, "another line");
}

#[test]
fn readers_share_and_a_writer_takes_all_copies() {
    let mut machine = Machine::default();
    machine.access(0, 7, Read);
    assert_eq!(machine.access(1, 7, Read), COPY, "nobody had changed it");
    assert_eq!(machine.access(63, 7, Read), COPY);
    assert_eq!(machine.line(7), Some(Line::Shared(1 << 63 | 0b11)));
    assert_eq!(machine.access(1, 7, Read), HIT);
    assert_eq!(machine.access(1, 7, Write), upgrade(2), "it had the data, not the right to change it");
    assert_eq!(machine.line(7), Some(Line::Modified(1)));
    assert_eq!(machine.access(63, 7, Read), FETCH);
    assert_eq!(machine.access(0, 7, Write), Outcome { miss: true, ..upgrade(2) });
}

#[test]
fn writers_steal_from_one_another() {
    let mut machine = Machine::default();
    machine.access(0, 7, Write);
    for turn in 1..10 {
        assert_eq!(machine.access(turn % 2, 7, Write), STEAL);
    }
    machine.access(0, 8, Read);
    assert_eq!(machine.access(1, 8, Write), STEAL, "a clean copy as well");
}

#[test]
fn a_sharer_that_writes_takes_the_other_copy_once() {
    let mut machine = Machine::default();
    machine.access(0, 7, Write);
    machine.access(1, 7, Read);
    assert_eq!(machine.line(7), Some(Line::Shared(0b11)));
    assert_eq!(machine.access(1, 7, Write), upgrade(1));
    assert_eq!(machine.access(1, 7, Write), HIT);
}

fn run(cpus: usize, seed: u64, line: usize, phases: &[usize], pair: &(dyn Fn(usize, usize) + Sync)) -> Vec<Tally> {
    cpus::run(Setup { cpus, seed, line }, Atlas::default(), phases, pair)
}

fn transfers(tally: &Tally) -> u64 {
    tally.sum(|_| true).transfers
}

#[test]
fn nothing_is_lost_between_cpus_and_every_take_over_is_counted() {
    let counter = CachePadded::new(AtomicU64::new(0));
    let tallies = run(4, 1, 64, &[100, 50], &|_, _| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(tallies.iter().map(|tally| tally.pairs).collect::<Vec<_>>(), [400, 200]);
    assert_eq!(tallies.iter().map(|tally| tally.sum(|_| true).accesses).collect::<Vec<_>>(), [400, 200]);
    assert_eq!(counter.load(Ordering::Relaxed), 600);
    // In three of four cases another CPU was the last one.
    assert!((250..350).contains(&transfers(&tallies[0])), "{}", transfers(&tallies[0]));
}

#[test]
fn private_lines_stay_where_they_are_unless_lines_are_long() {
    #[repr(align(128))]
    struct Apart([AtomicU64; 16]);
    let words: Vec<Apart> = (0..2).map(|_| Apart([const { AtomicU64::new(0) }; 16])).collect();
    // Both CPUs in one block of 128 bytes, on lines of 64.
    let neighbours =
        |line: usize| transfers(&run(2, 1, line, &[100], &|cpu, _| words[0].0[8 * cpu].store(1, Ordering::Relaxed))[0]);
    assert_eq!(neighbours(64), 0);
    assert!(neighbours(128) > 20);
    let apart = run(2, 1, 128, &[100], &|cpu, _| words[cpu].0[0].store(1, Ordering::Relaxed));
    assert_eq!(transfers(&apart[0]), 0);
}

#[test]
fn a_seed_is_an_interleaving() {
    let counter = CachePadded::new(AtomicU64::new(0));
    let of = |seed| {
        let tallies = run(8, seed, 64, &[200], &|_, _| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        transfers(&tallies[0])
    };
    assert_eq!(of(1), of(1));
    assert!((2..10).any(|seed| of(seed) != of(1)), "another seed, another order");
}

#[test]
fn who_waits_for_a_write_hears_of_it_and_spins_for_nothing() {
    let turn = CachePadded::new(AtomicU64::new(0));
    let tallies = run(3, 5, 64, &[10], &|cpu, number| {
        let mine = (3 * number + cpu) as u64;
        while turn.load(Ordering::Relaxed) != mine {
            turn.wait_for_write();
        }
        turn.store(mine + 1, Ordering::Relaxed);
    });
    assert_eq!(turn.load(Ordering::Relaxed), 30);
    // Each of 30 writes wakes at most two who look again, and each pair begins with a look.
    assert!(tallies[0].sum(|_| true).accesses <= 30 + 60 + 30);
}

#[test]
#[should_panic(expected = "every CPU waits for another one")]
fn a_wait_without_end_is_noticed() {
    let word = CachePadded::new(AtomicU64::new(0));
    run(1, 1, 64, &[1], &|_, _| {
        word.load(Ordering::Relaxed);
        word.wait_for_write();
    });
}

#[test]
fn nodes_are_found_by_the_links_that_lead_to_them() {
    let (root, child, chained) = (0x1000, 0x2000, 0x3000);
    let mut atlas = Atlas::default();
    atlas.lock(root);
    atlas.link(root + 16, child);
    atlas.link(child + 48, chained);
    assert_eq!(atlas.site(root + 63), Site::Node(0, Part::Header));
    assert_eq!(atlas.site(root + 64), Site::Node(0, Part::States));
    assert_eq!(atlas.site(root + NODE), Site::Era);
    assert_eq!(atlas.site(root + NODE + 64), Site::Hand);
    assert_eq!(atlas.site(child + 128), Site::Node(1, Part::Records));
    assert_eq!(atlas.site(chained), Site::Node(1, Part::Header), "a chained node is as deep as the one before");
    assert_eq!(atlas.site(0x9000), Site::Elsewhere);
}
