//! Instances and their lasting executions, as the engine has them.

use std::time::Duration;

use faas_executor::{
    CommandDefaults, EngineError, ExecSpec, ExecutionOutput, InstanceInfo, LastingSpec, LogItem, MainSpec,
    MayHaveBegun, NewInstance, OutputEvent, Removal, Times,
};
use faas_guest_protocol::{OutputStream, Program};
use faas_types::{
    CommandLine, ErrorCode, ExecutionKind, ExecutionStatus, Network, RequestId, RestartPolicy, TenantId,
    TerminalSize,
};

use crate::subject::{SETTLE, Subject};

fn tenant() -> TenantId {
    TenantId("default".to_owned())
}

async fn instance(subject: &Subject, main: Option<MainSpec>) -> InstanceInfo {
    let spec = subject.shell("true");
    let new = NewInstance {
        tenant: tenant(),
        image: spec.image,
        name: None,
        runtime: spec.runtime,
        defaults: CommandDefaults::default(),
        files: Vec::new(),
        limits: spec.limits,
        network: Network::None,
        times: Times::default(),
        main,
        labels: std::collections::BTreeMap::new(),
    };
    subject.engine.instances().create(new).await.unwrap()
}

async fn delete(subject: &Subject, instance: &InstanceInfo) {
    let removed = subject.engine.instances().delete(&tenant(), &instance.id).await.unwrap();
    assert_eq!(removed, Removal::Gone);
}

fn background(line: &str) -> LastingSpec {
    LastingSpec {
        command: ExecSpec {
            request_id: RequestId("r".to_owned()),
            program: Program::Shell(line.to_owned()),
            env: Vec::new(),
            working_dir: None,
            user: None,
            stdin: None,
            files: Vec::new(),
            timeout: Duration::ZERO,
            max_output_bytes: 0,
            labels: std::collections::BTreeMap::new(),
            held: None,
        },
        kind: ExecutionKind::Command,
        timeout: None,
        max_output_bytes: None,
        tty: None,
        stdin_open: false,
        background: true,
        may_have_begun: MayHaveBegun::default(),
    }
}

async fn start(subject: &Subject, instance: &InstanceInfo, spec: LastingSpec) -> ExecutionOutput {
    subject.engine.instances().start_execution(&tenant(), &instance.id, spec).await.unwrap()
}

async fn next(output: &mut ExecutionOutput) -> OutputEvent {
    tokio::time::timeout(SETTLE, output.next()).await.unwrap().unwrap()
}

/// What is said until it ends; nothing of it is missing.
async fn to_its_end(output: &mut ExecutionOutput) -> Vec<u8> {
    let mut said = Vec::new();
    loop {
        match next(output).await {
            OutputEvent::Output { bytes, .. } => said.extend(bytes),
            OutputEvent::Gap { from, to } => panic!("a gap from {from} to {to}"),
            OutputEvent::End(_) => return said,
        }
    }
}

