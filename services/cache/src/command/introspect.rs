//! COMMAND: the command table as clients see it.

use wire::resp::{Version, reply};

use super::{
    Cx, Fault, Outcome,
    row::{ACL_NAMES, Arg, Bits, FLAG_NAMES, KeySpec, Row},
};

type Result = std::result::Result<Outcome, Fault>;

/// Writes replies of one version.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
    version: Version,
}

impl Writer<'_> {
    fn text(&mut self, text: &str) {
        reply::bulk(self.out, text.as_bytes());
    }

    fn field(&mut self, name: &str, value: &str) {
        self.text(name);
        self.text(value);
    }

    fn number(&mut self, name: &str, value: i64) {
        self.text(name);
        reply::integer(self.out, value);
    }

    fn map(&mut self, len: usize) {
        reply::map(self.out, self.version, len);
    }

    fn words(&mut self, words: &[&str]) {
        reply::set(self.out, self.version, words.len());
        words.iter().for_each(|word| reply::simple(self.out, word));
    }

    fn bits(&mut self, names: &[&str], bits: Bits, prefix: &str) {
        reply::set(self.out, self.version, bits.count_ones() as usize);
        for (bit, name) in names.iter().enumerate() {
            if bits >> bit & 1 == 1 {
                reply::simple(self.out, &format!("{prefix}{name}"));
            }
        }
    }

    /// One element of COMMAND INFO.
    fn info(&mut self, row: &Row) {
        reply::array(self.out, 10);
        self.text(row.name);
        reply::integer(self.out, row.arity.into());
        self.bits(&FLAG_NAMES, row.flags, "");
        reply::integer(self.out, row.first_key.into());
        reply::integer(self.out, row.last_key.into());
        reply::integer(self.out, row.key_step.into());
        self.bits(&ACL_NAMES, row.acl, "@");
        reply::set(self.out, self.version, row.tips.len());
        row.tips.iter().for_each(|tip| self.text(tip));
        reply::set(self.out, self.version, row.specs.len());
        row.specs.iter().for_each(|spec| self.spec(spec));
        // Redis has an empty set where there are none.
        match row.subs.len() {
            0 => reply::set(self.out, self.version, 0),
            subs => reply::array(self.out, subs),
        }
        row.subs.iter().for_each(|sub| self.info(sub));
    }

    fn spec(&mut self, spec: &KeySpec) {
        self.map(3 + usize::from(spec.notes.is_some()));
        if let Some(notes) = spec.notes {
            self.field("notes", notes);
        }
        self.text("flags");
        self.words(spec.flags);
        if spec.unknown {
            for part in ["begin_search", "find_keys"] {
                self.text(part);
                self.map(2);
                self.field("type", "unknown");
                self.text("spec");
                self.map(0);
            }
            return;
        }
        self.text("begin_search");
        self.map(2);
        match spec.keyword {
            None => {
                self.field("type", "index");
                self.text("spec");
                self.map(1);
                self.number("index", spec.first.into());
            }
            Some((word, from)) => {
                self.field("type", "keyword");
                self.text("spec");
                self.map(2);
                self.field("keyword", word);
                self.number("startfrom", from.into());
            }
        }
        self.text("find_keys");
        self.map(2);
        self.field("type", if spec.counted { "keynum" } else { "range" });
        self.text("spec");
        self.map(3);
        if spec.counted {
            self.number("keynumidx", 0);
            self.number("firstkey", 1);
            self.number("keystep", spec.step.into());
        } else {
            self.number("lastkey", spec.last.into());
            self.number("keystep", spec.step.into());
            self.number("limit", spec.limit.into());
        }
    }

    /// One value of COMMAND DOCS.
    fn docs(&mut self, row: &Row) {
        let present = [
            row.complexity.is_some(),
            row.deprecated.is_some() || !row.doc_flags.is_empty(),
            row.deprecated.is_some(),
            row.deprecated.is_some(),
            !row.history.is_empty(),
            !row.args.is_empty(),
            !row.subs.is_empty(),
        ];
        self.map(3 + present.iter().filter(|&&is| is).count());
        self.field("summary", row.summary);
        self.field("since", row.since);
        self.field("group", row.group);
        if let Some(complexity) = row.complexity {
            self.field("complexity", complexity);
        }
        if row.deprecated.is_some() || !row.doc_flags.is_empty() {
            self.text("doc_flags");
            let mut flags = Vec::new();
            if row.deprecated.is_some() {
                flags.push("deprecated");
            }
            flags.extend(row.doc_flags);
            self.words(&flags);
        }
        if let Some((since, replaced_by)) = row.deprecated {
            self.field("deprecated_since", since);
            self.field("replaced_by", replaced_by);
        }
        if !row.history.is_empty() {
            self.text("history");
            reply::set(self.out, self.version, row.history.len());
            for (version, change) in row.history {
                reply::array(self.out, 2);
                self.text(version);
                self.text(change);
            }
        }
        if !row.args.is_empty() {
            self.text("arguments");
            self.args(row.args);
        }
        if !row.subs.is_empty() {
            self.text("subcommands");
            self.map(row.subs.len());
            for sub in row.subs {
                self.text(sub.name);
                self.docs(sub);
            }
        }
    }

    fn args(&mut self, args: &[Arg]) {
        reply::array(self.out, args.len());
        for arg in args {
            let optional = usize::from(arg.key_spec.is_some())
                + usize::from(arg.token.is_some())
                + usize::from(arg.since.is_some())
                + usize::from(arg.deprecated.is_some())
                + usize::from(!arg.flags.is_empty())
                + usize::from(!arg.args.is_empty());
            self.map(2 + optional);
            self.field("name", arg.name);
            self.field("type", arg.kind);
            if let Some(spec) = arg.key_spec {
                self.number("key_spec_index", spec.into());
            }
            if let Some(token) = arg.token {
                self.field("token", token);
            }
            if let Some(since) = arg.since {
                self.field("since", since);
            }
            if let Some(version) = arg.deprecated {
                self.field("deprecated_since", version);
            }
            if !arg.flags.is_empty() {
                self.text("flags");
                self.words(arg.flags);
            }
            if !arg.args.is_empty() {
                self.text("arguments");
                self.args(arg.args);
            }
        }
    }
}

