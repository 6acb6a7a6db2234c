//! Places and searches against goldens of redis-server 7.0.15.

use super::*;
use crate::object::{Cx, Hasher, Limits, zset::AddRules};

fn point(longitude: f64, latitude: f64) -> Point {
    Point::new(longitude, latitude).expect("within the limits")
}

/// Name, place, score, geohash, and the place that comes out.
const PLACES: [(&str, f64, f64, u64, &str, &str, &str); 10] = [
    (
        "Palermo",
        13.361389,
        38.115556,
        3479099956230698,
        "sqc8b49rny0",
        "13.36138933897018433",
        "38.11555639549629859",
    ),
    (
        "Catania",
        15.087269,
        37.502669,
        3479447370796909,
        "sqdtr74hyu0",
        "15.08726745843887329",
        "37.50266842333162032",
    ),
    (
        "null",
        0.0,
        0.0,
        3377699720527872,
        "s0000000000",
        "0.00000268220901489",
        "0.00000126736058093",
    ),
    (
        "sw",
        -180.0,
        -85.05112878,
        0,
        "00bh0hbj200",
        "-179.99999731779098511",
        "-85.05112751263942528",
    ),
    ("ne", 180.0, 85.05112878, 13510798882111488, "bp05b5048p0", "180", "85.0511287799999991"),
    (
        "sf",
        -122.4194,
        37.7749,
        1367859919124626,
        "9q8yyk8ytp0",
        "-122.41940170526504517",
        "37.77490001056577995",
    ),
    (
        "sydney",
        151.2093,
        -33.8688,
        3252046221964352,
        "r3gx2f77bj0",
        "151.20929986238479614",
        "-33.86880091934155956",
    ),
    (
        "eiffel",
        2.294481,
        48.858370,
        3663832614286748,
        "u09tunqu9k0",
        "2.29448229074478149",
        "48.85836876571852372",
    ),
    (
        "date",
        179.999999,
        0.000001,
        4128299658422954,
        "xbpbpbpbpb0",
        "179.99999731779098511",
        "0.00000126736058093",
    ),
    (
        "svalbard",
        24.9384,
        80.5,
        3786962488955449,
        "uw39zqxd6z0",
        "24.93839889764785767",
        "80.50000018495009613",
    ),
];

#[test]
fn scores_and_texts_are_those_of_redis() {
    for (name, longitude, latitude, score, text, out_longitude, out_latitude) in PLACES {
        let held = point(longitude, latitude).score();
        assert_eq!(held, score as f64, "{name}");
        assert_eq!(hash_text(held), text.as_bytes(), "{name}");
        let out = Point::of_score(held);
        assert_eq!(coordinate_text(out.longitude), out_longitude, "{name}");
        assert_eq!(coordinate_text(out.latitude), out_latitude, "{name}");
    }
}

#[test]
fn distances_are_those_of_redis() {
    let place = |name: &str| {
        let score = PLACES.iter().find(|place| place.0 == name).map(|place| place.3 as f64);
        Point::of_score(score.expect("a place"))
    };
    for (a, b, metres) in [
        ("Palermo", "Catania", "166274.1516"),
        ("sf", "sydney", "11951031.4578"),
        ("sw", "ne", "18919844.5891"),
        ("eiffel", "date", "14581935.9134"),
        ("eiffel", "svalbard", "3619785.5329"),
        ("sf", "sf", "0.0000"),
    ] {
        assert_eq!(distance_text(place(a).distance_to(place(b))), metres, "{a} {b}");
    }
}

#[test]
fn places_outside_the_limits_are_refused() {
    for (longitude, latitude) in [
        (180.001, 0.0),
        (-180.001, 0.0),
        (0.0, 85.0512),
        (0.0, -85.0512),
        (f64::NAN, 0.0),
        (0.0, f64::NAN),
    ] {
        assert_eq!(Point::new(longitude, latitude), None);
    }
    assert!(Point::new(-180.0, 85.05112878).is_some());
}

/// 409 places, some of them where searches go wrong: beside poles, the date line and grid edges.
fn world() -> Zset {
    let mut set = Zset::new();
    let (hasher, limits) = (Hasher::new(1), Limits::default());
    let cx = Cx { hasher: &hasher, limits: &limits, now_ms: 0 };
    let mut add = |name: &str, longitude: f64, latitude: f64| {
        let score = point(longitude, latitude).score();
        set.add(name.as_bytes(), score, AddRules::default(), cx).expect("a number");
    };
    for (name, longitude, latitude) in [
        ("Palermo", 13.361389, 38.115556),
        ("Catania", 15.087269, 37.502669),
        ("edge1", 12.758489, 38.788135),
        ("edge2", 17.241510, 38.788135),
        ("north", 10.0, 85.0),
        ("south", -60.0, -84.9),
        ("date1", 179.9, 0.1),
        ("date2", -179.9, -0.1),
        ("zero", 0.0, 0.0),
    ] {
        add(name, longitude, latitude);
    }
    for n in 0..400_u32 {
        let longitude = f64::from(n * 7919 % 3600) / 10.0 - 180.0;
        let latitude = f64::from(n * 104_729 % 1700) / 10.0 - 85.0;
        add(&format!("p{n}"), longitude, latitude);
    }
    set
}

