//! Sessions on monoio: a task and an owned read buffer for each connection.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use anyhow::{Context, Result};
use io_uring_of_monoio as uring;
use monoio::buf::{IoBufMut, SliceMut};
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{ListenerOpts, TcpListener, TcpStream};
use monoio::time::TimeDriver;
use monoio::{IoUringDriver, RuntimeBuilder};
use view::Session;

use super::{Clock, Connection, Hosting, Next, Service, room};

/// Ring entries: enough for every connection of a batch.
const ENTRIES: u32 = 4096;
/// Between two calls of `Service::tick`.
const TICK: std::time::Duration = std::time::Duration::from_millis(100);

/// Serves until the process is ended.
pub(super) fn run<S: Service>(service: S, hosting: Hosting, defer: bool) -> Result<()> {
    let mut builder = RuntimeBuilder::<IoUringDriver>::new().with_entries(ENTRIES);
    if defer {
        let mut ring = uring::IoUring::builder();
        ring.setup_single_issuer().setup_defer_taskrun();
        builder = builder.uring_builder(ring);
    }
    // The timer wheel is for `tick` alone, as a service on monoio would have it.
    let mut runtime = builder.enable_timer().build().context("start monoio")?;
    serve_all::<S>(&mut runtime, service, hosting)
}

fn serve_all<S: Service>(
    runtime: &mut monoio::Runtime<TimeDriver<IoUringDriver>>,
    service: S,
    hosting: Hosting,
) -> Result<()> {
    runtime.block_on(async move {
        let options = ListenerOpts::new().backlog(4096).reuse_port(false).reuse_addr(true);
        let listener = TcpListener::bind_with_config(hosting.addr, &options)
            .with_context(|| format!("bind {}", hosting.addr))?;
        let service = Rc::new(service);
        let clock = Clock::new();
        let shard = Rc::new(RefCell::new(service.shard(clock.now())));
        monoio::spawn(tick(Rc::clone(&service), Rc::clone(&shard), clock));
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let session = service.open(&mut shard.borrow_mut(), peer, clock.now());
                    let (service, shard) = (Rc::clone(&service), Rc::clone(&shard));
                    monoio::spawn(async move {
                        let mut connection = Connection::new(session);
                        // The peer may leave at any time; that ends its connection and no more.
                        let _ =
                            serve(&*service, &mut connection, stream, &shard, clock, hosting).await;
                        connection.session.on_close(&mut shard.borrow_mut());
                    });
                }
                // Out of descriptors, most likely: those who are here go on.
                Err(_) => monoio::time::sleep(TICK).await,
            }
        }
    })
}

async fn tick<S: Service>(
    service: Rc<S>,
    shard: Rc<RefCell<<S::Session as Session>::Shard>>,
    clock: Clock,
) {
    loop {
        monoio::time::sleep(TICK).await;
        service.tick(&mut shard.borrow_mut(), clock.now());
    }
}

async fn serve<S: Service>(
    service: &S,
    connection: &mut Connection<S::Session>,
    mut stream: TcpStream,
    shard: &RefCell<<S::Session as Session>::Shard>,
    clock: Clock,
    hosting: Hosting,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut held = Vec::with_capacity(hosting.read_buffer_bytes);
    let mut wanted = 0;
    loop {
        let Some(more) = room(held.len(), wanted, hosting.read_buffer_bytes) else {
            return Ok(());
        };
        held.reserve_exact(more);
        let (from, to) = (held.len(), held.capacity());
        let (read, slice): (_, SliceMut<Vec<u8>>) = stream.read(held.slice_mut(from..to)).await;
        held = slice.into_inner();
        if read? == 0 {
            return Ok(());
        }
        loop {
            let (consumed, frame, next) =
                connection.batch(service, &held, &mut shard.borrow_mut(), clock.now());
            if consumed == held.len() {
                held.clear();
            } else {
                held.drain(..consumed);
            }
            wanted = frame;
            let out = connection.take_output();
            if !out.is_empty() {
                let (sent, out) = stream.write_all(out).await;
                connection.recycle(out);
                sent?;
            }
            match next {
                Next::Read => break,
                Next::Again => yield_now().await,
                Next::Close => return Ok(()),
            }
        }
        if held.is_empty() && held.capacity() > hosting.read_buffer_bytes {
            held = Vec::with_capacity(hosting.read_buffer_bytes);
        }
    }
}

/// Lets the other tasks run once.
async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}
