//! The kernel as the judge: the same calls by real processes on ordinary files, and by owners on `RecordLocks` in the
//! kernel's order, call by call.
//!
//! Processes of this very program are driven over pipes. They try, wait, ask who is in the way, unlock, close, are
//! interrupted by signals, and are killed; on two files, by the locks of a process, of an open file description and by
//! `flock`.
//!
//! # No sleep
//! When a call has been made, its process answers, or is among those that `/proc/locks` says are blocked. So are all
//! that were blocked before: who has been woken is not listed until he has answered or is blocked again. When each
//! process has answered or is listed, nothing moves any more, and what has been answered is compared.
//!
//! # What the kernel leaves open
//! Of several who are woken any may be first to try again. So a call is first made on copies of the record locks in
//! which chance says who is first. If they do not agree on what follows, the call is not made, and counted as open. If
//! the kernel then answers otherwise than all of them, many more are asked, and if one of those does as the kernel has
//! done, the history ends there, and is counted as open, too.
//!
//! Where there is no `/proc/locks` it says so and passes, unless `SPANLOCK_POSIX_REQUIRED` is set.
//! `SPANLOCK_POSIX_SEEDS` says how many histories (100), `SPANLOCK_POSIX_SEED` which is the first (1).

use std::process::ExitCode;

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    println!("no Linux: nothing to compare with");
    ExitCode::SUCCESS
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("--child") => child::run(),
        _ if std::env::args().any(|argument| argument == "--list") => ExitCode::SUCCESS,
        _ if std::fs::read("/proc/locks").is_ok() => judge::run(),
        _ => {
            println!("no /proc/locks, which says who is blocked: nothing is compared");
            // So that a check which is to be made cannot be left out unseen.
            if std::env::var_os("SPANLOCK_POSIX_REQUIRED").is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
    }
}

