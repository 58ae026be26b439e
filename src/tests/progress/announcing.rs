//! Who announces, asks, or goes before one that is announced, and is stopped in the middle of it, holds up those who are
//! behind it, and nobody else; and nobody waits for an answer.

use super::*;

type Place = crate::Announced<&'static RangeLock>;
type Owned = crate::Guard<&'static RangeLock, crate::ByOwner>;

/// Bytes of [`PLACE`] that nobody has at first.
const PART: Range<u64> = 60..70;

fn hold(world: World, owner: &Owner, mode: Mode) -> Owned {
    world.a.request(0..50, mode).owner(owner).try_now().unwrap()
}

fn announce(world: World) -> Place {
    world.a.request(PLACE, Mode::Exclusive).announce()
}

/// What the main thread does while somebody has announced: a try fails, and another announcement, which is asked too,
/// needs nobody.
fn others(world: World, moment: &Moment<'_>) {
    assert!(!moment.must("a try", || is_free(world.a, 10..20, Mode::Exclusive)));
    moment.go_on("another announcement", &[Needs::List], || {
        let place = announce(world);
        assert!(!place.is_clear(10..20));
        drop(place);
    });
}

pub(super) fn announcing(stage: &mut Stage) {
    stage.play(
        "announcing, asking and leaving",
        |world| (hold(world, &Owner::new(), Mode::Exclusive), ()),
        |world, (), gate| {
            stoppable(gate, || {
                let place = announce(world);
                assert!(!place.is_clear(10..20) && place.is_clear(PART));
                drop(place);
            });
        },
        |world, _, moment| others(world, moment),
        |_, guard, ()| drop(guard),
    );
    let mut turn = Turn::new("announcing where nobody is", true, false);
    stage.play(
        "announcing where nobody is",
        |_| ((), ()),
        |world, (), gate| {
            stoppable(gate, || {
                let place = announce(world);
                assert!(place.is_clear(..));
                drop(place);
            });
        },
        |world, (), moment| turn.note(moment, moment.is_free(world.a, PLACE, Mode::Exclusive)),
        |_, (), ()| {},
    );
    turn.check();
    stage.play(
        "waiting for what was announced",
        |world| {
            let guard = hold(world, &Owner::new(), Mode::Exclusive);
            let place = announce(world);
            let mut behind = Hand::new(world.a.request(PART, Mode::Add));
            behind.pending();
            drop(guard);
            (behind, place)
        },
        |_, place, gate| stoppable(gate, || place.wait()),
        |world, _, moment| assert!(!moment.must("a try", || is_free(world.a, PART, Mode::Add))),
        |_, mut behind, guard| {
            behind.pending();
            drop(guard);
            assert!(behind.woken());
            drop(behind.ready());
        },
    );
    // Who is announced is told before the other one holds.
    let mut turn = Turn::new("being let past one that is announced", true, false);
    stage.play(
        "being let past one that is announced",
        |world| {
            let me = Owner::new();
            let mine = hold(world, &me, Mode::Add);
            ((announce(world), mine), me)
        },
        |world, me, gate| {
            stoppable(gate, || Hand::new(world.a.request(PART, Mode::Add).owner(&me)).ready().expect("let past"))
        },
        |world, (place, _), moment| {
            turn.note(moment, moment.must("the question", || place.is_clear(PART)));
            others(world, moment);
        },
        |_, (place, mine), nested| {
            assert!(!place.is_clear(PART), "he was there");
            drop((nested, mine, place));
        },
    );
    turn.check();
    let mut turn = Turn::new("becoming more in the way of one that is announced", true, false);
    stage.play(
        "becoming more in the way of one that is announced",
        |world| {
            let guard = hold(world, &Owner::new(), Mode::Add);
            (announce(world), guard)
        },
        |_, mut guard, gate| {
            assert!(stoppable(gate, || guard.try_extend(0..PART.end)));
            guard
        },
        |world, place, moment| {
            turn.note(moment, moment.must("the question", || place.is_clear(PART)));
            others(world, moment);
        },
        |_, place, guard| {
            assert!(!place.is_clear(PART), "he was there");
            drop((guard, place));
        },
    );
    turn.check();
}
