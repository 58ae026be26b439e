//! What the models of the protocol play on: a lock's requests, with two bytes to meet at.
//!
//! Who only sets the scene is placed, or queued, by the main thread, before the others start.

use super::Byte;
use crate::facts::error::Refused;
use crate::facts::mode::Mode::{self, Add, Block, Exclusive};
use crate::facts::owner::{Asker, Owner};
use crate::facts::range::ByteRange;
use crate::platform::reclaim::LazyPin;
use crate::protocol::drain::{Begun, Drain};
use crate::protocol::grant::{self, Doorway, Held, Holds, Live, Waiter};
use crate::protocol::lock_state::{self, LockState};
use loom::thread::{self, JoinHandle};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The first byte of the root's second cell: a range around it cannot go down.
pub(super) const MIDDLE: u64 = 1 << 63;

/// A tree, and the bytes 0 and 1. A node has two slots, and a root without children no third: then a child is made, or
/// a chain.
pub(super) struct Stage {
    pub(super) state: LockState,
    /// Byte 0.
    pub(super) byte: Byte,
    /// Byte 1.
    pub(super) next: Byte,
}

/// A request. `who` is its owner, and where it looks for a slot first: an even one at slot 0, an odd one at slot 1.
#[derive(Clone)]
pub(super) struct Ask {
    bytes: RangeInclusive<u64>,
    pub(super) mode: Mode,
    who: u64,
    nested: bool,
    token: Option<Owner>,
}

pub(super) fn add(bytes: RangeInclusive<u64>, who: u64) -> Ask {
    Ask { bytes, mode: Add, who, nested: false, token: None }
}

pub(super) fn block(bytes: RangeInclusive<u64>, who: u64) -> Ask {
    Ask { mode: Block, ..add(bytes, who) }
}

pub(super) fn exclusive(bytes: RangeInclusive<u64>, who: u64) -> Ask {
    Ask { mode: Exclusive, ..add(bytes, who) }
}

impl Ask {
    /// Its owner, a thread, holds something else.
    pub(super) fn nested(self) -> Ask {
        Ask { nested: true, ..self }
    }

    /// It is a request of `token`; what `who` says is where it looks for a slot first.
    pub(super) fn of(self, token: &Owner) -> Ask {
        Ask { token: Some(token.clone()), ..self }
    }

    /// The request begins.
    pub(super) fn asker(&self) -> Asker {
        let thread = Asker::numbered(self.who);
        match &self.token {
            Some(token) => token.enter_from(thread.visitor),
            None if self.nested => thread.nested(),
            None => thread,
        }
    }

    /// As a request that comes before anybody has queued.
    pub(super) fn ask(&self) -> lock_state::Ask {
        let Asker { owner, order, .. } = self.asker();
        lock_state::Ask::at(ByteRange::new(self.bytes.clone()), self.mode, owner.get(), order)
    }

    pub(super) fn ask_in(&self, state: &LockState, asker: &Asker) -> lock_state::Ask {
        lock_state::Ask::new(state, ByteRange::new(self.bytes.clone()), self.mode, asker)
    }
}

// SAFETY, here and below: each model keeps its stage until all its threads have ended.
impl Stage {
    pub(super) fn new() -> Arc<Stage> {
        Arc::new(Stage { state: LockState::new(None), byte: Byte::new(), next: Byte::new() })
    }

    /// Two locks.
    pub(super) fn two() -> [Arc<Stage>; 2] {
        [Stage::new(), Stage::new()]
    }

    /// One in which the root has a child, for its first cell.
    pub(super) fn with_child() -> Arc<Stage> {
        let stage = Stage::new();
        stage.state.tree.grow_for(&exclusive(0..=0, 1).ask().entry, &LazyPin::new());
        stage
    }

    pub(super) fn enter(&self, ask: &Ask) -> Doorway<Held> {
        let asker = ask.asker();
        // SAFETY: see above.
        unsafe { grant::enter(&self.state, &ask.ask_in(&self.state, &asker), asker.visitor, ask.token.as_ref()) }
    }

    /// A request that stops in its doorway, published, and neither granted nor queued. Dropping it is giving up.
    pub(super) fn stop_in_doorway(&self, ask: &Ask) -> Live {
        let asker = ask.asker();
        let its = ask.ask_in(&self.state, &asker);
        // SAFETY: see above.
        unsafe { Live::publish(&self.state.tree, &its, asker.visitor, &LazyPin::new()) }
    }

