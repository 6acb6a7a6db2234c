//! GEOSEARCH, GEOSEARCHSTORE, and GEORADIUS with its kin, which say the same in other words.
//!
//! Invariant: the key is looked up before the arguments are read, and a missing one does not save from their errors.

use logic::object::{
    Object, Zset,
    geo::{Extent, Found, Point, Shape, distance_text, nearest, search},
    zset::AddRules,
};
use wire::resp::reply;

use super::{Result, point, reply_point, unit};
use crate::{
    command::{Cx, Fault, Outcome, float},
    events::ZSET,
};

/// Which of the commands it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// GEORADIUS and GEORADIUS_RO.
    Around,
    /// GEORADIUSBYMEMBER and its read-only form.
    AroundMember,
    /// GEOSEARCH.
    Search,
    /// GEOSEARCHSTORE.
    SearchStore,
}

impl Form {
    const fn is_search(self) -> bool {
        matches!(self, Self::Search | Self::SearchStore)
    }
}

#[derive(Default)]
struct Query {
    centre: Option<Point>,
    /// The centre is a member; that of a missing key has no place.
    from_member: bool,
    /// Its lengths still in `metres` each.
    extent: Option<Extent>,
    metres: f64,
    with_distance: bool,
    with_hash: bool,
    with_point: bool,
    any: bool,
    /// Whether the farthest come first.
    order: Option<bool>,
    count: usize,
    /// The argument with the key that gets the result.
    store: Option<usize>,
    store_distance: bool,
}

/// Reads the arguments of one command.
struct Reader<'c, 'a> {
    cx: &'c mut Cx<'a>,
    form: Form,
    may_store: bool,
    /// Argument of the key.
    key: usize,
    key_is_there: bool,
    query: Query,
}

impl Reader<'_, '_> {
    fn member(&self, index: usize) -> Result<Option<Point>> {
        if !self.key_is_there {
            return Ok(None);
        }
        let with = self.cx.shard.store.cx(self.cx.now_ms());
        let set = self.cx.view(self.key).and_then(Object::as_zset);
        let score = set.and_then(|set| set.score(self.cx.arg(index), with));
        let score = score.ok_or(Fault::text("ERR could not decode requested zset member"))?;
        Ok(Some(Point::of_score(score)))
    }

    fn length(&self, index: usize, message: &'static str) -> Result<f64> {
        float::parse(self.cx.arg(index)).ok_or(Fault::text(message))
    }

    fn radius(&mut self, index: usize) -> Result<()> {
        let radius = self.length(index, "ERR need numeric radius")?;
        if radius < 0.0 {
            return Err(Fault::text("ERR radius cannot be negative"));
        }
        self.query.metres = unit(self.cx, index + 1)?;
        self.query.extent = Some(Extent::Radius(radius));
        Ok(())
    }

    fn area(&mut self, index: usize) -> Result<()> {
        let width = self.length(index, "ERR need numeric width")?;
        let height = self.length(index + 1, "ERR need numeric height")?;
        if width < 0.0 || height < 0.0 {
            return Err(Fault::text("ERR height or width cannot be negative"));
        }
        self.query.metres = unit(self.cx, index + 2)?;
        self.query.extent = Some(Extent::Box { width, height });
        Ok(())
    }

    /// Reads what lies in fixed places; where the options begin.
    fn fixed(&mut self) -> Result<usize> {
        match self.form {
            Form::Around => {
                self.query.centre = Some(point(self.cx, 2)?);
                self.radius(4)?;
                Ok(6)
            }
            Form::AroundMember => {
                if self.key_is_there {
                    self.query.centre = self.member(2)?;
                    self.radius(3)?;
                }
                Ok(5)
            }
            Form::Search => Ok(2),
            Form::SearchStore => {
                self.query.store = Some(1);
                Ok(3)
            }
        }
    }

    /// Reads the option at this argument; how many arguments it has.
    fn option(&mut self, at: usize) -> Result<usize> {
        let left = self.cx.argc() - at - 1;
        let is_search = self.form.is_search();
        let word = self.cx.arg(at).to_ascii_lowercase();
        let query = &mut self.query;
        let around_point = query.centre.is_some() && !query.from_member;
        let is_box = matches!(query.extent, Some(Extent::Box { .. }));
        let is_radius = matches!(query.extent, Some(Extent::Radius(_)));
        match word.as_slice() {
            b"withdist" => query.with_distance = true,
            b"withhash" => query.with_hash = true,
            b"withcoord" => query.with_point = true,
            b"any" => query.any = true,
            b"asc" => query.order = Some(false),
            b"desc" => query.order = Some(true),
            b"count" if left >= 1 => {
                let count = self.cx.integer(at + 1)?;
                if count <= 0 {
                    return Err(Fault::text("ERR COUNT must be > 0"));
                }
                self.query.count = usize::try_from(count).unwrap_or(usize::MAX);
                return Ok(2);
            }
            b"store" | b"storedist" if left >= 1 && self.may_store && !is_search => {
                query.store = Some(at + 1);
                query.store_distance = word == b"storedist";
                return Ok(2);
            }
            b"storedist" if self.form == Form::SearchStore => query.store_distance = true,
            b"frommember" if left >= 1 && is_search && !around_point => {
                self.query.centre = self.member(at + 1)?;
                self.query.from_member = true;
                return Ok(2);
            }
            b"fromlonlat" if left >= 2 && is_search && !query.from_member => {
                self.query.centre = Some(point(self.cx, at + 1)?);
                return Ok(3);
            }
            b"byradius" if left >= 2 && is_search && !is_box => {
                self.radius(at + 1)?;
                return Ok(3);
            }
            b"bybox" if left >= 3 && is_search && !is_radius => {
                self.area(at + 1)?;
                return Ok(4);
            }
            _ => return Err(Fault::SYNTAX),
        }
        Ok(1)
    }

