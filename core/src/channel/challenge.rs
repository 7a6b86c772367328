//! What makes an INIT new: a text that its recipient chose. Not responsible for which one is open where.

use core::fmt;
use core::str::FromStr;

use crate::message::{NotHex, from_hex};

/// Head of the recipient's log and a random part: 64 and 32 lower-case hexadecimal digits with a dot between. Who signs
/// an INIT countersigns the log up to there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// SHA-256 that the log's last entry has, or is its start; all zero without a log.
    pub log_head: [u8; 32],
    /// New for each challenge.
    pub random: [u8; 16],
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.log_head.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(".")?;
        self.random.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Challenge {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        let (log_head, random) = text.split_once('.').ok_or(NotHex)?;
        Ok(Challenge { log_head: from_hex(log_head)?, random: from_hex(random)? })
    }
}
