//! Promise: the rooms of the house. Each source file names only the crate modules and the outside crates that this
//! table allows it, so that arrows point downwards and what is dangerous stays in one place.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What is named nowhere but where the table says so.
const FENCED: &[&str] = &[
    "std::sync::atomic",
    "std::sync",
    "std::thread",
    "loom",
    "shuttle",
    "crossbeam_epoch",
    "crossbeam_utils",
    "dashmap",
    "rustix",
    "hdrhistogram",
    "memmap2",
    "pin_project_lite",
    "smallvec",
    "tracing",
];

/// The folders of `src`, from top to bottom. What stands in a row beside another does not know it. A file names only its own
/// folder and those below.
const LAYERS: &[&[&str]] = &[&["surface"], &["protocol"], &["tree", "wait"], &["watching"], &["facts"], &["platform"]];

/// The folders that are modules to others as a whole. Of the others, others name the files.
const WHOLE: &[&str] = &["tree", "wait"];

/// (file, crate modules that it may name, fenced crates that it may name). A module is named without its folder. `std::sync`
/// includes `std::sync::atomic`.
const ROOMS: &[(&str, &[&str], &[&str])] = &[
    (
        "lib.rs",
        &[
            "announced",
            "any",
            "batch",
            "drained",
            "error",
            "guard",
            "keys",
            "lock",
            "mode",
            "owner",
            "owner_kind",
            "range",
            "request",
            "scope",
            "slices",
            "snapshot",
            "stats",
            "table",
            "whole",
        ],
        &[],
    ),
    // The folders that hold no more than their files.
    ("surface/mod.rs", &[], &[]),
    ("protocol/mod.rs", &[], &[]),
    ("watching/mod.rs", &[], &[]),
    ("facts/mod.rs", &[], &[]),
    ("platform/mod.rs", &[], &[]),
    // Facts: plain values.
    ("facts/range.rs", &[], &[]),
    ("facts/keys.rs", &["range"], &[]),
    ("facts/mode.rs", &[], &[]),
    // `std::thread` there: the name of a thread.
    ("facts/error.rs", &["mode", "owner", "range"], &["std::thread"]),
    // `std::sync` there: `Arc`, and the clock's start.
    ("facts/owner.rs", &["sync"], &["crossbeam_utils", "std::sync"]),
    ("facts/owner_kind.rs", &["error", "owner", "sync"], &["std::sync"]),
    ("facts/elapsed.rs", &[], &[]),
    // Platform.
    ("platform/sync.rs", &[], &["std::sync", "std::thread", "loom", "shuttle"]),
    ("platform/sync/chaos.rs", &[], &["std::sync", "std::thread"]),
    ("platform/sync/gate.rs", &[], &["std::sync"]),
    ("platform/sync/watched.rs", &[], &["std::sync"]),
    ("platform/sync/model.rs", &[], &["loom"]),
    // loom there: only the memory that a model gives back. `std::sync` there: the collector, which outlives each of
    // shuttle's schedules.
    ("platform/reclaim.rs", &["sync"], &["crossbeam_epoch", "loom", "std::sync"]),
    ("platform/processors.rs", &[], &["rustix", "std::sync", "std::thread"]),
    // What the rooms below say to whoever watches. Alone in knowing the features for that.
    ("watching/telemetry.rs", &["mode", "owner", "range", "stats"], &["tracing"]),
    ("watching/telemetry/clock.rs", &["mode", "owner", "range", "stats"], &["tracing"]),
    ("facts/snapshot.rs", &["mode", "owner", "range"], &[]),
    ("facts/snapshot/map.rs", &["elapsed", "mode", "range"], &[]),
    ("watching/stats.rs", &["elapsed", "sync"], &["crossbeam_utils", "hdrhistogram", "std::sync"]),
    // Mechanisms: blind to each other. The tree knows no waiting and no fairness.
    ("tree/mod.rs", &["reclaim", "sync"], &[]),
    ("tree/bar.rs", &["sync"], &[]),
    ("tree/steps.rs", &[], &[]),
    ("tree/node.rs", &["reclaim", "sync"], &[]),
    ("tree/slot.rs", &["reclaim", "sync"], &[]),
    ("tree/place.rs", &["mode", "owner", "reclaim", "sync", "telemetry"], &["smallvec"]),
    ("tree/quota.rs", &["owner", "sync"], &[]),
    ("tree/places.rs", &["owner", "sync"], &[]),
    ("tree/scan.rs", &["reclaim", "sync"], &["smallvec"]),
    ("tree/prune.rs", &["reclaim", "sync", "telemetry"], &["smallvec"]),
    ("tree/quick.rs", &["owner", "reclaim", "sync"], &["smallvec"]),
    ("tree/shortcut.rs", &["owner", "reclaim", "sync"], &[]),
    // The parking itself is `std`'s, or a model's.
    ("wait/mod.rs", &["processors", "sync"], &["std::sync", "std::thread"]),
    // loom there: what a model of it judges by.
    ("wait/event.rs", &["sync"], &["std::sync", "std::thread", "loom"]),
    // `std::thread` there: whether it is panicking.
    ("wait/delivery.rs", &["processors"], &["std::sync", "std::thread"]),
    ("wait/budget.rs", &[], &[]),
    ("wait/model.rs", &["sync"], &["std::sync"]),
    // Protocol.
    // `std::sync` in these two: `Arc`.
    ("protocol/turn.rs", &["sync", "wait"], &["std::sync"]),
    ("protocol/lock_state.rs", &["mode", "owner", "range", "sync", "tree", "turn", "wait"], &["std::sync"]),
    (
        "protocol/grant.rs",
        &[
            "cycle",
            "error",
            "lock_state",
            "mode",
            "owner",
            "poison",
            "range",
            "reclaim",
            "snapshot",
            "sync",
            "telemetry",
            "tree",
            "wait",
        ],
        &["smallvec"],
    ),
    // `std::thread` there: the name of a thread.
    (
        "protocol/cycle.rs",
        &["error", "lock_state", "owner", "processors", "reclaim", "sync", "telemetry", "tree", "turn", "wait"],
        &["crossbeam_utils", "smallvec", "std::sync", "std::thread"],
    ),
    (
        "protocol/cycle/search.rs",
        &["error", "lock_state", "mode", "owner", "range", "reclaim", "telemetry", "tree", "turn"],
        &["smallvec", "std::sync"],
    ),
    (
        "protocol/poison.rs",
        &["cycle", "error", "grant", "lock_state", "mode", "owner", "range", "reclaim", "tree", "turn", "wait"],
        &[],
    ),
    (
        "protocol/drain.rs",
        &["cycle", "error", "grant", "lock_state", "owner", "poison", "reclaim", "sync", "telemetry", "wait"],
        &[],
    ),
    (
        "protocol/convert.rs",
        &["cycle", "grant", "lock_state", "mode", "owner", "poison", "range", "reclaim", "sync", "tree", "wait"],
        &[],
    ),
    ("protocol/announce.rs", &["grant", "lock_state", "owner", "range"], &["smallvec"]),
    // Surface. `std::sync` there is `Arc`.
    (
        "surface/request.rs",
        &[
            "announce",
            "announced",
            "error",
            "grant",
            "guard",
            "lock",
            "lock_state",
            "mode",
            "owner",
            "owner_kind",
            "range",
            "wait",
        ],
        &["std::sync"],
    ),
    (
        "surface/batch.rs",
        &["error", "grant", "guard", "lock", "lock_state", "mode", "owner", "owner_kind", "range", "request", "wait"],
        &["smallvec"],
    ),
    ("surface/announced.rs", &["announce", "error", "grant", "guard", "mode", "owner_kind", "range", "request"], &[]),
    (
        "surface/drained.rs",
        &["drain", "error", "lock_state", "mode", "owner", "owner_kind", "range", "request", "wait"],
        &[],
    ),
    (
        "surface/guard.rs",
        &[
            "convert",
            "drained",
            "error",
            "grant",
            "lock",
            "mode",
            "owner",
            "owner_kind",
            "poison",
            "range",
            "request",
            "wait",
        ],
        &["std::sync"],
    ),
    ("surface/scope.rs", &["owner"], &["pin_project_lite"]),
    (
        "surface/lock.rs",
        &[
            "drained",
            "error",
            "grant",
            "guard",
            "lock_state",
            "mode",
            "owner",
            "owner_kind",
            "poison",
            "range",
            "request",
            "snapshot",
            "sync",
        ],
        &["std::sync"],
    ),
    ("surface/any.rs", &["lock", "owner_kind", "request"], &["std::sync"]),
    ("surface/misnomer.rs", &["guard", "lock", "whole"], &[]),
    // `std::sync` there: `Arc`; the rest is for its documentation.
    (
        "surface/table.rs",
        &["any", "error", "guard", "lock", "mode", "owner_kind", "processors", "range", "request", "snapshot", "sync"],
        &["dashmap", "std::sync"],
    ),
    // `std::sync` there is `Arc`.
    (
        "surface/slices.rs",
        &["batch", "error", "guard", "lock", "mode", "owner", "owner_kind", "range", "request", "snapshot"],
        &["memmap2", "std::sync"],
    ),
    ("surface/whole.rs", &["drained", "error", "guard", "lock", "mode", "request", "snapshot", "sync"], &[]),
];

