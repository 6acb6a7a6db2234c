//! Rounds, groups and verdicts by examples, and whole rounds against what compaction promises.

use proptest::prelude::*;
use view::HashMap;

use super::*;

const RULES: Rules =
    Rules { min_dirty_ratio: 0.5, min_lag_ms: 0, max_lag_ms: i64::MAX, delete_retention_ms: 100 };

fn segment(n: i64) -> Segment {
    Segment {
        base_offset: n * 10,
        len_bytes: 100,
        index_bytes: 8,
        first_timestamp_ms: n * 1000 + 1,
        max_timestamp_ms: n * 1000 + 999,
    }
}

/// Five segments of 100 bytes and 10 offsets, the last one active.
fn segments() -> Vec<Segment> {
    (0..5).map(segment).collect()
}

fn log(segments: &[Segment], cleaned_to: Option<i64>) -> Log<'_> {
    Log { segments, start_offset: 0, end_offset: 45, stable_offset: 45, cleaned_to }
}

#[test]
fn a_round_is_due_by_the_share_of_dirty_bytes() {
    let segments = segments();
    for (cleaned_to, ratio, expected) in [
        (None, 0.5, Some((0, 0, 400))),
        (None, 1.0, None),
        (Some(10), 0.5, Some((10, 100, 300))),
        (Some(20), 0.5, None),
        (Some(20), 0.49, Some((20, 200, 200))),
        // Within a segment, which counts on both sides as Kafka counts it.
        (Some(25), 0.35, Some((25, 300, 200))),
        (Some(40), 0.0, None),
        (Some(45), 0.0, None),
        // Noted of another log.
        (Some(46), 0.5, Some((0, 0, 400))),
        (Some(-1), 0.5, Some((0, 0, 400))),
    ] {
        let rules = Rules { min_dirty_ratio: ratio, ..RULES };
        let round = round(&log(&segments, cleaned_to), &rules, 0);
        let found =
            round.map(|round| (round.first_dirty_offset, round.clean_bytes, round.dirty_bytes));
        assert_eq!(found, expected, "{cleaned_to:?} {ratio}");
        assert!(round.is_none_or(|round| round.end_offset == 40));
    }
    assert_eq!(round(&log(&[], None), &RULES, 0), None);
    assert_eq!(round(&log(segments.get(..1).unwrap_or_default(), None), &RULES, 0), None);
}

#[test]
fn a_round_ends_before_what_is_young_or_undecided() {
    let segments = segments();
    for (stable_offset, min_lag_ms, now_ms, end) in [
        (45, 0, 0, Some(40)),
        (40, 0, 0, Some(40)),
        (39, 0, 0, Some(30)),
        (30, 0, 0, Some(30)),
        (10, 0, 0, Some(10)),
        (9, 0, 0, None),
        (45, 1000, 3999, Some(30)),
        (45, 1000, 3998, Some(20)),
        (45, 1000, 9999, Some(40)),
        (15, 1000, 3999, Some(10)),
        (45, 1000, 1998, None),
    ] {
        let log = Log { stable_offset, ..log(&segments, None) };
        let rules = Rules { min_lag_ms, ..RULES };
        let found = round(&log, &rules, now_ms).map(|round| round.end_offset);
        assert_eq!(found, end, "{stable_offset} {min_lag_ms} {now_ms}");
    }
}

#[test]
fn a_round_is_due_by_the_age_of_dirty_records() {
    let mut segments = segments();
    let rules = Rules { min_dirty_ratio: 1.0, max_lag_ms: 500, ..RULES };
    let due = |segments: &[Segment], cleaned_to, now_ms| {
        round(&log(segments, Some(cleaned_to)), &rules, now_ms).is_some()
    };
    assert!(!due(&segments, 20, 2501));
    assert!(due(&segments, 20, 2502));
    assert!(!due(&segments, 40, 99_999), "nothing is dirty");
    for segment in &mut segments {
        segment.first_timestamp_ms = -1;
    }
    assert!(!due(&segments, 20, 99_999), "no timestamps");
}

