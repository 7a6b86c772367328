//! The router's identity: an Ed25519 key pair in a file that only its owner can read, the text forms of public
//! keys and their fingerprints. Not responsible for signing messages.

use core::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bamqp_core::message::Fingerprint;
use ed25519_compact::Seed;
use sha2::{Digest, Sha256};

/// An Ed25519 public key.
pub type PublicKey = [u8; 32];

/// Most bytes of a key file: 44 characters of base64 and a line end, with room for a stray blank.
const MAX_KEY_FILE: u64 = 64;

/// The router's own key pair.
#[derive(Clone)]
pub struct KeyPair {
    seed: [u8; 32],
    public: PublicKey,
}

impl fmt::Debug for KeyPair {
    /// Shows the public part alone, so that no log line ever holds the secret one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", self.fingerprint())
    }
}

impl KeyPair {
    /// The pair that belongs to a secret seed, which is not all zeros.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let public = *ed25519_compact::KeyPair::from_seed(Seed::new(seed)).pk;
        Self { seed, public }
    }

    /// A new random pair.
    ///
    /// # Errors
    /// If the kernel gives no randomness.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        Ok(Self::from_seed(seed))
    }

    /// The public key.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The secret seed (RFC 8032 section 5.1.5), for signing.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// Fingerprint of the public key.
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint_of(&self.public)
    }

    /// Makes a new key in a file that must not exist yet, readable by its owner alone.
    ///
    /// # Errors
    /// [`KeyError::Io`] with `AlreadyExists` if the file is there: a key is never overwritten.
    pub fn create(path: &Path) -> Result<Self, KeyError> {
        let pair = Self::generate().map_err(|error| KeyError::Random(error.to_string()))?;
        let failed = |error| KeyError::Io(path.to_path_buf(), error);
        // On first start there may be no directory yet; if it can't be made, neither can the file.
        let _ = path.parent().map(std::fs::create_dir_all);
        // `create_new` is O_CREAT | O_EXCL: no race, no following of a planted link.
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        let written = writeln!(file, "{}", base64_encode(&pair.seed)).and_then(|()| file.sync_all());
        if let Err(error) = written {
            let _ = std::fs::remove_file(path); // half a key would stop every later start
            return Err(failed(error));
        }
        Ok(pair)
    }

    /// Reads a key file that [`KeyPair::create`] made.
    ///
    /// # Errors
    /// If it can't be read, others than its owner may read it, or it doesn't hold a key.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let failed = |error| KeyError::Io(path.to_path_buf(), error);
        let file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(KeyError::Permissions(path.to_path_buf(), mode & 0o777));
        }
        let mut text = String::new();
        file.take(MAX_KEY_FILE).read_to_string(&mut text).map_err(failed)?;
        let seed = base64_decode(text.trim_end()).filter(|seed| *seed != [0; 32]);
        Ok(Self::from_seed(seed.ok_or_else(|| KeyError::NotAKey(path.to_path_buf()))?))
    }

    /// Reads the key file, or makes it if there is none yet: keys are made on the device, at first start.
    ///
    /// # Errors
    /// As [`KeyPair::load`] and [`KeyPair::create`].
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        match Self::load(path) {
            Err(KeyError::Io(_, error)) if error.kind() == io::ErrorKind::NotFound => Self::create(path),
            other => other,
        }
    }
}

/// The fingerprint of a public key: the first half of its SHA-256.
pub fn fingerprint_of(key: &PublicKey) -> Fingerprint {
    let mut half = [0; 16];
    half.iter_mut().zip(Sha256::digest(key.as_slice())).for_each(|(to, from)| *to = from);
    Fingerprint(half)
}

