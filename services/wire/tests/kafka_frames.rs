//! Frames as they are on the wire, byte by byte, and what decoders make of damaged ones.
//!
//! The golden frames were worked out from the message schemas by hand, so that they hold our codec and the other
//! implementation alike to something that is neither. `corpus/kafka` keeps inputs that reach far into a decoder; every one
//! is replayed whole, cut everywhere and with bits flipped. A frame that once broke something is added there.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use wire::kafka::api::{APIS, Api, FETCH, PRODUCE};
use wire::kafka::batch::{Batch, Codec, Problem, batches};
use wire::kafka::client::{self, Topic};
use wire::kafka::frame::{self, RequestHeader};
use wire::kafka::records::{BatchMeta, Headers, Record, records, write_batch, write_compacted};
use wire::kafka::{Reader, TopicRef, fetch, produce, shape};

/// Bytes written as hexadecimal digits, with spaces where a reader wants them.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|one| !one.is_whitespace())
        .map(|one| u8::try_from(one.to_digit(16).expect("a digit")).expect("below 16"))
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn framed(key: i16, version: i16, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let header = RequestHeader { key, version, correlation_id: 5, client_id: Some("me") };
    let mut bytes = Vec::new();
    let start = frame::begin_request(&mut bytes, &header);
    body(&mut bytes);
    frame::end(&mut bytes, start, 0);
    bytes
}

#[test]
fn golden_produce_requests() {
    let partition = produce::Partition { index: 2, records: Some(&[0xaa, 0xbb]) };
    for (version, topic, golden) in [
        (
            7,
            TopicRef::Name("t"),
            "00000029 0000 0007 00000005 0002 6d65 \
             ffff ffff 00007530 00000001 0001 74 00000001 00000002 00000002 aabb",
        ),
        (
            9,
            TopicRef::Name("t"),
            "00000022 0000 0009 00000005 0002 6d65 00 \
             00 ffff 00007530 02 02 74 02 00000002 03 aabb 00 00 00",
        ),
        (
            13,
            TopicRef::Id([7; 16]),
            "00000030 0000 000d 00000005 0002 6d65 00 \
             00 ffff 00007530 02 07070707070707070707070707070707 02 00000002 03 aabb 00 00 00",
        ),
    ] {
        let request = client::produce::Request {
            transactional_id: None,
            acks: -1,
            timeout_ms: 30_000,
            topics: &[Topic { topic, partitions: &[partition] }],
        };
        let bytes = framed(PRODUCE, version, |out| request.write(out, version));
        assert_eq!(bytes, hex(golden), "version {version}");
    }
}

#[test]
fn golden_fetch_requests() {
    let partition = fetch::Partition {
        index: 2,
        current_leader_epoch: 3,
        fetch_offset: 4,
        last_fetched_epoch: 1,
        log_start_offset: 6,
        max_bytes: 7,
        high_watermark: 8,
    };
    let replica = fetch::Replica { broker_id: 64, epoch: 9 };
    for (version, topic, golden) in [
        (
            4,
            TopicRef::Name("t"),
            "00000038 0001 0004 00000005 0002 6d65 \
             00000040 000001f4 00000001 00000400 01 00000001 0001 74 \
             00000001 00000002 0000000000000004 00000007",
        ),
        (
            11,
            TopicRef::Name("t"),
            "00000054 0001 000b 00000005 0002 6d65 \
             00000040 000001f4 00000001 00000400 01 00000000 ffffffff 00000001 0001 74 \
             00000001 00000002 00000003 0000000000000004 0000000000000006 00000007 00000000 0002 7231",
        ),
        (
            18,
            TopicRef::Id([7; 16]),
            "00000074 0001 0012 00000005 0002 6d65 00 \
             000001f4 00000001 00000400 01 00000000 ffffffff 02 07070707070707070707070707070707 \
             02 00000002 00000003 0000000000000004 00000001 0000000000000006 00000007 \
             01 01 08 0000000000000008 00 01 03 7231 \
             01 01 0d 00000040 0000000000000009 00",
        ),
    ] {
        let request = client::fetch::Request {
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: 1024,
            read_committed: true,
            replica: Some(replica),
            rack: "r1",
            topics: &[Topic { topic, partitions: &[partition] }],
        };
        let bytes = framed(FETCH, version, |out| request.write(out, version));
        assert_eq!(bytes, hex(golden), "version {version}");
    }
}

