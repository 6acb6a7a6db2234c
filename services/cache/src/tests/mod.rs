//! Sessions and shards tested without sockets and threads; `support` is the host.

mod basics;
mod recorded;
mod support;
