//! Every error type. Contention is never an error: it waits.

use crate::facts::mode::Mode;
use crate::facts::owner::{Owner, OwnerId};
use crate::facts::range::ByteRange;
use std::fmt;
use std::io;

/// Why a request was not granted. It has left the queue and holds nothing; what its owner held before, it still holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcquireError {
    /// The deadline passed first: it says whose, and of what.
    TimedOut(TimedOut),
    /// Granting it takes what only those could give who wait for its owner: see [`Deadlock`] for the remedy.
    Deadlock(Deadlock),
    /// It would have to wait for somebody who was [poisoned](crate::Guard::poison): a holder that is known to be stuck.
    Poisoned(Poisoned),
    /// Its own owner holds some of the bytes in a mode that conflicts, and the request was to
    /// [refuse](crate::Recursion::Refuse) that.
    WouldRecurse(WouldRecurse),
}

// Each is in a box at most, so that an answer is not larger for what hardly any is.
const _: () = assert!(size_of::<AcquireError>() <= 24, "an error is three words at most");

/// What the protocol says to a request that it does not grant. Who asked, and for what, its maker knows, and puts it
/// into the [`AcquireError`].
#[derive(Debug)]
pub(crate) enum Refused {
    TimedOut,
    Deadlock(Deadlock),
    Poisoned(Poisoned),
}

impl Refused {
    /// The error, where `timed_out` says what to tell of a deadline.
    #[cold]
    pub(crate) fn told(self, timed_out: impl FnOnce() -> TimedOut) -> AcquireError {
        match self {
            Refused::TimedOut => AcquireError::TimedOut(timed_out()),
            Refused::Deadlock(deadlock) => AcquireError::Deadlock(deadlock),
            Refused::Poisoned(poisoned) => AcquireError::Poisoned(poisoned),
        }
    }

    /// The error of a request that had no deadline.
    pub(crate) fn without_deadline(self) -> AcquireError {
        self.told(|| unreachable!("it has no deadline"))
    }
}

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AcquireError::TimedOut(late) => late.fmt(f),
            AcquireError::Deadlock(deadlock) => deadlock.fmt(f),
            AcquireError::Poisoned(poisoned) => poisoned.fmt(f),
            AcquireError::WouldRecurse(own) => own.fmt(f),
        }
    }
}

impl std::error::Error for AcquireError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AcquireError::Deadlock(deadlock) => Some(deadlock),
            AcquireError::Poisoned(poisoned) => Some(poisoned),
            _ => None,
        }
    }
}

/// [`TimedOut`](io::ErrorKind::TimedOut) for a deadline that has passed, [`Other`](io::ErrorKind::Other) for a holder
/// that was poisoned, [`Deadlock`](io::ErrorKind::Deadlock) for the two others; the error itself is its source.
///
/// ```
/// use spanlock::{Mode, RangeLock};
/// use std::{io, time::Duration};
///
/// fn write(file: &RangeLock) -> io::Result<()> {
///     let _alone = file.request(0..4096, Mode::Exclusive).timeout(Duration::from_millis(10)).wait()?;
///     Ok(())
/// }
/// let file = RangeLock::new();
/// # write(&file).unwrap();
/// let taken = spanlock::Owner::new();
/// let _taken = file.request(.., Mode::Add).owner(&taken).wait().unwrap();
/// assert_eq!(write(&file).unwrap_err().kind(), io::ErrorKind::TimedOut); // somebody holds it
/// ```
impl From<AcquireError> for io::Error {
    fn from(refused: AcquireError) -> io::Error {
        let kind = match refused {
            AcquireError::TimedOut(_) => io::ErrorKind::TimedOut,
            AcquireError::Poisoned(_) => io::ErrorKind::Other,
            AcquireError::Deadlock(_) | AcquireError::WouldRecurse(_) => io::ErrorKind::Deadlock,
        };
        io::Error::new(kind, refused)
    }
}

/// A request whose deadline passed before it was granted.
///
/// # Examples
/// ```
/// use spanlock::{AcquireError, Mode, Owner, RangeLock};
/// use std::time::Duration;
///
/// let file = RangeLock::named("inode 17");
/// let (writer, reader) = (Owner::named("writer"), Owner::named("reader"));
/// let _write = file.request(0..4096, Mode::Exclusive).owner(&writer).wait().unwrap();
/// let read = file.request(0..512, Mode::Add).owner(&reader).timeout(Duration::from_millis(1)).wait();
///
/// let Err(AcquireError::TimedOut(late)) = read else { panic!("it is held") };
/// assert_eq!((late.owner().id, &*late.asked()[0].lock), (reader.id(), "inode 17"));
/// assert!(late.to_string().ends_with(r#" "reader" was not granted 0..512 (add) of inode 17 before the deadline"#));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimedOut(Box<Late>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Late {
    owner: OwnerName,
    asked: Box<[Asked]>,
    /// What was asked for was that all have gone.
    is_drain: bool,
}

