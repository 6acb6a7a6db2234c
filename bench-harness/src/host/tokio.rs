//! Sessions on tokio's current-thread runtime: a local task and a read buffer for each connection.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{LocalSet, spawn_local, yield_now};
use view::Session;

use super::{Clock, Connection, Hosting, Next, Service, room};

/// Connections the kernel holds until they are accepted, as on the other runtimes.
const BACKLOG: u32 = 4096;
/// Between two calls of `Service::tick`.
const TICK: std::time::Duration = std::time::Duration::from_millis(100);

/// Serves until the process is ended.
pub(super) fn run<S: Service>(service: S, hosting: Hosting) -> Result<()> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_io().enable_time().build().context("start tokio")?;
    LocalSet::new().block_on(&runtime, serve_all(service, hosting))
}

fn listen(hosting: Hosting) -> io::Result<TcpListener> {
    let socket = if hosting.addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(hosting.addr)?;
    socket.listen(BACKLOG)
}

async fn serve_all<S: Service>(service: S, hosting: Hosting) -> Result<()> {
    let listener = listen(hosting).with_context(|| format!("bind {}", hosting.addr))?;
    let service = Rc::new(service);
    let clock = Clock::new();
    let shard = Rc::new(RefCell::new(service.shard(clock.now())));
    spawn_local(tick(Rc::clone(&service), Rc::clone(&shard), clock));
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // Out of descriptors, most likely: those who are here go on.
            tokio::time::sleep(TICK).await;
            continue;
        };
        let session = service.open(&mut shard.borrow_mut(), peer, clock.now());
        let (service, shard) = (Rc::clone(&service), Rc::clone(&shard));
        spawn_local(async move {
            let mut connection = Connection::new(session);
            // The peer may leave at any time; that ends its connection and no more.
            let _ = serve(&*service, &mut connection, stream, &shard, clock, hosting).await;
            connection.session.on_close(&mut shard.borrow_mut());
        });
    }
}

async fn tick<S: Service>(
    service: Rc<S>,
    shard: Rc<RefCell<<S::Session as Session>::Shard>>,
    clock: Clock,
) {
    loop {
        tokio::time::sleep(TICK).await;
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
        if stream.read_buf(&mut held).await? == 0 {
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
                let sent = stream.write_all(&out).await;
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
