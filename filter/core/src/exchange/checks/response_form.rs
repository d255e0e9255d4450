//! The forms of a response that may pass.
//!
//! Owns the only list of them: every other form is refused. Reads headers only.

use crate::denial::UpstreamFault;
use crate::driver::event::ResponseHead;

/// The response that the client of a request expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The answer to a request, alone or on a stream.
    Answer,
    /// Messages, if there are any.
    Messages,
    /// A status.
    Status,
}

/// How the body of a response is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// There is no body.
    Empty,
    /// One JSON text: each message in it is filtered.
    Json,
    /// Server-sent events: each message in them is filtered.
    Events,
    /// Only the status passes: the body is no message, such as `Accepted` with a 202.
    StatusOnly,
    /// An error without a JSON-RPC message, such as the error page of a proxy in front of the server.
    Error,
}

impl Shape {
    /// The form of a response.
    ///
    /// # Errors
    /// The form is not on the list.
    pub(crate) fn of(head: &ResponseHead, expected: Expected) -> Result<Self, UpstreamFault> {
        let succeeded = (200..300).contains(&head.status);
        match head.status {
            300..=399 => return Err(UpstreamFault::Redirect),
            ..200 => return Err(UpstreamFault::Upgrade),
            600.. => return Err(UpstreamFault::Status),
            // A 202 only confirms that the server received the message: clients read no answer in it.
            202 | 204 | 205 if expected == Expected::Answer => return Err(UpstreamFault::NoAnswer),
            204 | 205 => return Ok(Self::Empty),
            _ if head.last && succeeded && expected == Expected::Answer => {
                return Err(UpstreamFault::NoAnswer);
            }
            _ if head.last => return Ok(Self::Empty),
            _ => {}
        }
        let other = match (succeeded, head.status, expected) {
            (false, ..) => Ok(Self::Error),
            (true, 202, _) | (true, _, Expected::Status) => Ok(Self::StatusOnly),
            (true, _, Expected::Answer | Expected::Messages) => Err(UpstreamFault::ContentType),
        };
        if !matches!(head.content_encoding.trim_ascii(), b"" | b"identity") {
            return other.map_err(|fault| match fault {
                UpstreamFault::ContentType => UpstreamFault::ContentEncoding,
                fault => fault,
            });
        }
        match media(&head.content_type).as_deref() {
            Some("application/json") => Ok(Self::Json),
            Some("text/event-stream") => Ok(Self::Events),
            Some(_) | None => other,
        }
    }
}

/// The media type, when a reader that follows the header reads the text as UTF-8 (or a subset of it).
fn media(content_type: &[u8]) -> Option<String> {
    const UNICODE: [&str; 3] = ["utf-8", "utf8", "us-ascii"];
    let text = std::str::from_utf8(content_type).ok()?.to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next()?.to_owned();
    let charsets =
        parts.filter_map(|part| part.split_once('=')).filter(|(name, _)| name.trim() == "charset");
    let mut plain = charsets.map(|(_, value)| UNICODE.contains(&value.trim().trim_matches('"')));
    plain.all(|plain| plain).then_some(media)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::event::Origin;

    fn shape(
        status: u16,
        media: &str,
        coding: &str,
        expected: Expected,
    ) -> Result<Shape, UpstreamFault> {
        let head = ResponseHead {
            status,
            content_type: media.into(),
            content_encoding: coding.into(),
            session_id: Vec::new(),
            others: Vec::new(),
            origin: Origin::Upstream,
            last: false,
        };
        Shape::of(&head, expected)
    }

    // Findings 1.4, 1.6, 5.2, 5.9.
    #[test]
    fn what_is_not_a_known_form_does_not_pass() {
        use Expected::{Answer, Messages, Status};
        use UpstreamFault::{ContentEncoding, ContentType, NoAnswer, Redirect, Upgrade};
        for (status, media, coding, expected, shape_of) in [
            (200, "application/json", "", Messages, Ok(Shape::Json)),
            (200, "Application/JSON; charset=\"UTF-8\"", "identity", Messages, Ok(Shape::Json)),
            (200, "text/event-stream;charset=utf-8", "", Messages, Ok(Shape::Events)),
            (202, "application/json", "", Status, Ok(Shape::Json)),
            (202, "text/plain", "", Status, Ok(Shape::StatusOnly)),
            (202, "text/plain", "", Messages, Ok(Shape::StatusOnly)),
            (200, "text/plain", "", Status, Ok(Shape::StatusOnly)),
            (204, "", "", Messages, Ok(Shape::Empty)),
            (404, "text/html", "", Messages, Ok(Shape::Error)),
            (405, "", "", Status, Ok(Shape::Error)),
            (500, "application/json", "gzip", Messages, Ok(Shape::Error)),
            (404, "application/json", "", Messages, Ok(Shape::Json)),
            (200, "text/html", "", Messages, Err(ContentType)),
            (200, "", "", Messages, Err(ContentType)),
            (200, "text/event-stream; charset=utf-16", "", Messages, Err(ContentType)),
            (200, "application/json; charset=shift_jis", "", Messages, Err(ContentType)),
            (200, "application/json; charset=utf-8; charset=utf-7", "", Messages, Err(ContentType)),
            (200, "application/json", "gzip", Messages, Err(ContentEncoding)),
            (101, "", "", Messages, Err(Upgrade)),
            (307, "application/json", "", Messages, Err(Redirect)),
            (304, "", "", Status, Err(Redirect)),
            (600, "application/json", "", Answer, Err(UpstreamFault::Status)),
            (999, "", "", Status, Err(UpstreamFault::Status)),
            (200, "text/event-stream", "", Answer, Ok(Shape::Events)),
            (202, "application/json", "", Answer, Err(NoAnswer)),
            (202, "text/plain", "", Answer, Err(NoAnswer)),
            (202, "", "gzip", Answer, Err(NoAnswer)),
            (204, "", "", Answer, Err(NoAnswer)),
            (205, "application/json", "", Answer, Err(NoAnswer)),
            (200, "text/html", "", Answer, Err(ContentType)),
            (200, "application/json", "gzip", Answer, Err(ContentEncoding)),
            (404, "text/html", "", Answer, Ok(Shape::Error)),
        ] {
            assert_eq!(
                shape(status, media, coding, expected),
                shape_of,
                "{status} {media} {coding}"
            );
        }
    }
}
