//! The Kafka protocol: frames, the messages of the hot path, and record batches.
//!
//! Only what a broker touches for every batch is here, borrowed and without allocation: [`produce`],
//! [`fetch`], [`batch`] and [`records`]; and the same messages as a [`client`] has them. Everything else is
//! decoded by a crate that covers the whole protocol; [`shape`] walks such a request first, so that a length it
//! merely claims costs nothing.
//! Invariants: no input panics; nothing is allocated in proportion to a claimed length; what a version does
//! not have is neither read nor written. Sources: the protocol guide and the message
//! schemas of Kafka 4.3. Next: [`api`] for which requests there are.

pub mod api;
pub mod batch;
pub mod client;
pub mod compress;
pub mod fetch;
pub mod frame;
mod leader;
mod list;
pub mod produce;
mod reader;
pub mod records;
pub mod shape;
mod writer;

pub use leader::Endpoint;
pub use list::List;
pub use reader::{Malformed, Reader};
pub use writer::Writer;

/// A topic's id.
pub type Uuid = [u8; 16];

/// How a request names a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TopicRef<'a> {
    /// By name, in older versions.
    Name(&'a str),
    /// By id, in newer ones.
    Id(Uuid),
}
