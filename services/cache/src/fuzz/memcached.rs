//! A client's bytes in memcached's text and meta protocol, in pieces of any size, to one shard or to two.
//!
//! The first byte is as for `resp.rs`.

use bytes::Bytes;
use view::{Flow, Input, Output, Session as _};

use super::{REPLIES_MAX_BYTES, host, split};
use crate::{Done, Work, memcached::Session, support::Host};

/// Most turns of a session for one piece.
const TURNS_MAX: usize = 1_000_000;
/// Most bytes that a session leaves for later: a line with its key, and a data block of the longest item.
const WAITING_MAX_BYTES: usize = (1 << 20) + 4096;

pub(super) fn run(input: &[u8]) {
    let (how, bytes) = split(input);
    let mut host = host(u16::from(how & 1) + 1);
    let mut session = Session::new(&mut host.shards[0]);
    let size = match usize::from(how >> 2) {
        0 => bytes.len().max(1),
        size => size,
    };
    let (mut waiting, mut replies) = (Vec::new(), 0);
    for piece in bytes.chunks(size) {
        waiting.extend_from_slice(piece);
        let closed = serve(&mut host, &mut session, &mut waiting, how & 2 != 0, &mut replies);
        assert!(waiting.len() <= WAITING_MAX_BYTES, "{} bytes wait", waiting.len());
        assert!(replies <= REPLIES_MAX_BYTES, "{replies} bytes of replies to {}", bytes.len());
        if closed {
            break;
        }
        host.advance_ms(300);
    }
}

/// Runs until more bytes are needed; whether the connection is closed.
fn serve(
    host: &mut Host,
    session: &mut Session,
    waiting: &mut Vec<u8>,
    owned: bool,
    replies: &mut usize,
) -> bool {
    for _ in 0..TURNS_MAX {
        let owner = Bytes::copy_from_slice(waiting);
        let mut input = if owned { Input::owned(&owner) } else { Input::borrowed(&owner) };
        let mut out = Output::default();
        let mut flow = session.on_bytes(&mut input, &mut out, &mut host.shards[0], host.now);
        waiting.drain(..input.consumed());
        while let Flow::Await(work) = flow {
            let done = match work {
                Work::Exchange(requests) => {
                    let served = requests.into_iter().map(|(to, request)| {
                        let mut done = Vec::new();
                        host.shards[usize::from(to)].serve(0, request, host.now, &mut done);
                        done.pop().expect("answered at once").1
                    });
                    Done::Exchange(served.collect())
                }
                _ => Done::Durable { is_so: true },
            };
            flow = session.on_done(done, &mut out, &mut host.shards[0], host.now);
        }
        *replies += out.to_vec().len();
        match flow {
            Flow::NeedInput => return false,
            Flow::Close => return true,
            _ => {}
        }
    }
    panic!("a session does not come to rest");
}
