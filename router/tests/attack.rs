//! The program against those who mean it ill: floods, slow and endless heads, odd ones. It goes on serving, grows no
//! thread and hardly any memory for them, and its log is not theirs to fill.

#[path = "common/program.rs"]
mod program;

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bamqp_core::channel::{Challenge, Identity, Tally};
use bamqp_core::http::target::Uri;
use bamqp_core::http::validator::Validator;
use bamqp_core::http::write::HeadWriter;
use bamqp_core::message::SessionId;
use bamqp_core::message::init::Init;
use bamqp_router::keys::{KeyPair, base64_encode};
use bamqp_router::net;

const PATIENCE: Duration = Duration::from_secs(20);

/// The program, on a loopback network of its own: itself at `.1.1`, its only peer at `.2.1`.
struct Program {
    folder: PathBuf,
    net: String,
    child: Child,
}

impl Program {
    fn start() -> Program {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let net = (0..200)
            .map(|i| format!("127.{}", 1 + (std::process::id() + number * 71 + i) % 250))
            .find(|net| std::net::TcpListener::bind(format!("{net}.1.1:7733")).is_ok())
            .expect("a free loopback network");
        let folder = std::env::temp_dir().join(format!("bamqp-attack-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let at = folder.display();
        let key = base64_encode(KeyPair::from_seed([2; 32]).public());
        let config = format!(
            "config bamqp 'main'\n option enabled '1'\n option listen '{net}.1.1:3128'\n \
             option peer_listen '{net}.1.1:7733'\n option state_dir '{at}'\n option key '{at}/key'\n option log_dir '{at}/log'\n\
             config peer 'B'\n option address '{net}.2.1:7733'\n option public_key '{key}'\n"
        );
        fs::write(folder.join("config"), config).unwrap();
        let child = program::bamqp()
            .args(["run", "--config"])
            .arg(folder.join("config"))
            .stdout(fs::File::create(folder.join("out")).unwrap())
            .stderr(fs::File::create(folder.join("err")).unwrap())
            .spawn()
            .unwrap();
        let program = Program { folder, net, child };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(program.at(3128)).is_err() {
            assert!(Instant::now() < deadline, "it does not start: {}", program.messages());
            std::thread::sleep(Duration::from_millis(20));
        }
        program
    }

    fn at(&self, port: u16) -> SocketAddr {
        format!("{}.1.1:{port}", self.net).parse().unwrap()
    }

    /// A connection from an address of its network.
    fn connect(&self, from: &str, port: u16) -> TcpStream {
        let ip: IpAddr = format!("{}.{from}", self.net).parse().unwrap();
        let socket = net::connect(self.at(port), Some(ip), Instant::now() + PATIENCE).unwrap();
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// What comes back for these bytes until the connection ends.
    fn ask(&self, from: &str, port: u16, bytes: &[u8]) -> Vec<u8> {
        let mut socket = self.connect(from, port);
        let _ = socket.write_all(bytes);
        let _ = socket.shutdown(Shutdown::Write);
        rest(&mut socket)
    }

    /// A number of /proc/PID/status.
    fn number(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn messages(&self) -> String {
        let read = |name| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        read("out") + &read("err")
    }

    /// It serves its peer and its household as before.
    fn is_well(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "it ended: {}", self.messages());
        let hello = self.ask("2.1", 7733, b"GET /HELLO HTTP/1.1\r\nHost: x\r\n\r\n");
        let hello = String::from_utf8_lossy(&hello);
        assert!(hello.starts_with("HTTP/1.1 200") && hello.contains("BAMQP-Challenge: "), "{hello}");
        let own = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", self.at(3128));
        assert!(self.ask("3.1", 3128, own.as_bytes()).starts_with(b"HTTP/1.1 403"));
        assert!(!self.messages().contains("panicked"), "{}", self.messages());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// All up to the end; a reset is one, too.
fn rest(socket: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    match socket.read_to_end(&mut all) {
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
        {
            panic!("it does not let go, after {:?}", String::from_utf8_lossy(&all))
        }
        _ => all,
    }
}

#[test]
fn a_flood_of_strangers_keeps_no_peer_out_and_fills_no_log() {
    let mut program = Program::start();
    program.is_well();
    let before = (program.number("Threads"), program.number("VmRSS"), program.messages().lines().count());
    let mut held: Vec<TcpStream> = Vec::new();
    for i in 0..400 {
        let from = format!("9.{}", 1 + i % 250);
        let mut socket = program.connect(&from, 7733);
        let _ = socket.write_all(b"GET /HELLO HTTP/1.1\r\n");
        held.push(socket);
    }
    program.is_well();
    // Two of them are there, and perhaps one that was just let go of.
    let threads = program.number("Threads");
    assert!(threads <= before.0 + 4, "{threads} threads instead of {}", before.0);
    // Each of these is refused with a reason; strangers could go on like that for ever.
    drop(held);
    for i in 0..300 {
        let from = format!("9.{}", 1 + i % 250);
        let forged = "GET /CHUNK HTTP/1.1\r\nBAMQP-Session: 01010101010101010101010101010101\r\nRange: bytes=0-9\r\n\r\n";
        program.ask(&from, 7733, forged.as_bytes());
        program.ask(&from, 3128, b"\x16\x03\x01\x02\x00\r\n\r\n");
        program.ask("2.1", 7733, &signed_init(None));
    }
    program.is_well();
    let memory = program.number("VmRSS");
    assert!(memory <= before.1 + 1024, "{memory} KiB instead of {}", before.1);
    let refused = program.messages().lines().filter(|line| line.contains("refused")).count();
    assert!((1..=25).contains(&refused), "{refused} lines of the log for 300 refusals");
}

#[test]
fn who_sends_slowly_or_never_ends_is_let_go() {
    let mut program = Program::start();
    // A stranger that sends a byte now and then has five seconds all the same.
    let mut slow = program.connect("9.1", 7733);
    let begun = Instant::now();
    let drip = std::thread::spawn({
        let mut socket = slow.try_clone().unwrap();
        move || {
            while begun.elapsed() < PATIENCE && socket.write_all(b"G").is_ok() {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    });
    // Heads that do not end, empty lines that do not end, a name, a value: at both doors.
    for endless in ["\r\n", "a", "GET /HELLO HTTP/1.1\r\nX: ", "GET /HELLO HTTP/1.1\r\n: ", "GET http://a/"] {
        for (from, port) in [("2.1", 7733), ("9.2", 7733), ("3.1", 3128)] {
            let mut socket = program.connect(from, port);
            let part = endless.repeat(1 + 4096 / endless.len());
            let _ = socket.write_all(endless.as_bytes());
            // As much as it takes; in the end it takes no more. An empty line is no beginning of a request for clients.
            let most = if port == 3128 && endless == "\r\n" { 64 } else { 100_000 };
            let taken = (0..most).take_while(|_| socket.write_all(part.as_bytes()).is_ok()).count();
            assert!(taken < 100_000, "{endless:?} at {port} for ever");
            let _ = socket.shutdown(Shutdown::Write);
            rest(&mut socket);
        }
    }
    assert!(rest(&mut slow).is_empty());
    drip.join().unwrap();
    assert!(begun.elapsed() < PATIENCE, "it was not let go of");
    program.is_well();
}

/// The peer's INIT for some challenge.
fn signed_init(challenge: Option<Challenge>) -> Vec<u8> {
    let me = Identity::from_seed([2; 32]).unwrap();
    let other = Identity::from_seed([3; 32]).unwrap();
    let init = Init {
        session: SessionId([1; 16]),
        target: Uri::parse("http://192.0.2.1/f").unwrap(),
        size: 1,
        validator: Validator::entity_tag(b"\"v\"").unwrap(),
        hops: 0,
        recipient: other.fingerprint(),
        first: None,
        user_agent: None,
        accept: None,
    };
    let mut buffer = vec![0; 8192];
    let mut head = HeadWriter::new(&mut buffer);
    init.write(&mut head, &"x");
    let challenge = challenge.unwrap_or(Challenge { log_head: [0; 32], random: [0; 16] });
    let neighbour = me.agree(other.public_key()).unwrap();
    let (length, ..) = me.seal_init(head, &init, &neighbour, &challenge, &mut Tally::default()).unwrap();
    buffer.truncate(length);
    buffer
}

/// Parts of heads in every wrong order, and bytes that are none: whatever comes is answered or closed.
#[test]
fn odd_heads_are_answered_or_closed_and_nothing_else() {
    let mut program = Program::start();
    let seed: u64 = std::env::var("BAMQP_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("BAMQP_TEST_SEED {seed}");
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = |most: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % most
    };
    const PARTS: [&str; 28] = [
        "Signature-Input: init=",
        "Signature-Input: mac=(",
        "Signature: init=:",
        "Signature: mac=::, mac=::\r\n",
        "(\"@method\"",
        "\"@path\";req",
        "\"@query-param\";name=\"\\\"\"",
        "\"signature\";key=\"init\"",
        ";nonce=\"",
        ";keyid=",
        ";alg=\"ed25519\"",
        ";created=-1",
        ";;;",
        "((((",
        ")",
        "\"",
        "?1",
        "18446744073709551616",
        "BAMQP-Size: +1\r\n",
        "BAMQP-Target: http://[::\r\n",
        "Range: bytes=0-18446744073709551615\r\n",
        "ETag: \"\r\n",
        "Content-Length: -0\r\n",
        "BAMQP-Outcome: ;;,=\r\n",
        "BAMQP-Sequence: 4294967295.4294967295\r\n",
        "\r\n",
        ": ",
        "\0\u{ff}",
    ];
    let good = signed_init(None);
    for round in 0..400 {
        let mut head = match round % 4 {
            0 => b"GET /CHUNK HTTP/1.1\r\nBAMQP-Session: 01010101010101010101010101010101\r\n".to_vec(),
            1 => b"POST /FEEDBACK HTTP/1.1\r\nBAMQP-Session: 01010101010101010101010101010101\r\n".to_vec(),
            2 => b"GET http://127.0.0.1/ HTTP/1.1\r\nHost: x\r\n".to_vec(),
            _ => good.clone(),
        };
        for _ in 0..1 + draw(8) {
            let part = PARTS[draw(PARTS.len())].as_bytes();
            match draw(3) {
                0 => head.extend_from_slice(part),
                1 => {
                    let at = draw(head.len());
                    head.splice(at..at, part.iter().copied());
                }
                _ => {
                    let at = draw(head.len());
                    head[at] = draw(256) as u8;
                }
            }
        }
        head.extend_from_slice(b"\r\n\r\n");
        let port = if round % 8 < 6 { 7733 } else { 3128 };
        let answer = program.ask(if draw(4) == 0 { "9.3" } else { "2.1" }, port, &head);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 "), "{}", answer.escape_ascii());
        let is_accepted = port == 7733 && answer.starts_with(b"HTTP/1.1 20") && round % 4 != 2;
        assert!(!is_accepted, "{}\nto\n{}", answer.escape_ascii(), head.escape_ascii());
    }
    program.is_well();
    let log = fs::read_dir(program.folder.join("log")).unwrap();
    assert_eq!(log.count(), 0, "nothing of it is worth a line of the log before its time");
}
