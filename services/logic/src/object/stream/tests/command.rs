//! The stream commands on one key, as plain text in and out: what a caller makes of the structure.
//!
//! Replies are written as in the recordings: `:n` for integers, `[..]` for arrays, `!` before
//! errors. What depends on when a recording was made is blurred: an idle time to `new` or `old`
//! (from a minute on), a unix time of our days to `now`; `radix-tree-nodes`, which we do not
//! have, to `_`.

use std::fmt::Write;

use super::super::*;

/// Some time in 2030.
pub(super) const NOW: u64 = 1_900_000_000_000;

pub(super) struct Server {
    pub(super) stream: Stream,
    pub(super) limits: Limits,
}

fn entry(out: &mut String, entry: &Entry<'_>) {
    write!(out, "[{} [", entry.id()).unwrap();
    for (at, (name, value)) in entry.fields().enumerate() {
        let space = if at == 0 { "" } else { " " };
        write!(out, "{space}{} {}", text(name), text(value)).unwrap();
    }
    out.push_str("]]");
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn list<T>(items: impl IntoIterator<Item = T>, mut show: impl FnMut(&mut String, T)) -> String {
    let mut out = "[".to_owned();
    for item in items {
        if out.len() > 1 {
            out.push(' ');
        }
        show(&mut out, item);
    }
    out + "]"
}

fn entries<'a>(entries: impl Iterator<Item = Entry<'a>>) -> String {
    list(entries, |out, item| entry(out, &item))
}

fn idle(ms: u64) -> &'static str {
    if ms < 60_000 { "new" } else { "old" }
}

fn time(ms: u64) -> String {
    if ms > 1_700_000_000_000 { "now".to_owned() } else { format!(":{ms}") }
}

fn number(value: Option<i64>) -> String {
    value.map_or("nil".to_owned(), |value| format!(":{value}"))
}

fn error(message: &str) -> String {
    format!("!ERR {message}")
}

fn id(text: &str) -> StreamId {
    StreamId::parse(text.as_bytes()).unwrap()
}

/// The value after an option.
fn option<'a>(args: &[&'a str], name: &str) -> Option<&'a str> {
    let at = args.iter().position(|arg| arg.eq_ignore_ascii_case(name))?;
    args.get(at + 1).copied()
}

fn has(args: &[&str], name: &str) -> bool {
    args.iter().any(|arg| arg.eq_ignore_ascii_case(name))
}

fn no_group(_: NoGroup) -> String {
    "!NOGROUP".to_owned()
}

impl Server {
    pub(super) fn new(limits: Limits) -> Self {
        Self { stream: Stream::new(), limits }
    }

    /// Runs a command whose key, where it has one, has been left out.
    pub(super) fn run(&mut self, args: &[&str]) -> String {
        let (name, rest) = args.split_first().unwrap();
        let done = match *name {
            "XADD" => Ok(self.add(rest)),
            "XLEN" => Ok(format!(":{}", self.stream.len())),
            "XRANGE" => Ok(self.range(rest, false)),
            "XREVRANGE" => Ok(self.range(rest, true)),
            "XREAD" => Ok(self.read(rest)),
            "XDEL" => {
                let count = rest.iter().filter(|text| self.stream.delete(id(text))).count();
                Ok(format!(":{count}"))
            }
            "XTRIM" => Ok(format!(":{}", self.trim(rest))),
            "XSETID" => Ok(self.set_id(rest)),
            "XGROUP" => self.group(rest),
            "XREADGROUP" => self.read_group(rest),
            "XACK" => {
                let ids = rest[1..].iter();
                let gone = |text: &&&str| {
                    self.stream.acknowledge(rest[0].as_bytes(), id(text)) == Ok(true)
                };
                Ok(format!(":{}", ids.filter(gone).count()))
            }
            "XPENDING" => self.pending(rest),
            "XCLAIM" => self.claim(rest),
            "XAUTOCLAIM" => self.auto_claim(rest),
            "XINFO" => self.info(rest),
            other => panic!("no such command: {other}"),
        };
        done.unwrap_or_else(no_group)
    }

