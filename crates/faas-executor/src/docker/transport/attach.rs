//! A container's standard input and output as a stream to its agent.
//!
//! The engine puts what the container writes to standard output and to standard error into frames of its own, one
//! after the other (Engine API, "Attach to a container"); bollard takes them apart. Standard error is nobody's: the
//! agent says nothing there.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bollard::container::{AttachContainerResults, LogOutput};
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>;

/// An attached container.
pub(in crate::docker) struct Attached {
    // Streams are not Sync, and nobody but the owner polls them.
    output: std::sync::Mutex<Output>,
    input: std::sync::Mutex<Pin<Box<dyn AsyncWrite + Send>>>,
    /// What was read from the engine and not yet by the owner.
    rest: Vec<u8>,
    taken: usize,
}

impl Attached {
    pub(in crate::docker) fn new(attached: AttachContainerResults) -> Self {
        let (output, input) = (attached.output.into(), attached.input.into());
        Self { output, input, rest: Vec::new(), taken: 0 }
    }

    fn input(&mut self) -> Pin<&mut (dyn AsyncWrite + Send)> {
        self.input.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).as_mut()
    }
}

impl AsyncRead for Attached {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.taken == this.rest.len() {
            let output = this.output.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
            match ready!(output.as_mut().poll_next(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(LogOutput::StdOut { message })) => {
                    this.rest.clear();
                    this.rest.extend_from_slice(&message);
                    this.taken = 0;
                }
                Some(Ok(LogOutput::StdErr { .. } | LogOutput::StdIn { .. })) => {}
                Some(Ok(LogOutput::Console { .. })) => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the engine sends the container's output without frames",
                    )));
                }
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let rest = this.rest.get(this.taken..).unwrap_or_default();
        let part = rest.get(..rest.len().min(buf.remaining())).unwrap_or_default();
        buf.put_slice(part);
        this.taken += part.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Attached {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.input().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use bollard::container::{AttachContainerResults, LogOutput};
    use futures_util::stream;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::Attached;

    fn attached(messages: Vec<LogOutput>) -> (Attached, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(64);
        let output = stream::iter(messages.into_iter().map(Ok));
        (Attached::new(AttachContainerResults { output: Box::pin(output), input: Box::pin(near) }), far)
    }

    fn out(text: &'static str) -> LogOutput {
        LogOutput::StdOut { message: text.into() }
    }

    #[tokio::test]
    async fn standard_output_is_read_whole_and_standard_error_is_not() {
        let noise = LogOutput::StdErr { message: "noise".into() };
        let (mut stream, _far) = attached(vec![out("ab"), noise, out(""), out("cde")]);
        let mut two = [0u8; 2];
        stream.read_exact(&mut two[..1]).await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!((two[0], rest.as_str()), (b'a', "bcde"));
    }

    #[tokio::test]
    async fn output_without_frames_is_an_error() {
        let (mut stream, _far) = attached(vec![LogOutput::Console { message: "x".into() }]);
        assert!(stream.read_u8().await.is_err());
    }

    #[tokio::test]
    async fn what_is_written_goes_to_standard_input() {
        let (mut stream, mut far) = attached(vec![]);
        stream.write_all(b"order").await.unwrap();
        stream.flush().await.unwrap();
        let mut order = [0u8; 5];
        far.read_exact(&mut order).await.unwrap();
        assert_eq!(&order, b"order");
    }
}
