//! What a command that has run did to its keys, as commands for the log.
//!
//! Mostly that is the command itself. Where it is not, its effect is read from its reply or from what its keys hold now.
//! A command with several keys is told key by key while its keys are lent (each shard logs its own), and while a base is
//! written: what such a command reads may then not be there yet when it is run again (`host.rs`).
//! Invariant: running the effects of all commands in their order gives the same keys.
//! Next: `state.rs` for a key as a whole.

use logic::object::{
    Object, Stream,
    hash::FieldTtl,
    stream::{AddId, StreamId},
};
use logic::store::Value;
use view::Instant;
use wire::resp::{Args, Reply, decode_reply, parse_i64};

use super::{command, rules::Rule, state};
use crate::{command::row::Row, shard::Shard};

/// A command on keys of one shard.
#[derive(Debug)]
pub(crate) struct Effect {
    pub(crate) owner: u16,
    pub(crate) db: u16,
    pub(crate) bytes: Vec<u8>,
}

/// A command that has run.
#[derive(Clone, Copy)]
pub(crate) struct Ran<'a> {
    pub(crate) id: u16,
    pub(crate) db: u16,
    pub(crate) args: &'a Args,
    pub(crate) frame: &'a [u8],
    pub(crate) reply: &'a [u8],
    pub(crate) now: Instant,
}

impl<'a> Ran<'a> {
    fn arg(&self, index: usize) -> &'a [u8] {
        self.args.get(index, self.frame)
    }

    fn argc(&self) -> usize {
        self.args.len()
    }

    fn is(&self, index: usize, word: &str) -> bool {
        self.arg(index).eq_ignore_ascii_case(word.as_bytes())
    }

    fn reply(&self) -> Option<Reply> {
        decode_reply(self.reply).ok().flatten().map(|(reply, _)| reply)
    }

    /// Writes it as it was sent.
    fn write(&self, out: &mut Vec<u8>) {
        if self.frame.first() == Some(&b'*') {
            out.extend_from_slice(self.frame);
        } else {
            let words: Vec<&[u8]> = (0..self.argc()).map(|at| self.arg(at)).collect();
            command(out, &words);
        }
    }
}

impl Shard {
    /// Opens an entry of the log for all that a command of a client leads to.
    pub(crate) fn log_begin(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.begin();
        }
    }

    /// Ends it.
    pub(crate) fn log_end(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.finish();
        }
    }

    /// Ends it as if the command had not run: it waits, or runs elsewhere.
    pub(crate) fn log_undo(&mut self, now: Instant) {
        if let Some(journal) = &mut self.journal {
            journal.undo(now.unix_ms());
        }
    }

    /// Keeps the effects of the commands that follow for the shards that own their keys.
    pub(crate) fn log_capture(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.captured = Some(Vec::new());
        }
    }

    /// The effects since [`Shard::log_capture`], and the end of that.
    pub(crate) fn log_captured(&mut self) -> Vec<Effect> {
        self.journal.as_mut().and_then(|journal| journal.captured.take()).unwrap_or_default()
    }

    /// Logs a command that has run, if it changed a key or what is not in keys.
    pub(crate) fn log_command(&mut self, ran: &Ran<'_>, changed: bool) {
        let row = self.commands.row(ran.id);
        let Some(journal) = &mut self.journal else { return };
        let rule = journal.rule(ran.id);
        // Functions are not keys.
        let changed = changed || rule == Rule::Functions && ran.reply.first() != Some(&b'-');
        if rule == Rule::Elsewhere || !changed {
            return;
        }
        let by_key = journal.captured.is_some() || journal.has_base();
        let simple = matches!(rule, Rule::AsSent | Rule::Move) && !by_key;
        if simple {
            journal.put(ran.now.unix_ms(), ran.db, |out| ran.write(out));
        }
        if journal.fsync == super::Fsync::Always {
            for at in row.key_indices(ran.args.len(), |at| ran.arg(at)) {
                journal.touch(ran.db, self.store.hash(ran.arg(at)).get());
            }
            if matches!(row.name, "move" | "copy") {
                journal.touch_all();
            }
        }
        if simple {
            return;
        }
        let in_base = journal.captured.is_none() && journal.has_base();
        let mut maker = Maker { shard: self, ran, row, by_key, list: Vec::new() };
        maker.make(rule);
        if in_base {
            maker.expiries();
        }
        let list = maker.list;
        let Some(journal) = &mut self.journal else { return };
        if let Some(captured) = &mut journal.captured {
            captured.extend(list);
            return;
        }
        journal.begin();
        for effect in list {
            let write = |out: &mut Vec<u8>| out.extend_from_slice(&effect.bytes);
            journal.put(ran.now.unix_ms(), effect.db, write);
        }
        journal.finish();
    }
}

