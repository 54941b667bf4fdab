//! The `clatd` program: parses the command line and hands over.

use std::io::{self, Write};
use std::process::ExitCode;

use clatd::cli;
use clatd::commands;
use clatd::report::chain;

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(error) => {
            // Logging is not set up yet, since its level is a part of the command line that could not be parsed.
            let _ = writeln!(io::stderr(), "clatd: {error}");
            return ExitCode::FAILURE;
        }
    };
    match commands::execute(command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "clatd: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}
