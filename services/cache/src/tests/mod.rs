//! Sessions and shards tested without sockets and threads; `support` is the host.

mod basics;
mod hostile;
mod scripts;
mod shards;
mod support;
mod waiting;
