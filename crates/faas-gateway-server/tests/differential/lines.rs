//! The command lines that are compared.

/// What is executed.
pub(crate) enum CommandLine {
    Shell(String),
    Argv(Vec<String>),
}

/// One of them, with what goes with it.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) command: CommandLine,
    pub(crate) cwd: Option<&'static str>,
    pub(crate) stdin: Option<String>,
    /// User and group.
    pub(crate) ids: (u32, u32),
    pub(crate) env: Vec<(&'static str, &'static str)>,
    /// Whether what stands on standard error is compared too.
    pub(crate) same_stderr: bool,
    /// Whether runc gets a process above it, as a sandbox has its agent: the first process of a PID namespace is
    /// spared by signals from within.
    pub(crate) under_init: bool,
}

impl Line {
    /// The arguments as a runtime without a shell of its own takes them.
    pub(crate) fn argv(&self) -> Vec<String> {
        let argv = match &self.command {
            CommandLine::Shell(text) => vec!["/bin/sh".to_owned(), "-c".to_owned(), text.clone()],
            CommandLine::Argv(argv) => argv.clone(),
        };
        let init: &[&str] = if self.under_init { &["/bin/sh", "-c", "\"$@\"; exit $?", "init"] } else { &[] };
        init.iter().map(|argument| (*argument).to_owned()).chain(argv).collect()
    }

    /// The environment, with what an image and its users bring along.
    pub(crate) fn whole_env(&self) -> Vec<(&'static str, &'static str)> {
        let mut env = vec![("PATH", "/usr/local/bin:/usr/bin:/bin")];
        env.extend(self.env.iter().filter(|(name, _)| *name != "PATH"));
        if let Some(path) = self.env.iter().find(|(name, _)| *name == "PATH") {
            env[0] = *path;
        }
        let of_user = match self.ids.0 {
            0 => vec![("HOME", "/root"), ("USER", "root"), ("LOGNAME", "root")],
            65534 => vec![("HOME", "/nonexistent"), ("USER", "nobody"), ("LOGNAME", "nobody")],
            _ => vec![("HOME", "/")],
        };
        let missing =
            of_user.into_iter().filter(|(name, _)| !self.env.iter().any(|(other, _)| other == name));
        env.extend(missing.collect::<Vec<_>>());
        env
    }

    fn with_stdin(mut self, text: impl Into<String>) -> Self {
        self.stdin = Some(text.into());
        self
    }

    const fn with_ids(mut self, uid: u32, gid: u32) -> Self {
        self.ids = (uid, gid);
        self
    }

    const fn within(mut self, cwd: &'static str) -> Self {
        self.cwd = Some(cwd);
        self
    }

    fn with_env(mut self, env: &[(&'static str, &'static str)]) -> Self {
        self.env = env.to_vec();
        self
    }

    const fn under_an_init(mut self) -> Self {
        (self.under_init, self.same_stderr) = (true, false);
        self
    }

    /// The words of standard error are not the program's alone.
    const fn whatever_it_complains(mut self) -> Self {
        self.same_stderr = false;
        self
    }
}

fn line(name: &'static str, command: CommandLine) -> Line {
    Line {
        name,
        command,
        cwd: None,
        stdin: None,
        ids: (0, 0),
        env: Vec::new(),
        same_stderr: true,
        under_init: false,
    }
}

fn sh(name: &'static str, text: &str) -> Line {
    line(name, CommandLine::Shell(text.to_owned()))
}

fn argv(name: &'static str, argv: &[&str]) -> Line {
    line(name, CommandLine::Argv(argv.iter().map(|argument| (*argument).to_owned()).collect()))
}

/// All of them.
pub(crate) fn all() -> Vec<Line> {
    let mut lines = endings();
    lines.extend(arguments_and_environment());
    lines.extend(identity());
    lines.extend(streams());
    lines.extend(surroundings());
    lines.extend(refusals());
    lines
}