    fn trim(&mut self, args: &[&str]) -> u64 {
        let approx = has(args, "~");
        let after = |name| {
            let at = args.iter().position(|arg| arg.eq_ignore_ascii_case(name))? + 1;
            Some(args[at + usize::from(matches!(args[at], "~" | "="))])
        };
        let to = match (after("MAXLEN"), after("MINID")) {
            (Some(len), _) => TrimTo::MaxLen(len.parse().unwrap()),
            (_, Some(from)) => TrimTo::MinId(id(from)),
            _ => return 0,
        };
        let limit = option(args, "LIMIT").map(|limit| limit.parse().unwrap());
        let limit = limit.unwrap_or(if approx { self.limits.trim_limit() } else { 0 });
        let mut trim = Trim { to, approx, limit };
        let mut removed = 0;
        loop {
            let step = self.stream.trim(&mut trim, 2);
            removed += step.removed;
            if step.done {
                return removed;
            }
        }
    }

    fn add(&mut self, args: &[&str]) -> String {
        let mut at = 0;
        while at < args.len() && AddId::parse(args[at].as_bytes()).is_err() {
            at += match args[at + 1] {
                "~" | "=" => 3,
                _ => 2,
            };
        }
        let id = AddId::parse(args[at].as_bytes()).unwrap();
        let pairs = args[at + 1..].chunks(2).map(|pair| (pair[0].as_bytes(), pair[1].as_bytes()));
        let foreseen = self.stream.next_id(id, NOW);
        let added = self.stream.add(id, NOW, pairs, &self.limits);
        assert_eq!(added, foreseen);
        match added {
            Ok(id) => {
                self.trim(&args[..at]);
                id.to_string()
            }
            Err(refused) => error(refused.message()),
        }
    }

    fn range(&self, args: &[&str], down: bool) -> String {
        let (start, end) = if down { (args[1], args[0]) } else { (args[0], args[1]) };
        let bounds = StreamId::parse_start(start.as_bytes())
            .and_then(|start| Ok((start, StreamId::parse_end(end.as_bytes())?)));
        let (start, end) = match bounds {
            Ok(bounds) => bounds,
            Err(refused) => return error(refused.message()),
        };
        let count = option(args, "COUNT").map_or(usize::MAX, |count| count.parse().unwrap());
        if count == 0 {
            return "nil".to_owned();
        }
        if down {
            entries(self.stream.range_rev(start, end).take(count))
        } else {
            entries(self.stream.range(start, end).take(count))
        }
    }

    fn read(&self, args: &[&str]) -> String {
        let after = match args.last().copied() {
            Some("$") => self.stream.last_id(),
            after => id(after.unwrap()),
        };
        let count = option(args, "COUNT").map_or(usize::MAX, |count| count.parse().unwrap());
        let Some(range) = self.stream.after(after) else { return "nil".to_owned() };
        let count = if count == 0 { usize::MAX } else { count };
        format!("[[s {}]]", entries(range.take(count)))
    }

    fn set_id(&mut self, args: &[&str]) -> String {
        let added = option(args, "ENTRIESADDED").map(|added| added.parse().unwrap());
        let deleted = option(args, "MAXDELETEDID").map(id);
        match self.stream.set_id(id(args[0]), added, deleted) {
            Ok(()) => "OK".to_owned(),
            Err(refused) => error(refused.message()),
        }
    }

    fn group(&mut self, args: &[&str]) -> Result<String, NoGroup> {
        let name = args[1].as_bytes();
        let at = |stream: &Stream| if args[2] == "$" { stream.last_id() } else { id(args[2]) };
        let read = option(args, "ENTRIESREAD").map(|read| read.parse::<i64>().unwrap());
        let read = read.filter(|read| *read >= 0);
        Ok(match args[0] {
            "CREATE" => {
                let at = at(&self.stream);
                let made = self.stream.create_group(name, at, read);
                if made { "OK".to_owned() } else { "!BUSYGROUP".to_owned() }
            }
            "SETID" => {
                let at = at(&self.stream);
                self.stream.set_group_id(name, at, read)?;
                "OK".to_owned()
            }
            "DESTROY" => format!(":{}", u8::from(self.stream.destroy_group(name))),
            "CREATECONSUMER" => {
                let made = self.stream.create_consumer(name, args[2].as_bytes(), NOW)?;
                format!(":{}", u8::from(made))
            }
            "DELCONSUMER" => {
                let mut removed = 0;
                loop {
                    let step = self.stream.delete_consumer(name, args[2].as_bytes(), 2)?;
                    removed += step.removed;
                    if step.done {
                        break format!(":{removed}");
                    }
                }
            }
            other => panic!("no such subcommand: {other}"),
        })
    }