/// What is asked, on both sides.
#[cfg(target_os = "linux")]
mod call {
    use std::fmt::{self, Write as _};
    use std::str::FromStr;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Verb {
        Try,
        Wait,
        Get,
        /// A second descriptor of the file is opened and closed, which drops the process's locks.
        Close,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum By {
        Process,
        Description,
        Flock,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Type {
        Read,
        Write,
        Unlock,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Call {
        pub(crate) verb: Verb,
        pub(crate) by: By,
        pub(crate) kind: Type,
        pub(crate) file: usize,
        pub(crate) from_end: bool,
        pub(crate) start: i64,
        pub(crate) len: i64,
    }

    const VERBS: [Verb; 4] = [Verb::Try, Verb::Wait, Verb::Get, Verb::Close];
    const BYS: [By; 3] = [By::Process, By::Description, By::Flock];
    const TYPES: [Type; 3] = [Type::Read, Type::Write, Type::Unlock];

    impl fmt::Display for Call {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let Call { verb, by, kind, file, from_end, start, len } = *self;
            let (verb, by, kind) = (verb as usize, by as usize, kind as usize);
            write!(f, "{verb} {by} {kind} {file} {} {start} {len}", i32::from(from_end))
        }
    }

    impl FromStr for Call {
        type Err = std::num::ParseIntError;

        fn from_str(line: &str) -> Result<Call, Self::Err> {
            let parts = line.split_whitespace().map(i64::from_str).collect::<Result<Vec<_>, _>>()?;
            let [verb, by, kind, file, from_end, start, len] = parts[..] else { panic!("no call: {line}") };
            Ok(Call {
                verb: VERBS[verb as usize],
                by: BYS[by as usize],
                kind: TYPES[kind as usize],
                file: file as usize,
                from_end: from_end != 0,
                start,
                len,
            })
        }
    }

    /// What `F_GETLK` says, as both sides write it.
    pub(crate) fn told(found: Option<(Type, i64, i64, i32)>) -> String {
        let mut told = String::new();
        match found {
            None => told.push_str("nobody"),
            Some((kind, start, len, pid)) => write!(told, "{kind:?} {start} {len} by {pid}").expect("a string"),
        }
        told
    }
}

/// A process that does what it is told.
#[cfg(target_os = "linux")]
mod child {
    use crate::call::{By, Call, Type, Verb, told};
    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    use rustix::fs::FlockOperation;
    use std::fs::{File, OpenOptions};
    use std::io::{self, BufRead, Write};
    use std::process::ExitCode;

    extern "C" fn interrupted(_: libc::c_int) {}

    fn open(path: &str) -> File {
        OpenOptions::new().read(true).write(true).open(path).expect("the file is there")
    }

    pub(crate) fn run() -> ExitCode {
        // No SA_RESTART: a signal ends a wait.
        let action = SigAction::new(SigHandler::Handler(interrupted), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing, which is safe at any moment, and the program has no other handler for this
        // signal.
        unsafe { sigaction(Signal::SIGUSR1, &action) }.expect("a signal that can be handled");
        let paths: Vec<String> = std::env::args().skip(2).collect();
        let files: Vec<File> = paths.iter().map(|path| open(path)).collect();
        for line in io::stdin().lock().lines() {
            let call: Call = line.expect("a pipe").parse().expect("a call");
            let answer = match perform(&call, &files[call.file], &paths[call.file]) {
                Ok(answer) => answer,
                Err(errno) => format!("{}", errno as i32),
            };
            println!("{answer}");
            io::stdout().flush().expect("a pipe");
        }
        ExitCode::SUCCESS
    }

    fn perform(call: &Call, file: &File, path: &str) -> Result<String, Errno> {
        fn done<T>(_: T) -> String {
            "0".to_string()
        }
        if call.verb == Verb::Close {
            drop(open(path));
            return Ok("0".into());
        }
        if call.by == By::Flock {
            let operation = match (call.kind, call.verb) {
                (Type::Read, Verb::Wait) => FlockOperation::LockShared,
                (Type::Read, _) => FlockOperation::NonBlockingLockShared,
                (Type::Write, Verb::Wait) => FlockOperation::LockExclusive,
                (Type::Write, _) => FlockOperation::NonBlockingLockExclusive,
                (Type::Unlock, _) => FlockOperation::Unlock,
            };
            return rustix::fs::flock(file, operation).map(done).map_err(|errno| Errno::from_raw(errno.raw_os_error()));
        }
        let kind = match call.kind {
            Type::Read => libc::F_RDLCK,
            Type::Write => libc::F_WRLCK,
            Type::Unlock => libc::F_UNLCK,
        };
        let whence = if call.from_end { libc::SEEK_END } else { libc::SEEK_SET };
        let mut lock = libc::flock {
            l_type: kind as libc::c_short,
            l_whence: whence as libc::c_short,
            l_start: call.start,
            l_len: call.len,
            l_pid: 0,
        };
        let of_description = call.by == By::Description;
        match (call.verb, of_description) {
            (Verb::Try, false) => fcntl(file, FcntlArg::F_SETLK(&lock)).map(done),
            (Verb::Wait, false) => fcntl(file, FcntlArg::F_SETLKW(&lock)).map(done),
            (Verb::Try, true) => fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).map(done),
            (Verb::Wait, true) => fcntl(file, FcntlArg::F_OFD_SETLKW(&lock)).map(done),
            (_, of_description) => {
                let ask = if of_description { FcntlArg::F_OFD_GETLK(&mut lock) } else { FcntlArg::F_GETLK(&mut lock) };
                fcntl(file, ask)?;
                let kind = match libc::c_int::from(lock.l_type) {
                    libc::F_UNLCK => return Ok(told(None)),
                    libc::F_RDLCK => Type::Read,
                    _ => Type::Write,
                };
                Ok(told(Some((kind, lock.l_start, lock.l_len, lock.l_pid))))
            }
        }
    }
}

/// The one who has both sides do the same and compares.
#[cfg(target_os = "linux")]
mod judge {
    use crate::call::{By, Call, Type, Verb, told};
    use spanlock_posix::{Caller, Class, Domain, Error, Extent, Kind, Options, Pending, RecordLocks, Who};
    use std::collections::BTreeMap;
    use std::fs::{self, File};
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};
    use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;
    use std::time::{Duration, Instant};

    const PROCESSES: usize = 4;
    const FILES: usize = 2;
    /// Bytes of each file, for what is asked from its end.
    const SIZE: i64 = 6;
    const CALLS: usize = 150;
    /// Copies in which chance says who tries first.
    const COPIES: u64 = 12;
    /// And in which it is looked for once more what the kernel has answered, if these did not.
    const MANY: u64 = 1000;

    /// What happens next.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Call(usize, Call),
        Signal(usize),
        Kill(usize),
    }

