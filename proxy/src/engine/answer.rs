//! Answers that the proxy makes itself, and their reasons.

use std::{fmt, time::Duration};

/// Why the proxy itself answered: two letters in header `modelring-reason`, the access log and the label of
/// `modelring_proxy_answers_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No such model or vmodel.
    NM,
    /// No runtime takes this type.
    NR,
    /// No running instance of the class within the place budget.
    NI,
    /// No place within the place budget.
    NP,
    /// The load failed.
    LF,
    /// The load did not finish within its budget.
    LT,
    /// The deadline is shorter than the learned load time; the load goes on.
    DH,
    /// The caller's deadline passed.
    DE,
    /// The caller went away.
    CC,
    /// No connection to any copy.
    UC,
    /// The connection was lost when the call may have run.
    UR,
    /// Retries or the retry budget spent.
    RB,
    /// A queue or stream limit is full.
    OQ,
    /// The budget for held bytes is spent.
    OM,
    /// Message or headers too large.
    TL,
    /// Malformed request.
    BR,
    /// The method is not offered to callers, or not by this runtime.
    MN,
    /// No table yet.
    TB,
    /// Shutting down.
    SD,
    /// A defect of ours.
    IN,
}

/// An answer made here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// gRPC code.
    pub code: u32,
    /// HTTP status for REST.
    pub http: u16,
    /// Why, where it is the proxy's own; a status of the model server passed on has none.
    pub reason: Option<Reason>,
    /// For people.
    pub text: String,
    /// When it is worth trying again.
    pub retry_after: Option<Duration>,
}

// === impl Reason ===

impl Reason {
    /// gRPC code and HTTP status of an answer with this reason.
    #[must_use]
    pub fn codes(self) -> (u32, u16) {
        match self {
            Self::NM => (5, 404),
            Self::NR => (9, 400),
            Self::NI | Self::NP | Self::DH | Self::UC | Self::UR | Self::RB | Self::TB | Self::SD => (14, 503),
            Self::LF | Self::IN => (13, 500),
            Self::LT | Self::DE => (4, 504),
            Self::CC => (1, 499),
            Self::OQ | Self::OM => (8, 429),
            Self::TL => (8, 413),
            Self::BR => (3, 400),
            Self::MN => (12, 501),
        }
    }

    /// All reasons, in their order.
    pub const ALL: [Self; 20] = [
        Self::NM,
        Self::NR,
        Self::NI,
        Self::NP,
        Self::LF,
        Self::LT,
        Self::DH,
        Self::DE,
        Self::CC,
        Self::UC,
        Self::UR,
        Self::RB,
        Self::OQ,
        Self::OM,
        Self::TL,
        Self::BR,
        Self::MN,
        Self::TB,
        Self::SD,
        Self::IN,
    ];

    /// The reason with these two letters.
    #[must_use]
    pub fn parse(letters: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == letters)
    }

    /// The two letters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NM => "NM",
            Self::NR => "NR",
            Self::NI => "NI",
            Self::NP => "NP",
            Self::LF => "LF",
            Self::LT => "LT",
            Self::DH => "DH",
            Self::DE => "DE",
            Self::CC => "CC",
            Self::UC => "UC",
            Self::UR => "UR",
            Self::RB => "RB",
            Self::OQ => "OQ",
            Self::OM => "OM",
            Self::TL => "TL",
            Self::BR => "BR",
            Self::MN => "MN",
            Self::TB => "TB",
            Self::SD => "SD",
            Self::IN => "IN",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Answer ===

impl Answer {
    /// An answer with the codes of its reason; UNAVAILABLE and 429 get a hint to try again after a second.
    #[must_use]
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        let (code, http) = reason.codes();
        let retry_after = (code == 14 || http == 429).then_some(Duration::from_secs(1));
        Self { code, http, reason: Some(reason), text: text.into(), retry_after }
    }

    /// The status of a model server, passed on: it has no reason of ours.
    #[must_use]
    pub fn status(code: u32, text: impl Into<String>) -> Self {
        Self { code, http: http_of(code), reason: None, text: text.into(), retry_after: None }
    }
}

/// The HTTP status for a gRPC code.
fn http_of(code: u32) -> u16 {
    match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}
