//! What is held, and what it can be turned into.

use crate::status::{
    Failure, SPANLOCK_BUSY, answer, borrow, borrow_mut, free, invalid, mode, mode_of, place, range, spanlock_mode,
    spanlock_status, value,
};
use spanlock::{ByOwner, ByTask, ByteRange, Guard, Mode, RangeLock};
use std::sync::Arc;

/// A range that is held. `spanlock_guard_release` lets it go; any thread may.
#[allow(non_camel_case_types)]
pub struct spanlock_guard(pub(crate) Kind);

/// A request without an owner is its own.
pub(crate) enum Kind {
    Alone(Guard<Arc<RangeLock>, ByTask>),
    Owned(Guard<Arc<RangeLock>, ByOwner>),
}

impl From<Guard<Arc<RangeLock>, ByTask>> for spanlock_guard {
    fn from(guard: Guard<Arc<RangeLock>, ByTask>) -> spanlock_guard {
        spanlock_guard(Kind::Alone(guard))
    }
}

impl From<Guard<Arc<RangeLock>, ByOwner>> for spanlock_guard {
    fn from(guard: Guard<Arc<RangeLock>, ByOwner>) -> spanlock_guard {
        spanlock_guard(Kind::Owned(guard))
    }
}

/// The same for either kind.
macro_rules! either {
    ($kind:expr, $guard:ident => $do:expr) => {
        match $kind {
            Kind::Alone($guard) => $do,
            Kind::Owned($guard) => $do,
        }
    };
}

impl spanlock_guard {
    pub(crate) fn into_raw(self) -> *mut spanlock_guard {
        Box::into_raw(Box::new(self))
    }

    fn range(&self) -> ByteRange {
        either!(&self.0, guard => guard.range())
    }

    fn mode(&self) -> Mode {
        either!(&self.0, guard => guard.mode())
    }

    /// The range that was asked for, if it is a part of what is held.
    fn part(&self, offset: u64, length: u64) -> Result<ByteRange, Failure> {
        let (part, held) = (range(offset, length)?, self.range());
        match held.contains_all(part) {
            true => Ok(part),
            false => Err(invalid(format!("{part} is not a part of {held}, which the guard holds"))),
        }
    }
}

fn bounds(range: ByteRange) -> std::ops::RangeInclusive<u64> {
    let (first, last) = (range.start(), range.last());
    first.expect("a guard for C holds something")..=last.expect("as above")
}

/// Lets go of the range, and of the guard. NULL is allowed.
///
/// # Safety
/// `guard` is NULL or a guard of this library, and nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanlock_guard_release(guard: *mut spanlock_guard) {
    // SAFETY: the caller's promise.
    unsafe { free(guard) }
}

/// The first byte that is held. (0 if `guard` is NULL.)
///
/// # Safety
/// `guard` is NULL or a guard of this library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanlock_guard_first(guard: *const spanlock_guard) -> u64 {
    // SAFETY: the caller's promise.
    value(0, || Ok(unsafe { borrow(guard, "the guard") }?.range().start().unwrap_or(0)))
}

/// The last byte that is held. (0 if `guard` is NULL.)
///
/// # Safety
/// `guard` is NULL or a guard of this library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanlock_guard_last(guard: *const spanlock_guard) -> u64 {
    // SAFETY: the caller's promise.
    value(0, || Ok(unsafe { borrow(guard, "the guard") }?.range().last().unwrap_or(0)))
}

/// The mode in which it is held. (-1 if `guard` is NULL.)
///
/// # Safety
/// `guard` is NULL or a guard of this library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanlock_guard_mode(guard: *const spanlock_guard) -> spanlock_mode {
    // SAFETY: the caller's promise.
    value(-1, || Ok(mode_of(unsafe { borrow(guard, "the guard") }?.mode())))
}

