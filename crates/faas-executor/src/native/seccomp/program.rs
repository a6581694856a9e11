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
    /// socket(2): carried out for these families. Of the last, protocol 0 alone; another fails with EPROTONOSUPPORT.
    Families(&'static [u32], u32),
    /// It fails with this errno when this argument has any of these bits.
    ErrnoIfArgHas {
        /// Which argument, from 0.
        arg: u32,
        /// The bits, of its lower half.
        bits: u32,
        /// See errno(3).
        errno: i32,
    },
    /// It does nothing and gives 0 when its first argument is this.
    #[cfg(target_arch = "x86_64")]
    NothingIfArg0(u32),
    /// It does nothing and gives 0 when its second argument is this and its third is not null.
    NothingIfItSets(u32),
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
const ARG0_LOW: u32 = arg_low(0);
const ARG1_LOW: u32 = arg_low(1);
const ARG2_LOW: u32 = arg_low(2);
const ARG2_HIGH: u32 = arg_low(2) + 4;

/// The lower half of an argument; little-endian.
const fn arg_low(arg: u32) -> u32 {
    16 + 8 * arg
}

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
        Action::Families(families, limited) => {
            out.push(load(ARG0_LOW));
            for (index, family) in families.iter().enumerate() {
                // Over the rest of the list, to the last instruction.
                let after = u8::try_from(families.len() - 1 - index).expect("a rule names few values");
                out.push(jump(libc::BPF_JEQ, *family, after + 5, 0));
            }
            out.extend([
                jump(libc::BPF_JEQ, limited, 0, 3),
                load(ARG2_LOW),
                jump(libc::BPF_JEQ, 0, 2, 0),
                ret_errno(libc::EPROTONOSUPPORT),
                ret_errno(libc::EPERM),
                ret(libc::SECCOMP_RET_ALLOW),
            ]);
        }
        Action::ErrnoIfArgHas { arg, bits, errno } => out.extend([
            load(arg_low(arg)),
            jump(libc::BPF_JSET, bits, 0, 1),
            ret_errno(errno),
            ret(libc::SECCOMP_RET_ALLOW),
        ]),
        Action::AllowIfArg0Lacks(bits) => out.extend([
            load(ARG0_LOW),
            jump(libc::BPF_JSET, bits, 0, 1),
            ret_errno(libc::EPERM),
            ret(libc::SECCOMP_RET_ALLOW),
        ]),
        #[cfg(target_arch = "x86_64")]
        Action::NothingIfArg0(value) => out.extend([
            load(ARG0_LOW),
            jump(libc::BPF_JEQ, value, 0, 1),
            ret_errno(0),
            ret(libc::SECCOMP_RET_ALLOW),
        ]),
        Action::NothingIfItSets(value) => out.extend([
            load(ARG1_LOW),
            jump(libc::BPF_JEQ, value, 0, 5),
            load(ARG2_LOW),
            jump(libc::BPF_JEQ, 0, 0, 2),
            load(ARG2_HIGH),
            jump(libc::BPF_JEQ, 0, 1, 0),
            ret_errno(0),
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
        run_with(program, arch, nr, [arg0, 0, 0, 0])
    }

    fn run_with(program: &Program, arch: u32, nr: u32, args: [u64; 4]) -> u32 {
        let code = program.instructions();
        let mut data = [0u8; 64];
        data[0..4].copy_from_slice(&nr.to_ne_bytes());
        data[4..8].copy_from_slice(&arch.to_ne_bytes());
        for (at, arg) in args.iter().enumerate() {
            data[16 + 8 * at..24 + 8 * at].copy_from_slice(&arg.to_ne_bytes());
        }
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

    #[test]
    fn sockets_are_of_few_families_and_netlink_of_one_protocol() {
        let rules = Rules { arch: ARCH, ranges: vec![(0, Action::Families(&[1, 2, 10], 16))] };
        let program = compile(&rules);
        let socket = |family, protocol| run_with(&program, ARCH, 0, [family, 3, protocol, 0]);
        for family in [1, 2, 10] {
            assert_eq!(socket(family, 6), ALLOW);
        }
        assert_eq!(socket(16, 0), ALLOW);
        assert_eq!(socket(16, 15), errno(libc::EPROTONOSUPPORT));
        for family in [0, 3, 17, 38, 40, 44] {
            assert_eq!(socket(family, 0), EPERM, "{family}");
        }
    }

    fn errno(errno: i32) -> u32 {
        libc::SECCOMP_RET_ERRNO | errno.unsigned_abs()
    }

    #[test]
    fn other_arguments_are_looked_at_too() {
        let huge = Action::ErrnoIfArgHas { arg: 3, bits: 0x4_0000, errno: libc::ENOMEM };
        let rules = Rules { arch: ARCH, ranges: vec![(0, huge), (1, Action::NothingIfItSets(4))] };
        let program = compile(&rules);
        assert_eq!(run_with(&program, ARCH, 0, [0, 0, 0, 0x22]), ALLOW);
        assert_eq!(run_with(&program, ARCH, 0, [0, 0, 0, 0x4_0022]), errno(libc::ENOMEM));
        assert_eq!(run_with(&program, ARCH, 1, [0, 4, 0, 9]), ALLOW, "it only asks");
        assert_eq!(run_with(&program, ARCH, 1, [0, 4, 1 << 32, 0]), errno(0));
        assert_eq!(run_with(&program, ARCH, 1, [0, 4, 8, 0]), errno(0));
        assert_eq!(run_with(&program, ARCH, 1, [0, 7, 8, 0]), ALLOW);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_call_that_shall_do_nothing_gives_0() {
        let rules = Rules { arch: ARCH, ranges: vec![(0, Action::NothingIfArg0(4))] };
        let program = compile(&rules);
        assert_eq!(run(&program, ARCH, 0, 4), errno(0));
        assert_eq!(run(&program, ARCH, 0, 5), ALLOW);
    }
}
