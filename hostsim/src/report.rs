//! The result of a run, for people and as JSON. Not responsible for measuring.

use std::fmt::Write;
use std::time::Duration;

/// What one of the two downloads came to.
#[derive(Clone, Debug)]
pub struct Phase {
    /// Until the last byte, or until it ended otherwise.
    pub took: Duration,
    /// Until the first byte of the body.
    pub first_byte: Option<Duration>,
    /// Bytes that came.
    pub received: u64,
    /// All bytes came and their SHA-256 is the file's.
    pub right: bool,
    /// In words.
    pub verdict: String,
}

impl Phase {
    /// Bits per second over the whole download.
    pub fn goodput(&self) -> f64 {
        self.received as f64 * 8.0 / self.took.as_secs_f64().max(1e-6)
    }
}

/// What one lane did in the pooled download.
#[derive(Clone, Debug)]
pub struct Lane {
    /// `A original` and `A own` are the own link, B, C… the peers.
    pub name: String,
    /// Useful payload.
    pub bytes: u64,
    /// Range requests.
    pub requests: u32,
    /// Requests that it let wait too long.
    pub timeouts: u32,
    /// Other failures of its connections.
    pub failures: u32,
    /// Answers that may not be combined.
    pub violations: u32,
    /// Bytes that another lane had brought before.
    pub duplicates: u64,
    /// Bytes that were fetched only to check others, heads included.
    pub checked: u64,
    /// What was found where it differed from the own link: `lie`, `inconsistent origin`, `open`.
    pub verdict: Option<String>,
    /// How it ended, in a word.
    pub state: String,
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Report {
    /// What randomness followed from.
    pub seed: u64,
    /// Bytes of the file.
    pub size: u64,
    /// Sum of the links, in bits per second.
    pub limit: f64,
    /// Over the own link alone.
    pub own: Phase,
    /// Over all links.
    pub pooled: Phase,
    /// Largest use of the window, in bytes.
    pub window_used: u32,
    /// How the coordinator says that pooling ended; `None` if it did not pool.
    pub outcome: Option<String>,
    /// Each fault asked for, and whether it happened.
    pub faults: Vec<(String, bool)>,
    /// How often something was made to go wrong.
    pub faults_injected: u64,
    /// In the order of the links.
    pub lanes: Vec<Lane>,
    /// The routers that have passed work on.
    pub passed_on: Vec<PassedOn>,
    /// A second pooled download, after somebody was found out.
    pub again: Option<Again>,
    /// Who should have been found out and was not, or was and should not: a line each.
    pub wrong: Vec<String>,
}

/// What a router had its own peers do.
#[derive(Clone, Debug)]
pub struct PassedOn {
    /// Which.
    pub router: String,
    /// Its own link, and those peers.
    pub lanes: Vec<Lane>,
}

/// The second pooled download.
#[derive(Clone, Debug)]
pub struct Again {
    /// What it came to.
    pub phase: Phase,
    /// Each peer, and whether it was asked or why not.
    pub peers: Vec<(String, String)>,
}

impl Report {
    /// The bytes were right each time, and the right ones were found out.
    pub fn ok(&self) -> bool {
        let again = self.again.as_ref().is_none_or(|again| again.phase.right);
        self.own.right && self.pooled.right && again && self.wrong.is_empty()
    }

    /// Bytes of the pooled download that were fetched only to check peers, heads included.
    pub fn checked(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.checked).sum()
    }

    /// The same as a share of the payload.
    pub fn check_cost(&self) -> f64 {
        self.checked() as f64 / self.pooled.received.max(1) as f64
    }

    /// How much faster pooled was than the own link alone; only if both brought the file.
    pub fn speedup(&self) -> Option<f64> {
        let both = self.own.right && self.pooled.right;
        both.then(|| self.own.took.as_secs_f64() / self.pooled.took.as_secs_f64().max(1e-6))
    }

    /// Goodput of the pooled download as a share of the links' sum.
    pub fn efficiency(&self) -> f64 {
        self.pooled.goodput() / self.limit
    }

