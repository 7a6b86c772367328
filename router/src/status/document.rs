//! What is shown, once: as columns for people and as JSON for programs, of the same values. Not responsible for what
//! the values are.
//!
//! In JSON a document is an object: a section of facts is an object in it, a table a list of objects, and a value is
//! `null` if it is not known. Names end with the unit of what they stand for (`_bytes`, `_bytes_per_s`, `_us`, `_s`);
//! scores are numbers from 0 to 1.

use core::fmt::{self, Write};

/// What a number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Words.
    Text,
    /// How many.
    Count,
    /// Bytes.
    Bytes,
    /// Bytes per second.
    Rate,
    /// Microseconds.
    Micros,
    /// Seconds.
    Seconds,
    /// Thousandths of one.
    Score,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Nobody knows.
    Unknown,
    /// Words.
    Text(String),
    /// A number in the unit of its column.
    Number(u64),
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::Text(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.into())
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Cell::Number(number)
    }
}

impl From<u32> for Cell {
    fn from(number: u32) -> Self {
        Cell::Number(number.into())
    }
}

impl From<usize> for Cell {
    fn from(number: usize) -> Self {
        Cell::Number(number as u64)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Cell::Unknown, Into::into)
    }
}

/// A named value, or the head of a column: lower-case words with `_` between them.
pub type Name = (&'static str, Unit);

/// Part of a document.
#[derive(Clone, Debug)]
pub enum Section {
    /// Values, one a line.
    Facts(&'static str, Vec<(Name, Cell)>),
    /// A table; every row has a cell for each column.
    Table(&'static str, Vec<Name>, Vec<Vec<Cell>>),
}

/// All that one command shows.
#[derive(Clone, Debug, Default)]
pub struct Document(pub Vec<Section>);

impl Document {
    /// For people: aligned columns, units with each number.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for section in &self.0 {
            if !out.is_empty() {
                out.push('\n');
            }
            match section {
                Section::Facts(_, facts) => {
                    let lines = facts
                        .iter()
                        .map(|((name, unit), cell)| vec![(words(name), false), (human(*unit, cell), false)]);
                    align(&mut out, &lines.collect::<Vec<_>>());
                }
                Section::Table(name, _, rows) if rows.is_empty() => {
                    out.push_str(&words(name));
                    out.push_str(": none\n");
                }
                Section::Table(name, columns, rows) => {
                    let is_number = |unit: &Unit| *unit != Unit::Text;
                    out.push_str(&words(name));
                    out.push_str(":\n");
                    let head = columns.iter().map(|(name, unit)| (words(name), is_number(unit))).collect();
                    let rows = rows.iter().map(|row| {
                        let cells = columns.iter().zip(row);
                        cells.map(|((_, unit), cell)| (human(*unit, cell), is_number(unit))).collect()
                    });
                    align(&mut out, &core::iter::once(head).chain(rows).collect::<Vec<_>>());
                }
            }
        }
        out
    }

    /// For programs.
    pub fn json(&self) -> String {
        let mut out = String::from("{");
        for (i, section) in self.0.iter().enumerate() {
            out.push_str(if i > 0 { ",\n" } else { "\n" });
            match section {
                Section::Facts(name, facts) => {
                    key(&mut out, name, Unit::Text);
                    object(&mut out, facts.iter().map(|(name, cell)| (*name, cell)));
                }
                Section::Table(name, columns, rows) => {
                    key(&mut out, name, Unit::Text);
                    out.push('[');
                    for (i, row) in rows.iter().enumerate() {
                        out.push_str(if i > 0 { ",\n  " } else { "\n  " });
                        object(&mut out, columns.iter().copied().zip(row));
                    }
                    out.push(']');
                }
            }
        }
        out.push_str("\n}\n");
        out
    }
}

fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// Pads the cells (right-aligned ones to the left) so that they stand below each other.
fn align(out: &mut String, lines: &[Vec<(String, bool)>]) {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(|(text, _)| text.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for line in lines {
        let mut text = String::new();
        for ((cell, is_right), width) in line.iter().zip(&widths) {
            // Writing to a string can't fail.
            let _ =
                if *is_right { write!(text, "  {cell:>width$}") } else { write!(text, "  {cell:<width$}") };
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
}

fn human(unit: Unit, cell: &Cell) -> String {
    let number = match cell {
        Cell::Unknown => return "-".into(),
        Cell::Text(text) => return text.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
        Cell::Number(number) => *number,
    };
    match unit {
        Unit::Text | Unit::Count => number.to_string(),
        Unit::Bytes => scaled(number, 1024, &["B", "KiB", "MiB", "GiB", "TiB"]),
        Unit::Rate => scaled(number.saturating_mul(8), 1000, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s"]),
        Unit::Micros => scaled(number, 1000, &["us", "ms", "s"]),
        Unit::Seconds => span(number),
        Unit::Score => score(number),
    }
}

/// Three digits and the largest unit that fits.
fn scaled(number: u64, step: u64, units: &[&str]) -> String {
    let (mut whole, mut rest) = (number, 0);
    let mut units = units.iter();
    let mut unit = units.next().unwrap_or(&"");
    for next in units {
        if whole < step {
            break;
        }
        rest = whole % step * 10 / step;
        whole /= step;
        unit = next;
    }
    if whole < 100 && number >= step { format!("{whole}.{rest} {unit}") } else { format!("{whole} {unit}") }
}

/// The two largest units.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Thousandths as a decimal fraction.
pub(super) fn score(thousandths: u64) -> String {
    format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
}

fn object<'a>(out: &mut String, members: impl Iterator<Item = (Name, &'a Cell)>) {
    out.push('{');
    for (i, ((name, unit), cell)) in members.enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        key(out, name, unit);
        match (cell, unit) {
            (Cell::Unknown, _) => out.push_str("null"),
            (Cell::Text(text), _) => string(out, text),
            (Cell::Number(number), Unit::Score) => out.push_str(&score(*number)),
            (Cell::Number(number), _) => out.push_str(&number.to_string()),
        }
    }
    out.push('}');
}

fn key(out: &mut String, name: &str, unit: Unit) {
    let unit = match unit {
        Unit::Text | Unit::Count | Unit::Score => "",
        Unit::Bytes if name.ends_with("bytes") => "",
        Unit::Bytes => "_bytes",
        Unit::Rate => "_bytes_per_s",
        Unit::Micros => "_us",
        Unit::Seconds => "_s",
    };
    let _ = write!(out, "\"{name}{unit}\": "); // a string takes everything
}

/// A JSON string (RFC 8259 section 7).
fn string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => escape(out, c),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn escape(out: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        let _ = write!(out, "\\u{unit:04x}");
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Document {
        let columns = vec![("peer", Unit::Text), ("rate", Unit::Rate), ("trust", Unit::Score)];
        let rows = vec![
            vec!["B".into(), 1_250_000u32.into(), 987u32.into()],
            vec!["a \"b\"\n\\".into(), Cell::Unknown, 1000u32.into()],
        ];
        Document(vec![
            Section::Facts("router", vec![(("own_link", Unit::Rate), 125u32.into())]),
            Section::Table("peers", columns, rows),
            Section::Table("lanes", vec![("lane", Unit::Text)], vec![]),
        ])
    }

    #[test]
    fn people_see_columns_and_units() {
        let expected = "  own link  1.0 kbit/s\n\npeers:\n  peer            rate  trust\n  B        10.0 Mbit/s  0.987\n  \
                        a \"b\"?\\            -  1.000\n\nlanes: none\n";
        assert_eq!(document().text(), expected);
    }

    #[test]
    fn programs_see_the_same_as_json() {
        let expected = "{\n\"router\": {\"own_link_bytes_per_s\": 125},\n\"peers\": [\n  \
                        {\"peer\": \"B\", \"rate_bytes_per_s\": 1250000, \"trust\": 0.987},\n  \
                        {\"peer\": \"a \\\"b\\\"\\u000a\\\\\", \"rate_bytes_per_s\": null, \"trust\": 1.000}],\n\
                        \"lanes\": []\n}\n";
        assert_eq!(document().json(), expected);
    }

    #[test]
    fn numbers_are_short() {
        for (unit, number, expected) in [
            (Unit::Bytes, 0, "0 B"),
            (Unit::Bytes, 1023, "1023 B"),
            (Unit::Bytes, 1536, "1.5 KiB"),
            (Unit::Bytes, u64::MAX, "16777215 TiB"),
            (Unit::Micros, 999, "999 us"),
            (Unit::Micros, 40_123, "40.1 ms"),
            (Unit::Rate, 12_500_000, "100 Mbit/s"),
            (Unit::Seconds, 59, "59 s"),
            (Unit::Seconds, 43_140, "11 h 59 min"),
            (Unit::Seconds, 90_000, "1 d 1 h"),
            (Unit::Count, 12_345, "12345"),
        ] {
            assert_eq!(human(unit, &Cell::Number(number)), expected);
        }
    }
}
