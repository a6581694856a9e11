//! Puts words into the agent's mouth: traces it, which the sandbox's root may, and has it write to the gateway what the
//! test wants it to say. The worst that may come of it is a wrong answer to this execution.
//!
//! x86-64 only: what is done to registers is not the same anywhere else.

use crate::options::Options;

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn run(_: &Options) -> Result<(), String> {
    Err("only for x86-64".to_owned())
}

#[cfg(target_arch = "x86_64")]
pub(super) fn run(options: &Options) -> Result<(), String> {
    // The agent starts programs itself.
    // SAFETY: no arguments.
    let agent = unsafe { libc::getppid() };
    let how = options.need("how")?;
    let (frames, rounds) = words::of(how)?;
    let mut tracee = tracee::Tracee::attach(agent)?;
    for _ in 0..rounds {
        tracee.say(&frames)?;
    }
    tracee.let_go(how == "silence")?;
    println!("said");
    // So that this program's own end does not come in between.
    pause_ms(options.number("pause_ms", 500));
    Ok(())
}

/// Waits a moment, where there is no event to wait for.
#[cfg(target_arch = "x86_64")]
pub(super) fn pause_ms(ms: u64) {
    #[expect(clippy::disallowed_methods, reason = "a program with one thread and no runtime")]
    std::thread::sleep(std::time::Duration::from_millis(ms));
}

/// What is said. See faas-guest-protocol for the form of a frame.
#[cfg(target_arch = "x86_64")]
mod words {
    const HELLO: u8 = 64;
    const STARTED: u8 = 65;
    const STDOUT: u8 = 66;
    const EXIT: u8 = 68;
    const ERROR: u8 = 69;
    const PONG: u8 = 70;

