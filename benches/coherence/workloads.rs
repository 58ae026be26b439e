//! What the CPUs ask for.

use crate::facts::mode::Mode;
use crate::facts::range::ByteRange;
use crate::mesi::MAX_CPUS;
use crate::pattern::{self, PAGE, Pattern, Walk};
use crate::rivals::{Ask, Kind};
use std::sync::Mutex;

/// Pages of each CPU's region.
const REGION: u64 = 256;
/// Pages that are held around each CPU's page in [`Workload::Crowd`].
const NEIGHBOURS: u64 = 100;
/// Pages of a CPU in [`Workload::Interleaved`] and [`Workload::Ring`].
const STRIPES: usize = 16;
/// Pages of the file of the adders, for those who count pages.
const SMALL_FILE: u64 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    Disjoint,
    Adjacent,
    Interleaved,
    Ring,
    Crowd,
    Adders,
    Hot,
    /// CPUs that have no home. (The counter of a tail is none of the lock's lines, and is not counted.)
    Roaming(Pattern),
}

impl Workload {
    pub(crate) const ALL: [Workload; 12] = [
        Workload::Disjoint,
        Workload::Adjacent,
        Workload::Interleaved,
        Workload::Ring,
        Workload::Crowd,
        Workload::Adders,
        Workload::Hot,
        Workload::Roaming(Pattern::Scattered { bytes: 1 << 20, shared: 0 }),
        Workload::Roaming(Pattern::Scattered { bytes: 1 << 40, shared: 0 }),
        Workload::Roaming(Pattern::OneInThousand),
        Workload::Roaming(Pattern::Tail),
        Workload::Roaming(Pattern::Skewed),
    ];

    pub(crate) fn name(self) -> String {
        match self {
            Workload::Disjoint => "disjoint".into(),
            Workload::Adjacent => "adjacent".into(),
            Workload::Interleaved => "interleaved".into(),
            Workload::Ring => "ring".into(),
            Workload::Crowd => "crowd".into(),
            Workload::Adders => "adders".into(),
            Workload::Hot => "hot".into(),
            Workload::Roaming(pattern) => pattern.name(),
        }
    }

    pub(crate) fn describe(self) -> &'static str {
        match self {
            Workload::Disjoint => "each CPU takes a page of its own region, a megabyte apart, exclusively",
            Workload::Adjacent => "each CPU takes a page of its own, exclusively, side by side with the next one's",
            Workload::Interleaved => {
                "CPU c of n takes the pages c, c + n, c + 2n ... c + 15n in random order, exclusively"
            }
            Workload::Ring => "the same pages, but in turn",
            Workload::Crowd => "as disjoint, with 100 pages held for good around each CPU's page",
            Workload::Adders => "everybody adds to the whole file",
            Workload::Hot => "everybody takes the same page, exclusively",
            Workload::Roaming(pattern) => pattern.describe(),
        }
    }

    /// Whether it can be asked of a lock of this kind, as it is or in a way that is kinder to the lock.
    pub(crate) fn suits(self, kind: Kind) -> bool {
        match (self, kind) {
            // Held for good, the whole file would never be free.
            (Workload::Crowd, Kind::ReaderWriter) => false,
            // There is nothing private, and nothing exclusive.
            (Workload::Adders | Workload::Hot | Workload::Roaming(_), Kind::Private) => false,
            (Workload::Hot, Kind::TwoState) => false,
            _ => true,
        }
    }

    /// Whether CPUs never meet, so that a lock could let them alone.
    pub(crate) fn is_private(self) -> bool {
        matches!(self, Workload::Disjoint | Workload::Adjacent | Workload::Crowd)
    }

    /// Bytes of the file that so many CPUs work on.
    pub(crate) fn bytes(self, cpus: usize) -> u64 {
        match self {
            Workload::Disjoint | Workload::Crowd => cpus as u64 * REGION * PAGE,
            Workload::Adjacent | Workload::Interleaved | Workload::Ring => (cpus * STRIPES) as u64 * PAGE,
            Workload::Adders | Workload::Hot => SMALL_FILE * PAGE,
            Workload::Roaming(pattern) => pattern.bytes(),
        }
    }

    /// What so many CPUs ask for, from the start.
    pub(crate) fn asks(self, cpus: usize) -> Asks {
        let walks = match self {
            Workload::Roaming(pattern) => pattern.walks(cpus).map(Mutex::new).collect(),
            _ => Vec::new(),
        };
        Asks { workload: self, cpus, walks }
    }

    /// What CPU `cpu` asks for the `number`th time, where that is all that matters.
    fn planned(self, cpu: usize, cpus: usize, number: usize) -> Ask {
        let page = |page: u64| Ask { range: ByteRange::new(page * PAGE..(page + 1) * PAGE), mode: Mode::Exclusive };
        match self {
            Workload::Disjoint | Workload::Crowd => page(middle(cpu)),
            Workload::Adjacent => page(cpu as u64),
            Workload::Interleaved => {
                let stripe = fastrand::Rng::with_seed((number * MAX_CPUS + cpu) as u64).usize(..STRIPES);
                page((stripe * cpus + cpu) as u64)
            }
            Workload::Ring => page((number % STRIPES * cpus + cpu) as u64),
            Workload::Adders => Ask { range: ByteRange::WHOLE, mode: Mode::Add },
            Workload::Hot => page(0),
            Workload::Roaming(_) => unreachable!("its CPUs go their own ways"),
        }
    }

    /// What is held for good: for whom, and what.
    pub(crate) fn held(self, cpus: usize) -> Vec<(usize, Ask)> {
        if self != Workload::Crowd {
            return Vec::new();
        }
        let around = |cpu: usize| {
            (0..NEIGHBOURS).map(move |index| {
                let distance = 2 * (index / 2 + 1);
                let page = if index % 2 == 0 { middle(cpu) - distance } else { middle(cpu) + distance };
                (cpu, Ask { range: ByteRange::new(page * PAGE..(page + 1) * PAGE), mode: Mode::Exclusive })
            })
        };
        (0..cpus).flat_map(around).collect()
    }
}

/// The CPUs' asks, one after the other.
pub(crate) struct Asks {
    workload: Workload,
    cpus: usize,
    /// Of those who have no home.
    walks: Vec<Mutex<Walk>>,
}

impl Asks {
    /// What CPU `cpu` asks for now, for the `number`th time.
    pub(crate) fn next(&self, cpu: usize, number: usize) -> Ask {
        let Some(walk) = self.walks.get(cpu) else { return self.workload.planned(cpu, self.cpus, number) };
        match walk.lock().expect("no walk panics").next() {
            pattern::Ask::Shared(range) => Ask { range: ByteRange::new(range), mode: Mode::Add },
            pattern::Ask::Exclusive(range) => Ask { range: ByteRange::new(range), mode: Mode::Exclusive },
            pattern::Ask::Whole => Ask { range: ByteRange::WHOLE, mode: Mode::Exclusive },
        }
    }
}

/// The page in the middle of a CPU's region.
fn middle(cpu: usize) -> u64 {
    cpu as u64 * REGION + REGION / 2
}
