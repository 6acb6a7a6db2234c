//! A machine of the two, and asking it something from outside while everything else goes on.
//!
//! Next: `course` for the loop.

use cache::serve::Cache;
use wire::resp::Reply;

use super::course::Run;
use crate::durable::wire::Wire;
use crate::machine::Machine;

/// How long an answer may take before it is asked again.
const ANSWER_NS: u64 = 2_000_000_000;
/// How often it is asked again.
const TRIES_MAX: u32 = 12;

/// A machine.
pub(super) struct Side {
    pub(super) machine: Machine<Cache>,
    pub(super) shards: usize,
    pub(super) is_up: bool,
}

/// A command's words.
pub(super) type Words = Vec<Vec<u8>>;

pub(super) fn words(text: &str) -> Words {
    text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

/// What INFO says of something.
pub(super) fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    text.lines().find_map(value).unwrap_or_default().trim_end()
}

impl Run {
    /// Asks a machine over one connection; nothing when that broke or took too long.
    pub(super) fn ask_once(
        &mut self,
        side: usize,
        commands: &[Words],
    ) -> Result<Option<Vec<Reply>>, String> {
        let mut wire = Wire::connect(&self.world, self.setup.doors(side), None);
        commands.iter().for_each(|words| wire.push(words));
        let until_ns = self.world.now().mono_ns + ANSWER_NS;
        let mut replies = Vec::new();
        while self.world.now().mono_ns < until_ns && self.ended(side).is_none() {
            let (more, goes_on) = wire.pump()?;
            replies.extend(more);
            if replies.len() >= commands.len() {
                return Ok(Some(replies));
            }
            if !goes_on {
                break;
            }
            self.step()?;
        }
        Ok(None)
    }

    /// Asks until there is an answer, for what may be asked twice.
    pub(super) fn ask(&mut self, side: usize, commands: &[Words]) -> Result<Vec<Reply>, String> {
        for _ in 0..TRIES_MAX {
            if let Some(replies) = self.ask_once(side, commands)? {
                return Ok(replies);
            }
            let again_ns = self.world.now().mono_ns + ANSWER_NS / 8;
            self.until("a pause", |run| run.world.now().mono_ns >= again_ns)?;
            if let Some(code) = self.ended(side) {
                return Err(format!("machine {side} has ended with {code}: {}", self.said(side)));
            }
        }
        let first = commands.first().map(|words| words.join(&b' ')).unwrap_or_default();
        Err(format!("machine {side} does not answer {}", first.escape_ascii()))
    }

    /// INFO replication.
    pub(super) fn info(&mut self, side: usize) -> Result<String, String> {
        let replies = self.ask(side, &[words("INFO replication")])?;
        match replies.first() {
            Some(Reply::Bulk(text)) => Ok(String::from_utf8_lossy(text).into_owned()),
            other => Err(format!("INFO of machine {side}: {other:?}")),
        }
    }

    /// The same, if it can be had at once.
    pub(super) fn info_once(&mut self, side: usize) -> Result<Option<String>, String> {
        let replies = self.ask_once(side, &[words("INFO replication")])?;
        Ok(match replies.as_deref() {
            Some([Reply::Bulk(text)]) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        })
    }

    /// What shards of a machine have logged of errors.
    pub(super) fn said(&self, side: usize) -> String {
        self.sides[side].machine.nodes.iter().map(|node| node.cx.log().take()).collect()
    }
}