#[test]
fn golden_responses() {
    let api = Api::find(FETCH).expect("a row");
    let answer = fetch::Answer {
        index: 2,
        error: 6,
        high_watermark: 10,
        log_start_offset: 1,
        current_leader: Some((65, 4)),
    };
    let details = fetch::Details {
        last_stable_offset: Some(9),
        preferred_replica: Some(66),
        diverging_epoch: Some((3, 8)),
    };
    let endpoint = wire::kafka::Endpoint { broker_id: 65, host: "h", port: 9092, rack: None };
    let mut head = Vec::new();
    let start = frame::begin_response(&mut head, api, 16, 5);
    fetch::write_head(&mut head, 16, 0, 0, 0, 1);
    fetch::write_topic(&mut head, 16, TopicRef::Id([7; 16]), 1);
    let aborted = [fetch::Aborted { producer_id: 11, first_offset: 7 }];
    fetch::write_detailed_partition(&mut head, 16, &answer, &details, &aborted, 3);
    let split = head.len();
    fetch::write_detailed_partition_end(&mut head, 16, &answer, &details);
    fetch::write_end(&mut head, 16);
    fetch::write_end_with(&mut head, 16, &[endpoint]);
    frame::end(&mut head, start, 3);
    let (before, after) = head.split_at(split);
    assert_eq!(
        before,
        hex("00000085 00000005 00 00000000 0000 00000000 02 07070707070707070707070707070707 02 \
             00000002 0006 000000000000000a 0000000000000009 0000000000000001 \
             02 000000000000000b 0000000000000007 00 00000042 04")
    );
    assert_eq!(
        after,
        hex("02 00 0d 00000003 0000000000000008 00 01 09 00000041 00000004 00 00 \
             01 00 0d 02 00000041 02 68 00002384 00 00")
    );
    // With the records that lie elsewhere, the frame is as long as it says.
    assert_eq!(frame::frame_len(&head, 1000), Ok(Some(head.len() + 3)));
    let whole = [before, b"rec", after].concat();
    let mut reader = Reader::new(&whole[4..]);
    assert_eq!(frame::read_response_header(&mut reader, api, 16), Ok(5));
    let response = client::fetch::Response::read(reader, 16).expect("valid");
    assert_eq!(response.endpoints.last(), Some(endpoint));
}

#[test]
fn response_headers_are_cut_nowhere_unseen() {
    for api in APIS {
        for version in [api.min, api.max] {
            let mut bytes = Vec::new();
            frame::begin_response(&mut bytes, api, version, 77);
            let header = &bytes[frame::LEN_BYTES..];
            let mut reader = Reader::new(header);
            assert_eq!(frame::read_response_header(&mut reader, api, version), Ok(77));
            assert_eq!(reader.rest(), b"", "{} {version}", api.name);
            for cut in 0..header.len() {
                let mut reader = Reader::new(&header[..cut]);
                assert!(frame::read_response_header(&mut reader, api, version).is_err());
            }
        }
    }
}

/// A batch of three records, the last with headers.
fn three(meta: &BatchMeta) -> Vec<u8> {
    let mut space = Vec::new();
    let headers = Headers::encode(&mut space, [(&b"h"[..], Some(&b"v"[..])), (b"n", None)]);
    let made = [
        Record::new(0, 0, Some(b"a"), Some(b"1")),
        Record::new(1, 20, Some(b"b"), None),
        Record::new(2, 10, Some(b"c"), Some(b"3")).with_headers(headers),
    ];
    let mut bytes = Vec::new();
    write_batch(&mut bytes, meta, made);
    bytes
}