fn endings() -> Vec<Line> {
    vec![
        argv("true", &["true"]),
        argv("false", &["false"]),
        sh("exit code 3", "exit 3"),
        sh("exit code 255", "exit 255"),
        sh("exit code beyond a byte", "exit 256"),
        sh("ended by SIGTERM", "kill -TERM $$").under_an_init(),
        sh("ended by SIGKILL", "kill -KILL $$").under_an_init(),
        sh("ended by SIGSEGV", "kill -SEGV $$").under_an_init(),
        sh("ended by SIGABRT without a core", "kill -ABRT $$").under_an_init(),
        sh("a real-time signal", "kill -40 $$").under_an_init(),
        sh("a child that is ended by a signal", "sh -c 'kill -INT $$'; echo $?"),
        sh("an unknown program", "no-such-program").whatever_it_complains(),
        sh("a file that is no program", "/etc/passwd").whatever_it_complains(),
        sh("a directory as a program", "/tmp").whatever_it_complains(),
        sh("a missing interpreter", "printf '#!/no/such\\n' >/tmp/s; chmod +x /tmp/s; /tmp/s")
            .whatever_it_complains(),
        sh("a script without an interpreter", "printf 'echo $0 $1\\n' >/tmp/s; chmod +x /tmp/s; /tmp/s one"),
        sh("a script with one", "printf '#!/bin/sh\\necho $0 $1\\n' >/tmp/s; chmod +x /tmp/s; /tmp/s one"),
        sh("a program without permission", "printf 'true\\n' >/tmp/s; chmod 644 /tmp/s; /tmp/s")
            .whatever_it_complains(),
        sh("a background process is not waited for", "sleep 20 & echo started"),
        sh("a daemon is not waited for", "setsid sleep 20 >/dev/null 2>&1 & echo started"),
        sh("a syntax error", "if"),
    ]
}

fn arguments_and_environment() -> Vec<Line> {
    vec![
        argv("arguments as they are", &["printf", "<%s>", "a b", "", "*", "$HOME", "\\n", "ü €", "-x", "'"]),
        argv("the name of the program", &["sh", "-c", "echo \"$0\" \"$1\"", "zero", "one"]),
        sh("the name of the shell", "echo \"$0\" $#"),
        argv("a program by its path", &["/usr/bin/env", "printf", "here"]),
        sh("a here-document", "cat <<END\n$((1 + 2)) ü\nEND"),
        sh("the environment", "env | grep -v -e ^PWD= -e ^_= -e ^SHLVL= -e ^OLDPWD= | sort").with_env(&[
            ("A", "1"),
            ("EMPTY", ""),
            ("UNICODE", "ü €"),
            ("SPACE", "a  b"),
        ]),
        argv("the whole environment", &["sh", "-c", "tr '\\0' '\\n' </proc/self/environ | sort"])
            .with_env(&[("A", "1")]),
        argv("a value of several lines", &["sh", "-c", "printf %s \"$A\""]).with_env(&[("A", "one\ntwo\n")]),
        sh("another PATH", "echo $PATH; command -v ls").with_env(&[("PATH", "/nowhere:/usr/bin")]),
        sh("another HOME", "echo ~; cd; pwd").with_env(&[("HOME", "/tmp")]),
        sh("the working directory", "pwd; readlink /proc/self/cwd"),
        sh("another working directory", "pwd; readlink /proc/self/cwd").within("/usr/bin"),
    ]
}

fn identity() -> Vec<Line> {
    vec![
        sh("root", "id"),
        sh("a number that nobody has", "id").with_ids(1000, 1000),
        sh("user and group that do not belong together", "id -u; id -g; id -G").with_ids(1, 7),
        sh("nobody", "id; echo $HOME $USER").with_ids(65534, 65534),
        argv("capabilities of root", &["grep", "^Cap", "/proc/self/status"]),
        argv("capabilities of somebody", &["grep", "^Cap", "/proc/self/status"]).with_ids(1000, 1000),
        argv(
            "what cannot be gained",
            &["grep", "-E", "^(NoNewPrivs|Seccomp|Seccomp_filters):", "/proc/self/status"],
        ),
        sh("blocked signals", "grep ^SigBlk /proc/self/status"),
        // Without 32 and 33, which whoever starts a program by glibc's posix_spawn(3) lets it ignore: runc's starter too.
        argv(
            "ignored signals",
            &[
                "bash",
                "-c",
                "printf '%x\n' $((0x$(awk '/^SigIgn/ {print $2}' /proc/self/status) & ~0x180000000))",
            ],
        ),
        argv("groups", &["grep", "^Groups", "/proc/self/status"]),
        argv("ids", &["grep", "-E", "^[UG]id", "/proc/self/status"]).with_ids(1000, 1001),
        sh("setgroups", "cat /proc/self/setgroups"),
        sh("the mask of new files", "umask; touch /tmp/f; mkdir /tmp/d; stat -c %a /tmp/f /tmp/d"),
        argv("limits", &["bash", "-c", "ulimit -aS; ulimit -aH"]),
        argv("limits as the kernel has them", &["cat", "/proc/self/limits"]),
        sh("priority", "nice; cat /proc/self/oom_score_adj"),
        sh("root may change owners", "touch /tmp/f && chown 5:6 /tmp/f && stat -c '%u %g' /tmp/f"),
        sh("somebody may not", "touch /tmp/f && chown 5:6 /tmp/f").with_ids(1000, 1000),
        sh("root becomes somebody", "setpriv --reuid 7 --regid 8 --clear-groups id"),
        sh("somebody does not become root", "setpriv --reuid 0 id").with_ids(1000, 1000),
    ]
}

