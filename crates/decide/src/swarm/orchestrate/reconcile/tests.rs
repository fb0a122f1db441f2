//! A cluster as text, and what is done to it as text. See [`notation`].

mod lifecycle;
mod notation;
mod play;
mod rolling;
mod world;

use notation::{read, write};

use crate::swarm::orchestrate::reconcile;

/// Checks the decisions for the service `web`, and that none are left once they are carried out.
#[track_caller]
fn check(cluster: &str, expected: &str) {
    let (view, now) = read(cluster);
    let mut number = 0;
    let mut ids = || {
        number += 1;
        format!("n{number}")
    };
    let plan = reconcile(&view, "web", now, &mut ids);
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|it| !it.is_empty()).collect();
    assert_eq!(write(&view, &plan), expected, "{cluster}");
    let (view, goes_back) = notation::apply(view, &plan, now);
    if !goes_back {
        let more = reconcile(&view, "web", now, &mut ids);
        assert_eq!(more.changes, [], "once more: {cluster}");
        let late = more.again.is_some_and(|needed| plan.again.is_none_or(|at| at > needed));
        assert!(!late, "{:?} is too late, {:?} is needed: {cluster}", plan.again, more.again);
    }
}
