//! What callers may not exceed, on the command line and by ModelMesh's own environment variables.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use modelring_proxy::config;

use crate::args::{Bytes, Seconds};

/// Least headers that a gRPC call needs room for, and the most that are kept in memory for one.
const HEADERS: std::ops::RangeInclusive<u64> = 1024..=1 << 20;

/// What callers may not exceed. A flag wins over the variable of ModelMesh.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Limits {
    /// Largest list of request headers; MM_SVC_GRPC_MAX_HEADERS_SIZE is read too [default: 8KiB]
    #[arg(long, env = "MODELRING_MAX_HEADERS", value_name = "BYTES")]
    max_headers: Option<Bytes>,

    /// Age at which an HTTP/2 client is asked to connect anew, give or take a tenth;
    /// MM_SVC_GRPC_MAX_CONNECTION_AGE_SECS is read too [default: 30m]
    #[arg(long, env = "MODELRING_CONNECTION_AGE", value_name = "TIME")]
    connection_age: Option<Seconds>,

    /// How long the calls of such a client may take to end before they are cut off;
    /// MM_SVC_GRPC_MAX_CONNECTION_AGE_GRACE_SECS is read too [default: as long as they need]
    #[arg(long, env = "MODELRING_CONNECTION_GRACE", value_name = "TIME")]
    connection_grace: Option<Seconds>,

    /// Calls on a copy whose server limits how many run at once, those that wait included; 0 = 8 times that limit, at
    /// least 16, negative = any number; MM_MAX_INFLIGHT_PER_MODEL_COPY is read too [default: 0]
    #[arg(long, env = "MODELRING_CALLS_PER_COPY", value_name = "N", allow_negative_numbers = true)]
    calls_per_copy: Option<i32>,
}

// === impl Limits ===

impl Limits {
    /// The limits in force.
    ///
    /// # Errors
    ///
    /// A variable of ModelMesh, or a flag, has a value that makes no sense; it is named.
    pub(crate) fn read(&self) -> Result<config::Limits> {
        self.read_with(|name| std::env::var(name).ok())
    }

    fn read_with(&self, env: impl Fn(&str) -> Option<String>) -> Result<config::Limits> {
        let number = |name: &str| -> Result<Option<i32>> {
            let Some(text) = env(name).filter(|text| !text.trim().is_empty()) else { return Ok(None) };
            let number = text.trim().parse();
            number.map(Some).with_context(|| format!("{name}={text}: it must be a whole number, or not be set"))
        };
        let positive = |name: &str| -> Result<Option<u32>> {
            let number = number(name)?.map(|number| u32::try_from(number).ok().filter(|number| *number > 0));
            ensure!(number != Some(None), "{name} must be above 0, or not be set");
            Ok(number.flatten())
        };
        let seconds = |given: Option<Seconds>, name: &str| -> Result<Option<Duration>> {
            let variable = || Ok::<_, anyhow::Error>(positive(name)?.map(u64::from).map(Duration::from_secs));
            given.map_or_else(variable, |given| Ok(Some(given.0)))
        };
        let default = config::Limits::default();
        let max_headers = match self.max_headers {
            Some(bytes) => bytes.0,
            None => positive("MM_SVC_GRPC_MAX_HEADERS_SIZE")?.unwrap_or(default.max_headers).into(),
        };
        ensure!(
            HEADERS.contains(&max_headers),
            "--max-headers (MODELRING_MAX_HEADERS, MM_SVC_GRPC_MAX_HEADERS_SIZE) is {max_headers} bytes: it must be from 1KiB to 1MiB"
        );
        let connection_age = seconds(self.connection_age, "MM_SVC_GRPC_MAX_CONNECTION_AGE_SECS")?;
        let connection_age = connection_age.unwrap_or(default.connection_age);
        ensure!(
            !connection_age.is_zero(),
            "--connection-age (MODELRING_CONNECTION_AGE) must be above 0: clients could make no call"
        );
        Ok(config::Limits {
            max_headers: u32::try_from(max_headers)?,
            connection_age,
            connection_grace: seconds(self.connection_grace, "MM_SVC_GRPC_MAX_CONNECTION_AGE_GRACE_SECS")?,
            per_copy: match self.calls_per_copy {
                Some(number) => number.into(),
                None => number("MM_MAX_INFLIGHT_PER_MODEL_COPY")?.unwrap_or_default().into(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use modelring_proxy::config::PerCopy;

    use super::*;

    fn by<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn the_variables_of_modelmesh_set_the_limits_of_callers() {
        assert_eq!(Limits::default().read_with(|_| None).expect("defaults"), config::Limits::default());
        let set = [
            ("MM_SVC_GRPC_MAX_HEADERS_SIZE", "16384"),
            ("MM_SVC_GRPC_MAX_CONNECTION_AGE_SECS", "600"),
            ("MM_SVC_GRPC_MAX_CONNECTION_AGE_GRACE_SECS", " 5 "),
            ("MM_MAX_INFLIGHT_PER_MODEL_COPY", "40"),
        ];
        let read = Limits::default().read_with(by(&set)).expect("all are good");
        let expected = config::Limits {
            max_headers: 16_384,
            connection_age: Duration::from_secs(600),
            connection_grace: Some(Duration::from_secs(5)),
            per_copy: PerCopy::AtMost(40),
        };
        assert_eq!(read, expected);
        for (text, per_copy) in
            [("0", PerCopy::ByConcurrency), ("", PerCopy::ByConcurrency), ("-1", PerCopy::Unlimited)]
        {
            let set = [("MM_MAX_INFLIGHT_PER_MODEL_COPY", text)];
            assert_eq!(Limits::default().read_with(by(&set)).expect("good").per_copy, per_copy);
        }
        let flags = Limits { max_headers: Some(Bytes(4096)), calls_per_copy: Some(7), ..Limits::default() };
        let read = flags.read_with(by(&set)).expect("flags win");
        assert_eq!((read.max_headers, read.per_copy), (4096, PerCopy::AtMost(7)));
    }

    #[test]
    fn bad_values_of_those_variables_are_refused_by_their_names() {
        for (name, values) in [
            ("MM_SVC_GRPC_MAX_HEADERS_SIZE", &["8KiB", "0", "-1", "12", "99999999"][..]),
            ("MM_SVC_GRPC_MAX_CONNECTION_AGE_SECS", &["ten", "0", "1.5"]),
            ("MM_SVC_GRPC_MAX_CONNECTION_AGE_GRACE_SECS", &["-3", "x"]),
            ("MM_MAX_INFLIGHT_PER_MODEL_COPY", &["many", "99999999999"]),
        ] {
            for value in values {
                let error = Limits::default().read_with(by(&[(name, value)])).expect_err(value);
                assert!(error.to_string().contains(name), "{error}");
            }
        }
    }
}
