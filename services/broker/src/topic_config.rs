//! What can be set per topic: one row per option drives the check of new values, the typed form, and
//! what `DescribeConfigs` shows.
//!
//! Names, defaults and ranges are those of Kafka's topic configurations, plus `flush.mode`, which says
//! when a write is acknowledged. Next: `catalog` for where the values are kept.

use std::collections::BTreeMap;

use logic::log::compact::Rules;

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A number within bounds.
    Integer {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// A fraction from 0 to 1.
    Fraction,
    /// One of these.
    Choice(&'static [&'static str]),
    /// Some of these, separated by commas.
    Choices(&'static [&'static str]),
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// What a value may be.
    pub kind: Kind,
    /// Used where nothing is set.
    pub default: &'static str,
    /// Kafka's type in `DescribeConfigs`: 1 boolean, 2 string, 3 int, 5 long, 6 double, 7 list.
    pub wire_type: i8,
    /// What it does.
    pub doc: &'static str,
}

const LONG: Kind = Kind::Integer { min: 0, max: i64::MAX };
const OR_NEVER: Kind = Kind::Integer { min: -1, max: i64::MAX };

const fn row(
    name: &'static str,
    kind: Kind,
    wire_type: i8,
    default: &'static str,
    doc: &'static str,
) -> Row {
    Row { name, kind, default, wire_type, doc }
}

/// All options, sorted by name.
pub const ROWS: &[Row] = &[
    row(
        "cleanup.policy",
        Kind::Choices(&["compact", "delete"]),
        7,
        "delete",
        "delete: old segments go; compact: of each key the last record stays; both: both",
    ),
    row(
        "compression.type",
        Kind::Choice(&["producer"]),
        2,
        "producer",
        "batches are kept as the producer sent them",
    ),
    row(
        "delete.retention.ms",
        LONG,
        5,
        "86400000",
        "how long a record without a value stays in a compacted log, so that consumers see that its key is gone",
    ),
    row("file.delete.delay.ms", LONG, 5, "60000", "kept; removed segments leave the disk at once"),
    row(
        "flush.messages",
        Kind::Integer { min: 1, max: i64::MAX },
        5,
        "9223372036854775807",
        "kept for clients that read it back; see flush.mode",
    ),
    row(
        "flush.mode",
        Kind::Choice(&["interval", "os", "sync"]),
        2,
        "sync",
        "sync: acknowledge after the disk has it; interval: at once, and sync every flush.ms; os: at once, and leave it to the system",
    ),
    row(
        "flush.ms",
        Kind::Integer { min: 1, max: i64::MAX },
        5,
        "1000",
        "how often flush.mode=interval syncs",
    ),
    row(
        "index.interval.bytes",
        Kind::Integer { min: 0, max: i32::MAX as i64 },
        3,
        "4096",
        "one index entry for so many bytes",
    ),
    row(
        "max.compaction.lag.ms",
        Kind::Integer { min: 1, max: i64::MAX },
        5,
        "9223372036854775807",
        "records are compacted when they are older, however few they are",
    ),
    row(
        "max.message.bytes",
        Kind::Integer { min: 0, max: i32::MAX as i64 },
        3,
        "1048588",
        "the largest record batch; of a compressed one in a compacted topic also decompressed",
    ),
    row(
        "message.timestamp.after.max.ms",
        LONG,
        5,
        "9223372036854775807",
        "how far in the future a record's timestamp may lie",
    ),
    row(
        "message.timestamp.before.max.ms",
        LONG,
        5,
        "9223372036854775807",
        "how far in the past a record's timestamp may lie",
    ),
    row(
        "message.timestamp.type",
        Kind::Choice(&["CreateTime", "LogAppendTime"]),
        2,
        "CreateTime",
        "whose clock timestamps are from",
    ),
    row(
        "min.cleanable.dirty.ratio",
        Kind::Fraction,
        6,
        "0.5",
        "compact when more of the log than this was written since the last time",
    ),
    row("min.compaction.lag.ms", LONG, 5, "0", "records stay for so long whatever follows them"),
    row(
        "min.insync.replicas",
        Kind::Integer { min: 1, max: i32::MAX as i64 },
        3,
        "1",
        "there is one replica",
    ),
    row("preallocate", Kind::Choice(&["false"]), 1, "false", "room is never reserved"),
    row(
        "retention.bytes",
        OR_NEVER,
        5,
        "-1",
        "remove old segments above this size of the partition",
    ),
    row("retention.ms", OR_NEVER, 5, "604800000", "remove segments whose newest record is older"),
    row(
        "segment.bytes",
        Kind::Integer { min: 14, max: i32::MAX as i64 },
        3,
        "1073741824",
        "size of a segment",
    ),
    row(
        "segment.index.bytes",
        Kind::Integer { min: 4, max: i32::MAX as i64 },
        3,
        "10485760",
        "size of a segment's index",
    ),
    row("segment.jitter.ms", LONG, 5, "0", "begin a new segment earlier by a random part of this"),
    row(
        "segment.ms",
        Kind::Integer { min: 1, max: i64::MAX },
        5,
        "604800000",
        "begin a new segment when a record is newer by this than the first one",
    ),
    row("unclean.leader.election.enable", Kind::Bool, 1, "false", "there is one replica"),
    row(
        "verify.on.read",
        Kind::Bool,
        1,
        "true",
        "check the records that were found at a start before they are first sent",
    ),
];