impl TimedOut {
    /// Of one range at least.
    pub(crate) fn new(owner: OwnerName, asked: impl Iterator<Item = Asked>) -> TimedOut {
        TimedOut(Box::new(Late { owner, asked: asked.collect(), is_drain: false }))
    }

    /// Of a drain.
    pub(crate) fn of_drain(owner: OwnerName, asked: Asked) -> TimedOut {
        TimedOut(Box::new(Late { owner, asked: Box::new([asked]), is_drain: true }))
    }

    /// Who asked.
    pub fn owner(&self) -> &OwnerName {
        &self.0.owner
    }

    /// What was asked for: one range, or those of a [`Batch`](crate::Batch) that are not empty.
    pub fn asked(&self) -> &[Asked] {
        &self.0.asked
    }
}

/// A range that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Asked {
    /// The lock's name, or its address if it has none.
    pub lock: Box<str>,
    /// The bytes.
    pub range: ByteRange,
    /// The mode.
    pub mode: Mode,
}

impl Asked {
    pub(crate) fn new(lock: Box<str>, range: ByteRange, mode: Mode) -> Asked {
        Asked { lock, range, mode }
    }
}

/// `0..512 (add) of inode 17`.
impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) of {}", self.range, self.mode, self.lock)
    }
}

/// One line, and for a batch one for each range.
impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Late { owner, asked, is_drain } = &*self.0;
        match &**asked {
            [one] if *is_drain => {
                write!(f, "{owner} waited until the deadline for those to go who were in the way of {one}")
            }
            [one] => write!(f, "{owner} was not granted {one} before the deadline"),
            several => {
                write!(f, "{owner} was not granted {} ranges at once before the deadline:", several.len())?;
                several.iter().try_for_each(|one| write!(f, "\n  {one}"))
            }
        }
    }
}

/// A request that its own owner has something in the way of, and that was to [refuse](crate::Recursion::Refuse) that.
///
/// # Examples
/// ```
/// use spanlock::{AcquireError, Mode, Owner, RangeLock, Recursion};
///
/// let file = RangeLock::named("inode 17");
/// let writer = Owner::named("writer").recursion(Recursion::Refuse);
/// let _write = file.request(0..4096, Mode::Block).owner(&writer).wait().unwrap();
/// let fault = file.request(0..512, Mode::Add).owner(&writer).wait();
///
/// let Err(AcquireError::WouldRecurse(own)) = fault else { panic!("it is refused") };
/// assert_eq!((own.owner().id, own.lock(), own.mode()), (writer.id(), "inode 17", Mode::Block));
/// assert!(own.to_string().contains(r#" "writer" holds 0..4096 (block) of inode 17 itself"#));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WouldRecurse(Box<OwnHold>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct OwnHold {
    owner: OwnerName,
    what: Asked,
}

impl WouldRecurse {
    pub(crate) fn new(owner: OwnerName, held: Asked) -> WouldRecurse {
        WouldRecurse(Box::new(OwnHold { owner, what: held }))
    }

    /// Who asked, and holds that.
    pub fn owner(&self) -> &OwnerName {
        &self.0.owner
    }

    /// The lock's name, or its address if it has none.
    pub fn lock(&self) -> &str {
        &self.0.what.lock
    }

    /// The bytes that the owner holds: some of those that were asked for, and others perhaps.
    pub fn held(&self) -> ByteRange {
        self.0.what.range
    }

    /// The mode that it holds them in.
    pub fn mode(&self) -> Mode {
        self.0.what.mode
    }
}

impl fmt::Display for WouldRecurse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OwnHold { owner, what } = &*self.0;
        write!(f, "{owner} holds {what} itself, which conflicts, and the request refuses recursion")
    }
}

/// A cycle of owners, each of which waits for bytes that the next one holds; the last one waits for the first.
///
/// The request that got this answer is the one that closed the cycle, and it has left it: nobody hangs. (If two close
/// it at the same moment it is one of them; and of a token that has several requests blocked, one of these.) *The
/// remedy* is to let go of *all* that its owner holds, and to ask for that and for what was refused anew, together, as
/// one [`Batch`](crate::Batch). A batch of an owner that holds nothing else never deadlocks, whatever the others do.
/// (Asking one by one again can meet the same answer again and again.)
///
/// # Examples
/// ```
/// use spanlock::{AcquireError, Batch, Mode, Owner, RangeLock};
///
/// /// Moves what is held in `a` into `b`, and says how often it had to start again.
/// fn both<'l>(me: &Owner, a: &'l RangeLock, b: &'l RangeLock) -> Result<usize, AcquireError> {
///     let held = a.request(0..10, Mode::Exclusive).owner(me).wait()?;
///     match b.request(0..10, Mode::Exclusive).owner(me).wait() {
///         Ok(more) => Ok(0), // work
///         Err(AcquireError::Deadlock(_)) => {
///             // Somebody who holds `b` waits for what is held here.
///             let both = Batch::new().regain(held).exclusive(b, 0..10).owner(me).wait()?;
///             Ok(1) // look again at what `held` guarded, then work
///         }
///         Err(other) => Err(other),
///     }
/// }
/// # let (a, b) = (RangeLock::new(), RangeLock::new());
/// # assert_eq!(both(&Owner::new(), &a, &b), Ok(0));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadlock {
    waits: Box<[Wait]>,
}

