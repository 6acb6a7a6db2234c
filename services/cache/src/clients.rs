//! The connections of one shard, as CLIENT LIST and CLIENT KILL see them.
//!
//! Invariant: a record exists exactly from `Session::new` to `Session::on_close`. Killing marks a
//! record and names its connection in [`Clients::take_kills`]; the host closes it.

use std::{fmt::Write as _, rc::Rc};

use engine::chunked::Chunked;
use wire::resp::Version;

/// What a stranger is told while `protected-mode` is on.
pub(crate) const PROTECTED: &[u8] = b"-DENIED Redis is running in protected mode because protected mode is enabled and no password is \
set for the default user. In this mode connections are only accepted from the loopback interface. If you want to connect \
from external computers to Redis you may adopt one of the following solutions: 1) Just disable protected mode sending the \
command 'CONFIG SET protected-mode no' from the loopback interface by connecting to Redis from the same host the server is \
running, however MAKE SURE Redis is not publicly accessible from internet if you do so. Use CONFIG REWRITE to make this \
change permanent. 2) Alternatively you can just disable the protected mode by editing the Redis configuration file, and \
setting the protected mode option to 'no', and then restarting the server. 3) If you started the server manually just for \
testing, restart it with the '--protected-mode no' option. 4) Setup a an authentication password for the default user. NOTE: \
You only need to do one of the above things in order for the server to start accepting connections from the outside.\r\n";

/// What the host knows about a new connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnInfo<'a> {
    /// Unique over all shards and for the life of the process; never 0.
    pub id: u64,
    /// The peer, `ip:port` or a path.
    pub peer: &'a str,
    /// Our end, `ip:port` or a path.
    pub local: &'a str,
    /// The host's name for it, by which [`Shard::next_addressee`](crate::Shard::next_addressee) calls it.
    pub conn: u64,
    /// The descriptor's number, for CLIENT LIST; -1 when there is none.
    pub fd: i32,
    /// Whether it came in on the shard's own port rather than on the shared one.
    pub shard_port: bool,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Record {
    /// What CLIENT TRACKING has switched on.
    pub(crate) tracking: TrackingState,
    pub(crate) id: u64,
    /// The host's name for it.
    pub(crate) conn: u64,
    /// Channels, patterns and shard channels it is subscribed to.
    pub(crate) subscriptions: [usize; 3],
    pub(crate) peer: Box<str>,
    pub(crate) local: Rc<str>,
    pub(crate) name: Option<Box<[u8]>>,
    pub(crate) lib: Option<Box<Lib>>,
    fd: i32,
    created_ms: u64,
    pub(crate) last_ms: u64,
    pub(crate) last_command: u16,
    pub(crate) db: u16,
    pub(crate) version: Version,
    pub(crate) no_evict: bool,
    pub(crate) no_touch: bool,
    /// What it waits for in a command: on which shard, and under which name.
    pub(crate) blocked: Option<(u16, u64)>,
    killed: bool,
    /// Who it is; `None` for the default user.
    pub(crate) user: Option<Box<[u8]>>,
    /// It sees everybody's commands.
    pub(crate) monitors: bool,
}

impl Record {
    /// Its user's name.
    pub(crate) fn user_name(&self) -> &[u8] {
        self.user.as_deref().unwrap_or(crate::acl::DEFAULT)
    }
}

/// Whether and how a connection tracks, for CLIENT LIST.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrackingState {
    pub(crate) on: bool,
    pub(crate) bcast: bool,
    pub(crate) broken: bool,
    /// The client it redirects to, 0 for none; -1 without tracking.
    pub(crate) redirect: i64,
}

impl Default for TrackingState {
    fn default() -> Self {
        Self { on: false, bcast: false, broken: false, redirect: -1 }
    }
}

impl Record {
    /// Whether it has subscriptions.
    pub(crate) fn subscribes(&self) -> bool {
        self.subscriptions != [0; 3]
    }
}

/// What CLIENT SETINFO told.
#[derive(Debug, Default)]
pub(crate) struct Lib {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// Which connections CLIENT LIST shows and CLIENT KILL closes.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub(crate) ids: Vec<u64>,
    pub(crate) peer: Option<Vec<u8>>,
    pub(crate) local: Option<Vec<u8>>,
    pub(crate) user: Option<Vec<u8>>,
    /// `TYPE` of something we have none of (master, replica).
    pub(crate) other_type: bool,
    /// `TYPE`: those with subscriptions, or those without.
    pub(crate) subscribes: Option<bool>,
    /// Leave this connection alone.
    pub(crate) skip: Option<u64>,
    /// Whether any id at all was given: an empty list then matches nothing.
    pub(crate) by_id: bool,
}

impl Filter {
    fn matches(&self, record: &Record) -> bool {
        let differs = |wanted: &Option<Vec<u8>>, text: &[u8]| {
            wanted.as_deref().is_some_and(|wanted| wanted != text)
        };
        !(record.killed
            || self.other_type
            || self.subscribes.is_some_and(|wanted| wanted != record.subscribes())
            || self.skip == Some(record.id)
            || (self.by_id && !self.ids.contains(&record.id))
            || differs(&self.peer, record.peer.as_bytes())
            || differs(&self.local, record.local.as_bytes())
            || differs(&self.user, record.user_name()))
    }
}

/// The connections of a shard.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    slots: Chunked<Option<Record>>,
    free: Vec<u32>,
    locals: Vec<Rc<str>>,
    kills: Vec<u64>,
    open: u64,
}

