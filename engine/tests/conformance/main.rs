//! What a driver does, written once and held against both arms: a ring of the running kernel on
//! loopback, and the simulation, once perfect and then with seeded delays, small pieces and short
//! transfers. A difference means that the model is wrong about Linux, or that the engine must not
//! rely on the behaviour.
//!
//! Bodies use the `Driver` only; both ends of a connection are on the same one. Next: `arm` for
//! what hides the difference, `net`, `pool`, `ring` and `files` for the bodies.

mod arm;
mod files;
mod net;
mod pool;
mod ring;

/// Runs each body on every arm.
macro_rules! conformance {
    ($($body:ident),+ $(,)?) => {
        mod on_the_ring {
            $(#[test] fn $body() { $crate::arm::on_the_ring(super::$body); })+
        }
        mod in_a_perfect_world {
            $(#[test] fn $body() { super::$body(&mut $crate::arm::Arm::perfect(1)); })+
        }
        mod in_a_rough_world {
            $(#[test] fn $body() {
                for seed in 0..$crate::arm::ROUGH_SEEDS {
                    $crate::arm::with_seed(seed, super::$body);
                }
            })+
        }
    };
}
pub(crate) use conformance;
