//! The scheduling rules of DESIGN section 5 that a model can switch off one by one, to see what each is worth. `hostsim model
//! --rules` prints that for the scenario that each rule names (hostsim/rules-table.txt). On a router all are on, which
//! the compiler knows: this costs nothing there. Not responsible for any of the rules.

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Rule 1: a lane is asked again before it has brought what it owes. Off: one request at a time. Scenario `rtt-40`.
    AskAhead,
    /// Rule 1: a young connection is asked for no more than TCP's slow start brings. Off: for what its line brings. Scenario
    /// `mixed`.
    StartSlowly,
    /// Rule 2: chunks take the same time on every lane. Off: as long as they may be. Scenario `rtt-40`.
    ChunkByTime,
    /// Rule 3: lanes are asked for what lies beyond the window, as far as peers hold it. Off: only within it. Scenario
    /// `narrow`.
    HoldAhead,
    /// Rule 4: lost slots go to the lane that would have them first. Off: to the first that is idle. Scenario `slow`.
    EarliestCompletion,
    /// Rule 5: the head is asked of another lane when the client stands still. Off: it waits. Scenario `slow`.
    Rescue,
    /// Rule 5: on a connection of its own, if need be. Off: only where nothing lies before it. Scenario `silent`.
    Spare,
    /// Rule 6: a lane that failed is tried again. Off: it is out. Scenario `back`.
    ComeBack,
    /// Rule 7: near the end lanes are asked for what lets all finish together. Off: for whole chunks. Scenario `short`.
    FinishTogether,
    /// Rule 7: an idle lane repeats what is expected last. Off: it is done. Scenario `short`.
    RepeatLast,
    /// Rule 7: what a lane owes that slowed down is open to others. Off: only what the client waits for. Scenario
    /// `slow-rtt-100`.
    OfferSlowed,
    /// Rule 8: a lane so slow that it holds up the others is let go. Off: it gets its share. Scenario `one-crawls`.
    LetGo,
}

impl Rule {
    /// All of them, in the order of the design.
    pub const ALL: [Rule; 12] = [
        Rule::AskAhead,
        Rule::StartSlowly,
        Rule::ChunkByTime,
        Rule::HoldAhead,
        Rule::EarliestCompletion,
        Rule::Rescue,
        Rule::Spare,
        Rule::ComeBack,
        Rule::FinishTogether,
        Rule::RepeatLast,
        Rule::OfferSlowed,
        Rule::LetGo,
    ];
}

/// Which rules a session keeps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    #[cfg(feature = "rules-off")]
    off: u16,
}

impl Rules {
    /// All but this one.
    #[cfg(feature = "rules-off")]
    pub fn without(rule: Rule) -> Rules {
        Rules { off: 1 << rule as u16 }
    }

    /// Whether a rule is kept.
    #[cfg(feature = "rules-off")]
    pub(crate) fn keep(self, rule: Rule) -> bool {
        self.off & 1 << rule as u16 == 0
    }

    /// Whether a rule is kept: it is.
    #[cfg(not(feature = "rules-off"))]
    pub(crate) fn keep(self, _: Rule) -> bool {
        true
    }
}
