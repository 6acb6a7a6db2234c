//! Limits, each at its bound and one beyond; steps that stay small however large the stream is.

use super::*;

const V: &[u8] = b"v";

fn filled(entries: u64, limits: &Limits) -> Stream {
    let mut stream = Stream::new();
    for ms in 1..=entries {
        let id = AddId::Given(StreamId::new(ms, 0));
        stream.add(id, 0, [(&b"field"[..], V)], limits).unwrap();
    }
    stream
}

#[test]
fn a_node_takes_so_many_entries_and_no_more() {
    for (node_max_entries, entries, nodes) in [(1, 3, 3), (100, 100, 1), (100, 101, 2), (3, 9, 3)] {
        let limits = Limits { node_max_entries, ..Limits::default() };
        assert_eq!(filled(entries, &limits).node_count(), nodes);
    }
    let none = Limits { node_max_bytes: 0, node_max_entries: 0 };
    assert_eq!(filled(u64::from(NODE_MAX_ENTRIES), &none).node_count(), 1);
    assert_eq!(filled(u64::from(NODE_MAX_ENTRIES) + 1, &none).node_count(), 2);
    // Deleted entries count: a node's numbers never grow beyond the limit.
    let limits = Limits { node_max_entries: 10, ..Limits::default() };
    let mut stream = filled(10, &limits);
    assert!((1..=9).all(|ms| stream.delete(StreamId::new(ms, 0))));
    stream.add(AddId::AutoSeq(11), 0, [(V, V)], &limits).unwrap();
    assert_eq!((stream.node_count(), stream.len()), (2, 2));
    stream.check();
}

#[test]
fn a_node_takes_so_many_bytes_and_no_more() {
    let limits = Limits { node_max_bytes: 1000, node_max_entries: 0 };
    let mut stream = Stream::new();
    let value = [7; 100];
    for _ in 0..100 {
        stream.add(AddId::Auto, 5, [(V, &value[..])], &limits).unwrap();
    }
    // An entry is its value and eleven bytes more in Redis' format; that of the one that comes is counted without them.
    assert_eq!(stream.node_count(), 100usize.div_ceil(8));
    assert!(stream.entries.mem_bytes() < 100 * 110 + 2048);
    // A larger entry gets a node of its own, and what follows it another.
    let before = stream.node_count();
    for len in [5000, 10, 5000, 5000] {
        stream.add(AddId::Auto, 5, [(V, &vec![1; len][..])], &limits).unwrap();
    }
    assert_eq!(stream.node_count(), before + 4);
    stream.check();
}

#[test]
fn an_entry_of_a_gibibyte_and_a_byte_is_refused() {
    let mut stream = Stream::new();
    let part = vec![0; 1 << 20];
    let pairs = std::iter::repeat_n((&b""[..], &part[..]), 1024).chain([(V, &b""[..])]);
    let got = stream.add(AddId::Auto, 5, pairs, &Limits::default());
    assert_eq!(got, Err(AddError::TooLarge));
    assert_eq!((stream.mem_bytes(), stream.last_id()), (0, StreamId::MIN));
}

#[test]
fn the_last_id_of_all_ends_a_stream() {
    let mut stream = Stream::new();
    let limits = Limits::default();
    assert_eq!(stream.next_id(AddId::Given(StreamId::MIN), 5), Err(AddError::Zero));
    stream.set_id(StreamId::new(u64::MAX, u64::MAX - 1), None, None).unwrap();
    let last = stream.add(AddId::Auto, 5, [(V, V)], &limits);
    assert_eq!(last, Ok(StreamId::MAX));
    for id in [AddId::Auto, AddId::AutoSeq(u64::MAX), AddId::Given(StreamId::MAX)] {
        assert_eq!(stream.add(id, 5, [(V, V)], &limits), Err(AddError::Exhausted));
    }
    assert!(stream.create_group(b"g", StreamId::MAX, None));
    assert_eq!(stream.read_new(b"g", b"c", 0, false, 5, |_| {}), Ok(0));
    assert!(stream.after(StreamId::MAX).is_none());
    assert_eq!(stream.range(StreamId::MAX, StreamId::MAX).count(), 1);
    // A millisecond whose numbers are used up stays so.
    let mut stream = Stream::new();
    stream.set_id(StreamId::new(7, u64::MAX), None, None).unwrap();
    assert_eq!(stream.next_id(AddId::AutoSeq(7), 0), Err(AddError::NotAbove));
    assert_eq!(stream.next_id(AddId::Auto, 0), Ok(StreamId::new(8, 0)));
}

