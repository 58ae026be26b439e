//! The problem that any range lock of a page cache has, step by step: recursion.
//!
//! A direct write *blocks* the cache while it changes the bytes underneath. Its buffer may be a mapping of a file: then copying from it faults, and the
//! fault wants to *add* a page, to the very range that is blocked by the same task. Kent Overstreet's note on page-cache consistency (2018) solves this with
//! a pointer in the task, and asks for something better; here the lock knows its owners.
//!
//! ```console
//! $ cargo run --example direct_io_recursion
//! ```

use spanlock::{AcquireError, Batch, ByteRange, Mode, Nesting, Owner, RangeLock, Recursion};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

const PAGE: u64 = 4096;

/// What a page-fault handler does: adds the page, and reads ahead unless it runs inside of a block of its own task.
fn fault(file: &RangeLock, task: &Owner, page: u64) -> Result<(), AcquireError> {
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
    Ok(())
}

/// Asks by a future, so that one thread can play several tasks: `None` if the request has to wait.
fn ask<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

fn main() -> Result<(), AcquireError> {
    let (file, other) = (RangeLock::named("file"), RangeLock::named("other"));

    println!("1. A page fault by itself");
    fault(&file, &Owner::named("reader"), 0)?;

    println!("2. A direct write to pages 0 and 1, from a buffer that maps page 1 of the same file");
    let writer = Owner::named("writer");
    let block = file.request(0..2 * PAGE, Mode::Block).owner(&writer).wait()?;
    fault(&file, &writer, 1)?;

    println!("3. The same, from a mapping of page 7, and of another file");
    fault(&file, &writer, 7)?;
    fault(&other, &writer, 7)?;

    println!(
        "4. A truncate of everything queues meanwhile; the writer's fault on page 7 may pass it, or both would wait for ever"
    );
    let truncate = Owner::named("truncate");
    let mut waiting = pin!(file.request(.., Mode::Exclusive).owner(&truncate).into_future());
    assert!(ask(waiting.as_mut()).is_none(), "the writer is in its way");
    fault(&file, &writer, 7)?;
    println!("{}", indented(&file.snapshot().to_string()));
    drop(block);
    drop(ask(waiting).expect("nobody is in its way any more")?);

    println!("5. Who cannot serve such a fault says so");
    let block = file.request(0..2 * PAGE, Mode::Block).owner(&writer).wait()?;
    let refused = file.request(PAGE..2 * PAGE, Mode::Add).owner(&writer).recursion(Recursion::Refuse).wait();
    let Err(refused @ AcquireError::WouldRecurse { .. }) = refused else { panic!("{refused:?}") };
    println!("    {refused}");
    drop(block);

    println!(
        "6. Two direct writes to one page, each from a mapping of that page: blocks go together, and each fault waits for the other's block"
    );
    let (one, two) = (Owner::named("first writer"), Owner::named("second writer"));
    let first = file.request(0..PAGE, Mode::Block).owner(&one).wait()?;
    let second = file.request(0..PAGE, Mode::Block).owner(&two).wait()?;
    crossed(&file, &file, (&one, first), (&two, second))?;

    println!("7. Crossed files: each writes to the one that the other's buffer maps");
    let first = file.request(0..PAGE, Mode::Block).owner(&one).wait()?;
    let second = other.request(0..PAGE, Mode::Block).owner(&two).wait()?;
    crossed(&other, &file, (&one, first), (&two, second))?;

    assert_eq!((file.snapshot().requests().len(), other.snapshot().requests().len()), (0, 0));
    println!("Nothing is held any more, and nobody was left waiting.");
    Ok(())
}

type Write<'a> = spanlock::Guard<&'a RangeLock, spanlock::ByOwner>;

/// The first write faults on page 0 of `first_map`, and waits; the second on page 0 of `second_map`, which closes the cycle.
fn crossed<'a>(
    first_map: &'a RangeLock,
    second_map: &'a RangeLock,
    (one, first): (&Owner, Write<'a>),
    (two, second): (&Owner, Write<'a>),
) -> Result<(), AcquireError> {
    let mut first_fault = pin!(first_map.request(0..PAGE, Mode::Add).owner(one).into_future());
    assert!(ask(first_fault.as_mut()).is_none(), "the second write blocks it");
    let answer = second_map.request(0..PAGE, Mode::Add).owner(two).wait();
    let Err(AcquireError::Deadlock(deadlock)) = answer else { panic!("{answer:?}") };
    println!("{}", indented(&deadlock.to_string()));

    // The remedy: let the block go, and ask for block and fault together. (A file system must drop the pages once more then: others had the range.)
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
