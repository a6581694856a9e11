//! The images of the suite in the image store.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use faas_executor::images::{ImageStore, ImageStoreConfig, ImportSource};
use faas_test_support::images;
pub(crate) use faas_test_support::images::link_or_copy;

use super::stock::Image;

/// Writes an OCI layout of the image that everybody may read.
pub(crate) fn write_layout(image: Image, dir: &Path) {
    images::write_layout(image.recipe(), dir);
}

/// Takes the image into a store from its layout.
pub(crate) async fn import(store: &ImageStore, image: Image, layout: &Path) {
    let source = ImportSource::Path(layout.to_owned());
    store.import(source, Some(image.name()), |_| {}).await.unwrap();
}

/// The store that the tests of root's backends share, with the image in it. It is in cargo's directory for what tests
/// keep: a large image takes longer to take in than all cases that use it.
pub(crate) fn shared_store(image: Image) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance");
    let store_dir = dir.join("images");
    fs::create_dir_all(&store_dir).unwrap();
    let lock = File::create(dir.join("lock")).unwrap();
    lock.lock().unwrap();
    let archive = images::archive(image.recipe());
    // Of which archive the store's image is.
    let mark = dir.join(image.recipe());
    let archive_name = archive.file_name().unwrap().to_str().unwrap();
    if fs::read_to_string(&mark).is_ok_and(|text| text == archive_name) {
        return store_dir;
    }
    let layout = tempfile::tempdir_in(&dir).unwrap();
    write_layout(image, layout.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = ImageStoreConfig::new(std::env::current_exe().unwrap());
        let store = ImageStore::open(&store_dir, config).await.unwrap();
        import(&store, image, layout.path()).await;
    });
    fs::write(&mark, archive_name).unwrap();
    store_dir
}
