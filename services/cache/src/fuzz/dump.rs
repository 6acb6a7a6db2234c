//! A payload of any bytes given to RESTORE or FUNCTION RESTORE; then the key is used, or a function called.
//!
//! The first byte: `f`, a payload of functions; `r`, a payload of RESTORE with whatever version and checksum it ends with;
//! else one of RESTORE, whose version and checksum are put behind it.

use logic::rdb::crc64;

use super::{host, split, uses};
use crate::support::encode;

/// The oldest version that has all types of values, and that of functions.
const VERSION: u16 = 12;
const VERSION_OF_FUNCTIONS: u16 = 10;

pub(super) fn run(input: &[u8]) {
    let (how, body) = split(input);
    let mut host = host(1);
    let conn = host.connect(0, false);
    if how == b'f' {
        let payload = sealed(body, VERSION_OF_FUNCTIONS);
        host.send(conn, &encode(&[b"FUNCTION", b"RESTORE", &payload, b"FLUSH"]));
        host.command(conn, &["FCALL", "f", "1", "k", "a"]);
        host.command(conn, &["FUNCTION", "LIST", "WITHCODE"]);
        let again = uses::bulk(&host.send(conn, &encode(&[b"FUNCTION", b"DUMP"])));
        let reply = host.send(conn, &encode(&[b"FUNCTION", b"RESTORE", &again, b"REPLACE"]));
        assert_eq!(reply, b"+OK\r\n", "functions that were there are taken again");
        return;
    }
    let payload = if how == b'r' { body.to_vec() } else { sealed(body, VERSION) };
    let reply = host.send(conn, &encode(&[b"RESTORE", b"k", b"0", &payload]));
    assert!(reply == b"+OK\r\n" || reply.starts_with(b"-"), "{reply:?}");
    if reply == b"+OK\r\n" {
        uses::all(&mut host);
    }
}

fn sealed(body: &[u8], version: u16) -> Vec<u8> {
    let mut payload = [body, &version.to_le_bytes()].concat();
    let sum = crc64::of(&payload);
    payload.extend_from_slice(&sum.to_le_bytes());
    payload
}
