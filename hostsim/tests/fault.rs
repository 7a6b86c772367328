//! The grammar of `--fault`, and that timed faults happen in their order.

use std::sync::mpsc;
use std::time::Duration;

use hostsim::fault::{Fault, Injector, router_name, variant_of};

fn parse(text: &str) -> Fault {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn every_form() {
    let at = Duration::from_millis;
    assert_eq!(parse("kill:2@1.5s"), Fault::Kill { router: 2, at: at(1500) });
    assert_eq!(parse("kill:0@300ms"), Fault::Kill { router: 0, at: at(300) });
    assert_eq!(parse("kill:C@1"), Fault::Kill { router: 2, at: at(1000) });
    assert_eq!(parse("stall:a@0s"), Fault::Stall { router: 0, at: at(0) });
    assert_eq!(parse("slow:2@1sx0.1"), Fault::Slow { router: 2, at: at(1000), factor: 0.1 });
    assert_eq!(parse("slow:B@250msx2"), Fault::Slow { router: 1, at: at(250), factor: 2.0 });
    assert_eq!(parse("busy:B@3s"), Fault::Busy { router: 1, at: at(3000) });
    assert_eq!(parse("corrupt-length:3"), Fault::CorruptLength { router: 3 });
    assert_eq!(parse("wrong-range:B"), Fault::WrongRange { router: 1 });
    assert_eq!(parse("change:@2s"), Fault::Change { at: at(2000) });
    assert_eq!(parse("one-shot"), Fault::OneShot);
    assert_eq!(parse("per-ip-limit:1"), Fault::PerIpLimit { connections: 1 });
    assert_eq!(parse("lie:B"), Fault::Lie { router: 1 });
    assert_eq!(parse("lie-once:2"), Fault::LieOnce { router: 2 });
    assert_eq!(parse("variant:3"), Fault::Variant { count: Some(3) });
    assert_eq!(parse("variant"), Fault::Variant { count: None });
}

#[test]
fn variants_go_by_the_number_of_the_router() {
    let all = |count| (0..5).map(|router| variant_of(router, count)).collect::<Vec<_>>();
    assert_eq!(all(Some(2)), [0, 1, 0, 1, 0]);
    assert_eq!(all(None), [0, 1, 2, 3, 4]);
}

#[test]
fn what_is_shown_reads_back() {
    for text in ["kill:A@0.3s", "stall:D@2s", "slow:B@1.25sx0.1", "corrupt-length:Z", "wrong-range:B"] {
        assert_eq!(parse(text).to_string(), text);
    }
    for text in ["change:@1.5s", "one-shot", "per-ip-limit:3", "lie:B", "lie-once:C", "variant:2", "variant"]
    {
        assert_eq!(parse(text).to_string(), text);
    }
    assert_eq!(router_name(0), "A");
    assert_eq!(router_name(25), "Z");
}

#[test]
fn anything_else_is_one_line_that_lists_what_is_right() {
    let wrong = [
        "",
        "kill",
        "kill:",
        "kill:1",
        "kill:@1s",
        "kill:1@",
        "kill:1@-1s",
        "kill:1@1h",
        "kill:+1@1s",
        "kill:AB@1s",
        "kill:1@1sx2",
        "kill:1@NaN",
        "kill:1@inf",
        "kill:1@1e3s",
        "kill:1@99999999s",
        "kill:1@1.2.3s",
        "stall:1",
        "slow:1@1s",
        "slow:1@1sx",
        "slow:1@1sx0",
        "slow:1@1sx-1",
        "slow:1@1sx101",
        "corrupt-length:",
        "corrupt-length:1@1s",
        "wrong-range",
        "change:1s",
        "change:",
        "change:1@1s",
        "one-shot:1",
        "per-ip-limit:0",
        "per-ip-limit:",
        "per-ip-limit:99999999999999999999",
        "Kill:1@1s",
        "melt:1@1s",
        "lie",
        "lie:0",
        "lie:A",
        "lie:1@1s",
        "lie-once:",
        "variant:",
        "variant:1",
        "variant:B",
        "kill:1@1s ",
        "käse:1@1s",
    ];
    for text in wrong {
        let error = text.parse::<Fault>().expect_err(text).to_string();
        assert!(error.starts_with(&format!("--fault {text}: expected ")), "{error}");
        assert!(!error.contains('\n'), "{error}");
        for form in ["kill:N@T", "stall:N@T", "slow:N@TxF", "corrupt-length:N", "wrong-range:N", "change:@T"]
        {
            assert!(error.contains(form), "{error}");
        }
        for form in ["one-shot", "per-ip-limit:K", "lie:N", "lie-once:N", "variant:K"] {
            assert!(error.contains(form), "{error}");
        }
    }
}

#[test]
fn timed_faults_happen_in_their_order_and_the_rest_not_at_all() {
    let faults = ["kill:2@20ms", "one-shot", "stall:1@10ms", "change:@86400s"].map(parse);
    let (done, happened) = mpsc::channel();
    let injector = Injector::start(&faults, move |fault| done.send(fault.clone()).unwrap());
    let patience = Duration::from_secs(60);
    assert_eq!(happened.recv_timeout(patience).as_ref(), Ok(&faults[2]));
    assert_eq!(happened.recv_timeout(patience).as_ref(), Ok(&faults[0]));
    assert_eq!(injector.finish(), [faults[2].clone(), faults[0].clone()]);
    assert_eq!(happened.try_recv(), Err(mpsc::TryRecvError::Disconnected));
}