#[test]
fn neighbours_are_copied_into_one_while_they_fit() {
    let segments = segments();
    for (segment_bytes, index_bytes, expected) in [
        (99, 99, &[1, 2, 3, 4, 5][..]),
        (200, 99, &[2, 4, 5]),
        (299, 99, &[2, 4, 5]),
        (1000, 24, &[3, 5]),
        (1000, 99, &[5]),
    ] {
        let groups = groups(&segments, 50, segment_bytes, index_bytes);
        let ends: Vec<usize> = groups.iter().map(|group| group.end).collect();
        assert_eq!(ends, expected);
        let starts: Vec<usize> = groups.iter().map(|group| group.start).collect();
        assert_eq!(starts.first(), Some(&0));
        assert_eq!(starts.get(1..), ends.get(..ends.len() - 1), "without a hole");
    }
    assert!(groups(&[], 0, 1, 1).is_empty());
}

#[test]
fn offsets_of_a_group_fit_an_index() {
    let far = |base_offset, len_bytes| Segment { base_offset, len_bytes, ..segment(0) };
    let most = i64::from(i32::MAX);
    let group = |segments: &[Segment], end| groups(segments, end, 1000, 1000).len();
    assert_eq!(group(&[far(0, 1), far(10, 1)], most + 1), 1);
    assert_eq!(group(&[far(0, 1), far(10, 1)], most + 2), 2);
    assert_eq!(group(&[far(0, 1), far(10, 1), far(most + 2, 1)], most + 9), 2);
    assert_eq!(group(&[far(0, 1), far(10, 0)], most + 2), 1, "it has no offsets");
}

#[test]
fn verdicts() {
    let mut map = OffsetMap::new(1000, 1);
    map.put(b"k", 5);
    map.cover(10);
    let cleaner = Cleaner { map: &map, end_offset: 20, now_ms: 1000, delete_retention_ms: 50 };
    let batch = |delete_horizon_ms| Batch { last_offset: 9, delete_horizon_ms };
    let (key, other) = (Some(&b"k"[..]), Some(&b"other"[..]));
    for (offset, key, has_value, horizon, verdict) in [
        (4, key, true, None, Verdict::Superseded),
        (4, key, false, None, Verdict::Superseded),
        (5, key, true, Some(0), Verdict::Keep),
        (6, key, true, None, Verdict::Keep),
        (5, key, false, None, Verdict::Keep),
        (5, key, false, Some(1001), Verdict::Keep),
        (5, key, false, Some(1000), Verdict::Expired),
        (1, other, true, None, Verdict::Keep),
        (9, None, true, None, Verdict::NoKey),
        (10, None, true, None, Verdict::Keep),
        (10, key, false, Some(0), Verdict::Keep),
    ] {
        let record = Record { offset, key, has_value };
        assert_eq!(cleaner.judge(&batch(horizon), &record), verdict, "{record:?} {horizon:?}");
    }
    let ends = |last_offset| Batch { last_offset, ..batch(None) };
    assert!(cleaner.keeps_empty(&ends(9), Some(9)));
    assert!(!cleaner.keeps_empty(&ends(9), Some(10)));
    assert!(!cleaner.keeps_empty(&ends(9), None));
    assert!(cleaner.keeps_empty(&ends(19), None));
    assert!(!cleaner.keeps_empty(&ends(20), None));
    assert_eq!(cleaner.new_delete_horizon_ms(&batch(None), true), Some(1050));
    assert_eq!(cleaner.new_delete_horizon_ms(&batch(None), false), None);
    assert_eq!(cleaner.new_delete_horizon_ms(&batch(Some(7)), true), None);
}

type Stored = (i64, u8, bool);

#[derive(Clone, Debug)]
struct StoredBatch {
    batch: Batch,
    base_offset: i64,
    records: Vec<Stored>,
}

/// The first pass, over batches from the first dirty offset to the end.
fn first_pass(log: &[StoredBatch], round: &Round, map: &mut OffsetMap) {
    map.cover(round.first_dirty_offset);
    for stored in log.iter().filter(|it| it.base_offset < round.end_offset) {
        for (offset, key, _) in &stored.records {
            if *offset >= round.first_dirty_offset && !map.put(&[*key], *offset) {
                return;
            }
        }
        map.cover(stored.batch.last_offset + 1);
    }
    map.cover(round.end_offset);
}