    /// The aligned summary, several lines.
    pub fn summary(&self) -> String {
        let mut out = String::new();
        let mut line = |text: String| {
            out.push_str(text.trim_end());
            out.push('\n');
        };
        let phase = |name: &str, phase: &Phase| {
            format!(
                "{name:<11}{:>8.2} s  {:>11}  first byte {:>9}  {}",
                phase.took.as_secs_f64(),
                mbits(phase.goodput()),
                phase.first_byte.map_or("never".into(), |at| format!("{:.1} ms", millis(at))),
                phase.verdict
            )
        };
        line(phase("own link", &self.own));
        line(phase("pooled", &self.pooled));
        match self.speedup() {
            Some(speedup) => line(format!("{:<11}{speedup:>8.2}", "speed-up")),
            None => line(format!("{:<11}{:>8}", "speed-up", "none")),
        }
        line(format!("{:<11}{:>8.3}    of {}", "efficiency", self.efficiency(), mbits(self.limit)));
        line(format!("{:<11}{:>12}", "window used", size(u64::from(self.window_used))));
        let (cost, checked) = (self.check_cost() * 100.0, size(self.checked()));
        line(format!(
            "{:<11}{cost:>8.2} %  of the payload: {checked} fetched only to check peers",
            "checking"
        ));
        for (fault, happened) in &self.faults {
            let what = if *happened { "happened" } else { "did not happen: nothing gave it the occasion" };
            line(format!("{:<11}{fault}: {what}", "fault"));
        }
        line(match &self.outcome {
            Some(outcome) => format!("{:<11}{outcome}", "pooling"),
            None => format!("{:<11}none: the download was relayed", "pooling"),
        });
        let tables = core::iter::once(("lane".to_owned(), &self.lanes));
        let passed_on = self.passed_on.iter().map(|by| (format!("passed by {}", by.router), &by.lanes));
        for (name, lanes) in tables.chain(passed_on).filter(|(_, lanes)| !lanes.is_empty()) {
            let total = lanes.iter().map(|lane| lane.bytes).sum::<u64>().max(1) as f64;
            let head = [
                name.as_str(),
                "payload",
                "share",
                "requests",
                "timeouts",
                "failures",
                "violations",
                "repeated",
                "checking",
                "state",
            ];
            line(format!(
                "{:<11}{:>12}{:>7}{:>10}{:>10}{:>10}{:>12}{:>11}{:>11}  {}",
                head[0], head[1], head[2], head[3], head[4], head[5], head[6], head[7], head[8], head[9]
            ));
            for lane in lanes {
                line(format!(
                    "{:<11}{:>12}{:>5.0} %{:>10}{:>10}{:>10}{:>12}{:>11}{:>11}  {}",
                    lane.name,
                    size(lane.bytes),
                    lane.bytes as f64 * 100.0 / total,
                    lane.requests,
                    lane.timeouts,
                    lane.failures,
                    lane.violations,
                    size(lane.duplicates),
                    size(lane.checked),
                    match &lane.verdict {
                        Some(verdict) => format!("{}: {verdict}", lane.state),
                        None => lane.state.clone(),
                    }
                ));
            }
        }
        if let Some(again) = &self.again {
            line(phase("again", &again.phase));
            for (peer, verdict) in &again.peers {
                line(format!("{:<11}peer {peer}: {verdict}", ""));
            }
        }
        for wrong in &self.wrong {
            line(format!("{:<11}{wrong}", "WRONG"));
        }
        out
    }

    /// One JSON object without line ends; numbers that do not exist are null.
    pub fn json(&self) -> String {
        let mut out = String::from("{");
        let mut field = |name: &str, value: String| {
            let comma = if out.len() == 1 { "" } else { "," };
            let _ = write!(out, "{comma}\"{name}\":{value}");
        };
        let ms = |at: Option<Duration>| at.map_or("null".into(), |at| format!("{:.3}", millis(at)));
        field("ok", self.ok().to_string());
        field("own_seconds", format!("{:.3}", self.own.took.as_secs_f64()));
        field("pooled_seconds", format!("{:.3}", self.pooled.took.as_secs_f64()));
        field("speedup", self.speedup().map_or("null".into(), |speedup| format!("{speedup:.3}")));
        field("goodput_bps", format!("{:.0}", self.pooled.goodput()));
        field("limit_bps", format!("{:.0}", self.limit));
        field("efficiency", format!("{:.4}", self.efficiency()));
        field("first_byte_ms", ms(self.pooled.first_byte));
        field("own_first_byte_ms", ms(self.own.first_byte));
        field("window_used", self.window_used.to_string());
        field("faults_injected", self.faults_injected.to_string());
        field("check_cost", format!("{:.4}", self.check_cost()));
        let lanes: Vec<String> = self.lanes.iter().map(lane_json).collect();
        field("lanes", format!("[{}]", lanes.join(",")));
        let passed_on: Vec<String> = self.passed_on.iter().map(passed_on_json).collect();
        field("passed_on", format!("[{}]", passed_on.join(",")));
        field("again", self.again.as_ref().map_or("null".into(), again_json));
        let wrong: Vec<String> = self.wrong.iter().map(|wrong| quoted(wrong)).collect();
        field("wrong", format!("[{}]", wrong.join(",")));
        out.push('}');
        out
    }
}

