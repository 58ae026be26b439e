//! What these locks have no call for, and somebody who comes from other locks types first: calls of it do not compile,
//! and the compiler says what there is instead.
//!
//! Without them the compiler proposes the name that looks alike, and `block` for `lock` compiles, and is shared.
//! Deprecated calls would have to choose a mode, and compile, too. So each has a bound that nothing meets.

use crate::surface::guard::RangeGuard;
use crate::surface::lock::RangeLock;
use crate::surface::whole::WholeFileLock;

/// What no range does: it takes a mode to lock it.
#[diagnostic::on_unimplemented(
    message = "this lock has three modes, and the call names none of them",
    label = "call `add`, `block` or `exclusive`",
    note = "`add`: shared with other adders (readers, page faults); `block`: shared with other blockers (direct writes); `exclusive`: alone (a writer, a mutex)",
    note = "`read` and `shared` are `add`, `write` and `lock` are `exclusive`; `try_add`, `try_block` and `try_exclusive` do not wait; `request(range, mode)` can be awaited, or have a deadline"
)]
pub trait SaysInWhichMode {}

/// ```compile_fail,E0277
/// let guard = spanlock::RangeLock::new().lock(0..10);
/// ```
impl RangeLock {
    #[doc(hidden)]
    pub fn lock<R: SaysInWhichMode>(&self, _: R) -> RangeGuard<'_> {
        unreachable!("no call of it compiles")
    }

    #[doc(hidden)]
    pub fn read<R: SaysInWhichMode>(&self, _: R) -> RangeGuard<'_> {
        unreachable!("no call of it compiles")
    }

    #[doc(hidden)]
    pub fn write<R: SaysInWhichMode>(&self, _: R) -> RangeGuard<'_> {
        unreachable!("no call of it compiles")
    }

    #[doc(hidden)]
    pub fn shared<R: SaysInWhichMode>(&self, _: R) -> RangeGuard<'_> {
        unreachable!("no call of it compiles")
    }

    #[doc(hidden)]
    pub fn try_lock<R: SaysInWhichMode>(&self, _: R) -> RangeGuard<'_> {
        unreachable!("no call of it compiles")
    }

    #[doc(hidden)]
    pub fn try_read<R: SaysInWhichMode>(&self, _: R) -> RangeGuard<'_> {
        unreachable!("no call of it compiles")
    }

    #[doc(hidden)]
    pub fn try_write<R: SaysInWhichMode>(&self, _: R) -> RangeGuard<'_> {
        unreachable!("no call of it compiles")
    }
}

/// ```compile_fail,E0277
/// let guard = spanlock::WholeFileLock::new().lock();
/// ```
impl WholeFileLock {
    #[doc(hidden)]
    pub fn lock(&self) -> RangeGuard<'_>
    where
        for<'a> &'a (): SaysInWhichMode,
    {
        unreachable!("no call of it compiles")
    }

    #[doc(hidden)]
    pub fn read(&self) -> RangeGuard<'_>
    where
        for<'a> &'a (): SaysInWhichMode,
    {
        unreachable!("no call of it compiles")
    }

    #[doc(hidden)]
    pub fn write(&self) -> RangeGuard<'_>
    where
        for<'a> &'a (): SaysInWhichMode,
    {
        unreachable!("no call of it compiles")
    }

    #[doc(hidden)]
    pub fn shared(&self) -> RangeGuard<'_>
    where
        for<'a> &'a (): SaysInWhichMode,
    {
        unreachable!("no call of it compiles")
    }

    #[doc(hidden)]
    pub fn try_lock(&self) -> RangeGuard<'_>
    where
        for<'a> &'a (): SaysInWhichMode,
    {
        unreachable!("no call of it compiles")
    }

    #[doc(hidden)]
    pub fn try_read(&self) -> RangeGuard<'_>
    where
        for<'a> &'a (): SaysInWhichMode,
    {
        unreachable!("no call of it compiles")
    }

    #[doc(hidden)]
    pub fn try_write(&self) -> RangeGuard<'_>
    where
        for<'a> &'a (): SaysInWhichMode,
    {
        unreachable!("no call of it compiles")
    }
}
