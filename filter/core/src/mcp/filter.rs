//! Filters one JSON-RPC message of a server while it passes.
//!
//! Owns which parts of a message are read, and which are removed: items of lists that the caller may not see. Every
//! result with a list is filtered, for any request. Everything else passes byte for byte, at any size: at most one item
//! of a list is in memory. Decides nothing about an item.

use std::borrow::Cow;

use serde_json::Value;

use super::Listing;
use super::list::{self, Setting};
use super::outcome::ToolOutcome;
use super::rows::{Rows, TextRows};
use crate::json::folded;
use crate::json::lexer::{Kind, Lexer, Malformed, Token, decoded};

/// A larger item of a list is removed.
pub const MAX_ITEM_BYTES: usize = 262_144;
/// The most bytes that are read of an id, a code or a setting.
const MAX_SMALL: usize = 4_096;
/// Further white space between two items is removed.
const MAX_SEPARATOR: usize = 1_024;

/// The decision on an item of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// It passes.
    Yes,
    /// It is removed.
    No,
}

/// The reason why a list, or an item of it, was removed regardless of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unreadable {
    /// An item larger than [`MAX_ITEM_BYTES`].
    TooLarge,
    /// An item that has no single meaning, or no name.
    Item,
    /// The member of the list has another type.
    List,
}

impl Unreadable {
    /// Its name in events and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Item => "item",
            Self::List => "list",
        }
    }
}

/// The receiver of what passes.
pub trait Reader {
    /// An item of a list, as written.
    fn item(&mut self, listing: Listing, item: &[u8]) -> Shown;
    /// Something unreadable was removed.
    fn unreadable(&mut self, listing: Listing, why: Unreadable);
    /// A message has passed.
    fn message(&mut self, seen: Seen);
}

/// The content of a message about the request that it answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The id; `None` when it is missing or unreadable.
    pub id: Option<Value>,
    /// The outcome, when the message is a response.
    pub outcome: Option<ToolOutcome>,
    /// The created task: MCP 2025-11-25 (`result.task`), or the extension of 2026-07-28 (`resultType: "task"`).
    pub task: Option<String>,
}

/// The facts of a message so far.
#[derive(Clone, Debug, Default)]
struct Notes {
    id: Option<Value>,
    error: Option<i64>,
    result: Option<Answer>,
}

#[derive(Clone, Debug, Default)]
struct Answer {
    is_error: bool,
    structured: Option<Rows>,
    content: Content,
    flat: bool,
    task_id: Option<String>,
    task: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct Content {
    items: u64,
    text: Option<Box<TextRows>>,
}

impl Notes {
    fn seen(self) -> Seen {
        let Self { id, error, result } = self;
        let task = result.as_ref().and_then(|answer| match answer.flat {
            true => answer.task_id.clone(),
            false => answer.task.clone(),
        });
        let outcome = match (error, &result) {
            (Some(code), _) => Some(ToolOutcome::ProtocolError(code)),
            (None, None) => None,
            (None, Some(answer)) if answer.is_error => Some(ToolOutcome::ToolError),
            (None, Some(answer)) => Some(match answer.rows() {
                None if answer.is_task() => ToolOutcome::Task,
                rows => ToolOutcome::Result { rows },
            }),
        };
        Seen { id, outcome, task }
    }
}

impl Answer {
    fn is_task(&self) -> bool {
        self.flat || self.task.is_some()
    }

    fn rows(&self) -> Option<u64> {
        match (&self.structured, &self.content) {
            (Some(rows), _) => rows.count(),
            (None, Content { items: 1, text: Some(text) }) => text.count(),
            (None, _) => None,
        }
    }
}

/// A container that is inspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Several messages at once: part of MCP 2025-03-26, and some servers still send them.
    Batch,
    Message,
    Error,
    Result,
    Task,
    Content,
    ContentItem,
    Structured,
    List(Listing),
}

/// The member that a value belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Id,
    Error,
    Result,
    Code,
    IsError,
    Structured,
    Content,
    ResultType,
    TaskId,
    Task,
    Text,
    Setting(Setting),
    List(Listing),
    Other,
}

/// How bytes are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// They pass.
    Pass,
    /// They pass, and are also kept: a small value.
    Note(Member),
    /// They pass; they are the text of a tool's result.
    Text,
    /// Between the items of a list.
    Separator,
    /// An item of a list.
    Item(Listing),
    /// A value that may be changed.
    Setting(Setting),
    /// A value that an empty list replaces.
    Replace,
}