fn lane_json(lane: &Lane) -> String {
    format!(
        "{{\"name\":{},\"bytes\":{},\"requests\":{},\"timeouts\":{},\"violations\":{},\"checked\":{},\"verdict\":{}}}",
        quoted(&lane.name),
        lane.bytes,
        lane.requests,
        lane.timeouts,
        lane.violations,
        lane.checked,
        lane.verdict.as_deref().map_or("null".into(), quoted)
    )
}

fn passed_on_json(by: &PassedOn) -> String {
    let lanes: Vec<String> = by.lanes.iter().map(lane_json).collect();
    format!("{{\"router\":{},\"lanes\":[{}]}}", quoted(&by.router), lanes.join(","))
}

fn again_json(again: &Again) -> String {
    let peer = |(name, verdict): &(String, String)| {
        format!("{{\"name\":{},\"verdict\":{}}}", quoted(name), quoted(verdict))
    };
    let peers: Vec<String> = again.peers.iter().map(peer).collect();
    format!(
        "{{\"right\":{},\"seconds\":{:.3},\"peers\":[{}]}}",
        again.phase.right,
        again.phase.took.as_secs_f64(),
        peers.join(",")
    )
}

/// A JSON string (RFC 8259 section 7).
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn millis(at: Duration) -> f64 {
    at.as_secs_f64() * 1000.0
}

/// `47.1 Mbit/s`.
pub fn mbits(bits_per_second: f64) -> String {
    format!("{:.1} Mbit/s", bits_per_second / 1e6)
}

/// `20.0 MiB`, in the largest unit that leaves a one before the point.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let phase = |ms, received, right| Phase {
            took: Duration::from_millis(ms),
            first_byte: Some(Duration::from_micros(61_500)),
            received,
            right,
            verdict: "SHA-256 right".into(),
        };
        let lane = |name: &str, bytes| Lane {
            name: name.into(),
            bytes,
            requests: 12,
            timeouts: 1,
            failures: 0,
            violations: 0,
            duplicates: 0,
            checked: 500,
            verdict: None,
            state: "done".into(),
        };
        Report {
            seed: 7,
            size: 1_000_000,
            limit: 4_000_000.0,
            own: phase(5_000, 1_000_000, true),
            pooled: phase(2_500, 1_000_000, true),
            window_used: 65_536,
            outcome: Some("complete".into()),
            faults: vec![("kill:B@1s".into(), true)],
            faults_injected: 1,
            lanes: vec![lane("A", 600_000), lane("\"B\"", 400_000)],
            passed_on: Vec::new(),
            again: None,
            wrong: Vec::new(),
        }
    }

    #[test]
    fn json_is_what_others_rely_on() {
        assert_eq!(
            report().json(),
            "{\"ok\":true,\"own_seconds\":5.000,\"pooled_seconds\":2.500,\"speedup\":2.000,\
             \"goodput_bps\":3200000,\"limit_bps\":4000000,\"efficiency\":0.8000,\"first_byte_ms\":61.500,\
             \"own_first_byte_ms\":61.500,\"window_used\":65536,\"faults_injected\":1,\"check_cost\":0.0010,\"lanes\":[\
             {\"name\":\"A\",\"bytes\":600000,\"requests\":12,\"timeouts\":1,\"violations\":0,\
             \"checked\":500,\"verdict\":null},\
             {\"name\":\"\\\"B\\\"\",\"bytes\":400000,\"requests\":12,\"timeouts\":1,\"violations\":0,\
             \"checked\":500,\"verdict\":null}],\"passed_on\":[],\"again\":null,\"wrong\":[]}"
        );
    }

    #[test]
    fn who_was_not_found_out_makes_a_run_fail() {
        let mut report = report();
        let peers = vec![("B".into(), "not asked: barred (lie)".into())];
        report.again = Some(Again { phase: report.pooled.clone(), peers });
        assert!(report.ok());
        assert!(report.summary().contains("peer B: not asked: barred (lie)"));
        report.wrong.push("C is blamed".into());
        assert!(!report.ok() && report.speedup().is_some());
        let json = report.json();
        assert!(
            json.contains(
                "\"again\":{\"right\":true,\"seconds\":2.500,\"peers\":[{\"name\":\"B\",\
                 \"verdict\":\"not asked: barred (lie)\"}]},\"wrong\":[\"C is blamed\"]}"
            ),
            "{json}"
        );
    }

    #[test]
    fn a_broken_download_has_no_speed_up() {
        let mut report = report();
        report.pooled.right = false;
        report.pooled.first_byte = None;
        assert!(!report.ok());
        let json = report.json();
        assert!(json.contains("\"ok\":false") && json.contains("\"speedup\":null"), "{json}");
        assert!(json.contains("\"first_byte_ms\":null"), "{json}");
    }
}
