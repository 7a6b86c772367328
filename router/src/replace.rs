//! Puts a new file in the place of an old one at one stroke. Not responsible for what is in it.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

/// Replaces the file, readable by its owner alone: there is always a whole one, the old or the new.
///
/// # Errors
/// What the system says; the old file stands.
pub fn private(path: &Path, text: &str) -> io::Result<()> {
    replace(path, text, |_| Ok(()))
}

/// Replaces a file that is there; owner and permissions stay.
///
/// # Errors
/// What the system says; the old file stands.
pub fn alike(path: &Path, text: &str) -> io::Result<()> {
    let old = std::fs::metadata(path)?;
    replace(path, text, |new| {
        let made = new.metadata()?;
        if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
            fchown(new, Some(old.uid()), Some(old.gid()))?;
        }
        new.set_permissions(Permissions::from_mode(old.mode() & 0o7777))
    })
}

fn replace(path: &Path, text: &str, dress: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let new = path.with_extension("new");
    let _ = std::fs::remove_file(&new); // left by a power cut, or planted; `create_new` follows no link
    let written =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).and_then(|mut file| {
            dress(&file)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&new, path)
        });
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written?;
    // Until the folder is on the disk a power cut may bring the old file back, which is whole as well.
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
