//! Compiles rules to classic BPF.

use libc::sock_filter;

/// What happens to a syscall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// It is carried out.
    Allow,
    /// It fails with this errno.
    Errno(i32),
    /// It is carried out when its first argument, as 32 bits, is one of these; otherwise it fails with EPERM.
    AllowIfArg0(&'static [u32]),
    /// It is carried out when its first argument has none of these bits; otherwise it fails with EPERM.
    AllowIfArg0Lacks(u32),
}

/// A whole policy: an action for every number, in ascending ranges that begin at 0.
#[derive(Debug)]
pub(super) struct Rules {
    /// `AUDIT_ARCH_*` of the only architecture whose calls are looked at. A call of any other ends the process.
    pub(super) arch: u32,
    /// The first number of each range with its action; it holds up to the next entry.
    pub(super) ranges: Vec<(u32, Action)>,
}

/// A compiled filter.
#[derive(Debug, Clone)]
pub(crate) struct Program(Vec<sock_filter>);

impl Program {
    /// Its instructions.
    pub(crate) fn instructions(&self) -> &[sock_filter] {
        &self.0
    }
}

// Offsets into `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARG0_LOW: u32 = 16;

const fn op(code: u32, k: u32) -> sock_filter {
    #[expect(clippy::cast_possible_truncation, reason = "BPF opcodes are 16 bits wide")]
    let code = code as u16;
    sock_filter { code, jt: 0, jf: 0, k }
}

fn load(offset: u32) -> sock_filter {
    op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn ret(value: u32) -> sock_filter {
    op(libc::BPF_RET | libc::BPF_K, value)
}

fn ret_errno(errno: i32) -> sock_filter {
    ret(libc::SECCOMP_RET_ERRNO | errno.unsigned_abs())
}

fn jump(kind: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { jt, jf, ..op(libc::BPF_JMP | kind | libc::BPF_K, k) }
}

pub(super) fn compile(rules: &Rules) -> Program {
    let mut out = vec![
        load(ARCH),
        jump(libc::BPF_JEQ, rules.arch, 1, 0),
        ret(libc::SECCOMP_RET_KILL_PROCESS),
        load(NR),
    ];
    search(&rules.ranges, &mut out);
    Program(out)
}

/// Emits the code that finds the range of the number in the accumulator and acts on it.
fn search(ranges: &[(u32, Action)], out: &mut Vec<sock_filter>) {
    let [(_, action)] = ranges else {
        let (low, high) = ranges.split_at(ranges.len() / 2);
        let mut low_code = Vec::new();
        search(low, &mut low_code);
        // At or above `high`'s first number: over an unconditional jump, whose reach is 32 bits, and the low half.
        if let Ok(reach) = u8::try_from(low_code.len()) {
            out.push(jump(libc::BPF_JGE, high[0].0, reach, 0));
        } else {
            let reach = u32::try_from(low_code.len()).expect("a filter has at most 4096 instructions");
            out.push(jump(libc::BPF_JGE, high[0].0, 0, 1));
            out.push(op(libc::BPF_JMP | libc::BPF_JA, reach));
        }
        out.append(&mut low_code);
        search(high, out);
        return;
    };
    match *action {
        Action::Allow => out.push(ret(libc::SECCOMP_RET_ALLOW)),
        Action::Errno(errno) => out.push(ret_errno(errno)),
        Action::AllowIfArg0(values) => arg0_among(values, out),
        Action::AllowIfArg0Lacks(bits) => out.extend([
            load(ARG0_LOW),
            jump(libc::BPF_JSET, bits, 0, 1),
            ret_errno(libc::EPERM),
            ret(libc::SECCOMP_RET_ALLOW),
        ]),
    }
}

fn arg0_among(values: &[u32], out: &mut Vec<sock_filter>) {
    out.push(load(ARG0_LOW));
    for (index, value) in values.iter().enumerate() {
        let after = u8::try_from(values.len() - 1 - index).expect("a rule names few values");
        out.push(jump(libc::BPF_JEQ, *value, after + 1, 0));
    }
    out.extend([ret_errno(libc::EPERM), ret(libc::SECCOMP_RET_ALLOW)]);
}

#[cfg(test)]
mod tests {
    use super::{Action, Program, Rules, compile};

    const ARCH: u32 = 7;

    /// Runs the program as the kernel does.
    fn run(program: &Program, arch: u32, nr: u32, arg0: u64) -> u32 {
        let code = program.instructions();
        let mut data = [0u8; 64];
        data[0..4].copy_from_slice(&nr.to_ne_bytes());
        data[4..8].copy_from_slice(&arch.to_ne_bytes());
        data[16..24].copy_from_slice(&arg0.to_ne_bytes());
        let (mut pc, mut acc) = (0usize, 0u32);
        loop {
            let i = &code[pc];
            pc += 1;
            let class = u32::from(i.code) & 0x07;
            match class {
                libc::BPF_LD => {
                    let at = i.k as usize;
                    acc = u32::from_ne_bytes(data[at..at + 4].try_into().unwrap());
                }
                libc::BPF_RET => return i.k,
                libc::BPF_JMP => {
                    let taken = match u32::from(i.code) & 0xf0 {
                        libc::BPF_JA => {
                            pc += i.k as usize;
                            continue;
                        }
                        libc::BPF_JEQ => acc == i.k,
                        libc::BPF_JGE => acc >= i.k,
                        libc::BPF_JSET => acc & i.k != 0,
                        other => panic!("jump {other:#x}"),
                    };
                    pc += usize::from(if taken { i.jt } else { i.jf });
                }
                other => panic!("class {other}"),
            }
        }
    }

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

    #[test]
    fn every_number_meets_the_action_of_its_range() {
        // More ranges than a conditional jump reaches over.
        let ranges: Vec<_> = (0..600)
            .map(|n| (n * 3, if n % 2 == 0 { Action::Allow } else { Action::Errno(libc::EPERM) }))
            .collect();
        let program = compile(&Rules { arch: ARCH, ranges });
        for nr in 0..1900 {
            let expected = if (nr / 3).min(599) % 2 == 0 { ALLOW } else { EPERM };
            assert_eq!(run(&program, ARCH, nr, 0), expected, "syscall {nr}");
        }
    }

    #[test]
    fn a_call_of_another_architecture_ends_the_process() {
        let program = compile(&Rules { arch: ARCH, ranges: vec![(0, Action::Allow)] });
        assert_eq!(run(&program, ARCH + 1, 0, 0), libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn arguments_are_compared_as_the_rule_says() {
        let program = compile(&Rules {
            arch: ARCH,
            ranges: vec![
                (0, Action::Allow),
                (1, Action::AllowIfArg0(&[0, 8, 0xffff_ffff])),
                (2, Action::AllowIfArg0Lacks(0x7e02_0000)),
            ],
        });
        assert_eq!(run(&program, ARCH, 1, 8 | 1 << 40), ALLOW, "the kernel looks at 32 bits of an int");
        assert_eq!(run(&program, ARCH, 1, 0xffff_ffff), ALLOW);
        assert_eq!(run(&program, ARCH, 1, 7), EPERM);
        assert_eq!(run(&program, ARCH, 2, 0x11), ALLOW);
        assert_eq!(run(&program, ARCH, 2, 0x1000_0011), EPERM);
    }
}
