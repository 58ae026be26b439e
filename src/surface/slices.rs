//! Data behind a range lock: slices of what it owns, shared and exclusive.
//!
//! # Promise
//! Whoever has a `&mut [T]` of a [`RangeLocked`] is alone with these elements, *its own owner included*; who has a
//! `&[T]` has nobody there who changes them.
//!
//! # Invariants
//! - INV-R1: each slice is of elements that its guard holds, in [`Mode::Add`] if it is shared, in [`Mode::Exclusive`]
//!   if not. A guard that holds nothing has the empty slice, and looks at nothing.
//! - INV-R2: two slices that overlap, one of them exclusive, never live at the same time. Of different owners the lock
//!   sees to that. One owner's are looked for behind each grant (`grant::conflict_beside`), and the later one is given
//!   up. The lock is nobody else's, and no hold in it is converted.
//! - INV-R3: `base` and `len` are those of the storage, or of nothing. They change in `&mut self`, or under the
//!   exclusive hold of everything, and are read under a hold of something. While anybody can reach the storage itself
//!   ([`WholeStorage`]), they are those of nothing: so one that is leaked leaves nothing behind that could dangle.
//! - INV-R4: all slices come from `base`, and nobody makes a reference to the storage while there are any; its address
//!   may change, as what it points to does not ([`Storage`]).

use crate::facts::error::AcquireError;
use crate::facts::mode::Mode;
use crate::facts::owner::{Owner, Recursion};
use crate::facts::owner_kind::{AwaitedOn, ByOwner, ByTask, ByThread, OwnedBy};
use crate::facts::range::ByteRange;
use crate::facts::snapshot::Snapshot;
use crate::surface::batch::Batch;
use crate::surface::guard::Guard;
use crate::surface::lock::{RangeLock, granted};
use crate::surface::request::{Acquire, LockRef, Request, TimedRequest, sealed};
use std::any::type_name;
use std::borrow::Cow;
use std::cell::UnsafeCell;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::{Bound, Deref, DerefMut, RangeBounds};
use std::pin::Pin;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// What a [`RangeLocked`] can own: `Vec<T>`, `Box<[T]>`; and with the feature `memmap2` a `memmap2::MmapMut`, which is
/// `u8`s.
///
/// # Safety
/// `elements` gives the same elements until the storage is used otherwise or dropped: they stay where they are when the
/// storage is *moved*, they may be used from there on through what it gave, by whichever thread, and nobody else uses
/// them. (A mapped file that others write to is what nobody can promise: whoever maps it does.)
pub unsafe trait Storage {
    /// An element.
    type Item;

    /// All elements.
    fn elements(&mut self) -> &mut [Self::Item];
}

// SAFETY: the elements are on the heap, and the vector's own.
unsafe impl<T> Storage for Vec<T> {
    type Item = T;

    fn elements(&mut self) -> &mut [T] {
        self
    }
}

// SAFETY: the elements are on the heap, and the box's own.
unsafe impl<T> Storage for Box<[T]> {
    type Item = T;

    fn elements(&mut self) -> &mut [T] {
        self
    }
}

#[cfg(feature = "memmap2")]
// SAFETY: the map stays where it is until it is dropped, and is the map's own, as far as this process goes: see the
// trait.
unsafe impl Storage for memmap2::MmapMut {
    type Item = u8;

    fn elements(&mut self) -> &mut [u8] {
        self
    }
}

