//! How answers are printed: tables for people, JSON and plain lines for programs.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::exit::Failure;

/// The form of what a command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// One JSON object.
    Json,
    /// The bare facts, one a line: of `get` the values alone.
    Plain,
}

/// Prints one JSON object on a line of its own.
pub(crate) fn print_json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let mut text = serde_json::to_string(value).map_err(io::Error::from)?;
    text.push('\n');
    print(text.as_bytes())
}

/// Prints a line.
pub(crate) fn print_line(line: &str) -> Result<(), Failure> {
    print(format!("{line}\n").as_bytes())
}

/// Prints bytes as they are.
pub(crate) fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()?;
    Ok(())
}

/// Prints a table with a line of headings.
pub(crate) fn print_table<const COLUMNS: usize>(
    headings: [&str; COLUMNS],
    rows: &[[String; COLUMNS]],
) -> Result<(), Failure> {
    print(table(headings, rows).as_bytes())
}

/// A table: columns as wide as their widest cell, two spaces between them, no spaces at the ends of lines.
pub(crate) fn table<const COLUMNS: usize>(headings: [&str; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([headings[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let mut text = String::new();
    let mut push_row = |cells: &[&str]| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    push_row(&headings);
    for row in rows {
        push_row(&row.each_ref().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["node1".to_owned(), "é".to_owned()], ["n2".to_owned(), String::new()]];
        assert_eq!(table(["NAME", "X"], &rows), "NAME   X\nnode1  é\nn2\n");
    }
}
