//! A router's peer side behind a real listener, and a coordinator that speaks to it.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bamqp_core::channel::{Caller, Challenge, Identity, Neighbour, Outgoing, Reference, Tally};
use bamqp_core::http::response::Response;
use bamqp_core::http::target::Uri;
use bamqp_core::http::validator::Validator;
use bamqp_core::http::write::HeadWriter;
use bamqp_core::message::chunk::Chunk;
use bamqp_core::message::drop::{Drop as DropMessage, Summary};
use bamqp_core::message::hello::Hello;
use bamqp_core::message::init::{Answer, Init};
use bamqp_core::message::reason::{DeclineReason, DropReason};
use bamqp_core::message::{Fingerprint, SessionId};
use bamqp_router::config::{Config, Peer};
use bamqp_router::keyring::Keyring;
use bamqp_router::keys::KeyPair;
use bamqp_router::ledger_file::Ledger;
use bamqp_router::live::Live;
use bamqp_router::net;
use bamqp_router::origin::Gate;
use bamqp_router::serve::{Serve, Terms, Usage};
use bamqp_router::trust_store::TrustStore;
use bamqp_router::uplink::Uplink;

/// The configured coordinators, and one that is not.
pub const A: &str = "127.0.10.1";
pub const B: &str = "127.0.10.2";
pub const STRANGER: &str = "127.0.10.99";

/// The router's key.
pub const SEED: [u8; 32] = [7; 32];

/// The key of the router at an address: its last byte.
pub fn seed_of(ip: &str) -> [u8; 32] {
    [ip.rsplit('.').next().unwrap().parse().unwrap(); 32]
}

/// What coordinators know of their sessions, by address.
pub type Callers = Arc<Mutex<HashMap<(String, SessionId), Arc<Caller>>>>;

/// A folder for a ledger of its own, among the build's files.
pub fn log_dir() -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::SeqCst);
    let path = format!("{}/serve-log-{}-{number}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let _ = std::fs::remove_dir_all(&path); // of an earlier process with this number
    path.into()
}

pub struct Bed {
    pub address: SocketAddr,
    pub keyring: Arc<Keyring>,
    pub serve: Arc<Serve>,
    callers: Callers,
    pub live: Arc<Live>,
    pub trust: Arc<TrustStore>,
    pub uplink: Arc<Uplink>,
    pub usage: Arc<Usage>,
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
        let peer = |name: &str, ip: &str| Peer {
            name: name.into(),
            address: SocketAddr::new(ip.parse().unwrap(), 7733),
            public_key: *KeyPair::from_seed(seed_of(ip)).public(),
        };
        let mut config = Config {
            allow_private: vec!["127.0.20.0/24".parse().unwrap(), "127.0.11.0/24".parse().unwrap()],
            fetch_ports: ports.to_vec(),
            max_peer_sessions: Some(3),
            bandwidth: 20_000_000,
            peer_listen: Some(address),
            state_dir: "/nonexistent".into(),
            log_dir: log_dir(),
            peers: vec![peer("a", A), peer("b", B)],
            ..Config::default()
        };
        change(&mut config);
        let live = Arc::new(Live::default());
        let gate = Arc::new(Gate::new(&config, vec![address]));
        let keyring = Arc::new(Keyring::new(&pair, &config.peers).unwrap());
        let trust = Arc::new(TrustStore::open(&config));
        let ledger = Arc::new(Ledger::open(&config, pair.public()).unwrap());
        let sessions = config.max_peer_sessions.unwrap();
        let terms = Terms::of(&config, sessions, keyring.clone(), gate, Some(ledger.clone()));
        let uplink = Arc::new(Uplink::new(&config).unwrap());
        let usage = Arc::new(Usage::open(&config, trust.clone()));
        let serve = Arc::new(Serve::new(
            terms,
            "bamqp-test",
            live.clone(),
            trust.clone(),
            uplink.clone(),
            usage.clone(),
        ));
        let (of_thread, its_live) = (serve.clone(), live.clone());
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let thread = std::thread::spawn(move || {
            for socket in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let Ok(socket) = its_live.add(socket.unwrap()) else { return };
                let serve = of_thread.clone();
                let Some(visit) = serve.enter(socket.peer_addr().unwrap()) else { continue };
                if its_live.spawn("serve", move || serve.connection(socket, visit)).is_err() {
                    return;
                }
            }
        });
        let key = pair.fingerprint();
        let callers = Callers::default();
        Bed {
            address,
            keyring,
            serve,
            callers,
            live,
            trust,
            uplink,
            usage,
            ledger,
            log_dir: config.log_dir,
            key,
            connections,
            thread: Some(thread),
        }
    }

    /// A connection from there.
    pub fn connect(&self, from: &str) -> Line {
        Line::to(self.address, SEED, from, self.callers.clone())
    }
}

