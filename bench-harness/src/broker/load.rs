//! The load on a broker: one thread that moves the bytes of all connections, and takes the times.
//!
//! Messages count in batches, as producers send them: a batch is due when its time has come (open loop) or when there is room for
//! it (closed loop), stored when its last message is acknowledged, and read when its last message has arrived at
//! the partition's follower. Both times are from when it was due. Invariants: at most `window` requests of a producer are in flight;
//! an open loop drops nothing and waits for nobody; nothing is recorded before the warm-up ended. Next: `trial`, which
//! makes figures of it; [`super::speak`] for what is said.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsFd as _;

use anyhow::{Context, Result, anyhow, bail, ensure};
use hdrhistogram::Histogram;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::speak::{Consumer, Producer, Speaking};
use crate::clock::{self, MILLISECOND_NS, SECOND_NS};

/// Read at a time.
const READ_BYTES: usize = 256 << 10;
/// A producer whose unsent bytes are more has no further request encoded.
const UNSENT_MAX_BYTES: usize = 1 << 20;
/// Longest sleep.
const NAP_NS: u64 = 100 * MILLISECOND_NS;
/// With nothing acknowledged and nothing read for so long, the trial has failed.
const SILENCE_NS: u64 = 30 * SECOND_NS;
/// Latencies are kept up to this.
const LATENCY_MAX_NS: u64 = 120 * SECOND_NS;

/// Bytes on their way over a connection.
struct Socket {
    stream: TcpStream,
    out: Vec<u8>,
    sent: usize,
}

impl Socket {
    fn new(stream: TcpStream) -> Result<Self> {
        stream.set_nonblocking(true).context("a socket that does not block")?;
        Ok(Self { stream, out: Vec::new(), sent: 0 })
    }

    const fn unsent(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Sends what can be; whether anything went.
    fn send(&mut self) -> Result<bool> {
        let before = self.sent;
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(len) => self.sent += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("send"),
            }
        }
        let went = self.sent > before;
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
        Ok(went)
    }

    /// Receives once: bytes into `buffer`, none when there are none now.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self.stream.read(buffer) {
            Ok(0) => bail!("closed by the server"),
            Ok(len) => Ok(len),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(0)
            }
            Err(error) => Err(error).context("receive"),
        }
    }

    fn interest(&self) -> PollFlags {
        if self.unsent() > 0 { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN }
    }
}

/// A batch that is not read, or not stored, yet.
#[derive(Clone, Copy)]
struct Pending {
    due_ns: u64,
    /// Messages of the partition up to its end.
    end: u64,
}

/// A partition: its producer, and who follows.
struct Lane {
    socket: Socket,
    producer: Box<dyn Producer>,
    follower: Option<Follower>,
    /// Batches that were due and have not been sent.
    waiting: VecDeque<u64>,
    /// Batches that were sent and are not acknowledged.
    in_flight: VecDeque<Pending>,
    sent_messages: u64,
}

struct Follower {
    socket: Socket,
    consumer: Box<dyn Consumer>,
    /// Batches that were sent and have not arrived here.
    awaited: VecDeque<Pending>,
}

/// What was counted since the warm-up ended, or since it began.
#[derive(Clone)]
pub(super) struct Tally {
    /// Messages acknowledged.
    pub(super) stored: u64,
    /// Messages that arrived at followers or readers.
    pub(super) read: u64,
    /// From when a batch was due to its acknowledgement.
    pub(super) storing: Histogram<u64>,
    /// From when a batch was due to its arrival at the follower.
    pub(super) reading: Histogram<u64>,
}

impl Tally {
    fn new() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1_000, LATENCY_MAX_NS, 3).expect("constant, valid bounds")
        };
        Self { stored: 0, read: 0, storing: histogram(), reading: histogram() }
    }
}

/// When batches are due.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// Whenever a producer has room.
    Closed,
    /// One after the other at this distance, producers in turn.
    Open {
        /// Nanoseconds from one batch to the next, over all producers.
        every_ns: f64,
    },
}

/// A load with its connections.
pub(super) struct Load {
    lanes: Vec<Lane>,
    readers: Vec<(Socket, Box<dyn Consumer>)>,
    window: usize,
    batch: u64,
    pace: Pace,
    /// Batches that were due so far, and since when.
    due: u64,
    begun_ns: u64,
    tally: Tally,
    buffer: Vec<u8>,
    progress_ns: u64,
}