#[test]
fn large_work_goes_in_small_steps() {
    let mut stream = filled(200_000, &Limits::default());
    assert!(stream.create_group(b"g", StreamId::MIN, None));
    assert_eq!(stream.read_new(b"g", b"c", 0, false, 5, |_| {}), Ok(200_000));
    let mut trim = Trim { to: TrimTo::MaxLen(50), approx: false, limit: 0 };
    let mut steps = 0;
    loop {
        let step = stream.trim(&mut trim, 16);
        assert!(step.removed <= 1600);
        steps += 1;
        if step.done {
            break;
        }
    }
    assert!(steps > 120 && stream.len() == 50);
    let step = stream.delete_consumer(b"g", b"c", 1000).unwrap();
    assert!(!step.done && (1000..1200).contains(&step.removed));
    stream.check();
    let before = stream.mem_bytes();
    assert!(stream.destroy_group(b"g"));
    assert!(stream.mem_bytes() + 400 > before, "nothing was freed yet");
    let (mut steps, mut held) = (0, stream.mem_bytes());
    while !stream.reclaim(1000) {
        assert!(held - stream.mem_bytes() < 100_000, "a step that freed much");
        held = stream.mem_bytes();
        steps += 1;
    }
    assert!(steps > 150);
    stream.check();
    assert!(stream.mem_bytes() < 8192, "{} bytes", stream.mem_bytes());
}

#[test]
fn an_entry_and_a_delivery_cost_little() {
    let limits = Limits::default();
    let mut stream = Stream::new();
    for n in 0..100_000u64 {
        let pairs = [(&b"temperature"[..], &b"21.5"[..]), (b"humidity", b"40.1")];
        stream.add(AddId::Auto, 1_900_000_000_000 + n * 10, pairs, &limits).unwrap();
    }
    let per_entry = stream.mem_bytes() / 100_000;
    assert!(per_entry <= 18, "{per_entry} bytes for eight of values");
    stream.create_group(b"g", StreamId::MIN, None);
    stream.read_new(b"g", b"c", 0, false, 5, |_| {}).unwrap();
    let per_delivery = stream.mem_bytes() / 100_000 - per_entry;
    assert!(per_delivery <= 60, "{per_delivery} bytes");
}

#[test]
fn a_stream_is_restored_from_what_it_shows() {
    let mut stream = filled(500, &Limits::default());
    for ms in [3, 4, 100, 500] {
        assert!(stream.delete(StreamId::new(ms, 0)));
    }
    assert!(stream.create_group(b"g", StreamId::MIN, Some(0)));
    for (consumer, count) in [(&b"a"[..], 50), (b"b", 70)] {
        stream.read_new(b"g", consumer, count, false, 77, |_| {}).unwrap();
    }
    assert!(stream.delete(StreamId::new(60, 0)), "pending, and gone");
    let mut copy = Stream::new();
    for entry in stream.range(StreamId::MIN, StreamId::MAX) {
        let added = copy.add(AddId::Given(entry.id()), 0, entry.fields(), &Limits::default());
        assert_eq!(added, Ok(entry.id()));
    }
    let (added, deleted) = (stream.entries_added(), stream.max_deleted_id());
    copy.set_id(stream.last_id(), Some(added), Some(deleted)).unwrap();
    for group in stream.groups() {
        assert!(copy.create_group(group.name(), group.last_id(), group.entries_read()));
        for consumer in group.consumers() {
            copy.create_consumer(group.name(), consumer.name(), consumer.seen_ms()).unwrap();
            for pending in consumer.pending(StreamId::MIN, StreamId::MAX) {
                copy.restore_pending(group.name(), &pending, consumer.seen_ms()).unwrap();
            }
        }
    }
    copy.check();
    let show = |stream: Stream| {
        let mut server = command::Server { stream, limits: Limits::default() };
        server.run(&["XINFO", "STREAM", "FULL", "COUNT", "0"])
    };
    let keys = |text: String| text.split("last-generated-id").nth(1).unwrap().to_owned();
    assert_eq!(keys(show(copy)), keys(show(stream)));
}

#[test]
fn what_is_reclaimed_never_makes_memory_grow() {
    let mut stream = filled(1000, &Limits { node_max_entries: 10, ..Limits::default() });
    for n in 0..1000u32 {
        let name = format!("group-{n}").into_bytes();
        assert!(stream.create_group(&name, StreamId::MIN, None));
        for consumer in [&b"a"[..], b"b"] {
            stream.read_new(&name, consumer, u64::from(n % 3), false, 5, |_| {}).unwrap();
            if n % 3 == 0 {
                break;
            }
        }
    }
    for n in (0..1000).step_by(100) {
        assert!(stream.destroy_group(format!("group-{n}").as_bytes()));
    }
    stream.clear();
    stream.check();
    assert_eq!((stream.len(), stream.group_count(), stream.last_id()), (0, 0, StreamId::MIN));
    stream.add(AddId::Auto, 5, [(V, V)], &Limits::default()).unwrap();
    let (mut held, mut steps) = (stream.mem_bytes(), 0);
    while !stream.reclaim(1) {
        assert!(stream.mem_bytes() <= held);
        held = stream.mem_bytes();
        if steps % 100 == 0 {
            stream.check();
        }
        steps += 1;
    }
    assert!(steps > 1000 && stream.mem_bytes() < 200);
    assert_eq!(stream.len(), 1);
    stream.check();
}
