//! Lasting executions: the real agent, in namespaces of its own, and the client that the gateway has for it.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests, whose failure is the test's")]

mod sandbox;

use std::time::{Duration, Instant};

use faas_executor::guest::{AgentClient, Attachment, GuestError, LastingCall, LastingEvent};
use faas_guest_protocol::{
    AgentErrorKind, ExecFile, ExecRequest, ExitReport, Lasting, OutputStream, Program, TtySize,
};
use faas_test_support::needs;
use sandbox::{Sandbox, call, id, request, shell, with_stdin};

/// How long something may take that is waited for. Not a measure of anything.
const SETTLE: Duration = Duration::from_secs(60);

/// What an attachment told until the end.
#[derive(Debug, Default)]
struct Told {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    gaps: Vec<(u64, u64)>,
    /// The offset after the last byte.
    end: u64,
    exit: Option<ExitReport>,
}

impl Told {
    fn take(&mut self, event: LastingEvent) {
        match event {
            LastingEvent::Output { stream, offset, bytes } => {
                assert!(self.end == 0 || offset == self.end, "{offset} after {}", self.end);
                self.end = offset + bytes.len() as u64;
                match stream {
                    OutputStream::Stdout => self.stdout.extend(bytes),
                    OutputStream::Stderr => self.stderr.extend(bytes),
                }
            }
            LastingEvent::Gap { from, to } => {
                self.gaps.push((from, to));
                self.end = to;
            }
            LastingEvent::Exit(report) => self.exit = Some(report),
        }
    }

