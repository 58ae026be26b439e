//! The simulated CPUs: fibers on one thread that take turns at each access to a shared line.
//!
//! # Promise
//! The same seed gives the same interleaving. Before each traced access the CPU's fiber hands the turn back, and the
//! seeded generator draws who goes on, each with the same chance. So the CPUs are equally fast on average, and any
//! order of accesses is possible.
//!
//! # Shape
//! [`run`] makes a fiber for each CPU and has them work through phases with a barrier behind each; what the machine
//! counted in a phase is one [`Tally`]. The traced atomics (`sync`) call [`access`]. Who waits for a word to change
//! calls [`wait_for_write`], which stands for spinning on a copy in one's own cache: that costs nothing until somebody
//! takes the copy away.
//!
//! Outside of a fiber nothing is traced: a lock is filled that way before the CPUs start, with cold caches.

use crate::mesi::{Access, MAX_CPUS, Machine};
use crate::sites::{Atlas, Site};
use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};
use std::ops::AddAssign;

/// Words (not bytes) of a fiber's stack.
const STACK: usize = 0x8000;

/// How a run is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) cpus: usize,
    /// Of the interleaving.
    pub(crate) seed: u64,
    /// Bytes that move together: 64, or 128 where the prefetcher always takes the line beside as well.
    pub(crate) line: usize,
}

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
    pub(crate) by_site: FxHashMap<Site, Counts>,
    /// Nodes that were put into a tree.
    pub(crate) nodes_made: u64,
}

impl Tally {
    pub(crate) fn nodes_made_in_1000(&self) -> f64 {
        1e3 * self.nodes_made as f64 / self.pairs as f64
    }

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
    line: usize,
    machine: Machine,
    atlas: Atlas,
    tally: Tally,
    states: Vec<State>,
    /// Whether `ready` is to be made anew.
    changed: bool,
    /// The CPUs that are.
    ready: Vec<usize>,
}

impl Simulation {
    fn set(&mut self, cpu: usize, state: State) {
        self.states[cpu] = state;
        self.changed = true;
    }

    /// Those who can go on.
    fn ready(&mut self) -> &[usize] {
        if std::mem::take(&mut self.changed) {
            self.ready.clear();
            self.ready.extend((0..self.states.len()).filter(|&cpu| self.states[cpu] == State::Ready));
        }
        &self.ready
    }

    /// Readies whoever waits for a write to `line`.
    fn wake(&mut self, line: usize) {
        if self.ready.len() == self.states.len() {
            return;
        }
        for cpu in 0..self.states.len() {
            if self.states[cpu] == State::WaitsForWrite(line) {
                self.set(cpu, State::Ready);
            }
        }
    }

    /// When nobody can go on: ends a phase, if it was a phase's end. `false`: all are done.
    fn end_phase(&mut self, pairs: impl FnOnce() -> u64, tallies: &mut Vec<Tally>) -> bool {
        let state = self.states[0];
        let is_end = matches!(state, State::AtBarrier | State::Done);
        assert!(is_end && self.states.iter().all(|other| *other == state), "every CPU waits for another one");
        if state == State::AtBarrier {
            tallies.push(Tally { pairs: pairs(), ..std::mem::take(&mut self.tally) });
            (0..self.states.len()).for_each(|cpu| self.set(cpu, State::Ready));
        }
        state == State::AtBarrier
    }
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
    simulation(|simulation| {
        let line = address / simulation.line;
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
            simulation.wake(line);
        }
    });
}

/// Sleeps until the line of `address` is written. Call it right behind the load that said that there is something to
/// wait for.
pub(crate) fn wait_for_write(address: usize) {
    let Some(cpu) = current() else { panic!("nobody runs who could write") };
    simulation(|simulation| simulation.set(cpu, State::WaitsForWrite(address / simulation.line)));
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

/// The running CPU has put a node into a tree.
pub(crate) fn node_made() {
    if current().is_some() {
        simulation(|simulation| simulation.tally.nodes_made += 1);
    }
}

/// Has all CPUs make `phases[i]` pairs each in phase `i`, CPU `c` by calling `pair(c, n)` for its `n`th one.
pub(crate) fn run(setup: Setup, atlas: Atlas, phases: &[usize], pair: &(dyn Fn(usize, usize) + Sync)) -> Vec<Tally> {
    let Setup { cpus, seed, line } = setup;
    assert!((1..=MAX_CPUS).contains(&cpus), "{cpus} CPUs: 1 to {MAX_CPUS} can be simulated");
    let work = |cpu: usize| {
        let mut number = 0;
        for &pairs in phases {
            for _ in 0..pairs {
                pair(cpu, number);
                number += 1;
            }
            simulation(|simulation| simulation.set(cpu, State::AtBarrier));
            give_way();
        }
        simulation(|simulation| simulation.set(cpu, State::Done));
    };
    let work = &work;
    let fresh = Simulation {
        line,
        machine: Machine::default(),
        atlas,
        tally: Tally::default(),
        states: vec![State::Ready; cpus],
        changed: true,
        ready: Vec::with_capacity(cpus),
    };
    SIMULATION.set(Some(fresh));
    let mut fibers: Vec<_> = (0..cpus).map(|cpu| generator::Gn::<()>::new_opt(STACK, move || work(cpu))).collect();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut tallies = Vec::new();
    loop {
        let next = simulation(|simulation| random.choice(simulation.ready()).copied());
        if let Some(cpu) = next {
            CPU.set(Some(cpu));
            fibers[cpu].resume();
            CPU.set(None);
        } else if !simulation(|simulation| {
            let phase = tallies.len();
            simulation.end_phase(|| (cpus * phases[phase]) as u64, &mut tallies)
        }) {
            drop(fibers);
            SIMULATION.set(None);
            return tallies;
        }
    }
}
