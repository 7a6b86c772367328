//! A router's peer side behind a real listener, and a coordinator that speaks to it.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bamqp_core::http::response::Response;
use bamqp_core::http::target::Uri;
use bamqp_core::http::validator::Validator;
use bamqp_core::http::write::HeadWriter;
use bamqp_core::message::chunk::Chunk;
use bamqp_core::message::drop::{Drop as DropMessage, Summary};
use bamqp_core::message::init::{Answer, Init};
use bamqp_core::message::reason::{DeclineReason, DropReason};
use bamqp_core::message::{Fingerprint, SessionId};
use bamqp_router::config::{Config, Peer};
use bamqp_router::keys::KeyPair;
use bamqp_router::ledger_file::Ledger;
use bamqp_router::live::Live;
use bamqp_router::net;
use bamqp_router::origin::Gate;
use bamqp_router::serve::Serve;
use bamqp_router::trust_store::TrustStore;

/// The configured coordinators, and one that is not.
pub const A: &str = "127.0.10.1";
pub const B: &str = "127.0.10.2";
pub const STRANGER: &str = "127.0.10.99";

/// The router's key.
pub const SEED: [u8; 32] = [7; 32];

/// A folder for a ledger of its own, among the build's files.
fn log_dir() -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::SeqCst);
    let path = format!("{}/serve-log-{}-{number}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let _ = std::fs::remove_dir_all(&path); // of an earlier process with this number
    path.into()
}

pub struct Bed {
    pub address: SocketAddr,
    pub serve: Arc<Serve>,
    pub live: Arc<Live>,
    pub trust: Arc<TrustStore>,
    pub ledger: Arc<Ledger>,
    pub log_dir: PathBuf,
    pub key: Fingerprint,
    /// Connections that were made to it.
    pub connections: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Bed {
    /// A router that fetches from loopback addresses and these ports.
    pub fn start(ports: &[u16]) -> Bed {
        Bed::with(ports, |_| {})
    }

    pub fn with(ports: &[u16], change: impl FnOnce(&mut Config)) -> Bed {
        Bed::at("127.0.11.1:0".parse().unwrap(), ports, change)
    }

    pub fn at(address: SocketAddr, ports: &[u16], change: impl FnOnce(&mut Config)) -> Bed {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let pair = KeyPair::from_seed(SEED);
        let peer = |name: &str, ip: &str, key| Peer {
            name: name.into(),
            address: SocketAddr::new(ip.parse().unwrap(), 7733),
            public_key: [key; 32],
        };
        let mut config = Config {
            allow_private: vec!["127.0.20.0/24".parse().unwrap(), "127.0.11.0/24".parse().unwrap()],
            fetch_ports: ports.to_vec(),
            max_peer_sessions: 3,
            bandwidth: 20_000_000,
            state_dir: "/nonexistent".into(),
            log_dir: log_dir(),
            peers: vec![peer("a", A, 1), peer("b", B, 2)],
            ..Config::default()
        };
        change(&mut config);
        let live = Arc::new(Live::default());
        let gate = Arc::new(Gate::new(&config, vec![address]));
        let trust = Arc::new(TrustStore::open(&config));
        let ledger = Arc::new(Ledger::open(&config, pair.public()).unwrap());
        let serve = Arc::new(Serve::new(
            &config,
            pair.fingerprint(),
            "bamqp-test",
            gate,
            live.clone(),
            trust.clone(),
            Some(ledger.clone()),
        ));
        let (of_thread, its_live) = (serve.clone(), live.clone());
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let thread = std::thread::spawn(move || {
            for socket in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let Ok(socket) = its_live.add(socket.unwrap()) else { return };
                let (serve, from) = (of_thread.clone(), socket.peer_addr().unwrap());
                if its_live.spawn("serve", move || serve.connection(socket, from)).is_err() {
                    return;
                }
            }
        });
        let key = pair.fingerprint();
        Bed {
            address,
            serve,
            live,
            trust,
            ledger,
            log_dir: config.log_dir,
            key,
            connections,
            thread: Some(thread),
        }
    }

