//! Settings of an adapter: the variables of ModelMesh's adapters, with their names and defaults.

use std::time::Duration;

use modelring_placement::pod::ServerLimits;

use crate::{
    error::Error,
    handshake::{UNIT, least_capacity},
};

/// Shortest load timeout.
const SHORTEST_LOAD: Duration = Duration::from_millis(100);

/// Settings of the adapter of a built-in model server. Each field is named after the variable of ModelMesh's adapters.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `CONTAINER_MEM_REQ_BYTES`: memory that the server's container asks for, bytes. Must be set.
    pub container_mem_req_bytes: Option<i64>,
    /// `MEM_BUFFER_BYTES`: how much of that is not for models; default 256 MiB.
    pub mem_buffer_bytes: i64,
    /// `LOADING_CONCURRENCY`: loads that may run at once; default 1.
    pub loading_concurrency: u32,
    /// `LOADTIME_TIMEOUT`: how long a load may take where the model does not say; default 30 s.
    pub loadtime_timeout: Duration,
    /// `DEFAULT_MODELSIZE`: size of a model whose size on disk is not known, bytes; default 1,000,000.
    pub default_modelsize: u64,
    /// `MODELSIZE_MULTIPLIER`: bytes in memory per byte on disk; default 1.25.
    pub modelsize_multiplier: f64,
    /// `LIMIT_PER_MODEL_CONCURRENCY`: calls that one copy takes at once; default 0, no limit.
    pub limit_per_model_concurrency: u32,
    /// `RUNTIME_VERSION`: version of the server, where it does not tell it itself; default `v1`.
    pub runtime_version: String,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            container_mem_req_bytes: None,
            mem_buffer_bytes: 256 << 20,
            loading_concurrency: 1,
            loadtime_timeout: Duration::from_secs(30),
            default_modelsize: 1_000_000,
            modelsize_multiplier: 1.25,
            limit_per_model_concurrency: 0,
            runtime_version: "v1".to_owned(),
        }
    }
}

impl Settings {
    /// The limits that follow.
    ///
    /// # Errors
    ///
    /// A value that makes no sense, alone or beside the others; the text names it and what is needed.
    pub(crate) fn limits(&self) -> Result<ServerLimits, Error> {
        let wrong = |key: &'static str, text: String| Err(Error::Setting { key, text });
        let Some(memory) = self.container_mem_req_bytes.filter(|bytes| *bytes > 0) else {
            let found = self.container_mem_req_bytes.map_or_else(|| "none".to_owned(), |bytes| bytes.to_string());
            return wrong(
                "CONTAINER_MEM_REQ_BYTES",
                format!(
                    "must be set to a positive integer, found value {found}; it is the memory request of the model server's container"
                ),
            );
        };
        let buffer = self.mem_buffer_bytes;
        if buffer < 0 {
            return wrong("MEM_BUFFER_BYTES", format!("must not be negative, found value {buffer}"));
        }
        if self.loading_concurrency < 1 {
            return wrong("LOADING_CONCURRENCY", "must be at least 1, found value 0".to_owned());
        }
        if self.loadtime_timeout < SHORTEST_LOAD {
            let text = format!("must be at least 100, found value {}", self.loadtime_timeout.as_millis());
            return wrong("LOADTIME_TIMEOUT", text);
        }
        if self.default_modelsize < UNIT {
            return wrong(
                "DEFAULT_MODELSIZE",
                format!("must be at least {UNIT}, found value {}", self.default_modelsize),
            );
        }
        if !(self.modelsize_multiplier > 0.0 && self.modelsize_multiplier.is_finite()) {
            let text = format!("must be greater than 0, found value {}", self.modelsize_multiplier);
            return wrong("MODELSIZE_MULTIPLIER", text);
        }
        let least = least_capacity(self.default_modelsize);
        let capacity = u64::try_from(memory - buffer).unwrap_or(0);
        if capacity < least {
            return wrong(
                "MEM_BUFFER_BYTES",
                format!(
                    "{buffer} of the {memory} bytes of CONTAINER_MEM_REQ_BYTES leaves no room for models; at least {least} \
                     must be left for models of DEFAULT_MODELSIZE {}",
                    self.default_modelsize
                ),
            );
        }
        Ok(ServerLimits {
            capacity,
            loading_concurrency: usize::try_from(self.loading_concurrency).unwrap_or(usize::MAX),
            load_timeout: self.loadtime_timeout,
            default_size: self.default_modelsize,
        })
    }

    /// Bytes in memory of a model of so many bytes on disk.
    pub(crate) fn size(&self, on_disk: Option<u64>) -> u64 {
        match on_disk {
            // As a double, and cut off: as the adapters of ModelMesh count.
            Some(bytes) if bytes > 0 => (bytes as f64 * self.modelsize_multiplier) as u64,
            _ => self.default_modelsize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings { container_mem_req_bytes: Some(1 << 30), ..Settings::default() }
    }

    fn refused(change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = settings();
        change(&mut settings);
        settings.limits().unwrap_err().to_string()
    }

    #[test]
    fn the_capacity_is_the_memory_request_less_the_buffer() {
        let limits = settings().limits().unwrap();
        assert_eq!(limits.capacity, 768 << 20);
        assert_eq!((limits.loading_concurrency, limits.load_timeout), (1, Duration::from_secs(30)));
        assert_eq!(limits.default_size, 1_000_000);
    }

    #[test]
    fn a_buffer_above_the_memory_request_is_an_error_and_no_huge_capacity() {
        let text = refused(|settings| settings.mem_buffer_bytes = 2 << 30);
        assert!(text.starts_with("MEM_BUFFER_BYTES: 2147483648 of the 1073741824 bytes"), "{text}");
        assert!(refused(|settings| settings.mem_buffer_bytes = -1).contains("must not be negative"));
        assert!(refused(|settings| settings.mem_buffer_bytes = (1 << 30) - 9_999_999).contains("at least 10000000"));
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        let positive = "CONTAINER_MEM_REQ_BYTES: must be set to a positive integer, found value ";
        assert!(refused(|settings| settings.container_mem_req_bytes = None).starts_with(&format!("{positive}none")));
        assert!(refused(|settings| settings.container_mem_req_bytes = Some(-1)).starts_with(&format!("{positive}-1")));
        assert!(refused(|settings| settings.loading_concurrency = 0).starts_with("LOADING_CONCURRENCY"));
        assert!(refused(|settings| settings.loadtime_timeout = Duration::ZERO).starts_with("LOADTIME_TIMEOUT"));
        assert!(refused(|settings| settings.default_modelsize = 1).starts_with("DEFAULT_MODELSIZE"));
        for multiplier in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(refused(|settings| settings.modelsize_multiplier = multiplier).starts_with("MODELSIZE_MULTIPLIER"));
        }
    }

    #[test]
    fn a_size_is_the_size_on_disk_times_the_multiplier_and_the_default_where_that_is_not_known() {
        let settings = Settings { modelsize_multiplier: 1.35, ..settings() };
        assert_eq!(settings.size(Some(54321)), 73333);
        assert_eq!(settings.size(Some(0)), 1_000_000);
        assert_eq!(settings.size(None), 1_000_000);
    }
}