pub(super) fn command(cx: &mut Cx<'_>) -> Result {
    let mut writer = Writer { out: cx.out.inline_mut(), version: cx.conn.version };
    let commands = &cx.shard.commands;
    reply::array(writer.out, commands.top_level().count());
    commands.top_level().for_each(|(_, row)| writer.info(row));
    Ok(Outcome::Done)
}

pub(super) fn count(cx: &mut Cx<'_>) -> Result {
    let count = cx.shard.commands.top_level().count();
    cx.count(count as u64)
}

pub(super) fn info(cx: &mut Cx<'_>) -> Result {
    if cx.argc() == 2 {
        return command(cx);
    }
    let mut writer = Writer { out: cx.out.inline_mut(), version: cx.conn.version };
    reply::array(writer.out, cx.args.len() - 2);
    for at in 2..cx.args.len() {
        match cx.shard.commands.find_full(cx.args.get(at, cx.frame)) {
            Some(id) => writer.info(cx.shard.commands.row(id)),
            None => reply::null(writer.out, writer.version),
        }
    }
    Ok(Outcome::Done)
}

pub(super) fn docs(cx: &mut Cx<'_>) -> Result {
    let commands = &cx.shard.commands;
    let rows: Vec<&Row> = if cx.args.len() == 2 {
        commands.top_level().map(|(_, row)| row).collect()
    } else {
        let name = |at| cx.args.get(at, cx.frame);
        let found = (2..cx.args.len()).filter_map(|at| commands.find_full(name(at)));
        found.map(|id| commands.row(id)).collect()
    };
    let mut writer = Writer { out: cx.out.inline_mut(), version: cx.conn.version };
    writer.map(rows.len());
    for row in rows {
        writer.text(row.name);
        writer.docs(row);
    }
    Ok(Outcome::Done)
}

