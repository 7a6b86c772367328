//! The `bamqp` command: output, exit codes and one-line errors.

#[path = "common/program.rs"]
mod program;

use std::path::PathBuf;
use std::process::Output;

use bamqp_router::keys::{base64_decode, fingerprint_of};

fn bamqp(args: &[&str]) -> Output {
    program::bamqp().args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A new empty directory, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bamqp-command-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().into()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn one_line_error(output: &Output, code: i32, expected: &str) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let error = text(&output.stderr);
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.starts_with("bamqp: ") && error.contains(expected), "{error}");
    assert!(output.stdout.is_empty());
}

#[test]
fn help_and_version() {
    let help = bamqp(&["--help"]);
    assert!(help.status.success() && text(&help.stdout).contains("bamqp run --config FILE"));
    let version = bamqp(&["--version"]);
    assert_eq!(text(&version.stdout), concat!("bamqp ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn wrong_arguments_exit_with_2() {
    one_line_error(&bamqp(&[]), 2, "expected run, check, keygen, key, status, peers, trust or log");
    one_line_error(&bamqp(&["fly"]), 2, "unknown command fly");
    one_line_error(&bamqp(&["run"]), 2, "expected run --config FILE");
    one_line_error(&bamqp(&["run", "--config"]), 2, "--config");
    one_line_error(&bamqp(&["keygen", "extra"]), 2, "unexpected argument extra");
}

#[test]
fn keygen_prints_the_public_key_alone_and_never_overwrites() {
    let directory = Directory::new("keygen");
    let file = directory.file("new/key");
    let made = bamqp(&["keygen", "--key", &file]);
    assert!(made.status.success() && made.stderr.is_empty(), "{made:?}");
    let printed = text(&made.stdout);
    assert_eq!(printed.len(), 45, "{printed}");
    let secret = std::fs::read(&file).unwrap();
    assert_ne!(text(&secret), printed);
    one_line_error(&bamqp(&["keygen", "--key", &file]), 1, "never overwritten");
    assert_eq!(std::fs::read(&file).unwrap(), secret);
}

#[test]
fn key_shows_what_neighbours_know_the_router_by() {
    let directory = Directory::new("key");
    let file = directory.file("key");
    one_line_error(&bamqp(&["key", "--key", &file]), 1, "No such file");
    let public_key = text(&bamqp(&["keygen", "--key", &file]).stdout).trim().to_owned();
    let fingerprint = fingerprint_of(&base64_decode(&public_key).unwrap());
    let shown = bamqp(&["key", "--key", &file]);
    assert!(shown.status.success() && shown.stderr.is_empty(), "{shown:?}");
    assert_eq!(text(&shown.stdout), format!("fingerprint  {fingerprint}\npublic key   {public_key}\n"));
}

#[test]
fn run_says_what_is_wrong() {
    let directory = Directory::new("run");
    let file = directory.file("bamqp");
    one_line_error(&bamqp(&["run", "--config", &file]), 1, &file);
    std::fs::write(&file, "config bamqp 'main'\n\toption window 'large'\n").unwrap();
    one_line_error(&bamqp(&["run", "--config", &file]), 1, &format!("{file}:2: window 'large': expected"));
}

#[test]
fn check_is_silent_or_says_what_is_wrong() {
    let directory = Directory::new("check");
    let config = directory.file("config");
    std::fs::write(&config, "config bamqp\n option listen '127.0.0.1:3128'\n").unwrap();
    let output = bamqp(&["check", "--config", &config]);
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    std::fs::write(&config, "config bamqp\n option lisen '127.0.0.1:3128'\n").unwrap();
    one_line_error(&bamqp(&["check", "--config", &config]), 1, &format!("{config}:2: unknown option lisen"));
    one_line_error(&bamqp(&["check", "--config", &directory.file("none")]), 1, "No such file");
    one_line_error(&bamqp(&["check", "now"]), 2, "unexpected argument now");
}

#[test]
fn a_daemon_that_is_not_enabled_says_so_and_ends_well() {
    let directory = Directory::new("disabled");
    let file = directory.file("bamqp");
    std::fs::write(&file, "config bamqp 'main'\n\toption enabled '0'\n").unwrap();
    let output = bamqp(&["run", "--config", &file]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stderr).contains("enabled is 0"));
    assert!(output.stdout.is_empty());
}
