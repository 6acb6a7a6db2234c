//! Mailboxes: what connections are sent that they did not ask for, until it is written to their output.
//!
//! The host empties them once per turn, and a session its own before it runs a command, so that a message published
//! before a command ran is read before that command's reply. Invariants: a box with mail is on the list of due ones;
//! a connection that does not read is closed at its [`Limit`].

use std::collections::{BTreeSet, VecDeque};

use view::Output;
use wire::resp::Version;

use super::{Letter, Parcel};

/// Room for parcels that an empty box keeps.
const KEPT_PARCELS: usize = 4;

/// How much output may wait for a connection, as `client-output-buffer-limit` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limit {
    /// At this many bytes it is closed; 0 for no limit.
    pub(crate) hard_bytes: u64,
    /// Above this many, for longer than `soft_s`, it is closed; 0 for no limit.
    pub(crate) soft_bytes: u64,
    pub(crate) soft_s: u64,
}

#[derive(Debug, Default)]
struct Mailbox {
    version: Version,
    due: bool,
    /// Since when its connection has been above the soft limit.
    soft_since_ms: Option<u64>,
    bytes: usize,
    parcels: Vec<Parcel>,
}

/// The mailboxes of a shard's connections, by their places.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    boxes: Vec<Option<Box<Mailbox>>>,
    due: VecDeque<u32>,
    /// Boxes whose connections are above the soft limit; some may not be any more.
    lagging: BTreeSet<u32>,
}

impl Mail {
    fn get_mut(&mut self, slot: u32) -> Option<&mut Mailbox> {
        self.boxes.get_mut(slot as usize)?.as_deref_mut()
    }

    /// Gives the connection at `slot` a mailbox, if it has none, and sets what it speaks.
    pub(crate) fn open(&mut self, slot: u32, version: Version) {
        let index = slot as usize;
        if slot == u32::MAX {
            return;
        }
        if index >= self.boxes.len() {
            self.boxes.resize_with(index + 1, || None);
        }
        if let Some(place) = self.boxes.get_mut(index) {
            place.get_or_insert_default().version = version;
        }
    }

    /// Sets what the connection speaks, if it has a mailbox.
    pub(crate) fn set_version(&mut self, slot: u32, version: Version) {
        if let Some(mailbox) = self.get_mut(slot) {
            mailbox.version = version;
        }
    }

    /// Forgets a connection's mailbox.
    pub(crate) fn close(&mut self, slot: u32) {
        if let Some(place) = self.boxes.get_mut(slot as usize) {
            *place = None;
        }
    }

    /// Puts a message to many into one box.
    pub(crate) fn put(&mut self, slot: u32, letter: &mut Letter<'_>) {
        if let Some(version) = self.get_mut(slot).map(|mailbox| mailbox.version) {
            self.put_parcel(slot, letter.parcel(version).clone());
        }
    }

    /// Puts a message into one box.
    pub(crate) fn put_parcel(&mut self, slot: u32, parcel: Parcel) {
        let Some(mailbox) = self.get_mut(slot) else { return };
        mailbox.bytes += parcel.len();
        mailbox.parcels.push(parcel);
        if !std::mem::replace(&mut mailbox.due, true) {
            self.due.push_back(slot);
        }
    }

    /// Whether any box has mail.
    pub(crate) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The next connection that has mail, or had some that it took itself.
    pub(crate) fn next_due(&mut self) -> Option<u32> {
        let slot = self.due.pop_front()?;
        if let Some(mailbox) = self.get_mut(slot) {
            mailbox.due = false;
        }
        Some(slot)
    }

    /// Moves a box's mail to its connection's output.
    pub(crate) fn take(&mut self, slot: u32, out: &mut Output) {
        let Some(mailbox) = self.get_mut(slot) else { return };
        for parcel in mailbox.parcels.drain(..) {
            parcel.write(out);
        }
        mailbox.bytes = 0;
        if mailbox.parcels.capacity() > KEPT_PARCELS {
            mailbox.parcels = Vec::new();
        }
    }

    /// Throws a box's mail away.
    pub(crate) fn discard(&mut self, slot: u32) {
        if let Some(mailbox) = self.get_mut(slot) {
            mailbox.parcels = Vec::new();
            mailbox.bytes = 0;
        }
    }

    /// Whether a connection with so much output is to be closed.
    pub(crate) fn is_over(&mut self, slot: u32, bytes: usize, limit: Limit, now_ms: u64) -> bool {
        let bytes = bytes as u64;
        let Some(mailbox) = self.get_mut(slot) else { return false };
        if limit.hard_bytes > 0 && bytes >= limit.hard_bytes {
            return true;
        }
        if limit.soft_bytes == 0 || bytes < limit.soft_bytes {
            mailbox.soft_since_ms = None;
            return false;
        }
        match mailbox.soft_since_ms {
            Some(since) => now_ms.saturating_sub(since) > limit.soft_s.saturating_mul(1000),
            None => {
                mailbox.soft_since_ms = Some(now_ms);
                self.lagging.insert(slot);
                false
            }
        }
    }

    /// Puts the boxes above the soft limit on the list again, so that time alone closes them.
    pub(crate) fn look_again(&mut self) {
        for slot in std::mem::take(&mut self.lagging) {
            let Some(mailbox) = self.get_mut(slot) else { continue };
            if mailbox.soft_since_ms.is_none() {
                continue;
            }
            let listed = std::mem::replace(&mut mailbox.due, true);
            self.lagging.insert(slot);
            if !listed {
                self.due.push_back(slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pubsub::Payload;

    #[test]
    fn mail_is_due_once_and_comes_in_order() {
        let mut mail = Mail::default();
        mail.open(3, Version::Resp3);
        mail.put_parcel(2, Parcel::whole(b"nobody".to_vec()));
        for text in ["a", "b"] {
            let payload = Payload::Copy(text.as_bytes());
            mail.put(3, &mut Letter::message("message", None, b"c", payload));
        }
        assert_eq!(mail.next_due(), Some(3));
        assert_eq!(mail.next_due(), None);
        let mut out = Output::default();
        mail.take(3, &mut out);
        let text = String::from_utf8_lossy(&out.to_vec()).into_owned();
        let one = |text| format!(">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\n{text}\r\n");
        assert_eq!(text, one("a") + &one("b"));
        mail.close(3);
        mail.put_parcel(3, Parcel::whole(b"gone".to_vec()));
        assert!(!mail.is_due());
    }

    #[test]
    fn limits_close_at_the_bound_and_not_before() {
        let mut mail = Mail::default();
        mail.open(0, Version::Resp2);
        let limit = Limit { hard_bytes: 100, soft_bytes: 10, soft_s: 2 };
        assert!(!mail.is_over(0, 9, limit, 0));
        assert!(!mail.is_over(0, 99, limit, 1000));
        assert!(!mail.is_over(0, 10, limit, 3000), "not for longer than two seconds");
        mail.look_again();
        assert_eq!(mail.next_due(), Some(0));
        assert!(mail.is_over(0, 10, limit, 3001));
        assert!(!mail.is_over(0, 9, limit, 3002));
        assert!(!mail.is_over(0, 10, limit, 9000), "the time starts anew");
        assert!(mail.is_over(0, 100, limit, 9000));
        assert!(!mail.is_over(0, 1 << 40, Limit::default(), 9000), "no limit");
    }
}