fn meta() -> BatchMeta {
    BatchMeta {
        base_offset: 100,
        leader_epoch: 4,
        base_timestamp: 1000,
        max_timestamp: 1020,
        last_offset_delta: 2,
        producer_id: 9,
        producer_epoch: 1,
        base_sequence: 40,
        flags: 0,
    }
}

#[test]
fn golden_batch() {
    let mut bytes = three(&meta());
    assert_eq!(Batch::split(&bytes).map(|(batch, _)| batch.check()), Ok(Ok(())));
    let stated: [u8; 4] = bytes[17..21].try_into().expect("four bytes");
    assert_eq!(u32::from_be_bytes(stated), crc32c::crc32c(&bytes[21..]));
    bytes[17..21].fill(0);
    assert_eq!(
        bytes,
        hex("0000000000000064 00000052 00000004 02 00000000 0000 00000002 \
             00000000000003e8 00000000000003fc 0000000000000009 0001 00000028 00000003 \
             10 00 00 00 02 61 02 31 00 \
             0e 00 28 02 02 62 01 00 \
             1e 00 14 04 02 63 02 33 04 02 68 02 76 02 6e 01")
    );
}

#[test]
fn headers_come_back() {
    let bytes = three(&meta());
    let (batch, _) = Batch::split(&bytes).expect("whole");
    let last = records(batch.body()).last().expect("three").expect("valid");
    let found: Vec<_> = last.headers().collect();
    assert_eq!(found, [(&b"h"[..], Some(&b"v"[..])), (b"n", None)]);
    assert_eq!(BatchMeta::of(&batch), meta());
}

#[test]
fn a_record_set_is_walked_until_a_batch_is_not_whole() {
    let one = three(&meta());
    let set = [&one[..], &one, &one[..one.len() - 1]].concat();
    let found: Vec<_> = batches(&set).collect();
    assert_eq!(found.len(), 3);
    assert!(found[..2].iter().all(|batch| batch.is_ok_and(|batch| batch.bytes() == one)));
    assert_eq!(found[2], Err(Problem::Cut));
    assert_eq!(batches(&[]).count(), 0);
    let mut old = one;
    old[16] = 1;
    assert_eq!(batches(&old).collect::<Vec<_>>(), [Err(Problem::OldFormat(1))]);
}

/// What is left of `bytes` after compaction keeps records by key.
fn compacted(bytes: &[u8], horizon: Option<i64>, keys: &[&[u8]]) -> Vec<u8> {
    let (batch, _) = Batch::split(bytes).expect("whole");
    let mut out = b"before".to_vec();
    let keep = |record: &Record<'_>| record.key.is_some_and(|key| keys.contains(&key));
    let count = write_compacted(&mut out, &batch, batch.body(), horizon, keep).expect("valid");
    let out = out.split_off(6);
    let (left, rest) = Batch::split(&out).expect("whole");
    assert_eq!((left.check_crc(), rest.len()), (Ok(()), 0));
    assert_eq!((left.record_count(), left.codec()), (count, Ok(Codec::None)));
    assert_eq!(records(left.body()).count(), usize::try_from(count).expect("few"));
    // A producer that repeats the batch is still known, and offsets have no hole that moves.
    assert_eq!((left.base_offset(), left.last_offset(), left.leader_epoch()), (100, 102, 4));
    assert_eq!((left.producer_id(), left.producer_epoch()), (9, 1));
    assert_eq!((left.base_sequence(), left.last_sequence()), (40, 42));
    out
}

/// Offsets and timestamps of a batch's records.
fn times(bytes: &[u8]) -> Vec<(i64, i64)> {
    let (batch, _) = Batch::split(bytes).expect("whole");
    records(batch.body())
        .map(|record| record.expect("valid"))
        .map(|record| {
            let offset = batch.base_offset() + i64::from(record.offset_delta);
            (offset, batch.base_timestamp() + record.timestamp_delta)
        })
        .collect()
}

