//! What figures belong to: the machine, the day, and the command.

// Each bench is a crate of its own and uses a part of this.
#![allow(dead_code)]

use std::{env, fs, thread};

pub(crate) fn cpus() -> usize {
    thread::available_parallelism().map_or(0, usize::from)
}

/// The processor, as it calls itself.
pub(crate) fn model() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or("unknown", |(_, name)| name.trim()).to_owned()
}

pub(crate) fn today() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d").to_string()
}

/// How this program was called, and by which call of cargo.
pub(crate) fn command(cargo: &str) -> String {
    // Cargo adds one of its own.
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let rest = if arguments.is_empty() { String::new() } else { format!(" -- {}", arguments.join(" ")) };
    format!("cargo {cargo}{rest}")
}

/// All of it in a line, for under a picture.
pub(crate) fn origin(cargo: &str) -> String {
    format!("{}, {} CPUs; {}; {}", model(), cpus(), today(), command(cargo))
}
