//! Publishers and subscribers as a state machine: who sends what when, what each subscriber got of it, and the books.
//!
//! Connections are numbered: publishers first, then the subscribers of one channel after those of the other. A publisher goes
//! round the channels. Open loop: messages are due by the clock, whatever became of those before. Closed loop: a
//! publisher has so many messages on their way, and sends the next when one has reached all its subscribers.
//! Invariants: latency runs from the intended time; each message that arrives is compared byte by byte, and its
//! number with what was sent; a publisher queues at most [`DUE_MAX`] messages, and what is due beyond is missed.
//! Next: `trial` drives it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;

use hdrhistogram::Histogram;
use view::Output;

use super::account::{Seen, Sequence};
use super::message::{Head, Messages};
use super::wire::{self, Decoder, PONG, Said};
use super::{Pace, Plan};
use crate::load::Arrivals;
use crate::load::arrivals::Times;
use crate::load::driven::Driven;
use crate::load::tally::histogram;
use crate::rng::Rng;

/// Messages of one publisher that are due and have not left, in open loop.
pub const DUE_MAX: usize = 1024;
/// A batch is closed when it has this much.
const BATCH_BYTES: usize = 128 << 10;
/// What a server may be owed beside messages.
const CONTROL_MAX_BYTES: usize = 64 << 10;

/// What happened since the last look.
#[derive(Clone, Debug)]
pub struct Books {
    /// Messages handed to the transport.
    pub published: u64,
    /// Messages that reached a subscriber, but for duplicates.
    pub deliveries: u64,
    /// Open loop: messages that were due.
    pub offered: u64,
    /// Open loop: those of them that found their publisher's queue full.
    pub missed: u64,
    /// Open loop: how late a message was queued.
    pub lag: Histogram<u64>,
}

impl Books {
    fn new() -> Self {
        Self { published: 0, deliveries: 0, offered: 0, missed: 0, lag: histogram() }
    }
}

/// What went wrong with messages, over the whole of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Never came; of those that were sent, for each subscriber.
    pub lost: u64,
    /// Came again.
    pub duplicated: u64,
    /// Came after one that was sent later.
    pub reordered: u64,
    /// Were not what was sent.
    pub wrong: u64,
}

impl Faults {
    /// Whether there are any.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

#[derive(Debug)]
struct Link {
    decoder: Option<Decoder>,
    control: Vec<u8>,
    ready: bool,
    sending: bool,
    listed: bool,
    dead: bool,
}

#[derive(Debug)]
struct Publisher {
    /// Intended times of messages that have not left.
    due: VecDeque<u64>,
    /// Where the next one goes.
    channel: usize,
    /// Messages sent, for each channel.
    sent: Vec<u64>,
    /// Closed loop: deliveries still to come of what is queued or sent.
    owed: u64,
}

#[derive(Debug)]
struct Subscriber {
    channel: usize,
    /// What was seen of each publisher.
    seen: Vec<Sequence>,
}

/// All connections of one run.
#[derive(Debug)]
pub struct Crowd {
    plan: Plan,
    addr: SocketAddr,
    messages: Messages,
    /// What stands before a message, for each channel.
    heads: Vec<Vec<u8>>,
    links: Vec<Link>,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    /// Connections that may have something to send.
    listed: VecDeque<usize>,
    times: Times,
    rng: Rng,
    turn: usize,
    running: bool,
    books: Books,
    /// Whose latencies are recorded, by their intended time.
    window_ns: Range<u64>,
    /// From the intended time to a subscriber, for each of them.
    latency: Histogram<u64>,
    faults: Faults,
    first_wrong: Option<String>,
    broken: Option<String>,
}

impl Crowd {
    /// The crowd of `plan`, all of it at `addr`.
    #[must_use]
    pub fn new(plan: &Plan, addr: SocketAddr) -> Self {
        let messages = Messages::new(plan.message_len_bytes);
        let protocol = plan.protocol;
        let link = |decoder, control| Link {
            decoder: Some(decoder),
            control,
            ready: false,
            sending: false,
            listed: true,
            dead: false,
        };
        let of_publisher =
            || link(Decoder::publisher(protocol, &messages), protocol.greet_publisher());
        let mut links: Vec<Link> = (0..plan.publishers).map(|_| of_publisher()).collect();
        let mut subscribers = Vec::with_capacity(plan.channels * plan.subscribers);
        for channel in 0..plan.channels {
            for _ in 0..plan.subscribers {
                let decoder = Decoder::subscriber(protocol, channel, &messages);
                links.push(link(decoder, protocol.greet_subscriber(channel)));
                let seen = vec![Sequence::default(); plan.publishers];
                subscribers.push(Subscriber { channel, seen });
            }
        }
        let publishers = (0..plan.publishers).map(|index| Publisher {
            due: VecDeque::new(),
            channel: index % plan.channels,
            sent: vec![0; plan.channels],
            owed: 0,
        });
        let arrivals = match plan.pace {
            Pace::Open { rate, poisson } => Arrivals::Open { rate, poisson },
            Pace::Closed { depth } => Arrivals::Closed { pipeline: depth },
        };
        Self {
            addr,
            heads: (0..plan.channels).map(|at| protocol.publish_head(at, &messages)).collect(),
            listed: (0..links.len()).collect(),
            links,
            publishers: publishers.collect(),
            subscribers,
            messages,
            times: Times::new(&arrivals),
            rng: Rng::new(plan.seed),
            turn: 0,
            running: false,
            books: Books::new(),
            window_ns: 0..0,
            latency: histogram(),
            faults: Faults::default(),
            first_wrong: None,
            broken: None,
            plan: *plan,
        }
    }

