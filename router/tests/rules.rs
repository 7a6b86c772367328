//! The rules of DESIGN section 7, each with the test that fails without it; and those tests that fit nowhere else.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bamqp_core::http::validator::Validator;
use bamqp_router::config::Config;
use bamqp_router::fetch::{Fetcher, File, Progress, Source};
use bamqp_router::live::Live;
use bamqp_router::net::{self, PollFd};
use common::{OK, Origin, client, config, field, get, start};

/// A rule, and `file: test` of what shows it.
const RULES: &[(&str, &[&str])] = &[
    // Who.
    (
        "only configured public keys are peers",
        &["router/tests/authentic.rs: an_init_of_others_for_others_or_of_yesterday_is_refused"],
    ),
    (
        "discovery may suggest; a person approves",
        &[
            "router/tests/discover.rs: three_routers_hear_each_other_and_become_peers_by_their_owners_word",
            "router/tests/discover.rs: an_impostor_with_a_peers_name_changes_nothing",
            "router/tests/discover.rs: a_flood_of_ten_thousand_routers_is_bounded",
        ],
    ),
    (
        "keys are made on the device, the file is 0600, never overwritten",
        &["router/src/keys.rs: a_key_file_is_made_once_and_private"],
    ),
    (
        "unknown addresses get two connections, 4 KiB heads, 5 seconds",
        &[
            "router/tests/serve/main.rs: strangers_have_two_connections_and_five_seconds",
            "router/tests/serve/main.rs: what_is_no_message_is_answered_and_ends_the_connection",
            "router/tests/attack.rs: a_flood_of_strangers_keeps_no_peer_out_and_fills_no_log",
        ],
    ),
    (
        "unknown addresses learn the fingerprint alone",
        &["router/tests/serve/main.rs: hello_tells_strangers_the_key_alone_and_peers_how_it_is"],
    ),
    ("shipped with enabled '0'", &["router/tests/config.rs: the_example_parses_and_is_switched_off"]),
    // The log.
    (
        "a request is logged before it is fetched, with the signed INIT",
        &["router/tests/serve/log.rs: what_is_fetched_is_in_the_log_before"],
    ),
    (
        "what can't be logged is not fetched",
        &["router/tests/serve/log.rs: what_can_not_be_logged_is_not_fetched"],
    ),
    (
        "the file is 0600, capped, rotated",
        &[
            "router/tests/ledger/main.rs: entries_are_chained_and_the_file_is_private",
            "router/tests/ledger/main.rs: full_files_make_room_and_the_chain_goes_on",
        ],
    ),
    (
        "a power cut at any byte costs what waited, never the chain",
        &["router/tests/ledger/damage.rs: a_power_cut_at_any_byte_costs_only_what_was_not_whole"],
    ),
    (
        "whatever is altered is found and its entry named",
        &[
            "router/tests/ledger/damage.rs: every_altered_byte_is_found_and_its_entry_named",
            "core/tests/ledger.rs: every_altered_byte_of_a_signed_init_is_found",
        ],
    ),
    (
        "--against shows that nothing was cut off",
        &["router/tests/ledger/against.rs: truncation_shows_against_the_coordinators_log"],
    ),
    (
        "no coordinator pushes the others' entries out",
        &[
            "router/tests/serve/log.rs: who_fills_the_log_is_declined_with_a_time_and_pushes_nothing_out",
            "router/tests/ledger/main.rs: many_small_ranges_are_one_entry_that_has_them_all",
        ],
    ),
    // What may be fetched.
    (
        "only the public internet: each of the listed networks",
        &[
            "core/tests/address.rs: first_and_last_address_of_every_private_network_is_refused",
            "core/tests/address.rs: neighbours_of_private_networks_are_public",
        ],
    ),
    (
        "refused after resolving, however it is written",
        &["router/tests/serve/main.rs: init_is_declined_with_the_reason"],
    ),
    (
        "the connection goes to the checked address",
        &["router/tests/rules.rs: the_connection_goes_to_the_checked_address_whatever_the_name_stands_for"],
    ),
    (
        "nor the router's own addresses and networks",
        &[
            "router/tests/serve/main.rs: init_is_declined_with_the_reason",
            "core/tests/address.rs: own_addresses_are_refused_whatever_is_allowed",
            "router/src/own_networks.rs: attached_and_delegated_networks_are_own_and_others_are_not",
        ],
    ),
    (
        "no redirect is followed, neither by lanes nor by the coordinator",
        &[
            "router/tests/serve/main.rs: redirects_are_not_followed",
            "router/tests/refuse.rs: redirects_are_the_clients_business",
        ],
    ),
    (
        "other ports than 80 and 443, and private networks, need the owner's word",
        &[
            "core/tests/address.rs: private_networks_and_ports_need_the_owners_word",
            "router/src/origin.rs: for_peers_only_the_public_internet_and_open_ports",
            "router/tests/config.rs: listen_peer_listen_and_peers_are_enough",
        ],
    ),
    // What is shared with peers.
    (
        "target, range, validator, User-Agent, Accept; nothing else",
        &[
            "router/tests/end_to_end.rs: neighbours_get_to_know_what_they_fetch_and_nothing_else_of_the_client",
            "core/tests/message.rs: init_is_written_as_the_wire_format_says",
        ],
    ),
    (
        "no request with Authorization, Cookie, Proxy-Authorization or userinfo",
        &[
            "core/tests/decide.rs: requests_that_are_nobody_elses_business",
            "core/tests/message.rs: init_names_the_field_that_is_wrong",
            "router/tests/ledger/main.rs: credentials_are_never_written",
        ],
    ),
    ("no response with no-store or private", &["core/tests/decide.rs: responses_that_are_relayed"]),
    ("URIs over 2 KiB are relayed", &["core/tests/decide.rs: uris_up_to_the_limit_are_pooled"]),
    // What may be combined.
    (
        "the same strong validator and total length, on every 206",
        &[
            "core/tests/http_partial.rs: another_file",
            "core/tests/http_validator.rs: tags_that_prove_nothing",
            "router/tests/serve/main.rs: what_the_origin_refuses_is_told_and_the_connection_goes_on",
        ],
    ),
    (
        "Last-Modified counts only if it is strong",
        &[
            "core/tests/http_validator.rs: a_date_counts_if_the_file_was_a_second_old",
            "core/tests/http_validator.rs: a_date_does_not_count_beside_a_weak_tag",
        ],
    ),
    (
        "asked under If-Range, with Accept-Encoding: identity",
        &[
            "core/tests/http_forward.rs: a_range_is_asked_under_the_validator",
            "router/tests/serve/main.rs: chunks_are_pipelined_to_the_origin_and_come_in_order",
        ],
    ),
    (
        "200, multipart, codings, a wrong range or length: not used",
        &[
            "core/tests/http_partial.rs: the_whole_file_or_something_else",
            "core/tests/http_partial.rs: answers_that_can_not_be_used",
        ],
    ),
    // Trust.
    ("T and U as the formula has them", &["core/tests/trust.rs: trust_is_what_the_formula_says"]),
    (
        "earlier boots are old unless the clock was set both times; days' jumps",
        &["core/tests/trust.rs: earlier_boots_are_old_unless_the_clock_was_set_both_times"],
    ),
    (
        "200 good sessions do not buy one lie; 12 hours of running time, over reboots; then a newcomer",
        &[
            "core/tests/trust.rs: two_hundred_good_sessions_do_not_buy_one_lie",
            "core/tests/trust.rs: a_bar_is_of_running_time_whatever_the_clock_says_and_however_often_the_router_starts",
            "router/tests/trust_store.rs: a_bar_lasts_for_twelve_hours_of_running_time_over_reboots_and_power_cuts",
        ],
    ),
    (
        "an untrusted peer is never picked, newcomers in some sessions",
        &[
            "core/tests/select.rs: whom_we_do_not_trust_is_never_picked_however_fast",
            "core/tests/select.rs: beside_trusted_peers_newcomers_take_turns",
            "core/tests/select.rs: where_nobody_is_trusted_newcomers_are_asked_at_once",
        ],
    ),
    (
        "a router does not work for an untrusted coordinator; the owner may forget",
        &[
            "router/tests/serve/main.rs: a_coordinator_that_is_not_trusted_is_not_worked_for",
            "router/tests/trust_store.rs: the_owner_may_forget_by_name_or_key",
        ],
    ),
    (
        "FEEDBACK raises the checking rate for 12 hours and changes neither T nor U",
        &[
            "core/tests/trust.rs: an_accusation_raises_the_checking_for_twelve_hours_and_nothing_else",
            "router/tests/serve/main.rs: whom_a_coordinator_accuses_is_looked_at_more_closely_and_trusted_as_before",
        ],
    ),
    // The proxy.
    (
        "it answers the LAN only",
        &[
            "router/tests/refuse.rs: strangers_and_too_many_clients_are_refused",
            "router/src/own_networks.rs: neighbours_are_told_from_the_household_by_their_network",
        ],
    ),
    (
        "it never reaches the router's own addresses, CONNECT neither, nor neighbours in our name",
        &[
            "router/tests/refuse.rs: the_routers_own_addresses_are_out_of_reach",
            "router/src/origin.rs: own_addresses_are_refused_however_they_are_written",
            "router/tests/refuse.rs: no_client_speaks_to_a_neighbour_in_our_name",
        ],
    ),
    (
        "CONNECT is 443 unless configured, loops are 508",
        &["router/tests/refuse.rs: what_is_refused_says_what_to_do"],
    ),
    (
        "ambiguous framing, obs-fold, bare CR: 400 and close",
        &[
            "router/tests/refuse.rs: ambiguous_requests_are_refused_and_never_reach_an_origin",
            "router/tests/refuse.rs: a_broken_chunk_of_a_request_never_reaches_the_origin",
            "core/tests/http_body.rs: framings_that_are_refused",
        ],
    ),
    (
        "an origin connection is used again only after exact framing",
        &[
            "router/tests/proxy.rs: responses_without_a_body_leave_the_connection_usable",
            "router/tests/proxy.rs: a_body_that_ends_with_its_connection_ends_so_for_the_client",
            "router/tests/failure.rs: an_origin_that_answers_nothing_or_nonsense_is_a_bad_gateway",
        ],
    ),
    (
        "everything has a limit: connections, header bytes, sessions, time",
        &[
            "router/tests/refuse.rs: strangers_and_too_many_clients_are_refused",
            "router/tests/serve/main.rs: a_peer_has_a_limit_of_connections_too",
            "router/tests/serve/main.rs: no_more_sessions_than_allowed_until_one_ends",
            "router/tests/rules.rs: a_head_that_comes_slowly_is_not_waited_for",
            "router/tests/attack.rs: who_sends_slowly_or_never_ends_is_let_go",
        ],
    ),
];

