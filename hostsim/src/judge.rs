//! Whether those were found out who had to be: liars, and origins that serve different bytes under one validator. Not
//! responsible for whether the client's bytes were right.

use bamqp_core::transfer::Dispute;
use bamqp_router::status::{LaneReport, SessionReport};

use crate::args::Options;
use crate::fault::{Fault, router_name, variant_of};
use crate::report::{Again, Lane};

/// What the coordinator says of a liar when it is to be picked again.
const BARRED: &str = "not asked: barred (lie)";

/// What is wrong with the coordinator's findings, a line each. `done` tells whether a fault has happened, `session` is the
/// pooled download, `again` the one after it.
pub fn judge(
    options: &Options,
    done: impl Fn(&Fault) -> bool,
    session: Option<&SessionReport>,
    again: Option<&(Again, Option<SessionReport>)>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let liars: Vec<String> = options.faults.iter().filter_map(Fault::liar).map(router_name).collect();
    let second = again.and_then(|(_, session)| session.as_ref());
    for lane in session.into_iter().chain(second).flat_map(|session| &session.lanes) {
        if is(lane, Dispute::Lie) && !liars.contains(&lane.name) {
            wrong.push(format!("{} is blamed for a lie, and did not lie", lane.name));
        }
    }
    let Some(session) = session else { return wrong };
    // What others find out, or whether they are there, depends on what else goes wrong.
    let [fault] = &options.faults[..] else { return wrong };
    if !done(fault) {
        return wrong;
    }
    let peers = options.links.len() - 1;
    match fault.liar() {
        Some(liar) => wrong.extend(judge_liar(&router_name(liar), peers, session, again)),
        None => {
            if let Fault::Busy { router, .. } = fault {
                wrong.extend(judge_helper(&router_name(*router), session));
            }
            if let Fault::Variant { count } = fault {
                let others = (1..=peers).filter(|router| variant_of(*router, *count) != 0);
                let others: Vec<String> = others.map(router_name).collect();
                wrong.extend(judge_origin(&others, peers, session));
            }
        }
    }
    wrong
}

/// A router helps one other at a time with one download, so that no link is promised twice. `sessions` are the lanes of each
/// router that has split the work.
pub fn judge_helpers(sessions: impl Iterator<Item = Vec<Lane>>) -> Vec<String> {
    let mut helped = Vec::new();
    let mut wrong = Vec::new();
    for lane in sessions.flatten().filter(|lane| lane.bytes > 0 && !lane.name.contains(' ')) {
        if helped.contains(&lane.name) {
            wrong.push(format!("{} has worked for two routers in one download", lane.name));
        }
        helped.push(lane.name);
    }
    wrong
}

fn judge_liar(
    liar: &str,
    peers: usize,
    session: &SessionReport,
    again: Option<&(Again, Option<SessionReport>)>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let Some(lane) = session.lanes.iter().find(|lane| lane.name == liar) else { return wrong };
    if lane.bytes == 0 && lane.mismatches == 0 {
        return wrong; // nothing that it brought was needed
    }
    // Without a third router nobody can say who is right.
    let expected = if peers > 1 { Dispute::Lie } else { Dispute::Open };
    if !is(lane, expected) {
        wrong.push(format!("{liar} lied, and the verdict is {}, not {expected}", verdict(lane)));
    }
    let Some((again, second)) = again.filter(|_| peers > 1) else { return wrong };
    let said = again.peers.iter().find(|(name, _)| name == liar).map_or("not known", |(_, said)| said);
    if said != BARRED {
        wrong.push(format!("{liar} lied, and when it is to be picked again it is {said}"));
    }
    if second.as_ref().is_some_and(|second| second.lanes.iter().any(|lane| lane.name == liar)) {
        wrong.push(format!("{liar} lied, and takes part again"));
    }
    wrong
}

/// A helper whose household woke up while it brought something has to withdraw.
fn judge_helper(helper: &str, session: &SessionReport) -> Option<String> {
    let lane = session.lanes.iter().find(|lane| lane.name == helper && lane.bytes > 0)?;
    let went_on = || format!("the household of {helper} took its line, and {helper} went on helping");
    (lane.withdrawals == 0).then(went_on)
}

/// `others` are the peers that get another variant than the own link.
fn judge_origin(others: &[String], peers: usize, session: &SessionReport) -> Vec<String> {
    let mut wrong = Vec::new();
    let got = session.lanes.iter().filter(|lane| others.contains(&lane.name));
    if got.clone().all(|lane| lane.bytes == 0 && lane.mismatches == 0) {
        return wrong; // nothing of another variant was compared
    }
    // A single peer that gets other bytes has nobody on its side, and nobody against it.
    let expected = if peers > 1 { Dispute::Origin } else { Dispute::Open };
    if !got.clone().any(|lane| is(lane, expected)) {
        let all: Vec<String> = got.map(|lane| format!("{}: {}", lane.name, verdict(lane))).collect();
        wrong.push(format!(
            "the origin served variants, and nobody's verdict is {expected} ({})",
            all.join(", ")
        ));
    }
    wrong
}

