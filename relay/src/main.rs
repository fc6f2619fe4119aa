//! `belay-relay`. See the library for what it does.

use std::process::ExitCode;

fn main() -> ExitCode {
    belay_relay::program::main()
}
