//! What only shows from inside of a doorway.

use super::*;
use crate::owner::Asker;
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

/// Notes who holds when it is called.
struct Look {
    space: &'static Space,
    holders: Mutex<Vec<usize>>,
}

impl Wake for Look {
    fn wake(self: Arc<Self>) {
        self.holders.lock().unwrap().push(count(&self.space.tree).0);
    }
}

#[test]
fn a_refused_batch_has_left_with_all_parts_before_a_waker_is_called() {
    let space: &'static Space = Box::leak(Box::new(Space::new(None)));
    let (holder, refused, behind) = (Owner::new(), Owner::new(), Owner::new());
    let ask = |range, asker: &Asker| Ask::new(range, Mode::Exclusive, asker);
    let (first, second) = (ByteRange::new(0..1), ByteRange::new(8..9));

    let asker = holder.enter();
    // SAFETY: the space is there for good, here and below.
    let held = unsafe { acquire(space, &ask(second, &asker), asker.visitor, Some(&holder)) }.unwrap();
    let asker = refused.enter();
    let asks = [(space, ask(first, &asker)), (space, ask(second, &asker))];
    // SAFETY: as above.
    let Err(parts) = (unsafe { publish_and_look_batch(&asks, asker.visitor) }) else { panic!("the second is held") };

    // Meanwhile somebody takes the first part for a holder.
    let look = Arc::new(Look { space, holders: Mutex::default() });
    let asker = behind.enter();
    // SAFETY: as above.
    let doorway = unsafe { enter(space, &ask(first, &asker), asker.visitor, Some(&behind)) };
    let Doorway::Queued(mut waiter) = doorway else { panic!("the first part is in its way") };
    let waker = Waker::from(look.clone());
    assert!(waiter.poll(&mut Context::from_waker(&waker)).is_pending());

    refuse(parts.into_iter().map(|part| part.live));
    assert_eq!(*look.holders.lock().unwrap(), [1], "one call, when nobody but the holder is there");
    drop((waiter, held));
}
