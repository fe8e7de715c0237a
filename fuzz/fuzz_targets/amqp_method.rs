#![no_main]

#[path = "amqp.rs"]
#[allow(dead_code)]
mod amqp;

libfuzzer_sys::fuzz_target!(|input: &[u8]| amqp::method(input));