/// The row of an option.
#[must_use]
pub fn find(name: &str) -> Option<&'static Row> {
    ROWS.binary_search_by(|row| row.name.cmp(name)).ok().and_then(|at| ROWS.get(at))
}

/// Checks one value.
///
/// # Errors
/// What is wrong with it, for the peer.
pub fn check(name: &str, value: &str) -> Result<(), String> {
    let Some(row) = find(name) else { return Err(format!("unknown topic config name: {name}")) };
    let expected = match row.kind {
        Kind::Bool if matches!(value, "true" | "false") => return Ok(()),
        Kind::Bool => "true or false".to_owned(),
        Kind::Integer { min, max } => match value.parse::<i64>() {
            Ok(number) if (min..=max).contains(&number) => return Ok(()),
            _ => format!("a number from {min} to {max}"),
        },
        Kind::Fraction => match value.parse::<f64>() {
            Ok(number) if (0.0..=1.0).contains(&number) => return Ok(()),
            _ => "a number from 0 to 1".to_owned(),
        },
        Kind::Choice(choices) if choices.contains(&value) => return Ok(()),
        Kind::Choices(choices)
            if !value.is_empty() && value.split(',').all(|part| choices.contains(&part.trim())) =>
        {
            return Ok(());
        }
        Kind::Choice(choices) | Kind::Choices(choices) => format!("of {}", choices.join(", ")),
    };
    Err(format!("invalid value {value} for configuration {name}: must be {expected}"))
}

/// Checks all that is set of a topic, also together.
///
/// # Errors
/// What is wrong with it, for the peer.
pub fn check_all(values: &BTreeMap<String, String>) -> Result<(), String> {
    for (option, value) in values {
        check(option, value)?;
    }
    let rules = TopicConfig::new(values).compaction;
    if rules.min_lag_ms > rules.max_lag_ms {
        return Err(format!(
            "conflict topic config setting min.compaction.lag.ms ({}) > max.compaction.lag.ms ({})",
            rules.min_lag_ms, rules.max_lag_ms
        ));
    }
    Ok(())
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// After the sync that covers it.
    Sync,
    /// At once; a sync follows within this many milliseconds.
    Interval(u64),
    /// At once; the system writes it when it likes.
    Os,
}

/// A topic's options in typed form.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// When a write is acknowledged.
    pub flush: Flush,
    /// Old segments are removed.
    pub delete: bool,
    /// Old segments are compacted.
    pub compact: bool,
    /// When and how.
    pub compaction: Rules,
    /// Largest record batch.
    pub message_max_bytes: usize,
    /// Broker's clock instead of the producer's.
    pub log_append_time: bool,
    /// How far back a timestamp may lie.
    pub timestamp_before_max_ms: i64,
    /// How far ahead.
    pub timestamp_after_max_ms: i64,
    /// Segments found at a start are checked before they are served.
    pub verify_on_read: bool,
    /// Size of a segment.
    pub segment_bytes: u64,
    /// From a segment's first record to its last, at most.
    pub segment_ms: i64,
    /// By how much less at random.
    pub segment_jitter_ms: i64,
    /// Size of a segment's index.
    pub segment_index_bytes: usize,
    /// One index entry for so many bytes.
    pub index_interval_bytes: u32,
    /// Size of the partition above which segments go; `None` for no limit.
    pub retention_bytes: Option<u64>,
    /// Age above which segments go; `None` for no limit.
    pub retention_ms: Option<i64>,
}

