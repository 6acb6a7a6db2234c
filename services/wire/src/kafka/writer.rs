//! The types of the protocol, appended to a vector. Next: `reader` for the other direction.

use super::Uuid;

macro_rules! integers {
    ($($name:ident: $type:ty,)*) => {
        $(#[doc = concat!("A big-endian `", stringify!($type), "`.")]
        fn $name(&mut self, number: $type);)*
    };
}

/// Appends the types of the protocol. Lengths above what the protocol can say are cut, which no caller here
/// comes near.
pub trait Writer {
    integers! {
        i8: i8,
        i16: i16,
        i32: i32,
        i64: i64,
        u16: u16,
        u32: u32,
    }

    /// A byte that is zero for false.
    fn bool(&mut self, value: bool) {
        self.i8(i8::from(value));
    }

    /// Bytes as they are.
    fn raw(&mut self, bytes: &[u8]);

    /// Sixteen bytes.
    fn uuid(&mut self, uuid: &Uuid) {
        self.raw(uuid);
    }

    /// An unsigned number in groups of seven bits, lowest first.
    fn unsigned_varint(&mut self, number: u32) {
        self.groups(u64::from(number));
    }

    /// A number in zigzag form, 32 bits.
    fn varint(&mut self, number: i32) {
        self.groups(u64::from((number << 1 ^ number >> 31).cast_unsigned()));
    }

    /// A number in zigzag form, 64 bits.
    fn varlong(&mut self, number: i64) {
        self.groups((number << 1 ^ number >> 63).cast_unsigned());
    }

    /// Groups of seven bits, lowest first.
    fn groups(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.raw(&[(number & 0x7f | 0x80).to_le_bytes()[0]]);
            number >>= 7;
        }
        self.raw(&[number.to_le_bytes()[0]]);
    }

    /// Number of an array's elements.
    fn array_len(&mut self, len: usize, compact: bool) {
        let len = i32::try_from(len).unwrap_or(i32::MAX);
        if compact {
            self.unsigned_varint(len.cast_unsigned().saturating_add(1));
        } else {
            self.i32(len);
        }
    }

    /// A null array or byte sequence.
    fn null(&mut self, compact: bool) {
        if compact {
            self.unsigned_varint(0);
        } else {
            self.i32(-1);
        }
    }

    /// A byte sequence.
    fn bytes(&mut self, bytes: &[u8], compact: bool) {
        self.array_len(bytes.len(), compact);
        self.raw(bytes);
    }

    /// A string, or null.
    fn nullable_string(&mut self, string: Option<&str>, compact: bool) {
        match string {
            Some(string) => self.string(string, compact),
            None if compact => self.unsigned_varint(0),
            None => self.i16(-1),
        }
    }

    /// A string of at most 32,767 bytes.
    fn string(&mut self, string: &str, compact: bool) {
        let cut = string.floor_char_boundary(i16::MAX.unsigned_abs().into());
        let string = string.get(..cut).unwrap_or_default();
        if compact {
            self.array_len(string.len(), true);
        } else {
            self.i16(i16::try_from(string.len()).unwrap_or(i16::MAX));
        }
        self.raw(string.as_bytes());
    }

    /// The end of a structure that has no tagged fields to say.
    fn no_tagged_fields(&mut self, flexible: bool) {
        if flexible {
            self.unsigned_varint(0);
        }
    }
}

macro_rules! append {
    ($($name:ident: $type:ty,)*) => {
        $(fn $name(&mut self, number: $type) {
            self.extend_from_slice(&number.to_be_bytes());
        })*
    };
}

impl Writer for Vec<u8> {
    append! {
        i8: i8,
        i16: i16,
        i32: i32,
        i64: i64,
        u16: u16,
        u32: u32,
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_empty_are_told_apart() {
        let mut bytes = Vec::new();
        bytes.nullable_string(None, false);
        bytes.nullable_string(Some(""), false);
        bytes.nullable_string(None, true);
        bytes.nullable_string(Some(""), true);
        bytes.null(false);
        bytes.bytes(b"", false);
        assert_eq!(bytes, [0xff, 0xff, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    }
}
