//! Types that other versions write, laid out by hand from their description, and faults in each.

use super::*;

/// A string with its length in front.
fn text(bytes: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(false);
    writer.len(bytes.len());
    writer.bytes(bytes);
    writer.out
}

fn load(kind: u8, bytes: &[u8]) -> Result<Vec<String>, Bad> {
    let with = With::new();
    let mut whole = Cursor::new(bytes, 0);
    let skipped = skip::skip(&mut whole, kind);
    let value = load_whole(&mut Cursor::new(bytes, 0), kind, with.cx())?;
    assert_eq!(skipped, Ok(()));
    assert!(whole.rest().is_empty(), "what is passed over is what is read");
    Ok(contents(&value))
}

fn show(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| format!("{:?}", word.as_bytes())).collect()
}

fn listpack_of(words: &[&str]) -> Vec<u8> {
    let mut packed = crate::object::packed::Packed::new();
    for word in words {
        packed.push_back(word.as_bytes());
    }
    listpack::wrap(&packed)
}

/// A ziplist of these entries, each already without the length of the one before.
fn ziplist_of(entries: &[&[u8]]) -> Vec<u8> {
    let (mut body, mut before, mut tail) = (Vec::new(), 0, 10);
    for entry in entries {
        tail = body.len() + 10;
        if before < 254 {
            body.push(u8::try_from(before).unwrap());
        } else {
            body.push(254);
            body.extend(u32::try_from(before).unwrap().to_le_bytes());
        }
        body.extend_from_slice(entry);
        before = body.len() + 10 - tail;
    }
    let mut out = u32::try_from(body.len() + 11).unwrap().to_le_bytes().to_vec();
    out.extend(u32::try_from(tail).unwrap().to_le_bytes());
    out.extend(u16::try_from(entries.len()).unwrap().to_le_bytes());
    out.extend(body);
    out.push(255);
    out
}

const LONG: [u8; 302] = {
    let mut entry = [b'x'; 302];
    entry[0] = 0x41;
    entry[1] = 0x2C;
    entry
};

#[test]
fn ziplists_have_every_kind_of_entry() {
    let entries: [&[u8]; 9] = [
        &[3, b'a', b'b', b'c'],
        &LONG,
        &[0xC0, 0x00, 0x80],
        &[0xD0, 0, 0, 0, 0x80],
        &[0xE0, 0, 0, 0, 0, 0, 0, 0, 0x80],
        &[0xF0, 0xFF, 0xFF, 0xFF],
        &[0xFE, 0x80],
        &[0xF1],
        &[0xFD],
    ];
    let words = [
        "abc",
        &"x".repeat(300),
        "-32768",
        "-2147483648",
        "-9223372036854775808",
        "-1",
        "-128",
        "0",
        "12",
    ];
    let good = ziplist_of(&entries);
    assert_eq!(load(kind::LIST_ZIPLIST, &text(&good)).unwrap(), show(&words));
    let mut node = vec![1];
    node.extend(text(&good));
    assert_eq!(load(kind::LIST_QUICKLIST, &node).unwrap(), show(&words));
    for at in 0..10 {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert_eq!(load(kind::LIST_ZIPLIST, &text(&bad)).unwrap_err().at, 0, "header byte {at}");
    }
    assert!(load(kind::LIST_ZIPLIST, &text(&ziplist_of(&[]))).is_err(), "empty");
}

