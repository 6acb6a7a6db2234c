//! Queues all clients share: items that are pushed once, moved between two lists, and popped by whoever waits.
//!
//! An item is popped at most once, and only when somebody pushed it; in the end every item that was surely pushed is
//! popped or still there, except as many as commands without a reply may have popped. So nothing is popped for a client
//! that has gone, and no wait loses what it was woken with.

use std::collections::BTreeMap;

use engine::rng::Rng;
use wire::resp::Reply;

use crate::command::{Check, Command, Shared};
use crate::model::During;
use crate::op::Seen;
use crate::shared::Common;

/// The lists.
pub const QUEUES: usize = 2;

/// A list's name.
#[must_use]
pub fn queue_name(queue: usize) -> Vec<u8> {
    format!("queue:{queue}").into_bytes()
}

/// What is known of an item.
#[derive(Clone, Copy, Debug)]
struct Item {
    /// The step its push was sent in.
    sent: u64,
    /// It was surely pushed.
    pushed: bool,
    /// It surely was not.
    void: bool,
    popped: bool,
}

/// All items.
#[derive(Debug, Default)]
pub struct Items {
    items: BTreeMap<u64, Item>,
    /// Pops that may have run without a reply.
    lost: usize,
}

impl Items {
    /// A push of these items was answered.
    pub fn pushed(&mut self, items: &[u64]) {
        for item in items {
            if let Some(item) = self.items.get_mut(item) {
                item.pushed = true;
            }
        }
    }

    /// A push of these items has not run, and will not.
    pub fn void(&mut self, items: &[u64]) {
        for item in items {
            if let Some(item) = self.items.get_mut(item) {
                item.void = true;
            }
        }
    }

    /// A pop may have run, and nobody heard of it.
    pub const fn lose(&mut self) {
        self.lost += 1;
    }

    fn seen(&mut self, bytes: &[u8], during: During, pops: bool) -> Result<(), String> {
        let text = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
        let number: u64 = text.ok_or("an item nobody pushed")?;
        let item = self.items.get_mut(&number).ok_or("an item nobody pushed")?;
        if item.void || item.sent > during.told {
            return Err("an item that was not pushed yet".into());
        }
        if pops && std::mem::replace(&mut item.popped, true) {
            return Err("an item that was popped before".into());
        }
        Ok(())
    }

    /// What is left when all is over.
    ///
    /// # Errors
    /// Something is there that should not be, or too much is missing.
    pub fn audit(&self, left: &[u64], flushed: bool) -> Result<(), String> {
        for number in left {
            match self.items.get(number) {
                Some(item) if !item.void && !item.popped => {}
                _ => return Err(format!("item {number} is in a queue at the end")),
            }
        }
        let missing =
            |(number, item): &(&u64, &Item)| item.pushed && !item.popped && !left.contains(number);
        let missing: Vec<u64> =
            self.items.iter().filter(missing).map(|(&number, _)| number).collect();
        if !flushed && missing.len() > self.lost {
            return Err(format!("items {missing:?} are lost; {} pops had no reply", self.lost));
        }
        Ok(())
    }
}

/// A command on the queues.
#[must_use]
pub fn draw(rng: &mut Rng, common: &mut Common, client: usize) -> Command {
    let names: Vec<Vec<u8>> = (0..QUEUES).map(queue_name).collect();
    let (one, other) = (&names[rng.index(QUEUES)], &names[rng.index(QUEUES)]);
    let timeout = format!("0.0{:02}", rng.between(1, 60)).into_bytes();
    match rng.below(10) {
        0..4 => push(rng, one, common, client),
        4..6 => Command::new(&[b"BLPOP", one, &timeout], Check::Shared(Shared::Pop)),
        6..8 => {
            let mut words: Vec<&[u8]> = vec![b"BRPOP"];
            words.extend(names.iter().map(Vec::as_slice));
            words.push(&timeout);
            Command::new(&words, Check::Shared(Shared::Pop))
        }
        _ => Command::new(
            &[b"BLMOVE", one, other, b"LEFT", b"RIGHT", &timeout],
            Check::Shared(Shared::Shift),
        ),
    }
}

fn push(rng: &mut Rng, name: &[u8], common: &mut Common, client: usize) -> Command {
    let count = rng.between(1, 3);
    // Steps are below 2^40, and a client sends a command at most once in each.
    let items: Vec<u64> = (0..count).map(|at| common.new_value(client) << 8 | at).collect();
    for &number in &items {
        let item = Item { sent: common.step, pushed: false, void: false, popped: false };
        common.items.items.insert(number, item);
    }
    let texts: Vec<String> = items.iter().map(u64::to_string).collect();
    let mut words: Vec<&[u8]> = vec![b"RPUSH", name];
    words.extend(texts.iter().map(String::as_bytes));
    Command::new(&words, Check::Shared(Shared::Push(items)))
}

/// Checks a reply.
///
/// # Errors
/// It is impossible.
pub fn check(
    shared: &Shared,
    during: During,
    reply: &Reply,
    common: &mut Common,
) -> Result<(), String> {
    let nothing = Seen(Some(reply)).null() || matches!(reply, Reply::Null);
    match (shared, reply) {
        (Shared::Push(items), Reply::Integer(len)) if *len >= items.len() as i64 => {
            common.items.pushed(items);
            Ok(())
        }
        (Shared::Pop | Shared::Shift, _) if nothing => {
            common.mark("waited in vain");
            Ok(())
        }
        (Shared::Pop, Reply::Array(parts)) => match &parts[..] {
            [Reply::Bulk(_), Reply::Bulk(item)] => {
                common.mark("popped");
                common.items.seen(item, during, true)
            }
            _ => Err("expected a key and an item".into()),
        },
        (Shared::Shift, Reply::Bulk(item)) => common.items.seen(item, during, false),
        _ => Err(format!("not a reply to {shared:?}")),
    }
}
