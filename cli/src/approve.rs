//! `portcullis approve`: what waits for a person, and the person's word.
//!
//! Owns how an id is resolved and what is shown. That a granted call is made once is Redis's and the
//! filter's business.

use std::time::Duration;

use portcullis_core::audit::AdminAction;
use portcullis_core::authz::approval;
use portcullis_core::id::OrgId;
use portcullis_redis_lua::{Decide, DecideReply, Decision};
use serde_json::{Value, json};

use crate::admin_log::AdminLog;
use crate::args::{ApproveListArgs, DecideArgs, Session};
use crate::escape;
use crate::report::{CliError, Report, table};
use crate::store::{Approval, Store};
use crate::time::{Seconds, in_short};

pub(crate) fn list(session: &Session, args: &ApproveListArgs) -> Result<Report, CliError> {
    let mut store = Store::open(session)?;
    let mut approvals = Vec::new();
    for org in organisations(&mut store, args.org.as_ref())? {
        for digest in store.approval_digests(&org, "")? {
            approvals.extend(store.approval(&org, &digest)?);
        }
    }
    let header =
        ["ID", "STATE", "EXPIRES IN", "ORG", "CALLER", "TOOL", "ARGUMENTS", "ASKED", "REQUEST"];
    let rows: Vec<_> = approvals.iter().map(row).collect();
    let text = if rows.is_empty() { "no call waits".to_owned() } else { table(header, rows) };
    let views: Vec<_> = approvals.iter().map(view).collect();
    Ok(Report::done(text, json!({ "approvals": views })))
}

/// Calls of these organisations without a decision, for scripts.
pub(crate) fn waiting(store: &mut Store, organisations: &[OrgId]) -> Result<Vec<Value>, CliError> {
    let mut waiting = Vec::new();
    for org in organisations {
        for digest in store.approval_digests(org, "")? {
            let approval = store.approval(org, &digest)?;
            waiting.extend(approval.filter(|it| it.state == "pending").map(|it| view(&it)));
        }
    }
    Ok(waiting)
}

pub(crate) fn grant(session: &Session, args: &DecideArgs) -> Result<Report, CliError> {
    decide(session, args, Decision::Grant)
}

pub(crate) fn deny(session: &Session, args: &DecideArgs) -> Result<Report, CliError> {
    decide(session, args, Decision::Deny)
}

fn decide(session: &Session, args: &DecideArgs, decision: Decision) -> Result<Report, CliError> {
    let now = Seconds::now();
    let left = args.expires.seconds(now).0.saturating_sub(now.0);
    if left == 0 {
        return Err(CliError::usage("--expires is in the past").expected("a duration, such as 15m"));
    }
    let life = Duration::from_secs(left);
    let mut store = Store::open(session)?;
    let admin_log = AdminLog::new(session, &mut store, Some(&args.reason))?;
    let (org, approval) = find(&mut store, args)?;
    asked_by(args.request.as_deref(), &args.id, &approval)?;
    let digest = approval.waiting.digest.clone();
    let (action, end) = match decision {
        Decision::Grant => (
            AdminAction::CallGrant,
            "Granted: the same call is let through, once. If it is made again later, it waits again, under this id.",
        ),
        Decision::Deny => {
            (AdminAction::CallDeny, "Denied: the same call is refused until this expires.")
        }
    };
    let reply = store.until_done("the call was not decided on", |store| {
        let last = store.last_entry(&org)?;
        let entry = admin_log.of_call(action, &approval.waiting, last.as_deref());
        let last_entry = last.as_deref();
        let (org, digest, entry) = (org.as_str(), digest.as_str(), entry.as_str());
        let (document, own) = (approval.document.as_slice(), approval.own.as_deref());
        let decide = Decide { org, digest, document, own, decision, life, last_entry, entry };
        match store.decide(&decide)? {
            DecideReply::Conflict => Ok(None),
            reply => Ok(Some(reply)),
        }
    })?;
    if let DecideReply::NotPending { state } = reply {
        let found = match state {
            Some(state) if state == "pending" => {
                format!("another request waits under {} now", args.id)
            }
            Some(state) => format!("the call {} is {state} already", args.id),
            None => format!("the call {} does not wait any more", args.id),
        };
        return Err(CliError::new(found, format!("the calls of {org}"))
            .expected("the call that was read, and that it waits; nothing was changed")
            .next("portcullis approve list"));
    }
    let state = match decision {
        Decision::Grant => "granted",
        Decision::Deny => "denied",
    };
    let approval =
        Approval { state: state.to_owned(), left_ms: left.saturating_mul(1_000), ..approval };
    let text = format!("{}\n\n{end}", details(&approval));
    Ok(Report::done(text, json!({ "approval": view(&approval) })))
}

