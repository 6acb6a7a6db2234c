//! Places on the Earth as 52-bit geohashes, which are scores of a sorted set.
//!
//! A hash interleaves the bits of latitude and longitude, so a box of the grid is a range of
//! scores, and a search is nine such ranges: the box around the centre and its neighbours, at a step
//! so coarse that they cover the shape, then an exact test of each member. Arithmetic follows
//! redis-server 7.0.15 operation by operation (`geohash.c`, `geohash_helper.c`), since scores,
//! distances and the order of unsorted replies show it.
//! Next: [`Shape::boxes`] gives the ranges of scores, [`Shape::distance_of`] the exact test, [`search`] both.

use super::zset::{ScoreBound, Zset};

/// Longitudes that have a hash.
pub const LONGITUDE_MAX: f64 = 180.0;
/// Latitudes that have a hash: those of a square Mercator map.
pub const LATITUDE_MAX: f64 = 85.051_128_78;
/// The finest step: bits for each of the two coordinates.
const STEP_MAX: u32 = 26;
/// A degree; Redis divides by it where the standard library would multiply by its inverse.
const DEGREE: f64 = std::f64::consts::PI / 180.0;
const EARTH_RADIUS_M: f64 = 6_372_797.560_856;
const MERCATOR_MAX: f64 = 20_037_726.37;
const LATITUDE_BITS: u64 = 0x5555_5555_5555_5555;
const LONGITUDE_BITS: u64 = !LATITUDE_BITS;

/// A place, in degrees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// -180 to 180.
    pub longitude: f64,
    /// -85.05112878 to 85.05112878.
    pub latitude: f64,
}

impl Point {
    /// A place; `None` outside the limits.
    #[must_use]
    pub fn new(longitude: f64, latitude: f64) -> Option<Self> {
        let inside = (-LONGITUDE_MAX..=LONGITUDE_MAX).contains(&longitude)
            && (-LATITUDE_MAX..=LATITUDE_MAX).contains(&latitude);
        inside.then_some(Self { longitude, latitude })
    }

    /// The place's score in a sorted set.
    #[must_use]
    pub fn score(self) -> f64 {
        // 52 bits are exact in a double.
        encode(self, LATITUDE_MAX, STEP_MAX).bits as f64
    }

    /// The middle of the box of a score.
    #[must_use]
    pub fn of_score(score: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "a score out of range has some place")]
        let bits = score as u64;
        let area = Cell { bits, step: STEP_MAX }.area();
        Self {
            longitude: f64::midpoint(area.west, area.east).clamp(-LONGITUDE_MAX, LONGITUDE_MAX),
            latitude: f64::midpoint(area.south, area.north).clamp(-LATITUDE_MAX, LATITUDE_MAX),
        }
    }

    /// Great-circle distance in metres, by the haversine formula.
    #[must_use]
    pub fn distance_to(self, other: Self) -> f64 {
        let (lat1, lat2) = (self.latitude.to_radians(), other.latitude.to_radians());
        let v = ((other.longitude.to_radians() - self.longitude.to_radians()) / 2.0).sin();
        if v == 0.0 {
            return latitude_distance(self.latitude, other.latitude);
        }
        let u = ((lat2 - lat1) / 2.0).sin();
        let a = u * u + lat1.cos() * lat2.cos() * v * v;
        2.0 * EARTH_RADIUS_M * a.sqrt().asin()
    }
}

fn latitude_distance(a: f64, b: f64) -> f64 {
    EARTH_RADIUS_M * (b.to_radians() - a.to_radians()).abs()
}

/// The text of a score as others write geohashes: 11 characters, the last always `0`.
#[must_use]
pub fn hash_text(score: f64) -> [u8; 11] {
    const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
    // The standard divides all latitudes, not those of the Mercator map.
    let bits = encode(Point::of_score(score), 90.0, STEP_MAX).bits;
    let mut out = [b'0'; 11];
    for (at, place) in (1_u32..).zip(out.iter_mut().take(10)) {
        let index = (bits >> (52 - at * 5)) & 0x1F;
        *place = ALPHABET.get(index as usize).copied().unwrap_or(b'0');
    }
    out
}

/// A coordinate as GEOPOS prints it: `%.17Lf` without trailing zeros.
#[must_use]
pub fn coordinate_text(value: f64) -> String {
    let text = format!("{value:.17}");
    let trimmed = text.trim_end_matches('0').trim_end_matches('.');
    if trimmed == "-0" { "0".into() } else { trimmed.into() }
}

/// A distance as GEODIST prints it, four digits behind the point: scaled first and rounded then, which is not always
/// what rounding the exact value gives.
#[must_use]
pub fn distance_text(value: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "a distance on Earth, or clipped")]
    let scaled = (value * 10_000.0).round_ties_even() as i64;
    let (whole, part) = (scaled.unsigned_abs() / 10_000, scaled.unsigned_abs() % 10_000);
    let sign = if scaled < 0 { "-" } else { "" };
    format!("{sign}{whole}.{part:04}")
}

