//! A process that writes until it is killed, and says what was acknowledged.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, ExitCode, Stdio};

use faas_executor::store::{AnyStore, Store as _};

use crate::subject::{GATEWAY, Location, event, instance};

const WORD: &str = "store-writer";

/// Is the writer, where this program was started as it.
pub(crate) fn run(arguments: &[&OsStr]) -> Option<ExitCode> {
    let [word, location] = arguments else { return None };
    if *word != WORD {
        return None;
    }
    let location = Location(location.to_str()?.to_owned());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = AnyStore::open(&location.parsed(), GATEWAY).await.unwrap();
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..4 {
            let store = store.clone();
            writers.spawn(async move {
                for number in 0.. {
                    let id = format!("w{writer}-{number}");
                    let mut written = instance(&id, number);
                    written.labels.insert("of".to_owned(), "the writer".to_owned());
                    store.insert_instance(&written, Some(&event(&id, number))).await.unwrap();
                    // One write call, so that lines of several are not mixed.
                    std::io::stdout().lock().write_all(format!("{id}\n").as_bytes()).unwrap();
                }
            });
        }
        writers.join_all().await;
    });
    Some(ExitCode::FAILURE)
}

/// Starts the writer, kills it in the middle of its work, and gives what was acknowledged to it.
pub(crate) fn killed_after(location: &Location, count: usize) -> Vec<String> {
    let mut child: Child = Command::new(std::env::current_exe().unwrap())
        .args([WORD, &location.0])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged: Vec<String> = lines.by_ref().take(count).map(Result::unwrap).collect();
    child.kill().unwrap();
    acknowledged.extend(lines.map(Result::unwrap).filter(|line| line.starts_with('w')));
    child.wait().unwrap();
    assert!(acknowledged.len() >= count, "it ended by itself");
    acknowledged
}