impl Load {
    /// A load without connections, of `batch` messages a request.
    pub(super) fn new(batch: usize, window: usize, pace: Pace) -> Self {
        let now_ns = clock::mono_ns();
        Self {
            lanes: Vec::new(),
            readers: Vec::new(),
            window,
            batch: batch as u64,
            pace,
            due: 0,
            begun_ns: now_ns,
            tally: Tally::new(),
            buffer: vec![0; READ_BYTES],
            progress_ns: now_ns,
        }
    }

    /// Adds a partition that is stored to, and perhaps followed.
    pub(super) fn add_lane(
        &mut self,
        (stream, producer): Speaking<dyn Producer>,
        follower: Option<Speaking<dyn Consumer>>,
    ) -> Result<()> {
        let follower = match follower {
            Some((stream, mut consumer)) => {
                let mut socket = Socket::new(stream)?;
                consumer.begin(&mut socket.out);
                Some(Follower { socket, consumer, awaited: VecDeque::new() })
            }
            None => None,
        };
        self.lanes.push(Lane {
            socket: Socket::new(stream)?,
            producer,
            follower,
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            sent_messages: 0,
        });
        Ok(())
    }

    /// Adds someone who reads without anybody waiting for it.
    pub(super) fn add_reader(
        &mut self,
        (stream, mut consumer): Speaking<dyn Consumer>,
    ) -> Result<()> {
        let mut socket = Socket::new(stream)?;
        consumer.begin(&mut socket.out);
        self.readers.push((socket, consumer));
        Ok(())
    }

    /// Begins to count anew: the tally so far.
    pub(super) fn take_tally(&mut self) -> Tally {
        std::mem::replace(&mut self.tally, Tally::new())
    }

    /// Batches that were due and are not stored.
    pub(super) fn backlog(&self) -> usize {
        self.lanes.iter().map(|lane| lane.waiting.len() + lane.in_flight.len()).sum()
    }

    /// Messages that readers have.
    pub(super) fn delivered(&self) -> u64 {
        self.readers.iter().map(|(_, consumer)| consumer.delivered()).sum()
    }

    /// Runs until `deadline_ns`.
    ///
    /// # Errors
    /// The broker refuses, leaves, errs, or is silent.
    pub(super) fn run_until(&mut self, deadline_ns: u64) -> Result<()> {
        self.run(deadline_ns, true, |_| false)
    }

    /// Waits until all that was sent is acknowledged and followed, without sending more.
    pub(super) fn settle(&mut self, deadline_ns: u64) -> Result<()> {
        for lane in &mut self.lanes {
            lane.waiting.clear();
        }
        self.run(deadline_ns, false, |load| {
            let quiet = |follower: &Follower| follower.awaited.is_empty();
            load.lanes
                .iter()
                .all(|lane| lane.in_flight.is_empty() && lane.follower.as_ref().is_none_or(quiet))
        })
    }

    /// Runs until `messages` in all are stored.
    pub(super) fn store_all(&mut self, messages: u64, deadline_ns: u64) -> Result<()> {
        let stored = |load: &Self| -> u64 {
            load.lanes.iter().map(|lane| lane.producer.acknowledged()).sum()
        };
        self.run(deadline_ns, true, |load| stored(load) >= messages)?;
        ensure!(stored(self) >= messages, "{} of {messages} stored in time", stored(self));
        self.settle(deadline_ns)
    }

    /// Runs until readers have `messages` in all.
    pub(super) fn read_all(&mut self, messages: u64, deadline_ns: u64) -> Result<()> {
        self.run(deadline_ns, false, |load| load.delivered() >= messages)
    }

    fn run(&mut self, deadline_ns: u64, sending: bool, done: impl Fn(&Self) -> bool) -> Result<()> {
        self.progress_ns = clock::mono_ns();
        loop {
            let now_ns = clock::mono_ns();
            if now_ns >= deadline_ns || done(self) {
                return Ok(());
            }
            let silent = sending || self.backlog() > 0 || !self.readers.is_empty();
            if silent && now_ns - self.progress_ns > SILENCE_NS {
                bail!("nothing stored and nothing read for {} s", SILENCE_NS / SECOND_NS);
            }
            let next_ns = if sending { self.arrive(now_ns) } else { None };
            let moved = self.move_bytes(sending)?;
            if !moved {
                let until_ns = next_ns.unwrap_or(u64::MAX).min(deadline_ns);
                self.sleep(until_ns.saturating_sub(clock::mono_ns()).min(NAP_NS))?;
            }
        }
    }