impl Clients {
    pub(crate) fn open(&mut self, info: ConnInfo<'_>, now_ms: u64) -> u32 {
        let local = self.local(info.local);
        let record = Record {
            id: info.id,
            conn: info.conn,
            subscriptions: [0; 3],
            tracking: TrackingState::default(),
            peer: info.peer.into(),
            local,
            name: None,
            lib: None,
            fd: info.fd,
            created_ms: now_ms,
            last_ms: now_ms,
            last_command: u16::MAX,
            db: 0,
            version: Version::Resp2,
            no_evict: false,
            no_touch: false,
            blocked: None,
            killed: false,
            user: None,
            monitors: false,
        };
        self.open += 1;
        match self.free.pop() {
            Some(slot) => {
                if let Some(place) = self.slots.get_mut(slot as usize) {
                    *place = Some(record);
                }
                slot
            }
            None => u32::try_from(self.slots.push(Some(record))).unwrap_or(u32::MAX),
        }
    }

    pub(crate) fn close(&mut self, slot: u32) {
        if let Some(place) = self.slots.get_mut(slot as usize)
            && place.take().is_some()
        {
            self.open -= 1;
            self.free.push(slot);
        }
    }

    pub(crate) fn get(&self, slot: u32) -> Option<&Record> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Record> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// The connection with this id.
    pub(crate) fn find(&self, id: u64) -> Option<&Record> {
        self.slots.iter().flatten().find(|record| record.id == id)
    }

    /// The place of the connection with this id.
    pub(crate) fn place(&self, id: u64) -> Option<u32> {
        let slots = (0..).zip(self.slots.iter());
        slots
            .filter(|(_, record)| record.as_ref().is_some_and(|record| record.id == id))
            .map(|(slot, _)| slot)
            .next()
    }

    /// What connections wait for in commands.
    pub(crate) fn blocked(&self) -> Vec<(u16, u64)> {
        self.slots.iter().flatten().filter_map(|record| record.blocked).collect()
    }

    pub(crate) const fn len(&self) -> u64 {
        self.open
    }

    /// Connections to close, each named once.
    pub(crate) fn take_kills(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.kills)
    }

    /// Whether this connection is among those to close; it is taken off the list then.
    pub(crate) fn take_own_kill(&mut self, id: u64) -> bool {
        let before = self.kills.len();
        self.kills.retain(|&kill| kill != id);
        self.kills.len() != before
    }

    pub(crate) fn has_kills(&self) -> bool {
        !self.kills.is_empty()
    }

    /// Marks the connections a filter names; how many.
    pub(crate) fn kill(&mut self, filter: &Filter) -> u64 {
        let mut count = 0;
        for record in self.slots.iter_mut().flatten() {
            if !record.killed && filter.matches(record) {
                record.killed = true;
                self.kills.push(record.id);
                count += 1;
            }
        }
        count
    }

    /// One line per connection a filter names, oldest first.
    pub(crate) fn list(
        &self,
        filter: &Filter,
        now_ms: u64,
        command: impl Fn(u16) -> Option<&'static str>,
    ) -> String {
        let mut records: Vec<&Record> =
            self.slots.iter().flatten().filter(|record| filter.matches(record)).collect();
        records.sort_unstable_by_key(|record| record.id);
        let mut text = String::new();
        for record in records {
            line(record, now_ms, command(record.last_command), &mut text);
        }
        text
    }

    fn local(&mut self, text: &str) -> Rc<str> {
        if let Some(known) = self.locals.iter().find(|known| &***known == text) {
            return known.clone();
        }
        let new: Rc<str> = text.into();
        if self.locals.len() < 16 {
            self.locals.push(new.clone());
        }
        new
    }
}

/// One line of CLIENT LIST, in the format of 7.0. Buffers belong to the host and show as zero.
pub(crate) fn line(record: &Record, now_ms: u64, command: Option<&'static str>, text: &mut String) {
    let name = record.name.as_deref().unwrap_or_default();
    let unix = !record.local.contains(':');
    let [channels, patterns, sharded] = record.subscriptions;
    let mut flags = String::new();
    let is_blocked = record.blocked.is_some();
    for (set, letter) in [
        (record.monitors, 'O'),
        (record.subscribes(), 'P'),
        (is_blocked, 'b'),
        (record.tracking.on, 't'),
        (record.tracking.broken, 'R'),
        (record.tracking.bcast, 'B'),
        (unix, 'U'),
        (record.no_evict, 'e'),
        (record.no_touch, 'T'),
    ] {
        if set {
            flags.push(letter);
        }
    }
    if flags.is_empty() {
        flags.push('N');
    }
    let _ = writeln!(
        text,
        "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={flags} db={} sub={} psub={} \
         ssub={} multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 \
         tot-mem=0 events=r cmd={} user={} redir={} resp={}",
        record.id,
        record.peer,
        record.local,
        record.fd,
        String::from_utf8_lossy(name),
        now_ms.saturating_sub(record.created_ms) / 1000,
        now_ms.saturating_sub(record.last_ms) / 1000,
        record.db,
        channels,
        patterns,
        sharded,
        command.unwrap_or("NULL"),
        String::from_utf8_lossy(record.user_name()),
        record.tracking.redirect,
        if record.version == Version::Resp3 { 3 } else { 2 },
    );
}