fn streams() -> Vec<Line> {
    let big: String = (0..20_000).map(|n| format!("line {n} of standard input\n")).collect();
    vec![
        sh("no standard input", "cat; echo $?"),
        sh("standard input", "cat").with_stdin("one\ntwo ü"),
        sh("empty standard input", "wc -c").with_stdin(""),
        sh("much standard input", "cksum").with_stdin(big.as_str()),
        sh("standard input that nobody reads", "exit 4").with_stdin(big.as_str()),
        sh("standard input read in part", "head -n 1").with_stdin(big),
        sh("both outputs", "echo out; echo err >&2; echo out again"),
        sh("much output", "seq 1 100000"),
        sh("much on standard error", "seq 1 20000 >&2"),
        sh("bytes that are no text", "printf '\\377\\000\\001\\200'"),
        sh("output without an end of line", "printf x"),
        sh("a closed output", "exec >&-; echo x; echo $? >&2").whatever_it_complains(),
        sh("a closed standard error", "exec 2>&-; ls /nowhere; echo $?"),
        sh("a closed input", "exec <&-; cat; echo $?").whatever_it_complains(),
        sh("open descriptors", "ls /proc/self/fd"),
        sh("no terminal", "tty; [ -t 0 ] || [ -t 1 ] || [ -t 2 ] || echo none; true </dev/tty")
            .whatever_it_complains(),
        argv("a reader that goes away", &["bash", "-c", "yes | head -n 1; echo ${PIPESTATUS[0]}"]),
        sh("a signal that is ignored", "trap '' TERM; sh -c 'kill -TERM $$; echo alive'"),
    ]
}

fn surroundings() -> Vec<Line> {
    vec![
        sh("devices", "ls /dev | grep -v core"),
        sh(
            "modes of devices",
            "stat -c '%A %t %T %n' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty",
        ),
        sh(
            "modes of directories",
            "stat -c '%A %u %g %n' / /etc /tmp /root /home /run /dev/shm /dev/pts /proc /usr",
        ),
        sh("shared memory and run", "echo x >/dev/shm/x && echo y >/run/y && cat /dev/shm/x /run/y"),
        sh("a full device", "echo x >/dev/full").whatever_it_complains(),
        sh("randomness", "head -c 8 /dev/urandom | wc -c"),
        sh("a pseudo-terminal", "script -qc 'tty' /dev/null </dev/null | grep -c pts"),
        sh("interfaces", "grep -c : /proc/net/dev; cat /proc/net/tcp | wc -l"),
        argv("loopback", &["bash", "-c", "(: </dev/tcp/127.0.0.1/1) 2>&1 | grep -c refused"]),
        sh("the name of the host", "[ \"$(hostname)\" = \"$(uname -n)\" ] && echo same"),
        sh("the system", "uname -s; uname -r; uname -m"),
        sh("users of the image", "getent passwd root nobody | cut -d: -f1,3; getent group 5 | cut -d: -f3"),
        sh("processors", "nproc; grep ^Cpus_allowed_list /proc/self/status"),
        sh("time", "date +%Z; [ $(date +%s) -gt 1000000000 ] && echo later"),
        sh(
            "a file and its directory",
            "mkdir -p /tmp/a/b && echo x >/tmp/a/b/c && cat /tmp/a/b/c && rm -r /tmp/a && ls /tmp",
        ),
        sh(
            "files of all kinds",
            "cd /tmp && echo x >f && ln -s x l && mkfifo p && ln f h; stat -c '%F %h %n' f h l p",
        ),
        sh("a FIFO between two", "mkfifo /tmp/p; echo through >/tmp/p & cat /tmp/p"),
        sh("a lock", "flock /tmp/l -c 'echo locked'"),
    ]
}

fn refusals() -> Vec<Line> {
    vec![
        sh("programs cannot be changed", "echo x >/usr/x; touch /usr/bin/env; rm /usr/bin/env")
            .whatever_it_complains(),
        sh("settings cannot be changed", "echo x >/proc/sys/kernel/hostname").whatever_it_complains(),
        sh("somebody cannot write where root can", "echo x >/etc/x")
            .with_ids(1000, 1000)
            .whatever_it_complains(),
        sh("no mounts", "mount -t tmpfs none /tmp 2>/dev/null; echo $?"),
        sh("no devices", "mknod /tmp/x b 8 0; echo $?"),
        sh("no other name", "hostname other; echo $?"),
        sh("root changes its root", "chroot / /bin/echo inside"),
        sh("somebody does not", "chroot / /bin/echo inside").with_ids(1000, 1000),
        sh("no processes of others", "ls -d /proc/[0-9]* | wc -l | xargs test 20 -gt && echo few"),
        sh("no other clock", "date -s '2001-01-01' >/dev/null; echo $?"),
    ]
}
