//! Random neighbourhoods in which a session is passed on, connections break, routers let go of their helpers and ask again,
//! and messages take their time: who works for whom is decided by the core's rule ([`bamqp_core::hops::Part`]), and after each
//! step it is looked at whether that is a tree. Not responsible for bytes; nothing is fetched here.
//!
//! A router works for another one from the moment it accepts until either side has ended the connection: what only one of them
//! believes to be under way moves nothing. Times are in ms.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use bamqp_core::hops::{Part, may_pass_on};
use bamqp_core::message::reason::DeclineReason;

use super::random::Random;

/// The coordinator whose client waits.
const ROOT: usize = 0;

/// How long a download takes at most; what is still under way then is left to end.
const LONGEST: u64 = 20_000;

/// What became of all neighbourhoods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many there were.
    pub topologies: u64,
    /// INITs that were accepted.
    pub accepted: u64,
    /// Of those, from who had asked before.
    pub again: u64,
    /// INITs that were declined, by [`DeclineReason::index`].
    pub declined: [u64; DeclineReason::ALL.len()],
    /// Connections that broke.
    pub lost: u64,
    /// Helpers that were let go of.
    pub let_go: u64,
    /// How often a router began to work so many routers away from the coordinator.
    pub depths: BTreeMap<usize, u64>,
    /// What must not be, and the seed of the neighbourhood in which it was.
    pub violations: Vec<String>,
}

/// Tries `count` neighbourhoods that follow from `seed`; `progress` hears of each.
pub fn run(count: u64, seed: u64, mut progress: impl FnMut(u64)) -> Tally {
    let mut tally = Tally { topologies: count, ..Tally::default() };
    let mut seeds = Random::new(seed);
    for number in 0..count {
        progress(number);
        let seed = seeds.bits();
        if let Err(what) = Street::random(Random::new(seed)).run(&mut tally) {
            tally.violations.push(format!("{what} (neighbourhood {number}, {seed:#x})"));
        }
    }
    tally
}

impl Tally {
    /// For people.
    pub fn summary(&self) -> String {
        let mut out = String::new();
        let reasons = DeclineReason::ALL.into_iter().map(|reason| (reason, self.declined[reason.index()]));
        let declined: Vec<String> = reasons
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        let depths: Vec<String> =
            self.depths.iter().map(|(depth, count)| format!("{depth}: {count}")).collect();
        let _ = writeln!(
            out,
            "topologies {:>10}   connections lost {}, helpers let go of {}",
            self.topologies, self.lost, self.let_go
        );
        let _ = writeln!(
            out,
            "accepted   {:>10}   of those {} from who had asked before",
            self.accepted, self.again
        );
        let total: u64 = self.declined.iter().sum();
        let _ = writeln!(out, "declined   {total:>10}   {}", declined.join(", "));
        let deepest = self.depths.keys().last().copied().unwrap_or(0);
        let _ = writeln!(out, "depth      {deepest:>10}   routers away, {}", depths.join(", "));
        let _ = writeln!(out, "violations {:>10}", self.violations.len());
        for violation in self.violations.iter().take(10) {
            let _ = writeln!(out, "           {violation}");
        }
        out
    }

    /// The same as one JSON object.
    pub fn json(&self) -> String {
        let reason = |reason: DeclineReason| format!("\"{reason}\":{}", self.declined[reason.index()]);
        let depth = |(depth, count): (&usize, &u64)| format!("\"{depth}\":{count}");
        format!(
            "{{\"ok\":{},\"topologies\":{},\"accepted\":{},\"again\":{},\"declined\":{{{}}},\"lost\":{},\"let_go\":{},\"depths\":{{{}}},\"violations\":{}}}",
            self.violations.is_empty(),
            self.topologies,
            self.accepted,
            self.again,
            DeclineReason::ALL.map(reason).join(","),
            self.lost,
            self.let_go,
            self.depths.iter().map(depth).collect::<Vec<_>>().join(","),
            self.violations.len()
        )
    }
}

/// The session as a router knows it that works for it.
#[derive(Clone, Copy)]
struct Known {
    coordinator: usize,
    hops: u8,
    /// The connection of the last INIT, under whose keys DROP has to come.
    by: usize,
}

