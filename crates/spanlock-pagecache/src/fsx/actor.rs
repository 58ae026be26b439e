//! Who works on a window of a file, and knows what every byte of it should be.

use std::ops::Range;
use std::sync::Arc;

use crate::cache::File;
use crate::direct::Source;
use crate::error::CacheError;
use crate::frame::PAGE;
use crate::fsx::{Kind, Step};
use crate::mapping::Mapping;
use crate::queue::{Pending, Queue};

const P: u64 = PAGE as u64;

/// Works on the bytes `base..base + model.len()` of its file, which nobody else changes.
#[derive(Debug)]
pub struct Actor {
    /// The file.
    pub file: Arc<File>,
    /// The first byte of the window.
    base: u64,
    /// What the window holds.
    model: Vec<u8>,
    end: End,
    /// What the last step has left under way. It is waited for when the next one is done.
    open: Option<Open>,
}

/// A queued operation. It has its range, so whatever comes next and meets it (but for direct writes) waits for it: in
/// the model it is done.
#[derive(Debug)]
enum Open {
    Write(Pending<()>),
    /// With what was there when it began. A buffered write may go beside it.
    Read {
        pending: Pending<Vec<u8>>,
        start: usize,
        before: Vec<u8>,
    },
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The byte of the file at which it began.
    pub at: u64,
    /// How many bytes.
    pub bytes: u64,
    /// How long the file was then.
    pub size: u64,
}

impl std::fmt::Display for Effect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "-> {} {} {}", self.at, self.bytes, self.size)
    }
}

/// Where the window ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With the file, which may grow to so many bytes: steps may change its shape.
    Open {
        /// The largest size of the file.
        most: u64,
    },
    /// Before somebody else's.
    Fixed,
}

impl Actor {
    /// The owner of everything from `base` on, in a file that ends there now.
    pub fn of_the_rest(file: Arc<File>, base: u64, most: u64) -> Actor {
        debug_assert_eq!(file.size(), base);
        Actor { file, base, model: Vec::new(), end: End::Open { most }, open: None }
    }

    /// The owner of `length` bytes that are zeros now.
    pub fn of_window(file: Arc<File>, base: u64, length: usize) -> Actor {
        Actor { file, base, model: vec![0; length], end: End::Fixed, open: None }
    }

    fn size(&self) -> u64 {
        self.model.len() as u64
    }

    /// The window's part of `b` bytes at `a`: what of it there is, in bytes of the window. (Not shifted if it is behind
    /// the end: a step that is left out shall not move the others.)
    fn part(&self, a: u64, b: u64) -> Range<usize> {
        let a = a.min(self.size());
        a as usize..(a + b).min(self.size()) as usize
    }

    /// As [`Actor::part`], but in whole units of the device.
    fn aligned(&self, a: u64, b: u64) -> Range<usize> {
        let unit = self.file.device.unit();
        let part = self.part(a, b);
        let start = part.start / unit * unit;
        start..start + (part.end - start) / unit * unit
    }

    /// As [`Actor::part`], but may reach behind the end of a window that is open.
    fn place(&self, a: u64, b: u64) -> Range<usize> {
        match self.end {
            End::Fixed => self.part(a, b),
            End::Open { most } => {
                // Behind the end as well: what lies between becomes zeros.
                let a = a.min(most - self.base);
                a as usize..(a + b).min(most - self.base) as usize
            }
        }
    }

    fn at(&self, index: usize) -> u64 {
        self.base + index as u64
    }

    /// Does `step`, which is number `number`, and compares. `other` is the one with the other file, to copy from.
    pub fn apply(
        &mut self,
        step: &Step,
        number: u32,
        other: Option<&Actor>,
        queue: &Queue,
    ) -> Result<Effect, Difference> {
        // Direct writes go together: which of two comes last nobody says.
        if step.kind.writes_directly() {
            self.settle()?;
        }
        let open = self.open.take();
        let done = match (step.kind.is_structural(), self.end) {
            (false, _) => self.read_or_write(step, number, other, queue)?,
            (true, End::Open { most }) => self.reshape(step, number, most)?,
            (true, End::Fixed) => 0..0, // would move what is somebody else's
        };
        self.settle_this(open)?;
        match (self.file.size(), self.base + self.size()) {
            (found, expected) if self.end != End::Fixed && found != expected => {
                Err(Difference::Size { found, expected })
            }
            (size, _) => Ok(Effect { at: self.at(done.start), bytes: done.len() as u64, size }),
        }
    }

    /// Waits for what the last step left under way.
    pub fn settle(&mut self) -> Result<(), Difference> {
        let open = self.open.take();
        self.settle_this(open)
    }

