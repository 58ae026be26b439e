//! Waiting without entering: until all who came before, and are in conflict, have gone. Nobody waits for who waits so.
//!
//! # Promise
//! - *Who is waited for:* whoever held, or waited, when the call began, in conflict with the range and the mode; until
//!   it has let go of that, or given up, or become something that is not in conflict. What a hold is converted to is
//!   the same hold.
//! - *Who is not:* whoever comes later. It is granted as if nobody drained, and knows of all that the caller did before
//!   the call.
//! - *Nothing is held afterwards,* and nothing is published meanwhile, but in the index of blocked requests, for who
//!   may be a part of a cycle.
//!
//! # How
//! A fence, and a look: if nobody is there, that is all. If somebody is, a ticket is drawn, and the bar of the lock
//! raised to it (`owner`, O1). From then on *the order of a request says whether it is to be waited for*, whatever it
//! is doing ([`cycle::came_before`]): it has the stamp that it came with, or the ticket that it was queued with, and
//! keeps that as a hold, wherever it moves. So all whose order is not below the ticket came later. Those below are
//! finitely many: who holds or waits, and who is in his doorway and had begun before the bar was raised. Of these the
//! drain sleeps on one, as a queued request does, looks again, and so on. (One in his doorway who then queues draws a
//! higher ticket: it had not arrived.)
//!
//! A look is not followed by a grant that others would mind, so nobody looks for this one. Hence a hold that moves from
//! one slot to another could be missed in both: who finds nobody looks again, if one has moved meanwhile
//! ([`LockState::moves`]).
//!
//! **Who is not waited for knows what the caller did before.** Let X be in conflict. If its order is not below the
//! ticket, it has read the bar behind its raise (O1). If it is below, and the last look has not found X: X published,
//! fenced, and went on to what it was granted for. If its fence came before the one here, its slot was seen for as long
//! as it was there; so it has gone. If not, what it reads behind its fence is no older than what was written before the
//! one here. (So a flag that is set before the call, and read under each grant, is seen by all who are not waited for:
//! what one needs to turn users away and wait until the last has left.)
//!
//! # Cycles
//! A drain of an owner that holds something can be a part of a cycle, and others find it in the index. It differs from
//! a request that waits for a grant in two ways, which `protocol/cycle/search.rs` knows: what came later is not in
//! front of it, holders included; and whoever is *queued* in front of it has to be granted *and* let go before it is
//! through. So it passes nobody, and edges from it to those who wait count as if they held.
//!
//! There is one more. Nobody who converts a hold minds a drain: so one that came before it can come to be in its way by
//! becoming more, and that can close a cycle, if its owner is a token with another request that is blocked. So a drain
//! does not search once, but before each sleep behind a look that found that holds had moved since. It learns of such a
//! one when it wakes, and not before; but it does wake: whoever it sleeps on goes, or was in a cycle with it without
//! that.

use crate::facts::error::Refused;
use crate::facts::owner::{self, Owner};
use crate::platform::reclaim::LazyPin;
use crate::platform::sync::{Ordering, fence};
use crate::protocol::cycle::{self, Enlisted, Searched, Site};
use crate::protocol::grant;
use crate::protocol::lock_state::{Ask, LockState, Seen};
use crate::protocol::poison;
use crate::wait::{self, Listener, Patience, Woken};
use crate::watching::telemetry::{self, WaitClock};
use std::fmt;
use std::ops::ControlFlow::Continue;
use std::ptr::NonNull;
use std::task::{Context, Poll, ready};
use std::time::Instant;

/// Whether nobody is there who is in conflict with `ask`, and not of its owner: who comes while this looks may be found
/// or not. It publishes nothing. Lock-free: it looks again if a hold of this lock has moved meanwhile.
///
/// ORDERING: the fence pairs with that of a publication. Whoever is not found publishes behind it, and knows what the
/// caller has done; or has gone.
pub(crate) fn is_drained(state: &LockState, ask: &Ask) -> bool {
    fence(Ordering::SeqCst); // of a drain
    let pin = LazyPin::new();
    state.look_at_rest(|tree| ask.is_clear(tree, None, &pin))
}

