//! SLOWLOG, LATENCY and MONITOR: what was seen of commands.
//!
//! Next: [`crate::watch`] for how it is seen.

use wire::resp::reply;

use super::{Cx, Fault, Outcome};
use crate::{
    admin::{self, Answer, Ask, Replying},
    watch::{latency, latency::Events, latency::Histogram, slow},
    work::Response,
};

type Result = std::result::Result<Outcome, Fault>;

/// Containers run through their subcommands only.
pub(super) fn container(_cx: &mut Cx<'_>) -> Result {
    Err(Fault::SYNTAX)
}

pub(super) fn slowlog_get(cx: &mut Cx<'_>) -> Result {
    let most = match cx.argc() {
        2 => 10,
        3 => cx.integer_from(2, -1, "ERR count should be greater than or equal to -1")?,
        _ => return Err(super::admin::wrong_count("SLOWLOG", "GET")),
    };
    cx.ask(Ask::SlowLog(usize::try_from(most).unwrap_or(usize::MAX)), reply_slow)
}

/// Entries of all shards, newest first. With several shards, a number of an entry is that of its shard, times their number,
/// plus the shard.
fn reply_slow(reply: &mut Replying<'_>, ask: &Ask, responses: Vec<Response>) {
    let mut entries: Vec<slow::Entry> = Vec::new();
    let shards = responses.len() as u64;
    for (shard, response) in (0..).zip(responses) {
        if let Response::Admin(answer) = response
            && let Answer::SlowLog(part) = *answer
        {
            let numbered =
                |entry: slow::Entry| slow::Entry { id: entry.id * shards + shard, ..entry };
            entries.extend(part.0.into_iter().map(numbered));
        }
    }
    if shards > 1 {
        entries.sort_by_key(|entry| std::cmp::Reverse((entry.at_us, entry.id / shards)));
    }
    if let Ask::SlowLog(most) = ask {
        entries.truncate(usize::try_from(kept(reply)).map_or(*most, |kept| kept.min(*most)));
    }
    let out = reply.out.inline_mut();
    reply::array(out, entries.len());
    for entry in entries {
        reply::array(out, 6);
        for number in [entry.id, entry.at_us / 1_000_000, entry.us] {
            reply::integer(out, i64::try_from(number).unwrap_or(i64::MAX));
        }
        reply::array(out, entry.args.len());
        entry.args.iter().for_each(|arg| reply::bulk(out, arg));
        reply::bulk(out, entry.peer.as_bytes());
        reply::bulk(out, &entry.name);
    }
}

/// How many entries the slow log may have, whatever the number of shards.
fn kept(reply: &Replying<'_>) -> u64 {
    reply.shard.settings.get("slowlog-max-len").parse().unwrap_or(u64::MAX)
}

pub(super) fn slowlog_len(cx: &mut Cx<'_>) -> Result {
    cx.ask(Ask::SlowLogLen, |reply, _, responses| {
        let count = admin::sum(&responses).min(kept(reply));
        reply::integer(reply.out.inline_mut(), number(count));
    })
}

pub(super) fn slowlog_reset(cx: &mut Cx<'_>) -> Result {
    cx.ask(Ask::ResetSlowLog, admin::ok)
}

pub(super) fn slowlog_help(cx: &mut Cx<'_>) -> Result {
    cx.help(
        "SLOWLOG",
        &[
            "GET [<count>]",
            "    Return top <count> entries from the slowlog (default: 10, -1 mean all).",
            "    Entries are made of:",
            "    id, timestamp, time in microseconds, arguments array, client IP and port,",
            "    client name",
            "LEN",
            "    Return the length of the slowlog.",
            "RESET",
            "    Reset the slowlog.",
        ],
    )
}

