//! `matches` in conditions: the dialect of pinned schemas ([`crate::pattern`]), with a budget for each evaluation.
//!
//! Owns the budget during an evaluation: CEL passes a function only its arguments.

use std::cell::RefCell;

use cel::ExecutionError;
use cel::common::types::{CelBool, CelString};
use cel::common::value::CowVal;

use crate::id::OrgId;
use crate::pattern::Budget;

/// Whether a regular expression, which must be a literal, matches somewhere in a text.
pub(super) const MATCHES: &str = "matches";

thread_local! {
    /// The remaining budget of the current evaluation.
    static BUDGET: RefCell<Budget> = RefCell::new(Budget::default());
}

/// Starts an evaluation.
pub(super) fn begin(org: &OrgId) {
    BUDGET.set(Budget::of(org));
}

pub(super) fn matches<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let mut texts = args.iter().map(|arg| arg.downcast_ref::<CelString<'_>>());
    let (Some(Some(text)), Some(Some(pattern))) = (texts.next(), texts.next()) else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    let matched = BUDGET.with_borrow_mut(|budget| budget.matches(pattern.inner(), text.inner()));
    let matched = matched.map_err(|_| {
        ExecutionError::function_error(MATCHES, "the text is too long, or takes too many steps")
    })?;
    Ok(CowVal::owned(CelBool::from(matched)))
}
