//! Three real daemons, a real nginx and a real curl on loopback addresses: what a household sees. Needs nginx, curl and
//! openssl (scripts/install-test-tools). Sizes and contents come from BAMQP_TEST_SEED, which is printed.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bamqp_core::trust::Standing;
use bamqp_router::config::Config;
use bamqp_router::daemon::Daemon;
use bamqp_router::keys::KeyPair;
use bamqp_router::ledger_check;
use bamqp_router::status::SessionReport;

const WINDOW: u32 = 1 << 20;

/// A number that is the same for the same seed, and different for each `place`.
fn seeded(place: u64) -> u64 {
    let seed: u64 = std::env::var("BAMQP_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ place.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 31;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 29)
}

/// A file of about `megabytes`, of an odd size.
fn content(place: u64, megabytes: usize) -> Vec<u8> {
    let size = megabytes * 1_000_000 + seeded(place) as usize % 1_000_003;
    println!("BAMQP_TEST_SEED {:?}, size {size}", std::env::var("BAMQP_TEST_SEED"));
    let mut state = seeded(place + 1) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Household A with its neighbours B and C, and an origin.
struct Neighbourhood {
    folder: PathBuf,
    nginx: Child,
    /// Loopback network 127.b.
    net: String,
    daemons: Vec<Daemon>,
    file: Vec<u8>,
}

impl Neighbourhood {
    fn start() -> Neighbourhood {
        Neighbourhood::with_file_of(8)
    }

    fn with_file_of(megabytes: usize) -> Neighbourhood {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let net = (0..200)
            .map(|i| format!("127.{}", 1 + (std::process::id() + number * 53 + i) % 250))
            .find(|net| TcpListener::bind(format!("{net}.9.9:8080")).is_ok())
            .expect("a free loopback network");
        let folder = std::env::temp_dir().join(format!("bamqp-e2e-{}-{number}", std::process::id()));
        fs::create_dir_all(folder.join("www")).unwrap();
        let file = content(10 + u64::from(number), megabytes);
        fs::write(folder.join("www/file"), &file).unwrap();
        let nginx = start_nginx(&folder, &net);
        let keys: Vec<KeyPair> = (1..=3).map(|i| KeyPair::from_seed([i; 32])).collect();
        let daemons = (1..=3).map(|i| start_daemon(&net, i, &keys, &folder)).collect();
        let neighbourhood = Neighbourhood { folder, nginx, net, daemons, file };
        neighbourhood.wait_for(|| neighbourhood.daemons[0].shared().peers.usable() == 2);
        neighbourhood
    }

    fn wait_for(&self, done: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < deadline, "waited in vain");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn url(&self, place: &str) -> String {
        format!("http://{}.9.9:8080/{place}/file", self.net)
    }

    fn curl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "60", "-x"]).arg(format!("http://{}.1.1:3128", self.net));
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        for variable in
            ["http_proxy", "https_proxy", "all_proxy", "no_proxy", "NO_PROXY", "HTTPS_PROXY", "ALL_PROXY"]
        {
            command.env_remove(variable);
        }
        command
    }

    /// Downloads `place` through A into `name`; what curl says on failure.
    fn download(&self, place: &str, name: &str, more: &[&str]) -> Result<Vec<u8>, String> {
        let to = self.folder.join(name);
        let url = self.url(place);
        let output = self.curl(&["-f", "-o", to.to_str().unwrap(), &url]).args(more).output().unwrap();
        match output.status.success() {
            true => Ok(fs::read(to).unwrap()),
            false => Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr))),
        }
    }

    fn sessions(&self) -> Vec<SessionReport> {
        self.daemons[0].sessions()
    }

    fn ended(&self, count: usize) -> Vec<SessionReport> {
        self.wait_for(|| self.sessions().iter().filter(|s| s.outcome.is_some()).count() == count);
        self.sessions()
    }
}

