//! The image store: what the rest of the server sees of this room.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::io::AsyncRead;
use tokio::runtime::Handle;

use super::config::ImageConfig;
use super::digest::Digest;
use super::error::{At as _, ImageError};
use super::export;
use super::flight::{Flights, ProgressFn};
use super::helper::Helper;
use super::import;
use super::index::{ImageEntry, Index, IndexCache};
use super::ingest::Turns;
use super::lease::{Held, ImageLease, last_used_unix_ms};
use super::mode::UnpackMode;
use super::names::{ImageName, Wanted};
use super::progress::{Progress, Sink};
use super::pull;
use super::registry::Registries;
use super::store_files::{Shelf, StoreFiles};

/// How many images are fetched or imported at once; more wait. Each has three layers on the way at once.
const IMAGES_AT_ONCE: usize = 4;

/// How a store is used.
#[derive(Clone, Debug)]
pub struct ImageStoreConfig {
    /// The most bytes of disk that images may take. Images that nobody leases make room for new ones.
    pub max_bytes: u64,
    /// The most entries of one layer.
    pub max_entries: u64,
    /// The largest archive that is imported, in bytes, compressed or not.
    pub max_archive_bytes: u64,
    /// Whose the files are.
    pub unpack: UnpackMode,
    /// The server's own program, which runs [`super::unpack::main`] when its only argument is
    /// [`super::unpack::ARGUMENT`].
    pub helper_exe: PathBuf,
    /// Registries, `HOST` or `HOST:PORT`, that are spoken to over plain HTTP.
    pub insecure_registries: Vec<String>,
    /// Docker's `config.json` with credentials, where there is one.
    pub docker_config: Option<PathBuf>,
    /// The longest that a whole pull may take.
    pub pull_timeout: Duration,
    /// The longest that a connection to a registry may take.
    pub connect_timeout: Duration,
    /// The longest that a registry may send nothing.
    pub idle_timeout: Duration,
}

impl ImageStoreConfig {
    /// The usual settings with this program as the helper.
    #[must_use]
    pub fn new(helper_exe: PathBuf) -> Self {
        Self {
            max_bytes: 20 << 30,
            max_entries: 1_000_000,
            max_archive_bytes: 20 << 30,
            unpack: UnpackMode::detect(),
            helper_exe,
            insecure_registries: Vec::new(),
            docker_config: None,
            pull_timeout: Duration::from_secs(1800),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
        }
    }
}

/// One image in a list.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ImageInfo {
    /// Its id: the digest of its configuration.
    pub id: Digest,
    /// Its names.
    pub names: Vec<String>,
    /// `REGISTRY/REPOSITORY@DIGEST` of what it was pulled from.
    pub repo_digests: Vec<String>,
    /// What it says of itself.
    pub config: Arc<ImageConfig>,
    /// How many layers it has.
    pub layers: usize,
    /// Disk that it takes, in bytes, layers of other images included.
    pub size_bytes: u64,
    /// When it came to the store, in milliseconds since 1970.
    pub added_unix_ms: u64,
    /// When it was last used, to a minute, in milliseconds since 1970.
    pub last_used_unix_ms: u64,
    /// Whether somebody leases it now.
    pub is_in_use: bool,
}

/// The images of one data directory. Clones are the same store; several processes may have it open.
#[derive(Clone, Debug)]
pub struct ImageStore(Arc<Inner>);

