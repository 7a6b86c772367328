//! What `bamqp status`, `peers` and `trust` show of a running daemon. Not responsible for its form
//! ([`super::document`]) nor for who may ask.

mod helping;

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use bamqp_core::channel::Refusal;
use bamqp_core::discover::Heard;
use bamqp_core::message::reason::{DeclineReason, DropReason};
use bamqp_core::trust::{Alert, PROBATION, Standing};

use super::document::{Cell, Document, Name, Section, Unit, score, span};
use super::{LaneReport, SessionReport};
use crate::clock;
use crate::daemon::Shared;
use crate::discover::Report;
use crate::keys::fingerprint_of;
use crate::peers::{PeerState, PeerView};
use crate::trust_store::TrustView;

/// What the daemon may come to take, and how much of what there may be at a time.
fn memory(shared: &Shared) -> Vec<(Name, Cell)> {
    let budget = &shared.budget;
    vec![
        (("memory_at_most", Unit::Bytes), budget.total().into()),
        (("half_of_what_was_available", Unit::Bytes), budget.allowed.into()),
        (("program", Unit::Bytes), budget.program.into()),
        (("downloads", Unit::Bytes), budget.downloads.into()),
        (("clients", Unit::Bytes), budget.clients.into()),
        (("for_other_routers", Unit::Bytes), budget.peers.into()),
        (("sockets", Unit::Bytes), budget.sockets.into()),
        (("buffer_of_a_socket", Unit::Bytes), budget.buffer.into()),
        (("window", Unit::Bytes), shared.config.window.into()),
        (("max_sessions", Unit::Count), u32::from(budget.counts.sessions).into()),
        (("max_clients", Unit::Count), u32::from(budget.counts.clients).into()),
        (("max_peer_sessions", Unit::Count), u32::from(budget.counts.peer_sessions).into()),
        (("max_threads", Unit::Count), budget.threads.into()),
    ]
}

/// Announcements on the neighbours' link.
fn discovery(shared: &Shared) -> Vec<(Name, Cell)> {
    let Report { state, counts, routers } = shared.discovery.report();
    vec![
        (("discovery", Unit::Text), state.into()),
        (("routers_heard", Unit::Count), routers.into()),
        (("announcements_sent", Unit::Count), counts.sent.into()),
        (("announcements_heard", Unit::Count), counts.heard.into()),
        (("malformed", Unit::Count), counts.malformed.into()),
        (("not_of_the_link", Unit::Count), counts.off_link.into()),
        (("not_kept", Unit::Count), counts.not_kept.into()),
    ]
}

/// The router as a whole, its downloads and their lanes.
pub fn status(shared: &Shared) -> Document {
    let counters = &shared.counters;
    let count = |counter: &std::sync::atomic::AtomicU32| counter.load(Ordering::Relaxed);
    let serving = shared.serve.report();
    let refused = shared.keyring.report();
    let tally = refused.tally;
    let reload = shared.reload.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let reload = Some(reload).filter(|told| !told.is_empty());
    let facts = vec![
        (("router", Unit::Text), shared.keyring.me().fingerprint().to_string().into()),
        (("version", Unit::Text), env!("CARGO_PKG_VERSION").into()),
        (("running", Unit::Seconds), shared.trust.now().running.into()),
        (("own_link", Unit::Rate), shared.own_link.rate().into()),
        (("peers", Unit::Count), shared.peers.len().into()),
        (("usable_peers", Unit::Count), shared.peers.usable().into()),
        (("client_connections", Unit::Count), count(&counters.connections).into()),
        (("requests", Unit::Count), count(&counters.requests).into()),
        (("refused", Unit::Count), count(&counters.refused).into()),
        (("failed", Unit::Count), count(&counters.failed).into()),
        (("sessions_for_peers", Unit::Count), serving.sessions.into()),
        (("malformed_by_routers", Unit::Count), serving.malformed.into()),
        (("routers_turned_away", Unit::Count), serving.turned_away.into()),
        (("signatures_made", Unit::Count), tally.signed.into()),
        (("signatures_verified", Unit::Count), tally.verified.into()),
        (("last_reload", Unit::Text), reload.into()),
    ];
    let messages = Refusal::ALL.into_iter().map(|refusal| (refusal.to_string(), refused.refused(refusal)));
    let inits = DeclineReason::ALL.into_iter().map(|reason| (reason.to_string(), serving.declined(reason)));
    let unknown = core::iter::once((DropReason::UnknownSession.to_string(), serving.unknown));
    let refusals = messages.chain(inits).chain(unknown).filter(|(_, count)| *count > 0);
    let refusals = refusals.map(|(reason, count)| vec![reason.into(), count.into()]).collect();
    let helped = helping::neighbours(shared);
    let avoided = avoided(shared);
    let reports = shared.sessions.reports();
    let sessions = reports.iter().map(session).collect();
    let lanes = reports.iter().flat_map(|report| report.lanes.iter().map(|one| lane(report, one))).collect();
    Document(vec![
        Section::Facts("router", facts),
        // What other routers sent and was not done, and why.
        Section::Table("refused_messages", vec![("reason", Unit::Text), ("count", Unit::Count)], refusals),
        Section::Facts("helping", helping::facts(shared)),
        Section::Table("neighbours_helped", helped.0, helped.1),
        Section::Table(
            "origins_not_pooled",
            vec![
                ("origin", Unit::Text),
                ("address", Unit::Text),
                ("reason", Unit::Text),
                ("left", Unit::Seconds),
            ],
            avoided,
        ),
        Section::Facts("memory", memory(shared)),
        Section::Facts("discovery", discovery(shared)),
        Section::Table(
            "sessions",
            vec![
                ("session", Unit::Text),
                ("outcome", Unit::Text),
                ("for", Unit::Text),
                ("delivered", Unit::Bytes),
                ("of", Unit::Bytes),
                ("buffer", Unit::Bytes),
                ("target", Unit::Text),
            ],
            sessions,
        ),
        Section::Table(
            "lanes",
            vec![
                ("session", Unit::Text),
                ("lane", Unit::Text),
                ("state", Unit::Text),
                ("brought", Unit::Bytes),
                ("rate", Unit::Rate),
                ("round_trip", Unit::Micros),
                ("requests", Unit::Count),
                ("timeouts", Unit::Count),
                ("failures", Unit::Count),
                ("withdrawals", Unit::Count),
                ("violations", Unit::Count),
                ("duplicates", Unit::Bytes),
                ("checked", Unit::Bytes),
                ("mismatches", Unit::Count),
                ("verdict", Unit::Text),
            ],
            lanes,
        ),
    ])
}

