//! What is known of a mesh.

use std::{cmp::Reverse, collections::BTreeMap};

use modelring_proto::v1;
use serde::Serialize;

/// A mesh as an observer sees it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Mesh {
    /// Whether control answers now.
    pub(crate) control_connected: bool,
    /// Version of the table, `epoch.n`; none before the first.
    pub(crate) table: Option<String>,
    /// Connected proxies.
    pub(crate) proxies: u32,
    /// By the id of its process start: n of the newest table that a proxy has in force, 0 = none.
    pub(crate) proxy_tables: BTreeMap<String, u64>,
    /// Use by model id, of what was used in the last hour.
    #[serde(skip)]
    pub(crate) heat: BTreeMap<String, Heat>,
    /// n of the table.
    #[serde(skip)]
    pub(crate) n: u64,
    /// Why control is away.
    #[serde(skip)]
    pub(crate) trouble: Option<String>,
    /// By name, the stable names that clients call.
    pub(crate) models: BTreeMap<String, Model>,
    /// By id.
    pub(crate) instances: BTreeMap<String, Instance>,
    /// What is wrong in the manifests.
    pub(crate) notices: Vec<Notice>,
    /// Classes that no runtime takes.
    #[serde(skip)]
    pub(crate) classes: BTreeMap<String, Vec<String>>,
    /// By id: class and wanted copies.
    #[serde(skip)]
    pub(crate) refs: BTreeMap<String, (String, u32)>,
}

/// A stable name and what serves it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Model {
    /// Id of the model that answers.
    pub(crate) active: String,
    /// Id of the model that shall answer, while a change is on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) target: String,
}

/// How much a model is used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heat {
    pub(crate) age_seconds: u64,
    /// Over about the last ten seconds.
    pub(crate) calls_per_second: f64,
    pub(crate) in_flight: u32,
}

/// A runtime pod.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Instance {
    /// Where its agent is.
    pub(crate) address: String,
    /// Its runtime.
    pub(crate) runtime: String,
    /// Whether its agent answers now.
    pub(crate) connected: bool,
    /// It is going away.
    pub(crate) leaving: bool,
    /// It gets new copies.
    pub(crate) accepts_new: bool,
    /// Its memory.
    pub(crate) ledger: Ledger,
    /// Its copies by model id.
    pub(crate) copies: BTreeMap<String, Copy>,
    /// Whether it was heard, or could not be reached once.
    #[serde(skip)]
    pub(crate) looked_at: bool,
}

/// Memory of an instance, bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Ledger {
    pub(crate) capacity: u64,
    pub(crate) loaded: u64,
    pub(crate) reserved: u64,
    pub(crate) unloading: u64,
    pub(crate) overrun: u64,
    pub(crate) queue: u32,
    pub(crate) hung: u32,
    /// How long the copy that would go next has been unused; none where nothing may go.
    pub(crate) next_victim_age_millis: Option<u64>,
}

/// One copy.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Copy {
    pub(crate) state: &'static str,
    pub(crate) bytes: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) error: String,
}

/// Something wrong in the manifests.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) subject: String,
    pub(crate) text: String,
}

/// State of a stable name, in the words of an InferenceService's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum State {
    Loaded,
    Loading,
    Standby,
    FailedToLoad,
    NoRuntime,
}

// === impl Mesh ===

impl Mesh {
    /// Whether the table and every instance's snapshot are known.
    pub(crate) fn is_complete(&self) -> bool {
        self.table.is_some() && self.instances.values().all(|instance| instance.looked_at)
    }

    /// Whether what follows the snapshots is known too.
    pub(crate) fn is_settled(&self) -> bool {
        let told = |instance: &Instance| !instance.connected || instance.ledger.capacity > 0;
        self.proxy_tables.len() >= self.proxies as usize && self.instances.values().all(told)
    }

