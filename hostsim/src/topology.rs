//! Which routers hear each other: who is whose peer. Not responsible for what they make of it.

use std::path::Path;
use std::str::FromStr;

use crate::fault::{router_name, router_number};

/// Who hears whom; always both ways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Topology {
    /// Everybody hears everybody.
    #[default]
    Mesh,
    /// A hears everybody, the others hear only A.
    Star,
    /// A hears only B, which hears everybody.
    Chain,
    /// These pairs.
    Pairs(Vec<(usize, usize)>),
}

impl Topology {
    /// What the command line takes.
    pub const FORMS: &'static str =
        "expected mesh, star, chain, or a file with two routers on each line, e.g. A B";

    /// Of a word, or the path of a file. The error is what would be right.
    pub fn read(text: &str) -> Result<Topology, String> {
        match text {
            "mesh" => Ok(Topology::Mesh),
            "star" => Ok(Topology::Star),
            "chain" => Ok(Topology::Chain),
            path => {
                let file = std::fs::read_to_string(Path::new(path));
                file.map_err(|error| format!("{error}; {}", Topology::FORMS))?.parse()
            }
        }
    }

    /// The routers that router `number` of `routers` hears, in their order.
    pub fn heard_by(&self, number: usize, routers: usize) -> Vec<usize> {
        let hear = |other: usize| match self {
            Topology::Mesh => true,
            Topology::Star => number == 0 || other == 0,
            Topology::Chain => number == 1 || other == 1,
            Topology::Pairs(pairs) => pairs.contains(&(number, other)) || pairs.contains(&(other, number)),
        };
        (0..routers).filter(|&other| other != number && hear(other)).collect()
    }

    /// The first router that is named and not there.
    pub fn beyond(&self, routers: usize) -> Option<usize> {
        let Topology::Pairs(pairs) = self else { return None };
        pairs.iter().flat_map(|&(one, other)| [one, other]).find(|&router| router >= routers)
    }
}

impl FromStr for Topology {
    type Err = String;

    /// Two routers on each line; empty lines and what follows a `#` do not count.
    fn from_str(text: &str) -> Result<Self, String> {
        let lines =
            text.lines().enumerate().map(|(number, line)| (number + 1, line.split('#').next().unwrap_or("")));
        let mut pairs = Vec::new();
        for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            let wrong =
                || format!("line {number}, {}: expected two different routers, e.g. A B", line.trim());
            let routers: Option<Vec<usize>> = line.split_whitespace().map(router_number).collect();
            match routers.as_deref() {
                Some(&[one, other]) if one != other => pairs.push((one, other)),
                _ => return Err(wrong()),
            }
        }
        Ok(Topology::Pairs(pairs))
    }
}

impl std::fmt::Display for Topology {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Topology::Mesh => f.write_str("mesh"),
            Topology::Star => f.write_str("star"),
            Topology::Chain => f.write_str("chain"),
            Topology::Pairs(pairs) => {
                let pair =
                    |&(one, other): &(usize, usize)| format!("{}-{}", router_name(one), router_name(other));
                f.write_str(&pairs.iter().map(pair).collect::<Vec<_>>().join(" "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_hears_whom_the_topology_says() {
        assert_eq!(Topology::Mesh.heard_by(2, 4), [0, 1, 3]);
        assert_eq!((Topology::Star.heard_by(0, 3), Topology::Star.heard_by(2, 3)), (vec![1, 2], vec![0]));
        let chain = |number| Topology::Chain.heard_by(number, 4);
        assert_eq!((chain(0), chain(1), chain(2), chain(3)), (vec![1], vec![0, 2, 3], vec![1], vec![1]));
        let pairs: Topology = "A B # the street\n\nB 2\n".parse().unwrap();
        assert_eq!(pairs, Topology::Pairs(vec![(0, 1), (1, 2)]));
        assert_eq!((pairs.heard_by(1, 4), pairs.heard_by(3, 4)), (vec![0, 2], vec![]));
        assert_eq!((pairs.beyond(3), pairs.beyond(2)), (None, Some(2)));
        assert_eq!(pairs.to_string(), "A-B B-C");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, line) in
            [("A B\nA A", "line 2, A A"), ("A", "line 1, A"), ("A B C", "line 1, A B C"), ("A ?", "line 1")]
        {
            let error = text.parse::<Topology>().unwrap_err();
            assert!(error.starts_with(line) && error.contains("expected two different routers"), "{error}");
        }
        assert!(Topology::read("/nowhere/at/all").unwrap_err().contains("mesh, star, chain"));
    }
}
