//! Expiries of fields: setting, asking, and removing what is due.
//!
//! Next: `due.rs` finds the leaves of a table that have something due.

use super::{
    super::{Cx, table::ReapStep},
    Hash, Repr, is_live, small,
    small::TRIPLE,
};

/// The latest expiry a field can have: Redis' limit, of 48 bits.
pub const MAX_EXPIRE_MS: u64 = (1 << 48) - 2;

/// On what condition an expiry is set. A field without one counts as expiring never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpireIf {
    /// None.
    Always,
    /// The field has no expiry (`NX`).
    None,
    /// It has one (`XX`).
    Some,
    /// The new one is later (`GT`).
    Later,
    /// The new one is earlier (`LT`).
    Earlier,
}

/// What became of a request to let a field expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldExpire {
    /// There is no such field (-2).
    NoField,
    /// The condition does not hold (0).
    Refused,
    /// Done (1).
    Set,
    /// The time has passed, and the field is gone (2).
    Deleted,
}

/// A field's expiry, or what it was before it was taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldTtl {
    /// There is no such field (-2).
    NoField,
    /// It has none (-1).
    NoExpiry,
    /// Unix milliseconds.
    At(u64),
}

impl Hash {
    /// Lets a field expire at a time; at one that is not ahead it goes at once.
    pub fn expire_at(
        &mut self,
        field: &[u8],
        at_ms: u64,
        condition: ExpireIf,
        cx: Cx<'_>,
    ) -> FieldExpire {
        let Some((_, old)) = self.find(field, cx) else {
            return FieldExpire::NoField;
        };
        let at_ms = at_ms.min(MAX_EXPIRE_MS);
        let holds = match condition {
            ExpireIf::Always => true,
            ExpireIf::None => old.is_none(),
            ExpireIf::Some => old.is_some(),
            ExpireIf::Later => old.is_some_and(|old| at_ms > old),
            ExpireIf::Earlier => old.is_none_or(|old| at_ms < old),
        };
        if !holds {
            return FieldExpire::Refused;
        }
        if at_ms <= cx.now_ms {
            self.remove(field, cx);
            return FieldExpire::Deleted;
        }
        self.make_timed();
        self.put_expire(field, Some(at_ms), cx);
        FieldExpire::Set
    }

    /// A field's expiry.
    #[must_use]
    pub fn ttl(&self, field: &[u8], cx: Cx<'_>) -> FieldTtl {
        match self.find(field, cx) {
            None => FieldTtl::NoField,
            Some((_, None)) => FieldTtl::NoExpiry,
            Some((_, Some(at))) => FieldTtl::At(at),
        }
    }

    /// Takes a field's expiry away; the one it had.
    pub fn persist(&mut self, field: &[u8], cx: Cx<'_>) -> FieldTtl {
        let old = self.ttl(field, cx);
        if let FieldTtl::At(_) = old {
            self.put_expire(field, None, cx);
        }
        old
    }

    fn put_expire(&mut self, field: &[u8], expire: Option<u64>, cx: Cx<'_>) {
        match &mut self.repr {
            Repr::Packed(_) => {}
            Repr::Timed(timed) => {
                if let Some(slot) = small::find(&timed.packed, TRIPLE, field) {
                    small::set_expire(&mut timed.packed, slot, expire);
                    timed.due_ms = timed.due_ms.min(expire.unwrap_or(u64::MAX));
                }
            }
            Repr::Table(table) => {
                table.update(cx.hasher.hash(field), field, |item| item.set_expire(expire));
            }
        }
    }

    /// When something may be due next; it may be too early, never too late. `None` when no field expires.
    #[inline]
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        match &self.repr {
            Repr::Packed(_) => None,
            Repr::Timed(timed) => Some(timed.due_ms).filter(|&at| at != u64::MAX),
            Repr::Table(table) => table.next_due_ms(),
        }
    }

    /// Removes fields that are due, looking at no more than about `budget` fields (at least one leaf's of a table, and
    /// all of a small hash); each is given to `on_expired`.
    pub fn reap(
        &mut self,
        now_ms: u64,
        budget: usize,
        mut on_expired: impl FnMut(&[u8]),
    ) -> ReapStep {
        match &mut self.repr {
            Repr::Timed(timed) if timed.due_ms < now_ms => {
                let (expired, earliest) = small::reap(&mut timed.packed, now_ms, on_expired);
                timed.due_ms = earliest;
                ReapStep { expired, more: false }
            }
            Repr::Packed(_) | Repr::Timed(_) => ReapStep::default(),
            Repr::Table(table) => table.reap(now_ms, budget, |item| on_expired(item.field())),
        }
    }

    /// How many fields are not due. Work only in proportion to what may be due.
    #[must_use]
    pub fn live_len(&self, now_ms: u64) -> usize {
        match &self.repr {
            Repr::Timed(timed) if timed.due_ms < now_ms => {
                let triples = small::Triples::new(&timed.packed, TRIPLE);
                triples.filter(|&(_, _, expire)| is_live(expire, now_ms)).count()
            }
            Repr::Packed(_) | Repr::Timed(_) => self.len(),
            Repr::Table(table) => table.live_len(now_ms),
        }
    }
}
