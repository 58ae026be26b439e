//! One page of the cache, that anybody may read without taking a lock.
//!
//! # Promise
//! [`Frame::read_with`] copies the page as it was at one moment during the call, or
//! says that the frame held none. It takes no lock and never sleeps; it
//! repeats itself while somebody is changing the frame.
//!
//! # Shape
//! A sequence lock. `sequence` is bumped before and after each change, and a
//! reader that finds it moved throws its copy away. The bytes are atomic words,
//! so that reading them during a change is no data race, merely useless.
//!
//! | bits of `sequence` | meaning |
//! |---|---|
//! | `0` | CHANGING: a writer is at work on the words |
//! | `1` | PRESENT: the frame holds its page |
//! | `2..64` | a count, one up with every change |
//!
//! # Orderings
//! | pair | writer | reader | carries |
//! |---|---|---|---|
//! | P1 | last store of `sequence`, Release | first load, Acquire | the words of that change |
//! | P2 | `fence(Release)` after setting CHANGING | `fence(Acquire)` before the second load | whoever read a word of a change sees that it began |
//!
//! Changes are ordered among themselves by the mutex around [`State`].

use std::hint;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::thread;

use parking_lot::{Mutex, MutexGuard};

/// Bytes in a page.
pub const PAGE: usize = 4096;

/// Bytes in a word.
const WORD: usize = 8;

const CHANGING: u64 = 1;
const PRESENT: u64 = 1 << 1;
const ONE_CHANGE: u64 = 1 << 2;

/// How often a reader looks again before it lets somebody else run: whoever is
/// changing the frame may have lost its processor in the middle.
const LOOKS_BEFORE_YIELD: u32 = 64;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    /// The page as it is on the disk (or as it is being written there).
    Clean,
    /// The disk has older bytes.
    Dirty,
}

/// A place for one page of the file.
#[derive(Debug)]
pub(crate) struct Frame {
    sequence: AtomicU64,
    state: Mutex<State>,
    page_lock: Mutex<()>,
    words: [AtomicU64; PAGE / WORD],
}

impl Frame {
    pub(crate) fn new() -> Frame {
        Frame {
            sequence: AtomicU64::new(0),
            state: Mutex::new(State::Absent),
            page_lock: Mutex::new(()),
            words: [const { AtomicU64::new(0) }; PAGE / WORD],
        }
    }

    /// Copies the page to `to`, and says what `look` saw at the moment at which the page was so; `look` is called again
    /// whenever the copy is made again. None if the frame holds no page; `to` is then worth nothing.
    pub(crate) fn read_with<T>(&self, to: &mut [u8; PAGE], look: impl Fn() -> T) -> Option<T> {
        let mut looks = 0;
        loop {
            // ORDERING (P1): what this value says is there, we see.
            let before = self.sequence.load(Ordering::Acquire);
            if before & CHANGING == 0 {
                if before & PRESENT == 0 {
                    return None;
                }
                self.copy_words(to);
                let seen = look();
                // ORDERING (P2): if any word above came from a later change,
                // the load below sees that change's CHANGING, or what followed.
                // So it does if `look` saw (by Acquire) what was done after one.
                fence(Ordering::Acquire);
                if self.sequence.load(Ordering::Relaxed) == before {
                    return Some(seen);
                }
            }
            looks += 1;
            if looks % LOOKS_BEFORE_YIELD == 0 {
                thread::yield_now();
            } else {
                hint::spin_loop();
            }
        }
    }

    /// Puts a page that was read from the disk into the frame, unless it holds
    /// one already: whatever is there is at least as new.
    pub(crate) fn insert(&self, page: &[u8; PAGE]) {
        let mut state = self.state.lock();
        if *state == State::Absent {
            self.change(0, page);
            *state = State::Clean;
        }
    }

