//! One thread, two files: runs steps, and shrinks those that fail to a list from which none can be left out.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache::{Cache, File};
use crate::device::{Access, Device, Place};
use crate::error::CacheError;
use crate::file_lock::Variant;
use crate::fsx::actor::{Difference, Effect};
use crate::fsx::{Actor, Kind, Step};
use crate::hooks::{Hook, NoHook, Plant, Planted};
use crate::queue::Queue;

/// The largest that a file becomes.
pub const MOST: u64 = 64 * 4096;
/// Every so many steps the cache is compared with the disk, too.
const CHECK_DISK: u32 = 1000;

/// What to run the steps on.
#[derive(Debug)]
pub struct Setting {
    /// The lock of the cache.
    pub variant: Variant,
    /// Where the files are.
    pub place: Place,
    /// A fault put into the cache on purpose.
    pub plant: Option<Plant>,
}

/// A step that went wrong.
#[derive(Debug)]
pub struct Failure {
    /// Its number, from one.
    pub number: u32,
    /// `None`: in a check behind the last step.
    pub step: Option<Step>,
    /// What went wrong.
    pub difference: Difference,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.step {
            Some(step) => write!(f, "step {} ({step}): {}", self.number, self.difference),
            None => write!(f, "after step {}: {}", self.number, self.difference),
        }
    }
}

impl std::error::Error for Failure {}

/// Runs steps until they end or one fails.
///
/// # Errors
/// The outer one: there is no file to work on. The inner one: a difference.
pub fn run(
    setting: &Setting,
    steps: impl IntoIterator<Item = Step>,
    mut done: impl FnMut(u32, &Step, Effect),
) -> Result<Result<Done, Failure>, CacheError> {
    let hook: Arc<dyn Hook> = match setting.plant {
        Some(plant) => Arc::new(Planted(plant)),
        None => Arc::new(NoHook),
    };
    let cache = Cache::new(setting.variant, hook, 4);
    let open = || -> Result<Actor, CacheError> {
        let device = Arc::new(Device::open(&setting.place, 0, Access::Direct)?);
        Ok(Actor::of_the_rest(cache.open(device, MOST)?, 0, MOST))
    };
    let (mut actors, queue) = ([open()?, open()?], Queue::new(1));
    let mut number = 0;
    for step in steps {
        number += 1;
        let [first, second] = &mut actors;
        let (actor, other) = if step.file == 0 { (first, &*second) } else { (second, &*first) };
        let mut result = actor.apply(&step, number, Some(other), &queue);
        if step.kind == Kind::Reopen {
            result = result.and_then(|effect| actor.reopen().map(|()| effect));
        }
        if number % CHECK_DISK == 0 {
            result = result.and_then(|effect| check(&mut actors).map(|()| effect));
        }
        match result {
            Ok(effect) => done(number, &step, effect),
            Err(difference) => return Ok(Err(Failure { number, step: Some(step), difference })),
        }
    }
    if let Err(difference) = check(&mut actors) {
        return Ok(Err(Failure { number, step: None, difference }));
    }
    Ok(Ok(Done { steps: number, files: actors.map(|actor| actor.file) }))
}

/// All steps are done, and made no difference.
#[derive(Debug)]
pub struct Done {
    /// How many they were.
    pub steps: u32,
    /// The files, as they are then.
    pub files: [Arc<File>; 2],
}

fn check(actors: &mut [Actor]) -> Result<(), Difference> {
    actors.iter_mut().try_for_each(Actor::settle)?;
    actors.iter().try_for_each(|actor| actor.check().and_then(|()| at_rest(&actor.file)))
}

/// Nobody is at work: no range is held, and what is cached is what the disk holds.
pub fn at_rest(file: &File) -> Result<(), Difference> {
    let snapshot = file.snapshot();
    if !snapshot.requests().is_empty() {
        return Err(Difference::Rest(format!("ranges stay locked:\n{snapshot}")));
    }
    file.sync()?;
    if file.cached_from(file.page_count()) > 0 {
        return Err(Difference::Behind { pages: file.cached_from(file.page_count()) });
    }
    let on_disk = file.device.size_now().map_err(CacheError::from)?;
    if on_disk != file.size() {
        return Err(Difference::Size { found: on_disk, expected: file.size() });
    }
    let mut page = [0; crate::frame::PAGE];
    let mut disk = crate::device::PageBuffer::new();
    for index in 0..file.page_count() {
        if file.cached(index, &mut page) {
            file.device.read_page(index, &mut disk).map_err(CacheError::from)?;
            let inside = (file.size() - crate::device::offset_of(index)).min(page.len() as u64) as usize;
            if page[..inside] != disk[..inside] {
                return Err(Difference::Rest(format!("cached page {index} is not what the disk holds")));
            }
            if page[inside..].iter().any(|&byte| byte != 0) {
                return Err(Difference::Rest(format!("page {index} is not zero behind the end of the file")));
            }
        }
    }
    Ok(())
}

/// All that a file holds, read through the cache.
///
/// # Errors
/// Those of [`File::read`].
pub fn contents(file: &File) -> Result<Vec<u8>, CacheError> {
    let mut bytes = vec![0; usize::try_from(file.size()).expect("small")];
    let read = file.read(0, &mut bytes)?;
    bytes.truncate(read.bytes);
    Ok(bytes)
}

/// Leaves out of `steps`, which fail, what can be left out, until nothing can or the time is up.
pub fn shrink(
    setting: &Setting,
    mut steps: Vec<Step>,
    time: Duration,
    mut progress: impl FnMut(usize),
) -> Result<Vec<Step>, CacheError> {
    let end = Instant::now() + time;
    let mut chunk = steps.len().div_ceil(2);
    while chunk > 0 && Instant::now() < end {
        let mut from = 0;
        let mut shorter = false;
        while from < steps.len() && Instant::now() < end {
            let rest: Vec<Step> =
                steps[..from].iter().chain(&steps[steps.len().min(from + chunk)..]).copied().collect();
            match run(setting, rest.iter().copied(), |_, _, _| {})? {
                // What came behind the failure is not needed either.
                Err(failure) => {
                    steps = rest;
                    steps.truncate(failure.number as usize);
                    shorter = true;
                    progress(steps.len());
                }
                Ok(_) => from += chunk,
            }
        }
        // Ones are tried again until none can go: leaving one out may make another superfluous.
        chunk = if chunk == 1 && shorter { 1 } else { chunk / 2 };
    }
    Ok(steps)
}
