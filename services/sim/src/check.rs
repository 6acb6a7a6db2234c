//! What the reply to each kind of command must be.
//!
//! Private keys are left to `model`, shared ones to `shared`; the rest is here.

use wire::resp::Reply;

use crate::client::{Client, Moment, flushes};
use crate::command::{Check, Shared, Whole};
use crate::connection::{Connection, Owed};
use crate::draw::key_name;
use crate::model::During;
use crate::op::{Op, Seen, Span};
use crate::shared::{Common, show};

impl Client {
    /// Checks the reply to a command.
    pub(crate) fn check(
        &mut self,
        connection: &mut Connection,
        owed: &Owed,
        during: During,
        reply: &Reply,
        first: u8,
        common: &mut Common,
    ) -> Result<(), String> {
        let null = match (connection.version, &owed.check) {
            (3, _) => b'_',
            // What waits in vain gets a missing array.
            (_, Check::Shared(Shared::Pop | Shared::Shift)) => b'*',
            _ => b'$',
        };
        if *reply == Reply::Null && first != null {
            return Err(format!(
                "the null of another protocol version than {}",
                connection.version
            ));
        }
        let seen = Seen(Some(reply));
        let fits = match &owed.check {
            Check::Private { op, keys } => {
                if connection.redirected
                    && let Some(shard) = self.addresses.moved(connection.shard, keys)
                {
                    return self.check_moved(shard, reply, common);
                }
                flushes(&mut self.model, common, during);
                return self.model.check(op, keys, during, Some(reply));
            }
            Check::Database(whole, node) => {
                flushes(&mut self.model, common, during);
                return self.check_whole((*whole, *node), during, reply, common);
            }
            Check::Shared(shared) => return check_shared(shared, during, reply, common),
            Check::Ok => seen.ok(),
            Check::Pong => seen.simple(b"PONG"),
            Check::Bulk(bytes) => matches!(reply, Reply::Bulk(text) if text[..] == bytes[..]),
            Check::Error(prefix) => seen.error(prefix),
            Check::Text => {
                matches!(reply, Reply::Bulk(text) | Reply::Verbatim(_, text) if !text.is_empty())
            }
            Check::Hello(version) => {
                connection.version = *version;
                first == if *version == 3 { b'%' } else { b'*' }
            }
            Check::Id => match reply {
                Reply::Integer(id) if *id > 0 => {
                    let id = id.unsigned_abs();
                    if connection.id.is_none() {
                        common.ids.push(id);
                    }
                    connection.id.replace(id).is_none_or(|before| before == id)
                }
                _ => false,
            },
            Check::Kill(id) => {
                if seen.int(1) {
                    common.mark("killed");
                    common.doomed.insert(*id);
                }
                seen.int(0) || seen.int(1)
            }
            Check::Slots => {
                connection.redirected = true;
                matches!(reply, Reply::Array(slots) if slots.len() == self.addresses.shards.len())
            }
            Check::Quit => {
                connection.over = true;
                seen.ok()
            }
            Check::Fatal(prefix) => {
                connection.over = true;
                seen.error(prefix)
            }
        };
        if fits { Ok(()) } else { Err(format!("expected {:?}", owed.check)) }
    }

    fn check_moved(&self, shard: usize, reply: &Reply, common: &mut Common) -> Result<(), String> {
        common.mark("moved");
        let port = self.addresses.shards[shard].port();
        let fits = matches!(reply, Reply::Error(text)
            if text.starts_with(b"MOVED ") && text.ends_with(format!(":{port}").as_bytes()));
        if fits { Ok(()) } else { Err(format!("expected MOVED to port {port}")) }
    }

    fn check_whole(
        &mut self,
        (whole, node): (Whole, Option<usize>),
        during: During,
        reply: &Reply,
        common: &Common,
    ) -> Result<(), String> {
        match (whole, reply) {
            (Whole::Flush, _) if Seen(Some(reply)).ok() => {
                self.model.clear(during, |key| self.addresses.is_shown(node, key));
                Ok(())
            }
            (Whole::Len, Reply::Integer(told)) => {
                let (low, high) =
                    self.model.len_within(during.ms, |key| self.addresses.is_shown(node, key));
                let low = if common.flushes_allowed { 0 } else { low };
                let told = usize::try_from(*told).unwrap_or(usize::MAX);
                if (low..=high).contains(&told) {
                    return Ok(());
                }
                Err(format!("expected {low} to {high} keys"))
            }
            (Whole::Keys, Reply::Array(items)) => self.check_keys(items, true, node, during),
            (Whole::Scan, Reply::Array(parts)) => match &parts[..] {
                [Reply::Bulk(_), Reply::Array(items)] => {
                    self.check_keys(items, false, node, during)
                }
                _ => Err("expected a cursor and keys".into()),
            },
            (Whole::Random, Reply::Bulk(_)) => {
                self.check_keys(std::slice::from_ref(reply), false, node, during)
            }
            (Whole::Random, Reply::Null) => self.check_keys(&[], true, node, during),
            _ => Err(format!("not a reply to {whole:?}")),
        }
    }

