//! As much of `protoc` as `prost-build` calls, on a compiler written in Rust: it reads .proto files and writes their
//! descriptors to one file. `protoc` beside this file is what calls it.

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use protox::Compiler;

/// What is to be compiled, where to look for it, and where to put it.
#[derive(Debug, Default)]
struct Arguments {
    includes: Vec<PathBuf>,
    files: Vec<PathBuf>,
    output: Option<PathBuf>,
    include_imports: bool,
    include_source_info: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse(env::args().skip(1))?;
    let output = arguments.output.context("there is no -o FILE")?;
    let mut compiler = Compiler::new(&arguments.includes)?;
    compiler.include_imports(arguments.include_imports).include_source_info(arguments.include_source_info);
    compiler.open_files(&arguments.files)?;
    fs::write(&output, compiler.encode_file_descriptor_set())
        .with_context(|| format!("cannot write {}", output.display()))
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments> {
        let mut arguments = Arguments::default();
        while let Some(word) = words.next() {
            let mut operand = || words.next().with_context(|| format!("{word} needs an operand"));
            match word.as_str() {
                "-I" => arguments.includes.push(operand()?.into()),
                "-o" => arguments.output = Some(operand()?.into()),
                "--include_imports" => arguments.include_imports = true,
                "--include_source_info" => arguments.include_source_info = true,
                // A flag that is ignored would give other code than the caller asked for.
                flag if flag.starts_with('-') => bail!("this protoc knows no {flag}"),
                file => arguments.files.push(file.into()),
            }
        }
        Ok(arguments)
    }
}
