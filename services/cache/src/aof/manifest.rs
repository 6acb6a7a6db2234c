//! Which logs there are, and from where on each is needed: a small file that is replaced as a whole.
//!
//! Text, so that people can read it: the generation names the directory that holds one log per shard, the starts say how
//! many shards there were. Invariant: the file is the old one or the new one, never a part of one.

use std::fmt::Write as _;

use engine::buf::DirectBuf;
use engine::driver::OpenOptions;
use engine::error::{Error, Kind};
use engine::fs::{Caching, Dir, File};
use engine::shard::ShardCx;

const FILE: &str = "manifest";
const FILE_NEW: &str = "manifest.new";
const HEAD: &str = "appendonly 1";
/// Longest file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) generation: u64,
    /// Position in each shard's log from which on it is needed.
    pub(crate) starts: Vec<u64>,
}

impl Manifest {
    fn encode(&self) -> String {
        let mut text = format!("{HEAD}\ngeneration {}\n", self.generation);
        for (shard, start) in self.starts.iter().enumerate() {
            let _ = writeln!(text, "shard {shard} from {start}");
        }
        text.push_str("end\n");
        text
    }

    fn decode(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        (lines.next()? == HEAD).then_some(())?;
        let generation = lines.next()?.strip_prefix("generation ")?.parse().ok()?;
        let mut starts = Vec::new();
        for line in lines.by_ref() {
            if line == "end" {
                return (!starts.is_empty()).then_some(Self { generation, starts });
            }
            let (shard, start) = line.strip_prefix("shard ")?.split_once(" from ")?;
            (shard.parse::<usize>().ok()? == starts.len()).then_some(())?;
            starts.push(start.parse().ok()?);
        }
        None
    }

    /// The name of the directory with the logs.
    pub(crate) fn logs(&self) -> String {
        format!("logs-{}", self.generation)
    }

    /// Reads it, if there is one.
    pub(crate) async fn read(cx: &ShardCx, dir: &Dir) -> Result<Option<Self>, Error> {
        if !dir.list()?.iter().any(|name| name == FILE) {
            return Ok(None);
        }
        let path = dir.path().join(FILE);
        let file = File::open(cx, &path, &OpenOptions::default())?;
        let len = usize::try_from(file.len()?.min(MAX_BYTES)).unwrap_or(0);
        let buf = DirectBuf::zeroed(len.max(1));
        let (buf, read) = file.read_at(buf, len, 0, Caching::Keep).await?;
        let text = std::str::from_utf8(buf.get(..read).unwrap_or_default()).unwrap_or_default();
        let found = Self::decode(text).ok_or_else(|| {
            Error::new("read", Kind::Broken, format!("{}: not a manifest", path.display()))
                .remedied(
                    "restore the directory from a copy, or move it away to begin without keys",
                )
        })?;
        Ok(Some(found))
    }

    /// Writes it in place of the one there is, durably.
    pub(crate) async fn write(&self, cx: &ShardCx, dir: &Dir) -> Result<(), Error> {
        let text = self.encode();
        let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
        let file = File::open(cx, &dir.path().join(FILE_NEW), &options)?;
        file.truncate(0)?;
        let mut buf = DirectBuf::zeroed(text.len());
        if let Some(room) = buf.get_mut(..text.len()) {
            room.copy_from_slice(text.as_bytes());
        }
        file.write_at(buf, text.len(), 0).await?;
        file.sync().await?;
        dir.rename(FILE_NEW, FILE)?;
        dir.sync().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_survives_and_a_part_of_one_is_none() {
        let manifest = Manifest { generation: 3, starts: vec![0, 4096] };
        let text = manifest.encode();
        assert_eq!(Manifest::decode(&text), Some(manifest));
        for len in 0..text.len() - 1 {
            assert_eq!(Manifest::decode(text.get(..len).unwrap_or_default()), None, "{len}");
        }
    }
}
