//! Some entries of a stream in one allocation.
//!
//! ```text
//! node  = head-length field-count field*          the first entry's field names
//!         item*
//! item  = body-length body back-length            the last is read backwards, and counts the two before it
//! body  = flags ms-delta seq                      seq is a difference too when ms-delta is 0
//!         (value* | field-count (field value)*)   the former when the fields are those of the head
//! field, value = length bytes
//! ```
//! Numbers are LEB128. Deleting an entry sets its flag; once marked items outnumber the others the
//! node is rewritten without them, except its last item, whose id bounds what the node has held.
//!
//! Invariants: ids of items without the mark ascend, and a marked one is below those after it unless
//! the stream's last id was set back since; `live` counts items without the mark, `dead` every
//! deletion since the node began, `stale` the marked items still in it.
//! Next: `entries.rs` keeps the nodes in order.

use super::{id::StreamId, listpack};

const DELETED: u8 = 1;
const SAME_FIELDS: u8 = 2;
/// Marked items a node keeps at least before it is rewritten.
const STALE_MIN: u32 = 8;

/// A field and its value.
pub type Pair<'a> = (&'a [u8], &'a [u8]);

/// One entry, where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    id: StreamId,
    count: usize,
    /// Names that are not beside their values.
    pub(super) names: Option<&'a [u8]>,
    body: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> StreamId {
        self.id
    }

    /// Number of fields.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether it has no field.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Its fields and values in the order in which they were given.
    #[must_use]
    pub const fn fields(&self) -> Fields<'a> {
        Fields { left: self.count, names: self.names, body: self.body }
    }
}

/// Fields and values of an entry.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    left: usize,
    names: Option<&'a [u8]>,
    body: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Pair<'a>;

    fn next(&mut self) -> Option<Pair<'a>> {
        self.left = self.left.checked_sub(1)?;
        let name = match &mut self.names {
            Some(names) => take_text(names)?,
            None => take_text(&mut self.body)?,
        };
        Some((name, take_text(&mut self.body)?))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Fields<'_> {}

const fn number_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7F) as u8);
}

fn read_number(bytes: &[u8]) -> Option<(u64, usize)> {
    match bytes {
        [byte, ..] if *byte < 0x80 => Some((u64::from(*byte), 1)),
        _ => read_long(bytes.iter()),
    }
}

fn read_long<'a>(bytes: impl Iterator<Item = &'a u8>) -> Option<(u64, usize)> {
    let mut value = 0;
    for (at, &byte) in bytes.enumerate().take(10) {
        value |= u64::from(byte & 0x7F) << (7 * at);
        if byte < 0x80 {
            return Some((value, at + 1));
        }
    }
    None
}

fn read_len(bytes: &[u8]) -> Option<(usize, usize)> {
    let (value, len) = read_number(bytes)?;
    Some((usize::try_from(value).ok()?, len))
}

/// The number that was written backwards and ends where `bytes` end.
fn read_len_back(bytes: &[u8]) -> Option<(usize, usize)> {
    let (value, len) = match bytes {
        [.., byte] if *byte < 0x80 => (u64::from(*byte), 1),
        _ => read_long(bytes.iter().rev())?,
    };
    Some((usize::try_from(value).ok()?, len))
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let (value, len) = read_number(bytes)?;
    *bytes = bytes.get(len..)?;
    Some(value)
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text);
}

const fn text_len(text: &[u8]) -> usize {
    number_len(text.len() as u64) + text.len()
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, at) = read_len(bytes)?;
    let (text, rest) = bytes.get(at..)?.split_at_checked(len)?;
    *bytes = rest;
    Some(text)
}

/// What is common to the items of a node.
#[derive(Clone, Copy)]
struct Head<'a> {
    count: usize,
    names: &'a [u8],
    /// Where items begin.
    end: usize,
}

/// An item and where it lies.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) entry: Entry<'a>,
    pub(super) dead: bool,
    pub(super) from: usize,
    pub(super) to: usize,
    flags_at: usize,
}

/// An item whose fields were not looked at.
struct Mark<'a> {
    id: StreamId,
    flags: u8,
    body: &'a [u8],
    from: usize,
    flags_at: usize,
    /// Without the length behind.
    len: usize,
}

impl Mark<'_> {
    const fn is_dead(&self) -> bool {
        self.flags & DELETED != 0
    }

    /// Where the next one begins.
    const fn to(&self) -> usize {
        self.from + self.len + number_len(self.len as u64)
    }
}

