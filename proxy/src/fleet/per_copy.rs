//! How many calls may be on a copy, or wait for it, where its server limits how many run at once.

/// The limit of the calls on a copy, those that wait for their turn included. Shared by the proxies, as the concurrency is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PerCopy {
    /// Eight times as many as run at once, and at least 16.
    #[default]
    ByConcurrency,
    /// So many.
    AtMost(u32),
    /// Any number: only the budget for held bytes bounds them.
    Unlimited,
}

/// Calls that may be on a copy or wait for it, at least.
const AT_LEAST: u32 = 16;
/// The same per call that may run at once.
const PER_CALL: u32 = 8;

// === impl PerCopy ===

impl PerCopy {
    /// Of the `share` of the concurrency that is this proxy's, one of `proxies`: how many run at once, and how many may wait.
    pub(super) fn of(self, share: u32, proxies: u32) -> (u32, u32) {
        let most = match self {
            Self::ByConcurrency => AT_LEAST.max(share.saturating_mul(PER_CALL)),
            Self::AtMost(most) => (most / proxies.max(1)).max(1),
            Self::Unlimited => u32::MAX,
        };
        (share.min(most), most.saturating_sub(share))
    }
}

impl From<i32> for PerCopy {
    /// As ModelMesh's variable `MM_MAX_INFLIGHT_PER_MODEL_COPY` says it: 0 = by concurrency, negative = no limit.
    fn from(number: i32) -> Self {
        match u32::try_from(number) {
            Ok(0) => Self::ByConcurrency,
            Ok(most) => Self::AtMost(most),
            Err(_) => Self::Unlimited,
        }
    }
}
