//! What a fuzzer does at length, in little, where none is at hand: every target answers its corpus and a fixed set of
//! variations of it. `RINGFENCE_WRITE_SEEDS=1 cargo test` writes the seeds anew.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use ringfence_fuzz::mutate::Mutator;
use ringfence_fuzz::{TARGETS, Target, seeds};

/// Variations of each input.
const VARIATIONS: u64 = 4_000;

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// The committed inputs of a target, in the order of their names; what a fuzzer has left beside them is not looked at.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder(target)).expect("every target has a corpus");
    let names = entries.map(|entry| entry.expect("the folder can be read").file_name().into_string());
    let mut names: Vec<String> = names.map(|name| name.expect("seeds have plain names")).collect();
    names.retain(|name| name.starts_with("seed-") || name.starts_with("found-"));
    names.sort();
    let read = |name: &String| fs::read(folder(target).join(name)).expect("a listed file can be read");
    names.iter().map(|name| (name.clone(), read(name))).collect()
}

#[test]
fn the_seeds_are_what_the_product_writes() {
    for (name, _) in TARGETS {
        let made = seeds::of(name);
        if std::env::var_os("RINGFENCE_WRITE_SEEDS").is_some() {
            fs::create_dir_all(folder(name)).expect("the folder of the corpus can be written");
            for (number, seed) in made.iter().enumerate() {
                fs::write(folder(name).join(format!("seed-{number}")), seed).expect("a seed can be written");
            }
        }
        let kept = corpus(name).into_iter().filter(|(file, _)| file.starts_with("seed-"));
        let kept: Vec<Vec<u8>> = kept.map(|(_, seed)| seed).collect();
        assert_eq!(kept, made, "the seeds of {name} are of another version; write them anew");
    }
}

#[test]
fn every_target_answers_its_corpus_and_variations_of_it() {
    for (name, target) in TARGETS {
        let inputs = corpus(name);
        assert!(!inputs.is_empty(), "{name} has no corpus");
        let mut mutator = Mutator::new(0);
        for (at, (file, input)) in inputs.iter().enumerate() {
            run(target, name, file, input);
            let (_, other) = &inputs[(at + 1) % inputs.len()];
            let mut varied = input.clone();
            for variation in 0..VARIATIONS {
                // Now and then from the start again, so that not everything ends as noise.
                let from = if variation % 8 == 0 { input } else { &varied };
                varied = mutator.mutate(from, other);
                run(target, name, file, &varied);
            }
        }
    }
}

fn run(target: Target, name: &str, file: &str, input: &[u8]) {
    if panic::catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        panic!("{name} fails on a variation of {file}; as hexadecimal digits it is\n{}", hexadecimal(input));
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