    fn settle_this(&self, open: Option<Open>) -> Result<(), Difference> {
        match open {
            None => Ok(()),
            Some(Open::Write(pending)) => Ok(pending.wait()?),
            Some(Open::Read { pending, start, before }) => {
                let found = pending.wait()?;
                // As it was before the step beside it, or byte by byte after it.
                let now = |index: usize| self.model.get(start + index).copied();
                let same = |index: usize, byte| before.get(index) == Some(byte) || now(index) == Some(*byte);
                match found.iter().enumerate().find(|&(index, byte)| !same(index, byte)) {
                    None if found.len() == before.len() => Ok(()),
                    None => Err(Difference::Count { found: found.len(), expected: before.len() }),
                    Some((index, _)) => {
                        let at = self.at(start + index);
                        let around = |bytes: &[u8]| Word::around(bytes, index, at);
                        Err(Difference::Byte { at, found: around(&found), expected: around(&before) })
                    }
                }
            }
        }
    }

    fn read_or_write(
        &mut self,
        step: &Step,
        number: u32,
        other: Option<&Actor>,
        queue: &Queue,
    ) -> Result<Range<usize>, Difference> {
        let file = Arc::clone(&self.file);
        let (part, aligned) = (self.part(step.a, step.b), self.aligned(step.a, step.b));
        match step.kind {
            Kind::Read => {
                let mut bytes = vec![0; self.wanted(&part, step.b, 1)];
                let count = file.read(self.at(part.start), &mut bytes)?.bytes;
                self.compare_to_end(part.start, &bytes, count)?;
                Ok(part.start..part.start + count)
            }
            Kind::MapRead => {
                let mut bytes = vec![0; part.len()];
                Mapping::new(&file, self.at(part.start), part.len()).read(0, &mut bytes)?;
                self.compare(part.start, &bytes)?;
                Ok(part)
            }
            Kind::DirectRead => {
                let mut bytes = vec![0; self.wanted(&aligned, step.b, file.device.unit())];
                let count = file.read_direct(self.at(aligned.start), &mut bytes)?;
                self.compare_to_end(aligned.start, &bytes, count)?;
                Ok(aligned.start..aligned.start + count)
            }
            Kind::QueuedRead => {
                let pending = file.submit_read(self.at(aligned.start), aligned.len(), queue)?;
                let before = self.model[aligned.clone()].to_vec();
                self.open = Some(Open::Read { pending, start: aligned.start, before });
                Ok(aligned)
            }
            Kind::Write => {
                let place = self.place(step.a, step.b);
                let bytes = bytes_of(number, self.at(place.start), place.len());
                file.write(self.at(place.start), &bytes)?;
                self.put(place.start, &bytes);
                Ok(place)
            }
            Kind::MapWrite => {
                // Behind the end, as the real fsx: the file is made longer first.
                let place = self.place(step.a, step.b);
                if place.end > self.model.len() {
                    file.truncate(self.at(place.end))?;
                }
                let bytes = bytes_of(number, self.at(place.start), place.len());
                Mapping::new(&file, self.at(place.start), place.len()).write(0, &bytes)?;
                self.put(place.start, &bytes);
                Ok(place)
            }
            Kind::DirectWrite | Kind::QueuedWrite => {
                let unit = file.device.unit();
                self.is_refused(step, unit, |at, bytes| file.write_direct(at, Source::Memory(bytes)))?;
                let place = self.place(step.a / unit as u64 * unit as u64, step.b);
                let start = place.start / unit * unit;
                let bytes = bytes_of(number, self.at(start), (place.end - start) / unit * unit);
                if step.kind == Kind::DirectWrite {
                    file.write_direct(self.at(start), Source::Memory(&bytes))?;
                } else {
                    let pending = file.submit_write(self.at(start), Source::Memory(&bytes), queue)?;
                    // The size is not there before the write is done, and that is nobody's fault.
                    if start + bytes.len() > self.model.len() {
                        pending.wait()?;
                    } else {
                        self.open = Some(Open::Write(pending));
                    }
                }
                self.put(start, &bytes);
                Ok(start..start + bytes.len())
            }
            Kind::Copy => {
                let to = self.place(step.c, part.len() as u64);
                let from = part.start..part.start + to.len();
                let mut bytes = vec![0; from.len()];
                file.read(self.at(from.start), &mut bytes)?;
                self.compare(from.start, &bytes)?;
                file.write(self.at(to.start), &bytes)?;
                self.put(to.start, &bytes);
                Ok(to)
            }
            Kind::CopyWithin => {
                let from = self.part(step.c, aligned.len() as u64);
                let length = from.len() / file.device.unit() * file.device.unit();
                let bytes = self.model[from.start..from.start + length].to_vec();
                let mapping = Mapping::new(&file, self.at(from.start), length);
                file.write_direct(self.at(aligned.start), Source::Mapped(&mapping))?;
                self.put(aligned.start, &bytes);
                Ok(aligned.start..aligned.start + length)
            }
            Kind::CopyAcross => {
                let Some(other) = other else { return Ok(0..0) };
                let from = other.part(step.c, aligned.len() as u64);
                let length = from.len() / file.device.unit() * file.device.unit();
                let mapping = Mapping::new(&other.file, other.at(from.start), length);
                file.write_direct(self.at(aligned.start), Source::Mapped(&mapping))?;
                let bytes = other.model[from.start..from.start + length].to_vec();
                self.put(aligned.start, &bytes);
                Ok(aligned.start..aligned.start + length)
            }
            Kind::ReadInto => {
                let to = self.part(step.c, aligned.len() as u64);
                let length = to.len() / file.device.unit() * file.device.unit();
                let bytes = self.model[aligned.start..aligned.start + length].to_vec();
                let mapping = Mapping::new(&file, self.at(to.start), length);
                file.read_direct_into(self.at(aligned.start), &mapping)?;
                self.put(to.start, &bytes);
                Ok(to.start..to.start + length)
            }
            Kind::Punch | Kind::Zero => {
                let (at, length) = (self.at(part.start), part.len() as u64);
                if step.kind == Kind::Punch { file.punch(at, length) } else { file.zero(at, length) }?;
                self.model[part.clone()].fill(0);
                Ok(part)
            }
            Kind::Sync => file.sync().map(|()| 0..0).map_err(Difference::from),
            Kind::Flush => file.flush().map(|_| 0..0).map_err(Difference::from),
            Kind::Evict => file.evict_all().map(|_| 0..0).map_err(Difference::from),
            Kind::Check => self.check().map(|()| 0..0),
            Kind::Skip | Kind::Reopen => Ok(0..0), // see `Actor::reopen`
            kind => unreachable!("{kind:?} changes the shape"),
        }
    }

