//! With a real nginx as origin and a real curl as client.

use std::fs;
use std::process::Command;

use bamqp_core::trust::{Standing, Violation};
use bamqp_router::control;
use bamqp_router::status::{LaneReport, SessionReport};
use bamqp_router::trust_store::TrustView;
use sha2::{Digest, Sha256};

use crate::common::street::{Neighbourhood, Setup};

/// What goes into `http`: a log of ranges, and who is served which file.
const HTTP: &str = "log_format asked '$remote_addr|$http_range|$status|$connection';
  map $remote_addr $version { default www; @NET@.2.1 lies; }";

/// What goes into `server`. Every connection gets 2 MB/s, so that pooling shows.
const SERVER: &str = "location /asked/ { alias @AT@/www/; limit_rate 2m; access_log @AT@/asked.log asked; }
    location /single/ { alias @AT@/www/; limit_rate 2m; max_ranges 1; access_log @AT@/asked.log asked; }
    location /lied/ { alias @AT@/$version/; limit_rate 2m; }";

fn setup(routers: u8) -> Setup {
    // Here it is about router 1; that others find out who lies when they pass work on is seen in tests/hops.rs.
    let options = |_| " option max_hops '1'\n";
    Setup { routers, nginx: [HTTP.into(), SERVER.into()], options, ..Setup::default() }
}

/// A request that nginx has logged: who asked, how many ranges of which length at most, the status, the connection.
struct Asked {
    who: String,
    ranges: usize,
    longest: u64,
    status: u16,
    connection: u64,
}

/// Of router 1, and those of the others.
fn asked(n: &mut Neighbourhood) -> (Vec<Asked>, Vec<Asked>) {
    n.daemons.clear(); // all that nginx still sends is over
    let log = fs::read_to_string(n.folder.join("asked.log")).unwrap();
    let own = format!("{}.1.1", n.net);
    let length = |range: &str| {
        let (first, last) = range.split_once('-')?;
        Some(last.parse::<u64>().ok()? - first.parse::<u64>().ok()? + 1)
    };
    let line = |line: &str| {
        let fields: Vec<&str> = line.split('|').collect();
        let set = fields[1].strip_prefix("bytes=").unwrap_or_default();
        let lengths: Vec<u64> = set.split(',').filter_map(length).collect();
        Asked {
            who: fields[0].into(),
            ranges: lengths.len(),
            longest: lengths.into_iter().max().unwrap_or(0),
            status: fields[2].parse().unwrap(),
            connection: fields[3].parse().unwrap(),
        }
    };
    log.lines().map(line).partition(|asked| asked.who == own)
}

fn lane<'a>(session: &'a SessionReport, name: &str) -> &'a LaneReport {
    session.lanes.iter().find(|lane| lane.name == name).unwrap_or_else(|| panic!("no {name}: {session:?}"))
}

fn trust(n: &Neighbourhood, router: usize, of: &str) -> TrustView {
    let views = n.daemons[router - 1].shared().trust.views();
    views.into_iter().find(|view| view.name == of).unwrap()
}

