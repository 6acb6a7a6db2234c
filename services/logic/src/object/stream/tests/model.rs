//! Random operations against ordered maps, with entries of all sizes and memory recounted.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

const NOW: u64 = 1_900_000_000_000;

#[derive(Debug, Clone)]
enum Op {
    Add { id: AddId, pairs: Pairs, times: u8 },
    Delete { near: u64 },
    DeleteMany { from: u64, count: u64 },
    TrimLen { keep: u64, approx: bool, budget: usize },
    TrimId { near: u64, approx: bool, limit: u64 },
    Range { from: u64, to: u64, count: usize },
    Create { group: u8, near: u64 },
    Destroy { group: u8 },
    Read { group: u8, consumer: u8, count: u64, noack: bool },
    Again { group: u8, consumer: u8, near: u64, count: u64 },
    Ack { group: u8, from: u64, count: u64 },
    Claim { group: u8, consumer: u8, from: u64, count: u64, force: bool, just_id: bool },
    AutoClaim { group: u8, consumer: u8, from: u64, count: u64, min_idle_ms: u64 },
    Leave { group: u8, consumer: u8, budget: usize },
    Wait { ms: u64 },
    Clear,
    Reclaim { budget: usize },
}

fn pairs() -> impl Strategy<Value = Pairs> {
    let name =
        prop_oneof![4 => Just(b"field".to_vec()), 1 => prop::collection::vec(any::<u8>(), 0..4)];
    let len = prop_oneof![20 => 0usize..30, 4 => 100usize..200, 1 => 2000usize..9000];
    let value = (any::<u8>(), len).prop_map(|(byte, len)| vec![byte; len]);
    prop::collection::vec((name, value), 1..4)
}

fn add_id() -> impl Strategy<Value = AddId> {
    prop_oneof![
        4 => Just(AddId::Auto),
        2 => (0u64..40).prop_map(|ms| AddId::AutoSeq(NOW + ms)),
        1 => (0u64..40, 0u64..3).prop_map(|(ms, seq)| AddId::Given(StreamId::new(NOW + ms, seq))),
    ]
}

fn entry_op() -> impl Strategy<Value = Op> {
    let near = 0u64..3000;
    let budget = 1usize..9;
    prop_oneof![
        20 => (add_id(), pairs(), 1u8..60).prop_map(|(id, pairs, times)| Op::Add { id, pairs, times }),
        4 => near.clone().prop_map(|near| Op::Delete { near }),
        4 => (near.clone(), 1u64..200).prop_map(|(from, count)| Op::DeleteMany { from, count }),
        2 => (0u64..2000, any::<bool>(), budget)
            .prop_map(|(keep, approx, budget)| Op::TrimLen { keep, approx, budget }),
        2 => (0u64..700, any::<bool>(), prop_oneof![Just(0), 1u64..300])
            .prop_map(|(near, approx, limit)| Op::TrimId { near, approx, limit }),
        6 => (near.clone(), near, 0usize..300)
            .prop_map(|(from, to, count)| Op::Range { from, to, count }),
        3 => (0u64..20).prop_map(|ms| Op::Wait { ms }),
        1 => (0u8..12).prop_map(|n| if n == 0 { Op::Clear } else { Op::Reclaim { budget: 1 } }),
        2 => (1usize..300).prop_map(|budget| Op::Reclaim { budget }),
    ]
}

