//! Several ranges, of one lock or of several, under one place in the queue.

use crate::guard::spanlock_guard;
use crate::lock::{spanlock_lock, spanlock_owner, timeout};
use crate::status::{
    Failure, SPANLOCK_BUSY, answer, borrow, borrow_mut, free, invalid, mode, range, spanlock_mode, spanlock_status,
};
use spanlock::{Batch, ByteRange, Mode, RangeLock};
use std::ptr;
use std::sync::Arc;

/// Ranges that are asked for together: all of them are granted, at one moment, or none. It cannot
/// be part of a deadlock if its owner holds nothing else.
#[allow(non_camel_case_types)]
#[derive(Default)]
pub struct spanlock_batch(Vec<(Arc<RangeLock>, ByteRange, Mode)>);

/// A batch without parts.
#[unsafe(no_mangle)]
pub extern "C" fn spanlock_batch_new() -> *mut spanlock_batch {
    Box::into_raw(Box::default())
}

/// Frees it. NULL is allowed.
///
/// # Safety
/// `batch` is NULL or a batch of this library, and nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanlock_batch_free(batch: *mut spanlock_batch) {
    // SAFETY: the caller's promise.
    unsafe { free(batch) }
}

/// One more part: `length` bytes of `lock` from `offset` on (0: to the end).
///
/// # Safety
/// `batch` is NULL or a batch of this library, and nobody else uses it; `lock` is NULL or a lock of
/// this library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanlock_batch_part(
    batch: *mut spanlock_batch,
    lock: *const spanlock_lock,
    offset: u64,
    length: u64,
    asked: spanlock_mode,
) -> spanlock_status {
    answer(|| {
        // SAFETY: the caller's promise.
        let batch = unsafe { borrow_mut(batch, "the batch") }?;
        // SAFETY: as above.
        let lock = unsafe { borrow(lock, "the lock") }?;
        batch.0.push((lock.0.clone(), range(offset, length)?, mode(asked)?));
        Ok(())
    })
}

/// Waits for all parts, as `spanlock_wait` for one; a timeout of 0 is a try, and SPANLOCK_BUSY its
/// failure. `guards` has room for `count` guards, the number of parts; they come in the order of
/// the parts. The batch can be used again.
///
/// # Safety
/// `batch` is NULL or a batch of this library, `owner` NULL or an owner of it; `guards` is NULL, or
/// there may be written `count` pointers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanlock_batch_wait(
    batch: *const spanlock_batch,
    owner: *const spanlock_owner,
    timeout_ns: u64,
    guards: *mut *mut spanlock_guard,
    count: usize,
) -> spanlock_status {
    answer(|| {
        // SAFETY: the caller's promise.
        let batch = unsafe { borrow(batch, "the batch") }?;
        // SAFETY: as above.
        let owner = unsafe { owner.as_ref() };
        if count != batch.0.len() || guards.is_null() {
            let places = if guards.is_null() { 0 } else { count };
            return Err(invalid(format!(
                "the batch has {} parts, and there are {places} places for guards",
                batch.0.len()
            )));
        }
        // SAFETY: it is not NULL, and the caller promises that many.
        let places = unsafe { std::slice::from_raw_parts_mut(guards, count) };
        places.fill(ptr::null_mut());
        let parts = batch.0.iter().cloned();
        let asked = parts.fold(Batch::new(), |asked, (lock, range, mode)| asked.request(lock, range, mode));
        let granted: Vec<spanlock_guard> = match (owner, timeout_ns) {
            (Some(owner), 0) => {
                asked.owner(&owner.0).try_now().map(|all| guards_of(all.into_parts())).ok_or_else(busy)?
            }
            (Some(owner), _) => guards_of(asked.owner(&owner.0).timeout(timeout(timeout_ns)).wait()?.into_parts()),
            (None, 0) => asked.try_now().map(|all| guards_of(all.into_parts())).ok_or_else(busy)?,
            (None, _) => guards_of(asked.timeout(timeout(timeout_ns)).wait()?.into_parts()),
        };
        for (place, guard) in places.iter_mut().zip(granted) {
            *place = guard.into_raw();
        }
        Ok(())
    })
}

fn guards_of<G: Into<spanlock_guard>>(guards: Vec<G>) -> Vec<spanlock_guard> {
    guards.into_iter().map(Into::into).collect()
}

fn busy() -> Failure {
    Failure(SPANLOCK_BUSY, "somebody is in the way of a part".to_owned())
}