impl Line {
    /// A connection from there to the router with this key.
    pub fn to(address: SocketAddr, seed: [u8; 32], from: &str, callers: Callers) -> Line {
        let ip: IpAddr = from.parse().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let socket = net::connect(address, Some(ip), deadline).unwrap();
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        let me = Identity::from_seed(seed_of(from)).unwrap();
        let pair = KeyPair::from_seed(seed);
        let peer = me.agree(pair.public()).unwrap();
        Line {
            socket,
            inbox: Vec::new(),
            key: pair.fingerprint(),
            from: from.into(),
            me,
            peer,
            challenge: None,
            callers,
            link: None,
            pending: Vec::new(),
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.uplink.stop();
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
    from: String,
    pub me: Identity,
    pub peer: Neighbour,
    pub challenge: Option<Challenge>,
    callers: Callers,
    link: Option<(SessionId, Outgoing)>,
    /// What was asked and not answered yet.
    pending: Vec<(Arc<Caller>, Reference)>,
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

    fn caller(&self, session: SessionId) -> Option<Arc<Caller>> {
        self.callers.lock().unwrap().get(&(self.from.clone(), session)).cloned()
    }

    /// Sends a request of a session under its keys; without any if it was never accepted.
    pub fn send_in(&mut self, session: SessionId, write: impl FnOnce(&mut HeadWriter<'_>)) {
        let Some(caller) = self.caller(session) else { return self.send(write) };
        let mut buffer = [0; 4096];
        let mut head = HeadWriter::new(&mut buffer);
        write(&mut head);
        let (_, mut link) = self
            .link
            .take()
            .filter(|(of, _)| *of == session)
            .unwrap_or_else(|| (session, caller.next_link()));
        let (length, reference) = caller.seal(head, &mut link).unwrap();
        self.link = Some((session, link));
        self.pending.push((caller, reference));
        self.socket.write_all(&buffer[..length]).unwrap();
    }

    /// The answer to one of the requests that were sent: authentic, unless it is that the session is not known.
    pub fn answer(&mut self) -> Option<Head> {
        let head = self.head()?;
        self.authentic(&head);
        Some(head)
    }

    fn authentic(&mut self, head: &Head) {
        head.with(|response| match response.fields.text("BAMQP-Sequence") {
            Some(sequence) => {
                let is_it = |(_, to): &(_, Reference)| to.sequence.to_string() == sequence;
                let place = self.pending.iter().position(is_it).expect("an answer to nothing");
                let (caller, to) = self.pending.remove(place);
                caller.check(response, &to).unwrap();
            }
            None => {
                assert_eq!(DropMessage::of_answer(response).unwrap().reason, DropReason::UnknownSession);
            }
        });
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
        let head = self.head()?;
        match head.with(Hello::parse) {
            Ok(hello) => self.challenge = hello.challenge,
            Err(_) => self.authentic(&head), // another answer came first
        }
        Some(head)
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
        let (head, caller, reference) = self.signed_init(recipient, session, uri, size);
        self.send_raw(head.as_bytes());
        self.head().unwrap().with(|response| {
            caller.check(response, &reference).unwrap();
            match Answer::parse(response).unwrap() {
                Answer::Accept(accept) => {
                    assert_eq!(accept.target, Uri::parse(uri).unwrap());
                    self.link = Some((session, caller.first_link()));
                    let mut callers = self.callers.lock().unwrap();
                    callers.insert((self.from.clone(), session), Arc::new(caller));
                    Ok((accept.bandwidth, accept.hold))
                }
                Answer::Decline(decline) => Err(decline.reason),
            }
        })
    }

    /// An INIT for the challenge that is open here; a HELLO asks for one first.
    pub fn signed_init(
        &mut self,
        recipient: Fingerprint,
        session: SessionId,
        uri: &str,
        size: u64,
    ) -> (String, Caller, Reference) {
        if self.challenge.is_none() {
            self.hello().unwrap();
        }
        let challenge = self.challenge.take().unwrap_or(Challenge { log_head: [0; 32], random: [0; 16] });
        let init = Init {
            session,
            target: Uri::parse(uri).unwrap(),
            size,
            validator: Validator::entity_tag(b"\"v\"").unwrap(),
            hops: 0,
            recipient,
            first: None,
            user_agent: Some(b"test/1"),
            accept: None,
        };
        let mut buffer = [0; 8192];
        let mut head = HeadWriter::new(&mut buffer);
        init.write(&mut head, &"peer");
        let sealed = self.me.seal_init(head, &init, &self.peer, &challenge, &mut Tally::default());
        let (length, caller, reference) = sealed.unwrap();
        (String::from_utf8(buffer[..length].to_vec()).unwrap(), caller, reference)
    }

    pub fn ask(&mut self, session: SessionId, range: Range<u64>) {
        self.send_in(session, |head| Chunk { session, range }.write(head, &"peer"));
    }

    /// The answer to a chunk: its bytes, or why there are none.
    pub fn chunk(&mut self, range: Range<u64>, total: u64) -> Result<Vec<u8>, DropReason> {
        let head = self.answer().expect("the connection was closed");
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
        self.send_in(session, |head| drop.write_request(head, &"peer"));
        self.answer().unwrap().with(|response| match response.status {
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