/// Elements behind a range lock: a `Vec<T>`, a `Box<[T]>`, mapped memory. Any number of threads and tasks have slices
/// of it at the same time, as long as those that overlap are shared.
///
/// Ranges are of *elements*, as in slicing. An open end goes as far as there are elements when the slice is granted,
/// and the lock is taken to the end of all numbers.
///
/// | | shared, `&[T]` | exclusive, `&mut [T]` | the storage itself |
/// |---|---|---|---|
/// | a thread, which waits | [`read`](RangeLocked::read) | [`write`](RangeLocked::write) | [`whole`](RangeLocked::whole) |
/// | with an end, as an [`Owner`], or awaited: by a [`SliceRequest`] | [`reading`](RangeLocked::reading) | [`writing`](RangeLocked::writing) | [`holding`](RangeLocked::holding) |
/// | borrowing nothing | [`reading_arc`](RangeLocked::reading_arc) | [`writing_arc`](RangeLocked::writing_arc) | [`holding_arc`](RangeLocked::holding_arc) |
/// | several ranges at once | [`parts`](RangeLocked::parts) | [`parts`](RangeLocked::parts), [`write_all`](RangeLocked::write_all) | |
///
/// All else is as for a [`RangeLock`]: first come, first served; a deadlock is an answer; a request can be given up at
/// any time. With one difference: an owner that has a slice is *refused* a second one that overlaps, if either of them
/// is exclusive ([`AcquireError::WouldRecurse`]; a panic where a call returns no error). So there are never two `&mut`
/// to one element.
///
/// A panic under a slice releases it, and poisons nothing: what it was about to write may be half written.
///
/// # Examples
/// ```
/// use spanlock::RangeLocked;
///
/// let pages = RangeLocked::new(vec![0_u8; 8192]);
/// std::thread::scope(|s| {
///     s.spawn(|| pages.write(0..4096).fill(1)); // side by side
///     s.spawn(|| pages.write(4096..).fill(2));
/// });
/// assert_eq!(pages.read(4095..4097)[..], [1, 2]);
/// pages.whole().push(3); // waits for all, and others for it
/// assert_eq!(pages.into_inner().len(), 8193);
/// ```
/// What is refused:
/// ```should_panic
/// let pages = spanlock::RangeLocked::new(vec![0_u8; 8192]);
/// let first = pages.write(0..10);
/// let second = pages.write(5..15); // of the same thread
/// ```
/// ```compile_fail,E0505
/// let pages = spanlock::RangeLocked::new(vec![0_u8; 8192]);
/// let slice = pages.read(0..10);
/// drop(pages); // still borrowed
/// println!("{}", slice[0]);
/// ```
/// ```compile_fail,E0505
/// let pages = spanlock::RangeLocked::new(vec![0_u8; 8192]);
/// let mut guard = pages.write(0..10);
/// let slice: &mut [u8] = &mut guard;
/// drop(guard); // the slice does not outlive its guard
/// slice[0] = 1;
/// ```
/// ```compile_fail,E0277
/// let cells = spanlock::RangeLocked::new(vec![std::cell::Cell::new(0)]);
/// std::thread::scope(|s| s.spawn(|| cells.read(..).len())); // shared elements must be `Sync`
/// ```
/// ```compile_fail,E0596
/// let pages = spanlock::RangeLocked::new(vec![0_u8; 8192]);
/// let mut shared = pages.read(0..10);
/// shared[0] = 1; // not through a shared one
/// ```
pub struct RangeLocked<S: Storage> {
    lock: RangeLock,
    view: UnsafeCell<View<S::Item>>,
    /// `MaybeUninit`, so that a box in it does not claim to be the only way to what it points to (INV-R4). It is always
    /// there.
    storage: UnsafeCell<MaybeUninit<S>>,
}

/// Where the elements are (INV-R3).
struct View<T> {
    base: NonNull<T>,
    len: usize,
}

impl<T> View<T> {
    const NOTHING: View<T> = View { base: NonNull::dangling(), len: 0 };

    fn of(elements: &mut [T]) -> View<T> {
        View { len: elements.len(), base: NonNull::from(elements).cast() }
    }
}

impl<T> Clone for View<T> {
    fn clone(&self) -> View<T> {
        *self
    }
}

impl<T> Copy for View<T> {}

// SAFETY: it owns its elements, by way of the storage, and goes with both. `view` is a pointer into that.
unsafe impl<S: Storage + Send> Send for RangeLocked<S> where S::Item: Send {}
// SAFETY: by a shared reference threads get `&T`s and a shared storage (`Sync`, both) and, one at a time each,
// `&mut T`s and the storage itself (`Send`, both): INV-R2. `view` is read and written as INV-R3 says.
unsafe impl<S: Storage + Send + Sync> Sync for RangeLocked<S> where S::Item: Send + Sync {}

impl<S: Storage> RangeLocked<S> {
    /// Owns `storage` from now on.
    pub fn new(storage: S) -> RangeLocked<S> {
        let mut storage = MaybeUninit::new(storage);
        // SAFETY: it was made a moment ago.
        let view = View::of(unsafe { storage.assume_init_mut() }.elements());
        RangeLocked { lock: RangeLock::new(), view: UnsafeCell::new(view), storage: UnsafeCell::new(storage) }
    }

    /// Gives its lock a name, for snapshots and for the messages about deadlocks.
    pub fn set_name(&mut self, name: impl Into<Cow<'static, str>>) {
        self.lock.set_name(name);
    }

    /// Who has slices, and who waits for some: the ranges are of elements.
    pub fn snapshot(&self) -> Snapshot {
        self.lock.snapshot()
    }