#[test]
fn compaction_keeps_what_a_log_must_remember() {
    let bytes = three(&meta());
    let left = compacted(&bytes, None, &[b"a", b"c"]);
    assert_eq!(times(&left)[1], (102, 1010));
    let (batch, _) = Batch::split(&left).expect("whole");
    assert_eq!((batch.max_timestamp(), batch.has_delete_horizon()), (1010, false));
    let last = records(batch.body()).last().expect("two").expect("valid");
    assert_eq!(last.headers().count(), 2);

    // Nothing left: an empty batch, which compaction may meet again.
    let empty = compacted(&bytes, Some(5000), &[]);
    let (batch, _) = Batch::split(&empty).expect("whole");
    assert!(batch.is_empty() && !batch.has_delete_horizon());
    assert_eq!((batch.base_timestamp(), batch.max_timestamp()), (-1, 1020));
    assert_eq!(compacted(&empty, None, &[b"a"]), empty);
}

#[test]
fn compaction_leaves_the_brokers_time_alone() {
    let bytes = three(&BatchMeta { max_timestamp: 9999, flags: 0x08, ..meta() });
    let left = compacted(&bytes, None, &[b"a"]);
    let (batch, _) = Batch::split(&left).expect("whole");
    assert_eq!((batch.max_timestamp(), batch.is_log_append_time()), (9999, true));
}

#[test]
fn a_delete_horizon_is_set_once_and_moves_no_timestamp() {
    let left = compacted(&three(&meta()), Some(5000), &[b"a", b"b"]);
    let (batch, _) = Batch::split(&left).expect("whole");
    assert!(batch.has_delete_horizon());
    assert_eq!((batch.base_timestamp(), batch.max_timestamp()), (5000, 1020));
    let deltas: Vec<_> =
        records(batch.body()).map(|record| record.expect("valid").timestamp_delta).collect();
    assert_eq!(deltas, [-4000, -3980]);
    assert_eq!(times(&left), [(100, 1000), (101, 1020)]);
    let again = compacted(&left, Some(9000), &[b"b"]);
    let (batch, _) = Batch::split(&again).expect("whole");
    assert_eq!((batch.base_timestamp(), times(&again)), (5000, vec![(101, 1020)]));
}

#[test]
fn a_batch_that_cannot_be_read_is_not_compacted_and_leaves_nothing() {
    let bytes = three(&meta());
    let (batch, _) = Batch::split(&bytes).expect("whole");
    let mut out = b"before".to_vec();
    let cut = &batch.body()[..batch.body().len() - 1];
    assert!(write_compacted(&mut out, &batch, cut, None, |_| true).is_err());
    assert_eq!(out, b"before");
}

/// Everything that reads what a peer sends, on `bytes`; it must end without a panic.
fn read_all(bytes: &[u8]) {
    let _ = frame::frame_len(bytes, 1 << 20);
    let mut reader = Reader::new(bytes.get(frame::LEN_BYTES..).unwrap_or_default());
    if let Ok(header) = RequestHeader::read(&mut reader)
        && let Some(api) = Api::find(header.key)
    {
        let _ = shape::check(api, header.version, reader.rest());
        read_bodies(reader, header.version);
    }
    for version in [3, 9, 13, 18] {
        read_bodies(Reader::new(bytes), version);
    }
    for batch in batches(bytes).flatten() {
        read_batch(&batch);
    }
}

