//! Sessions and shards tested without sockets and threads; `support` is the host.

mod basics;
mod hostile;
mod shards;
mod support;
mod waiting;
