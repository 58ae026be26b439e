//! What a call answers: a status, and a sentence for people beside it.

use spanlock::{AcquireError, ByteRange, Mode};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a call answers: one of the SPANLOCK_ statuses. `spanlock_message` says more.
#[allow(non_camel_case_types)]
pub type spanlock_status = i32;

/// Done.
pub const SPANLOCK_OK: spanlock_status = 0;
/// Somebody is in the way, and the request was not to wait.
pub const SPANLOCK_BUSY: spanlock_status = 1;
/// The time was over first. Nothing is held.
pub const SPANLOCK_TIMED_OUT: spanlock_status = 2;
/// Whoever is waited for waits for this owner. Nothing new is held; let go of what the owner holds,
/// and ask for all of it at once, as a batch.
pub const SPANLOCK_DEADLOCK: spanlock_status = 3;
/// An argument is out of range or NULL. Nothing has happened.
pub const SPANLOCK_INVALID: spanlock_status = 4;
/// A fault of the library itself. Nothing new is held.
pub const SPANLOCK_PANIC: spanlock_status = 5;

/// In which mode a range is asked for: SPANLOCK_ADD, SPANLOCK_BLOCK or SPANLOCK_EXCLUSIVE.
#[allow(non_camel_case_types)]
pub type spanlock_mode = i32;

/// Goes with other adders: readers, misses of a cache.
pub const SPANLOCK_ADD: spanlock_mode = 0;
/// Goes with other blockers: direct writes.
pub const SPANLOCK_BLOCK: spanlock_mode = 1;
/// Goes with nobody.
pub const SPANLOCK_EXCLUSIVE: spanlock_mode = 2;

/// A timeout without end.
pub const SPANLOCK_FOREVER: u64 = u64::MAX;

thread_local! {
    static MESSAGE: RefCell<CString> = RefCell::default();
}

/// Why a call failed: its status, and what `spanlock_message` says.
pub(crate) struct Failure(pub(crate) spanlock_status, pub(crate) String);

pub(crate) fn invalid(message: impl Into<String>) -> Failure {
    Failure(SPANLOCK_INVALID, message.into())
}

impl From<AcquireError> for Failure {
    fn from(error: AcquireError) -> Failure {
        let status = match error {
            AcquireError::TimedOut(_) => SPANLOCK_TIMED_OUT,
            AcquireError::Deadlock(_) => SPANLOCK_DEADLOCK,
            // No call of this interface refuses recursion or poisons anybody, and there are no others yet.
            _ => SPANLOCK_INVALID,
        };
        Failure(status, error.to_string())
    }
}

pub(crate) fn say(message: &str) {
    let text = CString::new(message.replace('\0', " ")).expect("it has no NUL any more");
    MESSAGE.with_borrow_mut(|last| *last = text);
}

/// Runs what a call does; its answer, as C gets it.
pub(crate) fn answer(work: impl FnOnce() -> Result<(), Failure>) -> spanlock_status {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => SPANLOCK_OK,
        Ok(Err(Failure(status, message))) => {
            say(&message);
            status
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            say(text.unwrap_or("a panic without a message"));
            SPANLOCK_PANIC
        }
    }
}

/// The same for calls that answer with a value: `fallback` if they fail.
pub(crate) fn value<T>(fallback: T, work: impl FnOnce() -> Result<T, Failure>) -> T {
    let mut result = fallback;
    answer(|| {
        result = work()?;
        Ok(())
    });
    result
}

/// # Safety
/// `pointer` is NULL, or was given out by this library and not freed yet.
pub(crate) unsafe fn borrow<'a, T>(pointer: *const T, what: &str) -> Result<&'a T, Failure> {
    // SAFETY: the caller's promise; and whoever has a shared reference does not hand the object to a call that changes
    // it (thread rules in the header).
    unsafe { pointer.as_ref() }.ok_or_else(|| invalid(format!("{what} is NULL")))
}