/// Words that only some rooms may say: taking a pin, and retiring a node.
const WORDS: &[(&str, &[&str])] = &[
    ("crossbeam_epoch::pin(", &["platform/reclaim.rs"]),
    // The tree is handed its pins, but for who comes by a shortcut, and seldom needs one.
    (
        "LazyPin::new(",
        &[
            "protocol/grant.rs",
            "protocol/cycle.rs",
            "protocol/convert.rs",
            "protocol/drain.rs",
            "protocol/poison.rs",
            "platform/reclaim.rs",
            "tree/shortcut.rs",
        ],
    ),
    (".retire(", &["tree/prune.rs", "tree/node.rs", "platform/reclaim.rs"]),
];

/// Models, tests and the fuzz targets' door are not the library: files and folders of these names are not checked.
/// (`wait/model.rs` and `sync/model.rs` are checked: stand-ins that a model of the library runs on.)
const OUTSIDE: &[&str] = &["models", "tests", "bare", "fuzzing"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        let outside = path.file_stem().is_some_and(|name| OUTSIDE.iter().any(|outside| name == *outside));
        match path.is_dir() {
            _ if outside => {}
            true => files(&path, found),
            false if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
            false => {}
        }
    }
}

/// The code of a file: without comments, without its tests (from a `#[cfg(test)]` on that stands at the beginning of a
/// line), and with every path in one piece: `use a::{b, c::{d, e}};` names `a::b`, `a::c::d` and `a::c::e`.
fn code(text: &str) -> String {
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
    lines.map(|line| line.find("//").map_or(line, |comment| &line[..comment])).collect::<Vec<_>>().join("\n")
}