    /// What has been answered, by process.
    type Answers = BTreeMap<usize, String>;

    // ---- The library's side ----

    /// A process, and file 0; or the number of a file's description, from 1 on.
    type Key = (usize, usize);

    struct Copy {
        domain: Domain<Key>,
        files: Vec<RecordLocks<Key>>,
        pending: BTreeMap<usize, Pending<Key>>,
    }

    impl Copy {
        fn new(shuffle: Option<u64>) -> Copy {
            let mut options = Options::new();
            options.shuffle = shuffle;
            let domain = Domain::new(options);
            let files = (0..FILES).map(|_| domain.file()).collect();
            Copy { domain, files, pending: BTreeMap::new() }
        }

        /// Whether a process has locks of several classes. When it ends the kernel drops one after the other, and who
        /// waits may wake up in between or not.
        fn is_mixed(&self, process: usize) -> bool {
            let of = |class, file| Who { class, key: (process, file) };
            let descriptions = (1..=FILES).flat_map(|file| [of(Class::Description, file), of(Class::Flock, file)]);
            let all = descriptions.chain([of(Class::Process, 0)]);
            all.filter(|who| self.domain.count(who) > 0).count() > 1
        }

        fn step(&mut self, step: &Step, pids: &[i32]) -> Answers {
            let mut answers = Answers::new();
            match *step {
                Step::Call(process, call) => {
                    let answer = match self.call(process, &call, pids[process]) {
                        Ok(answer) => answer,
                        Err(error) => Some(error.errno().to_string()),
                    };
                    answers.extend(answer.map(|answer| (process, answer)));
                }
                Step::Signal(process) => assert!(self.pending[&process].canceller().cancel(), "it waits"),
                Step::Kill(process) => {
                    drop(self.pending.remove(&process));
                    self.domain.release(&Who { class: Class::Process, key: (process, 0) });
                    for file in 1..=FILES {
                        self.domain.release(&Who { class: Class::Description, key: (process, file) });
                        self.domain.release(&Who { class: Class::Flock, key: (process, file) });
                    }
                }
            }
            let answered: Vec<usize> = self.pending.iter().filter(|(_, p)| p.is_answered()).map(|(&p, _)| p).collect();
            for process in answered {
                let answer = self.pending.remove(&process).expect("it was there").wait();
                answers.insert(process, answer.map_or_else(Error::errno, |()| 0).to_string());
            }
            answers
        }

        /// `None` if it waits.
        fn call(&mut self, process: usize, call: &Call, pid: i32) -> Result<Option<String>, Error> {
            let done = |()| Some("0".to_string());
            let file = &self.files[call.file];
            let caller = match call.by {
                By::Process => Caller::process((process, 0), pid),
                By::Description => Caller::description((process, call.file + 1)),
                By::Flock => Caller::flock((process, call.file + 1), pid),
            };
            if call.verb == Verb::Close {
                file.release(&Who { class: Class::Process, key: (process, 0) });
                return Ok(done(()));
            }
            let extent = match call.by {
                By::Flock => Extent::WHOLE,
                _ => Extent::relative(if call.from_end { SIZE } else { 0 }, call.start, call.len)?,
            };
            let kind = match call.kind {
                Type::Read => Kind::Read,
                Type::Write => Kind::Write,
                Type::Unlock => return file.unlock(caller, extent).map(done),
            };
            match call.verb {
                Verb::Try => file.set(caller, kind, extent).map(done),
                Verb::Wait => {
                    self.pending.insert(process, file.request(caller, kind, extent));
                    Ok(None)
                }
                _ => {
                    let all = file.conflicts(caller, kind, extent)?;
                    let lowest = all.iter().map(|lock| lock.extent.start()).min();
                    assert_eq!(file.get(caller, kind, extent)?.map(|lock| lock.extent.start()), lowest);
                    let tell = |lock: &spanlock_posix::Lock<Key>| {
                        let kind = if lock.kind == Kind::Read { Type::Read } else { Type::Write };
                        (kind, lock.extent.start() as i64, lock.extent.len(), lock.pid)
                    };
                    Ok(Some(told(all.first().map(tell))))
                }
            }
        }
    }

    // ---- The kernel's side ----

