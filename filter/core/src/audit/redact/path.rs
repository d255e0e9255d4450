//! The parts of arguments that a policy marks as secret by path.
//!
//! Owns how a path is followed through objects and lists. [`JsonPath`] owns its form.

use super::name;
use crate::json_path::{EACH, JsonPath, SEPARATOR};

/// The remaining parts of paths at one place.
#[derive(Clone, Debug, Default)]
pub(super) struct Places<'a>(Vec<&'a str>);

/// What a policy marks of a member or an item.
pub(super) enum Inside<'a> {
    Secret,
    Shown(Places<'a>),
}

impl<'a> Places<'a> {
    pub(super) fn of(paths: &'a [JsonPath]) -> Self {
        Self(paths.iter().map(|path| path.joined()).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Descends into the member `name`. A path to the items of a list also covers an object at that place: an object
    /// instead of a list hides nothing from the path.
    pub(super) fn member(&self, name: &str) -> Inside<'a> {
        let mut inside = Self::default();
        for place in &self.0 {
            let mut place = *place;
            loop {
                let (step, rest) = place.split_once(SEPARATOR).unwrap_or((place, ""));
                let each = step == EACH;
                if each || name::same(step, name) {
                    if rest.is_empty() {
                        return Inside::Secret;
                    }
                    inside.add(rest);
                }
                if !each {
                    break;
                }
                place = rest;
            }
        }
        Inside::Shown(inside)
    }

    /// Descends into an item. A path to a member also covers the items of a list at that place: a list instead of an
    /// object hides nothing from the path.
    pub(super) fn item(&self) -> Inside<'a> {
        let mut inside = Self::default();
        for place in &self.0 {
            match place.split_once(SEPARATOR) {
                Some((EACH, rest)) => inside.add(rest),
                None if *place == EACH => return Inside::Secret,
                _ => inside.add(place),
            }
        }
        Inside::Shown(inside)
    }

    fn add(&mut self, place: &'a str) {
        if !self.0.contains(&place) {
            self.0.push(place);
        }
    }
}
