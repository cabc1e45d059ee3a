//! The dataplane configuration on the command line, by ModelMesh's own environment variables too.

use std::path::PathBuf;

use anyhow::{Result, bail};
use modelring_control::dataplane::Source;

/// Which RPCs callers may use, and where their messages carry the model's id.
#[derive(Debug, clap::Args)]
pub(crate) struct Dataplane {
    /// Which RPCs callers may use and where their messages carry the id, as JSON; MM_DATAPLANE_CONFIG is read too
    /// [default: KServe v2, TensorFlow Serving's Predict, TorchServe's Predictions; others by header]
    #[arg(long, env = "MODELRING_DATAPLANE_CONFIG", value_name = "JSON")]
    dataplane_config: Option<String>,

    /// The same in a file, which is followed as it changes; MM_DATAPLANE_CONFIG_PATH is read too
    #[arg(long, env = "MODELRING_DATAPLANE_CONFIG_PATH", value_name = "FILE")]
    dataplane_config_path: Option<PathBuf>,
}

// === impl Dataplane ===

impl Dataplane {
    /// Where the configuration comes from.
    pub(crate) fn source(&self) -> Result<Source> {
        self.source_with(|name| std::env::var(name).ok())
    }

    fn source_with(&self, env: impl Fn(&str) -> Option<String>) -> Result<Source> {
        let env = |name| env(name).filter(|value| !value.is_empty());
        let literal = self.dataplane_config.clone().filter(|json| !json.is_empty());
        let literal = literal.or_else(|| env("MM_DATAPLANE_CONFIG"));
        let path = self.dataplane_config_path.clone().filter(|path| !path.as_os_str().is_empty());
        match (literal, path.or_else(|| env("MM_DATAPLANE_CONFIG_PATH").map(PathBuf::from))) {
            (Some(_), Some(path)) => bail!(
                "there are two dataplane configurations, a literal one and {}: unset one of \
                 --dataplane-config (MODELRING_DATAPLANE_CONFIG, MM_DATAPLANE_CONFIG) and \
                 --dataplane-config-path (MODELRING_DATAPLANE_CONFIG_PATH, MM_DATAPLANE_CONFIG_PATH)",
                path.display()
            ),
            (Some(json), None) => Ok(Source::Literal(json)),
            (None, Some(path)) => Ok(Source::File(path)),
            (None, None) => Ok(Source::BuiltIn),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(json: Option<&str>, path: Option<&str>) -> Dataplane {
        let (dataplane_config, dataplane_config_path) = (json.map(str::to_owned), path.map(PathBuf::from));
        Dataplane { dataplane_config, dataplane_config_path }
    }

    #[test]
    fn modelmesh_variables_count_where_no_flag_is_given() {
        let env = |name: &str| (name == "MM_DATAPLANE_CONFIG").then(|| "{}".to_owned());
        assert_eq!(given(None, None).source_with(env).expect("one"), Source::Literal("{}".to_owned()));
        let flag = given(Some("{\"allowOtherRpcs\": true}"), None).source_with(env).expect("one");
        assert_eq!(flag, Source::Literal("{\"allowOtherRpcs\": true}".to_owned()));
        let env = |name: &str| (name == "MM_DATAPLANE_CONFIG_PATH").then(|| "/c".to_owned());
        assert_eq!(given(None, None).source_with(env).expect("one"), Source::File("/c".into()));
        assert_eq!(given(Some(""), None).source_with(|_| Some(String::new())).expect("none"), Source::BuiltIn);
    }

    #[test]
    fn two_configurations_are_refused_by_the_names_of_their_settings() {
        let refused = |given: Dataplane, name: &'static str| {
            let error = given.source_with(|asked| (asked == name).then(|| "x".to_owned())).expect_err("two");
            assert!(error.to_string().contains("MM_DATAPLANE_CONFIG_PATH"), "{error}");
        };
        refused(given(Some("{}"), Some("/c")), "");
        refused(given(Some("{}"), None), "MM_DATAPLANE_CONFIG_PATH");
        refused(given(None, Some("/c")), "MM_DATAPLANE_CONFIG");
    }
}
