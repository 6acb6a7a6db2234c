//! A connection to where nobody answers, by a process in the control group. Tells: after which time its SYN is to be sent again, and
//! how often it was.

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::bulk::shown;
use super::{Figures, Peer, With, Workload};
use crate::client::{self, Client};
use crate::lab::{DEVICE, Lab, SILENT, run};

pub(crate) struct Opening;

/// How long the connection is tried.
const LASTS: Duration = Duration::from_millis(700);

/// The client's side.
pub(crate) fn role(told: &Value) -> Value {
    let port = u16::try_from(told["port"].as_u64().expect("a port")).expect("a port");
    client::ready();
    let opened = TcpStream::connect_timeout(&SocketAddr::from((SILENT, port)), LASTS);
    json!(opened.is_ok())
}

impl Workload for Opening {
    fn run(&self, lab: &Lab, peer: Peer, _: &With) -> Figures {
        // The way there is known, and ends there.
        run(&format!(
            "ip -n {} neigh replace {SILENT} lladdr 02:00:00:00:00:01 dev {DEVICE}",
            lab.client
        ));
        let told = json!({ "port": Peer::MATCHED.port });
        let mut client = Client::start(lab, peer == Peer::MATCHED, "opening", &told);
        client.wait_ready();
        client.go();
        thread::sleep(LASTS / 2);
        let seen = lab.on_client(|| run("ss -tinH state syn-sent"));
        assert_eq!(client.finish(), json!(false), "nobody answers");
        Figures::from([("rto_ms", shown(&seen, "rto:")), ("again", shown(&seen, "retrans:"))])
    }

    fn assert_clean(&self, figures: &Figures, when: &str) {
        assert!((900.0..=1100.0).contains(&figures["rto_ms"]), "rto_ms {when}: {figures:?}");
    }
}
