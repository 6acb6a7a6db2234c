//! What can be measured ([`measure`]), and the experiments made of it: the table of claims ([`cells`]) and files ([`mod@file`]).

pub mod cells;
pub mod file;
pub mod measure;
