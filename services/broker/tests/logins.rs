//! Logging in over the wire, and what happens to who does not: the rules of Kafka, one test each.

#![expect(clippy::disallowed_methods, reason = "clients measure how long answers take, and wait")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use common::client::Client;
use common::{Broker, users_file};
use hmac::{Hmac, KeyInit as _, Mac as _};
use kafka_protocol::messages::{
    ApiVersionsRequest, MetadataRequest, SaslAuthenticateRequest, SaslAuthenticateResponse,
    SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::StrBytes;
use sha2::{Digest as _, Sha256};

fn broker(options: &[&str]) -> Broker {
    let users = users_file();
    Broker::start(1, &[&["--broker-users", &users], options].concat())
}

fn handshake(client: &mut Client, mechanism: &'static str) -> SaslHandshakeResponse {
    let request =
        SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism));
    client.call(&request, 1).expect("an answer")
}

fn authenticate(client: &mut Client, message: &[u8], version: i16) -> SaslAuthenticateResponse {
    let request = SaslAuthenticateRequest::default().with_auth_bytes(message.to_vec().into());
    client.call(&request, version).expect("an answer")
}

/// Logs in with the password in clear.
fn plain(client: &mut Client, user: &str, password: &str) -> SaslAuthenticateResponse {
    assert_eq!(handshake(client, "PLAIN").error_code, 0);
    authenticate(client, format!("\0{user}\0{password}").as_bytes(), 2)
}

fn connect(broker: &Broker) -> Client {
    Client::connect(broker.address()).expect("it listens")
}

