//! The syntax of OpenWrt's configuration files: sections of options, as `uci` reads and writes them in
//! /etc/config. Not responsible for what the options mean; that is `config`.
//!
//! ```text
//! config TYPE 'name'        # the name may be missing
//!         option key 'value'
//!         list key "value"
//! ```

use core::fmt;

/// One statement of a file, without its line number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// `package NAME`: which file this is; says nothing to us.
    Package(String),
    /// `config TYPE [NAME]`: starts a section.
    Section {
        /// The section's type.
        kind: String,
        /// Its name, if it has one.
        name: Option<String>,
    },
    /// `option KEY VALUE`: the one value of an option.
    Option {
        /// The option's name.
        key: String,
        /// Its value, unquoted.
        value: String,
    },
    /// `list KEY VALUE`: one of several values.
    List {
        /// The list's name.
        key: String,
        /// The value to add, unquoted.
        value: String,
    },
}

/// Why a line is not a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyntaxError {
    /// A quote was opened and not closed on its line.
    OpenQuote(char),
    /// The line's first word is none of the statements.
    UnknownStatement,
    /// Too few or too many words for this statement.
    WordCount(&'static str),
    /// A type, name or key has characters that `uci` refuses.
    BadName,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenQuote(quote) => write!(f, "expected a closing {quote} on the same line"),
            Self::UnknownStatement => write!(f, "expected a line that starts with config, option or list"),
            Self::WordCount(form) => write!(f, "expected {form} (quote values that have spaces)"),
            Self::BadName => write!(f, "expected types, names and keys of letters, digits and _ only"),
        }
    }
}

impl core::error::Error for SyntaxError {}

/// Reads one line; `None` if it is empty or only a comment.
///
/// # Errors
/// [`SyntaxError`], which says what was expected.
pub fn statement(line: &str) -> Result<Option<Statement>, SyntaxError> {
    let mut words = words(line)?.into_iter();
    let Some(first) = words.next() else { return Ok(None) };
    let rest = (words.next(), words.next(), words.next());
    let statement = match (first.as_str(), rest) {
        ("package", (Some(name), None, None)) => Statement::Package(name),
        ("package", _) => return Err(SyntaxError::WordCount("package NAME")),
        ("config", (Some(kind), name, None)) => {
            if !is_name(&kind) || !name.as_deref().is_none_or(is_name) {
                return Err(SyntaxError::BadName);
            }
            Statement::Section { kind, name }
        }
        ("config", _) => return Err(SyntaxError::WordCount("config TYPE 'NAME'")),
        ("option" | "list", (Some(key), Some(_), None)) if !is_name(&key) => {
            return Err(SyntaxError::BadName);
        }
        ("option", (Some(key), Some(value), None)) => Statement::Option { key, value },
        ("option", _) => return Err(SyntaxError::WordCount("option KEY 'VALUE'")),
        ("list", (Some(key), Some(value), None)) => Statement::List { key, value },
        ("list", _) => return Err(SyntaxError::WordCount("list KEY 'VALUE'")),
        _ => return Err(SyntaxError::UnknownStatement),
    };
    Ok(Some(statement))
}

/// Splits a line like `uci` does: quoted and bare pieces that touch are one word; a backslash takes the next
/// character as it is, except in single quotes; `#` outside quotes starts a comment.
fn words(line: &str) -> Result<Vec<String>, SyntaxError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), _) if c == q => quote = None,
            (Some('\''), _) => word.get_or_insert_default().push(c),
            (_, '\\') => word.get_or_insert_default().extend(chars.next()),
            (Some(_), _) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default(); // '' is an empty word, not none
            }
            (None, '#') => break,
            (None, _) if c.is_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(q) = quote {
        return Err(SyntaxError::OpenQuote(q));
    }
    words.extend(word);
    Ok(words)
}

fn is_name(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(key: &str, value: &str) -> Result<Option<Statement>, SyntaxError> {
        Ok(Some(Statement::Option { key: key.into(), value: value.into() }))
    }

    #[test]
    fn every_way_of_quoting_gives_the_same_value() {
        for line in [
            "option k v",
            "\toption  k 'v'",
            "option k \"v\"",
            "option 'k' v # why",
            "option \"k\" 'v'#x",
            "option k \\v",
        ] {
            assert_eq!(statement(line), option("k", "v"), "{line}");
        }
        assert_eq!(statement("option k 'a b'\"c'd\"\\ e"), option("k", "a bc'd e"));
        assert_eq!(statement("option k '#no comment'"), option("k", "#no comment"));
        assert_eq!(statement(r#"option k "a\"b""#), option("k", "a\"b"));
        assert_eq!(statement(r"option k 'a\b'"), option("k", r"a\b"));
        assert_eq!(statement("option k ''"), option("k", ""));
    }

    #[test]
    fn sections_lists_and_nothing() {
        assert_eq!(
            statement("config peer 'B'"),
            Ok(Some(Statement::Section { kind: "peer".into(), name: Some("B".into()) }))
        );
        assert_eq!(
            statement("config peer"),
            Ok(Some(Statement::Section { kind: "peer".into(), name: None }))
        );
        assert_eq!(statement("list k v"), Ok(Some(Statement::List { key: "k".into(), value: "v".into() })));
        assert_eq!(statement("package bamqp"), Ok(Some(Statement::Package("bamqp".into()))));
        assert_eq!(statement(""), Ok(None));
        assert_eq!(statement("  # option k v\r"), Ok(None));
    }

    #[test]
    fn refuses_what_uci_refuses() {
        assert_eq!(statement("option k 'v"), Err(SyntaxError::OpenQuote('\'')));
        assert_eq!(statement("option k \"v"), Err(SyntaxError::OpenQuote('"')));
        assert_eq!(statement("options k v"), Err(SyntaxError::UnknownStatement));
        assert_eq!(statement("option k"), Err(SyntaxError::WordCount("option KEY 'VALUE'")));
        assert_eq!(statement("option k a b"), Err(SyntaxError::WordCount("option KEY 'VALUE'")));
        assert_eq!(statement("config"), Err(SyntaxError::WordCount("config TYPE 'NAME'")));
        assert_eq!(statement("config peer 'no good'"), Err(SyntaxError::BadName));
        assert_eq!(statement("option a-b c"), Err(SyntaxError::BadName));
    }
}