impl TopicConfig {
    /// The typed form of `values`, which were [`check`]ed; defaults for the rest.
    #[must_use]
    pub fn new(values: &BTreeMap<String, String>) -> Self {
        let text = |name: &str| {
            let default = find(name).map_or("", |row| row.default);
            values.get(name).map_or(default, String::as_str)
        };
        let integer = |name: &str| text(name).parse::<i64>().unwrap_or_default();
        let unsigned = |name: &str| integer(name).max(0).cast_unsigned();
        let size = |name: &str| usize::try_from(integer(name)).unwrap_or_default();
        let limit = |name: &str| Some(integer(name)).filter(|value| *value >= 0);
        let has_policy =
            |policy: &str| text("cleanup.policy").split(',').any(|part| part.trim() == policy);
        Self {
            flush: match text("flush.mode") {
                "os" => Flush::Os,
                "interval" => Flush::Interval(unsigned("flush.ms")),
                _ => Flush::Sync,
            },
            delete: has_policy("delete"),
            compact: has_policy("compact"),
            compaction: Rules {
                min_dirty_ratio: text("min.cleanable.dirty.ratio").parse().unwrap_or(0.5),
                min_lag_ms: integer("min.compaction.lag.ms"),
                max_lag_ms: integer("max.compaction.lag.ms"),
                delete_retention_ms: integer("delete.retention.ms"),
            },
            message_max_bytes: size("max.message.bytes"),
            log_append_time: text("message.timestamp.type") == "LogAppendTime",
            timestamp_before_max_ms: integer("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: integer("message.timestamp.after.max.ms"),
            verify_on_read: text("verify.on.read") != "false",
            segment_bytes: unsigned("segment.bytes"),
            segment_ms: integer("segment.ms"),
            segment_jitter_ms: integer("segment.jitter.ms"),
            segment_index_bytes: size("segment.index.bytes"),
            index_interval_bytes: u32::try_from(integer("index.interval.bytes")).unwrap_or(4096),
            retention_bytes: limit("retention.bytes").map(i64::cast_unsigned),
            retention_ms: limit("retention.ms"),
        }
    }

    /// From a segment's first record to its last, at most: what is to be compacted in time has to be in a segment that
    /// has ended.
    #[must_use]
    pub fn segment_span_ms(&self) -> i64 {
        let due_ms = if self.compact { self.compaction.max_lag_ms } else { i64::MAX };
        self.segment_ms.min(due_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_their_defaults_pass_their_own_check() {
        assert!(ROWS.is_sorted_by(|a, b| a.name < b.name), "looked up by binary search");
        for row in ROWS {
            assert_eq!(check(row.name, row.default), Ok(()), "{}", row.name);
        }
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        assert!(check("segment.bytes", "14").is_ok());
        for (name, value) in [
            ("segment.bytes", "13"),
            ("segment.bytes", "2147483648"),
            ("cleanup.policy", "shred"),
            ("cleanup.policy", ""),
            ("preallocate", "true"),
            ("min.cleanable.dirty.ratio", "1.5"),
            ("compression.type", "gzip"),
            ("no.such.option", "1"),
        ] {
            let problem = check(name, value).expect_err(name);
            assert!(problem.contains(name), "{problem}");
        }
    }

    #[test]
    fn lags_that_contradict_each_other_are_refused() {
        let lags = |min: &str, max: &str| {
            let set = [("min.compaction.lag.ms", min), ("max.compaction.lag.ms", max)];
            check_all(&set.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
        };
        assert_eq!(lags("5", "5"), Ok(()));
        assert!(lags("6", "5").expect_err("contradict").contains("min.compaction.lag.ms (6)"));
        assert!(lags("-1", "5").is_err(), "each by itself");
    }

    #[test]
    fn segments_end_in_time_to_be_compacted() {
        let span_ms = |policy: &str, lag_ms: &str| {
            let set = [("cleanup.policy", policy), ("max.compaction.lag.ms", lag_ms)];
            let values = set.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            TopicConfig::new(&values).segment_span_ms()
        };
        assert_eq!(span_ms("delete", "1000"), 604_800_000);
        assert_eq!(span_ms("compact,delete", "1000"), 1000);
        assert_eq!(span_ms("compact", "999999999999"), 604_800_000);
    }

    #[test]
    fn the_typed_form_reads_what_is_set_and_defaults_for_the_rest() {
        let set = [
            ("cleanup.policy", "compact, delete"),
            ("flush.mode", "interval"),
            ("retention.ms", "-1"),
        ];
        let values = set.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let config = TopicConfig::new(&values);
        assert!(config.compact && config.delete);
        assert_eq!(config.flush, Flush::Interval(1000));
        assert_eq!(config.retention_ms, None);
        assert_eq!(config.segment_bytes, 1 << 30);
    }
}
