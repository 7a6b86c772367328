//! The command line of `hostsim`: what it takes, and that wrong arguments get one line and exit code 2.

use std::process::{Command, Output};

use bamqp_core::time::Span;
use hostsim::args::{LinkOptions, Options};

fn parse(line: &[&str]) -> Result<Options, String> {
    Options::parse(pico_args::Arguments::from_vec(line.iter().map(Into::into).collect()))
}

fn hostsim(line: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hostsim")).args(line).output().unwrap()
}

#[test]
fn the_defaults() {
    let options = parse(&[]).unwrap();
    let rates: Vec<u64> = options.links.iter().map(LinkOptions::rate).collect();
    assert_eq!(rates, [2_500_000, 1_875_000, 1_250_000, 625_000]);
    assert!(options.links.iter().all(|link| link.rtt == Span::from_millis(30)));
    assert_eq!(options.size, 20 << 20);
    assert_eq!((options.file, options.seed, options.window, options.json), (None, None, None, false));
    assert!(options.faults.is_empty() && !options.trusted);
}

#[test]
fn every_option() {
    let options = parse(&[
        "--links",
        "8,0.8",
        "--rtt=5,62.5",
        "--size",
        "1.5MiB",
        "--window",
        "256K",
        "--fault",
        "kill:1@1s",
        "--fault=one-shot",
        "--seed",
        "18446744073709551615",
        "--json",
        "--trusted",
    ])
    .unwrap();
    assert_eq!(options.links[0], LinkOptions { mbits: 8.0, rtt: Span::from_millis(5) });
    assert_eq!(options.links[1].rate(), 100_000);
    assert_eq!(options.links[1].rtt, Span::from_micros(62_500));
    assert_eq!(options.size, 3 << 19);
    assert_eq!(options.window, Some(256 << 10));
    assert_eq!(options.seed, Some(u64::MAX));
    assert_eq!(options.faults.len(), 2);
    assert!(options.json && options.trusted);
    assert_eq!(parse(&["--size", "20MB"]).unwrap().size, 20_000_000);
    assert_eq!(parse(&["--size", "77"]).unwrap().size, 77);
}

#[test]
fn wrong_arguments_get_one_line_and_code_2() {
    let many = ["1"; 27].join(",");
    let wrong: &[(&[&str], &str)] = &[
        (&["--links", "20,x"], "--links 20,x: expected 1 to 26 rates"),
        (&["--links", ""], "expected 1 to 26 rates"),
        (&["--links", "0"], "expected 1 to 26 rates"),
        (&["--links", &many], "expected 1 to 26 rates"),
        (&["--links"], "--links: expected 1 to 26 rates"),
        (&["--rtt", "30,20"], "one or as many as links"),
        (&["--rtt", "-1"], "expected ms"),
        (&["--size", "0"], "expected bytes from 1"),
        (&["--size", "5GiB"], "expected bytes from 1"),
        (&["--size", "20Mi"], "expected bytes from 1"),
        (&["--size", "1", "--file", "/etc/hostname"], "expected one of them"),
        (&["--window", "1K"], "expected 128KiB to 12MiB"),
        (&["--seed", "-1"], "expected a whole number"),
        (&["--seed", "1", "--seed", "2"], "expected an option once"),
        (&["--fault", "melt:1@1s"], "expected kill:N@T"),
        (&["--fault"], "expected kill:N@T"),
        (&["--fault", "kill:4@1s"], "expected a router from 0 to 3 (A to D)"),
        (&["--fault", "lie:4"], "expected a router from 1 to 3 (B to D)"),
        (&["--fault", "lie:A"], "lie:N"),
        (&["--links", "9,9,9", "--fault", "variant:2"], "--fault variant:2: expected at least 4 links"),
        (&["--frobnicate"], "--frobnicate: expected"),
        (&["run", "extra"], "extra: expected"),
        (&["walk"], "walk: expected run or model"),
    ];
    for (line, expected) in wrong {
        let output = hostsim(line);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{line:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{line:?}: {error}");
        assert!(error.starts_with("hostsim: ") && error.contains(expected), "{line:?}: {error}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn help_and_version() {
    for line in [&["--help"][..], &["run", "--help"], &["-h"]] {
        let output = hostsim(line);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("--links LIST"), "{line:?}: {text}");
        assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
    }
    let version = String::from_utf8(hostsim(&["--version"]).stdout).unwrap();
    assert_eq!(version, format!("hostsim {}\n", env!("CARGO_PKG_VERSION")));
}
