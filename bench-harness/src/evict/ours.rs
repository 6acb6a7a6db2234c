//! Our own policies: the store itself, with its limit on memory used as one on keys.
//!
//! A limit of one byte is always exceeded, so that each eviction step evicts as many keys as it is asked to.

use logic::store::{EvictResult, Expire, Form, NewValue, Policy, Store, StoreConfig};

use super::Cache;

/// A store with room for so many keys.
pub struct Ours {
    store: Store,
    room: u64,
}

impl Ours {
    /// An empty one.
    #[must_use]
    pub fn new(policy: Policy, room: usize, seed: u64) -> Self {
        let config = StoreConfig {
            seed,
            databases: 1,
            maxmemory_bytes: 1,
            policy,
            ..StoreConfig::default()
        };
        Self { store: Store::new(config), room: room as u64 }
    }
}

impl Cache for Ours {
    fn access(&mut self, key: u32, now_ms: u64) -> bool {
        let key = key.to_le_bytes();
        let hash = self.store.hash(&key);
        if self.store.get(0, hash, &key, now_ms).is_some() {
            return true;
        }
        while self.store.len(0) >= self.room {
            let result = self.store.evict_step(now_ms, 1, |_, _| {});
            assert!(!matches!(result, EvictResult::Stuck { .. }), "every key may be evicted");
        }
        let value = NewValue::Copy(b"");
        let stored = self.store.set(0, hash, &key, value, Expire::Clear, Form::Plain, now_ms);
        assert!(stored.is_ok(), "so few keys fit");
        false
    }

    fn len(&self) -> usize {
        usize::try_from(self.store.len(0)).unwrap_or(usize::MAX)
    }
}
