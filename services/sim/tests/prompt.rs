//! Replies and ends come at once, not when something else wakes the shard: a sent reply by itself
//! ends no sleep, so whatever waits for one must keep its shard awake.

use engine::driver::sim::{Faults, RecvState, World};
use engine::rng::Rng;
use sim::command::frame;
use sim::machine::start_cache;
use sim::setup::Setup;

/// Longer than any exchange takes here, and shorter than the shards' own timers.
const PROMPT_NS: u64 = 20_000_000;

/// Sends `bytes` to a shard that sleeps, then perhaps the end; what comes back within
/// [`PROMPT_NS`], and whether the end did.
fn exchange(seed: u64, bytes: &[u8], half_close: bool) -> (Vec<u8>, bool) {
    let setup = (0..).map(Setup::calm).find(|setup| setup.shards == 1);
    let setup = setup.expect("some seed has one shard");
    let world = World::new(seed, Faults::none());
    let (mut machine, started) = start_cache(&world, &setup);
    started.expect("the addresses are free");
    let mut rng = Rng::new(seed);
    let mut client = world.connect_client(setup.addresses.shared);
    let mut received = Vec::new();
    let (mut ready, mut sent, mut ended) = (Vec::new(), 0, false);
    let mut end_ns = world.now().mono_ns + PROMPT_NS;
    while world.now().mono_ns < end_ns && !ended {
        if client.is_connected() && sent == 0 {
            sent = client.send(bytes);
            assert_eq!(sent, bytes.len(), "it fits");
            if half_close {
                client.shutdown_write();
            }
            end_ns = world.now().mono_ns + PROMPT_NS;
        }
        let mut state = client.recv(&mut received);
        while let RecvState::Data(_) = state {
            state = client.recv(&mut received);
        }
        ended = state == RecvState::Eof;
        ready.clear();
        machine.ready(&mut ready).expect("no wake-up is lost");
        match rng.pick(&ready) {
            Some(&index) => machine.step(index, &mut rng),
            None => assert!(world.advance(), "housekeeping goes on"),
        }
    }
    machine.clear();
    (received, ended)
}

/// A full socket is waited for, not tried again and again.
#[test]
fn a_client_that_does_not_read_lets_its_shard_sleep() {
    let setup = (0..).map(Setup::calm).find(|setup| setup.shards == 1);
    let setup = setup.expect("some seed has one shard");
    let world = World::new(1, Faults::none());
    let (mut machine, started) = start_cache(&world, &setup);
    started.expect("the addresses are free");
    let mut rng = Rng::new(1);
    let mut client = world.connect_client(setup.addresses.shared);
    let set = frame(&[b"SET", b"k", &[b'v'; 2_039]]);
    let get = frame(&[b"GET", b"k"]);
    // Replies of 2,048 bytes fill the socket to the last byte, from which on nothing fits.
    let fits = Faults::none().limits.socket_buffer_bytes / 2_048;
    let mut steps = vec![set, get.repeat(fits), get.clone(), get].into_iter();
    let mut ready = Vec::new();
    let mut full_ns = u64::MAX;
    for step in 0..5_000 {
        if step == 2_500 {
            full_ns = world.now().mono_ns;
        }
        if client.is_connected() && step % 500 == 499 {
            // The answer to SET, so that no odd bytes stay.
            if steps.len() == 3 {
                client.recv(&mut Vec::new());
            }
            client.send(&steps.next().unwrap_or_default());
        }
        ready.clear();
        machine.ready(&mut ready).expect("no wake-up is lost");
        match rng.pick(&ready) {
            Some(&index) => machine.step(index, &mut rng),
            None => assert!(world.advance(), "housekeeping goes on"),
        }
    }
    assert!(steps.len() == 0 && world.now().mono_ns > full_ns, "the shard never sleeps");
    machine.clear();
}

#[test]
fn a_client_that_half_closes_with_its_request_is_answered_and_closed() {
    for seed in 0..20 {
        assert_eq!(exchange(seed, &frame(&[b"PING"]), true), (b"+PONG\r\n".to_vec(), true));
    }
}

#[test]
fn quit_ends_the_connection() {
    let bytes = [frame(&[b"PING"]), frame(&[b"QUIT"])].concat();
    for seed in 0..20 {
        assert_eq!(exchange(seed, &bytes, false), (b"+PONG\r\n+OK\r\n".to_vec(), true));
    }
}

#[test]
fn a_pipeline_of_several_batches_is_answered_whole() {
    for seed in 0..20 {
        let (received, ended) = exchange(seed, &frame(&[b"PING"]).repeat(1_000), false);
        assert_eq!((received.len(), ended), (7_000, false), "seed {seed}");
    }
}

#[test]
fn what_does_not_fit_into_the_socket_follows() {
    let value = vec![b'v'; 3_000];
    let set = frame(&[b"SET", b"k", &value]);
    let bytes = [set, frame(&[b"GET", b"k"]).repeat(400)].concat();
    for seed in 0..20 {
        let (received, _) = exchange(seed, &bytes, false);
        assert_eq!(received.len(), 5 + 400 * 3_009, "seed {seed}");
    }
}
