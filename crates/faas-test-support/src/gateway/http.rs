//! A blocking HTTP/1.1 client for one server on loopback: one request, one connection, the answer read to its end.
//! No redirects, no pool, no TLS.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long nothing may arrive before a request counts as failed. Far above every timeout that a test asks for.
const SILENCE: Duration = Duration::from_secs(180);

/// The largest answer that is read.
const MAX_ANSWER_BYTES: u64 = 256 << 20;

/// What the server said.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names in lower case, in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// The body, without the framing of the connection.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header of that name, given in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("an answer {} that is no JSON ({error}): {}", self.status, self.text())
        })
    }

    /// The member `code` of an error answer; empty where there is none.
    #[must_use]
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The body of a 200 as JSON.
    ///
    /// # Panics
    /// When the status is another.
    #[must_use]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }
}

/// A client of one server.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    address: SocketAddr,
}

impl Client {
    /// A client of the server at `address`.
    #[must_use]
    pub const fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Where the server is.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends one request and reads its answer.
    ///
    /// # Errors
    /// When the connection fails, stays silent, or carries no HTTP.
    pub fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        stream.write_all(head.as_bytes())?;
        // A server that refuses a body need not read it to the end, and has answered all the same.
        let sent = stream.write_all(body);
        let mut bytes = Vec::new();
        match (stream.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes), sent) {
            (Ok(_), _) if !bytes.is_empty() => {}
            (Ok(_), Err(error)) | (Err(error), _) if bytes.is_empty() => return Err(error),
            _ => {}
        }
        parse(&bytes)
    }

    /// As [`Self::try_request`].
    ///
    /// # Panics
    /// Where that has an error.
    #[must_use]
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_request(method, path, headers, body)
            .unwrap_or_else(|error| panic!("{method} {path} at {}: {error}", self.address))
    }

    /// `GET`.
    ///
    /// # Panics
    /// As [`Self::request`].
    #[must_use]
    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], &[])
    }

    /// `POST /api/v1/execute`.
    ///
    /// # Panics
    /// As [`Self::request`].
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "called with json!({..}) written in place")]
    pub fn execute(&self, request: Value) -> Answer {
        let headers = [("content-type", "application/json")];
        self.request("POST", "/api/v1/execute", &headers, request.to_string().as_bytes())
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn parse(bytes: &[u8]) -> io::Result<Answer> {
    let end = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .ok_or_else(|| bad("an answer without a head"))?;
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| bad("a head that is no text"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| bad("an answer without a status"))?;
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut answer = Answer { status, headers, body: bytes[end + 4..].to_vec() };
    if let Some(length) = answer.header("content-length") {
        let length: usize = length.parse().map_err(|_| bad("a length that is no number"))?;
        if answer.body.len() != length {
            return Err(bad(&format!("{} of {length} bytes of a body", answer.body.len())));
        }
    } else if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = unchunk(&answer.body)?;
    }
    Ok(answer)
}

fn unchunk(mut rest: &[u8]) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end =
            rest.windows(2).position(|two| two == b"\r\n").ok_or_else(|| bad("a chunk without a size"))?;
        let size = std::str::from_utf8(&rest[..end]).ok().and_then(|line| line.split(';').next());
        let size = size.and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
        let size = size.ok_or_else(|| bad("a chunk without a size"))?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(rest.get(..size).ok_or_else(|| bad("a chunk that is cut off"))?);
        rest = rest.get(size + 2..).ok_or_else(|| bad("a chunk that is cut off"))?;
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_body_is_taken_by_its_length_or_in_chunks() {
        let plain = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(parse(plain).unwrap().body, b"hi");
        let chunked = b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nb;x=y\r\nhello world\r\n0\r\n\r\n";
        let answer = parse(chunked).unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (404, "hihello world"));
    }

    #[test]
    fn an_answer_that_is_cut_off_is_an_error() {
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhi").is_err());
        assert!(parse(b"HTTP/1.1 200").is_err());
    }
}