    /// Waits until the elements in `range` can be shared.
    ///
    /// # Panics
    /// As slicing does: if the range is inverted, or does not lie within the elements that there are when it is
    /// granted. If the thread has an exclusive slice of some of them; and if waiting would be a
    /// [`Deadlock`](crate::Deadlock). [`reading`](RangeLocked::reading) returns the last two as errors.
    #[track_caller]
    pub fn read(&self, range: impl RangeBounds<usize>) -> ReadSlice<InRef<'_, S>, ByThread> {
        granted(self.reading(range).wait())
    }

    /// Waits until the elements in `range` are the caller's alone.
    ///
    /// # Panics
    /// As for [`read`](RangeLocked::read); and if the thread has any slice of some of them.
    ///
    /// ```
    /// use spanlock::RangeLocked;
    ///
    /// let numbers = RangeLocked::new(vec![3, 1, 2]);
    /// numbers.write(..).sort();
    /// assert_eq!(numbers.into_inner(), [1, 2, 3]);
    /// ```
    #[track_caller]
    pub fn write(&self, range: impl RangeBounds<usize>) -> WriteSlice<InRef<'_, S>, ByThread> {
        granted(self.writing(range).wait())
    }

    /// Waits until nobody has a slice, for the storage itself: to change its length, say.
    ///
    /// # Panics
    /// As for [`write`](RangeLocked::write).
    #[track_caller]
    pub fn whole(&self) -> WholeStorage<InRef<'_, S>, ByThread> {
        granted(self.holding().wait())
    }

    /// Asks for a shared slice: to be waited for, tried, given a deadline, made as an [`Owner`], or awaited.
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    ///
    /// ```
    /// use spanlock::RangeLocked;
    ///
    /// async fn tail() {
    ///     let numbers = RangeLocked::new(vec![1, 2, 3]);
    ///     let slice = numbers.reading(1..).await;
    ///     assert_eq!(slice[..], [2, 3]);
    ///     assert!(numbers.writing(0..1).try_now().is_some() && numbers.writing(..).try_now().is_none());
    /// }
    /// # pollster::block_on(tail());
    /// ```
    #[track_caller]
    pub fn reading(&self, range: impl RangeBounds<usize>) -> SliceRequest<InRef<'_, S>, Read> {
        SliceRequest::new(InRef(self), range)
    }

    /// Asks for an exclusive slice: see [`reading`](RangeLocked::reading).
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    #[track_caller]
    pub fn writing(&self, range: impl RangeBounds<usize>) -> SliceRequest<InRef<'_, S>, Write> {
        SliceRequest::new(InRef(self), range)
    }

    /// Asks for the storage itself: see [`reading`](RangeLocked::reading).
    pub fn holding(&self) -> SliceRequest<InRef<'_, S>, Whole> {
        SliceRequest::new(InRef(self), ..)
    }

    /// As [`reading`](RangeLocked::reading), for a slice that keeps the data alive itself and borrows nothing; with an
    /// owner of its own unless it is given one. For tasks and worker pools.
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    ///
    /// ```
    /// use spanlock::RangeLocked;
    /// use std::sync::Arc;
    ///
    /// let pages = Arc::new(RangeLocked::new(vec![0_u8; 8192]));
    /// let mut page = pages.writing_arc(0..4096).wait();
    /// let completes = std::thread::spawn(move || page.fill(1)); // elsewhere
    /// # completes.join().unwrap();
    /// assert_eq!(pages.read(..)[4095..4097], [1, 0]);
    /// ```
    #[track_caller]
    pub fn reading_arc(self: &Arc<Self>, range: impl RangeBounds<usize>) -> SliceRequest<InArc<S>, Read> {
        SliceRequest::new(InArc(self.clone()), range)
    }

    /// As [`reading_arc`](RangeLocked::reading_arc), exclusive.
    ///
    /// # Panics
    /// If the range is inverted, as slicing does.
    #[track_caller]
    pub fn writing_arc(self: &Arc<Self>, range: impl RangeBounds<usize>) -> SliceRequest<InArc<S>, Write> {
        SliceRequest::new(InArc(self.clone()), range)
    }

    /// As [`reading_arc`](RangeLocked::reading_arc), for the storage itself.
    pub fn holding_arc(self: &Arc<Self>) -> SliceRequest<InArc<S>, Whole> {
        SliceRequest::new(InArc(self.clone()), ..)
    }

    /// Waits for several exclusive slices, which are granted together or not at all, as the parts of a [`Batch`].
    ///
    /// # Panics
    /// As for [`write`](RangeLocked::write); and if two of the ranges overlap.
    ///
    /// ```
    /// use spanlock::RangeLocked;
    ///
    /// let accounts = RangeLocked::new(vec![100, 0]);
    /// let [mut from, mut to] = accounts.write_all([0..1, 1..2]);
    /// (from[0], to[0]) = (from[0] - 30, to[0] + 30);
    /// # drop((from, to));
    /// # assert_eq!(accounts.into_inner(), [70, 30]);
    /// ```
    #[track_caller]
    pub fn write_all<const N: usize>(
        &self,
        ranges: [impl RangeBounds<usize>; N],
    ) -> [WriteSlice<InRef<'_, S>, ByThread>; N] {
        let parts = granted(self.parts_of(&ranges.map(|range| (elements(range), Mode::Exclusive))));
        let mut parts = parts.into_iter().map(|part| match part {
            Part::Write(slice) => slice,
            Part::Read(_) => unreachable!("all were asked for exclusively"),
        });
        std::array::from_fn(|_| parts.next().expect("one for each range"))
    }

    /// Waits for several slices, shared or exclusive as their modes say ([`Mode::Add`] is shared), which are granted
    /// together or not at all, as the parts of a [`Batch`]. In the order of the ranges.
    ///
    /// # Errors
    /// [`AcquireError::WouldRecurse`] if the thread has a slice already that overlaps one of them and does not go with
    /// it; [`AcquireError::Deadlock`] if it has any, and waiting would be one.
    ///
    /// # Panics
    /// If two of the ranges overlap and one of them is exclusive; if one is asked for in [`Mode::Block`]; and as
    /// slicing does, as for [`read`](RangeLocked::read).
    ///
    /// ```
    /// use spanlock::{AcquireError, Mode, Part, RangeLocked};
    ///
    /// fn copy(pages: &RangeLocked<Vec<u8>>) -> Result<(), AcquireError> {
    ///     let parts = pages.parts(&[(0..4096, Mode::Add), (4096..8192, Mode::Exclusive)])?;
    ///     let Ok([Part::Read(from), Part::Write(mut to)]) = <[_; 2]>::try_from(parts) else { unreachable!() };
    ///     to.copy_from_slice(&from);
    ///     Ok(())
    /// }
    /// # copy(&RangeLocked::new(vec![7_u8; 8192])).unwrap();
    /// ```
    #[track_caller]
    pub fn parts<R: RangeBounds<usize> + Clone>(
        &self,
        ranges: &[(R, Mode)],
    ) -> Result<Vec<Part<InRef<'_, S>, ByThread>>, AcquireError> {
        let ranges: Vec<_> = ranges.iter().map(|(range, mode)| (elements(range.clone()), *mode)).collect();
        self.parts_of(&ranges)
    }

    #[track_caller]
    fn parts_of(&self, ranges: &[(Elements, Mode)]) -> Result<Vec<Part<InRef<'_, S>, ByThread>>, AcquireError> {
        let mut sorted: Vec<_> = ranges.iter().map(|(elements, mode)| (elements.asked, *mode)).collect();
        sorted.retain(|(asked, _)| !asked.is_empty());
        sorted.sort_by_key(|&(asked, _)| asked);
        // The one that reaches farthest of those that came before, and of the exclusive ones among them.
        let (mut any, mut alone) = (ByteRange::EMPTY, ByteRange::EMPTY);
        for &(asked, mode) in &sorted {
            assert!(
                mode != Mode::Block,
                "a slice is shared (`Mode::Add`) or exclusive (`Mode::Exclusive`); `Mode::Block` is neither"
            );
            let beside = if mode == Mode::Exclusive { any } else { alone };
            assert!(!beside.overlaps(asked), "{beside} and {asked} overlap, and cannot be had as slices at once");
            let farther =
                |before: ByteRange| if asked.last() > before.last() || before.is_empty() { asked } else { before };
            any = farther(any);
            if mode == Mode::Exclusive {
                alone = farther(alone);
            }
        }
        let batch = ranges.iter().fold(Batch::<InRef<'_, S>>::new(), |batch, (elements, mode)| {
            batch.request(InRef(self), elements.asked, *mode)
        });
        let guards = batch.recursion(Recursion::Refuse).wait()?.into_parts();
        let parts = guards.into_iter().zip(ranges).map(|(guard, (elements, mode))| match mode {
            Mode::Exclusive => Write::make(guard, elements).map(Part::Write),
            _ => Read::make(guard, elements).map(Part::Read),
        });
        parts.collect()
    }

    /// The storage, without locking: nobody else has any slice. (Guards that were leaked do not count.)
    ///
    /// ```
    /// use spanlock::RangeLocked;
    ///
    /// let mut numbers = RangeLocked::new(vec![1, 2]);
    /// numbers.get_mut().push(3);
    /// assert_eq!(numbers.read(..)[..], [1, 2, 3]);
    /// ```
    pub fn get_mut(&mut self) -> impl DerefMut<Target = S> + '_ {
        // SAFETY: nobody else can reach it, for as long as `self` is borrowed.
        unsafe { Reach::new(self) }
    }

    /// The storage.
    pub fn into_inner(self) -> S {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, so that nobody drops the lock a second time, nor uses it.
        drop(unsafe { std::ptr::read(&this.lock) });
        // SAFETY: as above, for the storage.
        let storage = unsafe { std::ptr::read(this.storage.get()) };
        // SAFETY: it is always there.
        unsafe { storage.assume_init() }
    }
}

