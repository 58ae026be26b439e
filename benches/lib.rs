//! The benches of spanlock, and the rivals that it is measured beside.
//!
//! ```text
//! cargo bench -p spanlock-bench --bench pairs        beside its rivals, in interleaved rounds: what you want for a first look
//! cargo bench -p spanlock-bench --bench compare      all contests, with tables, pictures and a report (half an hour)
//! cargo bench -p spanlock-bench --bench coherence    how cache lines wander between up to 64 simulated processors
//! cargo bench -p spanlock-bench                      the rest, by criterion: uncontended, disjoint, crowd, whole
//! ```
//!
//! Each takes `-- --help`. They run in this folder: `--report ../docs` writes into the library's documents. `peers` has
//! the rivals, under one trait; `support` the patterns of access, the turns in which they are measured, and charts.
//! `tests` shows that the rivals keep each other out, and that the simulated caches do what caches do.
