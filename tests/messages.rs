//! What the compiler says to who calls a thing by the name that it has elsewhere: it leads to the call that there is.
//! And to who pastes an example: nothing.
//!
//! Each snippet is given to the compiler by itself, beside the library that this test was built with. (A `compile_fail`
//! example only tells that something is wrong; and an example that passes may do so by lines that readers do not see.)

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The newest build of a library beside this test.
fn library(name: &str) -> (PathBuf, PathBuf) {
    let test = std::env::current_exe().expect("a test has a file");
    let deps = test.parent().expect("it lies in a folder").to_path_buf();
    let start = format!("lib{name}-");
    let builds = fs::read_dir(&deps).expect("the folder can be read").filter_map(|entry| {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?;
        let is_it = name.starts_with(&start) && name.ends_with(".rlib");
        is_it.then(|| Some((fs::metadata(&path).ok()?.modified().ok()?, path.clone()))).flatten()
    });
    (builds.max().expect("the library was built").1, deps)
}

/// What the compiler says to `code`, with a `main` around it; `None` if it has no objection.
fn said(name: &str, code: &str) -> Option<String> {
    said_of(name, &format!("#![allow(unused)]\nuse spanlock::*;\nuse std::sync::Arc;\nfn main() {{ {code} }}\n"))
}

/// What it says to a whole program.
fn said_of(name: &str, program: &str) -> Option<String> {
    let (library, deps) = library("spanlock");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("messages");
    fs::create_dir_all(&folder).expect("the folder can be made");
    let file = folder.join(format!("{name}.rs"));
    fs::write(&file, program).expect("the file can be written");
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_string());
    let output = Command::new(compiler)
        .args(["--edition", "2024", "--emit", "metadata", "--out-dir"])
        .arg(&folder)
        .arg("-L")
        .arg(format!("dependency={}", deps.display()))
        .arg("--extern")
        .arg(format!("spanlock={}", library.display()))
        .arg(&file)
        .output()
        .expect("the compiler can be run");
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[track_caller]
fn assert_said(name: &str, code: &str, words: &[&str]) {
    let said = said(name, code).unwrap_or_else(|| panic!("it compiles: {code}"));
    for word in words {
        assert!(said.contains(word), "nothing about {word:?} in what the compiler said to {code}:\n{said}");
    }
}

/// Otherwise nothing below tells anything.
#[test]
fn what_is_right_compiles() {
    let right =
        "let lock = Arc::new(RangeLock::new()); drop(lock.add(0..10)); let w = WholeFileLock::new(); drop(w.block());
        let guard = lock.request_arc(0..1, Mode::Add).wait(); std::thread::spawn(move || drop(guard));";
    assert_eq!(said("right", right), None);
}

#[test]
fn calls_of_other_locks_name_the_three_modes() {
    for call in ["lock", "read", "write", "shared", "try_lock", "try_read", "try_write"] {
        let words = ["three modes", "`add`", "`block`", "`exclusive`"];
        assert_said(call, &format!("RangeLock::new().{call}(0..10);"), &words);
        assert_said(&format!("whole_{call}"), &format!("WholeFileLock::new().{call}();"), &words);
    }
}

#[test]
fn a_guard_that_must_stay_says_so() {
    let code =
        "static L: RangeLock = RangeLock::new(); let guard = L.add(..); std::thread::spawn(move || drop(guard));";
    assert_said("stays", code, &["TheGuardOfAThreadStaysOnIt"]);
}

/// Where a lifetime is too short, the compiler has no room for words of ours. So the documentation quotes what it says,
/// and this holds it to that.
#[test]
fn what_it_says_of_a_lock_that_is_only_borrowed_is_in_the_documentation() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/facts/owner_kind.rs"))
        .expect("it can be read");
    let about = page.split("# If the compiler speaks of").nth(1).expect("it has a chapter").split("pub trait").next();
    // However it is wrapped.
    let about = about.expect("it belongs to a trait").replace("\n///", "");
    let quoted = |word: &str| assert!(about.contains(word), "the chapter does not quote {word:?}");
    let owned = |call: &str| format!("async fn task(lock: Arc<RangeLock>, me: Owner) {{ lock.{call}; }}");
    let lent = |call: &str| format!("async fn task(lock: &RangeLock, me: &Owner) {{ lock.{call}; }}");
    let through = "async fn task(guard: SendRangeGuard<'_>) { let _ = guard.request(.., Mode::Add).await; }";
    let awaited = "request(0..8, Mode::Add).owner(&me).await.unwrap()";
    let late = ["does not live long enough", "argument requires that `lock` is borrowed for `'static`"];
    let escapes = ["borrowed data escapes outside of function", "must outlive `'static`"];
    assert_said("owned", &owned(awaited), &late);
    assert_said("lent", &lent(&awaited.replace("&me", "me")), &escapes);
    assert_said("through", through, &escapes);
    late.into_iter().chain(escapes).for_each(quoted);
    quoted("request_arc");
    // The remedy.
    assert_eq!(said("kept", &owned(&awaited.replace("request(", "request_arc("))), None);
    assert_eq!(said("waited", &lent("request(0..8, Mode::Add).owner(me).wait().unwrap()")), None);
}

