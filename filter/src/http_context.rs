//! The host's callbacks for one HTTP stream, and their results.
//!
//! Owns the callbacks and the actions; [`crate::abi`] selects the stream.

/// Whether the host continues with the data that it showed.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It continues.
    Continue = 0,
    /// It holds the data. For a body, the host shows the held part again together with the next one.
    Pause = 1,
    /// For a body: it holds the part that it showed, and shows only the next ones. After a [`Action::Pause`] that is over,
    /// hosts without a fix of envoyproxy/envoy#46841 hold back the part that follows it.
    PauseShown = 2,
    /// For headers: it holds them and shows no body, regardless of `allow_on_headers_stop_iteration`.
    PauseAll = 4,
}

/// The callbacks of one HTTP stream. A callback without an implementation lets everything pass.
pub(crate) trait HttpContext {
    fn on_http_request_headers(&mut self, _count: usize, _last: bool) -> Action {
        Action::Continue
    }

    fn on_http_request_body(&mut self, _size: usize, _last: bool) -> Action {
        Action::Continue
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _count: usize, _last: bool) -> Action {
        Action::Continue
    }

    fn on_http_response_body(&mut self, _size: usize, _last: bool) -> Action {
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, _count: usize) -> Action {
        Action::Continue
    }

    fn on_log(&mut self) {}
}
