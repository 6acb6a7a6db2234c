//! Waiting for the first of several partitions to have more.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Poll, Waker};

/// One waiting request, known to every partition it asks for.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    woken: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Watch {
    /// There is more; also when nobody waits yet.
    pub(crate) fn wake(&self) {
        self.woken.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Waits for a wake-up, and no longer than `limit`. Whether there was one.
    pub(crate) async fn wait(&self, limit: impl Future<Output = ()>) -> bool {
        let mut limit = pin!(limit);
        poll_fn(|task| {
            if self.woken.replace(false) {
                return Poll::Ready(true);
            }
            *self.waker.borrow_mut() = Some(task.waker().clone());
            limit.as_mut().poll(task).map(|()| false)
        })
        .await
    }
}
