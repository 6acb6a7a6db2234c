//! Questions and answers between shards, over a mesh.
//!
//! Invariants: an answer goes to whoever asked, once; questions are bounded by the mesh's credits
//! (an asker waits when a ring is full), and answers by the questions outstanding, so nothing here
//! grows without bound. Next: `mesh` for the rings, `Server::on_turn` for who polls.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use super::ShardCx;
use super::mesh::{Port, mesh};
use crate::exec::sync::{Notify, Receiver, Sender, once};

/// What travels.
#[derive(Debug)]
pub enum Message<Q, A> {
    /// A question, with the asker's mark.
    Ask(u32, Q),
    /// The answer to it.
    Answer(u32, A),
}

/// Whom to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    shard: usize,
    mark: u32,
}

/// One shard's end before it is on its thread.
pub type CallsPort<Q, A> = Port<Message<Q, A>>;

/// Makes the ends for `shards` shards; each ordered pair has room for `capacity` messages.
#[must_use]
pub fn ports<Q: Send, A: Send>(shards: usize, capacity: usize) -> Vec<CallsPort<Q, A>> {
    mesh(shards, capacity)
}

/// One shard's end.
pub struct Calls<Q, A> {
    cx: ShardCx,
    port: RefCell<CallsPort<Q, A>>,
    waiting: RefCell<Waiting<A>>,
    /// Answers that found their ring full.
    held: RefCell<VecDeque<(Asker, A)>>,
    room: Notify,
    /// Tasks that wait for it.
    waits_for_room: Cell<usize>,
    inbox: RefCell<Vec<(usize, Message<Q, A>)>>,
}

/// Counts a task that waits for room, also when it is dropped meanwhile.
struct Waits<'a>(&'a Cell<usize>);

impl<'a> Waits<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

struct Waiting<A> {
    slots: Vec<Option<Waiter<A>>>,
    free: Vec<u32>,
}

/// Who waits for an answer.
enum Waiter<A> {
    Task(Sender<A>),
    /// Whoever handed this to [`Calls::try_ask`].
    Token(u64),
}

impl<Q, A> fmt::Debug for Calls<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Calls({:?})", self.cx)
    }
}

/// Messages taken per poll.
const POLL_MAX: usize = 256;

impl<Q: Send + 'static, A: Send + 'static> Calls<Q, A> {
    /// Puts an end on its shard.
    #[must_use]
    pub fn new(cx: &ShardCx, port: CallsPort<Q, A>) -> Rc<Self> {
        Rc::new(Self {
            cx: cx.clone(),
            port: RefCell::new(port),
            waiting: RefCell::new(Waiting { slots: Vec::new(), free: Vec::new() }),
            held: RefCell::default(),
            room: Notify::default(),
            waits_for_room: Cell::new(0),
            inbox: RefCell::default(),
        })
    }

    /// Both clocks, as read at the start of the turn.
    #[must_use]
    pub fn now(&self) -> view::Instant {
        self.cx.now()
    }

    /// Asks shard `to`, which is not this one. The question leaves at the end of the turn.
    pub async fn ask(&self, to: usize, question: Q) -> Option<A> {
        self.start(to, question).await.recv().await
    }

    /// Asks without waiting for the answer yet.
    pub async fn start(&self, to: usize, question: Q) -> Receiver<A> {
        let (sender, receiver) = once();
        let mark = self.waiting.borrow_mut().insert(Waiter::Task(sender));
        let mut message = Message::Ask(mark, question);
        loop {
            let sent = self.port.borrow_mut().try_send(to, message);
            match sent {
                Ok(()) => return receiver,
                Err(refused) => message = refused,
            }
            let _waits = Waits::new(&self.waits_for_room);
            self.room.notified().await;
        }
    }

    /// Whether shard `to` takes a question now, and nobody waits to send something.
    #[must_use]
    pub fn has_room(&self, to: usize) -> bool {
        let waits = !self.held.borrow().is_empty() || self.waits_for_room.get() > 0;
        !waits && self.port.borrow_mut().credits(to) > 0
    }

