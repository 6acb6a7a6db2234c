//! Keys with all that belongs to them: for dumps.
//!
//! Invariant: going through the keys is as in `scan.rs`; nothing here counts as a use of a key.
//! Next: `crate::rdb` writes and reads them.

use super::{KeyHash, Policy, Store, access, lookup::Found};
use crate::rdb::{Attributes, Writer};

impl Store {
    /// One step of writing a database: about `count` keys, at least one bucket's; the next cursor,
    /// 0 at the end, and how many keys. A key that is there from the first step to the last
    /// is written once, as it is then.
    pub fn save_step(
        &mut self,
        db: u16,
        cursor: u64,
        count: usize,
        to: &mut Writer,
        now_ms: u64,
    ) -> (u64, u64) {
        let mut keys: Vec<Box<[u8]>> = Vec::new();
        let next = self.scan(db, cursor, count, now_ms, |key, _| keys.push(key.into()));
        let mut saved = 0;
        for key in keys {
            let hash = self.hash(&key);
            let attributes = self.attributes(db, hash, &key, now_ms);
            if let Some((entry, cx)) = self.peek_object(db, hash, &key, now_ms) {
                let attributes = Attributes { expire_at_ms: entry.expire_at_ms, ..attributes };
                to.key(&key, entry.value, attributes, cx);
                saved += 1;
            }
        }
        (next, saved)
    }

    /// How long a key was not used, or how often it was, as far as the policy keeps it.
    fn attributes(&mut self, db: u16, hash: KeyHash, key: &[u8], now_ms: u64) -> Attributes {
        let mut attributes = Attributes::default();
        match self.config.policy {
            Policy::AllKeysLru | Policy::VolatileLru => {
                attributes.idle_s = self.idle_s(db, hash, key, now_ms);
            }
            policy if policy.is_lfu() => attributes.freq = self.freq(db, hash, key, now_ms),
            _ => {}
        }
        attributes
    }

    /// Notes how long a key was not used, or how often it was, as far as the policy asks.
    pub fn set_used(
        &mut self,
        db: u16,
        hash: KeyHash,
        key: &[u8],
        attributes: Attributes,
        now_ms: u64,
    ) {
        let Attributes { idle_s, freq, .. } = attributes;
        let Some(known) = access::known(self.config.policy, idle_s, freq, now_ms) else { return };
        if let Some(Found { at, head, .. }) = self.live(db, hash, key, now_ms) {
            self.heap.set_access(at, head.access, known);
        }
    }
}