#[test]
fn places_go_out_as_one_request_a_chunk_and_signatures_one_a_session() {
    let mut n = Neighbourhood::with(setup(3));
    assert!(n.download("asked", "out", &[]).unwrap() == n.file, "wrong bytes");
    let session = n.ended(1).remove(0);
    assert_eq!(session.outcome.as_deref(), Some("complete"), "{session:?}");
    let peers: Vec<&LaneReport> = ["R2", "R3"].map(|name| lane(&session, name)).into();
    assert!(peers.iter().all(|lane| lane.bytes > 0 && lane.mismatches == 0), "{session:?}");
    let checked: u64 = session.lanes.iter().map(|lane| lane.checked).sum();
    assert!(checked > 0 && checked == lane(&session, "own").checked, "the own link checks: {session:?}");

    // One Ed25519 signature for each peer's session, and one verification there; none for chunks and places.
    for (daemon, expected) in n.daemons.iter().zip([(2, 0), (0, 1), (0, 1)]) {
        let tally = daemon.shared().keyring.report().tally;
        assert_eq!((tally.signed, tally.verified), expected);
    }

    let chunks: u32 = peers.iter().map(|lane| lane.requests).sum();
    let (own, others) = asked(&mut n);
    assert!(
        others.iter().all(|asked| asked.ranges == 1 && asked.status == 206),
        "peers are asked for chunks"
    );
    let several: Vec<&Asked> = own.iter().filter(|asked| asked.ranges > 1).collect();
    assert!(!several.is_empty() && several.len() <= chunks as usize, "{} for {chunks}", several.len());
    assert!(several.iter().all(|asked| asked.status == 206 && asked.longest <= 16));
    assert!(several.iter().any(|asked| asked.ranges > 8), "a newcomer's chunk is looked at in many places");
    // The original response, and the second connection as often as nginx ended it after 20 requests.
    let mut connections: Vec<u64> = own.iter().map(|asked| asked.connection).collect();
    connections.sort_unstable();
    connections.dedup();
    let later = own.iter().filter(|asked| asked.ranges > 0).count();
    assert!(connections.len() <= 2 + later.div_ceil(20) + 1, "{} connections", connections.len());
}

#[test]
fn an_origin_that_answers_one_range_at_a_time_costs_a_connection() {
    let mut n = Neighbourhood::with(setup(3));
    assert!(n.download("single", "out", &[]).unwrap() == n.file, "wrong bytes");
    let session = n.ended(1).remove(0);
    assert_eq!(session.outcome.as_deref(), Some("complete"), "{session:?}");
    for name in ["own", "R2", "R3"] {
        assert!(lane(&session, name).bytes > 0, "{name} brought nothing: {session:?}");
    }
    assert!(lane(&session, "own").checked > 0, "{session:?}");
    let (own, _) = asked(&mut n);
    let several: Vec<&Asked> = own.iter().filter(|asked| asked.ranges > 1).collect();
    let [first] = several[..] else { panic!("asked for several ranges {} times", several.len()) };
    assert_eq!(first.status, 200, "all of the file, as RFC 9110 section 14.2 allows");
    let same = own.iter().filter(|asked| asked.connection == first.connection);
    assert!(same.clone().count() >= 1);
    let place = |asked: &&Asked| asked.ranges == 1 && asked.longest <= 16 && asked.status == 206;
    assert!(own.iter().filter(place).count() > 1, "from then on one place at a time");
    assert!(lane(&session, "own").failures <= 1, "{session:?}");
}

/// From now on router 2 gets a file of the same length and date, and so under the same ETag, of which no byte is right.
fn lie(n: &Neighbourhood) {
    let etag = |from: &str| {
        let from = format!("{}.{from}.1", n.net);
        let out = Command::new("curl").args(["-sI", "--interface", &from, &n.url("lied")]).output().unwrap();
        let head = String::from_utf8(out.stdout).unwrap();
        head.lines().find(|line| line.to_lowercase().starts_with("etag:")).map(str::to_owned)
    };
    put(n, n.file.iter().map(|byte| byte ^ 0x55).collect());
    assert!(etag("1").is_some());
    assert_eq!(etag("1"), etag("2"));
}

/// What router 2 gets, at one stroke.
fn put(n: &Neighbourhood, bytes: Vec<u8>) {
    fs::create_dir_all(n.folder.join("lies")).unwrap();
    let (new, file) = (n.folder.join("lies/new"), n.folder.join("lies/file"));
    fs::write(&new, bytes).unwrap();
    let date = fs::metadata(n.folder.join("www/file")).unwrap().modified().unwrap();
    fs::File::options().write(true).open(&new).unwrap().set_modified(date).unwrap();
    fs::rename(new, file).unwrap();
}

