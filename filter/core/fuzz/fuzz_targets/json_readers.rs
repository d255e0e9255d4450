//! Bodies as several readers take them: what must hold stands in `portcullis_fuzz::json_readers`.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_fuzz::json_readers::check(data));

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    portcullis_fuzz::replay::main(portcullis_fuzz::json_readers::check)
}