/// What is said until this is among it.
async fn until(output: &mut ExecutionOutput, wanted: &str) -> String {
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains(wanted) {
        match next(output).await {
            OutputEvent::Output { bytes, .. } => said.extend(bytes),
            other => panic!("{other:?} before {wanted:?} in {:?}", String::from_utf8_lossy(&said)),
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

pub(crate) async fn what_runs_in_the_background_has_output_by_offset_and_an_end(subject: &Subject) {
    let (instances, instance) = (subject.engine.instances(), instance(subject, None).await);
    let mut output = start(subject, &instance, background("echo one; echo two >&2; exit 3")).await;
    let id = output.info().id;
    assert_eq!(to_its_end(&mut output).await.len(), 8);
    let view = instances.execution(&tenant(), &id).await.unwrap();
    assert_eq!((view.first_offset, view.next_offset, view.info.status()), (0, 8, ExecutionStatus::Exited));
    assert_eq!(view.info.outcome(Vec::new(), Vec::new()).unwrap().exit.code, Some(3));
    for offset in 0..=8 {
        let mut from = instances.output(&tenant(), &id, Some(offset)).await.unwrap();
        let said = to_its_end(&mut from).await;
        assert_eq!(said.len() as u64, 8 - offset);
    }
    let beyond = instances.output(&tenant(), &id, Some(9)).await;
    assert!(matches!(beyond, Err(EngineError::OutputBeyond { next: 8 })), "{beyond:?}");
    let page = instances.executions(&tenant(), &instance.id, None, 10).await.unwrap();
    assert_eq!(
        page.executions.iter().map(|view| view.info.id.clone()).collect::<Vec<_>>(),
        std::slice::from_ref(&id)
    );
    delete(subject, &instance).await;
    assert_eq!(instances.execution(&tenant(), &id).await.unwrap_err().code(), ErrorCode::NotFound);
    subject.is_clean().await;
}

pub(crate) async fn input_signals_and_cancellation_reach_an_execution(subject: &Subject) {
    let (instances, instance) = (subject.engine.instances(), instance(subject, None).await);
    let spec = LastingSpec { stdin_open: true, ..background("cat; echo over") };
    let mut output = start(subject, &instance, spec).await;
    let id = output.info().id;
    instances.input(&tenant(), &id, b"some\n", false).await.unwrap();
    until(&mut output, "some\n").await;
    instances.input(&tenant(), &id, b"", true).await.unwrap();
    assert_eq!(to_its_end(&mut output).await, b"over\n");
    let late = instances.input(&tenant(), &id, b"x", false).await.unwrap_err();
    assert_eq!(late.code(), ErrorCode::Conflict);

    let mut output = start(
        subject,
        &instance,
        background("trap 'echo caught; exit 5' USR1; echo on; while :; do :; done"),
    )
    .await;
    until(&mut output, "on\n").await;
    instances.signal(&tenant(), &output.info().id, 10).await.unwrap();
    assert_eq!(to_its_end(&mut output).await, b"caught\n");

    let mut output = start(subject, &instance, background("trap '' TERM; sleep 1000 & echo on; wait")).await;
    until(&mut output, "on\n").await;
    let id = output.info().id;
    instances.cancel(&tenant(), &id).await.unwrap();
    instances.cancel(&tenant(), &id).await.unwrap();
    to_its_end(&mut output).await;
    assert_eq!(output.info().status(), ExecutionStatus::Cancelled);
    delete(subject, &instance).await;
    subject.is_clean().await;
}

pub(crate) async fn an_execution_whose_instance_goes_is_lost(subject: &Subject) {
    let (instances, instance) = (subject.engine.instances(), instance(subject, None).await);
    let mut stopped =
        start(subject, &instance, background("trap '' TERM; echo on; while :; do sleep 1; done")).await;
    until(&mut stopped, "on\n").await;
    instances.stop(&tenant(), &instance.id, Duration::ZERO).await.unwrap();
    to_its_end(&mut stopped).await;
    assert_eq!(stopped.info().status(), ExecutionStatus::Lost);
    instances.start(&tenant(), &instance.id).await.unwrap();
    let mut deleted = start(subject, &instance, background("echo on; sleep 1000")).await;
    until(&mut deleted, "on\n").await;
    delete(subject, &instance).await;
    to_its_end(&mut deleted).await;
    assert_eq!(deleted.info().status(), ExecutionStatus::Lost);
    subject.is_clean().await;
}

pub(crate) async fn an_execution_tells_whether_it_may_have_begun(subject: &Subject) {
    let (instances, instance) = (subject.engine.instances(), instance(subject, None).await);
    let may_have_begun = async |spec: LastingSpec| {
        let begun = spec.may_have_begun.clone();
        let started = instances.start_execution(&tenant(), &instance.id, spec).await;
        (begun.get(), started)
    };
    let (begun, started) = may_have_begun(background("true")).await;
    to_its_end(&mut started.unwrap()).await;
    assert!(begun);
    let mut nobody = background("true");
    nobody.command.user = Some("nobody-of-this-name".to_owned());
    let (begun, refused) = may_have_begun(nobody).await;
    assert!(!begun, "its agent refuses it: {refused:?}");
    assert!(matches!(refused, Err(EngineError::Agent(_))), "{refused:?}");
    instances.stop(&tenant(), &instance.id, Duration::ZERO).await.unwrap();
    let (begun, refused) = may_have_begun(background("true")).await;
    assert!(!begun && refused.is_err(), "there is no agent: {refused:?}");
    delete(subject, &instance).await;
    subject.is_clean().await;
}

pub(crate) async fn a_terminal_has_a_size_and_is_typed_into(subject: &Subject) {
    let (instances, instance) = (subject.engine.instances(), instance(subject, None).await);
    let size = TerminalSize { rows: 33, cols: 77 };
    let spec = LastingSpec {
        kind: ExecutionKind::Terminal,
        tty: Some(size),
        stdin_open: true,
        ..background("stty size; read line; stty size; echo got $line")
    };
    let mut output = start(subject, &instance, spec).await;
    let id = output.info().id;
    until(&mut output, "33 77").await;
    instances.resize(&tenant(), &id, TerminalSize { rows: 44, cols: 88 }).await.unwrap();
    instances.input(&tenant(), &id, b"typed\n", false).await.unwrap();
    let said = String::from_utf8(to_its_end(&mut output).await).unwrap();
    assert!(said.contains("44 88") && said.contains("got typed"), "{said:?}");
    let mut output = start(
        subject,
        &instance,
        LastingSpec { tty: Some(size), ..background("echo on; sleep 1000; echo not reached") },
    )
    .await;
    until(&mut output, "on").await;
    instances.input(&tenant(), &output.info().id, b"\x03", false).await.unwrap();
    let said = String::from_utf8(to_its_end(&mut output).await).unwrap();
    assert!(!said.contains("reached"), "{said:?}");
    delete(subject, &instance).await;
    subject.is_clean().await;
}

pub(crate) async fn a_main_command_is_run_again_and_told_in_the_log(subject: &Subject) {
    let instances = subject.engine.instances();
    let line = "[ -e /tmp/ran ] && { echo again; exec sleep 1000; }; echo first >&2; : >/tmp/ran; exit 1";
    let main = MainSpec {
        command: Some(CommandLine::Shell(line.to_owned())),
        of_image: false,
        restart: RestartPolicy::OnFailure,
    };
    let instance = instance(subject, Some(main)).await;
    let (mut entries, mut follower) = instances.logs(&tenant(), &instance.id, 100).await.unwrap();
    let has = |entries: &[faas_executor::LogEntry], of, word: &str| {
        entries.iter().any(|entry| {
            matches!(&entry.item, LogItem::Output { stream, bytes, .. } if *stream == of && bytes == word.as_bytes())
        })
    };
    while !has(&entries, OutputStream::Stdout, "again\n") {
        let next = tokio::time::timeout(SETTLE, follower.next()).await.unwrap().unwrap();
        entries.push(next.unwrap());
    }
    assert!(has(&entries, OutputStream::Stderr, "first\n"), "{entries:?}");
    let told = |kind: &str, entries: &[faas_executor::LogEntry]| {
        entries.iter().any(|entry| matches!(&entry.item, LogItem::Event { kind: other, .. } if other == kind))
    };
    assert!(told("instance.creating", &entries) && told("instance.running", &entries), "{entries:?}");
    let run = instances.get(&tenant(), &instance.id).unwrap().main_run.unwrap();
    assert_eq!(run.restarts, 1);
    instances.cancel(&tenant(), &run.execution).await.unwrap();
    delete(subject, &instance).await;
    let mut last = None;
    while let Some(entry) = tokio::time::timeout(SETTLE, follower.next()).await.unwrap().unwrap() {
        last = Some(entry);
    }
    assert!(told("instance.deleted", &[last.unwrap()]));
    subject.is_clean().await;
}
