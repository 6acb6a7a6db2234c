//! What the command line says of HTTP.

use std::path::PathBuf;

use anyhow::{Context, Result};
use bytes::Bytes;

use super::http::{Http, Method};

/// The largest body that is compared.
const BODY_MAX_BYTES: u64 = 1 << 30;

/// Options of HTTP loads.
#[derive(Clone, Debug, clap::Args)]
pub struct HttpArgs {
    /// HTTP: path and query; `{key}` in it is replaced by the request's key.
    #[arg(long, default_value = "/")]
    path: String,
    /// HTTP: the host asked for, the server's address when it is not given.
    #[arg(long)]
    host: Option<String>,
    /// HTTP: how requests ask, except those of --set-share, which are POSTs of --value-len bytes.
    #[arg(long, value_enum, default_value_t = Method::Get)]
    method: Method,
    /// HTTP: the only right status; any of 200 to 299 without it.
    #[arg(long)]
    expect_status: Option<u16>,
    /// HTTP: the length a body must have.
    #[arg(long)]
    expect_len: Option<u64>,
    /// HTTP: a file with the only right body.
    #[arg(long, conflicts_with = "expect_len")]
    expect_body: Option<PathBuf>,
}

impl HttpArgs {
    /// What is requested of the server at `addr`.
    ///
    /// # Errors
    /// The file with the body cannot be read.
    pub fn http(&self, addr: std::net::SocketAddr) -> Result<Http> {
        let body = match &self.expect_body {
            Some(path) => {
                let read = || -> Result<Bytes> {
                    let len = std::fs::metadata(path)?.len();
                    anyhow::ensure!(len <= BODY_MAX_BYTES, "{len} bytes are too many to compare");
                    Ok(std::fs::read(path)?.into())
                };
                Some(read().with_context(|| format!("the expected body, {}", path.display()))?)
            }
            None => None,
        };
        Ok(Http {
            path: self.path.clone().into(),
            host: self.host.clone().unwrap_or_else(|| addr.to_string()).into(),
            method: self.method,
            status: self.expect_status,
            body_len: self.expect_len,
            body,
        })
    }
}