fn read_bodies(reader: Reader<'_>, version: i16) {
    if let Ok(request) = produce::Request::read(reader, version) {
        for partition in request.topics().flat_map(|(_, partitions)| partitions) {
            batches(partition.records.unwrap_or_default())
                .flatten()
                .for_each(|batch| read_batch(&batch));
        }
    }
    if let Ok(request) = fetch::Request::read(reader, version) {
        request.topics().for_each(|(_, partitions)| partitions.for_each(drop));
        request.forgotten().for_each(|(_, partitions)| partitions.for_each(drop));
    }
    if let Ok(response) = client::produce::Response::read(reader, version) {
        response.topics.for_each(|(_, partitions)| {
            partitions.for_each(|partition| partition.record_errors.for_each(drop));
        });
    }
    if let Ok(response) = client::fetch::Response::read(reader, version) {
        response.topics.for_each(|(_, partitions)| {
            partitions.for_each(|partition| partition.aborted.for_each(drop));
        });
    }
}

fn read_batch(batch: &Batch<'_>) {
    let _ = (batch.check(), batch.last_offset(), batch.last_sequence());
    let mut out = Vec::new();
    let _ = write_compacted(&mut out, batch, batch.body(), Some(i64::MIN), |_| true);
    for record in records(batch.body()).flatten() {
        record.headers().for_each(drop);
    }
}

/// The corpus: each file is bytes in hexadecimal digits after a line that says what they are.
fn corpus() -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/kafka");
    let mut found: Vec<_> = fs::read_dir(folder)
        .expect("the corpus")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a text file");
            let (_, digits) = text.split_once('\n').expect("a line before the digits");
            (path, hex(digits))
        })
        .collect();
    found.sort();
    assert!(found.len() >= 10, "{} files", found.len());
    found
}

/// Whether a decoder takes `bytes` for a message; how `name` begins says which, and how it ends the version.
fn is_taken(name: &str, bytes: &[u8]) -> bool {
    let version = name.rsplit('_').next().and_then(|last| last.parse().ok());
    let response = Reader::new(bytes);
    match (name, version) {
        (name, Some(version)) if name.starts_with("produce_response") => {
            client::produce::Response::read(response, version).is_ok()
        }
        (name, Some(version)) if name.starts_with("fetch_response") => {
            client::fetch::Response::read(response, version).is_ok()
        }
        (name, _) if name.starts_with("batch") => {
            let whole = Batch::split(bytes);
            whole.is_ok_and(|(batch, _)| {
                batch.check().is_ok() && records(batch.body()).all(|record| record.is_ok())
            })
        }
        _ => {
            let mut reader = Reader::new(&bytes[frame::LEN_BYTES..]);
            let header = RequestHeader::read(&mut reader).expect("a header");
            assert_eq!(frame::frame_len(bytes, 1 << 20), Ok(Some(bytes.len())), "{name}");
            match header.key {
                PRODUCE => produce::Request::read(reader, header.version).is_ok(),
                _ => fetch::Request::read(reader, header.version).is_ok(),
            }
        }
    }
}

#[test]
fn the_corpus_is_taken_and_refused_as_its_names_say() {
    for (path, bytes) in corpus() {
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
        let valid = name == "batch" || name.starts_with("produce_") || name.starts_with("fetch_");
        assert_eq!(is_taken(name, &bytes), valid, "{name}");
    }
}

#[test]
fn the_corpus_is_read_whole_cut_and_damaged() {
    for (_, bytes) in corpus() {
        read_all(&bytes);
        for at in 0..bytes.len() {
            read_all(&bytes[..at]);
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                read_all(&damaged);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn pieces_put_together_at_random_never_panic(
        pieces in prop::collection::vec((any::<prop::sample::Index>(), any::<[prop::sample::Index; 2]>()), 1..6),
        noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        let corpus = corpus();
        let mut bytes = Vec::new();
        for (file, ends) in &pieces {
            let (_, from) = &corpus[file.index(corpus.len())];
            let ends = ends.map(|end| end.index(from.len() + 1));
            bytes.extend_from_slice(&from[ends[0].min(ends[1])..ends[0].max(ends[1])]);
        }
        for (at, byte) in noise.iter().filter(|_| !bytes.is_empty()).copied().collect::<Vec<_>>() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        read_all(&bytes);
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_all(&bytes);
    }
}
