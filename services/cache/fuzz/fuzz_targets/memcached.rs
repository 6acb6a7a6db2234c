//! The fuzzer's way to `memcached` of `services/cache/src/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| cache_fuzz::run("memcached", input));
