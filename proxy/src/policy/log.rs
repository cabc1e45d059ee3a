//! The access log: one line per call that is worth one.

use rand::Rng;

use crate::{config::AccessLog, engine::policy::Record};

/// Of so many calls that ended well, one is logged when sampled.
const ONE_IN: u32 = 100;

/// Logs a call, if it is to be logged.
pub(super) fn call(which: AccessLog, record: &Record) {
    let well = record.code == 0;
    let logged = match which {
        AccessLog::Off => false,
        AccessLog::Errors => !well,
        AccessLog::Sampled => !well || rand::rng().random_ratio(1, ONE_IN),
        AccessLog::All => true,
    };
    if logged {
        tracing::info!(
            target: "access",
            path = %record.path,
            code = record.code,
            reason = record.reason.map(|reason| reason.as_str()),
            tries = record.tries,
            took_micros = u64::try_from(record.took.as_micros()).unwrap_or(u64::MAX),
            held_micros = u64::try_from(record.held.as_micros()).unwrap_or(u64::MAX),
            "call"
        );
    }
}