/// Why there is no key.
#[derive(Debug)]
pub enum KeyError {
    /// The file can't be read or made.
    Io(PathBuf, io::Error),
    /// Group or others may read the file; its mode.
    Permissions(PathBuf, u32),
    /// The file holds something else.
    NotAKey(PathBuf),
    /// The kernel gave no randomness.
    Random(String),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) if error.kind() == io::ErrorKind::AlreadyExists => {
                write!(f, "{}: exists already; a key is never overwritten", path.display())
            }
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Permissions(path, mode) => {
                let path = path.display();
                write!(f, "{path}: mode {mode:03o} lets others read the key; expected 600 (chmod 600 {path})")
            }
            Self::NotAKey(path) => {
                write!(f, "{}: not a key; expected what bamqp keygen wrote", path.display())
            }
            Self::Random(error) => write!(f, "no randomness for a key: {error}"),
        }
    }
}

impl core::error::Error for KeyError {}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// 32 bytes as base64 (RFC 4648 section 4): 44 characters, the last one `=`.
pub fn base64_encode(bytes: &[u8; 32]) -> String {
    let mut text = String::with_capacity(44);
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let index = (bits >> (18 - 6 * place) & 63) as usize;
            text.push(if place <= group.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    text
}

/// The 32 bytes that 44 characters of base64 stand for; `None` if they are anything else. Strict: padding is
/// needed and the unused bits must be zero (RFC 4648 section 3.5), so that one key has one text.
pub fn base64_decode(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_suffix('=')?;
    if digits.len() != 43 {
        return None;
    }
    let mut bytes = [0; 32];
    let mut out = bytes.iter_mut();
    let (mut bits, mut held) = (0u32, 0);
    for digit in digits.bytes() {
        let value = ALPHABET.iter().position(|&letter| letter == digit)?;
        bits = bits << 6 | value as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            *out.next()? = (bits >> held) as u8;
            bits &= (1 << held) - 1;
        }
    }
    (bits == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new empty directory; the tests' own, removed by them.
    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("bamqp-keys-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn base64_of_32_bytes() {
        // From coreutils: printf '%s' 'abcdefghijklmnopqrstuvwxyz012345' | base64
        let bytes = *b"abcdefghijklmnopqrstuvwxyz012345";
        let text = "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU=";
        assert_eq!(base64_encode(&bytes), text);
        assert_eq!(base64_decode(text), Some(bytes));
        assert_eq!(base64_decode(&base64_encode(&[0xff; 32])), Some([0xff; 32]));
        for bad in [
            "",
            "=",
            "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU", // no padding
            "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDV=", // unused bits set
            "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzND==",
            "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzN-U=",
        ] {
            assert_eq!(base64_decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_key_of_rfc_8032_test_1() {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
        };
        let seed = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let public = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        assert_eq!(KeyPair::from_seed(seed.try_into().unwrap()).public().to_vec(), public);
    }

    #[test]
    fn the_fingerprint_is_half_a_sha256() {
        // head -c 32 /dev/zero | sha256sum
        assert_eq!(fingerprint_of(&[0; 32]).to_string(), "66687aadf862bd776c8fc18b8e9f8e20");
    }

    #[test]
    fn a_key_file_is_made_once_and_private() {
        let directory = directory("once");
        let path = directory.join("key");
        let made = KeyPair::load_or_create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(KeyPair::load_or_create(&path).unwrap().public(), made.public());
        assert!(KeyPair::create(&path).unwrap_err().to_string().contains("never overwritten"));
        assert_eq!(KeyPair::load(&path).unwrap().seed(), made.seed());
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn refuses_a_key_that_others_may_read_and_what_is_no_key() {
        let directory = directory("refuses");
        let path = directory.join("key");
        KeyPair::create(&path).unwrap();
        for mode in [0o640, 0o604, 0o620] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(KeyPair::load_or_create(&path), Err(KeyError::Permissions(_, m)) if m == mode));
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        for text in ["", "nonsense", &base64_encode(&[0; 32])] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(KeyPair::load_or_create(&path), Err(KeyError::NotAKey(_))), "{text}");
        }
        std::fs::remove_dir_all(directory).unwrap();
    }
}
