//! Makes a router that was heard a peer: chooses it, and writes its section into the configuration. Not responsible for
//! asking the owner, which has to come between the two.
//!
//! What was heard is a stranger's word, and anybody may call itself as it likes. So a name is good for choosing only as
//! long as one key goes by it, among those that are heard and those that are configured; else the key has to be named.

use core::fmt;
use core::net::SocketAddr;
use core::str::FromStr;
use std::io;
use std::path::Path;

use bamqp_core::announce::Name;
use bamqp_core::channel::{WeakKey, check_key};
use bamqp_core::message::Fingerprint;

use crate::config::{Config, ConfigError, Peer};
use crate::keys::{PublicKey, base64_decode, base64_encode, fingerprint_of};
use crate::replace;

/// A router that was heard, as the daemon tells it to the command: a line of name, public key and address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What it calls itself.
    pub name: Name,
    /// The key that it names.
    pub public_key: PublicKey,
    /// Where it says that it listens.
    pub address: SocketAddr,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, base64_encode(&self.public_key), self.address)
    }
}

impl FromStr for Candidate {
    type Err = NotACandidate;

    fn from_str(line: &str) -> Result<Self, NotACandidate> {
        let mut words = line.split(' ');
        let mut word = || words.next().ok_or(NotACandidate);
        let name = word()?.parse().map_err(|_| NotACandidate)?;
        let public_key = base64_decode(word()?).ok_or(NotACandidate)?;
        let address = word()?.parse().map_err(|_| NotACandidate)?;
        Ok(Candidate { name, public_key, address })
    }
}

/// A line that is no [`Candidate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotACandidate;

impl fmt::Display for NotACandidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the daemon is of another version")
    }
}

impl core::error::Error for NotACandidate {}

/// Why no peer comes of it.
#[derive(Debug)]
pub enum ApproveError {
    /// Nobody with this name or key is heard.
    NotHeard(String),
    /// Several keys go by this name: those that are heard, and that of a configured peer.
    Ambiguous(String, Vec<Fingerprint>, Option<Fingerprint>),
    /// The key is heard from several addresses, of which at most one is right.
    Addresses(Vec<SocketAddr>),
    /// This peer has the key already.
    Configured(String),
    /// A peer has the name already.
    NameTaken(String),
    /// The key is none.
    Key(WeakKey),
    /// The file, as it is or as it would be, is no configuration.
    Config(ConfigError),
    /// It can't be read or written.
    Io(std::path::PathBuf, io::Error),
}