fn second_pass(log: &[StoredBatch], cleaner: &Cleaner<'_>) -> Vec<StoredBatch> {
    let mut copied = Vec::new();
    for stored in log {
        let mut stored = stored.clone();
        if stored.base_offset < cleaner.map.end_offset() {
            let batch = stored.batch;
            stored.records.retain(|(offset, key, has_value)| {
                let key = Some(std::slice::from_ref(key));
                let record = Record { offset: *offset, key, has_value: *has_value };
                cleaner.judge(&batch, &record) == Verdict::Keep
            });
            let tombstones = stored.records.iter().any(|(_, _, has_value)| !has_value);
            let horizon = cleaner.new_delete_horizon_ms(&batch, tombstones);
            stored.batch.delete_horizon_ms = horizon.or(batch.delete_horizon_ms);
            if stored.records.is_empty() && !cleaner.keeps_empty(&batch, None) {
                continue;
            }
        }
        copied.push(stored);
    }
    copied
}

/// What a reader of the whole log knows in the end.
fn state(log: &[StoredBatch]) -> HashMap<u8, i64> {
    let mut state = HashMap::default();
    for (offset, key, has_value) in log.iter().flat_map(|stored| &stored.records) {
        if *has_value {
            state.insert(*key, *offset);
        } else {
            state.remove(key);
        }
    }
    state
}

proptest! {
    #[test]
    fn a_reader_knows_the_same_after_any_rounds(
        batches in prop::collection::vec(prop::collection::vec((0_u8..12, any::<bool>()), 1..5), 1..60),
        segment_batches in 1_usize..6,
        entries in 3_usize..20,
        pauses_ms in prop::collection::vec(0_i64..300, 1..6),
    ) {
        let (mut log, mut end) = (Vec::new(), 0_i64);
        for records in batches {
            let base_offset = end;
            let number = |(key, has_value)| { end += 1; (end - 1, key, has_value) };
            let records: Vec<Stored> = records.into_iter().map(number).collect();
            let batch = Batch { last_offset: end - 1, delete_horizon_ms: None };
            log.push(StoredBatch { batch, base_offset, records });
        }
        let bases: Vec<i64> = log.chunks(segment_batches).filter_map(|it| it.first()).map(|it| it.base_offset).collect();
        let active = bases.last().copied().unwrap_or(0);
        let expected = state(&log);
        let (mut cleaned_to, mut now_ms) = (None, 1);
        for pause_ms in pauses_ms {
            now_ms += pause_ms;
            let segments: Vec<Segment> = bases.iter().map(|base| Segment { base_offset: *base, ..segment(1) }).collect();
            let known = Log { segments: &segments, start_offset: 0, end_offset: end, stable_offset: end, cleaned_to };
            let rules = Rules { min_dirty_ratio: 0.0, ..RULES };
            let Some(round) = round(&known, &rules, now_ms) else {
                // Nothing is dirty: all over again, so that tombstones meet their time.
                cleaned_to = None;
                continue;
            };
            prop_assert!(round.end_offset <= active && bases.contains(&round.end_offset));
            let mut map = OffsetMap::new(entries * offset_map::ENTRY_BYTES, 7);
            first_pass(&log, &round, &mut map);
            let cleaner = Cleaner {
                map: &map,
                end_offset: round.end_offset,
                now_ms,
                delete_retention_ms: rules.delete_retention_ms,
            };
            let before = log.clone();
            log = second_pass(&log, &cleaner);
            prop_assert_eq!(state(&log), expected.clone());
            // What the map did not reach is untouched.
            let rest = |log: &[StoredBatch]| -> Vec<Stored> {
                let records = log.iter().flat_map(|stored| stored.records.clone());
                records.filter(|(offset, ..)| *offset >= map.end_offset()).collect()
            };
            prop_assert_eq!(rest(&log), rest(&before));
            // What it reached has each key once, at most.
            let mut keys: Vec<u8> = log
                .iter()
                .flat_map(|stored| &stored.records)
                .filter(|(offset, ..)| *offset < map.end_offset())
                .map(|(_, key, _)| *key)
                .collect();
            let all = keys.len();
            keys.sort_unstable();
            keys.dedup();
            prop_assert_eq!(keys.len(), all);
            if map.end_offset() == round.end_offset {
                let last = log.iter().rfind(|it| it.base_offset < round.end_offset);
                prop_assert_eq!(last.map(|it| it.batch.last_offset + 1), Some(round.end_offset));
            }
            cleaned_to = Some(map.end_offset());
        }
    }
}
