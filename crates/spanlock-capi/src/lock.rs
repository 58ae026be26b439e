//! Locks, owners, and requests that block the thread.

use crate::guard::spanlock_guard;
use crate::status::{
    Failure, SPANLOCK_BUSY, SPANLOCK_FOREVER, answer, borrow, free, mode, place, range, spanlock_mode, spanlock_status,
    text, value,
};
use spanlock::{Mode, Owner, RangeLock};
use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

/// A lock: for one file, device or table.
#[allow(non_camel_case_types)]
pub struct spanlock_lock(pub(crate) Arc<RangeLock>);

/// An owner: a transaction, a client, a job. It never conflicts with itself, whichever threads ask
/// for it, and what its requests wait for is looked at for deadlocks.
///
/// A request without an owner (NULL) is its own: a thread that holds a range so, and waits for one
/// that conflicts, waits for itself, for ever. So give an owner to whoever holds one range while it
/// asks for another.
#[allow(non_camel_case_types)]
pub struct spanlock_owner(pub(crate) Owner);

/// A new lock; `name`, for messages, may be NULL. NULL if `name` is no UTF-8.
///
/// # Safety
/// `name` is NULL or a string that ends with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanlock_lock_new(name: *const c_char) -> *mut spanlock_lock {
    value(ptr::null_mut(), || {
        let mut lock = RangeLock::new();
        // SAFETY: the caller's promise.
        if let Some(name) = unsafe { text(name, "the name") }? {
            lock.set_name(name.to_owned());
        }
        Ok(Box::into_raw(Box::new(spanlock_lock(Arc::new(lock)))))
    })
}

/// Frees the handle. Guards and requests keep the lock itself for as long as they need it. NULL is
/// allowed.
///
/// # Safety
/// `lock` is NULL or a lock of this library, and this handle is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanlock_lock_free(lock: *mut spanlock_lock) {
    // SAFETY: the caller's promise.
    unsafe { free(lock) }
}

/// A new owner; `name`, for messages, may be NULL. NULL if `name` is no UTF-8.
///
/// # Safety
/// `name` is NULL or a string that ends with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanlock_owner_new(name: *const c_char) -> *mut spanlock_owner {
    value(ptr::null_mut(), || {
        // SAFETY: the caller's promise.
        let owner = unsafe { text(name, "the name") }?.map_or_else(Owner::new, Owner::named);
        Ok(Box::into_raw(Box::new(spanlock_owner(owner))))
    })
}

/// Frees the handle. What its requests hold, they go on holding. NULL is allowed.
///
/// # Safety
/// `owner` is NULL or an owner of this library, and this handle is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanlock_owner_free(owner: *mut spanlock_owner) {
    // SAFETY: the caller's promise.
    unsafe { free(owner) }
}

/// Asks for `length` bytes from `offset` on (0: to the end), and waits for at most `timeout_ns`
/// nanoseconds (SPANLOCK_FOREVER: without end) until nobody who came before is in the way.
/// Conflicting requests are granted in order of arrival. SPANLOCK_OK: `*guard` holds the bytes.
/// SPANLOCK_TIMED_OUT, SPANLOCK_DEADLOCK (of an owner only), SPANLOCK_INVALID: `*guard` is NULL.
///
/// # Safety
/// `lock` is NULL or a lock of this library, `owner` NULL or an owner of it, and `guard` NULL or
/// may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanlock_wait(
    lock: *const spanlock_lock,
    offset: u64,
    length: u64,
    mode: spanlock_mode,
    owner: *const spanlock_owner,
    timeout_ns: u64,
    guard: *mut *mut spanlock_guard,
) -> spanlock_status {
    answer(|| {
        // SAFETY: the caller's promise.
        let out = unsafe { place(guard) }?;
        // SAFETY: as above.
        let ask = unsafe { Asked::new(lock, offset, length, mode, owner) }?;
        // One that is too long to be a time is none.
        let timeout = timeout(timeout_ns);
        let granted: spanlock_guard = match ask.owner {
            Some(owner) => ask.request().owner(owner).timeout(timeout).wait()?.into(),
            None => ask.request().timeout(timeout).wait()?.into(),
        };
        *out = granted.into_raw();
        Ok(())
    })
}

/// As `spanlock_wait`, but SPANLOCK_BUSY if anybody holds, waits or is just asking in a mode that
/// conflicts.
///
/// # Safety
/// As for `spanlock_wait`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanlock_try(
    lock: *const spanlock_lock,
    offset: u64,
    length: u64,
    mode: spanlock_mode,
    owner: *const spanlock_owner,
    guard: *mut *mut spanlock_guard,
) -> spanlock_status {
    answer(|| {
        // SAFETY: the caller's promise.
        let out = unsafe { place(guard) }?;
        // SAFETY: as above.
        let ask = unsafe { Asked::new(lock, offset, length, mode, owner) }?;
        let granted: Option<spanlock_guard> = match ask.owner {
            Some(owner) => ask.request().owner(owner).try_now().map(Into::into),
            None => ask.request().try_now().map(Into::into),
        };
        let busy = || Failure(SPANLOCK_BUSY, format!("{} in mode {:?}: somebody is in the way", ask.range, ask.mode));
        *out = granted.ok_or_else(busy)?.into_raw();
        Ok(())
    })
}

/// Who holds and who waits, for how long and for whom, as text with a drawing. Free it with
/// `spanlock_text_free`. NULL if `lock` is.
///
/// # Safety
/// `lock` is NULL or a lock of this library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanlock_snapshot(lock: *const spanlock_lock) -> *mut c_char {
    value(ptr::null_mut(), || {
        // SAFETY: the caller's promise.
        let text = unsafe { borrow(lock, "the lock") }?.0.snapshot().to_string();
        Ok(CString::new(text.replace('\0', " ")).expect("it has no NUL any more").into_raw())
    })
}

/// Frees what `spanlock_snapshot` gave. NULL is allowed.
///
/// # Safety
/// `text` is NULL, or of `spanlock_snapshot` and not freed yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanlock_text_free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: the caller's promise.
        drop(unsafe { CString::from_raw(text) });
    }
}

/// What a call asks for, looked at.
pub(crate) struct Asked<'a> {
    lock: &'a Arc<RangeLock>,
    pub(crate) range: spanlock::ByteRange,
    pub(crate) mode: Mode,
    pub(crate) owner: Option<&'a Owner>,
}

impl<'a> Asked<'a> {
    /// # Safety
    /// As for [`spanlock_wait`].
    pub(crate) unsafe fn new(
        lock: *const spanlock_lock,
        offset: u64,
        length: u64,
        asked: spanlock_mode,
        owner: *const spanlock_owner,
    ) -> Result<Asked<'a>, Failure> {
        // SAFETY: the caller's promise.
        let lock = unsafe { borrow(lock, "the lock") }?;
        // SAFETY: as above.
        let owner = unsafe { owner.as_ref() };
        Ok(Asked {
            lock: &lock.0,
            range: range(offset, length)?,
            mode: mode(asked)?,
            owner: owner.map(|owner| &owner.0),
        })
    }

    pub(crate) fn request(&self) -> spanlock::Request<Arc<RangeLock>> {
        self.lock.request_arc(self.range, self.mode)
    }
}

pub(crate) fn timeout(nanoseconds: u64) -> Duration {
    match nanoseconds {
        SPANLOCK_FOREVER => Duration::MAX,
        nanoseconds => Duration::from_nanos(nanoseconds),
    }
}
