//! A whole distribution with an interpreter.

use faas_executor::ExecuteSpec;
use faas_executor::sandbox::Limits;
use faas_types::ErrorCode;

use super::output::bytes;
use crate::stock::Image;
use crate::subject::{Backend, Subject, said, text};

pub(crate) async fn an_interpreter_runs_and_finds_its_modules(subject: &Subject) {
    let program = "import sys, json, hashlib, tempfile, socket, ctypes\n\
                   data = sys.stdin.buffer.read()\n\
                   tempfile.NamedTemporaryFile().write(data)\n\
                   sys.stdout.buffer.write(data[::-1])\n\
                   print(json.dumps({'n': len(data)}), file=sys.stderr)\n";
    let mut data = bytes(100_000);
    let spec = ExecuteSpec { stdin: Some(data.clone()), ..subject.argv(&["python3", "-c", program]) };
    let outcome = subject.ok(spec).await;
    data.reverse();
    assert_eq!((outcome.exit.code, text(&outcome.stderr)), (Some(0), "{\"n\": 100000}\n"));
    assert!(outcome.stdout == data);
    let failed = subject.ok(subject.argv(&["python3", "-c", "raise SystemExit(7)"])).await;
    assert_eq!(failed.exit.code, Some(7));
    let raised = subject.ok(subject.argv(&["python3", "-c", "1/0"])).await;
    assert!(raised.exit.code == Some(1) && text(&raised.stderr).contains("ZeroDivisionError"));
}

pub(crate) async fn owners_of_the_images_files_are_the_images(subject: &Subject) {
    // Of which the image host has not all, and an ordinary user's store of one id none but its own.
    if subject.image == Image::Host || !subject.has_users() {
        let said = subject.stdout(subject.argv(&["stat", "-c", "%u:%g %a", "/etc/passwd"])).await;
        return assert_eq!(said, "0:0 644\n");
    }
    let spec = subject.argv(&["stat", "-c", "%U:%G %a", "/etc/passwd", "/etc/shadow", "/tmp"]);
    assert_eq!(subject.stdout(spec).await, "root:root 644\nroot:shadow 640\nroot:root 1777\n");
    let other = ExecuteSpec { user: Some("nobody".to_owned()), ..subject.argv(&["cat", "/etc/shadow"]) };
    assert_eq!(subject.ok(other).await.exit.code, Some(1));
}

pub(crate) async fn threads_and_children_count_as_processes(subject: &Subject) {
    // Small stacks: they count where a process's memory is limited by what it maps.
    let program = "import threading, time\n\
                   threading.stack_size(256 << 10)\n\
                   n = 0\n\
                   try:\n\
                   \x20   while n < 100:\n\
                   \x20       threading.Thread(target=time.sleep, args=(30,), daemon=True).start()\n\
                   \x20       n += 1\n\
                   except RuntimeError:\n\
                   \x20   print('refused')\n\
                   import os; os._exit(0)\n";
    let line = "exec python3 -u -c \"$PROGRAM\"";
    for (pids, expected) in [(20, "refused\n"), (150, "")] {
        let spec = ExecuteSpec {
            env: vec![("PROGRAM".to_owned(), program.to_owned())],
            limits: Limits { pids, ..subject.shell("").limits },
            ..subject.shell(line)
        };
        let outcome = subject.ok(spec).await;
        assert_eq!(text(&outcome.stdout), expected, "{pids}: {}", said(&outcome));
    }
}

pub(crate) async fn an_allocation_beyond_the_limit_fails_or_kills(subject: &Subject) {
    let spec = ExecuteSpec {
        limits: Limits { memory_bytes: 64 << 20, ..subject.shell("").limits },
        ..subject.argv(&["python3", "-c", "x = b'x' * (400 << 20); print(len(x))"])
    };
    let outcome = match subject.run(spec).await {
        Ok(outcome) => outcome,
        Err(error) => {
            assert_eq!(error.code(), ErrorCode::SandboxLost, "{error}");
            return assert!(error.to_string().contains("memory"), "{error}");
        }
    };
    assert!(outcome.stdout.is_empty(), "{}", said(&outcome));
    if subject.capabilities.limits.memory.supported {
        assert_eq!((outcome.exit.signal, outcome.oom_killed), (Some(9), true), "{}", said(&outcome));
    } else {
        assert!(text(&outcome.stderr).contains("MemoryError"), "{}", said(&outcome));
    }
}

pub(crate) async fn sockets_that_no_limit_counts_end_whoever_has_too_many(subject: &Subject) {
    if subject.backend != Backend::Native {
        return;
    }
    // Nothing waits in them.
    let program = "import resource, socket, sys, time\n\
                   hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n\
                   resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))\n\
                   for _ in range(int(sys.argv[1])):\n\
                   \x20   one = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\n\
                   \x20   one.bind((0, 0))\n\
                   \x20   one.detach()\n\
                   time.sleep(int(sys.argv[2]))\n\
                   print('there')\n";
    let spec = |sockets: &str, seconds: &str| subject.argv(&["python3", "-c", program, sockets, seconds]);
    assert_eq!(subject.stdout(spec("1000", "2")).await, "there\n");
    match subject.run(spec("15000", "30")).await {
        Ok(outcome) => assert!(outcome.oom_killed && outcome.stdout.is_empty(), "{}", said(&outcome)),
        Err(error) => {
            assert_eq!(error.code(), ErrorCode::SandboxLost, "{error}");
            assert!(error.to_string().contains("memory"), "{error}");
        }
    }
}
