//! What a session asks of other shards, and what they answer: plain data that crosses threads.
//!
//! The host knows three kinds of [`Work`]: exchange requests for responses, wait until a lock may
//! have gone, sleep. What an exchange means (a pipeline's foreign commands, a multi-key command's
//! locks and steps) stays between [`crate::session`] and [`Shard::serve`](crate::Shard::serve).
//!
//! Invariant: everything here is `Send`; a test asserts it. Next: [`crate::multi`].

use bytes::Bytes;

use crate::pubsub::Kind;

pub use crate::batch::Batch;
pub use crate::elsewhere::{Look, Survey, Want};
use crate::observe::{Cancel, Changes};

/// What a session waits for.
#[derive(Debug)]
pub enum Work {
    /// Hand each request to its shard (the session's own may be among them), and give all
    /// responses back in the same order.
    Exchange(Vec<(u16, Request)>),
    /// The next command touches a key that a multi-key command holds: continue when this shard's
    /// [`locks_generation`](crate::Shard::locks_generation) has changed.
    Locked,
    /// Continue when the session's shard has made its log durable up to here.
    Durable {
        /// Bytes of the log.
        to: u64,
    },
    /// Continue after this long.
    Sleep {
        /// Microseconds.
        us: u64,
    },
    /// Hand this to the first shard, which does it on its own time.
    Job(Job),
}

/// Something for the whole host, which the first shard does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Write the dump, with all keys held; answered when it is on disk.
    Save,
    /// Begin to write it in the background.
    Background,
    /// Write it and stop; without `force` only when it was written.
    Shutdown {
        /// Stop in any case.
        force: bool,
    },
    /// Apply what has come of a master, and follow nobody any more.
    Promote,
    /// Let a replica take over, as ordered.
    #[doc(hidden)]
    Failover(Box<crate::flow::failover::Order>),
    /// Give that up.
    EndFailover,
}

/// What came of a [`Work`].
#[derive(Debug)]
pub enum Done {
    /// One response per request, in their order.
    Exchange(Vec<Response>),
    /// Locks have changed.
    Unlocked,
    /// The time is over.
    Slept,
    /// What came of a job.
    Job(Response),
    /// The log is durable, or will never be.
    Durable {
        /// Which of them.
        is_so: bool,
    },
}

/// A request to one shard.
#[derive(Debug)]
pub enum Request {
    /// Commands of a pipeline whose keys all live there.
    Batch(Box<Batch>),
    /// Hold these keys for a multi-key command; answered when they are held.
    Lock {
        /// Names the command on all shards.
        ticket: u64,
        /// What to hold.
        keys: LockKeys,
        /// The command needs memory: make room, and say when there is none.
        needs_memory: bool,
        /// Watched keys that must be as they were.
        guards: Vec<Guard>,
    },
    /// Hold these keys for a command that runs on another shard, and lend it what they hold; answered
    /// when they are held.
    Borrow {
        /// Names the command on all shards.
        ticket: u64,
        /// The keys with their databases.
        keys: Vec<(u16, Box<[u8]>)>,
        /// What to hold beside these.
        hold: LockKeys,
        /// As in `Lock`.
        needs_memory: bool,
        /// As in `Lock`.
        guards: Vec<Guard>,
    },
    /// What borrowed keys hold now; releases the ticket's locks.
    Return {
        /// Whose locks.
        ticket: u64,
        /// Each key that was lent, and what it holds, if anything.
        keys: Vec<(u16, Box<[u8]>, Option<Record>)>,
        /// Which keys have changed meanwhile, perhaps with those of other shards.
        changes: Changes,
        /// Databases to empty before that; nothing for all of them.
        flushed: Vec<Option<u16>>,
        /// What the shard has to log of it.
        log: Option<Box<crate::aof::Part>>,
    },
    /// A step of a command over several shards.
    Op {
        /// Whose locks it runs under; 0 for none.
        ticket: u64,
        /// The step.
        op: Op,
        /// Release the ticket's locks afterwards.
        unlock: bool,
    },
    /// Something of memcached's protocol.
    Memcached(crate::memcached::Ask),
    /// One command that may block; answered with its batch when it has run or given up.
    Block {
        /// Names the wait.
        ticket: u64,
        /// The command.
        batch: Box<Batch>,
    },
    /// Tell shard `to`, once, when one of these keys was written.
    SetAlarm {
        /// Names the wait.
        ticket: u64,
        /// Whom to tell.
        to: u16,
        /// The keys with their databases.
        keys: Vec<(u16, Box<[u8]>)>,
    },
    /// An alarm rings; to the shard of the session that set it.
    Ring {
        /// Which.
        ticket: u64,
    },
    /// Answered when an alarm rings, or with [`Response::Ended`] when time is up; to the session's own shard.
    Hold {
        /// Names the wait.
        ticket: u64,
        /// When time is up.
        deadline_ns: Option<u64>,
    },
    /// Load this shard's keys of a dump; for the shard's host, as a job is.
    Load {
        /// The file.
        path: String,
    },
    /// Read a flow of the master; for the shard's host.
    Flow {
        /// Which flows.
        group: std::sync::Arc<crate::flow::group::Group>,
        /// Which of them.
        flow: usize,
    },
    /// For the first shard's host, which answers when it likes; not for [`Shard::serve`](crate::Shard::serve).
    Job(Job),
    /// Ends a wait, or takes an alarm off.
    Cancel {
        /// Which.
        ticket: u64,
        /// What the command replies then.
        why: Cancel,
    },
}