impl<S: Storage> Drop for RangeLocked<S> {
    fn drop(&mut self) {
        // SAFETY: it is always there, and dropped here only.
        unsafe { self.storage.get_mut().assume_init_drop() }
    }
}

impl<S: Storage> From<S> for RangeLocked<S> {
    fn from(storage: S) -> RangeLocked<S> {
        RangeLocked::new(storage)
    }
}

impl<S: Storage + Default> Default for RangeLocked<S> {
    fn default() -> RangeLocked<S> {
        RangeLocked::new(S::default())
    }
}

/// Says what the storage is, what the lock is called, and how many slices are held and waited for.
/// ([`snapshot`](RangeLocked::snapshot) says which, and whose.)
impl<S: Storage> fmt::Debug for RangeLocked<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let storage = type_name::<S>();
        f.debug_struct("RangeLocked")
            .field("storage", &format_args!("{storage}"))
            .field("lock", &self.lock)
            .finish_non_exhaustive()
    }
}

/// A range of elements as it was asked for.
#[derive(Clone, Copy, Debug)]
struct Elements {
    /// What is locked.
    asked: ByteRange,
    /// Whether it goes as far as there are elements.
    is_open: bool,
}

#[track_caller]
fn elements(range: impl RangeBounds<usize>) -> Elements {
    let number = |bound: Bound<&usize>| match bound {
        Bound::Included(&at) => Bound::Included(at as u64),
        Bound::Excluded(&at) => Bound::Excluded(at as u64),
        Bound::Unbounded => Bound::Unbounded,
    };
    let end = number(range.end_bound());
    Elements { asked: ByteRange::new((number(range.start_bound()), end)), is_open: end == Bound::Unbounded }
}

