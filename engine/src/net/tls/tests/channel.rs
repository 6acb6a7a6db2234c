//! The channel without a server: whatever the cut, whatever is sent.

use bytes::{Bytes, BytesMut};
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, HandshakeKind};
use view::Output;

use super::super::secure::SEAL_MAX_BYTES;
use super::super::{Refusal, Secure, Stage, Tls};
use super::{Authority, Client, World, client_config};

/// A server's end and what its session would have.
struct End {
    secure: Secure,
    plain: BytesMut,
    pending: Output,
}

impl End {
    fn new(tls: &dyn Tls) -> Self {
        let channel = tls.accept().expect("memory");
        let secure = Secure::new(channel);
        Self { secure, plain: BytesMut::new(), pending: Output::default() }
    }

    fn take(&mut self, records: &[u8]) -> Result<(), Refusal> {
        self.secure.open(records, &mut self.plain)
    }

    /// What goes out next.
    fn next(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        self.secure.next(&mut self.pending, &mut records).expect("open, or nothing pending");
        records
    }
}

/// Both sides speak until neither has anything to say; what the client heard.
fn settle(client: &mut Client, end: &mut End) -> Vec<u8> {
    let mut heard = Vec::new();
    loop {
        let there = client.records();
        if !there.is_empty() {
            end.take(&there).expect("a good client");
        }
        let back = end.next();
        if there.is_empty() && back.is_empty() {
            return heard;
        }
        heard.extend(client.hear(&back).expect("a good server"));
    }
}

fn open(world: &World) -> (Client, End) {
    let mut client = world.client(&TLS13);
    let mut end = End::new(&*world.tls());
    settle(&mut client, &mut end);
    assert_eq!(end.secure.stage(), Stage::Open);
    (client, end)
}

#[test]
fn plaintext_is_whole_wherever_each_flight_is_cut() {
    let world = World::new("cuts");
    let tls = world.tls();
    for version in [&TLS12, &TLS13] {
        let config = client_config(version, world.authority.roots(), None);
        let (mut cut, mut longest) = (0, 1);
        while cut < longest {
            let mut client = Client::new(config.clone());
            client.say(b"request");
            let mut end = End::new(&*tls);
            for _ in 0..8 {
                let records = client.records();
                longest = longest.max(records.len());
                let (first, rest) = records.split_at(cut.min(records.len()));
                end.take(first).expect("a good client");
                let back = end.next();
                client.hear(&back).expect("a good server");
                end.take(rest).expect("a good client");
                let back = end.next();
                client.hear(&back).expect("a good server");
            }
            assert_eq!(&end.plain[..], b"request", "{version:?} cut at {cut}");
            assert!(!end.secure.owes());
            cut += 1;
        }
        assert!(cut > 100, "{cut} places");
    }
}

#[test]
fn bytes_that_come_alone_make_the_same_plaintext() {
    let world = World::new("single");
    let mut client = world.client(&TLS13);
    let mut end = End::new(&*world.tls());
    client.say(&[7; 40_000]);
    for _ in 0..4 {
        for byte in client.records() {
            end.take(&[byte]).expect("a good client");
        }
        client.hear(&end.next()).expect("a good server");
    }
    assert_eq!(&end.plain[..], &[7; 40_000][..]);
}

#[test]
fn a_long_reply_is_sealed_in_parts() {
    let world = World::new("parts");
    let (mut client, mut end) = open(&world);
    let long = Bytes::from((0..SEAL_MAX_BYTES * 3).map(|at| at as u8).collect::<Vec<_>>());
    end.pending.write(b"head");
    end.pending.push(long.clone());
    end.pending.write(b"tail");
    let (mut heard, mut parts) = (Vec::new(), 0);
    loop {
        let records = end.next();
        if records.is_empty() {
            break;
        }
        assert!(records.len() < SEAL_MAX_BYTES + SEAL_MAX_BYTES / 64, "{}", records.len());
        heard.extend(client.hear(&records).expect("a good server"));
        parts += 1;
    }
    assert_eq!(heard, [b"head", &long[..], b"tail"].concat());
    assert_eq!(parts, 4);
    assert!(!end.secure.owes());
}

#[test]
fn nothing_is_sealed_before_the_handshake_is_complete() {
    let world = World::new("early");
    let mut client = world.client(&TLS13);
    let mut end = End::new(&*world.tls());
    end.pending.write(b"pushed");
    end.take(&client.records()).expect("a good client");
    let heard = client.hear(&end.next()).expect("a good server");
    assert!(heard.is_empty());
    assert!(!end.pending.is_empty());
    assert_eq!(settle(&mut client, &mut end), b"pushed");
}

#[test]
fn what_is_no_record_is_answered_with_an_alert() {
    let world = World::new("garbage");
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[22, 3, 1, 0xff, 0xff, 0]] {
        let mut end = End::new(&*world.tls());
        end.take(bytes).expect_err("no record");
        end.secure.fail();
        let alert = end.next();
        assert_eq!(alert.first(), Some(&21), "{bytes:?}: {alert:?}");
        assert!(end.plain.is_empty());
    }
}

#[test]
fn a_handshake_message_beyond_the_bound_is_refused_at_once() {
    let world = World::new("huge");
    let mut end = End::new(&*world.tls());
    // A client's greeting of 16 MiB less one byte, of which the first 100 are here.
    let mut record = vec![22, 3, 1, 0, 104, 1, 0xff, 0xff, 0xff];
    record.resize(5 + 104, 0);
    end.take(&record).expect_err("too long");
}

