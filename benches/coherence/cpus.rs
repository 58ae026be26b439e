//! The simulated CPUs: fibers on one thread that take turns at each access to a shared line.
//!
//! # Promise
//! The same seed gives the same interleaving. Before each traced access the CPU's fiber hands the turn back, and the seeded generator
//! draws who goes on, each with the same chance. So the CPUs are equally fast on average, and any order of accesses is possible.
//!
//! # Shape
//! [`run`] makes a fiber for each CPU and has them work through phases with a barrier behind each; what the machine counted in a phase is one
//! [`Tally`]. The traced atomics (`sync`) call [`access`]. Who waits for a word to change calls [`wait_for_write`], which stands
//! for spinning on a copy in one's own cache: that costs nothing until somebody takes the copy away.
//!
//! Outside of a fiber nothing is traced: a lock is filled that way before the CPUs start, with cold caches.

use crate::mesi::{Access, MAX_CPUS, Machine};
use crate::sites::{Atlas, Site};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::AddAssign;

/// Words (not bytes) of a fiber's stack.
const STACK: usize = 0x8000;

/// log2 of the bytes in a line.
const LINE_BITS: u32 = 6;

/// What the accesses to lines of one kind came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) accesses: u64,
    pub(crate) misses: u64,
    pub(crate) cold: u64,
    pub(crate) transfers: u64,
    pub(crate) invalidated: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Counts) {
        self.accesses += more.accesses;
        self.misses += more.misses;
        self.cold += more.cold;
        self.transfers += more.transfers;
        self.invalidated += more.invalidated;
    }
}

/// What was counted in one phase.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Pairs of acquire and release, of all CPUs together.
    pub(crate) pairs: u64,
    pub(crate) by_site: HashMap<Site, Counts>,
}

impl Tally {
    pub(crate) fn sum(&self, counted: impl Fn(Site) -> bool) -> Counts {
        let mut sum = Counts::default();
        self.by_site.iter().filter(|(site, _)| counted(**site)).for_each(|(_, counts)| sum += *counts);
        sum
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    WaitsForWrite(usize),
    AtBarrier,
    Done,
}

struct Simulation {
    machine: Machine,
    atlas: Atlas,
    tally: Tally,
    states: Vec<State>,
}

thread_local! {
    static SIMULATION: RefCell<Option<Simulation>> = const { RefCell::new(None) };
    static CPU: Cell<Option<usize>> = const { Cell::new(None) };
}

fn simulation<T>(f: impl FnOnce(&mut Simulation) -> T) -> T {
    SIMULATION.with_borrow_mut(|simulation| f(simulation.as_mut().expect("a CPU runs in a simulation")))
}

/// The CPU that runs; `None` outside of the simulation.
pub(crate) fn current() -> Option<usize> {
    CPU.get()
}

/// Hands the turn back.
fn give_way() {
    // The newer call wants a handle passed down to here, through the library's own functions.
    #[expect(deprecated)]
    generator::yield_with(());
}

/// Something that takes a while and touches no shared line.
pub(crate) fn pass_time() {
    if current().is_some() {
        give_way();
    }
}

/// An access of the running CPU to the line of `address`.
pub(crate) fn access(address: usize, access: Access) {
    let Some(cpu) = current() else { return };
    give_way();
    let line = address >> LINE_BITS;
    simulation(|simulation| {
        let outcome = simulation.machine.access(cpu, line, access);
        let site = simulation.atlas.site(address);
        let counts = simulation.tally.by_site.entry(site).or_default();
        *counts += Counts {
            accesses: 1,
            misses: u64::from(outcome.miss),
            cold: u64::from(outcome.cold),
            transfers: u64::from(outcome.transfer),
            invalidated: u64::from(outcome.invalidated),
        };
        if access == Access::Write {
            let waiting = simulation.states.iter_mut().filter(|state| **state == State::WaitsForWrite(line));
            waiting.for_each(|state| *state = State::Ready);
        }
    });
}

/// Sleeps until the line of `address` is written. Call it right behind the load that said that there is something to wait for.
pub(crate) fn wait_for_write(address: usize) {
    let Some(cpu) = current() else { panic!("nobody runs who could write") };
    simulation(|simulation| simulation.states[cpu] = State::WaitsForWrite(address >> LINE_BITS));
    give_way();
}

/// Tells the atlas what it should know about an address; nothing outside of a simulation.
pub(crate) fn chart(f: impl FnOnce(&mut Atlas)) {
    SIMULATION.with_borrow_mut(|simulation| {
        if let Some(simulation) = simulation {
            f(&mut simulation.atlas);
        }
    });
}

/// Has `cpus` CPUs make `phases[i]` pairs each in phase `i`, CPU `c` by calling `pair(c, n)` for its `n`th one.
pub(crate) fn run(
    cpus: usize,
    seed: u64,
    atlas: Atlas,
    phases: &[usize],
    pair: &(dyn Fn(usize, usize) + Sync),
) -> Vec<Tally> {
    assert!((1..=MAX_CPUS).contains(&cpus), "{cpus} CPUs: 1 to {MAX_CPUS} can be simulated");
    let work = |cpu: usize| {
        let mut number = 0;
        for &pairs in phases {
            for _ in 0..pairs {
                pair(cpu, number);
                number += 1;
            }
            simulation(|simulation| simulation.states[cpu] = State::AtBarrier);
            give_way();
        }
        simulation(|simulation| simulation.states[cpu] = State::Done);
    };
    let work = &work;
    let simulation_of_this_run =
        Simulation { machine: Machine::default(), atlas, tally: Tally::default(), states: vec![State::Ready; cpus] };
    SIMULATION.set(Some(simulation_of_this_run));
    let mut fibers: Vec<_> =
        (0..cpus).map(|cpu| generator::Gn::<()>::new_opt(STACK, move || work(cpu))).collect();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut tallies = Vec::new();
    let mut ready = Vec::with_capacity(cpus);
    loop {
        ready.clear();
        simulation(|simulation| {
            ready.extend((0..cpus).filter(|&cpu| simulation.states[cpu] == State::Ready));
        });
        if let Some(&cpu) = random.choice(&ready) {
            CPU.set(Some(cpu));
            fibers[cpu].resume();
            CPU.set(None);
            continue;
        }
        let done = simulation(|simulation| {
            let state = simulation.states[0];
            assert!(
                matches!(state, State::AtBarrier | State::Done) && simulation.states.iter().all(|other| *other == state),
                "every CPU waits for another one"
            );
            if state == State::AtBarrier {
                let pairs = (cpus * phases[tallies.len()]) as u64;
                tallies.push(Tally { pairs, ..std::mem::take(&mut simulation.tally) });
                simulation.states.fill(State::Ready);
            }
            state == State::Done
        });
        if done {
            drop(fibers);
            SIMULATION.set(None);
            return tallies;
        }
    }
}