struct Router {
    max_hops: u8,
    hears: Vec<usize>,
    known: Option<Known>,
}

/// A router asks its peers: for its client, or for the one that has asked it on a connection.
struct Asking {
    router: usize,
    hops: u8,
    on: Option<usize>,
    over: bool,
}

/// How one end of a connection sees it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// There is no answer yet.
    Asked,
    Works,
    Over,
}

/// On which one router has asked another.
struct Connection {
    asking: usize,
    from: usize,
    to: usize,
    hops: u8,
    /// As the one that asks sees it, and the one that was asked.
    ends: (End, End),
    /// When the last thing that was sent to the one that was asked arrives: nothing overtakes it.
    last: u64,
}

#[derive(Clone, Copy)]
enum Event {
    /// INIT arrives.
    Init(usize),
    /// ACCEPT or DECLINE arrives.
    Answer(usize, bool),
    /// DROP arrives.
    Drop(usize),
    /// The one that was asked notices that the connection is gone.
    Gone(usize),
    /// The one that asks notices it.
    Lost(usize),
    /// Nobody has asked anything of a router for long.
    Silence(usize),
    /// A connection breaks.
    Break,
    /// A router lets go of a helper.
    LetGo,
    /// The client has its bytes.
    Done,
}

/// One neighbourhood.
struct Street {
    random: Random,
    routers: Vec<Router>,
    askings: Vec<Asking>,
    connections: Vec<Connection>,
    events: BTreeMap<(u64, u64), Event>,
    count: u64,
    now: u64,
    /// How long messages take at most, and after how long a router forgets a session that nobody asks anything of.
    slowest: u64,
    silence: u64,
}

impl Street {
    fn over(random: Random, routers: Vec<Router>) -> Street {
        Street {
            random,
            routers,
            askings: Vec::new(),
            connections: Vec::new(),
            events: BTreeMap::new(),
            count: 0,
            now: 0,
            slowest: 1,
            silence: 30_000,
        }
    }

    /// 3 to 12 routers that hear each other by chance, with limits of 1 to 6 hops: it takes 5 to ask in a circle.
    fn random(mut random: Random) -> Street {
        let count = random.between(3, 12) as usize;
        let density = random.between(1, 6);
        let router = |random: &mut Random| Router {
            max_hops: random.between(1, 6) as u8,
            hears: Vec::new(),
            known: None,
        };
        let mut routers: Vec<Router> = (0..count).map(|_| router(&mut random)).collect();
        for one in 0..count {
            for other in one + 1..count {
                // Somebody hears everybody, so that it is one neighbourhood; the rest is chance.
                let near = other == one + 1 && random.between(0, 9) > 0;
                if near || random.once_in(density) {
                    routers[one].hears.push(other);
                    routers[other].hears.push(one);
                }
            }
        }
        let mut street = Street::over(random, routers);
        street.slowest = [5, 50, 500, 5_000][street.random.between(0, 3) as usize];
        street.silence = street.random.between(500, 30_000);
        let end = street.random.between(LONGEST / 10, LONGEST);
        for _ in 0..street.random.between(0, 40) {
            let at = street.random.between(0, end);
            let what = if street.random.once_in(2) { Event::Break } else { Event::LetGo };
            street.at(at, what);
        }
        street.at(end, Event::Done);
        street
    }

    fn run(mut self, tally: &mut Tally) -> Result<(), String> {
        self.ask(ROOT, 0, None);
        while let Some(((at, _), event)) = self.events.pop_first() {
            self.now = at;
            self.take_place(event, tally);
            self.check()?;
        }
        Ok(())
    }

    fn at(&mut self, at: u64, event: Event) {
        self.count += 1;
        self.events.insert((at, self.count), event);
    }

    fn later(&mut self, event: Event) {
        let delay = self.random.between(1, self.slowest);
        self.at(self.now + delay, event);
    }

    /// Sends something on a connection to the one that was asked.
    fn send(&mut self, c: usize, event: Event) {
        let arrives = self.now + self.random.between(1, self.slowest);
        let arrives = arrives.max(self.connections[c].last + 1);
        self.connections[c].last = arrives;
        self.at(arrives, event);
    }

