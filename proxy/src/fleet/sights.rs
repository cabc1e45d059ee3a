//! The instances as the view shows them to a search.

use std::time::Duration;

use modelring_placement::{
    id::{InstanceId, ModelRef},
    seek::{MAX_PLACES, Sight},
    time::Time,
    view::Status,
};

use super::{Fleet, LOAD_TIMEOUT};
use crate::table::{Model, Table};

/// The instances as the view shows them now.
#[derive(Clone, Debug)]
pub struct Sights {
    /// Those that may hold the model, best first.
    pub candidates: Vec<Sight>,
    /// Others that show a copy, or may when their snapshot comes.
    pub elsewhere: Vec<Sight>,
}

// === impl Fleet ===

impl Fleet {
    /// Looks at all instances for a model of this table.
    #[must_use]
    pub fn sights(&self, now: Time, model: &Model, table: &Table) -> Sights {
        let peers = self.peers();
        let sight = |instance: &InstanceId| Sight {
            instance: instance.clone(),
            status: peers.get(instance).map_or(Status::NoLease, |peer| peer.status(now, model.id())),
        };
        let is_live = |sight: &&Sight| !matches!(sight.status, Status::NoLease | Status::Unknown { .. });
        let mut candidates = Vec::new();
        if let Some(class) = table.class(&model.class) {
            candidates.extend(model.candidates(class).iter().map(sight));
            if candidates.len() < class.members().len() && candidates.iter().filter(is_live).count() < MAX_PLACES {
                candidates = model.all_candidates(class).iter().map(sight).collect();
            }
        }
        let others = peers.keys().filter(|id| !candidates.iter().any(|sight| sight.instance == **id)).map(sight);
        let elsewhere = others.filter(|sight| !matches!(sight.status, Status::NoLease | Status::Absent)).collect();
        Sights { candidates, elsewhere }
    }

    /// How long a load of a model may take on an instance.
    #[must_use]
    pub fn load_timeout(&self, instance: &InstanceId, model: &ModelRef) -> Duration {
        let of_runtime = || self.peer(instance.as_str()).map(|peer| peer.host.load_timeout(model));
        model.load_timeout.or_else(of_runtime).unwrap_or(LOAD_TIMEOUT)
    }
}

// === impl Sights ===

impl Sights {
    /// How long a load of this model may take, by what its first candidate says.
    #[must_use]
    pub fn load_timeout(&self, fleet: &Fleet, model: &ModelRef) -> Duration {
        let first = self.candidates.first();
        first.map_or(LOAD_TIMEOUT, |sight| fleet.load_timeout(&sight.instance, model))
    }
}