    /// Whether these may be keys, and with `all` whether they may be all of them.
    fn check_keys(
        &self,
        items: &[Reply],
        all: bool,
        node: Option<usize>,
        during: During,
    ) -> Result<(), String> {
        let mut told = vec![false; self.shape.keys];
        for item in items {
            let Reply::Bulk(name) = item else { return Err("expected keys".into()) };
            let key = (0..self.shape.keys).find(|key| key_name(*key) == *name);
            let key = key.ok_or_else(|| format!("a key nobody wrote: {}", show(item)))?;
            if !self.model.is_there(key, during.ms).1 || !self.addresses.is_shown(node, key) {
                return Err(format!("{} is not there", show(item)));
            }
            if std::mem::replace(&mut told[key], true) {
                return Err(format!("{} came twice", show(item)));
            }
        }
        let mut shown = (0..told.len()).filter(|&key| self.addresses.is_shown(node, key));
        let missing = shown.find(|&key| !told[key] && self.model.is_there(key, during.ms).0);
        match missing {
            Some(key) if all => Err(format!("k{key} is missing")),
            _ => Ok(()),
        }
    }

    /// Checks a reply that was asked for when everything was over, from within the server.
    ///
    /// # Errors
    /// The key's value is impossible.
    pub fn audit(
        &mut self,
        key: usize,
        reply: &Reply,
        common: &mut Common,
        at: Moment,
    ) -> Result<(), String> {
        common.step += 1;
        let during = During { ms: Span::at(at.now_ms), sent: common.step, told: common.step };
        flushes(&mut self.model, common, during);
        let checked = self.model.check(&Op::Get, &[key], during, Some(reply));
        checked.map_err(|why| {
            format!(
                "client {}: k{key} is {} at the end ({} ms): {why}",
                self.number,
                show(reply),
                at.now_ms
            )
        })
    }
}

fn check_shared(
    shared: &Shared,
    during: During,
    reply: &Reply,
    common: &mut Common,
) -> Result<(), String> {
    let seen = Seen(Some(reply));
    let unexpected = || format!("not a reply to {shared:?}");
    match *shared {
        Shared::Push(_) | Shared::Pop | Shared::Shift => {
            crate::queue::check(shared, during, reply, common)
        }
        Shared::Incr(counter) => common.incr_told(counter, during, reply),
        Shared::Count(counter) => common.count_told(counter, during, reply),
        Shared::Write(group, write) => {
            common.write_told(group, write, during);
            if seen.ok() { Ok(()) } else { Err(unexpected()) }
        }
        Shared::WriteNew(group, write) => {
            if seen.int(1) {
                common.group_seen(group, during, |value| value.is_none())?;
                common.write_told(group, write, during);
                return Ok(());
            }
            common.write_void(group, write);
            if !seen.int(0) {
                return Err(unexpected());
            }
            common.group_seen(group, during, |value| value.is_some())
        }
        Shared::Delete(group, keys, write) => {
            // What it found was there before its own deletion.
            common.write_void(group, write);
            if common.group_count(group, keys, during, reply)? {
                common.write_told(group, write, during);
            }
            Ok(())
        }
        Shared::Read(group) => match reply {
            Reply::Array(items) => common.group_read(group, during, items),
            _ => Err(unexpected()),
        },
        Shared::ReadOne(group) => common.group_read(group, during, std::slice::from_ref(reply)),
        Shared::Exists(group, keys) => common.group_count(group, keys, during, reply).map(|_| ()),
        Shared::Move(nx) => {
            let moved = if nx { seen.int(1) || seen.int(0) } else { seen.ok() };
            if moved || seen.error("ERR no such key") { Ok(()) } else { Err(unexpected()) }
        }
        Shared::TokenCount => common.token_count(reply),
        Shared::TokenRead => match reply {
            Reply::Array(items) => common.token_read(items),
            _ => Err(unexpected()),
        },
        Shared::FlushAll(flush) => {
            (common.flushes[flush].end, common.flushes[flush].done) = (Some(during.told), true);
            common.mark("flushed all");
            if seen.ok() { Ok(()) } else { Err(unexpected()) }
        }
    }
}