#[test]
fn what_is_no_future_says_what_is() {
    let timed = "async { RangeLock::new().request(.., Mode::Add).timeout(std::time::Duration::MAX).await };";
    assert_said("timed", timed, &["AwaitTheRequestItselfInsideOfTheRuntimesTimeout"]);
    let forgotten =
        "#![deny(unused_must_use)] RangeLock::new().request(.., Mode::Add).timeout(std::time::Duration::MAX);";
    assert_said("forgotten", forgotten, &[".wait()", "runtime's timeout around `request(..)`"]);
    let tried = "#![deny(unused_must_use)] RangeLock::new().request(.., Mode::Add).try_now();";
    assert_said("tried", tried, &["released at once"]);
}

/// An example of what is there with the feature only.
const WITH_TABLE: &str = r#"#[cfg_attr(feature = "table", doc = "```")]"#;

/// The examples of a page that are to compile: in which line each begins, and what readers see of it.
fn examples(page: &str, is_rust: bool) -> Vec<(usize, String)> {
    let (mut found, mut open) = (Vec::new(), None);
    for (line, text) in (1..).zip(page.lines()) {
        // In the sources only comments count, without what makes them one.
        let text = if is_rust { text.trim_start() } else { text };
        let comment = text.strip_prefix("///").or_else(|| text.strip_prefix("//!"));
        let text = match (is_rust, comment) {
            (false, _) => text,
            (true, Some(comment)) => comment.strip_prefix(' ').unwrap_or(comment),
            (true, None) if text == WITH_TABLE => "```",
            (true, None) => continue,
        };
        let fence = text.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(kind)) => {
                let compiles = ["", "rust", "no_run", "should_panic"].contains(&kind.trim());
                open = Some((compiles, line, String::new()));
            }
            (Some(_), Some(_)) => {
                let (compiles, line, code) = open.take().expect("it is open");
                found.extend(compiles.then_some((line, code)));
            }
            (Some((_, _, code)), None) => {
                let is_hidden = text.trim_start() == "#" || text.trim_start().starts_with("# ");
                *code += if is_hidden { "" } else { text };
                *code += "\n";
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "an example has no end");
    found
}

#[test]
fn examples_are_found_as_readers_see_them() {
    let page = "//! ```\n//! seen();\n//! # hidden();\n//! ```\n/// ```compile_fail\n/// no\n/// ```\nfn f() {}\n    /// ```\n    /// #[a]\n    ///     # b\n    /// ```";
    let code = |text: &str| text.to_owned();
    assert_eq!(examples(page, true), [(1, code("seen();\n\n")), (9, code("#[a]\n\n"))]);
    assert_eq!(examples("text\n```console\n$ x\n```\n```rust\n/// a\n```", false), [(5, code("/// a\n"))]);
}

/// Every example in the sources, the README and the guides, without its hidden lines: as the body of a function, as
/// somebody would paste it.
#[cfg(feature = "table")]
#[test]
fn every_example_can_be_pasted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = Vec::new();
    let mut folders = vec![root.join("src"), root.join("docs/guides")];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("it can be read").path());
        let (below, here): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
        folders.extend(below);
        pages.extend(here);
    }
    pages.retain(|page: &PathBuf| page.extension().is_some_and(|kind| kind == "rs" || kind == "md"));
    pages.retain(|page| cfg!(feature = "stats") || !page.ends_with("src/watching/stats.rs"));
    pages.push(root.join("README.md"));
    pages.sort();
    let mut program = "#![allow(unused, dropping_references)]\n".to_owned();
    let mut count = 0;
    for page in pages {
        let text = fs::read_to_string(&page).expect("it can be read");
        let is_rust = page.extension().is_some_and(|kind| kind == "rs");
        for (line, code) in examples(&text, is_rust) {
            count += 1;
            let name = page.file_stem().expect("it has a name").to_string_lossy().replace('-', "_");
            program += &format!("fn {name}_{line}() {{\n{code}\n}}\n");
        }
    }
    assert!(count > 70, "{count} examples: some are not found");
    if let Some(said) = said_of("pasted", &(program + "fn main() {}\n")) {
        panic!("{said}");
    }
}