    /// Whether every connection was greeted, and every subscription confirmed.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.links.iter().all(|link| link.ready)
    }

    /// Begins to publish.
    pub fn start(&mut self, now_ns: u64) {
        self.running = true;
        self.times.start(now_ns, &mut self.rng);
        if let Pace::Closed { .. } = self.plan.pace {
            for publisher in 0..self.publishers.len() {
                self.refill(publisher, now_ns);
            }
        }
    }

    /// No new messages; those that are due still leave.
    pub const fn stop(&mut self) {
        self.running = false;
    }

    /// Whether all that is due has left, and reached everybody.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.publishers.iter().all(|publisher| publisher.due.is_empty()) && self.lost() == 0
    }

    /// The books since the last call, which begins new ones.
    pub fn take_books(&mut self) -> Books {
        std::mem::replace(&mut self.books, Books::new())
    }

    /// Records latencies of messages that were meant to leave in this time, whenever they come: those that are late
    /// at its end are the ones that matter.
    pub const fn record(&mut self, window_ns: Range<u64>) {
        self.window_ns = window_ns;
    }

    /// The latencies recorded.
    #[must_use]
    pub const fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }

    fn lost(&self) -> u64 {
        let of = |subscriber: &Subscriber| -> u64 {
            let pairs = subscriber.seen.iter().zip(&self.publishers);
            pairs.map(|(seen, by)| seen.lost(by.sent[subscriber.channel])).sum()
        };
        self.subscribers.iter().map(of).sum()
    }

    /// What went wrong so far; what is still on its way counts as lost.
    #[must_use]
    pub fn faults(&self) -> Faults {
        Faults { lost: self.lost(), ..self.faults }
    }

    /// The first message that was not what was sent.
    #[must_use]
    pub fn first_wrong(&self) -> Option<&str> {
        self.first_wrong.as_deref()
    }

    fn list(&mut self, conn: usize) {
        let link = &mut self.links[conn];
        if !link.listed && !link.sending && !link.dead {
            link.listed = true;
            self.listed.push_back(conn);
        }
    }

    /// Closed loop: queues messages while fewer than the depth are on their way.
    fn refill(&mut self, index: usize, now_ns: u64) {
        let Pace::Closed { depth } = self.plan.pace else { return };
        let each = self.plan.subscribers as u64;
        let publisher = &mut self.publishers[index];
        let full = u64::from(depth) * each;
        if !self.running || publisher.owed + each > full {
            return;
        }
        while publisher.owed + each <= full {
            publisher.owed += each;
            publisher.due.push_back(now_ns);
        }
        self.list(index);
    }

    /// What the server said on `conn`.
    fn on_said(&mut self, conn: usize, said: Said<'_>, now_ns: u64) {
        match said {
            Said::Ready => self.links[conn].ready = true,
            Said::Ping => self.links[conn].control.extend_from_slice(PONG),
            Said::Taken => {}
            Said::Message(bytes) => self.on_message(conn - self.publishers.len(), bytes, now_ns),
        }
    }

    fn on_message(&mut self, at: usize, bytes: &[u8], now_ns: u64) {
        let head = self.messages.read(bytes);
        let subscriber = &mut self.subscribers[at];
        let known = head.and_then(|head| {
            let from = head.publisher as usize;
            let sent = *self.publishers.get(from)?.sent.get(head.channel as usize)?;
            let here = head.channel as usize == subscriber.channel && head.number < sent;
            here.then_some((from, head))
        });
        let Some((from, head)) = known else {
            self.faults.wrong += 1;
            self.first_wrong.get_or_insert_with(|| match head {
                Some(head) => format!("channel {}: {head:?}", subscriber.channel),
                None => format!("channel {}: other bytes than were sent", subscriber.channel),
            });
            return;
        };
        match subscriber.seen[from].see(head.number) {
            Seen::New => {}
            Seen::Late => self.faults.reordered += 1,
            Seen::Twice => {
                self.faults.duplicated += 1;
                return;
            }
        }
        self.books.deliveries += 1;
        if self.window_ns.contains(&head.intended_ns) {
            let latency_ns = now_ns.saturating_sub(head.intended_ns).max(1);
            self.latency.saturating_record(latency_ns);
        }
        if let Pace::Closed { .. } = self.plan.pace {
            let publisher = &mut self.publishers[from];
            publisher.owed = publisher.owed.saturating_sub(1);
            self.refill(from, now_ns);
        }
    }
}

