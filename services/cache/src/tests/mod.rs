//! Sessions and shards tested without sockets and threads; `support` is the host.

mod admin;
mod basics;
mod bounds;
mod events;
mod heavy;
mod hostile;
mod limit;
mod log;
mod pubsub;
mod saves;
mod scripts;
mod shards;
mod sorts;
mod waiting;

use super::support;
