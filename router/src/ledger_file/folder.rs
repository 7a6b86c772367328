//! The folder of a ledger's files: their names, which may go, and where the last whole entry ends. Not responsible for
//! what is written into them.
//!
//! A file is called after the number of its first entry, so that rotation renames nothing: a power cut leaves either
//! the old files or one more.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bamqp_core::ledger::{Chain, Event};
use bamqp_core::limits::MAX_LEDGER_LINE_BYTES;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

const PREFIX: &str = "bamqp-";
const SUFFIX: &str = ".log";

/// Ends the name of the file that keeps what was last cut off another one.
const CUT: &str = ".cut";

/// How long a daemon that is just ending may still hold the lock, or a process that was forked from it.
const PATIENCE: Duration = Duration::from_secs(1);

/// A ledger's folder, locked: two daemons in one would break each other's chain.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    lock: File,
}

/// Where a ledger goes on.
#[derive(Debug, Default)]
pub struct Found {
    /// The last entries.
    pub chain: Chain,
    /// Number of the first entry of the file that goes on, and the bytes it has. `None`: there is none.
    pub file: Option<(u64, u64)>,
    /// The boot of the last entry, and what the system called it.
    pub boot: Option<(u32, String)>,
}

impl Folder {
    /// Opens or makes the folder, and locks it.
    ///
    /// # Errors
    /// What the system says; `WouldBlock` if another daemon uses it.
    pub fn open(path: &Path) -> io::Result<Folder> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let lock = File::open(path)?;
        let last_try = Instant::now() + PATIENCE;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Folder { path: path.into(), lock }),
                Err(error) if error != Errno::WOULDBLOCK || Instant::now() >= last_try => {
                    return Err(error.into());
                }
                Err(_) => std::thread::sleep(PATIENCE / 50),
            }
        }
    }

    fn file(&self, first: u64) -> PathBuf {
        self.path.join(format!("{PREFIX}{first:010}{SUFFIX}"))
    }

    /// The file whose first entry has this number; made if need be, and then in the folder for good.
    pub fn open_file(&self, first: u64) -> io::Result<File> {
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(self.file(first))?;
        self.lock.sync_all()?;
        Ok(file)
    }

    /// Removes the oldest files so that `most` are left.
    pub fn keep(&self, most: usize) -> io::Result<()> {
        let firsts = self.firsts()?;
        let Some(oldest) = firsts.len().checked_sub(most).and_then(|place| firsts.get(place)) else {
            return Ok(());
        };
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let first = name.to_str().and_then(|name| number(name.strip_suffix(CUT).unwrap_or(name)));
            if first.is_some_and(|first| first < *oldest) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Numbers of the files' first entries, in their order.
    fn firsts(&self) -> io::Result<Vec<u64>> {
        let mut firsts = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            firsts.extend(entry?.file_name().to_str().and_then(number));
        }
        firsts.sort_unstable();
        Ok(firsts)
    }

    /// Finds the last entry. What follows it in its file is cut off: a write that a power cut ended, or something that
    /// somebody put there, which is kept beside it.
    pub fn recover(&self) -> io::Result<Found> {
        for first in self.firsts()?.into_iter().rev() {
            let path = self.file(first);
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            let (found, end) = read(&file)?;
            let length = file.metadata()?.len();
            if length > end {
                self.cut(&path, &file, end, length)?;
            }
            if found.chain.sequence() > 0 {
                return Ok(Found { file: Some((first, end)), ..found });
            }
            std::fs::remove_file(&path)?;
        }
        Ok(Found::default())
    }

    fn cut(&self, path: &Path, mut file: &File, end: u64, length: u64) -> io::Result<()> {
        let path = path.display();
        log::warn!("{path}: the last {} bytes are no entries: cut off, as after a power cut", length - end);
        file.seek(SeekFrom::Start(end))?;
        let mut options = OpenOptions::new();
        let kept = options.write(true).create(true).truncate(true).mode(0o600).open(format!("{path}{CUT}"));
        // Nothing depends on it: there may be no room.
        let _ = kept.and_then(|mut kept| io::copy(&mut file, &mut kept));
        file.set_len(end)?;
        file.sync_all()
    }
}

/// The number in a file's name.
fn number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Reads entries as far as there are any, and where they end.
fn read(file: &File) -> io::Result<(Found, u64)> {
    let (mut found, mut end) = (Found::default(), 0);
    let mut lines = BufReader::new(file);
    let mut line = Vec::new();
    while next_line(&mut lines, &mut line)? {
        let Ok((entry, _)) = found.chain.next(&line) else { break };
        end += line.len() as u64;
        if let Event::Open { boot_id, .. } = entry.event {
            let boot_id = boot_id.bytes().map(char::from).collect();
            found.boot = Some((entry.boot, boot_id));
        }
    }
    Ok((found, end))
}

/// Reads a line into `line`, with its end if it has one and is not longer than any entry; whether there was one.
///
/// # Errors
/// That of `from`.
pub fn next_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    Ok(from.take(MAX_LEDGER_LINE_BYTES as u64).read_until(b'\n', line)? > 0)
}
