//! `modelring infer`.

use std::{
    io::{IsTerminal, Read},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::args::Seconds;

/// What to ask, and whom.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the model: the name of its InferenceService
    #[arg(value_name = "MODEL")]
    model: String,

    /// File with the request, a KServe v2 JSON body; `-` = standard input
    #[arg(long, value_name = "FILE")]
    input: PathBuf,

    /// Where the proxy serves REST
    #[arg(long, env = "MODELRING_REST_URL", default_value = "http://127.0.0.1:8008", value_name = "URL")]
    rest: Uri,

    /// Print the answer as it came
    #[arg(long)]
    json: bool,

    /// How long to wait, loading included
    #[arg(long, default_value = "5m", value_name = "TIME")]
    timeout: Seconds,
}

/// Sends one request and prints the answer.
pub(crate) async fn run(args: Args) -> Result<()> {
    let body = read(&args.input)?;
    let answer = tokio::time::timeout(args.timeout.0, post(&args.rest, &args.model, body))
        .await
        .with_context(|| format!("no answer within {:?}", args.timeout.0))??;
    let text = String::from_utf8_lossy(&answer.body);
    if answer.status != 200 {
        let said: Option<Value> = serde_json::from_slice(&answer.body).ok();
        let error = said.as_ref().and_then(|said| said["error"].as_str()).unwrap_or(text.trim());
        let reason = answer.reason.map(|reason| format!(", reason {reason}")).unwrap_or_default();
        bail!("{error} (HTTP {}{reason})", answer.status);
    }
    let said = serde_json::from_slice::<Value>(&answer.body).ok().filter(|_| !args.json);
    match said.as_ref().and_then(|said| said["outputs"].as_array()) {
        Some(outputs) => outputs.iter().for_each(|output| print!("{}", show(output))),
        None => println!("{}", text.trim_end()),
    }
    Ok(())
}

struct Answer {
    status: u16,
    reason: Option<String>,
    body: Bytes,
}

fn read(input: &std::path::Path) -> Result<Vec<u8>> {
    if input.as_os_str() == "-" {
        let mut body = Vec::new();
        if std::io::stdin().is_terminal() {
            eprintln!("reading the request from standard input; end it with Ctrl-D");
        }
        std::io::stdin().read_to_end(&mut body).context("standard input cannot be read")?;
        return Ok(body);
    }
    std::fs::read(input).with_context(|| format!("{} cannot be read", input.display()))
}

async fn post(rest: &Uri, model: &str, body: Vec<u8>) -> Result<Answer> {
    let (host, port) = match (rest.scheme_str(), rest.host(), rest.port_u16()) {
        (Some("http") | None, Some(host), port) => (host, port.unwrap_or(80)),
        _ => bail!("--rest {rest} is no address such as http://127.0.0.1:8008"),
    };
    let connect = tokio::net::TcpStream::connect((host.trim_matches(['[', ']']), port));
    let stream = tokio::time::timeout(Duration::from_secs(5), connect)
        .await
        .context("timed out")
        .and_then(|connected| Ok(connected?))
        .with_context(|| format!("no proxy at {host}:{port}; is it running? (--rest URL names another)"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::post(format!("/v2/models/{}/infer", encode(model)))
        .header(header::HOST, format!("{host}:{port}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let answer = sender.send_request(request).await.context("the proxy closed the connection")?;
    let (head, body) = answer.into_parts();
    let reason = head.headers.get("modelring-reason").and_then(|reason| Some(reason.to_str().ok()?.to_owned()));
    let body = body.collect().await.context("the answer broke off")?.to_bytes();
    connection.abort();
    Ok(Answer { status: head.status.as_u16(), reason, body })
}

/// A path segment, with what is not plain percent-encoded.
fn encode(segment: &str) -> String {
    let mut text = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(byte.into());
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// One output: a line with what it is, and its values; the highest of a short row of numbers is marked.
fn show(output: &Value) -> String {
    const MOST: usize = 20;
    let data: Vec<&Value> = output["data"].as_array().map(|data| data.iter().collect()).unwrap_or_default();
    let shape: Vec<String> =
        output["shape"].as_array().into_iter().flatten().map(std::string::ToString::to_string).collect();
    let mut text = format!(
        "{} {} [{}]\n",
        output["name"].as_str().unwrap_or("?"),
        output["datatype"].as_str().unwrap_or("?"),
        shape.join(", ")
    );
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NEG_INFINITY);
    let highest = data
        .iter()
        .enumerate()
        .filter(|(_, value)| value.is_number() && data.len() > 1 && data.len() <= MOST)
        .max_by(|left, right| number(left.1).total_cmp(&number(right.1)))
        .map(|(at, _)| at);
    for (at, value) in data.iter().enumerate().take(MOST) {
        let mark = if Some(at) == highest { "  <- highest" } else { "" };
        text.push_str(&format!("  {at:>3}  {value}{mark}\n"));
    }
    if data.len() > MOST {
        text.push_str(&format!("  ... and {} more (--json prints all)\n", data.len() - MOST));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_of_a_few_numbers_is_marked() {
        let output = serde_json::json!({"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [-1.5, 7.0, 2.0]});
        assert_eq!(show(&output), "y FP32 [1, 3]\n    0  -1.5\n    1  7.0  <- highest\n    2  2.0\n");
    }

    #[test]
    fn a_model_name_is_one_path_segment() {
        assert_eq!(encode("a/b c"), "a%2Fb%20c");
    }
}
