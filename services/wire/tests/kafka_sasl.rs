//! The log-in's requests against another implementation of the protocol, in every version.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use wire::kafka::frame::{LEN_BYTES, RequestHeader, frame_len};
use wire::kafka::sasl::{
    Authenticated, read_authenticate, read_handshake, write_bare, write_handshake,
};
use wire::kafka::{Reader, Writer};

fn encoded(message: &impl Encodable, version: i16) -> Bytes {
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes, version).expect("valid");
    bytes.freeze()
}

#[test]
fn handshakes_are_read_and_answered() {
    for version in 0..=1 {
        let request = SaslHandshakeRequest::default()
            .with_mechanism(StrBytes::from_static_str("SCRAM-SHA-256"));
        let bytes = encoded(&request, version);
        assert_eq!(read_handshake(&mut Reader::new(&bytes)), Ok("SCRAM-SHA-256"));
        for cut in 0..bytes.len() {
            assert!(read_handshake(&mut Reader::new(&bytes[..cut])).is_err(), "{cut}");
        }
        let header = RequestHeader { key: 17, version, correlation_id: 5, client_id: None };
        let mut out = Vec::new();
        write_handshake(&mut out, &header, 33, ["PLAIN", "X"].into_iter());
        assert_eq!(frame_len(&out, 1000), Ok(Some(out.len())));
        assert_eq!(out[LEN_BYTES..8], 5_i32.to_be_bytes());
        let mut body = Bytes::from(out.split_off(8));
        let response = SaslHandshakeResponse::decode(&mut body, version).expect("valid");
        assert!(body.is_empty());
        assert_eq!(response.error_code, 33);
        let mechanisms: Vec<&str> = response.mechanisms.iter().map(|name| &**name).collect();
        assert_eq!(mechanisms, ["PLAIN", "X"]);
    }
}

#[test]
fn messages_are_read_and_answered() {
    for version in 0..=2 {
        let request =
            SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(b"\0u\0p"));
        let bytes = encoded(&request, version);
        assert_eq!(read_authenticate(&mut Reader::new(&bytes), version), Ok(&b"\0u\0p"[..]));
        for cut in 0..bytes.len() {
            assert!(read_authenticate(&mut Reader::new(&bytes[..cut]), version).is_err(), "{cut}");
        }
        for (error, error_message, lifetime_ms) in [(0, None, 900), (58, Some("no"), 0)] {
            let answer = Authenticated { error, error_message, message: b"v=", lifetime_ms };
            let mut out = Vec::new();
            answer.write(&mut out, version, 6);
            assert_eq!(frame_len(&out, 1000), Ok(Some(out.len())));
            let header = if version == 2 { 9 } else { 8 };
            let mut body = Bytes::from(out.split_off(header));
            let response = SaslAuthenticateResponse::decode(&mut body, version).expect("valid");
            assert!(body.is_empty());
            assert_eq!(response.error_code, error);
            assert_eq!(response.error_message.as_deref(), error_message);
            assert_eq!(response.auth_bytes, b"v="[..]);
            let lifetime_ms = if version == 0 { 0 } else { lifetime_ms };
            assert_eq!(response.session_lifetime_ms, lifetime_ms);
        }
    }
}

#[test]
fn bare_messages_have_a_length_and_nothing_else() {
    let mut out = Vec::new();
    write_bare(&mut out, b"v=x");
    write_bare(&mut out, b"");
    let mut expected = Vec::new();
    expected.i32(3);
    expected.raw(b"v=x");
    expected.i32(0);
    assert_eq!(out, expected);
}