impl Deadlock {
    pub(crate) fn new(waits: Vec<Wait>) -> Deadlock {
        Deadlock { waits: waits.into() }
    }

    /// The waits of the cycle: the first is the one that was refused.
    pub fn waits(&self) -> &[Wait] {
        &self.waits
    }
}

/// One wait of a [`Deadlock`]: `owner` wants `range` in `mode`, or waits for it to be drained, and `holder` holds
/// `held` of the same lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wait {
    /// Who waits.
    pub owner: OwnerName,
    /// The lock's name, or its address if it has none.
    pub lock: Box<str>,
    /// The bytes that are asked for.
    pub range: ByteRange,
    /// The mode that they are asked for in.
    pub mode: Mode,
    /// The bytes that are held against it.
    pub held: ByteRange,
    /// The mode that those are held in.
    pub held_mode: Mode,
    /// Who holds them: the owner of the next wait; or the thread that waits there, in a call, for a request that is not
    /// its own; or the owner in whose [scope](crate::Owner::scope) it waits.
    pub holder: OwnerName,
    /// Whether the holder does not hold those bytes yet, but waits for them, and came first. Only who waits for a range
    /// to be [drained](crate::RangeLock::drained) waits for such a one until it has let go, and so does, in such a
    /// cycle, who is in the way of that.
    pub queued: bool,
}

/// An owner in a message: its identity, and the name of the token or thread if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnerName {
    /// Its identity.
    pub id: OwnerId,
    /// Its name.
    pub name: Option<Box<str>>,
}

impl OwnerName {
    /// What to call `id` in a message: the `token`, if it is one; the calling thread, if it is a thread; or a task.
    pub(crate) fn of(id: OwnerId, token: Option<&Owner>) -> OwnerName {
        let name = match token {
            Some(owner) => owner.name().map(Box::from),
            None if id.is_thread() => std::thread::current().name().map(Box::from),
            None => None,
        };
        OwnerName { id, name }
    }
}

impl fmt::Display for OwnerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} \"{name}\"", self.id),
            None => self.id.fmt(f),
        }
    }
}

/// One line for the whole and one for each wait.
impl fmt::Display for Deadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.waits.len() {
            1 => f.write_str("deadlock: an owner waits for itself")?,
            count => write!(f, "deadlock: {count} owners wait for one another")?,
        }
        let next = self.waits.iter().cycle().skip(1);
        for (wait, next) in self.waits.iter().zip(next) {
            let Wait { owner, lock, range, mode, held, held_mode, holder, queued } = wait;
            let has = if *queued { "waits first for" } else { "holds" };
            write!(f, "\n  {owner} asks {lock} for {range} ({mode}); {holder} {has} {held} ({held_mode})")?;
            if holder.id != next.owner.id {
                write!(f, ", and waits for what {} asks", next.owner)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Deadlock {}

/// A holder that nobody waits for, as it was [poisoned](crate::Guard::poison): who it is, and why.
///
/// It holds what it holds. The request that got this answer has left, and can be made again: when the holder has gone,
/// or was cured; or with a [`try_now`](crate::Request::try_now), which is refused without a reason until then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poisoned(Box<Holder>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    lock: Box<str>,
    owner: OwnerName,
    range: ByteRange,
    mode: Mode,
    reason: Box<str>,
}

impl Poisoned {
    pub(crate) fn new(lock: Box<str>, owner: OwnerName, range: ByteRange, mode: Mode, reason: Box<str>) -> Poisoned {
        Poisoned(Box::new(Holder { lock, owner, range, mode, reason }))
    }

    /// The lock's name, or its address if it has none.
    pub fn lock(&self) -> &str {
        &self.0.lock
    }

    /// Who holds.
    pub fn owner(&self) -> &OwnerName {
        &self.0.owner
    }

    /// The bytes that are held.
    pub fn range(&self) -> ByteRange {
        self.0.range
    }

    /// The mode that they are held in.
    pub fn mode(&self) -> Mode {
        self.0.mode
    }

    /// What was said when it was poisoned.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }
}

impl fmt::Display for Poisoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Holder { lock, owner, range, mode, reason } = &*self.0;
        write!(f, "{owner} holds {range} of {lock} ({mode}) and was poisoned: {reason}")
    }
}

impl std::error::Error for Poisoned {}