fn group_op() -> impl Strategy<Value = Op> {
    let (group, consumer, near) = (0u8..3, 0u8..4, 0u64..3000);
    let count = prop_oneof![2 => 1u64..20, 1 => 0u64..1000];
    let who = (group.clone(), consumer);
    prop_oneof![
        3 => (group.clone(), near.clone()).prop_map(|(group, near)| Op::Create { group, near }),
        1 => (group.clone(), 0u8..3).prop_map(|(group, n)| {
            if n == 0 { Op::Destroy { group } } else { Op::Create { group, near: 0 } }
        }),
        8 => (who.clone(), count.clone(), any::<bool>()).prop_map(|((group, consumer), count, noack)| {
            Op::Read { group, consumer, count, noack: noack && count < 10 }
        }),
        3 => (who.clone(), near.clone(), count).prop_map(|((group, consumer), near, count)| {
            Op::Again { group, consumer, near, count }
        }),
        3 => (group, near.clone(), 0u64..100)
            .prop_map(|(group, from, count)| Op::Ack { group, from, count }),
        3 => (who.clone(), near.clone(), 0u64..60, any::<bool>(), any::<bool>()).prop_map(
            |((group, consumer), from, count, force, just_id)| {
                Op::Claim { group, consumer, from, count, force, just_id }
            }
        ),
        3 => (who.clone(), near, 1u64..60, 0u64..20).prop_map(
            |((group, consumer), from, count, min_idle_ms)| {
                Op::AutoClaim { group, consumer, from, count, min_idle_ms }
            }
        ),
        1 => (who, 1usize..200)
            .prop_map(|((group, consumer), budget)| Op::Leave { group, consumer, budget }),
    ]
}

/// Owner, time and count of a delivery.
type Delivery = (u8, u64, u64);

#[derive(Default)]
struct GroupModel {
    last: StreamId,
    pending: BTreeMap<StreamId, Delivery>,
    /// When each consumer was seen.
    consumers: BTreeMap<u8, u64>,
}

impl GroupModel {
    fn of(&self, consumer: u8) -> impl Iterator<Item = (StreamId, Delivery)> {
        let pending = self.pending.iter().map(|(id, delivery)| (*id, *delivery));
        pending.filter(move |(_, delivery)| delivery.0 == consumer)
    }
}

#[derive(Default)]
struct Model {
    now: u64,
    entries: BTreeMap<StreamId, Pairs>,
    /// Every id ever given, for choosing ones near them.
    known: Vec<StreamId>,
    last: StreamId,
    added: u64,
    groups: BTreeMap<u8, GroupModel>,
}

fn owned(entry: Entry<'_>) -> (StreamId, Pairs) {
    let pairs = entry.fields().map(|(name, value)| (name.to_vec(), value.to_vec()));
    (entry.id(), pairs.collect())
}

impl Model {
    /// An id that was given once, or one beside it.
    fn near(&self, near: u64) -> StreamId {
        let Some(at) = near.checked_rem(self.known.len() as u64) else { return StreamId::MIN };
        let id = self.known[at as usize];
        match near % 7 {
            0 => id.next().unwrap(),
            1 => id.prev().unwrap(),
            _ => id,
        }
    }

    fn ids(&self, from: u64, count: u64) -> Vec<StreamId> {
        let from = self.near(from);
        let at = self.known.partition_point(|id| *id < from);
        self.known.iter().skip(at).take(count as usize).copied().collect()
    }

    fn apply(&mut self, stream: &mut Stream, op: Op) {
        match op {
            Op::Wait { ms } => self.now += ms,
            Op::Reclaim { budget } => {
                let before = stream.mem_bytes();
                stream.reclaim(budget);
                assert!(stream.mem_bytes() <= before);
            }
            Op::Clear => {
                stream.clear();
                let now = self.now;
                *self = Self { now, ..Self::default() };
            }
            Op::Add { .. }
            | Op::Delete { .. }
            | Op::DeleteMany { .. }
            | Op::TrimLen { .. }
            | Op::TrimId { .. }
            | Op::Range { .. } => self.on_entries(stream, op),
            Op::Create { group, near } => {
                let at = self.near(near);
                let made = stream.create_group(&[group], at, None);
                assert_eq!(made, !self.groups.contains_key(&group));
                self.groups
                    .entry(group)
                    .or_insert_with(|| GroupModel { last: at, ..GroupModel::default() });
            }
            Op::Destroy { group } => {
                assert_eq!(stream.destroy_group(&[group]), self.groups.remove(&group).is_some());
            }
            Op::Claim { .. } | Op::AutoClaim { .. } => self.claim(stream, op),
            Op::Read { .. } | Op::Again { .. } | Op::Ack { .. } | Op::Leave { .. } => {
                self.on_group(stream, op);
            }
        }
    }

