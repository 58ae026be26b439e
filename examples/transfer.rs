//! Bank accounts: transactions that lock one row after the other, meet a
//! deadlock now and then, and answer it.
//!
//! ```text
//! cargo run --release --example transfer
//! cargo run --release --example transfer -- --help
//! ```
//!
//! One [`RangeLock`] covers all accounts; account 7 is the range `7..=7`. There are
//! two ways to move money from one account to another, and both are used at once:
//!
//! - *one by one*: lock the account that pays, look whether it can, lock the one that
//!   receives. Two such transfers can cross. Then one of them is told so
//!   ([`AcquireError::Deadlock`]) instead of both hanging, and it does the one obvious
//!   thing: ask again for both together, then look at the balance again;
//! - *together*: both accounts as one [`Batch`] from the start. It never deadlocks, but
//!   locks the second account even when the first turns out to be empty.
//!
//! Meanwhile auditors add up one branch after the other. They share (`Add` goes with
//! `Add`), and hold up nobody in the other branches. Transfers stay within a branch, so
//! that an auditor must find the same sum always, to the penny.
//!
//! Exit codes: 0 every sum was right and nobody was refused twice; 101 (a panic) otherwise.

use std::ops::{AddAssign, Range};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use spanlock::{AcquireError, Batch, Deadlock, Mode, Owner, RangeLock};

/// Moves money between accounts under a range lock, and checks that none is lost
#[derive(Debug, Parser)]
#[command(name = "transfer")]
struct Options {
    /// Threads that make transfers
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=64))]
    threads: u64,

    /// Transfers that each of them makes
    #[arg(long, default_value_t = 5000)]
    transfers: u64,

    /// Branches of the bank, with 8 accounts each: the fewer, the more transfers meet
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    branches: u64,
}

/// Accounts of a branch.
const BRANCH: u64 = 8;
/// What each account has at first.
const DEPOSIT: u64 = 100;
/// What a transfer does between its two locks, and between looking at a balance and changing it.
const WORK: Duration = Duration::from_micros(5);

struct Bank {
    /// Who may use which accounts.
    lock: RangeLock,
    /// Atomic only so that Rust lets threads share them. They are read first and written later, as a database would: it
    /// is the lock that makes one step of the two.
    balances: Vec<AtomicU64>,
}

/// What became of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Moved,
    /// The account that should have paid could not.
    TooPoor,
}

/// A transfer that is done: how it ended, and the deadlock that it met on the way, if it did.
struct Done {
    outcome: Outcome,
    deadlock: Option<Deadlock>,
}

impl Bank {
    fn new(branches: u64) -> Bank {
        let balances = (0..branches * BRANCH).map(|_| AtomicU64::new(DEPOSIT)).collect();
        Bank { lock: RangeLock::named("accounts"), balances }
    }

    /// Locks `from`, then `to`; `between` runs while only `from` is locked.
    fn transfer_one_by_one(
        &self,
        me: &Owner,
        (from, to): (u64, u64),
        amount: u64,
        between: impl FnOnce(),
    ) -> Result<Done, AcquireError> {
        let payer = self.lock.request(from..=from, Mode::Exclusive).owner(me).wait()?;
        if self.balance(from) < amount {
            return Ok(Done { outcome: Outcome::TooPoor, deadlock: None });
        }
        between();
        match self.lock.request(to..=to, Mode::Exclusive).owner(me).wait() {
            Ok(_receiver) => Ok(Done { outcome: self.move_money(from, to, amount), deadlock: None }),
            Err(AcquireError::Deadlock(deadlock)) => {
                // Somebody who has `to` waits for `from`. Let go of it, and ask for both together: that cannot be
                // refused again.
                let _both = Batch::new().regain(payer).exclusive(&self.lock, to..=to).owner(me).wait()?;
                // Others may have had `from` in between: `move_money` looks at its balance again.
                Ok(Done { outcome: self.move_money(from, to, amount), deadlock: Some(deadlock) })
            }
            Err(other) => Err(other),
        }
    }

    /// Locks both at once.
    fn transfer_together(&self, me: &Owner, (from, to): (u64, u64), amount: u64) -> Result<Done, AcquireError> {
        let both = Batch::new().exclusive(&self.lock, from..=from).exclusive(&self.lock, to..=to);
        let _both = both.owner(me).wait()?;
        Ok(Done { outcome: self.move_money(from, to, amount), deadlock: None })
    }

    /// Both accounts are locked.
    fn move_money(&self, from: u64, to: u64, amount: u64) -> Outcome {
        let (payer, receiver) = (self.balance(from), self.balance(to));
        if payer < amount {
            return Outcome::TooPoor;
        }
        thread::sleep(WORK);
        self.balances[from as usize].store(payer - amount, Relaxed);
        self.balances[to as usize].store(receiver + amount, Relaxed);
        Outcome::Moved
    }

    fn balance(&self, account: u64) -> u64 {
        self.balances[account as usize].load(Relaxed)
    }

    /// The sum of some accounts. Other audits go on beside it, and so does all that concerns other accounts.
    fn audit(&self, accounts: Range<u64>) -> u64 {
        // Whoever holds nothing else is never refused: no owner, no error to look at.
        let _shared = self.lock.add(accounts.clone());
        accounts.map(|account| self.balance(account)).sum()
    }

