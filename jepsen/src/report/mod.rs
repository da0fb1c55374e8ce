//! The report: one page that stands alone, with the verdict, a picture of the run, and a picture of each violation.
//!
//! Nothing on it comes from elsewhere, and all of it is there without its script, which adds a line under the mouse and
//! zoom. The same run always gives the same page, byte for byte. Reading order: `head`, `tables`, `timeline` (`faults`,
//! `nodes`, `latency`, `rates` are its strips), `counterexample`; below them `operations`, `scale`, `thin`, `svg`, `text`.

mod counterexample;
mod faults;
mod head;
mod latency;
mod nodes;
mod operations;
mod rates;
mod scale;
mod svg;
mod tables;
mod text;
mod thin;
mod timeline;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use crate::directory::{self, Recorded};

pub use head::command_line;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Draws a run's page into its directory, and answers with its path.
///
/// # Errors
/// Names the file that could not be written.
pub fn write(directory: &Path, recorded: &Recorded) -> Result<PathBuf> {
    let path = directory.join(directory::REPORT);
    fs::write(&path, page(recorded)).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The page as text.
#[must_use]
pub fn page(recorded: &Recorded) -> String {
    let run = &recorded.run;
    let operations = operations::join(&recorded.history);
    let title = text::escape(&format!("{} under {} · Ringfence", run.workload, run.nemeses.join(" + ")));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">\
         <title>{title}</title><style>{STYLE}</style></head><body><main>\n{head}\n{violations}\n{findings}\n{timeline}\n{faults}\n\
         {operations}\n{footer}</main>\n<script type=\"application/json\" id=\"facts\">{facts}</script><script>{SCRIPT}</script>\
         </body></html>\n",
        head = head::draw(recorded, &operations),
        violations = tables::violations(&recorded.results.findings, &recorded.faults),
        findings = tables::findings(&recorded.results.findings),
        timeline = timeline_section(recorded, &operations),
        faults = tables::faults(&recorded.faults),
        operations = tables::operations(&operations),
        footer = footer(recorded),
        facts = facts(recorded),
    )
}

fn timeline_section(recorded: &Recorded, operations: &[operations::Operation]) -> String {
    format!(
        "<section class=\"time\"><h2>The run</h2><p class=\"legend\"><span class=\"key dot ok\">ok</span>\
         <span class=\"key dot fail\">fail: surely not done</span><span class=\"key dot info\">info: nobody can tell</span>\
         <span class=\"key leader\">leads</span><span class=\"key follower\">follows</span>\
         <span class=\"key leaderless\">knows no leader</span><span class=\"key read-only\">read-only</span>\
         <span class=\"key down\">down</span><span class=\"key silent\">runs, but is silent</span></p>\
         <div class=\"wide\">{}</div><p class=\"note\" id=\"hint\">Operations stand at the moment of their end, those that \
         never ended at that of their beginning, on top. Of points that would cover one another one is drawn.</p><div id=\"readout\" hidden></div></section>",
        timeline::draw(recorded, operations)
    )
}

fn footer(recorded: &Recorded) -> String {
    let logs: String = (1..=recorded.run.nodes)
        .map(|node| format!(" · <a href=\"nodes/node{node}.log\">nodes/node{node}.log</a>"))
        .collect();
    let files = [directory::RUN, directory::HISTORY, directory::FAULTS, directory::NODES, directory::RESULTS]
        .map(|file| format!("<a href=\"{file}\">{file}</a>"))
        .join(" · ");
    format!(
        "<footer><p>{program}, started {started}. Seed {seed}.</p><p>Beside this page: {files}{logs}</p></footer>",
        program = text::escape(&recorded.run.program),
        started = text::escape(&recorded.run.started),
        seed = recorded.run.seed,
    )
}

/// What the script needs to say what is under the mouse. `<` is written so that no text can end the element.
fn facts(recorded: &Recorded) -> String {
    let faults: Vec<_> = recorded
        .faults
        .iter()
        .map(|fault| {
            let name = format!("{} {}", fault.name, faults::node_names(&fault.nodes));
            json!([fault.start as f64 / 1e9, fault.end as f64 / 1e9, name.trim(), fault.detail])
        })
        .collect();
    json!({ "faults": faults }).to_string().replace('<', "\\u003c")
}
