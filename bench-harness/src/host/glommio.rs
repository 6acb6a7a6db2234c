//! Sessions on glommio: a task and a read buffer for each connection.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use anyhow::{Context, Result, anyhow};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};
use view::Session;

use super::{Clock, Connection, Hosting, Next, Service, room};

/// Between two calls of `Service::tick`.
const TICK: std::time::Duration = std::time::Duration::from_millis(100);
/// Ring entries: enough for every connection of a batch.
const ENTRIES: usize = 4096;

/// Serves until the process is ended. The CPU is the one this process is bound to.
pub(super) fn run<S: Service>(service: S, hosting: Hosting) -> Result<()> {
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .ring_depth(ENTRIES)
        .make()
        .map_err(|error| anyhow!("start glommio (RLIMIT_MEMLOCK of 512 KiB?): {error}"))?;
    executor.run(async move {
        let listener = TcpListener::bind(hosting.addr)
            .map_err(|error| anyhow!("{error}"))
            .with_context(|| format!("bind {}", hosting.addr))?;
        let service = Rc::new(service);
        let clock = Clock::new();
        let shard = Rc::new(RefCell::new(service.shard(clock.now())));
        glommio::spawn_local(tick(Rc::clone(&service), Rc::clone(&shard), clock)).detach();
        loop {
            let Ok(stream) = listener.accept().await else {
                // Out of descriptors, most likely: those who are here go on.
                glommio::timer::sleep(TICK).await;
                continue;
            };
            let Ok(peer) = stream.peer_addr() else { continue };
            let session = service.open(&mut shard.borrow_mut(), peer, clock.now());
            let (service, shard) = (Rc::clone(&service), Rc::clone(&shard));
            glommio::spawn_local(async move {
                let mut connection = Connection::new(session);
                // The peer may leave at any time; that ends its connection and no more.
                let _ = serve(&*service, &mut connection, stream, &shard, clock, hosting).await;
                connection.session.on_close(&mut shard.borrow_mut());
            })
            .detach();
        }
    })
}

async fn tick<S: Service>(
    service: Rc<S>,
    shard: Rc<RefCell<<S::Session as Session>::Shard>>,
    clock: Clock,
) {
    loop {
        glommio::timer::sleep(TICK).await;
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
    stream.set_nodelay(true).map_err(|error| io::Error::other(error.to_string()))?;
    // Zeroed once; `held` of it are received bytes that were not consumed.
    let mut buffer = vec![0; hosting.read_buffer_bytes];
    let (mut held, mut wanted) = (0, 0);
    loop {
        let Some(more) = room(held, wanted, hosting.read_buffer_bytes) else { return Ok(()) };
        if buffer.len() < held + more {
            buffer.resize(held + more, 0);
        }
        match stream.read(&mut buffer[held..]).await? {
            0 => return Ok(()),
            len => held += len,
        }
        loop {
            let (consumed, frame, next) =
                connection.batch(service, &buffer[..held], &mut shard.borrow_mut(), clock.now());
            if consumed < held {
                buffer.copy_within(consumed..held, 0);
            }
            held -= consumed;
            wanted = frame;
            let out = connection.take_output();
            if !out.is_empty() {
                let sent = stream.write_all(&out).await;
                connection.recycle(out);
                sent?;
            }
            match next {
                Next::Read => break,
                Next::Again => glommio::executor().yield_now().await,
                Next::Close => return Ok(()),
            }
        }
        if held == 0 && buffer.len() > hosting.read_buffer_bytes {
            buffer = vec![0; hosting.read_buffer_bytes];
        }
    }
}
