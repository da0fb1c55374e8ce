//! One plain HTTP request, as a probe or a scraper sends it.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The status code and the body of a page.
#[derive(Debug)]
pub struct Page {
    /// Such as 200.
    pub status: u16,
    /// All of it.
    pub body: String,
}

/// Gets a page.
///
/// # Errors
/// Where there is no answer, or it is no HTTP.
pub fn get(address: &str, path: &str) -> io::Result<Page> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let address: SocketAddr = address.parse().map_err(|_| wrong("the address is none"))?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| wrong("there is no end of the headers"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Page { status: status.ok_or_else(|| wrong("there is no status"))?, body: body.to_owned() })
}

/// The value of a sample without labels on a page of metrics.
#[must_use]
pub fn metric(page: &str, name: &str) -> Option<f64> {
    let sample = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    sample.and_then(|value| value.trim().parse().ok())
}
