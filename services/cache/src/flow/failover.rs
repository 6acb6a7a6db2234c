//! FAILOVER: a replica takes over, and this server follows it.
//!
//! Writes are held back, until a replica has all that was written; it is told to be a master, over a connection as
//! administrators have; then this server is its replica. Until the replica has agreed, everything can be taken back.
//! Invariant: no write is acknowledged here after the replica was looked at. Next: `wait.rs` for who has all,
//! `repl/link.rs` for how the replica becomes a master.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::rc::Rc;

use engine::error::{Error, Kind};
use engine::net::Server;

use super::wait;
use crate::{
    admin::Ask,
    aof,
    repl::{Failover, Master, Wire},
    serve::Cache,
    work::{Op, Response},
};

const SECOND_NS: u64 = 1_000_000_000;
/// How often replicas are looked at.
const LOOK_NS: u64 = SECOND_NS / 500;
/// How long commands may take to come to the shards of their keys.
const ARRIVE_NS: u64 = 10 * SECOND_NS;
/// How long a pause without an end of its own lasts: as long as nobody would wait.
const FOREVER_MS: u64 = 365 * 24 * 3_600_000;

/// What FAILOVER asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Which replica, as host and port; any, if none is named.
    pub(crate) to: Option<String>,
    /// How long it may take.
    pub(crate) timeout_ms: Option<u64>,
    /// What the replica has not got then is given up.
    pub(crate) is_forced: bool,
}

fn error(text: &str) -> Response {
    Response::Error(text.as_bytes().to_vec())
}

/// Begins a failover, which goes on by itself; on the first shard.
pub(crate) async fn begin(server: &Rc<Server<Cache>>, order: Order) -> Response {
    let common = server.shard().borrow().repl.clone();
    if common.failover() != Failover::None {
        return error("ERR FAILOVER already in progress.");
    }
    let shards = look(server).await;
    let flows = || shards.iter().flat_map(|followers| &followers.flows);
    if flows().next().is_none() {
        return error("ERR FAILOVER requires connected replicas.");
    }
    if order.is_forced && (order.timeout_ms.is_none() || order.to.is_none()) {
        let text = "ERR FAILOVER with force option requires both a timeout and target HOST and IP.";
        return error(text);
    }
    if let Some(to) = &order.to {
        let mut its = flows().filter(|flow| is_named(&flow.replica, to)).peekable();
        if its.peek().is_none() {
            return error("ERR FAILOVER target HOST and PORT is not a replica.");
        }
        if !its.all(|flow| flow.is_online) {
            return error("ERR FAILOVER target replica is not online.");
        }
    }
    if !common.begin_failover() {
        return error("ERR FAILOVER already in progress.");
    }
    let task = Rc::clone(server);
    server.cx().spawn("cache failover", async move { run(&task, &order).await });
    Response::Done
}

/// Gives a failover up; on the first shard.
pub(crate) fn end(server: &Rc<Server<Cache>>) -> Response {
    if server.shard().borrow().repl.end_failover() {
        Response::Done
    } else {
        error("ERR No failover in progress.")
    }
}

async fn look(server: &Rc<Server<Cache>>) -> Vec<super::Followers> {
    let count = server.shard().borrow().count;
    wait::answers(Cache::exchange(Rc::clone(server), wait::questions(count)).await)
}

/// Whether a replica is the one that is named, perhaps as a host.
fn is_named(replica: &str, name: &str) -> bool {
    let resolved = || name.to_socket_addrs().into_iter().flatten().map(|addr| addr.to_string());
    replica == name || resolved().any(|addr| addr == replica)
}

async fn run(server: &Rc<Server<Cache>>, order: &Order) {
    let cx = server.cx().clone();
    let common = server.shard().borrow().repl.clone();
    let until_ms = cx.now().unix_ms() + order.timeout_ms.map_or(FOREVER_MS, |ms| ms + 60_000);
    all(server, &Ask::Pause(Some((until_ms, true)))).await;
    let done = match all_arrive(server).await {
        Ok(()) => {
            // What was under way over several shards has ended then.
            aof::rewrite::on_all(server, Op::Nothing).await;
            take_over(server, order).await
        }
        Err(error) => Err(error),
    };
    if let Ok(master) = &done {
        aof::rewrite::on_all(server, Op::Admin(Ask::Follow(Some(master.clone())))).await;
    }
    all(server, &Ask::Pause(None)).await;
    common.set_failover(Failover::None);
    match done {
        Ok(master) => {
            let master = master.text();
            let pairs: [(&str, &dyn std::fmt::Display); 1] = [("master", &master)];
            cx.log().info("cache", cx.now(), "a replica has taken over", &pairs);
        }
        Err(why) => {
            let pairs: [(&str, &dyn std::fmt::Display); 1] = [("why", &why)];
            cx.log().warn("cache", cx.now(), "no failover", &pairs);
        }
    }
}