pub(super) fn list(cx: &mut Cx<'_>) -> Result {
    let (kind, value) = match cx.argc() {
        2 => (&b""[..], &b""[..]),
        5 if cx.is(2, "FILTERBY") => (cx.arg(3), cx.arg(4)),
        _ => return Err(Fault::SYNTAX),
    };
    let category = |row: &Row| {
        let at = ACL_NAMES.iter().position(|name| name.as_bytes().eq_ignore_ascii_case(value));
        at.is_some_and(|bit| row.acl >> bit & 1 == 1)
    };
    let matches = |row: &Row| match kind.to_ascii_lowercase().as_slice() {
        b"" => true,
        b"aclcat" => category(row),
        b"pattern" => logic::glob::matches(value, row.name.as_bytes(), true),
        _ => false,
    };
    let known = |kind: &[u8]| {
        [&b"module"[..], b"aclcat", b"pattern"].iter().any(|name| kind.eq_ignore_ascii_case(name))
    };
    if !kind.is_empty() && !known(kind) {
        return Err(Fault::SYNTAX);
    }
    let filtered = !kind.is_empty();
    let rows: Vec<&Row> = if filtered {
        cx.shard.commands.all().map(|(_, row)| row).filter(|row| matches(row)).collect()
    } else {
        cx.shard.commands.all().map(|(_, row)| row).collect()
    };
    let mut writer = Writer { out: cx.out.inline_mut(), version: cx.conn.version };
    if filtered {
        reply::array(writer.out, rows.len());
    } else {
        reply::set(writer.out, writer.version, rows.len());
    }
    rows.iter().for_each(|row| writer.text(row.name));
    Ok(Outcome::Done)
}

/// The command given from argument 2 on, with its keys as indices of our own arguments.
fn subject(cx: &Cx<'_>) -> std::result::Result<(&'static Row, Vec<usize>), Fault> {
    let commands = &cx.shard.commands;
    let mut id = commands.find(cx.arg(2));
    if let Some(container) = id
        && !commands.row(container).subs.is_empty()
        && cx.argc() > 3
    {
        id = commands.find_sub(container, cx.arg(3));
    }
    let row = commands.row(id.ok_or(Fault::text("ERR Invalid command specified"))?);
    if !row.has_keys() {
        return Err(Fault::text("ERR The command has no key arguments"));
    }
    let argc = cx.argc() - 2;
    if !row.accepts(argc) {
        return Err(Fault::text("ERR Invalid number of arguments specified for command"));
    }
    Ok((row, row.key_indices(argc, |at| cx.arg(at + 2)).map(|at| at + 2).collect()))
}

pub(super) fn getkeys(cx: &mut Cx<'_>) -> Result {
    let (_, keys) = subject(cx)?;
    reply::array(cx.inline(), keys.len());
    for at in keys {
        cx.bulk(cx.arg(at))?;
    }
    Ok(Outcome::Done)
}

pub(super) fn getkeysandflags(cx: &mut Cx<'_>) -> Result {
    let (row, keys) = subject(cx)?;
    reply::array(cx.inline(), keys.len());
    let all = row.keys_with_flags(cx.argc() - 2, &|at| cx.arg(at + 2));
    for at in keys {
        let flags = all.iter().find(|(key, _)| key + 2 == at).map_or(&[][..], |(_, flags)| *flags);
        reply::array(cx.inline(), 2);
        cx.bulk(cx.arg(at))?;
        let mut writer = Writer { out: cx.out.inline_mut(), version: cx.conn.version };
        writer.words(flags);
    }
    Ok(Outcome::Done)
}

pub(super) fn help(cx: &mut Cx<'_>) -> Result {
    cx.help(
        "COMMAND",
        &[
            "(no subcommand)",
            "    Return details about all Redis commands.",
            "COUNT",
            "    Return the total number of commands in this Redis server.",
            "LIST",
            "    Return a list of all commands in this Redis server.",
            "INFO [<command-name> ...]",
            "    Return details about multiple Redis commands.",
            "    If no command names are given, documentation details for all",
            "    commands are returned.",
            "DOCS [<command-name> ...]",
            "    Return documentation details about multiple Redis commands.",
            "    If no command names are given, documentation details for all",
            "    commands are returned.",
            "GETKEYS <full-command>",
            "    Return the keys from a full Redis command.",
            "GETKEYSANDFLAGS <full-command>",
            "    Return the keys and the access flags from a full Redis command.",
        ],
    )
}
