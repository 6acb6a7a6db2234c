//! Entries: XADD, XDEL, XLEN, XRANGE, XREVRANGE, XSETID, XTRIM.

use logic::object::{
    Stream,
    stream::{AddError, AddId, StreamId, Trim, TrimTo},
};
use wire::resp::reply;

use crate::events::{ASIDE, STREAM};

use super::{
    Cx, Fault, Outcome, Result, STEP, bounds, error, id_arg, id_fault, peek, reply_entries,
};

/// What XADD and XTRIM say before the id, or in all.
#[derive(Default)]
struct Options {
    trim: Option<TrimTo>,
    approx: bool,
    /// LIMIT, when it was given.
    limit: Option<u64>,
    no_mkstream: bool,
    /// The argument that is not an option.
    end: usize,
}

impl Options {
    fn parse(cx: &Cx<'_>, xadd: bool) -> Result<Self> {
        let mut options = Self { end: 2, ..Self::default() };
        while options.end < cx.argc() {
            let at = options.end;
            let more = at + 1 < cx.argc();
            if xadd && cx.arg(at) == b"*" {
                break;
            } else if more && cx.is(at, "MAXLEN") {
                let at = options.begin_trim(cx)?;
                let len = cx.integer(at)?;
                let len = u64::try_from(len)
                    .map_err(|_| Fault::text("ERR The MAXLEN argument must be >= 0."))?;
                options.trim = Some(TrimTo::MaxLen(len));
            } else if more && cx.is(at, "MINID") {
                let at = options.begin_trim(cx)?;
                options.trim = Some(TrimTo::MinId(id_arg(cx, at)?));
            } else if more && cx.is(at, "LIMIT") {
                let limit = u64::try_from(cx.integer(at + 1)?)
                    .map_err(|_| Fault::text("ERR The LIMIT argument must be >= 0."))?;
                options.limit = Some(limit);
                options.end += 1;
            } else if xadd && cx.is(at, "NOMKSTREAM") {
                options.no_mkstream = true;
            } else if xadd {
                AddId::parse(cx.arg(at)).map_err(id_fault)?;
                break;
            } else {
                return Err(Fault::SYNTAX);
            }
            options.end += 1;
        }
        options.check(xadd)?;
        Ok(options)
    }

    /// Begins MAXLEN or MINID; the argument with the threshold.
    fn begin_trim(&mut self, cx: &Cx<'_>) -> Result<usize> {
        if self.trim.is_some() {
            return Err(error(
                "syntax error, MAXLEN and MINID options at the same time are not compatible",
            ));
        }
        self.end += 1;
        let sign = cx.arg(self.end);
        self.approx = sign == b"~" && self.end + 1 < cx.argc();
        if self.approx || (sign == b"=" && self.end + 1 < cx.argc()) {
            self.end += 1;
        }
        Ok(self.end)
    }

    fn check(&self, xadd: bool) -> Result<()> {
        if self.trim.is_none() && self.limit.is_some_and(|limit| limit > 0) {
            return Err(error(
                "syntax error, LIMIT cannot be used without specifying a trimming strategy",
            ));
        }
        if self.trim.is_none() && !xadd {
            return Err(error("syntax error, XTRIM must be called with a trimming strategy"));
        }
        if self.limit.is_some() && !self.approx {
            return Err(error("syntax error, LIMIT cannot be used without the special ~ option"));
        }
        Ok(())
    }

    /// Trims; how many entries are gone.
    fn trim(&self, stream: &mut Stream, default_limit: u64) -> u64 {
        let Some(to) = self.trim else { return 0 };
        let limit = match self.limit {
            Some(limit) => limit,
            None if self.approx => default_limit,
            None => 0,
        };
        let mut trim = Trim { to, approx: self.approx, limit };
        let mut removed = 0;
        loop {
            let step = stream.trim(&mut trim, STEP);
            removed += step.removed;
            if step.done {
                return removed;
            }
        }
    }
}

pub(in crate::command) fn xadd(cx: &mut Cx<'_>) -> Result {
    let options = Options::parse(cx, true)?;
    let (id_at, argc) = (options.end, cx.argc());
    let pairs = argc.saturating_sub(id_at + 1);
    if pairs < 2 || !pairs.is_multiple_of(2) {
        return Err(Fault::arity(cx.row.name));
    }
    let id = AddId::parse(cx.arg(id_at)).map_err(id_fault)?;
    if id == AddId::Given(StreamId::MIN) {
        return Err(error(AddError::Zero.message()));
    }
    if options.no_mkstream && !cx.holds::<Box<Stream>>(1)? {
        return cx.null();
    }
    let words = cx.words();
    let added = cx.change_or_make(1, |stream: &mut Box<Stream>, with, _| {
        let limits = with.limits.stream();
        let pairs = (id_at + 1..argc).step_by(2).map(|at| (words.get(at), words.get(at + 1)));
        let added = stream.add(id, with.now_ms, pairs, &limits)?;
        Ok::<_, AddError>((added, options.trim(stream, limits.trim_limit())))
    })?;
    match added {
        Ok((id, trimmed)) => {
            cx.event(STREAM, "xadd", 1);
            if trimmed > 0 {
                cx.event(STREAM, "xtrim", 1);
            }
            cx.bulk(id.text().as_ref())
        }
        Err(refused) => Err(error(refused.message())),
    }
}