    fn check(&self) -> Result<()> {
        let query = &self.query;
        if query.store.is_some() && (query.with_distance || query.with_hash || query.with_point) {
            let what = match self.form {
                Form::SearchStore => "GEOSEARCHSTORE",
                _ => "STORE option in GEORADIUS",
            };
            return Err(Fault::owned(format!(
                "ERR {what} is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
            )));
        }
        let name = self.cx.arg(0);
        if self.form.is_search() && query.centre.is_none() && !query.from_member {
            let before = "ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for ";
            return Err(Fault::quoting(before, name, ""));
        }
        if self.form.is_search() && query.extent.is_none() {
            let before = "ERR exactly one of BYRADIUS and BYBOX can be specified for ";
            return Err(Fault::quoting(before, name, ""));
        }
        if query.any && query.count == 0 {
            return Err(Fault::text("ERR the ANY argument requires COUNT argument"));
        }
        Ok(())
    }
}

impl Query {
    /// The shape in metres; none without a place, which only a missing key has.
    fn shape(&self) -> Option<Shape> {
        let extent = match self.extent? {
            Extent::Radius(radius) => Extent::Radius(radius * self.metres),
            Extent::Box { width, height } => {
                Extent::Box { width: width * self.metres, height: height * self.metres }
            }
        };
        Some(Shape { centre: self.centre?, extent })
    }

    fn find(&self, set: &Zset) -> Vec<Found> {
        let Some(shape) = self.shape() else { return Vec::new() };
        let mut found = search(set, &shape, if self.any { self.count } else { 0 });
        // Some of the members can only be the nearest ones, unless any will do.
        let nearest_first = (self.count > 0 && !self.any).then_some(false);
        match self.order.or(nearest_first) {
            Some(farthest_first) => nearest(&mut found, farthest_first, self.count),
            None if self.count > 0 => found.truncate(self.count),
            None => {}
        }
        found
    }
}

fn run(cx: &mut Cx<'_>, form: Form, may_store: bool) -> Result {
    let key = if form == Form::SearchStore { 2 } else { 1 };
    let key_is_there = cx.collection::<Zset>(key)?.is_some();
    let mut reader = Reader { cx, form, may_store, key, key_is_there, query: Query::default() };
    let mut at = reader.fixed()?;
    while at < reader.cx.argc() {
        at += reader.option(at)?;
    }
    reader.check()?;
    let query = reader.query;
    let found = cx.view(key).and_then(Object::as_zset).map_or_else(Vec::new, |set| query.find(set));
    match query.store {
        Some(to) => store(cx, &query, to, &found),
        None => reply_found(cx, &query, &found),
    }
}

fn store(cx: &mut Cx<'_>, query: &Query, to: usize, found: &[Found]) -> Result {
    let mut result = Zset::new();
    let with = cx.shard.store.cx(cx.now_ms());
    for one in found {
        let score = if query.store_distance { one.distance / query.metres } else { one.score };
        // Neither is ever NaN.
        let _ = result.add(&one.member, score, AddRules::default(), with);
    }
    let name = if cx.row.name == "geosearchstore" { "geosearchstore" } else { "georadiusstore" };
    cx.put(to, result, (ZSET, name))?;
    cx.count(found.len() as u64)
}

fn reply_found(cx: &mut Cx<'_>, query: &Query, found: &[Found]) -> Result {
    let version = cx.conn.version;
    let out = cx.inline();
    let parts = [query.with_distance, query.with_hash, query.with_point];
    let parts = parts.into_iter().filter(|part| *part).count();
    reply::array(out, found.len());
    for one in found {
        if parts > 0 {
            reply::array(out, parts + 1);
        }
        reply::bulk(out, &one.member);
        if query.with_distance {
            reply::bulk(out, distance_text(one.distance / query.metres).as_bytes());
        }
        if query.with_hash {
            #[expect(clippy::cast_possible_truncation, reason = "a hash has 52 bits")]
            reply::integer(out, one.score as i64);
        }
        if query.with_point {
            reply_point(out, version, one.point);
        }
    }
    Ok(Outcome::Done)
}

pub(in crate::command) fn georadius(cx: &mut Cx<'_>) -> Result {
    run(cx, Form::Around, true)
}

pub(in crate::command) fn georadius_ro(cx: &mut Cx<'_>) -> Result {
    run(cx, Form::Around, false)
}

pub(in crate::command) fn georadiusbymember(cx: &mut Cx<'_>) -> Result {
    run(cx, Form::AroundMember, true)
}

pub(in crate::command) fn georadiusbymember_ro(cx: &mut Cx<'_>) -> Result {
    run(cx, Form::AroundMember, false)
}

pub(in crate::command) fn geosearch(cx: &mut Cx<'_>) -> Result {
    run(cx, Form::Search, false)
}

pub(in crate::command) fn geosearchstore(cx: &mut Cx<'_>) -> Result {
    run(cx, Form::SearchStore, false)
}
