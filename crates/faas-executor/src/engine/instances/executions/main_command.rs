//! The main command of an instance: run when it is created or started, and again as its policy says.

use std::sync::Arc;
use std::time::Duration;

use faas_guest_protocol::Program;
use faas_types::{CommandLine, ExecutionKind, RequestId, RestartPolicy};

use super::super::Instances;
use super::super::exec::ExecSpec;
use super::super::live::Live;
use super::data::{ExecutionInfo, HowEnded, MainRun, MainSpec};
use super::follow::is_settled;
use super::start::{LastingSpec, MayHaveBegun};
use crate::error::EngineError;
use crate::sandbox::ImageDefaults;

/// How long it is waited before it is run again: at first and at most. One that ran for long begins anew.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MOST: Duration = Duration::from_secs(30);
const RAN_FOR_LONG_MS: u64 = 10_000;

/// What is executed.
fn program(spec: &MainSpec, image: &ImageDefaults) -> Result<Program, EngineError> {
    let given = match &spec.command {
        Some(CommandLine::Shell(line)) => {
            if !spec.of_image {
                return Ok(Program::Shell(line.clone()));
            }
            vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()]
        }
        Some(CommandLine::Argv(argv)) => argv.clone(),
        None => image.cmd.clone(),
    };
    if !spec.of_image {
        return Ok(Program::Argv(given));
    }
    let argv: Vec<_> = image.entrypoint.iter().cloned().chain(given).collect();
    if argv.is_empty() { Err(EngineError::NoMainCommand) } else { Ok(Program::Argv(argv)) }
}

/// Whether one that ended so is run again.
fn is_run_again(policy: RestartPolicy, how: &HowEnded) -> bool {
    match how {
        HowEnded::Exit { report, .. } if report.cancelled => false,
        HowEnded::Exit { report, .. } => match policy {
            RestartPolicy::Never => false,
            RestartPolicy::OnFailure => report.code != Some(0),
            RestartPolicy::Always => true,
        },
        // With its sandbox, where there is nothing to run it in; or with its agent, and then it still runs, unseen.
        HowEnded::Lost { .. } | HowEnded::Failed { .. } => false,
    }
}

fn pause(restarts: u32, ran_ms: u64) -> Duration {
    if ran_ms >= RAN_FOR_LONG_MS {
        return PAUSE_FIRST;
    }
    PAUSE_FIRST.saturating_mul(1 << restarts.min(16)).min(PAUSE_MOST)
}

impl Instances {
    /// Runs the main command of an instance that has just come up. Only for who has the turn.
    ///
    /// # Errors
    /// [`EngineError`] where it cannot be started.
    pub(in crate::engine::instances) async fn run_main(
        &self,
        live: &Arc<Live>,
        restarts: u32,
    ) -> Result<(), EngineError> {
        let Some(spec) = live.info().main else { return Ok(()) };
        let image = {
            let place = live.place.read().await;
            let sandbox = place.sandbox.as_ref().ok_or_else(|| super::super::lifecycle::gone(live))?;
            sandbox.image.clone()
        };
        let command = ExecSpec {
            request_id: RequestId(String::new()),
            program: program(&spec, &image)?,
            env: Vec::new(),
            working_dir: None,
            user: None,
            stdin: None,
            files: Vec::new(),
            timeout: Duration::ZERO,
            max_output_bytes: 0,
            labels: std::collections::BTreeMap::new(),
            held: None,
        };
        let lasting = LastingSpec {
            command,
            kind: ExecutionKind::Main,
            timeout: None,
            max_output_bytes: None,
            tty: None,
            stdin_open: false,
            background: true,
            may_have_begun: MayHaveBegun::default(),
        };
        let running = self.begin(live, lasting, restarts).await?;
        live.set_main_run(Some(MainRun { execution: running.info.id.clone(), restarts }));
        Ok(())
    }

