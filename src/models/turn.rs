//! Whose turn it is to search: what two searches hand on to one another, and to who waits for one to end.

use super::stage::{Stage, spawn};
use super::{Byte, check};
use crate::facts::mode::Mode::Exclusive;
use crate::platform::sync::{AtomicU64, Ordering};
use crate::protocol::turn::{Known, Turn, Turns};
use loom::thread;
use std::sync::Arc;

fn turn() -> Arc<Turn> {
    Stage::new().state.turn()
}

/// A search that knows `known`, and has taken `turn` as well; or it hears when to try again.
fn take(known: &Known, turn: &Arc<Turn>) -> Turns {
    loop {
        let mut turns = Turns::default();
        let Err(other) = turns.begin(known).and_then(|()| turns.take(turn)) else { return turns };
        drop(turns);
        if let Some(listener) = other.search().and_then(|search| other.listen(search)) {
            listener.wait();
        }
    }
}

fn knows(turn: &Arc<Turn>) -> Known {
    Known::from([(turn.number(), Arc::clone(turn))])
}

/// Property: one search at a time, the later one knows what the earlier one has done, and it hears of its end. Bound 4.
#[test]
fn one_search_at_a_time_has_a_turn() {
    check(4, || {
        let (turn, byte) = (turn(), Arc::new(Byte::new()));
        let (its, the_same) = (Arc::clone(&turn), Arc::clone(&byte));
        let it = thread::spawn(move || {
            let turns = take(&Known::new(), &its);
            the_same.touch(Exclusive);
            drop(turns);
        });
        let turns = take(&Known::new(), &turn);
        byte.touch(Exclusive);
        drop(turns);
        it.join().unwrap();
        assert!(!turn.is_taken());
    });
}

/// The same; shape: each comes by one of two turns, and needs the other as well. Bound 3.
#[test]
fn two_that_need_both_turns_get_them() {
    check(3, || {
        let ([one, other], byte) = ([turn(), turn()], Arc::new(Byte::new()));
        let (its, the_same) = ([Arc::clone(&one), Arc::clone(&other)], Arc::clone(&byte));
        let it = thread::spawn(move || {
            let turns = take(&knows(&its[1]), &its[0]);
            the_same.touch(Exclusive);
            drop(turns);
        });
        let turns = take(&knows(&one), &other);
        byte.touch(Exclusive);
        drop(turns);
        it.join().unwrap();
        assert!(!one.is_taken() && !other.is_taken());
    });
}

/// Property: whoever waits for a search to end goes on when it has, and knows what it did. Bound 4.
#[test]
fn who_lets_a_search_end_is_behind_it() {
    check(4, || {
        let (turn, byte) = (turn(), Arc::new(Byte::new()));
        let turns = take(&Known::new(), &turn);
        let the_same = Arc::clone(&byte);
        let it = thread::spawn(move || {
            the_same.touch(Exclusive);
            drop(turns);
        });
        turn.let_search_end();
        byte.touch(Exclusive);
        it.join().unwrap();
    });
}

/// The same; shape: a search before that one has given the turn back, and is late with its call. Bound 3.
#[test]
fn who_lets_a_search_end_is_not_called_by_one_before() {
    check(3, || {
        let (turn, byte) = (turn(), Arc::new(Byte::new()));
        let first = take(&Known::new(), &turn);
        // So that there is somebody to call.
        let heard = turn.search().and_then(|search| turn.listen(search));
        let it = thread::spawn(move || drop(first));
        let second = take(&Known::new(), &turn);
        let the_same = Arc::clone(&byte);
        let other = thread::spawn(move || {
            the_same.touch(Exclusive);
            drop(second);
        });
        turn.let_search_end();
        byte.touch(Exclusive);
        drop(heard);
        it.join().unwrap();
        other.join().unwrap();
    });
}

/// Property: a search that does not see what was published has ended when the publisher has let it end. Shape: the turn
/// is there, or is just being made. Bound 4.
#[test]
fn a_search_sees_what_was_published_or_is_waited_for() {
    for is_made in [true, false] {
        check(4, move || {
            let (stage, said) = (Stage::new(), Arc::new(AtomicU64::new(0)));
            if is_made {
                stage.state.turn();
            }
            let heard = Arc::clone(&said);
            let it = spawn(&stage, move |stage| {
                let turns = take(&Known::new(), &stage.state.turn());
                if heard.load(Ordering::Relaxed) == 0 {
                    stage.byte.touch(Exclusive);
                }
                drop(turns);
            });
            said.store(1, Ordering::Relaxed);
            stage.state.let_search_end();
            stage.byte.touch(Exclusive);
            it.join().unwrap();
        });
    }
}

/// Property: a search that is whole sees, from its first look on, whatever came before a search that has had one of its
/// turns. Bound 4.
#[test]
fn a_search_that_is_late_knows_it() {
    check(4, || {
        let (turn, said, ended) = (turn(), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (its, heard, has_ended) = (Arc::clone(&turn), Arc::clone(&said), Arc::clone(&ended));
        let it = thread::spawn(move || {
            let mut turns = Turns::default();
            turns.begin(&Known::new()).unwrap();
            let saw = heard.load(Ordering::Relaxed) == 1;
            if turns.take(&its).is_ok() && turns.are_whole() && has_ended.load(Ordering::Relaxed) == 1 {
                assert!(saw, "it looked before the other one began");
            }
        });
        said.store(1, Ordering::Relaxed);
        let turns = take(&Known::new(), &turn);
        ended.store(1, Ordering::Relaxed);
        drop(turns);
        it.join().unwrap();
    });
}
