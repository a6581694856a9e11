//! The cases.

use std::collections::{BTreeMap, BTreeSet};

use faas_executor::store::{
    AnyStore, Begun, EventBounds, EventFilter, Execution, InstanceFilter, KeptAnswer, KeyClaim, NewEvent,
    Position, Store as _, StoreError,
};
use serde_json::json;

use crate::subject::{Subject, TENANT, event, instance};
use crate::writer;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(crate) async fn what_is_kept_is_what_was_given(mut subject: Subject) -> Subject {
    let store = subject.open().await;
    let mut full = instance("full", 1_700_000_000_000);
    full.name = Some("a name".to_owned());
    full.status_reason = Some("why".to_owned());
    full.spec = json!({ "large": "x".repeat(4 << 20), "number": u64::MAX, "fraction": 0.1, "deep": [[[null, true]]] });
    full.record = Some(json!({ "pid": 7 }));
    full.labels = labels(&[("a", "b"), ("c", "d")]);
    full.expires_at_ms = Some(i64::MAX);
    full.parent_id = Some("parent".to_owned());
    full.snapshot_id = Some("snapshot".to_owned());
    let bare = instance("bare", 5);
    for given in [&full, &bare] {
        store.insert_instance(given, None).await.unwrap();
        assert_eq!(store.instance(TENANT, &given.id).await.unwrap().as_ref(), Some(given));
    }
    full.status = "paused".to_owned();
    full.status_reason = None;
    full.record = None;
    full.expires_at_ms = None;
    full.name = None;
    full.revision = store.update_instance(&full, None).await.unwrap();
    assert_eq!(full.revision, 2);
    store.close().await;
    let store = subject.open().await;
    assert_eq!(store.instance(TENANT, "full").await.unwrap().as_ref(), Some(&full));
    assert_eq!(store.all_instances().await.unwrap(), [bare, full]);
    assert_eq!(store.instance("other", "full").await.unwrap(), None, "another tenant's");
    subject
}

pub(crate) async fn text_of_all_kinds_is_kept_and_nul_refused(mut subject: Subject) -> Subject {
    let store = subject.open().await;
    let mut strange = instance("ä-🦀-\u{202e}-'\"\\%_;--", 1);
    strange.name = Some("Ñandú\n\t\u{1}".to_owned());
    strange.labels = labels(&[("schlüssel", "' OR 1=1"), ("", "")]);
    strange.spec = json!({ "nul": "\0", "é": "\u{10ffff}" });
    store.insert_instance(&strange, Some(&event("ü", 1))).await.unwrap();
    assert_eq!(store.instance(TENANT, &strange.id).await.unwrap(), Some(strange.clone()));
    let filter = InstanceFilter { labels: strange.labels.clone(), ..InstanceFilter::default() };
    assert_eq!(store.instances(TENANT, &filter, None, 10).await.unwrap(), [strange]);
    let mut nul = instance("n", 1);
    nul.name = Some("a\0b".to_owned());
    assert!(matches!(store.insert_instance(&nul, None).await, Err(StoreError::Text)));
    assert!(matches!(store.instance(TENANT, "\0").await, Err(StoreError::Text)));
    assert_eq!(store.instance(TENANT, "n").await.unwrap(), None);
    subject
}

pub(crate) async fn ids_and_names_are_unique_while_they_are_there(mut subject: Subject) -> Subject {
    let store = subject.open().await;
    let named = |id: &str, name: &str| {
        let mut named = instance(id, 1);
        named.name = Some(name.to_owned());
        named
    };
    store.insert_instance(&named("one", "web"), None).await.unwrap();
    let taken = store.insert_instance(&named("two", "web"), Some(&event("two", 1))).await;
    assert!(matches!(taken, Err(StoreError::NameTaken { name }) if name == "web"));
    let exists = store.insert_instance(&named("one", "other"), None).await;
    assert!(matches!(exists, Err(StoreError::Exists { id }) if id == "one"));
    let mut elsewhere = named("three", "web");
    elsewhere.tenant = "other".to_owned();
    store.insert_instance(&elsewhere, None).await.unwrap();
    for without in ["four", "five"] {
        store.insert_instance(&instance(without, 1), None).await.unwrap();
    }
    let renamed = store.update_instance(&named("four", "web"), None).await;
    assert!(matches!(renamed, Err(StoreError::NameTaken { .. })));
    assert!(store.delete_instance(TENANT, "one", 2, None).await.unwrap());
    store.update_instance(&named("four", "web"), None).await.unwrap();
    assert_eq!(store.event_bounds().await.unwrap().newest, 0, "what was refused left no event");
    subject
}