    fn on_entries(&mut self, stream: &mut Stream, op: Op) {
        match op {
            Op::Add { id, pairs, times } => {
                for _ in 0..times {
                    self.add(stream, id, &pairs);
                }
            }
            Op::Delete { near } => {
                let id = self.near(near);
                assert_eq!(stream.delete(id), self.entries.remove(&id).is_some());
            }
            Op::DeleteMany { from, count } => {
                for id in self.ids(from, count) {
                    assert_eq!(stream.delete(id), self.entries.remove(&id).is_some());
                }
            }
            Op::TrimLen { keep, approx, budget } => {
                let mut trim = Trim { to: TrimTo::MaxLen(keep), approx, limit: 0 };
                let over = (self.entries.len() as u64).saturating_sub(keep);
                self.trim(stream, &mut trim, budget, over);
            }
            Op::TrimId { near, approx, limit } => {
                let id = self.near(near);
                let limit = if approx { limit } else { 0 };
                let mut trim = Trim { to: TrimTo::MinId(id), approx, limit };
                let below = self.entries.range(..id).count() as u64;
                self.trim(stream, &mut trim, 3, below);
            }
            Op::Range { from, to, count } => {
                let (from, to) = (self.near(from), self.near(to));
                assert_eq!(stream.get(from).map(owned).map(|item| item.1), {
                    self.entries.get(&from).cloned()
                });
                let want = self.entries.iter().filter(|item| (from..=to).contains(item.0));
                let want: Vec<_> = want.map(|(id, p)| (*id, p.clone())).collect();
                let up = stream.range(from, to).map(owned).take(count);
                assert!(up.eq(want.iter().take(count).cloned()));
                let down = stream.range_rev(from, to).map(owned).take(count);
                assert!(down.eq(want.iter().rev().take(count).cloned()));
            }
            other => panic!("{other:?}"),
        }
    }

    fn add(&mut self, stream: &mut Stream, id: AddId, pairs: &Pairs) {
        let borrowed = pairs.iter().map(|(name, value)| (&name[..], &value[..]));
        let got = stream.add(id, self.now, borrowed, &Limits::default());
        let above = self.last.next().unwrap();
        let want = match id {
            AddId::Auto => StreamId::new(self.now, 0).max(above),
            AddId::AutoSeq(ms) if ms == self.last.ms => above,
            AddId::AutoSeq(ms) => StreamId::new(ms, 0),
            AddId::Given(id) => id,
        };
        if want < above {
            assert_eq!(got, Err(AddError::NotAbove));
            return;
        }
        assert_eq!(got, Ok(want));
        self.entries.insert(want, pairs.clone());
        self.known.push(want);
        (self.last, self.added) = (want, self.added + 1);
    }

    /// A trim takes the lowest entries, in steps: all that it may, or whole nodes of them.
    fn trim(&mut self, stream: &mut Stream, trim: &mut Trim, budget: usize, most: u64) {
        let (limit, approx, before) = (trim.limit, trim.approx, self.entries.len());
        loop {
            let nodes = stream.node_count();
            let step = stream.trim(trim, budget);
            assert!(nodes - stream.node_count() <= budget);
            for _ in 0..step.removed {
                self.entries.pop_first().unwrap();
            }
            if step.done {
                break;
            }
        }
        let removed = (before - self.entries.len()) as u64;
        assert!(removed <= most && (limit == 0 || removed <= limit));
        if !approx {
            assert_eq!(removed, most);
        } else if limit == 0 {
            assert!(most - removed < 100, "what is left is part of one node");
        }
    }