    /// Has the main command run again after a while, where its policy wants that.
    pub(super) fn run_main_again(&self, live: &Arc<Live>, last: ExecutionInfo, count: u64) {
        let (Some(spec), Some(end)) = (live.info().main, &last.end) else { return };
        if !is_run_again(spec.restart, &end.how) {
            return;
        }
        let pause = pause(last.restarts, end.at_ms.saturating_sub(last.created_at_ms));
        let (this, live) = (self.clone(), Arc::clone(live));
        self.inner.background.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = this.inner.closed.cancelled() => return,
                () = live.doomed.cancelled() => return,
            }
            let restarts = last.restarts.saturating_add(1);
            let mut pause = pause.max(PAUSE_FIRST);
            loop {
                {
                    let _turn = live.turn.lock().await;
                    if live.place.read().await.count != count || this.inner.is_closed() {
                        return;
                    }
                    if is_settled(&live) {
                        match this.run_main(&live, restarts).await {
                            Ok(()) => return,
                            Err(error) => {
                                tracing::warn!(instance = %live.info().id, %error, "a main command could not be run again");
                                // It may run after all: whoever follows it finds out, and decides the same.
                                if this.inner.executions.has_main(&last.instance) {
                                    return;
                                }
                                pause = (pause * 2).min(PAUSE_MOST);
                            }
                        }
                    } else if !live.info().state.has_sandbox() {
                        return;
                    }
                }
                // Paused, or its agent is just another one.
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = this.inner.closed.cancelled() => return,
                    () = live.doomed.cancelled() => return,
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use faas_guest_protocol::{ExitReport, Program};
    use faas_types::{CommandLine, RestartPolicy};

    use super::{HowEnded, MainSpec, PAUSE_FIRST, PAUSE_MOST, is_run_again, pause, program};
    use crate::sandbox::ImageDefaults;

    fn argv(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn an_images_entrypoint_takes_what_is_given_in_the_place_of_its_arguments() {
        let image =
            ImageDefaults { entrypoint: argv(&["/e"]), cmd: argv(&["a"]), ..ImageDefaults::default() };
        let of = |command: Option<CommandLine>, of_image, image: &ImageDefaults| {
            program(&MainSpec { command, of_image, restart: RestartPolicy::Never }, image)
        };
        assert_eq!(of(None, true, &image).unwrap(), Program::Argv(argv(&["/e", "a"])));
        let given = || Some(CommandLine::Argv(argv(&["b", "c"])));
        assert_eq!(of(given(), true, &image).unwrap(), Program::Argv(argv(&["/e", "b", "c"])));
        assert_eq!(of(given(), false, &image).unwrap(), Program::Argv(argv(&["b", "c"])));
        let line = || Some(CommandLine::Shell("x | y".to_owned()));
        assert_eq!(of(line(), false, &image).unwrap(), Program::Shell("x | y".to_owned()));
        assert_eq!(of(line(), true, &image).unwrap(), Program::Argv(argv(&["/e", "/bin/sh", "-c", "x | y"])));
        assert!(of(None, true, &ImageDefaults::default()).is_err());
    }

    #[test]
    fn it_is_run_again_as_its_policy_says() {
        let exit = |code, cancelled| HowEnded::Exit {
            report: ExitReport { code: Some(code), cancelled, ..ExitReport::default() },
            oom_killed: false,
        };
        for (policy, after_0, after_1) in [
            (RestartPolicy::Never, false, false),
            (RestartPolicy::OnFailure, false, true),
            (RestartPolicy::Always, true, true),
        ] {
            assert_eq!(is_run_again(policy, &exit(0, false)), after_0);
            assert_eq!(is_run_again(policy, &exit(1, false)), after_1);
            assert!(!is_run_again(policy, &exit(137, true)), "somebody wanted its end");
            let lost = HowEnded::Lost { reason: String::new() };
            assert!(!is_run_again(policy, &lost), "it may still run");
        }
    }

    #[test]
    fn one_that_fails_again_and_again_is_waited_for() {
        assert_eq!(pause(0, 0), PAUSE_FIRST);
        assert!(pause(3, 0) > pause(2, 0));
        assert_eq!(pause(u32::MAX, 0), PAUSE_MOST);
        assert_eq!(pause(9, 60_000), PAUSE_FIRST);
    }
}