/// The state of a passing message.
#[derive(Clone, Debug)]
pub struct MessageFilter {
    lexer: Lexer,
    /// The open containers that are inspected, each with the depth of its members.
    roles: Vec<(Role, usize)>,
    member: Member,
    mode: Mode,
    notes: Notes,
    /// Whether the result that is open carries a list.
    listed: bool,
    /// The kept bytes: an item, a separator, a small value.
    kept: Vec<u8>,
    overflow: bool,
    separator: Vec<u8>,
    /// Whether an item of the open list has passed.
    shown: bool,
    /// Settings that passed unchanged before any list: their position in the output, and the setting.
    pending: Vec<(usize, usize, Setting)>,
    /// The output can no longer be changed.
    released: bool,
    edited: bool,
    /// A line break is part of the frame of the message.
    framed: bool,
}

impl Default for MessageFilter {
    fn default() -> Self {
        Self {
            lexer: Lexer::default(),
            roles: Vec::new(),
            member: Member::Other,
            mode: Mode::Pass,
            notes: Notes::default(),
            listed: false,
            kept: Vec::new(),
            overflow: false,
            separator: Vec::new(),
            shown: false,
            pending: Vec::new(),
            released: false,
            edited: false,
            framed: false,
        }
    }
}

impl MessageFilter {
    /// Takes the next bytes; adds the output to `out`, which has the whole output so far unless it was
    /// [released](Self::release).
    ///
    /// # Errors
    /// [`Malformed`]: no further bytes may pass.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        reader: &mut dyn Reader,
    ) -> Result<(), Malformed> {
        let (mut at, mut from) = (0, 0);
        loop {
            let token = self.lexer.next(bytes, &mut at);
            // A value starts with the byte that showed it.
            let edge = match token {
                Ok(Some(Token::Start(_))) => at.saturating_sub(1),
                Ok(Some(Token::End(Kind::Object | Kind::Array)))
                    if matches!(self.mode, Mode::Separator) && self.closes_list() =>
                {
                    at.saturating_sub(1)
                }
                Ok(_) => at,
                Err(_) => from,
            };
            let Some(token) = token? else {
                self.pass(bytes.get(from..).unwrap_or_default(), out);
                return Ok(());
            };
            self.pass(bytes.get(from..edge).unwrap_or_default(), out);
            from = edge;
            self.take(token, out, reader)?;
            if let (Token::Start(Kind::Array), Mode::Separator) = (token, self.mode) {
                // Entered a list: its bracket precedes the kept bytes.
                out.push(b'[');
                from = at;
            }
        }
    }

    /// The next bytes are on another line of the frame; the line break itself has passed.
    ///
    /// # Errors
    /// See [`MessageFilter::feed`].
    pub fn line(&mut self, out: &mut Vec<u8>, reader: &mut dyn Reader) -> Result<(), Malformed> {
        self.framed = true;
        let before = out.len();
        self.feed(b"\n", out, reader)?;
        if out.len() > before && out.last() == Some(&b'\n') {
            out.pop();
        }
        Ok(())
    }

    /// Whether the message is whole.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.lexer.is_complete()
    }

    /// Whether a part was changed or removed.
    #[must_use]
    pub fn edited(&self) -> bool {
        self.edited
    }

    /// The id that was read so far.
    #[must_use]
    pub fn id(&self) -> Option<&Value> {
        self.notes.id.as_ref()
    }

    /// The output leaves `out` and can no longer be changed. If a list may still follow, the settings that it would
    /// change are changed now.
    pub fn release(&mut self, out: &mut Vec<u8>) {
        if !self.is_complete() {
            self.settle(out);
            self.released = true;
        }
        self.pending.clear();
    }

    /// Applies a list's requirements to the settings next to it.
    fn settle(&mut self, out: &mut Vec<u8>) {
        // From the end, so that earlier positions stay valid.
        for (from, to, setting) in std::mem::take(&mut self.pending).into_iter().rev() {
            if from <= to && to <= out.len() {
                self.edited = true;
                out.splice(from..to, setting.required().bytes());
            }
        }
    }

    fn closes_list(&self) -> bool {
        self.roles.last().is_some_and(|(_, depth)| self.lexer.depth() < *depth)
    }

    /// Bytes without a token.
    fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self.mode {
            Mode::Pass => out.extend_from_slice(bytes),
            Mode::Note(_) => {
                out.extend_from_slice(bytes);
                self.keep(bytes, MAX_SMALL);
            }
            Mode::Text => {
                out.extend_from_slice(bytes);
                if let Some(text) = self.text_rows() {
                    text.take(bytes);
                }
            }
            Mode::Separator => self.keep(bytes, MAX_SEPARATOR),
            Mode::Item(_) => self.keep(bytes, MAX_ITEM_BYTES),
            Mode::Setting(_) => self.keep(bytes, MAX_SMALL),
            Mode::Replace => {}
        }
    }

    fn text_rows(&mut self) -> Option<&mut TextRows> {
        self.notes.result.as_mut()?.content.text.as_deref_mut()
    }

    fn keep(&mut self, bytes: &[u8], most: usize) {
        let room = most.saturating_sub(self.kept.len());
        self.overflow |= bytes.len() > room;
        if !self.overflow {
            self.kept.extend_from_slice(bytes);
        }
    }

    fn start_keeping(&mut self, mode: Mode) {
        self.kept.clear();
        self.overflow = false;
        self.mode = mode;
    }

    fn take(
        &mut self,
        token: Token,
        out: &mut Vec<u8>,
        reader: &mut dyn Reader,
    ) -> Result<(), Malformed> {
        if let Some((Role::Structured, depth)) = self.roles.last().copied() {
            self.structured(token, depth);
            return Ok(());
        }
        match token {
            Token::Key => self.key(),
            Token::Start(kind) => {
                if self.roles.is_empty() && matches!(kind, Kind::String | Kind::Scalar) {
                    // JSON, but no message.
                    return Err(Malformed);
                }
                self.start(kind, out, reader);
                Ok(())
            }
            Token::End(_) => {
                self.end(out, reader);
                Ok(())
            }
        }
    }

    fn structured(&mut self, token: Token, depth: usize) {
        let rows = self.notes.result.as_mut().and_then(|answer| answer.structured.as_mut());
        if let Some(rows) = rows {
            rows.take(token, &mut self.lexer, depth.saturating_sub(1));
        }
        if self.lexer.depth() < depth {
            self.roles.pop();
        }
    }

    fn key(&mut self) -> Result<(), Malformed> {
        let Some((role, _)) = self.roles.last() else { return Ok(()) };
        self.member = match self.lexer.key() {
            Some(key) => Member::named(*role, key)?,
            None => Member::Other,
        };
        Ok(())
    }

    /// A value starts.
    fn start(&mut self, kind: Kind, out: &mut Vec<u8>, reader: &mut dyn Reader) {
        let container = matches!(kind, Kind::Object | Kind::Array);
        let entered = match (self.roles.last().map(|(role, _)| *role), kind) {
            (None | Some(Role::Batch), Kind::Array) => Some(Role::Batch),
            (None | Some(Role::Batch), Kind::Object) => {
                self.notes = Notes::default();
                Some(Role::Message)
            }
            // An item of a batch that is no message.
            (None | Some(Role::Batch), Kind::String | Kind::Scalar) => None,
            (Some(Role::List(listing)), _) => {
                self.separate();
                self.start_keeping(Mode::Item(listing));
                None
            }
            (Some(Role::Content), kind) => self.content_item(kind),
            (Some(_), kind) => self.value(kind, out, reader),
        };
        match entered {
            Some(role) => {
                self.roles.push((role, self.lexer.depth()));
                if let Role::List(_) = role {
                    self.shown = false;
                    self.start_keeping(Mode::Separator);
                }
            }
            None if container => self.lexer.skip(),
            None => {}
        }
    }

    /// The bytes kept between two items wait for the next item.
    fn separate(&mut self) {
        std::mem::swap(&mut self.separator, &mut self.kept);
        if self.overflow {
            self.separator.clear();
            self.separator.push(b',');
        }
    }

    fn content_item(&mut self, kind: Kind) -> Option<Role> {
        let content = &mut self.notes.result.as_mut()?.content;
        content.items = content.items.saturating_add(1);
        (content.items == 1 && kind == Kind::Object).then_some(Role::ContentItem)
    }

    /// The value of [`Self::member`]; returns the role of a container that is inspected.
    fn value(&mut self, kind: Kind, out: &mut Vec<u8>, reader: &mut dyn Reader) -> Option<Role> {
        let small = matches!(kind, Kind::String | Kind::Scalar);
        let object = |role| (kind == Kind::Object).then_some(role);
        match self.member {
            Member::Id => self.notes.id = None,
            Member::Error => {
                self.notes.error = Some(0);
                return object(Role::Error);
            }
            Member::Result => {
                self.notes.result = Some(Answer::default());
                self.listed = false;
                return object(Role::Result);
            }
            Member::Code => self.notes.error = Some(0),
            Member::Setting(setting) => {
                self.start_keeping(Mode::Setting(setting));
                return None;
            }
            Member::List(listing) => return self.list(listing, kind, out, reader),
            Member::Other => return None,
            Member::IsError
            | Member::Structured
            | Member::Content
            | Member::ResultType
            | Member::TaskId
            | Member::Task
            | Member::Text => {
                return self.answer(kind);
            }
        }
        if small {
            self.start_keeping(Mode::Note(self.member));
        }
        None
    }

    /// The value of a member of the result, or of what is in it.
    fn answer(&mut self, kind: Kind) -> Option<Role> {
        let depth = self.lexer.depth();
        let in_task = self.roles.last().is_some_and(|(role, _)| *role == Role::Task);
        let answer = self.notes.result.as_mut()?;
        match (self.member, kind) {
            (Member::IsError, _) => answer.is_error = false,
            (Member::Structured, kind) => {
                let mut rows = Rows::default();
                let base = match kind {
                    Kind::Object | Kind::Array => depth.saturating_sub(1),
                    Kind::String | Kind::Scalar => depth,
                };
                rows.take(Token::Start(kind), &mut self.lexer, base);
                answer.structured = Some(rows);
                return matches!(kind, Kind::Object | Kind::Array).then_some(Role::Structured);
            }
            (Member::Content, kind) => {
                answer.content = Content::default();
                return (kind == Kind::Array).then_some(Role::Content);
            }
            (Member::ResultType, _) => answer.flat = false,
            (Member::Task, kind) => {
                answer.task = None;
                return (kind == Kind::Object).then_some(Role::Task);
            }
            (Member::TaskId, _) if in_task => answer.task = None,
            (Member::TaskId, _) => answer.task_id = None,
            (Member::Text, kind) => {
                answer.content.text = None;
                if kind == Kind::String {
                    answer.content.text = Some(Box::default());
                    // The quotation mark passes before the text.
                    self.start_keeping(Mode::Text);
                }
                return None;
            }
            _ => return None,
        }
        if matches!(kind, Kind::String | Kind::Scalar) {
            self.start_keeping(Mode::Note(self.member));
        }
        None
    }

    fn list(
        &mut self,
        listing: Listing,
        kind: Kind,
        out: &mut Vec<u8>,
        reader: &mut dyn Reader,
    ) -> Option<Role> {
        match kind {
            Kind::Array => {
                self.listed = true;
                self.settle(out);
                Some(Role::List(listing))
            }
            // Some servers write `null` for an empty list; no reader finds items in a number.
            Kind::Scalar => None,
            Kind::Object | Kind::String => {
                reader.unreadable(listing, Unreadable::List);
                self.edited = true;
                out.extend_from_slice(b"[]");
                self.start_keeping(Mode::Replace);
                None
            }
        }
    }

    /// A value ends; all of its bytes were passed.
    fn end(&mut self, out: &mut Vec<u8>, reader: &mut dyn Reader) {
        match self.mode {
            Mode::Pass => {}
            Mode::Text | Mode::Replace => self.mode = Mode::Pass,
            Mode::Note(member) => {
                self.note(member);
                self.mode = Mode::Pass;
            }
            Mode::Setting(setting) => {
                self.set(setting, out);
                self.mode = Mode::Pass;
            }
            Mode::Item(listing) => {
                self.item(listing, out, reader);
                self.start_keeping(Mode::Separator);
                return;
            }
            Mode::Separator => {
                // The list ends: the bytes after its last item pass, and its bracket follows.
                self.separate();
                let blank = self.separator.iter().filter(|byte| **byte != b',');
                let framed = self.framed;
                out.extend(blank.map(|byte| unframed(*byte, framed)));
                self.mode = Mode::Pass;
            }
        }
        let depth = self.lexer.depth();
        if let Some((role, _)) = self.roles.last().copied().filter(|(_, members)| depth < *members)
        {
            self.roles.pop();
            match role {
                Role::Message => reader.message(std::mem::take(&mut self.notes).seen()),
                // There was no list: its settings stay.
                Role::Result => self.pending.clear(),
                Role::Batch
                | Role::Error
                | Role::Task
                | Role::Content
                | Role::ContentItem
                | Role::Structured
                | Role::List(_) => {}
            }
        }
    }

    fn item(&mut self, listing: Listing, out: &mut Vec<u8>, reader: &mut dyn Reader) {
        let shown = if self.overflow {
            reader.unreadable(listing, Unreadable::TooLarge);
            Shown::No
        } else {
            reader.item(listing, &self.kept)
        };
        match shown {
            Shown::No => self.edited = true,
            Shown::Yes => {
                let (first, framed) = (!std::mem::replace(&mut self.shown, true), self.framed);
                let separator = self.separator.iter().filter(|byte| !first || **byte != b',');
                out.extend(separator.map(|byte| unframed(*byte, framed)));
                if framed {
                    out.extend(self.kept.iter().map(|byte| unframed(*byte, framed)));
                } else {
                    out.extend_from_slice(&self.kept);
                }
            }
        }
    }

    fn set(&mut self, setting: Setting, out: &mut Vec<u8>) {
        let stands = !self.overflow && setting.allows(&self.kept);
        let from = out.len();
        if self.overflow || (!stands && (self.listed || self.released)) {
            self.edited = true;
            out.extend_from_slice(setting.required().as_bytes());
            return;
        }
        let framed = self.framed;
        out.extend(self.kept.iter().map(|byte| unframed(*byte, framed)));
        if !stands {
            // More than a few repeated settings are an attack.
            if self.pending.len() < 16 {
                self.pending.push((from, out.len(), setting));
            } else {
                self.edited = true;
                out.truncate(from);
                out.extend_from_slice(setting.required().as_bytes());
            }
        }
    }

    fn note(&mut self, member: Member) {
        let value: Option<Value> = match self.overflow {
            true => None,
            false => serde_json::from_slice(&self.kept).ok(),
        };
        let text = || value.as_ref().and_then(Value::as_str).map(str::to_owned);
        let in_task = self.roles.last().is_some_and(|(role, _)| *role == Role::Task);
        match (member, self.notes.result.as_mut()) {
            (Member::Id, _) => self.notes.id = value,
            (Member::Code, _) => {
                self.notes.error = Some(value.and_then(|code| code.as_i64()).unwrap_or_default());
            }
            (Member::IsError, Some(answer)) => {
                answer.is_error = value.and_then(|value| value.as_bool()) == Some(true);
            }
            (Member::ResultType, Some(answer)) => {
                answer.flat = value.as_ref().and_then(Value::as_str) == Some("task");
            }
            (Member::TaskId, Some(answer)) if in_task => answer.task = text(),
            (Member::TaskId, Some(answer)) => answer.task_id = text(),
            _ => {}
        }
    }
}