    fn on_group(&mut self, stream: &mut Stream, op: Op) {
        let now = self.now;
        match op {
            Op::Read { group, consumer, count, noack } => {
                let mut got = Vec::new();
                let read = stream
                    .read_new(&[group], &[consumer], count, noack, now, |e| got.push(owned(e)));
                let Some(model) = self.groups.get_mut(&group) else {
                    assert_eq!(read, Err(NoGroup));
                    return;
                };
                let most = if count == 0 { usize::MAX } else { count as usize };
                let above = model.last.next().unwrap();
                let want = self.entries.range(above..).take(most);
                let want: Vec<_> = want.map(|(id, pairs)| (*id, pairs.clone())).collect();
                assert_eq!(read, Ok(want.len() as u64));
                for (id, _) in &want {
                    model.last = *id;
                    model.consumers.insert(consumer, now);
                    if !noack {
                        model.pending.insert(*id, (consumer, now, 1));
                    }
                }
                assert_eq!(got, want);
            }
            Op::Again { group, consumer, near, count } => {
                let after = self.near(near);
                let mut got = Vec::new();
                let read =
                    stream.read_history(&[group], &[consumer], after, count, now, |id, e| {
                        got.push((id, e.map(|e| owned(e).1)));
                    });
                let Some(model) = self.groups.get_mut(&group) else {
                    assert_eq!(read, Err(NoGroup));
                    return;
                };
                model.consumers.insert(consumer, now);
                let most = if count == 0 { usize::MAX } else { count as usize };
                let ids: Vec<_> = model
                    .of(consumer)
                    .map(|item| item.0)
                    .filter(|id| *id > after)
                    .take(most)
                    .collect();
                assert_eq!(read, Ok(ids.len() as u64));
                let want = ids.iter().map(|id| (*id, self.entries.get(id).cloned()));
                assert!(got.into_iter().eq(want));
                for id in ids.iter().filter(|id| self.entries.contains_key(id)) {
                    let delivery = model.pending.get_mut(id).unwrap();
                    (delivery.1, delivery.2) = (now, delivery.2 + 1);
                }
            }
            other => self.on_deliveries(stream, other),
        }
    }

    fn on_deliveries(&mut self, stream: &mut Stream, op: Op) {
        match op {
            Op::Ack { group, from, count } => {
                for id in self.ids(from, count) {
                    let want = self.groups.get_mut(&group);
                    let want = want.map(|group| group.pending.remove(&id).is_some()).ok_or(NoGroup);
                    assert_eq!(stream.acknowledge(&[group], id), want);
                }
            }
            Op::Leave { group, consumer, budget } => {
                let (mut removed, mut steps) = (0, 0);
                while let Ok(step) = stream.delete_consumer(&[group], &[consumer], budget) {
                    // A leaf of the list is taken whole.
                    assert!(step.removed < budget as u64 + 128);
                    removed += step.removed;
                    steps += 1;
                    if step.done {
                        break;
                    }
                }
                let Some(model) = self.groups.get_mut(&group) else {
                    assert_eq!(steps, 0);
                    return;
                };
                assert_eq!(removed, model.of(consumer).count() as u64);
                model.pending.retain(|_, delivery| delivery.0 != consumer);
                model.consumers.remove(&consumer);
            }
            other => panic!("{other:?}"),
        }
    }

