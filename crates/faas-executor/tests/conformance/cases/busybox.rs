//! What takes a small image that is known by heart.

use faas_executor::ExecuteSpec;
use faas_types::ErrorCode;
use tokio::task::JoinSet;

use super::surroundings::as_user;
use crate::backends::EXECUTIONS;
use crate::subject::{Backend, Subject, text};

/// How many small executions there are. A container takes its engine a quarter of a second of CPU time: more of them
/// are for whoever has the time (`FAAS_CONFORMANCE_EXECUTIONS=1000`).
#[expect(clippy::disallowed_methods, reason = "a test's switch, not a setting of the server")]
fn how_many(backend: Backend) -> usize {
    match (std::env::var(EXECUTIONS), backend) {
        (Ok(count), _) => count.parse().unwrap(),
        (Err(_), Backend::Native) => 1000,
        (Err(_), Backend::Docker) => 200,
    }
}

pub(crate) async fn the_users_groups_are_the_images(subject: &Subject) {
    let line = "echo $(id -u) $(id -G) $USER $HOME";
    assert_eq!(subject.stdout(subject.shell(line)).await, "0 0 root /root\n");
    for (user, expected) in [
        ("app", "1000 1000 29 app /home\n"),
        ("1000", "1000 1000 29 app /home\n"),
        ("app:daemon", "1000 2 29 app /home\n"),
        ("1000:29", "1000 29 app /home\n"),
        ("nobody", "65534 65534 nobody /\n"),
    ] {
        let spec = as_user(subject, user, line);
        if subject.has_users() {
            assert_eq!(subject.stdout(spec).await, expected, "{user}");
        } else {
            subject.refused(spec, ErrorCode::InvalidRequest).await;
        }
    }
}

pub(crate) async fn an_image_that_is_not_there_is_told(subject: &Subject) {
    for image in ["no-such-image", "no.such.registry/team/image:1"] {
        let spec = ExecuteSpec { image: Some(image.to_owned()), ..subject.shell("true") };
        let said = subject.refused(spec, ErrorCode::ImageUnavailable).await;
        assert!(said.contains("no"), "{said}");
    }
}

pub(crate) async fn many_small_executions_sixteen_at_a_time(subject: &Subject) {
    let count = how_many(subject.backend);
    let mut all = JoinSet::new();
    for n in 0..count {
        let (engine, spec) = (subject.engine.clone(), subject.argv(&["echo", &n.to_string()]));
        all.spawn(async move { (n, engine.execute(spec).await) });
    }
    let mut ids = std::collections::BTreeSet::new();
    while let Some(done) = all.join_next().await {
        let (n, outcome) = done.unwrap();
        let outcome = outcome.unwrap();
        assert_eq!((text(&outcome.stdout), outcome.exit.code), (format!("{n}\n").as_str(), Some(0)));
        assert!(outcome.stderr.is_empty() && !outcome.oom_killed);
        ids.insert(outcome.execution_id);
    }
    assert_eq!(ids.len(), count);
}
