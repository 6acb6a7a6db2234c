//! Objects of any type.

use super::*;

#[test]
fn an_object_answers_for_its_type() {
    let (hasher, limits) = (Hasher::new(1), Limits::default());
    let cx = Cx { hasher: &hasher, limits: &limits, now_ms: 1 };
    let mut hash = Hash::new();
    hash.set(b"f", b"v", crate::store::Expire::Keep, cx);
    let mut set = Set::new();
    for n in 0..1000u32 {
        set.insert(format!("member {n}").as_bytes(), cx);
    }
    let bytes = (hash.mem_bytes(), set.mem_bytes());
    let (mut hash, mut set) = (Object::from(hash), Object::from(set));
    assert_eq!((hash.kind().name(), hash.encoding(), hash.len()), ("hash", "listpack", 1));
    assert_eq!((set.kind(), set.encoding(), set.len()), (Kind::Set, "hashtable", 1000));
    assert_eq!((hash.mem_bytes(), set.mem_bytes()), bytes);
    assert!(hash.as_hash().is_some() && hash.as_set().is_none() && hash.as_set_mut().is_none());
    assert!(set.as_set_mut().is_some() && set.as_hash().is_none());
    assert!(set.reclaim(999) && set.len() == 1 && !set.reclaim(1));
    assert!(!hash.reclaim(1));
    assert_eq!((hash.mem_bytes(), set.mem_bytes(), set.is_empty()), (0, 0, true));
}