/// # Safety
/// As for [`borrow`]; and nobody else uses the object meanwhile.
pub(crate) unsafe fn borrow_mut<'a, T>(pointer: *mut T, what: &str) -> Result<&'a mut T, Failure> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_mut() }.ok_or_else(|| invalid(format!("{what} is NULL")))
}

/// Where a call puts a new object: NULL until there is one.
///
/// # Safety
/// `out` is NULL, or points to a pointer that may be written.
pub(crate) unsafe fn place<'a, T>(out: *mut *mut T) -> Result<&'a mut *mut T, Failure> {
    // SAFETY: the caller's promise.
    let out = unsafe { borrow_mut(out, "the place for the answer") }?;
    *out = std::ptr::null_mut();
    Ok(out)
}

/// Frees what `Box::into_raw` gave out.
///
/// # Safety
/// `pointer` is NULL, or was given out by this library, and nobody uses it any more.
pub(crate) unsafe fn free<T>(pointer: *mut T) {
    answer(|| {
        if !pointer.is_null() {
            // SAFETY: the caller's promise: it is of a box, and freed once.
            drop(unsafe { Box::from_raw(pointer) });
        }
        Ok(())
    });
}

pub(crate) fn mode(mode: spanlock_mode) -> Result<Mode, Failure> {
    match mode {
        SPANLOCK_ADD => Ok(Mode::Add),
        SPANLOCK_BLOCK => Ok(Mode::Block),
        SPANLOCK_EXCLUSIVE => Ok(Mode::Exclusive),
        other => Err(invalid(format!(
            "{other} is no mode: SPANLOCK_ADD ({SPANLOCK_ADD}), SPANLOCK_BLOCK ({SPANLOCK_BLOCK}) and SPANLOCK_EXCLUSIVE ({SPANLOCK_EXCLUSIVE}) are"
        ))),
    }
}

pub(crate) fn mode_of(mode: Mode) -> spanlock_mode {
    match mode {
        Mode::Add => SPANLOCK_ADD,
        Mode::Block => SPANLOCK_BLOCK,
        Mode::Exclusive => SPANLOCK_EXCLUSIVE,
    }
}

/// Bytes by offset and length; a length of 0 is to the end.
pub(crate) fn range(offset: u64, length: u64) -> Result<ByteRange, Failure> {
    let last = match length {
        0 => u64::MAX,
        _ => offset.checked_add(length - 1).ok_or_else(|| {
            invalid(format!(
                "{length} bytes from {offset} on go past the last offset, {}; a length of 0 is to the end",
                u64::MAX
            ))
        })?,
    };
    Ok(ByteRange::new(offset..=last))
}

/// # Safety
/// `text` is NULL, or a string that ends with NUL.
pub(crate) unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<Option<&'a str>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: it is not NULL; the caller promises the rest.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(Some).map_err(|_| invalid(format!("{what} is no UTF-8")))
}

/// Why the last call of this thread that failed did so, as a sentence. It is there until the next
/// one that fails; do not free it.
#[unsafe(no_mangle)]
pub extern "C" fn spanlock_message() -> *const c_char {
    MESSAGE.with_borrow(|last| last.as_ptr())
}

/// The name of a status, as "SPANLOCK_OK". Do not free it.
#[unsafe(no_mangle)]
pub extern "C" fn spanlock_status_name(status: spanlock_status) -> *const c_char {
    let name = match status {
        SPANLOCK_OK => c"SPANLOCK_OK",
        SPANLOCK_BUSY => c"SPANLOCK_BUSY",
        SPANLOCK_TIMED_OUT => c"SPANLOCK_TIMED_OUT",
        SPANLOCK_DEADLOCK => c"SPANLOCK_DEADLOCK",
        SPANLOCK_INVALID => c"SPANLOCK_INVALID",
        SPANLOCK_PANIC => c"SPANLOCK_PANIC",
        _ => c"no status of spanlock",
    };
    name.as_ptr()
}