    fn claim(&mut self, stream: &mut Stream, op: Op) {
        let now = self.now;
        let mut got = Vec::new();
        let mut note = |item: Claimed<'_>| match item {
            Claimed::Entry(entry) => got.push((entry.id(), Some(owned(entry).1))),
            Claimed::Deleted(id) => got.push((id, None)),
        };
        let mut want = Vec::new();
        match op {
            Op::Claim { group, consumer, from, count, force, just_id } => {
                let ids = self.ids(from, count);
                let claim = Claim { force, just_id, ..Claim::default() };
                let done = stream.claim(&[group], &[consumer], &ids, &claim, now, &mut note);
                let Some(model) = self.groups.get_mut(&group) else {
                    assert_eq!(done, Err(NoGroup));
                    return;
                };
                for id in ids {
                    let known = model.pending.get(&id).map(|delivery| delivery.2);
                    let known = known.or((force && self.entries.contains_key(&id)).then_some(1));
                    let Some(count) = known else { continue };
                    let entry = self.entries.get(&id).cloned();
                    if entry.is_some() {
                        let count = count + u64::from(!just_id);
                        model.pending.insert(id, (consumer, now, count));
                        model.consumers.insert(consumer, now);
                    } else {
                        model.pending.remove(&id);
                    }
                    want.push((id, entry));
                }
            }
            Op::AutoClaim { group, consumer, from, count, min_idle_ms } => {
                let start = self.near(from);
                let options = AutoClaim { min_idle_ms, start, count, just_id: false };
                let next = stream.auto_claim(&[group], &[consumer], &options, now, &mut note);
                let Some(model) = self.groups.get_mut(&group) else {
                    assert_eq!(next, Err(NoGroup));
                    return;
                };
                let looked: Vec<_> =
                    model.pending.range(start..).map(|(id, d)| (*id, *d)).collect();
                let mut cursor = StreamId::MIN;
                for (at, (id, delivery)) in looked.into_iter().enumerate() {
                    if want.len() as u64 == count || at as u64 == count * 10 {
                        cursor = id;
                        break;
                    }
                    let entry = self.entries.get(&id).cloned();
                    if entry.is_none() {
                        model.pending.remove(&id);
                    } else if now - delivery.1 < min_idle_ms {
                        continue;
                    } else {
                        model.pending.insert(id, (consumer, now, delivery.2 + 1));
                        model.consumers.insert(consumer, now);
                    }
                    want.push((id, entry));
                }
                assert_eq!(next, Ok(cursor));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(got, want);
    }

    fn compare(&self, stream: &Stream) {
        stream.check();
        let first = self.entries.first_key_value().map_or(StreamId::MIN, |item| *item.0);
        let facts = (stream.len(), stream.first_id(), stream.last_id(), stream.entries_added());
        assert_eq!(facts, (self.entries.len() as u64, first, self.last, self.added));
        assert_eq!(stream.is_empty(), self.entries.is_empty());
        assert!(stream.groups().map(|group| group.name()[0]).eq(self.groups.keys().copied()));
        for (name, model) in &self.groups {
            let group = stream.group(&[*name]).unwrap();
            assert_eq!(group.last_id(), model.last);
            let rows =
                |row: Pending<'_>| (row.id, (row.consumer[0], row.delivered_ms, row.deliveries));
            let pending = group.pending(StreamId::MIN, StreamId::MAX).map(rows);
            assert!(pending.eq(model.pending.iter().map(|(id, delivery)| (*id, *delivery))));
            let seen = group.consumers().map(|consumer| (consumer.name()[0], consumer.seen_ms()));
            assert!(seen.eq(model.consumers.iter().map(|(name, seen)| (*name, *seen))));
            for name in model.consumers.keys() {
                let consumer = group.consumer(&[*name]).unwrap();
                let pending = consumer.pending(StreamId::MIN, StreamId::MAX).map(rows);
                assert!(pending.eq(model.of(*name)));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_ordered_maps_do(
        ops in prop::collection::vec(prop_oneof![3 => entry_op(), 4 => group_op()], 1..250)
    ) {
        let mut model = Model { now: NOW, ..Model::default() };
        let mut stream = Stream::new();
        for (at, op) in ops.into_iter().enumerate() {
            model.apply(&mut stream, op);
            if at % 5 == 0 {
                model.compare(&stream);
            }
        }
        model.compare(&stream);
        stream.clear();
        while !stream.reclaim(7) {
            stream.check();
        }
        prop_assert_eq!(stream.mem_bytes(), 0);
    }
}
