//! A file server's locks, from the side of the messages: clients ask, wait, are interrupted, close and vanish; the
//! server never blocks. `cargo run -p spanlock-posix --example server`.
//!
//! The messages are those of FUSE (GETLK, SETLK, SETLKW, INTERRUPT, RELEASE); NFS and 9P have the same under other
//! names. One thread serves all of them: a lock that is granted later is answered by a callback.

use spanlock_posix::{Caller, Canceller, Class, Domain, Error, Extent, Kind, Options, RecordLocks, Who};
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// Whose a lock is: a mount, and the lock owner that it names.
type Owner = (u32, u64);

enum Message {
    SetLock {
        request: u64,
        inode: u64,
        owner: Owner,
        pid: i32,
        lock: Lock,
        start: i64,
        len: i64,
        waits: bool,
    },
    GetLock {
        request: u64,
        inode: u64,
        owner: Owner,
        lock: Lock,
        start: i64,
        len: i64,
    },
    /// A signal has come to who waits for the answer to this request.
    Interrupt {
        request: u64,
    },
    /// A file was closed.
    Release {
        inode: u64,
        owner: Owner,
    },
    /// A mount is gone, with these owners.
    Gone {
        owners: Vec<Owner>,
    },
}

#[derive(Clone, Copy)]
enum Lock {
    Read,
    Write,
    None,
}

/// A request, and the number of the error or 0.
type Reply = (u64, i32);

struct Server {
    domain: Domain<Owner>,
    inodes: HashMap<u64, RecordLocks<Owner>>,
    /// By the request's number; the callback takes its own away.
    waiting: Arc<Mutex<HashMap<u64, Canceller<Owner>>>>,
    replies: Sender<Reply>,
}

impl Server {
    fn inode(&mut self, inode: u64) -> RecordLocks<Owner> {
        self.inodes.entry(inode).or_insert_with(|| self.domain.file()).clone()
    }

    fn serve(&mut self, message: Message) {
        match message {
            Message::SetLock { request, inode, owner, pid, lock, start, len, waits } => {
                let answer = self.set_lock(request, inode, Caller::process(owner, pid), lock, start, len, waits);
                // `None`: the callback replies.
                if let Some(answer) = answer {
                    self.reply(request, answer);
                }
            }
            Message::GetLock { request, inode, owner, lock, start, len } => {
                let kind = if matches!(lock, Lock::Read) { Kind::Read } else { Kind::Write };
                let file = self.inode(inode);
                let found =
                    Extent::new(start, len).and_then(|extent| file.get(Caller::process(owner, 0), kind, extent));
                if let Ok(Some(found)) = &found {
                    println!("  {} holds {} for {}", found.pid, found.extent, found.kind);
                }
                self.reply(request, found.map(|_| ()));
            }
            Message::Interrupt { request } => {
                // Too late, if it was granted: the reply is on its way.
                let canceller = self.waiting.lock().expect("nobody panics here").remove(&request);
                if let Some(canceller) = canceller {
                    canceller.cancel();
                }
            }
            Message::Release { inode, owner } => self.inode(inode).release(&of(owner)),
            Message::Gone { owners } => owners.into_iter().for_each(|owner| self.domain.release(&of(owner))),
        }
    }

    #[allow(clippy::too_many_arguments)] // They are a message's.
    fn set_lock(
        &mut self,
        request: u64,
        inode: u64,
        caller: Caller<Owner>,
        lock: Lock,
        start: i64,
        len: i64,
        waits: bool,
    ) -> Option<Result<(), Error>> {
        let file = self.inode(inode);
        let extent = match Extent::new(start, len) {
            Ok(extent) => extent,
            Err(error) => return Some(Err(error)),
        };
        let kind = match lock {
            Lock::Read => Kind::Read,
            Lock::Write => Kind::Write,
            Lock::None => return Some(file.unlock(caller, extent)),
        };
        if !waits {
            return Some(file.set(caller, kind, extent));
        }
        let pending = file.request(caller, kind, extent);
        self.waiting.lock().expect("nobody panics here").insert(request, pending.canceller());
        let (waiting, replies) = (Arc::clone(&self.waiting), self.replies.clone());
        pending.then(move |answer| {
            waiting.lock().expect("nobody panics here").remove(&request);
            send(&replies, request, answer);
        });
        None
    }

    fn reply(&self, request: u64, answer: Result<(), Error>) {
        send(&self.replies, request, answer);
    }
}

fn of(owner: Owner) -> Who<Owner> {
    Who { class: Class::Process, key: owner }
}

fn send(replies: &Sender<Reply>, request: u64, answer: Result<(), Error>) {
    let number = answer.map_or_else(Error::errno, |()| 0);
    replies.send((request, number)).expect("the connection outlives the server");
}

fn main() {
    let (replies, connection) = channel();
    let domain = Domain::new(Options::new().quota(1000));
    let mut server = Server { domain, inodes: HashMap::new(), waiting: Arc::default(), replies };
    let expect = |connection: &Receiver<Reply>, expected: &[Reply], what: &str| {
        let told: Vec<Reply> = connection.try_iter().collect();
        println!("{what}: {told:?}");
        assert_eq!(told, expected, "{what}");
    };
    let (alice, bob, carol) = ((1, 7), (1, 8), (2, 7));
    let set = |request, owner: Owner, lock, start, len, waits| {
        let pid = 100 * owner.0 as i32 + owner.1 as i32;
        Message::SetLock { request, inode: 42, owner, pid, lock, start, len, waits }
    };

    server.serve(set(1, alice, Lock::Write, 0, 100, false));
    server.serve(set(2, bob, Lock::Read, 50, 0, false));
    expect(&connection, &[(1, 0), (2, libc::EAGAIN)], "a lock, and a try that is refused");
    server.serve(Message::GetLock { request: 3, inode: 42, owner: bob, lock: Lock::Read, start: 50, len: 0 });
    expect(&connection, &[(3, 0)], "who is in the way");

    server.serve(set(4, bob, Lock::Read, 50, 0, true));
    server.serve(set(5, carol, Lock::Write, 90, 10, true));
    expect(&connection, &[], "two wait");
    server.serve(Message::Interrupt { request: 5 });
    expect(&connection, &[(5, libc::EINTR)], "a signal for one of them");
    server.serve(set(6, alice, Lock::None, 50, 50, false));
    expect(&connection, &[(4, 0), (6, 0)], "an unlock that grants the other");

    server.serve(set(7, alice, Lock::Read, 200, 1, true));
    server.serve(set(8, alice, Lock::Write, 60, 1, true));
    server.serve(set(9, bob, Lock::Write, 10, 1, true));
    expect(&connection, &[(7, 0), (9, libc::EDEADLK)], "each would wait for the other");
    println!("{}", server.inode(42).snapshot());
    server.serve(Message::Gone { owners: vec![bob] });
    expect(&connection, &[(8, 0)], "a mount is gone");
    server.serve(Message::Release { inode: 42, owner: alice });
    server.serve(set(10, carol, Lock::Write, 0, 0, false));
    expect(&connection, &[(10, 0)], "a close, and all is free");
}
