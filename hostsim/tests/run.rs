//! `hostsim run` as a user calls it: the command itself, small and fast.

use std::process::{Command, Output};

fn hostsim(line: &str) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hostsim")).args(line.split(' ')).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output, text)
}

/// The keys of a JSON object, outermost level, and its flat values; enough for our own output.
fn value<'a>(json: &'a str, key: &str) -> &'a str {
    let start =
        json.find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("no {key} in {json}")) + key.len() + 3;
    json[start..].split([',', '}']).next().unwrap()
}

#[test]
fn right_bytes_are_code_0_and_the_last_line_is_json() {
    let (output, text) = hostsim("run --links 80 --rtt 2 --size 1500001 --json");
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("SHA-256 right").count(), 2, "{text}");
    let json = text.lines().last().unwrap();
    let keys = [
        "ok",
        "own_seconds",
        "pooled_seconds",
        "speedup",
        "goodput_bps",
        "limit_bps",
        "efficiency",
        "first_byte_ms",
        "own_first_byte_ms",
        "window_used",
        "faults_injected",
        "check_cost",
        "lanes",
        "again",
        "wrong",
    ];
    for key in keys {
        value(json, key);
    }
    assert_eq!(value(json, "ok"), "true");
    assert_eq!(value(json, "limit_bps"), "80000000");
    assert_eq!(value(json, "faults_injected"), "0");
}

#[test]
fn a_dead_only_link_is_code_1_and_nothing_is_mixed() {
    let (output, text) = hostsim("--links 8 --rtt 2 --size 1000001 --fault kill:0@100ms --json");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("closed early") && text.contains("never mixed"), "{text}");
    let json = text.lines().last().unwrap();
    assert_eq!((value(json, "ok"), value(json, "speedup")), ("false", "null"));
    assert_eq!(value(json, "faults_injected"), "1");
}

#[test]
fn a_file_of_ones_own() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
    let (output, text) = hostsim(&format!("--links 80 --rtt 2 --file {file}"));
    assert!(output.status.success(), "{text}");
    let missing = hostsim("--file /nowhere/at/all").0;
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8(missing.stderr).unwrap().starts_with("hostsim: --file /nowhere/at/all: "));
}

#[test]
fn a_liar_is_found_out_and_not_asked_again() {
    for fault in ["lie:B", "lie-once:C"] {
        let (output, text) = hostsim(&format!("--links 40,40,40,40 --size 8000001 --fault {fault} --json"));
        assert!(output.status.success(), "{fault}: {text}");
        assert_eq!(text.matches("SHA-256 right").count(), 3, "{text}");
        assert!(text.contains(&format!("{fault}: happened")), "{text}");
        let json = text.lines().last().unwrap();
        assert_eq!(json.matches("\"verdict\":\"lie\"").count(), 1, "{json}");
        assert_eq!(json.matches("\"verdict\":\"not asked: barred (lie)\"").count(), 1, "{json}");
        assert_eq!(value(json, "wrong"), "[]");
    }
}

#[test]
fn an_origin_that_serves_variants_is_named_and_nobody_is_blamed() {
    for fault in ["variant:2", "variant"] {
        let (output, text) = hostsim(&format!("--links 40,40,40,40 --size 3000001 --fault {fault} --json"));
        assert!(output.status.success(), "{fault}: {text}");
        let json = text.lines().last().unwrap();
        assert!(json.contains("\"verdict\":\"inconsistent origin\""), "{json}");
        assert!(!json.contains("\"lie\""), "{json}");
    }
}

#[test]
fn whom_it_trusts_the_coordinator_checks_less() {
    let cost = |more: &str| {
        let (output, text) =
            hostsim(&format!("--links 40,40,40 --rtt 5 --size 8000001 --seed 1 --json{more}"));
        assert!(output.status.success(), "{text}");
        value(text.lines().last().unwrap(), "check_cost").parse::<f64>().unwrap()
    };
    let (newcomers, trusted) = (cost(""), cost(" --trusted"));
    assert!(trusted > 0.0 && trusted < newcomers, "{trusted} {newcomers}");
}

#[test]
fn attacks_come_to_nothing_and_the_bytes_are_right() {
    let line = "--links 40,40,40 --rtt 2 --size 3000001 --fault replay:1 --fault impersonate:C --fault forge-log:1 --json";
    let (output, text) = hostsim(line);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}{errors}");
    assert_eq!(text.matches("SHA-256 right").count(), 2, "{text}");
    assert_eq!(value(text.lines().last().unwrap(), "faults_injected"), "8", "{text}");
    let (output, _) = hostsim("--links 40,40 --fault replay:0");
    assert_eq!(output.status.code(), Some(2));
    let (output, _) = hostsim("--links 40,40 --fault forge-log:C");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("expected a router from 1 to 1 (B to B)"), "{error}");
}

#[test]
fn a_helper_whose_household_wakes_up_withdraws_and_the_bytes_are_right() {
    let (output, text) = hostsim("--links 20,20 --rtt 10 --size 14000001 --fault busy:B@1s --json");
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("SHA-256 right").count(), 2, "{text}");
    assert!(text.contains("B withdrew") && text.contains(": happened"), "{text}");
    let (output, _) = hostsim("--links 20,20 --fault busy:A@1s");
    assert_eq!(output.status.code(), Some(2), "its household is the client");
}