#[test]
fn small_collections_of_all_times() {
    let pairs: [&[u8]; 4] = [&[1, b'a'], &[0xF2], &[1, b'b'], &[3, b'2', b'.', b'5']];
    let ziplist = text(&ziplist_of(&pairs));
    let hash = load(kind::HASH_ZIPLIST, &ziplist).unwrap();
    assert_eq!(hash.len(), 2);
    let zset = load(kind::ZSET_ZIPLIST, &ziplist).unwrap();
    assert_eq!(zset, [format!("{:?} 1", b"a"), format!("{:?} 2.5", b"b")]);
    assert!(load(kind::HASH_ZIPLIST, &text(&ziplist_of(&pairs[..3]))).is_err(), "odd");
    let twice: [&[u8]; 4] = [&[1, b'a'], &[0xF2], &[1, b'a'], &[0xF2]];
    assert_eq!(
        load(kind::HASH_ZIPLIST, &text(&ziplist_of(&twice))).unwrap_err().what,
        "an element that is there twice"
    );
    let zipmap = [2, 1, b'a', 2, 1, b'x', b'y', b'?', 1, b'b', 0, 0, 255];
    assert_eq!(load(kind::HASH_ZIPMAP, &text(&zipmap)).unwrap().len(), 2);
    assert!(load(kind::HASH_ZIPMAP, &text(&zipmap[..12])).is_err());
    let words = listpack_of(&["b", "a", "7"]);
    assert_eq!(load(kind::SET_LISTPACK, &text(&words)).unwrap().len(), 3);
    let plain = [&[2][..], &text(b"v"), &text(b"w")].concat();
    assert_eq!(load(kind::LIST, &plain).unwrap(), show(&["v", "w"]));
    assert_eq!(load(kind::SET, &plain).unwrap(), show(&["v", "w"]));
    let scored = [
        &[4][..],
        &text(b"a"),
        &[3, b'1', b'.', b'5'],
        &text(b"b"),
        &[254],
        &text(b"c"),
        &[255],
        &text(b"d"),
        &[1, b'0'],
    ]
    .concat();
    let zset = load(kind::ZSET, &scored).unwrap();
    assert_eq!(zset.first().unwrap(), &format!("{:?} -inf", b"c"));
    let not = [&[1][..], &text(b"a"), &[253]].concat();
    assert_eq!(load(kind::ZSET, &not).unwrap_err().what, "not a score");
    let plain_node = [&[2, 1][..], &text(b"v"), &[2], &text(&listpack_of(&["w"]))].concat();
    assert_eq!(load(kind::LIST_QUICKLIST_2, &plain_node).unwrap(), show(&["v", "w"]));
    assert_eq!(load(kind::LIST_QUICKLIST_2, &[1, 3, 0]).unwrap_err().what, "not a node of a list");
}

#[test]
fn fields_that_expire() {
    let (soon, late) = (NOW_MS + 1000, NOW_MS + 3000);
    let mut writer = Writer::new(false);
    writer.millis(soon);
    writer.len(4);
    for (ttl, field) in [(1u64, "soon"), (2001, "late"), (0, "ever"), (0, "n")] {
        writer.number(ttl);
        writer.string(field.as_bytes());
        writer.string(b"v");
    }
    let hash = load(kind::HASH_TIMED, &writer.out).unwrap();
    assert_eq!(hash.len(), 4);
    assert!(hash.iter().any(|field| field.contains(&format!("At({late})"))), "{hash:?}");
    let listpack =
        listpack_of(&["soon", "v", &soon.to_string(), "past", "v", "1000", "ever", "v", "0"]);
    let timed = [&soon.to_le_bytes()[..], &text(&listpack)].concat();
    assert_eq!(load(kind::HASH_TIMED_LISTPACK, &timed).unwrap().len(), 2, "one is due");
    assert_eq!(load(kind::HASH_TIMED_LISTPACK_RC, &text(&listpack)).unwrap().len(), 2);
    let mut writer = Writer::new(false);
    writer.len(1);
    writer.number(soon);
    writer.string(b"f");
    writer.string(b"v");
    assert_eq!(load(kind::HASH_TIMED_RC, &writer.out).unwrap().len(), 1);
    let late = [&[1, 0x81][..], &u64::MAX.to_be_bytes(), &text(b"f"), &text(b"v")].concat();
    assert_eq!(load(kind::HASH_TIMED_RC, &late).unwrap_err().what, "an expiry beyond all time");
}

#[test]
fn streams_of_other_versions() {
    let payload = recorded().into_iter().find(|case| case.name == "stream-groups").unwrap().payload;
    let value = &payload[1..payload.len() - 10];
    let newest = contents(&restore(&payload, With::new().cx()).unwrap());
    // What an older version does not have follows from the entries.
    let with = With::new();
    let Value::Object(Object::Stream(stream)) = restore(&payload, with.cx()).unwrap() else {
        panic!()
    };
    let mut old = Writer::new(true);
    stream::save(&mut old, &stream);
    assert_eq!(old.out, value);
    assert_eq!(load(kind::STREAM_2, value).unwrap(), newest);
    assert!(load(kind::STREAM, value).is_err(), "of another version");
}