/// Keys by shard, each with its database.
pub type ShardKeys = Vec<(u16, Vec<(u16, Box<[u8]>)>)>;

/// A watched key, and what it was when that began: its version, and whether it was there.
#[derive(Clone, Debug)]
pub struct Guard {
    /// Its database.
    pub db: u16,
    /// The key.
    pub key: Box<[u8]>,
    /// What it was.
    pub was: (u64, bool),
}

/// What a multi-key command holds on one shard.
#[derive(Debug)]
pub enum LockKeys {
    /// Every key of every database.
    All,
    /// These keys with their databases.
    Some(Vec<(u16, Box<[u8]>)>),
}

/// Told of a shard that has answered something else.
const NO_ANSWER: &[u8] = b"ERR a shard did not answer";

impl Response {
    /// Why this is not what was asked for, of a response that is none; what is known of one that is not there.
    pub(crate) fn why_not(response: Option<&Self>) -> &[u8] {
        match response {
            Some(Self::Error(text)) => text,
            _ => NO_ANSWER,
        }
    }
}

/// A response of one shard.
#[derive(Debug)]
pub enum Response {
    /// The batch that was asked for, with its replies.
    Batch(Box<Batch>),
    /// The keys are held.
    Locked {
        /// Memory is full and nothing may go.
        full: bool,
        /// A watched key is not as it was.
        stale: bool,
    },
    /// The keys are held, and this is what they held, in their order.
    Lent {
        /// As in `Locked`.
        full: bool,
        /// As in `Locked`.
        stale: bool,
        /// The records.
        records: Vec<Option<Record>>,
    },
    /// The step is done; there is nothing to tell.
    Done,
    /// A number.
    Count(u64),
    /// What was looked at, and what was there.
    Looked(Vec<(Look, Option<Bytes>)>),
    /// Values in the order of the keys.
    Values(Vec<Option<Bytes>>),
    /// One key's record.
    Record(Option<Record>),
    /// A step of an iteration: the next cursor, and the keys.
    Keys {
        /// Zero at the end.
        cursor: u64,
        /// The keys, one after the other.
        keys: Vec<Box<[u8]>>,
    },
    /// A random key, and how many this shard has to choose from.
    Random {
        /// Keys of the database on this shard.
        len: u64,
        /// One of them.
        key: Option<Box<[u8]>>,
    },
    /// Lines of text.
    Text(String),
    /// Numbers, in the order of what was asked about.
    Counts(Vec<u64>),
    /// Counters for INFO.
    Report(Box<crate::stats::Report>),
    /// What an administrator asked for.
    Admin(Box<crate::admin::Answer>),
    /// A part of a snapshot.
    Part {
        /// Whole keys.
        bytes: Vec<u8>,
        /// It is not the last one.
        more: bool,
    },
    /// An error, without the dash.
    Error(Vec<u8>),
    /// The process stops.
    Stopping,
    /// A wait is over.
    Ended(Cancel),
    /// Versions of watched keys, and whether they are there.
    Watched(Vec<(u64, bool)>),
    /// Counters for memcached's `stats`.
    Memcached(Box<crate::memcached::Report>),
    /// Keys that are used much.
    Hot(Vec<crate::hot::HotKey>),
    /// Keys that hold much.
    Big(Vec<logic::store::Big>),
}