/// Removes a line break between the tokens of a list, because it belongs to the frame.
fn unframed(byte: u8, framed: bool) -> u8 {
    if framed && byte == b'\n' { b' ' } else { byte }
}

impl Member {
    /// The member with that name in a container. All spellings of a name count, in any case, because some readers
    /// ignore case.
    fn named(role: Role, key: &[u8]) -> Result<Self, Malformed> {
        match role {
            Role::Batch | Role::Content | Role::Structured | Role::List(_) => Ok(Self::Other),
            Role::Message | Role::Result | Role::Error | Role::Task | Role::ContentItem => {
                let name = plain(key)?;
                Ok(Self::of(role, &name))
            }
        }
    }

    fn of(role: Role, name: &str) -> Self {
        match (role, name) {
            (Role::Message, "id") => Self::Id,
            (Role::Message, "error") => Self::Error,
            (Role::Message, "result") => Self::Result,
            (Role::Error, "code") => Self::Code,
            (Role::Task, "taskid") => Self::TaskId,
            (Role::ContentItem, "text") => Self::Text,
            (Role::Result, name) => match name {
                "iserror" => Self::IsError,
                "structuredcontent" => Self::Structured,
                "content" => Self::Content,
                "resulttype" => Self::ResultType,
                "taskid" => Self::TaskId,
                "task" => Self::Task,
                _ => match (list::listing(name), Setting::named(name)) {
                    (Some(listing), _) => Self::List(listing),
                    (None, Some(setting)) => Self::Setting(setting),
                    (None, None) => Self::Other,
                },
            },
            _ => Self::Other,
        }
    }
}

/// A member's name without escapes, in lower case. A control character that is not escaped (RFC 8259, section 7) makes
/// it no name: a reader that leaves out the line breaks of an event's data would find another one.
fn plain(key: &[u8]) -> Result<Cow<'_, str>, Malformed> {
    let name = match key.contains(&b'\\') {
        true => Cow::Owned(decoded(key).ok_or(Malformed)?),
        false => Cow::Borrowed(std::str::from_utf8(key).map_err(|_| Malformed)?),
    };
    if name.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return Ok(name);
    }
    if key.iter().any(|byte| *byte < 0x20) {
        return Err(Malformed);
    }
    Ok(Cow::Owned(folded(&name)))
}

#[cfg(test)]
mod tests;
