#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dflockd_client::fuzzing::url(data));