    /// A router asks all whom it hears, except the one that has asked it.
    fn ask(&mut self, router: usize, hops: u8, on: Option<usize>) {
        let asking = self.askings.len();
        self.askings.push(Asking { router, hops, on, over: false });
        let above = on.map(|c| self.connections[c].from);
        for to in self.routers[router].hears.clone() {
            if Some(to) != above {
                self.init(asking, to);
            }
        }
    }

    fn init(&mut self, asking: usize, to: usize) {
        let Asking { router: from, hops, .. } = self.askings[asking];
        let ends = (End::Asked, End::Asked);
        self.connections.push(Connection { asking, from, to, hops, ends, last: self.now });
        let c = self.connections.len() - 1;
        self.send(c, Event::Init(c));
    }

    fn take_place(&mut self, event: Event, tally: &mut Tally) {
        match event {
            Event::Init(c) => self.answer(c, tally),
            Event::Answer(c, accepted) => {
                let end = &mut self.connections[c].ends.0;
                if *end == End::Asked {
                    *end = if accepted { End::Works } else { End::Over };
                }
            }
            Event::Drop(c) => {
                let to = self.connections[c].to;
                if self.routers[to].known.is_some_and(|known| known.by == c) {
                    self.routers[to].known = None;
                }
                self.stop_working(c);
            }
            Event::Gone(c) => self.stop_working(c),
            Event::Lost(c) => {
                let Connection { asking, to, ends, .. } = self.connections[c];
                self.connections[c].ends.0 = End::Over;
                if ends.0 != End::Over && !self.askings[asking].over {
                    self.init(asking, to);
                }
            }
            Event::Silence(router) => {
                if !self.is_in_use(router) {
                    self.routers[router].known = None;
                }
            }
            Event::Break => {
                if let Some(c) = self.any_connection() {
                    tally.lost += 1;
                    self.send(c, Event::Gone(c));
                    self.later(Event::Lost(c));
                }
            }
            Event::LetGo => {
                if let Some(c) = self.any_connection() {
                    tally.let_go += 1;
                    self.let_go(c);
                }
            }
            Event::Done => self.end_asking(|asking| asking.on.is_none()),
        }
    }

    /// The one that was asked decides, as routers do.
    fn answer(&mut self, c: usize, tally: &mut Tally) {
        let Connection { from, to, hops, .. } = self.connections[c];
        let router = &self.routers[to];
        let part = match router.known {
            Some(Known { coordinator, hops, .. }) => Part::WorksFor { coordinator, hops },
            // A router remembers the downloads of its own clients.
            None if to == ROOT => Part::Asks,
            None if self.askings.iter().any(|asking| asking.router == to && !asking.over) => Part::Asks,
            None => Part::None,
        };
        let max_hops = router.max_hops;
        let busy = self.random.once_in(30).then_some(DeclineReason::Busy);
        let answer = part.answer(&from, hops, max_hops).and(busy.map_or(Ok(()), Err));
        self.later(Event::Answer(c, answer.is_ok()));
        if let Err(reason) = answer {
            tally.declined[reason.index()] += 1;
            self.connections[c].ends.1 = End::Over;
            return;
        }
        tally.accepted += 1;
        tally.again += u64::from(part != Part::None);
        self.routers[to].known = Some(Known { coordinator: from, hops, by: c });
        self.connections[c].ends.1 = End::Works;
        // Nobody asks for it any more, if it works for nobody.
        if let Ok(depth @ 1..) = self.depth(to)
            && part == Part::None
        {
            *tally.depths.entry(depth).or_insert(0) += 1;
        }
        if may_pass_on(hops, max_hops) {
            self.ask(to, hops + 1, Some(c));
        }
    }

    /// A connection on which somebody works or is asked.
    fn any_connection(&mut self) -> Option<usize> {
        let is_open = |c: &usize| self.connections[*c].ends.0 != End::Over;
        let open: Vec<usize> = (0..self.connections.len()).filter(is_open).collect();
        let draw = self.random.bits() as usize;
        open.get(draw.checked_rem(open.len())?).copied()
    }