/// A box of the grid: the first `2 * step` bits of the hashes in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    bits: u64,
    step: u32,
}

/// A box's edges, in degrees.
#[derive(Debug, Clone, Copy)]
struct Area {
    west: f64,
    east: f64,
    south: f64,
    north: f64,
}

/// Spreads the bits of a 32-bit number over the even places.
fn spread(value: u32) -> u64 {
    let mut out = u64::from(value);
    for (shift, mask) in [
        (16, 0x0000_FFFF_0000_FFFF),
        (8, 0x00FF_00FF_00FF_00FF),
        (4, 0x0F0F_0F0F_0F0F_0F0F),
        (2, 0x3333_3333_3333_3333),
        (1, LATITUDE_BITS),
    ] {
        out = (out | out << shift) & mask;
    }
    out
}

/// Collects the bits at even places.
fn collect(value: u64) -> u64 {
    let mut out = value & LATITUDE_BITS;
    for (shift, mask) in [
        (1, 0x3333_3333_3333_3333),
        (2, 0x0F0F_0F0F_0F0F_0F0F),
        (4, 0x00FF_00FF_00FF_00FF),
        (8, 0x0000_FFFF_0000_FFFF),
        (16, 0x0000_0000_FFFF_FFFF),
    ] {
        out = (out | out >> shift) & mask;
    }
    out
}

fn encode(point: Point, latitude_max: f64, step: u32) -> Cell {
    let part = |value: f64, max: f64| {
        let offset = (value + max) / (max + max) * (1_u64 << step) as f64;
        // The far edge belongs to no box of the grid; Redis lets it overflow into the next bit.
        #[expect(clippy::cast_possible_truncation, reason = "at most 2^26")]
        let offset = offset as u32;
        offset
    };
    let latitude = spread(part(point.latitude, latitude_max));
    let longitude = spread(part(point.longitude, LONGITUDE_MAX));
    Cell { bits: latitude | longitude << 1, step }
}

impl Cell {
    fn area(self) -> Area {
        let scale = (1_u64 << self.step) as f64;
        let edge = |at: u64, max: f64| -max + (at as f64 / scale) * (max + max);
        let (latitude, longitude) = (collect(self.bits), collect(self.bits >> 1));
        Area {
            west: edge(longitude, LONGITUDE_MAX),
            east: edge(longitude + 1, LONGITUDE_MAX),
            south: edge(latitude, LATITUDE_MAX),
            north: edge(latitude + 1, LATITUDE_MAX),
        }
    }

    /// The box so many places to the east and to the north, round the edges of the map.
    fn neighbour(self, east: i8, north: i8) -> Self {
        let shift = 64 - self.step * 2;
        let moved = |mine: u64, other: u64, by: i8| {
            // Ones in the other coordinate's places carry through.
            let gaps = other >> shift;
            let part = self.bits & mine;
            let moved = match by {
                0 => return part,
                1.. => part.wrapping_add(gaps.wrapping_add(1)),
                _ => (part | gaps).wrapping_sub(gaps.wrapping_add(1)),
            };
            moved & (mine >> shift)
        };
        let longitude = moved(LONGITUDE_BITS, LATITUDE_BITS, east);
        let latitude = moved(LATITUDE_BITS, LONGITUDE_BITS, north);
        Self { bits: longitude | latitude, ..self }
    }

    /// The scores of the box: from the first on, up to before the second.
    fn scores(self) -> (f64, f64) {
        let shift = 52 - self.step * 2;
        ((self.bits << shift) as f64, ((self.bits + 1) << shift) as f64)
    }
}

/// What is searched around a centre; lengths in metres.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Extent {
    /// Everything within a radius.
    Radius(f64),
    /// Everything within half the width to either side, and half the height up and down.
    Box {
        /// From west to east.
        width: f64,
        /// From south to north.
        height: f64,
    },
}

/// A searched shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Its middle.
    pub centre: Point,
    /// Its form.
    pub extent: Extent,
}

/// Order of the nine boxes, east and north of the centre; unsorted replies come in it.
const AROUND: [(i8, i8); 9] =
    [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)];

impl Shape {
    /// Distance of a place from the centre; `None` outside the shape.
    #[must_use]
    pub fn distance_of(&self, point: Point) -> Option<f64> {
        match self.extent {
            Extent::Radius(radius) => {
                Some(self.centre.distance_to(point)).filter(|distance| *distance <= radius)
            }
            Extent::Box { width, height } => {
                let north = latitude_distance(point.latitude, self.centre.latitude);
                if north > height / 2.0 {
                    return None;
                }
                let level = Point { latitude: point.latitude, ..self.centre };
                if point.distance_to(level) > width / 2.0 {
                    return None;
                }
                Some(self.centre.distance_to(point))
            }
        }
    }