/// Somebody has the storage itself, and nobody else anything. When this is dropped, slices are of what is there then.
struct Reach<'a, S: Storage>(&'a RangeLocked<S>);

impl<'a, S: Storage> Reach<'a, S> {
    /// # Safety
    /// While the `Reach` lives, nobody else uses the storage, and nobody has slices of it.
    unsafe fn new(data: &'a RangeLocked<S>) -> Reach<'a, S> {
        // SAFETY: nobody else looks (the caller's promise, INV-R3).
        unsafe { *data.view.get() = View::NOTHING };
        Reach(data)
    }
}

impl<S: Storage> Deref for Reach<'_, S> {
    type Target = S;

    fn deref(&self) -> &S {
        // SAFETY: nobody else uses it, while there is a `Reach`.
        let storage = unsafe { &*self.0.storage.get() };
        // SAFETY: it is always there.
        unsafe { storage.assume_init_ref() }
    }
}

impl<S: Storage> DerefMut for Reach<'_, S> {
    fn deref_mut(&mut self) -> &mut S {
        // SAFETY: nobody else uses it, while there is a `Reach`.
        let storage = unsafe { &mut *self.0.storage.get() };
        // SAFETY: it is always there.
        unsafe { storage.assume_init_mut() }
    }
}

impl<S: Storage> Drop for Reach<'_, S> {
    fn drop(&mut self) {
        let view = View::of(self.elements());
        // SAFETY: as in `new`.
        unsafe { *self.0.view.get() = view };
    }
}

/// How a slice and its request refer to their data: [`InRef`] or [`InArc`]. Sealed.
pub trait DataRef: LockRef {
    /// What the data is stored in.
    type Storage: Storage;

    #[doc(hidden)]
    fn data(&self) -> &RangeLocked<Self::Storage>;
}

/// A reference to the data.
pub struct InRef<'a, S: Storage>(&'a RangeLocked<S>);

/// An `Arc` of the data, for slices that borrow nothing.
pub struct InArc<S: Storage>(Arc<RangeLocked<S>>);