#[test]
fn a_liar_is_found_out_named_and_not_picked_again() {
    let n = Neighbourhood::with(setup(3));
    lie(&n);
    let bytes = n.download("lied", "out", &[]).unwrap();
    assert!(bytes == n.file, "wrong bytes");
    let session = n.ended(1).remove(0);
    let liar = lane(&session, "R2");
    assert_eq!(liar.verdict.as_deref(), Some("lie"), "{session:?}");
    assert_eq!(lane(&session, "R3").verdict, None);
    assert_eq!(session.outcome.as_deref(), Some("complete"));
    let view = trust(&n, 1, "R2");
    assert!(matches!(view.standing, Standing::Barred { why: Violation::Lie, .. }), "{view:?}");
    let honest = trust(&n, 1, "R3");
    assert_eq!(honest.standing, Standing::Newcomer { clean: 1 }, "{honest:?}");
    let told = control::ask(&n.folder.join("R1"), "trust").unwrap();
    let line =
        told.lines().find(|line| line.trim_start().starts_with("R2 ")).unwrap_or_else(|| panic!("{told}"));
    assert!(line.contains("barred") && line.contains("lie"), "{told}");
    // Who helped is told, and checks it more closely; the liar's standing there is its own business.
    n.wait_for(|| trust(&n, 3, "R2").alert.is_some());
    assert_eq!(trust(&n, 3, "R2").standing, Standing::Newcomer { clean: 0 });

    assert!(n.download("lied", "again", &[]).unwrap() == n.file, "wrong bytes");
    let second = n.ended(2).remove(1);
    assert!(second.lanes.iter().all(|lane| lane.name != "R2"), "{second:?}");
    assert!(lane(&second, "R3").bytes > 0, "{second:?}");
    let peers = control::ask(&n.folder.join("R1"), "peers").unwrap();
    assert!(peers.contains("barred (lie)"), "{peers}");
}

#[test]
fn without_a_third_router_nobody_is_blamed_and_nobody_is_believed() {
    let n = Neighbourhood::with(setup(2));
    lie(&n);
    assert!(n.download("lied", "out", &[]).unwrap() == n.file, "wrong bytes");
    let session = n.ended(1).remove(0);
    let other = lane(&session, "R2");
    assert_eq!((other.verdict.as_deref(), other.bytes), (Some("open"), 0), "{session:?}");
    assert_eq!(session.outcome.as_deref(), Some("complete"));
    let view = trust(&n, 1, "R2");
    assert_eq!(view.violation, None, "{view:?}");
    assert!(view.alert.is_some_and(|(alert, _)| alert.by.is_none()), "the mismatch is remembered: {view:?}");
    assert!(view.scores.untrust > 0, "{view:?}");
}

#[test]
fn the_origins_own_digest_is_checked_before_the_last_bytes() {
    let digest = |bytes: &[u8]| bamqp_router::keys::base64_encode(&Sha256::digest(bytes).into());
    // The file is not there before nginx is: its digest comes in a file that nginx includes.
    let server = "include @AT@/digest[s].conf;";
    let mut n = Neighbourhood::with(Setup { nginx: [String::new(), server.into()], ..Setup::default() });
    let location = |name: &str, digest: &str| {
        let at = n.folder.display();
        format!(
            "location /{name}/ {{ alias {at}/www/; limit_rate 2m; add_header Repr-Digest 'sha-256=:{digest}:'; }}\n"
        )
    };
    let (right, wrong) = (location("right", &digest(&n.file)), location("wrong", &digest(b"another file")));
    fs::write(n.folder.join("digests.conf"), right + &wrong).unwrap();
    n.reload_nginx();

    assert!(n.download("right", "out", &[]).unwrap() == n.file, "wrong bytes");
    assert_eq!(n.ended(1)[0].outcome.as_deref(), Some("complete"));
    let error = n.download("wrong", "wrong", &[]).unwrap_err();
    assert!(error.contains("18") || error.contains("transfer closed"), "{error}");
    let came = fs::read(n.folder.join("wrong")).unwrap();
    assert!(came.len() < n.file.len() && came == n.file[..came.len()], "{} bytes came", came.len());
    let sessions = n.ended(2);
    let brought: u64 = ["R2", "R3"].iter().map(|name| lane(&sessions[1], name).bytes).sum();
    assert!(brought > 0, "it was pooled: {sessions:?}");
    n.daemons.clear();
}
