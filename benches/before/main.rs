//! What a pair costs now, and what it cost in an earlier version: both in one program, in turns. `benches/before/run`
//! builds and runs it.
//!
//! One thread. Nobody conflicts; in some scenes another thread, which has ended, has left what it holds. Each round
//! gives either version a turn of 3 ms, the other one first each time; what is told is the median of each, and the
//! median of the rounds' ratios.
//!
//! `PROGRAM before|now SCENE N` makes N pairs of a scene, by its number, for counting instructions: the difference of
//! two such runs.

use std::hint::black_box;
use std::time::{Duration, Instant};

type Pairs = Box<dyn FnMut(u64)>;

macro_rules! version {
    ($version:ident, $library:ident) => {
        mod $version {
            use super::*;
            use ::$library::{Mode, RangeLock, WholeFileLock};

            fn lock() -> &'static RangeLock {
                Box::leak(Box::new(RangeLock::new()))
            }

            /// Somebody else holds these for good.
            fn hold(
                lock: &'static RangeLock,
                ranges: impl Iterator<Item = (std::ops::Range<u64>, Mode)> + Send + 'static,
            ) {
                let hold =
                    move || ranges.for_each(|(range, mode)| std::mem::forget(lock.request(range, mode).try_now()));
                std::thread::spawn(hold).join().unwrap();
            }

            pub fn scenes() -> Vec<(&'static str, Pairs)> {
                let page = |lock: &'static RangeLock| -> Pairs {
                    Box::new(move |n| (0..n).for_each(|_| drop(black_box(lock.exclusive(black_box(0..4096))))))
                };
                let others = || (1..=100).map(|i| (8192 * i..8192 * i + 4096, Mode::Exclusive));
                let mut scenes: Vec<(&'static str, Pairs)> = vec![("exclusive", page(lock()))];
                let own = lock();
                scenes.push((
                    "add",
                    Box::new(move |n| (0..n).for_each(|_| drop(black_box(own.add(black_box(0..4096)))))),
                ));
                let whole: &'static WholeFileLock = Box::leak(Box::new(WholeFileLock::new()));
                scenes.push(("whole file, add", Box::new(move |n| (0..n).for_each(|_| drop(black_box(whole.add()))))));
                let own = lock();
                let attempt = move || drop(black_box(own.try_exclusive(black_box(0..4096))));
                scenes.push(("try_exclusive", Box::new(move |n| (0..n).for_each(|_| attempt()))));
                let own = lock();
                scenes.push((
                    "nested, beside a hold",
                    Box::new(move |n| {
                        let outer = own.exclusive(8192..8193);
                        (0..n).for_each(|_| drop(black_box(own.exclusive(black_box(0..4096)))));
                        drop(outer);
                    }),
                ));
                let full = lock();
                hold(full, (0..20).map(|_| ((1 << 63) - 1..(1 << 63) + 1, Mode::Add)));
                scenes.push(("below a full root", page(full)));
                let among = lock();
                hold(among, others());
                scenes.push(("among 100 held", page(among)));
                let among = lock();
                hold(among, others());
                let mut random = 1u64;
                scenes.push((
                    "at random beside 100 held",
                    Box::new(move |n| {
                        (0..n).for_each(|_| {
                            random =
                                random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                            let at = (1 << 40) + (random >> 44 << 13);
                            drop(black_box(among.exclusive(black_box(at..at + 4096))));
                        })
                    }),
                ));
                scenes
            }
        }
    };
}

version!(before, spanlock_before);
version!(now, spanlock_now);

const TURN: Duration = Duration::from_millis(3);

fn nanoseconds(pairs: &mut Pairs) -> f64 {
    let (begin, mut made) = (Instant::now(), 0);
    while begin.elapsed() < TURN {
        pairs(1000);
        made += 1000;
    }
    begin.elapsed().as_nanos() as f64 / made as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text}: a number is wanted"));
    let rounds = match &arguments[..] {
        [] => 300,
        [rounds] => number(rounds),
        [version, scene, pairs] => {
            let scenes = match &version[..] {
                "before" => before::scenes(),
                "now" => now::scenes(),
                other => panic!("{other}: `before` or `now` is wanted"),
            };
            let (_, mut run) = scenes.into_iter().nth(number(scene) as usize).expect("a scene's number, from 0");
            return run(number(pairs));
        }
        _ => panic!("nothing, or the number of rounds, or a version, a scene and a number of pairs are wanted"),
    };
    println!("| | before, ns a pair | now | ratio |\n|---|---|---|---|");
    for ((name, mut before), (_, mut now)) in before::scenes().into_iter().zip(now::scenes()) {
        let (mut old, mut new, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            let (one, other) = match round % 2 {
                0 => {
                    let one = nanoseconds(&mut before);
                    (one, nanoseconds(&mut now))
                }
                _ => {
                    let other = nanoseconds(&mut now);
                    (nanoseconds(&mut before), other)
                }
            };
            old.push(one);
            new.push(other);
            ratios.push(other / one);
        }
        println!("| {name} | {:.1} | {:.1} | {:.3} |", median(old), median(new), median(ratios));
    }
}