    /// A connection from there.
    pub fn connect(&self, from: &str) -> Line {
        let from: IpAddr = from.parse().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let socket = net::connect(self.address, Some(from), deadline).unwrap();
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        Line { socket, inbox: Vec::new(), key: self.key }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.live.stop();
        let _ = TcpStream::connect(self.address);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A coordinator's connection.
pub struct Line {
    pub socket: TcpStream,
    inbox: Vec<u8>,
    key: Fingerprint,
}

/// The head of an answer, as text and bytes.
pub struct Head(Vec<u8>);

impl Head {
    pub fn with<T>(&self, read: impl FnOnce(&Response<'_>) -> T) -> T {
        read(&Response::parse(&self.0).unwrap().unwrap().0)
    }

    pub fn status(&self) -> u16 {
        self.with(|response| response.status)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap()
    }
}

pub fn id(number: u8) -> SessionId {
    SessionId([number; 16])
}

impl Line {
    pub fn send(&mut self, write: impl FnOnce(&mut HeadWriter<'_>)) {
        let mut buffer = [0; 4096];
        let mut head = HeadWriter::new(&mut buffer);
        write(&mut head);
        let length = head.finish().unwrap();
        self.socket.write_all(&buffer[..length]).unwrap();
    }

    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// The next head; `None` if the connection was closed instead.
    pub fn head(&mut self) -> Option<Head> {
        loop {
            if let Some(end) = self.inbox.windows(4).position(|window| window == b"\r\n\r\n") {
                return Some(Head(self.inbox.drain(..end + 4).collect()));
            }
            let mut buffer = [0; 4096];
            match self.socket.read(&mut buffer) {
                Ok(0) => {
                    assert!(self.inbox.is_empty(), "half a head");
                    return None;
                }
                Ok(count) => self.inbox.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    /// At most `count` bytes of a body; less if the connection ends.
    pub fn body(&mut self, count: u64) -> Vec<u8> {
        let count = count as usize;
        let mut body: Vec<u8> = self.inbox.drain(..count.min(self.inbox.len())).collect();
        let have = body.len();
        body.resize(count, 0);
        let mut at = have;
        while at < count {
            match self.socket.read(&mut body[at..]) {
                Ok(0) => break,
                Ok(read) => at += read,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(error) => panic!("no bytes: {error}"),
            }
        }
        body.truncate(at);
        body
    }

    pub fn hello(&mut self) -> Option<Head> {
        self.send(|head| bamqp_core::message::hello::write_request(head, &"peer"));
        self.head()
    }

    pub fn init(&mut self, session: SessionId, uri: &str, size: u64) -> Result<(u64, u32), DeclineReason> {
        self.init_to(self.key, session, uri, size)
    }

    pub fn init_to(
        &mut self,
        recipient: Fingerprint,
        session: SessionId,
        uri: &str,
        size: u64,
    ) -> Result<(u64, u32), DeclineReason> {
        let init = Init {
            session,
            target: Uri::parse(uri).unwrap(),
            size,
            validator: Validator::entity_tag(b"\"v\"").unwrap(),
            hops: 0,
            recipient,
            user_agent: Some(b"test/1"),
            accept: None,
        };
        self.send(|head| init.write(head, &"peer"));
        self.head().unwrap().with(|response| match Answer::parse(response).unwrap() {
            Answer::Accept(accept) => {
                assert_eq!(accept.target, init.target);
                Ok((accept.bandwidth, accept.hold))
            }
            Answer::Decline(decline) => Err(decline.reason),
        })
    }

    pub fn ask(&mut self, session: SessionId, range: Range<u64>) {
        self.send(|head| Chunk { session, range }.write(head, &"peer"));
    }

    /// The answer to a chunk: its bytes, or why there are none.
    pub fn chunk(&mut self, range: Range<u64>, total: u64) -> Result<Vec<u8>, DropReason> {
        let head = self.head().expect("the connection was closed");
        head.with(|response| match response.status {
            206 => {
                let validator = Validator::entity_tag(b"\"v\"").unwrap();
                bamqp_core::http::partial::check_partial(response, &range, total, &validator).unwrap();
                Ok(())
            }
            _ => Err(DropMessage::of_answer(response).unwrap().reason),
        })?;
        Ok(self.body(range.end - range.start))
    }

    pub fn end(&mut self, session: SessionId) -> Result<Summary, DropReason> {
        let drop = DropMessage { session, reason: DropReason::Done, retry_after: 0 };
        self.send(|head| drop.write_request(head, &"peer"));
        self.head().unwrap().with(|response| match response.status {
            200 => Ok(Summary::parse(response).unwrap()),
            _ => Err(DropMessage::of_answer(response).unwrap().reason),
        })
    }

    /// Whether the other side closes the connection now, without another byte.
    pub fn is_closed(&mut self) -> bool {
        self.head().is_none()
    }
}

/// Waits until `done`, for as long as a test may take.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