    fn branches(&self) -> impl Iterator<Item = Range<u64>> {
        (0..self.balances.len() as u64).step_by(BRANCH as usize).map(|first| first..first + BRANCH)
    }
}

/// Two transfers that cross for certain: each has locked its first account before either asks for its second.
fn cross(bank: &Bank) {
    println!("Two transfers cross: 0 to 1, and 1 to 0.\n");
    let both_have_one = Barrier::new(2);
    let transfer = |from, to| {
        let me = Owner::named(format!("transfer {from} to {to}"));
        bank.transfer_one_by_one(&me, (from, to), 30, || _ = both_have_one.wait()).expect("deadlocks are answered")
    };
    let (one, other) = thread::scope(|scope| {
        let other = scope.spawn(|| transfer(1, 0));
        (transfer(0, 1), other.join().unwrap())
    });
    println!("{}\n", one.deadlock.as_ref().or(other.deadlock.as_ref()).expect("they crossed"));
    assert!(one.deadlock.is_none() || other.deadlock.is_none(), "one of the two steps back, not both");
    assert_eq!([one.outcome, other.outcome], [Outcome::Moved; 2]);
    assert_eq!([bank.balance(0), bank.balance(1)], [DEPOSIT; 2]);
    println!("The one that was refused asked for both together. Both are done.\n");
}

#[derive(Default)]
struct Count {
    moved: u64,
    too_poor: u64,
    deadlocks: u64,
}

impl Count {
    fn add(&mut self, done: &Done) {
        match done.outcome {
            Outcome::Moved => self.moved += 1,
            Outcome::TooPoor => self.too_poor += 1,
        }
        self.deadlocks += u64::from(done.deadlock.is_some());
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Count) {
        self.moved += other.moved;
        self.too_poor += other.too_poor;
        self.deadlocks += other.deadlocks;
    }
}

/// One thread's transfers between random accounts, every second one of either kind: what became of those that locked
/// one by one, and of the others.
fn clerk(bank: &Bank, number: u64, options: &Options) -> (Count, Count) {
    let (mut one_by_one, mut together) = (Count::default(), Count::default());
    let mut random = fastrand::Rng::with_seed(number);
    for transfer in 0..options.transfers {
        let first = random.u64(..options.branches) * BRANCH;
        let from = random.u64(..BRANCH);
        let to = (from + random.u64(1..BRANCH)) % BRANCH;
        let accounts = (first + from, first + to);
        let amount = random.u64(1..=DEPOSIT);
        // An owner for each transfer: what an owner holds, and waits for, belongs together.
        let me = Owner::named(format!("transfer {transfer} of clerk {number}"));
        // `expect`: the one kind asks at most twice, the other once, and never is a batch refused.
        if transfer % 2 == 0 {
            let done = bank.transfer_one_by_one(&me, accounts, amount, || thread::sleep(WORK));
            one_by_one.add(&done.expect("a batch is the last retry"));
        } else {
            let done = bank.transfer_together(&me, accounts, amount);
            together.add(&done.expect("a batch needs no retry"));
        }
    }
    (one_by_one, together)
}

/// Adds up the branches until the bank closes; how many.
fn auditor(bank: &Bank, closed: &AtomicBool) -> u64 {
    let mut audits = 0;
    while !closed.load(Relaxed) {
        for branch in bank.branches() {
            assert_eq!(bank.audit(branch.clone()), BRANCH * DEPOSIT, "accounts {branch:?}");
            audits += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
    audits
}

fn main() {
    let options = Options::parse();
    let bank = Bank::new(options.branches);
    cross(&bank);

    let Options { threads, transfers, branches } = options;
    println!("{threads} clerks make {transfers} transfers each in {branches} branches; two auditors watch.\n");
    let began = Instant::now();
    let closed = AtomicBool::new(false);
    let (mut one_by_one, mut together, mut audits) = (Count::default(), Count::default(), 0);
    thread::scope(|scope| {
        let (bank, options) = (&bank, &options);
        let clerks: Vec<_> = (0..threads).map(|number| scope.spawn(move || clerk(bank, number, options))).collect();
        let auditors = [(); 2].map(|()| scope.spawn(|| auditor(bank, &closed)));
        let clerks: Vec<_> = clerks.into_iter().map(|clerk| clerk.join()).collect();
        closed.store(true, Relaxed);
        for clerk in clerks {
            let (ones, twos) = clerk.expect("every transfer was answered");
            one_by_one += ones;
            together += twos;
        }
        audits = auditors.into_iter().map(|auditor| auditor.join().expect("every sum was right")).sum();
    });

    println!("                       one by one    together");
    println!("moved                  {:10}  {:10}", one_by_one.moved, together.moved);
    println!("too poor               {:10}  {:10}", one_by_one.too_poor, together.too_poor);
    println!("deadlocks answered     {:10}  {:10}", one_by_one.deadlocks, together.deadlocks);
    println!("\nEach deadlock took one retry, as a batch; no batch was refused.");
    println!("{audits} audits of a branch, {:.1} seconds.", began.elapsed().as_secs_f64());

    let total = bank.audit(0..branches * BRANCH);
    println!("The bank has {total}, as at first.");
    assert_eq!(total, branches * BRANCH * DEPOSIT);
    assert_eq!(together.deadlocks, 0);
    let done = [&one_by_one, &together].map(|count| count.moved + count.too_poor);
    assert_eq!(done.iter().sum::<u64>(), threads * transfers);
}
