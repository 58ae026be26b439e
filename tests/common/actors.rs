//! Owners that are threads, told what to do one order at a time, so that a test decides what happens when: each actor
//! asks by blocking calls, as its thread or as a token, and says what it was answered.

use super::watch::Watchdog;
use spanlock::{AcquireError, ByOwner, ByThread, Deadlock, Guard, Mode, Nesting, Owner, RangeLock};
use std::ops::Range;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread;

/// What owns an actor's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Thread,
    Token,
}

type Ask<'a> = (&'a RangeLock, Range<u64>, Mode);

enum Order<'a> {
    Ask(Ask<'a>),
    /// Of the guard with this number among those that are left.
    Drop(usize),
    DropAll,
}

enum Answer {
    Asked(Result<Nesting, AcquireError>),
    Dropped,
}

/// One thread of a scene. It ends when this is dropped and it has an answer.
pub(crate) struct Actor<'a> {
    orders: Sender<Order<'a>>,
    answers: Receiver<Answer>,
}

/// Plays a scene with every cast: each actor once as a thread and once as a token, in all combinations.
pub(crate) fn play<'a, const N: usize>(test: &'static str, scene: impl Fn([Actor<'a>; N])) {
    let watchdog = Watchdog::new(test);
    for cast in 0..1_usize << N {
        thread::scope(|scope| {
            scene(std::array::from_fn(|number| {
                let kind = if cast >> number & 1 == 0 { Kind::Thread } else { Kind::Token };
                let (orders, incoming) = mpsc::channel();
                let (outgoing, answers) = mpsc::channel();
                scope.spawn(move || perform(kind, incoming, outgoing));
                Actor { orders, answers }
            }));
        });
        watchdog.step();
    }
}

/// A guard of either kind.
pub(crate) trait Holds {
    fn nesting(&self) -> Nesting;
}

impl Holds for Guard<&RangeLock, ByThread> {
    fn nesting(&self) -> Nesting {
        Guard::nesting(self)
    }
}

impl Holds for Guard<&RangeLock, ByOwner> {
    fn nesting(&self) -> Nesting {
        Guard::nesting(self)
    }
}

/// Waits for what is asked, as the thread or as `token`.
pub(crate) fn wait_as<'a>(
    token: Option<&Owner>,
    (lock, range, mode): Ask<'a>,
) -> Result<Box<dyn Holds + 'a>, AcquireError> {
    let request = lock.request(range, mode);
    Ok(match token {
        None => Box::new(request.wait()?),
        Some(owner) => Box::new(request.owner(owner).wait()?),
    })
}

fn perform(kind: Kind, orders: Receiver<Order<'_>>, answers: Sender<Answer>) {
    let token = (kind == Kind::Token).then(Owner::new);
    let mut guards = Vec::new();
    for order in orders {
        let answer = match order {
            Order::Ask(ask) => Answer::Asked(wait_as(token.as_ref(), ask).map(|guard| {
                let nesting = guard.nesting();
                guards.push(guard);
                nesting
            })),
            Order::Drop(number) => {
                guards.remove(number);
                Answer::Dropped
            }
            Order::DropAll => {
                guards.clear();
                Answer::Dropped
            }
        };
        // Nobody listens any more if the test has failed.
        drop(answers.send(answer));
    }
}

/// Those that wait in a lock.
pub(crate) fn waiting(lock: &RangeLock) -> usize {
    lock.snapshot().waiters().count()
}

impl<'a> Actor<'a> {
    /// Asks, and does not wait for the answer.
    pub(crate) fn asks(&self, lock: &'a RangeLock, range: Range<u64>, mode: Mode) {
        self.orders.send(Order::Ask((lock, range, mode))).expect("an actor ends when it is dropped");
    }

    /// Asks, and is in the queue. (Not more: it may not have looked for a cycle yet.)
    pub(crate) fn queues(&self, lock: &'a RangeLock, range: Range<u64>, mode: Mode) {
        let before = waiting(lock);
        self.asks(lock, range, mode);
        while waiting(lock) == before {
            thread::yield_now();
        }
    }

    /// Asks, and is granted.
    #[track_caller]
    pub(crate) fn takes(&self, lock: &'a RangeLock, range: Range<u64>, mode: Mode) -> Nesting {
        self.asks(lock, range, mode);
        self.granted()
    }

    /// Is granted what it asked for, or has been.
    #[track_caller]
    pub(crate) fn granted(&self) -> Nesting {
        match self.answers.recv() {
            Ok(Answer::Asked(Ok(nesting))) => nesting,
            Ok(Answer::Asked(Err(refused))) => panic!("refused: {refused}"),
            _ => panic!("nothing was asked"),
        }
    }

    /// Fails the test if there is an answer to what it asked.
    #[track_caller]
    pub(crate) fn still_waits(&self) {
        assert!(matches!(self.answers.try_recv(), Err(TryRecvError::Empty)), "answered too early");
    }

    /// Drops the guard with this number among those that it has.
    pub(crate) fn drops(&self, number: usize) {
        self.order_drop(Order::Drop(number));
    }

    pub(crate) fn drops_all(&self) {
        self.order_drop(Order::DropAll);
    }

    fn order_drop(&self, order: Order<'a>) {
        self.orders.send(order).expect("an actor ends when it is dropped");
        assert!(matches!(self.answers.recv(), Ok(Answer::Dropped)), "an actor that waits cannot drop anything");
    }
}

/// Waits until one of those who wait for one another is refused; says which. The others wait on.
#[track_caller]
pub(crate) fn first_refused(actors: &[Actor<'_>]) -> (usize, Deadlock) {
    loop {
        for (number, actor) in actors.iter().enumerate() {
            match actor.answers.try_recv() {
                Ok(Answer::Asked(Err(AcquireError::Deadlock(deadlock)))) => return (number, deadlock),
                Ok(Answer::Asked(other)) => panic!("actor {number} was answered {other:?}"),
                Ok(Answer::Dropped) => unreachable!("each drop is waited for"),
                Err(_) => {}
            }
        }
        thread::yield_now();
    }
}
