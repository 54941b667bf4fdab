//! Builds the programs of the fast path, where the feature `ebpf` wants them.

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

/// A link to `stages/translator/bpf`, which cargo's package has as files.
const SOURCES: &str = "bpf";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SOURCES}");
    println!("cargo::rerun-if-env-changed=CLANG");
    if env::var_os("CARGO_FEATURE_EBPF").is_none() {
        return Ok(());
    }
    let target = match env::var("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => "bpfeb",
        _ => "bpfel",
    };
    let object = PathBuf::from(env::var("OUT_DIR")?).join("clat.bpf.o");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let status = Command::new(&clang)
        .args(["-target", target, "-mcpu=v3", "-O2", "-g", "-nostdinc"])
        // The object has the paths of its sources. Without this the folders of the building machine would be in it, and
        // the same sources would not give the same bytes.
        .arg("-ffile-compilation-dir=clatd")
        .args([
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-parentheses",
            "-Wno-unused-variable",
        ])
        .arg("-c")
        .arg(format!("{SOURCES}/clat.c"))
        .arg("-o")
        .arg(&object)
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{clang} could not build {SOURCES}/clat.c: {status}").into()),
        Err(error) => Err(format!(
            "the fast path is built by {clang}, which does not start ({error}): install the package clang, or build \
             without it by --no-default-features --features dbus"
        )
        .into()),
    }
}
