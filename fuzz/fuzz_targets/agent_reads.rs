//! Whatever a gateway sends: the agent's side of the decoder and of the control payloads.
#![no_main]

use faas_guest_protocol::lasting::{Attach, Credit, List};
use faas_guest_protocol::{ExecRequest, ExecSignal, FrameKind, MAX_REQUEST_PAYLOAD, TtySize};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    for frame in faas_fuzz::decode(input, MAX_REQUEST_PAYLOAD) {
        match FrameKind::from_byte(frame.kind) {
            Some(FrameKind::Exec) => faas_fuzz::control::<ExecRequest>(&frame.payload),
            Some(FrameKind::Signal) => faas_fuzz::control::<ExecSignal>(&frame.payload),
            Some(FrameKind::Attach) => faas_fuzz::control::<Attach>(&frame.payload),
            Some(FrameKind::Credit) => faas_fuzz::control::<Credit>(&frame.payload),
            Some(FrameKind::List) => faas_fuzz::control::<List>(&frame.payload),
            Some(FrameKind::Resize) => faas_fuzz::control::<TtySize>(&frame.payload),
            _ => {}
        }
    }
});