    /// Whether somebody waits for room to ask something.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.waits_for_room.get() > 0
    }

    /// Asks without a task: [`Calls::turn`] gives the answer, with `token`.
    ///
    /// # Errors
    /// Gives the question back when shard `to` is behind.
    pub fn try_ask(&self, to: usize, question: Q, token: u64) -> Result<(), Q> {
        let mark = self.waiting.borrow_mut().insert(Waiter::Token(token));
        match self.port.borrow_mut().try_send(to, Message::Ask(mark, question)) {
            Err(Message::Ask(mark, question)) => {
                self.waiting.borrow_mut().remove(mark);
                Err(question)
            }
            _ => Ok(()),
        }
    }

    /// Answers a question.
    pub fn answer(&self, asker: Asker, answer: A) {
        if self.held.borrow().is_empty() {
            let message = Message::Answer(asker.mark, answer);
            let sent = self.port.borrow_mut().try_send(asker.shard, message);
            if let Err(Message::Answer(_, answer)) = sent {
                self.held.borrow_mut().push_back((asker, answer));
            }
        } else {
            self.held.borrow_mut().push_back((asker, answer));
        }
    }

    /// Once per turn: takes what arrived, hands questions to `serve` and answers to `answered` with
    /// their tokens, and sends what this turn produced so far. Returns whether more waits.
    pub fn turn(&self, mut serve: impl FnMut(Asker, Q), mut answered: impl FnMut(u64, A)) -> bool {
        let mut inbox = std::mem::take(&mut *self.inbox.borrow_mut());
        let taken = {
            let mut port = self.port.borrow_mut();
            port.poll(POLL_MAX, |from, message| inbox.push((from, message)))
        };
        // Before new questions can take the room.
        self.send_held();
        for (shard, message) in inbox.drain(..) {
            match message {
                Message::Ask(mark, question) => serve(Asker { shard, mark }, question),
                Message::Answer(mark, answer) => {
                    let waiter = self.waiting.borrow_mut().remove(mark);
                    match waiter {
                        Some(Waiter::Task(sender)) => sender.send(answer),
                        Some(Waiter::Token(token)) => answered(token, answer),
                        None => {}
                    }
                }
            }
        }
        *self.inbox.borrow_mut() = inbox;
        self.send_held();
        self.room.notify_all();
        self.flush();
        taken == POLL_MAX
    }

    fn send_held(&self) {
        loop {
            let Some((asker, answer)) = self.held.borrow_mut().pop_front() else { return };
            let message = Message::Answer(asker.mark, answer);
            let sent = self.port.borrow_mut().try_send(asker.shard, message);
            if let Err(Message::Answer(_, answer)) = sent {
                self.held.borrow_mut().push_front((asker, answer));
                return;
            }
        }
    }

    /// Publishes what was sent and rings the bells of sleeping shards.
    pub fn flush(&self) {
        let mut port = self.port.borrow_mut();
        for &shard in port.flush() {
            self.cx.driver().ring_bell(shard);
        }
    }

    /// As `Handler::park`.
    pub fn park(&self) -> bool {
        let held = self.held.borrow().front().map(|(asker, _)| asker.shard);
        if held.is_some_and(|to| self.port.borrow_mut().credits(to) > 0) {
            return false;
        }
        self.port.borrow_mut().park()
    }

    /// As `Handler::unpark`.
    pub fn unpark(&self) {
        self.port.borrow_mut().unpark();
    }

    /// Whether messages wait.
    pub fn has_messages(&self) -> bool {
        self.port.borrow_mut().has_incoming()
    }
}

impl<A> Waiting<A> {
    fn insert(&mut self, waiter: Waiter<A>) -> u32 {
        if let Some(mark) = self.free.pop() {
            self.slots[mark as usize] = Some(waiter);
            return mark;
        }
        self.slots.push(Some(waiter));
        u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 questions outstanding")
    }

    fn remove(&mut self, mark: u32) -> Option<Waiter<A>> {
        let waiter = self.slots.get_mut(mark as usize)?.take()?;
        self.free.push(mark);
        Some(waiter)
    }
}
