//! Random collections: written and read back, with any limits.

use proptest::prelude::*;

use super::*;
use crate::{
    object::{
        Hash, List, Set, Stream, Zset, list::End, stream::AddId, stream::StreamId, zset::AddRules,
    },
    store::Expire,
};

fn word() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..12),
        2 => any::<i64>().prop_map(|value| value.to_string().into_bytes()),
        1 => (-200i64..200).prop_map(|value| value.to_string().into_bytes()),
        1 => (prop::collection::vec(any::<u8>(), 1..4), 1usize..40).prop_map(|(part, n)| part.repeat(n)),
    ]
}

fn words() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(word(), 1..60)
}

fn build(kind: u8, words: &[Vec<u8>], cx: Cx<'_>) -> Object {
    let pairs = || words.iter().zip(words.iter().rev());
    match kind {
        0 => {
            let mut list = List::new(cx.limits.list_max_listpack_size);
            words.iter().for_each(|word| list.push(End::Back, word));
            list.into()
        }
        1 => {
            let mut set = Set::new();
            for word in words {
                set.insert(word, cx);
            }
            set.into()
        }
        2 => {
            let mut zset = Zset::new();
            for (n, word) in words.iter().enumerate() {
                let score = f64::from(u32::try_from(n).unwrap()) / 7.0 - 2.0;
                let _ = zset.add(word, score, AddRules::default(), cx);
            }
            zset.into()
        }
        3 | 4 => {
            let mut hash = Hash::new();
            for (n, (field, value)) in pairs().enumerate() {
                let timed = kind == 4 && n % 3 == 0;
                let expire =
                    if timed { Expire::At(NOW_MS + n as u64 * 1000 + 1) } else { Expire::Clear };
                hash.set(field, value, expire, cx);
            }
            hash.into()
        }
        _ => {
            let mut stream = Stream::new();
            let limits = cx.limits.stream();
            for (n, (field, value)) in pairs().enumerate() {
                let id = StreamId::new(1000 + n as u64 / 3, n as u64 + 1);
                let field = if n % 4 == 0 { &field[..] } else { b"f" };
                stream.add(AddId::Given(id), 0, [(field, &value[..])], &limits).unwrap();
                if n % 5 == 2 {
                    stream.delete(id);
                }
            }
            stream.create_group(b"g", StreamId::MIN, Some(0));
            let _ = stream.read_new(b"g", b"c", words.len() as u64 / 2, false, NOW_MS, |_| {});
            Box::new(stream).into()
        }
    }
}

proptest! {
    #[test]
    fn collections_come_back(kind in 0u8..6, words in words(), small in 0usize..40, fill in -5i32..20) {
        let mut with = With::new();
        with.limits = Limits {
            hash_max_listpack_entries: small,
            set_max_intset_entries: small,
            zset_max_listpack_entries: small,
            list_max_listpack_size: fill,
            stream_node_max_entries: small + 1,
            ..Limits::default()
        };
        let value = Value::Object(build(kind, &words, with.cx()));
        let payload = payload_of(&value, with.cx());
        let back = restore(&payload, with.cx()).unwrap();
        prop_assert_eq!(contents(&back), contents(&value));
        let (Value::Object(one), Value::Object(other)) = (&value, &back) else { panic!() };
        prop_assert_eq!(one.len(), other.len());
        // In a shard with other limits it takes another form, and holds the same.
        let elsewhere = With::new();
        let moved = restore(&payload, elsewhere.cx()).unwrap();
        prop_assert_eq!(contents(&moved), contents(&value));
        let back = restore(&payload_of(&moved, elsewhere.cx()), with.cx()).unwrap();
        prop_assert_eq!(contents(&back), contents(&value));
    }

    #[test]
    fn strings_come_back(text in word(), n in 1usize..100, compress in any::<bool>()) {
        let with = With::new();
        let text = text.repeat(n);
        let mut writer = Writer::new(compress);
        dump(&mut writer, store::Value::Inline(&text), with.cx());
        let Value::String(back) = restore(&writer.out, with.cx()).unwrap() else { panic!() };
        prop_assert_eq!(&back[..], &text[..]);
    }
}
