//! Row 4e: messages between two shards. Batched: both poll, how many a second. Paced: the receiver
//! sleeps between messages and is woken by the ring's doorbell, or by an eventfd that a read waits
//! on, as other runtimes do; its CPU per message.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use engine::buf::DirectBuf;
use engine::driver::{Completion, Op};
use engine::shard::launch::launch;
use engine::shard::mesh::{Port, mesh};
use engine::shard::{Handler, ShardCx};

use super::{Options, shard};
use crate::clock;
use crate::figures::{Contender, Figures, Report, alternate};

const CAPACITY: usize = 16_384;
/// Messages per turn.
const BATCH: usize = 4096;
/// Between two messages when paced: 20,000 a second.
const PACE_NS: u64 = 50_000;

pub(super) fn run(options: &Options, report: &mut Report) {
    let contenders: [Contender<'_>; 1] = [("ours", Box::new(|| trial(options, Mode::Batched)))];
    let mut cell = alternate(
        "4e messages between two shards, batched",
        options.rounds,
        &contenders,
        &mut report.skipped,
    );
    cell.limit("million_per_s", true, 50.0);
    report.cells.push(cell);
    let contenders: [Contender<'_>; 2] = [
        ("ours (doorbell)", Box::new(|| trial(options, Mode::Doorbell))),
        ("eventfd", Box::new(|| trial(options, Mode::Eventfd))),
    ];
    let name = "4e waking a sleeping shard, 20,000 messages a second";
    let mut cell = alternate(name, options.rounds, &contenders, &mut report.skipped);
    cell.claim("receiver_us_per_message", 1, 0.5);
    report.cells.push(cell);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Batched,
    Doorbell,
    Eventfd,
}

struct Traffic {
    cx: ShardCx,
    port: RefCell<Port<u64>>,
    mode: Mode,
    is_sender: bool,
    next_ns: Cell<u64>,
    received: Cell<u64>,
    start: Cell<(u64, u64)>,
    end_ns: u64,
    eventfd: Option<Arc<OwnedFd>>,
    report: RefCell<Option<mpsc::Sender<Figures>>>,
    stopped: Cell<bool>,
}

impl Traffic {
    fn send(&self, now_ns: u64) {
        let mut port = self.port.borrow_mut();
        if self.mode == Mode::Batched {
            for _ in 0..BATCH {
                if port.try_send(1, now_ns).is_err() {
                    break;
                }
            }
        } else if now_ns >= self.next_ns.get() {
            self.next_ns.set((self.next_ns.get() + PACE_NS).max(now_ns));
            // A full ring means the receiver is far behind: then this message is not sent.
            let _ = port.try_send(1, now_ns);
        }
        for &shard in port.flush() {
            match &self.eventfd {
                Some(eventfd) => {
                    // A full counter wakes just as well.
                    let _ = rustix::io::write(eventfd, &1_u64.to_ne_bytes());
                }
                None => self.cx.driver().ring_bell(shard),
            }
        }
    }

    fn receive(&self, now_ns: u64) -> bool {
        let mut port = self.port.borrow_mut();
        let count = port.poll(BATCH, |_, sent_ns| {
            std::hint::black_box(sent_ns);
        });
        // Gives the slots back; the sender never sleeps.
        let _ = port.flush();
        if count > 0 && self.start.get().0 == 0 {
            self.start.set((now_ns, clock::thread_cpu_ns()));
            self.received.set(0);
        }
        self.received.set(self.received.get() + count as u64);
        count > 0
    }

    fn finish(&self, now_ns: u64) {
        let Some(report) = self.report.borrow_mut().take() else { return };
        let (start_ns, start_cpu) = self.start.get();
        let received = self.received.get().max(1) as f64;
        let figures = Figures::from([
            ("million_per_s", received * 1e3 / (now_ns - start_ns).max(1) as f64),
            (
                "receiver_us_per_message",
                (clock::thread_cpu_ns() - start_cpu) as f64 / 1e3 / received,
            ),
            ("sleeps_per_message", self.cx.stats().sleeps as f64 / received),
        ]);
        // Nobody listens when time is up.
        let _ = report.send(figures);
    }
}

struct Hosted(Rc<Traffic>);

impl Handler for Hosted {
    fn on_completion(&self, _local: u64, _completion: Completion) {}

    fn on_timer(&self, _local: u64) {}

    fn on_turn(&self) -> bool {
        let now_ns = clock::mono_ns();
        let ended = now_ns >= self.0.end_ns;
        if self.0.is_sender {
            if !ended {
                self.0.send(now_ns);
            }
            return !self.0.stopped.get();
        }
        let got = self.0.receive(now_ns);
        if ended {
            self.0.finish(now_ns);
        }
        got || (self.0.mode == Mode::Batched && !ended)
    }

    fn park(&self) -> bool {
        self.0.port.borrow_mut().park()
    }

    fn unpark(&self) {
        self.0.port.borrow_mut().unpark();
    }

    fn has_messages(&self) -> bool {
        self.0.port.borrow_mut().has_incoming()
    }

    fn stop(&self) {
        self.0.stopped.set(true);
    }

    fn is_stopped(&self) -> bool {
        true
    }
}

/// Keeps a read on the eventfd, whose completion ends the sleep.
async fn watch(cx: ShardCx, eventfd: OwnedFd) -> Result<()> {
    let fd = cx.driver().adopt(eventfd)?;
    let mut buf = DirectBuf::zeroed(8);
    loop {
        let op = Op::Read { fd, buf, len: 8, offset: 0, uncached: false };
        let completion = cx.perform(op).await;
        completion.result.map_err(|errno| anyhow!("read of the eventfd: {errno}"))?;
        let engine::driver::Payload::Direct(back) = completion.payload else {
            return Err(anyhow!("the read kept its buffer"));
        };
        buf = back;
    }
}

fn trial(options: &Options, mode: Mode) -> Result<Figures> {
    let ports: Vec<_> = mesh::<u64>(2, CAPACITY).into_iter().map(Some).collect();
    let ports = Mutex::new(ports);
    let (send, receive) = mpsc::channel();
    let send = Mutex::new(Some(send));
    let flags = rustix::event::EventfdFlags::CLOEXEC;
    let eventfd = Arc::new(rustix::event::eventfd(0, flags)?);
    let end_ns = clock::mono_ns() + options.trial_ns;
    let mut running = launch(&shard::plan(2, options.cpu), move |cx| {
        let taken = ports.lock().ok().and_then(|mut ports| ports[cx.index()].take());
        let Some(port) = taken else { return Ok(()) };
        let receiver = cx.index() == 1;
        let report =
            if receiver { send.lock().ok().and_then(|mut send| send.take()) } else { None };
        if receiver && mode == Mode::Eventfd {
            let eventfd = eventfd
                .try_clone()
                .map_err(|source| engine::error::Error::io("dup", source, "the eventfd"))?;
            let watching = watch(cx.clone(), eventfd);
            cx.spawn("eventfd", async move {
                // It fails only at the end, when nobody needs it.
                let _ = watching.await;
            });
        }
        if receiver {
            // So that it wakes for the end of the trial.
            let ending = cx.clone();
            cx.spawn("end", async move { ending.sleep_until(end_ns).await });
        }
        let traffic = Traffic {
            cx: cx.clone(),
            port: RefCell::new(port),
            mode,
            is_sender: !receiver,
            next_ns: Cell::new(0),
            received: Cell::new(0),
            start: Cell::new((0, 0)),
            end_ns,
            eventfd: (mode == Mode::Eventfd).then(|| Arc::clone(&eventfd)),
            report: RefCell::new(report),
            stopped: Cell::new(false),
        };
        cx.add_handler(Rc::new(Hosted(Rc::new(traffic))));
        Ok(())
    })?;
    let timeout = Duration::from_nanos(options.trial_ns) + Duration::from_secs(10);
    let figures = receive.recv_timeout(timeout).context("the receiver did not report");
    running.stop();
    if !running.join(Duration::from_secs(10)) {
        return Err(anyhow!("the shards did not stop"));
    }
    figures
}