impl fmt::Display for ApproveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, all: &[String]| write!(f, "{}", all.join(", "));
        match self {
            Self::NotHeard(wanted) => {
                write!(f, "no router {wanted} is heard; bamqp peers lists those that are")
            }
            Self::Ambiguous(name, heard, configured) => {
                write!(f, "several routers call themselves {name}; name the right one's key, one of ")?;
                list(f, &heard.iter().map(ToString::to_string).collect::<Vec<_>>())?;
                configured.map_or(Ok(()), |key| write!(f, " (your peer {name} has the key {key})"))
            }
            Self::Addresses(addresses) => {
                f.write_str("this key is announced from several addresses: ")?;
                list(f, &addresses.iter().map(ToString::to_string).collect::<Vec<_>>())?;
                f.write_str("; wait until it is one, or enter the peer by hand")
            }
            Self::Configured(peer) => write!(f, "it is a peer already: {peer}"),
            Self::NameTaken(name) => write!(f, "there is a peer {name} already; give another name with --as"),
            Self::Key(why) => write!(f, "its key: {why}"),
            Self::Config(why) => write!(f, "{why}"),
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl core::error::Error for ApproveError {}

/// The peer that comes of the heard router that `wanted` (a name, a fingerprint or a public key) means; the owner calls it
/// `called`, or as it calls itself.
///
/// # Errors
/// Why it is not clear who is meant, or why that one can't be a peer.
pub fn choose(
    heard: &[Candidate],
    config: &Config,
    wanted: &str,
    called: Option<&Name>,
) -> Result<Peer, ApproveError> {
    // What looks like a key is one: somebody may call itself like another's fingerprint.
    let key =
        wanted.parse::<Fingerprint>().ok().or_else(|| base64_decode(wanted).map(|key| fingerprint_of(&key)));
    let is_meant = |one: &&Candidate| match key {
        Some(key) => fingerprint_of(&one.public_key) == key,
        None => one.name.as_str() == wanted,
    };
    let meant: Vec<&Candidate> = heard.iter().filter(is_meant).collect();
    let Some(one) = meant.first() else { return Err(ApproveError::NotHeard(wanted.into())) };
    let mut keys = Vec::new();
    for key in meant.iter().map(|one| fingerprint_of(&one.public_key)) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let namesake = config.peers.iter().find(|peer| key.is_none() && peer.name == wanted);
    let namesake = namesake.map(|peer| fingerprint_of(&peer.public_key));
    if keys.len() > 1 || namesake.is_some_and(|key| !keys.contains(&key)) {
        return Err(ApproveError::Ambiguous(wanted.into(), keys, namesake));
    }
    if let Some(peer) = config.peers.iter().find(|peer| peer.public_key == one.public_key) {
        return Err(ApproveError::Configured(peer.name.clone()));
    }
    if meant.len() > 1 {
        return Err(ApproveError::Addresses(meant.iter().map(|one| one.address).collect()));
    }
    let name = called.unwrap_or(&one.name).to_string();
    if config.peers.iter().any(|peer| peer.name == name) {
        return Err(ApproveError::NameTaken(name));
    }
    check_key(&one.public_key).map_err(ApproveError::Key)?;
    Ok(Peer { name, address: one.address, public_key: one.public_key })
}

/// Writes the peer's section at the end of the configuration; all else in it stays as it is, to the byte.
///
/// # Errors
/// If the file is no configuration, or would be none; it stands as it was.
pub fn add(file: &Path, peer: &Peer) -> Result<(), ApproveError> {
    let failed = |error| ApproveError::Io(file.into(), error);
    // A link stays one: what it leads to is replaced.
    let path = std::fs::canonicalize(file).map_err(failed)?;
    let old = std::fs::read_to_string(&path).map_err(failed)?;
    let new = with(&old, peer);
    Config::parse(&new, file).map_err(ApproveError::Config)?;
    replace::alike(&path, &new).map_err(failed)
}

fn with(text: &str, Peer { name, address, public_key }: &Peer) -> String {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let key = base64_encode(public_key);
    format!("{text}{end}\nconfig peer '{name}'\n\toption address '{address}'\n\toption public_key '{key}'\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::keys::KeyPair;

    fn key(seed: u8) -> PublicKey {
        *KeyPair::from_seed([seed; 32]).public()
    }

    fn candidate(name: &str, seed: u8, ip: u8) -> Candidate {
        let address = ([10, 77, 0, ip], 7733).into();
        Candidate { name: name.parse().unwrap(), public_key: key(seed), address }
    }

    fn config(peers: &[(&str, u8, u8)]) -> Config {
        let peer = |(name, seed, ip): &(&str, u8, u8)| Peer {
            name: (*name).into(),
            address: ([10, 77, 0, *ip], 7733).into(),
            public_key: key(*seed),
        };
        Config { peers: peers.iter().map(peer).collect(), ..Config::default() }
    }

    fn why(heard: &[Candidate], config: &Config, wanted: &str) -> String {
        choose(heard, config, wanted, None).unwrap_err().to_string()
    }

    #[test]
    fn one_name_and_one_key_is_clear() {
        let heard = [candidate("B", 2, 2), candidate("C", 3, 3)];
        let expected =
            Peer { name: "C".into(), address: "10.77.0.3:7733".parse().unwrap(), public_key: key(3) };
        let fingerprint = fingerprint_of(&key(3)).to_string();
        for wanted in ["C", &fingerprint, &base64_encode(&key(3))] {
            assert_eq!(choose(&heard, &config(&[]), wanted, None).unwrap(), expected);
        }
        let called = "cellar".parse().unwrap();
        assert_eq!(choose(&heard, &config(&[]), "C", Some(&called)).unwrap().name, "cellar");
        assert!(why(&heard, &config(&[]), "D").starts_with("no router D is heard"));
    }

    #[test]
    fn two_of_one_name_must_be_told_apart_by_their_keys() {
        let heard = [candidate("B", 2, 2), candidate("B", 9, 9)];
        let said = why(&heard, &config(&[]), "B");
        let fingerprints = [2, 9].map(|seed| fingerprint_of(&key(seed)).to_string());
        assert!(fingerprints.iter().all(|key| said.contains(key)), "{said}");
        assert_eq!(choose(&heard, &config(&[]), &fingerprints[1], None).unwrap().public_key, key(9));
        // One of them is a peer: the other one has to be meant by its key, and called something else.
        let with_b = config(&[("B", 2, 2)]);
        assert!(why(&heard[1..], &with_b, "B").contains("your peer B has the key"));
        assert!(why(&heard[1..], &with_b, &fingerprints[1]).contains("--as"));
        let called = "B2".parse().unwrap();
        assert_eq!(choose(&heard, &with_b, &fingerprints[1], Some(&called)).unwrap().name, "B2");
        assert_eq!(why(&heard[..1], &with_b, "B"), "it is a peer already: B");
    }

    #[test]
    fn who_calls_itself_like_anothers_key_is_not_meant_by_it() {
        let fingerprint = fingerprint_of(&key(2)).to_string();
        let heard = [candidate(&fingerprint, 9, 9), candidate("B", 2, 2)];
        assert_eq!(choose(&heard, &config(&[]), &fingerprint, None).unwrap().public_key, key(2));
        assert!(why(&heard[..1], &config(&[]), &fingerprint).starts_with("no router"));
    }

    #[test]
    fn one_key_at_two_addresses_and_no_key_at_all() {
        let said = why(&[candidate("B", 2, 2), candidate("B", 2, 9)], &config(&[]), "B");
        assert!(said.contains("10.77.0.2:7733, 10.77.0.9:7733"), "{said}");
        let weak = Candidate { public_key: [0; 32], ..candidate("B", 2, 2) };
        assert!(why(&[weak], &config(&[]), "B").contains("not a usable Ed25519 public key"));
    }

    #[test]
    fn a_candidate_is_a_line() {
        for address in ["10.77.0.2:7733", "[fd00::2]:7733", "[fe80::1%3]:7733"] {
            let candidate = Candidate { address: address.parse().unwrap(), ..candidate("B", 2, 2) };
            assert_eq!(candidate.to_string().parse(), Ok(candidate));
        }
        for line in ["", "B", "B x 10.77.0.2:7733", &candidate("B", 2, 2).to_string()[..50]] {
            assert_eq!(line.parse::<Candidate>(), Err(NotACandidate), "{line}");
        }
    }

    #[test]
    fn the_rest_of_the_configuration_stays_to_the_byte() {
        let folder = std::env::temp_dir().join(format!("bamqp-approve-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let (file, link) = (folder.join("config"), folder.join("link"));
        std::os::unix::fs::symlink("config", &link).unwrap();
        let peer = |name: &str, seed, ip| Peer {
            name: name.into(),
            address: ([10, 77, 0, ip], 7733).into(),
            public_key: key(seed),
        };
        for end in ["", "\n", " # no line end", "\n\n"] {
            let old = format!(
                "# What taking part means\r\n\nconfig bamqp 'main'\n  option listen \"10.0.0.1:3128\" # \u{e4}{end}"
            );
            std::fs::write(&file, &old).unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
            add(&link, &peer("B", 2, 2)).unwrap();
            let new = std::fs::read_to_string(&file).unwrap();
            let added = new.strip_prefix(&old).unwrap().trim_start();
            assert!(added.starts_with("config peer 'B'\n\toption address '10.77.0.2:7733'\n"), "{added}");
            assert_eq!(Config::load(&file).unwrap().peers, [peer("B", 2, 2)]);
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
            assert!(link.is_symlink());
        }
        let before = std::fs::read(&file).unwrap();
        for twin in [peer("B", 3, 3), peer("C", 2, 3), peer("C", 3, 2)] {
            assert!(matches!(add(&file, &twin), Err(ApproveError::Config(_))), "{twin:?}");
            assert_eq!(std::fs::read(&file).unwrap(), before);
        }
        add(&file, &peer("C", 3, 3)).unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2, "something was left behind");
        assert!(matches!(add(&folder.join("none"), &peer("D", 4, 4)), Err(ApproveError::Io(..))));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
