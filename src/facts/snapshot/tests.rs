use super::map::{SHOWN, Scale, WIDTH};
use super::*;
use Mode::{Add, Block, Exclusive};
use std::ops::RangeBounds;

fn row(range: impl RangeBounds<u64>, mode: Mode, thread: u64) -> Row {
    let (start, last) = ByteRange::new(range).bounds();
    Row { start, last, mode, owner: OwnerId::from_slot(thread * 1024), came: Came::Holds, place: None }
}

fn queued(range: impl RangeBounds<u64>, mode: Mode, thread: u64, ticket: u64, millis: u64) -> Row {
    let place = Place { ticket, age: Duration::from_millis(millis), passes: Vec::new(), is_part: false };
    Row { place: Some(place), ..row(range, mode, thread) }
}

fn numbers<'s>(requests: impl Iterator<Item = &'s RequestInfo>) -> Vec<usize> {
    requests.map(RequestInfo::number).collect()
}

#[track_caller]
fn assert_drawn(rows: Vec<Row>, expected: &[&str]) {
    let drawn = Snapshot::new(rows).to_string();
    assert!(drawn.lines().eq(expected.iter().copied()), "drawn:\n{drawn}\nexpected:\n{}", expected.join("\n"));
}

#[test]
fn holders_are_in_the_order_of_ranges_and_waiters_in_that_of_tickets() {
    let snapshot = Snapshot::new(vec![
        queued(0..10, Exclusive, 1, 9, 1),
        row(90..100, Add, 2),
        queued(50..60, Block, 3, 4, 20),
        row(10..20, Block, 4),
    ]);
    assert_eq!(numbers(snapshot.requests().iter()), [0, 1, 2, 3]);
    assert_eq!(numbers(snapshot.holders()), [0, 1]);
    assert_eq!(numbers(snapshot.waiters()), [2, 3]);
    let seen: Vec<_> =
        snapshot.requests().iter().map(|one| (one.range().start(), one.mode(), one.owner().get())).collect();
    assert_eq!(
        seen,
        [(Some(10), Block, 4096), (Some(90), Add, 2048), (Some(50), Block, 3072), (Some(0), Exclusive, 1024)]
    );
    let waiting: Vec<_> = snapshot.requests().iter().map(RequestInfo::waiting).collect();
    assert_eq!(waiting, [None, None, Some(Duration::from_millis(20)), Some(Duration::from_millis(1))]);
}

/// Everything that makes a conflict, and each part of it missing once.
#[test]
fn a_waiter_waits_for_what_conflicts_and_came_before() {
    let snapshot = Snapshot::new(vec![
        row(0..10, Add, 1),                // 0: goes with it
        row(10..20, Block, 2),             // 1: waited for
        row(15..25, Block, 9),             // 2: its own owner's
        row(20..30, Exclusive, 3),         // 3: touches, shares no byte
        queued(0..20, Block, 4, 5, 9),     // 4: waited for
        queued(0..20, Add, 5, 6, 9),       // 5: goes with it
        queued(0..20, Add, 9, 7, 9),       // 6: whose waits these are
        queued(0..20, Exclusive, 6, 8, 9), // 7: came later
    ]);
    let me = &snapshot.requests()[6];
    assert_eq!(numbers(snapshot.waits_for(me)), [1, 4]);
    assert_eq!(numbers(snapshot.held_up_by(me)), [7]);
    let holder = &snapshot.requests()[1];
    assert_eq!(numbers(snapshot.waits_for(holder)), []);
    assert_eq!(numbers(snapshot.held_up_by(holder)), [5, 6, 7]);
}

#[test]
fn who_was_let_past_is_waited_for_by_who_came_before() {
    let mut nested = queued(0..10, Add, 1, 8, 1);
    nested.place.as_mut().expect("it waits").passes.push(5);
    let snapshot = Snapshot::new(vec![queued(0..10, Block, 2, 5, 2), queued(0..10, Block, 3, 6, 2), nested]);
    let [passed, between, nested] = snapshot.requests() else { panic!("three requests") };
    assert_eq!(numbers(snapshot.waits_for(passed)), [2]);
    assert_eq!(numbers(snapshot.waits_for(between)), []);
    assert_eq!(numbers(snapshot.waits_for(nested)), [1]);
}

#[test]
fn a_quiet_lock() {
    assert_drawn(vec![], &["nothing is held, nobody waits"]);
}

#[test]
fn one_holder_of_everything() {
    assert_drawn(
        vec![row(.., Exclusive, 1)],
        &[
            "1 holding, 0 waiting",
            "A add, B block, X exclusive; small letters wait",
            "#0 |XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX| 0..  exclusive  thread 1",
            "   +----------------+---------------+---------------+---------------+ 0.., a column is 256 PiB",
        ],
    );
}