    fn read_group(&mut self, args: &[&str]) -> Result<String, NoGroup> {
        let (group, consumer) = (args[1].as_bytes(), args[2].as_bytes());
        let count = option(args, "COUNT").map_or(0, |count| count.parse().unwrap());
        let mut out = "[".to_owned();
        let served = if *args.last().unwrap() == ">" {
            let noack = has(args, "NOACK");
            let read = self.stream.read_new(group, consumer, count, noack, NOW, |item| {
                entry(&mut out, &item);
                out.push(' ');
            });
            read? > 0
        } else {
            let after = id(args.last().unwrap());
            self.stream.read_history(group, consumer, after, count, NOW, |id, item| {
                match item {
                    Some(item) => entry(&mut out, &item),
                    None => write!(out, "[{id} nil]").unwrap(),
                }
                out.push(' ');
            })?;
            true
        };
        let out = format!("[[s {}]]]", out.trim_end());
        Ok(if served { out } else { "nil".to_owned() })
    }

    fn pending(&self, args: &[&str]) -> Result<String, NoGroup> {
        let group = self.stream.group(args[0].as_bytes()).ok_or(NoGroup)?;
        if args.len() == 1 {
            let Some((first, last)) = group.pending_bounds() else {
                return Ok("[:0 nil nil nil]".to_owned());
            };
            let owners = group.consumers().filter(|consumer| consumer.pending_len() > 0);
            let owners = list(owners, |out, owner| {
                write!(out, "[{} {}]", text(owner.name()), owner.pending_len()).unwrap();
            });
            return Ok(format!("[:{} {first} {last} {owners}]", group.pending_len()));
        }
        let min_idle = option(args, "IDLE").map_or(0, |idle| idle.parse().unwrap());
        let at = if has(args, "IDLE") { 3 } else { 1 };
        let (start, end) = (args[at].as_bytes(), args[at + 1].as_bytes());
        let (start, end) =
            (StreamId::parse_start(start).unwrap(), StreamId::parse_end(end).unwrap());
        let show = |out: &mut String, row: Pending<'_>| {
            let idle = idle(row.idle_ms(NOW));
            write!(out, "[{} {} {idle} :{}]", row.id, text(row.consumer), row.deliveries).unwrap();
        };
        let count = args[at + 2].parse().unwrap();
        let idle = |row: &Pending<'_>| row.idle_ms(NOW) >= min_idle;
        Ok(match args.get(at + 3) {
            None => list(group.pending(start, end).filter(idle).take(count), show),
            Some(name) => match group.consumer(name.as_bytes()) {
                Some(owner) => list(owner.pending(start, end).filter(idle).take(count), show),
                None => "[]".to_owned(),
            },
        })
    }

    fn claim(&mut self, args: &[&str]) -> Result<String, NoGroup> {
        let ids: Vec<StreamId> =
            args[3..].iter().map_while(|text| StreamId::parse(text.as_bytes()).ok()).collect();
        let rest = &args[3 + ids.len()..];
        let number = |name| option(rest, name).map(|value| value.parse::<i64>().unwrap());
        let delivered = match (number("IDLE"), number("TIME")) {
            (Some(idle), _) => DeliveredAt::Idle(idle),
            (_, Some(at)) => DeliveredAt::Unix(at),
            _ => DeliveredAt::Now,
        };
        let claim = Claim {
            min_idle_ms: args[2].parse().unwrap(),
            delivered,
            retry_count: number("RETRYCOUNT").and_then(|count| u64::try_from(count).ok()),
            force: has(rest, "FORCE"),
            just_id: has(rest, "JUSTID"),
            last_id: option(rest, "LASTID").map(id).unwrap_or_default(),
        };
        let mut got = Vec::new();
        let (group, consumer) = (args[0].as_bytes(), args[1].as_bytes());
        self.stream.claim(group, consumer, &ids, &claim, NOW, |item| got.push(item))?;
        Ok(claimed(&got, claim.just_id).0)
    }

    fn auto_claim(&mut self, args: &[&str]) -> Result<String, NoGroup> {
        let just_id = has(args, "JUSTID");
        let options = AutoClaim {
            min_idle_ms: args[2].parse().unwrap(),
            start: StreamId::parse_start(args[3].as_bytes()).unwrap(),
            count: option(args, "COUNT").map_or(100, |count| count.parse().unwrap()),
            just_id,
        };
        let mut got = Vec::new();
        let (group, consumer) = (args[0].as_bytes(), args[1].as_bytes());
        let next = self.stream.auto_claim(group, consumer, &options, NOW, |item| got.push(item))?;
        let (items, deleted) = claimed(&got, just_id);
        Ok(format!("[{next} {items} {deleted}]"))
    }

    fn info(&self, args: &[&str]) -> Result<String, NoGroup> {
        let stream = &self.stream;
        Ok(match args[0] {
            "GROUPS" => list(stream.groups(), |out, group| {
                let (consumers, pending) = (group.consumer_count(), group.pending_len());
                let (last, read) = (group.last_id(), number(group.entries_read()));
                let (name, lag) = (text(group.name()), number(group.lag()));
                write!(
                    out,
                    "[name {name} consumers :{consumers} pending :{pending} \
                     last-delivered-id {last} entries-read {read} lag {lag}]"
                )
                .unwrap();
            }),
            "CONSUMERS" => {
                let group = stream.group(args[1].as_bytes()).ok_or(NoGroup)?;
                list(group.consumers(), |out, consumer| {
                    let (name, idle) = (text(consumer.name()), idle(consumer.idle_ms(NOW)));
                    let pending = consumer.pending_len();
                    write!(out, "[name {name} pending :{pending} idle {idle}]").unwrap();
                })
            }
            _ => self.info_stream(&args[1..]),
        })
    }

    fn info_stream(&self, args: &[&str]) -> String {
        let stream = &self.stream;
        let head = format!(
            "length :{} radix-tree-keys :{} radix-tree-nodes _ last-generated-id {} \
             max-deleted-entry-id {} entries-added :{} recorded-first-entry-id {}",
            stream.len(),
            stream.node_count(),
            stream.last_id(),
            stream.max_deleted_id(),
            stream.entries_added(),
            stream.first_id(),
        );
        if args.is_empty() {
            let show = |item: Option<Entry<'_>>| {
                let mut out = String::new();
                match item {
                    Some(item) => entry(&mut out, &item),
                    None => out.push_str("nil"),
                }
                out
            };
            let (all, none) = (StreamId::MIN, StreamId::MAX);
            let first = show(stream.range(all, none).next());
            let last = show(stream.range_rev(all, none).next());
            let groups = stream.group_count();
            return format!("[{head} groups :{groups} first-entry {first} last-entry {last}]");
        }
        let count = option(args, "COUNT").map_or(10, |count| count.parse().unwrap());
        let count = if count == 0 { usize::MAX } else { count };
        let items = entries(stream.range(StreamId::MIN, StreamId::MAX).take(count));
        let groups = list(stream.groups(), |out, group| show_group(out, group, count));
        format!("[{head} entries {items} groups {groups}]")
    }
}