/// Who waits until those have gone who came before. Dropping it is giving up.
pub(crate) struct Drain {
    /// Its place in the index: first, as a search that follows it goes to the lock.
    enlisted: Option<Enlisted>,
    /// How many holds had moved when it last looked for a cycle that it closes.
    searched: Option<u64>,
    ask: Ask,
    ticket: u64,
    /// How often it has gone to sleep.
    sleeps: u32,
    /// Where a future sleeps.
    listener: Option<Listener>,
    clock: WaitClock,
}

/// Whence it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// A call, which blocks its thread.
    InCall,
    /// A poll.
    InPoll,
}

/// What a look says.
enum Look {
    /// Nobody is left.
    Drained,
    /// Something changed meanwhile.
    Again,
    /// It will hear when that may have changed.
    Wait(Listener),
}

/// Those who are left.
struct Left<'t> {
    /// The one who came last: of those who go in the order in which they came, it is the last to go.
    last: Option<Seen<'t>>,
    /// Any of them, each as likely as the others.
    any: Option<Seen<'t>>,
    /// A holder whom nobody waits for.
    poisoned: Option<Seen<'t>>,
    count: usize,
    /// How many holds had moved before this look.
    moves: u64,
}

impl<'t> Left<'t> {
    fn of(state: &'t LockState, ask: &Ask, ticket: u64, mut dice: u64, pin: &'t LazyPin) -> Left<'t> {
        let mut left = Left { last: None, any: None, poisoned: None, count: 0, moves: state.moves() };
        let _ = state.tree.scan(&ask.query(), None, pin, |seen| {
            if cycle::came_before(&seen, ticket) {
                left.count += 1;
                if seen.word().is_poisoned() {
                    left.poisoned = Some(seen);
                }
                // As in `grant`: the n-th takes the place of those before it once in n times.
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if ((dice >> 32) * left.count as u64) >> 32 == 0 {
                    left.any = Some(seen);
                }
                if left.last.is_none_or(|last| last.order() < seen.order()) {
                    left.last = Some(seen);
                }
            }
            Continue(())
        });
        left
    }

    /// The same, and nobody who is there all the while is missed.
    fn of_all(state: &'t LockState, ask: &Ask, ticket: u64, dice: u64, pin: &'t LazyPin) -> Left<'t> {
        loop {
            let left = Left::of(state, ask, ticket, dice, pin);
            if left.count > 0 || state.moves() == left.moves {
                return left;
            }
        }
    }
}

impl Drain {
    /// `None`: nobody is there.
    ///
    /// # Safety
    /// The state is neither moved nor dropped while the `Drain` lives.
    pub(crate) unsafe fn begin(state: &LockState, ask: &Ask, token: Option<&Owner>, begun: Begun) -> Option<Drain> {
        if is_drained(state, ask) {
            return None;
        }
        let ticket = owner::ticket_for(ask.is_nested());
        // Who comes from now on knows that it comes later.
        state.raise_bar(ticket);
        let clock = telemetry::waiting(ask.range(), ask.mode(), ask.owner());
        let mut drain = Drain { enlisted: None, searched: None, ask: *ask, ticket, sleeps: 0, listener: None, clock };
        // Whom the call keeps from letting go, beside its owner: see `Enlisted::hold_up`. A poll keeps nobody.
        let (thread, scope) = if begun == Begun::InCall { grant::held_up_by(ask) } else { (None, None) };
        if ask.is_nested() || token.is_some() || thread.is_some() || scope.is_some() {
            let site = Site::of_drain(NonNull::from(state), *ask);
            // SAFETY: the caller's promise, as it is dropped with the `Drain`; and it has no slot.
            let enlisted = unsafe { Enlisted::new(ticket, ask, token, [site].into_iter().collect()) };
            if thread.is_some() || scope.is_some() {
                enlisted.hold_up(thread, scope);
            }
            drain.enlisted = Some(enlisted);
        }
        Some(drain)
    }