/// The picture of the header.
#[test]
fn disjoint_holders_and_a_queue() {
    let mut last = queued(0..4096, Add, 4, 8, 0);
    last.place.as_mut().expect("it waits").age = Duration::from_micros(830);
    assert_drawn(
        vec![
            row(0..4096, Add, 1),
            row(8192..12288, Block, 2),
            Row {
                place: Some(Place {
                    ticket: 7,
                    age: Duration::from_micros(12_345),
                    passes: Vec::new(),
                    is_part: false,
                }),
                ..row(0..16384, Exclusive, 3)
            },
            last,
        ],
        &[
            "2 holding, 2 waiting, the longest for 12.3 ms",
            "A add, B block, X exclusive; small letters wait",
            "#0 |AAAAAAAAAAAAAAAA                                                | 0..4096      add        thread 1  holds up 1",
            "#1 |                                BBBBBBBBBBBBBBBB                | 8192..12288  block      thread 2  holds up 1",
            "   +----------------+---------------+---------------+---------------+ 0..16384, a column is 256 bytes",
            "#2 |xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx| 0..16384     exclusive  thread 3  12.3 ms, waits for #0, #1",
            "#3 |aaaaaaaaaaaaaaaa                                                | 0..4096      add        thread 4  830.0 us, waits for #2",
        ],
    );
}

#[test]
fn few_bytes_are_wide() {
    assert_drawn(
        vec![row(7..8, Add, 1)],
        &[
            "1 holding, 0 waiting",
            "A add, B block, X exclusive; small letters wait",
            "#0 |AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA| 7..8  add  thread 1",
            "   +----------------------------------------------------------------+ 7..8, a byte is 64 columns",
        ],
    );
    assert_drawn(
        vec![row(u64::MAX.., Add, 1), row(u64::MAX - 10..u64::MAX, Add, 1 << 53 | 2)],
        &[
            "2 holding, 0 waiting",
            "A add, B block, X exclusive; small letters wait",
            "#0 |AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA     | 18446744073709551605..18446744073709551615  add  owner 2048",
            "#1 |                                                  AAAAA| 18446744073709551615..                      add  thread 1",
            "   +-------------+-------------+-------------+-------------+ 18446744073709551605.., a byte is 5 columns",
        ],
    );
}

#[test]
fn a_column_for_each_byte() {
    assert_drawn(
        vec![row(0..64, Add, 1)],
        &[
            "1 holding, 0 waiting",
            "A add, B block, X exclusive; small letters wait",
            "#0 |AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA| 0..64  add  thread 1",
            "   +----------------+---------------+---------------+---------------+ 0..64, a column is 1 byte",
        ],
    );
}

#[test]
fn ranges_far_apart_are_not_to_scale() {
    assert_drawn(
        vec![row(0..4096, Add, 1), row(u64::MAX - 4095.., Block, 2)],
        &[
            "2 holding, 0 waiting; columns are not to scale",
            "A add, B block, X exclusive; small letters wait",
            "#0 |AAAAAAAAAAAAAAAAAAAAA                                          | 0..4096                 add    thread 1",
            "#1 |                                          BBBBBBBBBBBBBBBBBBBBB| 18446744073709547520..  block  thread 2",
            "   +---------------------+--------------------+--------------------+ 0..",
        ],
    );
}

/// Half of them too narrow to be seen is too many.
#[test]
fn as_many_pages_as_wide_ranges_are_not_to_scale() {
    let wide = |n: u64| row(n << 60..(n + 1) << 60, Add, 1);
    let page = |n: u64| row(n << 12..(n + 1) << 12, Add, 2);
    let is_to_scale = |rows: Vec<Row>| !Snapshot::new(rows).to_string().contains("not to scale");
    assert!(!is_to_scale((0..4).map(page).chain((4..8).map(wide)).collect()));
    assert!(is_to_scale((0..3).map(page).chain((4..9).map(wide)).collect()));
}

/// A range that is too narrow among wide ones is one column, and the others keep their scale.
#[test]
fn one_page_of_gigabytes() {
    let gib = 1 << 30;
    assert_drawn(
        vec![
            row(0..gib, Add, 1),
            row(gib..2 * gib, Add, 2),
            row(2 * gib..3 * gib, Block, 2),
            queued(gib + 4096..gib + 8192, Exclusive, 3, 4, 5),
        ],
        &[
            "3 holding, 1 waiting, the longest for 5.0 ms",
            "A add, B block, X exclusive; small letters wait",
            "#0 |AAAAAAAAAAAAAAAAAAAAA                                           | 0..1073741824           add        thread 1",
            "#1 |                     AAAAAAAAAAAAAAAAAAAAA                      | 1073741824..2147483648  add        thread 2  holds up 1",
            "#2 |                                          BBBBBBBBBBBBBBBBBBBBBB| 2147483648..3221225472  block      thread 2",
            "   +----------------+---------------+---------------+---------------+ 0..3221225472, a column is 48 MiB",
            "#3 |                     x                                          | 1073745920..1073750016  exclusive  thread 3  5.0 ms, waits for #1",
        ],
    );
}

