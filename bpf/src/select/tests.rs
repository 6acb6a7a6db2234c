//! What users write, read and written again.

use super::*;

fn again<T: FromStr<Err = Error> + fmt::Display>(text: &str) -> String {
    text.parse::<T>().map_or_else(|error| format!("error: {error}"), |value| value.to_string())
}

#[test]
fn texts_are_read_and_written_alike() {
    for text in ["10.0.0.0/8", "::1/128", "fd00::/8", "0.0.0.0/0"] {
        assert_eq!(again::<Network>(text), text);
    }
    assert_eq!(again::<Network>("10.1.2.3"), "10.1.2.3/32");
    assert_eq!((again::<Span>("80"), again::<Span>("1-65535")), ("80".into(), "1-65535".into()));
    assert_eq!((again::<Protocol>("udp"), again::<Protocol>("47")), ("udp".into(), "47".into()));
    assert_eq!(again::<Flags>("syn,!ack"), "syn,!ack");
    assert_eq!(again::<Prefix>(r"GET /\x00\n"), r"GET /\x00\x0a");
}

#[test]
fn what_makes_no_sense_is_said() {
    let wrong = [
        again::<Network>("10.0.0.0/33"),
        again::<Network>("somewhere"),
        again::<Span>("90-80"),
        again::<Span>("65536"),
        again::<Protocol>("ipx"),
        again::<Flags>("syn,nack"),
        again::<Prefix>(r"\x4"),
        again::<Prefix>(""),
        again::<Prefix>("seventeen letters"),
    ];
    for one in wrong {
        assert!(one.starts_with("error: ") && one.ends_with("wanted"), "{one}");
    }
    for share in
        [Share::Percent(100.1), Share::Flows(-1.0), Share::Every(0), Share::Percent(f64::NAN)]
    {
        assert!(share.to_abi(0).is_err(), "{share:?}");
    }
}

#[test]
fn version_4_is_mapped() {
    let network: Network = "10.1.0.0/16".parse().expect("a network");
    let key = abi::Network::from(network);
    assert_eq!(key.prefix_len, 112);
    assert_eq!(key.address, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 0, 0]);
}

#[test]
fn what_is_not_given_is_any() {
    let any = Target::default().to_abi(&[22]);
    assert_eq!(
        (any.sport, any.dport, any.port, any.len),
        ([0, u16::MAX], [0, u16::MAX], [0, u16::MAX], [0, u16::MAX])
    );
    assert_eq!(any.spared, [22, 0, 0, 0]);
    assert!(!Target::default().is_narrow());
    let flags = Target { flags: "syn".parse().ok(), ..Target::default() };
    assert_eq!(flags.to_abi(&[]).protocol, 6, "flags are of TCP");
}

#[test]
fn shares_become_millionths() {
    let share = Share::Percent(12.5).to_abi(7).expect("a share");
    assert_eq!((share.kind, share.ppm, share.seed), (1, 125_000, 7));
    let text = r#"{"gilbert":{"to_bad":1,"to_good":25}}"#;
    let share: Share = serde_json::from_str(text).expect("a share");
    let share = share.to_abi(0).expect("a share");
    assert_eq!(
        (share.to_bad_ppm, share.to_good_ppm, share.bad_ppm, share.ppm),
        (10_000, 250_000, 1_000_000, 0)
    );
}
