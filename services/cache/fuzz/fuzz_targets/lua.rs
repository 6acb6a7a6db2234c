//! The fuzzer's way to `lua` of `services/cache/src/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| cache_fuzz::run("lua", input));