    /// Copies of a model id, with the ids of their instances.
    pub(crate) fn copies<'a>(&'a self, model: &'a str) -> impl Iterator<Item = (&'a str, &'a Copy)> {
        self.instances.iter().filter_map(move |(id, instance)| Some((id.as_str(), instance.copies.get(model)?)))
    }

    /// State of a model id.
    pub(crate) fn state(&self, model: &str) -> State {
        let any = |state| self.copies(model).any(|(_, copy)| copy.state == state);
        let class = self.refs.get(model).map(|(class, _)| class.as_str()).unwrap_or_default();
        if any("READY") {
            State::Loaded
        } else if any("LOADING") || any("QUEUED") {
            State::Loading
        } else if self.classes.get(class).is_some_and(Vec::is_empty) {
            State::NoRuntime
        } else if any("FAILED") {
            State::FailedToLoad
        } else {
            State::Standby
        }
    }

    /// Text of a failure of the name's models, newest model first.
    pub(crate) fn error(&self, model: &Model) -> Option<String> {
        let failed =
            |id: &str| self.copies(id).find(|(_, copy)| copy.state == "FAILED").map(|(_, copy)| copy.error.clone());
        failed(&model.target).or_else(|| failed(&model.active)).or_else(|| {
            (self.state(&model.active) == State::NoRuntime)
                .then(|| "No ServingRuntime supports specified model type and/or protocol".to_owned())
        })
    }

    /// Applies a change of the table.
    pub(crate) fn apply(&mut self, change: v1::TableChange) {
        for class in change.classes {
            self.classes.insert(class.id, class.runtimes);
        }
        for model in change.models {
            if let Some(reference) = model.r#ref {
                self.refs.entry(reference.id).or_default().0 = model.class;
            }
        }
        for wanted in change.wanted {
            self.refs.entry(wanted.model).or_default().1 = wanted.copies;
        }
        for vmodel in change.vmodels {
            self.models.insert(vmodel.name, Model { active: vmodel.active, target: vmodel.target });
        }
        for instance in change.instances {
            let known = self.instances.entry(instance.id).or_default();
            (known.address, known.runtime) = (instance.address, instance.runtime);
            (known.leaving, known.accepts_new) = (instance.leaving, instance.accepts_new);
        }
        for id in &change.removed_classes {
            self.classes.remove(id);
        }
        for id in &change.removed_models {
            self.refs.remove(id);
        }
        for name in &change.removed_vmodels {
            self.models.remove(name);
        }
        for id in &change.removed_instances {
            self.instances.remove(id);
        }
        if let Some(proxies) = change.proxies {
            self.proxies = proxies;
        }
        if let Some(notices) = change.notices {
            self.notices = notices.notices.into_iter().map(|n| Notice { subject: n.subject, text: n.text }).collect();
        }
    }

    /// Takes in how it stands beside the table.
    pub(crate) fn observe(&mut self, observed: v1::Observed) {
        self.proxy_tables = observed.proxies.into_iter().map(|proxy| (proxy.id, proxy.acknowledged)).collect();
        let heat = observed.models.into_iter().map(|heat| {
            let v1::ModelHeat { model, age_millis, calls_per_second, in_flight } = heat;
            (model, Heat { age_seconds: age_millis / 1000, calls_per_second, in_flight })
        });
        self.heat = heat.collect();
    }

    /// Names that hold `filter`, the most used first, then by name.
    pub(crate) fn by_heat(&self, filter: &str) -> Vec<(&str, &Model)> {
        let mut models: Vec<_> = self.models.iter().filter(|(name, _)| name.contains(filter)).collect();
        let order = |model: &Model| match self.heat.get(&model.active) {
            // To a tenth, so that rows do not dance.
            Some(heat) => (Reverse((heat.calls_per_second * 10.0).round() as u64), heat.age_seconds / 10),
            None => (Reverse(0), u64::MAX),
        };
        models.sort_by_key(|(_, model)| order(model));
        models.into_iter().map(|(name, model)| (name.as_str(), model)).collect()
    }

    /// Proxies that have not the newest table in force.
    pub(crate) fn proxies_behind(&self) -> impl Iterator<Item = (&str, u64)> {
        let behind = self.proxy_tables.iter().filter(|(_, n)| **n < self.n);
        behind.map(|(id, n)| (id.as_str(), *n))
    }

    /// What is wrong: subject and text, control's own notices last.
    pub(crate) fn wrongs(&self) -> Vec<(String, String)> {
        let mut wrongs = Vec::new();
        if !self.control_connected {
            wrongs.push(("control".to_owned(), "it does not answer now; what is shown of the table is old".to_owned()));
        }
        for (id, instance) in &self.instances {
            let subject = format!("instance {id}");
            if !instance.connected {
                let text = format!("its agent at {} does not answer", instance.address);
                wrongs.push((subject, text));
                continue;
            }
            if !instance.accepts_new && !instance.leaving {
                wrongs.push((subject.clone(), "it gets no new copies for now".to_owned()));
            }
            if instance.ledger.overrun > 0 {
                let text = "models need more memory than was reserved for them; others are being evicted".to_owned();
                wrongs.push((subject, text));
            }
        }
        for (class, runtimes) in self.classes.iter().filter(|(_, runtimes)| !runtimes.is_empty()) {
            if !self.instances.values().any(|instance| runtimes.contains(&instance.runtime)) {
                let text = format!("no instance runs {}: its models cannot be loaded", runtimes.join(" or "));
                wrongs.push((format!("class {class}"), text));
            }
        }
        for (id, n) in self.proxies_behind() {
            let has = if n == 0 { "no table of this control".to_owned() } else { format!("table number {n}") };
            wrongs.push((format!("proxy {id}"), format!("it has {has} in force, the newest is {}", self.n)));
        }
        for (name, model) in &self.models {
            let subject = format!("InferenceService/{name}");
            if !self.notices.iter().any(|notice| notice.subject == subject)
                && let Some(error) = self.error(model)
            {
                wrongs.push((subject, error));
            }
        }
        wrongs.extend(self.notices.iter().map(|notice| (notice.subject.clone(), notice.text.clone())));
        wrongs
    }

    /// Forgets the table, before a snapshot.
    pub(crate) fn clear_table(&mut self) {
        self.classes.clear();
        self.refs.clear();
        self.models.clear();
    }
}

