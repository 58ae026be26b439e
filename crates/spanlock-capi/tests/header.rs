//! `include/spanlock.h` is what cbindgen makes of the sources. `SPANLOCK_WRITE_HEADER=1 cargo test -p spanlock-capi --test
//! header` makes it anew.

use cbindgen::{Builder, Config};
use std::path::Path;
use std::{env, fs};

#[test]
fn the_header_is_up_to_date() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut builder =
        Builder::new().with_config(Config::from_file(here.join("cbindgen.toml")).expect("cbindgen.toml can be read"));
    for file in ["status", "lock", "guard", "batch", "request"] {
        builder = builder.with_src(here.join("src").join(file).with_extension("rs"));
    }
    let mut made = Vec::new();
    builder.generate().expect("the sources can be read").write(&mut made);
    let made = without_safety(&String::from_utf8(made).expect("a header is text"));
    let header = here.join("include/spanlock.h");
    if env::var_os("SPANLOCK_WRITE_HEADER").is_some() {
        fs::write(&header, &made).expect("the header can be written");
    }
    let there = fs::read_to_string(&header).expect("the header is there");
    assert!(
        there == made,
        "include/spanlock.h is out of date: SPANLOCK_WRITE_HEADER=1 cargo test -p spanlock-capi --test header"
    );
}

/// What each function asks of its caller for the sake of Rust is said once for C, at the top of the header.
fn without_safety(header: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut is_safety = false;
    for line in header.lines() {
        if line == "// # Safety" {
            is_safety = true;
            // The empty line of the comment before it.
            if kept.last() == Some(&"//") {
                kept.pop();
            }
        }
        is_safety &= line.starts_with("//");
        if !is_safety {
            kept.push(line);
        }
    }
    kept.join("\n") + "\n"
}