pub(in crate::command) fn xtrim(cx: &mut Cx<'_>) -> Result {
    let options = Options::parse(cx, false)?;
    let removed = cx.change(1, |stream: &mut Box<Stream>, with, _| {
        options.trim(stream, with.limits.stream().trim_limit())
    })?;
    if removed.is_some_and(|removed| removed > 0) {
        cx.event(STREAM, "xtrim", 1);
    }
    cx.count(removed.unwrap_or(0))
}

pub(in crate::command) fn xlen(cx: &mut Cx<'_>) -> Result {
    let len = cx.collection::<Box<Stream>>(1)?.map_or(0, |reading| reading.value.len());
    cx.count(len)
}

pub(in crate::command) fn xdel(cx: &mut Cx<'_>) -> Result {
    if !cx.holds::<Box<Stream>>(1)? {
        return cx.int(0);
    }
    for at in 2..cx.argc() {
        id_arg(cx, at)?;
    }
    let (words, argc) = (cx.words(), cx.argc());
    let deleted = cx.change(1, |stream: &mut Box<Stream>, _, _| {
        let ids = (2..argc).filter_map(|at| StreamId::parse(words.get(at)).ok());
        ids.filter(|id| stream.delete(*id)).count() as u64
    })?;
    if deleted.is_some_and(|deleted| deleted > 0) {
        cx.event(STREAM, "xdel", 1);
    }
    cx.count(deleted.unwrap_or(0))
}

pub(in crate::command) fn xrange(cx: &mut Cx<'_>) -> Result {
    range(cx, false)
}

pub(in crate::command) fn xrevrange(cx: &mut Cx<'_>) -> Result {
    range(cx, true)
}

fn range(cx: &mut Cx<'_>, down: bool) -> Result {
    let (start, end) = if down { bounds(cx, 3, 2)? } else { bounds(cx, 2, 3)? };
    let mut count = None;
    let mut at = 4;
    while at < cx.argc() {
        if !cx.is(at, "COUNT") || at + 1 >= cx.argc() {
            return Err(Fault::SYNTAX);
        }
        // Redis takes -1 for "not given" only where it was not; what is negative is nothing.
        count = Some(cx.integer(at + 1)?.max(0));
        at += 2;
    }
    let count = count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
    let Some(reading) = cx.collection::<Box<Stream>>(1)? else {
        reply::array(cx.inline(), 0);
        return Ok(Outcome::Done);
    };
    let out = reading.out.inline_mut();
    if count == 0 {
        reply::null_array(out, reading.version);
    } else if down {
        reply_entries(out, reading.value.range_rev(start, end).take(count));
    } else {
        reply_entries(out, reading.value.range(start, end).take(count));
    }
    Ok(Outcome::Done)
}

pub(in crate::command) fn xsetid(cx: &mut Cx<'_>) -> Result {
    let id = id_arg(cx, 2)?;
    let (mut added, mut deleted) = (None, None);
    let mut at = 3;
    while at < cx.argc() {
        let more = at + 1 < cx.argc();
        if more && cx.is(at, "ENTRIESADDED") {
            let count = u64::try_from(cx.integer(at + 1)?);
            added = Some(count.map_err(|_| Fault::text("ERR entries_added must be positive"))?);
        } else if more && cx.is(at, "MAXDELETEDID") {
            let highest = id_arg(cx, at + 1)?;
            if id < highest {
                return Err(error(
                    "The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                ));
            }
            deleted = Some(highest);
        } else {
            return Err(Fault::SYNTAX);
        }
        at += 2;
    }
    if peek(cx, 1, |_| ())?.is_none() {
        return Err(Fault::NO_KEY);
    }
    let set = cx.change(1, |stream: &mut Box<Stream>, _, _| stream.set_id(id, added, deleted))?;
    match set {
        Some(Err(refused)) => Err(error(refused.message())),
        _ => {
            cx.event(STREAM | ASIDE, "xsetid", 1);
            cx.ok()
        }
    }
}