impl Driven for Crowd {
    fn addresses(&self) -> Vec<SocketAddr> {
        vec![self.addr; self.links.len()]
    }

    fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    fn arrive(&mut self, now_ns: u64) -> Option<u64> {
        if !self.running {
            return None;
        }
        let random = self.times.are_random();
        while let Some(next_ns) = self.times.next_ns()
            && next_ns <= now_ns as f64
        {
            let intended_ns = next_ns as u64;
            self.times.advance(&mut self.rng);
            let count = self.publishers.len();
            self.turn = match random {
                true => usize::try_from(self.rng.below(count as u64)).unwrap_or(0),
                false => (self.turn + 1) % count,
            };
            self.books.offered += 1;
            let publisher = &mut self.publishers[self.turn];
            if publisher.due.len() >= DUE_MAX {
                self.books.missed += 1;
                continue;
            }
            publisher.due.push_back(intended_ns);
            self.books.lag.saturating_record(now_ns.saturating_sub(intended_ns).max(1));
            self.list(self.turn);
        }
        Some(self.times.next_ns()?.ceil() as u64)
    }

    fn next(&mut self, out: &mut Output) -> Option<usize> {
        while let Some(conn) = self.listed.pop_front() {
            let link = &mut self.links[conn];
            link.listed = false;
            if link.dead || link.sending {
                continue;
            }
            let to = out.inline_mut();
            to.append(&mut link.control);
            if let Some(publisher) = self.publishers.get_mut(conn) {
                while to.len() < BATCH_BYTES
                    && let Some(intended_ns) = publisher.due.pop_front()
                {
                    let channel = publisher.channel;
                    publisher.channel = (channel + 1) % self.heads.len();
                    let head = Head {
                        publisher: u32::try_from(conn).unwrap_or(u32::MAX),
                        channel: u32::try_from(channel).unwrap_or(u32::MAX),
                        number: publisher.sent[channel],
                        intended_ns,
                    };
                    publisher.sent[channel] += 1;
                    self.books.published += 1;
                    wire::publish(&self.heads[channel], head, &self.messages, to);
                }
            }
            if !to.is_empty() {
                link.sending = true;
                return Some(conn);
            }
        }
        None
    }

    fn on_sent(&mut self, conn: usize) {
        self.links[conn].sending = false;
        let has_due = self.publishers.get(conn).is_some_and(|by| !by.due.is_empty());
        if has_due || !self.links[conn].control.is_empty() {
            self.list(conn);
        }
    }

    fn on_bytes(&mut self, conn: usize, bytes: &[u8], now_ns: u64) {
        // Taken out, so that what it says can be told to all of us.
        let Some(mut decoder) = self.links[conn].decoder.take() else { return };
        let fed = decoder.feed(bytes, |said| self.on_said(conn, said, now_ns));
        let link = &mut self.links[conn];
        link.decoder = Some(decoder);
        let owed = link.control.len();
        match fed {
            Err(why) => self.break_off(conn, why),
            Ok(()) if owed > CONTROL_MAX_BYTES => {
                self.break_off(conn, "asks and does not read the answers".to_owned());
            }
            Ok(()) if owed > 0 => self.list(conn),
            Ok(()) => {}
        }
    }

    fn break_off(&mut self, conn: usize, why: String) {
        self.links[conn].dead = true;
        let publishers = self.publishers.len();
        let who = match conn.checked_sub(publishers) {
            None => format!("publisher {conn}"),
            Some(at) => format!(
                "subscriber {} of channel {}",
                at % self.plan.subscribers,
                at / self.plan.subscribers
            ),
        };
        self.broken.get_or_insert_with(|| format!("{who}: {why}"));
    }
}
