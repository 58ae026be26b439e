//! Drains: who is stopped in one holds up nobody; and a hold that moves while one looks is not missed, at whichever
//! step.

use super::*;

pub(super) fn draining(stage: &mut Stage) {
    // Nobody has to wait for it, and it waits for nobody but for who came before.
    stage.play(
        "a drain",
        |world| (Some(world.hold(PLACE, Mode::Add)), ()),
        |world, (), gate| {
            let mut drain = Hand::new(world.a.drained(PLACE, Mode::Exclusive));
            let polled = stoppable(gate, || drain.poll());
            (drain, polled)
        },
        |world, holder, moment| {
            drop(moment.must("a newcomer", || world.hold(PLACE, Mode::Add)));
            moment.go_on("the holder's release", &[Needs::List, Needs::Sleeper], || drop(holder.take()));
            if holder.is_none() {
                assert!(moment.is_free(world.a, PLACE, Mode::Exclusive), "in nobody's way: {}", moment.text);
                assert!(moment.must("another drain", || world.a.drained(.., Mode::Exclusive).try_now()));
            }
        },
        |_, holder, (mut drain, polled)| {
            drop(holder);
            if polled.is_pending() {
                assert!(drain.woken());
                drain.ready();
            }
        },
    );
    stage.play(
        "the end of a drain",
        |world| {
            let holder = world.hold(PLACE, Mode::Add);
            let mut drain = Hand::new(world.a.drained(PLACE, Mode::Exclusive));
            drain.pending();
            drop(holder);
            ((), drain)
        },
        |_, mut drain, gate| stoppable(gate, || drain.ready()),
        |world, (), moment| assert!(moment.is_free(world.a, PLACE, Mode::Exclusive)),
        |_, (), ()| {},
    );
    stage.play(
        "a drain of who holds something",
        |world| {
            let (me, other) = (Owner::new(), Owner::new());
            let mine = world.b.request(PLACE, Mode::Exclusive).owner(&me).try_now().unwrap();
            let its = world.a.request(PLACE, Mode::Add).owner(&other).try_now().unwrap();
            let mut asked = Hand::new(world.b.request(PLACE, Mode::Exclusive).owner(&other));
            asked.pending();
            ((its, asked), (me, mine))
        },
        |world, (me, mine), gate| {
            let mut drain = Hand::new(world.a.drained(PLACE, Mode::Exclusive).owner(&me));
            let refused = stoppable(gate, || drain.ready());
            assert!(matches!(refused, Err(crate::AcquireError::Deadlock(_))), "{refused:?}");
            mine
        },
        |_, (_, asked), moment| moment.must("the other one's poll", || asked.pending()),
        |_, (its, mut asked), mine| {
            drop(mine);
            drop((asked.ready(), its));
        },
    );
    looking_while_a_hold_moves(stage);
    // The hold that a conversion has waited for is behind the drain by its place in the queue; what it takes the place
    // of is not.
    stage.play_from(
        "a conversion that has waited",
        Some(("tree/slot.rs", "slot.record.order.store(ticket, Ordering::Relaxed)")),
        |world| {
            let token = Owner::new();
            let guard = world.a.request(PLACE, Mode::Add).owner(&token).try_now().unwrap();
            let other = world.hold(0..1, Mode::Add);
            let mut drain = Hand::new(world.a.drained(50..60, Mode::Exclusive));
            drain.pending();
            ((Some(other), drain), guard)
        },
        |_, (other, _)| *other = None,
        |_, mut guard, gate| {
            stoppable(gate, || guard.convert(Mode::Exclusive)).expect("nobody else waits");
            guard
        },
        |world, (_, drain), moment| {
            moment.go_on("the drain's poll", &[Needs::List, Needs::Sleeper], || drain.pending());
            assert!(!moment.must("a try", || world.a.drained(50..60, Mode::Exclusive).try_now()));
        },
        |_, (_, mut drain), guard| {
            drain.pending();
            drop(guard);
            assert!(drain.woken());
            drain.ready();
        },
    );
}

/// A drain looks, or one who asks whether the range is locked, while what is in its way moves to another slot: behind any of its steps.
fn looking_while_a_hold_moves(stage: &mut Stage) {
    type Drain = Hand<crate::Drained<&'static RangeLock, crate::ByTask>>;
    /// Bytes of which the hold moves to another slot.
    const MOVED: Range<u64> = 60..70;
    // The new slot may be looked at before the old one, or behind it. And the drain begins, or has begun and been
    // woken.
    for (before, begun) in [(false, false), (true, false), (false, true), (true, true)] {
        for at in 0.. {
            let world = World::new();
            let other = before.then(|| world.hold(1000..1001, Mode::Exclusive));
            let guard = world.hold(PLACE, Mode::Exclusive);
            let first = world.hold(MOVED.start + 200..MOVED.end + 200, Mode::Exclusive);
            drop(other);
            let mut drain: Drain = Hand::new(world.a.drained(MOVED.start..300, Mode::Exclusive));
            if begun {
                drain.pending();
            }
            drop(first);
            let mut left = at;
            let gate = Gate::new(move |_| {
                left -= 1;
                left == -1
            });
            let stopped = thread::scope(|scope| {
                let looks = scope.spawn(move || {
                    stoppable(gate, || {
                        let polled = drain.poll();
                        let free = world.a.drained(MOVED, Mode::Exclusive).try_now();
                        (polled, free || !world.a.is_locked(MOVED, Mode::Exclusive), drain)
                    })
                });
                let stop = gate.stopped();
                let _open = OpenAtLast(gate);
                stage.dog.next(format!("a split beside a drain, stopped before {stop:?}"));
                // With a mutex that the split takes, too.
                if stop.as_ref().is_some_and(|stop| !stop.has.is_empty()) {
                    gate.open();
                }
                // What lies in the way gets another slot, and the first one is given back.
                let (head, tail) = guard.split(50);
                drop(head);
                gate.open();
                let (polled, free, mut drain) = looks.join().unwrap();
                assert!(polled.is_pending() && !free, "{polled:?}, {free}: stopped before {stop:?}");
                drop(tail);
                drain.ready();
                stop
            });
            stopped.iter().for_each(|stop| stage.note(stop));
            stage.plays += 1;
            if stopped.is_none() {
                assert!(at > 0);
                break;
            }
        }
    }
}
