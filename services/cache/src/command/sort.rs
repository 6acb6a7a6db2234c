//! SORT and SORT_RO: the elements of a list, a set or a sorted set, in order, or what keys named after them hold.
//!
//! Keys that BY and GET stand for are known only when the elements are. Those of other shards are wanted, and the command
//! runs again when what they hold is known (`elsewhere.rs`). On a cluster node's port BY and GET are refused, as Redis
//! refuses them in cluster mode. Invariant: everything is read before the result is stored.

use std::cmp::Ordering;

use bytes::Bytes;
use logic::object::{List, Object, list::End};
use logic::store::Value;
use wire::resp::{Args, reply};

use super::{Cx, Fault, Outcome, Waiting, dispatch::c_string, float, row::Row};
use crate::{events::LIST, watch::guard};

type Result<T = Outcome> = std::result::Result<T, Fault>;

struct Options<'a> {
    descending: bool,
    alpha: bool,
    offset: i64,
    count: i64,
    by: Option<&'a [u8]>,
    /// BY names no key: the elements stay in the order they are in.
    keep_order: bool,
    gets: Vec<&'a [u8]>,
    store: Option<usize>,
}

fn options<'a>(cx: &Cx<'a>, may_store: bool) -> Result<Options<'a>> {
    let mut options = Options {
        descending: false,
        alpha: false,
        offset: 0,
        count: -1,
        by: None,
        keep_order: false,
        gets: Vec::new(),
        store: None,
    };
    let node = cx.is_cluster_node();
    let mut at = 2;
    while at < cx.argc() {
        let left = cx.argc() - at - 1;
        if cx.is(at, "ASC") {
            options.descending = false;
        } else if cx.is(at, "DESC") {
            options.descending = true;
        } else if cx.is(at, "ALPHA") {
            options.alpha = true;
        } else if left >= 2 && cx.is(at, "LIMIT") {
            options.offset = cx.integer(at + 1)?;
            options.count = cx.integer(at + 2)?;
            at += 2;
        } else if may_store && left >= 1 && cx.is(at, "STORE") {
            at += 1;
            options.store = Some(at);
        } else if left >= 1 && cx.is(at, "BY") {
            at += 1;
            let pattern = cx.arg(at);
            options.by = Some(pattern);
            if star(pattern).is_none() {
                options.keep_order = true;
            } else if node {
                return Err(Fault::text("ERR BY option of SORT denied in Cluster mode."));
            } else if !guard::may_read_all(cx) {
                return Err(denied("BY"));
            }
        } else if left >= 1 && cx.is(at, "GET") {
            if node {
                return Err(Fault::text("ERR GET option of SORT denied in Cluster mode."));
            }
            if !guard::may_read_all(cx) {
                return Err(denied("GET"));
            }
            at += 1;
            options.gets.push(cx.arg(at));
        } else {
            return Err(Fault::SYNTAX);
        }
        at += 1;
    }
    Ok(options)
}

fn denied(option: &str) -> Fault {
    Fault::owned(format!("ERR {option} option of SORT denied due to insufficient ACL permissions."))
}

/// Whether a command is a SORT that may read keys which its arguments do not name; for a `restricted` user also one
/// that only might, since their rights are known on this shard alone.
pub(crate) fn looks_up(row: &Row, args: &Args, frame: &[u8], restricted: bool) -> bool {
    let arg = |at| args.get(at, frame);
    let is_word = |at, word: &str| arg(at).eq_ignore_ascii_case(word.as_bytes());
    let is_pattern = |at| restricted || star(arg(at)).is_some();
    let names = |at| (is_word(at, "BY") || is_word(at, "GET")) && is_pattern(at + 1);
    matches!(row.name, "sort" | "sort_ro") && (2..args.len()).any(names)
}

/// Where an element goes in a pattern.
fn star(pattern: &[u8]) -> Option<usize> {
    c_string(pattern, usize::MAX).iter().position(|&byte| byte == b'*')
}

/// What the pattern stands for with this element: the string at a key, or `key->field` of a hash.
fn look_up(cx: &mut Cx<'_>, pattern: &[u8], element: &[u8]) -> Option<Bytes> {
    if pattern == b"#" {
        return Some(Bytes::copy_from_slice(element));
    }
    let at = star(pattern)?;
    let (before, after) = (pattern.get(..at)?, pattern.get(at + 1..)?);
    let arrow = after.windows(2).position(|pair| pair == b"->");
    let field = arrow.and_then(|arrow| after.get(arrow + 2..)).filter(|field| !field.is_empty());
    let after = if field.is_some() { after.get(..arrow?)? } else { after };
    let key = [before, element, after].concat();
    let (db, now, touch) = (cx.conn.db, cx.now_ms(), !cx.conn.no_touch);
    cx.shard.look(db, &key, field, touch, now)
}

/// The elements in the order they are in; and whether that order means something.
fn elements(cx: &mut Cx<'_>) -> Result<(Vec<Vec<u8>>, bool)> {
    let Some(entry) = cx.lookup(1) else { return Ok((Vec::new(), true)) };
    let Value::Object(object) = entry.value else { return Err(Fault::WRONG_TYPE) };
    match object {
        Object::List(list) => Ok((list.iter().map(|value| value.to_vec()).collect(), true)),
        Object::Zset(set) => {
            Ok((set.iter(0..usize::MAX).map(|item| item.member.to_vec()).collect(), true))
        }
        Object::Set(set) => Ok((set.iter().map(|member| member.to_vec()).collect(), false)),
        _ => Err(Fault::WRONG_TYPE),
    }
}