/// 60 holders, of which the last is waited for, and 40 in the queue: all but the first of these wait for all before
/// them.
fn crowd() -> Snapshot {
    let holders = (0..60).map(|n| row(n * 4096..(n + 1) * 4096, Add, n + 1));
    let waiters = (0..40).map(|n| queued(59 * 4096..60 * 4096, Exclusive, n + 100, n, 100 - n));
    Snapshot::new(holders.chain(waiters).collect())
}

#[test]
fn long_lists_are_cut() {
    let drawn = crowd().to_string();
    let lines: Vec<_> = drawn.lines().collect();
    assert_eq!(lines.len(), 2 + SHOWN + 1 + 1 + SHOWN + 1, "{drawn}");
    assert_eq!(lines[0], "60 holding, 40 waiting, the longest for 100.0 ms");
    assert_eq!(
        &lines[2..4],
        [
            "#0  |A                                                               | 0..4096         add        thread 1",
            "#1  | A                                                              | 4096..8192      add        thread 2",
        ]
    );
    // The holder that is waited for is there, though the cut would have met it.
    assert_eq!(
        &lines[24..30],
        [
            "#22 |                       A                                        | 90112..94208    add        thread 23",
            "#59 |                                                              AA| 241664..245760  add        thread 60   holds up 40",
            "... and 36 more hold",
            "    +----------------+---------------+---------------+---------------+ 0..245760, a column is 3.8 KiB",
            "#60 |                                                              xx| 241664..245760  exclusive  thread 100  100.0 ms, waits for #59",
            "#61 |                                                              xx| 241664..245760  exclusive  thread 101  99.0 ms, waits for #59, #60",
        ]
    );
    assert!(lines[51].ends_with("77.0 ms, waits for #59, #60, #61, #62, #63, #64 and 18 more"), "{drawn}");
    assert_eq!(lines[52..], ["... and 16 more wait"]);
}

/// More ranges than columns, all alike: the other scale would show no more of them, so this one is kept.
#[test]
fn a_crowd_of_pages_stays_to_scale() {
    let pages = (0..200).map(|n| row(n * 4096..(n + 1) * 4096, Add, n + 1)).collect();
    let drawn = format!("{:#}", Snapshot::new(pages));
    assert_eq!(drawn.lines().next(), Some("200 holding, 0 waiting"));
    assert!(drawn.ends_with("+ 0..819200, a column is 12.5 KiB"), "{drawn}");
}

#[test]
fn everything_is_shown_if_asked_for() {
    let drawn = format!("{:#}", crowd());
    assert_eq!(drawn.lines().count(), 2 + 60 + 1 + 40);
    assert!(!drawn.contains("more"), "{drawn}");
}

/// Who is just arriving is in nobody's way who queued before it came.
#[test]
fn nobody_waits_for_who_came_later() {
    let waiter = queued(0..8, Exclusive, 1, 5 * 1024, 3);
    let pending = |order| Row { came: Came::At(order), ..row(0..8, Exclusive, 2) };
    for (other, is_in_front) in [
        (pending(0), true),
        (pending(4 * 1024), true),
        (pending(4 * 1024 + 7), true),
        (pending(5 * 1024), false),
        (pending(5 * 1024 + 2), false),
        (Row { came: Came::Holds, ..pending(0) }, true),
    ] {
        let snapshot = Snapshot::new(vec![waiter.clone(), other]);
        let waiter = snapshot.waiters().next().expect("it waits");
        assert_eq!(snapshot.waits_for(waiter).count(), usize::from(is_in_front));
    }
}

/// Of ranges in any places: each gets a column, none leaves the picture, and two that share no byte share no column
/// unless one of them is too narrow for a column of its own.
#[test]
fn every_range_has_its_place() {
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..2000 {
        let bits = random.u32(0..64);
        let mut byte = || random.u64(..) >> bits;
        let ranges: Vec<_> =
            (0..30).map(|_| (byte(), byte())).map(|(a, b)| ByteRange::new(a.min(b)..=a.max(b))).collect();
        let scale = Scale::choose(ranges.iter().copied());
        assert!((WIDTH / 2 + 1..=WIDTH).contains(&scale.columns()));
        let narrow = |range: ByteRange| {
            let (start, last) = range.bounds();
            scale.column(start.into()) == scale.column(u128::from(last) + 1)
        };
        for &range in &ranges {
            let (first, behind) = scale.place(range);
            assert!(first < behind && behind <= scale.columns(), "{range} at {first}..{behind}");
            for &other in ranges.iter().filter(|other| !other.overlaps(range)) {
                let (its_first, its_behind) = scale.place(other);
                let share = first < its_behind && its_first < behind;
                assert!(!share || narrow(range) || narrow(other), "{range} and {other}");
            }
        }
    }
}