    struct Process {
        child: Child,
        calls: ChildStdin,
    }

    struct Kernel {
        paths: Vec<PathBuf>,
        inodes: Vec<u64>,
        processes: Vec<Process>,
        /// Process, number of that process, line.
        answers: Receiver<(usize, u32, String)>,
        sender: Sender<(usize, u32, String)>,
        /// Who has been called and has not answered: how.
        called: Vec<Option<By>>,
    }

    impl Kernel {
        fn new(paths: &[PathBuf]) -> Kernel {
            let (sender, answers) = channel();
            let (paths, processes) = (paths.to_vec(), Vec::new());
            let inodes = paths.iter().map(|path| fs::metadata(path).expect("a file").ino()).collect();
            let mut kernel = Kernel { paths, inodes, processes, answers, sender, called: vec![None; PROCESSES] };
            for process in 0..PROCESSES {
                let started = kernel.start(process);
                kernel.processes.push(started);
            }
            kernel
        }

        fn start(&self, process: usize) -> Process {
            let mut command = Command::new(std::env::current_exe().expect("this program"));
            command.arg("--child").args(&self.paths).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().expect("a process");
            let (lines, sender, pid) = (child.stdout.take().expect("piped"), self.sender.clone(), child.id());
            thread::spawn(move || {
                for line in BufReader::new(lines).lines().map_while(Result::ok) {
                    // Nobody listens any more when a test has failed.
                    let _ = sender.send((process, pid, line));
                }
            });
            let calls = child.stdin.take().expect("piped");
            Process { child, calls }
        }

        fn pids(&self) -> Vec<i32> {
            self.processes.iter().map(|process| process.child.id() as i32).collect()
        }

        fn step(&mut self, step: &Step) -> Answers {
            match *step {
                Step::Call(process, call) => {
                    writeln!(self.processes[process].calls, "{call}").expect("it lives");
                    self.called[process] = Some(call.by);
                }
                Step::Signal(process) => {
                    let pid = nix::unistd::Pid::from_raw(self.processes[process].child.id() as i32);
                    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGUSR1).expect("it lives");
                    // It is listed until it notices.
                    let mut answers = Answers::new();
                    let (process, answer) = self.answer().expect("it is interrupted");
                    answers.insert(process, answer);
                    answers.extend(self.settle());
                    return answers;
                }
                Step::Kill(process) => {
                    let child = &mut self.processes[process].child;
                    child.kill().expect("it lives");
                    // From here on its locks are gone.
                    child.wait().expect("it was this one's child");
                    self.called[process] = None;
                    self.processes[process] = self.start(process);
                }
            }
            self.settle()
        }

        /// The next answer, of a process that lives.
        fn answer(&mut self) -> Option<(usize, String)> {
            loop {
                let (process, pid, line) = self.answers.recv_timeout(Duration::from_secs(300)).ok()?;
                if self.processes[process].child.id() == pid {
                    self.called[process] = None;
                    return Some((process, line));
                }
            }
        }

