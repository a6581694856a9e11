//! Instances whose time is over, and what has to be tried again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use faas_types::{InstanceId, OnTimeout, TenantId};

use super::Instances;
use super::data::{InstanceInfo, now_ms};
use super::live::{ACTIVE_STEP_MS, Live};
use super::remove::AGAIN;
use crate::error::EngineError;
use crate::state::InstanceState;

/// How often the clock is looked at.
const STEP: Duration = Duration::from_millis(250);

/// Times to be changed, counted from now; what is not given stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeChange {
    /// How long it is still there, or without a limit.
    pub ttl_ms: Option<Option<u64>>,
    /// How long it may be idle, or without a limit.
    pub idle_timeout_ms: Option<Option<u64>>,
}

impl Instances {
    /// Gives an instance other times, from now on.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn set_times(
        &self,
        tenant: &TenantId,
        id: &InstanceId,
        change: TimeChange,
    ) -> Result<InstanceInfo, EngineError> {
        let (this, live) = (self.clone(), self.live(tenant, id)?);
        self.to_its_end(async move {
            let _turn = live.turn.lock().await;
            live.touch();
            let mut info = live.info();
            if info.state == InstanceState::Deleting || live.doomed.is_cancelled() {
                return Err(EngineError::NotFound { what: format!("instance {}", info.id) });
            }
            if let Some(ttl_ms) = change.ttl_ms {
                info.times.ttl_ms = ttl_ms;
                info.ttl_ends_at_ms = ttl_ms.map(|ttl| now_ms().saturating_add(ttl));
            }
            if let Some(idle_timeout_ms) = change.idle_timeout_ms {
                info.times.idle_timeout_ms = idle_timeout_ms;
            }
            this.write(&live, info).await?;
            Ok(live.info())
        })
        .await
    }

    /// Acts on times that are over, and tries again what could not be done, until the engine closes.
    pub(in crate::engine) async fn keep_time(self) {
        let mut again = tokio::time::Instant::now() + AGAIN;
        while !self.inner.is_closed() {
            tokio::time::sleep(STEP).await;
            let retry = tokio::time::Instant::now() >= again;
            if retry {
                again = tokio::time::Instant::now() + AGAIN;
            }
            let now = now_ms();
            for live in self.inner.instances.all() {
                self.look(&live, now, retry);
            }
        }
    }

    fn look(&self, live: &Arc<Live>, now: u64, retry: bool) {
        // Somebody is at it: then it is looked at the next time.
        let Ok(turn) = live.turn.try_lock() else { return };
        drop(turn);
        let seen = live.glance();
        if retry && (seen.state == InstanceState::Deleting || live.doomed.is_cancelled()) {
            return self.remove_soon(live);
        }
        // Nobody is at it, so whoever was has failed: the store could not be written to, for example.
        if retry
            && (seen.state == InstanceState::Stopping || seen.state == InstanceState::Creating && seen.born)
        {
            live.lose_sight();
        }
        if live.unseen.load(Ordering::Acquire) {
            if retry {
                let (this, live) = (self.clone(), Arc::clone(live));
                self.inner.background.spawn(async move { this.find(&live).await });
            }
            return;
        }
        if seen.expires_at_ms.is_some_and(|expires| expires <= now) {
            if !live.expiring.swap(true, Ordering::AcqRel) {
                let (this, live) = (self.clone(), Arc::clone(live));
                self.inner.background.spawn(async move {
                    if !this.expire(&live).await {
                        tokio::time::sleep(AGAIN).await;
                    }
                    live.expiring.store(false, Ordering::Release);
                });
            }
            return;
        }
        if retry && seen.state == InstanceState::Running && seen.unwritten_ms > ACTIVE_STEP_MS {
            let (this, live) = (self.clone(), Arc::clone(live));
            self.inner.background.spawn(async move {
                let _turn = live.turn.lock().await;
                let info = live.info();
                if info.state == InstanceState::Running
                    && let Err(error) = this.write(&live, info).await
                {
                    tracing::warn!(%error, "the time of an instance's last use could not be written");
                }
            });
        }
    }

    /// Does what the end of an instance's time leads to; whether that was done.
    async fn expire(&self, live: &Arc<Live>) -> bool {
        let done = self.expire_if_over(live).await;
        if let Err(error) = &done {
            tracing::warn!(instance = %live.info().id, %error, "what the end of its time leads to could not be done");
        }
        done.is_ok()
    }

    async fn expire_if_over(&self, live: &Arc<Live>) -> Result<(), EngineError> {
        let turn = live.turn.lock().await;
        // Until now it may have been used, or given another time.
        let info = live.info();
        let is_over = |ends: Option<u64>| ends.is_some_and(|ends| ends <= now_ms());
        if !is_over(info.expires_at_ms()) {
            return Ok(());
        }
        let by_ttl = is_over(info.ttl_ends_at_ms);
        let what = if by_ttl { "its ttl is over" } else { "it was idle for too long" };
        tracing::info!(instance = %info.id, what, then = ?info.times.on_timeout, "an instance's time is over");
        match info.times.on_timeout {
            OnTimeout::Pause if info.state == InstanceState::Running => {
                self.pause_live(live, Some(what.to_owned())).await?;
                // Whoever began to use it meanwhile has seen that it runs, or sees that it is paused.
                if !by_ttl && live.is_in_use() {
                    self.wake_up(live).await?;
                }
                Ok(())
            }
            OnTimeout::Pause => Ok(()),
            OnTimeout::Delete => {
                live.doomed.cancel();
                drop(turn);
                self.remove(live).await
            }
        }
    }
}
