//! Whole files: read in pieces, written part by part.
//!
//! Invariants: the reader holds what has arrived of one item at most, beside the piece that was handed in last; an item
//! is looked at again only when so much more has arrived that all looks together stay in proportion to its length.
//! Next: `skip.rs` tells where a value ends.

use std::borrow::Cow;

use super::{
    Bad, VERSION, VERSION_MAX, Value, crc64,
    cursor::{Cursor, Read, Stop},
    load::load_whole,
    put::{Writer, kind_of},
    skip::{skip, skip_module},
};
use crate::{object::Cx, store};

const MAGIC: &[u8] = b"REDIS";
const HEADER: usize = 9;
/// The first version that ends with a checksum.
const CHECKSUM_FROM: u16 = 5;

/// A buffer that a large value has made larger is given back.
const SPARE_MAX_BYTES: usize = 4 << 20;

const SLOT_INFO: u8 = 244;
const FUNCTION_2: u8 = 245;
const MODULE_AUX: u8 = 247;
const IDLE: u8 = 248;
const FREQ: u8 = 249;
const AUX: u8 = 250;
const RESIZE_DB: u8 = 251;
const EXPIRE_MS: u8 = 252;
const EXPIRE_S: u8 = 253;
const SELECT_DB: u8 = 254;
const EOF: u8 = 255;

/// What stands beside a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// When it expires, unix milliseconds.
    pub expire_at_ms: Option<u64>,
    /// How long it has not been used, seconds.
    pub idle_s: Option<u64>,
    /// How often it is used: the counter of LFU.
    pub freq: Option<u8>,
}

/// A key, and a value not yet looked at.
#[derive(Debug)]
pub struct Record<'a> {
    /// The database.
    pub db: u64,
    /// The key.
    pub key: Cow<'a, [u8]>,
    /// What stands beside it.
    pub attributes: Attributes,
    kind: u8,
    bytes: &'a [u8],
    /// Where the value lies.
    pub at: u64,
}

impl Record<'_> {
    /// The value.
    ///
    /// # Errors
    /// When it is not whole.
    pub fn load(&self, cx: Cx<'_>) -> Result<Value, Bad> {
        load_whole(&mut Cursor::new(self.bytes, self.at), self.kind, cx)
    }
}

/// A part of a file.
#[derive(Debug)]
pub enum Item<'a> {
    /// A note: who wrote the file, and when.
    Aux(Cow<'a, [u8]>, Cow<'a, [u8]>),
    /// How many keys a database has about, and how many that expire.
    Sizes(u64, u64),
    /// A library of functions: its code.
    Function(Cow<'a, [u8]>),
    /// Something of a module or a cluster, which is passed over.
    Skipped,
    /// A key.
    Key(Record<'a>),
    /// The file is whole.
    End,
}

/// What was found.
enum Found<'a> {
    Item(Item<'a>),
    /// Something that is not told: it belongs to what follows.
    Quiet,
    End,
}

/// Reads a file.
#[derive(Debug, Default)]
pub struct Reader {
    buffer: Vec<u8>,
    /// Where the next item begins in it.
    from: usize,
    /// Bytes before the buffer.
    before: u64,
    /// Bytes behind `from` that must be there before another look.
    need: usize,
    /// Of all items so far.
    crc: u64,
    version: u16,
    db: u64,
    attributes: Attributes,
    /// Nothing comes after the buffer.
    ended: bool,
    whole: bool,
}

impl Reader {
    /// A reader at the beginning of a file.
    #[must_use]
    pub fn new() -> Self {
        Self { need: HEADER, ..Self::default() }
    }

    /// Takes the file's next bytes; call [`next`](Self::next) until it has nothing before the next ones.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.from);
        self.before += self.from as u64;
        self.from = 0;
        if self.buffer.capacity() > SPARE_MAX_BYTES && self.buffer.len() < SPARE_MAX_BYTES / 2 {
            self.buffer.shrink_to(SPARE_MAX_BYTES / 2);
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// There are no more bytes.
    pub const fn end(&mut self) {
        self.ended = true;
    }

    /// Where the next item begins.
    #[must_use]
    pub const fn at(&self) -> u64 {
        self.before + self.from as u64
    }

    /// The file's version, once it is known.
    #[must_use]
    pub const fn version(&self) -> u16 {
        self.version
    }

    /// Bytes held.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// The next item; `None` when more bytes are needed, and after the end.
    ///
    /// # Errors
    /// When the file is not whole or not right; there is no going on.
    #[expect(clippy::should_implement_trait, reason = "an item borrows from the reader")]
    pub fn next(&mut self) -> Result<Option<Item<'_>>, Bad> {
        loop {
            if self.whole {
                return Ok(None);
            }
            let held = self.buffer.len() - self.from;
            if held < self.need && !self.ended {
                return Ok(None);
            }
            let at = self.at();
            let rest = self.buffer.get(self.from..).unwrap_or_default();
            let mut cursor = Cursor::new(rest, at);
            let mut state =
                State { version: self.version, db: self.db, attributes: self.attributes };
            let found = state.step(&mut cursor, self.crc);
            let len = usize::try_from(cursor.at() - at).unwrap_or(held);
            match found {
                Err(Stop::Bad(bad)) => return Err(bad),
                Err(Stop::Short(_)) if self.ended => {
                    return Err(Bad { at: at + held as u64, what: "the file ends too early" });
                }
                Err(Stop::Short(more)) => {
                    self.need = held.saturating_add(more.max(held / 2));
                    return Ok(None);
                }
                Ok(found) => {
                    self.crc = crc64::update(self.crc, rest.get(..len).unwrap_or_default());
                    self.from += len;
                    self.need = 1;
                    (self.version, self.db) = (state.version, state.db);
                    self.attributes = state.attributes;
                    match found {
                        Found::Quiet => {}
                        Found::Item(item) => return Ok(Some(item)),
                        Found::End => {
                            self.whole = true;
                            return Ok(Some(Item::End));
                        }
                    }
                }
            }
        }
    }
}

/// What one item changes for those after it.
struct State {
    version: u16,
    db: u64,
    attributes: Attributes,
}

impl State {
    /// Reads one item whole.
    fn step<'a>(&mut self, from: &mut Cursor<'a>, crc: u64) -> Read<Found<'a>> {
        if self.version == 0 {
            self.version = header(from)?;
            return Ok(Found::Quiet);
        }
        let start = from.clone();
        Ok(Found::Item(match from.byte()? {
            EOF => return end(&start, from, crc, self.version),
            SELECT_DB => {
                self.db = from.number()?;
                return Ok(Found::Quiet);
            }
            EXPIRE_MS => {
                self.attributes.expire_at_ms = Some(from.millis()?);
                return Ok(Found::Quiet);
            }
            EXPIRE_S => {
                let seconds = u32::from_le_bytes(from.array()?);
                self.attributes.expire_at_ms = Some(u64::from(seconds) * 1000);
                return Ok(Found::Quiet);
            }
            IDLE => {
                self.attributes.idle_s = Some(from.number()?);
                return Ok(Found::Quiet);
            }
            FREQ => {
                self.attributes.freq = Some(from.byte()?);
                return Ok(Found::Quiet);
            }
            AUX => Item::Aux(from.string()?, from.string()?),
            RESIZE_DB => Item::Sizes(from.number()?, from.number()?),
            FUNCTION_2 => Item::Function(from.string()?),
            SLOT_INFO => {
                for _ in 0..3 {
                    from.number()?;
                }
                Item::Skipped
            }
            MODULE_AUX => {
                skip_module(from)?;
                Item::Skipped
            }
            kind => {
                if kind > super::kind::HASH_TIMED_LISTPACK {
                    return Err(start.bad("neither a value nor anything else that is known"));
                }
                let key = from.string()?;
                let (bytes, at) = (from.rest(), from.at());
                skip(from, kind)?;
                let attributes = std::mem::take(&mut self.attributes);
                Item::Key(Record { db: self.db, key, attributes, kind, bytes, at })
            }
        }))
    }
}

