//! What the responses of several shards say together.
//!
//! Invariant: a response of another kind counts for nothing. Next: `multi.rs`, which asks.

use crate::work::Response;

/// The counts of all shards together.
pub(super) fn sum(responses: &[Response]) -> u64 {
    let count = |response: &Response| match response {
        Response::Count(count) => *count,
        _ => 0,
    };
    responses.iter().map(count).sum()
}

/// The keys of all shards.
pub(super) fn keys(responses: Vec<Response>) -> Vec<Box<[u8]>> {
    let mut all = Vec::new();
    for response in responses {
        if let Response::Keys { keys, .. } = response {
            all.extend(keys);
        }
    }
    all
}