macro_rules! data_ref {
    ($ref:ty, $owner:ty, $keeps:literal, $(#[$why:meta])*) => {
        impl<S: Storage> DataRef for $ref {
            type Storage = S;

            fn data(&self) -> &RangeLocked<S> {
                &self.0
            }
        }

        impl<S: Storage> LockRef for $ref {
            type Owner = $owner;
        }

        $(#[$why])*
        impl<S: Storage> sealed::Sealed for $ref {
            const KEEPS: bool = $keeps;
        }

        impl<S: Storage> Deref for $ref {
            type Target = RangeLock;

            fn deref(&self) -> &RangeLock {
                &self.0.lock
            }
        }

        impl<S: Storage> Clone for $ref {
            fn clone(&self) -> Self {
                Self(self.0.clone())
            }
        }

        impl<S: Storage> fmt::Debug for $ref {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

data_ref!(InRef<'_, S>, ByThread, false, /** The lock lies in the data, which is borrowed. */);
data_ref!(InArc<S>, ByTask, true, /** The lock lies in the `Arc`. */);

/// What is asked for: [`Read`], [`Write`] or [`Whole`]. Sealed.
pub trait SliceKind: kinds::Sealed {
    /// What it is answered with.
    type Slice<D: DataRef, O: OwnedBy>;

    #[doc(hidden)]
    const MODE: Mode;

    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn make<D: DataRef, O: OwnedBy>(guard: Guard<D, O>, elements: &Elements)
    -> Result<Self::Slice<D, O>, AcquireError>;
}

mod kinds {
    pub trait Sealed {}

    impl Sealed for super::Read {}
    impl Sealed for super::Write {}
    impl Sealed for super::Whole {}
}

/// A shared slice.
#[derive(Clone, Copy, Debug)]
pub struct Read(());

/// An exclusive slice.
#[derive(Clone, Copy, Debug)]
pub struct Write(());

/// The storage itself.
#[derive(Clone, Copy, Debug)]
pub struct Whole(());

impl SliceKind for Read {
    type Slice<D: DataRef, O: OwnedBy> = ReadSlice<D, O>;
    const MODE: Mode = Mode::Add;

    #[track_caller]
    #[allow(private_interfaces)]
    fn make<D: DataRef, O: OwnedBy>(guard: Guard<D, O>, elements: &Elements) -> Result<ReadSlice<D, O>, AcquireError> {
        Held::new(guard, elements).map(ReadSlice)
    }
}

impl SliceKind for Write {
    type Slice<D: DataRef, O: OwnedBy> = WriteSlice<D, O>;
    const MODE: Mode = Mode::Exclusive;

    #[track_caller]
    #[allow(private_interfaces)]
    fn make<D: DataRef, O: OwnedBy>(guard: Guard<D, O>, elements: &Elements) -> Result<WriteSlice<D, O>, AcquireError> {
        Held::new(guard, elements).map(WriteSlice)
    }
}

impl SliceKind for Whole {
    type Slice<D: DataRef, O: OwnedBy> = WholeStorage<D, O>;
    const MODE: Mode = Mode::Exclusive;

    #[allow(private_interfaces)]
    fn make<D: DataRef, O: OwnedBy>(guard: Guard<D, O>, _: &Elements) -> Result<WholeStorage<D, O>, AcquireError> {
        let guard = alone(guard)?;
        // SAFETY: nobody else holds anything (INV-R2), until the guard is dropped; and before that,
        // `WholeStorage::drop` is a `Reach`'s.
        std::mem::forget(unsafe { Reach::new(guard.lock_ref().data()) });
        Ok(WholeStorage(guard))
    }
}

/// `guard`, unless its owner has another one of some of these bytes, in a mode that does not go with it (INV-R2).
fn alone<D: DataRef, O: OwnedBy>(guard: Guard<D, O>) -> Result<Guard<D, O>, AcquireError> {
    match guard.conflict_beside() {
        Some(own) => Err(AcquireError::WouldRecurse(own)),
        None => Ok(guard),
    }
}

/// A hold of elements, which there are.
struct Held<D: DataRef, O: OwnedBy> {
    guard: Guard<D, O>,
    start: usize,
    len: usize,
}

impl<D: DataRef, O: OwnedBy> Held<D, O> {
    #[track_caller]
    fn new(guard: Guard<D, O>, elements: &Elements) -> Result<Held<D, O>, AcquireError> {
        let guard = alone(guard)?;
        let (Some(start), Some(end)) = (elements.asked.start(), elements.asked.end()) else {
            // It holds nothing, and so may not look how much there is (INV-R1).
            return Ok(Held { guard, start: 0, len: 0 });
        };
        let len = view(&guard).len;
        let end = if elements.is_open { len as u128 } else { end };
        assert!(end <= len as u128, "range end {end} is out of range for {len} elements");
        assert!(u128::from(start) <= end, "range start {start} is out of range for {len} elements");
        Ok(Held { guard, start: start as usize, len: end as usize - start as usize })
    }

    /// Where its first element is.
    fn first(&self) -> NonNull<<D::Storage as Storage>::Item> {
        if self.len == 0 {
            return NonNull::dangling();
        }
        // SAFETY: `start` is in range, and the view is the same since then (INV-R3).
        unsafe { view(&self.guard).base.add(self.start) }
    }
}

/// What a guard that holds something sees of the data.
fn view<D: DataRef, O: OwnedBy>(guard: &Guard<D, O>) -> View<<D::Storage as Storage>::Item> {
    // SAFETY: it changes under an exclusive hold of everything only, and this is a hold of something (INV-R3).
    unsafe { *guard.lock_ref().data().view.get() }
}

/// A shared slice of a [`RangeLocked`], until it is dropped.
#[must_use = "if unused, the elements are released at once"]
#[clippy::has_significant_drop]
pub struct ReadSlice<D: DataRef, O: OwnedBy>(Held<D, O>);

/// An exclusive slice of a [`RangeLocked`], until it is dropped.
#[must_use = "if unused, the elements are released at once"]
#[clippy::has_significant_drop]
pub struct WriteSlice<D: DataRef, O: OwnedBy>(Held<D, O>);

/// The storage of a [`RangeLocked`], until it is dropped. (If it is leaked, the data has no elements any more for
/// anybody.)
#[must_use = "if unused, the storage is released at once"]
#[clippy::has_significant_drop]
pub struct WholeStorage<D: DataRef, O: OwnedBy>(Guard<D, O>);

impl<D: DataRef, O: OwnedBy> Deref for ReadSlice<D, O> {
    type Target = [<D::Storage as Storage>::Item];

    fn deref(&self) -> &Self::Target {
        // SAFETY: so many elements are there, and nobody changes them while the guard lives (INV-R2), which is longer
        // than the reference.
        unsafe { slice::from_raw_parts(self.0.first().as_ptr(), self.0.len) }
    }
}

impl<D: DataRef, O: OwnedBy> Deref for WriteSlice<D, O> {
    type Target = [<D::Storage as Storage>::Item];

    fn deref(&self) -> &Self::Target {
        // SAFETY: as below, and it is borrowed shared.
        unsafe { slice::from_raw_parts(self.0.first().as_ptr(), self.0.len) }
    }
}

impl<D: DataRef, O: OwnedBy> DerefMut for WriteSlice<D, O> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        // SAFETY: so many elements are there, and nobody else has a slice of any while the guard lives (INV-R2), which
        // is longer than the reference; and it is borrowed uniquely.
        unsafe { slice::from_raw_parts_mut(self.0.first().as_ptr(), self.0.len) }
    }
}

impl<D: DataRef, O: OwnedBy> Deref for WholeStorage<D, O> {
    type Target = D::Storage;

    fn deref(&self) -> &D::Storage {
        // SAFETY: nobody else uses it while the guard lives (INV-R2).
        let storage = unsafe { &*self.0.lock_ref().data().storage.get() };
        // SAFETY: it is always there.
        unsafe { storage.assume_init_ref() }
    }
}

impl<D: DataRef, O: OwnedBy> DerefMut for WholeStorage<D, O> {
    fn deref_mut(&mut self) -> &mut D::Storage {
        // SAFETY: nobody else uses it while the guard lives (INV-R2).
        let storage = unsafe { &mut *self.0.lock_ref().data().storage.get() };
        // SAFETY: it is always there.
        unsafe { storage.assume_init_mut() }
    }
}

impl<D: DataRef, O: OwnedBy> Drop for WholeStorage<D, O> {
    fn drop(&mut self) {
        // Which says where the elements are now. The guard is dropped behind that.
        drop(Reach(self.0.lock_ref().data()));
    }
}

macro_rules! debug {
    ($($slice:ident),*) => { $(
        /// Says what it holds: of which lock, which elements, in which mode, for whom. (For the elements themselves
        /// print `&slice[..]`.)
        impl<D: DataRef, O: OwnedBy> fmt::Debug for $slice<D, O> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Held { guard, start, len } = &self.0;
                let elements = ByteRange::new(*start as u64..(start + len) as u64);
                guard.say(&mut f.debug_struct(stringify!($slice)), "elements", elements)
            }
        }
    )* };
}

debug!(ReadSlice, WriteSlice);

/// Says what it holds, of which lock, and for whom. (For the storage itself print `*storage`.)
impl<D: DataRef, O: OwnedBy> fmt::Debug for WholeStorage<D, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.say(&mut f.debug_struct("WholeStorage"), "elements", self.0.range())
    }
}

