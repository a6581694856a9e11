//! The agent's socket, reached through the container's root directory.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::guest::{AgentStream, connect};
use crate::sandbox::SandboxError;

/// How long an agent may take until its socket is there. It takes some milliseconds on an idle machine.
const AGENT_WITHIN: Duration = Duration::from_secs(20);

/// A container's first process.
#[derive(Debug)]
pub(in crate::docker) struct Init {
    pid: u32,
    pidfd: OwnedFd,
    /// The text of its `/proc/PID/cgroup` (cgroups(7)).
    pub(in crate::docker) cgroups: String,
}

/// Why a process is not the container's.
#[derive(Debug, thiserror::Error)]
pub(in crate::docker) enum InitError {
    #[error("its first process has ended already")]
    Ended,
    #[error(
        "the engine says that its first process is {pid}, which is none of its container's here: the engine is not \
         this host's; set docker_transport to `attach`"
    )]
    Elsewhere { pid: u32 },
    #[error("its first process cannot be looked at: {0}")]
    Io(#[from] std::io::Error),
}

impl Init {
    /// Takes hold of the process with this PID, and makes sure that it is one of the container's: a PID that the engine
    /// told may have become somebody else's since. The pidfd is opened first; while it says that its process lives,
    /// whatever was read of that PID in between was read of that process.
    pub(in crate::docker) fn open(pid: u32, container: &str) -> Result<Self, InitError> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(InitError::Ended)?;
        let pidfd = match rustix::process::pidfd_open(number, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Err(InitError::Ended),
            Err(error) => return Err(InitError::Io(error.into())),
        };
        let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
        let init = Self { pid, pidfd, cgroups: String::new() };
        if init.has_ended()? {
            return Err(InitError::Ended);
        }
        let cgroups = cgroups?;
        // The engine's cgroups for a container bear its id, whatever drives them.
        if !cgroups.contains(container) {
            return Err(InitError::Elsewhere { pid });
        }
        Ok(Self { cgroups, ..init })
    }

    /// Whether it has ended, and all of the container's processes with it.
    pub(in crate::docker) fn has_ended(&self) -> std::io::Result<bool> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN)];
        Ok(rustix::event::poll(&mut fds, Some(&now))? > 0)
    }

    /// Resolves when it has ended. Holds nothing of it but a descriptor of its own.
    pub(in crate::docker) fn end(
        &self,
    ) -> std::io::Result<impl Future<Output = std::io::Result<()>> + Send + 'static> {
        let pidfd = self.pidfd.try_clone()?;
        Ok(async move {
            // Readable from the end on (pidfd_open(2)).
            // SAFETY: an `OwnedFd` is open and the same for as long as it lives, and `AsyncFd` owns it.
            let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }
                .map_err(|error| error.into_parts().1)?;
            pidfd.readable().await.map(drop)
        })
    }

    /// Bytes that came in and went out over its network, loopback aside; none when it has ended.
    pub(in crate::docker) fn network(&self) -> Option<(u64, u64)> {
        let text = std::fs::read_to_string(format!("/proc/{}/net/dev", self.pid)).ok()?;
        // As in `open`: while it lives this was read of it.
        (!self.has_ended().ok()?).then(|| traffic(&text))
    }

    /// Connects to the agent, which may not have bound its socket yet.
    pub(in crate::docker) async fn connect(&self) -> Result<AgentStream, SandboxError> {
        connect::reach(self.pid, AGENT_WITHIN, || self.has_ended()).await
    }
}

/// The bytes of all devices but loopback (proc_pid_net(5), `/proc/net/dev`): after two lines of headings, a name and
/// sixteen numbers, of which the first is received bytes and the ninth sent ones.
fn traffic(text: &str) -> (u64, u64) {
    let devices = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    devices.filter(|(name, _)| name.trim() != "lo").fold((0, 0), |(received, sent), (_, numbers)| {
        let mut numbers = numbers.split_whitespace().map(|number| number.parse::<u64>().unwrap_or(0));
        let (more_received, more_sent) = (numbers.next().unwrap_or(0), numbers.nth(7).unwrap_or(0));
        (received.saturating_add(more_received), sent.saturating_add(more_sent))
    })
}

#[cfg(test)]
mod tests {
    use super::{Init, InitError, traffic};

    #[test]
    fn traffic_is_that_of_all_devices_but_loopback() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets |bytes packets\n    \
                    lo:  100 1 0 0 0 0 0 0  100 1 0 0 0 0 0 0\n  \
                    eth0: 5 1 0 0 0 0 0 0 70 2 0 0 0 0 0 0\neth1:6 1 0 0 0 0 0 0 8 2 0 0 0 0 0 0\n";
        assert_eq!(traffic(text), (11, 78));
        assert_eq!(traffic(""), (0, 0));
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_told_once_it_has_come() {
        let mut child = std::process::Command::new("sleep").arg("3600").spawn().unwrap();
        // Its cgroup's name takes the place of a container's id.
        let init = Init::open(child.id(), "").unwrap();
        let mut end = Box::pin(init.end().unwrap());
        assert!(futures_util::poll!(&mut end).is_pending());
        assert!(init.network().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        end.await.unwrap();
        assert_eq!(init.network(), None);
    }

    #[test]
    fn a_process_of_somebody_else_is_not_taken_for_the_containers() {
        let own = std::process::id();
        assert!(matches!(Init::open(own, &"f".repeat(64)), Err(InitError::Elsewhere { .. })));
    }

    #[test]
    fn a_process_that_is_gone_is_known_as_ended() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(matches!(Init::open(pid, ""), Err(InitError::Ended)));
    }
}
