//! What an engine says while it fetches an image, less what says nothing new: it tells of each layer many times a second.
//! No I/O.

use std::collections::HashMap;

use bollard::models::CreateImageInfo;

/// Into how many parts the bytes of a layer are taken.
const PARTS: u64 = 10;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The layer by its short name, or the tag; none where it is about the whole.
    pub(super) layer: Option<String>,
    /// What is being done, in the engine's words.
    pub(super) status: String,
    pub(super) done_bytes: Option<u64>,
    pub(super) total_bytes: Option<u64>,
}

/// What was said of each layer last: the status, and how many parts had come.
#[derive(Debug, Default)]
pub(super) struct Steps(HashMap<Option<String>, (String, Option<u64>)>);

impl Steps {
    /// The step, where it is a new one: another status, or a further tenth of the bytes.
    pub(super) fn next(&mut self, said: CreateImageInfo) -> Option<Step> {
        let CreateImageInfo { id: layer, status, progress_detail, .. } = said;
        let status = status?;
        let bytes = |number: Option<i64>| number.and_then(|bytes| u64::try_from(bytes).ok());
        let (done_bytes, total_bytes) = progress_detail.map_or((None, None), |detail| {
            (bytes(detail.current), bytes(detail.total).filter(|all| *all > 0))
        });
        let part = done_bytes
            .zip(total_bytes)
            .map(|(done, all)| done.saturating_mul(PARTS).checked_div(all).unwrap_or(0));
        let now = (status.clone(), part);
        let before = self.0.insert(layer.clone(), now.clone());
        (before.as_ref() != Some(&now)).then_some(Step { layer, status, done_bytes, total_bytes })
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::{CreateImageInfo, ProgressDetail};

    use super::Steps;

    fn said(layer: &str, status: &str, current: Option<i64>, total: Option<i64>) -> CreateImageInfo {
        CreateImageInfo {
            id: Some(layer.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: Some(ProgressDetail { current, total }),
            ..CreateImageInfo::default()
        }
    }

    #[test]
    fn each_status_is_a_step_and_each_tenth_of_a_layer() {
        let mut steps = Steps::default();
        let mut count = 0;
        let mut all =
            vec![said("a", "Pulling fs layer", None, None), said("b", "Pulling fs layer", None, None)];
        all.extend((0..=1000).map(|bytes| said("a", "Downloading", Some(bytes), Some(1000))));
        all.extend((0..100).map(|_| said("b", "Waiting", None, None)));
        all.push(said("a", "Pull complete", None, None));
        for said in all {
            count += usize::from(steps.next(said).is_some());
        }
        assert_eq!(count, 2 + 11 + 1 + 1);
        let last = steps.next(said("b", "Downloading", Some(5), Some(-1))).unwrap();
        assert_eq!((last.layer.as_deref(), last.done_bytes, last.total_bytes), (Some("b"), Some(5), None));
        assert_eq!(steps.next(CreateImageInfo::default()), None);
    }
}