/// Every `use` of the code, one path each, without spaces.
fn uses(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let starts_word =
            rest[..at].chars().next_back().is_none_or(|before| !before.is_alphanumeric() && before != '_');
        rest = &rest[at + 4..];
        if !starts_word {
            continue;
        }
        let Some(end) = rest.find(';') else { break };
        let tree: String = rest[..end].chars().filter(|c| !c.is_whitespace()).collect();
        expand("", &tree, &mut found);
    }
    found
}

fn expand(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let (mut depth, mut start) = (0, 0);
    let mut parts = Vec::new();
    for (at, c) in tree.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&tree[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&tree[start..]);
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        match part.split_once('{') {
            Some((head, rest)) => {
                expand(&format!("{prefix}{head}"), rest.strip_suffix('}').unwrap_or(rest), found);
            }
            None => found.push(format!("{prefix}{part}")),
        }
    }
}

/// Whether `path` occurs in `code` as a whole path of its own, not as the end of another.
fn names(code: &str, path: &str) -> bool {
    code.match_indices(path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + path.len()..].chars().next();
        let part_of_a_word = |c: char| c.is_alphanumeric() || c == '_';
        let fits = |c: Option<char>| c.is_none_or(|c| !part_of_a_word(c));
        fits(before) && before != Some(':') && fits(after)
    })
}

