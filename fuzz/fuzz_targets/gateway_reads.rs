//! Whatever an agent sends: the gateway's side of the decoder and of the control payloads.
#![no_main]

use faas_guest_protocol::lasting::{Attached, Done, Gap, Listed, StdinTaken};
use faas_guest_protocol::{AgentError, ExitReport, FrameKind, Hello, MAX_REPLY_PAYLOAD, Started};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    for frame in faas_fuzz::decode(input, MAX_REPLY_PAYLOAD) {
        match FrameKind::from_byte(frame.kind) {
            Some(FrameKind::Hello) => faas_fuzz::control::<Hello>(&frame.payload),
            Some(FrameKind::Started) => faas_fuzz::control::<Started>(&frame.payload),
            Some(FrameKind::Exit) => faas_fuzz::control::<ExitReport>(&frame.payload),
            Some(FrameKind::Error) => faas_fuzz::control::<AgentError>(&frame.payload),
            Some(FrameKind::Attached) => faas_fuzz::control::<Attached>(&frame.payload),
            Some(FrameKind::Gap) => faas_fuzz::control::<Gap>(&frame.payload),
            Some(FrameKind::Listed) => faas_fuzz::control::<Listed>(&frame.payload),
            Some(FrameKind::Done) => faas_fuzz::control::<Done>(&frame.payload),
            Some(FrameKind::StdinTaken) => faas_fuzz::control::<StdinTaken>(&frame.payload),
            _ => {}
        }
    }
});
