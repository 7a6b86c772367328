//! A household with its neighbours: real daemons, a real nginx and a real curl on loopback addresses. Needs nginx, curl and
//! openssl (scripts/install-test-tools). Sizes and contents come from BAMQP_TEST_SEED, which is printed.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bamqp_router::config::Config;
use bamqp_router::daemon::Daemon;
use bamqp_router::keys::KeyPair;
use bamqp_router::status::SessionReport;

/// The window of each router.
pub const WINDOW: u32 = 1 << 20;

/// A number that is the same for the same seed, and different for each `place`.
pub fn seeded(place: u64) -> u64 {
    let seed: u64 = std::env::var("BAMQP_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ place.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 31;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 29)
}

/// A file of about `megabytes`, of an odd size.
pub fn content(place: u64, megabytes: usize) -> Vec<u8> {
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
pub struct Neighbourhood {
    pub folder: PathBuf,
    nginx: Child,
    /// Loopback network 127.b.
    pub net: String,
    pub daemons: Vec<Daemon>,
    pub file: Vec<u8>,
}

/// What a test needs besides what all have.
pub struct Setup {
    /// About how large the file is.
    pub megabytes: usize,
    /// How many routers there are.
    pub routers: u8,
    /// Directives for nginx's `http` and for its `server`; `@NET@` and `@AT@` stand for the network and the folder.
    pub nginx: [String; 2],
    /// Ports of other origins.
    pub ports: Vec<u16>,
    /// Whether two routers hear each other.
    pub hear: fn(u8, u8) -> bool,
    /// More options of each router, by its number.
    pub options: fn(u8) -> &'static str,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            megabytes: 8,
            routers: 3,
            nginx: Default::default(),
            ports: Vec::new(),
            hear: |_, _| true,
            options: |_| "",
        }
    }
}

impl Neighbourhood {
    pub fn start() -> Neighbourhood {
        Neighbourhood::with(Setup::default())
    }

    pub fn with_file_of(megabytes: usize) -> Neighbourhood {
        Neighbourhood::with(Setup { megabytes, ..Setup::default() })
    }

    pub fn with(setup: Setup) -> Neighbourhood {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let net = (0..200)
            .map(|i| format!("127.{}", 1 + (std::process::id() + number * 53 + i) % 250))
            .find(|net| TcpListener::bind(format!("{net}.9.9:8080")).is_ok())
            .expect("a free loopback network");
        let folder = std::env::temp_dir().join(format!("bamqp-e2e-{}-{number}", std::process::id()));
        fs::create_dir_all(folder.join("www")).unwrap();
        let file = content(10 + u64::from(number), setup.megabytes);
        fs::write(folder.join("www/file"), &file).unwrap();
        let nginx = start_nginx(&folder, &net, &setup.nginx);
        let keys: Vec<KeyPair> = (1..=setup.routers).map(|i| KeyPair::from_seed([i; 32])).collect();
        let daemons = (1..=setup.routers).map(|i| start_daemon(&net, i, &keys, &folder, &setup)).collect();
        let neighbourhood = Neighbourhood { folder, nginx, net, daemons, file };
        let knows_all = |daemon: &Daemon| {
            let shared = daemon.shared();
            shared.peers.usable() == shared.peers.len()
        };
        neighbourhood.wait_for(|| neighbourhood.daemons.iter().all(knows_all));
        neighbourhood
    }

    /// Has nginx read its configuration again.
    pub fn reload_nginx(&mut self) {
        let _ = self.nginx.kill();
        let _ = self.nginx.wait();
        self.nginx = run_nginx(&self.folder, &self.net);
    }

    pub fn wait_for(&self, done: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < deadline, "waited in vain");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn url(&self, place: &str) -> String {
        format!("http://{}.9.9:8080/{place}/file", self.net)
    }

    pub fn curl(&self, arguments: &[&str]) -> Command {
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
    pub fn download(&self, place: &str, name: &str, more: &[&str]) -> Result<Vec<u8>, String> {
        let to = self.folder.join(name);
        let url = self.url(place);
        let output = self.curl(&["-f", "-o", to.to_str().unwrap(), &url]).args(more).output().unwrap();
        match output.status.success() {
            true => Ok(fs::read(to).unwrap()),
            false => Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr))),
        }
    }

    pub fn sessions(&self) -> Vec<SessionReport> {
        self.daemons[0].sessions()
    }

    pub fn ended(&self, count: usize) -> Vec<SessionReport> {
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

fn start_nginx(folder: &Path, net: &str, more: &[String; 2]) -> Child {
    let at = folder.display();
    let more = more.clone().map(|text| text.replace("@NET@", net).replace("@AT@", &at.to_string()));
    let [in_http, in_server] = more;
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
  {in_http}
  server {{
    listen {net}.9.9:8080;
    listen {net}.9.9:8443 ssl; ssl_certificate {at}/cert.pem; ssl_certificate_key {at}/key.pem;
    location /plain/   {{ alias {at}/www/; }}
    location /paced/   {{ alias {at}/www/; limit_rate 2m; access_log {at}/told.log told; }}
    location /noranges/ {{ alias {at}/www/; max_ranges 0; }}
    location /weak/    {{ alias {at}/www/; etag off; add_header Last-Modified ""; add_header ETag 'W/"abc"'; }}
    location /chunked/ {{ alias {at}/www/; ssi on; ssi_types *; }}
    {in_server}
  }}
}}"#
    );
    fs::write(folder.join("nginx.conf"), config).unwrap();
    run_nginx(folder, net)
}

fn run_nginx(folder: &Path, net: &str) -> Child {
    let at = folder.display();
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

/// Router `i` as its owner would configure it; those that it hears are its peers.
fn start_daemon(net: &str, i: u8, keys: &[KeyPair], folder: &Path, setup: &Setup) -> Daemon {
    let state_dir = folder.join(format!("R{i}"));
    fs::create_dir_all(&state_dir).unwrap();
    let state_dir = state_dir.display();
    let mut text = format!(
        "config bamqp 'main'\n option enabled '1'\n option listen '{net}.{i}.1:3128'\n option peer_listen '{net}.{i}.1:7733'
 option wan_address '{net}.{i}.1'\n option state_dir '{state_dir}'\n option log_dir '{state_dir}/log'\n option window '{WINDOW}'\n list allow_private '127.0.0.0/8'\n list fetch_ports '8080'
 list connect_ports '8443'\n"
    );
    for port in &setup.ports {
        text += &format!(" list fetch_ports '{port}'\n");
    }
    text += (setup.options)(i);
    for (j, key) in (1..).zip(keys).filter(|(j, _)| *j != i && (setup.hear)(i, *j)) {
        let public = bamqp_router::keys::base64_encode(key.public());
        text += &format!(
            "config peer 'R{j}'\n option address '{net}.{j}.1:7733'\n option public_key '{public}'\n"
        );
    }
    let config = Config::parse(&text, Path::new("test")).unwrap();
    Daemon::start(config, KeyPair::from_seed(*keys[usize::from(i) - 1].seed())).unwrap()
}

/// The files of router `i`'s ledger.
pub fn ledger(folder: &Path, i: u8) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join(format!("R{i}/log"))).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}
