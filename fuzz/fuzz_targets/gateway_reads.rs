//! Whatever an agent sends: the gateway's side of the decoder and of the control payloads.
#![no_main]

use faas_guest_protocol::{AgentError, ExitReport, FrameKind, Hello, MAX_REPLY_PAYLOAD, Started};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    for frame in faas_fuzz::decode(input, MAX_REPLY_PAYLOAD) {
        match FrameKind::from_byte(frame.kind) {
            Some(FrameKind::Hello) => faas_fuzz::control::<Hello>(&frame.payload),
            Some(FrameKind::Started) => faas_fuzz::control::<Started>(&frame.payload),
            Some(FrameKind::Exit) => faas_fuzz::control::<ExitReport>(&frame.payload),
            Some(FrameKind::Error) => faas_fuzz::control::<AgentError>(&frame.payload),
            _ => {}
        }
    }
});
