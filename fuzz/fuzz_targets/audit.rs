#![no_main]

#[allow(dead_code, reason = "each binary runs one of them")]
#[path = "../../proto/tests/all/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::audit(data));