    /// Who asks needs nothing any more: who has accepted is told so, another one sees that the connection is closed.
    fn let_go(&mut self, c: usize) {
        let end = std::mem::replace(&mut self.connections[c].ends.0, End::Over);
        match end {
            End::Works => self.send(c, Event::Drop(c)),
            End::Asked => self.send(c, Event::Gone(c)),
            End::Over => {}
        }
    }

    /// Who was asked has nothing to do on a connection any more.
    fn stop_working(&mut self, c: usize) {
        let to = self.connections[c].to;
        self.connections[c].ends.1 = End::Over;
        self.end_asking(|asking| asking.on == Some(c));
        if !self.is_in_use(to) {
            let silence = self.now + self.silence;
            self.at(silence, Event::Silence(to));
        }
    }

    fn end_asking(&mut self, which: impl Fn(&Asking) -> bool) {
        let ending: Vec<usize> =
            (0..self.askings.len()).filter(|a| !self.askings[*a].over && which(&self.askings[*a])).collect();
        for a in ending {
            self.askings[a].over = true;
            for c in 0..self.connections.len() {
                if self.connections[c].asking == a {
                    self.let_go(c);
                }
            }
        }
    }

    /// Whether a connection works for the session that a router knows.
    fn is_in_use(&self, router: usize) -> bool {
        self.connections.iter().any(|c| c.to == router && c.ends.1 == End::Works)
    }

    /// The routers that `router` works for.
    fn works_for(&self, router: usize) -> BTreeSet<usize> {
        let works = |c: &&Connection| c.to == router && c.ends.0 != End::Over && c.ends.1 == End::Works;
        self.connections.iter().filter(works).map(|c| c.from).collect()
    }

    /// How many routers away from the coordinator a router works, or from one that works for nobody at present.
    fn depth(&self, router: usize) -> Result<usize, String> {
        let (mut depth, mut at) = (0, router);
        loop {
            let above = self.works_for(at);
            match (above.len(), above.first()) {
                (0, _) | (_, None) => return Ok(depth),
                (1, Some(next)) => at = *next,
                _ => return Err(format!("router {at} works for {above:?}")),
            }
            depth += 1;
            if depth > self.routers.len() {
                return Err(format!("router {router} works in a circle"));
            }
        }
    }

    /// Who works for whom is a tree, whose root is the coordinator, and nobody works further away than its owner lets it.
    fn check(&self) -> Result<(), String> {
        if !self.works_for(ROOT).is_empty() {
            return Err("the coordinator works for its own session".into());
        }
        for (number, router) in self.routers.iter().enumerate() {
            let depth = self.depth(number)?;
            if depth > usize::from(router.max_hops) {
                return Err(format!(
                    "router {number} works {depth} hops away, its limit is {}",
                    router.max_hops
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A neighbourhood in which the second of each pair works for the first.
    fn street(max_hops: u8, pairs: &[(usize, usize)]) -> Street {
        let router = |_| Router { max_hops, hears: Vec::new(), known: None };
        let mut street = Street::over(Random::new(1), (0..5).map(router).collect());
        for &(from, to) in pairs {
            let ends = (End::Works, End::Works);
            street.connections.push(Connection { asking: 0, from, to, hops: 0, ends, last: 0 });
        }
        street
    }

    #[test]
    fn what_must_not_be_is_seen() {
        assert_eq!(street(3, &[(0, 1), (1, 2), (2, 3), (0, 1)]).check(), Ok(()));
        for (pairs, what) in [
            (&[(0, 1), (1, 2), (3, 2)][..], "router 2 works for {1, 3}"),
            (&[(1, 2), (2, 3), (3, 1)], "router 1 works in a circle"),
            (&[(0, 1), (1, 0)], "the coordinator works for its own session"),
            (&[(0, 1), (1, 2), (2, 3), (3, 4)], "router 4 works 4 hops away, its limit is 3"),
        ] {
            assert_eq!(street(3, pairs).check(), Err(what.into()));
        }
    }

    #[test]
    fn what_one_side_has_ended_is_over() {
        let mut street = street(3, &[(0, 1), (2, 1)]);
        street.connections[1].ends.0 = End::Over;
        assert_eq!(street.check(), Ok(()));
    }
}
