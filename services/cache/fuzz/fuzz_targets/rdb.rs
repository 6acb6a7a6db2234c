//! The fuzzer's way to `rdb` of `services/cache/src/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| cache_fuzz::run("rdb", input));
