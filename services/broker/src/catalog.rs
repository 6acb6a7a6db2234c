//! Which topics there are: written by one shard, known to all.
//!
//! The first shard is the controller. It alone changes the catalog, makes each change durable (a new
//! file, synced, renamed over the old one), and hands an immutable copy to every shard. Invariants: a
//! change is answered after it is durable and every shard knows it; ids of topics are never used
//! again. Next: `control` for the changes, `shard` for what a shard makes of a copy.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use engine::buf::DirectBuf;
use engine::driver::OpenOptions;
use engine::error::{Error, Kind};
use engine::fs::{Caching, Dir, File};
use engine::shard::ShardCx;

/// A topic's id.
pub type TopicId = [u8; 16];

/// The internal topic of committed offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Longest name of a topic (Kafka's limit).
pub const NAME_MAX_BYTES: usize = 249;

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Topic {
    /// Its name, at most [`NAME_MAX_BYTES`] of letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// Its id.
    pub id: TopicId,
    /// Partitions, from 0 on.
    pub partitions: i32,
    /// What was set; see `topic_config` for what may be.
    pub config: BTreeMap<String, String>,
}

impl Topic {
    /// Whether clients may not write it.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.name == OFFSETS_TOPIC
    }

    /// The shard that leads a partition.
    #[must_use]
    pub fn leader(&self, partition: i32, shards: usize) -> usize {
        let start = u64::from_le_bytes([
            self.id[0], self.id[1], self.id[2], self.id[3], self.id[4], self.id[5], self.id[6],
            self.id[7],
        ]);
        let shards = shards as u64;
        ((start % shards + u64::from(partition.unsigned_abs())) % shards) as usize
    }
}

/// All topics, and what else the controller keeps.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
pub struct Catalog {
    /// Changes with every change.
    pub epoch: u64,
    /// Names the cluster, for clients: 16 bytes in base64.
    pub cluster_id: String,
    /// The first producer id that was not given out.
    pub next_producer_id: i64,
    /// Topics by name.
    pub topics: BTreeMap<String, Topic>,
}

const FILE: &str = "catalog";
const FILE_NEW: &str = "catalog.new";
const MAGIC: [u8; 8] = *b"catalog1";
/// Magic, CRC-32 of the rest, four bytes of room so that the archive is aligned.
const HEADER_BYTES: usize = 16;
/// Copied and written at a time, so that a large file holds up nobody.
const WRITE_BYTES: usize = 1 << 20;
/// Far above what the largest number of topics takes.
const FILE_MAX_BYTES: u64 = 256 << 20;

impl Catalog {
    /// Reads the catalog in `dir`; an empty one where there is none.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub async fn load(cx: &ShardCx, dir: &Path) -> Result<Self, Error> {
        let path = dir.join(FILE);
        let file = match File::open(cx, &path, &OpenOptions::default()) {
            Ok(file) => file,
            Err(error) if error.errno().is_some_and(|errno| errno.0 == 2) => {
                return Ok(Self::default());
            }
            Err(error) => return Err(error),
        };
        let len = file.len()?;
        if len > FILE_MAX_BYTES {
            return Err(damaged(&path, "it is too long"));
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let buf = DirectBuf::zeroed(len.max(1));
        let (buf, read) = file.read_at(buf, len, 0, Caching::Keep).await?;
        let (Some(header), Some(archive)) = (buf.get(..HEADER_BYTES), buf.get(HEADER_BYTES..read))
        else {
            return Err(damaged(&path, "it is too short"));
        };
        if header[..8] != MAGIC {
            return Err(damaged(&path, "it is no catalog, or of another version"));
        }
        if header[8..12] != crc32fast::hash(archive).to_le_bytes() {
            return Err(damaged(&path, "its checksum does not fit"));
        }
        rkyv::from_bytes::<Self, rkyv::rancor::Error>(archive)
            .map_err(|error| damaged(&path, &error.to_string()))
    }

    /// Makes this the catalog in `dir`, durably.
    ///
    /// # Errors
    /// It cannot be written; the old one stays.
    pub async fn store(&self, cx: &ShardCx, dir: &Rc<Dir>) -> Result<(), Error> {
        let archive = rkyv::to_bytes::<rkyv::rancor::Error>(self)
            .map_err(|error| Error::new("encode", Kind::Invalid, error.to_string()))?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&crc32fast::hash(&archive).to_le_bytes());
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend_from_slice(&archive);
        replace_file(cx, dir, FILE, FILE_NEW, &bytes).await
    }

    /// Partitions of all topics.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.topics.values().map(|topic| usize::try_from(topic.partitions).unwrap_or(0)).sum()
    }
}

fn damaged(path: &Path, why: &str) -> Error {
    Error::new("read", Kind::Invalid, format!("{}: {why}", path.display()))
        .remedied("restore it from a copy, or move the data directory away to begin anew")
}

/// Writes `bytes` as `name` in `dir`, durably, by way of `temporary`: afterwards the file is the old one
/// or the new one, never a part.
///
/// # Errors
/// It cannot be written; the old one stays.
pub(crate) async fn replace_file(
    cx: &ShardCx,
    dir: &Dir,
    name: &str,
    temporary: &str,
    bytes: &[u8],
) -> Result<(), Error> {
    let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
    let file = File::open(cx, &dir.path().join(temporary), &options)?;
    file.truncate(0)?;
    let mut position = 0;
    for piece in bytes.chunks(WRITE_BYTES) {
        let mut buf = DirectBuf::zeroed(piece.len());
        buf[..piece.len()].copy_from_slice(piece);
        file.write_at(buf, piece.len(), position).await?;
        position += piece.len() as u64;
    }
    file.sync().await?;
    dir.rename(temporary, name)?;
    dir.sync().await
}

/// Whether a topic may have this name.
///
/// # Errors
/// What is wrong with it, for the peer.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name == "." || name == ".." {
        return Err("the topic name is empty, '.' or '..'".into());
    }
    if name.len() > NAME_MAX_BYTES {
        return Err(format!("the topic name is longer than {NAME_MAX_BYTES} characters"));
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !name.bytes().all(legal) {
        return Err(
            "the topic name contains other characters than letters, digits, '.', '_' and '-'"
                .into(),
        );
    }
    Ok(())
}

/// A topic id as clients print it: URL-safe base64 without padding.
#[must_use]
pub fn show_id(id: &TopicId) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(22);
    for chunk in id.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_kafka() {
        for name in ["a", "a.b_c-9", &"x".repeat(NAME_MAX_BYTES)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(NAME_MAX_BYTES + 1)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn ids_are_shown_as_22_digits() {
        assert_eq!(show_id(&[0; 16]), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(show_id(&[0xff; 16]), "_____________________w");
    }

    #[test]
    fn partitions_of_a_topic_spread_over_the_shards() {
        let topic = Topic { name: "t".into(), id: [7; 16], partitions: 8, config: BTreeMap::new() };
        let mut leaders: Vec<usize> = (0..4).map(|partition| topic.leader(partition, 4)).collect();
        leaders.sort_unstable();
        assert_eq!(leaders, [0, 1, 2, 3]);
    }
}
