//! A run's directory, written and read back. [`crate::record`] says what stands in which file.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use ringfence_checker::{History, history};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::record::{Fault, Results, Run, Sample};

/// What was asked for.
pub const RUN: &str = "run.json";
/// What the clients saw.
pub const HISTORY: &str = "history.jsonl";
/// The faults.
pub const FAULTS: &str = "faults.jsonl";
/// What the nodes said of themselves.
pub const NODES: &str = "nodes.jsonl";
/// What came of it.
pub const RESULTS: &str = "results.json";
/// The page.
pub const REPORT: &str = "report.html";

/// A run as its directory tells it.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// What was asked for.
    pub run: Run,
    /// What the clients saw.
    pub history: History,
    /// The faults, by their beginnings.
    pub faults: Vec<Fault>,
    /// What the nodes said of themselves, in the order of time.
    pub samples: Vec<Sample>,
    /// What the checkers said.
    pub results: Results,
}

impl Recorded {
    /// Reads a run's directory.
    ///
    /// # Errors
    /// Names the file that is missing or is not what its name says.
    pub fn read(directory: &Path) -> Result<Recorded> {
        let mut faults: Vec<Fault> = read_lines(&directory.join(FAULTS))?;
        let mut samples: Vec<Sample> = read_lines(&directory.join(NODES))?;
        faults.sort_by_key(|fault| (fault.start, fault.end));
        samples.sort_by_key(|sample| sample.time);
        Ok(Recorded {
            run: read_json(&directory.join(RUN))?,
            history: read_history(&directory.join(HISTORY))?,
            faults,
            samples,
            results: read_json(&directory.join(RESULTS))?,
        })
    }

    /// Writes it all, the report excepted.
    ///
    /// # Errors
    /// Names the file that could not be written.
    pub fn write(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        write_json(&directory.join(RUN), &self.run)?;
        write_history(&directory.join(HISTORY), &self.history)?;
        write_lines(&directory.join(FAULTS), &self.faults)?;
        write_lines(&directory.join(NODES), &self.samples)?;
        write_json(&directory.join(RESULTS), &self.results)
    }
}

/// Reads a history from its file.
///
/// # Errors
/// Names the file, and the line that is none.
pub fn read_history(path: &Path) -> Result<History> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    history::read(BufReader::new(file)).with_context(|| format!("{} is not a history", path.display()))
}

/// Writes one value.
///
/// # Errors
/// Names the file that could not be written.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    write(path, |file| {
        serde_json::to_writer_pretty(&mut *file, value)?;
        file.write_all(b"\n")
    })
}

/// Writes a value a line.
///
/// # Errors
/// Names the file that could not be written.
pub fn write_lines<T: Serialize>(path: &Path, values: &[T]) -> Result<()> {
    write(path, |file| {
        for value in values {
            serde_json::to_writer(&mut *file, value)?;
            file.write_all(b"\n")?;
        }
        Ok(())
    })
}

fn write_history(path: &Path, events: &History) -> Result<()> {
    write(path, |file| events.iter().try_for_each(|event| history::write(file, event)))
}

fn write(path: &Path, body: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    let written = File::create(path).and_then(|file| {
        let mut file = BufWriter::new(file);
        body(&mut file)?;
        file.flush()
    });
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
}

fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut values = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.with_context(|| format!("cannot read {}", path.display()))?;
        let value = serde_json::from_str(&line)
            .with_context(|| format!("{}, line {}, is damaged", path.display(), number + 1))?;
        values.push(value);
    }
    Ok(values)
}