/// What all clones share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) files: StoreFiles,
    pub(super) config: ImageStoreConfig,
    pub(super) helper: Helper,
    pub(super) cache: IndexCache,
    pub(super) registries: Registries,
    pub(super) runtime: Handle,
    flights: Flights,
    /// Who may fetch or import an image now.
    makers: tokio::sync::Semaphore,
    held: Mutex<HashMap<Digest, Weak<Held>>>,
    turns: Mutex<Turns>,
    /// How much is being done in the background.
    pub(super) background: tokio::sync::watch::Sender<usize>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Both maps are caches: whatever a panic left in them is right or missing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    pub(super) fn index(&self) -> Result<Arc<Index>, ImageError> {
        self.cache.current(self.files.root()).at(&self.files.path().join("index"))
    }

    /// Leases an image of the index; `None` when it has just been removed.
    pub(super) fn lease(&self, id: Digest, image: &ImageEntry) -> Result<Option<ImageLease>, ImageError> {
        let mut all = lock(&self.held);
        let held = match all.get(&id).and_then(Weak::upgrade) {
            Some(held) => held,
            None => {
                let Some(held) = Held::take(&self.files, id, Arc::clone(&image.config))? else {
                    return Ok(None);
                };
                let held = Arc::new(held);
                all.retain(|_, held| held.strong_count() > 0);
                all.insert(id, Arc::downgrade(&held));
                held
            }
        };
        drop(all);
        held.note_use();
        Ok(Some(ImageLease(held)))
    }

    fn get(&self, wanted: &Wanted) -> Result<Option<ImageLease>, ImageError> {
        let index = self.index()?;
        let found = index.find(wanted).and_then(|id| Some((id, index.images.get(&id)?)));
        found.map_or(Ok(None), |(id, image)| self.lease(id, image))
    }

    /// Joins the work for an image or begins it; `or_get`: unless it is there.
    async fn fly<F>(
        &self,
        wanted: Wanted,
        progress: ProgressFn,
        or_get: bool,
        work: impl FnOnce(ProgressFn) -> F,
    ) -> Result<ImageLease, ImageError>
    where
        F: Future<Output = Result<ImageLease, ImageError>> + Send + 'static,
    {
        let key = wanted.to_string();
        let there = || if or_get { self.get(&wanted) } else { Ok(None) };
        self.flights.join(&key, progress, there, work).await
    }

    async fn pull(self: &Arc<Self>, name: &ImageName, sink: Sink<'_>) -> Result<ImageLease, ImageError> {
        let _maker = self.maker().await?;
        let what = || format!("the pull of {name}");
        self.in_time(what, pull::pull(self, name, sink)).await
    }

    /// Takes in an archive from elsewhere on this machine, in which is the image that is wanted and no other.
    async fn take_over(
        self: &Arc<Self>,
        wanted: &Wanted,
        Elsewhere { from, archive }: Elsewhere,
        sink: Sink<'_>,
    ) -> Result<ImageLease, ImageError> {
        let broken = |reason: String| ImageError::Elsewhere { image: wanted.to_string(), from, reason };
        let name = match wanted {
            Wanted::Name(name) => Some(name.clone()),
            Wanted::Id(_) => None,
        };
        let _maker = self.maker().await?;
        let what = || format!("taking over {wanted} from {from}");
        let taken = self.in_time(what, import::import(self, ImportSource::Stream(archive), name, sink)).await;
        let leases = taken.map_err(|error| match error {
            ImageError::InvalidArchive { reason } => broken(reason),
            error => error,
        })?;
        let is_wanted = |lease: &ImageLease| match wanted {
            Wanted::Name(_) => true,
            Wanted::Id(id) => lease.id() == *id,
        };
        leases
            .into_iter()
            .find(is_wanted)
            .ok_or_else(|| broken("it has another one in its archive".to_owned()))
    }

    /// Does something for as long as a pull may take.
    async fn in_time<T>(
        &self,
        what: impl FnOnce() -> String,
        work: impl Future<Output = Result<T, ImageError>>,
    ) -> Result<T, ImageError> {
        let limit = self.config.pull_timeout;
        match tokio::time::timeout(limit, work).await {
            Ok(done) => done,
            Err(_elapsed) => {
                self.settled().await;
                let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
                Err(ImageError::TimedOut { what: what(), limit_ms })
            }
        }
    }

    async fn maker(&self) -> Result<tokio::sync::SemaphorePermit<'_>, ImageError> {
        let maker = self.makers.acquire().await;
        maker.map_err(|_closed| ImageError::Store { reason: "it is being closed".to_owned() })
    }

    /// Whoever holds the lock in it may unpack the layer.
    pub(super) fn turn_for(&self, diff_id: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = lock(&self.turns);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(&diff_id).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        turns.insert(diff_id, Arc::downgrade(&turn));
        turn
    }
}

/// What is imported.
#[non_exhaustive]
pub enum ImportSource {
    /// An OCI layout, as a directory or an archive, or an archive of `docker save`; archives may be compressed with
    /// gzip or zstd.
    Path(PathBuf),
    /// Such an archive, as it comes.
    Stream(Box<dyn AsyncRead + Send + Unpin>),
}

