//! XREAD and XREADGROUP.
//!
//! A read is understood first ([`Read::parse`], [`Read::resolve`]) and served after ([`Read::serve`]); serving again
//! later is what a blocked reader does, so what `$` stands for is settled once.

use logic::object::{Stream, stream::StreamId};
use wire::resp::{Version, reply};

use super::{
    super::{Waiting, blocking::milliseconds},
    Cx, Fault, Outcome, Result, error, has_group, id_arg, making_consumer, most, no_group, peek,
    put_header, reply_entries, reply_entry, reply_id,
};
use crate::observe::Block;

fn error_of(code: &str, message: &str) -> Fault {
    Fault::owned(format!("{code} {message}"))
}

/// From where a stream is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// Above this id; in a group, this consumer's history.
    Id(StreamId),
    /// `>`: what no consumer of the group has had.
    New,
}

/// A read of some streams.
#[derive(Debug, Default)]
struct Read {
    /// Arguments with the names of group and consumer.
    group: Option<(usize, usize)>,
    count: u64,
    noack: bool,
    /// BLOCK, in milliseconds; 0 for ever.
    block_ms: Option<u64>,
    /// The argument with the first key, and how many there are.
    first: usize,
    streams: usize,
    after: Vec<After>,
}

pub(in crate::command) fn xread(cx: &mut Cx<'_>) -> Result {
    read(cx, false)
}

pub(in crate::command) fn xreadgroup(cx: &mut Cx<'_>) -> Result {
    read(cx, true)
}

fn read(cx: &mut Cx<'_>, in_group: bool) -> Result {
    let mut read = Read::parse(cx, in_group)?;
    if let Err(fault) = read.resolve(cx, in_group) {
        return read.refused(cx, fault);
    }
    if read.serve(cx)? {
        return Ok(Outcome::Done);
    }
    match read.block_ms.filter(|_| cx.may_block()) {
        None => cx.null_array(),
        Some(ms) => {
            let block = Block { deadline_ns: cx.deadline_in(ms), frame: read.settled(cx) };
            Ok(Outcome::Wait(Box::new(Waiting::Block(block))))
        }
    }
}

impl Read {
    fn parse(cx: &Cx<'_>, in_group: bool) -> Result<Self> {
        let mut read = Self::default();
        let mut at = 1;
        while at < cx.argc() {
            let more = cx.argc() - at - 1;
            if more >= 1 && cx.is(at, "BLOCK") {
                at += 1;
                read.block_ms = Some(milliseconds(cx.arg(at))?);
            } else if more >= 1 && cx.is(at, "COUNT") {
                at += 1;
                read.count = u64::try_from(cx.integer(at)?).unwrap_or(0);
            } else if more >= 1 && cx.is(at, "STREAMS") {
                if !more.is_multiple_of(2) {
                    return Err(error(
                        "Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.",
                    ));
                }
                (read.first, read.streams) = (at + 1, more / 2);
                break;
            } else if more >= 2 && cx.is(at, "GROUP") {
                if !in_group {
                    return Err(error(
                        "The GROUP option is only supported by XREADGROUP. You called XREAD instead.",
                    ));
                }
                read.group = Some((at + 1, at + 2));
                at += 2;
            } else if cx.is(at, "NOACK") {
                if !in_group {
                    return Err(error(
                        "The NOACK option is only supported by XREADGROUP. You called XREAD instead.",
                    ));
                }
                read.noack = true;
            } else {
                return Err(Fault::SYNTAX);
            }
            at += 1;
        }
        if read.streams == 0 {
            return Err(Fault::SYNTAX);
        }
        if in_group && read.group.is_none() {
            return Err(error("Missing GROUP option for XREADGROUP"));
        }
        Ok(read)
    }

    /// Looks at each key and settles from where it is read.
    fn resolve(&mut self, cx: &mut Cx<'_>, in_group: bool) -> Result<()> {
        for key in self.first..self.first + self.streams {
            let last = peek(cx, key, |stream| stream.last_id())?;
            if let Some((group, _)) = self.group
                && !has_group(cx, key, group)?
            {
                return Err(no_group(cx, key, group, " in XREADGROUP with GROUP option"));
            }
            let at = key + self.streams;
            let after = match (cx.arg(at), in_group) {
                (b"$", true) => {
                    return Err(error(
                        "The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this \
                         consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just \
                         return an empty result set.",
                    ));
                }
                (b"$", false) => After::Id(last.unwrap_or_default()),
                (b">", true) => After::New,
                (b">", false) => {
                    return Err(error(
                        "The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> \
                         option.",
                    ));
                }
                _ => match id_arg(cx, at)? {
                    // The highest id is how Redis notes `>`.
                    StreamId::MAX if in_group => After::New,
                    id => After::Id(id),
                },
            };
            self.after.push(after);
        }
        Ok(())
    }

