//! Neighbours of neighbours: real daemons, a real nginx and a real curl. R1 hears only R2, which hears R3 and R4. Needs nginx,
//! curl and openssl (scripts/install-test-tools).

mod common;

use std::fs;

use bamqp_router::keys::KeyPair;
use bamqp_router::ledger_check;
use bamqp_router::status::SessionReport;

use common::street::{Neighbourhood, Setup, ledger};

fn chain() -> Setup {
    Setup { routers: 4, hear: |one, other| one == 2 || other == 2, ..Setup::default() }
}

/// What router `i` had its own peers do.
fn passed_on(n: &Neighbourhood, i: u8) -> Vec<SessionReport> {
    let sessions = n.daemons[usize::from(i) - 1].sessions();
    sessions.into_iter().filter(|session| session.coordinator.is_some()).collect()
}

fn brought(session: &SessionReport, lane: &str) -> u64 {
    session.lanes.iter().find(|one| one.name == lane).map_or(0, |lane| lane.bytes)
}

#[test]
fn routers_that_the_coordinator_does_not_hear_help_it_and_have_its_word() {
    let mut n = Neighbourhood::with(chain());
    assert!(n.download("paced", "out", &[]).unwrap() == n.file, "wrong bytes");
    let session = &n.ended(1)[0];
    assert!(brought(session, "R2") > 0, "{session:?}");
    n.wait_for(|| passed_on(&n, 2).iter().any(|session| session.outcome.is_some()));
    let [passed] = &passed_on(&n, 2)[..] else { panic!("R2 passes one download on") };
    assert_eq!(passed.coordinator, Some(KeyPair::from_seed([1; 32]).fingerprint()));
    assert_eq!(passed.id, session.id, "its name travels along");
    for lane in ["own", "R3", "R4"] {
        assert!(brought(passed, lane) > 0, "{lane}: {passed:?}");
    }
    assert!(session.lanes.iter().chain(&passed.lanes).all(|lane| lane.violations == 0), "{passed:?}");

    // R3's log shows that R2 asked, and that R1 had asked R2. R2's log, that it asked R3 and R4.
    n.daemons.clear();
    let (key, asked) = (KeyPair::from_seed([1; 32]), KeyPair::from_seed([2; 32]).fingerprint());
    let first = bamqp_router::keys::base64_encode(key.public());
    for i in [3, 4] {
        let files = ledger(&n.folder, i);
        let report = ledger_check::check(&files, &ledger(&n.folder, 2)).unwrap();
        assert_eq!((report.inits, report.countersigned), (1, 1));
        let text = fs::read_to_string(&files[0]).unwrap();
        let init = text.lines().find(|entry| entry.contains("\tINIT\t")).unwrap();
        for said in [
            "BAMQP-Hops: 1",
            &format!("BAMQP-First-Key: {first}"),
            &format!("BAMQP-First-Recipient: {asked}"),
        ] {
            assert!(init.contains(said), "{said}: {init}");
        }
        // Nobody can put another's name there.
        let forged = text.replace("BAMQP-First-Host: 127", "BAMQP-First-Host: 126");
        assert_ne!(forged, text);
        fs::write(&files[0], forged).unwrap();
        assert!(ledger_check::check(&files, &[]).is_err());
    }
}

#[test]
fn a_router_works_for_one_at_a_time_and_nobody_for_its_own_download() {
    // Everybody hears everybody: whom R1 has asked, R2 and R3 ask in vain, R1 among them.
    let n = Neighbourhood::with(Setup { routers: 3, ..Setup::default() });
    assert!(n.download("paced", "out", &[]).unwrap() == n.file, "wrong bytes");
    let session = &n.ended(1)[0];
    assert!(brought(session, "R2") > 0 && brought(session, "R3") > 0, "{session:?}");
    for i in [2, 3] {
        for passed in passed_on(&n, i) {
            let peers = passed.lanes.iter().filter(|lane| lane.name.starts_with('R'));
            assert!(peers.clone().all(|lane| lane.bytes == 0 && lane.name != "R1"), "{passed:?}");
        }
    }
}

#[test]
fn how_far_help_reaches_is_the_owners_to_say() {
    // R2 passes nothing on; R1 does all the same well with it.
    let options = |i| if i == 2 { " option max_hops '1'\n" } else { "" };
    let n = Neighbourhood::with(Setup { options, ..chain() });
    assert!(n.download("paced", "out", &[]).unwrap() == n.file, "wrong bytes");
    assert!(brought(&n.ended(1)[0], "R2") > 0);
    assert!(passed_on(&n, 2).is_empty());
    // R2 asks, but R3 and R4 don't work for strangers.
    let options = |i| if i > 2 { " option max_hops '1'\n" } else { "" };
    let n = Neighbourhood::with(Setup { options, ..chain() });
    assert!(n.download("paced", "out", &[]).unwrap() == n.file, "wrong bytes");
    assert!(brought(&n.ended(1)[0], "R2") > 0);
    for i in [3, 4] {
        use bamqp_core::message::reason::DeclineReason;
        let report = n.daemons[i - 1].shared().serve.report();
        assert!(report.declined(DeclineReason::TooManyHops) > 0, "R{i}: {report:?}");
        assert!(
            ledger(&n.folder, i as u8)
                .iter()
                .all(|file| !fs::read_to_string(file).unwrap().contains("\tINIT\t"))
        );
    }
}

#[test]
fn whoever_passes_on_answers_for_it() {
    // The origin has another file for R3: R2 finds out, and R1 gets only what is right.
    let nginx = ["geo $other { default 0; @NET@.3.1 1; }".to_owned(),
        "location /lie/ { alias @AT@/www/; limit_rate 2m; if ($other) { rewrite ^/lie/(.*)$ /other/$1 last; } }
         location /other/ { alias @AT@/other/; limit_rate 2m; add_header X-Other 1; }".to_owned()];
    let n = Neighbourhood::with(Setup { nginx, ..chain() });
    fs::create_dir_all(n.folder.join("other")).unwrap();
    let altered: Vec<u8> = n.file.iter().map(|byte| byte ^ 0x55).collect();
    fs::write(n.folder.join("other/file"), altered).unwrap();
    // One ETag: size and modification time are the same.
    let files = [n.folder.join("www/file"), n.folder.join("other/file")];
    let touched = std::process::Command::new("touch").arg("-r").args(files).status().unwrap();
    assert!(touched.success());
    assert!(n.download("lie", "out", &[]).unwrap() == n.file, "wrong bytes");
    n.wait_for(|| passed_on(&n, 2).iter().any(|session| session.outcome.is_some()));
    let passed = &passed_on(&n, 2)[0];
    let r3 = passed.lanes.iter().find(|lane| lane.name == "R3").unwrap();
    assert!(r3.mismatches > 0 && r3.verdict.is_some(), "{passed:?}");
    let session = &n.ended(1)[0];
    assert!(session.lanes.iter().all(|lane| lane.mismatches == 0), "{session:?}");
}