/// A slice of [`RangeLocked::parts`].
#[must_use = "if unused, the elements are released at once"]
pub enum Part<D: DataRef, O: OwnedBy> {
    /// It was asked for in [`Mode::Add`].
    Read(ReadSlice<D, O>),
    /// It was asked for in [`Mode::Exclusive`].
    Write(WriteSlice<D, O>),
}

impl<D: DataRef, O: OwnedBy> fmt::Debug for Part<D, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Read(slice) => f.debug_tuple("Read").field(slice).finish(),
            Part::Write(slice) => f.debug_tuple("Write").field(slice).finish(),
        }
    }
}

/// A request for a slice, or for the storage, that has not been made yet: as a [`Request`].
#[must_use = "a request does nothing until it is waited for, tried or awaited"]
pub struct SliceRequest<D: DataRef, K: SliceKind, O: OwnedBy = <D as LockRef>::Owner> {
    request: Request<D, O>,
    elements: Elements,
    kind: PhantomData<K>,
}

impl<D: DataRef, K: SliceKind> SliceRequest<D, K> {
    #[track_caller]
    fn new(data: D, range: impl RangeBounds<usize>) -> SliceRequest<D, K> {
        let elements = elements(range);
        let request = Request::new(data, elements.asked, K::MODE).recursion(Recursion::Refuse);
        SliceRequest { request, elements, kind: PhantomData }
    }
}

