//! An HTTP/1.1 client over one kept connection, small enough not to be what is measured.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::error::BenchError;

/// A connection that is used for one request after the other.
pub(crate) struct Connection {
    stream: TcpStream,
    address: SocketAddr,
    buffer: Vec<u8>,
}

/// An answer's status and body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self, BenchError> {
        let stream = TcpStream::connect(address).map_err(answer)?;
        stream.set_nodelay(true).map_err(answer)?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).map_err(answer)?;
        Ok(Self { stream, address, buffer: Vec::with_capacity(8192) })
    }

    /// A new connection to the same server.
    pub(crate) fn again(&self) -> Result<Self, BenchError> {
        Self::open(self.address)
    }

    /// A whole request, ready to be sent again and again.
    pub(crate) fn request(&self, method: &str, path: &str, json: Option<&str>) -> Vec<u8> {
        let host = self.address;
        match json {
            Some(body) => format!(
                "{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ),
            None => format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"),
        }
        .into_bytes()
    }

    /// Sends a request made by [`Connection::request`] and reads the whole answer.
    pub(crate) fn send(&mut self, request: &[u8]) -> Result<Answer, BenchError> {
        self.stream.write_all(request).map_err(answer)?;
        self.receive()
    }

    /// Sends a tar file as the body of a request and reads the whole answer.
    pub(crate) fn post_file(&mut self, path: &str, file: &Path) -> Result<Answer, BenchError> {
        let mut body = File::open(file).map_err(BenchError::io(file))?;
        let length = body.metadata().map_err(BenchError::io(file))?.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/x-tar\r\ncontent-length: {length}\r\n\r\n",
            self.address
        );
        self.stream.write_all(head.as_bytes()).map_err(answer)?;
        std::io::copy(&mut body, &mut self.stream).map_err(answer)?;
        self.receive()
    }

    fn receive(&mut self) -> Result<Answer, BenchError> {
        self.buffer.clear();
        let head = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            self.fill()?;
        };
        let text = String::from_utf8_lossy(&self.buffer[..head]).into_owned();
        let status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        // An answer without a body has no length either.
        let length = length.or_else(|| (status == Some(204)).then_some(0));
        let (Some(status), Some(length)) = (status, length) else {
            return Err(BenchError::Answer(format!("no status or no content-length in {text:?}")));
        };
        while self.buffer.len() < head + 4 + length {
            self.fill()?;
        }
        Ok(Answer { status, body: self.buffer[head + 4..head + 4 + length].to_vec() })
    }

    fn fill(&mut self) -> Result<(), BenchError> {
        let mut chunk = [0_u8; 8192];
        let read = self.stream.read(&mut chunk).map_err(answer)?;
        if read == 0 {
            return Err(BenchError::Answer("the server closed the connection".to_owned()));
        }
        self.buffer.extend_from_slice(&chunk[..read]);
        Ok(())
    }
}

fn answer(error: std::io::Error) -> BenchError {
    BenchError::Answer(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::Connection;

    #[test]
    fn an_answer_in_pieces_is_read_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut seen = [0; 1024];
            let read = stream.read(&mut seen).unwrap();
            for piece in ["HTTP/1.1 200 OK\r\nConte", "nt-Length: 5\r\n\r\nhe", "llo"] {
                stream.write_all(piece.as_bytes()).unwrap();
                stream.flush().unwrap();
            }
            String::from_utf8_lossy(&seen[..read]).into_owned()
        });
        let mut connection = Connection::open(address).unwrap();
        let request = connection.request("POST", "/x", Some("{}"));
        let answer = connection.send(&request).unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"hello".as_slice()));
        assert!(server.join().unwrap().ends_with("content-length: 2\r\n\r\n{}"));
    }
}