        /// Waits until each process has answered or is blocked.
        fn settle(&mut self) -> Answers {
            let (mut answers, started) = (Answers::new(), Instant::now());
            let mut before = Vec::new();
            while self.called.iter().any(Option::is_some) {
                while let Ok((process, pid, line)) = self.answers.try_recv() {
                    if self.processes[process].child.id() == pid {
                        self.called[process] = None;
                        answers.insert(process, line);
                        before.clear();
                    }
                }
                let blocked = blocked(&self.inodes);
                // Those that wait by a description are listed as process -1.
                let listed = |process: usize| match self.called[process] {
                    None => None,
                    Some(By::Description) => Some(-1),
                    Some(_) => Some(self.processes[process].child.id() as i32),
                };
                let mut all: Vec<i32> = (0..PROCESSES).filter_map(listed).collect();
                all.sort_unstable();
                // Twice the same: a list that is longer than a page is not of one moment.
                if blocked == before && blocked == all {
                    break;
                }
                before = blocked;
                assert!(
                    started.elapsed() < Duration::from_secs(300),
                    "{:?} neither answer nor are blocked",
                    self.called
                );
                thread::yield_now();
            }
            // An answer that came while the list was read.
            while let Ok((process, pid, line)) = self.answers.try_recv() {
                if self.processes[process].child.id() == pid {
                    self.called[process] = None;
                    answers.insert(process, line);
                }
            }
            answers
        }
    }

    impl Drop for Kernel {
        fn drop(&mut self) {
            for process in &mut self.processes {
                let _ = process.child.kill();
                let _ = process.child.wait();
            }
        }
    }

    /// The processes that wait for a lock of one of these files, in order.
    fn blocked(inodes: &[u64]) -> Vec<i32> {
        let mut list = vec![0; 1 << 16];
        let mut file = File::open("/proc/locks").expect("Linux");
        let mut filled = 0;
        loop {
            match file.read(&mut list[filled..]).expect("Linux") {
                0 => break,
                read => filled += read,
            }
        }
        let list = String::from_utf8_lossy(&list[..filled]);
        let mut waits = Vec::new();
        for (_, lock) in list.lines().filter_map(|line| line.split_once("-> ")) {
            // Class, ADVISORY, kind, process, device and inode, first and last byte.
            let words: Vec<&str> = lock.split_whitespace().collect();
            let inode = words.get(4).and_then(|file| file.rsplit(':').next()?.parse().ok());
            if inode.is_some_and(|inode| inodes.contains(&inode)) {
                waits.push(words[3].parse().expect("a process"));
            }
        }
        waits.sort_unstable();
        waits
    }

    // ---- Both ----

    fn from_env(name: &str, default: u64) -> u64 {
        std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}: no number")))
    }

    /// Something that the state allows.
    fn next(rng: &mut fastrand::Rng, called: &[Option<By>]) -> Step {
        let process = rng.usize(..PROCESSES);
        if called[process].is_some() {
            // Not too often: who waits shall wait for something to happen.
            return match rng.u32(..40) {
                0 => Step::Signal(process),
                1 if rng.bool() => Step::Kill(process),
                _ if called.iter().all(Option::is_some) => Step::Signal(process),
                _ => next(rng, called),
            };
        }
        if rng.u32(..300) == 0 {
            return Step::Kill(process);
        }
        let verb = match rng.u32(..40) {
            0..15 => Verb::Try,
            15..31 => Verb::Wait,
            31..39 => Verb::Get,
            _ => Verb::Close,
        };
        let by = match rng.u32(..20) {
            0..15 => By::Process,
            15..18 => By::Description,
            _ if verb == Verb::Get => By::Process,
            _ => By::Flock,
        };
        let kind = match rng.u32(..10) {
            0..3 => Type::Read,
            3..6 => Type::Write,
            _ if verb == Verb::Get => Type::Write,
            _ => Type::Unlock,
        };
        let (start, len) = match rng.u32(..40) {
            0 => (rng.i64(0..10), 0),
            1 => (0, 0),
            2 => (rng.i64(0..12), -rng.i64(1..14)),
            3 => (i64::MAX - rng.i64(0..4), rng.i64(-3..6)),
            4 => (rng.i64(-8..0), rng.i64(0..8)),
            5 => (rng.i64(0..4), [i64::MAX, i64::MIN, i64::MAX - 2][rng.usize(..3)]),
            _ => (rng.i64(0..10), rng.i64(1..5)),
        };
        let file = if rng.u32(..4) == 0 { 1 } else { 0 };
        Step::Call(process, Call { verb, by, kind, file, from_end: rng.u32(..30) == 0, start, len })
    }

    /// What was done, to be done again in copies.
    struct Game {
        seed: u64,
        /// With the processes' numbers of that time, and what was answered.
        steps: Vec<(Step, Vec<i32>, Answers)>,
        copies: Vec<Copy>,
    }

    impl Game {
        fn new(seed: u64) -> Game {
            let mut game = Game { seed, steps: Vec::new(), copies: Vec::new() };
            game.again();
            game
        }

        /// Copies in which all has been done that was done.
        fn again(&mut self) {
            self.copies = (0..COPIES)
                .map(|copy| {
                    let mut copy = Copy::new((copy > 0).then(|| self.seed.wrapping_mul(1000) + copy));
                    for (step, pids, _) in &self.steps {
                        copy.step(step, pids);
                    }
                    copy
                })
                .collect();
        }

        /// What follows from a step, if that is not open.
        fn step(&mut self, step: Step, pids: &[i32]) -> Option<Answers> {
            let mut outcomes = self.copies.iter_mut().map(|copy| copy.step(&step, pids));
            let first = outcomes.next().expect("there are some");
            let agree = outcomes.fold(true, |agree, other| agree & (other == first));
            if !agree {
                self.again();
                return None;
            }
            self.steps.push((step, pids.to_vec(), first.clone()));
            Some(first)
        }

        /// Whether the last step could have been answered so: some chances are missed by a few copies.
        fn is_possible(&self, answers: &Answers) -> bool {
            let (last, before) = self.steps.split_last().expect("a step was made");
            (0..MANY).any(|copy| {
                let mut copy = Copy::new(Some(!self.seed.wrapping_mul(1000) - copy));
                before.iter().all(|(step, pids, answered)| copy.step(step, pids) == *answered)
                    && copy.step(&last.0, &last.1) == *answers
            })
        }
    }

    #[derive(Debug, Default)]
    struct Counts {
        calls: usize,
        open: usize,
        waited: usize,
        granted_later: usize,
        deadlocks: usize,
        signals: usize,
        kills: usize,
    }

    fn play(seed: u64, paths: &[PathBuf], counts: &mut Counts) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut kernel = Kernel::new(paths);
        let mut game = Game::new(seed);
        for _ in 0..CALLS {
            let step = next(&mut rng, &kernel.called);
            if matches!(step, Step::Kill(process) if game.copies[0].is_mixed(process)) {
                continue;
            }
            // A process that is killed takes its number with it: the next one is only known then.
            let pids = kernel.pids();
            let Some(expected) = game.step(step, &pids) else {
                counts.open += 1;
                continue;
            };
            let called = kernel.called.clone();
            let answered = kernel.step(&step);
            if answered != expected && game.is_possible(&answered) {
                counts.open += 1;
                return;
            }
            if answered != expected {
                eprintln!("seed {seed}: the kernel answered {answered:?}, the library {expected:?}, to the last of");
                for (step, ..) in &game.steps {
                    eprintln!("  {step:?}");
                }
                eprintln!("{}\n{}", game.copies[0].files[0].snapshot(), game.copies[0].files[1].snapshot());
                eprintln!("{}", fs::read_to_string("/proc/locks").unwrap_or_default());
                drop(kernel);
                panic!("a difference, with SPANLOCK_POSIX_SEED={seed}");
            }
            counts.calls += 1;
            match step {
                Step::Signal(_) => counts.signals += 1,
                Step::Kill(_) => counts.kills += 1,
                Step::Call(process, _) => counts.waited += usize::from(kernel.called[process].is_some()),
            }
            let later = |(process, answer): &(&usize, &String)| called[**process].is_some() && *answer == "0";
            counts.granted_later += answered.iter().filter(later).count();
            counts.deadlocks += answered.values().filter(|answer| **answer == libc::EDEADLK.to_string()).count();
        }
        // Nothing is left when all have gone.
        for process in 0..PROCESSES {
            game.copies[0].step(&Step::Kill(process), &kernel.pids());
        }
        assert_eq!(game.copies[0].domain.size(), (0, 0), "seed {seed}: owners, nodes of the graph");
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        fs::create_dir_all(folder).expect("a folder");
        let path = |number| folder.join(format!("file {number}"));
        let paths: Vec<PathBuf> = (0..FILES).map(path).collect();
        paths.iter().for_each(|path| fs::write(path, vec![0; SIZE as usize]).expect("a file"));
        paths
    }

    pub(crate) fn run() -> ExitCode {
        let folder = std::env::temp_dir().join(format!("spanlock-posix-{}", std::process::id()));
        let paths = files(&folder);
        let (first, seeds) = (from_env("SPANLOCK_POSIX_SEED", 1), from_env("SPANLOCK_POSIX_SEEDS", 100));
        let mut counts = Counts::default();
        for seed in first..first + seeds {
            play(seed, &paths, &mut counts);
        }
        fs::remove_dir_all(&folder).expect("this one's folder");
        println!("{seeds} histories: {counts:?}: no difference");
        assert!(
            seeds < 20 || (counts.deadlocks > 0 && counts.granted_later > 0 && counts.signals > 0 && counts.kills > 0),
            "hollow"
        );
        println!("1 passed, 0 failed");
        ExitCode::SUCCESS
    }
}
