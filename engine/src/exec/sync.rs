//! Waiting between tasks of one shard: a value sent once, a condition signalled to all, a limit in
//! time.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

/// Tasks wait until somebody says that something changed. Not a counter: a notification with
/// nobody waiting is lost, so check the condition before waiting.
#[derive(Debug, Default)]
pub struct Notify {
    state: RefCell<NotifyState>,
}

#[derive(Debug, Default)]
struct NotifyState {
    round: u64,
    waiting: Vec<Waker>,
}

impl Notify {
    /// Waits for the next [`Notify::notify_all`].
    pub fn notified(&self) -> impl Future<Output = ()> + '_ {
        let round = self.state.borrow().round;
        poll_fn(move |cx| {
            let mut state = self.state.borrow_mut();
            if state.round != round {
                return Poll::Ready(());
            }
            if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
    }

    /// Wakes everyone who waits now.
    pub fn notify_all(&self) {
        let waiting = {
            let mut state = self.state.borrow_mut();
            state.round += 1;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// A queue of tasks for something that one may do at a time, in the order in which they lined up. A task that goes
/// away, before its turn or in it, holds up nobody.
#[derive(Debug, Default)]
pub struct Turns {
    waiting: RefCell<BTreeSet<u64>>,
    next: Cell<u64>,
    left: Notify,
}

/// A place in [`Turns`], given up on drop.
#[derive(Debug)]
pub struct Turn<'a> {
    turns: &'a Turns,
    ticket: u64,
}

impl Turns {
    /// Lines up; the turn lasts until what is returned is dropped.
    pub async fn turn(&self) -> Turn<'_> {
        let ticket = self.next.replace(self.next.get() + 1);
        self.waiting.borrow_mut().insert(ticket);
        let turn = Turn { turns: self, ticket };
        loop {
            let left = self.left.notified();
            if self.waiting.borrow().first() == Some(&ticket) {
                break;
            }
            left.await;
        }
        turn
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.waiting.borrow_mut().remove(&self.ticket);
        self.turns.left.notify_all();
    }
}

/// Lets the shard's other work go first.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|task| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        task.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What `first` gives, unless `limit` ends before it.
pub async fn within<T>(
    first: impl Future<Output = T>,
    limit: impl Future<Output = ()>,
) -> Option<T> {
    let (mut first, mut limit) = (pin!(first), pin!(limit));
    poll_fn(move |cx| match first.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => limit.as_mut().poll(cx).map(|()| None),
    })
    .await
}

#[derive(Debug)]
struct OnceState<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

/// The sending half of a value that is sent once.
#[derive(Debug)]
pub struct Sender<T>(Weak<RefCell<OnceState<T>>>);

/// The receiving half; awaiting it gives `None` when the sender was dropped.
#[derive(Debug)]
pub struct Receiver<T>(Rc<RefCell<OnceState<T>>>);

/// A channel for one value.
#[must_use]
pub fn once<T>() -> (Sender<T>, Receiver<T>) {
    let state = Rc::new(RefCell::new(OnceState { value: None, waker: None }));
    (Sender(Rc::downgrade(&state)), Receiver(state))
}

impl<T> Sender<T> {
    /// Sends the value; nobody may be waiting any more, which is fine.
    pub fn send(self, value: T) {
        if let Some(state) = self.0.upgrade() {
            state.borrow_mut().value = Some(value);
        }
        // The drop wakes the receiver.
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waker = self.0.upgrade().and_then(|state| state.borrow_mut().waker.take());
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Receiver<T> {
    /// The value, once sent; `None` when it never will be.
    pub async fn recv(self) -> Option<T> {
        poll_fn(|cx| {
            let mut state = self.0.borrow_mut();
            if let Some(value) = state.value.take() {
                return Poll::Ready(Some(value));
            }
            if Rc::weak_count(&self.0) == 0 {
                return Poll::Ready(None);
            }
            state.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}
