//! What the host calls of one HTTP stream, and what it is answered.
//!
//! Owns the callbacks and the actions; which stream is called is for [`crate::abi`] to know.

/// Whether the host goes on with what it showed.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It does.
    Continue = 0,
    /// It holds it. Of a body, what was shown before is shown again with what comes.
    Pause = 1,
    /// Of headers: it holds them and shows no body, whatever `allow_on_headers_stop_iteration` is.
    PauseAll = 4,
}

/// The callbacks of one HTTP stream. What is not implemented lets everything pass.
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