/// The node. Its first id is kept by its owner, who hands it in as `base`.
pub(super) struct Node {
    bytes: Vec<u8>,
    pub(super) live: u32,
    pub(super) dead: u32,
    stale: u32,
    /// Bytes of all items there ever were and of the head, but for its counts, in Redis' format.
    packed: usize,
}

impl Node {
    /// An empty one for entries of such fields.
    pub(super) fn new<'p>(pairs: impl Iterator<Item = Pair<'p>> + Clone) -> Self {
        let count = pairs.clone().count() as u64;
        let names = pairs.clone().map(|pair| text_len(pair.0)).sum::<usize>();
        let len = number_len(count) + names;
        let mut bytes = Vec::with_capacity(number_len(len as u64) + len);
        put_number(&mut bytes, len as u64);
        put_number(&mut bytes, count);
        // With a zero that ends the head.
        let mut packed =
            listpack::EMPTY_LEN + listpack::count_len(count) + listpack::integer_len(0);
        for (name, _) in pairs {
            put_text(&mut bytes, name);
            packed += listpack::text_len(name);
        }
        Self { bytes, live: 0, dead: 0, stale: 0, packed }
    }

    /// Bytes of heap held.
    pub(super) const fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Bytes in use.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes that Redis would use for it.
    pub(super) fn packed_len(&self) -> usize {
        self.packed + listpack::count_len(self.live.into()) + listpack::count_len(self.dead.into())
    }

    /// Gives back what was kept for growth.
    pub(super) fn seal(&mut self) {
        self.bytes.shrink_to_fit();
    }

    fn head(&self) -> Option<Head<'_>> {
        let (len, at) = read_len(&self.bytes)?;
        let mut names = self.bytes.get(at..at + len)?;
        let count = usize::try_from(take_number(&mut names)?).ok()?;
        Some(Head { count, names, end: at + len })
    }

    /// Adds an entry above all others.
    pub(super) fn push<'p>(
        &mut self,
        base: StreamId,
        id: StreamId,
        pairs: impl Iterator<Item = Pair<'p>> + Clone,
    ) {
        let Some(head) = self.head() else { return };
        let mut names = head.names;
        let count = pairs.clone().count();
        let same = count == head.count
            && pairs.clone().all(|(name, _)| take_text(&mut names) == Some(name));
        let ms = id.ms.wrapping_sub(base.ms);
        let seq = if ms == 0 { id.seq.wrapping_sub(base.seq) } else { id.seq };
        let values: usize = pairs.clone().map(|pair| text_len(pair.1)).sum();
        let mut body = 1 + number_len(ms) + number_len(seq) + values;
        if !same {
            body += number_len(count as u64);
            body += pairs.clone().map(|pair| text_len(pair.0)).sum::<usize>();
        }
        let total = (number_len(body as u64) + body) as u64;
        self.packed += packed_item((base, id), same, pairs.clone());
        self.reserve(number_len(body as u64) + body + number_len(total));
        let out = &mut self.bytes;
        put_number(out, body as u64);
        out.push(if same { SAME_FIELDS } else { 0 });
        put_number(out, ms);
        put_number(out, seq);
        if !same {
            put_number(out, count as u64);
        }
        for (name, value) in pairs {
            if !same {
                put_text(out, name);
            }
            put_text(out, value);
        }
        let end = out.len();
        put_number(out, total);
        out.get_mut(end..).unwrap_or_default().reverse();
        self.live += 1;
    }

    /// Room for an item: twice as much as before, so that a full node was copied few times.
    fn reserve(&mut self, more: usize) {
        let room = self.bytes.capacity() - self.bytes.len();
        if room < more {
            self.bytes.reserve_exact(if self.live == 0 {
                more
            } else {
                more.max(self.bytes.len())
            });
        }
    }

    /// The item that begins at `from`; 0 stands for the first.
    pub(super) fn item(&self, base: StreamId, from: usize) -> Option<Item<'_>> {
        let head = self.head()?;
        let mark = self.mark_at(base, from.max(head.end))?;
        let mut body = mark.body;
        let (count, names) = if mark.flags & SAME_FIELDS == 0 {
            (usize::try_from(take_number(&mut body)?).ok()?, None)
        } else {
            (head.count, Some(head.names))
        };
        let Mark { id, from, flags_at, .. } = mark;
        let entry = Entry { id, count, names, body };
        Some(Item { entry, dead: mark.is_dead(), from, to: mark.to(), flags_at })
    }

    /// What of an item is needed to pass over it.
    fn mark_at(&self, base: StreamId, from: usize) -> Option<Mark<'_>> {
        let bytes = self.bytes.get(from..)?;
        let (len, at) = read_len(bytes)?;
        let (&flags, mut body) = bytes.get(at..at + len)?.split_first()?;
        let ms = take_number(&mut body)?;
        let seq = take_number(&mut body)?;
        let seq = if ms == 0 { base.seq.wrapping_add(seq) } else { seq };
        let id = StreamId::new(base.ms.wrapping_add(ms), seq);
        Some(Mark { id, flags, body, from, flags_at: from + at, len: at + len })
    }

    /// The item that ends at `to`; [`len`](Self::len) for the last.
    pub(super) fn item_before(&self, base: StreamId, to: usize) -> Option<Item<'_>> {
        if to <= self.head()?.end {
            return None;
        }
        let (total, len) = read_len_back(self.bytes.get(..to)?)?;
        self.item(base, to.checked_sub(total + len)?)
    }

    /// The id of the last entry that was added, deleted or not.
    pub(super) fn last_id(&self, base: StreamId) -> StreamId {
        self.item_before(base, self.len()).map_or(base, |item| item.entry.id)
    }

    pub(super) fn items(&self, base: StreamId) -> impl Iterator<Item = Item<'_>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let item = self.item(base, at)?;
            at = item.to;
            Some(item)
        })
    }

    pub(super) fn find(&self, base: StreamId, id: StreamId) -> Option<Entry<'_>> {
        self.item(base, self.place_of(base, id)?.0).map(|item| item.entry)
    }

    /// Where an entry that is not deleted begins, and its flags.
    fn place_of(&self, base: StreamId, id: StreamId) -> Option<(usize, usize)> {
        let mut at = self.head()?.end;
        loop {
            let mark = self.mark_at(base, at)?;
            if mark.id >= id && !mark.is_dead() {
                return (mark.id == id).then_some((at, mark.flags_at));
            }
            at = mark.to();
        }
    }

    /// Deletes one entry; whether it was there.
    pub(super) fn delete(&mut self, base: StreamId, id: StreamId) -> bool {
        let Some((_, at)) = self.place_of(base, id) else { return false };
        self.mark(at);
        if self.live > 0 {
            self.tidy(base);
        }
        true
    }

    /// Deletes up to `most` entries below an id from the front; how many.
    pub(super) fn delete_front(&mut self, base: StreamId, most: u64, below: StreamId) -> u64 {
        let (mut at, mut deleted) = (0, 0);
        while deleted < most {
            let Some(item) = self.item(base, at) else { break };
            if item.entry.id >= below {
                break;
            }
            let (dead, flags_at) = (item.dead, item.flags_at);
            at = item.to;
            if !dead {
                self.mark(flags_at);
                deleted += 1;
            }
        }
        self.tidy(base);
        deleted
    }

    /// The names of the first entry's fields.
    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> {
        let head = self.head();
        let mut names = head.map_or(&[][..], |head| head.names);
        (0..head.map_or(0, |head| head.count)).map_while(move |_| take_text(&mut names))
    }

    /// Marks the item that was pushed last.
    pub(super) fn mark_last(&mut self, base: StreamId) {
        if let Some(at) = self.item_before(base, self.len()).map(|item| item.flags_at) {
            self.mark(at);
        }
    }

    fn mark(&mut self, flags_at: usize) {
        if let Some(flags) = self.bytes.get_mut(flags_at) {
            *flags |= DELETED;
            self.live -= 1;
            self.dead += 1;
            self.stale += 1;
        }
    }

    /// Drops marked items when they are the larger part.
    fn tidy(&mut self, base: StreamId) {
        if self.stale < STALE_MIN || self.stale <= self.live {
            return;
        }
        let Some(head) = self.head() else { return };
        let keeps = |item: &Item<'_>| !item.dead || item.to == self.len();
        let kept: usize = self.items(base).filter(keeps).map(|item| item.to - item.from).sum();
        let mut bytes = Vec::with_capacity(head.end + kept);
        bytes.extend_from_slice(self.bytes.get(..head.end).unwrap_or_default());
        let mut stale = 0;
        for item in self.items(base).filter(keeps) {
            bytes.extend_from_slice(self.bytes.get(item.from..item.to).unwrap_or_default());
            stale += u32::from(item.dead);
        }
        (self.bytes, self.stale) = (bytes, stale);
    }
}