// === impl Instance ===

impl Instance {
    /// Applies an event of its agent.
    pub(crate) fn apply(&mut self, event: v1::agent_event::Event) {
        use v1::agent_event::Event;
        match event {
            Event::Hello(hello) => {
                self.copies.clear();
                self.runtime = hello.runtime;
            }
            Event::Copy(copy) => {
                let state = state_name(copy.state());
                if state == "GONE" {
                    self.copies.remove(&copy.model);
                } else {
                    self.copies.insert(copy.model, Copy { state, bytes: copy.bytes, error: copy.text });
                }
            }
            Event::Ledger(ledger) => {
                self.ledger = Ledger {
                    capacity: ledger.capacity,
                    loaded: ledger.loaded,
                    reserved: ledger.reserved,
                    unloading: ledger.unloading,
                    overrun: ledger.overrun,
                    queue: ledger.queue,
                    hung: ledger.hung,
                    next_victim_age_millis: ledger.next_victim_age_millis,
                };
            }
            Event::SnapshotEnd(_) => (self.looked_at, self.connected) = (true, true),
            Event::Pong(_) => {}
            Event::Leaving(_) => self.leaving = true,
        }
    }
}

fn state_name(state: v1::copy_state::State) -> &'static str {
    use v1::copy_state::State;
    match state {
        State::Queued => "QUEUED",
        State::Loading => "LOADING",
        State::Ready => "READY",
        State::Draining => "DRAINING",
        State::Failed => "FAILED",
        State::Gone | State::Unspecified => "GONE",
    }
}