/// The crate modules that a file names, from wherever, without their folders: as `crate::folder::x`, as the same behind
/// `super::super` (of which the second `super::` is found), or as `super::x` in the same folder. Its own folder is none
/// of them.
fn modules(code: &str, uses: &[String], file: &str) -> BTreeSet<String> {
    let paths = uses.iter().map(String::as_str).collect::<Vec<_>>().join("\n") + "\n" + code;
    let folder = file.split_once('/').map_or("", |(folder, _)| folder);
    let mut found = BTreeSet::new();
    for prefix in ["crate::", "super::"] {
        for (at, _) in paths.match_indices(prefix) {
            let mut path = paths[at + prefix.len()..].split("::").map(first_word);
            let first = path.next().unwrap_or_default();
            let named = match LAYERS.iter().any(|row| row.contains(&first)) {
                true if WHOLE.contains(&first) => Some(first),
                true => path.next(),
                // A module of the root, or a neighbour.
                false => (prefix == "crate::" || is_room(folder, first)).then_some(first),
            };
            found.extend(named.filter(|name| !name.is_empty() && *name != folder).map(str::to_string));
        }
    }
    found
}

/// The identifier at the beginning.
fn first_word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// Whether a module has its file in this folder, and is known to others by its own name.
fn is_room(folder: &str, module: &str) -> bool {
    !WHOLE.contains(&folder) && ROOMS.iter().any(|(file, ..)| *file == format!("{folder}/{module}.rs"))
}

/// How far up a folder is; the files of `src` itself stand above all.
fn height(folder: &str) -> usize {
    LAYERS.iter().rev().position(|row| row.contains(&folder)).unwrap_or(LAYERS.len())
}

/// What is wrong with one file; nothing, if it keeps to its room.
fn check(file: &str, text: &str, modules_allowed: &[&str], fenced_allowed: &[&str]) -> Vec<String> {
    let code = code(text);
    let uses = uses(&code);
    let mut wrong = Vec::new();
    for module in modules(&code, &uses, file) {
        if !modules_allowed.contains(&module.as_str()) {
            wrong.push(format!("{file} names crate::{module}"));
        }
    }
    for fenced in FENCED {
        let named = names(&code, fenced) || uses.iter().any(|path| names(path, fenced));
        let allowed =
            fenced_allowed.iter().any(|allowed| fenced == allowed || fenced.starts_with(&format!("{allowed}::")));
        if named && !allowed && !attribute_only(&code, fenced) {
            wrong.push(format!("{file} names {fenced}"));
        }
    }
    for (word, allowed) in WORDS {
        if code.contains(word) && !allowed.contains(&file) {
            wrong.push(format!("{file} says {word}"));
        }
    }
    wrong
}

/// `cfg(loom)` chooses code and names no crate.
fn attribute_only(code: &str, fenced: &str) -> bool {
    let without = code.replace("cfg(loom)", "").replace("not(loom)", "").replace("cfg(not(loom))", "");
    fenced == "loom" && !without.match_indices("loom").any(|(at, _)| without[at + 4..].starts_with("::"))
}

