//! What can be measured ([`measure`]) and the table of experiments made of it ([`cells`]).

pub mod cells;
pub mod measure;