pub(crate) async fn writers_that_race_lose_nothing(mut subject: Subject) -> Subject {
    let store = subject.open().await;
    let mut counted = instance("counted", 1);
    counted.spec = json!(0);
    store.insert_instance(&counted, None).await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        writers.spawn(async move {
            let mut written = 0;
            while written < 10 {
                let mut read = store.instance(TENANT, "counted").await.unwrap().unwrap();
                read.spec = json!(read.spec.as_u64().unwrap() + 1);
                match store.update_instance(&read, None).await {
                    Ok(revision) => {
                        assert_eq!(revision, read.revision + 1);
                        written += 1;
                    }
                    Err(StoreError::Stale) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    writers.join_all().await;
    let counted = store.instance(TENANT, "counted").await.unwrap().unwrap();
    assert_eq!((counted.spec.clone(), counted.revision), (json!(80), 81));
    store.delete_instance(TENANT, "counted", 2, None).await.unwrap();
    assert!(matches!(store.update_instance(&counted, None).await, Err(StoreError::Stale)));
    subject
}

pub(crate) async fn a_deleted_instance_is_told_from_one_that_never_was(mut subject: Subject) -> Subject {
    let store = subject.open().await;
    store.insert_instance(&instance("gone", 1), None).await.unwrap();
    assert!(!store.was_deleted(TENANT, "gone").await.unwrap());
    assert!(!store.delete_instance("other", "gone", 5, None).await.unwrap(), "another tenant's");
    assert!(store.delete_instance(TENANT, "gone", 5, None).await.unwrap());
    assert!(!store.delete_instance(TENANT, "gone", 9, None).await.unwrap());
    assert_eq!(store.instance(TENANT, "gone").await.unwrap(), None);
    assert!(store.was_deleted(TENANT, "gone").await.unwrap());
    assert!(!store.was_deleted("other", "gone").await.unwrap());
    assert!(!store.was_deleted(TENANT, "never").await.unwrap());
    assert_eq!(store.prune_tombstones(5).await.unwrap(), 0);
    assert_eq!(store.prune_tombstones(6).await.unwrap(), 1);
    assert!(!store.was_deleted(TENANT, "gone").await.unwrap());
    subject
}

pub(crate) async fn a_list_is_filtered_by_state_and_labels(mut subject: Subject) -> Subject {
    let store = subject.open().await;
    for (id, at, status, given) in [
        ("a", 1, "running", labels(&[("app", "web"), ("tier", "1")])),
        ("b", 2, "paused", labels(&[("app", "web"), ("tier", "2")])),
        ("c", 3, "running", labels(&[("app", "db"), ("tier", "1")])),
        ("d", 3, "failed", labels(&[])),
    ] {
        let mut listed = instance(id, at);
        listed.status = status.to_owned();
        listed.labels = given;
        store.insert_instance(&listed, None).await.unwrap();
    }
    let ids = async |status: &[&str], wanted: &[(&str, &str)]| {
        let status = status.iter().map(|status| (*status).to_owned()).collect();
        let filter = InstanceFilter { status, labels: labels(wanted) };
        let found = store.instances(TENANT, &filter, None, 10).await.unwrap();
        found.into_iter().map(|found| found.id).collect::<Vec<_>>().concat()
    };
    assert_eq!(ids(&[], &[]).await, "dcba", "the newest first, then by id");
    assert_eq!(ids(&["running"], &[]).await, "ca");
    assert_eq!(ids(&["paused", "failed"], &[]).await, "db");
    assert_eq!(ids(&[], &[("app", "web")]).await, "ba");
    assert_eq!(ids(&["running"], &[("app", "web"), ("tier", "1")]).await, "a");
    assert_eq!(ids(&[], &[("app", "web"), ("tier", "3")]).await, "");
    assert!(store.instances("other", &InstanceFilter::default(), None, 10).await.unwrap().is_empty());
    subject
}

pub(crate) async fn pages_follow_each_other_while_rows_come_and_go(mut subject: Subject) -> Subject {
    let store = subject.open().await;
    // Ten at each moment, so that pages end within one.
    let name = |number: i64| format!("i{number:03}");
    for number in 0..100 {
        store.insert_instance(&instance(&name(number), number / 10), None).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut after: Option<Position> = None;
    for turn in 0.. {
        let page = store.instances(TENANT, &InstanceFilter::default(), after.as_ref(), 7).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(Position { created_at_ms: last.created_at_ms, id: last.id.clone() });
        seen.extend(page.iter().map(|found| found.id.clone()));
        // The page's own last row goes, one that was seen, one that was not; a newer one comes.
        for gone in [last.id.clone(), name(99 - turn), name(turn)] {
            store.delete_instance(TENANT, &gone, 1000, None).await.unwrap();
        }
        store.insert_instance(&instance(&format!("new{turn}"), 1000 + turn), None).await.unwrap();
    }
    let once: BTreeSet<_> = seen.iter().cloned().collect();
    assert_eq!(once.len(), seen.len(), "twice: {seen:?}");
    let mut sorted = seen.clone();
    sorted.sort_by(|a, b| b.cmp(a));
    assert_eq!(seen, sorted, "the newest first");
    let left = store.all_instances().await.unwrap();
    for there in left.iter().filter(|there| there.created_at_ms < 1000) {
        assert!(once.contains(&there.id), "{} was there all the time", there.id);
    }
    subject
}

fn execution(id: &str, instance_id: Option<&str>, created_at_ms: i64) -> Execution {
    Execution {
        id: id.to_owned(),
        tenant: TENANT.to_owned(),
        instance_id: instance_id.map(str::to_owned),
        state: "running".to_owned(),
        spec: json!({ "command": "ü" }),
        result: None,
        created_at_ms,
        ended_at_ms: None,
    }
}

pub(crate) async fn executions_belong_to_their_instance(mut subject: Subject) -> Subject {
    let store = subject.open().await;
    store.insert_instance(&instance("i", 1), None).await.unwrap();
    let orphan = store.insert_execution(&execution("o", Some("none"), 1), None).await;
    assert!(matches!(orphan, Err(StoreError::NoInstance)));
    for (id, of, at) in [("e1", Some("i"), 1), ("e2", Some("i"), 2), ("e3", Some("i"), 2), ("alone", None, 3)]
    {
        store.insert_execution(&execution(id, of, at), None).await.unwrap();
    }
    let again = store.insert_execution(&execution("e1", Some("i"), 9), None).await;
    assert!(matches!(again, Err(StoreError::Exists { .. })));
    let page = store.executions(TENANT, "i", None, 2).await.unwrap();
    assert_eq!(page.iter().map(|found| &*found.id).collect::<Vec<_>>(), ["e3", "e2"]);
    let after = Position { created_at_ms: 2, id: "e2".to_owned() };
    assert_eq!(
        store.executions(TENANT, "i", Some(&after), 2).await.unwrap(),
        [execution("e1", Some("i"), 1)]
    );
    let mut ended = execution("e1", Some("i"), 1);
    ended.state = "ended".to_owned();
    ended.result = Some(json!({ "exit_code": 3 }));
    ended.ended_at_ms = Some(10);
    assert!(store.update_execution(&ended, None).await.unwrap());
    assert_eq!(store.execution(TENANT, "e1").await.unwrap(), Some(ended));
    assert!(!store.update_execution(&execution("never", None, 1), None).await.unwrap());
    let mut ids = store.execution_ids().await.unwrap();
    ids.sort();
    assert_eq!(ids, ["e1", "e2", "e3"].map(|id| ("i".to_owned(), id.to_owned())));
    assert!(!store.delete_execution("another", "e1").await.unwrap());
    assert!(store.delete_execution(TENANT, "e1").await.unwrap());
    assert!(!store.delete_execution(TENANT, "e1").await.unwrap());
    let started = event("e4", 4);
    store.insert_execution(&execution("e4", Some("i"), 4), Some(&started)).await.unwrap();
    assert!(store.update_execution(&execution("e4", Some("i"), 4), Some(&started)).await.unwrap());
    assert!(!store.update_execution(&execution("e5", Some("i"), 4), Some(&started)).await.unwrap());
    assert_eq!(store.event_bounds().await.unwrap().newest, 2, "what was not there has no event");
    store.delete_instance(TENANT, "i", 20, None).await.unwrap();
    assert_eq!(store.execution(TENANT, "e2").await.unwrap(), None);
    assert!(store.execution(TENANT, "alone").await.unwrap().is_some());
    subject
}

pub(crate) async fn events_are_numbered_in_the_order_in_which_they_appear(mut subject: Subject) -> Subject {
    let store = subject.open().await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let store = store.clone();
        writers.spawn(async move {
            for number in 0..20 {
                let id = format!("{writer}-{number}");
                if number % 2 == 0 {
                    store.append_event(&event(&id, 1)).await.unwrap();
                } else {
                    store.insert_instance(&instance(&id, 1), Some(&event(&id, 1))).await.unwrap();
                }
            }
        });
    }
    // Follows them meanwhile: what has been read up to is never joined by something before it.
    let mut after = 0;
    while after < 160 {
        for found in store.events(TENANT, after, 50).await.unwrap() {
            assert_eq!(found.seq, after + 1);
            after = found.seq;
        }
    }
    writers.join_all().await;
    assert_eq!(store.event_bounds().await.unwrap(), EventBounds { oldest: 1, newest: 160 });
    assert!(store.events("other", 0, 10).await.unwrap().is_empty());
    subject
}

pub(crate) async fn an_event_is_there_if_its_change_is(mut subject: Subject) -> Subject {
    let store = subject.open().await;
    let mut changed = instance("i", 1);
    store.insert_instance(&changed, Some(&event("insert", 1))).await.unwrap();
    assert!(store.insert_instance(&changed, Some(&event("refused", 1))).await.is_err());
    changed.revision = store.update_instance(&changed, Some(&event("update", 2))).await.unwrap();
    let stale = instance("i", 1);
    assert!(store.update_instance(&stale, Some(&event("refused", 2))).await.is_err());
    assert!(store.delete_instance(TENANT, "i", 3, Some(&event("delete", 3))).await.unwrap());
    assert!(!store.delete_instance(TENANT, "i", 4, Some(&event("refused", 4))).await.unwrap());
    let told = store.events(TENANT, 0, 10).await.unwrap();
    let told: Vec<_> = told.iter().map(|told| (told.seq, &*told.event.subject)).collect();
    assert_eq!(told, [(1, "insert"), (2, "update"), (3, "delete")]);
    subject
}

pub(crate) async fn events_are_pruned_from_the_oldest_on(mut subject: Subject) -> Subject {
    let store = subject.open().await;
    assert_eq!(store.event_bounds().await.unwrap(), EventBounds { oldest: 1, newest: 0 });
    // The clock went back once.
    for at_ms in [10, 30, 20, 40, 50] {
        store.append_event(&event("e", at_ms)).await.unwrap();
    }
    assert_eq!(store.prune_events(0, 5).await.unwrap(), 0);
    assert_eq!(store.prune_events(0, 4).await.unwrap(), 1);
    assert_eq!(store.prune_events(21, 100).await.unwrap(), 2, "up to the last one that is old");
    assert_eq!(store.event_bounds().await.unwrap(), EventBounds { oldest: 4, newest: 5 });
    assert_eq!(store.prune_events(0, 0).await.unwrap(), 2);
    assert_eq!(store.event_bounds().await.unwrap(), EventBounds { oldest: 6, newest: 5 });
    store.close().await;
    let store = subject.open().await;
    assert_eq!(store.append_event(&event("e", 60)).await.unwrap(), 6, "a number is never given twice");
    subject
}

fn claim(key: &str) -> KeyClaim {
    KeyClaim {
        tenant: TENANT.to_owned(),
        key: key.to_owned(),
        route: "POST /a".to_owned(),
        fingerprint: vec![0, 1, 255],
        at_ms: 100,
        rerun_interrupted: false,
    }
}

fn answer(body: Option<&[u8]>) -> KeptAnswer {
    let headers = vec![("content-type".to_owned(), "text/plain".to_owned())];
    KeptAnswer { status: 201, headers, body: body.map(<[u8]>::to_vec) }
}

/// What many who come at once are told: how many [`Begun::New`], how many [`Begun::Running`].
async fn at_once(store: &AnyStore, claim: &KeyClaim) -> (usize, usize) {
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (store, claim) = (store.clone(), claim.clone());
        callers.spawn(async move { store.begin_key(&claim).await.unwrap() });
    }
    let told = callers.join_all().await;
    let count = |wanted: &Begun| told.iter().filter(|told| *told == wanted).count();
    (count(&Begun::New), count(&Begun::Running))
}

pub(crate) async fn events_are_filtered_by_kind_and_subject(mut subject: Subject) -> Subject {
    let store = subject.open().await;
    for (kind, of) in [
        ("instance.creating", "a"),
        ("instance.running", "a"),
        ("instance.running", "b"),
        ("execution.started", "c"),
        ("Instance.running", "a"),
        ("instance_%", "a"),
        ("ü.x", "ü"),
    ] {
        let told = NewEvent { kind: kind.to_owned(), ..event(of, 1) };
        store.append_event(&told).await.unwrap();
    }
    store.append_event(&NewEvent { tenant: "other".to_owned(), ..event("a", 1) }).await.unwrap();
    let numbers = async |kinds: &[&str], of: Option<&str>, after: i64, limit: u32| {
        let kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        let filter = EventFilter { kinds, subject: of.map(str::to_owned) };
        let found = store.filtered_events(TENANT, &filter, after, limit).await.unwrap();
        let all = store.events(TENANT, after, 100).await.unwrap();
        let here: Vec<_> = all.into_iter().filter(|event| filter.lets_through(&event.event)).collect();
        assert!(here.starts_with(&found), "the same as {filter:?} lets through");
        found.into_iter().map(|found| found.seq).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&[], None, 0, 100).await, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(numbers(&["instance."], None, 0, 100).await, [1, 2, 3]);
    assert_eq!(numbers(&["instance.running"], Some("a"), 0, 100).await, [2]);
    assert_eq!(numbers(&["execution.", "instance.c"], None, 0, 100).await, [1, 4]);
    assert_eq!(numbers(&["instance_"], None, 0, 100).await, [6], "no character stands for others");
    assert_eq!(numbers(&["ü"], Some("ü"), 0, 100).await, [7]);
    assert_eq!(numbers(&[], Some("a"), 2, 1).await, [5]);
    assert_eq!(numbers(&["nothing"], None, 0, 100).await, [0_i64; 0]);
    let of_all = store.all_events(5, 100).await.unwrap();
    assert_eq!(of_all.iter().map(|found| found.seq).collect::<Vec<_>>(), [6, 7, 8], "every tenant's");
    assert_eq!(store.all_events(0, 2).await.unwrap().len(), 2);
    subject
}

pub(crate) async fn whoever_waits_for_an_event_is_woken(mut subject: Subject) -> Subject {
    let store = subject.open().await;
    let mut appended = store.appended();
    let mut created = instance("i", 1);
    store.insert_instance(&created, None).await.unwrap();
    assert!(!appended.has_changed().unwrap(), "no event, nothing to wake up for");
    store.update_instance(&created, Some(&event("i", 2))).await.unwrap();
    appended.changed().await.unwrap();
    assert_eq!(store.events(TENANT, 0, 10).await.unwrap().len(), 1, "it is there by then");
    created.revision = 1;
    assert!(store.update_instance(&created, Some(&event("i", 3))).await.is_err());
    assert!(!appended.has_changed().unwrap(), "what was refused is none");
    store.delete_instance(TENANT, "i", 4, Some(&event("i", 4))).await.unwrap();
    appended.changed().await.unwrap();
    store.append_event(&event("i", 5)).await.unwrap();
    appended.changed().await.unwrap();
    assert_eq!(store.event_bounds().await.unwrap().newest, 3);
    subject
}

pub(crate) async fn one_of_many_gets_a_key(mut subject: Subject) -> Subject {
    let store = subject.open().await;
    for key in ["k1", "k2", "k3"] {
        assert_eq!(at_once(&store, &claim(key)).await, (1, 15));
    }
    let elsewhere = KeyClaim { tenant: "other".to_owned(), ..claim("k1") };
    assert_eq!(store.begin_key(&elsewhere).await.unwrap(), Begun::New);
    subject
}

pub(crate) async fn a_key_is_answered_until_it_is_pruned_or_forgotten(mut subject: Subject) -> Subject {
    let store = subject.open().await;
    let (all, large) = (answer(Some(&[0, 255, 10])), answer(None));
    for (key, given) in [("whole", &all), ("large", &large)] {
        assert_eq!(store.begin_key(&claim(key)).await.unwrap(), Begun::New);
        assert!(store.finish_key(TENANT, key, given).await.unwrap());
        assert!(!store.finish_key(TENANT, key, &answer(None)).await.unwrap(), "the first answer stays");
        assert!(!store.forget_key(TENANT, key).await.unwrap(), "and so does its key");
        assert!(!store.interrupt_key(TENANT, key).await.unwrap(), "it came to its end");
        assert_eq!(store.begin_key(&claim(key)).await.unwrap(), Begun::Done(given.clone()));
    }
    let other_body = KeyClaim { fingerprint: vec![0, 1], ..claim("whole") };
    let other_route = KeyClaim { route: "POST /b".to_owned(), ..claim("whole") };
    for other in [other_body, other_route] {
        assert_eq!(store.begin_key(&other).await.unwrap(), Begun::Mismatch);
    }
    store.begin_key(&claim("running")).await.unwrap();
    assert!(store.forget_key(TENANT, "running").await.unwrap());
    assert_eq!(store.begin_key(&claim("running")).await.unwrap(), Begun::New);
    assert_eq!(store.prune_keys(100).await.unwrap(), 0);
    assert_eq!(store.prune_keys(101).await.unwrap(), 2, "but for the one that runs");
    assert_eq!(store.begin_key(&claim("whole")).await.unwrap(), Begun::New);
    assert_eq!(store.begin_key(&claim("running")).await.unwrap(), Begun::Running);
    subject
}

pub(crate) async fn a_key_left_running_is_interrupted_by_a_restart(mut subject: Subject) -> Subject {
    let before = subject.open().await;
    for key in ["running", "done"] {
        before.begin_key(&claim(key)).await.unwrap();
    }
    before.finish_key(TENANT, "done", &answer(Some(b"x"))).await.unwrap();
    let after = subject.open().await;
    assert_eq!(after.begin_key(&claim("done")).await.unwrap(), Begun::Done(answer(Some(b"x"))));
    assert_eq!(after.begin_key(&claim("running")).await.unwrap(), Begun::Interrupted);
    assert!(!before.finish_key(TENANT, "running", &answer(None)).await.unwrap(), "no longer its own");
    assert!(!before.forget_key(TENANT, "running").await.unwrap());
    let other = KeyClaim { fingerprint: vec![9], rerun_interrupted: true, ..claim("running") };
    assert_eq!(after.begin_key(&other).await.unwrap(), Begun::Mismatch);
    let again = KeyClaim { rerun_interrupted: true, ..claim("running") };
    assert_eq!(at_once(&after, &again).await, (1, 15));
    assert!(after.finish_key(TENANT, "running", &answer(Some(b"y"))).await.unwrap());
    subject
}

pub(crate) async fn a_key_whose_end_is_not_known_is_interrupted(mut subject: Subject) -> Subject {
    let before = subject.open().await;
    assert!(!before.interrupt_key(TENANT, "k").await.unwrap(), "nobody has it");
    for key in ["k", "left"] {
        assert_eq!(before.begin_key(&claim(key)).await.unwrap(), Begun::New);
    }
    assert!(before.interrupt_key(TENANT, "k").await.unwrap());
    assert_eq!(before.begin_key(&claim("k")).await.unwrap(), Begun::Interrupted);
    assert_eq!(before.begin_key(&claim("left")).await.unwrap(), Begun::Running, "no other is");
    let other = KeyClaim { fingerprint: vec![9], ..claim("k") };
    assert_eq!(before.begin_key(&other).await.unwrap(), Begun::Mismatch);
    assert!(!before.interrupt_key(TENANT, "k").await.unwrap(), "once");
    assert!(!before.finish_key(TENANT, "k", &answer(None)).await.unwrap(), "it stays so");
    assert!(!before.forget_key(TENANT, "k").await.unwrap());
    let after = subject.open().await;
    assert_eq!(after.begin_key(&claim("k")).await.unwrap(), Begun::Interrupted, "also for the next server");
    let again = KeyClaim { rerun_interrupted: true, ..claim("left") };
    assert_eq!(after.begin_key(&again).await.unwrap(), Begun::New);
    assert!(!before.interrupt_key(TENANT, "left").await.unwrap(), "no longer its own");
    assert_eq!(after.prune_keys(101).await.unwrap(), 1, "but for the one that runs");
    assert_eq!(after.begin_key(&claim("k")).await.unwrap(), Begun::New);
    subject
}

pub(crate) async fn a_dropped_call_happened_as_a_whole_or_not_at_all(mut subject: Subject) -> Subject {
    let store = subject.open().await;
    for number in 0..60_u32 {
        let id = format!("i{number}");
        let written = instance(&id, 1);
        let told = event(&id, 1);
        let insert = store.insert_instance(&written, Some(&told));
        let patience = async {
            for _ in 0..number {
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(std::time::Duration::from_micros(u64::from(number) * 20)).await;
        };
        tokio::select! {
            biased;
            () = patience => {}
            inserted = insert => inserted.unwrap(),
        }
    }
    // What a dropped call had begun is over when the next one has the database.
    store.append_event(&event("last", 1)).await.unwrap();
    let there = store.all_instances().await.unwrap();
    let there: BTreeSet<_> = there.into_iter().map(|there| there.id).collect();
    let told = store.events(TENANT, 0, 1000).await.unwrap();
    let told: BTreeSet<_> = told.into_iter().map(|told| told.event.subject).collect();
    let told: BTreeSet<_> = told.into_iter().filter(|told| told != "last").collect();
    assert_eq!(there, told);
    subject
}

pub(crate) async fn what_a_killed_process_was_told_is_there(mut subject: Subject) -> Subject {
    let mut acknowledged = BTreeSet::new();
    for round in 1..=3 {
        let location = subject.location.clone();
        let told = tokio::task::spawn_blocking(move || writer::killed_after(&location, 40)).await.unwrap();
        acknowledged.extend(told);
        assert_eq!(subject.integrity().await, "ok");
        let store = subject.open().await;
        let there = store.all_instances().await.unwrap();
        let ids: BTreeSet<_> = there.iter().map(|there| there.id.clone()).collect();
        let lost: Vec<_> = acknowledged.difference(&ids).collect();
        assert!(lost.is_empty(), "lost after kill {round}: {lost:?}");
        let told = store.events(TENANT, 0, 1_000_000).await.unwrap();
        let told: BTreeSet<_> = told.into_iter().map(|told| told.event.subject).collect();
        assert_eq!(ids, told, "each with its event");
        let filter = InstanceFilter { labels: labels(&[("of", "the writer")]), ..InstanceFilter::default() };
        assert_eq!(store.instances(TENANT, &filter, None, 1_000_000).await.unwrap().len(), ids.len());
        // The next one begins with the same numbers.
        for id in &ids {
            store.delete_instance(TENANT, id, 1, None).await.unwrap();
        }
        store.prune_events(i64::MAX, 0).await.unwrap();
        acknowledged.clear();
        store.close().await;
    }
    subject
}

pub(crate) async fn a_newer_schema_is_refused(mut subject: Subject) -> Subject {
    subject.open().await.close().await;
    subject
        .execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             SELECT 999, description, success, checksum, execution_time FROM _sqlx_migrations WHERE version = 1",
        )
        .await;
    let error = subject.open_as(crate::subject::GATEWAY).await.unwrap_err();
    assert!(matches!(error, StoreError::TooNew { found: 999, known: 1 }), "{error}");
    subject
}

pub(crate) async fn another_gateways_database_is_refused(mut subject: Subject) -> Subject {
    subject.open().await.close().await;
    let error = subject.open_as("somebody else").await.unwrap_err();
    assert!(matches!(&error, StoreError::Foreign { owner, .. } if owner == "gateway1"), "{error}");
    subject.open().await;
    subject
}