struct Maker<'a, 'r> {
    shard: &'a mut Shard,
    ran: &'a Ran<'r>,
    row: &'static Row,
    by_key: bool,
    list: Vec<Effect>,
}

impl<'r> Maker<'_, 'r> {
    fn add(&mut self, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        write(&mut bytes);
        let owner = self.shard.topology.owner_of(key);
        self.list.push(Effect { owner, db: self.ran.db, bytes });
    }

    fn command(&mut self, key: &[u8], words: &[&[u8]]) {
        self.add(key, |out| command(out, words));
    }

    /// What a key holds.
    fn state(&mut self, db: u16, key: &[u8]) {
        let (mut bytes, hash) = (Vec::new(), self.shard.store.hash(key));
        state::write(&mut bytes, &mut self.shard.store, db, hash, key, self.ran.now.unix_ms());
        let owner = self.shard.topology.owner_of(key);
        self.list.push(Effect { owner, db, bytes });
    }

    fn entry(&self, key: &[u8]) -> Option<logic::store::Entry<'_>> {
        let hash = self.shard.store.hash(key);
        self.shard.store.view(self.ran.db, hash, key, self.ran.now.unix_ms())
    }

    /// When what was written expires: where a key was not in the base yet, a reader knows no expiry of it, and it may have
    /// expired before the base comes to it.
    fn expiries(&mut self) {
        let ran = *self.ran;
        for at in self.row.written_indices(ran.argc(), |at| ran.arg(at)) {
            let key = ran.arg(at);
            let Some(entry) = self.entry(key) else { continue };
            let expire_at_ms = entry.expire_at_ms;
            let has_fields = matches!(entry.value,
                Value::Object(Object::Hash(hash)) if hash.next_due_ms().is_some());
            if has_fields {
                self.state(ran.db, key);
            } else if let Some(at_ms) = expire_at_ms {
                let mut digits = itoa::Buffer::new();
                self.command(key, &[b"PEXPIREAT", key, digits.format(at_ms).as_bytes()]);
            }
        }
    }

    fn make(&mut self, rule: Rule) {
        let ran = *self.ran;
        let key = ran.arg(1);
        match rule {
            Rule::Elsewhere => {}
            Rule::AsSent | Rule::Destination => self.as_sent(rule),
            Rule::Set if ran.argc() == 3 => self.as_sent(rule),
            Rule::Set | Rule::Value => self.value(key),
            Rule::Kept => self.kept(key),
            Rule::GetExpiry if ran.argc() == 2 => {}
            Rule::Expiry | Rule::GetExpiry => self.expiry(key),
            Rule::Field => self.field(key),
            Rule::FieldExpiry => self.field_expiry(key),
            Rule::SetPop => self.set_pop(key),
            Rule::ListPop => self.list_pop(),
            Rule::ZsetPop => self.zset_pop(),
            Rule::ListMove => self.list_move(),
            Rule::SetMove => self.set_move(),
            Rule::Add => self.stream_add(key),
            Rule::Trim => self.stream_trim(key),
            Rule::ReadGroup => self.read_group(),
            Rule::Claim => self.claim(key),
            Rule::AutoClaim => self.auto_claim(key),
            Rule::Move => self.between_databases(key),
            Rule::Functions => self.functions(),
        }
    }

    /// The command as it came; or, key by key, what the keys it writes hold now.
    fn as_sent(&mut self, rule: Rule) {
        let ran = *self.ran;
        let written = self.row.written_indices(ran.argc(), |at| ran.arg(at));
        if rule == Rule::Destination && written.is_empty() {
            return;
        }
        let many = self.row.key_indices(ran.argc(), |at| ran.arg(at)).nth(1).is_some();
        if !(many && self.by_key) {
            let first = self.row.key_indices(ran.argc(), |at| ran.arg(at)).next();
            let key = first.map_or(&[][..], |at| ran.arg(at));
            return self.add(key, |out| ran.write(out));
        }
        let db = self.destination_db();
        for at in written {
            // RENAME also writes the key it takes away, in its own database.
            let db = if at == 1 { ran.db } else { db };
            self.state(db, ran.arg(at));
        }
    }

    /// The database of COPY's destination; any other command writes in its own.
    fn destination_db(&self) -> u16 {
        let ran = self.ran;
        if self.row.name != "copy" {
            return ran.db;
        }
        let at = (3..ran.argc()).find(|&at| ran.is(at, "DB"));
        let db = at.and_then(|at| parse_i64(ran.arg(at + 1)));
        db.and_then(|db| u16::try_from(db).ok()).unwrap_or(ran.db)
    }

    fn value(&mut self, key: &[u8]) {
        if !matches!(self.entry(key).map(|entry| entry.value), Some(Value::Object(_))) {
            self.state(self.ran.db, key);
        }
    }

    fn kept(&mut self, key: &[u8]) {
        let value = self.entry(key).map(|entry| entry.value.as_slice().to_vec());
        match value {
            Some(value) => self.command(key, &[b"SET", key, &value, b"KEEPTTL"]),
            None => self.command(key, &[b"DEL", key]),
        }
    }

    fn expiry(&mut self, key: &[u8]) {
        let expiry = self.entry(key).map(|entry| entry.expire_at_ms);
        match expiry {
            None => self.command(key, &[b"DEL", key]),
            Some(None) => self.command(key, &[b"PERSIST", key]),
            Some(Some(at_ms)) => {
                let at = at_ms.to_string();
                self.command(key, &[b"PEXPIREAT", key, at.as_bytes()]);
            }
        }
    }

    /// Expiry of a field: nothing where there is no such field.
    fn field_ttl(&self, key: &[u8], field: &[u8]) -> FieldTtl {
        let cx = self.shard.store.cx(self.ran.now.unix_ms());
        match self.entry(key).map(|entry| entry.value) {
            Some(Value::Object(Object::Hash(hash))) => hash.ttl(field, cx),
            _ => FieldTtl::NoField,
        }
    }

    fn field(&mut self, key: &[u8]) {
        let field = self.ran.arg(2);
        let Some(Reply::Bulk(value)) = self.ran.reply() else { return };
        self.command(key, &[b"HSET", key, field, &value]);
        if let FieldTtl::At(at_ms) = self.field_ttl(key, field) {
            self.add(key, |out| state::write_field_expiry(out, key, field, at_ms));
        }
    }

    fn field_expiry(&mut self, key: &[u8]) {
        let ran = *self.ran;
        let Some(at) = (2..ran.argc()).find(|&at| ran.is(at, "FIELDS")) else { return };
        if at == 2 && self.row.name == "hgetex" {
            return;
        }
        if self.entry(key).is_none() {
            return self.command(key, &[b"DEL", key]);
        }
        let sets = self.row.name == "hsetex";
        let mut field_at = at + 2;
        while field_at < ran.argc() {
            let field = ran.arg(field_at);
            let ttl = self.field_ttl(key, field);
            if sets && ttl != FieldTtl::NoField {
                self.command(key, &[b"HSET", key, field, ran.arg(field_at + 1)]);
            }
            match ttl {
                FieldTtl::NoField => self.command(key, &[b"HDEL", key, field]),
                FieldTtl::NoExpiry if sets => {}
                FieldTtl::NoExpiry => {
                    self.command(key, &[b"HPERSIST", key, b"FIELDS", b"1", field])
                }
                FieldTtl::At(at_ms) => {
                    self.add(key, |out| state::write_field_expiry(out, key, field, at_ms));
                }
            }
            field_at += if sets { 2 } else { 1 };
        }
    }

    fn set_pop(&mut self, key: &[u8]) {
        let members = match self.ran.reply() {
            Some(Reply::Bulk(member)) => vec![Reply::Bulk(member)],
            Some(Reply::Array(members) | Reply::Set(members)) => members,
            _ => return,
        };
        if self.entry(key).is_none() {
            return self.command(key, &[b"DEL", key]);
        }
        self.remove(b"SREM", key, &members);
    }

    /// Removes members from a key.
    fn remove(&mut self, word: &[u8], key: &[u8], members: &[Reply]) {
        let mut words: Vec<&[u8]> = vec![word, key];
        words.extend(members.iter().filter_map(text));
        if words.len() > 2 {
            self.command(key, &words);
        }
    }

    fn list_pop(&mut self) {
        let ran = *self.ran;
        let Some(Reply::Array(parts)) = ran.reply() else { return };
        let [Reply::Bulk(key), taken] = parts.as_slice() else { return };
        let from_left = match self.row.name {
            "blpop" => true,
            "brpop" => false,
            name => {
                let count_at = if name == "blmpop" { 2 } else { 1 };
                let count =
                    parse_i64(ran.arg(count_at)).and_then(|count| usize::try_from(count).ok());
                ran.is(count_at + 1 + count.unwrap_or(0), "LEFT")
            }
        };
        let word: &[u8] = if from_left { b"LPOP" } else { b"RPOP" };
        match taken {
            Reply::Array(taken) => {
                let count = taken.len().to_string();
                self.command(key, &[word, key, count.as_bytes()]);
            }
            _ => self.command(key, &[word, key]),
        }
    }

    fn zset_pop(&mut self) {
        let Some(Reply::Array(parts)) = self.ran.reply() else { return };
        match parts.as_slice() {
            [Reply::Bulk(key), Reply::Array(pairs)] => {
                let first = |pair: &Reply| match pair {
                    Reply::Array(pair) => pair.first().cloned(),
                    _ => None,
                };
                let members: Vec<Reply> = pairs.iter().filter_map(first).collect();
                self.remove(b"ZREM", key, &members);
            }
            [Reply::Bulk(key), member, _] => {
                self.remove(b"ZREM", key, std::slice::from_ref(member))
            }
            _ => {}
        }
    }

    fn list_move(&mut self) {
        let ran = *self.ran;
        let Some(Reply::Bulk(value)) = ran.reply() else { return };
        let (from, to) = (ran.arg(1), ran.arg(2));
        let directed = matches!(self.row.name, "lmove" | "blmove");
        if !self.by_key || from == to {
            return if directed {
                self.command(from, &[b"LMOVE", from, to, ran.arg(3), ran.arg(4)]);
            } else {
                self.command(from, &[b"RPOPLPUSH", from, to]);
            };
        }
        let take: &[u8] = if directed && ran.is(3, "LEFT") { b"LPOP" } else { b"RPOP" };
        let put: &[u8] = if directed && ran.is(4, "RIGHT") { b"RPUSH" } else { b"LPUSH" };
        self.command(from, &[take, from]);
        self.command(to, &[put, to, &value]);
    }

    fn set_move(&mut self) {
        let ran = *self.ran;
        let (from, to, member) = (ran.arg(1), ran.arg(2), ran.arg(3));
        if !self.by_key {
            return self.add(from, |out| ran.write(out));
        }
        if from != to {
            self.command(from, &[b"SREM", from, member]);
            self.command(to, &[b"SADD", to, member]);
        }
    }

    /// A base may have come to one database and not to the other.
    fn between_databases(&mut self, key: &[u8]) {
        let to = parse_i64(self.ran.arg(2)).and_then(|db| u16::try_from(db).ok());
        self.state(self.ran.db, key);
        if let Some(to) = to {
            self.state(to, key);
        }
    }

    /// All of them: what other shards have done to them is in their logs.
    fn functions(&mut self) {
        let (libraries, number) = self.shard.scripts.library().functions();
        let bytes = super::steps::functions(&libraries, number);
        let owner = self.shard.index;
        self.list.push(Effect { owner, db: self.ran.db, bytes });
    }

    fn stream(&self, key: &[u8]) -> Option<&Stream> {
        match self.entry(key)?.value {
            Value::Object(Object::Stream(stream)) => Some(stream),
            _ => None,
        }
    }

    fn stream_add(&mut self, key: &[u8]) {
        let ran = *self.ran;
        let Some(Reply::Bulk(id)) = ran.reply() else { return };
        // Where the id is: behind the options, which were checked.
        let (mut at, mut trims) = (2, false);
        while at < ran.argc() {
            if ran.is(at, "NOMKSTREAM") {
                at += 1;
            } else if ran.is(at, "LIMIT") {
                at += 2;
            } else if ran.is(at, "MAXLEN") || ran.is(at, "MINID") {
                let signed = matches!(ran.arg(at + 1), b"~" | b"=");
                at += if signed { 3 } else { 2 };
                trims = true;
            } else {
                break;
            }
        }
        debug_assert!(AddId::parse(ran.arg(at)).is_ok(), "an id follows the options");
        let len = self.stream(key).map_or(0, Stream::len).to_string();
        let mut words: Vec<&[u8]> = vec![b"XADD", key];
        if trims {
            words.extend([&b"MAXLEN"[..], b"=", len.as_bytes()]);
        }
        words.push(&id);
        words.extend((at + 1..ran.argc()).map(|at| ran.arg(at)));
        self.command(key, &words);
    }

    fn stream_trim(&mut self, key: &[u8]) {
        let len = self.stream(key).map_or(0, Stream::len).to_string();
        self.command(key, &[b"XTRIM", key, b"MAXLEN", b"=", len.as_bytes()]);
    }

    fn read_group(&mut self) {
        let ran = *self.ran;
        let Some(group_at) = (1..ran.argc()).find(|&at| ran.is(at, "GROUP")) else { return };
        let from = group_at + 3;
        let Some(streams) = (from..ran.argc()).find(|&at| ran.is(at, "STREAMS")) else { return };
        let (group, consumer) = (ran.arg(group_at + 1), ran.arg(group_at + 2));
        let half = (ran.argc() - streams - 1) / 2;
        let read: Vec<(Reply, Reply)> = match ran.reply() {
            Some(Reply::Map(read)) => read,
            Some(Reply::Array(read)) => read.into_iter().filter_map(pair).collect(),
            _ => return,
        };
        for (key, entries) in &read {
            let (Some(key), Reply::Array(entries)) = (text(key), entries) else { continue };
            let is_new = (streams + 1..=streams + half).any(|at| {
                let id = ran.arg(at + half);
                ran.arg(at) == key && (id == b">" || StreamId::parse(id) == Ok(StreamId::MAX))
            });
            if is_new && !entries.is_empty() {
                self.deliveries(key, group, consumer, &entry_ids(entries), false);
                self.group_position(key, group);
            } else {
                // Even one that gets nothing is known from then on.
                self.deliveries(key, group, consumer, &[], false);
            }
        }
    }

    /// Whose some entries are, or that they are nobody's.
    fn deliveries(
        &mut self,
        key: &[u8],
        group: &[u8],
        consumer: &[u8],
        ids: &[StreamId],
        acks: bool,
    ) {
        let mut bytes: Vec<Vec<u8>> = Vec::new();
        if let Some(view) = self.stream(key).and_then(|stream| stream.group(group)) {
            let mut one = |words: &dyn Fn(&mut Vec<u8>)| {
                let mut out = Vec::new();
                words(&mut out);
                bytes.push(out);
            };
            if view.consumer(consumer).is_some() {
                one(&|out| command(out, &[b"XGROUP", b"CREATECONSUMER", key, group, consumer]));
            }
            for &id in ids {
                match view.pending(id, id).next() {
                    Some(pending) => {
                        one(&|out| state::write_pending(out, key, group, &pending, view.last_id()));
                    }
                    None if acks => {
                        let id = format!("{}-{}", id.ms, id.seq);
                        one(&|out| command(out, &[b"XACK", key, group, id.as_bytes()]));
                    }
                    None => {}
                }
            }
        }
        for bytes in bytes {
            self.add(key, |out| out.extend_from_slice(&bytes));
        }
    }

    fn group_position(&mut self, key: &[u8], group: &[u8]) {
        let position = self.stream(key).and_then(|stream| stream.group(group));
        let position = position.map(|view| (view.last_id(), view.entries_read().unwrap_or(-1)));
        if let Some((last, read)) = position {
            let (last, read) = (format!("{}-{}", last.ms, last.seq), read.to_string());
            let (last, read) = (last.as_bytes(), read.as_bytes());
            self.command(key, &[b"XGROUP", b"SETID", key, group, last, b"ENTRIESREAD", read]);
        }
    }

    fn claim(&mut self, key: &[u8]) {
        let ran = *self.ran;
        let ids = (5..ran.argc()).map_while(|at| StreamId::parse(ran.arg(at)).ok());
        let ids: Vec<StreamId> = ids.collect();
        self.deliveries(key, ran.arg(2), ran.arg(3), &ids, true);
        if (5 + ids.len()..ran.argc()).any(|at| ran.is(at, "LASTID")) {
            self.group_position(key, ran.arg(2));
        }
    }

    fn auto_claim(&mut self, key: &[u8]) {
        let ran = *self.ran;
        let Some(Reply::Array(parts)) = ran.reply() else { return };
        let lists = parts.iter().skip(1).filter_map(|part| match part {
            Reply::Array(entries) => Some(entry_ids(entries)),
            _ => None,
        });
        let ids: Vec<StreamId> = lists.flatten().collect();
        self.deliveries(key, ran.arg(2), ran.arg(3), &ids, true);
    }
}

fn text(reply: &Reply) -> Option<&[u8]> {
    match reply {
        Reply::Bulk(text) | Reply::Simple(text) => Some(text),
        _ => None,
    }
}

fn pair(reply: Reply) -> Option<(Reply, Reply)> {
    let Reply::Array(parts) = reply else { return None };
    let [first, second] = <[Reply; 2]>::try_from(parts).ok()?;
    Some((first, second))
}

/// The ids of entries, which come alone or with their fields.
fn entry_ids(entries: &[Reply]) -> Vec<StreamId> {
    let id = |entry: &Reply| match entry {
        Reply::Array(parts) => parts.first().and_then(text).and_then(|id| StreamId::parse(id).ok()),
        entry => text(entry).and_then(|id| StreamId::parse(id).ok()),
    };
    entries.iter().filter_map(id).collect()
}