#[test]
fn every_file_keeps_to_its_room() {
    let root = source();
    let mut found = Vec::new();
    files(&root, &mut found);
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for path in found {
        let file = path.strip_prefix(&root).expect("it was found there").to_string_lossy().replace('\\', "/");
        let text = fs::read_to_string(&path).expect("the file can be read");
        match ROOMS.iter().find(|(name, ..)| *name == file) {
            Some((_, modules, fenced)) => wrong.extend(check(&file, &text, modules, fenced)),
            None => wrong.push(format!("{file} is not in the table: give it a room")),
        }
        seen.insert(file);
    }
    wrong.extend(ROOMS.iter().filter(|(name, ..)| !seen.contains(*name)).map(|(name, ..)| format!("{name} is gone")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_points_downwards() {
    let home = |file: &'static str| file.split_once('/').map_or("", |(folder, _)| folder);
    let mut wrong = Vec::new();
    for (file, modules, _) in ROOMS {
        for module in *modules {
            let whole = LAYERS.iter().flat_map(|row| row.iter()).find(|folder| *folder == module);
            let room = || ROOMS.iter().map(|(file, ..)| home(file)).find(|folder| is_room(folder, module));
            let Some(named) = whole.copied().or_else(room) else {
                wrong.push(format!("{file} may name {module}, which is nowhere"));
                continue;
            };
            if home(file) != named && height(home(file)) <= height(named) {
                wrong.push(format!("{file} may name {module}, which does not stand below it"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The check itself: what it must see, and what it must not mistake for something.
#[test]
fn the_check_sees_what_it_should() {
    let seen = |text: &str| check("tree/node.rs", text, &["sync"], &[]).join("; ");
    assert_eq!(
        seen("use crate::platform::sync::{fence, Ordering};\n// crate::wait\n/// crate::grant loom::thread\n"),
        ""
    );
    assert_eq!(seen("#[cfg(loom)]\n#[cfg(all(loom, not(x)))]\nfn f() { my_loom(); crossbeam_epoch_like(); }"), "");
    assert_eq!(seen("use super::slot::Slot;\nuse crate::tree::Tree;\n"), "");
    assert_eq!(seen("use crate::wait::Event;"), "tree/node.rs names crate::wait");
    assert_eq!(
        seen("use crate::{\n    platform::sync::fence,\n    protocol::grant::{Held, Live},\n};"),
        "tree/node.rs names crate::grant"
    );
    assert_eq!(seen("fn f() { crate::wait::spin() }"), "tree/node.rs names crate::wait");
    assert_eq!(seen("use crate::protocol::{self};"), "tree/node.rs names crate::self");
    assert_eq!(seen("use super::super::facts::range::ByteRange;"), "tree/node.rs names crate::range");
    assert_eq!(seen("use super::super::wait;"), "tree/node.rs names crate::wait");
    assert_eq!(seen("use std::{fmt, thread};"), "tree/node.rs names std::thread");
    assert_eq!(seen("fn f() { std::thread::yield_now() }"), "tree/node.rs names std::thread");
    assert_eq!(seen("use std::sync::Arc;"), "tree/node.rs names std::sync");
    assert_eq!(seen("use rustix::fs;"), "tree/node.rs names rustix");
    assert_eq!(seen("fn f(g: &crossbeam_epoch::Guard) {}"), "tree/node.rs names crossbeam_epoch");
    assert_eq!(seen("#[cfg(loom)]\nuse loom::thread;"), "tree/node.rs names loom");
    assert_eq!(seen("fn f() { LazyPin::new() }"), "tree/node.rs says LazyPin::new(");
    assert_eq!(seen("fn f() {}\n#[cfg(test)]\nmod tests { use crate::wait; }"), "");
    // A neighbour is named in two ways.
    let cycle = |text: &str| check("protocol/cycle.rs", text, &[], &[]).join("; ");
    assert_eq!(cycle("use super::{Blocked, poison};"), "protocol/cycle.rs names crate::poison");
    assert_eq!(cycle("use crate::protocol::poison;"), "protocol/cycle.rs names crate::poison");
    // `std::sync` brings its atomics along, and not the other way round.
    assert!(check("wait/mod.rs", "use std::sync::atomic::AtomicBool;", &[], &["std::sync"]).is_empty());
    assert!(!check("wait/mod.rs", "use std::sync::Mutex;", &[], &["std::sync::atomic"]).is_empty());
}