/// What an element is compared by.
enum Weight {
    Number(f64),
    Text(Option<Bytes>),
    /// The element's own bytes.
    Own,
}

fn weigh(cx: &mut Cx<'_>, options: &Options<'_>, element: &[u8]) -> Result<Weight> {
    let found = match options.by {
        Some(pattern) => look_up(cx, pattern, element),
        None if options.alpha => return Ok(Weight::Own),
        None => Some(Bytes::copy_from_slice(element)),
    };
    if options.alpha {
        return Ok(Weight::Text(found));
    }
    let Some(text) = found else { return Ok(Weight::Number(0.0)) };
    float::number(&text)
        .map(Weight::Number)
        .ok_or(Fault::text("ERR One or more scores can't be converted into double"))
}

fn compare(one: &(Weight, Vec<u8>), other: &(Weight, Vec<u8>), whole: bool) -> Ordering {
    // What is sent is collated as C strings in the C locale; what is stored is compared whole.
    let text = |a: &[u8], b: &[u8]| {
        if whole { a.cmp(b) } else { c_string(a, usize::MAX).cmp(c_string(b, usize::MAX)) }
    };
    match (&one.0, &other.0) {
        (Weight::Number(a), Weight::Number(b)) => {
            a.partial_cmp(b).unwrap_or(Ordering::Equal).then_with(|| one.1.cmp(&other.1))
        }
        (Weight::Text(Some(a)), Weight::Text(Some(b))) => text(a, b),
        (Weight::Text(a), Weight::Text(b)) => a.is_some().cmp(&b.is_some()),
        _ => text(&one.1, &other.1),
    }
}

fn sorted(cx: &mut Cx<'_>, options: &Options<'_>, found: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
    let mut weighed = Vec::with_capacity(found.len());
    for element in found {
        weighed.push((weigh(cx, options, &element)?, element));
    }
    let whole = options.store.is_some();
    weighed.sort_by(|one, other| {
        let order = compare(one, other, whole);
        if options.descending { order.reverse() } else { order }
    });
    Ok(weighed.into_iter().map(|(_, element)| element).collect())
}

fn run(cx: &mut Cx<'_>, may_store: bool) -> Result {
    let result = answer(cx, may_store);
    if !cx.shard.elsewhere.wants() {
        return result;
    }
    let is_full = cx.shard.elsewhere.is_full();
    let wanted = cx.shard.elsewhere.take_wanted();
    match result {
        Ok(_) if is_full => Err(Fault::text(
            "ERR BY and GET stand for too many keys of other shards: sort fewer elements at once",
        )),
        Ok(_) => Ok(Outcome::Wait(Box::new(Waiting::Widen(wanted)))),
        // It fails whatever the others hold.
        fails => fails,
    }
}

/// The result; nothing when something that is wanted for it is not known.
fn answer(cx: &mut Cx<'_>, may_store: bool) -> Result {
    let mut options = options(cx, may_store)?;
    let (mut found, ordered) = elements(cx)?;
    if options.keep_order && !ordered && (options.store.is_some() || cx.conn.scripted) {
        // A set has no order of its own that could be kept in a list, or that a script may depend on.
        (options.keep_order, options.alpha, options.by) = (false, true, None);
    }
    if !options.keep_order {
        found = sorted(cx, &options, found)?;
    } else if options.descending && ordered {
        found.reverse();
    }
    let size = |value: i64| usize::try_from(value).unwrap_or(0);
    let offset = size(options.offset);
    let count = if options.count < 0 { usize::MAX } else { size(options.count) };
    if cx.shard.elsewhere.wants() && (offset > 0 || count < found.len()) {
        // Which elements are chosen is not known yet.
        return Ok(Outcome::Done);
    }
    let chosen = found.into_iter().skip(offset).take(count);
    let mut results: Vec<Option<Bytes>> = Vec::new();
    for element in chosen {
        if options.gets.is_empty() {
            results.push(Some(element.into()));
            continue;
        }
        for pattern in &options.gets {
            results.push(look_up(cx, pattern, &element));
        }
    }
    if cx.shard.elsewhere.wants() {
        return Ok(Outcome::Done);
    }
    match options.store {
        Some(to) => store(cx, to, &results),
        None => reply_results(cx, &results),
    }
}

fn store(cx: &mut Cx<'_>, to: usize, results: &[Option<Bytes>]) -> Result {
    let mut list = List::new(cx.shard.store.cx(0).limits.list_max_listpack_size);
    for value in results {
        list.push(End::Back, value.as_deref().unwrap_or_default());
    }
    cx.put(to, list, (LIST, "sortstore"))?;
    cx.count(results.len() as u64)
}

fn reply_results(cx: &mut Cx<'_>, results: &[Option<Bytes>]) -> Result {
    let version = cx.conn.version;
    let out = cx.inline();
    reply::array(out, results.len());
    for value in results {
        match value {
            Some(value) => reply::bulk(out, value),
            None => reply::null(out, version),
        }
    }
    Ok(Outcome::Done)
}

pub(super) fn sort(cx: &mut Cx<'_>) -> Result {
    run(cx, true)
}

pub(super) fn sort_ro(cx: &mut Cx<'_>) -> Result {
    run(cx, false)
}
