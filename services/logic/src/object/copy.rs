//! Another collection like one: for `COPY`.
//!
//! Built element by element, since what a collection says it holds must be what its own allocations hold.

use super::{
    Cx, Hash, List, Object, Set, Stream, Zset,
    entry::Digits,
    hash::FieldTtl,
    list::End,
    stream::{AddId, StreamId},
    zset::AddRules,
};
use crate::store::Expire;

impl Object {
    /// A collection of the same type with the same elements and attributes. Fields of a hash that are due are left
    /// out.
    #[must_use]
    pub fn copy(&self, cx: Cx<'_>) -> Self {
        match self {
            Self::Hash(hash) => copy_hash(hash, cx).into(),
            Self::Set(set) => copy_set(set, cx).into(),
            Self::Zset(zset) => copy_zset(zset, cx).into(),
            Self::List(list) => copy_list(list, cx).into(),
            Self::Stream(stream) => Box::new(copy_stream(stream, cx)).into(),
        }
    }
}

fn copy_hash(from: &Hash, cx: Cx<'_>) -> Hash {
    let timed = from.next_due_ms().is_some();
    let (mut field_digits, mut value_digits) = (Digits::new(), Digits::new());
    let mut to = Hash::new();
    for (field, value) in from.iter(cx.now_ms) {
        let field = field.text(&mut field_digits);
        let expire = match timed.then(|| from.ttl(field, cx)) {
            Some(FieldTtl::At(at_ms)) => Expire::At(at_ms),
            _ => Expire::Clear,
        };
        to.set(field, value.text(&mut value_digits), expire, cx);
    }
    to
}

fn copy_set(from: &Set, cx: Cx<'_>) -> Set {
    let mut digits = Digits::new();
    let mut to = Set::new();
    for member in from {
        to.insert(member.text(&mut digits), cx);
    }
    to
}

fn copy_zset(from: &Zset, cx: Cx<'_>) -> Zset {
    let mut digits = Digits::new();
    let mut to = Zset::new();
    for item in from.iter(0..from.len()) {
        // A score that is there is a number.
        let _ = to.add(item.member.text(&mut digits), item.score, AddRules::default(), cx);
    }
    to
}

fn copy_list(from: &List, cx: Cx<'_>) -> List {
    let mut digits = Digits::new();
    let mut to = List::new(cx.limits.list_max_listpack_size);
    for value in from.iter() {
        to.push(End::Back, value.text(&mut digits));
    }
    to
}

fn copy_stream(from: &Stream, cx: Cx<'_>) -> Stream {
    let limits = cx.limits.stream();
    let all = (StreamId::new(0, 0), StreamId::new(u64::MAX, u64::MAX));
    let mut to = Stream::new();
    for entry in from.range(all.0, all.1) {
        // Ids ascend, and an entry that fitted fits.
        let _ = to.add(AddId::Given(entry.id()), cx.now_ms, entry.fields(), &limits);
    }
    // What contradicts no entry there contradicts none here.
    let _ = to.set_id(from.last_id(), Some(from.entries_added()), Some(from.max_deleted_id()));
    for group in from.groups() {
        let name = group.name();
        to.create_group(name, group.last_id(), group.entries_read());
        for consumer in group.consumers() {
            let _ = to.create_consumer(name, consumer.name(), consumer.seen_ms());
            for pending in consumer.pending(all.0, all.1) {
                let _ = to.restore_pending(name, &pending, consumer.seen_ms());
            }
        }
    }
    to
}