    /// What is not in whole units must be refused, and change nothing: tried with the step's own numbers, if they are
    /// such.
    fn is_refused(
        &self,
        step: &Step,
        unit: usize,
        act: impl FnOnce(u64, &[u8]) -> Result<(), CacheError>,
    ) -> Result<(), Difference> {
        let (at, length) = (self.base + step.a, step.b);
        if at % unit as u64 == 0 && length % unit as u64 == 0 {
            return Ok(());
        }
        match act(at, &vec![0xEE; length as usize]) {
            Err(CacheError::Unaligned { .. }) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(()) => Err(Difference::Rest(format!("{length} bytes at byte {at} were not refused"))),
        }
    }

    /// Closes the file and opens it again: with nobody else at it, and nothing under way.
    pub fn reopen(&mut self) -> Result<(), Difference> {
        self.settle()?;
        self.file = self.file.reopen()?;
        Ok(())
    }

    fn reshape(&mut self, step: &Step, number: u32, most: u64) -> Result<Range<usize>, Difference> {
        let (file, end) = (Arc::clone(&self.file), self.base + self.size());
        // In whole pages of the file.
        let page = (self.base + step.a.min(self.size())).next_multiple_of(P);
        let length = step.b.div_ceil(P) * P;
        let index = (page - self.base) as usize;
        match step.kind {
            Kind::Append => {
                let bytes = bytes_of(number, end, step.b.min(most - end) as usize);
                let at = file.append(&bytes)?;
                if at != end {
                    return Err(Difference::Size { found: at, expected: end });
                }
                let start = self.model.len();
                self.model.extend(bytes);
                Ok(start..self.model.len())
            }
            Kind::Allocate | Kind::ZeroExtend => {
                let place = self.place(step.a, step.b);
                if place.end > self.model.len() && !place.is_empty() {
                    file.truncate(self.at(place.end))?;
                    self.model.resize(place.end, 0);
                }
                if step.kind == Kind::ZeroExtend {
                    file.zero(self.at(place.start), place.len() as u64)?;
                    self.put(place.start, &vec![0; place.len()]);
                }
                Ok(place)
            }
            Kind::Truncate => {
                let size = step.a.min(most - self.base);
                let behind = file.truncate(self.base + size)?;
                self.model.resize(size as usize, 0);
                if behind > 0 {
                    return Err(Difference::Behind { pages: behind });
                }
                Ok(size as usize..size as usize)
            }
            Kind::Collapse if page + length < end => {
                self.is_refused(step, P as usize, |at, bytes| file.collapse(at, bytes.len() as u64))?;
                file.collapse(page, length)?;
                self.model.drain(index..index + length as usize);
                Ok(index..index + length as usize)
            }
            Kind::Insert if page < end && end + length <= most => {
                self.is_refused(step, P as usize, |at, bytes| file.insert(at, bytes.len() as u64))?;
                file.insert(page, length)?;
                self.model.splice(index..index, std::iter::repeat_n(0, length as usize));
                Ok(index..index + length as usize)
            }
            _ => Ok(0..0),
        }
    }

