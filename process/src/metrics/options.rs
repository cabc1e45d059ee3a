//! ModelMesh's environment variables for metrics: `MM_METRICS` and `MM_INFO_METRICS`.
//!
//! What only made sense for a JVM or StatsD is accepted and does nothing.

use super::{Kind, Metric, Page};

/// Labels of an info metric, most.
const MOST_LABELS: usize = 4;

/// How metrics are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The label `method` is the full name of the method, `pkg.Service/Method`.
    pub fq_names: bool,
    /// Request metrics carry `modelId` and `vModelId`.
    pub per_model: bool,
    /// Metrics are not served.
    pub disabled: bool,
    /// A constant gauge 1.
    info: Option<&'static Metric>,
    /// Values of its labels.
    info_values: Vec<String>,
}

/// Why options cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// `MM_METRICS` has another form.
    #[error("`MM_METRICS={text}`: {why}; it is `disabled` or `prometheus:key=value;...`")]
    Metrics {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// `MM_INFO_METRICS` has another form.
    #[error("`MM_INFO_METRICS={text}`: {why}; it is `metric_name;label=ENV_VARIABLE,...` with at most 4 labels")]
    Info {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
}

// === impl Options ===

impl Options {
    /// Reads the variables of this process.
    ///
    /// # Errors
    ///
    /// A variable has a form that ModelMesh refuses too.
    pub fn from_env() -> Result<Self, OptionsError> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Reads the variables by `variable`.
    ///
    /// # Errors
    ///
    /// As [`Options::from_env`].
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, OptionsError> {
        let mut options = Self::default();
        if let Some(text) = variable("MM_METRICS").filter(|text| !text.is_empty()) {
            options.read_metrics(&text).map_err(|why| OptionsError::Metrics { text, why })?;
        }
        if let Some(text) = variable("MM_INFO_METRICS").filter(|text| !text.is_empty()) {
            options.read_info(&text, variable).map_err(|why| OptionsError::Info { text, why })?;
        }
        Ok(options)
    }

    /// Shown by model, or not.
    #[must_use]
    pub fn with_per_model(self, per_model: bool) -> Self {
        Self { per_model, ..self }
    }

    fn read_metrics(&mut self, text: &str) -> Result<(), String> {
        let (sink, parameters) = text.split_once(':').unwrap_or((text, ""));
        match sink {
            "disabled" => self.disabled = true,
            "prometheus" => {}
            "statsd" => return Err("there is no StatsD output".to_owned()),
            other => return Err(format!("`{other}` is no output")),
        }
        for parameter in parameters.split(';').filter(|parameter| !parameter.is_empty()) {
            let (key, value) = parameter.split_once('=').ok_or_else(|| format!("`{parameter}` has no value"))?;
            let on = || match value {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(format!("`{key}` is true or false, not `{value}`")),
            };
            match key {
                "fq_names" => self.fq_names = on()?,
                "per_model_metrics" => self.per_model = on()?,
                // Where it listens is said by `--metrics`; the rest was about the JVM.
                "port" | "scheme" | "mem_detail" => {}
                _ => return Err(format!("`{key}` is not known")),
            }
        }
        Ok(())
    }

    fn read_info(&mut self, text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<(), String> {
        let (name, labels) = text.split_once(';').ok_or("it names no labels")?;
        check_name(name, ':')?;
        let mut names: Vec<&'static str> = Vec::new();
        for label in labels.split(',') {
            let (label, source) = label.split_once('=').ok_or_else(|| format!("label `{label}` has no variable"))?;
            check_name(label, '_')?;
            let value = variable(source).ok_or_else(|| format!("variable `{source}` is not set"))?;
            if names.contains(&label) {
                return Err(format!("label `{label}` is given twice"));
            }
            names.push(leak(label));
            self.info_values.push(value);
        }
        if names.len() > MOST_LABELS {
            return Err(format!("{} labels are too many", names.len()));
        }
        let help = "Always 1; the labels say what the environment says.";
        let labels: &'static [&'static str] = Box::leak(names.into_boxed_slice());
        // Once a process: it lives as long as that.
        self.info = Some(Box::leak(Box::new(Metric { name: leak(name), kind: Kind::Gauge, labels, help })));
        Ok(())
    }

    pub(super) fn show_info(&self, page: &mut Page) {
        if let Some(metric) = self.info {
            let values: Vec<&str> = self.info_values.iter().map(String::as_str).collect();
            page.series(metric).value(&values, 1_u64);
        }
    }
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

/// A name of a metric (with `also` = `:`) or a label.
fn check_name(name: &str, also: char) -> Result<(), String> {
    let fits = |sign: char| sign.is_ascii_alphanumeric() || sign == '_' || sign == also;
    let first = name.chars().next().is_some_and(|sign| !sign.is_ascii_digit());
    if first && name.chars().all(fits) { Ok(()) } else { Err(format!("`{name}` is no name")) }
}

impl PartialEq for Metric {
    fn eq(&self, other: &Self) -> bool {
        (self.name, self.kind, self.labels) == (other.name, other.kind, other.labels)
    }
}

impl Eq for Metric {}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(metrics: &str, info: &str) -> Result<Options, OptionsError> {
        Options::read(|name| match name {
            "MM_METRICS" => Some(metrics.to_owned()),
            "MM_INFO_METRICS" => Some(info.to_owned()),
            "REGION" => Some("eu \"1\"".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn the_parameters_of_modelmesh_are_read() {
        let options = read("prometheus:port=2112;scheme=http;fq_names=true;per_model_metrics=true;mem_detail=gc", "");
        assert_eq!(options, Ok(Options { fq_names: true, per_model: true, ..Options::default() }));
        assert_eq!(read("disabled", ""), Ok(Options { disabled: true, ..Options::default() }));
        assert_eq!(read("", ""), Ok(Options::default()));
    }

    #[test]
    fn what_modelmesh_refuses_is_refused_with_a_remedy() {
        for wrong in ["prometheus:fq_names=yes", "prometheus:what=1", "prometheus:port", "carbon", "statsd:port=1"] {
            let error = read(wrong, "").expect_err(wrong).to_string();
            assert!(error.contains(wrong) && error.contains("it is `disabled` or"), "{error}");
        }
        for wrong in ["info", "info;a", "info;a=MISSING", "1nfo;a=REGION", "info;a=REGION,a=REGION"] {
            assert!(read("", wrong).expect_err(wrong).to_string().contains("MM_INFO_METRICS"));
        }
        let five = "info;a=REGION,b=REGION,c=REGION,d=REGION,e=REGION";
        assert!(read("", five).expect_err(five).to_string().contains("too many"));
    }

    #[test]
    fn an_info_metric_has_its_labels_from_the_environment() {
        let mut page = Page::default();
        read("", "mesh_info;region=REGION,zone=REGION").expect("it is well-formed").show_info(&mut page);
        let text = page.into_text();
        assert!(text.ends_with("\nmesh_info{region=\"eu \\\"1\\\"\",zone=\"eu \\\"1\\\"\"} 1\n"), "{text}");
    }
}
