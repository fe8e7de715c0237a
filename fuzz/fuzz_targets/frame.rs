#![no_main]

#[path = "shared.rs"]
#[allow(dead_code)]
mod shared;

libfuzzer_sys::fuzz_target!(|input: &[u8]| shared::frame(input));
