//! Single faults, one after the other, and one moment after the other.

use cache::serve::Cache;
use engine::driver::sim::{Faults, World};
use engine::rng::Rng;
use sim::command::frame;
use sim::draw::key_name;
use sim::machine::{Machine, start_cache};
use sim::setup::Setup;
use sim::sweep::sweep;

#[test]
fn every_single_fault_is_survived() {
    let (mut completions, mut calls) = (0, 0);
    for seed in 0..24 {
        match sweep(seed, 1) {
            Ok(done) => {
                assert!(done.completions > 10, "seed {seed}: {done:?}");
                completions += done.completions;
                calls += done.calls;
            }
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{completions} completions and {calls} calls failed, one per run");
    assert!(calls >= 48, "listeners fail too: {calls}");
}

/// Steps shards, and time, until nothing has been under way for a while.
fn settle(world: &World, machine: &mut Machine<Cache>, rng: &mut Rng) {
    let end_ns = world.now().mono_ns + 1_000_000_000;
    let mut ready = Vec::new();
    while world.now().mono_ns < end_ns {
        ready.clear();
        machine.ready(&mut ready).expect("no wake-up is lost");
        match rng.pick(&ready) {
            Some(&index) => machine.step(index, rng),
            None => assert!(world.advance(), "housekeeping goes on"),
        }
    }
}

/// A client that goes away in the middle of a command over several shards must not leave the
/// command's locks behind, at whatever moment it goes.
#[test]
fn a_client_that_leaves_during_a_command_over_shards_leaves_no_lock() {
    let setup = (0..).map(Setup::calm).find(|setup| setup.shards == 3);
    let setup = setup.expect("some seed has three shards");
    let keys: Vec<Vec<u8>> = (0..12).map(key_name).collect();
    let mut words: Vec<&[u8]> = vec![b"MSETNX"];
    for key in &keys {
        words.extend([&key[..], b"value"]);
    }
    for steps in 0..60 {
        let world = World::new(steps, Faults::none());
        let (mut machine, started) = start_cache(&world, &setup);
        started.expect("the addresses are free");
        let mut rng = Rng::new(steps);
        let mut client = world.connect_client(setup.addresses.shared);
        settle(&world, &mut machine, &mut rng);
        assert_eq!(client.send(&frame(&words)), frame(&words).len());
        let mut ready = Vec::new();
        for _ in 0..steps {
            ready.clear();
            machine.ready(&mut ready).expect("no wake-up is lost");
            match rng.pick(&ready) {
                Some(&index) => machine.step(index, &mut rng),
                None => assert!(world.advance(), "housekeeping goes on"),
            }
        }
        client.reset();
        settle(&world, &mut machine, &mut rng);
        for node in &machine.nodes {
            assert_eq!(node.server.live(), 0, "after {steps} steps");
            let nothing = cache::work::Batch::default();
            let answer = node.server.shard().borrow_mut().execute_batch(nothing, world.now());
            assert!(answer.is_some(), "{node:?} has keys locked after {steps} steps");
        }
        machine.clear();
    }
}