fn show_group(out: &mut String, group: GroupView<'_>, count: usize) {
    let (all, none) = (StreamId::MIN, StreamId::MAX);
    let pending = list(group.pending(all, none).take(count), |out, row| {
        let Pending { id, deliveries, .. } = row;
        let (owner, at) = (text(row.consumer), time(row.delivered_ms));
        write!(out, "[{id} {owner} {at} :{deliveries}]").unwrap();
    });
    let consumers = list(group.consumers(), |out, consumer| {
        let pending = list(consumer.pending(all, none).take(count), |out, row| {
            write!(out, "[{} {} :{}]", row.id, time(row.delivered_ms), row.deliveries).unwrap();
        });
        let (name, seen) = (text(consumer.name()), time(consumer.seen_ms()));
        let len = consumer.pending_len();
        write!(out, "[name {name} seen-time {seen} pel-count :{len} pending {pending}]").unwrap();
    });
    let (last, read, lag) = (group.last_id(), number(group.entries_read()), number(group.lag()));
    let (name, len) = (text(group.name()), group.pending_len());
    write!(
        out,
        "[name {name} last-delivered-id {last} entries-read {read} lag {lag} pel-count :{len} \
         pending {pending} consumers {consumers}]"
    )
    .unwrap();
}

/// Entries or their ids, and the ids of deleted ones.
fn claimed(got: &[Claimed<'_>], just_id: bool) -> (String, String) {
    let items = got.iter().filter_map(|item| match item {
        Claimed::Entry(entry) => Some(entry),
        Claimed::Deleted(_) => None,
    });
    let items =
        list(
            items,
            |out, item| {
                if just_id { write!(out, "{}", item.id()).unwrap() } else { entry(out, item) }
            },
        );
    let deleted = got.iter().filter_map(|item| match item {
        Claimed::Entry(_) => None,
        Claimed::Deleted(id) => Some(id),
    });
    (items, list(deleted, |out, id| write!(out, "{id}").unwrap()))
}
