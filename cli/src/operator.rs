//! `portcullis operator`: Redis users for people, each limited to its organisations and tasks.
//!
//! Owns how such a user is created and shown. `redis-lua` owns which commands on which keys a task needs; Redis
//! enforces that a user runs nothing else.

use portcullis_core::auth::api_key::KeyDigest;
use portcullis_core::id::OrgId;
use portcullis_redis_lua::{Realm, Task, rules};
use serde_json::json;

use crate::args::{AclArgs, CreateOperatorArgs, Form, RemoveOperatorArgs, Rights, Session};
use crate::private_file;
use crate::random::base62;
use crate::report::{CliError, Report, progress, table};
use crate::session::beyond;
use crate::store::{AclUser, Store};

const PASSWORD_LENGTH: usize = 43;
/// Where users are found.
const PLACE: &str = "ACL LIST";

pub(crate) fn create(session: &Session, args: &CreateOperatorArgs) -> Result<Report, CliError> {
    args.rights.within(session)?;
    let mut store = Store::open(session)?;
    let users = store.users()?;
    let same = users.iter().find(|user| user.name == args.name);
    if let (Some(_), false) = (same, args.replace) {
        return Err(CliError::new(format!("there is a user {} already", args.name), PLACE)
            .expected("another name, or --replace, which also changes the password"));
    }
    same.map_or(Ok(()), |user| user.within(session))?;
    let there = same.is_some();
    if users.iter().any(|user| user.name == "default" && user.needs_no_password()) {
        progress(
            "warning: the user default needs no password: whoever reaches this Redis may do all. Set \
             `user default off` (docs/reference/redis-keys.md)",
        );
    }
    let password = base62(PASSWORD_LENGTH)?;
    let digest = KeyDigest::of(password.as_bytes()).to_hex();
    let url = store.url_for(&args.name, &password);
    if let Some(path) = &args.out {
        let place = path.display().to_string();
        private_file::create(path, &format!("{url}\n")).map_err(|error| {
            CliError::new(format!("cannot be made: {error}"), place)
                .expected("the name of a file that does not exist yet, in a directory that does")
        })?;
    }
    let granted: Vec<String> =
        ["on".to_owned(), format!("#{digest}")].into_iter().chain(args.rights.rules()).collect();
    store.set_user(&args.name, &granted)?;
    for org in &args.rights.org {
        store.lists_organisation(org)?;
    }
    // Redis asks for a password only when a connection opens, so open connections have to end.
    let ended = there.then(|| store.end_connections(&args.name));
    if let Some(Err(refusal)) = &ended {
        progress(&format!(
            "warning: connections that {} has open go on without the new password ({}). End them as an administrator with \
             `CLIENT KILL USER {}`, on every node of a Cluster",
            args.name,
            refusal.found(),
            args.name
        ));
    }
    let saved = store.save_users();
    if let Err(refusal) = &saved {
        progress(&format!(
            "warning: done, and gone when Redis restarts: the users could not be saved ({}). Add the line of `portcullis \
             operator acl {} … --form aclfile --password-sha256 {digest}` to the aclfile, also of replicas",
            refusal.found(),
            args.name
        ));
    }
    let shown = match &args.out {
        Some(path) => format!("The URL is in {}.", path.display()),
        None => {
            format!("  {url}\n\nThis is shown once: Redis keeps only the SHA-256 of the password.")
        }
    };
    let environment = match args.rights.org.as_slice() {
        [only] => format!("\nSet PORTCULLIS_REDIS to it, and PORTCULLIS_ORG={only}."),
        _ => "\nSet PORTCULLIS_REDIS to it.".to_owned(),
    };
    let text = format!("operator {}: {}\n\n{shown}{environment}", args.name, args.rights.told());
    let json = json!({
        "operator": args.name,
        "organisations": args.rights.organisations(),
        "tasks": args.rights.tasks().iter().map(|task| task.as_str()).collect::<Vec<_>>(),
        "url": args.out.is_none().then_some(url),
        "password_sha256": digest,
        "saved": saved.is_ok(),
        "connections_ended": ended.and_then(Result::ok),
    });
    let report = Report::done(text, json);
    Ok(match args.out {
        Some(_) => report,
        None => report.only_here(
            format!("the password of operator {} is shown here alone", args.name),
            "the same command with --replace, and an output that can be written or --out FILE",
        ),
    })
}

pub(crate) fn acl(session: &Session, args: &AclArgs) -> Result<Report, CliError> {
    args.rights.within(session)?;
    let password = match &args.password_sha256 {
        Some(digest) => format!("#{digest}"),
        None => ">PASSWORD".to_owned(),
    };
    let rules = args.rights.rules();
    let text = match args.form {
        // A shell and redis-cli would split a selector at its spaces, and expand its stars.
        Form::Setuser => {
            let quoted: Vec<String> = rules
                .iter()
                .map(
                    |rule| if rule.starts_with('(') { format!("\"{rule}\"") } else { rule.clone() },
                )
                .collect();
            format!("ACL SETUSER {} reset on {password} {}", args.name, quoted.join(" "))
        }
        Form::Aclfile => format!("user {} on {password} {}", args.name, rules.join(" ")),
        Form::AccessString => format!("on {}", rules.join(" ")),
    };
    let json = json!({
        "operator": args.name,
        "organisations": args.rights.organisations(),
        "rules": rules,
        "text": text,
    });
    Ok(Report::done(text, json))
}