    /// Ranges of scores (first inside, second outside) that hold every place of the shape.
    pub fn boxes(&self) -> impl Iterator<Item = (f64, f64)> + use<> {
        let bounds = self.bounds();
        let mut step = self.step();
        let mut cell = encode(self.centre, LATITUDE_MAX, step);
        // Near the edge of its box a shape may reach beyond the neighbour.
        if step > 1 && !covers(cell, &bounds) {
            step -= 1;
            cell = encode(self.centre, LATITUDE_MAX, step);
        }
        let area = cell.area();
        let is_needed = move |(east, north): (i8, i8)| {
            let useless = (north < 0 && area.south < bounds.south)
                || (north > 0 && area.north > bounds.north)
                || (east < 0 && area.west < bounds.west)
                || (east > 0 && area.east > bounds.east);
            step < 2 || !useless
        };
        let mut last = None;
        let mut is_first = true;
        AROUND.into_iter().filter(move |&way| is_needed(way)).filter_map(move |(east, north)| {
            let next = cell.neighbour(east, north);
            // Boxes of half the world have the same neighbour on both sides. The centre's own box
            // is not compared with, as in Redis.
            if last == Some(next) {
                return None;
            }
            last = (!is_first).then_some(next);
            is_first = false;
            Some(next.scores())
        })
    }

    /// The latitudes and longitudes the shape reaches.
    fn bounds(&self) -> Area {
        let (width, height) = match self.extent {
            Extent::Radius(radius) => (radius, radius),
            Extent::Box { width, height } => (width / 2.0, height / 2.0),
        };
        let Point { longitude, latitude } = self.centre;
        let up = height / EARTH_RADIUS_M / DEGREE;
        let aside = |at: f64| width / EARTH_RADIUS_M / at.to_radians().cos() / DEGREE;
        // The parallel nearer to the pole, where degrees are shorter.
        let side = if latitude < 0.0 { aside(latitude - up) } else { aside(latitude + up) };
        Area {
            west: longitude - side,
            east: longitude + side,
            south: latitude - up,
            north: latitude + up,
        }
    }

    /// The step at which nine boxes cover the shape, most of the time.
    fn step(&self) -> u32 {
        let mut range = match self.extent {
            Extent::Radius(radius) => radius,
            Extent::Box { width, height } => {
                ((width / 2.0) * (width / 2.0) + (height / 2.0) * (height / 2.0)).sqrt()
            }
        };
        // A radius below what doubles until 2^64 would loop long, and is a point.
        if range <= 0.0 {
            return STEP_MAX;
        }
        let mut step = 1_u32;
        while range < MERCATOR_MAX && step < 100 {
            range *= 2.0;
            step += 1;
        }
        let latitude = self.centre.latitude.abs();
        let coarser = 2 + u32::from(latitude > 66.0) + u32::from(latitude > 80.0);
        step.saturating_sub(coarser).clamp(1, STEP_MAX)
    }
}

/// A member that a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The member.
    pub member: Vec<u8>,
    /// Its score, for GEOSEARCHSTORE and WITHHASH.
    pub score: f64,
    /// Metres from the centre.
    pub distance: f64,
    /// Its place.
    pub point: Point,
}

/// Members within a shape, in the order in which Redis finds them. At `most` it stops, for COUNT with ANY; 0 is no
/// limit.
#[must_use]
pub fn search(set: &Zset, shape: &Shape, most: usize) -> Vec<Found> {
    let mut out = Vec::new();
    for (from, to) in shape.boxes() {
        let ranks = set.by_score(ScoreBound::Inclusive(from), ScoreBound::Exclusive(to));
        for item in set.iter(ranks) {
            let point = Point::of_score(item.score);
            if let Some(distance) = shape.distance_of(point) {
                let (member, score) = (item.member.to_vec(), item.score);
                out.push(Found { member, score, distance, point });
                if out.len() == most {
                    return out;
                }
            }
        }
    }
    out
}

/// Brings what was found in the order of distance and keeps `most`; 0 is all.
pub fn nearest(found: &mut Vec<Found>, farthest_first: bool, most: usize) {
    found.sort_by(|a, b| {
        let order = a.distance.total_cmp(&b.distance);
        if farthest_first { order.reverse() } else { order }
    });
    if most > 0 {
        found.truncate(most);
    }
}

fn covers(cell: Cell, bounds: &Area) -> bool {
    let north = cell.neighbour(0, 1).area();
    let south = cell.neighbour(0, -1).area();
    let east = cell.neighbour(1, 0).area();
    let west = cell.neighbour(-1, 0).area();
    north.north >= bounds.north
        && south.south <= bounds.south
        && east.east >= bounds.east
        && west.west <= bounds.west
}

#[cfg(test)]
mod tests;
