//! Text of other parties on somebody's terminal, which it must not control.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use serde::Serialize;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Columns for people.
    Table,
    /// One JSON object per line.
    Json,
}

/// At most `width` characters, none of which moves the cursor, starts an escape sequence, or
/// reorders what stands around it.
pub(super) fn printable(text: &str, width: usize) -> String {
    let mut shown = String::new();
    for (i, c) in text.chars().enumerate() {
        if i + 1 >= width {
            shown.push('…');
            break;
        }
        shown.push(match c {
            '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => ' ',
            c if is_unsafe(c) => '\u{fffd}',
            c => c,
        });
    }
    shown
}

/// Control characters (C1 has escape sequences of its own), and what reverses or hides text.
pub(super) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                       | '\u{061c}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// One line of JSON that is harmless on a terminal.
pub(super) fn json_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    writeln!(out, "{}", escaped(&serde_json::to_string(value)?))
}

/// JSON leaves C1 and the like as they are. They occur within strings only, where an escape means
/// the same.
fn escaped(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    for c in line.chars() {
        if is_unsafe(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _infallible = write!(text, "\\u{unit:04x}");
            }
        } else {
            text.push(c);
        }
    }
    text
}

/// Whether whoever reads has had enough (`| head`).
pub(super) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