fn header(from: &mut Cursor<'_>) -> Read<u16> {
    let fault = from.bad("not a dump of redis: it does not begin with REDIS");
    let later = from.bad("a dump of a later version than 12");
    if from.take(MAGIC.len())? != MAGIC {
        return Err(fault);
    }
    let digits: [u8; 4] = from.array()?;
    let version = std::str::from_utf8(&digits).ok().and_then(|digits| digits.parse::<u16>().ok());
    match version {
        None | Some(0) => Err(fault),
        Some(version) if version > VERSION_MAX => Err(later),
        Some(version) => Ok(version),
    }
}

/// The end of a file; what follows it is nobody's.
fn end<'a>(start: &Cursor<'a>, from: &mut Cursor<'a>, crc: u64, version: u16) -> Read<Found<'a>> {
    if version >= CHECKSUM_FROM {
        let wrong = from.bad("the checksum is wrong");
        let noted = from.millis()?;
        // 0: it was not computed.
        if noted != 0 && noted != crc64::update(crc, start.rest().get(..1).unwrap_or_default()) {
            return Err(wrong);
        }
    }
    Ok(Found::End)
}

/// Parts of a file.
impl Writer {
    /// What a file begins with.
    pub fn header(&mut self) {
        self.bytes(MAGIC);
        self.bytes(format!("{VERSION:04}").as_bytes());
    }

    /// A note.
    pub fn aux(&mut self, name: &str, value: &[u8]) {
        self.byte(AUX);
        self.string(name.as_bytes());
        self.string(value);
    }

    /// A library of functions: its code.
    pub fn function(&mut self, code: &[u8]) {
        self.byte(FUNCTION_2);
        self.string(code);
    }

    /// The keys that follow are of this database.
    pub fn database(&mut self, db: u16, keys: u64, expires: u64) {
        self.select(db);
        self.byte(RESIZE_DB);
        self.number(keys);
        self.number(expires);
    }

    /// The same for more keys of it.
    pub fn select(&mut self, db: u16) {
        self.byte(SELECT_DB);
        self.number(u64::from(db));
    }

    /// A key.
    pub fn key(&mut self, key: &[u8], value: store::Value<'_>, attributes: Attributes, cx: Cx<'_>) {
        if let Some(at_ms) = attributes.expire_at_ms {
            self.byte(EXPIRE_MS);
            self.millis(at_ms);
        }
        if let Some(idle_s) = attributes.idle_s {
            self.byte(IDLE);
            self.number(idle_s);
        }
        if let Some(freq) = attributes.freq {
            self.byte(FREQ);
            self.byte(freq);
        }
        self.byte(kind_of(&value));
        self.string(key);
        self.value(value, cx);
    }

    /// What the last part is followed by, before the checksum.
    pub fn eof(&mut self) {
        self.byte(EOF);
    }

    /// The checksum of everything before it, or 0 for none.
    pub fn checksum(&mut self, crc: u64) {
        self.millis(crc);
    }
}