    fn look(&mut self, state: &LockState, patience: Patience, deadline: Option<Instant>) -> Result<Look, Refused> {
        let pin = LazyPin::new();
        let left = Left::of_all(state, &self.ask, self.ticket, self.ticket ^ u64::from(self.sleeps), &pin);
        if let Some(seen) = left.poisoned {
            return poison::refusal(state, &seen).map_or(Ok(Look::Again), Err);
        }
        // In the order in which they came, if they go so; else half of them at a time.
        let blocker = if self.sleeps % 2 == 0 { left.last } else { left.any.or(left.last) };
        let Some(blocker) = blocker else { return Ok(Look::Drained) };
        let moves = left.moves;
        let luck = &state.tree.beside.luck;
        if wait::look_for(luck, patience, left.count, || blocker.has_changed()) {
            return Ok(Look::Again);
        }
        // Listen first, then ask to be told (INV-G3).
        let (bells, index) = blocker.room();
        let mut listener = bells.listen(index, blocker.word().age());
        let will_hear = blocker.ask_for_wake();
        drop(pin);
        if !will_hear {
            return Ok(Look::Again);
        }
        if let Some(enlisted) = &mut self.enlisted {
            if self.searched != Some(moves) && enlisted.is_nested() {
                match enlisted.search(luck, patience, deadline)? {
                    Searched::Done => self.searched = Some(moves),
                    Searched::InVain => return Ok(Look::Again),
                    Searched::Owed(undecided) => listener = listener.and(undecided),
                }
            }
        }
        self.sleeps = self.sleeps.wrapping_add(1);
        Ok(Look::Wait(listener))
    }

    /// `state` is the one that it began in.
    ///
    /// # Errors
    /// [`Refused::Deadlock`].
    pub(crate) fn wait(mut self, state: &LockState) -> Result<(), Refused> {
        loop {
            match self.look(state, Patience::GiveWay, None)? {
                Look::Drained => {
                    self.end();
                    return Ok(());
                }
                Look::Again => {}
                Look::Wait(listener) => listener.wait(),
            }
        }
    }

    /// # Errors
    /// [`Refused::Deadlock`] or [`Refused::TimedOut`].
    pub(crate) fn wait_until(mut self, state: &LockState, deadline: Instant) -> Result<(), Refused> {
        loop {
            match self.look(state, Patience::Spin, Some(deadline))? {
                Look::Drained => {
                    self.end();
                    return Ok(());
                }
                // Others who get on can make it look again and again.
                Look::Again if Instant::now() >= deadline => return Err(Refused::TimedOut),
                Look::Again => {}
                Look::Wait(listener) => {
                    if listener.wait_until(deadline) == Woken::TimedOut {
                        return Err(Refused::TimedOut);
                    }
                }
            }
        }
    }

    /// Ready when nobody is left, and the drain is to be [ended](Drain::end); or refused, and it is to be dropped.
    /// `state` is the one that it began in.
    pub(crate) fn poll(&mut self, state: &LockState, context: &mut Context<'_>) -> Poll<Result<(), Refused>> {
        loop {
            if let Some(listener) = &mut self.listener {
                ready!(listener.poll(context));
                self.listener = None;
            }
            match self.look(state, Patience::None, None)? {
                Look::Drained => return Poll::Ready(Ok(())),
                Look::Again => {}
                Look::Wait(listener) => self.listener = Some(listener),
            }
        }
    }

    /// Nobody is left.
    pub(crate) fn end(self) {
        let Drain { enlisted, listener, clock, .. } = self;
        drop(enlisted);
        drop(listener);
        clock.granted();
    }
}

/// What it waits for.
impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ask.fmt(f)
    }
}
