//! The outline of each request that is decoded elsewhere: which fields, in which versions.
//!
//! Why: the decoder behind this reserves memory for as many elements as a request announces. [`check`]
//! walks the bytes first and refuses a request whose lengths do not fit into it, so that
//! an announcement alone costs nothing. Source: the message schemas of Kafka 4.1. Invariants: depth is the
//! schema's, and every step of an array takes at least a byte.

use super::api::Api;
use super::{Malformed, Reader};

/// Type of a field.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Bool,
    I8,
    I16,
    I32,
    I64,
    Uuid,
    Text,
    Bytes,
    /// Elements of a plain type.
    List(&'static Self),
    /// Structures.
    Array(&'static [Field]),
    /// A structure, or null.
    Maybe(&'static [Field]),
}

/// A field and the versions that have it.
#[derive(Clone, Copy, Debug)]
struct Field {
    kind: Kind,
    from: i16,
    to: i16,
}

use Kind::{Array, Bool, Bytes, I8, I16, I32, I64, List, Maybe, Text, Uuid};

const fn all(kind: Kind) -> Field {
    Field { kind, from: 0, to: i16::MAX }
}

const fn from(from: i16, kind: Kind) -> Field {
    Field { kind, from, to: i16::MAX }
}

const fn to(to: i16, kind: Kind) -> Field {
    Field { kind, from: 0, to }
}

const TEXTS: Kind = List(&Text);
const NUMBERS: Kind = List(&I32);
/// Topics by name with numbers of partitions.
const TOPIC_PARTITIONS: Kind = Array(&[all(Text), all(NUMBERS)]);

/// Shapes by number of the request.
const SHAPES: &[(i16, &[Field])] = &[
    (
        2,
        &[
            all(I32),
            from(2, I8),
            all(Array(&[all(Text), all(Array(&[all(I32), from(4, I32), all(I64)]))])),
            from(10, I32),
        ],
    ),
    (
        3,
        &[
            all(Array(&[from(10, Uuid), all(Text)])),
            from(4, Bool),
            Field { kind: Bool, from: 8, to: 10 },
            from(8, Bool),
        ],
    ),
    (
        8,
        &[
            all(Text),
            all(I32),
            all(Text),
            from(7, Text),
            Field { kind: I64, from: 2, to: 4 },
            all(Array(&[
                to(9, Text),
                from(10, Uuid),
                all(Array(&[all(I32), all(I64), from(6, I32), all(Text)])),
            ])),
        ],
    ),
    (
        9,
        &[
            to(7, Text),
            to(7, TOPIC_PARTITIONS),
            from(
                8,
                Array(&[
                    all(Text),
                    from(9, Text),
                    from(9, I32),
                    all(Array(&[to(9, Text), from(10, Uuid), all(NUMBERS)])),
                ]),
            ),
            from(7, Bool),
        ],
    ),
    (10, &[to(3, Text), from(1, I8), from(4, TEXTS)]),
    (
        11,
        &[
            all(Text),
            all(I32),
            from(1, I32),
            all(Text),
            from(5, Text),
            all(Text),
            all(Array(&[all(Text), all(Bytes)])),
            from(8, Text),
        ],
    ),
    (12, &[all(Text), all(I32), all(Text), from(3, Text)]),
    (13, &[all(Text), to(2, Text), from(3, Array(&[all(Text), all(Text), from(5, Text)]))]),
    (
        14,
        &[
            all(Text),
            all(I32),
            all(Text),
            from(3, Text),
            from(5, Text),
            from(5, Text),
            all(Array(&[all(Text), all(Bytes)])),
        ],
    ),
    (15, &[all(TEXTS), from(3, Bool)]),
    (16, &[from(4, TEXTS), from(5, TEXTS)]),
    (18, &[from(3, Text), from(3, Text)]),
    (
        19,
        &[
            all(Array(&[
                all(Text),
                all(I32),
                all(I16),
                all(Array(&[all(I32), all(NUMBERS)])),
                all(Array(&[all(Text), all(Text)])),
            ])),
            all(I32),
            from(1, Bool),
        ],
    ),
    (20, &[from(6, Array(&[all(Text), all(Uuid)])), to(5, TEXTS), all(I32)]),
    (21, &[all(Array(&[all(Text), all(Array(&[all(I32), all(I64)]))])), all(I32)]),
    (22, &[all(Text), all(I32), from(3, I64), from(3, I16)]),
    (
        23,
        &[from(3, I32), all(Array(&[all(Text), all(Array(&[all(I32), from(2, I32), all(I32)]))]))],
    ),
    (32, &[all(Array(&[all(I8), all(Text), all(TEXTS)])), from(1, Bool), from(3, Bool)]),
    (33, &[all(Array(&[all(I8), all(Text), all(Array(&[all(Text), all(Text)]))])), all(Bool)]),
    (34, &[all(Array(&[all(Text), all(TOPIC_PARTITIONS)]))]),
    (35, &[all(TOPIC_PARTITIONS)]),
    (37, &[all(Array(&[all(Text), all(I32), all(Array(&[all(NUMBERS)]))])), all(I32), all(Bool)]),
    (42, &[all(TEXTS)]),
    (43, &[from(1, I8), all(TOPIC_PARTITIONS), all(I32)]),
    (
        44,
        &[
            all(Array(&[all(I8), all(Text), all(Array(&[all(Text), all(I8), all(Text)]))])),
            all(Bool),
        ],
    ),
    (
        45,
        &[all(I32), from(1, Bool), all(Array(&[all(Text), all(Array(&[all(I32), all(NUMBERS)]))]))],
    ),
    (46, &[all(I32), all(TOPIC_PARTITIONS)]),
    (47, &[all(Text), all(Array(&[all(Text), all(Array(&[all(I32)]))]))]),
    (55, &[all(Array(&[all(Text), all(Array(&[all(I32)]))]))]),
    (60, &[all(Bool), from(1, I8), from(2, Bool)]),
    (61, &[all(TOPIC_PARTITIONS)]),
    (74, &[from(1, List(&I8))]),
    (75, &[all(Array(&[all(Text)])), all(I32), all(Maybe(&[all(Text), all(I32)]))]),
];

/// Walks the body of a request. Bytes behind it are left alone: some clients send them.
///
/// # Errors
/// It does not have the shape of `api` in `version`, or that shape is not known.
pub fn check(api: &Api, version: i16, body: &[u8]) -> Result<(), Malformed> {
    let mut reader = Reader::new(body);
    let shape = SHAPES.iter().find(|(key, _)| *key == api.key);
    let Some((_, fields)) = shape else { return Err(reader.malformed("a request of known shape")) };
    structure(&mut reader, fields, version, api.is_flexible(version))
}

fn structure(
    reader: &mut Reader<'_>,
    fields: &[Field],
    version: i16,
    flexible: bool,
) -> Result<(), Malformed> {
    for field in fields.iter().filter(|field| (field.from..=field.to).contains(&version)) {
        value(reader, &field.kind, version, flexible)?;
    }
    reader.skip_tagged_fields(flexible)
}

fn value(
    reader: &mut Reader<'_>,
    kind: &Kind,
    version: i16,
    flexible: bool,
) -> Result<(), Malformed> {
    match kind {
        Bool | I8 => reader.i8().map(drop),
        I16 => reader.i16().map(drop),
        I32 => reader.i32().map(drop),
        I64 => reader.i64().map(drop),
        Uuid => reader.uuid().map(drop),
        Text => reader.nullable_string(flexible).map(drop),
        Bytes => reader.nullable_bytes(flexible).map(drop),
        List(kind) => {
            let len = reader.array_len(flexible)?;
            (0..len).try_for_each(|_| value(reader, kind, version, flexible))
        }
        Array(fields) => {
            let len = reader.array_len(flexible)?;
            (0..len).try_for_each(|_| structure(reader, fields, version, flexible))
        }
        Maybe(fields) => match reader.i8()? {
            -1 => Ok(()),
            _ => structure(reader, fields, version, flexible),
        },
    }
}
