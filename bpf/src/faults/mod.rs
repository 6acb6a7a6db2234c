//! How each kind of fault is made. Each module has a table of its kinds. Next: `packet`.

use crate::fault::Kind;

pub mod packet;

/// The tables.
pub(crate) const TABLES: &[&[Kind]] = &[packet::KINDS];