/// Makes an exclusive guard one that adds or blocks, without letting go. Whoever waits for that
/// goes on.
///
/// # Safety
/// `guard` is NULL or a guard of this library, and nobody else uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanlock_guard_downgrade(guard: *mut spanlock_guard, to: spanlock_mode) -> spanlock_status {
    answer(|| {
        // SAFETY: the caller's promise.
        let guard = unsafe { borrow_mut(guard, "the guard") }?;
        let (from, to) = (guard.mode(), mode(to)?);
        if from != to && from != Mode::Exclusive {
            return Err(invalid(format!(
                "a guard in mode {from:?} cannot be downgraded to {to:?}: spanlock_guard_try_convert may change it"
            )));
        }
        either!(&mut guard.0, guard => guard.downgrade(to));
        Ok(())
    })
}

/// Changes the mode if nobody is in the way; else SPANLOCK_BUSY, and it is as it was.
///
/// # Safety
/// As for `spanlock_guard_downgrade`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanlock_guard_try_convert(guard: *mut spanlock_guard, to: spanlock_mode) -> spanlock_status {
    answer(|| {
        // SAFETY: the caller's promise.
        let guard = unsafe { borrow_mut(guard, "the guard") }?;
        let to = mode(to)?;
        match either!(&mut guard.0, guard => guard.try_convert(to)) {
            true => Ok(()),
            false => Err(busy(format!("{} cannot become {to:?}: somebody holds, or waits", guard.range()))),
        }
    })
}

/// Extends what is held to `length` bytes from `offset` on (0: to the end) if nobody is in the way;
/// else SPANLOCK_BUSY, and it is as it was.
///
/// # Safety
/// As for `spanlock_guard_downgrade`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanlock_guard_try_extend(
    guard: *mut spanlock_guard,
    offset: u64,
    length: u64,
) -> spanlock_status {
    answer(|| {
        // SAFETY: the caller's promise.
        let guard = unsafe { borrow_mut(guard, "the guard") }?;
        let (to, held) = (range(offset, length)?, guard.range());
        if !to.contains_all(held) {
            return Err(invalid(format!("{to} does not contain {held}, which the guard holds")));
        }
        match either!(&mut guard.0, guard => guard.try_extend(bounds(to))) {
            true => Ok(()),
            false => Err(busy(format!("{held} cannot become {to}: somebody holds, or waits"))),
        }
    })
}

/// Gives back all but `length` bytes from `offset` on (0: to the end of what is held).
///
/// # Safety
/// As for `spanlock_guard_downgrade`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanlock_guard_shrink(
    guard: *mut spanlock_guard,
    offset: u64,
    length: u64,
) -> spanlock_status {
    answer(|| {
        // SAFETY: the caller's promise.
        let guard = unsafe { borrow_mut(guard, "the guard") }?;
        let rest = match (length, guard.range().last()) {
            (0, Some(last)) if offset <= last => last - offset,
            _ => length.saturating_sub(1),
        };
        let part = guard.part(offset, rest.saturating_add(1))?;
        either!(&mut guard.0, guard => guard.shrink(bounds(part)));
        Ok(())
    })
}

/// Makes two guards of one: `guard` keeps the bytes before `at`, `*tail` gets the others. No byte
/// is let go of. `at` lies within what is held, and is not its first byte.
///
/// # Safety
/// As for `spanlock_guard_downgrade`; `tail` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanlock_guard_split(
    guard: *mut spanlock_guard,
    at: u64,
    tail: *mut *mut spanlock_guard,
) -> spanlock_status {
    answer(|| {
        // SAFETY: the caller's promise.
        let tail = unsafe { place(tail) }?;
        // SAFETY: as above.
        let whole = unsafe { borrow_mut(guard, "the guard") }?;
        let held = whole.range();
        if !held.contains(at) || held.start() == Some(at) {
            return Err(invalid(format!(
                "{held} cannot be split at {at}: that is not behind its first byte and within"
            )));
        }
        let rest: spanlock_guard = either!(&mut whole.0, guard => guard.split_off(at).into());
        *tail = rest.into_raw();
        Ok(())
    })
}

fn busy(message: String) -> Failure {
    Failure(SPANLOCK_BUSY, message)
}