    /// For one whom nobody is in the way of.
    pub(super) fn hold(&self, ask: Ask) -> Held {
        match self.enter(&ask) {
            Doorway::Granted(held) => held,
            Doorway::Queued(_) => panic!("it waits, and should not"),
        }
    }

    /// For one who must wait.
    pub(super) fn queue(&self, ask: Ask) -> Waiter {
        match self.enter(&ask) {
            Doorway::Granted(_) => panic!("it was granted, and should wait"),
            Doorway::Queued(waiter) => waiter,
        }
    }

    /// Waits; an error is a deadlock.
    pub(super) fn ask(&self, ask: &Ask) -> Result<Held, Refused> {
        let asker = ask.asker();
        // SAFETY: see above.
        unsafe { grant::acquire(&self.state, &ask.ask_in(&self.state, &asker), asker.visitor, ask.token.as_ref()) }
            .map_err(|error| *error)
    }

    pub(super) fn acquire(&self, ask: &Ask) -> Held {
        self.ask(ask).expect("no cycle in this model")
    }

    pub(super) fn try_acquire(&self, ask: &Ask) -> Option<Held> {
        let asker = ask.asker();
        // SAFETY: see above.
        unsafe { grant::try_acquire(&self.state, &ask.ask_in(&self.state, &asker), asker.visitor) }
    }

    /// A drain of what `ask` is about, if somebody is there.
    pub(super) fn begin_drain(&self, ask: &Ask) -> Option<Drain> {
        let asker = ask.asker();
        // SAFETY: see above.
        unsafe { Drain::begin(&self.state, &ask.ask_in(&self.state, &asker), ask.token.as_ref(), Begun::InPoll) }
    }

    /// Waits until those have gone; an error is a deadlock.
    pub(super) fn drain(&self, ask: &Ask) -> Result<(), Refused> {
        self.begin_drain(ask).map_or(Ok(()), |drain| drain.wait(&self.state))
    }

    /// Whether a look from outside finds nobody in the way.
    pub(super) fn is_clear_for(&self, ask: &Ask) -> bool {
        ask.ask().is_clear(&self.state.tree, None, &LazyPin::new())
    }

    /// Waits, touches the byte, releases.
    pub(super) fn cycle(&self, ask: Ask) {
        let held = self.acquire(&ask);
        self.byte.touch(ask.mode);
        drop(held);
    }

    /// The same of one that is queued.
    pub(super) fn finish(&self, waiter: Waiter, mode: Mode) {
        let held = waiter.finish();
        self.byte.touch(mode);
        drop(held);
    }

    /// Touches the byte that `held` holds, and releases.
    pub(super) fn release(&self, held: Held, mode: Mode) {
        self.byte.touch(mode);
        drop(held);
    }

    /// Everyone has ended: nothing may be left behind.
    pub(super) fn assert_idle(&self) {
        assert_eq!(grant::count(&self.state.tree), (0, 0), "something was left behind");
    }
}

pub(super) fn assert_idle(stages: &[Arc<Stage>]) {
    stages.iter().for_each(|stage| stage.assert_idle());
}

/// The doorway of a batch: parts on several stages, all of one owner.
pub(super) fn enter_batch(parts: &[(&Stage, Ask)]) -> Doorway<Holds> {
    let (_, first) = &parts[0];
    let asker = first.asker();
    let asks: Vec<_> = parts.iter().map(|(stage, ask)| (&stage.state, ask.ask_in(&stage.state, &asker))).collect();
    // SAFETY: see above.
    unsafe { grant::enter_batch(&asks, asker.visitor, first.token.as_ref()) }
}

/// For a batch that must wait.
pub(super) fn queue_batch(parts: &[(&Stage, Ask)]) -> Waiter {
    match enter_batch(parts) {
        Doorway::Granted(_) => panic!("it was granted, and should wait"),
        Doorway::Queued(waiter) => waiter,
    }
}

pub(super) fn spawn<T: 'static>(stage: &Arc<Stage>, run: impl FnOnce(&Stage) -> T + 'static) -> JoinHandle<T> {
    let stage = Arc::clone(stage);
    thread::spawn(move || run(&stage))
}

/// The same on two.
pub(super) fn spawn_on<T: 'static>(
    stages: [&Arc<Stage>; 2],
    run: impl FnOnce(&Stage, &Stage) -> T + 'static,
) -> JoinHandle<T> {
    let [one, other] = stages.map(Arc::clone);
    thread::spawn(move || run(&one, &other))
}

pub(super) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}
