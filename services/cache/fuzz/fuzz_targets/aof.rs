//! The fuzzer's way to `aof` of `services/cache/src/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| cache_fuzz::run("aof", input));
