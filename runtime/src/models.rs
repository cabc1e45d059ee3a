//! The models that are loaded, and how they come and go.
//!
//! Loads and unloads of one id take turns. A load that has begun is finished even if its caller goes away (the agent
//! then unloads it); one that waits for its turn or for a loading slot ends with its caller. An unload answers when the
//! calls that were admitted before it are done and the memory is given back, as the agent credits the memory then.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;
use tokio::sync::{OwnedRwLockReadGuard, Semaphore};

use crate::{
    error::{Error, Result},
    pool::blocking,
    serial::Serial,
    servable::{Loader, ModelFiles, Servable},
    tensor::Signature,
};

/// All models of the server.
pub(crate) struct Models {
    loader: Arc<dyn Loader>,
    turns: Serial,
    loads: Arc<Semaphore>,
    index: RwLock<Index>,
}

#[derive(Default)]
struct Index {
    entries: HashMap<String, Entry>,
    /// Counts up with each purge, so that a load that was asked for before one does not outlive it.
    purges: u64,
}

enum Entry {
    Loading,
    Ready(Arc<Model>),
}

/// A loaded model.
pub(crate) struct Model {
    files: ModelFiles,
    /// What it takes and gives.
    pub(crate) signature: Signature,
    /// Bytes in memory.
    pub(crate) size: u64,
    /// Most calls at once, 0 = no limit.
    pub(crate) max_concurrency: u32,
    /// `None` once it is unloaded.
    servable: Arc<tokio::sync::RwLock<Option<Box<dyn Servable>>>>,
}

/// The right to call a model; it is not unloaded while one is held.
pub(crate) type Admission = OwnedRwLockReadGuard<Option<Box<dyn Servable>>, dyn Servable>;

// === impl Models ===

impl Models {
    /// None yet; at most `loading_concurrency` loads at once.
    pub(crate) fn new(loader: Arc<dyn Loader>, loading_concurrency: usize) -> Arc<Self> {
        Arc::new(Self {
            loader,
            turns: Serial::default(),
            loads: Arc::new(Semaphore::new(loading_concurrency)),
            index: RwLock::default(),
        })
    }

    /// Loads a model; one that is loaded from the same path already is answered as it is.
    pub(crate) async fn load(self: &Arc<Self>, files: ModelFiles) -> Result<Arc<Model>> {
        let purges = self.index.read().purges;
        let turn = self.turns.turn(&files.id).await;
        if let Ok(model) = self.get(&files.id) {
            return model.same_as(&files);
        }
        let slot = Arc::clone(&self.loads).acquire_owned().await.expect("the semaphore is never closed");
        {
            let mut index = self.index.write();
            if index.purges != purges {
                return Err(Error::Purged(files.id));
            }
            index.entries.insert(files.id.clone(), Entry::Loading);
        }
        let models = Arc::clone(self);
        tokio::spawn(async move {
            let (_turn, _slot) = (turn, slot);
            let id = files.id.clone();
            let loader = Arc::clone(&models.loader);
            let outcome = blocking(move || Model::load(loader.as_ref(), files)).await;
            let mut index = models.index.write();
            match &outcome {
                Ok(model) => index.entries.insert(id, Entry::Ready(Arc::clone(model))),
                Err(_) => index.entries.remove(&id),
            };
            outcome
        })
        .await
        .unwrap_or_else(|_| Err(Error::Internal("the server is stopping".to_owned())))
    }

    /// Unloads a model; one that is not there is unloaded. Waits for a load of it that is on its way.
    pub(crate) async fn unload(&self, id: &str) -> Result<()> {
        self.loader.unloading(id);
        let _turn = self.turns.turn(id).await;
        let Some(Entry::Ready(model)) = self.index.write().entries.remove(id) else { return Ok(()) };
        let servable = model.servable.write().await.take();
        blocking(move || {
            drop(servable);
            Ok(())
        })
        .await
    }

    /// Unloads everything, what is being loaded too, and refuses what waits to be loaded.
    pub(crate) async fn purge(&self) -> Result<()> {
        let ids: Vec<String> = {
            let mut index = self.index.write();
            index.purges += 1;
            index.entries.keys().cloned().collect()
        };
        for id in ids {
            self.unload(&id).await?;
        }
        Ok(())
    }

    /// Predicts the bytes of a model.
    pub(crate) async fn predict(&self, files: ModelFiles) -> Result<u64> {
        let loader = Arc::clone(&self.loader);
        blocking(move || loader.predict(&files)).await
    }

    /// A loaded model.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<Model>> {
        match self.index.read().entries.get(id) {
            Some(Entry::Ready(model)) => Ok(Arc::clone(model)),
            Some(Entry::Loading) | None => Err(Error::UnknownModel(id.to_owned())),
        }
    }

    /// All ids, sorted, and whether each can be called.
    pub(crate) fn list(&self) -> Vec<(String, bool)> {
        let ready = |entry: &Entry| matches!(entry, Entry::Ready(_));
        let mut list: Vec<_> = self.index.read().entries.iter().map(|(id, entry)| (id.clone(), ready(entry))).collect();
        list.sort();
        list
    }
}

// === impl Model ===

impl Model {
    fn load(loader: &dyn Loader, files: ModelFiles) -> Result<Arc<Self>> {
        let servable = loader.load(&files)?;
        Ok(Arc::new(Self {
            signature: servable.signature().clone(),
            size: servable.size(),
            max_concurrency: servable.max_concurrency(),
            servable: Arc::new(tokio::sync::RwLock::new(Some(servable))),
            files,
        }))
    }

    fn same_as(self: Arc<Self>, files: &ModelFiles) -> Result<Arc<Self>> {
        if self.files.path == files.path {
            return Ok(self);
        }
        Err(Error::OtherPath { model: files.id.clone(), path: self.files.path.display().to_string() })
    }

    /// Admits a call. Calls that come after an unload has begun are not admitted.
    pub(crate) async fn admit(&self) -> Result<Admission> {
        let held = Arc::clone(&self.servable).read_owned().await;
        OwnedRwLockReadGuard::try_map(held, |held| held.as_deref())
            .map_err(|_| Error::UnknownModel(self.files.id.clone()))
    }
}
