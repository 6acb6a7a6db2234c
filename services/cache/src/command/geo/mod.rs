//! Geo commands: places are members of sorted sets, their geohashes the scores.
//!
//! Next: `search.rs` for GEOSEARCH and the older GEORADIUS; `logic::object::geo` for the arithmetic.

mod search;

use logic::object::{
    Zset,
    geo::{Point, coordinate_text, distance_text, hash_text},
    zset::AddRules,
};
use wire::resp::{Version, reply};

use super::{
    Cx, Fault, Outcome,
    zset::{AddOptions, add_pairs},
};

pub(super) use search::{
    georadius, georadius_ro, georadiusbymember, georadiusbymember_ro, geosearch, geosearchstore,
};

type Result<T = Outcome> = std::result::Result<T, Fault>;

/// The place at arguments `index` and after.
fn point(cx: &Cx<'_>, index: usize) -> Result<Point> {
    let (longitude, latitude) = (cx.double(index)?, cx.double(index + 1)?);
    Point::new(longitude, latitude).ok_or_else(|| {
        Fault::owned(format!("ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}"))
    })
}

/// Metres of the unit at this argument.
fn unit(cx: &Cx<'_>, index: usize) -> Result<f64> {
    match cx.arg(index).to_ascii_lowercase().as_slice() {
        b"m" => Ok(1.0),
        b"km" => Ok(1000.0),
        b"ft" => Ok(0.3048),
        b"mi" => Ok(1609.34),
        _ => Err(Fault::text("ERR unsupported unit provided. please use M, KM, FT, MI")),
    }
}

/// A coordinate: a double of many digits in RESP3, their text in RESP2.
fn reply_coordinate(out: &mut Vec<u8>, version: Version, value: f64) {
    let text = coordinate_text(value);
    match version {
        Version::Resp2 => reply::bulk(out, text.as_bytes()),
        Version::Resp3 => {
            out.push(b',');
            out.extend_from_slice(text.as_bytes());
            reply::end(out);
        }
    }
}

fn reply_point(out: &mut Vec<u8>, version: Version, point: Point) {
    reply::array(out, 2);
    reply_coordinate(out, version, point.longitude);
    reply_coordinate(out, version, point.latitude);
}

pub(super) fn geoadd(cx: &mut Cx<'_>) -> Result {
    let mut options = AddOptions { rules: AddRules::default(), ch: false };
    let mut first = 2;
    while first < cx.argc() {
        match cx.arg(first).to_ascii_lowercase().as_slice() {
            b"nx" => options.rules.nx = true,
            b"xx" => options.rules.xx = true,
            b"ch" => options.ch = true,
            _ => break,
        }
        first += 1;
    }
    let left = cx.argc() - first;
    if left == 0 || !left.is_multiple_of(3) || (options.rules.nx && options.rules.xx) {
        return Err(Fault::SYNTAX);
    }
    let places = (first..cx.argc()).step_by(3);
    let pairs: Vec<(f64, usize)> =
        places.map(|at| Ok((point(cx, at)?.score(), at + 2))).collect::<Result<_>>()?;
    add_pairs(cx, options, &pairs)
}

/// Replies for each member from argument 2 on, with its score if it has one.
fn each(cx: &mut Cx<'_>, reply_one: impl Fn(&mut Vec<u8>, Version, Option<f64>)) -> Result {
    let (words, argc, version) = (cx.words(), cx.argc(), cx.conn.version);
    let scores: Vec<Option<f64>> = match cx.collection::<Zset>(1)? {
        Some(reading) => {
            (2..argc).map(|at| reading.value.score(words.get(at), reading.with)).collect()
        }
        None => vec![None; argc - 2],
    };
    let out = cx.inline();
    reply::array(out, scores.len());
    for score in scores {
        reply_one(out, version, score);
    }
    Ok(Outcome::Done)
}

pub(super) fn geopos(cx: &mut Cx<'_>) -> Result {
    each(cx, |out, version, score| match score {
        Some(score) => reply_point(out, version, Point::of_score(score)),
        None => reply::null_array(out, version),
    })
}

pub(super) fn geohash(cx: &mut Cx<'_>) -> Result {
    each(cx, |out, version, score| match score {
        Some(score) => reply::bulk(out, &hash_text(score)),
        None => reply::null(out, version),
    })
}

pub(super) fn geodist(cx: &mut Cx<'_>) -> Result {
    let metres = match cx.argc() {
        4 => 1.0,
        5 => unit(cx, 4)?,
        _ => return Err(Fault::SYNTAX),
    };
    let (one, other) = (cx.arg(2), cx.arg(3));
    let points = cx.collection::<Zset>(1)?.and_then(|reading| {
        let place = |member| reading.value.score(member, reading.with).map(Point::of_score);
        place(one).zip(place(other))
    });
    match points {
        Some((one, other)) => cx.bulk(distance_text(one.distance_to(other) / metres).as_bytes()),
        None => cx.null(),
    }
}