/// The peaks of all shards.
fn peaks(responses: Vec<Response>) -> Events {
    let mut events = Events::default();
    for response in responses {
        if let Response::Admin(answer) = response
            && let Answer::Latency(part) = *answer
        {
            events.merge(part.0);
        }
    }
    events
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn latest(cx: &mut Cx<'_>) -> Result {
    cx.ask(Ask::Latency, |reply, _, responses| {
        let events = peaks(responses);
        let out = reply.out.inline_mut();
        reply::array(out, events.iter().len());
        for (event, series) in events.iter() {
            let (at_s, ms) = series.samples.last().copied().unwrap_or_default();
            reply::array(out, 4);
            reply::bulk(out, event.as_bytes());
            for value in [at_s, ms, series.max_ms] {
                reply::integer(out, number(value));
            }
        }
    })
}

pub(super) fn history(cx: &mut Cx<'_>) -> Result {
    let event = event(cx);
    cx.ask_about(Ask::Latency, event, |reply, event, responses| {
        let events = peaks(responses);
        let samples = events.get(event).map(|series| series.samples.as_slice()).unwrap_or_default();
        let out = reply.out.inline_mut();
        reply::array(out, samples.len());
        for (at_s, ms) in samples {
            reply::array(out, 2);
            reply::integer(out, number(*at_s));
            reply::integer(out, number(*ms));
        }
    })
}

fn event(cx: &Cx<'_>) -> String {
    String::from_utf8_lossy(cx.arg(2)).into_owned()
}

pub(super) fn graph(cx: &mut Cx<'_>) -> Result {
    let event = event(cx);
    cx.ask_about(Ask::Latency, event, |reply, event, responses| match peaks(responses).get(event) {
        Some(series) => {
            let text = latency::graph(event, series, reply.now.unix_s());
            reply::verbatim(reply.out.inline_mut(), reply.version, *b"txt", text.as_bytes());
        }
        None => {
            reply.shard.stats.error("ERR");
            let text = format!("ERR No samples available for event '{event}'");
            reply::error(reply.out.inline_mut(), text.as_bytes());
        }
    })
}

pub(super) fn reset(cx: &mut Cx<'_>) -> Result {
    let names = (2..cx.argc()).map(|at| String::from_utf8_lossy(cx.arg(at)).into_owned());
    let ask = Ask::ResetLatency(names.collect());
    cx.ask(ask, |reply, _, responses| {
        let most = responses.iter().map(|response| match response {
            Response::Count(count) => *count,
            _ => 0,
        });
        // Shards have events of the same names.
        reply::integer(reply.out.inline_mut(), number(most.max().unwrap_or(0)));
    })
}

pub(super) fn doctor(cx: &mut Cx<'_>) -> Result {
    cx.ask(Ask::Latency, |reply, _, responses| {
        let events = peaks(responses);
        let on = reply.shard.settings.get("latency-monitor-threshold") != "0";
        let mut text = String::new();
        if !on {
            text.push_str(
                "I'm sorry, Dave, I can't do that. Latency monitoring is disabled in this Redis \
                 instance. You may use \"CONFIG SET latency-monitor-threshold <milliseconds>.\" in \
                 order to enable it. If we weren't in a deep space mission I'd suggest to take a look \
                 at https://redis.io/topics/latency-monitor.\n",
            );
        } else if events.iter().len() == 0 {
            text.push_str(
                "Dave, no latency spike was observed during the lifetime of this Redis instance, \
                 not in the slightest bit. I honestly think you ought to sit down calmly, take a \
                 stress pill, and think things over.\n",
            );
        } else {
            text.push_str("Dave, I have observed latency spikes in this Redis instance.\n\n");
            for (at, (event, series)) in (1..).zip(events.iter()) {
                let count = series.samples.len();
                let sum: u64 = series.samples.iter().map(|(_, ms)| *ms).sum();
                let mean = sum.checked_div(count as u64).unwrap_or(0);
                text.push_str(&format!(
                    "{at}. {event}: {count} latency spikes (average {mean}ms). Worst all time event \
                     {}ms.\n",
                    series.max_ms
                ));
            }
            text.push_str(
                "\nI have a few advices for you:\n\n- Check your Slow Log to understand what are \
                 the commands you are running which are too slow to execute.\n",
            );
        }
        reply::verbatim(reply.out.inline_mut(), reply.version, *b"txt", text.as_bytes());
    })
}

pub(super) fn histogram(cx: &mut Cx<'_>) -> Result {
    let names = (2..cx.argc()).map(|at| String::from_utf8_lossy(cx.arg(at)).to_lowercase());
    let names = names.collect::<Vec<_>>().join(" ");
    cx.ask_about(Ask::Histograms, names, |reply, names, responses| {
        let mut all: Vec<Option<Box<Histogram>>> = Vec::new();
        for response in responses {
            let Response::Admin(answer) = response else { continue };
            let Answer::Histograms(part) = *answer else { continue };
            for (id, histogram) in part.0 {
                let at = usize::from(id);
                if all.len() <= at {
                    all.resize_with(at + 1, || None);
                }
                let Some(place) = all.get_mut(at) else { continue };
                match place {
                    Some(mine) => mine.merge(&histogram),
                    None => *place = Some(histogram),
                }
            }
        }
        let wanted: Vec<&str> = names.split(' ').filter(|name| !name.is_empty()).collect();
        let commands = &reply.shard.commands;
        let is_wanted = |name: &str| {
            let container = name.split('|').next().unwrap_or(name);
            wanted.is_empty() || wanted.iter().any(|word| *word == name || *word == container)
        };
        let shown: Vec<(&str, Box<Histogram>)> = (0..)
            .zip(all)
            .filter_map(|(id, histogram)| Some((commands.row(id).name, histogram?)))
            .filter(|(name, _)| is_wanted(name))
            .collect();
        let version = reply.version;
        let out = reply.out.inline_mut();
        reply::map(out, version, shown.len());
        for (name, histogram) in shown {
            reply::bulk(out, name.as_bytes());
            reply::map(out, version, 2);
            reply::bulk(out, b"calls");
            reply::integer(out, number(histogram.calls));
            reply::bulk(out, b"histogram_usec");
            let buckets = histogram.cumulative();
            reply::map(out, version, buckets.len());
            for (us, count) in buckets {
                reply::integer(out, number(us));
                reply::integer(out, number(count));
            }
        }
    })
}

pub(super) fn latency_help(cx: &mut Cx<'_>) -> Result {
    cx.help(
        "LATENCY",
        &[
            "DOCTOR",
            "    Return a human readable latency analysis report.",
            "GRAPH <event>",
            "    Return an ASCII latency graph for the <event> class.",
            "HISTORY <event>",
            "    Return time-latency samples for the <event> class.",
            "LATEST",
            "    Return the latest latency samples for all events.",
            "RESET [<event> ...]",
            "    Reset latency data of one or more <event> classes.",
            "    (default: reset all data for all event classes)",
            "HISTOGRAM [COMMAND ...]",
            "    Return a cumulative distribution of latencies in the format of a histogram for the specified command names.",
            "    If no commands are specified then all histograms are replied.",
        ],
    )
}

pub(super) fn monitor(cx: &mut Cx<'_>) -> Result {
    let count = cx.shard.watch.monitors.add(cx.conn.slot);
    if let Some(record) = cx.shard.clients.get_mut(cx.conn.slot) {
        record.monitors = true;
    }
    let ask = Ask::Monitors { shard: cx.shard.index, count };
    cx.ask(ask, admin::ok)
}
