//! JSON-RPC bodies: what must hold stands in `portcullis_fuzz::jsonrpc_body`.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_fuzz::jsonrpc_body::check(data));

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    portcullis_fuzz::replay::main(portcullis_fuzz::jsonrpc_body::check)
}