/// Origins that earlier downloads taught not to pool.
fn avoided(shared: &Shared) -> Vec<Vec<Cell>> {
    let now = std::time::Instant::now();
    let row = |memory: &crate::origin_memory::Memory| {
        vec![
            memory.authority().into(),
            memory.address().to_string().into(),
            memory.lesson.to_string().into(),
            memory.left(now).as_secs().into(),
        ]
    };
    shared.origins.views(now).iter().map(row).collect()
}

fn session(report: &SessionReport) -> Vec<Cell> {
    vec![
        report.id.to_string().into(),
        report.outcome.as_deref().unwrap_or("under way").into(),
        report.coordinator.map_or("a client".to_owned(), |router| format!("router {router}")).into(),
        report.delivered.into(),
        report.range.end.saturating_sub(report.range.start).into(),
        report.window_used.into(),
        report.target.as_str().into(),
    ]
}

fn lane(report: &SessionReport, lane: &LaneReport) -> Vec<Cell> {
    vec![
        report.id.to_string().into(),
        lane.name.as_str().into(),
        lane.state.as_str().into(),
        lane.bytes.into(),
        lane.rate.into(),
        lane.rtt_us.into(),
        lane.requests.into(),
        lane.timeouts.into(),
        lane.failures.into(),
        lane.withdrawals.into(),
        lane.violations.into(),
        lane.duplicates.into(),
        lane.checked.into(),
        lane.mismatches.into(),
        lane.verdict.as_deref().unwrap_or("-").into(),
    ]
}

/// The peers: whether they are there, what they offer, and what the last session decided about them and why.
pub fn peers(shared: &Shared) -> Document {
    let columns = vec![
        ("peer", Unit::Text),
        ("address", Unit::Text),
        ("state", Unit::Text),
        ("standing", Unit::Text),
        ("round_trip", Unit::Micros),
        ("offers", Unit::Rate),
        ("sessions", Unit::Count),
        ("its_round_trip", Unit::Micros),
        ("losses", Unit::Count),
        ("last_rate", Unit::Rate),
        ("not_for", Unit::Seconds),
        ("decided", Unit::Seconds),
        ("decision", Unit::Text),
        ("key", Unit::Text),
    ];
    let row = |view: &PeerView| {
        let (state, rtt, details) = match &view.state {
            PeerState::Up { rtt, details } => ("up".to_owned(), Some(rtt.as_micros() as u64), *details),
            PeerState::Down(why) => (format!("down: {why}"), None, None),
        };
        let known = |number: u64| Some(number).filter(|number| *number > 0);
        vec![
            view.name.as_str().into(),
            view.address.to_string().into(),
            state.into(),
            shared.trust.standing(view.key).to_string().into(),
            rtt.into(),
            details.and_then(|details| known(details.bandwidth / 8)).into(),
            details.map(|details| details.load).into(),
            details.and_then(|details| known(details.rtt.as_micros())).into(),
            view.losses.into(),
            view.rate.into(),
            view.not_for.map(|span| span.as_millis() / 1000).into(),
            view.verdict.map(|(_, ago)| ago.as_secs()).into(),
            view.verdict.map(|(verdict, _)| verdict.to_string()).into(),
            view.key.to_string().into(),
        ]
    };
    Document(vec![
        Section::Table("peers", columns, shared.peers.views().iter().map(row).collect()),
        heard(shared),
    ])
}

