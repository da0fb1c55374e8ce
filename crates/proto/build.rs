//! Compiles every `.proto` file under `proto/` at the root of the workspace, with a compiler written in Rust, so that
//! a build needs no installed `protoc`.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());

    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();
    let descriptors = protox::compile(&files, [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // Bytes fields share the memory of the message that they came in: keys and values are never copied on decoding.
    // The services' code is left out where only messages are needed: the state machine knows no gRPC.
    const SERVICES: &str = "#[cfg(feature = \"grpc\")]";
    tonic_prost_build::configure()
        .bytes(".")
        // Calls that change something are searched for extensions that this version would overlook.
        .codec_path("crate::codec::ScanningCodec")
        .client_mod_attribute(".", SERVICES)
        .server_mod_attribute(".", SERVICES)
        .compile_fds(descriptors)?;
    Ok(())
}

/// Adds the `.proto` files below `folder`.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