pub(crate) fn list(session: &Session) -> Result<Report, CliError> {
    let mut store = Store::open(session)?;
    let users = store.users()?;
    let header = ["USER", "ORG", "TASKS", "STATE"];
    let (mut rows, mut views) = (Vec::new(), Vec::new());
    let only = session.organisation.as_ref().map(OrgId::as_str);
    // An operator of all organisations is one of each.
    let is_shown = |org: Option<&str>| only.is_none() || org.is_none() || org == only;
    for (user, org, tasks) in users.iter().flat_map(parts) {
        if !is_shown(org.as_deref()) {
            continue;
        }
        let names: Vec<&str> = tasks.iter().map(|task| task.as_str()).collect();
        let state = if user.is_on() { "on" } else { "off" };
        let shown = org.clone().unwrap_or_else(|| "all".to_owned());
        rows.push([user.name.clone(), shown, names.join(", "), state.to_owned()]);
        views.push(json!({ "user": user.name, "org": org, "tasks": names, "on": user.is_on() }));
    }
    let text = match rows.is_empty() {
        true => "no user has the rights of an operator made by portcullis operator".to_owned(),
        false => table(header, rows),
    };
    Ok(Report::done(text, json!({ "operators": views })))
}

fn parts(user: &AclUser) -> impl Iterator<Item = (&AclUser, Option<String>, Vec<Task>)> {
    user.tasks().into_iter().map(move |(org, tasks)| (user, org, tasks))
}

pub(crate) fn remove(session: &Session, args: &RemoveOperatorArgs) -> Result<Report, CliError> {
    let mut store = Store::open(session)?;
    if session.organisation.is_some() {
        let users = store.users()?;
        let same = users.iter().find(|user| user.name == args.name);
        same.map_or(Ok(()), |user| user.within(session))?;
    }
    if !store.delete_user(&args.name)? {
        return Err(CliError::new(format!("there is no user {}", args.name), PLACE)
            .expected("the name of a user")
            .next("portcullis operator list"));
    }
    if let Err(refusal) = store.save_users() {
        progress(&format!(
            "warning: done, and back when Redis restarts: the users could not be saved ({}). Remove the user's line from \
             the aclfile",
            refusal.found()
        ));
    }
    let text = format!("user {} is removed, and the user's connections are closed", args.name);
    Ok(Report::done(text, json!({ "removed": args.name })))
}

impl AclUser {
    /// Refuses, with `--organisation`, a user that has other rights than an operator of that organisation.
    fn within(&self, session: &Session) -> Result<(), CliError> {
        let Some(only) = &session.organisation else { return Ok(()) };
        let all = || "all organisations".to_owned();
        let of: Vec<String> =
            self.tasks().into_iter().map(|(org, _)| org.unwrap_or_else(all)).collect();
        let what = match of.as_slice() {
            [] => "is no operator".to_owned(),
            of if of.iter().all(|org| org == only.as_str()) => return Ok(()),
            of => format!("is an operator of {}", of.join(", ")),
        };
        Err(beyond(only, &format!("the user {} {what}", self.name), PLACE))
    }
}

impl Rights {
    /// Refuses `--all` beside `--organisation`.
    fn within(&self, session: &Session) -> Result<(), CliError> {
        match &session.organisation {
            Some(only) if self.all => {
                let next =
                    "--org in place of --all; or leave --organisation and PORTCULLIS_ORG out";
                Err(beyond(only, "--all names all organisations", "the command line").next(next))
            }
            _ => Ok(()),
        }
    }

    fn tasks(&self) -> Vec<Task> {
        let wanted: Vec<Task> = self.task.iter().map(|task| Task::from(*task)).collect();
        let has = |task: &Task| *task == Task::Read || wanted.contains(task);
        Task::ALL.into_iter().filter(has).collect()
    }

    fn rules(&self) -> Vec<String> {
        let realms: Vec<Realm<'_>> = match self.all {
            true => vec![Realm::All],
            false => self.org.iter().map(|org| Realm::Org(org.as_str())).collect(),
        };
        rules(&realms, &self.tasks())
    }

    fn organisations(&self) -> Option<&[OrgId]> {
        (!self.all).then_some(self.org.as_slice())
    }

    fn told(&self) -> String {
        let tasks: Vec<&str> = self.tasks().iter().map(|task| task.as_str()).collect();
        let organisations: Vec<&str> = self.org.iter().map(OrgId::as_str).collect();
        let of = if self.all { "all organisations".to_owned() } else { organisations.join(", ") };
        format!("{} of {of}", tasks.join(", "))
    }
}