/// An image in an archive that another place on this machine gives, such as a Docker engine.
pub struct Elsewhere {
    /// What the place is called in errors.
    pub from: &'static str,
    /// The archive, as [`ImportSource::Stream`].
    pub archive: Box<dyn AsyncRead + Send + Unpin>,
}

impl std::fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Elsewhere").field(&self.from).finish()
    }
}

impl std::fmt::Debug for ImportSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => f.debug_tuple("Path").field(path).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl ImageStore {
    /// Opens the store in a directory, which is made where it is missing, and removes what processes that died have
    /// left there. The runtime of the caller is kept for work in the background.
    ///
    /// # Errors
    /// The directory cannot be used, belongs to other ids, or is damaged.
    pub async fn open(dir: &Path, config: ImageStoreConfig) -> Result<Self, ImageError> {
        let ids = config.unpack.ids()?;
        let path = dir.to_owned();
        let of_files = ids.clone();
        let files = tokio::task::spawn_blocking(move || StoreFiles::open(&path, of_files)).await;
        let files = files
            .unwrap_or_else(|error| Err(ImageError::Store { reason: format!("a thread failed: {error}") }))?;
        let inner = Arc::new(Inner {
            files,
            helper: Helper { exe: config.helper_exe.clone(), ids },
            registries: Registries::new(&config),
            config,
            cache: IndexCache::default(),
            runtime: Handle::current(),
            flights: Flights::default(),
            makers: tokio::sync::Semaphore::new(IMAGES_AT_ONCE),
            held: Mutex::default(),
            turns: Mutex::default(),
            background: tokio::sync::watch::Sender::default(),
        });
        inner.index()?;
        inner.clear_up().await?;
        Ok(Self(inner))
    }

    /// Leases an image that is here, by a name or by its id. Takes microseconds: one `stat`, and for the first lease of
    /// an image the opening of its directory.
    ///
    /// # Errors
    /// The name is none, or the store cannot be read.
    pub fn get(&self, name: &str) -> Result<Option<ImageLease>, ImageError> {
        self.0.get(&Wanted::parse(name)?)
    }

