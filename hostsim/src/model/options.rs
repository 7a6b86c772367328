//! The options of `hostsim model`. Links, sizes, faults and seed are read as `hostsim run` reads them ([`crate::args`]).
//! Not responsible for what is done with them.

use pico_args::Arguments;

use crate::args;

/// What `hostsim model --help` prints.
pub const HELP: &str = "\
hostsim model: the same core under a virtual clock; the same seed gives the same result

  --links LIST --rtt LIST --size SIZE --window SIZE --topology T --fault FAULT --seed N --json
                  as for hostsim run; size 64MiB if not given
  --peers N       a neighbourhood of N peers (1 to 100) with random links instead of --links
  --hours H       H hours (0.01 to 100) in which each household starts downloads now and then, and links get
                  faster, slower, die and come back
  --plan          compare the plan with the simple ones of the literature on the same links
  --detect        how often a lying peer is found out, by the formula and in --sessions N sessions a row (2000)
  --tcp           connections are TCP's: slow start, a line's queue of 100 ms, losses where it is full; else a line is
                  always used in full
  --newcomers     peers without a record, which are checked most closely; else they have a clean one
  --table         how much of the links' sum a download gets, for many kinds of links that stay as they are
  --rules         downloads over TCP, and what each scheduling rule is worth
  --promises      what a router should promise that passes work on to its own peers
  --topologies N  N random neighbourhoods in which routers pass a session on, lose each other and ask again: nobody may work
                  for two others, nor in a circle, nor too far away

Exit code: 0 if every download ended as it should, 1 if not, 2 for wrong arguments.
";

/// Most peers of a random neighbourhood.
pub const MAX_PEERS: usize = 100;

/// What `hostsim model` is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// One download.
    Once,
    /// So many hours of a neighbourhood.
    Hours(f64),
    /// Compare plans.
    Plan,
    /// The table of static links.
    Table,
    /// What each scheduling rule is worth.
    Rules,
    /// The table of promises.
    Promises,
    /// So many random topologies.
    Topologies(u64),
    /// The table of liars that are found out, with so many sessions a row.
    Detect(u64),
}

/// The options.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to do.
    pub task: Task,
    /// A random neighbourhood of so many peers.
    pub peers: Option<usize>,
    /// Whether connections are TCP's.
    pub tcp: bool,
    /// Whether the peers have no record yet.
    pub newcomers: bool,
    /// Links, size, window, faults, seed, JSON.
    pub run: args::Options,
}

impl Options {
    /// Reads the options that follow `model`; the error is the line to print.
    pub fn parse(mut args: Arguments) -> Result<Options, String> {
        const PEERS: &str = "--peers: expected 1 to 100";
        const HOURS: &str = "--hours: expected 0.01 to 100, e.g. 1 or 0.5";
        let peers: Option<usize> = args.opt_value_from_str("--peers").map_err(|_| PEERS.to_string())?;
        if peers.is_some_and(|n| !(1..=MAX_PEERS).contains(&n)) {
            return Err(PEERS.into());
        }
        let hours: Option<f64> = args.opt_value_from_str("--hours").map_err(|_| HOURS.to_string())?;
        if hours.is_some_and(|h| !(0.01..=100.0).contains(&h)) {
            return Err(HOURS.into());
        }
        const SESSIONS: &str = "--sessions: expected 1 to 1000000";
        let sessions: Option<u64> =
            args.opt_value_from_str("--sessions").map_err(|_| SESSIONS.to_string())?;
        let sessions = sessions.unwrap_or(2_000);
        if !(1..=1_000_000).contains(&sessions) {
            return Err(SESSIONS.into());
        }
        let detect = args.contains("--detect").then_some(Task::Detect(sessions));
        let newcomers = args.contains("--newcomers");
        let tcp = args.contains("--tcp");
        let plan = args.contains("--plan").then_some(Task::Plan);
        let table = args.contains("--table").then_some(Task::Table);
        let promises = args.contains("--promises").then_some(Task::Promises);
        const TOPOLOGIES: &str = "--topologies: expected 1 to 10000000";
        let topologies: Option<u64> =
            args.opt_value_from_str("--topologies").map_err(|_| TOPOLOGIES.to_string())?;
        if topologies.is_some_and(|n| !(1..=10_000_000).contains(&n)) {
            return Err(TOPOLOGIES.into());
        }
        let topologies = topologies.map(Task::Topologies);
        let rules = args.contains("--rules").then_some(Task::Rules);
        let tasks = [hours.map(Task::Hours), plan, table, rules, detect, promises, topologies];
        let mut tasks = tasks.into_iter().flatten();
        let task = tasks.next().unwrap_or(Task::Once);
        if tasks.next().is_some() {
            return Err(
                "--hours, --plan, --table, --rules, --detect, --promises, --topologies: expected one of them"
                    .into(),
            );
        }
        let sized = args.clone().contains("--size");
        let linked = args.clone().contains("--links");
        let mut run = args::Options::parse(args)?;
        if run.file.is_some() {
            return Err("--file: the model moves no bytes; expected --size".into());
        }
        if peers.is_some() && linked {
            return Err("--links and --peers: expected one of them".into());
        }
        if !sized {
            run.size = 64 << 20;
        }
        Ok(Options { task, peers, tcp, newcomers, run })
    }
}