/// The routers that announce themselves: what they say, and how that fits what is configured.
fn heard(shared: &Shared) -> Section {
    let columns = vec![
        ("heard", Unit::Text),
        ("address", Unit::Text),
        ("age", Unit::Seconds),
        ("note", Unit::Text),
        ("key", Unit::Text),
    ];
    let (all, now) = (shared.discovery.heard(), clock::now());
    let row = |one: &Heard| {
        let peers = &shared.config.peers;
        let namesake = |name: &str, key| name == one.name.as_str() && key != one.public_key;
        let is_ambiguous = || {
            all.iter().any(|other| namesake(other.name.as_str(), other.public_key))
                || peers.iter().any(|peer| namesake(&peer.name, peer.public_key))
        };
        let note = match peers.iter().find(|peer| peer.public_key == one.public_key) {
            Some(peer) if peer.address == one.address => Some(format!("is peer {}", peer.name)),
            Some(peer) => Some(format!("has the key of peer {}, at another address", peer.name)),
            None => is_ambiguous().then(|| "another router has this name: go by the key".into()),
        };
        vec![
            one.name.as_str().into(),
            one.address.to_string().into(),
            (now.since(one.last).as_millis() / 1000).into(),
            note.into(),
            fingerprint_of(&one.public_key).to_string().into(),
        ]
    };
    Section::Table("heard", columns, all.iter().map(row).collect())
}

/// The trust records: the verdict on each peer with its reason, and its last sessions.
pub fn trust(shared: &Shared) -> Document {
    let views = shared.trust.views();
    let columns = vec![
        ("peer", Unit::Text),
        ("standing", Unit::Text),
        ("reason", Unit::Text),
        ("trust", Unit::Score),
        ("untrust", Unit::Score),
        ("reliability", Unit::Score),
        ("sessions", Unit::Count),
        ("clean", Unit::Count),
        ("timeouts", Unit::Count),
        ("drops", Unit::Count),
        ("brought", Unit::Bytes),
        ("violation", Unit::Text),
        ("violation_age", Unit::Seconds),
        ("accused_by", Unit::Text),
        ("accused_age", Unit::Seconds),
        ("key", Unit::Text),
    ];
    let row = |view: &TrustView| {
        let scores = &view.scores;
        vec![
            view.name.as_str().into(),
            view.standing.to_string().into(),
            reason(view).into(),
            scores.trust.into(),
            scores.untrust.into(),
            scores.reliability.into(),
            scores.sums.sessions.into(),
            scores.sums.clean.into(),
            scores.sums.timeouts.into(),
            scores.sums.drops.into(),
            scores.sums.bytes.into(),
            view.violation.map(|(why, _)| why.to_string()).into(),
            view.violation.map(|(_, ago)| ago).into(),
            view.alert.map(|(alert, _)| accuser(shared, alert)).into(),
            view.alert.map(|(_, ago)| ago).into(),
            view.key.to_string().into(),
        ]
    };
    let transactions = vec![
        ("peer", Unit::Text),
        ("age", Unit::Seconds),
        ("sessions", Unit::Count),
        ("satisfaction", Unit::Score),
        ("untrust", Unit::Score),
        ("timeouts", Unit::Count),
        ("drops", Unit::Count),
        ("brought", Unit::Bytes),
    ];
    let history = views.iter().flat_map(|view| {
        view.recent.iter().map(|(age, one)| {
            let sums = &one.sums;
            let mean = |sum: u32| sum / sums.sessions.max(1);
            vec![
                view.name.as_str().into(),
                (*age).into(),
                sums.sessions.into(),
                mean(sums.satisfaction).into(),
                mean(sums.untrust).into(),
                sums.timeouts.into(),
                sums.drops.into(),
                sums.bytes.into(),
            ]
        })
    });
    Document(vec![
        Section::Table("trust", columns, views.iter().map(row).collect()),
        Section::Table("recent_sessions", transactions, history.collect()),
    ])
}

/// Why a peer stands where it stands.
fn reason(view: &TrustView) -> String {
    let (trust, untrust) = (score(view.scores.trust.into()), score(view.scores.untrust.into()));
    match view.standing {
        Standing::Newcomer { clean: 0 } => "no clean session yet".into(),
        Standing::Newcomer { clean } => format!("{clean} of {PROBATION} clean sessions"),
        Standing::Trusted { accused: false } => format!("T {trust} > U {untrust}, no violation lately"),
        Standing::Trusted { accused: true } => format!("T {trust} > U {untrust}, but accused: fully checked"),
        Standing::Barred { why, left } => format!("{why}; {} of running time left", span(left.into())),
        Standing::Untrusted { left } => {
            format!("T {trust} <= U {untrust}; {} of running time left", span(left.into()))
        }
    }
}

/// Who says so: a peer's name, or its key; `own` if we found it out ourselves.
fn accuser(shared: &Shared, alert: Alert) -> String {
    let Some(by) = alert.by else { return "own".into() };
    let name = shared.peers.views().into_iter().find(|view| view.key == by).map(|view| view.name);
    name.unwrap_or_else(|| by.to_string())
}
