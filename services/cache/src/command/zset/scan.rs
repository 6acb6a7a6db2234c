//! ZSCAN.

use logic::glob;
use logic::object::{Zset, packed::Digits};
use wire::resp::{float::g17, parse_i64, reply};

use super::Result;
use crate::command::{Cx, Fault, Outcome, keyspace};

/// Members per step unless COUNT says otherwise.
const COUNT: usize = 10;
/// Most members one step may be asked for.
const COUNT_MAX: usize = 10_000;

/// What follows the cursor.
struct Options<'a> {
    count: usize,
    pattern: Option<&'a [u8]>,
}

fn options<'a>(words: &[&'a [u8]]) -> Result<Options<'a>> {
    let mut options = Options { count: COUNT, pattern: None };
    let mut left = words;
    loop {
        left = match *left {
            [] => return Ok(options),
            [word, count, ref rest @ ..] if word.eq_ignore_ascii_case(b"COUNT") => {
                let count = parse_i64(count).ok_or(Fault::NOT_INTEGER)?;
                if count < 1 {
                    return Err(Fault::SYNTAX);
                }
                options.count = usize::try_from(count).unwrap_or(COUNT_MAX).min(COUNT_MAX);
                rest
            }
            [word, pattern, ref rest @ ..] if word.eq_ignore_ascii_case(b"MATCH") => {
                options.pattern = Some(pattern).filter(|pattern| *pattern != b"*");
                rest
            }
            _ => return Err(Fault::SYNTAX),
        };
    }
}

/// A score as ZSCAN prints it: small sets keep integers as such, so theirs have all their digits.
fn score_text(score: f64, small: bool) -> String {
    const INTEGER_MAX: f64 = 4_611_686_018_427_387_904.0;
    if small && score.fract() == 0.0 && score.abs() <= INTEGER_MAX {
        #[expect(clippy::cast_possible_truncation, reason = "an integer in range")]
        return (score as i64).to_string();
    }
    g17(score)
}

pub(in crate::command) fn zscan(cx: &mut Cx<'_>) -> Result {
    let cursor = keyspace::cursor(cx.arg(2)).ok_or(Fault::text("ERR invalid cursor"))?;
    let words: Vec<&[u8]> = (3..cx.argc()).map(|index| cx.arg(index)).collect();
    let Some(reading) = cx.collection::<Zset>(1)? else {
        let out = cx.inline();
        reply::array(out, 2);
        reply::bulk(out, b"0");
        return cx.empty_array();
    };
    let options = options(&words)?;
    let small = reading.value.encoding() == "listpack";
    let (mut found, mut digits) = (Vec::new(), Digits::new());
    let next = reading.value.scan(cursor, options.count, reading.with, |item| {
        let member = item.member.text(&mut digits);
        if options.pattern.is_none_or(|pattern| glob::matches(pattern, member, false)) {
            found.push((member.to_vec(), item.score));
        }
    });
    let out = reading.out.inline_mut();
    reply::array(out, 2);
    reply::bulk(out, next.to_string().as_bytes());
    reply::array(out, found.len() * 2);
    for (member, score) in found {
        reply::bulk(out, &member);
        reply::bulk(out, score_text(score, small).as_bytes());
    }
    Ok(Outcome::Done)
}
