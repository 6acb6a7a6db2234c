//! Sessions and shards tested without sockets and threads; `support` is the host.

mod basics;
mod heavy;
mod hostile;
mod scripts;
mod limit;
mod shards;
mod support;
mod waiting;