/// Asks something of all shards.
async fn all(server: &Rc<Server<Cache>>, ask: &Ask) {
    let count = server.shard().borrow().count;
    let request = |shard| {
        let op = Op::Admin(ask.clone());
        (shard, crate::work::Request::Op { ticket: 0, op, unlock: false })
    };
    Cache::exchange(Rc::clone(server), (0..count).map(request).collect()).await;
}

/// Waits until what was begun before the pause has come to the shards of its keys.
async fn all_arrive(server: &Rc<Server<Cache>>) -> Result<(), Error> {
    let cx = server.cx().clone();
    let end_ns = cx.now().mono_ns + ARRIVE_NS;
    let mut looks = 0;
    while looks < 2 {
        // What one look finds sent, the next finds there.
        let is_crowded = look(server).await.iter().any(|followers| followers.is_crowded);
        looks = if is_crowded { 0 } else { looks + 1 };
        if cx.now().mono_ns >= end_ns {
            let context = "commands did not come to the shards of their keys";
            return Err(Error::new("failover", Kind::TimedOut, context));
        }
        cx.sleep(LOOK_NS).await;
    }
    Ok(())
}

/// Waits for a replica and makes it a master: where it is.
async fn take_over(server: &Rc<Server<Cache>>, order: &Order) -> Result<Master, Error> {
    let cx = server.cx().clone();
    let common = server.shard().borrow().repl.clone();
    let end_ns = order.timeout_ms.map(|ms| cx.now().mono_ns + ms.saturating_mul(1_000_000));
    let given_up = |why: &str| Error::new("failover", Kind::Closed, why.to_owned());
    let replica = loop {
        let shards = look(server).await;
        let ends: Vec<u64> = shards.iter().map(|followers| followers.end).collect();
        let is_wanted = |name: &&str| order.to.as_ref().is_none_or(|to| is_named(name, to));
        if let Some(name) = wait::arrived(&shards, &ends).find(is_wanted) {
            break name.to_owned();
        }
        if common.ends_failover() {
            return Err(given_up("FAILOVER ABORT"));
        }
        if end_ns.is_some_and(|end_ns| cx.now().mono_ns >= end_ns) {
            match &order.to {
                Some(to) if order.is_forced => break to.clone(),
                _ => return Err(given_up("no replica had everything before TIMEOUT")),
            }
        }
        cx.sleep(LOOK_NS).await;
    };
    common.set_failover(Failover::Tells);
    promote(server, &replica).await
}

/// Tells a replica to be a master.
async fn promote(server: &Rc<Server<Cache>>, replica: &str) -> Result<Master, Error> {
    let cx = server.cx().clone();
    let addr: SocketAddr = replica
        .to_socket_addrs()
        .map_err(|error| Error::io("resolve", error, replica))?
        .next()
        .ok_or_else(|| Error::new("resolve", Kind::NotFound, replica))?;
    let (login, timeout_ns) = {
        let shard = server.shard().borrow();
        let setting = |name: &str| shard.settings.get(name).to_owned();
        let words = ["AUTH".to_owned(), setting("masteruser"), setting("masterauth")];
        let has_password = !setting("masterauth").is_empty();
        let login: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let timeout_s: u64 = setting("repl-timeout").parse().unwrap_or(60);
        (has_password.then_some(login), timeout_s.saturating_mul(SECOND_NS))
    };
    let mut wire = Wire::connect(&cx, addr, timeout_ns).await?;
    let refused = |what: &str, answer: &str| {
        let context = format!("{replica}: the answer to {what} was `{answer}`");
        Error::new("failover", Kind::Forbidden, context)
    };
    if let Some(login) = login {
        let words: Vec<&[u8]> = login.iter().map(String::as_bytes).collect();
        let answer = wire.ask(&words).await?;
        if !answer.starts_with('+') {
            return Err(refused("AUTH", &answer).remedied("see masterauth and masteruser"));
        }
    }
    let answer = wire.ask(&[b"REPLICAOF", b"NO", b"ONE"]).await?;
    if !answer.starts_with('+') {
        return Err(refused("REPLICAOF NO ONE", &answer));
    }
    Ok(Master { host: addr.ip().to_string(), port: addr.port() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_named_by_its_address_or_its_host() {
        assert!(is_named("127.0.0.1:7", "127.0.0.1:7") && is_named("127.0.0.1:7", "localhost:7"));
        assert!(!is_named("127.0.0.1:7", "127.0.0.1:8") && !is_named("127.0.0.1:7", "nonsense"));
    }
}