fn organisations(store: &mut Store, only: Option<&OrgId>) -> Result<Vec<OrgId>, CliError> {
    match only {
        Some(org) => Ok(vec![org.clone()]),
        None => store.organisations(),
    }
}

/// The one call with this id. An id is the start of a digest: two calls may share it, and then neither is meant.
fn find(store: &mut Store, args: &DecideArgs) -> Result<(OrgId, Approval), CliError> {
    let mut found = Vec::new();
    for org in organisations(store, args.org.as_ref())? {
        for digest in store.approval_digests(&org, &args.id)? {
            found.extend(store.approval(&org, &digest)?.map(|approval| (org.clone(), approval)));
        }
    }
    let place = "the calls that wait";
    match (found.pop(), found.is_empty()) {
        (Some(found), true) => Ok(found),
        (None, _) => Err(CliError::new(format!("no call {} waits", args.id), place)
            .expected("the id of a call that was refused for want of approval, and has not expired")
            .next("portcullis approve list")),
        (Some(_), false) => {
            Err(CliError::new(format!("several calls start with {}", args.id), place).expected(
                "more digits of the digest that portcullis approve list --output json shows",
            ))
        }
    }
}

/// Refuses what another request asked for than the one that an operator looked at.
fn asked_by(request: Option<&str>, id: &str, approval: &Approval) -> Result<(), CliError> {
    let asked = &approval.waiting.request_id;
    match request.is_none_or(|request| request == asked) {
        true => Ok(()),
        false => Err(CliError::new(format!("request {asked} is waiting under {id}"), "--request")
            .expected(format!("--request {asked}; nothing was changed"))
            .next("portcullis approve list")),
    }
}

fn row(approval: &Approval) -> [String; 9] {
    let Approval { state, left_ms, waiting, .. } = approval;
    [
        approval::id(&waiting.digest).to_owned(),
        state.clone(),
        in_short(*left_ms),
        waiting.org.to_string(),
        format!("{} ({})", waiting.principal, waiting.client_id),
        format!("{}/{}", waiting.connector, waiting.tool),
        waiting.arguments.to_string(),
        waiting.asked_at.clone(),
        waiting.request_id.clone(),
    ]
}

fn details(approval: &Approval) -> String {
    let labels = [
        "id",
        "state",
        "expires in",
        "organisation",
        "caller",
        "tool",
        "arguments",
        "asked",
        "request",
    ];
    let rows = labels.into_iter().zip(row(approval));
    let rows = rows.map(|(label, value)| format!("{label:<13} {}", escape::line(&value)));
    rows.collect::<Vec<_>>().join("\n")
}

fn view(approval: &Approval) -> Value {
    let Approval { state, left_ms, waiting, .. } = approval;
    let mut view = json!({
        "id": approval::id(&waiting.digest), "state": state, "expires_in_ms": left_ms,
    });
    if let (Value::Object(view), Ok(Value::Object(waiting))) =
        (&mut view, serde_json::to_value(waiting))
    {
        view.extend(waiting);
    }
    view
}