    fn frame(kind: u8, execution: u64, payload: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
        bytes.extend_from_slice(&[1, kind, 0, 0]);
        bytes.extend_from_slice(&execution.to_le_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    /// The bytes, and how often they are said.
    pub(super) fn of(how: &str) -> Result<(Vec<u8>, u32), String> {
        const BIG: usize = 128 << 10;
        let exit = |report: &str| frame(EXIT, 1, report.as_bytes());
        Ok(match how {
            "rubbish" => ((0..4096u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect(), 1),
            "giant-length" => {
                let mut header = frame(STDOUT, 1, b"");
                header[..4].copy_from_slice(&u32::MAX.to_le_bytes());
                (header, 1)
            }
            "half-a-frame" => {
                let mut whole = frame(STDOUT, 1, &[b'x'; BIG]);
                whole.truncate(1000);
                (whole, 1)
            }
            "another-execution" => (frame(STDOUT, 2, b"for somebody else"), 1),
            "the-connection-itself" => (frame(STDOUT, 0, b"for nobody"), 1),
            "another-version" => {
                let mut other = frame(STDOUT, 1, b"x");
                other[4] = 200;
                (other, 1)
            }
            "own-result" => {
                let mut both = frame(STDOUT, 1, b"forged");
                both.extend(exit(r#"{"code":77,"signal":null,"duration_us":1}"#));
                (both, 1)
            }
            "two-results" => {
                let one = exit(r#"{"code":78,"signal":null,"duration_us":1}"#);
                ([one.clone(), one].concat(), 1)
            }
            "impossible-exit" => (exit(r#"{"code":999,"signal":null,"duration_us":1}"#), 1),
            "code-and-signal" => (exit(r#"{"code":0,"signal":9,"duration_us":1}"#), 1),
            "exit-without-json" => (exit("[[[[[[["), 1),
            "deep-json" => (frame(EXIT, 1, &[b'['; BIG]), 1),
            "greeting-again" => (frame(HELLO, 0, br#"{"version":1,"pid":3}"#), 1),
            "started-again" => (frame(STARTED, 1, br#"{"pid":3}"#), 1),
            "false-error" => {
                let text = format!(r#"{{"kind":"internal","message":"{}","errno":5}}"#, "y".repeat(100_000));
                (frame(ERROR, 1, text.as_bytes()), 1)
            }
            "false-log-line" => {
                let text =
                    r#"{"kind":"internal","message":"x\nFORGED line of the log \u001b[31m","errno":0}"#;
                (frame(ERROR, 1, text.as_bytes()), 1)
            }
            "control-characters" => {
                let text = r#"{"kind":"user","message":"\u0000\u001b[31m\r\nx-evil: 1\r\n\r\n","errno":0}"#;
                (frame(ERROR, 1, text.as_bytes()), 1)
            }
            "too-much-output" => (frame(STDOUT, 1, &[b'x'; BIG]), 64),
            "many-pongs" => (frame(PONG, 1, &[0; BIG]), 2_000),
            "many-unknown-frames" => (frame(200, 1, &[0; BIG]), 2_000),
            "many-empty-frames" => (frame(STDOUT, 1, b"").repeat(4096), 200),
            "silence" => (Vec::new(), 1),
            other => return Err(format!("no words {other:?}")),
        })
    }
}

#[cfg(target_arch = "x86_64")]
mod tracee {
    use crate::sys;

    /// The agent's connection to the gateway.
    const CONNECTION: u64 = 3;

    /// A process that is traced and stopped.
    pub(super) struct Tracee {
        pid: libc::pid_t,
        saved: libc::user_regs_struct,
        /// Where its text has the instruction `syscall`.
        gate: u64,
        /// Memory of its own for what it shall say, and how much.
        place: Option<(u64, u64)>,
    }

    fn step(what: &str) -> impl FnOnce(i32) -> String + '_ {
        move |errno| format!("{what}: {}", sys::errno_name(errno))
    }

    fn request(kind: libc::c_uint, pid: libc::pid_t, data: usize) -> Result<(), i32> {
        // SAFETY: callers pass data that the request asks for, which lives until the call returns.
        let result = unsafe { libc::ptrace(kind, pid, std::ptr::null_mut::<libc::c_void>(), data) };
        if result == -1 { Err(sys::errno()) } else { Ok(()) }
    }

    impl Tracee {
        pub(super) fn attach(pid: libc::pid_t) -> Result<Self, String> {
            request(libc::PTRACE_ATTACH, pid, 0).map_err(step("attach"))?;
            sys::wait(pid).map_err(step("wait for the stop"))?;
            let mut tracee = Self { pid, saved: registers(pid)?, gate: 0, place: None };
            tracee.gate = tracee.find_gate()?;
            Ok(tracee)
        }

        fn find_gate(&self) -> Result<u64, String> {
            use std::os::unix::fs::FileExt as _;
            let maps = sys::read_text(&format!("/proc/{}/maps", self.pid)).map_err(step("maps"))?;
            let memory =
                std::fs::File::open(format!("/proc/{}/mem", self.pid)).map_err(|error| error.to_string())?;
            for line in maps.lines().filter(|line| line.contains("r-xp") && !line.contains("[v")) {
                let range = line.split(' ').next().and_then(|range| range.split_once('-'));
                let Some((start, end)) = range else { continue };
                let hex = |text| u64::from_str_radix(text, 16).unwrap_or(0);
                let mut text = vec![0; usize::try_from(hex(end) - hex(start)).unwrap_or(0)];
                memory.read_exact_at(&mut text, hex(start)).map_err(|error| error.to_string())?;
                if let Some(at) = text.windows(2).position(|two| two == [0x0f, 0x05]) {
                    return Ok(hex(start) + at as u64);
                }
            }
            Err("the agent makes no system calls".to_owned())
        }

        /// Has the process make a system call.
        fn call(&self, number: libc::c_long, arguments: [u64; 6]) -> Result<i64, String> {
            let mut registers_then = self.saved;
            registers_then.rip = self.gate;
            registers_then.rax = number.cast_unsigned();
            // It was stopped within a call perhaps; that one must not be begun again now.
            registers_then.orig_rax = u64::MAX;
            [
                registers_then.rdi,
                registers_then.rsi,
                registers_then.rdx,
                registers_then.r10,
                registers_then.r8,
                registers_then.r9,
            ] = arguments;
            request(libc::PTRACE_SETREGS, self.pid, (&raw const registers_then).addr())
                .map_err(step("set registers"))?;
            request(libc::PTRACE_SINGLESTEP, self.pid, 0).map_err(step("step"))?;
            let status = sys::wait(self.pid).map_err(step("wait for a step"))?;
            if !libc::WIFSTOPPED(status) {
                return Err(format!("it ended: {status:#x}"));
            }
            Ok(registers(self.pid)?.rax.cast_signed())
        }

        /// Has it write `bytes` to the gateway.
        pub(super) fn say(&mut self, bytes: &[u8]) -> Result<(), String> {
            let length = bytes.len() as u64;
            let at = match self.place {
                Some((at, room)) if room >= length => at,
                _ => {
                    let (readable, private) =
                        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
                    let arguments = [0, length.max(1), readable as u64, private as u64, u64::MAX, 0];
                    let at = self.call(libc::SYS_mmap, arguments)?;
                    let at = u64::try_from(at).map_err(|_| format!("mmap gave {at}"))?;
                    self.place = Some((at, length));
                    at
                }
            };
            self.write_memory(at, bytes)?;
            let mut said = 0;
            while said < length {
                match self.call(libc::SYS_write, [CONNECTION, at + said, length - said, 0, 0, 0])? {
                    written @ 1.. => said += written.cast_unsigned(),
                    // Its socket does not block.
                    again if again == -i64::from(libc::EAGAIN) => super::pause_ms(1),
                    // The gateway has heard enough.
                    error if error == -i64::from(libc::EPIPE) || error == -i64::from(libc::ECONNRESET) => {
                        return Ok(());
                    }
                    error => return Err(format!("write gave {error}")),
                }
            }
            Ok(())
        }

        fn write_memory(&self, at: u64, bytes: &[u8]) -> Result<(), String> {
            if bytes.is_empty() {
                return Ok(());
            }
            let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            let there = std::ptr::without_provenance_mut(usize::try_from(at).unwrap_or(0));
            let remote = libc::iovec { iov_base: there, iov_len: bytes.len() };
            // SAFETY: the local buffer is only read; the remote one is the kernel's to check.
            let written =
                unsafe { libc::process_vm_writev(self.pid, &raw const local, 1, &raw const remote, 1, 0) };
            if usize::try_from(written) == Ok(bytes.len()) {
                Ok(())
            } else {
                Err(step("write memory")(sys::errno()))
            }
        }

        /// Lets it go on as if nothing had been, or leaves it stopped.
        pub(super) fn let_go(self, stopped: bool) -> Result<(), String> {
            request(libc::PTRACE_SETREGS, self.pid, (&raw const self.saved).addr())
                .map_err(step("set registers"))?;
            let signal = if stopped { libc::SIGSTOP } else { 0 };
            request(libc::PTRACE_DETACH, self.pid, signal as usize).map_err(step("detach"))
        }
    }

    fn registers(pid: libc::pid_t) -> Result<libc::user_regs_struct, String> {
        // SAFETY: the structure holds integers only, for which all-zero is valid.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        request(libc::PTRACE_GETREGS, pid, (&raw mut registers).addr()).map_err(step("get registers"))?;
        Ok(registers)
    }
}
