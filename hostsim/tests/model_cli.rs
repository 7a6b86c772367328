//! `hostsim model` as a person calls it: what it prints repeats from the seed, and wrong arguments get one line.

use std::process::{Command, Output};

fn model(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hostsim")).arg("model").args(arguments).output().unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_output_and_another_seed_another() {
    let run = |seed: &str| text(model(&["--peers", "9", "--size", "16MiB", "--seed", seed, "--json"]).stdout);
    assert_eq!(run("7"), run("7"));
    assert_ne!(run("7"), run("8"));
}

#[test]
fn pooled_is_faster_than_the_own_line_which_gets_its_rate() {
    let output = model(&["--links", "10,10", "--rtt", "20", "--size", "16MiB"]);
    assert!(output.status.success());
    let summary = text(output.stdout);
    let own = summary.lines().find(|line| line.starts_with("own link")).unwrap();
    // 16 MiB at 10 Mbit/s take 13.42 s; a handshake, a request and the last segment's way come on top.
    assert!(own.contains(" 13.4") || own.contains(" 13.5"), "{own}");
    let speedup = summary.lines().find(|line| line.starts_with("speed-up")).unwrap();
    let speedup: f64 = speedup.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((1.9..=2.0).contains(&speedup), "{speedup}");
    assert!(summary.contains("RD ") && summary.contains("RBD"), "{summary}");
}

#[test]
fn every_fault_of_run_can_be_modelled() {
    let faults = [
        "kill:B@1s",
        "kill:0@1s",
        "stall:C@1s",
        "slow:B@1sx0.1",
        "corrupt-length:C",
        "wrong-range:B",
        "one-shot",
        "per-ip-limit:1",
    ];
    for fault in faults {
        let output = model(&["--size", "16MiB", "--fault", fault, "--json"]);
        let out = text(output.stdout);
        assert!(output.status.success(), "{fault}: {out}");
        let json = out.lines().last().unwrap();
        assert!(json.contains("\"ok\":true"), "{fault}: {json}");
        assert!(!json.contains("\"faults_injected\":0"), "{fault} did not happen: {json}");
    }
    let changed = text(model(&["--size", "16MiB", "--fault", "change:@1s"]).stdout);
    assert!(changed.contains("ended early") && changed.contains("changed"), "{changed}");
}

#[test]
fn an_hour_of_a_neighbourhood_ends_every_download() {
    let output = model(&["--peers", "12", "--hours", "0.5", "--json"]);
    assert!(output.status.success());
    let json = text(output.stdout).lines().last().unwrap().to_string();
    assert!(json.contains("\"broken\":0"), "{json}");
}

#[test]
fn who_hears_whom_is_as_asked_and_who_passes_work_on_is_shown() {
    let output = model(&["--links", "5,5,20,20", "--rtt", "10", "--topology", "chain", "--json"]);
    assert!(output.status.success());
    let summary = text(output.stdout);
    let table = summary.split("passed by B").nth(1).expect("B passes work on");
    for router in ["B own", "C ", "D "] {
        assert!(table.lines().any(|line| line.starts_with(router) && line.contains("MiB")), "{summary}");
    }
    assert!(summary.lines().last().unwrap().contains("\"passed_on\""), "{summary}");
    let star = text(model(&["--size", "16MiB", "--topology", "star"]).stdout);
    assert!(!star.contains("passed by"), "{star}");
}

#[test]
fn random_neighbourhoods_repeat_from_their_seed() {
    let run = |seed: &str| {
        let output = model(&["--topologies", "100", "--seed", seed, "--json"]);
        assert!(output.status.success());
        text(output.stdout)
    };
    assert!(run("3").contains("violations          0"), "{}", run("3"));
    assert_eq!(run("3"), run("3"));
    assert_ne!(run("3"), run("4"));
}

#[test]
fn the_adaptive_plan_needs_the_least_time_or_far_less_memory() {
    let out = text(model(&["--plan", "--rtt", "40"]).stdout);
    let row = |name: &str| -> (f64, String) {
        let line = out.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {out}"));
        let mut words = line[32..].split_whitespace();
        let seconds = words.next().unwrap().parse().unwrap();
        words.next();
        (seconds, words.collect())
    };
    let (adaptive, memory) = row("adaptive");
    assert!(memory.ends_with("KiB"), "{memory}");
    for name in ["an equal share", "the same, first line", "1024 KiB", "256 KiB"] {
        assert!(adaptive < row(name).0, "{name}: {out}");
    }
    // Perfect knowledge of links that never change is a little faster, with the file in memory.
    assert!(row("shares as advertised").1.ends_with("MiB"));
}

#[test]
fn wrong_arguments_get_one_line_and_exit_code_2() {
    for wrong in [
        &["--peers", "101"][..],
        &["--hours", "x"],
        &["--plan", "--hours", "1"],
        &["--file", "x"],
        &["--links", "5", "--peers", "3"],
        &["--topology", "ring"],
        &["--topologies", "0"],
        &["--topologies", "5", "--promises"],
        &["--nonsense"],
    ] {
        let output = model(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert_eq!(text(output.stderr).lines().count(), 1, "{wrong:?}");
    }
}
