//! Keys that are due on a replica: there until their master says otherwise, and not shown to readers.

use super::*;

#[test]
fn a_due_key_stays_for_the_master_and_is_hidden_from_readers() {
    let mut store = store(Policy::NoEviction, 0);
    store.set_due_keys(DueKeys::Hidden);
    store.put(b"counter", b"5", Expire::At(NOW + 10), NOW);
    let hash = store.hash(b"counter");
    let later = NOW + 1_000;
    assert_eq!(store.text_at(b"counter", later), None);
    assert!(store.view(0, hash, b"counter", later).is_none());
    assert_eq!(store.expire_step(later, 1_000, |_, _| ()).expired, 0, "the pass leaves it");
    assert_eq!(store.len(0), 1);
    store.set_due_keys(DueKeys::Shown);
    assert_eq!(store.text_at(b"counter", later).as_deref(), Some(&b"5"[..]));
    assert!(store.view(0, hash, b"counter", later).is_some());
    store.check();
    // As a master, it lets it go.
    store.set_due_keys(DueKeys::Removed);
    assert_eq!(store.expire_step(later, 1_000, |_, _| ()).expired, 1);
    assert_eq!(store.len(0), 0);
    store.check();
}

#[test]
fn what_is_hidden_is_not_twice_there() {
    let mut store = store(Policy::NoEviction, 0);
    store.set_due_keys(DueKeys::Hidden);
    store.put(b"k", b"old", Expire::At(NOW + 10), NOW);
    assert!(store.put(b"k", b"new", Expire::Clear, NOW + 20), "for a reader it is new");
    assert_eq!(store.len(0), 1);
    assert_eq!(store.text_at(b"k", NOW + 20).as_deref(), Some(&b"new"[..]));
    store.check();
}

#[test]
fn items_go_when_they_are_due() {
    let mut store = store(Policy::NoEviction, 0);
    store.set_due_keys(DueKeys::Hidden);
    let hash = store.hash(b"item");
    let expire = Expire::At(NOW + 10);
    store.set_item(hash, b"item", NewValue::Copy(b"v"), expire, Marks::default(), NOW).unwrap();
    assert_eq!(store.expire_step(NOW + 2_000, 1_000, |_, _| ()).expired, 1);
    store.check();
}