fn is(lane: &LaneReport, verdict: Dispute) -> bool {
    lane.verdict.as_deref() == Some(verdict.to_string().as_str())
}

fn verdict(lane: &LaneReport) -> &str {
    lane.verdict.as_deref().unwrap_or("none")
}

#[cfg(test)]
mod tests {
    use bamqp_core::message::SessionId;
    use std::time::Duration;

    use super::*;
    use crate::report::Phase;

    fn options(links: &str, fault: &str) -> Options {
        let line = ["--links", links, "--fault", fault];
        Options::parse(pico_args::Arguments::from_vec(line.map(Into::into).to_vec())).unwrap()
    }

    /// A session in which all brought something, with these peers' verdicts.
    fn session(peers: &[(&str, Option<&str>)]) -> SessionReport {
        let lane = |(name, verdict): &(&str, Option<&str>)| LaneReport {
            name: (*name).into(),
            bytes: 1,
            requests: 1,
            timeouts: 0,
            failures: 0,
            withdrawals: 0,
            violations: 0,
            duplicates: 0,
            checked: 0,
            mismatches: u32::from(verdict.is_some()),
            verdict: verdict.map(Into::into),
            copied: 0,
            rate: 1,
            rtt_us: 1,
            state: "up".into(),
        };
        SessionReport {
            id: SessionId([1; 16]),
            target: "http://origin/".into(),
            coordinator: None,
            range: 0..4,
            total: 4,
            delivered: 4,
            window_used: 1,
            outcome: Some("complete".into()),
            lanes: peers.iter().map(lane).collect(),
        }
    }

    fn again(said: &str, session: SessionReport) -> (Again, Option<SessionReport>) {
        let phase = Phase {
            took: Duration::ZERO,
            first_byte: None,
            received: 4,
            right: true,
            verdict: "SHA-256 right".into(),
        };
        (Again { phase, peers: vec![("B".into(), said.into()), ("C".into(), "asked".into())] }, Some(session))
    }

    #[test]
    fn a_liar_has_to_be_named_and_left_out() {
        let options = options("9,9,9", "lie:B");
        let named = session(&[("B", Some("lie")), ("C", None)]);
        let without = || session(&[("C", None)]);
        let judge = |session: SessionReport, again: (Again, Option<SessionReport>)| {
            super::judge(&options, |_| true, Some(&session), Some(&again)).len()
        };
        assert_eq!(judge(named.clone(), again(BARRED, without())), 0);
        assert_eq!(judge(named.clone(), again("asked", named.clone())), 2);
        assert_eq!(judge(session(&[("B", None), ("C", None)]), again(BARRED, without())), 1);
        assert_eq!(judge(session(&[("B", Some("open")), ("C", Some("lie"))]), again(BARRED, without())), 2);
        assert_eq!(super::judge(&options, |_| false, Some(&session(&[("B", None)])), None).len(), 0);
    }

    #[test]
    fn without_a_third_router_nobody_can_say_who_lied() {
        let options = options("9,9", "lie:B");
        let judge = |verdict| judge(&options, |_| true, Some(&session(&[("B", verdict)])), None).len();
        assert_eq!((judge(Some("open")), judge(Some("lie")), judge(None)), (0, 1, 1));
    }

    #[test]
    fn a_helper_whose_household_wakes_up_has_to_withdraw() {
        let options = options("9,9", "busy:B@1s");
        let judge = |withdrawals| {
            let mut session = session(&[("B", None)]);
            session.lanes[0].withdrawals = withdrawals;
            judge(&options, |_| true, Some(&session), None).len()
        };
        assert_eq!((judge(1), judge(0)), (0, 1));
    }

    #[test]
    fn variants_are_the_origins_fault() {
        let options = options("9,9,9,9", "variant:2");
        let judge = |session| judge(&options, |_| true, Some(&session), None).len();
        let all = |b, d| session(&[("B", b), ("C", None), ("D", d)]);
        assert_eq!(judge(all(Some("inconsistent origin"), None)), 0);
        assert_eq!(judge(all(None, Some("inconsistent origin"))), 0);
        assert_eq!(judge(all(None, None)), 1);
        assert_eq!(judge(all(Some("lie"), Some("inconsistent origin"))), 1);
        assert_eq!(judge(session(&[("C", Some("lie"))])), 1, "it is blamed, and is honest");
    }
}