    /// Copies `bytes` into the page at `offset` and marks it dirty. False if the
    /// frame holds no page to change; a write of the whole page needs none.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) -> bool {
        let mut state = self.state.lock();
        if *state == State::Absent && bytes.len() != PAGE {
            return false;
        }
        self.change(offset, bytes);
        *state = State::Dirty;
        true
    }

    /// The same, for a page that is there, and if `may` says so: nobody can remove the page between that and the
    /// change. False if nothing was changed.
    pub(crate) fn write_present(&self, offset: usize, bytes: &[u8], may: impl FnOnce() -> bool) -> bool {
        let mut state = self.state.lock();
        let writes = *state != State::Absent && may();
        if writes {
            self.change(offset, bytes);
            *state = State::Dirty;
        }
        writes
    }

    /// Whether the frame holds a page.
    pub(crate) fn is_present(&self) -> bool {
        *self.state.lock() != State::Absent
    }

    /// Whether the frame holds bytes that the disk does not have.
    pub(crate) fn is_dirty(&self) -> bool {
        *self.state.lock() == State::Dirty
    }

    /// Takes the page lock: see [`LockedFrame`].
    pub(crate) fn lock(&self) -> LockedFrame<'_> {
        LockedFrame { frame: self, _page_lock: self.page_lock.lock() }
    }

    /// The same, if it is to be had at once.
    pub(crate) fn try_lock(&self) -> Option<LockedFrame<'_>> {
        Some(LockedFrame { frame: self, _page_lock: self.page_lock.try_lock()? })
    }

    /// Changes words and makes the frame present. The caller holds `state`.
    fn change(&self, offset: usize, bytes: &[u8]) {
        // Relaxed: only holders of `state` store here, and we hold it.
        let before = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(before | CHANGING, Ordering::Relaxed);
        // ORDERING (P2): nobody sees one of the words below and then still the
        // old sequence. Without it a reader could accept half a change.
        fence(Ordering::Release);
        // What comes before the first whole word, the whole words, and what comes behind them.
        let (head, rest) = bytes.split_at(bytes.len().min(offset.next_multiple_of(WORD) - offset));
        let whole = rest.chunks_exact(WORD);
        let tail = whole.remainder();
        let (first, count) = ((offset + head.len()) / WORD, whole.len());
        self.change_part(offset, head);
        for (word, bytes) in self.words[first..].iter().zip(whole) {
            // Relaxed: ours to change, as the sequence is.
            word.store(u64::from_le_bytes(bytes.try_into().expect("a word")), Ordering::Relaxed);
        }
        self.change_part((first + count) * WORD, tail);
        // ORDERING (P1): whoever sees this sees the words.
        self.sequence.store((before | PRESENT) + ONE_CHANGE, Ordering::Release);
    }

    /// A part of a word, or nothing.
    fn change_part(&self, offset: usize, bytes: &[u8]) {
        if !bytes.is_empty() {
            let (word, within) = (&self.words[offset / WORD], offset % WORD);
            // Relaxed: as in `change`.
            let mut le_bytes = word.load(Ordering::Relaxed).to_le_bytes();
            le_bytes[within..within + bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(le_bytes), Ordering::Relaxed);
        }
    }

    /// Relaxed: [`Frame::read_with`] and the mutex say whether the copy is any good.
    fn copy_words(&self, to: &mut [u8; PAGE]) {
        for (bytes, word) in to.chunks_exact_mut(WORD).zip(&self.words) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
    }
}

/// A frame whose page lock we hold: only one thread at a time writes a page back
/// or drops it.
///
/// It is needed beside the file's lock, because the holders of *block* go
/// together: two of them may find the same dirty page. The second must not write
/// its copy of the page to the disk after the first has gone on to its own write.
/// The same holds for write-back, which takes no range at all.
/// The page lock is always taken after the file's lock, never the other way round.
#[derive(Debug)]
pub(crate) struct LockedFrame<'a> {
    frame: &'a Frame,
    _page_lock: MutexGuard<'a, ()>,
}

