//! LCS: the longest common subsequence of two strings, its length or where it lies.

use bytes::Bytes;
use view::Output;
use wire::resp::{Version, reply};

use super::{Cx, Fault, Outcome};

type Result = std::result::Result<Outcome, Fault>;

/// What LCS is asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    len: bool,
    idx: bool,
    with_match_len: bool,
    min_match_len: u32,
}

pub(crate) const NOT_STRINGS: Fault =
    Fault::text("ERR The specified keys must contain string values");

/// Most cells of the table: 64 M, so 256 MiB for a moment. Redis asks its allocator instead.
const MAX_CELLS: usize = 64 << 20;

/// Options from argument 3 on.
fn options(cx: &Cx<'_>) -> std::result::Result<Options, Fault> {
    let mut options = Options::default();
    let mut at = 3;
    while at < cx.argc() {
        if cx.is(at, "IDX") {
            options.idx = true;
        } else if cx.is(at, "LEN") {
            options.len = true;
        } else if cx.is(at, "WITHMATCHLEN") {
            options.with_match_len = true;
        } else if cx.is(at, "MINMATCHLEN") && at + 1 < cx.argc() {
            at += 1;
            let least = cx.integer(at)?.max(0);
            options.min_match_len = u32::try_from(least).unwrap_or(u32::MAX);
        } else {
            return Err(Fault::SYNTAX);
        }
        at += 1;
    }
    if options.idx && options.len {
        return Err(Fault::text(
            "ERR If you want both the length and indexes, please just use IDX.",
        ));
    }
    Ok(options)
}

pub(super) fn lcs(cx: &mut Cx<'_>) -> Result {
    let (now, db) = (cx.now_ms(), cx.conn.db);
    let mut value = |index: usize| {
        let (hash, key) = (cx.hash_of(index), cx.arg(index));
        match cx.shard.store.get(db, hash, key, now).map(|entry| entry.value) {
            None => Ok(Bytes::new()),
            Some(value) => crate::ops::to_bytes(value).ok_or(NOT_STRINGS),
        }
    };
    // The types before the options.
    let (a, b) = (value(1)?, value(2)?);
    let options = options(cx)?;
    reply(cx.out, cx.conn.version, &a, &b, &options)?;
    Ok(Outcome::Done)
}

/// Matching ranges, inclusive, of both strings, with their length.
type Match = ((usize, usize), (usize, usize), u32);

struct Table {
    cells: Vec<u32>,
    width: usize,
}

impl Table {
    /// Lengths of the longest common subsequences of all prefixes.
    fn new(a: &[u8], b: &[u8]) -> Option<Self> {
        let width = b.len() + 1;
        let cells = (a.len() + 1).checked_mul(width).filter(|&cells| cells <= MAX_CELLS)?;
        let mut table = Self { cells: vec![0; cells], width };
        for (i, x) in a.iter().enumerate() {
            for (j, y) in b.iter().enumerate() {
                let value = if x == y {
                    table.at(i, j) + 1
                } else {
                    table.at(i, j + 1).max(table.at(i + 1, j))
                };
                if let Some(cell) = table.cells.get_mut((i + 1) * width + j + 1) {
                    *cell = value;
                }
            }
        }
        Some(table)
    }

    fn at(&self, i: usize, j: usize) -> u32 {
        self.cells.get(i * self.width + j).copied().unwrap_or(0)
    }

    /// Walks back from the end, as Redis does: the subsequence and its runs, last first.
    fn walk(&self, a: &[u8], b: &[u8]) -> (Vec<u8>, Vec<Match>) {
        let (mut i, mut j) = (a.len(), b.len());
        let mut text = Vec::new();
        let mut runs: Vec<Match> = Vec::new();
        let mut run: Option<Match> = None;
        while i > 0 && j > 0 {
            let byte = a.get(i - 1);
            if byte == b.get(j - 1) {
                text.extend(byte);
                run = Some(match run.take() {
                    Some(((a_start, a_end), (b_start, b_end), len))
                        if a_start == i && b_start == j =>
                    {
                        ((i - 1, a_end), (j - 1, b_end), len + 1)
                    }
                    other => {
                        runs.extend(other);
                        ((i - 1, i - 1), (j - 1, j - 1), 1)
                    }
                });
                i -= 1;
                j -= 1;
            } else {
                runs.extend(run.take());
                if self.at(i - 1, j) > self.at(i, j - 1) {
                    i -= 1;
                } else {
                    j -= 1;
                }
            }
        }
        runs.extend(run);
        text.reverse();
        (text, runs)
    }
}

/// Writes the reply for two strings.
fn reply(
    out: &mut Output,
    version: Version,
    a: &[u8],
    b: &[u8],
    options: &Options,
) -> std::result::Result<(), Fault> {
    let too_long = || {
        Fault::text("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len")
    };
    let table = Table::new(a, b).ok_or_else(too_long)?;
    let len = table.at(a.len(), b.len());
    let out = out.inline_mut();
    if options.len {
        reply::integer(out, len.into());
        return Ok(());
    }
    let (text, runs) = table.walk(a, b);
    if !options.idx {
        reply::bulk(out, &text);
        return Ok(());
    }
    let runs: Vec<Match> =
        runs.into_iter().filter(|(_, _, len)| *len >= options.min_match_len).collect();
    reply::map(out, version, 2);
    reply::bulk(out, b"matches");
    reply::array(out, runs.len());
    for (first, second, run) in runs {
        reply::array(out, if options.with_match_len { 3 } else { 2 });
        for (start, end) in [first, second] {
            reply::array(out, 2);
            reply::integer(out, i64::try_from(start).unwrap_or(i64::MAX));
            reply::integer(out, i64::try_from(end).unwrap_or(i64::MAX));
        }
        if options.with_match_len {
            reply::integer(out, run.into());
        }
    }
    reply::bulk(out, b"len");
    reply::integer(out, len.into());
    Ok(())
}