    /// Makes due what is due at `now_ns`; when the next batch will be.
    fn arrive(&mut self, now_ns: u64) -> Option<u64> {
        let Pace::Open { every_ns } = self.pace else { return None };
        if self.due == 0 {
            self.begun_ns = now_ns;
        }
        loop {
            let due_ns = self.begun_ns + (self.due as f64 * every_ns) as u64;
            if due_ns > now_ns {
                return Some(due_ns);
            }
            let lane = usize::try_from(self.due % self.lanes.len() as u64).unwrap_or(0);
            self.lanes[lane].waiting.push_back(due_ns);
            self.due += 1;
        }
    }

    /// One look at every connection; whether anything moved.
    fn move_bytes(&mut self, sending: bool) -> Result<bool> {
        let Self { lanes, readers, window, batch, pace, tally, buffer, .. } = self;
        let closed = sending && matches!(pace, Pace::Closed);
        let mut moved = false;
        let mut progress = false;
        for lane in lanes.iter_mut() {
            if closed {
                let now_ns = clock::mono_ns();
                let room = window.saturating_sub(lane.in_flight.len());
                lane.waiting.resize(room, now_ns);
            }
            lane.send_due(*window, *batch);
            moved |= lane.socket.send()?;
            progress |= lane.receive(buffer, tally)?;
        }
        for (socket, consumer) in readers.iter_mut() {
            let before = consumer.delivered();
            let received = socket.receive(buffer)?;
            if received > 0 {
                consumer.on_bytes(&buffer[..received], &mut socket.out)?;
                tally.read += consumer.delivered() - before;
                progress = true;
            }
            moved |= socket.send()?;
        }
        if progress {
            self.progress_ns = clock::mono_ns();
        }
        Ok(moved | progress)
    }

    fn sleep(&self, timeout_ns: u64) -> Result<()> {
        let lanes = self.lanes.iter().flat_map(|lane| {
            [Some(&lane.socket), lane.follower.as_ref().map(|follower| &follower.socket)]
        });
        let readers = self.readers.iter().map(|(socket, _)| Some(socket));
        let mut fds: Vec<PollFd<'_>> = lanes
            .chain(readers)
            .flatten()
            .map(|socket| PollFd::from_borrowed_fd(socket.stream.as_fd(), socket.interest()))
            .collect();
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout_ns / SECOND_NS)?,
            tv_nsec: i64::try_from(timeout_ns % SECOND_NS)?,
        };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(anyhow!("poll: {errno}")),
        }
    }
}

impl Lane {
    /// Encodes what is due, as far as there is room.
    fn send_due(&mut self, window: usize, batch: u64) {
        while self.in_flight.len() < window
            && self.socket.unsent() < UNSENT_MAX_BYTES
            && let Some(due_ns) = self.waiting.pop_front()
        {
            self.producer.request(&mut self.socket.out);
            self.sent_messages += batch;
            let pending = Pending { due_ns, end: self.sent_messages };
            self.in_flight.push_back(pending);
            if let Some(follower) = &mut self.follower {
                follower.awaited.push_back(pending);
            }
        }
    }

    /// Takes what has arrived at both ends; whether anything has.
    fn receive(&mut self, buffer: &mut [u8], tally: &mut Tally) -> Result<bool> {
        let received = self.socket.receive(buffer)?;
        if received > 0 {
            let before = self.producer.acknowledged();
            self.producer.on_bytes(&buffer[..received], &mut self.socket.out)?;
            let after = self.producer.acknowledged();
            tally.stored += after - before;
            record(&mut self.in_flight, after, &mut tally.storing);
        }
        let Some(follower) = &mut self.follower else { return Ok(received > 0) };
        follower.socket.send()?;
        let followed = follower.socket.receive(buffer)?;
        if followed > 0 {
            let before = follower.consumer.delivered();
            follower.consumer.on_bytes(&buffer[..followed], &mut follower.socket.out)?;
            let after = follower.consumer.delivered();
            tally.read += after - before;
            record(&mut follower.awaited, after, &mut tally.reading);
            follower.socket.send()?;
        }
        Ok(received > 0 || followed > 0)
    }
}

/// Ends all batches up to `count` messages now.
fn record(pending: &mut VecDeque<Pending>, count: u64, into: &mut Histogram<u64>) {
    let now_ns = clock::mono_ns();
    while let Some(first) = pending.front()
        && first.end <= count
    {
        into.saturating_record(now_ns.saturating_sub(first.due_ns));
        pending.pop_front();
    }
}

#[cfg(test)]
mod tests;
