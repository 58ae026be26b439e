//! The watchdog: an actor that makes no step any more is a lost wake-up, or a circle of waiters. Then it prints who
//! holds and who waits, and ends the program.

use crate::world::World;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(250);

/// Watches until `done`. Patience is counted in ticks that came in time: if the whole program is stopped for a while (a
/// laptop's lid, a debugger), that is nobody's fault.
pub(crate) fn watch(world: &World, patience: Duration, done: &AtomicBool) {
    let most = patience.as_millis() / TICK.as_millis();
    let mut seen: Vec<(u64, u128)> = world.steps.iter().map(|_| (0, 0)).collect();
    let mut last = Instant::now();
    while !done.load(Ordering::Acquire) {
        thread::park_timeout(TICK);
        let late = last.elapsed() > 4 * TICK;
        last = Instant::now();
        if late {
            continue;
        }
        for (actor, (steps, ticks)) in seen.iter_mut().enumerate() {
            let now = world.steps[actor].load(Ordering::Relaxed);
            // Between the rounds nobody works.
            if now != *steps || now == IDLE {
                (*steps, *ticks) = (now, 0);
                continue;
            }
            *ticks += 1;
            if *ticks > most {
                hang(world, actor, patience);
            }
        }
    }
}

/// The number of steps of one who has nothing to do.
pub(crate) const IDLE: u64 = u64::MAX;

fn hang(world: &World, actor: usize, patience: Duration) -> ! {
    let mut err = std::io::stderr().lock();
    let mut say = |text: String| drop(writeln!(err, "{text}"));
    say(format!("\nactor {actor} has made no step for {patience:?}: a lost wake-up, or a circle of waiters"));
    for place in world.places.iter().chain([&world.stuck.place]) {
        say(format!("{}: {}", place.name, place.lock.snapshot()));
    }
    std::process::exit(1)
}