    fn put(&mut self, start: usize, bytes: &[u8]) {
        if !bytes.is_empty() {
            let end = start + bytes.len();
            self.model.resize(self.model.len().max(end), 0);
            self.model[start..end].copy_from_slice(bytes);
        }
    }

    /// How many bytes a read of `part` asks for: where the window ends with the file, also some behind the end, but not
    /// more than a file can have.
    fn wanted(&self, part: &Range<usize>, b: u64, unit: usize) -> usize {
        match self.end {
            End::Open { most } => b.min(most - self.at(part.start)) as usize / unit * unit,
            End::Fixed => part.len(),
        }
    }

    /// Compares what a read gave: `count` bytes, which should be all that there are.
    fn compare_to_end(&self, start: usize, found: &[u8], count: usize) -> Result<(), Difference> {
        let expected = found.len().min(self.model.len() - start);
        if count != expected {
            return Err(Difference::Count { found: count, expected });
        }
        self.compare(start, &found[..count])
    }

    fn compare(&self, start: usize, found: &[u8]) -> Result<(), Difference> {
        let expected = &self.model[start..start + found.len()];
        match found.iter().zip(expected).position(|(found, expected)| found != expected) {
            None => Ok(()),
            Some(index) => {
                let at = self.at(start + index);
                let around = |bytes: &[u8]| Word::around(bytes, index, at);
                Err(Difference::Byte { at, found: around(found), expected: around(expected) })
            }
        }
    }

    /// Compares the whole window with what is read through the cache.
    pub fn check(&self) -> Result<(), Difference> {
        let mut bytes = vec![0; self.model.len()];
        self.file.read(self.base, &mut bytes)?;
        self.compare(0, &bytes)
    }
}

/// The bytes that step `number` writes at byte `at` of its file: in each word of four the number, and the sector.
pub fn bytes_of(number: u32, at: u64, length: usize) -> Vec<u8> {
    let [one, two, three, _] = number.to_le_bytes();
    (at..).take(length).map(|offset| [one, two, three, (offset / 512) as u8][(offset % 4) as usize]).collect()
}

/// The word of four around a byte, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word([u8; 4]);

impl Word {
    /// Around `bytes[index]`, which is byte `offset` of the file.
    fn around(bytes: &[u8], index: usize, offset: u64) -> Word {
        let place = (offset % 4) as usize;
        Word(std::array::from_fn(|at| {
            (index + at).checked_sub(place).and_then(|at| bytes.get(at)).map_or(0, |&byte| byte)
        }))
    }
}

impl std::fmt::Display for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            [0, 0, 0, 0] => f.write_str("zeros"),
            [one, two, three, sector] => {
                write!(f, "step {}'s, for sector {sector}", u32::from_le_bytes([one, two, three, 0]))
            }
        }
    }
}

/// What went wrong.
#[derive(Debug)]
pub enum Difference {
    /// A byte is not what was written there.
    Byte {
        /// Which of the file.
        at: u64,
        /// What is there.
        found: Word,
        /// What should be.
        expected: Word,
    },
    /// The file has another size, or an append found another.
    Size {
        /// It has this one.
        found: u64,
        /// It should have that one.
        expected: u64,
    },
    /// A read gave more bytes, or fewer.
    Count {
        /// It gave so many.
        found: usize,
        /// It should have given so many.
        expected: usize,
    },
    /// Something is cached behind the end of the file.
    Behind {
        /// So many pages.
        pages: usize,
    },
    /// At the end, or when everything was written back.
    Rest(String),
    /// An operation failed that should not have.
    Failed(CacheError),
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Difference::Byte { at, found, expected } => {
                write!(f, "byte {at} and its neighbours are {found}; they should be {expected}")
            }
            Difference::Size { found, expected } => write!(f, "the file ends at {found}; it should end at {expected}"),
            Difference::Count { found, expected } => write!(f, "{found} bytes were read, not {expected}"),
            Difference::Behind { pages } => write!(f, "{pages} pages are cached behind the end of the file"),
            Difference::Rest(what) => f.write_str(what),
            Difference::Failed(error) => write!(f, "it failed: {error}"),
        }
    }
}

impl std::error::Error for Difference {}

impl From<CacheError> for Difference {
    fn from(error: CacheError) -> Difference {
        Difference::Failed(error)
    }
}