/// Whether the connection serves requests.
fn serves(client: &mut Client) -> bool {
    client.call(&MetadataRequest::default().with_topics(None), 9).is_ok()
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

/// A client's side of SCRAM-SHA-256, as RFC 5802 has it: the last message, and what the server has to end with.
fn scram(first: &str, challenge: &str, password: &str) -> (String, String) {
    let field = |name: &str| {
        let mut fields = challenge.split(',');
        fields.find_map(|field| field.strip_prefix(name)).expect("a field").to_owned()
    };
    let (nonce, salt) = (field("r="), BASE64.decode(field("s=")).expect("base64"));
    let mut last = hmac(password.as_bytes(), &[&salt, &[0, 0, 0, 1]]);
    let mut salted = last.clone();
    for _ in 1..field("i=").parse::<u32>().expect("a number") {
        last = hmac(password.as_bytes(), &[&last]);
        salted.iter_mut().zip(&last).for_each(|(byte, other)| *byte ^= other);
    }
    let signed = format!("c=biws,r={nonce}");
    let auth = format!("{first},{challenge},{signed}");
    let mut proof = hmac(&salted, &[b"Client Key"]);
    let signature = hmac(&Sha256::digest(&proof), &[auth.as_bytes()]);
    proof.iter_mut().zip(&signature).for_each(|(byte, other)| *byte ^= other);
    let server = hmac(&hmac(&salted, &[b"Server Key"]), &[auth.as_bytes()]);
    (format!("{signed},p={}", BASE64.encode(proof)), format!("v={}", BASE64.encode(server)))
}

#[test]
fn nothing_is_served_before_a_log_in_but_the_list_of_versions() {
    let broker = broker(&[]);
    let mut client = connect(&broker);
    let versions = client.call(&ApiVersionsRequest::default(), 0).expect("an answer");
    assert!(versions.api_keys.iter().any(|api| api.api_key == 36 && api.max_version == 2));
    assert!(!serves(&mut client), "closed without an answer");
    let mut client = connect(&broker);
    assert!(client.create("topic", 1).is_err());
    // A message of the mechanism before the mechanism.
    let request = SaslAuthenticateRequest::default();
    assert!(connect(&broker).call(&request, 2).is_err());
    // Between the handshake and its end.
    let mut client = connect(&broker);
    assert_eq!(handshake(&mut client, "PLAIN").error_code, 0);
    assert!(!serves(&mut client));
}

#[test]
fn a_password_in_clear_opens_and_a_wrong_one_is_told_late_and_closes() {
    let broker = broker(&[]);
    for (user, password) in [("alice", "wonder"), ("bob", "pencil"), ("bob", "pencil")] {
        let mut client = connect(&broker);
        let answer = plain(&mut client, user, password);
        assert_eq!((answer.error_code, answer.session_lifetime_ms), (0, 0), "{user}");
        assert!(serves(&mut client), "{user}");
    }
    for (user, password) in [("alice", "x"), ("bob", "x"), ("nobody", "wonder"), ("nobody", "x")] {
        let mut client = connect(&broker);
        let begun = Instant::now();
        let answer = plain(&mut client, user, password);
        assert!(begun.elapsed() >= Duration::from_millis(100), "{user}");
        assert_eq!(answer.error_code, 58);
        let text = answer.error_message.expect("a reason");
        assert_eq!(&*text, "Authentication failed: Invalid username or password", "{user}");
        assert!(!serves(&mut client), "{user}");
    }
}

#[test]
fn scram_opens_and_proves_that_the_server_knows_the_user_too() {
    let broker = broker(&[]);
    let first = "n=bob,r=abcdef";
    for (password, error) in [("pencil", 0), ("pen", 58)] {
        let mut client = connect(&broker);
        assert_eq!(handshake(&mut client, "SCRAM-SHA-256").error_code, 0);
        let challenge = authenticate(&mut client, format!("n,,{first}").as_bytes(), 1);
        let challenge = String::from_utf8(challenge.auth_bytes.to_vec()).expect("text");
        let (last, expected) = scram(first, &challenge, password);
        let end = authenticate(&mut client, last.as_bytes(), 1);
        assert_eq!(end.error_code, error, "{password}");
        assert_eq!(end.auth_bytes == expected.as_bytes(), error == 0);
        assert_eq!(serves(&mut client), error == 0);
    }
    // Whoever is not there is asked as if it were, the same each time.
    let ask = |user: &str| {
        let mut client = connect(&broker);
        handshake(&mut client, "SCRAM-SHA-256");
        let challenge = authenticate(&mut client, format!("n,,n={user},r=x").as_bytes(), 1);
        assert_eq!(challenge.error_code, 0, "{user}");
        let text = String::from_utf8(challenge.auth_bytes.to_vec()).expect("text");
        text.split_once(",s=").expect("a salt").1.to_owned()
    };
    assert_eq!(ask("nobody"), ask("nobody"));
    assert_ne!(ask("nobody"), ask("noone"));
    assert!(ask("nobody").ends_with(",i=4096"));
}

#[test]
fn a_mechanism_that_is_not_offered_is_told_which_are() {
    let broker = broker(&[]);
    let mut client = connect(&broker);
    let answer = handshake(&mut client, "GSSAPI");
    assert_eq!(answer.error_code, 33);
    let names: Vec<&str> = answer.mechanisms.iter().map(|name| &**name).collect();
    assert_eq!(names, ["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"]);
    assert!(!serves(&mut client));
    // Logged in there is nothing to do, which is said and nothing more.
    let mut client = connect(&broker);
    plain(&mut client, "alice", "wonder");
    assert_eq!(handshake(&mut client, "PLAIN").error_code, 34);
    assert_eq!(authenticate(&mut client, b"", 2).error_code, 34);
    assert!(serves(&mut client));
    // So it is where nobody logs in.
    let open = Broker::start(1, &[]);
    let mut client = connect(&open);
    assert_eq!(handshake(&mut client, "PLAIN").error_code, 34);
    assert!(serves(&mut client));
}

/// Version 0 of the handshake is followed by frames without headers, as old clients send them.
#[test]
fn old_clients_send_bare_messages() {
    let broker = broker(&[]);
    let bare = |message: &[u8]| {
        let mut stream = TcpStream::connect(broker.address()).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        let request = [b"\0\x11\0\0\0\0\0\x07\xff\xff\0\x05PLAIN".as_slice()].concat();
        stream.write_all(&(request.len() as u32).to_be_bytes()).expect("sent");
        stream.write_all(&request).expect("sent");
        let mut len = [0; 4];
        stream.read_exact(&mut len).expect("an answer");
        let mut answer = vec![0; u32::from_be_bytes(len) as usize];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer[..6], [0, 0, 0, 7, 0, 0]);
        stream.write_all(&(message.len() as u32).to_be_bytes()).expect("sent");
        stream.write_all(message).expect("sent");
        let mut rest = Vec::new();
        // Nothing follows an empty answer unless something is asked: its length is all there is.
        let mut len = [9; 4];
        if stream.read_exact(&mut len).is_ok() {
            rest.extend(len);
            // ApiVersions 0, now that it is open.
            stream.write_all(b"\0\0\0\x0a\0\x12\0\0\0\0\0\x08\xff\xff").expect("sent");
            let mut head = [0; 10];
            stream.read_exact(&mut head).expect("an answer");
            rest.extend(&head[4..]);
        }
        rest
    };
    assert_eq!(bare(b"\0alice\0wonder"), [0, 0, 0, 0, 0, 0, 0, 8, 0, 0]);
    assert_eq!(bare(b"\0alice\0wrong"), [], "closed without an answer");
}

#[test]
fn a_log_in_that_lasts_is_renewed_or_ends() {
    let broker = broker(&["--broker-reauth", "1s"]);
    let (mut renewed, mut expired) = (connect(&broker), connect(&broker));
    for client in [&mut renewed, &mut expired] {
        assert_eq!(plain(client, "alice", "wonder").session_lifetime_ms, 1000);
        assert!(serves(client));
    }
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(plain(&mut renewed, "alice", "wonder").error_code, 0);
    assert!(serves(&mut renewed));
    assert!(!serves(&mut expired), "it was not renewed");
    // By the same user only.
    assert_eq!(plain(&mut renewed, "bob", "pencil").error_code, 58);
    assert!(!serves(&mut renewed));
}

#[test]
fn before_a_log_in_requests_are_short() {
    const LONGEST: u32 = 512 << 10;
    let broker = broker(&[]);
    for (len, taken) in [(LONGEST, true), (LONGEST + 1, false)] {
        let mut stream = TcpStream::connect(broker.address()).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_millis(500))).expect("a socket");
        stream.write_all(&len.to_be_bytes()).expect("sent");
        let waits = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        let waiting = stream.read(&mut [0; 1]).is_err_and(waits);
        assert_eq!(waiting, taken, "{len}");
    }
}
