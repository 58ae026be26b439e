//! That what the lock says arrives: in the counters, and at a subscriber.

use super::*;

#[cfg(feature = "stats")]
mod counters {
    use super::*;
    use crate::watching::stats::Stats;
    use std::time::Duration;

    /// More than other tests of this process count meanwhile.
    const MANY: usize = 20_000;

    /// The counters that have gone up by `MANY` while `work` was done so often, and whether `MANY` waits were noted.
    fn counted(work: impl Fn()) -> Vec<&'static str> {
        let before = stats::read();
        (0..MANY).for_each(|_| work());
        let Stats {
            acquires,
            contended,
            nested,
            passed,
            deadlocks,
            given_up,
            nodes_grown,
            nodes_pruned,
            went_before,
            woken_in_vain,
            latest: _,
            waits,
        } = stats::read().since(&before);
        let all = [
            ("acquires", acquires),
            ("contended", contended),
            ("nested", nested),
            ("passed", passed),
            ("deadlocks", deadlocks),
            ("given up", given_up),
            ("nodes grown", nodes_grown),
            ("nodes pruned", nodes_pruned),
            ("went before", went_before),
            ("woken in vain", woken_in_vain),
            ("waits", waits.len()),
        ];
        all.iter().filter(|(_, n)| *n >= MANY as u64).map(|(name, _)| *name).collect()
    }

    /// One test, so that these do not count side by side.
    #[test]
    fn each_call_counts_what_it_says() {
        let wait = || waiting(ByteRange::WHOLE, Mode::Add, crate::facts::owner::fresh());
        assert_eq!(counted(acquired), ["acquires"]);
        assert_eq!(counted(contended), ["contended"]);
        assert_eq!(counted(nested), ["nested"]);
        assert_eq!(counted(|| passed(1)), ["passed"]);
        assert_eq!(counted(|| deadlock(&"")), ["deadlocks"]);
        assert_eq!(counted(node_grown), ["nodes grown"]);
        assert_eq!(counted(|| node_pruned(1)), ["nodes pruned"]);
        assert_eq!(counted(went_before), ["went before"]);
        assert_eq!(counted(woken_in_vain), ["woken in vain"]);
        assert_eq!(counted(|| wait().granted()), ["waits"]);
        assert_eq!(counted(|| drop(wait())), ["given up", "waits"]);
        assert_eq!(counted(|| drop(wait())), ["given up", "waits"]);
        let before = stats::read();
        passed(MANY);
        node_pruned(2 * MANY);
        let meanwhile = stats::read().since(&before);
        assert!(meanwhile.passed >= MANY as u64 && meanwhile.nodes_pruned >= 2 * MANY as u64, "{meanwhile}");
        // Nobody else of this process is so late, and the shorter time changes nothing.
        let [an_hour, a_day] = [1, 24].map(|hours| Duration::from_secs(3600 * hours));
        granted_late(a_day);
        granted_late(an_hour);
        assert_eq!(stats::read().latest, a_day);
    }
}

#[cfg(feature = "tracing")]
mod events {
    use super::*;
    use std::cell::RefCell;
    use std::fmt::Write;
    use std::sync::Once;
    use std::thread;
    use std::time::{Duration, Instant};
    use tracing::field::{Field, Visit};
    use tracing::{Event, Metadata, Subscriber, span};

    thread_local!(static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) });

    /// Writes each event into a list of the thread that it happens on, so that tests side by side do not mix.
    struct Collector;

    impl Subscriber for Collector {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() == "spanlock"
        }

        fn event(&self, event: &Event<'_>) {
            let mut line = Line(event.metadata().level().to_string());
            event.record(&mut line);
            SEEN.with_borrow_mut(|seen| seen.push(line.0));
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            unreachable!("there are events only")
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            write!(self.0, " {}={value:?}", field.name()).expect("a string takes everything");
        }
    }

    /// The events of `work`, one line each.
    fn events(work: impl FnOnce()) -> Vec<String> {
        static COLLECT: Once = Once::new();
        COLLECT.call_once(|| tracing::subscriber::set_global_default(Collector).expect("nobody else sets one"));
        SEEN.with_borrow_mut(Vec::clear);
        work();
        SEEN.take()
    }

    /// The field `waited_us` of a line.
    fn waited_us(line: &str) -> u64 {
        let (_, rest) = line.split_once("waited_us=").expect("it says how long");
        rest.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
    }

    fn wait() -> (WaitClock, String) {
        let owner = crate::facts::owner::fresh();
        (waiting(ByteRange::new(0..4096), Mode::Block, owner), format!("range=0..4096 mode=block owner={owner}"))
    }

    #[test]
    fn a_wait_and_its_grant() {
        let (mut asked, before) = (String::new(), Instant::now());
        let seen = events(|| {
            let (clock, said) = wait();
            asked = said;
            thread::sleep(Duration::from_millis(2));
            clock.granted();
        });
        let [waiting, granted] = &seen[..] else { panic!("two events: {seen:?}") };
        assert_eq!(*waiting, format!("DEBUG message=waiting {asked}"));
        let waited = waited_us(granted);
        assert!(waited >= 2000 && u128::from(waited) <= before.elapsed().as_micros(), "{granted}");
        assert_eq!(*granted, format!("DEBUG message=granted {asked} waited_us={waited}"));
    }

    #[test]
    fn a_wait_that_is_given_up_is_told_once_too() {
        let mut asked = String::new();
        let seen = events(|| {
            let (clock, said) = wait();
            asked = said;
            drop(clock);
        });
        let [_, gave_up] = &seen[..] else { panic!("two events: {seen:?}") };
        assert_eq!(*gave_up, format!("DEBUG message=gave up {asked} waited_us={}", waited_us(gave_up)));
    }

    #[test]
    fn a_deadlock_is_a_warning_that_names_the_cycle() {
        let seen = events(|| deadlock(&format_args!("thread 1 -> thread 2 -> thread 1")));
        assert_eq!(seen, ["WARN message=deadlock cycle=thread 1 -> thread 2 -> thread 1"]);
    }

    #[test]
    fn what_only_counts_is_no_event() {
        let seen = events(|| {
            acquired();
            contended();
            nested();
            passed(2);
            node_grown();
            node_pruned(3);
        });
        assert!(seen.is_empty(), "{seen:?}");
    }
}
