//! What a signature of ours covers, and with which parameters: written into `Signature-Input`, and compared with what
//! came. Not responsible for what is computed from it.

use core::fmt::{self, Write};

use super::Message;
use crate::channel::Challenge;
use crate::message::{Fingerprint, is_displayed_as};

/// Which of our signatures it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    /// The coordinator's `ed25519` signature of an INIT, made for one challenge.
    Init(&'a Challenge),
    /// The MAC of an INIT that has the other signature already.
    InitMac,
    /// The MAC of every other request.
    Request,
    /// The MAC of an answer.
    Answer,
}

impl Kind<'_> {
    /// The key in `Signature-Input` and `Signature`.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Init(_) => "init",
            _ => "mac",
        }
    }

    fn algorithm(self) -> &'static str {
        match self {
            Kind::Init(_) => "ed25519",
            _ => "hmac-sha256",
        }
    }
}

/// Displays as the value that `Signature-Input` has to have.
pub(crate) struct Terms<'m, 'b> {
    pub message: &'m Message<'m, 'b>,
    pub kind: Kind<'m>,
    /// Whose signature it is.
    pub signer: Fingerprint,
}

impl Terms<'_, '_> {
    /// Whether `input` is exactly this.
    pub fn are_those_of(&self, input: &str) -> bool {
        is_displayed_as(self, input)
    }
}

impl fmt::Display for Terms<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.message {
            Message::Request(_) => "(\"@method\" \"@authority\" \"@path\"",
            Message::Answer(..) => "(\"@status\"",
        })?;
        for field in self.message.fields().iter().filter(|field| is_covered(field.name)) {
            f.write_str(" \"")?;
            field.name.chars().try_for_each(|letter| f.write_char(letter.to_ascii_lowercase()))?;
            f.write_char('"')?;
        }
        f.write_str(match self.kind {
            Kind::Init(_) | Kind::Request => ")",
            Kind::InitMac => " \"signature-input\";key=\"init\" \"signature\";key=\"init\")",
            Kind::Answer => " \"signature\";req;key=\"mac\")",
        })?;
        if let Kind::Init(challenge) = self.kind {
            write!(f, ";nonce=\"{challenge}\"")?;
        }
        write!(f, ";keyid=\"{}\";alg=\"{}\";tag=\"bamqp\"", self.signer, self.kind.algorithm())
    }
}

/// All fields are, but `Host`, which is `@authority`, and the signatures themselves.
fn is_covered(name: &str) -> bool {
    !["Host", "Signature-Input", "Signature"].iter().any(|other| other.eq_ignore_ascii_case(name))
}

/// The value of a parameter that is a string.
pub(crate) fn parameter<'t>(input: &'t str, name: &str) -> Option<&'t str> {
    let (_, parameters) = input.split_once(')')?;
    let mut parameters = parameters.split(';');
    let value = parameters.find_map(|parameter| parameter.strip_prefix(name)?.strip_prefix("=\""))?;
    value.strip_suffix('"')
}
