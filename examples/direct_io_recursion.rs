//! The problem that any range lock of a page cache has, step by step: recursion.
//!
//! ```text
//! cargo run --release --example direct_io_recursion
//! ```
//!
//! A direct write *blocks* the cache while it changes the bytes underneath. Its buffer may
//! be a mapping of a file: then copying from it faults, and the fault wants to *add* a
//! page, perhaps to the very range that is blocked by the same task. Kent
//! Overstreet's *Notes on locking for pagecache consistency* (linux-kernel, 23 May 2018) solve this
//! with a pointer in the task, and ask for something better. Here the lock knows its owners.
//!
//! A kernel would use the thread as the owner, by `file.add(..)`. Here every task is an
//! [`Owner`], so that one thread can play all of them in a fixed order.
//!
//! Exit codes: 0 every answer was the one that is promised; 101 (a panic) otherwise.

use spanlock::{AcquireError, Batch, ByteRange, Mode, Nesting, Owner, RangeLock, Recursion};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

const PAGE: u64 = 4096;

/// What a page-fault handler does: adds the page, and reads ahead unless it runs inside of a block of its own task.
/// (Read-ahead would bring back pages that the write has just dropped. The one page that it needs it gets for itself
/// alone.) What it found itself in.
fn fault(file: &RangeLock, task: &Owner, page: u64) -> Result<Nesting, AcquireError> {
    let bytes = page * PAGE..(page + 1) * PAGE;
    let guard = file.request(bytes.clone(), Mode::Add).owner(task).wait()?;
    match guard.nesting() {
        Nesting::Conflicting { held, mode } => {
            println!(
                "    fault on {bytes:?}: granted, inside {mode:?} {held} of the same task: a private page, no read-ahead"
            );
        }
        Nesting::Outermost => println!("    fault on {bytes:?}: granted, outermost: read ahead"),
        other => println!("    fault on {bytes:?}: granted, {other:?}: read ahead"),
    }
    Ok(guard.nesting())
}

/// Asks by a future, so that one thread can play several tasks: `None` if the request has to wait.
fn ask<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

fn main() -> Result<(), AcquireError> {
    static FILE: RangeLock = RangeLock::named("file");
    static OTHER: RangeLock = RangeLock::named("other");
    let (file, other) = (&FILE, &OTHER);

    println!("1. A page fault by itself");
    let reader = Owner::named("reader");
    assert_eq!(fault(file, &reader, 0)?, Nesting::Outermost);

    println!("2. A direct write to pages 0 and 1, from a buffer that maps page 1 of the same file");
    let writer = Owner::named("writer");
    let block = file.request(0..2 * PAGE, Mode::Block).owner(&writer).wait()?;
    assert_eq!(fault(file, &writer, 1)?, Nesting::Conflicting { held: block.range(), mode: Mode::Block });
    assert!(file.request(PAGE..2 * PAGE, Mode::Add).owner(&reader).try_now().is_none(), "anybody else has to wait");

    println!("3. The same, from a mapping of page 7, and of another file");
    assert_eq!(fault(file, &writer, 7)?, Nesting::Elsewhere);
    assert_eq!(fault(other, &writer, 7)?, Nesting::Elsewhere);

    println!("4. A truncate of everything queues meanwhile. The writer's fault passes it, or both would wait for ever");
    let truncate = Owner::named("truncate");
    let mut waiting = pin!(file.request(.., Mode::Exclusive).owner(&truncate).into_future());
    assert!(ask(waiting.as_mut()).is_none(), "the writer is in its way");
    assert_eq!(fault(file, &writer, 7)?, Nesting::Elsewhere);
    assert!(file.request(7 * PAGE..8 * PAGE, Mode::Add).owner(&reader).try_now().is_none(), "nobody else passes");
    println!("{}", indented(&file.snapshot().to_string()));
    drop(block);
    drop(ask(waiting).expect("nobody is in its way any more")?);

    println!("5. Who cannot serve such a fault says so");
    let block = file.request(0..2 * PAGE, Mode::Block).owner(&writer).wait()?;
    let refused = file.request(PAGE..2 * PAGE, Mode::Add).owner(&writer).recursion(Recursion::Refuse).wait();
    let Err(refused @ AcquireError::WouldRecurse { .. }) = refused else { panic!("{refused:?}") };
    println!("    {refused}");
    drop(block);

    println!("6. Two direct writes to one page, each from a mapping of it: each fault waits for the other's block");
    let (one, two) = (Owner::named("first writer"), Owner::named("second writer"));
    let first = file.request(0..PAGE, Mode::Block).owner(&one).wait()?;
    let second = file.request(0..PAGE, Mode::Block).owner(&two).wait()?;
    crossed(file, file, (&one, first), (&two, second))?;

    println!("7. Crossed files: each writes to the one that the other's buffer maps");
    let first = file.request(0..PAGE, Mode::Block).owner(&one).wait()?;
    let second = other.request(0..PAGE, Mode::Block).owner(&two).wait()?;
    crossed(other, file, (&one, first), (&two, second))?;

    assert_eq!((file.snapshot().requests().len(), other.snapshot().requests().len()), (0, 0));
    println!("Nothing is held any more, and nobody was left waiting.");
    Ok(())
}

type Write = spanlock::Guard<&'static RangeLock, spanlock::ByOwner>;

/// The first write faults on page 0 of `first_map`, and waits; the second on page 0 of `second_map`, which closes the
/// cycle.
fn crossed(
    first_map: &'static RangeLock,
    second_map: &'static RangeLock,
    (one, first): (&Owner, Write),
    (two, second): (&Owner, Write),
) -> Result<(), AcquireError> {
    let mut first_fault = pin!(first_map.request(0..PAGE, Mode::Add).owner(one).into_future());
    assert!(ask(first_fault.as_mut()).is_none(), "the second write blocks it");
    let answer = second_map.request(0..PAGE, Mode::Add).owner(two).wait();
    let Err(AcquireError::Deadlock(deadlock)) = answer else { panic!("{answer:?}") };
    println!("{}", indented(&deadlock.to_string()));

    // The remedy: let the block go, and ask for block and fault together. (A file system must drop the pages once more
    // then: others had the range.)
    let mut both = pin!(Batch::new().regain(second).add(second_map, 0..PAGE).owner(two).into_future());
    assert!(ask(both.as_mut()).is_none(), "the first write goes first");
    drop(ask(first_fault).expect("nobody blocks it any more")?);
    drop(first);
    let guards = ask(both).expect("the first write is done")?;
    assert_eq!(guards[0].range(), ByteRange::new(0..PAGE));
    println!("    the second write has block and page together, and goes on");
    Ok(())
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}
