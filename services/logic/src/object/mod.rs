//! The cache's collections: what a key can hold beside a string.
//!
//! Pure data structures, one value each, without keys, clock or I/O. The hasher, the limits and the time come with each
//! call ([`Cx`]), chance from a generator handed in. Small collections lie in one allocation, large ones grow by
//! splitting, so no call does work in proportion to a whole collection unless that is what it is asked for; a large one
//! that is deleted goes in steps ([`Object::reclaim`]).
//!
//! Invariants: [`Object::mem_bytes`] is known without counting and equals the sum of all allocations; what a collection
//! does follows from calls and seeds alone.
//! Next: `packed.rs` is what small ones are made of, `table.rs` and `tree.rs` what large ones are; then a file for each
//! type. `bits.rs` and `hll.rs` are for strings, `geo.rs` for sorted sets.

pub mod bits;
mod copy;
mod due;
pub(crate) mod entry;
pub mod geo;
pub mod hash;
pub mod hll;
pub mod intset;
mod leaf;
pub mod list;
pub mod packed;
mod scan;
pub mod set;
mod slab;
mod span;
pub mod stream;
pub mod table;
mod tree;
pub mod zset;

pub use hash::Hash;
pub use list::List;
pub use set::Set;
pub use stream::Stream;
pub use table::ReapStep;
pub use zset::Zset;

use std::fmt;

use crate::store::Kind;
pub use crate::store::hash::{Hasher, Rng};

/// Where small forms end: `CONFIG GET *-max-*`, with the defaults of Redis 7.0.15.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The most fields of a packed hash.
    pub hash_max_listpack_entries: usize,
    /// The longest field or value of a packed hash, in bytes.
    pub hash_max_listpack_value: usize,
    /// The most integers of a set that is sorted integers.
    pub set_max_intset_entries: usize,
    /// The most members of a packed sorted set.
    pub zset_max_listpack_entries: usize,
    /// The longest member of a packed sorted set, in bytes.
    pub zset_max_listpack_value: usize,
    /// Size of a list's node: entries if positive, else a class of bytes (-1: 4 KiB, -2: 8 KiB … -5: 64 KiB).
    pub list_max_listpack_size: i32,
    /// Nodes at either end of a list that stay as they are; 0: none is compressed.
    pub list_compress_depth: u32,
    /// The most bytes of a stream's node; 0: no limit.
    pub stream_node_max_bytes: usize,
    /// The most entries of a stream's node; 0: no limit.
    pub stream_node_max_entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hash_max_listpack_entries: 512,
            hash_max_listpack_value: 64,
            set_max_intset_entries: 512,
            zset_max_listpack_entries: 128,
            zset_max_listpack_value: 64,
            list_max_listpack_size: -2,
            list_compress_depth: 0,
            stream_node_max_bytes: 4096,
            stream_node_max_entries: 100,
        }
    }
}

impl Limits {
    /// Those of a stream's nodes.
    #[must_use]
    pub fn stream(&self) -> stream::Limits {
        stream::Limits {
            node_max_bytes: self.stream_node_max_bytes,
            node_max_entries: u32::try_from(self.stream_node_max_entries).unwrap_or(u32::MAX),
        }
    }
}

/// What a shard's collections share, and the time.
#[derive(Clone, Copy)]
pub struct Cx<'a> {
    /// The seeded hash.
    pub hasher: &'a Hasher,
    /// Where small forms end.
    pub limits: &'a Limits,
    /// Unix milliseconds.
    pub now_ms: u64,
}

/// Defines [`Object`], one line for each type of collection.
macro_rules! objects {
    ($($(#[$doc:meta])* $kind:ident($inner:ty, $get:ident, $get_mut:ident);)+) => {
        /// A collection of any type.
        pub enum Object {
            $($(#[$doc])* $kind($inner),)+
        }

        impl Object {
            /// Its type.
            #[must_use]
            pub const fn kind(&self) -> Kind {
                match self {
                    $(Self::$kind(_) => Kind::$kind,)+
                }
            }

            $(
                /// The object, if it is of this type.
                #[must_use]
                pub const fn $get(&self) -> Option<&$inner> {
                    if let Self::$kind(inner) = self { Some(inner) } else { None }
                }

                /// The object to change, if it is of this type.
                pub const fn $get_mut(&mut self) -> Option<&mut $inner> {
                    if let Self::$kind(inner) = self { Some(inner) } else { None }
                }
            )+
        }

        $(
            impl From<$inner> for Object {
                fn from(inner: $inner) -> Self {
                    Self::$kind(inner)
                }
            }
        )+
    };
}

objects! {
    /// Fields with values.
    Hash(Hash, as_hash, as_hash_mut);
    /// Members.
    Set(Set, as_set, as_set_mut);
    /// Members by score.
    Zset(Zset, as_zset, as_zset_mut);
    /// Elements in order.
    List(List, as_list, as_list_mut);
    /// Entries by id, and groups that read them.
    Stream(Box<Stream>, as_stream, as_stream_mut);
}

impl Object {
    /// What `OBJECT ENCODING` says.
    #[must_use]
    pub fn encoding(&self) -> &'static str {
        match self {
            Self::Hash(inner) => inner.encoding(),
            Self::Set(inner) => inner.encoding(),
            Self::Zset(inner) => inner.encoding(),
            Self::List(inner) => inner.encoding(),
            Self::Stream(_) => "stream",
        }
    }

    /// How many elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Hash(inner) => inner.len(),
            Self::Set(inner) => inner.len(),
            Self::Zset(inner) => inner.len(),
            Self::List(inner) => inner.len(),
            Self::Stream(inner) => usize::try_from(inner.len()).unwrap_or(usize::MAX),
        }
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether its key goes: a stream stays when it is empty.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.is_empty() && self.kind() != Kind::Stream
    }

    /// Frees about `budget` elements of an object that is not used any more; whether any are left.
    pub fn reclaim(&mut self, budget: usize) -> bool {
        match self {
            Self::Hash(inner) => inner.reclaim(budget),
            Self::Set(inner) => inner.reclaim(budget),
            Self::Zset(inner) => inner.reclaim(budget),
            Self::List(inner) => inner.reclaim(budget),
            Self::Stream(inner) => {
                inner.clear();
                !inner.reclaim(budget)
            }
        }
    }

    /// Bytes of all allocations.
    #[must_use]
    pub fn mem_bytes(&self) -> usize {
        match self {
            Self::Hash(inner) => inner.mem_bytes(),
            Self::Set(inner) => inner.mem_bytes(),
            Self::Zset(inner) => inner.mem_bytes(),
            Self::List(inner) => inner.mem_bytes(),
            Self::Stream(inner) => size_of::<Stream>() + inner.mem_bytes(),
        }
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({} elements)", self.kind().name(), self.len())
    }
}

// A slab holds one beside each key that is not a string.
const _: () = assert!(size_of::<Object>() <= 32);

#[cfg(test)]
mod tests;