impl<D: DataRef, K: SliceKind, O: OwnedBy> SliceRequest<D, K, O> {
    /// Makes it a request of `owner`: see [`Request::owner`].
    pub fn owner(self, owner: &Owner) -> SliceRequest<D, K, ByOwner> {
        SliceRequest { request: self.request.owner(owner), elements: self.elements, kind: PhantomData }
    }

    /// Waits until it is granted.
    ///
    /// # Errors
    /// For a thread or an [`Owner`]: [`AcquireError::WouldRecurse`] if the owner has a slice already that overlaps, and
    /// either is exclusive; [`AcquireError::Deadlock`].
    ///
    /// # Panics
    /// As slicing does, if the elements are not there when it is granted; and as [`Request::wait`].
    #[track_caller]
    pub fn wait(self) -> O::Answer<K::Slice<D, O>> {
        O::answer(self.timeout(Duration::MAX).wait())
    }

    /// The slice, if nobody is in the way, its own owner included: as [`Request::try_now`].
    ///
    /// # Panics
    /// As slicing does, if the elements are not there.
    #[must_use = "if it is granted, the elements are released at once"]
    #[track_caller]
    pub fn try_now(self) -> Option<K::Slice<D, O>> {
        let guard = self.request.try_now()?;
        K::make(guard, &self.elements).ok()
    }

    /// Gives the wait an end: see [`Request::deadline`].
    pub fn deadline(self, deadline: Instant) -> TimedSlice<D, K, O> {
        TimedSlice { request: self.request.deadline(deadline), elements: self.elements, kind: PhantomData }
    }

    /// As [`SliceRequest::deadline`], from now.
    pub fn timeout(self, timeout: Duration) -> TimedSlice<D, K, O> {
        TimedSlice { request: self.request.timeout(timeout), elements: self.elements, kind: PhantomData }
    }
}

/// A request for a slice with a deadline.
#[must_use = "a request does nothing until it is waited for"]
pub struct TimedSlice<D: DataRef, K: SliceKind, O: OwnedBy = <D as LockRef>::Owner> {
    request: TimedRequest<D, O>,
    elements: Elements,
    kind: PhantomData<K>,
}

impl<D: DataRef, K: SliceKind, O: OwnedBy> TimedSlice<D, K, O> {
    /// Waits until it is granted or the deadline has passed.
    ///
    /// # Errors
    /// As for [`SliceRequest::wait`]; and [`AcquireError::TimedOut`].
    ///
    /// # Panics
    /// As slicing does, if the elements are not there when it is granted.
    #[track_caller]
    pub fn wait(self) -> Result<K::Slice<D, O>, AcquireError> {
        let guard = self.request.wait()?;
        K::make(guard, &self.elements)
    }
}

impl<D: DataRef, K: SliceKind, O: OwnedBy> IntoFuture for SliceRequest<D, K, O>
where
    O::Awaited: AwaitedOn<D>,
{
    type Output = <O::Awaited as OwnedBy>::Answer<K::Slice<D, O::Awaited>>;
    type IntoFuture = AcquireSlice<D, K, O::Awaited>;

    fn into_future(self) -> AcquireSlice<D, K, O::Awaited> {
        AcquireSlice { acquire: self.request.into_future(), elements: self.elements, kind: PhantomData }
    }
}

/// A request for a slice being awaited: see [`Acquire`].
///
/// # Cancel safety
/// As for [`Acquire`]: dropping it leaves the queue.
///
/// # Panics
/// As [`Acquire`]; and as slicing does, if the elements are not there when it is granted.
#[must_use = "futures do nothing unless polled"]
pub struct AcquireSlice<D: DataRef, K: SliceKind, O: OwnedBy = ByTask> {
    acquire: Acquire<D, O>,
    elements: Elements,
    kind: PhantomData<fn() -> K>,
}

impl<D: DataRef, K: SliceKind, O: OwnedBy> Future for AcquireSlice<D, K, O> {
    type Output = O::Answer<K::Slice<D, O>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let guard = O::result(ready!(Pin::new(&mut self.acquire).poll(context)));
        let elements = self.elements;
        Poll::Ready(O::answer(guard.and_then(|guard| K::make(guard, &elements))))
    }
}

impl<D: DataRef, K: SliceKind, O: OwnedBy> fmt::Debug for SliceRequest<D, K, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SliceRequest")
            .field("elements", &self.elements.asked)
            .field("mode", &format_args!("{}", K::MODE))
            .finish()
    }
}

impl<D: DataRef, K: SliceKind, O: OwnedBy> fmt::Debug for TimedSlice<D, K, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimedSlice")
            .field("elements", &self.elements.asked)
            .field("mode", &format_args!("{}", K::MODE))
            .finish()
    }
}

impl<D: DataRef, K: SliceKind, O: OwnedBy> fmt::Debug for AcquireSlice<D, K, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireSlice")
            .field("elements", &self.elements.asked)
            .field("mode", &format_args!("{}", K::MODE))
            .finish()
    }
}