    /// What a read comes to whose streams cannot be read: one that waits goes on, unless its group is gone.
    fn refused(&self, cx: &mut Cx<'_>, fault: Fault) -> Result {
        if !cx.is_waking() {
            return Err(fault);
        }
        for key in self.first..self.first + self.streams {
            if !matches!(peek(cx, key, |stream| stream.last_id()), Ok(Some(_))) {
                return cx.block(None);
            }
        }
        Err(error_of("NOGROUP", "the consumer group this client was blocked on no longer exists"))
    }

    /// The command with the ids that `$` stands for; nothing when there is no `$`.
    fn settled(&self, cx: &Cx<'_>) -> Option<Vec<u8>> {
        let ids = self.first + self.streams;
        let is_open = |at: &usize| *at >= ids && cx.arg(*at) == b"$";
        (ids..cx.argc()).find(is_open)?;
        let mut frame = Vec::with_capacity(cx.frame.len() + 32 * self.streams);
        reply::array(&mut frame, cx.argc());
        for at in 0..cx.argc() {
            match self.after.get(at.wrapping_sub(ids)) {
                Some(After::Id(id)) if is_open(&at) => {
                    reply::bulk(&mut frame, id.to_string().as_bytes());
                }
                _ => reply::bulk(&mut frame, cx.arg(at)),
            }
        }
        Some(frame)
    }

    /// Replies with what there is; `false`, and nothing, when there is nothing.
    fn serve(&self, cx: &mut Cx<'_>) -> Result<bool> {
        let (start, version) = (cx.inline().len(), cx.conn.version);
        let mut served = 0;
        for (key, after) in (self.first..).zip(&self.after) {
            served += usize::from(match self.group {
                None => self.serve_stream(cx, key, *after)?,
                Some(group) => self.serve_group(cx, key, group, *after)?,
            });
        }
        if served > 0 {
            put_header(cx.inline(), start, |header| match version {
                Version::Resp2 => reply::array(header, served),
                Version::Resp3 => reply::map(header, version, served),
            });
        }
        Ok(served > 0)
    }

    fn serve_stream(&self, cx: &mut Cx<'_>, key: usize, after: After) -> Result<bool> {
        let name = cx.arg(key);
        let After::Id(after) = after else { return Ok(false) };
        let Some(reading) = cx.collection::<Box<Stream>>(key)? else { return Ok(false) };
        let Some(range) = reading.value.after(after) else { return Ok(false) };
        let out = reading.out.inline_mut();
        reply_name(out, reading.version, name);
        reply_entries(out, range.take(most(self.count)));
        Ok(true)
    }

    fn serve_group(
        &self,
        cx: &mut Cx<'_>,
        key: usize,
        (group, consumer): (usize, usize),
        after: After,
    ) -> Result<bool> {
        let (name, group, consumer) = (cx.arg(key), cx.arg(group), cx.arg(consumer));
        let (version, now) = (cx.conn.version, cx.now_ms());
        let names = (group, consumer);
        let served = making_consumer(cx, key, names, |cx| {
            cx.change_replying(key, |stream: &mut Box<Stream>, _, out| {
                let (out, mut count) = (out.inline_mut(), 0);
                let start = out.len();
                let done = match after {
                    After::New => {
                        stream.read_new(group, consumer, self.count, self.noack, now, |entry| {
                            count += 1;
                            reply_entry(out, &entry);
                        })
                    }
                    After::Id(after) => {
                        stream.read_history(group, consumer, after, self.count, now, |id, entry| {
                            count += 1;
                            match entry {
                                Some(entry) => reply_entry(out, &entry),
                                None => {
                                    reply::array(out, 2);
                                    reply_id(out, id);
                                    reply::null_array(out, version);
                                }
                            }
                        })
                    }
                };
                if done.is_err() || (after == After::New && count == 0) {
                    return false;
                }
                put_header(out, start, |header| {
                    reply_name(header, version, name);
                    reply::array(header, count);
                });
                true
            })
        })?;
        if served == Some(true) {
            cx.aside(key);
        }
        Ok(served.unwrap_or(false))
    }
}

/// Begins what is said of one stream: a pair, or in RESP3 the entry of a map.
fn reply_name(out: &mut Vec<u8>, version: Version, name: &[u8]) {
    if version == Version::Resp2 {
        reply::array(out, 2);
    }
    reply::bulk(out, name);
}
