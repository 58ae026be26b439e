use super::*;

#[test]
fn a_list_of_ranges_is_counted() {
    let counts = ["0-3,8,10-11\n", "0", "0-127", "", "x", "3-1"].map(ranges);
    assert_eq!(counts, [Some(7), Some(1), Some(128), None, None, None]);
}

#[test]
fn the_system_has_no_fewer_than_a_thread_may_run_on() {
    assert!(of_system() >= thread::available_parallelism().map_or(1, usize::from));
    assert!(shards().is_power_of_two() && shards() >= 4);
}

/// What is known is known for the whole process, so each of these has one of its own, in which nobody has waited yet.
#[cfg(target_os = "linux")]
mod bound {
    use super::*;
    use crate::Mode;
    use crate::RangeLock;
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    use std::process::Command;
    use std::sync::Barrier;
    use std::time::Duration;

    const CHILD: &str = "SPANLOCK_TEST_IN_A_PROCESS_OF_ITS_OWN";

    /// Runs `body` as the test `name` of a new process, with the processors that it may run on, if there are two.
    fn in_a_process_of_its_own(name: &str, body: impl FnOnce([usize; 2])) {
        if std::env::var_os(CHILD).is_some() {
            let mine = sched_getaffinity(None).expect("it can be asked");
            let mut cpus = (0..CpuSet::MAX_CPU).filter(|&cpu| mine.is_set(cpu));
            match (cpus.next(), cpus.next()) {
                (Some(one), Some(other)) => body([one, other]),
                _ => eprintln!("there is one processor: nothing to see"),
            }
            return;
        }
        let program = std::env::current_exe().expect("it has a name");
        let child = Command::new(program).args([name, "--exact", "--test-threads=1"]).env(CHILD, "1").output();
        let child = child.expect("it can be started");
        let told = String::from_utf8_lossy(&child.stdout);
        assert!(
            child.status.success() && told.contains("1 passed"),
            "{told}{}",
            String::from_utf8_lossy(&child.stderr)
        );
    }

    fn bind(cpu: usize) {
        let mut only = CpuSet::new();
        only.set(cpu);
        sched_setaffinity(None, &only).expect("a thread may bind itself");
    }

    /// Holds `lock` until the calling thread has waited for it, in vain.
    fn wait_in_vain(lock: &RangeLock) {
        let (held, over) = (Barrier::new(2), Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                let guard = lock.exclusive(..);
                held.wait();
                over.wait();
                drop(guard);
            });
            held.wait();
            let waited = lock.request(.., Mode::Add).timeout(Duration::from_millis(1)).wait();
            over.wait();
            assert!(waited.is_err());
        });
    }

    /// Each of them runs on a processor of its own, beside the others, also if the first to wait was bound to one.
    #[test]
    fn threads_bound_to_one_processor_each_are_at_work_side_by_side() {
        in_a_process_of_its_own(
            "platform::processors::tests::bound::threads_bound_to_one_processor_each_are_at_work_side_by_side",
            |cpus| {
                let lock = RangeLock::new();
                bind(cpus[0]);
                wait_in_vain(&lock);
                assert_eq!(at_work(), 1, "nobody else has waited");
                let (begin, lock) = (Barrier::new(2), &lock);
                thread::scope(|scope| {
                    for cpu in cpus {
                        let begin = &begin;
                        scope.spawn(move || {
                            bind(cpu);
                            wait_in_vain(&RangeLock::new());
                            begin.wait();
                            assert_eq!(at_work(), 2);
                            // They hand over.
                            (0..1000).for_each(|_| drop(lock.exclusive(0..8)));
                        });
                    }
                });
                assert!(shards() >= 8, "a table is laid out for the system, not for the thread that makes it");
            },
        );
    }

    #[test]
    fn a_process_bound_to_one_processor_has_one() {
        in_a_process_of_its_own(
            "platform::processors::tests::bound::a_process_bound_to_one_processor_has_one",
            |cpus| {
                bind(cpus[1]);
                let begin = Barrier::new(2);
                thread::scope(|scope| {
                    for _ in 0..2 {
                        scope.spawn(|| {
                            begin.wait();
                            wait_in_vain(&RangeLock::new());
                        });
                    }
                });
                assert_eq!(at_work(), 1);
            },
        );
    }
}
