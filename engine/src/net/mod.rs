//! Connections: a server that runs a protocol session inline from completions, and streams for
//! code that is better written as a task.
//!
//! Next: `server` for the host of sessions, `conn` for a connection's states, `transfer` for replies that
//! lie in files, `tls` for encrypted connections, `stream` for tasks.

mod conn;
mod receive;
mod send;
pub mod server;
pub mod stream;
pub mod tls;
mod transfer;

pub use server::{ConnId, ConnInfo, Server, ServerConfig, ServerStats, Service, Via};
pub use stream::Stream;
pub use transfer::{Cold, Part};