/// Bytes of an item in Redis' format.
fn packed_item<'p>(
    (base, id): (StreamId, StreamId),
    same: bool,
    pairs: impl Iterator<Item = Pair<'p>>,
) -> usize {
    let apart =
        |value: u64, base: u64| listpack::integer_len(value.wrapping_sub(base).cast_signed());
    // The flags are a small number.
    let fixed = listpack::integer_len(0) + apart(id.ms, base.ms) + apart(id.seq, base.seq);
    let (mut count, mut len) = (0, 0);
    for (name, value) in pairs {
        count += 1;
        len += if same { 0 } else { listpack::text_len(name) } + listpack::text_len(value);
    }
    let behind = 3 + count * if same { 1 } else { 2 } + u64::from(!same);
    let counts = if same { 0 } else { listpack::count_len(count) } + listpack::count_len(behind);
    fixed + len + counts
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

    use super::*;

    type Owned = (StreamId, Vec<(Vec<u8>, Vec<u8>)>);

    fn owned(entry: &Entry<'_>) -> Owned {
        assert_eq!(entry.fields().len(), entry.len());
        (entry.id(), entry.fields().map(|(name, value)| (name.into(), value.into())).collect())
    }

    fn sample() -> (Node, Vec<Owned>) {
        let base = StreamId::new(1000, 5);
        let mut node = Node::new([(&b"a"[..], &b""[..]), (b"", b"")].into_iter());
        let mut model = Vec::new();
        let ids = [(1000, 5), (1000, 6), (1000, u64::MAX), (1001, 0), (1128, 127), (u64::MAX, 128)];
        for (at, (ms, seq)) in ids.into_iter().enumerate() {
            let id = StreamId::new(ms, seq);
            let value = vec![b'v'; [0, 1, 127, 128, 20_000, 7][at % 6]];
            let pairs: Vec<(&[u8], &[u8])> = match at % 3 {
                0 => vec![(b"a", &value), (b"", b"w")],
                1 => vec![(b"a", &value), (b"other", b"w")],
                _ => vec![(&value, b"x")],
            };
            node.push(base, id, pairs.iter().copied());
            model.push((id, pairs.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect()));
        }
        (node, model)
    }

    const BASE: StreamId = StreamId::new(1000, 5);

    #[test]
    fn what_was_put_in_is_read_forwards_and_backwards() {
        let (node, model) = sample();
        assert!(node.items(BASE).map(|item| owned(&item.entry)).eq(model.iter().cloned()));
        let mut at = node.len();
        for want in model.iter().rev() {
            let item = node.item_before(BASE, at).unwrap();
            assert_eq!(owned(&item.entry), *want);
            at = item.from;
        }
        assert!(node.item_before(BASE, at).is_none());
        assert!(node.item(BASE, node.len()).is_none());
        assert_eq!(node.last_id(BASE), model.last().unwrap().0);
        for (id, _) in &model {
            assert_eq!(node.find(BASE, *id).unwrap().id(), *id);
        }
        assert!(node.find(BASE, StreamId::new(1000, 7)).is_none());
        assert!(node.find(BASE, StreamId::MIN).is_none());
    }

    #[test]
    fn repeated_field_names_cost_nothing() {
        let pairs = [(&b"a-long-name"[..], &b"v"[..]), (b"another", b"w")];
        let mut node = Node::new(pairs.into_iter());
        node.push(BASE, BASE, pairs.into_iter());
        let before = node.len();
        node.push(BASE, StreamId::new(1001, 0), pairs.into_iter());
        // Lengths before and after, flags, id, and two values of one byte.
        assert_eq!(node.len() - before, 1 + 1 + 2 + 4 + 1);
    }

    #[test]
    fn a_node_is_rewritten_when_most_of_it_is_deleted() {
        let mut node = Node::new([(&b"f"[..], &b""[..])].into_iter());
        for seq in 0..20 {
            node.push(
                StreamId::MIN,
                StreamId::new(0, seq),
                [(&b"f"[..], &[7; 50][..])].into_iter(),
            );
        }
        let full = node.len();
        assert_eq!(node.delete_front(StreamId::MIN, 10, StreamId::MAX), 10);
        assert_eq!((node.len(), node.live, node.dead), (full, 10, 10));
        assert!(node.delete(StreamId::MIN, StreamId::new(0, 19)));
        assert!(!node.delete(StreamId::MIN, StreamId::new(0, 19)), "deleted once only");
        assert!(node.len() < full * 6 / 10, "{} of {full}", node.len());
        assert_eq!((node.live, node.dead, node.stale), (9, 11, 1));
        assert_eq!(node.heap_bytes(), node.len());
        assert_eq!(node.last_id(StreamId::MIN), StreamId::new(0, 19), "its bound is kept");
        assert_eq!(node.delete_front(StreamId::MIN, 100, StreamId::new(0, 12)), 2);
        let left: Vec<u64> = node
            .items(StreamId::MIN)
            .filter(|item| !item.dead)
            .map(|item| item.entry.id.seq)
            .collect();
        assert_eq!(left, (12..19).collect::<Vec<_>>());
    }
}