    /// Gets an image from its registry, whether or not the store has one of that name, and leases it. Callers that want
    /// the same at the same time wait for one pull; one that drops this future does not stop it for the others, the
    /// last one does. `progress` is called from the task that pulls and must not block.
    ///
    /// # Errors
    /// Whatever keeps the image from being had; each says what can be done.
    pub async fn pull(
        &self,
        name: &str,
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<ImageLease, ImageError> {
        self.fly(name, Arc::new(progress), false).await
    }

    /// As [`Self::get`], and as [`Self::pull`] where the store has no such image.
    ///
    /// # Errors
    /// As [`Self::pull`]; an id that is not here cannot be pulled.
    pub async fn get_or_pull(
        &self,
        name: &str,
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<ImageLease, ImageError> {
        match self.get(name)? {
            Some(lease) => Ok(lease),
            None => self.fly(name, Arc::new(progress), true).await,
        }
    }

    /// As [`Self::get`]; where the store has no such image, `elsewhere` is asked for an archive with it, once for all who
    /// want it now. Where it has none either, the image is pulled, or with `or_pull` false it is not found.
    ///
    /// # Errors
    /// As [`Self::pull`]; [`ImageError::Elsewhere`] where there is an archive that is broken or breaks off.
    pub async fn get_or_take<F>(
        &self,
        name: &str,
        or_pull: bool,
        elsewhere: impl FnOnce() -> F + Send + 'static,
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<ImageLease, ImageError>
    where
        F: Future<Output = Result<Option<Elsewhere>, ImageError>> + Send,
    {
        let wanted = Wanted::parse(name)?;
        if let Some(lease) = self.0.get(&wanted)? {
            return Ok(lease);
        }
        let inner = Arc::clone(&self.0);
        let sought = wanted.clone();
        let work = move |progress: ProgressFn| async move {
            if let Some(elsewhere) = elsewhere().await? {
                return inner.take_over(&sought, elsewhere, &*progress).await;
            }
            match sought {
                Wanted::Name(name) if or_pull => inner.pull(&name, &*progress).await,
                other => Err(ImageError::NotFound { image: other.to_string() }),
            }
        };
        self.0.fly(wanted, Arc::new(progress), true, work).await
    }

    async fn fly(&self, name: &str, progress: ProgressFn, or_get: bool) -> Result<ImageLease, ImageError> {
        let name: ImageName = match Wanted::parse(name)? {
            Wanted::Name(name) => name,
            Wanted::Id(id) => return Err(ImageError::NotFound { image: id.to_string() }),
        };
        let inner = Arc::clone(&self.0);
        let wanted = Wanted::Name(name.clone());
        let work = move |progress: ProgressFn| async move { inner.pull(&name, &*progress).await };
        self.0.fly(wanted, progress, or_get, work).await
    }

    /// Takes the images of an archive in and leases them. Each gets the names that the archive has for it, or `name`
    /// alone, which is allowed for one image only. Dropping this future stops the import.
    ///
    /// # Errors
    /// The archive is none, is damaged, or has no image for this machine; or as [`Self::pull`].
    pub async fn import(
        &self,
        source: ImportSource,
        name: Option<&str>,
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<Vec<ImageLease>, ImageError> {
        let name = name.map(str::parse::<ImageName>).transpose()?;
        let _maker = self.0.maker().await?;
        import::import(&self.0, source, name, &progress).await
    }

    /// Writes a leased image as an archive in the way of `docker save`, with the one name `name`: all its layers as one,
    /// with owners, modes, times, links and `user.*` attributes. Its id there is another one.
    ///
    /// # Errors
    /// `name` has a digest and no tag; the archive would be larger than archives may be; the disk is full.
    pub async fn export(
        &self,
        lease: &ImageLease,
        name: &ImageName,
    ) -> Result<BoxStream<'static, Result<Bytes, ImageError>>, ImageError> {
        if name.tag().is_none() {
            let reason =
                "the store cannot give the very layers that a digest stands for; use a tag".to_owned();
            return Err(ImageError::Unsupported { image: name.to_string(), reason });
        }
        export::export(&self.0, lease, &name.to_string()).await
    }

    /// All images, in no order that means anything. Reads directories; blocks for a moment.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn list(&self) -> Result<Vec<ImageInfo>, ImageError> {
        self.0
            .blocking(|inner| {
                let index = inner.index()?;
                let mut list = Vec::with_capacity(index.images.len());
                for (id, image) in &index.images {
                    let path = inner.files.path_of(Shelf::Images, id);
                    list.push(ImageInfo {
                        id: *id,
                        names: index.names_of(id),
                        repo_digests: image.repo_digests.iter().cloned().collect(),
                        config: Arc::clone(&image.config),
                        layers: image.layers.len(),
                        size_bytes: image.layers.iter().map(|layer| layer.bytes).sum::<u64>()
                            + image.own_bytes,
                        added_unix_ms: image.added_unix_ms,
                        last_used_unix_ms: last_used_unix_ms(&inner.files, id),
                        is_in_use: !inner.files.is_free(Shelf::Images, id).at(&path)?,
                    });
                }
                Ok(list)
            })
            .await
    }

    /// Removes a name, and the image with it when that was its last one; or an image with all its names, by its id.
    /// Layers that no other image has go too.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], or [`ImageError::InUse`] when the image would go and somebody leases it: nothing has
    /// been changed then.
    pub async fn remove(&self, name: &str) -> Result<(), ImageError> {
        let wanted = Wanted::parse(name)?;
        let mut trash = self.0.staging().await?;
        let result = trash.with(move |inner, staging| inner.forget(&wanted, staging)).await;
        trash.remove().await;
        result
    }

    /// The largest archive that is imported, in bytes.
    #[must_use]
    pub fn max_archive_bytes(&self) -> u64 {
        self.0.config.max_archive_bytes
    }

    /// The directory that holds the images: the root of one is at its id's hexadecimal digits, in `root`.
    #[must_use]
    pub fn images_dir(&self) -> PathBuf {
        self.0.files.path().join("images")
    }

    /// Waits, for some seconds at most, until what callers who went away have left is removed. For an orderly end: what
    /// is not removed then is when the store is opened again.
    pub async fn settle(&self) {
        self.0.settled().await;
    }

    /// Disk that all images take, in bytes; a layer of several counts once.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn used_bytes(&self) -> Result<u64, ImageError> {
        Ok(self.0.index()?.bytes())
    }
}
