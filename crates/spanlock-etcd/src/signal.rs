//! A value that tasks wait for changes of. They are woken in the order in which they came, unlike those of
//! `tokio::sync::watch`, so that a schedule can be played again.

use std::sync::Mutex;
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(crate) struct Signal<T> {
    value: Mutex<T>,
    changes: Notify,
}

impl<T: Copy> Signal<T> {
    pub(crate) fn new(value: T) -> Signal<T> {
        Signal { value: Mutex::new(value), changes: Notify::new() }
    }

    pub(crate) fn get(&self) -> T {
        *self.value.lock().expect("nothing panics in there")
    }

    /// Changes the value, and wakes whoever waits.
    pub(crate) fn modify(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.value.lock().expect("nothing panics in there"));
        self.changes.notify_waiters();
    }

    /// Ends once the value is as is wanted.
    pub(crate) async fn wait_until(&self, is_wanted: impl Fn(T) -> bool) {
        loop {
            // First in the list, then a look: no change is missed.
            let changed = self.changes.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if is_wanted(self.get()) {
                return;
            }
            changed.await;
        }
    }
}
