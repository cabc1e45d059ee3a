//! Files that stay after an unload: taken up at the start, used again, moved away for others.

use std::{fs, io, sync::Arc};

use modelring_placement::{
    id::{ModelId, ModelRef},
    pod::LoadError,
};

use super::{
    PULL_FAILED, Store, blocking, check_id,
    disk::{bytes_on_disk, no_room, volume},
    plan::Plan,
};
use crate::{
    failure::{file, prefixed},
    storage::{
        aside::{Aside, remove},
        record::{self, Record},
    },
};

impl Store {
    /// Takes up what an earlier agent kept, as much as may stay.
    pub(super) fn take_up_kept(&self) -> io::Result<()> {
        let mut kept = self.records.read()?;
        kept.sort_by_key(|(.., used)| *used);
        let mut tier = self.tier.lock();
        for (model, record, _) in kept {
            if check_id(&model).is_ok() && self.dir(&model).is_dir() {
                tier.add(model, record);
            } else {
                self.records.remove(&model)?;
            }
        }
        for model in tier.trim() {
            self.move_away(&model)?;
        }
        tracing::info!(kept_bytes = tier.used(), limit_bytes = tier.limit(), "disk for model files");
        Ok(())
    }

    /// The files of a model that was unloaded: kept, if bringing them again would cost something.
    pub(crate) async fn let_go(self: &Arc<Self>, model: &ModelId) -> Result<(), LoadError> {
        if self.tier.lock().record(model).is_none() {
            return self.remove(model).await;
        }
        let (store, model) = (self.clone(), model.clone());
        let touched =
            move || store.records.touch(&model).map_err(|error| file("note the use of", &store.dir(&model), &error));
        blocking(touched).await
    }

    /// Removes the files of every model that is neither kept nor used.
    pub(crate) async fn sweep(self: &Arc<Self>) -> Result<(), LoadError> {
        for model in self.models().await? {
            let stays = {
                let tier = self.tier.lock();
                tier.record(&model).is_some() || tier.is_pinned(&model)
            };
            if !stays && let Err(error) = self.remove(&model).await {
                tracing::warn!(%model, error = error.text, "leftover not removed");
            }
        }
        Ok(())
    }

    /// What is known of files that are there and are of this reference.
    pub(super) fn kept(&self, model: &ModelRef, plan: &Plan) -> Option<Record> {
        let kept = self.tier.lock().record(&model.id).cloned()?;
        (kept.reference == record::reference(model, &plan.origin())).then_some(kept)
    }

    /// The bytes of a model whose files are there and have all the bytes that they should have; they were used now.
    pub(super) async fn use_again(self: &Arc<Self>, model: &ModelId, name: &str, bytes: u64) -> Option<u64> {
        let (store, model, name) = (self.clone(), model.clone(), name.to_owned());
        let looking = blocking(move || {
            let dir = store.dir(&model);
            let read = |error| file("read", &dir, &error);
            if bytes_on_disk(&dir).map_err(read)? != bytes {
                return Ok(None);
            }
            store.records.touch(&model).map_err(read)?;
            bytes_on_disk(&dir.join(name)).map(Some).map_err(read)
        });
        looking.await.ok().flatten()
    }

    /// Makes room on the disk for a pull.
    pub(super) async fn make_room(self: &Arc<Self>, model: &ModelId, bytes: u64) -> Result<(), LoadError> {
        let (store, model) = (self.clone(), model.clone());
        blocking(move || {
            let dir = &store.model_dir;
            let free =
                volume(dir).map_err(|error| prefixed(PULL_FAILED, file("look at the volume of", dir, &error)))?.free;
            // Under the lock, so that nobody finds files that are about to go.
            let mut tier = store.tier.lock();
            let victims =
                tier.reserve(&model, bytes, free).map_err(|short| prefixed(PULL_FAILED, no_room(bytes, short)))?;
            let mut going = Vec::new();
            if store.dir(&model).exists() {
                // What is there of the model itself counts no more.
                let gone = store.move_away(&model);
                going.push(gone.map_err(|error| prefixed(PULL_FAILED, file("replace", &store.dir(&model), &error)))?);
            }
            for victim in victims {
                tracing::info!(model = %victim, "files of an unloaded model go for others");
                match store.move_away(&victim) {
                    Ok(aside) => going.push(aside),
                    Err(error) => tracing::warn!(model = %victim, %error, "files of an unloaded model stay"),
                }
            }
            drop(tier);
            for aside in going {
                remove(aside.path()).map_err(|error| prefixed(PULL_FAILED, file("remove", aside.path(), &error)))?;
            }
            Ok(())
        })
        .await
    }

    /// Takes the files of a model out of its folder; they go with what is returned.
    fn move_away(&self, model: &ModelId) -> io::Result<Aside> {
        let aside = self.fresh();
        self.records.remove(model)?;
        fs::rename(self.dir(model), aside.path())?;
        Ok(aside)
    }
}
