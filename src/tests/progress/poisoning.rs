//! Who poisons, is refused, or moves what is poisoned, and is stopped in the middle of it, holds up nobody but those
//! who do the same.

use super::*;
use crate::AcquireError;

type Owned = crate::Guard<&'static RangeLock, crate::ByOwner>;

fn hold(world: World) -> Owned {
    world.a.request(PLACE, Mode::Exclusive).owner(&Owner::new()).try_now().unwrap()
}

fn queue(world: World) -> Hand<crate::Acquire<&'static RangeLock, crate::ByOwner>> {
    let mut asked = Hand::new(world.a.request(PLACE, Mode::Add).owner(&Owner::new()));
    asked.pending();
    asked
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, AcquireError>) {
    assert!(matches!(answer, Err(AcquireError::Poisoned(_))), "{answer:?}");
}

/// The main thread asks for what is poisoned, or about to be.
fn asks(world: World, moment: &Moment<'_>) {
    moment.go_on("a request for it", &[Needs::List, Needs::Index, Needs::Names, Needs::Reasons], || {
        drop(Hand::new(world.a.request(PLACE, Mode::Add).owner(&Owner::new())).poll());
    });
    assert!(!moment.must("a try", || is_free(world.a, PLACE, Mode::Add)));
}

pub(super) fn poisoning(stage: &mut Stage) {
    stage.play(
        "poisoning",
        |world| {
            let guard = hold(world);
            (queue(world), guard)
        },
        |_, guard, gate| {
            stoppable(gate, || guard.poison("stuck"));
            guard
        },
        |world, _, moment| asks(world, moment),
        |_, mut asked, guard| {
            assert!(asked.woken() && guard.is_poisoned());
            refused(asked.ready());
        },
    );
    stage.play(
        "poisoning by the lock",
        |world| {
            let guard = hold(world);
            ((guard, queue(world)), ())
        },
        |world, (), gate| assert_eq!(stoppable(gate, || world.a.poison(.., "stuck")), 1),
        |world, _, moment| asks(world, moment),
        |_, (guard, mut asked), ()| {
            assert!(asked.woken());
            refused(asked.ready());
            drop(guard);
        },
    );
    stage.play(
        "taking that back",
        |world| {
            let guard = hold(world);
            guard.poison("stuck");
            ((), guard)
        },
        |_, guard, gate| {
            assert!(stoppable(gate, || guard.clear_poison()));
            guard
        },
        |world, (), moment| asks(world, moment),
        |world, (), guard| {
            let mut asked = queue(world);
            drop(guard);
            drop(asked.ready().unwrap());
        },
    );
    stage.play(
        "taking that back by the lock",
        |world| {
            let guard = hold(world);
            guard.poison("stuck");
            (guard, ())
        },
        |world, (), gate| assert_eq!(stoppable(gate, || world.a.clear_poison(..)), 1),
        |world, _, moment| asks(world, moment),
        |world, guard, ()| {
            assert!(!guard.is_poisoned());
            let mut asked = queue(world);
            drop(guard);
            drop(asked.ready().unwrap());
        },
    );
    stage.play(
        "being refused",
        |world| {
            let guard = hold(world);
            guard.poison("stuck");
            (Some(guard), ())
        },
        |world, (), gate| {
            let mut asked = Hand::new(world.a.request(PLACE, Mode::Add).owner(&Owner::new()));
            stoppable(gate, || asked.poll()).map(|answer| answer.map(drop))
        },
        |world, guard, moment| {
            moment.go_on("another one", &[Needs::List, Needs::Index, Needs::Names, Needs::Reasons], || {
                refused(Hand::new(world.a.request(PLACE, Mode::Block).owner(&Owner::new())).ready());
            });
            moment.go_on("the release", &[Needs::List, Needs::Sleeper], || drop(guard.take()));
        },
        |_, guard, _answer| drop(guard),
    );
    stage.play(
        "splitting what is poisoned",
        |world| {
            let guard = hold(world);
            guard.poison("stuck");
            ((), guard)
        },
        |_, guard, gate| stoppable(gate, || guard.split(50)),
        |world, (), moment| asks(world, moment),
        |_, (), (head, tail)| assert!(head.is_poisoned() && tail.is_poisoned()),
    );
}