impl Drop for Neighbourhood {
    fn drop(&mut self) {
        let _ = self.nginx.kill();
        let _ = self.nginx.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn start_nginx(folder: &Path, net: &str) -> Child {
    let at = folder.display();
    let key = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=origin"])
        .args(["-keyout", &format!("{at}/key.pem"), "-out", &format!("{at}/cert.pem")])
        .output()
        .expect("openssl");
    assert!(key.status.success());
    let config = format!(
        r#"daemon off; master_process off; pid {at}/pid; error_log {at}/error.log; events {{ }}
http {{
  log_format told '$remote_addr|$http_referer|$http_x_token|$http_accept_language|$http_user_agent|$http_accept';
  access_log off; sendfile on; default_type application/octet-stream; keepalive_requests 20;
  client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
  server {{
    listen {net}.9.9:8080;
    listen {net}.9.9:8443 ssl; ssl_certificate {at}/cert.pem; ssl_certificate_key {at}/key.pem;
    location /plain/   {{ alias {at}/www/; }}
    location /paced/   {{ alias {at}/www/; limit_rate 2m; access_log {at}/told.log told; }}
    location /noranges/ {{ alias {at}/www/; max_ranges 0; }}
    location /weak/    {{ alias {at}/www/; etag off; add_header Last-Modified ""; add_header ETag 'W/"abc"'; }}
    location /chunked/ {{ alias {at}/www/; ssi on; ssi_types *; }}
  }}
}}"#
    );
    fs::write(folder.join("nginx.conf"), config).unwrap();
    let nginx = ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| Path::new(path).exists());
    let mut child = Command::new(nginx.expect("nginx: run scripts/install-test-tools"))
        .args(["-c", &format!("{at}/nginx.conf"), "-e", &format!("{at}/error.log")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(format!("{net}.9.9:8080")).is_err() {
        assert!(
            child.try_wait().unwrap().is_none(),
            "nginx: {:?}",
            fs::read_to_string(folder.join("error.log"))
        );
        assert!(Instant::now() < deadline, "nginx does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

/// Router `i` as its owner would configure it; the others are its peers.
fn start_daemon(net: &str, i: u8, keys: &[KeyPair], folder: &Path) -> Daemon {
    let state_dir = folder.join(format!("R{i}"));
    fs::create_dir_all(&state_dir).unwrap();
    let state_dir = state_dir.display();
    let mut text = format!(
        "config bamqp 'main'\n option enabled '1'\n option listen '{net}.{i}.1:3128'\n option peer_listen '{net}.{i}.1:7733'
 option wan_address '{net}.{i}.1'\n option state_dir '{state_dir}'\n option log_dir '{state_dir}/log'\n option window '{WINDOW}'\n list allow_private '127.0.0.0/8'\n list fetch_ports '8080'
 list connect_ports '8443'\n"
    );
    for (j, key) in (1..).zip(keys).filter(|(j, _)| *j != i) {
        let public = bamqp_router::keys::base64_encode(key.public());
        text += &format!(
            "config peer 'R{j}'\n option address '{net}.{j}.1:7733'\n option public_key '{public}'\n"
        );
    }
    let config = Config::parse(&text, Path::new("test")).unwrap();
    Daemon::start(config, KeyPair::from_seed(*keys[usize::from(i) - 1].seed())).unwrap()
}

/// The files of router `i`'s ledger.
fn ledger(folder: &Path, i: u8) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join(format!("R{i}/log"))).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The own link and every neighbour's brought their part and broke no rule; together they brought all.
fn assert_pooled(session: &SessionReport) {
    assert_eq!(session.outcome.as_deref(), Some("complete"), "{session:?}");
    for lane in session.lanes.iter().filter(|lane| lane.name != "own") {
        assert!(lane.bytes > 0, "{} brought nothing: {session:?}", lane.name);
    }
    assert!(session.lanes.iter().all(|lane| lane.violations == 0), "{session:?}");
    assert_eq!(
        session.lanes.iter().map(|lane| lane.bytes).sum::<u64>(),
        session.range.end - session.range.start
    );
    assert!(session.window_used <= WINDOW);
}

#[test]
fn a_plain_download_comes_over_all_links() {
    let mut n = Neighbourhood::start();
    assert!(n.download("paced", "out", &[]).unwrap() == n.file, "wrong bytes");
    let sessions = n.ended(1);
    assert_pooled(&sessions[0]);
    assert_eq!(sessions[0].lanes.len(), 4);

    // Every router tells what it did, once it was stopped; and each helper's log is the one that R1 countersigned.
    n.daemons.clear();
    let own = ledger(&n.folder, 1);
    let text = fs::read_to_string(&own[0]).unwrap();
    let session: Vec<&str> = text.lines().filter(|entry| entry.contains("\tSESSION\t")).collect();
    let [session] = session[..] else { panic!("{text}") };
    assert!(session.contains(&format!("\turi={}\t", n.url("paced"))), "{session}");
    for i in [2, 3] {
        let files = ledger(&n.folder, i);
        let report = ledger_check::check(&files, &own).unwrap();
        assert_eq!(report.owner, Some(KeyPair::from_seed([i; 32]).fingerprint()));
        assert_eq!(report.countersigned, 1);
        let text = fs::read_to_string(&files[0]).unwrap();
        assert!(text.find("\tINIT\t").unwrap() < text.find("\tCHUNK\t").unwrap(), "{text}");
    }
}

#[test]
fn a_client_with_long_fields_costs_no_neighbour_its_name() {
    let n = Neighbourhood::start();
    let agent = "x".repeat(3860);
    assert!(n.download("paced", "out", &["-A", &agent]).unwrap() == n.file, "wrong bytes");
    assert_pooled(&n.ended(1)[0]);
}

#[test]
fn neighbours_get_to_know_what_they_fetch_and_nothing_else_of_the_client() {
    let mut n = Neighbourhood::start();
    let secrets = ["-H", "X-Token: secret-1", "-H", "Accept-Language: secret-2", "-e", "http://secret-3/"];
    let told = ["-A", "agent/1", "-H", "Accept: text/told"];
    assert!(
        n.download("paced", "out", &[secrets.as_slice(), &told].concat()).unwrap() == n.file,
        "wrong bytes"
    );
    assert_pooled(&n.ended(1)[0]);
    n.daemons.clear();
    let from = |i: u8| format!("{}.{i}.1|", n.net);
    let log = fs::read_to_string(n.folder.join("told.log")).unwrap();
    let whole = format!("{}http://secret-3/|secret-1|secret-2|agent/1|text/told", from(1));
    assert!(log.lines().any(|line| line == whole), "the origin gets all from A: {log}");
    for i in [2, 3] {
        let mut lines = log.lines().filter(|line| line.starts_with(&from(i))).peekable();
        assert!(lines.peek().is_some(), "R{i} fetched nothing: {log}");
        assert!(lines.all(|line| line == format!("{}-|-|-|agent/1|text/told", from(i))), "{log}");
        // The log has all of what it was sent.
        let text = fs::read_to_string(&ledger(&n.folder, i)[0]).unwrap();
        assert!(text.contains("Accept: text/told") && !text.contains("secret"), "{text}");
    }
}

#[test]
fn a_download_that_broke_off_is_resumed() {
    let n = Neighbourhood::start();
    let have = 1_000_001 + seeded(3) as usize % 100_000;
    fs::write(n.folder.join("out"), &n.file[..have]).unwrap();
    assert!(n.download("paced", "out", &["-C", "-"]).unwrap() == n.file, "wrong bytes");
    let sessions = n.ended(1);
    assert_pooled(&sessions[0]);
    assert!(sessions[0].range.start >= have as u64 && sessions[0].range.end == n.file.len() as u64);
    assert_eq!(sessions[0].total, n.file.len() as u64);
}

#[test]
fn two_downloads_at_once_are_both_right() {
    let n = Neighbourhood::start();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| n.download("paced", "one", &[]).unwrap());
        assert!(n.download("paced", "two", &[]).unwrap() == n.file, "wrong bytes");
        assert!(other.join().unwrap() == n.file, "wrong bytes");
    });
    n.ended(2).iter().for_each(assert_pooled);
}

#[test]
fn a_client_that_hangs_up_ends_its_session_and_nothing_else() {
    // More than all buffers on the way hold, for a client that takes its time.
    let n = Neighbourhood::with_file_of(40);
    let to = n.folder.join("out");
    let mut curl =
        n.curl(&["--limit-rate", "4M", "-o", to.to_str().unwrap(), &n.url("paced")]).spawn().unwrap();
    n.wait_for(|| n.sessions().iter().any(|s| s.delivered > 100_000));
    curl.kill().unwrap();
    curl.wait().unwrap();
    let sessions = n.ended(1);
    assert_eq!(sessions[0].outcome.as_deref(), Some("client gone"));
    assert!(sessions[0].delivered < n.file.len() as u64);
    assert!(n.download("paced", "again", &[]).unwrap() == n.file, "wrong bytes");
    assert_pooled(&n.ended(2)[1]);
}

#[test]
fn a_slow_client_slows_the_lanes_and_fills_no_memory() {
    let n = Neighbourhood::start();
    assert!(n.download("plain", "out", &["--limit-rate", "4M"]).unwrap() == n.file, "wrong bytes");
    let sessions = n.ended(1);
    assert_eq!(sessions[0].outcome.as_deref(), Some("complete"));
    assert!(sessions[0].window_used <= WINDOW, "{sessions:?}");
}

#[test]
fn what_can_not_be_combined_is_relayed() {
    let n = Neighbourhood::start();
    for place in ["noranges", "weak", "chunked"] {
        assert!(n.download(place, "out", &[]).unwrap() == n.file, "{place}: wrong bytes");
    }
    let head = n.curl(&["-I", &n.url("chunked")]).output().unwrap();
    let head = String::from_utf8(head.stdout).unwrap().to_lowercase();
    assert!(!head.contains("content-length") && !head.contains("etag"), "not what was to be tried: {head}");
    let sessions = n.sessions();
    // An origin that ignores ranges shows that only when it is asked for one.
    assert!(sessions.iter().all(|s| s.target.contains("/noranges/")), "{sessions:?}");
    assert!(sessions.iter().flat_map(|s| &s.lanes).filter(|l| l.name != "original").all(|l| l.bytes == 0));
}

#[test]
fn https_goes_through_a_tunnel() {
    let n = Neighbourhood::start();
    let url = format!("https://{}.9.9:8443/plain/file", n.net);
    let to = n.folder.join("out");
    let output = n.curl(&["-f", "-k", "-o", to.to_str().unwrap(), &url]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(fs::read(to).unwrap() == n.file, "wrong bytes");
    let refused = n.curl(&["-k", &format!("https://{}.9.9:8080/", n.net)]).output().unwrap();
    assert!(!refused.status.success(), "CONNECT to another port than those allowed");
    assert!(n.sessions().is_empty());
}

#[test]
fn a_neighbour_that_is_switched_off_costs_nothing_but_speed() {
    let mut n = Neighbourhood::with_file_of(40);
    let third = n.daemons.pop().unwrap();
    let bytes = std::thread::scope(|scope| {
        let download = scope.spawn(|| n.download("paced", "out", &["--limit-rate", "8M"]));
        n.wait_for(|| n.sessions().iter().any(|s| s.lanes.iter().any(|l| l.name == "R3" && l.bytes > 0)));
        third.stop();
        download.join().unwrap()
    });
    assert!(bytes.unwrap() == n.file, "wrong bytes");
    let sessions = n.ended(1);
    let lost = sessions[0].lanes.iter().find(|lane| lane.name == "R3").unwrap();
    assert!(lost.failures + lost.timeouts > 0, "the neighbour was not lost: {sessions:?}");
}

#[test]
fn neighbours_that_served_well_come_to_be_trusted() {
    let n = Neighbourhood::start();
    for count in 1..=3 {
        assert!(n.download("paced", "out", &["--limit-rate", "8M"]).unwrap() == n.file, "wrong bytes");
        n.ended(count);
    }
    for view in n.daemons[0].shared().trust.views() {
        assert_eq!(view.standing, Standing::Trusted { accused: false }, "{view:?}");
        assert_eq!((view.scores.sums.sessions, view.scores.untrust), (3, 0), "{view:?}");
    }
}
