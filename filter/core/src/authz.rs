//! Whether a principal may do what a message asks for.
//!
//! Owns the verdict and the rule it names. Knows nothing of credentials, limits or transport.

use crate::auth::Principal;
use crate::denial::Denial;
use crate::id::PolicyName;
use crate::mcp::{Message, Operation};
use crate::policy::{Policy, ToolGrant};

/// Judges `message` on `connector`.
///
/// # Errors
/// The refusal, with its rule.
pub fn judge(
    policy: &Policy,
    principal: &Principal,
    connector: &PolicyName,
    message: &Message,
) -> Result<(), Denial> {
    let Some(grant) = policy.grant(&principal.role, connector) else {
        return Err(Denial::Forbidden { rule: format!("roles.{}.{connector}", principal.role) });
    };
    match &message.operation {
        Operation::Housekeeping
        | Operation::ListTools
        | Operation::Response
        | Operation::Listen
        | Operation::EndSession => Ok(()),
        Operation::Unknown => Err(Denial::UnknownMethod(message.method.clone())),
        Operation::CallTool(call) if grant.allow.matches(&call.name) => Ok(()),
        Operation::CallTool(call) if grant.show.matches(&call.name) => {
            Err(Denial::Forbidden { rule: format!("roles.{}.{connector}.show", principal.role) })
        }
        Operation::CallTool(call) => Err(Denial::UnknownTool(call.name.clone())),
    }
}

/// Whether the holder of `grant` sees the tool `name` in a list.
#[must_use]
pub fn sees(grant: &ToolGrant, name: &str) -> bool {
    grant.allow.matches(name) || grant.show.matches(name)
}
