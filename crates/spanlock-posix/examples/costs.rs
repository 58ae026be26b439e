//! What calls cost beside many locks of others: `cargo run --release -p spanlock-posix --example costs`.
//!
//! Each of the others holds a byte of its own, or all of them one for reading. Nanoseconds for a call, the fastest of
//! five rounds.

use spanlock_posix::{Caller, Domain, Extent, Kind, Options, Order};
use std::time::Instant;

fn fastest(mut call: impl FnMut(u64)) -> u128 {
    let round = |call: &mut dyn FnMut(u64)| {
        let start = Instant::now();
        (0..CALLS).for_each(call);
        start.elapsed().as_nanos() / u128::from(CALLS)
    };
    (0..5).map(|_| round(&mut call)).min().expect("five")
}

const CALLS: u64 = 200;

fn main() {
    println!(
        "{:8} {:6} {:9} {:>10} {:>10} {:>10} {:>12}",
        "order", "others", "hold", "set+unlock", "refused", "get", "wait+cancel"
    );
    for order in [Order::Kernel, Order::Arrival] {
        for others in [1, 100, 10_000] {
            for apart in [true, false] {
                let file = Domain::new(Options::new().order(order)).file();
                let at = |byte: u64| Extent::bytes(byte..byte + 1).expect("a byte");
                for other in 0..others {
                    let (byte, kind) = if apart { (10 * other, Kind::Write) } else { (0, Kind::Read) };
                    file.set(Caller::process(other, 0), kind, at(byte)).expect("it is free");
                }
                let me = Caller::process(others, 0);
                let taken = |call: u64| if apart { at(10 * (call * 7919 % others)) } else { at(0) };
                let set = fastest(|_| {
                    file.set(me, Kind::Write, at(5)).expect("it is free");
                    file.unlock(me, at(5)).expect("no quota");
                });
                let refused = fastest(|call| assert!(file.set(me, Kind::Write, taken(call)).is_err()));
                let get = fastest(|call| assert!(file.get(me, Kind::Write, taken(call)).expect("bytes").is_some()));
                let wait = fastest(|call| drop(file.request(me, Kind::Write, taken(call))));
                let (order, hold) = (format!("{order:?}"), if apart { "apart" } else { "the same" });
                println!("{order:8} {others:6} {hold:9} {set:10} {refused:10} {get:10} {wait:12}");
            }
        }
    }
}