    fn code(&self) -> Option<i32> {
        self.exit.as_ref().unwrap().code
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

async fn next(attachment: &mut Attachment) -> Option<Result<LastingEvent, GuestError>> {
    tokio::time::timeout(SETTLE, attachment.next()).await.expect("an attachment hangs")
}

/// All until the end.
async fn all(mut attachment: Attachment) -> Told {
    let mut told = Told::default();
    while let Some(event) = next(&mut attachment).await {
        told.take(event.unwrap());
    }
    told
}

/// What is said until standard output ends with `end`.
async fn until(attachment: &mut Attachment, end: &str) -> String {
    let mut told = Told::default();
    while !told.text().ends_with(end) {
        told.take(next(attachment).await.unwrap_or_else(|| panic!("only {told:?}")).unwrap());
    }
    told.text().to_owned()
}

async fn run(client: &AgentClient, number: u64, what: LastingCall) -> Told {
    let (_, attachment) = client.start_attached(id(number), what, true).await.unwrap();
    let told = all(attachment).await;
    assert_eq!(told.gaps, []);
    told
}

/// Waits until an execution that nobody is attached to has ended.
async fn ended(client: &AgentClient, number: u64) -> ExitReport {
    let begun = Instant::now();
    loop {
        let found = client.list().await.unwrap().into_iter().find(|one| one.id == number).unwrap();
        if let Some(exit) = found.exit {
            return exit;
        }
        assert!(begun.elapsed() < SETTLE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn is(error: &GuestError, kind: AgentErrorKind) -> bool {
    matches!(error, GuestError::Agent(error) if error.kind == kind)
}

#[tokio::test]
async fn an_execution_outlives_its_connection_and_its_output_is_there_from_every_offset() {
    needs!(Root);
    let sandbox = Sandbox::start();
    let client = sandbox.connect().await;
    let boot_id = client.boot_id();
    let line = "echo out; echo err >&2; cat; exit 3";
    let (started, mut attachment) = client.start_attached(id(7), with_stdin(line), false).await.unwrap();
    assert!(started.pid > 1);
    // Both streams, so that what follows knows their order.
    let mut told = Told::default();
    while told.end < 8 {
        told.take(next(&mut attachment).await.unwrap().unwrap());
    }
    drop((attachment, client));
    let client = sandbox.connect().await;
    assert_eq!(client.boot_id(), boot_id);
    let listed = client.list().await.unwrap();
    assert_eq!((listed.len(), listed[0].id, listed[0].pid, &listed[0].exit), (1, 7, started.pid, &None));
    let other = sandbox.connect().await;
    let mut from_five = other.attach(id(7), 5, false).await.unwrap();
    assert!(client.stdin(id(7), b"more\n").await.unwrap());
    client.stdin_eof(id(7)).await.unwrap();
    let told = all(client.attach(id(7), 0, false).await.unwrap()).await;
    assert_eq!((told.text(), told.stderr.as_slice()), ("out\nmore\n", &b"err\n"[..]));
    assert_eq!((told.end, told.code()), (13, Some(3)));
    let mut tail = Told::default();
    while let Some(event) = next(&mut from_five).await {
        tail.take(event.unwrap());
    }
    assert_eq!(tail.stdout.len() + tail.stderr.len(), 8);
    // It is there, ended, until it is forgotten.
    let again = all(client.attach(id(7), 13, false).await.unwrap()).await;
    assert_eq!((again.stdout.len(), again.code()), (0, Some(3)));
    assert!(is(&client.attach(id(7), 14, false).await.unwrap_err(), AgentErrorKind::Offset));
    assert!(is(&client.signal(id(7), 15).await.unwrap_err(), AgentErrorKind::Ended));
    assert!(!client.stdin(id(7), b"late").await.unwrap());
    client.forget(id(7)).await.unwrap();
    assert_eq!(client.list().await.unwrap(), []);
    assert!(is(&client.attach(id(7), 0, false).await.unwrap_err(), AgentErrorKind::NoExecution));
    assert!(is(&client.forget(id(7)).await.unwrap_err(), AgentErrorKind::NoExecution));
}

#[tokio::test]
async fn a_reader_that_keeps_up_gets_all_and_a_slow_one_a_gap() {
    needs!(Root);
    const LEN: u64 = 32 << 20;
    let sandbox = Sandbox::start();
    let client = sandbox.connect().await;
    let line = format!("read go; head -c {LEN} /dev/zero & head -c {LEN} /dev/zero >&2; wait; echo end >&2");
    client.start(id(1), with_stdin(&line)).await.unwrap();
    let fast = client.attach(id(1), 0, true).await.unwrap();
    // On the same connection and on another.
    let slow = client.attach(id(1), 0, false).await.unwrap();
    let other = sandbox.connect().await;
    let slow_too = other.attach(id(1), 0, false).await.unwrap();
    client.stdin(id(1), b"\n").await.unwrap();
    let told = all(fast).await;
    assert_eq!((told.stdout.len() as u64, told.stderr.len() as u64, &told.gaps[..]), (LEN, LEN + 4, &[][..]));
    for slow in [slow, slow_too] {
        let told = all(slow).await;
        assert_eq!((told.end, told.gaps.len()), (2 * LEN + 4, 1), "{:?}", told.gaps);
        assert!(told.stdout.len() + told.stderr.len() < 1 << 20 && told.stderr.ends_with(b"end\n"));
        assert_eq!(told.code(), Some(0));
    }
}

#[tokio::test]
async fn nobody_who_reads_holds_up_nobody_and_the_newest_is_kept() {
    needs!(Root);
    let sandbox = Sandbox::start();
    let client = sandbox.connect().await;
    let line = "head -c 64000000 /dev/zero; echo the end; head -c 64000000 /dev/zero >&2; echo is here";
    client.start(id(1), shell(line)).await.unwrap();
    assert_eq!(ended(&client, 1).await.code, Some(0));
    let told = all(client.attach(id(1), 0, false).await.unwrap()).await;
    assert_eq!(told.end, 128_000_000 + 16);
    assert_eq!(told.gaps.len(), 1);
    assert!(told.stdout == b"is here\n" && told.stderr.len() > 200_000);
    // What is beyond the limit is in no log and in no offset.
    let few = ExecRequest { max_output_bytes: 4, ..request(Program::Shell("echo 12345; echo e >&2".into())) };
    let told = run(&client, 2, call(few)).await;
    let exit = told.exit.unwrap();
    assert_eq!((&told.stdout[..], &told.stderr[..], told.end), (&b"1234"[..], &b"e\n"[..], 6));
    assert!(exit.stdout_truncated && !exit.stderr_truncated);
}

#[tokio::test]
async fn signals_reach_the_group_and_a_cancel_everything() {
    needs!(Root);
    let sandbox = Sandbox::start();
    let client = sandbox.connect().await;
    let line = "sleep 1000 & sleep 1001; echo not here";
    let (_, mut attachment) = client.start_attached(id(1), shell(line), false).await.unwrap();
    while sandbox.named("sleep").len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    client.signal(id(1), 15).await.unwrap();
    let Some(Ok(LastingEvent::Exit(exit))) = next(&mut attachment).await else { panic!() };
    assert_eq!((exit.code, exit.signal, exit.cancelled), (None, Some(15), false));
    let line = "trap '' TERM; setsid sleep 1000 & sleep 1001";
    let (_, mut attachment) = client.start_attached(id(2), shell(line), false).await.unwrap();
    while sandbox.named("sleep").len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(is(&client.signal(id(2), 99).await.unwrap_err(), AgentErrorKind::BadRequest));
    assert!(is(&client.forget(id(2)).await.unwrap_err(), AgentErrorKind::StillRunning));
    client.cancel(id(2)).await.unwrap();
    let Some(Ok(LastingEvent::Exit(exit))) = next(&mut attachment).await else { panic!() };
    assert_eq!((exit.signal, exit.cancelled), (Some(9), true));
    let begun = Instant::now();
    while !sandbox.named("sleep").is_empty() {
        assert!(begun.elapsed() < SETTLE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let timed = ExecRequest { timeout_ms: Some(50), ..request(Program::Shell("sleep 1000".into())) };
    assert!(run(&client, 3, call(timed)).await.exit.unwrap().timed_out);
}

#[tokio::test]
async fn input_that_is_not_read_holds_up_its_own_execution_alone() {
    needs!(Root);
    let sandbox = Sandbox::start();
    let client = sandbox.connect().await;
    let (_, mut deaf) = client.start_attached(id(1), with_stdin("sleep 1000"), false).await.unwrap();
    let feeding = {
        let client = client.clone();
        tokio::spawn(async move { client.stdin(id(1), &vec![b'x'; 4 << 20]).await })
    };
    let bytes: Vec<u8> = (0..3_000_001_u32).map(|n| (n ^ (n >> 8)) as u8).collect();
    let (_, attachment) = client.start_attached(id(2), with_stdin("cat"), true).await.unwrap();
    let reading = tokio::spawn(all(attachment));
    assert!(client.stdin(id(2), &bytes).await.unwrap());
    client.stdin_eof(id(2)).await.unwrap();
    assert!(reading.await.unwrap().stdout == bytes);
    assert!(!feeding.is_finished());
    client.cancel(id(1)).await.unwrap();
    assert!(matches!(next(&mut deaf).await, Some(Ok(LastingEvent::Exit(_)))));
    assert!(!feeding.await.unwrap().unwrap(), "it was told that nobody reads it");
}

#[tokio::test]
async fn when_the_agent_dies_every_stream_ends_at_once_and_the_next_agent_is_another() {
    needs!(Root);
    let sandbox = Sandbox::start();
    let client = sandbox.connect().await;
    let (_, mut one) = client.start_attached(id(1), shell("sleep 1000"), false).await.unwrap();
    let (_, mut two) = client.start_attached(id(2), with_stdin("sleep 1000"), false).await.unwrap();
    let feeding = {
        let client = client.clone();
        tokio::spawn(async move { client.stdin(id(2), &vec![b'x'; 1 << 20]).await })
    };
    sandbox.kill_agent().await;
    for attachment in [&mut one, &mut two] {
        assert!(matches!(next(attachment).await, Some(Err(GuestError::Connection(_)))));
        assert!(next(attachment).await.is_none());
    }
    assert!(feeding.await.unwrap().is_err());
    assert!(client.list().await.is_err() && client.start(id(3), shell("true")).await.is_err());
    let after = sandbox.connect().await;
    assert_ne!(after.boot_id(), client.boot_id());
    assert_eq!(after.list().await.unwrap(), []);
    assert!(is(&after.attach(id(1), 0, false).await.unwrap_err(), AgentErrorKind::NoExecution));
    assert_eq!(sandbox.named("sleep").len(), 2, "they live on under the keeper");
    assert_eq!(run(&after, 1, shell("echo again")).await.text(), "again\n");
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    needs!(Root);
    let sandbox = Sandbox::start();
    let client = sandbox.connect().await;
    let none = client.start(id(1), call(request(Program::Argv(vec!["no-such".into()])))).await.unwrap();
    assert_eq!(none.pid, 0);
    let told = all(client.attach(id(1), 0, false).await.unwrap()).await;
    assert_eq!((told.code(), &told.stderr[..]), (Some(127), &b"no-such: not found\n"[..]));
    let elsewhere = ExecRequest { cwd: Some("/no/where".into()), ..request(Program::Shell("true".into())) };
    assert!(is(&client.start(id(2), call(elsewhere)).await.unwrap_err(), AgentErrorKind::WorkingDir));
    assert!(is(&client.attach(id(2), 0, false).await.unwrap_err(), AgentErrorKind::NoExecution));
    assert!(is(&client.start(id(1), shell("true")).await.unwrap_err(), AgentErrorKind::BadRequest));
    // Files come before the program, those of several at once too.
    let file = |content: &[u8]| ExecFile {
        path: "/tmp/file".into(),
        mode: 0o644,
        size: content.len() as u64,
        secret: false,
    };
    let content = vec![b'f'; 500_000];
    let request =
        ExecRequest { files: vec![file(&content)], ..request(Program::Shell("wc -c </tmp/file".into())) };
    let told = run(&client, 3, LastingCall { request, files: vec![content], held: None }).await;
    assert_eq!(told.text().trim(), "500000");
}

#[tokio::test]
async fn a_terminal_has_a_size_job_control_and_an_end() {
    needs!(Root);
    let sandbox = Sandbox::start();
    let client = sandbox.connect().await;
    let mut interactive = request(Program::Argv(vec!["sh".into(), "-i".into()]));
    interactive.env = vec![("PS1".into(), "> ".into()), ("TERM".into(), "dumb".into())];
    interactive.lasting = Some(Lasting { log_bytes: None, tty: Some(TtySize { rows: 30, cols: 100 }) });
    let (_, mut terminal) = client.start_attached(id(1), call(interactive), false).await.unwrap();
    until(&mut terminal, "> ").await;
    client.stdin(id(1), b"stty size; tty\n").await.unwrap();
    let said = until(&mut terminal, "> ").await;
    assert!(said.contains("30 100\r\n/dev/pts/0\r\n"), "{said:?}");
    client.resize(id(1), TtySize { rows: 11, cols: 22 }).await.unwrap();
    client.stdin(id(1), b"stty size; sleep 1000\n").await.unwrap();
    until(&mut terminal, "11 22\r\n").await;
    while sandbox.named("sleep").is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Ctrl-C ends what is in the foreground and not the shell.
    client.stdin(id(1), b"\x03").await.unwrap();
    until(&mut terminal, "> ").await;
    assert_eq!(sandbox.named("sleep"), [0; 0]);
    // A new reader sees the screen from its beginning.
    let mut again = sandbox.connect().await.attach(id(1), 0, false).await.unwrap();
    let mut told = Told::default();
    while !told.text().contains("30 100\r\n") || !told.text().contains("11 22\r\n") {
        told.take(next(&mut again).await.unwrap().unwrap());
    }
    client.stdin(id(1), b"exit 9\n").await.unwrap();
    assert_eq!(all(terminal).await.exit.unwrap().code, Some(9));
    // The end of a file is a character there.
    let mut cat = request(Program::Argv(vec!["cat".into()]));
    cat.lasting = Some(Lasting { log_bytes: None, tty: Some(TtySize { rows: 1, cols: 1 }) });
    let (_, terminal) = client.start_attached(id(2), call(cat), false).await.unwrap();
    client.stdin(id(2), b"line\n").await.unwrap();
    client.stdin_eof(id(2)).await.unwrap();
    let told = all(terminal).await;
    assert_eq!((told.text(), told.code()), ("line\r\nline\r\n", Some(0)));
    assert!(is(
        &client.resize(id(2), TtySize { rows: 1, cols: 1 }).await.unwrap_err(),
        AgentErrorKind::Ended
    ));
}

#[tokio::test]
async fn many_at_once_share_one_connection_and_keep_their_own_output() {
    needs!(Root);
    let sandbox = Sandbox::start();
    let client = sandbox.connect().await;
    let mut running = tokio::task::JoinSet::new();
    for number in 1..=64 {
        let client = client.clone();
        running.spawn(async move {
            let line =
                format!("for n in 1 2 3; do echo {number}; head -c 10000 /dev/zero >&2; done; exit {number}");
            let told = run(&client, number, shell(&line)).await;
            assert_eq!((told.text(), told.stderr.len()), (format!("{number}\n").repeat(3).as_str(), 30_000));
            assert_eq!(told.code(), Some(i32::try_from(number).unwrap()));
        });
    }
    running.join_all().await;
    let listed = client.list().await.unwrap();
    assert_eq!(listed.iter().map(|one| one.id).collect::<Vec<_>>(), (1..=64).collect::<Vec<_>>());
    // Of those that have ended so many are kept, the last ones.
    for number in 65..=400 {
        client.start(id(number), call(request(Program::Argv(vec!["/no".into()])))).await.unwrap();
    }
    let kept = client.list().await.unwrap();
    assert_eq!((kept.len(), kept.last().unwrap().id), (256, 400));
}