#[test]
fn each_rule_has_its_tests() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (rule, tests) in RULES {
        assert!(!tests.is_empty(), "{rule}");
        for test in *tests {
            let (file, name) = test.split_once(": ").unwrap();
            let text =
                std::fs::read_to_string(top.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            let (before, _) =
                text.split_once(&format!("fn {name}(")).unwrap_or_else(|| panic!("{rule}: no {test}"));
            // Of a property test the name comes later, within `proptest!`.
            let attribute =
                before.trim_end().lines().rev().find(|line| line.trim().starts_with("#[")).unwrap();
            assert!(attribute.trim() == "#[test]", "{rule}: {test} is no test");
        }
    }
}

#[test]
fn the_connection_goes_to_the_checked_address_whatever_the_name_stands_for() {
    let answer = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/9\r\nETag: \"v\"\r\nContent-Length: 2\r\n\r\nok";
    let origin = Origin::answering(answer);
    let file = File {
        uri: "http://name.invalid/f".into(), // RFC 6761: nobody resolves it
        total: 9,
        validator: Validator::entity_tag(b"\"v\"").unwrap(),
        user_agent: None,
        accept: None,
    };
    let source = Source::Origin { address: origin.address, from: None, via: "test".into(), uplink: None };
    let (mut fetcher, live) = (Fetcher::new(Arc::new(file), source, None), Live::default());
    fetcher.ask(0..2, &live).unwrap();
    let (mut buffer, deadline) = ([0; 16], Instant::now() + Duration::from_secs(20));
    loop {
        match fetcher.read(&mut buffer, &live).unwrap() {
            Progress::Bytes(count) => break assert_eq!(&buffer[..count], b"ok"),
            _ => {
                let (socket, flags) = fetcher.wants().unwrap();
                assert!(net::poll(&mut [PollFd::new(socket, flags)], Some(deadline)).unwrap() > 0);
            }
        }
    }
}

#[test]
fn a_head_that_comes_slowly_is_not_waited_for() {
    let origin = Origin::answering(OK);
    let daemon = start(Config { max_clients: Some(2), ..config() });
    let mut slow = client(&daemon);
    slow.send("GET http://");
    // A byte now and then does not buy more time.
    let drip = std::thread::spawn({
        let socket = slow.socket.try_clone().unwrap();
        move || {
            let sent = (0..100).take_while(|_| {
                std::thread::sleep(Duration::from_millis(200));
                std::io::Write::write_all(&mut &socket, b"a").is_ok()
            });
            sent.count()
        }
    });
    // Others are served meanwhile.
    let mut other = client(&daemon);
    other.send(get(&origin, "/"));
    assert!(other.head().starts_with("HTTP/1.1 200"));
    let head = slow.head();
    assert!(head.starts_with("HTTP/1.1 408") && field(&head, "Connection") == Some("close"), "{head}");
    slow.gone();
    assert!(drip.join().unwrap() < 100, "it went on for 20 seconds");
}