/// One key's value and attributes, on its way to another key or shard.
#[derive(Debug)]
pub struct Record {
    /// The value.
    pub value: Whole,
    /// When it expires, unix milliseconds.
    pub expire_at_ms: Option<u64>,
    /// How it came to be.
    pub form: logic::store::Form,
}

/// A value by itself.
#[derive(Debug)]
pub enum Whole {
    /// A string.
    String(Bytes),
    /// A collection.
    Object(logic::object::Object),
}

/// A step of a command over several shards. Keys are keys of that shard.
#[derive(Debug)]
pub enum Op {
    /// Nothing; for releasing locks.
    Nothing,
    /// Values of keys, as MGET reads them.
    Get(u16, Vec<Box<[u8]>>),
    /// Reads these for a command of another shard, as a read of a key (`true`) or without a trace of it.
    Look(bool, Vec<Look>),
    /// Sets pairs, as MSET does.
    Set(u16, Vec<(Box<[u8]>, Bytes)>),
    /// Removes keys; counts them.
    Remove(u16, Vec<Box<[u8]>>),
    /// Counts the keys that are there, as EXISTS does.
    Exists(u16, Vec<Box<[u8]>>),
    /// Counts and refreshes the keys that are there.
    Touch(u16, Vec<Box<[u8]>>),
    /// Reads one key whole.
    Load(u16, Box<[u8]>),
    /// Writes one key whole, and what that is called.
    Store(u16, Box<[u8]>, Record, &'static str),
    /// Removes a key that has gone to another shard.
    Leave(u16, Box<[u8]>),
    /// Number of keys.
    Len(u16),
    /// Keys matching a pattern.
    Keys(u16, Box<[u8]>),
    /// A random key.
    Random(u16),
    /// One step of SCAN.
    Scan(Scan),
    /// Keys of a slot of database 0: some of them, and how many there are.
    SlotKeys {
        /// The slot.
        slot: u16,
        /// At most this many keys.
        most: usize,
    },
    /// Empties one database, or all.
    Flush(Option<u16>),
    /// Counters for INFO.
    Report,
    /// Zeroes the counters.
    ResetStats,
    /// Sets configuration parameters.
    Configure(Vec<(String, String)>),
    /// The lines of CLIENT LIST.
    ClientList(crate::clients::Filter),
    /// Marks connections for closing; counts them.
    ClientKill(crate::clients::Filter),
    /// An administrator's question.
    Admin(crate::admin::Ask),
    /// At most so many of the keys that are used most.
    Hot(usize),
    /// Forgets which keys are used most.
    ResetHot,
    /// The keys that hold most.
    Big,
    /// Starts a deletion in the background.
    Erase(crate::erase::Erase),
    /// Ends the wait of a connection; 1 when it waited.
    ClientUnblock {
        /// Its id.
        id: u64,
        /// How.
        why: Cancel,
    },
    /// Begins to watch keys.
    Watch(Vec<(u16, Box<[u8]>)>),
    /// Ends that.
    Unwatch(Vec<(u16, Box<[u8]>)>),
    /// Begins a snapshot of this moment; under the lock of all keys.
    SaveBegin,
    /// The snapshot's next part.
    SavePart {
        /// Keys after which no further group is begun.
        keys: u64,
    },
    /// Gives the snapshot up.
    SaveEnd,
    /// A message to a channel; counts those who hear it here.
    Publish {
        /// A channel or a shard channel.
        kind: Kind,
        /// Its name.
        channel: Box<[u8]>,
        /// The message.
        payload: Bytes,
    },
    /// The topics that somebody listens to, perhaps only some.
    Topics(Kind, Option<Box<[u8]>>),
    /// How many listen to each of these topics.
    Listeners(Kind, Vec<Box<[u8]>>),
    /// The place of the client with this id, plus one; 0 when it is not here.
    FindClient(u64),
    /// A shard has clients that track what they read, or has none any more.
    Tracks {
        /// The shard.
        shard: u16,
        /// Whether it has any.
        on: bool,
    },
    /// A key of another shard has changed.
    Touched {
        /// The key.
        key: Box<[u8]>,
        /// The client that changed it.
        by: u64,
    },
    /// So much has changed on another shard that it could not be told.
    TouchedAll,
    /// Names of keys for a client to which one of another shard redirects.
    Tell {
        /// The client's place.
        slot: u32,
        /// Its id.
        id: u64,
        /// The names, as the protocol has them.
        keys: Bytes,
        /// Shard and id of the client that redirects.
        from: (u16, u64),
    },
    /// A client redirects to one that has gone.
    Broken {
        /// The client.
        id: u64,
        /// The one that has gone.
        to: u64,
    },
    /// A step of a command that several shards log.
    Part(Box<crate::aof::Tx>, Box<Self>),
    /// A step of a command of the master that is followed, and when it runs.
    Applied(Box<Self>, crate::repl::Applies),
    /// Begins to write a new base of the log.
    Rewrite,
    /// Notes how far the log must be durable before bases count.
    Settle,
    /// Begins to log.
    BeginLog(std::sync::Arc<crate::aof::Common>),
    /// Logs no more.
    EndLog,
}

impl Op {
    /// The same for one more shard; nothing, when it is not for several shards.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Publish { kind, channel, payload } => {
                let (kind, channel, payload) = (*kind, channel.clone(), payload.clone());
                Self::Publish { kind, channel, payload }
            }
            Self::FindClient(id) => Self::FindClient(*id),
            Self::Tracks { shard, on } => Self::Tracks { shard: *shard, on: *on },
            Self::Rewrite => Self::Rewrite,
            Self::Settle => Self::Settle,
            Self::BeginLog(common) => Self::BeginLog(std::sync::Arc::clone(common)),
            Self::EndLog => Self::EndLog,
            Self::Admin(ask) => Self::Admin(ask.clone()),
            _ => Self::Nothing,
        }
    }

    /// Whether it looks at keys it does not name, so that lent ones must be back.
    pub(crate) const fn sees_all_keys(&self) -> bool {
        matches!(
            self,
            Self::Len(_)
                | Self::Keys(..)
                | Self::Random(_)
                | Self::Scan(_)
                | Self::SlotKeys { .. }
                | Self::SaveBegin
        )
    }
}

/// One step of SCAN on one shard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scan {
    /// The database.
    pub db: u16,
    /// The shard's own cursor.
    pub cursor: u64,
    /// Work to do.
    pub count: usize,
    /// Only keys like this.
    pub pattern: Option<Box<[u8]>>,
    /// Only this type.
    pub kind: Option<Box<[u8]>>,
}

#[cfg(test)]
mod tests {
    const fn assert_send<T: Send + 'static>() {}

    #[test]
    fn requests_and_responses_cross_threads() {
        assert_send::<super::Request>();
        assert_send::<super::Response>();
    }
}