#[test]
fn a_message_that_is_never_whole_ends_at_a_bound() {
    let world = World::new("endless");
    let mut end = End::new(&*world.tls());
    // A greeting of 65535 bytes, in records of one byte each.
    let greeting = [1, 0, 0xff, 0xff].into_iter().chain(std::iter::repeat(0));
    let mut sent = 0_usize;
    for byte in greeting {
        let taken = end.take(&[22, 3, 1, 0, 1, byte]);
        sent += 6;
        if taken.is_err() {
            return;
        }
        assert!(sent < 1 << 20, "{sent} bytes taken for one message");
    }
}

#[test]
fn a_message_cut_by_an_answer_is_no_trouble() {
    let world = World::new("interleaved");
    let (mut client, mut end) = open(&world);
    client.0.refresh_traffic_keys().expect("TLS 1.3");
    for byte in client.records() {
        end.take(&[byte]).expect("a good client");
        end.pending.write(b"x");
        assert_eq!(client.hear(&end.next()).expect("a good server"), b"x");
    }
}

#[test]
fn a_changed_record_ends_the_connection_and_says_nothing() {
    let world = World::new("changed");
    let (mut client, mut end) = open(&world);
    client.say(b"good");
    end.take(&client.records()).expect("a good client");
    client.say(b"evil");
    let mut evil = client.records();
    *evil.last_mut().expect("a record") ^= 1;
    end.take(&evil).expect_err("its mark is wrong");
    assert_eq!(&end.plain[..], b"good");
    end.secure.fail();
    let told = client.hear(&end.next()).expect_err("an alert");
    assert_eq!(told, rustls::Error::AlertReceived(AlertDescription::BadRecordMac));
    end.pending.write(b"answer");
    assert!(end.next().is_empty(), "nothing is sealed for a failed connection");
    assert!(end.pending.is_empty());
}

#[test]
fn a_peer_that_says_goodbye_is_answered_first() {
    let world = World::new("goodbye");
    let (mut client, mut end) = open(&world);
    client.say(b"last");
    client.0.send_close_notify();
    end.take(&client.records()).expect("a good client");
    assert_eq!(end.secure.stage(), Stage::PeerClosed);
    assert_eq!(&end.plain[..], b"last");
    end.pending.write(b"answer");
    let mut records = end.next();
    assert!(end.secure.goodbye(&mut records));
    assert!(!end.secure.goodbye(&mut Vec::new()), "said once");
    assert_eq!(client.hear(&records).expect("a good server"), b"answer");
    let state = client.0.process_new_packets().expect("a good server");
    assert!(state.peer_has_closed());
}

#[test]
fn a_cut_stream_is_no_goodbye() {
    let world = World::new("cut");
    let (mut client, mut end) = open(&world);
    client.say(b"half");
    let records = client.records();
    end.take(&records[..records.len() - 1]).expect("a good client");
    assert_eq!(end.secure.stage(), Stage::Open);
    assert!(end.plain.is_empty(), "half a record says nothing");
}

#[test]
fn endless_key_updates_end_the_connection() {
    let world = World::new("updates");
    let (mut client, mut end) = open(&world);
    let refused = (0..1000).find_map(|_| {
        client.0.refresh_traffic_keys().expect("TLS 1.3");
        end.take(&client.records()).err()
    });
    let Refusal(why) = refused.expect("a bound");
    assert!(why.contains("TooManyKeyUpdateRequests"), "{why}");
}

#[test]
fn a_client_that_comes_back_needs_no_full_handshake() {
    let world = World::new("tickets");
    let tls = world.tls();
    for version in [&TLS12, &TLS13] {
        let config = client_config(version, world.authority.roots(), None);
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let mut client = Client::new(config.clone());
            let mut end = End::new(&*tls);
            settle(&mut client, &mut end);
            kinds.push(client.0.handshake_kind().expect("complete"));
        }
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed], "{version:?}");
    }
}

#[test]
fn clients_without_the_right_certificate_are_refused() {
    let world = World::new("mutual").mutual();
    let tls = world.tls();
    let good = world.authority.sign("client");
    let stranger = Authority::new("stranger").sign("client");
    for (mut client, welcome) in [
        (world.client_as(&good), true),
        (world.client_as(&stranger), false),
        (world.client(&TLS13), false),
        (world.client(&TLS12), false),
    ] {
        let mut end = End::new(&*tls);
        client.say(b"request");
        let mut taken = Ok(());
        for _ in 0..4 {
            taken = taken.and_then(|()| end.take(&client.records()));
            if taken.is_err() {
                end.secure.fail();
            }
            if client.hear(&end.next()).is_err() {
                break;
            }
        }
        assert_eq!(taken.is_ok(), welcome, "{taken:?}");
        assert_eq!(&end.plain[..], if welcome { &b"request"[..] } else { b"" });
    }
}

#[test]
fn a_client_that_does_not_trust_us_is_heard() {
    let world = World::new("untrusted");
    let mut client = Client::new(client_config(&TLS13, Authority::new("stranger").roots(), None));
    let mut end = End::new(&*world.tls());
    end.take(&client.records()).expect("a good client");
    client.hear(&end.next()).expect_err("an unknown authority");
    let Refusal(why) = end.take(&client.records()).expect_err("its alert");
    assert!(why.contains("UnknownCA"), "{why}");
}