impl LockedFrame<'_> {
    /// If the page is dirty: copies it to `to` and calls it clean from here on. The
    /// caller writes it to the disk, and calls [`LockedFrame::dirty_again`] if that
    /// failed. Who writes to the frame meanwhile makes it dirty again.
    pub(crate) fn take_dirty(&self, to: &mut [u8; PAGE]) -> bool {
        let mut state = self.frame.state.lock();
        if *state != State::Dirty {
            return false;
        }
        self.frame.copy_words(to);
        *state = State::Clean;
        true
    }

    /// Takes back [`LockedFrame::take_dirty`].
    pub(crate) fn dirty_again(&self) {
        let mut state = self.frame.state.lock();
        if *state == State::Clean {
            *state = State::Dirty;
        }
    }

    /// Empties the frame if the disk has all that it holds: the check and the removal are one step, so that nobody can
    /// make the page dirty in between. False if it is dirty.
    pub(crate) fn remove_clean(&self) -> bool {
        let mut state = self.frame.state.lock();
        let clean = *state != State::Dirty;
        if clean {
            self.empty(&mut state);
        }
        clean
    }

    /// Empties the frame, whatever it holds.
    pub(crate) fn drop_page(&self) {
        self.empty(&mut self.frame.state.lock());
    }

    /// `state` is the frame's.
    fn empty(&self, state: &mut State) {
        if *state != State::Absent {
            // Relaxed: as in `Frame::change`.
            let before = self.frame.sequence.load(Ordering::Relaxed);
            // ORDERING (P1): whoever finds the frame empty also sees all that its
            // pages went through before.
            self.frame.sequence.store((before & !PRESENT) + ONE_CHANGE, Ordering::Release);
            *state = State::Absent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::sync::atomic::AtomicBool;

    impl Frame {
        fn read(&self, to: &mut [u8; PAGE]) -> bool {
            self.read_with(to, || ()).is_some()
        }
    }

    #[test]
    fn only_a_clean_page_is_removed_clean() {
        let frame = Frame::new();
        assert!(frame.write(0, &[4; PAGE]));
        assert!(!frame.lock().remove_clean());
        assert!(frame.is_present());
        assert!(frame.lock().take_dirty(&mut [0; PAGE]));
        assert!(frame.lock().remove_clean());
        assert!(!frame.is_present());
    }

    #[test]
    fn bytes_are_written_wherever_they_begin_and_end() {
        let frame = Frame::new();
        frame.insert(&[9; PAGE]);
        let mut expected = [9; PAGE];
        for (offset, length) in [(0, 1), (3, 9), (7, 1), (8, 8), (13, 27), (PAGE - 3, 3)] {
            let bytes = vec![offset as u8 ^ 0x55; length];
            assert!(frame.write(offset, &bytes));
            expected[offset..offset + length].copy_from_slice(&bytes);
            let mut page = [0; PAGE];
            assert!(frame.read(&mut page));
            assert_eq!(page, expected, "{length} at {offset}");
        }
    }

    #[test]
    fn holds_what_was_inserted_until_it_is_dropped() {
        let frame = Frame::new();
        let mut page = [0; PAGE];
        assert!(!frame.read(&mut page));
        frame.insert(&[1; PAGE]);
        frame.insert(&[2; PAGE]); // too late: somebody was faster
        assert!(frame.read(&mut page));
        assert_eq!(page, [1; PAGE]);
        frame.lock().drop_page();
        assert!(!frame.read(&mut page));
    }

    #[test]
    fn what_is_seen_beside_a_page_belongs_to_it() {
        let frame = Frame::new();
        let (mut page, looks) = ([0; PAGE], Cell::new(0));
        assert_eq!(frame.read_with(&mut page, || unreachable!("there is no page")), None::<()>);
        assert!(frame.write(0, &[1; PAGE]));
        // Changed between the copy and the look, as by a write that makes the file longer.
        let look = || {
            looks.set(looks.get() + 1);
            if looks.get() == 1 {
                assert!(frame.write(0, &[2; PAGE]));
            }
            looks.get()
        };
        assert_eq!(frame.read_with(&mut page, look), Some(2));
        assert_eq!(page, [2; PAGE]);
        // Dropped, as by a truncate.
        assert_eq!(frame.read_with(&mut page, || frame.lock().drop_page()), None);
    }

    #[test]
    fn part_of_a_page_can_only_be_written_to_a_page() {
        let frame = Frame::new();
        assert!(!frame.write(512, &[3; 512]));
        assert!(frame.write(0, &[4; PAGE]));
        assert!(frame.write(512, &[3; 512]));
        let mut page = [0; PAGE];
        assert!(frame.read(&mut page));
        assert_eq!(page[..512], [4; 512]);
        assert_eq!(page[512..1024], [3; 512]);
        assert_eq!(page[1024..], [4; PAGE - 1024]);
    }

    #[test]
    fn a_write_during_write_back_leaves_the_page_dirty() {
        let frame = Frame::new();
        frame.insert(&[1; PAGE]);
        assert!(!frame.is_dirty());
        assert!(frame.write(0, &[2; 512]));
        let locked = frame.lock();
        let mut page = [0; PAGE];
        assert!(locked.take_dirty(&mut page));
        assert_eq!(page[..513], [&[2; 512][..], &[1]].concat());
        assert!(!frame.is_dirty());
        assert!(frame.write(0, &[3; 512]));
        assert!(frame.is_dirty());
        assert!(locked.take_dirty(&mut page));
        locked.dirty_again(); // as if the disk had failed
        assert!(frame.is_dirty());
    }

    #[test]
    fn readers_never_see_half_a_change() {
        let frame = Frame::new();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..20_000_u32 {
                    let page = [round.to_le_bytes()[0]; PAGE];
                    assert!(frame.write(0, &page));
                    if round % 16 == 0 {
                        frame.lock().drop_page();
                    }
                }
                stop.store(true, Ordering::Relaxed);
            });
            scope.spawn(|| {
                let mut page = [0; PAGE];
                while !stop.load(Ordering::Relaxed) {
                    if frame.read(&mut page) {
                        assert!(page.iter().all(|&byte| byte == page[0]));
                    }
                }
            });
        });
    }
}
