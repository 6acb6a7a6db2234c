//! What each command becomes in the log: one rule per command that may change a key.
//!
//! The rules follow what redis-server 7.0 sends to its log: commands as they came where that gives the same keys again,
//! else what they did. A command that is not in the list and has the flag WRITE is logged as it came; a test asks for a
//! rule all the same, so that each new command is thought about.
//! Next: `effects.rs` for what the rules do.

use crate::command::table::Index;

/// What becomes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// It is logged as it came.
    AsSent,
    /// It changes keys only with a destination: as it came then.
    Destination,
    /// Its steps are logged where they run.
    Elsewhere,
    /// SET: as it came without options, else what the key holds.
    Set,
    /// What the key holds, a string.
    Value,
    /// The string, with the expiry as it is: INCRBYFLOAT.
    Kept,
    /// The key's expiry.
    Expiry,
    /// GETEX: the same, where it was asked for.
    GetExpiry,
    /// HINCRBYFLOAT: the field.
    Field,
    /// The fields named after FIELDS, with their expiries.
    FieldExpiry,
    /// SPOP: the members that went.
    SetPop,
    /// The elements that went from one of several lists.
    ListPop,
    /// The members that went from one of several sorted sets.
    ZsetPop,
    /// An element from one list to another, without the waiting.
    ListMove,
    /// A member from one set to another.
    SetMove,
    /// XADD with its id and an exact trim.
    Add,
    /// An exact trim.
    Trim,
    /// XREADGROUP: what was delivered.
    ReadGroup,
    /// XCLAIM: whose the entries are now.
    Claim,
    /// XAUTOCLAIM: the same.
    AutoClaim,
    /// MOVE: what the key holds in both databases, while a base is written.
    Move,
    /// All functions.
    Functions,
}

use Rule::*;

/// The rules by name.
const RULES: &[(&str, Rule)] = &[
    ("append", AsSent),
    ("bitfield", AsSent),
    ("bitop", AsSent),
    ("blmove", ListMove),
    ("blmpop", ListPop),
    ("blpop", ListPop),
    ("brpop", ListPop),
    ("brpoplpush", ListMove),
    ("bzmpop", ZsetPop),
    ("bzpopmax", ZsetPop),
    ("bzpopmin", ZsetPop),
    ("cl.throttle", Value),
    ("copy", AsSent),
    ("decr", AsSent),
    ("decrby", AsSent),
    ("del", AsSent),
    ("delprefix", Elsewhere),
    ("expire", Expiry),
    ("expireat", Expiry),
    ("flushall", Elsewhere),
    ("flushdb", Elsewhere),
    ("function|delete", Functions),
    ("function|flush", Functions),
    ("function|load", Functions),
    ("function|restore", Functions),
    ("geoadd", AsSent),
    ("georadius", Destination),
    ("georadiusbymember", Destination),
    ("geosearchstore", AsSent),
    ("getdel", AsSent),
    ("getex", GetExpiry),
    ("getset", Value),
    ("hdel", AsSent),
    ("hexpire", FieldExpiry),
    ("hexpireat", FieldExpiry),
    ("hgetdel", AsSent),
    ("hgetex", FieldExpiry),
    ("hincrby", AsSent),
    ("hincrbyfloat", Field),
    ("hmset", AsSent),
    ("hpersist", FieldExpiry),
    ("hpexpire", FieldExpiry),
    ("hpexpireat", FieldExpiry),
    ("hset", AsSent),
    ("hsetex", FieldExpiry),
    ("hsetnx", AsSent),
    ("incr", AsSent),
    ("incrby", AsSent),
    ("incrbyfloat", Kept),
    ("linsert", AsSent),
    ("lmove", ListMove),
    ("lmpop", ListPop),
    ("lpop", AsSent),
    ("lpush", AsSent),
    ("lpushx", AsSent),
    ("lrem", AsSent),
    ("lset", AsSent),
    ("ltrim", AsSent),
    ("move", Move),
    ("mset", AsSent),
    ("msetnx", AsSent),
    ("persist", AsSent),
    ("pexpire", Expiry),
    ("pexpireat", Expiry),
    ("pfadd", AsSent),
    ("pfmerge", AsSent),
    ("psetex", Value),
    ("rename", AsSent),
    ("renamenx", AsSent),
    ("restore", AsSent),
    ("rl.check", Value),
    ("rpop", AsSent),
    ("rpoplpush", ListMove),
    ("rpush", AsSent),
    ("rpushx", AsSent),
    ("sadd", AsSent),
    ("scandel", Elsewhere),
    ("sdiffstore", AsSent),
    ("set", Set),
    ("setbit", AsSent),
    ("setex", Value),
    ("setnx", AsSent),
    ("setrange", AsSent),
    ("sinterstore", AsSent),
    ("smove", SetMove),
    ("sort", Destination),
    ("spop", SetPop),
    ("srem", AsSent),
    ("sunionstore", AsSent),
    ("swapdb", Elsewhere),
    ("unlink", AsSent),
    ("xack", AsSent),
    ("xadd", Add),
    ("xautoclaim", AutoClaim),
    ("xclaim", Claim),
    ("xdel", AsSent),
    ("xgroup|create", AsSent),
    ("xgroup|createconsumer", AsSent),
    ("xgroup|delconsumer", AsSent),
    ("xgroup|destroy", AsSent),
    ("xgroup|setid", AsSent),
    ("xreadgroup", ReadGroup),
    ("xsetid", AsSent),
    ("xtrim", Trim),
    ("zadd", AsSent),
    ("zdiffstore", AsSent),
    ("zincrby", AsSent),
    ("zinterstore", AsSent),
    ("zmpop", ZsetPop),
    ("zpopmax", AsSent),
    ("zpopmin", AsSent),
    ("zrangestore", AsSent),
    ("zrem", AsSent),
    ("zremrangebylex", AsSent),
    ("zremrangebyrank", AsSent),
    ("zremrangebyscore", AsSent),
    ("zunionstore", AsSent),
];

/// The rules by command id.
pub(crate) fn by_id(commands: &Index) -> Vec<Rule> {
    let rule = |name: &str| RULES.iter().find(|(known, _)| *known == name).map(|&(_, rule)| rule);
    commands.all().map(|(_, row)| rule(row.name).unwrap_or(AsSent)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::row::WRITE;

    #[test]
    fn every_command_that_writes_has_a_rule() {
        let commands = Index::new();
        let known = |name: &str| RULES.iter().any(|(known, _)| *known == name);
        let missing: Vec<_> = commands
            .all()
            .map(|(_, row)| row)
            .filter(|row| row.flags & WRITE != 0 && !known(row.name))
            .map(|row| row.name)
            .collect();
        assert_eq!(missing, Vec::<&str>::new(), "commands without a rule");
        assert!(RULES.is_sorted_by(|(a, _), (b, _)| a < b));
    }
}