#[test]
fn searches_find_what_redis_finds_in_its_order() {
    let radius = |km: f64| Extent::Radius(km * 1000.0);
    let rectangle = |w: f64, h: f64| Extent::Box { width: w * 1000.0, height: h * 1000.0 };
    let set = world();
    // Centre and extent, then how many, and the checksum of the names joined by blanks.
    for (longitude, latitude, extent, count, checksum) in [
        (15.0, 37.0, radius(200.0), 2, 0x619b_bb9e),
        (15.0, 37.0, rectangle(400.0, 400.0), 4, 0x1354_8d5a),
        (0.0, 0.0, radius(1000.0), 5, 0x5ffb_e293),
        (180.0, 0.0, radius(50.0), 1, 0x33a6_e9a2),
        (-180.0, 0.0, radius(500.0), 2, 0x4d3f_a8ec),
        (10.0, 84.0, radius(300.0), 2, 0x623a_7623),
        (10.0, 84.0, rectangle(2000.0, 300.0), 1, 0xdc2a_30c2),
        (0.0, -85.0, radius(800.0), 7, 0x8edc_d425),
        (0.0, 0.0, radius(6000.0), 68, 0x3558_6a75),
        (0.0, 0.0, radius(20_000.0), 407, 0x9326_aa49),
        (45.0, 70.0, rectangle(3000.0, 1000.0), 6, 0x4839_03e4),
        (45.0, -67.0, rectangle(3000.0, 1000.0), 5, 0x86b0_75ae),
        (0.0, 0.0, radius(0.0), 0, 0),
        (13.361389, 38.115556, radius(0.001), 1, 0x7700_a256),
    ] {
        let shape = Shape { centre: point(longitude, latitude), extent };
        let found = search(&set, &shape, 0);
        let names: Vec<&[u8]> = found.iter().map(|found| found.member.as_slice()).collect();
        assert_eq!(found.len(), count, "{shape:?}");
        assert_eq!(crc32fast::hash(&names.join(&b' ')), checksum, "{shape:?} {names:?}");
        let some = search(&set, &shape, 3);
        assert_eq!(some, found.get(..3.min(count)).unwrap_or_default());
    }
}

#[test]
fn the_nearest_come_first() {
    let shape = Shape { centre: point(15.0, 37.0), extent: Extent::Radius(2_000_000.0) };
    let set = world();
    let all = search(&set, &shape, 0);
    let mut near = all.clone();
    nearest(&mut near, false, 3);
    let names: Vec<&[u8]> = near.iter().map(|found| found.member.as_slice()).collect();
    assert_eq!(names.get(..2), Some(&[&b"Catania"[..], b"Palermo"][..]));
    assert_eq!(near.len(), 3);
    let mut far = all.clone();
    nearest(&mut far, true, 0);
    assert_eq!(far.len(), all.len());
    assert!(far.is_sorted_by(|a, b| a.distance >= b.distance));
    assert_eq!(far.last(), near.first());
}

#[test]
fn huge_and_absurd_shapes_end() {
    let set = world();
    for extent in [
        Extent::Radius(f64::MAX),
        Extent::Radius(f64::MIN_POSITIVE),
        Extent::Radius(f64::INFINITY),
        Extent::Radius(-1.0),
        Extent::Radius(f64::NAN),
        Extent::Box { width: f64::MAX, height: 1e-300 },
        Extent::Box { width: f64::NAN, height: f64::INFINITY },
    ] {
        for (longitude, latitude) in [(0.0, 0.0), (180.0, 85.05), (-180.0, -85.05)] {
            let shape = Shape { centre: point(longitude, latitude), extent };
            assert!(search(&set, &shape, 0).len() <= set.len() * 9);
        }
    }
    for score in [f64::INFINITY, f64::NEG_INFINITY, -1.0, 1e300, 0.5] {
        let held = Point::of_score(score);
        assert!(Point::new(held.longitude, held.latitude).is_some(), "{score}");
    }
}

#[test]
fn distances_are_scaled_before_they_are_rounded() {
    for (metres, text) in [
        (0.0, "0.0000"),
        (0.000_04, "0.0000"),
        (0.000_05, "0.0000"),
        (0.775, "0.7750"),
        (166_274.151_57, "166274.1516"),
        (18_919_844.589_1, "18919844.5891"),
    ] {
        assert_eq!(distance_text(metres), text);
    }
}
